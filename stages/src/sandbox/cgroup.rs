//! A worker's control group: memory that no limit of a process counts, and how many processes there may be.
//!
//! The walls before it leave nothing to it on a machine where they hold. It is made below this process's own group,
//! of either version, where that may be written.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Where the systems of groups are mounted.
const MOUNT: &str = "/sys/fs/cgroup";
/// Processes and threads of a worker: two fork servers, their children, and what a candidate may start of threads.
const MOST_TASKS: u64 = 512;
/// What is not yet empty when its last process was killed is so a moment later.
const PATIENCE: [Duration; 4] =
    [Duration::from_millis(1), Duration::from_millis(5), Duration::from_millis(20), Duration::from_millis(50)];

/// What our groups' names begin with. Earlier versions took `tracetune-`, and removed what they took for orphans.
const PREFIX: &str = "tracetune.";

/// The group of a worker, removed on drop.
pub(super) struct Cgroup {
    /// One folder for all controllers in version 2, one each in version 1; each locked, which says that it is in use.
    folders: Vec<(PathBuf, File)>,
}

impl Cgroup {
    /// # Errors
    /// Why there can be none.
    pub(super) fn create(memory_bytes: u64) -> Result<Self, String> {
        let memberships = fs_err::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
        let mut group = Self { folders: Vec::new() };
        let (bytes, tasks) = (memory_bytes.to_string(), MOST_TASKS.to_string());
        let (memory, pids) = (own_folder(&memberships, "memory"), own_folder(&memberships, "pids"));
        let made = match (memory, pids, own_folder(&memberships, "")) {
            (Some(memory), Some(pids), _) => group
                .limit(&memory, &[("memory.limit_in_bytes", &bytes)])
                .and_then(|()| group.limit(&pids, &[("pids.max", &tasks)])),
            (_, _, Some(own)) => group.limit(&own, &[("memory.max", &bytes), ("pids.max", &tasks)]),
            _ => Err(io::Error::other("this process is in none that has memory and pids")),
        };
        made.map_err(|error| error.to_string())?;
        Ok(group)
    }

    fn limit(&mut self, parent: &Path, limits: &[(&str, &str)]) -> io::Result<()> {
        clear_orphans(parent);
        let (folder, lock) = make_locked(parent)?;
        self.folders.push((folder.clone(), lock));
        // A file that is not there is a controller that was not handed down; the kernel lets nobody make it.
        limits.iter().try_for_each(|(file, value)| fs_err::write(folder.join(file), value))
    }

    #[cfg(test)]
    pub(super) fn folders(&self) -> Vec<PathBuf> {
        self.folders.iter().map(|(folder, _)| folder.clone()).collect()
    }

    /// Moves a process into it; what it starts is in it too.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn add(&self, process: u32) -> io::Result<()> {
        self.folders.iter().try_for_each(|(folder, _)| fs_err::write(folder.join("cgroup.procs"), process.to_string()))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for (folder, _) in &self.folders {
            for pause in PATIENCE {
                match std::fs::remove_dir(folder) {
                    Err(error) if error.kind() == io::ErrorKind::ResourceBusy => thread::sleep(pause),
                    _ => break,
                }
            }
        }
    }
}

/// This process's own folder in the hierarchy that has the controller; "" is version 2's.
fn own_folder(memberships: &str, controller: &str) -> Option<PathBuf> {
    let path = memberships.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        controllers.split(',').any(|name| name == controller).then_some(path)
    })?;
    let folder = Path::new(MOUNT).join(controller).join(path.trim_start_matches('/'));
    folder.is_dir().then_some(folder)
}

/// A new group with a lock on it. Another process may take it for an orphan before it is locked: then there is another.
fn make_locked(parent: &Path) -> io::Result<(PathBuf, File)> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    loop {
        let folder = parent.join(format!("{PREFIX}{}.{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        match fs_err::create_dir(&folder) {
            // In another PID namespace a process has the same number.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            made => made?,
        }
        let lock = match File::open(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?,
        };
        match lock.try_lock() {
            Ok(()) if folder.exists() => return Ok((folder, lock)),
            Err(TryLockError::Error(error)) => return Err(error),
            _ => {}
        }
    }
}

/// Removes the groups whose processes were killed. Whether a group is in use its lock says, which goes with the process
/// that holds it: process numbers mean nothing across PID namespaces.
fn clear_orphans(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes())
            && let Ok(folder) = File::open(entry.path())
            && folder.try_lock().is_ok()
        {
            let _ = std::fs::remove_dir(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_controller() {
        let text = "9:name=systemd:/\n8:pids:/no-such\n5:cpu,memory:/nor-this\n0::/\n";
        assert_eq!(own_folder(text, "pids"), None);
        assert_eq!(own_folder(text, "memory"), None);
        assert_eq!(own_folder(text, "blkio"), None);
        assert_eq!(own_folder("0::/", ""), Path::new(MOUNT).is_dir().then(|| PathBuf::from(MOUNT).join("")));
    }

    #[test]
    fn a_group_in_use_is_never_taken_for_an_orphan() {
        let Ok(group) = Cgroup::create(1 << 30) else { return };
        for folder in group.folders() {
            // A process of another PID namespace: its number is not among ours.
            let foreign = folder.with_file_name(format!("{PREFIX}4194304.0"));
            std::fs::create_dir(&foreign).unwrap();
            let lock = File::open(&foreign).unwrap();
            lock.lock().unwrap();
            clear_orphans(folder.parent().unwrap());
            assert!(folder.is_dir() && foreign.is_dir());
            drop(lock);
            clear_orphans(folder.parent().unwrap());
            assert!(folder.is_dir() && !foreign.exists());
        }
    }
}
