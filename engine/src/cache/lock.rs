//! Locks that die with their process: `flock`, or a lease where a store is shared by machines; never a file whose
//! existence is the lock.

use std::fs::File;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::lease::{Lease, Leases, TIME_TO_LIVE};
use super::{ActionKey, CacheError, Signature, Store};

/// How the processes that use a store keep out of each other's way. All of them must use the same kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// The operating system's locks: they end with their process, at once.
    Flock,
    /// Files with an owner and a heartbeat, for file systems that several machines share.
    Lease,
}

impl LockKind {
    /// What suits the file system that a folder lies on.
    pub fn of(folder: &Path) -> Self {
        #[cfg(target_os = "linux")]
        if rustix::fs::statfs(folder).is_ok_and(|found| SHARED.contains(&(found.f_type as u32))) {
            return Self::Lease;
        }
        let _ = folder;
        Self::Flock
    }
}

/// File systems that several machines may share, by the number that statfs(2) gives: AFS twice, BeeGFS, Ceph, CIFS, Coda,
/// FUSE, GPFS, Lustre, NCP, NFS, 9p, SMB, SMB 2.
#[cfg(target_os = "linux")]
const SHARED: [u32; 14] = [
    0x5346_414f,
    0x6b41_4653,
    0x1983_0326,
    0x00c3_6400,
    0xff53_4d42,
    0x7375_7245,
    0x6573_5546,
    0x4750_4653,
    0x0bd0_0bd0,
    0x564c,
    0x6969,
    0x0102_1997,
    0x517b,
    0xfe53_4d42,
];

impl std::fmt::Display for LockKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Flock => "flock",
            Self::Lease => "lease",
        })
    }
}

impl FromStr for LockKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut kinds = [Self::Flock, Self::Lease].into_iter();
        kinds.find(|kind| kind.to_string() == text).ok_or_else(|| "write `flock` or `lease`".to_owned())
    }
}

/// The locks of one store in this process.
#[derive(Debug)]
pub(super) enum Locks {
    Flock,
    Lease(Leases),
}

impl Locks {
    pub(super) fn new(kind: LockKind, is_shared: bool) -> Self {
        match kind {
            LockKind::Flock => Self::Flock,
            LockKind::Lease => Self::Lease(Leases::new(TIME_TO_LIVE, is_shared)),
        }
    }
}

/// A lock that is held until it is dropped or its process ends. Excludes other threads as well as other processes.
#[derive(Debug)]
pub struct Lock {
    _held: Held,
}

#[derive(Debug)]
enum Held {
    Flock {
        _flock: Flock,
    },
    Lease {
        lease: Lease,
    },
    /// In a read-only store there is nothing to keep others from.
    Nothing,
}

#[derive(Debug)]
struct Flock {
    path: PathBuf,
    /// Closing it gives the lock up.
    _file: File,
}

impl Flock {
    fn attempt(path: PathBuf, is_shared: bool) -> Result<Option<Self>, CacheError> {
        loop {
            let file = open(&path, is_shared)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(CacheError::io("lock", path)(error.into())),
            }
            // The holder before us may have removed the file after we opened it: then we hold a lock on nothing.
            let held = file.metadata().map_err(CacheError::io("lock", &path))?;
            match std::fs::metadata(&path) {
                Ok(current) if (current.dev(), current.ino()) == (held.dev(), held.ino()) => {
                    return Ok(Some(Self { path, _file: file }));
                }
                _ => continue,
            }
        }
    }
}

impl Drop for Flock {
    fn drop(&mut self) {
        // Before the file is closed, so that no one else's lock is removed.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn open(path: &Path, is_shared: bool) -> Result<File, CacheError> {
    let is_new = !path.exists();
    let file = File::options().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(CacheError::io("open", path))?;
    if is_new && is_shared {
        // Another user of the group made it meanwhile: then it is as it should be.
        let _ = file.set_permissions(std::fs::Permissions::from_mode(0o664));
    }
    Ok(file)
}

/// Says that a store is in use (many at a time), or that it is cleared out (one, and nobody uses it).
#[derive(Debug)]
pub(crate) struct Hold {
    _held: Holding,
}

#[derive(Debug)]
enum Holding {
    Flock { _file: File },
    Lease { _lease: Lease },
    Nothing,
}

/// The leases of those who use the store, and of the one who clears it.
const IN_USE: &str = "in-use";
const CLEARING: &str = "clearing";

impl Store {
    /// How this store is locked.
    pub fn lock_kind(&self) -> LockKind {
        match self.locks {
            Locks::Flock => LockKind::Flock,
            Locks::Lease(_) => LockKind::Lease,
        }
    }

    fn lock_path(&self, name: &str) -> PathBuf {
        self.root.join("locks").join(name)
    }

    fn lease_folder(&self, name: &str) -> PathBuf {
        self.lock_path(&format!("{name}.lease"))
    }

    /// Takes a lock if nobody holds it.
    ///
    /// # Errors
    /// The lock can't be made.
    pub(crate) fn try_lock(&self, name: &str) -> Result<Option<Lock>, CacheError> {
        if self.is_read_only {
            return Ok((!self.is_locked(name)?).then_some(Lock { _held: Held::Nothing }));
        }
        let held = match &self.locks {
            Locks::Flock => {
                self.make_folder(&self.root.join("locks"))?;
                Flock::attempt(self.lock_path(name), self.is_shared)?.map(|flock| Held::Flock { _flock: flock })
            }
            Locks::Lease(leases) => {
                let folder = self.lease_folder(name);
                // A look first, so that those who wait do not get in each other's way.
                if !leases.is_alone(None, &folder)? {
                    return Ok(None);
                }
                let lease = leases.post(&folder)?;
                leases.is_alone(Some(&lease), &folder)?.then_some(Held::Lease { lease })
            }
        };
        Ok(held.map(|held| Lock { _held: held }))
    }

