//! The innermost loops of a matrix product: some rows of A against one panel of B, for each instruction set.

use super::panels::{Lhs, WIDTH};
use crate::simd::{Kind, Level};
use std::marker::PhantomData;
use std::ops::Range;

/// A result (rows, columns) whose rows lie `stride` apart, and that can be cut into columns for several threads.
#[derive(Debug)]
pub(crate) struct Out<'a> {
    start: *mut f32,
    rows: usize,
    columns: usize,
    stride: usize,
    life: PhantomData<&'a mut [f32]>,
}

#[expect(unsafe_code, reason = "parts of a matrix whose elements no other part has")]
// SAFETY: it is the only way to its elements, as `&mut [f32]` is.
unsafe impl Send for Out<'_> {}

#[expect(unsafe_code, reason = "pointers whose bounds were checked once for the whole matrix")]
impl<'a> Out<'a> {
    pub(crate) fn new(data: &'a mut [f32], rows: usize, columns: usize, stride: usize) -> Self {
        assert!(rows == 0 || data.len() >= (rows - 1) * stride + columns, "C is too small");
        assert!(rows < 2 || columns <= stride, "rows of C overlap");
        Self { start: data.as_mut_ptr(), rows, columns, stride, life: PhantomData }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Where element (0, 0) is; rows lie [`Out::stride`] apart.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    pub(super) fn start(&mut self) -> *mut f32 {
        self.start
    }

    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    pub(crate) fn row(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        // SAFETY: `new` has checked that every row lies inside the slice.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.stride), self.columns) }
    }

    pub(crate) fn part(&mut self, rows: Range<usize>, columns: Range<usize>) -> Out<'_> {
        assert!(rows.start <= rows.end && rows.end <= self.rows, "rows {rows:?} of {}", self.rows);
        assert!(columns.start <= columns.end && columns.end <= self.columns, "columns {columns:?} of {}", self.columns);
        let start = self.start.wrapping_add(rows.start * self.stride + columns.start);
        Out { start, rows: rows.len(), columns: columns.len(), stride: self.stride, life: PhantomData }
    }

    /// Parts of `height` rows, the last one of what is left.
    pub(crate) fn cut_rows(self, height: usize) -> impl Iterator<Item = Out<'a>> {
        (0..self.rows).step_by(height).map(move |first| Out {
            start: self.start.wrapping_add(first * self.stride),
            rows: height.min(self.rows - first),
            columns: self.columns,
            stride: self.stride,
            life: PhantomData,
        })
    }

    /// Parts of `width` columns, the last one of what is left.
    pub(crate) fn cut(self, width: usize) -> impl Iterator<Item = Out<'a>> {
        (0..self.columns).step_by(width).map(move |first| Out {
            start: self.start.wrapping_add(first),
            rows: self.rows,
            columns: width.min(self.columns - first),
            stride: self.stride,
            life: PhantomData,
        })
    }
}

/// Rows that a tile holds in registers.
pub(crate) fn tile_rows(level: Level) -> usize {
    match level.0 {
        Kind::Scalar => 12,
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 => 6,
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 => 12,
        #[cfg(target_arch = "aarch64")]
        Kind::Neon => 6,
    }
}

/// The rows of a left operand that tiles take.
#[derive(Clone, Copy)]
pub(crate) enum Left<'a> {
    /// As they are.
    Rows(Lhs<'a>),
    /// So many rows, copied in strips of as many as a tile has: `[rows / R][k][R]`.
    Strips(&'a [f32], usize),
}

impl<'a> Left<'a> {
    fn rows(self) -> usize {
        match self {
            Self::Rows(a) => a.rows,
            Self::Strips(_, rows) => rows,
        }
    }

    /// Whether `k` elements of every row are there.
    fn holds(self, k: usize) -> bool {
        match self {
            Self::Rows(a) => a.data.len() > (a.rows - 1) * a.row_stride + (k - 1) * a.col_stride,
            Self::Strips(data, rows) => data.len() >= rows * k,
        }
    }

    /// The rows of one tile, the `first` of them a multiple of a tile's.
    fn tile(self, first: usize, rows: usize, k: usize) -> Lhs<'a> {
        match self {
            Self::Rows(a) => Lhs { data: &a.data[first * a.row_stride..], rows, ..a },
            Self::Strips(data, _) => Lhs { data: &data[first * k..], rows, row_stride: 1, col_stride: rows },
        }
    }
}

