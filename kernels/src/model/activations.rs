//! What a pass over a row writes, and how a layer's part of it reaches the backward pass.

use super::backward;
use crate::crew;
use crate::ops::attention::Scratch;
use crate::ops::bf16::{halve, round, widen};
use crate::simd::Level;

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

/// Numbers that one thread rounds or widens at a time.
const PIECE: usize = 1 << 16;

/// A layer's activations, rounded to bf16, one after another.
#[derive(Debug, Default)]
pub(crate) struct Halves {
    numbers: Vec<u16>,
    factors: Vec<f32>,
}

impl Halves {
    pub(crate) fn keep(&mut self, level: Level, layer: &mut LayerActivations) {
        let (numbers, factors) = layer.parts();
        self.numbers.resize(numbers.iter().map(|part| part.len()).sum(), 0);
        let (mut to, mut pieces) = (&mut self.numbers[..], Vec::new());
        for part in numbers {
            let (halves, rest) = to.split_at_mut(part.len());
            pieces.extend(halves.chunks_mut(PIECE).zip(part.chunks(PIECE)));
            to = rest;
        }
        crew::each(pieces, |(halves, part)| halve(level, halves, part));
        self.factors.clear();
        factors.into_iter().for_each(|part| self.factors.extend_from_slice(part));
    }

    /// Gives `layer`, which has held another layer of the same row since, what it held.
    pub(crate) fn restore(&self, level: Level, layer: &mut LayerActivations) {
        let (numbers, factors) = layer.parts();
        let (mut halves, mut from, mut pieces) = (&self.numbers[..], &self.factors[..], Vec::new());
        for part in numbers {
            let (these, rest) = halves.split_at(part.len());
            pieces.extend(part.chunks_mut(PIECE).zip(these.chunks(PIECE)));
            halves = rest;
        }
        crew::each(pieces, |(part, halves)| widen(level, part, halves));
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
    pub(crate) backward: backward::Buffers,
}

/// Makes `buffer` hold `len` numbers of any value.
pub(crate) fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}
