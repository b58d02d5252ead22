//! Rows of a file to problems, by the layout of its fields.

use std::path::Path;

use serde_json::{Map, Value};
use tracetune_engine::stage::{Context, StageError};

use super::file::Row;
use super::template::{filled, missing};
use super::test_module::{self, Tested};
use super::{
    Import, Layout, Params, ProblemRow, apps, codecontests, contest, evalplus, file, humaneval, livecodebench, quixbugs,
};

/// One row with its place, for errors.
pub(super) struct Source<'a> {
    path: &'a Path,
    /// 1-based.
    row: usize,
    object: &'a Map<String, Value>,
}

/// What is wrong with a row, or with one field of it.
pub(super) fn wrong(path: &Path, row: usize, field: &str, message: &str) -> StageError {
    let field = if field.is_empty() { String::new() } else { format!(", field `{field}`") };
    StageError::input(format!("`{}`, row {row}{field}: {message}", path.display()))
}

impl Source<'_> {
    pub(super) fn wrong(&self, field: &str, message: &str) -> StageError {
        wrong(self.path, self.row, field, message)
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        self.path
    }

    pub(super) fn has(&self, field: &str) -> bool {
        self.object.contains_key(field)
    }

    pub(super) fn value(&self, field: &str) -> Option<&Value> {
        self.object.get(field)
    }

    pub(super) fn text(&self, field: &str) -> Result<String, StageError> {
        match self.object.get(field) {
            Some(Value::String(text)) => Ok(text.replace("\r\n", "\n")),
            Some(Value::Number(number)) => Ok(number.to_string()),
            Some(_) => Err(self.wrong(field, "is not a text")),
            None => Err(self.wrong(field, &missing(field, self.object))),
        }
    }

    pub(super) fn optional(&self, field: &str) -> Result<String, StageError> {
        if matches!(self.object.get(field), None | Some(Value::Null)) { Ok(String::new()) } else { self.text(field) }
    }

    pub(super) fn texts(&self, field: &str) -> Result<Vec<String>, StageError> {
        let Some(Value::Array(items)) = self.object.get(field) else {
            return Err(self.wrong(field, "is missing, or not a list of texts"));
        };
        let text = |item: &Value| item.as_str().map(|text| text.replace("\r\n", "\n"));
        items.iter().map(text).collect::<Option<_>>().ok_or_else(|| self.wrong(field, "is not a list of texts"))
    }
}

/// The problems of the file or folder at `path`.
///
/// # Errors
/// The first row that is not what the layout says, with its file, number and field; none if such rows are skipped.
pub(super) fn problems(params: &Params, path: &Path, cx: &Context) -> Result<Import, StageError> {
    let mut import = Import::new(params.skip_broken);
    match params.layout {
        Layout::EvalPlus => evalplus::problems(&mut import, path, cx)?,
        Layout::QuixBugs => quixbugs::problems(&mut import, path, cx)?,
        layout => {
            let mut rows = Vec::new();
            for row in file::rows(path)? {
                rows.extend(import.sound(row)?);
            }
            let sources: Vec<Source> =
                rows.iter().map(|Row { number, object }| Source { path, row: *number, object }).collect();
            match layout {
                Layout::HumanEval | Layout::HumanEvalPack => humaneval::problems(&mut import, layout, &sources, cx)?,
                Layout::Mbpp => import.extend(&sources, mbpp)?,
                Layout::LiveCodeBench => {
                    contest::problems(&mut import, params, &sources, cx, livecodebench::contest)?;
                }
                Layout::Apps => contest::problems(&mut import, params, &sources, cx, apps::contest)?,
                Layout::CodeContests => {
                    contest::problems(&mut import, params, &sources, cx, codecontests::contest)?;
                }
                Layout::ClassEval => with_modules(&mut import, &sources, cx, test_module::class_eval)?,
                Layout::Fields | Layout::EvalPlus | Layout::QuixBugs => {
                    with_modules(&mut import, &sources, cx, |source| by_fields(params, source))?;
                }
            }
        }
    }
    Ok(import)
}

