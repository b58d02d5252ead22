//! What a kind is: the contract between the engine and the kinds it runs.
//!
//! A [`RowStage`] is a pure function of each row, a [`TableStage`] of whole inputs. Neither may compute from anything
//! but its parameters, its inputs and the environment it declares; [`Context`] therefore carries cancellation,
//! progress and scratch space, and nothing to compute from.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cache::{Checkpoint, KnownFiles, WatchedFile, check_files, list_files};
use crate::registry::RowWork;
use crate::runs::StageLog;
use crate::table::Record;

/// Why a stage could not do its work. A hostile or wrong sample is a row with a verdict, never one of these.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The data is at fault; names the row or the file and says what is wrong.
    #[error("{0}")]
    Input(String),
    /// The machine is at fault (no interpreter, no disk space, a worker that can't start); says what would help.
    #[error("{message}")]
    Environment {
        /// What went wrong.
        message: String,
        /// What the user can do.
        help: Option<String>,
    },
    /// Something that may be gone a moment later (a worker died, a server is busy): the engine tries again, with
    /// growing pauses. Never for what the data or the parameters decide: that would fail the same way again.
    #[error("{message}")]
    Transient {
        /// What went wrong.
        message: String,
        /// What the user can do if it does not go away.
        help: Option<String>,
    },
    /// The run was interrupted; finished segments are kept.
    #[error("interrupted")]
    Cancelled,
    /// A table lacks a column or has one of another type.
    #[error(transparent)]
    Record(#[from] crate::table::RecordError),
    /// A file could not be read or written; the message names its path.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl StageError {
    /// [`StageError::Input`] with a message.
    pub fn input(message: impl Into<String>) -> Self {
        Self::Input(message.into())
    }
    /// [`StageError::Environment`] with a message and a hint.
    pub fn environment(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Environment { message: message.into(), help: Some(help.into()) }
    }
}

/// A parameter whose value is of the right type and still wrong, e.g. out of range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamError {
    /// The parameter's name in the TOML file.
    pub param: &'static str,
    /// What is wrong, e.g. "must be at least 0".
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

/// A kind's parameters: the struct whose doc comments become the schema and `tracetune kinds`.
/// A field named `seed` that the file leaves out takes the pipeline's seed.
pub trait Params: DeserializeOwned + Serialize + JsonSchema + Send + Sync + 'static {
    /// Brings parameters that mean the same to one form, so that they have one key. Called before anything else.
    fn normalise(&mut self) {}
    /// Checks what types can't say: ranges, combinations.
    ///
    /// # Errors
    /// The first parameter that is wrong.
    fn validate(&self) -> Result<(), ParamError> {
        Ok(())
    }
    /// Reads what the parameters point at and the pipeline's check needs to know, e.g. a function's signature, into fields
    /// that serde skips. Called after [`Params::validate`].
    ///
    /// # Errors
    /// The parameter that points at what can't be read.
    fn resolve(&mut self, _setup: &Setup) -> Result<(), ParamError> {
        Ok(())
    }
    /// What may be meant otherwise, e.g. a script that is no part of the key.
    fn warnings(&self, _setup: &Setup) -> Vec<ParamError> {
        Vec::new()
    }
}

/// What flows along an edge.
#[derive(Clone, Debug, PartialEq)]
pub enum PortType {
    /// A table. As an input: the columns that must be there (others may be). As an output: its exact columns, or
    /// `None` when they are known only once the stage has run.
    Table(Option<SchemaRef>),
    /// A directory in the Hugging Face layout (`config.json`, `model.safetensors`, `tokenizer.json`).
    Model,
    /// A directory of files. As an input, a model is one too.
    Folder,
    /// Whatever a stage gives: for ports that the user names.
    Any,
}

/// An input port.
#[derive(Clone, Debug)]
pub struct Port {
    /// The key in the stage's TOML table.
    pub name: &'static str,
    /// What it takes.
    pub port_type: PortType,
    /// Whether the stage can do without.
    pub optional: bool,
    /// One line for `tracetune kinds`.
    pub about: &'static str,
}

/// The end of the name of a variable by which programs find what has this name: variables have neither case nor hyphens.
pub fn variable(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

/// An output. The first one a kind declares is what a bare stage name refers to, the others are `stage.output`.
///
/// Two output names have a meaning to the engine: a table `metrics` (split, metric: string; k: int32 nullable; value,
/// ci_low, ci_high: float64; n: int64) and a table `outcomes` (split, problem_id: string; samples, passes: int32) are
/// gathered in the run's folder under the stage's variant and round.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its name.
    pub name: Cow<'static, str>,
    /// What it gives.
    pub port_type: PortType,
}

impl Output {
    /// An output of that name.
    pub fn new(name: impl Into<Cow<'static, str>>, port_type: PortType) -> Self {
        Self { name: name.into(), port_type }
    }
}

