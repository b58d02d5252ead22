//! How sides differ: what they were set to, what came out, and which problems flipped.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::statistics::{Tally, holm, mcnemar, paired_difference};
use super::tasks::{Draws, Joined, Tasks, join, matched};
use super::{Caveat, CompareError, ComparedMetric, Flips, Note, ParamDifference, Side};
use crate::cache::{PartGroup, Store};
use crate::runs::{SelectedRound, ambiguous};
use crate::statistics::{Cluster, Estimate};

/// What each side's stages were set to, where it is not the same on all. Of a stage that a side lacks, only its kind is
/// told.
pub(super) fn param_differences(store: &Store, sides: &[Side]) -> Result<Vec<ParamDifference>, CompareError> {
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

/// What a side's stages were set to, by stage and parameter.
pub(super) type Settings = BTreeMap<(String, String), Value>;

/// Stage and parameter, and the value, of the last round that has the stage.
pub(super) fn settings(store: &Store, side: &Side) -> Result<Settings, CompareError> {
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

/// A line per split and metric. What a side has from several stages is a line per stage on all sides.
pub(super) fn metric_lines(sides: &[Side]) -> Vec<ComparedMetric> {
    let ambiguous: BTreeSet<_> = sides.iter().flat_map(|side| ambiguous(&side.metrics)).collect();
    let mut lines: Vec<ComparedMetric> = Vec::new();
    for (place, side) in sides.iter().enumerate() {
        for figure in &side.metrics {
            let (split, metric) = (&figure.split, &figure.metric);
            let stage = ambiguous.contains(&(split.as_str(), metric.as_str())).then(|| figure.stage.clone());
            let known =
                lines.iter().position(|line| line.split == *split && line.metric == *metric && line.stage == stage);
            let line = known.unwrap_or_else(|| {
                let (split, metric) = (split.clone(), metric.clone());
                lines.push(ComparedMetric { split, metric, stage, figures: vec![None; sides.len()] });
                lines.len() - 1
            });
            lines[line].figures[place] = Some(figure.clone());
        }
    }
    lines
}

/// The baseline's tasks against each other side's, and what can't be compared.
pub(super) fn flips(sides: &[Side]) -> (Vec<Flips>, Vec<Note>) {
    let Some((baseline, others)) = sides.split_first() else { return Default::default() };
    let (mut flips, mut notes) = (Vec::new(), Vec::new());
    for (place, side) in (1..).zip(others) {
        for (split, theirs) in &side.outcomes {
            let Some(ours) = baseline.outcomes.get(split) else { continue };
            let matched = matched(ours, theirs);
            if matched.is_empty() {
                let names = |stages: &BTreeMap<String, Tasks>| stages.keys().cloned().collect();
                notes.push(Note::new(place, split, Caveat::Stages { baseline: names(ours), side: names(theirs) }));
            }
            for ((baseline_stage, ours), (stage, theirs)) in matched {
                let joined = join(ours, theirs);
                notes.extend(Caveat::of(&joined).into_iter().map(|caveat| Note::new(place, split, caveat)));
                let found = [Draws::Sampled, Draws::Greedy].into_iter().find_map(|draws| Compared::of(&joined, draws));
                match found {
                    Some(compared) => flips.push(compared.flips(place, split, baseline_stage, stage)),
                    None if joined.pairs.is_empty() => {}
                    None => {
                        let caveat = Caveat::Draws { baseline: Draws::of(ours), side: Draws::of(theirs) };
                        notes.push(Note::new(place, split, caveat));
                    }
                }
            }
        }
    }
    for (place, side) in sides.iter().enumerate() {
        let caveat = |one: &SelectedRound| Caveat::Selected { metric: one.metric.clone(), of: one.of };
        notes.extend(side.selected().map(|one| Note::new(place, &one.split, caveat(one))));
    }
    let adjusted = holm(&flips.iter().map(|flips: &Flips| flips.p_value).collect::<Vec<_>>());
    flips.iter_mut().zip(adjusted).for_each(|(flips, p)| flips.p_adjusted = p);
    (flips, notes)
}

/// Draws of one kind, on tasks that both sides have.
struct Compared {
    draws: Draws,
    tasks: usize,
    difference: Estimate,
    /// Each problem's draws over all of its tasks: problems are independent of each other, tasks of a problem are not.
    problems: BTreeMap<String, (Tally, Tally)>,
}

impl Compared {
    /// `None` where no task has such draws on both sides.
    fn of(joined: &Joined, draws: Draws) -> Option<Self> {
        let pairs = joined.drawn(draws);
        let mut problems: BTreeMap<String, (Tally, Tally)> = BTreeMap::new();
        // As kind `evaluate` has it: a mean over tasks, clustered by problem.
        let mut clusters: BTreeMap<&str, Cluster> = BTreeMap::new();
        for (problem, ours, theirs) in &pairs {
            let both = problems.entry((*problem).to_owned()).or_default();
            both.0.add(*ours);
            both.1.add(*theirs);
            let cluster = clusters.entry(problem).or_default();
            cluster.sum += theirs.rate() - ours.rate();
            cluster.size += 1.0;
        }
        let difference = paired_difference(&clusters.into_values().collect::<Vec<_>>())?;
        Some(Self { draws, tasks: pairs.len(), difference, problems })
    }

    fn flips(self, side: usize, split: &str, baseline_stage: &str, stage: &str) -> Flips {
        let only = |won: bool| -> Vec<String> {
            let is_it = |(_, (ours, theirs)): &(&String, &(Tally, Tally))| {
                ours.is_solved() != theirs.is_solved() && theirs.is_solved() == won
            };
            self.problems.iter().filter(is_it).map(|(problem, _)| problem.clone()).collect()
        };
        let (won, lost) = (only(true), only(false));
        Flips {
            side,
            split: split.to_owned(),
            metric: self.draws.metric().to_owned(),
            baseline_stage: baseline_stage.to_owned(),
            stage: stage.to_owned(),
            problems: self.problems.len(),
            tasks: self.tasks,
            difference: self.difference,
            p_value: mcnemar(lost.len() as u64, won.len() as u64),
            p_adjusted: 0.0,
            won,
            lost,
        }
    }
}
