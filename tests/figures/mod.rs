//! One number has one identity: whatever shows a run's figures shows the same ones.

mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tracetune_engine::runs::MetricLine;
use tracetune_engine::table::{Record, read_column, read_table_file};

use crate::readme;
use crate::support::Workspace;
use crate::workspace;

/// The quick start, with stages that have the same figures as others of their variant and round.
const PIPELINE: &str = concat!(
    include_str!("../../pipelines/quickstart.toml"),
    r#"
# The control again, without a label of its own: beside the last round's `train`.
[stages.control_again]
kind = "train"
model = "base"
rows = "demonstrations"
match = "rounds.train.curve"

[stages.kinds]
kind = "tally"
rows = "train_problems"

[stages.traced_kinds]
kind = "tally"
rows = "train_traces"
"#
);

/// Its structure, in less time.
const SMALL: [&str; 7] = [
    "problems=24",
    "samples=4",
    "test_problems=10",
    "test_samples=8",
    "seed_problems.sizes={ seed = 100 }",
    "base.epochs=4",
    "rounds.train.epochs=1",
];

fn ran() -> (Workspace, Value) {
    let workspace = workspace();
    workspace.write("quickstart.toml", PIPELINE);
    let set = SMALL.iter().flat_map(|set| ["--set", set]);
    let ran = workspace.run(["run", "quickstart.toml", "--json"].into_iter().chain(set));
    assert_eq!(ran.code, Some(0), "{ran}");
    let answer = ran.json();
    (workspace, answer)
}

fn folder(workspace: &Workspace) -> PathBuf {
    let mut runs = workspace.path().join(".tracetune/runs").read_dir().expect("runs");
    runs.next().expect("a run").expect("a run").path()
}

/// The figures of an answer.
fn shown<'a>(figures: impl IntoIterator<Item = &'a Value>) -> BTreeSet<String> {
    figures.into_iter().map(Value::to_string).collect()
}

/// The figures of the table, as an answer has them: numbers lose their last bit when JSON is read.
fn written<'a>(figures: impl IntoIterator<Item = &'a MetricLine>) -> BTreeSet<String> {
    let text = |figure| serde_json::to_string(figure).expect("a figure");
    figures.into_iter().map(|figure| serde_json::from_str::<Value>(&text(figure)).expect("JSON").to_string()).collect()
}

#[track_caller]
fn assert_same(found: &BTreeSet<String>, expected: &BTreeSet<String>, what: &str) {
    let differ: Vec<&String> = found.symmetric_difference(expected).collect();
    assert!(differ.is_empty(), "{what}: {differ:#?}");
}

#[test]
fn every_figure_is_the_same_wherever_it_is_shown() {
    let (workspace, answer) = ran();
    let table = read_table_file(folder(&workspace).join("metrics.parquet")).expect("metrics.parquet");
    let figures = MetricLine::read(&table).expect("its rows");
    one_row_per_identity(&figures);
    let expected = written(&figures);
    assert_eq!(expected.len(), figures.len());
    let figures_of = |answer: &Value| shown(answer["metrics"].as_array().expect("figures"));
    assert_same(&figures_of(&answer), &expected, "run --json");
    assert_same(&figures_of(&workspace.run(["show", "latest", "--json"]).json()), &expected, "show --json");
    text::agrees(&workspace.run(["show", "latest"]).stdout, &figures);
    compare_agrees(&workspace, &figures);
    one_liners_agree(&workspace, &figures);
    draws_are_the_sides_own(&workspace);
    // Everything is in the cache: what another run prints are the same figures.
    let set = SMALL.iter().flat_map(|set| ["--set", set]);
    text::agrees(&workspace.run(["run", "quickstart.toml"].into_iter().chain(set)).stdout, &figures);
}

/// What the quick start is made of is there, each figure once, the ones that collided as well.
fn one_row_per_identity(figures: &[MetricLine]) {
    let mut seen = BTreeMap::new();
    for MetricLine { stage, variant, round, split, metric, value, .. } in figures {
        let key = (stage.as_str(), variant.as_str(), *round, split.as_str(), metric.as_str());
        assert_eq!(seen.insert(key, *value), None, "{key:?}");
    }
    for key in [
        ("train", "main", 3, "train", "loss"),
        ("control_again", "main", 3, "train", "loss"),
        ("control", "seed-only", 3, "train", "loss"),
        ("kinds", "main", 0, "train", "rows"),
        ("traced_kinds", "main", 0, "train", "rows"),
        ("evaluation", "main", 2, "test", "pass@1"),
        ("blind_evaluation", "main", 2, "test", "pass@1 (no trace)"),
        ("base_evaluation", "seed-only", 0, "test", "pass@8"),
        ("gain_over_control", "main", 3, "test", "pass@1 gain (over seed-only)"),
    ] {
        assert!(seen.contains_key(&key), "{key:?}");
    }
    let value = |stage| seen[&(stage, if stage == "control" { "seed-only" } else { "main" }, 3, "train", "loss")];
    assert_eq!(value("control"), value("control_again"), "the same training");
    assert_ne!(value("control"), value("train"));
}

