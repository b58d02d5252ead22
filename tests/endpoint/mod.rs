//! Models behind OpenAI's protocol: drawing from one, and being one.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::purity::node;
use crate::support::{Ran, Workspace, digests};
use crate::workspace;

/// The variable that has the key, and a key that must not be found anywhere.
const KEY: (&str, &str) = ("TRACETUNE_TEST_KEY", "sk-never-write-this-down");

/// `tracetune serve-model builtin:tiny` on a free port.
pub(crate) struct Served {
    process: Child,
    pub(crate) url: String,
    _workspace: Workspace,
}

impl Served {
    pub(crate) fn start() -> Self {
        let workspace = workspace();
        let mut command = workspace.command(["serve-model", "builtin:tiny", "--port", "0"]);
        let mut process = command.stdout(Stdio::piped()).spawn().expect("the server starts");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("its output")).read_line(&mut line).expect("its first line");
        let url = line.split(' ').next().expect("an address").to_owned();
        Self { process, url, _workspace: workspace }
    }

    fn post(&self, path: &str, body: &Value) -> (u16, String) {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let mut response = agent.post(format!("{}{path}", self.url)).send(body.to_string()).expect("an answer");
        (response.status().as_u16(), response.body_mut().read_to_string().expect("text"))
    }

    fn completion(&self, body: &Value) -> Value {
        let (status, text) = self.post("/completions", body);
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).expect("JSON")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A server that answers the n-th request, from 0, as told: status, headers, body; none is silence.
fn faulty(
    answer: impl Fn(usize) -> Option<(u16, Vec<&'static str>, String)> + Send + 'static,
) -> (String, Arc<AtomicUsize>) {
    let server = tiny_http::Server::http("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/v1", server.server_addr());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    thread::spawn(move || {
        let mut silent = Vec::new();
        for request in server.incoming_requests() {
            match answer(count.fetch_add(1, Ordering::Relaxed)) {
                Some((status, headers, body)) => {
                    let mut response = tiny_http::Response::from_string(body).with_status_code(status);
                    headers
                        .iter()
                        .for_each(|header| response.add_header(header.parse::<tiny_http::Header>().expect("a header")));
                    let _ = request.respond(response);
                }
                None => silent.push(request),
            }
        }
    });
    (url, asked)
}

fn good() -> (u16, Vec<&'static str>, String) {
    let choice = json!({ "index": 0, "text": "2 return a", "finish_reason": "stop" });
    (200, vec![], json!({ "choices": [choice], "usage": { "completion_tokens": 4 } }).to_string())
}

fn pipeline(source: &str, rows: usize, n: usize) -> String {
    format!(
        r#"
[pipeline]
name = "remote"
[stages.problems]
kind = "dataset"
source = "builtin:mini-python"
sizes = {{ dev = {rows} }}
[stages.traces]
kind = "trace"
rows = "problems"
[stages.remote]
kind = "model"
source = "openai:{source}"
endpoint = {{ key_env = "{}" }}
[stages.samples]
kind = "sample"
model = "remote"
rows = "traces"
n = {n}
max_tokens = 24
timeout_s = 2
"#,
        KEY.0
    )
}

fn run(workspace: &Workspace, text: &str) -> Ran {
    workspace.write("pipeline.toml", text);
    let mut command = workspace.command(["run", "pipeline.toml", "--json"]);
    workspace.ran(&command.env(KEY.0, KEY.1).output().expect("it starts"))
}

/// No file of the workspace has the key.
fn holds_no_key(workspace: &Workspace) {
    let mut folders = vec![workspace.path().to_owned()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).expect("a file");
            assert!(!bytes.windows(KEY.1.len()).any(|part| part == KEY.1.as_bytes()), "{}", path.display());
            files += 1;
        }
    }
    assert!(files > 5, "{files} files");
}

