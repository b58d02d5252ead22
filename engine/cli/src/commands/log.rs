//! `tracetune log`

use serde_json::{Value, json};

use tracetune_engine::cache::Store;
use tracetune_engine::diagnostic::{list, nearest};
use tracetune_engine::runs::{Run, copy_log};

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
    /// Only the events of this stage
    #[arg(long)]
    stage: Option<String>,
}

/// Prints the events. JSON: `{run, events: […]}`, each as in `events.jsonl`.
pub(crate) fn log(args: &Args, session: &Session) -> anyhow::Result<u8> {
    let store = session.store_here()?;
    let run = runs::load(&store, &args.run)?;
    if let Some(stage) = &args.programs_of {
        return programs_log(&run, stage, &store, session);
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

/// Copies what a stage's programs wrote, in the run that computed it.
fn programs_log(run: &Run, stage: &str, store: &Store, session: &Session) -> anyhow::Result<u8> {
    let Some(node) = run.record.nodes.iter().find(|node| node.id == stage) else {
        let ids = || run.record.nodes.iter().map(|node| node.id.as_str());
        let help = match nearest(stage, ids()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("its stages are {}", list(ids())),
        };
        return Err(helped(format!("run `{}` has no stage `{stage}`", run.record.id), help));
    };
    let mut text = Vec::new();
    let mut found = copy_log(&run.folder, stage, &mut text)?;
    let record = node.key.map(|key| store.action(&key)).transpose()?.flatten();
    if let Some(record) = record.filter(|record| !found && record.provenance.run != run.record.id) {
        let computed = &record.provenance;
        if let Ok(earlier) = runs::load(store, &computed.run) {
            found = copy_log(&earlier.folder, &computed.node, &mut text)?;
            session.ui.story(format_args!("computed in run {}, as `{}`", computed.run, computed.node));
        }
    }
    if !found {
        let help = "kinds that run no programs of yours have none; `tracetune log` without a stage shows the events";
        return Err(helped(format!("the programs of `{stage}` wrote nothing that is kept"), help));
    }
    let text = String::from_utf8_lossy(&text);
    // A file or a pipe gets the bytes' text as it is.
    let shown = if console::user_attended() { defused(&text) } else { text.into_owned() };
    session.ui.answer(shown.trim_end_matches('\n'));
    Ok(exit::DONE)
}

/// What else an event says, as `key=value`.
fn details(event: &Value) -> String {
    let shown = |(key, value): (&String, &Value)| match value {
        _ if ["at_s", "event", "node"].contains(&key.as_str()) => None,
        Value::Null | Value::Array(_) | Value::Object(_) => None,
        Value::String(text) => Some(format!("  {key}={text}")),
        value => Some(format!("  {key}={value}")),
    };
    event.as_object().into_iter().flatten().filter_map(shown).collect()
}
