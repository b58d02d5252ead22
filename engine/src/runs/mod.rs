//! A run's folder: telemetry tables that any tool can read with a glob, the resolved pipeline, the event log.

mod log;

use std::collections::{BTreeMap, HashSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use arrow::array::RecordBatch;
use serde::{Deserialize, Serialize};

use crate::cache::{ActionKey, CacheError, Cleared, OutputRecord, Roots, Signature, Store};
use crate::pipeline::MetricName;
use crate::table::{Record, read_table_file};

pub use log::{MetricLine, OutcomeLine};
pub(crate) use log::{NodeLog, RunLog, first_output};

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
    /// Its outputs; empty unless it is done.
    pub outputs: BTreeMap<String, OutputRecord>,
    /// The first output's name.
    pub first_output: Option<String>,
    /// Why it failed or was skipped.
    pub message: Option<String>,
}

/// A run of the past, or one that goes on.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its folder.
    pub folder: PathBuf,
    /// `run.json`.
    pub record: RunRecord,
}

/// Why a run can't be shown.
#[derive(Debug, thiserror::Error)]
pub enum RunsError {
    /// No such run.
    #[error("there is no run `{0}`")]
    NoRun(String),
    /// Several runs begin so.
    #[error("`{id}` is the beginning of several runs")]
    Ambiguous {
        /// What was asked for.
        id: String,
        /// The runs.
        known: Vec<String>,
    },
    /// The run has no such node.
    #[error("run `{run}` has no stage `{node}`")]
    NoNode {
        /// The run.
        run: String,
        /// What was asked for.
        node: String,
        /// The nodes there are.
        known: Vec<String>,
    },
    /// The node has no such output, or none at all because it is not done.
    #[error("`{node}` has no output{}", .output.as_ref().map(|name| format!(" `{name}`")).unwrap_or_default())]
    NoOutput {
        /// The node.
        node: String,
        /// What was asked for.
        output: Option<String>,
        /// The outputs there are.
        known: Vec<String>,
    },
    /// A file of the run's folder or of the store can't be read.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// All runs, oldest first. Folders without a readable `run.json` are left out.
///
/// # Errors
/// The store's folder can't be read.
pub fn list(store: &Store) -> Result<Vec<Run>, RunsError> {
    let folder = store.root().join("runs");
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(CacheError::io("read", folder)(error).into()),
    };
    let mut runs = Vec::new();
    for entry in entries {
        let folder = entry.map_err(CacheError::io("read", &folder))?.path();
        runs.extend(open(store, &folder).ok());
    }
    runs.sort_by(|a, b| (&a.record.started, &a.record.id).cmp(&(&b.record.started, &b.record.id)));
    Ok(runs)
}

/// One run: by its id, by the beginning of an id that no other run shares, by the path of its folder, or `latest`.
///
/// # Errors
/// [`RunsError::NoRun`], [`RunsError::Ambiguous`], or the folder can't be read.
pub fn load(store: &Store, id: &str) -> Result<Run, RunsError> {
    let no_run = || RunsError::NoRun(id.to_owned());
    if id == "latest" {
        return list(store)?.pop().ok_or_else(no_run);
    }
    // An id is one name in `runs/`; what has more parts is a path.
    let is_name = !id.is_empty() && Path::new(id).file_name().is_some_and(|name| name == id);
    let folder = if is_name { store.root().join("runs").join(id) } else { PathBuf::from(id) };
    if folder.join("run.json").is_file() {
        return open(store, &folder);
    }
    let mut matching: Vec<Run> = list(store)?;
    matching.retain(|run| is_name && run.record.id.starts_with(id));
    match matching.len() {
        0 => Err(no_run()),
        1 => Ok(matching.remove(0)),
        _ => {
            let known = matching.into_iter().map(|run| run.record.id).collect();
            Err(RunsError::Ambiguous { id: id.to_owned(), known })
        }
    }
}

/// What [`clear`] leaves alone, beside the pinned runs.
#[derive(Clone, Debug, Default)]
pub struct Keep {
    /// So many of the last runs.
    pub runs: usize,
    /// Runs that started since then.
    pub since: Option<SystemTime>,
    /// Actions, with their outputs: what a pipeline as it is now finds in the cache.
    pub actions: HashSet<ActionKey>,
}

/// Clears out of the store what nothing to be kept needs. The folders of all runs stay: they are small. With `dry_run`
/// it only counts.
///
/// # Errors
/// [`CacheError::InUse`] while a run goes on, or a file can't be removed.
pub fn clear(store: &Store, keep: Keep, dry_run: bool) -> Result<Cleared, RunsError> {
    let runs = list(store)?;
    let started = |run: &Run| run.record.started.parse::<jiff::Timestamp>().ok().map(SystemTime::from);
    let first_of_last = runs.len().saturating_sub(keep.runs);
    let is_young = |run: &Run| keep.since.is_some_and(|since| started(run).is_none_or(|started| started >= since));
    let kept: Vec<&Run> = runs
        .iter()
        .enumerate()
        .filter(|(index, run)| *index >= first_of_last || is_young(run))
        .map(|(_, run)| run)
        .collect();
    // Without a run nothing is a root, and only what nobody wrote just now goes.
    let since =
        kept.first().map_or_else(|| Some(SystemTime::now()), |run| started(run)).unwrap_or(SystemTime::UNIX_EPOCH);
    let pinned = runs.iter().filter(|run| run.is_pinned());
    let needed: Vec<&Run> = kept.into_iter().chain(pinned).collect();
    let nodes = || needed.iter().flat_map(|run| &run.record.nodes);
    let roots = Roots {
        actions: keep.actions.into_iter().chain(nodes().filter_map(|node| node.key)).collect(),
        signatures: nodes().filter_map(|node| node.signature).collect(),
        since,
    };
    Ok(store.clear(&roots, dry_run)?)
}

