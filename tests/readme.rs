//! What README.md tells people to write, written.

use std::process::Command;

use crate::purity;
use crate::workspace;

const README: &str = include_str!("../README.md");

/// The code block whose first line is this comment, without it.
pub(crate) fn block(comment: &str) -> &'static str {
    let start = README.find(&format!("{comment}\n")).unwrap_or_else(|| panic!("no `{comment}` in README.md"));
    let text = &README[start + comment.len()..];
    text[..text.find("```").expect("the block ends")].trim()
}

#[test]
#[expect(clippy::print_stderr, reason = "says what was left out")]
fn the_one_liners_read_a_run() {
    let workspace = workspace();
    workspace.write("loop.toml", purity::LOOP);
    purity::run(&workspace, &[]);
    let duckdb = format!("import duckdb\nprint(duckdb.sql({:?}))", block("-- DuckDB").trim_end_matches(';'));
    let (polars, pandas) = (block("# Polars").to_owned(), block("# pandas").to_owned());
    for (module, program) in [("duckdb", duckdb), ("polars", polars), ("pandas", pandas)] {
        let python =
            |program: &str| Command::new("python3").args(["-c", program]).current_dir(workspace.path()).output();
        if !python(&format!("import {module}")).is_ok_and(|output| output.status.success()) {
            eprintln!("{module} is not installed: its one-liner is not run");
            continue;
        }
        let output = python(&program).expect("python3 starts");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{program}\n{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains("main"), "{module} printed:\n{text}");
    }
}

#[test]
fn the_crux_eval_example_imports() {
    let workspace = workspace();
    let fixture = include_str!("../stages/src/dataset/fixtures/cruxeval.jsonl");
    workspace.write("cruxeval.jsonl", fixture);
    let stage = block("# CRUXEval has `code`, `input`, `output` and `id`");
    workspace.write("p.toml", &format!("[pipeline]\nname = \"crux\"\nseed = 1\n{stage}\n"));
    let ran = workspace.run(["run", "p.toml", "-q"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    let shown = workspace.run(["show", "latest", "problems", "--row", "0"]);
    assert!(shown.stdout.contains("assert f(1, 'a') == [1, 'a']"), "{shown}");
}

#[test]
fn the_function_that_is_a_stage_runs() {
    let workspace = workspace();
    workspace.write("sizes.py", block("# sizes.py"));
    let stage = &README[README.find("[stages.sizes]").expect("the stage")..];
    let stage = &stage[..stage.find("```").expect("the block ends")];
    let problems = "[stages.problems]\nkind = \"dataset\"\nsource = \"builtin:mini-python\"\nsizes = { dev = 3 }\n";
    workspace.write("p.toml", &format!("[pipeline]\nname = \"sizes\"\n{problems}{stage}"));
    let ran = workspace.run(["run", "p.toml", "-q"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    let shown = workspace.run(["show", "latest", "sizes", "--row", "0", "--json"]).json();
    assert!(shown["value"]["lines"].as_i64().is_some_and(|lines| lines > 1), "{shown}");
}
