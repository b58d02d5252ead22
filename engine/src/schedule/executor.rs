//! Does what the state machine decides: looks nodes up, starts threads, tells events.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use super::attempt::{ChannelReporter, Message, attempts};
use super::job::{Computed, Job, JobError, NoteKeeper};
use super::state::{Decision, Description, Happening, RoundValues, Skip, State};
use super::{Event, Machine, NodeSummary, RunError, RunOptions, RunSummary, empty};
use crate::cache::{ActionKey, ActionRecord, CacheError, Digest, KeyPart, OutputRecord, Signature, Store, WatchedFile};
use crate::pipeline::{Loop, MetricName, NodeIndex, Pipeline};
use crate::plan::{Forecast, NoKey, Plan, PlannedNode, Recipe, node_key, recipes};
use crate::runs::{
    MetricRow, NodeLog, RunLog, RunStatus, SelectedRound, StageStatus, first_output, metrics_of, outcomes_of,
    shared_name,
};
use crate::stage::StageError;

/// How often a node's lost outputs are computed again before the run gives up on them.
const MOST_RECOVERIES: u32 = 3;

/// How often a node whose files change while it runs is computed again before the run gives up on it.
const MOST_KEY_CHANGES: u32 = 5;

/// Nodes whose records wait for the disk at the most, before no further stage is started.
const MOST_UNSAVED: usize = 32;

/// A stage's stack: what deep recursion in a parser may need.
pub(super) const STACK_BYTES: usize = 16 << 20;

pub(super) fn run(
    pipeline: &Pipeline,
    store: &Store,
    plan: Option<Plan>,
    options: &RunOptions,
    cancel: Arc<AtomicBool>,
    observer: &(dyn Fn(Event) + Sync),
) -> Result<RunSummary, RunError> {
    let _hold = store.hold()?;
    let (sender, receiver) = mpsc::channel();
    let (recipes, found) = match plan {
        Some(Plan { nodes, recipes }) => {
            let hit = |node: PlannedNode| match node.forecast {
                Forecast::Hit(record) => Some((record.key, *record)),
                _ => None,
            };
            (recipes, nodes.into_iter().filter_map(hit).collect())
        }
        None => (recipes(pipeline, store), HashMap::new()),
    };
    let mut executor = Executor {
        pipeline,
        store,
        recipes,
        found,
        forced: options.forced.iter().copied().collect(),
        running: HashMap::new(),
        machine: options.machine.clone(),
        log: RunLog::start(store, pipeline, options.run_id.as_deref())?,
        observer,
        nodes: vec![NodeLog::default(); pipeline.nodes.len()],
        prepared: pipeline.nodes.iter().map(|_| None).collect(),
        rows_in: vec![None; pipeline.nodes.len()],
        recoveries: vec![0; pipeline.nodes.len()],
        key_changes: vec![0; pipeline.nodes.len()],
        unsaved: 0,
        cancel,
        sender,
    };
    let mut state = State::new(Description::of(pipeline, options.machine.clone(), options.keep_going));
    executor.tell(Event::RunStarted {
        run_id: executor.log.id().to_owned(),
        pipeline: pipeline.name.clone(),
        nodes: pipeline.nodes.iter().map(|node| node.id.clone()).collect(),
    });
    let run_id = executor.log.id().to_owned();
    let run_folder = executor.log.folder().to_owned();
    if !options.only.is_empty() {
        for decision in state.restrict(&options.only) {
            if let Decision::Skip(node, skip) = decision {
                executor.skipped(node, skip);
            }
        }
    }
    let mut interrupted = false;
    thread::scope(|scope| {
        while !state.is_over() || executor.unsaved > 0 {
            if !interrupted && executor.cancel.load(Ordering::Relaxed) {
                interrupted = true;
                state.tell(Happening::Interrupt);
            }
            executor.stop_what_must(interrupted);
            let is_behind = executor.unsaved >= MOST_UNSAVED;
            let decisions = if is_behind { Vec::new() } else { state.decide() };
            let idle = decisions.is_empty();
            for decision in decisions {
                match decision {
                    Decision::Lookup(node) => {
                        let happening = executor.lookup(node, &state);
                        state.tell(happening);
                    }
                    Decision::Start(node, threads) => executor.start(scope, node, threads, (&run_id, &run_folder)),
                    Decision::Skip(node, skip) => executor.skipped(node, skip),
                }
            }
            if !idle {
                continue;
            }
            assert!(executor.unsaved > 0 || state.is_over() || state.is_waiting(), "there is nothing to wait for");
            match receiver.recv_timeout(Duration::from_millis(50)) {
                Ok(Message::Event(event)) => executor.tell(event),
                Ok(Message::Ended(node, result)) => {
                    let happening = executor.ended(node, result.map(|computed| *computed));
                    state.tell(happening);
                }
                Ok(Message::Saved(node, result)) => executor.saved(node, result),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("the executor holds a sender"),
            }
        }
    });
    executor.finish(&state)
}

