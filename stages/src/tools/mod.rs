//! What the kinds do, by hand: commands over files with the same code as the stages, a file each.

mod generate;
mod score;
mod serve_model;
mod trace;
mod verify;

use std::path::Path;

use tracetune_cli::Tool;
use tracetune_cli::tool::error;
use tracetune_engine::stage::StageError;

use crate::packages;
use crate::python::Python;

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

/// The interpreter for programs that may import what lies in a folder.
fn interpreter(folder: Option<&str>, warm: &[String]) -> anyhow::Result<Python> {
    packages::check_warm(warm).map_err(|wrong| error(wrong.message, wrong.help.unwrap_or_default()))?;
    packages::interpreter(folder, warm, Path::new("")).map_err(with_help)
}

/// With what can be done about it.
fn with_help(wrong: impl Into<StageError>) -> anyhow::Error {
    match wrong.into() {
        StageError::Environment { message, help: Some(help) } => error(message, help),
        other => other.into(),
    }
}
