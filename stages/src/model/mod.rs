//! Kind `model`: brings a base model, or makes a new one.

mod hub;

use std::collections::BTreeMap;
use std::path::Path;

use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracetune_engine::stage::{
    Artifact, Context, Environment, Inputs, Output, Outputs, ParamError, Port, PortType, Setup, StageError, TableStage,
};
use tracetune_kernels::model::{Config, Model, Tokenizer};

use hub::Hub;

use crate::endpoint::{self, Endpoint};
use crate::prompt::FixFormat;
use crate::train::documents::{self, Documents};

/// The files of the embedded model, made by `pipelines/pretrain-tiny.toml`.
const TINY: &[(&str, &[u8])] = &[
    ("config.json", include_bytes!("../../models/tiny/config.json")),
    ("model.safetensors", include_bytes!("../../models/tiny/model.safetensors")),
    ("tokenizer.json", include_bytes!("../../models/tiny/tokenizer.json")),
];

/// What may stand under `kind = "model"`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// `builtin:tiny`, a directory in the Hugging Face layout, a GGUF file, `hf://org/name@revision` from the Hugging Face
    /// Hub (a revision that is a commit never moves), `new`, or `openai:URL#model`: a model behind an API that speaks
    /// OpenAI's protocol, which only `sample` and `resample` can use.
    source: String,
    /// For `openai:URL#model`: how to ask it.
    #[serde(default)]
    endpoint: endpoint::Options,
    /// For `new`: the shape of the decoder.
    #[serde(default)]
    shape: Shape,
    /// For `new`: what the tokenizer is made from, as in kind `train`.
    #[serde(default)]
    documents: Vec<String>,
    /// For `new`: seed of the initial weights; the pipeline's unless given.
    #[serde(default)]
    seed: u64,
}

/// The shape of a new Llama-style decoder.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Shape {
    /// Tokens in the vocabulary (byte-level BPE).
    vocab_size: usize,
    /// Channels.
    hidden_size: usize,
    /// Channels inside the feed-forward layer (SwiGLU).
    intermediate_size: usize,
    /// Layers.
    layers: usize,
    /// Attention heads.
    heads: usize,
    /// Heads of keys and values (grouped-query attention).
    kv_heads: usize,
    /// Longest sequence, in tokens.
    context: usize,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            vocab_size: 768,
            hidden_size: 128,
            intermediate_size: 336,
            layers: 4,
            heads: 4,
            kv_heads: 4,
            context: 640,
        }
    }
}

impl tracetune_engine::stage::Params for Params {
    fn validate(&self) -> Result<(), ParamError> {
        self.source()?;
        let shape = &self.shape;
        let wrong = |message: &str, help: &str| {
            Err(ParamError { param: "shape", message: message.to_owned(), help: Some(help.to_owned()) })
        };
        if shape.heads == 0 || !shape.hidden_size.is_multiple_of(2 * shape.heads) {
            return wrong("`hidden_size` must be a multiple of twice `heads`", "e.g. 128 channels with 4 heads");
        }
        if shape.kv_heads == 0 || !shape.heads.is_multiple_of(shape.kv_heads) {
            return wrong("`heads` must be a multiple of `kv_heads`", "as many of both is plain attention");
        }
        if shape.vocab_size < 300 {
            return wrong("`vocab_size` must be at least 300", "256 bytes, the special tokens, and some merges");
        }
        Ok(())
    }
}

/// Where a model comes from.
enum Source<'a> {
    Tiny,
    New,
    Endpoint(Endpoint),
    Hub(Hub),
    Gguf(&'a str),
    Directory(&'a str),
}

impl Params {
    fn source(&self) -> Result<Source<'_>, ParamError> {
        if let Some(endpoint) = Endpoint::parse(&self.source, &self.endpoint) {
            return endpoint.map(Source::Endpoint);
        }
        if let Some(hub) = Hub::parse(&self.source) {
            return hub.map(Source::Hub);
        }
        Ok(match self.source.as_str() {
            "builtin:tiny" => Source::Tiny,
            "new" => Source::New,
            path if path.ends_with(".gguf") => Source::Gguf(path),
            path => Source::Directory(path),
        })
    }

    /// The same after `validate`.
    fn valid_source(&self) -> Result<Source<'_>, StageError> {
        self.source().map_err(|error| StageError::input(format!("`source` {}", error.message)))
    }
}

/// Brings a model into the pipeline: the embedded one, one from a directory, the Hugging Face Hub or a GGUF file, or a new
/// one with random weights and a tokenizer trained on the port `rows`; or names one behind an API (`openai:URL#model`): nothing is
/// asked of it before `sample`, and what it draws there is recorded, not reproducible.
///
/// # Errors
/// The directory lacks a file, or a file is not what it should be.
pub struct ModelKind;

impl TableStage for ModelKind {
    const KIND: &'static str = "model";
    const VERSION: u32 = 2;
    const ABOUT: &'static str = "brings a base model: the embedded one, a directory, a GGUF file, one of the hub or behind an API, or a new one";
    type Params = Params;

    fn ports() -> Vec<Port> {
        vec![Port {
            name: "rows",
            port_type: PortType::Table(None),
            optional: true,
            about: "for `new`: the rows whose documents the tokenizer is trained on",
        }]
    }

    fn outputs(_: &Params, _: &BTreeMap<String, Option<SchemaRef>>) -> Vec<Output> {
        vec![Output::new("model", PortType::Model)]
    }

