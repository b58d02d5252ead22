//! Kind `collect`: a model's failing programs as bugs, which is how MBPP-R was made (NExT, arXiv:2404.14662, section 4).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracetune_engine::record;
use tracetune_engine::stage::{
    self, Artifact, Context, Dropped, Inputs, Output, Outputs, ParamError, Port, PortType, StageError, TableStage,
};
use tracetune_engine::statistics::splitmix64;
use tracetune_engine::table::{Record, RecordError, read_column};

use crate::metrics::{MetricRow, plain};

/// What makes a problem, and is kept of a sample.
const PROBLEM: &[&str] = &["problem_id", "split", "instruction", "reference", "entry_point", "setup", "tests"];

record! {
    /// A verified program.
    pub struct FailingRow {
        /// Its problem.
        pub problem_id: String,
        /// Its split.
        pub split: String,
        /// The program that the model wrote.
        pub fix: String,
        /// The verdict on it.
        pub verdict: String,
    }
}

/// What may stand under `kind = "collect"`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Verdicts that make a bug worth repairing.
    pub verdicts: Vec<String>,
    /// Bugs kept a problem at the most, chosen by the seed; 0 keeps all.
    pub per_problem: usize,
    /// What the column `mutation` says of them.
    pub mutation: String,
    /// Seed of the choice; the pipeline's unless given.
    pub seed: u64,
}

impl Default for Params {
    fn default() -> Self {
        let verdicts = ["fail", "error"].map(str::to_owned).to_vec();
        Self { verdicts, per_problem: 0, mutation: "model".to_owned(), seed: 0 }
    }
}

impl stage::Params for Params {
    fn validate(&self) -> Result<(), ParamError> {
        let known = ["fail", "error", "timeout", "limit", "crash"];
        match self.verdicts.iter().find(|verdict| !known.contains(&verdict.as_str())) {
            None if !self.verdicts.is_empty() => Ok(()),
            wrong => {
                let message =
                    wrong.map_or("collects nothing".to_owned(), |verdict| format!("`{verdict}` is no bug to repair"));
                Err(ParamError { param: "verdicts", message, help: Some(format!("verdicts: {}", known.join(", "))) })
            }
        }
    }
}

/// Turns verified samples into repair tasks: each different program of a problem that fails becomes its `buggy`.
/// Programs that differ in blank lines and trailing blanks alone are the same, and one that repeats the bug it was to
/// repair is none of the model's own.
pub struct Collect;

impl TableStage for Collect {
    const KIND: &'static str = "collect";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "gathers a model's own failing programs as bugs to repair";
    type Params = Params;

    fn ports() -> Vec<Port> {
        vec![Port {
            name: "rows",
            port_type: PortType::Table(Some(FailingRow::schema())),
            optional: false,
            about: "verified samples",
        }]
    }

    fn outputs(_: &Params, inputs: &BTreeMap<String, Option<SchemaRef>>) -> Vec<Output> {
        let rows = inputs.get("rows").cloned().flatten();
        vec![
            Output::new("rows", PortType::Table(rows.map(|rows| task_schema(&rows)))),
            Output::new("metrics", PortType::Table(Some(MetricRow::schema()))),
        ]
    }

    fn run(params: &Params, inputs: &Inputs, cx: &Context) -> Result<Outputs, StageError> {
        let table = inputs.table("rows").ok_or_else(|| StageError::input("the port `rows` is not connected"))?;
        let rows = FailingRow::read(table)?;
        let given = match table.column_by_name("buggy") {
            Some(_) => read_column::<String>(table, "buggy")?,
            None => vec![String::new(); rows.len()],
        };
        let fates = fates(params, &rows, &given);
        why_dropped(&rows, &fates).iter().for_each(|dropped| cx.dropped(dropped));
        let places: Vec<u32> = (0..rows.len()).filter(|&row| fates[row] == "collected").map(|row| row as u32).collect();
        let kept = take_record_batch(table, &UInt32Array::from(places)).map_err(RecordError::from)?;
        let schema = task_schema(&table.schema());
        let columns = schema.fields().iter().map(|field| match field.name().as_str() {
            "buggy" => kept.column_by_name("fix").cloned(),
            "mutation" => Some(Arc::new(StringArray::from(vec![params.mutation.as_str(); kept.num_rows()])) as _),
            name => kept.column_by_name(name).cloned(),
        });
        let columns = columns.flatten().collect();
        let tasks = RecordBatch::try_new(schema, columns).map_err(RecordError::from)?;
        Ok(Outputs::from([
            ("rows", Artifact::Table(tasks)),
            ("metrics", Artifact::Table(MetricRow::write(&metrics(&rows, &fates))?)),
        ]))
    }
}

/// The columns of a problem that a table has, and the bug's.
fn task_schema(rows: &SchemaRef) -> SchemaRef {
    let kept = PROBLEM.iter().filter_map(|name| rows.field_with_name(name).ok().cloned());
    let bug = ["buggy", "mutation"].map(|name| Field::new(name, DataType::Utf8, false));
    Arc::new(Schema::new(kept.chain(bug).collect::<Vec<_>>()))
}

