//! Wrong pipelines: each file here says beside its mistakes what `tracetune check` must say about them.
//!
//! `# error: …` or `# warning: …` behind a line is the whole message at that line, `# help: …` its help. A line with
//! nothing but such a comment belongs to the line above it. Whatever is not expected fails the test, and so does what is
//! expected and not said. A new
//! message is a new file, no Rust.

use std::path::Path;

use crate::workspace;

/// What is said about one line.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Told {
    line: u64,
    kind: String,
    message: String,
    help: Vec<String>,
}

#[test]
fn every_mistake_is_told_where_it_is() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/diagnostics");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder of this test")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    let failures: Vec<String> = files.iter().filter_map(|file| failure(file)).collect();
    assert!(files.len() > 10, "only {} files", files.len());
    assert!(failures.is_empty(), "{} of {} files:\n{}", failures.len(), files.len(), failures.join("\n"));
}

fn failure(file: &Path) -> Option<String> {
    let name = file.file_name()?.to_string_lossy().into_owned();
    let text = std::fs::read_to_string(file).expect("the file");
    let workspace = workspace();
    workspace.write(&name, &text);
    let ran = workspace.run(["check", "--json", &name]);
    let mut expected = expected(&text);
    let mut found = found(&ran.json()["diagnostics"]);
    expected.sort();
    found.sort();
    let code = if expected.iter().any(|told| told.kind == "error") { 2 } else { 0 };
    if expected == found && ran.code == Some(code) {
        return None;
    }
    Some(format!("{name}: expected code {code} and {expected:#?}\nfound {:?} and {found:#?}", ran.code))
}

fn expected(text: &str) -> Vec<Told> {
    let mut all: Vec<Told> = Vec::new();
    let mut code_line = 0;
    for (line, number) in text.lines().zip(1..) {
        let (code, comment) = line.split_once("# ").unwrap_or((line, ""));
        if !code.trim().is_empty() {
            code_line = number;
        }
        match comment.split_once(": ") {
            Some((kind @ ("error" | "warning"), message)) => all.push(Told {
                line: code_line,
                kind: kind.to_owned(),
                message: message.trim().to_owned(),
                help: Vec::new(),
            }),
            Some(("help", help)) => {
                all.last_mut().expect("help stands behind an error").help.push(help.trim().to_owned())
            }
            _ => {}
        }
    }
    all
}

fn found(diagnostics: &serde_json::Value) -> Vec<Told> {
    let words = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    diagnostics
        .as_array()
        .into_iter()
        .flatten()
        .map(|told| Told {
            line: told["line"].as_u64().unwrap_or_default(),
            kind: words(&told["kind"]),
            message: words(&told["message"]),
            help: told["help"].as_array().into_iter().flatten().map(words).collect(),
        })
        .collect()
}
