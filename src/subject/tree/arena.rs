//! Byte blocks addressed by `u32`: the memory under the nodes of the tree.
//!
//! One growing vector, cut into blocks of 8-byte granules; a [`BlockId`] is the number of the first granule. The upper
//! half of the ids means something else to the tree, so 16 GiB can be addressed. Freed blocks go to the free list of their size class, threaded through the blocks themselves, and
//! the last freed comes back first: a subscription that comes and goes works on the same warm bytes.
//!
//! Not a general allocator: blocks do not know their size (the node in them does), and free blocks are neither split
//! nor joined. Memory is thus bounded by the sum over the size classes of each class's peak, which for a steady mix of
//! subscriptions is their peak; when the tree is empty everything is given back.
//!
//! Invariant: every granule belongs to exactly one live block or one free block (`check` in the tests).

const GRANULE_BYTES: usize = 8;

/// Readers may load 8 bytes from any position inside a block; this much slack behind the last block keeps that in
/// bounds.
const SLACK_BYTES: usize = 8;

/// Up to here each number of granules is a class of its own; above, four classes per doubling (at most 25 % unused).
const EXACT_GRANULES_MAX: usize = 64;

/// The largest block: class 127.
pub(super) const BLOCK_BYTES_MAX: usize = (EXACT_GRANULES_MAX * GRANULE_BYTES) << 16;

const CLASSES: usize = EXACT_GRANULES_MAX + 4 * 16 + 1;

/// Below this an empty arena keeps its memory, so that a lone subscription coming and going does not allocate.
const KEEP_BYTES: usize = 64 * 1024;

/// A block, by the number of its first granule. Ids with the highest bit set are no blocks but carry a number for the
/// owner of the arena, who can thus put a small thing in the place of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockId(u32);

impl BlockId {
    /// No block: the root of an empty tree, the end of a free list.
    pub(super) const NONE: BlockId = BlockId(u32::MAX);

    const NUMBER: u32 = 1 << 31;

    /// An id that is no block but this number.
    pub(super) fn from_number(number: u32) -> Self {
        assert!(number < Self::NUMBER - 1, "2^31 numbers in links");
        Self(Self::NUMBER | number)
    }

    /// The number in an id that is no block.
    #[inline]
    pub(super) fn number(self) -> Option<u32> {
        (self.0 & Self::NUMBER != 0).then_some(self.0 & !Self::NUMBER)
    }

    pub(super) fn from_bytes(bytes: [u8; 4]) -> Self {
        Self(u32::from_le_bytes(bytes))
    }

    pub(super) fn to_bytes(self) -> [u8; 4] {
        self.0.to_le_bytes()
    }

    fn start(self) -> usize {
        self.0 as usize * GRANULE_BYTES
    }
}

/// The vector and the free lists.
#[derive(Debug, Clone)]
pub(super) struct Arena {
    bytes: Vec<u8>,
    /// Bytes of `bytes` that were ever cut into blocks.
    used: usize,
    free_bytes: usize,
    free_heads: [BlockId; CLASSES],
}

impl Arena {
    pub(super) fn new() -> Self {
        Self { bytes: Vec::new(), used: 0, free_bytes: 0, free_heads: [BlockId::NONE; CLASSES] }
    }

    /// The block's bytes and everything behind them.
    #[inline]
    pub(super) fn from(&self, id: BlockId) -> &[u8] {
        &self.bytes[id.start()..]
    }

    /// Makes a block that begins with `content`.
    pub(super) fn alloc(&mut self, content: &[u8]) -> BlockId {
        let class = class_of(content.len());
        let id = match self.free_heads[class] {
            BlockId::NONE => self.cut(class),
            head => {
                self.free_heads[class] = BlockId::from_bytes(self.link(head));
                self.free_bytes -= class_bytes(class);
                head
            }
        };
        self.overwrite(id, content);
        id
    }

    /// Frees the block, which was made or last replaced with a content of `len` bytes.
    pub(super) fn free(&mut self, id: BlockId, len: usize) {
        let class = class_of(len);
        let next = self.free_heads[class].to_bytes();
        self.overwrite(id, &next);
        self.free_heads[class] = id;
        self.free_bytes += class_bytes(class);
    }

    /// Puts `content` in the place of a block of `old_len` bytes: the same block if the size class is the same.
    pub(super) fn replace(&mut self, id: BlockId, old_len: usize, content: &[u8]) -> BlockId {
        if class_of(old_len) == class_of(content.len()) {
            self.overwrite(id, content);
            id
        } else {
            self.free(id, old_len);
            self.alloc(content)
        }
    }

    /// Writes the id of a child into the block `at`, `offset` bytes behind its start.
    pub(super) fn set_link(&mut self, at: BlockId, offset: usize, child: BlockId) {
        let start = at.start() + offset;
        self.bytes[start..start + 4].copy_from_slice(&child.to_bytes());
    }

    /// Forgets all blocks, and gives their memory back if it is much.
    pub(super) fn clear(&mut self) {
        if self.bytes.capacity() > KEEP_BYTES {
            self.bytes = Vec::new();
        }
        self.used = 0;
        self.free_bytes = 0;
        self.free_heads = [BlockId::NONE; CLASSES];
    }

    /// Bytes in live blocks, rounding included.
    pub(super) fn live_bytes(&self) -> usize {
        self.used - self.free_bytes
    }

