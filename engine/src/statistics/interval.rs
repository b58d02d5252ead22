//! The interval of a mean over problems.

use super::exponentials::{Weight, below_zero};
use super::{Bounds, Cluster, Estimate};

/// The mean of all observations with a 95 % interval, whole clusters being independent of each other. `None` without
/// observations, with values that are no numbers, or if there is nothing to tell a spread from: equal values, of which
/// `bounds` does not say how far others could lie from them.
///
/// It is a Bayesian bootstrap (Rubin 1981, doi:10.1214/aos/1176345338), which weighs the clusters by independent
/// exponentials, with one more cluster that was not seen, as in Gaffke's bound (Gaffke 2005; Learned-Miller and Thomas
/// 2019, arXiv:1905.06208). For zeros and ones with `bounds` 0 to 1 it is the Clopper-Pearson interval with mid-p (Lancaster
/// 1961; Berry and Armitage 1995, doi:10.2307/2348891): the unseen cluster lies at the lower and at the upper end with
/// equal probability. So 0 of 20 is 0 to 13.9 %, whereas the percentile bootstrap has 0 to 0.
///
/// Where more is known, the unseen cluster lies nearer: `k` clusters beyond the median were drawn on that side without
/// meeting the bound, so it is put at `largest + (bound − largest) / √(k + 1)`, and likewise below. (A further cluster of that
/// side exceeds the largest with probability 1 / (k + 1); the root is the cautious side of that, by `benches/coverage.rs`.)
///
/// The estimate is always inside. Nothing is drawn: the distribution is integrated.
pub fn mean_interval(clusters: &[Cluster], bounds: Bounds) -> Option<Estimate> {
    let clusters: Vec<Cluster> = clusters.iter().copied().filter(|cluster| cluster.size > 0.0).collect();
    if clusters.is_empty() || clusters.iter().any(|cluster| !cluster.sum.is_finite() || !cluster.size.is_finite()) {
        return None;
    }
    let unseen = unseen(&clusters, bounds)?;
    let value = mean(&clusters);
    let low = lower_end(&clusters, unseen, value);
    let negated: Vec<Cluster> = clusters.iter().map(|cluster| Cluster { sum: -cluster.sum, ..*cluster }).collect();
    let high = -lower_end(&negated, Bounds { low: -unseen.high, high: -unseen.low }, -value);
    Some(Estimate { value, low, high })
}

/// The mean of all observations.
pub(super) fn mean(clusters: &[Cluster]) -> f64 {
    let total = |part: fn(&Cluster) -> f64| clusters.iter().map(part).sum::<f64>();
    total(|cluster| cluster.sum) / total(|cluster| cluster.size)
}

/// Where the cluster that was not seen lies, below and above.
fn unseen(clusters: &[Cluster], bounds: Bounds) -> Option<Bounds> {
    let mut means: Vec<f64> = clusters.iter().map(|cluster| cluster.mean()).collect();
    means.sort_by(f64::total_cmp);
    let (least, greatest) = (means[0], means[means.len() - 1]);
    let median = f64::midpoint(means[(means.len() - 1) / 2], means[means.len() / 2]);
    // What has no bound might lie as far out again as the values do among themselves.
    let spread = greatest - least;
    let or_spread = |bound: f64, spread: f64| if bound.is_finite() { bound } else { spread };
    let low = or_spread(bounds.low, least - spread).min(least);
    let high = or_spread(bounds.high, greatest + spread).max(greatest);
    if low == high {
        return None;
    }
    let nearer = |is_beyond: &dyn Fn(&f64) -> bool| {
        let beyond = means.iter().filter(|mean| is_beyond(mean)).count();
        1.0 / ((beyond + 1) as f64).sqrt()
    };
    Some(Bounds {
        low: least - (least - low) * nearer(&|mean| *mean < median),
        high: greatest + (high - greatest) * nearer(&|mean| *mean > median),
    })
}

/// What the lower end leaves out of the distribution.
const TAIL: f64 = 0.025;
/// How exactly an end is sought, as a part of the range and in probability.
const PRECISION: f64 = 1e-13;