/// What a stage declares of the world it computes in; part of its key. E.g. `("python", "3.11.7")`.
pub type Environment = Vec<(String, String)>;

/// What a kind may look at to declare its [`Environment`].
pub struct Setup<'a> {
    /// The project's root: relative paths in parameters start here.
    pub root: &'a Path,
    /// Digests of large files that were read before.
    known: Option<&'a KnownFiles>,
    /// What was looked at so far.
    watched: RefCell<Vec<WatchedFile>>,
}

impl<'a> Setup<'a> {
    /// Reads every file anew.
    pub fn new(root: &'a Path) -> Self {
        Self { root, known: None, watched: RefCell::default() }
    }
    pub(crate) fn remembering(root: &'a Path, known: &'a KnownFiles) -> Self {
        Self { root, known: Some(known), watched: RefCell::default() }
    }
    /// The path a parameter names.
    pub fn resolve(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }
    /// The blake3 digest of a file, in hexadecimal, for keys; of a folder, over the names and bytes of its files. A folder
    /// or a large file that did not change since it was last read is not read again.
    ///
    /// # Errors
    /// The file can't be read; the message names it.
    pub fn digest_file(&self, path: impl AsRef<Path>) -> Result<String, StageError> {
        let path = self.resolve(path);
        let fresh = KnownFiles::default();
        let (digest, watched) =
            self.known.unwrap_or(&fresh).watched(&path).map_err(|error| unreadable(&path, &error))?;
        self.watched.borrow_mut().push(watched);
        Ok(digest.to_string())
    }
    /// Whether [`Setup::digest_file`] would find something to read, without reading it.
    ///
    /// # Errors
    /// As [`Setup::digest_file`].
    pub fn check_file(&self, path: impl AsRef<Path>) -> Result<(), StageError> {
        let path = self.resolve(path);
        check_files(&path).map_err(|error| unreadable(&path, &error))
    }
    /// What can be learnt of a file by asking it, e.g. an interpreter for its version: asked once for as long as the file
    /// system says that the file is the same.
    ///
    /// # Errors
    /// There is no such file; or as `ask`.
    pub fn fact(
        &self,
        path: &Path,
        question: &str,
        ask: impl FnOnce() -> Result<String, StageError>,
    ) -> Result<String, StageError> {
        let fresh = KnownFiles::default();
        self.known.unwrap_or(&fresh).fact(path, question, ask)
    }
    /// Notes that the stage reads a file or a folder which its key covers by something else than its bytes, e.g. by the
    /// syntax tree of a module. Call it before reading. Nothing is recorded of a stage whose files change while it runs:
    /// [`Setup::digest_file`] notes its files by itself.
    ///
    /// # Errors
    /// As [`Setup::digest_file`].
    pub fn watch(&self, path: impl AsRef<Path>) -> Result<(), StageError> {
        let path = self.resolve(path);
        let watched = WatchedFile::at(&path).map_err(|error| unreadable(&path, &error))?;
        self.watched.borrow_mut().push(watched);
        Ok(())
    }
    /// What was looked at since the last call.
    pub(crate) fn take_watched(&self) -> Vec<WatchedFile> {
        self.watched.take()
    }
}

/// The files that a path names: itself, those of a folder, or those that a glob matches, sorted. What a folder leaves out in
/// keys is left out here as well.
///
/// # Errors
/// There is nothing, or nothing that can be read.
pub fn files_at(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    list_files(path)
}

fn unreadable(path: &Path, error: &std::io::Error) -> StageError {
    StageError::Input(format!("can't read `{}`: {error}", path.display()))
}

/// What an input port holds when the stage runs.
#[derive(Clone, Debug)]
pub enum Artifact {
    /// A whole table as one batch.
    Table(RecordBatch),
    /// A table as a Parquet file, for what is larger than memory. As an input (see [`TableStage::TABLES_AS_FILES`])
    /// it is read-only and belongs to the cache; as an output it is read piece by piece and written anew.
    File(PathBuf),
    /// A directory; as an input it is read-only and belongs to the cache.
    Directory(PathBuf),
}

/// A stage's inputs by port.
#[derive(Clone, Debug, Default)]
pub struct Inputs(pub BTreeMap<String, Artifact>);

impl Inputs {
    /// The table at a port; `None` where an optional port is not connected, or the kind takes tables as files.
    pub fn table(&self, port: &str) -> Option<&RecordBatch> {
        match self.0.get(port) {
            Some(Artifact::Table(batch)) => Some(batch),
            _ => None,
        }
    }
    /// The directory at a port; `None` where an optional port is not connected.
    pub fn directory(&self, port: &str) -> Option<&Path> {
        match self.0.get(port) {
            Some(Artifact::Directory(path)) => Some(path),
            _ => None,
        }
    }
}

