//! The same bytes at any thread count, at any batch size, and over runs.

use crate::support::{Ran, Workspace, digests};
use crate::workspace;

pub(crate) const LOOP: &str = include_str!("../fixtures/loop.toml");

/// What `run --json` says of a node.
pub(crate) fn node<'a>(answer: &'a serde_json::Value, id: &str) -> &'a serde_json::Value {
    let nodes = answer["nodes"].as_array().expect("nodes");
    nodes.iter().find(|node| node["id"] == id).unwrap_or_else(|| panic!("no node `{id}` in {answer}"))
}

#[track_caller]
pub(crate) fn run(workspace: &Workspace, arguments: &[&str]) -> Ran {
    let ran = workspace.run(["run", "loop.toml", "--json"].iter().chain(arguments));
    assert_eq!(ran.code, Some(0), "{ran}");
    ran
}

#[test]
fn threads_change_no_byte_and_a_second_run_computes_nothing() {
    let (one, two) = (workspace(), workspace());
    one.write("loop.toml", LOOP);
    two.write("loop.toml", LOOP);
    run(&one, &["--threads", "1"]);
    run(&two, &["--threads", "2"]);
    assert_eq!(digests(&one), digests(&two));

    let again = run(&one, &["--threads", "2"]).json();
    let computed = again["nodes"].as_array().expect("nodes").iter().filter(|node| node["status"] != "cached").count();
    assert_eq!(computed, 0, "{again}");
    assert_eq!(digests(&one), digests(&two));
}

/// The kinds that make problems and tests.
const SUITES: &str = r#"
[stages.problems]
kind = "dataset"
source = "builtin:mini-python"
sizes = { train = 8 }

[stages.sparse]
kind = "thin"
rows = "problems"
keep = 3

[stages.more]
kind = "differential"
rows = "sparse"
more = 4

[stages.strength]
kind = "adequacy"
rows = "more"
mutants = 6

[stages.bugs]
kind = "mutate"
rows = "more"
per_problem = 3
frequencies = { statement = 2, loop = 1, variable = 0.5 }

[stages.kinds]
kind = "tally"
rows = "bugs"
"#;

#[test]
fn threads_change_no_byte_of_made_tests_and_bugs() {
    let made = ["1", "2"].map(|threads| {
        let workspace = workspace();
        workspace.write("suites.toml", SUITES);
        let ran = workspace.run(["run", "suites.toml", "--threads", threads]);
        assert_eq!(ran.code, Some(0), "{ran}");
        digests(&workspace)
    });
    assert_eq!(made[0], made[1]);
}

#[test]
fn more_samples_draw_only_the_new_ones_and_change_none() {
    let grown = workspace();
    grown.write("loop.toml", LOOP);
    run(&grown, &[]);
    let answer = run(&grown, &["--set", "samples=6"]).json();
    let samples = node(&answer, "samples@1");
    // 20 problems: 4 draws and the greedy one are known, 2 draws are new.
    assert_eq!(
        (samples["rows_cached"].as_u64(), samples["rows_computed"].as_u64()),
        (Some(100), Some(40)),
        "{samples}"
    );
    assert_eq!(node(&answer, "base")["status"], "cached");

    let at_once = workspace();
    at_once.write("loop.toml", LOOP);
    run(&at_once, &["--set", "samples=6"]);
    assert_eq!(digests(&grown), digests(&at_once));
}
