//! Looking after the store: verifying every object, and clearing out what no root needs.

use std::collections::HashSet;
use std::fs::Metadata;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::SystemTime;

use serde::Serialize;

use super::{ActionKey, ActionRecord, CacheError, Digest, KeyPart, PartGroup, Pointer, Segment, Signature, Store};

/// What [`Store::clear`] must leave alone.
#[derive(Clone, Debug)]
pub struct Roots {
    /// These actions, with their outputs.
    pub actions: HashSet<ActionKey>,
    /// All segments under these signatures.
    pub signatures: HashSet<Signature>,
    /// Every record that was written since then, with what it names.
    pub since: SystemTime,
}

/// What [`Store::clear`] took away, or would.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cleared {
    /// Records of actions, segments and recipes.
    pub records: u64,
    /// Objects.
    pub objects: u64,
    /// The objects' size.
    pub bytes: u64,
}

/// What [`Store::verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Objects that were read.
    pub objects: u64,
    /// Their size.
    pub bytes: u64,
    /// Those whose bytes were not their own: they were put aside, and their stages will run again.
    pub damaged: Vec<Digest>,
    /// Unpacked models and folders whose files were not theirs any more: removed, as they can be unpacked again.
    pub unpacked: u64,
    /// Damaged checkpoints: removed, a stage begins anew.
    pub checkpoints: u64,
}

/// How much a part of the store holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Size {
    /// The folder, e.g. `objects`.
    pub part: &'static str,
    /// Files in it.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
}

/// What the store's folder holds.
const PARTS: [&str; 10] =
    ["objects", "actions", "recipes", "segments", "models", "checkpoints", "listings", "runs", "damaged", "tmp"];

impl Store {
    /// How much each part of the store holds.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn sizes(&self) -> Result<Vec<Size>, CacheError> {
        let mut sizes = Vec::new();
        for part in PARTS {
            let mut size = Size { part, files: 0, bytes: 0 };
            let mut folders = vec![self.root.join(part)];
            while let Some(folder) = folders.pop() {
                for (path, metadata) in entries(&folder)? {
                    if metadata.is_dir() {
                        folders.push(path);
                    } else {
                        size.files += 1;
                        size.bytes += metadata.len();
                    }
                }
            }
            sizes.push(size);
        }
        Ok(sizes)
    }

    /// Reads every object. `progress` is told how many of how many were read.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn verify(&self, mut progress: impl FnMut(u64, u64)) -> Result<Verified, CacheError> {
        let objects: Vec<(Digest, PathBuf, Metadata)> = self.named("objects")?;
        let mut verified = Verified::default();
        for (digest, _, metadata) in &objects {
            if !self.is_sound(digest)? {
                verified.damaged.push(*digest);
            }
            verified.objects += 1;
            verified.bytes += metadata.len();
            progress(verified.objects, objects.len() as u64);
        }
        verified.unpacked = self.remove_damaged_directories()?;
        verified.checkpoints = self.remove_damaged_checkpoints()?;
        Ok(verified)
    }

    /// Removes what no root needs: records first, then the objects that no record names any more. With `dry_run`
    /// it only counts.
    ///
    /// # Errors
    /// [`CacheError::InUse`] while a run goes on, or a file can't be removed.
    pub fn clear(&self, roots: &Roots, dry_run: bool) -> Result<Cleared, CacheError> {
        if !dry_run {
            self.check_writable()?;
        }
        let _alone = if dry_run { None } else { Some(self.hold_alone()?.ok_or(CacheError::InUse)?) };
        let mut clearing = Clearing { dry_run, cleared: Cleared::default() };
        let is_young = |metadata: &Metadata| metadata.modified().is_ok_and(|modified| modified >= roots.since);
        let mut live = HashSet::new();
        let mut live_actions = HashSet::new();
        let mut live_folders = HashSet::new();
        for (key, path, metadata) in self.named::<ActionKey>("actions")? {
            if roots.actions.contains(&key) || is_young(&metadata) {
                live_actions.insert(key);
                let record = read::<ActionRecord>(&path);
                live.extend(record.iter().flat_map(named_by));
                live_folders.extend(record.iter().flat_map(|record| &record.parts).filter_map(environment_digest));
            } else {
                clearing.record(&path)?;
            }
        }
        for (signature, folder, _) in self.named::<Signature>("segments")? {
            for (path, metadata) in entries(&folder)? {
                if roots.signatures.contains(&signature) || is_young(&metadata) {
                    live.extend(read::<Segment>(&path).map(|segment| segment.digest));
                } else {
                    clearing.record(&path)?;
                }
            }
        }
        for (_, path, _) in self.named::<super::RecipeKey>("recipes")? {
            if !read::<Pointer>(&path).is_some_and(|pointer| live_actions.contains(&pointer.action)) {
                clearing.record(&path)?;
            }
        }
        for (folder, path, _) in self.named::<Digest>("listings")? {
            if !live_folders.contains(&folder) {
                clearing.record(&path)?;
            }
        }
        for (path, metadata) in entries(&self.root.join("checkpoints"))? {
            let key = name(&path).and_then(|name| name.parse().ok());
            if !is_young(&metadata) && !key.is_some_and(|key| roots.actions.contains(&key)) {
                clearing.folder(&path)?;
            }
        }
        for (path, _) in entries(&self.root.join("models"))? {
            if !name(&path).and_then(|name| name.parse().ok()).is_some_and(|digest| live.contains(&digest)) {
                clearing.folder(&path)?;
            }
        }
        for (digest, path, metadata) in self.named("objects")? {
            if !live.contains(&digest) {
                clearing.object(&path, &metadata)?;
            }
        }
        clearing.folder(&self.root.join("damaged"))?;
        Ok(clearing.cleared)
    }

    /// Everything below a fanned-out folder whose name is a key or a digest.
    fn named<K: FromStr>(&self, folder: &str) -> Result<Vec<(K, PathBuf, Metadata)>, CacheError> {
        let mut found = Vec::new();
        for (fan, _) in entries(&self.root.join(folder))? {
            for (path, metadata) in entries(&fan)? {
                if let Some(Ok(key)) = name(&path).map(K::from_str) {
                    found.push((key, path, metadata));
                }
            }
        }
        Ok(found)
    }
}

