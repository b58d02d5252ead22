//! `config.json` of a decoder, as Hugging Face writes it.

use super::family::Family;
use crate::math;
use crate::ops::attention::Heads;
use crate::ops::rope::Stretch;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Hugging Face `config.json` of a decoder; a family's own names for a field are read and written back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// `["LlamaForCausalLM"]`, or the class of another family.
    #[serde(default = "architectures")]
    pub architectures: Vec<String>,
    /// `"llama"`, `"mistral"`, `"qwen2"`, `"qwen3"`, `"starcoder2"` or `"gpt2"`.
    #[serde(default = "model_type")]
    pub model_type: String,
    /// V, tokens.
    pub vocab_size: usize,
    /// C, channels of the residual stream.
    pub hidden_size: usize,
    /// F, channels of the feed-forward layer.
    pub intermediate_size: usize,
    /// L, layers.
    pub num_hidden_layers: usize,
    /// H, query heads.
    pub num_attention_heads: usize,
    /// K, key and value heads; without it as many as query heads.
    #[serde(default)]
    pub num_key_value_heads: Option<usize>,
    /// D, channels of a head; without it C / H.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    /// Longest sequence.
    #[serde(default = "positions")]
    pub max_position_embeddings: usize,
    /// ε of the norms.
    #[serde(default = "epsilon")]
    pub rms_norm_eps: f32,
    /// Base of the rotary frequencies.
    #[serde(default = "theta")]
    pub rope_theta: f64,
    /// Whether the head is the embedding table.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// The feed-forward layers' function: `"silu"`, or for families without a gate `"gelu_new"`.
    #[serde(default = "activation")]
    pub hidden_act: String,
    /// Token that starts a text, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bos_token_id: Option<u32>,
    /// Token or tokens that end one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eos_token_id: Option<TokenIds>,
    /// Token that fills, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pad_token_id: Option<u32>,
    /// Biases in the attention's layers.
    #[serde(default)]
    pub attention_bias: bool,
    /// Biases in the feed-forward layers.
    #[serde(default)]
    pub mlp_bias: bool,
    /// Biases in both, as StarCoder2 says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub use_bias: Option<bool>,
    /// How rotary frequencies are stretched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<Map<String, Value>>,
    /// The same and the base, as transformers 5 writes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_parameters: Option<Map<String, Value>>,
    /// Tokens that a layer with a window sees, the current one included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sliding_window: Option<usize>,
    /// Whether there are such layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub use_sliding_window: Option<bool>,
    /// The first of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_window_layers: Option<usize>,
    /// For each layer, `"sliding_attention"` or `"full_attention"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer_types: Option<Vec<String>>,
    /// Type of the stored weights.
    #[serde(default, skip_serializing_if = "Option::is_none", alias = "dtype")]
    pub torch_dtype: Option<String>,
    /// What else the file says: kept, and written back.
    #[serde(flatten)]
    pub other: std::collections::BTreeMap<String, Value>,
}

/// Bounds on what a configuration may ask for.
const LARGEST_SIZE: usize = 1 << 30;
const LARGEST_MODEL: f64 = 1e11;

/// One token id or several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TokenIds {
    /// One.
    One(u32),
    /// Several.
    Many(Vec<u32>),
}

impl TokenIds {
    /// All of them.
    pub fn as_slice(&self) -> &[u32] {
        match self {
            Self::One(id) => std::slice::from_ref(id),
            Self::Many(ids) => ids,
        }
    }
}

fn architectures() -> Vec<String> {
    vec!["LlamaForCausalLM".into()]
}
fn model_type() -> String {
    "llama".into()
}
fn positions() -> usize {
    2048
}
fn epsilon() -> f32 {
    1e-6
}
fn theta() -> f64 {
    10_000.0
}
fn activation() -> String {
    "silu".into()
}

