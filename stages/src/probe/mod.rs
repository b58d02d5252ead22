//! Kind `probe`: what a model's state knows before it writes.

mod linear;

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracetune_engine::record;
use tracetune_engine::stage::{
    self, Artifact, Context, Inputs, Output, Outputs, ParamError, Port, PortType, StageError, TableStage,
};
use tracetune_engine::statistics::splitmix64;
use tracetune_engine::table::Record;
use tracetune_kernels::model::Model;

use crate::metrics::{Bounds, MetricRow, clustered_mean, plain};
use crate::model::failed;
use crate::prompt::{FixFormat, Settings, Template};
use crate::sample::PromptRow;
use crate::values::texts;

record! {
    /// A row whose prompt is read.
    pub struct ProbedRow {
        /// Its problem.
        pub problem_id: String,
        /// Its split.
        pub split: String,
        /// What the program should do.
        pub instruction: String,
        /// The program to repair.
        pub buggy: String,
        /// Its tests.
        pub tests: Vec<String>,
        /// The failing test.
        pub test: String,
        /// The program annotated with its execution.
        pub trace: String,
        /// What the failing call gave.
        pub got: String,
    }
}

/// What may stand under `kind = "probe"`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// What is looked for: `line`, the first line in which `buggy` differs from `reference`, or a column, e.g.
    /// `mutation` or `got`.
    pub target: String,
    /// The most frequent values of the target that count; rows with others are left out.
    #[schemars(range(min = 2))]
    pub classes: usize,
    /// Template of the prompt: `builtin:NAME` or a file.
    pub prompt: String,
    /// Whether the prompt asks for a rationale first.
    pub rationale: bool,
    /// How the prompt asks for the fix.
    pub fix_format: FixFormat,
    /// Strength of the ridge penalty, per row and standardised channel.
    pub ridge: f64,
    /// Folds of the cross-validation; a problem's rows are in one of them.
    #[schemars(range(min = 2))]
    pub folds: usize,
    /// Appended to each metric's name.
    pub condition: Option<String>,
    /// Seed of the folds and of the control's labels; the pipeline's unless given.
    pub seed: u64,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            target: "line".to_owned(),
            classes: 8,
            prompt: "builtin:repair".to_owned(),
            rationale: true,
            fix_format: FixFormat::Edit,
            ridge: 0.1,
            folds: 5,
            condition: None,
            seed: 0,
        }
    }
}

impl stage::Params for Params {
    fn validate(&self) -> Result<(), ParamError> {
        let wrong = |param, message: &str, help: &str| {
            Err(ParamError { param, message: message.to_owned(), help: Some(help.to_owned()) })
        };
        if self.classes < 2 {
            return wrong("classes", "must be at least 2", "there is nothing to tell apart in one class");
        }
        if self.folds < 2 {
            return wrong("folds", "must be at least 2", "5 is usual");
        }
        if !(self.ridge > 0.0 && self.ridge.is_finite()) {
            return wrong("ridge", "must be above 0", "0.1 suits most models");
        }
        Ok(())
    }
}

/// Whether a model has read its prompt: a linear probe looks for a fact in the last layer's state at the prompt's end,
/// before anything is written, once with the execution shown and once without.
///
/// Alain and Bengio 2016 (arXiv:1610.01644) for probes: a ridge classifier, cross-validated over problems. Beside its
/// `accuracy` stand that from prompts without traces (`blind`), that of the most frequent value (`mode`), and that of a
/// probe for `shuffled` labels (Hewitt and Liang 2019, arXiv:1909.03368), which shows what a probe learns by itself.
/// `gain by trace` is the paired difference, problem by problem; it is above 0 only if the model has read the trace. All
/// with 95 % intervals clustered by problem.
///
/// # Errors
/// The table lacks the target, fewer than two of its values or fewer problems than folds are there, or no prompt fits into
/// the model's context.
pub struct Probe;

impl TableStage for Probe {
    const KIND: &'static str = "probe";
    const VERSION: u32 = 2;
    const ABOUT: &'static str = "whether a model has read the trace: a linear probe of its state at the prompt's end";
    type Params = Params;

    fn ports() -> Vec<Port> {
        let rows = PortType::Table(Some(ProbedRow::schema()));
        vec![
            Port { name: "rows", port_type: rows, optional: false, about: "traced programs to repair" },
            Port { name: "model", port_type: PortType::Model, optional: false, about: "the model that is probed" },
        ]
    }

    fn outputs(_: &Params, _: &BTreeMap<String, Option<SchemaRef>>) -> Vec<Output> {
        vec![Output::new("metrics", PortType::Table(Some(MetricRow::schema())))]
    }

    fn environment(params: &Params, setup: &stage::Setup) -> Result<stage::Environment, StageError> {
        Ok(vec![Template::key_part(&params.prompt, setup)?])
    }

