//! Kind `train`: fine-tunes a model, or adapters of it.

mod checkpoint;
pub mod documents;
mod params;

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use tracetune_engine::record;
use tracetune_engine::stage::{
    Artifact, Context, Environment, Inputs, Output, Outputs, Port, PortType, Setup, StageError, TableStage,
};
use tracetune_engine::table::{Record, read_column};
use tracetune_kernels::model::{Dtype, Model};
use tracetune_kernels::train::{Example, Options, StepReport, Steps, Trainer};

pub use params::Params;
use params::{Keep, Precision};

use crate::metrics::{MetricRow, plain};
use crate::model::failed;
use crate::prompt::Template;
use documents::{Document, Documents};

record! {
    /// One optimiser step.
    pub struct StepRow {
        /// From 1.
        pub step: i32,
        /// Mean cross-entropy of the step's target tokens, in nats.
        pub loss: f64,
        /// Global norm of the gradient before clipping.
        pub grad_norm: f64,
        /// The step's learning rate.
        pub learning_rate: f64,
        /// Tokens processed up to and with this step.
        pub tokens: i64,
        /// Of them, tokens with loss.
        pub target_tokens: i64,
    }
}

record! {
    /// One evaluation of the loss on `dev`.
    pub struct EvaluationRow {
        /// After which step.
        pub step: i32,
        /// Tokens processed up to and with that step.
        pub tokens: i64,
        /// Mean cross-entropy of the target tokens of `dev`, in nats.
        pub loss: f64,
        /// Whether no evaluation was lower up to here.
        pub best: bool,
    }
}

/// Fine-tunes all weights, or low-rank adapters, by maximum likelihood of the completion given the prompt.
///
/// NExT (Ni et al. 2024, arXiv:2404.14662), Algorithm 1 line 8; AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101);
/// LoRA (Hu et al. 2021, arXiv:2106.09685).
/// A completion is learned up to the end of its fix and the end of the text: what a model went on to write after it, such
/// as the next task of a prompt with exemplars, is not.
/// The checkpoint's bytes depend on the rows, their order, the parameters and the starting model: not on the threads.
///
/// # Errors
/// A row lacks a column that the template uses. Without any rows the model stays as it is, with a note.
pub struct Train;

impl TableStage for Train {
    const KIND: &'static str = "train";
    const VERSION: u32 = 3;
    const ABOUT: &'static str = "fine-tunes a model on rows: loss on the completion only";
    type Params = Params;

    fn ports() -> Vec<Port> {
        vec![
            Port { name: "model", port_type: PortType::Model, optional: false, about: "the model to start from" },
            Port { name: "rows", port_type: PortType::Table(None), optional: false, about: "what to learn from" },
            Port {
                name: "replay",
                port_type: PortType::Table(None),
                optional: true,
                about: "further rows to learn from, e.g. the seed demonstrations",
            },
            Port {
                name: "match",
                port_type: PortType::Table(Some(StepRow::schema())),
                optional: true,
                about: "the `curve` of another train stage: train for as many tokens, whatever `epochs` says",
            },
            Port {
                name: "dev",
                port_type: PortType::Table(None),
                optional: true,
                about: "rows to evaluate the loss on, for `evaluate_every`, `patience` and `keep`",
            },
        ]
    }

    fn outputs(_: &Params, inputs: &BTreeMap<String, Option<SchemaRef>>) -> Vec<Output> {
        let mut outputs = vec![
            Output::new("model", PortType::Model),
            Output::new("curve", PortType::Table(Some(StepRow::schema()))),
            Output::new("metrics", PortType::Table(Some(MetricRow::schema()))),
        ];
        if inputs.contains_key("dev") {
            let port_type = PortType::Table(Some(EvaluationRow::schema()));
            outputs.push(Output::new("evaluations", port_type));
        }
        outputs
    }

    fn environment(params: &Params, setup: &Setup) -> Result<Environment, StageError> {
        let names = params.documents.iter().chain(params.documents.is_empty().then_some(&params.prompt));
        names.map(|name| Template::key_part(name, setup)).collect()
    }

