//! What a stage's thread does: its attempts, and the messages that the executor hears of them.

use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use super::Event;
use super::job::{Computed, Job, JobError};
use crate::cache::{CacheError, Store};
use crate::pipeline::NodeIndex;
use crate::stage::{Reporter, StageError};

/// How long to wait before each further attempt at a stage whose failure may be gone a moment later.
const RETRY_PAUSES: [Duration; 3] = [Duration::from_millis(500), Duration::from_secs(3), Duration::from_secs(15)];

/// What the executor is told.
pub(super) enum Message {
    Event(Event),
    Ended(NodeIndex, Result<Box<Computed>, JobError>),
    /// The record of a node that has ended is written.
    Saved(NodeIndex, Result<(), CacheError>),
}

/// Runs a job, again if its failure may be gone a moment later, and saves the record of what it came to.
pub(super) fn attempts(node: NodeIndex, job: &Job, store: &Store, sender: &Sender<Message>) {
    let mut pauses = RETRY_PAUSES.iter();
    let result = loop {
        let result = job.run();
        let (Err(JobError::Stage(StageError::Transient { message, .. })), Some(pause)) = (&result, pauses.next())
        else {
            break result;
        };
        let (node, error) = (job.node.id.clone(), message.clone());
        let retry = Event::StageRetry { node, error, pause_s: pause.as_secs_f64() };
        let _ = sender.send(Message::Event(retry));
        let until = Instant::now() + *pause;
        while Instant::now() < until && !job.cancel.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(20));
        }
    };
    // The executor waits for these messages; it is gone only if it panicked.
    match result {
        Ok((computed, unsaved)) => {
            let record = unsaved.map(|unsaved| (unsaved, computed.record.clone()));
            let _ = sender.send(Message::Ended(node, Ok(Box::new(computed))));
            let saved = record.map_or(Ok(()), |(unsaved, record)| unsaved.save(&record, store));
            let _ = sender.send(Message::Saved(node, saved));
        }
        Err(error) => _ = sender.send(Message::Ended(node, Err(error))),
    }
}

/// Sends a stage's progress and notes to the executor's thread.
pub(super) struct ChannelReporter {
    node: String,
    sender: Sender<Message>,
    /// When progress was last sent.
    last: Mutex<Option<Instant>>,
    lines: Mutex<Lines>,
}

/// Lines of programs in the current interval.
#[derive(Default)]
struct Lines {
    since: Option<Instant>,
    sent: u32,
    left_out: u64,
}

impl ChannelReporter {
    /// A stage may report each row; people and terminals want a few a second.
    const INTERVAL: Duration = Duration::from_millis(50);
    /// Lines of an interval that are passed on: nobody reads more, and those that wait would fill the memory.
    const MOST_LINES: u32 = 500;

    pub(super) fn new(node: String, sender: Sender<Message>) -> Self {
        Self { node, sender, last: Mutex::default(), lines: Mutex::default() }
    }
}

impl Reporter for ChannelReporter {
    fn progress(&self, done: u64, total: u64, text: &str) {
        let Ok(mut last) = self.last.lock() else { return };
        if done < total && last.is_some_and(|last| last.elapsed() < Self::INTERVAL) {
            return;
        }
        *last = Some(Instant::now());
        let event = Event::StageProgress { node: self.node.clone(), done, total, text: text.to_owned() };
        let _ = self.sender.send(Message::Event(event));
    }
    fn log(&self, line: &str) {
        let send = |line: String| {
            let event = Event::StageLog { node: self.node.clone(), line };
            let _ = self.sender.send(Message::Event(event));
        };
        let Ok(mut lines) = self.lines.lock() else { return };
        if lines.since.is_none_or(|since| since.elapsed() >= Self::INTERVAL) {
            if lines.left_out > 0 {
                send(format!("… {} lines are not shown here", lines.left_out));
            }
            *lines = Lines { since: Some(Instant::now()), ..Lines::default() };
        }
        if lines.sent < Self::MOST_LINES {
            lines.sent += 1;
            send(line.to_owned());
        } else {
            lines.left_out += 1;
        }
    }
    fn note(&self, text: &str) {
        let event = Event::StageNote { node: self.node.clone(), text: text.to_owned() };
        let _ = self.sender.send(Message::Event(event));
    }
}
