//! Keys: how the table in [`crate::plan`] becomes bytes.
//!
//! Every key is blake3 over its name and its parts, each string behind its length, so that no two lists of parts
//! have the same bytes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::Value;

use crate::cache::{ActionKey, Digest, KeyPart, PartGroup, RecipeKey, Signature, Store, WatchedFile};
use crate::pipeline::{BadRows, Node, Pick, Pipeline, Source};
use crate::registry::{Stage, Work};
use crate::stage::{Environment, RowKey, Setup, StageError};

/// Goes up when keys are made another way: everything is new then.
const FORMAT: u32 = 1;

/// What can be known of a node's keys before its inputs are.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    /// All parts of the action key but the inputs.
    pub parts: Vec<KeyPart>,
    /// The key over the recipes of its inputs.
    pub key: RecipeKey,
    /// The files that the environment was read from: none of them may change while the stage runs.
    pub watched: Arc<[WatchedFile]>,
    /// For a row stage, what its signature leaves out.
    row: Option<LeftOut>,
}

#[derive(Clone, Debug)]
struct LeftOut {
    port: &'static str,
    params: &'static [&'static str],
}

/// Why a node has no keys. Nothing of it is cached, and it does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoKey {
    pub error: String,
    pub help: Option<String>,
}

/// The recipe of each node. A node behind one without keys has none either.
pub(crate) fn recipes(pipeline: &Pipeline, store: &Store) -> Vec<Result<Recipe, NoKey>> {
    let known_files = store.known_files();
    let setup = Setup::remembering(&pipeline.root, &known_files);
    let mut defaults = Defaults::default();
    // Rounds of a loop ask the same of the machine: it is asked once.
    let mut environments: HashMap<(&'static str, String), Result<Surroundings, NoKey>> = HashMap::new();
    let mut recipes: Vec<Result<Recipe, NoKey>> = Vec::with_capacity(pipeline.nodes.len());
    for node in &pipeline.nodes {
        let stage = node.stage_kind.as_ref();
        let environment = environments
            .entry((stage.kind().name(), stage.params().to_string()))
            .or_insert_with(|| Surroundings::of(stage, &setup).map_err(|error| NoKey::of(&error)));
        let recipe = match environment {
            Ok(environment) => recipe(pipeline, node, defaults.changed(stage), environment, &recipes),
            Err(no_key) => Err(no_key.clone()),
        };
        recipes.push(recipe);
    }
    if let Err(error) = store.keep_known_files(&known_files) {
        // Large files are read again the next time: slower, not wrong.
        tracing::warn!(%error, "the digests of large files could not be kept");
    }
    recipes
}

/// What a stage computes in.
struct Surroundings {
    environment: Environment,
    watched: Arc<[WatchedFile]>,
}

impl Surroundings {
    fn of(stage: &dyn Stage, setup: &Setup) -> Result<Self, StageError> {
        let environment = stage.environment(setup);
        let watched = setup.take_watched().into();
        Ok(Self { environment: environment?, watched })
    }
}

fn recipe(
    pipeline: &Pipeline,
    node: &Node,
    params: BTreeMap<String, String>,
    Surroundings { environment, watched }: &Surroundings,
    before: &[Result<Recipe, NoKey>],
) -> Result<Recipe, NoKey> {
    let stage = node.stage_kind.as_ref();
    let part = |group, name: &str, value: &str| KeyPart { group, name: name.to_owned(), value: value.to_owned() };
    let mut parts = vec![
        part(PartGroup::Format, "", &FORMAT.to_string()),
        part(PartGroup::Kind, "", stage.kind().name()),
        part(PartGroup::Version, "", &stage.kind().version().to_string()),
    ];
    parts.extend(params.iter().map(|(name, value)| part(PartGroup::Param, name, value)));
    parts.extend(environment.iter().map(|(name, value)| part(PartGroup::Environment, name, value)));
    if let Some(bad_rows) = node.bad_rows {
        parts.push(part(PartGroup::Param, BadRows::KEY, &bad_rows.to_string()));
    }
    let row = match stage.work() {
        Work::Rows(work) => Some(LeftOut { port: work.shape().port, params: work.part_params() }),
        Work::Table(_) => None,
    };
    let mut with_inputs = parts.clone();
    for binding in &node.inputs {
        let from = match &binding.source {
            Source::Node { node, output } => format!("{} {output}", before[*node].as_ref().map_err(Clone::clone)?.key),
            Source::Loop { in_loop, nodes, output, pick } => {
                let description = &pipeline.loops[*in_loop];
                let mut from = match pick {
                    Pick::Last => format!("last {:?} {output}", description.stop),
                    Pick::Best => format!("best {:?} {:?} {output}", description.select, description.stop),
                };
                for node in description.rounds.iter().flatten().chain(nodes) {
                    let recipe = before.get(*node).map(|recipe| recipe.as_ref().map_err(Clone::clone)).transpose()?;
                    from.push_str(&recipe.map(|recipe| format!(" {}", recipe.key)).unwrap_or_default());
                }
                from
            }
        };
        with_inputs.push(part(PartGroup::Input, &binding.port, &from));
    }
    Ok(Recipe { parts, key: hash("recipe", &with_inputs).into(), watched: Arc::clone(watched), row })
}

impl NoKey {
    pub(crate) fn of(error: &StageError) -> Self {
        let help = match error {
            StageError::Environment { help, .. } => help.clone(),
            _ => None,
        };
        Self { error: error.to_string(), help }
    }
}

impl Recipe {
    /// The action key and its parts over given inputs, sorted by port.
    pub(crate) fn action(&self, inputs: &BTreeMap<String, Digest>) -> (ActionKey, Vec<KeyPart>) {
        let parts: Vec<KeyPart> = self.parts.iter().cloned().chain(input_parts(inputs)).collect();
        (hash("action", &parts).into(), parts)
    }

    /// The signature that an action of the same stage had, whatever it was computed with. `None` for a table stage.
    pub(crate) fn signature_of(&self, parts: &[KeyPart]) -> Option<Signature> {
        let left_out = self.row.as_ref()?;
        let is_left_out = |part: &&KeyPart| match part.group {
            PartGroup::Param => left_out.params.contains(&part.name.as_str()) || part.name == BadRows::KEY,
            PartGroup::Input => part.name == left_out.port,
            _ => false,
        };
        let parts: Vec<KeyPart> = parts.iter().filter(|part| !is_left_out(part)).cloned().collect();
        Some(hash("signature", &parts).into())
    }

    /// What all row keys of a row stage have in common. `None` for a table stage.
    pub(crate) fn signature(&self, inputs: &BTreeMap<String, Digest>) -> Option<Signature> {
        self.row.as_ref()?;
        self.signature_of(&self.action(inputs).1)
    }
}

/// The key under which the store keeps the action that a node of a pipeline last led to.
pub(crate) fn node_key(pipeline: &str, node: &str) -> RecipeKey {
    let part =
        |name: &str, value: &str| KeyPart { group: PartGroup::Format, name: name.to_owned(), value: value.to_owned() };
    hash("node", &[part("pipeline", pipeline), part("node", node)]).into()
}

/// The key of one unit of row work.
fn row_key(signature: &Signature, row: &[u8; 32], part: i32) -> RowKey {
    let mut bytes = [0; 32 + 32 + 4];
    bytes[..32].copy_from_slice(&signature.0);
    bytes[32..64].copy_from_slice(row);
    bytes[64..].copy_from_slice(&part.to_le_bytes());
    RowKey(*blake3::hash(&bytes).as_bytes())
}

/// The keys of a table's row work, row by row, each row's parts together.
pub(crate) fn row_keys<'a>(
    signature: &'a Signature,
    rows: &'a [[u8; 32]],
    parts: &'a [i32],
) -> impl Iterator<Item = RowKey> + 'a {
    rows.iter().flat_map(move |row| parts.iter().map(move |&part| row_key(signature, row, part)))
}