/// A stage's outputs by name. A directory given here is moved into the cache.
#[derive(Clone, Debug, Default)]
pub struct Outputs(pub BTreeMap<String, Artifact>);

impl Outputs {
    /// Takes an output out.
    pub fn remove(&mut self, name: &str) -> Option<Artifact> {
        self.0.remove(name)
    }
    /// Adds an output.
    pub fn insert(&mut self, name: impl Into<String>, artifact: Artifact) {
        self.0.insert(name.into(), artifact);
    }
}

impl<const N: usize> From<[(&str, Artifact); N]> for Outputs {
    fn from(outputs: [(&str, Artifact); N]) -> Self {
        Self(outputs.map(|(name, artifact)| (name.to_owned(), artifact)).into())
    }
}

/// Tells a running stage whether to stop, and lets it tell how far it is.
#[derive(Clone)]
pub struct Context {
    /// Set when the run is interrupted.
    pub cancel: Arc<AtomicBool>,
    /// How many threads the stage may use. Results must not depend on it.
    pub threads: usize,
    /// The project's root: relative paths in parameters start here.
    pub root: PathBuf,
    /// An empty folder, removed when the stage ends.
    pub scratch: PathBuf,
    /// Survives an interrupted run and is found again under the same key: for checkpoints of long work. Removed once the
    /// stage succeeds.
    pub checkpoint: Checkpoint,
    /// Keeps what the stage's programs write.
    pub log: Arc<StageLog>,
    /// Receives progress and notes.
    pub reporter: Arc<dyn Reporter>,
}

/// Where a stage's progress and notes go.
pub trait Reporter: Send + Sync {
    /// `done` of `total` units of work (rows, steps), with a short text for people, e.g. `loss 1.234`.
    fn progress(&self, done: u64, total: u64, text: &str);
    /// Something the user should know, e.g. "3 problems could not be broken". Kept in the run's event log.
    fn note(&self, text: &str);
    /// A line that a program of the stage wrote, for those who watch.
    fn log(&self, _line: &str) {}
    /// Rows that the stage leaves out, and why. Kept in the stage's record: a stage that leaves out every row fails with
    /// these reasons.
    fn dropped(&self, _dropped: &Dropped) {}
}

/// Input rows for which a stage returns no output row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// How many.
    pub rows: u64,
    /// Why, in the same words for all of them: rows with the same reason are counted together.
    pub reason: String,
    /// One of them, e.g. `mbpp/601: test 1: KeyError: 'x'`; empty where the reason says all.
    pub example: String,
    /// What the user can do about it; may be empty.
    pub help: String,
}

impl Dropped {
    /// So many rows for this reason.
    pub fn new(rows: u64, reason: impl Into<String>) -> Self {
        Self { rows, reason: reason.into(), ..Self::default() }
    }
    /// With one of the rows.
    #[must_use]
    pub fn example(self, example: impl Into<String>) -> Self {
        Self { example: example.into(), ..self }
    }
    /// With what the user can do.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: help.into(), ..self }
    }
}

impl Context {
    /// Whether the run was interrupted: return [`StageError::Cancelled`] soon.
    pub fn cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }
    /// See [`Reporter::progress`].
    pub fn progress(&self, done: u64, total: u64, text: &str) {
        self.reporter.progress(done, total, text);
    }
    /// See [`Reporter::note`].
    pub fn note(&self, text: &str) {
        self.reporter.note(text);
    }
    /// See [`Reporter::dropped`].
    pub fn dropped(&self, dropped: &Dropped) {
        self.reporter.dropped(dropped);
    }
}

/// The key of one unit of row work: blake3 of the stage's signature and of what it reads of the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey(pub [u8; 32]);

impl RowKey {
    /// A seed for the row's random numbers: the key's first eight bytes. Randomness is addressed, so that a row's
    /// numbers do not depend on which other rows there are.
    pub fn seed(&self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|byte| self.0[byte]))
    }
}

/// One unit of row work: a row and which part of its work is asked for.
#[derive(Clone, Debug)]
pub struct Item<In> {
    /// The columns that the stage reads.
    pub row: In,
    /// One of [`RowStage::parts`].
    pub part: i32,
    /// Covers the stage's signature, the row and the part.
    pub key: RowKey,
}

crate::record! {
    /// What a stage's output `bad` adds to a row of its input.
    pub(crate) struct BadRow {
        /// The part of the row's work.
        pub(crate) _part: i32,
        /// Why it can't be done.
        pub(crate) _error: String,
    }
}

