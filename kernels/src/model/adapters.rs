//! LoRA, Hu et al. 2021 (arXiv:2106.09685) Eq. 3:  W = W₀ + s B A,  s = α/r,  with A (r, C) and B (O, r) trained, W₀ not.
//!
//! The network multiplies with the merged W, made anew at each step, so that its forward pass, dX and what is saved at the
//! end are those of a plain network. Only the weights' gradient is another one, and dW (O, C) is never made:
//! `dB = dYᵀ (s X Aᵀ)`,  `dA = (s dY B)ᵀ X`.

use super::layout::{Affine, Layout};
use crate::memory::Cpu;
use crate::ops::panels::{Lhs, Panels, Plain, Right, multiply, multiply_into};
use crate::ops::tiles::Out;
use crate::{Error, Result, random};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Which matrices are adapted, and by how much.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lora {
    /// r, at least 1.
    pub rank: usize,
    /// α: the product of the factors is multiplied by α/r.
    pub alpha: f32,
    /// The last part of the matrices' names, such as `q_proj`; none for every matrix of the layers.
    pub targets: Vec<String>,
}

/// The adapters of a whole network: where their factors stand in one flat array, and the factors packed.
#[derive(Debug)]
pub(crate) struct Adapters {
    rank: usize,
    scale: f32,
    len: usize,
    /// By where the adapted matrix starts in the model's own array.
    parts: BTreeMap<usize, Adapted>,
}

/// A linear layer of the network, one or more of whose stored matrices have an adapter.
///
/// R is r times the number of adapters: their A's lie one after another, (R, C), and are one matrix to the products.
#[derive(Debug)]
pub(crate) struct Adapted {
    inputs: usize,
    outputs: usize,
    down: Range<usize>,
    adapters: Vec<Adapter>,
    /// s Aᵀ of all of them, (C, R).
    down_panels: Panels,
}

#[derive(Debug)]
struct Adapter {
    /// The outputs of the linear layer that are this matrix's.
    outputs: Range<usize>,
    /// B (O, r).
    up: Range<usize>,
    /// s B, and s A (r, C).
    up_panels: Panels,
    merge_panels: Panels,
}

impl Adapters {
    /// # Errors
    /// [`Error::Options`] if the rank is 0 or a target is no matrix of the layers.
    pub(crate) fn new(layout: &Layout, lora: &Lora) -> Result<Self> {
        if lora.rank == 0 {
            return Err(Error::Options("the rank of LoRA must be at least 1".into()));
        }
        let mut all = Self { rank: lora.rank, scale: lora.alpha / lora.rank as f32, len: 0, parts: BTreeMap::new() };
        let mut names = BTreeSet::new();
        for part in layout.layers.iter().flat_map(|layer| layer.matrices()) {
            let matrices =
                layout.tensors().iter().filter(|t| t.shape.len() == 2 && part.weight.contains(&t.range().start));
            let (mut at, mut chosen, mut inputs) = (0, Vec::new(), 0);
            for matrix in matrices {
                let name = matrix.name.trim_end_matches(".weight");
                let name = name.rsplit('.').next().unwrap_or(name);
                names.insert(name);
                inputs = matrix.shape[1];
                if lora.targets.is_empty() || lora.targets.iter().any(|target| target == name) {
                    chosen.push(at..at + matrix.shape[0]);
                }
                at += matrix.shape[0];
            }
            if !chosen.is_empty() {
                all.add(part, inputs, at, chosen);
            }
        }
        if let Some(unknown) = lora.targets.iter().find(|target| !names.contains(target.as_str())) {
            let names: Vec<&str> = names.into_iter().collect();
            return Err(Error::Options(format!(
                "LoRA's target `{unknown}` is no matrix of the model's layers, which are `{}`",
                names.join("`, `")
            )));
        }
        Ok(all)
    }

    fn add(&mut self, part: &Affine, inputs: usize, outputs: usize, chosen: Vec<Range<usize>>) {
        let mut place = |len: usize| {
            self.len += len;
            self.len - len..self.len
        };
        let down = place(chosen.len() * self.rank * inputs);
        let adapter = |outputs: Range<usize>| Adapter {
            up: place(outputs.len() * self.rank),
            outputs,
            up_panels: Panels::default(),
            merge_panels: Panels::default(),
        };
        let adapters = chosen.into_iter().map(adapter).collect();
        let adapted = Adapted { inputs, outputs, down, adapters, down_panels: Panels::default() };
        self.parts.insert(part.weight.start, adapted);
    }

