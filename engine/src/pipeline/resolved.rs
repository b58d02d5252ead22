//! The pipeline as one TOML text: what remains after `extends`, `--set` and `[params]`.

use std::fmt::Write;

use toml::{Table as Plain, Value as PlainValue};

use super::params;
use super::source::{Table, entries};
use super::value::plain_table;

/// Writes a merged and substituted document; it parses to the same pipeline. The order of the stages is kept.
pub(super) fn text(document: &Table, name: &str, seed: u64) -> String {
    let mut text = String::from("# Resolved: `extends`, `--set` and [params] are applied.\n");
    write(&mut text, document, name, seed, &escaped);
    text
}

/// Writes a merged document with its parameters, sweep and ablations.
pub(super) fn with_variants(document: &Table, name: &str, seed: u64) -> String {
    let mut text = String::from("# Resolved: `extends` and `--set` are applied.\n");
    let table = |key: &str| document.get(key).and_then(|value| value.get_ref().as_table());
    for key in ["params", "sweep"] {
        table(key).into_iter().for_each(|keys| section(&mut text, &[key], plain_table(keys), &as_it_is));
    }
    for (name, _, value) in table("ablations").map(entries).unwrap_or_default() {
        let keys = value.get_ref().as_table();
        keys.into_iter().for_each(|keys| section(&mut text, &["ablations", name], plain_table(keys), &as_it_is));
    }
    write(&mut text, document, name, seed, &as_it_is);
    text
}

/// What becomes of a value on its way into the text.
type Form = dyn Fn(PlainValue) -> PlainValue;

fn as_it_is(value: PlainValue) -> PlainValue {
    value
}

fn write(text: &mut String, document: &Table, name: &str, seed: u64, form: &Form) {
    let mut head = Plain::new();
    head.insert("name".into(), PlainValue::String(name.to_owned()));
    head.insert("seed".into(), PlainValue::Integer(i64::try_from(seed).unwrap_or(i64::MAX)));
    section(text, &["pipeline"], head, form);
    let mut parts = Vec::new();
    for key in ["stages", "loop"] {
        let table = document.get(key).and_then(|value| value.get_ref().as_table());
        for (name, at, value) in table.map(entries).unwrap_or_default() {
            parts.extend(value.get_ref().as_table().map(|keys| (at, key, name, keys)));
        }
    }
    parts.sort_by_key(|(at, ..)| *at);
    for (_, key, name, keys) in parts {
        if key == "stages" {
            section(text, &[key, name], plain_table(keys), form);
        } else {
            outer_loop(text, name, keys, form);
        }
    }
}

fn outer_loop(text: &mut String, outer: &str, keys: &Table, form: &Form) {
    let mut head = plain_table(keys);
    head.remove("stages");
    head.remove("first");
    section(text, &["loop", outer], head, form);
    for part in ["stages", "first"] {
        let stages = keys.get(part).and_then(|value| value.get_ref().as_table());
        for (name, _, value) in stages.map(entries).unwrap_or_default() {
            if let Some(keys) = value.get_ref().as_table() {
                section(text, &["loop", outer, part, name], plain_table(keys), form);
            }
        }
    }
}

/// `[a.b]` with a line a key; tables within are written inline, so that one header is one stage.
fn section(text: &mut String, path: &[&str], table: Plain, form: &Form) {
    let path: Vec<String> = path.iter().map(|word| quoted(word)).collect();
    let _ = writeln!(text, "\n[{}]", path.join("."));
    for (key, value) in table {
        let _ = writeln!(text, "{} = {}", quoted(&key), form(value));
    }
}

fn quoted(key: &str) -> String {
    let bare = |character: char| character.is_ascii_alphanumeric() || character == '_' || character == '-';
    if !key.is_empty() && key.chars().all(bare) {
        key.to_owned()
    } else {
        PlainValue::String(key.to_owned()).to_string()
    }
}

/// A string with a dollar sign may be taken for a parameter.
fn escaped(value: PlainValue) -> PlainValue {
    match value {
        PlainValue::String(text) => PlainValue::String(params::escaped(&text)),
        PlainValue::Array(items) => PlainValue::Array(items.into_iter().map(escaped).collect()),
        PlainValue::Table(table) => {
            PlainValue::Table(table.into_iter().map(|(key, value)| (key, escaped(value))).collect())
        }
        other => other,
    }
}
