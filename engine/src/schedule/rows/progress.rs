//! Progress of chunks that are computed side by side, as progress of the stage.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::stage::{Dropped, Reporter};

/// How many of a stage's items are done.
pub(super) struct Done {
    reporter: Arc<dyn Reporter>,
    items: AtomicU64,
    total: u64,
}

impl Done {
    pub(super) fn new(reporter: &Arc<dyn Reporter>, total: usize) -> Arc<Self> {
        Arc::new(Self { reporter: Arc::clone(reporter), items: AtomicU64::new(0), total: total as u64 })
    }

    /// Items that were found, or failed.
    pub(super) fn add(&self, items: usize) {
        self.items.fetch_add(items as u64, Ordering::Relaxed);
    }
}

/// What a chunk tells of itself.
pub(super) struct ChunkProgress {
    stage: Arc<Done>,
    /// Of this chunk, counted in the stage.
    items: AtomicU64,
}

impl ChunkProgress {
    pub(super) fn new(stage: &Arc<Done>) -> Arc<Self> {
        Arc::new(Self { stage: Arc::clone(stage), items: AtomicU64::new(0) })
    }

    /// Takes back what a chunk told that failed.
    pub(super) fn retract(&self) {
        self.stage.items.fetch_sub(self.items.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Reporter for ChunkProgress {
    fn progress(&self, done: u64, _total: u64, text: &str) {
        let before = self.items.fetch_max(done, Ordering::Relaxed);
        let more = done.saturating_sub(before);
        let done = self.stage.items.fetch_add(more, Ordering::Relaxed) + more;
        self.stage.reporter.progress(done.min(self.stage.total), self.stage.total, text);
    }
    fn note(&self, text: &str) {
        self.stage.reporter.note(text);
    }
    fn log(&self, line: &str) {
        self.stage.reporter.log(line);
    }
    fn dropped(&self, dropped: &Dropped) {
        self.stage.reporter.dropped(dropped);
    }
}
