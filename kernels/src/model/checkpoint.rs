//! Reading and writing the Hugging Face layout: `config.json`, `model.safetensors`, `tokenizer.json` and small files beside.
//!
//! The same model gives the same bytes. Reading takes float32, bfloat16 and float16, in one file or in shards.

use super::{Config, Layout, Model, Tensor, TokenIds, Tokenizer, check_vocabulary, gguf, layout};
use crate::{Error, Result};
use half::{bf16, f16};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Files that say how a model is used, none of which this crate needs to run it.
const SIDECARS: [&str; 4] =
    ["chat_template.jinja", "generation_config.json", "special_tokens_map.json", "tokenizer_config.json"];

/// The file that says which shard holds which tensor.
const INDEX: &str = "model.safetensors.index.json";

/// The type of stored weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// Four bytes a number: reading gives the same bits back.
    #[default]
    F32,
    /// Two bytes a number, rounded to nearest.
    Bf16,
}

impl Model {
    /// Reads a folder in the Hugging Face layout, or a GGUF file.
    ///
    /// # Errors
    /// An I/O error naming the path; a configuration that is not supported; a tensor that is missing, of another shape or
    /// of a type that is not supported; a file cut short; more tokens in the tokenizer than in the embedding table.
    pub fn load(path: &Path) -> Result<Self> {
        if path.extension().is_some_and(|extension| extension == "gguf") {
            return gguf::load(path);
        }
        let dir = path;
        let path = dir.join("config.json");
        let config = Config::from_json(&fs_err::read(&path)?)
            .map_err(|error| Error::Malformed { path: path.clone(), message: error.to_string() })?;
        let eos = config.eos_token_id.as_ref().and_then(|ids| ids.as_slice().first());
        let tokenizer = Tokenizer::from_bytes(&fs_err::read(dir.join("tokenizer.json"))?, eos.copied())?;
        let ends = config.eos_token_id.as_ref().map(TokenIds::as_slice).unwrap_or_default();
        tokenizer.check_ends(ends).map_err(|message| Error::Malformed { path, message })?;
        let mut sidecars = BTreeMap::new();
        for name in SIDECARS {
            match fs_err::read(dir.join(name)) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                bytes => _ = sidecars.insert(name.to_owned(), bytes?),
            }
        }
        let model = Self::assemble(config, tokenizer, sidecars, dir)?;
        let mut missing: BTreeSet<&str> = model.layout.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
        let mut weights = model.weights;
        for name in shards(dir)? {
            let path = dir.join(name);
            let bytes = fs_err::read(&path)?;
            let malformed = |message: String| Error::Malformed { path: path.clone(), message };
            let file = SafeTensors::deserialize(&bytes).map_err(|error| malformed(error.to_string()))?;
            for tensor in model.layout.tensors() {
                // A model without its head is stored without the first part of the names.
                let short = tensor.name.split_once('.').map_or("", |(_, name)| name);
                let Ok(view) = file.tensor(&tensor.name).or_else(|_| file.tensor(short)) else { continue };
                check_shape(&tensor.name, view.shape(), tensor.stored_shape())?;
                read(&view, tensor, &mut weights[tensor.range()])
                    .map_err(|found| malformed(format!("tensor `{}` is of type {found}, not a float", tensor.name)))?;
                missing.remove(tensor.name.as_str());
            }
        }
        if let Some(tensor) = missing.first() {
            return Err(Error::MissingTensor { path: dir.to_owned(), tensor: (*tensor).to_owned() });
        }
        Ok(Self { weights, ..model })
    }

    /// A model whose weights are all zero so far, for a reader to fill; `path` is what is being read.
    pub(crate) fn assemble(
        config: Config,
        tokenizer: Tokenizer,
        sidecars: BTreeMap<String, Vec<u8>>,
        path: &Path,
    ) -> Result<Self> {
        check_vocabulary(&config, &tokenizer)
            .map_err(|error| Error::Malformed { path: path.to_owned(), message: error.to_string() })?;
        let layout = Layout::new(&config)?;
        let weights = vec![0.0; layout.len()];
        Ok(Self { config, tokenizer, layout, weights, sidecars })
    }

    /// Names the files that hold the weights, where they are more than one.
    pub const INDEX: &str = INDEX;

    /// Files of a model's folder that may be missing.
    pub const SIDECARS: [&str; 4] = SIDECARS;

    /// The files of a model's folder that [`Model::load`] reads: those it must have, then those that happen to be there.
    ///
    /// # Errors
    /// A damaged index of shards.
    pub fn files(dir: &Path) -> Result<Vec<String>> {
        let mut files = vec!["config.json".to_owned()];
        let shards = shards(dir)?;
        let index = (!shards.contains("model.safetensors")).then_some(INDEX);
        files.extend(shards);
        files.push("tokenizer.json".to_owned());
        let present = SIDECARS.into_iter().filter(|name| dir.join(name).exists());
        files.extend(present.chain(index).map(str::to_owned));
        Ok(files)
    }

    /// The Jinja template of a chat with it, if it came with one.
    pub fn chat_template(&self) -> Option<String> {
        if let Some(template) = self.sidecars.get("chat_template.jinja") {
            return String::from_utf8(template.clone()).ok();
        }
        let config: serde_json::Value = serde_json::from_slice(self.sidecars.get("tokenizer_config.json")?).ok()?;
        Some(config.get("chat_template")?.as_str()?.to_owned())
    }

    /// Writes the folder in float32, so that [`Model::load`] gives the same bits back.
    ///
    /// # Errors
    /// An I/O error naming the path.
    pub fn save(&self, dir: &Path) -> Result<()> {
        self.save_as(dir, Dtype::F32)
    }

    /// Writes the folder with weights of the given type.
    ///
    /// # Errors
    /// An I/O error naming the path.
    pub fn save_as(&self, dir: &Path, dtype: Dtype) -> Result<()> {
        fs_err::create_dir_all(dir)?;
        let mut config = self.config.clone();
        let (name, kind) = match dtype {
            Dtype::F32 => ("float32", safetensors::Dtype::F32),
            Dtype::Bf16 => ("bfloat16", safetensors::Dtype::BF16),
        };
        config.torch_dtype = Some(name.into());
        let malformed = |message: String| Error::Malformed { path: dir.to_owned(), message };
        fs_err::write(dir.join("config.json"), config.to_json()?)?;
        fs_err::write(dir.join("tokenizer.json"), self.tokenizer.to_bytes()?)?;
        for (name, bytes) in &self.sidecars {
            fs_err::write(dir.join(name), bytes)?;
        }

        let stored = |tensor: &Tensor| -> Vec<u8> {
            let values = tensor.to_stored(&self.weights[tensor.range()]);
            match dtype {
                Dtype::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
                Dtype::Bf16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
            }
        };
        let stored: Vec<Vec<u8>> = self.layout.tensors().iter().map(stored).collect();
        let views = self.layout.tensors().iter().zip(&stored).map(|(tensor, bytes)| {
            TensorView::new(kind, tensor.stored_shape(), bytes).map(|view| (tensor.name.clone(), view))
        });
        let views = views.collect::<std::result::Result<Vec<_>, _>>().map_err(|error| malformed(error.to_string()))?;
        let metadata = [("format".to_owned(), "pt".to_owned())].into();
        let bytes = safetensors::serialize(views, Some(metadata)).map_err(|error| malformed(error.to_string()))?;
        fs_err::write(dir.join("model.safetensors"), bytes)?;
        Ok(())
    }
}

