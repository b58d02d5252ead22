//! The weights as the operations want them: matrices packed or as they are, rotations tabulated.
//!
//! And the two parts that every layer is made of, a linear layer with or without bias and a norm of either kind.

use super::adapters::Adapters;
use super::layout::{Affine, LayerRanges};
use super::{Config, Layout};
use crate::Result;
use crate::memory::Cpu;
use crate::ops::attention::Heads;
use crate::ops::bias::Bias;
use crate::ops::layernorm::LayerNorm;
use crate::ops::matmul::{MatMul, Weight};
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
    /// What is trained instead of the weights themselves, with its values.
    pub(crate) adapters: Option<(Adapters, Vec<f32>)>,
}

/// One layer's matrices.
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
            adapters: None,
        })
    }

    /// Outputs of the first matrix of a feed-forward layer.
    pub(crate) fn up_width(&self) -> usize {
        self.width * if self.gated { 2 } else { 1 }
    }

    /// Packs the weights for many forward passes, rounded to `precision`, on the caller's pool.
    pub(crate) fn store(&mut self, weights: Weights, precision: Precision) {
        let cpu = self.cpu;
        self.each_matrix(weights, |packed, plain, outputs, inputs| {
            *packed = cpu.store(plain, outputs, inputs, precision);
        });
    }

    /// Packs the weights for several rows' passes in both directions, on the caller's pool. Without it they are packed as they
    /// are met.
    pub(crate) fn pack(&mut self, weights: Weights) {
        let cpu = self.cpu;
        self.each_matrix(weights, |packed, plain, outputs, inputs| cpu.pack(packed, plain, outputs, inputs));
    }

    fn each_matrix(&mut self, weights: Weights, change: impl Fn(&mut Weight, &[f32], usize, usize) + Sync) {
        let (channels, width, up, heads) = (self.channels, self.width, self.up_width(), self.heads);
        let (head, vocabulary) = (&mut self.head, self.vocabulary);
        let change = |packed: &mut Weight, part: &Affine, outputs, inputs| {
            change(packed, weights.get(&part.weight), outputs, inputs);
        };
        rayon::join(
            || change(head, &weights.layout.head, vocabulary, channels),
            || {
                self.layers.par_iter_mut().zip(&weights.layout.layers).for_each(|(layer, parts)| {
                    change(&mut layer.qkv, &parts.qkv, heads.stride(), channels);
                    change(&mut layer.output, &parts.output, channels, heads.width());
                    change(&mut layer.up, &parts.up, up, channels);
                    change(&mut layer.down, &parts.down, channels, width);
                });
            },
        );
    }

    /// Has both operands of every product with a matrix rounded to bf16.
    pub(crate) fn round(&mut self) {
        let layers = self.layers.iter_mut().flat_map(|Layer { qkv, output, up, down, .. }| [qkv, output, up, down]);
        layers.chain([&mut self.head]).for_each(|weight| *weight = Weight::Plain { rounded: true });
    }

    /// `y` (N, O) = `x` Wᵀ + b, or added to `y` with `add`; `x` and `y` are of that very length.
    pub(crate) fn linear(
        &self,
        y: &mut [f32],
        x: &[f32],
        (w, part, weights): (&Weight, &Affine, Weights),
        rows: usize,
        add: bool,
    ) {
        if let Some(bias) = &part.bias {
            self.cpu.bias(y, weights.get(bias), add);
        }
        self.cpu.linear(y, x, w, weights.get(&part.weight), rows, add || part.bias.is_some());
    }

    /// Overwrites `dx` and adds into the gradient of the weight and of the bias, or of the weight's adapters;
    /// `low` is room for theirs.
    pub(crate) fn linear_backward(
        &self,
        dx: &mut [f32],
        gradient: &mut [f32],
        (dy, x): (&[f32], &[f32]),
        (w, part, weights): (&Weight, &Affine, Weights),
        rows: usize,
        low: &mut Vec<f32>,
    ) {
        let (outputs, inputs) = (dy.len() / rows.max(1), x.len() / rows.max(1));
        self.cpu.linear_backward_input(dx, dy, w, weights.get(&part.weight), rows);
        if let Some((adapters, _)) = &self.adapters {
            if let Some(adapted) = adapters.of(part) {
                adapted.backward(self.cpu, gradient, (dy, x), rows, low);
            }
            return;
        }
        let dw = &mut gradient[part.weight.clone()];
        self.cpu.linear_backward_weight(dw, dy, x, w, outputs, inputs);
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

    /// Adds into `dx` and into the gradient of the norm's weights, unless adapters are trained instead.
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
        let range = part.weight.start..part.bias.as_ref().map_or(part.weight.end, |bias| bias.end);
        let mut unused = Vec::new();
        let gradient = if self.adapters.is_some() {
            unused.resize(range.len(), 0.0);
            &mut unused[..]
        } else {
            &mut gradient[range]
        };
        let (dw, db) = gradient.split_at_mut(w.len());
        if part.bias.is_some() {
            self.cpu.layernorm_backward(dx, dw, db, dy, x, w, &stats[..2 * rows]);
        } else {
            self.cpu.rmsnorm_backward(dx, dw, dy, x, w, &stats[..rows]);
        }
    }
}