fn with_modules(
    import: &mut Import,
    sources: &[Source],
    cx: &Context,
    read: impl Fn(&Source) -> Result<Tested, StageError>,
) -> Result<(), StageError> {
    let mut tested = Vec::new();
    for source in sources {
        tested.extend(import.sound(read(source))?.map(|tested| (source, tested)));
    }
    test_module::problems(import, tested, cx)
}

fn by_fields(params: &Params, source: &Source) -> Result<Tested, StageError> {
    let texts = |column: &str| -> Result<Vec<String>, StageError> {
        let templates = params.fields.get(column).map_or(&[][..], |mapping| mapping.templates());
        let fill = |template: &String| {
            filled(template, source.object).map_err(|(field, message)| source.wrong(&field, &message))
        };
        templates.iter().map(fill).collect()
    };
    let field = |column: &'static str| params.fields.get(column).and_then(|mapping| mapping.field()).unwrap_or(column);
    let text = |column: &'static str, required: bool| -> Result<String, StageError> {
        match texts(column)?.pop() {
            Some(text) => Ok(text),
            None if required => source.text(field(column)),
            None => source.optional(field(column)),
        }
    };
    let extra = |column: &'static str| {
        if params.fields.contains_key(column) { text(column, true) } else { Ok(String::new()) }
    };
    let reference = text("reference", true)?;
    let mut tests = texts("tests")?;
    let mut module = String::new();
    if tests.is_empty() {
        match source.value(field("tests")) {
            // A text that is no test on standard input and output is a module of tests.
            Some(Value::String(text)) if text.trim_start().starts_with('{') => tests.push(text.trim().to_owned()),
            Some(Value::String(_)) => module = source.text(field("tests"))?,
            _ => tests = source.texts(field("tests"))?,
        }
    }
    let entry_point = match text("entry_point", false)? {
        named if !named.is_empty() => named,
        _ if module.is_empty() => function_under_test(&reference, &tests),
        _ => function_under_test(&reference, std::slice::from_ref(&module)),
    };
    let problem = ProblemRow {
        problem_id: text("problem_id", true)?,
        split: text("split", false)?,
        instruction: text("instruction", true)?,
        entry_point,
        reference,
        setup: text("setup", false)?,
        tests,
        buggy: extra("buggy")?,
        mutation: extra("mutation")?,
        rationale: extra("rationale")?,
        fix: extra("fix")?,
    };
    Ok(Tested { problem, module, field: field("tests").to_owned(), classes: Vec::new() })
}

fn mbpp(source: &Source) -> Result<ProblemRow, StageError> {
    let number = source.text("task_id")?;
    let task: u32 = number.parse().map_err(|_| source.wrong("task_id", "is not a number"))?;
    let sanitized = source.object.contains_key("test_imports");
    let reference = end_with_newline(source.text("code")?);
    let tests = source.texts("test_list")?;
    Ok(ProblemRow {
        problem_id: format!("mbpp/{task}"),
        split: mbpp_split(task).to_owned(),
        instruction: source.text(if sanitized { "prompt" } else { "text" })?,
        entry_point: function_under_test(&reference, &tests),
        reference,
        setup: if sanitized { source.texts("test_imports")?.join("\n") } else { source.optional("test_setup_code")? },
        tests,
        ..ProblemRow::default()
    })
}

/// MBPP's published splits, by task number.
pub(super) fn mbpp_split(task: u32) -> &'static str {
    match task {
        0..=10 => "prompt",
        11..=510 => "test",
        511..=600 => "dev",
        _ => "train",
    }
}

pub(super) fn end_with_newline(mut program: String) -> String {
    if !program.ends_with('\n') {
        program.push('\n');
    }
    program
}

/// The function of `reference` that the first test calls; the last one where none is named there, none where the test
/// is on standard input and output.
fn function_under_test(reference: &str, tests: &[String]) -> String {
    if tests.first().is_some_and(|test| test.starts_with('{')) {
        return String::new();
    }
    let names: Vec<&str> = reference
        .lines()
        .filter_map(|line| line.strip_prefix("def "))
        .filter_map(|rest| rest.split(['(', ' ']).next())
        .collect();
    let called = |name: &&&str| tests.first().is_some_and(|test| test.contains(&format!("{name}(")));
    names.iter().find(called).or(names.last()).map_or(String::new(), |name| (*name).to_owned())
}
