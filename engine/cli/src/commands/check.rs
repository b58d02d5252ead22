//! `tracetune check`

use serde_json::json;
use tracetune_engine::diagnostic::Diagnostic;

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
#[command(after_help = "Examples:\n  tracetune check\n  tracetune check pipelines/next.toml --set samples=32")]
pub(crate) struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
}

/// Prints `ok`, or what is wrong. JSON: `{ok, name, nodes, diagnostics}`.
pub(crate) fn check(args: &Args, session: &Session) -> anyhow::Result<u8> {
    let pipeline = session.pipeline(&args.pipeline.file, &args.pipeline.set.overrides())?;
    let warnings: Vec<_> = pipeline.warnings.iter().map(Diagnostic::to_json).collect();
    if session.ui.json {
        let nodes: Vec<&str> = pipeline.nodes.iter().map(|node| node.id.as_str()).collect();
        session.ui.answer_json(&json!({"ok": true, "name": pipeline.name, "nodes": nodes, "diagnostics": warnings}));
        return Ok(exit::DONE);
    }
    let loops = pipeline.loops.iter().map(|outer| format!("{} x {}", outer.name, outer.rounds.len()));
    let loops: Vec<String> = loops.collect();
    let loops = if loops.is_empty() { String::new() } else { format!(", loop {}", loops.join(", ")) };
    let nodes = counted(pipeline.nodes.len() as u64, "stage");
    session.ui.answer(format_args!("{}: {} ({nodes}{loops})", style::good("ok"), args.pipeline.file.display()));
    if session.ui.verbose > 0 {
        session.ui.verb(Verb::Note, format_args!("project root {}", pipeline.root.display()));
    }
    Ok(exit::DONE)
}
