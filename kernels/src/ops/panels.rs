//! The matrix product of every operation: C = A · B or C += A · B, with B cut into panels of 32 columns.
//!
//! An element of C is **one chain of fused multiply-adds over k in increasing order**, from 0 or from C's old value. The
//! lanes of a register are different columns, and a chain that is cut into blocks of k goes on where it stopped, so an
//! element's bits do not depend on the number of rows, on blocks and tiles, on the width of the registers, or on the
//! thread that computes it.
//!
//! Blocks are those of Goto and van de Geijn 2008 (Anatomy of High-Performance Matrix Multiplication, ACM TOMS 34): a piece
//! of a panel stays in the first-level cache while a block of A, in the second level, passes by.

use super::tiles::{Ahead, Left, Out, Soon, tile_rows, tiles};
use crate::crew;
use crate::memory::Lines;
use crate::simd::{Level, vectorised};
use std::cell::RefCell;
use std::ops::Range;

/// Columns of a panel: two AVX-512 registers, four AVX2 ones.
pub const WIDTH: usize = 32;

/// Most rows of A that stay in the second-level cache while the panels pass by: 200 KiB.
const ROW_BLOCK: usize = 264;

/// Rows of a panel that stay in the first-level cache while rows of A pass by: 24 KiB.
const DEPTH: usize = 192;

/// Rows of A for which it pays to read the panels: four tiles.
const LOW: usize = 48;

/// Columns that are packed together where B is not: what lies side by side is read at once.
const GROUP: usize = 8 * WIDTH;

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

    /// From an element on.
    pub(crate) fn from(self, row: usize, column: usize) -> Self {
        let data = self.data.get(row * self.row_stride + column * self.col_stride..).unwrap_or_default();
        Self { data, rows: self.rows - row, ..self }
    }

    fn soon(self, rows: Range<usize>, depth: Range<usize>) -> Soon {
        let from = self.from(rows.start, depth.start);
        match self.col_stride {
            1 => Soon::new(from.data, rows.len(), self.row_stride, depth.len()),
            _ => Soon::new(from.data, depth.len(), self.col_stride, rows.len()),
        }
    }
}

/// A right operand (k, n) in panels: `[n / 32][k][32]`, the last one filled up with zeros.
#[derive(Clone, Debug, Default)]
pub struct Panels {
    data: Lines,
    k: usize,
    n: usize,
}

impl Panels {
    /// Packs B (k, n) whose rows are `stride` apart.
    pub fn pack_rows(&mut self, b: &[f32], k: usize, n: usize, stride: usize) {
        self.resize(k, n);
        for (panels, start) in self.data.chunks_mut((k * GROUP).max(1)).zip((0..n).step_by(GROUP)) {
            pack_group(panels, &b[start..], stride, GROUP.min(n - start), k);
        }
    }

    /// Packs the transpose of W (n, k) whose rows are `stride` apart: `B[l][j] = W[j][l]`.
    pub fn pack_columns(&mut self, level: Level, w: &[f32], k: usize, n: usize, stride: usize) {
        self.resize(k, n);
        for (panel, start) in self.data.chunks_exact_mut((k * WIDTH).max(1)).zip((0..n).step_by(WIDTH)) {
            pack_panel(level, panel, &w[start * stride..], stride, WIDTH.min(n - start));
        }
    }

