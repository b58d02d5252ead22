//! Files of strangers: each is refused with its cause, before memory is asked for, and nothing outside the folder is touched.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tracetune_kernels::model::{Config, Model, Tokenizer};

/// A small sound model in a folder of its own.
struct Folder(tempfile::TempDir);

impl Folder {
    fn sound() -> Self {
        let folder = Self(tempfile::tempdir().expect("a folder"));
        let texts = ["def f(x):\n    return x\n"; 9];
        let tokenizer = Tokenizer::train_bpe(texts.into_iter(), 260).expect("a tokenizer");
        let config = Config::llama(tokenizer.vocab_size(), 16, 24, 2, 2);
        Model::init(config, tokenizer, 1).expect("a model").save(&folder.model()).expect("saves");
        folder
    }

    fn model(&self) -> PathBuf {
        self.0.path().join("model")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.model().join(name)
    }

    fn set(&self, key: &str, value: Value) {
        let path = self.file("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config[key] = value;
        std::fs::write(path, config.to_string()).unwrap();
    }

    /// Writes the weights again after a change of the tensors: type, shape and bytes by name.
    fn change(&self, change: impl FnOnce(&mut Tensors)) {
        let path = self.file("model.safetensors");
        let mut tensors = stored(&path);
        change(&mut tensors);
        std::fs::write(path, serialized(&tensors)).unwrap();
    }

    #[track_caller]
    fn refusal(&self) -> String {
        let error = Model::load(&self.model()).expect_err("it is refused").to_string();
        error.replace(&self.0.path().display().to_string(), "[folder]")
    }

    #[track_caller]
    fn is_refused(&self, because: &str) {
        let error = self.refusal();
        assert!(error.contains(because), "{error}\n does not say\n{because}");
    }
}

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn stored(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let own = |(name, view): (String, TensorView)| (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec()));
    file.tensors().into_iter().map(own).collect()
}

