//! A pipeline, checked and unrolled: what the text of a TOML file comes to.
//!
//! Everything past this module works on these types and knows no TOML. The way through, a file a step: `source` reads
//! the texts and parses them, `merge` lays them over each other, `params` puts values where `$name` stands, `document`
//! finds stages and loops, `definition` reads each stage as its kind says, `unroll` makes nodes and resolves
//! references, `order` sorts them, `check` follows the columns along the edges. Each notes in `problems` whatever is
//! wrong and goes on, so that one look at the answer is enough.
//!
//! # References
//! `stage` means the stage's first output, `stage.output` another one. Within a loop a name is looked up among the
//! carried values, then the same round's stages, then the stages outside. From outside a loop, `rounds.train` is the last
//! round that ran, `rounds.train@2` the second, `rounds.best.train` the one that `select` found best.

mod check;
mod definition;
mod document;
mod finish;
mod merge;
mod order;
mod parameter;
mod params;
mod problems;
mod resolved;
mod schema;
mod source;
#[cfg(test)]
mod tests;
mod unroll;
mod value;

pub use check::column_type;
pub use parameter::{Parameter, parameters};
pub use schema::schema;
pub use source::project_root;

use std::path::{Path, PathBuf};

use problems::Problems;
use source::Sources;

use crate::Registry;
use crate::diagnostic::Diagnostic;
use crate::registry::CheckedStage;
use crate::stage::{Output, PortType};

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
    /// What is odd about the file without being wrong.
    pub warnings: Vec<Diagnostic>,
}

/// Values that win over the file's: `--set samples=24`.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Paths and values. A path is a parameter's name, `seed`, `stages.sample.n`, `sample.n` or `rounds.sample.n`;
    /// a value is TOML, or else a string.
    pub set: Vec<(String, String)>,
}

impl Pipeline {
    /// Reads, checks and unrolls a pipeline file.
    ///
    /// # Errors
    /// Everything that is wrong with it, sorted by place (and its warnings).
    pub fn load(path: &Path, registry: &Registry, overrides: &Overrides) -> Result<Self, Vec<Diagnostic>> {
        let sources = Sources::read(path, overrides).map_err(|problem| vec![problem])?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        Self::from_sources(&sources, &name, &project_root(path), registry)
    }

    /// Checks and unrolls a pipeline's text; `extends` is not followed. `name` is for messages and for a text that
    /// does not give its own.
    ///
    /// # Errors
    /// As [`Pipeline::load`].
    pub fn from_text(
        text: &str,
        name: &str,
        root: &Path,
        registry: &Registry,
        overrides: &Overrides,
    ) -> Result<Self, Vec<Diagnostic>> {
        let sources = Sources::text(name, text, overrides);
        let stem = Path::new(name).file_stem().unwrap_or_default().to_string_lossy();
        Self::from_sources(&sources, &stem, root, registry)
    }

    fn from_sources(sources: &Sources, name: &str, root: &Path, registry: &Registry) -> Result<Self, Vec<Diagnostic>> {
        let mut problems = Problems::new(sources);
        let mut table = merge::merged(sources, &mut problems);
        if problems.errors() > 0 {
            // What can't be read can't be checked: more messages would only be about the pieces.
            return Err(problems.finish().err().unwrap_or_default());
        }
        params::substitute(&mut table, &mut problems);
        let document = document::read(&table, &mut problems);
        let graph = unroll::unroll(&document, registry, &mut problems);
        let Some(order) = order::order(&graph, &mut problems) else {
            return Err(problems.finish().err().unwrap_or_default());
        };
        let outputs = check::check(&graph, &order, registry, &mut problems);
        for (index, outer) in document.loops.iter().enumerate() {
            check::check_metrics(&graph, index, outer, &outputs, &mut problems);
        }
        let warnings = problems.finish()?;
        let name = document.name.clone().unwrap_or_else(|| name.to_owned());
        let seed =
            value::integer(document.seed.get_ref()).and_then(|seed| u64::try_from(seed).ok()).unwrap_or_default();
        let resolved = resolved::text(&table, &name, seed);
        let (nodes, loops) = finish::finish(&document, graph, &order, &outputs);
        Ok(Self { name, seed, root: root.to_owned(), nodes, loops, resolved, warnings })
    }
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
    /// Its outputs, the default one first, with their columns where they are known.
    pub outputs: Vec<Output>,
    /// The loop (place in [`Pipeline::loops`]) whose early stop may skip this node.
    pub in_loop: Option<usize>,
}

impl Node {
    /// Whether what its bare name refers to is a model.
    pub fn gives_model(&self) -> bool {
        self.outputs.first().is_some_and(|output| output.port_type == PortType::Model)
    }
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
