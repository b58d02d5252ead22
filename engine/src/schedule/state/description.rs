//! What the state machine must know of a pipeline: who needs whom, which loops there are, how many threads.

use std::collections::{BTreeMap, BTreeSet};

use super::super::Machine;
use crate::pipeline::{Node, NodeIndex, Pick, Pipeline, Source};

/// What the state machine must know of a pipeline.
#[derive(Clone, Debug, Default)]
pub(crate) struct Description {
    pub nodes: Vec<DescribedNode>,
    pub loops: Vec<DescribedLoop>,
    /// For all nodes together.
    pub machine: Machine,
    /// Whether nodes that don't need a failed one still start.
    pub keep_going: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct DescribedNode {
    pub sources: Vec<Source>,
    /// Loop and round (from 0), for a node whose round may be skipped.
    pub place: Option<(usize, usize)>,
    /// The most threads it can use.
    pub threads: usize,
    pub memory_bytes: u64,
    pub slots: BTreeMap<String, usize>,
}

impl DescribedNode {
    /// What it takes of a machine: no more than there is.
    pub(super) fn takes(&self, machine: &Machine) -> Machine {
        let slots = self.slots.iter().map(|(name, count)| (name.clone(), machine.slots_of(name).min(*count)));
        Machine {
            threads: self.threads.clamp(1, machine.threads.max(1)),
            memory_bytes: self.memory_bytes.min(machine.memory_bytes),
            slots: slots.collect(),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct DescribedLoop {
    pub rounds: Vec<Vec<NodeIndex>>,
    pub patience: Option<usize>,
}

/// What a stage's `threads` says counts more than what its kind makes use of by itself.
fn most_threads(node: &Node) -> usize {
    if node.resources.threads.is_some() { usize::MAX } else { node.stage_kind.max_threads() }
}

impl Description {
    pub(crate) fn of(pipeline: &Pipeline, machine: Machine, keep_going: bool) -> Self {
        let mut nodes: Vec<DescribedNode> = pipeline
            .nodes
            .iter()
            .map(|node| DescribedNode {
                sources: node.inputs.iter().map(|binding| binding.source.clone()).collect(),
                place: None,
                threads: node.resources.threads.unwrap_or(usize::MAX).min(most_threads(node)),
                memory_bytes: node.resources.memory_bytes,
                slots: node.resources.slots.clone(),
            })
            .collect();
        for (in_loop, description) in pipeline.loops.iter().enumerate() {
            for (round, members) in description.rounds.iter().enumerate() {
                for &member in members {
                    nodes[member].place = Some((in_loop, round));
                }
            }
        }
        let loops = pipeline
            .loops
            .iter()
            .map(|description| DescribedLoop {
                rounds: description.rounds.clone(),
                patience: description.stop.as_ref().map(|stop| stop.patience),
            })
            .collect();
        Self { nodes, loops, machine: Machine { threads: machine.threads.max(1), ..machine }, keep_going }
    }

    /// These nodes and all that they need; of a loop that may stop early or has a best round, all rounds that decide.
    pub(super) fn needed(&self, wanted: &[NodeIndex]) -> BTreeSet<NodeIndex> {
        let (mut needed, mut open) = (BTreeSet::new(), wanted.to_vec());
        while let Some(node) = open.pop() {
            if !needed.insert(node) {
                continue;
            }
            if let Some((in_loop, round)) = self.nodes[node].place
                && self.loops[in_loop].patience.is_some()
            {
                open.extend(self.loops[in_loop].rounds[..round].iter().flatten());
            }
            for source in &self.nodes[node].sources {
                match source {
                    Source::Node { node, .. } => open.push(*node),
                    Source::Loop { in_loop, nodes, pick, .. } => {
                        let description = &self.loops[*in_loop];
                        if *pick == Pick::Last && description.patience.is_none() {
                            open.extend(nodes.last());
                        } else {
                            open.extend(description.rounds.iter().flatten());
                        }
                    }
                }
            }
        }
        needed
    }

    /// For each node those whose readiness may change when it is settled.
    pub(super) fn dependents(&self) -> Vec<Vec<NodeIndex>> {
        let mut dependents = vec![Vec::new(); self.nodes.len()];
        for (node, described) in self.nodes.iter().enumerate() {
            for source in &described.sources {
                match source {
                    Source::Node { node: needed, .. } => dependents[*needed].push(node),
                    Source::Loop { in_loop, nodes, pick, .. } => {
                        let description = &self.loops[*in_loop];
                        if *pick == Pick::Last && description.patience.is_none() {
                            nodes.last().into_iter().for_each(|&needed| dependents[needed].push(node));
                        } else {
                            description.rounds.iter().flatten().for_each(|&member| dependents[member].push(node));
                        }
                    }
                }
            }
        }
        for description in self.loops.iter().filter(|description| description.patience.is_some()) {
            for rounds in description.rounds.windows(2) {
                rounds[0].iter().for_each(|&member| dependents[member].extend(&rounds[1]));
            }
        }
        dependents
    }
}