impl Config {
    /// A small Llama with tied embeddings; the other fields can be changed afterwards.
    pub fn llama(vocab_size: usize, hidden_size: usize, intermediate_size: usize, layers: usize, heads: usize) -> Self {
        Self {
            architectures: architectures(),
            model_type: model_type(),
            vocab_size,
            hidden_size,
            intermediate_size,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            num_key_value_heads: Some(heads),
            head_dim: None,
            max_position_embeddings: positions(),
            rms_norm_eps: 1e-5,
            rope_theta: theta(),
            tie_word_embeddings: true,
            hidden_act: activation(),
            bos_token_id: None,
            eos_token_id: None,
            pad_token_id: None,
            attention_bias: false,
            mlp_bias: false,
            use_bias: None,
            rope_scaling: None,
            rope_parameters: None,
            sliding_window: None,
            use_sliding_window: None,
            max_window_layers: None,
            layer_types: None,
            torch_dtype: None,
            other: Default::default(),
        }
    }

    /// The attention's heads.
    pub fn heads(&self) -> Heads {
        Heads {
            query: self.num_attention_heads,
            key_value: self.num_key_value_heads.unwrap_or(self.num_attention_heads),
            size: self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1)),
        }
    }

    /// Reads a `config.json` of any family, and checks it.
    ///
    /// # Errors
    /// [`Error::Config`] with what is missing, not supported, or does not fit together.
    pub fn from_json(text: &[u8]) -> Result<Self> {
        let malformed = |error: serde_json::Error| Error::Config(error.to_string());
        Self::from_fields(serde_json::from_slice(text).map_err(malformed)?)
    }

    /// As [`Config::from_json`], from the fields.
    pub(crate) fn from_fields(mut fields: Map<String, Value>) -> Result<Self> {
        let model_type = fields.get("model_type").and_then(Value::as_str).unwrap_or("llama");
        if let Some(family) = Family::find(model_type) {
            family.read(&mut fields)?;
        }
        let mut config: Self =
            serde_json::from_value(Value::Object(fields)).map_err(|error| Error::Config(error.to_string()))?;
        if let Some(theta) = config.rope_parameters.as_ref().and_then(|rope| rope.get("rope_theta")?.as_f64()) {
            config.rope_theta = theta;
        }
        config.check()?;
        Ok(config)
    }

    /// The `config.json`, in the names of its family.
    ///
    /// # Errors
    /// [`Error::Config`] if it is of no family or cannot be written as JSON.
    pub fn to_json(&self) -> Result<String> {
        let text = self.family()?.write(self).map_err(|error| Error::Config(error.to_string()))?;
        Ok(text + "\n")
    }

    /// The family it belongs to.
    pub(crate) fn family(&self) -> Result<&'static Family> {
        let named = |family: &&Family| self.architectures.iter().all(|name| name == family.architecture);
        Family::find(&self.model_type).filter(named).ok_or_else(|| {
            Error::Config(format!(
                "architecture `{}` (model type `{}`) is not supported: only {} are",
                self.architectures.join(", "),
                self.model_type,
                Family::supported()
            ))
        })
    }

    /// How many positions back a layer sees, the current one included.
    pub(crate) fn window(&self, layer: usize) -> usize {
        let sliding = match &self.layer_types {
            Some(types) => types.get(layer).is_some_and(|name| name == "sliding_attention"),
            None => self.use_sliding_window != Some(false) && layer >= self.max_window_layers.unwrap_or(0),
        };
        let windows = sliding && self.family().is_ok_and(|family| family.windows);
        self.sliding_window.filter(|_| windows).unwrap_or(usize::MAX)
    }

    /// How rotary frequencies are stretched.
    ///
    /// # Errors
    /// [`Error::Config`] for a way that is not supported or lacks a number.
    pub(crate) fn stretch(&self) -> Result<Stretch> {
        let Some(rope) = self.rope_parameters.as_ref().or(self.rope_scaling.as_ref()) else { return Ok(Stretch::None) };
        let number = |key: &str| rope.get(key).and_then(Value::as_f64);
        let refuse = |message: String| Error::Config(format!("`rope_scaling`: {message}"));
        let needed = |key: &str| number(key).ok_or_else(|| refuse(format!("`{key}` is missing")));
        let positions = number("original_max_position_embeddings");
        let factor = || match positions {
            Some(positions) => Ok(number("factor").unwrap_or(self.max_position_embeddings as f64 / positions)),
            None => needed("factor"),
        };
        let positions = positions.unwrap_or(self.max_position_embeddings as f64);
        if number("partial_rotary_factor").is_some_and(|part| part != 1.0) {
            return Err(refuse("`partial_rotary_factor` other than 1 is not supported".into()));
        }
        let kind = rope.get("rope_type").or(rope.get("type")).and_then(Value::as_str).unwrap_or("default");
        Ok(match kind {
            "default" => Stretch::None,
            "linear" => Stretch::Linear { factor: needed("factor")? },
            "llama3" => Stretch::Llama3 {
                factor: needed("factor")?,
                low: needed("low_freq_factor")?,
                high: needed("high_freq_factor")?,
                positions,
            },
            "yarn" => {
                let factor = factor()?;
                let length = |scale: Option<f64>| {
                    if factor > 1.0 { 0.1 * scale.unwrap_or(1.0) * math::ln(factor) + 1.0 } else { 1.0 }
                };
                let (all, one) = (number("mscale_all_dim"), number("mscale"));
                let both = one.is_some_and(|scale| scale != 0.0) && all.is_some_and(|scale| scale != 0.0);
                let ratio = if both { length(one) / length(all) } else { length(None) };
                Stretch::Yarn {
                    factor,
                    fast: number("beta_fast").unwrap_or(32.0),
                    slow: number("beta_slow").unwrap_or(1.0),
                    positions,
                    length: number("attention_factor").unwrap_or(ratio),
                    truncate: rope.get("truncate").and_then(Value::as_bool).unwrap_or(true),
                }
            }
            other => return Err(refuse(format!("type `{other}` is not supported: linear, llama3 and yarn are"))),
        })
    }

    /// Whether this crate can run it.
    ///
    /// # Errors
    /// [`Error::Config`] with what is not supported or does not fit together.
    pub fn check(&self) -> Result<()> {
        let refuse = |message: String| Err(Error::Config(message));
        let family = self.family()?;
        if !family.activations.contains(&self.hidden_act.as_str()) {
            let supported = family.activations.join("` or `");
            return refuse(format!("activation `{}` is not supported: only `{supported}` is", self.hidden_act));
        }
        let stretch = self.stretch()?;
        if let Some((name, value)) =
            stretch.numbers().into_iter().find(|(_, value)| !(value.is_finite() && *value > 0.0))
        {
            return refuse(format!("`rope_scaling`: `{name}` is {value}, must be above 0"));
        }
        if !(self.rms_norm_eps > 0.0 && self.rms_norm_eps < 1.0) {
            return refuse(format!("the norms' epsilon is {}, must be between 0 and 1", self.rms_norm_eps));
        }
        if !(self.rope_theta >= 1.0 && self.rope_theta.is_finite()) {
            return refuse(format!("`rope_theta` is {}, must be at least 1", self.rope_theta));
        }
        if self.sliding_window == Some(0) {
            return refuse("`sliding_window` is 0: a token sees itself at least".to_owned());
        }
        let heads = self.heads();
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", heads.query),
            ("num_key_value_heads", heads.key_value),
            ("head_dim", heads.size),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return refuse(format!("`{name}` is zero"));
        }
        // Damaged numbers would otherwise overflow, or ask for more memory than there is.
        let parameters = (self.vocab_size as f64 + self.num_hidden_layers as f64 * self.intermediate_size as f64)
            * self.hidden_size as f64;
        if let Some((name, size)) = sizes.iter().find(|(_, size)| *size > LARGEST_SIZE) {
            return refuse(format!("`{name}` is {size}: more than any model has"));
        }
        if parameters > LARGEST_MODEL {
            return refuse(format!("{parameters:e} parameters are more than this crate can hold"));
        }
        if !heads.query.is_multiple_of(heads.key_value) {
            return refuse(format!("{} query heads cannot share {} key heads", heads.query, heads.key_value));
        }
        if family.names.positions.is_some() && heads.query != heads.key_value {
            return refuse(format!("`{}` has as many key heads as query heads", family.model_type));
        }
        if family.names.positions.is_none() && !heads.size.is_multiple_of(2) {
            return refuse(format!("rotary embeddings need an even head size, not {}", heads.size));
        }
        Ok(())
    }
}
