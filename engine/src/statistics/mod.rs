//! Figures with intervals, the same wherever one is shown: of a mean over problems ([`mean_interval`]), and of what
//! several seeds gave together ([`pool`], [`pool_figures`]). Everything here is a function of its arguments, by
//! arithmetic that is the same on every machine; `benches/coverage.rs` shows how often the intervals hold the truth.

mod exponentials;
mod interval;
mod seeds;
mod student;

pub use interval::mean_interval;
pub use seeds::{pool, pool_figures};

/// A mean with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Estimate {
    /// The mean.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Observations that are not independent of each other, such as the tasks made from one problem.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cluster {
    /// Their sum.
    pub sum: f64,
    /// How many they are, or their weight.
    pub size: f64,
}

impl Cluster {
    fn mean(self) -> f64 {
        self.sum / self.size
    }
}

/// Between which values an observation can lie at all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// The least.
    pub low: f64,
    /// The greatest.
    pub high: f64,
}

impl Bounds {
    /// Of a share or a probability: 0 to 1.
    pub const SHARE: Self = Self { low: 0.0, high: 1.0 };
    /// Of a difference of two shares: −1 to 1.
    pub const DIFFERENCE: Self = Self { low: -1.0, high: 1.0 };
    /// Of anything.
    pub const NONE: Self = Self { low: f64::NEG_INFINITY, high: f64::INFINITY };
}

/// Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators": the output function.
pub fn splitmix64(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
