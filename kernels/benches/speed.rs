//! GFLOP/s of the matrix product on language-model shapes, and tokens/s of a tiny model, decoding and training.
//!
//! `cargo bench -p tracetune-kernels` runs all of it; an argument (`matmul`, `decode`, `train`) runs one part, a number
//! after it sets the threads. `product` answers the shapes of its standard input, for `products.py`; with `bf16` or `int8` after the
//! threads, for operands rounded to it.
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::ops::ControlFlow;
use std::time::Instant;
use tracetune_kernels::crew::together;
use tracetune_kernels::decode::{Draw, Request, Sampling, generate};
use tracetune_kernels::memory::Cpu;
use tracetune_kernels::model::{Config, Model, Tokenizer};
use tracetune_kernels::ops::matmul::{MatMul, Weight};
use tracetune_kernels::ops::panels::{Lhs, Panels, multiply};
use tracetune_kernels::ops::stored::Precision;
use tracetune_kernels::random;
use tracetune_kernels::simd::Level;
use tracetune_kernels::train::{Example, Options, Steps, fit};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let part = arguments.first().map_or("", String::as_str);
    let threads = arguments.get(1).and_then(|text| text.parse().ok()).unwrap_or(2);
    if part == "product" {
        products(
            threads,
            match arguments.get(2).map_or("f32", String::as_str) {
                "bf16" => Precision::Bf16,
                "int8" => Precision::Int8,
                _ => Precision::F32,
            },
        );
    }
    if part.is_empty() || part == "matmul" {
        matmul();
    }
    if part.is_empty() || part == "decode" {
        decode(threads);
    }
    if part.is_empty() || part == "train" {
        train(threads);
    }
}

fn noise(n: usize) -> Vec<f32> {
    (0..n).map(|i| random::normal(1, i as u64)).collect()
}

