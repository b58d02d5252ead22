//! The kinds there are, with their types erased: what the pipeline checker, the planner and the scheduler see of them.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use toml::de::ValueDeserializer;

use crate::pipeline::{self, Parameter};
use crate::stage::{
    Context, Environment, Inputs, Item, Output, Outputs, ParamError, Params, Port, PortType, RowKey, RowStage, Setup,
    StageError, TableStage,
};
use crate::table::{Record, append_columns, may_lack};

/// The kinds that `kind = "…"` may name.
#[derive(Default, Clone)]
pub struct Registry {
    kinds: BTreeMap<&'static str, Arc<dyn Kind>>,
    /// Read from the kinds' schemas once: a pipeline may have thousands of stages of a kind.
    parameters: BTreeMap<&'static str, OnceLock<Vec<Parameter>>>,
}

impl Registry {
    /// No kinds.
    pub fn new() -> Self {
        Self::default()
    }
    /// Adds a row kind.
    #[must_use]
    pub fn row<S: RowStage>(mut self) -> Self {
        self.add(Arc::new(RowKind::<S>(PhantomData)));
        self
    }
    /// Adds a table kind.
    #[must_use]
    pub fn table<S: TableStage>(mut self) -> Self {
        self.add(Arc::new(TableKind::<S>(PhantomData)));
        self
    }
    fn add(&mut self, kind: Arc<dyn Kind>) {
        self.parameters.insert(kind.name(), OnceLock::new());
        self.kinds.insert(kind.name(), kind);
    }
    /// The kind of that name.
    pub fn get(&self, kind: &str) -> Option<&Arc<dyn Kind>> {
        self.kinds.get(kind)
    }
    /// The parameters of a kind.
    pub(crate) fn parameters(&self, kind: &dyn Kind) -> &[Parameter] {
        self.parameters.get(kind.name()).map_or(&[], |parameters| parameters.get_or_init(|| pipeline::parameters(kind)))
    }
    /// All kinds by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Kind>> {
        self.kinds.values()
    }
}

/// A kind without its types.
pub trait Kind: Send + Sync {
    /// What stands under `kind = "…"`.
    fn name(&self) -> &'static str;
    /// See [`RowStage::VERSION`].
    fn version(&self) -> u32;
    /// One line about it.
    fn about(&self) -> &'static str;
    /// See [`TableStage::GUIDE`].
    fn guide(&self) -> &'static str {
        ""
    }
    /// JSON Schema of its parameters.
    fn schema(&self) -> schemars::Schema;
    /// The port with the rows, the columns read there and the columns added, for a row kind.
    fn row(&self) -> Option<RowShape>;
    /// All input ports, the row port first.
    fn ports(&self) -> Vec<Port>;
    /// See [`TableStage::OPEN_PORTS`].
    fn open_ports(&self) -> bool;
    /// Reads and checks the parameters: a TOML table without the keys of ports and of the engine.
    ///
    /// # Errors
    /// [`ParseError`]
    fn parse(&self, params: ValueDeserializer<'_>, setup: &Setup) -> Result<CheckedStage, ParseError>;
}

/// Why there is no stage with these parameters.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// Wrong type, missing or unknown key; the error keeps the span of the value.
    #[error(transparent)]
    Toml(#[from] toml::de::Error),
    /// See [`Params::validate`] and [`Params::resolve`].
    #[error("`{}`: {}", .0.param, .0.message)]
    Param(ParamError),
}

impl From<ParamError> for ParseError {
    fn from(error: ParamError) -> Self {
        Self::Param(error)
    }
}

/// What a row kind does to a table.
#[derive(Clone, Debug)]
pub struct RowShape {
    /// The port with the rows.
    pub port: &'static str,
    /// The columns it reads; one of type null is read as what it is.
    pub reads: SchemaRef,
    /// The columns it adds.
    pub adds: SchemaRef,
}

/// A kind with its parameters.
pub type CheckedStage = Arc<dyn Stage>;

