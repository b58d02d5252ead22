//! A weight in 8 bits, multiplied in integers: both operands as -127 to 127 times a scale that 32 numbers along k share.
//!
//! The format is Q8_0 of GGUF on both sides, as in llama.cpp's product of quantized weights: within a block of 32 the sum is
//! exact in 32-bit integers, and an element of C is one chain over the blocks in increasing order,
//! `c = fma(sum · w_scale, x_scale, c)`. Rounding a row of activations looks at that row alone, so a row's bits depend on
//! neither its batch, the instruction set nor the threads.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "aarch64")]
mod arm;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod rows;
mod units;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::panels::{Cut, Lhs, WIDTH, in_pieces};
use super::tiles::Out;
use crate::crew;
use crate::memory::Lines;
use crate::simd::{Level, vectorised};
use std::cell::RefCell;
use units::Units;

/// Numbers along k that share a scale.
const BLOCK: usize = 32;

/// Numbers along k that are multiplied and added at once.
const GROUP: usize = 4;

/// Rows of A, and columns of B, that one instruction for tiles takes.
const SIDE: usize = 16;

/// Blocks of a panel that stay in the first-level cache while rows pass by: 27 KiB.
const DEPTH: usize = 24;

/// A right operand (k, n) in panels of 32 columns.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weights {
    /// `[n / 32][k / 32][8][32][4]`: in each block, groups of 4 along k for every column.
    numbers: Lines<i8>,
    /// `[n / 32][k / 32][32]`.
    scales: Lines,
    k: usize,
}

impl Weights {
    /// Rounds the transpose of `w` (n, k), row after row.
    pub(crate) fn pack_columns(level: Level, w: &[f32], k: usize, n: usize) -> Self {
        let (blocks, panels) = (k.div_ceil(BLOCK), n.div_ceil(WIDTH));
        let mut packed = Self { k, ..Self::default() };
        packed.numbers.resize(panels * blocks * BLOCK * WIDTH);
        packed.scales.resize(panels * blocks * WIDTH);
        let (mut row, mut scales, mut offsets) = (vec![0; blocks * BLOCK], vec![0.0; blocks], vec![0; blocks]);
        for (j, from) in w.chunks_exact(k.max(1)).enumerate().take(n) {
            round_row(level, &mut row, &mut scales, &mut offsets, from);
            for (block, (numbers, scale)) in row.chunks_exact(BLOCK).zip(&scales).enumerate() {
                let at = (j / WIDTH) * blocks + block;
                packed.scales[at * WIDTH + j % WIDTH] = *scale;
                let to = packed.numbers[at * BLOCK * WIDTH + j % WIDTH * GROUP..].chunks_mut(WIDTH * GROUP);
                to.zip(numbers.chunks_exact(GROUP)).for_each(|(to, four)| to[..GROUP].copy_from_slice(four));
            }
        }
        packed
    }

    /// C = A · B, or += with `add`.
    pub(crate) fn multiply(&self, level: Level, c: Out, a: Lhs, add: bool) {
        self.multiply_by(Units::best(level), level, c, a, add);
    }

    fn multiply_by(&self, units: Units, level: Level, c: Out, a: Lhs, add: bool) {
        let mut rounded = ROUNDED.take();
        rounded.fill(level, a, self.k);
        let blocks = self.k.div_ceil(BLOCK);
        // A product in integers takes about a third of the time.
        in_pieces(c, self.k.div_ceil(3), Cut::Both, |top, first, mut c| {
            let (rows, n) = (c.rows(), c.columns());
            if blocks == 0 && !add {
                (0..rows).for_each(|row| c.row(row).fill(0.0));
            }
            if rows == 0 {
                return;
            }
            for (panel, column) in (0..n).step_by(WIDTH).enumerate() {
                for start in (0..blocks).step_by(DEPTH) {
                    let depth = DEPTH.min(blocks - start);
                    let at = (first + panel) * blocks + start;
                    let tile = Tile {
                        numbers: &self.numbers[at * BLOCK * WIDTH..][..depth * BLOCK * WIDTH],
                        scales: &self.scales[at * WIDTH..][..depth * WIDTH],
                        rounded: &rounded,
                        top,
                        start,
                        depth,
                        add: add || start > 0,
                    };
                    units.multiply(&tile, c.part(0..rows, column..(column + WIDTH).min(n)));
                }
            }
        });
        ROUNDED.set(rounded);
    }
}

