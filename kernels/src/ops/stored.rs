//! A weight's panels in fewer bytes: decoding reads every weight once a step, so its speed is the memory's.
//!
//! A panel is widened to f32 a piece at a time, into a buffer that stays in the first-level cache, and goes through the
//! same tiles as f32 panels. An element is still one chain over k in increasing order, so a row's bits do not depend on
//! its batch or on the instruction set, in any precision.

use super::panels::{Lhs, Panels, WIDTH, multiply, multiply_panels};
use crate::simd::{Level, vectorised};
use half::bf16;
use serde::{Deserialize, Serialize};

/// Rows of a panel that are widened together: 16 KiB of f32.
const PIECE: usize = 128;

/// Rows of a panel that share their columns' scales, as in the format Q8_0 of GGUF.
const BLOCK: usize = 32;

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
    /// 1.125 bytes a weight: -127 to 127 times a scale that 32 inputs of an output share.
    Int8,
}

/// A right operand in panels, kept in a [`Precision`].
#[derive(Clone, Debug)]
pub struct Stored {
    numbers: Numbers,
    k: usize,
    n: usize,
}

/// `[n / 32][k][32]`, in 8 bits with scales `[n / 32][k / 32][32]`.
#[derive(Clone, Debug)]
enum Numbers {
    F32(Panels),
    Bf16(Vec<u16>),
    Int8 { numbers: Vec<i8>, scales: Vec<f32> },
}

impl Default for Stored {
    fn default() -> Self {
        Self { numbers: Numbers::F32(Panels::default()), k: 0, n: 0 }
    }
}

impl Stored {
    /// Packs the transpose of `w` (n, k), row after row.
    pub fn pack_columns(&mut self, w: &[f32], k: usize, n: usize, precision: Precision) {
        (self.k, self.n) = (k, n);
        if precision == Precision::F32 {
            // What an f32 weight had is used again: training packs after every step.
            if !matches!(self.numbers, Numbers::F32(_)) {
                self.numbers = Numbers::F32(Panels::default());
            }
            if let Numbers::F32(panels) = &mut self.numbers {
                panels.pack_columns(w, k, n, k);
            }
            return;
        }
        let (mut panel, mut halves) = (Panels::default(), Vec::new());
        let (mut numbers, mut scales) = (Vec::new(), Vec::new());
        for start in (0..n).step_by(WIDTH) {
            panel.pack_columns(&w[start * k..], k, WIDTH.min(n - start), k);
            match precision {
                Precision::F32 | Precision::Bf16 => {
                    halves.extend(panel.data().iter().map(|value| bf16::from_f32(*value).to_bits()));
                }
                Precision::Int8 => {
                    for block in panel.data().chunks(BLOCK * WIDTH) {
                        let each = block_scales(block);
                        let narrow = |(value, scale): (&f32, &f32)| (value / scale).round_ties_even() as i8;
                        numbers.extend(block.chunks_exact(WIDTH).flat_map(|row| row.iter().zip(&each).map(narrow)));
                        scales.extend(each);
                    }
                }
            }
        }
        self.numbers = match precision {
            Precision::F32 | Precision::Bf16 => Numbers::Bf16(halves),
            Precision::Int8 => Numbers::Int8 { numbers, scales },
        };
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
        let Self { numbers, k, n } = self;
        let (k, n) = (*k, *n);
        if let Numbers::F32(panels) = numbers {
            return multiply(level, c, n, a, panels, add);
        }
        let mut piece = Piece([0.0; PIECE * WIDTH]);
        for block in (0..a.rows).step_by(ROW_BLOCK) {
            let rows = ROW_BLOCK.min(a.rows - block);
            for (panel, column) in (0..n).step_by(WIDTH).enumerate() {
                let c = &mut c[block * n + column..];
                for start in (0..k).step_by(PIECE) {
                    let length = PIECE.min(k - start);
                    let b = &mut piece.0[..length * WIDTH];
                    let from = (panel * k + start) * WIDTH;
                    match numbers {
                        Numbers::F32(_) => {}
                        Numbers::Bf16(halves) => widen(level, b, &halves[from..][..b.len()]),
                        Numbers::Int8 { numbers, scales } => {
                            let scales = &scales[(panel * k.div_ceil(BLOCK) + start / BLOCK) * WIDTH..];
                            scale(level, b, &numbers[from..][..b.len()], scales);
                        }
                    }
                    let data = &a.data[block * a.row_stride + start * a.col_stride..];
                    let a = Lhs { data, rows, ..a };
                    multiply_panels(level, c, n, a, b, 0, length, WIDTH.min(n - column), add || start > 0);
                }
            }
        }
    }
}

