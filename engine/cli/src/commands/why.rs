//! `tracetune why`

use std::path::PathBuf;

use serde_json::json;
use tracetune_engine::diagnostic::instead;
use tracetune_engine::plan::{self, Forecast, WhichRows};

use crate::args::SetArgs;
use crate::exit;
use crate::session::Session;
use crate::ui::{helped, numbers, style};

/// Say why a stage, or one of its rows, would or would not be computed
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tracetune why pipeline.toml verdicts@2
  tracetune why pipeline.toml verdicts@2 17
  tracetune why pipeline.toml verdicts@2 problem_id=mini/test/00007
  tracetune why pipeline.toml samples --set temperature=0.9")]
pub(crate) struct Args {
    /// The pipeline file
    file: PathBuf,
    /// The stage, e.g. `verdicts`, or `verdicts@2` for the second round of a loop
    stage: String,
    /// A row of the table that the stage reads: its number, from 0, or `COLUMN=VALUE`
    #[arg(value_name = "ROW", value_parser = which_rows)]
    row: Option<WhichRows>,
    #[command(flatten)]
    set: SetArgs,
}

/// Rows of one value that are shown.
const SHOWN: usize = 20;

fn which_rows(text: &str) -> Result<WhichRows, String> {
    match (text.parse(), text.split_once('=')) {
        (Ok(number), _) => Ok(WhichRows::Number(number)),
        (_, Some((column, value))) => Ok(WhichRows::Value(column.to_owned(), value.to_owned())),
        _ => Err("write a row's number, from 0, or COLUMN=VALUE".to_owned()),
    }
}

/// Prints each round's reason. JSON: `{stages: [{id, cached, text, causes, estimate}]}`; with a row,
/// `{rows: [{node, row, parts, cached, causes, columns}]}`.
pub(crate) fn why(args: &Args, session: &Session) -> anyhow::Result<u8> {
    let pipeline = session.pipeline(&args.file, &args.set.overrides())?;
    let wanted = args.stage.as_str();
    let is_it = |id: &str, stage: &str| id == wanted || stage == wanted;
    let ids: Vec<&str> =
        pipeline.nodes.iter().filter(|node| is_it(&node.id, &node.stage)).map(|node| node.id.as_str()).collect();
    if ids.is_empty() {
        let mut known: Vec<&str> = pipeline.nodes.iter().map(|node| node.stage.as_str()).collect();
        known.dedup();
        let help = instead(wanted, known, "the stages are");
        return Err(helped(format!("the pipeline has no stage `{wanted}`"), help));
    }
    let store = session.store(&pipeline.root)?;
    if let Some(which) = &args.row {
        let indices = (0..pipeline.nodes.len()).filter(|&node| ids.contains(&pipeline.nodes[node].id.as_str()));
        let rows = indices.map(|node| plan::why_rows(&pipeline, &store, node, which)).collect::<Result<Vec<_>, _>>()?;
        let rows: Vec<_> = rows.into_iter().flatten().collect();
        if session.ui.json {
            session.ui.answer_json(&json!({"rows": rows}));
        } else {
            rows.iter().take(SHOWN).for_each(|row| session.ui.answer(row));
            if rows.len() > SHOWN {
                session.ui.story(style::dim(&format!("and {} more rows; --json has all", rows.len() - SHOWN)));
            }
        }
        return Ok(exit::DONE);
    }
    let plan = plan::plan(&pipeline, &store)?;
    let nodes: Vec<_> = plan.nodes.iter().filter(|node| ids.contains(&node.id.as_str())).collect();
    if session.ui.json {
        let stages: Vec<_> = nodes
            .iter()
            .map(|node| {
                json!({
                    "id": node.id,
                    "cached": matches!(node.forecast, Forecast::Hit(_)),
                    "text": node.why.to_string(),
                    "causes": node.why.causes,
                    "estimate": node.estimate,
                })
            })
            .collect();
        session.ui.answer_json(&json!({"stages": stages}));
        return Ok(exit::DONE);
    }
    for node in nodes {
        session.ui.answer(&node.why);
        match &node.forecast {
            Forecast::Hit(record) => {
                let made = &record.provenance;
                session.ui.answer(format_args!(
                    "  key {}, computed by run {} at {}",
                    record.key.short(),
                    made.run,
                    numbers::time(&made.finished)
                ));
            }
            Forecast::Blocked { help: Some(help), .. } => session.ui.answer(format_args!("  help: {help}")),
            _ => {}
        }
        if let Some(estimate) = node.estimate.filter(|_| !matches!(node.forecast, Forecast::Hit(_))) {
            let last_time = if estimate.exact { "" } else { " (as the last time)" };
            let (items, cached) = (numbers::counted(estimate.items, "row"), numbers::count(estimate.cached));
            session.ui.answer(format_args!("  {items}{last_time}, {cached} of them cached"));
        }
    }
    Ok(exit::DONE)
}
