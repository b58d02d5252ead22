//! What the kinds do, by hand: commands over files with the same code as the stages, a file each.

mod generate;
mod score;
mod serve_model;
mod trace;
mod verify;

use tracetune_cli::Tool;

/// All tools: the one list of them.
pub(crate) fn all() -> Vec<Tool> {
    vec![
        trace::tool(),
        Tool::new("verify", verify::verify),
        Tool::new("generate", generate::generate),
        Tool::new("score", score::score),
        serve_model::tool(),
    ]
}