/// Numbers that are wanted soon: `lines` cache lines in each of `rows` rows that lie `stride` apart.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "for instructions that ask"))]
pub(crate) struct Soon {
    row: *const f32,
    rows: usize,
    stride: usize,
    lines: usize,
    line: usize,
}

impl Soon {
    /// Nothing.
    pub(crate) const NOTHING: Self = Self { row: std::ptr::null(), rows: 0, stride: 0, lines: 0, line: 0 };

    /// `len` numbers in each of so many rows, the first of them at the start of `data`.
    pub(crate) fn new(data: &[f32], rows: usize, stride: usize, len: usize) -> Self {
        let lines = len.div_ceil(LINE);
        Self { row: data.as_ptr(), rows: if lines > 0 { rows } else { 0 }, stride, lines, line: 0 }
    }

    /// The next of a row's lines, `most` at most: the first of them and how many; none when nothing is left.
    #[cfg(target_arch = "x86_64")]
    fn next(&mut self, most: usize) -> Option<(*const f32, usize)> {
        (self.rows > 0).then(|| {
            let (at, lines) = (self.row.wrapping_add(self.line * LINE), most.min(self.lines - self.line));
            self.line += lines;
            if self.line == self.lines {
                (self.line, self.rows, self.row) = (0, self.rows - 1, self.row.wrapping_add(self.stride));
            }
            (at, lines)
        })
    }
}

/// What tiles ask for while they compute, so that it is on its way when their successors copy or read it: the first of
/// it first, and no faster than need be, since the loads of a tile would have to wait behind it.
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "for instructions that ask"))]
pub(crate) struct Ahead {
    soon: [Soon; 2],
    /// Lines that are asked for each time.
    pace: usize,
}

impl Ahead {
    /// Rounds of k between two times.
    const ROUNDS: usize = 8;

    /// The first is asked for in the course of so many tiles of `k` rounds.
    pub(crate) fn new(soon: [Soon; 2], tiles: usize, k: usize) -> Self {
        let times = tiles * k.div_ceil(Self::ROUNDS);
        Self { soon, pace: (soon[0].rows * soon[0].lines).div_ceil(times.max(1)).max(1) }
    }

    /// What is wanted besides.
    pub(crate) fn besides(&self) -> Soon {
        self.soon[1]
    }
}

/// Numbers of a cache line.
const LINE: usize = 16;

/// C (rows of `a`, ≤ 32) = A · B, or += with `add`; `b` is (k, 32).
#[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "for instructions that ask"))]
pub(crate) fn tiles(level: Level, mut c: Out, a: Left, b: &[f32], ahead: &mut Ahead, add: bool) {
    let k = b.len() / WIDTH;
    if c.rows == 0 || k == 0 {
        return;
    }
    assert!(c.columns <= WIDTH && a.rows() == c.rows, "a tile of {} rows and {} columns", c.rows, c.columns);
    assert!(a.holds(k), "A is too small");
    let height = tile_rows(level);
    for first in (0..c.rows).step_by(height) {
        let rows = height.min(c.rows - first);
        let tile = Tile { a: a.tile(first, rows, k), k, b, stride: c.stride, columns: c.columns, add };
        match level.0 {
            Kind::Scalar => scalar(&mut c, first, &tile),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => x86::avx2(&c, first, &tile, ahead),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => x86::avx512(&c, first, &tile, ahead),
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => arm::neon(&c, first, &tile),
        }
    }
}

