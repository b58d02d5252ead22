//! Attention of new tokens over a paged cache whose first part, the prompt, is shared by several sequences.
//!
//! The equation and every order of summation are those of [`attention`](super::attention): scores and outputs walk the
//! prompt's pages, then the sequence's own. Sharing the prompt only puts several queries into one matrix product, which
//! changes no bits. Pages after Kwon et al. 2023 (arXiv:2309.06180).

use super::attention::{Heads, show, softmax};
use super::classifier::scale_by;
use super::panels::{Lhs, Right, WIDTH, multiply_into, multiply_panels};
use super::tiles::Out;
use crate::crew;
use crate::memory::{Cpu, Memory};
use crate::simd::Level;
use std::cell::RefCell;

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
    fn paged_attention<P: AsRef<Self::F32> + Sync>(
        &self,
        out: &mut Self::F32,
        qkv: &Self::F32,
        prompt: &Cached<P>,
        own: &[Cached<P>],
        offset: usize,
        heads: Heads,
        window: usize,
    );
}

impl PagedAttention for Cpu {
    fn paged_attention<P: AsRef<[f32]> + Sync>(
        &self,
        out: &mut [f32],
        qkv: &[f32],
        prompt: &Cached<P>,
        own: &[Cached<P>],
        offset: usize,
        heads: Heads,
        window: usize,
    ) {
        let (group, longest) = (heads.query / heads.key_value, own.iter().map(|cache| cache.length).max().unwrap_or(0));
        // Twice, for scores and outputs.
        let pieces = crew::pieces(2 * own.len() * (prompt.length + longest) * heads.width());
        let height = own.len().div_ceil(pieces.div_ceil(heads.key_value)).max(1);
        let out = Out::new(out, own.len(), heads.width(), heads.width());
        let outs = out.cut(group * heads.size).enumerate();
        let parts =
            outs.flat_map(|(head, out)| out.cut_rows(height).enumerate().map(move |(nth, out)| (head, nth, out)));
        crew::each(parts, |(head, nth, out)| {
            let own = &own[nth * height..][..out.rows()];
            let qkv = &qkv[nth * height * heads.stride()..];
            let part =
                KeyHead { level: self.level, offset: offset + head * block_len(heads.size), head, heads, window };
            SCORES.with_borrow_mut(|scores| part.attend(out, qkv, prompt, own, scores));
        });
    }
}

thread_local! {
    static SCORES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// The query heads that read one key head.
struct KeyHead {
    level: Level,
    /// Where the head's block starts in a page.
    offset: usize,
    head: usize,
    heads: Heads,
    window: usize,
}

impl KeyHead {
    /// `out`: (N, G·D) of the G query heads; `scores`: space for (G, N, positions).
    fn attend<P: AsRef<[f32]>>(
        &self,
        mut out: Out,
        qkv: &[f32],
        prompt: &Cached<P>,
        own: &[Cached<P>],
        scores: &mut Vec<f32>,
    ) {
        let Self { level, heads, .. } = *self;
        let (size, stride, rows, queries) = (heads.size, heads.stride(), own.len(), heads.group(self.head));
        let (group, ld) = (queries.len(), prompt.length + own.iter().map(|cache| cache.length).max().unwrap_or(0));
        // The rows of scores, and behind them each row's 1/sum.
        scores.resize(group * rows * (ld + 1), 0.0);
        let (scores, inverses) = scores.split_at_mut(group * rows * ld);
        let q = &qkv[queries.start * size..];
        // Q Kᵀ: all sequences over the prompt, a query head at a time; then all query heads over each sequence's own pages.
        for nth in 0..group {
            let left = Lhs::rows(&q[nth * size..], rows, stride);
            self.score(&mut scores[nth * rows * ld..], ld, left, prompt);
        }
        for (row, cache) in own.iter().enumerate() {
            let left = Lhs::rows(&q[row * stride..], group, size);
            self.score(&mut scores[row * ld + prompt.length..], rows * ld, left, cache);
        }
        for ((at, seen), inverse) in scores.chunks_exact_mut(ld).enumerate().zip(inverses.iter_mut()) {
            let seen = &mut seen[..prompt.length + own[at % rows].length];
            let last = seen.len() - 1;
            *inverse = 1.0 / softmax(level, show(seen, last, self.window), heads.scale()).1;
        }
        // P V, the same walk; each chain goes on where the page before it stopped.
        for nth in 0..group {
            let left = Lhs::rows(&scores[nth * rows * ld..], rows, ld);
            self.gather(out.part(0..rows, nth * size..(nth + 1) * size), left, prompt, false);
        }
        for (row, cache) in own.iter().enumerate() {
            let out = out.row(row);
            let left = Lhs::rows(&scores[row * ld + prompt.length..], group, rows * ld);
            self.gather(Out::new(out, group, size, size), left, cache, prompt.length > 0);
            for (nth, out) in out.chunks_exact_mut(size).enumerate() {
                scale_by(level, out, inverses[nth * rows + row]);
            }
        }
    }

    fn score<P: AsRef<[f32]>>(&self, scores: &mut [f32], stride: usize, left: Lhs, cache: &Cached<P>) {
        let size = self.heads.size;
        for (page, start) in cache.pages.iter().zip((0..cache.length).step_by(PAGE)) {
            let keys = &page.as_ref()[self.offset..][..size * PAGE];
            let n = PAGE.min(cache.length - start);
            multiply_panels(self.level, &mut scores[start..], stride, left, keys, 0, size, n, false);
        }
    }

    fn gather<P: AsRef<[f32]>>(&self, mut out: Out, left: Lhs, cache: &Cached<P>, add: bool) {
        let size = self.heads.size;
        let (rows, columns) = (out.rows(), out.columns());
        for (page, start) in cache.pages.iter().zip((0..cache.length).step_by(PAGE)) {
            let values = &page.as_ref()[self.offset + size * PAGE..self.offset + block_len(size)];
            let k = PAGE.min(cache.length - start);
            let left = Lhs { data: &left.data[start..], ..left };
            let out = out.part(0..rows, 0..columns);
            multiply_into(self.level, out, left, Right::Panels(values, PAGE * WIDTH), k, add || start > 0);
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
            (Heads { query: 6, key_value: 2, size: 5 }, usize::MAX),
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
                cpu.paged_attention(&mut found, &queries, shared, &caches, offset, heads, window);
                for row in found.chunks_exact(heads.width()) {
                    assert_same_bits(row, &out[(rows - 1) * heads.width()..]);
                }
            }
        }
    }
}
