//! The parts of a processor that can multiply tiles: one order, at different speeds.

#[cfg(target_arch = "x86_64")]
use super::amx;
use super::{PAIRS, SIDE};
use crate::ops::panels::WIDTH;
use crate::ops::tiles::Out;
use crate::simd::{Kind, Level};

/// What multiplies; made by detection only, which is what makes it safe to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Units(Choice);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Amx,
}

/// Up to 32 rows and columns of C, and what they are made of.
pub(super) struct Tile<'a> {
    /// One or two strips of 16 rows: `[strip][blocks][16][16]` pairs.
    pub(super) left: &'a [u32],
    /// `[blocks][2][16][16]` pairs.
    pub(super) right: &'a [u32],
    pub(super) blocks: usize,
    pub(super) add: bool,
}

/// A whole tile of C.
#[repr(align(64))]
pub(super) struct Totals(pub(super) [[f32; WIDTH]; 2 * SIDE]);

/// Pairs of a cell.
pub(super) const CELL: usize = SIDE * PAIRS;

impl Units {
    #[cfg(test)]
    pub(super) const SCALAR: Self = Self(Choice::Scalar);

    /// The fastest of a processor that is used up to this level.
    pub(super) fn best(level: Level) -> Self {
        Self(match level.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 if amx::usable() => Choice::Amx,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => Choice::Avx512,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => Choice::Avx2,
            _ => Choice::Scalar,
        })
    }

    /// All that this processor has.
    #[cfg(test)]
    pub(super) fn available() -> Vec<Self> {
        let of = |level: &Level| match level.0 {
            Kind::Scalar => Choice::Scalar,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => Choice::Avx2,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => Choice::Avx512,
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => Choice::Scalar,
        };
        let levels = Level::available();
        levels.iter().map(of).chain([Self::best(Level::detect()).0]).map(Self).collect()
    }

    /// Whether there are instructions for whole tiles.
    pub(super) fn tiles(self) -> bool {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Choice::Amx => true,
            _ => false,
        }
    }

    /// Makes this thread ready, until what comes back is dropped.
    pub(super) fn prepare(self) -> impl Drop {
        #[cfg(target_arch = "x86_64")]
        return match self.0 {
            Choice::Amx => x86::State::Tiles(amx::Configured::new()),
            Choice::Avx2 | Choice::Avx512 => x86::State::Flushing(x86::Flushing::new()),
            Choice::Scalar => x86::State::Nothing,
        };
        #[cfg(not(target_arch = "x86_64"))]
        return Nothing;
    }

    /// `c`, of at most 32 rows and columns, after [`Units::prepare`].
    pub(super) fn multiply(self, tile: &Tile, mut c: Out) {
        let (rows, columns) = (c.rows(), c.columns());
        assert!(rows <= 2 * SIDE && columns <= WIDTH, "a tile of {rows} rows and {columns} columns");
        assert!(tile.left.len() >= rows.div_ceil(SIDE) * tile.blocks * CELL, "A is too small");
        assert!(tile.right.len() >= 2 * tile.blocks * CELL, "B is too small");
        #[cfg(target_arch = "x86_64")]
        if self.0 == Choice::Amx && rows == 2 * SIDE && columns == WIDTH {
            return amx::whole(tile, c.start(), c.stride());
        }
        let mut totals = Totals([[0.0; WIDTH]; 2 * SIDE]);
        if tile.add {
            for (row, total) in totals.0.iter_mut().enumerate().take(rows) {
                total[..columns].copy_from_slice(c.row(row));
            }
        }
        match self.0 {
            Choice::Scalar => scalar(tile, &mut totals, rows),
            #[cfg(target_arch = "x86_64")]
            Choice::Avx2 => x86::avx2(tile, &mut totals, rows),
            #[cfg(target_arch = "x86_64")]
            Choice::Avx512 => x86::avx512(tile, &mut totals, rows),
            #[cfg(target_arch = "x86_64")]
            Choice::Amx => amx::buffered(tile, &mut totals, rows),
        }
        for (row, total) in totals.0.iter().enumerate().take(rows) {
            c.row(row).copy_from_slice(&total[..columns]);
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
struct Nothing;

#[cfg(not(target_arch = "x86_64"))]
impl Drop for Nothing {
    fn drop(&mut self) {}
}

#[inline(always)]
fn even(pair: u32) -> f32 {
    f32::from_bits(pair << 16)
}

#[inline(always)]
fn odd(pair: u32) -> f32 {
    f32::from_bits(pair & 0xffff_0000)
}

/// What is smaller than any normal number is a zero of its sign.
#[inline(always)]
fn flushed(value: f32) -> f32 {
    if value.is_subnormal() { f32::from_bits(value.to_bits() & 0x8000_0000) } else { value }
}

fn scalar(tile: &Tile, totals: &mut Totals, rows: usize) {
    for (row, total) in totals.0.iter_mut().enumerate().take(rows) {
        let strip = &tile.left[row / SIDE * tile.blocks * CELL..];
        for (block, right) in tile.right.chunks_exact(2 * CELL).enumerate().take(tile.blocks) {
            let left = &strip[block * CELL + row % SIDE * PAIRS..][..PAIRS];
            for (total, right) in total.chunks_exact_mut(SIDE).zip(right.chunks_exact(CELL)) {
                let mut sums = [[0.0f32; SIDE]; 2];
                for (a, b) in left.iter().zip(right.as_chunks::<SIDE>().0) {
                    for (column, b) in b.iter().enumerate() {
                        let product =
                            |half: fn(u32) -> f32, sum: f32| flushed(flushed(half(*a)).mul_add(flushed(half(*b)), sum));
                        sums[0][column] = product(even, sums[0][column]);
                        sums[1][column] = product(odd, sums[1][column]);
                    }
                }
                for (column, total) in total.iter_mut().enumerate() {
                    *total = flushed(flushed(*total) + flushed(sums[0][column] + sums[1][column]));
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "vector instructions, and pointers whose bounds were checked once for the whole tile")]
mod x86 {
    use super::{CELL, PAIRS, SIDE, Tile, Totals, even, odd};
    use crate::ops::halves::amx::Configured;
    use crate::ops::panels::WIDTH;
    use crate::ops::tiles::with_rows;
    use std::arch::asm;
    use std::arch::x86_64::*;

    /// What a thread is made ready by.
    #[expect(dead_code, reason = "held until it is dropped")]
    pub(super) enum State {
        Tiles(Configured),
        Flushing(Flushing),
        Nothing,
    }

    impl Drop for State {
        fn drop(&mut self) {}
    }

    /// Numbers too small to be normal count as zero on this thread, as they do in tile instructions.
    pub(super) struct Flushing(u32);

    impl Flushing {
        pub(super) fn new() -> Self {
            let mut control = 0u32;
            // SAFETY: writes the register's value to a place that is there.
            unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut control, options(nostack, preserves_flags)) };
            const FLUSH_RESULTS: u32 = 1 << 15;
            const FLUSH_OPERANDS: u32 = 1 << 6;
            load(control | FLUSH_RESULTS | FLUSH_OPERANDS);
            Self(control)
        }
    }

    impl Drop for Flushing {
        fn drop(&mut self) {
            load(self.0);
        }
    }

    fn load(control: u32) {
        // SAFETY: changes what becomes of small numbers, between a `Flushing`'s beginning and its end only.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const control, options(nostack, preserves_flags)) };
    }

    /// The rows of a cell of A, widened.
    #[repr(align(64))]
    struct Wide([[f32; 2 * PAIRS]; SIDE]);

    impl Wide {
        #[inline(always)]
        fn new(cell: &[u32], rows: usize) -> Self {
            let mut wide = Self([[0.0; 2 * PAIRS]; SIDE]);
            for (to, from) in wide.0.iter_mut().zip(cell.as_chunks::<PAIRS>().0).take(rows) {
                for (to, pair) in to.as_chunks_mut::<2>().0.iter_mut().zip(from) {
                    *to = [even(*pair), odd(*pair)];
                }
            }
            wide
        }
    }

    pub(super) fn avx512(tile: &Tile, totals: &mut Totals, rows: usize) {
        // SAFETY: called where the processor has these instructions; `Units::multiply` has checked the bounds.
        unsafe { walk512(tile, totals, rows) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn walk512(tile: &Tile, totals: &mut Totals, rows: usize) {
        for top in (0..rows).step_by(SIDE) {
            let strip = &tile.left[top * tile.blocks * PAIRS..][..tile.blocks * CELL];
            let count = (rows - top).min(SIDE);
            for (block, cell) in strip.chunks_exact(CELL).enumerate() {
                let wide = Wide::new(cell, count);
                for half in 0..WIDTH / SIDE {
                    let b = tile.right[(2 * block + half) * CELL..][..CELL].as_ptr();
                    for first in (0..count).step_by(8) {
                        let a = wide.0[first..].as_ptr().cast();
                        let c = totals.0[top + first..].as_mut_ptr().cast::<f32>().wrapping_add(half * SIDE);
                        // SAFETY: see the caller.
                        unsafe { with_rows!((count - first).min(8), [8 7 6 5 4 3 2], rows512, (a, b, c)) }
                    }
                }
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn rows512<const R: usize>(a: *const f32, b: *const u32, c: *mut f32) {
        // SAFETY: see the caller.
        unsafe {
            let odds = _mm512_set1_epi32(0xffff_0000u32 as i32);
            let mut sums = [[_mm512_setzero_ps(); 2]; R];
            for pair in 0..PAIRS {
                let both = _mm512_loadu_si512(b.add(pair * SIDE).cast());
                let even = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(both));
                let odd = _mm512_castsi512_ps(_mm512_and_si512(both, odds));
                for (r, sum) in sums.iter_mut().enumerate() {
                    let a = a.add(r * 2 * PAIRS + 2 * pair);
                    sum[0] = _mm512_fmadd_ps(_mm512_set1_ps(*a), even, sum[0]);
                    sum[1] = _mm512_fmadd_ps(_mm512_set1_ps(*a.add(1)), odd, sum[1]);
                }
            }
            for (r, sum) in sums.iter().enumerate() {
                let c = c.add(r * WIDTH);
                _mm512_storeu_ps(c, _mm512_add_ps(_mm512_loadu_ps(c), _mm512_add_ps(sum[0], sum[1])));
            }
        }
    }

    pub(super) fn avx2(tile: &Tile, totals: &mut Totals, rows: usize) {
        // SAFETY: as in `avx512`.
        unsafe { walk256(tile, totals, rows) }
    }

    /// Eight columns at a time.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn walk256(tile: &Tile, totals: &mut Totals, rows: usize) {
        for top in (0..rows).step_by(SIDE) {
            let strip = &tile.left[top * tile.blocks * PAIRS..][..tile.blocks * CELL];
            let count = (rows - top).min(SIDE);
            for (block, cell) in strip.chunks_exact(CELL).enumerate() {
                let wide = Wide::new(cell, count);
                for column in (0..WIDTH).step_by(8) {
                    let right = &tile.right[(2 * block + column / SIDE) * CELL..][..CELL];
                    let b = right[column % SIDE..].as_ptr();
                    for first in (0..count).step_by(4) {
                        let a = wide.0[first..].as_ptr().cast();
                        let c = totals.0[top + first..].as_mut_ptr().cast::<f32>().wrapping_add(column);
                        // SAFETY: see the caller.
                        unsafe { with_rows!((count - first).min(4), [4 3 2], rows256, (a, b, c)) }
                    }
                }
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn rows256<const R: usize>(a: *const f32, b: *const u32, c: *mut f32) {
        // SAFETY: see the caller.
        unsafe {
            let odds = _mm256_set1_epi32(0xffff_0000u32 as i32);
            let mut sums = [[_mm256_setzero_ps(); 2]; R];
            for pair in 0..PAIRS {
                let both = _mm256_loadu_si256(b.add(pair * SIDE).cast());
                let even = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(both));
                let odd = _mm256_castsi256_ps(_mm256_and_si256(both, odds));
                for (r, sum) in sums.iter_mut().enumerate() {
                    let a = a.add(r * 2 * PAIRS + 2 * pair);
                    sum[0] = _mm256_fmadd_ps(_mm256_set1_ps(*a), even, sum[0]);
                    sum[1] = _mm256_fmadd_ps(_mm256_set1_ps(*a.add(1)), odd, sum[1]);
                }
            }
            for (r, sum) in sums.iter().enumerate() {
                let c = c.add(r * WIDTH);
                _mm256_storeu_ps(c, _mm256_add_ps(_mm256_loadu_ps(c), _mm256_add_ps(sum[0], sum[1])));
            }
        }
    }
}
