//! The variants of a pipeline as one graph: nodes that are the same in several variants are there once.
//!
//! Two nodes are the same if their kinds, parameters and names are, and what they are connected to is. A loop that may
//! stop early or selects a round decides for its nodes, so these are shared only if the whole loop is the same.

use std::collections::HashMap;

use super::variants::MAIN;
use super::{Binding, Loop, Node, NodeIndex, Resources, Source};
use crate::diagnostic::Diagnostic;

/// What a node is, with all that it depends on.
type Identity = blake3::Hash;

/// Combines variants, each with its name. Nodes that only some have are called `VARIANT/ID`, unless they are in the
/// variant `main`.
pub(super) fn combine(variants: Vec<(String, Vec<Node>, Vec<Loop>)>) -> (Vec<Node>, Vec<Loop>) {
    let count = variants.len();
    let mut combined = Combined::default();
    for (name, nodes, loops) in variants {
        combined.add(&name, nodes, loops);
    }
    for node in &mut combined.nodes {
        let shared_by_all = node.variants.len() == count;
        if !shared_by_all && !node.variants.iter().any(|name| name == MAIN) {
            node.node.id = format!("{}/{}", node.variants[0], node.node.id);
        }
    }
    (combined.nodes.into_iter().map(|node| node.node).collect(), combined.loops)
}

#[derive(Default)]
struct Combined {
    nodes: Vec<CombinedNode>,
    loops: Vec<Loop>,
    known_nodes: HashMap<Identity, NodeIndex>,
    known_loops: HashMap<Identity, usize>,
}

struct CombinedNode {
    node: Node,
    /// The variants that have it.
    variants: Vec<String>,
}

impl Combined {
    fn add(&mut self, variant: &str, nodes: Vec<Node>, loops: Vec<Loop>) {
        let Identities { nodes: node_identities, loops: loop_identities } = Identities::of(&nodes, &loops);
        // Places of the loops first: nodes refer to them.
        let mut loop_places = Vec::with_capacity(loops.len());
        let mut new_loops = Vec::new();
        for (index, identity) in loop_identities.iter().enumerate() {
            let next = self.loops.len() + new_loops.len();
            let place = *self.known_loops.entry(*identity).or_insert(next);
            if place == next {
                new_loops.push(index);
            }
            loop_places.push(place);
        }
        let mut places = Vec::with_capacity(nodes.len());
        for (mut node, identity) in nodes.into_iter().zip(node_identities) {
            let labels: Vec<String> = node.variant.iter().map(|label| labelled(variant, label)).collect();
            let place = match self.known_nodes.get(&identity) {
                Some(&place) => {
                    let known = &mut self.nodes[place];
                    known.variants.push(variant.to_owned());
                    known.node.variant.extend(labels);
                    place
                }
                None => {
                    for binding in &mut node.inputs {
                        moved(binding, &places, &loop_places);
                    }
                    node.in_loop = node.in_loop.map(|index| loop_places[index]);
                    node.variant = labels;
                    self.known_nodes.insert(identity, self.nodes.len());
                    self.nodes.push(CombinedNode { node, variants: vec![variant.to_owned()] });
                    self.nodes.len() - 1
                }
            };
            places.push(place);
        }
        for (index, mut one) in loops.into_iter().enumerate() {
            if new_loops.contains(&index) {
                one.label = labelled(variant, MAIN);
                one.rounds.iter_mut().flatten().for_each(|member| *member = places[*member]);
                self.loops.push(one);
            }
        }
    }
}

/// What a stage's label is in a variant: `main` is the variant's own name.
fn labelled(variant: &str, label: &str) -> String {
    match (variant, label) {
        (MAIN, label) => label.to_owned(),
        (variant, MAIN) => variant.to_owned(),
        (variant, label) => format!("{variant}/{label}"),
    }
}

fn moved(binding: &mut Binding, places: &[NodeIndex], loop_places: &[usize]) {
    match &mut binding.source {
        Source::Node { node, .. } => *node = places[*node],
        Source::Loop { in_loop, nodes, .. } => {
            *in_loop = loop_places[*in_loop];
            nodes.iter_mut().for_each(|node| *node = places[*node]);
        }
    }
}

