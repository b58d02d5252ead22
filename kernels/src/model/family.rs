//! The families of decoders: what differs between them, as data. One network runs them all.

use super::Config;
use crate::{Error, Result};
use serde_json::{Map, Value, json};

/// A family: how its configuration and its tensors are called, and which parts its layers have.
#[derive(Debug)]
pub(crate) struct Family {
    /// `model_type` in `config.json`.
    pub(crate) model_type: &'static str,
    /// Its class in transformers.
    pub(crate) architecture: &'static str,
    /// Where its configuration has another name for a field of [`Config`]: (its, ours).
    keys: &'static [(&'static str, &'static str)],
    /// Fields of [`Config`] that its configuration lacks.
    absent: &'static [&'static str],
    /// What a configuration means that leaves a field out, as JSON.
    defaults: &'static [(&'static str, &'static str)],
    /// Settings that change the arithmetic, with the only value supported, as JSON.
    fixed: &'static [(&'static str, &'static str)],
    /// The feed-forward layers' functions that it may ask for.
    pub(crate) activations: &'static [&'static str],
    /// Norms subtract the mean and have a bias (LayerNorm); else RMSNorm.
    pub(crate) layer_norm: bool,
    /// Query, key and value have biases whatever the configuration says.
    pub(crate) qkv_bias: bool,
    /// Queries and keys are normed, head by head.
    pub(crate) query_key_norm: bool,
    /// Whether `sliding_window` counts.
    pub(crate) windows: bool,
    /// Matrices are stored as (inputs, outputs).
    pub(crate) transposed: bool,
    /// Names of its tensors, without `.weight` and `.bias`.
    pub(crate) names: &'static Names,
}

/// Names of tensors; those of a layer come after `layer` and its number.
#[derive(Debug)]
pub(crate) struct Names {
    pub(crate) embedding: &'static str,
    /// A table of learned positions, for a family without rotations.
    pub(crate) positions: Option<&'static str>,
    pub(crate) layer: &'static str,
    pub(crate) attention_norm: &'static str,
    /// Query, key and value, or one tensor of all three.
    pub(crate) qkv: &'static [&'static str],
    pub(crate) output: &'static str,
    pub(crate) mlp_norm: &'static str,
    /// Gate and up; up alone in a feed-forward layer without a gate.
    pub(crate) up: &'static [&'static str],
    pub(crate) down: &'static str,
    pub(crate) norm: &'static str,
}

const LLAMA_NAMES: Names = Names {
    embedding: "model.embed_tokens",
    positions: None,
    layer: "model.layers",
    attention_norm: "input_layernorm",
    qkv: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    output: "self_attn.o_proj",
    mlp_norm: "post_attention_layernorm",
    up: &["mlp.gate_proj", "mlp.up_proj"],
    down: "mlp.down_proj",
    norm: "model.norm",
};

const LLAMA: Family = Family {
    model_type: "llama",
    architecture: "LlamaForCausalLM",
    keys: &[],
    absent: &[],
    defaults: &[],
    fixed: &[("partial_rotary_factor", "1.0")],
    activations: &["silu"],
    layer_norm: false,
    qkv_bias: false,
    query_key_norm: false,
    windows: false,
    transposed: false,
    names: &LLAMA_NAMES,
};

