//! Intel's tile instructions: 16 rows by 32 bf16 numbers, times as many columns, at once.
#![expect(unsafe_code, reason = "instructions that the compiler has no names for")]

use super::units::{CELL, Tile, Totals};
use super::{PAIRS, SIDE};
use crate::amx::{Configured, Shape};
use crate::ops::panels::WIDTH;
use std::arch::asm;

/// Four tiles of C, two strips of A, two cells of B.
pub(super) fn configured() -> Configured {
    const WHOLE: Shape = (16, 64);
    Configured::new([WHOLE; 8])
}

/// 32 rows and columns of C, whose rows are `stride` apart and which has them.
pub(super) fn whole(tile: &Tile, c: *mut f32, stride: usize) {
    let strip = tile.blocks * CELL;
    let lower = c.wrapping_add(SIDE * stride);
    // While the sums are made, the lines of the tile below come: two rows a block.
    let soon = lower.wrapping_add(SIDE * stride);
    // SAFETY: `Units::multiply` has checked the bounds, and `Configured` is alive.
    unsafe {
        if tile.add {
            asm!(
                "tileloadd tmm0, [{c} + {stride}]",
                "tileloadd tmm1, [{c} + {stride} + 64]",
                "tileloadd tmm2, [{lower} + {stride}]",
                "tileloadd tmm3, [{lower} + {stride} + 64]",
                c = in(reg) c, lower = in(reg) lower, stride = in(reg) 4 * stride,
                options(nostack, preserves_flags),
            );
        } else {
            asm!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", options(nostack, preserves_flags));
        }
        asm!(
            "2:",
            "tileloadd tmm4, [{a} + {row}]",
            "tileloadd tmm6, [{b} + {row}]",
            "tileloadd tmm7, [{b} + {row} + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{below} + {row}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a}, 1024",
            "add {below}, 1024",
            "add {b}, 2048",
            "prefetchw [{soon}]",
            "prefetchw [{soon} + 64]",
            "prefetchw [{soon} + {stride}]",
            "prefetchw [{soon} + {stride} + 64]",
            "lea {soon}, [{soon} + 2*{stride}]",
            "dec {blocks}",
            "jnz 2b",
            soon = inout(reg) soon => _,
            stride = in(reg) 4 * stride,
            a = inout(reg) tile.left.as_ptr() => _,
            below = inout(reg) tile.left.as_ptr().wrapping_add(strip) => _,
            b = inout(reg) tile.right.as_ptr() => _,
            row = in(reg) 4 * PAIRS,
            blocks = inout(reg) tile.blocks => _,
            options(nostack),
        );
        asm!(
            "tilestored [{c} + {stride}], tmm0",
            "tilestored [{c} + {stride} + 64], tmm1",
            "tilestored [{lower} + {stride}], tmm2",
            "tilestored [{lower} + {stride} + 64], tmm3",
            c = in(reg) c, lower = in(reg) lower, stride = in(reg) 4 * stride,
            options(nostack, preserves_flags),
        );
    }
}

/// As [`whole`], for a result that goes through a buffer; of up to 16 rows, the lower half is left alone.
pub(super) fn buffered(tile: &Tile, totals: &mut Totals, rows: usize) {
    let c = totals.0.as_mut_ptr().cast::<f32>();
    if rows > SIDE {
        return whole(&Tile { add: true, ..*tile }, c, WIDTH);
    }
    // SAFETY: as in `whole`.
    unsafe {
        asm!(
            "tileloadd tmm0, [{c} + 2*{row}]",
            "tileloadd tmm1, [{c} + 2*{row} + 64]",
            "2:",
            "tileloadd tmm4, [{a} + {row}]",
            "tileloadd tmm6, [{b} + {row}]",
            "tileloadd tmm7, [{b} + {row} + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "add {a}, 1024",
            "add {b}, 2048",
            "dec {blocks}",
            "jnz 2b",
            "tilestored [{c} + 2*{row}], tmm0",
            "tilestored [{c} + 2*{row} + 64], tmm1",
            a = inout(reg) tile.left.as_ptr() => _,
            b = inout(reg) tile.right.as_ptr() => _,
            c = in(reg) c,
            row = in(reg) 4 * PAIRS,
            blocks = inout(reg) tile.blocks => _,
            options(nostack),
        );
    }
}
