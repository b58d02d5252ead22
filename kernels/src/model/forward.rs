//! The network forward over one row of documents, keeping what the backward pass needs.

use super::{Network, Weights};
use crate::ops::attention::{Attention, Scratch};
use crate::ops::bf16::{halve, round, widen};
use crate::ops::embedding::Embedding;
use crate::ops::gelu::Gelu;
use crate::ops::rope::Rope;
use crate::ops::swiglu::SwiGlu;
use crate::simd::Level;
use std::ops::Range;

/// Rows of logits that exist at a time: never batch × sequence × vocabulary.
pub(crate) const LOGIT_ROWS: usize = 256;

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
    /// What each of them counts.
    pub(crate) weights: Vec<f32>,
}

impl Row {
    pub(crate) fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.documents.clear();
        self.places.clear();
        self.targets.clear();
        self.weights.clear();
    }

    /// One document of which the places from `first` on count, whatever follows.
    pub(crate) fn to_read(tokens: &[u32], first: usize) -> Self {
        #[expect(clippy::single_range_in_vec_init, reason = "one document")]
        let documents = vec![0..tokens.len()];
        let length = tokens.len() as u32;
        let places = (first as u32..length).collect();
        Self { tokens: tokens.to_vec(), positions: (0..length).collect(), documents, places, ..Self::default() }
    }

    /// Adds a document whose tokens from `prompt` on are to be predicted, each counting `weight`; the last one is a target
    /// only.
    pub(crate) fn push(&mut self, tokens: &[u32], prompt: usize, weight: f32) {
        let start = self.tokens.len();
        let inputs = tokens.len() - 1;
        self.tokens.extend_from_slice(&tokens[..inputs]);
        self.positions.extend(0..inputs as u32);
        self.documents.push(start..start + inputs);
        let first = prompt.max(1) - 1;
        self.places.extend((start + first..start + inputs).map(|place| place as u32));
        self.targets.extend_from_slice(&tokens[first + 1..]);
        self.weights.resize(self.targets.len(), weight);
    }
}

/// What one layer leaves for the backward pass; (T, ·) each.
#[derive(Debug, Default)]
pub(crate) struct LayerActivations {
    pub(crate) input: Vec<f32>,
    pub(crate) attention_stats: Vec<f32>,
    pub(crate) attention_in: Vec<f32>,
    /// Queries, keys and values before the norms of queries and keys, and those norms' factors.
    pub(crate) raw: Vec<f32>,
    pub(crate) head_stats: Vec<f32>,
    pub(crate) qkv: Vec<f32>,
    pub(crate) attended: Vec<f32>,
    /// Each softmax's maximum and 1/sum.
    pub(crate) stats: Vec<f32>,
    pub(crate) middle: Vec<f32>,
    pub(crate) mlp_stats: Vec<f32>,
    pub(crate) mlp_in: Vec<f32>,
    pub(crate) up: Vec<f32>,
    pub(crate) gated: Vec<f32>,
}

impl LayerActivations {
    /// What a backward pass may have rounded, and the norms' and softmaxes' factors, which it must not.
    fn parts(&mut self) -> ([&mut Vec<f32>; 9], [&mut Vec<f32>; 4]) {
        let Self { input, attention_in, raw, qkv, attended, middle, mlp_in, up, gated, .. } = self;
        let numbers = [input, attention_in, raw, qkv, attended, middle, mlp_in, up, gated];
        (numbers, [&mut self.attention_stats, &mut self.head_stats, &mut self.stats, &mut self.mlp_stats])
    }

    /// Rounds to bf16.
    pub(crate) fn round(&mut self, level: Level) {
        self.parts().0.into_iter().for_each(|numbers| round(level, numbers));
    }
}

/// A layer's activations, rounded to bf16, one after another.
#[derive(Debug, Default)]
pub(crate) struct Halves {
    numbers: Vec<u16>,
    factors: Vec<f32>,
}