/// What becomes of each row: `collected`, or why not.
fn fates<'a>(params: &Params, rows: &'a [FailingRow], given: &[String]) -> Vec<&'a str> {
    let mut seen = BTreeSet::new();
    let mut fates: Vec<&str> = rows
        .iter()
        .zip(given)
        .map(|(row, given)| {
            let program = bare(&row.fix);
            if !params.verdicts.contains(&row.verdict) {
                &row.verdict
            } else if program == bare(given) {
                "unchanged"
            } else if !seen.insert((&row.problem_id, program)) {
                "duplicate"
            } else {
                "collected"
            }
        })
        .collect();
    if params.per_problem > 0 {
        let mut problems: BTreeMap<&str, Vec<(u64, usize)>> = BTreeMap::new();
        for (place, row) in rows.iter().enumerate().filter(|(place, _)| fates[*place] == "collected") {
            let digest = blake3::hash(row.fix.as_bytes());
            let hash = u64::from_le_bytes(std::array::from_fn(|byte| digest.as_bytes()[byte]));
            problems.entry(&row.problem_id).or_default().push((splitmix64(hash ^ splitmix64(params.seed)), place));
        }
        for bugs in problems.values_mut() {
            bugs.sort_unstable();
            bugs.iter().skip(params.per_problem).for_each(|(_, place)| fates[*place] = "over per_problem");
        }
    }
    fates
}

/// A program without blank lines and trailing blanks.
fn bare(program: &str) -> String {
    let lines: Vec<&str> = program.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines.join("\n")
}

/// Why rows are not collected, with what can be done about it.
fn why_dropped(rows: &[FailingRow], fates: &[&str]) -> Vec<Dropped> {
    let mut counts: BTreeMap<&str, (u64, &str)> = BTreeMap::new();
    for (row, fate) in rows.iter().zip(fates).filter(|(_, fate)| **fate != "collected") {
        counts.entry(fate).or_insert((0, &row.problem_id)).0 += 1;
    }
    let dropped = |(fate, (rows, problem)): (&str, (u64, &str))| {
        let (reason, help) = match fate {
            "pass" => ("the program is right".to_owned(), "draw from a weaker model, or of harder problems"),
            "unchanged" => ("the program repeats the given bug".to_owned(), "draw at a higher `temperature`"),
            "duplicate" | "over per_problem" => (fate.to_owned(), ""),
            verdict => (format!("verdict `{verdict}`"), "name it in `verdicts` to collect it"),
        };
        Dropped::new(rows, reason).example(format!("`{problem}`")).help(help)
    };
    counts.into_iter().map(dropped).collect()
}

fn metrics(rows: &[FailingRow], fates: &[&str]) -> Vec<MetricRow> {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut splits: BTreeMap<&str, usize> = BTreeMap::new();
    for (row, fate) in rows.iter().zip(fates) {
        *counts.entry((&row.split, fate)).or_default() += 1;
        *splits.entry(&row.split).or_default() += 1;
    }
    let name = |fate: &str| if fate == "collected" { fate.to_owned() } else { format!("dropped: {fate}") };
    counts.into_iter().map(|((split, fate), count)| plain(split, &name(fate), count as f64, splits[split])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(problem: &str, fix: &str, verdict: &str) -> FailingRow {
        let [problem_id, fix, verdict] = [problem, fix, verdict].map(str::to_owned);
        FailingRow { problem_id, split: "train".to_owned(), fix, verdict }
    }

    #[test]
    fn each_different_failure_of_the_models_own_is_collected_once() {
        let rows = [
            row("a", "x = 1\n", "fail"),
            row("a", "\nx = 1  \n", "error"),
            row("a", "x = 2", "pass"),
            row("a", "given", "fail"),
            row("b", "x = 1", "error"),
            row("b", "x = 3", "timeout"),
        ];
        let given = vec!["given\n".to_owned(); rows.len()];
        let fates = fates(&Params::default(), &rows, &given);
        assert_eq!(fates, ["collected", "duplicate", "pass", "unchanged", "collected", "timeout"]);
    }

    #[test]
    fn the_cap_chooses_by_the_seed() {
        let rows: Vec<FailingRow> = (0..9).map(|i| row("a", &format!("x = {i}"), "fail")).collect();
        let given = vec![String::new(); rows.len()];
        let kept = |seed| fates(&Params { per_problem: 3, seed, ..Params::default() }, &rows, &given);
        assert_eq!(kept(1).iter().filter(|fate| **fate == "collected").count(), 3);
        assert_ne!(kept(1), kept(2));
    }

    #[test]
    fn the_tables_columns_are_the_problems_and_the_bugs() {
        let table = FailingRow::write(&[row("a", "x = 1", "fail"), row("a", "x = 2", "pass")]).unwrap();
        let inputs = Inputs(BTreeMap::from([("rows".to_owned(), Artifact::Table(table.clone()))]));
        let cx = crate::dataset::tests::context(std::path::Path::new("/"));
        let outputs = Collect::run(&Params::default(), &inputs, &cx).unwrap();
        let Artifact::Table(tasks) = &outputs.0["rows"] else { panic!("a table") };
        let names: Vec<_> = tasks.schema().fields().iter().map(|field| field.name().clone()).collect();
        assert_eq!((names.join(" ").as_str(), tasks.num_rows()), ("problem_id split buggy mutation", 1));
        assert_eq!(read_column::<String>(tasks, "buggy").unwrap(), ["x = 1"]);
    }
}
