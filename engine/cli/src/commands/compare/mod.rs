//! `tracetune compare`

mod paper;

use std::path::PathBuf;

use arrow::array::{Array, RecordBatch};
use arrow::util::display::array_value_to_string;
use serde_json::json;
use similar::TextDiff;
use tracetune_engine::cache::Store;
use tracetune_engine::compare::{self, CompareError, Comparison, Flips};
use tracetune_engine::diagnostic::{list, nearest};
use tracetune_engine::runs::MetricRow;
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
/// The first one is the baseline. Differences of pass@1 are paired by problem, with a 95 % bootstrap interval;
/// McNemar's exact test is over the problems that only one side solves, with at least half of its samples.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tracetune compare latest                       a run's first results against its last, variant by variant
  tracetune compare 20261122-1930 20261122-2010  two runs, by the beginnings of their ids
  tracetune compare latest:main@0 latest:no-trace@3
  tracetune compare latest --problem mini/test/00007
  tracetune compare latest --paper")]
pub(crate) struct Args {
    /// `RUN`, `RUN:VARIANT` or `RUN:VARIANT@ROUND`
    #[arg(required = true, value_name = "RUN")]
    sides: Vec<String>,
    /// Show what the baseline and the last side wrote for this problem, as a diff
    #[arg(long, value_name = "ID")]
    problem: Option<String>,
    /// Put the figures beside the paper's, with what is different about the set-up
    #[arg(long, conflicts_with_all = ["problem", "out"])]
    paper: bool,
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

/// Prints the comparison. JSON: `{sides, params, metrics, flips}`.
pub(crate) fn compare(args: &Args, session: &Session) -> anyhow::Result<u8> {
    let store = session.store_here()?;
    let comparison = compare::compare(&store, &args.sides).map_err(|error| explained(error, &store))?;
    if let Some(path) = &args.out {
        let lines = compare::ComparisonLine::write(&comparison.lines())?;
        write_table(path, &lines.schema(), [Ok(lines.clone())])?;
    }
    if let Some(problem) = &args.problem {
        return show_problem(&comparison, problem, &store, session);
    }
    if args.paper {
        return paper::beside(&comparison, &store, args, session);
    }
    if session.ui.json {
        let sides: Vec<_> = comparison
            .sides
            .iter()
            .map(|side| json!({"run": side.run.record.id, "variant": side.variant, "round": side.round}))
            .collect();
        session.ui.answer_json(&json!({
            "sides": sides,
            "params": comparison.params,
            "metrics": comparison.metrics,
            "flips": comparison.flips,
        }));
        return Ok(exit::DONE);
    }
    print(&tables(&comparison), args.markdown, session);
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

fn explained(error: CompareError, store: &Store) -> anyhow::Error {
    let error = match error {
        CompareError::Runs(error) => return runs::explained(error, store),
        error => error,
    };
    let message = error.to_string();
    match &error {
        CompareError::NoVariant { variant, known, .. } => {
            let help = match nearest(variant, known.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("its variants are {}", list(known)),
            };
            helped(message, help)
        }
        CompareError::NoRound { known, .. } => {
            let rounds: Vec<String> = known.iter().map(i32::to_string).collect();
            helped(message, format!("its rounds are {}", list(&rounds)))
        }
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
    let sides = comparison.sides.iter().enumerate();
    let side_rows = sides.map(|(place, side)| {
        vec![letter(place), side.run.record.id.clone(), side.variant.clone(), side.round.to_string()]
    });
    let header = ["side", "run", "variant", ">round"].map(str::to_owned).to_vec();
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
        let lines = comparison.metrics.iter().filter(|line| line.split == split);
        let rows = lines.map(|line| {
            let percent = results::is_share(&line.metric);
            let name = if percent { format!("{} %", line.metric) } else { line.metric.clone() };
            let figure =
                |figure: &Option<MetricRow>| figure.as_ref().map(|figure| cell(figure, percent)).unwrap_or_default();
            std::iter::once(name).chain(line.figures.iter().map(figure)).collect()
        });
        let rows = rows.collect();
        let header = std::iter::once("metric".to_owned()).chain(letters().map(|letter| format!(">{letter}"))).collect();
        tables.push(Captioned { caption: split.to_owned(), header, rows });
    }
    if !comparison.flips.is_empty() {
        let header = ["side", "split", ">problems", ">pass@1 points", ">won", ">lost", ">McNemar p", ">Holm p", "e.g."];
        let rows = comparison.flips.iter().map(flip_row).collect();
        let caption = "Against A, over the same problems".to_owned();
        tables.push(Captioned { caption, header: header.map(str::to_owned).to_vec(), rows });
    }
    tables
}

fn cell(figure: &MetricRow, percent: bool) -> String {
    let scale = if percent { 100.0 } else { 1.0 };
    match (figure.ci_low, figure.ci_high) {
        (Some(low), Some(high)) => {
            let decimals = numbers::decimals((high - low) / 2.0 * scale);
            let number = |value: f64| format!("{:.decimals$}", value * scale);
            format!("{} [{}, {}]", number(figure.value), number(low), number(high))
        }
        _ => numbers::plain(figure.value * scale),
    }
}

fn flip_row(flips: &Flips) -> Vec<String> {
    let points = |value: f64| format!("{:+.1}", value * 100.0);
    let difference = &flips.difference;
    let p = |p: f64| if p < 0.0001 { "< 0.0001".to_owned() } else { format!("{p:.4}") };
    let named: Vec<&str> = flips.won.iter().chain(&flips.lost).take(NAMED).map(String::as_str).collect();
    vec![
        letter(flips.side),
        flips.split.clone(),
        numbers::count(flips.problems as u64),
        format!("{} [{}, {}]", points(difference.value), points(difference.low), points(difference.high)),
        numbers::count(flips.won.len() as u64),
        numbers::count(flips.lost.len() as u64),
        p(flips.p_value),
        p(flips.p_adjusted),
        named.join(" "),
    ]
}

fn print(tables: &[Captioned], markdown: bool, session: &Session) {
    for (index, table) in tables.iter().enumerate() {
        let gap = if index > 0 { "\n" } else { "" };
        let text = if markdown { table.markdown() } else { table.text() };
        session.ui.answer(format_args!("{gap}{text}"));
    }
}

/// A row of a problem on one side.
struct Shown {
    name: String,
    stage: String,
    rows: RecordBatch,
    row: usize,
}

impl Shown {
    fn value(&self, column: &str) -> Option<String> {
        let values = self.rows.column_by_name(column)?;
        (!values.is_null(self.row)).then(|| array_value_to_string(values, self.row).unwrap_or_default())
    }
}

fn show_problem(comparison: &Comparison, problem: &str, store: &Store, session: &Session) -> anyhow::Result<u8> {
    let mut shown = Vec::new();
    for side in [comparison.sides.first(), comparison.sides.last()].into_iter().flatten() {
        let Some((stage, rows)) = side.rows_of(store, problem)? else {
            let help = comparison.flips.first().and_then(|flips| flips.won.first().or(flips.lost.first()));
            let help = help
                .map_or("`tracetune show` lists a stage's rows".to_owned(), |id| format!("one that flipped is `{id}`"));
            return Err(helped(format!("{} has no rows of problem `{problem}`", side.name()), help));
        };
        // A sample that passes says more than one that does not.
        let verdicts = rows.column_by_name("verdict").cloned();
        let passes = |row: &usize| {
            verdicts
                .as_ref()
                .is_some_and(|verdicts| array_value_to_string(verdicts, *row).is_ok_and(|text| text == "pass"))
        };
        let row = (0..rows.num_rows()).find(passes).unwrap_or_default();
        shown.push(Shown { name: side.name(), stage, rows, row });
    }
    let [before, after] = shown.as_slice() else { return Ok(exit::DONE) };
    let schema = after.rows.schema();
    let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    if session.ui.json {
        let side = |shown: &Shown| {
            let values: serde_json::Map<String, serde_json::Value> =
                columns.iter().map(|column| ((*column).to_owned(), json!(shown.value(column)))).collect();
            json!({"side": shown.name, "stage": shown.stage, "samples": shown.rows.num_rows(), "row": values})
        };
        session.ui.answer_json(&json!({"problem": problem, "sides": [side(before), side(after)]}));
        return Ok(exit::DONE);
    }
    for (letter, shown) in ["-", "+"].iter().zip([before, after]) {
        let samples = numbers::counted(shown.rows.num_rows() as u64, "sample");
        session.ui.answer(format_args!("{letter} {}, {} ({samples})", shown.name, shown.stage));
    }
    for column in columns {
        match (before.value(column), after.value(column)) {
            (Some(old), Some(new)) if old == new => {
                session.ui.answer(format_args!("\n{}\n{}", style::heading(column), indented(&new, "  ")));
            }
            (old, new) => {
                let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
                session.ui.answer(format_args!("\n{}", style::heading(column)));
                let diff = TextDiff::from_lines(&old, &new);
                let lines: Vec<String> = diff
                    .iter_all_changes()
                    .map(|change| format!("{} {}", change.tag(), change.value().trim_end_matches('\n')))
                    .collect();
                session.ui.answer(lines.join("\n"));
            }
        }
    }
    Ok(exit::DONE)
}

fn indented(text: &str, by: &str) -> String {
    text.trim_end().lines().map(|line| format!("{by}{line}")).collect::<Vec<_>>().join("\n")
}
