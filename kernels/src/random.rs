//! Counter-based random numbers: a number is addressed by (seed, position), never drawn from a shared stream.
//!
//! The mixer is SplitMix64's finalizer (Steele, Lea & Flood 2014), which has no state to keep or to order.

/// 64 random bits at an address.
#[inline]
pub fn bits(seed: u64, position: u64) -> u64 {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    mix(mix(seed.wrapping_add(GOLDEN)).wrapping_add(position.wrapping_add(1).wrapping_mul(GOLDEN)))
}

/// Uniform in [0, 1), a multiple of 2^-24.
#[inline]
pub fn uniform(seed: u64, position: u64) -> f32 {
    (bits(seed, position) >> 40) as f32 * (1.0 / 16_777_216.0)
}

/// Close to a standard normal, within ±6: the sum of twelve uniforms less six, exact and so the same on every platform.
pub fn normal(seed: u64, position: u64) -> f32 {
    let parts: u64 = (0..12).map(|i| bits(seed, position.wrapping_mul(12).wrapping_add(i)) >> 32).sum();
    (parts as f64 / 4_294_967_296.0 - 6.0) as f32
}

/// A permutation of 0..n: Fisher-Yates with numbers at positions of their own.
pub fn permutation(n: usize, seed: u64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..n as u32).collect();
    for i in (1..n).rev() {
        let j = (u128::from(bits(seed, i as u64)) * (i as u128 + 1)) >> 64;
        order.swap(i, j as usize);
    }
    order
}

#[inline]
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_numbers_have_mean_zero_and_variance_one() {
        let n = 20_000u64;
        let x: Vec<f64> = (0..n).map(|i| f64::from(normal(3, i))).collect();
        let mean = x.iter().sum::<f64>() / n as f64;
        let variance = x.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n as f64;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    }

    #[test]
    fn a_permutation_holds_each_number_once() {
        let mut order = permutation(100, 5);
        assert_ne!(order, (0..100).collect::<Vec<u32>>());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<u32>>());
    }
}
