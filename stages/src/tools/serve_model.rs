//! `tracetune serve-model`: other tools use a model of ours.

use std::path::{Path, PathBuf};

use clap::Args;
use tracetune_cli::tool::{Output, error};
use tracetune_cli::{Tool, exit};
use tracetune_kernels::decode::Decoder;
use tracetune_kernels::model::Model;

use crate::endpoint::chat::Chat;
use crate::endpoint::server::{self, Served};
use crate::sample::Precision;

/// Offer a model to other tools, over OpenAI's HTTP protocol
///
/// Answers /v1/models, /v1/completions and /v1/chat/completions, the latter with the chat template of the model's
/// directory (without one, the messages' contents are the prompt). `seed` makes an answer repeatable. With `stream`
/// each choice comes as one event, once it is whole. Anyone who can reach the address can use it: there is no key.
/// Ctrl-C ends it.
///
/// Examples:
///   tracetune serve-model builtin:tiny
///   tracetune serve-model models/fixer --port 8000
///   curl http://127.0.0.1:8000/v1/completions -d '{"prompt": "def add(a, b):", "max_tokens": 32, "seed": 1}'
#[derive(Args)]
#[command(verbatim_doc_comment)]
struct ServeModel {
    /// `builtin:tiny`, or a directory in the Hugging Face layout
    model: String,
    /// The address to listen at
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// The port to listen at; 0 takes a free one
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// The model's name for clients; the directory's name unless given
    #[arg(long)]
    name: Option<String>,
    /// How the weights are kept: fewer bytes are faster, and rounded
    #[arg(long, value_enum, default_value_t)]
    precision: Precision,
}

pub(super) fn tool() -> Tool {
    Tool::new("serve-model", run)
}

fn run(args: &ServeModel, output: &Output) -> anyhow::Result<u8> {
    let stop = output.interrupt_flag();
    let embedded = tempfile::tempdir()?;
    let (directory, known_as) = match args.model.strip_prefix("builtin:") {
        Some("tiny") => {
            crate::model::write_tiny(embedded.path())?;
            (embedded.path(), "tiny".to_owned())
        }
        Some(other) => return Err(error(format!("there is no embedded model `{other}`"), "there is `builtin:tiny`")),
        None => (Path::new(&args.model), name(&args.model)),
    };
    let model = Model::load(directory).map_err(|cause| {
        error(cause.to_string(), "a directory with config.json, model.safetensors and tokenizer.json")
    })?;
    let chat = Chat::load(directory).map_err(|cause| cause.context("the model's chat template"))?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let decoder = Decoder::new(model, usize::MAX, args.precision.into(), threads)?;
    let served = Served { decoder, name: args.name.clone().unwrap_or(known_as), chat };
    let http = tiny_http::Server::http((args.host.as_str(), args.port)).map_err(|cause| {
        error(format!("can't listen at {}:{}: {cause}", args.host, args.port), "`--port 0` takes a free port")
    })?;
    let address = format!("http://{}/v1", http.server_addr());
    if output.json() {
        output.answer_json(&serde_json::json!({ "url": address, "model": served.name }));
    } else {
        output.answer(format!("{address} serves {}", served.name));
    }
    server::serve(&http, &served, &stop);
    Ok(exit::DONE)
}

/// The last part of a model's path.
fn name(model: &str) -> String {
    let whole = || PathBuf::from(model).canonicalize().ok()?.file_name()?.to_str().map(str::to_owned);
    whole().unwrap_or_else(|| model.to_owned())
}
