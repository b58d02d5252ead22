//! Metric rows, pass@k and the bootstrap: what evaluate, filter and train report.

pub use tracetune_engine::runs::{MetricRow, OutcomeRow};

use crate::prompt::splitmix64;

/// A count or another figure without an interval.
pub fn plain(split: &str, metric: &str, value: f64, n: usize) -> MetricRow {
    MetricRow {
        split: split.to_owned(),
        metric: metric.to_owned(),
        k: None,
        value,
        ci_low: None,
        ci_high: None,
        n: n as i64,
    }
}

/// The unbiased estimate of pass@k from `passes` of `samples` draws: 1 − C(n−c, k) / C(n, k).
///
/// Chen et al. 2021 (arXiv:2107.03374), Eq. 1. `None` if there are fewer than k draws.
pub fn pass_at_k(samples: usize, passes: usize, k: usize) -> Option<f64> {
    if k == 0 || samples < k {
        return None;
    }
    let failing = samples - passes;
    if failing < k {
        return Some(1.0);
    }
    let all_fail: f64 =
        (failing - k + 1..=failing).zip(samples - k + 1..=samples).map(|(a, b)| a as f64 / b as f64).product();
    Some(1.0 - all_fail)
}

/// A mean over tasks with its 95 % percentile-bootstrap interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The mean over tasks.
    pub mean: f64,
    /// 2.5 % quantile of the resampled means.
    pub low: f64,
    /// 97.5 % quantile.
    pub high: f64,
}

/// The mean of `values` with an interval from `resamples` bootstrap draws of whole clusters (Field and Welsh 2007,
/// doi:10.1111/j.1467-9868.2007.00593.x): tasks of one problem are not independent. `clusters[i]` is the cluster of
/// `values[i]`. `None` for no values.
pub fn clustered_bootstrap(values: &[f64], clusters: &[&str], resamples: usize, seed: u64) -> Option<Estimate> {
    if values.is_empty() {
        return None;
    }
    let mut sums: std::collections::BTreeMap<&str, (f64, f64)> = std::collections::BTreeMap::new();
    for (value, cluster) in values.iter().zip(clusters) {
        let sum = sums.entry(cluster).or_default();
        sum.0 += value;
        sum.1 += 1.0;
    }
    let sums: Vec<(f64, f64)> = sums.into_values().collect();
    let mut state = splitmix64(seed);
    let mut means: Vec<f64> = (0..resamples)
        .map(|_| {
            let (mut total, mut count) = (0.0, 0.0);
            for _ in 0..sums.len() {
                state = splitmix64(state);
                let (sum, size) = sums[(((state >> 32) * sums.len() as u64) >> 32) as usize];
                total += sum;
                count += size;
            }
            total / count
        })
        .collect();
    means.sort_by(f64::total_cmp);
    let quantile = |q: f64| means.get((q * (means.len() - 1) as f64).round() as usize).copied();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    Some(Estimate { mean, low: quantile(0.025).unwrap_or(mean), high: quantile(0.975).unwrap_or(mean) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition: the share of k-subsets of the draws that hold a passing one.
    fn by_enumeration(samples: usize, passes: usize, k: usize) -> f64 {
        let subsets: Vec<u32> = (0..1u32 << samples).filter(|set| set.count_ones() as usize == k).collect();
        let hits = subsets.iter().filter(|&&set| set & ((1 << passes) - 1) != 0).count();
        hits as f64 / subsets.len() as f64
    }

    #[test]
    fn pass_at_k_is_the_share_of_subsets_with_a_pass() {
        for samples in 1..=9 {
            for passes in 0..=samples {
                for k in 1..=samples {
                    let estimate = pass_at_k(samples, passes, k).unwrap();
                    assert!((estimate - by_enumeration(samples, passes, k)).abs() < 1e-12, "{samples} {passes} {k}");
                }
            }
        }
        assert_eq!(pass_at_k(4, 1, 5), None);
    }

    #[test]
    fn the_interval_covers_the_mean_at_its_rate() {
        // 300 experiments of 60 coin flips at 0.3: the 95 % interval should hold 0.3 about 95 % of the time.
        let mut state = 5;
        let mut covered = 0;
        for experiment in 0..300 {
            let names: Vec<String> = (0..60).map(|i| i.to_string()).collect();
            let clusters: Vec<&str> = names.iter().map(String::as_str).collect();
            let values: Vec<f64> = (0..60)
                .map(|_| {
                    state = splitmix64(state);
                    f64::from((state >> 11) as f64 / (1u64 << 53) as f64 <= 0.3)
                })
                .collect();
            let estimate = clustered_bootstrap(&values, &clusters, 400, experiment).unwrap();
            covered += usize::from(estimate.low <= 0.3 && 0.3 <= estimate.high);
        }
        assert!((270..=297).contains(&covered), "{covered} of 300");
    }

    #[test]
    fn clustering_widens_the_interval() {
        let values: Vec<f64> = (0..200).map(|i| f64::from(i % 20 < 6)).collect();
        let problems: Vec<String> = (0..200).map(|i| (i % 20).to_string()).collect();
        let tasks: Vec<String> = (0..200).map(|i| i.to_string()).collect();
        let width = |names: &[String]| {
            let clusters: Vec<&str> = names.iter().map(String::as_str).collect();
            let estimate = clustered_bootstrap(&values, &clusters, 1000, 1).unwrap();
            estimate.high - estimate.low
        };
        assert!(width(&problems) > 2.0 * width(&tasks));
    }
}
