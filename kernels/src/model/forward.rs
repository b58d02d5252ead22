//! The network forward over one row of documents, keeping what the backward pass needs.

use super::{Layout, Model, Network};
use crate::memory::Cpu;
use crate::ops::attention::{Attention, Scratch};
use crate::ops::classifier::Classifier;
use crate::ops::embedding::Embedding;
use crate::ops::matmul::MatMul;
use crate::ops::panels::Panels;
use crate::ops::rmsnorm::RmsNorm;
use crate::ops::rope::Rope;
use crate::ops::swiglu::SwiGlu;
use crate::{Error, Result};
use std::ops::Range;

/// Rows of logits that exist at a time: never batch × sequence × vocabulary.
pub(crate) const LOGIT_ROWS: usize = 128;

/// A row of documents laid end to end: each token sees its own document only, and positions restart with each.
#[derive(Debug, Default)]
pub(crate) struct Row {
    pub(crate) tokens: Vec<u32>,
    pub(crate) positions: Vec<u32>,
    pub(crate) documents: Vec<Range<usize>>,
    /// Places whose next token counts, increasing.
    pub(crate) places: Vec<u32>,
    /// That next token, for each of them.
    pub(crate) targets: Vec<u32>,
}

impl Row {
    pub(crate) fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.documents.clear();
        self.places.clear();
        self.targets.clear();
    }

    /// Adds a document whose tokens from `prompt` on are to be predicted; the last one is a target only.
    pub(crate) fn push(&mut self, tokens: &[u32], prompt: usize) {
        let start = self.tokens.len();
        let inputs = tokens.len() - 1;
        self.tokens.extend_from_slice(&tokens[..inputs]);
        self.positions.extend(0..inputs as u32);
        self.documents.push(start..start + inputs);
        let first = prompt.max(1) - 1;
        self.places.extend((start + first..start + inputs).map(|place| place as u32));
        self.targets.extend_from_slice(&tokens[first + 1..]);
    }
}

/// What one layer leaves for the backward pass; (T, ·) each.
#[derive(Debug, Default)]
pub(crate) struct LayerActivations {
    pub(crate) input: Vec<f32>,
    pub(crate) attention_rstd: Vec<f32>,
    pub(crate) attention_in: Vec<f32>,
    pub(crate) qkv: Vec<f32>,
    pub(crate) attended: Vec<f32>,
    pub(crate) stats: Vec<f32>,
    pub(crate) middle: Vec<f32>,
    pub(crate) mlp_rstd: Vec<f32>,
    pub(crate) mlp_in: Vec<f32>,
    pub(crate) gate_up: Vec<f32>,
    pub(crate) gated: Vec<f32>,
}

/// Everything a pass over one row writes; reused from row to row.
#[derive(Debug, Default)]
pub(crate) struct Activations {
    pub(crate) layers: Vec<LayerActivations>,
    /// The residual stream after the last layer.
    pub(crate) output: Vec<f32>,
    /// That stream at the places that count, its norm's factors and its norm.
    pub(crate) chosen: Vec<f32>,
    pub(crate) rstd: Vec<f32>,
    pub(crate) normed: Vec<f32>,
    pub(crate) logits: Vec<f32>,
    pub(crate) losses: Vec<f64>,
    pub(crate) attention: Scratch,
    pub(crate) panels: Panels,
    pub(crate) backward: super::backward::Buffers,
}

/// Makes `buffer` hold `len` numbers of any value.
pub(crate) fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

