//! A run's folder: telemetry tables that any tool can read with a glob, the resolved pipeline, the event log.

mod lines;
mod log;
mod outputs;
mod params;
mod record;
mod run;
mod stage_log;

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::cache::{ActionKey, CacheError, Cleared, Roots, Store};

pub use lines::{MetricLine, OutcomeLine, ambiguous};
pub(crate) use log::{NodeLog, RunLog, first_output};
pub use outputs::{MetricRow, OutcomeRow};
pub(crate) use outputs::{metrics_of, outcomes_of, shared_name};
pub use params::ParamLine;
pub(crate) use params::part_of;
pub use record::{RunNode, RunRecord, RunStatus, SelectedRound, StageStatus};
pub use run::Run;
pub use stage_log::{StageLog, copy_log};

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
    let folder = store.runs_folder();
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
    let folder = if is_name { store.runs_folder().join(id) } else { PathBuf::from(id) };
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
