//! The safetensors files of a model's folder: which they are, and what their headers say, before any number of them is read.
//!
//! A folder comes from a stranger. Its files are named by plain names, lie in the folder, and hold every tensor once; what they
//! say is held against their size before memory is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Component, Path};

use safetensors::tensor::{Metadata, TensorInfo};
use serde::Deserialize;

use crate::{Error, Result};

/// The file that says which shard holds which tensor.
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// The only file, where there are no shards.
pub(super) const SINGLE: &str = "model.safetensors";
/// What the format allows a header.
const LONGEST_HEADER: u64 = 100_000_000;

/// What is stored, by name.
pub(super) struct Shards {
    /// The files, sorted.
    pub(super) names: Vec<String>,
    /// Each tensor: its file's place, and its type and shape.
    pub(super) tensors: BTreeMap<String, (usize, TensorInfo)>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

fn malformed(path: &Path, message: impl Into<String>) -> Error {
    Error::Malformed { path: path.to_owned(), message: message.into() }
}

/// The index, if the folder has one that counts.
fn index(dir: &Path) -> Result<Option<Index>> {
    let path = dir.join(INDEX);
    if dir.join(SINGLE).exists() || !path.exists() {
        return Ok(None);
    }
    check_inside(dir, INDEX)?;
    let index: Index =
        serde_json::from_slice(&fs_err::read(&path)?).map_err(|error| malformed(&path, error.to_string()))?;
    for (tensor, file) in &index.weight_map {
        if !is_plain(file) || !file.ends_with(".safetensors") {
            let message = format!(
                "tensor `{tensor}` is said to lie in `{}`: a shard is a `.safetensors` file in the model's own folder",
                file.escape_debug()
            );
            return Err(malformed(&path, message));
        }
    }
    Ok(Some(index))
}

/// Whether a name is that of a file in a folder, and nothing else.
fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name)
        && !name.contains(['\\', '\0'])
}

/// That a file of the folder is not a link to somewhere else. The hub's cache keeps a snapshot's files as links to its blobs.
///
/// # Errors
/// It leads out of the folder, or can't be followed.
pub(super) fn check_inside(dir: &Path, name: &str) -> Result<()> {
    let path = dir.join(name);
    // Whoever reads a file that is not there says so.
    if !path.is_symlink() {
        return Ok(());
    }
    let (target, own) = (fs_err::canonicalize(&path)?, fs_err::canonicalize(dir)?);
    let blobs = own.parent().filter(|above| above.ends_with("snapshots")).and_then(Path::parent);
    let is_blob = blobs.is_some_and(|repository| target.parent() == Some(&repository.join("blobs")));
    if target.parent() == Some(&own) || is_blob {
        return Ok(());
    }
    let message = format!("it is a link to `{}`, outside the model's folder: copy the file", target.display());
    Err(malformed(&path, message))
}

/// The names of the files that hold the weights.
///
/// # Errors
/// The index can't be read, or names something else than files of the folder.
pub(super) fn names(dir: &Path) -> Result<Vec<String>> {
    Ok(names_by(index(dir)?.as_ref()))
}

fn names_by(index: Option<&Index>) -> Vec<String> {
    match index {
        Some(index) => index.weight_map.values().collect::<BTreeSet<_>>().into_iter().cloned().collect(),
        None => vec![SINGLE.to_owned()],
    }
}

impl Shards {
    /// Reads the headers.
    ///
    /// # Errors
    /// As [`names`]; a file is missing, damaged, or a link to another folder; a tensor is stored twice or not where the index
    /// says.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let index = index(dir)?;
        let names = names_by(index.as_ref());
        let mut tensors: BTreeMap<String, (usize, TensorInfo)> = BTreeMap::new();
        for (place, name) in names.iter().enumerate() {
            check_inside(dir, name)?;
            let path = dir.join(name);
            for (tensor, info) in header(&path)? {
                if let Some((other, _)) = tensors.get(&tensor) {
                    return Err(malformed(&path, format!("tensor `{tensor}` is stored in `{}`, too", names[*other])));
                }
                let place_by_index = index.as_ref().map(|index| index.weight_map.get(&tensor));
                if place_by_index.is_some_and(|by_index| by_index != Some(name)) {
                    return Err(malformed(&path, format!("tensor `{tensor}` is not here by `{INDEX}`")));
                }
                tensors.insert(tensor, (place, info));
            }
        }
        if let Some(missing) =
            index.iter().flat_map(|index| index.weight_map.keys()).find(|name| !tensors.contains_key(*name))
        {
            return Err(Error::MissingTensor { path: dir.to_owned(), tensor: missing.clone() });
        }
        Ok(Self { names, tensors })
    }
}

/// The tensors of a file, as its header has them.
fn header(path: &Path) -> Result<Vec<(String, TensorInfo)>> {
    let mut file = fs_err::File::open(path)?;
    let size = file.metadata()?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|_| malformed(path, format!("cut short: it has {size} bytes")))?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER.min(size.saturating_sub(8)) {
        return Err(malformed(
            path,
            format!("its header has {length} bytes by its first 8, of {size} in all: it is damaged or cut short"),
        ));
    }
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    // Its offsets are one behind the other, and of each tensor's size.
    let metadata: Metadata = serde_json::from_slice(&bytes).map_err(|error| malformed(path, error.to_string()))?;
    let end = metadata.tensors().values().map(|info| info.data_offsets.1 as u64).max().unwrap_or(0);
    if size != 8 + length + end {
        let message = format!("it has {size} bytes, {} by its header: it is damaged or cut short", 8 + length + end);
        return Err(malformed(path, message));
    }
    Ok(metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect())
}

/// What a folder without `config.json`, or a file that is none, seems to be, and what to do with it.
pub(super) fn what_else(path: &Path) -> Option<String> {
    let is = |name: &str| path.join(name).exists();
    let begins_with_gguf = || {
        let mut magic = [0; 4];
        std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"GGUF"
    };
    let words = if path.is_file() && begins_with_gguf() {
        "it is a GGUF file: give it the ending `.gguf`"
    } else if path.is_file() {
        "it is a file: a model is a folder with `config.json`, `tokenizer.json` and safetensors, or a `.gguf` file"
    } else if is("adapter_config.json") {
        "it holds a PEFT adapter, not a model: merge it into its base (`merge_and_unload`, `save_pretrained`) and name that folder"
    } else if is("config.json") && !is(SINGLE) && !is(INDEX) {
        ["pytorch_model.bin", "pytorch_model.bin.index.json", "model.ckpt", "tf_model.h5"]
            .into_iter()
            .find(|name| is(name))?;
        "its weights are not safetensors, and reading other formats can run code: save it again with `safe_serialization=True`"
    } else {
        return None;
    };
    Some(words.to_owned())
}

#[cfg(test)]
mod tests {
    use super::is_plain;

    #[test]
    fn a_plain_name_leads_nowhere_else() {
        for name in ["model.safetensors", "a b.safetensors", "..x", "model-00001-of-00002.safetensors"] {
            assert!(is_plain(name), "{name}");
        }
        for name in ["", ".", "..", "/etc/passwd", "../x", "a/b", "a/", "./a", "a\\b", "a\0b"] {
            assert!(!is_plain(name), "{name}");
        }
    }
}
