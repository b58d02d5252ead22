//! The matrix product of every operation: C = A · B or C += A · B, with B cut into panels of 32 columns.
//!
//! An element of C is **one chain of fused multiply-adds over k in increasing order**, from 0 or from C's old value. The
//! lanes of a register are different columns, and a chain that is cut into blocks of k goes on where it stopped, so an
//! element's bits do not depend on the number of rows, on blocks and tiles, on the width of the registers, or on the
//! thread that computes it.
//!
//! Blocks are those of Goto and van de Geijn 2008 (Anatomy of High-Performance Matrix Multiplication, ACM TOMS 34): a piece
//! of a panel stays in the first-level cache while a block of A, in the second level, passes by.

use super::tiles::{Left, Out, tile_rows, tiles};
use crate::crew;
use crate::simd::Level;
use std::cell::RefCell;

/// Columns of a panel: two AVX-512 registers, four AVX2 ones.
pub const WIDTH: usize = 32;

/// Most rows of A that stay in the second-level cache while the panels pass by: 200 KiB.
const ROW_BLOCK: usize = 264;

/// Rows of a panel that stay in the first-level cache while rows of A pass by: 24 KiB.
const DEPTH: usize = 192;

/// Rows of A above which copying it takes a part of the time that counts.
const NARROW: usize = 64;

/// Numbers of B that the second-level cache has room for.
const CACHED: usize = 1 << 16;

/// A left operand: element (i, l) at `data[i * row_stride + l * col_stride]`, so that a transpose costs nothing.
#[derive(Clone, Copy)]
pub struct Lhs<'a> {
    /// The numbers, from element (0, 0) on.
    pub data: &'a [f32],
    /// Rows.
    pub rows: usize,
    /// Distance between rows.
    pub row_stride: usize,
    /// Distance between neighbours in a row.
    pub col_stride: usize,
}

impl<'a> Lhs<'a> {
    /// Rows that lie one after another, `stride` apart.
    pub fn rows(data: &'a [f32], rows: usize, stride: usize) -> Self {
        Self { data, rows, row_stride: stride, col_stride: 1 }
    }

    /// The transpose of a matrix whose rows are `stride` apart; `rows` counts the columns of that matrix.
    pub fn columns(data: &'a [f32], rows: usize, stride: usize) -> Self {
        Self { data, rows, row_stride: 1, col_stride: stride }
    }
}

/// A right operand (k, n) in panels: `[n / 32][k][32]`, the last one filled up with zeros.
#[derive(Clone, Debug, Default)]
pub struct Panels {
    data: Vec<f32>,
    k: usize,
    n: usize,
}

impl Panels {
    /// Packs B (k, n) whose rows are `stride` apart.
    pub fn pack_rows(&mut self, b: &[f32], k: usize, n: usize, stride: usize) {
        self.resize(k, n);
        for (panel, start) in self.data.chunks_exact_mut((k * WIDTH).max(1)).zip((0..n).step_by(WIDTH)) {
            let width = WIDTH.min(n - start);
            for (l, row) in panel.chunks_exact_mut(WIDTH).enumerate() {
                let from = l * stride + start;
                row[..width].copy_from_slice(&b[from..from + width]);
                row[width..].fill(0.0);
            }
        }
    }

    /// Packs the transpose of W (n, k) whose rows are `stride` apart: `B[l][j] = W[j][l]`.
    pub fn pack_columns(&mut self, w: &[f32], k: usize, n: usize, stride: usize) {
        self.resize(k, n);
        for (panel, start) in self.data.chunks_exact_mut((k * WIDTH).max(1)).zip((0..n).step_by(WIDTH)) {
            let width = WIDTH.min(n - start);
            if width < WIDTH {
                panel.fill(0.0);
            }
            for j in 0..width {
                let row = &w[(start + j) * stride..][..k];
                for (slot, value) in panel[j..].iter_mut().step_by(WIDTH).zip(row) {
                    *slot = *value;
                }
            }
        }
    }

    fn resize(&mut self, k: usize, n: usize) {
        (self.k, self.n) = (k, n);
        self.data.resize(n.div_ceil(WIDTH) * k * WIDTH, 0.0);
    }

    /// Rows of B.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Columns of B.
    pub fn n(&self) -> usize {
        self.n
    }

    /// The panels' numbers, one panel after another.
    pub fn data(&self) -> &[f32] {
        &self.data
    }
}

