//! Proves that a run's results are what its keys say: recomputes a random sample of its stages, and of the rows of its
//! row stages, in a clean store, and compares the bytes.
//!
//! The clean store is given everything but the sample. A sampled row stage finds all its rows but the sampled ones; the
//! table put together from both has the recorded digest only if the recomputed rows have the recorded bytes.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::Serialize;

use crate::cache::{ActionRecord, CacheError, Digest, Place, Signature, Store};
use crate::pipeline::{Node, Pipeline};
use crate::plan::{self, row_keys};
use crate::registry::{RowWork, Work};
use crate::runs::{Run, RunStatus};
use crate::schedule::{self, Event, NodeSummary, RunError, RunOptions};
use crate::stage::RowKey;
use crate::table::{TableError, row_digests};

/// How much to recompute.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Stages.
    pub stages: usize,
    /// Units of row work (a row and a part) of each row stage.
    pub rows: usize,
    /// Which ones.
    pub seed: u64,
    /// Threads.
    pub threads: usize,
}

/// What became of a sampled stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// Its id.
    pub node: String,
    /// Its kind.
    pub kind: String,
    /// Units of row work that were recomputed; `None` for a table stage, which was recomputed whole.
    pub rows: Option<u64>,
    /// Outputs whose bytes are not the recorded ones.
    pub different: Vec<Difference>,
    /// Why it could not be recomputed.
    pub error: Option<String>,
}

/// An output with other bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Its name.
    pub output: String,
    /// The digest in the run.
    pub recorded: Digest,
    /// The digest now; `None` if the output is not there.
    pub recomputed: Option<Digest>,
}

impl Finding {
    /// Whether every byte is the same.
    pub fn is_same(&self) -> bool {
        self.different.is_empty() && self.error.is_none()
    }
}

/// Why there is nothing to say.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The run did not end well.
    #[error("run `{0}` is not done: only a finished run can be audited")]
    NotDone(String),
    /// The run's pipeline is another one.
    #[error("stage `{node}` of run `{run}` is not in the pipeline any more")]
    OtherPipeline {
        /// The run.
        run: String,
        /// The stage.
        node: String,
    },
    /// The stages' keys are other ones now: what would be recomputed is not what the run computed.
    #[error("run `{run}` can't be audited: what its stages depend on changed since\n  {}", .changes.join("\n  "))]
    Changed {
        /// The run.
        run: String,
        /// A sentence for each stage.
        changes: Vec<String>,
    },
    /// What the run needs is gone.
    #[error("nothing of run `{0}` is left in the store")]
    Gone(String),
    /// A store can't be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A table can't be read.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The stages could not run.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// Recomputes a sample of `run`, which `pipeline` made in `store`, in the empty store `clean`.
///
/// # Errors
/// [`AuditError`]. Stages that fail or differ are findings, not errors.
pub fn audit(
    run: &Run,
    pipeline: &Pipeline,
    store: &Store,
    clean: &Store,
    options: &Options,
    cancel: Arc<AtomicBool>,
    observer: &(dyn Fn(Event) + Sync),
) -> Result<Vec<Finding>, AuditError> {
    if run.record.status != RunStatus::Done {
        return Err(AuditError::NotDone(run.record.id.clone()));
    }
    let mut known: Vec<(&Node, ActionRecord, Option<Signature>)> = Vec::new();
    for ran in &run.record.nodes {
        let Some(key) = ran.key else { continue };
        let Some(node) = pipeline.nodes.iter().find(|node| node.id == ran.id) else {
            return Err(AuditError::OtherPipeline { run: run.record.id.clone(), node: ran.id.clone() });
        };
        known.extend(store.action(&key)?.map(|record| (node, record, ran.signature)));
    }
    if known.is_empty() {
        return Err(AuditError::Gone(run.record.id.clone()));
    }
    let changes = plan::changes(pipeline, store, known.iter().map(|(node, record, _)| (*node, record)));
    if !changes.is_empty() {
        return Err(AuditError::Changed { run: run.record.id.clone(), changes });
    }
    let mut order: Vec<usize> = (0..known.len()).collect();
    order.sort_by_key(|&index| *draw(options.seed, known[index].0.id.as_bytes()).as_bytes());
    let sampled = &order[..options.stages.min(order.len())];
    for (index, (node, record, signature)) in known.iter().enumerate() {
        if !sampled.contains(&index) {
            clean.take_over(store, record)?;
        } else if let Some(signature) = signature {
            prefill(node, record, signature, store, clean, options)?;
        }
    }
    let run_options =
        RunOptions { keep_going: true, run_id: Some("audit".to_owned()), ..RunOptions::with_threads(options.threads) };
    let summary = schedule::run(pipeline, clean, &run_options, cancel, observer)?;
    let mut findings: Vec<Finding> = Vec::new();
    for &index in sampled {
        let (node, record, _) = &known[index];
        findings.extend(summary.nodes.iter().find(|ran| ran.id == node.id).map(|ran| finding(node, record, ran)));
    }
    findings.sort_by(|a, b| a.node.cmp(&b.node));
    Ok(findings)
}

