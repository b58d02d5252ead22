//! `tracetune plan`

use serde::Serialize;
use tracetune_engine::pipeline::Node;
use tracetune_engine::plan::{self, Estimate, Forecast, Plan, PlannedNode};

use crate::args::PipelineArgs;
use crate::exit;
use crate::session::Session;
use crate::ui::numbers::{count, counted};
use crate::ui::table::Words;

/// Show what would run, and why, without running it
#[derive(clap::Args)]
#[command(after_help = "Status:
  hit        in the store
  miss       would run
  unknown    would run unless the stages before it give the same content again
  skipped    in a round after the loop's early stop
  blocked    can't run on this machine

Examples:
  tracetune plan
  tracetune plan --set samples=24")]
pub(crate) struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
}

/// The plan as JSON: `{pipeline, summary: {hit, miss, unknown, skipped, blocked}, nodes: [{id, kind, status, reason, …}]}`.
#[derive(Serialize)]
struct View<'a> {
    pipeline: &'a str,
    summary: Summary,
    nodes: Vec<NodeView<'a>>,
}

/// How many nodes there are of each status.
#[derive(Clone, Copy, Default, Serialize)]
pub(crate) struct Summary {
    hit: usize,
    miss: usize,
    unknown: usize,
    skipped: usize,
    blocked: usize,
}

#[derive(Serialize)]
struct NodeView<'a> {
    id: &'a str,
    kind: &'a str,
    status: &'static str,
    /// In words; `why` has the causes.
    reason: Option<String>,
    why: &'a plan::Why,
    /// Of the first output; known for a hit.
    rows: Option<u64>,
    /// Units of row work, cached and in all.
    estimate: Option<Estimate>,
}

/// Prints the plan.
pub(crate) fn plan(args: &Args, session: &Session) -> anyhow::Result<u8> {
    let pipeline = session.pipeline(&args.pipeline.file, &args.pipeline.set.overrides())?;
    let store = session.store(&pipeline.root)?;
    let plan = plan::plan(&pipeline, &store)?;
    let nodes: Vec<NodeView> =
        plan.nodes.iter().zip(&pipeline.nodes).map(|(planned, node)| NodeView::new(planned, node)).collect();
    let view = View { pipeline: &pipeline.name, summary: Summary::of(&plan), nodes };
    if session.ui.json {
        session.ui.answer_json(&view);
        return Ok(exit::DONE);
    }
    let mut words = Words::new(["stage", "kind", "status", ">rows", "why"]);
    for node in &view.nodes {
        let rows = match (node.rows, node.estimate) {
            (Some(rows), _) => count(rows),
            (None, Some(Estimate { items, cached, exact })) => {
                let about = if exact { "" } else { "~" };
                if cached > 0 {
                    format!("{about}{} ({} cached)", count(items), count(cached))
                } else {
                    format!("{about}{}", count(items))
                }
            }
            (None, None) if node.status == "hit" => String::new(),
            (None, None) => "?".to_owned(),
        };
        words.row([node.id, node.kind, node.status, &rows, node.reason.as_deref().unwrap_or_default()]);
    }
    session.ui.answer(words.text(session.ui.width()));
    session.ui.answer(format_args!("\n{}", view.summary.words()));
    Ok(exit::DONE)
}

impl<'a> NodeView<'a> {
    fn new(node: &'a PlannedNode, defined: &Node) -> Self {
        let causes: Vec<String> = node.why.causes.iter().map(ToString::to_string).collect();
        let reason = match &node.forecast {
            Forecast::Blocked { error, help: Some(help) } => Some(format!("{error}: {help}")),
            Forecast::Blocked { error, help: None } => Some(error.clone()),
            _ => (!causes.is_empty()).then(|| causes.join(", ")),
        };
        let first = defined.outputs.first().filter(|_| !defined.gives_model()).map(|output| &*output.name);
        let rows = match &node.forecast {
            Forecast::Hit(record) => first.and_then(|first| record.outputs.get(first)).map(|output| output.rows),
            _ => None,
        };
        Self {
            id: &node.id,
            kind: &node.kind,
            status: status(&node.forecast),
            reason,
            why: &node.why,
            rows,
            estimate: node.estimate,
        }
    }
}

fn status(forecast: &Forecast) -> &'static str {
    match forecast {
        Forecast::Hit(_) => "hit",
        Forecast::Miss(_) => "miss",
        Forecast::Unknown => "unknown",
        Forecast::Skipped => "skipped",
        Forecast::Blocked { .. } => "blocked",
    }
}

impl Summary {
    pub(crate) fn of(plan: &Plan) -> Self {
        let mut summary = Self::default();
        for node in &plan.nodes {
            match node.forecast {
                Forecast::Hit(_) => summary.hit += 1,
                Forecast::Miss(_) => summary.miss += 1,
                Forecast::Unknown => summary.unknown += 1,
                Forecast::Skipped => summary.skipped += 1,
                Forecast::Blocked { .. } => summary.blocked += 1,
            }
        }
        summary
    }

    /// `63 stages: 12 cached, 40 to compute, 11 unknown until those before them are done`.
    pub(crate) fn words(self) -> String {
        let all = self.hit + self.miss + self.unknown + self.skipped + self.blocked;
        let mut parts = Vec::new();
        let mut part = |number: usize, words: &str| {
            if number > 0 {
                parts.push(format!("{number} {words}"));
            }
        };
        part(self.hit, "cached");
        part(self.miss, "to compute");
        part(self.unknown, "unknown until those before them are done");
        part(self.skipped, "left out: their loop stops before");
        part(self.blocked, "blocked");
        format!("{}: {}", counted(all as u64, "stage"), parts.join(", "))
    }
}
