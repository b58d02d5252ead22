//! LayerNorm, Ba et al. 2016 (arXiv:1607.06450) Eq. 4:  y = n ⊙ w + b,  n = (x - mean) · rstd,  rstd = 1/√(var(x) + ε).

use crate::math;
use crate::memory::{Cpu, Memory};
use crate::simd::vectorised;

/// Scaling each row to mean zero and variance one.
pub trait LayerNorm: Memory {
    /// `x`, `y`: (N, C); `w`, `b`: (C); `stats`: (N, 2), mean and rstd, kept for the backward pass.
    fn layernorm(
        &self,
        y: &mut Self::F32,
        stats: &mut Self::F32,
        x: &Self::F32,
        w: &Self::F32,
        b: &Self::F32,
        epsilon: f32,
    );
    /// Adds into `dw`, `db` and into `dx`, which holds the gradient of the residual stream.
    fn layernorm_backward(
        &self,
        dx: &mut Self::F32,
        dw: &mut Self::F32,
        db: &mut Self::F32,
        dy: &Self::F32,
        x: &Self::F32,
        w: &Self::F32,
        stats: &Self::F32,
    );
}

impl LayerNorm for Cpu {
    fn layernorm(&self, y: &mut [f32], stats: &mut [f32], x: &[f32], w: &[f32], b: &[f32], epsilon: f32) {
        assert!(y.len() == x.len() && b.len() == w.len(), "layernorm: shapes differ");
        assert!(stats.len() * w.len() == 2 * x.len(), "layernorm: shapes differ");
        forward(self.level, y, stats, x, w, b, epsilon);
    }

    fn layernorm_backward(
        &self,
        dx: &mut [f32],
        dw: &mut [f32],
        db: &mut [f32],
        dy: &[f32],
        x: &[f32],
        w: &[f32],
        stats: &[f32],
    ) {
        assert!(dx.len() == x.len() && dy.len() == x.len(), "layernorm: shapes differ");
        assert!(dw.len() == w.len() && db.len() == w.len(), "layernorm: shapes differ");
        assert!(stats.len() * w.len() == 2 * x.len(), "layernorm: shapes differ");
        backward(self.level, dx, dw, db, dy, x, w, stats);
    }
}

vectorised! {
    fn forward(y: &mut [f32], stats: &mut [f32], x: &[f32], w: &[f32], b: &[f32], epsilon: f32) {
        let channels = w.len();
        let rows = x.chunks_exact(channels).zip(stats.chunks_exact_mut(2));
        for (y, (x, stats)) in y.chunks_exact_mut(channels).zip(rows) {
            let mean = math::sum(x) / channels as f32;
            // The deviations stand in y for a while: their squares lose less than Σx² - C·mean² would.
            y.iter_mut().zip(x).for_each(|(y, x)| *y = x - mean);
            let rstd = 1.0 / (math::dot(y, y) / channels as f32 + epsilon).sqrt();
            for ((y, w), b) in y.iter_mut().zip(w).zip(b) {
                *y = (*y * rstd).mul_add(*w, *b);
            }
            stats.copy_from_slice(&[mean, rstd]);
        }
    }
}

vectorised! {
    // With g = dy ⊙ w:  dx = rstd · (g - mean(g) - n · mean(g ⊙ n)),  dw = Σ dy ⊙ n,  db = Σ dy.
    fn backward(dx: &mut [f32], dw: &mut [f32], db: &mut [f32], dy: &[f32], x: &[f32], w: &[f32], stats: &[f32]) {
        let channels = w.len();
        let rows = dy.chunks_exact(channels).zip(x.chunks_exact(channels)).zip(stats.chunks_exact(2));
        for (dx, ((dy, x), stats)) in dx.chunks_exact_mut(channels).zip(rows) {
            let (mean, rstd) = (stats[0], stats[1]);
            let sum = math::dot(dy, w);
            let along = (math::dot3(dy, w, x) - sum * mean) * rstd / channels as f32;
            let level = sum / channels as f32;
            for (((dx, (dw, db)), (dy, x)), w) in
                dx.iter_mut().zip(dw.iter_mut().zip(db.iter_mut())).zip(dy.iter().zip(x)).zip(w)
            {
                let n = (x - mean) * rstd;
                *dx += rstd * (dy * w - level - n * along);
                *dw += dy * n;
                *db += dy;
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

    fn reference(x: &[f64], w: &[f64], b: &[f64]) -> Vec<f64> {
        let rows = x.chunks_exact(w.len()).flat_map(|x| {
            let mean = x.iter().sum::<f64>() / w.len() as f64;
            let variance = x.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / w.len() as f64;
            x.iter().zip(w).zip(b).map(move |((x, w), b)| (x - mean) / (variance + 1e-5).sqrt() * w + b)
        });
        rows.collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn forward_and_backward_agree_with_float64(rows in 1usize..6, channels in 3usize..70) {
            let (x, w, b) = (noise(rows * channels, 1, 1.0), noise(channels, 2, 1.0), noise(channels, 4, 1.0));
            let dy = noise(rows * channels, 3, 1.0);
            let mut scalar = None;
            for level in Level::available() {
                let cpu = Cpu::with_level(level);
                let (mut y, mut stats) = (vec![0.0; x.len()], vec![0.0; rows * 2]);
                cpu.layernorm(&mut y, &mut stats, &x, &w, &b, 1e-5);
                let (mut dx, mut dw, mut db) = (vec![0.0; x.len()], vec![0.0; channels], vec![0.0; channels]);
                cpu.layernorm_backward(&mut dx, &mut dw, &mut db, &dy, &x, &w, &stats);
                let (x64, w64, b64) = (wide(&x), wide(&w), wide(&b));
                assert_close(&y, &reference(&x64, &w64, &b64), 1e-5);
                assert_close(&dx, &finite_differences(&x64, |x| weighted(&reference(x, &w64, &b64), &dy)), 2e-3);
                assert_close(&dw, &finite_differences(&w64, |w| weighted(&reference(&x64, w, &b64), &dy)), 1e-4);
                assert_close(&db, &finite_differences(&b64, |b| weighted(&reference(&x64, &w64, b), &dy)), 1e-4);
                let all = [y, dx, dw, db].concat();
                assert_same_bits(scalar.get_or_insert(all.clone()), &all);
            }
        }
    }
}
