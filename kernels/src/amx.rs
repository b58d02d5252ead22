//! Intel's tile registers (AMX): whether they are there, and making a thread ready for them.
#![expect(unsafe_code, reason = "instructions that the compiler has no names for")]

use std::arch::asm;
use std::marker::PhantomData;
use std::sync::OnceLock;

/// Whether the processor multiplies tiles of bf16 and of 8-bit numbers, and the system lets this process.
pub(crate) fn usable() -> bool {
    static USABLE: OnceLock<bool> = OnceLock::new();
    *USABLE.get_or_init(|| detected() && permitted())
}

fn detected() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const BF16: u32 = 1 << 22;
    const TILES: u32 = 1 << 24;
    const INT8: u32 = 1 << 25;
    const ALL: u32 = BF16 | TILES | INT8;
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & ALL == ALL
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

/// Rows of a tile, and bytes of each.
pub(crate) type Shape = (u8, u16);

/// This thread's eight tiles, until it is dropped there.
pub(crate) struct Configured(PhantomData<*const ()>);

impl Configured {
    /// Only where tiles are [`usable`].
    pub(crate) fn new(shapes: [Shape; 8]) -> Self {
        #[repr(C, align(64))]
        struct Config {
            palette: u8,
            start: u8,
            reserved: [u8; 14],
            bytes: [u16; 16],
            rows: [u8; 16],
        }
        let mut config = Config { palette: 1, start: 0, reserved: [0; 14], bytes: [0; 16], rows: [0; 16] };
        for (tile, (rows, bytes)) in shapes.into_iter().enumerate() {
            config.rows[tile] = rows;
            config.bytes[tile] = bytes;
        }
        debug_assert!(usable(), "tiles on a processor without them");
        // SAFETY: reads 64 bytes that are there; `Units` with tiles exist only where they are usable.
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