impl Halves {
    fn keep(&mut self, level: Level, layer: &mut LayerActivations) {
        let (numbers, factors) = layer.parts();
        self.numbers.resize(numbers.iter().map(|part| part.len()).sum(), 0);
        let mut to = &mut self.numbers[..];
        for part in numbers {
            let (halves, rest) = to.split_at_mut(part.len());
            halve(level, halves, part);
            to = rest;
        }
        self.factors.clear();
        factors.into_iter().for_each(|part| self.factors.extend_from_slice(part));
    }

    /// Gives `layer`, which has held another layer of the same row since, what it held.
    pub(crate) fn restore(&self, level: Level, layer: &mut LayerActivations) {
        let (numbers, factors) = layer.parts();
        let (mut halves, mut from) = (&self.numbers[..], &self.factors[..]);
        for part in numbers {
            let (these, rest) = halves.split_at(part.len());
            widen(level, part, these);
            halves = rest;
        }
        for part in factors {
            let (these, rest) = from.split_at(part.len());
            part.copy_from_slice(these);
            from = rest;
        }
    }
}

/// How a layer's activations reach the backward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Keep {
    /// Only the layers' inputs are kept: the backward pass then runs each layer forward once more, which costs a third of the
    /// time at most and changes no bits.
    pub(crate) recompute: bool,
    /// The backward pass reads them rounded to bf16.
    pub(crate) rounded: bool,
}

/// Everything a pass over one row writes; reused from row to row.
#[derive(Debug, Default)]
pub(crate) struct Activations {
    pub(crate) keep: Keep,
    /// The layers' inputs (L, T, C), if the rest is recomputed.
    pub(crate) inputs: Vec<f32>,
    /// What each layer leaves, if it is rounded and not recomputed.
    pub(crate) halves: Vec<Halves>,
    /// One a layer; one for all of them if they are recomputed or kept in halves.
    pub(crate) layers: Vec<LayerActivations>,
    /// The residual stream after the last layer.
    pub(crate) output: Vec<f32>,
    /// That stream at the places that count, its norm's factors and its norm.
    pub(crate) chosen: Vec<f32>,
    pub(crate) chosen_stats: Vec<f32>,
    pub(crate) normed: Vec<f32>,
    pub(crate) logits: Vec<f32>,
    pub(crate) losses: Vec<f64>,
    pub(crate) attention: Scratch,
    /// Room for the adapters' gradients.
    pub(crate) low: Vec<f32>,
    pub(crate) backward: super::backward::Buffers,
}

/// Makes `buffer` hold `len` numbers of any value.
pub(crate) fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

/// What the first layer reads: `x` (T, C) becomes the tokens' embeddings, with those of learned positions.
pub(crate) fn embed(network: &Network, weights: Weights, tokens: &[u32], positions: &[u32], x: &mut [f32]) {
    let Network { cpu, channels, .. } = *network;
    cpu.embedding(x, weights.get(&weights.layout.embedding), tokens, channels, false);
    if let Some(table) = &weights.layout.positions {
        cpu.embedding(x, weights.get(table), positions, channels, true);
    }
}

