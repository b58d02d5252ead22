//! Stored types, widened to float32: blocks of small integers with a scale, and for some a minimum.
//!
//! The orders of operations are those of ggml's reference, so the numbers are the same bits.

use half::{bf16, f16};

/// Numbers in a block of the simple types, and of the K types.
const BLOCK: usize = 32;
const SUPER: usize = 256;

/// A type that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Iq4Nl,
    Iq4Xs,
    Mxfp4,
}

impl Kind {
    /// All of them, for messages.
    pub(super) const SUPPORTED: &str =
        "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K to Q6_K, IQ4_NL, IQ4_XS and MXFP4";

    /// By its number in the format.
    pub(super) fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            10 => Self::Q2K,
            11 => Self::Q3K,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            20 => Self::Iq4Nl,
            23 => Self::Iq4Xs,
            30 => Self::Bf16,
            39 => Self::Mxfp4,
            _ => return None,
        })
    }

    /// (numbers, bytes) of a block.
    fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q4_0 => (BLOCK, 2 + 16),
            Self::Q4_1 => (BLOCK, 4 + 16),
            Self::Q5_0 => (BLOCK, 2 + 4 + 16),
            Self::Q5_1 => (BLOCK, 4 + 4 + 16),
            Self::Q8_0 => (BLOCK, 2 + 32),
            Self::Q2K => (SUPER, 16 + 64 + 4),
            Self::Q3K => (SUPER, 32 + 64 + 12 + 2),
            Self::Q4K => (SUPER, 4 + 12 + 128),
            Self::Q5K => (SUPER, 4 + 12 + 32 + 128),
            Self::Q6K => (SUPER, 128 + 64 + 16 + 2),
            Self::Iq4Nl => (BLOCK, 2 + 16),
            Self::Iq4Xs => (SUPER, 2 + 2 + 4 + 128),
            Self::Mxfp4 => (BLOCK, 1 + 16),
        }
    }

    /// Bytes of so many numbers, if they fill whole blocks.
    pub(super) fn bytes(self, numbers: usize) -> Option<usize> {
        let (block, bytes) = self.block();
        if numbers.is_multiple_of(block) { (numbers / block).checked_mul(bytes) } else { None }
    }
}

/// Widens `bytes` into `values`.
pub(super) fn widen(kind: Kind, bytes: &[u8], values: &mut [f32]) -> Result<(), String> {
    if kind.bytes(values.len()) != Some(bytes.len()) {
        return Err(format!("{} bytes are not {} numbers of type {kind:?}", bytes.len(), values.len()));
    }
    let (numbers, size) = kind.block();
    for (y, block) in values.chunks_exact_mut(numbers).zip(bytes.chunks_exact(size)) {
        match kind {
            Kind::F32 => y[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]),
            Kind::F16 => y[0] = half_at(block, 0),
            Kind::Bf16 => y[0] = bf16::from_le_bytes([block[0], block[1]]).to_f32(),
            Kind::Q4_0 => {
                let d = half_at(block, 0);
                nibbles(y, &block[2..], |_, q| (f32::from(q) - 8.0) * d);
            }
            Kind::Q4_1 => {
                let (d, m) = (half_at(block, 0), half_at(block, 2));
                nibbles(y, &block[4..], |_, q| f32::from(q) * d + m);
            }
            Kind::Q5_0 => {
                let (d, high) = (half_at(block, 0), u32::from_le_bytes([block[2], block[3], block[4], block[5]]));
                nibbles(y, &block[6..], |i, q| (f32::from(q | ((high >> i & 1) << 4) as u8) - 16.0) * d);
            }
            Kind::Q8_0 => {
                let d = half_at(block, 0);
                y.iter_mut().zip(&block[2..]).for_each(|(y, q)| *y = f32::from(*q as i8) * d);
            }
            Kind::Q5_1 => {
                let (d, m) = (half_at(block, 0), half_at(block, 2));
                let high = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
                nibbles(y, &block[8..], |i, q| d * f32::from(q | ((high >> i & 1) << 4) as u8) + m);
            }
            Kind::Q2K => q2_k(y, block),
            Kind::Q3K => q3_k(y, block),
            Kind::Q4K => q4_k(y, block),
            Kind::Q5K => q5_k(y, block),
            Kind::Q6K => q6_k(y, block),
            Kind::Iq4Nl => {
                let d = half_at(block, 0);
                nibbles(y, &block[2..], |_, q| d * f32::from(IQ4[usize::from(q)]));
            }
            Kind::Iq4Xs => iq4_xs(y, block),
            Kind::Mxfp4 => {
                let d = half_power(block[0]);
                nibbles(y, &block[1..], |_, q| d * f32::from(E2M1[usize::from(q)]));
            }
        }
    }
    Ok(())
}

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// The lower halves of the bytes come first, then the upper ones.
fn nibbles(y: &mut [f32], bytes: &[u8], number: impl Fn(usize, u8) -> f32) {
    let (low, high) = y.split_at_mut(bytes.len());
    for (i, ((low, high), byte)) in low.iter_mut().zip(high).zip(bytes).enumerate() {
        (*low, *high) = (number(i, byte & 15), number(i + bytes.len(), byte >> 4));
    }
}

/// What four bits stand for in the IQ4 types: closer together around 0.
const IQ4: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Twice the numbers of the type E2M1 (OCP Microscaling Formats, version 1.0).
const E2M1: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Half of the power of two that a byte of the type E8M0 stands for.
fn half_power(exponent: u8) -> f32 {
    let exponent = u32::from(exponent);
    f32::from_bits(if exponent < 2 { 0x0020_0000 << exponent } else { (exponent - 1) << 23 })
}

