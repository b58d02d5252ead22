//! Which missing rows are computed next, and by whom.
//!
//! A table's items are divided into blocks by their position, so that every process that works on the table divides it
//! alike. Whoever computes items of a block holds its claim, a lock that dies with its process: several processes share
//! the blocks of a stage, and each may die. Segments are recorded before a claim is given up, and listed again after one
//! is taken, so that no row is computed twice. A claim saves work and decides no result: two tables that share rows have
//! blocks of their own, and may compute a shared row twice at the same time.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::super::job::JobError;
use super::{Pass, Piece};
use crate::cache::Lock;

/// Claims of a chunk: each is an open file.
const MOST_CLAIMS: usize = 64;

/// The missing items of a block of the table.
struct Block {
    number: usize,
    /// Places in the piece.
    items: Vec<usize>,
}

/// A piece's blocks that are still to be computed.
pub(super) struct Queue {
    blocks: Mutex<VecDeque<Block>>,
    workers: usize,
}

/// What a worker does next.
pub(super) enum Next {
    /// Computes these items; the claims are held until they are recorded.
    Chunk(Vec<usize>, Vec<Lock>),
    /// Waits: other processes are at all blocks that are left.
    Wait,
    /// Nothing is left.
    End,
}

impl Queue {
    /// `first` is the number of the piece's first item in the table.
    pub(super) fn new(missing: &[usize], first: usize, block_items: usize, workers: usize) -> Self {
        let mut blocks: VecDeque<Block> = VecDeque::new();
        for &item in missing {
            let number = (first + item) / block_items;
            match blocks.back_mut() {
                Some(block) if block.number == number => block.items.push(item),
                _ => blocks.push_back(Block { number, items: vec![item] }),
            }
        }
        Self { blocks: Mutex::new(blocks), workers }
    }

    /// Claims a chunk: whole blocks with at least as many missing items as a segment has, where there are. Rows that are
    /// scattered over many blocks are computed together.
    pub(super) fn next(&self, pass: &Pass, piece: &Piece) -> Result<Next, JobError> {
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let left: usize = blocks.iter().map(|block| block.items.len()).sum();
            let wanted = pass.segment_items(left.div_ceil(self.workers));
            let (mut items, mut claims, mut claimed) = (Vec::new(), Vec::new(), Vec::new());
            while items.len() < wanted
                && claims.len() < MOST_CLAIMS
                && let Some(block) = blocks.pop_front()
            {
                match pass.claim(block.number)? {
                    Some(claim) => {
                        items.extend(&block.items);
                        claims.push(claim);
                    }
                    None => claimed.push(block),
                }
            }
            // Their processes began with them: what is behind them is more likely to be free.
            blocks.extend(claimed);
            if claims.is_empty() {
                return Ok(if blocks.is_empty() { Next::End } else { Next::Wait });
            }
            let before = items.len();
            pass.leave_missing(piece, &mut items)?;
            pass.done.add(before - items.len());
            if !items.is_empty() {
                return Ok(Next::Chunk(items, claims));
            }
        }
    }

    /// Takes out what others have finished meanwhile.
    pub(super) fn refresh(&self, pass: &Pass, piece: &Piece) -> Result<(), JobError> {
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        for block in blocks.iter_mut() {
            let before = block.items.len();
            pass.leave_missing(piece, &mut block.items)?;
            pass.done.add(before - block.items.len());
        }
        blocks.retain(|block| !block.items.is_empty());
        Ok(())
    }
}

/// Growing pauses between looks at what other processes do.
pub(super) struct Pauses(Duration);

impl Pauses {
    pub(super) fn new() -> Self {
        Self(Duration::from_millis(5))
    }

    pub(super) fn wait(&mut self) {
        std::thread::sleep(self.0);
        self.0 = (self.0 * 3 / 2).min(Duration::from_millis(250));
    }
}