/// Two nodes whose figures could not be told apart: a variant has the name of a label that stands in the file.
pub(super) fn shared_figures(nodes: &[Node]) -> Option<Diagnostic> {
    let mut known: HashMap<(&str, &str, i32), &Node> = HashMap::new();
    let gives = |node: &&Node| node.outputs.iter().any(|output| ["metrics", "outcomes"].contains(&&*output.name));
    for node in nodes.iter().filter(gives) {
        for label in &node.variant {
            if let Some(other) = known.insert((&node.stage, label, node.round), node) {
                let (id, other) = (&node.id, &other.id);
                let mut problem =
                    Diagnostic::error(format!("figures of `{other}` and `{id}` would both be called `{label}`"));
                problem.help(format!(
                    "give the variant `{label}` another name, or the stages with `variant = \"{label}\"` another label"
                ));
                return Some(problem);
            }
        }
    }
    None
}

struct Identities {
    nodes: Vec<Identity>,
    loops: Vec<Identity>,
}

impl Identities {
    fn of(nodes: &[Node], loops: &[Loop]) -> Self {
        // Twice: what a deciding loop is depends on its members, and what its members are depends on it.
        let members = identities(nodes, loops, None);
        let loop_identities: Vec<Identity> = loops.iter().map(|one| loop_identity(one, &members)).collect();
        Self { nodes: identities(nodes, loops, Some(&loop_identities)), loops: loop_identities }
    }
}

fn identities(nodes: &[Node], loops: &[Loop], deciding: Option<&[Identity]>) -> Vec<Identity> {
    let mut identities: Vec<Identity> = Vec::with_capacity(nodes.len());
    for node in nodes {
        let mut hasher = Hasher::new("node");
        hasher.text(&node.id).text(node.stage_kind.kind().name()).text(&node.stage_kind.params().to_string());
        node.variant.iter().for_each(|label| _ = hasher.text("label").text(label));
        node.bad_rows.iter().for_each(|bad_rows| _ = hasher.text("bad rows").text(&bad_rows.to_string()));
        if node.allow_empty {
            hasher.text("allow empty");
        }
        if node.resources != Resources::default() {
            hasher.text(&format!("{:?}", node.resources));
        }
        if let (Some(index), Some(deciding)) = (node.in_loop, deciding)
            && decides(&loops[index])
        {
            hasher.identity(&deciding[index]);
        }
        for Binding { port, source } in &node.inputs {
            hasher.text(port);
            match source {
                Source::Node { node, output } => _ = hasher.identity(&identities[*node]).text(output),
                Source::Loop { in_loop, nodes, output, pick } => {
                    let one = &loops[*in_loop];
                    hasher.text(&format!("{pick:?} {:?} {:?}", one.stop, one.select)).text(output);
                    nodes.iter().for_each(|node| _ = hasher.identity(&identities[*node]));
                    if decides(one) {
                        one.rounds.iter().flatten().for_each(|member| {
                            if let Some(identity) = identities.get(*member) {
                                hasher.identity(identity);
                            }
                        });
                    }
                }
            }
        }
        identities.push(hasher.0.finalize());
    }
    identities
}

fn decides(one: &Loop) -> bool {
    one.stop.is_some() || one.select.is_some()
}

fn loop_identity(one: &Loop, nodes: &[Identity]) -> Identity {
    let mut hasher = Hasher::new("loop");
    hasher.text(&one.name).text(&format!("{:?} {:?} {}", one.stop, one.select, one.rounds.len()));
    one.rounds.iter().flatten().for_each(|&member| _ = hasher.identity(&nodes[member]));
    hasher.0.finalize()
}

struct Hasher(blake3::Hasher);

impl Hasher {
    fn new(what: &str) -> Self {
        let mut hasher = Self(blake3::Hasher::new());
        hasher.text(what);
        hasher
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.0.update(&(text.len() as u64).to_le_bytes());
        self.0.update(text.as_bytes());
        self
    }

    fn identity(&mut self, identity: &Identity) -> &mut Self {
        self.0.update(identity.as_bytes());
        self
    }
}
