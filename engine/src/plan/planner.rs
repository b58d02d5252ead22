//! Makes a [`Plan`]: walks the nodes in topological order with what the cache knows.

use std::collections::BTreeMap;

use super::key::{NoKey, Recipe, node_key, recipes, row_keys};
use super::{Cause, Estimate, FileChange, Forecast, Plan, PlannedNode, Why};
use crate::cache::{ActionKey, ActionRecord, CacheError, Digest, KeyPart, PartGroup, Signature, Store};
use crate::pipeline::{MetricName, Node, NodeIndex, Pick, Pipeline, Source};
use crate::registry::Work;
use crate::runs::{MetricRow, metrics_of};
use crate::schedule::rounds;
use crate::table::row_digests;

pub(super) fn plan(pipeline: &Pipeline, store: &Store) -> Result<Plan, CacheError> {
    let Planner { nodes, recipes, .. } = Planner::up_to(pipeline, store, pipeline.nodes.len())?;
    Ok(Plan { nodes, recipes })
}

/// What differs between the keys of recorded actions and those that their nodes have now, inputs aside: a sentence for
/// each node with a difference.
pub(crate) fn changes<'r>(
    pipeline: &Pipeline,
    store: &Store,
    records: impl Iterator<Item = (&'r Node, &'r ActionRecord)>,
) -> Vec<String> {
    let recipes = recipes(pipeline, store);
    let sentence = |(node, record): (&Node, &ActionRecord)| {
        let index = pipeline.nodes.iter().position(|known| known.id == node.id)?;
        let causes = match &recipes[index] {
            Ok(recipe) => with_files(store, recipe, diff(node, record, &recipe.parts, &KnownInputs::default())),
            Err(NoKey { error, .. }) => vec![Cause::NoKey { error: error.clone() }],
        };
        let words: Vec<String> = causes.iter().map(ToString::to_string).collect();
        (!words.is_empty()).then(|| format!("{}: {}", node.id, words.join(", ")))
    };
    records.filter_map(sentence).collect()
}

/// A node that would be computed only because what it is computed with changed.
pub(crate) struct Acceptable {
    /// What it gave the last time.
    pub record: ActionRecord,
    /// Its key now, and the parts.
    pub key: ActionKey,
    pub parts: Vec<KeyPart>,
    /// For a row stage, the signature then and now.
    pub signatures: Option<(Signature, Signature)>,
    /// What changed.
    pub causes: Vec<Cause>,
    /// All that is in the cache before it.
    pub before: Vec<ActionRecord>,
}

/// Why a node's last results can't be accepted as its present ones.
pub(crate) enum NotAcceptable {
    /// They are its present ones already.
    Cached,
    /// Why it has to be computed.
    Because(Why),
}

/// What is needed to accept a node's last results as those of its present key.
pub(crate) fn acceptable(
    pipeline: &Pipeline,
    store: &Store,
    index: NodeIndex,
) -> Result<Result<Acceptable, NotAcceptable>, CacheError> {
    let planner = Planner::up_to(pipeline, store, index)?;
    let node = &pipeline.nodes[index];
    let planned = planner.visit(node)?;
    let (Forecast::Miss(Some(key)), Ok(recipe)) = (&planned.forecast, &planner.recipes[index]) else {
        let is_cached = matches!(planned.forecast, Forecast::Hit(_));
        return Ok(Err(if is_cached { NotAcceptable::Cached } else { NotAcceptable::Because(planned.why) }));
    };
    let is_code = |cause: &Cause| matches!(cause, Cause::Environment { .. } | Cause::KindVersion { .. });
    let last = planner.last(node)?.and_then(|(_, record)| record);
    let last = last.filter(|record| store.lost_output(record).is_none());
    let (true, Some(record)) = (planned.why.causes.iter().all(is_code), last) else {
        return Ok(Err(NotAcceptable::Because(planned.why)));
    };
    let (_, parts) = recipe.action(&planner.inputs(node).digests);
    let signatures = recipe.signature_of(&record.parts).zip(recipe.signature_of(&parts));
    let hit = |node: &PlannedNode| match &node.forecast {
        Forecast::Hit(record) => Some(ActionRecord::clone(record)),
        _ => None,
    };
    let before = planner.nodes.iter().filter_map(hit).collect();
    Ok(Ok(Acceptable { record, key: *key, parts, signatures, causes: planned.why.causes, before }))
}

pub(super) struct Planner<'a> {
    pipeline: &'a Pipeline,
    pub(super) store: &'a Store,
    pub(super) recipes: Vec<Result<Recipe, NoKey>>,
    nodes: Vec<PlannedNode>,
    /// The metrics of each node in a loop that is in the cache.
    metrics: Vec<Vec<MetricRow>>,
}

