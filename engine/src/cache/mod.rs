//! The store: a folder of immutable objects named by their bytes, and small records that point at them.
//!
//! ```text
//! objects/ab/abcd…               a Parquet table, a directory's manifest, or a file of a directory
//! actions/ab/abcd….json          action key -> what the stage gave
//! recipes/ab/abcd….json          recipe key, or a pipeline's node -> the action it last led to
//! segments/ab/abcd…/DIGEST.json  signature -> a Parquet object with finished rows and their keys
//! models/DIGEST/                 a directory as files again, read-only; checked when used
//! checkpoints/KEY/NUMBER-DIGEST  what a long stage keeps to go on after an interruption
//! runs/ID/                       see `crate::runs`
//! listings/ab/abcd….json         what a folder held that a key was made of: for `why` alone
//! locks/                         flocks or leases: they die with their process
//! known-files.json               digests of large files outside the store
//! tmp/                           what is being written; a dead process's part is swept by the next one
//! ```
//!
//! Bytes come before the records that name them, each written whole or not at all (`file.rs`), and a record counts
//! only if its objects are there. So a crash at any point loses work, never truth.

mod action;
mod checkpoint;
mod clear;
mod digest;
mod directory;
mod file;
mod files;
mod known_files;
mod lease;
mod listing;
mod lock;
mod object;
mod segment;
mod watched;

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use rustix::fs::{Access, access};

pub use action::{ActionRecord, Cost, FileRecord, KeyPart, OutputRecord, OutputType, PartGroup, Pointer, Provenance};
pub use checkpoint::Checkpoint;
pub use clear::{Cleared, Roots, Size, Verified};
pub use digest::{ActionKey, Digest, NotHexadecimal, RecipeKey, Signature};
pub use lock::{Lock, LockKind};
pub use segment::{Place, Segment, Segments};

use watched::Stamp;
pub(crate) use watched::WatchedFile;

pub(crate) use file::Destination;
use file::{Faults, Workspace};
pub(crate) use files::{Listing, check_files, list_files};
pub(crate) use known_files::KnownFiles;
use lock::Locks;

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The file system refused.
    #[error("can't {action} `{}`: {source}", .path.display())]
    Io {
        /// What was tried, e.g. `write`.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// An object is not there, or it was damaged and has been put aside. Running its stage again brings it back.
    #[error("object {} is {}", .digest.short(), if *.damaged { "damaged and was put aside" } else { "missing" })]
    Lost {
        /// The object.
        digest: Digest,
        /// Whether it was there.
        damaged: bool,
    },
    /// A table could not be read or written.
    #[error(transparent)]
    Table(#[from] crate::table::TableError),
    /// Locks of the two kinds do not see each other.
    #[error("another process uses this store with locks of another kind than `{ours}`: give both the same `--locks`")]
    OtherLocks {
        /// The kind that was to be used here.
        ours: LockKind,
    },
    /// This process may not write in the store.
    #[error("the store `{}` is read-only", .0.display())]
    ReadOnly(PathBuf),
    /// Nothing can be cleared out while a run goes on.
    #[error("a run goes on in this store")]
    InUse,
    /// Interrupted while another process worked on the same.
    #[error("interrupted")]
    Cancelled,
}

impl CacheError {
    /// For `map_err`: an I/O error with what was tried and where.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

/// See <https://bford.info/cachedir/>.
const CACHEDIR_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n# This folder is a tracetune store.\n";

/// A folder of objects, records, segments and runs. Any number of processes may use one at the same time.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    locks: Locks,
    /// Made at the first write, so that a run which finds everything writes nothing here.
    workspace: OnceLock<Workspace>,
    /// Whether the store's folder lets its group write: then all in it does.
    is_shared: bool,
    /// Whether this process may not write here: what is cached can be used, nothing is computed.
    is_read_only: bool,
    faults: Arc<Faults>,
    /// Files of unpacked directories that were checked, as they were then.
    checked: Mutex<HashMap<PathBuf, Stamp>>,
}

impl Store {
    /// Opens the store in `folder`, making it if it is not there, with the locks that suit its file system.
    ///
    /// # Errors
    /// The folder can't be made.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, CacheError> {
        Self::open_with(folder, None)
    }

    /// As [`Store::open`], with locks of this kind if one is given. A store whose folder this process may not write is
    /// opened as by [`Store::open_read_only`].
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with(folder: impl AsRef<Path>, locks: Option<LockKind>) -> Result<Self, CacheError> {
        let folder = folder.as_ref();
        std::fs::create_dir_all(folder).map_err(CacheError::io("make", folder))?;
        let is_read_only = access(folder, Access::WRITE_OK).is_err();
        let store = Self::opened(folder, locks, is_read_only)?;
        if !is_read_only {
            store.mark();
        }
        Ok(store)
    }

    /// Opens a store without ever writing in it: nothing can be computed, but a run that finds everything in it goes
    /// through, and its folder is made in the system's folder for temporary files.
    ///
    /// # Errors
    /// There is no such folder.
    pub fn open_read_only(folder: impl AsRef<Path>) -> Result<Self, CacheError> {
        Self::opened(folder.as_ref(), None, true)
    }

    fn opened(folder: &Path, locks: Option<LockKind>, is_read_only: bool) -> Result<Self, CacheError> {
        let root = std::path::absolute(folder).map_err(CacheError::io("find", folder))?;
        let metadata = std::fs::metadata(&root).map_err(CacheError::io("open", &root))?;
        let is_shared = metadata.mode() & 0o020 != 0;
        let locks = Locks::new(locks.unwrap_or_else(|| LockKind::of(&root)), is_shared);
        Ok(Self {
            root,
            locks,
            workspace: OnceLock::new(),
            is_shared,
            is_read_only,
            faults: Arc::default(),
            checked: Mutex::default(),
        })
    }

    /// Whether this process may not write in it.
    pub fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    /// # Errors
    /// [`CacheError::ReadOnly`].
    fn check_writable(&self) -> Result<(), CacheError> {
        if self.is_read_only { Err(CacheError::ReadOnly(self.root.clone())) } else { Ok(()) }
    }

    /// Tells backup programs and git to leave the store out.
    fn mark(&self) {
        for (name, text) in [("CACHEDIR.TAG", CACHEDIR_TAG), (".gitignore", "*\n")] {
            let path = self.root.join(name);
            if !path.exists() {
                let _ = std::fs::write(path, text);
            }
        }
    }

    /// Where it is, for people: what lies there is the store's own business.
    pub fn location(&self) -> impl std::fmt::Display + '_ {
        self.root.display()
    }

    /// An empty store on the same file system, as long as the folder is kept.
    ///
    /// # Errors
    /// It can't be made.
    pub fn temporary(&self) -> Result<(tempfile::TempDir, Self), CacheError> {
        let near = if self.is_read_only { std::env::temp_dir() } else { self.root.clone() };
        let folder = tempfile::tempdir_in(&near).map_err(CacheError::io("make a folder in", near))?;
        let store = Self::open(folder.path())?;
        Ok((folder, store))
    }

    /// `folder/ab/abcd…` below the root.
    fn fanned(&self, folder: &str, name: &str) -> PathBuf {
        self.root.join(folder).join(&name[..2]).join(name)
    }
}
