//! Kind `command`: any program that reads Parquet and writes Parquet.

mod identity;
mod outputs;
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
    self, Context, Environment, Inputs, Output, Outputs, ParamError, Setup, StageError, TableStage,
};

pub(crate) use self::identity::missing as missing_files;
pub(crate) use self::outputs::{Declared, OutputKind, check_types as check_output_types, declared};
use crate::column_types;

/// What may stand under `kind = "command"`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The program and its arguments, started directly, in the project's root (the folder of the nearest `.tracetune` or
    /// `.git`, else the pipeline file's); no shell. The program is part of the key: a Python by its version, any other by
    /// its bytes.
    run: Vec<String>,
    /// Files, folders and globs (`scripts/**/*.py`), from the project's root, whose bytes are part of the key: scripts,
    /// configuration, data. Of a folder, `.git`, `__pycache__`, `*.pyc`, stores and what its `.tracetuneignore` says (in the
    /// syntax of `.gitignore`) is left out.
    #[serde(default)]
    files: Vec<String>,
    /// All the environment that the program gets, beside PATH, `pass_env` and the variables named TRACETUNE_…; part of the
    /// key.
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// Values of any type for the program: it finds them in TRACETUNE_PARAMS, as JSON, and each in TRACETUNE_PARAM_<NAME>;
    /// part of the key.
    #[serde(default)]
    params: serde_json::Map<String, serde_json::Value>,
    /// Variables that are handed through from tracetune's own environment, e.g. `CUDA_VISIBLE_DEVICES` or `HF_TOKEN`.
    /// Neither keyed nor stored: results must not depend on them.
    #[serde(default)]
    pass_env: Vec<String>,
    /// The outputs by name: `"table"`, `"model"`, `"folder"`, or `{ columns = { x = "int64" } }` for a table of these
    /// columns. The program puts each at the path in TRACETUNE_OUT_<NAME>, the default one (`rows`, else `model`, else the
    /// first by name) also in TRACETUNE_OUT. Tables `metrics` and `outcomes` are what `show` and `compare` read. One table
    /// `rows` if this is left out.
    #[serde(default)]
    outputs: BTreeMap<String, OutputKind>,
    /// Says that the program works on each row of the input `rows` alone, whatever rows stand beside it: then a row that
    /// was computed before is not computed again, and rows that fail may be left out (`bad_rows`).
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
        if let Some(name) = self.pass_env.iter().find(|name| self.env.contains_key(*name)) {
            return wrong("pass_env", format!("`{name}` stands under `env` as well"), "leave it out of one of them");
        }
        if let Some((one, other)) = folded_together(self.params.keys()) {
            let message =
                format!("`{one}` and `{other}` have the same variable TRACETUNE_PARAM_{}", stage::variable(one));
            return wrong("params", message, "give one of them another name");
        }
        if let Some((one, other)) = folded_together(self.outputs.keys()) {
            let message =
                format!("`{one}` and `{other}` have the same variable TRACETUNE_OUT_{}", stage::variable(one));
            return wrong("outputs", message, "give one of them another name");
        }
        if self.params.values().any(has_date) {
            return wrong("params", "has a date or a time".to_owned(), "put it in quotes");
        }
        check_output_types(&self.outputs)?;
        let Some(row_wise) = &self.row_wise else { return Ok(()) };
        if !self.outputs.is_empty() {
            let help = "its one output is `rows`, with the columns of `row_wise.adds`";
            return wrong("outputs", "a row-wise program declares none".to_owned(), help);
        }
        if row_wise.reads.is_empty() {
            return wrong("row_wise", "reads no column".to_owned(), "e.g. `row_wise.reads = [\"fix\"]`");
        }
        if let Some(name) = row_wise.adds.keys().find(|name| name.starts_with('_')) {
            return wrong("row_wise", format!("adds `{name}`"), "names that begin with `_` are tracetune's own");
        }
        if let Some((name, kind)) = column_types::unknown(&row_wise.adds) {
            return wrong(
                "row_wise",
                format!("adds `{name}` of a type `{kind}`, which there is not"),
                column_types::HELP,
            );
        }
        Ok(())
    }
}

/// The first two names that are the same as parts of variables.
fn folded_together<'a>(names: impl Iterator<Item = &'a String> + Clone) -> Option<(&'a String, &'a String)> {
    let other = |(place, name): (usize, &'a String)| {
        let same = |other: &&String| stage::variable(other) == stage::variable(name);
        Some((names.clone().take(place).find(same)?, name))
    };
    names.clone().enumerate().find_map(other)
}

