//! Which vector instructions to use, found at run time, and the macro that compiles one function for each of them.
//!
//! The loops are written once, in plain Rust, with lanes that are different outputs; the compiler vectorises them for each
//! instruction set. It never reorders floating-point sums nor fuses what is written apart, so all forms give the same bits.

use crate::ops::{halves, int8};

/// An instruction set that this processor is known to have; made by detection only, which is what makes it safe to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level(pub(crate) Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Level {
    /// The widest set this processor has.
    pub fn detect() -> Self {
        *Self::available().last().unwrap_or(&Self::SCALAR)
    }

    /// One lane at a time, on any processor.
    pub const SCALAR: Self = Self(Kind::Scalar);

    /// Every set this processor has, narrowest first.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut, reason = "only some builds add to it")]
        let mut levels = vec![Self::SCALAR];
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if avx2 {
                levels.push(Self(Kind::Avx2));
            }
            if avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
            {
                levels.push(Self(Kind::Avx512));
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            levels.push(Self(Kind::Neon));
        }
        levels
    }

    /// Further instructions, for products in bf16 and in 8 bits.
    pub fn extensions(self) -> Vec<&'static str> {
        let tiles = halves::has_tiles(self).then_some("amx-bf16");
        tiles.into_iter().chain(int8::extensions(self).iter().copied()).collect()
    }

    /// The set's name.
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => "neon",
        }
    }
}

/// Compiles `fn name(args) { body }` once for each instruction set, as `name(level, args)`.
macro_rules! vectorised {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments, reason = "an operation's operands")]
        $vis fn $name(level: $crate::simd::Level, $($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments, reason = "an operation's operands")]
            fn plain($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            #[allow(clippy::too_many_arguments, reason = "an operation's operands")]
            fn avx2($($arg: $ty),*) $(-> $ret)? {
                plain($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            #[allow(clippy::too_many_arguments, reason = "an operation's operands")]
            fn avx512($($arg: $ty),*) $(-> $ret)? {
                plain($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "a function compiled for instructions that not every processor has")]
            match level.0 {
                $crate::simd::Kind::Scalar => plain($($arg),*),
                // SAFETY: a `Level` is made by `Level::available` only, which has detected these features.
                $crate::simd::Kind::Avx2 => unsafe { avx2($($arg),*) },
                // SAFETY: as above.
                $crate::simd::Kind::Avx512 => unsafe { avx512($($arg),*) },
            }
            #[cfg(not(target_arch = "x86_64"))]
            {
                let _ = level;
                plain($($arg),*)
            }
        }
    };
}
pub(crate) use vectorised;
