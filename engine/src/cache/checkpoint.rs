//! What a long stage keeps to go on after an interruption: a hint, which may be missing or damaged.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file::{Faults, Target, write_whole};
use super::{ActionKey, CacheError, Digest, Store};

/// Checkpoints of one stage under one key. Each is one file, `NUMBER-DIGEST`: the digest is of its bytes.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    /// Where files are written before they are moved.
    workspace: PathBuf,
    faults: Arc<Faults>,
    is_shared: bool,
}

/// Generations that are kept: the last one, and the one before should the last be damaged.
const KEPT: usize = 2;

impl Checkpoint {
    /// Checkpoints in a folder of their own, outside a store.
    pub fn in_folder(folder: &Path) -> Self {
        let workspace = folder.to_owned();
        Self { folder: folder.to_owned(), workspace, faults: Arc::default(), is_shared: false }
    }

    /// Keeps bytes in the place of those kept before: whole or not at all.
    ///
    /// # Errors
    /// The disk is full, or the folder can't be written.
    pub fn save(&self, bytes: &[u8]) -> std::io::Result<()> {
        let generations = self.generations();
        let number = generations.first().map_or(0, |generation| generation.number) + 1;
        std::fs::create_dir_all(&self.workspace)?;
        let target = |digest: &Digest| Target {
            path: self.folder.join(format!("{number:08}-{digest}")),
            mode: 0o644,
            synced: true,
            is_shared: self.is_shared,
        };
        let fill = |writer: &mut (dyn Write + Send)| {
            writer.write_all(bytes).map_err(CacheError::io("write in", &self.workspace))
        };
        write_whole(&self.workspace, &self.faults, target, fill).map_err(std::io::Error::other)?;
        for old in generations.iter().skip(KEPT - 1) {
            // One too many costs a little room.
            let _ = std::fs::remove_file(&old.path);
        }
        Ok(())
    }

    /// The newest checkpoint that `read` can use, and why newer ones were not used.
    pub fn load<T>(&self, read: impl Fn(&[u8]) -> Result<T, String>) -> (Option<T>, Vec<String>) {
        let mut problems = Vec::new();
        for generation in self.generations() {
            let found = self.faults.next_read().and_then(|()| std::fs::read(&generation.path));
            let read = match found {
                Ok(bytes) if Digest::from(blake3::hash(&bytes)) != generation.digest => Err("it is damaged".to_owned()),
                Ok(bytes) => read(&bytes),
                Err(error) => Err(error.to_string()),
            };
            match read {
                Ok(found) => return (Some(found), problems),
                Err(problem) => problems.push(format!("checkpoint {} can't be used: {problem}", generation.number)),
            }
        }
        (None, problems)
    }

    /// Whose bytes are not theirs any more.
    pub(super) fn damaged(&self) -> Vec<PathBuf> {
        let is_damaged = |generation: &Generation| {
            std::fs::read(&generation.path).is_ok_and(|bytes| Digest::from(blake3::hash(&bytes)) != generation.digest)
        };
        self.generations().into_iter().filter(is_damaged).map(|generation| generation.path).collect()
    }

    /// Takes all away.
    ///
    /// # Errors
    /// They can't be removed.
    pub(crate) fn remove(&self) -> Result<(), CacheError> {
        match std::fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(CacheError::io("remove", &self.folder)(error)),
            _ => Ok(()),
        }
    }

    /// The newest first. Other files, e.g. of an older version, are none.
    fn generations(&self) -> Vec<Generation> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut found: Vec<Generation> = entries
            .filter_map(|entry| {
                let name = entry.file_name();
                let (number, digest) = name.to_str()?.split_once('-')?;
                Some(Generation { number: number.parse().ok()?, digest: digest.parse().ok()?, path: entry.path() })
            })
            .collect();
        found.sort_by_key(|generation| std::cmp::Reverse(generation.number));
        found
    }
}

struct Generation {
    number: u64,
    digest: Digest,
    path: PathBuf,
}

impl Store {
    /// The checkpoints of an action.
    ///
    /// # Errors
    /// The store can't be written.
    pub(crate) fn checkpoint(&self, key: &ActionKey) -> Result<Checkpoint, CacheError> {
        Ok(Checkpoint {
            folder: self.root.join("checkpoints").join(key.to_string()),
            workspace: self.workspace()?.to_owned(),
            faults: Arc::clone(&self.faults),
            is_shared: self.is_shared,
        })
    }

    /// Removes damaged checkpoints; gives how many there were.
    pub(super) fn remove_damaged_checkpoints(&self) -> Result<u64, CacheError> {
        let entries = std::fs::read_dir(self.root.join("checkpoints")).into_iter().flatten().flatten();
        let mut removed = 0;
        for path in entries.flat_map(|entry| Checkpoint::in_folder(&entry.path()).damaged()) {
            if !self.is_read_only {
                std::fs::remove_file(&path).map_err(CacheError::io("remove", path))?;
            }
            removed += 1;
        }
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> Result<String, String> {
        String::from_utf8(bytes.to_vec()).map_err(|_| "it is no text".to_owned())
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    #[test]
    fn the_last_one_is_loaded_and_two_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = Checkpoint::in_folder(folder.path());
        assert_eq!(checkpoint.load(text), (None, Vec::new()));
        for word in ["one", "two", "three"] {
            checkpoint.save(word.as_bytes()).unwrap();
            assert_eq!(checkpoint.load(text).0.as_deref(), Some(word));
        }
        assert_eq!(files(folder.path()).len(), 2);
    }

    #[test]
    fn a_damaged_one_is_passed_over_and_told() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = Checkpoint::in_folder(folder.path());
        checkpoint.save(b"one").unwrap();
        checkpoint.save(b"two").unwrap();
        for damage in [&b"twp"[..], b"tw", b"", b"two more"] {
            std::fs::write(&files(folder.path())[1], damage).unwrap();
            let (found, problems) = checkpoint.load(text);
            assert_eq!(found.as_deref(), Some("one"));
            assert_eq!(problems, ["checkpoint 2 can't be used: it is damaged"]);
        }
    }

    #[test]
    fn one_that_its_reader_refuses_is_no_better() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = Checkpoint::in_folder(folder.path());
        checkpoint.save(b"\xff").unwrap();
        std::fs::write(folder.path().join("trainer.safetensors"), "of an older version").unwrap();
        assert_eq!(checkpoint.load(text), (None, vec!["checkpoint 1 can't be used: it is no text".to_owned()]));
    }
}
