//! From definitions to nodes: every round of a loop gets nodes of its own, and every reference is resolved.

use std::collections::HashMap;

use super::definition::{Connection, Definition, define};
use super::document::{Document, LoopTable, StageTable};
use super::merge::lay_over;
use super::problems::Problems;
use super::source::{Span, Value};
use super::{NodeIndex, Pick};
use crate::Registry;
use crate::diagnostic::{Diagnostic, list, nearest};
use crate::stage::Setup;

/// Nodes in the order of the file, with edges.
pub(super) struct Graph {
    pub(super) definitions: Vec<Definition>,
    pub(super) nodes: Vec<Draft>,
    pub(super) loops: Vec<LoopDraft>,
    /// The nodes outside loops by name.
    outer: HashMap<String, NodeIndex>,
}

/// A node before it is checked against what it is connected to.
pub(super) struct Draft {
    pub(super) id: String,
    /// Its place in [`Graph::definitions`].
    pub(super) definition: usize,
    /// The loop and the 0-based round.
    pub(super) round: Option<(usize, usize)>,
    /// The definition's connections that could be resolved.
    pub(super) inputs: Vec<(Connection, Origin)>,
}

impl Draft {
    /// Its id without the round: what it is called by in figures, unique in the file.
    pub(super) fn stage(&self) -> &str {
        match self.round {
            Some(_) => self.id.rsplit_once('@').map_or(self.id.as_str(), |(stage, _)| stage),
            None => &self.id,
        }
    }
}

/// A loop's nodes.
pub(super) struct LoopDraft {
    pub(super) name: String,
    pub(super) rounds: usize,
    pub(super) selects: bool,
    /// Each stage's node in each round.
    pub(super) stages: HashMap<String, Vec<NodeIndex>>,
    /// The stages' names in the order of the file.
    pub(super) order: Vec<String>,
}

/// What a reference comes to; which output it means is settled once outputs are known.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    /// One node, or a loop's node in each round.
    pub(super) nodes: Vec<NodeIndex>,
    /// For a reference into a loop whose round is known only at its end.
    pub(super) pick: Option<(usize, Pick)>,
    /// The output's name, where the reference has one.
    pub(super) output: Option<String>,
}

/// Where a reference stands.
#[derive(Clone, Copy)]
struct Scope {
    /// The loop and the 0-based round.
    round: Option<(usize, usize)>,
    /// Whether a stage of the round comes before a carried value of its name: in `next`.
    stages_first: bool,
}

/// Unrolls a document.
pub(super) fn unroll<'a>(
    document: &Document<'a>,
    registry: &Registry,
    setup: &Setup,
    problems: &mut Problems<'a>,
) -> Graph {
    let mut graph = Graph { definitions: Vec::new(), nodes: Vec::new(), loops: Vec::new(), outer: HashMap::new() };
    graph.place_nodes(document, registry, setup, problems);
    for node in 0..graph.nodes.len() {
        let definition = &graph.definitions[graph.nodes[node].definition];
        let scope = Scope { round: graph.nodes[node].round, stages_first: false };
        let mut inputs = Vec::with_capacity(definition.connections.len());
        for connection in &definition.connections {
            match graph.resolve(&connection.reference, connection.at, scope, document) {
                Ok(origin) => inputs.push((connection.clone(), origin)),
                Err(problem) => problem.note(problems),
            }
        }
        graph.nodes[node].inputs = inputs;
    }
    graph
}

