//! Reading a GGUF file, the format of llama.cpp: its metadata become a configuration and a tokenizer, its tensors float32.
//!
//! <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>

mod file;
mod quants;
mod vocabulary;

use super::checkpoint::{check_finite, check_layers, check_shape};
use super::family::Family;
use super::{Config, Layout, Model};
use crate::ops::rope::Stretch;
use crate::{Error, Result};
use file::File;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Parts of names: Hugging Face's, and GGUF's.
const NAMES: [(&str, &str); 23] = [
    ("model.embed_tokens", "token_embd"),
    ("transformer.wte", "token_embd"),
    ("transformer.wpe", "position_embd"),
    ("model.norm", "output_norm"),
    ("transformer.ln_f", "output_norm"),
    ("lm_head", "output"),
    ("input_layernorm", "attn_norm"),
    ("ln_1", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("attn.c_attn", "attn_qkv"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("self_attn.o_proj", "attn_output"),
    ("attn.c_proj", "attn_output"),
    ("post_attention_layernorm", "ffn_norm"),
    ("ln_2", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.c_fc", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("mlp.c_proj", "ffn_down"),
];

/// Fields of a configuration, and the metadata they come from, after the architecture's name.
const FIELDS: [(&str, &str); 11] = [
    ("hidden_size", "embedding_length"),
    ("intermediate_size", "feed_forward_length"),
    ("num_hidden_layers", "block_count"),
    ("num_attention_heads", "attention.head_count"),
    ("num_key_value_heads", "attention.head_count_kv"),
    ("head_dim", "attention.key_length"),
    ("max_position_embeddings", "context_length"),
    ("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
    ("rms_norm_eps", "attention.layer_norm_epsilon"),
    ("rope_theta", "rope.freq_base"),
    ("sliding_window", "attention.sliding_window"),
];

/// What Llama 3.1's rotary frequencies are divided by.
const FACTORS: &str = "rope_freqs.weight";

/// See [`Model::load`].
pub(crate) fn load(path: &Path) -> Result<Model> {
    let bytes = fs_err::read(path)?;
    read(&bytes, path).map_err(|error| match error {
        Error::Config(message) | Error::Tokenizer(message) => Error::Malformed { path: path.to_owned(), message },
        other => other,
    })
}

fn read(bytes: &[u8], path: &Path) -> Result<Model> {
    let file = File::parse(bytes)?;
    let config = config(&file)?;
    check_layers(&config, file.tensors.len())?;
    let (tokenizer, sidecars) = vocabulary::read(&file.metadata)?;
    let layout = Layout::new(&config)?;
    let mut unused: BTreeSet<&str> = file.tensors.keys().map(String::as_str).filter(|name| *name != FACTORS).collect();
    let mut stored = Vec::with_capacity(layout.tensors().len());
    for tensor in layout.tensors() {
        let name = name(&tensor.name);
        let missing = || Error::MissingTensor { path: path.to_owned(), tensor: name.clone() };
        let found = file.tensors.get(&name).ok_or_else(missing)?;
        // The file keeps every matrix as (outputs, inputs).
        check_shape(&name, &found.shape, tensor.shape.clone())?;
        unused.remove(name.as_str());
        stored.push((name, found));
    }
    if let Some(name) = unused.first() {
        return Err(Error::Config(format!("tensor `{name}` is not part of a `{}` model", config.model_type)));
    }
    let mut model = Model::assemble(config, tokenizer, layout, sidecars, path)?;
    let heads = model.config.heads();
    for (tensor, (name, stored)) in model.layout.tensors().iter().zip(stored) {
        let values = &mut model.weights[tensor.range()];
        quants::widen(stored.kind, stored.bytes, values)
            .map_err(|message| Error::Config(format!("tensor `{name}`: {message}")))?;
        check_finite(&name, values).map_err(Error::Config)?;
        if model.config.model_type == "llama" && (name.contains(".attn_q.") || name.contains(".attn_k.")) {
            pair_halves(values, heads.size, tensor.shape.get(1).copied().unwrap_or(1));
        }
    }
    Ok(model)
}

/// Metadata behind an architecture's name that change what is computed, and the value under which they change nothing.
const NEUTRAL: [(&str, f64); 13] = [
    ("expert_count", 0.0),
    ("expert_used_count", 0.0),
    ("logit_scale", 1.0),
    ("embedding_scale", 1.0),
    ("residual_scale", 1.0),
    ("attention.scale", 0.0),
    ("attn_logit_softcapping", 0.0),
    ("final_logit_softcapping", 0.0),
    ("attention.clamp_kqv", 0.0),
    ("attention.max_alibi_bias", 0.0),
    ("use_parallel_residual", 0.0),
    ("rope.scaling.attn_factor", 1.0),
    ("rope.scale_linear", 1.0),
];

/// That the file asks for nothing that would be left out.
fn check_metadata(file: &File, architecture: &str) -> Result<()> {
    let get = |key: &str| file.metadata.get(&format!("{architecture}.{key}"));
    let number = |value: &Value| value.as_f64().or_else(|| value.as_bool().map(f64::from));
    for (key, neutral) in NEUTRAL {
        if let Some(value) = get(key).filter(|value| number(value) != Some(neutral)) {
            return Err(Error::Config(format!("`{architecture}.{key}` is {value}, which is not supported")));
        }
    }
    if get("attention.causal").is_some_and(|causal| causal.as_bool() != Some(true)) {
        return Err(Error::Config(format!("`{architecture}.attention.causal` is false: only decoders are supported")));
    }
    let size = |key: &str| get(key).and_then(Value::as_u64);
    let head =
        size("attention.key_length").or_else(|| size("embedding_length")?.checked_div(size("attention.head_count")?));
    for key in ["rope.dimension_count", "attention.value_length"] {
        if let (Some(found), Some(head)) = (get(key), head)
            && found.as_u64() != Some(head)
        {
            let message =
                format!("`{architecture}.{key}` is {found} and a head has {head} channels, which is not supported");
            return Err(Error::Config(message));
        }
    }
    Ok(())
}

/// A tensor's name in the file: `model.layers.3.mlp.up_proj.weight` is `blk.3.ffn_up.weight`.
fn name(tensor: &str) -> String {
    let (stem, kind) = tensor.rsplit_once('.').unwrap_or((tensor, "weight"));
    let layer = stem.strip_prefix("model.layers.").or_else(|| stem.strip_prefix("transformer.h."));
    let (block, part) = match layer.and_then(|layer| layer.split_once('.')) {
        Some((number, part)) => (format!("blk.{number}."), part),
        None => (String::new(), stem),
    };
    let part = NAMES.iter().find(|(theirs, _)| *theirs == part).map_or(part, |(_, ours)| ours);
    format!("{block}{part}.{kind}")
}

/// Llama's query and key rows are kept so that rotated channels are neighbours: this puts them half a head apart again.
fn pair_halves(values: &mut [f32], head: usize, channels: usize) {
    for rows in values.chunks_exact_mut(head * channels) {
        let stored = rows.to_vec();
        for (nth, row) in stored.chunks_exact(channels).enumerate() {
            let to = nth % 2 * (head / 2) + nth / 2;
            rows[to * channels..][..channels].copy_from_slice(row);
        }
    }
}

fn config(file: &File) -> Result<Config> {
    let get = |key: &str| file.metadata.get(key);
    let architecture = get("general.architecture").and_then(Value::as_str).unwrap_or_default();
    let family = Family::find(architecture).ok_or_else(|| {
        Error::Config(format!("architecture `{architecture}` is not supported: only {} are", Family::supported()))
    })?;
    check_metadata(file, architecture)?;
    let mut fields = Map::new();
    for (field, key) in FIELDS {
        if let Some(value) = get(&format!("{architecture}.{key}")) {
            fields.insert(field.into(), value.clone());
        }
    }
    let rows = file.tensors.get("token_embd.weight").and_then(|table| table.shape.first().copied());
    let rows = rows.ok_or_else(|| Error::Config("no tensor `token_embd.weight`".into()))?;
    let has = |name: &str| file.tensors.contains_key(name);
    fields.extend([
        ("architectures".to_owned(), json!([family.architecture])),
        ("model_type".to_owned(), json!(architecture)),
        ("vocab_size".to_owned(), json!(rows)),
        ("tie_word_embeddings".to_owned(), json!(!has("output.weight"))),
        (
            if family.layer_norm { "use_bias" } else { "attention_bias" }.to_owned(),
            json!(has("blk.0.attn_output.bias")),
        ),
        ("use_sliding_window".to_owned(), Value::Null),
    ]);
    for token in ["bos_token_id", "eos_token_id"] {
        fields.extend(get(&format!("tokenizer.ggml.{token}")).map(|id| (token.to_owned(), id.clone())));
    }
    let scaling: BTreeMap<&str, &Value> = [
        ("rope_type", "type"),
        ("factor", "factor"),
        ("original_max_position_embeddings", "original_context_length"),
        ("beta_fast", "yarn_beta_fast"),
        ("beta_slow", "yarn_beta_slow"),
    ]
    .into_iter()
    .filter_map(|(field, key)| Some((field, get(&format!("{architecture}.rope.scaling.{key}"))?)))
    .collect();
    if scaling.get("rope_type").is_some_and(|kind| *kind != "none") {
        fields.insert("rope_scaling".into(), json!(scaling));
    }
    let mut config = Config::from_fields(fields)?;
    if let Some(stored) = file.tensors.get(FACTORS) {
        let mut factors = vec![0.0; config.heads().size / 2];
        check_shape(FACTORS, &stored.shape, vec![factors.len()])?;
        quants::widen(stored.kind, stored.bytes, &mut factors)
            .map_err(|message| Error::Config(format!("tensor `{FACTORS}`: {message}")))?;
        config.rope_scaling = stretch(&factors, config.rope_theta)?;
    }
    Ok(config)
}

/// Llama 3.1's settings from what its frequencies are divided by: its factor is in them, the rest has only ever been this.
fn stretch(factors: &[f32], theta: f64) -> Result<Option<Map<String, Value>>> {
    let factor = f64::from(factors.iter().copied().fold(1.0, f32::max));
    let (low, high, positions) = (1.0, 4.0, 8192.0);
    let mut frequencies: Vec<f64> =
        (0..factors.len()).map(|i| theta.powf(-(i as f64) / factors.len() as f64)).collect();
    let plain = frequencies.clone();
    Stretch::Llama3 { factor, low, high, positions }.apply(&mut frequencies, 2 * factors.len(), theta.ln());
    let same = plain
        .iter()
        .zip(&frequencies)
        .zip(factors)
        .all(|((plain, stretched), factor)| (plain / stretched / f64::from(*factor) - 1.0).abs() < 1e-3);
    if !same {
        return Err(Error::Config(format!("tensor `{FACTORS}`: frequencies that are stretched in an unknown way")));
    }
    let Value::Object(settings) = json!({"rope_type": "llama3", "factor": factor, "low_freq_factor": low,
        "high_freq_factor": high, "original_max_position_embeddings": positions as u64})
    else {
        return Ok(None);
    };
    Ok((factor > 1.0).then_some(settings))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_format() {
        assert_eq!(name("model.layers.11.mlp.up_proj.weight"), "blk.11.ffn_up.weight");
        assert_eq!(name("transformer.h.0.attn.c_attn.bias"), "blk.0.attn_qkv.bias");
        assert_eq!(name("lm_head.weight"), "output.weight");
    }

    #[test]
    fn rows_of_a_head_come_apart_into_halves() {
        let mut rows = vec![0.0, 10.0, 1.0, 11.0, 2.0, 12.0, 20.0, 30.0, 21.0, 31.0, 22.0, 32.0];
        pair_halves(&mut rows, 6, 1);
        assert_eq!(rows, [0.0, 1.0, 2.0, 10.0, 11.0, 12.0, 20.0, 21.0, 22.0, 30.0, 31.0, 32.0]);
    }
}
