//! One side of a comparison: a run's variant at a round, found by its name, with what it measured.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::CompareError;
use super::tasks::{self, Tasks};
use crate::cache::{ActionRecord, CacheError, Store};
use crate::pipeline::MAIN;
use crate::runs::{self, MetricLine, Run, RunNode, SelectedRound, part_of};

/// A run's variant at a round.
#[derive(Clone, Debug)]
pub struct Side {
    /// The run.
    pub run: Run,
    /// The variant's label.
    pub variant: String,
    /// The round.
    pub round: i32,
    /// The only stage whose figures count, if the side was given one.
    pub stage: Option<String>,
    pub(super) metrics: Vec<MetricLine>,
    /// Tasks by split and stage.
    pub(super) outcomes: BTreeMap<String, BTreeMap<String, Tasks>>,
}

/// The sides that a word names; `alone` if it is the only one.
pub(super) fn named(store: &Store, word: &str, alone: bool) -> Result<Vec<Side>, CompareError> {
    let whole = runs::load(store, word);
    let (id, rest) = match (&whole, word.split_once(':')) {
        (Err(_), Some((id, rest))) => (id, Some(rest)),
        _ => (word, None),
    };
    let run = if rest.is_some() { runs::load(store, id)? } else { whole? };
    let results = Results::of(run)?;
    let variants = results.main_variants();
    let Some(first) = variants.first() else {
        return Err(CompareError::NoResults { run: results.run.record.id });
    };
    match rest {
        Some(rest) => Ok(vec![results.place(rest)?]),
        None if alone => {
            let main = if variants.contains(&MAIN) { MAIN } else { first };
            let start = results.rounds(main).first().copied();
            let mut sides = vec![results.side(main, start, None)?];
            for variant in &variants {
                let side = results.side(variant, None, None)?;
                if (side.variant.as_str(), Some(side.round)) != (main, start) {
                    sides.push(side);
                }
            }
            Ok(sides)
        }
        None if variants.contains(&MAIN) => Ok(vec![results.side(MAIN, None, None)?]),
        None => variants.iter().map(|variant| results.side(variant, None, None)).collect(),
    }
}

/// A variant and a round.
type Place = (String, i32);

/// A run's telemetry.
pub(super) struct Results {
    run: Run,
    metrics: BTreeMap<Place, Vec<MetricLine>>,
    /// Tasks by split and stage.
    outcomes: BTreeMap<Place, BTreeMap<String, BTreeMap<String, Tasks>>>,
}

impl Results {
    pub(super) fn of(run: Run) -> Result<Self, CompareError> {
        // They are written when a run ends.
        if !run.folder.join("metrics.parquet").exists() {
            return Err(CompareError::NoResults { run: run.record.id });
        }
        let (metrics, outcomes) = (run.metric_lines()?, run.outcome_lines()?);
        let mut results = Self { run, metrics: BTreeMap::new(), outcomes: BTreeMap::new() };
        for line in metrics {
            results.metrics.entry((line.variant.clone(), line.round)).or_default().push(line);
        }
        for line in outcomes {
            let splits = results.outcomes.entry((line.variant.clone(), line.round)).or_default();
            let stages = splits.entry(line.split.clone()).or_default();
            tasks::add(stages.entry(line.stage.clone()).or_default(), line);
        }
        Ok(results)
    }

    /// Variants with results, `main` first.
    pub(super) fn variants(&self) -> Vec<&str> {
        let places = self.outcomes.keys().chain(self.metrics.keys());
        let variants: BTreeSet<&str> = places.map(|(variant, _)| variant.as_str()).collect();
        let mut variants: Vec<&str> = variants.into_iter().collect();
        variants.sort_by_key(|variant| *variant != MAIN);
        variants
    }

    /// The variants that a run's bare name means: those with problems behind their metrics, or all if none has.
    fn main_variants(&self) -> Vec<&str> {
        let mut variants = self.variants();
        let has_tasks = |variant: &&str| self.outcomes.keys().any(|(label, _)| label == variant);
        if variants.iter().any(has_tasks) {
            variants.retain(has_tasks);
        }
        variants
    }

    /// The rounds that have problems behind their metrics; all that have metrics if none has.
    fn rounds(&self, variant: &str) -> Vec<i32> {
        let of = |(label, round): &Place| (label == variant).then_some(*round);
        let rounds: Vec<i32> = self.outcomes.keys().filter_map(of).collect();
        if rounds.is_empty() { self.metrics.keys().filter_map(of).collect() } else { rounds }
    }

    /// The side called `VARIANT`, `VARIANT@ROUND`, `VARIANT@selected`, each with `:STAGE` or without.
    fn place(&self, text: &str) -> Result<Side, CompareError> {
        let is_stage = |name: &str| self.run.record.nodes.iter().any(|node| node.stage == name);
        let (place, stage) = match text.rsplit_once(':') {
            Some((place, stage)) if is_stage(stage) => (place, Some(stage)),
            _ => (text, None),
        };
        let named = |variant: &str| if variant.is_empty() { MAIN.to_owned() } else { variant.to_owned() };
        let (variant, round) = match place.rsplit_once('@') {
            _ if self.variants().contains(&place) => (place.to_owned(), None),
            Some((variant, "selected")) => {
                let variant = named(variant);
                let Some(selected) = self.selected(&variant) else {
                    return Err(CompareError::NoneSelected { run: self.run.record.id.clone(), variant });
                };
                (variant, Some(selected.round))
            }
            Some((variant, round)) => match round.parse::<i32>() {
                Ok(round) => (named(variant), Some(round)),
                Err(_) => (place.to_owned(), None),
            },
            None => (named(place), None),
        };
        self.side(&variant, round, stage)
    }

