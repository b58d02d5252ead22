//! What several seeds gave, together: the interval of a mean over problems and seeds.
//!
//! A seed's figure differs from the truth by its problems and by its seed (initial weights, order, draws). Both are
//! random, so the variance of the mean over J seeds is that of the problems they share plus that of the seeds' figures
//! over J. The first is known from many problems; the second from J figures, so Student's t with J − 1 degrees of freedom
//! is used for it. The two are put together as squares of distances to the estimate (Zou and Donner 2008,
//! doi:10.1002/sim.3095), so that the interval stays skewed near 0 and 1. It is never narrower than the one over problems.

use std::collections::{BTreeMap, BTreeSet};

use super::interval::mean_interval;
use super::{Bounds, Cluster, Estimate, student};

/// The mean over the seeds of each seed's mean over its problems, with a 95 % interval over both. Problems of one name are
/// one problem; the seeds may share all, some or none. `None` for fewer than two seeds, or if one has no problems.
pub fn pool(seeds: &[BTreeMap<&str, Cluster>], bounds: Bounds) -> Option<Estimate> {
    let totals: Vec<Cluster> = seeds.iter().map(|problems| total(problems.values())).collect();
    if seeds.len() < 2 || totals.iter().any(|total| total.size <= 0.0) {
        return None;
    }
    let count = seeds.len() as f64;
    let names: BTreeSet<&str> = seeds.iter().flat_map(BTreeMap::keys).copied().collect();
    // Each seed weighs the same, however many problems it has.
    let share = |seed: usize, name: &str| {
        let cluster = seeds[seed].get(name).copied().unwrap_or_default();
        Cluster { sum: cluster.sum / totals[seed].size, size: cluster.size / totals[seed].size }
    };
    let merged: Vec<Cluster> =
        names.iter().map(|name| total(&(0..seeds.len()).map(|seed| share(seed, name)).collect::<Vec<_>>())).collect();
    let within = mean_interval(&merged, bounds)?;

    // How far each problem moves each seed's mean: their squares add up to the variances by problems, and the squares of
    // their sums over seeds to that of the mean.
    let (mut apart, mut together) = (0.0, 0.0);
    for name in &names {
        let moves = (0..seeds.len()).map(|seed| {
            let Cluster { sum, size } = share(seed, name);
            sum - totals[seed].mean() * size
        });
        let moves: Vec<f64> = moves.collect();
        apart += moves.iter().map(|by| by * by).sum::<f64>();
        together += moves.iter().sum::<f64>().powi(2);
    }
    // Of the variance of the mean by problems, the part that also shows in how the seeds' figures scatter.
    let scattered = (apart - together / count) / (count - 1.0) * count;
    let shared = if together > 0.0 { (1.0 - scattered / together).clamp(0.0, 1.0) } else { 1.0 };
    let means: Vec<f64> = totals.iter().map(|total| total.mean()).collect();
    Some(widened(within, shared, &means, bounds))
}

/// The mean of the seeds' figures with a 95 % interval, where the problems behind them are not at hand. With
/// `share_problems` (or if that is not known) the figures' own intervals may all be off the same way, so the mean's is no narrower
/// than theirs. A figure without an interval has both ends at its value. `None` for fewer than two seeds, or if there is
/// nothing to tell a spread from.
pub fn pool_figures(figures: &[Estimate], share_problems: bool, bounds: Bounds) -> Option<Estimate> {
    if figures.len() < 2 {
        return None;
    }
    let count = figures.len() as f64;
    let mean = |part: &dyn Fn(&Estimate) -> f64| figures.iter().map(part).sum::<f64>() / count;
    let value = mean(&|figure| figure.value);
    let within = |distance: &dyn Fn(&Estimate) -> f64| match share_problems {
        true => mean(distance),
        false => (mean(&|figure| distance(figure).powi(2)) / count).sqrt(),
    };
    let (below, above) = (within(&|figure| figure.value - figure.low), within(&|figure| figure.high - figure.value));
    let within = Estimate { value, low: value - below, high: value + above };
    let means: Vec<f64> = figures.iter().map(|figure| figure.value).collect();
    let pooled = widened(within, f64::from(u8::from(share_problems)), &means, bounds);
    (pooled.low < pooled.high).then_some(pooled)
}

fn total<'a>(clusters: impl IntoIterator<Item = &'a Cluster>) -> Cluster {
    clusters.into_iter().fold(Cluster::default(), |total, cluster| Cluster {
        sum: total.sum + cluster.sum,
        size: total.size + cluster.size,
    })
}