/// Seconds of one call: the median of nine runs of at least 20 ms.
fn seconds(mut call: impl FnMut()) -> f64 {
    call();
    let start = Instant::now();
    call();
    let calls = (0.02 / start.elapsed().as_secs_f64()).ceil().max(1.0) as usize;
    let mut times: Vec<f64> = (0..9)
        .map(|_| {
            let start = Instant::now();
            (0..calls).for_each(|_| call());
            start.elapsed().as_secs_f64() / calls as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[4]
}

fn matmul() {
    println!("{:>6} {:>6} {:>6} {:>10} {:>10} {:>10} {:>10}", "m", "k", "n", "scalar", "avx2", "avx512", "dW");
    for (m, k, n) in [
        (1, 128, 384),
        (16, 128, 384),
        (64, 128, 672),
        (64, 336, 128),
        (64, 128, 768),
        (512, 128, 384),
        (512, 128, 672),
        (512, 336, 128),
        (128, 128, 768),
        (1, 576, 1536),
        (32, 576, 1536),
        (512, 576, 1536),
        (300, 576, 960),
        (300, 1536, 576),
        (1024, 576, 3072),
        (1024, 1536, 576),
        (32, 576, 49152),
        (512, 512, 512),
    ] {
        let (x, w, mut y) = (noise(m * k), noise(n * k), vec![0.0; m * n]);
        let mut panels = Panels::default();
        panels.pack_columns(Level::detect(), &w, k, n, k);
        let flop = 2.0 * (m * k * n) as f64;
        print!("{m:>6} {k:>6} {n:>6}");
        for level in Level::available() {
            if level == Level::SCALAR {
                print!(" {:>10}", "-");
                continue;
            }
            let time = seconds(|| multiply(level, &mut y, n, Lhs::rows(&x, m, k), &panels, false));
            print!(" {:>10.1}", flop / time / 1e9);
        }
        let mut dw = vec![0.0; n * k];
        let time = seconds(|| Cpu::new().linear_backward_weight(&mut dw, &y, &x, &Weight::default(), n, k));
        println!(" {:>10.1}", flop / time / 1e9);
    }
}

/// For each line `m k n` of standard input, a line: GFLOP/s of a linear layer packed before, and as training has it; of its
/// input's gradient, and of its weight's, which know f32 and bf16 only.
fn products(threads: usize, precision: Precision) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
    let cpu = Cpu::new();
    for line in std::io::stdin().lines() {
        let line = line.expect("text");
        let shape: Vec<usize> = line.split_whitespace().map(|number| number.parse().expect("m k n")).collect();
        let [m, k, n] = shape[..] else { panic!("m k n, not {line:?}") };
        let (mut x, mut w, mut y) = (noise(m * k + 16), noise(n * k + 16), noise(m * n + 16));
        let (mut dx, mut dw) = (vec![0.0; m * k + 16], vec![0.0; n * k + 16]);
        let [x, w, y, dx, dw] = [&mut x, &mut w, &mut y, &mut dx, &mut dw].map(|numbers| aligned(numbers));
        let plain = Weight::Plain { rounded: precision == Precision::Bf16 };
        let packed = cpu.store(w, n, k, precision);
        let times = together(&pool, || {
            [
                seconds(|| cpu.linear(y, x, &packed, w, m, false)),
                seconds(|| cpu.linear(y, x, &plain, w, m, false)),
                seconds(|| cpu.linear_backward_input(dx, y, &plain, w, m)),
                seconds(|| cpu.linear_backward_weight(dw, y, x, &plain, n, k)),
            ]
        });
        let [packed, plain, input, weight] = times.map(|time| 2.0 * (m * k * n) as f64 / time / 1e9);
        println!("{packed:.1} {plain:.1} {input:.1} {weight:.1}");
    }
}

/// All but 16 of the numbers, starting on a cache line, as PyTorch's do.
fn aligned(numbers: &mut [f32]) -> &mut [f32] {
    let (skip, len) = (numbers.as_ptr().align_offset(64), numbers.len() - 16);
    &mut numbers[skip..skip + len]
}

fn tiny() -> Model {
    let text: String = (0..4000).map(|i| format!("def f{i}(x):\n    return x + {}\n", i * 37 % 1009)).collect();
    let tokenizer = Tokenizer::train_bpe([text.as_str()].into_iter(), 768).expect("trains");
    let config = Config { max_position_embeddings: 1024, ..Config::llama(768, 128, 336, 4, 4) };
    Model::init(config, tokenizer, 1).expect("a valid model")
}

fn decode(threads: usize) {
    let model = tiny();
    let requests: Vec<Request> = (0..64)
        .map(|r| Request {
            prompt: (0..150).map(|i| 2 + (random::bits(r, i) % 700) as u32).collect(),
            draws: (0..16).map(|d| Draw { seed: r * 100 + d, greedy: false }).collect(),
        })
        .collect();
    for (name, top_p) in [("top_p 1", 1.0), ("top_p 0.95", 0.95)] {
        let sampling = Sampling { temperature: 0.8, top_p, max_tokens: 64, ..Sampling::default() };
        let start = Instant::now();
        let drawn = generate(&model, &requests, &sampling, threads, &|| false, &|_, _| {}).expect("decodes");
        let time = start.elapsed().as_secs_f64();
        let tokens: usize = drawn.iter().flatten().map(|completion| completion.tokens.len()).sum();
        println!(
            "decode {name:<10} {threads} threads: {:>8.0} tok/s ({tokens} tokens, 16 draws of 64 prompts of 150)",
            tokens as f64 / time
        );
    }
}

fn train(threads: usize) {
    for (name, prompt) in [("all targets", 1), ("completion only", 120)] {
        let mut model = tiny();
        let examples: Vec<Example> = (0..800)
            .map(|e| {
                let length = 150 + random::bits(9, e) % 100;
                Example {
                    tokens: (0..length).map(|i| 2 + (random::bits(e, i) % 700) as u32).collect(),
                    prompt,
                    weight: 1.0,
                }
            })
            .collect();
        let options = Options {
            steps: Steps::Epochs(1.0),
            batch_tokens: 4096,
            sequence_tokens: 512,
            threads,
            ..Options::default()
        };
        let start = Instant::now();
        let reports = fit(&mut model, &examples, &options, &mut |_| ControlFlow::Continue(())).expect("trains");
        let time = start.elapsed().as_secs_f64();
        let last = reports.last().expect("a step");
        println!(
            "train {name:<16} {threads} threads: {:>8.0} tok/s ({} parameters, {} steps of 4096, {} tokens)",
            last.tokens as f64 / time,
            model.parameters(),
            last.steps,
            last.tokens
        );
    }
}
