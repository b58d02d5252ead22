//! What a run takes at its peak, and how it keeps to a limit: threads and kept activations give way, bits never do.

use super::Options;
use crate::model::{Config, LOGIT_ROWS, Layout};
use crate::{Error, Result};

/// How many threads work on rows, whether matrices are packed before they are met, and whether layers are run forward twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Economy {
    pub(super) workers: usize,
    pub(super) packed: bool,
    pub(super) recompute: bool,
}

/// Numbers above which a gradient of its own for each lane, or another copy of the weights, costs more than it saves.
const LARGE: usize = 1 << 24;

/// Gradient sums of a step: those of the options, but one where they would be large.
pub(super) fn lanes(options: &Options, trained: usize) -> usize {
    if trained > LARGE { 1 } else { options.lanes }
}

/// Rows that go through the network together. One worker packs the matrices of a large model anew for each product, which
/// rows of so many tokens share. A number of the run, as `Options::lanes` is: no limit changes it.
pub(super) fn together(options: &Options, trained: usize) -> usize {
    const TOKENS: usize = 512;
    if trained > LARGE { (TOKENS / options.sequence_tokens.max(1)).max(1) } else { 1 }
}

/// The fastest way that keeps to `options.memory_bytes`, for `trained` numbers under an optimizer.
///
/// # Errors
/// [`Error::Options`], saying how much is needed, if there is none.
pub(super) fn within_limit(options: &Options, config: &Config, layout: &Layout, trained: usize) -> Result<Economy> {
    // The operations of a large model are worth cutting into pieces: one worker, whom all threads help, needs least.
    let most = if trained > LARGE { 1 } else { options.threads.clamp(1, options.lanes) };
    let ways = (1..=most).rev().flat_map(|workers| {
        let way = |(packed, recompute)| Economy { workers, packed, recompute };
        [(true, false), (false, false), (false, true)].map(way)
    });
    let may_pack = layout.len() <= LARGE && !options.bf16;
    let mut least = u64::MAX;
    for way in ways.filter(|way| may_pack || !way.packed) {
        let bytes = peak_bytes(options, config, layout, trained, way);
        if options.memory_bytes.is_none_or(|limit| bytes <= limit) {
            return Ok(way);
        }
        least = least.min(bytes);
    }
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    Err(Error::Options(format!(
        "training this model takes about {} MiB at the least, the limit is {} MiB: take shorter rows or LoRA",
        mib(least),
        mib(options.memory_bytes.unwrap_or(0))
    )))
}

/// An estimate from the shapes: weights, also packed or not, adapters and what they are merged into, moments, gradients, and
/// what each thread keeps of a row.
fn peak_bytes(options: &Options, config: &Config, layout: &Layout, trained: usize, way: Economy) -> u64 {
    let (heads, channels, layers) = (config.heads(), config.hidden_size, config.num_hidden_layers);
    let tokens = options.sequence_tokens * together(options, trained);
    let merged = if options.lora.is_some() { trained + layout.len() } else { 0 };
    let best = if options.evaluation.keep_best { trained } else { 0 };
    // The sum, and one for each worker, unless they are the same.
    let gradients = trained * if lanes(options, trained) == 1 { 1 } else { way.workers + 1 };
    // Gate, up and their product; queries, keys and values; what goes into and out of norms and attention.
    let layer = tokens * (3 * config.intermediate_size + heads.stride() + heads.width() + 4 * channels);
    let kept = match options.bf16 {
        _ if way.recompute => layer + layers * tokens * channels,
        true => layer + layers * layer / 2,
        false => layers * layer,
    };
    let packed = if way.packed { 2 * layout.len() } else { 0 };
    let logits = LOGIT_ROWS * config.vocab_size;
    let row = kept + layer + 4 * tokens * channels + logits;
    4 * (layout.len() + packed + merged + 2 * trained + best + gradients + way.workers * row) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_first_gives_up_packing_then_activations_then_threads_then_says_what_is_needed() {
        let config = Config::llama(4096, 256, 704, 12, 8);
        let layout = Layout::new(&config).expect("a layout");
        let way = |memory_bytes| {
            let options = Options { threads: 2, sequence_tokens: 1024, memory_bytes, ..Options::default() };
            within_limit(&options, &config, &layout, layout.len())
        };
        let bytes = |workers, packed, recompute| {
            let options = Options { threads: 2, sequence_tokens: 1024, ..Options::default() };
            peak_bytes(&options, &config, &layout, layout.len(), Economy { workers, packed, recompute })
        };
        assert_eq!(way(None).expect("no limit"), Economy { workers: 2, packed: true, recompute: false });
        for (workers, packed, recompute) in [(2, false, false), (2, false, true), (1, false, true)] {
            let limit = Some(bytes(workers, packed, recompute));
            assert_eq!(way(limit).expect("fits"), Economy { workers, packed, recompute });
        }
        let error = way(Some(bytes(1, false, true) - 1)).expect_err("too little").to_string();
        assert!(
            error.contains(&format!("about {} MiB at the least", bytes(1, false, true).div_ceil(1 << 20))),
            "{error}"
        );
    }
}
