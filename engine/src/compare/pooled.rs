//! Runs that differ in their seed alone, taken together: figures and paired differences whose intervals hold the variance
//! between seeds too.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::difference::{metric_lines, settings};
use super::seeds::{Seeds, without};
use super::tasks::{Draws, Tasks, join, matched};
use super::{CompareError, ComparedMetric, Side, named};
use crate::cache::Store;
use crate::runs::MetricLine;
use crate::statistics::{Bounds, Cluster, Estimate, pool, pool_figures};

/// What several seeds gave together; the first side is the baseline.
#[derive(Clone, Debug)]
pub struct Pooled {
    /// The parameter that differs.
    pub over: String,
    /// The sides, each a place that all seeds have.
    pub sides: Vec<Seeds>,
    /// What came out.
    pub metrics: Vec<PooledMetric>,
    /// Paired differences of pass@1 of the other sides to the baseline, by split.
    pub differences: Vec<PooledDifference>,
    /// Differences of all other metrics, paired by seed.
    pub metric_differences: Vec<PooledMetricDifference>,
}

/// A metric on all sides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PooledMetric {
    /// E.g. `test`.
    pub split: String,
    /// E.g. `pass@1`.
    pub metric: String,
    /// The stage that the figures are from, where a side has the metric from several.
    pub stage: Option<String>,
    /// Each side's figure.
    pub figures: Vec<Option<PooledFigure>>,
}

/// A figure over seeds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PooledFigure {
    /// The mean of the seeds' values.
    pub value: f64,
    /// Lower end of its 95 % interval over problems and seeds; `None` if the seeds have equal values without intervals.
    pub ci_low: Option<f64>,
    /// Upper end.
    pub ci_high: Option<f64>,
    /// How many seeds have it.
    pub seeds: usize,
    /// What each seed's value is over; of the seed that has the fewest.
    pub n: i64,
}

/// A difference of pass@1 over seeds, each seed's side paired with its own baseline by task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PooledDifference {
    /// Place of the other side in [`Pooled::sides`].
    pub side: usize,
    /// As in [`Flips`](super::Flips).
    pub split: String,
    /// `pass@1`, or `greedy pass@1` where there are no other draws.
    pub metric: String,
    /// The other side's stage.
    pub stage: String,
    /// How many seeds both sides have.
    pub seeds: usize,
    /// Distinct problems of all seeds.
    pub problems: usize,
    /// The mean over seeds, with its 95 % interval over problems and seeds.
    pub difference: Estimate,
    /// Each seed's difference, in the order of the sides' seeds.
    pub by_seed: Vec<f64>,
}

/// A difference of any metric over seeds, each seed's side paired with its own baseline.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PooledMetricDifference {
    /// Place of the other side in [`Pooled::sides`].
    pub side: usize,
    /// E.g. `test`.
    pub split: String,
    /// E.g. `loss`.
    pub metric: String,
    /// The stage that the figures are from, where a side has the metric from several.
    pub stage: Option<String>,
    /// The mean over seeds.
    pub value: f64,
    /// Lower end of its 95 % interval over seeds alone (Student's t): how problems scatter is not known for such a metric.
    /// `None` if all seeds have the same difference.
    pub ci_low: Option<f64>,
    /// Upper end.
    pub ci_high: Option<f64>,
    /// How many seeds both sides have; at least two.
    pub seeds: usize,
    /// Each seed's difference, in the order of the sides' seeds.
    pub by_seed: Vec<f64>,
}

/// Pools what the words name over a parameter, such as `seed`: runs or parts of them, as [`compare`](super::compare) has
/// them. A bare run stands for its first results and all of its variants.
///
/// # Errors
/// [`CompareError`]: sides of one place differ in more than the parameter, or there are no two values of it.
pub fn compare_over(store: &Store, words: &[String], over: &str) -> Result<Pooled, CompareError> {
    let mut sides = Vec::new();
    for word in words {
        sides.extend(places(store, word, over)?);
    }
    let settings = sides.iter().map(|side| settings(store, side)).collect::<Result<Vec<_>, _>>()?;
    let sides = Seeds::grouped(sides, &settings, over)?;
    let metrics = metrics(&sides);
    let others = || (1..sides.len()).map(|place| (place, &sides[place]));
    let differences: Vec<PooledDifference> =
        others().flat_map(|(place, side)| differences(&sides[0], side, place)).collect();
    let mut metric_differences: Vec<PooledMetricDifference> =
        others().flat_map(|(place, side)| metric_differences(&sides[0], side, place)).collect();
    metric_differences.retain(|one| {
        !differences.iter().any(|paired| {
            (paired.side, &paired.split, &paired.metric) == (one.side, &one.split, &one.metric)
                && one.stage.as_ref().is_none_or(|stage| *stage == paired.stage)
        })
    });
    Ok(Pooled { over: over.to_owned(), sides, metrics, differences, metric_differences })
}

