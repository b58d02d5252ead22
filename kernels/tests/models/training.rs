//! Training gives the same bytes on any threads, interrupted or not, and learns.

use crate::{tiny, tokens};
use std::ops::ControlFlow;
use tracetune_kernels::Error;
use tracetune_kernels::decode::{Draw, Request, Sampling, generate};
use tracetune_kernels::model::{Dtype, Model};
use tracetune_kernels::train::{Example, Options, Steps, Trainer, fit};

fn examples(n: u64) -> Vec<Example> {
    (0..n).map(|i| Example { tokens: tokens(10 + (i as usize * 17) % 40, i), prompt: 1 + (i as usize) % 6 }).collect()
}

fn options() -> Options {
    Options {
        steps: Steps::Epochs(2.5),
        batch_tokens: 400,
        sequence_tokens: 64,
        learning_rate: 3e-3,
        ..Options::default()
    }
}

fn bits(model: &Model) -> Vec<u32> {
    model.tensors().flat_map(|(_, _, values)| values.iter().map(|value| value.to_bits())).collect()
}

#[test]
fn one_thread_and_several_give_the_same_bytes() {
    let train = |threads| {
        let mut model = tiny(1);
        let options = Options { threads, ..options() };
        let reports = fit(&mut model, &examples(60), &options, &mut |_| ControlFlow::Continue(())).expect("trains");
        (bits(&model), reports)
    };
    let one = train(1);
    assert!(one.1.len() > 5 && one.1.iter().all(|report| report.steps == one.1.len()));
    for threads in [2, 3] {
        assert!(train(threads) == one);
    }
}

#[test]
fn an_interrupted_run_ends_with_the_bytes_of_an_uninterrupted_one() {
    let (examples, options) = (examples(60), options());
    let mut whole = Trainer::new(tiny(1), &examples, &options).expect("plans");
    while whole.step().expect("steps").is_some() {}

    let dir = tempfile::tempdir().expect("a folder");
    let mut first = Trainer::new(tiny(1), &examples, &options).expect("plans");
    assert!(!first.resume(dir.path()).expect("nothing there"));
    for _ in 0..3 {
        first.step().expect("steps");
    }
    first.checkpoint(dir.path()).expect("writes");
    first.step().expect("a step that is lost");
    drop(first);
    let threads = Options { threads: 2, ..options.clone() };
    let mut second = Trainer::new(tiny(1), &examples, &threads).expect("plans");
    assert!(second.resume(dir.path()).expect("reads"));
    assert_eq!(second.done(), 3);
    while second.step().expect("steps").is_some() {}
    assert!(bits(whole.model()) == bits(&second.finish()));

    let other = Options { learning_rate: 1e-4, ..options };
    let mut other = Trainer::new(tiny(1), &examples, &other).expect("plans");
    assert!(matches!(other.resume(dir.path()), Err(Error::Malformed { .. })));
}

#[test]
fn a_small_set_is_learnt_by_heart_and_can_be_recited() {
    let mut model = tiny(2);
    let eos = model.tokenizer.eos();
    let examples: Vec<Example> = (0..6)
        .map(|i| Example { tokens: [vec![20 + i], tokens(20, u64::from(i)), vec![eos]].concat(), prompt: 1 })
        .collect();
    let options = Options {
        steps: Steps::Epochs(250.0),
        batch_tokens: 128,
        sequence_tokens: 64,
        learning_rate: 1e-2,
        weight_decay: 0.0,
        threads: 2,
        ..Options::default()
    };
    let reports = fit(&mut model, &examples, &options, &mut |_| ControlFlow::Continue(())).expect("trains");
    let (first, last) = (reports[0], reports[reports.len() - 1]);
    assert!(first.loss > 5.0 && last.loss < 0.05, "{} then {}", first.loss, last.loss);
    let requests: Vec<Request> = examples
        .iter()
        .map(|example| Request { prompt: example.tokens[..1].to_vec(), draws: vec![Draw { seed: 0, greedy: true }] })
        .collect();
    let drawn = generate(&model, &requests, &Sampling::default(), 1, &|| false, &|_, _| {}).expect("decodes");
    for (example, completions) in examples.iter().zip(drawn) {
        assert_eq!(completions[0].tokens, example.tokens[1..21]);
    }
}

#[test]
fn the_loss_is_on_the_completion_and_documents_do_not_see_each_other() {
    let model = tiny(3);
    let examples = examples(4);
    let expected: Vec<f32> =
        examples.iter().flat_map(|example| model.logprobs(&example.tokens, example.prompt).expect("scores")).collect();
    let mean = -expected.iter().sum::<f32>() / expected.len() as f32;
    let options = Options { sequence_tokens: 256, batch_tokens: 256, ..Options::default() };
    let mut trainer = Trainer::new(model, &examples, &options).expect("plans");
    let report = trainer.step().expect("steps").expect("a step");
    assert_eq!(report.target_tokens as usize, expected.len());
    assert!((report.loss - mean).abs() < 1e-5, "{} {mean}", report.loss);
}

#[test]
fn a_checkpoint_comes_back_and_a_wrong_one_says_what_is_wrong() {
    let model = tiny(4);
    let dir = tempfile::tempdir().expect("a folder");
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    model.save(&a).expect("writes");
    let again = Model::load(&a).expect("reads");
    assert!(bits(&again) == bits(&model));
    again.save(&b).expect("writes");
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        assert_eq!(std::fs::read(a.join(file)).expect("reads"), std::fs::read(b.join(file)).expect("reads"), "{file}");
    }
    model.save_as(&b, Dtype::Bf16).expect("writes");
    let rounded = Model::load(&b).expect("reads");
    for ((_, _, x), (_, _, y)) in model.tensors().zip(rounded.tensors()) {
        assert!(x.iter().zip(y).all(|(x, y)| (x - y).abs() <= x.abs() / 256.0));
    }

    let config = std::fs::read_to_string(a.join("config.json")).expect("reads");
    let says = |from: &str, to: &str| {
        assert!(config.contains(from));
        std::fs::write(a.join("config.json"), config.replace(from, to)).expect("writes");
        Model::load(&a).expect_err("refuses").to_string()
    };
    assert_eq!(
        says("\"intermediate_size\": 40", "\"intermediate_size\": 41"),
        "tensor `model.layers.0.mlp.gate_proj.weight` has shape [40, 24], the configuration asks for [41, 24]"
    );
    assert!(says("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3").contains("has no tensor `model.layers.2."));
    assert!(
        says("LlamaForCausalLM", "GPT2LMHeadModel").contains("`GPT2LMHeadModel` (model type `llama`) is not supported")
    );
    std::fs::write(a.join("config.json"), &config).expect("writes");
    let weights = std::fs::read(a.join("model.safetensors")).expect("reads");
    std::fs::write(a.join("model.safetensors"), &weights[..weights.len() - 5]).expect("writes");
    assert!(Model::load(&a).expect_err("refuses").to_string().contains("model.safetensors`: "));
    std::fs::remove_file(a.join("model.safetensors")).expect("removes");
    assert!(Model::load(&a).expect_err("refuses").to_string().contains("model.safetensors"));
}
