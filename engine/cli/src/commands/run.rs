//! `tracetune run`

use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use tracetune_engine::cache::{OutputType, Store};
use tracetune_engine::diagnostic::{list, nearest};
use tracetune_engine::pipeline::{NodeIndex, Pipeline, parse_bytes, project_root};
use tracetune_engine::plan::{self, Forecast, Plan};
use tracetune_engine::registry::Work;
use tracetune_engine::runs::{self, MetricLine, RunStatus, StageStatus};
use tracetune_engine::schedule::{self, Event, Machine, NodeSummary, RunOptions, RunSummary};

use super::plan::Summary;
use super::seeds;
use crate::args::PipelineArgs;
use crate::env_vars;
use crate::exit;
use crate::interrupt;
use crate::session::Session;
use crate::ui::helped;
use crate::ui::numbers::{self, counted};
use crate::ui::progress::Progress;
use crate::ui::results;
use crate::ui::style::{self, Verb};
use crate::{Warning, warnings};

/// Run a pipeline: compute what is not in the store yet
///
/// Stages whose inputs, parameters and code are as before come from the store, and of the others only the rows that no
/// run has finished are computed. Ctrl-C finishes the rows in flight; the next run goes on from there.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tracetune run
  tracetune run pipelines/quickstart.toml --set samples=24
  tracetune run --set rounds.samples.temperature=0.9 -j 8
  tracetune run pipelines/quickstart.toml eval_before --force eval_before")]
pub(crate) struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Only these stages and what they need: `verify`, or `verify@2` for one round of a loop
    #[arg(value_name = "STAGE")]
    stages: Vec<String>,
    /// Compute a stage again although it is in the store; what it gives replaces what was there (may be repeated)
    #[arg(long, value_name = "STAGE")]
    force: Vec<String>,
    /// How many threads stages may use together [default: all]; results do not depend on it
    #[arg(short = 'j', long, visible_alias = "jobs", value_name = "N", env = env_vars::THREADS, value_parser = clap::value_parser!(u32).range(1..))]
    threads: Option<u32>,
    /// How much memory the stages that state their `memory_bytes` may use together, e.g. 16GiB [default: all]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    memory: Option<u64>,
    /// How many there are of what stages take by their `slots`, e.g. `gpu=2` [default: one of each] (may be repeated)
    #[arg(long, value_name = "NAME=N", value_parser = slots)]
    slots: Vec<(String, usize)>,
    /// Go on with what does not depend on a stage that failed
    #[arg(long)]
    keep_going: bool,
}

/// The run as JSON.
#[derive(Serialize)]
struct View<'a> {
    run: &'a str,
    folder: &'a Path,
    status: RunStatus,
    wall_s: f64,
    nodes: Vec<NodeView<'a>>,
    metrics: &'a [MetricLine],
    warnings: &'a [Warning],
}

#[derive(Serialize)]
struct NodeView<'a> {
    id: &'a str,
    status: StageStatus,
    rows: u64,
    rows_cached: u64,
    rows_computed: u64,
    message: Option<&'a str>,
}

