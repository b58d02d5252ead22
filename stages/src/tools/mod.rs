//! What the kinds do, by hand: commands over files with the same code as the stages, a file each.

mod serve_model;

use tracetune_cli::Tool;

/// All tools: the one list of them.
pub(crate) fn all() -> Vec<Tool> {
    vec![serve_model::tool()]
}
