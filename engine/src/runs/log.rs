//! Writes a run's folder while the run goes on, and its tables when it ends, however it ends.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use jiff::Timestamp;
use serde::Serialize;

use super::lines::{StageLine, interval};
use super::params::param_lines;
use super::{
    MetricLine, MetricRow, OutcomeLine, OutcomeRow, RunNode, RunRecord, RunStatus, SelectedRound, StageStatus,
};
use crate::cache::{ActionKey, CacheError, Cost, Destination, Lock, OutputRecord, Signature, Store};
use crate::pipeline::{Node, Pipeline};
use crate::schedule::Event;
use crate::table::{Record, TableError, table_to_bytes};

/// What a run knows of a node so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeLog {
    pub status: Option<StageStatus>,
    /// The round that it is about, once its inputs are known: of a loop's last or best round, that one.
    pub round: Option<i32>,
    pub key: Option<ActionKey>,
    pub signature: Option<Signature>,
    pub outputs: BTreeMap<String, OutputRecord>,
    /// Rows of the first output.
    pub rows: u64,
    pub rows_cached: u64,
    pub rows_computed: u64,
    pub cost: Cost,
    pub metrics: Vec<MetricRow>,
    pub outcomes: Vec<OutcomeRow>,
    pub message: Option<String>,
}

/// The folder of a run that goes on.
pub(crate) struct RunLog<'a> {
    store: &'a Store,
    pipeline: &'a Pipeline,
    record: RunRecord,
    folder: PathBuf,
    events: File,
    started: Instant,
    /// The first event that could not be written.
    error: Option<CacheError>,
    /// Says that the run's process is alive.
    _lock: Option<Lock>,
}

/// The name of a node's default output.
pub(crate) fn first_output(node: &Node) -> Option<String> {
    let inputs = node.inputs.iter().map(|binding| (binding.port.clone(), None)).collect();
    node.stage_kind.outputs(&inputs).first().map(|output| output.name.to_string())
}

pub(super) fn lock_name(id: &str) -> String {
    format!("run-{id}")
}

impl<'a> RunLog<'a> {
    pub(crate) fn start(store: &'a Store, pipeline: &'a Pipeline, id: Option<&str>) -> Result<Self, CacheError> {
        let started = Timestamp::now();
        let id = id.map_or_else(|| new_id(started, &pipeline.name), file_name);
        let (id, folder) = make_run_folder(store, &id)?;
        let lock = store.try_lock(&lock_name(&id))?;
        let mut variants: Vec<String> = pipeline.nodes.iter().flat_map(|node| node.variant.clone()).collect();
        variants.sort();
        variants.dedup();
        let record = RunRecord {
            id,
            pipeline: pipeline.name.clone(),
            seed: pipeline.seed,
            status: RunStatus::Running,
            variants,
            parts: pipeline.variants.clone(),
            started: started.to_string(),
            ended: None,
            tracetune: env!("CARGO_PKG_VERSION").to_owned(),
            selected: Vec::new(),
            nodes: Vec::new(),
        };
        let path = folder.join("events.jsonl");
        let events = File::options().create(true).append(true).open(&path).map_err(CacheError::io("write", &path))?;
        let mut log =
            Self { store, pipeline, record, folder, events, started: Instant::now(), error: None, _lock: lock };
        log.write("pipeline.toml", pipeline.resolved.as_bytes())?;
        log.write_table("params.parquet", &param_lines(&log.record.id, pipeline, &log.record.variants))?;
        log.write_record(&vec![NodeLog::default(); pipeline.nodes.len()])?;
        Ok(log)
    }