/// Runs, and prints the results.
pub(crate) fn run(args: &Args, session: &Session) -> anyhow::Result<u8> {
    let pipeline = session.pipeline(&args.pipeline.file, &args.pipeline.set.overrides())?;
    let store = session.store(&pipeline.root)?;
    let ui = &session.ui;
    let only = nodes_called(&args.stages, &pipeline)?;
    let forced = nodes_called(&args.force, &pipeline)?;
    let plan = plan::plan(&pipeline, &store)?;
    if !ui.quiet {
        ui.verb(Verb::Plan, format_args!("{}, seed {}, {}", pipeline.name, pipeline.seed, Summary::of(&plan).words()));
        let nodes = pipeline.nodes.iter().map(|node| (node.stage.as_str(), node.stage_kind.params()));
        if let Some(seeds) = seeds::of_their_own(pipeline.seed, nodes) {
            ui.verb(Verb::Note, seeds);
        }
        if ui.verbose > 0 {
            for node in plan.nodes.iter().filter(|node| !node.why.causes.is_empty()) {
                ui.verb(Verb::Stale, &node.why);
            }
        }
    }
    let mut machine = Machine::default();
    machine.threads = args.threads.map_or(machine.threads, |threads| threads as usize);
    machine.memory_bytes = args.memory.unwrap_or(machine.memory_bytes);
    machine.slots = args.slots.iter().cloned().collect();
    check_slots(&pipeline, &plan, &machine, &only)?;
    let options = RunOptions { machine, keep_going: args.keep_going, only, forced, run_id: None };
    let progress = Progress::new(ui, &pipeline, session.app.watch);
    let cancel = interrupt::flag(progress.stopping());
    let observer = |event: Event| progress.show(&event);
    let summary = schedule::run_planned(&pipeline, &store, plan, &options, cancel, &observer)
        .context("the run could not go on")?;
    report(&pipeline, &store, &summary, session)
}

/// That the run has the slots which the stages take that will or may be computed.
fn check_slots(pipeline: &Pipeline, plan: &Plan, machine: &Machine, only: &[NodeIndex]) -> anyhow::Result<()> {
    for (index, (node, planned)) in pipeline.nodes.iter().zip(&plan.nodes).enumerate() {
        if matches!(planned.forecast, Forecast::Hit(_) | Forecast::Skipped)
            || !(only.is_empty() || only.contains(&index))
        {
            continue;
        }
        if let Some((name, count, there)) = machine.lacking(&node.resources) {
            let message = format!("`{}` takes {count} of `{name}`, and the run has {there}", node.stage);
            return Err(helped(message, format!("say how many there are: `--slots {name}={count}`")));
        }
    }
    Ok(())
}

/// The nodes that words of the command line mean: ids, or stages with all their rounds.
pub(super) fn nodes_called(words: &[String], pipeline: &Pipeline) -> anyhow::Result<Vec<NodeIndex>> {
    let mut called = Vec::new();
    for word in words {
        let before = called.len();
        let is_meant = |index: &NodeIndex| {
            let node = &pipeline.nodes[*index];
            [node.id.as_str(), node.stage.as_str()].contains(&word.as_str())
        };
        called.extend((0..pipeline.nodes.len()).filter(is_meant));
        if called.len() == before {
            let ids = || pipeline.nodes.iter().map(|node| node.id.as_str());
            let help = match nearest(word, ids().chain(pipeline.nodes.iter().map(|node| node.stage.as_str()))) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("its stages are {}", list(ids())),
            };
            return Err(helped(format!("`{}` has no stage `{word}`", pipeline.name), help));
        }
    }
    Ok(called)
}

fn slots(text: &str) -> Result<(String, usize), String> {
    let (name, count) = text.split_once('=').ok_or("write NAME=N, e.g. gpu=2")?;
    Ok((name.to_owned(), count.parse().map_err(|_| format!("`{count}` is no number"))?))
}

