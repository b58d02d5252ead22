//! What will run and why, before anything runs; and what every key is made from.
//!
//! | ingredient | action key | signature (row stages) | recipe key |
//! | --- | --- | --- | --- |
//! | version of the key format | yes | yes | yes |
//! | kind and kind's version | yes | yes | yes |
//! | parameters that differ from their defaults, as canonical JSON | yes | yes, but for those that only decide the parts | yes |
//! | environment that the kind declares: interpreters, files it reads | yes | yes | yes |
//! | inputs by port | digest of the content | digest of the content, without the row port | recipe key of the node before |
//! | names of stages, pipelines, outputs; paths; time; host; threads | no | no | no |
//!
//! An **action key** names a stage over given contents: it leads to the outputs. A **row key** is blake3 of the
//! signature, the canonical bytes of the columns that the stage reads of the row, and the part. A **recipe key** can
//! be made before anything runs; it leads to the action that the recipe led to the last time.
//!
//! If an ingredient can't be computed there is no key: the stage does not run, nothing is cached, the user is told.

mod key;
mod planner;
mod reason;
mod row;

use petgraph::graphmap::DiGraphMap;
use serde::Serialize;

use crate::cache::{ActionKey, ActionRecord, CacheError, Store};
use crate::pipeline::{NodeIndex, Pick, Pipeline, Source};

pub(crate) use key::{NoKey, Recipe, node_key, recipes, row_keys};
pub(crate) use planner::{NotAcceptable, acceptable, changes};
pub use reason::{Cause, Change, FileChange, Why};
pub use row::{ColumnChange, RowError, RowWhy, WhichRows};

/// What the cache knows about each node of a pipeline.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The nodes, in the pipeline's order.
    pub nodes: Vec<PlannedNode>,
    pub(crate) recipes: Vec<Result<Recipe, NoKey>>,
}

/// A node of a [`Plan`].
#[derive(Clone, Debug)]
pub struct PlannedNode {
    /// Its id.
    pub id: String,
    /// Its kind.
    pub kind: String,
    /// What will happen to it.
    pub forecast: Forecast,
    /// Why: no causes for a hit.
    pub why: Why,
    /// How much work there is.
    pub estimate: Option<Estimate>,
}

/// What will happen to a node.
#[derive(Clone, Debug)]
pub enum Forecast {
    /// Its outputs are in the cache.
    Hit(Box<ActionRecord>),
    /// It runs; the key is known if its inputs are.
    Miss(Option<ActionKey>),
    /// It runs unless its inputs stay the same although stages before it run.
    Unknown,
    /// Its loop stops before its round.
    Skipped,
    /// Its key can't be computed: the machine lacks something, or a file can't be read. It will fail.
    Blocked {
        /// What is wrong.
        error: String,
        /// What the user can do.
        help: Option<String>,
    },
}

/// How much work a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Estimate {
    /// Units: rows and parts for a row stage, else rows of the largest output.
    pub items: u64,
    /// Units that are known already.
    pub cached: u64,
    /// Whether this was counted; if not, it is what it was the last time.
    pub exact: bool,
}

/// Looks every node up in the cache. Nothing runs.
///
/// # Errors
/// The store can't be read.
pub fn plan(pipeline: &Pipeline, store: &Store) -> Result<Plan, CacheError> {
    planner::plan(pipeline, store)
}

/// Why rows of a row stage are cached, stale or new. Nothing runs.
///
/// # Errors
/// [`RowError`]: the stage has no rows of its own, or they are not known yet, or none is meant.
pub fn why_rows(
    pipeline: &Pipeline,
    store: &Store,
    node: NodeIndex,
    which: &WhichRows,
) -> Result<Vec<RowWhy>, RowError> {
    row::why_rows(pipeline, store, node, which)
}

impl Plan {
    /// Why the node of that id is cached, stale or new.
    pub fn why(&self, id: &str) -> Option<&Why> {
        self.nodes.iter().find(|node| node.id == id).map(|node| &node.why)
    }
}

/// Which node needs which: an edge from the node that gives to the node that takes. A reference to a loop's best
/// round, or to the last one of a loop that may stop early, is an edge from each of the rounds' nodes.
pub fn graph(pipeline: &Pipeline) -> DiGraphMap<NodeIndex, ()> {
    let mut graph = DiGraphMap::with_capacity(pipeline.nodes.len(), pipeline.nodes.len());
    for (index, node) in pipeline.nodes.iter().enumerate() {
        graph.add_node(index);
        for binding in &node.inputs {
            match &binding.source {
                Source::Node { node, .. } => _ = graph.add_edge(*node, index, ()),
                Source::Loop { nodes, pick: Pick::Last, in_loop, .. } if pipeline.loops[*in_loop].stop.is_none() => {
                    nodes.last().map(|last| graph.add_edge(*last, index, ()));
                }
                Source::Loop { nodes, .. } => nodes.iter().for_each(|node| _ = graph.add_edge(*node, index, ())),
            }
        }
    }
    graph
}