/// Each side against the base: its figures, and its gain as `evaluate` has it.
fn compare_agrees(workspace: &Workspace, figures: &[MetricLine]) {
    let sides = [("main", 1), ("main", 2), ("main", 3), ("seed-only", 3)];
    let base = ("main", 0);
    let name = |(variant, round): (&str, i32)| format!("latest:{variant}@{round}");
    let mut compared = 0;
    for side in sides {
        let answer = workspace.run(["compare", &name(base), &name(side), "--json"]).json();
        for (place, (variant, round)) in [base, side].into_iter().enumerate() {
            let lines = answer["metrics"].as_array().expect("metrics").iter();
            let shown = shown(lines.map(|line| &line["figures"][place]).filter(|figure| !figure.is_null()));
            let own = written(figures.iter().filter(|figure| figure.variant == variant && figure.round == round));
            assert_same(&shown, &own, "compare --json");
            compared += own.len();
        }
        let gain = figures.iter().find(|figure| {
            (figure.variant.as_str(), figure.round, figure.metric.as_str()) == (side.0, side.1, "pass@1 gain")
        });
        difference_is(&answer, gain.expect("a gain"));
    }
    assert!(compared > 60, "{compared} figures");
    let answer = workspace.run(["compare", &name(("seed-only", 3)), &name(("main", 3)), "--json"]).json();
    let gain = figures.iter().find(|figure| figure.metric == "pass@1 gain (over seed-only)");
    difference_is(&answer, gain.expect("a gain"));
}

fn difference_is(answer: &Value, gain: &MetricLine) {
    let flips = answer["flips"].as_array().expect("flips").iter().find(|flips| flips["split"] == "test");
    let flips = flips.expect("the split `test`");
    let difference = flips["difference"]["value"].as_f64().expect("a number");
    assert!((difference - gain.value).abs() < 1e-12, "{difference} and {gain:?}");
    assert_eq!(flips["tasks"], gain.n);
}

/// What README.md tells people to write, where they could.
#[expect(clippy::print_stderr, reason = "says what was left out")]
fn one_liners_agree(workspace: &Workspace, figures: &[MetricLine]) {
    let expected: BTreeSet<(String, String, i64, String)> = figures
        .iter()
        .filter(|figure| figure.metric == "pass@1")
        .map(|figure| {
            (figure.stage.clone(), figure.variant.clone(), figure.round.into(), format!("{:.9}", figure.value))
        })
        .collect();
    let columns = "[r['stage'], r['variant'], int(r['round']), '%.9f' % r['value']]";
    let duckdb =
        format!("import duckdb\nprint(duckdb.sql({:?}).df())", readme::block("-- DuckDB").trim_end_matches(';'));
    let frame = "(t.stack().dropna().rename('value').reset_index() if 'value' not in t.columns else t).iterrows()";
    for (module, program, rows) in [
        ("duckdb", duckdb, format!("[{columns} for _, r in {frame}]")),
        ("polars", readme::block("# Polars").to_owned(), format!("[{columns} for r in t.rows(named=True)]")),
        ("pandas", readme::block("# pandas").to_owned(), format!("[{columns} for _, r in {frame}]")),
    ] {
        let python = |program: &str| {
            let output = Command::new("python3").args(["-c", program]).current_dir(workspace.path()).output();
            output.expect("python3 starts")
        };
        if !python(&format!("import {module}")).status.success() {
            eprintln!("{module} is not installed: its one-liner is not run");
            continue;
        }
        let program = format!("import builtins, json\ndef print(t): builtins.print(json.dumps({rows}))\n{program}");
        let output = python(&program);
        assert!(output.status.success(), "{program}\n{}", String::from_utf8_lossy(&output.stderr));
        let found: Vec<(String, String, i64, String)> = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(found.len(), expected.len(), "{module}");
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected, "{module}");
    }
}

/// `compare --problem` shows what each side's own stage evaluated: the control's samples, and not the last round's.
fn draws_are_the_sides_own(workspace: &Workspace) {
    let outcomes = read_table_file(folder(workspace).join("outcomes.parquet")).expect("outcomes.parquet");
    let problem = read_column::<String>(&outcomes, "problem_id").expect("problems").remove(0);
    let words = ["compare", "latest:main@3", "latest:seed-only@3", "--problem", &problem, "--json"];
    let sides = workspace.run(words).json()["sides"].clone();
    let own = |stage: &str| {
        let words = ["show", "latest", stage, "--problem", &problem, "--limit", "100", "--json"];
        workspace.run(words).json()["rows"].clone()
    };
    assert_eq!((&sides[0]["node"], &sides[1]["node"]), (&"test_verdicts@3".into(), &"control_verdicts".into()));
    assert_eq!(sides[0]["rows"], own("test_verdicts@3"));
    assert_eq!(sides[1]["rows"], own("control_verdicts"));
    // Eight draws and the greedy one.
    assert_eq!(sides[1]["rows"].as_array().map(Vec::len), Some(9));
}
