//! What may stand under `kind = "sample"`.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracetune_engine::stage::ParamError;
use tracetune_kernels::decode;

use crate::prompt::{FixFormat, with_closing_fence};

/// What may stand under `kind = "sample"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Completions drawn a row. Growing it draws only the new ones.
    #[schemars(range(min = 0, max = 100_000))]
    pub n: usize,
    /// Whether a greedy completion is drawn too, as sample -1.
    pub greedy: bool,
    /// Softmax temperature, > 0.
    #[schemars(range(min = 0.0))]
    pub temperature: f32,
    /// Nucleus: the smallest set of tokens whose probabilities reach this; 1 keeps all.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub top_p: f32,
    /// Keeps only the k likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps only the tokens with at least this share of the likeliest one's probability; 0 keeps all.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_p: f32,
    /// Divides the logits above 0 of tokens that the prompt or the completion has, and multiplies those below (Keskar et
    /// al. 2019, arXiv:1909.05858); 1 leaves them alone.
    #[schemars(range(min = 0.0))]
    pub repetition_penalty: f32,
    /// How the model's weights are kept while it samples: fewer bytes are faster, and rounded.
    pub precision: Precision,
    /// Longest completion, in tokens.
    #[schemars(range(min = 1))]
    pub max_tokens: usize,
    /// Strings that end a completion; not part of it. After exemplars a model goes on with a task of its own: stop at what
    /// begins one, e.g. `["\n### Task"]`. A fence among them closes the block of code that it ends.
    pub stop: Vec<String>,
    /// What every completion starts with: the model goes on from there, so that e.g. its first line is given.
    pub start: String,
    /// Template of the prompt: `builtin:NAME` or a file.
    pub prompt: String,
    /// Whether the prompt shows the execution.
    pub trace: bool,
    /// Whether the model explains before it repairs.
    pub rationale: bool,
    /// How the fix stands in the completion.
    pub fix_format: FixFormat,
    /// Solved examples shown first, from the port `exemplars`.
    pub shots: usize,
    /// Seed of the draws; the pipeline's unless given.
    pub seed: u64,
    /// Requests at once, if the model is an endpoint.
    #[schemars(range(min = 1, max = 1024))]
    pub concurrency: usize,
    /// Longest wait for one answer of an endpoint, in seconds.
    #[schemars(range(min = 1))]
    pub timeout_s: u64,
    /// Most memory for keys and values, in MiB; 0 sets no limit. Completions for which there is no room wait, and are the
    /// same.
    pub cache_mib: u64,
}

/// How weights are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Four bytes a weight, as they are.
    #[default]
    F32,
    /// Two bytes a weight, rounded to nearest even, as activations are where they meet weights.
    Bf16,
    /// A byte a weight, and a scale for each 32 of them; activations in the same way.
    Int8,
}

impl From<Precision> for decode::Precision {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::Bf16,
            Precision::Int8 => Self::Int8,
        }
    }
}

impl Params {
    /// A completion with the closing fence that a stop string took away.
    pub(super) fn whole<'a>(&self, text: &'a str, finish: &str) -> Cow<'a, str> {
        let stops_at_fence = self.stop.iter().any(|stop| stop.contains("```") || stop.contains("~~~"));
        if stops_at_fence && finish == "stop" {
            Cow::Owned(with_closing_fence(text, self.fix_format))
        } else {
            Cow::Borrowed(text)
        }
    }
}

impl Default for Params {
    fn default() -> Self {
        Self {
            n: 16,
            greedy: false,
            temperature: 0.8,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            precision: Precision::F32,
            max_tokens: 64,
            stop: Vec::new(),
            start: String::new(),
            prompt: "builtin:repair".to_owned(),
            trace: true,
            rationale: true,
            fix_format: FixFormat::Edit,
            shots: 0,
            seed: 0,
            concurrency: 8,
            timeout_s: 300,
            cache_mib: 0,
        }
    }
}

impl tracetune_engine::stage::Params for Params {
    fn validate(&self) -> Result<(), ParamError> {
        let wrong = |param, message: &str, help: &str| {
            Err(ParamError { param, message: message.to_owned(), help: Some(help.to_owned()) })
        };
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            return wrong("temperature", "must be above 0", "for greedy decoding write `greedy = true` and `n = 0`");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return wrong("top_p", "must be above 0 and at most 1", "1 keeps all tokens");
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return wrong("min_p", "must be from 0 to 1", "0 keeps all tokens, 0.05 is usual");
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            return wrong("repetition_penalty", "must be above 0", "1 leaves the logits alone, 1.1 is usual");
        }
        if self.n == 0 && !self.greedy {
            return wrong("n", "draws nothing", "write `n = 16`, or `greedy = true`");
        }
        if self.concurrency == 0 || self.concurrency > 1024 {
            return wrong("concurrency", "must be from 1 to 1024", "8 is kind to most servers");
        }
        if self.timeout_s == 0 {
            return wrong("timeout_s", "must be at least 1", "300 lets a slow model finish");
        }
        if self.max_tokens == 0 {
            return wrong("max_tokens", "must be at least 1", "64 is enough for a short rationale and an edit");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_among_the_stop_strings_closes_the_block() {
        let text = "why\n```python\nx = 1";
        let whole = |stop: &[&str], finish: &str| {
            let stop = stop.iter().map(|stop| (*stop).to_owned()).collect();
            let params = Params { stop, fix_format: FixFormat::Program, ..Params::default() };
            params.whole(text, finish).into_owned()
        };
        assert_eq!(whole(&["\n```\n"], "stop"), format!("{text}\n```"));
        assert_eq!(whole(&["\n```\n"], "length"), text);
        assert_eq!(whole(&["\n### Task"], "stop"), text);
    }
}
