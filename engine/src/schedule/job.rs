//! Computes one node: takes its lock, reads its inputs, runs the stage, stores what it gave.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tempfile::TempDir;

use super::rows::Rows;
use super::telemetry::Meter;
use crate::cache::{
    ActionKey, ActionRecord, CacheError, Checkpoint, Cost, Digest, KeyPart, Lock, OutputRecord, OutputType, Provenance,
    Signature, Store, WatchedFile,
};
use crate::pipeline::{BadRows, Node, NodeIndex};
use crate::registry::{ROWS_OUTPUT, Stage, TableWork, Work};
use crate::runs::StageLog;
use crate::stage::{Artifact, Context, Dropped, Inputs, Output, PortType, Reporter, StageError};
use crate::table::{TableError, TableFile, normalised, read_columns};

/// Rows of a file that are in memory at a time.
const PIECE_ROWS: usize = 1 << 14;

/// A node that is to be computed.
pub(super) struct Job<'a> {
    pub node: &'a Node,
    pub key: ActionKey,
    pub parts: Vec<KeyPart>,
    pub signature: Option<Signature>,
    /// The files that the key was made of.
    pub watched: Arc<[WatchedFile]>,
    /// Whether what is in the cache does not count.
    pub force: bool,
    /// By port: the node that gives it, and what it gave.
    pub inputs: BTreeMap<String, (NodeIndex, OutputRecord)>,
    pub store: &'a Store,
    pub root: &'a Path,
    pub run_id: &'a str,
    pub run_folder: &'a Path,
    pub threads: usize,
    pub cancel: Arc<AtomicBool>,
    pub reporter: Arc<NoteKeeper>,
}

/// What a job came to.
pub(super) struct Computed {
    pub record: ActionRecord,
    /// Whether another run was quicker: nothing was computed here.
    pub was_cached: bool,
    pub rows_cached: u64,
    pub rows_computed: u64,
    pub cost: Cost,
}

/// What stays with a job until its record is written: other runs wait for it, and its folders are still there.
pub(super) struct Unsaved {
    _lock: Option<Lock>,
    _scratch: TempDir,
    checkpoint: Checkpoint,
}

impl Unsaved {
    /// Writes the record, which may wait for the disk; the stages that need the outputs need not.
    pub(super) fn save(self, record: &ActionRecord, store: &Store) -> Result<(), CacheError> {
        store.put_action(record)?;
        self.checkpoint.remove()
    }
}

/// Why a job gave nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum JobError {
    #[error(transparent)]
    Stage(#[from] StageError),
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error(transparent)]
    Table(#[from] TableError),
    /// What this node gave is gone from the store, or damaged.
    #[error("an input is gone from the cache")]
    InputLost(NodeIndex),
    /// A file that the node's key was made of changed: what was computed may be of other bytes than the key says.
    #[error("`{}` changed while the stage ran", .0.display())]
    FileChanged(PathBuf),
}

impl JobError {
    /// The same of a piece that begins at a row of a table.
    pub(super) fn in_piece(self, first: usize) -> Self {
        match self {
            Self::Table(error) => Self::Table(error.in_piece(first)),
            other => other,
        }
    }

    pub(super) fn is_cancelled(&self) -> bool {
        matches!(self, Self::Stage(StageError::Cancelled) | Self::Cache(CacheError::Cancelled))
    }

    pub(super) fn help(&self) -> Option<String> {
        match self {
            Self::Stage(StageError::Environment { help, .. } | StageError::Transient { help, .. }) => help.clone(),
            _ => None,
        }
    }
}

/// The kind did not keep to what it declares.
pub(super) fn output_error(kind: &str, what: &str) -> JobError {
    let message = format!("kind `{kind}` {what}");
    StageError::Environment { message, help: Some("this is a mistake in the kind, not in the pipeline".to_owned()) }
        .into()
}

