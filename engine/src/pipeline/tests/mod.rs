//! What the text of a pipeline comes to, over kinds that compute nothing.

mod toys;
mod variants;

use std::path::Path;

use super::{Overrides, Pick, Pipeline, Source};
use crate::diagnostic::Diagnostic;

const LOOP: &str = r#"
[pipeline]
name = "next"
seed = 7

[params]
samples = 16

[stages.problems]
kind = "problems"

[stages.base]
kind = "base"

[loop.rounds]
times = 3
carry.model = { start = "base", next = "train" }
stop = { metric = "dev.pass@1", patience = 2 }
select = "dev.pass@1"

[loop.rounds.first.samples]
temperature = 0.5

[loop.rounds.stages.samples]
kind = "sample"
model = "model"
rows = "problems"
n = "$samples"

[loop.rounds.stages.verdicts]
kind = "verify"
rows = "samples"

[loop.rounds.stages.train]
kind = "train"
rows = "verdicts"
model = "base"

[loop.rounds.stages.dev]
kind = "evaluate"
rows = "verdicts"

[stages.last]
kind = "sample"
rows = "problems"
model = "rounds.train"
n = 1

[stages.second]
kind = "sample"
rows = "problems"
model = "rounds.train@2"
n = 1

[stages.best]
kind = "sample"
rows = "problems"
model = "rounds.best.train"
n = 1
variant = ["best", "main"]

[stages.curve]
kind = "join"
rows = "rounds.train.curve"
"#;

fn load(text: &str) -> Result<Pipeline, Vec<Diagnostic>> {
    load_with(text, &[])
}

fn load_with(text: &str, set: &[(&str, &str)]) -> Result<Pipeline, Vec<Diagnostic>> {
    let set = set.iter().map(|(path, value)| ((*path).to_owned(), (*value).to_owned())).collect();
    Pipeline::from_text(
        text,
        "test.toml",
        Path::new("/project"),
        &toys::registry(),
        &Overrides { set, ..Overrides::default() },
    )
}

#[track_caller]
fn good(text: &str, set: &[(&str, &str)]) -> Pipeline {
    load_with(text, set).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

/// Each problem as `line: message`, and its help after ` | `.
fn problems(text: &str) -> Vec<String> {
    let Err(problems) = load(text) else { return Vec::new() };
    problems.iter().map(told).collect()
}

fn told(problem: &Diagnostic) -> String {
    let line = problem.primary().map_or(0, |label| label.file.line_column(label.span.start).0);
    let help = problem.help.iter().map(|help| format!(" | {help}")).collect::<String>();
    format!("{line}: {}{help}", problem.message)
}

fn node<'p>(pipeline: &'p Pipeline, id: &str) -> &'p super::Node {
    pipeline.nodes.iter().find(|node| node.id == id).unwrap_or_else(|| panic!("no node {id}"))
}

fn source(pipeline: &Pipeline, id: &str, port: &str) -> String {
    let binding = node(pipeline, id).inputs.iter().find(|binding| binding.port == port).expect("the port is connected");
    match &binding.source {
        Source::Node { node, output } => format!("{}.{output}", pipeline.nodes[*node].id),
        Source::Loop { nodes, output, pick, .. } => {
            let ids: Vec<&str> = nodes.iter().map(|&node| pipeline.nodes[node].id.as_str()).collect();
            format!("{pick:?} of {}: {output}", ids.join(", "))
        }
    }
}

#[test]
fn a_loop_is_unrolled_and_its_value_carried() {
    let pipeline = good(LOOP, &[]);
    assert_eq!(pipeline.nodes.len(), 2 + 3 * 4 + 4);
    assert_eq!(source(&pipeline, "samples@1", "model"), "base.model");
    assert_eq!(source(&pipeline, "samples@3", "model"), "train@2.model");
    assert_eq!(source(&pipeline, "verdicts@2", "rows"), "samples@2.rows");
    assert_eq!(pipeline.loops[0].rounds[1].len(), 4);
    assert_eq!(node(&pipeline, "train@2").round, 2);
    assert_eq!(node(&pipeline, "problems").round, 0);
    assert_eq!(pipeline.loops[0].stop.as_ref().map(|stop| stop.patience), Some(2));
}

