//! Paired differences over the same problems.

use crate::statistics::{Bounds, Cluster, Estimate, mean_interval};

/// A problem's samples on one side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Samples drawn.
    pub samples: u64,
    /// Of them, those that pass.
    pub passes: u64,
}

impl Tally {
    /// Counts other draws too.
    pub(super) fn add(&mut self, other: Self) {
        self.samples += other.samples;
        self.passes += other.passes;
    }

    /// The share that passes: the unbiased estimate of pass@1.
    pub fn rate(self) -> f64 {
        if self.samples == 0 { 0.0 } else { self.passes as f64 / self.samples as f64 }
    }

    /// Whether at least half of the samples pass.
    pub fn is_solved(self) -> bool {
        self.samples > 0 && 2 * self.passes >= self.samples
    }
}

/// The mean difference over tasks, from the sum of each problem's, with an interval over problems. `None` without problems.
pub(super) fn paired_difference(problems: &[Cluster]) -> Option<Estimate> {
    mean_interval(problems, Bounds::DIFFERENCE)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_is_paired() {
        // Rates from 0 to 96 %, each problem gaining 2 to 4 of 100 draws: however different the problems are, the gain is sure.
        let rate = |passes| Tally { samples: 100, passes }.rate();
        let gain = |problem| Cluster { sum: rate(problem + 2 + problem % 3) - rate(problem), size: 1.0 };
        let difference = paired_difference(&(0..96).map(gain).collect::<Vec<_>>()).unwrap();
        assert!((difference.value - 0.03).abs() < 1e-12, "{difference:?}");
        assert!(difference.low > 0.02 && difference.high < 0.06, "{difference:?}");
        assert_eq!(paired_difference(&[]), None);
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
