//! The `tracetune` command line, for any set of kinds.
//!
//! A binary hands its kinds over and is done: `tracetune_cli::main(App { registry, … })`. Commands are a file each in
//! `commands/`; all printing is in `ui/`; nothing here computes.

mod args;
mod commands;
mod env_vars;
pub mod exit;
mod interrupt;
mod out_file;
mod session;
pub mod tool;
mod ui;
mod warnings;

use std::process::ExitCode;

use clap::FromArgMatches;
use serde::Serialize;
pub use tool::Tool;
use tracetune_engine::Registry;

/// What a binary brings to the command line.
pub struct App {
    /// The kinds that pipelines may name.
    pub registry: Registry,
    /// What `tracetune doctor` checks beside the store: interpreter, sandbox, accelerator.
    pub doctor: Vec<fn() -> DoctorLine>,
    /// What the columns that kinds read and add mean, by name: `tracetune kinds` says so.
    pub columns: Vec<(&'static str, &'static str)>,
    /// What others measured, for `tracetune compare --paper`.
    pub paper: Option<Paper>,
    /// What in a run's metrics shows that the method is failing: `run` and `show` warn of it.
    pub watch: Option<Watch>,
    /// Commands of its own.
    pub tools: Vec<Tool>,
    /// Pipelines for `tracetune init`; the first one is the default.
    pub templates: Vec<Template>,
}

/// A pipeline for `tracetune init`.
#[derive(Clone, Copy, Debug)]
pub struct Template {
    /// What it is asked for by.
    pub name: &'static str,
    /// The pipeline.
    pub text: &'static str,
    /// Files that it reads, each with its path in the project.
    pub files: &'static [(&'static str, &'static str)],
}

/// Finds what a run's metrics warn of.
pub type Watch = fn(&[Reading]) -> Vec<Warning>;

/// A metric of a run, for [`App::watch`].
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The label of the stage it is from.
    pub variant: String,
    /// Its loop round; 0 is before the loop.
    pub round: i32,
    /// E.g. `test`.
    pub split: String,
    /// E.g. `pass@1`.
    pub metric: String,
    /// The estimate.
    pub value: f64,
    /// Over how many.
    pub n: i64,
}

/// A sign that a run's method is failing, in words that teach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// What sort of sign, e.g. `plateau`.
    pub sign: &'static str,
    /// The variant that shows it.
    pub variant: String,
    /// The round that shows it.
    pub round: i32,
    /// What was seen, with its numbers.
    pub seen: String,
    /// Why that may mislead, or harm.
    pub why: &'static str,
    /// What to try.
    pub advice: &'static str,
}

/// Published figures.
#[derive(Clone, Copy, Debug)]
pub struct Paper {
    /// Where they stand.
    pub source: &'static str,
    /// The tables.
    pub tables: &'static [PaperTable],
    /// How they were measured.
    pub setup: &'static [Setup],
}

/// A published table of pass@k, in per cent.
#[derive(Clone, Copy, Debug)]
pub struct PaperTable {
    /// What it is of.
    pub caption: &'static str,
    /// The condition that a run's figures for it were evaluated under: `evaluate`'s `condition`.
    pub condition: Option<&'static str>,
    /// The k of each column.
    pub ks: &'static [i32],
    /// Its rows.
    pub rows: &'static [(&'static str, &'static [f64])],
    /// The row of differences.
    pub gain: (&'static str, &'static [f64]),
}

impl PaperTable {
    /// A metric's or a split's name as a run has it.
    pub(crate) fn named(&self, name: &str) -> String {
        self.condition.map_or_else(|| name.to_owned(), |condition| format!("{name} ({condition})"))
    }
}

/// A part of how a published figure was measured.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// What it is about, e.g. `samples`.
    pub what: &'static str,
    /// How it was there.
    pub there: &'static str,
    /// How it is in a run.
    pub here: Here,
}

/// What says how a part of the set-up is in a run.
#[derive(Clone, Copy, Debug)]
pub enum Here {
    /// Parameters, each of a kind.
    Params(&'static [(&'static str, &'static str)]),
    /// The last round.
    Rounds,
    /// It is the same in every run.
    Always(&'static str),
}

/// One line of `tracetune doctor`.
#[derive(Clone, Debug, Serialize)]
pub struct DoctorLine {
    /// What was looked at, e.g. `python3`.
    pub name: String,
    /// Whether it is as it should be.
    pub health: Health,
    /// What was found, e.g. `3.11.7 at /usr/bin/python3`.
    pub detail: String,
    /// What to do, unless all is well.
    pub help: Option<String>,
}

/// Whether something is as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// It is.
    Ok,
    /// Everything works, some of it slower or less safely.
    Warn,
    /// Some kinds can't work.
    Fail,
}

/// Reads the arguments, does what they ask, and gives the exit code: see [`exit`].
pub fn main(app: App) -> ExitCode {
    let matches = tool::command_line(&app).get_matches();
    if let Some(code) = tool::run(&app, &matches) {
        return ExitCode::from(code);
    }
    let cli = args::Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    cli.global.color.write_global();
    let ui = ui::Ui::new(&cli.global);
    let session = session::Session { app: &app, ui, global: &cli.global };
    let code = match commands::dispatch(&cli.command, &session) {
        Ok(code) => code,
        Err(error) => session.ui.fatal(&error),
    };
    ExitCode::from(code)
}
