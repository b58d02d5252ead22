//! The parts of a merged file: which stages and loops there are. What a stage's keys mean is its kind's business.

use toml::Spanned;
use toml::de::{DeInteger, DeValue};

use super::problems::Problems;
use super::source::{Span, Table, Value, entries, span};
use super::value::{described, expect_string, expect_table, integer, wrong_type};
use super::{MetricName, Stop};
use crate::diagnostic::instead;

/// The keys of the whole file.
pub(super) const FILE_KEYS: [&str; 7] = ["extends", "pipeline", "params", "stages", "loop", "sweep", "ablations"];
/// The keys of `[pipeline]`.
pub(super) const PIPELINE_KEYS: [&str; 2] = ["name", "seed"];
/// The keys of a loop.
pub(super) const LOOP_KEYS: [&str; 6] = ["times", "carry", "stop", "select", "stages", "first"];
/// The most rounds a loop may have: far more than anyone wants, and few enough to unroll.
const MOST_ROUNDS: i64 = 10_000;

/// A file's parts.
pub(super) struct Document<'a> {
    pub(super) name: Option<String>,
    pub(super) seed: Value<'a>,
    pub(super) stages: Vec<StageTable<'a>>,
    pub(super) loops: Vec<LoopTable<'a>>,
}

/// `[stages.NAME]`, its keys unread.
pub(super) struct StageTable<'a> {
    pub(super) name: String,
    pub(super) at: Span,
    pub(super) keys: Table<'a>,
}

/// `[loop.NAME]`.
pub(super) struct LoopTable<'a> {
    pub(super) name: String,
    pub(super) at: Span,
    pub(super) times: usize,
    pub(super) carry: Vec<Carry>,
    pub(super) stop: Option<(Stop, Span)>,
    pub(super) select: Option<(MetricName, Span)>,
    pub(super) stages: Vec<StageTable<'a>>,
    /// What the first round has otherwise: keys laid over a stage's.
    pub(super) first: Vec<StageTable<'a>>,
}

/// `carry.NAME = { start, next }`: a value that goes from round to round.
pub(super) struct Carry {
    pub(super) name: String,
    pub(super) start: (String, Span),
    pub(super) next: (String, Span),
}

/// Reads the parts of a merged document.
pub(super) fn read<'a>(table: &Table<'a>, problems: &mut Problems<'a>) -> Document<'a> {
    let mut document = Document {
        name: None,
        seed: Spanned::new(0..0, DeValue::Integer(DeInteger::default())),
        stages: Vec::new(),
        loops: Vec::new(),
    };
    for (key, at, value) in entries(table) {
        match key {
            "pipeline" => pipeline(&mut document, value, problems),
            "stages" => document.stages = stages("stages", value, problems),
            "loop" => {
                let loops = expect_table("loop", value, problems).map(entries).unwrap_or_default();
                document.loops = loops
                    .into_iter()
                    .filter_map(|(name, at, value)| read_loop(name, at, expect_table(name, value, problems)?, problems))
                    .collect();
            }
            // Followed before the files were merged.
            "extends" => drop(expect_string("extends", value, problems)),
            _ => unknown_key(key, at, "a pipeline file", &FILE_KEYS, problems),
        }
    }
    check_names(&document, problems);
    document
}

/// Notes a key that has no meaning here.
pub(super) fn unknown_key(key: &str, at: Span, place: &str, known: &[&str], problems: &mut Problems) {
    let help = instead(key, known.iter().copied(), "the keys are");
    problems.error(at, format!("{place} has no key `{key}`"), "").help(help);
}

fn pipeline<'a>(document: &mut Document<'a>, value: &Value<'a>, problems: &mut Problems<'a>) {
    for (key, at, value) in expect_table("pipeline", value, problems).map(entries).unwrap_or_default() {
        match key {
            "name" => document.name = expect_string(key, value, problems).map(|(name, _)| name.to_owned()),
            "seed" => match integer(value.get_ref()) {
                Some(0..) => document.seed = value.clone(),
                _ => wrong_type(key, "an integer of at least 0", value, problems),
            },
            _ => unknown_key(key, at, "[pipeline]", &PIPELINE_KEYS, problems),
        }
    }
}

fn stages<'a>(what: &str, value: &Value<'a>, problems: &mut Problems<'a>) -> Vec<StageTable<'a>> {
    let stages = expect_table(what, value, problems).map(entries).unwrap_or_default();
    stages
        .into_iter()
        .filter_map(|(name, at, value)| {
            let keys = expect_table(name, value, problems)?.clone();
            Some(StageTable { name: name.to_owned(), at, keys })
        })
        .collect()
}

