//! Training gives the same bytes on any threads, interrupted or not, and learns.

use crate::{tiny, tokens};
use std::ops::ControlFlow;
use tracetune_kernels::Error;
use tracetune_kernels::decode::{Draw, Request, Sampling, generate};
use tracetune_kernels::model::{Dtype, Lora, Model};
use tracetune_kernels::train::{Decay, Evaluation, Example, Options, Schedule, StepReport, Steps, Trainer, fit};

fn examples(n: u64) -> Vec<Example> {
    (0..n)
        .map(|i| Example { tokens: tokens(10 + (i as usize * 17) % 40, i), prompt: 1 + (i as usize) % 6, weight: 1.0 })
        .collect()
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

/// Of rank 3, on some of the matrices that are multiplied as one.
fn lora() -> Lora {
    Lora { rank: 3, alpha: 5.0, targets: ["q_proj", "v_proj", "up_proj", "o_proj"].map(String::from).into() }
}

/// The bits of a whole run's model, and its reports.
fn run(options: &Options) -> (Vec<u32>, Vec<StepReport>) {
    let mut model = tiny(1);
    let reports = fit(&mut model, &examples(60), options, &mut |_| ControlFlow::Continue(())).expect("trains");
    (bits(&model), reports)
}

fn bits(model: &Model) -> Vec<u32> {
    model.tensors().flat_map(|(_, _, values)| values.iter().map(|value| value.to_bits())).collect()
}

/// All weights, adapters, and either in bf16.
fn ways() -> impl Iterator<Item = Options> {
    let ways = [(None, false), (Some(lora()), false), (None, true), (Some(lora()), true)];
    ways.into_iter().map(|(lora, bf16)| Options { lora, bf16, ..options() })
}

#[test]
fn one_thread_and_several_give_the_same_bytes() {
    for options in ways() {
        let train = |threads| run(&Options { threads, ..options.clone() });
        let one = train(1);
        assert!(one.1.len() > 5 && one.1.iter().all(|report| report.steps == one.1.len()));
        for threads in [2, 3] {
            assert!(train(threads) == one);
        }
    }
}

#[test]
fn an_interrupted_run_ends_with_the_bytes_of_an_uninterrupted_one() {
    let (examples, unseen) = (examples(60), examples(9));
    let evaluation = Evaluation { every: 2, patience: 0, keep_best: true };
    for options in [options(), Options { lora: Some(lora()), learning_rate: 0.05, evaluation, ..options() }] {
        let start = |options| {
            let trainer = Trainer::new(tiny(1), &examples, options).expect("plans");
            if options.evaluation.keep_best { trainer.evaluating(&unseen).expect("plans") } else { trainer }
        };
        let finish = |mut trainer: Trainer| {
            while trainer.step().expect("steps").is_some() {}
            bits(&trainer.finish())
        };
        let whole = finish(start(&options));

        let mut first = start(&options);
        for _ in 0..3 {
            first.step().expect("steps");
        }
        let checkpoint = first.checkpoint().expect("plain data");
        first.step().expect("a step that is lost");
        drop(first);
        let threads = Options { threads: 2, ..options.clone() };
        let mut second = start(&threads);
        second.resume(&checkpoint).expect("reads");
        assert_eq!(second.done(), 3);
        assert!(finish(second) == whole);

        let other = Options { learning_rate: 1e-4, ..options.clone() };
        assert!(matches!(start(&other).resume(&checkpoint), Err(Error::Malformed { .. })));
        let mut torn = start(&options);
        assert!(matches!(torn.resume(&checkpoint[..checkpoint.len() / 2]), Err(Error::Malformed { .. })));
        assert!(finish(torn) == whole, "a checkpoint that can't be read leaves the run as it was");
    }
}

#[test]
fn in_bf16_a_run_is_another_one_and_ends_near() {
    let end = |bf16| run(&Options { bf16, steps: Steps::Epochs(20.0), ..options() }).1;
    let (exact, rounded) = (end(false), end(true));
    let (first, last) = (exact[0], exact.len() - 1);
    assert!(first.loss != rounded[0].loss && (first.loss - rounded[0].loss).abs() < 0.01);
    assert!((first.grad_norm / rounded[0].grad_norm - 1.0).abs() < 0.02);
    let learnt = first.loss - exact[last].loss;
    assert!(learnt > 0.5 && (exact[last].loss - rounded[last].loss).abs() < 0.05 * learnt, "{learnt}");
}

#[test]
fn adapters_change_the_matrices_they_are_on_and_nothing_else() {
    let (start, mut model) = (tiny(1), tiny(1));
    let options = Options { lora: Some(lora()), ..options() };
    fit(&mut model, &examples(60), &options, &mut |_| ControlFlow::Continue(())).expect("trains");
    for ((name, _, before), (_, _, after)) in start.tensors().zip(model.tensors()) {
        let adapted = lora().targets.iter().any(|target| name.contains(target.as_str()));
        assert_eq!(before != after, adapted, "{name}");
    }
    let unknown = Lora { targets: vec!["q_proj".into(), "query".into()], ..lora() };
    let error = Trainer::new(start, &examples(2), &Options { lora: Some(unknown), ..options }).err().expect("refuses");
    assert_eq!(
        error.to_string(),
        "LoRA's target `query` is no matrix of the model's layers, which are `down_proj`, `gate_proj`, `k_proj`, \
         `o_proj`, `q_proj`, `up_proj`, `v_proj`"
    );
}

#[test]
fn a_memory_limit_changes_no_bits_and_one_that_is_too_low_says_what_is_needed() {
    for options in ways() {
        let options = Options { threads: 2, ..options };
        let free = run(&options);
        let mut refused = 0;
        for kib in [200, 400, 600, 800, 1000, 1400, 2000] {
            let options = Options { memory_bytes: Some(kib << 10), ..options.clone() };
            match Trainer::new(tiny(1), &examples(60), &options) {
                Ok(_) => assert!(run(&options) == free),
                Err(error) => {
                    refused += 1;
                    assert!(error.to_string().contains("at the least"), "{error}");
                }
            }
        }
        assert!((1..6).contains(&refused), "some limits fit, the lowest does not: {refused}");
    }
}

#[test]
fn the_rate_rises_and_then_falls_as_the_schedule_says() {
    let rates = |schedule| {
        let (_, reports) = run(&Options { schedule, warmup: 0.2, final_lr: 0.5, ..options() });
        reports.iter().map(|report| report.learning_rate / 3e-3).collect::<Vec<f32>>()
    };
    let [cosine, linear, constant] = [Schedule::Cosine, Schedule::Linear, Schedule::Constant].map(rates);
    let (steps, rising) = (linear.len(), (0.2 * linear.len() as f64).ceil() as usize);
    for step in 0..steps {
        let part = (step + 1).saturating_sub(rising) as f32 / (steps - rising) as f32;
        let straight = if step < rising { (step + 1) as f32 / rising as f32 } else { 1.0 - 0.5 * part };
        let bent = if step < rising { straight } else { 0.75 + 0.25 * (part * std::f32::consts::PI).cos() };
        assert!((linear[step] - straight).abs() < 1e-5 && (cosine[step] - bent).abs() < 1e-5);
        assert!((constant[step] - straight.max(if step < rising { 0.0 } else { 1.0 })).abs() < 1e-5);
    }
}

#[test]
fn only_the_weights_that_are_to_decay_do() {
    let decayed = |decay| {
        let train = |weight_decay| {
            let mut model = tiny(1);
            let options = Options { decay, weight_decay, steps: Steps::Epochs(0.1), ..options() };
            fit(&mut model, &examples(60), &options, &mut |_| ControlFlow::Break(())).expect("trains");
            model
        };
        let (without, with) = (train(0.0), train(1.0));
        let changed = without.tensors().zip(with.tensors()).filter(|((_, _, a), (_, _, b))| a != b);
        changed.map(|((name, shape, _), _)| (name.contains("embed"), shape.len())).collect::<Vec<_>>()
    };
    let matrices = decayed(Decay::Matrices);
    assert!(matrices.contains(&(true, 2)) && matrices.iter().all(|(_, dimensions)| *dimensions == 2));
    let layers = decayed(Decay::Layers);
    assert_eq!(layers, matrices.into_iter().filter(|(embedding, _)| !embedding).collect::<Vec<_>>());
    assert!(decayed(Decay::All).iter().any(|(_, dimensions)| *dimensions == 1));
}

#[test]
fn an_example_of_weight_two_counts_as_two_examples() {
    let examples = examples(5);
    let step = |examples: &[Example], steps| {
        let options = Options { steps, sequence_tokens: 256, batch_tokens: 256, weight_decay: 0.0, ..options() };
        let mut trainer = Trainer::new(tiny(1), examples, &options).expect("plans");
        trainer.step().expect("steps").expect("a step")
    };
    let mut weighted = examples.clone();
    weighted[3].weight = 2.0;
    let twice = step(&[&examples[..], &examples[3..4]].concat(), Steps::Epochs(1.0));
    let weighted = step(&weighted, Steps::Epochs(1.0));
    assert!((twice.loss - weighted.loss).abs() < 1e-5 && (twice.grad_norm - weighted.grad_norm).abs() < 1e-4);
    assert!((step(&examples, Steps::Epochs(1.0)).grad_norm - weighted.grad_norm).abs() > 1e-3);
    let nothing = [Example { weight: 0.0, ..examples[0].clone() }];
    let error = Trainer::new(tiny(1), &nothing, &options()).err().expect("refuses").to_string();
    assert_eq!(error, "example 0: its weight is 0, not a number above 0");
}

#[test]
fn a_run_ends_when_the_unseen_loss_stops_falling_and_gives_the_best_weights() {
    let (seen, unseen) = (examples(8), examples(40)[20..].to_vec());
    let options = Options {
        steps: Steps::Epochs(200.0),
        learning_rate: 2e-2,
        evaluation: Evaluation { every: 3, patience: 2, keep_best: true },
        threads: 2,
        ..options()
    };
    let mut trainer = Trainer::new(tiny(1), &seen, &options).expect("plans").evaluating(&unseen).expect("plans");
    let mut losses = Vec::new();
    while let Some(report) = trainer.step().expect("steps") {
        assert_eq!(report.eval_loss.is_some(), report.step % 3 == 0 || report.step == report.steps);
        losses.extend(report.eval_loss);
    }
    assert!(trainer.done() < trainer.steps(), "random documents can only be learnt by heart");
    let best = losses.iter().copied().fold(f32::INFINITY, f32::min);
    assert_eq!(losses.iter().position(|loss| *loss == best), Some(losses.len() - 3));
    let model = trainer.finish();
    let scores: Vec<f32> =
        unseen.iter().flat_map(|example| model.logprobs(&example.tokens, example.prompt).expect("scores")).collect();
    let mean = -scores.iter().sum::<f32>() / scores.len() as f32;
    assert!((mean - best).abs() < 1e-4, "{mean} {best}");
}

#[test]
fn a_small_set_is_learnt_by_heart_and_can_be_recited() {
    let mut model = tiny(2);
    let eos = model.tokenizer.eos();
    let examples: Vec<Example> = (0..6)
        .map(|i| Example {
            tokens: [vec![20 + i], tokens(20, u64::from(i)), vec![eos]].concat(),
            prompt: 1,
            weight: 1.0,
        })
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
