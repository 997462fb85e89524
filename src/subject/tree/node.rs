//! How a node of the tree lies in its block, and how a changed node is composed.
//!
//! A node is read in place through [`Node`] and never changed in place, except for a link: an edit composes the new
//! content in a scratch buffer ([`compose`]) from pieces of old nodes, and the arena puts it into the same block or another.
//! Composing copies some tens of bytes; in exchange there is one writer of the format instead of one per edit.
//!
//! ```text
//! header   u32   bits 0-7 children, 8 has a value, 9 wildcard byte in the prefix, 10 wildcard byte on an edge,
//!                11-31 length of the prefix
//! value    u32   index of the value; only if the node has one
//! prefix         the bytes that all patterns below share
//! keys           the first bytes of the edges: sorted while there are at most 32, a 256-bit set from 33 on
//! links    u32   one block id per child, in the order of the keys
//! ```
//!
//! All little-endian and unaligned. One block holds everything that a step of a match reads, so that a step costs one
//! or two cache lines. Nodes for 4, 16, 48 and 256 children as in the ART paper were the alternative: the key set keeps
//! the exact number of links at every size, and its rank takes four popcounts instead of a SIMD search.
//!
//! A node that is nothing but a value (no prefix, no children: the last level of `sub.000001`, `sub.000002`, ...) has no
//! block. Its parent's link carries the index of the value, which saves 8 bytes and, at a million subscriptions, one of three
//! or four cache misses of a match.
//!
//! Invariant: keys are sorted and distinct, and the two wildcard flags are exact.
//! A pattern cannot contain space, tab, CR or LF, so 252 children are the most, and eight bits hold their number.

use super::arena::BlockId;
use crate::subject::name::PATTERN_BYTES_MAX;

const VALUE: u32 = 1 << 8;
const WILD_PREFIX: u32 = 1 << 9;
const WILD_EDGE: u32 = 1 << 10;
const PREFIX_LEN_SHIFT: u32 = 11;

const HEADER_BYTES: usize = 4;
const VALUE_BYTES: usize = 4;
const LINK_BYTES: usize = 4;
const SET_BYTES: usize = 32;

/// With more children than this the set is smaller than the list of keys.
const LISTED_CHILDREN_MAX: usize = SET_BYTES;

const _: () = assert!(PATTERN_BYTES_MAX < 1 << (32 - PREFIX_LEN_SHIFT));

/// A node in its block.
#[derive(Clone, Copy)]
pub(super) struct Node<'a> {
    /// From the start of the block to the end of the arena, which is at least 8 bytes behind the node.
    bytes: &'a [u8],
    header: u32,
    /// The second word: the index of the value, if there is one.
    value: u32,
}

/// What a node without a block reads in place of one.
static NO_BLOCK: [u8; 2 * HEADER_BYTES + VALUE_BYTES] = [0; 2 * HEADER_BYTES + VALUE_BYTES];

