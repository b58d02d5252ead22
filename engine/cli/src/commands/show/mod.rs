//! `tracetune show`

mod chosen;
mod groups;

use std::path::PathBuf;

use serde_json::json;
use tracetune_engine::cache::{OutputType, Store};
use tracetune_engine::compare;
use tracetune_engine::diagnostic::{list, nearest};
use tracetune_engine::runs::{Run, RunsError, StageStatus};

use self::chosen::Chosen;
use super::compare::explained;
use super::seeds;
use crate::exit;
use crate::out_file::write_table;
use crate::session::Session;
use crate::ui::numbers::time;
use crate::ui::results;
use crate::ui::table::{self, Words};
use crate::ui::{helped, numbers, style};
use crate::warnings;

/// Show a run, a stage's table, or a row in full
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tracetune show                          the latest run
  tracetune show latest --by temperature  a sweep's figures by a parameter: means over its other axes
  tracetune show latest verdicts          a stage's table (the last round that is done)
  tracetune show latest verdicts@1        the same in round 1
  tracetune show latest train.curve       another output of a stage
  tracetune show latest verdicts --columns problem_id,fix,verdict
  tracetune show latest verdicts --row 3  one row: prompt, trace, fix in full
  tracetune show latest verdicts --problem mini-0042
  tracetune show latest verdicts --out verdicts.parquet")]
pub(crate) struct Args {
    /// A run's id, the beginning of one, or `latest`
    #[arg(default_value = "latest")]
    run: String,
    /// A stage, `STAGE@ROUND` or `STAGE.OUTPUT`
    stage: Option<String>,
    /// Group the figures by these parameters, e.g. `learning_rate,layers`: means and intervals over all other variants.
    /// A sweep over seeds is grouped by all other axes unless this says otherwise
    #[arg(long, value_name = "PARAMS", value_delimiter = ',', conflicts_with = "stage")]
    by: Vec<String>,
    /// Print this row in full
    #[arg(long, value_name = "N", requires = "stage")]
    row: Option<usize>,
    /// Only the rows of this problem
    #[arg(long, value_name = "ID", requires = "stage")]
    problem: Option<String>,
    /// Only these columns, e.g. `problem_id,fix,verdict`
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "stage")]
    columns: Vec<String>,
    /// How many rows to show
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
    /// Write the rows to a Parquet file instead
    #[arg(long, value_name = "FILE", requires = "stage", conflicts_with = "row")]
    out: Option<PathBuf>,
}

/// Prints what was asked for. JSON: `{run, folder, metrics, groups, warnings}`, or `{stage, columns, total, rows}`.
pub(crate) fn show(args: &Args, session: &Session) -> anyhow::Result<u8> {
    let store = session.store_here()?;
    let run = super::runs::load(&store, &args.run)?;
    match &args.stage {
        None => show_run(&run, &store, &args.by, session),
        Some(stage) => show_stage(&run, &store, stage, args, session),
    }
}

fn show_run(run: &Run, store: &Store, by: &[String], session: &Session) -> anyhow::Result<u8> {
    let figures = run.metric_lines()?;
    let groups = match figures.is_empty() {
        true => None,
        false => compare::grouped(run, by).map_err(|error| explained(error, store))?,
    };
    let warnings = warnings::of(session.app.watch, &figures);
    let record = &run.record;
    if session.ui.json {
        session.ui.answer_json(&json!({
            "run": record, "folder": run.folder, "metrics": figures, "groups": groups, "warnings": warnings,
        }));
        return Ok(exit::DONE);
    }
    let ended = record.ended.as_ref().map(|ended| format!(", ended {}", time(ended))).unwrap_or_default();
    session.ui.answer(style::heading(&record.id));
    let actions: Vec<_> = record
        .nodes
        .iter()
        .filter_map(|node| Some((node.stage.as_str(), store.action(&node.key?).ok()??.params)))
        .collect();
    let seeds = seeds::of_their_own(record.seed, actions.iter().map(|(stage, params)| (*stage, params)));
    session.ui.answer(format_args!(
        "pipeline {}, seed {}{}, {}; started {}{ended}\n{}\n",
        record.pipeline,
        record.seed,
        seeds.map(|seeds| format!(" ({seeds})")).unwrap_or_default(),
        super::runs::status(run),
        time(&record.started),
        run.folder.display(),
    ));
    let mut words = Words::new(["stage", "kind", "status", ">rows", ">size", "outputs"]);
    for node in &record.nodes {
        let first = node.first_output.as_ref().and_then(|name| node.outputs.get(name));
        let status = match node.status {
            None => "-",
            Some(StageStatus::Cached) => "cached",
            Some(StageStatus::Computed) => "computed",
            Some(StageStatus::Failed) => "failed",
            Some(StageStatus::Skipped) => "skipped",
            Some(StageStatus::Interrupted) => "interrupted",
        };
        let rows =
            first.filter(|output| output.output_type == OutputType::Table).map(|output| numbers::count(output.rows));
        let size = first.map(|output| numbers::bytes(output.bytes));
        let outputs: Vec<String> =
            node.outputs.iter().map(|(name, output)| format!("{name} {}", output.digest.short())).collect();
        let last = node.message.clone().unwrap_or_else(|| outputs.join(", "));
        words.row([
            node.id.clone(),
            node.kind.clone(),
            status.to_owned(),
            rows.unwrap_or_default(),
            size.unwrap_or_default(),
            last,
        ]);
    }
    session.ui.answer(words.text(session.ui.width()));
    if !figures.is_empty() {
        session.ui.answer(format_args!("\n{}", results::text(&figures, session.ui.width())));
    }
    if let Some(groups) = groups {
        session.ui.answer(format_args!("\n{}", groups::text(&groups, session.ui.width())));
    }
    if !warnings.is_empty() {
        session.ui.answer(format_args!("\n{}", warnings::text(&warnings)));
    }
    Ok(exit::DONE)
}

