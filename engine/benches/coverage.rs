//! How often the intervals of `statistics` hold the truth: experiments whose truth is known, repeated.
//! `cargo bench -p tracetune-engine --bench coverage [-- single|paired|seeds]`; `COVERAGE.md` has the tables.
//!
//! A cell is the share of intervals that hold the truth, in per cent; after `×` their mean width, as a multiple of the
//! width of an interval that knew the true standard error, ± 1.96 of it.
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::collections::BTreeMap;

use tracetune_engine::statistics::{Bounds, Cluster, Estimate, mean_interval, pool, splitmix64};

/// Experiments a cell: the standard error of a coverage of 95 % is 0.5 points.
const EXPERIMENTS: usize = 2000;
const PROBLEMS: [usize; 6] = [5, 10, 20, 50, 100, 400];

fn main() {
    let chosen: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let is_chosen = |name: &str| chosen.is_empty() || chosen.iter().any(|word| word == name);
    if is_chosen("single") {
        single();
    }
    if is_chosen("paired") {
        paired();
    }
    if is_chosen("seeds") {
        seeds();
    }
}

/// Random variables from a counter.
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = splitmix64(self.0);
        ((self.0 >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Marsaglia and Tsang 2000, doi:10.1145/358407.358414; a shape below 1 by a power of a uniform variable.
    fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            return self.gamma(shape + 1.0) * self.uniform().powf(1.0 / shape);
        }
        let d = shape - 1.0 / 3.0;
        loop {
            let x = self.normal();
            let v = (1.0 + x / (9.0 * d).sqrt()).powi(3);
            if v > 0.0 && self.uniform().ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v;
            }
        }
    }

    /// A rate of the given mean; the smaller `alike`, the more problems are solved always or never.
    fn rate(&mut self, mean: f64, alike: f64) -> f64 {
        let (a, b) = (self.gamma(mean * alike), self.gamma((1.0 - mean) * alike));
        if a + b > 0.0 { a / (a + b) } else { f64::from(u8::from(self.uniform() < mean)) }
    }

    fn passes(&mut self, draws: usize, rate: f64) -> usize {
        (0..draws).filter(|_| self.uniform() < rate).count()
    }
}

/// How intervals fared.
#[derive(Default)]
struct Fared {
    held: usize,
    width: f64,
    values: Vec<f64>,
}

impl Fared {
    fn add(&mut self, estimate: Estimate, truth: f64) {
        self.held += usize::from(estimate.low <= truth && truth <= estimate.high);
        self.width += estimate.high - estimate.low;
        self.values.push(estimate.value);
    }