    fn run(params: &Params, inputs: &Inputs, cx: &Context) -> Result<Outputs, StageError> {
        let evaluates = inputs.table("dev").is_some();
        if !evaluates && params.evaluate_every > 0 {
            return Err(StageError::input("`evaluate_every` needs rows to evaluate on: connect the port `dev`"));
        }
        let model = crate::model::load(inputs, "model")?;
        let mut documents = documents_of(params, inputs, "rows", cx)?;
        documents.extend(documents_of(params, inputs, "replay", cx)?);
        let examples = examples(&model, &documents, params, "documents", cx)?;
        let unseen = examples_of_dev(&model, params, inputs, cx)?;
        let steps = match inputs.table("match") {
            Some(curve) => Steps::Tokens(read_column::<i64>(curve, "tokens")?.last().copied().unwrap_or(0) as u64),
            None => Steps::Epochs(params.epochs as f64),
        };
        let (model, reports) = if examples.is_empty() {
            cx.note("there are no rows to learn from: the model stays as it is");
            (model, Vec::new())
        } else {
            fit(model, [&examples, &unseen], &params.options(steps, cx.threads), cx)?
        };

        let directory = cx.scratch.join("model");
        fs_err::create_dir_all(&directory)?;
        let dtype = if params.precision == Precision::Bf16 { Dtype::Bf16 } else { Dtype::F32 };
        model.save_as(&directory, dtype).map_err(failed)?;
        let curve: Vec<StepRow> = reports.iter().map(step_row).collect();
        let evaluations = evaluation_rows(&reports);
        let mut metrics = vec![
            plain("train", "examples", examples.len() as f64, examples.len()),
            plain("train", "tokens", curve.last().map_or(0.0, |step| step.tokens as f64), curve.len()),
            plain("train", "loss", mean_of_last_steps(&curve), curve.len()),
        ];
        let kept = evaluations.iter().rev().find(|row| row.best || params.keep == Keep::Last);
        metrics.extend(kept.map(|row| plain("dev", "loss", row.loss, unseen.len())));
        let mut outputs = Outputs::from([
            ("model", Artifact::Directory(directory)),
            ("curve", Artifact::Table(StepRow::write(&curve)?)),
            ("metrics", Artifact::Table(MetricRow::write(&metrics)?)),
        ]);
        if evaluates {
            outputs.insert("evaluations", Artifact::Table(EvaluationRow::write(&evaluations)?));
        }
        Ok(outputs)
    }
}

fn documents_of(params: &Params, inputs: &Inputs, port: &str, cx: &Context) -> Result<Vec<Document>, StageError> {
    let Some(rows) = inputs.table(port) else { return Ok(Vec::new()) };
    let documents = Documents {
        templates: &params.documents,
        trace: params.trace,
        rationale: params.rationale,
        fix_format: params.fix_format,
        seed: params.seed,
    };
    let mut documents = if params.documents.is_empty() {
        documents::repairs(rows, &params.prompt, &documents, cx)
    } else {
        documents::render(rows, &documents, cx)
    }?;
    match &params.weights {
        // Only what is learned first and foremost must have weights, and an evaluation knows none.
        Some(column) if port == "rows" || (port == "replay" && rows.column_by_name(column).is_some()) => {
            documents::weigh(&mut documents, rows, column)?;
        }
        _ => {}
    }
    Ok(documents)
}

/// The documents in tokens; those that are too long or count nothing are left out, with a note.
fn examples(
    model: &Model,
    documents: &[Document],
    params: &Params,
    what: &str,
    cx: &Context,
) -> Result<Vec<Example>, StageError> {
    let counted = documents.iter().filter(|document| document.weight > 0.0);
    let examples = counted.map(|document| example(model, document)).collect::<Result<Vec<_>, _>>()?;
    if examples.len() < documents.len() {
        cx.note(&format!(
            "{} of {} {what} have weight 0 and were left out",
            documents.len() - examples.len(),
            documents.len()
        ));
    }
    let (fitting, too_long): (Vec<_>, Vec<_>) =
        examples.into_iter().partition(|example| example.tokens.len() <= params.sequence_tokens);
    if !too_long.is_empty() {
        cx.note(&format!(
            "{} of {} {what} are longer than `sequence_tokens = {}` and were left out",
            too_long.len(),
            too_long.len() + fitting.len(),
            params.sequence_tokens
        ));
    }
    Ok(fitting)
}

fn examples_of_dev(model: &Model, params: &Params, inputs: &Inputs, cx: &Context) -> Result<Vec<Example>, StageError> {
    let unseen = examples(model, &documents_of(params, inputs, "dev", cx)?, params, "documents of `dev`", cx)?;
    if unseen.is_empty() && inputs.table("dev").is_some() {
        cx.note("`dev` has no rows to evaluate on: the training runs to its end");
    }
    Ok(unseen)
}

