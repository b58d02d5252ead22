//! How sides differ: what they were set to, what came out, and which problems flipped.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::statistics::{Tally, holm, mcnemar, paired_difference, pairs};
use super::{CompareError, ComparedMetric, Flips, ParamDifference, Side};
use crate::cache::{PartGroup, Store};

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

pub(super) fn metric_lines(sides: &[Side]) -> Vec<ComparedMetric> {
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

pub(super) fn flips(sides: &[Side]) -> Vec<Flips> {
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
