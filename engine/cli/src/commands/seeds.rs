//! Which seeds a run has beside its pipeline's.

use std::collections::BTreeMap;

use serde_json::Value;

/// `seed 1 for train_problems, test_problems`: the stages whose parameter `seed` is not the pipeline's. `None` if there
/// are none.
pub(crate) fn of_their_own<'a>(seed: u64, stages: impl Iterator<Item = (&'a str, &'a Value)>) -> Option<String> {
    let mut others: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for (stage, params) in stages {
        if let Some(other) = params.get("seed").and_then(Value::as_u64).filter(|other| *other != seed) {
            let stages = others.entry(other).or_default();
            if !stages.contains(&stage) {
                stages.push(stage);
            }
        }
    }
    let words: Vec<String> =
        others.into_iter().map(|(seed, stages)| format!("seed {seed} for {}", stages.join(", "))).collect();
    (!words.is_empty()).then(|| words.join("; "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn stages_with_another_seed_are_named_once_by_seed() {
        let params =
            [("a", json!({"seed": 1})), ("b", json!({"seed": 2})), ("c", json!({})), ("b", json!({"seed": 2}))];
        let own = |seed| of_their_own(seed, params.iter().map(|(stage, params)| (*stage, params)));
        assert_eq!(own(1).as_deref(), Some("seed 2 for b"));
        assert_eq!(own(3).as_deref(), Some("seed 1 for a; seed 2 for b"));
        assert_eq!(of_their_own(1, params[..1].iter().map(|(stage, params)| (*stage, params))), None);
    }
}
