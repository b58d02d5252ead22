//! `tracetune init`

use std::path::PathBuf;

use anyhow::Context;
use serde_json::json;

use crate::exit;
use crate::session::{STORE_FOLDER, Session};
use crate::ui::helped;
use crate::ui::style::Verb;

const FILE: &str = "pipeline.toml";

/// Write a commented pipeline to start from
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  tracetune init demo\n  tracetune init . --template next")]
pub(crate) struct Args {
    /// The folder to write into; made if it is not there
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// Which pipeline; without it the first one there is
    #[arg(long, value_name = "NAME")]
    template: Option<String>,
}

/// Writes the pipeline, the files that it reads, a `.gitignore` and the folder that makes this a project's root. Overwrites nothing.
pub(crate) fn init(args: &Args, session: &Session) -> anyhow::Result<u8> {
    let templates = &session.app.templates;
    let wanted = args.template.as_deref();
    let found = templates.iter().find(|template| wanted.is_none_or(|wanted| wanted == template.name));
    let Some(template) = found else {
        let names = tracetune_engine::diagnostic::list(templates.iter().map(|template| template.name));
        return Err(helped(
            format!("there is no template `{}`", wanted.unwrap_or_default()),
            format!("the templates are {names}"),
        ));
    };
    let file = args.folder.join(FILE);
    if file.exists() {
        let help = "remove it, or name another folder: `tracetune init FOLDER`";
        return Err(helped(format!("`{}` is already there", file.display()), help));
    }
    fs_err::create_dir_all(args.folder.join(STORE_FOLDER)).context("can't make the store's folder")?;
    fs_err::write(&file, template.text).context("can't write the pipeline")?;
    let read: Vec<PathBuf> = template.files.iter().map(|(path, _)| args.folder.join(path)).collect();
    let mut made = Vec::new();
    for (path, (_, text)) in read.iter().zip(template.files) {
        if !path.exists() {
            path.parent().map_or(Ok(()), fs_err::create_dir_all).context("can't make the pipeline's folder")?;
            fs_err::write(path, text).context("can't write a file of the pipeline")?;
            made.push(path);
        }
    }
    let ignore = args.folder.join(".gitignore");
    let made_ignore = !ignore.exists();
    if made_ignore {
        fs_err::write(&ignore, format!("/{STORE_FOLDER}/\n")).context("can't write .gitignore")?;
    }
    if session.ui.json {
        session.ui.answer_json(&json!({"pipeline": file, "files": made, "gitignore": made_ignore.then_some(ignore)}));
        return Ok(exit::DONE);
    }
    session.ui.verb(Verb::Created, file.display());
    made.iter().for_each(|path| session.ui.verb(Verb::Created, path.display()));
    if made_ignore {
        session.ui.verb(Verb::Created, ignore.display());
    }
    let enter =
        if args.folder.as_os_str() == "." { String::new() } else { format!("cd {} && ", args.folder.display()) };
    session.ui.story(format_args!("\nNext: {enter}tracetune run"));
    Ok(exit::DONE)
}
