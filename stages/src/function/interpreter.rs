//! The interpreter that runs a user's functions: unlike that of the sandbox, with its packages.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use tracetune_engine::stage::{Setup, StageError};

use crate::program::is_wrapper;

/// Flags of every interpreter: no user folder, nothing written, UTF-8 everywhere.
pub(super) const FLAGS: &[&str] = &["-s", "-B", "-X", "utf8"];

const QUESTION: &str = "import json, sys
json.dump(dict(executable=sys.executable, name=sys.implementation.name, version=sys.version.split()[0],
               release=sys.version_info[:2]), sys.stdout)";

/// What there is to know of it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Interpreter {
    /// Shims and wrappers resolved; a virtual environment's own.
    pub(super) executable: PathBuf,
    name: String,
    version: String,
    release: (u32, u32),
    /// The program that was asked, the question and its answer; nothing if that may depend on more than the program.
    #[serde(skip)]
    pub(super) fact: Option<(PathBuf, String, String)>,
}

impl Interpreter {
    /// Its part of the key.
    pub(super) fn identity(&self) -> String {
        format!("{} {}", self.name, self.version)
    }

    /// # Errors
    /// There is none, or it is too old.
    pub(super) fn find(name: &str, setup: &Setup) -> Result<Self, StageError> {
        static KNOWN: Mutex<Option<HashMap<(PathBuf, PathBuf), Interpreter>>> = Mutex::new(None);
        let help = "set `python`, e.g. to `.venv/bin/python`".to_owned();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let program = if name.contains('/') { Some(setup.resolve(name)) } else { crate::program::in_path(&path, name) };
        let Some(program) = program.filter(|program| program.is_file()) else {
            return Err(StageError::environment(format!("there is no Python `{name}`"), help));
        };
        let key = (program.clone(), setup.root.to_owned());
        if let Some(known) = KNOWN.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().get(&key) {
            return Ok(known.clone());
        }
        // Whom a wrapper starts may depend on more than its own bytes: it is asked anew in each run.
        let is_wrapper = is_wrapper(&program);
        let ask = || ask(&program, setup.root);
        let question = format!("{} {QUESTION}", program.display());
        let answer = if is_wrapper { ask()? } else { setup.fact(&program, &question, ask)? };
        let mut found: Self = serde_json::from_str(&answer)
            .map_err(|_| StageError::environment(format!("`{}` is no Python", program.display()), help.clone()))?;
        if found.name != "cpython" || found.release < (3, 10) {
            let message = format!("`{}` is {}, CPython 3.10 or newer is needed", program.display(), found.identity());
            return Err(StageError::environment(message, help));
        }
        found.fact = (!is_wrapper).then_some((program, question, answer));
        KNOWN.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().insert(key, found.clone());
        Ok(found)
    }

    /// Runs an embedded script with one argument.
    ///
    /// # Errors
    /// It does not end well.
    pub(super) fn answer(&self, script: &str, argument: &str, root: &Path) -> Result<String, StageError> {
        output(Command::new(&self.executable).args(FLAGS).args(["-c", script, argument]), &self.executable, root)
    }
}

fn ask(program: &Path, root: &Path) -> Result<String, StageError> {
    output(Command::new(program).args(FLAGS).args(["-c", QUESTION]), program, root)
}

fn output(command: &mut Command, program: &Path, root: &Path) -> Result<String, StageError> {
    let command = command.current_dir(root).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| StageError::input(format!("can't start `{}`: {error}", program.display())))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(StageError::input(format!("`{}` does not run: {}", program.display(), words.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