/// Context and target are encoded apart, as at sampling time, and end with the end-of-text token.
fn example(model: &Model, document: &Document) -> Result<Example, StageError> {
    let mut tokens = model.tokenizer.encode(&document.context).map_err(failed)?;
    let prompt = tokens.len();
    tokens.extend(model.tokenizer.encode_next(&document.target).map_err(failed)?);
    tokens.push(model.tokenizer.eos());
    Ok(Example { tokens, prompt, weight: document.weight })
}

/// Steps between two checkpoints of an interruptible training.
const CHECKPOINT_STEPS: usize = 200;

fn fit(
    model: Model,
    [examples, unseen]: [&[Example]; 2],
    options: &Options,
    cx: &Context,
) -> Result<(Model, Vec<StepReport>), StageError> {
    let mut trainer = Trainer::new(model, examples, options).map_err(failed)?;
    if !unseen.is_empty() {
        trainer = trainer.evaluating(unseen).map_err(failed)?;
    }
    let mut curve = resume(&mut trainer, cx);
    while let Some(report) = trainer.step().map_err(failed)? {
        curve.push(report);
        cx.progress(report.step as u64, report.steps as u64, &step_text(&report));
        if cx.cancelled() || report.step % CHECKPOINT_STEPS == 0 {
            cx.checkpoint.save(&checkpoint::to_bytes(&curve, &trainer.checkpoint().map_err(failed)?))?;
        }
        if cx.cancelled() {
            return Err(StageError::Cancelled);
        }
    }
    if trainer.done() < trainer.steps() {
        cx.note(&format!(
            "ended early, after step {} of {}: the loss on `dev` no longer fell",
            trainer.done(),
            trainer.steps()
        ));
    }
    Ok((trainer.finish(), curve))
}

/// A step for people, as it happens.
fn step_text(report: &StepReport) -> String {
    let StepReport { loss, grad_norm, learning_rate, .. } = report;
    let dev = report.eval_loss.map(|loss| format!(" | dev {loss:.4}")).unwrap_or_default();
    format!("loss {loss:.4} | norm {grad_norm:.3} | lr {learning_rate:.1e}{dev}")
}

/// Goes on from the newest checkpoint that can be used, if there is one; gives the steps so far. One that can't be read,
/// or is of another version, is told and costs time, no more.
fn resume(trainer: &mut Trainer, cx: &Context) -> Vec<StepReport> {
    let (found, problems) = cx.checkpoint.load(|bytes| {
        let (curve, state) = checkpoint::from_bytes(bytes).ok_or("it is of another version")?;
        Ok::<_, String>((curve, state.to_vec()))
    });
    let mut problems = problems;
    let mut curve = Vec::with_capacity(trainer.steps());
    if let Some((steps, state)) = found {
        match trainer.resume(&state) {
            Ok(()) => {
                curve = steps;
                cx.note(&format!("goes on from step {} of {}", trainer.done(), trainer.steps()));
            }
            Err(error) => problems.push(error.to_string()),
        }
    }
    if !problems.is_empty() {
        let from = if curve.is_empty() { "training begins anew" } else { "an earlier one is used" };
        cx.note(&format!("{}; {from}", problems.join("; ")));
    }
    curve
}

fn step_row(report: &StepReport) -> StepRow {
    StepRow {
        step: report.step as i32,
        loss: f64::from(report.loss),
        grad_norm: f64::from(report.grad_norm),
        learning_rate: f64::from(report.learning_rate),
        tokens: report.tokens as i64,
        target_tokens: report.target_tokens as i64,
    }
}

fn evaluation_rows(reports: &[StepReport]) -> Vec<EvaluationRow> {
    let mut lowest = f32::INFINITY;
    let evaluated = reports.iter().filter_map(|report| report.eval_loss.map(|loss| (report, loss)));
    evaluated
        .map(|(report, loss)| {
            let best = loss < lowest;
            lowest = lowest.min(loss);
            EvaluationRow { step: report.step as i32, tokens: report.tokens as i64, loss: f64::from(loss), best }
        })
        .collect()
}

/// Mean loss of the last tenth of the steps.
fn mean_of_last_steps(curve: &[StepRow]) -> f64 {
    let last = &curve[curve.len() - curve.len().div_ceil(10)..];
    last.iter().map(|step| step.loss).sum::<f64>() / last.len().max(1) as f64
}