/// A right operand (k, n).
#[derive(Clone, Copy)]
pub(crate) enum Right<'a> {
    /// Panels that start so far apart, of which the first k rows are used.
    Panels(&'a [f32], usize),
    /// Rows that lie so far apart, packed as they are met.
    Rows(&'a [f32], usize),
}

impl<'a> Right<'a> {
    fn holds(self, k: usize, n: usize) -> bool {
        match self {
            Self::Panels(data, stride) => data.len() >= (n.div_ceil(WIDTH) - 1) * stride + k * WIDTH,
            Self::Rows(data, stride) => data.len() >= (k - 1) * stride + n,
        }
    }

    fn skip(self, panels: usize) -> Self {
        match self {
            Self::Panels(data, stride) => Self::Panels(data.get(panels * stride..).unwrap_or_default(), stride),
            Self::Rows(data, stride) => Self::Rows(data.get(panels * WIDTH..).unwrap_or_default(), stride),
        }
    }

    /// Rows `start..start + depth` of `columns` columns of a panel, which go through `buffer` if they are not packed.
    fn piece<'b>(
        self,
        buffer: &'b mut Vec<f32>,
        panel: usize,
        (start, depth): (usize, usize),
        columns: usize,
    ) -> &'b [f32]
    where
        'a: 'b,
    {
        match self {
            Self::Panels(data, stride) => &data[panel * stride + start * WIDTH..][..depth * WIDTH],
            Self::Rows(data, stride) => {
                buffer.resize(DEPTH * WIDTH, 0.0);
                let rows = data[start * stride + panel * WIDTH..].chunks(stride);
                for (to, from) in buffer.as_chunks_mut::<WIDTH>().0.iter_mut().take(depth).zip(rows) {
                    if let Some(from) = from.first_chunk().filter(|_| columns == WIDTH) {
                        *to = *from;
                    } else {
                        to[..columns].copy_from_slice(&from[..columns]);
                        to[columns..].fill(0.0);
                    }
                }
                &buffer[..depth * WIDTH]
            }
        }
    }
}

/// C (rows of `a`, n) = A · B, or += with `add`; rows of C are `stride` apart.
pub fn multiply(level: Level, c: &mut [f32], stride: usize, a: Lhs, b: &Panels, add: bool) {
    multiply_panels(level, c, stride, a, &b.data, b.k * WIDTH, b.k, b.n, add);
}

/// As [`multiply`], with panels that start `panel_stride` apart in `b`, of which the first `k` rows are used.
pub fn multiply_panels(
    level: Level,
    c: &mut [f32],
    stride: usize,
    a: Lhs,
    b: &[f32],
    panel_stride: usize,
    k: usize,
    n: usize,
    add: bool,
) {
    multiply_into(level, Out::new(c, a.rows, n, stride), a, Right::Panels(b, panel_stride), k, add);
}

/// As [`multiply_panels`], into a part of a matrix; the crew takes columns of it if they are many.
pub(crate) fn multiply_into(level: Level, c: Out, a: Lhs, b: Right, k: usize, add: bool) {
    let (rows, n) = (c.rows(), c.columns());
    if rows == 0 || n == 0 {
        return;
    }
    assert!(k == 0 || b.holds(k, n), "B is too small");
    assert!(
        k == 0 || a.data.len() > (rows - 1) * a.row_stride + (k - 1) * a.col_stride,
        "A is too small: {} for {rows} rows of {k}",
        a.data.len()
    );
    in_pieces(c, k, |first, c| blocks(level, c, a, b.skip(first), k, add));
}

/// Cuts C by panels for the crew and gives each piece with its first panel; `k` says how much work there is.
pub(crate) fn in_pieces(c: Out, k: usize, work: impl Fn(usize, Out) + Sync) {
    let (rows, panels) = (c.rows(), c.columns().div_ceil(WIDTH));
    // Few rows cost what it takes to read the panels.
    let mut pieces = crew::pieces(rows.max(8) * k * c.columns());
    if rows > NARROW {
        // Each piece copies A anew, which its panels must make worth while.
        pieces = pieces.min((panels / 8).max(pieces.div_ceil(crew::PIECES)));
    }
    let pieces = pieces.min(panels);
    if pieces < 2 {
        return work(0, c);
    }
    let each = panels.div_ceil(pieces);
    crew::each(c.cut(each * WIDTH).enumerate(), |(nth, c)| work(nth * each, c));
}

