//! Two or more runs, or variants of a run, side by side: what was set otherwise, what came out, and which problems
//! flipped.

mod difference;
mod lines;
mod side;
mod statistics;

use serde::Serialize;
use serde_json::Value;

use difference::{flips, metric_lines, param_differences};
pub use lines::ComparisonLine;
pub use side::Side;
use side::named;
pub use statistics::Tally;

use crate::cache::{CacheError, Store};
use crate::runs::{MetricRow, RunsError};
use crate::statistics::Estimate;
use crate::table::TableError;

/// Sides and how they differ; the first one is the baseline.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The sides.
    pub sides: Vec<Side>,
    /// What they were set to, where they differ.
    pub params: Vec<ParamDifference>,
    /// What came out.
    pub metrics: Vec<ComparedMetric>,
    /// The baseline's problems against each other side's, by split.
    pub flips: Vec<Flips>,
}

/// A parameter that is not the same on all sides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ParamDifference {
    /// `samples.temperature`.
    pub name: String,
    /// The value on each side, as JSON; `None` where the side has no such stage.
    pub values: Vec<Option<Value>>,
}

/// A metric on all sides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ComparedMetric {
    /// E.g. `test`.
    pub split: String,
    /// E.g. `pass@1`.
    pub metric: String,
    /// Each side's figure.
    pub figures: Vec<Option<MetricRow>>,
}

/// How the problems of a split fare on two sides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Flips {
    /// Place of the other side in [`Comparison::sides`]; the first one is the baseline.
    pub side: usize,
    /// The split.
    pub split: String,
    /// Problems that both sides have.
    pub problems: usize,
    /// Paired difference of pass@1, the other side less the baseline.
    pub difference: Estimate,
    /// Problems that only the other side solves: at least half of its samples pass.
    pub won: Vec<String>,
    /// Problems that only the baseline solves.
    pub lost: Vec<String>,
    /// McNemar's exact test on them.
    pub p_value: f64,
    /// Adjusted for all comparisons of this table (Holm).
    pub p_adjusted: f64,
}

/// Why a comparison can't be made.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// A run can't be read.
    #[error(transparent)]
    Runs(#[from] RunsError),
    /// A run has no such variant.
    #[error("run `{run}` has no variant `{variant}`")]
    NoVariant {
        /// The run.
        run: String,
        /// What was asked for.
        variant: String,
        /// The variants there are.
        known: Vec<String>,
    },
    /// A variant has no such round.
    #[error("variant `{variant}` of run `{run}` has no results of round {round}")]
    NoRound {
        /// The run.
        run: String,
        /// The variant.
        variant: String,
        /// What was asked for.
        round: i32,
        /// The rounds there are.
        known: Vec<i32>,
    },
    /// A run has no results to compare.
    #[error("run `{run}` has no results to compare: no stage of it evaluates, or it did not end yet")]
    NoResults {
        /// The run.
        run: String,
    },
    /// There is but one side.
    #[error("there is nothing to compare `{side}` with")]
    OneSide {
        /// The side.
        side: String,
    },
    /// The store can't be read.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A telemetry table has other columns.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// Compares what the words name: `RUN`, `RUN:VARIANT` or `RUN:VARIANT@ROUND`. A bare run stands for its variant `main` in
/// the last round; a single bare run for its first results and all of its variants.
///
/// # Errors
/// [`CompareError`].
pub fn compare(store: &Store, words: &[String]) -> Result<Comparison, CompareError> {
    let mut sides = Vec::new();
    for word in words {
        sides.extend(named(store, word, words.len() == 1)?);
    }
    if let [side] = sides.as_slice() {
        return Err(CompareError::OneSide { side: side.name() });
    }
    let params = param_differences(store, &sides)?;
    let (metrics, flips) = (metric_lines(&sides), flips(&sides));
    Ok(Comparison { sides, params, metrics, flips })
}
