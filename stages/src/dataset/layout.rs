//! Rows of a file to problems, by the layout of its fields.

use std::path::Path;

use serde_json::{Map, Value};
use tracetune_engine::stage::{Context, StageError};

use super::{Layout, Params, ProblemRow};
use crate::python::Python;
use crate::sandbox::{Limits, Sandbox};

/// One row with its place, for errors.
struct Source<'a> {
    path: &'a Path,
    /// 1-based.
    row: usize,
    object: &'a Map<String, Value>,
}

impl Source<'_> {
    fn wrong(&self, field: &str, message: &str) -> StageError {
        StageError::input(format!("`{}`, row {}, field `{field}`: {message}", self.path.display(), self.row))
    }

    fn text(&self, field: &str) -> Result<String, StageError> {
        match self.object.get(field) {
            Some(Value::String(text)) => Ok(text.replace("\r\n", "\n")),
            Some(Value::Number(number)) => Ok(number.to_string()),
            Some(_) => Err(self.wrong(field, "is not a text")),
            None => Err(self.wrong(field, "is missing")),
        }
    }

    fn optional(&self, field: &str) -> Result<String, StageError> {
        if matches!(self.object.get(field), None | Some(Value::Null)) { Ok(String::new()) } else { self.text(field) }
    }

    fn texts(&self, field: &str) -> Result<Vec<String>, StageError> {
        let Some(Value::Array(items)) = self.object.get(field) else {
            return Err(self.wrong(field, "is missing, or not a list of texts"));
        };
        let text = |item: &Value| item.as_str().map(|text| text.replace("\r\n", "\n"));
        items.iter().map(text).collect::<Option<_>>().ok_or_else(|| self.wrong(field, "is not a list of texts"))
    }
}

/// The problems of all rows.
///
/// # Errors
/// The first row that is not what the layout says, with its file, number and field.
pub(super) fn problems(
    params: &Params,
    path: &Path,
    rows: Vec<Map<String, Value>>,
    cx: &Context,
) -> Result<Vec<ProblemRow>, StageError> {
    let sources: Vec<Source> =
        rows.iter().enumerate().map(|(row, object)| Source { path, row: row + 1, object }).collect();
    match params.layout {
        Layout::Fields => sources.iter().map(|source| by_fields(params, source)).collect(),
        Layout::Mbpp => sources.iter().map(mbpp).collect(),
        Layout::HumanEval => human_eval(&sources, cx),
    }
}

fn by_fields(params: &Params, source: &Source) -> Result<ProblemRow, StageError> {
    let field = |column: &'static str| params.fields.get(column).map_or(column, String::as_str);
    let extra =
        |column: &'static str| params.fields.get(column).map_or_else(|| Ok(String::new()), |field| source.text(field));
    let reference = source.text(field("reference"))?;
    let tests = source.texts(field("tests"))?;
    let entry_point = source.optional(field("entry_point"))?;
    Ok(ProblemRow {
        problem_id: source.text(field("problem_id"))?,
        split: source.optional(field("split"))?,
        instruction: source.text(field("instruction"))?,
        entry_point: if entry_point.is_empty() { function_under_test(&reference, &tests) } else { entry_point },
        reference,
        setup: source.optional(field("setup"))?,
        tests,
        buggy: extra("buggy")?,
        mutation: extra("mutation")?,
        rationale: extra("rationale")?,
        fix: extra("fix")?,
    })
}

fn mbpp(source: &Source) -> Result<ProblemRow, StageError> {
    let number = source.text("task_id")?;
    let task: u32 = number.parse().map_err(|_| source.wrong("task_id", "is not a number"))?;
    let split = match task {
        0..=10 => "prompt",
        11..=510 => "test",
        511..=600 => "dev",
        _ => "train",
    };
    let sanitized = source.object.contains_key("test_imports");
    let reference = end_with_newline(source.text("code")?);
    let tests = source.texts("test_list")?;
    Ok(ProblemRow {
        problem_id: format!("mbpp/{task}"),
        split: split.to_owned(),
        instruction: source.text(if sanitized { "prompt" } else { "text" })?,
        entry_point: function_under_test(&reference, &tests),
        reference,
        setup: if sanitized { source.texts("test_imports")?.join("\n") } else { source.optional("test_setup_code")? },
        tests,
        buggy: String::new(),
        mutation: String::new(),
        rationale: String::new(),
        fix: String::new(),
    })
}

/// HumanEval's tests are Python functions; the sandbox takes them apart.
fn human_eval(sources: &[Source], cx: &Context) -> Result<Vec<ProblemRow>, StageError> {
    let sandbox = Sandbox::start(&Python::find()?, Limits::default(), cx.threads)?;
    let jobs: Vec<(String, String)> = sources
        .iter()
        .map(|source| Ok((source.text("test")?, source.text("entry_point")?)))
        .collect::<Result<_, StageError>>()?;
    let replies = sandbox.map(&jobs, &|| cx.cancelled(), &|_| {}, |worker, (test, entry_point)| {
        worker.call("humaneval", &[test.as_bytes(), entry_point.as_bytes()])
    })?;
    sources
        .iter()
        .zip(replies)
        .map(|(source, reply)| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let (setup, tests) = match reply.frames.first().map(Vec::as_slice) {
                Some([tag, setup, tests @ ..]) if tag == b"tests" => {
                    (text(setup), tests.iter().map(|test| text(test)).collect())
                }
                Some([tag, reason]) if tag == b"bad" => return Err(source.wrong("test", &text(reason))),
                _ => return Err(source.wrong("test", "can't be read as Python")),
            };
            let prompt = source.text("prompt")?;
            Ok(ProblemRow {
                problem_id: source.text("task_id")?,
                split: "test".to_owned(),
                reference: end_with_newline(format!("{prompt}{}", source.text("canonical_solution")?)),
                instruction: prompt,
                entry_point: source.text("entry_point")?,
                setup,
                tests,
                buggy: String::new(),
                mutation: String::new(),
                rationale: String::new(),
                fix: String::new(),
            })
        })
        .collect()
}

fn end_with_newline(mut program: String) -> String {
    if !program.ends_with('\n') {
        program.push('\n');
    }
    program
}

/// The function of `reference` that the first test calls; the last one where none is named there.
fn function_under_test(reference: &str, tests: &[String]) -> String {
    let names: Vec<&str> = reference
        .lines()
        .filter_map(|line| line.strip_prefix("def "))
        .filter_map(|rest| rest.split(['(', ' ']).next())
        .collect();
    let called = |name: &&&str| tests.first().is_some_and(|test| test.contains(&format!("{name}(")));
    names.iter().find(called).or(names.last()).map_or(String::new(), |name| (*name).to_owned())
}
