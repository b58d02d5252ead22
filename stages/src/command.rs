//! Kind `command`: any program that reads Parquet and writes Parquet.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use rustix::process::{Pid, Signal, kill_process_group};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracetune_engine::stage::{
    self, Artifact, Context, Environment, Inputs, Output, Outputs, ParamError, PortType, Setup, StageError, TableStage,
};
use tracetune_engine::table::{read_table_file, table_to_bytes};

/// What may stand under `kind = "command"`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The program and its arguments, started directly, in the project's root; no shell.
    run: Vec<String>,
    /// Files, from the project's root, whose bytes are part of the key: scripts, configuration.
    #[serde(default)]
    files: Vec<String>,
    /// All the environment that the program gets, beside PATH and the variables of its ports; part of the key.
    #[serde(default)]
    env: BTreeMap<String, String>,
}

impl stage::Params for Params {
    fn validate(&self) -> Result<(), ParamError> {
        if self.run.first().is_none_or(String::is_empty) {
            return Err(ParamError {
                param: "run",
                message: "names no program".to_owned(),
                help: Some("e.g. `run = [\"python3\", \"scripts/double.py\"]`".to_owned()),
            });
        }
        if let Some(name) = self.env.keys().find(|name| name.starts_with("TRACETUNE_") || *name == "PATH") {
            return Err(ParamError {
                param: "env",
                message: format!("`{name}` is set by tracetune"),
                help: Some("choose another name".to_owned()),
            });
        }
        Ok(())
    }
}

/// Runs a program of the user's own. For each port it finds the path of a Parquet file in `TRACETUNE_IN_<PORT>`; it
/// writes its result to the path in `TRACETUNE_OUT`. Its standard output and error go to the run's notes.
///
/// # Errors
/// [`StageError::Input`] with the end of its standard error if it can't be started, ends with a status other than 0, or
/// leaves no readable Parquet file; [`StageError::Transient`] if it ends with 75 (`EX_TEMPFAIL`): it is tried again.
pub struct CommandKind;

impl TableStage for CommandKind {
    const KIND: &'static str = "command";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "runs a program of your own that reads Parquet and writes Parquet";
    const OPEN_PORTS: bool = true;
    type Params = Params;

    fn outputs(_: &Params, _: &BTreeMap<String, Option<SchemaRef>>) -> Vec<Output> {
        vec![Output { name: "rows", port_type: PortType::Table(None) }]
    }

    fn environment(params: &Params, setup: &Setup) -> Result<Environment, StageError> {
        params.files.iter().map(|file| Ok((format!("file {file}"), setup.digest_file(file)?))).collect()
    }

    fn run(params: &Params, inputs: &Inputs, cx: &Context) -> Result<Outputs, StageError> {
        let out = cx.scratch.join("out.parquet");
        let mut command = Command::new(&params.run[0]);
        command.args(&params.run[1..]).current_dir(&cx.root).env_clear().envs(&params.env);
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("TRACETUNE_OUT", &out);
        for (port, artifact) in &inputs.0 {
            let name = format!("TRACETUNE_IN_{}", port.to_uppercase().replace('-', "_"));
            command.env(name, path_of(port, artifact, cx)?);
        }
        let log = cx.scratch.join("log.txt");
        let written = File::create(&log)?;
        command.stdin(Stdio::null()).stdout(written.try_clone()?).stderr(written).process_group(0);
        let program = params.run.join(" ");
        let child = command.spawn().map_err(|error| StageError::input(format!("can't start `{program}`: {error}")))?;
        let status = wait(child, cx)?;
        let log = String::from_utf8_lossy(&fs_err::read(&log)?).into_owned();
        if status.code() == Some(TEMPORARY_FAILURE) {
            let message = format!("`{program}` ended with {status}: try again\n{}", tail(&log));
            return Err(StageError::Transient { message, help: None });
        }
        if !status.success() {
            return Err(StageError::input(format!("`{program}` ended with {status}\n{}", tail(&log))));
        }
        if !log.trim().is_empty() {
            cx.note(tail(&log));
        }
        if !out.is_file() {
            return Err(StageError::input(format!("`{program}` wrote nothing to TRACETUNE_OUT\n{}", tail(&log))));
        }
        let table = read_table_file(&out)
            .map_err(|error| StageError::input(format!("what `{program}` wrote to TRACETUNE_OUT: {error}")))?;
        Ok(Outputs::from([("rows", Artifact::Table(table))]))
    }
}

/// `EX_TEMPFAIL` of sysexits.h: the program asks to be tried again.
const TEMPORARY_FAILURE: i32 = 75;

