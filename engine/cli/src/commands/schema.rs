//! `tracetune schema`

use crate::exit;
use crate::session::Session;

/// Print the JSON Schema of pipeline files, for editors
#[derive(clap::Args)]
#[command(after_help = "In a pipeline file, for editors that know Taplo:
  #:schema ./schema.json

Example:
  tracetune schema > schema.json")]
pub(crate) struct Args {}

/// Prints the schema.
pub(crate) fn schema(_: &Args, session: &Session) -> anyhow::Result<u8> {
    session.ui.answer_json(&tracetune_engine::pipeline::schema(&session.app.registry));
    Ok(exit::DONE)
}
