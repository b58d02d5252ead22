//! Objects: immutable files named by the blake3 of their bytes.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

use super::file::Destination;
use super::{CacheError, Digest, OutputRecord, OutputType, Store};
use crate::table::{self, TableFile, TableWriter};

impl Store {
    pub(super) fn object_path(&self, digest: &Digest) -> PathBuf {
        self.fanned("objects", &digest.to_string())
    }

    /// Stores a table.
    ///
    /// # Errors
    /// The disk is full, or the store can't be written; nothing is kept then.
    pub fn put_table(&self, batch: &RecordBatch) -> Result<OutputRecord, CacheError> {
        self.put_pieces(&batch.schema(), |writer| Ok(writer.write(batch)?))
    }

    /// Stores a table whose pieces `fill` writes, in a few megabytes of memory.
    ///
    /// # Errors
    /// As [`Store::put_table`], or what `fill` fails with.
    pub(crate) fn put_pieces<E: From<CacheError>>(
        &self,
        schema: &Schema,
        fill: impl FnOnce(&mut TableWriter<&mut (dyn Write + Send)>) -> Result<(), E>,
    ) -> Result<OutputRecord, E> {
        let mut rows = 0;
        let (digest, bytes) = self.commit(Destination::Object, |file| {
            let mut writer = TableWriter::new(schema, file).map_err(CacheError::from)?;
            fill(&mut writer)?;
            rows = writer.finish().map_err(CacheError::from)?;
            Ok::<(), E>(())
        })?;
        Ok(OutputRecord { digest, output_type: OutputType::Table, rows, bytes, files: Vec::new() })
    }

    /// Stores bytes.
    ///
    /// # Errors
    /// As [`Store::put_table`].
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<Digest, CacheError> {
        let fill =
            |writer: &mut (dyn Write + Send)| writer.write_all(bytes).map_err(CacheError::io("write in", &self.root));
        self.commit(Destination::Object, fill).map(|(digest, _)| digest)
    }

    /// Waits until an object's bytes are on the disk. Its name follows with the record that needs it, and a record whose
    /// object a power cut took away counts as none.
    pub(super) fn sync_object(&self, digest: &Digest) -> Result<(), CacheError> {
        let path = self.object_path(digest);
        File::open(&path).and_then(|object| object.sync_all()).map_err(CacheError::io("sync", path))
    }

    /// Reads a table.
    ///
    /// # Errors
    /// [`CacheError::Lost`] if the object is missing or damaged.
    pub fn table(&self, digest: &Digest) -> Result<RecordBatch, CacheError> {
        Ok(table::table_from_bytes(self.bytes(digest)?)?)
    }

    /// Opens a table to be read piece by piece, after its bytes were checked.
    ///
    /// # Errors
    /// [`CacheError::Lost`] if the object is missing or damaged.
    pub fn table_file(&self, digest: &Digest) -> Result<TableFile, CacheError> {
        Ok(TableFile::open(self.checked_path(digest)?)?)
    }

    /// Where an object is, after its bytes were checked.
    ///
    /// # Errors
    /// As [`Store::table_file`].
    pub(crate) fn checked_path(&self, digest: &Digest) -> Result<PathBuf, CacheError> {
        let path = self.object_path(digest);
        let was_there = path.is_file();
        if self.is_sound(digest)? { Ok(path) } else { Err(CacheError::Lost { digest: *digest, damaged: was_there }) }
    }

    /// Reads an object. Bytes that do not have its name's digest are put aside.
    ///
    /// # Errors
    /// [`CacheError::Lost`] if it is missing or damaged.
    pub fn bytes(&self, digest: &Digest) -> Result<Vec<u8>, CacheError> {
        let path = self.object_path(digest);
        let bytes = match self.faults.next_read().and_then(|()| std::fs::read(&path)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(CacheError::Lost { digest: *digest, damaged: false });
            }
            Err(error) => return Err(CacheError::io("read", path)(error)),
        };
        if Digest::from(blake3::hash(&bytes)) == *digest {
            return Ok(bytes);
        }
        self.put_aside(digest)?;
        Err(CacheError::Lost { digest: *digest, damaged: true })
    }

    /// Links or copies an object of another store.
    pub(super) fn take_object(&self, from: &Self, digest: &Digest) -> Result<(), CacheError> {
        let (source, target) = (from.object_path(digest), self.object_path(digest));
        if target.is_file() {
            return Ok(());
        }
        self.make_folder(target.parent().unwrap_or(&self.root))?;
        if std::fs::hard_link(&source, &target).is_ok() {
            return Ok(());
        }
        self.put_bytes(&from.bytes(digest)?).map(|_| ())
    }

    /// Whether the object is there, whatever its bytes.
    pub(super) fn has_object(&self, digest: &Digest) -> bool {
        self.object_path(digest).is_file()
    }

    /// Whether the object is there with that size. Does not read it: cheap enough for every run.
    pub fn holds(&self, digest: &Digest, bytes: u64) -> bool {
        std::fs::metadata(self.object_path(digest)).is_ok_and(|metadata| metadata.len() == bytes)
    }

    /// Reads an object's bytes and says whether they are its own; damaged ones are put aside.
    ///
    /// # Errors
    /// It can't be read or put aside.
    pub(super) fn is_sound(&self, digest: &Digest) -> Result<bool, CacheError> {
        let path = self.object_path(digest);
        let mut hasher = blake3::Hasher::new();
        let read = self.faults.next_read().and_then(|()| hasher.update_mmap_rayon(&path).map(|_| ()));
        match read.map(|()| &hasher).map(|hasher| Digest::from(hasher.finalize())) {
            Ok(found) if found == *digest => Ok(true),
            Ok(_) => self.put_aside(digest).map(|()| false),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(CacheError::io("read", path)(error)),
        }
    }

    /// Takes an object out of `objects/` without destroying the evidence.
    fn put_aside(&self, digest: &Digest) -> Result<(), CacheError> {
        if self.is_read_only {
            return Ok(());
        }
        let folder = self.root.join("damaged");
        self.make_folder(&folder)?;
        let path = self.object_path(digest);
        tracing::warn!(path = %path.display(), "the bytes of an object are not its own: it is put aside");
        rename_if_there(&path, &folder.join(digest.to_string()))
    }
}

fn rename_if_there(from: &Path, to: &Path) -> Result<(), CacheError> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(CacheError::io("move", from)(error)),
        _ => Ok(()),
    }
}
