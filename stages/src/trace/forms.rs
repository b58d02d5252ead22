//! Traces in the order of time: the Scratchpad form, and JSON lines for other tools.

use std::collections::HashMap;

use serde::Serialize;

use super::run::{Run, Step};

/// Each executed line with the whole state after it, in the form of Nye et al. 2021 (arXiv:2112.00114): `line: …`, then
/// `state: {"name": value, …}` of the frame that executed it. Needs a run with every line.
pub fn scratchpad(source: &str, run: &Run, fits: &dyn Fn(&str) -> bool) -> (String, bool) {
    let lines: Vec<&str> = source.split('\n').collect();
    let mut frames: HashMap<usize, Vec<&(String, String)>> = HashMap::new();
    let mut entries = Vec::new();
    for step in &run.steps {
        let state = frames.entry(step.frame).or_default();
        for change in &step.changes {
            match state.iter().position(|(name, _)| *name == change.0) {
                Some(at) if change.1.is_empty() => drop(state.remove(at)),
                Some(at) => state[at] = change,
                None => state.push(change),
            }
        }
        let state: Vec<String> = state.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
        let line = lines.get(step.line.wrapping_sub(1)).map_or("", |line| line.trim_end());
        entries.push(format!("line: {line}\nstate: {{{}}}\n", state.join(", ")));
    }
    newest(&entries, &run.marks, |text| format!("... {text}\n"), fits)
}

/// One step, a line of the form `jsonl`.
#[derive(Serialize)]
pub(crate) struct Record<'a> {
    /// Its number in the run.
    step: usize,
    /// 1-based, the last of the statement.
    line: usize,
    /// The call, by number in the order of the calls.
    frame: usize,
    /// The function's name; empty outside functions.
    function: &'a str,
    /// Pairs of name and value; a deleted name has `null`.
    changes: Vec<(&'a str, Option<&'a str>)>,
}

/// The steps that changed something, for JSON.
pub(crate) fn records(run: &Run) -> Vec<Record<'_>> {
    fn record<'a>(run: &'a Run, number: usize, step: &'a Step) -> Record<'a> {
        let change =
            |(name, value): &'a (String, String)| (name.as_str(), (!value.is_empty()).then_some(value.as_str()));
        let changes = step.changes.iter().map(change).collect();
        Record { step: number, line: step.line, frame: step.frame, function: run.function(step.function), changes }
    }
    run.changes().enumerate().map(|(number, step)| record(run, number, step)).collect()
}

/// A JSON object a step that changed something, a line each.
pub fn json_lines(run: &Run, fits: &dyn Fn(&str) -> bool) -> (String, bool) {
    let line = |record: &Record<'_>| Some(serde_json::to_string(record).ok()? + "\n");
    let entries: Vec<String> = records(run).iter().filter_map(line).collect();
    newest(&entries, &run.marks, |text| serde_json::json!({ "note": text }).to_string() + "\n", fits)
}

/// The last entries that fit together, with notes of what is missing, and whether any are.
fn newest(
    entries: &[String],
    marks: &[String],
    note: impl Fn(&str) -> String,
    fits: &dyn Fn(&str) -> bool,
) -> (String, bool) {
    let write = |from: usize| {
        let left_out = (from > 0).then(|| note(&format!("{from} left out")));
        let marks = marks.iter().map(|mark| note(mark));
        left_out.into_iter().chain(entries[from..].iter().cloned()).chain(marks).collect::<String>()
    };
    let from = fewest_left_out(entries.len(), |from| fits(&write(from)));
    (write(from), from > 0)
}

/// The least number of oldest steps, of `count`, without which the rest fits; all of them where nothing does.
pub(super) fn fewest_left_out(count: usize, fits: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low.midpoint(high);
        if fits(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}