/// A kind with its parameters, without its types.
pub trait Stage: Send + Sync {
    /// Its kind.
    fn kind(&self) -> &dyn Kind;
    /// The parameters as JSON, defaults filled in; objects sorted by key.
    fn params(&self) -> &serde_json::Value;
    /// See [`Params::warnings`].
    fn warnings(&self, setup: &Setup) -> Vec<ParamError>;
    /// See [`TableStage::outputs`]; for a row kind one table `rows`.
    fn outputs(&self, inputs: &BTreeMap<String, Option<SchemaRef>>) -> Vec<Output>;
    /// See [`TableStage::row_name`].
    fn row_name(&self) -> &[String] {
        &[]
    }
    /// See [`TableStage::environment`].
    ///
    /// # Errors
    /// The machine lacks what the stage needs, or a file can't be read.
    fn environment(&self, setup: &Setup) -> Result<Environment, StageError>;
    /// How to run it.
    fn work(&self) -> Work<'_>;
    /// See [`TableStage::UNKEYED_PARAMS`].
    fn unkeyed_params(&self) -> &'static [&'static str] {
        &[]
    }
    /// See [`TableStage::MAX_THREADS`].
    fn max_threads(&self) -> usize {
        usize::MAX
    }
}

/// The two ways a stage runs.
pub enum Work<'a> {
    /// Row by row.
    Rows(&'a dyn RowWork),
    /// Over whole inputs.
    Table(&'a dyn TableWork),
}

/// See [`TableStage::run`].
pub trait TableWork {
    /// See [`TableStage::TABLES_AS_FILES`].
    fn tables_as_files(&self) -> bool;
    /// Computes the outputs.
    ///
    /// # Errors
    /// The work can't be done.
    fn run(&self, inputs: &Inputs, cx: &Context) -> Result<Outputs, StageError>;
}

/// See [`RowStage`].
pub trait RowWork: Send + Sync {
    /// The columns it reads and adds.
    fn shape(&self) -> RowShape;
    /// See [`TableStage::TABLES_AS_FILES`], of the other ports.
    fn tables_as_files(&self) -> bool {
        false
    }
    /// Parameters that are not in the row key.
    fn part_params(&self) -> &'static [&'static str];
    /// The parts of each row's work.
    fn parts(&self) -> Vec<i32> {
        vec![0]
    }
    /// See [`RowStage::SESSION_THREADS`].
    fn session_threads(&self) -> usize {
        usize::MAX
    }
    /// Items a segment.
    fn segment_items(&self) -> usize;
    /// Whether sessions stop in time ([`RowSession::some_rows`]): a segment then has what is done in some milliseconds, not
    /// a number of items.
    fn is_timed(&self) -> bool {
        false
    }
    /// Sets up.
    ///
    /// # Errors
    /// The work can't be done.
    fn open<'a>(&'a self, inputs: &Inputs, cx: &Context) -> Result<Box<dyn RowSession + 'a>, StageError>;
}

/// An open row stage.
pub trait RowSession: Send {
    /// Computes items: row `i` of `rows` (which has at least the columns read) with part `parts[i]` under `keys[i]`.
    /// Gives the added columns of all output rows in order, and how many of them belong to each item.
    ///
    /// # Errors
    /// The work can't be done.
    fn rows(
        &mut self,
        rows: &RecordBatch,
        parts: &[i32],
        keys: &[RowKey],
        cx: &Context,
    ) -> Result<(RecordBatch, Vec<u32>), StageError>;

    /// As [`RowSession::rows`], for the first of the items: as many as are done in this time, one at least. An item that
    /// fails for what is in it does not keep the others from being used.
    ///
    /// # Errors
    /// As `rows`.
    fn some_rows(
        &mut self,
        rows: &RecordBatch,
        parts: &[i32],
        keys: &[RowKey],
        _time: Duration,
        cx: &Context,
    ) -> Result<RowResults, StageError> {
        let (added, counts) = self.rows(rows, parts, keys, cx)?;
        Ok(RowResults { done: rows.num_rows(), added, counts, failed: Vec::new() })
    }
}

/// What became of the first items of a call.
pub struct RowResults {
    /// How many of them.
    pub done: usize,
    /// The added columns of all their output rows, in order.
    pub added: RecordBatch,
    /// How many output rows belong to each; none to one that failed.
    pub counts: Vec<u32>,
    /// Items that failed for what is in them, by their place, and why.
    pub failed: Vec<(usize, String)>,
}

/// The output name of every row kind.
pub const ROWS_OUTPUT: &str = "rows";

