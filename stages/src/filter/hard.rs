//! Kind `hard_tasks`: the tasks that the base model seldom solves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracetune_engine::record;
use tracetune_engine::stage::{
    self, Artifact, Context, Dropped, Inputs, Output, Outputs, ParamError, Port, PortType, StageError, TableStage,
};
use tracetune_engine::table::{Record, RecordError};

use super::{is_share, with_reason};
use crate::evaluate::{Task, VerifiedRow, tasks};
use crate::metrics::{MetricRow, plain};

record! {
    /// A task: a problem with one bug.
    pub struct TaskRow {
        /// Its problem.
        pub problem_id: String,
        /// Its split.
        pub split: String,
        /// The program that is to be repaired.
        pub buggy: String,
    }
}

/// What may stand under `kind = "hard_tasks"`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// The highest share of the base model's draws that pass on a hard task (NExT: 0.1, of 32 draws); the greedy draw does
    /// not count. 1 keeps every task.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_base_pass_rate: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self { max_base_pass_rate: 0.1 }
    }
}

impl stage::Params for Params {
    fn validate(&self) -> Result<(), ParamError> {
        is_share("max_base_pass_rate", self.max_base_pass_rate, "it is a pass rate, e.g. 0.1")
    }
}

/// Selects the hard tasks, those that the base model seldom solves, before anything is sampled for training: connect
/// `rows` of the loop's `sample` stage to it.
///
/// NExT (Ni et al. 2024, arXiv:2404.14662), Algorithm 1 line 1: the hard set is chosen once, with the base model. Each
/// task gets the columns `base_samples` and `base_passes`. The output `dropped` has the other tasks and the `reason`:
/// `easy`, or `not sampled` for a task of which `base` has no draw.
pub struct HardTasks;

impl TableStage for HardTasks {
    const KIND: &'static str = "hard_tasks";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "selects the tasks that the base model seldom solves, before sampling";
    type Params = Params;

    fn ports() -> Vec<Port> {
        vec![
            Port {
                name: "rows",
                port_type: PortType::Table(Some(TaskRow::schema())),
                optional: false,
                about: "the tasks: what `sample` reads",
            },
            Port {
                name: "base",
                port_type: PortType::Table(Some(VerifiedRow::schema())),
                optional: false,
                about: "the base model's verified samples on the same tasks",
            },
        ]
    }

    fn outputs(_: &Params, inputs: &BTreeMap<String, Option<SchemaRef>>) -> Vec<Output> {
        let rows = inputs.get("rows").cloned().flatten().as_ref().map(with_counts);
        let dropped = rows.as_ref().map(with_reason);
        vec![
            Output::new("rows", PortType::Table(rows)),
            Output::new("dropped", PortType::Table(dropped)),
            Output::new("metrics", PortType::Table(Some(MetricRow::schema()))),
        ]
    }

    fn run(params: &Params, inputs: &Inputs, cx: &Context) -> Result<Outputs, StageError> {
        let table =
            |port| inputs.table(port).ok_or_else(|| StageError::input(format!("the port `{port}` is not connected")));
        let (rows, base) = (table("rows")?, tasks(&VerifiedRow::read(table("base")?)?));
        let read = TaskRow::read(rows)?;
        let found = with_base(&read, &base);
        let reasons: Vec<Option<&str>> = found.iter().map(|task| reason(params, *task)).collect();
        let not_sampled = reasons.iter().filter(|reason| **reason == Some(NOT_SAMPLED)).count();
        if not_sampled > 0 {
            cx.note(&format!("{not_sampled} of {} tasks have no draw in `base` and were left out", read.len()));
        }
        why_dropped(&reasons).iter().for_each(|dropped| cx.dropped(dropped));
        let counted = counted(rows, &found)?;
        let pick = |keep: bool| -> Result<RecordBatch, StageError> {
            let places = (0..read.len()).filter(|&row| reasons[row].is_none() == keep).map(|row| row as u32);
            let places = UInt32Array::from_iter_values(places);
            Ok(take_record_batch(&counted, &places).map_err(RecordError::from)?)
        };
        let dropped = pick(false)?;
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values(reasons.iter().flatten()));
        let columns = dropped.columns().iter().cloned().chain([texts]).collect();
        let dropped = RecordBatch::try_new(with_reason(&dropped.schema()), columns).map_err(RecordError::from)?;
        Ok(Outputs::from([
            ("rows", Artifact::Table(pick(true)?)),
            ("dropped", Artifact::Table(dropped)),
            ("metrics", Artifact::Table(MetricRow::write(&metrics(&read, &reasons))?)),
        ]))
    }
}

const EASY: &str = "easy";
const NOT_SAMPLED: &str = "not sampled";
const COUNTS: [&str; 2] = ["base_samples", "base_passes"];

/// What the base model made of each task.
fn with_base<'a>(rows: &[TaskRow], base: &'a [Task]) -> Vec<Option<&'a Task>> {
    let by_task: BTreeMap<(&str, &str), &Task> =
        base.iter().map(|task| ((task.problem_id.as_str(), task.buggy.as_str()), task)).collect();
    rows.iter().map(|row| by_task.get(&(row.problem_id.as_str(), row.buggy.as_str())).copied()).collect()
}

