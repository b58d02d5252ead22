//! `config.json` of a Llama-style decoder, as Hugging Face writes it.

use crate::ops::attention::Heads;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Hugging Face `config.json` of a Llama-style decoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// `["LlamaForCausalLM"]`.
    #[serde(default = "architectures")]
    pub architectures: Vec<String>,
    /// `"llama"`.
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
    /// The gate's function: `"silu"`.
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
    /// Biases in the attention's layers: not supported.
    #[serde(default)]
    pub attention_bias: bool,
    /// Biases in the feed-forward layers: not supported.
    #[serde(default)]
    pub mlp_bias: bool,
    /// Stretched positions: not supported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<serde_json::Value>,
    /// Type of the stored weights.
    #[serde(default, skip_serializing_if = "Option::is_none", alias = "dtype")]
    pub torch_dtype: Option<String>,
}

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
            rope_scaling: None,
            torch_dtype: None,
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

    /// Whether this crate can run it.
    ///
    /// # Errors
    /// [`Error::Config`] with what is not supported or does not fit together.
    pub fn check(&self) -> Result<()> {
        let refuse = |message: String| Err(Error::Config(message));
        if self.model_type != "llama" || self.architectures.iter().any(|name| name != "LlamaForCausalLM") {
            return refuse(format!(
                "architecture `{}` (model type `{}`) is not supported: only `LlamaForCausalLM` is",
                self.architectures.join(", "),
                self.model_type
            ));
        }
        if self.hidden_act != "silu" {
            return refuse(format!("activation `{}` is not supported: only `silu` is", self.hidden_act));
        }
        if self.attention_bias || self.mlp_bias {
            return refuse("layers with biases are not supported".into());
        }
        if self.rope_scaling.is_some() {
            return refuse("`rope_scaling` is not supported".into());
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
        if !heads.query.is_multiple_of(heads.key_value) {
            return refuse(format!("{} query heads cannot share {} key heads", heads.query, heads.key_value));
        }
        if !heads.size.is_multiple_of(2) {
            return refuse(format!("rotary embeddings need an even head size, not {}", heads.size));
        }
        Ok(())
    }
}
