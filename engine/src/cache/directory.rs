//! Directories as objects: each file one object, and a manifest object that names them.

use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::file::{Destination, open_folder};
use super::watched::Stamp;
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

    /// Whether a file of an unpacked directory is there with its bytes.
    fn is_unpacked(&self, folder: &Path, file: &FileRecord) -> bool {
        let path = folder.join(&file.path);
        let Ok(stamp) = std::fs::metadata(&path).map(|metadata| Stamp::from(&metadata)) else { return false };
        if self.checked.lock().is_ok_and(|checked| checked.get(&path) == Some(&stamp)) {
            return true;
        }
        let mut hasher = blake3::Hasher::new();
        let is_whole = self.faults.next_read().is_ok()
            && hasher.update_mmap_rayon(&path).is_ok_and(|hasher| Digest::from(hasher.finalize()) == file.digest);
        if let (true, Ok(mut checked)) = (is_whole, self.checked.lock()) {
            checked.insert(path, stamp);
        }
        is_whole
    }

    /// Removes unpacked directories that are not what they should be: they are unpacked again when they are used. Gives
    /// how many there were.
    pub(super) fn remove_damaged_directories(&self) -> Result<u64, CacheError> {
        let mut removed = 0;
        if let Ok(mut checked) = self.checked.lock() {
            checked.clear();
        }
        for entry in std::fs::read_dir(self.root.join("models")).into_iter().flatten().flatten() {
            let digest: Option<Digest> = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let manifest = digest.and_then(|digest| self.bytes(&digest).ok());
            let manifest = manifest.and_then(|bytes| serde_json::from_slice::<Manifest>(&bytes).ok());
            let is_sound = manifest
                .is_some_and(|manifest| manifest.files.iter().all(|file| self.is_unpacked(&entry.path(), file)));
            if !is_sound {
                if !self.is_read_only {
                    std::fs::remove_dir_all(entry.path()).map_err(CacheError::io("remove", entry.path()))?;
                }
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// A read-only folder with a directory's files. Every file is checked when it is used first, and again when the file
    /// system says that it changed.
    ///
    /// # Errors
    /// [`CacheError::Lost`] if an object is missing or damaged.
    pub fn directory(&self, digest: &Digest) -> Result<PathBuf, CacheError> {
        let manifest = self.bytes(digest)?;
        let manifest: Manifest =
            serde_json::from_slice(&manifest).map_err(|_| CacheError::Lost { digest: *digest, damaged: true })?;
        let folder = self.root.join("models").join(digest.to_string());
        if folder.is_dir() && manifest.files.iter().all(|file| self.is_unpacked(&folder, file)) {
            return Ok(folder);
        }
        let staged = self.scratch()?;
        for file in &manifest.files {
            if !self.is_sound(&file.digest)? {
                return Err(CacheError::Lost { digest: file.digest, damaged: true });
            }
            let (object, path) = (self.object_path(&file.digest), staged.path().join(&file.path));
            self.make_folder(path.parent().expect("it lies below the staged folder"))?;
            if std::fs::hard_link(&object, &path).is_err() {
                std::fs::copy(&object, &path).map_err(CacheError::io("write", &path))?;
                std::fs::set_permissions(&path, Permissions::from_mode(0o444))
                    .map_err(CacheError::io("write", &path))?;
            }
        }
        self.make_folder(&self.root.join("models"))?;
        // The scratch folder it was made in is for its process alone.
        open_folder(staged.path(), self.is_shared)?;
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
