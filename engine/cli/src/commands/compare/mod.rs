//! `tracetune compare`

mod paper;
mod pooled;
mod problem;

use std::path::PathBuf;

use serde_json::json;
use tracetune_engine::cache::Store;
use tracetune_engine::compare::{self, CompareError, Comparison, Flips};
use tracetune_engine::diagnostic::{instead, list, nearest};
use tracetune_engine::runs::MetricLine;
use tracetune_engine::statistics::Estimate;
use tracetune_engine::table::Record;

use super::runs;
use crate::exit;
use crate::out_file::write_table;
use crate::session::Session;
use crate::ui::results;
use crate::ui::table::{Words, cut};
use crate::ui::{helped, numbers, style};

/// Compare runs, or variants of a run: settings, metrics, problems that flipped
///
/// The first one is the baseline. Differences of pass@1 are paired by task (a problem with one bug), with a 95 % interval
/// over problems; McNemar's exact test is over the problems that only one side solves, with at least half of its draws.
/// What can't be compared is said: other problems behind the same ids, other bugs, greedy draws against sampled ones.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tracetune compare latest                       a run's first results against its last, variant by variant
  tracetune compare 20261122-1930 20261122-2010  two runs, by the beginnings of their ids
  tracetune compare latest:main@0 latest:no-trace@3
  tracetune compare latest:main@0 latest:main@selected
  tracetune compare latest:main@0:base_evaluation latest:main@3:evaluation
  tracetune compare RUN RUN2 RUN3 --over seed    runs with other seeds, taken together: means, gains over the first results
  tracetune compare latest --problem mini/test/00007
  tracetune compare latest --paper")]
