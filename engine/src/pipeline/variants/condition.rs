//! `--where 'temperature<1'`: which points of a sweep are meant.

use std::cmp::Ordering;

use super::{Declared, Variant, number, wrong};
use crate::diagnostic::{Diagnostic, instead};
use crate::pipeline::value::plain;

/// Whether a comparison holds for two values in this order.
type Holds = fn(Ordering) -> bool;

/// `temperature<1`.
pub(super) struct Condition {
    axis: String,
    holds: Holds,
    value: toml::Value,
}

impl Condition {
    pub(super) fn parse(text: &str, declared: &Declared) -> Result<Self, Diagnostic> {
        const COMPARISONS: [(&str, Holds); 7] = [
            ("<=", Ordering::is_le),
            (">=", Ordering::is_ge),
            ("!=", Ordering::is_ne),
            ("==", Ordering::is_eq),
            ("<", Ordering::is_lt),
            (">", Ordering::is_gt),
            ("=", Ordering::is_eq),
        ];
        let found = COMPARISONS.iter().filter_map(|&(sign, holds)| Some((text.find(sign)?, sign, holds)));
        let Some((place, sign, holds)) = found.min_by_key(|(place, sign, _)| (*place, std::cmp::Reverse(sign.len())))
        else {
            let help = "write an axis, a comparison and a value: `--where 'temperature<1'`".to_owned();
            return Err(wrong(format!("`{text}` is not a condition"), help));
        };
        let (axis, value) = (text[..place].trim().to_owned(), text[place + sign.len()..].trim());
        let mut paths: Vec<&str> =
            declared.sweep.iter().flat_map(|variant| &variant.values).map(|value| value.path.as_str()).collect();
        paths.sort_unstable();
        paths.dedup();
        if !paths.iter().any(|path| is_axis(path, &axis)) {
            let help = instead(&axis, paths.iter().copied(), "the axes are");
            return Err(wrong(format!("the sweep has no axis `{axis}`"), help));
        }
        let value = value.parse().unwrap_or_else(|_| toml::Value::String(value.to_owned()));
        Ok(Self { axis, holds, value })
    }

    pub(super) fn holds(&self, variant: &Variant) -> bool {
        let value = variant.values.iter().rev().find(|value| is_axis(&value.path, &self.axis));
        let order = value.and_then(|value| compared(&plain(value.value.get_ref()), &self.value));
        order.is_some_and(self.holds)
    }
}

fn is_axis(path: &str, axis: &str) -> bool {
    path == axis || path.strip_suffix(axis).is_some_and(|before| before.ends_with('.'))
}

/// Numbers by their value, other things only as the same or not.
fn compared(a: &toml::Value, b: &toml::Value) -> Option<Ordering> {
    match (number(a), number(b)) {
        (Some(a), Some(b)) => a.partial_cmp(&b),
        _ if a == b => Some(Ordering::Equal),
        _ => match (a.as_str(), b.as_str()) {
            (Some(a), Some(b)) => Some(a.cmp(b)),
            _ => None,
        },
    }
}
