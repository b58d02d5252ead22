//! `[params]`: putting values where `$name` stands, and their text where a string has `${name}`.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeInteger, DeValue};

use super::problems::Problems;
use super::source::{Span, Table, Value, entries, span};
use crate::diagnostic::{list, nearest};

/// Takes `[params]` out of the document and puts its values wherever a whole value is `$name`, of whatever type, and their
/// text wherever `${name}` stands in a string. `$seed` is the pipeline's seed, for a parameter too. `$$` at the start of a
/// string stands for one `$`, `$${` within it for `${`; any other dollar sign is one.
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
        } else if let Some(other) = reference(value.get_ref()).or_else(|| first_within(value.get_ref().as_str()?)) {
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
            DeValue::String(text) if text.contains('$') => {
                let filled = self.fill(text, at, problems);
                *text = filled.into();
            }
            _ => {}
        }
    }

    /// A string with the text of parameters in it.
    fn fill(&mut self, text: &str, at: Span, problems: &mut Problems<'a>) -> String {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        if let Some(after) = rest.strip_prefix("$$") {
            filled.push('$');
            rest = after;
        }
        while let Some(dollar) = rest.find('$') {
            filled.push_str(&rest[..dollar]);
            rest = &rest[dollar..];
            if let Some(after) = rest.strip_prefix("$${") {
                filled.push_str("${");
                rest = after;
            } else if let Some((name, after)) = within(rest) {
                match self.values.get_mut(name) {
                    Some(param) => {
                        param.used = true;
                        match text_of(param.value.get_ref()) {
                            Some(value) => filled.push_str(&value),
                            None => {
                                let message = format!("parameter `{name}` is no text, number or truth value");
                                let help = format!("a whole value may be `\"${name}\"`, of any type");
                                problems.error(at, message, "").help(help);
                            }
                        }
                    }
                    None => {
                        let known = self.values.keys().map(String::as_str);
                        let help = match nearest(name, known) {
                            Some(near) => format!("did you mean `${{{near}}}`?"),
                            None => format!("`$${{{name}}}` stands for `${{{name}}}` itself"),
                        };
                        problems.error(at, format!("there is no parameter `{name}`"), "").help(help);
                    }
                }
                rest = after;
            } else {
                filled.push('$');
                rest = &rest[1..];
            }
        }
        filled.push_str(rest);
        filled
    }
}

/// What a string shows of a value; `None` for lists and tables.
fn text_of(value: &DeValue) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Array(_) | DeValue::Table(_) => None,
        other => Some(super::value::plain(other).to_string()),
    }
}

/// The name in a `${name}` that a text begins with, and what comes behind it.
fn within(text: &str) -> Option<(&str, &str)> {
    let (name, rest) = text.strip_prefix("${")?.split_once('}')?;
    is_name(name).then_some((name, rest))
}

fn first_within(text: &str) -> Option<&str> {
    text.match_indices("${").find_map(|(at, _)| within(&text[at..])).map(|(name, _)| name)
}

/// A string as it must stand in a file to be taken for what it is.
pub(super) fn escaped(text: &str) -> String {
    let within = text.replace("${", "$${");
    if text.starts_with('$') && !text.starts_with("${") { format!("${within}") } else { within }
}

fn is_name(name: &str) -> bool {
    let word = |character: char| character.is_ascii_alphanumeric() || character == '_' || character == '-';
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') && name.chars().all(word)
}

/// The name in a string that is `$name` and nothing else.
pub(super) fn reference<'v>(value: &'v DeValue) -> Option<&'v str> {
    let name = value.as_str()?.strip_prefix('$')?;
    is_name(name).then_some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::source::Sources;
    use super::*;

    fn filled(text: &str) -> (String, usize) {
        let sources = Sources::text("x.toml", "", &super::super::Overrides::default());
        let mut problems = Problems::new(&sources);
        let number = Spanned::new(0..0, DeValue::Boolean(true));
        let param = Param { at: Span::from(0..0), value: number, used: false };
        let mut params = Params {
            values: BTreeMap::from([("on".to_owned(), param)]),
            seed: Spanned::new(0..0, DeValue::Boolean(false)),
        };
        let filled = params.fill(text, Span::from(0..0), &mut problems);
        (filled, problems.errors())
    }

    #[test]
    fn a_parameter_stands_within_a_string_and_other_dollars_stay() {
        for (text, expected, errors) in [
            ("a ${on}${on} b", "a truetrue b", 0),
            ("echo $HOME $(pwd) ${HOME:-x} $", "echo $HOME $(pwd) ${HOME:-x} $", 0),
            ("$${on}", "${on}", 0),
            ("x$${on}", "x${on}", 0),
            ("$$on", "$on", 0),
            ("${of}", "", 1),
        ] {
            assert_eq!(filled(text), (expected.to_owned(), errors), "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_escaped_text_comes_back(text in "[${}on]{0,12}") {
            prop_assume!(escaped(&text) != "$on");
            prop_assert_eq!(filled(&escaped(&text)), (text, 0));
        }
    }
}
