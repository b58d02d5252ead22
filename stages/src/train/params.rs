//! What may stand under `kind = "train"`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracetune_engine::stage::ParamError;
use tracetune_kernels::train::{Options, Steps};

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
    /// Learning rate of the last step as a share of the peak; a cosine leads there.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub final_learning_rate: f32,
    /// Tokens a step, padding included.
    pub batch_tokens: usize,
    /// Length of a packed row, in tokens; longer documents are left out, with a note.
    pub sequence_tokens: usize,
    /// AdamW's decoupled weight decay, on matrices only.
    #[schemars(range(min = 0.0))]
    pub weight_decay: f32,
    /// Adam's decay of the first moment.
    pub beta1: f32,
    /// Adam's decay of the second moment.
    pub beta2: f32,
    /// Largest global gradient norm.
    pub clip: f32,
    /// Template of the prompt, as in kind `sample`.
    pub prompt: String,
    /// Whether the prompt shows the execution.
    pub trace: bool,
    /// Whether the completion of a demonstration holds its rationale.
    pub rationale: bool,
    /// How the fix stands in the completion of a demonstration.
    pub fix_format: FixFormat,
    /// Document templates instead of repairs: each row gives a document a template. What stands before
    /// `<|completion|>` is context without loss.
    pub documents: Vec<String>,
    /// Seed of the order of the documents; the pipeline's unless given.
    pub seed: u64,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            epochs: 2,
            learning_rate: 1e-3,
            warmup: 0.05,
            final_learning_rate: 0.1,
            batch_tokens: 1024,
            sequence_tokens: 512,
            weight_decay: 0.05,
            beta1: 0.9,
            beta2: 0.98,
            clip: 1.0,
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
            threads,
            ..Options::default()
        }
    }
}

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
        for (param, share) in [("warmup", self.warmup), ("final_learning_rate", self.final_learning_rate)] {
            if !(0.0..=1.0).contains(&share) {
                return wrong(param, "must be between 0 and 1", "it is a share");
            }
        }
        Ok(())
    }
}
