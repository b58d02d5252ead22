//! The one way a file gets into the store: written in `tmp/`, hashed on the way, synced, renamed, its folder synced.

use std::fs::{File, Permissions};
use std::io::{BufWriter, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use super::{CacheError, Digest, Lock, Store};

/// Where a written file goes.
pub(crate) enum Destination {
    /// `objects/`, by the digest of its bytes. Not synced: a record that names it is written after
    /// [`Store::sync_object`].
    Object,
    /// A record, at a path of the store.
    Record(PathBuf),
    /// A pointer, at a path of the store. Not synced: one that a power cut destroys can't be read, and counts as one
    /// that was never written.
    Pointer(PathBuf),
    /// A run's telemetry, at a path of the store. Not synced: a run that finds everything in the cache should not
    /// wait for the disk, and after a power cut it can be run again to write the same.
    Telemetry(PathBuf),
}

/// How a whole file is put in its place.
pub(super) struct Target {
    pub(super) path: PathBuf,
    pub(super) mode: u32,
    /// Whether its bytes and its name are on the disk before the call returns.
    pub(super) synced: bool,
    /// Whether the group may write as well.
    pub(super) is_shared: bool,
}

/// The one way of every file into a store: written in `workspace`, hashed on the way, moved to where `target` says.
pub(super) fn write_whole<E: From<CacheError>>(
    workspace: &Path,
    faults: &Faults,
    target: impl FnOnce(&Digest) -> Target,
    fill: impl FnOnce(&mut (dyn Write + Send)) -> Result<(), E>,
) -> Result<(Digest, u64), E> {
    faults.next_write().map_err(CacheError::io("write in", workspace))?;
    let staged = tempfile::Builder::new()
        .prefix("new-")
        .tempfile_in(workspace)
        .map_err(CacheError::io("write in", workspace))?;
    let mut writer = HashingWriter::new(BufWriter::new(staged.as_file()));
    let filled = fill(&mut writer);
    // What went wrong with the file itself says more than what `fill` made of it.
    let (digest, bytes) = writer.finish().map_err(CacheError::io("write", staged.path()))?;
    filled?;
    let Target { path, mode, synced, is_shared } = target(&digest);
    let mode = if is_shared && mode & 0o200 != 0 { mode | 0o020 } else { mode };
    staged
        .as_file()
        .set_permissions(Permissions::from_mode(mode))
        .and_then(|()| if synced { staged.as_file().sync_all() } else { Ok(()) })
        .map_err(CacheError::io("write", staged.path()))?;
    let folder = path.parent().expect("files of the store lie in a folder of the store");
    let is_new = !folder.is_dir();
    make_folder(folder, is_shared)?;
    staged.persist(&path).map_err(|error| CacheError::io("write", &path)(error.error))?;
    if synced {
        sync_folder(folder)?;
        folder.parent().filter(|_| is_new).map_or(Ok(()), sync_folder)?;
    }
    Ok((digest, bytes))
}

impl Store {
    /// Writes a file, all of it or nothing. Gives the digest and the size of what `fill` wrote.
    pub(super) fn commit<E: From<CacheError>>(
        &self,
        destination: Destination,
        fill: impl FnOnce(&mut (dyn Write + Send)) -> Result<(), E>,
    ) -> Result<(Digest, u64), E> {
        let is_shared = self.is_shared;
        let target = |digest: &Digest| {
            let (path, mode, synced) = match destination {
                Destination::Object => (self.object_path(digest), 0o444, false),
                Destination::Record(path) => (path, 0o644, true),
                Destination::Pointer(path) | Destination::Telemetry(path) => (path, 0o644, false),
            };
            Target { path, mode, synced, is_shared }
        };
        write_whole(self.workspace()?, &self.faults, target, fill)
    }

    /// Writes a record or a run's table, all of it or nothing.
    ///
    /// # Errors
    /// The disk is full, or the folder can't be written; the message names the path.
    pub(crate) fn write_file(&self, destination: Destination, bytes: &[u8]) -> Result<(), CacheError> {
        match &destination {
            // A pointer is a short cut, no more. A run's folder is outside.
            Destination::Pointer(_) if self.is_read_only => return Ok(()),
            Destination::Telemetry(path) if self.is_read_only => {
                return std::fs::write(path, bytes).map_err(CacheError::io("write", path));
            }
            _ => {}
        }
        self.commit(destination, |writer| writer.write_all(bytes).map_err(CacheError::io("write in", &self.root)))?;
        Ok(())
    }

    /// This process's folder in `tmp/`.
    pub(super) fn workspace(&self) -> Result<&Path, CacheError> {
        if let Some(workspace) = self.workspace.get() {
            return Ok(workspace.folder.path());
        }
        self.check_writable()?;
        let made = Workspace::new(self)?;
        Ok(self.workspace.get_or_init(|| made).folder.path())
    }

    /// An empty folder that is removed when it is dropped.
    ///
    /// # Errors
    /// It can't be made.
    pub(crate) fn scratch(&self) -> Result<TempDir, CacheError> {
        let workspace = self.workspace()?;
        tempfile::Builder::new()
            .prefix("scratch-")
            .tempdir_in(workspace)
            .map_err(CacheError::io("make a folder in", workspace))
    }
}

/// Lets tests see what becomes of a run whose disk fails at any read or write.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Writes until the one that fails; 0: none fails.
    write: AtomicU32,
    /// The same of reads.
    read: AtomicU32,
}