    /// Length of the flat array.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Every factor's place in the flat array, in order.
    pub(crate) fn factors(&self) -> impl Iterator<Item = Range<usize>> {
        let mut factors: Vec<_> = self
            .parts
            .values()
            .flat_map(|part| std::iter::once(&part.down).chain(part.adapters.iter().map(|adapter| &adapter.up)))
            .cloned()
            .collect();
        factors.sort_unstable_by_key(|range| range.start);
        factors.into_iter()
    }

    /// New factors: B is zero, A uniform within ±1/√C as in the reference implementation, so W starts as W₀.
    pub(crate) fn init(&self, seed: u64) -> Vec<f32> {
        let mut values = vec![0.0; self.len];
        for part in self.parts.values() {
            let bound = 1.0 / (part.inputs as f32).sqrt();
            for at in part.down.clone() {
                values[at] = bound * (2.0 * random::uniform(seed, at as u64) - 1.0);
            }
        }
        values
    }

    /// Takes over the factors' values, before [`Adapters::merge`] and [`Adapted::backward`].
    pub(crate) fn pack(&mut self, cpu: Cpu, values: &[f32]) {
        let scaled = |range: &Range<usize>| values[range.clone()].iter().map(|v| v * self.scale).collect::<Vec<f32>>();
        for part in self.parts.values_mut() {
            let (down, inputs, rank) = (scaled(&part.down), part.inputs, self.rank);
            part.down_panels.pack_columns(cpu.level, &down, inputs, down.len() / inputs, inputs);
            for (adapter, down) in part.adapters.iter_mut().zip(down.chunks_exact(rank * inputs)) {
                adapter.up_panels.pack_rows(&scaled(&adapter.up), adapter.outputs.len(), rank, rank);
                adapter.merge_panels.pack_rows(down, rank, inputs, inputs);
            }
        }
    }

    /// The adapters of a linear layer, if it has any.
    pub(crate) fn of(&self, part: &Affine) -> Option<&Adapted> {
        self.parts.get(&part.weight.start)
    }

    /// The adapted matrices of `weights`, each with its s B A added, at their places in `merged`; on the caller's pool.
    /// `values` are those of the last [`Adapters::pack`].
    pub(crate) fn merge(&self, cpu: Cpu, weights: &[f32], values: &[f32], merged: &mut [f32]) {
        let (mut rest, mut at) = (merged, 0);
        let matrices: Vec<_> = self
            .parts
            .iter()
            .map(|(start, part)| {
                let place = *start..start + part.outputs * part.inputs;
                let (_, from) = std::mem::take(&mut rest).split_at_mut(place.start - at);
                let (matrix, after) = from.split_at_mut(place.len());
                (rest, at) = (after, place.end);
                (part, matrix, &weights[place])
            })
            .collect();
        matrices.into_par_iter().for_each(|(part, matrix, weights)| {
            matrix.copy_from_slice(weights);
            for adapter in &part.adapters {
                let up = Lhs::rows(&values[adapter.up.clone()], adapter.outputs.len(), self.rank);
                let rows = &mut matrix[adapter.outputs.start * part.inputs..adapter.outputs.end * part.inputs];
                multiply(cpu.level, rows, part.inputs, up, &adapter.merge_panels, true);
            }
        });
    }
}

impl Adapted {
    /// Adds the factors' gradients into `gradient`, for `dy` (N, O) and `x` (N, C); `low` is room for (N, R).
    pub(crate) fn backward(
        &self,
        cpu: Cpu,
        gradient: &mut [f32],
        (dy, x): (&[f32], &[f32]),
        rows: usize,
        low: &mut Vec<f32>,
    ) {
        let ranks = self.down_panels.n();
        let rank = ranks / self.adapters.len();
        let low = super::sized(low, rows * ranks);
        // s X Aᵀ, then s dY B.
        multiply(cpu.level, low, ranks, Lhs::rows(x, rows, self.inputs), &self.down_panels, false);
        for (nth, adapter) in self.adapters.iter().enumerate() {
            let dy = Lhs::columns(&dy[adapter.outputs.start..], adapter.outputs.len(), self.outputs);
            let up = Out::new(&mut gradient[adapter.up.clone()], dy.rows, rank, rank);
            multiply_into(cpu.level, up, dy, Right::Rows(Plain::new(&low[nth * rank..], ranks)), rows, true);
        }
        for (nth, adapter) in self.adapters.iter().enumerate() {
            let dy = Lhs::rows(&dy[adapter.outputs.start..], rows, self.outputs);
            multiply(cpu.level, &mut low[nth * rank..], ranks, dy, &adapter.up_panels, false);
        }
        let down = Out::new(&mut gradient[self.down.clone()], ranks, self.inputs, self.inputs);
        multiply_into(
            cpu.level,
            down,
            Lhs::columns(low, ranks, ranks),
            Right::Rows(Plain::new(x, self.inputs)),
            rows,
            true,
        );
    }
}
