//! Leases: locks for file systems on which `flock` can't be trusted to reach the other machines.
//!
//! A lease is a file in the lock's folder, `locks/NAME.lease/NONCE`, that says whose it is and whose mtime is renewed as
//! long as its process lives. **Write, then look**: a process posts its file, lists the folder, and holds the lock if
//! nobody else's live lease is there; otherwise it takes its own away and tries again a random moment later.
//!
//! Why two can't both hold it: each wrote before it looked. Had neither seen the other's file, each would have been
//! written after the other one looked, and so after the other one was written. A name is never used twice, so a dead
//! lease may be removed by anyone at any time without hitting its successor. NFS and its like keep no stale list of a
//! folder that the same client has just written in, and a file is opened to read its mtime, which asks the server.
//!
//! A lease is dead if its process was of this machine, this boot and this pid namespace and is gone; or if the **file
//! server's** clock (the mtime of a file written just now) is more than the time to live past its mtime. The second is a
//! guess: a process that was stopped for longer finds its lease gone and goes on all the same, while another one does the
//! same work. So a lease saves work and decides no result: objects are immutable and named by their bytes, records are
//! replaced whole, and a file that is missing because the store was cleared meanwhile is told, never made up.
//! File systems on which the client sets mtimes (sshfs) need clocks that agree within the time to live.

use std::collections::HashSet;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, utimensat};
use serde::{Deserialize, Serialize};

use super::CacheError;
use super::file::{make_folder, make_new_folder};

/// How long after its last renewal another machine's lease counts.
pub(super) const TIME_TO_LIVE: Duration = Duration::from_secs(60);
/// Renewals in a time to live: five may fail before anyone takes over.
const RENEWALS: u32 = 6;

/// All leases of one store in this process.
#[derive(Debug)]
pub(super) struct Leases {
    time_to_live: Duration,
    /// Whether other users of the group take locks as well.
    is_shared: bool,
    owner: Owner,
    held: Arc<Mutex<HashSet<PathBuf>>>,
    /// The thread that renews them; it ends when this is dropped.
    renewing: OnceLock<Sender<()>>,
    /// The file server's clock, and when it was read.
    clock: Mutex<Option<(SystemTime, Instant)>>,
}

/// Who holds a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owner {
    /// For a human reader.
    pub(super) host: String,
    /// This boot of this kernel and the pid namespace; `None` where that can't be told, as without `/proc`.
    pub(super) machine: Option<String>,
    pub(super) pid: u32,
    /// When the process started, in the kernel's ticks: a pid is used again, but not with the same start.
    pub(super) started: Option<u64>,
}

/// A lease that is renewed until it is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    path: PathBuf,
    held: Arc<Mutex<HashSet<PathBuf>>>,
}

impl Leases {
    pub(super) fn new(time_to_live: Duration, is_shared: bool) -> Self {
        let (renewing, clock) = (OnceLock::new(), Mutex::new(None));
        Self { time_to_live, is_shared, owner: Owner::here(), held: Arc::default(), renewing, clock }
    }

    /// Posts a lease in a folder, whoever else has one there.
    pub(super) fn post(&self, folder: &Path) -> Result<Lease, CacheError> {
        let owner = serde_json::to_vec(&self.owner).expect("an owner is plain data");
        let file = self.new_file(folder, &owner)?;
        let path = file.into_temp_path().keep().map_err(|error| CacheError::io("write", folder)(error.error))?;
        lock(&self.held).insert(path.clone());
        self.renewing.get_or_init(|| renew(Arc::clone(&self.held), self.time_to_live / RENEWALS));
        Ok(Lease { path, held: Arc::clone(&self.held) })
    }

    /// Whether nobody else has a live lease in the folder; dead ones are removed. `own` must still be there, if it is
    /// given.
    pub(super) fn is_alone(&self, own: Option<&Lease>, folder: &Path) -> Result<bool, CacheError> {
        let entries = match std::fs::read_dir(folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(own.is_none()),
            entries => entries.map_err(CacheError::io("read", folder))?,
        };
        let mut own_is_there = own.is_none();
        for entry in entries {
            let path = entry.map_err(CacheError::io("read", folder))?.path();
            if own.is_some_and(|own| own.path == path) {
                own_is_there = true;
            } else if self.is_live(&path)? {
                return Ok(false);
            } else {
                remove(&path);
            }
        }
        Ok(own_is_there)
    }