/// The 6-bit scale and the 6-bit minimum of one of eight sub-blocks.
fn scale_and_minimum(packed: &[u8], j: usize) -> (u8, u8) {
    match j {
        0..4 => (packed[j] & 63, packed[j + 4] & 63),
        _ => (packed[j + 4] & 15 | (packed[j - 4] >> 6) << 4, packed[j + 4] >> 4 | (packed[j] >> 6) << 4),
    }
}

/// Two bits of a number: halves of 128 numbers, in each of which four quarters of 32 share their bytes.
fn two_bits(bytes: &[u8], i: usize) -> u8 {
    bytes[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3
}

/// Sixteen sub-blocks of 16, each with a 4-bit scale and a 4-bit minimum; numbers of 2 bits.
fn q2_k(y: &mut [f32], block: &[u8]) {
    let (scales, bits) = block.split_at(16);
    let (d, least) = (half_at(block, 80), half_at(block, 82));
    for (i, y) in y.iter_mut().enumerate() {
        let scale = scales[i / 16];
        *y = d * f32::from(scale & 15) * f32::from(two_bits(bits, i)) - least * f32::from(scale >> 4);
    }
}

/// Sixteen sub-blocks of 16, each with a 6-bit scale; numbers of 3 bits, two low ones and one high one apart.
fn q3_k(y: &mut [f32], block: &[u8]) {
    let (high, rest) = block.split_at(32);
    let (low, packed) = rest.split_at(64);
    let d = half_at(block, 108);
    let scale = |j: usize| (packed[j % 8] >> (j / 8 * 4) & 15 | (packed[8 + j % 4] >> (j / 4 * 2) & 3) << 4) as i8 - 32;
    for (i, y) in y.iter_mut().enumerate() {
        let missing = (high[i % 32] >> (i / 32) & 1) ^ 1;
        let q = two_bits(low, i) as i8 - 4 * missing as i8;
        *y = d * f32::from(scale(i / 16)) * f32::from(q);
    }
}

/// Eight sub-blocks of 32, each with a 6-bit scale and a 6-bit minimum.
fn q4_k(y: &mut [f32], block: &[u8]) {
    let (d, least) = (half_at(block, 0), half_at(block, 2));
    let (packed, bytes) = block[4..].split_at(12);
    let scale = |j: usize| scale_and_minimum(packed, j);
    for (pair, (y, bytes)) in y.chunks_exact_mut(64).zip(bytes.chunks_exact(32)).enumerate() {
        let scales = [scale(2 * pair), scale(2 * pair + 1)].map(|(s, m)| (d * f32::from(s), least * f32::from(m)));
        nibbles(y, bytes, |i, q| scales[i / 32].0 * f32::from(q) - scales[i / 32].1);
    }
}

/// As [`q4_k`], with a fifth bit of each number apart.
fn q5_k(y: &mut [f32], block: &[u8]) {
    let (d, least) = (half_at(block, 0), half_at(block, 2));
    let (packed, rest) = block[4..].split_at(12);
    let (high, low) = rest.split_at(32);
    for (i, y) in y.iter_mut().enumerate() {
        let (sub_block, at) = (i / 32, i % 32);
        let (scale, minimum) = scale_and_minimum(packed, sub_block);
        let q = low[i / 64 * 32 + at] >> (sub_block % 2 * 4) & 15 | (high[at] >> sub_block & 1) << 4;
        *y = d * f32::from(scale) * f32::from(q) - least * f32::from(minimum);
    }
}

/// Eight sub-blocks of 32, each with a 6-bit scale; four bits a number, which stand for [`IQ4`].
fn iq4_xs(y: &mut [f32], block: &[u8]) {
    let (d, high) = (half_at(block, 0), u16::from_le_bytes([block[2], block[3]]));
    let (low, bytes) = block[4..].split_at(4);
    for (j, (y, bytes)) in y.chunks_exact_mut(32).zip(bytes.chunks_exact(16)).enumerate() {
        let scale = (low[j / 2] >> (j % 2 * 4) & 15 | ((high >> (2 * j) & 3) << 4) as u8) as i8 - 32;
        let d = d * f32::from(scale);
        nibbles(y, bytes, |_, q| d * f32::from(IQ4[usize::from(q)]));
    }
}

/// Sixteen sub-blocks of 16, each with an 8-bit scale; numbers of 6 bits, four low ones and two high ones apart.
fn q6_k(y: &mut [f32], block: &[u8]) {
    let (low, rest) = block.split_at(128);
    let (high, rest) = rest.split_at(64);
    let d = half_at(rest, 16);
    for (i, y) in y.iter_mut().enumerate() {
        // Halves of 128 numbers; in each, four quarters of 32 share their bytes.
        let (half, quarter, at) = (i / 128, i / 32 % 4, i % 32);
        let bits = low[half * 64 + quarter % 2 * 32 + at] >> (quarter / 2 * 4) & 15;
        let q = bits | (high[half * 32 + at] >> (quarter * 2) & 3) << 4;
        *y = d * f32::from(rest[i / 16] as i8) * (f32::from(q) - 32.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Block {
        r#type: u32,
        bytes: Vec<u8>,
        values: Vec<f32>,
    }

    #[test]
    fn blocks_of_random_bits_widen_as_the_reference_does() {
        let text = include_str!("../../../../tests/fixtures/models/quants.json");
        let blocks: Vec<Block> = serde_json::from_str(text).expect("the fixture");
        assert_eq!(blocks.len(), 9);
        for Block { r#type, bytes, values } in blocks {
            let kind = Kind::from_number(r#type).expect("a type that can be read");
            let mut found = vec![0.0; values.len()];
            widen(kind, &bytes, &mut found).expect("whole blocks");
            assert_eq!(found, values, "{kind:?}");
            assert!(widen(kind, &bytes[1..], &mut found).is_err());
        }
    }
}
