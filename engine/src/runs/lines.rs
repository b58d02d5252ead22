//! The rows of a run's tables. A figure's identity is its run, stage, variant, round, split and metric: no two rows of
//! `metrics.parquet` share it, and whatever shows a figure tells it apart by these.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;

use super::RunRecord;
use crate::table::{Record, TableError, read_column, with_column};

crate::record! {
    /// A row of `metrics.parquet`.
    #[derive(serde::Serialize)]
    pub struct MetricLine {
        /// The run.
        pub run: String,
        /// The pipeline's name.
        pub pipeline: String,
        /// The stage it is from, as the pipeline names it: without the round and the variant, which have columns of their own.
        pub stage: String,
        /// The label of the stage.
        pub variant: String,
        /// The round of the loop that it is about.
        pub round: i32,
        /// As in [`MetricRow`](super::MetricRow).
        pub split: String,
        /// As in [`MetricRow`](super::MetricRow).
        pub metric: String,
        /// As in [`MetricRow`](super::MetricRow).
        pub k: Option<i32>,
        /// As in [`MetricRow`](super::MetricRow).
        pub value: f64,
        /// As in [`MetricRow`](super::MetricRow); `None` unless both bounds are numbers.
        pub ci_low: Option<f64>,
        /// As in [`MetricRow`](super::MetricRow); `None` unless both bounds are numbers.
        pub ci_high: Option<f64>,
        /// As in [`MetricRow`](super::MetricRow).
        pub n: i64,
        /// Whether the loop's `select` chose this round by figures on this split: they are biased upwards.
        pub selected: bool,
    }

    /// A row of `outcomes.parquet`.
    pub struct OutcomeLine {
        /// The run.
        pub run: String,
        /// The stage it is from, as in [`MetricLine`].
        pub stage: String,
        /// The label of the stage.
        pub variant: String,
        /// The round of the loop that it is about.
        pub round: i32,
        /// As in [`OutcomeRow`](super::OutcomeRow).
        pub split: String,
        /// As in [`OutcomeRow`](super::OutcomeRow).
        pub problem_id: String,
        /// As in [`OutcomeRow`](super::OutcomeRow).
        pub problem_digest: Option<String>,
        /// As in [`OutcomeRow`](super::OutcomeRow).
        pub bug_digest: Option<String>,
        /// As in [`OutcomeRow`](super::OutcomeRow).
        pub tests_digest: Option<String>,
        /// As in [`OutcomeRow`](super::OutcomeRow).
        pub samples: i32,
        /// As in [`OutcomeRow`](super::OutcomeRow).
        pub passes: i32,
        /// As in [`OutcomeRow`](super::OutcomeRow).
        pub greedy: Option<bool>,
    }

    /// A row of `stages.parquet`.
    pub(super) struct StageLine {
        pub run: String,
        pub node: String,
        pub stage: String,
        pub variant: String,
        pub round: i32,
        pub kind: String,
        pub action_key: String,
        pub status: String,
        pub rows: i64,
        pub rows_cached: i64,
        pub rows_computed: i64,
        pub wall_s: f64,
        pub cpu_s: f64,
        pub peak_memory_bytes: i64,
    }
}

/// Splits and metrics that some variant has from several stages in one round: where they are shown, the stage must be
/// shown with them.
pub fn ambiguous<'a>(lines: impl IntoIterator<Item = &'a MetricLine>) -> BTreeSet<(&'a str, &'a str)> {
    let mut stages: BTreeMap<_, &str> = BTreeMap::new();
    let mut found = BTreeSet::new();
    for line in lines {
        let (split, metric) = (line.split.as_str(), line.metric.as_str());
        let place = (line.run.as_str(), line.variant.as_str(), line.round, split, metric);
        if *stages.entry(place).or_insert(&line.stage) != line.stage {
            found.insert((split, metric));
        }
    }
    found
}

/// The rows of `metrics.parquet`, also where a version wrote it that had no column `stage`.
pub(super) fn metric_lines(table: RecordBatch, record: &RunRecord) -> Result<Vec<MetricLine>, TableError> {
    let table = with_column(table, "stage", |rows| stages_behind(record, "metrics", rows))?;
    let table = with_column(table, "selected", |rows| vec![false; rows])?;
    let mut lines = MetricLine::read(&table)?;
    for line in &mut lines {
        (line.ci_low, line.ci_high) = interval(line.ci_low, line.ci_high);
    }
    Ok(lines)
}

/// The rows of `outcomes.parquet`, also where an earlier version wrote it.
pub(super) fn outcome_lines(table: RecordBatch, record: &RunRecord) -> Result<Vec<OutcomeLine>, TableError> {
    let table = with_column(table, "stage", |rows| stages_behind(record, "outcomes", rows))?;
    Ok(OutcomeLine::read(&with_task_columns(table)?)?)
}

/// The rows of `stages.parquet`; earlier versions wrote the nodes' ids into the column `stage`.
pub(super) fn stage_lines(table: RecordBatch, record: &RunRecord) -> Result<Vec<StageLine>, TableError> {
    if table.column_by_name("node").is_some() {
        return Ok(StageLine::read(&table)?);
    }
    let ids: Vec<String> = read_column(&table, "stage")?;
    let mut lines = StageLine::read(&with_column(table, "node", |_| ids)?)?;
    for line in &mut lines {
        let node = record.nodes.iter().find(|node| node.id == line.node);
        line.stage = node.map_or_else(|| line.node.clone(), |node| node.stage.clone());
    }
    Ok(lines)
}

/// Outcomes with the columns that say which task they are of, null where the table does not say.
pub(super) fn with_task_columns(mut table: RecordBatch) -> Result<RecordBatch, TableError> {
    for name in ["problem_digest", "bug_digest", "tests_digest"] {
        table = with_column(table, name, |rows| vec![None::<String>; rows])?;
    }
    Ok(with_column(table, "greedy", |rows| vec![None::<bool>; rows])?)
}

/// An interval with two bounds that are numbers, or none.
pub(super) fn interval(low: Option<f64>, high: Option<f64>) -> (Option<f64>, Option<f64>) {
    let is_whole = [low, high].iter().all(|bound| bound.is_some_and(f64::is_finite));
    if is_whole { (low, high) } else { (None, None) }
}

/// The stage of each row of a table without that column: its rows stand in the order of the nodes, those of a node once
/// for each of its labels. Empty where the record does not account for all rows.
fn stages_behind(record: &RunRecord, output: &str, rows: usize) -> Vec<String> {
    let mut stages = Vec::with_capacity(rows);
    for node in &record.nodes {
        let own = node.outputs.get(output).map_or(0, |output| output.rows as usize);
        stages.extend(std::iter::repeat_n(node.stage.clone(), own * node.variant.len()));
    }
    if stages.len() == rows { stages } else { vec![String::new(); rows] }
}
