//! Digests of files and folders outside the store, so that a run does not read gigabytes to learn that nothing changed.
//!
//! They are known by their path and by what the file system says of them: of each file the device, inode, size, times of
//! the last change of its content and of its entry. Small files alone are read each time, which is as quick.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{CacheError, Destination, Digest, Store};

/// Smaller files are not remembered.
const SMALLEST_BYTES: u64 = 1 << 20;

/// A file may change twice within the file system's time step: one that was changed just now is not trusted.
const YOUNGEST: Duration = Duration::from_secs(2);

/// What is known of files and folders, and what was learnt since it was loaded.
#[derive(Debug, Default)]
pub(crate) struct KnownFiles {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_path: BTreeMap<PathBuf, KnownFile>,
    learnt: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct KnownFile {
    /// Over what the file system said.
    identity: Digest,
    digest: Digest,
}

/// The files at a path: one, or those of a folder and its folders, sorted by their path from it.
struct Files {
    folder: bool,
    files: Vec<(PathBuf, Metadata)>,
}

impl Files {
    fn at(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        if !metadata.is_dir() {
            return Ok(Self { folder: false, files: vec![(path.to_owned(), metadata)] });
        }
        let (mut files, mut folders) = (Vec::new(), vec![path.to_owned()]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    folders.push(entry.path());
                    continue;
                }
                let metadata = std::fs::metadata(entry.path())?;
                if metadata.is_dir() {
                    let message = format!("`{}` is a link to a folder", entry.path().display());
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
                }
                files.push((entry.path(), metadata));
            }
        }
        files.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(Self { folder: true, files })
    }

    /// Changes whenever the file system says that a file did.
    fn identity(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        for (path, metadata) in &self.files {
            hasher.update(path.as_os_str().as_bytes());
            for number in [metadata.dev(), metadata.ino(), metadata.len()] {
                hasher.update(&number.to_le_bytes());
            }
            for time in [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()] {
                hasher.update(&time.to_le_bytes());
            }
        }
        hasher.finalize().into()
    }

    /// Over the bytes of the file; for a folder, over its files' paths and digests.
    fn digest(&self, path: &Path) -> io::Result<Digest> {
        if !self.folder {
            return digest_of_one(path);
        }
        let digests: Vec<Digest> =
            self.files.par_iter().map(|(file, _)| digest_of_one(file)).collect::<io::Result<_>>()?;
        let mut hasher = blake3::Hasher::new();
        for ((file, _), digest) in self.files.iter().zip(digests) {
            let name = file.strip_prefix(path).unwrap_or(file).as_os_str().as_bytes();
            hasher.update(&(name.len() as u64).to_le_bytes()).update(name).update(&digest.0);
        }
        Ok(hasher.finalize().into())
    }

    fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, metadata)| metadata.len()).sum()
    }

    fn are_old(&self) -> bool {
        let now = SystemTime::now();
        let age = |metadata: &Metadata| metadata.modified().ok().and_then(|modified| now.duration_since(modified).ok());
        self.files.iter().all(|(_, metadata)| age(metadata).is_some_and(|age| age > YOUNGEST))
    }
}

fn digest_of_one(path: &Path) -> io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_mmap_rayon(path)?;
    Ok(hasher.finalize().into())
}

/// Reads a file, or all files of a folder, and hashes them.
#[cfg(test)]
fn digest_of_path(path: &Path) -> io::Result<Digest> {
    Files::at(path)?.digest(path)
}

/// A file or a folder that a key was made of, as it was then.
#[derive(Clone, Debug)]
pub(crate) struct WatchedFile {
    path: PathBuf,
    files: Vec<(PathBuf, Stamp)>,
    /// Of its content, where that is known.
    digest: Option<Digest>,
    /// Whether a further change could have left the times as they are.
    is_young: bool,
}

/// What the file system says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    inode: (u64, u64),
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self {
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            inode: (metadata.dev(), metadata.ino()),
        }
    }
}

impl WatchedFile {
    /// Looks at a file or folder. The look comes before its bytes are read for `digest`, so that whatever changes in
    /// between is noticed.
    fn new(path: &Path, files: &Files, digest: Option<Digest>) -> io::Result<Self> {
        let is_young = !files.are_old();
        let digest = match digest {
            None if is_young => Some(files.digest(path)?),
            digest => digest,
        };
        let files = files.files.iter().map(|(path, metadata)| (path.clone(), metadata.into())).collect();
        Ok(Self { path: path.to_owned(), files, digest, is_young })
    }