/// Where the program finds an input.
fn path_of(port: &str, artifact: &Artifact, cx: &Context) -> Result<PathBuf, StageError> {
    match artifact {
        Artifact::Directory(directory) => Ok(directory.clone()),
        Artifact::Table(table) => {
            let path = cx.scratch.join(format!("in-{port}.parquet"));
            let bytes = table_to_bytes(table).map_err(|error| StageError::input(error.to_string()))?;
            fs_err::write(&path, bytes)?;
            Ok(path)
        }
    }
}

/// Waits for the program; an interrupted run ends it. What it has started and left behind is ended in any case.
fn wait(mut child: Child, cx: &Context) -> Result<ExitStatus, StageError> {
    let group = Pid::from_raw(child.id() as i32);
    let end_group = || group.map(|group| kill_process_group(group, Signal::KILL));
    loop {
        if let Some(status) = child.try_wait()? {
            end_group();
            return Ok(status);
        }
        if cx.cancelled() {
            end_group();
            child.wait()?;
            return Err(StageError::Cancelled);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The last lines of a log.
fn tail(log: &str) -> &str {
    const BYTES: usize = 4000;
    let log = log.trim_end();
    let start = log.len().saturating_sub(BYTES);
    let start = (start..=log.len()).find(|&at| log.is_char_boundary(at)).unwrap_or(log.len());
    &log[start..]
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::time::Instant;

    use arrow::array::{Int32Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};
    use tracetune_engine::stage::Reporter;

    use super::*;

    struct Silent;

    impl Reporter for Silent {
        fn progress(&self, _: u64, _: u64, _: &str) {}
        fn note(&self, _: &str) {}
    }

    /// Runs a shell script that gets three rows at port `my-rows`.
    fn call(root: &Path, script: &str, cancel: bool) -> Result<RecordBatch, StageError> {
        let cx = Context {
            cancel: Arc::new(AtomicBool::new(cancel)),
            threads: 1,
            root: root.to_owned(),
            scratch: root.to_owned(),
            checkpoint: root.join("checkpoint"),
            reporter: Arc::new(Silent),
        };
        let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Int32, false)]));
        let rows = RecordBatch::try_new(schema, vec![Arc::new(Int32Array::from(vec![1, 2, 3]))]).unwrap();
        let inputs = Inputs(BTreeMap::from([("my-rows".to_owned(), Artifact::Table(rows))]));
        let params = Params {
            run: ["sh", "-c", script].map(str::to_owned).to_vec(),
            files: Vec::new(),
            env: BTreeMap::from([("GREETING".to_owned(), "hello".to_owned())]),
        };
        match CommandKind::run(&params, &inputs, &cx)?.remove("rows") {
            Some(Artifact::Table(rows)) => Ok(rows),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_program_gets_its_inputs_and_gives_its_output() {
        let folder = tempfile::tempdir().unwrap();
        let script = "test \"$GREETING\" = hello && cp \"$TRACETUNE_IN_MY_ROWS\" \"$TRACETUNE_OUT\"";
        assert_eq!(call(folder.path(), script, false).unwrap().num_rows(), 3);
    }

    #[test]
    fn its_environment_is_what_is_declared() {
        let folder = tempfile::tempdir().unwrap();
        let error = call(folder.path(), "env; exit 3", false).unwrap_err().to_string();
        assert!(error.contains("ended with exit status: 3") && error.contains("GREETING=hello"), "{error}");
        assert!(!error.contains("HOME=") && !error.contains("CARGO"), "{error}");
    }

    #[test]
    fn exit_status_75_asks_for_another_attempt() {
        let folder = tempfile::tempdir().unwrap();
        let error = call(folder.path(), "echo busy >&2; exit 75", false).unwrap_err();
        assert!(matches!(&error, StageError::Transient { message, .. } if message.ends_with("busy")), "{error}");
    }

    #[test]
    fn a_missing_output_is_named_with_what_the_program_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let error = call(folder.path(), "echo oh no >&2", false).unwrap_err().to_string();
        assert!(error.contains("wrote nothing to TRACETUNE_OUT") && error.ends_with("oh no"), "{error}");
        let error = call(folder.path(), "echo junk > \"$TRACETUNE_OUT\"", false).unwrap_err().to_string();
        assert!(error.contains("what `sh -c"), "{error}");
    }

    #[test]
    fn neither_an_interrupted_program_nor_one_that_is_done_leaves_children() {
        let folder = tempfile::tempdir().unwrap();
        let started = Instant::now();
        let marks = "(while :; do echo x >> marks; sleep 0.05; done) &";
        assert!(matches!(call(folder.path(), &format!("{marks} sleep 60"), true), Err(StageError::Cancelled)));
        assert!(
            call(folder.path(), &format!("{marks} cp \"$TRACETUNE_IN_MY_ROWS\" \"$TRACETUNE_OUT\""), false).is_ok()
        );
        assert!(started.elapsed().as_secs() < 30);
        let size = || std::fs::metadata(folder.path().join("marks")).map_or(0, |metadata| metadata.len());
        let before = size();
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(size(), before);
    }
}
