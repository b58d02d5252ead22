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
    /// The same in f32, without instructions for whole tiles: `[strip][blocks][16][32]`.
    pub(super) wide: &'a [f32],
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
            Kind::Avx512 if crate::amx::usable() => Choice::Amx,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => Choice::Avx512,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => Choice::Avx2,
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => Choice::Scalar,
            Kind::Scalar => Choice::Scalar,
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
            Choice::Amx => x86::State::Tiles(amx::configured()),
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
        let pairs = if self.tiles() { tile.left.len() } else { tile.wide.len() / 2 };
        assert!(pairs >= rows.div_ceil(SIDE) * tile.blocks * CELL, "A is too small");
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

/// What is smaller than any normal number is a zero of its sign.
#[inline(always)]
fn flushed(value: f32) -> f32 {
    if value.is_subnormal() { f32::from_bits(value.to_bits() & 0x8000_0000) } else { value }
}

fn scalar(tile: &Tile, totals: &mut Totals, rows: usize) {
    for (row, total) in totals.0.iter_mut().enumerate().take(rows) {
        let strip = &tile.wide[row / SIDE * tile.blocks * 2 * CELL..];
        for (block, right) in tile.right.chunks_exact(2 * CELL).enumerate().take(tile.blocks) {
            let left = &strip[2 * (block * CELL + row % SIDE * PAIRS)..][..2 * PAIRS];
            for (total, right) in total.chunks_exact_mut(SIDE).zip(right.chunks_exact(CELL)) {
                let mut sums = [[0.0f32; SIDE]; 2];
                for ([a, a_odd], b) in left.as_chunks().0.iter().zip(right.as_chunks::<SIDE>().0) {
                    for (column, pair) in b.iter().enumerate() {
                        let product =
                            |a: f32, b: u32, sum: f32| flushed(flushed(a).mul_add(flushed(f32::from_bits(b)), sum));
                        sums[0][column] = product(*a, pair << 16, sums[0][column]);
                        sums[1][column] = product(*a_odd, pair & 0xffff_0000, sums[1][column]);
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
    use super::{CELL, PAIRS, SIDE, Tile, Totals};
    use crate::amx::Configured;
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

    /// Rows of A in f32, a block of a panel of B, and their part of C.
    #[derive(Clone, Copy)]
    struct Block {
        a: *const f32,
        b: *const u32,
        c: *mut f32,
    }

    /// Calls `multiply` for every block and, `most` at a time, every row of a tile: with how many they are.
    #[inline(always)]
    fn walk(tile: &Tile, totals: &mut Totals, rows: usize, most: usize, multiply: impl Fn(usize, Block)) {
        for top in (0..rows).step_by(SIDE) {
            let strip = &tile.wide[2 * top * tile.blocks * PAIRS..][..2 * tile.blocks * CELL];
            let count = (rows - top).min(SIDE);
            let height = count.div_ceil(count.div_ceil(most));
            for (cell, right) in strip.chunks_exact(2 * CELL).zip(tile.right.chunks_exact(2 * CELL)) {
                for first in (0..count).step_by(height) {
                    let a = cell[first * 2 * PAIRS..].as_ptr();
                    let c = totals.0[top + first..].as_mut_ptr().cast();
                    multiply(height.min(count - first), Block { a, b: right.as_ptr(), c });
                }
            }
        }
    }

    pub(super) fn avx512(tile: &Tile, totals: &mut Totals, rows: usize) {
        walk(tile, totals, rows, 6, |rows, block| {
            // SAFETY: called where the processor has these instructions; `Units::multiply` has checked the bounds.
            unsafe { with_rows!(rows, [6 5 4 3 2], rows512, (block)) }
        });
    }

    /// 24 sums, 4 registers of B and a broadcast fit the 32 registers.
    #[target_feature(enable = "avx512f")]
    unsafe fn rows512<const R: usize>(Block { a, b, c }: Block) {
        // SAFETY: see the caller.
        unsafe {
            let odds = _mm512_set1_epi32(0xffff_0000u32 as i32);
            let mut sums = [[[_mm512_setzero_ps(); 2]; 2]; R];
            for pair in 0..PAIRS {
                let b = b.add(pair * SIDE);
                let both = [_mm512_loadu_si512(b.cast()), _mm512_loadu_si512(b.add(CELL).cast())];
                let even = both.map(|pairs| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)));
                let odd = both.map(|pairs| _mm512_castsi512_ps(_mm512_and_si512(pairs, odds)));
                for (r, sum) in sums.iter_mut().enumerate() {
                    let a = a.add(r * 2 * PAIRS + 2 * pair);
                    for (nth, b) in [even, odd].into_iter().enumerate() {
                        let x = _mm512_set1_ps(*a.add(nth));
                        sum[nth][0] = _mm512_fmadd_ps(x, b[0], sum[nth][0]);
                        sum[nth][1] = _mm512_fmadd_ps(x, b[1], sum[nth][1]);
                    }
                }
            }
            for (r, [even, odd]) in sums.iter().enumerate() {
                for half in 0..2 {
                    let c = c.add(r * WIDTH + half * SIDE);
                    _mm512_storeu_ps(c, _mm512_add_ps(_mm512_loadu_ps(c), _mm512_add_ps(even[half], odd[half])));
                }
            }
        }
    }

    pub(super) fn avx2(tile: &Tile, totals: &mut Totals, rows: usize) {
        walk(tile, totals, rows, 4, |rows, block| {
            // SAFETY: as in `avx512`.
            unsafe { with_rows!(rows, [4 3 2], rows256, (block)) }
        });
    }

    /// Eight columns at a time.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn rows256<const R: usize>(Block { a, b, c }: Block) {
        // SAFETY: see the caller.
        unsafe {
            let odds = _mm256_set1_epi32(0xffff_0000u32 as i32);
            for column in (0..WIDTH).step_by(8) {
                let b = b.add(column / SIDE * CELL + column % SIDE);
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
                    let c = c.add(r * WIDTH + column);
                    _mm256_storeu_ps(c, _mm256_add_ps(_mm256_loadu_ps(c), _mm256_add_ps(sum[0], sum[1])));
                }
            }
        }
    }
}
