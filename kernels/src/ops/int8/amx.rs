//! Intel's tile instructions: 16 rows by 32 numbers, times as many columns, at once.
#![expect(
    unsafe_code,
    reason = "instructions that the compiler has no names for, and pointers whose bounds were checked once"
)]

use super::rows::Rows;
use super::{BLOCK, GROUP, SIDE, Tile, WIDTH};
use crate::amx::{Configured, Shape};
use crate::ops::tiles::Out;
use std::arch::asm;
use std::arch::x86_64::*;

/// Fewer rows are multiplied sooner without tiles.
pub(super) const FEWEST: usize = 13;

/// Two blocks by two halves of a panel: sums; each block's rows of A; each half of the panel.
fn configured() -> Configured {
    const SUMS: Shape = (SIDE as u8, 64);
    const ROWS: Shape = (SIDE as u8, BLOCK as u16);
    const COLUMNS: Shape = ((BLOCK / GROUP) as u8, 64);
    Configured::new([SUMS, SUMS, SUMS, SUMS, ROWS, ROWS, COLUMNS, COLUMNS])
}

/// What the tiles hold: `[block][half of the panel][row][column]`.
#[repr(align(64))]
struct Sums([[[[i32; SIDE]; SIDE]; 2]; 2]);

/// Sums that are being made and added, and what they are added to.
#[repr(align(64))]
struct Room {
    sums: [Sums; 2],
    totals: [[f32; WIDTH]; SIDE],
}

pub(super) fn multiply(tile: &Tile, c: &mut Out) {
    let (rows, numbers) = (Rows::new(tile, c), &tile.rounded.numbers);
    assert!(
        numbers.len() >= (tile.top + c.rows() + SIDE - 1) * tile.rounded.blocks * BLOCK,
        "no rows to fill up tiles with"
    );
    let _tiles = configured();
    let mut room = Room { sums: [const { Sums([[[[0; SIDE]; SIDE]; 2]; 2]) }; 2], totals: [[0.0; WIDTH]; SIDE] };
    let strips = c.rows().div_ceil(SIDE);
    for nth in 0..strips {
        let first = nth * SIDE;
        let count = (c.rows() - first).min(SIDE);
        // SAFETY: called where the processor has these instructions; `Rows::new` has checked the bounds of every row that counts,
        // and 15 more rows of A may be read.
        unsafe { strip(tile, rows.skip(first), count, (nth, strips), &mut room) };
    }
}

/// Up to 16 rows of C, the `nth` strip of so many.
#[target_feature(enable = "avx512f")]
unsafe fn strip(tile: &Tile, rows: Rows, count: usize, (nth, strips): (usize, usize), room: &mut Room) {
    let mask = (1u64 << rows.columns) - 1;
    let masks = [mask as u16, (mask >> 16) as u16];
    let totals = &mut room.totals[..count];
    let [mut done, mut next] = room.sums.each_mut();
    // SAFETY: see the caller; the masks keep loads and stores of C inside its columns.
    unsafe {
        for (row, total) in totals.iter_mut().enumerate() {
            for (half, total) in total.as_chunks_mut::<SIDE>().0.iter_mut().enumerate() {
                let c = rows.c.wrapping_add(row * rows.stride + half * SIDE);
                let before = if tile.add { _mm512_maskz_loadu_ps(masks[half], c) } else { _mm512_setzero_ps() };
                _mm512_storeu_ps(total.as_mut_ptr(), before);
            }
        }
        sum(tile, rows, 0, done);
        for block in (0..tile.depth).step_by(2) {
            if block + 2 < tile.depth {
                sum(tile, rows, block + 2, next);
            }
            ask_ahead(tile, rows, block, (nth, strips));
            if block + 1 < tile.depth {
                add::<2>(tile, rows, block, done, totals);
            } else {
                add::<1>(tile, rows, block, done, totals);
            }
            std::mem::swap(&mut done, &mut next);
        }
        for (row, total) in totals.iter().enumerate() {
            for (half, total) in total.as_chunks::<SIDE>().0.iter().enumerate() {
                let c = rows.c.wrapping_add(row * rows.stride + half * SIDE);
                _mm512_mask_storeu_ps(c, masks[half], _mm512_loadu_ps(total.as_ptr()));
            }
        }
    }
}

/// Sums of this block and, where there is one, the next.
#[inline(always)]
unsafe fn sum(tile: &Tile, rows: Rows, block: usize, sums: &mut Sums) {
    // SAFETY: see the caller.
    unsafe {
        if block + 1 < tile.depth {
            two_blocks(tile, rows, block, sums);
        } else {
            last_block(tile, rows, block, sums);
        }
    }
}

