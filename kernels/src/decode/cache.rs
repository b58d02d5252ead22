//! Pages of keys and values, kept for reuse: a thread's own, so nothing is locked and no step allocates once warm.

use crate::model::Network;
use crate::ops::paged_attention::{PAGE, block_len, write};

/// 32 positions of every layer and key head.
pub(crate) struct Page(Box<[f32]>);

impl AsRef<[f32]> for Page {
    fn as_ref(&self) -> &[f32] {
        &self.0
    }
}

/// The pages of a thread: as many as are needed, up to a limit that its owner keeps.
pub(crate) struct PagePool {
    free: Vec<Page>,
    page_len: usize,
    used: usize,
    most: usize,
}

/// Pages that so many positions fill.
pub(crate) fn pages_for(positions: usize) -> usize {
    positions.div_ceil(PAGE)
}

/// Bytes of a page.
pub(crate) fn page_bytes(network: &Network) -> usize {
    4 * layer_offset(network, network.layers.len())
}

impl PagePool {
    /// For at most so many pages.
    pub(crate) fn new(network: &Network, most: usize) -> Self {
        Self { free: Vec::new(), page_len: layer_offset(network, network.layers.len()), used: 0, most }
    }

    /// Pages that may still be taken.
    pub(crate) fn room(&self) -> usize {
        self.most.saturating_sub(self.used)
    }

    /// Gives `pages` room for `length` positions.
    pub(crate) fn grow(&mut self, pages: &mut Vec<Page>, length: usize) {
        while pages.len() * PAGE < length {
            // What an old page holds is never read: only filled positions are.
            pages.push(self.free.pop().unwrap_or_else(|| Page(vec![0.0; self.page_len].into())));
            self.used += 1;
            debug_assert!(self.used <= self.most, "{} pages of {}", self.used, self.most);
        }
    }

    /// Takes pages back.
    pub(crate) fn release(&mut self, pages: &mut Vec<Page>) {
        self.used -= pages.len();
        self.free.append(pages);
    }
}

/// Where a layer's blocks start in a page.
pub(crate) fn layer_offset(network: &Network, layer: usize) -> usize {
    layer * network.heads.key_value * block_len(network.heads.size)
}

/// Puts the keys and values of one row of `qkv` at `position` of a sequence's pages.
pub(crate) fn store(network: &Network, layer: usize, pages: &mut [Page], position: usize, qkv: &[f32]) {
    let heads = network.heads;
    for head in 0..heads.key_value {
        let (key, value) = heads.key_value_at(head);
        let at = layer_offset(network, layer) + head * block_len(heads.size);
        let block = &mut pages[position / PAGE].0[at..][..block_len(heads.size)];
        write(block, position % PAGE, &qkv[key..][..heads.size], &qkv[value..][..heads.size]);
    }
}