#[test]
fn more_draws_ask_an_endpoint_only_for_the_new_ones() {
    let served = Served::start();
    let source = format!("{}#tiny", served.url);
    let workspace = workspace();
    let first = run(&workspace, &pipeline(&source, 3, 2)).json();
    assert_eq!((&node(&first, "samples")["rows"], &node(&first, "samples")["rows_computed"]), (&6.into(), &6.into()));
    let drawn = digests(&workspace)["samples.rows"].clone();
    let more = run(&workspace, &pipeline(&source, 3, 3)).json();
    assert_eq!((&node(&more, "samples")["rows"], &node(&more, "samples")["rows_computed"]), (&9.into(), &3.into()));
    holds_no_key(&workspace);

    // Our own server keeps its word about `seed`: another store gets the same bytes, at another concurrency.
    let other = crate::workspace();
    run(&other, &pipeline(&source, 3, 2).replace("timeout_s = 2", "concurrency = 1"));
    assert_eq!(digests(&other)["samples.rows"], drawn);
}

#[test]
fn a_busy_a_broken_and_a_silent_server_are_asked_again() {
    let error = |status: u16, headers: Vec<&'static str>| {
        Some((status, headers, json!({ "error": { "message": "no" } }).to_string()))
    };
    let (url, asked) = faulty(move |request| match request {
        0 => error(429, vec!["Retry-After: 0.1"]),
        1 => error(500, vec![]),
        2 => None,
        _ => Some(good()),
    });
    let workspace = workspace();
    let ran = run(&workspace, &pipeline(&format!("{url}#m"), 1, 1));
    assert_eq!(ran.code, Some(0), "{ran}");
    assert_eq!(asked.load(Ordering::Relaxed), 4);
}

#[test]
fn a_refused_key_is_an_error_that_names_the_variable_and_not_the_key() {
    let body = json!({ "error": { "message": format!("Incorrect API key provided: {}", KEY.1) } }).to_string();
    let (url, asked) = faulty(move |_| Some((401, vec![], body.clone())));
    let workspace = workspace();
    let ran = run(&workspace, &pipeline(&format!("{url}#m"), 1, 1));
    assert_eq!(ran.code, Some(1), "{ran}");
    let said = format!("{ran}");
    for part in ["answers 401: Incorrect API key provided: [key]", KEY.0, &url] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains(KEY.1), "{said}");
    assert_eq!(asked.load(Ordering::Relaxed), 1, "a wrong key is not tried again");
    holds_no_key(&workspace);
}

#[test]
fn a_key_that_is_not_set_is_an_error_that_says_how() {
    let workspace = workspace();
    workspace.write("pipeline.toml", &pipeline("http://127.0.0.1:9/v1#m", 1, 1));
    let ran = workspace.run(["run", "pipeline.toml"]);
    assert_eq!(ran.code, Some(1), "{ran}");
    assert!(ran.stderr.contains(&format!("`{}`", KEY.0)) && ran.stderr.contains("export"), "{ran}");
}

#[test]
fn an_endpoint_has_no_weights_to_train() {
    let workspace = workspace();
    let train = "[stages.tuned]\nkind = \"train\"\nmodel = \"remote\"\nrows = \"traces\"\n";
    let (url, _) = faulty(|_| Some(good()));
    let ran = run(&workspace, &(pipeline(&format!("{url}#m"), 1, 1) + train));
    assert_eq!(ran.code, Some(1), "{ran}");
    assert!(format!("{ran}").contains("only `sample` can use it"), "{ran}");
}

#[test]
fn a_source_that_is_no_endpoint_is_found_before_anything_runs() {
    let workspace = workspace();
    workspace.write("pipeline.toml", &pipeline("http://user:secret@host/v1#m", 1, 1));
    let ran = workspace.run(["check", "pipeline.toml"]);
    assert_eq!(ran.code, Some(2), "{ran}");
    assert!(ran.stderr.contains("has a user, a password or a query in its URL"), "{ran}");
}

