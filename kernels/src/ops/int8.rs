//! A weight in 8 bits, multiplied in integers: both operands as -127 to 127 times a scale that 32 numbers along k share.
//!
//! The format is Q8_0 of GGUF on both sides, as in llama.cpp's product of quantized weights: within a block of 32 the sum is
//! exact in 32-bit integers, and an element of C is one chain over the blocks in increasing order,
//! `c = fma(sum · w_scale, x_scale, c)`. Rounding a row of activations looks at that row alone, so a row's bits depend on
//! neither its batch, the instruction set nor the threads.

use super::panels::{Cut, Lhs, WIDTH, in_pieces};
use super::tiles::Out;
use crate::crew;
use crate::memory::Lines;
#[cfg(target_arch = "x86_64")]
use crate::simd::Kind;
use crate::simd::{Level, vectorised};
use std::cell::RefCell;

/// Numbers along k that share a scale.
const BLOCK: usize = 32;

/// Numbers along k that are multiplied and added at once.
const GROUP: usize = 4;

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
                    tile.multiply(level, c.part(0..rows, column..(column + WIDTH).min(n)));
                }
            }
        });
        ROUNDED.set(rounded);
    }
}

/// Whether a processor that is used up to this level multiplies and adds four numbers at once.
pub(crate) fn has_dots(level: Level) -> bool {
    #[cfg(target_arch = "x86_64")]
    return level.0 == Kind::Avx512 && is_x86_feature_detected!("avx512vnni");
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = level;
        false
    }
}

/// Activations in 8 bits.
#[derive(Default)]
struct Rounded {
    /// (rows, blocks · 32).
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
        self.numbers.resize(a.rows * blocks * BLOCK, 0);
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
    fn multiply(&self, level: Level, mut c: Out) {
        #[cfg(target_arch = "x86_64")]
        match level.0 {
            Kind::Scalar => {}
            Kind::Avx512 if has_dots(level) => return x86::vnni(self, &mut c),
            Kind::Avx2 | Kind::Avx512 => return x86::avx2(self, &mut c),
        }
        let _ = level;
        self.scalar(&mut c);
    }

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

