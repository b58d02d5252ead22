//! A weight in one of three precisions: decoding reads every weight once a step, so its speed is the memory's.
//!
//! Products with bf16 are those of [`halves`](super::halves), with 8 bits those of [`int8`](super::int8). Each has one order
//! of summation, so a row's bits do not depend on its batch or on the instruction set.

use super::panels::{Lhs, Panels, multiply};
use super::tiles::Out;
use super::{halves, int8};
use crate::simd::Level;
use serde::{Deserialize, Serialize};

/// How a weight is kept in memory while a model runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Four bytes a weight, as they are.
    #[default]
    F32,
    /// Two bytes a weight, rounded to nearest even. Activations are rounded in the same way where they meet weights; products
    /// are added up in f32.
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
    Bf16(halves::Weights),
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
            Precision::Bf16 => Numbers::Bf16(halves::Weights::pack_columns(level, w, k, n)),
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
            Numbers::Bf16(weights) => weights.multiply(level, Out::new(c, a.rows, self.n, self.n), a, add),
            Numbers::Int8(weights) => weights.multiply(level, Out::new(c, a.rows, self.n, self.n), a, add),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, assert_same_bits, noise, wide};
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
        let [near_x, near_w] =
            [&x, &w].map(|values| values.iter().map(|value| bf16::from_f32(*value).to_f32()).collect::<Vec<f32>>());
        assert!(near_w.iter().zip(&w).all(|(near, value)| (near - value).abs() <= value.abs() / 256.0));
        let plain = product(Level::detect(), (&near_w, &near_x), (m, k, n), Precision::F32);
        assert_close(&product(Level::detect(), (&w, &x), (m, k, n), Precision::Bf16), &wide(&plain), 1e-4);
    }
}