/// Further instructions for these products that a processor has which is used up to this level.
pub(crate) fn extensions(level: Level) -> &'static [&'static str] {
    Units::best(level).extensions()
}

/// Activations in 8 bits.
#[derive(Default)]
struct Rounded {
    /// (rows + 15, blocks · 32).
    numbers: Vec<i8>,
    /// (rows, blocks).
    scales: Vec<f32>,
    /// (rows, blocks): -128 times each block's sum, which makes up for weights that are taken 128 too large.
    offsets: Vec<i32>,
    blocks: usize,
}

thread_local! {
    static ROUNDED: RefCell<Rounded> = const {
        RefCell::new(Rounded { numbers: Vec::new(), scales: Vec::new(), offsets: Vec::new(), blocks: 0 })
    };
}

impl Rounded {
    fn fill(&mut self, level: Level, a: Lhs, k: usize) {
        let blocks = k.div_ceil(BLOCK);
        self.blocks = blocks;
        // An instruction for tiles reads as many rows as it takes.
        self.numbers.resize((a.rows + SIDE - 1) * blocks * BLOCK, 0);
        self.scales.resize(a.rows * blocks, 0.0);
        self.offsets.resize(a.rows * blocks, 0);
        if blocks == 0 {
            return;
        }
        assert!(
            a.col_stride == 1 && a.data.len() >= (a.rows - 1) * a.row_stride + k,
            "rows of A that lie in one piece"
        );
        let chunk = a.rows.div_ceil(crew::pieces(32 * a.rows * k));
        let numbers = self.numbers.chunks_mut(chunk * blocks * BLOCK);
        let rest = self.scales.chunks_mut(chunk * blocks).zip(self.offsets.chunks_mut(chunk * blocks));
        crew::each(numbers.zip(rest).enumerate(), |(nth, (numbers, (scales, offsets)))| {
            let rows =
                numbers.chunks_mut(blocks * BLOCK).zip(scales.chunks_mut(blocks).zip(offsets.chunks_mut(blocks)));
            for (row, (numbers, (scales, offsets))) in rows.enumerate() {
                round_row(level, numbers, scales, offsets, &a.data[(nth * chunk + row) * a.row_stride..][..k]);
            }
        });
    }
}

vectorised! {
    /// Rounds each block of a row to -127 to 127 times its scale; `to` is filled up with zeros.
    fn round_row(to: &mut [i8], scales: &mut [f32], offsets: &mut [i32], from: &[f32]) {
        let mut last = [0.0; BLOCK];
        let rest = from.chunks_exact(BLOCK).remainder();
        last[..rest.len()].copy_from_slice(rest);
        let blocks = from.as_chunks::<BLOCK>().0.iter().chain((!rest.is_empty()).then_some(&last));
        let to = to.as_chunks_mut::<BLOCK>().0.iter_mut();
        for (((to, scale), offset), from) in to.zip(scales).zip(offsets).zip(blocks) {
            let mut lanes = [0u32; 16];
            for (lane, largest) in lanes.iter_mut().enumerate() {
                // Without its sign a number's bits grow as it does, a NaN's above all.
                let bits = |value: f32| value.to_bits() & 0x7fff_ffff;
                *largest = bits(from[lane]).max(bits(from[lane + 16]));
            }
            let largest = f32::from_bits(lanes.iter().fold(0, |largest, lane| largest.max(*lane)));
            *scale = if largest == 0.0 { 1.0 } else { largest / 127.0 };
            let inverse = 1.0 / *scale;
            // Adding this leaves nothing behind the point, rounded to nearest even.
            const ROUND: f32 = (3 << 22) as f32;
            let mut rounded = [0i32; BLOCK];
            for (rounded, from) in rounded.iter_mut().zip(from) {
                *rounded = (from * inverse + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i32;
            }
            let mut sum = 0i32;
            for (to, rounded) in to.iter_mut().zip(&rounded) {
                *to = *rounded as i8;
                sum = sum.wrapping_add(*rounded);
            }
            *offset = sum.wrapping_mul(-128);
        }
    }
}

/// Some blocks of a panel, for the rows from `top` on.
struct Tile<'a> {
    numbers: &'a [i8],
    scales: &'a [f32],
    rounded: &'a Rounded,
    top: usize,
    start: usize,
    depth: usize,
    add: bool,
}