/// Starts on a cache line, so that no load straddles two.
#[repr(align(64))]
struct Piece([f32; PIECE * WIDTH]);

/// What each column of some rows is divided by, to lie within -127 to 127.
fn block_scales(block: &[f32]) -> [f32; WIDTH] {
    let mut largest = [0.0f32; WIDTH];
    for row in block.chunks_exact(WIDTH) {
        largest.iter_mut().zip(row).for_each(|(largest, value)| *largest = largest.max(value.abs()));
    }
    largest.map(|largest| if largest > 0.0 { largest / 127.0 } else { 1.0 })
}

vectorised! {
    fn widen(to: &mut [f32], from: &[u16]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = f32::from_bits(u32::from(*from) << 16);
        }
    }
}

vectorised! {
    fn scale(to: &mut [f32], from: &[i8], scales: &[f32]) {
        let blocks = to.chunks_mut(BLOCK * WIDTH).zip(from.chunks(BLOCK * WIDTH));
        for ((to, from), scales) in blocks.zip(scales.chunks_exact(WIDTH)) {
            for (to, from) in to.chunks_exact_mut(WIDTH).zip(from.chunks_exact(WIDTH)) {
                for ((to, from), scale) in to.iter_mut().zip(from).zip(scales) {
                    *to = f32::from(*from) * scale;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, assert_same_bits, noise};
    use proptest::prelude::*;

    fn product(
        level: Level,
        (w, x): (&[f32], &[f32]),
        (m, k, n): (usize, usize, usize),
        precision: Precision,
    ) -> Vec<f32> {
        let (mut stored, mut y) = (Stored::default(), noise(m * n, 3, 1.0));
        stored.pack_columns(w, k, n, precision);
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
        let halves: Vec<f32> = w.iter().map(|value| bf16::from_f32(*value).to_f32()).collect();
        let bytes: Vec<f32> = w
            .chunks(k)
            .flat_map(|row| row.chunks(BLOCK))
            .flat_map(|block| {
                let unit = block.iter().fold(0.0f32, |largest, value| largest.max(value.abs())) / 127.0;
                block.iter().map(move |value| (value / unit).round_ties_even() * unit)
            })
            .collect();
        for (precision, rounded, tolerance) in [(Precision::Bf16, halves, 1.0 / 256.0), (Precision::Int8, bytes, 0.02)]
        {
            assert!(
                rounded.iter().zip(&w).all(|(near, value)| (near - value).abs() <= tolerance * value.abs().max(1.0))
            );
            let plain = product(Level::detect(), (&rounded, &x), (m, k, n), Precision::F32);
            assert_same_bits(&plain, &product(Level::detect(), (&w, &x), (m, k, n), precision));
        }
    }

    #[test]
    fn zeros_stay_zeros() {
        let zeros = vec![0.0; 40 * 33];
        let mut stored = Stored::default();
        stored.pack_columns(&zeros, 40, 33, Precision::Int8);
        let mut y = vec![1.0; 33];
        stored.multiply(Level::detect(), &mut y, Lhs::rows(&zeros, 1, 40), false);
        assert_close(&y, &[0.0; 33], 0.0);
    }
}