#[test]
fn references_into_a_loop_pick_a_round() {
    let pipeline = good(LOOP, &[]);
    assert_eq!(source(&pipeline, "last", "model"), format!("{:?} of train@1, train@2, train@3: model", Pick::Last));
    assert_eq!(source(&pipeline, "best", "model"), format!("{:?} of train@1, train@2, train@3: model", Pick::Best));
    assert_eq!(source(&pipeline, "second", "model"), "train@2.model");
    assert_eq!(source(&pipeline, "curve", "rows"), "Last of train@1, train@2, train@3: curve");
    assert_eq!(node(&pipeline, "second").round, 2);
    assert_eq!(node(&pipeline, "last").round, 3);
    assert_eq!(node(&pipeline, "best").variant, ["best", "main"]);
}

#[test]
fn every_input_stands_before_its_node() {
    let pipeline = good(LOOP, &[]);
    for (index, node) in pipeline.nodes.iter().enumerate() {
        for binding in &node.inputs {
            let sources = match &binding.source {
                Source::Node { node, .. } => vec![*node],
                Source::Loop { nodes, .. } => nodes.clone(),
            };
            assert!(sources.iter().all(|&source| source < index), "{} before {:?}", node.id, sources);
        }
    }
}

#[test]
fn params_seed_and_first_round_reach_the_stages() {
    let pipeline = good(LOOP, &[]);
    let params = |id: &str| node(&pipeline, id).stage_kind.params().clone();
    assert_eq!(params("samples@2")["n"], 16);
    assert_eq!(params("samples@2")["seed"], 7);
    assert_eq!(params("samples@1")["temperature"], 0.5);
    assert_eq!(params("samples@2")["temperature"], 0.0);
}

#[test]
fn set_reaches_params_seed_stages_and_loops() {
    let set = [
        ("samples", "24"),
        ("seed", "2"),
        ("last.n", "3"),
        ("stages.second.n", "4"),
        ("rounds.samples.temperature", "0.9"),
        ("rounds.times", "2"),
        ("best.format", "edit"),
    ];
    let pipeline = good(LOOP, &set);
    let params = |id: &str| node(&pipeline, id).stage_kind.params().clone();
    assert_eq!(pipeline.loops[0].rounds.len(), 2);
    assert_eq!(params("samples@2")["n"], 24);
    assert_eq!(params("samples@2")["seed"], 2);
    assert!((params("samples@2")["temperature"].as_f64().unwrap() - 0.9).abs() < 1e-6);
    assert_eq!((&params("last")["n"], &params("second")["n"]), (&3.into(), &4.into()));
    assert_eq!(params("best")["format"], "edit", "a value that is no TOML is a string");
}

#[test]
fn set_of_nothing_known_is_an_error() {
    let problems = load_with(LOOP, &[("sample", "3"), ("stages.lost.n", "3")]).err().expect("two errors");
    assert_eq!(problems.len(), 2);
    assert!(problems[0].help[0].contains("did you mean `samples`"), "{problems:?}");
}

#[test]
fn the_resolved_text_gives_the_same_pipeline() {
    let first = good(LOOP, &[("samples", "5")]);
    let again = good(&first.resolved, &[]);
    assert_eq!(again.resolved, first.resolved);
    let ids = |pipeline: &Pipeline| pipeline.nodes.iter().map(|node| node.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&first), ids(&again));
    for (a, b) in first.nodes.iter().zip(&again.nodes) {
        assert_eq!((a.stage_kind.params(), &a.inputs, &a.variant), (b.stage_kind.params(), &b.inputs, &b.variant));
    }
}

#[test]
fn two_loops_with_one_stage_name_are_told_apart() {
    let text = r#"
stages.base.kind = "base"
stages.problems.kind = "problems"
loop.a = { times = 1, stages.x = { kind = "join", rows = "problems" } }
loop.b = { times = 1, stages.x = { kind = "join", rows = "a.x" } }
"#;
    let pipeline = good(text, &[]);
    assert_eq!(source(&pipeline, "b.x@1", "rows"), "Last of a.x@1: rows");
}

#[test]
fn open_ports_take_names_of_the_users_own() {
    let text = "stages.p.kind = 'problems'\nstages.c = { kind = 'command', inputs = { mine = 'p' } }";
    assert_eq!(source(&good(text, &[]), "c", "mine"), "p.rows");
}

