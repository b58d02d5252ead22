//! What a stage takes of the machine while it runs, and how long it may. None of it is in a key: results do not depend
//! on it.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};
use toml::de::DeValue;

use super::problems::Problems;
use super::source::{Value, entries, span};
use super::value::{expect_table, integer, wrong_type};

/// What a stage's keys say of the machine. A kind's own parameter of the same name comes first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resources {
    /// The most threads; what the kind can make use of if `None`.
    pub threads: Option<usize>,
    /// Memory in bytes that it needs.
    pub memory_bytes: u64,
    /// Other things of which there are so many: `gpu = 1`.
    pub slots: BTreeMap<String, usize>,
    /// Seconds after which it is ended.
    pub timeout_s: Option<f64>,
}

impl Resources {
    /// The keys in the file.
    pub(crate) const KEYS: [&str; 4] = ["threads", "memory_bytes", "slots", "timeout_s"];

    /// Reads a key's value; anything else than it allows is a problem.
    pub(super) fn read(&mut self, key: &str, value: &Value, problems: &mut Problems) {
        let whole = |value: &Value, least: i64| integer(value.get_ref()).filter(|&number| number >= least);
        match key {
            "threads" => match whole(value, 1) {
                Some(threads) => self.threads = Some(threads as usize),
                None => wrong_type(key, "an integer of at least 1", value, problems),
            },
            "memory_bytes" => match whole(value, 0) {
                Some(bytes) => self.memory_bytes = bytes as u64,
                None => wrong_type(key, "a number of bytes", value, problems),
            },
            "timeout_s" => match seconds(value) {
                Some(seconds) => self.timeout_s = Some(seconds),
                None => wrong_type(key, "a number of seconds above 0", value, problems),
            },
            _ => {
                for (name, _, value) in expect_table(key, value, problems).map(entries).unwrap_or_default() {
                    match whole(value, 0) {
                        Some(count) => _ = self.slots.insert(name.to_owned(), count as usize),
                        None => {
                            let message = format!("`{key}.{name}` must be an integer of at least 0");
                            problems.error(span(value), message, "").help(format!("e.g. `{key} = {{ {name} = 1 }}`"));
                        }
                    }
                }
            }
        }
    }

    /// Their part of a stage's JSON Schema.
    pub(super) fn schema() -> Map<String, Json> {
        let entries = [
            (
                "threads",
                json!({"type": "integer", "minimum": 1, "description": "The most threads that the stage takes; of the run's (`-j`)."}),
            ),
            (
                "memory_bytes",
                json!({"type": "integer", "minimum": 0, "description": "Memory that the stage needs, in bytes: stages start side by side as far as the run's (`--memory`) goes."}),
            ),
            (
                "slots",
                json!({"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}, "description": "Other things that the stage takes while it runs, e.g. `{ gpu = 1 }`, of those that the run has (`--slots gpu=2`; one of each by default)."}),
            ),
            (
                "timeout_s",
                json!({"type": "number", "exclusiveMinimum": 0, "description": "Seconds after which the stage is ended and counts as failed."}),
            ),
        ];
        entries.into_iter().map(|(key, schema)| (key.to_owned(), schema)).collect()
    }
}

fn seconds(value: &Value) -> Option<f64> {
    let number = match value.get_ref() {
        DeValue::Float(number) => number.as_str().parse().ok(),
        other => integer(other).map(|number| number as f64),
    };
    number.filter(|seconds: &f64| *seconds > 0.0 && seconds.is_finite())
}