    fn scalar(&self, c: &mut Out) {
        for row in 0..c.rows() {
            let (x, x_scales, _) = self.row(row);
            for (column, c) in c.row(row).iter_mut().enumerate() {
                let mut total = if self.add { *c } else { 0.0 };
                for (block, x_scale) in x_scales.iter().enumerate() {
                    let groups = self.numbers[block * BLOCK * WIDTH..][..BLOCK * WIDTH].chunks_exact(GROUP);
                    let groups = groups.skip(column).step_by(WIDTH);
                    let product = |(w, x): (&i8, &i8)| i32::from(*w) * i32::from(*x);
                    let sum: i32 = groups.flatten().zip(&x[block * BLOCK..]).map(product).sum();
                    total = (sum as f32 * self.scales[block * WIDTH + column]).mul_add(*x_scale, total);
                }
                *c = total;
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(
    unsafe_code,
    reason = "vector instructions, and pointers whose bounds were checked once for the whole product"
)]
mod x86 {
    use super::{BLOCK, DEPTH, GROUP, Tile, WIDTH};
    use crate::ops::tiles::{Out, with_rows};
    use std::arch::x86_64::*;

    /// How far ahead weights are asked for: as many as stay in the first-level cache.
    const AHEAD: usize = DEPTH * BLOCK * WIDTH;

    /// Where some rows of the operands start, and how far apart they lie.
    #[derive(Clone, Copy)]
    struct Rows {
        x: *const i8,
        scales: *const f32,
        offsets: *const i32,
        blocks: usize,
        c: *mut f32,
        stride: usize,
        columns: usize,
    }

    impl Rows {
        /// Checks the bounds of all rows of `c`.
        fn new(tile: &Tile, c: &mut Out) -> Self {
            let (first, last) = (tile.row(0), tile.row(c.rows() - 1));
            assert!(last.0.len() == tile.depth * BLOCK && tile.numbers.len() == tile.depth * BLOCK * WIDTH);
            assert!(tile.scales.len() == tile.depth * WIDTH && (1..=WIDTH).contains(&c.columns()));
            let (x, scales, offsets) = (first.0.as_ptr(), first.1.as_ptr(), first.2.as_ptr());
            Self {
                x,
                scales,
                offsets,
                blocks: tile.rounded.blocks,
                c: c.start(),
                stride: c.stride(),
                columns: c.columns(),
            }
        }

        fn skip(self, rows: usize) -> Self {
            Self {
                x: self.x.wrapping_add(rows * self.blocks * BLOCK),
                scales: self.scales.wrapping_add(rows * self.blocks),
                offsets: self.offsets.wrapping_add(rows * self.blocks),
                c: self.c.wrapping_add(rows * self.stride),
                ..self
            }
        }
    }

    pub(super) fn vnni(tile: &Tile, c: &mut Out) {
        let rows = Rows::new(tile, c);
        for first in (0..c.rows()).step_by(6) {
            let here = rows.skip(first);
            // SAFETY: called where the processor has these instructions; `Rows::new` has checked every row's bounds.
            unsafe { with_rows!((c.rows() - first).min(6), [6 5 4 3 2], vnni_rows, (tile, here)) }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn vnni_rows<const R: usize>(tile: &Tile, rows: Rows) {
        // SAFETY: see the caller; the masks keep loads and stores of C inside `columns`.
        unsafe {
            let mask = (1u64 << rows.columns) - 1;
            let masks = [mask as u16, (mask >> 16) as u16];
            let mut totals = [[_mm512_setzero_ps(); 2]; R];
            if tile.add {
                for (r, total) in totals.iter_mut().enumerate() {
                    let c = rows.c.add(r * rows.stride);
                    *total = [_mm512_maskz_loadu_ps(masks[0], c), _mm512_maskz_loadu_ps(masks[1], c.wrapping_add(16))];
                }
            }
            // The instruction takes unsigned weights: with the highest bit turned they are 128 larger.
            let turn = _mm512_set1_epi8(i8::MIN);
            let (mut w, mut scales) = (tile.numbers.as_ptr(), tile.scales.as_ptr());
            // Kept from the compiler, which would unroll the loop until the registers do not suffice.
            let groups = std::hint::black_box(BLOCK / GROUP);
            for block in 0..tile.depth {
                let mut sums = [[_mm512_setzero_si512(); 2]; R];
                for (r, sum) in sums.iter_mut().enumerate() {
                    *sum = [_mm512_set1_epi32(*rows.offsets.add(r * rows.blocks + block)); 2];
                }
                for group in 0..groups {
                    let next = w.wrapping_add(AHEAD);
                    _mm_prefetch::<_MM_HINT_T1>(next);
                    _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(64));
                    let left = _mm512_xor_si512(_mm512_loadu_si512(w.cast()), turn);
                    let right = _mm512_xor_si512(_mm512_loadu_si512(w.add(64).cast()), turn);
                    for (r, sum) in sums.iter_mut().enumerate() {
                        let x = rows.x.add((r * rows.blocks + block) * BLOCK + group * GROUP).cast::<i32>();
                        let x = _mm512_set1_epi32(x.read_unaligned());
                        sum[0] = _mm512_dpbusd_epi32(sum[0], left, x);
                        sum[1] = _mm512_dpbusd_epi32(sum[1], right, x);
                    }
                    w = w.add(WIDTH * GROUP);
                }
                let next = scales.wrapping_add(AHEAD / BLOCK).cast();
                _mm_prefetch::<_MM_HINT_T1>(next);
                _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(64));
                let scale = [_mm512_loadu_ps(scales), _mm512_loadu_ps(scales.add(16))];
                for (r, (total, sum)) in totals.iter_mut().zip(sums).enumerate() {
                    let x_scale = _mm512_set1_ps(*rows.scales.add(r * rows.blocks + block));
                    for half in 0..2 {
                        let product = _mm512_mul_ps(_mm512_cvtepi32_ps(sum[half]), scale[half]);
                        total[half] = _mm512_fmadd_ps(product, x_scale, total[half]);
                    }
                }
                scales = scales.add(WIDTH);
            }
            for (r, total) in totals.iter().enumerate() {
                let c = rows.c.add(r * rows.stride);
                _mm512_mask_storeu_ps(c, masks[0], total[0]);
                _mm512_mask_storeu_ps(c.wrapping_add(16), masks[1], total[1]);
            }
        }
    }

    pub(super) fn avx2(tile: &Tile, c: &mut Out) {
        let rows = Rows::new(tile, c);
        for first in (0..c.rows()).step_by(4) {
            let here = rows.skip(first);
            // SAFETY: as in `vnni`.
            unsafe { with_rows!((c.rows() - first).min(4), [4 3 2], avx2_rows, (tile, here)) }
        }
    }

    /// Eight columns at a time.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2_rows<const R: usize>(tile: &Tile, rows: Rows) {
        // SAFETY: see the caller; C goes through a buffer of the eight columns where it has fewer.
        unsafe {
            let ones = _mm256_set1_epi16(1);
            for column in (0..rows.columns).step_by(8) {
                let width = (rows.columns - column).min(8);
                let mut buffer = [0.0f32; 8];
                let mut totals = [_mm256_setzero_ps(); R];
                if tile.add {
                    for (r, total) in totals.iter_mut().enumerate() {
                        let c = rows.c.add(r * rows.stride);
                        std::ptr::copy_nonoverlapping(c.add(column), buffer.as_mut_ptr(), width);
                        *total = _mm256_loadu_ps(buffer.as_ptr());
                    }
                }
                let mut w = tile.numbers.as_ptr().add(column * GROUP);
                let mut scales = tile.scales.as_ptr().add(column);
                for block in 0..tile.depth {
                    let mut sums = [_mm256_setzero_si256(); R];
                    for group in 0..BLOCK / GROUP {
                        let four = _mm256_loadu_si256(w.cast());
                        for (r, sum) in sums.iter_mut().enumerate() {
                            let x = rows.x.add((r * rows.blocks + block) * BLOCK + group * GROUP).cast::<i32>();
                            let x = _mm256_set1_epi32(x.read_unaligned());
                            // |x| · (w with x's sign): pairs stay below 2 · 127², which 16 bits hold.
                            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(x), _mm256_sign_epi8(four, x));
                            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
                        }
                        w = w.add(WIDTH * GROUP);
                    }
                    let scale = _mm256_loadu_ps(scales);
                    for (r, (total, sum)) in totals.iter_mut().zip(sums).enumerate() {
                        let product = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), scale);
                        *total =
                            _mm256_fmadd_ps(product, _mm256_set1_ps(*rows.scales.add(r * rows.blocks + block)), *total);
                    }
                    scales = scales.add(WIDTH);
                }
                for (r, total) in totals.iter().enumerate() {
                    let c = rows.c.add(r * rows.stride);
                    _mm256_storeu_ps(buffer.as_mut_ptr(), *total);
                    std::ptr::copy_nonoverlapping(buffer.as_ptr(), c.add(column), width);
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

    fn product(level: Level, (w, x): (&[f32], &[f32]), (m, k, n): (usize, usize, usize), add: bool) -> Vec<f32> {
        let mut y = noise(m * n, 3, 1.0);
        let weights = Weights::pack_columns(level, w, k, n);
        weights.multiply(level, Out::new(&mut y, m, n, n), Lhs::rows(x, m, k), add);
        y
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn a_row_has_the_same_bits_in_any_batch_and_instruction_set(
            m in 1usize..20, k in 1usize..600, n in 1usize..70, add: bool
        ) {
            let (x, w) = (noise(m * k, 1, 1.0), noise(n * k, 2, 1.0));
            let scalar = product(Level::SCALAR, (&w, &x), (m, k, n), add);
            for level in Level::available() {
                assert_same_bits(&scalar, &product(level, (&w, &x), (m, k, n), add));
            }
            let first = product(Level::detect(), (&w, &x[..k]), (1, k, n), add);
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
        let found = product(Level::detect(), (&w, &x), (m, k, n), false);
        assert_close(&found, &exact(&rounded(&x, k), &rounded(&w, k)), 1e-4);
        let wide = |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect::<Vec<_>>();
        assert_close(&found, &exact(&wide(&x), &wide(&w)), 0.3);
    }

    #[test]
    fn zeros_stay_zeros() {
        let zeros = vec![0.0; 40 * 33];
        assert_close(&product(Level::detect(), (&zeros, &zeros), (1, 40, 33), false), &[0.0; 33], 0.0);
    }

    #[test]
    fn the_largest_sums_do_not_overflow() {
        let (w, x) = (vec![-1.0; 32 * 32], vec![1.0; 32]);
        for level in Level::available() {
            assert_close(&product(level, (&w, &x), (1, 32, 32), false), &[-32.0; 32], 1e-6);
        }
    }
}
