//! Llama-style decoders: configuration, weights, tokenizer, and the whole network forward and backward.

mod backward;
mod checkpoint;
mod config;
mod forward;
mod layout;
mod network;
mod tokenizer;

pub use checkpoint::Dtype;
pub use config::{Config, TokenIds};
pub use layout::{Layout, Tensor};
pub use tokenizer::Tokenizer;

pub(crate) use backward::{Gradient, row_gradient};
pub(crate) use forward::{Activations, LayerActivations, Row, layer_forward, sized};
pub(crate) use network::Network;

use crate::random;
use crate::{Error, Result};

/// A model: its configuration, its tokenizer and its weights in float32.
#[derive(Clone, Debug)]
pub struct Model {
    /// What it is built like.
    pub config: Config,
    /// Text to tokens and back.
    pub tokenizer: Tokenizer,
    pub(crate) layout: Layout,
    pub(crate) weights: Vec<f32>,
}

impl Model {
    /// A new model with random weights: embeddings with spread 0.02, matrices with spread 1/√(inputs), those that write to
    /// the residual stream divided by √(2·layers) more (Radford et al. 2019), norms at one.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration contradicts itself or the tokenizer has more tokens than it.
    pub fn init(config: Config, tokenizer: Tokenizer, seed: u64) -> Result<Self> {
        config.check()?;
        if tokenizer.vocab_size() > config.vocab_size {
            return Err(Error::Config(format!(
                "the tokenizer has {} tokens, the model {}",
                tokenizer.vocab_size(),
                config.vocab_size
            )));
        }
        let layout = Layout::new(&config);
        let mut weights = vec![0.0; layout.len()];
        for (index, tensor) in layout.tensors().iter().enumerate() {
            let values = &mut weights[tensor.range()];
            let [_, inputs] = tensor.shape[..] else {
                values.fill(1.0);
                continue;
            };
            let residual = tensor.name.ends_with("o_proj.weight") || tensor.name.ends_with("down_proj.weight");
            let spread = match () {
                () if tensor.name == "model.embed_tokens.weight" => 0.02,
                () if residual => 1.0 / ((inputs * 2 * config.num_hidden_layers) as f32).sqrt(),
                () => 1.0 / (inputs as f32).sqrt(),
            };
            let seed = random::bits(seed, index as u64);
            for (i, value) in values.iter_mut().enumerate() {
                *value = random::normal(seed, i as u64) * spread;
            }
        }
        Ok(Self { config, tokenizer, layout, weights })
    }

    /// How many numbers are trained; a tied head counts once.
    pub fn parameters(&self) -> usize {
        self.weights.len()
    }

    /// The weights by name: (name, shape, values), in the order of the network.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &[usize], &[f32])> {
        self.layout.tensors().iter().map(|t| (t.name.as_str(), t.shape.as_slice(), &self.weights[t.range()]))
    }

    /// Σ ln p(token | what stands before it) over `tokens[prompt..]`, in nats: teacher-forced, and the same bits that
    /// [`decode`](crate::decode) reports for the tokens it draws.
    ///
    /// # Errors
    /// [`Error::Config`] if there are more tokens than the model has positions, or a token it does not know.
    pub fn logprobs(&self, tokens: &[u32], prompt: usize) -> Result<Vec<f32>> {
        forward::logprobs(self, tokens, prompt)
    }
}