/// The objects that an action needs.
pub(super) fn named_by(record: &ActionRecord) -> Vec<Digest> {
    let outputs = record.outputs.values();
    outputs.flat_map(|output| output.files.iter().map(|file| file.digest).chain([output.digest])).collect()
}

/// The digest of a file or a folder in a key.
fn environment_digest(part: &KeyPart) -> Option<Digest> {
    (part.group == PartGroup::Environment).then(|| part.value.parse().ok()).flatten()
}

struct Clearing {
    dry_run: bool,
    cleared: Cleared,
}

impl Clearing {
    fn record(&mut self, path: &Path) -> Result<(), CacheError> {
        self.cleared.records += 1;
        self.remove(path)
    }

    fn object(&mut self, path: &Path, metadata: &Metadata) -> Result<(), CacheError> {
        self.cleared.objects += 1;
        self.cleared.bytes += metadata.len();
        self.remove(path)
    }

    fn remove(&self, path: &Path) -> Result<(), CacheError> {
        if self.dry_run {
            return Ok(());
        }
        std::fs::remove_file(path).map_err(CacheError::io("remove", path))
    }

    fn folder(&self, path: &Path) -> Result<(), CacheError> {
        if self.dry_run {
            return Ok(());
        }
        match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(CacheError::io("remove", path)(error)),
            _ => Ok(()),
        }
    }
}

/// A file's or folder's name without `.json`.
fn name(path: &Path) -> Option<&str> {
    path.file_stem()?.to_str()
}

/// What a folder holds; nothing if it is not there.
fn entries(folder: &Path) -> Result<Vec<(PathBuf, Metadata)>, CacheError> {
    let found = match std::fs::read_dir(folder) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(CacheError::io("read", folder)(error)),
    };
    let entry =
        |entry: std::io::Result<std::fs::DirEntry>| entry.and_then(|entry| Ok((entry.path(), entry.metadata()?)));
    found.map(entry).collect::<Result<_, _>>().map_err(CacheError::io("read", folder))
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}
