//! Intel's tile instructions: 16 rows by 32 bf16 numbers, times as many columns, at once.
#![expect(unsafe_code, reason = "instructions that the compiler has no names for")]

use super::units::{CELL, Tile, Totals};
use super::{PAIRS, SIDE};
use crate::ops::panels::WIDTH;
use std::arch::asm;
use std::marker::PhantomData;
use std::sync::OnceLock;

/// Whether the processor has them and the system lets this process use them.
pub(super) fn usable() -> bool {
    static USABLE: OnceLock<bool> = OnceLock::new();
    *USABLE.get_or_init(|| detected() && permitted())
}

fn detected() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const BF16: u32 = 1 << 22;
    const TILES: u32 = 1 << 24;
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & (BF16 | TILES) == BF16 | TILES
}

/// Asks Linux for the tiles' place in a thread's saved state, which it only gives to who asks (arch/x86/xstate.rst).
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_PRCTL: usize = 158;
    const REQUEST: usize = 0x1023;
    const TILE_DATA: usize = 18;
    let result: isize;
    // SAFETY: a system call that reads and writes no memory.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") REQUEST,
            in("rsi") TILE_DATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// This thread's tiles, all of 16 rows of 64 bytes, until it is dropped there.
pub(super) struct Configured(PhantomData<*const ()>);

impl Configured {
    /// Only where tiles are [`usable`].
    pub(super) fn new() -> Self {
        #[repr(C, align(64))]
        struct Config {
            palette: u8,
            start: u8,
            reserved: [u8; 14],
            bytes: [u16; 16],
            rows: [u8; 16],
        }
        let mut config = Config { palette: 1, start: 0, reserved: [0; 14], bytes: [0; 16], rows: [0; 16] };
        config.bytes[..8].fill(64);
        config.rows[..8].fill(16);
        // SAFETY: reads 64 bytes that are there; a `Units` with tiles exists only where they are usable.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const config, options(nostack, preserves_flags)) };
        Self(PhantomData)
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        // SAFETY: gives the tiles back; they are configured.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags)) };
    }
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