impl Job<'_> {
    /// Computes the node, unless another run did so in the meantime. What was computed is still to be saved.
    pub(super) fn run(&self) -> Result<(Computed, Option<Unsaved>), JobError> {
        let meter = Meter::start();
        let cancel = Arc::clone(&self.cancel);
        let cancelled = move || cancel.load(std::sync::atomic::Ordering::Relaxed);
        let waiting = || self.reporter.pass_on("waiting for another run that computes the same");
        // The rows of a row stage are shared by the runs that need them.
        let lock = match self.node.stage_kind.work() {
            Work::Rows(_) => None,
            Work::Table(_) => Some(self.store.lock_action(&self.key, &cancelled, waiting)?),
        };
        let was_recorded = self.store.recorded_action(&self.key)?.is_some();
        if !self.force
            && let Some(record) = self.store.action(&self.key)?
        {
            let cost = meter.read();
            let rows_cached = record.items.unwrap_or_default();
            return Ok((Computed { record, was_cached: true, rows_cached, rows_computed: 0, cost }, None));
        }
        check_watched(&self.watched)?;
        let stage = self.node.stage_kind.as_ref();
        let inputs = self.load_inputs(stage.work())?;
        let scratch = self.store.scratch()?;
        let checkpoint = self.store.checkpoint(&self.key)?;
        let cx = Context {
            cancel: Arc::clone(&self.cancel),
            threads: self.threads,
            root: self.root.to_owned(),
            scratch: scratch.path().to_owned(),
            checkpoint: checkpoint.clone(),
            log: Arc::new(StageLog::new(self.run_folder, &self.node.id)),
            reporter: Arc::<NoteKeeper>::clone(&self.reporter),
        };
        let work = || match stage.work() {
            Work::Rows(work) => {
                let shape = work.shape();
                let table = self.load(shape.port, Store::table_file)?;
                let rows = Rows {
                    kind: stage.kind().name(),
                    work,
                    shape,
                    bad_rows: self.node.bad_rows,
                    signature: self.signature.expect("a kind that works on rows has a signature"),
                    store: self.store,
                    watched: &self.watched,
                    force: self.force,
                };
                let waiting = || self.reporter.pass_on("waiting for another run that computes the same rows");
                let output = rows.run(&table, &inputs, &cx, waiting)?;
                let bad = output.bad.map(|bad| (BadRows::OUTPUT.to_owned(), bad));
                let outputs = BTreeMap::from_iter([(ROWS_OUTPUT.to_owned(), output.table)].into_iter().chain(bad));
                Ok((outputs, Some(output.items), output.computed))
            }
            Work::Table(work) => Ok((self.run_table(stage, work, &inputs, &cx)?, None, 0)),
        };
        let (outputs, items, rows_computed) = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied());
            Err(output_error(stage.kind().name(), &format!("panicked: {}", text.unwrap_or("no message"))))
        })?;
        check_watched(&self.watched)?;
        for watched in self.watched.iter() {
            self.store.put_listing(watched)?;
        }
        let cost = meter.read();
        if rows_computed == 0
            && lock.is_none()
            && !was_recorded
            && !self.force
            && let Some(record) = self.store.action(&self.key)?
        {
            // Another run computed the rows and was quicker.
            let rows_cached = record.items.unwrap_or_default();
            return Ok((Computed { record, was_cached: true, rows_cached, rows_computed: 0, cost }, None));
        }
        let record = ActionRecord {
            key: self.key,
            kind: stage.kind().name().to_owned(),
            version: stage.kind().version(),
            parts: self.parts.clone(),
            params: stage.params().clone(),
            outputs,
            items,
            notes: self.reporter.notes(),
            dropped: self.reporter.dropped_rows(),
            cost,
            provenance: Provenance {
                run: self.run_id.to_owned(),
                node: self.node.id.clone(),
                finished: jiff::Timestamp::now().to_string(),
                tracetune: env!("CARGO_PKG_VERSION").to_owned(),
            },
        };
        let rows_cached = items.unwrap_or_default() - rows_computed;
        let computed = Computed { record, was_cached: false, rows_cached, rows_computed, cost };
        Ok((computed, Some(Unsaved { _lock: lock, _scratch: scratch, checkpoint })))
    }

    /// What the ports hold, but for the rows of a row stage, which are read piece by piece.
    fn load_inputs(&self, work: Work) -> Result<Inputs, JobError> {
        let (as_files, rows) = match work {
            Work::Table(work) => (work.tables_as_files(), None),
            Work::Rows(work) => (work.tables_as_files(), Some(work.shape().port)),
        };
        let mut inputs = Inputs::default();
        for (port, (_, output)) in self.inputs.iter().filter(|(port, _)| rows != Some(port.as_str())) {
            let artifact = match output.output_type {
                OutputType::Table if as_files => Artifact::File(self.load(port, Store::checked_path)?),
                OutputType::Table => Artifact::Table(self.load(port, Store::table)?),
                OutputType::Model | OutputType::Folder => Artifact::Directory(self.load(port, Store::directory)?),
            };
            inputs.0.insert(port.clone(), artifact);
        }
        Ok(inputs)
    }

    /// What a port holds.
    fn load<T>(&self, port: &str, read: impl Fn(&Store, &Digest) -> Result<T, CacheError>) -> Result<T, JobError> {
        let Some((from, output)) = self.inputs.get(port) else {
            return Err(StageError::input(format!("input `{port}` is not connected")).into());
        };
        read(self.store, &output.digest).map_err(|error| match error {
            CacheError::Lost { .. } => JobError::InputLost(*from),
            error => error.into(),
        })
    }

    fn run_table(
        &self,
        stage: &dyn Stage,
        work: &dyn TableWork,
        inputs: &Inputs,
        cx: &Context,
    ) -> Result<BTreeMap<String, OutputRecord>, JobError> {
        let mut schemas: BTreeMap<String, Option<SchemaRef>> = BTreeMap::new();
        for (port, artifact) in &inputs.0 {
            let schema = match artifact {
                Artifact::Table(batch) => Some(batch.schema()),
                Artifact::File(path) => Some(TableFile::open(path)?.schema()),
                Artifact::Directory(_) => None,
            };
            schemas.insert(port.clone(), schema);
        }
        let mut given = work.run(inputs, cx)?;
        let kind = stage.kind().name();
        let mut outputs = BTreeMap::new();
        for declared in stage.outputs(&schemas) {
            let record = self.put_output(kind, &declared, given.remove(&declared.name))?;
            outputs.insert(declared.name.into_owned(), record);
        }
        match given.0.keys().next() {
            Some(name) => Err(output_error(kind, &format!("gave an output `{name}` that it does not declare"))),
            None => Ok(outputs),
        }
    }

    /// Stores an output, if it is what was declared.
    fn put_output(&self, kind: &str, declared: &Output, given: Option<Artifact>) -> Result<OutputRecord, JobError> {
        let name = &declared.name;
        let wrong = |what: String| output_error(kind, &format!("gave an output `{name}` {what}"));
        let checked = |batch: RecordBatch, schema: &Option<SchemaRef>| match schema {
            Some(schema) => declared_columns(&batch, schema).map_err(&wrong),
            None => Ok(batch),
        };
        match (given, &declared.port_type) {
            (None, _) => Err(output_error(kind, &format!("did not give its output `{name}`"))),
            (Some(Artifact::Directory(folder)), PortType::Model) => {
                Ok(self.store.put_directory(&folder, OutputType::Model)?)
            }
            (Some(Artifact::Directory(folder)), PortType::Folder) => {
                Ok(self.store.put_directory(&folder, OutputType::Folder)?)
            }
            (Some(Artifact::Directory(_)), _) => Err(wrong("that is a directory, not a table".to_owned())),
            (Some(_), PortType::Any) => Err(wrong("of no declared type".to_owned())),
            (Some(_), PortType::Model | PortType::Folder) => Err(wrong("that is a table, not a directory".to_owned())),
            (Some(Artifact::Table(batch)), PortType::Table(schema)) => {
                Ok(self.store.put_table(&checked(batch, schema)?)?)
            }
            (Some(Artifact::File(path)), PortType::Table(schema)) => {
                let file = TableFile::open(path)?;
                self.store.put_pieces(schema.as_ref().unwrap_or(&file.schema()), |output| {
                    for piece in file.pieces(PIECE_ROWS)? {
                        output.write(&checked(piece?, schema)?)?;
                    }
                    Ok(())
                })
            }
        }
    }
}

