//! What the user's program is given, and what it leaves.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use tracetune_engine::stage::{Artifact, Context, Inputs, StageError, variable};
use tracetune_engine::table::table_to_bytes;

use super::Params;
use super::outputs::Declared;
use crate::program::{Program, found_in};

/// `EX_TEMPFAIL` of sysexits.h: the program asks to be tried again.
const TEMPORARY_FAILURE: i32 = 75;

/// Runs the program with `folder` for its files; gives where it was to put each output, and the end of what it wrote.
pub(super) fn run(
    params: &Params,
    declared: &[Declared],
    inputs: &Inputs,
    folder: &Path,
    cx: &Context,
) -> Result<(BTreeMap<String, PathBuf>, String), StageError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut environment: Vec<(OsString, OsString)> = Vec::new();
    let mut set = |name: String, value: OsString| environment.push((name.into(), value));
    for name in &params.pass_env {
        if let Some(value) = std::env::var_os(name) {
            set(name.clone(), value);
        }
    }
    for (name, value) in &params.env {
        set(name.clone(), value.into());
    }
    set("PATH".to_owned(), path.clone());
    if !params.params.is_empty() {
        set("TRACETUNE_PARAMS".to_owned(), serde_json::Value::Object(params.params.clone()).to_string().into());
    }
    for (name, value) in &params.params {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        set(format!("TRACETUNE_PARAM_{}", variable(name)), text.into());
    }
    let mut places = BTreeMap::new();
    for (index, output) in declared.iter().enumerate() {
        let place = folder.join(output.file_name());
        if index == 0 {
            set("TRACETUNE_OUT".to_owned(), place.clone().into());
        }
        set(format!("TRACETUNE_OUT_{}", variable(&output.name)), place.clone().into());
        places.insert(output.name.clone(), place);
    }
    for (port, artifact) in &inputs.0 {
        set(format!("TRACETUNE_IN_{}", variable(port)), path_of(port, artifact, folder)?.into());
    }
    let first = found_in(&path, &params.run[0]).into_os_string();
    let command = std::iter::once(first).chain(params.run[1..].iter().map(OsString::from)).collect();
    let ended = Program { command, environment, folder: cx.root.clone() }.run(cx)?;
    let program = params.run.join(" ");
    if ended.status.code() == Some(TEMPORARY_FAILURE) {
        let message = format!("`{program}` ended with {}: try again\n{}", ended.status, ended.tail);
        return Err(StageError::Transient { message, help: None });
    }
    if !ended.status.success() {
        return Err(StageError::input(format!("`{program}` ended with {}\n{}", ended.status, ended.tail)));
    }
    Ok((places, ended.tail))
}

/// Where the program finds an input.
fn path_of(port: &str, artifact: &Artifact, folder: &Path) -> Result<PathBuf, StageError> {
    let path = folder.join(format!("in-{port}.parquet"));
    match artifact {
        Artifact::Directory(directory) => return Ok(directory.clone()),
        // Under a name that says what it is; no bytes are copied where the file system can do without.
        Artifact::File(file) if path.exists() || std::fs::hard_link(file, &path).is_ok() => {}
        Artifact::File(file) => _ = fs_err::copy(file, &path)?,
        Artifact::Table(table) => {
            let bytes = table_to_bytes(table).map_err(|error| StageError::input(error.to_string()))?;
            fs_err::write(&path, bytes)?;
        }
    }
    Ok(path)
}
