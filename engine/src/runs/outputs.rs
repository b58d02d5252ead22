//! The outputs of a stage that a run reads for its telemetry: `metrics` and `outcomes`.

use std::collections::BTreeMap;

use serde::Serialize;

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
        /// Samples drawn.
        pub samples: i32,
        /// Samples that pass.
        pub passes: i32,
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
    rows_of(store, outputs, "metrics")
}

/// A stage's `outcomes` output, if it has one.
pub(crate) fn outcomes_of(
    store: &Store,
    outputs: &BTreeMap<String, OutputRecord>,
) -> Result<Option<Vec<OutcomeRow>>, CacheError> {
    rows_of(store, outputs, "outcomes")
}

fn rows_of<R: Record>(
    store: &Store,
    outputs: &BTreeMap<String, OutputRecord>,
    name: &str,
) -> Result<Option<Vec<R>>, CacheError> {
    let Some(output) = outputs.get(name) else { return Ok(None) };
    let rows = R::read(&store.table(&output.digest)?);
    rows.map(Some).map_err(|error| CacheError::Table(error.into()))
}
