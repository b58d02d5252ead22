//! The order of the tile instructions by NEON.
#![expect(unsafe_code, reason = "vector instructions, and pointers whose bounds were checked once for the whole tile")]

use super::units::{Block, CELL, Tile, Totals, walk};
use super::{PAIRS, SIDE};
use crate::ops::panels::WIDTH;
use crate::ops::tiles::with_rows;
use std::arch::aarch64::*;
use std::arch::asm;

/// Numbers too small to be normal count as zero on this thread, as they do in tile instructions.
pub(super) struct Flushing(u64);

impl Flushing {
    pub(super) fn new() -> Self {
        let control: u64;
        // SAFETY: reads a register.
        unsafe { asm!("mrs {}, fpcr", out(reg) control, options(nomem, nostack, preserves_flags)) };
        const FLUSH: u64 = 1 << 24;
        load(control | FLUSH);
        Self(control)
    }
}

impl Drop for Flushing {
    fn drop(&mut self) {
        load(self.0);
    }
}

fn load(control: u64) {
    // SAFETY: changes what becomes of small numbers, between a `Flushing`'s beginning and its end only.
    unsafe { asm!("msr fpcr, {}", in(reg) control, options(nostack, preserves_flags)) };
}

pub(super) fn neon(tile: &Tile, totals: &mut Totals, rows: usize) {
    walk(tile, totals, rows, 4, |rows, block| {
        // SAFETY: called where the processor has these instructions; `Units::multiply` has checked the bounds.
        unsafe { with_rows!(rows, [4 3 2], block_rows, (block)) }
    });
}

/// Eight columns at a time: 16 sums, 4 registers of B and one of A fit the 32 registers.
#[target_feature(enable = "neon")]
unsafe fn block_rows<const R: usize>(Block { a, b, c }: Block) {
    // SAFETY: see the caller.
    unsafe {
        let odds = vdupq_n_u32(0xffff_0000);
        for column in (0..WIDTH).step_by(8) {
            let b = b.add(column / SIDE * CELL + column % SIDE);
            let mut sums = [[[vdupq_n_f32(0.0); 2]; 2]; R];
            for pair in 0..PAIRS {
                let both = [vld1q_u32(b.add(pair * SIDE)), vld1q_u32(b.add(pair * SIDE + 4))];
                let even = both.map(|pairs| vreinterpretq_f32_u32(vshlq_n_u32::<16>(pairs)));
                let odd = both.map(|pairs| vreinterpretq_f32_u32(vandq_u32(pairs, odds)));
                for (r, sum) in sums.iter_mut().enumerate() {
                    let a = vld1_f32(a.add(r * 2 * PAIRS + 2 * pair));
                    for half in 0..2 {
                        sum[0][half] = vfmaq_lane_f32::<0>(sum[0][half], even[half], a);
                        sum[1][half] = vfmaq_lane_f32::<1>(sum[1][half], odd[half], a);
                    }
                }
            }
            for (r, [even, odd]) in sums.iter().enumerate() {
                for half in 0..2 {
                    let c = c.add(r * WIDTH + column + 4 * half);
                    vst1q_f32(c, vaddq_f32(vld1q_f32(c), vaddq_f32(even[half], odd[half])));
                }
            }
        }
    }
}
