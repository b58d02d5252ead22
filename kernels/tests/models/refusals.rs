//! A model that cannot be read says which part of it is wrong.

use std::path::{Path, PathBuf};
use tracetune_kernels::model::Model;

/// A copy of a fixture, with one file changed.
fn changed(name: &str, file: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> (tempfile::TempDir, PathBuf) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/models").join(name);
    let dir = tempfile::tempdir().expect("a folder");
    for entry in std::fs::read_dir(from).expect("the fixture") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).expect("copies");
    }
    let path = dir.path().join(file);
    let bytes = change(std::fs::read(&path).expect("reads"));
    std::fs::write(&path, bytes).expect("writes");
    (dir, path)
}

#[track_caller]
fn refusal(name: &str, file: &str, from: &str, to: &str) -> String {
    let replace = |bytes: Vec<u8>| {
        let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).expect("it is there");
        [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat()
    };
    let (dir, path) = changed(name, file, replace);
    let source = if file.ends_with("gguf") { &path } else { dir.path() };
    let message = Model::load(source).expect_err("refuses").to_string();
    message.replace(&dir.path().display().to_string(), "[folder]")
}

#[test]
fn a_folder_says_what_is_wrong_with_it() {
    let config = |from, to| refusal("qwen3", "config.json", from, to);
    assert_eq!(
        config("\"head_dim\": 8", "\"head_dim\": 4"),
        "tensor `model.layers.0.self_attn.q_proj.weight` has shape [32, 16], the configuration asks for [16, 16]"
    );
    assert_eq!(
        config("\"vocab_size\": 40", "\"vocab_size\": 4"),
        "tensor `model.embed_tokens.weight` has shape [40, 16], the configuration asks for [4, 16]"
    );
    assert_eq!(
        config("\"hidden_act\": \"silu\"", "\"hidden_act\": \"relu\""),
        "`[folder]/config.json`: activation `relu` is not supported: only `silu` is"
    );
    assert_eq!(
        config("\"rope_type\": \"default\"", "\"rope_type\": \"longrope\""),
        "`[folder]/config.json`: `rope_scaling`: type `longrope` is not supported: linear, llama3 and yarn are"
    );
    assert_eq!(
        refusal("gpt2", "config.json", "inverse_layer_idx\": false", "inverse_layer_idx\": true"),
        "`[folder]/config.json`: `scale_attn_by_inverse_layer_idx` = true is not supported: only false is"
    );
    let index = "model.safetensors.index.json";
    let message = refusal("llama-sharded-biased", index, "model-00002-of-00003", "model-00009-of-00003");
    assert!(message.ends_with("is not here by `model.safetensors.index.json`"), "{message}");
    let message = refusal("llama", "model.safetensors", "model.norm.weight", "model.nrom.weight");
    assert_eq!(message, "`[folder]` has no tensor `model.norm.weight`");
}

#[test]
fn a_gguf_file_says_what_is_wrong_with_it() {
    let file = |from, to| refusal("gguf-llama", "model.gguf", from, to);
    assert_eq!(file("GGUF", "GGML"), "`[folder]/model.gguf`: not a GGUF file: it does not start with `GGUF`");
    assert_eq!(file("blk.0.ffn_up", "blk.0.ffn_pu"), "`[folder]/model.gguf` has no tensor `blk.0.ffn_up.weight`");
    assert_eq!(
        file("output_norm.weight", "output_norm.weihgt"),
        "`[folder]/model.gguf` has no tensor `output_norm.weight`"
    );
    let message = file("smollm", "smollX");
    assert_eq!(message, "`[folder]/model.gguf`: text cut as by `smollX` is not supported");
    let message = file(
        "general.architecture\u{8}\0\0\0\u{5}\0\0\0\0\0\0\0llama",
        "general.architecture\u{8}\0\0\0\u{5}\0\0\0\0\0\0\0lamma",
    );
    assert!(
        message.starts_with("`[folder]/model.gguf`: architecture `lamma` is not supported: only `Llama"),
        "{message}"
    );
}

#[test]
fn a_gguf_file_cut_short_anywhere_is_refused() {
    let whole =
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/models/gguf-llama/model.gguf"))
            .expect("the fixture");
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("cut.gguf");
    for length in (0..whole.len()).step_by(487).chain([whole.len() - 1]) {
        std::fs::write(&path, &whole[..length]).expect("writes");
        let message = Model::load(&path).expect_err("refuses").to_string();
        assert!(message.contains("cut short"), "{length} of {}: {message}", whole.len());
    }
}
