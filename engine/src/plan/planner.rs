//! Makes a [`Plan`]: walks the nodes in topological order with what the cache knows.

use std::collections::BTreeMap;

use super::key::{NoKey, Recipe, node_key, recipes, row_key};
use super::{Cause, Estimate, Forecast, Plan, PlannedNode, Why};
use crate::cache::{ActionKey, ActionRecord, CacheError, Digest, KeyPart, PartGroup, Store};
use crate::pipeline::{Node, NodeIndex, Pick, Pipeline, Source};
use crate::registry::Work;
use crate::runs::metrics_of;
use crate::schedule::rounds;
use crate::table::row_digests;

pub(super) fn plan(pipeline: &Pipeline, store: &Store) -> Result<Plan, CacheError> {
    let mut planner =
        Planner { pipeline, store, recipes: recipes(pipeline), nodes: Vec::with_capacity(pipeline.nodes.len()) };
    for node in &pipeline.nodes {
        let planned = planner.visit(node)?;
        planner.nodes.push(planned);
    }
    Ok(Plan { nodes: planner.nodes })
}

struct Planner<'a> {
    pipeline: &'a Pipeline,
    store: &'a Store,
    recipes: Vec<Result<Recipe, NoKey>>,
    nodes: Vec<PlannedNode>,
}

/// What is known of a node's inputs.
#[derive(Default)]
struct KnownInputs {
    digests: BTreeMap<String, Digest>,
    /// Where each port's content comes from, for `why`.
    origins: BTreeMap<String, String>,
    uncertain: Vec<Cause>,
}

