//! `tracetune gc`

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde_json::json;
use tracetune_engine::cache::CacheError;
use tracetune_engine::pipeline::Overrides;
use tracetune_engine::plan::{self, Forecast};
use tracetune_engine::runs::{self, Keep, RunsError};

use crate::exit;
use crate::session::Session;
use crate::ui::{helped, numbers};

/// Clear out of the store what the last runs, the pinned ones and the named pipelines don't need
///
/// Says what it would remove; removes it with `--yes`. What is younger than the oldest run that is kept stays. The
/// folders of all runs stay: they are small.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tracetune gc                      what would go, keeping the last 10 runs
  tracetune gc --keep-runs 3 --yes  remove it
  tracetune gc --keep-runs 0 --keep-days 30 pipelines/*.toml
  tracetune pin RUN                 keep a run whatever its age")]
pub(crate) struct Args {
    /// Pipelines: what they find in the cache as they are now stays
    #[arg(value_name = "FILE")]
    pipelines: Vec<PathBuf>,
    /// Keep the runs of so many days, too
    #[arg(long, value_name = "D")]
    keep_days: Option<u32>,
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
    let mut keep = Keep { runs: args.keep_runs, ..Keep::default() };
    keep.since = args.keep_days.map(|days| SystemTime::now() - Duration::from_secs(u64::from(days) * 24 * 3600));
    for file in &args.pipelines {
        let pipeline = session.pipeline(file, &Overrides::default())?;
        for node in plan::plan(&pipeline, &store)?.nodes {
            if let Forecast::Hit(record) = node.forecast {
                keep.actions.insert(record.key);
            }
        }
    }
    let cleared = runs::clear(&store, keep, !args.yes).map_err(|error| match error {
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
