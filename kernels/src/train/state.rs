//! A run's state as bytes: what is trained, its moments and counters in the safetensors format.

use super::{Example, Options};
use crate::model::Model;
use crate::random::mix;
use crate::{Error, Result};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

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

fn malformed(error: impl std::fmt::Display) -> Error {
    Error::Malformed { path: "checkpoint".into(), message: error.to_string() }
}

pub(crate) fn to_bytes(progress: &Progress, arrays: &[(&str, &[f32])]) -> Result<Vec<u8>> {
    let views = arrays.iter().map(|(name, values)| {
        TensorView::new(Dtype::F32, vec![values.len()], bytemuck::cast_slice(values)).map(|view| (*name, view))
    });
    let views = views.collect::<std::result::Result<Vec<_>, _>>().map_err(malformed)?;
    let text = serde_json::to_string(progress).map_err(malformed)?;
    let metadata = [("progress".to_owned(), text)].into();
    safetensors::serialize(views, Some(metadata)).map_err(malformed)
}

/// Fills `arrays`, or none of them.
pub(crate) fn from_bytes(bytes: &[u8], fingerprint: &str, arrays: &mut [(&str, &mut [f32])]) -> Result<Progress> {
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(malformed)?;
    let text = metadata.metadata().as_ref().and_then(|metadata| metadata.get("progress"));
    let text = text.ok_or_else(|| malformed("no progress in its metadata"))?;
    let progress: Progress = serde_json::from_str(text).map_err(malformed)?;
    if progress.fingerprint != fingerprint {
        return Err(malformed("it belongs to a run with another model, other examples or other options"));
    }
    let file = SafeTensors::deserialize(bytes).map_err(malformed)?;
    let stored: Vec<_> = arrays.iter().map(|(name, _)| file.tensor(name)).collect();
    for ((_, values), view) in arrays.iter().zip(&stored) {
        let fits = view.as_ref().is_ok_and(|view| view.dtype() == Dtype::F32 && view.shape() == [values.len()]);
        if !fits {
            return Err(malformed("it lacks an array of the right length"));
        }
    }
    for ((_, values), view) in arrays.iter_mut().zip(stored.into_iter().flatten()) {
        for (value, bytes) in values.iter_mut().zip(view.data().as_chunks().0) {
            *value = f32::from_le_bytes(*bytes);
        }
    }
    Ok(progress)
}
