//! The order of the nodes, or the circle that forbids one.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet, VecDeque};

use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex as Vertex};

use super::NodeIndex;
use super::problems::Problems;
use super::unroll::Graph;

/// The nodes so that each stands after its inputs, and otherwise in the order of the file. `None` if there is a cycle.
pub(super) fn order(graph: &Graph, problems: &mut Problems) -> Option<Vec<NodeIndex>> {
    let edges = edges(graph);
    let mut waiting: Vec<usize> = vec![0; edges.len()];
    for &target in edges.iter().flatten() {
        waiting[target] += 1;
    }
    let mut ready: BinaryHeap<_> = (0..edges.len()).filter(|&vertex| waiting[vertex] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(edges.len());
    while let Some(Reverse(vertex)) = ready.pop() {
        order.push(vertex);
        for &target in &edges[vertex] {
            waiting[target] -= 1;
            if waiting[target] == 0 {
                ready.push(Reverse(target));
            }
        }
    }
    if order.len() < edges.len() {
        report_cycles(graph, &edges, problems);
        return None;
    }
    order.retain(|&vertex| vertex < graph.nodes.len());
    Some(order)
}

/// From each node to those that need it. Behind the nodes stands a vertex a loop: its end, which all its nodes lead
/// to, and which leads to those that need the last or the best round.
fn edges(graph: &Graph) -> Vec<Vec<usize>> {
    let nodes = graph.nodes.len();
    let mut edges = vec![Vec::new(); nodes + graph.loops.len()];
    for (index, node) in graph.nodes.iter().enumerate() {
        if let Some((outer, _)) = node.round {
            edges[index].push(nodes + outer);
        }
        for (_, origin) in &node.inputs {
            match origin.pick {
                Some((outer, _)) => edges[nodes + outer].push(index),
                None => edges[origin.sample()].push(index),
            }
        }
    }
    edges
}

fn report_cycles(graph: &Graph, edges: &[Vec<usize>], problems: &mut Problems) {
    let mut directed = DiGraph::<(), ()>::with_capacity(edges.len(), edges.len());
    for _ in edges {
        directed.add_node(());
    }
    for (from, targets) in edges.iter().enumerate() {
        for &target in targets {
            directed.add_edge(Vertex::new(from), Vertex::new(target), ());
        }
    }
    let mut told: HashSet<Vec<String>> = HashSet::new();
    // `kosaraju_scc` does not recurse, so a chain of any length is fine.
    for component in kosaraju_scc(&directed) {
        let members: HashSet<usize> = component.iter().map(|vertex| vertex.index()).collect();
        let Some(&start) = members.iter().min() else { continue };
        let Some(path) = shortest_circle(start, &members, edges) else { continue };
        let nodes: Vec<usize> = path.iter().copied().filter(|&vertex| vertex < graph.nodes.len()).collect();
        let names: Vec<String> = nodes.iter().map(|&node| graph.definition(node).name.clone()).collect();
        if !told.insert(names.clone()) {
            continue;
        }
        // A round's number helps only where the circle goes through several rounds.
        let round = graph.nodes[nodes[0]].round;
        let one_round = nodes.iter().all(|&node| graph.nodes[node].round == round);
        let shown: Vec<&str> = nodes
            .iter()
            .chain(nodes.first())
            .map(|&node| if one_round { graph.definition(node).name.as_str() } else { graph.nodes[node].id.as_str() })
            .collect();
        // The word to change is the reference that closes the circle, in its first stage.
        let first = nodes[0];
        let last = *path.last().unwrap_or(&start);
        let at = graph.nodes[first].inputs.iter().find(|(_, origin)| match origin.pick {
            Some((outer, _)) => last == graph.nodes.len() + outer,
            None => origin.sample() == last,
        });
        let at = at.map_or(graph.definition(first).at, |(connection, _)| connection.at);
        let needs = if nodes.len() == 1 { "needs itself" } else { "needs what needs it" };
        problems
            .error(at, format!("stages go in a circle: {}", shown.join(" -> ")), format!("`{}` {needs}", shown[0]))
            .help("an arrow leads from a stage to one that uses it; a value from the round before comes in by `carry`");
    }
}

/// The shortest path from `start` back to it, without its end.
fn shortest_circle(start: usize, members: &HashSet<usize>, edges: &[Vec<usize>]) -> Option<Vec<usize>> {
    let mut before = vec![usize::MAX; edges.len()];
    let mut queue = VecDeque::from([start]);
    while let Some(vertex) = queue.pop_front() {
        for &target in edges[vertex].iter().filter(|target| members.contains(target)) {
            if target == start {
                let mut path = vec![vertex];
                while path[path.len() - 1] != start {
                    path.push(before[path[path.len() - 1]]);
                }
                path.reverse();
                return Some(path);
            }
            if before[target] == usize::MAX {
                before[target] = vertex;
                queue.push_back(target);
            }
        }
    }
    None
}
