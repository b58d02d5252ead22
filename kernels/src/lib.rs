//! Tensors and transformers on the CPU: the operations, decoders of six families, batched decoding and gradient steps.
//!
//! What this crate promises is **bits**. A matrix product's element is one chain of fused multiply-adds over `k` in
//! increasing order; every other sum has an order fixed by the shapes alone; `exp` and its kin are our own, made of IEEE
//! operations. So a row's result is the same whatever stands beside it in the batch, on any number of threads, and
//! whether the lanes are 16 (AVX-512), 8 (AVX2) or 1 wide.
//!
//! Nothing here prints, reads a clock or the environment, or draws unseeded random numbers; nothing knows of pipelines.
//!
//! * [`ops`]: one operation a file, its equation, forward and backward.
//! * [`model`]: configuration, checkpoints, tokenizer, the whole network forward and backward.
//! * [`decode`]: continuous batching over a paged KV cache whose prompt part is shared; sampling.
//! * [`train`]: packing, AdamW, resumable gradient steps.
//! * [`cuda`]: says whether a usable CUDA driver is there.

#[cfg(target_arch = "x86_64")]
mod amx;
pub mod crew;
pub mod cuda;
pub mod decode;
mod error;
pub mod math;
pub mod memory;
pub mod model;
pub mod ops;
pub mod random;
pub mod simd;
#[cfg(test)]
mod testing;
pub mod train;

pub use error::{Error, Result};
