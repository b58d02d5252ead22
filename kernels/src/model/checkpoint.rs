//! Reading and writing the Hugging Face layout: `config.json`, `model.safetensors`, `tokenizer.json` and small files beside.
//!
//! The same model gives the same bytes. Reading takes float32, bfloat16 and float16, in one file or in shards.

use super::shards::{self, INDEX, Shards};
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
        if let Some(message) = shards::what_else(dir) {
            return Err(Error::Malformed { path: dir.to_owned(), message });
        }
        let path = dir.join("config.json");
        let config = Config::from_json(&file_of(dir, "config.json")?)
            .map_err(|error| Error::Malformed { path: path.clone(), message: error.to_string() })?;
        let shards = Shards::open(dir)?;
        check_layers(&config, shards.tensors.len())
            .map_err(|error| Error::Malformed { path: path.clone(), message: error.to_string() })?;
        let eos = config.eos_token_id.as_ref().and_then(|ids| ids.as_slice().first());
        let tokenizer = Tokenizer::from_bytes(&file_of(dir, "tokenizer.json")?, eos.copied())?;
        let mut sidecars = BTreeMap::new();
        for name in SIDECARS.into_iter().filter(|name| dir.join(name).exists()) {
            sidecars.insert(name.to_owned(), file_of(dir, name)?);
        }
        let layout = Layout::new(&config)?;
        let stored = stored_tensors(&layout, &shards, dir)?;
        let mut model = Self::assemble(config, tokenizer, layout, sidecars, dir)?;
        // The embedding table may be in a later shard than a head that is tied to it.
        let tied_head = shards.tensors.get(LM_HEAD).filter(|_| model.config.tie_word_embeddings);
        let mut head = Vec::new();
        for (place, name) in shards.names.iter().enumerate() {
            let path = dir.join(name);
            let bytes = fs_err::read(&path)?;
            let malformed = |message: String| Error::Malformed { path: path.clone(), message };
            let file = SafeTensors::deserialize(&bytes).map_err(|error| malformed(error.to_string()))?;
            let tensors = model.layout.tensors().iter().zip(&stored);
            for (tensor, name) in tensors.filter(|(_, name)| shards.tensors[name.as_str()].0 == place) {
                let view = file.tensor(name).map_err(|error| malformed(error.to_string()))?;
                let values = &mut model.weights[tensor.range()];
                read(&view, tensor, values).map_err(malformed)?;
                check_finite(name, values).map_err(malformed)?;
            }
            if tied_head.is_some_and(|(at, _)| *at == place) {
                head = head_like_embedding(&file, &model).map_err(malformed)?;
            }
        }
        if tied_head.is_some() && head != model.weights[model.layout.embedding.clone()] {
            let message = format!(
                "`{LM_HEAD}` is stored with other numbers than the embedding table, to which `tie_word_embeddings` ties it: \
                 set it to false in config.json, or take the tensor out"
            );
            return Err(Error::Malformed { path: dir.to_owned(), message });
        }
        Ok(model)
    }

    /// A model whose weights are all zero so far, for a reader to fill, once it is known that all of them are stored; `path` is
    /// what is being read.
    pub(crate) fn assemble(
        config: Config,
        tokenizer: Tokenizer,
        layout: Layout,
        sidecars: BTreeMap<String, Vec<u8>>,
        path: &Path,
    ) -> Result<Self> {
        let malformed = |message: String| Error::Malformed { path: path.to_owned(), message };
        check_vocabulary(&config, &tokenizer).map_err(|error| malformed(error.to_string()))?;
        let ends = config.eos_token_id.as_ref().map(TokenIds::as_slice).unwrap_or_default();
        tokenizer.check_ends(ends).map_err(malformed)?;
        check_memory(layout.len()).map_err(malformed)?;
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
        if let Some(message) = shards::what_else(dir) {
            return Err(Error::Malformed { path: dir.to_owned(), message });
        }
        let mut files = vec!["config.json".to_owned()];
        let shards = shards::names(dir)?;
        let index = (shards != [shards::SINGLE]).then_some(INDEX);
        files.extend(shards);
        files.push("tokenizer.json".to_owned());
        let present = SIDECARS.into_iter().filter(|name| dir.join(name).exists());
        files.extend(present.chain(index).map(str::to_owned));
        for name in files.iter().filter(|name| dir.join(name).exists()) {
            shards::check_inside(dir, name)?;
        }
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
    /// An I/O error naming the path; a weight that is no finite number, so that a model that diverged in its last step is no
    /// result.
    pub fn save_as(&self, dir: &Path, dtype: Dtype) -> Result<()> {
        for (name, _, values) in self.tensors() {
            let rounds = |value: &f32| bf16::from_f32(*value).to_f32().is_finite();
            check_finite(name, values)
                .and_then(|()| match dtype == Dtype::F32 || values.iter().all(rounds) {
                    true => Ok(()),
                    false => Err(format!("tensor `{name}` holds a number that bfloat16 can't hold")),
                })
                .map_err(|message| Error::Malformed { path: dir.to_owned(), message })?;
        }
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

/// A file of the folder.
fn file_of(dir: &Path, name: &str) -> Result<Vec<u8>> {
    shards::check_inside(dir, name)?;
    Ok(fs_err::read(dir.join(name))?)
}

/// That a configuration does not ask for more layers than there are tensors: each has several.
pub(crate) fn check_layers(config: &Config, tensors: usize) -> Result<()> {
    if config.num_hidden_layers <= tensors {
        return Ok(());
    }
    Err(Error::Config(format!("`num_hidden_layers` is {}, and {tensors} tensors are stored", config.num_hidden_layers)))
}

/// The name under which each tensor of the layout is stored: all are there, of their shapes, and nothing else is.
fn stored_tensors(layout: &Layout, shards: &Shards, dir: &Path) -> Result<Vec<String>> {
    let mut unused: BTreeSet<&str> = shards.tensors.keys().map(String::as_str).collect();
    let mut stored = Vec::with_capacity(layout.tensors().len());
    for tensor in layout.tensors() {
        // A model without its head is stored without the first part of the names.
        let short = tensor.name.split_once('.').map_or("", |(_, name)| name);
        let found = shards.tensors.get_key_value(&tensor.name).or_else(|| shards.tensors.get_key_value(short));
        let Some((name, (_, info))) = found else {
            return Err(Error::MissingTensor { path: dir.to_owned(), tensor: tensor.name.clone() });
        };
        check_shape(&tensor.name, &info.shape, tensor.stored_shape())?;
        unused.remove(name.as_str());
        stored.push(name.clone());
    }
    match unused.into_iter().find(|name| !is_known_buffer(name)) {
        Some(name) => Err(Error::Malformed {
            path: dir.to_owned(),
            message: format!(
                "the configuration has no use for the stored tensor `{name}`: another model is meant by one of them"
            ),
        }),
        None => Ok(stored),
    }
}

/// The head's name.
const LM_HEAD: &str = "lm_head.weight";

/// Tensors that are stored beside a model's and hold nothing of it: frequencies and masks that are computed from the
/// configuration, and a head that may be the embedding table again.
fn is_known_buffer(name: &str) -> bool {
    name == LM_HEAD
        || name.ends_with(".rotary_emb.inv_freq")
        || [".attn.bias", ".attn.masked_bias"].iter().any(|end| name.ends_with(end))
}

/// The numbers of a head that is stored although it is tied to the embedding table, of whose shape it must be.
fn head_like_embedding(file: &SafeTensors, model: &Model) -> std::result::Result<Vec<f32>, String> {
    let view = file.tensor(LM_HEAD).map_err(|error| error.to_string())?;
    let mut table = model.layout.tensors()[0].clone();
    if view.shape() != table.stored_shape() {
        let (found, expected) = (view.shape(), table.stored_shape());
        return Err(format!("`{LM_HEAD}` has shape {found:?}, the embedding table {expected:?}"));
    }
    let mut head = vec![0.0; model.layout.embedding.len()];
    LM_HEAD.clone_into(&mut table.name);
    read(&view, &table, &mut head)?;
    Ok(head)
}

/// That all numbers are numbers.
pub(crate) fn check_finite(name: &str, values: &[f32]) -> std::result::Result<(), String> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(at) => Err(format!("tensor `{name}` holds {} at {at}: a weight is a finite number", values[at])),
        None => Ok(()),
    }
}