    fn run(params: &Params, inputs: &Inputs, cx: &Context) -> Result<Outputs, StageError> {
        let table = inputs.table("rows").ok_or_else(|| StageError::input("the port `rows` is not connected"))?;
        let rows = ProbedRow::read(table)?;
        let labels = if params.target == "line" { lines(&rows, table)? } else { texts(table, &params.target)? };
        let model = crate::model::load(inputs, "model")?;
        let template = Template::load(&params.prompt, &cx.root)?;
        let read = |trace: bool| prompts(params, &rows, &template, &model, trace);
        let prompts = [read(true)?, read(false)?];
        let longest = model.config.max_position_embeddings;
        let mut metrics = Vec::new();
        let mut splits: Vec<&str> = rows.iter().map(|row| row.split.as_str()).collect();
        splits.sort_unstable();
        splits.dedup();
        for split in splits {
            let fits = |row: &usize| prompts.iter().all(|prompts| (1..=longest).contains(&prompts[*row].len()));
            let here: Vec<usize> = (0..rows.len()).filter(|&row| rows[row].split == split).filter(fits).collect();
            let Examples { rows: here, labels, classes } = Examples::of(params, here, &labels)?;
            let problems: Vec<&str> = here.iter().map(|&row| rows[row].problem_id.as_str()).collect();
            let of_condition = |prompts: &[Vec<u32>], offset: usize| {
                let texts: Vec<Vec<u32>> = here.iter().map(|&row| prompts[row].clone()).collect();
                let told = |done: usize| cx.progress((offset + done) as u64, 2 * here.len() as u64, split);
                model.last_states(&texts, told).map_err(failed)
            };
            let shown = of_condition(&prompts[0], 0)?;
            let blind = of_condition(&prompts[1], here.len())?;
            let folds = linear::folds(&problems, params.folds, params.seed)?;
            let hits = |states: &[Vec<f32>], labels: &[usize]| {
                let guesses = linear::cross_validated(states, labels, classes, &folds, params.ridge);
                labels.iter().zip(guesses).map(|(label, guess)| f64::from(*label == guess)).collect::<Vec<f64>>()
            };
            let (with, without) = (hits(&shown, &labels), hits(&blind, &labels));
            let gain: Vec<f64> = with.iter().zip(&without).map(|(with, without)| with - without).collect();
            let control = hits(&shown, &shuffled(&labels, params.seed));
            let frequent: Vec<f64> = labels.iter().map(|label| f64::from(*label == 0)).collect();
            let figures = [
                ("accuracy", &with),
                ("accuracy, blind", &without),
                ("gain by trace", &gain),
                ("accuracy, shuffled", &control),
                ("accuracy of mode", &frequent),
            ];
            for (what, values) in figures {
                let bounds = if what == "gain by trace" { Bounds::DIFFERENCE } else { Bounds::SHARE };
                let Some(estimate) = clustered_mean(values, &problems, bounds) else { continue };
                let condition = params.condition.as_ref().map_or_else(String::new, |name| format!(" ({name})"));
                let name = format!("{} probe {what}{condition}", params.target);
                metrics.push(MetricRow {
                    ci_low: Some(estimate.low),
                    ci_high: Some(estimate.high),
                    ..plain(split, &name, estimate.value, values.len())
                });
            }
        }
        Ok(Outputs::from([("metrics", Artifact::Table(MetricRow::write(&metrics)?))]))
    }
}

/// The number of the first line that differs, from 1; where none does, the number of lines.
fn lines(rows: &[ProbedRow], table: &RecordBatch) -> Result<Vec<String>, StageError> {
    let references = texts(table, "reference")?;
    let first = |(row, reference): (&ProbedRow, &String)| {
        let same = row.buggy.lines().zip(reference.lines()).take_while(|(buggy, reference)| buggy == reference);
        (same.count() + 1).to_string()
    };
    Ok(rows.iter().zip(&references).map(first).collect())
}

fn prompts(
    params: &Params,
    rows: &[ProbedRow],
    template: &Template,
    model: &Model,
    trace: bool,
) -> Result<Vec<Vec<u32>>, StageError> {
    let settings =
        Settings { rationale: params.rationale, trace, fix_format: params.fix_format, exemplars: Vec::new() };
    let prompt = |row: &ProbedRow| {
        let ProbedRow { instruction, buggy, tests, test, trace: shown, got, .. } = row.clone();
        let view = PromptRow { instruction, buggy, tests, test, trace: shown, got }.view(trace);
        model.tokenizer.encode(&template.render(&view, &settings, 0)?).map_err(failed)
    };
    rows.iter().map(prompt).collect()
}

/// Rows with the number of their class: 0 is the most frequent.
struct Examples {
    rows: Vec<usize>,
    labels: Vec<usize>,
    classes: usize,
}

impl Examples {
    fn of(params: &Params, rows: Vec<usize>, labels: &[String]) -> Result<Self, StageError> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for &row in &rows {
            *counts.entry(&labels[row]).or_default() += 1;
        }
        let mut values: Vec<(&str, usize)> = counts.into_iter().collect();
        values.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        values.truncate(params.classes);
        if values.len() < 2 {
            return Err(StageError::input(format!(
                "`{}` has {} among the rows that fit into the model's context: there is nothing to tell apart",
                params.target,
                if values.is_empty() { "no value" } else { "one value" }
            )));
        }
        let class = |row: &usize| values.iter().position(|(value, _)| *value == labels[*row]);
        let (rows, labels) = rows.into_iter().filter_map(|row| Some((row, class(&row)?))).unzip();
        Ok(Self { rows, labels, classes: values.len() })
    }
}

/// The same labels in an order of the seed's (Fisher and Yates).
fn shuffled(labels: &[usize], seed: u64) -> Vec<usize> {
    let mut shuffled = labels.to_vec();
    let mut state = splitmix64(seed ^ 0x70_72_6f_62_65);
    for last in (1..shuffled.len()).rev() {
        state = splitmix64(state);
        shuffled.swap(last, (state % (last as u64 + 1)) as usize);
    }
    shuffled
}
