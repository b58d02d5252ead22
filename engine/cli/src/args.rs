//! What may be written on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tracetune_engine::cache::LockKind;
use tracetune_engine::pipeline::{Choice, Overrides};

use crate::commands;
use crate::env_vars;

/// Declarative, cached, reproducible experiments over Parquet tables.
///
/// An experiment is a TOML file of stages. `tracetune run` computes the stages whose inputs, parameters or code changed,
/// down to the row; everything else comes from the store.
///
/// The project's root is the nearest folder at or above the pipeline file that holds `.tracetune` or `.git`, or else the pipeline
/// file's own. Relative paths in a pipeline start there, and there lies the store, `.tracetune`.
#[derive(Parser)]
#[command(name = "tracetune", version, max_term_width = 110, after_help = EXAMPLES, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  tracetune init demo && cd demo        write a pipeline to start from
  tracetune run                         run pipeline.toml; run it again, and it is cached
  tracetune run --set samples=24        the same with another parameter
  tracetune plan                        what would run, and why
  tracetune show latest                 the last run's stages and results

Exit codes: 0 done, 1 a stage failed, 2 the pipeline or the call is wrong, 130 interrupted.";

/// What every command takes.
#[derive(Args)]
pub(crate) struct Global {
    /// Answer with one JSON object on stdout
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Where tables, models and runs are kept [default: .tracetune in the project's root]
    #[arg(long, global = true, value_name = "DIR", env = env_vars::STORE)]
    pub(crate) store: Option<PathBuf>,
    /// How processes that use the store keep apart: flock or lease [default: lease on a shared file system]
    #[arg(long, global = true, hide_short_help = true, value_name = "KIND", env = env_vars::LOCKS)]
    pub(crate) locks: Option<LockKind>,
    /// Print nothing but the answer and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Say more: every cached stage, and why a stage runs
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Colours
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_possible_values = false)]
    pub(crate) color: Color,
}

/// When to use colours; `auto` heeds `NO_COLOR` and whether the output is a terminal.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

impl Color {
    pub(crate) fn write_global(self) {
        let choice = match self {
            Self::Auto => anstream::ColorChoice::Auto,
            Self::Always => anstream::ColorChoice::Always,
            Self::Never => anstream::ColorChoice::Never,
        };
        choice.write_global();
    }
}

/// A pipeline file with values laid over it.
#[derive(Args)]
pub(crate) struct PipelineArgs {
    /// The pipeline file
    #[arg(default_value = "pipeline.toml")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) set: SetArgs,
}

/// Values laid over a file.
#[derive(Args)]
pub(crate) struct SetArgs {
    /// Replace a value: a parameter, `seed`, `STAGE.KEY` or `LOOP.STAGE.KEY` (may be repeated)
    #[arg(long = "set", value_name = "PATH=VALUE", value_parser = assignment)]
    pub(crate) values: Vec<(String, String)>,
    /// Every variant of [sweep], in one graph that shares what is the same
    #[arg(long)]
    pub(crate) sweep: bool,
    /// The pipeline and every variant of [ablations]; with --sweep, those of every point of the sweep
    #[arg(long)]
    pub(crate) ablations: bool,
    /// Only the variant of this name, e.g. `no-trace` or `samples=4` (may be repeated)
    #[arg(long, value_name = "VARIANT")]
    pub(crate) only: Vec<String>,
    /// Only the points of the sweep of which this is true, e.g. 'temperature<1' (may be repeated)
    #[arg(long = "where", value_name = "CONDITION")]
    pub(crate) conditions: Vec<String>,
}

impl SetArgs {
    pub(crate) fn overrides(&self) -> Overrides {
        let variants = Choice {
            sweep: self.sweep,
            ablations: self.ablations,
            only: self.only.clone(),
            conditions: self.conditions.clone(),
        };
        Overrides { set: self.values.clone(), variants }
    }
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((path, value)) if !path.trim().is_empty() => Ok((path.trim().to_owned(), value.trim().to_owned())),
        _ => Err("write PATH=VALUE, e.g. samples=24".to_owned()),
    }
}

/// The commands.
#[derive(Subcommand)]
pub(crate) enum Command {
    Init(commands::init::Args),
    Check(commands::check::Args),
    Plan(commands::plan::Args),
    Run(commands::run::Args),
    Why(commands::why::Args),
    Show(commands::show::Args),
    Runs(commands::runs::Args),
    Compare(commands::compare::Args),
    Query(commands::query::Args),
    Log(commands::log::Args),
    Pin(commands::pin::Args),
    Rm(commands::rm::Args),
    Accept(commands::accept::Args),
    Audit(commands::audit::Args),
    Gc(commands::gc::Args),
    Cache(commands::cache::Args),
    Kinds(commands::kinds::Args),
    Schema(commands::schema::Args),
    Doctor(commands::doctor::Args),
    Completions(commands::completions::Args),
}
