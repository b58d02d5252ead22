//! Rotary position embedding, Su et al. 2021 (arXiv:2104.09864) Eq. 34, in the half-split layout of Llama checkpoints:
//! (a, b) ↦ (a cos θ - b sin θ, a sin θ + b cos θ) for the pairs (i, i + D/2), with θ = position · base^(-2i/D).

use crate::math;
use crate::memory::{Cpu, Memory};
use crate::simd::vectorised;

/// cos and sin of every position and pair, computed in float64 by our own functions and rounded once.
#[derive(Clone, Debug)]
pub struct Rotations {
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
}

impl Rotations {
    /// For `positions` positions and heads of `head` channels.
    pub fn new(positions: usize, head: usize, base: f64) -> Self {
        let half = head / 2;
        let log_base = math::ln(base);
        let frequencies: Vec<f64> = (0..half).map(|i| math::exp64(-log_base * (2 * i) as f64 / head as f64)).collect();
        let mut table =
            Self { cos: Vec::with_capacity(positions * half), sin: Vec::with_capacity(positions * half), half };
        for position in 0..positions {
            for frequency in &frequencies {
                let (sin, cos) = math::sin_cos(position as f64 * frequency);
                table.cos.push(cos as f32);
                table.sin.push(sin as f32);
            }
        }
        table
    }

    /// Positions in the table.
    pub fn positions(&self) -> usize {
        self.cos.len() / self.half.max(1)
    }
}

/// Turning queries and keys by their positions.
pub trait Rope: Memory {
    /// The table of rotations.
    type Rotations;
    /// Turns the first `heads` heads of each row of `x` (N, `stride`) in place; `positions`: (N).
    fn rope(&self, x: &mut Self::F32, positions: &Self::U32, table: &Self::Rotations, heads: usize, stride: usize);
    /// The gradient of a rotation is the rotation back.
    fn rope_backward(
        &self,
        dx: &mut Self::F32,
        positions: &Self::U32,
        table: &Self::Rotations,
        heads: usize,
        stride: usize,
    );
}

impl Rope for Cpu {
    type Rotations = Rotations;

    fn rope(&self, x: &mut [f32], positions: &[u32], table: &Rotations, heads: usize, stride: usize) {
        rotate(self.level, x, positions, table, heads, stride, 1.0);
    }

    fn rope_backward(&self, dx: &mut [f32], positions: &[u32], table: &Rotations, heads: usize, stride: usize) {
        rotate(self.level, dx, positions, table, heads, stride, -1.0);
    }
}

vectorised! {
    fn rotate(x: &mut [f32], positions: &[u32], table: &Rotations, heads: usize, stride: usize, sign: f32) {
        let half = table.half;
        for (row, position) in x.chunks_exact_mut(stride).zip(positions) {
            let at = *position as usize * half;
            let (cos, sin) = (&table.cos[at..][..half], &table.sin[at..][..half]);
            for head in row[..heads * 2 * half].chunks_exact_mut(2 * half) {
                let (first, second) = head.split_at_mut(half);
                for (((a, b), c), s) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                    let s = s * sign;
                    let (x, y) = (*a, *b);
                    *a = x.mul_add(*c, -(y * s));
                    *b = x.mul_add(s, y * c);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, noise};

    #[test]
    fn pairs_turn_by_their_angle_and_turn_back() {
        let (heads, head, rows, stride) = (2, 6, 4, 15);
        let (cpu, table) = (Cpu::new(), Rotations::new(40, head, 10_000.0));
        let positions = [0, 1, 7, 39];
        let x = noise(rows * stride, 1, 1.0);
        let mut y = x.clone();
        cpu.rope(&mut y, &positions, &table, heads, stride);
        let mut expected: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
        for (r, position) in positions.iter().enumerate() {
            for (h, i) in (0..heads).flat_map(|h| (0..head / 2).map(move |i| (h, i))) {
                let angle = f64::from(*position) * 10_000f64.powf(-2.0 * i as f64 / head as f64);
                let at = r * stride + h * head + i;
                let (a, b) = (f64::from(x[at]), f64::from(x[at + head / 2]));
                expected[at] = a * angle.cos() - b * angle.sin();
                expected[at + head / 2] = a * angle.sin() + b * angle.cos();
            }
        }
        assert_close(&y, &expected, 1e-6);
        cpu.rope_backward(&mut y, &positions, &table, heads, stride);
        assert_close(&y, &x.iter().map(|v| f64::from(*v)).collect::<Vec<_>>(), 1e-6);
    }
}
