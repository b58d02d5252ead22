//! Products of two bf16 operands, in the order of the tile instructions that recent processors have for them (AMX).
//!
//! Both operands are rounded to bf16. Along k, 32 numbers are a block. In it the numbers at even and at odd places make **two
//! chains of fused multiply-adds from zero**, and an element of C is **one chain of additions over the blocks**,
//! `c += even + odd`; what is smaller than 2⁻¹²⁶ counts as zero. That is TDPBF16PS (Intel 64 and IA-32 Architectures Software
//! Developer's Manual, volume 2), and other instructions repeat it here, so an element's bits depend on neither the batch, the
//! instruction set nor the threads.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "aarch64")]
mod arm;
mod pack;
mod units;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::bf16::widen;
use super::panels::{Cut, Lhs, Plain, WIDTH, in_pieces};
use super::tiles::Out;
use crate::memory::Lines;
use crate::simd::Level;
use pack::{Cell, pack_left, pack_right};
use std::cell::RefCell;
use std::ops::Range;
use units::Tile;
pub(super) use units::Units;

/// Numbers along k that make a block, and pairs of them.
const BLOCK: usize = 32;
const PAIRS: usize = BLOCK / 2;

/// Rows of A, and columns of B, that one instruction takes.
const SIDE: usize = 16;

/// Most rows of A that stay in the second-level cache, and blocks of k: 576 KiB.
const ROW_BLOCK: usize = 512;
const DEPTH: usize = 18;

/// Columns that are packed together where B is not: what lies side by side is read at once.
const GROUP: usize = 4 * WIDTH;

/// A right operand (k, n), ready to multiply.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weights {
    /// `[n / 32][k / 32][2]`, filled up with zeros.
    cells: Lines<u32>,
    k: usize,
}

impl Weights {
    /// Rounds the transpose of `w` (n, k), row after row.
    pub(crate) fn pack_columns(level: Level, w: &[f32], k: usize, n: usize) -> Self {
        let blocks = k.div_ceil(BLOCK);
        let mut packed = Self { k, ..Self::default() };
        packed.cells.resize(n.div_ceil(WIDTH) * blocks * WIDTH * PAIRS);
        pack_right(level, cells(&mut packed.cells), Plain::new(w, k), false, (0..k, 0..n));
        packed
    }

    /// C = A · B, or += with `add`.
    pub(crate) fn multiply(&self, level: Level, c: Out, a: Lhs, add: bool) {
        multiply_into(level, c, a, Right::Packed(&self.cells), self.k, add);
    }
}

