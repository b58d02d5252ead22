//! The weights as the operations want them: matrices packed once for many products, rotations tabulated.

use super::{Config, Layout};
use crate::memory::Cpu;
use crate::ops::attention::Heads;
use crate::ops::matmul::{MatMul, Weight};
use crate::ops::rope::Rotations;
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
    pub(crate) rotations: Rotations,
    pub(crate) layers: Vec<Layer>,
    pub(crate) head: Weight,
}

/// One layer's packed matrices.
#[derive(Default)]
pub(crate) struct Layer {
    pub(crate) qkv: Weight,
    pub(crate) output: Weight,
    pub(crate) gate_up: Weight,
    pub(crate) down: Weight,
}

impl Network {
    /// Space for a network of this configuration; [`Network::pack`] fills it. `positions` of them are tabulated.
    pub(crate) fn new(config: &Config, cpu: Cpu, positions: usize) -> Self {
        let heads = config.heads();
        Self {
            cpu,
            heads,
            channels: config.hidden_size,
            width: config.intermediate_size,
            vocabulary: config.vocab_size,
            epsilon: config.rms_norm_eps,
            rotations: Rotations::new(positions, heads.size, config.rope_theta),
            layers: (0..config.num_hidden_layers).map(|_| Layer::default()).collect(),
            head: Weight::default(),
        }
    }

    /// Packs the weights, on the caller's pool; for the backward pass as well if `training`.
    pub(crate) fn pack(&mut self, layout: &Layout, weights: &[f32], training: bool) {
        let (cpu, channels, width, vocabulary, heads) =
            (self.cpu, self.channels, self.width, self.vocabulary, self.heads);
        let head = &mut self.head;
        let pack = |weight: &mut Weight, range: &Range<usize>, outputs, inputs| {
            cpu.pack(weight, &weights[range.clone()], outputs, inputs, training);
        };
        rayon::join(
            || pack(head, &layout.head, vocabulary, channels),
            || {
                self.layers.par_iter_mut().zip(&layout.layers).for_each(|(layer, ranges)| {
                    pack(&mut layer.qkv, &ranges.qkv, heads.stride(), channels);
                    pack(&mut layer.output, &ranges.output, channels, heads.width());
                    pack(&mut layer.gate_up, &ranges.gate_up, 2 * width, channels);
                    pack(&mut layer.down, &ranges.down, channels, width);
                });
            },
        );
    }
}
