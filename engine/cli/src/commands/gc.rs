//! `tracetune gc`

use serde_json::json;
use tracetune_engine::cache::CacheError;
use tracetune_engine::runs::{self, RunsError};

use crate::exit;
use crate::session::Session;
use crate::ui::{helped, numbers};

/// Clear out of the store what the last runs and the pinned ones don't need
///
/// Says what it would remove; removes it with `--yes`. What is younger than the oldest run that is kept stays. The
/// folders of all runs stay: they are small.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tracetune gc                      what would go, keeping the last 10 runs
  tracetune gc --keep-runs 3 --yes  remove it
  tracetune pin RUN                 keep a run whatever its age")]
pub(crate) struct Args {
    /// How many of the last runs to keep whole
    #[arg(long, value_name = "N", default_value_t = 10)]
    keep_runs: usize,
    /// Remove, and not only say what would go
    #[arg(long)]
    yes: bool,
}

/// Prints what went or would go. JSON: `{dry_run, records, objects, bytes}`.
pub(crate) fn gc(args: &Args, session: &Session) -> anyhow::Result<u8> {
    let store = session.store_here()?;
    let cleared = runs::clear(&store, args.keep_runs, !args.yes).map_err(|error| match error {
        RunsError::Cache(CacheError::InUse) => {
            helped(error.to_string(), "wait for it to end: `tracetune runs` shows it")
        }
        error => error.into(),
    })?;
    if session.ui.json {
        session.ui.answer_json(&json!({
            "dry_run": !args.yes,
            "records": cleared.records,
            "objects": cleared.objects,
            "bytes": cleared.bytes,
        }));
        return Ok(exit::DONE);
    }
    let (objects, records) = (numbers::counted(cleared.objects, "object"), numbers::counted(cleared.records, "record"));
    let verb = if args.yes { "removed" } else { "would remove" };
    session.ui.answer(format_args!("{verb} {objects} ({}) and {records}", numbers::bytes(cleared.bytes)));
    if !args.yes && cleared.records + cleared.objects > 0 {
        session.ui.story("nothing was removed: `tracetune gc --yes` does it");
    }
    Ok(exit::DONE)
}
