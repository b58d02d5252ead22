//! `extends` and `--set`: laying one table over another.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::DeValue;

use super::problems::Problems;
use super::source::{self, Sources, Span, Table, Value};
use crate::diagnostic::{list, nearest};

/// Merges the pipeline files, then the `--set` values, into one table.
pub(super) fn merged<'a>(sources: &'a Sources, problems: &mut Problems<'a>) -> Table<'a> {
    let mut document = Table::new();
    for (start, text) in sources.pipelines() {
        let (table, errors) = source::parse(start, text);
        for (span, message) in errors {
            let message = message.trim_start_matches("TOML parse error").trim().to_owned();
            problems.error(span, format!("this is not TOML: {message}"), "");
        }
        lay_over(&mut document, table);
    }
    if let Some((span, message)) = sources.broken() {
        problems.error(span, message, "");
    }
    if problems.errors() == 0 {
        for (start, text) in sources.sets() {
            set(&mut document, start, text, problems);
        }
    }
    document
}

/// Lays `over` over `under`: tables are merged, everything else is replaced.
pub(super) fn lay_over<'a>(under: &mut Table<'a>, over: Table<'a>) {
    for (key, value) in over {
        let (span, value) = (value.span(), value.into_inner());
        match (under.get_mut(key.get_ref().as_ref()), value) {
            (Some(below), DeValue::Table(table)) if below.get_ref().is_table() => {
                // The place in the upper file is the one to point at.
                let DeValue::Table(mut merged) = std::mem::replace(below.get_mut(), DeValue::Boolean(false)) else {
                    continue;
                };
                lay_over(&mut merged, table);
                *below = Spanned::new(span, DeValue::Table(merged));
            }
            (Some(below), value) => *below = Spanned::new(span, value),
            (None, value) => drop(under.insert(key, Spanned::new(span, value))),
        }
    }
}

/// Applies one `path=value`.
fn set<'a>(document: &mut Table<'a>, start: usize, text: &'a str, problems: &mut Problems<'a>) {
    let (path, value) = text.split_once('=').unwrap_or((text, ""));
    let at = Span { start, end: start + path.len() };
    let value_start = start + path.len() + 1;
    let value = source::parse_value(value_start, value)
        .unwrap_or_else(|| Spanned::new(value_start..start + text.len(), DeValue::String(Cow::Borrowed(value))));
    assign(document, path, at, value, problems);
}

/// Puts a value where a path, which stands at `at`, leads: a parameter's name, `seed`, `STAGE.KEY`, `LOOP.STAGE.KEY`.
pub(super) fn assign<'a>(
    document: &mut Table<'a>,
    path: &str,
    at: Span,
    value: Value<'a>,
    problems: &mut Problems<'a>,
) {
    let words: Vec<&str> = path.trim().split('.').map(str::trim).collect();
    if words.iter().any(|word| word.is_empty()) {
        problems
            .error(at, "a value needs a path to stand at", "")
            .help("write `samples=24`, `stages.sample.n=24` or `rounds.sample.n=24`");
        return;
    }
    let Some(place) = place(document, &words) else {
        let named = names(document, "params");
        let stages = names(document, "stages").into_iter().chain(names(document, "loop"));
        let help =
            match nearest(words[0], named.iter().cloned().chain(stages).collect::<Vec<_>>().iter().map(String::as_str))
            {
                Some(near) => format!("did you mean `{near}`?"),
                None if named.is_empty() => {
                    "the file has no [params]; write `stages.NAME.KEY=VALUE` to set a stage's key".to_owned()
                }
                None => format!("the file's parameters are {}", list(named)),
            };
        problems.error(at, format!("there is nothing called `{}` to set", words[0]), "").help(help);
        return;
    };
    let mut table = document;
    for word in &place[..place.len() - 1] {
        let missing = !table.get(word.as_str()).is_some_and(|value| value.get_ref().is_table());
        if missing {
            let key = Spanned::new(at.start..at.end, Cow::Owned(word.clone()));
            table.remove(word.as_str());
            table.insert(key, Spanned::new(at.start..at.end, DeValue::Table(Table::new())));
        }
        let Some(DeValue::Table(inner)) = table.get_mut(word.as_str()).map(Spanned::get_mut) else { return };
        table = inner;
    }
    let last = &place[place.len() - 1];
    table.remove(last.as_str());
    table.insert(Spanned::new(at.start..at.end, Cow::Owned(last.clone())), value);
}

/// The full path that a short one means.
fn place(document: &Table, words: &[&str]) -> Option<Vec<String>> {
    let path = |prefix: &[&str]| Some(prefix.iter().chain(words).map(|word| (*word).to_owned()).collect());
    let has = |table: &str, name: &str| names(document, table).iter().any(|known| known == name);
    match words {
        ["seed" | "name"] => path(&["pipeline"]),
        [name] if has("params", name) => path(&["params"]),
        ["params", name] if !has("params", name) => None,
        [table @ ("stages" | "loop"), name, ..] if !has(table, name) => None,
        ["pipeline" | "params" | "stages" | "loop", _, ..] => path(&[]),
        [name, stage, rest @ ..] if has("loop", name) => {
            let inner = table(document, "loop").and_then(|loops| table(loops, name));
            let is_stage =
                inner.and_then(|inner| table(inner, "stages")).is_some_and(|stages| stages.contains_key(*stage));
            let mut full = vec!["loop".to_owned(), (*name).to_owned()];
            if is_stage {
                full.push("stages".to_owned());
            } else if rest.is_empty() && !super::document::LOOP_KEYS.contains(stage) {
                return None;
            }
            full.extend(words[1..].iter().map(|word| (*word).to_owned()));
            Some(full)
        }
        [name, _, ..] if has("stages", name) => path(&["stages"]),
        _ => None,
    }
}

fn names(document: &Table, key: &str) -> Vec<String> {
    let table = table(document, key);
    table.into_iter().flat_map(|table| table.keys()).map(|key| key.get_ref().clone().into_owned()).collect()
}

fn table<'t, 'a>(parent: &'t Table<'a>, key: &str) -> Option<&'t Table<'a>> {
    parent.get(key).map(Value::get_ref).and_then(DeValue::as_table)
}
