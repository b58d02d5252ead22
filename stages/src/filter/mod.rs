//! Kind `filter`: keeps what is worth training on.

mod hard;
mod metrics;

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tracetune_engine::record;
use tracetune_engine::stage::{
    Artifact, Context, Dropped, Inputs, Output, Outputs, ParamError, Port, PortType, StageError, TableStage,
};
use tracetune_engine::statistics::splitmix64;
use tracetune_engine::table::Record;

pub use hard::HardTasks;

use crate::evaluate::{Task, VerifiedRow, tasks};
use crate::judge::{self, Demand};
use crate::metrics::MetricRow;

record! {
    /// What decides whether a sample is kept.
    pub struct JudgedRow {
        /// Its problem.
        pub problem_id: String,
        /// Its split.
        pub split: String,
        /// The program that was to be repaired.
        pub buggy: String,
        /// What the model wrote.
        pub completion: String,
        /// The repaired program.
        pub fix: String,
        /// The verdict on the fix.
        pub verdict: String,
    }
    /// What the kind `adequacy` says of a problem's tests.
    pub struct MeasuredRow {
        /// The problem.
        pub problem_id: String,
        /// Mutants of its reference.
        pub mutants: i32,
        /// Of them, those that the tests notice.
        pub killed: i32,
        /// Lines of its reference.
        pub lines: i32,
        /// Of them, those that the tests run.
        pub covered: i32,
    }
}

/// What may stand under `kind = "filter"`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Verdict that a sample must have.
    pub verdict: String,
    /// Keeps only the samples of tasks whose pass rate in the port `base` is at most this; 1 keeps all. The kind `hard_tasks`
    /// selects the tasks before they are sampled, as NExT does.
    #[schemars(range(min = 0.0, max = 1.0), extend("x-former-name" = "hard_below"))]
    pub max_base_pass_rate: f64,
    /// Share of mutants that a problem's tests must notice, by the port `adequacy`; 0 asks for nothing.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_killed: f64,
    /// Share of lines that they must run.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_covered: f64,
    /// Where verdicts must have been judged: `any`, or `outside` the program's process, where no program can forge them.
    pub judged: Demand,
    /// Samples kept a task at the most, chosen by the seed; 0 keeps all.
    pub cap: usize,
    /// What counts as the same sample of a task, of which one is kept.
    pub distinct: Distinct,
    /// Seed of the choice under the cap; the pipeline's unless given.
    pub seed: u64,
}

/// What makes two samples of a task the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Distinct {
    /// Rationale and fix: the whole completion.
    #[default]
    Completion,
    /// The repaired program, whatever the rationale.
    Fix,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            verdict: "pass".to_owned(),
            max_base_pass_rate: 1.0,
            min_killed: 0.0,
            min_covered: 0.0,
            judged: Demand::Any,
            cap: 4,
            distinct: Distinct::Completion,
            seed: 0,
        }
    }
}

impl tracetune_engine::stage::Params for Params {
    fn validate(&self) -> Result<(), ParamError> {
        for (param, share, help) in [
            ("max_base_pass_rate", self.max_base_pass_rate, "it is a pass rate, e.g. 0.1"),
            ("min_killed", self.min_killed, "it is a share of mutants, e.g. 0.8"),
            ("min_covered", self.min_covered, "it is a share of lines, e.g. 1.0"),
        ] {
            is_share(param, share, help)?;
        }
        Ok(())
    }
}

fn is_share(param: &'static str, share: f64, help: &str) -> Result<(), ParamError> {
    if (0.0..=1.0).contains(&share) {
        return Ok(());
    }
    Err(ParamError { param, message: "must be between 0 and 1".to_owned(), help: Some(help.to_owned()) })
}

/// Keeps the samples that are worth training on, and says of each other one why it was dropped.
///
/// NExT (Ni et al. 2024, arXiv:2404.14662), Algorithm 1 line 7; the cap is ReST-EM's (Singh et al. 2023,
/// arXiv:2312.06585). Reasons, in the order in which they are looked for: `weak tests`, `easy`, the verdict,
/// `judged inside`, `duplicate`, `cap`. Tests that `adequacy` says nothing of count as weak where a minimum is asked for.
pub struct Filter;

