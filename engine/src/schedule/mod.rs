//! Runs a pipeline: `state` decides what may start (pure), `executor` looks nodes up and starts threads, `attempt` is
//! what those do, `empty` is when a result without rows is a failure, `event` is all that is told.

mod attempt;
mod empty;
mod event;
mod executor;
mod job;
mod machine;
pub(crate) mod rounds;
mod rows;
mod state;
mod telemetry;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::cache::{ActionKey, CacheError, OutputRecord, Store};
use crate::pipeline::{NodeIndex, Pipeline};
use crate::plan::Plan;
use crate::runs::{RunStatus, StageStatus};

pub use event::Event;
pub use machine::Machine;

/// How to run.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// What all stages together may take.
    pub machine: Machine,
    /// Whether stages that don't depend on a failed one still run.
    pub keep_going: bool,
    /// The stages to run, with what they need; all if empty.
    pub only: Vec<NodeIndex>,
    /// Stages that are computed again although they are in the cache.
    pub forced: Vec<NodeIndex>,
    /// The run's id; made from the time and the pipeline's name if `None`.
    pub run_id: Option<String>,
}

impl RunOptions {
    /// With so many threads for all stages together, at least 1.
    #[must_use]
    pub fn with_threads(threads: usize) -> Self {
        Self { machine: Machine { threads, ..Machine::default() }, ..Self::default() }
    }
}

/// Why there is no run to report about. A failed stage is not one of these: see [`RunSummary::status`].
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The run's folder or the store can't be read or written.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// How a run went.
#[derive(Clone, Debug)]
pub struct RunSummary {
    /// Its id.
    pub run_id: String,
    /// Its folder.
    pub folder: PathBuf,
    /// How it ended.
    pub status: RunStatus,
    /// The nodes, in the pipeline's order.
    pub nodes: Vec<NodeSummary>,
    /// Wall-clock time in seconds.
    pub wall_s: f64,
}

/// How a node went.
#[derive(Clone, Debug)]
pub struct NodeSummary {
    /// Its id.
    pub id: String,
    /// How it ended.
    pub status: StageStatus,
    /// Its key, once its inputs were known.
    pub key: Option<ActionKey>,
    /// Its outputs; none unless it is done, or failed because it lost every row.
    pub outputs: BTreeMap<String, OutputRecord>,
    /// Rows of its first output.
    pub rows: u64,
    /// Units of row work that were already known.
    pub rows_cached: u64,
    /// Units of row work that were computed.
    pub rows_computed: u64,
    /// Why it failed or was skipped.
    pub message: Option<String>,
}

/// Runs a pipeline to its end, to its first failure, or until `cancel` is set. Stages that the cache knows are not
/// run; a row stage computes the rows that no segment has.
///
/// # Errors
/// The store or the run's folder can't be used at all. Failing stages are reported in the summary.
pub fn run(
    pipeline: &Pipeline,
    store: &Store,
    options: &RunOptions,
    cancel: Arc<AtomicBool>,
    observer: &(dyn Fn(Event) + Sync),
) -> Result<RunSummary, RunError> {
    executor::run(pipeline, store, None, options, cancel, observer)
}

/// As [`run`], of a pipeline that was planned just now: what the plan found out is not asked again.
///
/// # Errors
/// As [`run`].
pub fn run_planned(
    pipeline: &Pipeline,
    store: &Store,
    plan: Plan,
    options: &RunOptions,
    cancel: Arc<AtomicBool>,
    observer: &(dyn Fn(Event) + Sync),
) -> Result<RunSummary, RunError> {
    executor::run(pipeline, store, Some(plan), options, cancel, observer)
}
