//! `tracetune accept`

use std::path::PathBuf;

use serde_json::json;
use tracetune_engine::accept::{self, AcceptError, Options};
use tracetune_engine::schedule::Machine;

use super::run::nodes_called;
use crate::args::SetArgs;
use crate::exit;
use crate::interrupt;
use crate::session::Session;
use crate::ui::helped;
use crate::ui::progress::Progress;

/// Keep a stage's results after a change of code that changes none of them
///
/// A sample of its rows is computed with the present code; if every byte is the same, all results of the last time stand under the
/// present key, and nothing is computed again. Parameters and inputs must be as they were.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tracetune accept pipeline.toml features
  tracetune accept pipeline.toml features --rows 500
  tracetune accept pipeline.toml plots --unchecked       a stage of whole tables has no rows to take a sample of")]
pub(crate) struct Args {
    /// The pipeline file
    file: PathBuf,
    /// The stages, e.g. `features`, or `features@2` for the second round of a loop
    #[arg(required = true, value_name = "STAGE")]
    stages: Vec<String>,
    /// How many rows of each stage are computed again
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    rows: u32,
    /// Which rows
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Compute nothing: the results are kept on your word, and a note with them says so
    #[arg(long, conflicts_with = "rows")]
    unchecked: bool,
    #[command(flatten)]
    set: SetArgs,
}

/// Prints a line a stage; exit code 1 if a byte differs. JSON: `{accepted: [{node, causes, checked, items}]}`.
pub(crate) fn accept(args: &Args, session: &Session) -> anyhow::Result<u8> {
    let pipeline = session.pipeline(&args.file, &args.set.overrides())?;
    let store = session.store(&pipeline.root)?;
    let mut nodes = nodes_called(&args.stages, &pipeline)?;
    nodes.sort_unstable();
    nodes.dedup();
    let rows = (!args.unchecked).then_some(args.rows as usize);
    let threads = Machine::default().threads;
    let options = Options { rows, seed: args.seed, threads };
    let mut all = Vec::new();
    for &index in &nodes {
        let progress = Progress::new(&session.ui, &pipeline, session.app.watch);
        let cancel = interrupt::flag(progress.stopping());
        let accepted = accept::accept(&pipeline, &store, index, &options, cancel, &|_| {});
        drop(progress);
        match accepted {
            Ok(accepted) => {
                if !session.ui.json {
                    session.ui.answer(&accepted);
                }
                all.push(accepted);
            }
            // Of several rounds some may be as they were.
            Err(AcceptError::Cached(_)) if nodes.len() > 1 => {}
            Err(error @ AcceptError::Different { .. }) => {
                session.ui.fatal(&explained(error));
                return Ok(exit::STAGE_FAILED);
            }
            Err(error) => return Err(explained(error)),
        }
    }
    if session.ui.json {
        session.ui.answer_json(&json!({"accepted": all}));
    }
    Ok(exit::DONE)
}

fn explained(error: AcceptError) -> anyhow::Error {
    let message = error.to_string();
    match error {
        AcceptError::NotRowwise(_) => helped(
            message,
            "`tracetune run` computes it, and if it comes out the same nothing after it runs; `--unchecked` takes your word",
        ),
        AcceptError::Because(_) => helped(message, "`tracetune run` computes it"),
        AcceptError::Different { .. } => helped(message, "`tracetune run` computes all of it"),
        error => error.into(),
    }
}