/// One layer; `x` (T, C) is the residual stream and changes in place. `attend` is given room for the output (T, H·D), room
/// for the softmaxes' factors, and queries, keys and values, turned by their positions.
pub(crate) fn layer_forward(
    network: &Network,
    weights: Weights,
    index: usize,
    x: &mut [f32],
    positions: &[u32],
    kept: &mut LayerActivations,
    attend: impl FnOnce(&mut [f32], &mut Vec<f32>, &[f32]),
) {
    let Network { cpu, heads, channels, width, .. } = *network;
    let (layer, parts, rows) = (&network.layers[index], weights.layer(index), x.len() / channels);
    sized(&mut kept.input, x.len()).copy_from_slice(x);
    let normed = sized(&mut kept.attention_in, x.len());
    network.norm(normed, sized(&mut kept.attention_stats, 2 * rows), x, weights, &parts.attention_norm);
    let qkv = sized(&mut kept.qkv, rows * heads.stride());
    network.linear(qkv, normed, (&layer.qkv, &parts.qkv, weights), rows, false);
    if let Some(norms) = &parts.query_key_norm {
        let raw = sized(&mut kept.raw, qkv.len());
        raw.copy_from_slice(qkv);
        let turned = heads.query + heads.key_value;
        let stats = sized(&mut kept.head_stats, rows * turned);
        let rows = qkv.chunks_exact_mut(heads.stride()).zip(raw.chunks_exact(heads.stride()));
        for ((y, raw), stats) in rows.zip(stats.chunks_exact_mut(turned)) {
            for (norm, part) in norms.iter().zip([0..heads.query, heads.query..turned]) {
                let channels = part.start * heads.size..part.end * heads.size;
                network.norm(&mut y[channels.clone()], &mut stats[part], &raw[channels], weights, norm);
            }
        }
    }
    if let Some(rotations) = &network.rotations {
        cpu.rope(qkv, positions, rotations, heads.query + heads.key_value, heads.stride());
    }
    let attended = sized(&mut kept.attended, rows * heads.width());
    attend(attended, &mut kept.stats, qkv);
    network.linear(x, attended, (&layer.output, &parts.output, weights), rows, true);
    sized(&mut kept.middle, x.len()).copy_from_slice(x);
    let normed = sized(&mut kept.mlp_in, x.len());
    network.norm(normed, sized(&mut kept.mlp_stats, 2 * rows), x, weights, &parts.mlp_norm);
    let up = sized(&mut kept.up, rows * network.up_width());
    network.linear(up, normed, (&layer.up, &parts.up, weights), rows, false);
    let gated = sized(&mut kept.gated, rows * width);
    if network.gated {
        cpu.swiglu(gated, up, width);
    } else {
        cpu.gelu(gated, up);
    }
    network.linear(x, gated, (&layer.down, &parts.down, weights), rows, true);
}

/// [`layer_forward`] over rows of whole documents.
pub(crate) fn documents_forward(
    network: &Network,
    weights: Weights,
    index: usize,
    x: &mut [f32],
    (positions, documents): (&[u32], &[Range<usize>]),
    kept: &mut LayerActivations,
    scratch: &mut Scratch,
) {
    let Network { cpu, heads, .. } = *network;
    layer_forward(network, weights, index, x, positions, kept, |attended, stats, qkv| {
        let stats = sized(stats, positions.len() * heads.query * 2);
        cpu.attention(attended, stats, qkv, documents, heads, network.layers[index].window, scratch);
    });
}

/// The whole row: afterwards `normed` holds the final norm at the places that count.
pub(crate) fn row_forward(network: &Network, weights: Weights, row: &Row, kept: &mut Activations) {
    let Network { cpu, channels, .. } = *network;
    let Activations { keep, inputs, halves, layers, output, chosen, chosen_stats, normed, attention, .. } = kept;
    let (Keep { recompute, rounded }, count) = (*keep, network.layers.len());
    let shared = recompute || rounded;
    layers.resize_with(if shared { 1 } else { count }, LayerActivations::default);
    halves.resize_with(if rounded && !recompute { count } else { 0 }, Halves::default);
    let x = sized(output, row.tokens.len() * channels);
    embed(network, weights, &row.tokens, &row.positions, x);
    for index in 0..count {
        if recompute {
            let size = x.len();
            sized(inputs, (index + 1) * size)[index * size..].copy_from_slice(x);
        }
        let kept = &mut layers[if shared { 0 } else { index }];
        documents_forward(network, weights, index, x, (&row.positions, &row.documents), kept, attention);
        if let Some(halves) = halves.get_mut(index) {
            halves.keep(cpu.level, kept);
        }
    }
    let count = row.places.len();
    let chosen = sized(chosen, count * channels);
    cpu.embedding(chosen, x, &row.places, channels, false);
    let normed = sized(normed, count * channels);
    network.norm(normed, sized(chosen_stats, 2 * count), chosen, weights, &weights.layout.norm);
}
