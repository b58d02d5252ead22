//! Programs that import third-party packages, in a pipeline and by hand.

use serde_json::json;

use crate::support::Workspace;
use crate::workspace;

const PIPELINE: &str = r#"
[pipeline]
name = "packages"
[stages.problems]
kind = "dataset"
source = "problems.jsonl"
[stages.mutate]
kind = "mutate"
rows = "problems"
packages = "site"
[stages.trace]
kind = "trace"
rows = "mutate"
program = "reference"
packages = "site"
warm = ["twofold"]
"#;

const PROGRAM: &str = "import twofold\n\ndef f(x):\n    return twofold.double(x) + 1\n";

/// With a package, a problem whose reference imports it, and the pipeline.
fn project() -> Workspace {
    let workspace = workspace();
    let problem = json!({
        "problem_id": "double", "split": "train", "instruction": "Double and add one.", "reference": PROGRAM,
        "entry_point": "f", "setup": "", "tests": ["assert f(4) == 9"],
    });
    workspace
        .write("site/twofold/__init__.py", "def double(x):\n    return 2 * x\n")
        .write("site/twofold-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: twofold\nVersion: 1.0\n")
        .write("problems.jsonl", &problem.to_string())
        .write("pipeline.toml", PIPELINE);
    workspace
}

#[test]
fn programs_of_a_pipeline_import_packages_whose_files_count_in_the_key() {
    let workspace = project();
    let run = || {
        let ran = workspace.run(["run", "pipeline.toml", "--json"]);
        assert_eq!(ran.code, Some(0), "{ran}");
        ran.json()
    };
    let first = run();
    let traced = workspace.run(["show", "latest", "trace", "--json"]).stdout;
    assert!(traced.contains("__return__=9;"), "{traced}");
    for stage in ["mutate", "trace"] {
        assert_eq!(crate::purity::node(&first, stage)["status"], "computed", "{first}");
    }
    assert_eq!(crate::purity::node(&run(), "mutate")["status"], "cached");

    workspace.write("site/twofold-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: twofold\nVersion: 1.1\n");
    let why = workspace.run(["plan", "pipeline.toml"]);
    assert!(why.stdout.contains("package twofold changed (1.0 => 1.1)"), "{why}");
    let again = run();
    assert_eq!(crate::purity::node(&again, "mutate")["status"], "computed", "{again}");
}

#[test]
fn a_folder_that_has_no_packages_is_an_error_of_the_plan() {
    let workspace = project();
    workspace.write("pipeline.toml", &PIPELINE.replace("\"site\"", "\"site-packages\""));
    let ran = workspace.run(["run", "pipeline.toml"]);
    assert_ne!(ran.code, Some(0), "{ran}");
    assert!(ran.stderr.contains("`packages = \"site-packages\"`: "), "{ran}");
    assert!(ran.stderr.contains("name a virtual environment"), "{ran}");
}

#[test]
fn programs_are_verified_and_traced_by_hand_with_packages() {
    let workspace = project();
    let program = json!({"id": 1, "source": PROGRAM, "tests": ["assert f(4) == 9"]}).to_string();
    workspace.write("programs.jsonl", &program).write("f.py", PROGRAM);
    let verified = workspace.run(["verify", "programs.jsonl", "--packages", "site", "--warm", "twofold"]);
    assert!(verified.stdout.contains("\"verdict\":\"pass\""), "{verified}");
    let traced = workspace.run(["trace", "f.py", "--call", "f(4)", "--packages", "site"]);
    assert!(traced.stdout.contains("__return__=9;"), "{traced}");
    let wrong = workspace.run(["verify", "programs.jsonl", "--packages", "site", "--warm", "twofolds"]);
    assert_ne!(wrong.code, Some(0), "{wrong}");
    let message = "`warm` names `twofolds`, which can't be imported: ModuleNotFoundError: No module named 'twofolds'";
    assert!(wrong.stderr.contains(message), "{wrong}");
}