/// The sides of a word. What a single run begins with is there for each value that a sweep gave the parameter.
fn places(store: &Store, word: &str, over: &str) -> Result<Vec<Side>, CompareError> {
    let mut sides = named(store, word, true)?;
    let [start, others @ ..] = sides.as_slice() else { return Ok(sides) };
    let is_start = |side: &&Side| without(&side.variant, over) == without(&start.variant, over);
    let mut variants: Vec<&str> = others.iter().filter(is_start).map(|side| side.variant.as_str()).collect();
    variants.retain(|variant| *variant != start.variant);
    let run = &start.run.record.id;
    let names: Vec<String> = variants.iter().map(|variant| format!("{run}:{variant}@{}", start.round)).collect();
    for name in names.into_iter().rev() {
        if sides.iter().all(|side| side.name() != name) {
            sides.splice(1..1, named(store, &name, true)?);
        }
    }
    Ok(sides)
}

fn metrics(sides: &[Seeds]) -> Vec<PooledMetric> {
    let mut lines: Vec<PooledMetric> = Vec::new();
    for (place, side) in sides.iter().enumerate() {
        for line in metric_lines(&side.members) {
            let Some(figure) = figure(&side.members, &line.figures) else { continue };
            let is_it = |known: &PooledMetric| {
                (&known.split, &known.metric, &known.stage) == (&line.split, &line.metric, &line.stage)
            };
            let known = lines.iter().position(is_it).unwrap_or_else(|| {
                let figures = vec![None; sides.len()];
                lines.push(PooledMetric { split: line.split, metric: line.metric, stage: line.stage, figures });
                lines.len() - 1
            });
            lines[known].figures[place] = Some(figure);
        }
    }
    lines
}

/// The mean of a metric over the members that have it; `None` if only one has.
pub(super) fn figure(members: &[Side], figures: &[Option<MetricLine>]) -> Option<PooledFigure> {
    let there: Vec<(&Side, &MetricLine)> =
        members.iter().zip(figures).filter_map(|(member, figure)| Some((member, figure.as_ref()?))).collect();
    let (_, first) = there.get(1).and(there.first())?;
    let bounds = bounds(&first.metric);
    let estimates: Vec<Estimate> = there
        .iter()
        .map(|(_, line)| {
            let end = |end: Option<f64>| end.unwrap_or(line.value);
            Estimate { value: line.value, low: end(line.ci_low), high: end(line.ci_high) }
        })
        .collect();
    let tasks: Vec<Option<&Tasks>> = there.iter().map(|(member, line)| tasks(member, line)).collect();
    let shared = share_problems(&tasks);
    let pooled = by_problem(&there, &tasks)
        .and_then(|seeds| pool(&seeds.iter().map(borrowed).collect::<Vec<_>>(), bounds))
        .or_else(|| pool_figures(&estimates, shared, bounds));
    let value = estimates.iter().map(|estimate| estimate.value).sum::<f64>() / estimates.len() as f64;
    Some(PooledFigure {
        value: pooled.map_or(value, |pooled| pooled.value),
        ci_low: pooled.map(|pooled| pooled.low),
        ci_high: pooled.map(|pooled| pooled.high),
        seeds: there.len(),
        n: there.iter().map(|(_, line)| line.n).min().unwrap_or_default(),
    })
}

/// Between which values a metric lies, by its name.
fn bounds(metric: &str) -> Bounds {
    if metric.contains("gain") {
        Bounds::DIFFERENCE
    } else if metric.contains('@') || ["accuracy", "rate", "share"].iter().any(|word| metric.contains(word)) {
        Bounds::SHARE
    } else {
        Bounds::NONE
    }
}

/// The tasks behind a figure. The condition of samples stands with the split of tasks, and with the name of a metric.
fn tasks<'a>(side: &'a Side, line: &MetricLine) -> Option<&'a Tasks> {
    let condition = line.metric.find(" (").map_or("", |at| &line.metric[at..]);
    let stages = side.outcomes.get(&format!("{}{condition}", line.split)).or_else(|| side.outcomes.get(&line.split))?;
    stages.get(&line.stage).or_else(|| stages.values().next())
}

