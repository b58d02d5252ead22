//! APPS (Hendrycks et al. 2021, arXiv:2105.09938): problems with many solutions.

use serde_json::Value;
use tracetune_engine::stage::StageError;

use super::ProblemRow;
use super::contest::{Calls, Contest, split_of_file};
use super::layout::Source;

/// Reads a row; one without tests is left out.
pub(super) fn contest(source: &Source) -> Result<Result<Contest, (String, String)>, StageError> {
    let number = source.text(if source.has("problem_id") { "problem_id" } else { "id" })?;
    let split = split_of_file(source.path());
    let question = source.text("question")?;
    let starter = source.optional("starter_code")?;
    let mut problem = ProblemRow {
        problem_id: format!("apps/{split}/{number}"),
        split: split.to_owned(),
        instruction: if starter.trim().is_empty() { question } else { format!("{question}\n\n{starter}") },
        ..ProblemRow::default()
    };
    let text = source.optional("input_output")?;
    if text.trim().is_empty() {
        return Ok(Err((problem.problem_id, "has no tests".to_owned())));
    }
    let field = "input_output";
    let cases: Value =
        serde_json::from_str(&text).map_err(|error| source.wrong(field, &format!("is not JSON: {error}")))?;
    let solutions = Some(solutions(source)?);
    if let Some(function) = cases["fn_name"].as_str() {
        problem.entry_point = function.to_owned();
        let calls = Calls { function: function.to_owned(), starter, cases: text, field };
        return Ok(Ok(Contest { problem, solutions, calls: Some(calls), ..Contest::default() }));
    }
    let list = |name: &str| {
        let items = cases[name].as_array().and_then(|items| items.iter().map(lines).collect::<Option<Vec<_>>>());
        items.ok_or_else(|| source.wrong(field, &format!("`{name}` is not a list of texts")))
    };
    let (inputs, outputs) = (list("inputs")?, list("outputs")?);
    if inputs.len() != outputs.len() {
        let message = format!("has {} inputs, but {} outputs", inputs.len(), outputs.len());
        return Err(source.wrong(field, &message));
    }
    Ok(Ok(Contest { problem, solutions, streams: inputs.into_iter().zip(outputs).collect(), calls: None }))
}

/// A text, which some rows have as a list of its lines.
fn lines(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(lines) => {
            let lines: Option<Vec<&str>> = lines.iter().map(Value::as_str).collect();
            Some(lines?.join("\n"))
        }
        _ => None,
    }
}

/// The field `solutions`: a list of programs, as JSON in a text or as it is.
fn solutions(source: &Source) -> Result<Vec<String>, StageError> {
    let text = match source.value("solutions") {
        Some(Value::Array(_)) => return source.texts("solutions"),
        _ => source.optional("solutions")?,
    };
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_str(&text)
        .map_err(|error| source.wrong("solutions", &format!("is no JSON list of texts: {error}")))
}
