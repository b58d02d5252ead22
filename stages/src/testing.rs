//! What tests of kinds share.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use tracetune_engine::cache::Checkpoint;
use tracetune_engine::runs::StageLog;
use tracetune_engine::stage::{Context, Reporter};

struct Silent;

impl Reporter for Silent {
    fn progress(&self, _: u64, _: u64, _: &str) {}
    fn note(&self, _: &str) {}
}

/// Keeps the notes of a stage.
#[derive(Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Reporter for Notes {
    fn progress(&self, _: u64, _: u64, _: &str) {}
    fn note(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

/// A run in a folder, of which nothing is heard.
pub(crate) fn context(root: &Path) -> Context {
    Context {
        cancel: Arc::new(AtomicBool::new(false)),
        threads: 2,
        root: root.to_owned(),
        scratch: root.to_owned(),
        checkpoint: Checkpoint::in_folder(&root.join("checkpoint")),
        log: Arc::new(StageLog::none()),
        reporter: Arc::new(Silent),
    }
}