fn lower_end(clusters: &[Cluster], unseen: Bounds, value: f64) -> f64 {
    let groups = grouped(clusters);
    let size = clusters.iter().map(|cluster| cluster.size).sum::<f64>() / clusters.len() as f64;
    let mut weights: Vec<Weight> = groups.iter().map(|&(_, count)| Weight { value: 0.0, count }).collect();
    weights.push(Weight { value: 0.0, count: 1 });
    // The probability that the mean is at most `mean`.
    let mut below = |mean: f64| {
        for (weight, (cluster, _)) in weights.iter_mut().zip(&groups) {
            weight.value = cluster.sum - mean * cluster.size;
        }
        let mut with = |unseen: f64| {
            if let Some(last) = weights.last_mut() {
                last.value = (unseen - mean) * size;
            }
            below_zero(&weights)
        };
        f64::midpoint(with(unseen.low), with(unseen.high))
    };
    let at_unseen = below(unseen.low) - TAIL;
    if at_unseen >= 0.0 {
        return unseen.low;
    }
    // It lies below the estimate: a sum of exponentials is log-concave, so it is at most its mean with probability 1/e or
    // more (Grünbaum 1960), and the unseen cluster at the lower end only adds to that.
    let (mut low, mut high) = ((unseen.low, at_unseen), (value, below(value) - TAIL));
    // Regula falsi with halved weights (Illinois), and every third time a bisection, for certainty.
    for step in 0..120 {
        let secant = (low.0 * high.1 - high.0 * low.1) / (high.1 - low.1);
        let is_between = low.0 < secant && secant < high.0 && step % 3 < 2;
        let middle = if is_between { secant } else { f64::midpoint(low.0, high.0) };
        let excess = below(middle) - TAIL;
        if excess < 0.0 {
            low = (middle, excess);
            high.1 /= 2.0;
        } else {
            high = (middle, excess);
            low.1 /= 2.0;
        }
        if excess.abs() < PRECISION || high.0 - low.0 < PRECISION * (value - unseen.low) {
            return middle;
        }
    }
    low.0
}