    fn environment(params: &Params, setup: &Setup) -> Result<Environment, StageError> {
        match params.valid_source()? {
            Source::Tiny => {
                let files = TINY.iter().map(|(name, bytes)| (*name, blake3::hash(bytes).to_hex().to_string()));
                Ok(files.map(|(name, digest)| (format!("file {name}"), digest)).collect())
            }
            Source::New => {
                params.documents.iter().map(|document| crate::prompt::Template::key_part(document, setup)).collect()
            }
            Source::Endpoint(_) => Ok(Vec::new()),
            Source::Hub(hub) => Ok(vec![("commit".to_owned(), hub.commit()?)]),
            Source::Gguf(path) => Ok(vec![("file gguf".to_owned(), setup.digest_file(path)?)]),
            Source::Directory(directory) => Model::files(&setup.resolve(directory))
                .map_err(failed)?
                .into_iter()
                .map(|name| Ok((format!("file {name}"), setup.digest_file(Path::new(directory).join(name))?)))
                .collect(),
        }
    }

    fn run(params: &Params, inputs: &Inputs, cx: &Context) -> Result<Outputs, StageError> {
        let directory = cx.scratch.join("model");
        fs_err::create_dir_all(&directory)?;
        match params.valid_source()? {
            Source::Tiny => write_tiny(&directory)?,
            Source::New => make(params, inputs, cx)?.save(&directory).map_err(failed)?,
            Source::Endpoint(endpoint) => endpoint.save(&directory)?,
            Source::Hub(hub) => copy(&hub.fetch(Some(cx))?, &directory)?,
            Source::Gguf(path) => {
                Model::load(&cx.root.join(path)).map_err(failed)?.save(&directory).map_err(failed)?;
            }
            Source::Directory(source) => copy(&cx.root.join(source), &directory)?,
        }
        Ok(Outputs::from([("model", Artifact::Directory(directory))]))
    }
}

/// Copies a model's files, if they make a model.
fn copy(source: &Path, directory: &Path) -> Result<(), StageError> {
    for name in Model::files(source).map_err(failed)? {
        fs_err::copy(source.join(&name), directory.join(name))?;
    }
    Model::load(directory).map_err(failed)?;
    Ok(())
}

/// Writes the embedded model's files.
pub(crate) fn write_tiny(directory: &Path) -> std::io::Result<()> {
    TINY.iter().try_for_each(|(name, bytes)| fs_err::write(directory.join(name), bytes))
}

/// The model that a command line names: `builtin:tiny`, one of the hub, a directory or a GGUF file.
///
/// # Errors
/// A file is missing or not what it should be, or the hub does not give it.
pub(crate) fn open(source: &str) -> anyhow::Result<Model> {
    if let Some(hub) = Hub::parse(source) {
        let hub = hub.map_err(|error| anyhow::anyhow!("`{source}` {}", error.message))?;
        return Ok(Model::load(&hub.fetch(None)?)?);
    }
    if source != "builtin:tiny" {
        return Ok(Model::load(Path::new(source))?);
    }
    let directory = tempfile::tempdir()?;
    write_tiny(directory.path())?;
    Ok(Model::load(directory.path())?)
}

/// Documents the tokenizer is trained on at the most.
const TOKENIZER_DOCUMENTS: usize = 20_000;

fn make(params: &Params, inputs: &Inputs, cx: &Context) -> Result<Model, StageError> {
    let rows = inputs.table("rows").ok_or_else(|| {
        StageError::input("a new model needs rows to make its tokenizer from: connect the port `rows`")
    })?;
    let documents = Documents {
        templates: &params.documents,
        trace: true,
        rationale: true,
        fix_format: FixFormat::Edit,
        seed: params.seed,
    };
    let texts: Vec<String> = documents::render(rows, &documents, cx)?
        .into_iter()
        .take(TOKENIZER_DOCUMENTS)
        .map(|document| document.context + &document.target)
        .collect();
    let tokenizer = Tokenizer::train_bpe(texts.iter().map(String::as_str), params.shape.vocab_size).map_err(failed)?;
    let shape = &params.shape;
    let plain =
        Config::llama(tokenizer.vocab_size(), shape.hidden_size, shape.intermediate_size, shape.layers, shape.heads);
    let config = Config { num_key_value_heads: Some(shape.kv_heads), max_position_embeddings: shape.context, ..plain };
    Model::init(config, tokenizer, params.seed).map_err(failed)
}

/// The model at an input port.
///
/// # Errors
/// The directory does not hold a model that the kernels can run, or it stands for an endpoint.
pub fn load(inputs: &Inputs, port: &str) -> Result<Model, StageError> {
    let directory = inputs
        .directory(port)
        .ok_or_else(|| StageError::input(format!("no model is connected to the port `{port}`")))?;
    if let Some(endpoint) = Endpoint::load(directory)? {
        return Err(StageError::input(format!(
            "the model at the port `{port}` is the endpoint `{}`, whose weights are not here: only `sample` can use it",
            endpoint.source()
        )));
    }
    Model::load(directory).map_err(failed)
}

/// A kernel error as a stage error.
pub fn failed(error: tracetune_kernels::Error) -> StageError {
    match error {
        tracetune_kernels::Error::Cancelled => StageError::Cancelled,
        error => StageError::input(error.to_string()),
    }
}
