//! Attention of new tokens over a paged cache whose first part, the prompt, is shared by several sequences.
//!
//! The equation and every order of summation are those of [`attention`](super::attention): scores and outputs walk the
//! prompt's pages, then the sequence's own. Sharing the prompt only puts several queries into one matrix product, which
//! changes no bits. Pages after Kwon et al. 2023 (arXiv:2309.06180).

use super::attention::{Heads, show, softmax};
use super::classifier::scale_by;
use super::panels::{Lhs, WIDTH, multiply_panels};
use crate::memory::{Cpu, Memory};

/// Positions in a page.
pub const PAGE: usize = WIDTH;

/// Numbers in the part of a page that holds one layer's one key head: keys as (D, 32), values as (D/32, 32, 32).
pub fn block_len(size: usize) -> usize {
    size * PAGE + size.div_ceil(WIDTH) * PAGE * WIDTH
}

/// Puts a key and a value (D each) at `slot` of a page's block.
pub fn write(block: &mut [f32], slot: usize, key: &[f32], value: &[f32]) {
    let (keys, values) = block.split_at_mut(key.len() * PAGE);
    for (cell, k) in keys[slot..].iter_mut().step_by(PAGE).zip(key) {
        *cell = *k;
    }
    for (panel, part) in values.chunks_exact_mut(PAGE * WIDTH).zip(value.chunks(WIDTH)) {
        panel[slot * WIDTH..][..part.len()].copy_from_slice(part);
    }
}

/// One sequence's cache: pages of which the first `length` positions are filled.
pub struct Cached<'a, P> {
    /// The pages, in order.
    pub pages: &'a [P],
    /// Positions filled.
    pub length: usize,
}

/// Attention of one new row for each of several sequences with a common prompt.
pub trait PagedAttention: Memory {
    /// `out`: (N, H·D); `qkv`: (N, (H+2K)·D), rotated; `own`: N caches that hold the new rows' keys already; `offset`:
    /// where the layer's blocks start in a page; `window`: how many positions back each row sees, itself included.
    fn paged_attention<P: AsRef<Self::F32>>(
        &self,
        out: &mut Self::F32,
        qkv: &Self::F32,
        prompt: &Cached<P>,
        own: &[Cached<P>],
        offset: usize,
        heads: Heads,
        window: usize,
        scores: &mut Vec<f32>,
    );
}

