//! Models by hand: what `generate` draws, `score` finds as likely.

use crate::workspace;

#[test]
fn what_generate_draws_score_finds_as_likely() {
    let workspace = workspace();
    workspace.write("prompt.txt", "def f(x):\n    return");
    let draw = |threads: &str| {
        let ran = workspace.run(
            "generate --model builtin:tiny --prompt-file prompt.txt -n 3 --max-tokens 12 --seed 4 --json --threads"
                .split(' ')
                .chain([threads]),
        );
        assert_eq!(ran.code, Some(0), "{ran}");
        ran.json()
    };
    let drawn = draw("1");
    let completions = drawn["completions"].as_array().expect("completions");
    assert_eq!(drawn["completions"], draw("2")["completions"]);
    assert_eq!(completions.len(), 3);
    assert_eq!(drawn["summary"]["prompt_tokens"], 9);

    let ids = |values: &serde_json::Value| -> Vec<u64> {
        values.as_array().expect("a list").iter().filter_map(|id| id.as_u64()).collect()
    };
    let completion = &completions[0];
    workspace.write("text.txt", &format!("def f(x):\n    return{}", completion["text"].as_str().expect("a text")));
    let ran = workspace.run("score --model builtin:tiny --text-file text.txt --top 2 --json".split(' '));
    let scored = ran.json();
    let positions = scored["positions"].as_array().expect("positions");
    let (drawn, found) = (ids(&completion["tokens"]), &positions[8..]);
    // Read again, a text can fall into other tokens than it was drawn in: these do not.
    assert_eq!(found.iter().filter_map(|position| position["token"].as_u64()).collect::<Vec<_>>(), drawn);
    for (position, logprob) in found.iter().zip(completion["logprobs"].as_array().expect("a list")) {
        assert_eq!(&position["logprob"], logprob);
        let top = position["top"].as_array().expect("a list");
        assert!(top[0]["logprob"].as_f64() >= top[1]["logprob"].as_f64());
    }
}

#[test]
fn a_folder_without_a_model_and_an_empty_prompt_are_refused() {
    let workspace = workspace();
    workspace.write("empty.txt", "");
    insta::assert_snapshot!(workspace.run("generate --model nowhere --prompt-file empty.txt".split(' ')), @"
    exit code: 2
    --- stderr
    error: cannot load the model `nowhere`: failed to open file `nowhere/config.json`: No such file or directory (os error 2)
    ");
    insta::assert_snapshot!(workspace.run("generate --model builtin:tiny --prompt-file empty.txt".split(' ')), @"
    exit code: 2
    --- stderr
    error: `empty.txt` is empty
    help: a completion needs at least one token to go on from
    ");
}

#[test]
fn resample_gives_a_rationale_on_and_keeps_its_number() {
    let workspace = workspace();
    let pipeline = r#"
        [stages.problems]
        kind = "dataset"
        source = "builtin:mini-python"
        sizes = { test = 3 }

        [stages.traces]
        kind = "trace"
        rows = "problems"

        [stages.model]
        kind = "model"
        source = "builtin:tiny"

        [stages.samples]
        kind = "sample"
        model = "model"
        rows = "traces"
        n = 1
        greedy = true
        max_tokens = 24

        [stages.proxied]
        kind = "resample"
        model = "model"
        rows = "samples"
        max_tokens = 24

        [stages.verdicts]
        kind = "verify"
        rows = "proxied"

        [stages.evaluation]
        kind = "evaluate"
        rows = "verdicts"
        k = [1]
        condition = "proxy"
    "#;
    workspace.write("pipeline.toml", pipeline);
    let ran = workspace.run(["run", "-q"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    let row = |stage: &str, row: &str| workspace.run(["show", "latest", stage, "--row", row, "--json"]).json();
    for number in ["0", "1", "5"] {
        let (before, after) = (row("samples", number), row("proxied", number));
        let (before, after) = (&before["value"], &after["value"]);
        for same in ["problem_id", "sample", "rationale"] {
            assert_eq!(before[same], after[same], "{same}");
        }
        let text = |row: &serde_json::Value, column: &str| row[column].as_str().expect("a text").to_owned();
        let expected = format!("{} {}\nfix:", text(before, "prompt"), text(before, "rationale"));
        assert_eq!(text(after, "prompt"), expected);
    }
    let compared = workspace.run(["compare", "latest", "latest", "--paper"]);
    assert!(compared.stdout.contains("fixes by smaller models from the rationales, in per cent"), "{compared}");
}

#[test]
fn a_completion_goes_on_from_its_start() {
    let workspace = workspace();
    let pipeline = r#"
        [stages.problems]
        kind = "dataset"
        source = "builtin:mini-python"
        sizes = { test = 2 }

        [stages.traces]
        kind = "trace"
        rows = "problems"

        [stages.model]
        kind = "model"
        source = "builtin:tiny"

        [stages.samples]
        kind = "sample"
        model = "model"
        rows = "traces"
        n = 0
        greedy = true
        max_tokens = 16
        start = " line 1"
    "#;
    workspace.write("pipeline.toml", pipeline);
    let ran = workspace.run(["run", "-q"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    let row = workspace.run(["show", "latest", "samples", "--row", "0", "--json"]).json();
    let text = |column: &str| row["value"][column].as_str().expect("a text").to_owned();
    let (prompt, completion) = (text("prompt"), text("completion"));
    assert!(!prompt.ends_with(" line 1"), "{prompt}");
    let drawn = completion.strip_prefix(" line 1").expect("the start belongs to the completion");

    workspace.write("prompt.txt", &format!("{prompt} line 1"));
    let ran = workspace.run(
        "generate --model builtin:tiny --prompt-file prompt.txt --max-tokens 16 --temperature 0 --json".split(' '),
    );
    assert_eq!(ran.json()["completions"][0]["text"], drawn);
}

#[test]
fn a_strangers_index_writes_and_reads_nothing_outside_its_folder() {
    let workspace = workspace();
    let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny");
    let folder = workspace.path().join("stranger");
    std::fs::create_dir(&folder).expect("a folder");
    for name in ["config.json", "tokenizer.json"] {
        std::fs::copy(shipped.join(name), folder.join(name)).expect("a copy");
    }
    workspace.write("victim.safetensors", "precious");
    let victim = workspace.path().join("victim.safetensors");
    workspace.write("pipeline.toml", "[stages.model]\nkind = \"model\"\nsource = \"stranger\"\n");
    for name in [victim.display().to_string(), "../victim.safetensors".to_owned()] {
        let index = serde_json::json!({"weight_map": {"model.norm.weight": name}}).to_string();
        workspace.write("stranger/model.safetensors.index.json", &index);
        let ran = workspace.run(["run", "pipeline.toml"]);
        assert_eq!(ran.code, Some(1), "{ran}");
        assert!(ran.stderr.contains("tensor `model.norm.weight` is said to lie in"), "{ran}");
        assert_eq!(std::fs::read_to_string(&victim).expect("it is there"), "precious");
    }
}
