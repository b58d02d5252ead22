//! A process that loads a function once and calls it until it is no longer needed.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use tracetune_engine::stage::{Artifact, Context, Inputs, StageError};
use tracetune_engine::table::table_to_bytes;

use super::interpreter::FLAGS;
use super::marshal::{Reader, Unreadable, Value};
use super::rows::ROWS;
use super::signature::ParameterKind;
use super::{Params, STATE};
use crate::command::Declared;
use crate::program::{self, Program};

const SCRIPT: &str = include_str!("worker.py");

/// Results must not depend on the number of processors, and workers run side by side.
const ONE_THREAD: [&str; 4] = ["OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"];

/// A worker that has loaded its function.
pub(super) struct Worker {
    /// `None` once it has failed to answer.
    program: Option<program::Worker>,
}

impl Worker {
    /// Starts one and has it load the function. With `declared` outputs it is called once, for whole tables.
    ///
    /// # Errors
    /// The function can't be loaded, or a set-up function fails.
    pub(super) fn start(
        params: &Params,
        inputs: &Inputs,
        declared: &[Declared],
        folder: &Path,
        cx: &Context,
    ) -> Result<Self, StageError> {
        let function = params.function();
        let command = [OsString::from(&function.interpreter.executable)].into_iter();
        let command = command.chain(FLAGS.iter().map(OsString::from)).chain(["-u", "-c", SCRIPT].map(OsString::from));
        let program = Program { command: command.collect(), environment: environment(params), folder: cx.root.clone() };
        let task = task(params, inputs, declared, folder, cx)?;
        let mut worker = Self { program: Some(program.start(cx)?) };
        worker.ask(task.to_string().as_bytes(), "ready").map_err(|error| match error {
            StageError::Input(message) => StageError::Input(format!("the function can't be loaded\n{message}")),
            error => error,
        })?;
        Ok(worker)
    }

    /// Waits for the end of a function of whole tables.
    ///
    /// # Errors
    /// It fails, or the run is interrupted.
    pub(super) fn run_to_end(mut self) -> Result<(), StageError> {
        self.answer("done").map(|_| ())
    }

    /// Has it compute rows.
    ///
    /// # Errors
    /// The worker died: its last words are in the message; or the run is interrupted.
    pub(super) fn call(&mut self, request: &[u8]) -> Result<Vec<Value>, StageError> {
        self.ask(request, "rows")
    }

    fn ask(&mut self, request: &[u8], expected: &str) -> Result<Vec<Value>, StageError> {
        let sent = self.program.as_mut().map(|program| {
            program.write_all(&(request.len() as u64).to_le_bytes())?;
            program.write_all(request)
        });
        match sent {
            Some(Ok(())) => self.answer(expected),
            _ => Err(self.death()),
        }
    }

    /// What follows the word that is expected.
    fn answer(&mut self, expected: &str) -> Result<Vec<Value>, StageError> {
        let Some(Ok(bytes)) = self.program.as_mut().map(receive) else { return Err(self.death()) };
        let unreadable = |error: Unreadable| StageError::input(error.to_string());
        let mut values = Reader(&bytes).value().and_then(Value::list).map_err(unreadable)?.into_iter();
        let word = values.next().ok_or(Unreadable).and_then(Value::text).map_err(unreadable)?;
        let text = |value: Option<Value>| value.and_then(|value| value.text().ok()).unwrap_or_default();
        match word.as_str() {
            word if word == expected => Ok(values.collect()),
            "failed" => Err(StageError::Input(text(values.next()))),
            "changed" => {
                let message = format!("`{}` has changed since it was read", text(values.next()));
                Err(StageError::environment(message, "run again"))
            }
            _ => Err(unreadable(Unreadable)),
        }
    }

    /// What is known of a worker that is gone.
    fn death(&mut self) -> StageError {
        match self.program.take().map(program::Worker::end) {
            Some(Ok(ended)) => {
                let text =
                    format!("the worker ended with {} while it computed these rows\n{}", ended.status, ended.tail);
                StageError::input(text.trim_end())
            }
            Some(Err(error)) => error,
            None => StageError::input("the worker has ended"),
        }
    }
}

fn receive(program: &mut program::Worker) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 8];
    program.read_exact(&mut length)?;
    // Not all at once: what is not a frame's length may say anything.
    let mut frame = Vec::new();
    let length = u64::from_le_bytes(length);
    let read = program.take(length).read_to_end(&mut frame)?;
    if read as u64 == length { Ok(frame) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
}

