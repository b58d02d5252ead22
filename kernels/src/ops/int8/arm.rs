//! Four numbers at once in each lane: ARM's dot products.
#![expect(
    unsafe_code,
    reason = "vector instructions, and pointers whose bounds were checked once for the whole product"
)]

use super::rows::Rows;
use super::{BLOCK, GROUP, Tile, WIDTH};
use crate::ops::tiles::{Out, with_rows};
use std::arch::aarch64::*;
use std::arch::asm;

/// Columns of a register, and registers of half a panel.
const LANES: usize = 4;
const REGISTERS: usize = WIDTH / 2 / LANES;

pub(super) fn dotprod(tile: &Tile, c: &mut Out) {
    let rows = Rows::new(tile, c);
    for first in (0..c.rows()).step_by(4) {
        let here = rows.skip(first);
        // SAFETY: called where the processor has these instructions; `Rows::new` has checked every row's bounds.
        unsafe { with_rows!((c.rows() - first).min(4), [4 3 2], dot_rows, (tile, here)) }
    }
}

/// Adds to each lane the products of its four numbers.
#[target_feature(enable = "neon,dotprod")]
fn dot(sum: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    let mut sum = sum;
    // SAFETY: an instruction on registers, which the processor has.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {w:v}.16b, {x:v}.16b",
            sum = inout(vreg) sum, w = in(vreg) w, x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// Sixteen columns at a time.
#[target_feature(enable = "neon,dotprod")]
unsafe fn dot_rows<const R: usize>(tile: &Tile, rows: Rows) {
    const HALF: usize = WIDTH / 2;
    // SAFETY: see the caller; C goes through a buffer of the sixteen columns where it has fewer.
    unsafe {
        for column in (0..rows.columns).step_by(HALF) {
            let width = (rows.columns - column).min(HALF);
            let mut buffer = [0.0f32; HALF];
            let mut totals = [[vdupq_n_f32(0.0); REGISTERS]; R];
            if tile.add {
                for (r, total) in totals.iter_mut().enumerate() {
                    let c = rows.c.add(r * rows.stride + column);
                    std::ptr::copy_nonoverlapping(c, buffer.as_mut_ptr(), width);
                    *total = std::array::from_fn(|i| vld1q_f32(buffer.as_ptr().add(i * LANES)));
                }
            }
            let mut w = tile.numbers.as_ptr().add(column * GROUP);
            let mut scales = tile.scales.as_ptr().add(column);
            for block in 0..tile.depth {
                let mut sums = [[vdupq_n_s32(0); REGISTERS]; R];
                for group in 0..BLOCK / GROUP {
                    let numbers: [int8x16_t; REGISTERS] = std::array::from_fn(|i| vld1q_s8(w.add(i * LANES * GROUP)));
                    for (r, sum) in sums.iter_mut().enumerate() {
                        let x = rows.x.add((r * rows.blocks + block) * BLOCK + group * GROUP).cast::<i32>();
                        let x = vreinterpretq_s8_s32(vdupq_n_s32(x.read_unaligned()));
                        for (sum, numbers) in sum.iter_mut().zip(numbers) {
                            *sum = dot(*sum, numbers, x);
                        }
                    }
                    w = w.add(WIDTH * GROUP);
                }
                let scale: [float32x4_t; REGISTERS] = std::array::from_fn(|i| vld1q_f32(scales.add(i * LANES)));
                for (r, (total, sum)) in totals.iter_mut().zip(sums).enumerate() {
                    let x_scale = vdupq_n_f32(*rows.scales.add(r * rows.blocks + block));
                    for i in 0..REGISTERS {
                        total[i] = vfmaq_f32(total[i], vmulq_f32(vcvtq_f32_s32(sum[i]), scale[i]), x_scale);
                    }
                }
                scales = scales.add(WIDTH);
            }
            for (r, total) in totals.iter().enumerate() {
                (0..REGISTERS).for_each(|i| vst1q_f32(buffer.as_mut_ptr().add(i * LANES), total[i]));
                let c = rows.c.add(r * rows.stride + column);
                std::ptr::copy_nonoverlapping(buffer.as_ptr(), c, width);
            }
        }
    }
}
