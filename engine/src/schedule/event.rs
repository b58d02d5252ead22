//! All that a run tells while it goes on.

use serde::Serialize;

use crate::cache::Digest;
use crate::runs::{MetricRow, RunStatus};

/// Something that happened in a run. Serialized, one a line, it makes the run's `events.jsonl` (without progress).
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The first event.
    RunStarted {
        /// The run.
        run_id: String,
        /// The pipeline's name.
        pipeline: String,
        /// All nodes' ids, in topological order.
        nodes: Vec<String>,
    },
    /// A stage was not in the cache and starts.
    StageStarted {
        /// The node's id.
        node: String,
        /// Its kind.
        kind: String,
    },
    /// How far a stage is.
    StageProgress {
        /// The node's id.
        node: String,
        /// Units done; for row stages rows and parts that this run computes.
        done: u64,
        /// Of so many.
        total: u64,
        /// A short text, e.g. `loss 1.234`.
        text: String,
    },
    /// A line that a program of a stage wrote.
    StageLog {
        /// The node's id.
        node: String,
        /// The line, as it is.
        line: String,
    },
    /// Something the user should know.
    StageNote {
        /// The node's id.
        node: String,
        /// One sentence.
        text: String,
    },
    /// A stage's outputs were in the cache.
    StageCached {
        /// The node's id.
        node: String,
        /// Rows of its first output.
        rows: u64,
        /// Its outputs.
        outputs: Vec<(String, Digest)>,
    },
    /// A stage was computed.
    StageFinished {
        /// The node's id.
        node: String,
        /// Rows of its first output.
        rows: u64,
        /// Units of row work that were already known; 0 for table stages.
        rows_cached: u64,
        /// Units of row work that were computed; 0 for table stages.
        rows_computed: u64,
        /// Wall-clock time in seconds.
        wall_s: f64,
        /// CPU time in seconds.
        cpu_s: f64,
        /// Its outputs.
        outputs: Vec<(String, Digest)>,
    },
    /// A stage failed in a way that may be gone a moment later: it is tried again. What it had finished is kept.
    StageRetry {
        /// The node's id.
        node: String,
        /// What went wrong.
        error: String,
        /// Seconds until then.
        pause_s: f64,
    },
    /// A stage failed.
    StageFailed {
        /// The node's id.
        node: String,
        /// What went wrong.
        error: String,
        /// What the user can do.
        help: Option<String>,
    },
    /// A stage was not run, or stopped before its end.
    StageSkipped {
        /// The node's id.
        node: String,
        /// Why.
        reason: String,
    },
    /// A stage with a `metrics` output is done.
    Metrics {
        /// The node's id.
        node: String,
        /// Its loop round.
        round: i32,
        /// The label: a node with several sends this once for each.
        variant: String,
        /// The rows.
        rows: Vec<MetricRow>,
    },
    /// The last event.
    RunFinished {
        /// The run.
        run_id: String,
        /// How it ended.
        status: RunStatus,
        /// Stages computed.
        computed: usize,
        /// Stages found in the cache.
        cached: usize,
        /// Stages that failed.
        failed: usize,
        /// Stages that were not run.
        skipped: usize,
        /// Wall-clock time in seconds.
        wall_s: f64,
    },
}

impl Event {
    /// The node it is about, if it is about one.
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::StageStarted { node, .. }
            | Self::StageProgress { node, .. }
            | Self::StageLog { node, .. }
            | Self::StageNote { node, .. }
            | Self::StageCached { node, .. }
            | Self::StageFinished { node, .. }
            | Self::StageRetry { node, .. }
            | Self::StageFailed { node, .. }
            | Self::StageSkipped { node, .. }
            | Self::Metrics { node, .. } => Some(node),
            Self::RunStarted { .. } | Self::RunFinished { .. } => None,
        }
    }
}
