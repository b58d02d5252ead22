//! Softmax cross-entropy and its gradient in one pass over the logits, in place:
//! `loss = ln Σ exp(z) - z[target]`,  `dz = (softmax(z) - onehot(target)) · scale`.

use crate::crew;
use crate::math;
use crate::memory::{Cpu, Memory};
use crate::simd::vectorised;

/// The loss at the end of the network.
pub trait Classifier: Memory {
    /// Turns `logits` (N, V) into their gradient times `scale`; writes each row's loss in nats into `losses` (N).
    fn classifier(
        &self,
        logits: &mut Self::F32,
        losses: &mut [f64],
        targets: &Self::U32,
        vocabulary: usize,
        scale: f32,
    );
}

impl Classifier for Cpu {
    fn classifier(&self, logits: &mut [f32], losses: &mut [f64], targets: &[u32], vocabulary: usize, scale: f32) {
        let parts = logits.chunks_exact_mut(vocabulary).zip(losses).zip(targets);
        crew::each(parts, |((row, loss), target)| {
            let target = *target as usize;
            let chosen = row[target];
            let (max, sum) = exponentials(self.level, row);
            *loss = math::ln(f64::from(sum)) - (f64::from(chosen) - f64::from(max));
            scale_by(self.level, row, scale / sum);
            row[target] -= scale;
        });
    }
}

vectorised! {
    /// Replaces z by exp(z - max z); gives that maximum and the sum.
    pub(crate) fn exponentials(row: &mut [f32]) -> (f32, f32) {
        let max = math::max(row);
        for z in row.iter_mut() {
            *z = math::exp(*z - max);
        }
        (max, math::sum(row))
    }
}

vectorised! {
    pub(crate) fn scale_by(row: &mut [f32], factor: f32) {
        for value in row {
            *value *= factor;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Level;
    use crate::testing::{assert_close, assert_same_bits, finite_differences, noise, wide};
    use proptest::prelude::*;

    fn loss(z: &[f64], target: usize) -> f64 {
        z.iter().map(|z| z.exp()).sum::<f64>().ln() - z[target]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn loss_and_gradient_agree_with_float64(vocabulary in 1usize..90, at in 0usize..90) {
            let target = at % vocabulary;
            let z = noise(vocabulary, 1, 3.0);
            let mut scalar = None;
            for level in Level::available() {
                let (mut gradient, mut losses) = (z.clone(), [0.0]);
                Cpu::with_level(level).classifier(&mut gradient, &mut losses, &[target as u32], vocabulary, 0.5);
                assert!((losses[0] - loss(&wide(&z), target)).abs() < 1e-5);
                assert_close(&gradient, &finite_differences(&wide(&z), |z| 0.5 * loss(z, target)), 1e-5);
                assert_same_bits(scalar.get_or_insert(gradient.clone()), &gradient);
            }
        }
    }
}
