//! Paired differences over the same problems.

use std::collections::BTreeMap;

/// A problem's samples on one side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Samples drawn.
    pub samples: u64,
    /// Of them, those that pass.
    pub passes: u64,
}

impl Tally {
    /// The share that passes: the unbiased estimate of pass@1.
    pub fn rate(self) -> f64 {
        if self.samples == 0 { 0.0 } else { self.passes as f64 / self.samples as f64 }
    }

    /// Whether at least half of the samples pass.
    pub fn is_solved(self) -> bool {
        self.samples > 0 && 2 * self.passes >= self.samples
    }
}

/// A mean with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Estimate {
    /// The mean over problems.
    pub value: f64,
    /// 2.5 % quantile of the resampled means.
    pub low: f64,
    /// 97.5 % quantile.
    pub high: f64,
}

/// Bootstrap draws behind an interval.
const RESAMPLES: usize = 4000;

/// The mean of each problem's difference `b − a`, with an interval by resampling whole problems (Efron and Tibshirani
/// 1993, ch. 8). `None` without problems.
pub(super) fn paired_difference(pairs: &[(Tally, Tally)]) -> Option<Estimate> {
    let values: Vec<f64> = pairs.iter().map(|(a, b)| b.rate() - a.rate()).collect();
    if values.is_empty() {
        return None;
    }
    let count = values.len() as u64;
    let mean = |sum: f64| sum / values.len() as f64;
    let mut state = 0x7472_6163_6574_756e;
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let draw = |_| values[((u128::from(splitmix64(&mut state)) * u128::from(count)) >> 64) as usize];
            mean((0..count).map(draw).sum())
        })
        .collect();
    means.sort_by(f64::total_cmp);
    let quantile = |q: f64| means[(q * (RESAMPLES - 1) as f64).round() as usize];
    Some(Estimate { value: mean(values.iter().sum()), low: quantile(0.025), high: quantile(0.975) })
}

/// McNemar's exact test (McNemar 1947, doi:10.1007/BF02295996; its exact form is a sign test): the two-sided
/// probability of discordant pairs at least as uneven as `lost` against `won`, if neither side were better.
pub(super) fn mcnemar(lost: u64, won: u64) -> f64 {
    let (discordant, fewer) = (lost + won, lost.min(won));
    if discordant == 0 {
        return 1.0;
    }
    // The binomial tail at one half, term by term in logarithms.
    let ln_half = -std::f64::consts::LN_2 * discordant as f64;
    let (mut ln_choose, mut tail) = (0.0f64, 0.0f64);
    for k in 0..=fewer {
        if k > 0 {
            ln_choose += ((discordant - k + 1) as f64 / k as f64).ln();
        }
        tail += (ln_choose + ln_half).exp();
    }
    (2.0 * tail).min(1.0)
}

/// Holm's step-down adjustment (Holm 1979): p-values that hold for all comparisons together, in the given order.
pub(super) fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut adjusted = vec![0.0; p_values.len()];
    let mut largest: f64 = 0.0;
    for (rank, &index) in order.iter().enumerate() {
        largest = largest.max((p_values[index] * (p_values.len() - rank) as f64).min(1.0));
        adjusted[index] = largest;
    }
    adjusted
}

/// The problems of both sides, with their tallies.
pub(super) fn pairs<'a>(a: &'a BTreeMap<String, Tally>, b: &BTreeMap<String, Tally>) -> Vec<(&'a str, (Tally, Tally))> {
    a.iter().filter_map(|(problem, tally)| Some((problem.as_str(), (*tally, *b.get(problem)?)))).collect()
}

/// Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators".
fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(samples: u64, passes: u64) -> Tally {
        Tally { samples, passes }
    }

    #[test]
    fn the_difference_is_paired() {
        // Every problem gains one of ten samples: no doubt about it, however different the problems are.
        let pairs: Vec<_> = (0..9).map(|passes| (tally(10, passes), tally(10, passes + 1))).collect();
        let difference = paired_difference(&pairs).unwrap();
        for value in [difference.value, difference.low, difference.high] {
            assert!((value - 0.1).abs() < 1e-12, "{difference:?}");
        }
        assert_eq!(paired_difference(&[]), None);
    }

    #[test]
    fn the_interval_covers_the_truth_at_its_rate() {
        let mut state = 11;
        let mut uniform = || splitmix64(&mut state) as f64 / u64::MAX as f64;
        let covered = (0..300)
            .filter(|_| {
                let draw = |chance: f64, uniform: &mut dyn FnMut() -> f64| tally(1, u64::from(uniform() < chance));
                let pairs: Vec<_> = (0..80).map(|_| (draw(0.3, &mut uniform), draw(0.5, &mut uniform))).collect();
                let difference = paired_difference(&pairs).unwrap();
                difference.low <= 0.2 && 0.2 <= difference.high
            })
            .count();
        assert!((272..=297).contains(&covered), "{covered} of 300");
    }

    #[test]
    fn mcnemar_is_the_exact_binomial() {
        assert_eq!(mcnemar(0, 0), 1.0);
        assert_eq!(mcnemar(3, 3), 1.0);
        // By hand: 2 * (1 + 10) / 2^10.
        assert!((mcnemar(1, 9) - 22.0 / 1024.0).abs() < 1e-12);
        assert_eq!(mcnemar(1, 9), mcnemar(9, 1));
        assert!(mcnemar(400, 600) < 1e-9);
    }

    #[test]
    fn holm_never_lowers_and_keeps_the_order() {
        let adjusted = holm(&[0.01, 0.04, 0.03, 0.2]);
        let expected = [0.04, 0.09, 0.09, 0.2];
        assert!(adjusted.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{adjusted:?}");
    }
}
