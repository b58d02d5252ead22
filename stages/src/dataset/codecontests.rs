//! CodeContests (Li et al. 2022, doi:10.1126/science.abq1158): problems with tests of three origins, and solutions in
//! four languages.

use serde_json::Value;
use tracetune_engine::stage::StageError;

use super::ProblemRow;
use super::contest::{Contest, split_of_file};
use super::layout::Source;

/// Where tests stand, the most trusted first.
const TESTS: [&str; 3] = ["public_tests", "private_tests", "generated_tests"];
/// What `solutions.language` says of a program in Python 3, by number and by name.
const PYTHON_3: (u64, &str) = (3, "PYTHON3");

/// Reads a row; one that is on files instead of standard input and output, or has no tests, is left out.
pub(super) fn contest(source: &Source) -> Result<Result<Contest, (String, String)>, StageError> {
    let split = split_of_file(source.path());
    let problem = ProblemRow {
        problem_id: format!("codecontests/{}", source.text("name")?),
        split: split.to_owned(),
        instruction: source.text("description")?,
        ..ProblemRow::default()
    };
    for field in ["input_file", "output_file"] {
        if !source.optional(field)?.is_empty() {
            return Ok(Err((
                problem.problem_id,
                format!("has an `{field}`, so that it is not on standard input and output"),
            )));
        }
    }
    let mut streams = Vec::new();
    for field in TESTS {
        let texts = |part: &str| {
            let items = column(source, field, part)?;
            let texts: Option<Vec<String>> = items.iter().map(|item| item.as_str().map(str::to_owned)).collect();
            texts.ok_or_else(|| source.wrong(field, &format!("`{part}` is not a list of texts")))
        };
        let (inputs, outputs) = (texts("input")?, texts("output")?);
        if inputs.len() != outputs.len() {
            return Err(source.wrong(field, &format!("has {} inputs, but {} outputs", inputs.len(), outputs.len())));
        }
        streams.extend(inputs.into_iter().zip(outputs));
    }
    if streams.is_empty() {
        return Ok(Err((problem.problem_id, "has no tests".to_owned())));
    }
    let languages = column(source, "solutions", "language")?;
    let programs = column(source, "solutions", "solution")?;
    let python = |language: &Value| language.as_u64() == Some(PYTHON_3.0) || language.as_str() == Some(PYTHON_3.1);
    let programs = languages.iter().zip(&programs).filter(|(language, _)| python(language));
    let solutions = programs.filter_map(|(_, program)| program.as_str().map(str::to_owned)).collect();
    Ok(Ok(Contest { problem, streams, solutions: Some(solutions), calls: None }))
}

/// A part of a field that is an object of lists, `{"input": […], "output": […]}`, or a list of objects.
fn column(source: &Source, field: &str, part: &str) -> Result<Vec<Value>, StageError> {
    let found = match source.value(field) {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::Object(lists)) => lists.get(part).and_then(Value::as_array).cloned(),
        Some(Value::Array(objects)) => objects.iter().map(|object| object.get(part).cloned()).collect(),
        Some(_) => None,
    };
    found.ok_or_else(|| source.wrong(field, &format!("has no list `{part}`")))
}