struct Executor<'a> {
    pipeline: &'a Pipeline,
    store: &'a Store,
    recipes: Vec<Result<Recipe, NoKey>>,
    /// What a plan made just now found in the cache.
    found: HashMap<ActionKey, ActionRecord>,
    /// Nodes that are still to be computed although they are in the cache.
    forced: HashSet<NodeIndex>,
    running: HashMap<NodeIndex, Running>,
    machine: Machine,
    log: RunLog<'a>,
    observer: &'a (dyn Fn(Event) + Sync),
    nodes: Vec<NodeLog>,
    /// What a lookup found out about a node that is not in the cache.
    prepared: Vec<Option<Prepared>>,
    /// Rows that a node works on, once its inputs are known.
    rows_in: Vec<Option<u64>>,
    recoveries: Vec<u32>,
    key_changes: Vec<u32>,
    /// Nodes that are done and whose records are being written.
    unsaved: usize,
    cancel: Arc<AtomicBool>,
    sender: Sender<Message>,
}

/// A node's thread.
struct Running {
    cancel: Arc<AtomicBool>,
    deadline: Option<Instant>,
    timed_out: bool,
}

struct Prepared {
    /// Whether what is in the cache does not count.
    force: bool,
    key: ActionKey,
    parts: Vec<KeyPart>,
    signature: Option<Signature>,
    watched: Arc<[WatchedFile]>,
    inputs: BTreeMap<String, (NodeIndex, OutputRecord)>,
}

impl<'a> Executor<'a> {
    fn tell(&mut self, event: Event) {
        self.log.event(&event);
        (self.observer)(event);
    }

    fn id(&self, node: NodeIndex) -> String {
        self.pipeline.nodes[node].id.clone()
    }

