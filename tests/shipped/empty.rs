//! Stages of the real kinds that lose every row: what a user is told.

use serde_json::json;

use crate::purity::LOOP;
use crate::workspace;

const BUGS: &str = "[stages.problems]\nkind = \"dataset\"\nsource = \"own.jsonl\"\n\
                    [stages.bugs]\nkind = \"mutate\"\nrows = \"problems\"\n";

fn problem(id: &str, test: &str) -> String {
    let reference = "def f(n):\n    return n + 1\n";
    let problem = json!({
        "problem_id": id, "split": "train", "instruction": "Add one.", "reference": reference, "entry_point": "f",
        "tests": [test], "setup": "",
    });
    format!("{problem}\n")
}

#[test]
fn references_that_fail_their_own_tests_and_tests_that_see_no_bug_are_named() {
    let workspace = workspace();
    let problems = [problem("a", "assert f(1) == 3"), problem("b", "assert f(2) == 4"), problem("c", "assert f")];
    workspace.write("bugs.toml", BUGS).write("own.jsonl", &problems.concat());
    let ran = workspace.run(["run", "bugs.toml"]);
    assert_eq!(ran.code, Some(1), "{ran}");
    let why = "Failed bugs: it kept none of its 3 rows: the reference fails its own tests (2), e.g. `a`: fail: ";
    assert!(ran.stderr.contains(why), "{ran}");
    assert!(ran.stderr.contains("; no mutant fails a test (1), e.g. `c`\n"), "{ran}");
    assert!(
        ran.stderr.contains("help: look at its `setup` and its tests") && ran.stderr.contains("allow_empty"),
        "{ran}"
    );

    workspace.write("bugs.toml", &BUGS.replace("\"mutate\"", "\"mutate\"\nallow_empty = true"));
    let ran = workspace.run(["run", "bugs.toml"]);
    assert_eq!(ran.code, Some(0), "{ran}");
}

#[test]
fn a_split_that_a_file_does_not_have_is_named_beside_those_that_it_has() {
    let workspace = workspace();
    workspace.write("bugs.toml", BUGS).write("own.jsonl", &problem("a", "assert f(1) == 2"));
    let ran = workspace.run(["run", "bugs.toml", "--set", "problems.only=test"]);
    assert_eq!(ran.code, Some(1), "{ran}");
    assert!(ran.stderr.contains("Failed problems: it has no rows: not of split `test` (1)"), "{ran}");
    assert!(ran.stderr.contains("help: its splits are `train`; "), "{ran}");
}

#[test]
fn a_round_that_keeps_nothing_fails_with_what_to_try() {
    let workspace = workspace();
    workspace.write("loop.toml", LOOP);
    let ran = workspace.run(["run", "loop.toml", "--set", "samples=1", "--set", "rounds.kept.verdict=crash"]);
    assert_eq!(ran.code, Some(1), "{ran}");
    assert!(ran.stderr.contains("Failed kept@1: it kept none of its 40 rows: verdict `"), "{ran}");
    assert!(ran.stderr.contains("draw more samples (`n`)"), "{ran}");
    // What it dropped can be looked at, and what it counted.
    assert_eq!(workspace.run(["show", "latest", "kept@1.dropped", "--json"]).json()["total"], 40);
    assert!(ran.stdout.contains("dropped: "), "{ran}");
}
