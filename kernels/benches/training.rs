//! Seconds of a training step and the peak of memory, for one model: what `training.py` sets beside PyTorch and peft.
//!
//! `cargo bench -p tracetune-kernels --bench training -- CASE MODE STEPS THREADS`, e.g. `5m full 5 2`: a line of JSON.
//! MODE is `full`, `lora`, `bf16` or `lora-bf16`.
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::time::Instant;
use tracetune_kernels::model::{Config, Lora, Model, Tokenizer};
use tracetune_kernels::random;
use tracetune_kernels::train::{Example, Options, Steps, Trainer};

/// Name; vocabulary, channels, feed-forward width, layers, heads, heads of keys and values; rows of 256 tokens a step.
const CASES: [(&str, [usize; 6], usize); 4] = [
    ("1m", [1024, 128, 384, 4, 4, 2], 16),
    ("5m", [2048, 256, 704, 6, 8, 4], 16),
    ("20m", [4096, 448, 1216, 8, 7, 7], 16),
    ("135m", [49152, 576, 1536, 30, 9, 3], 4),
];
const ROW: usize = 256;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let argument = |nth: usize, default: &str| arguments.get(nth).cloned().unwrap_or_else(|| default.to_owned());
    let (case, mode) = (argument(0, "1m"), argument(1, "full"));
    let number = |nth, default| argument(nth, default).parse::<usize>().expect("a number");
    let (steps, threads) = (number(2, "5"), number(3, "2"));
    let memory_bytes = arguments.get(4).map(|mib| mib.parse::<u64>().expect("MiB") << 20);
    let (_, shape, rows) = CASES.into_iter().find(|(name, ..)| *name == case).expect("1m, 5m, 20m or 135m");
    let [vocabulary, channels, width, layers, heads, key_value] = shape;
    let config = Config {
        num_key_value_heads: Some(key_value),
        max_position_embeddings: 1024,
        ..Config::llama(vocabulary, channels, width, layers, heads)
    };
    let tokenizer = Tokenizer::train_bpe(["a"].into_iter(), 258).expect("trains");
    let model = Model::init(config, tokenizer, 1).expect("a valid model");
    let parameters = model.parameters();
    let example = |nth: u64| {
        let token = |at| (random::bits(nth, at) % vocabulary as u64) as u32;
        Example { tokens: (0..=ROW as u64).map(token).collect(), prompt: 1, weight: 1.0 }
    };
    let examples: Vec<Example> = (0..rows as u64).map(example).collect();
    let options = Options {
        steps: Steps::Epochs(steps as f64 + 2.0),
        learning_rate: 1e-4,
        batch_tokens: rows * ROW,
        sequence_tokens: ROW,
        bf16: mode.ends_with("bf16"),
        lora: mode.starts_with("lora").then(|| Lora { rank: 16, alpha: 32.0, targets: Vec::new() }),
        memory_bytes,
        threads,
        ..Options::default()
    };
    let mut trainer = Trainer::new(model, &examples, &options).expect("plans");
    let mut seconds = Vec::new();
    for step in 0..steps + 2 {
        let start = Instant::now();
        trainer.step().expect("steps").expect("a step");
        if step >= 2 {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    let peak_mib = peak.map_or(0, |kib: u64| kib / 1024);
    println!(
        "{{\"case\": \"{case}\", \"mode\": \"{mode}\", \"parameters\": {parameters}, \"tokens\": {}, \"seconds\": {seconds:?}, \
         \"peak_mib\": {peak_mib}}}",
        rows * ROW
    );
}
