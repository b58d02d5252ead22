//! The parts of a processor that can multiply tiles: one order, at different speeds.

#[cfg(target_arch = "aarch64")]
use super::arm;
use super::{PAIRS, SIDE};
#[cfg(target_arch = "x86_64")]
use super::{amx, x86};
use crate::ops::panels::WIDTH;
use crate::ops::tiles::Out;
use crate::simd::{Kind, Level};

/// What multiplies; made by detection only, which is what makes it safe to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Units(Choice);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Amx,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

/// Up to 32 rows and columns of C, and what they are made of.
pub(super) struct Tile<'a> {
    /// One or two strips of 16 rows: `[strip][blocks][16][16]` pairs.
    pub(super) left: &'a [u32],
    /// The same in f32, without instructions for whole tiles: `[strip][blocks][16][32]`.
    pub(super) wide: &'a [f32],
    /// `[blocks][2][16][16]` pairs.
    pub(super) right: &'a [u32],
    pub(super) blocks: usize,
    pub(super) add: bool,
}

/// A whole tile of C.
#[repr(align(64))]
pub(super) struct Totals(pub(super) [[f32; WIDTH]; 2 * SIDE]);

/// Pairs of a cell.
pub(super) const CELL: usize = SIDE * PAIRS;

impl Units {
    #[cfg(test)]
    pub(super) const SCALAR: Self = Self(Choice::Scalar);

    /// The fastest of a processor that is used up to this level.
    pub(super) fn best(level: Level) -> Self {
        Self(match level.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 if crate::amx::usable() => Choice::Amx,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => Choice::Avx512,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => Choice::Avx2,
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => Choice::Neon,
            Kind::Scalar => Choice::Scalar,
        })
    }

    /// All that this processor has.
    #[cfg(test)]
    pub(super) fn available() -> Vec<Self> {
        let of = |level: &Level| match level.0 {
            Kind::Scalar => Choice::Scalar,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => Choice::Avx2,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => Choice::Avx512,
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => Choice::Neon,
        };
        let levels = Level::available();
        levels.iter().map(of).chain([Self::best(Level::detect()).0]).map(Self).collect()
    }

    /// Whether there are instructions for whole tiles.
    pub(super) fn tiles(self) -> bool {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Choice::Amx => true,
            _ => false,
        }
    }

    /// Does the work on a thread that is made ready for it.
    pub(super) fn ready(self, work: impl FnOnce()) {
        match self.0 {
            Choice::Scalar => work(),
            #[cfg(target_arch = "x86_64")]
            Choice::Avx2 | Choice::Avx512 => {
                let _flushing = x86::Flushing::new();
                work();
            }
            #[cfg(target_arch = "x86_64")]
            Choice::Amx => {
                let _tiles = amx::configured();
                work();
            }
            #[cfg(target_arch = "aarch64")]
            Choice::Neon => {
                let _flushing = arm::Flushing::new();
                work();
            }
        }
    }

    /// `c`, of at most 32 rows and columns, in the course of [`Units::ready`].
    pub(super) fn multiply(self, tile: &Tile, mut c: Out) {
        let (rows, columns) = (c.rows(), c.columns());
        assert!(rows <= 2 * SIDE && columns <= WIDTH, "a tile of {rows} rows and {columns} columns");
        let pairs = if self.tiles() { tile.left.len() } else { tile.wide.len() / 2 };
        assert!(pairs >= rows.div_ceil(SIDE) * tile.blocks * CELL, "A is too small");
        assert!(tile.right.len() >= 2 * tile.blocks * CELL, "B is too small");
        #[cfg(target_arch = "x86_64")]
        if self.0 == Choice::Amx && rows == 2 * SIDE && columns == WIDTH {
            return amx::whole(tile, c.start(), c.stride());
        }
        let mut totals = Totals([[0.0; WIDTH]; 2 * SIDE]);
        if tile.add {
            for (row, total) in totals.0.iter_mut().enumerate().take(rows) {
                total[..columns].copy_from_slice(c.row(row));
            }
        }
        match self.0 {
            Choice::Scalar => scalar(tile, &mut totals, rows),
            #[cfg(target_arch = "x86_64")]
            Choice::Avx2 => x86::avx2(tile, &mut totals, rows),
            #[cfg(target_arch = "x86_64")]
            Choice::Avx512 => x86::avx512(tile, &mut totals, rows),
            #[cfg(target_arch = "x86_64")]
            Choice::Amx => amx::buffered(tile, &mut totals, rows),
            #[cfg(target_arch = "aarch64")]
            Choice::Neon => arm::neon(tile, &mut totals, rows),
        }
        for (row, total) in totals.0.iter().enumerate().take(rows) {
            c.row(row).copy_from_slice(&total[..columns]);
        }
    }
}

/// What is smaller than any normal number is a zero of its sign.
#[inline(always)]
fn flushed(value: f32) -> f32 {
    if value.is_subnormal() { f32::from_bits(value.to_bits() & 0x8000_0000) } else { value }
}

fn scalar(tile: &Tile, totals: &mut Totals, rows: usize) {
    for (row, total) in totals.0.iter_mut().enumerate().take(rows) {
        let strip = &tile.wide[row / SIDE * tile.blocks * 2 * CELL..];
        for (block, right) in tile.right.chunks_exact(2 * CELL).enumerate().take(tile.blocks) {
            let left = &strip[2 * (block * CELL + row % SIDE * PAIRS)..][..2 * PAIRS];
            for (total, right) in total.chunks_exact_mut(SIDE).zip(right.chunks_exact(CELL)) {
                let mut sums = [[0.0f32; SIDE]; 2];
                for ([a, a_odd], b) in left.as_chunks().0.iter().zip(right.as_chunks::<SIDE>().0) {
                    for (column, pair) in b.iter().enumerate() {
                        let product =
                            |a: f32, b: u32, sum: f32| flushed(flushed(a).mul_add(flushed(f32::from_bits(b)), sum));
                        sums[0][column] = product(*a, pair << 16, sums[0][column]);
                        sums[1][column] = product(*a_odd, pair & 0xffff_0000, sums[1][column]);
                    }
                }
                for (column, total) in total.iter_mut().enumerate() {
                    *total = flushed(flushed(*total) + flushed(sums[0][column] + sums[1][column]));
                }
            }
        }
    }
}

/// Rows of A in f32, a block of a panel of B, and their part of C.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub(super) a: *const f32,
    pub(super) b: *const u32,
    pub(super) c: *mut f32,
}

/// Calls `multiply` for every block and, `most` at a time, every row of a tile: with how many they are.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[inline(always)]
pub(super) fn walk(tile: &Tile, totals: &mut Totals, rows: usize, most: usize, multiply: impl Fn(usize, Block)) {
    for top in (0..rows).step_by(SIDE) {
        let strip = &tile.wide[2 * top * tile.blocks * PAIRS..][..2 * tile.blocks * CELL];
        let count = (rows - top).min(SIDE);
        let height = count.div_ceil(count.div_ceil(most));
        for (cell, right) in strip.chunks_exact(2 * CELL).zip(tile.right.chunks_exact(2 * CELL)) {
            for first in (0..count).step_by(height) {
                let a = cell[first * 2 * PAIRS..].as_ptr();
                let c = totals.0[top + first..].as_mut_ptr().cast();
                multiply(height.min(count - first), Block { a, b: right.as_ptr(), c });
            }
        }
    }
}
