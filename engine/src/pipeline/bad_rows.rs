//! `bad_rows`: how many rows of a stage may fail before the stage does.

use std::fmt;

use serde::Serialize;
use toml::de::DeValue;

use super::problems::Problems;
use super::source::{Value, span};
use super::value::{described, integer};

/// How much of a row stage's work may fail for what is in its rows. What fails is left out of `rows` and stands in the
/// stage's output [`BadRows::OUTPUT`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub enum BadRows {
    /// So many units of work: rows and parts.
    Count(u64),
    /// This share of them, from 0 to 1.
    Share(f64),
}

/// As in the file.
impl fmt::Display for BadRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Share(share) => write!(f, "{}%", share * 100.0),
        }
    }
}

impl BadRows {
    /// The output with the rows that failed: the input's columns, `_part` and `_error`.
    pub const OUTPUT: &'static str = "bad";
    /// The key in the file.
    pub(crate) const KEY: &'static str = "bad_rows";

    /// How many of `items` may fail.
    pub fn of(self, items: u64) -> u64 {
        match self {
            Self::Count(count) => count,
            Self::Share(share) => (share * items as f64).floor() as u64,
        }
    }

    /// Reads the value; anything else is a problem.
    pub(super) fn read(value: &Value, problems: &mut Problems) -> Option<Self> {
        let percent = |text: &str| text.trim().strip_suffix('%')?.trim().parse::<f64>().ok();
        let read = match value.get_ref() {
            DeValue::String(text) => percent(text).map(|percent| percent / 100.0).map(Self::Share),
            other => integer(other).and_then(|count| u64::try_from(count).ok()).map(Self::Count),
        };
        let read = read.filter(|read| !matches!(read, Self::Share(share) if !(0.0..=1.0).contains(share)));
        if read.is_none() {
            let found = described(value.get_ref());
            let message = format!("`{}` must be a number of rows or a share of them, found {found}", Self::KEY);
            problems.error(span(value), message, "").help("e.g. `bad_rows = 10` or `bad_rows = \"1%\"`");
        }
        read
    }
}