impl TableStage for Filter {
    const KIND: &'static str = "filter";
    const VERSION: u32 = 3;
    const ABOUT: &'static str = "keeps the samples worth training on; each dropped row has its reason";
    type Params = Params;

    fn ports() -> Vec<Port> {
        vec![
            Port {
                name: "rows",
                port_type: PortType::Table(Some(JudgedRow::schema())),
                optional: false,
                about: "verified samples",
            },
            Port {
                name: "base",
                port_type: PortType::Table(Some(VerifiedRow::schema())),
                optional: true,
                about: "the base model's verified samples on the same tasks, for `max_base_pass_rate`",
            },
            Port {
                name: "adequacy",
                port_type: PortType::Table(Some(MeasuredRow::schema())),
                optional: true,
                about: "what the kind `adequacy` says of the problems, for `min_killed` and `min_covered`",
            },
        ]
    }

    fn outputs(_: &Params, inputs: &BTreeMap<String, Option<SchemaRef>>) -> Vec<Output> {
        let rows = inputs.get("rows").cloned().flatten();
        let dropped = rows.as_ref().map(with_reason);
        vec![
            Output::new("rows", PortType::Table(rows)),
            Output::new("dropped", PortType::Table(dropped)),
            Output::new("metrics", PortType::Table(Some(MetricRow::schema()))),
        ]
    }

    fn run(params: &Params, inputs: &Inputs, cx: &Context) -> Result<Outputs, StageError> {
        let table = inputs.table("rows").ok_or_else(|| StageError::input("the port `rows` is not connected"))?;
        let rows = JudgedRow::read(table)?;
        let base = inputs.table("base").map(VerifiedRow::read).transpose()?.map(|rows| tasks(&rows));
        check_base(params, base.as_deref())?;
        let measured = inputs.table("adequacy").map(MeasuredRow::read).transpose()?;
        if measured.is_none() && (params.min_killed > 0.0 || params.min_covered > 0.0) {
            return Err(StageError::input(
                "`min_killed` and `min_covered` need to know the tests: connect the port `adequacy` to a stage of that kind",
            ));
        }
        let strong = measured.map(|problems| strong(params, problems));
        let demand = params.judged.met(table)?;
        let reasons = reasons(params, &rows, &demand, strong.as_ref(), base.as_deref());
        why_dropped(&rows, &reasons).iter().for_each(|dropped| cx.dropped(dropped));
        let mut metrics = metrics::counts(&rows, &reasons, judge::outside(table)?.as_deref());
        metrics.extend(metrics::rationales(table, &rows)?);
        let pick = |keep: bool| -> Vec<u32> {
            (0..rows.len()).filter(|&row| reasons[row].is_none() == keep).map(|row| row as u32).collect()
        };
        let kept = take_record_batch(table, &UInt32Array::from(pick(true)))
            .map_err(tracetune_engine::table::RecordError::from)?;
        let dropped = take_record_batch(table, &UInt32Array::from(pick(false)))
            .map_err(tracetune_engine::table::RecordError::from)?;
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values(reasons.iter().flatten()));
        let columns = dropped.columns().iter().cloned().chain([texts]).collect();
        let dropped = RecordBatch::try_new(with_reason(&dropped.schema()), columns)
            .map_err(tracetune_engine::table::RecordError::from)?;
        Ok(Outputs::from([
            ("rows", Artifact::Table(kept)),
            ("dropped", Artifact::Table(dropped)),
            ("metrics", Artifact::Table(MetricRow::write(&metrics)?)),
        ]))
    }
}

/// Whether the base's results say how hard a task is, where that is asked for.
fn check_base(params: &Params, base: Option<&[Task]>) -> Result<(), StageError> {
    match base {
        _ if params.max_base_pass_rate >= 1.0 => Ok(()),
        None => Err(StageError::input(
            "`max_base_pass_rate` needs the base model's results: connect the port `base` to its verified samples",
        )),
        Some(tasks) if !tasks.is_empty() && tasks.iter().all(|task| task.samples == 0) => Err(StageError::input(
            "`max_base_pass_rate` is a pass rate of sampled draws, and the rows at `base` are greedy draws only: set `n` in their `sample` stage",
        )),
        Some(_) => Ok(()),
    }
}