/// All of them.
const FAMILIES: [Family; 6] = [
    LLAMA,
    Family {
        model_type: "mistral",
        architecture: "MistralForCausalLM",
        defaults: &[("sliding_window", "4096")],
        windows: true,
        ..LLAMA
    },
    Family {
        model_type: "qwen2",
        architecture: "Qwen2ForCausalLM",
        defaults: &[("use_sliding_window", "false"), ("max_window_layers", "28")],
        qkv_bias: true,
        windows: true,
        ..LLAMA
    },
    Family {
        model_type: "qwen3",
        architecture: "Qwen3ForCausalLM",
        defaults: &[("use_sliding_window", "false"), ("max_window_layers", "28"), ("head_dim", "128")],
        query_key_norm: true,
        windows: true,
        ..LLAMA
    },
    Family {
        model_type: "starcoder2",
        architecture: "Starcoder2ForCausalLM",
        keys: &[("norm_epsilon", "rms_norm_eps")],
        absent: &["attention_bias", "mlp_bias"],
        defaults: &[
            ("use_bias", "true"),
            ("tie_word_embeddings", "true"),
            ("rms_norm_eps", "1e-5"),
            ("hidden_act", "\"gelu_pytorch_tanh\""),
        ],
        activations: &["gelu_pytorch_tanh", "gelu_new"],
        layer_norm: true,
        windows: true,
        names: &Names { up: &["mlp.c_fc"], down: "mlp.c_proj", ..LLAMA_NAMES },
        ..LLAMA
    },
    Family {
        model_type: "gpt2",
        architecture: "GPT2LMHeadModel",
        keys: &[
            ("n_embd", "hidden_size"),
            ("n_layer", "num_hidden_layers"),
            ("n_head", "num_attention_heads"),
            ("n_positions", "max_position_embeddings"),
            ("n_inner", "intermediate_size"),
            ("activation_function", "hidden_act"),
            ("layer_norm_epsilon", "rms_norm_eps"),
        ],
        absent: &["attention_bias", "mlp_bias", "use_bias", "rope_theta", "num_key_value_heads"],
        defaults: &[
            ("use_bias", "true"),
            ("tie_word_embeddings", "true"),
            ("rms_norm_eps", "1e-5"),
            ("max_position_embeddings", "1024"),
            ("hidden_act", "\"gelu_new\""),
        ],
        fixed: &[("scale_attn_weights", "true"), ("scale_attn_by_inverse_layer_idx", "false")],
        activations: &["gelu_new", "gelu_pytorch_tanh"],
        layer_norm: true,
        transposed: true,
        names: &Names {
            embedding: "transformer.wte",
            positions: Some("transformer.wpe"),
            layer: "transformer.h",
            attention_norm: "ln_1",
            qkv: &["attn.c_attn"],
            output: "attn.c_proj",
            mlp_norm: "ln_2",
            up: &["mlp.c_fc"],
            down: "mlp.c_proj",
            norm: "transformer.ln_f",
        },
        ..LLAMA
    },
];

impl Family {
    /// The one of this `model_type`.
    pub(crate) fn find(model_type: &str) -> Option<&'static Self> {
        const ALL: &[Family] = &FAMILIES;
        ALL.iter().find(|family| family.model_type == model_type)
    }

    /// All architectures, for messages.
    pub(crate) fn supported() -> String {
        FAMILIES.map(|family| format!("`{}`", family.architecture)).join(", ")
    }

    /// Whether feed-forward layers have a gate.
    pub(crate) fn gated(&self) -> bool {
        self.names.up.len() == 2
    }

    /// Gives a configuration the field names of [`Config`], and what it leaves out.
    ///
    /// # Errors
    /// [`Error::Config`] for a setting whose arithmetic is not supported.
    pub(crate) fn read(&self, fields: &mut Map<String, Value>) -> Result<()> {
        for (theirs, ours) in self.keys {
            if let Some(value) = fields.remove(*theirs) {
                fields.insert((*ours).to_owned(), value);
            }
        }
        if fields.contains_key("torch_dtype") {
            fields.remove("dtype");
        }
        for (key, supported) in self.fixed {
            let only: Option<Value> = supported.parse().ok();
            if let Some(value) = fields.get(*key).filter(|value| !value.is_null() && only.as_ref() != Some(value)) {
                return Err(Error::Config(format!("`{key}` = {value} is not supported: only {supported} is")));
            }
        }
        for (key, default) in self.defaults {
            fields.entry(*key).or_insert_with(|| default.parse().unwrap_or_default());
        }
        fields.retain(|_, value| !value.is_null());
        if self.model_type == "gpt2" && !fields.contains_key("intermediate_size") {
            let width = fields.get("hidden_size").and_then(Value::as_u64).map(|channels| json!(4 * channels));
            fields.extend(width.map(|width| ("intermediate_size".to_owned(), width)));
        }
        Ok(())
    }

    /// The configuration as the family writes it.
    pub(crate) fn write(&self, config: &Config) -> serde_json::Result<String> {
        if self.keys.is_empty() {
            return serde_json::to_string_pretty(config);
        }
        let Value::Object(mut fields) = serde_json::to_value(config)? else { return Ok(String::new()) };
        fields.retain(|key, _| !self.absent.contains(&key.as_str()));
        for (theirs, ours) in self.keys {
            if let Some(value) = fields.remove(*ours) {
                fields.insert((*theirs).to_owned(), value);
            }
        }
        serde_json::to_string_pretty(&fields)
    }
}