    /// Looks at a file or folder whose bytes are not part of a key.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        Self::new(path, &Files::at(path)?, None)
    }

    /// The file that changed since, with certainty or possibly: a file that was written again with the same bytes counts,
    /// as it may have had others in between. `None` if what was read since then are the bytes that the key is made of.
    pub(crate) fn changed(&self) -> Option<PathBuf> {
        let Ok(files) = Files::at(&self.path) else { return Some(self.path.clone()) };
        let now: Vec<(PathBuf, Stamp)> =
            files.files.iter().map(|(path, metadata)| (path.clone(), metadata.into())).collect();
        let written = |&(then, now): &(&(PathBuf, Stamp), &(PathBuf, Stamp))| {
            then.0 != now.0 || then.1.bytes != now.1.bytes || then.1.modified != now.1.modified
        };
        if let Some((then, _)) = self.files.iter().zip(&now).find(written) {
            return Some(then.0.clone());
        }
        if let Some((path, _)) = longer(&self.files, &now) {
            return Some(path.clone());
        }
        if now == self.files && !self.is_young {
            return None;
        }
        // Linking a file or setting its mode changes it in name only; but so does giving it back its former time.
        let is_same = self.digest.is_some_and(|digest| files.digest(&self.path).is_ok_and(|now| now == digest));
        (!is_same).then(|| self.path.clone())
    }
}

/// The first entry by which one list is longer than the other.
fn longer<'a, T>(one: &'a [T], other: &'a [T]) -> Option<&'a T> {
    let shared = one.len().min(other.len());
    one[shared..].iter().chain(&other[shared..]).next()
}

impl KnownFiles {
    /// The digest of a file or a folder, read only if it is not known, and what it was when it was looked at.
    pub(crate) fn watched(&self, path: &Path) -> io::Result<(Digest, WatchedFile)> {
        let files = Files::at(path)?;
        let digest = self.digest_of(path, &files)?;
        Ok((digest, WatchedFile::new(path, &files, Some(digest))?))
    }

    /// The digest of a file or a folder, read only if it is not known.
    #[cfg(test)]
    fn digest(&self, path: &Path) -> io::Result<Digest> {
        self.digest_of(path, &Files::at(path)?)
    }

    fn digest_of(&self, path: &Path, files: &Files) -> io::Result<Digest> {
        if !files.folder && files.bytes() < SMALLEST_BYTES {
            return files.digest(path);
        }
        let identity = files.identity();
        let known = self.known.lock().ok().and_then(|known| known.by_path.get(path).cloned());
        if let Some(known) = known.filter(|known| known.identity == identity) {
            return Ok(known.digest);
        }
        let digest = files.digest(path)?;
        let is_same = Files::at(path)?.identity() == identity;
        if let (true, true, Ok(mut known)) = (is_same, files.are_old(), self.known.lock()) {
            known.by_path.insert(path.to_owned(), KnownFile { identity, digest });
            known.learnt = true;
        }
        Ok(digest)
    }
}

impl Store {
    /// What earlier runs learnt. Anything unreadable is unknown.
    pub(crate) fn known_files(&self) -> KnownFiles {
        let text = std::fs::read(self.known_files_path()).unwrap_or_default();
        let by_path = serde_json::from_slice(&text).unwrap_or_default();
        KnownFiles { known: Mutex::new(Known { by_path, learnt: false }) }
    }

    /// Keeps what was learnt.
    ///
    /// # Errors
    /// The store can't be written.
    pub(crate) fn keep_known_files(&self, known: &KnownFiles) -> Result<(), CacheError> {
        let Ok(known) = known.known.lock() else { return Ok(()) };
        if !known.learnt {
            return Ok(());
        }
        // A path that is not UTF-8 can't be written down: then nothing is remembered.
        let Ok(text) = serde_json::to_vec_pretty(&known.by_path) else { return Ok(()) };
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
        assert_eq!(digests[2], digest_of_path(&path).unwrap());
    }

    #[test]
    fn a_file_that_did_not_change_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large");
        std::fs::write(&path, vec![1; SMALLEST_BYTES as usize]).unwrap();
        let known = KnownFiles::default();
        let told = Digest([7; 32]);
        let identity = Files::at(&path).unwrap().identity();
        known.known.lock().unwrap().by_path.insert(path.clone(), KnownFile { identity, digest: told });
        assert_eq!(known.digest(&path).unwrap(), told);
    }

    #[test]
    fn a_folder_is_the_names_and_bytes_of_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
            KnownFiles::default().digest(folder.path()).unwrap()
        };
        let before = file("a/b", "1");
        let more = file("c", "2");
        assert_ne!(before, more);
        assert_ne!(more, file("c", "3"));
        assert_eq!(more, file("c", "2"));
        std::fs::rename(folder.path().join("a/b"), folder.path().join("a/d")).unwrap();
        assert_ne!(more, digest_of_path(folder.path()).unwrap());
        std::os::unix::fs::symlink(folder.path(), folder.path().join("a/round")).unwrap();
        assert!(digest_of_path(folder.path()).unwrap_err().to_string().ends_with("is a link to a folder"));
    }
}
