//! A run's figures by group: the mean over all variants that have the same values of chosen parameters.

use std::collections::BTreeSet;

use serde::Serialize;

use super::difference::metric_lines;
use super::pooled::{PooledFigure, figure};
use super::seeds::without;
use super::side::Results;
use super::{CompareError, Side};
use crate::runs::{MetricLine, ParamLine, Run, part_of};

/// A run's figures by group.
#[derive(Clone, Debug, Serialize)]
pub struct Groups {
    /// The parameters whose values make the groups.
    pub by: Vec<String>,
    /// What else the run's sweep sets: the figures are means over it.
    pub over: Vec<String>,
    /// The figures, group by group.
    pub figures: Vec<GroupFigure>,
}

/// A figure over the variants of a group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GroupFigure {
    /// The values that the group has of [`Groups::by`]; `None` where its variants have no such parameter.
    pub values: Vec<Option<String>>,
    /// What is left of the variants' label without the sweep's point: `main`, or an ablation's name.
    pub variant: String,
    /// The round.
    pub round: i32,
    /// The stage, where the group has the metric from several.
    pub stage: Option<String>,
    /// E.g. `test`.
    pub split: String,
    /// E.g. `pass@1`.
    pub metric: String,
    /// The mean over the group's variants, with its 95 % interval over problems and variants; a lone variant's own figure.
    #[serde(flatten)]
    pub figure: PooledFigure,
}

/// The values of the parameters, and what is left of the label.
type Group = (Vec<Option<String>>, String);

/// Groups a run's figures by parameters: their names, paths, last words of paths, or `STAGE.PARAM`. With none, by all that
/// its sweep and its ablations set but seeds; `None` if they set no seed.
///
/// # Errors
/// [`CompareError::NoParam`], [`CompareError::NoResults`], or the run's tables can't be read.
pub fn grouped(run: &Run, by: &[String]) -> Result<Option<Groups>, CompareError> {
    let params = run.param_lines()?;
    let axes = names(&params, |line| line.axis);
    if by.is_empty() && !axes.iter().any(|name| is_seed(name)) {
        return Ok(None);
    }
    let results = Results::of(run.clone())?;
    let by = match by {
        [] => axes.iter().filter(|name| !is_seed(name)).map(|name| (*name).to_owned()).collect(),
        names => names.to_vec(),
    };
    for name in &by {
        if !params.iter().any(|line| is_named(line, name)) {
            let known = if axes.is_empty() { names(&params, |line| line.stage.is_none()) } else { axes };
            let known = known.into_iter().map(str::to_owned).collect();
            return Err(CompareError::NoParam { run: run.record.id.clone(), name: name.clone(), known });
        }
    }
    let mut labels = results.variants();
    labels.sort_by_key(|label| run.record.parts.iter().position(|part| part == part_of(&run.record.parts, label)));
    // Each with the labels that have it.
    let mut groups: Vec<(Group, Vec<&str>)> = Vec::new();
    for label in labels {
        let values = by.iter().map(|name| value(&params, label, name)).collect();
        let rest = axes.iter().fold(label.to_owned(), |label, axis| without(&label, last_word(axis)));
        let group = (values, rest);
        match groups.iter_mut().find(|(known, _)| *known == group) {
            Some((_, labels)) => labels.push(label),
            None => groups.push((group, vec![label])),
        }
    }
    let over = axes.iter().filter(|axis| !by.iter().any(|name| name == *axis || name == last_word(axis)));
    let over = over.map(|axis| (*axis).to_owned()).collect();
    let mut figures = Vec::new();
    for ((values, variant), labels) in groups {
        let rounds: BTreeSet<i32> = labels.iter().flat_map(|label| results.rounds_with_figures(label)).collect();
        for round in rounds {
            let members: Vec<Side> = labels.iter().map(|label| results.at(label, round)).collect();
            for line in metric_lines(&members) {
                let Some(figure) = figure(&members, &line.figures).or_else(|| lone(&line.figures)) else { continue };
                figures.push(GroupFigure {
                    values: values.clone(),
                    variant: variant.clone(),
                    round,
                    stage: line.stage,
                    split: line.split,
                    metric: line.metric,
                    figure,
                });
            }
        }
    }
    Ok(Some(Groups { by, over, figures }))
}

/// The parameters of some lines, each name once.
fn names(params: &[ParamLine], is_wanted: impl Fn(&ParamLine) -> bool) -> Vec<&str> {
    let wanted = params.iter().filter(|line| is_wanted(line)).map(|line| line.name.as_str());
    wanted.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Whether figures of several values of it differ by chance alone.
fn is_seed(axis: &str) -> bool {
    let word = last_word(axis);
    word == "seed" || word.ends_with("_seed")
}

fn last_word(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// Whether a parameter goes by a name: its own, its path's last word, or `STAGE.PARAM`.
fn is_named(line: &ParamLine, name: &str) -> bool {
    match &line.stage {
        None => line.name == name || (line.axis && last_word(&line.name) == name),
        Some(stage) => name.strip_suffix(&line.name).and_then(|rest| rest.strip_suffix('.')).is_some_and(|of| {
            let ends_so = |long: &str, short: &str| {
                long.strip_suffix(short).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            };
            ends_so(of, stage) || ends_so(stage, of)
        }),
    }
}

/// A variant's value of a parameter. Where a path is set in other variants only, the stage says what it is in this one.
fn value(params: &[ParamLine], label: &str, name: &str) -> Option<String> {
    let own = || params.iter().filter(|line| line.variant == label);
    let set = own().find(|line| line.stage.is_none() && is_named(line, name));
    let path = || params.iter().find(|line| line.stage.is_none() && is_named(line, name)).map(|line| &line.name);
    let of_stage = |name: &str| own().find(|line| line.stage.is_some() && is_named(line, name));
    let line = set.or_else(|| of_stage(name)).or_else(|| of_stage(path()?));
    line.map(|line| line.value.clone())
}

/// The only figure there is.
fn lone(figures: &[Option<MetricLine>]) -> Option<PooledFigure> {
    let line = figures.iter().flatten().next()?;
    let MetricLine { value, ci_low, ci_high, n, .. } = *line;
    Some(PooledFigure { value, ci_low, ci_high, seeds: 1, n })
}
