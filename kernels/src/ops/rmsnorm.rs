//! RMSNorm, Zhang & Sennrich 2019 (arXiv:1910.07467) Eq. 4:  y = x · rstd ⊙ w,  rstd = 1/√(mean(x²) + ε).

use crate::math;
use crate::memory::{Cpu, Memory};
use crate::simd::vectorised;

/// Scaling each row to a root mean square of one.
pub trait RmsNorm: Memory {
    /// `x`, `y`: (N, C); `w`: (C); `rstd`: (N), kept for the backward pass.
    fn rmsnorm(&self, y: &mut Self::F32, rstd: &mut Self::F32, x: &Self::F32, w: &Self::F32, epsilon: f32);
    /// Adds into `dw` and into `dx`, which holds the gradient of the residual stream.
    fn rmsnorm_backward(
        &self,
        dx: &mut Self::F32,
        dw: &mut Self::F32,
        dy: &Self::F32,
        x: &Self::F32,
        w: &Self::F32,
        rstd: &Self::F32,
    );
}

impl RmsNorm for Cpu {
    fn rmsnorm(&self, y: &mut [f32], rstd: &mut [f32], x: &[f32], w: &[f32], epsilon: f32) {
        assert!(y.len() == x.len() && rstd.len() * w.len() == x.len(), "rmsnorm: shapes differ");
        forward(self.level, y, rstd, x, w, epsilon);
    }

    fn rmsnorm_backward(&self, dx: &mut [f32], dw: &mut [f32], dy: &[f32], x: &[f32], w: &[f32], rstd: &[f32]) {
        assert!(dx.len() == x.len() && dy.len() == x.len(), "rmsnorm: shapes differ");
        assert!(dw.len() == w.len() && rstd.len() * w.len() == x.len(), "rmsnorm: shapes differ");
        backward(self.level, dx, dw, dy, x, w, rstd);
    }
}

vectorised! {
    fn forward(y: &mut [f32], rstd: &mut [f32], x: &[f32], w: &[f32], epsilon: f32) {
        let channels = w.len();
        for ((y, x), rstd) in y.chunks_exact_mut(channels).zip(x.chunks_exact(channels)).zip(rstd) {
            let mean = math::dot(x, x) / channels as f32;
            *rstd = 1.0 / (mean + epsilon).sqrt();
            for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
                *y = x * *rstd * w;
            }
        }
    }
}

vectorised! {
    // With n = x·rstd and g = dy ⊙ w:  dx = rstd · (g - n · mean(g ⊙ n)),  dw = Σ dy ⊙ n.
    fn backward(dx: &mut [f32], dw: &mut [f32], dy: &[f32], x: &[f32], w: &[f32], rstd: &[f32]) {
        let channels = w.len();
        let rows = dy.chunks_exact(channels).zip(x.chunks_exact(channels));
        for ((dx, (dy, x)), rstd) in dx.chunks_exact_mut(channels).zip(rows).zip(rstd) {
            let mean = math::dot3(dy, w, x) * (rstd * rstd) / channels as f32;
            for (((dx, dw), (dy, x)), w) in dx.iter_mut().zip(dw.iter_mut()).zip(dy.iter().zip(x)).zip(w) {
                *dx += rstd * (dy * w - x * mean);
                *dw += dy * (x * rstd);
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

    fn reference(x: &[f64], w: &[f64]) -> Vec<f64> {
        let rows = x.chunks_exact(w.len()).flat_map(|x| {
            let mean = x.iter().map(|v| v * v).sum::<f64>() / w.len() as f64;
            x.iter().zip(w).map(move |(x, w)| x / (mean + 1e-5).sqrt() * w)
        });
        rows.collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn forward_and_backward_agree_with_float64(rows in 1usize..6, channels in 1usize..70) {
            let (x, w) = (noise(rows * channels, 1, 1.0), noise(channels, 2, 1.0));
            let dy = noise(rows * channels, 3, 1.0);
            let mut scalar = None;
            for level in Level::available() {
                let cpu = Cpu::with_level(level);
                let (mut y, mut rstd) = (vec![0.0; x.len()], vec![0.0; rows]);
                cpu.rmsnorm(&mut y, &mut rstd, &x, &w, 1e-5);
                let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; channels]);
                cpu.rmsnorm_backward(&mut dx, &mut dw, &dy, &x, &w, &rstd);
                assert_close(&y, &reference(&wide(&x), &wide(&w)), 1e-5);
                let by_x = finite_differences(&wide(&x), |x| weighted(&reference(x, &wide(&w)), &dy));
                let by_w = finite_differences(&wide(&w), |w| weighted(&reference(&wide(&x), w), &dy));
                assert_close(&dx, &by_x, 2e-3);
                assert_close(&dw, &by_w, 1e-4);
                let all = [y, dx, dw].concat();
                assert_same_bits(scalar.get_or_insert(all.clone()), &all);
            }
        }
    }
}
