//! Metric rows, pass@k and means over problems: what evaluate, filter and train report.

use std::collections::BTreeMap;

pub use tracetune_engine::runs::{MetricRow, OutcomeRow};
pub use tracetune_engine::statistics::Bounds;
use tracetune_engine::statistics::{Cluster, Estimate, mean_interval};

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

/// What stands in a list a second time: two figures would have one name.
pub fn twice<T: PartialEq>(values: &[T]) -> Option<&T> {
    values.iter().enumerate().find(|(place, value)| values[..*place].contains(value)).map(|(_, value)| value)
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

/// The mean of `values`, which lie within `bounds`, with a 95 % interval over clusters: tasks of one problem are not
/// independent. `clusters[i]` is the cluster of `values[i]`. `None` for no values, and for equal ones without bounds.
pub fn clustered_mean(values: &[f64], clusters: &[&str], bounds: Bounds) -> Option<Estimate> {
    let mut sums: BTreeMap<&str, Cluster> = BTreeMap::new();
    for (value, cluster) in values.iter().zip(clusters) {
        let sum = sums.entry(cluster).or_default();
        sum.sum += value;
        sum.size += 1.0;
    }
    mean_interval(&sums.into_values().collect::<Vec<_>>(), bounds)
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
}
