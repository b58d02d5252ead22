//! Kind `dataset`: imports problems.

mod builtin;
mod evalplus;
mod file;
mod humaneval;
mod import;
mod layout;
mod quixbugs;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracetune_engine::diagnostic::list;
use tracetune_engine::record;
use tracetune_engine::stage::{
    self, Artifact, Context, Dropped, Environment, Inputs, Output, Outputs, ParamError, PortType, Setup, StageError,
    TableStage,
};
use tracetune_engine::table::{Record, RecordError};

use crate::python::Python;
use crate::suite::Thinning;
use import::Import;
pub use import::SkippedRow;

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

/// What may stand under `kind = "dataset"`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// `builtin:mini-python`, or a file: `.jsonl`, `.json` (an array of objects) or `.parquet`; for QuixBugs its folder.
    source: String,
    /// How the file's fields are named: `mbpp`, `humaneval`, `humanevalpack`, `evalplus`, `quixbugs`, or `fields`.
    #[serde(default)]
    layout: Layout,
    /// For the layout `fields`: standard column = the file's field. A column left out has the field of its own name;
    /// `buggy`, `mutation`, `rationale` and `fix` are read only if they stand here.
    #[serde(default)]
    fields: BTreeMap<String, String>,
    /// Shares of the splits by a hash of the problem, e.g. `{ train = 0.8, dev = 0.1, test = 0.1 }`. Without it the
    /// file's own splits count: a field `split`, or MBPP's task numbers.
    #[serde(default)]
    splits: BTreeMap<String, f64>,
    /// Keeps only this split.
    #[serde(default)]
    only: Option<String>,
    /// Keeps the first so many problems; 0 keeps all.
    #[serde(default)]
    limit: usize,
    /// Thins each problem's tests, e.g. `{ keep = 1 }`.
    #[serde(default)]
    tests: Option<Thinning>,
    /// Leaves out rows that are broken, and lists them in the output `skipped`, instead of ending at the first.
    #[serde(default)]
    skip_broken: bool,
    /// For `builtin:mini-python`: problems a split, of `pretrain`, `seed`, `train`, `dev` and `test`.
    #[serde(default)]
    sizes: BTreeMap<String, usize>,
    /// For `builtin:mini-python`: holds the problems fixed, those of this seed, whatever the pipeline's seed is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    corpus: Option<u64>,
    /// For `builtin:mini-python`: which problems; the pipeline's seed unless given. A program structure is in the same
    /// split under every seed, and no seed but 1 has a dev or test problem of seed 1's first 400 in each.
    #[serde(default = "one", skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
}

fn one() -> Option<u64> {
    Some(1)
}

/// How a file's fields are named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// By the parameter `fields`.
    #[default]
    Fields,
    /// MBPP (Austin et al. 2021, arXiv:2108.07732), full or sanitized. Splits by task number, as published: `prompt`
    /// 1–10, `test` 11–510, `dev` 511–600, `train` 601–974.
    Mbpp,
    /// HumanEval (Chen et al. 2021, arXiv:2107.03374): each assert of `check` becomes a test; the split is `test`.
    HumanEval,
    /// HumanEvalPack (Muennighoff et al. 2023, arXiv:2308.07124), the rows in Python: as HumanEval, with the bugs of
    /// HumanEvalFix; the kind of bug is their `bug_type`.
    HumanEvalPack,
    /// HumanEval+ or MBPP+ (Liu et al. 2023, arXiv:2305.01210) as EvalPlus publishes them, JSON lines: the tests are
    /// what the canonical solution gives for the inputs, the base ones first.
    EvalPlus,
    /// QuixBugs (Lin et al. 2017, doi:10.1145/3135932.3135941): a folder with `python_programs`,
    /// `correct_python_programs` and `json_testcases`; the split is `test`.
    QuixBugs,
}

const BUILTIN: &str = "builtin:mini-python";