fn input_parts(inputs: &BTreeMap<String, Digest>) -> impl Iterator<Item = KeyPart> + '_ {
    inputs.iter().map(|(port, digest)| KeyPart {
        group: PartGroup::Input,
        name: port.clone(),
        value: digest.to_string(),
    })
}

fn hash(name: &str, parts: &[KeyPart]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    let mut write = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    write(name);
    for part in parts {
        write(match part.group {
            PartGroup::Format => "format",
            PartGroup::Kind => "kind",
            PartGroup::Version => "version",
            PartGroup::Param => "param",
            PartGroup::Environment => "environment",
            PartGroup::Input => "input",
        });
        write(&part.name);
        write(&part.value);
    }
    hasher.finalize()
}

/// Each kind's defaults, read from its schema.
#[derive(Default)]
struct Defaults {
    kinds: HashMap<&'static str, BTreeMap<String, Value>>,
}

impl Defaults {
    /// The parameters that differ from their defaults, as JSON: a parameter added to a kind with the default that
    /// it always had leaves all keys as they are. (A default that changes is a new version of the kind.)
    fn changed(&mut self, stage: &dyn Stage) -> BTreeMap<String, String> {
        let kind = stage.kind();
        let defaults = self.kinds.entry(kind.name()).or_insert_with(|| {
            let schema = kind.schema();
            let properties = schema.get("properties").and_then(Value::as_object);
            let default = |(name, schema): (&String, &Value)| Some((name.clone(), schema.get("default")?.clone()));
            properties.into_iter().flatten().filter_map(default).collect()
        });
        match stage.params() {
            Value::Object(params) => params
                .iter()
                .filter(|(name, value)| defaults.get(*name) != Some(value))
                .filter(|(name, _)| !stage.unkeyed_params().contains(&name.as_str()))
                .map(|(name, value)| (name.clone(), value.to_string()))
                .collect(),
            Value::Null => BTreeMap::new(),
            other => BTreeMap::from([(String::new(), other.to_string())]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn part(group: PartGroup, name: &str, value: &str) -> KeyPart {
        KeyPart { group, name: name.to_owned(), value: value.to_owned() }
    }

    #[test]
    fn a_key_is_known() {
        let parts = [part(PartGroup::Kind, "", "verify"), part(PartGroup::Param, "timeout_s", "2")];
        // If this differs, every cache is lost: raise `FORMAT`.
        assert_eq!(
            hash("action", &parts).to_hex().as_str(),
            "d2468517264077738bc123fea151257f2f6ed97db0cb79ccd61a5e723bc4d58c"
        );
        let signature = Signature([1; 32]);
        let key = row_key(&signature, &[2; 32], 3);
        assert_eq!(
            blake3::Hash::from_bytes(key.0).to_hex().as_str(),
            "6a2536f96eee7324f9e7ff9d2c827dd9e776d9cd3bb621143ed00dedb4f93950"
        );
    }

    #[test]
    fn parts_of_a_row_have_keys_of_their_own() {
        let keys: HashSet<RowKey> = (-3..3).map(|part| row_key(&Signature([1; 32]), &[2; 32], part)).collect();
        assert_eq!(keys.len(), 6);
    }

    fn any_part() -> impl Strategy<Value = KeyPart> {
        let group = prop::sample::select(vec![PartGroup::Kind, PartGroup::Param, PartGroup::Environment]);
        (group, "[ab]{0,2}", "[ab]{0,2}").prop_map(|(group, name, value)| KeyPart { group, name, value })
    }

    proptest! {
        #[test]
        fn only_equal_parts_have_equal_keys(
            one in prop::collection::vec(any_part(), 0..4),
            other in prop::collection::vec(any_part(), 0..4),
        ) {
            prop_assert_eq!(one == other, hash("action", &one) == hash("action", &other));
            prop_assert_ne!(hash("action", &one), hash("signature", &one));
        }
    }
}