fn scalar(c: &mut Out, first: usize, tile: &Tile) {
    for i in 0..tile.a.rows {
        let c = c.row(first + i);
        let mut sums = [0.0f32; WIDTH];
        if tile.add {
            sums[..c.len()].copy_from_slice(c);
        }
        for (l, b) in tile.b.chunks_exact(WIDTH).enumerate() {
            let a = tile.a.data[i * tile.a.row_stride + l * tile.a.col_stride];
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum = a.mul_add(*b, *sum);
            }
        }
        c.copy_from_slice(&sums[..c.len()]);
    }
}

/// One tile's operands, whose bounds [`tiles`] has checked.
#[cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    expect(dead_code, reason = "for vector instructions")
)]
struct Tile<'a> {
    a: Lhs<'a>,
    k: usize,
    b: &'a [f32],
    stride: usize,
    columns: usize,
    add: bool,
}

/// Calls `kernel` for so many rows: one of the numbers in the list, or 1.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! with_rows {
    ($rows:expr, [$($number:literal)*], $kernel:ident, $operands:tt) => {
        match $rows {
            $($number => $kernel::<$number> $operands,)*
            _ => $kernel::<1> $operands,
        }
    };
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) use with_rows;

#[cfg(target_arch = "x86_64")]
#[expect(
    unsafe_code,
    reason = "vector instructions, and pointers whose bounds were checked once for the whole product"
)]
mod x86 {
    use super::{Ahead, LINE, Out, Tile, WIDTH};
    use std::arch::x86_64::*;

    impl Ahead {
        #[inline(always)]
        fn ask(&mut self) {
            let mut wanted = self.pace;
            while wanted > 0 {
                let Some((at, lines)) = self.soon.iter_mut().find_map(|soon| soon.next(wanted)) else { return };
                for line in 0..lines {
                    // SAFETY: what is asked for need not be there.
                    unsafe { _mm_prefetch::<_MM_HINT_T1>(at.wrapping_add(line * LINE).cast()) };
                }
                wanted -= lines;
            }
        }
    }

