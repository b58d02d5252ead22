//! `tracetune runs`

use serde_json::json;
use tracetune_engine::cache::Store;
use tracetune_engine::diagnostic::{list, nearest};
use tracetune_engine::runs::{self, Run, RunStatus, RunsError, StageStatus};

use crate::exit;
use crate::session::Session;
use crate::ui::helped;
use crate::ui::numbers::time;
use crate::ui::table::Words;

/// List the runs of this project, the latest first
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Show at most so many
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
}

/// Prints the list. JSON: `{runs: [run.json, …]}`.
pub(crate) fn runs(args: &Args, session: &Session) -> anyhow::Result<u8> {
    let store = session.store_here()?;
    let mut found = runs::list(&store)?;
    found.reverse();
    if session.ui.json {
        let records: Vec<_> = found.iter().take(args.limit).map(|run| &run.record).collect();
        session.ui.answer_json(&json!({"runs": records}));
        return Ok(exit::DONE);
    }
    if found.is_empty() {
        session.ui.story(format_args!("no runs in {}", store.location()));
        return Ok(exit::DONE);
    }
    let mut words = Words::new(["run", "pipeline", "status", ">stages", ">cached", ">computed", "started"]);
    for run in found.iter().take(args.limit) {
        let number = |status: StageStatus| {
            run.record.nodes.iter().filter(|node| node.status == Some(status)).count().to_string()
        };
        words.row([
            run.record.id.clone(),
            run.record.pipeline.clone(),
            status(run).to_owned(),
            run.record.nodes.len().to_string(),
            number(StageStatus::Cached),
            number(StageStatus::Computed),
            time(&run.record.started),
        ]);
    }
    session.ui.answer(words.text(session.ui.width()));
    Ok(exit::DONE)
}

/// How a run ended, in a word.
pub(crate) fn status(run: &Run) -> &'static str {
    match run.record.status {
        RunStatus::Running => "running",
        RunStatus::Done => "done",
        RunStatus::Failed => "failed",
        RunStatus::Interrupted => "interrupted",
    }
}

/// The run of that id, or an error that says which there are.
pub(crate) fn load(store: &Store, id: &str) -> anyhow::Result<Run> {
    runs::load(store, id).map_err(|error| explained(error, store))
}

/// A run that can't be found, with those there are.
pub(crate) fn explained(error: RunsError, store: &Store) -> anyhow::Error {
    let help = match &error {
        RunsError::NoRun(id) => {
            let known = runs::list(store).unwrap_or_default();
            let near = nearest(id, known.iter().map(|run| run.record.id.as_str()).chain(["latest"])).map(str::to_owned);
            match (near, known.last()) {
                (Some(near), _) => format!("did you mean `{near}`?"),
                (None, Some(last)) => format!("`tracetune runs` lists them; the latest is `{}`", last.record.id),
                (None, None) => format!("there are no runs in `{}` yet: `tracetune run`", store.location()),
            }
        }
        RunsError::Ambiguous { known, .. } => format!("they are {}", list(known)),
        _ => return error.into(),
    };
    helped(error.to_string(), help)
}
