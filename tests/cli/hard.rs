//! The hard tasks are chosen once, with the base model, and every round samples them alone.

use std::collections::BTreeSet;
use std::path::Path;

use crate::purity::node;
use crate::support::{Workspace, copy_folder};
use crate::workspace;

/// A loop over the tables and the small model of the golden digests.
const LOOP: &str = r#"
[pipeline]
name = "hard"
seed = 7

[stages.traced]
kind = "command"
run = ["sh", "-c", "cp traced.parquet \"$TRACETUNE_OUT\""]
files = ["traced.parquet"]

[stages.verdicts]
kind = "command"
run = ["sh", "-c", "cp verdicts.parquet \"$TRACETUNE_OUT\""]
files = ["verdicts.parquet"]

[stages.base]
kind = "model"
source = "model"

[stages.base_samples]
kind = "sample"
model = "base"
rows = "traced"
n = 2
max_tokens = 4

[stages.hard]
kind = "hard_tasks"
rows = "traced"
base = "verdicts"
max_base_pass_rate = 0.5

[loop.rounds]
times = 2
carry.model = { start = "base", next = "train" }

[loop.rounds.stages.samples]
kind = "sample"
model = "model"
rows = "hard"
n = 2
max_tokens = 4

[loop.rounds.stages.train]
kind = "train"
model = "base"
rows = "samples"
epochs = 1
"#;

/// The rows of an output of the last run.
fn rows(workspace: &Workspace, output: &str) -> Vec<serde_json::Value> {
    let ran = workspace.run(["show", "latest", output, "--limit", "1000", "--json"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    ran.json()["rows"].as_array().expect("rows").clone()
}

fn tasks(rows: &[serde_json::Value]) -> BTreeSet<(String, String)> {
    let text = |row: &serde_json::Value, name: &str| row[name].as_str().expect("text").to_owned();
    rows.iter().map(|row| (text(row, "problem_id"), text(row, "buggy"))).collect()
}

#[test]
fn every_round_samples_the_hard_tasks_alone() {
    let workspace = workspace();
    copy_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden"), workspace.path());
    workspace.write("hard.toml", LOOP);
    let ran = workspace.run(["run", "hard.toml", "--json"]);
    assert_eq!(ran.code, Some(0), "{ran}");

    let (hard, dropped) = (rows(&workspace, "hard"), rows(&workspace, "hard.dropped"));
    assert!(!hard.is_empty() && !dropped.is_empty(), "{} hard, {} dropped", hard.len(), dropped.len());
    assert_eq!(hard.len() + dropped.len(), rows(&workspace, "traced").len());
    let rate = |row: &serde_json::Value| {
        row["base_passes"].as_f64().expect("a count") / row["base_samples"].as_f64().expect("a count")
    };
    assert!(hard.iter().all(|row| rate(row) <= 0.5), "{hard:?}");
    assert!(dropped.iter().all(|row| rate(row) > 0.5 && row["reason"] == "easy"), "{dropped:?}");

    for round in ["samples@1", "samples@2"] {
        let sampled = rows(&workspace, round);
        assert_eq!(sampled.len(), 2 * hard.len(), "{round}");
        assert_eq!(tasks(&sampled), tasks(&hard), "{round}");
    }
    // The first round's draws are the base's own; the second model is another one.
    let answer = ran.json();
    assert_eq!(node(&answer, "samples@1")["rows_computed"], 0, "{answer}");
    assert_eq!(node(&answer, "samples@2")["rows_computed"], 2 * hard.len(), "{answer}");
}
