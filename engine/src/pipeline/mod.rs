//! A pipeline, checked and unrolled: what the text of a TOML file comes to.
//!
//! Everything past this module works on these types and knows no TOML. The way through, a file a step: `source` reads
//! the texts and parses them, `merge` lays them over each other, `params` puts values where `$name` stands, `document`
//! finds stages and loops, `definition` reads each stage as its kind says, `unroll` makes nodes and resolves
//! references, `order` sorts them, `check` follows the columns along the edges. Each notes in `problems` whatever is
//! wrong and goes on, so that one look at the answer is enough. `variants` reads `[sweep]` and `[ablations]`; each variant
//! takes the way from `params` on its own, and `combine` puts them into one graph that shares what is the same.
//!
//! # References
//! `stage` means the stage's first output, `stage.output` another one. Within a loop a name is looked up among the
//! carried values, then the same round's stages, then the stages outside. From outside a loop, `rounds.train` is the last
//! round that ran, `rounds.train@2` the second, `rounds.best.train` the one that `select` found best.

mod bad_rows;
mod check;
mod combine;
mod definition;
mod document;
mod finish;
mod merge;
mod order;
mod parameter;
mod params;
mod problems;
mod resolved;
mod resources;
mod schema;
mod settings;
mod source;
#[cfg(test)]
mod tests;
mod unroll;
mod value;
mod variants;

pub use bad_rows::BadRows;
pub use check::column_type;
pub use parameter::{Parameter, parameters};
pub use resources::{Resources, parse_bytes};
pub use schema::{schema, stage_keys};
pub use settings::{Setting, VariantSettings};
pub use source::project_root;
pub use variants::Choice;
pub(crate) use variants::MAIN;

use std::path::{Path, PathBuf};

use problems::Problems;
use source::Sources;

use crate::Registry;
use crate::cache::KnownFiles;
use crate::diagnostic::Diagnostic;
use crate::registry::CheckedStage;
use crate::stage::{Output, PortType, Setup};

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
    /// The names of the variants that it is made of; none unless some were chosen.
    pub variants: Vec<String>,
    /// What each of these variants is set to; of `main` alone if none were chosen.
    pub settings: Vec<VariantSettings>,
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
    /// Which variants to make, all in one graph: of `[sweep]`, of `[ablations]`.
    pub variants: Choice,
}

impl Pipeline {
    /// Reads, checks and unrolls a pipeline file.
    ///
    /// # Errors
    /// Everything that is wrong with it, sorted by place (and its warnings).
    pub fn load(path: &Path, registry: &Registry, overrides: &Overrides) -> Result<Self, Vec<Diagnostic>> {
        let sources = Sources::read(path, overrides).map_err(|problem| vec![problem])?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        Self::from_sources(&sources, &name, &project_root(path), registry, &overrides.variants)
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
        Self::from_sources(&sources, &stem, root, registry, &overrides.variants)
    }

    fn from_sources(
        sources: &Sources,
        name: &str,
        root: &Path,
        registry: &Registry,
        choice: &Choice,
    ) -> Result<Self, Vec<Diagnostic>> {
        // What the project's own store remembers of interpreters and their answers; another store's stages ask once more.
        let known = KnownFiles::of_store(&root.join(".tracetune"));
        let setup = Setup::remembering(root, &known);
        let mut problems = Problems::new(sources);
        let mut table = merge::merged(sources, &mut problems);
        if problems.errors() > 0 {
            // What can't be read can't be checked: more messages would only be about the pieces.
            return Err(problems.finish().err().unwrap_or_default());
        }
        let whole = (!choice.is_plain()).then(|| table.clone());
        let declared = variants::take(&mut table, name, &mut problems);
        let Some(plain) =
            Unrolled::of(table.clone(), registry, &setup, &mut problems).filter(|_| problems.errors() == 0)
        else {
            return Err(problems.finish().err().unwrap_or_default());
        };
        let chosen =
            if choice.is_plain() { Vec::new() } else { declared.chosen(choice).map_err(|problem| vec![problem])? };
        let named = |name: &str| chosen.iter().any(|variant| variant.name == name);
        let mut settings: Vec<VariantSettings> =
            if chosen.is_empty() { vec![VariantSettings::of(MAIN, &table, &[])] } else { Vec::new() };
        let unchosen = declared.all().filter(|variant| !named(&variant.name)).take(MOST_CHECKED);
        let mut parts = Vec::with_capacity(chosen.len());
        for (variant, is_chosen) in chosen.iter().map(|one| (one, true)).chain(unchosen.map(|one| (one, false))) {
            let (before, errors) = (problems.count(), problems.errors());
            let mut table = table.clone();
            variant.apply(&mut table, &mut problems);
            if is_chosen {
                settings.push(VariantSettings::of(&variant.name, &table, &variant.paths()));
            }
            let unrolled =
                (problems.errors() == errors).then(|| Unrolled::of(table, registry, &setup, &mut problems)).flatten();
            if problems.errors() > errors {
                problems.help_after(before, &format!("this is so in variant `{}`", variant.name));
                return Err(problems.finish().err().unwrap_or_default());
            }
            parts.extend(unrolled.filter(|_| is_chosen).map(|unrolled| (variant.name.clone(), unrolled)));
        }
        let warnings = problems.finish()?;
        let name = plain.name.clone().unwrap_or_else(|| name.to_owned());
        let seed = plain.seed;
        let resolved = match &whole {
            None => resolved::text(&plain.table, &name, seed),
            Some(whole) => resolved::with_variants(whole, &name, seed),
        };
        let (nodes, loops) = match parts.len() {
            0 => (plain.nodes, plain.loops),
            _ => combine::combine(parts.into_iter().map(|(name, part)| (name, part.nodes, part.loops)).collect()),
        };
        if let Some(problem) = combine::shared_figures(&nodes) {
            return Err(vec![problem]);
        }
        let variants = chosen.into_iter().map(|variant| variant.name).collect();
        Ok(Self { name, seed, root: root.to_owned(), nodes, loops, variants, settings, resolved, warnings })
    }
}

