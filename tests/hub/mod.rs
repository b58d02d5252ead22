//! Models of the Hugging Face Hub, from a hub on this machine that serves a fixture as the real one serves its models.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use tiny_http::{Header, Response, Server, StatusCode};

use crate::support::{Ran, digests};
use crate::workspace;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TOKEN: &str = "hf_never_write_this_down";
const PIPELINE: &str = "[stages.model]\nkind = \"model\"\nsource = \"hf://org/llama\"\n";

/// A hub; what it was asked for is written down, with the token.
struct Hub {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
    server: Arc<Server>,
}

impl Hub {
    fn start() -> Self {
        let server = Arc::new(Server::http("127.0.0.1:0").expect("a free port"));
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (serving, writing) = (Arc::clone(&server), Arc::clone(&asked));
        thread::spawn(move || {
            for request in serving.incoming_requests() {
                let header = |name: &'static str| {
                    let found = request.headers().iter().find(|header| header.field.equiv(name));
                    found.map(|header| header.value.to_string()).unwrap_or_default()
                };
                writing.lock().expect("the list").push(format!("{} {}", request.url(), header("authorization")));
                let _ = match answer(request.url(), &header("range")) {
                    Some(response) => request.respond(response),
                    None => request.respond(Response::empty(404)),
                };
            }
        });
        Self { url: format!("http://{}", server.server_addr()), asked, server }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().expect("the list"))
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.server.unblock();
    }
}

fn answer(url: &str, range: &str) -> Option<Response<std::io::Cursor<Vec<u8>>>> {
    if url == "/api/models/org/llama/revision/main" {
        return Some(Response::from_string(format!(r#"{{"sha": "{COMMIT}", "siblings": []}}"#)));
    }
    let name = url.strip_prefix(&format!("/org/llama/resolve/{COMMIT}/"))?;
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/models/llama");
    let bytes = std::fs::read(fixture.join(name)).ok()?;
    let (from, to) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')).unwrap_or(("0", ""));
    let from: usize = from.parse().expect("a number");
    let to = to.parse().map_or(bytes.len(), |to: usize| to + 1);
    let header = |name: &str, value: String| Header::from_bytes(name, value).expect("a header");
    let response = Response::from_data(&bytes[from..to])
        .with_status_code(StatusCode(206))
        .with_header(header("Content-Range", format!("bytes {from}-{}/{}", to - 1, bytes.len())))
        .with_header(header("ETag", format!("\"{}\"", blake3::hash(&bytes).to_hex())))
        .with_header(header("X-Repo-Commit", COMMIT.to_owned()));
    Some(response)
}

fn run(workspace: &crate::support::Workspace, hub: &str, cache: &Path, more: &[(&str, &str)]) -> Ran {
    let mut command = workspace.command(["run", "--json"]);
    command.env("HF_ENDPOINT", hub).env("HF_HUB_CACHE", cache).env("HF_TOKEN", TOKEN);
    command.env_remove("HF_HUB_OFFLINE").envs(more.iter().copied());
    workspace.ran(&command.output().expect("the binary starts"))
}

#[test]
fn a_model_of_the_hub_is_fetched_once_and_found_offline() {
    let hub = Hub::start();
    let (workspace, elsewhere) = (workspace(), workspace());
    workspace.write("pipeline.toml", PIPELINE);
    let cache = workspace.path().join("hub");

    let ran = run(&workspace, &hub.url, &cache, &[]);
    assert_eq!(ran.code, Some(0), "{ran}");
    let asked = hub.asked();
    assert!(asked.iter().any(|asked| asked.contains("model.safetensors")), "{asked:?}");
    assert!(asked.iter().all(|asked| asked.ends_with(&format!("Bearer {TOKEN}"))), "{asked:?}");

    // The branch is asked for, nothing is fetched.
    let ran = run(&workspace, &hub.url, &cache, &[]);
    assert_eq!(ran.code, Some(0), "{ran}");
    assert_eq!(hub.asked(), [format!("/api/models/org/llama/revision/main Bearer {TOKEN}")]);

    // Offline, and where the hub is down, another project finds the same model in the hub's cache.
    elsewhere.write("pipeline.toml", PIPELINE);
    for more in [&[("HF_HUB_OFFLINE", "1")][..], &[("HF_ENDPOINT", "http://127.0.0.1:9")]] {
        let ran = run(&elsewhere, &hub.url, &cache, more);
        assert_eq!(ran.code, Some(0), "{ran}");
    }
    assert!(hub.asked().is_empty());
    assert_eq!(digests(&elsewhere), digests(&workspace));

    let store = workspace.path().join(".tracetune");
    for file in walk(&store) {
        let bytes = std::fs::read(&file).expect("a file");
        assert!(!bytes.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes()), "{}", file.display());
    }
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn what_the_hub_does_not_have_is_told() {
    let hub = Hub::start();
    let workspace = workspace();
    let cache = workspace.path().join("hub");
    let told = |source: &str, more: &[(&str, &str)]| {
        workspace.write("pipeline.toml", &PIPELINE.replace("hf://org/llama", source));
        let ran = run(&workspace, &hub.url, &cache, more);
        assert_eq!(ran.code, Some(1), "{ran}");
        let answer = ran.json();
        let node = &answer["nodes"][0];
        node["message"].as_str().expect("a message").replace(&hub.url, "[hub]")
    };
    insta::assert_snapshot!(told("hf://org/other", &[]), @"the hub has no model `org/other` with a revision `main`");
    insta::assert_snapshot!(
        told(&format!("hf://org/other@{COMMIT}"), &[]),
        @"`org/other` has no file `config.json` at `0123456789abcdef0123456789abcdef01234567`"
    );
    insta::assert_snapshot!(
        told("hf://org/other", &[("HF_HUB_OFFLINE", "1")]),
        @"`org/other` at `main` is not in the hub's cache"
    );
}
