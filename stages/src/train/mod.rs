//! Kind `train`: fine-tunes a model.

pub mod documents;
mod params;

use std::collections::BTreeMap;
use std::path::Path;

use arrow::datatypes::SchemaRef;
use tracetune_engine::record;
use tracetune_engine::stage::{
    Artifact, Context, Environment, Inputs, Output, Outputs, Port, PortType, Setup, StageError, TableStage,
};
use tracetune_engine::table::{Record, read_column};
use tracetune_kernels::model::Model;
use tracetune_kernels::train::{Example, Options, StepReport, Steps, Trainer};

pub use params::Params;

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

/// Fine-tunes all weights by maximum likelihood of the completion given the prompt.
///
/// NExT (Ni et al. 2024, arXiv:2404.14662), Algorithm 1 line 8; AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101).
/// The checkpoint's bytes depend on the rows, their order, the parameters and the starting model: not on the threads.
///
/// # Errors
/// A row lacks a column that the template uses. Without any rows the model stays as it is, with a note.
pub struct Train;

impl TableStage for Train {
    const KIND: &'static str = "train";
    const VERSION: u32 = 1;
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
        ]
    }

    fn outputs(_: &Params, _: &BTreeMap<String, Option<SchemaRef>>) -> Vec<Output> {
        vec![
            Output { name: "model", port_type: PortType::Model },
            Output { name: "curve", port_type: PortType::Table(Some(StepRow::schema())) },
            Output { name: "metrics", port_type: PortType::Table(Some(MetricRow::schema())) },
        ]
    }

    fn environment(params: &Params, setup: &Setup) -> Result<Environment, StageError> {
        let names = params.documents.iter().chain(params.documents.is_empty().then_some(&params.prompt));
        names.map(|name| Template::key_part(name, setup)).collect()
    }

    fn run(params: &Params, inputs: &Inputs, cx: &Context) -> Result<Outputs, StageError> {
        let model = crate::model::load(inputs, "model")?;
        let mut documents = documents_of(params, inputs, "rows", cx)?;
        documents.extend(documents_of(params, inputs, "replay", cx)?);
        let examples = documents.iter().map(|document| example(&model, document)).collect::<Result<Vec<_>, _>>()?;
        let (fitting, too_long): (Vec<_>, Vec<_>) =
            examples.into_iter().partition(|example| example.tokens.len() <= params.sequence_tokens);
        if !too_long.is_empty() {
            cx.note(&format!(
                "{} of {} documents are longer than `sequence_tokens = {}` and were left out",
                too_long.len(),
                too_long.len() + fitting.len(),
                params.sequence_tokens
            ));
        }
        let steps = match inputs.table("match") {
            Some(curve) => Steps::Tokens(read_column::<i64>(curve, "tokens")?.last().copied().unwrap_or(0) as u64),
            None => Steps::Epochs(params.epochs as f64),
        };
        let (model, curve) = if fitting.is_empty() {
            cx.note("there are no rows to learn from: the model stays as it is");
            (model, Vec::new())
        } else {
            fit(model, &fitting, &params.options(steps, cx.threads), cx)?
        };

        let directory = cx.scratch.join("model");
        fs_err::create_dir_all(&directory)?;
        model.save(&directory).map_err(failed)?;
        let metrics = [
            plain("train", "examples", fitting.len() as f64, fitting.len()),
            plain("train", "tokens", curve.last().map_or(0.0, |step| step.tokens as f64), curve.len()),
            plain("train", "loss", mean_of_last_steps(&curve), curve.len()),
        ];
        Ok(Outputs::from([
            ("model", Artifact::Directory(directory)),
            ("curve", Artifact::Table(StepRow::write(&curve)?)),
            ("metrics", Artifact::Table(MetricRow::write(&metrics)?)),
        ]))
    }
}

fn documents_of(params: &Params, inputs: &Inputs, port: &str, cx: &Context) -> Result<Vec<Document>, StageError> {
    let Some(rows) = inputs.table(port) else { return Ok(Vec::new()) };
    let documents =
        Documents { templates: &params.documents, trace: params.trace, rationale: params.rationale, seed: params.seed };
    if params.documents.is_empty() {
        documents::repairs(rows, &params.prompt, params.fix_format, &documents, cx)
    } else {
        documents::render(rows, &documents, cx)
    }
}

/// Context and target are encoded apart, as at sampling time, and end with the end-of-text token.
fn example(model: &Model, document: &Document) -> Result<Example, StageError> {
    let encode = |text: &str| model.tokenizer.encode(text).map_err(failed);
    let mut tokens = encode(&document.context)?;
    let prompt = tokens.len();
    tokens.extend(encode(&document.target)?);
    tokens.push(model.tokenizer.eos());
    Ok(Example { tokens, prompt })
}

/// Steps between two checkpoints of an interruptible training.
const CHECKPOINT_STEPS: usize = 200;

fn fit(
    model: Model,
    examples: &[Example],
    options: &Options,
    cx: &Context,
) -> Result<(Model, Vec<StepRow>), StageError> {
    let mut trainer = Trainer::new(model, examples, options).map_err(failed)?;
    let mut curve = Vec::with_capacity(trainer.steps());
    if cx.checkpoint.is_dir() && trainer.resume(&cx.checkpoint).map_err(failed)? {
        curve = read_curve(&cx.checkpoint)?;
        curve.truncate(trainer.done());
        cx.note(&format!("goes on from step {} of {}", trainer.done(), trainer.steps()));
    }
    while let Some(report) = trainer.step().map_err(failed)? {
        curve.push(report);
        cx.progress(report.step as u64, report.steps as u64, &format!("loss {:.4}", report.loss));
        if cx.cancelled() || report.step % CHECKPOINT_STEPS == 0 {
            write_curve(&cx.checkpoint, &curve)?;
            trainer.checkpoint(&cx.checkpoint).map_err(failed)?;
        }
        if cx.cancelled() {
            return Err(StageError::Cancelled);
        }
    }
    Ok((trainer.finish(), curve.iter().map(step_row).collect()))
}

/// The steps so far, beside the checkpoint. Written before it, so that it never has fewer steps.
const CURVE_FILE: &str = "curve.json";

fn write_curve(checkpoint: &Path, curve: &[StepReport]) -> Result<(), StageError> {
    fs_err::create_dir_all(checkpoint)?;
    let text = serde_json::to_vec(curve).map_err(std::io::Error::from)?;
    Ok(fs_err::write(checkpoint.join(CURVE_FILE), text)?)
}

fn read_curve(checkpoint: &Path) -> Result<Vec<StepReport>, StageError> {
    let text = fs_err::read(checkpoint.join(CURVE_FILE))?;
    Ok(serde_json::from_slice(&text).map_err(std::io::Error::from)?)
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

/// Mean loss of the last tenth of the steps.
fn mean_of_last_steps(curve: &[StepRow]) -> f64 {
    let last = &curve[curve.len() - curve.len().div_ceil(10)..];
    last.iter().map(|step| step.loss).sum::<f64>() / last.len().max(1) as f64
}
