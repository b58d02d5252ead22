//! What the kinds do, by hand: commands over files with the same code as the stages, a file each.

mod trace;

use tracetune_cli::Tool;

/// All tools: the one list of them.
pub(crate) fn all() -> Vec<Tool> {
    vec![trace::tool()]
}
