//! Causal attention within each document, Vaswani et al. 2017 (arXiv:1706.03762) Eq. 1, with grouped heads (Ainslie et al.
//! 2023, arXiv:2305.13245):  O = softmax(Q Kᵀ / √D) V, and its gradient by recomputation (Dao et al. 2022,
//! arXiv:2205.14135): only each row's maximum and normaliser are kept.
//!
//! Scores are chains over D, outputs chains over positions from the document's first on, and the normaliser is the fixed
//! sum over positions: [`paged_attention`](super::paged_attention) uses the same orders, so a token decoded with a cache
//! has the bits that the training pass would give it.

use super::classifier::scale_by;
use super::panels::{Lhs, Panels, Right, multiply_into, multiply_panels};
use super::tiles::Out;
use crate::crew;
use crate::math;
use crate::memory::{Cpu, Memory};
use crate::simd::{Level, vectorised};
use std::cell::RefCell;
use std::ops::Range;

/// Query rows handled together.
const BLOCK: usize = 48;

/// How a row of `qkv` is divided: query heads, then key heads, then value heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// H, query heads.
    pub query: usize,
    /// K, key and value heads; divides H.
    pub key_value: usize,
    /// D, channels of a head.
    pub size: usize,
}

impl Heads {
    /// (H + 2K) · D, the length of a row of `qkv`.
    pub fn stride(&self) -> usize {
        (self.query + 2 * self.key_value) * self.size
    }

    /// H · D, the length of a row of the output.
    pub fn width(&self) -> usize {
        self.query * self.size
    }

    /// 1/√D.
    pub fn scale(&self) -> f32 {
        1.0 / (self.size as f32).sqrt()
    }

    /// Where a key head starts in a row, and where its value head does.
    pub fn key_value_at(&self, head: usize) -> (usize, usize) {
        let key = (self.query + head) * self.size;
        (key, key + self.key_value * self.size)
    }

    /// The query heads that read a key head.
    pub fn group(&self, key_value: usize) -> Range<usize> {
        let size = self.query / self.key_value;
        key_value * size..(key_value + 1) * size
    }
}

/// Space that the CPU form reuses from call to call.
#[derive(Debug, Default)]
pub struct Scratch {
    scores: Vec<f32>,
    gradients: Vec<f32>,
    panels: [Panels; 5],
}

/// Attention over whole documents, forward and backward.
pub trait Attention: Memory {
    /// Space for intermediate results.
    type AttentionScratch;
    /// `qkv`: (T, (H+2K)·D), rotated; `out`: (T, H·D); `stats`: (T, H, 2), each row's maximum and 1/sum; `documents`:
    /// ranges of rows that see only themselves; `window`: how many rows back each sees, itself included.
    fn attention(
        &self,
        out: &mut Self::F32,
        stats: &mut Self::F32,
        qkv: &Self::F32,
        documents: &[Range<usize>],
        heads: Heads,
        window: usize,
        scratch: &mut Self::AttentionScratch,
    );
    /// Overwrites `dqkv` (T, (H+2K)·D) from `dout` (T, H·D).
    fn attention_backward(
        &self,
        dqkv: &mut Self::F32,
        dout: &Self::F32,
        out: &Self::F32,
        stats: &Self::F32,
        qkv: &Self::F32,
        documents: &[Range<usize>],
        heads: Heads,
        window: usize,
        scratch: &mut Self::AttentionScratch,
    );
}

impl Attention for Cpu {
    type AttentionScratch = Scratch;

    fn attention(
        &self,
        out: &mut [f32],
        stats: &mut [f32],
        qkv: &[f32],
        documents: &[Range<usize>],
        heads: Heads,
        window: usize,
        scratch: &mut Scratch,
    ) {
        let pass = Forward { level: self.level, qkv, heads, window };
        for document in documents {
            let rows = document.len();
            // The scores below the diagonal, and as much again for the outputs.
            let pieces = crew::pieces(rows * rows * heads.width());
            let out = Out::new(&mut out[document.start * heads.width()..], rows, heads.width(), heads.width());
            let stats = &mut stats[document.start * heads.query * 2..];
            let stats = Out::new(stats, rows, heads.query * 2, heads.query * 2);
            let each = if pieces == 1 { heads.query / heads.key_value } else { 1 };
            let parts = out.cut(each * heads.size).zip(stats.cut(each * 2)).enumerate();
            let query_heads = |(nth, (out, stats)), scratch: &mut _| {
                pass.query_heads(out, stats, document.clone(), nth * each..(nth + 1) * each, scratch);
            };
            if pieces == 1 {
                parts.for_each(|part| query_heads(part, scratch));
            } else {
                crew::each(parts, |part| SCRATCH.with_borrow_mut(|scratch| query_heads(part, scratch)));
            }
        }
    }

