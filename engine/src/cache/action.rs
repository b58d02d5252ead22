//! Action records: what a stage gave for a key, and recipes: what it last gave for a recipe.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::stage::Dropped;

use super::{ActionKey, CacheError, Destination, Digest, RecipeKey, Store};

/// What a stage gave for one [`ActionKey`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActionRecord {
    /// The key that this record is stored under.
    pub key: ActionKey,
    /// The stage's kind.
    pub kind: String,
    /// The kind's version.
    pub version: u32,
    /// What the key was made from: `why` compares two such lists.
    pub parts: Vec<KeyPart>,
    /// All parameters, defaults included.
    pub params: serde_json::Value,
    /// The outputs by name.
    pub outputs: BTreeMap<String, OutputRecord>,
    /// Units of row work (a row and a part), for a row stage.
    pub items: Option<u64>,
    /// What the stage told its user; told again when the record is used.
    pub notes: Vec<String>,
    /// Why rows were left out, reason by reason, the most frequent first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<Dropped>,
    /// What it took to compute: telemetry, nothing depends on it.
    pub cost: Cost,
    /// Where it came from: telemetry, nothing depends on it.
    pub provenance: Provenance,
}

impl ActionRecord {
    /// The content that it had at an input port.
    pub fn input(&self, port: &str) -> Option<Digest> {
        let part = self.parts.iter().find(|part| part.group == PartGroup::Input && part.name == port)?;
        part.value.parse().ok()
    }
}

/// One ingredient of a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyPart {
    /// What sort of ingredient it is.
    pub group: PartGroup,
    /// Its name within the group; empty where the group has one part only.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// The sorts of ingredients of a key, in the order in which they are hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartGroup {
    /// The version of the key's own format.
    Format,
    /// The kind.
    Kind,
    /// The kind's version.
    Version,
    /// A parameter that differs from its default, as JSON.
    Param,
    /// Something the kind declares of the world.
    Environment,
    /// An input port, with the digest of its content.
    Input,
}

/// One output of an action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputRecord {
    /// The object: a Parquet file, or a directory's manifest.
    pub digest: Digest,
    /// What the object is.
    #[serde(rename = "type")]
    pub output_type: OutputType,
    /// Rows of a table; 0 for a directory.
    pub rows: u64,
    /// Size: of the object, or of all files of a directory together.
    pub bytes: u64,
    /// The files of a directory: each must be there for the record to count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileRecord>,
}

/// What an output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputType {
    /// A Parquet table.
    Table,
    /// A directory with a model.
    Model,
    /// A directory of files.
    Folder,
}

/// A file of a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileRecord {
    /// Its path in the directory, `/` between the parts.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// The object with its content.
    pub digest: Digest,
}

/// What computing an action took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Wall-clock time in seconds.
    pub wall_s: f64,
    /// CPU time in seconds, of the process and its children, whatever else ran in it at the time.
    pub cpu_s: f64,
    /// The process's highest resident memory while the stage ran; 0 where it is unknown.
    pub peak_memory_bytes: u64,
}

/// Where a record came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The run that computed it.
    pub run: String,
    /// The node's id in that run.
    pub node: String,
    /// When it was done, in RFC 3339.
    pub finished: String,
    /// tracetune's version.
    pub tracetune: String,
}

/// Which action a recipe, or a node of a pipeline, last led to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointer {
    /// The action.
    pub action: ActionKey,
    /// The recipe, or `PIPELINE NODE`.
    pub of: String,
}

impl Store {
    /// The record of an action whose objects are all there (with their sizes; their bytes are not read).
    ///
    /// # Errors
    /// The store can't be read.
    pub fn action(&self, key: &ActionKey) -> Result<Option<ActionRecord>, CacheError> {
        let record = self.recorded_action(key)?;
        Ok(record.filter(|record| self.lost_output(record).is_none()))
    }

    /// The record of an action, whether or not its objects are there.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn recorded_action(&self, key: &ActionKey) -> Result<Option<ActionRecord>, CacheError> {
        read_json(&self.action_path(key))
    }

    /// The first output that is not whole.
    pub fn lost_output<'a>(&self, record: &'a ActionRecord) -> Option<&'a str> {
        let is_lost = |output: &OutputRecord| match output.output_type {
            OutputType::Table => !self.holds(&output.digest, output.bytes),
            OutputType::Model | OutputType::Folder => {
                !self.has_object(&output.digest)
                    || output.files.iter().any(|file| !self.holds(&file.digest, file.bytes))
            }
        };
        record.outputs.iter().find(|(_, output)| is_lost(output)).map(|(name, _)| name.as_str())
    }

    /// Writes a record, once its objects are on the disk; they must be there.
    ///
    /// # Errors
    /// The store can't be written.
    pub fn put_action(&self, record: &ActionRecord) -> Result<(), CacheError> {
        super::clear::named_by(record).iter().try_for_each(|digest| self.sync_object(digest))?;
        write_json(self, Destination::Record(self.action_path(&record.key)), record)
    }

    /// Takes an action and its objects over from another store; on one file system they are the same files.
    ///
    /// # Errors
    /// An object is not there, or can't be written here.
    pub fn take_over(&self, from: &Self, record: &ActionRecord) -> Result<(), CacheError> {
        for digest in super::clear::named_by(record) {
            self.take_object(from, &digest)?;
        }
        self.put_action(record)
    }

    /// The action that a recipe last led to.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn recipe(&self, key: &RecipeKey) -> Result<Option<ActionKey>, CacheError> {
        Ok(read_json::<Pointer>(&self.recipe_path(key))?.map(|pointer| pointer.action))
    }

    /// Says which action a recipe led to. Writes nothing if that is known.
    ///
    /// # Errors
    /// The store can't be written.
    pub fn put_recipe(&self, key: &RecipeKey, of: &str, action: &ActionKey) -> Result<(), CacheError> {
        let pointer = Pointer { action: *action, of: of.to_owned() };
        let path = self.recipe_path(key);
        if read_json::<Pointer>(&path)?.is_some_and(|known| known == pointer) {
            return Ok(());
        }
        write_json(self, Destination::Pointer(path), &pointer)
    }

    fn action_path(&self, key: &ActionKey) -> PathBuf {
        self.fanned("actions", &key.to_string()).with_extension("json")
    }

    fn recipe_path(&self, key: &RecipeKey) -> PathBuf {
        self.fanned("recipes", &key.to_string()).with_extension("json")
    }
}

/// `None` if the file is not there or makes no sense: a record that can't be read is a miss.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, CacheError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)
            .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "a record can't be read"))
            .ok()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CacheError::io("read", path)(error)),
    }
}

pub(super) fn write_json<T: Serialize>(store: &Store, destination: Destination, value: &T) -> Result<(), CacheError> {
    let mut text = serde_json::to_vec_pretty(value).expect("a record is plain data");
    text.push(b'\n');
    store.write_file(destination, &text)
}