/// The distinct clusters, and how many there are of each: rates over equally many draws are few.
fn grouped(clusters: &[Cluster]) -> Vec<(Cluster, u64)> {
    let mut sorted = clusters.to_vec();
    sorted.sort_by(|a, b| a.sum.total_cmp(&b.sum).then(a.size.total_cmp(&b.size)));
    let mut groups: Vec<(Cluster, u64)> = Vec::new();
    for cluster in sorted {
        match groups.last_mut() {
            Some((last, count)) if *last == cluster => *count += 1,
            _ => groups.push((cluster, 1)),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ones(passed: usize, of: usize) -> Vec<Cluster> {
        (0..of).map(|place| Cluster { sum: f64::from(u8::from(place < passed)), size: 1.0 }).collect()
    }

    fn assert_interval(clusters: &[Cluster], bounds: Bounds, expected: [f64; 3]) {
        let found = mean_interval(clusters, bounds).unwrap();
        for (found, expected) in [found.value, found.low, found.high].into_iter().zip(expected) {
            assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
        }
    }

    /// From expected.py, as all numbers here.
    #[test]
    fn zeros_and_ones_have_the_mid_p_interval_of_clopper_and_pearson() {
        for (passed, of, low, high) in [
            (0, 20, 0.0, 0.139_108_340_668_265_22),
            (1, 20, 0.002_500_872_831_560_289_7, 0.222_806_055_717_627_63),
            (10, 20, 0.288_643_247_916_998_8, 0.711_356_752_083_001_2),
            (20, 20, 0.860_891_659_331_734_8, 1.0),
            (0, 1, 0.0, 0.95),
            (1, 1, 0.05, 1.0),
            (1, 2, 0.025, 0.975),
            (8, 400, 0.009_330_657_961_892_294, 0.037_621_692_092_771_254),
            (390, 400, 0.955_893_106_435_600_8, 0.987_232_920_968_735_7),
        ] {
            assert_interval(&ones(passed, of), Bounds::SHARE, [passed as f64 / of as f64, low, high]);
        }
    }

    #[test]
    fn differences_clusters_and_free_values_have_the_interval_of_partial_fractions() {
        let means = |means: &[f64]| means.iter().map(|&sum| Cluster { sum, size: 1.0 }).collect::<Vec<_>>();
        let differences = means(&[0.5, 0.0, -0.25, 0.125, -0.0625, 0.75, 0.25, 0.375]);
        let expected = [0.210_937_5, -0.079_790_884_412_020_91, 0.473_570_836_713_834_93];
        assert_interval(&differences, Bounds::DIFFERENCE, expected);
        let clusters = [(2.0, 4.0), (0.0, 2.0), (5.0, 5.0), (1.0, 1.5), (3.0, 8.0)];
        let clusters = clusters.map(|(sum, size)| Cluster { sum, size });
        let expected = [0.536_585_365_853_658_6, 0.237_029_894_268_940_92, 0.836_805_042_452_401_2];
        assert_interval(&clusters, Bounds::SHARE, expected);
        let expected = [5.4, 0.209_218_604_099_495_3, 11.623_679_073_854_795];
        assert_interval(&means(&[3.0, 7.0, 1.0, 12.0, 4.0]), Bounds::NONE, expected);
    }

    #[test]
    fn problems_that_do_not_differ_have_the_width_of_what_may_be_unseen() {
        let none = vec![Cluster { sum: 0.0, size: 8.0 }; 20];
        // As 0 of 20 in both directions: half of the unseen problem's probability is in each.
        let bound = 0.139_108_340_668_265_22;
        assert_interval(&none, Bounds::DIFFERENCE, [0.0, -bound, bound]);
        let mut one = none;
        one[3].sum = 8.0;
        let found = mean_interval(&one, Bounds::DIFFERENCE).unwrap();
        assert!(found.low < 0.0 && found.high > 0.2, "{found:?}");
    }

    #[test]
    fn what_can_not_be_estimated_has_no_interval() {
        assert_eq!(mean_interval(&[], Bounds::SHARE), None);
        assert_eq!(mean_interval(&[Cluster { sum: 0.0, size: 0.0 }], Bounds::SHARE), None);
        assert_eq!(mean_interval(&[Cluster { sum: f64::NAN, size: 1.0 }], Bounds::SHARE), None);
        assert_eq!(mean_interval(&[Cluster { sum: 4.0, size: 1.0 }; 3], Bounds::NONE), None);
    }

    #[test]
    fn clustering_widens_the_interval() {
        let tasks: Vec<Cluster> = (0..200).map(|place| Cluster { sum: f64::from(place % 20 < 6), size: 1.0 }).collect();
        let problems: Vec<Cluster> =
            ones(6, 20).iter().map(|cluster| Cluster { sum: 10.0 * cluster.sum, size: 10.0 }).collect();
        let width = |clusters: &[Cluster]| {
            let found = mean_interval(clusters, Bounds::SHARE).unwrap();
            found.high - found.low
        };
        assert!(width(&problems) > 2.0 * width(&tasks));
    }

    proptest::proptest! {
        #[test]
        fn the_interval_is_within_the_bounds_and_holds_the_estimate(
            rates in proptest::collection::vec((0u32..=9, 1u32..=6), 1..40),
            lift in 0u32..2,
        ) {
            let clusters: Vec<Cluster> = rates
                .iter()
                .map(|&(passes, size)| (f64::from(passes) / 9.0 - f64::from(lift) * 0.5, f64::from(size)))
                .map(|(mean, size)| Cluster { sum: mean * size, size })
                .collect();
            let bounds = if lift == 0 { Bounds::SHARE } else { Bounds::DIFFERENCE };
            let Estimate { value, low, high } = mean_interval(&clusters, bounds).unwrap();
            proptest::prop_assert!(bounds.low <= low && low <= value && value <= high && high <= bounds.high);
            proptest::prop_assert!(high - low > 1e-3);
        }

        #[test]
        fn the_order_of_the_clusters_does_not_matter(passes in proptest::collection::vec(0u32..=9, 2..30)) {
            let mut clusters: Vec<Cluster> =
                passes.iter().map(|&passes| Cluster { sum: f64::from(passes) / 9.0, size: 1.0 }).collect();
            let before = mean_interval(&clusters, Bounds::SHARE).unwrap();
            clusters.reverse();
            let after = mean_interval(&clusters, Bounds::SHARE).unwrap();
            proptest::prop_assert!((before.low - after.low).abs() < 1e-9 && (before.high - after.high).abs() < 1e-9);
        }
    }
}
