//! Kind `python`: a Python function of the user's own, called for each row.

mod inspect;
mod values;
mod worker;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracetune_engine::registry::{ComputedRows, RowSession, RowShape, RowWork};
use tracetune_engine::stage::{
    self, Context, Environment, Inputs, Output, Outputs, ParamError, Port, PortType, RowKey, Setup, StageError,
    TableStage,
};
use tracetune_engine::table::schema_of;

use self::inspect::{Function, inspect};
use self::worker::Worker;
use crate::command::{data_type, identity};
use crate::program::{Program, found_in};

/// What may stand under `kind = "python"`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The function: `"FILE.py:NAME"`, from the project's root, or `"package.module:NAME"`. Its positional parameters are
    /// the columns that it reads. The key holds the syntax tree of the function and of all project code that it reaches:
    /// comments, docstrings and formatting change nothing.
    function: String,
    /// The columns that it adds with their types (`string`, `bool`, `int32`, `int64`, `float32`, `float64`, `list of …`).
    /// Left out, the annotation of its result says them: `-> int` is one column of the function's name, a dataclass,
    /// NamedTuple or TypedDict is a column a field, `Iterator[…]` and `list[…]` of one of these any number of rows.
    #[serde(default)]
    adds: BTreeMap<String, String>,
    /// Values for the function's keyword-only parameters.
    #[serde(default)]
    params: serde_json::Map<String, Value>,
    /// A function of the same file that is called once in each worker, without arguments, e.g. to load a model; what it
    /// returns is the keyword-only parameter `state`.
    #[serde(default)]
    setup: Option<String>,
    /// The interpreter: a name in PATH, or a path from the project's root, e.g. `.venv/bin/python`.
    #[serde(default = "python")]
    python: String,
    /// Files, folders and globs that the function reads; their bytes are part of the key.
    #[serde(default)]
    files: Vec<String>,
    /// All the environment that workers get, beside PATH, HOME and `pass_env`; part of the key.
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// Variables that are handed through from tracetune's own environment; neither keyed nor stored.
    #[serde(default)]
    pass_env: Vec<String>,
    /// How many rows a call of a worker gets at least: what is computed, stored and lost together.
    #[serde(default = "segment_rows")]
    #[schemars(range(min = 1))]
    segment_rows: usize,
    /// What the file says of the function.
    #[serde(skip)]
    inspected: Option<Arc<Function>>,
}

fn python() -> String {
    "python3".to_owned()
}

fn segment_rows() -> usize {
    32
}

/// The keyword under which the function gets what `setup` returned.
const STATE: &str = "state";

impl Params {
    fn interpreter(&self, setup: &Setup) -> PathBuf {
        let path = std::env::var_os("PATH").unwrap_or_default();
        if self.python.contains('/') { setup.resolve(&self.python) } else { found_in(&path, &self.python) }
    }

    fn inspected(&self) -> &Function {
        self.inspected.as_ref().expect("the parameters are resolved before they are used")
    }

    /// The columns that it adds.
    fn columns(&self) -> BTreeMap<String, String> {
        let returned = self.inspected().returns.as_ref();
        if self.adds.is_empty() {
            returned.map(|returned| returned.columns.clone()).unwrap_or_default()
        } else {
            self.adds.clone()
        }
    }

    /// Whether the function returns any number of rows, and whether a row is the one column's value.
    fn form(&self) -> (bool, bool) {
        match &self.inspected().returns {
            Some(returned) => (returned.many, returned.single),
            None => (false, self.adds.len() == 1),
        }
    }

    fn check_signature(&self) -> Result<(), ParamError> {
        let function = self.inspected();
        let wrong =
            |param, message: String, help: &str| Err(ParamError { param, message, help: Some(help.to_owned()) });
        if function.reads.is_empty() {
            return wrong(
                "function",
                "it has no positional parameter: it reads no column".to_owned(),
                "name the columns that it reads: `def f(text): …`",
            );
        }
        let given = |name: &String| self.params.contains_key(name) || (self.setup.is_some() && name == STATE);
        if let Some(name) = function.required.iter().find(|name| !given(name)) {
            let help = if name == STATE {
                "name the function that makes it: `setup = \"load\"`".to_owned()
            } else {
                format!("add it: `params = {{ {name} = … }}`")
            };
            return Err(ParamError {
                param: "params",
                message: format!("the function's keyword `{name}` is not given"),
                help: Some(help),
            });
        }
        if let Some(name) = self.params.keys().find(|name| !function.keywords.contains(name)) {
            return wrong(
                "params",
                format!("the function has no keyword-only parameter `{name}`"),
                "keywords stand behind a `*` in the signature: `def f(text, *, limit=3)`",
            );
        }
        if self.setup.is_some() && !function.keywords.iter().any(|name| name == STATE) {
            return wrong(
                "setup",
                "the function has no keyword-only parameter `state`".to_owned(),
                "write `def f(text, *, state): …`",
            );
        }
        if self.columns().is_empty() {
            return wrong(
                "adds",
                "is not given, and the function's result has no annotation that says its columns".to_owned(),
                "annotate it (`-> int`), or write `adds = { length = \"int64\" }`",
            );
        }
        if let Some(returned) = &function.returns
            && returned.single
            && self.adds.len() > 1
        {
            return wrong(
                "adds",
                "names several columns, and the function returns one value".to_owned(),
                "return a dictionary",
            );
        }
        Ok(())
    }
}

