//! Offers a model of ours to other tools: `/v1/models`, `/v1/completions` and `/v1/chat/completions`.
//!
//! The same request with the same `seed` gets the same answer, whoever else is served.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tiny_http::{Header, Method, Response};
use tracetune_kernels::decode::{Completion, Decoder, Draw, Finish, Request};
use tracetune_kernels::model::Model;
use tracetune_kernels::random;

use super::chat::Chat;
use super::queue::{self, Job};
use super::request::{Body, Refusal};

/// Longest request, in bytes.
const REQUEST_BYTES: u64 = 16 << 20;

/// Tokens of a completion that names no limit, as in OpenAI's API.
const DEFAULT_TOKENS: usize = 16;

/// A model with the name that clients know it by.
pub struct Served {
    /// What draws.
    pub decoder: Decoder<Model>,
    /// Its name.
    pub name: String,
    /// How it reads conversations.
    pub chat: Chat,
}

/// Answers requests until `stop` is set; what is being drawn then is given up.
pub fn serve(http: &tiny_http::Server, served: &Served, stop: &AtomicBool) {
    let stopped = &|| stop.load(Ordering::Relaxed);
    let (sender, jobs) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || queue::work(&served.decoder, &jobs, stopped));
        let numbers = &AtomicU64::new(0);
        while !stopped() {
            // A client that is gone before it is heard is no concern of the others.
            let Ok(Some(request)) = http.recv_timeout(Duration::from_millis(50)) else { continue };
            let handler = Handler { served, jobs: sender.clone(), number: numbers.fetch_add(1, Ordering::Relaxed) };
            scope.spawn(move || handler.respond(request));
        }
        drop(sender);
    });
}

/// What one request needs.
struct Handler<'a> {
    served: &'a Served,
    jobs: Sender<Job>,
    number: u64,
}

/// What a client gets.
enum Reply {
    Whole(Value),
    Events(Vec<Value>),
}

