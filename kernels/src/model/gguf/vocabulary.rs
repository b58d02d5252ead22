//! A GGUF file's vocabulary, as the tokenizer that Hugging Face would have written beside the model.

use crate::model::Tokenizer;
use crate::{Error, Result};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// How Llama 3 cuts text, and Qwen 2 with single digits.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Types of tokens in the format: part of the markup, and added by the model's makers.
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;

/// The tokenizer, and the small files that go with it.
pub(super) fn read(metadata: &BTreeMap<String, Value>) -> Result<(Tokenizer, BTreeMap<String, Vec<u8>>)> {
    let get = |key: &str| metadata.get(&format!("tokenizer.{key}"));
    let list = |key: &str| get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let text = |key: &str| get(key).and_then(Value::as_str).unwrap_or_default();
    let kind = text("ggml.model");
    if kind != "gpt2" {
        return Err(Error::Tokenizer(format!("a vocabulary of kind `{kind}` is not supported: only `gpt2` is")));
    }
    let byte_level =
        |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
    let split =
        |regex: &str| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
    let digits = json!({"type": "Digits", "individual_digits": true});
    let cut = text("ggml.pre");
    let pieces = match cut {
        "gpt-2" | "default" | "" => vec![byte_level(true)],
        "smollm" | "starcoder" | "refact" => vec![digits, byte_level(true)],
        "llama-bpe" | "llama3" => vec![split(LLAMA3), byte_level(false)],
        "qwen2" => vec![split(QWEN2), byte_level(false)],
        other => return Err(Error::Tokenizer(format!("text cut as by `{other}` is not supported"))),
    };
    let tokens = list("ggml.tokens");
    let vocabulary: Map<String, Value> = tokens
        .iter()
        .enumerate()
        .map(|(id, token)| (token.as_str().unwrap_or_default().to_owned(), json!(id)))
        .collect();
    let types = list("ggml.token_type").iter().map(|kind| kind.as_u64().unwrap_or(1));
    let added = tokens.iter().zip(types).enumerate().filter(|(_, (_, kind))| matches!(*kind, CONTROL | USER_DEFINED));
    let added: Vec<Value> = added
        .map(|(id, (token, kind))| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": kind == CONTROL})
        })
        .collect();
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": (cut == "qwen2").then(|| json!({"type": "NFC"})),
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": pieces},
        "decoder": byte_level(true),
        "model": {"type": "BPE", "ignore_merges": cut.starts_with("llama"), "vocab": vocabulary,
            "merges": list("ggml.merges")},
    });
    let name = |id: &str| get(id).and_then(Value::as_u64).and_then(|id| tokens.get(id as usize));
    let described = json!({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": name("ggml.bos_token_id"),
        "eos_token": name("ggml.eos_token_id"), "pad_token": name("ggml.padding_token_id")});
    let mut sidecars = BTreeMap::from([("tokenizer_config.json".to_owned(), described.to_string().into_bytes())]);
    let template = get("chat_template").and_then(Value::as_str);
    sidecars.extend(template.map(|text| ("chat_template.jinja".to_owned(), text.as_bytes().to_vec())));
    let eos = get("ggml.eos_token_id").and_then(Value::as_u64).map(|id| id as u32);
    Ok((Tokenizer::from_bytes(tokenizer.to_string().as_bytes(), eos)?, sidecars))
}