    /// What its loop chose, of the rounds of a variant.
    fn selected(&self, variant: &str) -> Option<&SelectedRound> {
        self.run.record.selected.iter().find(|selected| selected.variants.iter().any(|label| label == variant))
    }

    /// All rounds that a variant has figures of, ascending.
    pub(super) fn rounds_with_figures(&self, variant: &str) -> Vec<i32> {
        self.metrics.keys().filter(|(label, _)| label == variant).map(|(_, round)| *round).collect()
    }

    /// What there is at a place.
    pub(super) fn at(&self, variant: &str, round: i32) -> Side {
        let place = (variant.to_owned(), round);
        let metrics = self.metrics.get(&place).cloned().unwrap_or_default();
        let outcomes = self.outcomes.get(&place).cloned().unwrap_or_default();
        Side { run: self.run.clone(), variant: place.0, round, stage: None, metrics, outcomes }
    }

    /// The side of a variant at a round: by default the one that its loop selected, else the last.
    fn side(&self, variant: &str, round: Option<i32>, stage: Option<&str>) -> Result<Side, CompareError> {
        let (run, known) = (self.run.record.id.clone(), self.rounds(variant));
        let Some(&last) = known.last() else {
            let known = self.variants().into_iter().map(str::to_owned).collect();
            return Err(CompareError::NoVariant { run, variant: variant.to_owned(), known });
        };
        let selected = self.selected(variant).map(|selected| selected.round).filter(|round| known.contains(round));
        let round = round.or(selected).unwrap_or(last);
        if !known.contains(&round) {
            return Err(CompareError::NoRound { run, variant: variant.to_owned(), round, known });
        }
        let mut side = self.at(variant, round);
        if let Some(stage) = stage {
            let known = side.stages();
            if !known.contains(stage) {
                let known = known.into_iter().map(str::to_owned).collect();
                return Err(CompareError::NoStage { side: side.name(), stage: stage.to_owned(), known });
            }
            side.metrics.retain(|line| line.stage == stage);
            side.outcomes.values_mut().for_each(|stages| stages.retain(|name, _| name == stage));
            side.outcomes.retain(|_, stages| !stages.is_empty());
            side.stage = Some(stage.to_owned());
        }
        Ok(side)
    }
}

impl Side {
    /// `RUN:VARIANT@ROUND`, with `:STAGE` if it was given one.
    pub fn name(&self) -> String {
        let stage = self.stage.as_ref().map(|stage| format!(":{stage}")).unwrap_or_default();
        format!("{}:{}@{}{stage}", self.run.record.id, self.variant, self.round)
    }

    /// Whether its round is the one that its loop selected.
    pub(super) fn is_selected(&self) -> bool {
        let is_it =
            |selected: &SelectedRound| selected.variants.contains(&self.variant) && selected.round == self.round;
        self.run.record.selected.iter().any(is_it)
    }

    /// The stages that its results are from.
    fn stages(&self) -> BTreeSet<&str> {
        let tasks = self.outcomes.values().flat_map(BTreeMap::keys);
        tasks.chain(self.metrics.iter().map(|line| &line.stage)).map(String::as_str).collect()
    }

    /// The splits on which its round was selected, with what selected it.
    pub(super) fn selected(&self) -> impl Iterator<Item = &SelectedRound> {
        let is_it = |selected: &&SelectedRound| selected.has(&self.variant, self.round, &selected.split);
        self.run.record.selected.iter().filter(is_it)
    }

    /// The node of one of its stages.
    pub(super) fn node(&self, stage: &str) -> Option<&RunNode> {
        let is_it =
            |node: &&RunNode| node.stage == stage && node.round == self.round && node.variant.contains(&self.variant);
        self.run.record.nodes.iter().find(is_it)
    }

    /// The nodes of its variant. Labels that the file itself gives are parts of one pipeline.
    fn nodes(&self) -> impl Iterator<Item = &RunNode> {
        let record = &self.run.record;
        let of = |label: &str| part_of(&record.parts, label);
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

    /// The figure of a metric that one of its stages has in a split.
    pub fn figure(&self, split: &str, stage: &str, metric: &str) -> Option<&MetricLine> {
        self.metrics.iter().find(|figure| figure.split == split && figure.stage == stage && figure.metric == metric)
    }

    /// The splits that it has figures of pass@k of, and the stages that these are from.
    pub fn scored(&self) -> Vec<(&str, &str)> {
        let scored = self.metrics.iter().filter(|figure| figure.k.is_some());
        let places: BTreeSet<_> = scored.map(|figure| (figure.split.as_str(), figure.stage.as_str())).collect();
        places.into_iter().collect()
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
}
