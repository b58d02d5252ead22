//! Kind `command`: any program that reads Parquet and writes Parquet.

mod identity;
mod program;
mod rows;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracetune_engine::registry::RowWork;
use tracetune_engine::stage::{
    self, Artifact, Context, Environment, Inputs, Output, Outputs, ParamError, PortType, Setup, StageError, TableStage,
};

/// What may stand under `kind = "command"`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The program and its arguments, started directly, in the project's root; no shell.
    run: Vec<String>,
    /// Files, folders and globs (`scripts/**/*.py`), from the project's root, whose bytes are part of the key: scripts,
    /// configuration, data. Of a folder, `.git`, `__pycache__`, `*.pyc`, stores and what its `.tracetuneignore` says (in the
    /// syntax of `.gitignore`) is left out.
    #[serde(default)]
    files: Vec<String>,
    /// All the environment that the program gets, beside PATH and the variables of its ports; part of the key.
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// Says that the program works on each row of the input `rows` alone, whatever rows stand beside it: then a row that
    /// was computed before is not computed again.
    #[serde(default)]
    row_wise: Option<RowWise>,
    /// With `row_wise`, how many rows a call of the program gets at least: what is computed, stored and lost together.
    #[serde(default = "segment_rows")]
    #[schemars(range(min = 1))]
    segment_rows: usize,
}

/// What a row-wise program reads and writes.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RowWise {
    /// The columns that it gets; they, and no others, decide whether a row was computed before.
    reads: Vec<String>,
    /// The columns that it adds to each row, with their types: `string`, `bool`, `int32`, `int64`, `float32`, `float64`,
    /// or `list of …`. They may hold nulls.
    adds: BTreeMap<String, String>,
}

fn segment_rows() -> usize {
    512
}

impl stage::Params for Params {
    fn warnings(&self, setup: &Setup) -> Vec<ParamError> {
        identity::warnings(self, setup)
    }
    fn validate(&self) -> Result<(), ParamError> {
        let wrong =
            |param, message: String, help: &str| Err(ParamError { param, message, help: Some(help.to_owned()) });
        if self.run.first().is_none_or(String::is_empty) {
            return wrong("run", "names no program".to_owned(), "e.g. `run = [\"python3\", \"scripts/double.py\"]`");
        }
        if let Some(name) = self.env.keys().find(|name| name.starts_with("TRACETUNE_") || *name == "PATH") {
            return wrong("env", format!("`{name}` is set by tracetune"), "choose another name");
        }
        let Some(row_wise) = &self.row_wise else { return Ok(()) };
        if row_wise.reads.is_empty() {
            return wrong("row_wise", "reads no column".to_owned(), "e.g. `row_wise.reads = [\"fix\"]`");
        }
        if let Some(name) = row_wise.adds.keys().find(|name| name.starts_with('_')) {
            return wrong("row_wise", format!("adds `{name}`"), "names that begin with `_` are tracetune's own");
        }
        if let Some((name, kind)) = row_wise.adds.iter().find(|(_, kind)| rows::data_type(kind).is_none()) {
            let help = "write `string`, `bool`, `int32`, `int64`, `float32`, `float64`, or `list of …`";
            return wrong("row_wise", format!("adds `{name}` of a type `{kind}`, which there is not"), help);
        }
        Ok(())
    }
}

/// Runs a program of the user's own. For each port it finds the path of a Parquet file in `TRACETUNE_IN_<PORT>`, which it
/// must not change; it writes its result to the path in `TRACETUNE_OUT`. Its standard output and error go to the run's
/// notes.
///
/// With `row_wise` it is called for some rows of the port `rows` at a time, of which it gets the columns `reads`, and writes
/// the columns `adds`: one row for each that it got, in their order; or any number of rows for each, with a column `_row`
/// that says, from 0, which one of its input a row belongs to.
///
/// # Errors
/// [`StageError::Input`] with the end of its standard error if it can't be started, ends with a status other than 0, or
/// leaves no readable Parquet file; [`StageError::Transient`] if it ends with 75 (`EX_TEMPFAIL`): it is tried again.
pub struct CommandKind;

impl TableStage for CommandKind {
    const KIND: &'static str = "command";
    const VERSION: u32 = 2;
    const ABOUT: &'static str = "runs a program of your own that reads Parquet and writes Parquet";
    const OPEN_PORTS: bool = true;
    const TABLES_AS_FILES: bool = true;
    const MAX_THREADS: usize = 1;
    type Params = Params;

    fn outputs(_: &Params, _: &BTreeMap<String, Option<SchemaRef>>) -> Vec<Output> {
        vec![Output::new("rows", PortType::Table(None))]
    }

    fn environment(params: &Params, setup: &Setup) -> Result<Environment, StageError> {
        let mut environment = identity::of(params, setup)?;
        for file in &params.files {
            environment.push((format!("file {file}"), setup.digest_file(file)?));
        }
        Ok(environment)
    }

    fn row_form(params: &Params) -> Option<Box<dyn RowWork>> {
        let row_wise = params.row_wise.clone()?;
        Some(Box::new(rows::RowCommand { params: params.clone(), row_wise }))
    }

    fn run(params: &Params, inputs: &Inputs, cx: &Context) -> Result<Outputs, StageError> {
        let out = program::run(params, inputs, &cx.scratch, cx)?;
        Ok(Outputs::from([("rows", Artifact::File(out))]))
    }
}
