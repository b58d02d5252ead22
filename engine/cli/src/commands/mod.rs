//! The commands, a file each: its arguments and what it does.

pub(crate) mod accept;
pub(crate) mod audit;
pub(crate) mod cache;
pub(crate) mod check;
pub(crate) mod compare;
pub(crate) mod completions;
pub(crate) mod doctor;
pub(crate) mod gc;
pub(crate) mod init;
pub(crate) mod kinds;
pub(crate) mod log;
pub(crate) mod pin;
pub(crate) mod plan;
pub(crate) mod query;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod runs;
pub(crate) mod schema;
mod seeds;
pub(crate) mod show;
#[cfg(feature = "query")]
mod sql;
pub(crate) mod why;

use crate::args::Command;
use crate::session::Session;

/// Does what the arguments ask; gives the exit code.
pub(crate) fn dispatch(command: &Command, session: &Session) -> anyhow::Result<u8> {
    match command {
        Command::Init(args) => init::init(args, session),
        Command::Check(args) => check::check(args, session),
        Command::Plan(args) => plan::plan(args, session),
        Command::Run(args) => run::run(args, session),
        Command::Why(args) => why::why(args, session),
        Command::Show(args) => show::show(args, session),
        Command::Runs(args) => runs::runs(args, session),
        Command::Compare(args) => compare::compare(args, session),
        Command::Query(args) => query::query(args, session),
        Command::Log(args) => log::log(args, session),
        Command::Pin(args) => pin::pin(args, session),
        Command::Rm(args) => rm::rm(args, session),
        Command::Accept(args) => accept::accept(args, session),
        Command::Audit(args) => audit::audit(args, session),
        Command::Gc(args) => gc::gc(args, session),
        Command::Cache(args) => cache::cache(args, session),
        Command::Kinds(args) => kinds::kinds(args, session),
        Command::Schema(args) => schema::schema(args, session),
        Command::Doctor(args) => doctor::doctor(args, session),
        Command::Completions(args) => completions::completions(args, session),
    }
}