fn report(pipeline: &Pipeline, store: &Store, summary: &RunSummary, session: &Session) -> anyhow::Result<u8> {
    let ui = &session.ui;
    // By its folder: that of a read-only store's run is outside the store.
    let figures = runs::load(store, &summary.folder.to_string_lossy())?.metric_lines()?;
    let warnings = warnings::of(session.app.watch, &figures);
    let code = match summary.status {
        RunStatus::Failed => exit::STAGE_FAILED,
        RunStatus::Interrupted => exit::INTERRUPTED,
        RunStatus::Done | RunStatus::Running => exit::DONE,
    };
    if ui.json {
        ui.answer_json(&View {
            run: &summary.run_id,
            folder: &summary.folder,
            status: summary.status,
            wall_s: summary.wall_s,
            nodes: summary.nodes.iter().map(NodeView::new).collect(),
            metrics: &figures,
            warnings: &warnings,
        });
        return Ok(code);
    }
    let verb = match summary.status {
        RunStatus::Failed => Verb::Failed,
        RunStatus::Interrupted => Verb::Interrupted,
        RunStatus::Done | RunStatus::Running => Verb::Done,
    };
    ui.verb(
        verb,
        format_args!("run {} in {}: {}", summary.run_id, numbers::seconds(summary.wall_s), outcome(&summary.nodes)),
    );
    if store.is_read_only() {
        ui.verb(Verb::Note, format_args!("the store is read-only: the run is kept in {}", summary.folder.display()));
    }
    if !figures.is_empty() {
        ui.story("");
        ui.answer(results::text(&figures, ui.width()));
    }
    if !warnings.is_empty() {
        ui.story(format_args!("\n{}", warnings::text(&warnings)));
    }
    ui.story(format_args!("\n{}", next_steps(pipeline, store, summary, session)));
    Ok(code)
}

impl<'a> NodeView<'a> {
    fn new(node: &'a NodeSummary) -> Self {
        Self {
            id: &node.id,
            status: node.status,
            rows: node.rows,
            rows_cached: node.rows_cached,
            rows_computed: node.rows_computed,
            message: node.message.as_deref(),
        }
    }
}

/// `51 cached, 12 computed`.
fn outcome(nodes: &[NodeSummary]) -> String {
    let words = [
        (StageStatus::Cached, "cached"),
        (StageStatus::Computed, "computed"),
        (StageStatus::Failed, "failed"),
        (StageStatus::Skipped, "skipped"),
        (StageStatus::Interrupted, "not finished"),
    ];
    let parts = words.iter().filter_map(|(status, word)| {
        let number = nodes.iter().filter(|node| node.status == *status).count();
        (number > 0).then(|| format!("{number} {word}"))
    });
    let parts: Vec<String> = parts.collect();
    format!("{}, {}", counted(nodes.len() as u64, "stage"), parts.join(", "))
}

/// Where the files are and what to try.
fn next_steps(pipeline: &Pipeline, store: &Store, summary: &RunSummary, session: &Session) -> String {
    let run = if store.is_read_only() { summary.folder.display().to_string() } else { "latest".to_owned() };
    let here = std::env::current_dir().unwrap_or_default();
    let folder = summary.folder.strip_prefix(&here).unwrap_or(&summary.folder);
    let mut lines = vec![format!("Tables of this run (Parquet): {}", folder.join("*.parquet").display())];
    // From another project, or with a store elsewhere, the next command has to be told where it is.
    let elsewhere = session.global.store.is_some() || project_root(Path::new("pipeline.toml")) != pipeline.root;
    let store = session.store_folder(&pipeline.root);
    let store = if elsewhere {
        format!(" --store {}", store.strip_prefix(&here).unwrap_or(&store).display())
    } else {
        String::new()
    };
    let with_table = summary.nodes.iter().rev().find(|node| {
        node.outputs.values().any(|output| output.output_type == OutputType::Table && output.rows > 0)
            && pipeline
                .nodes
                .iter()
                .any(|known| known.id == node.id && matches!(known.stage_kind.work(), Work::Rows(_)))
    });
    let mut next = vec![(format!("tracetune show{store} {run}"), "this run's stages and results")];
    if let Some(node) = with_table {
        next.push((format!("tracetune show{store} {run} {}", node.id), "a stage's table"));
        next.push((format!("tracetune show{store} {run} {} --row 0", node.id), "one row in full"));
    }
    if summary.status != RunStatus::Done {
        next.push(("tracetune run …".to_owned(), "again: what is finished is kept"));
    }
    let longest = next.iter().map(|(command, _)| command.len()).max().unwrap_or_default();
    lines.extend(next.into_iter().map(|(command, about)| format!("  {command:<longest$}  {}", style::dim(about))));
    lines.join("\n")
}