    fn attention_backward(
        &self,
        dqkv: &mut [f32],
        dout: &[f32],
        out: &[f32],
        stats: &[f32],
        qkv: &[f32],
        documents: &[Range<usize>],
        heads: Heads,
        window: usize,
        scratch: &mut Scratch,
    ) {
        let pass = Backward { level: self.level, dout, out, stats, qkv, heads, window };
        for document in documents {
            let rows = document.len();
            // Five products of the size of the scores' lower half.
            let pieces = crew::pieces(5 * rows * rows * heads.width() / 2);
            let stride = heads.stride();
            let dqkv = Out::new(&mut dqkv[document.start * stride..], rows, stride, stride);
            let mut parts = dqkv.cut(heads.size);
            let queries: Vec<Out> = parts.by_ref().take(heads.query).collect();
            let keys: Vec<Out> = parts.by_ref().take(heads.key_value).collect();
            let mut queries = queries.into_iter();
            let groups = keys.into_iter().zip(parts).enumerate().map(|(head, (key, value))| {
                let queries: Vec<Out> = queries.by_ref().take(heads.group(head).len()).collect();
                (head, Gradients { queries, key, value })
            });
            if pieces == 1 {
                groups.for_each(|(head, part)| pass.key_head(part, document.clone(), head, scratch));
            } else {
                crew::each(groups, |(head, part)| {
                    SCRATCH.with_borrow_mut(|scratch| pass.key_head(part, document.clone(), head, scratch));
                });
            }
        }
    }
}

thread_local! {
    /// A helper's.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

struct Forward<'a> {
    level: Level,
    qkv: &'a [f32],
    heads: Heads,
    window: usize,
}

impl Forward<'_> {
    /// Some query heads of one key head in one document: `out` is (T, G·D), `stats` (T, G·2).
    fn query_heads(
        &self,
        mut out: Out,
        mut stats: Out,
        document: Range<usize>,
        queries: Range<usize>,
        scratch: &mut Scratch,
    ) {
        let Self { level, qkv, heads, window } = *self;
        let (stride, size, start, length) = (heads.stride(), heads.size, document.start, document.len());
        let (key, value) = heads.key_value_at(queries.start * heads.key_value / heads.query);
        let Scratch { scores, panels: [keys, values, ..], .. } = scratch;
        keys.pack_columns(level, &qkv[start * stride + key..], size, length, stride);
        values.pack_rows(&qkv[start * stride + value..], length, size, stride);
        scores.resize(BLOCK * length, 0.0);
        for (nth, query) in queries.enumerate() {
            for first in (0..length).step_by(BLOCK) {
                let end = (first + BLOCK).min(length);
                let rows = end - first;
                let at = (start + first) * stride + query * size;
                let scores = &mut scores[..rows * end];
                let q = Lhs::rows(&qkv[at..], rows, stride);
                multiply_panels(level, scores, end, q, keys.data(), size * 32, size, end, false);
                for (r, row) in scores.chunks_exact_mut(end).enumerate() {
                    let (max, sum) = softmax(level, show(row, first + r, window), heads.scale());
                    stats.row(first + r)[2 * nth..][..2].copy_from_slice(&[max, 1.0 / sum]);
                }
                let columns = nth * size..(nth + 1) * size;
                let p = Lhs::rows(scores, rows, end);
                let part = out.part(first..end, columns.clone());
                multiply_into(level, part, p, Right::Panels(values.data(), length * 32), end, false);
                for row in first..end {
                    scale_by(level, &mut out.row(row)[columns.clone()], stats.row(row)[2 * nth + 1]);
                }
            }
        }
    }
}

/// The part of a row of scores that the `nth` row of a document sees; the rest becomes zero.
pub(crate) fn show(row: &mut [f32], nth: usize, window: usize) -> &mut [f32] {
    let seen = (nth + 1).saturating_sub(window)..nth + 1;
    row[..seen.start].fill(0.0);
    row[seen.end..].fill(0.0);
    &mut row[seen]
}

struct Backward<'a> {
    level: Level,
    dout: &'a [f32],
    out: &'a [f32],
    stats: &'a [f32],
    qkv: &'a [f32],
    heads: Heads,
    window: usize,
}

