//! AdamW, Loshchilov & Hutter 2017 (arXiv:1711.05101) Alg. 2:
//! m ← β₁m + (1-β₁)g,  v ← β₂v + (1-β₂)g²,  w ← w - η (m̂ / (√v̂ + ε) + λw),  m̂ = m/(1-β₁ᵗ),  v̂ = v/(1-β₂ᵗ).

use crate::memory::{Cpu, Memory};
use crate::simd::vectorised;

/// What one update needs beside the numbers themselves.
#[derive(Clone, Copy, Debug)]
pub struct Update {
    /// η.
    pub learning_rate: f32,
    /// β₁.
    pub beta1: f32,
    /// β₂.
    pub beta2: f32,
    /// ε.
    pub epsilon: f32,
    /// λ; 0 for what must not decay.
    pub weight_decay: f32,
    /// 1 - β₁ᵗ.
    pub correction1: f32,
    /// 1 - β₂ᵗ.
    pub correction2: f32,
    /// Factor put on the gradient first: the clipping.
    pub scale: f32,
}

/// The optimizer's update, element by element.
pub trait AdamW: Memory {
    /// All four of one length; `w`, `m` and `v` change.
    fn adamw(&self, w: &mut Self::F32, m: &mut Self::F32, v: &mut Self::F32, gradient: &Self::F32, update: &Update);
}

impl AdamW for Cpu {
    fn adamw(&self, w: &mut [f32], m: &mut [f32], v: &mut [f32], gradient: &[f32], update: &Update) {
        assert!(w.len() == m.len() && w.len() == v.len() && w.len() == gradient.len(), "adamw: lengths differ");
        step(self.level, w, m, v, gradient, update);
    }
}

vectorised! {
    fn step(w: &mut [f32], m: &mut [f32], v: &mut [f32], gradient: &[f32], update: &Update) {
        let Update { learning_rate, beta1, beta2, epsilon, weight_decay, correction1, correction2, scale } = *update;
        for (((w, m), v), g) in w.iter_mut().zip(m).zip(v).zip(gradient) {
            let g = g * scale;
            *m = beta1.mul_add(*m, (1.0 - beta1) * g);
            *v = beta2.mul_add(*v, (1.0 - beta2) * (g * g));
            let direction = (*m / correction1) / ((*v / correction2).sqrt() + epsilon);
            *w -= learning_rate * (direction + weight_decay * *w);
        }
    }
}

vectorised! {
    /// Σ x² in float64: sixteen sums of every sixteenth number, added in order, so that the bits are those of every level.
    pub(crate) fn square_sum(values: &[f32]) -> f64 {
        let mut sums = [0.0f64; 16];
        let (whole, rest) = values.as_chunks::<16>();
        for values in whole {
            for (sum, x) in sums.iter_mut().zip(values) {
                *sum += f64::from(*x) * f64::from(*x);
            }
        }
        for (sum, x) in sums.iter_mut().zip(rest) {
            *sum += f64::from(*x) * f64::from(*x);
        }
        sums.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Level;
    use crate::testing::{assert_close, assert_same_bits, noise};

    #[test]
    fn three_updates_agree_with_float64() {
        let n = 37;
        let mut scalar = None;
        for level in Level::available() {
            let (mut w, mut m, mut v) = (noise(n, 1, 1.0), vec![0.0; n], vec![0.0; n]);
            let mut wide: Vec<[f64; 3]> = w.iter().map(|w| [f64::from(*w), 0.0, 0.0]).collect();
            for t in 1..=3 {
                let gradient = noise(n, 10 + t as u64, 1.0);
                let update = Update {
                    learning_rate: 0.01,
                    beta1: 0.9,
                    beta2: 0.95,
                    epsilon: 1e-8,
                    weight_decay: 0.1,
                    correction1: 1.0 - 0.9f32.powi(t),
                    correction2: 1.0 - 0.95f32.powi(t),
                    scale: 0.5,
                };
                Cpu::with_level(level).adamw(&mut w, &mut m, &mut v, &gradient, &update);
                for ([w, m, v], g) in wide.iter_mut().zip(&gradient) {
                    let g = f64::from(*g) * 0.5;
                    *m = 0.9 * *m + 0.1 * g;
                    *v = 0.95 * *v + 0.05 * g * g;
                    let (mh, vh) = (*m / (1.0 - 0.9f64.powi(t)), *v / (1.0 - 0.95f64.powi(t)));
                    *w -= 0.01 * (mh / (vh.sqrt() + 1e-8) + 0.1 * *w);
                }
            }
            assert_close(&w, &wide.iter().map(|x| x[0]).collect::<Vec<_>>(), 1e-5);
            assert_same_bits(scalar.get_or_insert(w.clone()), &w);
        }
    }

    #[test]
    fn sums_of_squares_have_the_same_bits_at_every_level() {
        for len in [0, 1, 15, 16, 17, 1000] {
            let values = noise(len, 3, 1.0);
            let expected: f64 = values.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
            for level in Level::available() {
                let sum = square_sum(level, &values);
                assert_eq!(sum.to_bits(), square_sum(Level::detect(), &values).to_bits());
                assert!((sum - expected).abs() <= 1e-12 * expected, "{len}: {sum} is not {expected}");
            }
        }
    }
}
