//! Kind `evaluate`: pass@k with intervals.

mod false_fix;
mod outcomes;

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracetune_engine::record;
use tracetune_engine::stage::{
    Artifact, Context, Inputs, Output, Outputs, ParamError, Port, PortType, StageError, TableStage,
};
use tracetune_engine::table::Record;

use self::outcomes::Problems;
use crate::judge::{self, Demand};
use crate::metrics::{Bounds, MetricRow, OutcomeRow, clustered_mean, pass_at_k, plain, twice};
use crate::sample::GREEDY;

record! {
    /// A verified sample.
    pub struct VerifiedRow {
        /// Its problem.
        pub problem_id: String,
        /// Its split.
        pub split: String,
        /// The program that was to be repaired.
        pub buggy: String,
        /// The kind of bug.
        pub mutation: String,
        /// Number of the draw; -1 is the greedy one.
        pub sample: i32,
        /// The repaired program; empty if none was written.
        pub fix: String,
        /// The verdict on the fix.
        pub verdict: String,
    }
}

/// What may stand under `kind = "evaluate"`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// The k of pass@k. One that is larger than the number of samples is left out.
    pub k: Vec<usize>,
    /// Appended to each metric's name, and to the split's in `outcomes.parquet`: `no trace` for `pass@1 (no trace)`.
    pub condition: Option<String>,
    /// Whether pass@1 is also given by kind of bug.
    pub by_mutation: bool,
    /// Only what is against the ports `baseline` and `full`, none of the rates.
    pub only_gain: bool,
    /// Where verdicts must have been judged: `any`, or `outside` the program's process, where no program can forge them.
    /// Other rows, in all ports, are left out.
    pub judged: Demand,
}

impl Default for Params {
    fn default() -> Self {
        Self { k: vec![1, 5, 10], condition: None, by_mutation: false, only_gain: false, judged: Demand::Any }
    }
}

impl Params {
    /// A metric's name, or a split's in the outcomes, with the condition.
    fn named(&self, name: &str) -> String {
        match &self.condition {
            Some(condition) => format!("{name} ({condition})"),
            None => name.to_owned(),
        }
    }
}

impl tracetune_engine::stage::Params for Params {
    fn validate(&self) -> Result<(), ParamError> {
        let wrong = |param, message: &str, help: &str| {
            Err(ParamError { param, message: message.to_owned(), help: Some(help.to_owned()) })
        };
        if self.k.is_empty() || self.k.contains(&0) {
            return wrong("k", "must hold numbers of at least 1", "e.g. `k = [1, 5, 10, 25]`");
        }
        if let Some(k) = twice(&self.k) {
            return wrong("k", &format!("{k} is there twice"), "leave it out");
        }
        Ok(())
    }
}

/// Fix rates of verified samples: pass@k by the unbiased estimator, greedy pass@1, each with a 95 %
/// interval over problems; against `baseline`, the paired difference.
///
/// Against `full`, the false-fix rate: of the samples that pass, the share that fail more tests.
///
/// Chen et al. 2021 (arXiv:2107.03374) for pass@k. A task is a problem with one bug; the mean is over tasks.
pub struct Evaluate;

impl TableStage for Evaluate {
    const KIND: &'static str = "evaluate";
    const VERSION: u32 = 5;
    const ABOUT: &'static str = "pass@k and greedy fix rate with intervals, and the paired gain over a baseline";
    type Params = Params;

    fn ports() -> Vec<Port> {
        let verified = || PortType::Table(Some(VerifiedRow::schema()));
        vec![
            Port { name: "rows", port_type: verified(), optional: false, about: "verified samples" },
            Port {
                name: "baseline",
                port_type: verified(),
                optional: true,
                about: "verified samples of another model on the same tasks; adds the paired gain",
            },
            Port {
                name: "full",
                port_type: verified(),
                optional: true,
                about: "the same samples verified against more tests; adds how many of the passes are false",
            },
        ]
    }

    fn outputs(_: &Params, _: &BTreeMap<String, Option<SchemaRef>>) -> Vec<Output> {
        vec![
            Output::new("metrics", PortType::Table(Some(MetricRow::schema()))),
            Output::new("outcomes", PortType::Table(Some(OutcomeRow::schema()))),
        ]
    }