    /// Whether somebody holds the lock, found out without making it.
    fn is_locked(&self, name: &str) -> Result<bool, CacheError> {
        match &self.locks {
            Locks::Flock => Ok(File::open(self.lock_path(name))
                .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK))),
            Locks::Lease(leases) => Ok(!leases.is_alone(None, &self.lease_folder(name))?),
        }
    }

    /// Whether somebody holds the lock as the other kind of lock: who shares a store with other locks is not to be harmed.
    pub(super) fn is_locked_otherwise(&self, name: &str) -> Result<bool, CacheError> {
        match &self.locks {
            Locks::Flock => {
                let folder = self.lease_folder(name);
                Ok(folder.is_dir() && !Leases::new(TIME_TO_LIVE, self.is_shared).is_alone(None, &folder)?)
            }
            Locks::Lease(_) => {
                let path = self.lock_path(name);
                if !path.is_file() {
                    return Ok(false);
                }
                let file = open(&path, self.is_shared)?;
                match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                    Ok(()) => Ok(false),
                    Err(Errno::WOULDBLOCK) => Ok(true),
                    // Where there are no such locks, nobody holds one.
                    Err(_) => Ok(false),
                }
            }
        }
    }

    /// Waits for a lock. `waiting` is called once if somebody holds it.
    ///
    /// # Errors
    /// [`CacheError::Cancelled`], or the lock can't be made.
    pub(crate) fn lock(
        &self,
        name: &str,
        cancelled: &dyn Fn() -> bool,
        waiting: impl FnOnce(),
    ) -> Result<Lock, CacheError> {
        let mut waiting = Some(waiting);
        loop {
            if let Some(lock) = self.try_lock(name)? {
                return Ok(lock);
            }
            if let Some(waiting) = waiting.take() {
                waiting();
            }
            if cancelled() {
                return Err(CacheError::Cancelled);
            }
            self.pause();
        }
    }

    /// Until a lock is tried again. Two leases that met must not meet again; a server is asked less often.
    fn pause(&self) {
        let ms = match self.locks {
            Locks::Flock => 20,
            Locks::Lease(_) => std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0) % 100,
        };
        std::thread::sleep(Duration::from_millis(ms));
    }

    /// Keeps [`Store::clear`] from taking away what a run is about to use, until it is dropped.
    ///
    /// # Errors
    /// The lock can't be made.
    pub(crate) fn hold(&self) -> Result<Hold, CacheError> {
        if self.is_read_only {
            return Ok(Hold { _held: Holding::Nothing });
        }
        let held = match &self.locks {
            Locks::Flock => self.flock_in_use(FlockOperation::LockShared)?.expect("a lock that waits is got"),
            Locks::Lease(leases) => loop {
                let lease = leases.post(&self.lease_folder(IN_USE))?;
                if leases.is_alone(None, &self.lease_folder(CLEARING))? {
                    break Holding::Lease { _lease: lease };
                }
                drop(lease);
                self.pause();
            },
        };
        // Posted before looking: of two runs that begin at the same time, at least one sees the other.
        if self.is_locked_otherwise(IN_USE)? {
            return Err(CacheError::OtherLocks { ours: self.lock_kind() });
        }
        Ok(Hold { _held: held })
    }

    /// `None` while a run goes on.
    pub(super) fn hold_alone(&self) -> Result<Option<Hold>, CacheError> {
        if self.is_locked_otherwise(IN_USE)? {
            return Ok(None);
        }
        let held = match &self.locks {
            Locks::Flock => self.flock_in_use(FlockOperation::NonBlockingLockExclusive)?,
            Locks::Lease(leases) => match self.try_lock(CLEARING)? {
                Some(Lock { _held: Held::Lease { lease } }) if leases.is_alone(None, &self.lease_folder(IN_USE))? => {
                    Some(Holding::Lease { _lease: lease })
                }
                _ => None,
            },
        };
        Ok(held.map(|held| Hold { _held: held }))
    }

    fn flock_in_use(&self, operation: FlockOperation) -> Result<Option<Holding>, CacheError> {
        self.make_folder(&self.root.join("locks"))?;
        let path = self.lock_path(IN_USE);
        // Never removed: a shared lock has no last holder who knows that it is the last.
        let file = open(&path, self.is_shared)?;
        match flock(&file, operation) {
            Ok(()) => Ok(Some(Holding::Flock { _file: file })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(CacheError::io("lock", path)(error.into())),
        }
    }

    /// Waits until nobody else computes this action.
    ///
    /// # Errors
    /// As [`Store::lock`].
    pub(crate) fn lock_action(
        &self,
        key: &ActionKey,
        cancelled: &dyn Fn() -> bool,
        waiting: impl FnOnce(),
    ) -> Result<Lock, CacheError> {
        self.lock(&format!("action-{key}"), cancelled, waiting)
    }

    /// The right to compute rows of a block of a table under a signature, unless another process or thread has it.
    ///
    /// # Errors
    /// The lock can't be made.
    pub(crate) fn claim_rows(&self, signature: &Signature, block: usize) -> Result<Option<Lock>, CacheError> {
        self.try_lock(&format!("rows-{signature}-{block}"))
    }
}

#[cfg(test)]
mod tests;
