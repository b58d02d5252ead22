//! A run's state on disk: what is trained, its moments and counters in one safetensors file, `trainer.safetensors`.

use super::{Example, Options};
use crate::model::Model;
use crate::random::mix;
use crate::{Error, Result};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::Path;

const FILE: &str = "trainer.safetensors";

/// How far a run is, and which run it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) fingerprint: String,
    pub(crate) step: usize,
    pub(crate) tokens: u64,
    pub(crate) target_tokens: u64,
    /// β₁ and β₂ to the power of the step, as their bits: a decimal number might not give them back.
    #[serde(with = "as_bits")]
    pub(crate) beta1_power: f64,
    #[serde(with = "as_bits")]
    pub(crate) beta2_power: f64,
    /// The lowest loss of the evaluations, as its bits; and how many came since.
    #[serde(default)]
    pub(crate) best_loss: Option<u64>,
    #[serde(default)]
    pub(crate) since_best: usize,
    /// Whether the run ended early.
    #[serde(default)]
    pub(crate) stopped: bool,
}

impl Progress {
    pub(crate) fn new(fingerprint: String) -> Self {
        Self {
            fingerprint,
            step: 0,
            tokens: 0,
            target_tokens: 0,
            beta1_power: 1.0,
            beta2_power: 1.0,
            best_loss: None,
            since_best: 0,
            stopped: false,
        }
    }
}

mod as_bits {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(value.to_bits())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        u64::deserialize(deserializer).map(f64::from_bits)
    }
}

/// Tells runs apart: a mix of the starting weights, the examples (also those that are only evaluated) and the options. Not
/// a digest against malice.
pub(crate) fn fingerprint(model: &Model, examples: [&[Example]; 2], options: &Options) -> String {
    let mut state = 0u64;
    let mut add = |value: u64| state = mix(state ^ value).wrapping_add(0x9e37_79b9_7f4a_7c15);
    // Written out through its serde form, which leaves the threads out.
    serde_json::to_string(options).unwrap_or_default().bytes().for_each(|byte| add(byte.into()));
    serde_json::to_string(&model.config).unwrap_or_default().bytes().for_each(|byte| add(byte.into()));
    model.weights.iter().for_each(|weight| add(weight.to_bits().into()));
    for example in examples.into_iter().flatten() {
        add(example.prompt as u64);
        add(example.weight.to_bits().into());
        add(example.tokens.len() as u64);
        example.tokens.iter().for_each(|token| add((*token).into()));
    }
    format!("{state:016x}")
}

pub(crate) fn write(dir: &Path, progress: &Progress, arrays: &[(&str, &[f32])]) -> Result<()> {
    fs_err::create_dir_all(dir)?;
    let path = dir.join(FILE);
    let malformed = |message: String| Error::Malformed { path: path.clone(), message };
    let views = arrays.iter().map(|(name, values)| {
        TensorView::new(Dtype::F32, vec![values.len()], bytemuck::cast_slice(values)).map(|view| (*name, view))
    });
    let views = views.collect::<std::result::Result<Vec<_>, _>>().map_err(|error| malformed(error.to_string()))?;
    let text = serde_json::to_string(progress).map_err(|error| malformed(error.to_string()))?;
    let metadata = [("progress".to_owned(), text)].into();
    let bytes = safetensors::serialize(views, Some(metadata)).map_err(|error| malformed(error.to_string()))?;
    let temporary = dir.join(format!("{FILE}.partial"));
    let mut file = fs_err::File::create(&temporary)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    drop(file);
    fs_err::rename(&temporary, &path)?;
    // The rename is safe from a crash once the folder is on disk as well; not every system can open one.
    if let Ok(folder) = fs_err::File::open(dir) {
        folder.sync_all().ok();
    }
    Ok(())
}

/// Fills `arrays`, or none of them.
pub(crate) fn read(dir: &Path, fingerprint: &str, arrays: &mut [(&str, &mut [f32])]) -> Result<Option<Progress>> {
    let path = dir.join(FILE);
    let bytes = match fs_err::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let malformed = |message: String| Error::Malformed { path: path.clone(), message };
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| malformed(error.to_string()))?;
    let text = metadata.metadata().as_ref().and_then(|metadata| metadata.get("progress"));
    let text = text.ok_or_else(|| malformed("no progress in its metadata".into()))?;
    let progress: Progress = serde_json::from_str(text).map_err(|error| malformed(error.to_string()))?;
    if progress.fingerprint != fingerprint {
        return Err(malformed("it belongs to a run with another model, other examples or other options".into()));
    }
    let file = SafeTensors::deserialize(&bytes).map_err(|error| malformed(error.to_string()))?;
    let stored: Vec<_> = arrays.iter().map(|(name, _)| file.tensor(name)).collect();
    for ((_, values), view) in arrays.iter().zip(&stored) {
        let fits = view.as_ref().is_ok_and(|view| view.dtype() == Dtype::F32 && view.shape() == [values.len()]);
        if !fits {
            return Err(malformed("it lacks an array of the right length".into()));
        }
    }
    for ((_, values), view) in arrays.iter_mut().zip(stored.into_iter().flatten()) {
        for (value, bytes) in values.iter_mut().zip(view.data().as_chunks().0) {
            *value = f32::from_le_bytes(*bytes);
        }
    }
    Ok(Some(progress))
}