/// Asks, in the course of all strips, for the blocks that follow in memory, and in the course of one for the next one's rows of C.
#[inline(always)]
fn ask_ahead(tile: &Tile, rows: Rows, block: usize, (nth, strips): (usize, usize)) {
    let end = (block + 2).min(tile.depth);
    let share = |blocks: usize| tile.depth + (nth * tile.depth + blocks) / strips;
    // SAFETY: a prefetch reads nothing.
    unsafe {
        for block in share(block)..share(end) {
            let numbers = tile.numbers.as_ptr().wrapping_add(block * BLOCK * WIDTH);
            (0..BLOCK * WIDTH).step_by(64).for_each(|at| _mm_prefetch::<_MM_HINT_T1>(numbers.wrapping_add(at)));
            let scales = tile.scales.as_ptr().wrapping_add(block * WIDTH);
            (0..WIDTH).step_by(16).for_each(|at| _mm_prefetch::<_MM_HINT_T1>(scales.wrapping_add(at).cast()));
        }
        if nth + 1 < strips {
            for row in SIDE + SIDE * block / tile.depth..SIDE + SIDE * end / tile.depth {
                let c = rows.c.wrapping_add(row * rows.stride);
                (0..WIDTH).step_by(16).for_each(|at| _mm_prefetch::<_MM_HINT_ET0>(c.wrapping_add(at).cast()));
            }
        }
    }
}

#[inline(always)]
unsafe fn two_blocks(tile: &Tile, rows: Rows, block: usize, sums: &mut Sums) {
    // SAFETY: see the caller.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tileloadd tmm4, [{x} + {row}]",
            "tileloadd tmm6, [{w} + 2*{half}]",
            "tdpbssd tmm0, tmm4, tmm6",
            "tilezero tmm1",
            "tileloadd tmm7, [{w} + 2*{half} + 64]",
            "tdpbssd tmm1, tmm4, tmm7",
            "tilezero tmm2",
            "tileloadd tmm5, [{x} + {row} + 32]",
            "tileloadd tmm6, [{w} + 2*{half} + 1024]",
            "tdpbssd tmm2, tmm5, tmm6",
            "tilezero tmm3",
            "tileloadd tmm7, [{w} + 2*{half} + 1088]",
            "tdpbssd tmm3, tmm5, tmm7",
            "tilestored [{sums} + {half}], tmm0",
            "tilestored [{sums} + {half} + 1024], tmm1",
            "tilestored [{sums} + {half} + 2048], tmm2",
            "tilestored [{sums} + {half} + 3072], tmm3",
            x = in(reg) rows.x.wrapping_add(block * BLOCK),
            row = in(reg) rows.blocks * BLOCK,
            w = in(reg) tile.numbers.as_ptr().wrapping_add(block * BLOCK * WIDTH),
            half = in(reg) 4 * SIDE,
            sums = in(reg) &raw mut *sums,
            options(nostack, preserves_flags),
        );
    }
}

#[inline(always)]
unsafe fn last_block(tile: &Tile, rows: Rows, block: usize, sums: &mut Sums) {
    // SAFETY: see the caller.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tileloadd tmm4, [{x} + {row}]",
            "tileloadd tmm6, [{w} + 2*{half}]",
            "tdpbssd tmm0, tmm4, tmm6",
            "tilezero tmm1",
            "tileloadd tmm7, [{w} + 2*{half} + 64]",
            "tdpbssd tmm1, tmm4, tmm7",
            "tilestored [{sums} + {half}], tmm0",
            "tilestored [{sums} + {half} + 1024], tmm1",
            x = in(reg) rows.x.wrapping_add(block * BLOCK),
            row = in(reg) rows.blocks * BLOCK,
            w = in(reg) tile.numbers.as_ptr().wrapping_add(block * BLOCK * WIDTH),
            half = in(reg) 4 * SIDE,
            sums = in(reg) &raw mut *sums,
            options(nostack, preserves_flags),
        );
    }
}

/// Each row's sums of `B` blocks, by their scales, one block after the other.
#[target_feature(enable = "avx512f")]
unsafe fn add<const B: usize>(tile: &Tile, rows: Rows, block: usize, sums: &Sums, totals: &mut [[f32; WIDTH]]) {
    // SAFETY: see the caller.
    unsafe {
        let scales = tile.scales.as_ptr().add(block * WIDTH);
        let scales: [[__m512; 2]; B] = std::array::from_fn(|nth| {
            std::array::from_fn(|half| _mm512_loadu_ps(scales.add(nth * WIDTH + half * SIDE)))
        });
        for (row, total) in totals.iter_mut().enumerate() {
            let x = rows.scales.add(row * rows.blocks + block);
            let x: [__m512; B] = std::array::from_fn(|nth| _mm512_set1_ps(*x.add(nth)));
            for half in 0..2 {
                let at = total[half * SIDE..].as_mut_ptr();
                let mut sum = _mm512_loadu_ps(at);
                for nth in 0..B {
                    let whole = _mm512_cvtepi32_ps(_mm512_loadu_si512(sums.0[nth][half][row].as_ptr().cast()));
                    sum = _mm512_fmadd_ps(_mm512_mul_ps(whole, scales[nth][half]), x[nth], sum);
                }
                _mm512_storeu_ps(at, sum);
            }
        }
    }
}
