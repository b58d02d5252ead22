//! Buffers and dtypes: what the back ends have in common, and the CPU as one of them.

use crate::simd::Level;
use bytemuck::{Pod, Zeroable};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

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

/// Numbers that start on a cache line, so that no vector load straddles two; as many as fill the last line.
#[derive(Clone, Debug)]
pub(crate) struct Lines<T = f32>(Vec<Line>, PhantomData<T>);

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

impl<T: Pod> Lines<T> {
    pub(crate) const fn new() -> Self {
        Self(Vec::new(), PhantomData)
    }

    /// Room for at least so many numbers; new ones are zero.
    pub(crate) fn resize(&mut self, numbers: usize) {
        self.0.resize((numbers * size_of::<T>()).div_ceil(size_of::<Line>()), Line([0; 64]));
    }
}

impl<T: Pod> Default for Lines<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Pod> Deref for Lines<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        bytemuck::cast_slice(&self.0)
    }
}

impl<T: Pod> DerefMut for Lines<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}
