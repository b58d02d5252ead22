//! Numbers of two bytes: the upper half of an f32, rounded to nearest, to the even one of two (IEEE 754 §4.3.1).

use crate::simd::vectorised;

/// What has no fraction left after its upper half is a number again: this bit keeps NaN one.
const QUIET: u32 = 0x0040_0000;

#[inline(always)]
pub(super) fn rounded(value: f32) -> u32 {
    let bits = value.to_bits();
    if value.is_nan() { bits | QUIET } else { bits.wrapping_add(0x7fff + (bits >> 16 & 1)) }
}

vectorised! {
    /// The upper halves of the rounded numbers.
    pub(crate) fn halve(to: &mut [u16], from: &[f32]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = (rounded(*from) >> 16) as u16;
        }
    }
}

vectorised! {
    /// Numbers from their upper halves.
    pub(crate) fn widen(to: &mut [f32], from: &[u16]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = f32::from_bits(u32::from(*from) << 16);
        }
    }
}

vectorised! {
    /// Halves and widens.
    pub(crate) fn round(values: &mut [f32]) {
        for value in values {
            *value = f32::from_bits(rounded(*value) & 0xffff_0000);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Level;
    use half::bf16;

    #[test]
    fn every_kind_of_number_is_rounded_as_the_standard_says() {
        let upper = (0..=u16::MAX).map(|upper| u32::from(upper) << 16);
        let bits = upper.flat_map(|upper| [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff].map(|lower| upper | lower));
        let values: Vec<f32> = bits.map(f32::from_bits).collect();
        for level in Level::available() {
            let (mut halves, mut wide, mut round_trip) =
                (vec![0; values.len()], vec![0.0; values.len()], values.clone());
            halve(level, &mut halves, &values);
            widen(level, &mut wide, &halves);
            round(level, &mut round_trip);
            for (at, value) in values.iter().enumerate() {
                assert_eq!(halves[at], bf16::from_f32(*value).to_bits(), "{value}");
                assert_eq!(wide[at].to_bits(), round_trip[at].to_bits(), "{value}");
            }
        }
    }
}
