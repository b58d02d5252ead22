//! Gradient steps on the weights or on low-rank adapters: packed rows, AdamW, schedules, evaluation and early stop;
//! resumable, and the same bytes on any number of threads.

mod lanes;
mod memory;
mod plan;
mod state;
mod trainer;

pub use trainer::Trainer;

use crate::Result;
use crate::memory::Cpu;
use crate::model::{Activations, Gradient, Lora, Model, Network, Row, Tensor, row_gradient};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

/// One document: `tokens[..prompt]` is context, the loss is on `tokens[prompt..]` only.
///
/// Nothing is added: a text that should end has its end-of-text token last.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// At least two tokens.
    pub tokens: Vec<u32>,
    /// How many of them are context; the first token is never predicted.
    pub prompt: usize,
    /// What each of its targets counts in a step's mean, above 0; 1 where all count the same.
    pub weight: f32,
}

impl Example {
    /// How many tokens it asks for.
    fn targets(&self) -> usize {
        self.tokens.len() - self.prompt.max(1)
    }
}

impl Row {
    fn add(&mut self, example: &Example) {
        self.push(&example.tokens, example.prompt, example.weight);
    }
}

/// How long to train.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Steps {
    /// Passes over the examples; a part of one is allowed.
    Epochs(f64),
    /// Tokens read, context included; rounded up to whole steps.
    Tokens(u64),
}

/// How the learning rate goes from its peak to its last value, after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Half a cosine.
    #[default]
    Cosine,
    /// A straight line.
    Linear,
    /// It stays at its peak; the last value counts for nothing.
    Constant,
}

/// Which weights decay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Every matrix, embeddings too; norms and biases do not.
    #[default]
    Matrices,
    /// The matrices of the layers, and a head that is not the embedding table.
    Layers,
    /// Everything that is trained.
    All,
}

/// What is done about the loss on examples that are not trained on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Steps from one evaluation to the next; the last step is always evaluated. 0 for the last step only.
    pub every: usize,
    /// Evaluations in a row without a new lowest loss after which the run ends; 0 for never.
    pub patience: usize,
    /// Whether the run gives the weights of the lowest loss instead of the last ones.
    pub keep_best: bool,
}

/// What a training run is given beside the model and the examples. Every field but `threads` and `memory_bytes` changes
/// the result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// How long.
    pub steps: Steps,
    /// Peak learning rate.
    pub learning_rate: f32,
    /// Part of the steps in which the rate rises to its peak, 0 to 1.
    pub warmup: f32,
    /// The last step's rate as a part of the peak; a cosine leads there.
    pub final_lr: f32,
    /// Tokens a step: so many rows are taken as fit, at least one.
    pub batch_tokens: usize,
    /// Tokens a row: whole examples are packed into it. The longest example must fit.
    pub sequence_tokens: usize,
    /// AdamW's λ, on matrices only.
    pub weight_decay: f32,
    /// AdamW's β₁.
    pub beta1: f32,
    /// AdamW's β₂.
    pub beta2: f32,
    /// AdamW's ε.
    pub eps: f32,
    /// Gradients are scaled down to this global norm; 0 leaves them.
    pub clip: f32,
    /// Gradient sums of a step: row r goes to sum r mod `lanes`, and the sums are added in order. A number of the run, not
    /// of the machine: it bounds the threads that work on rows of their own, and each costs a copy of the gradient. A
    /// model of which more than 2²⁴ numbers are trained has one sum, all threads share each operation, and rows of up to 512
    /// tokens go through it together.
    pub lanes: usize,
    /// Orders the examples.
    pub seed: u64,
    /// The learning rate's way down.
    #[serde(default)]
    pub schedule: Schedule,
    /// Which weights decay.
    #[serde(default)]
    pub decay: Decay,
    /// Trains low-rank adapters instead of the weights.
    #[serde(default)]
    pub lora: Option<Lora>,
    /// For [`Trainer::evaluating`].
    #[serde(default)]
    pub evaluation: Evaluation,
    /// What the run may take at its peak, the model included; changes no bits. Packed matrices, kept activations and
    /// threads give way.
    #[serde(skip)]
    pub memory_bytes: Option<u64>,
    /// Whether both operands of every product with a matrix are rounded to bf16, and what the forward pass leaves for the
    /// backward one as well, which halves the latter's memory. Sums, what is trained, its gradient and its moments stay in f32.
    #[serde(default)]
    pub bf16: bool,
    /// Threads; changes no bits.
    #[serde(skip, default = "one")]
    pub threads: usize,
}

fn one() -> usize {
    1
}

impl Default for Options {
    fn default() -> Self {
        Self {
            steps: Steps::Epochs(1.0),
            learning_rate: 1e-3,
            warmup: 0.05,
            final_lr: 0.1,
            batch_tokens: 4096,
            sequence_tokens: 512,
            weight_decay: 0.05,
            beta1: 0.9,
            beta2: 0.98,
            eps: 1e-8,
            clip: 1.0,
            lanes: 8,
            seed: 0,
            schedule: Schedule::default(),
            decay: Decay::default(),
            lora: None,
            evaluation: Evaluation::default(),
            memory_bytes: None,
            bf16: false,
            threads: 1,
        }
    }
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// Its number, from 1.
    pub step: usize,
    /// Of how many.
    pub steps: usize,
    /// Mean loss of the step's targets before the step, each counting its weight, in nats.
    pub loss: f32,
    /// Global gradient norm before clipping.
    pub grad_norm: f32,
    /// The rate it used.
    pub learning_rate: f32,
    /// Tokens read so far, this step included.
    pub tokens: u64,
    /// Tokens predicted so far, this step included.
    pub target_tokens: u64,
    /// Mean loss over the evaluation's targets after the step, in nats, if there was an evaluation.
    #[serde(default)]
    pub eval_loss: Option<f32>,
}

/// The gradient of an example's mean loss: each tensor's name and values, as a Hugging Face file would keep them.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config) if the model is of no known family.
pub fn gradient(model: &Model, example: &Example) -> Result<Vec<(String, Vec<f32>)>> {
    let network = Network::new(&model.config, Cpu::new(), example.tokens.len())?;
    let (mut row, mut kept, mut gradient) = (Row::default(), Activations::default(), Gradient::default());
    row.add(example);
    gradient.clear(model.weights.len());
    row_gradient(&network, model.weights(), &row, 1.0 / row.targets.len() as f32, &mut kept, &mut gradient);
    let stored =
        |tensor: &Tensor| (tensor.name.clone(), tensor.to_stored(&gradient.values[tensor.range()]).into_owned());
    Ok(model.layout.tensors().iter().map(stored).collect())
}

/// Trains `model` in place; `on_step` hears of every step and may end the run early, which leaves the model as trained so
/// far. Gives all reports.
///
/// # Errors
/// As [`Trainer::new`] and [`Trainer::step`]; the model is then as it was.
pub fn fit(
    model: &mut Model,
    examples: &[Example],
    options: &Options,
    on_step: &mut dyn FnMut(&StepReport) -> ControlFlow<()>,
) -> Result<Vec<StepReport>> {
    let mut trainer = Trainer::new(model.clone(), examples, options)?;
    let mut reports = Vec::with_capacity(trainer.steps());
    while let Some(report) = trainer.step()? {
        reports.push(report);
        if on_step(&report).is_break() {
            break;
        }
    }
    *model = trainer.finish();
    Ok(reports)
}
