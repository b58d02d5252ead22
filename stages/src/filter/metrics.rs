//! What a filter counts: its metrics a round show how the loop fares.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;
use tracetune_engine::table::{RecordError, read_column};

use super::JudgedRow;
use crate::facts;
use crate::metrics::{Bounds, MetricRow, clustered_mean, plain};

/// Rows and problems, verified and kept, and why rows were dropped; where some were judged inside, how many were not.
pub(super) fn counts(rows: &[JudgedRow], reasons: &[Option<String>], outside: Option<&[bool]>) -> Vec<MetricRow> {
    let splits: BTreeSet<&str> = rows.iter().map(|row| row.split.as_str()).collect();
    let mut metrics = Vec::new();
    for split in splits {
        let here: Vec<usize> = (0..rows.len()).filter(|&row| rows[row].split == split).collect();
        let problems = |wanted: &dyn Fn(usize) -> bool| {
            here.iter().filter(|&&row| wanted(row)).map(|&row| &rows[row].problem_id).collect::<BTreeSet<_>>().len()
        };
        let mut count = |metric: &str, value: usize| {
            metrics.push(plain(split, metric, value as f64, here.len()));
        };
        count("problems", problems(&|_| true));
        count("samples", here.len());
        count("verified", here.iter().filter(|&&row| rows[row].verdict == "pass").count());
        count("solved", problems(&|row| rows[row].verdict == "pass"));
        if let Some(outside) = outside.filter(|outside| here.iter().any(|&row| !outside[row])) {
            count("judged outside", here.iter().filter(|&&row| outside[row]).count());
        }
        count("kept", here.iter().filter(|&&row| reasons[row].is_none()).count());
        count("kept problems", problems(&|row| reasons[row].is_none()));
        let dropped: BTreeSet<&String> = here.iter().filter_map(|&row| reasons[row].as_ref()).collect();
        for reason in dropped {
            let dropped = here.iter().filter(|&&row| reasons[row].as_ref() == Some(reason)).count();
            count(&format!("dropped: {reason}"), dropped);
        }
    }
    metrics
}

/// What the rationales are worth, where the table has some: how many differ, how many state an execution fact, and of
/// how many of these every fact is in the row's trace. A rationale of a row without a trace is not held against it.
pub(super) fn rationales(table: &RecordBatch, rows: &[JudgedRow]) -> Result<Vec<MetricRow>, RecordError> {
    let column = |name: &str| table.column_by_name(name).map(|_| read_column::<String>(table, name)).transpose();
    let (Some(rationales), Some(traces)) = (column("rationale")?, column("trace")?) else { return Ok(Vec::new()) };
    let mut splits: BTreeMap<&str, Rationales> = BTreeMap::new();
    for (row, (rationale, trace)) in rows.iter().zip(rationales.iter().zip(&traces)) {
        if !rationale.trim().is_empty() {
            splits.entry(&row.split).or_default().add(row, rationale, trace);
        }
    }
    Ok(splits.into_iter().flat_map(|(split, found)| found.metrics(split)).collect())
}

/// The rationales of one split.
#[derive(Default)]
struct Rationales<'a> {
    distinct: BTreeSet<(&'a str, &'a str, &'a str)>,
    all: usize,
    /// With a trace to hold them against.
    traced: usize,
    /// Of each that states facts, the problem and whether all of them are true.
    stating: Vec<(&'a str, bool)>,
}

impl<'a> Rationales<'a> {
    fn add(&mut self, row: &'a JudgedRow, rationale: &'a str, trace: &str) {
        self.all += 1;
        self.distinct.insert((&row.problem_id, &row.buggy, rationale));
        let steps = facts::steps(trace);
        if steps.is_empty() {
            return;
        }
        self.traced += 1;
        let stated = facts::stated(rationale);
        if !stated.is_empty() {
            self.stating.push((&row.problem_id, stated.iter().all(|fact| fact.holds(&steps))));
        }
    }

    fn metrics(self, split: &str) -> Vec<MetricRow> {
        let mut metrics = vec![plain(split, "distinct rationales", self.distinct.len() as f64, self.all)];
        if self.traced > 0 {
            let held = self.stating.iter().filter(|(_, holds)| *holds).count();
            metrics.push(plain(split, "facts stated", self.stating.len() as f64, self.traced));
            metrics.push(plain(split, "facts true", held as f64, self.stating.len()));
            let values: Vec<f64> = self.stating.iter().map(|(_, holds)| f64::from(u8::from(*holds))).collect();
            let problems: Vec<&str> = self.stating.iter().map(|(problem, _)| *problem).collect();
            metrics.extend(clustered_mean(&values, &problems, Bounds::SHARE).map(|share| MetricRow {
                ci_low: Some(share.low),
                ci_high: Some(share.high),
                ..plain(split, "fact accuracy", share.value, values.len())
            }));
        }
        metrics
    }
}

#[cfg(test)]
mod tests {
    use tracetune_engine::record;
    use tracetune_engine::table::Record;

    use super::*;

    record! {
        struct ReasonedRow {
            problem_id: String,
            split: String,
            buggy: String,
            completion: String,
            fix: String,
            verdict: String,
            rationale: String,
            trace: String,
        }
    }

    fn row(problem: &str, rationale: &str, trace: &str) -> ReasonedRow {
        let [problem_id, rationale, trace] = [problem, rationale, trace].map(str::to_owned);
        let [split, buggy, completion, fix, verdict] = ["train", "b", "c", "f", "pass"].map(str::to_owned);
        ReasonedRow { problem_id, split, buggy, completion, fix, verdict, rationale, trace }
    }

    #[test]
    fn facts_are_counted_by_rationale_and_only_against_a_trace() {
        let trace = "x = n  # (0) x=1; (1) x=2;";
        let table = ReasonedRow::write(&[
            row("a", "at (0) x=1, at (1) x=2", trace),
            row("a", "at (0) x=1, at (1) x=3", trace),
            row("a", "at (0) x=1, at (1) x=3", trace),
            row("b", "no fact", trace),
            row("b", "at (0) x=1", "x = n"),
            row("b", "", trace),
        ])
        .unwrap();
        let metrics = rationales(&table, &JudgedRow::read(&table).unwrap()).unwrap();
        let found: Vec<_> = metrics.iter().map(|row| (row.metric.as_str(), row.value, row.n)).collect();
        assert_eq!(
            found,
            [
                ("distinct rationales", 4.0, 5),
                ("facts stated", 3.0, 4),
                ("facts true", 1.0, 3),
                ("fact accuracy", 1.0 / 3.0, 3)
            ]
        );
    }
}