/// Whether some problem is there for two seeds; unknown problems may be.
fn share_problems(seeds: &[Option<&Tasks>]) -> bool {
    let mut known = BTreeSet::new();
    seeds.iter().any(|tasks| {
        let Some(tasks) = tasks else { return true };
        let own: BTreeSet<_> = tasks.keys().map(|task| (&task.problem_id, &task.problem)).collect();
        let is_shared = own.iter().any(|problem| known.contains(problem));
        known.extend(own);
        is_shared
    })
}

/// A seed's problems, each with what its tasks add up to.
type Problems = BTreeMap<String, Cluster>;

fn borrowed(problems: &Problems) -> BTreeMap<&str, Cluster> {
    problems.iter().map(|(name, cluster)| (name.as_str(), *cluster)).collect()
}

/// What a problem is called in all seeds: with its digest, as the same id may stand for another problem.
fn problem_name(id: &str, digest: Option<&String>) -> String {
    format!("{id}\n{}", digest.map_or("", String::as_str))
}

/// The problems behind a figure of pass@1, for each seed; `None` if they do not make the figure.
fn by_problem(there: &[(&Side, &MetricLine)], tasks: &[Option<&Tasks>]) -> Option<Vec<Problems>> {
    let seeds = there.iter().zip(tasks).map(|((_, line), tasks)| {
        let metric = line.metric.split(" (").next().unwrap_or_default();
        let draws = [Draws::Sampled, Draws::Greedy].into_iter().find(|draws| draws.metric() == metric)?;
        let mut problems = Problems::new();
        for (task, outcome) in (*tasks)? {
            let Some(tally) = outcome.drawn(draws) else { continue };
            let cluster = problems.entry(problem_name(&task.problem_id, task.problem.as_ref())).or_default();
            cluster.sum += tally.rate();
            cluster.size += 1.0;
        }
        let total = |part: fn(&Cluster) -> f64| problems.values().map(part).sum::<f64>();
        let mean = total(|cluster| cluster.sum) / total(|cluster| cluster.size);
        ((mean - line.value).abs() < 1e-9).then_some(problems)
    });
    seeds.collect()
}

/// The differences of a side to the baseline, of the seeds that both have.
fn differences(baseline: &Seeds, side: &Seeds, place: usize) -> Vec<PooledDifference> {
    // By split and stage: each seed's problems.
    let mut found: BTreeMap<(String, String, Draws), Vec<Problems>> = BTreeMap::new();
    for (label, theirs) in side.labels.iter().zip(&side.members) {
        let Some(ours) = baseline.labels.iter().position(|known| known == label) else { continue };
        let ours = &baseline.members[ours];
        for (split, theirs) in &theirs.outcomes {
            let Some(ours) = ours.outcomes.get(split) else { continue };
            for ((_, ours), (stage, theirs)) in matched(ours, theirs) {
                let joined = join(ours, theirs);
                let digests: BTreeMap<&str, Option<&String>> =
                    ours.keys().map(|task| (task.problem_id.as_str(), task.problem.as_ref())).collect();
                for draws in [Draws::Sampled, Draws::Greedy] {
                    let mut problems = Problems::new();
                    for (id, before, after) in joined.drawn(draws) {
                        let digest = digests.get(id).copied().flatten();
                        let cluster = problems.entry(problem_name(id, digest)).or_default();
                        cluster.sum += after.rate() - before.rate();
                        cluster.size += 1.0;
                    }
                    if !problems.is_empty() {
                        found.entry((split.clone(), stage.to_owned(), draws)).or_default().push(problems);
                        break;
                    }
                }
            }
        }
    }
    let pooled = found.into_iter().filter_map(|((split, stage, draws), seeds)| {
        let difference = pool(&seeds.iter().map(borrowed).collect::<Vec<_>>(), Bounds::DIFFERENCE)?;
        let mean = |problems: &Problems| {
            let total = |part: fn(&Cluster) -> f64| problems.values().map(part).sum::<f64>();
            total(|cluster| cluster.sum) / total(|cluster| cluster.size)
        };
        Some(PooledDifference {
            side: place,
            split,
            metric: draws.metric().to_owned(),
            stage,
            seeds: seeds.len(),
            problems: seeds.iter().flat_map(BTreeMap::keys).collect::<BTreeSet<_>>().len(),
            difference,
            by_seed: seeds.iter().map(mean).collect(),
        })
    });
    pooled.collect()
}