    fn cell(&self) -> String {
        let count = self.values.len() as f64;
        let mean = self.values.iter().sum::<f64>() / count;
        let error = (self.values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt();
        let width = self.width / count / (2.0 * 1.96 * error);
        format!("{:.1} ×{width:.2}", 100.0 * self.held as f64 / count)
    }
}

fn header(first: &str, columns: impl IntoIterator<Item = String>) {
    let columns: Vec<String> = columns.into_iter().collect();
    println!("| {first} | {} |\n| --- |{}", columns.join(" | "), " --: |".repeat(columns.len()));
}

/// What one problem of a population is measured as.
type Measure = fn(&mut Random, f64) -> Cluster;

fn share(passes: usize, draws: usize) -> Cluster {
    Cluster { sum: passes as f64 / draws as f64, size: 1.0 }
}

fn single() {
    let draws = |random: &mut Random, rate: f64| share(random.passes(8, rate), 8);
    // 1 to 5 bugs a problem, 8 draws each.
    let bugs = |random: &mut Random, rate: f64| {
        let bugs = 1 + random.passes(4, 0.5);
        Cluster { sum: random.passes(8 * bugs, rate) as f64 / 8.0, size: bugs as f64 }
    };
    let populations: [(&str, f64, Measure); 5] = [
        ("one draw a problem (or greedy)", 1.0, |random, rate| share(random.passes(1, rate), 1)),
        ("8 draws, problems solved mostly always or never (α + β = 0.3)", 0.3, draws),
        ("8 draws, α + β = 2", 2.0, draws),
        ("8 draws, problems alike (α + β = 10)", 10.0, draws),
        ("1 to 5 bugs a problem, 8 draws each, α + β = 1", 1.0, bugs),
    ];
    let rates = [0.005, 0.02, 0.05, 0.2, 0.5, 0.8, 0.97, 0.995];
    let table = |name: &str, alike: f64, measure: Measure, method: &Method| {
        println!("\n### {name}\n");
        header("problems", rates.iter().map(|rate| format!("{} %", rate * 100.0)));
        for problems in PROBLEMS {
            let cells = rates.map(|mean| {
                let mut fared = Fared::default();
                let mut random = Random(problems as u64 * 1000 + (mean * 1000.0) as u64);
                for _ in 0..EXPERIMENTS {
                    let clusters: Vec<Cluster> = (0..problems)
                        .map(|_| {
                            let rate = random.rate(mean, alike);
                            measure(&mut random, rate)
                        })
                        .collect();
                    if let Some(estimate) = method(&clusters) {
                        fared.add(estimate, mean);
                    }
                }
                fared.cell()
            });
            println!("| {problems} | {} |", cells.join(" | "));
        }
    };
    for (name, alike, measure) in populations {
        table(name, alike, measure, &|clusters| mean_interval(clusters, Bounds::SHARE));
    }
    let (name, alike, measure) = populations[1];
    table(&format!("The percentile bootstrap instead, {name}"), alike, measure, &|clusters| Some(bootstrap(clusters)));
    pass_at_8();
}

/// A way to an interval.
type Method<'a> = dyn Fn(&[Cluster]) -> Option<Estimate> + 'a;

/// What was used before: the 2.5 and 97.5 % quantiles of the means of resampled clusters.
fn bootstrap(clusters: &[Cluster]) -> Estimate {
    let mut random = Random(1);
    let mean = |clusters: &mut dyn Iterator<Item = Cluster>| {
        let (sum, size) = clusters.fold((0.0, 0.0), |(sum, size), cluster| (sum + cluster.sum, size + cluster.size));
        sum / size
    };
    let mut draw = || clusters[(random.uniform() * clusters.len() as f64) as usize];
    let mut means: Vec<f64> = (0..1000).map(|_| mean(&mut (0..clusters.len()).map(|_| draw()))).collect();
    means.sort_by(f64::total_cmp);
    Estimate { value: mean(&mut clusters.iter().copied()), low: means[25], high: means[974] }
}

/// pass@8 from 16 draws, at rates of single draws.
fn pass_at_8() {
    let (draws, k, alike) = (16, 8, 1.0);
    let rates = [0.005, 0.02, 0.05, 0.2, 0.5, 0.8];
    // E (1 − p)^k of a beta variable.
    let truth = |mean: f64| {
        let beta = (1.0 - mean) * alike;
        1.0 - (0..k).map(|i| (beta + f64::from(i)) / (alike + f64::from(i))).product::<f64>()
    };
    println!("\n### pass@8 of 16 draws, α + β = 1\n");
    header("problems", rates.iter().map(|rate| format!("{:.1} %", truth(*rate) * 100.0)));
    for problems in PROBLEMS {
        let cells = rates.map(|mean| {
            let mut fared = Fared::default();
            let mut random = Random(problems as u64 * 2000 + (mean * 1000.0) as u64);
            for _ in 0..EXPERIMENTS {
                let value = |random: &mut Random| {
                    let rate = random.rate(mean, alike);
                    let failing = draws - random.passes(draws, rate);
                    let all_fail = |i: i32| (failing as f64 - f64::from(i)).max(0.0) / (draws as f64 - f64::from(i));
                    Cluster { sum: 1.0 - (0..k).map(all_fail).product::<f64>(), size: 1.0 }
                };
                let clusters: Vec<Cluster> = (0..problems).map(|_| value(&mut random)).collect();
                if let Some(estimate) = mean_interval(&clusters, Bounds::SHARE) {
                    fared.add(estimate, truth(mean));
                }
            }
            fared.cell()
        });
        println!("| {problems} | {} |", cells.join(" | "));
    }
}

fn moved(rate: f64, by: f64) -> f64 {
    let rate = rate.clamp(1e-9, 1.0 - 1e-9);
    1.0 / (1.0 + (1.0 - rate) / rate * (-by).exp())
}

/// A population of problems and what a second model does with them: its log-odds are moved by `gain` and by noise, and
/// `renewed` of the problems have a rate of their own.
#[derive(Clone, Copy)]
struct Change {
    name: &'static str,
    base: f64,
    alike: f64,
    gain: f64,
    noise: f64,
    renewed: f64,
}

impl Change {
    fn rates(&self, random: &mut Random) -> (f64, f64) {
        let before = random.rate(self.base, self.alike);
        let after = moved(before, self.gain + self.noise * random.normal());
        let is_renewed = random.uniform() < self.renewed;
        (before, if is_renewed { random.rate(self.base, self.alike) } else { after })
    }