impl stage::Params for Params {
    fn validate(&self) -> Result<(), ParamError> {
        let wrong =
            |param, message: String, help: &str| Err(ParamError { param, message, help: Some(help.to_owned()) });
        if let Some((name, kind)) = self.adds.iter().find(|(_, kind)| data_type(kind).is_none()) {
            let help = "write `string`, `bool`, `int32`, `int64`, `float32`, `float64`, or `list of …`";
            return wrong("adds", format!("column `{name}` has a type `{kind}`, which there is not"), help);
        }
        if let Some(name) = self.adds.keys().find(|name| name.starts_with('_')) {
            return wrong("adds", format!("adds `{name}`"), "names that begin with `_` are tracetune's own");
        }
        Ok(())
    }

    fn resolve(&mut self, setup: &Setup) -> Result<(), ParamError> {
        let function = inspect(&self.interpreter(setup), &self.function, self.setup.as_deref(), setup)?;
        self.inspected = Some(Arc::new(function));
        self.check_signature()
    }

    fn warnings(&self, setup: &Setup) -> Vec<ParamError> {
        let missing = |file: &String| {
            let error = setup.check_file(file).err()?;
            Some(ParamError { param: "files", message: error.to_string(), help: None })
        };
        self.files.iter().filter_map(missing).collect()
    }
}

/// Calls a Python function for each row of a table and adds what it returns. The function is in a file of the project; a
/// process of the interpreter for each thread loads it once and stays, and is called with some rows at a time.
///
/// A row that it raises an exception at fails the stage with the traceback, or is left out (`bad_rows`); the rows beside it
/// are kept. What it prints goes to the stage's log (`tracetune log RUN STAGE`).
///
/// # Errors
/// [`StageError::Input`] with the traceback.
pub struct PythonKind;

impl TableStage for PythonKind {
    const KIND: &'static str = "python";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "calls a Python function of your own for each row";
    const UNKEYED_PARAMS: &'static [&'static str] = &["pass_env"];
    type Params = Params;

    fn ports() -> Vec<Port> {
        let about = "the rows that the function is called for; their other columns are carried along";
        vec![Port { name: "rows", port_type: PortType::Table(None), optional: false, about }]
    }

    fn outputs(_: &Params, _: &BTreeMap<String, Option<SchemaRef>>) -> Vec<Output> {
        vec![Output::new("rows", PortType::Table(None))]
    }

    fn environment(params: &Params, setup: &Setup) -> Result<Environment, StageError> {
        // Watched before they are read: what changes in between is noticed.
        for module in &params.inspected().modules {
            setup.watch(module)?;
        }
        let python = params.interpreter(setup);
        let function = inspect(&python, &params.function, params.setup.as_deref(), setup)
            .map_err(|error| StageError::input(format!("`{}`: {}", error.param, error.message)))?;
        for module in function.modules.iter().filter(|module| !params.inspected().modules.contains(module)) {
            setup.watch(module)?;
        }
        let mut code = blake3::Hasher::new();
        for line in &function.code {
            code.update(&(line.len() as u64).to_le_bytes()).update(line.as_bytes());
        }
        let mut environment = vec![
            ("python".to_owned(), identity::identity(&python, setup)?),
            ("code".to_owned(), code.finalize().to_hex().to_string()),
        ];
        environment
            .extend(function.packages.iter().map(|(name, version)| (format!("package {name}"), version.clone())));
        for file in &params.files {
            environment.push((format!("file {file}"), setup.digest_file(file)?));
        }
        Ok(environment)
    }

    fn row_form(params: &Params) -> Option<Box<dyn RowWork>> {
        Some(Box::new(Rows { params: params.clone() }))
    }

    fn run(_: &Params, _: &Inputs, _: &Context) -> Result<Outputs, StageError> {
        Err(StageError::environment("kind `python` works row by row", "this is a mistake in the kind"))
    }
}

/// The function as work on rows.
struct Rows {
    params: Params,
}