/// Whether a value holds one of TOML's dates or times, which JSON does not have.
fn has_date(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Object(map) => {
            map.keys().any(|key| key.starts_with("$__toml_private")) || map.values().any(has_date)
        }
        serde_json::Value::Array(items) => items.iter().any(has_date),
        _ => false,
    }
}

/// What `tracetune kinds command` says beside the parameters.
const GUIDE: &str = "\
The program starts in the project's root: the nearest folder at or above the pipeline file that holds `.tracetune` or `.git`, or \
else the pipeline file's own. It finds these variables, with names in capitals and `_` for all that is neither letter nor digit:
TRACETUNE_IN_<NAME>: the path of an input: a Parquet file, or the folder of a model or of a folder. It must not be changed.
TRACETUNE_OUT_<NAME>, and TRACETUNE_OUT for the default output: where the program puts an output: a Parquet file, or a folder that it makes.
TRACETUNE_PARAMS: `params` as JSON. TRACETUNE_PARAM_<NAME>: one of them; strings as they are, anything else as JSON.
What it prints is kept with the run (`tracetune log RUN STAGE`), and shown line by line with `-v`. Exit status 0 is success; 75 asks \
to be tried again, up to three times; any other fails the stage.
With `row_wise` it gets the columns `reads` of some rows in TRACETUNE_IN_ROWS and writes the columns `adds`: one row for each, in \
their order; or any number for each, with a column `_row` (int64) that says, from 0, which of its input rows a row belongs to. Calls \
run side by side. If a call fails its rows are tried in halves, until those that fail stand alone; `bad_rows` says how many may.";

/// Runs a program of the user's own. For each input port it finds a path in `TRACETUNE_IN_<PORT>`: a Parquet file, or the
/// folder of a model or of a folder, which it must not change; it puts its results at the paths in `TRACETUNE_OUT_<NAME>`.
/// What it writes to its standard output and error is kept with the run (`tracetune log RUN STAGE`), shown line by line
/// with `-v`, and its end stands in the stage's error if it fails. An interrupted run sends it SIGTERM, and SIGKILL five
/// seconds later; all that it has started ends with it.
///
/// Of a table that it writes, values, UUIDs and other extension types, and the names of time zones are kept. Categoricals and
/// dictionaries become their values, and metadata of the file is left out, pandas's too: an index that pandas writes as a column
/// is one, one that is a mere range is in no column, and the stage notes it if it is not 0, 1, 2, …. A column that can't be kept
/// as it is (ordered categoricals, Polars enums, durations, tensors) is an error that names it.
///
/// With `row_wise` it is called for some rows of the port `rows` at a time, of which it gets the columns `reads`, and writes
/// the columns `adds`: one row for each that it got, in their order; or any number of rows for each, with a column `_row`
/// that says, from 0, which one of its input a row belongs to. Calls run side by side, one a thread.
///
/// # Errors
/// [`StageError::Input`] with the end of what it wrote if it can't be started, ends with a status other than 0, or leaves an
/// output that is not what is declared; [`StageError::Transient`] if it ends with 75 (`EX_TEMPFAIL`): it is tried again.
pub struct CommandKind;

impl TableStage for CommandKind {
    const KIND: &'static str = "command";
    const VERSION: u32 = 3;
    const ABOUT: &'static str = "runs a program of your own that reads Parquet and writes Parquet";
    const GUIDE: &'static str = GUIDE;
    const OPEN_PORTS: bool = true;
    const TABLES_AS_FILES: bool = true;
    const MAX_THREADS: usize = 1;
    const UNKEYED_PARAMS: &'static [&'static str] = &["pass_env"];
    type Params = Params;

    fn outputs(params: &Params, _: &BTreeMap<String, Option<SchemaRef>>) -> Vec<Output> {
        outputs::declared(&params.outputs).iter().map(outputs::Declared::output).collect()
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
        let declared = outputs::declared(&params.outputs);
        let (mut places, tail) = program::run(params, &declared, inputs, &cx.scratch, cx)?;
        if !tail.is_empty() {
            cx.note(&tail);
        }
        let program = params.run.join(" ");
        let mut outputs = Outputs::default();
        for output in &declared {
            let place = places.remove(&output.name).unwrap_or_default();
            let artifact = output.take(place, &program, &tail)?;
            if let Some(left_out) = output.left_out(&artifact) {
                cx.note(&left_out);
            }
            outputs.insert(output.name.clone(), artifact);
        }
        Ok(outputs)
    }
}
