//! Locks that die with their process: `flock`, never a file whose existence is the lock.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::file::make_folder;
use super::{ActionKey, CacheError, Signature, Store};

/// A lock that is held until it is dropped or its process ends. Excludes other threads as well as other processes.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    /// Closing it gives the lock up.
    _file: File,
}

impl Lock {
    /// Takes the lock if nobody holds it.
    pub(crate) fn attempt(path: &Path) -> Result<Option<Self>, CacheError> {
        make_folder(path.parent().expect("a lock lies in a folder of the store"))?;
        loop {
            let file = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(path)
                .map_err(CacheError::io("open", path))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(CacheError::io("lock", path)(error.into())),
            }
            // The holder before us may have removed the file after we opened it: then we hold a lock on nothing.
            let held = file.metadata().map_err(CacheError::io("lock", path))?;
            match std::fs::metadata(path) {
                Ok(current) if (current.dev(), current.ino()) == (held.dev(), held.ino()) => {
                    return Ok(Some(Self { path: path.to_owned(), _file: file }));
                }
                _ => continue,
            }
        }
    }

    /// Waits for the lock. `waiting` is called once if somebody holds it.
    pub(crate) fn wait(path: &Path, cancelled: &dyn Fn() -> bool, waiting: impl FnOnce()) -> Result<Self, CacheError> {
        let mut waiting = Some(waiting);
        loop {
            if let Some(lock) = Self::attempt(path)? {
                return Ok(lock);
            }
            if let Some(waiting) = waiting.take() {
                waiting();
            }
            if cancelled() {
                return Err(CacheError::Cancelled);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Before the file is closed, so that no one else's lock is removed.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Says that a store is in use (many at a time), or that it is cleared out (one, and nobody uses it).
#[derive(Debug)]
pub(crate) struct Hold {
    _file: File,
}

impl Store {
    /// Keeps [`Store::clear`] from taking away what a run is about to use, until it is dropped.
    ///
    /// # Errors
    /// The lock can't be made.
    pub(crate) fn hold(&self) -> Result<Hold, CacheError> {
        self.hold_as(FlockOperation::LockShared).map(|hold| hold.expect("a lock that waits is got"))
    }

    /// `None` while a run goes on.
    pub(super) fn hold_alone(&self) -> Result<Option<Hold>, CacheError> {
        self.hold_as(FlockOperation::NonBlockingLockExclusive)
    }

    fn hold_as(&self, operation: FlockOperation) -> Result<Option<Hold>, CacheError> {
        let path = self.root.join("locks/in-use");
        make_folder(&self.root.join("locks"))?;
        // Never removed: a shared lock has no last holder who knows that it is the last.
        let options = File::options().create(true).truncate(false).write(true).open(&path);
        let file = options.map_err(CacheError::io("open", &path))?;
        match flock(&file, operation) {
            Ok(()) => Ok(Some(Hold { _file: file })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(CacheError::io("lock", path)(error.into())),
        }
    }

    /// Waits until nobody else computes this action.
    ///
    /// # Errors
    /// [`CacheError::Cancelled`], or the lock can't be made.
    pub(crate) fn lock_action(
        &self,
        key: &ActionKey,
        cancelled: &dyn Fn() -> bool,
        waiting: impl FnOnce(),
    ) -> Result<Lock, CacheError> {
        Lock::wait(&self.root.join(format!("locks/action-{key}")), cancelled, waiting)
    }

    /// Waits until nobody else computes rows under this signature.
    ///
    /// # Errors
    /// As [`Store::lock_action`].
    pub(crate) fn lock_segments(
        &self,
        signature: &Signature,
        cancelled: &dyn Fn() -> bool,
        waiting: impl FnOnce(),
    ) -> Result<Lock, CacheError> {
        Lock::wait(&self.root.join(format!("locks/segments-{signature}")), cancelled, waiting)
    }
}
