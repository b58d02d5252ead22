//! Draws from a model behind an API: one request a draw, so that more draws ask only for the new ones.

use std::time::Duration;

use serde_json::{Value, json};
use tracetune_engine::stage::StageError;
use tracetune_kernels::decode::{Draw, Sampling};
use ureq::http::Response;
use ureq::{Agent, Body};

use super::pace::{self, Pace};
use super::{Api, Endpoint};

/// Tries of one request before the stage is told.
const TRIES: u32 = 5;

/// Longest answer, in bytes.
const ANSWER_BYTES: u64 = 64 << 20;

/// Every server takes a seed of 31 bits.
const SEED_BITS: u64 = 0x7fff_ffff;

/// What an endpoint gave for a draw.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// What the model wrote.
    pub text: String,
    /// `stop`, `length`, or the server's own word, e.g. `content_filter`.
    pub finish: String,
    /// Tokens in the completion, as the server counts them.
    pub tokens: i32,
    /// Sum of the tokens' log-probabilities, natural log; NaN if the server gave none.
    pub logprob: f32,
}

/// A connection to an endpoint, for many threads.
pub struct Client {
    endpoint: Endpoint,
    /// Where requests go.
    url: String,
    /// Neither shown nor stored.
    key: Option<String>,
    agent: Agent,
    pace: Pace,
}

/// Why a try gave no answer.
enum Failure {
    /// Another try may help, after the pause that the server asks for.
    Again(String, Option<Duration>),
    /// The prompt leaves no room for the completion.
    TooLong,
    /// No try will help.
    Stage(StageError),
}

impl Client {
    /// A client that gives up on a request that takes longer than `timeout`.
    ///
    /// # Errors
    /// The environment variable with the key is not set.
    pub fn new(endpoint: Endpoint, timeout: Duration) -> Result<Self, StageError> {
        let name = &endpoint.options.key_env;
        let key = match std::env::var(name).map(|key| key.trim().to_owned()) {
            _ if name.is_empty() => None,
            Ok(key) if !key.is_empty() => Some(key),
            _ => {
                let message =
                    format!("the environment variable `{name}`, which has the key of {}, is not set", endpoint.url);
                return Err(StageError::environment(message, format!("set it: export {name}=…")));
            }
        };
        let path = match endpoint.options.api {
            Api::Completions => "completions",
            Api::Chat => "chat/completions",
        };
        let config = Agent::config_builder().timeout_global(Some(timeout)).http_status_as_error(false).max_redirects(0);
        Ok(Self {
            url: format!("{}/{path}", endpoint.url),
            key,
            agent: config.build().new_agent(),
            pace: Pace::new(),
            endpoint,
        })
    }

