//! `tracetune cache`

use serde_json::json;

use crate::exit;
use crate::session::Session;
use crate::ui::numbers::{self, counted};
use crate::ui::style;
use crate::ui::table::Words;

/// Look after the store
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Read every object and compare it with its name; damaged ones are put aside, and their stages run again
    Verify,
    /// Say what the store holds and how large it is
    Stat,
}

/// Does it. JSON: `{objects, bytes, damaged}`, or `{root, parts: [{part, entries, bytes}]}`.
pub(crate) fn cache(args: &Args, session: &Session) -> anyhow::Result<u8> {
    match args.command {
        Command::Verify => verify(session),
        Command::Stat => stat(session),
    }
}

fn verify(session: &Session) -> anyhow::Result<u8> {
    let store = session.store_here()?;
    let verified = store.verify(|_, _| {})?;
    if session.ui.json {
        session.ui.answer_json(&verified);
    } else {
        let objects = counted(verified.objects, "object");
        let health = match verified.damaged.len() as u64 {
            0 => style::good("all sound"),
            damaged => style::warning(&format!(
                "{} put aside: their stages will run again",
                counted(damaged, "damaged object")
            )),
        };
        session.ui.answer(format_args!("{objects}, {}: {health}", numbers::bytes(verified.bytes)));
        verified.damaged.iter().for_each(|digest| session.ui.answer(format_args!("  {digest}")));
        if verified.unpacked > 0 {
            let folders = counted(verified.unpacked, "damaged unpacked folder");
            session.ui.answer(format_args!("  {folders} removed: unpacked again when used"));
        }
        if verified.checkpoints > 0 {
            let checkpoints = counted(verified.checkpoints, "damaged checkpoint");
            session.ui.answer(format_args!("  {checkpoints} removed: its training begins anew"));
        }
    }
    Ok(if verified.damaged.is_empty() { exit::DONE } else { exit::STAGE_FAILED })
}

fn stat(session: &Session) -> anyhow::Result<u8> {
    let store = session.store_here()?;
    let parts = store.sizes()?;
    if session.ui.json {
        session.ui.answer_json(&json!({"root": store.location().to_string(), "parts": parts}));
        return Ok(exit::DONE);
    }
    let mut words = Words::new(["part", ">files", ">size"]);
    for part in &parts {
        words.row([part.part.to_owned(), numbers::count(part.files), numbers::bytes(part.bytes)]);
    }
    let (files, bytes) = parts.iter().fold((0, 0), |(files, bytes), part| (files + part.files, bytes + part.bytes));
    words.row(["all".to_owned(), numbers::count(files), numbers::bytes(bytes)]);
    session.ui.answer(words.text(session.ui.width()));
    session.ui.story(store.location());
    Ok(exit::DONE)
}
