//! One side of a comparison: a run's variant at a round, found by its name, with what it measured.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use serde_json::Value;

use super::CompareError;
use super::statistics::Tally;
use crate::cache::{ActionRecord, CacheError, OutputType, Store};
use crate::pipeline::MAIN;
use crate::runs::{self, MetricLine, MetricRow, OutcomeLine, Run, RunNode};
use crate::table::{Record, TableError, read_column};

/// A run's variant at a round.
#[derive(Clone, Debug)]
pub struct Side {
    /// The run.
    pub run: Run,
    /// The variant's label.
    pub variant: String,
    /// The round.
    pub round: i32,
    pub(super) metrics: Vec<MetricRow>,
    /// Problems by split.
    pub(super) outcomes: BTreeMap<String, BTreeMap<String, Tally>>,
}

/// The sides that a word names; `alone` if it is the only one.
pub(super) fn named(store: &Store, word: &str, alone: bool) -> Result<Vec<Side>, CompareError> {
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
    pub(super) fn records(&self, store: &Store) -> Result<Vec<(&RunNode, ActionRecord)>, CacheError> {
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

    /// The rows of a problem, and the node that gave them: of the tables of the latest round the widest, which has verified
    /// samples with all that led to them.
    ///
    /// # Errors
    /// The store can't be read. Tables that are gone are left out.
    pub fn rows_of(&self, store: &Store, problem: &str) -> Result<Option<(String, RecordBatch)>, CompareError> {
        let mut tables = Vec::new();
        for node in self.nodes().filter(|node| node.round <= self.round) {
            let Some(output) = node.first_output.as_ref().and_then(|name| node.outputs.get(name)) else { continue };
            if output.output_type != OutputType::Table || output.rows == 0 {
                continue;
            }
            match store.table_file(&output.digest) {
                Ok(table) if table.schema().index_of("problem_id").is_ok() => {
                    let width = table.schema().fields().len();
                    tables.push(((node.round, node.variant.contains(&self.variant), width), node, table));
                }
                Ok(_) | Err(CacheError::Lost { .. } | CacheError::Table(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        tables.sort_by_key(|(rank, ..)| Reverse(*rank));
        for (_, node, table) in tables {
            let mut found = Vec::new();
            for piece in table.pieces(PIECE)? {
                let piece = piece?;
                let ids: Vec<String> = read_column(&piece, "problem_id").map_err(TableError::from)?;
                let rows = ids.iter().zip(0..).filter(|(id, _)| *id == problem).map(|(_, row)| row);
                let rows = UInt32Array::from_iter_values(rows);
                found.push(take_record_batch(&piece, &rows).map_err(TableError::from)?);
            }
            let rows = concat_batches(&table.schema(), &found).map_err(TableError::from)?;
            if rows.num_rows() > 0 {
                return Ok(Some((node.id.clone(), rows)));
            }
        }
        Ok(None)
    }
}

/// Rows of a table that are read at a time.
const PIECE: usize = 1024;