    /// 12 rows at most: 24 sums, 2 columns and a broadcast fit the 32 registers.
    pub(super) fn avx512(c: &Out, first: usize, tile: &Tile, ahead: &mut Ahead) {
        // SAFETY: a `Level` of this kind exists only where these features were detected; `tiles` has checked that the
        // tile's rows of A and C and k rows of the panel lie inside their slices.
        unsafe {
            let (a, c) = (tile.a.data.as_ptr(), c.start.add(first * tile.stride));
            with_rows!(tile.a.rows, [12 11 10 9 8 7 6 5 4 3 2], pick512, (tile, a, c, ahead))
        }
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn pick512<const R: usize>(tile: &Tile, a: *const f32, c: *mut f32, ahead: &mut Ahead) {
        // SAFETY: see the caller.
        unsafe {
            match tile.columns {
                ..=16 => half512::<R>(tile, a, c),
                _ if tile.a.row_stride == 1 && tile.a.col_stride == R => tile512::<R, true>(tile, a, c, ahead),
                _ => tile512::<R, false>(tile, a, c, ahead),
            }
        }
    }

    /// With a strip of A the distances are constants, so that no address waits for another one.
    #[target_feature(enable = "avx512f")]
    unsafe fn tile512<const R: usize, const STRIP: bool>(tile: &Tile, a: *const f32, c: *mut f32, ahead: &mut Ahead) {
        // SAFETY: see the caller; the masks keep loads and stores of C inside `columns`.
        unsafe {
            let (row_stride, col_stride) = if STRIP { (1, R) } else { (tile.a.row_stride, tile.a.col_stride) };
            let right = ((1u32 << (tile.columns - 16)) - 1) as u16;
            let mut sums = [[_mm512_setzero_ps(); 2]; R];
            if tile.add {
                for (r, sum) in sums.iter_mut().enumerate() {
                    let c = c.add(r * tile.stride);
                    *sum = [_mm512_loadu_ps(c), _mm512_maskz_loadu_ps(right, c.add(16))];
                }
            }
            let mut b = tile.b.as_ptr();
            let mut a = a;
            // What will be written comes while the sums are made: here, or for the tile below where it is added to.
            let first = if tile.add { 2 * R } else { 0 };
            let (mut lines, each) = (first..first + 2 * R, (2 * R * Ahead::ROUNDS).div_ceil(tile.k));
            for start in (0..tile.k).step_by(Ahead::ROUNDS) {
                ahead.ask();
                for line in lines.by_ref().take(each) {
                    let line = c.wrapping_add(line / 2 * tile.stride + line % 2 * LINE);
                    _mm_prefetch::<_MM_HINT_T0>(line.cast());
                }
                for _ in start..(start + Ahead::ROUNDS).min(tile.k) {
                    let (b0, b1) = (_mm512_loadu_ps(b), _mm512_loadu_ps(b.add(16)));
                    for (r, sum) in sums.iter_mut().enumerate() {
                        let x = _mm512_set1_ps(*a.add(r * row_stride));
                        sum[0] = _mm512_fmadd_ps(x, b0, sum[0]);
                        sum[1] = _mm512_fmadd_ps(x, b1, sum[1]);
                    }
                    a = a.wrapping_add(col_stride);
                    b = b.add(WIDTH);
                }
            }
            for (r, sum) in sums.iter().enumerate() {
                let c = c.add(r * tile.stride);
                _mm512_storeu_ps(c, sum[0]);
                _mm512_mask_storeu_ps(c.add(16), right, sum[1]);
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn half512<const R: usize>(tile: &Tile, a: *const f32, c: *mut f32) {
        // SAFETY: as `tile512`.
        unsafe {
            let mask = ((1u32 << tile.columns) - 1) as u16;
            let mut sums = [_mm512_setzero_ps(); R];
            if tile.add {
                for (r, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm512_maskz_loadu_ps(mask, c.add(r * tile.stride));
                }
            }
            let mut b = tile.b.as_ptr();
            let mut a = a;
            for _ in 0..tile.k {
                let b0 = _mm512_loadu_ps(b);
                for (r, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm512_fmadd_ps(_mm512_set1_ps(*a.add(r * tile.a.row_stride)), b0, *sum);
                }
                a = a.wrapping_add(tile.a.col_stride);
                b = b.add(WIDTH);
            }
            for (r, sum) in sums.iter().enumerate() {
                _mm512_mask_storeu_ps(c.add(r * tile.stride), mask, *sum);
            }
        }
    }

    /// 6 rows at most, in two halves of 16 columns.
    pub(super) fn avx2(c: &Out, first: usize, tile: &Tile, ahead: &mut Ahead) {
        for half in 0..tile.columns.div_ceil(16) {
            let columns = (tile.columns - half * 16).min(16);
            // SAFETY: as in `avx512`.
            unsafe {
                let (a, c) = (tile.a.data.as_ptr(), c.start.add(first * tile.stride + half * LINE));
                with_rows!(tile.a.rows, [6 5 4 3 2], tile256, (tile, a, c, (half, columns), ahead))
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn tile256<const R: usize>(
        tile: &Tile,
        a: *const f32,
        c: *mut f32,
        (half, columns): (usize, usize),
        ahead: &mut Ahead,
    ) {
        // SAFETY: see the caller; a narrow tile goes through a buffer of 16 columns.
        unsafe {
            let mut sums = [[_mm256_setzero_ps(); 2]; R];
            let mut buffer = [0.0f32; 16];
            if tile.add {
                for (r, sum) in sums.iter_mut().enumerate() {
                    std::ptr::copy_nonoverlapping(c.add(r * tile.stride), buffer.as_mut_ptr(), columns);
                    *sum = [_mm256_loadu_ps(buffer.as_ptr()), _mm256_loadu_ps(buffer.as_ptr().add(8))];
                }
            }
            let (mut a, mut b) = (a, tile.b.as_ptr().add(half * LINE));
            for start in (0..tile.k).step_by(Ahead::ROUNDS) {
                ahead.ask();
                for _ in start..(start + Ahead::ROUNDS).min(tile.k) {
                    let (b0, b1) = (_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8)));
                    for (r, sum) in sums.iter_mut().enumerate() {
                        let x = _mm256_set1_ps(*a.add(r * tile.a.row_stride));
                        sum[0] = _mm256_fmadd_ps(x, b0, sum[0]);
                        sum[1] = _mm256_fmadd_ps(x, b1, sum[1]);
                    }
                    a = a.wrapping_add(tile.a.col_stride);
                    b = b.wrapping_add(WIDTH);
                }
            }
            for (r, sum) in sums.iter().enumerate() {
                let c = c.add(r * tile.stride);
                if columns == 16 {
                    _mm256_storeu_ps(c, sum[0]);
                    _mm256_storeu_ps(c.add(8), sum[1]);
                } else {
                    _mm256_storeu_ps(buffer.as_mut_ptr(), sum[0]);
                    _mm256_storeu_ps(buffer.as_mut_ptr().add(8), sum[1]);
                    std::ptr::copy_nonoverlapping(buffer.as_ptr(), c, columns);
                }
            }
        }
    }
}

#[cfg(target_arch = "aarch64")]
#[expect(
    unsafe_code,
    reason = "vector instructions, and pointers whose bounds were checked once for the whole product"
)]
mod arm {
    use super::{LINE, Out, Tile, WIDTH};
    use std::arch::aarch64::{float32x4_t, vdupq_n_f32, vfmaq_f32, vld1q_f32, vst1q_f32};

    /// Columns of a register, and registers of half a panel.
    const LANES: usize = 4;
    const REGISTERS: usize = LINE / LANES;

    /// 6 rows at most, in two halves of 16 columns: 24 sums, 4 columns and a broadcast fit the 32 registers.
    pub(super) fn neon(c: &Out, first: usize, tile: &Tile) {
        for half in 0..tile.columns.div_ceil(LINE) {
            let columns = (tile.columns - half * LINE).min(LINE);
            // SAFETY: a `Level` of this kind exists only where the feature was detected; `tiles` has checked that the tile's
            // rows of A and C and k rows of the panel lie inside their slices.
            unsafe {
                let (a, c) = (tile.a.data.as_ptr(), c.start.add(first * tile.stride + half * LINE));
                with_rows!(tile.a.rows, [6 5 4 3 2], rows, (tile, a, c, half, columns))
            }
        }
    }

    #[target_feature(enable = "neon")]
    unsafe fn rows<const R: usize>(tile: &Tile, a: *const f32, c: *mut f32, half: usize, columns: usize) {
        // SAFETY: see the caller; C goes through a buffer of 16 columns.
        unsafe {
            let mut sums: [[float32x4_t; REGISTERS]; R] = [[vdupq_n_f32(0.0); REGISTERS]; R];
            let mut buffer = [0.0f32; LINE];
            if tile.add {
                for (r, sum) in sums.iter_mut().enumerate() {
                    std::ptr::copy_nonoverlapping(c.add(r * tile.stride), buffer.as_mut_ptr(), columns);
                    *sum = std::array::from_fn(|i| vld1q_f32(buffer.as_ptr().add(i * LANES)));
                }
            }
            let (mut a, mut b) = (a, tile.b.as_ptr().add(half * LINE));
            for _ in 0..tile.k {
                let right: [float32x4_t; REGISTERS] = std::array::from_fn(|i| vld1q_f32(b.add(i * LANES)));
                for (r, sum) in sums.iter_mut().enumerate() {
                    let x = vdupq_n_f32(*a.add(r * tile.a.row_stride));
                    for (sum, right) in sum.iter_mut().zip(right) {
                        *sum = vfmaq_f32(*sum, right, x);
                    }
                }
                a = a.wrapping_add(tile.a.col_stride);
                b = b.wrapping_add(WIDTH);
            }
            for (r, sum) in sums.iter().enumerate() {
                for (i, sum) in sum.iter().enumerate() {
                    vst1q_f32(buffer.as_mut_ptr().add(i * LANES), *sum);
                }
                std::ptr::copy_nonoverlapping(buffer.as_ptr(), c.add(r * tile.stride), columns);
            }
        }
    }
}
