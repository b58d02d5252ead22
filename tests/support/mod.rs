//! A folder to work in, the binary, and what is left out of snapshots.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A temporary folder that is a project of its own, and a binary to run in it.
pub(crate) struct Workspace {
    folder: tempfile::TempDir,
    binary: PathBuf,
}

impl Workspace {
    /// An empty project.
    pub(crate) fn new(binary: impl Into<PathBuf>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // This makes the folder the project's root, whatever it lies in.
        std::fs::create_dir(folder.path().join(".tracetune")).expect("the store's folder");
        Self { folder, binary: binary.into() }
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file, with the folders above it.
    pub(crate) fn write(&self, path: &str, text: &str) -> &Self {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("the file's folder");
        std::fs::write(path, text).expect("the file");
        self
    }

    /// The binary with these arguments, in the folder, apart from the caller's environment.
    pub(crate) fn command<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.binary);
        command.current_dir(self.path()).args(arguments).stdin(Stdio::null());
        for name in ["TRACETUNE_STORE", "TRACETUNE_THREADS", "NO_COLOR", "CLICOLOR_FORCE", "COLUMNS"] {
            command.env_remove(name);
        }
        command
    }

    /// Runs the binary to its end.
    pub(crate) fn run<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ran {
        let output = self.command(arguments).output().expect("the binary starts");
        self.ran(&output)
    }

    /// What a finished process said, for snapshots.
    pub(crate) fn ran(&self, output: &Output) -> Ran {
        let text =
            |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&self.path().display().to_string(), "[folder]");
        Ran { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}

/// The digest of each output of a workspace's newest run, by `node.output`.
pub(crate) fn digests(workspace: &Workspace) -> BTreeMap<String, String> {
    let answer = workspace.run(["show", "latest", "--json"]).json();
    let mut digests = BTreeMap::new();
    for node in answer["run"]["nodes"].as_array().expect("nodes") {
        let id = node["id"].as_str().expect("an id");
        for (name, output) in node["outputs"].as_object().expect("outputs by name") {
            digests.insert(format!("{id}.{name}"), output["digest"].as_str().expect("a digest").to_owned());
        }
    }
    digests
}

/// Copies what a folder holds into another one.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("the folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            std::fs::create_dir_all(&target).expect("a folder");
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

/// What a process said. Shown, it is ready for a snapshot: see [`redacted`].
pub(crate) struct Ran {
    /// The exit code, unless a signal ended it.
    pub(crate) code: Option<i32>,
    /// All of stdout, as it was but for the folder's name.
    pub(crate) stdout: String,
    /// All of stderr.
    pub(crate) stderr: String,
}

impl Ran {
    /// The answer of a command with `--json`.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {self}"))
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.code.map_or_else(|| "none".to_owned(), |code| code.to_string());
        writeln!(f, "exit code: {code}")?;
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.trim().is_empty() {
                writeln!(f, "--- {name}\n{}", redacted(text).trim_end())?;
            }
        }
        Ok(())
    }
}

/// The text without what differs from run to run: ids of runs, times, digests.
pub(crate) fn redacted(text: &str) -> String {
    let rules = [
        (r"\b\d{8}-\d{6}-[\w-]+", "[run]"),
        (r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "[time]"),
        (r"\b(in|after) (\d+ h )?(\d+ min )?[\d.]+ (s|min)\b", "$1 [time]"),
        (r"\b[0-9a-f]{12}\b", "[digest]"),
        (r"[ \t]+\n", "\n"),
    ];
    let mut text = text.to_owned();
    for (pattern, with) in rules {
        text = regex::Regex::new(pattern).expect("a pattern").replace_all(&text, with).into_owned();
    }
    text
}
