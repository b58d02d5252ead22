//! Signs in a run's metrics that expert iteration is failing, and what to try.
//!
//! Read from `filter`'s and `evaluate`'s metrics, per variant and split. Each sign is judged at the last round there is, so
//! that what has passed is not warned of. The thresholds are rules of thumb: a warning asks to look, it refuses nothing.

use std::collections::{BTreeMap, BTreeSet};

use tracetune_cli::{Reading, Warning};

/// Share of samples that pass below which a round learns from few tasks.
const LOW_PASS_RATE: f64 = 0.05;
/// Samples from which on a rate means something.
const ENOUGH_SAMPLES: i64 = 20;
/// Share of rationales that should state an execution fact.
const STATING: f64 = 0.5;
/// Share of them whose facts should be true.
const ACCURATE: f64 = 0.8;
/// A gain of pass@1 that is none.
const NO_GAIN: f64 = 0.005;
/// Share of the first round's distinct rationales below which samples have become alike.
const STILL_DISTINCT: f64 = 0.75;

/// Values of a metric by round, with their n.
type Rounds = BTreeMap<i32, (f64, i64)>;

/// The metrics of one variant and split.
struct Watched<'a> {
    variant: &'a str,
    metrics: BTreeMap<&'a str, Rounds>,
}

/// What a run's metrics warn of.
pub(crate) fn watch(readings: &[Reading]) -> Vec<Warning> {
    let places: BTreeSet<(&str, &str)> =
        readings.iter().map(|reading| (reading.variant.as_str(), reading.split.as_str())).collect();
    let watched = places.into_iter().map(|(variant, split)| {
        let mut metrics: BTreeMap<&str, Rounds> = BTreeMap::new();
        for reading in readings.iter().filter(|reading| reading.variant == variant && reading.split == split) {
            metrics.entry(&reading.metric).or_default().insert(reading.round, (reading.value, reading.n));
        }
        Watched { variant, metrics }
    });
    watched.flat_map(|watched| watched.warnings()).collect()
}

