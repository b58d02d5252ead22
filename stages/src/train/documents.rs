//! Rows to training documents: what the model reads, then what it learns to write.

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use tracetune_engine::stage::{Context, StageError};
use tracetune_engine::statistics::splitmix64;
use tracetune_engine::table::{Column, read_column};

use crate::prompt::{COMPLETION_MARK, FixFormat, Settings, Template, View, demonstration, up_to_end_of_fix};

/// A training document.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Read, without loss.
    pub context: String,
    /// Learned.
    pub target: String,
    /// What its tokens count in the loss; 1 unless given.
    pub weight: f32,
}

impl Document {
    fn new(context: String, target: String) -> Self {
        Self { context, target, weight: 1.0 }
    }
}

/// How rows become documents.
pub struct Documents<'a> {
    /// Document templates: each row gives one document a template.
    pub templates: &'a [String],
    /// Whether documents show the execution.
    pub trace: bool,
    /// Whether documents hold the rationale.
    pub rationale: bool,
    /// How fixes stand in completions.
    pub fix_format: FixFormat,
    /// Addresses the templates' random choices.
    pub seed: u64,
}

impl Documents<'_> {
    fn settings(&self) -> Settings {
        Settings { rationale: self.rationale, trace: self.trace, fix_format: self.fix_format, exemplars: Vec::new() }
    }

    /// What a model learns to write for a row. A completion ends with its fix: a model that saw exemplars goes on with
    /// tasks of its own.
    fn target(&self, view: &View) -> String {
        let View { completion, program, rationale, fix, .. } = view;
        if completion.is_empty() {
            demonstration(rationale, fix, self.fix_format, self.rationale)
        } else {
            up_to_end_of_fix(completion, program, self.fix_format, self.rationale, !fix.is_empty())
        }
    }
}

/// Renders each row through each template, row by row.
///
/// # Errors
/// A template can't be read or uses a name that the rows do not have.
pub fn render(rows: &RecordBatch, documents: &Documents, cx: &Context) -> Result<Vec<Document>, StageError> {
    let templates: Vec<Template> =
        documents.templates.iter().map(|name| Template::load(name, &cx.root)).collect::<Result<_, _>>()?;
    let settings = documents.settings();
    let mut rendered = Vec::with_capacity(rows.num_rows() * templates.len());
    for (index, view) in views(rows, documents.trace)?.iter().enumerate() {
        for (number, template) in templates.iter().enumerate() {
            let salt = splitmix64(documents.seed ^ splitmix64((index as u64) << 8 | number as u64));
            let text = template.render(view, &settings, salt)?;
            rendered.push(match text.split_once(COMPLETION_MARK) {
                Some((context, target)) => Document::new(context.to_owned(), target.to_owned()),
                None => Document::new(String::new(), text),
            });
        }
    }
    Ok(rendered)
}

/// Repairs as documents: the prompt as `sample` would write it without exemplars, then the completion up to the end of
/// its fix. Rows without a completion of their own (demonstrations) get one from their rationale and fix.
///
/// # Errors
/// As [`render`].
pub fn repairs(
    rows: &RecordBatch,
    prompt: &str,
    documents: &Documents,
    cx: &Context,
) -> Result<Vec<Document>, StageError> {
    let template = Template::load(prompt, &cx.root)?;
    let settings = documents.settings();
    let views = views(rows, documents.trace)?;
    let document = |view| Ok(Document::new(template.render(view, &settings, 0)?, documents.target(view)));
    views.iter().map(document).collect()
}

/// Gives the documents of each row what the row's `column` says.
///
/// # Errors
/// There is no such column of numbers, or one of them is missing, negative or not finite; names the row.
pub fn weigh(documents: &mut [Document], rows: &RecordBatch, column: &str) -> Result<(), StageError> {
    let Some(values) = rows.column_by_name(column) else {
        let schema = rows.schema();
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        return Err(StageError::input(format!(
            "`weights` names the column `{column}`, the rows have `{}`",
            names.join("`, `")
        )));
    };
    if !values.data_type().is_numeric() {
        return Err(StageError::input(format!("`weights` names the column `{column}`, which holds no numbers")));
    }
    let values = cast(values, &DataType::Float64).map_err(|error| StageError::input(error.to_string()))?;
    let each = documents.len() / rows.num_rows().max(1);
    for (row, value) in values.as_primitive::<Float64Type>().iter().enumerate() {
        let weight = value.unwrap_or(f64::NAN) as f32;
        if !(weight >= 0.0 && weight.is_finite()) {
            let found = value.map_or("empty".to_owned(), |value| value.to_string());
            return Err(StageError::input(format!("row {row}: `{column}` is {found}, a weight is a number from 0 on")));
        }
        documents[row * each..(row + 1) * each].iter_mut().for_each(|document| document.weight = weight);
    }
    Ok(())
}