impl RowWork for Rows {
    fn shape(&self) -> RowShape {
        let reads = self.params.inspected().reads.iter().map(|name| Field::new(name, DataType::Null, true)).collect();
        let columns = self.params.columns();
        let adds = columns.iter().filter_map(|(name, kind)| Some(Field::new(name, data_type(kind)?, true))).collect();
        RowShape { port: "rows", reads: schema_of(reads), adds: schema_of(adds) }
    }
    fn part_params(&self) -> &'static [&'static str] {
        &["segment_rows"]
    }
    fn parts(&self) -> Vec<i32> {
        vec![0]
    }
    fn session_threads(&self) -> usize {
        1
    }
    fn segment_items(&self) -> usize {
        self.params.segment_rows.max(1)
    }
    fn open<'a>(&'a self, _: &Inputs, cx: &Context) -> Result<Box<dyn RowSession + 'a>, StageError> {
        let params = &self.params;
        let setup = Setup::new(&cx.root);
        let (path, name) = inspect::split(&params.function).unwrap_or_default();
        let root = cx.root.canonicalize()?;
        let mut command: Vec<OsString> = vec![params.interpreter(&setup).into()];
        command.extend(["-u", "-B", "-X", "utf8", "-c", worker::SCRIPT].map(OsString::from));
        command.push(root.clone().into());
        command.extend([path, name, params.setup.as_deref().unwrap_or_default()].map(OsString::from));
        let passed = ["PATH", "HOME"].into_iter().chain(params.pass_env.iter().map(String::as_str));
        let mut environment: Vec<(OsString, OsString)> =
            passed.filter_map(|name| Some((name.into(), std::env::var_os(name)?))).collect();
        environment.extend(params.env.iter().map(|(name, value)| (name.into(), value.into())));
        // The order of sets must not differ from worker to worker.
        environment.push(("PYTHONHASHSEED".into(), "0".into()));
        let state = params.setup.as_ref().map(|_| STATE);
        let start = worker::start(&params.params, &params.columns(), params.form(), state);
        let worker = Worker::start(&Program { command, environment, folder: root }, &start, cx)?;
        Ok(Box::new(Calls { rows: self, worker }))
    }
}

struct Calls<'a> {
    rows: &'a Rows,
    worker: Worker,
}

impl RowSession for Calls<'_> {
    fn rows(
        &mut self,
        rows: &RecordBatch,
        parts: &[i32],
        keys: &[RowKey],
        cx: &Context,
    ) -> Result<(RecordBatch, Vec<u32>), StageError> {
        let computed = self.rows_or_errors(rows, parts, keys, cx)?;
        match computed.errors.into_iter().next() {
            Some((_, error)) => Err(StageError::Input(error)),
            None => Ok((computed.added, computed.counts)),
        }
    }

    fn rows_or_errors(
        &mut self,
        rows: &RecordBatch,
        _parts: &[i32],
        _keys: &[RowKey],
        _: &Context,
    ) -> Result<ComputedRows, StageError> {
        let mut types = Vec::new();
        for field in rows.schema().fields() {
            types.push(values::type_name(field.data_type()).ok_or_else(|| {
                let (name, kind) = (field.name(), field.data_type());
                StageError::input(format!("column `{name}` is of type {kind}, which a function of rows can't be given"))
            })?);
        }
        let columns: Vec<Vec<Value>> = rows.columns().iter().map(values::to_json).collect();
        let request = json!({"columns": columns, "types": types, "rows": rows.num_rows()});
        let results = self.worker.call(&request)?;
        let adds = self.rows.shape().adds;
        let names: Vec<String> = self.rows.params.columns().into_keys().collect();
        let (mut counts, mut errors, mut all) = (Vec::new(), Vec::new(), Vec::new());
        for (row, result) in results.into_iter().enumerate() {
            match result {
                Ok(rows) => {
                    counts.push(rows.len() as u32);
                    all.extend(rows);
                }
                Err(error) => {
                    counts.push(0);
                    errors.push((row, error));
                }
            }
        }
        let column = |field: &Arc<Field>| {
            let place = names.iter().position(|name| name == field.name())?;
            let column: Vec<&Value> = all.iter().map(|row| row.get(place)).collect::<Option<_>>()?;
            values::from_json(&column, field.data_type())
        };
        let columns: Option<Vec<_>> = adds.fields().iter().map(column).collect();
        let columns = columns.ok_or_else(|| StageError::input("the worker's answer is not of the declared types"))?;
        let added = RecordBatch::try_new(adds, columns).map_err(|error| StageError::input(error.to_string()))?;
        Ok(ComputedRows { added, counts, errors })
    }
}
