//! `[params]`: putting values where `$name` stands.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeInteger, DeValue};

use super::problems::Problems;
use super::source::{Span, Table, Value, entries, span};
use crate::diagnostic::{list, nearest};

/// Takes `[params]` out of the document and puts its values wherever a whole value is `$name`.
/// `$seed` is the pipeline's seed, for a parameter too; `$$` at the start of a string stands for one `$`.
pub(super) fn substitute<'a>(document: &mut Table<'a>, problems: &mut Problems<'a>) {
    let seed = document.get("pipeline").and_then(|value| value.get_ref().get("seed")).cloned();
    let seed = seed.unwrap_or_else(|| Spanned::new(0..0, DeValue::Integer(DeInteger::default())));
    let mut params = Params { values: BTreeMap::new(), seed };
    match document.remove("params") {
        None => {}
        Some(value) => match value.get_ref() {
            DeValue::Table(table) => {
                for (name, at, value) in entries(table) {
                    params.add(name, at, value, problems);
                }
            }
            other => {
                let message = format!("`params` must be a table, found {}", super::value::described(other));
                problems.error(span(&value), message, "");
            }
        },
    }
    let seed = params.seed.clone();
    params.values.insert("seed".to_owned(), Param { at: span(&seed), value: seed, used: true });

    for (key, value) in document.iter_mut() {
        if key.get_ref().as_ref() != "extends" {
            params.replace(value, problems);
        }
    }
    for (name, param) in params.values.iter().filter(|(_, param)| !param.used) {
        let help = format!("write `\"${name}\"` where it should stand, or leave it out");
        problems.warning(param.at, format!("parameter `{name}` is not used"), "").help(help);
    }
}

struct Params<'a> {
    values: BTreeMap<String, Param<'a>>,
    /// The pipeline's.
    seed: Value<'a>,
}

struct Param<'a> {
    at: Span,
    value: Value<'a>,
    used: bool,
}

impl<'a> Params<'a> {
    fn add(&mut self, name: &str, at: Span, value: &Value<'a>, problems: &mut Problems<'a>) {
        if name == "seed" {
            problems.error(at, "`seed` is the pipeline's, not a parameter", "").help("set it under [pipeline]");
        } else if reference(value.get_ref()) == Some("seed") {
            self.values.insert(name.to_owned(), Param { at, value: self.seed.clone(), used: false });
        } else if let Some(other) = reference(value.get_ref()) {
            let message = format!("parameter `{name}` refers to `${other}`");
            let help = "a parameter has a value of its own, or the pipeline's seed: `\"$seed\"`";
            problems.error(span(value), message, "").help(help);
        } else {
            self.values.insert(name.to_owned(), Param { at, value: value.clone(), used: false });
        }
    }

    fn replace(&mut self, value: &mut Value<'a>, problems: &mut Problems<'a>) {
        let at = span(value);
        if let Some(name) = reference(value.get_ref()) {
            let known: Vec<String> = self.values.keys().cloned().collect();
            match self.values.get_mut(name) {
                Some(param) => {
                    param.used = true;
                    problems.given(at, span(&param.value), name);
                    *value = Spanned::new(at.start..at.end, param.value.get_ref().clone());
                }
                None => {
                    let help = match nearest(name, known.iter().map(String::as_str)) {
                        Some(near) => format!("did you mean `${near}`?"),
                        None => format!("the parameters are {}; `$$` stands for a plain dollar sign", list(known)),
                    };
                    problems.error(at, format!("there is no parameter `{name}`"), "").help(help);
                    problems.settle(at);
                }
            }
            return;
        }
        match value.get_mut() {
            DeValue::Table(table) => table.iter_mut().for_each(|(_, value)| self.replace(value, problems)),
            DeValue::Array(items) => items.iter_mut().for_each(|value| self.replace(value, problems)),
            DeValue::String(text) if text.starts_with("$$") => *text = text[1..].to_owned().into(),
            _ => {}
        }
    }
}

/// The name in a string that is `$name` and nothing else.
fn reference<'v>(value: &'v DeValue) -> Option<&'v str> {
    let name = value.as_str()?.strip_prefix('$')?;
    let word = |character: char| character.is_ascii_alphanumeric() || character == '_' || character == '-';
    (name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') && name.chars().all(word))
        .then_some(name)
}
