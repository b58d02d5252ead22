//! `tracetune doctor`

use std::path::Path;

use serde_json::json;
use tracetune_engine::cache::LockKind;
use tracetune_engine::pipeline::project_root;

use crate::session::Session;
use crate::ui::style;
use crate::{DoctorLine, Health, exit};

/// Check that this machine has what stages need
#[derive(clap::Args)]
pub(crate) struct Args {}

/// Prints a line a check; the exit code is 2 if one of them fails. JSON: `{ok, checks: [{name, health, detail, help}]}`.
pub(crate) fn doctor(_: &Args, session: &Session) -> anyhow::Result<u8> {
    let mut lines = vec![version(), store(session)];
    lines.extend(session.app.doctor.iter().map(|check| check()));
    let ok = lines.iter().all(|line| line.health != Health::Fail);
    let code = if ok { exit::DONE } else { exit::WRONG };
    if session.ui.json {
        session.ui.answer_json(&json!({"ok": ok, "checks": lines}));
        return Ok(code);
    }
    let longest = lines.iter().map(|line| line.name.len()).max().unwrap_or_default();
    for line in &lines {
        let health = match line.health {
            Health::Ok => style::good("  ok"),
            Health::Warn => style::warning("warn"),
            Health::Fail => style::error("fail"),
        };
        session.ui.answer(format_args!("{health}  {:<longest$}  {}", line.name, line.detail));
        if let Some(help) = &line.help {
            session.ui.answer(format_args!("      {:<longest$}  help: {help}", ""));
        }
    }
    Ok(code)
}

fn version() -> DoctorLine {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let detail = format!(
        "{} ({}, {}, {threads} threads)",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH
    );
    DoctorLine { name: "tracetune".to_owned(), health: Health::Ok, detail, help: None }
}

fn store(session: &Session) -> DoctorLine {
    let folder = session.store_folder(&project_root(Path::new("pipeline.toml")));
    let name = "store".to_owned();
    if !folder.exists() {
        let detail = format!("{} (not there yet: the first run makes it)", folder.display());
        return DoctorLine { name, health: Health::Ok, detail, help: None };
    }
    let probe = folder.join(format!(".doctor-{}", std::process::id()));
    match fs_err::write(&probe, b"").and_then(|()| fs_err::remove_file(&probe)) {
        Ok(()) => {
            let locks = session.global.locks.unwrap_or_else(|| LockKind::of(&folder));
            let detail = format!("{} (locks: {locks})", folder.display());
            DoctorLine { name, health: Health::Ok, detail, help: None }
        }
        Err(error) => DoctorLine {
            name,
            health: Health::Fail,
            detail: error.to_string(),
            help: Some("name a folder that can be written with `--store`".to_owned()),
        },
    }
}
