//! The Python interpreter that runs candidates and our embedded scripts: found once, described for keys.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use tracetune_engine::stage::{Environment, StageError};

/// Names the interpreter, instead of `python3` on the search path.
pub const PYTHON_VARIABLE: &str = "TRACETUNE_PYTHON";
/// Flags of every interpreter we start: no site packages, no user folder, nothing written, UTF-8 everywhere.
/// `-I` and `-E` would ignore `PYTHONHASHSEED`.
pub(crate) const FLAGS: &[&str] = &["-s", "-S", "-B", "-X", "utf8"];

/// A CPython of version 3.10 or newer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Python {
    /// The interpreter itself, with links and wrappers resolved.
    pub executable: PathBuf,
    /// E.g. `CPython 3.11.7`.
    pub version: String,
    /// Files and folders that it must read: its library and the shared objects it links.
    pub readable: Vec<PathBuf>,
    /// A folder with third-party packages that programs may import.
    pub packages: Option<PathBuf>,
    /// Modules that each fork server imports, so that no program has to.
    pub warm: Vec<String>,
}

/// Why there is no interpreter to use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PythonError {
    /// It could not be started.
    #[error("can't start `{program}`: {reason}")]
    Missing {
        /// What was tried.
        program: String,
        /// Why not.
        reason: String,
    },
    /// It is no CPython, or too old.
    #[error("`{program}` is {version}, CPython 3.10 or newer is needed")]
    Unsuitable {
        /// What was tried.
        program: String,
        /// What it is.
        version: String,
    },
}

impl From<PythonError> for StageError {
    fn from(error: PythonError) -> Self {
        Self::environment(
            error.to_string(),
            format!("install Python 3.10 or newer as `python3`, or set {PYTHON_VARIABLE} to its path"),
        )
    }
}

const PROBE: &str = "
import os, sys, sysconfig
paths = sysconfig.get_paths()
libraries = set()
try:
    with open('/proc/self/maps') as maps:
        libraries = {line.split()[-1] for line in maps if line.rstrip().endswith('.so') or '.so.' in line}
except OSError:
    pass
print(sys.implementation.name)
print('.'.join(map(str, sys.version_info[:3])))
print(os.path.realpath(sys.executable))
folders = {paths['stdlib'], paths['platstdlib'], *(os.path.realpath(p) for p in sys.path if p)}
print('\\n'.join(sorted(folders | libraries)))
";

/// Where shared objects live that library modules link (libssl, libffi, ...), beside those the probe sees loaded.
const LIBRARIES: &[&str] =
    &["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/nix/store", "/etc/ld.so.cache"];
/// How the libraries behind numerical packages are told to start no threads.
const ONE_THREAD: [&str; 4] = ["OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"];
const DEVICES: &[&str] = &["/dev/null", "/dev/urandom"];

impl Python {
    /// The interpreter that TRACETUNE_PYTHON names, else `python3` on the search path; looked for once a process.
    ///
    /// # Errors
    /// There is none, or it is not CPython 3.10 or newer.
    pub fn find() -> Result<Self, PythonError> {
        static FOUND: OnceLock<Result<Python, PythonError>> = OnceLock::new();
        FOUND
            .get_or_init(|| Self::probe(&std::env::var(PYTHON_VARIABLE).unwrap_or_else(|_| "python3".to_owned())))
            .clone()
    }

    /// Asks the interpreter `program` what it is.
    ///
    /// # Errors
    /// As [`Python::find`].
    pub fn probe(program: &str) -> Result<Self, PythonError> {
        let missing = |reason: String| PythonError::Missing { program: program.to_owned(), reason };
        let output = Command::new(program)
            .args(FLAGS)
            .args(["-c", PROBE])
            .current_dir("/")
            .stdin(Stdio::null())
            .output()
            .map_err(|error| missing(error.to_string()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let mut lines = text.lines();
        let (Some(name), Some(version), Some(executable)) = (lines.next(), lines.next(), lines.next()) else {
            let words = String::from_utf8_lossy(&output.stderr);
            let last = words.trim().lines().next_back().unwrap_or("it says nothing");
            return Err(missing(last.to_owned()));
        };
        let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
        let release: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if name != "cpython" || release < (3, 10) {
            return Err(PythonError::Unsuitable { program: program.to_owned(), version: format!("{name} {version}") });
        }
        let readable = lines.map(PathBuf::from);
        let readable = readable.chain(LIBRARIES.iter().chain(DEVICES).map(PathBuf::from));
        Ok(Self {
            version: format!("CPython {version}"),
            readable: readable.chain([PathBuf::from(executable)]).collect(),
            executable: PathBuf::from(executable),
            packages: None,
            warm: Vec::new(),
        })
    }

    /// Its major and minor version.
    pub(crate) fn release(&self) -> (u32, u32) {
        let mut numbers =
            self.version.rsplit(' ').next().unwrap_or_default().split('.').map(|n| n.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }

    /// What a kind that runs Python declares as its environment.
    pub fn environment(&self) -> Environment {
        vec![("python".to_owned(), self.version.clone())]
    }

    /// A command with our flags and nothing of our own environment.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.executable);
        command.args(FLAGS).env_clear().env("PYTHONHASHSEED", "0").env("LANG", "C.UTF-8").env("TZ", "UTC");
        command.current_dir("/");
        if self.packages.is_some() {
            // A fork server must have one thread, and results must not depend on the number of processors.
            command.envs(ONE_THREAD.map(|name| (name, "1")));
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_interpreter_is_named() {
        let error = Python::probe("no-such-python").unwrap_err();
        assert!(error.to_string().starts_with("can't start `no-such-python`"), "{error}");
        let StageError::Environment { help: Some(help), .. } = error.into() else { panic!("no help") };
        assert!(help.contains(PYTHON_VARIABLE));
    }

    #[test]
    fn a_program_that_is_no_python_is_refused() {
        assert!(matches!(Python::probe("true"), Err(PythonError::Missing { .. })));
    }
}