/// Why a task is none of the hard ones; `None` if it is.
fn reason(params: &Params, task: Option<&Task>) -> Option<&'static str> {
    match task {
        Some(task) if task.samples > 0 => {
            let is_hard = task.passes as f64 <= params.max_base_pass_rate * task.samples as f64;
            (!is_hard).then_some(EASY)
        }
        _ => Some(NOT_SAMPLED),
    }
}

/// The reasons with what can be done about them.
fn why_dropped(reasons: &[Option<&str>]) -> Vec<Dropped> {
    let dropped = |reason: &str, why: &str, help: &str| {
        let rows = reasons.iter().filter(|found| **found == Some(reason)).count();
        (rows > 0).then(|| Dropped::new(rows as u64, why).help(help))
    };
    let easy =
        dropped(EASY, "the base model solves the task too often", "raise `max_base_pass_rate`, or make harder tasks");
    let not_sampled = dropped(
        NOT_SAMPLED,
        "`base` has no draw of the task",
        "sample the same tasks with the base model, with `n` of at least 1: the greedy draw does not count",
    );
    easy.into_iter().chain(not_sampled).collect()
}

/// The columns with the counts at the end.
fn with_counts(schema: &SchemaRef) -> SchemaRef {
    let kept = schema.fields().iter().filter(|field| !COUNTS.contains(&field.name().as_str())).cloned();
    let counts = COUNTS.map(|name| Arc::new(Field::new(name, DataType::Int32, false)));
    Arc::new(Schema::new(kept.chain(counts).collect::<Vec<_>>()))
}

fn counted(rows: &RecordBatch, found: &[Option<&Task>]) -> Result<RecordBatch, StageError> {
    let schema = rows.schema();
    let kept = schema.fields().iter().zip(rows.columns()).filter(|(field, _)| !COUNTS.contains(&field.name().as_str()));
    let count = |count: fn(&Task) -> usize| -> ArrayRef {
        let counts = found.iter().map(|task| task.map_or(0, count) as i32);
        Arc::new(Int32Array::from_iter_values(counts))
    };
    let counts = [count(|task| task.samples), count(|task| task.passes)];
    let columns = kept.map(|(_, column)| column.clone()).chain(counts).collect();
    Ok(RecordBatch::try_new(with_counts(&schema), columns).map_err(RecordError::from)?)
}

fn metrics(rows: &[TaskRow], reasons: &[Option<&str>]) -> Vec<MetricRow> {
    let splits: BTreeSet<&str> = rows.iter().map(|row| row.split.as_str()).collect();
    let mut metrics = Vec::new();
    for split in splits {
        let here: Vec<usize> = (0..rows.len()).filter(|&row| rows[row].split == split).collect();
        let hard: Vec<usize> = here.iter().copied().filter(|&row| reasons[row].is_none()).collect();
        let problems: BTreeSet<&String> = hard.iter().map(|&row| &rows[row].problem_id).collect();
        for (metric, value) in [("tasks", here.len()), ("hard tasks", hard.len()), ("hard problems", problems.len())] {
            metrics.push(plain(split, metric, value as f64, here.len()));
        }
    }
    metrics
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(problem: &str, samples: usize, passes: usize) -> Task {
        Task { problem_id: problem.to_owned(), buggy: "b".to_owned(), samples, passes, ..Task::default() }
    }

    fn row(problem: &str, buggy: &str) -> TaskRow {
        TaskRow { problem_id: problem.to_owned(), split: "train".to_owned(), buggy: buggy.to_owned() }
    }

    #[test]
    fn a_task_is_hard_up_to_and_with_the_bound() {
        let base = [task("a", 32, 3), task("b", 32, 4), task("c", 10, 1), task("d", 0, 0), task("e", 32, 0)];
        let rows = ["a", "b", "c", "d", "e", "f"].map(|problem| row(problem, "b"));
        let reasons = |bound| -> Vec<&str> {
            let params = Params { max_base_pass_rate: bound };
            let found = with_base(&rows, &base);
            found.into_iter().map(|task| reason(&params, task).unwrap_or("hard")).collect()
        };
        assert_eq!(reasons(0.1), ["hard", "easy", "hard", "not sampled", "hard", "not sampled"]);
        assert_eq!(reasons(0.0), ["easy", "easy", "easy", "not sampled", "hard", "not sampled"]);
        assert_eq!(reasons(1.0), ["hard", "hard", "hard", "not sampled", "hard", "not sampled"]);
    }

    #[test]
    fn another_bug_of_the_problem_is_another_task() {
        let base = [task("a", 4, 1)];
        let found = with_base(&[row("a", "b"), row("a", "c")], &base);
        assert_eq!(found, [Some(&base[0]), None]);
    }

    #[test]
    fn tasks_have_their_counts_in_place_of_older_ones() {
        let rows = TaskRow::write(&[row("a", "b"), row("z", "b")]).unwrap();
        let base = [task("a", 4, 1)];
        let once = counted(&rows, &with_base(&TaskRow::read(&rows).unwrap(), &base)).unwrap();
        let twice = counted(&once, &with_base(&TaskRow::read(&once).unwrap(), &base)).unwrap();
        assert_eq!(once, twice);
        let names: Vec<&str> = once.schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, ["problem_id", "split", "buggy", "base_samples", "base_passes"]);
        assert_eq!(once.column(4).as_ref(), &Int32Array::from(vec![1, 0]) as &dyn arrow::array::Array);
    }
}