/// Gives the clean store all rows of a stage but the sampled ones.
fn prefill(
    node: &Node,
    record: &ActionRecord,
    signature: &Signature,
    store: &Store,
    clean: &Store,
    options: &Options,
) -> Result<(), AuditError> {
    let Work::Rows(work) = node.stage_kind.work() else { return Ok(()) };
    let sample = Sample { rows: options.rows, seed: options.seed };
    give_rows(work, record, (signature, store), (signature, clean), sample)?;
    Ok(())
}

/// Units of row work that are to be recomputed.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    pub rows: usize,
    pub seed: u64,
}

/// Gives another store, or another signature of the same one, all rows of an action but a sample of them. Gives the number
/// of rows in the sample.
pub(crate) fn give_rows(
    work: &dyn RowWork,
    record: &ActionRecord,
    (signature, from): (&Signature, &Store),
    (new_signature, into): (&Signature, &Store),
    sample: Sample,
) -> Result<usize, CacheError> {
    let shape = work.shape();
    let Some(table) = record.input(shape.port) else { return Ok(0) };
    let digests = row_digests(&from.table(&table)?, &shape.reads)?;
    let parts = work.parts();
    let both = row_keys(signature, &digests, &parts).zip(row_keys(new_signature, &digests, &parts));
    let mut items: Vec<((RowKey, RowKey), i32)> = both.zip(parts.iter().copied().cycle()).collect();
    items.sort_unstable_by_key(|((key, _), _)| *draw(sample.seed, &key.0).as_bytes());
    items.dedup();
    let sampled = sample.rows.min(items.len());
    let mut segments = from.segments(signature)?;
    let kept = items.into_iter().skip(sampled);
    let kept = kept.filter_map(|((key, new), part)| Some((new, part, segments.find(&key)?)));
    let kept: Vec<(RowKey, i32, Place)> = kept.collect();
    if kept.is_empty() {
        return Ok(sampled);
    }
    let keys: Vec<RowKey> = kept.iter().map(|(key, ..)| *key).collect();
    let parts: Vec<i32> = kept.iter().map(|(_, part, _)| *part).collect();
    let places: Vec<Place> = kept.iter().map(|(.., place)| *place).collect();
    let (added, counts) = segments.gather(from, &places, &shape.adds)?;
    let mut empty = into.segments(new_signature)?;
    into.put_segment(new_signature, &mut empty, (&keys, &parts, &counts), &added)?;
    Ok(sampled)
}

fn finding(node: &Node, record: &ActionRecord, ran: &NodeSummary) -> Finding {
    let recomputed = |name: &String| ran.outputs.get(name).map(|output| output.digest);
    let different = record.outputs.iter().filter(|(name, output)| recomputed(name) != Some(output.digest));
    let different = different.map(|(name, output)| Difference {
        output: name.clone(),
        recorded: output.digest,
        recomputed: recomputed(name),
    });
    let is_done = !ran.outputs.is_empty();
    Finding {
        node: node.id.clone(),
        kind: node.stage_kind.kind().name().to_owned(),
        rows: matches!(node.stage_kind.work(), Work::Rows(_)).then_some(ran.rows_computed),
        different: if is_done { different.collect() } else { Vec::new() },
        error: if is_done { None } else { Some(ran.message.clone().unwrap_or_else(|| "it did not run".to_owned())) },
    }
}

fn draw(seed: u64, name: &[u8]) -> blake3::Hash {
    blake3::Hasher::new().update(&seed.to_le_bytes()).update(name).finalize()
}
