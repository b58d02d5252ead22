//! The outputs of a stage that a run reads for its telemetry: `metrics` and `outcomes`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::lines::with_task_columns;
use crate::cache::{CacheError, OutputRecord, Store};
use crate::pipeline::MetricName;
use crate::table::Record;

crate::record! {
    /// A row of a stage's `metrics` output.
    #[derive(Serialize)]
    pub struct MetricRow {
        /// E.g. `dev`.
        pub split: String,
        /// E.g. `pass@1`.
        pub metric: String,
        /// The k of pass@k.
        pub k: Option<i32>,
        /// The estimate.
        pub value: f64,
        /// Lower end of its 95 % interval.
        pub ci_low: Option<f64>,
        /// Upper end of its 95 % interval.
        pub ci_high: Option<f64>,
        /// Over how many problems.
        pub n: i64,
    }

    /// A row of a stage's `outcomes` output.
    pub struct OutcomeRow {
        /// E.g. `dev`.
        pub split: String,
        /// The problem.
        pub problem_id: String,
        /// Tells apart problems that share an id, such as those of two corpora; null where the stage does not know.
        pub problem_digest: Option<String>,
        /// Tells apart the bugs of a problem: a task is a problem with one bug.
        pub bug_digest: Option<String>,
        /// Tells apart the tests by which verdicts were found.
        pub tests_digest: Option<String>,
        /// Samples drawn, without the greedy one.
        pub samples: i32,
        /// Of them, those that pass.
        pub passes: i32,
        /// Whether the greedy draw passes; null where there is none.
        pub greedy: Option<bool>,
    }
}

impl MetricName {
    /// The metric's value among a stage's metrics.
    pub(crate) fn value_in(&self, metrics: &[MetricRow]) -> Option<f64> {
        metrics.iter().find(|row| row.split == self.split && row.metric == self.metric).map(|row| row.value)
    }
}

/// A stage's `metrics` output, if it has one.
pub(crate) fn metrics_of(
    store: &Store,
    outputs: &BTreeMap<String, OutputRecord>,
) -> Result<Option<Vec<MetricRow>>, CacheError> {
    let Some(output) = outputs.get("metrics") else { return Ok(None) };
    let rows = MetricRow::read(&store.table(&output.digest)?);
    rows.map(Some).map_err(|error| CacheError::Table(error.into()))
}

/// A stage's `outcomes` output, if it has one. The columns that say which task it is may be missing.
pub(crate) fn outcomes_of(
    store: &Store,
    outputs: &BTreeMap<String, OutputRecord>,
) -> Result<Option<Vec<OutcomeRow>>, CacheError> {
    let Some(output) = outputs.get("outcomes") else { return Ok(None) };
    let table = with_task_columns(store.table(&output.digest)?)?;
    OutcomeRow::read(&table).map(Some).map_err(|error| CacheError::Table(error.into()))
}

/// A split and a metric that two rows of a stage share: which of the two counts, nobody could tell.
pub(crate) fn shared_name(metrics: &[MetricRow]) -> Option<(&str, &str)> {
    let mut names = BTreeSet::new();
    metrics.iter().map(|row| (row.split.as_str(), row.metric.as_str())).find(|name| !names.insert(*name))
}
