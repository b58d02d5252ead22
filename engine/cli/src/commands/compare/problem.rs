//! `tracetune compare --problem`

use std::collections::BTreeMap;

use arrow::array::Array;
use arrow::util::display::array_value_to_string;
use serde_json::json;
use similar::TextDiff;
use tracetune_engine::cache::Store;
use tracetune_engine::compare::{CompareError, Comparison, ProblemDraws};

use super::explained;
use crate::exit;
use crate::session::Session;
use crate::ui::{helped, numbers, style, table};

/// What tells the bugs of a problem apart: draws are compared over one of them.
const BUG: &str = "buggy";
const VERDICT: &str = "verdict";

/// Shows all that the baseline and the last side wrote for a problem, what flipped first.
pub(super) fn show(comparison: &Comparison, problem: &str, store: &Store, session: &Session) -> anyhow::Result<u8> {
    let draws = comparison.draws_of(store, problem).map_err(|error| match error {
        CompareError::NoProblem { .. } => {
            let flipped = comparison.flips.iter().flat_map(|flips| flips.won.iter().chain(&flips.lost)).next();
            let help = flipped.map_or_else(
                || "`tracetune show` lists a stage's rows".to_owned(),
                |id| format!("one that flipped is `{id}`"),
            );
            helped(error.to_string(), help)
        }
        error => explained(error, store),
    })?;
    let names = [&comparison.sides[0], &comparison.sides[comparison.sides.len() - 1]].map(|side| side.name());
    let [before, after] = draws.each_ref().map(Draws::new);
    let pair = pair(&before, &after);
    if session.ui.json {
        let side = |name: &String, draws: &Draws, chosen: usize| {
            let rows = table::json_rows(&draws.source.rows);
            json!({
                "side": name, "stage": draws.source.stage, "node": draws.source.node,
                "samples": draws.len(), "row": rows.get(chosen), "rows": rows,
            })
        };
        let sides = [side(&names[0], &before, pair.0), side(&names[1], &after, pair.1)];
        session.ui.answer_json(&json!({"problem": problem, "flips": pair.2, "sides": sides}));
        return Ok(exit::DONE);
    }
    for ((sign, name), draws) in ["-", "+"].iter().zip(&names).zip([&before, &after]) {
        session.ui.answer(format_args!("{sign} {name}, {}: {}", draws.source.node, draws.summary()));
    }
    print(&before, &after, pair, session);
    Ok(exit::DONE)
}

/// A problem's rows on one side, as text.
struct Draws<'a> {
    source: &'a ProblemDraws,
    columns: BTreeMap<String, Vec<String>>,
}

impl<'a> Draws<'a> {
    fn new(source: &'a ProblemDraws) -> Self {
        let schema = source.rows.schema();
        let text = |values: &dyn Array, row| {
            if values.is_null(row) { String::new() } else { array_value_to_string(values, row).unwrap_or_default() }
        };
        let columns =
            schema.fields().iter().zip(source.rows.columns()).map(|(field, values)| {
                (field.name().clone(), (0..values.len()).map(|row| text(values, row)).collect())
            });
        Self { source, columns: columns.collect() }
    }

    fn len(&self) -> usize {
        self.source.rows.num_rows()
    }

    fn value(&self, column: &str, row: usize) -> &str {
        self.columns.get(column).and_then(|values| values.get(row)).map_or("", String::as_str)
    }

    fn passes(&self, row: usize) -> bool {
        self.value(VERDICT, row) == "pass"
    }

    /// `3 of 8 draws pass`.
    fn summary(&self) -> String {
        let all = numbers::counted(self.len() as u64, "draw");
        if !self.columns.contains_key(VERDICT) {
            return all;
        }
        let passing = (0..self.len()).filter(|&row| self.passes(row)).count();
        format!("{passing} of {all} pass")
    }

    /// The draw's own number, or its place.
    fn number(&self, row: usize) -> String {
        match self.value("sample", row) {
            "" => row.to_string(),
            "-1" => "greedy".to_owned(),
            number => number.to_owned(),
        }
    }

    fn rows_of(&self, bug: &str) -> Vec<usize> {
        (0..self.len()).filter(|&row| self.value(BUG, row) == bug).collect()
    }

