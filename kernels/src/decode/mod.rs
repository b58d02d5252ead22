//! Drawing completions: prompts computed once and shared by their draws, continuous batching, counter-based randomness.
//!
//! A completion depends on the model, its prompt, its [`Draw`] and the [`Sampling`] alone: not on the requests beside it,
//! their order or the threads. Each thread takes requests from the list and steps its own sub-batch, so no operation waits for
//! another thread; one that finds the list empty takes pieces of the others' operations.

mod batch;
mod cache;
mod sampling;
mod stop;
#[cfg(test)]
mod tests;

use crate::error::pool;
use crate::memory::Cpu;
use crate::model::{Model, Network};
pub use crate::ops::stored::Precision;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::borrow::Borrow;

/// How to choose tokens, and when to stop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// Divides the logits, ≥ 0; 0 is greedy.
    pub temperature: f32,
    /// Nucleus sampling (Holtzman et al. 2019, arXiv:1904.09751): the fewest likeliest tokens that hold this much
    /// probability; 1 keeps all.
    pub top_p: f32,
    /// Only so many likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Only tokens with this part of the likeliest one's probability at least (Nguyen et al. 2024, arXiv:2407.01082); 0
    /// keeps all.
    pub min_p: f32,
    /// Divides the positive logits of tokens that the prompt or the completion has already, and multiplies the negative
    /// ones (Keskar et al. 2019, arXiv:1909.05858); 1 changes nothing.
    pub repetition_penalty: f32,
    /// Tokens to draw at most, the one that ends the text included.
    pub max_tokens: usize,
    /// Texts that end a completion; they are not part of it.
    pub stop: Vec<String>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            max_tokens: 256,
            stop: Vec::new(),
        }
    }
}

/// One completion to draw. `seed` addresses its random numbers: token i uses
/// [`random::uniform`](crate::random::uniform)`(seed, i)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draw {
    /// The address.
    pub seed: u64,
    /// Takes the likeliest token each time, whatever the temperature.
    pub greedy: bool,
}

/// A prompt and the completions wanted of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// At least one token.
    pub prompt: Vec<u32>,
    /// The completions.
    pub draws: Vec<Draw>,
}

/// Why a completion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// An end-of-text token or a stop text.
    Stop,
    /// `max_tokens`, or the model's last position.
    Length,
}

/// A completion drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// The tokens drawn; an end-of-text token is not among them, those that spell a stop text are.
    pub tokens: Vec<u32>,
    /// Their text, without the stop text and what follows it.
    pub text: String,
    /// Σ ln p of every token drawn, the end-of-text token included, under the model at temperature 1 with all tokens.
    pub logprob: f32,
    /// ln p of each of them, as in that sum.
    pub logprobs: Vec<f32>,
    /// Why it ended.
    pub finish: Finish,
}

/// Draws every completion of every request; results in the order of the requests and their draws.
///
/// `on_request` hears of each request as it finishes, in any order and from several threads; when `cancelled` gives true,
/// drawing ends soon.
///
/// # Errors
/// [`Error::Request`], naming its index, if a prompt is empty, longer than the model's positions or has an unknown token;
/// [`Error::Options`] for a sampling that makes no sense; [`Error::Cancelled`].
pub fn generate(
    model: &Model,
    requests: &[Request],
    sampling: &Sampling,
    threads: usize,
    cancelled: &(dyn Fn() -> bool + Sync),
    on_request: &(dyn Fn(usize, &[Completion]) + Sync),
) -> Result<Vec<Vec<Completion>>> {
    check(model, requests, sampling)?;
    let longest = requests.iter().map(|request| request.prompt.len()).max().unwrap_or(0);
    Decoder::new(model, longest.saturating_add(sampling.max_tokens), Precision::F32, threads)?
        .generate(requests, sampling, cancelled, on_request)
}

/// A model packed for decoding, its own or a borrowed one, for whoever draws more than once.
pub struct Decoder<M> {
    model: M,
    network: Network,
    pool: rayon::ThreadPool,
    positions: usize,
    cache_bytes: Option<u64>,
}

