//! Digests of files and folders outside the store, so that a run does not read gigabytes to learn that nothing changed.
//!
//! They are known by their path and by what the file system says of them: of each file the device, inode, size, times of
//! the last change of its content and of its entry. Small files are read once by each process, which is as quick.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::files::Files;
use super::watched::WatchedFile;
use super::{CacheError, Destination, Digest, Store};

const FILE_NAME: &str = "known-files.json";
/// Smaller files are not remembered from run to run.
const SMALLEST_BYTES: u64 = 1 << 20;

/// What is known of files and folders, and what was learnt since it was loaded.
#[derive(Debug, Default)]
pub(crate) struct KnownFiles {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    file: KnownFilesFile,
    learnt: bool,
    /// Small files, for as long as this process runs: a program that a thousand stages start is read once.
    small: BTreeMap<PathBuf, KnownFile>,
}

impl Known {
    /// What is known of small files, or of large ones and folders.
    fn files(&mut self, are_small: bool) -> &mut BTreeMap<PathBuf, KnownFile> {
        if are_small { &mut self.small } else { &mut self.file.files }
    }
}

/// `known-files.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
struct KnownFilesFile {
    files: BTreeMap<PathBuf, KnownFile>,
    /// By path, then by question.
    #[serde(default)]
    facts: BTreeMap<PathBuf, BTreeMap<String, Fact>>,
}

/// What a program said of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Fact {
    /// Of the file that was asked.
    identity: Digest,
    answer: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct KnownFile {
    /// Over what the file system said.
    identity: Digest,
    digest: Digest,
}

impl KnownFiles {
    /// What runs with a store in this folder learnt. Anything unreadable is unknown.
    pub(crate) fn of_store(folder: &Path) -> Self {
        let text = std::fs::read(folder.join(FILE_NAME)).unwrap_or_default();
        let file = serde_json::from_slice(&text).unwrap_or_default();
        Self { known: Mutex::new(Known { file, ..Known::default() }) }
    }

    /// The digest of a file or a folder, read only if it is not known, and what it was when it was looked at.
    pub(crate) fn watched(&self, path: &Path) -> io::Result<(Digest, WatchedFile)> {
        let files = Files::at(path)?;
        let digest = self.digest_of(path, &files)?;
        Ok((digest, WatchedFile::new(path, &files, Some(digest))?))
    }

    /// The answer to a question about a file, asked only if it is not known.
    pub(crate) fn fact<E: From<io::Error>>(
        &self,
        path: &Path,
        question: &str,
        ask: impl FnOnce() -> Result<String, E>,
    ) -> Result<String, E> {
        let files = Files::at(path)?;
        let identity = files.identity();
        let known = self.known.lock().ok().and_then(|known| known.file.facts.get(path)?.get(question).cloned());
        if let Some(known) = known.filter(|known| known.identity == identity) {
            return Ok(known.answer);
        }
        let answer = ask()?;
        let is_same = Files::at(path)?.identity() == identity;
        if let (true, true, Ok(mut known)) = (is_same, files.are_old(), self.known.lock()) {
            let fact = Fact { identity, answer: answer.clone() };
            let facts = known.file.facts.entry(path.to_owned()).or_default();
            facts.retain(|_, known| known.identity == identity);
            facts.insert(question.to_owned(), fact);
            known.learnt = true;
        }
        Ok(answer)
    }

    /// The digest of a file or a folder, read only if it is not known.
    #[cfg(test)]
    fn digest(&self, path: &Path) -> io::Result<Digest> {
        self.digest_of(path, &Files::at(path)?)
    }

    fn digest_of(&self, path: &Path, files: &Files) -> io::Result<Digest> {
        let is_small = files.is_one() && files.bytes() < SMALLEST_BYTES;
        let identity = files.identity();
        let known = self.known.lock().ok().and_then(|mut known| known.files(is_small).get(path).cloned());
        if let Some(known) = known.filter(|known| known.identity == identity) {
            return Ok(known.digest);
        }
        let digest = files.digest()?;
        let is_same = Files::at(path)?.identity() == identity;
        if let (true, true, Ok(mut known)) = (is_same, files.are_old(), self.known.lock()) {
            known.files(is_small).insert(path.to_owned(), KnownFile { identity, digest });
            known.learnt |= !is_small;
        }
        Ok(digest)
    }
}

impl Store {
    /// What earlier runs learnt. Anything unreadable is unknown.
    pub(crate) fn known_files(&self) -> KnownFiles {
        KnownFiles::of_store(&self.root)
    }

    /// Keeps what was learnt.
    ///
    /// # Errors
    /// The store can't be written.
    pub(crate) fn keep_known_files(&self, known: &KnownFiles) -> Result<(), CacheError> {
        let Ok(known) = known.known.lock() else { return Ok(()) };
        if !known.learnt || self.is_read_only {
            return Ok(());
        }
        // A path that is not UTF-8 can't be written down: then nothing is remembered.
        let Ok(text) = serde_json::to_vec_pretty(&known.file) else { return Ok(()) };
        self.write_file(Destination::Telemetry(self.known_files_path()), &text)
    }

    fn known_files_path(&self) -> PathBuf {
        self.root.join(FILE_NAME)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

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
        assert_eq!(digests[2], Files::at(&path).unwrap().digest().unwrap());
    }

    #[test]
    fn a_file_that_did_not_change_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large");
        std::fs::write(&path, vec![1; SMALLEST_BYTES as usize]).unwrap();
        let known = KnownFiles::default();
        let told = Digest([7; 32]);
        let identity = Files::at(&path).unwrap().identity();
        known.known.lock().unwrap().file.files.insert(path.clone(), KnownFile { identity, digest: told });
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
        assert_ne!(more, Files::at(folder.path()).unwrap().digest().unwrap());
    }
}
