//! Every pipeline that ships, and every `init` template, cut down to seconds: each stage must give rows.

mod empty;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::endpoint::Served;
use crate::support::{Workspace, copy_folder};
use crate::workspace;

/// A pipeline with what cuts it down.
type Cut = (&'static str, &'static [&'static str]);

/// The quick start's own figures cut down, and its parameters.
const QUICK: &[&str] =
    &["seed_problems.sizes.seed=60", "problems=16", "test_problems=6", "samples=8", "test_samples=2", "rounds.times=1"];

/// Those that need nothing, with what each has beside [`QUICK`].
const ALONE: &[Cut] = &[
    ("quickstart.toml", &[]),
    ("probe.toml", &[]),
    ("proxy.toml", &["proxy_programs=60"]),
    ("ablations/quickstart.toml", &[]),
];

/// Those that are not made of the quick start.
const OTHERS: &[Cut] = &[
    ("own-bugs.toml", &["seed_problems.sizes.seed=60", "problems=8", "samples=2"]),
    ("pretrain-tiny.toml", &["programs=30"]),
    ("python.toml", &["seed_problems.sizes.seed=60", "problems=8", "samples=2"]),
    ("sparse-tests.toml", &["seed_problems.sizes.seed=60", "problems=8", "samples=4", "more=4", "adequacy.mutants=5"]),
    ("next-small.toml", &["seed_problems.sizes.seed=60", "limit=6", "samples=4", "rounds=1", "k=[1]"]),
];

/// The paper's experiment, on problems of MBPP's layout and with a model of ours.
const NEXT: &[&str] = &[
    "data=mbpp.jsonl",
    "bugs=2",
    "bugs_test=2",
    "samples=8",
    "rounds=1",
    "max_tokens=64",
    "shots=0",
    "prompt=builtin:repair",
    "fix_format=edit",
    "k=[1]",
    "max_base_pass_rate=1.0",
    "stop=[\"\\n# \"]",
];

/// Those that have a test of their own below.
const WITH_DATA: &[&str] = &[
    "next.toml",
    "ablations/next.toml",
    "mbpp-r.toml",
    "endpoint.toml",
    "command.toml",
    "pytorch.toml",
    "long-programs.toml",
];

/// A project with the shipped pipelines in it.
fn project() -> Workspace {
    let workspace = workspace();
    let target = workspace.path().join("pipelines");
    std::fs::create_dir(&target).expect("a folder");
    copy_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines"), &target);
    workspace
}

/// Runs a file and checks that every stage with a table gave rows.
#[track_caller]
fn gives_rows(workspace: &Workspace, file: &str, flags: &[&str], sets: &[&str]) -> Value {
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    let ran = workspace.run(["run", file, "--json"].into_iter().chain(flags.iter().copied()).chain(sets));
    assert_eq!(ran.code, Some(0), "{file}: {ran}");
    let shown = workspace.run(["show", "latest", "--json"]).json();
    let nodes = shown["run"]["nodes"].as_array().expect("nodes");
    for node in nodes {
        let first = &node["outputs"][node["first_output"].as_str().expect("an output")];
        assert!(first["type"] == "model" || first["rows"].as_u64() > Some(0), "{file}: {node}");
    }
    assert!(!nodes.is_empty(), "{file}: {shown}");
    ran.json()
}

fn path(pipeline: &str) -> String {
    format!("pipelines/{pipeline}")
}

#[test]
fn every_shipped_pipeline_is_run_by_a_test_here() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines");
    let files = |folder: &str, under: &Path| -> BTreeSet<String> {
        let entries = std::fs::read_dir(under).expect("a folder").map(|entry| entry.expect("an entry").file_name());
        let names = entries.map(|name| name.into_string().expect("UTF-8")).filter(|name| name.ends_with(".toml"));
        names.map(|name| format!("{folder}{name}")).collect()
    };
    let shipped: BTreeSet<String> =
        files("", &folder).union(&files("ablations/", &folder.join("ablations"))).cloned().collect();
    let known = ALONE.iter().chain(OTHERS).map(|(name, _)| *name).chain(WITH_DATA.iter().copied());
    assert_eq!(shipped, known.map(str::to_owned).collect());
}

#[test]
fn the_quick_start_and_what_extends_it_give_rows() {
    let workspace = project();
    for (pipeline, more) in ALONE {
        let variants: &[&str] = if pipeline.starts_with("ablations/") { &["--ablations"] } else { &[] };
        gives_rows(&workspace, &path(pipeline), variants, &[QUICK, more].concat());
    }
}

#[test]
fn pipelines_that_need_no_data_give_rows() {
    let workspace = project();
    for (pipeline, sets) in OTHERS {
        let variants: &[&str] = if *pipeline == "sparse-tests.toml" { &["--only", "keep=1"] } else { &[] };
        gives_rows(&workspace, &path(pipeline), variants, sets);
    }
}

/// Problems of the built-in corpus in MBPP's layout: `mbpp.jsonl`.
fn write_mbpp(workspace: &Workspace) {
    workspace.write(
        "problems.toml",
        "[stages.problems]\nkind = \"dataset\"\nsource = \"builtin:mini-python\"\n\
         sizes = { train = 6, dev = 4, test = 4 }\n",
    );
    gives_rows(workspace, "problems.toml", &[], &[]);
    let shown = workspace.run(["show", "latest", "problems", "--limit", "100", "--json"]).json();
    let mut text = String::new();
    let mut next = json!({"train": 601, "dev": 511, "test": 11});
    for row in shown["rows"].as_array().expect("rows") {
        let task_id = next[row["split"].as_str().expect("a split")].take();
        next[row["split"].as_str().expect("a split")] = json!(task_id.as_i64().expect("a number") + 1);
        let problem = json!({
            "task_id": task_id, "text": row["instruction"], "code": row["reference"], "test_list": row["tests"],
            "test_setup_code": "", "challenge_test_list": [],
        });
        text.push_str(&format!("{problem}\n"));
    }
    workspace.write("mbpp.jsonl", &text);
}

/// A model that has seen repairs: `model`.
fn write_model(workspace: &Workspace) {
    gives_rows(workspace, "pipelines/quickstart.toml", &[], QUICK);
    let folder = workspace.run(["show", "latest", "base"]).stdout.trim().to_owned();
    let folder = folder.replace("[folder]", &workspace.path().display().to_string());
    std::fs::create_dir(workspace.path().join("model")).expect("a folder");
    copy_folder(Path::new(&folder), &workspace.path().join("model"));
}

#[test]
fn pipelines_for_mbpp_give_rows() {
    let workspace = project();
    write_mbpp(&workspace);
    gives_rows(&workspace, "pipelines/mbpp-r.toml", &[], &["data=mbpp.jsonl", "train_bugs=2", "dev_bugs=2"]);
    write_model(&workspace);
    let sets = [NEXT, &["model=model"]].concat();
    let answer = gives_rows(&workspace, "pipelines/next.toml", &[], &sets);
    // The test split is reported once, on the chosen round.
    let gains = answer["metrics"].as_array().expect("metrics").iter();
    let gains = gains.filter(|figure| figure["split"] == "test" && figure["metric"] == "pass@1 gain").count();
    assert_eq!(gains, 1, "{answer}");
    gives_rows(&workspace, "pipelines/ablations/next.toml", &["--only", "no-trace", "--only", "no-hard-set"], &sets);
}

#[test]
fn every_template_of_init_gives_rows() {
    let workspace = project();
    write_mbpp(&workspace);
    write_model(&workspace);
    let model = format!("model={}", workspace.path().join("model").display());
    let with_model = [NEXT, &[model.as_str()]].concat();
    let python: &[&str] = &["seed_problems.sizes.seed=60", "problems=8", "samples=2"];
    for (template, sets) in [("quickstart", QUICK), ("next", &with_model), ("python", python)] {
        let made = workspace.run(["init", template, "--template", template]);
        assert_eq!(made.code, Some(0), "{made}");
        let folder = workspace.path().join(template);
        std::fs::copy(workspace.path().join("mbpp.jsonl"), folder.join("mbpp.jsonl")).expect("a copy");
        let sets = sets.iter().flat_map(|set| ["--set", set]);
        let output = workspace.command(["run", "--json"].into_iter().chain(sets)).current_dir(folder).output();
        let ran = workspace.ran(&output.expect("the binary starts"));
        assert_eq!(ran.code, Some(0), "{template}: {ran}");
    }
}

#[test]
fn the_pipeline_for_an_endpoint_gives_rows() {
    let (served, workspace) = (Served::start(), project());
    let endpoint = format!("endpoint=openai:{}#tiny", served.url);
    gives_rows(&workspace, "pipelines/endpoint.toml", &[], &[&endpoint, "problems=2", "samples=2"]);
}

/// Whether Python has the packages that a pipeline needs; says so if not.
#[expect(clippy::print_stderr, reason = "says what was left out")]
fn has_packages(names: &str, pipeline: &str) -> bool {
    let asked = Command::new("python3").args(["-c", &format!("import {names}")]).output();
    let has = asked.is_ok_and(|output| output.status.success());
    if !has {
        eprintln!("Python has not all of {names}: {pipeline} is checked and not run");
    }
    has
}

#[test]
fn the_pipeline_with_a_program_of_ones_own_gives_rows() {
    let (workspace, pipeline) = (project(), "pipelines/command.toml");
    assert_eq!(workspace.run(["check", pipeline]).code, Some(0));
    if has_packages("pyarrow", pipeline) {
        gives_rows(&workspace, pipeline, &[], &["problems=3"]);
    }
}

#[test]
fn what_was_trained_with_pytorch_is_sampled_and_evaluated() {
    let (workspace, pipeline) = (project(), "pipelines/pytorch.toml");
    assert_eq!(workspace.run(["check", pipeline]).code, Some(0));
    if has_packages("torch, transformers, pyarrow", pipeline) {
        let sets = ["problems=40", "test_problems=20"];
        let answer = gives_rows(&workspace, pipeline, &[], &sets);
        let figures = answer["metrics"].as_array().expect("metrics");
        let answered =
            figures.iter().find(|figure| figure["metric"] == "answered rate" && figure["stage"] == "evaluation");
        // A model whose weights, tokens or end of text were lost on the way answers nothing.
        assert!(answered.expect("a figure")["value"].as_f64() > Some(0.8), "{answer}");
        let audit = workspace.run(["audit", "latest", "--stages", "18", "--rows", "2"]);
        assert_eq!(audit.code, Some(0), "{audit}");
    }
}

/// A module with its own test suite, as `pipelines/scripts/long_programs.py` writes them.
const LONG: &str = r#"
class Stack:
    """Last in, first out."""

    def __init__(self, items=()):
        self.items = list(items)

    def push(self, item):
        self.items.append(item)
        return len(self.items)

    def pop(self):
        if not self.items:
            raise IndexError("empty")
        return self.items.pop()
"#;

const SUITE: &str = r#"
import sys, unittest
stack = sys.modules["candidate"]
class Suite(unittest.TestCase):
    def test_push(self):
        self.assertEqual(stack.Stack([1]).push(2), 2)
    def test_pop(self):
        self.assertEqual(stack.Stack([1, 2]).pop(), 2)
    def test_empty(self):
        with self.assertRaises(IndexError):
            stack.Stack().pop()
def passes(test):
    result = unittest.TestResult()
    Suite(test).run(result)
    return result.testsRun > 0 and result.wasSuccessful()
"#;

#[test]
fn the_pipeline_for_long_programs_gives_rows() {
    let workspace = project();
    let tests: Vec<String> =
        ["test_push", "test_pop", "test_empty"].map(|test| format!("assert passes({test:?})")).into();
    let problem = json!({
        "problem_id": "stack", "split": "test", "instruction": "A stack.", "reference": LONG, "entry_point": "Stack",
        "setup": SUITE, "tests": tests,
    });
    workspace.write("long-programs.jsonl", &format!("{problem}\n"));
    gives_rows(&workspace, "pipelines/long-programs.toml", &[], &[]);
}

#[test]
fn a_run_and_what_shows_it_warn_of_rationales_with_false_facts() {
    let workspace = project();
    let sets = || QUICK.iter().flat_map(|set| ["--set", *set]);
    let ran = workspace.run(["run", "pipelines/quickstart.toml"].into_iter().chain(sets()));
    let shown = workspace.run(["show", "latest", "--json"]).json();
    let warning = &shown["warnings"][0];
    let seen = warning["seen"].as_str().expect("a warning");
    assert!(seen.contains("rationales that state execution facts") && warning["round"] == 1, "{shown}");
    // In the round, and at the end with what to try.
    assert_eq!(ran.stderr.matches(seen).count(), 2, "{ran}");
    assert!(ran.stderr.contains("try: "), "{ran}");
}