impl Handler<'_> {
    fn respond(&self, mut request: tiny_http::Request) {
        let (status, value) = match self.reply(&mut request) {
            Ok(Reply::Events(events)) => {
                // Its client may be gone.
                let _ = send_events(request, &events);
                return;
            }
            Ok(Reply::Whole(value)) => (200, value),
            Err(refusal) => (refusal.status, refusal.body()),
        };
        let mut response = Response::from_string(value.to_string()).with_status_code(status);
        response.add_header(json_header());
        let _ = request.respond(response);
    }

    fn reply(&self, request: &mut tiny_http::Request) -> Result<Reply, Refusal> {
        let path = request.url().split('?').next().unwrap_or_default().to_owned();
        match (request.method(), path.as_str()) {
            (Method::Get, "/v1/models") => Ok(Reply::Whole(json!({ "object": "list", "data": [self.about()] }))),
            (Method::Post, "/v1/completions") => self.completions(Body::parse(&read(request)?)?),
            (Method::Post, "/v1/chat/completions") => self.chat(Body::parse(&read(request)?)?),
            (Method::Get | Method::Post, "/v1/models" | "/v1/completions" | "/v1/chat/completions") => {
                Err(Refusal::new(405, format!("{path} does not take {}", request.method()), "method_not_allowed"))
            }
            _ => Err(Refusal::new(
                404,
                format!("there is no {path}: try /v1/models, /v1/completions or /v1/chat/completions"),
                "not_found",
            )),
        }
    }

    fn about(&self) -> Value {
        json!({ "id": self.served.name, "object": "model", "created": 0, "owned_by": "tracetune" })
    }

    fn completions(&self, mut body: Body) -> Result<Reply, Refusal> {
        let prompts = body.prompts()?;
        let drawn = self.draw(&body, &prompts, body.max_tokens().unwrap_or(DEFAULT_TOKENS))?;
        let mut choices = Vec::new();
        for (prompt, drawn) in prompts.iter().zip(&drawn) {
            for completion in &drawn.completions {
                let echoed = if body.echoes() { prompt.as_str() } else { "" };
                choices.push(json!({
                    "index": choices.len(),
                    "text": format!("{echoed}{}", completion.text),
                    "finish_reason": finish(completion),
                    "logprobs": self.logprobs(&body, drawn, completion, body.echoes())?.map(|tokens| json!({
                        "tokens": tokens.iter().map(|(text, _)| text).collect::<Vec<_>>(),
                        "token_logprobs": tokens.iter().map(|(_, logprob)| logprob).collect::<Vec<_>>(),
                        "top_logprobs": null,
                    })),
                }));
            }
        }
        Ok(self.answer(&body, "text_completion", choices, &drawn))
    }

    fn chat(&self, mut body: Body) -> Result<Reply, Refusal> {
        let prompt = self.served.chat.render(&body.messages()?).map_err(Refusal::wrong)?;
        let room = || self.positions().saturating_sub(self.encode(&prompt).map_or(0, |tokens| tokens.len())).max(1);
        let drawn = self.draw(&body, std::slice::from_ref(&prompt), body.max_tokens().unwrap_or_else(room))?;
        let part = if body.streams() { "delta" } else { "message" };
        let mut choices = Vec::new();
        for completion in &drawn[0].completions {
            choices.push(json!({
                "index": choices.len(),
                part: { "role": "assistant", "content": completion.text },
                "finish_reason": finish(completion),
                "logprobs": self.logprobs(&body, &drawn[0], completion, false)?.map(|tokens| json!({
                    "content": tokens.iter().map(|(text, logprob)| {
                        json!({ "token": text, "logprob": logprob, "bytes": text.as_bytes(), "top_logprobs": [] })
                    }).collect::<Vec<_>>(),
                })),
            }));
        }
        let object = if body.streams() { "chat.completion.chunk" } else { "chat.completion" };
        Ok(self.answer(&body, object, choices, &drawn))
    }

    fn answer(&self, body: &Body, object: &str, choices: Vec<Value>, drawn: &[Drawn]) -> Reply {
        let prompt_tokens: usize = drawn.iter().map(|drawn| drawn.prompt.len()).sum();
        let drawn = drawn.iter().flat_map(|drawn| &drawn.completions);
        let completion_tokens: usize = drawn.map(|completion| completion.tokens.len()).sum();
        let created = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let with = |choices: &[Value]| {
            json!({
                "id": format!("cmpl-{}", self.number), "object": object, "created": created,
                "model": self.served.name, "choices": choices,
                "usage": {
                    "prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens,
                    "total_tokens": prompt_tokens + completion_tokens,
                },
            })
        };
        if body.streams() { Reply::Events(choices.chunks(1).map(with).collect()) } else { Reply::Whole(with(&choices)) }
    }

    fn positions(&self) -> usize {
        self.served.decoder.model().config.max_position_embeddings
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>, Refusal> {
        self.served.decoder.model().tokenizer.encode(text).map_err(|error| Refusal::wrong(error.to_string()))
    }

    /// Waits its turn and draws for each prompt.
    fn draw(&self, body: &Body, prompts: &[String], max_tokens: usize) -> Result<Vec<Drawn>, Refusal> {
        let Served { name, .. } = self.served;
        if let Some(asked) = body.model.as_ref().filter(|asked| *asked != name) {
            return Err(Refusal::new(
                404,
                format!("the model `{asked}` is not here, only `{name}`"),
                "model_not_found",
            ));
        }
        let sampling = body.sampling(max_tokens)?;
        let seed = body.seed.map_or_else(any_seed, |seed| seed as u64);
        let mut waiting = Vec::new();
        for prompt in prompts {
            let prompt = self.encode(prompt)?;
            if prompt.is_empty() {
                return Err(Refusal::wrong("the prompt is empty"));
            }
            if prompt.len() + max_tokens > self.positions() {
                let (tokens, positions) = (prompt.len(), self.positions());
                let message = format!("a prompt of {tokens} tokens and {max_tokens} more do not fit in {positions}");
                return Err(Refusal::new(400, message, "context_length_exceeded"));
            }
            // The first choice's address is the seed itself: it does not depend on `n`.
            let draws = (0..body.choices() as u64).map(|choice| Draw {
                seed: if choice == 0 { seed } else { random::bits(seed, choice) },
                greedy: false,
            });
            let request = Request { prompt: prompt.clone(), draws: draws.collect() };
            let (answer, answered) = mpsc::channel();
            self.jobs.send(Job { sampling: sampling.clone(), request, answer }).map_err(|_| ends())?;
            waiting.push((prompt, answered));
        }
        let drawn = waiting.into_iter().map(|(prompt, answered)| {
            let completions = answered.recv().map_err(|_| ends())?;
            let completions = completions.map_err(|message| Refusal::new(500, message, "server_error"))?;
            Ok(Drawn { prompt, completions })
        });
        drawn.collect()
    }

    /// The tokens' texts with their log-probabilities, if the request wants them: the prompt's first one has none.
    fn logprobs(
        &self,
        body: &Body,
        drawn: &Drawn,
        completion: &Completion,
        whole: bool,
    ) -> Result<Option<Vec<Token>>, Refusal> {
        if !body.wants_logprobs() {
            return Ok(None);
        }
        let model = self.served.decoder.model();
        let failed = |error: tracetune_kernels::Error| Refusal::new(500, error.to_string(), "server_error");
        let tokens = [&drawn.prompt[..], &completion.tokens[..]].concat();
        let first = if whole { 0 } else { drawn.prompt.len() };
        let known = first.max(1);
        let logprobs = if tokens.len() > known { model.logprobs(&tokens, known).map_err(failed)? } else { Vec::new() };
        let none = std::iter::repeat_n(None, known - first);
        let each = tokens[first..].iter().zip(none.chain(logprobs.into_iter().map(Some)));
        let text = |token: &u32| model.tokenizer.decode(&[*token]).map_err(failed);
        each.map(|(token, logprob)| Ok((text(token)?, logprob))).collect::<Result<_, _>>().map(Some)
    }
}

/// A prompt's tokens and what was drawn after it.
struct Drawn {
    prompt: Vec<u32>,
    completions: Vec<Completion>,
}

/// A token's text and log-probability.
type Token = (String, Option<f32>);

fn finish(completion: &Completion) -> &'static str {
    match completion.finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
    }
}

fn ends() -> Refusal {
    Refusal::new(503, "the server ends", "server_error")
}

/// For who names no seed and so wants no same answer twice.
fn any_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

fn read(request: &mut tiny_http::Request) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    let read = request.as_reader().take(REQUEST_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| Refusal::wrong(format!("can't read the request: {error}")))?;
    if bytes.len() as u64 > REQUEST_BYTES {
        return Err(Refusal::new(413, format!("more than {REQUEST_BYTES} bytes"), "too_large"));
    }
    Ok(bytes)
}

fn json_header() -> Header {
    Header::from_bytes("content-type", "application/json").expect("plain words are a header")
}

/// Server-sent events, by hand: the library keeps what it sends until 8 KiB are together.
fn send_events(request: tiny_http::Request, events: &[Value]) -> std::io::Result<()> {
    let mut writer = request.into_writer();
    write!(writer, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")?;
    let lines = events.iter().map(Value::to_string).chain(["[DONE]".to_owned()]);
    for line in lines.map(|line| format!("data: {line}\n\n")) {
        write!(writer, "{:x}\r\n{line}\r\n", line.len())?;
        writer.flush()?;
    }
    write!(writer, "0\r\n\r\n")?;
    writer.flush()
}
