//! Files that a key was made of, as they were then: what was computed meanwhile counts only if none of them changed.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Digest;
use super::files::{Files, Listing};

/// A file or a folder that a key was made of, as it was then.
#[derive(Clone, Debug)]
pub(crate) struct WatchedFile {
    path: PathBuf,
    files: Vec<(PathBuf, Stamp)>,
    /// Of its content, where that is known.
    digest: Option<Digest>,
    /// Whether a further change could have left the times as they are.
    is_young: bool,
    /// Whether it is a folder, or several files by a glob.
    is_folder: bool,
}

/// What the file system says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
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

impl Stamp {
    /// Hashes it: another stamp, another hash.
    pub(super) fn add_to(&self, hasher: &mut blake3::Hasher) {
        let Self { bytes, modified, changed, inode } = *self;
        for number in [inode.0, inode.1, bytes] {
            hasher.update(&number.to_le_bytes());
        }
        for time in [modified.0, modified.1, changed.0, changed.1] {
            hasher.update(&time.to_le_bytes());
        }
    }
}

impl WatchedFile {
    /// Looks at a file or folder. The look comes before its bytes are read for `digest`, so that whatever changes in
    /// between is noticed.
    pub(super) fn new(path: &Path, files: &Files, digest: Option<Digest>) -> io::Result<Self> {
        let is_young = !files.are_old();
        let digest = match digest {
            None if is_young => Some(files.digest()?),
            digest => digest,
        };
        let is_folder = !files.is_one();
        let files = files.files.iter().map(|found| (found.path.clone(), (&found.metadata).into())).collect();
        Ok(Self { path: path.to_owned(), files, digest, is_young, is_folder })
    }

    /// Looks at a file or folder whose bytes are not part of a key.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        Self::new(path, &Files::at(path)?, None)
    }

    /// The digest of a folder that is part of a key; `None` for a file.
    pub(crate) fn folder_digest(&self) -> Option<Digest> {
        self.digest.filter(|_| self.is_folder)
    }

    /// What the folder holds now.
    pub(crate) fn listing(&self) -> io::Result<Listing> {
        Files::at(&self.path)?.listing()
    }

    /// The file that changed since, with certainty or possibly: a file that was written again with the same bytes counts,
    /// as it may have had others in between. `None` if what was read since then are the bytes that the key is made of.
    pub(crate) fn changed(&self) -> Option<PathBuf> {
        let Ok(files) = Files::at(&self.path) else { return Some(self.path.clone()) };
        let now: Vec<(PathBuf, Stamp)> =
            files.files.iter().map(|found| (found.path.clone(), (&found.metadata).into())).collect();
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
        let is_same = self.digest.is_some_and(|digest| files.digest().is_ok_and(|now| now == digest));
        (!is_same).then(|| self.path.clone())
    }
}

/// The first entry by which one list is longer than the other.
fn longer<'a, T>(one: &'a [T], other: &'a [T]) -> Option<&'a T> {
    let shared = one.len().min(other.len());
    one[shared..].iter().chain(&other[shared..]).next()
}
