//! Directories as objects: each file one object, and a manifest object that names them.

use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::file::{Destination, make_folder};
use super::{CacheError, Digest, FileRecord, OutputRecord, OutputType, Store};

/// The manifest: JSON, its files sorted by path.
#[derive(Serialize, Deserialize)]
struct Manifest {
    files: Vec<FileRecord>,
}

impl Store {
    /// Stores a directory's files, subdirectories included; links are followed. What can't be stored, like a
    /// socket, is an error.
    ///
    /// # Errors
    /// A file can't be read, the disk is full, or the store can't be written.
    pub fn put_directory(&self, folder: &Path, output_type: OutputType) -> Result<OutputRecord, CacheError> {
        let mut files = Vec::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(relative) = folders.pop() {
            let path = folder.join(&relative);
            for entry in std::fs::read_dir(&path).map_err(CacheError::io("read", &path))? {
                let name = entry.map_err(CacheError::io("read", &path))?.file_name();
                let relative = relative.join(name);
                let path = folder.join(&relative);
                let metadata = std::fs::metadata(&path).map_err(CacheError::io("read", &path))?;
                if metadata.is_dir() {
                    folders.push(relative);
                } else {
                    files.push(self.put_file(&path, &relative)?);
                }
            }
        }
        files.sort();
        let bytes = files.iter().map(|file| file.bytes).sum();
        let manifest = serde_json::to_vec(&Manifest { files: files.clone() }).expect("a manifest is plain data");
        let digest = self.put_bytes(&manifest)?;
        Ok(OutputRecord { digest, output_type, rows: 0, bytes, files })
    }

    fn put_file(&self, path: &Path, relative: &Path) -> Result<FileRecord, CacheError> {
        let mut file = File::open(path).map_err(CacheError::io("read", path))?;
        let fill = |writer: &mut (dyn Write + Send)| {
            std::io::copy(&mut file, writer).map(|_| ()).map_err(CacheError::io("copy", path))
        };
        let (digest, bytes) = self.commit(Destination::Object, fill)?;
        let parts: Option<Vec<&str>> = relative.iter().map(|part| part.to_str()).collect();
        let not_text = || std::io::Error::other("its name is not UTF-8");
        let path = parts.ok_or_else(|| CacheError::io("store", path)(not_text()))?.join("/");
        Ok(FileRecord { path, bytes, digest })
    }

    /// A read-only folder with a directory's files. Every file is checked when the folder is made; later only that
    /// it is there with its size.
    ///
    /// # Errors
    /// [`CacheError::Lost`] if an object is missing or damaged.
    pub fn directory(&self, digest: &Digest) -> Result<PathBuf, CacheError> {
        let manifest = self.bytes(digest)?;
        let manifest: Manifest =
            serde_json::from_slice(&manifest).map_err(|_| CacheError::Lost { digest: *digest, damaged: true })?;
        let folder = self.root.join("models").join(digest.to_string());
        let whole = |file: &FileRecord| {
            std::fs::metadata(folder.join(&file.path)).is_ok_and(|metadata| metadata.len() == file.bytes)
        };
        if folder.is_dir() && manifest.files.iter().all(whole) {
            return Ok(folder);
        }
        let staged = self.scratch()?;
        for file in &manifest.files {
            if !self.is_sound(&file.digest)? {
                return Err(CacheError::Lost { digest: file.digest, damaged: true });
            }
            let (object, path) = (self.object_path(&file.digest), staged.path().join(&file.path));
            make_folder(path.parent().expect("it lies below the staged folder"))?;
            if std::fs::hard_link(&object, &path).is_err() {
                std::fs::copy(&object, &path).map_err(CacheError::io("write", &path))?;
                std::fs::set_permissions(&path, Permissions::from_mode(0o444))
                    .map_err(CacheError::io("write", &path))?;
            }
        }
        make_folder(&self.root.join("models"))?;
        if folder.is_dir() {
            std::fs::rename(&folder, self.workspace()?.join(format!("old-{digest}")))
                .map_err(CacheError::io("move", &folder))?;
        }
        match std::fs::rename(staged.path(), &folder) {
            // Another process was quicker: what it made is the same.
            Err(_) if folder.is_dir() => Ok(folder),
            Err(error) => Err(CacheError::io("make", folder)(error)),
            Ok(()) => Ok(folder),
        }
    }
}
