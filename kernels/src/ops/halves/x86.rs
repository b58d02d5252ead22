//! The order of the tile instructions by others, AVX-512 and AVX2.
#![expect(unsafe_code, reason = "vector instructions, and pointers whose bounds were checked once for the whole tile")]

use super::units::{Block, CELL, Tile, Totals, walk};
use super::{PAIRS, SIDE};
use crate::ops::panels::WIDTH;
use crate::ops::tiles::with_rows;
use std::arch::asm;
use std::arch::x86_64::*;

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