impl<'a> Node<'a> {
    #[inline]
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, header: u32_at(bytes, 0), value: u32_at(bytes, HEADER_BYTES) }
    }

    /// The node that is nothing but this value.
    #[inline]
    pub(super) fn bare(value: u32) -> Node<'static> {
        Node { bytes: &NO_BLOCK, header: VALUE, value }
    }

    /// The value, if the node is nothing else.
    pub(super) fn as_bare(&self) -> Option<u32> {
        (self.header == VALUE).then_some(self.value)
    }

    /// The bytes of the node, without what follows it in the arena.
    pub(super) fn len(&self) -> usize {
        self.links_at() + self.children() * LINK_BYTES
    }

    #[inline]
    pub(super) fn children(&self) -> usize {
        self.header as usize & 0xff
    }

    #[inline]
    pub(super) fn value(&self) -> Option<u32> {
        (self.header & VALUE != 0).then_some(self.value)
    }

    #[inline]
    pub(super) fn prefix(&self) -> &'a [u8] {
        let start = self.prefix_at();
        &self.bytes[start..start + self.prefix_len()]
    }

    /// Whether the prefix contains a `*` or `>`, as a wildcard or not.
    #[inline]
    pub(super) fn has_wild_prefix(&self) -> bool {
        self.header & WILD_PREFIX != 0
    }

    /// Whether an edge is `*` or `>`, as a wildcard or not.
    #[inline]
    pub(super) fn has_wild_edge(&self) -> bool {
        self.header & WILD_EDGE != 0
    }

    #[inline]
    pub(super) fn child(&self, key: u8) -> Option<BlockId> {
        self.position(key).map(|position| self.link(position))
    }

    /// The child under `key`, and where in the block its link stands.
    pub(super) fn child_slot(&self, key: u8) -> Option<(BlockId, usize)> {
        let position = self.position(key)?;
        Some((self.link(position), self.links_at() + position * LINK_BYTES))
    }

    /// The first child whose key is at least `from`.
    pub(super) fn child_from(&self, from: usize) -> Option<(u8, BlockId)> {
        let key = match self.keys() {
            Keys::List(keys) => keys.iter().copied().find(|&key| usize::from(key) >= from)?,
            Keys::Set(set) => (from..256).map(|key| key as u8).find(|&key| set.contains(key))?,
        };
        Some((key, self.child(key)?))
    }

    #[inline]
    fn prefix_len(&self) -> usize {
        (self.header >> PREFIX_LEN_SHIFT) as usize
    }

    #[inline]
    fn prefix_at(&self) -> usize {
        HEADER_BYTES + if self.header & VALUE != 0 { VALUE_BYTES } else { 0 }
    }

    #[inline]
    fn keys_at(&self) -> usize {
        self.prefix_at() + self.prefix_len()
    }

    #[inline]
    fn links_at(&self) -> usize {
        self.keys_at() + self.children().min(SET_BYTES)
    }

    #[inline]
    fn link(&self, position: usize) -> BlockId {
        BlockId::from_bytes(chunk_at(self.bytes, self.links_at() + position * LINK_BYTES))
    }

    fn keys(&self) -> Keys<'a> {
        let keys = &self.bytes[self.keys_at()..self.links_at()];
        if self.children() <= LISTED_CHILDREN_MAX { Keys::List(keys) } else { Keys::Set(KeySet::read(keys)) }
    }

    fn links(&self) -> &'a [u8] {
        &self.bytes[self.links_at()..self.len()]
    }

    #[inline]
    fn position(&self, key: u8) -> Option<usize> {
        let children = self.children();
        if children > LISTED_CHILDREN_MAX {
            let set = KeySet::read(&self.bytes[self.keys_at()..]);
            return set.contains(key).then(|| set.rank(key));
        }
        // Eight keys at a time: the lowest byte in which the difference is zero is found exactly (a borrow can only
        // disturb bytes above it). Loads may reach past the keys, into the links or the arena's slack; hits there
        // do not count.
        const ONES: u64 = 0x0101_0101_0101_0101;
        let keys_at = self.keys_at();
        let mut start = 0;
        while start < children {
            let differences =
                u64::from_le_bytes(chunk_at(self.bytes, keys_at + start)) ^ (ONES * u64::from(key));
            let zeros = differences.wrapping_sub(ONES) & !differences & (ONES << 7);
            if zeros != 0 {
                let position = start + zeros.trailing_zeros() as usize / 8;
                return (position < children).then_some(position);
            }
            start += 8;
        }
        None
    }
}

