//! A weight in one of three precisions: decoding reads every weight once a step, so its speed is the memory's.
//!
//! Panels of bf16 are widened to f32 a piece at a time, into a buffer that stays in the first-level cache, and go through
//! the same tiles as f32 panels; 8 bits are multiplied in integers, by [`int8`](super::int8). An element is one chain over k
//! in increasing order in any of them, so a row's bits do not depend on its batch or on the instruction set.

use super::bf16::{halve, widen};
use super::int8;
use super::panels::{Cut, Lhs, Panels, WIDTH, in_pieces, multiply};
use super::tiles::{Ahead, Left, Out, tiles};
use crate::simd::Level;
use serde::{Deserialize, Serialize};

/// Rows of a panel that are widened together: 16 KiB of f32.
const PIECE: usize = 128;

/// Rows of A that use a piece before the next is widened.
const ROW_BLOCK: usize = 96;

/// How a weight is kept in memory while a model runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Four bytes a weight, as they are.
    #[default]
    F32,
    /// Two bytes a weight, rounded to nearest even.
    Bf16,
    /// 1.125 bytes a weight: -127 to 127 times a scale that 32 inputs of an output share. Activations are rounded in the
    /// same way, a row at a time, and the products added up in integers.
    Int8,
}

/// A right operand in panels, kept in a [`Precision`].
#[derive(Clone, Debug)]
pub struct Stored {
    numbers: Numbers,
    k: usize,
    n: usize,
}

#[derive(Clone, Debug)]
enum Numbers {
    F32(Panels),
    /// `[n / 32][k][32]`.
    Bf16(Vec<u16>),
    Int8(int8::Weights),
}

impl Stored {
    /// Packs the transpose of `w` (n, k), row after row.
    pub fn pack_columns(level: Level, w: &[f32], k: usize, n: usize, precision: Precision) -> Self {
        let numbers = match precision {
            Precision::F32 => {
                let mut panels = Panels::default();
                panels.pack_columns(level, w, k, n, k);
                Numbers::F32(panels)
            }
            Precision::Bf16 => {
                let (mut panel, mut halves) = (Panels::default(), vec![0; n.next_multiple_of(WIDTH) * k]);
                for (halves, start) in halves.chunks_exact_mut((k * WIDTH).max(1)).zip((0..n).step_by(WIDTH)) {
                    panel.pack_columns(level, &w[start * k..], k, WIDTH.min(n - start), k);
                    halve(level, halves, panel.data());
                }
                Numbers::Bf16(halves)
            }
            Precision::Int8 => Numbers::Int8(int8::Weights::pack_columns(level, w, k, n)),
        };
        Self { numbers, k, n }
    }

    /// Rows of B.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Columns of B.
    pub fn n(&self) -> usize {
        self.n
    }

    /// C (rows of `a`, n) = A · B, or += with `add`; rows of C are n apart.
    pub fn multiply(&self, level: Level, c: &mut [f32], a: Lhs, add: bool) {
        match &self.numbers {
            Numbers::F32(panels) => multiply(level, c, self.n, a, panels, add),
            Numbers::Bf16(halves) => {
                let c = Out::new(c, a.rows, self.n, self.n);
                in_pieces(c, self.k, Cut::Both, |top, first, c| {
                    multiply_halves(level, c, a.from(top, 0), &halves[first * self.k * WIDTH..], self.k, add);
                });
            }
            Numbers::Int8(weights) => weights.multiply(level, Out::new(c, a.rows, self.n, self.n), a, add),
        }
    }
}

fn multiply_halves(level: Level, mut c: Out, a: Lhs, halves: &[u16], k: usize, add: bool) {
    let mut piece = Piece([0.0; PIECE * WIDTH]);
    let (rows, n) = (c.rows(), c.columns());
    for top in (0..rows).step_by(ROW_BLOCK) {
        let block = top..(top + ROW_BLOCK).min(rows);
        for (panel, column) in (0..n).step_by(WIDTH).enumerate() {
            for start in (0..k).step_by(PIECE) {
                let b = &mut piece.0[..PIECE.min(k - start) * WIDTH];
                widen(level, b, &halves[(panel * k + start) * WIDTH..][..b.len()]);
                let a = Lhs { rows: block.len(), ..a.from(top, start) };
                let c = c.part(block.clone(), column..(column + WIDTH).min(n));
                tiles(level, c, Left::Rows(a), b, &mut Ahead::nothing(), add || start > 0);
            }
        }
    }
}

/// Starts on a cache line, so that no load straddles two.
#[repr(align(64))]
struct Piece([f32; PIECE * WIDTH]);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_same_bits, noise};
    use half::bf16;
    use proptest::prelude::*;

    fn product(
        level: Level,
        (w, x): (&[f32], &[f32]),
        (m, k, n): (usize, usize, usize),
        precision: Precision,
    ) -> Vec<f32> {
        let (stored, mut y) = (Stored::pack_columns(level, w, k, n, precision), noise(m * n, 3, 1.0));
        stored.multiply(level, &mut y, Lhs::rows(x, m, k), true);
        y
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_row_has_the_same_bits_in_any_batch_and_instruction_set(
            m in 1usize..110, k in 1usize..300, n in 1usize..70, int8: bool
        ) {
            let precision = if int8 { Precision::Int8 } else { Precision::Bf16 };
            let (x, w) = (noise(m * k, 1, 1.0), noise(n * k, 2, 1.0));
            let scalar = product(Level::SCALAR, (&w, &x), (m, k, n), precision);
            for level in Level::available() {
                assert_same_bits(&scalar, &product(level, (&w, &x), (m, k, n), precision));
            }
            let first = product(Level::detect(), (&w, &x[..k]), (1, k, n), precision);
            assert_same_bits(&first, &scalar[..n]);
        }
    }

    #[test]
    fn a_rounded_weight_gives_the_product_of_its_rounded_values() {
        let (m, k, n) = (3, 161, 37);
        let (x, w) = (noise(m * k, 1, 1.0), noise(n * k, 2, 1.0));
        let rounded: Vec<f32> = w.iter().map(|value| bf16::from_f32(*value).to_f32()).collect();
        assert!(rounded.iter().zip(&w).all(|(near, value)| (near - value).abs() <= value.abs() / 256.0));
        let plain = product(Level::detect(), (&rounded, &x), (m, k, n), Precision::F32);
        assert_same_bits(&plain, &product(Level::detect(), (&w, &x), (m, k, n), Precision::Bf16));
    }
}