impl Tile<'_> {
    /// What belongs to a row: its numbers, scales and offsets for these blocks.
    fn row(&self, row: usize) -> (&[i8], &[f32], &[i32]) {
        let Self { rounded, top, start, depth, .. } = *self;
        let at = (top + row) * rounded.blocks + start;
        (
            &rounded.numbers[at * BLOCK..][..depth * BLOCK],
            &rounded.scales[at..][..depth],
            &rounded.offsets[at..][..depth],
        )
    }
}

fn scalar(tile: &Tile, c: &mut Out) {
    for row in 0..c.rows() {
        let (x, x_scales, _) = tile.row(row);
        for (column, c) in c.row(row).iter_mut().enumerate() {
            let mut total = if tile.add { *c } else { 0.0 };
            for (block, x_scale) in x_scales.iter().enumerate() {
                let groups = tile.numbers[block * BLOCK * WIDTH..][..BLOCK * WIDTH].chunks_exact(GROUP);
                let groups = groups.skip(column).step_by(WIDTH);
                let product = |(w, x): (&i8, &i8)| i32::from(*w) * i32::from(*x);
                let sum: i32 = groups.flatten().zip(&x[block * BLOCK..]).map(product).sum();
                total = (sum as f32 * tile.scales[block * WIDTH + column]).mul_add(*x_scale, total);
            }
            *c = total;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, assert_same_bits, noise};
    use proptest::prelude::*;

    fn product(units: Units, (w, x): (&[f32], &[f32]), (m, k, n): (usize, usize, usize), add: bool) -> Vec<f32> {
        let (mut y, level) = (noise(m * n, 3, 1.0), Level::detect());
        let weights = Weights::pack_columns(level, w, k, n);
        weights.multiply_by(units, level, Out::new(&mut y, m, n, n), Lhs::rows(x, m, k), add);
        y
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn a_row_has_the_same_bits_in_any_batch_and_instruction_set(
            m in 1usize..40, k in 1usize..900, n in 1usize..70, add: bool
        ) {
            let (x, w) = (noise(m * k, 1, 1.0), noise(n * k, 2, 1.0));
            let scalar = product(Units::SCALAR, (&w, &x), (m, k, n), add);
            for units in Units::available() {
                assert_same_bits(&scalar, &product(units, (&w, &x), (m, k, n), add));
            }
            let first = product(Units::best(Level::detect()), (&w, &x[..k]), (1, k, n), add);
            assert_same_bits(&first, &scalar[..n]);
        }
    }

    /// The nearest multiples of each block's 127th part, in float64.
    fn rounded(values: &[f32], k: usize) -> Vec<f64> {
        let block = |block: &[f32]| -> Vec<f64> {
            let unit = block.iter().fold(0.0f32, |largest, value| largest.max(value.abs())) / 127.0;
            block.iter().map(|value| f64::from((value * (1.0 / unit)).round_ties_even()) * f64::from(unit)).collect()
        };
        values.chunks(k).flat_map(|row| row.chunks(BLOCK)).flat_map(block).collect()
    }

    #[test]
    fn the_product_is_that_of_the_rounded_numbers_and_near_that_of_the_numbers_themselves() {
        let (m, k, n) = (3, 161, 37);
        let (x, w) = (noise(m * k, 1, 1.0), noise(n * k, 2, 1.0));
        let exact = |x: &[f64], w: &[f64]| -> Vec<f64> {
            let at = |at| (0..k).map(|l| x[at / n * k + l] * w[at % n * k + l]).sum();
            (0..m * n).map(at).collect()
        };
        let found = product(Units::best(Level::detect()), (&w, &x), (m, k, n), false);
        assert_close(&found, &exact(&rounded(&x, k), &rounded(&w, k)), 1e-4);
        let wide = |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect::<Vec<_>>();
        assert_close(&found, &exact(&wide(&x), &wide(&w)), 0.3);
    }

    #[test]
    fn zeros_stay_zeros() {
        let zeros = vec![0.0; 40 * 33];
        assert_close(&product(Units::best(Level::detect()), (&zeros, &zeros), (1, 40, 33), false), &[0.0; 33], 0.0);
    }

    #[test]
    fn the_largest_sums_do_not_overflow() {
        let (w, x) = (vec![-1.0; 32 * 32], vec![1.0; 32]);
        for units in Units::available() {
            assert_close(&product(units, (&w, &x), (1, 32, 32), false), &[-32.0; 32], 1e-6);
        }
    }
}