struct RowKind<S>(PhantomData<S>);

impl<S: RowStage> Kind for RowKind<S> {
    fn name(&self) -> &'static str {
        S::KIND
    }
    fn version(&self) -> u32 {
        S::VERSION
    }
    fn about(&self) -> &'static str {
        S::ABOUT
    }
    fn schema(&self) -> schemars::Schema {
        schemars::schema_for!(S::Params)
    }
    fn row(&self) -> Option<RowShape> {
        Some(row_shape::<S>())
    }
    fn ports(&self) -> Vec<Port> {
        let rows = Port {
            name: S::ROWS,
            port_type: PortType::Table(Some(S::In::schema())),
            optional: false,
            about: "the rows it works on; their other columns are carried along",
        };
        std::iter::once(rows).chain(S::ports()).collect()
    }
    fn open_ports(&self) -> bool {
        false
    }
    fn parse(&self, params: ValueDeserializer<'_>, setup: &Setup) -> Result<CheckedStage, ParseError> {
        let params: S::Params = checked(params, setup)?;
        Ok(Arc::new(BoundRow::<S> { canonical: canonical(&params), params, kind: Self(PhantomData) }))
    }
}

fn row_shape<S: RowStage>() -> RowShape {
    RowShape { port: S::ROWS, reads: S::In::schema(), adds: S::Out::schema() }
}

/// As [`row_shape`], with the columns marked that a table may lack.
fn bound_shape<S: RowStage>(params: &S::Params) -> RowShape {
    let optional = S::optional(params);
    let shape = row_shape::<S>();
    let field = |field: &FieldRef| match optional.contains(&field.name().as_str()) {
        true => Arc::new(may_lack(field)),
        false => Arc::clone(field),
    };
    let fields: Vec<FieldRef> = shape.reads.fields().iter().map(field).collect();
    RowShape { reads: Arc::new(Schema::new(fields)), ..shape }
}

/// The input's columns and the added ones.
fn row_outputs(shape: &RowShape, inputs: &BTreeMap<String, Option<SchemaRef>>) -> Vec<Output> {
    let carried = inputs.get(shape.port).cloned().flatten();
    let schema = carried.map(|carried| append_columns(&carried, &shape.adds));
    vec![Output::new(ROWS_OUTPUT, PortType::Table(schema))]
}

struct BoundRow<S: RowStage> {
    kind: RowKind<S>,
    params: S::Params,
    canonical: serde_json::Value,
}

impl<S: RowStage> Stage for BoundRow<S> {
    fn kind(&self) -> &dyn Kind {
        &self.kind
    }
    fn params(&self) -> &serde_json::Value {
        &self.canonical
    }
    fn warnings(&self, setup: &Setup) -> Vec<ParamError> {
        self.params.warnings(setup)
    }
    fn outputs(&self, inputs: &BTreeMap<String, Option<SchemaRef>>) -> Vec<Output> {
        row_outputs(&bound_shape::<S>(&self.params), inputs)
    }
    fn environment(&self, setup: &Setup) -> Result<Environment, StageError> {
        S::environment(&self.params, setup)
    }
    fn work(&self) -> Work<'_> {
        Work::Rows(self)
    }
    fn max_threads(&self) -> usize {
        S::MAX_THREADS
    }
}

impl<S: RowStage> RowWork for BoundRow<S> {
    fn shape(&self) -> RowShape {
        bound_shape::<S>(&self.params)
    }
    fn part_params(&self) -> &'static [&'static str] {
        S::PART_PARAMS
    }
    fn parts(&self) -> Vec<i32> {
        S::parts(&self.params)
    }
    fn session_threads(&self) -> usize {
        S::SESSION_THREADS.max(1)
    }
    fn segment_items(&self) -> usize {
        S::segment_items(&self.params).max(1)
    }
    fn open<'a>(&'a self, inputs: &Inputs, cx: &Context) -> Result<Box<dyn RowSession + 'a>, StageError> {
        Ok(Box::new(OpenRow::<S> { session: S::open(&self.params, inputs, cx)?, params: &self.params }))
    }
}

struct OpenRow<'a, S: RowStage> {
    params: &'a S::Params,
    session: S::Session,
}