/// A right operand (k, n).
#[derive(Clone, Copy)]
pub(crate) enum Right<'a> {
    /// The cells of [`Weights`].
    Packed(&'a [u32]),
    /// Its rows, packed as they are met.
    Rows(Plain<'a>),
    /// Its columns, packed as they are met.
    Columns(Plain<'a>),
}

fn cells(numbers: &mut [u32]) -> &mut [Cell] {
    bytemuck::cast_slice_mut(numbers)
}

/// Whether a processor that is used up to this level has instructions for whole tiles.
pub(crate) fn has_tiles(level: Level) -> bool {
    Units::best(level).tiles()
}

/// C (rows of `a`, n) = A · B, or += with `add`.
pub(crate) fn multiply_into(level: Level, c: Out, a: Lhs, b: Right, k: usize, add: bool) {
    multiply_by(Units::best(level), level, c, a, b, k, add);
}

fn multiply_by(units: Units, level: Level, c: Out, a: Lhs, b: Right, k: usize, add: bool) {
    let (rows, n) = (c.rows(), c.columns());
    if rows == 0 || n == 0 {
        return;
    }
    assert!(
        k == 0 || a.data.len() > (rows - 1) * a.row_stride + (k - 1) * a.col_stride,
        "A is too small: {} for {rows} rows of {k}",
        a.data.len()
    );
    assert!(k == 0 || b.holds(k, n), "B is too small");
    // Copying a number costs about the same on both sides, and a tile instruction does the work of sixteen others.
    in_pieces(c, k.div_ceil(if units.tiles() { 8 } else { 1 }), Cut::Even, |top, first, c| {
        units.ready(|| blocks((units, level), c, a.from(top, 0), (b, first * WIDTH), k, add));
    });
}

impl Right<'_> {
    fn holds(self, k: usize, n: usize) -> bool {
        match self {
            Self::Packed(cells) => cells.len() >= n.div_ceil(WIDTH) * k.div_ceil(BLOCK) * WIDTH * PAIRS,
            Self::Rows(rows) => rows.holds(k, n),
            Self::Columns(columns) => columns.holds(n, k),
        }
    }
}

thread_local! {
    /// A block of A: `[rows / 16][k / 32]`.
    static LEFT: RefCell<Lines<u32>> = const { RefCell::new(Lines::new()) };
    /// The same in f32, for instructions that take no pairs.
    static WIDE: RefCell<Lines> = const { RefCell::new(Lines::new()) };
    /// Some panels of B, laid out as in [`Weights`].
    static RIGHT: RefCell<Lines<u32>> = const { RefCell::new(Lines::new()) };
}

/// The columns of `b` from `first` on.
fn blocks((units, level): (Units, Level), mut c: Out, a: Lhs, (b, first): (Right, usize), k: usize, add: bool) {
    let (rows, n, all) = (c.rows(), c.columns(), k.div_ceil(BLOCK));
    if k == 0 && !add {
        (0..rows).for_each(|i| c.row(i).fill(0.0));
    }
    let height = rows.div_ceil(rows.div_ceil(ROW_BLOCK)).next_multiple_of(2 * SIDE);
    let deep = all.div_ceil(all.div_ceil(DEPTH).max(1)).max(1);
    let (mut left, mut wide, mut right) = (LEFT.take(), WIDE.take(), RIGHT.take());
    for top in (0..rows).step_by(height) {
        let here = top..(top + height).min(rows);
        for start in (0..all).step_by(deep) {
            let depth = start..(start + deep).min(all);
            let numbers = depth.start * BLOCK..(depth.end * BLOCK).min(k);
            let strip = depth.len() * SIDE * PAIRS;
            let len = here.len().div_ceil(SIDE) * strip;
            left.resize(len);
            pack_left(level, cells(&mut left), a, (here.clone(), numbers.clone()));
            if !units.tiles() {
                wide.resize(2 * len);
                widen(level, &mut wide[..2 * len], bytemuck::cast_slice(&left[..len]));
            }
            for group in (0..n).step_by(GROUP) {
                let columns = group..(group + GROUP).min(n);
                let panels = panels(level, (b, first), &mut right, (&columns, &depth), (&numbers, all));
                for (panel, column) in panels.zip(columns.clone().step_by(WIDTH)) {
                    let mut c = c.part(here.clone(), column..(column + WIDTH).min(n));
                    for (nth, first) in (0..len).step_by(2 * strip).enumerate() {
                        let rows = nth * 2 * SIDE..((nth + 1) * 2 * SIDE).min(here.len());
                        let (left, wide) = (&left[first..len], wide.get(2 * first..).unwrap_or_default());
                        let tile = Tile { left, wide, right: panel, blocks: depth.len(), add: add || start > 0 };
                        units.multiply(&tile, c.part(rows, 0..c.columns()));
                    }
                }
            }
        }
    }
    LEFT.set(left);
    WIDE.set(wide);
    RIGHT.set(right);
}

/// Some blocks of a group's columns, a panel at a time; what is not packed goes through `buffer`.
fn panels<'b>(
    level: Level,
    (b, first): (Right<'b>, usize),
    buffer: &'b mut Lines<u32>,
    (columns, depth): (&Range<usize>, &Range<usize>),
    (numbers, all): (&Range<usize>, usize),
) -> impl Iterator<Item = &'b [u32]> {
    let columns = columns.start + first..columns.end + first;
    let (len, count) = (depth.len() * WIDTH * PAIRS, columns.len().div_ceil(WIDTH));
    let mut pack = |plain, rows| {
        buffer.resize(count * len);
        pack_right(level, cells(&mut buffer[..count * len]), plain, rows, (numbers.clone(), columns.clone()));
    };
    match b {
        Right::Packed(_) => {}
        Right::Rows(plain) => pack(plain, true),
        Right::Columns(plain) => pack(plain, false),
    }
    let (from, distance): (&[u32], _) = match b {
        Right::Packed(cells) => {
            let distance = all * WIDTH * PAIRS;
            (&cells[columns.start / WIDTH * distance + depth.start * WIDTH * PAIRS..], distance)
        }
        Right::Rows(_) | Right::Columns(_) => (buffer, len),
    };
    (0..count).map(move |panel| &from[panel * distance..][..len])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::bf16::round;
    use crate::testing::{assert_close, assert_same_bits, noise};
    use proptest::prelude::*;

    /// The operands and the result of one product, by the way B lies.
    struct Case {
        shape: (usize, usize, usize),
        a: Vec<f32>,
        b: Vec<f32>,
        transposed: bool,
        way: u8,
        add: bool,
    }

    impl Case {
        fn product(&self, units: Units) -> Vec<f32> {
            let (m, k, n) = self.shape;
            let mut c = noise(m * n, 3, 1.0);
            let a = if self.transposed { Lhs::columns(&self.a, m, m) } else { Lhs::rows(&self.a, m, k) };
            let turned: Vec<f32> = (0..n * k).map(|at| self.b[at % k * n + at / k]).collect();
            let packed = Weights::pack_columns(Level::detect(), &turned, k, n);
            let b = match self.way {
                0 => Right::Packed(&packed.cells),
                1 => Right::Rows(Plain::new(&self.b, n)),
                _ => Right::Columns(Plain::new(&turned, k)),
            };
            multiply_by(units, Level::detect(), Out::new(&mut c, m, n, n), a, b, k, self.add);
            c
        }
    }

    /// Numbers of all sizes that a product of two of them is a normal number.
    fn sizes(n: usize, seed: u64) -> Vec<f32> {
        let powers = noise(n, seed + 10, 9.0);
        noise(n, seed, 1.0).iter().zip(powers).map(|(value, power)| value * power.clamp(-50.0, 50.0).exp2()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn all_units_give_the_same_bits_wherever_the_operands_lie(
            m in 1usize..70, k in 1usize..150, n in 1usize..70, transposed: bool, way in 0u8..3, add: bool
        ) {
            let case = Case { shape: (m, k, n), a: sizes(m * k, 1), b: sizes(k * n, 2), transposed, way, add };
            let expected = case.product(Units::SCALAR);
            for units in Units::available() {
                assert_same_bits(&expected, &case.product(units));
            }
            let other = Case { way: (way + 1) % 3, ..case };
            assert_same_bits(&expected, &other.product(Units::SCALAR));
        }

        #[test]
        fn the_product_is_that_of_the_rounded_numbers(
            m in 1usize..40, k in 1usize..700, n in 1usize..70, transposed: bool, add: bool
        ) {
            let case = Case { shape: (m, k, n), a: noise(m * k, 1, 1.0), b: noise(k * n, 2, 1.0), transposed, way: 1, add };
            let (mut a, mut b, c) = (case.a.clone(), case.b.clone(), noise(m * n, 3, 1.0));
            round(Level::detect(), &mut a);
            round(Level::detect(), &mut b);
            let expected: Vec<f64> = (0..m * n).map(|at| {
                let (i, j) = (at / n, at % n);
                let a = |l: usize| f64::from(if transposed { a[l * m + i] } else { a[i * k + l] });
                let sum: f64 = (0..k).map(|l| a(l) * f64::from(b[l * n + j])).sum();
                sum + if add { f64::from(c[at]) } else { 0.0 }
            }).collect();
            assert_close(&case.product(Units::best(Level::detect())), &expected, 1e-4);
        }

        #[test]
        fn a_row_has_the_same_bits_in_any_batch(m in 1usize..600, k in 1usize..50, n in 1usize..50) {
            let (a, b) = (noise(m * k, 1, 1.0), noise(k * n, 2, 1.0));
            let product = |a: &[f32], m| {
                let case = Case { shape: (m, k, n), a: a.to_vec(), b: b.clone(), transposed: false, way: 1, add: false };
                case.product(Units::best(Level::detect()))
            };
            let all = product(&a, m);
            for i in [0, m / 2, m - 1] {
                assert_same_bits(&product(&a[i * k..][..k], 1), &all[i * n..][..n]);
            }
        }
    }

    #[test]
    fn what_is_too_small_counts_as_zero() {
        let tiny = f32::MIN_POSITIVE;
        for (a, b, c) in [(tiny, 0.5, 0.0), (tiny / 4.0, 1024.0, 0.0), (0.0, 0.0, tiny / 2.0), (1e-30, 1e-30, tiny)] {
            let case =
                Case { shape: (1, 2, 1), a: vec![a, 0.0], b: vec![b, 0.0], transposed: false, way: 1, add: true };
            for units in Units::available() {
                let mut found = [c];
                let (left, right) = (Lhs::rows(&case.a, 1, 2), Right::Rows(Plain::new(&case.b, 1)));
                multiply_by(units, Level::detect(), Out::new(&mut found, 1, 1, 1), left, right, 2, true);
                assert_eq!(found[0].to_bits(), if c == tiny { c } else { 0.0 }.to_bits(), "{units:?}: {a} {b} {c}");
            }
        }
    }
}