/// A kind that is a pure function of each row: its output rows are the input's columns with `Out`'s appended (a
/// column of the same name is replaced), one or more or none a part, in the input's order.
pub trait RowStage: Send + Sync + 'static {
    /// What stands under `kind = "…"`.
    const KIND: &'static str;
    /// Goes up when the same key would give other bytes; the golden digest test notices if you forget.
    const VERSION: u32;
    /// One line for `tracetune kinds`.
    const ABOUT: &'static str;
    /// What may stand beside `kind`.
    type Params: Params;
    /// The columns it reads: they, and no others, are in the row key.
    type In: Record;
    /// The columns it adds.
    type Out: Record;
    /// What is set up once for many rows: a loaded model, a sandbox.
    type Session: Send;

    /// The port with the rows.
    const ROWS: &'static str = "rows";
    /// Other ports; each counts in the key with its whole content.
    fn ports() -> Vec<Port> {
        Vec::new()
    }
    /// Columns of [`RowStage::In`] that a table may lack, with these parameters: they are then read as nulls. Their type allows
    /// nulls.
    fn optional(_params: &Self::Params) -> Vec<&'static str> {
        Vec::new()
    }
    /// The parts each row's work is split into, e.g. `0..n` samples: growing it keeps the parts already computed.
    fn parts(_params: &Self::Params) -> Vec<i32> {
        vec![0]
    }
    /// Parameters that decide nothing but [`RowStage::parts`] (or how fast the work goes): not in the row key.
    const PART_PARAMS: &'static [&'static str] = &[];
    /// The most threads that it makes use of: stages that need few run side by side.
    const MAX_THREADS: usize = usize::MAX;
    /// The most threads that one session makes use of: with fewer than there are, several sessions work side by side.
    const SESSION_THREADS: usize = usize::MAX;
    /// How many items make a segment: what is computed, stored and lost together.
    fn segment_items(_params: &Self::Params) -> usize {
        512
    }
    /// What it declares of the machine; part of the key.
    ///
    /// # Errors
    /// The machine lacks what the stage needs, e.g. python3.
    fn environment(_params: &Self::Params, _setup: &Setup) -> Result<Environment, StageError> {
        Ok(Vec::new())
    }
    /// Sets up for many calls of [`RowStage::rows`].
    ///
    /// # Errors
    /// As `rows`.
    fn open(params: &Self::Params, inputs: &Inputs, cx: &Context) -> Result<Self::Session, StageError>;
    /// The output rows of each item, in the items' order. Items of one row stand together.
    /// Reports progress as items done of `items.len()`.
    ///
    /// # Errors
    /// The work can't be done; nothing of this call is kept.
    fn rows(
        session: &mut Self::Session,
        params: &Self::Params,
        items: &[Item<Self::In>],
        cx: &Context,
    ) -> Result<Vec<Vec<Self::Out>>, StageError>;
}

/// A kind that is a pure function of whole inputs.
pub trait TableStage: Send + Sync + 'static {
    /// What stands under `kind = "…"`.
    const KIND: &'static str;
    /// Goes up when the same key would give other bytes; the golden digest test notices if you forget.
    const VERSION: u32;
    /// One line for `tracetune kinds`.
    const ABOUT: &'static str;
    /// What a user should know beside the parameters, for `tracetune kinds NAME`: a paragraph per line.
    const GUIDE: &'static str = "";
    /// What may stand beside `kind`.
    type Params: Params;

    /// The input ports.
    fn ports() -> Vec<Port> {
        Vec::new()
    }
    /// Whether `inputs = { port = "stage" }` may name ports of the user's own: tables, models, folders.
    const OPEN_PORTS: bool = false;
    /// Parameters that decide no result: not in any key.
    const UNKEYED_PARAMS: &'static [&'static str] = &[];
    /// Whether it takes tables as [`Artifact::File`].
    const TABLES_AS_FILES: bool = false;
    /// The most threads that it makes use of: stages that need few run side by side.
    const MAX_THREADS: usize = usize::MAX;
    /// The outputs, the default one first. `inputs` has each connected table's columns, where they are known.
    fn outputs(params: &Self::Params, inputs: &BTreeMap<String, Option<SchemaRef>>) -> Vec<Output>;
    /// Columns of its first output whose values name a row, e.g. an id: by them `why` finds the row that a row was.
    fn row_name(_params: &Self::Params) -> &[String] {
        &[]
    }
    /// What it declares of the machine and of files it reads; part of the key.
    ///
    /// # Errors
    /// The machine lacks what the stage needs, or a file can't be read.
    fn environment(_params: &Self::Params, _setup: &Setup) -> Result<Environment, StageError> {
        Ok(Vec::new())
    }
    /// What it does instead of [`TableStage::run`] where its parameters make it a function of each row.
    fn row_form(_params: &Self::Params) -> Option<Box<dyn RowWork>> {
        None
    }
    /// Computes the outputs: each one that [`TableStage::outputs`] declares.
    ///
    /// # Errors
    /// The work can't be done; nothing of it is kept.
    fn run(params: &Self::Params, inputs: &Inputs, cx: &Context) -> Result<Outputs, StageError>;
}
