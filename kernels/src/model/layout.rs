//! Where each tensor stands in the one flat array that holds a model's weights (and its gradient, and its moments).
//!
//! Query, key and value matrices are neighbours, and so are gate and up: each group is one matrix to the network. So are
//! their biases.

use super::Config;
use super::family::{Family, Names};
use crate::Result;
use std::borrow::Cow;
use std::ops::Range;

/// A named tensor of the network.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Its Hugging Face name.
    pub name: String,
    /// (O, C) or (C).
    pub shape: Vec<usize>,
    /// Whether Hugging Face keeps it as (C, O).
    pub transposed: bool,
    offset: usize,
    pub(crate) start: Start,
}

/// What a new model's tensor holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Start {
    Zeros,
    Ones,
    /// Normal numbers of this spread.
    Normal(f32),
}

impl Tensor {
    /// Its place in the flat array.
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.shape.iter().product::<usize>()
    }

    /// Its shape in a Hugging Face file.
    pub fn stored_shape(&self) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if self.transposed {
            shape.reverse();
        }
        shape
    }

    /// Its values as a Hugging Face file keeps them.
    pub(crate) fn to_stored<'a>(&self, values: &'a [f32]) -> Cow<'a, [f32]> {
        match self.shape[..] {
            [outputs, inputs] if self.transposed => transpose(values, outputs, inputs).into(),
            _ => values.into(),
        }
    }
}

pub(crate) fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect()
}

/// The flat array's table of contents.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    tensors: Vec<Tensor>,
    /// The embedding table.
    pub(crate) embedding: Range<usize>,
    /// The table of learned positions, in a family that has one.
    pub(crate) positions: Option<Range<usize>>,
    /// The layers, in order.
    pub(crate) layers: Vec<LayerRanges>,
    /// The last norm.
    pub(crate) norm: Affine,
    /// The head: the embedding table if they are tied.
    pub(crate) head: Affine,
}

/// A weight and, right behind it, its bias if it has one: a linear layer, or a norm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Affine {
    pub(crate) weight: Range<usize>,
    pub(crate) bias: Option<Range<usize>>,
}

/// The parts of one layer, as the network multiplies them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LayerRanges {
    pub(crate) attention_norm: Affine,
    pub(crate) qkv: Affine,
    /// Weights of the norms of queries and of keys, (D) each.
    pub(crate) query_key_norm: Option<[Affine; 2]>,
    pub(crate) output: Affine,
    pub(crate) mlp_norm: Affine,
    /// Gate and up, or up alone.
    pub(crate) up: Affine,
    pub(crate) down: Affine,
}

impl LayerRanges {
    /// The matrices that are multiplied with.
    pub(crate) fn matrices(&self) -> [&Affine; 4] {
        [&self.qkv, &self.output, &self.up, &self.down]
    }
}

/// Tensors as they are added.
struct Builder {
    family: &'static Family,
    tensors: Vec<Tensor>,
}

impl Builder {
    fn len(&self) -> usize {
        self.tensors.last().map_or(0, |tensor| tensor.range().end)
    }

    fn add(&mut self, name: String, shape: &[usize], start: Start) -> Range<usize> {
        let tensor = Tensor { name, shape: shape.to_vec(), transposed: false, offset: self.len(), start };
        let range = tensor.range();
        self.tensors.push(tensor);
        range
    }

    /// One linear layer out of several stored ones: (name, outputs) each, of `inputs` channels.
    fn linear(&mut self, parts: &[(String, usize)], inputs: usize, shrink: usize, bias: bool) -> Affine {
        let start = self.len();
        // Matrices that write to the residual stream start smaller (Radford et al. 2019).
        let spread = 1.0 / ((inputs * shrink) as f32).sqrt();
        for (name, outputs) in parts {
            self.add(format!("{name}.weight"), &[*outputs, inputs], Start::Normal(spread));
            if let Some(tensor) = self.tensors.last_mut() {
                tensor.transposed = self.family.transposed;
            }
        }
        let end = self.len();
        for (name, outputs) in parts.iter().filter(|_| bias) {
            self.add(format!("{name}.bias"), &[*outputs], Start::Zeros);
        }
        Affine { weight: start..end, bias: bias.then(|| end..self.len()) }
    }

    fn norm(&mut self, name: String, channels: usize, bias: bool) -> Affine {
        let weight = self.add(format!("{name}.weight"), &[channels], Start::Ones);
        let bias = bias.then(|| self.add(format!("{name}.bias"), &[channels], Start::Zeros));
        Affine { weight, bias }
    }
}

impl Layout {
    /// For a configuration that has been checked.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if it is of no family.
    pub fn new(config: &Config) -> Result<Self> {
        let family = config.family()?;
        let (channels, width, heads) = (config.hidden_size, config.intermediate_size, config.heads());
        let keys = heads.key_value * heads.size;
        let both = config.use_bias.unwrap_or(false);
        let (attention_bias, mlp_bias) = (config.attention_bias || both, config.mlp_bias || both);
        let (shrink, layer_norm) = (2 * config.num_hidden_layers, family.layer_norm);
        let Names { embedding, positions, layer, attention_norm, qkv, output, mlp_norm, up, down, norm } =
            *family.names;

        let mut add = Builder { family, tensors: Vec::new() };
        let table = |add: &mut Builder, name: &str, rows| {
            add.add(format!("{name}.weight"), &[rows, channels], Start::Normal(0.02))
        };
        let embedding = table(&mut add, embedding, config.vocab_size);
        let positions = positions.map(|name| table(&mut add, name, config.max_position_embeddings));
        let mut layers = Vec::new();
        for nth in 0..config.num_hidden_layers {
            let name = |part: &str| format!("{layer}.{nth}.{part}");
            let attention_norm = add.norm(name(attention_norm), channels, layer_norm);
            let qkv: Vec<_> = match qkv {
                [all] => vec![(name(all), heads.stride())],
                parts => parts.iter().zip([heads.width(), keys, keys]).map(|(part, n)| (name(part), n)).collect(),
            };
            let qkv = add.linear(&qkv, channels, 1, attention_bias || family.qkv_bias);
            let query_key_norm = family
                .query_key_norm
                .then(|| ["self_attn.q_norm", "self_attn.k_norm"].map(|part| add.norm(name(part), heads.size, false)));
            let output = add.linear(&[(name(output), channels)], heads.width(), shrink, attention_bias);
            let mlp_norm = add.norm(name(mlp_norm), channels, layer_norm);
            let up: Vec<_> = up.iter().map(|part| (name(part), width)).collect();
            let up = add.linear(&up, channels, 1, mlp_bias);
            let down = add.linear(&[(name(down), channels)], width, shrink, mlp_bias);
            layers.push(LayerRanges { attention_norm, qkv, query_key_norm, output, mlp_norm, up, down });
        }
        let norm = add.norm(norm.to_owned(), channels, layer_norm);
        let head = if config.tie_word_embeddings {
            embedding.clone()
        } else {
            let spread = 1.0 / (channels as f32).sqrt();
            add.add("lm_head.weight".into(), &[config.vocab_size, channels], Start::Normal(spread))
        };
        let head = Affine { weight: head, bias: None };
        Ok(Self { tensors: add.tensors, embedding, positions, layers, norm, head })
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