    /// The value of a column in these rows, if it is one.
    fn common(&self, column: &str, rows: &[usize]) -> Option<&str> {
        let first = self.value(column, *rows.first()?);
        rows.iter().all(|&row| self.value(column, row) == first).then_some(first)
    }
}

/// A draw of each side over one bug, and whether the one passes and the other does not: first as the sides differ.
fn pair(before: &Draws, after: &Draws) -> (usize, usize, bool) {
    let rate =
        |draws: &Draws| (0..draws.len()).filter(|&row| draws.passes(row)).count() as f64 / draws.len().max(1) as f64;
    let won = rate(after) >= rate(before);
    let pairs = || (0..before.len()).flat_map(|ours| (0..after.len()).map(move |theirs| (ours, theirs)));
    let same_bug = |&(ours, theirs): &(usize, usize)| before.value(BUG, ours) == after.value(BUG, theirs);
    let flips = |won: bool| {
        pairs().filter(same_bug).find(|&(ours, theirs)| before.passes(ours) != won && after.passes(theirs) == won)
    };
    let (flip, any) = (flips(won).or_else(|| flips(!won)), pairs().find(same_bug));
    let (ours, theirs) = flip.or(any).unwrap_or_default();
    (ours, theirs, flip.is_some())
}

fn print(before: &Draws, after: &Draws, (ours, theirs, flips): (usize, usize, bool), session: &Session) {
    let answer = |text: String| session.ui.answer(text);
    let rows = [before.rows_of(before.value(BUG, ours)), after.rows_of(after.value(BUG, theirs))];
    let hidden = (before.len() - rows[0].len(), after.len() - rows[1].len());
    // What all draws of a side have in common is told once.
    let schema = after.source.rows.schema();
    let columns = schema.fields().iter().map(|field| field.name().as_str());
    let (common, own): (Vec<&str>, Vec<&str>) = columns
        .partition(|column| before.common(column, &rows[0]).is_some() && after.common(column, &rows[1]).is_some());
    for column in common {
        answer(format!("\n{}", difference(column, before.value(column, ours), after.value(column, theirs))));
    }
    let numbers = (before.number(ours), after.number(theirs));
    let words = if flips { "The flip" } else { "No flip; the first draws" };
    answer(format!("\n{}", style::heading(&format!("{words}: - draw {}, + draw {}", numbers.0, numbers.1))));
    for column in &own {
        answer(format!("\n{}", difference(column, before.value(column, ours), after.value(column, theirs))));
    }
    for (sign, draws, rows, shown) in [("-", before, &rows[0], ours), ("+", after, &rows[1], theirs)] {
        for &row in rows.iter().filter(|&&row| row != shown) {
            answer(format!(
                "\n{}",
                style::heading(&format!("{sign} draw {}: {}", draws.number(row), draws.value(VERDICT, row)))
            ));
            for column in own.iter().filter(|column| ![VERDICT, "sample"].contains(column)) {
                let value = draws.value(column, row);
                if value.contains('\n') {
                    answer(format!("{column}\n{}", indented(value, "  ")));
                } else if !value.is_empty() {
                    answer(format!("{column}  {value}"));
                }
            }
        }
    }
    if hidden != (0, 0) {
        let all = numbers::counted((hidden.0 + hidden.1) as u64, "draw");
        answer(format!(
            "\n{}",
            style::dim(&format!("{all} over other bugs of the problem: `tracetune show RUN STAGE --problem ID`"))
        ));
    }
}

/// A column's value, or how the two differ.
fn difference(column: &str, old: &str, new: &str) -> String {
    if old == new {
        return format!("{}\n{}", style::heading(column), indented(new, "  "));
    }
    let diff = TextDiff::from_lines(old, new);
    let lines =
        diff.iter_all_changes().map(|change| format!("{} {}", change.tag(), change.value().trim_end_matches('\n')));
    format!("{}\n{}", style::heading(column), lines.collect::<Vec<_>>().join("\n"))
}

fn indented(text: &str, by: &str) -> String {
    text.trim_end().lines().map(|line| format!("{by}{line}")).collect::<Vec<_>>().join("\n")
}