    fn run(params: &Params, inputs: &Inputs, cx: &Context) -> Result<Outputs, StageError> {
        let table = inputs.table("rows").ok_or_else(|| StageError::input("the port `rows` is not connected"))?;
        let all_tasks = tasks(&VerifiedRow::read(table)?);
        let inside = judge::outside(table)?.unwrap_or_default();
        let table = &params.judged.keep(table)?;
        let rows = VerifiedRow::read(table)?;
        let tasks = tasks(&rows);
        let demanded = |port: &str| {
            let rows = inputs.table(port).map(|rows| params.judged.keep(rows)).transpose()?;
            Ok::<_, StageError>(rows.as_ref().map(VerifiedRow::read).transpose()?)
        };
        let full = demanded("full")?;
        let baseline = demanded("baseline")?.map(|rows| self::tasks(&rows));
        let mut metrics = judged_outside(params, &all_tasks, &inside);
        let mut splits: Vec<&str> = tasks.iter().map(|task| task.split.as_str()).collect();
        splits.sort_unstable();
        splits.dedup();
        for split in splits {
            let here: Vec<&Task> = tasks.iter().filter(|task| task.split == split).collect();
            if !params.only_gain {
                metrics.extend(split_metrics(params, split, &here));
            }
            if let Some(baseline) = &baseline {
                let pairs = paired(split, &here, baseline)?;
                metrics.extend(gains(params, split, &pairs));
                for text in caveats(split, here.len(), &pairs) {
                    cx.note(&text);
                }
            }
            if let Some(full) = &full {
                metrics.extend(false_fix::rates(params, split, &rows, full)?);
            }
        }
        // The samples behind a gain are told of where their rates are.
        let told: &[Task] = if params.only_gain { &[] } else { &tasks };
        let outcomes = Problems::read(table).outcomes(params, told);
        Ok(Outputs::from([
            ("metrics", Artifact::Table(MetricRow::write(&metrics)?)),
            ("outcomes", Artifact::Table(OutcomeRow::write(&outcomes)?)),
        ]))
    }
}

/// A problem with one bug, and what the samples made of it.
#[derive(Debug, Default, PartialEq)]
pub struct Task {
    /// Its problem.
    pub problem_id: String,
    /// Its first row in the table.
    pub row: usize,
    /// Its split.
    pub split: String,
    /// The program with the bug.
    pub buggy: String,
    /// The kind of bug.
    pub mutation: String,
    /// Draws, without the greedy one.
    pub samples: usize,
    /// Of them, those that passed every test.
    pub passes: usize,
    /// Of them, those in which a fix could be read.
    pub answered: usize,
    /// Whether the greedy draw passed, where there is one.
    pub greedy: Option<bool>,
}

/// The samples grouped by task, in the order of first appearance.
pub fn tasks(rows: &[VerifiedRow]) -> Vec<Task> {
    let mut places: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut tasks: Vec<Task> = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let place = *places.entry((&row.problem_id, &row.buggy)).or_insert_with(|| {
            tasks.push(Task {
                problem_id: row.problem_id.clone(),
                row: index,
                split: row.split.clone(),
                buggy: row.buggy.clone(),
                mutation: row.mutation.clone(),
                ..Task::default()
            });
            tasks.len() - 1
        });
        let task = &mut tasks[place];
        let passed = row.verdict == "pass";
        if row.sample == GREEDY {
            task.greedy = Some(passed);
        } else {
            task.samples += 1;
            task.passes += usize::from(passed);
            task.answered += usize::from(!row.fix.is_empty());
        }
    }
    tasks
}

/// How many tasks were judged outside, for each split in which some were not.
fn judged_outside(params: &Params, tasks: &[Task], outside: &[bool]) -> Vec<MetricRow> {
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for task in tasks.iter().filter(|task| task.row < outside.len()) {
        let (outside_here, all) = counts.entry(&task.split).or_default();
        *outside_here += usize::from(outside[task.row]);
        *all += 1;
    }
    let mixed = counts.into_iter().filter(|(_, (outside, all))| outside < all && !params.only_gain);
    let metric = |(split, (outside, all))| plain(split, &params.named("tasks judged outside"), outside as f64, all);
    mixed.map(metric).collect()
}

