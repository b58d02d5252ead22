//! The weights as the operations want them: matrices packed once for many products, rotations tabulated.
//!
//! And the two parts that every layer is made of, a linear layer with or without bias and a norm of either kind.

use super::layout::{Affine, LayerRanges};
use super::{Config, Layout};
use crate::Result;
use crate::memory::Cpu;
use crate::ops::attention::Heads;
use crate::ops::bias::Bias;
use crate::ops::layernorm::LayerNorm;
use crate::ops::matmul::{MatMul, Weight};
use crate::ops::panels::Panels;
use crate::ops::rmsnorm::RmsNorm;
use crate::ops::rope::Rotations;
use crate::ops::stored::Precision;
use rayon::prelude::*;
use std::ops::Range;

/// A model ready to run.
pub(crate) struct Network {
    pub(crate) cpu: Cpu,
    pub(crate) heads: Heads,
    pub(crate) channels: usize,
    pub(crate) width: usize,
    pub(crate) vocabulary: usize,
    pub(crate) epsilon: f32,
    /// None where positions are learned.
    pub(crate) rotations: Option<Rotations>,
    /// Whether the feed-forward layers have a gate.
    pub(crate) gated: bool,
    pub(crate) layers: Vec<Layer>,
    pub(crate) head: Weight,
    /// How [`Network::pack`] keeps the matrices.
    pub(crate) precision: Precision,
}

/// One layer's packed matrices.
pub(crate) struct Layer {
    pub(crate) qkv: Weight,
    pub(crate) output: Weight,
    pub(crate) up: Weight,
    pub(crate) down: Weight,
    /// Positions back that it sees.
    pub(crate) window: usize,
}

/// The weights in the order of their layout.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) values: &'a [f32],
}

impl<'a> Weights<'a> {
    pub(crate) fn get(&self, range: &Range<usize>) -> &'a [f32] {
        &self.values[range.clone()]
    }

    pub(crate) fn layer(&self, index: usize) -> &'a LayerRanges {
        &self.layout.layers[index]
    }
}

impl Network {
    /// Space for a network of this configuration; [`Network::pack`] fills it. `positions` of them are tabulated.
    pub(crate) fn new(config: &Config, cpu: Cpu, positions: usize) -> Result<Self> {
        let (heads, family, stretch) = (config.heads(), config.family()?, config.stretch()?);
        let layer = |index| Layer {
            qkv: Weight::default(),
            output: Weight::default(),
            up: Weight::default(),
            down: Weight::default(),
            window: config.window(index),
        };
        let rotates = family.names.positions.is_none();
        Ok(Self {
            cpu,
            heads,
            channels: config.hidden_size,
            width: config.intermediate_size,
            vocabulary: config.vocab_size,
            epsilon: config.rms_norm_eps,
            rotations: rotates.then(|| Rotations::new(positions, heads.size, config.rope_theta, stretch)),
            gated: family.gated(),
            layers: (0..config.num_hidden_layers).map(layer).collect(),
            head: Weight::default(),
            precision: Precision::F32,
        })
    }

    /// Outputs of the first matrix of a feed-forward layer.
    pub(crate) fn up_width(&self) -> usize {
        self.width * if self.gated { 2 } else { 1 }
    }

    /// Packs the weights, on the caller's pool; for the backward pass as well if `training`.
    pub(crate) fn pack(&mut self, weights: Weights, training: bool) {
        let (cpu, channels, width, up, heads) = (self.cpu, self.channels, self.width, self.up_width(), self.heads);
        let (head, vocabulary, precision) = (&mut self.head, self.vocabulary, self.precision);
        let pack = |packed: &mut Weight, part: &Affine, outputs, inputs| {
            cpu.pack(packed, weights.get(&part.weight), outputs, inputs, precision, training);
        };
        rayon::join(
            || pack(head, &weights.layout.head, vocabulary, channels),
            || {
                self.layers.par_iter_mut().zip(&weights.layout.layers).for_each(|(layer, parts)| {
                    pack(&mut layer.qkv, &parts.qkv, heads.stride(), channels);
                    pack(&mut layer.output, &parts.output, channels, heads.width());
                    pack(&mut layer.up, &parts.up, up, channels);
                    pack(&mut layer.down, &parts.down, channels, width);
                });
            },
        );
    }

    /// `y` (N, O) = `x` Wᵀ + b, or added to `y` with `add`; `y` is of that very length.
    pub(crate) fn linear(&self, y: &mut [f32], x: &[f32], w: &Weight, bias: Option<&[f32]>, rows: usize, add: bool) {
        if let Some(bias) = bias {
            self.cpu.bias(y, bias, add);
        }
        self.cpu.linear(y, x, w, rows, add || bias.is_some());
    }

    /// Overwrites `dx` and adds into the gradient of the weight and of the bias.
    pub(crate) fn linear_backward(
        &self,
        dx: &mut [f32],
        gradient: &mut [f32],
        (dy, x): (&[f32], &[f32]),
        (w, part): (&Weight, &Affine),
        rows: usize,
        panels: &mut Panels,
    ) {
        let (outputs, inputs) = (w.forward.n(), w.forward.k());
        self.cpu.linear_backward_input(dx, dy, w, rows);
        let dw = &mut gradient[part.weight.clone()];
        self.cpu.linear_backward_weight(dw, dy, x, outputs, inputs, rows, panels);
        if let Some(bias) = &part.bias {
            self.cpu.bias_backward(&mut gradient[bias.clone()], dy);
        }
    }

    /// The norm of each row of `x`; `stats` has room for two numbers a row.
    pub(crate) fn norm(&self, y: &mut [f32], stats: &mut [f32], x: &[f32], weights: Weights, part: &Affine) {
        let (w, rows) = (weights.get(&part.weight), x.len() / part.weight.len());
        match &part.bias {
            Some(b) => self.cpu.layernorm(y, &mut stats[..2 * rows], x, w, weights.get(b), self.epsilon),
            None => self.cpu.rmsnorm(y, &mut stats[..rows], x, w, self.epsilon),
        }
    }

    /// Adds into `dx` and into the gradient of the norm's weights.
    pub(crate) fn norm_backward(
        &self,
        dx: &mut [f32],
        gradient: &mut [f32],
        dy: &[f32],
        (x, stats): (&[f32], &[f32]),
        weights: Weights,
        part: &Affine,
    ) {
        let (w, rows) = (weights.get(&part.weight), x.len() / part.weight.len());
        match &part.bias {
            Some(b) => {
                let (dw, db) = gradient[part.weight.start..b.end].split_at_mut(w.len());
                self.cpu.layernorm_backward(dx, dw, db, dy, x, w, &stats[..2 * rows]);
            }
            None => {
                let dw = &mut gradient[part.weight.clone()];
                self.cpu.rmsnorm_backward(dx, dw, dy, x, w, &stats[..rows]);
            }
        }
    }
}