/// The children of a node to be composed.
pub(super) enum Edges<'a> {
    /// Exactly these, sorted by key; at most 32.
    Only(&'a [(u8, BlockId)]),
    /// Those of the node.
    Of(Node<'a>),
    /// Those of the node and one more, under a new key.
    With(Node<'a>, u8, BlockId),
    /// Those of the node but for the one under this key.
    Without(Node<'a>, u8),
}

/// Writes a node into `out`; the prefix is given in pieces.
pub(super) fn compose(out: &mut Vec<u8>, prefix: &[&[u8]], value: Option<u32>, edges: Edges<'_>) {
    let prefix_len: usize = prefix.iter().map(|piece| piece.len()).sum();
    assert!(prefix_len <= PATTERN_BYTES_MAX);
    let (children, wild_edge) = match edges {
        Edges::Only(edges) => (edges.len(), edges.iter().any(|&(key, _)| is_wild(key))),
        Edges::Of(node) => (node.children(), node.has_wild_edge()),
        Edges::With(node, key, _) => (node.children() + 1, node.has_wild_edge() || is_wild(key)),
        Edges::Without(node, gone) => (
            node.children() - 1,
            [b'*', b'>'].into_iter().any(|key| key != gone && node.position(key).is_some()),
        ),
    };
    let mut header = u32::from(u8::try_from(children).expect("patterns use at most 252 byte values"));
    header |= (prefix_len as u32) << PREFIX_LEN_SHIFT;
    if value.is_some() {
        header |= VALUE;
    }
    if prefix.iter().any(|piece| piece.iter().any(|&byte| is_wild(byte))) {
        header |= WILD_PREFIX;
    }
    if wild_edge {
        header |= WILD_EDGE;
    }
    out.clear();
    out.extend_from_slice(&header.to_le_bytes());
    if let Some(index) = value {
        out.extend_from_slice(&index.to_le_bytes());
    }
    for piece in prefix {
        out.extend_from_slice(piece);
    }
    match edges {
        Edges::Only(edges) => {
            debug_assert!(edges.len() <= LISTED_CHILDREN_MAX && edges.is_sorted_by(|a, b| a.0 < b.0));
            out.extend(edges.iter().map(|&(key, _)| key));
            for (_, child) in edges {
                out.extend_from_slice(&child.to_bytes());
            }
        }
        Edges::Of(node) => out.extend_from_slice(&node.bytes[node.keys_at()..node.len()]),
        Edges::With(node, key, child) => {
            debug_assert!(node.position(key).is_none());
            let position = match node.keys() {
                Keys::List(keys) => {
                    let position = keys.iter().filter(|&&other| other < key).count();
                    if children <= LISTED_CHILDREN_MAX {
                        out.extend_from_slice(&keys[..position]);
                        out.push(key);
                        out.extend_from_slice(&keys[position..]);
                    } else {
                        let mut set = KeySet::default();
                        keys.iter().chain([&key]).for_each(|&key| set.insert(key));
                        set.write(out);
                    }
                    position
                }
                Keys::Set(mut set) => {
                    let position = set.rank(key);
                    set.insert(key);
                    set.write(out);
                    position
                }
            };
            let (before, after) = node.links().split_at(position * LINK_BYTES);
            out.extend_from_slice(before);
            out.extend_from_slice(&child.to_bytes());
            out.extend_from_slice(after);
        }
        Edges::Without(node, key) => {
            let position = node.position(key).expect("the edge to remove exists");
            match node.keys() {
                Keys::List(keys) => {
                    out.extend_from_slice(&keys[..position]);
                    out.extend_from_slice(&keys[position + 1..]);
                }
                Keys::Set(mut set) => {
                    set.remove(key);
                    if children <= LISTED_CHILDREN_MAX {
                        out.extend((0..=255).filter(|&key| set.contains(key)));
                    } else {
                        set.write(out);
                    }
                }
            }
            let links = node.links();
            out.extend_from_slice(&links[..position * LINK_BYTES]);
            out.extend_from_slice(&links[(position + 1) * LINK_BYTES..]);
        }
    }
}

enum Keys<'a> {
    List(&'a [u8]),
    Set(KeySet),
}

/// Which of the 256 byte values are keys.
#[derive(Default)]
struct KeySet([u64; 4]);

impl KeySet {
    #[inline]
    fn read(bytes: &[u8]) -> Self {
        Self(std::array::from_fn(|word| u64::from_le_bytes(chunk_at(bytes, word * 8))))
    }

    fn write(&self, out: &mut Vec<u8>) {
        for word in self.0 {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }

    #[inline]
    fn contains(&self, key: u8) -> bool {
        self.0[usize::from(key >> 6)] >> (key & 63) & 1 == 1
    }

    /// How many keys are smaller.
    #[inline]
    fn rank(&self, key: u8) -> usize {
        let word = usize::from(key >> 6);
        let below: u32 = self.0[..word].iter().map(|word| word.count_ones()).sum();
        (below + (self.0[word] & ((1 << (key & 63)) - 1)).count_ones()) as usize
    }

    fn insert(&mut self, key: u8) {
        self.0[usize::from(key >> 6)] |= 1 << (key & 63);
    }

    fn remove(&mut self, key: u8) {
        self.0[usize::from(key >> 6)] &= !(1 << (key & 63));
    }
}

pub(super) fn is_wild(byte: u8) -> bool {
    matches!(byte, b'*' | b'>')
}

#[inline]
fn chunk_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("reads stay within the arena and its slack")
}

#[inline]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(chunk_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::super::arena::Arena;
    use super::*;

    fn id(n: u32) -> BlockId {
        BlockId::from_bytes(n.to_le_bytes())
    }

    fn keys_of(node: &Node<'_>) -> Vec<u8> {
        let mut keys = Vec::new();
        let mut from = 0;
        while let Some((key, child)) = node.child_from(from) {
            assert_eq!(child, id(1000 + u32::from(key)));
            keys.push(key);
            from = usize::from(key) + 1;
        }
        keys
    }

    #[test]
    fn children_come_and_go_one_by_one_at_every_size() {
        // Odd steps, so that keys arrive and leave in no particular order.
        let arriving: Vec<u8> = (0..252u32).map(|n| (n * 101 % 256) as u8).collect();
        let mut arena = Arena::new();
        let mut scratch = Vec::new();
        compose(&mut scratch, &[b"pre", b"fix"], Some(7), Edges::Only(&[]));
        let mut block = arena.alloc(&scratch);
        let mut wanted = Vec::new();
        let step = |arena: &mut Arena, block: &mut BlockId, add: bool, key: u8, wanted: &[u8]| {
            let mut scratch = Vec::new();
            let node = Node::new(arena.from(*block));
            let edges = if add {
                Edges::With(node, key, id(1000 + u32::from(key)))
            } else {
                Edges::Without(node, key)
            };
            compose(&mut scratch, &[node.prefix()], node.value(), edges);
            let len = node.len();
            *block = arena.replace(*block, len, &scratch);
            let node = Node::new(arena.from(*block));
            assert_eq!(node.len(), scratch.len());
            assert_eq!(
                (node.prefix(), node.value(), node.children()),
                (&b"prefix"[..], Some(7), wanted.len())
            );
            assert_eq!(keys_of(&node), wanted);
            assert_eq!(node.has_wild_edge(), wanted.iter().any(|&key| is_wild(key)));
            for key in 0..=255 {
                assert_eq!(node.child(key).is_some(), wanted.contains(&key));
            }
        };
        for &key in &arriving {
            wanted.push(key);
            wanted.sort_unstable();
            step(&mut arena, &mut block, true, key, &wanted);
        }
        for &key in arriving.iter().skip(50).chain(arriving.iter().take(50)) {
            wanted.retain(|&other| other != key);
            step(&mut arena, &mut block, false, key, &wanted);
        }
    }

    #[test]
    fn wildcard_bytes_in_the_prefix_are_flagged() {
        let mut scratch = Vec::new();
        for (prefix, wild) in [(&b"a.*.b"[..], true), (b"a>", true), (b"a.b", false), (b"", false)] {
            compose(&mut scratch, &[b"x", prefix], Some(7), Edges::Only(&[]));
            assert_eq!(Node::new(&scratch).has_wild_prefix(), wild);
        }
    }
}