/// One layer over rows of documents; `x` (T, C) is the residual stream and changes in place.
pub(crate) fn layer_forward(
    network: &Network,
    index: usize,
    norms: [&[f32]; 2],
    x: &mut [f32],
    row: (&[u32], &[Range<usize>]),
    kept: &mut LayerActivations,
    scratch: &mut Scratch,
) {
    let Network { cpu, heads, channels, width, .. } = *network;
    let (layer, rows) = (&network.layers[index], x.len() / channels);
    let (positions, documents) = row;
    sized(&mut kept.input, x.len()).copy_from_slice(x);
    let normed = sized(&mut kept.attention_in, x.len());
    cpu.rmsnorm(normed, sized(&mut kept.attention_rstd, rows), x, norms[0], network.epsilon);
    let qkv = sized(&mut kept.qkv, rows * heads.stride());
    cpu.linear(qkv, normed, &layer.qkv, rows, false);
    cpu.rope(qkv, positions, &network.rotations, heads.query + heads.key_value, heads.stride());
    let attended = sized(&mut kept.attended, rows * heads.width());
    let stats = sized(&mut kept.stats, rows * heads.query * 2);
    cpu.attention(attended, stats, qkv, documents, heads, scratch);
    cpu.linear(x, attended, &layer.output, rows, true);
    sized(&mut kept.middle, x.len()).copy_from_slice(x);
    let normed = sized(&mut kept.mlp_in, x.len());
    cpu.rmsnorm(normed, sized(&mut kept.mlp_rstd, rows), x, norms[1], network.epsilon);
    let gate_up = sized(&mut kept.gate_up, rows * 2 * width);
    cpu.linear(gate_up, normed, &layer.gate_up, rows, false);
    let gated = sized(&mut kept.gated, rows * width);
    cpu.swiglu(gated, gate_up, width);
    cpu.linear(x, gated, &layer.down, rows, true);
}

/// The whole row: afterwards `normed` holds the final norm at the places that count.
pub(crate) fn row_forward(network: &Network, layout: &Layout, weights: &[f32], row: &Row, kept: &mut Activations) {
    let Network { cpu, channels, .. } = *network;
    let Activations { layers, output, chosen, rstd, normed, attention, .. } = kept;
    layers.resize_with(network.layers.len(), LayerActivations::default);
    let x = sized(output, row.tokens.len() * channels);
    cpu.embedding(x, &weights[layout.embedding.clone()], &row.tokens, channels);
    for (index, (kept, ranges)) in layers.iter_mut().zip(&layout.layers).enumerate() {
        let norms = [&weights[ranges.attention_norm.clone()], &weights[ranges.mlp_norm.clone()]];
        layer_forward(network, index, norms, x, (&row.positions, &row.documents), kept, attention);
    }
    let count = row.places.len();
    let chosen = sized(chosen, count * channels);
    cpu.embedding(chosen, x, &row.places, channels);
    let normed = sized(normed, count * channels);
    cpu.rmsnorm(normed, sized(rstd, count), chosen, &weights[layout.norm.clone()], network.epsilon);
}

/// See [`Model::logprobs`].
pub(crate) fn logprobs(model: &Model, tokens: &[u32], prompt: usize) -> Result<Vec<f32>> {
    if tokens.len() > model.config.max_position_embeddings {
        let limit = model.config.max_position_embeddings;
        return Err(Error::Config(format!("{} tokens, the model has {limit} positions", tokens.len())));
    }
    if let Some(token) = tokens.iter().find(|token| **token as usize >= model.config.vocab_size) {
        return Err(Error::Config(format!("token {token} is not in the model's vocabulary")));
    }
    if prompt.max(1) >= tokens.len() {
        return Ok(Vec::new());
    }
    let mut network = Network::new(&model.config, Cpu::new(), tokens.len());
    network.pack(&model.layout, &model.weights, false);
    let (mut row, mut kept) = (Row::default(), Activations::default());
    row.push(tokens, prompt);
    row_forward(&network, &model.layout, &model.weights, &row, &mut kept);
    let count = row.places.len();
    let vocabulary = network.vocabulary;
    let logits = sized(&mut kept.logits, count * vocabulary);
    network.cpu.linear(logits, &kept.normed, &network.head, count, false);
    let mut losses = vec![0.0; count];
    network.cpu.classifier(logits, &mut losses, &row.targets, vocabulary, 1.0);
    Ok(losses.iter().map(|loss| -*loss as f32).collect())
}
