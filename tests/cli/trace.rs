//! Traces within a budget of a model's tokens.

use std::path::Path;

use tracetune::trace::tokenizer;
use tracetune_engine::cache::Store;
use tracetune_engine::runs;
use tracetune_engine::table::read_column;

use crate::workspace;

const PIPELINE: &str = r#"
[pipeline]
name = "budget"
seed = 1
[stages.problems]
kind = "dataset"
source = "builtin:mini-python"
sizes = { train = 6 }
[stages.tiny]
kind = "model"
source = "builtin:tiny"
[stages.whole]
kind = "trace"
rows = "problems"
[stages.short]
kind = "trace"
rows = "problems"
model = "tiny"
budget_tokens = 90
"#;

#[test]
fn a_budget_in_tokens_is_kept_as_the_model_counts_them() {
    let workspace = workspace();
    workspace.write("p.toml", PIPELINE);
    let ran = workspace.run(["run", "p.toml", "-q", "--store", "store"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    let store = Store::open(workspace.path().join("store")).expect("a store");
    let all = runs::list(&store).expect("runs");
    let traces = |stage: &str| -> Vec<String> {
        let table = all[0].table(&store, stage, None).expect("a table");
        read_column::<String>(&table, "trace").expect("traces")
    };
    let tiny = tokenizer(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny")).expect("a tokenizer");
    let tokens = |trace: &String| tiny.encode(trace).expect("tokens").len();
    let (whole, short) = (traces("whole"), traces("short"));
    for (whole, short) in whole.iter().zip(&short) {
        if tokens(whole) <= 90 {
            assert_eq!(whole, short, "what fits is not cut");
        } else {
            assert!(tokens(short) <= 90, "{} tokens:\n{short}", tokens(short));
        }
    }
    let cut = whole.iter().zip(&short).filter(|(whole, short)| whole != short).count();
    assert!(0 < cut && cut < whole.len(), "{cut} of {} are cut: the budget should part them", whole.len());
}

#[test]
fn a_budget_in_tokens_without_a_model_says_what_is_missing() {
    let workspace = workspace();
    workspace.write("p.toml", &PIPELINE.replace("model = \"tiny\"\n", ""));
    let ran = workspace.run(["run", "p.toml", "-q", "--store", "store"]);
    assert_eq!(ran.code, Some(1), "{ran}");
    assert!(ran.stderr.contains("`budget_tokens` needs the `model` whose tokens are counted"), "{ran}");
}
