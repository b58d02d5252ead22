//! `tracetune generate`

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use serde_json::json;
use tracetune_cli::exit;
use tracetune_cli::tool::{Output, error};
use tracetune_kernels::decode::{Completion, Decoder, Draw, Request, Sampling};
use tracetune_kernels::random;

use crate::model;
use crate::sample::Precision;

/// Draw completions of a prompt from a model
///
/// The same code as kind `sample`: a draw depends on the model, the prompt, the seed and its number alone, not on the
/// other draws or the threads.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tracetune generate --model builtin:tiny --prompt-file prompt.txt
  tracetune generate --model SmolLM2.gguf --prompt-file prompt.txt -n 32 --max-tokens 128 --temperature 0.8 --json")]
pub(crate) struct Args {
    /// `builtin:tiny`, a directory in the Hugging Face layout, or a GGUF file
    #[arg(long, value_name = "MODEL")]
    model: String,
    /// A text file with the prompt, taken as it is
    #[arg(long, value_name = "FILE")]
    prompt_file: PathBuf,
    /// Completions to draw
    #[arg(short, long, default_value_t = 1)]
    n: usize,
    /// Tokens a completion may have
    #[arg(long, default_value_t = 128)]
    max_tokens: usize,
    /// Softmax temperature; 0 takes the likeliest token each time
    #[arg(long, default_value_t = 0.8)]
    temperature: f32,
    /// Only the fewest likeliest tokens that hold this much probability
    #[arg(long, default_value_t = 1.0)]
    top_p: f32,
    /// Only so many likeliest tokens; 0 keeps all
    #[arg(long, default_value_t = 0)]
    top_k: usize,
    /// Only tokens with this part of the likeliest one's probability
    #[arg(long, default_value_t = 0.0)]
    min_p: f32,
    /// Makes tokens that were there before less likely; 1 changes nothing
    #[arg(long, default_value_t = 1.0)]
    repetition_penalty: f32,
    /// A text that ends a completion; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// How the weights are kept: fewer bytes are faster, and rounded
    #[arg(long, value_enum, default_value_t)]
    precision: Precision,
    /// Seed of the draws
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Most memory for keys and values, in MiB; the draws do not depend on it [default: no limit]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    cache_mib: Option<u64>,
    /// Threads; results do not depend on it [default: all]
    #[arg(long)]
    threads: Option<usize>,
}

/// Prints the completions. JSON: `{completions: [{text, tokens, logprobs, logprob, finish}], summary: {prompt_tokens,
/// tokens, load_s, prefill_s, decode_s, prefill_tokens_per_s, decode_tokens_per_s (null if nothing was decoded), threads}}`.
pub(crate) fn generate(args: &Args, output: &Output) -> anyhow::Result<u8> {
    let started = Instant::now();
    let text = fs_err::read_to_string(&args.prompt_file)?;
    let model = model::open(&args.model).with_context(|| format!("cannot load the model `{}`", args.model))?;
    let prompt = model.tokenizer.encode(&text)?;
    if prompt.is_empty() {
        let file = args.prompt_file.display();
        return Err(error(format!("`{file}` is empty"), "a completion needs at least one token to go on from"));
    }
    let sampling = Sampling {
        temperature: args.temperature,
        top_p: args.top_p,
        top_k: args.top_k,
        min_p: args.min_p,
        repetition_penalty: args.repetition_penalty,
        max_tokens: args.max_tokens,
        stop: args.stop.clone(),
    };
    let threads = args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let draws: Vec<Draw> =
        (0..args.n).map(|nth| Draw { seed: random::bits(args.seed, nth as u64), greedy: false }).collect();
    let request = Request { prompt, draws };
    let prompt = &request.prompt;
    let decoder = Decoder::new(&model, prompt.len().saturating_add(args.max_tokens), args.precision.into(), threads)?
        .with_cache_limit(args.cache_mib.map(|mib| mib << 20));
    let load_s = started.elapsed().as_secs_f64();

    // The prompt alone is timed first, with one token drawn: the rest of the whole run is decoding.
    let (never, ignore) = (|| false, |_: usize, _: &[Completion]| {});
    let first = Request { prompt: prompt.clone(), draws: vec![Draw::default()] };
    let started = Instant::now();
    decoder.generate(&[first], &Sampling { max_tokens: 1, ..sampling.clone() }, &never, &ignore)?;
    let prefill_s = started.elapsed().as_secs_f64();
    let started = Instant::now();
    let drawn = decoder.generate(std::slice::from_ref(&request), &sampling, &never, &ignore)?;
    let decode_s = (started.elapsed().as_secs_f64() - prefill_s).max(0.0);

    let completions: Vec<Completion> = drawn.into_iter().flatten().collect();
    let tokens: usize = completions.iter().map(|completion| completion.logprobs.len()).sum();
    let prefill = prompt.len() as f64 / prefill_s;
    // The prompt gives the first token of each: where there is no other, nothing was decoded.
    let decode = (tokens > completions.len() && decode_s > 0.0).then(|| tokens as f64 / decode_s);
    if output.json() {
        let completions: Vec<_> = completions
            .iter()
            .map(|Completion { tokens, text, logprob, logprobs, finish }| {
                json!({"text": text, "tokens": tokens, "logprobs": logprobs, "logprob": logprob, "finish": finish})
            })
            .collect();
        output.answer_json(&json!({
            "completions": completions,
            "summary": {
                "prompt_tokens": prompt.len(), "tokens": tokens, "load_s": load_s, "prefill_s": prefill_s,
                "decode_s": decode_s, "prefill_tokens_per_s": prefill, "decode_tokens_per_s": decode, "threads": threads,
            },
        }));
        return Ok(exit::DONE);
    }
    for (nth, completion) in completions.iter().enumerate() {
        if completions.len() > 1 {
            output.story(format!(
                "-- {nth}: {} tokens, log-probability {:.3}",
                completion.tokens.len(),
                completion.logprob
            ));
        }
        output.answer(&completion.text);
    }
    let rate = decode.map(|rate| format!(" at {rate:.1} tokens/s")).unwrap_or_default();
    output.story(format!(
        "{} prompt tokens at {prefill:.1} tokens/s, {tokens} drawn{rate}, {threads} threads",
        prompt.len()
    ));
    Ok(exit::DONE)
}