/// The interval over problems, `shared` of whose variance does not show in the scatter of the seeds' means, widened by
/// that scatter.
fn widened(within: Estimate, shared: f64, means: &[f64], bounds: Bounds) -> Estimate {
    let count = means.len() as f64;
    let mean = means.iter().sum::<f64>() / count;
    let variance = means.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
    let scatter = student::quantile(means.len() as u32 - 1).powi(2) * variance / count;
    let distance = |within: f64| within.max((shared * within.powi(2) + scatter).sqrt());
    Estimate {
        value: within.value,
        low: (within.value - distance(within.value - within.low)).max(bounds.low),
        high: (within.value + distance(within.high - within.value)).min(bounds.high),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed<'a>(rates: &[(&'a str, f64)]) -> BTreeMap<&'a str, Cluster> {
        rates.iter().map(|&(name, rate)| (name, Cluster { sum: 8.0 * rate, size: 8.0 })).collect()
    }

    const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

    #[test]
    fn seeds_that_agree_have_the_interval_of_one_over_the_same_problems() {
        let rates: Vec<_> = NAMES.into_iter().zip([0.0, 0.25, 0.5, 0.5, 0.75, 1.0]).collect();
        let one = seed(&rates);
        let clusters: Vec<Cluster> = one.values().copied().collect();
        let alone = mean_interval(&clusters, Bounds::SHARE).unwrap();
        let pooled = pool(&[one.clone(), one.clone(), one], Bounds::SHARE).unwrap();
        for (pooled, alone) in [(pooled.low, alone.low), (pooled.value, alone.value), (pooled.high, alone.high)] {
            assert!((pooled - alone).abs() < 1e-9, "{pooled} is not {alone}");
        }
    }

    #[test]
    fn seeds_with_problems_of_their_own_have_students_interval() {
        // Means 0.25, 0.5 and 0.75: 0.5 ± 4.303 · 0.25 / √3, cut at 0 and 1.
        let halves = |first: &'static str, second: &'static str, mean: f64| seed(&[(first, mean), (second, mean)]);
        let seeds = [halves("a", "b", 0.25), halves("c", "d", 0.5), halves("e", "f", 0.75)];
        let pooled = pool(&seeds, Bounds { low: -9.0, high: 9.0 }).unwrap();
        let half = 4.302_652_729_749_462 * 0.25 / 3f64.sqrt();
        assert!((pooled.value - 0.5).abs() < 1e-12 && (pooled.high - 0.5) >= half - 1e-9, "{pooled:?}");
        let cut = pool(&seeds, Bounds::SHARE).unwrap();
        assert_eq!((cut.low, cut.high), (0.0, 1.0));
    }

    #[test]
    fn figures_without_intervals_have_students_interval() {
        let exact = |value: f64| Estimate { value, low: value, high: value };
        let pooled = pool_figures(&[exact(1.0), exact(2.0), exact(3.0)], true, Bounds::NONE).unwrap();
        let half = 4.302_652_729_749_462 / 3f64.sqrt();
        assert!((pooled.low - (2.0 - half)).abs() < 1e-9 && (pooled.high - (2.0 + half)).abs() < 1e-9, "{pooled:?}");
        assert_eq!(pool_figures(&[exact(7.0), exact(7.0)], true, Bounds::NONE), None);
    }

    #[test]
    fn figures_over_the_same_problems_do_not_narrow_each_other() {
        let figure = Estimate { value: 0.5, low: 0.4, high: 0.7 };
        let same = pool_figures(&[figure; 4], true, Bounds::SHARE).unwrap();
        assert!((same.low - 0.4).abs() < 1e-12 && (same.high - 0.7).abs() < 1e-12, "{same:?}");
        let own = pool_figures(&[figure; 4], false, Bounds::SHARE).unwrap();
        assert!((own.low - 0.45).abs() < 1e-12 && (own.high - 0.6).abs() < 1e-12, "{own:?}");
    }

    #[test]
    fn one_seed_is_nothing_to_pool() {
        assert_eq!(pool(&[seed(&[("a", 0.5)])], Bounds::SHARE), None);
        assert_eq!(pool_figures(&[Estimate { value: 0.5, low: 0.4, high: 0.6 }], true, Bounds::SHARE), None);
        assert_eq!(pool(&[seed(&[("a", 0.5)]), seed(&[])], Bounds::SHARE), None);
    }
}