/// The differences of a side's metrics to the baseline's, of the seeds that both have.
fn metric_differences(baseline: &Seeds, side: &Seeds, place: usize) -> Vec<PooledMetricDifference> {
    let ours = metric_lines(&baseline.members);
    let mut found = Vec::new();
    for line in metric_lines(&side.members) {
        let is_it = |known: &&ComparedMetric| {
            (&known.split, &known.metric, &known.stage) == (&line.split, &line.metric, &line.stage)
        };
        let Some(ours) = ours.iter().find(is_it) else { continue };
        let difference = |(label, theirs): (&String, &Option<MetricLine>)| {
            let seed = baseline.labels.iter().position(|known| known == label)?;
            Some(theirs.as_ref()?.value - ours.figures[seed].as_ref()?.value)
        };
        let by_seed: Vec<f64> = side.labels.iter().zip(&line.figures).filter_map(difference).collect();
        if by_seed.len() < 2 {
            continue;
        }
        let bounds = if bounds(&line.metric) == Bounds::NONE { Bounds::NONE } else { Bounds::DIFFERENCE };
        let exact: Vec<Estimate> = by_seed.iter().map(|&value| Estimate { value, low: value, high: value }).collect();
        let pooled = pool_figures(&exact, false, bounds);
        found.push(PooledMetricDifference {
            side: place,
            split: line.split,
            metric: line.metric,
            stage: line.stage,
            value: by_seed.iter().sum::<f64>() / by_seed.len() as f64,
            ci_low: pooled.map(|pooled| pooled.low),
            ci_high: pooled.map(|pooled| pooled.high),
            seeds: by_seed.len(),
            by_seed,
        });
    }
    found
}

crate::record! {
    /// A row of a pooled comparison's table.
    pub struct PooledLine {
        /// The parameter that differs.
        pub over: String,
        /// The label of the side.
        pub variant: String,
        /// Its round; `None` where a loop selected one for each seed.
        pub round: Option<i32>,
        /// E.g. `test`.
        pub split: String,
        /// E.g. `pass@1`; a difference to the baseline is `pass@1 difference`, `loss difference`.
        pub metric: String,
        /// The stage, where there are several.
        pub stage: Option<String>,
        /// The mean of the seeds' values.
        pub value: f64,
        /// Lower end of its 95 % interval over problems and seeds.
        pub ci_low: Option<f64>,
        /// Upper end.
        pub ci_high: Option<f64>,
        /// How many seeds.
        pub seeds: i64,
        /// What each seed's value is over; of a difference the distinct problems, or the seeds where it has no problems.
        pub n: i64,
    }
}

impl Pooled {
    /// The comparison as a table.
    pub fn lines(&self) -> Vec<PooledLine> {
        let line = |side: &Seeds| PooledLine {
            over: self.over.clone(),
            variant: side.variant.clone(),
            round: side.round,
            split: String::new(),
            metric: String::new(),
            stage: None,
            value: 0.0,
            ci_low: None,
            ci_high: None,
            seeds: 0,
            n: 0,
        };
        let mut lines = Vec::new();
        for (place, side) in self.sides.iter().enumerate() {
            for metric in &self.metrics {
                let Some(figure) = &metric.figures[place] else { continue };
                lines.push(PooledLine {
                    split: metric.split.clone(),
                    metric: metric.metric.clone(),
                    stage: metric.stage.clone(),
                    value: figure.value,
                    ci_low: figure.ci_low,
                    ci_high: figure.ci_high,
                    seeds: figure.seeds as i64,
                    n: figure.n,
                    ..line(side)
                });
            }
            for one in self.differences.iter().filter(|one| one.side == place) {
                lines.push(PooledLine {
                    split: one.split.clone(),
                    metric: format!("{} difference", one.metric),
                    stage: Some(one.stage.clone()),
                    value: one.difference.value,
                    ci_low: Some(one.difference.low),
                    ci_high: Some(one.difference.high),
                    seeds: one.seeds as i64,
                    n: one.problems as i64,
                    ..line(side)
                });
            }
            for one in self.metric_differences.iter().filter(|one| one.side == place) {
                lines.push(PooledLine {
                    split: one.split.clone(),
                    metric: format!("{} difference", one.metric),
                    stage: one.stage.clone(),
                    value: one.value,
                    ci_low: one.ci_low,
                    ci_high: one.ci_high,
                    seeds: one.seeds as i64,
                    n: one.seeds as i64,
                    ..line(side)
                });
            }
        }
        lines
    }
}