    /// Bytes taken from the system allocator.
    pub(super) fn reserved_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    fn link(&self, id: BlockId) -> [u8; 4] {
        *self.from(id).first_chunk().expect("a block has at least one granule")
    }

    fn overwrite(&mut self, id: BlockId, content: &[u8]) {
        self.bytes[id.start()..id.start() + content.len()].copy_from_slice(content);
    }

    fn cut(&mut self, class: usize) -> BlockId {
        let granule = self.used / GRANULE_BYTES;
        assert!(granule < BlockId::NUMBER as usize, "the arena of subjects has outgrown 16 GiB");
        let id = BlockId(granule as u32);
        self.used += class_bytes(class);
        let len = self.used + SLACK_BYTES;
        if len > self.bytes.len() {
            if len > self.bytes.capacity() {
                // By a quarter instead of doubling: growing a large vector remaps its pages and copies nothing.
                self.bytes.reserve_exact(len - self.bytes.len() + self.used / 4 + 256);
            }
            self.bytes.resize(len, 0);
        }
        id
    }

    /// Fails unless the free lists and `live` (id and content length of every live block) cover the arena exactly.
    #[cfg(test)]
    pub(super) fn check(&self, live: &[(BlockId, usize)]) {
        let mut owners = vec![0u8; self.used / GRANULE_BYTES];
        let mut claim = |id: BlockId, class: usize| {
            for granule in &mut owners[id.0 as usize..][..class_bytes(class) / GRANULE_BYTES] {
                *granule += 1;
            }
        };
        live.iter().for_each(|&(id, len)| claim(id, class_of(len)));
        let mut free_bytes = 0;
        for class in 0..CLASSES {
            let mut id = self.free_heads[class];
            while id != BlockId::NONE {
                claim(id, class);
                free_bytes += class_bytes(class);
                id = BlockId::from_bytes(self.link(id));
            }
        }
        assert!(owners.iter().all(|&count| count == 1), "a granule is leaked or owned twice");
        assert_eq!(free_bytes, self.free_bytes);
        assert!(self.bytes.len() >= self.used + SLACK_BYTES || self.used == 0);
    }
}

/// The size class of a block for `len` bytes: the number of granules minus one while that is exact.
#[inline]
fn class_of(len: usize) -> usize {
    let granules = len.div_ceil(GRANULE_BYTES).max(1);
    if granules <= EXACT_GRANULES_MAX {
        return granules - 1;
    }
    assert!(len <= BLOCK_BYTES_MAX, "a node of {len} bytes");
    // Classes above: 64 << d is followed by 80 << d, 96 << d, 112 << d, 128 << d.
    let doubling = (granules - 1).ilog2() - EXACT_GRANULES_MAX.ilog2();
    let quarter = ((granules - 1) >> (doubling + EXACT_GRANULES_MAX.ilog2() - 2)) & 3;
    EXACT_GRANULES_MAX + 4 * doubling as usize + quarter
}

#[inline]
fn class_bytes(class: usize) -> usize {
    let granules = if class < EXACT_GRANULES_MAX {
        class + 1
    } else {
        let above = class - EXACT_GRANULES_MAX;
        (EXACT_GRANULES_MAX + (above % 4 + 1) * (EXACT_GRANULES_MAX / 4)) << (above / 4)
    };
    granules * GRANULE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_holds_its_sizes_and_wastes_at_most_a_quarter() {
        let mut previous = 0;
        for len in (1..5000).chain((5000..BLOCK_BYTES_MAX).step_by(997)).chain([BLOCK_BYTES_MAX]) {
            let class = class_of(len);
            assert!(class >= previous && class < CLASSES, "{len}");
            previous = class;
            assert!(class_bytes(class) >= len, "{len}");
            assert!(class_bytes(class) <= len + len / 4 + GRANULE_BYTES, "{len}");
            assert_eq!(class_of(class_bytes(class)), class, "{len}");
        }
    }

    #[test]
    fn freed_blocks_come_back_before_the_arena_grows() {
        let mut arena = Arena::new();
        let ids: Vec<BlockId> = (0..100).map(|len| arena.alloc(&vec![7; len])).collect();
        let live = arena.live_bytes();
        for (len, &id) in ids.iter().enumerate() {
            arena.free(id, len);
        }
        assert_eq!(arena.live_bytes(), 0);
        let again: Vec<(BlockId, usize)> = (0..100).map(|len| (arena.alloc(&vec![7; len]), len)).collect();
        assert_eq!(arena.live_bytes(), live);
        assert_eq!(arena.used, live);
        arena.check(&again);
    }

    #[test]
    fn replacing_keeps_the_block_while_the_class_is_the_same() {
        let mut arena = Arena::new();
        let id = arena.alloc(b"12345");
        assert_eq!(arena.replace(id, 5, b"12345678"), id);
        let other = arena.replace(id, 8, b"123456789");
        assert_ne!(other, id);
        assert_eq!(&arena.from(other)[..9], b"123456789");
        arena.check(&[(other, 9)]);
    }

    #[test]
    fn an_empty_arena_gives_large_memory_back() {
        let mut arena = Arena::new();
        arena.alloc(&[0; KEEP_BYTES]);
        arena.clear();
        assert_eq!(arena.reserved_bytes(), 0);
        arena.alloc(b"a");
        let reserved = arena.reserved_bytes();
        arena.clear();
        assert_eq!(arena.reserved_bytes(), reserved);
    }
}
