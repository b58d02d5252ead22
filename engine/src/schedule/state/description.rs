//! What the state machine must know of a pipeline: who needs whom, which loops there are, how many threads.

use crate::pipeline::{NodeIndex, Pick, Pipeline, Source};

/// What the state machine must know of a pipeline.
#[derive(Clone, Debug, Default)]
pub(crate) struct Description {
    pub nodes: Vec<DescribedNode>,
    pub loops: Vec<DescribedLoop>,
    /// Threads for all nodes together.
    pub threads: usize,
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
}

#[derive(Clone, Debug, Default)]
pub(crate) struct DescribedLoop {
    pub rounds: Vec<Vec<NodeIndex>>,
    pub patience: Option<usize>,
}

impl Description {
    pub(crate) fn of(pipeline: &Pipeline, threads: usize, keep_going: bool) -> Self {
        let mut nodes: Vec<DescribedNode> = pipeline
            .nodes
            .iter()
            .map(|node| DescribedNode {
                sources: node.inputs.iter().map(|binding| binding.source.clone()).collect(),
                place: None,
                threads: node.stage_kind.max_threads(),
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
        Self { nodes, loops, threads: threads.max(1), keep_going }
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