    fn is_live(&self, path: &Path) -> Result<bool, CacheError> {
        let opened = File::open(path).and_then(|mut file| {
            let renewed = file.metadata()?.modified()?;
            let mut text = Vec::new();
            file.read_to_end(&mut text)?;
            Ok((renewed, text))
        });
        let (renewed, text) = match opened {
            Err(error) if is_gone(&error) => return Ok(false),
            opened => opened.map_err(CacheError::io("read", path))?,
        };
        // One that can't be read is being written.
        let owner: Option<Owner> = serde_json::from_slice(&text).ok();
        match owner.and_then(|owner| self.owner.knows_alive(&owner)) {
            Some(alive) => Ok(alive),
            None => {
                let folder = path.parent().expect("a lease lies in its lock's folder");
                let age = self.server_time(folder)?.duration_since(renewed).unwrap_or_default();
                Ok(age <= self.time_to_live)
            }
        }
    }

    /// What the file server's clock says; asked once a renewal.
    fn server_time(&self, folder: &Path) -> Result<SystemTime, CacheError> {
        let mut clock = lock(&self.clock);
        if let Some((time, read)) = *clock
            && read.elapsed() < self.time_to_live / RENEWALS
        {
            return Ok(time + read.elapsed());
        }
        // Beside the lock's folder, where it would be taken for a lease.
        let folder = folder.parent().expect("a lock's folder lies in the store's");
        let read = Instant::now();
        let probe = self.new_file(folder, b"")?;
        let time = probe.as_file().metadata().and_then(|metadata| metadata.modified());
        let time = time.map_err(CacheError::io("read", probe.path()))?;
        *clock = Some((time, read));
        Ok(time)
    }

    /// A new file of a name never used before, written and closed; its folder is made if need be.
    fn new_file(&self, folder: &Path, bytes: &[u8]) -> Result<tempfile::NamedTempFile, CacheError> {
        let prefix = format!("{}-{}-", self.owner.pid, self.owner.started.unwrap_or_default());
        loop {
            make_folder(folder.parent().expect("it lies in the store"), self.is_shared)?;
            make_new_folder(folder, self.is_shared)?;
            match tempfile::Builder::new().prefix(&prefix).rand_bytes(16).tempfile_in(folder) {
                // Whoever left last took the folder away.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                file => {
                    let mut file = file.map_err(CacheError::io("write in", folder))?;
                    file.write_all(bytes).map_err(CacheError::io("write", file.path()))?;
                    return Ok(file);
                }
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        lock(&self.held).remove(&self.path);
        remove(&self.path);
        // Fails while others are in it.
        let _ = self.path.parent().map(std::fs::remove_dir);
    }
}

impl Owner {
    /// This process.
    fn here() -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
        let pids = std::fs::read_link("/proc/self/ns/pid").ok();
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let pid = std::process::id();
        let machine = boot.zip(pids).map(|(boot, pids)| format!("{host} {} {}", boot.trim(), pids.display()));
        Self { host, machine, pid, started: started(pid) }
    }

    /// Whether the other one's process is alive; `None` if that can't be seen from here.
    fn knows_alive(&self, other: &Self) -> Option<bool> {
        let is_near = self.machine.is_some() && self.machine == other.machine && self.started.is_some();
        is_near.then(|| other.started.is_some() && started(other.pid) == other.started)
    }
}

/// When a process of this machine started; `None` if it is gone, or dead and not yet waited for.
fn started(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything: proc(5).
    let (_, fields) = status.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") { None } else { fields.nth(18)?.parse().ok() }
}

/// Renews all leases in `held` until the sender is dropped.
fn renew(held: Arc<Mutex<HashSet<PathBuf>>>, every: Duration) -> Sender<()> {
    let (sender, receiver) = mpsc::channel();
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let as_it_is = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    // The server's clock, not ours.
    let times = Timestamps { last_access: as_it_is, last_modification: now };
    let work = move || {
        while receiver.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
            let paths: Vec<PathBuf> = lock(&held).iter().cloned().collect();
            for path in paths {
                if let Err(error) = utimensat(CWD, &path, &times, AtFlags::empty())
                    && lock(&held).contains(&path)
                {
                    tracing::warn!(path = %path.display(), %error, "a lease can't be renewed: others may do its work too");
                }
            }
        }
    };
    // Without the thread a lease ends when its time is over, and work may be done twice.
    if let Err(error) = std::thread::Builder::new().name("leases".to_owned()).spawn(work) {
        tracing::warn!(%error, "leases are not renewed");
    }
    sender
}

/// Whatever can't be removed is dead or dies with its time to live.
fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && !is_gone(&error)
    {
        tracing::warn!(path = %path.display(), %error, "a lease can't be removed");
    }
}

/// NFS tells of a file that another machine removed in a way of its own.
fn is_gone(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::StaleNetworkFileHandle)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