#[test]
fn a_chain_of_ten_thousand_stages_is_fine() {
    let mut text = String::from("[stages.s0]\nkind = 'problems'\n");
    for stage in 1..10_000 {
        text.push_str(&format!("[stages.s{stage}]\nkind = 'join'\nrows = 's{}'\n", stage - 1));
    }
    assert_eq!(good(&text, &[]).nodes.len(), 10_000);
    let circle = text.replace("[stages.s0]\nkind = 'problems'", "[stages.s0]\nkind = 'join'\nrows = 's9999'");
    assert_eq!(load(&circle).err().map(|problems| problems.len()), Some(1));
}

#[test]
fn everything_wrong_is_told_at_once_in_order() {
    let text = r#"
[stages.p]
kind = "problms"
[stages.s]
kind = "sample"
rows = "q"
modle = "base"
n = "two"
timeout = 5
[stages.base]
kind = "base"
"#;
    assert_eq!(
        problems(text),
        [
            "3: there is no kind `problms` | did you mean `problems`?",
            "4: `s` has no `model`: the model | add `model = \"…\"`: a stage that gives a model",
            "6: there is no stage `q` | did you mean `p`?",
            "7: kind `sample` has no key `modle` | did you mean `model`?",
            "8: `n` must be an integer of at least 1, found the string \"two\"",
            "9: kind `sample` has no key `timeout` | did you mean `timeout_s`?",
        ]
    );
}

#[test]
fn a_missing_column_names_the_stage_that_has_it() {
    let text = r#"
[stages.problems]
kind = "problems"
[stages.base]
kind = "base"
[stages.sample]
kind = "sample"
rows = "problems"
model = "base"
n = 1
[stages.verify]
kind = "verify"
rows = "problems"
"#;
    let found = load(text).err().expect("an error");
    assert_eq!(
        told(&found[0]),
        "13: `verify` reads column `fix`, which `problems` does not have | `sample` has it: write `rows = \"sample\"`"
    );
    assert_eq!(found[0].labels[0].text, "has `problem_id` and `buggy`");
    assert_eq!(found[0].labels[1].text, "a `problems` stage");
}

#[test]
fn a_cycle_is_shown_as_its_path() {
    let text = "stages.a = { kind = 'join', rows = 'b' }\nstages.b = { kind = 'join', rows = 'a' }";
    let problems = problems(text);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("stages go in a circle: a -> b -> a"), "{problems:?}");
}

#[test]
fn a_cycle_through_a_loop_is_found() {
    let text = r#"
stages.problems.kind = "problems"
stages.report = { kind = "join", rows = "rounds.x" }
loop.rounds = { times = 3, stages.x = { kind = "join", rows = "report" } }
"#;
    let problems = problems(text);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("circle"), "{problems:?}");
}

#[test]
fn values_that_are_wrong_say_what_would_be_right() {
    let sample = |line: &str| {
        let text = format!(
            "[stages.problems]\nkind = 'problems'\n[stages.base]\nkind = 'base'\n[stages.s]\nkind = 'sample'\nrows = 'problems'\nmodel = 'base'\n{line}"
        );
        problems(&text).join("; ")
    };
    assert_eq!(
        sample("n = 1\ntimeout_s = '2s'"),
        "10: `timeout_s` must be an integer of at least 0, in seconds, found the string \"2s\" | write `timeout_s = 2`"
    );
    assert_eq!(sample("n = 0"), "9: `n` must be an integer of at least 1, found the integer 0");
    assert_eq!(sample("n = 1\ntemperature = -1.0"), "10: `temperature` must be at least 0");
    assert_eq!(
        sample("n = 1\nformat = 'edits'"),
        "10: `format` must be one of \"program\", \"edit\", found the string \"edits\" | did you mean `\"edit\"`?"
    );
    assert_eq!(sample("").split(" | ").next(), Some("5: `s` does not say its `n`"));
    assert_eq!(sample("n = '$many'").split(" | ").next(), Some("9: there is no parameter `many`"));
}

#[test]
fn a_wrong_parameter_is_shown_where_it_is_given() {
    let text = LOOP.replace("samples = 16", "samples = \"many\"");
    let found = load(&text).err().expect("an error");
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].labels[1].text, "`samples` is given here");
}

#[test]
fn a_parameter_may_be_given_by_its_former_name() {
    let params = |text: &str| node(&good(text, &[]), "last").stage_kind.params().clone();
    let last = "model = \"rounds.train\"\nn = 1\n";
    let with = |keys: &str| LOOP.replacen(last, &format!("{last}{keys}"), 1);
    assert_eq!(params(&with("patience_s = 3\n")), params(&with("timeout_s = 3\n")));
    let found = problems(&with("timeout_s = 3\npatience_s = 3\n"));
    assert_eq!(found.len(), 1, "{found:?}");
    let text = "`patience_s` is the former name of `timeout_s`, which is there too | leave out `patience_s`";
    assert!(found[0].ends_with(text), "{found:?}");
    let schema = super::schema(&toys::registry());
    assert_eq!(schema["$defs"]["sample.stage"]["properties"]["patience_s"]["deprecated"], true);
}

