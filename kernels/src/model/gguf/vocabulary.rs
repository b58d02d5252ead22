//! A GGUF file's vocabulary, as the tokenizer that Hugging Face would have written beside the model.

use crate::model::Tokenizer;
use crate::{Error, Result};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};

/// How Llama 3 cuts text, and Qwen 2 with single digits.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Types of tokens in the format: a part of texts, what stands for the unknown, part of the markup, and added by the model's
/// makers.
const NORMAL: u64 = 1;
const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;

/// What SentencePiece writes for a space.
const SPACE: &str = "▁";

/// The part of a file's metadata that describes its vocabulary.
struct Described<'a>(&'a BTreeMap<String, Value>);

impl<'a> Described<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.0.get(&format!("tokenizer.{key}"))
    }

    fn list(&self, key: &str) -> &'a [Value] {
        self.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    fn text(&self, key: &str) -> &'a str {
        self.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    fn flag(&self, key: &str, default: bool) -> bool {
        self.get(key).and_then(Value::as_bool).unwrap_or(default)
    }

    /// Every token with its type.
    fn tokens(&self) -> impl Iterator<Item = (&'a str, u64)> {
        let types = self.list("ggml.token_type").iter().map(|kind| kind.as_u64().unwrap_or(NORMAL));
        let tokens = self.list("ggml.tokens").iter().map(|token| token.as_str().unwrap_or_default());
        tokens.zip(types.chain(std::iter::repeat(NORMAL)))
    }

    /// The text of the token whose id stands under `key`.
    fn named(&self, key: &str) -> Option<(&'a str, u64)> {
        let id = self.get(key).and_then(Value::as_u64)?;
        Some((self.list("ggml.tokens").get(usize::try_from(id).ok()?)?.as_str()?, id))
    }
}

