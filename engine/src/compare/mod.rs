//! Two or more runs, or variants of a run, side by side: what was set otherwise, what came out, and which problems
//! flipped.

mod statistics;

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, AsArray, RecordBatch, UInt32Array};
use serde::Serialize;
use serde_json::Value;

pub use statistics::Tally;
use statistics::{holm, mcnemar, paired_difference, pairs};

use crate::cache::{ActionRecord, CacheError, PartGroup, Store};
use crate::pipeline::MAIN;
use crate::runs::{self, MetricLine, MetricRow, OutcomeLine, Run, RunNode, RunsError};
use crate::statistics::Estimate;
use crate::table::{Record, TableError};

/// A run's variant at a round.
#[derive(Clone, Debug)]
pub struct Side {
    /// The run.
    pub run: Run,
    /// The variant's label.
    pub variant: String,
    /// The round.
    pub round: i32,
    metrics: Vec<MetricRow>,
    /// Problems by split.
    outcomes: BTreeMap<String, BTreeMap<String, Tally>>,
}

/// Sides and how they differ; the first one is the baseline.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The sides.
    pub sides: Vec<Side>,
    /// What they were set to, where they differ.
    pub params: Vec<ParamDifference>,
    /// What came out.
    pub metrics: Vec<ComparedMetric>,
    /// The baseline's problems against each other side's, by split.
    pub flips: Vec<Flips>,
}

/// A parameter that is not the same on all sides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ParamDifference {
    /// `samples.temperature`.
    pub name: String,
    /// The value on each side, as JSON; `None` where the side has no such stage.
    pub values: Vec<Option<Value>>,
}

/// A metric on all sides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ComparedMetric {
    /// E.g. `test`.
    pub split: String,
    /// E.g. `pass@1`.
    pub metric: String,
    /// Each side's figure.
    pub figures: Vec<Option<MetricRow>>,
}

/// How the problems of a split fare on two sides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Flips {
    /// Place of the other side in [`Comparison::sides`]; the first one is the baseline.
    pub side: usize,
    /// The split.
    pub split: String,
    /// Problems that both sides have.
    pub problems: usize,
    /// Paired difference of pass@1, the other side less the baseline.
    pub difference: Estimate,
    /// Problems that only the other side solves: at least half of its samples pass.
    pub won: Vec<String>,
    /// Problems that only the baseline solves.
    pub lost: Vec<String>,
    /// McNemar's exact test on them.
    pub p_value: f64,
    /// Adjusted for all comparisons of this table (Holm).
    pub p_adjusted: f64,
}