/// What is known of a node's inputs.
#[derive(Default)]
pub(super) struct KnownInputs {
    pub digests: BTreeMap<String, Digest>,
    /// Where each port's content comes from, for `why`.
    origins: BTreeMap<String, String>,
    pub uncertain: Vec<Cause>,
}

impl<'a> Planner<'a> {
    /// Looks up the first `count` nodes.
    pub(super) fn up_to(pipeline: &'a Pipeline, store: &'a Store, count: NodeIndex) -> Result<Self, CacheError> {
        let mut planner =
            Planner { pipeline, store, recipes: recipes(pipeline, store), nodes: Vec::new(), metrics: Vec::new() };
        for node in &pipeline.nodes[..count] {
            let planned = planner.visit(node)?;
            planner.metrics.push(match &planned.forecast {
                Forecast::Hit(record) if node.in_loop.is_some() => match metrics_of(store, &record.outputs) {
                    Err(CacheError::Lost { .. }) => Vec::new(),
                    metrics => metrics?.unwrap_or_default(),
                },
                _ => Vec::new(),
            });
            planner.nodes.push(planned);
        }
        Ok(planner)
    }

    fn visit(&self, node: &Node) -> Result<PlannedNode, CacheError> {
        let planned = |forecast, causes, estimate| PlannedNode {
            id: node.id.clone(),
            kind: node.stage_kind.kind().name().to_owned(),
            forecast,
            why: Why { node: node.id.clone(), causes },
            estimate,
        };
        if let Some(name) = self.stopped_loop(node) {
            return Ok(planned(Forecast::Skipped, vec![Cause::LoopStopped { name }], None));
        }
        let index = self.nodes.len();
        let recipe = match &self.recipes[index] {
            Ok(recipe) => recipe,
            Err(NoKey { error, help }) => {
                let causes = vec![Cause::NoKey { error: error.clone() }];
                return Ok(planned(Forecast::Blocked { error: error.clone(), help: help.clone() }, causes, None));
            }
        };
        let inputs = self.inputs(node);
        let last = self.last(node)?;
        let last_time = last.as_ref().and_then(|(_, record)| record.as_ref());
        let last_time = last_time.map(|record| Estimate { items: work_of(record), cached: 0, exact: false });
        if !inputs.uncertain.is_empty() {
            let mut causes = match &last {
                None => vec![Cause::New],
                Some((_, None)) => Vec::new(),
                Some((_, Some(record))) => with_files(self.store, recipe, diff(node, record, &recipe.parts, &inputs)),
            };
            // The same recipe was run before: if its inputs come out as they did then, this is a hit.
            let expected = self.store.recipe(&recipe.key)?.map(|key| self.store.action(&key)).transpose()?.flatten();
            if let Some(expected) = expected {
                let items = work_of(&expected);
                let estimate = Estimate { items, cached: items, exact: false };
                return Ok(planned(Forecast::Unknown, inputs.uncertain, Some(estimate)));
            }
            // What differs already can't be made good by inputs that stay the same.
            let forecast = if causes.is_empty() { Forecast::Unknown } else { Forecast::Miss(None) };
            if causes != [Cause::New] {
                causes.extend(inputs.uncertain);
            }
            return Ok(planned(forecast, causes, last_time));
        }
        let (key, parts) = recipe.action(&inputs.digests);
        let recorded = self.store.recorded_action(&key)?;
        let lost = recorded.as_ref().and_then(|record| self.store.lost_output(record));
        let causes = match (&recorded, lost, &last) {
            (Some(record), None, _) => {
                return Ok(planned(Forecast::Hit(Box::new(record.clone())), Vec::new(), None));
            }
            (Some(_), Some(output), _) => vec![Cause::OutputLost { output: output.to_owned() }],
            (None, _, Some((last, _))) if *last == key => vec![Cause::RecordLost],
            (None, _, Some((_, Some(record)))) => with_files(self.store, recipe, diff(node, record, &parts, &inputs)),
            (None, _, Some((_, None))) => vec![Cause::RecordLost],
            (None, _, None) => vec![Cause::New],
        };
        let estimate = self.count(node, recipe, &inputs.digests)?.or(last_time);
        Ok(planned(Forecast::Miss(Some(key)), causes, estimate))
    }

    pub(super) fn inputs(&self, node: &Node) -> KnownInputs {
        let mut inputs = KnownInputs::default();
        for binding in &node.inputs {
            let (from, output) = match &binding.source {
                Source::Node { node, output } => (Ok(*node), output),
                Source::Loop { in_loop, nodes, output, pick } => (self.pick(*in_loop, nodes, *pick), output),
            };
            let record = from.as_ref().ok().and_then(|&from| match &self.nodes[from].forecast {
                Forecast::Hit(record) => record.outputs.get(output),
                _ => None,
            });
            let from = from.map_or_else(|name| name, |from| self.nodes[from].id.clone());
            match record {
                Some(record) => {
                    inputs.digests.insert(binding.port.clone(), record.digest);
                    inputs.origins.insert(binding.port.clone(), from);
                }
                None => inputs.uncertain.push(Cause::InputUncertain { port: binding.port.clone(), from }),
            }
        }
        inputs
    }

