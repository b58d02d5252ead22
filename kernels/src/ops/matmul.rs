//! The linear layer without bias, forward and backward:  Y = X Wᵀ,  dX = dY W,  dW += dYᵀ X.
//!
//! W is (O, C) as Hugging Face keeps it. Its numbers go through the panels of [`panels`](super::panels), whose fixed order over
//! k makes a row's bits the same in any batch. They are packed before, by whoever multiplies often, or each piece when a
//! product meets it, which takes no memory.

use super::halves;
use super::panels::{Lhs, Panels, Plain, Right, WIDTH, multiply, multiply_into};
use super::stored::{Precision, Stored};
use super::tiles::Out;
use crate::memory::{Cpu, Memory};

/// A weight, ready to multiply.
#[derive(Clone, Debug)]
pub enum Weight {
    /// Packed for the forward pass, in a precision.
    Stored(Stored),
    /// Packed for both directions.
    Packed {
        /// Wᵀ.
        forward: Panels,
        /// W.
        backward: Panels,
    },
    /// As it lies, packed when it is met.
    Plain {
        /// Whether all products are those of [`halves`]: both operands are rounded to bf16.
        rounded: bool,
    },
}

impl Default for Weight {
    fn default() -> Self {
        Self::Plain { rounded: false }
    }
}

/// The three products of a linear layer. `plain` is the W (O, C) that a weight was packed from, read where it was not.
pub trait MatMul: Memory {
    /// A weight, packed or to be packed when it is met.
    type Weight;
    /// Packs `plain` (O, C) for the forward pass, rounded to `precision`.
    fn store(&self, plain: &Self::F32, outputs: usize, channels: usize, precision: Precision) -> Self::Weight;
    /// Packs `plain` (O, C) for both directions, in the place of what was packed before.
    fn pack(&self, packed: &mut Self::Weight, plain: &Self::F32, outputs: usize, channels: usize);
    /// `y` (N, O) = `x` (N, C) Wᵀ, or added to `y` with `add`.
    fn linear(&self, y: &mut Self::F32, x: &Self::F32, w: &Self::Weight, plain: &Self::F32, rows: usize, add: bool);
    /// Overwrites `dx` (N, C) with `dy` (N, O) W; of a stored weight, as it was before it was rounded.
    fn linear_backward_input(
        &self,
        dx: &mut Self::F32,
        dy: &Self::F32,
        w: &Self::Weight,
        plain: &Self::F32,
        rows: usize,
    );
    /// Adds `dy`ᵀ `x` into `dw` (O, C), in the order of the rows.
    fn linear_backward_weight(
        &self,
        dw: &mut Self::F32,
        dy: &Self::F32,
        x: &Self::F32,
        w: &Self::Weight,
        outputs: usize,
        channels: usize,
    );
}

impl MatMul for Cpu {
    type Weight = Weight;

    fn store(&self, plain: &[f32], outputs: usize, channels: usize, precision: Precision) -> Weight {
        Weight::Stored(Stored::pack_columns(self.level, plain, channels, outputs, precision))
    }

    fn pack(&self, packed: &mut Weight, plain: &[f32], outputs: usize, channels: usize) {
        if !matches!(packed, Weight::Packed { .. }) {
            *packed = Weight::Packed { forward: Panels::default(), backward: Panels::default() };
        }
        if let Weight::Packed { forward, backward } = packed {
            forward.pack_columns(self.level, plain, channels, outputs, channels);
            backward.pack_rows(plain, outputs, channels, channels);
        }
    }

    fn linear(&self, y: &mut [f32], x: &[f32], w: &Weight, plain: &[f32], rows: usize, add: bool) {
        match w {
            Weight::Stored(stored) => stored.multiply(self.level, y, Lhs::rows(x, rows, stored.k()), add),
            Weight::Packed { forward, .. } => {
                multiply(self.level, y, forward.n(), Lhs::rows(x, rows, forward.k()), forward, add);
            }
            Weight::Plain { rounded } => {
                let (outputs, channels) = (y.len() / rows.max(1), x.len() / rows.max(1));
                let (y, x) = (Out::new(y, rows, outputs, outputs), Lhs::rows(x, rows, channels));
                let plain = Plain::new(plain, channels);
                match rounded {
                    true => halves::multiply_into(self.level, y, x, halves::Right::Columns(plain), channels, add),
                    false => multiply_into(self.level, y, x, Right::Columns(plain), channels, add),
                }
            }
        }
    }

    fn linear_backward_input(&self, dx: &mut [f32], dy: &[f32], w: &Weight, plain: &[f32], rows: usize) {
        let (outputs, channels) = (dy.len() / rows.max(1), dx.len() / rows.max(1));
        let (dx, dy) = (Out::new(dx, rows, channels, channels), Lhs::rows(dy, rows, outputs));
        let right = match w {
            Weight::Packed { backward, .. } => Right::Panels(backward.data(), outputs * WIDTH),
            Weight::Stored(_) | Weight::Plain { rounded: false } => Right::Rows(Plain::new(plain, channels)),
            Weight::Plain { rounded: true } => {
                let right = halves::Right::Rows(Plain::new(plain, channels));
                return halves::multiply_into(self.level, dx, dy, right, outputs, false);
            }
        };
        multiply_into(self.level, dx, dy, right, outputs, false);
    }

