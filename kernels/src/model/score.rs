//! What a model thinks of a given text: logits and log-probabilities, a block of positions at a time.

use super::activations::{Activations, sized};
use super::forward::{LOGIT_ROWS, Row, row_forward};
use super::{Model, Network, Weights};
use crate::memory::Cpu;
use crate::ops::classifier::{Classifier, exponentials};
use crate::ops::stored::Precision;
use crate::{Error, Result, math};

/// A token of a text, as the model saw it coming.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// The token.
    pub token: u32,
    /// ln p of it, given what stands before it.
    pub logprob: f32,
    /// The likeliest tokens at its place with their ln p, the likeliest first; of equals the lower id.
    pub top: Vec<(u32, f32)>,
}

impl Model {
    /// Σ ln p(token | what stands before it) over `tokens[prompt..]`, in nats: teacher-forced, and the same bits that
    /// [`decode`](crate::decode) reports for the tokens it draws.
    ///
    /// # Errors
    /// [`Error::Config`] if there are more tokens than the model has positions, or a token it does not know.
    pub fn logprobs(&self, tokens: &[u32], prompt: usize) -> Result<Vec<f32>> {
        Ok(self.score(tokens, prompt, 0)?.iter().map(|scored| scored.logprob).collect())
    }

    /// Each of `tokens[prompt..]` but the first token, with the `top` likeliest at its place.
    ///
    /// # Errors
    /// As [`Model::logprobs`].
    pub fn score(&self, tokens: &[u32], prompt: usize, top: usize) -> Result<Vec<Scored>> {
        let mut scored = Vec::new();
        let (mut exps, mut order) = (Vec::new(), Vec::new());
        let end = tokens.len().saturating_sub(1);
        self.each_logits(&tokens[..end], prompt.max(1) - 1, |position, logits| {
            exps.clear();
            exps.extend_from_slice(logits);
            let (max, sum) = exponentials(Cpu::new().level(), &mut exps);
            let normaliser = math::ln(f64::from(sum));
            let logprob = |token: u32| (f64::from(logits[token as usize]) - f64::from(max) - normaliser) as f32;
            order.clear();
            order.extend(0..logits.len() as u32);
            let likelier = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
            if top > 0 && top < order.len() {
                order.select_nth_unstable_by(top - 1, likelier);
            }
            order.truncate(top);
            order.sort_unstable_by(likelier);
            let token = tokens[position + 1];
            let top = order.iter().map(|token| (*token, logprob(*token))).collect();
            scored.push(Scored { token, logprob: logprob(token), top });
        })?;
        Ok(scored)
    }

    /// The logits (V) after each token, for whoever needs them all: (T, V).
    ///
    /// # Errors
    /// As [`Model::logprobs`].
    pub fn logits(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        let mut all = Vec::with_capacity(tokens.len() * self.config.vocab_size);
        self.each_logits(tokens, 0, |_, logits| all.extend_from_slice(logits))?;
        Ok(all)
    }

    /// The state (C) of the last layer, after its norm, at the end of each text; `see` is told of each one done.
    ///
    /// # Errors
    /// As [`Model::logprobs`], or a text without tokens.
    pub fn last_states(&self, texts: &[Vec<u32>], mut see: impl FnMut(usize)) -> Result<Vec<Vec<f32>>> {
        let longest = texts.iter().map(Vec::len).max().unwrap_or_default();
        texts.iter().try_for_each(|tokens| self.check_tokens(tokens))?;
        if texts.iter().any(Vec::is_empty) {
            return Err(Error::Config("a text has no tokens".into()));
        }
        let mut network = Network::new(&self.config, Cpu::new(), longest)?;
        network.store(self.weights(), Precision::F32);
        let mut kept = Activations::default();
        let mut states = Vec::with_capacity(texts.len());
        for tokens in texts {
            row_forward(&network, self.weights(), &Row::to_read(tokens, tokens.len() - 1), &mut kept);
            states.push(kept.normed[..network.channels].to_vec());
            see(states.len());
        }
        Ok(states)
    }

    /// Hands over the logits (V) after each token from the one at `first` on.
    fn each_logits(&self, tokens: &[u32], first: usize, mut see: impl FnMut(usize, &[f32])) -> Result<()> {
        self.check_tokens(tokens)?;
        let vocabulary = self.config.vocab_size;
        if first >= tokens.len() {
            return Ok(());
        }
        let network = Network::new(&self.config, Cpu::new(), tokens.len())?;
        let mut kept = Activations::default();
        let row = Row::to_read(tokens, first);
        row_forward(&network, self.weights(), &row, &mut kept);
        for (block, normed) in kept.normed.chunks(LOGIT_ROWS * network.channels).enumerate() {
            let rows = normed.len() / network.channels;
            let logits = sized(&mut kept.logits, rows * vocabulary);
            network.linear(logits, normed, (&network.head, &self.layout.head, self.weights()), rows, false);
            for (nth, logits) in logits.chunks_exact(vocabulary).enumerate() {
                see(first + block * LOGIT_ROWS + nth, logits);
            }
        }
        Ok(())
    }

    fn check_tokens(&self, tokens: &[u32]) -> Result<()> {
        let (limit, vocabulary) = (self.config.max_position_embeddings, self.config.vocab_size);
        if tokens.len() > limit {
            return Err(Error::Config(format!("{} tokens, the model has {limit} positions", tokens.len())));
        }
        if let Some(token) = tokens.iter().find(|token| **token as usize >= vocabulary) {
            return Err(Error::Config(format!("token {token} is not in the model's vocabulary of {vocabulary}")));
        }
        Ok(())
    }
}

/// Σ loss in nats over the row's targets, whatever they count in training.
pub(crate) fn row_loss(network: &Network, weights: Weights, row: &Row, kept: &mut Activations) -> f64 {
    row_forward(network, weights, row, kept);
    let Activations { normed, logits, losses, .. } = kept;
    let normed = &normed[..row.places.len() * network.channels];
    losses.resize(LOGIT_ROWS, 0.0);
    let blocks = normed.chunks(LOGIT_ROWS * network.channels).zip(row.targets.chunks(LOGIT_ROWS));
    blocks.fold(0.0, |sum, (normed, targets)| {
        let logits = sized(logits, targets.len() * network.vocabulary);
        network.linear(logits, normed, (&network.head, &weights.layout.head, weights), targets.len(), false);
        network.cpu.classifier(logits, losses, targets, network.vocabulary, 1.0);
        losses[..targets.len()].iter().fold(sum, |sum, loss| sum + loss)
    })
}