fn split_metrics(params: &Params, split: &str, tasks: &[&Task]) -> Vec<MetricRow> {
    let mut metrics = Vec::new();
    for &k in &params.k {
        metrics.extend(estimate(params, split, &format!("pass@{k}"), Some(k), tasks, |task| {
            pass_at_k(task.samples, task.passes, k)
        }));
    }
    metrics.extend(estimate(params, split, "greedy pass@1", Some(1), tasks, |task| {
        task.greedy.map(|passed| f64::from(u8::from(passed)))
    }));
    metrics.extend(estimate(params, split, "answered rate", None, tasks, |task| {
        (task.samples > 0).then(|| task.answered as f64 / task.samples as f64)
    }));
    if params.by_mutation {
        let mut kinds: Vec<&str> = tasks.iter().map(|task| task.mutation.as_str()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        for kind in kinds {
            let of_kind: Vec<&Task> = tasks.iter().copied().filter(|task| task.mutation == kind).collect();
            metrics.extend(estimate(params, split, &format!("pass@1 of {kind}"), Some(1), &of_kind, |task| {
                pass_at_k(task.samples, task.passes, 1)
            }));
        }
    }
    metrics
}

/// One metric over the tasks for which `value` is there.
fn estimate(
    params: &Params,
    split: &str,
    metric: &str,
    k: Option<usize>,
    tasks: &[&Task],
    value: impl Fn(&Task) -> Option<f64>,
) -> Option<MetricRow> {
    let (values, clusters): (Vec<f64>, Vec<&str>) =
        tasks.iter().filter_map(|task| Some((value(task)?, task.problem_id.as_str()))).unzip();
    row(params, split, (metric, k), Bounds::SHARE, &values, &clusters)
}

fn row(
    params: &Params,
    split: &str,
    (metric, k): (&str, Option<usize>),
    bounds: Bounds,
    values: &[f64],
    clusters: &[&str],
) -> Option<MetricRow> {
    let estimate = clustered_mean(values, clusters, bounds)?;
    Some(MetricRow {
        split: split.to_owned(),
        metric: params.named(metric),
        k: k.map(|k| k as i32),
        value: estimate.value,
        ci_low: Some(estimate.low),
        ci_high: Some(estimate.high),
        n: values.len() as i64,
    })
}

/// A task, and the baseline's results on it.
type Pair<'a> = (&'a Task, &'a Task);

/// The tasks that the baseline has too.
fn paired<'a>(split: &str, tasks: &[&'a Task], baseline: &'a [Task]) -> Result<Vec<Pair<'a>>, StageError> {
    let key = |task: &'a Task| (task.problem_id.as_str(), task.buggy.as_str());
    let known: BTreeMap<_, &Task> = baseline.iter().map(|task| (key(task), task)).collect();
    let pairs: Vec<Pair> = tasks.iter().filter_map(|task| Some((*task, *known.get(&key(task))?))).collect();
    if pairs.is_empty() {
        return Err(StageError::input(format!(
            "the baseline has none of the {} tasks of split `{split}`: a paired difference needs the same tasks",
            tasks.len()
        )));
    }
    Ok(pairs)
}

/// The mean difference to the baseline over the same tasks.
fn gains(params: &Params, split: &str, pairs: &[Pair]) -> Vec<MetricRow> {
    let difference = |metric: &str, k: usize, rate: &dyn Fn(&Task) -> Option<f64>| {
        let (values, clusters): (Vec<f64>, Vec<&str>) =
            pairs.iter().filter_map(|(task, base)| Some((rate(task)? - rate(base)?, task.problem_id.as_str()))).unzip();
        row(params, split, (metric, Some(k)), Bounds::DIFFERENCE, &values, &clusters)
    };
    let sampled = difference("pass@1 gain", 1, &|task| pass_at_k(task.samples, task.passes, 1));
    let greedy = difference("greedy pass@1 gain", 1, &|task| task.greedy.map(|passed| f64::from(u8::from(passed))));
    sampled.into_iter().chain(greedy).collect()
}