    /// The round that is meant, or the name of the loop while that is open.
    fn pick(&self, in_loop: usize, nodes: &[NodeIndex], pick: Pick) -> Result<NodeIndex, String> {
        let description = &self.pipeline.loops[in_loop];
        let open = || description.name.clone();
        let is_settled = |node: &NodeIndex| {
            self.nodes.get(*node).is_some_and(|node| matches!(node.forecast, Forecast::Hit(_) | Forecast::Skipped))
        };
        let is_decided = pick == Pick::Last && description.stop.is_none();
        if !is_decided && !description.rounds.iter().flatten().all(is_settled) {
            return Err(open());
        }
        let ran =
            |round: &&Vec<NodeIndex>| round.iter().all(|&node| !matches!(self.nodes[node].forecast, Forecast::Skipped));
        let round = match (pick, &description.select) {
            (Pick::Last, _) if is_decided => nodes.len().checked_sub(1),
            (Pick::Last, _) => description.rounds.iter().take_while(ran).count().checked_sub(1),
            (Pick::Best, Some(select)) => {
                let values: Vec<_> = description
                    .rounds
                    .iter()
                    .take_while(ran)
                    .map(|round| self.value(round, &description.label, select))
                    .collect();
                rounds::best(&values)
            }
            (Pick::Best, None) => None,
        };
        round.and_then(|round| nodes.get(round).copied()).ok_or_else(open)
    }

    /// The node's loop, if the rounds before the node's are all in the cache and end it.
    fn stopped_loop(&self, node: &Node) -> Option<String> {
        let description = &self.pipeline.loops[node.in_loop?];
        let stop = description.stop.as_ref()?;
        let index = self.nodes.len();
        let round = description.rounds.iter().position(|members| members.contains(&index))?;
        let is_hit =
            |member: &NodeIndex| self.nodes.get(*member).is_some_and(|node| matches!(node.forecast, Forecast::Hit(_)));
        let known = description.rounds[..round].iter().take_while(|round| round.iter().all(is_hit));
        let values: Vec<_> = known.map(|round| self.value(round, &description.label, &stop.metric)).collect();
        let stops = (1..=values.len()).any(|rounds| rounds::stops_after(&values[..rounds], stop.patience));
        stops.then(|| description.name.clone())
    }

    /// A metric's value in a round that is in the cache.
    fn value(&self, round: &[NodeIndex], label: &String, metric: &MetricName) -> Option<f64> {
        let counts = |member: &&NodeIndex| self.pipeline.nodes[**member].variant.contains(label);
        round.iter().filter(counts).find_map(|&member| metric.value_in(&self.metrics[member]))
    }

    /// The action that the node led to the last time, and its record if it is still there.
    pub(super) fn last(&self, node: &Node) -> Result<Option<(ActionKey, Option<ActionRecord>)>, CacheError> {
        let pointer = self.store.recipe(&node_key(&self.pipeline.name, &node.id))?;
        pointer.map(|key| Ok((key, self.store.recorded_action(&key)?))).transpose()
    }

    /// Counts a row stage's work; `None` for a table stage, or if its rows can't be read.
    fn count(
        &self,
        node: &Node,
        recipe: &Recipe,
        inputs: &BTreeMap<String, Digest>,
    ) -> Result<Option<Estimate>, CacheError> {
        let stage = node.stage_kind.as_ref();
        let (Work::Rows(work), Some(signature)) = (stage.work(), recipe.signature(inputs)) else {
            return Ok(None);
        };
        let shape = work.shape();
        let table = match inputs.get(shape.port).map(|digest| self.store.table_file(digest)) {
            Some(Ok(table)) => table,
            Some(Err(CacheError::Lost { .. })) | None => return Ok(None),
            Some(Err(error)) => return Err(error),
        };
        let segments = self.store.segments(&signature)?;
        let parts = work.parts();
        let mut cached = 0;
        for piece in table.pieces(PIECE_ROWS)? {
            let Ok(digests) = row_digests(&piece?, &shape.reads) else { return Ok(None) };
            cached += row_keys(&signature, &digests, &parts).filter(|key| segments.find(key).is_some()).count() as u64;
        }
        Ok(Some(Estimate { items: (table.rows() * parts.len()) as u64, cached, exact: true }))
    }
}

/// Rows that are counted at a time.
const PIECE_ROWS: usize = 1 << 14;

/// Units of row work, or else the rows of the largest output.
fn work_of(record: &ActionRecord) -> u64 {
    record.items.unwrap_or_else(|| record.outputs.values().map(|output| output.rows).max().unwrap_or_default())
}

