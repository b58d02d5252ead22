//! A pipeline, checked and unrolled: what the text of a TOML file comes to.
//!
//! Everything past this module works on these types and knows no TOML.

use std::path::PathBuf;

use crate::registry::CheckedStage;

/// A node's place in [`Pipeline::nodes`].
pub type NodeIndex = usize;

/// A checked pipeline: a DAG of nodes in topological order, loops unrolled.
pub struct Pipeline {
    /// `[pipeline] name`.
    pub name: String,
    /// `[pipeline] seed`.
    pub seed: u64,
    /// The project's root: relative paths in parameters start here.
    pub root: PathBuf,
    /// The nodes; every input of a node stands before it.
    pub nodes: Vec<Node>,
    /// The loops, for early stop and selection.
    pub loops: Vec<Loop>,
    /// The file after `extends`, `--set` and `$params`, as TOML text that gives this pipeline again: kept in the run.
    pub resolved: String,
}

/// One stage, or one round of a stage in a loop.
pub struct Node {
    /// Unique: `verify`, or `verify@2` for round 2 of a loop.
    pub id: String,
    /// The stage's name without the round.
    pub stage: String,
    /// The loop round, 1-based; outside loops the highest round among the inputs, 0 if there is none.
    pub round: i32,
    /// The stage's `variant` (`main` unless the file says otherwise): the label of its metrics and outcomes.
    pub variant: Vec<String>,
    /// Kind and parameters.
    pub stage_kind: CheckedStage,
    /// What each port is connected to, sorted by port.
    pub inputs: Vec<Binding>,
    /// The loop (place in [`Pipeline::loops`]) whose early stop may skip this node.
    pub in_loop: Option<usize>,
}

/// A connected port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The port's name.
    pub port: String,
    /// Where its content comes from.
    pub source: Source,
}

/// Where an input comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An output of one node.
    Node {
        /// The node.
        node: NodeIndex,
        /// The output's name.
        output: String,
    },
    /// An output of one round of a loop, known only once the loop has ended.
    Loop {
        /// The loop's place in [`Pipeline::loops`].
        in_loop: usize,
        /// The stage's node in each round, first to last.
        nodes: Vec<NodeIndex>,
        /// The output's name.
        output: String,
        /// Which round.
        pick: Pick,
    },
}

/// Which round of a loop a reference from outside means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// `rounds.train`: the last round that ran.
    Last,
    /// `rounds.best.train`: the round whose `select` metric is highest (ties: the earliest).
    Best,
}

/// A loop.
pub struct Loop {
    /// Its name.
    pub name: String,
    /// The nodes of each round.
    pub rounds: Vec<Vec<NodeIndex>>,
    /// `stop = { metric = "dev.pass@1", patience = 2 }`.
    pub stop: Option<Stop>,
    /// `select = "dev.pass@1"`.
    pub select: Option<MetricName>,
}

/// Ends a loop early.
#[derive(Clone, Debug, PartialEq)]
pub struct Stop {
    /// What is watched.
    pub metric: MetricName,
    /// Rounds without a new maximum after which the later rounds are skipped.
    pub patience: usize,
}

/// `split.metric`, e.g. `dev.pass@1`, looked up in the `metrics` outputs of a round's nodes whose variant is `main`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricName {
    /// The split.
    pub split: String,
    /// The metric.
    pub metric: String,
}