#[test]
fn references_that_mean_nothing_say_what_was_meant() {
    let with = |reference: &str| {
        problems(&LOOP.replace("model = \"rounds.train@2\"", &format!("model = \"{reference}\""))).join("; ")
    };
    assert!(with("train").contains("`train` is in loop `rounds`: write `rounds.train`"), "{}", with("train"));
    assert!(with("rounds").contains("`rounds` is a loop"), "{}", with("rounds"));
    assert!(with("rounds.trian").contains("did you mean `rounds.train`?"), "{}", with("rounds.trian"));
    assert!(with("rounds.train@9").contains("its rounds are 1 to 3"), "{}", with("rounds.train@9"));
    assert!(with("base.curve").contains("`base` has no output `curve`"), "{}", with("base.curve"));
    assert!(
        with("problems").contains("`second` needs a model at `model`, and `problems` is a table"),
        "{}",
        with("problems")
    );
}

#[test]
fn an_unused_parameter_is_a_warning() {
    let pipeline = good("params.x = 1\nstages.p.kind = 'problems'", &[]);
    assert_eq!(pipeline.warnings.len(), 1);
    assert_eq!(pipeline.warnings[0].message, "parameter `x` is not used");
}

#[test]
fn loops_say_how_often() {
    assert!(problems("loop.r = { times = 0, stages.p = { kind = 'problems' } }")[0].contains("must be from 1"));
    assert!(problems("loop.r.stages.p.kind = 'problems'")[0].contains("does not say how often"));
}

#[test]
fn a_file_lies_over_the_one_it_extends() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("base.toml"), LOOP).unwrap();
    std::fs::write(path("top.toml"), "extends = 'base.toml'\npipeline.seed = 9\nparams.samples = 2\nstages.last.n = 5")
        .unwrap();
    let pipeline = Pipeline::load(&path("top.toml"), &toys::registry(), &Overrides::default())
        .unwrap_or_else(|e| panic!("{e:#?}"));
    assert_eq!((pipeline.name.as_str(), pipeline.seed), ("next", 9));
    assert_eq!(node(&pipeline, "last").stage_kind.params()["n"], 5);
    assert_eq!(node(&pipeline, "samples@1").stage_kind.params()["n"], 2);

    std::fs::write(path("base.toml"), LOOP.replace("rows = \"verdicts\"", "rows = \"verdict\"")).unwrap();
    let problems = Pipeline::load(&path("top.toml"), &toys::registry(), &Overrides::default()).err().expect("errors");
    assert!(problems[0].primary().is_some_and(|label| label.file.name.ends_with("base.toml")));

    std::fs::write(path("base.toml"), "extends = 'top.toml'").unwrap();
    let problems = Pipeline::load(&path("top.toml"), &toys::registry(), &Overrides::default()).err().expect("a circle");
    assert!(problems[0].message.contains("circle"), "{problems:?}");
}

#[test]
fn the_schema_knows_kinds_ports_and_params() {
    let schema = super::schema(&toys::registry());
    let sample = &schema["$defs"]["sample.stage"];
    assert_eq!(sample["properties"]["kind"]["const"], "sample");
    assert_eq!(sample["required"], serde_json::json!(["kind", "rows", "model", "n"]));
    assert!(sample["properties"]["n"]["anyOf"][1]["pattern"].is_string(), "a parameter may stand for a number");
    assert!(schema["$defs"].get("sample.Format").is_some(), "definitions of a kind are kept under its name");
    let text = schema.to_string();
    assert!(!text.contains("#/$defs/Format"), "references follow them");
}

#[test]
fn a_name_inside_and_outside_a_loop_makes_two_stages() {
    let text = format!("{LOOP}\n[stages.train]\nkind = \"problems\"\n");
    let pipeline = good(&text, &[]);
    let stages: Vec<&str> =
        ["train", "rounds.train@2", "samples@2"].map(|id| node(&pipeline, id).stage.as_str()).to_vec();
    assert_eq!(stages, ["train", "rounds.train", "samples"]);
}