    fn linear_backward_weight(
        &self,
        dw: &mut [f32],
        dy: &[f32],
        x: &[f32],
        w: &Weight,
        outputs: usize,
        channels: usize,
    ) {
        let rows = dy.len() / outputs.max(1);
        let dw = Out::new(dw, outputs, channels, channels);
        let (dy, x) = (Lhs::columns(dy, outputs, outputs), Plain::new(x, channels));
        match w {
            Weight::Plain { rounded: true } => {
                halves::multiply_into(self.level, dw, dy, halves::Right::Rows(x), rows, true);
            }
            _ => multiply_into(self.level, dw, dy, Right::Rows(x), rows, true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::bf16::round;
    use crate::testing::{assert_close, assert_same_bits, finite_differences, noise, weighted, wide};

    fn reference(x: &[f64], w: &[f64], rows: usize, outputs: usize, channels: usize) -> Vec<f64> {
        (0..rows * outputs)
            .map(|at| {
                let (i, o) = (at / outputs, at % outputs);
                (0..channels).map(|c| x[i * channels + c] * w[o * channels + c]).sum()
            })
            .collect()
    }

    #[test]
    fn both_gradients_agree_with_finite_differences() {
        let (rows, outputs, channels) = (5, 7, 3);
        let cpu = Cpu::new();
        let (x, w) = (noise(rows * channels, 1, 1.0), noise(outputs * channels, 2, 1.0));
        let dy = noise(rows * outputs, 3, 1.0);
        let loss = |x: &[f64], w: &[f64]| weighted(&reference(x, w, rows, outputs, channels), &dy);
        let mut packed = Weight::default();
        cpu.pack(&mut packed, &w, outputs, channels);
        for packed in [cpu.store(&w, outputs, channels, Precision::F32), packed, Weight::default()] {
            let (mut y, mut dx) = (vec![0.0; rows * outputs], vec![0.0; x.len()]);
            cpu.linear(&mut y, &x, &packed, &w, rows, false);
            assert_close(&y, &reference(&wide(&x), &wide(&w), rows, outputs, channels), 1e-5);
            cpu.linear_backward_input(&mut dx, &dy, &packed, &w, rows);
            assert_close(&dx, &finite_differences(&wide(&x), |x| loss(x, &wide(&w))), 1e-4);
        }
        let mut dw = vec![0.0; w.len()];
        cpu.linear_backward_weight(&mut dw, &dy, &x, &Weight::default(), outputs, channels);
        assert_close(&dw, &finite_differences(&wide(&w), |w| loss(&wide(&x), w)), 1e-4);
    }

    #[test]
    fn a_weight_packed_when_it_is_met_gives_the_bits_of_one_packed_before() {
        let cpu = Cpu::new();
        for (rows, outputs, channels) in [(1, 40, 33), (7, 64, 300), (60, 130, 70)] {
            let (x, w) = (noise(rows * channels, 1, 1.0), noise(outputs * channels, 2, 1.0));
            for (precision, rounded) in [(Precision::F32, false), (Precision::Bf16, true)] {
                let product = |weight: &Weight, w: &[f32]| {
                    let mut y = noise(rows * outputs, 3, 1.0);
                    cpu.linear(&mut y, &x, weight, w, rows, true);
                    y
                };
                let packed = product(&cpu.store(&w, outputs, channels, precision), &[]);
                assert_same_bits(&packed, &product(&Weight::Plain { rounded }, &w));
            }
        }
    }

    #[test]
    fn gradients_of_a_rounded_weight_are_those_of_rounded_operands() {
        let (cpu, (rows, outputs, channels)) = (Cpu::new(), (60, 130, 70));
        let [mut x, mut w, mut dy] =
            [(rows * channels, 1), (outputs * channels, 2), (rows * outputs, 3)].map(|(n, seed)| noise(n, seed, 1.0));
        let backward = |rounded, [x, w, dy]: [&[f32]; 3]| {
            let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
            let weight = Weight::Plain { rounded };
            cpu.linear_backward_input(&mut dx, dy, &weight, w, rows);
            cpu.linear_backward_weight(&mut dw, dy, x, &weight, outputs, channels);
            [dx, dw].concat()
        };
        let found = backward(true, [&x, &w, &dy]);
        [&mut x, &mut w, &mut dy].into_iter().for_each(|operand| round(cpu.level, operand));
        assert_close(&found, &wide(&backward(false, [&x, &w, &dy])), 1e-4);
    }
}