#[test]
fn the_same_seed_gets_the_same_answer_alone_and_among_others() {
    let served = Served::start();
    let body = |seed: u64| json!({ "model": "tiny", "prompt": "def f(a):\n", "max_tokens": 16, "seed": seed });
    let alone = served.completion(&body(1))["choices"].clone();
    let among = thread::scope(|scope| {
        let others: Vec<_> = (1..9)
            .map(|seed| {
                scope.spawn({
                    let served = &served;
                    move || served.completion(&body(seed))
                })
            })
            .collect();
        others.into_iter().map(|other| other.join().expect("an answer")["choices"].clone()).collect::<Vec<_>>()
    });
    assert_eq!(among[0], alone);
    assert!(among[1..].iter().any(|other| *other != alone), "seeds matter: {alone}");

    let mut several = body(1);
    several["n"] = 3.into();
    several["echo"] = true.into();
    several["logprobs"] = 1.into();
    let several = served.completion(&several);
    let first = &several["choices"][0];
    assert_eq!(several["choices"].as_array().map(Vec::len), Some(3));
    assert_eq!(first["text"], format!("def f(a):\n{}", alone[0]["text"].as_str().expect("text")));
    let logprobs = first["logprobs"]["token_logprobs"].as_array().expect("logprobs");
    assert!(logprobs[0].is_null() && logprobs[1..].iter().all(|logprob| logprob.as_f64() <= Some(0.0)), "{first}");
}

#[test]
fn chats_streams_and_errors_have_the_protocols_form() {
    let served = Served::start();
    let models = ureq::get(format!("{}/models", served.url)).call().expect("models").body_mut().read_to_string();
    assert!(models.expect("text").contains("\"id\":\"tiny\""));

    let messages = json!([{ "role": "user", "content": "def f(a):\n" }]);
    let mut chat = json!({ "messages": messages, "max_tokens": 8, "temperature": 0, "logprobs": true });
    let (status, whole) = served.post("/chat/completions", &chat);
    let whole: Value = serde_json::from_str(&whole).expect("JSON");
    assert_eq!(status, 200, "{whole}");
    let message = whole["choices"][0]["message"]["content"].as_str().expect("a message").to_owned();
    let logprobs = whole["choices"][0]["logprobs"]["content"].as_array().expect("logprobs");
    assert_eq!(whole["usage"]["completion_tokens"], logprobs.len());
    chat["stream"] = true.into();
    let (_, events) = served.post("/chat/completions", &chat);
    let events: Vec<&str> = events.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(events.last(), Some(&"[DONE]"));
    let first: Value = serde_json::from_str(events[0]).expect("JSON");
    assert_eq!(first["choices"][0]["delta"]["content"], message);

    let wrong = [
        ("/completions", json!({ "prompt": "x", "model": "other" }), 404, "model_not_found"),
        ("/completions", json!({ "prompt": "x", "max_tokens": 100_000 }), 400, "context_length_exceeded"),
        ("/completions", json!({ "prompt": "x", "temperature": -1 }), 400, "`temperature`"),
        ("/completions", json!({ "prompt": "x", "tools": [1] }), 400, "`tools` is not supported"),
        ("/chat/completions", json!({ "prompt": "x" }), 400, "`messages`"),
        ("/embeddings", json!({}), 404, "/v1/completions"),
    ];
    for (path, body, expected, part) in wrong {
        let (status, text) = served.post(path, &body);
        let error: Value = serde_json::from_str(&text).expect("JSON");
        assert!(status == expected && error["error"].to_string().contains(part), "{status} {text}");
    }
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_the_server_as_asked() {
    let mut served = Served::start();
    // It is up, signals included, once it has drawn.
    served.completion(&json!({ "prompt": "x", "max_tokens": 64 }));
    let process = rustix::process::Pid::from_child(&served.process);
    rustix::process::kill_process(process, rustix::process::Signal::INT).expect("a signal");
    for _ in 0..200 {
        if let Some(status) = served.process.try_wait().expect("a status") {
            assert_eq!(status.code(), Some(0));
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("the server goes on");
}

/// Another's server, e.g. llama-cpp-python's: its URL and model as `URL#model`.
const OTHER: &str = "TRACETUNE_TEST_ENDPOINT";

#[test]
#[expect(clippy::print_stderr, reason = "says that it skipped")]
fn anothers_server_gives_completions() {
    let Ok(source) = std::env::var(OTHER) else {
        eprintln!("skipped: `{OTHER}` names no server");
        return;
    };
    for api in ["completions", "chat"] {
        let workspace = workspace();
        let text = pipeline(&source, 2, 2).replace("timeout_s = 2", "timeout_s = 120");
        let ran = run(&workspace, &text.replace("endpoint = { ", &format!("endpoint = {{ api = \"{api}\", ")));
        assert_eq!(node(&ran.json(), "samples")["rows"], 4, "{ran}");
    }
}
