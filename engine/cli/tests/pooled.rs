//! Runs that differ in their seed, taken together.

use insta::assert_snapshot;

use crate::support::Workspace;
use crate::workspace;

fn with_seeds() -> Workspace {
    let workspace = workspace();
    let path = workspace.path().join("pipeline.toml");
    let text = std::fs::read_to_string(&path).expect("the toys' pipeline");
    std::fs::write(path, text + "\n[sweep]\nseed = [7, 8, 9]\n").expect("the pipeline");
    workspace.run(["run", "--sweep"]);
    workspace
}

#[test]
fn a_sweep_over_seeds_is_pooled() {
    let workspace = with_seeds();
    assert_snapshot!(workspace.run(["compare", "latest", "--over", "seed"]), @"");
    assert_snapshot!(workspace.run(["compare", "latest", "--over", "seed", "--markdown"]), @"");
}

#[test]
fn what_can_not_be_pooled_says_why() {
    let workspace = workspace();
    workspace.run(["run"]);
    assert_snapshot!(workspace.run(["compare", "latest", "--over", "seed"]), @"");
    assert_snapshot!(workspace.run(["compare", "latest", "latest", "--over", "seed"]), @"");
    workspace.run(["run", "--set", "guesses=4", "--set", "seed=8"]);
    let runs = std::fs::read_dir(workspace.path().join(".tracetune/runs")).expect("the runs");
    let mut runs: Vec<String> =
        runs.map(|run| run.expect("a run").file_name().to_string_lossy().into_owned()).collect();
    runs.sort();
    assert_snapshot!(workspace.run(["compare", &runs[0], &runs[1], "--over", "seed"]), @"");
}
