//! The promises of the crate, on whole models.

mod decoding;
mod exactness;
mod hostile;
mod refusals;
mod training;

use tracetune_kernels::model::{Config, Model, Tokenizer};
use tracetune_kernels::random;

/// A model of a few thousand parameters, with grouped heads unless `heads` are one.
fn tiny(seed: u64) -> Model {
    let text = "def add(x, y):\n    return x + y\n\nfor i in range(10):\n    print(add(i, i))\n";
    let tokenizer = Tokenizer::train_bpe([text].into_iter(), 280).expect("trains");
    let config =
        Config { num_key_value_heads: Some(2), max_position_embeddings: 256, ..Config::llama(280, 24, 40, 2, 4) };
    Model::init(config, tokenizer, seed).expect("a valid model")
}

fn tokens(n: usize, seed: u64) -> Vec<u32> {
    (0..n as u64).map(|i| 2 + (random::bits(seed, i) % 270) as u32).collect()
}
