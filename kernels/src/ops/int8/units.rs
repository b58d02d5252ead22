//! The parts of a processor that can multiply 8-bit numbers: one order, at different speeds.

#[cfg(target_arch = "aarch64")]
use super::arm;
use super::{Tile, scalar};
#[cfg(target_arch = "x86_64")]
use super::{amx, x86};
use crate::ops::tiles::Out;
use crate::simd::{Kind, Level};

/// What multiplies; made by detection only, which is what makes it safe to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Units(Choice);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Vnni,
    /// And VNNI for few rows.
    #[cfg(target_arch = "x86_64")]
    Amx,
    #[cfg(target_arch = "aarch64")]
    Dotprod,
}

impl Units {
    #[cfg(test)]
    pub(super) const SCALAR: Self = Self(Choice::Scalar);

    /// The fastest of a processor that is used up to this level.
    pub(super) fn best(level: Level) -> Self {
        Self(match level.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 if vnni() && crate::amx::usable() => Choice::Amx,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 if vnni() => Choice::Vnni,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 | Kind::Avx512 => Choice::Avx2,
            #[cfg(target_arch = "aarch64")]
            Kind::Neon if std::arch::is_aarch64_feature_detected!("dotprod") => Choice::Dotprod,
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => Choice::Scalar,
            Kind::Scalar => Choice::Scalar,
        })
    }

    /// All that this processor has.
    #[cfg(test)]
    pub(super) fn available() -> Vec<Self> {
        let best = Level::available().into_iter().map(Self::best);
        #[cfg(target_arch = "x86_64")]
        let best = best.chain((Self::best(Level::detect()).0 == Choice::Amx).then_some(Self(Choice::Vnni)));
        best.collect()
    }

    /// Instructions beyond those of the processor's level.
    pub(super) fn extensions(self) -> &'static [&'static str] {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Choice::Amx => &["avx512-vnni", "amx-int8"],
            #[cfg(target_arch = "x86_64")]
            Choice::Vnni => &["avx512-vnni"],
            #[cfg(target_arch = "aarch64")]
            Choice::Dotprod => &["dotprod"],
            _ => &[],
        }
    }

    pub(super) fn multiply(self, tile: &Tile, mut c: Out) {
        match self.0 {
            Choice::Scalar => scalar(tile, &mut c),
            #[cfg(target_arch = "x86_64")]
            Choice::Avx2 => x86::avx2(tile, &mut c),
            #[cfg(target_arch = "x86_64")]
            Choice::Vnni => x86::vnni(tile, &mut c),
            #[cfg(target_arch = "x86_64")]
            Choice::Amx if c.rows() < amx::FEWEST => x86::vnni(tile, &mut c),
            #[cfg(target_arch = "x86_64")]
            Choice::Amx => amx::multiply(tile, &mut c),
            #[cfg(target_arch = "aarch64")]
            Choice::Dotprod => arm::dotprod(tile, &mut c),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn vnni() -> bool {
    is_x86_feature_detected!("avx512vnni")
}
