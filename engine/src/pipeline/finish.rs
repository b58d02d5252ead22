//! The last step: the checked graph as the types that everything else works on.

use super::check::Outputs;
use super::document::Document;
use super::unroll::{Graph, Origin};
use super::variants::MAIN;
use super::{Binding, Loop, Node, NodeIndex, Source};

/// The nodes in order, and the loops. The graph has no errors.
pub(super) fn finish(
    document: &Document,
    graph: Graph,
    order: &[NodeIndex],
    outputs: &Outputs,
) -> (Vec<Node>, Vec<Loop>) {
    let mut place = vec![0; graph.nodes.len()];
    for (new, &old) in order.iter().enumerate() {
        place[old] = new;
    }
    let mut nodes: Vec<Node> = Vec::with_capacity(order.len());
    for &old in order {
        let draft = &graph.nodes[old];
        let definition = graph.definition(old);
        let inputs: Vec<Binding> = draft
            .inputs
            .iter()
            .map(|(connection, origin)| Binding {
                port: connection.port.clone(),
                source: source(origin, &place, outputs),
            })
            .collect();
        let highest = || inputs.iter().map(|binding| round_of(&binding.source, &nodes)).max();
        let round = match draft.round {
            Some((_, round)) => round as i32 + 1,
            None => highest().unwrap_or_default(),
        };
        let Some(checked) = definition.checked.clone() else { continue };
        nodes.push(Node {
            id: draft.id.clone(),
            stage: draft.stage().to_owned(),
            round,
            variant: definition.variant.clone(),
            stage_kind: checked,
            inputs,
            outputs: outputs[old].clone().unwrap_or_default(),
            bad_rows: definition.bad_rows,
            allow_empty: definition.allow_empty,
            resources: definition.resources.clone(),
            in_loop: draft.round.map(|(outer, _)| outer),
        });
    }
    let loops = document.loops.iter().zip(&graph.loops).map(|(outer, draft)| {
        let mut rounds = vec![Vec::with_capacity(draft.order.len()); outer.times];
        for stage in &draft.order {
            for (round, &node) in draft.stages[stage].iter().enumerate() {
                rounds[round].push(place[node]);
            }
        }
        Loop {
            name: outer.name.clone(),
            label: MAIN.to_owned(),
            rounds,
            stop: outer.stop.as_ref().map(|(stop, _)| stop.clone()),
            select: outer.select.as_ref().map(|(select, _)| select.clone()),
        }
    });
    let loops = loops.collect();
    (nodes, loops)
}

fn source(origin: &Origin, place: &[NodeIndex], outputs: &Outputs) -> Source {
    let first = || outputs[origin.sample()].as_ref().and_then(|outputs| outputs.first());
    let output = origin.output.clone().or_else(|| first().map(|output| output.name.to_string())).unwrap_or_default();
    match origin.pick {
        None => Source::Node { node: place[origin.sample()], output },
        Some((in_loop, pick)) => {
            Source::Loop { in_loop, nodes: origin.nodes.iter().map(|&node| place[node]).collect(), output, pick }
        }
    }
}

fn round_of(source: &Source, nodes: &[Node]) -> i32 {
    match source {
        Source::Node { node, .. } => nodes[*node].round,
        Source::Loop { nodes: rounds, .. } => rounds.iter().map(|&node| nodes[node].round).max().unwrap_or_default(),
    }
}
