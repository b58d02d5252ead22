//! `run.json`: what a run was, how it and each of its nodes ended.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cache::{ActionKey, OutputRecord, Signature};

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// It goes on.
    Running,
    /// All stages are done.
    Done,
    /// A stage failed.
    Failed,
    /// It was interrupted, or its process died.
    Interrupted,
}

/// How a node ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageStatus {
    /// Its outputs were in the cache.
    Cached,
    /// It was computed.
    Computed,
    /// It failed.
    Failed,
    /// It was not run: something before it failed, or its loop had stopped.
    Skipped,
    /// It was stopped, or not started, because the run was interrupted.
    Interrupted,
}

impl StageStatus {
    /// As in `stages.parquet`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cached => "cached",
            Self::Computed => "computed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Interrupted => "interrupted",
        }
    }
}

/// `run.json`: what a run was and how it ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunRecord {
    /// The run's id, which is its folder's name.
    pub id: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// The pipeline's seed.
    pub seed: u64,
    /// How it ended.
    pub status: RunStatus,
    /// The labels of its nodes, sorted.
    pub variants: Vec<String>,
    /// The variants of `[sweep]` and `[ablations]` that it is made of.
    #[serde(default)]
    pub parts: Vec<String>,
    /// When it started, in RFC 3339, UTC.
    pub started: String,
    /// When it ended.
    pub ended: Option<String>,
    /// tracetune's version.
    pub tracetune: String,
    /// The nodes in the pipeline's order.
    pub nodes: Vec<RunNode>,
}

/// What `run.json` keeps of a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunNode {
    /// Its id.
    pub id: String,
    /// Its stage, without the round.
    pub stage: String,
    /// Its kind.
    pub kind: String,
    /// The kind's version.
    pub version: u32,
    /// Its loop round.
    pub round: i32,
    /// Its labels.
    pub variant: Vec<String>,
    /// How it ended; `None` while the run goes on.
    pub status: Option<StageStatus>,
    /// Its key, once its inputs were known.
    pub key: Option<ActionKey>,
    /// The signature of its segments, for a row stage.
    #[serde(default)]
    pub signature: Option<Signature>,
    /// Its outputs; none unless it is done, or failed because it lost every row.
    pub outputs: BTreeMap<String, OutputRecord>,
    /// The first output's name.
    pub first_output: Option<String>,
    /// Why it failed or was skipped.
    pub message: Option<String>,
}