fn with_reason(schema: &SchemaRef) -> SchemaRef {
    let reason = Arc::new(Field::new("reason", DataType::Utf8, false));
    Arc::new(Schema::new(schema.fields().iter().cloned().chain([reason]).collect::<Vec<_>>()))
}

/// The problems whose tests can tell enough.
fn strong(params: &Params, problems: Vec<MeasuredRow>) -> BTreeSet<String> {
    let enough = |part: i32, whole: i32, least: f64| f64::from(part) >= least * f64::from(whole.max(1));
    let strong = |problem: &MeasuredRow| {
        enough(problem.killed, problem.mutants, params.min_killed)
            && enough(problem.covered, problem.lines, params.min_covered)
    };
    problems.into_iter().filter(strong).map(|problem| problem.problem_id).collect()
}

/// Why each row is dropped; `None` where it is kept.
fn reasons(
    params: &Params,
    rows: &[JudgedRow],
    demand: &[bool],
    strong: Option<&BTreeSet<String>>,
    base: Option<&[Task]>,
) -> Vec<Option<String>> {
    let too_easy = |task: &&Task| task.passes as f64 > params.max_base_pass_rate * task.samples as f64;
    let judged = base.unwrap_or_default();
    let easy: BTreeSet<(&str, &str)> =
        judged.iter().filter(too_easy).map(|task| (task.problem_id.as_str(), task.buggy.as_str())).collect();
    let mut seen = BTreeSet::new();
    let mut reasons: Vec<Option<String>> = rows
        .iter()
        .zip(demand)
        .map(|(row, &meets_demand)| {
            let text = match params.distinct {
                Distinct::Completion => &row.completion,
                Distinct::Fix => &row.fix,
            };
            if strong.is_some_and(|strong| !strong.contains(&row.problem_id)) {
                Some("weak tests".to_owned())
            } else if easy.contains(&(row.problem_id.as_str(), row.buggy.as_str())) {
                Some("easy".to_owned())
            } else if row.verdict != params.verdict {
                Some(row.verdict.clone())
            } else if !meets_demand {
                Some("judged inside".to_owned())
            } else if !seen.insert((&row.problem_id, &row.buggy, text)) {
                Some("duplicate".to_owned())
            } else {
                None
            }
        })
        .collect();
    if params.cap > 0 {
        apply_cap(params, rows, &mut reasons);
    }
    reasons
}

/// Drops all but `cap` samples of a task: those whose seeded hash is lowest stay.
fn apply_cap(params: &Params, rows: &[JudgedRow], reasons: &mut [Option<String>]) {
    let mut tasks: BTreeMap<(&str, &str), Vec<(u64, usize)>> = BTreeMap::new();
    for (index, row) in rows.iter().enumerate().filter(|(index, _)| reasons[*index].is_none()) {
        let digest = blake3::hash(row.completion.as_bytes());
        let hash = u64::from_le_bytes(std::array::from_fn(|byte| digest.as_bytes()[byte]));
        let order = splitmix64(hash ^ splitmix64(params.seed));
        tasks.entry((&row.problem_id, &row.buggy)).or_default().push((order, index));
    }
    for samples in tasks.values_mut() {
        samples.sort_unstable();
        for (_, index) in samples.iter().skip(params.cap) {
            reasons[*index] = Some("cap".to_owned());
        }
    }
}