/// Where the gradients of one key head, its value head and the query heads that read them go, each (T, D).
struct Gradients<'a> {
    queries: Vec<Out<'a>>,
    key: Out<'a>,
    value: Out<'a>,
}

impl Backward<'_> {
    /// The gradients of one key head, its value head and the query heads that read them, in one document.
    fn key_head(&self, mut into: Gradients, document: Range<usize>, head: usize, scratch: &mut Scratch) {
        let Heads { size, .. } = self.heads;
        let (stride, width) = (self.heads.stride(), self.heads.width());
        let (key, value) = self.heads.key_value_at(head);
        let (start, length) = (document.start, document.len());
        let Scratch { scores, gradients, panels } = scratch;
        let [keys_by_position, values_by_position, keys, queries, douts] = panels;
        keys_by_position.pack_columns(self.level, &self.qkv[start * stride + key..], size, length, stride);
        values_by_position.pack_columns(self.level, &self.qkv[start * stride + value..], size, length, stride);
        keys.pack_rows(&self.qkv[start * stride + key..], length, size, stride);
        scores.resize(length * length, 0.0);
        gradients.resize(length * length, 0.0);
        for (nth, query) in self.heads.group(head).enumerate() {
            let q = &self.qkv[start * stride + query * size..];
            let d = &self.dout[start * width + query * size..];
            queries.pack_rows(q, length, size, stride);
            douts.pack_rows(d, length, size, width);
            for first in (0..length).step_by(BLOCK) {
                let end = (first + BLOCK).min(length);
                let rows = end - first;
                let p = &mut scores[first * length..];
                let left = Lhs::rows(&q[first * stride..], rows, stride);
                multiply_panels(self.level, p, length, left, keys_by_position.data(), size * 32, size, end, false);
                let ds = &mut gradients[first * length..];
                let left = Lhs::rows(&d[first * width..], rows, width);
                multiply_panels(self.level, ds, length, left, values_by_position.data(), size * 32, size, end, false);
                for r in 0..rows {
                    let row = start + first + r;
                    let at = row * width + query * size;
                    let stats = &self.stats[(row * self.heads.query + query) * 2..][..2];
                    let (p, ds) = (&mut p[r * length..][..end], &mut ds[r * length..][..end]);
                    let (o, d) = (&self.out[at..][..size], &self.dout[at..][..size]);
                    let (p, ds) = (show(p, first + r, self.window), show(ds, first + r, self.window));
                    softmax_backward(self.level, p, ds, stats, self.heads.scale(), o, d);
                }
                let left = Lhs::rows(&gradients[first * length..], rows, length);
                let dq = into.queries[nth].part(first..end, 0..size);
                multiply_into(self.level, dq, left, Right::Panels(keys.data(), length * 32), end, false);
            }
            // Column blocks are the row blocks, so what lies above the diagonal inside a block has been set to zero.
            for first in (0..length).step_by(BLOCK) {
                let columns = BLOCK.min(length - first);
                let (k, from) = (length - first, first * length + first);
                let products = [(&mut into.key, &*gradients, &*queries), (&mut into.value, &*scores, &*douts)];
                for (into, left, right) in products {
                    let left = Lhs::columns(&left[from..], columns, length);
                    let right = Right::Panels(&right.data()[first * 32..], length * 32);
                    multiply_into(self.level, into.part(first..first + columns, 0..size), left, right, k, nth > 0);
                }
            }
        }
    }
}

vectorised! {
    /// Replaces scores s by exp((s - max s) · scale); gives the maximum and the sum.
    pub(crate) fn softmax(row: &mut [f32], scale: f32) -> (f32, f32) {
        let max = math::max(row);
        for s in row.iter_mut() {
            *s = math::exp((*s - max) * scale);
        }
        (max, math::sum(row))
    }
}

