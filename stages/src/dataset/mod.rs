//! Kind `dataset`: imports problems.

mod apps;
mod builtin;
mod codecontests;
mod contest;
mod evalplus;
mod file;
mod humaneval;
mod import;
mod layout;
mod livecodebench;
mod packed;
mod params;
mod quixbugs;
mod template;
mod test_module;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tracetune_engine::diagnostic::list;
use tracetune_engine::record;
use tracetune_engine::stage::{
    Artifact, Context, Dropped, Environment, Inputs, Output, Outputs, PortType, Setup, StageError, TableStage,
};
use tracetune_engine::table::{Record, RecordError};

use crate::python::Python;
use import::Import;
pub use import::SkippedRow;
pub use params::{Layout, Params};

record! {
    /// A problem with all columns that a source may bring.
    #[derive(Default)]
    pub struct ProblemRow {
        /// Names it.
        pub problem_id: String,
        /// Where it belongs.
        pub split: String,
        /// What the program should do.
        pub instruction: String,
        /// A correct program.
        pub reference: String,
        /// The function that the tests call.
        pub entry_point: String,
        /// Code that runs before the tests.
        pub setup: String,
        /// The tests.
        pub tests: Vec<String>,
        /// A wrong program.
        pub buggy: String,
        /// Its kind of bug.
        pub mutation: String,
        /// A demonstration's explanation.
        pub rationale: String,
        /// A demonstration's fix.
        pub fix: String,
    }
}

/// Columns that every source brings.
const ALWAYS: usize = 7;

/// Imports problems from a file or makes them with the built-in generator.
///
/// # Errors
/// [`StageError::Input`] naming the file, the row and the field that is wrong.
pub struct Dataset;

impl TableStage for Dataset {
    const KIND: &'static str = "dataset";
    const VERSION: u32 = 2;
    const ABOUT: &'static str = "imports problems: built-in, MBPP, HumanEval, HumanEvalFix, EvalPlus, QuixBugs, LiveCodeBench, APPS, CodeContests, ClassEval, JSONL or Parquet";
    type Params = Params;

    fn outputs(params: &Params, _: &BTreeMap<String, Option<SchemaRef>>) -> Vec<Output> {
        vec![
            Output::new("problems", PortType::Table(Some(params.schema()))),
            Output::new("skipped", PortType::Table(Some(SkippedRow::schema()))),
        ]
    }

    fn environment(params: &Params, setup: &Setup) -> Result<Environment, StageError> {
        if params.is_builtin() {
            let generator = blake3::hash(builtin::GENERATOR.as_bytes()).to_hex().to_string();
            Python::find()?;
            return Ok(vec![("generator mini-python".to_owned(), generator)]);
        }
        let mut environment = Vec::new();
        if params.layout == Layout::QuixBugs {
            let folder = setup.resolve(&params.source);
            for path in quixbugs::files(&folder)? {
                let name = path.strip_prefix(&folder).unwrap_or(&path).display();
                environment.push((format!("file {name}"), setup.digest_file(&path)?));
            }
        } else {
            environment.push(("file".to_owned(), setup.digest_file(&params.source)?));
        }
        match params.layout {
            Layout::Mbpp => {}
            // Needed only where the tests are a module of Python.
            Layout::Fields => environment.extend(Python::find().iter().flat_map(Python::environment)),
            _ => environment.extend(Python::find()?.environment()),
        }
        Ok(environment)
    }

    fn run(params: &Params, _: &Inputs, cx: &Context) -> Result<Outputs, StageError> {
        let Import { mut problems, skipped, .. } = if params.is_builtin() {
            Import::of(builtin::problems(params.problems_seed().unwrap_or(1), &params.sizes)?)
        } else {
            let import = layout::problems(params, &cx.root.join(&params.source), cx)?;
            import.tell(cx);
            import
        };
        if !params.splits.is_empty() {
            for problem in &mut problems {
                problem.split = split_of(&problem.problem_id, &params.splits);
            }
        }
        if let Some(only) = &params.only {
            let splits: BTreeSet<String> = problems.iter().map(|problem| problem.split.clone()).collect();
            let others = problems.iter().filter(|problem| problem.split != *only).count();
            if others > 0 {
                let help = format!("its splits are {}", list(&splits));
                cx.dropped(&Dropped::new(others as u64, format!("not of split `{only}`")).help(help));
            }
            problems.retain(|problem| problem.split == *only);
        }
        if params.limit > 0 {
            problems.truncate(params.limit);
        }
        if let Some(thinning) = &params.tests {
            for problem in &mut problems {
                problem.tests = thinning.kept(&problem.tests);
            }
        }
        unique(&problems, Path::new(&params.source))?;
        fits(&problems)?;
        let table = project(&ProblemRow::write(&problems)?, &params.schema())?;
        let skipped = Artifact::Table(SkippedRow::write(&skipped)?);
        Ok(Outputs::from([("problems", Artifact::Table(table)), ("skipped", skipped)]))
    }
}

/// The split of a problem: its hash, as a number in 0..1, falls into one of the shares, in the order of their names.
fn split_of(problem_id: &str, splits: &BTreeMap<String, f64>) -> String {
    let digest = blake3::hash(problem_id.as_bytes());
    let bits = u64::from_le_bytes(std::array::from_fn(|byte| digest.as_bytes()[byte]));
    let mut place = (bits >> 11) as f64 / (1u64 << 53) as f64;
    for (split, share) in splits {
        place -= share;
        if place < 0.0 {
            return split.clone();
        }
    }
    splits.keys().last().cloned().unwrap_or_default()
}

fn unique(problems: &[ProblemRow], source: &Path) -> Result<(), StageError> {
    let mut seen = std::collections::BTreeSet::new();
    match problems.iter().find(|problem| !seen.insert(&problem.problem_id)) {
        None => Ok(()),
        Some(problem) => Err(StageError::input(format!(
            "`{}` has two problems named `{}`: results are kept by that name, so it must be unique",
            source.display(),
            problem.problem_id
        ))),
    }
}

/// A table's column of texts holds less than 2 GiB.
fn fits(problems: &[ProblemRow]) -> Result<(), StageError> {
    let bytes: usize = problems.iter().flat_map(|problem| &problem.tests).map(String::len).sum();
    if bytes < i32::MAX as usize {
        return Ok(());
    }
    Err(StageError::input(format!(
        "the tests take {:.1} GiB, and a column holds less than 2 GiB: thin them, e.g. `tests = {{ keep = 20 }}`, or \
         take fewer problems by `limit`",
        bytes as f64 / f64::from(1 << 30)
    )))
}

fn project(table: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, RecordError> {
    let places = schema.fields().iter().map(|field| table.schema().index_of(field.name()));
    Ok(table.project(&places.collect::<Result<Vec<_>, _>>()?)?)
}

#[cfg(test)]
pub(crate) mod tests;