/// The reasons with what can be done about them.
fn why_dropped(rows: &[JudgedRow], reasons: &[Option<String>]) -> Vec<Dropped> {
    let mut counts: BTreeMap<&str, (u64, &str)> = BTreeMap::new();
    for (row, reason) in rows.iter().zip(reasons) {
        if let Some(reason) = reason {
            counts.entry(reason).or_insert((0, &row.problem_id)).0 += 1;
        }
    }
    let dropped = |(reason, (rows, problem)): (&str, (u64, &str))| {
        let (reason, help) = match reason {
            "weak tests" => (
                "the problem's tests are weak".to_owned(),
                "lower `min_killed` or `min_covered`, or add tests with the kind `differential`",
            ),
            "easy" => ("the base model solves the task".to_owned(), "raise `max_base_pass_rate`, or make harder tasks"),
            "judged inside" => (
                "the verdict was judged inside the program's process".to_owned(),
                "write `judged = \"any\"`, or tests that compare values of built-in types",
            ),
            "duplicate" | "cap" => (reason.to_owned(), ""),
            verdict => (
                format!("verdict `{verdict}`"),
                "there is nothing to learn from: draw more samples (`n`), show exemplars (`shots`) or train on \
                 demonstrations first, start from a stronger model, or make easier tasks",
            ),
        };
        Dropped::new(rows, reason).example(format!("`{problem}`")).help(help)
    };
    counts.into_iter().map(dropped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(problem: &str, completion: &str, verdict: &str) -> JudgedRow {
        JudgedRow {
            problem_id: problem.to_owned(),
            split: "train".to_owned(),
            buggy: "b".to_owned(),
            completion: completion.to_owned(),
            fix: completion.to_owned(),
            verdict: verdict.to_owned(),
        }
    }

    fn outcome(problem: &str, passes: usize) -> Task {
        let (problem_id, buggy) = (problem.to_owned(), "b".to_owned());
        Task { problem_id, buggy, samples: 10, passes, ..Task::default() }
    }

    #[test]
    fn what_a_program_could_forge_is_dropped_on_demand() {
        let rows = [row("a", "x", "pass"), row("a", "y", "pass"), row("a", "z", "fail")];
        let found = reasons(&Params::default(), &rows, &[true, false, false], None, None);
        assert_eq!(found, [None, Some("judged inside".to_owned()), Some("fail".to_owned())]);
    }

    #[test]
    fn each_dropped_row_has_its_reason() {
        let rows = [row("a", "x", "pass"), row("a", "x", "pass"), row("a", "y", "fail"), row("b", "z", "pass")];
        let params = Params { max_base_pass_rate: 0.1, ..Params::default() };
        let base = [outcome("a", 1), outcome("b", 2)];
        let reasons = reasons(&params, &rows, &[true; 99], None, Some(&base));
        let texts: Vec<&str> = reasons.iter().map(|reason| reason.as_deref().unwrap_or("kept")).collect();
        assert_eq!(texts, ["kept", "duplicate", "fail", "easy"]);
    }

    #[test]
    fn greedy_draws_do_not_say_how_hard_a_task_is() {
        let params = Params { max_base_pass_rate: 0.1, ..Params::default() };
        let greedy = Task { samples: 0, greedy: Some(false), ..outcome("a", 0) };
        assert!(check_base(&params, Some(&[greedy])).unwrap_err().to_string().contains("greedy draws only"));
        assert!(check_base(&params, Some(&[outcome("a", 0)])).is_ok());
    }

    #[test]
    fn weak_tests_drop_their_problems_samples() {
        let problem = |name: &str, killed, covered| MeasuredRow {
            problem_id: name.to_owned(),
            mutants: 10,
            killed,
            lines: 4,
            covered,
        };
        let params = Params { min_killed: 0.8, min_covered: 1.0, ..Params::default() };
        let strong = strong(&params, vec![problem("a", 8, 4), problem("b", 7, 4), problem("c", 9, 3)]);
        let rows = ["a", "b", "c", "d"].map(|name| row(name, "x", "pass"));
        let reasons = reasons(&params, &rows, &[true; 99], Some(&strong), None);
        let weak: Vec<bool> = reasons.iter().map(|reason| reason.as_deref() == Some("weak tests")).collect();
        assert_eq!(weak, [false, true, true, true]);
    }

    #[test]
    fn the_cap_keeps_a_seeded_choice_that_no_other_task_changes() {
        let rows: Vec<JudgedRow> = (0..20).map(|i| row("a", &format!("c{i}"), "pass")).collect();
        let params = Params { cap: 3, seed: 4, ..Params::default() };
        let kept = |rows: &[JudgedRow], params: &Params| -> Vec<String> {
            let reasons = reasons(params, rows, &[true; 99], None, None);
            (0..rows.len()).filter(|&i| reasons[i].is_none()).map(|i| rows[i].completion.clone()).collect()
        };
        let mut more = rows.clone();
        more.push(row("b", "c99", "pass"));
        assert_eq!(kept(&rows, &params).len(), 3);
        assert_eq!(kept(&rows, &params), kept(&more, &params)[..3]);
        assert_ne!(kept(&rows, &params), kept(&rows, &Params { seed: 5, ..params.clone() }));
    }
}
