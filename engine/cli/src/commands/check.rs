//! `tracetune check`

use std::collections::BTreeMap;

use serde_json::json;
use tracetune_engine::diagnostic::Diagnostic;
use tracetune_engine::pipeline::Pipeline;

use crate::args::PipelineArgs;
use crate::exit;
use crate::session::Session;
use crate::ui::numbers::counted;
use crate::ui::style::{self, Verb};

/// Check a pipeline: keys, types, references, columns
///
/// Everything that is wrong is shown at once, with the place in the file and what to write instead. Nothing is run and
/// the store is not touched.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  tracetune check\n  tracetune check pipelines/next.toml --set samples=32\n  tracetune check pipelines/next.toml --ablations"
)]
pub(crate) struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
}

/// Prints `ok`, or what is wrong. JSON: `{ok, name, nodes, variants, slots, diagnostics}`.
pub(crate) fn check(args: &Args, session: &Session) -> anyhow::Result<u8> {
    let pipeline = session.pipeline(&args.pipeline.file, &args.pipeline.set.overrides())?;
    let warnings: Vec<_> = pipeline.warnings.iter().map(Diagnostic::to_json).collect();
    let slots = slots(&pipeline);
    if session.ui.json {
        let nodes: Vec<&str> = pipeline.nodes.iter().map(|node| node.id.as_str()).collect();
        session.ui.answer_json(&json!({
            "ok": true,
            "name": pipeline.name,
            "nodes": nodes,
            "variants": pipeline.variants,
            "slots": slots.iter().map(|(name, (count, _))| (*name, *count)).collect::<BTreeMap<_, _>>(),
            "diagnostics": warnings,
        }));
        return Ok(exit::DONE);
    }
    let mut loops: Vec<String> =
        pipeline.loops.iter().map(|outer| format!("{} x {}", outer.name, outer.rounds.len())).collect();
    loops.dedup();
    let loops = if loops.is_empty() { String::new() } else { format!(", loop {}", loops.join(", ")) };
    let nodes = counted(pipeline.nodes.len() as u64, "stage");
    session.ui.answer(format_args!("{}: {} ({nodes}{loops})", style::good("ok"), args.pipeline.file.display()));
    if !pipeline.variants.is_empty() {
        session.ui.answer(format_args!("{}:", counted(pipeline.variants.len() as u64, "variant")));
        pipeline.variants.iter().for_each(|name| session.ui.answer(format_args!("  {name}")));
    }
    for (name, (count, stage)) in slots.iter().filter(|(_, (count, _))| *count > 1) {
        let text = format!("`{stage}` takes {count} of `{name}`: run it with `--slots {name}={count}`");
        session.ui.verb(Verb::Note, text);
    }
    if session.ui.verbose > 0 {
        session.ui.verb(Verb::Note, format_args!("project root {}", pipeline.root.display()));
    }
    Ok(exit::DONE)
}

/// The most that a stage takes of each kind of slots, and the first stage that does.
fn slots(pipeline: &Pipeline) -> BTreeMap<&str, (usize, &str)> {
    let mut most: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    for node in &pipeline.nodes {
        for (name, &count) in &node.resources.slots {
            let known = most.entry(name).or_insert((count, &node.stage));
            if count > known.0 {
                *known = (count, &node.stage);
            }
        }
    }
    most
}
