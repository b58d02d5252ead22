//! What may stand under `kind = "train"`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracetune_engine::stage::ParamError;
use tracetune_kernels::model;
use tracetune_kernels::train::{self, Evaluation, Options, Steps};

use crate::prompt::FixFormat;

/// What may stand under `kind = "train"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Passes over the documents.
    #[schemars(range(min = 1))]
    pub epochs: usize,
    /// Peak learning rate.
    #[schemars(range(min = 0.0))]
    pub learning_rate: f32,
    /// Share of the steps over which the learning rate rises linearly from 0.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub warmup: f32,
    /// Learning rate of the last step as a share of the peak; the schedule leads there.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub final_learning_rate: f32,
    /// How the learning rate falls after the warm-up.
    pub schedule: Schedule,
    /// Tokens a step, padding included.
    pub batch_tokens: usize,
    /// Length of a packed row, in tokens; longer documents are left out, with a note.
    pub sequence_tokens: usize,
    /// AdamW's decoupled weight decay.
    #[schemars(range(min = 0.0))]
    pub weight_decay: f32,
    /// Which weights decay.
    pub decayed: Decayed,
    /// Adam's decay of the first moment.
    pub beta1: f32,
    /// Adam's decay of the second moment.
    pub beta2: f32,
    /// Largest global gradient norm.
    pub clip: f32,
    /// Trains low-rank adapters instead of all weights (LoRA, Hu et al. 2021, arXiv:2106.09685), and merges them into the
    /// model that comes out: `rank` (16), `alpha` (32), and `targets`, the ends of matrices' names such as `q_proj` (all of
    /// the layers' unless given). The model's own weights need no gradients and no moments; `{}` gives the defaults.
    pub lora: Option<Lora>,
    /// A column of numbers, 0 or more: what each row of `rows` counts in a step's mean loss. Rows of 0 are left out;
    /// rows of `replay` without the column count 1.
    pub weights: Option<String>,
    /// Steps between two evaluations of the loss on the rows of the port `dev`; the last step is always evaluated.
    /// 0 for the last step only.
    pub evaluate_every: usize,
    /// Ends the training after so many evaluations in a row without a new lowest loss; 0 for never.
    pub patience: usize,
    /// Which weights come out.
    pub keep: Keep,
    /// What training may take at its peak, the model included, by an estimate: layers are then computed twice instead
    /// of kept, and fewer threads help. Changes no bytes and no keys. No limit unless given.
    #[serde(skip_serializing)]
    #[schemars(range(min = 1))]
    pub memory_bytes: Option<u64>,
    /// How weights are seen while they are trained, and written when they are.
    pub precision: Precision,
    /// Template of the prompt, as in kind `sample`.
    pub prompt: String,
    /// Whether the prompt shows the execution.
    pub trace: bool,
    /// Whether completions hold a rationale.
    pub rationale: bool,
    /// How the fix stands in a completion, which is learned up to there.
    pub fix_format: FixFormat,
    /// Document templates instead of repairs: each row gives a document a template. What stands before
    /// `<|completion|>` is context without loss.
    pub documents: Vec<String>,
    /// Seed of the order of the documents and of new adapters; the pipeline's unless given.
    pub seed: u64,
}

/// How weights are seen while they are trained, and written when they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Four bytes a number, as they are.
    F32,
    /// Both operands of every product with a matrix are rounded to two bytes, to nearest even, and so is what the backward pass
    /// reads of the forward one, which halves its memory. Sums, what is trained, its gradient and its moments stay in four bytes;
    /// the model that comes out is written in two. Twice as fast where the processor has tile instructions (`doctor` says so).
    Bf16,
}

/// How the learning rate falls after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Along half a cosine, to `final_learning_rate`.
    Cosine,
    /// Along a straight line, to `final_learning_rate`.
    Linear,
    /// It does not.
    Constant,
}

/// Which weights decay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decayed {
    /// Matrices and embeddings; norms and biases do not.
    Matrices,
    /// The layers' matrices and a head of its own; embeddings, norms and biases do not.
    Layers,
    /// All of them.
    All,
}

/// Which weights come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// Those after the last step.
    Last,
    /// Those of the lowest loss on `dev`.
    Best,
}

/// Low-rank adapters: to each chosen matrix W is added (alpha / rank) · B · A.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Lora {
    /// Rows of A, columns of B.
    #[schemars(range(min = 1))]
    pub rank: usize,
    /// The product is multiplied by alpha / rank.
    #[schemars(range(min = 0.0))]
    pub alpha: f32,
    /// Names of the matrices as they end in the checkpoint, such as `q_proj`; none for all those of the layers.
    pub targets: Vec<String>,
}

