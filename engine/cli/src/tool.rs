//! Commands that a binary adds to those of every pipeline: a kind's own code, run by hand on a file.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{ArgMatches, Args, Command, CommandFactory, FromArgMatches};
use serde::Serialize;

use crate::args::{Cli, Global};
use crate::ui::{Ui, helped};
use crate::{App, interrupt};

/// A command of a binary's own, e.g. `tracetune verify FILE.jsonl`.
pub struct Tool {
    command: Command,
    run: Box<Run>,
}

type Run = dyn Fn(&ArgMatches, &Output) -> anyhow::Result<u8>;

impl Tool {
    /// The command `name`, whose help and arguments are those of `A`; `run` gives the exit code, see [`crate::exit`].
    pub fn new<A: Args + 'static>(name: &'static str, run: fn(&A, &Output) -> anyhow::Result<u8>) -> Self {
        let parsed = move |matches: &ArgMatches, output: &Output| run(&A::from_arg_matches(matches)?, output);
        Self { command: A::augment_args(Command::new(name)), run: Box::new(parsed) }
    }
}

/// The screen as a tool sees it: stdout has the answer, stderr the story.
pub struct Output<'a> {
    ui: &'a Ui,
}

impl Output<'_> {
    /// Whether the answer is to be JSON.
    pub fn json(&self) -> bool {
        self.ui.json
    }

    /// Prints a part of the answer.
    pub fn answer(&self, text: impl fmt::Display) {
        self.ui.answer(text);
    }

    /// Prints the answer as one JSON object.
    pub fn answer_json(&self, value: &impl Serialize) {
        self.ui.answer_json(value);
    }

    /// A flag that the first Ctrl-C sets, for a tool that goes on until then; the second ends the process at once.
    pub fn interrupt_flag(&self) -> Arc<AtomicBool> {
        interrupt::flag(|| {})
    }

    /// Prints a line of the story; `-q` leaves it out.
    pub fn story(&self, text: impl fmt::Display) {
        self.ui.story(text);
    }
}

/// An error with something to do about it.
pub fn error(message: impl Into<String>, help: impl Into<String>) -> anyhow::Error {
    helped(message, help)
}

/// The whole command line: the commands of every pipeline, then the binary's own.
pub(crate) fn command_line(app: &App) -> Command {
    app.tools.iter().fold(Cli::command(), |cli, tool| cli.subcommand(tool.command.clone()))
}

/// Runs the tool that was asked for, if one was.
pub(crate) fn run(app: &App, matches: &ArgMatches) -> Option<u8> {
    let (name, arguments) = matches.subcommand()?;
    let tool = app.tools.iter().find(|tool| tool.command.get_name() == name)?;
    let global = Global::from_arg_matches(matches).unwrap_or_else(|error| error.exit());
    global.color.write_global();
    let ui = Ui::new(&global);
    let code = (tool.run)(arguments, &Output { ui: &ui });
    Some(code.unwrap_or_else(|error| ui.fatal(&error)))
}