/// That the files which a key was made of are as they were.
pub(super) fn check_watched(watched: &[WatchedFile]) -> Result<(), JobError> {
    match watched.iter().find_map(WatchedFile::changed) {
        Some(path) => Err(JobError::FileChanged(path)),
        None => Ok(()),
    }
}

/// That a table has the columns that its output declares.
fn declared_columns(batch: &RecordBatch, declared: &SchemaRef) -> Result<RecordBatch, String> {
    let known = |name: &str| declared.field_with_name(name).is_ok();
    if let Some(extra) = batch.schema().fields().iter().find(|field| !known(field.name())) {
        return Err(format!("with a column `{}` that it does not declare", extra.name()));
    }
    let table = normalised(batch).and_then(|batch| read_columns(&batch, declared));
    table.map_err(|error| format!("that it does not declare so: {error}"))
}

/// Passes a stage's progress and notes on, and keeps the notes for the record.
pub(super) struct NoteKeeper {
    pub reporter: Box<dyn Reporter>,
    pub notes: Mutex<Vec<String>>,
    pub dropped: Mutex<Vec<Dropped>>,
}

impl NoteKeeper {
    /// Notes of one stage that are kept in its record.
    const KEPT: usize = 50;

    pub(super) fn new(reporter: impl Reporter + 'static) -> Self {
        Self { reporter: Box::new(reporter), notes: Mutex::default(), dropped: Mutex::default() }
    }

    /// A note about this run that is none about the result.
    fn pass_on(&self, text: &str) {
        self.reporter.note(text);
    }

    fn notes(&self) -> Vec<String> {
        self.notes.lock().map(|notes| notes.clone()).unwrap_or_default()
    }

    /// Why rows were left out, the most frequent reason first.
    fn dropped_rows(&self) -> Vec<Dropped> {
        let mut dropped = self.dropped.lock().map(|dropped| dropped.clone()).unwrap_or_default();
        dropped.sort_by_key(|dropped| Reverse(dropped.rows));
        dropped
    }
}

impl Reporter for NoteKeeper {
    fn progress(&self, done: u64, total: u64, text: &str) {
        self.reporter.progress(done, total, text);
    }
    fn note(&self, text: &str) {
        if let Ok(mut notes) = self.notes.lock()
            && notes.len() < Self::KEPT
        {
            notes.push(text.to_owned());
        }
        self.reporter.note(text);
    }
    fn log(&self, line: &str) {
        self.reporter.log(line);
    }
    fn dropped(&self, dropped: &Dropped) {
        let Ok(mut known) = self.dropped.lock() else { return };
        match known.iter_mut().find(|known| known.reason == dropped.reason) {
            Some(known) => known.rows += dropped.rows,
            None => known.push(dropped.clone()),
        }
    }
}