impl Default for Lora {
    fn default() -> Self {
        Self { rank: 16, alpha: 32.0, targets: Vec::new() }
    }
}

impl Default for Params {
    fn default() -> Self {
        Self {
            epochs: 2,
            learning_rate: 1e-3,
            warmup: 0.05,
            final_learning_rate: 0.1,
            schedule: Schedule::Cosine,
            batch_tokens: 1024,
            sequence_tokens: 512,
            weight_decay: 0.05,
            decayed: Decayed::Matrices,
            beta1: 0.9,
            beta2: 0.98,
            clip: 1.0,
            lora: None,
            weights: None,
            evaluate_every: 0,
            patience: 0,
            keep: Keep::Last,
            memory_bytes: None,
            precision: Precision::F32,
            prompt: "builtin:repair".to_owned(),
            trace: true,
            rationale: true,
            fix_format: FixFormat::Edit,
            documents: Vec::new(),
            seed: 0,
        }
    }
}

impl Params {
    /// The kernels' options.
    pub(super) fn options(&self, steps: Steps, threads: usize) -> Options {
        Options {
            steps,
            learning_rate: self.learning_rate,
            warmup: self.warmup,
            final_lr: self.final_learning_rate,
            batch_tokens: self.batch_tokens,
            sequence_tokens: self.sequence_tokens,
            weight_decay: self.weight_decay,
            beta1: self.beta1,
            beta2: self.beta2,
            eps: 1e-8,
            clip: self.clip,
            seed: self.seed,
            schedule: match self.schedule {
                Schedule::Cosine => train::Schedule::Cosine,
                Schedule::Linear => train::Schedule::Linear,
                Schedule::Constant => train::Schedule::Constant,
            },
            decay: match self.decayed {
                Decayed::Matrices => train::Decay::Matrices,
                Decayed::Layers => train::Decay::Layers,
                Decayed::All => train::Decay::All,
            },
            lora: self.lora.clone().map(|Lora { rank, alpha, targets }| model::Lora { rank, alpha, targets }),
            evaluation: Evaluation {
                every: self.evaluate_every,
                patience: self.patience,
                keep_best: self.keep == Keep::Best,
            },
            memory_bytes: self.memory_bytes,
            bf16: self.precision == Precision::Bf16,
            threads,
            ..Options::default()
        }
    }
}

const ONE_EVALUATION: &str = "there is one evaluation only, after the last step";

impl tracetune_engine::stage::Params for Params {
    fn validate(&self) -> Result<(), ParamError> {
        let wrong = |param, message: &str, help: &str| {
            Err(ParamError { param, message: message.to_owned(), help: Some(help.to_owned()) })
        };
        if self.epochs == 0 {
            return wrong("epochs", "must be at least 1", "2 is the default");
        }
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            return wrong(
                "learning_rate",
                "must be above 0",
                "1e-3 suits a model of a million weights, 1e-5 a large one",
            );
        }
        if self.sequence_tokens < 16 {
            return wrong("sequence_tokens", "must be at least 16", "512 holds most prompts of small programs");
        }
        if self.batch_tokens < self.sequence_tokens {
            return wrong("batch_tokens", "must be at least `sequence_tokens`", "a step takes whole packed rows");
        }
        for (param, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            if !(0.0..1.0).contains(&beta) {
                return wrong(param, "must be at least 0 and below 1", "0.9 and 0.98 are usual");
            }
        }
        if self.clip.is_nan() || self.clip <= 0.0 {
            return wrong("clip", "must be above 0", "1.0 is usual; `inf` clips nothing");
        }
        if !(self.weight_decay >= 0.0 && self.weight_decay.is_finite()) {
            return wrong("weight_decay", "must be at least 0", "0.1 is usual");
        }
        for (param, share) in [("warmup", self.warmup), ("final_learning_rate", self.final_learning_rate)] {
            if !(0.0..=1.0).contains(&share) {
                return wrong(param, "must be between 0 and 1", "it is a share");
            }
        }
        if let Some(lora) = &self.lora {
            if lora.rank == 0 {
                return wrong("lora", "must have a rank of at least 1", "16 is the default");
            }
            if !(lora.alpha > 0.0 && lora.alpha.is_finite()) {
                return wrong("lora", "must have an alpha above 0", "twice the rank is usual");
            }
        }
        if self.evaluate_every == 0 {
            let help = "say with `evaluate_every` how many steps lie between two evaluations on `dev`";
            if self.patience > 0 {
                return wrong("patience", ONE_EVALUATION, help);
            }
            if self.keep == Keep::Best {
                return wrong("keep", ONE_EVALUATION, help);
            }
        }
        Ok(())
    }
}
