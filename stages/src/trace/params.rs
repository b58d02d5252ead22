//! What a user may set of `trace`, and a trace written as set.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracetune_engine::stage::{self, ParamError};
use tracetune_kernels::model::Tokenizer;

use super::{Run, Visits, annotate, json_lines, scratchpad};
use crate::packages::check_warm;
use crate::sandbox::{CpuSeconds, Limits};
use crate::verify::check_limits;

/// Which column is traced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Program {
    /// `buggy`, on its first failing test.
    #[default]
    Buggy,
    /// `reference`, on its first test.
    Reference,
}

/// How a trace is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// Inline, into the program: NExT's (arXiv:2404.14662).
    #[default]
    Next,
    /// Each executed line, then the whole state: Scratchpad's (arXiv:2112.00114).
    Scratchpad,
    /// A JSON object a step, for other tools.
    Jsonl,
}

/// What may stand under `kind = "trace"`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Which column is traced: `buggy` on its first failing test, or `reference` on its first test.
    pub program: Program,
    /// `next`, inline in the program; `scratchpad`, each executed line with the whole state; `jsonl`, a JSON object a step.
    pub form: Form,
    /// Statements that are traced before the trace ends.
    #[schemars(range(min = 1))]
    pub max_steps: u32,
    /// Characters of one value.
    #[schemars(range(min = 8))]
    pub value_chars: u32,
    /// Items shown of one list, dict or set.
    #[schemars(range(min = 1))]
    pub value_items: u32,
    /// Visits of a line that are kept from the start.
    pub first: u32,
    /// Visits of a line that are kept at the end.
    pub last: u32,
    /// Characters of the program with its trace: the middle of loops is left out first, then the code that was not
    /// executed, then what is farthest from the failure.
    #[schemars(range(min = 1))]
    pub budget_chars: u32,
    /// The same in tokens of `model`, in place of `budget_chars`.
    #[schemars(range(min = 1))]
    pub budget_tokens: Option<u32>,
    /// CPU time of one run, in seconds.
    pub cpu_limit_s: CpuSeconds,
    /// Memory of one run, in bytes.
    #[schemars(range(min = 67_108_864))]
    pub memory_bytes: u64,
    /// What the files may take that a program writes, in bytes; 0: it may write none.
    #[schemars(range(min = 0))]
    pub scratch_bytes: u64,
    /// Code that runs before each program, in its names: imports that its author could count on.
    pub prelude: String,
    /// Third-party packages that programs may import: a virtual environment, or a folder that `pip install --target`
    /// filled. Names, versions and files of the packages count in the key.
    pub packages: Option<String>,
    /// Modules imported once per worker, not by each program: `["numpy", "pandas"]`.
    pub warm: Vec<String>,
    /// For tests: `sys.settrace`, the reference, also where there is `sys.monitoring`. Both give the same bytes.
    #[serde(skip)]
    #[schemars(skip)]
    pub settrace: bool,
}

impl Default for Params {
    fn default() -> Self {
        let Limits { cpu_s, memory_bytes, scratch_bytes, .. } = Limits::default();
        Self {
            program: Program::Buggy,
            form: Form::Next,
            max_steps: 1000,
            value_chars: 80,
            value_items: 20,
            first: 2,
            last: 1,
            budget_chars: 4000,
            budget_tokens: None,
            cpu_limit_s: cpu_s,
            memory_bytes,
            scratch_bytes,
            prelude: String::new(),
            packages: None,
            warm: Vec::new(),
            settrace: false,
        }
    }
}

impl stage::Params for Params {
    fn validate(&self) -> Result<(), ParamError> {
        let wrong = |param, message: &str| Err(ParamError { param, message: message.to_owned(), help: None });
        if self.max_steps == 0 {
            return wrong("max_steps", "must be at least 1");
        }
        if self.value_chars < 8 {
            return wrong("value_chars", "must be at least 8");
        }
        if self.value_items == 0 {
            return wrong("value_items", "must be at least 1");
        }
        if self.budget_tokens == Some(0) {
            return wrong("budget_tokens", "must be at least 1");
        }
        check_warm(&self.warm)?;
        check_limits(self.cpu_limit_s, self.memory_bytes)
    }
}

impl Params {
    pub(crate) fn limits(&self) -> Limits {
        let Self { cpu_limit_s: cpu_s, memory_bytes, scratch_bytes, .. } = *self;
        Limits { cpu_s, memory_bytes, scratch_bytes, ..Limits::default() }
    }

    /// The trace in its form and within its budget, and whether steps are missing for that.
    pub(crate) fn write(&self, source: &str, run: &Run, tokenizer: Option<&Tokenizer>) -> (String, bool) {
        let fits = |text: &str| match (self.budget_tokens, tokenizer) {
            // A token is a byte at the least, and what can't be encoded does not fit.
            (Some(budget), Some(tokenizer)) => {
                text.len() <= budget as usize
                    || tokenizer.encode_next(text).is_ok_and(|tokens| tokens.len() <= budget as usize)
            }
            _ => text.chars().count() <= self.budget_chars as usize,
        };
        let visits = Visits { first: self.first as usize, last: self.last as usize };
        match self.form {
            Form::Next => annotate(source, run, visits, &fits),
            Form::Scratchpad => scratchpad(source, run, &fits),
            Form::Jsonl => json_lines(run, &fits),
        }
    }
}
