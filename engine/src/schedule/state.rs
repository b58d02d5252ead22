//! The scheduler as a pure state machine: happenings in, decisions out. No threads, no clock, no files.
//!
//! A node whose inputs are done is looked up in the cache; if it is not there it starts as soon as enough threads
//! are free. A loop that may stop early runs round by round, because what a round decides must not depend on which
//! node happened to finish first. For the same reason a reference to a loop's best round waits for the whole loop.

mod description;

use std::collections::BTreeSet;
use std::fmt;

use super::{Machine, rounds};
use crate::pipeline::{NodeIndex, Pick, Pipeline, Source};

pub(crate) use description::Description;
#[cfg(test)]
pub(crate) use description::{DescribedLoop, DescribedNode};

/// What a finished node says about its loop.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct RoundValues {
    /// The metric that the loop's stop watches.
    pub stop: Option<f64>,
    /// The metric that selects the best round.
    pub select: Option<f64>,
}

/// The round that a loop's `select` found best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Best {
    /// 0-based.
    pub round: usize,
    /// Of so many that ran.
    pub rounds: usize,
    /// The node whose metric decided.
    pub decided_by: NodeIndex,
}

/// Something that the state machine is told.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Happening {
    /// The node's outputs are there: found, or computed.
    Done(NodeIndex, RoundValues),
    /// The node is not in the cache.
    Miss(NodeIndex),
    /// The node failed.
    Failed(NodeIndex),
    /// The node stopped because the run was interrupted.
    Cancelled(NodeIndex),
    /// A started node found that an output of the second one is gone: that one must run again.
    InputLost(NodeIndex, NodeIndex),
    /// A started node found that its key is not of the files that it read: it is looked up again.
    KeyOutdated(NodeIndex),
    /// Nothing new may start.
    Interrupt,
}

/// Something that is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Look the node up in the cache and tell `Done`, `Miss` or `Failed`.
    Lookup(NodeIndex),
    /// Start the node with so many threads and tell how it ends.
    Start(NodeIndex, usize),
    /// The node does not run.
    Skip(NodeIndex, Skip),
}

/// Why a node does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Skip {
    /// A node that it needs, at once or through others, failed.
    Needs(NodeIndex),
    /// Its loop stopped after so many rounds.
    Stopped { in_loop: usize, rounds: usize },
    /// No round of the loop has the metric that selects the best.
    NoBest { in_loop: usize },
    /// A node failed, and the run ends.
    Halted(NodeIndex),
    /// The run was interrupted.
    Interrupted,
    /// The run is of other stages.
    NotAskedFor,
}

impl Skip {
    /// Whether the run is as it should be all the same.
    pub(crate) fn is_planned(self) -> bool {
        matches!(self, Self::Stopped { .. } | Self::NotAskedFor)
    }

