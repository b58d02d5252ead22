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
