//! Third-party packages that programs may import: found in a virtual environment or a folder, and described for keys.
//!
//! A key has each distribution's name and version, and a digest of all files but compiled bytecode and what an installer
//! notes about itself: two environments with the same packages give the same key, wherever they lie.

use std::collections::{BTreeMap, HashMap};
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tracetune_engine::stage::{Environment, ParamError, Setup, StageError};

use crate::python::{PYTHON_VARIABLE, Python};

/// What installers write into `*.dist-info` that says nothing of the package, or names the machine's paths.
const NOTES: [&str; 5] = ["RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"];

/// Checks the parameter `warm`.
///
/// # Errors
/// It names something that is no module.
pub(crate) fn check_warm(warm: &[String]) -> Result<(), ParamError> {
    let is_name = |part: &str| {
        part.starts_with(|first: char| first == '_' || first.is_alphabetic())
            && part.chars().all(|letter| letter == '_' || letter.is_alphanumeric())
    };
    match warm.iter().find(|module| !module.split('.').all(is_name)) {
        None => Ok(()),
        Some(module) => Err(ParamError {
            param: "warm",
            message: format!("`{module}` is no name of a module"),
            help: Some("write what stands after `import`, e.g. `warm = [\"numpy\", \"pandas\"]`".to_owned()),
        }),
    }
}

/// The interpreter for programs that may import `packages`, a path below `root`, and find `warm` imported.
///
/// # Errors
/// There is no interpreter, or the folder is not one with packages for it.
pub(crate) fn interpreter(packages: Option<&str>, warm: &[String], root: &Path) -> Result<Python, StageError> {
    let python = Python { warm: warm.to_vec(), ..Python::find()? };
    let Some(given) = packages else { return Ok(python) };
    let folder = Files::find(given, root, &python)?.folder;
    let readable = python.readable.iter().cloned().chain([folder.clone()]).collect();
    Ok(Python { readable, packages: Some(folder), ..python })
}

/// What a kind that runs programs declares as its environment.
///
/// # Errors
/// As [`interpreter`].
pub(crate) fn environment(packages: Option<&str>, setup: &Setup) -> Result<Environment, StageError> {
    /// Digests by what the file system says of the files: all stages of a pipeline ask for the same.
    static KNOWN: Mutex<Option<HashMap<blake3::Hash, String>>> = Mutex::new(None);
    let python = Python::find()?;
    let mut environment = python.environment();
    let Some(given) = packages else { return Ok(environment) };
    let files = Files::find(given, setup.root, &python)?;
    environment.extend(files.distributions()?.into_iter().map(|(name, version)| (format!("package {name}"), version)));
    let identity = files.identity();
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().get(&identity).cloned();
    setup.watch(&files.folder)?;
    let digest = match known {
        Some(digest) => digest,
        None => files.digest(setup)?,
    };
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().insert(identity, digest.clone());
    environment.push(("packages".to_owned(), digest));
    Ok(environment)
}

/// The files of the packages in a folder, by their paths in it, sorted.
#[derive(Debug)]
struct Files {
    folder: PathBuf,
    files: BTreeMap<PathBuf, Metadata>,
}

impl Files {
    fn find(given: &str, root: &Path, python: &Python) -> Result<Self, StageError> {
        let folder = site_packages(given, root, python)?;
        let folder = folder.canonicalize().map_err(|error| unreadable(&folder, &error))?;
        let mut found = Self { folder, files: BTreeMap::new() };
        found.walk(given)?;
        let is_module = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "py" || ending == "so");
        if !found.files.keys().any(is_module) {
            let message = format!("`packages = \"{given}\"`: `{}` has no Python packages", found.folder.display());
            return Err(StageError::environment(message, how_to_make(root)));
        }
        found.check_release(given, python)?;
        Ok(found)
    }

    fn walk(&mut self, given: &str) -> Result<(), StageError> {
        let mut folders = vec![self.folder.clone()];
        while let Some(folder) = folders.pop() {
            let entries = std::fs::read_dir(&folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
            for entry in entries.map_err(|error| unreadable(&folder, &error))? {
                let path = entry.path();
                let metadata = std::fs::metadata(&path).map_err(|error| unreadable(&path, &error))?;
                if std::fs::symlink_metadata(&path).is_ok_and(|own| own.is_symlink())
                    && !path.canonicalize().is_ok_and(|target| metadata.is_file() && target.starts_with(&self.folder))
                {
                    let message = format!("`packages = \"{given}\"`: `{}` is a link out of it", path.display());
                    let help = "programs see that folder alone: install copies (`uv pip install --link-mode copy`)";
                    return Err(StageError::environment(message, help));
                }
                if metadata.is_dir() {
                    if entry.file_name() != "__pycache__" {
                        folders.push(path);
                    }
                } else if !is_noise(&path) {
                    let inside = path.strip_prefix(&self.folder).unwrap_or(&path).to_owned();
                    self.files.insert(inside, metadata);
                }
            }
        }
        Ok(())
    }

    /// # Errors
    /// An extension module is for another release of Python, and for this one there is none.
    fn check_release(&self, given: &str, python: &Python) -> Result<(), StageError> {
        let (_, own) = python.release();
        let built = |path: &PathBuf| Some((module_of(path)?, release_of(path)?));
        let foreign = self.files.keys().find(|path| {
            built(path).is_some_and(|(module, release)| {
                release != own && !self.files.keys().any(|other| built(other) == Some((module.clone(), own)))
            })
        });
        match foreign.and_then(|path| Some((path, release_of(path)?))) {
            None => Ok(()),
            Some((path, release)) => {
                let file = path.display();
                Err(other_release(given, python, &format!("`{file}` is built for Python 3.{release}")))
            }
        }
    }

    /// Names and versions of what was installed, by its own metadata.
    fn distributions(&self) -> Result<BTreeMap<String, String>, StageError> {
        let is_metadata = |path: &&PathBuf| {
            path.ends_with("METADATA")
                && path.parent().is_some_and(|parent| parent.extension().is_some_and(|ending| ending == "dist-info"))
        };
        let mut distributions = BTreeMap::new();
        for path in self.files.keys().filter(is_metadata) {
            let path = self.folder.join(path);
            let text = fs_err::read(&path)?;
            let text = String::from_utf8_lossy(&text);
            let head = text.lines().take_while(|line| !line.is_empty());
            let field = |name: &str| head.clone().find_map(|line| line.strip_prefix(name)).map(|value| value.trim());
            if let (Some(name), Some(version)) = (field("Name:"), field("Version:")) {
                distributions.insert(name.to_lowercase().replace(['_', '.'], "-"), version.to_owned());
            }
        }
        Ok(distributions)
    }

    /// Changes whenever the file system says that a file did.
    fn identity(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.folder.as_os_str().as_bytes());
        for (path, metadata) in &self.files {
            hasher.update(path.as_os_str().as_bytes());
            for number in [metadata.ino(), metadata.len()] {
                hasher.update(&number.to_le_bytes());
            }
            for time in [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()] {
                hasher.update(&time.to_le_bytes());
            }
        }
        hasher.finalize()
    }

    /// Over the paths and bytes of all files.
    fn digest(&self, setup: &Setup) -> Result<String, StageError> {
        let mut hasher = blake3::Hasher::new();
        for path in self.files.keys() {
            let name = path.as_os_str().as_bytes();
            hasher.update(&(name.len() as u64).to_le_bytes()).update(name);
            hasher.update(setup.digest_file(self.folder.join(path))?.as_bytes());
        }
        Ok(hasher.finalize().to_string())
    }
}

