//! `tracetune log`

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use serde_json::{Value, json};
use tracetune_engine::cache::Store;
use tracetune_engine::diagnostic::instead;
use tracetune_engine::runs::{Run, RunStatus, copy_log};

use super::runs;
use crate::exit;
use crate::session::Session;
use crate::ui::progress::defused;
use crate::ui::{helped, numbers};

/// Show what happened in a run: its events, one per line; or what the programs of a stage wrote
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The run, by its id or the beginning of it
    #[arg(default_value = "latest")]
    run: String,
    /// What the programs of this stage wrote to their standard output and error
    #[arg(value_name = "STAGE")]
    programs_of: Option<String>,
    /// Go on showing what they write until the run ends
    #[arg(long, requires = "programs_of")]
    follow: bool,
    /// Only the events of this stage
    #[arg(long)]
    stage: Option<String>,
}

/// Prints the events. JSON: `{run, events: […]}`, each as in `events.jsonl`.
pub(crate) fn log(args: &Args, session: &Session) -> anyhow::Result<u8> {
    let store = session.store_here()?;
    let run = runs::load(&store, &args.run)?;
    if let Some(stage) = &args.programs_of {
        return programs_log(run, stage, args.follow, &store, session);
    }
    let is_wanted = |event: &Value| args.stage.as_ref().is_none_or(|stage| event["node"] == **stage);
    let events: Vec<Value> = run.events()?.into_iter().filter(is_wanted).collect();
    if session.ui.json {
        session.ui.answer_json(&json!({"run": run.record.id, "events": events}));
        return Ok(exit::DONE);
    }
    for event in &events {
        let at = event["at_s"].as_f64().unwrap_or_default();
        let name = event["event"].as_str().unwrap_or_default().replace('_', " ");
        let node = event["node"].as_str().unwrap_or_default();
        session.ui.answer(format_args!("{:>12}  {name:<16} {node}{}", numbers::seconds(at), details(event)));
    }
    Ok(exit::DONE)
}

/// Copies what a stage's programs wrote, in the run that computed it. JSON: `{run, stage, text}`, of that run.
fn programs_log(mut run: Run, stage: &str, follow: bool, store: &Store, session: &Session) -> anyhow::Result<u8> {
    if !run.record.nodes.iter().any(|node| node.id == stage) {
        let ids = || run.record.nodes.iter().map(|node| node.id.as_str());
        let help = instead(stage, ids(), "its stages are");
        return Err(helped(format!("run `{}` has no stage `{stage}`", run.record.id), help));
    }
    if follow && session.ui.json {
        return Err(helped("`--follow` has no JSON", "leave one of them out"));
    }
    let mut answer = Answer::new(session.ui.json);
    let mut place = None;
    loop {
        // Asked before the copy, so that what is written until the run's end is copied.
        let goes_on = follow && run.record.status == RunStatus::Running;
        place = copy_log(&run.folder, stage, place.unwrap_or(0), &mut answer)?.or(place);
        if !goes_on {
            break;
        }
        std::thread::sleep(POLL);
        run = runs::load(store, &run.folder.to_string_lossy())?;
    }
    let mut computed = (run.record.id.clone(), stage.to_owned());
    if place.is_none() {
        let node = run.record.nodes.iter().find(|node| node.id == stage);
        let record = node.and_then(|node| node.key).map(|key| store.action(&key)).transpose()?.flatten();
        if let Some(earlier) = record.map(|record| record.provenance).filter(|earlier| earlier.run != run.record.id) {
            let Ok(run) = runs::load(store, &earlier.run) else {
                let message = format!("`{stage}` was computed in run `{}`, which is no longer there", earlier.run);
                return Err(helped(message, "what its programs wrote was removed with that run"));
            };
            session.ui.story(format_args!("computed in run {}, as `{}`", earlier.run, earlier.node));
            place = copy_log(&run.folder, &earlier.node, 0, &mut answer)?;
            computed = (earlier.run, earlier.node);
        }
    }
    if place.is_none() {
        let help = "kinds that run no programs of yours have none; `tracetune log` without a stage shows the events";
        return Err(helped(format!("the programs of `{stage}` wrote nothing that is kept"), help));
    }
    answer.end();
    if session.ui.json {
        let text = String::from_utf8_lossy(&answer.held);
        session.ui.answer_json(&json!({"run": computed.0, "stage": computed.1, "text": text}));
    }
    Ok(exit::DONE)
}

/// How often a log that grows is read again.
const POLL: Duration = Duration::from_millis(200);

/// Standard output: a file or a pipe gets the bytes as they are, a terminal their lines without what would make it do
/// something. For JSON they are collected.
struct Answer {
    to: Receiver,
    /// The line that has not ended, or all there is.
    held: Vec<u8>,
}

enum Receiver {
    Terminal,
    File,
    Json,
}

impl Answer {
    /// Bytes of a line that are held back.
    const LONGEST: usize = 1 << 16;

    fn new(json: bool) -> Self {
        let to = match json {
            true => Receiver::Json,
            false if io::stdout().is_terminal() => Receiver::Terminal,
            false => Receiver::File,
        };
        Self { to, held: Vec::new() }
    }

    fn show(&mut self) {
        let text = String::from_utf8_lossy(&self.held);
        let line = text.trim_end_matches(['\r', '\n']);
        // Of a bar of progress the last state.
        let line = line.rsplit('\r').next().unwrap_or_default();
        put(defused(line).as_bytes());
        if text.ends_with('\n') {
            put(b"\n");
        }
        self.held.clear();
    }

    /// Shows a last line without an end.
    fn end(&mut self) {
        if matches!(self.to, Receiver::Terminal) && !self.held.is_empty() {
            self.held.push(b'\n');
            self.show();
        }
        let _ = io::stdout().flush();
    }
}

impl Write for Answer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.to {
            Receiver::Json => self.held.extend(bytes),
            Receiver::File => put(bytes),
            Receiver::Terminal => {
                for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
                    self.held.extend(piece);
                    if piece.ends_with(b"\n") || self.held.len() > Self::LONGEST {
                        self.show();
                    }
                }
            }
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

/// Writes to standard output.
fn put(bytes: &[u8]) {
    if let Err(error) = io::stdout().lock().write_all(bytes) {
        // Whoever reads has enough: `tracetune log latest train | head`.
        let code = if error.kind() == io::ErrorKind::BrokenPipe { exit::DONE } else { exit::WRONG };
        std::process::exit(i32::from(code));
    }
}

/// What else an event says, as `key=value`.
fn details(event: &Value) -> String {
    let shown = |(key, value): (&String, &Value)| match value {
        _ if ["at_s", "event", "node"].contains(&key.as_str()) => None,
        Value::Null | Value::Array(_) | Value::Object(_) => None,
        Value::String(text) => Some(format!("  {key}={}", defused(text))),
        value => Some(format!("  {key}={value}")),
    };
    event.as_object().into_iter().flatten().filter_map(shown).collect()
}
