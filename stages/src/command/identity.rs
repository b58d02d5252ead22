//! What of the program itself is in the key: another program under the same name gives other results.
//!
//! A Python is its version and whether it is a virtual environment's: two builds of one version compute the same. Any
//! other program, a script or a compiled one, is the digest of its bytes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tracetune_engine::diagnostic::nearest;
use tracetune_engine::stage::{Environment, ParamError, Setup, StageError};

use super::Params;
use crate::program::is_wrapper;

/// Asks a Python what it is: shims and wrappers answer for what they start.
const QUESTION: &str = "import sys
venv = sys.prefix != sys.base_prefix
print(sys.implementation.name, sys.version.split()[0], *(['virtual environment'] if venv else []))";

/// The part of the key that stands for the program.
pub(super) fn of(params: &Params, setup: &Setup) -> Result<Environment, StageError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut names = vec![&params.run[0]];
    // `env` finds the program that counts.
    if Path::new(&params.run[0]).file_name().is_some_and(|name| name == "env") {
        names.extend(params.run[1..].iter().find(|word| !word.starts_with('-') && !word.contains('=')));
    }
    let part = |name: &String| {
        let program = found(name, &path, setup)?;
        Ok((format!("program {name}"), identity(&program, setup)?))
    };
    names.into_iter().map(part).collect()
}

fn found(name: &str, path: &std::ffi::OsStr, setup: &Setup) -> Result<PathBuf, StageError> {
    if name.contains('/') {
        let program = setup.resolve(name);
        return if program.is_file() {
            Ok(program)
        } else {
            Err(StageError::environment(
                format!("there is no program `{}`", program.display()),
                "a path in `run` starts at the project's root",
            ))
        };
    }
    crate::program::in_path(path, name).ok_or_else(|| {
        let message = format!("there is no program `{name}` in the folders of PATH");
        let help = match setup.root.join(name).is_file() {
            true => format!("to run the file of that name in the project's root, write `./{name}`"),
            false => "install it, or write the path to it".to_owned(),
        };
        StageError::environment(message, help)
    })
}

fn identity(program: &Path, setup: &Setup) -> Result<String, StageError> {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let is_python =
        name.strip_prefix("python").is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || c == '.'));
    if !is_python {
        return setup.digest_file(program);
    }
    let ask = || {
        let output = Command::new(program)
            // With `site`: it is what finds out that there is a virtual environment.
            .args(["-s", "-B", "-c", QUESTION])
            .current_dir(setup.root)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null())
            .output()
            .map_err(|error| StageError::input(format!("can't start `{}`: {error}", program.display())))?;
        let answer = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        match output.status.success() && !answer.is_empty() {
            true => Ok(answer),
            false => {
                let words = String::from_utf8_lossy(&output.stderr);
                Err(StageError::input(format!("`{}` does not run: {}", program.display(), words.trim())))
            }
        }
    };
    // By the program's own path: the Python of a virtual environment is a link to another one.
    // Whom a wrapper starts may depend on more than its own bytes: it is asked each time.
    if is_wrapper(program) { ask() } else { setup.fact(program, QUESTION, ask) }
}

/// Words of `run` that name files of the project whose bytes are not in the key, and `files` that are not there.
pub(super) fn warnings(params: &Params, setup: &Setup) -> Vec<ParamError> {
    let root = setup.root.canonicalize().unwrap_or_else(|_| setup.root.to_owned());
    let covered: Vec<PathBuf> =
        params.files.iter().filter_map(|file| setup.resolve(file).canonicalize().ok()).collect();
    let is_outside = |word: &&String| {
        let Ok(path) = setup.resolve(word.as_str()).canonicalize() else { return false };
        let is_covered = covered.iter().any(|covered| path.starts_with(covered))
            || params.files.iter().any(|file| matches(file, word));
        path.is_file() && path.starts_with(&root) && !is_covered
    };
    let outside = params.run[1..].iter().filter(is_outside).map(|word| ParamError {
        param: "run",
        message: format!("`{word}` is a file of the project and not among `files`: a change of it is not noticed"),
        help: Some(format!("add it: `files = [\"{word}\"]`")),
    });
    outside.chain(missing(&params.files, setup)).collect()
}

/// What `files` names and is not there.
pub(crate) fn missing<'a>(files: &'a [String], setup: &'a Setup) -> impl Iterator<Item = ParamError> + 'a {
    files.iter().filter_map(|file| {
        let error = setup.check_file(file).err()?;
        let path = setup.resolve(file);
        let names: Vec<String> = std::fs::read_dir(path.parent()?)
            .map(|names| names.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
            .unwrap_or_default();
        let near = nearest(&path.file_name()?.to_string_lossy(), names.iter().map(String::as_str));
        let help = near.map(|near| format!("did you mean `{near}`?"));
        Some(ParamError { param: "files", message: error.to_string(), help })
    })
}

fn matches(pattern: &str, word: &str) -> bool {
    globset::Glob::new(pattern).is_ok_and(|glob| glob.compile_matcher().is_match(word.trim_start_matches("./")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::python::Python;

    #[test]
    fn the_python_of_a_virtual_environment_is_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let python = Python::find().unwrap().executable;
        let own = folder.path().join("venv/bin/python3");
        std::fs::create_dir_all(own.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(&python, &own).unwrap();
        let home = python.parent().unwrap().display();
        std::fs::write(folder.path().join("venv/pyvenv.cfg"), format!("home = {home}\n")).unwrap();
        let setup = Setup::new(folder.path());
        let (system, own) = (identity(&python, &setup).unwrap(), identity(&own, &setup).unwrap());
        assert!(system.starts_with("cpython 3.") && !system.ends_with("virtual environment"), "{system}");
        assert_eq!(own, format!("{system} virtual environment"));
    }
}