    fn resize(&mut self, k: usize, n: usize) {
        (self.k, self.n) = (k, n);
        self.data.resize(n.div_ceil(WIDTH) * k * WIDTH);
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
    /// Its rows, packed as they are met.
    Rows(Plain<'a>),
    /// Its columns, packed as they are met.
    Columns(Plain<'a>),
}

/// A matrix as it lies in memory.
#[derive(Clone, Copy)]
pub(crate) struct Plain<'a> {
    pub(super) data: &'a [f32],
    pub(super) stride: usize,
}

impl<'a> Plain<'a> {
    /// Rows that lie `stride` apart.
    pub(crate) fn new(data: &'a [f32], stride: usize) -> Self {
        Self { data, stride }
    }

    pub(super) fn from(self, row: usize, column: usize) -> Self {
        Self { data: self.data.get(row * self.stride + column..).unwrap_or_default(), ..self }
    }

    pub(super) fn holds(self, rows: usize, columns: usize) -> bool {
        self.data.len() >= (rows - 1) * self.stride + columns
    }
}

impl<'a> Right<'a> {
    fn holds(self, k: usize, n: usize) -> bool {
        match self {
            Self::Panels(data, stride) => data.len() >= (n.div_ceil(WIDTH) - 1) * stride + k * WIDTH,
            Self::Rows(rows) => rows.holds(k, n),
            Self::Columns(columns) => columns.holds(n, k),
        }
    }

    fn skip(self, panels: usize) -> Self {
        match self {
            Self::Panels(data, stride) => Self::Panels(data.get(panels * stride..).unwrap_or_default(), stride),
            Self::Rows(rows) => Self::Rows(rows.from(0, panels * WIDTH)),
            Self::Columns(columns) => Self::Columns(columns.from(panels * WIDTH, 0)),
        }
    }

    /// Columns that are made ready together.
    fn group(self) -> usize {
        match self {
            Self::Rows(..) => GROUP,
            Self::Panels(..) | Self::Columns(..) => WIDTH,
        }
    }

    /// Some rows of the columns of a group, in panels; what is not packed goes through `buffer`.
    fn panels<'b>(
        self,
        level: Level,
        buffer: &'b mut Lines,
        rows: &Range<usize>,
        columns: &Range<usize>,
    ) -> impl Iterator<Item = &'b [f32]>
    where
        'a: 'b,
    {
        let len = rows.len() * WIDTH;
        let all = columns.len().div_ceil(WIDTH) * len;
        match self {
            Self::Panels(data, stride) => {
                return data[columns.start / WIDTH * stride + rows.start * WIDTH..][..all].chunks_exact(len);
            }
            Self::Rows(plain) => {
                buffer.resize(all);
                let Plain { data, stride } = plain.from(rows.start, columns.start);
                pack_group(&mut buffer[..all], data, stride, columns.len(), rows.len());
            }
            Self::Columns(plain) => {
                buffer.resize(all);
                let Plain { data, stride } = plain.from(columns.start, rows.start);
                pack_panel(level, &mut buffer[..all], data, stride, columns.len());
            }
        }
        buffer[..all].chunks_exact(len)
    }

    fn soon(self, rows: &Range<usize>, columns: &Range<usize>) -> Soon {
        match self {
            Self::Panels(data, stride) => {
                let data = data.get(columns.start / WIDTH * stride + rows.start * WIDTH..).unwrap_or_default();
                Soon::new(data, 1, 0, rows.len() * WIDTH)
            }
            Self::Rows(plain) => {
                Soon::new(plain.from(rows.start, columns.start).data, rows.len(), plain.stride, columns.len())
            }
            Self::Columns(plain) => {
                Soon::new(plain.from(columns.start, rows.start).data, columns.len(), plain.stride, rows.len())
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
    let cut = match b {
        Right::Panels(..) => Cut::Both,
        Right::Rows(..) => Cut::Rows,
        Right::Columns(..) => Cut::Columns,
    };
    in_pieces(c, k, cut, |top, first, c| blocks(level, c, a.from(top, 0), b.skip(first), k, add));
}

/// How C is cut into pieces, each of which copies its rows of A and packs its columns of B, unless they are.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Cut {
    /// Both ways: copying a number of A costs about as much as reading five of B.
    Both,
    /// Both ways, where it costs about as much on either side.
    Even,
    Rows,
    Columns,
}

/// Cuts C for the crew and gives each piece with its first row and panel; `k` says how much work there is.
pub(crate) fn in_pieces(c: Out, k: usize, cut: Cut, work: impl Fn(usize, usize, Out) + Sync) {
    let (rows, columns) = (c.rows(), c.columns());
    // Few rows cost what it takes to read the panels.
    let pieces = crew::pieces(rows.max(8) * k * columns);
    if pieces < 2 {
        return work(0, 0, c);
    }
    let pieces = match rows {
        ..=LOW => pieces,
        _ if matches!(cut, Cut::Both) => pieces.div_ceil(2).max(2),
        _ => pieces.div_ceil(4).max(2),
    };
    let beside = |price: usize| (pieces as f64 * columns as f64 / (price * rows) as f64).sqrt();
    let beside = match cut {
        Cut::Both => beside(5) as usize,
        Cut::Even => beside(1).round() as usize,
        Cut::Rows => 1,
        Cut::Columns => pieces,
    };
    let below = (pieces / beside.clamp(1, pieces)).min(rows.div_ceil(LOW));
    let (height, width) = (rows.div_ceil(below), columns.div_ceil(pieces / below).next_multiple_of(WIDTH));
    let height = if below > 1 { height.next_multiple_of(LOW / 4) } else { height };
    let parts = c.cut_rows(height).enumerate().flat_map(|(row, c)| {
        c.cut(width).enumerate().map(move |(column, c)| (row * height, column * width / WIDTH, c))
    });
    crew::each(parts, |(top, first, c)| work(top, first, c));
}

thread_local! {
    /// A block of A in strips of as many rows as a tile has: `[rows / R][k][R]`.
    static STRIPS: RefCell<Lines> = const { RefCell::new(Lines::new()) };
    /// Pieces of some panels.
    static PIECES: RefCell<Lines> = const { RefCell::new(Lines::new()) };
}

fn blocks(level: Level, mut c: Out, a: Lhs, b: Right, k: usize, add: bool) {
    let (rows, n) = (c.rows(), c.columns());
    if k == 0 {
        if !add {
            (0..rows).for_each(|i| c.row(i).fill(0.0));
        }
        return;
    }
    // Copying A pays where it is read often, the sooner if its neighbours in k are far apart.
    let strips = rows > 1 && n > WIDTH * if a.col_stride == 1 { 3 } else { 1 };
    // As few blocks as can be, and as even.
    let height = rows.div_ceil(rows.div_ceil(ROW_BLOCK)).next_multiple_of(tile_rows(level));
    let block = |top: usize| top..(top + height).min(rows);
    // Pieces of k as even as can be, the number of them the nearest.
    let deep = k.div_ceil(((k + DEPTH / 2) / DEPTH).max(1));
    let piece = |start: usize| start..(start + deep).min(k);
    let group = |first: usize| first..(first + b.group()).min(n);
    let (mut left_buffer, mut right_buffer) = (STRIPS.take(), PIECES.take());
    let walk = (0..rows).step_by(height).flat_map(|top| (0..k).step_by(deep).map(move |start| (top, start)));
    let mut walk = walk.peekable();
    while let Some((top, start)) = walk.next() {
        let (rows, depth, next) = (block(top), piece(start), walk.peek().copied());
        if strips {
            pack_strips(level, &mut left_buffer, &a, &rows, &depth, tile_rows(level));
        }
        let mut besides = match next {
            Some((top, start)) if strips => a.soon(block(top), piece(start)),
            _ => Soon::NOTHING,
        };
        for first in (0..n).step_by(b.group()) {
            let columns = group(first);
            let panels = b.panels(level, &mut right_buffer, &depth, &columns);
            let soon = match next {
                _ if columns.end < n => b.soon(&depth, &group(columns.end)),
                Some((_, start)) => b.soon(&piece(start), &group(0)),
                None => Soon::NOTHING,
            };
            let count = rows.len().div_ceil(tile_rows(level)) * columns.len().div_ceil(WIDTH);
            let mut ahead = Ahead::new([soon, besides], count, depth.len());
            for (panel, column) in panels.zip(columns.clone().step_by(WIDTH)) {
                let left = match strips {
                    true => Left::Strips(&left_buffer, rows.len()),
                    false => Left::Rows(Lhs { rows: rows.len(), ..a.from(top, start) }),
                };
                let c = c.part(rows.clone(), column..(column + WIDTH).min(columns.end));
                tiles(level, c, left, panel, &mut ahead, add || start > 0);
            }
            besides = ahead.besides();
        }
    }
    STRIPS.set(left_buffer);
    PIECES.set(right_buffer);
}

vectorised! {
    fn pack_strips(buffer: &mut Lines, a: &Lhs, rows: &Range<usize>, depth: &Range<usize>, height: usize) {
        let len = rows.len() * depth.len();
        buffer.resize(len);
        for (strip, first) in buffer[..len].chunks_mut(height * depth.len()).zip(rows.clone().step_by(height)) {
            let from = a.from(first, depth.start).data;
            // Of a height that the compiler knows, where there is one.
            match height.min(rows.end - first) {
                12 => pack_strip::<12>(strip, a, from),
                6 => pack_strip::<6>(strip, a, from),
                rows => pack_any(strip, a, from, rows),
            }
        }
    }
}

/// Panels of columns that lie side by side in each of so many rows, `stride` apart; the last one is filled up with zeros.
fn pack_group(panels: &mut [f32], from: &[f32], stride: usize, columns: usize, rows: usize) {
    let cells = panels.as_chunks_mut::<WIDTH>().0;
    for l in 0..rows {
        let (whole, rest) = from[l * stride..][..columns].as_chunks::<WIDTH>();
        let mut to = cells[l..].iter_mut().step_by(rows);
        whole.iter().zip(&mut to).for_each(|(from, to)| *to = *from);
        if let Some(to) = to.next().filter(|_| !rest.is_empty()) {
            to[..rest.len()].copy_from_slice(rest);
            to[rest.len()..].fill(0.0);
        }
    }
}

vectorised! {
    /// A panel of which each column lies in a row of its own, `stride` apart; those that there are not become zeros.
    fn pack_panel(panel: &mut [f32], from: &[f32], stride: usize, columns: usize) {
        if columns == WIDTH {
            return pack_strip::<WIDTH>(panel, &Lhs::rows(from, WIDTH, stride), from);
        }
        for (l, to) in panel.chunks_exact_mut(WIDTH).enumerate() {
            for (j, to) in to.iter_mut().enumerate() {
                *to = if j < columns { from[j * stride + l] } else { 0.0 };
            }
        }
    }
}

#[inline(always)]
fn pack_strip<const R: usize>(strip: &mut [f32], a: &Lhs, from: &[f32]) {
    let strip = strip.as_chunks_mut::<R>().0;
    if a.col_stride > 1 && a.row_stride == 1 {
        for (to, from) in strip.iter_mut().zip(from.chunks(a.col_stride)) {
            to.copy_from_slice(&from[..R]);
        }
        return;
    }
    // Squares of four by four, along four rows at a time.
    let whole = if a.col_stride == 1 { strip.len() / 4 * 4 } else { 0 };
    let squares = strip[..whole].as_chunks_mut::<4>().0;
    for r in (0..R / 4 * 4).step_by(4) {
        let [a, b, c, d] = std::array::from_fn(|i| from[(r + i) * a.row_stride..][..whole].as_chunks::<4>().0);
        for ((((to, a), b), c), d) in squares.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            for (to, column) in to.iter_mut().zip(turned([*a, *b, *c, *d])) {
                to[r..r + 4].copy_from_slice(&column);
            }
        }
    }
    for r in 0..R {
        let first = if r < R / 4 * 4 { whole } else { 0 };
        let row = &from[r * a.row_stride..];
        for (l, to) in strip.iter_mut().enumerate().skip(first) {
            to[r] = row[l * a.col_stride];
        }
    }
}

/// The transpose. The compiler does not find the four shuffles by itself.
#[inline(always)]
pub(super) fn turned(square: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__m128, _mm_movehl_ps, _mm_movelh_ps, _mm_unpackhi_ps, _mm_unpacklo_ps};
        let [a, b, c, d]: [__m128; 4] = square.map(bytemuck::cast);
        #[expect(unsafe_code, reason = "instructions that every processor of this kind has")]
        // SAFETY: SSE is part of x86-64.
        let columns = unsafe {
            let (ab, cd) = (_mm_unpacklo_ps(a, b), _mm_unpacklo_ps(c, d));
            let (ab_high, cd_high) = (_mm_unpackhi_ps(a, b), _mm_unpackhi_ps(c, d));
            [
                _mm_movelh_ps(ab, cd),
                _mm_movehl_ps(cd, ab),
                _mm_movelh_ps(ab_high, cd_high),
                _mm_movehl_ps(cd_high, ab_high),
            ]
        };
        columns.map(bytemuck::cast)
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::array::from_fn(|column| square.map(|row| row[column]))
}

#[inline(always)]
fn pack_any(strip: &mut [f32], a: &Lhs, from: &[f32], rows: usize) {
    for (l, to) in strip.chunks_exact_mut(rows).enumerate() {
        for (r, to) in to.iter_mut().enumerate() {
            *to = from[r * a.row_stride + l * a.col_stride];
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
        b.pack_columns(Level::detect(), &w, k, n, k);
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
            b.pack_columns(Level::detect(), &w, k, n, k);
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
        columns.pack_columns(Level::detect(), &transposed, k, n, k);
        assert_same_bits(rows.data(), columns.data());
    }
}