/// What templates see of each row. The program is `buggy` where there is one, else `reference`; a column that the
/// table lacks is empty.
fn views(rows: &RecordBatch, with_trace: bool) -> Result<Vec<View>, StageError> {
    let text = |name: &str| optional::<String>(rows, name);
    let (instruction, reference, buggy) = (text("instruction")?, text("reference")?, text("buggy")?);
    let (trace, got, test) = (text("trace")?, text("got")?, text("test")?);
    let (rationale, fix, completion) = (text("rationale")?, text("fix")?, text("completion")?);
    let tests = optional::<Vec<String>>(rows, "tests")?;
    Ok((0..rows.num_rows())
        .map(|row| {
            let program = if buggy[row].is_empty() { &reference[row] } else { &buggy[row] };
            let annotated = if with_trace { trace[row].as_str() } else { "" };
            View {
                instruction: instruction[row].clone(),
                tests: tests[row].clone(),
                test: test[row].clone(),
                got: if with_trace { got[row].clone() } else { String::new() },
                rationale: rationale[row].clone(),
                fix: fix[row].clone(),
                completion: completion[row].clone(),
                ..View::of_program(program, annotated)
            }
        })
        .collect())
}

/// A column, or defaults where the table lacks it or holds a null.
fn optional<T: Column + Default>(rows: &RecordBatch, name: &str) -> Result<Vec<T>, StageError>
where
    Option<T>: OptionalColumn<T>,
{
    if rows.column_by_name(name).is_none() {
        return Ok(vec![T::default(); rows.num_rows()]);
    }
    <Option<T> as OptionalColumn<T>>::read(rows, name)
}

/// Reads a column that may hold nulls.
trait OptionalColumn<T> {
    fn read(rows: &RecordBatch, name: &str) -> Result<Vec<T>, StageError>;
}

impl OptionalColumn<String> for Option<String> {
    fn read(rows: &RecordBatch, name: &str) -> Result<Vec<String>, StageError> {
        Ok(read_column::<Self>(rows, name)?.into_iter().map(Option::unwrap_or_default).collect())
    }
}

impl OptionalColumn<Vec<String>> for Option<Vec<String>> {
    fn read(rows: &RecordBatch, name: &str) -> Result<Vec<Vec<String>>, StageError> {
        Ok(read_column::<Vec<String>>(rows, name)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::parse;

    const BUGGY: &str = "def f(x):\n    return x + 1\n";
    const FIXED: &str = "def f(x):\n    return x\n";
    /// What a model that saw exemplars goes on with.
    const NEXT_TASK: &str = "\n\n# the sum\n1 def g(a):\n2  return a\nwhy: because\nfix: 2 return a + 1\n\n### Task\nThe sum.\n\n\
        ### Buggy program\n```python\ndef g(a):\n    return a\n```\n### Repair\nBecause.\n```python\ndef g(a):\n    ret";

    #[test]
    fn a_completion_is_learned_up_to_the_end_of_its_fix() {
        let program = format!("It adds 1.\n```python\n{FIXED}```");
        let diff = "It adds 1.\n```diff\n@@ -2 +2 @@\n-    return x + 1\n+    return x\n```";
        for (fix_format, rationale, completion) in [
            (FixFormat::Edit, true, " It adds 1.\nfix: 2 return x"),
            (FixFormat::Edit, false, " 2 return x"),
            (FixFormat::Program, true, program.as_str()),
            (FixFormat::Diff, true, diff),
        ] {
            let documents = Documents { templates: &[], trace: true, rationale, fix_format, seed: 0 };
            let row = View {
                completion: completion.to_owned() + NEXT_TASK,
                fix: parse(completion, BUGGY, fix_format, rationale).fix,
                ..View::of_program(BUGGY, "")
            };
            assert_eq!((documents.target(&row).as_str(), row.fix.as_str()), (completion, FIXED), "{fix_format:?}");
        }
    }

    #[test]
    fn a_completion_without_a_fix_is_learned_as_it_is() {
        let documents = |fix_format| Documents { templates: &[], trace: true, rationale: true, fix_format, seed: 0 };
        for fix_format in [FixFormat::Edit, FixFormat::Program, FixFormat::Diff] {
            let row = View { completion: "No idea\n```python\nx".to_owned(), ..View::of_program(BUGGY, "") };
            assert_eq!(documents(fix_format).target(&row), row.completion, "{fix_format:?}");
        }
    }
}
