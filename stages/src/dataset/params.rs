//! What may be set of an import.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracetune_engine::stage::{self, ParamError};
use tracetune_engine::table::Record as _;

use super::template::Mapping;
use super::{ALWAYS, ProblemRow, builtin};
use crate::suite::Thinning;

/// What may stand under `kind = "dataset"`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// `builtin:mini-python`, or a file: `.jsonl`, `.json` (an array of objects) or `.parquet`; for QuixBugs its folder.
    pub(super) source: String,
    /// How the file's fields are named: `mbpp`, `humaneval`, `humanevalpack`, `evalplus`, `quixbugs`, `livecodebench`,
    /// `apps`, `codecontests`, `classeval`, or `fields`.
    #[serde(default)]
    pub(super) layout: Layout,
    /// For the layout `fields`: standard column = the file's field, or a template such as
    /// `tests = ["assert f({input}) == {output}"]` (CRUXEval). A column left out has the field of its own name; `buggy`,
    /// `mutation`, `rationale` and `fix` are read only if they stand here.
    ///
    /// In a template `{name}` is the value of the file's field `name`: a text as it is, other values as Python literals;
    /// `{name!r}` puts a text in quotes too; `{{` and `}}` are braces. `tests` takes a list of templates, a test each;
    /// another column a list of one, which need not have a brace: `split = ["test"]`. A field of tests is a list of texts,
    /// or one text: a module of Python with tests of unittest, pytest or bare asserts.
    #[serde(default)]
    pub(super) fields: BTreeMap<String, Mapping>,
    /// For tests on standard input and output (`livecodebench`, `apps`, `codecontests`): numbers that differ by no more
    /// than this, relative or absolute, count as equal. Without it they are compared as texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0))]
    pub(super) tolerance: Option<f64>,
    /// Shares of the splits by a hash of the problem, e.g. `{ train = 0.8, dev = 0.1, test = 0.1 }`. Without it the
    /// file's own splits count: a field `split`, or MBPP's task numbers.
    #[serde(default)]
    pub(super) splits: BTreeMap<String, f64>,
    /// Keeps only this split.
    #[serde(default)]
    pub(super) only: Option<String>,
    /// Keeps the first so many problems; 0 keeps all.
    #[serde(default)]
    pub(super) limit: usize,
    /// Thins each problem's tests, e.g. `{ keep = 1 }`.
    #[serde(default)]
    pub(super) tests: Option<Thinning>,
    /// Leaves out rows that are broken, and lists them in the output `skipped`, instead of ending at the first.
    #[serde(default)]
    pub(super) skip_broken: bool,
    /// For `builtin:mini-python`: problems a split, of `pretrain`, `seed`, `train`, `dev` and `test`.
    #[serde(default)]
    pub(super) sizes: BTreeMap<String, usize>,
    /// For `builtin:mini-python`: holds the problems fixed, those of this seed, whatever the pipeline's seed is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) corpus: Option<u64>,
    /// For `builtin:mini-python`: which problems; the pipeline's seed unless given. A program structure is in the same
    /// split under every seed, and no seed but 1 has a dev or test problem of seed 1's first 400 in each.
    #[serde(default = "one", skip_serializing_if = "Option::is_none")]
    pub(super) seed: Option<u64>,
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
    /// `correct_python_programs`, `json_testcases` and, for the programs on graphs, `python_testcases`; the split is
    /// `test`.
    QuixBugs,
    /// LiveCodeBench (Jain et al. 2024, arXiv:2403.07974), `code_generation_lite`: tests on standard input and output, or
    /// calls of a function; public ones first, private ones also packed. It has no solutions: `reference` is empty.
    LiveCodeBench,
    /// APPS (Hendrycks et al. 2021, arXiv:2105.09938): tests on standard input and output, or calls of a function. The
    /// reference is the first solution that is Python 3; the split is the file's name, `train` or `test`.
    Apps,
    /// CodeContests (Li et al. 2022, doi:10.1126/science.abq1158): tests on standard input and output, public, private and
    /// generated ones. The reference is the first solution in Python 3; the split is the start of the file's name.
    CodeContests,
    /// ClassEval (Du et al. 2023, arXiv:2308.01861): a test per class of unittest; the split is `test`.
    ClassEval,
}

pub(super) const BUILTIN: &str = "builtin:mini-python";

impl Params {
    pub(super) fn is_builtin(&self) -> bool {
        self.source.starts_with("builtin:")
    }

    /// The seed of the built-in problems.
    pub(super) fn problems_seed(&self) -> Option<u64> {
        self.corpus.or(self.seed).filter(|_| self.is_builtin())
    }

    /// The columns it gives: those that every source has, and what this one has beside.
    pub(super) fn schema(&self) -> SchemaRef {
        let full = ProblemRow::schema();
        let repair = matches!(self.layout, Layout::HumanEvalPack | Layout::QuixBugs);
        let extra = |name: &String| {
            self.is_builtin()
                || self.fields.contains_key(name)
                || (repair && ["buggy", "mutation"].contains(&name.as_str()))
        };
        let fields = full.fields().iter().enumerate().filter(|(place, field)| *place < ALWAYS || extra(field.name()));
        Arc::new(Schema::new(fields.map(|(_, field)| field.clone()).collect::<Vec<_>>()))
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
        for (column, mapping) in &self.fields {
            if let Err(problem) = mapping.check(column, column == "tests") {
                return wrong("fields", problem, "e.g. `fields = { tests = [\"assert f({input}) == {output}\"] }`");
            }
        }
        if self.tolerance.is_some_and(|tolerance| !tolerance.is_finite() || tolerance < 0.0) {
            return wrong("tolerance", "must be a number from 0".to_owned(), "e.g. `tolerance = 1e-6`");
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
