//! Runs that differ in their seed, taken together.

use insta::assert_snapshot;

use crate::support::Workspace;
use crate::workspace;

/// A run of the toys' pipeline with a sweep.
fn swept(axes: &str) -> Workspace {
    let workspace = workspace();
    let path = workspace.path().join("pipeline.toml");
    let text = std::fs::read_to_string(&path).expect("the toys' pipeline");
    std::fs::write(path, format!("{text}\n[sweep]\n{axes}\n")).expect("the pipeline");
    workspace.run(["run", "--sweep"]);
    workspace
}

#[test]
fn a_sweep_over_seeds_is_pooled() {
    let workspace = swept("seed = [7, 8, 9]");
    assert_snapshot!(workspace.run(["compare", "latest", "--over", "seed"]), @r"
    exit code: 0
    --- stdout
    Pooled over seed
    side  variant  round  seed     runs
    A     main         1  7, 8, 9  [run]
    B     main         3  7, 8, 9  [run]

    test
    metric                  A                  B
    pass@1 %  7.5 [5.9, 10.6]  33.5 [27.3, 39.8]
    guesses               320                320

    Against A, over the same problems and the same seed
    side  split  metric  problems  seeds                points  by seed
    B     test   pass@1        40      3  +26.0 [+18.2, +33.9]  +29.4 +25.6 +23.1

    [low, high]: 95 % interval over problems and values of `seed`
    ");
    assert_snapshot!(workspace.run(["compare", "latest", "--over", "seed", "--markdown"]), @r"
    exit code: 0
    --- stdout
    **Pooled over seed**

    | side | variant | round | seed | runs |
    | --- | --- | --: | --- | --- |
    | A | main | 1 | 7, 8, 9 | [run] |
    | B | main | 3 | 7, 8, 9 | [run] |

    **test**

    | metric | A | B |
    | --- | --: | --: |
    | pass@1 % | 7.5 [5.9, 10.6] | 33.5 [27.3, 39.8] |
    | guesses | 320 | 320 |

    **Against A, over the same problems and the same seed**

    | side | split | metric | problems | seeds | points | by seed |
    | --- | --- | --- | --: | --: | --: | --- |
    | B | test | pass@1 | 40 | 3 | +26.0 [+18.2, +33.9] | +29.4 +25.6 +23.1 |

    [low, high]: 95 % interval over problems and values of `seed`
    ");
}

#[test]
fn what_can_not_be_pooled_says_why() {
    let workspace = workspace();
    workspace.run(["run"]);
    assert_snapshot!(workspace.run(["compare", "latest", "--over", "seed"]), @r"
    exit code: 2
    --- stderr
    error: `[run]:main@1` is there for one value of `seed` only
    help: name further runs that differ in `seed`, or those sides that they all have: `RUN:main`
    ");
    assert_snapshot!(workspace.run(["compare", "latest", "latest", "--over", "seed"]), @r"
    exit code: 2
    --- stderr
    error: `[run]:main@1` and `[run]:main@1` have the same `seed`
    help: name each run once
    ");
    workspace.run(["run", "--set", "guesses=4", "--set", "seed=8"]);
    let runs = std::fs::read_dir(workspace.path().join(".tracetune/runs")).expect("the runs");
    let mut runs: Vec<String> =
        runs.map(|run| run.expect("a run").file_name().to_string_lossy().into_owned()).collect();
    runs.sort();
    assert_snapshot!(workspace.run(["compare", &runs[0], &runs[1], "--over", "seed"]), @r"
    exit code: 2
    --- stderr
    error: `[run]:main@1` and `[run]:main@1` differ in more than `seed`: `guess.n`
    help: only figures that differ by chance can be pooled; without `--over seed` they are put side by side
    ");
}

#[test]
fn a_sweep_s_figures_are_shown_by_its_parameters() {
    let workspace = swept("seed = [7, 8]\nguesses = [4, 8]");
    let shown = workspace.run(["show"]).stdout;
    let means = &shown[shown.find("Means").expect("means over seeds")..];
    assert_snapshot!(means, @r"
    Means by `guesses` over `seed` (2 each)

    test
      variant    round     pass@1 %    n  guesses
      guesses=4      1   6 [ 2, 10]  160      160
      guesses=4      2  18 [ 0, 62]  160      160
      guesses=4      3  31 [26, 36]  160      160
      guesses=8      1   7 [ 3, 11]  320      320
      guesses=8      2  19 [ 9, 29]  320      320
      guesses=8      3  35 [15, 55]  320      320

    [low, high]: 95 % interval; n: what it is over
    ");
    let shown = workspace.run(["show", "--by", "seed"]).stdout;
    assert!(shown.contains("Means by `seed` over `guesses` (2 each)"), "{shown}");
    assert_snapshot!(workspace.run(["show", "--by", "gueses"]), @r"
    exit code: 2
    --- stderr
    error: run `[run]` has no parameter `gueses`
    help: did you mean `guesses`?
    ");
}
