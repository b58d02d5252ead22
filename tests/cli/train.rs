//! Kind `train` beyond its defaults: adapters, weights, a schedule, an evaluation that ends the run early.

use crate::support::digests;
use crate::workspace;

/// Some rows to learn from, others to evaluate on, and a stage `train` with these parameters.
fn pipeline(params: &str) -> String {
    let dataset = |name: &str, size: usize, split: &str| {
        format!(
            "[stages.{name}_problems]\nkind = \"dataset\"\nsource = \"builtin:mini-python\"\nsizes = {{ {split} = {size} }}\n\n\
             [stages.{name}]\nkind = \"trace\"\nrows = \"{name}_problems\"\n\n"
        )
    };
    format!(
        "[pipeline]\nname = \"adapters\"\nseed = 3\n\n{}{}\
         [stages.tiny]\nkind = \"model\"\nsource = \"builtin:tiny\"\n\n\
         [stages.train]\nkind = \"train\"\nmodel = \"tiny\"\nrows = \"seen\"\n{params}",
        dataset("seen", 20, "seed"),
        dataset("unseen", 8, "dev"),
    )
}

const ADAPTERS: &str = r#"dev = "unseen"
epochs = 40
lora = { rank = 4, targets = ["q_proj", "v_proj", "down_proj"] }
learning_rate = 0.5
schedule = "linear"
weights = "steps"
evaluate_every = 2
patience = 2
keep = "best"
"#;

#[test]
fn adapters_train_with_weights_until_the_unseen_loss_stops_falling() {
    let workspace = workspace();
    workspace.write("adapters.toml", &pipeline(ADAPTERS));
    let ran = workspace.run(["run", "adapters.toml", "--threads", "1"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    assert!(ran.stderr.contains("ended early, after step "), "{ran}");
    let rows = |output: &str| {
        let ran = workspace.run(["show", "latest", output, "--limit", "100", "--json"]);
        assert_eq!(ran.code, Some(0), "{ran}");
        ran.json()["rows"].as_array().expect("rows").clone()
    };
    let (curve, evaluations) = (rows("train.curve"), rows("train.evaluations"));
    assert_eq!(evaluations.len(), curve.len() / 2);
    let best: Vec<bool> = evaluations.iter().filter_map(|row| row["best"].as_bool()).collect();
    assert!(best[0] && best.ends_with(&[true, false, false]), "{best:?}");
    let kept = &evaluations[evaluations.len() - 3]["loss"];
    let metrics = rows("train.metrics");
    assert!(metrics.iter().any(|row| row["split"] == "dev" && &row["value"] == kept), "{metrics:?}");

    // A limit is not part of the key, and threads change nothing.
    let digests_before = digests(&workspace);
    workspace.write("adapters.toml", &pipeline(&format!("{ADAPTERS}memory_bytes = 100_000_000\n")));
    let again = workspace.run(["run", "adapters.toml", "--threads", "2"]);
    assert!(again.code == Some(0) && !again.stderr.contains("Running train"), "{again}");
    assert_eq!(digests(&workspace), digests_before);
    let other = crate::workspace();
    other.write("adapters.toml", &pipeline(&format!("{ADAPTERS}memory_bytes = 100_000_000\n")));
    assert_eq!(other.run(["run", "adapters.toml", "--threads", "2"]).code, Some(0));
    assert_eq!(digests(&other), digests_before);
}

#[test]
fn a_model_trained_in_bf16_takes_half_the_room_and_can_be_used() {
    let workspace = workspace();
    let next =
        "\n[stages.drawn]\nkind = \"sample\"\nmodel = \"train.model\"\nrows = \"unseen\"\nn = 1\nmax_tokens = 4\n";
    let size = |precision: &str| {
        workspace.write("bf16.toml", &pipeline(&format!("epochs = 1\nprecision = \"{precision}\"\n{next}")));
        let ran = workspace.run(["run", "bf16.toml", "--threads", "2"]);
        assert_eq!(ran.code, Some(0), "{ran}");
        let model = workspace.path().join(".tracetune/models").join(&digests(&workspace)["train.model"]);
        fs_err::metadata(model.join("model.safetensors")).expect("a model").len()
    };
    let (whole, half) = (size("f32"), size("bf16"));
    assert!((0.49..0.52).contains(&(half as f64 / whole as f64)), "{whole} {half}");
}

#[test]
fn what_cannot_be_trained_says_what_to_write_instead() {
    let says = |command: &str, params: &str| {
        let workspace = workspace();
        workspace.write("adapters.toml", &pipeline(params));
        let ran = workspace.run([command, "adapters.toml"]);
        assert_ne!(ran.code, Some(0), "{ran}");
        ran.stderr
    };
    let check = says("check", "dev = \"unseen\"\npatience = 3\n");
    assert!(
        check.contains("`patience`: there is one evaluation only") && check.contains("`evaluate_every`"),
        "{check}"
    );
    let check = says("check", "lora = { rank = 0 }\n");
    assert!(check.contains("`lora` must have a rank of at least 1"), "{check}");
    let check = says("check", "lora = { rnk = 4 }\n");
    assert!(check.contains("rnk"), "{check}");
    let run = says("run", "evaluate_every = 5\n");
    assert!(run.contains("`evaluate_every` needs rows to evaluate on: connect the port `dev`"), "{run}");
    let run = says("run", "weights = \"importance\"\n");
    assert!(run.contains("`weights` names the column `importance`, the rows have `"), "{run}");
    let run = says("run", "lora = { targets = [\"query\"] }\n");
    assert!(run.contains("LoRA's target `query` is no matrix of the model's layers"), "{run}");
    let run = says("run", "memory_bytes = 1_000_000\n");
    assert!(run.contains("MiB at the least, the limit is 1 MiB"), "{run}");
}
