//! Accepts a stage's last results as those of its present key: after a change of code that changes no result, nothing has to
//! be computed again.
//!
//! It is a claim, and it is checked. Of a row stage a sample of the rows is computed with the present code in a clean store that
//! has all others; only if the table put together from both has the bytes of the last one are its record and its rows kept
//! under the present key. Of a stage of whole tables there is no sample: what is not checked must be asked for.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::Serialize;

use crate::audit::{Sample, give_rows};
use crate::cache::{ActionRecord, CacheError, Provenance, Store};
use crate::pipeline::{NodeIndex, Pipeline};
use crate::plan::{self, Cause, NotAcceptable, Why};
use crate::registry::Work;
use crate::schedule::{self, Event, RunError, RunOptions};
use crate::table::{TableError, first_difference};

/// How a claim is checked.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Units of row work that are recomputed (a row and a part); `None` records the results without a check.
    pub rows: Option<usize>,
    /// Which ones.
    pub seed: u64,
    /// Threads.
    pub threads: usize,
}

/// A node whose last results stand for its present key now.
#[derive(Clone, Debug, Serialize)]
pub struct Accepted {
    /// Its id.
    pub node: String,
    /// What had changed.
    pub causes: Vec<Cause>,
    /// Units of row work that were recomputed.
    pub checked: u64,
    /// How many there are; `None` for a stage of whole tables.
    pub items: Option<u64>,
}

/// Why a stage's last results are not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// Its key is as it was.
    #[error("`{0}` is cached: there is nothing to accept")]
    Cached(String),
    /// It has no last results, or something else than code changed.
    #[error("only a change of code can be accepted, and {0}")]
    Because(Why),
    /// It has no rows to take a sample of.
    #[error("`{0}` works on whole tables: there is no sample by which its results could be checked")]
    NotRowwise(String),
    /// The present code gives other results.
    #[error("the results of `{node}` are other ones now: {difference}")]
    Different {
        /// The node.
        node: String,
        /// Where they differ.
        difference: String,
    },
    /// The sample could not be computed.
    #[error("the sample of `{node}` could not be computed: {message}")]
    Failed {
        /// The node.
        node: String,
        /// Why.
        message: String,
    },
    /// The store can't be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The stage could not run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A table can't be read.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// Checks that the node gives the results that it gave the last time, and records them under its present key.
///
/// # Errors
/// [`AcceptError`]; nothing is recorded then.
pub fn accept(
    pipeline: &Pipeline,
    store: &Store,
    index: NodeIndex,
    options: &Options,
    cancel: Arc<AtomicBool>,
    observer: &(dyn Fn(Event) + Sync),
) -> Result<Accepted, AcceptError> {
    let node = &pipeline.nodes[index];
    let id = || node.id.clone();
    let found = match plan::acceptable(pipeline, store, index)? {
        Ok(found) => found,
        Err(NotAcceptable::Cached) => return Err(AcceptError::Cached(id())),
        Err(NotAcceptable::Because(why)) => return Err(AcceptError::Because(why)),
    };
    let accepted = |checked| Accepted { node: id(), causes: found.causes.clone(), checked, items: found.record.items };
    let rows = match (node.stage_kind.work(), &found.signatures) {
        (Work::Rows(work), Some(signatures)) => Some((work, signatures)),
        _ => None,
    };
    let Some(sample) = options.rows else {
        if let Some((work, (then, now))) = rows {
            let none = Sample { rows: 0, seed: options.seed };
            give_rows(work, &found.record, (then, store), (now, store), none)?;
        }
        let text = "accepted without a check after a change of code";
        store.put_action(&ActionRecord {
            key: found.key,
            version: node.stage_kind.kind().version(),
            parts: found.parts.clone(),
            notes: found.record.notes.iter().cloned().chain([text.to_owned()]).collect(),
            provenance: Provenance {
                finished: jiff::Timestamp::now().to_string(),
                tracetune: env!("CARGO_PKG_VERSION").to_owned(),
                ..found.record.provenance.clone()
            },
            ..found.record.clone()
        })?;
        return Ok(accepted(0));
    };
    let Some((work, (then, now))) = rows else { return Err(AcceptError::NotRowwise(id())) };
    let (_folder, clean) = store.temporary()?;
    for record in &found.before {
        clean.take_over(store, record)?;
    }
    let sample = Sample { rows: sample, seed: options.seed };
    give_rows(work, &found.record, (then, store), (now, &clean), sample)?;
    let options = RunOptions {
        only: vec![index],
        run_id: Some("accept".to_owned()),
        ..RunOptions::with_threads(options.threads)
    };
    let summary = schedule::run(pipeline, &clean, &options, cancel, observer)?;
    let ran = summary.nodes.iter().find(|ran| ran.id == node.id);
    let record = clean.action(&found.key)?;
    let (Some(record), Some(ran)) = (record, ran) else {
        let message = ran.and_then(|ran| ran.message.clone()).unwrap_or_else(|| "it did not run".to_owned());
        return Err(AcceptError::Failed { node: id(), message });
    };
    for (name, output) in &found.record.outputs {
        let now = record.outputs.get(name);
        if now.is_some_and(|now| now.digest == output.digest) {
            continue;
        }
        let difference = match now {
            Some(now) => first_difference(&store.table(&output.digest)?, &clean.table(&now.digest)?)?,
            None => "it is not there any more".to_owned(),
        };
        return Err(AcceptError::Different { node: id(), difference: format!("output `{name}`, {difference}") });
    }
    store.take_segments(&clean, now)?;
    store.take_over(&clean, &record)?;
    Ok(accepted(ran.rows_computed))
}

impl std::fmt::Display for Accepted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.items, self.checked) {
            (_, 0) => write!(f, "{}: not checked", self.node),
            (Some(items), checked) => {
                write!(f, "{}: {checked} of {items} rows were computed again, every byte is the same", self.node)
            }
            (None, _) => write!(f, "{}", self.node),
        }
    }
}
