//! Buffers and dtypes: what the back ends have in common, and the CPU as one of them.

use crate::simd::Level;

/// Where a back end keeps its numbers. An operation is a trait over this, so a missing twin is a compile error.
pub trait Memory {
    /// A buffer of 32-bit floats.
    type F32: ?Sized;
    /// A buffer of token ids or positions.
    type U32: ?Sized;
}

/// The processor: plain slices, and the widest SIMD instructions found when it was made.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    pub(crate) level: Level,
}

impl Cpu {
    /// With the best instructions this processor has.
    pub fn new() -> Self {
        Self { level: Level::detect() }
    }

    /// With a given instruction set: the results are the same bits, only slower or faster.
    pub fn with_level(level: Level) -> Self {
        Self { level }
    }

    /// The instruction set in use.
    pub fn level(&self) -> Level {
        self.level
    }
}

impl Default for Cpu {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory for Cpu {
    type F32 = [f32];
    type U32 = [u32];
}
