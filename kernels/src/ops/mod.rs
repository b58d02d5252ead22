//! One operation a file: its equation, the trait that names its operands, the CPU form forward and backward, its tests.
//!
//! Letters for shapes: T time, N rows, C channels, V vocabulary, H heads, D head size, F feed-forward size. Gradients of
//! parameters accumulate (`+=`); activations are overwritten unless the operation says that it adds.

#![allow(clippy::too_many_arguments, reason = "an operation's operands")]

pub mod adamw;
pub mod attention;
pub(crate) mod bf16;
pub mod bias;
pub mod classifier;
pub mod embedding;
pub mod gelu;
pub(crate) mod halves;
pub(crate) mod int8;
pub mod layernorm;
pub mod matmul;
pub mod paged_attention;
pub mod panels;
pub mod rmsnorm;
pub mod rope;
pub mod stored;
pub mod swiglu;
pub(crate) mod tiles;

use crate::memory::{Cpu, Memory};

/// The table of contents: what a back end must be able to do.
pub trait Backend:
    Memory
    + adamw::AdamW
    + attention::Attention
    + bias::Bias
    + classifier::Classifier
    + embedding::Embedding
    + gelu::Gelu
    + layernorm::LayerNorm
    + matmul::MatMul
    + paged_attention::PagedAttention
    + rmsnorm::RmsNorm
    + rope::Rope
    + swiglu::SwiGlu
{
}

impl Backend for Cpu {}
