//! `tracetune completions`

use clap_complete::Shell;

use crate::exit;
use crate::session::Session;
use crate::tool;

/// Print completions for a shell
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tracetune completions bash > ~/.local/share/bash-completion/completions/tracetune
  tracetune completions zsh > ~/.zfunc/_tracetune")]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

/// Prints the script.
pub(crate) fn completions(args: &Args, session: &Session) -> anyhow::Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut tool::command_line(session.app), "tracetune", &mut script);
    session.ui.answer(String::from_utf8_lossy(&script).trim_end());
    Ok(exit::DONE)
}