fn serialized(tensors: &Tensors) -> Vec<u8> {
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

fn numbers(shape: &[usize], value: f32) -> (Dtype, Vec<usize>, Vec<u8>) {
    let count: usize = shape.iter().product();
    (Dtype::F32, shape.to_vec(), std::iter::repeat_n(value.to_le_bytes(), count).flatten().collect())
}

#[test]
fn a_sound_model_is_read() {
    let folder = Folder::sound();
    assert!(Model::load(&folder.model()).is_ok());
}

#[test]
fn an_index_names_files_of_the_folder_alone() {
    let victim = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(victim.path(), "precious").unwrap();
    let absolute = victim.path().display().to_string();
    for name in [absolute.as_str(), "../x.safetensors", "a/b.safetensors", "..", "", "config.json", "/x.safetensors"] {
        let folder = Folder::sound();
        std::fs::rename(folder.file("model.safetensors"), folder.file("one.safetensors")).unwrap();
        let index = json!({"weight_map": {"model.norm.weight": name}});
        std::fs::write(folder.file("model.safetensors.index.json"), index.to_string()).unwrap();
        folder.is_refused("tensor `model.norm.weight` is said to lie in");
        assert!(Model::files(&folder.model()).is_err(), "{name}");
    }
    assert_eq!(std::fs::read_to_string(victim.path()).unwrap(), "precious");
}

/// Splits the weights into two shards, with an index.
fn shard(folder: &Folder, index: impl FnOnce(&mut serde_json::Map<String, Value>)) {
    let mut map = serde_json::Map::new();
    let mut shards = [Tensors::new(), Tensors::new()];
    for (at, (name, tensor)) in stored(&folder.file("model.safetensors")).into_iter().enumerate() {
        map.insert(name.clone(), json!(format!("{}.safetensors", ["one", "two"][at % 2])));
        shards[at % 2].insert(name, tensor);
    }
    for (name, shard) in ["one", "two"].into_iter().zip(&shards) {
        std::fs::write(folder.file(&format!("{name}.safetensors")), serialized(shard)).unwrap();
    }
    std::fs::remove_file(folder.file("model.safetensors")).unwrap();
    index(&mut map);
    std::fs::write(folder.file("model.safetensors.index.json"), json!({"weight_map": map}).to_string()).unwrap();
}

#[test]
fn shards_hold_what_the_index_says() {
    let sound = Folder::sound();
    let before = Model::load(&sound.model()).unwrap();
    shard(&sound, |_| ());
    let after = Model::load(&sound.model()).unwrap();
    assert!(before.tensors().zip(after.tensors()).all(|(one, other)| one == other));

    let missing = Folder::sound();
    shard(&missing, |_| ());
    std::fs::remove_file(missing.file("two.safetensors")).unwrap();
    missing.is_refused("two.safetensors");

    let elsewhere = Folder::sound();
    shard(&elsewhere, |map| {
        let name = map.iter().find(|(_, file)| **file == "one.safetensors").map(|(name, _)| name.clone()).unwrap();
        map[&name] = json!("two.safetensors");
    });
    elsewhere.is_refused("is not here by `model.safetensors.index.json`");

    let twice = Folder::sound();
    shard(&twice, |_| ());
    std::fs::copy(twice.file("one.safetensors"), twice.file("two.safetensors")).unwrap();
    twice.is_refused("is stored in `one.safetensors`, too");

    let promised = Folder::sound();
    shard(&promised, |map| _ = map.insert("x.weight".to_owned(), json!("one.safetensors")));
    promised.is_refused("has no tensor `x.weight`");
}

#[test]
fn a_link_out_of_the_folder_is_not_followed_but_for_the_hubs_cache() {
    for name in ["model.safetensors", "config.json", "tokenizer.json"] {
        let folder = Folder::sound();
        let outside = folder.0.path().join(name);
        std::fs::rename(folder.file(name), &outside).unwrap();
        std::os::unix::fs::symlink(&outside, folder.file(name)).unwrap();
        folder.is_refused("outside the model's folder: copy the file");
        assert!(Model::files(&folder.model()).is_err());
    }
    // models--org--name/{blobs,snapshots/COMMIT}
    let folder = Folder::sound();
    let (blobs, snapshot) = (folder.0.path().join("blobs"), folder.0.path().join("snapshots/abc"));
    std::fs::create_dir(&blobs).unwrap();
    std::fs::create_dir_all(&snapshot).unwrap();
    for name in ["model.safetensors", "config.json", "tokenizer.json"] {
        std::fs::rename(folder.file(name), blobs.join(name)).unwrap();
        std::os::unix::fs::symlink(Path::new("../../blobs").join(name), snapshot.join(name)).unwrap();
    }
    assert!(Model::load(&snapshot).is_ok());
    assert_eq!(Model::files(&snapshot).unwrap().len(), 3);
}

#[test]
fn sizes_are_held_against_what_is_stored_before_memory_is_asked_for() {
    for (key, value, because) in [
        ("vocab_size", json!(1_000_000_000), "the configuration asks for [1000000000, 16]"),
        ("num_hidden_layers", json!(1_000_000), "`num_hidden_layers` is 1000000, and 20 tensors are stored"),
        ("num_hidden_layers", json!(3), "has no tensor `model.layers.2.input_layernorm.weight`"),
        ("num_hidden_layers", json!(1), "no use for the stored tensor `model.layers.1.input_layernorm.weight`"),
        ("hidden_size", json!(32), "the configuration asks for"),
        ("head_dim", json!(0), "`head_dim` is zero"),
        ("max_position_embeddings", json!(0), "`max_position_embeddings` is zero"),
        ("rms_norm_eps", json!(-1.0), "the norms' epsilon is -1, must be between 0 and 1"),
        ("rms_norm_eps", json!(1e39), "the norms' epsilon is inf"),
        ("rope_theta", json!(0), "`rope_theta` is 0, must be at least 1"),
        ("rope_theta", json!(-5), "`rope_theta` is -5, must be at least 1"),
        ("rope_scaling", json!({"type": "linear", "factor": 0.0}), "`factor` is 0, must be above 0"),
        ("sliding_window", json!(0), "`sliding_window` is 0"),
        ("eos_token_id", json!(99_999), "`eos_token_id` is 99999, and the tokenizer has no such token"),
        ("eos_token_id", json!([5]), "the ordinary token"),
        ("model_type", json!("bloom"), "is not supported: only `LlamaForCausalLM`"),
        ("architectures", json!(["GPTBigCodeForCausalLM"]), "architecture `GPTBigCodeForCausalLM`"),
        ("attention_bias", json!(true), "has no tensor `model.layers.0.self_attn.q_proj.bias`"),
        ("tie_word_embeddings", json!(false), "has no tensor `lm_head.weight`"),
    ] {
        let folder = Folder::sound();
        folder.set(key, value);
        folder.is_refused(because);
    }
}

#[test]
fn every_stored_tensor_is_used_or_named() {
    let head = Folder::sound();
    head.change(|tensors| {
        let shape = tensors["model.embed_tokens.weight"].1.clone();
        tensors.insert("lm_head.weight".to_owned(), numbers(&shape, 0.5));
    });
    head.is_refused("`lm_head.weight` is stored with other numbers than the embedding table");
    let same = Folder::sound();
    same.change(|tensors| {
        let table = tensors["model.embed_tokens.weight"].clone();
        tensors.insert("lm_head.weight".to_owned(), table);
        tensors.insert("model.layers.0.self_attn.rotary_emb.inv_freq".to_owned(), numbers(&[4], 1.0));
    });
    assert!(Model::load(&same.model()).is_ok(), "a copy of the table and known buffers are no harm");
    for name in ["model.layers.0.self_attn.q_proj.bias", "model.layers.2.mlp.up_proj.weight", "classifier.weight"] {
        let folder = Folder::sound();
        folder.change(|tensors| _ = tensors.insert(name.to_owned(), numbers(&[16], 0.0)));
        folder.is_refused(&format!("no use for the stored tensor `{name}`"));
    }
}

#[test]
fn weights_are_finite_numbers_of_known_types() {
    for (value, word) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        let folder = Folder::sound();
        folder.change(|tensors| {
            let bytes = &mut tensors.get_mut("model.norm.weight").unwrap().2;
            bytes[8..12].copy_from_slice(&value.to_le_bytes());
        });
        folder.is_refused(&format!("tensor `model.norm.weight` holds {word} at 2: a weight is a finite number"));
    }
    for (dtype, size) in [(Dtype::F64, 8), (Dtype::F8_E4M3, 1), (Dtype::I8, 1)] {
        let folder = Folder::sound();
        let bytes = vec![0; 16 * size];
        folder.change(|tensors| _ = tensors.insert("model.norm.weight".to_owned(), (dtype, vec![16], bytes)));
        folder.is_refused(&format!("tensor `model.norm.weight` is of type {dtype:?}: F32, BF16 and F16 are read"));
    }
}

