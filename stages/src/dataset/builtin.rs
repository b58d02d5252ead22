//! The built-in corpus: its generator, `mini_python.py`, run with the machine's Python.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Stdio;

use serde::Deserialize;
use tracetune_engine::stage::StageError;

use super::ProblemRow;
use crate::python::Python;

/// The generator's source. Its output is the same on every platform and Python from 3.10 on.
pub(super) const GENERATOR: &str = include_str!("mini_python.py");

/// Its splits, disjoint in program structure.
pub(super) const SPLITS: &[&str] = &["pretrain", "seed", "train", "dev", "test"];

/// A line of the generator's output. What a split does not have is empty.
#[derive(Deserialize)]
struct Line {
    problem_id: String,
    split: String,
    instruction: String,
    entry_point: String,
    reference: String,
    tests: Vec<String>,
    #[serde(default)]
    buggy: String,
    #[serde(default)]
    mutation: String,
    #[serde(default)]
    rationale: String,
    #[serde(default)]
    fix: String,
}

/// Makes the problems of each split.
///
/// # Errors
/// There is no Python, or the generator refuses: more problems than a split has.
pub(super) fn problems(seed: u64, sizes: &BTreeMap<String, usize>) -> Result<Vec<ProblemRow>, StageError> {
    let request = serde_json::json!({ "seed": seed, "splits": sizes }).to_string();
    let mut child = Python::find()?
        .command()
        .args(["-c", GENERATOR])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(request.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        return Err(StageError::input(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| {
            let line: Line = serde_json::from_str(line)
                .map_err(|error| StageError::input(format!("the corpus generator wrote a bad line: {error}")))?;
            Ok(ProblemRow {
                problem_id: line.problem_id,
                split: line.split,
                instruction: line.instruction,
                reference: line.reference,
                entry_point: line.entry_point,
                tests: line.tests,
                buggy: line.buggy,
                mutation: line.mutation,
                rationale: line.rationale,
                fix: line.fix,
                ..ProblemRow::default()
            })
        })
        .collect()
}