impl Watched<'_> {
    fn warnings(&self) -> Vec<Warning> {
        let signs = [
            self.nothing_kept().or_else(|| self.low_pass_rate()),
            self.facts_missing(),
            self.facts_false(),
            self.rationales_alike(),
            self.plateau(),
        ];
        signs.into_iter().flatten().collect()
    }

    fn low_pass_rate(&self) -> Option<Warning> {
        let (round, verified, samples) = self.last("verified")?;
        let rate = verified / samples as f64;
        (samples >= ENOUGH_SAMPLES && rate < LOW_PASS_RATE).then(|| Warning {
            sign: "low pass rate",
            seen: format!("{} of {samples} samples pass their tests", percent(rate)),
            why: "the round learns from the few tasks that are solved already, which are the easy ones",
            advice: "draw more samples (`n`), show exemplars (`shots`), train on demonstrations first, or make easier bugs",
            ..self.warning(round)
        })
    }

    fn nothing_kept(&self) -> Option<Warning> {
        let (round, kept, samples) = self.last("kept")?;
        (kept == 0.0 && samples > 0).then(|| Warning {
            sign: "nothing kept",
            seen: format!("none of {samples} samples was kept"),
            why: "there is nothing to train on, and the next round samples from the same model again",
            advice: "look at the metrics `dropped: …`; draw more samples (`n`), or raise `max_base_pass_rate`",
            ..self.warning(round)
        })
    }

    fn facts_missing(&self) -> Option<Warning> {
        let (round, stating, rationales) = self.last("facts stated")?;
        let share = stating / rationales as f64;
        (rationales >= ENOUGH_SAMPLES && share < STATING).then(|| Warning {
            sign: "facts missing",
            seen: format!("{} of {rationales} rationales state an execution fact (`at (k) name=value`)", percent(share)),
            why: "such a rationale cannot be held against the trace, and the fix may not rest on it",
            advice: "show exemplars whose rationales name steps and values, or ask for them in the prompt's instruction",
            ..self.warning(round)
        })
    }

    fn facts_false(&self) -> Option<Warning> {
        let (round, accuracy, stating) = self.last("fact accuracy")?;
        let (first, before) =
            self.metrics["fact accuracy"].first_key_value().map(|(round, value)| (*round, value.0))?;
        let trend = if first < round { format!("; round {first}: {}", percent(before)) } else { String::new() };
        (stating >= ENOUGH_SAMPLES && accuracy < ACCURATE).then(|| Warning {
            sign: "facts false",
            seen: format!(
                "{} of {stating} rationales that state execution facts state only true ones{trend}",
                percent(accuracy)
            ),
            why: "a fix may pass although its rationale invents values; training on those teaches to write numbers, not \
                  to read the trace, and pass@1 does not show it",
            advice: "keep only samples whose facts are true (a `command` stage before `filter`), shorten the traces \
                     (`budget_chars`), or compare with a run without traces",
            ..self.warning(round)
        })
    }

    fn rationales_alike(&self) -> Option<Warning> {
        let rounds = self.metrics.get("distinct rationales")?;
        let share = |(value, n): &(f64, i64)| value / *n as f64;
        let (first, before) = rounds.first_key_value().map(|(round, value)| (*round, share(value)))?;
        let (round, now) = rounds.last_key_value().map(|(round, value)| (*round, share(value)))?;
        (first < round && now < STILL_DISTINCT * before).then(|| Warning {
            sign: "rationales alike",
            seen: format!(
                "{} of the rationales of a task differ, after {} in round {first}",
                percent(now),
                percent(before)
            ),
            why: "the model repeats what it was rewarded for: pass@1 rises while pass@k and further rounds gain little",
            advice: "sample at a higher `temperature`, lower `cap` or `epochs`, or start each round from the base model",
            ..self.warning(round)
        })
    }

    fn plateau(&self) -> Option<Warning> {
        let rounds: Vec<(i32, f64)> =
            self.metrics.get("pass@1")?.range(1..).map(|(round, (value, _))| (*round, *value)).collect();
        let (earlier, last) = rounds.split_at(rounds.len().checked_sub(2).filter(|earlier| *earlier > 0)?);
        let best = earlier.iter().max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)))?;
        let highest = last.iter().map(|(_, value)| *value).fold(f64::MIN, f64::max);
        let values: Vec<String> = last.iter().map(|(_, value)| percent(*value)).collect();
        (highest <= best.1 + NO_GAIN).then(|| Warning {
            sign: "plateau",
            seen: format!(
                "pass@1 has not risen since round {}: {}, then {}",
                best.0,
                percent(best.1),
                values.join(" and ")
            ),
            why: "more rounds of the same cost time and narrow what the model writes",
            advice: "end the loop early (`stop`), draw more samples of the unsolved tasks, or add problems",
            ..self.warning(last[1].0)
        })
    }

    /// A metric in the last round that has it, with its n.
    fn last(&self, metric: &str) -> Option<(i32, f64, i64)> {
        let (round, (value, n)) = self.metrics.get(metric)?.last_key_value()?;
        Some((*round, *value, *n))
    }

    fn warning(&self, round: i32) -> Warning {
        Warning { variant: self.variant.to_owned(), round, ..Warning::default() }
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(round: i32, metric: &str, value: f64, n: i64) -> Reading {
        let [variant, split, metric] = ["main", "train", metric].map(str::to_owned);
        Reading { variant, round, split, metric, value, n }
    }

    fn signs(readings: &[Reading]) -> Vec<(&'static str, i32)> {
        watch(readings).into_iter().map(|warning| (warning.sign, warning.round)).collect()
    }

    #[test]
    fn a_round_in_which_few_samples_pass_is_warned_of_until_a_later_one_does_better() {
        let mut readings = vec![reading(1, "verified", 2.0, 100), reading(1, "kept", 2.0, 100)];
        assert_eq!(signs(&readings), [("low pass rate", 1)]);
        readings.extend([reading(2, "verified", 50.0, 100), reading(2, "kept", 20.0, 100)]);
        assert_eq!(signs(&readings), []);
        readings.extend([reading(3, "verified", 50.0, 100), reading(3, "kept", 0.0, 100)]);
        assert_eq!(signs(&readings), [("nothing kept", 3)]);
    }

    #[test]
    fn rationales_are_warned_of_that_state_no_facts_or_false_ones() {
        assert_eq!(signs(&[reading(1, "facts stated", 30.0, 100)]), [("facts missing", 1)]);
        let readings = [reading(1, "fact accuracy", 0.47, 90), reading(2, "fact accuracy", 0.46, 95)];
        assert_eq!(signs(&readings), [("facts false", 2)]);
        let warning = watch(&readings).remove(0);
        assert!(warning.seen.contains("46.0 % of 95") && warning.seen.contains("round 1: 47.0 %"), "{}", warning.seen);
        assert_eq!(signs(&[reading(1, "facts stated", 90.0, 100), reading(1, "fact accuracy", 0.9, 90)]), []);
    }

    #[test]
    fn a_plateau_is_two_rounds_without_a_gain_and_the_base_is_no_round() {
        let values = |values: &[f64]| -> Vec<Reading> {
            (0..).zip(values).map(|(round, value)| reading(round, "pass@1", *value, 400)).collect()
        };
        assert_eq!(signs(&values(&[0.4, 0.3, 0.35, 0.39])), []);
        assert_eq!(signs(&values(&[0.2, 0.4, 0.35])), []);
        assert_eq!(signs(&values(&[0.2, 0.4, 0.35, 0.4])), [("plateau", 3)]);
    }

    #[test]
    fn rationales_that_become_alike_are_warned_of() {
        let readings =
            |last| [reading(1, "distinct rationales", 80.0, 100), reading(3, "distinct rationales", last, 100)];
        assert_eq!(signs(&readings(70.0)), []);
        assert_eq!(signs(&readings(55.0)), [("rationales alike", 3)]);
    }
}