/// What a gain is not over.
fn caveats(split: &str, tasks: usize, pairs: &[Pair]) -> Vec<String> {
    let mut caveats = Vec::new();
    if pairs.len() < tasks {
        caveats.push(format!(
            "the baseline has {} of the {tasks} tasks of `{split}`: the gain is over those",
            pairs.len()
        ));
    }
    let any = |is_it: fn(&Task) -> bool| pairs.iter().any(|(task, base)| is_it(task) && is_it(base));
    if !any(|task| task.samples > 0) && !any(|task| task.greedy.is_some()) {
        caveats.push(format!(
            "no gain on `{split}`: here or in the baseline there are greedy draws only, and rates of greedy and sampled draws can't be compared"
        ));
    }
    caveats
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn verified(problem: &str, sample: i32, verdict: &str) -> VerifiedRow {
        VerifiedRow {
            problem_id: problem.to_owned(),
            split: "test".to_owned(),
            buggy: "b".to_owned(),
            mutation: "constant".to_owned(),
            sample,
            fix: "f".to_owned(),
            verdict: verdict.to_owned(),
        }
    }

    #[test]
    fn the_greedy_draw_is_counted_apart() {
        let rows = [verified("a", GREEDY, "pass"), verified("a", 0, "fail"), verified("a", 1, "pass")];
        let tasks = tasks(&rows);
        assert_eq!((tasks[0].samples, tasks[0].passes, tasks[0].greedy), (2, 1, Some(true)));
        let metrics = split_metrics(&Params::default(), "test", &tasks.iter().collect::<Vec<_>>());
        let value = |name: &str| metrics.iter().find(|row| row.metric == name).map(|row| row.value);
        assert_eq!((value("pass@1"), value("greedy pass@1"), value("pass@5")), (Some(0.5), Some(1.0), None));
    }

    #[test]
    fn what_a_program_could_forge_is_left_out_on_demand() {
        let rows =
            [verified("a", 0, "pass"), verified("a", 1, "pass"), verified("b", 0, "fail"), verified("b", 1, "fail")];
        let table = VerifiedRow::write(&rows).unwrap();
        let judged = ["inside", "inside", "outside", "outside"].map(str::to_owned).to_vec();
        let table = tracetune_engine::table::with_column(table, "judged", |_| judged).unwrap();
        let inputs = Inputs(BTreeMap::from([("rows".to_owned(), Artifact::Table(table))]));
        let cx = crate::dataset::tests::context(std::path::Path::new("/"));
        let figure = |judged, name: &str| {
            let params = Params { k: vec![1], judged, ..Params::default() };
            let outputs = Evaluate::run(&params, &inputs, &cx).unwrap();
            let Artifact::Table(metrics) = &outputs.0["metrics"] else { panic!("a table") };
            let rows = MetricRow::read(metrics).unwrap();
            rows.into_iter().find(|row| row.metric == name).map(|row| (row.value, row.n))
        };
        assert_eq!(figure(Demand::Any, "pass@1"), Some((0.5, 2)));
        assert_eq!(figure(Demand::Outside, "pass@1"), Some((0.0, 1)));
        assert_eq!(figure(Demand::Any, "tasks judged outside"), Some((1.0, 2)));
    }

    #[test]
    fn the_gain_is_paired_by_task() {
        let after = [verified("a", 0, "pass"), verified("b", 0, "pass"), verified("c", 0, "pass")];
        let before = [verified("b", 0, "pass"), verified("a", 0, "fail")];
        let (after, before) = (tasks(&after), tasks(&before));
        let pairs = paired("test", &after.iter().collect::<Vec<_>>(), &before).unwrap();
        let gains = gains(&Params::default(), "test", &pairs);
        assert_eq!((gains[0].metric.as_str(), gains[0].value, gains[0].n), ("pass@1 gain", 0.5, 2));
        assert_eq!(caveats("test", 3, &pairs), ["the baseline has 2 of the 3 tasks of `test`: the gain is over those"]);
    }

    #[test]
    fn greedy_draws_have_no_gain_over_sampled_ones() {
        let (after, before) = (tasks(&[verified("a", GREEDY, "pass")]), tasks(&[verified("a", 0, "fail")]));
        let pairs = paired("test", &after.iter().collect::<Vec<_>>(), &before).unwrap();
        assert_eq!(gains(&Params::default(), "test", &pairs), []);
        assert!(caveats("test", 1, &pairs)[0].starts_with("no gain on `test`"));
    }
}
