//! Where each tensor stands in the one flat array that holds a model's weights (and its gradient, and its moments).
//!
//! Query, key and value matrices are neighbours, and so are gate and up: each group is one matrix to the network.

use super::Config;
use std::ops::Range;

/// A named tensor of the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its Hugging Face name.
    pub name: String,
    /// (O, C) or (C).
    pub shape: Vec<usize>,
    offset: usize,
}

impl Tensor {
    /// Its place in the flat array.
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.shape.iter().product::<usize>()
    }
}

/// The flat array's table of contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    tensors: Vec<Tensor>,
    /// The embedding table.
    pub(crate) embedding: Range<usize>,
    /// The layers, in order.
    pub(crate) layers: Vec<LayerRanges>,
    /// The last norm.
    pub(crate) norm: Range<usize>,
    /// The head: the embedding table if they are tied.
    pub(crate) head: Range<usize>,
}

/// The parts of one layer, as the network multiplies them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LayerRanges {
    pub(crate) attention_norm: Range<usize>,
    pub(crate) qkv: Range<usize>,
    pub(crate) output: Range<usize>,
    pub(crate) mlp_norm: Range<usize>,
    pub(crate) gate_up: Range<usize>,
    pub(crate) down: Range<usize>,
}

impl Layout {
    /// For a configuration that has been checked.
    pub fn new(config: &Config) -> Self {
        let (channels, width, heads) = (config.hidden_size, config.intermediate_size, config.heads());
        let mut tensors: Vec<Tensor> = Vec::new();
        let mut at = 0;
        let mut add = |name: String, shape: &[usize]| -> Range<usize> {
            let tensor = Tensor { name, shape: shape.to_vec(), offset: at };
            let range = tensor.range();
            at = range.end;
            tensors.push(tensor);
            range
        };
        let embedding = add("model.embed_tokens.weight".into(), &[config.vocab_size, channels]);
        let mut layers = Vec::new();
        for layer in 0..config.num_hidden_layers {
            let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
            let attention_norm = add(name("input_layernorm"), &[channels]);
            let query = add(name("self_attn.q_proj"), &[heads.width(), channels]);
            add(name("self_attn.k_proj"), &[heads.key_value * heads.size, channels]);
            let value = add(name("self_attn.v_proj"), &[heads.key_value * heads.size, channels]);
            let output = add(name("self_attn.o_proj"), &[channels, heads.width()]);
            let mlp_norm = add(name("post_attention_layernorm"), &[channels]);
            let gate = add(name("mlp.gate_proj"), &[width, channels]);
            let up = add(name("mlp.up_proj"), &[width, channels]);
            let down = add(name("mlp.down_proj"), &[channels, width]);
            let (qkv, gate_up) = (query.start..value.end, gate.start..up.end);
            layers.push(LayerRanges { attention_norm, qkv, output, mlp_norm, gate_up, down });
        }
        let norm = add("model.norm.weight".into(), &[channels]);
        let head = if config.tie_word_embeddings {
            embedding.clone()
        } else {
            add("lm_head.weight".into(), &[config.vocab_size, channels])
        };
        Self { tensors, embedding, layers, norm, head }
    }

    /// Every tensor, in the order of the array.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// Length of the array.
    pub fn len(&self) -> usize {
        self.tensors.last().map_or(0, |tensor| tensor.range().end)
    }

    /// Whether the array is empty: it never is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
