//! Sides that differ in one parameter, put together.

use serde_json::Value;

use super::difference::Settings;
use super::{CompareError, Side};

/// A variant at a round, once for each value of a parameter such as `seed`.
#[derive(Clone, Debug)]
pub struct Seeds {
    /// The variant's label, without the parameter where a sweep set it.
    pub variant: String,
    /// The round; `None` where a loop selected one for each seed.
    pub round: Option<i32>,
    /// The sides.
    pub members: Vec<Side>,
    /// Each side's value of the parameter.
    pub labels: Vec<String>,
}

/// Which sides belong together: the variant without the parameter, and the round unless it was selected.
type Place = (String, Option<i32>);

impl Seeds {
    /// The sides by place, in the order in which each is first there.
    ///
    /// # Errors
    /// The sides of a place differ in more than the parameter, have the same value of it, or are alone.
    pub(super) fn grouped(sides: Vec<Side>, settings: &[Settings], over: &str) -> Result<Vec<Self>, CompareError> {
        let mut groups: Vec<(Place, Vec<(Side, &Settings)>)> = Vec::new();
        for (side, settings) in sides.into_iter().zip(settings) {
            let place = (without(&side.variant, over), (!side.is_selected()).then_some(side.round));
            match groups.iter_mut().find(|(known, _)| *known == place) {
                Some((_, members)) => members.push((side, settings)),
                None => groups.push((place, vec![(side, settings)])),
            }
        }
        groups.into_iter().map(|((variant, round), members)| Self::of(variant, round, members, over)).collect()
    }

    fn of(
        variant: String,
        round: Option<i32>,
        members: Vec<(Side, &Settings)>,
        over: &str,
    ) -> Result<Self, CompareError> {
        let over = over.to_owned();
        let (members, settings): (Vec<Side>, Vec<&Settings>) = members.into_iter().unzip();
        if let [side] = members.as_slice() {
            return Err(CompareError::OneValue { side: side.name(), over });
        }
        let mut names: Vec<&(String, String)> = settings.iter().flat_map(|settings| settings.keys()).collect();
        names.sort();
        names.dedup();
        names.retain(|name| settings.iter().any(|other| other.get(*name) != settings[0].get(*name)));
        let (own, others): (Vec<_>, Vec<_>) = names.into_iter().partition(|(_, param)| is_of(param, &over));
        if !others.is_empty() {
            let names = others.into_iter().map(|(stage, param)| format!("{stage}.{param}")).collect();
            let sides = members.iter().map(Side::name).collect();
            return Err(CompareError::NotOver { sides, over, names });
        }
        let labels: Vec<String> = settings.iter().map(|settings| label(settings, &own)).collect();
        for (place, label) in labels.iter().enumerate() {
            if let Some(same) = labels[..place].iter().position(|known| known == label) {
                let [first, second] = [same, place].map(|place| members[place].name());
                return Err(CompareError::SameValue { first, second, over });
            }
        }
        Ok(Self { variant, round, members, labels })
    }
}

/// Whether a stage's parameter is the one that may differ: `seed` is, and `problem_seed` for `seed`.
fn is_of(param: &str, over: &str) -> bool {
    param.strip_suffix(over).is_some_and(|rest| rest.is_empty() || rest.ends_with('_'))
}

/// The parameter's values in the stages where it differs, each once.
fn label(settings: &Settings, names: &[&(String, String)]) -> String {
    let mut values: Vec<String> = Vec::new();
    for value in names.iter().filter_map(|name| settings.get(*name)) {
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        if !values.contains(&text) {
            values.push(text);
        }
    }
    values.join(", ")
}

/// A sweep's label `seed=1,samples=4` without the parameter; what is left empty is the pipeline itself.
pub(super) fn without(variant: &str, over: &str) -> String {
    let (point, rest) = match variant.split_once('/') {
        Some((point, rest)) => (point, Some(rest)),
        None => (variant, None),
    };
    let is_other = |part: &&str| part.split_once('=').is_none_or(|(path, _)| path.rsplit('.').next() != Some(over));
    let kept: Vec<&str> = point.split(',').filter(is_other).collect();
    match (kept.is_empty(), rest) {
        (true, rest) => rest.unwrap_or(crate::pipeline::MAIN).to_owned(),
        (false, None) => kept.join(","),
        (false, Some(rest)) => format!("{}/{rest}", kept.join(",")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweeps_label_loses_the_parameter() {
        assert_eq!(without("seed=1", "seed"), "main");
        assert_eq!(without("seed=1,samples=4", "seed"), "samples=4");
        assert_eq!(without("samples=4,rounds.samples.seed=1/control", "seed"), "samples=4/control");
        assert_eq!(without("seed=2/control", "seed"), "control");
        assert_eq!(without("no-trace", "seed"), "no-trace");
    }

    #[test]
    fn parameters_that_end_in_the_name_belong_to_it() {
        assert!(is_of("seed", "seed") && is_of("problem_seed", "seed"));
        assert!(!is_of("seeds", "seed") && !is_of("reseed", "seed"));
    }
}