/// What the worker is to do, in the words of `worker.py`.
fn task(
    params: &Params,
    inputs: &Inputs,
    declared: &[Declared],
    folder: &Path,
    cx: &Context,
) -> Result<serde_json::Value, StageError> {
    let function = params.function();
    let answer = &function.answer;
    let annotation = |name: &str| answer.parameters.iter().find(|one| one.name == name).map(|one| &one.annotation);
    let mut ports = Vec::new();
    for (port, artifact) in &inputs.0 {
        if port == ROWS && !function.is_table {
            continue;
        }
        if annotation(port).is_none() && params.setup.is_none() && !answer.any_keyword {
            let message = format!("`{}` has no parameter `{port}` for the input of that name", params.function);
            return Err(StageError::input(message));
        }
        ports.push((port.clone(), path_of(port, artifact, folder)?, annotation(port).cloned().unwrap_or_default()));
    }
    let mut outputs = Vec::new();
    for output in declared {
        let place = folder.join(output.file_name());
        let handed_over = annotation(&output.name).filter(|_| !inputs.0.contains_key(&output.name));
        if let Some(annotation) = handed_over {
            if output.is_folder() {
                fs_err::create_dir(&place)?;
            }
            ports.push((output.name.clone(), place.clone(), annotation.clone()));
        }
        outputs.push((output.name.clone(), place, if handed_over.is_some() { "handed over" } else { "returned" }));
    }
    let given = |name: &String| {
        params.params.contains_key(name)
            || (params.setup.is_some() && name == STATE)
            || ports.iter().any(|port| port.0 == *name)
    };
    let reads = function.reads(params);
    let missing = answer.parameters.iter().enumerate().find(|(place, one)| {
        let is_column = !function.is_table && one.kind == ParameterKind::Column && *place < reads.len();
        !one.default && !is_column && !given(&one.name)
    });
    if let Some((_, missing)) = missing {
        let message = format!("the function's parameter `{}` is not given", missing.name);
        return Err(StageError::environment(message, "set it in `params`, or connect an input of that name"));
    }
    let files: serde_json::Map<String, serde_json::Value> = answer
        .files
        .iter()
        .map(|(path, file)| (path.to_string_lossy().into_owned(), file.sha256.clone().into()))
        .collect();
    Ok(serde_json::json!({
        "root": cx.root, "path": answer.path, "module": answer.module, "name": answer.name, "files": files,
        "params": params.params, "setup": answer.set_up, "state": STATE, "ports": ports, "any_keyword": answer.any_keyword,
        "adds": function.adds(params), "many": answer.many, "single": function.is_single(params),
        "by_name": if function.takes_names(params) { reads } else { Vec::new() }, "outputs": outputs,
    }))
}

/// All of the worker's environment.
fn environment(params: &Params) -> Vec<(OsString, OsString)> {
    let mut environment: Vec<(OsString, OsString)> = Vec::new();
    for name in ONE_THREAD {
        environment.push((name.into(), "1".into()));
    }
    for (name, value) in [("PYTHONHASHSEED", "0"), ("LANG", "C.UTF-8"), ("TZ", "UTC")] {
        environment.push((name.into(), value.into()));
    }
    for name in ["PATH", "HOME"].into_iter().chain(params.pass_env.iter().map(String::as_str)) {
        environment.extend(std::env::var_os(name).map(|value| (name.into(), value)));
    }
    environment.extend(params.env.iter().map(|(name, value)| (name.into(), value.into())));
    environment
}

/// Where the function finds an input.
fn path_of(port: &str, artifact: &Artifact, folder: &Path) -> Result<PathBuf, StageError> {
    let path = folder.join(format!("in-{port}.parquet"));
    match artifact {
        Artifact::Directory(directory) => return Ok(directory.clone()),
        Artifact::File(file) => {
            // Under a name that says what it is; no bytes are copied where the file system can do without.
            if !path.exists() && std::fs::hard_link(file, &path).is_err() {
                fs_err::copy(file, &path)?;
            }
        }
        Artifact::Table(table) => {
            let bytes = table_to_bytes(table).map_err(|error| StageError::input(error.to_string()))?;
            fs_err::write(&path, bytes)?;
        }
    }
    Ok(path)
}