impl Planner<'_> {
    fn visit(&self, node: &Node) -> Result<PlannedNode, CacheError> {
        let planned = |forecast, causes, estimate| PlannedNode {
            id: node.id.clone(),
            kind: node.stage_kind.kind().name().to_owned(),
            forecast,
            why: Why { node: node.id.clone(), causes },
            estimate,
        };
        if self.is_skipped(node)? {
            return Ok(planned(Forecast::Skipped, Vec::new(), None));
        }
        let index = self.nodes.len();
        let recipe = match &self.recipes[index] {
            Ok(recipe) => recipe,
            Err(NoKey { error, help }) => {
                let causes = vec![Cause::NoKey { error: error.clone() }];
                return Ok(planned(Forecast::Blocked { error: error.clone(), help: help.clone() }, causes, None));
            }
        };
        let inputs = self.inputs(node)?;
        let last = self.last(node)?;
        let last_time = last.as_ref().and_then(|(_, record)| record.as_ref()).map(|record| {
            let rows = record.outputs.values().next().map_or(0, |output| output.rows);
            Estimate { items: record.items.unwrap_or(rows), cached: 0, exact: false }
        });
        if !inputs.uncertain.is_empty() {
            let mut causes = match &last {
                None => vec![Cause::New],
                Some((_, None)) => Vec::new(),
                Some((_, Some(record))) => diff(node, record, &recipe.parts, &inputs),
            };
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
            (None, _, Some((_, Some(record)))) => diff(node, record, &parts, &inputs),
            (None, _, Some((_, None))) => vec![Cause::RecordLost],
            (None, _, None) => vec![Cause::New],
        };
        let estimate = self.count(node, recipe, &inputs.digests)?.or(last_time);
        Ok(planned(Forecast::Miss(Some(key)), causes, estimate))
    }

    fn inputs(&self, node: &Node) -> Result<KnownInputs, CacheError> {
        let mut inputs = KnownInputs::default();
        for binding in &node.inputs {
            let (from, output) = match &binding.source {
                Source::Node { node, output } => (Ok(*node), output),
                Source::Loop { in_loop, nodes, output, pick } => (self.pick(*in_loop, nodes, *pick)?, output),
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
        Ok(inputs)
    }

    /// The round that is meant, or the name of the loop while that is open.
    fn pick(&self, in_loop: usize, nodes: &[NodeIndex], pick: Pick) -> Result<Result<NodeIndex, String>, CacheError> {
        let description = &self.pipeline.loops[in_loop];
        let open = || Err(description.name.clone());
        let is_settled = |node: &NodeIndex| {
            self.nodes.get(*node).is_some_and(|node| matches!(node.forecast, Forecast::Hit(_) | Forecast::Skipped))
        };
        if !description.rounds.iter().flatten().all(is_settled) && (pick == Pick::Best || description.stop.is_some()) {
            return Ok(open());
        }
        let ran =
            |round: &&Vec<NodeIndex>| round.iter().all(|&node| !matches!(self.nodes[node].forecast, Forecast::Skipped));
        let round = match pick {
            Pick::Last if description.stop.is_none() => nodes.len().checked_sub(1),
            Pick::Last => description.rounds.iter().take_while(ran).count().checked_sub(1),
            Pick::Best => {
                let rounds = description.rounds.iter().take_while(ran).count();
                rounds::best(&self.values(in_loop, rounds, description.select.as_ref())?)
            }
        };
        Ok(round.and_then(|round| nodes.get(round).copied()).ok_or_else(|| description.name.clone()))
    }

    /// Whether the rounds before the node's are all in the cache and stop the loop.
    fn is_skipped(&self, node: &Node) -> Result<bool, CacheError> {
        let Some(in_loop) = node.in_loop else { return Ok(false) };
        let description = &self.pipeline.loops[in_loop];
        let Some(stop) = &description.stop else { return Ok(false) };
        let index = self.nodes.len();
        let round = description.rounds.iter().position(|members| members.contains(&index)).unwrap_or(0);
        let is_hit = |round: &&Vec<NodeIndex>| {
            round
                .iter()
                .all(|&member| self.nodes.get(member).is_some_and(|node| matches!(node.forecast, Forecast::Hit(_))))
        };
        let known = description.rounds.iter().take(round).take_while(is_hit).count();
        let values = self.values(in_loop, known, Some(&stop.metric))?;
        Ok((1..=known).any(|rounds| rounds::stops_after(&values[..rounds], stop.patience)))
    }

    /// A metric's value in each of the first `rounds` rounds, which are in the cache.
    fn values(
        &self,
        in_loop: usize,
        rounds: usize,
        metric: Option<&crate::pipeline::MetricName>,
    ) -> Result<Vec<Option<f64>>, CacheError> {
        let Some(metric) = metric else { return Ok(Vec::new()) };
        let mut values = Vec::new();
        for round in &self.pipeline.loops[in_loop].rounds[..rounds] {
            let mut value = None;
            for &member in round {
                let is_main = self.pipeline.nodes[member].variant.iter().any(|variant| variant == "main");
                if let (None, true, Forecast::Hit(record)) = (value, is_main, &self.nodes[member].forecast) {
                    value = match metrics_of(self.store, &record.outputs) {
                        Ok(metrics) => metrics.and_then(|metrics| metric.value_in(&metrics)),
                        Err(CacheError::Lost { .. }) => None,
                        Err(error) => return Err(error),
                    };
                }
            }
            values.push(value);
        }
        Ok(values)
    }

    /// The action that the node led to the last time, and its record if it is still there.
    fn last(&self, node: &Node) -> Result<Option<(ActionKey, Option<ActionRecord>)>, CacheError> {
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
        let (Work::Rows(work), Some(shape), Some(signature)) =
            (stage.work(), stage.kind().row(), recipe.signature(inputs))
        else {
            return Ok(None);
        };
        let table = match inputs.get(shape.port).map(|digest| self.store.table(digest)) {
            Some(Ok(table)) => table,
            Some(Err(CacheError::Lost { .. })) | None => return Ok(None),
            Some(Err(error)) => return Err(error),
        };
        let Ok(digests) = row_digests(&table, &shape.reads) else { return Ok(None) };
        let segments = self.store.segments(&signature)?;
        let parts = work.parts();
        let keys = digests.iter().flat_map(|row| parts.iter().map(|&part| row_key(&signature, row, part)));
        let cached = keys.filter(|key| segments.contains(key)).count() as u64;
        Ok(Some(Estimate { items: (digests.len() * parts.len()) as u64, cached, exact: true }))
    }
}

/// What differs between a record and what is known now. Inputs that are not known yet are left out.
fn diff(node: &Node, last: &ActionRecord, parts: &[KeyPart], inputs: &KnownInputs) -> Vec<Cause> {
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
    // A parameter at its default is not among the parts: its value is in the whole parameters.
    let shown = |params: &serde_json::Value, name: &str| {
        params.get(name).map_or_else(|| "unset".to_owned(), serde_json::Value::to_string)
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
    for (name, _, _) in changed(PartGroup::Param) {
        let (old, new) = (shown(&last.params, &name), shown(node.stage_kind.params(), &name));
        causes.push(Cause::Param { name, old, new });
    }
    for (name, old, new) in changed(PartGroup::Environment) {
        causes.push(Cause::Environment { name, old, new });
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
