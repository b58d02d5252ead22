//! `tracetune audit`

use anyhow::Context;
use serde_json::json;
use tracetune_engine::audit::{self, Options};
use tracetune_engine::pipeline::{Choice, Overrides, Pipeline, project_root};
use tracetune_engine::schedule::Machine;

use super::runs;
use crate::exit;
use crate::interrupt;
use crate::session::Session;
use crate::ui::numbers::counted;
use crate::ui::progress::Progress;
use crate::ui::style;
use crate::ui::table::Words;
use crate::ui::{Reported, helped};

/// Recompute a random sample of a run in a clean store and compare the bytes
///
/// A sampled row stage recomputes some of its rows, any other stage all of its outputs.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tracetune audit latest
  tracetune audit latest --stages 20 --rows 500 --seed 2")]
pub(crate) struct Args {
    /// The run, by its id or the beginning of it
    #[arg(default_value = "latest")]
    run: String,
    /// How many stages
    #[arg(long, value_name = "N", default_value_t = 5)]
    stages: usize,
    /// How many rows of each row stage
    #[arg(long, value_name = "N", default_value_t = 50)]
    rows: usize,
    /// Which stages and rows
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Prints a line a stage; exit code 1 if a byte differs. JSON: `{run, same, findings}`.
pub(crate) fn audit(args: &Args, session: &Session) -> anyhow::Result<u8> {
    let store = session.store_here()?;
    let run = runs::load(&store, &args.run)?;
    let text = run.pipeline_text()?;
    // The text holds everything but which variants were chosen.
    let variants = Choice { only: run.record.parts.clone(), ..Choice::default() };
    let overrides = Overrides { variants, ..Overrides::default() };
    let root = project_root(std::path::Path::new("pipeline.toml"));
    let pipeline = Pipeline::from_text(&text, "pipeline.toml", &root, &session.app.registry, &overrides);
    let pipeline = pipeline.map_err(|problems| {
        session.ui.wrong_pipeline(&problems);
        Reported(exit::WRONG)
    })?;
    let (_folder, clean) = store.temporary().context("no clean store could be made")?;
    let progress = Progress::new(&session.ui, &pipeline, session.app.watch);
    let cancel = interrupt::flag(progress.stopping());
    let threads = Machine::default().threads;
    let options = Options { stages: args.stages, rows: args.rows, seed: args.seed, threads };
    let findings =
        audit::audit(&run, &pipeline, &store, &clean, &options, cancel, &|_| {}).map_err(|error| match error {
            audit::AuditError::Changed { .. } => helped(
                error.to_string(),
                "undo the change to audit that run, or run the pipeline again and audit the new one",
            ),
            audit::AuditError::Gone(_) => helped(error.to_string(), "`gc` took it: run the pipeline again"),
            error => error.into(),
        })?;
    drop(progress);
    let same = findings.iter().all(audit::Finding::is_same);
    if session.ui.json {
        session.ui.answer_json(&json!({"run": run.record.id, "same": same, "findings": findings}));
        return Ok(if same { exit::DONE } else { exit::STAGE_FAILED });
    }
    let mut words = Words::new(["stage", "kind", "recomputed", "result"]);
    for finding in &findings {
        let recomputed = finding.rows.map_or_else(|| "all".to_owned(), |rows| counted(rows, "row"));
        let result = match (&finding.error, finding.different.as_slice()) {
            (Some(error), _) => style::error(error),
            (None, []) => style::good("same bytes"),
            (None, different) => {
                let name = |one: &audit::Difference| {
                    let now = one.recomputed.map_or_else(|| "nothing".to_owned(), |digest| digest.short());
                    format!("{} {} => {now}", one.output, one.recorded.short())
                };
                style::error(&different.iter().map(name).collect::<Vec<_>>().join(", "))
            }
        };
        words.row([finding.node.clone(), finding.kind.clone(), recomputed, result]);
    }
    session.ui.answer(words.text(session.ui.width()));
    let stages = counted(findings.len() as u64, "stage");
    session.ui.answer(format_args!(
        "\n{stages} of run {}: {}",
        run.record.id,
        if same {
            "every byte is the same"
        } else {
            "NOT the same, though their parameters, programs and files are the run's: a stage depends on something that no key covers (a file outside `files`, a clock, a server, a random number), or its kind is not pure"
        }
    ));
    Ok(if same { exit::DONE } else { exit::STAGE_FAILED })
}
