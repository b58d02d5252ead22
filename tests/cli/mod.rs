//! Commands as a user types them, over the real kinds and the pipelines that ship.

mod accept;
mod commands;
mod hard;
mod models;
mod packages;
mod python;
mod trace;
mod train;

use std::path::Path;

use crate::workspace;

fn shipped(pipeline: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines").join(pipeline).display().to_string()
}

#[test]
fn every_shipped_pipeline_checks() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines");
    let mut checked = 0;
    for entry in std::fs::read_dir(folder).expect("pipelines").map(|entry| entry.expect("an entry").path()) {
        if entry.extension().is_some_and(|extension| extension == "toml") {
            let ran = workspace().run(["check", &entry.display().to_string()]);
            assert_eq!(ran.code, Some(0), "{}: {ran}", entry.display());
            checked += 1;
        }
    }
    assert!(checked >= 4, "{checked} pipelines");
}

#[test]
fn the_quick_start_plans() {
    let workspace = workspace();
    let store = workspace.path().join("store").display().to_string();
    let plan = workspace.run(["plan", &shipped("quickstart.toml"), "--json", "--store", &store]).json();
    let nodes = plan["nodes"].as_array().expect("nodes");
    assert!(nodes.iter().any(|node| node["id"] == "train@3"), "{plan}");
}

#[test]
fn every_kind_describes_itself() {
    for kind in ["dataset", "mutate", "trace", "model", "sample", "verify", "filter", "train", "evaluate", "command"] {
        let ran = workspace().run(["kinds", kind]);
        assert_eq!(ran.code, Some(0), "{ran}");
        assert!(ran.stdout.contains(kind), "{ran}");
    }
}

#[test]
fn doctor_names_what_it_found() {
    let doctor = workspace().run(["doctor", "--json"]).json();
    let names: Vec<&str> =
        doctor["checks"].as_array().expect("checks").iter().filter_map(|line| line["name"].as_str()).collect();
    for name in ["python3", "sandbox", "cpu", "gpu"] {
        assert!(names.contains(&name), "{doctor}");
    }
}

#[test]
fn a_missing_interpreter_is_an_error_with_help_and_nothing_is_cached() {
    let workspace = workspace();
    workspace.write("loop.toml", crate::purity::LOOP);
    let output =
        workspace.command(["run", "loop.toml"]).env("TRACETUNE_PYTHON", "/no/such/python").output().expect("it starts");
    let ran = workspace.ran(&output);
    assert_ne!(ran.code, Some(0), "{ran}");
    assert!(ran.stderr.contains("/no/such/python") && ran.stderr.contains("TRACETUNE_PYTHON"), "{ran}");
    assert!(!ran.stderr.contains("panicked"), "{ran}");
}

#[test]
fn a_command_stage_runs_a_program_of_the_users_own() {
    let workspace = workspace();
    workspace
        .write(
            "copy.py",
            "import os, shutil\nshutil.copyfile(os.environ['TRACETUNE_IN_ROWS'], os.environ['TRACETUNE_OUT'])\n",
        )
        .write(
            "pipeline.toml",
            r#"
[pipeline]
name = "own"
[stages.problems]
kind = "dataset"
source = "builtin:mini-python"
sizes = { dev = 3 }
[stages.copy]
kind = "command"
run = ["python3", "copy.py"]
files = ["copy.py"]
inputs = { rows = "problems" }
env = { MODE = "fast" }
"#,
        );
    let first = workspace.run(["run", "pipeline.toml", "--json"]).json();
    assert_eq!(crate::purity::node(&first, "copy")["rows"], 3, "{first}");
    let second = workspace.run(["run", "pipeline.toml", "--json"]).json();
    assert_eq!(crate::purity::node(&second, "copy")["status"], "cached", "{second}");

    // The program's bytes are part of the key.
    workspace.write(
        "copy.py",
        "import os, shutil\n\nshutil.copyfile(os.environ['TRACETUNE_IN_ROWS'], os.environ['TRACETUNE_OUT'])\n",
    );
    let third = workspace.run(["run", "pipeline.toml", "--json"]).json();
    assert_eq!(crate::purity::node(&third, "copy")["status"], "computed", "{third}");
}

#[test]
fn a_row_wise_command_gets_only_the_new_rows() {
    let workspace = workspace();
    let text = |count: i32| {
        format!(
            r#"
[pipeline]
name = "own"
[stages.problems]
kind = "dataset"
source = "builtin:mini-python"
sizes = {{ dev = {count} }}
[stages.copy]
kind = "command"
run = ["sh", "-c", 'cp "$TRACETUNE_IN_ROWS" "$TRACETUNE_OUT"']
inputs = {{ rows = "problems" }}
row_wise = {{ reads = ["problem_id", "tests"], adds = {{ problem_id = "string", tests = "list of string" }} }}
bad_rows = "10%"
"#
        )
    };
    for (count, computed) in [(20, 20), (30, 10), (25, 0)] {
        workspace.write("pipeline.toml", &text(count));
        let ran = workspace.run(["run", "pipeline.toml", "--json"]).json();
        let copy = crate::purity::node(&ran, "copy");
        assert_eq!((&copy["rows"], &copy["rows_computed"]), (&count.into(), &computed.into()), "{ran}");
    }
    // A column that there is not is found before anything runs.
    workspace.write("pipeline.toml", &text(20).replace("[\"problem_id\", \"tests\"]", "[\"problem_id\", \"test\"]"));
    let checked = workspace.run(["check", "pipeline.toml"]);
    assert_eq!(checked.code, Some(2), "{checked}");
    assert!(checked.stderr.contains("`copy` reads column `test`, which `problems` does not have"), "{checked}");
}

#[test]
fn a_call_is_traced_by_hand() {
    let workspace = workspace();
    workspace.write("f.py", "def f(xs):\n    xs.append(len(xs))\n    return xs\n");
    let ran = workspace.run(["trace", "f.py", "--call", "f([7])"]);
    let expected = "def f(xs):  # (0) xs=[7];\n    xs.append(len(xs))  # (1) xs=[7, 1];\n    return xs  # (2) __return__=[7, 1];\n";
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), expected), "{ran}");
    let json = workspace.run(["trace", "f.py", "--call", "assert f([7]) == 1", "--json"]).json();
    assert_eq!((&json["got"], &json["steps"][1]["line"]), (&"AssertionError()".into(), &2.into()), "{json}");

    let ran = workspace.run(["trace", "f.py", "--call", "f(["]);
    assert_eq!(ran.code, Some(2), "{ran}");
    assert!(ran.stderr.contains("`f([` is no call") && ran.stderr.contains("help: "), "{ran}");
}
