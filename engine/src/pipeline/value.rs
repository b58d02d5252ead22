//! Reading plain TOML values: words for people, and TOML text again.

use toml::de::DeValue;

use super::problems::Problems;
use super::source::{Span, Table, Value, span};

/// "the string `2s`", "an array".
pub(super) fn described(value: &DeValue) -> String {
    match value {
        DeValue::String(text) if text.chars().count() <= 40 && !text.contains('\n') => format!("the string \"{text}\""),
        DeValue::String(_) => "a string".to_owned(),
        DeValue::Integer(number) => format!("the integer {number}"),
        DeValue::Float(number) => format!("the number {number}"),
        DeValue::Boolean(truth) => format!("{truth}"),
        DeValue::Datetime(time) => format!("the date {time}"),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// The integer, if it is one that fits.
pub(super) fn integer(value: &DeValue) -> Option<i64> {
    let number = value.as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// The table at `value`; anything else is a problem.
pub(super) fn expect_table<'t, 'a>(what: &str, value: &'t Value<'a>, problems: &mut Problems) -> Option<&'t Table<'a>> {
    let table = value.get_ref().as_table();
    if table.is_none() {
        wrong_type(what, "a table", value, problems);
    }
    table
}

/// The string at `value`; anything else is a problem.
pub(super) fn expect_string<'t>(what: &str, value: &'t Value, problems: &mut Problems) -> Option<(&'t str, Span)> {
    let text = value.get_ref().as_str();
    if text.is_none() {
        wrong_type(what, "a string", value, problems);
    }
    text.map(|text| (text, span(value)))
}

/// Notes that `value` is not `expected`.
pub(super) fn wrong_type(what: &str, expected: &str, value: &Value, problems: &mut Problems) {
    let message = format!("`{what}` must be {expected}, found {}", described(value.get_ref()));
    problems.error(span(value), message, "");
}

/// The same as a value without places, for writing.
pub(super) fn plain(value: &DeValue) -> toml::Value {
    match value {
        DeValue::String(text) => toml::Value::String(text.to_string()),
        DeValue::Integer(number) => match integer(value) {
            Some(number) => toml::Value::Integer(number),
            None => toml::Value::String(number.to_string()),
        },
        DeValue::Float(number) => toml::Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(truth) => toml::Value::Boolean(*truth),
        DeValue::Datetime(time) => toml::Value::Datetime(*time),
        DeValue::Array(items) => toml::Value::Array(items.iter().map(|item| plain(item.get_ref())).collect()),
        DeValue::Table(table) => toml::Value::Table(plain_table(table)),
    }
}

/// See [`plain`].
pub(super) fn plain_table(table: &Table) -> toml::Table {
    table.iter().map(|(key, value)| (key.get_ref().clone().into_owned(), plain(value.get_ref()))).collect()
}
