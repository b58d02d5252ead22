//! `tracetune rm`

use serde_json::json;
use tracetune_engine::runs::RunStatus;

use super::runs;
use crate::exit;
use crate::session::Session;
use crate::ui::helped;

/// Remove a run's folder: its tables and its log. The store's objects stay until `gc`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The run, by its id or the beginning of it
    run: String,
}

/// Removes. JSON: `{removed}`.
pub(crate) fn rm(args: &Args, session: &Session) -> anyhow::Result<u8> {
    let store = session.store_here()?;
    let run = runs::load(&store, &args.run)?;
    if run.record.status == RunStatus::Running {
        return Err(helped(format!("run `{}` goes on", run.record.id), "interrupt it first"));
    }
    if run.is_pinned() {
        return Err(helped(format!("run `{}` is pinned", run.record.id), "`tracetune pin --off RUN` lets it go"));
    }
    run.remove()?;
    if session.ui.json {
        session.ui.answer_json(&json!({"removed": run.record.id}));
    } else {
        session.ui.answer(format_args!("removed {}", run.record.id));
    }
    Ok(exit::DONE)
}
