//! `tracetune accept`: results that stay after a change of code.

use insta::assert_snapshot;

use crate::purity::node;
use crate::support::Workspace;
use crate::workspace;

const PIPELINE: &str = r#"
[pipeline]
name = "own"
[params]
problems = 40
[stages.problems]
kind = "dataset"
source = "builtin:mini-python"
sizes = { dev = "$problems" }
[stages.size]
kind = "python"
function = "own.py:size"
rows = "problems"
[stages.tally]
kind = "tally"
rows = "size"
by = ""
means = ["size"]
[stages.copy]
kind = "command"
run = ["sh", "copy.sh"]
files = ["copy.sh"]
inputs = { rows = "size" }
"#;

const COPY: &str = "cp \"$TRACETUNE_IN_ROWS\" \"$TRACETUNE_OUT\"\n";

fn project() -> Workspace {
    let workspace = workspace();
    workspace.write("pipeline.toml", PIPELINE).write("copy.sh", COPY);
    workspace.write("own.py", "def size(reference: str) -> int:\n    return len(reference)\n");
    assert_eq!(computed(&workspace, &[]), 40);
    workspace
}

/// The rows of stage `size` that a run computes.
#[track_caller]
fn computed(workspace: &Workspace, more: &[&str]) -> u64 {
    let ran = workspace.run(["run", "pipeline.toml", "--json"].iter().chain(more));
    assert_eq!(ran.code, Some(0), "{ran}");
    node(&ran.json(), "size")["rows_computed"].as_u64().unwrap_or_default()
}

#[test]
fn rows_stay_after_a_change_of_code_that_changes_none() {
    let workspace = project();
    workspace.write("own.py", "def size(reference: str) -> int:\n    return sum(1 for letter in reference)\n");
    assert_snapshot!(workspace.run(["accept", "pipeline.toml", "size", "--rows", "7"]), @r"
    exit code: 0
    --- stdout
    size: 7 of 40 rows were computed again, every byte is the same
    ");
    assert_eq!(computed(&workspace, &[]), 0);
    // Row by row, too: a longer table has new rows alone.
    assert_eq!(computed(&workspace, &["--set", "problems=45"]), 5);
    assert_snapshot!(workspace.run(["accept", "pipeline.toml", "size"]), @r"
    exit code: 2
    --- stderr
    error: `size` is cached: there is nothing to accept
    ");
}

#[test]
fn rows_that_changed_are_named_and_nothing_is_recorded() {
    let workspace = project();
    workspace.write("own.py", "def size(reference: str) -> int:\n    return len(reference) // 2\n");
    let refused = workspace.run(["accept", "pipeline.toml", "size", "--rows", "7"]);
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.stderr.contains("the results of `size` are other ones now: output `rows`, row "), "{refused}");
    assert!(refused.stderr.contains(": `size` is `"), "{refused}");
    workspace.write("own.py", "def size(reference: str) -> int:\n    return reference.size\n");
    let failed = workspace.run(["accept", "pipeline.toml", "size"]);
    assert_eq!(failed.code, Some(2), "{failed}");
    assert!(failed.stderr.contains("'str' object has no attribute 'size'"), "{failed}");
    workspace.write("own.py", "def size(reference: str) -> int:\n    return len(reference) // 2\n");
    assert_eq!(computed(&workspace, &[]), 40);
}

#[test]
fn only_a_change_of_code_is_accepted() {
    let workspace = project();
    assert_snapshot!(workspace.run(["accept", "pipeline.toml", "size", "--set", "problems=41"]), @r"
    exit code: 2
    --- stderr
    error: only a change of code can be accepted, and size runs unless its input stays the same: `problems` (input `rows`) runs
    help: `tracetune run` computes it
    ");
    let renamed = "def size(reference: str) -> int:\n    return len(reference)\ndef other(reference: str) -> int:\n    return 1\n";
    workspace.write("own.py", renamed);
    let other = workspace.run(["accept", "pipeline.toml", "size", "--set", "size.function=own.py:other"]);
    assert!(
        other.stderr.contains("only a change of code can be accepted, and size is stale: `function` changed"),
        "{other}"
    );
    assert_eq!(other.code, Some(2));
}

#[test]
fn a_stage_of_whole_tables_is_accepted_on_ones_word_alone() {
    let workspace = project();
    workspace.write("copy.sh", &format!("# as before\n{COPY}"));
    assert_snapshot!(workspace.run(["accept", "pipeline.toml", "copy"]), @r"
    exit code: 2
    --- stderr
    error: `copy` works on whole tables: there is no sample by which its results could be checked
    help: `tracetune run` computes it, and if it comes out the same nothing after it runs; `--unchecked` takes your word
    ");
    assert_snapshot!(workspace.run(["accept", "pipeline.toml", "copy", "--unchecked"]), @r"
    exit code: 0
    --- stdout
    copy: not checked
    ");
    let ran = workspace.run(["run", "pipeline.toml", "--json"]).json();
    assert_eq!(node(&ran, "copy")["status"], "cached", "{ran}");
    let audit = workspace.run(["audit", "latest"]);
    assert_eq!(audit.code, Some(0), "{audit}");
}