impl PagedAttention for Cpu {
    fn paged_attention<P: AsRef<[f32]>>(
        &self,
        out: &mut [f32],
        qkv: &[f32],
        prompt: &Cached<P>,
        own: &[Cached<P>],
        offset: usize,
        heads: Heads,
        window: usize,
        scores: &mut Vec<f32>,
    ) {
        let (stride, width, size) = (heads.stride(), heads.width(), heads.size);
        let longest = own.iter().map(|cache| cache.length).max().unwrap_or(0);
        let ld = prompt.length + longest;
        // The rows of scores, and behind them each row's 1/sum.
        scores.resize(own.len() * (ld + 1), 0.0);
        let (scores, inverses) = scores.split_at_mut(own.len() * ld);
        for query in 0..heads.query {
            let head = query * heads.key_value / heads.query;
            let at = offset + head * block_len(size);
            let q = &qkv[query * size..];
            let o = &mut out[query * size..];
            // Q Kᵀ: all sequences over the prompt, then each over its own pages.
            let score = |cache: &Cached<P>, rows: Lhs, from: usize, scores: &mut [f32]| {
                for (page, start) in cache.pages.iter().zip((0..cache.length).step_by(PAGE)) {
                    let keys = &page.as_ref()[at..][..size * PAGE];
                    let n = PAGE.min(cache.length - start);
                    multiply_panels(self.level, &mut scores[from + start..], ld, rows, keys, 0, size, n, false);
                }
            };
            score(prompt, Lhs::rows(q, own.len(), stride), 0, scores);
            for (row, cache) in own.iter().enumerate() {
                let one = Lhs::rows(&q[row * stride..], 1, stride);
                score(cache, one, prompt.length, &mut scores[row * ld..]);
            }
            for ((row, cache), inverse) in own.iter().enumerate().zip(inverses.iter_mut()) {
                let seen = &mut scores[row * ld..][..prompt.length + cache.length];
                let last = seen.len() - 1;
                *inverse = 1.0 / softmax(self.level, show(seen, last, window), heads.scale()).1;
            }
            // P V, the same walk; each chain goes on where the page before it stopped.
            let gather = |cache: &Cached<P>, from: usize, weights: &[f32], rows: usize, o: &mut [f32]| {
                for (page, start) in cache.pages.iter().zip((0..cache.length).step_by(PAGE)) {
                    let values = &page.as_ref()[at + size * PAGE..at + block_len(size)];
                    let k = PAGE.min(cache.length - start);
                    let p = Lhs::rows(&weights[from + start..], rows, ld);
                    let add = from + start > 0;
                    multiply_panels(self.level, o, width, p, values, PAGE * WIDTH, k, size, add);
                }
            };
            gather(prompt, 0, scores, own.len(), o);
            for (row, (cache, inverse)) in own.iter().zip(inverses.iter()).enumerate() {
                gather(cache, prompt.length, &scores[row * ld..], 1, &mut o[row * width..]);
                scale_by(self.level, &mut o[row * width..][..size], *inverse);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::attention::{Attention, Scratch};
    use crate::testing::{assert_same_bits, noise};

    #[test]
    fn decoding_with_pages_gives_the_bits_of_the_training_pass() {
        for (heads, window) in [
            (Heads { query: 4, key_value: 2, size: 5 }, usize::MAX),
            (Heads { query: 1, key_value: 1, size: 40 }, 40),
            (Heads { query: 1, key_value: 1, size: 8 }, 7),
        ] {
            let (prompt, own, rows) = (45, 37, 82);
            let stride = heads.stride();
            let qkv = noise(rows * stride, 1, 1.0);
            let (cpu, mut scratch) = (Cpu::new(), Scratch::default());
            let (mut out, mut stats) = (vec![0.0; rows * heads.width()], vec![0.0; rows * heads.query * 2]);
            #[expect(clippy::single_range_in_vec_init, reason = "one document")]
            cpu.attention(&mut out, &mut stats, &qkv, &[0..rows], heads, window, &mut scratch);

            let offset = 3;
            let page = || vec![0.0f32; offset + heads.key_value * block_len(heads.size)];
            let fill = |rows: std::ops::Range<usize>| {
                let mut pages: Vec<Vec<f32>> = (0..rows.len().div_ceil(PAGE)).map(|_| page()).collect();
                for (slot, row) in rows.enumerate() {
                    for head in 0..heads.key_value {
                        let (key, value) = heads.key_value_at(head);
                        let row = &qkv[row * stride..][..stride];
                        let block = &mut pages[slot / PAGE][offset + head * block_len(heads.size)..];
                        write(block, slot % PAGE, &row[key..][..heads.size], &row[value..][..heads.size]);
                    }
                }
                pages
            };
            let (shared, tail) = (fill(0..prompt), fill(prompt..prompt + own));
            let shared = &Cached { pages: &shared[..], length: prompt };
            for draws in [1, 3, 70] {
                let last = &qkv[(rows - 1) * stride..];
                let queries: Vec<f32> = (0..draws).flat_map(|_| last.to_vec()).collect();
                let caches: Vec<_> = (0..draws).map(|_| Cached { pages: &tail[..], length: own }).collect();
                let mut found = vec![f32::NAN; draws * heads.width()];
                cpu.paged_attention(&mut found, &queries, shared, &caches, offset, heads, window, &mut Vec::new());
                for row in found.chunks_exact(heads.width()) {
                    assert_same_bits(row, &out[(rows - 1) * heads.width()..]);
                }
            }
        }
    }
}
