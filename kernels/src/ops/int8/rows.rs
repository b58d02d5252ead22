//! Where vector instructions find their operands.

use super::{BLOCK, Tile, WIDTH};
use crate::ops::tiles::Out;

/// Where some rows of the operands start, and how far apart they lie.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub(super) x: *const i8,
    pub(super) scales: *const f32,
    pub(super) offsets: *const i32,
    pub(super) blocks: usize,
    pub(super) c: *mut f32,
    pub(super) stride: usize,
    pub(super) columns: usize,
}

impl Rows {
    /// Checks the bounds of all rows of `c`.
    pub(super) fn new(tile: &Tile, c: &mut Out) -> Self {
        let (first, last) = (tile.row(0), tile.row(c.rows() - 1));
        assert!(last.0.len() == tile.depth * BLOCK && tile.numbers.len() == tile.depth * BLOCK * WIDTH);
        assert!(tile.scales.len() == tile.depth * WIDTH && (1..=WIDTH).contains(&c.columns()));
        let (x, scales, offsets) = (first.0.as_ptr(), first.1.as_ptr(), first.2.as_ptr());
        Self { x, scales, offsets, blocks: tile.rounded.blocks, c: c.start(), stride: c.stride(), columns: c.columns() }
    }

    pub(super) fn skip(self, rows: usize) -> Self {
        Self {
            x: self.x.wrapping_add(rows * self.blocks * BLOCK),
            scales: self.scales.wrapping_add(rows * self.blocks),
            offsets: self.offsets.wrapping_add(rows * self.blocks),
            c: self.c.wrapping_add(rows * self.stride),
            ..self
        }
    }
}