fn open(store: &Store, folder: &Path) -> Result<Run, RunsError> {
    let path = folder.join("run.json");
    let text = std::fs::read(&path).map_err(CacheError::io("read", &path))?;
    let mut record: RunRecord = serde_json::from_slice(&text)
        .map_err(|error| CacheError::io("read", &path)(std::io::Error::new(ErrorKind::InvalidData, error)))?;
    if record.status == RunStatus::Running {
        // Its process holds this lock as long as it lives.
        let is_dead = matches!(store.try_lock(&log::lock_name(&record.id)), Ok(Some(_)));
        if is_dead {
            record.status = RunStatus::Interrupted;
        }
    }
    Ok(Run { folder: folder.to_owned(), record })
}

/// In the folder of a run that every `gc` keeps.
const PIN: &str = "pinned";

impl Run {
    /// Whether [`clear`] keeps what it needs, whatever its age.
    pub fn is_pinned(&self) -> bool {
        self.folder.join(PIN).exists()
    }

    /// Pins it, or lets it go.
    ///
    /// # Errors
    /// Its folder can't be written.
    pub fn pin(&self, pinned: bool) -> Result<(), RunsError> {
        let path = self.folder.join(PIN);
        let done = if pinned { std::fs::write(&path, "") } else { std::fs::remove_file(&path) };
        match done {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(CacheError::io("write", path)(error).into()),
            _ => Ok(()),
        }
    }

    /// Removes its folder.
    ///
    /// # Errors
    /// A file of it can't be removed.
    pub fn remove(&self) -> Result<(), RunsError> {
        Ok(std::fs::remove_dir_all(&self.folder).map_err(CacheError::io("remove", &self.folder))?)
    }

    /// The node called `id`: `verify@2`, `no-trace/verify@2` of a variant, or `verify` for the last round that has
    /// outputs.
    ///
    /// # Errors
    /// [`RunsError::NoNode`].
    pub fn node(&self, id: &str) -> Result<&RunNode, RunsError> {
        let nodes = &self.record.nodes;
        let without_round = |node: &RunNode| node.id.rsplit_once('@').is_some_and(|(stage, _)| stage == id);
        let of_stage = || nodes.iter().rev().filter(|node| without_round(node));
        let of_any_variant = || nodes.iter().rev().filter(|node| node.stage == id);
        nodes
            .iter()
            .find(|node| node.id == id)
            .or_else(|| of_stage().chain(of_any_variant()).find(|node| !node.outputs.is_empty()))
            .or_else(|| of_stage().chain(of_any_variant()).next())
            .ok_or_else(|| RunsError::NoNode {
                run: self.record.id.clone(),
                node: id.to_owned(),
                known: nodes.iter().map(|node| node.id.clone()).collect(),
            })
    }

    /// The node and the output that `STAGE` or `STAGE.OUTPUT` means. A variant's name may hold dots:
    /// `temperature=0.6/samples@1`.
    pub fn address<'t>(&self, text: &'t str) -> (&'t str, Option<&'t str>) {
        match text.rsplit_once('.') {
            Some((node, output)) if self.node(text).is_err() => (node, Some(output)),
            _ => (text, None),
        }
    }

    /// The record of a node's output; the first one if `output` is `None`.
    ///
    /// # Errors
    /// [`RunsError::NoNode`], [`RunsError::NoOutput`].
    pub fn output(&self, node: &str, output: Option<&str>) -> Result<&OutputRecord, RunsError> {
        let node = self.node(node)?;
        let name = output.or(node.first_output.as_deref());
        name.and_then(|name| node.outputs.get(name)).ok_or_else(|| RunsError::NoOutput {
            node: node.id.clone(),
            output: output.map(str::to_owned),
            known: node.outputs.keys().cloned().collect(),
        })
    }

    /// A node's output table.
    ///
    /// # Errors
    /// As [`Run::output`]; or the object is gone or damaged.
    pub fn table(&self, store: &Store, node: &str, output: Option<&str>) -> Result<RecordBatch, RunsError> {
        Ok(store.table(&self.output(node, output)?.digest)?)
    }

    /// `metrics.parquet`.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn metrics(&self) -> Result<RecordBatch, RunsError> {
        self.own_table("metrics.parquet")
    }

    /// `stages.parquet`.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn stages(&self) -> Result<RecordBatch, RunsError> {
        self.own_table("stages.parquet")
    }

    /// `outcomes.parquet`.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn outcomes(&self) -> Result<RecordBatch, RunsError> {
        self.own_table("outcomes.parquet")
    }

    /// `pipeline.toml`: the resolved pipeline.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn pipeline_text(&self) -> Result<String, RunsError> {
        let path = self.folder.join("pipeline.toml");
        Ok(std::fs::read_to_string(&path).map_err(CacheError::io("read", &path))?)
    }

    /// The lines of `events.jsonl`; a last line that a dying process left unfinished is left out.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn events(&self) -> Result<Vec<serde_json::Value>, RunsError> {
        let path = self.folder.join("events.jsonl");
        let text = std::fs::read_to_string(&path).map_err(CacheError::io("read", &path))?;
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    fn own_table(&self, name: &str) -> Result<RecordBatch, RunsError> {
        Ok(read_table_file(self.folder.join(name)).map_err(CacheError::from)?)
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
