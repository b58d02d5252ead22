//! Two or more runs, or variants of a run, side by side: what was set otherwise, what came out, and which problems
//! flipped.

mod difference;
mod draws;
mod groups;
mod lines;
mod note;
mod pooled;
mod seeds;
mod side;
mod statistics;
mod tasks;

use serde::Serialize;
use serde_json::Value;

use difference::{flips, metric_lines, param_differences};
pub use draws::ProblemDraws;
pub use groups::{GroupFigure, Groups, grouped};
pub use lines::ComparisonLine;
pub use note::{Caveat, Note};
pub use pooled::{
    Pooled, PooledDifference, PooledFigure, PooledLine, PooledMetric, PooledMetricDifference, compare_over,
};
pub use seeds::Seeds;
pub use side::Side;
use side::named;
pub use statistics::Tally;
pub use tasks::Draws;

use crate::cache::{CacheError, Store};
use crate::diagnostic::list;
use crate::runs::{MetricLine, RunsError};
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
    /// What is not compared, or does not mean what it seems to.
    pub notes: Vec<Note>,
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
    /// The stage that the figures are from, where some side has the metric from several.
    pub stage: Option<String>,
    /// Each side's figure.
    pub figures: Vec<Option<MetricLine>>,
}

/// How the problems of a split fare on two sides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Flips {
    /// Place of the other side in [`Comparison::sides`]; the first one is the baseline.
    pub side: usize,
    /// The split, with the condition that the samples were drawn under: `test (no trace)`.
    pub split: String,
    /// What is compared: `pass@1`, or `greedy pass@1` where a side has greedy draws only.
    pub metric: String,
    /// The baseline's stage.
    pub baseline_stage: String,
    /// The other side's stage.
    pub stage: String,
    /// Problems that both sides have.
    pub problems: usize,
    /// Tasks that both sides have: a task is a problem with one bug.
    pub tasks: usize,
    /// Paired difference of the metric over these tasks, the other side less the baseline.
    pub difference: Estimate,
    /// Problems that only the other side solves: at least half of its draws pass.
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
    /// A side has no results of such a stage.
    #[error("`{side}` has no results of stage `{stage}`")]
    NoStage {
        /// The side.
        side: String,
        /// What was asked for.
        stage: String,
        /// The stages there are.
        known: Vec<String>,
    },
    /// No loop chose among the rounds of a variant.
    #[error("run `{run}` selected no round of variant `{variant}`")]
    NoneSelected {
        /// The run.
        run: String,
        /// The variant.
        variant: String,
    },
    /// A side has no such problem, or not where the other one has it.
    #[error("{side} has no draws of problem `{problem}` to compare")]
    NoProblem {
        /// The side.
        side: String,
        /// The problem.
        problem: String,
    },
    /// The rows that a stage read can't be found.
    #[error("the rows behind `{stage}` of {side} are gone from the store")]
    NoRows {
        /// The side.
        side: String,
        /// Its stage.
        stage: String,
    },
    /// A run has no results to compare.
    #[error("run `{run}` has no results to compare: no stage of it has metrics, or it did not end yet")]
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
    /// Sides to pool differ in more than the parameter.
    #[error("{} differ in more than `{over}`: {}", list(sides), list(names))]
    NotOver {
        /// The sides.
        sides: Vec<String>,
        /// The parameter.
        over: String,
        /// The others, as `STAGE.PARAM`.
        names: Vec<String>,
    },
    /// A side has one value of the parameter.
    #[error("`{side}` is there for one value of `{over}` only")]
    OneValue {
        /// The side.
        side: String,
        /// The parameter.
        over: String,
    },
    /// Two sides have the same value.
    #[error("`{first}` and `{second}` have the same `{over}`")]
    SameValue {
        /// A side.
        first: String,
        /// Another one.
        second: String,
        /// The parameter.
        over: String,
    },
    /// A run has no such parameter to group by.
    #[error("run `{run}` has no parameter `{name}`")]
    NoParam {
        /// The run.
        run: String,
        /// What was asked for.
        name: String,
        /// What its sweep and its ablations set; its `[params]` if they set nothing.
        known: Vec<String>,
    },
    /// The store can't be read.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A telemetry table has other columns.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// Compares what the words name: `RUN`, `RUN:VARIANT`, `RUN:VARIANT@ROUND` or `RUN:VARIANT@selected`, the last three with
/// `:STAGE` or without. A bare run stands for its variant `main`; without a round, the one that the loop selected is meant,
/// else the last. A single bare run stands for its first results and all of its variants.
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
    let metrics = metric_lines(&sides);
    let (flips, notes) = flips(&sides);
    Ok(Comparison { sides, params, metrics, flips, notes })
}