    pub(crate) fn id(&self) -> &str {
        &self.record.id
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn wall_s(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Appends an event. What can't be written is told at the end: a run does not stop for it.
    pub(crate) fn event(&mut self, event: &Event) {
        #[derive(Serialize)]
        struct Line<'a> {
            /// Seconds since the run's start.
            at_s: f64,
            #[serde(flatten)]
            event: &'a Event,
        }
        if matches!(event, Event::StageProgress { .. } | Event::StageLog { .. }) {
            return;
        }
        let mut line = serde_json::to_vec(&Line { at_s: self.wall_s(), event }).expect("an event is plain data");
        line.push(b'\n');
        if let Err(error) = self.events.write_all(&line) {
            let path = self.folder.join("events.jsonl");
            self.error.get_or_insert_with(|| CacheError::io("write", path)(error));
        }
    }

    /// Writes the tables and the record.
    pub(crate) fn finish(
        mut self,
        status: RunStatus,
        nodes: &[NodeLog],
        selected: Vec<SelectedRound>,
    ) -> Result<(), CacheError> {
        self.record.status = status;
        self.record.selected = selected;
        self.record.ended = Some(Timestamp::now().to_string());
        let (mut metrics, mut outcomes, mut stages) = (Vec::new(), Vec::new(), Vec::new());
        for (node, log) in self.pipeline.nodes.iter().zip(nodes) {
            for variant in &node.variant {
                metrics.extend(log.metrics.iter().map(|row| self.metric_line(node, log, variant, row)));
                outcomes.extend(log.outcomes.iter().map(|row| self.outcome_line(node, log, variant, row)));
            }
            stages.push(self.stage_line(node, log));
        }
        self.write_table("metrics.parquet", &metrics)?;
        self.write_table("outcomes.parquet", &outcomes)?;
        self.write_table("stages.parquet", &stages)?;
        self.write_record(nodes)?;
        self.error.map_or(Ok(()), Err)
    }

    fn metric_line(&self, node: &Node, log: &NodeLog, variant: &str, row: &MetricRow) -> MetricLine {
        let round = log.round.unwrap_or(node.round);
        let (ci_low, ci_high) = interval(row.ci_low, row.ci_high);
        MetricLine {
            run: self.record.id.clone(),
            pipeline: self.record.pipeline.clone(),
            stage: node.stage.clone(),
            variant: variant.to_owned(),
            round,
            split: row.split.clone(),
            metric: row.metric.clone(),
            k: row.k,
            value: row.value,
            ci_low,
            ci_high,
            n: row.n,
            selected: self.record.selected.iter().any(|selected| selected.has(variant, round, &row.split)),
        }
    }

    fn outcome_line(&self, node: &Node, log: &NodeLog, variant: &str, row: &OutcomeRow) -> OutcomeLine {
        let OutcomeRow { split, problem_id, problem_digest, bug_digest, tests_digest, samples, passes, greedy } =
            row.clone();
        OutcomeLine {
            run: self.record.id.clone(),
            stage: node.stage.clone(),
            variant: variant.to_owned(),
            round: log.round.unwrap_or(node.round),
            split,
            problem_id,
            problem_digest,
            bug_digest,
            tests_digest,
            samples,
            passes,
            greedy,
        }
    }

    /// One line per node: its costs arose once, whatever labels its metrics have.
    fn stage_line(&self, node: &Node, log: &NodeLog) -> StageLine {
        StageLine {
            run: self.record.id.clone(),
            node: node.id.clone(),
            stage: node.stage.clone(),
            variant: node.variant.join(","),
            round: log.round.unwrap_or(node.round),
            kind: node.stage_kind.kind().name().to_owned(),
            action_key: log.key.map(|key| key.to_string()).unwrap_or_default(),
            status: log.status.map(|status| status.name().to_owned()).unwrap_or_default(),
            rows: log.rows as i64,
            rows_cached: log.rows_cached as i64,
            rows_computed: log.rows_computed as i64,
            wall_s: log.cost.wall_s,
            cpu_s: log.cost.cpu_s,
            peak_memory_bytes: log.cost.peak_memory_bytes as i64,
        }
    }

    fn write_table<R: Record>(&self, name: &str, rows: &[R]) -> Result<(), CacheError> {
        let batch = R::write(rows).map_err(TableError::from)?;
        self.write(name, &table_to_bytes(&batch)?)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), CacheError> {
        self.store.write_file(Destination::Telemetry(self.folder.join(name)), bytes)
    }

    fn write_record(&mut self, nodes: &[NodeLog]) -> Result<(), CacheError> {
        self.record.nodes = self
            .pipeline
            .nodes
            .iter()
            .zip(nodes)
            .map(|(node, log)| RunNode {
                id: node.id.clone(),
                stage: node.stage.clone(),
                kind: node.stage_kind.kind().name().to_owned(),
                version: node.stage_kind.kind().version(),
                round: log.round.unwrap_or(node.round),
                variant: node.variant.clone(),
                status: log.status,
                key: log.key,
                signature: log.signature,
                outputs: log.outputs.clone(),
                first_output: first_output(node),
                message: log.message.clone(),
            })
            .collect();
        let text = serde_json::to_vec_pretty(&self.record).expect("a record is plain data");
        self.write("run.json", &text)
    }
}

/// Sorts by time; says which pipeline.
fn new_id(started: Timestamp, pipeline: &str) -> String {
    format!("{}-{}", started.strftime("%Y%m%d-%H%M%S"), file_name(pipeline))
}

/// The name with letters only that are at home in a file's name.
fn file_name(name: &str) -> String {
    let is_fine = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    let name: String = name.chars().map(|letter| if is_fine(letter) { letter } else { '-' }).collect();
    if name.starts_with('.') || name.is_empty() { format!("run{name}") } else { name }
}

/// Makes a folder that no other run has.
fn make_run_folder(store: &Store, id: &str) -> Result<(String, PathBuf), CacheError> {
    let mut number = 1;
    loop {
        let id = if number == 1 { id.to_owned() } else { format!("{id}-{number}") };
        match store.make_run_folder(&id)? {
            Some(folder) => return Ok((id, folder)),
            None => number += 1,
        }
    }
}