/// The keys of a table that differ, by their path from the parameter.
fn changed_keys(
    name: &str,
    old: &serde_json::Map<String, serde_json::Value>,
    new: &serde_json::Map<String, serde_json::Value>,
) -> Vec<Cause> {
    let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
    keys.sort();
    keys.dedup();
    let shown = |value: Option<&serde_json::Value>| value.map_or("unset".to_owned(), serde_json::Value::to_string);
    let cause = |key: &String| match (old.get(key), new.get(key)) {
        (old, new) if old == new => Vec::new(),
        (Some(serde_json::Value::Object(old)), Some(serde_json::Value::Object(new))) => {
            changed_keys(&format!("{name}.{key}"), old, new)
        }
        (old, new) => vec![Cause::Param { name: format!("{name}.{key}"), old: shown(old), new: shown(new) }],
    };
    keys.into_iter().flat_map(cause).collect()
}

/// Names the files of folders that changed, where it is known what the folders held the last time.
pub(super) fn with_files(store: &Store, recipe: &Recipe, mut causes: Vec<Cause>) -> Vec<Cause> {
    for cause in &mut causes {
        let Cause::Environment { old: Some(old), new: Some(new), files, .. } = cause else { continue };
        let (Ok(old), Ok(new)) = (old.parse::<Digest>(), new.parse::<Digest>()) else { continue };
        let Some(watched) = recipe.watched.iter().find(|watched| watched.folder_digest() == Some(new)) else {
            continue;
        };
        // The folder is read again only if there is something to hold it against.
        if let Ok(Some(old)) = store.listing(&old)
            && let Ok(new) = watched.listing()
        {
            *files = FileChange::between(&old, &new);
        }
    }
    causes
}

/// What differs between a record and what is known now. Inputs that are not known yet are left out.
pub(super) fn diff(node: &Node, last: &ActionRecord, parts: &[KeyPart], inputs: &KnownInputs) -> Vec<Cause> {
    let by_name = |parts: &[KeyPart], group: PartGroup| -> BTreeMap<String, String> {
        let of_group = parts.iter().filter(|part| part.group == group);
        of_group.map(|part| (part.name.clone(), part.value.clone())).collect()
    };
    let changed = |group: PartGroup| {
        let (old, new) = (by_name(&last.parts, group), by_name(parts, group));
        let mut names: Vec<String> = old.keys().chain(new.keys()).cloned().collect();
        names.sort();
        names.dedup();
        names.into_iter().filter_map(move |name| {
            let (old, new) = (old.get(&name).cloned(), new.get(&name).cloned());
            (old != new).then_some((name, old, new))
        })
    };
    let kind = node.stage_kind.kind().name();
    // A parameter at its default is not among the parts: its value is in the whole parameters. A key of the engine's is
    // among the parts alone.
    let shown = |params: &serde_json::Value, name: &str, part: Option<String>| {
        params.get(name).map(serde_json::Value::to_string).or(part).unwrap_or_else(|| "unset".to_owned())
    };
    let mut causes = Vec::new();
    for (_, old, new) in changed(PartGroup::Format) {
        causes.push(Cause::KeyFormat { old: old.unwrap_or_default(), new: new.unwrap_or_default() });
    }
    for (_, old, new) in changed(PartGroup::Kind) {
        causes.push(Cause::Kind { old: old.unwrap_or_default(), new: new.unwrap_or_default() });
    }
    for (_, old, new) in changed(PartGroup::Version) {
        let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
        causes.push(Cause::KindVersion { kind: kind.to_owned(), old, new });
    }
    for (name, old, new) in changed(PartGroup::Param) {
        let now = node.stage_kind.params();
        match (last.params.get(&name), now.get(&name)) {
            (Some(serde_json::Value::Object(old)), Some(serde_json::Value::Object(new))) => {
                causes.extend(changed_keys(&name, old, new));
            }
            _ => {
                let (old, new) = (shown(&last.params, &name, old), shown(now, &name, new));
                causes.push(Cause::Param { name, old, new });
            }
        }
    }
    for (name, old, new) in changed(PartGroup::Environment) {
        causes.push(Cause::Environment { name, old, new, files: Vec::new() });
    }
    let old = by_name(&last.parts, PartGroup::Input);
    for (port, digest) in &inputs.digests {
        let (old, new) = (old.get(port).cloned(), Some(digest.to_string()));
        if old != new {
            let from = inputs.origins[port].clone();
            causes.push(Cause::Input { port: port.clone(), from, old, new });
        }
    }
    for (port, digest) in old {
        if !node.inputs.iter().any(|binding| binding.port == port) {
            causes.push(Cause::Input { port, from: String::new(), old: Some(digest), new: None });
        }
    }
    causes
}