impl<S: RowStage> RowSession for OpenRow<'_, S> {
    fn rows(
        &mut self,
        rows: &RecordBatch,
        parts: &[i32],
        keys: &[RowKey],
        cx: &Context,
    ) -> Result<(RecordBatch, Vec<u32>), StageError> {
        let items: Vec<Item<S::In>> = S::In::read(rows)?
            .into_iter()
            .zip(parts.iter().zip(keys))
            .map(|(row, (&part, &key))| Item { row, part, key })
            .collect();
        let out = S::rows(&mut self.session, self.params, &items, cx)?;
        assert_eq!(out.len(), items.len(), "`{}` must answer every item", S::KIND);
        let counts = out.iter().map(|rows| rows.len() as u32).collect();
        let flat: Vec<S::Out> = out.into_iter().flatten().collect();
        Ok((S::Out::write(&flat)?, counts))
    }
}

struct TableKind<S>(PhantomData<S>);

impl<S: TableStage> Kind for TableKind<S> {
    fn name(&self) -> &'static str {
        S::KIND
    }
    fn version(&self) -> u32 {
        S::VERSION
    }
    fn about(&self) -> &'static str {
        S::ABOUT
    }
    fn guide(&self) -> &'static str {
        S::GUIDE
    }
    fn schema(&self) -> schemars::Schema {
        schemars::schema_for!(S::Params)
    }
    fn row(&self) -> Option<RowShape> {
        None
    }
    fn ports(&self) -> Vec<Port> {
        S::ports()
    }
    fn open_ports(&self) -> bool {
        S::OPEN_PORTS
    }
    fn parse(&self, params: ValueDeserializer<'_>, setup: &Setup) -> Result<CheckedStage, ParseError> {
        let params: S::Params = checked(params, setup)?;
        let row_form = S::row_form(&params);
        Ok(Arc::new(BoundTable::<S> { canonical: canonical(&params), params, row_form, kind: Self(PhantomData) }))
    }
}

struct BoundTable<S: TableStage> {
    kind: TableKind<S>,
    params: S::Params,
    row_form: Option<Box<dyn RowWork>>,
    canonical: serde_json::Value,
}

impl<S: TableStage> Stage for BoundTable<S> {
    fn kind(&self) -> &dyn Kind {
        &self.kind
    }
    fn params(&self) -> &serde_json::Value {
        &self.canonical
    }
    fn row_name(&self) -> &[String] {
        S::row_name(&self.params)
    }
    fn warnings(&self, setup: &Setup) -> Vec<ParamError> {
        self.params.warnings(setup)
    }
    fn outputs(&self, inputs: &BTreeMap<String, Option<SchemaRef>>) -> Vec<Output> {
        match &self.row_form {
            Some(form) => row_outputs(&form.shape(), inputs),
            None => S::outputs(&self.params, inputs),
        }
    }
    fn environment(&self, setup: &Setup) -> Result<Environment, StageError> {
        S::environment(&self.params, setup)
    }
    fn work(&self) -> Work<'_> {
        match &self.row_form {
            Some(form) => Work::Rows(form.as_ref()),
            None => Work::Table(self),
        }
    }
    fn unkeyed_params(&self) -> &'static [&'static str] {
        S::UNKEYED_PARAMS
    }
    fn max_threads(&self) -> usize {
        // Rows are computed side by side.
        if self.row_form.is_some() { usize::MAX } else { S::MAX_THREADS }
    }
}

impl<S: TableStage> TableWork for BoundTable<S> {
    fn tables_as_files(&self) -> bool {
        S::TABLES_AS_FILES
    }
    fn run(&self, inputs: &Inputs, cx: &Context) -> Result<Outputs, StageError> {
        S::run(&self.params, inputs, cx)
    }
}

fn checked<P: Params>(params: ValueDeserializer<'_>, setup: &Setup) -> Result<P, ParseError> {
    let mut params = P::deserialize(params)?;
    params.normalise();
    params.validate()?;
    params.resolve(setup)?;
    Ok(params)
}

/// The parameters as JSON. `serde_json`'s maps are sorted, so equal parameters give equal text.
fn canonical<P: Params>(params: &P) -> serde_json::Value {
    serde_json::to_value(params).expect("a kind's parameters are plain data")
}