pub(crate) struct Args {
    /// `RUN`, `RUN:VARIANT` or `RUN:VARIANT@ROUND`; `:STAGE` behind it where several stages have results
    #[arg(required = true, value_name = "RUN")]
    sides: Vec<String>,
    /// Show all that the baseline and the last side wrote for this problem, what flipped first, as a diff
    #[arg(long, value_name = "ID")]
    problem: Option<String>,
    /// Put the figures beside the paper's, with what is different about the set-up
    #[arg(long, conflicts_with_all = ["problem", "out"])]
    paper: bool,
    /// Pool runs or variants that differ in this parameter alone, e.g. `seed`, with the variance between them in the intervals
    #[arg(long, value_name = "PARAM", conflicts_with_all = ["problem", "paper"])]
    over: Option<String>,
    /// Put the answer into Markdown tables
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// Also write the comparison as a Parquet table
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// How many flipped problems are named.
const NAMED: usize = 5;
/// From so many comparisons on, some differ by chance alone.
const MANY: usize = 5;

/// Prints the comparison. JSON: `{sides, params, metrics, flips, notes}`.
pub(crate) fn compare(args: &Args, session: &Session) -> anyhow::Result<u8> {
    let store = session.store_here()?;
    if let Some(over) = &args.over {
        return pooled::show(over, &store, args, session);
    }
    let comparison = compare::compare(&store, &args.sides).map_err(|error| explained(error, &store))?;
    if let Some(path) = &args.out {
        let lines = compare::ComparisonLine::write(&comparison.lines())?;
        write_table(path, &lines.schema(), [Ok(lines.clone())])?;
    }
    if let Some(problem) = &args.problem {
        return problem::show(&comparison, problem, &store, session);
    }
    if args.paper {
        return paper::beside(&comparison, &store, args, session);
    }
    if session.ui.json {
        let sides: Vec<_> = comparison
            .sides
            .iter()
            .map(|side| {
                let run = &side.run.record.id;
                json!({"run": run, "variant": side.variant, "round": side.round, "stage": side.stage})
            })
            .collect();
        session.ui.answer_json(&json!({
            "sides": sides,
            "params": comparison.params,
            "metrics": comparison.metrics,
            "flips": comparison.flips,
            "notes": comparison.notes,
        }));
        return Ok(exit::DONE);
    }
    print(&tables(&comparison), args.markdown, session);
    print_notes(&comparison, args.markdown, session);
    let intervals = comparison.flips.len();
    if intervals >= MANY {
        let note = format!(
            "{intervals} comparisons: by chance alone about {:.1} of the intervals leave out 0; Holm's p holds for all together",
            intervals as f64 * 0.05
        );
        session.ui.answer(format_args!("\n{}", style::dim(&note)));
    }
    if let Some(path) = &args.out {
        session.ui.story(format_args!("\nwritten to {}", path.display()));
    }
    Ok(exit::DONE)
}

/// The error with what to do about it.
pub(super) fn explained(error: CompareError, store: &Store) -> anyhow::Error {
    let error = match error {
        CompareError::Runs(error) => return runs::explained(error, store),
        error => error,
    };
    let message = error.to_string();
    match &error {
        CompareError::NoVariant { variant, known, .. } => {
            let help = instead(variant, known.iter().map(String::as_str), "its variants are");
            helped(message, help)
        }
        CompareError::NoRound { known, .. } => {
            let rounds: Vec<String> = known.iter().map(i32::to_string).collect();
            helped(message, format!("its rounds are {}", list(&rounds)))
        }
        CompareError::NoStage { known, .. } => helped(message, format!("its stages are {}", list(known))),
        CompareError::NoParam { name, known, .. } => match nearest(name, known.iter().map(String::as_str)) {
            Some(near) => helped(message, format!("did you mean `{near}`?")),
            None if known.is_empty() => helped(message, "a version wrote it that kept no parameters: run it again"),
            None => helped(message, format!("its variants differ in {}", list(known))),
        },
        CompareError::NoneSelected { .. } => {
            helped(message, "a loop with `select` does; name a round by its number: `RUN:main@3`")
        }
        CompareError::NoRows { .. } => helped(message, "`gc` removed them: `tracetune run` makes them again"),
        CompareError::OneValue { over, .. } => helped(
            message,
            format!("name further runs that differ in `{over}`, or those sides that they all have: `RUN:main`"),
        ),
        CompareError::NotOver { over, .. } => helped(
            message,
            format!(
                "only figures that differ by chance can be pooled; without `--over {over}` they are put side by side"
            ),
        ),
        CompareError::SameValue { .. } => helped(message, "name each run once"),
        CompareError::OneSide { .. } => {
            helped(message, "name a second run, or two of its rounds: `RUN:main@0 RUN:main@3`")
        }
        _ => error.into(),
    }
}

/// A table with words above it.
struct Captioned {
    caption: String,
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Captioned {
    fn text(&self) -> String {
        let mut words = Words::new(&self.header);
        self.rows.iter().for_each(|row| words.row(row.iter().cloned()));
        format!("{}\n{}", style::heading(&self.caption), words.text(usize::MAX))
    }

    fn markdown(&self) -> String {
        let line = |cells: &[String]| {
            let cells: Vec<String> =
                cells.iter().map(|cell| cell.trim_start_matches('>').replace('|', "\\|")).collect();
            format!("| {} |", cells.join(" | "))
        };
        let rule: Vec<&str> =
            self.header.iter().map(|name| if name.starts_with('>') { "--:" } else { "---" }).collect();
        let rows: Vec<String> = self.rows.iter().map(|row| line(row)).collect();
        format!("**{}**\n\n{}\n| {} |\n{}", self.caption, line(&self.header), rule.join(" | "), rows.join("\n"))
    }
}

/// A setting's value. Numbers of 32 bits have the digits that their author wrote: 0.8, and not 0.800000011920929.
fn written(value: &serde_json::Value) -> String {
    match value.as_f64().filter(|_| value.is_f64()) {
        Some(number) if f64::from(number as f32) == number => (number as f32).to_string(),
        _ => value.to_string(),
    }
}

/// `A`, `B`, …, `Z`, `S27`.
fn letter(place: usize) -> String {
    match u8::try_from(place) {
        Ok(place @ 0..26) => char::from(b'A' + place).to_string(),
        _ => format!("S{}", place + 1),
    }
}

fn tables(comparison: &Comparison) -> Vec<Captioned> {
    let letters = || (0..comparison.sides.len()).map(letter);
    let with_stage = comparison.sides.iter().any(|side| side.stage.is_some());
    let sides = comparison.sides.iter().enumerate();
    let side_rows = sides.map(|(place, side)| {
        let mut cells = vec![letter(place), side.run.record.id.clone(), side.variant.clone(), side.round.to_string()];
        cells.extend(with_stage.then(|| side.stage.clone().unwrap_or_default()));
        cells
    });
    let header = ["side", "run", "variant", ">round"].into_iter().chain(with_stage.then_some("stage"));
    let header = header.map(str::to_owned).collect();
    let mut tables = vec![Captioned { caption: "Sides".to_owned(), header, rows: side_rows.collect() }];
    if !comparison.params.is_empty() {
        let value =
            |value: &Option<serde_json::Value>| value.as_ref().map_or("-".to_owned(), |value| cut(&written(value), 40));
        let rows = comparison
            .params
            .iter()
            .map(|param| std::iter::once(param.name.clone()).chain(param.values.iter().map(value)).collect());
        let header = std::iter::once("setting".to_owned()).chain(letters()).collect();
        tables.push(Captioned { caption: "Settings that differ".to_owned(), header, rows: rows.collect() });
    }
    let mut splits: Vec<&str> = comparison.metrics.iter().map(|line| line.split.as_str()).collect();
    splits.dedup();
    splits.sort_unstable();
    splits.dedup();
    for split in splits {
        let lines: Vec<_> = comparison.metrics.iter().filter(|line| line.split == split).collect();
        let by_stage = lines.iter().any(|line| line.stage.is_some());
        let rows = lines.iter().map(|line| {
            let percent = results::is_share(&line.metric);
            let name = if percent { format!("{} %", line.metric) } else { line.metric.clone() };
            let figure =
                |figure: &Option<MetricLine>| figure.as_ref().map(|figure| cell(figure, percent)).unwrap_or_default();
            let stage = by_stage.then(|| line.stage.clone().unwrap_or_default());
            std::iter::once(name).chain(stage).chain(line.figures.iter().map(figure)).collect()
        });
        let rows = rows.collect();
        let header = std::iter::once("metric".to_owned()).chain(by_stage.then(|| "stage".to_owned()));
        let header = header.chain(letters().map(|letter| format!(">{letter}"))).collect();
        tables.push(Captioned { caption: split.to_owned(), header, rows });
    }
    tables.extend(flip_table(&comparison.flips));
    tables
}

/// The differences, with the columns that tell them apart.
fn flip_table(all: &[Flips]) -> Option<Captioned> {
    let first = all.first()?;
    let one_metric = all.iter().all(|flips| flips.metric == first.metric);
    let by_stage = all
        .iter()
        .any(|flips| all.iter().filter(|other| (other.side, &other.split) == (flips.side, &flips.split)).count() > 1);
    let by_task = all.iter().any(|flips| flips.tasks != flips.problems);
    let points = if one_metric { format!(">{} points", first.metric) } else { ">points".to_owned() };
    let columns = [
        (true, "side"),
        (true, "split"),
        (by_stage, "stage"),
        (!one_metric, "metric"),
        (true, ">problems"),
        (by_task, ">tasks"),
        (true, &points),
        (true, ">won"),
        (true, ">lost"),
        (true, ">McNemar p"),
        (true, ">Holm p"),
        (true, "e.g."),
    ];
    let shown = columns.map(|(shown, _)| shown);
    let chosen =
        |cells: Vec<String>| cells.into_iter().zip(shown).filter(|(_, shown)| *shown).map(|(cell, _)| cell).collect();
    Some(Captioned {
        caption: "Against A, over the same problems".to_owned(),
        header: chosen(columns.iter().map(|(_, name)| (*name).to_owned()).collect()),
        rows: all.iter().map(|flips| chosen(flip_cells(flips))).collect(),
    })
}

fn cell(figure: &MetricLine, percent: bool) -> String {
    interval(figure.value, figure.ci_low.zip(figure.ci_high), percent)
}

/// A figure with its interval, if it has one.
fn interval(value: f64, ends: Option<(f64, f64)>, percent: bool) -> String {
    let scale = if percent { 100.0 } else { 1.0 };
    match ends {
        Some(ends) => with_ends(value, ends, scale, |number, decimals| format!("{number:.decimals$}")),
        None => numbers::plain(value * scale),
    }
}

/// A difference with its sign, and its interval if it has one.
fn signed(value: f64, ends: Option<(f64, f64)>, percent: bool) -> String {
    let scale = if percent { 100.0 } else { 1.0 };
    match ends {
        Some(ends) => with_ends(value, ends, scale, |number, decimals| format!("{number:+.decimals$}")),
        None if value > 0.0 => format!("+{}", numbers::plain(value * scale)),
        None => numbers::plain(value * scale),
    }
}

/// `41.2 [39.3, 43.1]`, with as many decimals as the interval's width allows.
fn with_ends(value: f64, (low, high): (f64, f64), scale: f64, text: fn(f64, usize) -> String) -> String {
    let decimals = numbers::decimals((high - low) / 2.0 * scale);
    let [value, low, high] = [value, low, high].map(|number| text(number * scale, decimals));
    format!("{value} [{low}, {high}]")
}

/// A cell for each column that a difference can have.
fn flip_cells(flips: &Flips) -> Vec<String> {
    let p = |p: f64| if p < 0.0001 { "< 0.0001".to_owned() } else { format!("{p:.4}") };
    let named: Vec<&str> = flips.won.iter().chain(&flips.lost).take(NAMED).map(String::as_str).collect();
    vec![
        letter(flips.side),
        flips.split.clone(),
        flips.stage.clone(),
        flips.metric.clone(),
        numbers::count(flips.problems as u64),
        numbers::count(flips.tasks as u64),
        points(flips),
        numbers::count(flips.won.len() as u64),
        numbers::count(flips.lost.len() as u64),
        p(flips.p_value),
        p(flips.p_adjusted),
        named.join(" "),
    ]
}

/// A difference in points, with its interval where it has one.
fn points(flips: &Flips) -> String {
    let points = |value: f64| format!("{:+.1}", value * 100.0);
    let Estimate { value, low, high } = flips.difference;
    let interval = format!(" [{}, {}]", points(low), points(high));
    points(value) + if low.is_finite() && high.is_finite() { &interval } else { "" }
}

/// What is not compared, or does not mean what it seems to.
fn print_notes(comparison: &Comparison, markdown: bool, session: &Session) {
    let lead = if markdown { "- " } else { "" };
    for (index, note) in comparison.notes.iter().enumerate() {
        let gap = if index == 0 { "\n" } else { "" };
        session.ui.answer(format_args!("{gap}{lead}{}, {}: {}", letter(note.side), note.split, note.text));
    }
}

fn print(tables: &[Captioned], markdown: bool, session: &Session) {
    for (index, table) in tables.iter().enumerate() {
        let gap = if index > 0 { "\n" } else { "" };
        let text = if markdown { table.markdown() } else { table.text() };
        session.ui.answer(format_args!("{gap}{text}"));
    }
}
