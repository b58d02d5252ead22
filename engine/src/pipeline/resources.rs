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
            "memory_bytes" => match (whole(value, 0), value.get_ref().as_str().map(parse_bytes)) {
                (Some(bytes), _) => self.memory_bytes = bytes as u64,
                (_, Some(Ok(bytes))) => self.memory_bytes = bytes,
                _ => wrong_type(key, "a number of bytes, e.g. 8_000_000_000 or \"8GiB\"", value, problems),
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
                json!({"type": ["integer", "string"], "minimum": 0, "pattern": BYTES_PATTERN, "description": "Memory that the stage needs: a number of bytes, or e.g. \"8GiB\". Stages start side by side as far as the run's (`--memory`) goes."}),
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

/// What [`parse_bytes`] takes, for the JSON Schema.
const BYTES_PATTERN: &str = "^[0-9]+(\\.[0-9]+)? *([KMGT]i?B|B)?$";

/// A number of bytes as people write it: `8GiB`, `1.5 TB`, `4096`.
///
/// # Errors
/// What to write instead.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, f64); 10] = [
        ("KiB", 1024.0),
        ("MiB", 1_048_576.0),
        ("GiB", 1_073_741_824.0),
        ("TiB", 1_099_511_627_776.0),
        ("KB", 1e3),
        ("MB", 1e6),
        ("GB", 1e9),
        ("TB", 1e12),
        ("B", 1.0),
        ("", 1.0),
    ];
    let split = UNITS.iter().find_map(|(unit, factor)| Some((text.trim().strip_suffix(unit)?, factor)));
    let (number, factor) = split.expect("every text ends in nothing");
    let bytes = number.trim().parse().ok().map(|number: f64| number * factor);
    match bytes.filter(|bytes| (0.0..1e18).contains(bytes)) {
        Some(bytes) => Ok(bytes as u64),
        None => Err("write a number of bytes, e.g. 16GiB".to_owned()),
    }
}

fn seconds(value: &Value) -> Option<f64> {
    let number = match value.get_ref() {
        DeValue::Float(number) => number.as_str().parse().ok(),
        other => integer(other).map(|number| number as f64),
    };
    number.filter(|seconds: &f64| *seconds > 0.0 && seconds.is_finite())
}

#[cfg(test)]
mod tests {
    use super::parse_bytes;

    #[test]
    fn bytes_are_read_as_people_write_them() {
        let known = [("4096", 4096), ("8GiB", 8 << 30), ("1.5 MB", 1_500_000), ("512B", 512), (" 2KiB ", 2048)];
        known.iter().for_each(|(text, bytes)| assert_eq!(parse_bytes(text), Ok(*bytes), "{text}"));
        for text in ["", "GiB", "-1GiB", "1e30", "NaN", "8GiBs", "8 G"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }
}
