//! What a client may ask of our server, and what of it is wrong.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tracetune_kernels::decode::Sampling;

use super::chat::Message;

/// What a client is told when it can't be served.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: u16,
    message: String,
    code: Option<&'static str>,
}

impl Refusal {
    /// The request is wrong.
    pub(super) fn wrong(message: impl Into<String>) -> Self {
        Self { status: 400, message: message.into(), code: None }
    }
    pub(super) fn new(status: u16, message: impl Into<String>, code: &'static str) -> Self {
        Self { status, message: message.into(), code: Some(code) }
    }
    /// As the protocol writes an error.
    pub(super) fn body(&self) -> Value {
        let kind = if self.status < 500 { "invalid_request_error" } else { "server_error" };
        json!({ "error": { "message": self.message, "type": kind, "param": null, "code": self.code } })
    }
}

/// The body of `/v1/completions` or `/v1/chat/completions`.
#[derive(Debug, Deserialize)]
pub(super) struct Body {
    pub(super) model: Option<String>,
    prompt: Option<OneOrMany>,
    messages: Option<Vec<Message>>,
    pub(super) n: Option<usize>,
    pub(super) seed: Option<i64>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<usize>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    stop: Option<OneOrMany>,
    stream: Option<bool>,
    logprobs: Option<Value>,
    echo: Option<bool>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn all(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}

/// What changes a completion and is not done here: better refused than ignored.
const UNSUPPORTED: &[&str] = &[
    "best_of",
    "frequency_penalty",
    "functions",
    "logit_bias",
    "presence_penalty",
    "response_format",
    "suffix",
    "tools",
    "top_logprobs",
];

/// Completions of one prompt at the most.
const MOST_CHOICES: usize = 128;

impl Body {
    /// Reads the body.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let body: Self = serde_json::from_slice(bytes).map_err(|error| Refusal::wrong(error.to_string()))?;
        let neutral = |value: &Value| value.is_null() || *value == 0 || *value == 0.0 || *value == json!({});
        for name in UNSUPPORTED {
            let value = body.others.get(*name);
            if value.is_some_and(|value| !(neutral(value) || *name == "best_of" && *value == 1)) {
                return Err(Refusal::wrong(format!("`{name}` is not supported")));
            }
        }
        if !(1..=MOST_CHOICES).contains(&body.choices()) {
            return Err(Refusal::wrong(format!("`n` must be from 1 to {MOST_CHOICES}")));
        }
        Ok(body)
    }

    pub(super) fn choices(&self) -> usize {
        self.n.unwrap_or(1)
    }
    pub(super) fn streams(&self) -> bool {
        self.stream.unwrap_or(false)
    }
    pub(super) fn echoes(&self) -> bool {
        self.echo.unwrap_or(false)
    }
    pub(super) fn wants_logprobs(&self) -> bool {
        self.logprobs.as_ref().is_some_and(|wanted| !wanted.is_null() && *wanted != false)
    }
    pub(super) fn prompts(&mut self) -> Result<Vec<String>, Refusal> {
        let prompts = self.prompt.take().map(OneOrMany::all).unwrap_or_default();
        if prompts.is_empty() { Err(Refusal::wrong("`prompt` must be a text or texts")) } else { Ok(prompts) }
    }
    pub(super) fn messages(&mut self) -> Result<Vec<Message>, Refusal> {
        let messages = self.messages.take().unwrap_or_default();
        if messages.is_empty() { Err(Refusal::wrong("`messages` must hold a message")) } else { Ok(messages) }
    }
    /// Tokens asked for at the most, if the request says.
    pub(super) fn max_tokens(&self) -> Option<usize> {
        self.max_completion_tokens.or(self.max_tokens)
    }

    /// How to draw.
    pub(super) fn sampling(&self, max_tokens: usize) -> Result<Sampling, Refusal> {
        let (temperature, top_p) = (self.temperature.unwrap_or(1.0), self.top_p.unwrap_or(1.0));
        let stop = self.stop.clone().map(OneOrMany::all).unwrap_or_default();
        if !(0.0..=100.0).contains(&temperature) {
            return Err(Refusal::wrong("`temperature` must be from 0 to 100"));
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(Refusal::wrong("`top_p` must be above 0 and at most 1"));
        }
        if max_tokens == 0 || stop.iter().any(String::is_empty) {
            return Err(Refusal::wrong("`max_tokens` must be at least 1, and no `stop` empty"));
        }
        let min_p = self.min_p.unwrap_or(0.0);
        if !(0.0..=1.0).contains(&min_p) {
            return Err(Refusal::wrong("`min_p` must be from 0 to 1"));
        }
        let repetition_penalty = self.repetition_penalty.unwrap_or(1.0);
        if !(repetition_penalty.is_finite() && repetition_penalty > 0.0) {
            return Err(Refusal::wrong("`repetition_penalty` must be above 0"));
        }
        let top_k = self.top_k.unwrap_or(0);
        Ok(Sampling { temperature, top_p, top_k, min_p, repetition_penalty, max_tokens, stop })
    }
}
