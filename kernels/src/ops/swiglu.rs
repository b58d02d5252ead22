//! SwiGLU, Shazeer 2020 (arXiv:2002.05202) Eq. 6:  y = silu(gate) ⊙ up,  silu(x) = x · σ(x).

use crate::crew;
use crate::math;
use crate::memory::{Cpu, Memory};
use crate::simd::vectorised;

/// The gate of the feed-forward layer.
pub trait SwiGlu: Memory {
    /// `gate_up`: (N, 2F), the gate first; `y`: (N, F).
    fn swiglu(&self, y: &mut Self::F32, gate_up: &Self::F32, width: usize);
    /// Overwrites `dgate_up` (N, 2F).
    fn swiglu_backward(&self, dgate_up: &mut Self::F32, dy: &Self::F32, gate_up: &Self::F32, width: usize);
}

impl SwiGlu for Cpu {
    fn swiglu(&self, y: &mut [f32], gate_up: &[f32], width: usize) {
        // An exponential takes about as long as 16 multiply-adds of a product.
        let height = (y.len() / width).div_ceil(crew::pieces(16 * y.len())).max(1);
        let parts = y.chunks_mut(height * width).zip(gate_up.chunks(height * 2 * width));
        crew::each(parts, |(y, gate_up)| forward(self.level, y, gate_up, width));
    }

    fn swiglu_backward(&self, dgate_up: &mut [f32], dy: &[f32], gate_up: &[f32], width: usize) {
        let height = (dy.len() / width).div_ceil(crew::pieces(16 * dy.len())).max(1);
        let parts = dgate_up.chunks_mut(height * 2 * width).zip(dy.chunks(height * width));
        let parts = parts.zip(gate_up.chunks(height * 2 * width));
        crew::each(parts, |((dgate_up, dy), gate_up)| backward(self.level, dgate_up, dy, gate_up, width));
    }
}

vectorised! {
    fn forward(y: &mut [f32], gate_up: &[f32], width: usize) {
        for (y, row) in y.chunks_exact_mut(width).zip(gate_up.chunks_exact(2 * width)) {
            let (gate, up) = row.split_at(width);
            for ((y, g), u) in y.iter_mut().zip(gate).zip(up) {
                *y = g * math::sigmoid(*g) * u;
            }
        }
    }
}

vectorised! {
    // silu'(g) = σ + g σ (1 - σ).
    fn backward(dgate_up: &mut [f32], dy: &[f32], gate_up: &[f32], width: usize) {
        let rows = dy.chunks_exact(width).zip(gate_up.chunks_exact(2 * width));
        for (d, (dy, row)) in dgate_up.chunks_exact_mut(2 * width).zip(rows) {
            let (gate, up) = row.split_at(width);
            let (dgate, dup) = d.split_at_mut(width);
            for (((dg, du), dy), (g, u)) in dgate.iter_mut().zip(dup).zip(dy).zip(gate.iter().zip(up)) {
                let s = math::sigmoid(*g);
                let silu = g * s;
                *du = dy * silu;
                *dg = dy * u * (s + silu * (1.0 - s));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Level;
    use crate::testing::{assert_close, assert_same_bits, finite_differences, noise, weighted, wide};
    use proptest::prelude::*;

    fn reference(x: &[f64], width: usize) -> Vec<f64> {
        let rows = x.chunks_exact(2 * width);
        rows.flat_map(|row| (0..width).map(|i| row[i] / (1.0 + (-row[i]).exp()) * row[width + i])).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn forward_and_backward_agree_with_float64(rows in 1usize..5, width in 1usize..50) {
            let (x, dy) = (noise(rows * 2 * width, 1, 2.0), noise(rows * width, 2, 1.0));
            let mut scalar = None;
            for level in Level::available() {
                let cpu = Cpu::with_level(level);
                let (mut y, mut dx) = (vec![0.0; rows * width], vec![0.0; x.len()]);
                cpu.swiglu(&mut y, &x, width);
                cpu.swiglu_backward(&mut dx, &dy, &x, width);
                assert_close(&y, &reference(&wide(&x), width), 1e-5);
                assert_close(&dx, &finite_differences(&wide(&x), |x| weighted(&reference(x, width), &dy)), 1e-4);
                let all = [y, dx].concat();
                assert_same_bits(scalar.get_or_insert(all.clone()), &all);
            }
        }
    }
}