impl Params {
    fn is_builtin(&self) -> bool {
        self.source.starts_with("builtin:")
    }

    /// The seed of the built-in problems.
    fn problems_seed(&self) -> Option<u64> {
        self.corpus.or(self.seed).filter(|_| self.is_builtin())
    }

    /// The columns it gives: those that every source has, and what this one has beside.
    fn schema(&self) -> SchemaRef {
        let full = ProblemRow::schema();
        let repair = matches!(self.layout, Layout::HumanEvalPack | Layout::QuixBugs);
        let extra = |name: &String| {
            self.is_builtin()
                || self.fields.contains_key(name)
                || (repair && ["buggy", "mutation"].contains(&name.as_str()))
        };
        let fields = full.fields().iter().enumerate().filter(|(place, field)| *place < ALWAYS || extra(field.name()));
        std::sync::Arc::new(Schema::new(fields.map(|(_, field)| field.clone()).collect::<Vec<_>>()))
    }
}

impl stage::Params for Params {
    /// What a file holds no seed decides; and problems held fixed are the same as those of that seed.
    fn normalise(&mut self) {
        (self.seed, self.corpus) = (self.problems_seed(), None);
    }

    fn validate(&self) -> Result<(), ParamError> {
        let wrong =
            |param, message: String, help: &str| Err(ParamError { param, message, help: Some(help.to_owned()) });
        if self.is_builtin() && self.source != BUILTIN {
            return wrong("source", format!("there is no corpus `{}`", self.source), "there is `builtin:mini-python`");
        }
        if self.is_builtin() && self.sizes.is_empty() {
            let help = "e.g. `sizes = { train = 1000, test = 200 }`";
            return wrong("source", "the built-in corpus needs `sizes`".to_owned(), help);
        }
        if let Some(split) = self.sizes.keys().find(|split| !builtin::SPLITS.contains(&split.as_str())) {
            return wrong("sizes", format!("there is no split `{split}`"), "splits: pretrain, seed, train, dev, test");
        }
        let standard = ProblemRow::schema();
        if let Some(column) = self.fields.keys().find(|column| standard.field_with_name(column).is_err()) {
            let columns: Vec<&str> = standard.fields().iter().map(|field| field.name().as_str()).collect();
            let help = &format!("columns: {}", columns.join(", "));
            return wrong("fields", format!("there is no column `{column}`"), help);
        }
        if let Some(thinning) = &self.tests {
            thinning.check("tests")?;
        }
        let total: f64 = self.splits.values().sum();
        if !self.splits.is_empty() && ((total - 1.0).abs() > 1e-6 || self.splits.values().any(|share| *share < 0.0)) {
            return wrong("splits", format!("the shares add up to {total}"), "they must add up to 1");
        }
        Ok(())
    }
}

/// Imports problems from a file or makes them with the built-in generator.
///
/// # Errors
/// [`StageError::Input`] naming the file, the row and the field that is wrong.
pub struct Dataset;

impl TableStage for Dataset {
    const KIND: &'static str = "dataset";
    const VERSION: u32 = 1;
    const ABOUT: &'static str =
        "imports problems: built-in, MBPP, HumanEval, HumanEvalFix, EvalPlus, QuixBugs, JSONL or Parquet";
    type Params = Params;

    fn outputs(params: &Params, _: &BTreeMap<String, Option<SchemaRef>>) -> Vec<Output> {
        vec![
            Output { name: "problems", port_type: PortType::Table(Some(params.schema())) },
            Output { name: "skipped", port_type: PortType::Table(Some(SkippedRow::schema())) },
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
        if !matches!(params.layout, Layout::Fields | Layout::Mbpp) {
            environment.extend(Python::find()?.environment());
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

fn project(table: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, RecordError> {
    let places = schema.fields().iter().map(|field| table.schema().index_of(field.name()));
    Ok(table.project(&places.collect::<Result<Vec<_>, _>>()?)?)
}

#[cfg(test)]
pub(crate) mod tests;
