//! Rotary position embedding, Su et al. 2021 (arXiv:2104.09864) Eq. 34, in the half-split layout of Llama checkpoints:
//! (a, b) ↦ (a cos θ - b sin θ, a sin θ + b cos θ) for the pairs (i, i + D/2), with θ = position · base^(-2i/D), or with
//! frequencies stretched to longer texts in one of three ways.

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
    pub fn new(positions: usize, head: usize, base: f64, stretch: Stretch) -> Self {
        let half = head / 2;
        let log_base = math::ln(base);
        let mut frequencies: Vec<f64> =
            (0..half).map(|i| math::exp64(-log_base * (2 * i) as f64 / head as f64)).collect();
        let length = stretch.apply(&mut frequencies, head, log_base);
        let mut table =
            Self { cos: Vec::with_capacity(positions * half), sin: Vec::with_capacity(positions * half), half };
        for position in 0..positions {
            for frequency in &frequencies {
                let (sin, cos) = math::sin_cos(position as f64 * frequency);
                table.cos.push((cos * length) as f32);
                table.sin.push((sin * length) as f32);
            }
        }
        table
    }

    /// Positions in the table.
    pub fn positions(&self) -> usize {
        self.cos.len() / self.half.max(1)
    }
}

/// How rotary frequencies reach beyond the texts a model was first trained on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Stretch {
    /// Not at all.
    #[default]
    None,
    /// Positions divided by a factor (Chen et al. 2023, arXiv:2306.15595).
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Llama 3.1: waves longer than `positions / low` are stretched, shorter than `positions / high` kept, a ramp between.
    Llama3 {
        /// The factor.
        factor: f64,
        /// `low_freq_factor`.
        low: f64,
        /// `high_freq_factor`.
        high: f64,
        /// `original_max_position_embeddings`.
        positions: f64,
    },
    /// YaRN (Peng et al. 2023, arXiv:2309.00071): a ramp between the channels that turn `fast` and `slow` times.
    Yarn {
        /// The factor.
        factor: f64,
        /// `beta_fast`.
        fast: f64,
        /// `beta_slow`.
        slow: f64,
        /// `original_max_position_embeddings`.
        positions: f64,
        /// Length of a rotated pair, for its old one.
        length: f64,
        /// Whether the ramp's ends are whole channels.
        truncate: bool,
    },
}

impl Stretch {
    /// Its numbers by name; each must be above 0.
    pub(crate) fn numbers(&self) -> Vec<(&'static str, f64)> {
        match *self {
            Self::None => Vec::new(),
            Self::Linear { factor } => vec![("factor", factor)],
            Self::Llama3 { factor, low, high, positions } => vec![
                ("factor", factor),
                ("low_freq_factor", low),
                ("high_freq_factor", high),
                ("high_freq_factor - low_freq_factor", high - low),
                ("original_max_position_embeddings", positions),
            ],
            Self::Yarn { factor, fast, slow, positions, length, .. } => vec![
                ("factor", factor),
                ("beta_fast", fast),
                ("beta_slow", slow),
                ("beta_fast - beta_slow", fast - slow),
                ("original_max_position_embeddings", positions),
                ("attention_factor", length),
            ],
        }
    }

    /// Changes the frequencies of heads of `head` channels; gives what sines and cosines are multiplied by.
    pub(crate) fn apply(self, frequencies: &mut [f64], head: usize, log_base: f64) -> f64 {
        use std::f64::consts::TAU;
        match self {
            Self::None => 1.0,
            Self::Linear { factor } => {
                frequencies.iter_mut().for_each(|frequency| *frequency /= factor);
                1.0
            }
            Self::Llama3 { factor, low, high, positions } => {
                for frequency in frequencies {
                    let turns = positions * *frequency / TAU;
                    let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                    *frequency *= kept + (1.0 - kept) / factor;
                }
                1.0
            }
            Self::Yarn { factor, fast, slow, positions, length, truncate } => {
                let channel = |turns: f64| head as f64 * math::ln(positions / (turns * TAU)) / (2.0 * log_base);
                let (low, high) = (channel(fast), channel(slow));
                let (low, high) = if truncate { (low.floor(), high.ceil()) } else { (low, high) };
                let (low, high) = (low.max(0.0), high.min(head as f64 - 1.0));
                let width = if low == high { 0.001 } else { high - low };
                for (i, frequency) in frequencies.iter_mut().enumerate() {
                    let stretched = ((i as f64 - low) / width).clamp(0.0, 1.0);
                    *frequency *= 1.0 - stretched + stretched / factor;
                }
                length
            }
        }
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
        let (cpu, table) = (Cpu::new(), Rotations::new(40, head, 10_000.0, Stretch::None));
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
