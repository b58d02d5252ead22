//! The linear layer without bias, forward and backward:  Y = X Wᵀ,  dX = dY W,  dW += dYᵀ X.
//!
//! W is (O, C) as Hugging Face keeps it. It is packed once a step, for each direction, into the panels of
//! [`panels`](super::panels), whose fixed order over k makes a row's bits the same in any batch.

use super::panels::{Lhs, Panels, Right, WIDTH, multiply_into};
use super::stored::{Precision, Stored};
use super::tiles::Out;
use crate::memory::{Cpu, Memory};

/// A weight, ready to multiply: Wᵀ for the forward pass and, where W itself is kept nowhere, W for the backward one.
#[derive(Clone, Debug, Default)]
pub struct Weight {
    pub(crate) forward: Stored,
    backward: Option<Panels>,
}

/// The three products of a linear layer.
pub trait MatMul: Memory {
    /// A packed weight.
    type Weight;
    /// Packs `w` (O, C), rounded to `precision`; for the backward pass as well, unrounded, if `w` will be `gone` by then.
    fn pack(
        &self,
        packed: &mut Self::Weight,
        w: &Self::F32,
        outputs: usize,
        channels: usize,
        precision: Precision,
        gone: bool,
    );
    /// `y` (N, O) = `x` (N, C) Wᵀ, or added to `y` with `add`.
    fn linear(&self, y: &mut Self::F32, x: &Self::F32, w: &Self::Weight, rows: usize, add: bool);
    /// Overwrites `dx` (N, C) with `dy` (N, O) W; `unpacked` is the W that was packed, unless that is gone.
    fn linear_backward_input(
        &self,
        dx: &mut Self::F32,
        dy: &Self::F32,
        w: &Self::Weight,
        unpacked: &Self::F32,
        rows: usize,
    );
    /// Adds `dy`ᵀ `x` into `dw` (O, C), in the order of the rows.
    fn linear_backward_weight(
        &self,
        dw: &mut Self::F32,
        dy: &Self::F32,
        x: &Self::F32,
        outputs: usize,
        channels: usize,
        rows: usize,
    );
}

impl MatMul for Cpu {
    type Weight = Weight;

    fn pack(&self, packed: &mut Weight, w: &[f32], outputs: usize, channels: usize, precision: Precision, gone: bool) {
        packed.forward.pack_columns(self.level, w, channels, outputs, precision);
        if gone {
            packed.backward.get_or_insert_default().pack_rows(w, outputs, channels, channels);
        }
    }

    fn linear(&self, y: &mut [f32], x: &[f32], w: &Weight, rows: usize, add: bool) {
        w.forward.multiply(self.level, y, Lhs::rows(x, rows, w.forward.k()), add);
    }

    fn linear_backward_input(&self, dx: &mut [f32], dy: &[f32], w: &Weight, unpacked: &[f32], rows: usize) {
        let (outputs, channels) = (w.forward.n(), w.forward.k());
        let right = match &w.backward {
            Some(panels) => Right::Panels(panels.data(), outputs * WIDTH),
            None => Right::Rows(unpacked, channels),
        };
        let dx = Out::new(dx, rows, channels, channels);
        multiply_into(self.level, dx, Lhs::rows(dy, rows, outputs), right, outputs, false);
    }

    fn linear_backward_weight(
        &self,
        dw: &mut [f32],
        dy: &[f32],
        x: &[f32],
        outputs: usize,
        channels: usize,
        rows: usize,
    ) {
        let dw = Out::new(dw, outputs, channels, channels);
        multiply_into(self.level, dw, Lhs::columns(dy, outputs, outputs), Right::Rows(x, channels), rows, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, finite_differences, noise, weighted, wide};

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
        let mut packed = Weight::default();
        cpu.pack(&mut packed, &w, outputs, channels, Precision::F32, false);
        let mut y = vec![0.0; rows * outputs];
        cpu.linear(&mut y, &x, &packed, rows, false);
        assert_close(&y, &reference(&wide(&x), &wide(&w), rows, outputs, channels), 1e-5);

        let loss = |x: &[f64], w: &[f64]| weighted(&reference(x, w, rows, outputs, channels), &dy);
        for (gone, unpacked) in [(false, &w[..]), (true, &[])] {
            cpu.pack(&mut packed, &w, outputs, channels, Precision::F32, gone);
            let mut dx = vec![0.0; x.len()];
            cpu.linear_backward_input(&mut dx, &dy, &packed, unpacked, rows);
            assert_close(&dx, &finite_differences(&wide(&x), |x| loss(x, &wide(&w))), 1e-4);
        }
        let mut dw = vec![0.0; w.len()];
        cpu.linear_backward_weight(&mut dw, &dy, &x, outputs, channels, rows);
        assert_close(&dw, &finite_differences(&wide(&w), |w| loss(&wide(&x), w)), 1e-4);
    }
}