/// The tokenizer, and the small files that go with it.
pub(super) fn read(metadata: &BTreeMap<String, Value>) -> Result<(Tokenizer, BTreeMap<String, Vec<u8>>)> {
    let described = Described(metadata);
    check(&described)?;
    let (mut tokenizer, opens) = match described.text("ggml.model") {
        "gpt2" => (bytes(&described)?, described.text("ggml.pre").starts_with("llama")),
        "llama" => (pieces(&described), true),
        kind => {
            let message = format!("a vocabulary of kind `{kind}` is not supported: `gpt2` and `llama` are");
            return Err(Error::Tokenizer(message));
        }
    };
    let apart = |kind: u64| matches!(kind, UNKNOWN | CONTROL | USER_DEFINED);
    let added = described.tokens().enumerate().filter(|(_, (_, kind))| apart(*kind));
    let added: Vec<Value> = added
        .map(|(id, (token, kind))| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": kind != USER_DEFINED})
        })
        .collect();
    tokenizer["version"] = json!("1.0");
    tokenizer["added_tokens"] = json!(added);
    let first = described.named("ggml.bos_token_id");
    if let Some((token, id)) = first.filter(|_| described.flag("ggml.add_bos_token", opens)) {
        let text = |name: &str| json!({"Sequence": {"id": name, "type_id": 0}});
        let opening = json!({"SpecialToken": {"id": token, "type_id": 0}});
        tokenizer["post_processor"] = json!({"type": "TemplateProcessing", "single": [opening, text("A")],
            "pair": [opening, text("A"), opening, text("B")],
            "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}}});
    }
    let name = |key: &str| described.named(key).map(|(token, _)| token);
    let config = json!({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": name("ggml.bos_token_id"),
        "eos_token": name("ggml.eos_token_id"), "pad_token": name("ggml.padding_token_id")});
    let mut sidecars = BTreeMap::from([("tokenizer_config.json".to_owned(), config.to_string().into_bytes())]);
    let template = described.get("chat_template").and_then(Value::as_str);
    sidecars.extend(template.map(|text| ("chat_template.jinja".to_owned(), text.as_bytes().to_vec())));
    let eos = described.named("ggml.eos_token_id").map(|(_, id)| id as u32);
    Ok((Tokenizer::from_bytes(tokenizer.to_string().as_bytes(), eos)?, sidecars))
}

/// That tokens have names of their own, and that the special ones are among them.
fn check(described: &Described) -> Result<()> {
    let mut places: HashMap<&str, usize> = HashMap::new();
    for (id, (token, _)) in described.tokens().enumerate() {
        if let Some(other) = places.insert(token, id) {
            let token = token.escape_debug();
            return Err(Error::Tokenizer(format!("damaged: tokens {other} and {id} are both `{token}`")));
        }
    }
    for key in ["ggml.bos_token_id", "ggml.eos_token_id", "ggml.unknown_token_id", "ggml.padding_token_id"] {
        if let (Some(id), None) = (described.get(key), described.named(key)) {
            return Err(Error::Tokenizer(format!("damaged: `tokenizer.{key}` is {id}, of {} tokens", places.len())));
        }
    }
    if described.text("ggml.model") == "gpt2" && described.list("ggml.merges").is_empty() {
        return Err(Error::Tokenizer("`tokenizer.ggml.merges` is missing".into()));
    }
    Ok(())
}

fn vocabulary(described: &Described) -> Map<String, Value> {
    described.tokens().enumerate().map(|(id, (token, _))| (token.to_owned(), json!(id))).collect()
}

/// Byte-level BPE with the merges that the file lists.
fn bytes(described: &Described) -> Result<Value> {
    let byte_level =
        |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
    let split =
        |regex: &str| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
    let digits = json!({"type": "Digits", "individual_digits": true});
    let cut = described.text("ggml.pre");
    let steps = match cut {
        "gpt-2" | "default" | "" => vec![byte_level(true)],
        "smollm" | "starcoder" | "refact" => vec![digits, byte_level(true)],
        "llama-bpe" | "llama3" => vec![split(LLAMA3), byte_level(false)],
        "qwen2" => vec![split(QWEN2), byte_level(false)],
        other => return Err(Error::Tokenizer(format!("text cut as by `{other}` is not supported"))),
    };
    Ok(json!({
        "normalizer": (cut == "qwen2").then(|| json!({"type": "NFC"})),
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "decoder": byte_level(true),
        "model": {"type": "BPE", "ignore_merges": cut.starts_with("llama"), "vocab": vocabulary(described),
            "merges": described.list("ggml.merges")},
    }))
}

/// SentencePiece's BPE (Kudo and Richardson 2018, arXiv:1808.06226), of Llama 2 and Mistral: pieces with scores, the best is
/// merged first; what no piece holds is spelt in bytes.
fn pieces(described: &Described) -> Value {
    let vocabulary = vocabulary(described);
    let scores = described.list("ggml.scores").iter().map(|score| score.as_f64().unwrap_or_default());
    let mut merges = Vec::new();
    for ((token, kind), score) in described.tokens().zip(scores) {
        let cuts = token.char_indices().skip(1).map(|(at, _)| token.split_at(at)).filter(|_| kind == NORMAL);
        let known = cuts.filter(|(left, right)| vocabulary.contains_key(*left) && vocabulary.contains_key(*right));
        merges.extend(known.map(|halves| (score, halves)));
    }
    let characters = |text: &str| text.chars().count();
    merges.sort_by(|(a, (left, right)), (b, (other_left, other_right))| {
        let lengths = (characters(other_left), characters(other_right)).cmp(&(characters(left), characters(right)));
        b.total_cmp(a).then(lengths)
    });
    let merges: Vec<[&str; 2]> = merges.into_iter().map(|(_, (left, right))| [left, right]).collect();
    let replace = |from: &str, to: &str| json!({"type": "Replace", "pattern": {"String": from}, "content": to});
    let mut normalizers = vec![replace(" ", SPACE)];
    let mut decoders = vec![replace(SPACE, " "), json!({"type": "ByteFallback"}), json!({"type": "Fuse"})];
    if described.flag("ggml.add_space_prefix", true) {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": SPACE}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let unknown = described.named("ggml.unknown_token_id").map(|(token, _)| token);
    let unknown = unknown.or_else(|| Some(described.tokens().find(|(_, kind)| *kind == UNKNOWN)?.0));
    json!({
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {"type": "BPE", "unk_token": unknown, "fuse_unk": true, "byte_fallback": true, "vocab": vocabulary,
            "merges": merges},
    })
}
