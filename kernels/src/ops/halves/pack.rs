//! Operands on their way into tiles: rounded to bf16, pairs along k side by side.

use super::{BLOCK, PAIRS, SIDE};
use crate::ops::bf16::rounded;
use crate::ops::panels::{Lhs, Plain, WIDTH, turned};
use crate::simd::vectorised;
use std::ops::Range;

/// Sixteen rows of A by sixteen pairs along k, or sixteen pairs by sixteen columns of B: what one instruction takes. A pair's
/// first number is the lower half.
pub(super) type Cell = [[u32; SIDE]; PAIRS];

#[inline(always)]
fn pair(even: f32, odd: f32) -> u32 {
    rounded(even) >> 16 | rounded(odd) & 0xffff_0000
}

/// Pairs in each of so many rows, `stride` apart: `cell[row][pair]`; `len` numbers in a row.
#[inline(always)]
fn along(cell: &mut Cell, from: &[f32], stride: usize, rows: usize, len: usize) {
    for (row, to) in cell.iter_mut().enumerate() {
        if row >= rows {
            *to = [0; PAIRS];
            continue;
        }
        let from = &from[row * stride..][..len];
        let mut last = [0.0; BLOCK];
        let block: &[f32; BLOCK] = match from.first_chunk() {
            Some(block) => block,
            None => {
                last[..len].copy_from_slice(from);
                &last
            }
        };
        for (to, [even, odd]) in to.iter_mut().zip(block.as_chunks().0) {
            *to = pair(*even, *odd);
        }
    }
}

/// Pairs of rows, `stride` apart: `cell[pair][column]`; `len` rows of so many columns.
#[inline(always)]
fn across(cell: &mut Cell, from: &[f32], stride: usize, len: usize, columns: usize) {
    for (nth, to) in cell.iter_mut().enumerate() {
        let row = |row: usize| if row < len { &from[row * stride..][..columns] } else { &[] };
        let (even, odd) = (row(2 * nth), row(2 * nth + 1));
        match (even.first_chunk::<SIDE>(), odd.first_chunk::<SIDE>()) {
            (Some(even), Some(odd)) => {
                for ((to, even), odd) in to.iter_mut().zip(even).zip(odd) {
                    *to = pair(*even, *odd);
                }
            }
            _ => {
                for (column, to) in to.iter_mut().enumerate() {
                    let at = |row: &[f32]| row.get(column).copied().unwrap_or_default();
                    *to = pair(at(even), at(odd));
                }
            }
        }
    }
}

/// Has what lies `distance` numbers further on its way: so many rows of `len` numbers. The processor sees no pattern in it.
#[inline(always)]
fn ask(from: &[f32], distance: usize, stride: usize, rows: usize, len: usize) {
    #[cfg(target_arch = "x86_64")]
    for row in 0..rows {
        for line in (0..len).step_by(16) {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let at = from.as_ptr().wrapping_add(distance + row * stride + line);
            #[expect(unsafe_code, reason = "an instruction that every processor of this kind has")]
            // SAFETY: what is asked for need not be there.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(at.cast());
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (from, distance, stride, rows, len);
}

/// The transpose.
#[inline(always)]
fn turn(cell: &Cell) -> Cell {
    let mut to = [[0; SIDE]; PAIRS];
    for row in (0..SIDE).step_by(4) {
        for column in (0..PAIRS).step_by(4) {
            let square: [[f32; 4]; 4] =
                std::array::from_fn(|i| std::array::from_fn(|j| f32::from_bits(cell[row + i][column + j])));
            for (i, line) in turned(square).into_iter().enumerate() {
                to[column + i][row..row + 4].copy_from_slice(&line.map(f32::to_bits));
            }
        }
    }
    to
}

vectorised! {
    /// Some rows of A, and of them some numbers along k: `[rows / 16][k / 32]`.
    pub(super) fn pack_left(cells: &mut [Cell], a: Lhs, part: (Range<usize>, Range<usize>)) {
        let (rows, numbers) = part;
        let blocks = numbers.len().div_ceil(BLOCK);
        for (strip, first) in cells.chunks_exact_mut(blocks.max(1)).zip(rows.clone().step_by(SIDE)) {
            let height = SIDE.min(rows.end - first);
            for (cell, start) in strip.iter_mut().zip(numbers.clone().step_by(BLOCK)) {
                let (from, len) = (a.from(first, start).data, BLOCK.min(numbers.end - start));
                if a.col_stride == 1 {
                    ask(from, BLOCK, a.row_stride, height, len);
                    along(cell, from, a.row_stride, height, len);
                } else {
                    ask(from, BLOCK * a.col_stride, a.col_stride, len, height);
                    across(cell, from, a.col_stride, len, height);
                    *cell = turn(cell);
                }
            }
        }
    }
}

vectorised! {
    /// Some numbers along k of some columns of B, which lie in its rows or are its rows: `[columns / 32][k / 32][2]`.
    pub(super) fn pack_right(cells: &mut [Cell], b: Plain, rows: bool, part: (Range<usize>, Range<usize>)) {
        let (numbers, columns) = part;
        let blocks = numbers.len().div_ceil(BLOCK);
        for (block, start) in numbers.clone().step_by(BLOCK).enumerate() {
            let len = BLOCK.min(numbers.end - start);
            for (panel, first) in columns.clone().step_by(WIDTH).enumerate() {
                for half in 0..WIDTH / SIDE {
                    let cell = &mut cells[(panel * blocks + block) * 2 + half];
                    let column = first + half * SIDE;
                    let width = SIDE.min(columns.end.saturating_sub(column));
                    if width == 0 {
                        *cell = [[0; SIDE]; PAIRS];
                        continue;
                    }
                    if rows {
                        let Plain { data, stride } = b.from(start, column);
                        ask(data, BLOCK * stride, stride, len, width);
                        across(cell, data, stride, len, width);
                    } else {
                        let Plain { data, stride } = b.from(column, start);
                        ask(data, BLOCK, stride, width, len);
                        along(cell, data, stride, width, len);
                        *cell = turn(cell);
                    }
                }
            }
        }
    }
}