    /// Computes the node's key and asks the cache. Its inputs are done.
    fn lookup(&mut self, node: NodeIndex, state: &State) -> Happening {
        let recipe = match &self.recipes[node] {
            Ok(recipe) => recipe,
            Err(NoKey { error, help }) => {
                let (error, help) = (error.clone(), help.clone());
                return self.failed(node, error, help);
            }
        };
        let mut inputs = BTreeMap::new();
        for binding in &self.pipeline.nodes[node].inputs {
            let from = state.resolve(&binding.source).expect("a node is looked up once its inputs are known");
            let name = match &binding.source {
                crate::pipeline::Source::Node { output, .. } | crate::pipeline::Source::Loop { output, .. } => output,
            };
            let Some(output) = self.nodes[from].outputs.get(name) else {
                let error = format!("`{}` has no output `{name}`", self.pipeline.nodes[from].id);
                return self.failed(node, error, None);
            };
            inputs.insert(binding.port.clone(), (from, output.clone()));
        }
        self.rows_in[node] = empty::rows_in(
            &self.pipeline.nodes[node],
            inputs.iter().map(|(port, (_, output))| (port.as_str(), output)),
        );
        self.nodes[node].round = Some(self.round_of(node, inputs.values().map(|(from, _)| *from)));
        let digests: BTreeMap<String, Digest> =
            inputs.iter().map(|(port, (_, output))| (port.clone(), output.digest)).collect();
        let (key, parts) = recipe.action(&digests);
        let signature = recipe.signature(&digests);
        (self.nodes[node].key, self.nodes[node].signature) = (Some(key), signature);
        let watched = Arc::clone(&recipe.watched);
        let force = self.forced.contains(&node);
        self.prepared[node] = Some(Prepared { force, key, parts, signature, watched, inputs });
        let found = match self.found.remove(&key) {
            Some(record) => Ok(Some(record)),
            None => self.store.action(&key),
        };
        match found {
            Ok(Some(record)) if force => {
                // Compared with what is computed now.
                self.nodes[node].outputs = record.outputs;
                Happening::Miss(node)
            }
            Ok(None) => Happening::Miss(node),
            Ok(Some(record)) => {
                let rows_cached = record.items.unwrap_or_default();
                match self.done(node, record, StageStatus::Cached, (rows_cached, 0)) {
                    Ok(happening) => happening,
                    // It was there with its size and yet is damaged: it is computed again.
                    Err(CacheError::Lost { .. }) => Happening::Miss(node),
                    Err(error) => self.failed(node, error.to_string(), None),
                }
            }
            Err(error) => self.failed(node, error.to_string(), None),
        }
    }

    /// The round that a node is about: its own in a loop, else the latest among what it reads. That may be an earlier one
    /// than the file's last, where a loop stopped early or selected a round.
    fn round_of(&self, node: NodeIndex, inputs: impl Iterator<Item = NodeIndex>) -> i32 {
        let described = &self.pipeline.nodes[node];
        let round = |from: NodeIndex| self.nodes[from].round.unwrap_or(self.pipeline.nodes[from].round);
        match described.in_loop {
            Some(_) => described.round,
            None => inputs.map(round).max().unwrap_or_default(),
        }
    }