/// Whether a tensor in a file is of the shape that the configuration asks for.
pub(crate) fn check_shape(tensor: &str, found: &[usize], expected: Vec<usize>) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::Shape { tensor: tensor.to_owned(), found: found.to_vec(), expected })
}

/// The files that hold the weights: one, or those that the index names.
fn shards(dir: &Path) -> Result<BTreeSet<String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let path = dir.join(INDEX);
    if dir.join("model.safetensors").exists() || !path.exists() {
        return Ok(["model.safetensors".to_owned()].into());
    }
    let index: Index = serde_json::from_slice(&fs_err::read(&path)?)
        .map_err(|error| Error::Malformed { path, message: error.to_string() })?;
    Ok(index.weight_map.into_values().collect())
}

/// Widens a stored tensor; gives the name of a type that is not a float.
fn read(view: &TensorView, tensor: &Tensor, values: &mut [f32]) -> std::result::Result<(), String> {
    let bytes = view.data();
    match view.dtype() {
        safetensors::Dtype::F32 => {
            for (value, bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
                *value = f32::from_le_bytes(*bytes);
            }
        }
        safetensors::Dtype::BF16 => {
            for (value, pair) in values.iter_mut().zip(bytes.as_chunks().0) {
                *value = bf16::from_le_bytes(*pair).to_f32();
            }
        }
        safetensors::Dtype::F16 => {
            for (value, pair) in values.iter_mut().zip(bytes.as_chunks().0) {
                *value = f16::from_le_bytes(*pair).to_f32();
            }
        }
        other => return Err(format!("{other:?}")),
    }
    if let ([outputs, inputs], true) = (&tensor.shape[..], tensor.transposed) {
        values.copy_from_slice(&layout::transpose(values, *inputs, *outputs));
    }
    Ok(())
}
