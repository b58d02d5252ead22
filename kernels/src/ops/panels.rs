//! The one inner loop of every matrix product: C = A · B or C += A · B, with B cut into panels of 32 columns.
//!
//! An element of C is **one chain of fused multiply-adds over k in increasing order**, from 0 or from C's old value. The
//! lanes of a register are different columns and k is never split, so an element's bits do not depend on the number of
//! rows, on the tile it falls into, or on the width of the registers.

use crate::simd::{Kind, Level};

/// Columns of a panel: two AVX-512 registers, four AVX2 ones.
pub const WIDTH: usize = 32;

/// Rows that stay in the second-level cache while the panels pass by.
const ROW_BLOCK: usize = 96;

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
    if a.rows == 0 || n == 0 {
        return;
    }
    let panels = n.div_ceil(WIDTH);
    assert!(c.len() >= (a.rows - 1) * stride + n, "C is too small");
    if k == 0 {
        if !add {
            (0..a.rows).for_each(|i| c[i * stride..][..n].fill(0.0));
        }
        return;
    }
    assert!(a.data.len() > (a.rows - 1) * a.row_stride + (k - 1) * a.col_stride, "A is too small");
    assert!(b.len() >= (panels - 1) * panel_stride + k * WIDTH, "B is too small");
    for block in (0..a.rows).step_by(ROW_BLOCK) {
        let rows = ROW_BLOCK.min(a.rows - block);
        for panel in 0..panels {
            let tile = Tile {
                a: &a.data[block * a.row_stride..],
                row_stride: a.row_stride,
                col_stride: a.col_stride,
                k,
                b: &b[panel * panel_stride..][..k * WIDTH],
                stride,
                columns: WIDTH.min(n - panel * WIDTH),
                add,
            };
            let c = &mut c[block * stride + panel * WIDTH..];
            match level.0 {
                Kind::Scalar => tile.scalar(c, rows),
                #[cfg(target_arch = "x86_64")]
                Kind::Avx2 => x86::avx2(&tile, c, rows),
                #[cfg(target_arch = "x86_64")]
                Kind::Avx512 => x86::avx512(&tile, c, rows),
            }
        }
    }
}

/// One panel against some rows; the bounds of every operand have been checked by [`multiply_panels`].
struct Tile<'a> {
    a: &'a [f32],
    row_stride: usize,
    col_stride: usize,
    k: usize,
    b: &'a [f32],
    stride: usize,
    columns: usize,
    add: bool,
}

impl Tile<'_> {
    fn scalar(&self, c: &mut [f32], rows: usize) {
        for i in 0..rows {
            let c = &mut c[i * self.stride..][..self.columns];
            let mut sums = [0.0f32; WIDTH];
            if self.add {
                sums[..self.columns].copy_from_slice(c);
            }
            for (l, b) in self.b.chunks_exact(WIDTH).enumerate() {
                let a = self.a[i * self.row_stride + l * self.col_stride];
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum = a.mul_add(*b, *sum);
                }
            }
            c.copy_from_slice(&sums[..self.columns]);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(
    unsafe_code,
    reason = "vector instructions, and pointers whose bounds were checked once for the whole product"
)]
mod x86 {
    use super::{Tile, WIDTH};
    use std::arch::x86_64::*;

    pub(super) fn avx512(tile: &Tile, c: &mut [f32], rows: usize) {
        let mut i = 0;
        while i < rows {
            // The tile is 12 rows at most: 24 sums, 2 columns and a broadcast fit the 32 registers.
            let left = rows - i;
            let r = if left >= 12 { 12 } else { left };
            // SAFETY: a `Level` of this kind exists only where these features were detected; `multiply_panels` has
            // checked that rows i..i+r of A and C and k rows of the panel lie inside their slices.
            unsafe {
                let c = c.as_mut_ptr().add(i * tile.stride);
                let a = tile.a.as_ptr().add(i * tile.row_stride);
                match r {
                    12 => tile512::<12>(tile, a, c),
                    11 => tile512::<11>(tile, a, c),
                    10 => tile512::<10>(tile, a, c),
                    9 => tile512::<9>(tile, a, c),
                    8 => tile512::<8>(tile, a, c),
                    7 => tile512::<7>(tile, a, c),
                    6 => tile512::<6>(tile, a, c),
                    5 => tile512::<5>(tile, a, c),
                    4 => tile512::<4>(tile, a, c),
                    3 => tile512::<3>(tile, a, c),
                    2 => tile512::<2>(tile, a, c),
                    _ => tile512::<1>(tile, a, c),
                }
            }
            i += r;
        }
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn tile512<const R: usize>(tile: &Tile, a: *const f32, c: *mut f32) {
        // SAFETY: see the caller; the masks keep loads and stores of C inside `columns`.
        unsafe {
            if tile.columns <= 16 {
                return half512::<R>(tile, a, c);
            }
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
            for _ in 0..tile.k {
                let (b0, b1) = (_mm512_loadu_ps(b), _mm512_loadu_ps(b.add(16)));
                for (r, sum) in sums.iter_mut().enumerate() {
                    let x = _mm512_set1_ps(*a.add(r * tile.row_stride));
                    sum[0] = _mm512_fmadd_ps(x, b0, sum[0]);
                    sum[1] = _mm512_fmadd_ps(x, b1, sum[1]);
                }
                a = a.wrapping_add(tile.col_stride);
                b = b.add(WIDTH);
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
                    *sum = _mm512_fmadd_ps(_mm512_set1_ps(*a.add(r * tile.row_stride)), b0, *sum);
                }
                a = a.wrapping_add(tile.col_stride);
                b = b.add(WIDTH);
            }
            for (r, sum) in sums.iter().enumerate() {
                _mm512_mask_storeu_ps(c.add(r * tile.stride), mask, *sum);
            }
        }
    }

    pub(super) fn avx2(tile: &Tile, c: &mut [f32], rows: usize) {
        for half in 0..tile.columns.div_ceil(16) {
            let columns = (tile.columns - half * 16).min(16);
            let mut i = 0;
            while i < rows {
                let r = (rows - i).min(6);
                // SAFETY: as in `avx512`.
                unsafe {
                    let c = c.as_mut_ptr().add(i * tile.stride + half * 16);
                    let a = tile.a.as_ptr().add(i * tile.row_stride);
                    let b = tile.b.as_ptr().add(half * 16);
                    match r {
                        6 => tile256::<6>(tile, a, b, c, columns),
                        5 => tile256::<5>(tile, a, b, c, columns),
                        4 => tile256::<4>(tile, a, b, c, columns),
                        3 => tile256::<3>(tile, a, b, c, columns),
                        2 => tile256::<2>(tile, a, b, c, columns),
                        _ => tile256::<1>(tile, a, b, c, columns),
                    }
                }
                i += r;
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn tile256<const R: usize>(tile: &Tile, a: *const f32, b: *const f32, c: *mut f32, columns: usize) {
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
            let (mut a, mut b) = (a, b);
            for _ in 0..tile.k {
                let (b0, b1) = (_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8)));
                for (r, sum) in sums.iter_mut().enumerate() {
                    let x = _mm256_set1_ps(*a.add(r * tile.row_stride));
                    sum[0] = _mm256_fmadd_ps(x, b0, sum[0]);
                    sum[1] = _mm256_fmadd_ps(x, b1, sum[1]);
                }
                a = a.wrapping_add(tile.col_stride);
                b = b.wrapping_add(WIDTH);
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