    fn start<'scope>(
        &mut self,
        scope: &'scope Scope<'scope, '_>,
        node: NodeIndex,
        threads: usize,
        (run_id, run_folder): (&'scope str, &'scope Path),
    ) where
        'a: 'scope,
    {
        let prepared = self.prepared[node].take().expect("a node is looked up before it starts");
        let described = &self.pipeline.nodes[node];
        self.tell(Event::StageStarted {
            node: described.id.clone(),
            kind: described.stage_kind.kind().name().to_owned(),
        });
        let resources = &described.resources;
        if let Some((name, count, there)) = self.machine.lacking(resources) {
            let message = format!("it needs {count} of `{name}`, and the run has {there}");
            let error = StageError::environment(message, format!("run with `--slots {name}={count}`"));
            let _ = self.sender.send(Message::Ended(node, Err(error.into())));
            return;
        }
        let timeout = resources.timeout_s.map(Duration::from_secs_f64);
        let cancel = Arc::new(AtomicBool::new(false));
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        self.running.insert(node, Running { cancel: Arc::clone(&cancel), deadline, timed_out: false });
        let reporter = ChannelReporter::new(described.id.clone(), self.sender.clone());
        let job = Job {
            node: described,
            key: prepared.key,
            parts: prepared.parts,
            signature: prepared.signature,
            watched: prepared.watched,
            inputs: prepared.inputs,
            store: self.store,
            root: &self.pipeline.root,
            run_id,
            run_folder,
            threads,
            force: prepared.force,
            cancel,
            reporter: Arc::new(NoteKeeper::new(reporter)),
        };
        let (sender, store) = (self.sender.clone(), self.store);
        let work = move || attempts(node, &job, store, &sender);
        let spawned =
            thread::Builder::new().name(described.id.clone()).stack_size(STACK_BYTES).spawn_scoped(scope, work);
        if let Err(error) = spawned {
            let error = JobError::Cache(CacheError::io("start a thread for", &described.id)(error));
            let _ = self.sender.send(Message::Ended(node, Err(error)));
        }
    }

    /// Tells the nodes that run to stop if the run is interrupted, or if they took longer than they may.
    fn stop_what_must(&mut self, interrupted: bool) {
        for running in self.running.values_mut() {
            running.timed_out |= running.deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if interrupted || running.timed_out {
                running.cancel.store(true, Ordering::Relaxed);
            }
        }
    }

    fn ended(&mut self, node: NodeIndex, result: Result<Computed, JobError>) -> Happening {
        let timed_out = self.running.remove(&node).is_some_and(|running| running.timed_out);
        match result {
            Ok(computed) => {
                self.unsaved += 1;
                self.forced.remove(&node);
                let status = if computed.was_cached { StageStatus::Cached } else { StageStatus::Computed };
                self.nodes[node].cost = computed.cost;
                let units = (computed.rows_cached, computed.rows_computed);
                match self.done(node, computed.record, status, units) {
                    Ok(happening) => happening,
                    Err(error) => self.failed(node, error.to_string(), None),
                }
            }
            Err(error) if error.is_cancelled() && timed_out => {
                let timeout_s = self.pipeline.nodes[node].resources.timeout_s.unwrap_or_default();
                let message = format!("it ran longer than `timeout_s = {timeout_s}`; what it had finished is kept");
                self.failed(node, message, Some("raise it, or leave it out".to_owned()))
            }
            Err(error) if error.is_cancelled() => {
                let reason = "interrupted; what it had finished is kept".to_owned();
                self.settle(node, StageStatus::Interrupted, &reason);
                self.tell(Event::StageSkipped { node: self.id(node), reason });
                Happening::Cancelled(node)
            }
            Err(JobError::InputLost(from)) if self.recoveries[from] < MOST_RECOVERIES => {
                self.recoveries[from] += 1;
                let text = format!("its output is gone from the cache or damaged; `{}` needs it", self.id(node));
                self.tell(Event::StageNote { node: self.id(from), text });
                Happening::InputLost(node, from)
            }
            Err(JobError::FileChanged(path)) if self.key_changes[node] < MOST_KEY_CHANGES => {
                self.key_changes[node] += 1;
                let path = path.strip_prefix(&self.pipeline.root).unwrap_or(&path);
                let text = format!("`{}` changed since the stage's key was made: it is computed again", path.display());
                self.tell(Event::StageNote { node: self.id(node), text });
                self.recipes = recipes(self.pipeline, self.store);
                Happening::KeyOutdated(node)
            }
            Err(error) => self.failed(node, error.to_string(), error.help()),
        }
    }

    fn saved(&mut self, node: NodeIndex, result: Result<(), CacheError>) {
        self.unsaved -= 1;
        if let Err(error) = result {
            self.failed(node, error.to_string(), None);
        }
    }

    /// A node's outputs are there.
    fn done(
        &mut self,
        node: NodeIndex,
        record: ActionRecord,
        status: StageStatus,
        (rows_cached, rows_computed): (u64, u64),
    ) -> Result<Happening, CacheError> {
        let described = &self.pipeline.nodes[node];
        let metrics = metrics_of(self.store, &record.outputs)?.unwrap_or_default();
        let outcomes = outcomes_of(self.store, &record.outputs)?.unwrap_or_default();
        if let Some((split, metric)) = shared_name(&metrics) {
            let error = format!("its output `metrics` has several rows of split `{split}` and metric `{metric}`");
            let help = "give each figure a name of its own, e.g. with the `k` in it: `pass@5`".to_owned();
            return Ok(self.failed(node, error, Some(help)));
        }
        let values = self.round_values(node, &metrics);
        if let Some(text) = self.decided_twice(node, &metrics) {
            self.tell(Event::StageNote { node: self.id(node), text });
        }
        let first = first_output(described).and_then(|first| record.outputs.get(&first));
        let rows = first.map_or(0, |output| output.rows);
        if let Ok(recipe) = &self.recipes[node] {
            let name = format!("{} {}", self.pipeline.name, described.id);
            self.store.put_recipe(&recipe.key, &name, &record.key)?;
            self.store.put_recipe(&node_key(&self.pipeline.name, &described.id), &name, &record.key)?;
        }
        let before = std::mem::take(&mut self.nodes[node].outputs);
        if !before.is_empty() && before != record.outputs {
            let text = "computed again, it gave other bytes: the kind is not deterministic".to_owned();
            self.tell(Event::StageNote { node: self.id(node), text });
        }
        let lost = empty::lost_rows(described, first, self.rows_in[node], &record.dropped);
        let outputs = record.outputs.iter().map(|(name, output)| (name.clone(), output.digest)).collect();
        let id = self.id(node);
        match status {
            // Told as a failure, below.
            _ if lost.is_some() => {}
            StageStatus::Cached => {
                for text in record.notes {
                    self.tell(Event::StageNote { node: id.clone(), text });
                }
                self.tell(Event::StageCached { node: id.clone(), rows, outputs });
            }
            _ => {
                let cost = self.nodes[node].cost;
                self.tell(Event::StageFinished {
                    node: id.clone(),
                    rows,
                    rows_cached,
                    rows_computed,
                    wall_s: cost.wall_s,
                    cpu_s: cost.cpu_s,
                    outputs,
                });
            }
        }
        if !metrics.is_empty() {
            for variant in &described.variant {
                self.tell(Event::Metrics {
                    node: id.clone(),
                    round: self.nodes[node].round.unwrap_or(described.round),
                    variant: variant.clone(),
                    rows: metrics.clone(),
                });
            }
        }
        let log = &mut self.nodes[node];
        log.status = Some(status);
        log.outputs = record.outputs;
        (log.rows, log.rows_cached, log.rows_computed) = (rows, rows_cached, rows_computed);
        (log.metrics, log.outcomes) = (metrics, outcomes);
        // What it gave stays in the run: its other outputs may say more, as a filter's `dropped`.
        if let Some(lost) = lost {
            return Ok(self.failed(node, lost.error, Some(lost.help)));
        }
        Ok(Happening::Done(node, values))
    }

    /// The loop that a node's metrics may decide for, and its round.
    fn decides_for(&self, node: NodeIndex) -> Option<(&'a Loop, &'a [NodeIndex])> {
        let (pipeline, label) = (self.pipeline, &self.pipeline.nodes[node].variant);
        let mut loops = pipeline.loops.iter().filter(|in_loop| label.contains(&in_loop.label));
        loops.find_map(|in_loop| Some((in_loop, in_loop.rounds.iter().find(|round| round.contains(&node))?.as_slice())))
    }

    fn round_values(&self, node: NodeIndex, metrics: &[MetricRow]) -> RoundValues {
        let Some((in_loop, _)) = self.decides_for(node) else { return RoundValues::default() };
        RoundValues {
            stop: in_loop.stop.as_ref().and_then(|stop| stop.metric.value_in(metrics)),
            select: in_loop.select.as_ref().and_then(|select| select.value_in(metrics)),
        }
    }

    /// Two stages of a round with the metric that decides: which of the two counts.
    fn decided_twice(&self, node: NodeIndex, metrics: &[MetricRow]) -> Option<String> {
        let (in_loop, round) = self.decides_for(node)?;
        let watched = in_loop.stop.as_ref().map(|stop| &stop.metric).into_iter().chain(&in_loop.select);
        watched.filter(|name| name.value_in(metrics).is_some()).find_map(|name| {
            let has = |other: &&NodeIndex| {
                **other == node
                    || (self.pipeline.nodes[**other].variant.contains(&in_loop.label)
                        && name.value_in(&self.nodes[**other].metrics).is_some())
            };
            let mut having = round.iter().filter(has).map(|&other| self.id(other));
            let (first, second) = (having.next()?, having.next()?);
            let MetricName { split, metric } = name;
            Some(format!(
                "`{first}` and `{second}` both have `{split}.{metric}`: loop `{}` goes by `{first}`",
                in_loop.name
            ))
        })
    }

    fn failed(&mut self, node: NodeIndex, error: String, help: Option<String>) -> Happening {
        self.settle(node, StageStatus::Failed, &error);
        self.tell(Event::StageFailed { node: self.id(node), error, help });
        Happening::Failed(node)
    }

    fn skipped(&mut self, node: NodeIndex, skip: Skip) {
        let reason = skip.in_words(self.pipeline).to_string();
        match skip {
            Skip::NoBest { .. } => _ = self.failed(node, reason, None),
            _ => {
                let status = if skip == Skip::Interrupted { StageStatus::Interrupted } else { StageStatus::Skipped };
                self.settle(node, status, &reason);
                self.tell(Event::StageSkipped { node: self.id(node), reason });
            }
        }
    }

    fn settle(&mut self, node: NodeIndex, status: StageStatus, message: &str) {
        self.nodes[node].status = Some(status);
        self.nodes[node].message = Some(message.to_owned());
    }

    /// The rounds that loops chose among several.
    fn selected(&self, state: &State) -> Vec<SelectedRound> {
        let chosen = |(in_loop, described): (usize, &Loop)| {
            let select = described.select.as_ref()?;
            let best = state.best(in_loop).filter(|best| best.rounds > 1)?;
            Some(SelectedRound {
                in_loop: described.name.clone(),
                variants: self.pipeline.nodes[best.decided_by].variant.clone(),
                split: select.split.clone(),
                metric: select.metric.clone(),
                round: best.round as i32 + 1,
                of: best.rounds,
            })
        };
        self.pipeline.loops.iter().enumerate().filter_map(chosen).collect()
    }

    fn finish(mut self, state: &State) -> Result<RunSummary, RunError> {
        let count = |status| self.nodes.iter().filter(|node| node.status == Some(status)).count();
        let (failed, interrupted) = (count(StageStatus::Failed), count(StageStatus::Interrupted));
        let status = match (failed, interrupted) {
            (0, 0) => RunStatus::Done,
            (0, _) => RunStatus::Interrupted,
            _ => RunStatus::Failed,
        };
        let summary = RunSummary {
            run_id: self.log.id().to_owned(),
            folder: self.log.folder().to_owned(),
            status,
            nodes: self
                .pipeline
                .nodes
                .iter()
                .zip(&self.nodes)
                .map(|(node, log)| summary(node.id.clone(), log))
                .collect(),
            wall_s: self.log.wall_s(),
        };
        let last = Event::RunFinished {
            run_id: summary.run_id.clone(),
            status,
            computed: count(StageStatus::Computed),
            cached: count(StageStatus::Cached),
            failed,
            skipped: count(StageStatus::Skipped) + interrupted,
            wall_s: summary.wall_s,
        };
        self.log.event(&last);
        let selected = self.selected(state);
        self.log.finish(status, &self.nodes, selected)?;
        // The run's folder is whole when the last event is told.
        (self.observer)(last);
        Ok(summary)
    }
}

fn summary(id: String, log: &NodeLog) -> NodeSummary {
    NodeSummary {
        id,
        status: log.status.expect("a run ends when every node is settled"),
        key: log.key,
        outputs: log.outputs.clone(),
        rows: log.rows,
        rows_cached: log.rows_cached,
        rows_computed: log.rows_computed,
        message: log.message.clone(),
    }
}
