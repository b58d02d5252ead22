//! Reading and writing the Hugging Face layout: `config.json`, `model.safetensors`, `tokenizer.json`.
//!
//! The same model gives the same bytes. Reading takes float32, bfloat16 and float16, in one file or in shards.

use super::{Config, Layout, Model, Tokenizer};
use crate::{Error, Result};
use half::{bf16, f16};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

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
    /// Reads a folder in the Hugging Face layout.
    ///
    /// # Errors
    /// An I/O error naming the path; a configuration that is not supported; a tensor that is missing, of another shape or
    /// of a type that is not a float; a file cut short.
    pub fn load(dir: &Path) -> Result<Self> {
        let path = dir.join("config.json");
        let config: Config = serde_json::from_slice(&fs_err::read(&path)?)
            .map_err(|error| Error::Malformed { path, message: error.to_string() })?;
        config.check()?;
        let mut tokenizer = Tokenizer::from_bytes(&fs_err::read(dir.join("tokenizer.json"))?)?;
        if let Some(eos) = config.eos_token_id.as_ref().and_then(|ids| ids.as_slice().first()) {
            tokenizer = tokenizer.with_eos(*eos);
        }
        let layout = Layout::new(&config);
        let mut weights = vec![0.0; layout.len()];
        let mut missing: BTreeSet<&str> = layout.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
        for name in shards(dir)? {
            let path = dir.join(name);
            let bytes = fs_err::read(&path)?;
            let file = SafeTensors::deserialize(&bytes)
                .map_err(|error| Error::Malformed { path: path.clone(), message: error.to_string() })?;
            for tensor in layout.tensors() {
                let Ok(view) = file.tensor(&tensor.name) else { continue };
                if view.shape() != tensor.shape {
                    return Err(Error::Shape {
                        tensor: tensor.name.clone(),
                        found: view.shape().to_vec(),
                        expected: tensor.shape.clone(),
                    });
                }
                read(&view, &mut weights[tensor.range()]).map_err(|found| Error::Malformed {
                    path: path.clone(),
                    message: format!("tensor `{}` is of type {found}, not a float", tensor.name),
                })?;
                missing.remove(tensor.name.as_str());
            }
        }
        if let Some(tensor) = missing.first() {
            return Err(Error::MissingTensor { path: dir.to_owned(), tensor: (*tensor).to_owned() });
        }
        Ok(Self { config, tokenizer, layout, weights })
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
        let mut text = serde_json::to_string_pretty(&config).map_err(|error| malformed(error.to_string()))?;
        text.push('\n');
        fs_err::write(dir.join("config.json"), text)?;
        fs_err::write(dir.join("tokenizer.json"), self.tokenizer.to_bytes()?)?;

        let stored: Vec<Vec<u8>> = self
            .tensors()
            .map(|(_, _, values)| match dtype {
                Dtype::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
                Dtype::Bf16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
            })
            .collect();
        let views = self.tensors().zip(&stored).map(|((name, shape, _), bytes)| {
            TensorView::new(kind, shape.to_vec(), bytes).map(|view| (name.to_owned(), view))
        });
        let views = views.collect::<std::result::Result<Vec<_>, _>>().map_err(|error| malformed(error.to_string()))?;
        let metadata = [("format".to_owned(), "pt".to_owned())].into();
        let bytes = safetensors::serialize(views, Some(metadata)).map_err(|error| malformed(error.to_string()))?;
        fs_err::write(dir.join("model.safetensors"), bytes)?;
        Ok(())
    }
}

/// The files that hold the weights: one, or those that the index names.
fn shards(dir: &Path) -> Result<BTreeSet<String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let path = dir.join("model.safetensors.index.json");
    if dir.join("model.safetensors").exists() || !path.exists() {
        return Ok(["model.safetensors".to_owned()].into());
    }
    let index: Index = serde_json::from_slice(&fs_err::read(&path)?)
        .map_err(|error| Error::Malformed { path, message: error.to_string() })?;
    Ok(index.weight_map.into_values().collect())
}

/// Widens a stored tensor; gives the name of a type that is not a float.
fn read(view: &TensorView, values: &mut [f32]) -> std::result::Result<(), String> {
    let bytes = view.data();
    match view.dtype() {
        safetensors::Dtype::F32 => {
            for (value, [a, b, c, d]) in values.iter_mut().zip(bytes.as_chunks().0) {
                *value = f32::from_le_bytes([*a, *b, *c, *d]);
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
    Ok(())
}