/// The most variants that are checked although they are not to run.
const MOST_CHECKED: usize = 64;

/// A document, unrolled and checked.
struct Unrolled<'a> {
    name: Option<String>,
    seed: u64,
    /// The document after `$params`.
    table: source::Table<'a>,
    nodes: Vec<Node>,
    loops: Vec<Loop>,
}

impl<'a> Unrolled<'a> {
    /// `None` if something is so wrong that the rest can't be checked.
    fn of(
        mut table: source::Table<'a>,
        registry: &Registry,
        setup: &Setup,
        problems: &mut Problems<'a>,
    ) -> Option<Self> {
        let errors = problems.errors();
        params::substitute(&mut table, problems);
        let document = document::read(&table, problems);
        let graph = unroll::unroll(&document, registry, setup, problems);
        let order = order::order(&graph, problems)?;
        let outputs = check::check(&graph, &order, registry, problems);
        for (index, outer) in document.loops.iter().enumerate() {
            check::check_metrics(&graph, index, outer, &outputs, problems);
        }
        if problems.errors() > errors {
            return None;
        }
        let seed =
            value::integer(document.seed.get_ref()).and_then(|seed| u64::try_from(seed).ok()).unwrap_or_default();
        let (nodes, loops) = finish::finish(&document, graph, &order, &outputs);
        let name = document.name.clone();
        drop(document);
        Some(Self { name, seed, table, nodes, loops })
    }
}

/// One stage, or one round of a stage in a loop.
pub struct Node {
    /// Unique: `verify`, or `verify@2` for round 2 of a loop.
    pub id: String,
    /// The stage's name without the round: `verify`, or `rounds.verify` where that name stands several times in the file.
    /// With a label and a round it names one node.
    pub stage: String,
    /// The loop round, 1-based; outside loops the highest round among the inputs, 0 if there is none. A run lowers it where
    /// a loop stops early or selects a round.
    pub round: i32,
    /// The stage's `variant` (`main` unless the file says otherwise): the label of its metrics and outcomes.
    pub variant: Vec<String>,
    /// Kind and parameters.
    pub stage_kind: CheckedStage,
    /// What each port is connected to, sorted by port.
    pub inputs: Vec<Binding>,
    /// Its outputs, the default one first, with their columns where they are known.
    pub outputs: Vec<Output>,
    /// How many of its rows may fail; `None`: the first one that fails ends the stage.
    pub bad_rows: Option<BadRows>,
    /// Whether it may lose every row.
    pub allow_empty: bool,
    /// What it takes of the machine.
    pub resources: Resources,
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
    /// The label of the nodes whose metrics count for `stop` and `select`: `main`, or a variant's name.
    pub label: String,
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

/// `split.metric`, e.g. `dev.pass@1`, looked up in the `metrics` outputs of a round's nodes that bear the loop's label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricName {
    /// The split.
    pub split: String,
    /// The metric.
    pub metric: String,
}