/// The memory of this machine in bytes, where the system tells.
fn machine_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// That so many weights in float32 fit into this machine's memory.
fn check_memory(weights: usize) -> std::result::Result<(), String> {
    let needed = weights as f64 * 4.0;
    match machine_memory() {
        Some(there) if needed > there as f64 => {
            let gigabytes = |bytes: f64| bytes / 1e9;
            Err(format!(
                "its {:.1} billion weights need {:.0} GB of memory in float32, {:.0} GB are there",
                weights as f64 / 1e9,
                gigabytes(needed).ceil(),
                gigabytes(there as f64)
            ))
        }
        _ => Ok(()),
    }
}

/// Widens a stored tensor. What is wrong if it is of a type that is not read.
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
        other => {
            return Err(format!("tensor `{}` is of type {other:?}: F32, BF16 and F16 are read", tensor.name));
        }
    }
    if let ([outputs, inputs], true) = (&tensor.shape[..], tensor.transposed) {
        values.copy_from_slice(&layout::transpose(values, *inputs, *outputs));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_diverged_is_not_written() {
        let tokenizer = Tokenizer::train_bpe(["a b"; 9].into_iter(), 260).unwrap();
        let mut model = Model::init(Config::llama(tokenizer.vocab_size(), 8, 8, 1, 1), tokenizer, 1).unwrap();
        let folder = tempfile::tempdir().unwrap();
        for (weight, dtype) in [(f32::NAN, Dtype::F32), (f32::INFINITY, Dtype::Bf16), (f32::MAX, Dtype::Bf16)] {
            model.weights[3] = weight;
            let error = model.save_as(&folder.path().join("model"), dtype).unwrap_err().to_string();
            assert!(error.contains("tensor `model.embed_tokens.weight` holds "), "{error}");
        }
        assert!(!folder.path().join("model").exists());
        assert!(model.save(&folder.path().join("model")).is_ok());
    }
}