#[test]
fn damaged_safetensors_say_so() {
    let damage = |change: &dyn Fn(&mut Vec<u8>)| {
        let folder = Folder::sound();
        let path = folder.file("model.safetensors");
        let mut bytes = std::fs::read(&path).unwrap();
        change(&mut bytes);
        std::fs::write(path, bytes).unwrap();
        folder.refusal()
    };
    let said = |message: &str, word: &str| assert!(message.contains(word), "{message}");
    said(&damage(&|bytes| bytes[..8].copy_from_slice(&(1u64 << 63).to_le_bytes())), "damaged or cut short");
    said(&damage(&|bytes| bytes.truncate(5)), "cut short: it has 5 bytes");
    said(&damage(&|bytes| bytes.truncate(bytes.len() - 1)), "damaged or cut short");
    said(&damage(&|bytes| bytes.push(0)), "damaged or cut short");
    said(&damage(&|bytes| bytes[8] = b'x'), "expected value");
    said(
        &damage(&|bytes| {
            let at = bytes.windows(12).position(|part| part == b"data_offsets").unwrap() + 15;
            bytes[at] = if bytes[at] == b'9' { b'8' } else { bytes[at] + 1 };
        }),
        "invalid offset",
    );
}

#[test]
fn what_is_no_model_says_what_it_is() {
    let adapter = Folder::sound();
    std::fs::write(adapter.file("adapter_config.json"), "{}").unwrap();
    adapter.is_refused("it holds a PEFT adapter, not a model: merge it into its base");
    let pickle = Folder::sound();
    std::fs::rename(pickle.file("model.safetensors"), pickle.file("pytorch_model.bin")).unwrap();
    pickle.is_refused("its weights are not safetensors, and reading other formats can run code");
    let gguf = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(gguf.path(), b"GGUF\x03\0\0\0").unwrap();
    let error = Model::load(gguf.path()).unwrap_err().to_string();
    assert!(error.ends_with("it is a GGUF file: give it the ending `.gguf`"), "{error}");
    let tokenizer = Folder::sound();
    std::fs::remove_file(tokenizer.file("tokenizer.json")).unwrap();
    tokenizer.is_refused("tokenizer.json");
}

/// Bytes of files that are changed at random places: they are read or refused, and nothing panics.
#[test]
fn files_that_are_changed_anywhere_are_read_or_refused() {
    let folder = Folder::sound();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/models");
    let gguf = folder.0.path().join("model.gguf");
    let files = [
        (folder.file("config.json"), folder.model(), None),
        (folder.file("tokenizer.json"), folder.model(), None),
        (folder.file("model.safetensors"), folder.model(), Some(4096)),
        (gguf.clone(), gguf.clone(), Some(4096)),
    ];
    std::fs::copy(fixtures.join("gguf-llama/model.gguf"), &gguf).unwrap();
    let mut state = 1u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for (file, source, header) in files {
        let sound = std::fs::read(&file).unwrap();
        let reach = header.unwrap_or(sound.len()).min(sound.len());
        for _ in 0..300 {
            let mut bytes = sound.clone();
            for _ in 0..=random(3) {
                let reach = reach.min(bytes.len());
                let (at, kind) = (random(reach), random(4));
                match kind {
                    0 => bytes[at] = random(256) as u8,
                    1 => bytes[at] ^= 1 << random(8),
                    2 => bytes[at..(at + 8).min(reach)].fill(255),
                    _ => drop(bytes.drain(at..(at + 1 + random(16)).min(reach))),
                }
            }
            std::fs::write(&file, bytes).unwrap();
            if let Ok(model) = Model::load(&source) {
                assert!(model.tensors().all(|(.., values)| values.iter().all(|value| value.is_finite())));
                let _ = model.logits(&[0, 1]);
            }
        }
        std::fs::write(&file, sound).unwrap();
    }
}

#[test]
fn a_context_longer_than_any_memory_takes_none() {
    let folder = Folder::sound();
    folder.set("max_position_embeddings", json!(1_000_000_000));
    let model = Model::load(&folder.model()).expect("it says how long a text may be, and no more");
    assert!(model.logits(&[0, 1]).is_ok());
}
