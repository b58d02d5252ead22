//! `tracetune compare --over PARAM`

use serde_json::json;
use tracetune_engine::cache::Store;
use tracetune_engine::compare::{self, Pooled, PooledFigure, PooledMetricDifference, Seeds};
use tracetune_engine::table::Record;

use super::{Args, Captioned, explained, interval, letter, print, signed};
use crate::exit;
use crate::out_file::write_table;
use crate::session::Session;
use crate::ui::table::cut;
use crate::ui::{numbers, results, style};

/// Prints what the sides gave together. JSON: `{over, sides, metrics, differences, metric_differences}`.
pub(super) fn show(over: &str, store: &Store, args: &Args, session: &Session) -> anyhow::Result<u8> {
    let pooled = compare::compare_over(store, &args.sides, over).map_err(|error| explained(error, store))?;
    if let Some(path) = &args.out {
        let lines = compare::PooledLine::write(&pooled.lines())?;
        write_table(path, &lines.schema(), [Ok(lines.clone())])?;
    }
    if session.ui.json {
        let side = |side: &Seeds| {
            let members: Vec<_> = side
                .labels
                .iter()
                .zip(&side.members)
                .map(|(label, member)| {
                    let run = &member.run.record.id;
                    json!({"value": label, "run": run, "variant": member.variant, "round": member.round})
                })
                .collect();
            json!({"variant": side.variant, "round": side.round, "members": members})
        };
        session.ui.answer_json(&json!({
            "over": pooled.over,
            "sides": pooled.sides.iter().map(side).collect::<Vec<_>>(),
            "metrics": pooled.metrics,
            "differences": pooled.differences,
            "metric_differences": pooled.metric_differences,
        }));
        return Ok(exit::DONE);
    }
    print(&tables(&pooled), args.markdown, session);
    let note = format!("[low, high]: 95 % interval over problems and values of `{over}`");
    session.ui.answer(format_args!("\n{}", style::dim(&note)));
    if let Some(path) = &args.out {
        session.ui.story(format_args!("\nwritten to {}", path.display()));
    }
    Ok(exit::DONE)
}

fn tables(pooled: &Pooled) -> Vec<Captioned> {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let rows = pooled.sides.iter().enumerate().map(|(place, side)| {
        let mut rounds: Vec<String> = side.members.iter().map(|member| member.round.to_string()).collect();
        rounds.dedup();
        let mut runs: Vec<&str> = side.members.iter().map(|member| member.run.record.id.as_str()).collect();
        runs.dedup();
        vec![letter(place), side.variant.clone(), rounds.join(", "), side.labels.join(", "), cut(&runs.join(" "), 80)]
    });
    let header = owned(&["side", "variant", ">round", &pooled.over, "runs"]);
    let mut tables = vec![Captioned { caption: format!("Pooled over {}", pooled.over), header, rows: rows.collect() }];
    let mut splits: Vec<&str> = pooled.metrics.iter().map(|line| line.split.as_str()).collect();
    splits.sort_unstable();
    splits.dedup();
    for split in splits {
        let lines: Vec<_> = pooled.metrics.iter().filter(|line| line.split == split).collect();
        let by_stage = lines.iter().any(|line| line.stage.is_some());
        let rows = lines.iter().map(|line| {
            let percent = results::is_share(&line.metric);
            let name = if percent { format!("{} %", line.metric) } else { line.metric.clone() };
            let figures = line.figures.iter().enumerate().map(|(place, figure)| {
                let all = pooled.sides[place].members.len();
                figure.as_ref().map(|figure| cell(figure, percent, all)).unwrap_or_default()
            });
            let stage = by_stage.then(|| line.stage.clone().unwrap_or_default());
            std::iter::once(name).chain(stage).chain(figures).collect()
        });
        let rows = rows.collect();
        let letters = (0..pooled.sides.len()).map(|place| format!(">{}", letter(place)));
        let header = std::iter::once("metric".to_owned()).chain(by_stage.then(|| "stage".to_owned())).chain(letters);
        tables.push(Captioned { caption: split.to_owned(), header: header.collect(), rows });
    }
    if !pooled.differences.is_empty() {
        let points = |value: f64| format!("{:+.1}", value * 100.0);
        let rows = pooled.differences.iter().map(|one| {
            let by_seed: Vec<String> = one.by_seed.iter().map(|value| points(*value)).collect();
            let difference = &one.difference;
            vec![
                letter(one.side),
                one.split.clone(),
                one.metric.clone(),
                numbers::count(one.problems as u64),
                numbers::count(one.seeds as u64),
                format!("{} [{}, {}]", points(difference.value), points(difference.low), points(difference.high)),
                by_seed.join(" "),
            ]
        });
        let rows = rows.collect();
        let each = format!("by {}", pooled.over);
        let seeds = format!(">{}s", pooled.over);
        let header = owned(&["side", "split", "metric", ">problems", &seeds, ">points", &each]);
        let caption = format!("Against A, over the same problems and the same {}", pooled.over);
        tables.push(Captioned { caption, header, rows });
    }
    tables.extend(metric_differences(pooled));
    tables
}

/// The differences of metrics that have no problems behind them, where there are any.
fn metric_differences(pooled: &Pooled) -> Option<Captioned> {
    let moved = pooled.metric_differences.iter().filter(|one| one.by_seed.iter().any(|value| *value != 0.0));
    let moved: Vec<&PooledMetricDifference> = moved.collect();
    let by_stage = moved.iter().any(|one| one.stage.is_some());
    let rows = moved.iter().map(|one| {
        let percent = results::is_share(&one.metric);
        let by_seed: Vec<String> = one.by_seed.iter().map(|value| signed(*value, None, percent)).collect();
        let name = if percent { format!("{} %", one.metric) } else { one.metric.clone() };
        let mut cells = vec![letter(one.side), one.split.clone()];
        cells.extend(by_stage.then(|| one.stage.clone().unwrap_or_default()));
        let difference = signed(one.value, one.ci_low.zip(one.ci_high), percent);
        cells.extend([name, numbers::count(one.seeds as u64), difference, by_seed.join(" ")]);
        cells
    });
    let rows: Vec<Vec<String>> = rows.collect();
    let mut header = vec!["side".to_owned(), "split".to_owned()];
    header.extend(by_stage.then(|| "stage".to_owned()));
    let over = &pooled.over;
    header.extend(["metric".to_owned(), format!(">{over}s"), ">difference".to_owned(), format!("by {over}")]);
    let caption = format!("Other metrics against A, by the same {over}; intervals over values of `{over}` alone");
    (!rows.is_empty()).then_some(Captioned { caption, header, rows })
}

/// A figure; of how many values it is, where some of its side have none.
fn cell(figure: &PooledFigure, percent: bool, all: usize) -> String {
    let shown = interval(figure.value, figure.ci_low.zip(figure.ci_high), percent);
    if figure.seeds < all { format!("{shown} ({} of {all})", figure.seeds) } else { shown }
}
