//! Asks the embedded script what a function is: see `inspect.py`. No line of the user's code runs for it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use tracetune_engine::diagnostic::{list, nearest};
use tracetune_engine::stage::{ParamError, Setup};

const SCRIPT: &str = include_str!("inspect.py");

/// A function as its file has it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Function {
    /// Its positional parameters: the columns that it reads.
    pub(super) reads: Vec<String>,
    /// Its keyword-only parameters, and which of them have no default.
    pub(super) keywords: Vec<String>,
    pub(super) required: Vec<String>,
    /// What its annotation says of its result.
    pub(super) returns: Option<Returned>,
    /// The syntax trees of all project code that it reaches, without places, comments and docstrings.
    pub(super) code: Vec<String>,
    /// The files of that code.
    pub(super) modules: Vec<PathBuf>,
    /// Other packages that the code imports, with their versions.
    pub(super) packages: BTreeMap<String, String>,
}

/// What a function returns for a row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Returned {
    /// Columns with their types.
    pub(super) columns: BTreeMap<String, String>,
    /// Whether it is any number of rows.
    pub(super) many: bool,
    /// Whether it is the one column's value, not an object with a field a column.
    pub(super) single: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Function(Box<Function>),
    Unknown { functions: Vec<String>, of: Option<String> },
    Problem { problem: String },
}

/// `PATH.py:NAME` or `MODULE:NAME`.
pub(super) fn split(function: &str) -> Option<(&str, &str)> {
    let (path, name) = function.rsplit_once(':')?;
    let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    (!path.is_empty() && is_name(name)).then_some((path, name))
}

/// Inspects a function with the interpreter that will run it.
///
/// # Errors
/// There is no such file or function, the code has a syntax error, or the interpreter can't be started.
pub(super) fn inspect(
    python: &Path,
    function: &str,
    set_up: Option<&str>,
    setup: &Setup,
) -> Result<Function, ParamError> {
    let wrong = |message: String, help: Option<String>| ParamError { param: "function", message, help };
    let Some((path, name)) = split(function) else {
        let help = "write `function = \"FILE.py:NAME\"`, or `\"package.module:NAME\"`".to_owned();
        return Err(wrong(format!("`{function}` names no function"), Some(help)));
    };
    let root = setup.root.canonicalize().unwrap_or_else(|_| setup.root.to_owned());
    let output = Command::new(python)
        .args(["-B", "-X", "utf8", "-c", SCRIPT])
        .arg(&root)
        .args([path, name])
        .args(set_up)
        .current_dir(&root)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| wrong(format!("can't start `{}`: {error}", python.display()), None))?;
    match serde_json::from_slice(&output.stdout) {
        Ok(Answer::Function(function)) => Ok(*function),
        Ok(Answer::Problem { problem }) => Err(wrong(problem, None)),
        Ok(Answer::Unknown { functions, of }) => {
            let name = of.as_deref().unwrap_or(name);
            let param = if of.is_some() { "setup" } else { "function" };
            let help = match nearest(name, functions.iter().map(String::as_str)) {
                Some(near) => Some(format!("did you mean `{near}`?")),
                None if functions.is_empty() => None,
                None => Some(format!("its functions are {}", list(&functions))),
            };
            Err(ParamError { param, message: format!("`{path}` has no function `{name}`"), help })
        }
        Err(_) => {
            let words = String::from_utf8_lossy(&output.stderr);
            let last = words.trim().lines().next_back().unwrap_or("it says nothing").to_owned();
            Err(wrong(format!("`{}` can't inspect it: {last}", python.display()), None))
        }
    }
}