impl Graph {
    fn place_nodes<'a>(
        &mut self,
        document: &Document<'a>,
        registry: &Registry,
        setup: &Setup,
        problems: &mut Problems<'a>,
    ) {
        let seed = &document.seed;
        // A name that a loop shares with another one, or with a stage outside, is told apart by the loop's.
        let mut uses: HashMap<&str, usize> = HashMap::new();
        for stage in document.loops.iter().flat_map(|outer| &outer.stages).chain(&document.stages) {
            *uses.entry(&stage.name).or_default() += 1;
        }
        enum Part<'d, 'a> {
            Stage(&'d StageTable<'a>),
            Loop(&'d LoopTable<'a>),
        }
        let stages = document.stages.iter().map(|stage| (stage.at, Part::Stage(stage)));
        let mut parts: Vec<_> =
            stages.chain(document.loops.iter().map(|outer| (outer.at, Part::Loop(outer)))).collect();
        parts.sort_by_key(|(at, _)| *at);
        self.loops = document.loops.iter().map(LoopDraft::new).collect();
        for (_, part) in parts {
            match part {
                Part::Stage(stage) => {
                    let definition = self.add(define(stage, seed, registry, setup, problems));
                    self.outer.insert(stage.name.clone(), self.nodes.len());
                    self.nodes.push(Draft { id: stage.name.clone(), definition, round: None, inputs: Vec::new() });
                }
                Part::Loop(outer) => {
                    let index = document.loops.iter().position(|known| known.name == outer.name).unwrap_or_default();
                    let definitions = self.define_loop(outer, seed, registry, setup, problems);
                    for round in 0..outer.times {
                        for (stage, (first, later)) in outer.stages.iter().zip(&definitions) {
                            let prefix =
                                if uses[stage.name.as_str()] > 1 { format!("{}.", outer.name) } else { String::new() };
                            self.loops[index].stages.entry(stage.name.clone()).or_default().push(self.nodes.len());
                            self.nodes.push(Draft {
                                id: format!("{prefix}{}@{}", stage.name, round + 1),
                                definition: if round == 0 { *first } else { *later },
                                round: Some((index, round)),
                                inputs: Vec::new(),
                            });
                        }
                    }
                }
            }
        }
    }

    /// Each stage's definition in the first round and in the later ones.
    fn define_loop<'a>(
        &mut self,
        outer: &LoopTable<'a>,
        seed: &Value<'a>,
        registry: &Registry,
        setup: &Setup,
        problems: &mut Problems<'a>,
    ) -> Vec<(usize, usize)> {
        let mut definitions = Vec::with_capacity(outer.stages.len());
        for stage in &outer.stages {
            let first = outer.first.iter().find(|first| first.name == stage.name);
            let first = first.map(|first| {
                let mut keys = stage.keys.clone();
                lay_over(&mut keys, first.keys.clone());
                let stage = StageTable { name: stage.name.clone(), at: stage.at, keys };
                self.add(define(&stage, seed, registry, setup, problems))
            });
            // With one round, what `first` replaces is never used, and may be missing.
            let later = match first {
                Some(first) if outer.times == 1 => first,
                _ => self.add(define(stage, seed, registry, setup, problems)),
            };
            definitions.push((first.unwrap_or(later), later));
        }
        definitions
    }

    fn add(&mut self, definition: Definition) -> usize {
        self.definitions.push(definition);
        self.definitions.len() - 1
    }

    /// The definition of a node.
    pub(super) fn definition(&self, node: NodeIndex) -> &Definition {
        &self.definitions[self.nodes[node].definition]
    }

    /// How a reference to `target` is written at `from`; `None` if it can't be.
    pub(super) fn reference(&self, from: NodeIndex, target: NodeIndex) -> Option<String> {
        let name = &self.definition(target).name;
        match (self.nodes[from].round, self.nodes[target].round) {
            (here, there) if here == there => Some(name.clone()),
            (_, None) => Some(name.clone()),
            (Some((here, _)), Some((there, _))) if here == there => None,
            (_, Some((there, round))) => {
                (round + 1 == self.loops[there].rounds).then(|| format!("{}.{name}", self.loops[there].name))
            }
        }
    }

    fn resolve(&self, reference: &str, at: Span, scope: Scope, document: &Document) -> Result<Origin, Unresolved> {
        let (mut reference, mut at, mut scope) = (reference, at, scope);
        // Each turn of the loop follows a carried value one round back.
        loop {
            let (head, rest) = reference.split_once('.').map_or((reference, None), |(head, rest)| (head, Some(rest)));
            if let Some((outer, round)) = scope.round {
                let inner = self.loops[outer].stages.get(head);
                let carried = document.loops[outer].carry.iter().find(|carry| carry.name == head);
                match (carried, inner) {
                    (Some(carry), None) | (Some(carry), Some(_)) if !(scope.stages_first && inner.is_some()) => {
                        if let Some(output) = rest {
                            let message = format!("`{head}` is a carried value and has no outputs");
                            let help = format!("carry a second value, e.g. `next = \"{}.{output}\"`", carry.next.0);
                            return Err(Unresolved { at, message, help });
                        }
                        (reference, at) =
                            if round == 0 { (&carry.start.0, carry.start.1) } else { (&carry.next.0, carry.next.1) };
                        scope = match round {
                            0 => Scope { round: None, stages_first: false },
                            later => Scope { round: Some((outer, later - 1)), stages_first: true },
                        };
                        continue;
                    }
                    (_, Some(nodes)) => return Ok(Origin::node(nodes[round], rest)),
                    _ => {}
                }
            }
            if let Some(&node) = self.outer.get(head) {
                return Ok(Origin::node(node, rest));
            }
            let named = self.loops.iter().position(|outer| outer.name == head);
            return match named {
                Some(outer) => self.round_of(outer, rest, at, scope),
                None => Err(self.nothing(reference, head, at, scope, document)),
            };
        }
    }

    /// `LOOP.STAGE`, `LOOP.STAGE@ROUND`, `LOOP.best.STAGE`, each with an output or without.
    fn round_of(&self, index: usize, rest: Option<&str>, at: Span, scope: Scope) -> Result<Origin, Unresolved> {
        let outer = &self.loops[index];
        let name = &outer.name;
        let fail = |message: String, help: String| Err(Unresolved { at, message, help });
        let example = outer.order.last().map_or("STAGE", String::as_str);
        let Some(rest) = rest else {
            return fail(
                format!("`{name}` is a loop"),
                format!("write `{name}.{example}` for the last round's `{example}`"),
            );
        };
        let (pick, rest) = match rest.strip_prefix("best.") {
            Some(rest) => (Pick::Best, rest),
            None => (Pick::Last, rest),
        };
        let (stage, output) = rest.split_once('.').map_or((rest, None), |(stage, output)| (stage, Some(output)));
        let (stage, round) = stage.split_once('@').map_or((stage, None), |(stage, round)| (stage, Some(round)));
        if scope.round.is_some_and(|(here, _)| here == index) {
            let help = format!("inside the loop write `{stage}` for the same round; `carry` brings the round before");
            return fail(format!("`{name}` is the loop that this stage is in"), help);
        }
        let Some(nodes) = outer.stages.get(stage) else {
            let help = match nearest(stage, outer.order.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{name}.{near}`?"),
                None => format!("its stages are {}", list(&outer.order)),
            };
            return fail(format!("loop `{name}` has no stage `{stage}`"), help);
        };
        if let Some(round) = round {
            return match round.parse::<usize>() {
                Ok(round @ 1..) if round <= outer.rounds && pick == Pick::Last => {
                    Ok(Origin::node(nodes[round - 1], output))
                }
                _ => fail(
                    format!("loop `{name}` has no round `{round}`"),
                    format!("its rounds are 1 to {}, e.g. `{name}.{stage}@{}`", outer.rounds, outer.rounds),
                ),
            };
        }
        if pick == Pick::Best && !outer.selects {
            return fail(
                format!("loop `{name}` does not say which round is best"),
                format!("add `select = \"dev.pass@1\"` to [loop.{name}]"),
            );
        }
        Ok(Origin { nodes: nodes.clone(), pick: Some((index, pick)), output: output.map(str::to_owned) })
    }

    fn nothing(&self, reference: &str, head: &str, at: Span, scope: Scope, document: &Document) -> Unresolved {
        let message = format!("there is no stage `{head}`");
        if let Some(outer) = self.loops.iter().find(|outer| outer.stages.contains_key(head)) {
            let help = format!("`{head}` is in loop `{0}`: write `{0}.{reference}` for its last round", outer.name);
            return Unresolved { at, message, help };
        }
        let mut known: Vec<&str> = document.stages.iter().map(|stage| stage.name.as_str()).collect();
        if let Some((outer, _)) = scope.round {
            let outer = &document.loops[outer];
            known.extend(outer.stages.iter().map(|stage| stage.name.as_str()));
            known.extend(outer.carry.iter().map(|carry| carry.name.as_str()));
        }
        let loops: Vec<&str> = document.loops.iter().map(|outer| outer.name.as_str()).collect();
        let help = match nearest(head, known.iter().chain(&loops).copied()) {
            Some(near) => format!("did you mean `{}`?", reference.replacen(head, near, 1)),
            None => format!("the stages are {}", list(known)),
        };
        Unresolved { at, message, help }
    }
}

impl LoopDraft {
    fn new(outer: &LoopTable) -> Self {
        Self {
            name: outer.name.clone(),
            rounds: outer.times,
            selects: outer.select.is_some(),
            stages: HashMap::new(),
            order: outer.stages.iter().map(|stage| stage.name.clone()).collect(),
        }
    }
}

impl Origin {
    fn node(node: NodeIndex, output: Option<&str>) -> Self {
        Self { nodes: vec![node], pick: None, output: output.map(str::to_owned) }
    }

    /// The node that stands for all: what the outputs are checked by.
    pub(super) fn sample(&self) -> NodeIndex {
        self.nodes[self.nodes.len() - 1]
    }
}

/// Why a reference means nothing.
struct Unresolved {
    at: Span,
    message: String,
    help: String,
}

impl Unresolved {
    fn note(self, problems: &mut Problems) {
        let problem: &mut Diagnostic = problems.error(self.at, self.message, "");
        problem.help(self.help);
    }
}
