//! Intervals by resampling, the same wherever a figure is shown.

/// A mean with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Estimate {
    /// The mean.
    pub value: f64,
    /// 2.5 % quantile of the resampled means.
    pub low: f64,
    /// 97.5 % quantile.
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

/// 2.5 and 97.5 % quantiles of the mean over `resamples` bootstrap draws of whole clusters (Field and Welsh 2007,
/// doi:10.1111/j.1467-9868.2007.00593.x). `None` without clusters or draws.
pub fn bootstrap_interval(clusters: &[Cluster], resamples: usize, seed: u64) -> Option<(f64, f64)> {
    if clusters.is_empty() || resamples == 0 {
        return None;
    }
    let mut state = splitmix64(seed);
    let mut means: Vec<f64> = (0..resamples)
        .map(|_| {
            let mut total = Cluster::default();
            for _ in 0..clusters.len() {
                state = splitmix64(state);
                let drawn = clusters[(((state >> 32) * clusters.len() as u64) >> 32) as usize];
                total.sum += drawn.sum;
                total.size += drawn.size;
            }
            total.sum / total.size
        })
        .collect();
    means.sort_by(f64::total_cmp);
    let quantile = |q: f64| means[(q * (means.len() - 1) as f64).round() as usize];
    Some((quantile(0.025), quantile(0.975)))
}

/// Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators": the output function.
pub fn splitmix64(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_covers_the_mean_at_its_rate() {
        // 300 experiments of 60 coin flips at 0.3: the 95 % interval should hold 0.3 about 95 % of the time.
        let mut state = 5;
        let covered = (0..300)
            .filter(|&experiment| {
                let mut flip = || {
                    state = splitmix64(state);
                    f64::from((state >> 11) as f64 / (1u64 << 53) as f64 <= 0.3)
                };
                let flips: Vec<Cluster> = (0..60).map(|_| Cluster { sum: flip(), size: 1.0 }).collect();
                let (low, high) = bootstrap_interval(&flips, 400, experiment).unwrap();
                low <= 0.3 && 0.3 <= high
            })
            .count();
        assert!((270..=297).contains(&covered), "{covered} of 300");
    }

    #[test]
    fn clustering_widens_the_interval() {
        let value = |i: u32| f64::from(i % 20 < 6);
        let tasks: Vec<Cluster> = (0..200).map(|i| Cluster { sum: value(i), size: 1.0 }).collect();
        let problems: Vec<Cluster> = (0..20).map(|i| Cluster { sum: 10.0 * value(i), size: 10.0 }).collect();
        let width = |clusters: &[Cluster]| bootstrap_interval(clusters, 1000, 1).map(|(low, high)| high - low).unwrap();
        assert!(width(&problems) > 2.0 * width(&tasks));
        assert_eq!(bootstrap_interval(&[], 1000, 1), None);
    }
}