    /// Draws a completion; `None` if the prompt leaves no room for it.
    ///
    /// # Errors
    /// [`StageError::Transient`] if the server can't be reached or is busy, after some tries;
    /// [`StageError::Environment`] or [`StageError::Input`], with the server's message, if it refuses the request.
    pub fn draw(
        &self,
        prompt: &str,
        sampling: &Sampling,
        draw: Draw,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<Answer>, StageError> {
        let body = self.body(prompt, sampling, draw).to_string();
        let mut tries = 1;
        loop {
            self.pace.wait(cancelled)?;
            match self.ask(&body) {
                Ok(answer) => return Ok(Some(answer)),
                Err(Failure::TooLong) => return Ok(None),
                Err(Failure::Stage(error)) => return Err(error),
                Err(Failure::Again(message, _)) if tries == TRIES => {
                    let message = self.without_key(&format!("{}: {message} ({TRIES} tries)", self.url));
                    let help = "is the server up? `concurrency` of the stage `sample` asks less at once, `timeout_s` waits longer";
                    return Err(StageError::Transient { message, help: Some(help.to_owned()) });
                }
                Err(Failure::Again(_, pause)) => self.pace.hold(pause.unwrap_or_else(|| pace::back_off(tries))),
            }
            tries += 1;
        }
    }

    fn body(&self, prompt: &str, sampling: &Sampling, draw: Draw) -> Value {
        let Endpoint { model, options, .. } = &self.endpoint;
        let mut body = json!({
            "model": model,
            "max_tokens": sampling.max_tokens,
            "temperature": if draw.greedy { 0.0 } else { shortest(sampling.temperature) },
            "top_p": shortest(sampling.top_p),
            "seed": draw.seed & SEED_BITS,
        });
        match options.api {
            Api::Completions => body["prompt"] = prompt.into(),
            Api::Chat => body["messages"] = json!([{ "role": "user", "content": prompt }]),
        }
        // Not every server knows what is not asked for.
        if !sampling.stop.is_empty() {
            body["stop"] = json!(sampling.stop);
        }
        if sampling.top_k > 0 {
            body["top_k"] = sampling.top_k.into();
        }
        if sampling.min_p > 0.0 {
            body["min_p"] = shortest(sampling.min_p).into();
        }
        if sampling.repetition_penalty != 1.0 {
            body["repetition_penalty"] = shortest(sampling.repetition_penalty).into();
        }
        if options.logprobs {
            body["logprobs"] = if options.api == Api::Chat { true.into() } else { 1.into() };
        }
        body
    }

    fn ask(&self, body: &str) -> Result<Answer, Failure> {
        let mut request = self.agent.post(&self.url).header("content-type", "application/json");
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let again = |error: ureq::Error| match error {
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => Failure::Stage(StageError::environment(
                format!("{}: the request can't be made", self.url),
                "is the URL right, and the key one line of plain characters?",
            )),
            error => Failure::Again(error.to_string(), None),
        };
        let mut response = request.send(body).map_err(again)?;
        let text = response.body_mut().with_config().limit(ANSWER_BYTES).read_to_string().map_err(again)?;
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        if !response.status().is_success() {
            return Err(self.refused(&response, &value, &text));
        }
        // The last request of a limit went well: the next one waits for the limit.
        if let Some(pause) = pause_asked(&response) {
            self.pace.hold(pause);
        }
        let chat = self.endpoint.options.api == Api::Chat;
        answer(&value, chat).ok_or_else(|| {
            let message = format!("{} gave what is no completion: {}", self.url, start(&text));
            Failure::Stage(StageError::environment(
                self.without_key(&message),
                "is it a server with OpenAI's protocol, and does its URL end as it should, e.g. in `/v1`?",
            ))
        })
    }

    fn refused(&self, response: &Response<Body>, value: &Value, text: &str) -> Failure {
        let status = response.status().as_u16();
        // Some servers have the error itself, some have it in a field.
        let error = if value["error"].is_object() { &value["error"] } else { value };
        let said = error["message"].as_str().or(value["detail"].as_str()).map_or_else(|| start(text), start);
        let message = self.without_key(&format!("{} answers {status}: {said}", self.url));
        let name = &self.endpoint.options.key_env;
        let help = match status {
            408 | 409 | 429 | 500.. if error["code"] != "insufficient_quota" => {
                return Failure::Again(format!("the server answers {status}: {said}"), pause_asked(response));
            }
            _ if error["code"] == "context_length_exceeded" => return Failure::TooLong,
            400 | 413 | 422 => return Failure::Stage(StageError::Input(message)),
            401 | 403 if name.is_empty() => {
                "name the environment variable that has the key: `endpoint = { key_env = \"API_KEY\" }`".to_owned()
            }
            401 | 403 => format!("is the key in the environment variable `{name}` right, and may it use this model?"),
            404 => format!(
                "does the URL end as it should, e.g. in `/v1`, and does the server have `{}`?",
                self.endpoint.model
            ),
            _ => "see the server's documentation".to_owned(),
        };
        Failure::Stage(StageError::environment(message, help))
    }

    /// A server's message may quote the key.
    fn without_key(&self, message: &str) -> String {
        self.key.as_ref().map_or_else(|| message.to_owned(), |key| message.replace(key, "[key]"))
    }
}

fn pause_asked(response: &Response<Body>) -> Option<Duration> {
    pace::asked(|name| response.headers().get(name)?.to_str().ok())
}

/// The choice in an answer; `None` if it has none.
fn answer(value: &Value, chat: bool) -> Option<Answer> {
    let choice = &value["choices"][0];
    let text = if chat { &choice["message"]["content"] } else { &choice["text"] };
    // A chat's content is null where the model wrote nothing that may be shown.
    let text = text.as_str().or((chat && choice["message"].is_object()).then_some(""))?;
    let finish = match choice["finish_reason"].as_str().unwrap_or("stop") {
        "eos" | "eos_token" | "stop_sequence" => "stop",
        finish => finish,
    };
    let each: Option<Vec<f64>> = if chat {
        let each = choice["logprobs"]["content"].as_array();
        each.and_then(|each| each.iter().map(|token| token["logprob"].as_f64()).collect())
    } else {
        let each = choice["logprobs"]["token_logprobs"].as_array();
        each.and_then(|each| each.iter().map(Value::as_f64).collect())
    };
    Some(Answer {
        text: text.to_owned(),
        finish: finish.to_owned(),
        tokens: value["usage"]["completion_tokens"].as_i64().unwrap_or(0) as i32,
        logprob: each.map_or(f32::NAN, |each| each.iter().sum::<f64>() as f32),
    })
}

/// 0.8 as a pipeline writes it, instead of the 0.800000011920929 that is nearest in 32 bits.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

/// The start of a text, for messages.
fn start(text: &str) -> String {
    text.chars().take(300).collect()
}