impl Faults {
    fn next_write(&self) -> std::io::Result<()> {
        if is_now(&self.write) { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    pub(super) fn next_read(&self) -> std::io::Result<()> {
        // EIO, as of a disk with a bad sector.
        if is_now(&self.read) { Err(std::io::Error::from_raw_os_error(5)) } else { Ok(()) }
    }
}

fn is_now(countdown: &AtomicU32) -> bool {
    let one_less = |countdown: u32| countdown.checked_sub(1);
    countdown.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less) == Ok(1)
}

impl Store {
    /// For tests of recovery: the `write`-th write from now on, counted from 1, fails as on a full disk.
    #[doc(hidden)]
    pub fn fail_write(&self, write: u32) {
        self.faults.write.store(write, Ordering::Relaxed);
    }

    /// How many reads come before the one that fails; 0 once it has.
    #[doc(hidden)]
    pub fn reads_left(&self) -> u32 {
        self.faults.read.load(Ordering::Relaxed)
    }

    /// For tests of recovery: the `read`-th read of an object or a record from now on, counted from 1, fails.
    #[doc(hidden)]
    pub fn fail_read(&self, read: u32) {
        self.faults.read.store(read, Ordering::Relaxed);
    }
}

/// A folder in `tmp/` and the lock that says its process is alive.
#[derive(Debug)]
pub(super) struct Workspace {
    folder: TempDir,
    _lock: Lock,
}

impl Workspace {
    fn new(store: &Store) -> Result<Self, CacheError> {
        let tmp = store.root.join("tmp");
        store.make_folder(&tmp)?;
        // Held while folders are made and swept: a folder without a lock is a dead process's.
        let _sweeping = store.lock("tmp", &|| false, || {})?;
        for entry in std::fs::read_dir(&tmp).map_err(CacheError::io("read", &tmp))?.flatten() {
            let name = Self::lock_name(&entry.path());
            let lock = store.try_lock(&name)?;
            if lock.is_some() && !store.is_locked_otherwise(&name)? {
                // Whatever can't be removed now is tried again by the next process.
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        let folder = tempfile::Builder::new()
            .prefix("process-")
            .tempdir_in(&tmp)
            .map_err(CacheError::io("make a folder in", &tmp))?;
        let lock = store.lock(&Self::lock_name(folder.path()), &|| false, || {})?;
        Ok(Self { folder, _lock: lock })
    }

    fn lock_name(folder: &Path) -> String {
        folder.file_name().expect("a folder of `tmp/` has a name").to_string_lossy().into_owned()
    }
}

/// Makes a folder that may be there, and those above it that are not; the group may write in it if it is shared.
pub(super) fn make_folder(folder: &Path, is_shared: bool) -> Result<(), CacheError> {
    if folder.is_dir() {
        return Ok(());
    }
    folder.parent().map_or(Ok(()), |above| make_folder(above, is_shared))?;
    make_new_folder(folder, is_shared).map(|_| ())
}

/// Makes a folder in one that is there; gives whether it was not there before.
pub(super) fn make_new_folder(folder: &Path, is_shared: bool) -> Result<bool, CacheError> {
    match std::fs::create_dir(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(false),
        made => made.map_err(CacheError::io("make", folder))?,
    }
    if is_shared {
        // Not all at once: the user's mask takes the group's right to write away.
        open_folder(folder, is_shared)?;
    }
    Ok(true)
}

/// Lets others read a folder, and the group write in it if it is shared.
pub(super) fn open_folder(folder: &Path, is_shared: bool) -> Result<(), CacheError> {
    let mode = Permissions::from_mode(if is_shared { 0o2775 } else { 0o755 });
    std::fs::set_permissions(folder, mode).map_err(CacheError::io("make", folder))
}

impl Store {
    /// Where the folders of runs are.
    pub(crate) fn runs_folder(&self) -> PathBuf {
        self.root.join("runs")
    }

    /// A new folder for a run; `None` if the id is taken. With a read-only store it lies in the system's folder for temporary
    /// files.
    ///
    /// # Errors
    /// It can't be made.
    pub(crate) fn make_run_folder(&self, id: &str) -> Result<Option<PathBuf>, CacheError> {
        if self.is_read_only {
            let temporary = tempfile::Builder::new().prefix("tracetune-").disable_cleanup(true).tempdir();
            let temporary = temporary.map_err(CacheError::io("make a folder in", std::env::temp_dir()))?;
            let folder = temporary.path().join(id);
            return Ok(make_new_folder(&folder, false)?.then_some(folder));
        }
        let runs = self.runs_folder();
        self.make_folder(&runs)?;
        let folder = runs.join(id);
        Ok(make_new_folder(&folder, self.is_shared)?.then_some(folder))
    }

    pub(super) fn make_folder(&self, folder: &Path) -> Result<(), CacheError> {
        make_folder(folder, self.is_shared)
    }
}

fn sync_folder(folder: &Path) -> Result<(), CacheError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(CacheError::io("sync", folder))
}

/// Hashes and counts what it passes on, and keeps the first error.
struct HashingWriter<W: Write> {
    inner: W,
    hasher: blake3::Hasher,
    bytes: u64,
    error: Option<std::io::Error>,
}

impl<W: Write> HashingWriter<W> {
    fn new(inner: W) -> Self {
        Self { inner, hasher: blake3::Hasher::new(), bytes: 0, error: None }
    }

    fn finish(mut self) -> std::io::Result<(Digest, u64)> {
        match self.error {
            Some(error) => Err(error),
            None => self.inner.flush().map(|()| (self.hasher.finalize().into(), self.bytes)),
        }
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self.inner.write(bytes) {
            Ok(written) => {
                self.hasher.update(&bytes[..written]);
                self.bytes += written as u64;
                Ok(written)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let told = std::io::Error::from(error.kind());
                self.error.get_or_insert(error);
                Err(told)
            }
        }
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk that is full after so many bytes.
    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let written = bytes.len().min(self.0);
            self.0 -= written;
            if written == 0 { Err(ErrorKind::StorageFull.into()) } else { Ok(written) }
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_is_told_whoever_writes() {
        let batch = arrow::array::RecordBatch::new_empty(crate::table::schema_of(Vec::new()));
        let whole = crate::table::table_to_bytes(&batch).unwrap().len();
        for room in 0..whole {
            let mut writer = HashingWriter::new(Full(room));
            assert!(crate::table::write_table(&batch, &mut writer).is_err());
            assert_eq!(writer.finish().unwrap_err().kind(), ErrorKind::StorageFull, "room for {room}");
        }
    }
}