vectorised! {
    // p: scores in, probabilities out; ds: dP in, dS out:  dS = P ⊙ (dP - Σ dO ⊙ O) · scale.
    fn softmax_backward(p: &mut [f32], ds: &mut [f32], stats: &[f32], scale: f32, out: &[f32], dout: &[f32]) {
        let (max, inverse) = (stats[0], stats[1]);
        let delta = math::dot(out, dout);
        for (p, ds) in p.iter_mut().zip(ds) {
            *p = math::exp((*p - max) * scale) * inverse;
            *ds = *p * (*ds - delta) * scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, assert_same_bits, finite_differences, noise, weighted, wide};

    fn reference(qkv: &[f64], documents: &[Range<usize>], heads: Heads, window: usize) -> Vec<f64> {
        let (stride, size) = (heads.stride(), heads.size);
        let mut out = vec![0.0; qkv.len() / stride * heads.width()];
        for document in documents {
            for (row, query) in document.clone().flat_map(|r| (0..heads.query).map(move |q| (r, q))) {
                let (key, value) = heads.key_value_at(query * heads.key_value / heads.query);
                let score = |t: usize| -> f64 {
                    let dot: f64 =
                        (0..size).map(|d| qkv[row * stride + query * size + d] * qkv[t * stride + key + d]).sum();
                    (dot / (size as f64).sqrt()).exp()
                };
                let first = document.start.max((row + 1).saturating_sub(window));
                let total: f64 = (first..=row).map(score).sum();
                for d in 0..size {
                    let sum: f64 = (first..=row).map(|t| score(t) * qkv[t * stride + value + d]).sum();
                    out[row * heads.width() + query * size + d] = sum / total;
                }
            }
        }
        out
    }

    #[test]
    fn forward_and_backward_agree_with_float64_on_every_instruction_set() {
        for (heads, lengths, window) in [
            (Heads { query: 2, key_value: 2, size: 4 }, vec![1, 5, 3], usize::MAX),
            (Heads { query: 4, key_value: 2, size: 6 }, vec![7, 1], 3),
            (Heads { query: 1, key_value: 1, size: 34 }, vec![4], 4),
        ] {
            let rows: usize = lengths.iter().sum();
            let documents: Vec<Range<usize>> = lengths
                .iter()
                .scan(0, |at, n| {
                    *at += n;
                    Some(*at - n..*at)
                })
                .collect();
            let (qkv, dout) = (noise(rows * heads.stride(), 1, 1.0), noise(rows * heads.width(), 2, 1.0));
            let mut scalar = None;
            for level in Level::available() {
                let (cpu, mut scratch) = (Cpu::with_level(level), Scratch::default());
                let (mut out, mut stats) = (vec![0.0; dout.len()], vec![0.0; rows * heads.query * 2]);
                cpu.attention(&mut out, &mut stats, &qkv, &documents, heads, window, &mut scratch);
                let mut dqkv = vec![f32::NAN; qkv.len()];
                cpu.attention_backward(&mut dqkv, &dout, &out, &stats, &qkv, &documents, heads, window, &mut scratch);
                assert_close(&out, &reference(&wide(&qkv), &documents, heads, window), 1e-5);
                let numeric =
                    finite_differences(&wide(&qkv), |qkv| weighted(&reference(qkv, &documents, heads, window), &dout));
                assert_close(&dqkv, &numeric, 1e-4);
                let all = [out, dqkv].concat();
                assert_same_bits(scalar.get_or_insert(all.clone()), &all);
            }
        }
    }

    #[test]
    fn blocks_longer_than_one_agree_with_float64() {
        for window in [usize::MAX, 17, 60] {
            long_blocks(window);
        }
    }

    fn long_blocks(window: usize) {
        let (heads, rows) = (Heads { query: 2, key_value: 1, size: 3 }, 131);
        let (qkv, dout) = (noise(rows * heads.stride(), 1, 1.0), noise(rows * heads.width(), 2, 1.0));
        let (cpu, mut scratch, documents) = (Cpu::new(), Scratch::default(), [0..70, 70..rows]);
        let (mut out, mut stats) = (vec![0.0; dout.len()], vec![0.0; rows * heads.query * 2]);
        cpu.attention(&mut out, &mut stats, &qkv, &documents, heads, window, &mut scratch);
        assert_close(&out, &reference(&wide(&qkv), &documents, heads, window), 1e-5);
        let mut dqkv = vec![f32::NAN; qkv.len()];
        cpu.attention_backward(&mut dqkv, &dout, &out, &stats, &qkv, &documents, heads, window, &mut scratch);
        // The directional derivative along one random direction stands for 1,572 single ones.
        let direction = noise(qkv.len(), 3, 1.0);
        let along = |step: f64| {
            let moved: Vec<f64> =
                qkv.iter().zip(&direction).map(|(x, d)| f64::from(*x) + step * f64::from(*d)).collect();
            weighted(&reference(&moved, &documents, heads, window), &dout)
        };
        let numeric = (along(1e-5) - along(-1e-5)) / 2e-5;
        let analytic: f64 = dqkv.iter().zip(&direction).map(|(g, d)| f64::from(*g) * f64::from(*d)).sum();
        assert!((numeric - analytic).abs() < 1e-3 * numeric.abs().max(1.0), "{analytic} instead of {numeric}");
    }
}
