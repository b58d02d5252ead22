//! Four numbers at once in each lane: AVX-512 VNNI, and AVX2.
#![expect(
    unsafe_code,
    reason = "vector instructions, and pointers whose bounds were checked once for the whole product"
)]

use super::rows::Rows;
use super::{BLOCK, DEPTH, GROUP, Tile, WIDTH};
use crate::ops::tiles::{Out, with_rows};
use std::arch::x86_64::*;

/// How far ahead weights are asked for: as many as stay in the first-level cache.
const AHEAD: usize = DEPTH * BLOCK * WIDTH;

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