    fn truth(&self) -> f64 {
        let mut random = Random(7);
        let count = 2_000_000;
        let difference = |random: &mut Random| {
            let (before, after) = self.rates(random);
            after - before
        };
        (0..count).map(|_| difference(&mut random)).sum::<f64>() / f64::from(count)
    }
}

const CHANGES: [Change; 6] = [
    Change { name: "30 %, no change", base: 0.3, alike: 1.0, gain: 0.0, noise: 0.0, renewed: 0.0 },
    Change { name: "30 %, gain", base: 0.3, alike: 1.0, gain: 0.5, noise: 0.5, renewed: 0.0 },
    Change { name: "30 %, large gain", base: 0.3, alike: 1.0, gain: 2.0, noise: 1.0, renewed: 0.0 },
    Change { name: "5 %, gain", base: 0.05, alike: 0.5, gain: 2.0, noise: 1.0, renewed: 0.0 },
    Change { name: "80 %, noise", base: 0.8, alike: 0.5, gain: 0.0, noise: 1.0, renewed: 0.0 },
    Change { name: "80 %, 5 % of the problems differ", base: 0.8, alike: 0.5, gain: 0.0, noise: 0.0, renewed: 0.05 },
];

fn paired() {
    for draws in [1, 16] {
        println!("\n### Differences, {draws} {} a problem and side\n", if draws == 1 { "draw" } else { "draws" });
        let truths = CHANGES.map(|change| change.truth());
        let names =
            CHANGES.iter().zip(truths).map(|(change, truth)| format!("{} ({:+.1})", change.name, truth * 100.0));
        header("problems", names);
        for problems in PROBLEMS {
            let cells = [0, 1, 2, 3, 4, 5].map(|place: usize| {
                let (change, truth) = (CHANGES[place], truths[place]);
                let mut fared = Fared::default();
                let mut random = Random((problems * 3000 + place * 50 + draws) as u64);
                for _ in 0..EXPERIMENTS {
                    let difference = |random: &mut Random| {
                        let (before, after) = change.rates(random);
                        let rate = |random: &mut Random, rate: f64| share(random.passes(draws, rate), draws).sum;
                        Cluster { sum: rate(random, after) - rate(random, before), size: 1.0 }
                    };
                    let clusters: Vec<Cluster> = (0..problems).map(|_| difference(&mut random)).collect();
                    if let Some(estimate) = mean_interval(&clusters, Bounds::DIFFERENCE) {
                        fared.add(estimate, truth);
                    }
                }
                fared.cell()
            });
            println!("| {problems} | {} |", cells.join(" | "));
        }
    }
}

/// Log-odds by which a seed moves all problems (standard deviation), from none to much.
const SEED_EFFECTS: [f64; 5] = [0.0, 0.05, 0.1, 0.2, 0.5];

fn seeds() {
    for is_gain in [false, true] {
        println!("\n### {} over seeds, 8 draws\n", if is_gain { "Paired gains" } else { "Rates" });
        header("seeds, problems", SEED_EFFECTS.iter().map(|effect| format!("seed effect {effect}")));
        for count in [3, 5] {
            for problems in [20, 100, 400] {
                for is_shared in [true, false] {
                    let cells = SEED_EFFECTS.map(|effect| seed_cell(is_gain, count, problems, is_shared, effect));
                    let which = if is_shared { "the same" } else { "its own" };
                    println!("| {count} seeds, each {problems}, {which} | {} |", cells.join(" | "));
                }
            }
        }
    }
}

fn seed_cell(is_gain: bool, count: usize, problems: usize, is_shared: bool, effect: f64) -> String {
    // A problem's log-odds under a seed: its own, the seed's, and 0.5 of both together.
    let after = |random: &mut Random, rate: f64, seed: f64| {
        let by = seed + 0.5 * random.normal() + if is_gain { 0.7 } else { 0.0 };
        moved(rate, by)
    };
    let bounds = if is_gain { Bounds::DIFFERENCE } else { Bounds::SHARE };
    let mut random = Random(11);
    let total = 2_000_000;
    let truth = (0..total)
        .map(|_| {
            let rate = random.rate(0.3, 1.0);
            let seed = effect * random.normal();
            after(&mut random, rate, seed) - if is_gain { rate } else { 0.0 }
        })
        .sum::<f64>()
        / f64::from(total);
    let names: Vec<String> = (0..count * problems).map(|place| place.to_string()).collect();
    let mut fared = Fared::default();
    let mut random = Random((problems * 5000 + count * 70) as u64 + (effect * 100.0) as u64);
    for _ in 0..EXPERIMENTS / 2 {
        let rates: Vec<f64> = (0..count * problems).map(|_| random.rate(0.3, 1.0)).collect();
        let seeds: Vec<BTreeMap<&str, Cluster>> = (0..count)
            .map(|seed| {
                let moves = effect * random.normal();
                let first = if is_shared { 0 } else { seed * problems };
                (first..first + problems)
                    .map(|place| {
                        let rate = after(&mut random, rates[place], moves);
                        let after = share(random.passes(8, rate), 8).sum;
                        let before = if is_gain { share(random.passes(8, rates[place]), 8).sum } else { 0.0 };
                        (names[place].as_str(), Cluster { sum: after - before, size: 1.0 })
                    })
                    .collect()
            })
            .collect();
        if let Some(estimate) = pool(&seeds, bounds) {
            fared.add(estimate, truth);
        }
    }
    fared.cell()
}
