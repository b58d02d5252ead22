//! GELU, Hendrycks & Gimpel 2016 (arXiv:1606.08415), in the tanh form of GPT-2 and StarCoder2:
//! y = x/2 · (1 + tanh z) = x · σ(2z),  z = √(2/π) · (x + 0.044715 x³).

use crate::math;
use crate::memory::{Cpu, Memory};
use crate::simd::vectorised;

/// 2·√(2/π).
const SCALE: f32 = 1.595_769;
const CUBIC: f32 = 0.044_715;

/// The function of a feed-forward layer without a gate.
pub trait Gelu: Memory {
    /// `x`, `y`: of one length.
    fn gelu(&self, y: &mut Self::F32, x: &Self::F32);
    /// Overwrites `dx`.
    fn gelu_backward(&self, dx: &mut Self::F32, dy: &Self::F32, x: &Self::F32);
}

impl Gelu for Cpu {
    fn gelu(&self, y: &mut [f32], x: &[f32]) {
        forward(self.level, y, x);
    }

    fn gelu_backward(&self, dx: &mut [f32], dy: &[f32], x: &[f32]) {
        backward(self.level, dx, dy, x);
    }
}

vectorised! {
    fn forward(y: &mut [f32], x: &[f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = x * math::sigmoid(SCALE * x * (CUBIC * x).mul_add(*x, 1.0));
        }
    }
}

vectorised! {
    // With s = σ(u):  y' = s + x · s (1 - s) · u'.
    fn backward(dx: &mut [f32], dy: &[f32], x: &[f32]) {
        for ((dx, dy), x) in dx.iter_mut().zip(dy).zip(x) {
            let square = CUBIC * x * x;
            let s = math::sigmoid(SCALE * x * (1.0 + square));
            *dx = dy * (s + x * s * (1.0 - s) * SCALE * (1.0 + 3.0 * square));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Level;
    use crate::testing::{assert_close, assert_same_bits, finite_differences, noise, weighted, wide};

    fn reference(x: &[f64]) -> Vec<f64> {
        let root = (2.0 / std::f64::consts::PI).sqrt();
        x.iter().map(|x| 0.5 * x * (1.0 + (root * (x + 0.044715 * x * x * x)).tanh())).collect()
    }

    #[test]
    fn forward_and_backward_agree_with_float64() {
        let (x, dy) = (noise(203, 1, 3.0), noise(203, 2, 1.0));
        let mut scalar = None;
        for level in Level::available() {
            let cpu = Cpu::with_level(level);
            let (mut y, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            cpu.gelu(&mut y, &x);
            cpu.gelu_backward(&mut dx, &dy, &x);
            assert_close(&y, &reference(&wide(&x)), 1e-6);
            assert_close(&dx, &finite_differences(&wide(&x), |x| weighted(&reference(x), &dy)), 1e-5);
            let all = [y, dx].concat();
            assert_same_bits(scalar.get_or_insert(all.clone()), &all);
        }
    }
}