    /// In words.
    pub(crate) fn in_words(self, pipeline: &Pipeline) -> impl fmt::Display {
        match self {
            Self::Needs(node) => format!("it needs `{}`, which failed", pipeline.nodes[node].id),
            Self::Stopped { in_loop, rounds } => {
                let description = &pipeline.loops[in_loop];
                match &description.stop {
                    Some(stop) => format!(
                        "loop `{}` stopped after round {rounds}: `{}.{}` has no new maximum in {} round{}",
                        description.name,
                        stop.metric.split,
                        stop.metric.metric,
                        stop.patience,
                        if stop.patience == 1 { "" } else { "s" }
                    ),
                    None => format!("loop `{}` stopped after round {rounds}", description.name),
                }
            }
            Self::NoBest { in_loop } => {
                let description = &pipeline.loops[in_loop];
                let select = description.select.as_ref();
                let metric = select.map(|select| format!("{}.{}", select.split, select.metric)).unwrap_or_default();
                format!("no round of loop `{}` has the metric `{metric}`, which selects the best", description.name)
            }
            Self::Halted(node) => format!("`{}` failed", pipeline.nodes[node].id),
            Self::Interrupted => "the run was interrupted".to_owned(),
            Self::NotAskedFor => "it was not asked for".to_owned(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting,
    LookedUp,
    /// Not in the cache; waits for threads.
    Queued,
    Running,
    Done,
    Failed,
    Cancelled,
    Skipped(Skip),
}

impl Phase {
    fn is_settled(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled | Self::Skipped(_))
    }
}

/// Where a run is. What happens to a node costs time for the nodes that wait for it, not for all of them.
pub(crate) struct State {
    description: Description,
    phases: Vec<Phase>,
    values: Vec<RoundValues>,
    free: Machine,
    /// Rounds after which each loop has stopped.
    stopped: Vec<Option<usize>>,
    halted: Option<Skip>,
    /// The nodes that something may change for when a node is settled.
    dependents: Vec<Vec<NodeIndex>>,
    /// Waiting nodes that are to be looked at.
    candidates: BTreeSet<NodeIndex>,
    /// Nodes in [`Phase::Queued`].
    queue: BTreeSet<NodeIndex>,
    /// Nodes that are not settled.
    unsettled: usize,
    /// Nodes that are looked up or run.
    active: usize,
}

enum Readiness {
    Ready,
    Wait,
    Skip(Skip),
}

impl State {
    pub(crate) fn new(description: Description) -> Self {
        let count = description.nodes.len();
        Self {
            phases: vec![Phase::Waiting; count],
            values: vec![RoundValues::default(); count],
            free: description.machine.clone(),
            stopped: vec![None; description.loops.len()],
            halted: None,
            dependents: description.dependents(),
            candidates: (0..count).collect(),
            queue: BTreeSet::new(),
            unsettled: count,
            active: 0,
            description,
        }
    }

    /// Takes note of something that happened.
    pub(crate) fn tell(&mut self, happening: Happening) {
        match happening {
            Happening::Done(node, values) => {
                self.values[node] = values;
                self.enter(node, Phase::Done);
            }
            Happening::Miss(node) => self.enter(node, Phase::Queued),
            Happening::Failed(node) => {
                self.enter(node, Phase::Failed);
                if !self.description.keep_going && self.halted.is_none() {
                    self.halt(Skip::Halted(node));
                }
            }
            Happening::Cancelled(node) => {
                self.enter(node, Phase::Cancelled);
                self.halt(Skip::Interrupted);
            }
            Happening::InputLost(node, from) => {
                self.enter(node, Phase::Waiting);
                if self.phases[from] == Phase::Done {
                    self.enter(from, Phase::Waiting);
                }
            }
            Happening::KeyOutdated(node) => self.enter(node, Phase::Waiting),
            Happening::Interrupt => self.halt(Skip::Interrupted),
        }
    }

    /// The run is of these nodes alone, and of what they need.
    pub(crate) fn restrict(&mut self, wanted: &[NodeIndex]) -> Vec<Decision> {
        let needed = self.description.needed(wanted);
        let others = (0..self.phases.len()).filter(|node| !needed.contains(node));
        others.collect::<Vec<_>>().into_iter().map(|node| self.skip(node, Skip::NotAskedFor)).collect()
    }

    /// What is to be done now, in the nodes' order. Each decision is given once.
    pub(crate) fn decide(&mut self) -> Vec<Decision> {
        let mut decisions = Vec::new();
        let mut from = 0;
        while let Some(node) = self.next_to_look_at(from) {
            from = node + 1;
            match (self.phases[node], self.halted) {
                (Phase::Waiting, halted) => match (self.readiness(node), halted) {
                    // What can't run for a reason of its own says so rather than that the run ended.
                    (Readiness::Skip(skip), _) | (Readiness::Ready | Readiness::Wait, Some(skip)) => {
                        decisions.push(self.skip(node, skip));
                    }
                    (Readiness::Ready, None) => {
                        self.enter(node, Phase::LookedUp);
                        decisions.push(Decision::Lookup(node));
                    }
                    (Readiness::Wait, None) => _ = self.candidates.remove(&node),
                },
                (Phase::Queued, Some(skip)) => decisions.push(self.skip(node, skip)),
                (Phase::Queued, None) => {
                    let takes = self.takes(node);
                    if self.free.has(&takes) {
                        self.enter(node, Phase::Running);
                        decisions.push(Decision::Start(node, takes.threads));
                    }
                }
                _ => _ = self.candidates.remove(&node),
            }
        }
        decisions
    }

    /// The first node from there on for which there may be something to decide.
    fn next_to_look_at(&self, from: NodeIndex) -> Option<NodeIndex> {
        let may_leave_queue = self.free.threads > 0 || self.halted.is_some();
        let queued = if may_leave_queue { self.queue.range(from..).next() } else { None };
        self.candidates.range(from..).next().into_iter().chain(queued).min().copied()
    }

    /// Whether nothing is left to do.
    pub(crate) fn is_over(&self) -> bool {
        self.unsettled == 0
    }

    /// Whether something was started or is looked up, so that something will happen.
    pub(crate) fn is_waiting(&self) -> bool {
        self.active > 0
    }

    /// The node that a source means, once that is known.
    pub(crate) fn resolve(&self, source: &Source) -> Option<NodeIndex> {
        self.picked(source)?.ok()
    }

    /// What a node takes while it runs.
    fn takes(&self, node: NodeIndex) -> Machine {
        self.description.nodes[node].takes(&self.description.machine)
    }

    fn skip(&mut self, node: NodeIndex, skip: Skip) -> Decision {
        self.enter(node, Phase::Skipped(skip));
        Decision::Skip(node, skip)
    }

    /// No further node starts.
    fn halt(&mut self, skip: Skip) {
        self.halted = Some(skip);
        let waiting = (0..self.phases.len()).filter(|&node| self.phases[node] == Phase::Waiting);
        self.candidates.extend(waiting);
    }

    /// The one way from phase to phase: keeps the counts and says who is to be looked at.
    fn enter(&mut self, node: NodeIndex, phase: Phase) {
        let before = std::mem::replace(&mut self.phases[node], phase);
        match before {
            Phase::Running => {
                let taken = self.takes(node);
                self.free.give_back(&taken);
                self.active -= 1;
            }
            Phase::LookedUp => self.active -= 1,
            Phase::Queued => _ = self.queue.remove(&node),
            Phase::Waiting => _ = self.candidates.remove(&node),
            _ => self.unsettled += 1,
        }
        match phase {
            Phase::Running => {
                let taken = self.takes(node);
                self.free.take(&taken);
                self.active += 1;
            }
            Phase::LookedUp => self.active += 1,
            Phase::Queued => _ = self.queue.insert(node),
            Phase::Waiting => _ = self.candidates.insert(node),
            _ => {
                self.unsettled -= 1;
                self.look_at_dependents(node);
                self.note_stopped_loop(node);
            }
        }
    }

    fn look_at_dependents(&mut self, node: NodeIndex) {
        let phases = &self.phases;
        let waiting = |dependent: &&NodeIndex| phases[**dependent] == Phase::Waiting;
        self.candidates.extend(self.dependents[node].iter().filter(waiting));
    }

    fn readiness(&self, node: NodeIndex) -> Readiness {
        let described = &self.description.nodes[node];
        if let Some((in_loop, round)) = described.place {
            match self.stopped[in_loop] {
                Some(rounds) if round >= rounds => return Readiness::Skip(Skip::Stopped { in_loop, rounds }),
                _ => {}
            }
            let description = &self.description.loops[in_loop];
            if description.patience.is_some() && round > 0 && !self.is_round_settled(in_loop, round - 1) {
                return Readiness::Wait;
            }
        }
        let mut skip = None;
        for source in &described.sources {
            match self.picked(source) {
                None => return Readiness::Wait,
                Some(Err(reason)) => _ = skip.get_or_insert(reason),
                Some(Ok(needed)) if self.phases[needed] == Phase::Done => {}
                Some(Ok(needed)) if self.phases[needed].is_settled() => {
                    skip.get_or_insert(self.without(needed));
                }
                Some(Ok(_)) => return Readiness::Wait,
            }
        }
        skip.map_or(Readiness::Ready, Readiness::Skip)
    }

    /// The node that a source means; `None` while that is open.
    fn picked(&self, source: &Source) -> Option<Result<NodeIndex, Skip>> {
        let (in_loop, nodes, pick) = match source {
            Source::Node { node, .. } => return Some(Ok(*node)),
            Source::Loop { in_loop, nodes, pick, .. } => (*in_loop, nodes, *pick),
        };
        let description = &self.description.loops[in_loop];
        if pick == Pick::Last && description.patience.is_none() {
            return nodes.last().copied().map(Ok);
        }
        if !self.is_loop_settled(in_loop) {
            return None;
        }
        let members = || description.rounds.iter().flatten().copied();
        let rounds = self.rounds_of(in_loop);
        let broken = |member: &NodeIndex| match self.phases[*member] {
            Phase::Done => false,
            Phase::Skipped(skip) => !skip.is_planned(),
            _ => true,
        };
        if let Some(broken) = members().find(broken) {
            return Some(Err(self.without(broken)));
        }
        let round = match pick {
            Pick::Last => rounds.checked_sub(1),
            Pick::Best => self.best(in_loop).map(|best| best.round),
        };
        Some(round.and_then(|round| nodes.get(round).copied()).ok_or(Skip::NoBest { in_loop }))
    }

    /// The round of a loop that `select` finds best, once the loop has ended.
    pub(crate) fn best(&self, in_loop: usize) -> Option<Best> {
        let rounds = self.rounds_of(in_loop);
        let decides =
            |round: &Vec<NodeIndex>| round.iter().find_map(|&member| Some((self.values[member].select?, member)));
        let decided: Vec<_> = self.description.loops[in_loop].rounds[..rounds].iter().map(decides).collect();
        let values: Vec<Option<f64>> = decided.iter().map(|decided| decided.map(|(value, _)| value)).collect();
        let round = rounds::best(&values).filter(|_| self.is_loop_settled(in_loop))?;
        Some(Best { round, rounds, decided_by: decided[round]?.1 })
    }

    /// How many rounds of a loop run.
    fn rounds_of(&self, in_loop: usize) -> usize {
        self.stopped[in_loop].unwrap_or(self.description.loops[in_loop].rounds.len())
    }

    fn is_loop_settled(&self, in_loop: usize) -> bool {
        self.description.loops[in_loop].rounds.iter().flatten().all(|&member| self.phases[member].is_settled())
    }

    /// Why a node can't run that needs this one, which did not give its outputs: the first cause, not the last.
    fn without(&self, needed: NodeIndex) -> Skip {
        match self.phases[needed] {
            Phase::Skipped(skip) => skip,
            Phase::Cancelled => Skip::Interrupted,
            _ => Skip::Needs(needed),
        }
    }

    fn is_round_settled(&self, in_loop: usize, round: usize) -> bool {
        self.description.loops[in_loop].rounds[round].iter().all(|&member| self.phases[member].is_settled())
    }

    /// Finds out whether a settled node ends its loop.
    fn note_stopped_loop(&mut self, node: NodeIndex) {
        let Some((in_loop, _)) = self.description.nodes[node].place else { return };
        let description = &self.description.loops[in_loop];
        let Some(patience) = description.patience.filter(|_| self.stopped[in_loop].is_none()) else { return };
        let value = |round: &Vec<NodeIndex>| round.iter().find_map(|&member| self.values[member].stop);
        // A round that failed says nothing about the loop.
        let is_done = |round: &&Vec<NodeIndex>| round.iter().all(|&member| self.phases[member] == Phase::Done);
        let values: Vec<Option<f64>> = description.rounds.iter().take_while(is_done).map(value).collect();
        let stopped = (1..=values.len()).find(|&rounds| rounds::stops_after(&values[..rounds], patience));
        if let Some(rounds) = stopped {
            self.stopped[in_loop] = Some(rounds);
            let later = description.rounds[rounds..].iter().flatten();
            self.candidates.extend(later.filter(|member| self.phases[**member] == Phase::Waiting));
        }
    }
}

#[cfg(test)]
mod tests;