/// The folder itself, or where a virtual environment has its packages for this release of Python.
fn site_packages(given: &str, root: &Path, python: &Python) -> Result<PathBuf, StageError> {
    let folder = root.join(given);
    if !folder.is_dir() {
        let what = if folder.exists() { "is no folder" } else { "is not there" };
        let message = format!("`packages = \"{given}\"`: `{}` {what}", folder.display());
        return Err(StageError::environment(message, how_to_make(root)));
    }
    if !folder.join("pyvenv.cfg").is_file() {
        if let Some(venv) = virtual_environment(given, root) {
            let message = format!("`packages = \"{given}\"`: the virtual environment is `{}`", venv.display());
            return Err(StageError::environment(message, format!("write `packages = \"{}\"`", venv.display())));
        }
        return Ok(folder);
    }
    let (major, minor) = python.release();
    let libraries = || ["lib", "lib64"].into_iter().map(|name| folder.join(name));
    let own = libraries().map(|library| library.join(format!("python{major}.{minor}/site-packages")));
    if let Some(own) = own.into_iter().find(|own| own.is_dir()) {
        return Ok(own);
    }
    let names = libraries().filter_map(|library| std::fs::read_dir(library).ok()).flatten().flatten();
    let releases = names.filter_map(|entry| Some(entry.file_name().to_str()?.strip_prefix("python")?.to_owned()));
    let made_for =
        releases.min().map_or("no Python that it has packages of".to_owned(), |name| format!("Python {name}"));
    Err(other_release(given, python, &format!("it is made for {made_for}")))
}

fn other_release(given: &str, python: &Python, what: &str) -> StageError {
    let message = format!("`packages = \"{given}\"`: {what}, and programs run on {}", python.version);
    let executable = python.executable.display();
    let help = format!(
        "install the packages with `{executable} -m pip`, or set {PYTHON_VARIABLE} to the interpreter they are for"
    );
    StageError::environment(message, help)
}

fn unreadable(path: &Path, error: &io::Error) -> StageError {
    StageError::Input(format!("can't read `{}`: {error}", path.display()))
}

/// What to write, or how to come by such a folder.
fn how_to_make(root: &Path) -> String {
    match virtual_environment("", root) {
        Some(venv) => format!("there is a virtual environment: `packages = \"{}\"`", venv.display()),
        None => {
            "name a virtual environment, or a folder that `pip install --target FOLDER numpy` has filled".to_owned()
        }
    }
}

/// A virtual environment of a usual name in a folder.
fn virtual_environment(folder: &str, root: &Path) -> Option<PathBuf> {
    let paths = [".venv", "venv"].map(|name| Path::new(folder).join(name));
    paths.into_iter().find(|path| root.join(path).join("pyvenv.cfg").is_file())
}

/// Whether a file says nothing of the packages.
fn is_noise(path: &Path) -> bool {
    let in_metadata = path.parent().and_then(Path::extension).is_some_and(|ending| ending == "dist-info");
    let is_note = path.file_name().is_some_and(|name| NOTES.iter().any(|note| name == *note));
    path.extension().is_some_and(|ending| ending == "pyc") || (in_metadata && is_note)
}

/// The release 3.N that an extension module is built for; `None` if it is none, or for any.
fn release_of(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?.strip_suffix(".so")?;
    name.split('.').find_map(|part| part.strip_prefix("cpython-3"))?.split('-').next()?.parse().ok()
}

/// What an extension module is imported as.
fn module_of(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?.split('.').next()?;
    Some(path.with_file_name(name))
}

#[cfg(test)]
mod tests;
