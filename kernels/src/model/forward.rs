//! The network forward over one row of documents, keeping what the backward pass needs.

use super::activations::{Activations, Halves, Keep, LayerActivations, sized};
use super::{Network, Weights};
use crate::ops::attention::{Attention, Scratch};
use crate::ops::embedding::Embedding;
use crate::ops::gelu::Gelu;
use crate::ops::rope::Rope;
use crate::ops::swiglu::SwiGlu;
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
