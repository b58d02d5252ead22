//! `tracetune log`

use serde_json::{Value, json};

use super::runs;
use crate::exit;
use crate::session::Session;
use crate::ui::numbers;

/// Show what happened in a run: its events, one a line
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The run, by its id or the beginning of it
    #[arg(default_value = "latest")]
    run: String,
    /// Only what happened to this stage
    #[arg(long)]
    stage: Option<String>,
}

/// Prints the events. JSON: `{run, events: […]}`, each as in `events.jsonl`.
pub(crate) fn log(args: &Args, session: &Session) -> anyhow::Result<u8> {
    let store = session.store_here()?;
    let run = runs::load(&store, &args.run)?;
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
