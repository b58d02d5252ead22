//! Kind `python`: a function of the user's own, of each row or of whole tables.
//!
//! `signature` reads the function without running it (by `analyze.py`), `worker` is a process that stays and calls it (by
//! `worker.py`), `rows` feeds it rows, `marshal` is how values travel.

mod interpreter;
mod marshal;
mod rows;
mod signature;
#[cfg(test)]
mod tests;
mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracetune_engine::registry::RowWork;
use tracetune_engine::stage::{
    self, Context, Environment, Inputs, Output, Outputs, ParamError, Port, PortType, Setup, StageError, TableStage,
};

use self::rows::RowFunction;
use self::signature::Function;
use self::worker::Worker;
use crate::column_types;
use crate::command::{Declared, OutputKind, check_output_types, declared, missing_files};

/// What may stand under `kind = "python"`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The function: `file.py:name`, a path from the project's root, or `package.module:name`. Its parameters are the
    /// columns that it reads, those after `*` are `params`, inputs and what `setup` makes. The key holds the syntax tree of
    /// the function and of all code of the project that it refers to, and the versions of the packages that these import:
    /// comments and formatting are free.
    function: String,
    /// The columns that it reads, in the order of its parameters; by default its parameters' names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reads: Option<Vec<String>>,
    /// The columns that it adds with their types (`string`, `bool`, `int32`, `int64`, `float32`, `float64`, `list of …`).
    /// Left out, the annotation of its result says them: `-> int` is one column of the function's name, a dataclass,
    /// NamedTuple or TypedDict is a column per field, `Iterator[…]` and `list[…]` of one of these any number of rows.
    #[serde(default)]
    adds: BTreeMap<String, String>,
    /// Values for its parameters after `*`, of any type; part of the key.
    #[serde(default)]
    params: serde_json::Map<String, serde_json::Value>,
    /// A function that is called once in each worker, e.g. to load a model: `"load"` of the same file, or `"file.py:load"`.
    /// It may take `params` and inputs; what it returns is the function's keyword-only parameter `state`.
    #[serde(default)]
    setup: Option<String>,
    /// The outputs of a function of whole tables, as kind `command` has them; one table `rows` if this is left out. A
    /// parameter of an output's name gets the path to put it at; other tables are what the function returns: one, or a dict
    /// of them by name.
    #[serde(default)]
    outputs: BTreeMap<String, OutputKind>,
    /// Files, folders and globs, from the project's root, that the function reads; their bytes are part of the key. Modules
    /// that it imports are found by themselves.
    #[serde(default)]
    files: Vec<String>,
    /// All the environment that workers get, beside PATH, HOME and `pass_env`; part of the key.
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// Variables that are handed through from tracetune's own environment, e.g. `HF_TOKEN`. Neither keyed nor stored: results
    /// must not depend on them.
    #[serde(default)]
    pass_env: Vec<String>,
    /// The interpreter: a name in PATH, or a path from the project's root, e.g. `.venv/bin/python`. Its version is part of
    /// the key.
    #[serde(default = "python")]
    python: String,
    /// Rows that a worker is started for, at least, and that processes share among them; 1 for a function that takes
    /// seconds. What is stored at a time is what a worker does in some milliseconds.
    #[serde(default = "segment_rows")]
    #[schemars(range(min = 1))]
    segment_rows: usize,
    /// What was read of the function.
    #[serde(skip)]
    read: Option<Arc<Function>>,
}

/// The keyword under which the function gets what `setup` returned.
const STATE: &str = "state";

fn python() -> String {
    "python3".to_owned()
}

fn segment_rows() -> usize {
    8
}

impl stage::Params for Params {
    fn validate(&self) -> Result<(), ParamError> {
        let wrong =
            |param, message: String, help: &str| Err(ParamError { param, message, help: Some(help.to_owned()) });
        if let Some(name) = self.pass_env.iter().find(|name| self.env.contains_key(*name)) {
            return wrong("pass_env", format!("`{name}` stands under `env` as well"), "leave it out of one of them");
        }
        if self.segment_rows == 0 {
            return wrong("segment_rows", "must be at least 1".to_owned(), "e.g. 8");
        }
        column_types::check("adds", &self.adds)?;
        check_output_types(&self.outputs)
    }

    fn resolve(&mut self, setup: &Setup) -> Result<(), ParamError> {
        let function = signature::read(self, setup)?;
        signature::check(self, &function)?;
        self.read = Some(function);
        Ok(())
    }

    fn warnings(&self, setup: &Setup) -> Vec<ParamError> {
        missing_files(&self.files, setup).collect()
    }
}

impl Params {
    fn function(&self) -> &Function {
        self.read.as_ref().expect("parameters are resolved before anything is asked of them")
    }
}

/// Calls a Python function of your own for each row: its parameters are the columns that it reads, its annotation says what
/// it adds, and what it raises is the error of that row (see `bad_rows`). Workers, one a thread, load it once and stay. What
/// it prints is kept with the run (`tracetune log RUN STAGE`).
///
/// A function whose annotations name `pandas.DataFrame`, `polars.DataFrame` or `pyarrow.Table` gets whole inputs and returns
/// whole outputs; a parameter that is a `pathlib.Path` gets the path of a model, a folder or a Parquet file. Of a pandas table
/// that is returned its columns are kept: an index with a name or with labels is an error (`reset_index()`), numbers of rows are
/// left out. Types of columns are kept as by kind `command`.
///
/// # Errors
/// [`StageError::Input`] with the exception and the lines that led to it, or with the end of what a worker wrote that died.
pub struct PythonKind;

impl TableStage for PythonKind {
    const KIND: &'static str = "python";
    const VERSION: u32 = 2;
    const ABOUT: &'static str = "calls a Python function of your own, for each row or for whole tables";
    const OPEN_PORTS: bool = true;
    const TABLES_AS_FILES: bool = true;
    const MAX_THREADS: usize = 1;
    const UNKEYED_PARAMS: &'static [&'static str] = &["pass_env", "python", "segment_rows"];
    type Params = Params;

    fn ports() -> Vec<Port> {
        vec![Port {
            name: rows::ROWS,
            port_type: PortType::Any,
            optional: true,
            about: "the rows of a function of rows; other inputs have names of your own: `inputs = { … }`",
        }]
    }

    fn outputs(params: &Params, _: &BTreeMap<String, Option<SchemaRef>>) -> Vec<Output> {
        declared(&params.outputs).iter().map(Declared::output).collect()
    }

    fn environment(params: &Params, setup: &Setup) -> Result<Environment, StageError> {
        let mut environment = signature::environment(params, setup)?;
        for file in &params.files {
            environment.push((format!("file {file}"), setup.digest_file(file)?));
        }
        Ok(environment)
    }

    fn row_form(params: &Params) -> Option<Box<dyn RowWork>> {
        (!params.function().is_table).then(|| Box::new(RowFunction::new(params.clone())) as Box<dyn RowWork>)
    }

    fn run(params: &Params, inputs: &Inputs, cx: &Context) -> Result<Outputs, StageError> {
        let declared = declared(&params.outputs);
        Worker::start(params, inputs, &declared, &cx.scratch, cx)?.run_to_end()?;
        let mut outputs = Outputs::default();
        for output in &declared {
            let place = cx.scratch.join(output.file_name());
            let name = format!("`{}`", output.name);
            outputs.insert(output.name.clone(), output.take_from(place, &params.function, &name, "")?);
        }
        Ok(outputs)
    }
}