fn show_stage(run: &Run, store: &Store, stage: &str, args: &Args, session: &Session) -> anyhow::Result<u8> {
    let (node, output) = run.address(stage);
    let explain = |error: RunsError| match &error {
        RunsError::NoNode { known, .. } => {
            let mut names: Vec<&str> =
                known.iter().map(|id| id.split_once('@').map_or(id.as_str(), |(stage, _)| stage)).collect();
            names.sort_unstable();
            names.dedup();
            let help = match nearest(node, known.iter().map(String::as_str).chain(names.iter().copied())) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("its stages are {}", list(names)),
            };
            helped(error.to_string(), help)
        }
        RunsError::NoOutput { known, .. } if !known.is_empty() => {
            helped(error.to_string(), format!("its outputs are {}", list(known)))
        }
        RunsError::NoOutput { .. } => helped(error.to_string(), "it did not finish in this run"),
        _ => error.into(),
    };
    let record = run.output(node, output).map_err(explain)?;
    if record.output_type == OutputType::Model {
        let folder = store.directory(&record.digest)?;
        if session.ui.json {
            session
                .ui
                .answer_json(&json!({"stage": stage, "folder": folder, "bytes": record.bytes, "files": record.files}));
        } else {
            session.ui.answer(folder.display());
        }
        return Ok(exit::DONE);
    }
    let file = store.table_file(&record.digest)?;
    let chosen = Chosen::new(&file, args.problem.as_deref(), &args.columns)?;
    let id = run.node(node).map(|node| node.id.clone()).unwrap_or_else(|_| node.to_owned());
    if let Some(path) = &args.out {
        let rows = write_table(path, &chosen.schema()?, chosen.pieces()?)?;
        session.ui.story(format_args!("{}: {}", path.display(), numbers::counted(rows, "row")));
        return Ok(exit::DONE);
    }
    let (first, count) = args.row.map_or((0, args.limit), |row| (row, 1));
    let (batch, total) = chosen.some(first, count)?;
    let all = numbers::counted(total as u64, "row");
    if let (0, Some(problem)) = (total, &args.problem) {
        return Err(chosen.no_problem(problem)?);
    }
    if let Some(row) = args.row {
        if batch.num_rows() == 0 {
            return Err(helped(format!("`{stage}` has no row {row}"), format!("it has {all}, counted from 0")));
        }
        if session.ui.json {
            let value = table::json_rows(&batch).pop();
            session.ui.answer_json(&json!({"stage": id, "row": row, "value": value}));
        } else {
            session.ui.answer(table::one_row(&batch, 0));
        }
        return Ok(exit::DONE);
    }
    if session.ui.json {
        let columns: Vec<_> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
        let rows = table::json_rows(&batch);
        session.ui.answer_json(&json!({"stage": id, "columns": columns, "total": total, "rows": rows}));
        return Ok(exit::DONE);
    }
    // One problem's only row is what was meant, in full.
    if args.problem.is_some() && total == 1 && batch.num_rows() == 1 {
        session.ui.answer(table::one_row(&batch, 0));
        return Ok(exit::DONE);
    }
    // What the stage itself added is what one looks for.
    let kind = run.node(node).ok().and_then(|node| session.app.registry.get(&node.kind));
    let adds = kind.and_then(|kind| kind.row()).map(|row| row.adds);
    let adds: Vec<&str> = adds.iter().flat_map(|adds| adds.fields()).map(|field| field.name().as_str()).collect();
    let (text, hidden) = table::rows(&batch, batch.num_rows(), &adds, session.ui.width());
    session.ui.answer(text);
    let more = if batch.num_rows() < total { format!("{} of ", batch.num_rows()) } else { String::new() };
    session.ui.story("");
    if !hidden.is_empty() {
        session.ui.story(style::dim(&format!("not shown: {}", hidden.join(", "))));
    }
    session.ui.story(style::dim(&format!("{id}: {more}{all}; --row N prints one in full")));
    Ok(exit::DONE)
}
