//! `tracetune pin`

use serde_json::json;

use super::runs;
use crate::exit;
use crate::session::Session;

/// Keep a run through every `gc`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The run, by its id or the beginning of it, or `latest`
    run: String,
    /// Let it go again
    #[arg(long)]
    off: bool,
}

/// Pins. JSON: `{run, pinned}`.
pub(crate) fn pin(args: &Args, session: &Session) -> anyhow::Result<u8> {
    let store = session.store_here()?;
    let run = runs::load(&store, &args.run)?;
    run.pin(!args.off)?;
    if session.ui.json {
        session.ui.answer_json(&json!({"run": run.record.id, "pinned": !args.off}));
    } else {
        session.ui.answer(format_args!("{} {}", run.record.id, if args.off { "is not pinned" } else { "is pinned" }));
    }
    Ok(exit::DONE)
}
