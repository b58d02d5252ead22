//! `tracetune score`

use std::path::PathBuf;

use anyhow::Context;
use serde_json::json;
use tracetune_cli::exit;
use tracetune_cli::tool::{Output, error};

use crate::model;

/// Show how likely a model finds each token of a text
///
/// Log-probabilities are natural ones, teacher-forced, and have the bits that `sample` and `generate` report.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  tracetune score --model builtin:tiny --text-file program.py
  tracetune score --model SmolLM2.gguf --text-file program.py --top 5 --json")]
pub(crate) struct Args {
    /// `builtin:tiny`, a directory in the Hugging Face layout, or a GGUF file
    #[arg(long, value_name = "MODEL")]
    model: String,
    /// The text
    #[arg(long, value_name = "FILE")]
    text_file: PathBuf,
    /// The likeliest tokens to show at each place
    #[arg(long, default_value_t = 0)]
    top: usize,
}

/// Prints a line a token. JSON: `{first, positions: [{token, text, logprob, top: [{token, text, logprob}]}], mean_logprob,
/// perplexity}`; `first` is the token that opens the text and has no probability.
pub(crate) fn score(args: &Args, output: &Output) -> anyhow::Result<u8> {
    let text = fs_err::read_to_string(&args.text_file)?;
    let model = model::open(&args.model).with_context(|| format!("cannot load the model `{}`", args.model))?;
    let tokens = model.tokenizer.encode(&text)?;
    if tokens.len() < 2 {
        let message = format!("`{}` has {} tokens", args.text_file.display(), tokens.len());
        return Err(error(message, "a token is scored after another one: two at least are needed"));
    }
    let scored = model.score(&tokens, 1, args.top)?;
    let mean = scored.iter().map(|scored| f64::from(scored.logprob)).sum::<f64>() / scored.len() as f64;
    let named = |token: u32, logprob: f32| {
        anyhow::Ok(json!({"token": token, "text": model.tokenizer.decode(&[token])?, "logprob": logprob}))
    };
    if output.json() {
        let mut positions = Vec::with_capacity(scored.len());
        for scored in &scored {
            let mut position = named(scored.token, scored.logprob)?;
            let top = scored.top.iter().map(|(token, logprob)| named(*token, *logprob));
            position["top"] = top.collect::<anyhow::Result<Vec<_>>>()?.into();
            positions.push(position);
        }
        let perplexity = (-mean).exp();
        output.answer_json(
            &json!({"first": tokens[0], "positions": positions, "mean_logprob": mean, "perplexity": perplexity}),
        );
        return Ok(exit::DONE);
    }
    for scored in &scored {
        let mut line = format!("{:>8.3}  {:?}", scored.logprob, model.tokenizer.decode(&[scored.token])?);
        for (token, logprob) in &scored.top {
            line += &format!("  {:?} {logprob:.3}", model.tokenizer.decode(&[*token])?);
        }
        output.answer(line);
    }
    output.story(format!("{} tokens, mean log-probability {mean:.4}, perplexity {:.3}", scored.len(), (-mean).exp()));
    Ok(exit::DONE)
}