/// Why a comparison can't be made.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// A run can't be read.
    #[error(transparent)]
    Runs(#[from] RunsError),
    /// A run has no such variant.
    #[error("run `{run}` has no variant `{variant}`")]
    NoVariant {
        /// The run.
        run: String,
        /// What was asked for.
        variant: String,
        /// The variants there are.
        known: Vec<String>,
    },
    /// A variant has no such round.
    #[error("variant `{variant}` of run `{run}` has no results of round {round}")]
    NoRound {
        /// The run.
        run: String,
        /// The variant.
        variant: String,
        /// What was asked for.
        round: i32,
        /// The rounds there are.
        known: Vec<i32>,
    },
    /// A run has no results to compare.
    #[error("run `{run}` has no results to compare: no stage of it evaluates, or it did not end yet")]
    NoResults {
        /// The run.
        run: String,
    },
    /// There is but one side.
    #[error("there is nothing to compare `{side}` with")]
    OneSide {
        /// The side.
        side: String,
    },
    /// The store can't be read.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A telemetry table has other columns.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// Compares what the words name: `RUN`, `RUN:VARIANT` or `RUN:VARIANT@ROUND`. A bare run stands for its variant `main` in
/// the last round; a single bare run for its first results and all of its variants.
///
/// # Errors
/// [`CompareError`].
pub fn compare(store: &Store, words: &[String]) -> Result<Comparison, CompareError> {
    let mut sides = Vec::new();
    for word in words {
        sides.extend(named(store, word, words.len() == 1)?);
    }
    if let [side] = sides.as_slice() {
        return Err(CompareError::OneSide { side: side.name() });
    }
    let params = param_differences(store, &sides)?;
    let (metrics, flips) = (metric_lines(&sides), flips(&sides));
    Ok(Comparison { sides, params, metrics, flips })
}

fn named(store: &Store, word: &str, alone: bool) -> Result<Vec<Side>, CompareError> {
    let whole = runs::load(store, word);
    let (id, rest) = match (&whole, word.split_once(':')) {
        (Err(_), Some((id, rest))) => (id, Some(rest)),
        _ => (word, None),
    };
    let run = if rest.is_some() { runs::load(store, id)? } else { whole? };
    let results = Results::of(&run)?;
    let variants = results.variants();
    let Some(first) = variants.first() else { return Err(CompareError::NoResults { run: run.record.id }) };
    match rest {
        Some(rest) => {
            let (variant, round) = match rest.rsplit_once('@') {
                Some((variant, round)) => (variant, round.parse::<i32>().ok()),
                None => (rest, None),
            };
            let variant = if variant.is_empty() { MAIN } else { variant };
            Ok(vec![results.side(&run, variant, round)?])
        }
        None if alone => {
            let main = if variants.contains(&MAIN) { MAIN } else { first };
            let start = results.rounds(main).first().copied();
            let mut sides = vec![results.side(&run, main, start)?];
            for variant in &variants {
                let side = results.side(&run, variant, None)?;
                if (side.variant.as_str(), Some(side.round)) != (main, start) {
                    sides.push(side);
                }
            }
            Ok(sides)
        }
        None if variants.contains(&MAIN) => Ok(vec![results.side(&run, MAIN, None)?]),
        None => variants.iter().map(|variant| results.side(&run, variant, None)).collect(),
    }
}

/// A variant and a round.
type Place = (String, i32);

/// A run's telemetry.
struct Results {
    run: String,
    metrics: BTreeMap<Place, Vec<MetricRow>>,
    /// Problems by split.
    outcomes: BTreeMap<Place, BTreeMap<String, BTreeMap<String, Tally>>>,
}

impl Results {
    fn of(run: &Run) -> Result<Self, CompareError> {
        // They are written when a run ends.
        if !run.folder.join("metrics.parquet").exists() {
            return Err(CompareError::NoResults { run: run.record.id.clone() });
        }
        let mut results = Self { run: run.record.id.clone(), metrics: BTreeMap::new(), outcomes: BTreeMap::new() };
        for line in MetricLine::read(&run.metrics()?).map_err(TableError::from)? {
            let MetricLine { variant, round, split, metric, k, value, ci_low, ci_high, n, .. } = line;
            let row = MetricRow { split, metric, k, value, ci_low, ci_high, n };
            results.metrics.entry((variant, round)).or_default().push(row);
        }
        for line in OutcomeLine::read(&run.outcomes()?).map_err(TableError::from)? {
            let splits = results.outcomes.entry((line.variant, line.round)).or_default();
            let tally = splits.entry(line.split).or_default().entry(line.problem_id).or_default();
            tally.samples += line.samples.unsigned_abs() as u64;
            tally.passes += line.passes.unsigned_abs() as u64;
        }
        Ok(results)
    }

    /// Variants with problems behind their metrics, `main` first.
    fn variants(&self) -> Vec<&str> {
        let mut variants: Vec<&str> = self.outcomes.keys().map(|(variant, _)| variant.as_str()).collect();
        variants.dedup();
        variants.sort_by_key(|variant| *variant != MAIN);
        variants
    }

    fn rounds(&self, variant: &str) -> Vec<i32> {
        self.outcomes.keys().filter(|(label, _)| label == variant).map(|(_, round)| *round).collect()
    }

    fn side(&self, run: &Run, variant: &str, round: Option<i32>) -> Result<Side, CompareError> {
        let rounds = self.rounds(variant);
        let Some(&last) = rounds.last() else {
            let known = self.variants().into_iter().map(str::to_owned).collect();
            return Err(CompareError::NoVariant { run: self.run.clone(), variant: variant.to_owned(), known });
        };
        let round = round.unwrap_or(last);
        let place = (variant.to_owned(), round);
        let Some(outcomes) = self.outcomes.get(&place).cloned() else {
            let (run, variant) = (self.run.clone(), variant.to_owned());
            return Err(CompareError::NoRound { run, variant, round, known: rounds });
        };
        let metrics = self.metrics.get(&place).cloned().unwrap_or_default();
        Ok(Side { run: run.clone(), variant: variant.to_owned(), round, metrics, outcomes })
    }
}

impl Side {
    /// `RUN:VARIANT@ROUND`.
    pub fn name(&self) -> String {
        format!("{}:{}@{}", self.run.record.id, self.variant, self.round)
    }

    /// The nodes of its variant. Labels that the file itself gives are parts of one pipeline.
    fn nodes(&self) -> impl Iterator<Item = &RunNode> {
        let record = &self.run.record;
        let of = |label: &str| {
            let is_it = |name: &&String| {
                label.strip_prefix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            record.parts.iter().filter(is_it).map(String::as_str).max_by_key(|name| name.len()).unwrap_or(MAIN)
        };
        let own = of(&self.variant);
        let is_own =
            move |node: &&RunNode| record.parts.is_empty() || node.variant.iter().any(|label| of(label) == own);
        record.nodes.iter().filter(is_own)
    }

    /// What its nodes came to, where the store still says so.
    fn records(&self, store: &Store) -> Result<Vec<(&RunNode, ActionRecord)>, CacheError> {
        let record = |node: &RunNode| node.key.map(|key| store.recorded_action(&key)).transpose();
        let found = self.nodes().map(|node| Ok(record(node)?.flatten().map(|record| (node, record))));
        found.filter_map(Result::transpose).collect()
    }

    /// The figure of a metric in a split.
    pub fn figure(&self, split: &str, metric: &str) -> Option<&MetricRow> {
        self.metrics.iter().find(|figure| figure.split == split && figure.metric == metric)
    }

    /// The splits that it has figures of pass@k of.
    pub fn splits(&self) -> Vec<&str> {
        let scored = self.metrics.iter().filter(|figure| figure.k.is_some());
        let splits: BTreeSet<&str> = scored.map(|figure| figure.split.as_str()).collect();
        splits.into_iter().collect()
    }

    /// What a parameter was set to in the stages of a kind, each value once.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn settings_of(&self, store: &Store, kind: &str, param: &str) -> Result<Vec<Value>, CompareError> {
        let mut values = Vec::new();
        for (_, record) in self.records(store)?.into_iter().filter(|(node, _)| node.kind == kind) {
            let value = record.params.get(param).cloned();
            values.extend(value.filter(|value| !values.contains(value)));
        }
        Ok(values)
    }

    /// The tables that hold rows of a problem, the widest of the latest round first: verified samples with all that led
    /// to them.
    ///
    /// # Errors
    /// The store can't be read. Tables that are gone are left out.
    pub fn rows_of(&self, store: &Store, problem: &str) -> Result<Option<(String, RecordBatch)>, CompareError> {
        let mut best: Option<((i32, bool, usize), String, RecordBatch)> = None;
        for node in self.nodes().filter(|node| node.round <= self.round) {
            let Some(output) = node.first_output.as_ref().and_then(|name| node.outputs.get(name)) else { continue };
            if output.rows == 0 {
                continue;
            }
            let table = match store.table(&output.digest) {
                Ok(table) => table,
                Err(CacheError::Lost { .. } | CacheError::Table(_)) => continue,
                Err(error) => return Err(error.into()),
            };
            let Some(ids) = table.column_by_name("problem_id").and_then(|ids| ids.as_string_opt::<i32>()) else {
                continue;
            };
            let chosen: Vec<u32> =
                (0..ids.len()).filter(|&row| ids.value(row) == problem).map(|row| row as u32).collect();
            let rank = (node.round, node.variant.contains(&self.variant), table.num_columns());
            if !chosen.is_empty() && best.as_ref().is_none_or(|(known, ..)| rank > *known) {
                let rows =
                    arrow::compute::take_record_batch(&table, &UInt32Array::from(chosen)).map_err(TableError::from)?;
                best = Some((rank, node.id.clone(), rows));
            }
        }
        Ok(best.map(|(_, id, rows)| (id, rows)))
    }
}

/// What each side's stages were set to, where it is not the same on all. Of a stage that a side lacks, only its kind is
/// told.
fn param_differences(store: &Store, sides: &[Side]) -> Result<Vec<ParamDifference>, CompareError> {
    let settings = sides.iter().map(|side| settings(store, side)).collect::<Result<Vec<_>, _>>()?;
    let names: BTreeSet<&(String, String)> = settings.iter().flat_map(BTreeMap::keys).collect();
    let difference = |name: &(String, String)| {
        let (stage, param) = name;
        let values: Vec<Option<Value>> = settings.iter().map(|side| side.get(name).cloned()).collect();
        let is_on_all = settings.iter().all(|side| side.contains_key(&(stage.clone(), KIND.to_owned())));
        let differ = values.iter().any(|value| *value != values[0]);
        (differ && (is_on_all || param == KIND)).then(|| ParamDifference { name: format!("{stage}.{param}"), values })
    };
    Ok(names.into_iter().filter_map(difference).collect())
}

/// What a stage's kind and its version are listed as.
const KIND: &str = "kind";

/// Stage and parameter, and the value, of the last round that has the stage.
fn settings(store: &Store, side: &Side) -> Result<BTreeMap<(String, String), Value>, CompareError> {
    let mut settings = BTreeMap::new();
    for (node, record) in side.records(store)? {
        let mut set = |name: &str, value: Value| settings.insert((node.stage.clone(), name.to_owned()), value);
        set(KIND, Value::String(format!("{} {}", record.kind, record.version)));
        for (name, value) in record.params.as_object().into_iter().flatten() {
            set(name, value.clone());
        }
        for part in record.parts.iter().filter(|part| part.group == PartGroup::Environment) {
            set(&part.name, Value::String(part.value.clone()));
        }
    }
    Ok(settings)
}

fn metric_lines(sides: &[Side]) -> Vec<ComparedMetric> {
    let mut lines: Vec<ComparedMetric> = Vec::new();
    for (place, side) in sides.iter().enumerate() {
        for figure in &side.metrics {
            let known = lines.iter().position(|line| line.split == figure.split && line.metric == figure.metric);
            let line = known.unwrap_or_else(|| {
                let (split, metric) = (figure.split.clone(), figure.metric.clone());
                lines.push(ComparedMetric { split, metric, figures: vec![None; sides.len()] });
                lines.len() - 1
            });
            lines[line].figures[place] = Some(figure.clone());
        }
    }
    lines
}

fn flips(sides: &[Side]) -> Vec<Flips> {
    let Some((baseline, others)) = sides.split_first() else { return Vec::new() };
    let mut flips = Vec::new();
    for (place, side) in others.iter().enumerate() {
        for (split, theirs) in &side.outcomes {
            let Some(pairs) = baseline.outcomes.get(split).map(|ours| pairs(ours, theirs)) else { continue };
            let tallies: Vec<(Tally, Tally)> = pairs.iter().map(|(_, tallies)| *tallies).collect();
            let Some(difference) = paired_difference(&tallies) else { continue };
            let only = |won: bool| -> Vec<String> {
                let is_it = |(_, (ours, theirs)): &&(&str, (Tally, Tally))| {
                    ours.is_solved() != theirs.is_solved() && theirs.is_solved() == won
                };
                pairs.iter().filter(is_it).map(|(problem, _)| (*problem).to_owned()).collect()
            };
            let (won, lost) = (only(true), only(false));
            let p_value = mcnemar(lost.len() as u64, won.len() as u64);
            let (split, problems) = (split.clone(), pairs.len());
            flips.push(Flips { side: place + 1, split, problems, difference, won, lost, p_value, p_adjusted: 0.0 });
        }
    }
    let adjusted = holm(&flips.iter().map(|flips| flips.p_value).collect::<Vec<_>>());
    flips.iter_mut().zip(adjusted).for_each(|(flips, p)| flips.p_adjusted = p);
    flips
}

crate::record! {
    /// A row of a comparison's table.
    pub struct ComparisonLine {
        /// The baseline, as `RUN:VARIANT@ROUND`.
        pub baseline: String,
        /// The other side.
        pub side: String,
        /// E.g. `test`.
        pub split: String,
        /// E.g. `pass@1`.
        pub metric: String,
        /// The baseline's value.
        pub baseline_value: Option<f64>,
        /// The other side's value.
        pub value: Option<f64>,
        /// Their difference.
        pub difference: Option<f64>,
        /// Lower end of the paired difference's 95 % interval; of pass@1 only.
        pub ci_low: Option<f64>,
        /// Upper end.
        pub ci_high: Option<f64>,
        /// McNemar's exact test over the problems; of pass@1 only.
        pub p_value: Option<f64>,
        /// Problems of both sides; of pass@1 only.
        pub problems: Option<i64>,
        /// Problems that only the other side solves; of pass@1 only.
        pub won: Option<i64>,
        /// Problems that only the baseline solves; of pass@1 only.
        pub lost: Option<i64>,
    }
}

impl Comparison {
    /// The comparison as a table.
    pub fn lines(&self) -> Vec<ComparisonLine> {
        let mut lines = Vec::new();
        for (place, side) in self.sides.iter().enumerate().skip(1) {
            for metric in &self.metrics {
                let value = |place: usize| metric.figures[place].as_ref().map(|figure| figure.value);
                let is_it =
                    |flips: &&Flips| flips.side == place && flips.split == metric.split && metric.metric == "pass@1";
                let flips = self.flips.iter().find(is_it);
                let (before, after) = (value(0), value(place));
                lines.push(ComparisonLine {
                    baseline: self.sides[0].name(),
                    side: side.name(),
                    split: metric.split.clone(),
                    metric: metric.metric.clone(),
                    baseline_value: before,
                    value: after,
                    difference: before.zip(after).map(|(before, after)| after - before),
                    ci_low: flips.map(|flips| flips.difference.low),
                    ci_high: flips.map(|flips| flips.difference.high),
                    p_value: flips.map(|flips| flips.p_value),
                    problems: flips.map(|flips| flips.problems as i64),
                    won: flips.map(|flips| flips.won.len() as i64),
                    lost: flips.map(|flips| flips.lost.len() as i64),
                });
            }
        }
        lines
    }
}
