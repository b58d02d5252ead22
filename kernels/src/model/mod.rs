//! Decoders: configuration, weights, tokenizer, and the whole network forward and backward.

mod activations;
mod adapters;
mod backward;
mod checkpoint;
mod config;
mod family;
mod forward;
mod gguf;
mod layout;
mod network;
mod score;
mod shards;
mod tokenizer;

pub use adapters::Lora;
pub use checkpoint::Dtype;
pub use config::{Config, TokenIds};
pub use layout::{Layout, Tensor};
pub use score::Scored;
pub use tokenizer::Tokenizer;

pub(crate) use activations::{Activations, Keep, LayerActivations, sized};
pub(crate) use adapters::Adapters;
pub(crate) use backward::{Gradient, row_gradient};
pub(crate) use forward::{LOGIT_ROWS, Row, documents_forward, embed, layer_forward};
pub(crate) use network::{Network, Weights};
pub(crate) use score::row_loss;

use crate::random;
use crate::{Error, Result};
use layout::Start;
use std::collections::BTreeMap;

/// A model: its configuration, its tokenizer and its weights in float32.
#[derive(Clone, Debug)]
pub struct Model {
    /// What it is built like.
    pub config: Config,
    /// Text to tokens and back.
    pub tokenizer: Tokenizer,
    pub(crate) layout: Layout,
    pub(crate) weights: Vec<f32>,
    /// Other small files of the model's folder, such as its chat template: kept, and written back.
    pub(crate) sidecars: BTreeMap<String, Vec<u8>>,
}

impl Model {
    /// A new model with random weights: embeddings with spread 0.02, matrices with spread 1/√(inputs), those that write to
    /// the residual stream divided by √(2·layers) more (Radford et al. 2019), norms at one.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration contradicts itself or the tokenizer has more tokens than it.
    pub fn init(config: Config, tokenizer: Tokenizer, seed: u64) -> Result<Self> {
        config.check()?;
        check_vocabulary(&config, &tokenizer)?;
        let layout = Layout::new(&config)?;
        let mut weights = vec![0.0; layout.len()];
        for (index, tensor) in layout.tensors().iter().enumerate() {
            let values = &mut weights[tensor.range()];
            match tensor.start {
                Start::Zeros => {}
                Start::Ones => values.fill(1.0),
                Start::Normal(spread) => {
                    let seed = random::bits(seed, index as u64);
                    for (i, value) in values.iter_mut().enumerate() {
                        *value = random::normal(seed, i as u64) * spread;
                    }
                }
            }
        }
        Ok(Self { config, tokenizer, layout, weights, sidecars: BTreeMap::new() })
    }

    /// How many numbers are trained; a tied head counts once.
    pub fn parameters(&self) -> usize {
        self.weights.len()
    }

    /// The weights by name: (name, shape, values), in the order of the network.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &[usize], &[f32])> {
        self.layout.tensors().iter().map(|t| (t.name.as_str(), t.shape.as_slice(), &self.weights[t.range()]))
    }

    pub(crate) fn weights(&self) -> Weights<'_> {
        Weights { layout: &self.layout, values: &self.weights }
    }
}

/// A tokenizer may leave rows of the embedding table unused, but not ask for more.
fn check_vocabulary(config: &Config, tokenizer: &Tokenizer) -> Result<()> {
    let tokens = tokenizer.vocab_size();
    if tokens <= config.vocab_size {
        return Ok(());
    }
    let table = config.family()?.names.embedding;
    let (rows, channels) = (config.vocab_size, config.hidden_size);
    Err(Error::Config(format!(
        "the tokenizer has {tokens} tokens, so `{table}.weight` needs shape [{tokens}, {channels}] at least, but has [{rows}, {channels}]"
    )))
}
