//! Digests of large files outside the store, so that a run does not read gigabytes to learn that nothing changed.
//!
//! A file is known by its path and by what the file system says of it: device, inode, size, times of the last change
//! of its content and of its entry. Small files are read each time, which is as quick.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::{CacheError, Destination, Digest, Store};

/// Smaller files are not remembered.
const SMALLEST_BYTES: u64 = 1 << 20;

/// A file may change twice within the file system's time step: one that was changed just now is not trusted.
const YOUNGEST: Duration = Duration::from_secs(2);

/// What is known of files, and what was learnt since it was loaded.
#[derive(Debug, Default)]
pub(crate) struct KnownFiles {
    files: Mutex<Files>,
}

#[derive(Debug, Default)]
struct Files {
    by_path: BTreeMap<PathBuf, KnownFile>,
    learnt: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct KnownFile {
    identity: Identity,
    digest: Digest,
}

/// What the file system says of a file; seconds and nanoseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Identity {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Reads a file and hashes it.
pub(crate) fn digest_of_file(path: &Path) -> io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_mmap_rayon(path)?;
    Ok(hasher.finalize().into())
}

impl KnownFiles {
    /// The file's digest, read only if it is not known.
    pub(crate) fn digest(&self, path: &Path) -> io::Result<Digest> {
        let metadata = std::fs::metadata(path)?;
        if metadata.len() < SMALLEST_BYTES {
            return digest_of_file(path);
        }
        let identity = Identity::of(&metadata);
        let known = self.files.lock().ok().and_then(|files| files.by_path.get(path).cloned());
        if let Some(known) = known.filter(|known| known.identity == identity) {
            return Ok(known.digest);
        }
        let digest = digest_of_file(path)?;
        let is_old = metadata.modified().ok().and_then(|modified| SystemTime::now().duration_since(modified).ok());
        let is_same = Identity::of(&std::fs::metadata(path)?) == identity;
        if let (true, true, Ok(mut files)) = (is_same, is_old.is_some_and(|age| age > YOUNGEST), self.files.lock()) {
            files.by_path.insert(path.to_owned(), KnownFile { identity, digest });
            files.learnt = true;
        }
        Ok(digest)
    }
}

impl Store {
    /// What earlier runs learnt. Anything unreadable is unknown.
    pub(crate) fn known_files(&self) -> KnownFiles {
        let text = std::fs::read(self.known_files_path()).unwrap_or_default();
        let by_path = serde_json::from_slice(&text).unwrap_or_default();
        KnownFiles { files: Mutex::new(Files { by_path, learnt: false }) }
    }

    /// Keeps what was learnt.
    ///
    /// # Errors
    /// The store can't be written.
    pub(crate) fn keep_known_files(&self, known: &KnownFiles) -> Result<(), CacheError> {
        let Ok(files) = known.files.lock() else { return Ok(()) };
        if !files.learnt {
            return Ok(());
        }
        // A path that is not UTF-8 can't be written down: then nothing is remembered.
        let Ok(text) = serde_json::to_vec_pretty(&files.by_path) else { return Ok(()) };
        self.write_file(Destination::Telemetry(self.known_files_path()), &text)
    }

    fn known_files_path(&self) -> PathBuf {
        self.root().join("known-files.json")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_changes_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large");
        let store = Store::open(folder.path().join("store")).unwrap();
        let mut bytes = vec![0; SMALLEST_BYTES as usize];
        let long_ago = SystemTime::now() - Duration::from_secs(100);
        let mut digests = Vec::new();
        for round in 0..3_u8 {
            bytes[0] = round / 2;
            std::fs::write(&path, &bytes).unwrap();
            std::fs::File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
            let known = store.known_files();
            digests.push(known.digest(&path).unwrap());
            store.keep_known_files(&known).unwrap();
        }
        assert_eq!(digests[0], digests[1]);
        assert_ne!(digests[1], digests[2], "size and time of change are the same, the entry's time is not");
        assert_eq!(digests[2], digest_of_file(&path).unwrap());
    }

    #[test]
    fn a_file_that_did_not_change_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large");
        std::fs::write(&path, vec![1; SMALLEST_BYTES as usize]).unwrap();
        let known = KnownFiles::default();
        let told = Digest([7; 32]);
        let identity = Identity::of(&std::fs::metadata(&path).unwrap());
        known.files.lock().unwrap().by_path.insert(path.clone(), KnownFile { identity, digest: told });
        assert_eq!(known.digest(&path).unwrap(), told);
    }
}