fn read_loop<'a>(name: &str, at: Span, table: &Table<'a>, problems: &mut Problems<'a>) -> Option<LoopTable<'a>> {
    let mut read = LoopTable {
        name: name.to_owned(),
        at,
        times: 1,
        carry: Vec::new(),
        stop: None,
        select: None,
        stages: Vec::new(),
        first: Vec::new(),
    };
    for (key, at, value) in entries(table) {
        match key {
            "times" => match integer(value.get_ref()) {
                Some(times @ 1..=MOST_ROUNDS) => read.times = times as usize,
                Some(_) => {
                    let message =
                        format!("`times` must be from 1 to {MOST_ROUNDS}, found {}", described(value.get_ref()));
                    problems.error(span(value), message, "");
                }
                None => wrong_type("times", "an integer of at least 1", value, problems),
            },
            "carry" => {
                let carried = expect_table("carry", value, problems).map(entries).unwrap_or_default();
                read.carry =
                    carried.into_iter().filter_map(|(name, at, value)| carry(name, at, value, problems)).collect();
            }
            "stop" => read.stop = stop(at, value, problems),
            "select" => read.select = metric("select", value, problems),
            "stages" => read.stages = stages("stages", value, problems),
            "first" => read.first = stages("first", value, problems),
            _ => unknown_key(key, at, "a loop", &LOOP_KEYS, problems),
        }
    }
    if !table.contains_key("times") {
        problems.error(at, format!("loop `{name}` does not say how often"), "").help("add `times = 4`");
    }
    if read.stages.is_empty() && !table.contains_key("stages") {
        let help = format!("add a stage: `[loop.{name}.stages.NAME]`");
        problems.error(at, format!("loop `{name}` has no stages"), "").help(help);
    }
    for first in &read.first {
        if !read.stages.iter().any(|stage| stage.name == first.name) {
            let known: Vec<&str> = read.stages.iter().map(|stage| stage.name.as_str()).collect();
            let help = instead(&first.name, known.iter().copied(), "its stages are");
            problems.error(first.at, format!("loop `{name}` has no stage `{}`", first.name), "").help(help);
        }
    }
    Some(read)
}

fn carry(name: &str, at: Span, value: &Value, problems: &mut Problems) -> Option<Carry> {
    let table = expect_table(name, value, problems)?;
    let mut ends = [None, None];
    for (key, at, value) in entries(table) {
        let end = match key {
            "start" => 0,
            "next" => 1,
            _ => {
                unknown_key(key, at, "a carried value", &["start", "next"], problems);
                continue;
            }
        };
        let (text, at) = expect_string(key, value, problems)?;
        ends[end] = Some((text.to_owned(), at));
    }
    let [start, next] = ends;
    if start.is_none() || next.is_none() {
        let missing = if start.is_none() { "start" } else { "next" };
        let help = "write `{ start = \"a stage outside the loop\", next = \"a stage of the loop\" }`";
        problems.error(at, format!("carried `{name}` has no `{missing}`"), "").help(help);
    }
    Some(Carry { name: name.to_owned(), start: start?, next: next? })
}

fn stop(at: Span, value: &Value, problems: &mut Problems) -> Option<(Stop, Span)> {
    let table = expect_table("stop", value, problems)?;
    let (mut watched, mut patience) = (None, 1);
    for (key, at, value) in entries(table) {
        match key {
            "metric" => watched = Some(metric("metric", value, problems)?),
            "patience" => match integer(value.get_ref()) {
                Some(rounds @ 1..) => patience = rounds as usize,
                _ => wrong_type(key, "an integer of at least 1", value, problems),
            },
            _ => unknown_key(key, at, "`stop`", &["metric", "patience"], problems),
        }
    }
    let Some((metric, at)) = watched else {
        problems.error(at, "`stop` does not say which metric to watch", "").help("add `metric = \"dev.pass@1\"`");
        return None;
    };
    Some((Stop { metric, patience }, at))
}

fn metric(key: &str, value: &Value, problems: &mut Problems) -> Option<(MetricName, Span)> {
    let (text, at) = expect_string(key, value, problems)?;
    match text.split_once('.') {
        Some((split, metric)) if !split.is_empty() && !metric.is_empty() => {
            Some((MetricName { split: split.to_owned(), metric: metric.to_owned() }, at))
        }
        _ => {
            let message = format!("`{text}` does not name a metric");
            problems.error(at, message, "").help("write the split, a dot and the metric, e.g. `dev.pass@1`");
            None
        }
    }
}

/// Names stand in references and in ids, so they are words; and each name has one meaning.
fn check_names(document: &Document, problems: &mut Problems) {
    let inner = document.loops.iter().flat_map(|outer| &outer.stages);
    let stages = document.stages.iter().chain(inner).map(|stage| (stage.name.as_str(), stage.at));
    let loops = document.loops.iter().map(|outer| (outer.name.as_str(), outer.at));
    for (name, at) in stages.chain(loops) {
        let word = |character: char| character.is_ascii_alphanumeric() || character == '_' || character == '-';
        if name.is_empty() || !name.chars().all(word) {
            let help = "use letters, digits, `-` and `_`: a dot and an `@` have a meaning in references";
            problems.error(at, format!("`{name}` can't be a name"), "").help(help);
        }
    }
    for outer in &document.loops {
        if let Some(stage) = document.stages.iter().find(|stage| stage.name == outer.name) {
            let other = problems.at(stage.at, "the stage");
            let message = format!("`{}` is both a stage and a loop", outer.name);
            problems.error(outer.at, message, "the loop").label(other).help("give one of them another name");
        }
        for stage in outer.stages.iter().filter(|stage| stage.name == "best") {
            let help = format!("`{}.best` means the round with the best metric", outer.name);
            problems.error(stage.at, "a stage of a loop can't be called `best`", "").help(help);
        }
    }
}