thread_local! {
    /// A block of A in strips of as many rows as a tile has: `[rows / R][k][R]`.
    static STRIPS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    /// A piece of a panel.
    static PIECE: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

fn blocks(level: Level, mut c: Out, a: Lhs, b: Right, k: usize, add: bool) {
    let (rows, n) = (c.rows(), c.columns());
    if k == 0 {
        if !add {
            (0..rows).for_each(|i| c.row(i).fill(0.0));
        }
        return;
    }
    // Copying A pays where its neighbours in k are far apart, or where it is too wide for the first level and read often.
    let panels = n.div_ceil(WIDTH);
    let strips =
        rows > tile_rows(level) && if a.col_stride == 1 { k > DEPTH && panels >= 8 } else { k >= 32 && panels >= 2 };
    // Where the panels are too many for the cache, the next panel's piece is asked for while this one is used.
    let ahead = match b {
        Right::Panels(_, stride) if panels * k * WIDTH > CACHED => stride,
        _ => 0,
    };
    let (mut buffer, mut piece) = (STRIPS.take(), PIECE.take());
    // As few blocks as can be, and as even.
    let height = rows.div_ceil(rows.div_ceil(ROW_BLOCK)).next_multiple_of(tile_rows(level));
    for top in (0..rows).step_by(height) {
        let block = top..(top + height).min(rows);
        for start in (0..k).step_by(DEPTH) {
            let depth = DEPTH.min(k - start);
            let a = Lhs { data: &a.data[start * a.col_stride..], ..a };
            if strips {
                pack_strips(&mut buffer, &a, block.clone(), depth, tile_rows(level));
            }
            for (panel, column) in (0..n).step_by(WIDTH).enumerate() {
                let columns = column..(column + WIDTH).min(n);
                let b = b.piece(&mut piece, panel, (start, depth), columns.len());
                let left = if strips {
                    Left::Strips(&buffer, block.len())
                } else {
                    Left::Rows(Lhs { data: &a.data[top * a.row_stride..], rows: block.len(), ..a })
                };
                tiles(level, c.part(block.clone(), columns), left, b, ahead, add || start > 0);
            }
        }
    }
    STRIPS.set(buffer);
    PIECE.set(piece);
}

fn pack_strips(buffer: &mut Vec<f32>, a: &Lhs, block: std::ops::Range<usize>, depth: usize, height: usize) {
    buffer.resize(block.len() * depth, 0.0);
    for (strip, first) in buffer.chunks_mut(height * depth).zip(block.clone().step_by(height)) {
        let from = &a.data[first * a.row_stride..];
        // Of a length that the compiler knows, where there is one.
        match height.min(block.end - first) {
            12 => pack_strip::<12>(strip.as_chunks_mut().0.iter_mut(), a, from),
            6 => pack_strip::<6>(strip.as_chunks_mut().0.iter_mut(), a, from),
            rows => {
                for (l, to) in strip.chunks_exact_mut(rows).enumerate() {
                    for (r, to) in to.iter_mut().enumerate() {
                        *to = from[r * a.row_stride + l * a.col_stride];
                    }
                }
            }
        }
    }
}

fn pack_strip<'s, const R: usize>(strip: impl Iterator<Item = &'s mut [f32; R]>, a: &Lhs, from: &[f32]) {
    if a.row_stride == 1 {
        for (to, from) in strip.zip(from.chunks(a.col_stride)) {
            to.copy_from_slice(&from[..R]);
        }
    } else {
        let rows: [&[f32]; R] = std::array::from_fn(|r| &from[r * a.row_stride..]);
        for (l, to) in strip.enumerate() {
            for (to, row) in to.iter_mut().zip(rows) {
                *to = row[l * a.col_stride];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, assert_same_bits, noise};
    use proptest::prelude::*;

    fn product(level: Level, m: usize, k: usize, n: usize, transposed: bool, add: bool) -> Vec<f32> {
        let (a, w, mut c) = (noise(m * k, 1, 1.0), noise(n * k, 2, 1.0), noise(m * n, 3, 1.0));
        let mut b = Panels::default();
        b.pack_columns(&w, k, n, k);
        let lhs = if transposed { Lhs::columns(&a, m, m) } else { Lhs::rows(&a, m, k) };
        multiply(level, &mut c, n, lhs, &b, add);
        c
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn every_instruction_set_gives_the_same_bits_and_the_right_numbers(
            m in 1usize..40, k in 1usize..70, n in 1usize..100, transposed: bool, add: bool
        ) {
            let scalar = product(Level::SCALAR, m, k, n, transposed, add);
            for level in Level::available() {
                assert_same_bits(&scalar, &product(level, m, k, n, transposed, add));
            }
            let (a, w, c) = (noise(m * k, 1, 1.0), noise(n * k, 2, 1.0), noise(m * n, 3, 1.0));
            let expected: Vec<f64> = (0..m * n).map(|at| {
                let (i, j) = (at / n, at % n);
                let sum: f64 = (0..k).map(|l| {
                    f64::from(if transposed { a[l * m + i] } else { a[i * k + l] }) * f64::from(w[j * k + l])
                }).sum();
                sum + if add { f64::from(c[at]) } else { 0.0 }
            }).collect();
            assert_close(&scalar, &expected, 1e-4);
        }

        #[test]
        fn a_row_has_the_same_bits_in_any_batch(m in 1usize..130, k in 1usize..50, n in 1usize..50) {
            let (a, w) = (noise(m * k, 1, 1.0), noise(n * k, 2, 1.0));
            let mut b = Panels::default();
            b.pack_columns(&w, k, n, k);
            let level = Level::detect();
            let mut all = vec![0.0; m * n];
            multiply(level, &mut all, n, Lhs::rows(&a, m, k), &b, false);
            for i in 0..m {
                let mut alone = vec![0.0; n];
                multiply(level, &mut alone, n, Lhs::rows(&a[i * k..], 1, k), &b, false);
                assert_same_bits(&alone, &all[i * n..][..n]);
            }
        }
    }

    #[test]
    fn packing_rows_or_columns_gives_the_same_panels() {
        let (k, n) = (5, 37);
        let b = noise(k * n, 1, 1.0);
        let transposed: Vec<f32> = (0..n * k).map(|at| b[(at % k) * n + at / k]).collect();
        let (mut rows, mut columns) = (Panels::default(), Panels::default());
        rows.pack_rows(&b, k, n, n);
        columns.pack_columns(&transposed, k, n, k);
        assert_same_bits(rows.data(), columns.data());
    }
}