impl<M: Borrow<Model>> Decoder<M> {
    /// For texts of `positions` tokens at most, prompt and completion together; no longer ones than the model's.
    /// Its matrices are rounded to `precision`; the embedding table and the norms are not.
    ///
    /// # Errors
    /// [`Error::Threads`] if the threads cannot be started.
    pub fn new(model: M, positions: usize, precision: Precision, threads: usize) -> Result<Self> {
        let Model { config, .. } = model.borrow();
        let positions = positions.min(config.max_position_embeddings);
        let mut network = Network::new(config, Cpu::new(), positions)?;
        let (pool, weights) = (pool(threads)?, model.borrow().weights());
        pool.install(|| network.store(weights, precision));
        Ok(Self { model, network, pool, positions, cache_bytes: None })
    }

    /// Keeps keys and values within so many bytes: sequences for which there is no room wait, and what they had is computed
    /// anew. What is drawn does not depend on it.
    #[must_use]
    pub fn with_cache_limit(mut self, bytes: Option<u64>) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// The model.
    pub fn model(&self) -> &Model {
        self.model.borrow()
    }

    /// As [`generate`].
    ///
    /// # Errors
    /// As [`generate`]; a prompt may have as many tokens as the decoder has positions, and no longer completion than its
    /// cache has room for.
    pub fn generate(
        &self,
        requests: &[Request],
        sampling: &Sampling,
        cancelled: &(dyn Fn() -> bool + Sync),
        on_request: &(dyn Fn(usize, &[Completion]) + Sync),
    ) -> Result<Vec<Vec<Completion>>> {
        let Self { network, pool, positions, cache_bytes, .. } = self;
        let model = self.model();
        check(model, requests, sampling)?;
        if let Some(index) = requests.iter().position(|request| request.prompt.len() > *positions) {
            let message = format!("the prompt has more tokens than the decoder's {positions} positions");
            return Err(Error::Request { index, message });
        }
        let stop = stop::Stops::new(model, sampling)?;
        let job = batch::Job {
            model,
            network,
            requests,
            sampling,
            stop: &stop,
            positions: *positions,
            cache_bytes: *cache_bytes,
        };
        job.run(pool, cancelled, on_request)
    }
}

fn check(model: &Model, requests: &[Request], sampling: &Sampling) -> Result<()> {
    let Sampling { temperature, top_p, min_p, repetition_penalty, max_tokens, .. } = *sampling;
    if !(temperature.is_finite() && temperature >= 0.0) {
        return Err(Error::Options(format!("`temperature` must be 0 or more, not {temperature}")));
    }
    if !(top_p > 0.0 && top_p <= 1.0) {
        return Err(Error::Options(format!("`top_p` must be above 0 and at most 1, not {top_p}")));
    }
    if !(0.0..=1.0).contains(&min_p) {
        return Err(Error::Options(format!("`min_p` must be 0 to 1, not {min_p}")));
    }
    if !(repetition_penalty.is_finite() && repetition_penalty > 0.0) {
        return Err(Error::Options(format!("`repetition_penalty` must be above 0, not {repetition_penalty}")));
    }
    if max_tokens == 0 || sampling.stop.iter().any(String::is_empty) {
        return Err(Error::Options("`max_tokens` must be at least 1, and no stop text may be empty".into()));
    }
    let (positions, vocabulary) = (model.config.max_position_embeddings, model.config.vocab_size);
    for (index, Request { prompt, .. }) in requests.iter().enumerate() {
        let message = if prompt.is_empty() {
            "the prompt is empty".to_owned()
        } else if prompt.len() > positions {
            format!("the prompt has {} tokens, the model {positions} positions", prompt.len())
        } else if let Some(token) = prompt.iter().find(|token| **token as usize >= vocabulary) {
            format!("token {token} is not in the model's vocabulary of {vocabulary}")
        } else {
            continue;
        };
        return Err(Error::Request { index, message });
    }
    Ok(())
}
