//! The bytes that were written last, kept in memory: consumers that keep up never read from disk.

use std::collections::VecDeque;

use bytes::Bytes;

/// Written bytes in the order of the log.
#[derive(Default)]
pub struct TailCache {
    blocks: VecDeque<Block>,
    bytes: usize,
}

struct Block {
    segment: u64,
    offset: u32,
    bytes: Bytes,
}

impl TailCache {
    /// Adds what follows everything added before.
    pub fn push(&mut self, segment: u64, offset: u32, bytes: Bytes) {
        self.bytes += bytes.len();
        self.blocks.push_back(Block { segment, offset, bytes });
    }

    /// Lets go of the oldest until at most `bytes_max` are left.
    pub fn shrink(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max
            && let Some(block) = self.blocks.pop_front()
        {
            self.bytes -= block.bytes.len();
        }
    }

    /// Lets go of everything at or behind a place.
    pub fn cut(&mut self, segment: u64, offset: u32) {
        while let Some(block) = self.blocks.back()
            && (block.segment, block.offset) >= (segment, offset)
        {
            self.bytes -= block.bytes.len();
            self.blocks.pop_back();
        }
    }

    /// Lets go of everything of a segment.
    pub fn forget(&mut self, segment: u64) {
        self.blocks.retain(|block| block.segment != segment);
        self.bytes = self.blocks.iter().map(|block| block.bytes.len()).sum();
    }

    pub fn get(&self, segment: u64, offset: u32, len: usize) -> Option<Bytes> {
        let after = self.blocks.partition_point(|block| (block.segment, block.offset) <= (segment, offset));
        let block = self.blocks.get(after.checked_sub(1)?)?;
        let start = (offset - block.offset.min(offset)) as usize;
        (block.segment == segment && start + len <= block.bytes.len())
            .then(|| block.bytes.slice(start..start + len))
    }
}
