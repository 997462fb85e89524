//! The index of patterns: which of up to millions of subscriptions does a published subject reach.
//!
//! A compressed radix tree over the bytes of the patterns. It maps a pattern to one `V`; what a `V` is (subscribers,
//! queue groups) and who may change the tree when is the caller's business. It does not cache results and does not
//! validate subjects.
//!
//! # How it works
//!
//! Patterns are stored verbatim, wildcards included, so finding, inserting and iterating in byte order are those of
//! any radix tree. Only the match gives `*` and `>` a meaning, and only where a token starts:
//!
//! - behind the byte `*` it continues both literally and with the subject moved to the end of its token. Nothing needs
//!   to tell the wildcard `*` from the beginning of the literal `*foo`: behind the moved position the subject has a
//!   dot or its end, and there only the wildcard pattern goes on.
//! - behind the byte `>` a pattern that ends there matches, if the rest of the subject is tokens.
//!
//! A position in the tree has a fixed number of tokens before it, so all ways to reach it stand at the same place of
//! the subject; each position is visited at most once and each pattern reported at most once, if the literal way is
//! left out where it coincides with the wildcard way: where the subject's token is itself `*` or `>`.
//!
//! What remains to be tried is kept on an explicit stack with at most one entry per token of the longest pattern;
//! up to [`PENDING_INLINE`] of them need no allocation.
//!
//! # What the reference does with subjects that no subscription could name
//!
//! Measured on nats-server 2.15.1 over a raw socket, publishing under the subscriptions `*`, `*.*`, `*.>`, `>`,
//! `a.*`, `foo.>` and so on (the whole table: `MEASURED` in `name.rs`, a test there and one here):
//!
//! - A subject with an empty token (`a..b`, `foo.`, `.foo`, `.`) reaches nobody, not even `>`.
//! - A published `*` or `>` is a token like others: `foo.*` and `foo.>` reach `foo.*`, `foo.>`, `*.*`, `*.>` and `>`,
//!   once each, and not `foo` or `foo.bar`. `*.foo` does not reach `a.foo`. `foo.>.x` reaches `foo.>` and `foo.*.*`.
//! - It makes no difference whether the reference answers from its cache.
//!
//! # Cost
//!
//! See `benches/matcher.rs`. Goals at a million subscriptions: a literal match in 200 ns, insert and remove of an
//! inbox together in 600 ns; at most 70 bytes per dense subject and 100 per inbox beside `V` (a test below). A
//! step reads one block, so a match costs about as many cache misses as the tree has levels outside the cache.
//!
//! Invariant (`check` in the tests): a node without value has at least two children, every granule of the arena is
//! in one node or free, every value belongs to one node.

mod arena;
mod node;

use arena::{Arena, BlockId};
use node::{Edges, Node, compose};
use slab::Slab;

use super::name::{Pattern, has_empty_token};

/// Alternatives that a match remembers without allocating. A subject needs more only if more than this many of its
/// tokens can be taken literally and by a `*` on one path.
pub const PENDING_INLINE: usize = 8;

/// Above this an emptied tree gives the memory of its values back.
const KEEP_VALUES: usize = 1024;

/// A map from patterns to `V` that finds all patterns matching a subject.
pub struct Tree<V> {
    root: BlockId,
    nodes: Arena,
    values: Slab<V>,
    /// Where changed nodes are composed.
    scratch: Vec<u8>,
}

impl<V> Default for Tree<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V> Tree<V> {
    /// An empty tree, which holds no memory yet.
    pub fn new() -> Self {
        Self { root: BlockId::NONE, nodes: Arena::new(), values: Slab::new(), scratch: Vec::new() }
    }

    /// How many patterns are in the tree.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether no pattern is in the tree.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Bytes of all nodes, without the values.
    pub fn node_bytes(&self) -> usize {
        self.nodes.live_bytes()
    }

    /// Bytes taken from the system for nodes, used or not, without the values.
    pub fn reserved_bytes(&self) -> usize {
        self.nodes.reserved_bytes()
    }

    /// The value of exactly this pattern.
    pub fn get(&self, pattern: Pattern<'_>) -> Option<&V> {
        Some(&self.values[self.find(pattern)?])
    }

    /// The value of exactly this pattern.
    pub fn get_mut(&mut self, pattern: Pattern<'_>) -> Option<&mut V> {
        let index = self.find(pattern)?;
        Some(&mut self.values[index])
    }

    /// The value of this pattern, a default one if the pattern is new.
    pub fn entry(&mut self, pattern: Pattern<'_>) -> &mut V
    where
        V: Default,
    {
        let index = self.find_or_insert(pattern);
        &mut self.values[index]
    }

    /// Takes the pattern out of the tree.
    pub fn remove(&mut self, pattern: Pattern<'_>) -> Option<V> {
        let mut rest = pattern.as_bytes();
        let mut link = Link::Root;
        let mut id = self.root;
        let mut parent = None;
        let index = loop {
            let node = self.node(id)?;
            rest = rest.strip_prefix(node.prefix())?;
            let Some((&key, behind)) = rest.split_first() else {
                break node.value()?;
            };
            let (child, offset) = node.child_slot(key)?;
            parent = Some((id, link, key));
            link = Link::Child(id, offset);
            id = child;
            rest = behind;
        };
        match self.view(id).children() {
            0 => self.remove_leaf(id, parent),
            1 => self.merge_with_only_child(id, link, None),
            _ => {
                let node = view(&self.nodes, id);
                compose(&mut self.scratch, &[node.prefix()], None, Edges::Of(node));
                self.replace(id, link);
            }
        }
        let value = self.values.remove(index as usize);
        if self.values.is_empty() {
            self.nodes.clear();
            if self.values.capacity() > KEEP_VALUES {
                self.values = Slab::new();
            }
        }
        Some(value)
    }

    /// All patterns and their values in the order of the patterns' bytes. Allocates each pattern: for monitoring.
    pub fn iter(&self) -> Iter<'_, V> {
        let mut iter = Iter { tree: self, levels: Vec::new(), path: Vec::new() };
        iter.enter(self.root);
        iter
    }

    /// Calls `f` with the value of every pattern that matches the subject, each once, in an order that depends only on
    /// the patterns in the tree. The subject may be any bytes.
    ///
    /// Budget: 200 ns for a literal match among a million (`benches/matcher.rs`).
    pub fn for_each_match<'a>(&'a self, subject: &[u8], mut f: impl FnMut(&'a V)) {
        if self.root == BlockId::NONE {
            return;
        }
        let mut emit = |index: u32| f(&self.values[index as usize]);
        let mut pending = Pending::new();
        let mut next = Some(Place { node: self.root, skip: 0, at: 0 });
        while let Some(place) = next {
            self.follow(place, subject, &mut pending, &mut emit);
            next = pending.pop();
        }
    }

    /// Follows the literal way from a place to its end; leaves the wildcard ways that branch off in `pending`.
    #[inline]
    fn follow(&self, from: Place, subject: &[u8], pending: &mut Pending, emit: &mut impl FnMut(u32)) {
        let Place { node: mut id, skip, mut at } = from;
        let mut skip = skip as usize;
        loop {
            let node = self.view(id);
            let prefix = &node.prefix()[skip..];
            if !node.has_wild_prefix() {
                // Most inner nodes of dense names have no prefix: no call for those.
                if !prefix.is_empty() && !subject[at..].starts_with(prefix) {
                    return;
                }
                at += prefix.len();
            } else if let Some(behind) = follow_wild_prefix(&node, id, skip, at, subject, pending, emit) {
                at = behind;
            } else {
                return;
            }
            let Some(&key) = subject.get(at) else {
                if let Some(index) = node.value() {
                    emit(index);
                }
                return;
            };
            if node.has_wild_edge() && starts_token(subject, at) {
                let end = token_end(subject, at);
                if end == at {
                    return;
                }
                if let Some(child) = node.child(b'>') {
                    let child = self.view(child);
                    if let Some(index) = child.value()
                        && child.prefix().is_empty()
                        && !has_empty_token(&subject[at..])
                    {
                        emit(index);
                    }
                }
                if let Some(child) = node.child(b'*') {
                    pending.push(Place { node: child, skip: 0, at: end });
                }
                if end == at + 1 && node::is_wild(key) {
                    return;
                }
            }
            let Some(child) = node.child(key) else { return };
            id = child;
            skip = 0;
            at += 1;
        }
    }

    fn find(&self, pattern: Pattern<'_>) -> Option<usize> {
        let mut rest = pattern.as_bytes();
        let mut node = self.node(self.root)?;
        loop {
            rest = rest.strip_prefix(node.prefix())?;
            let Some((&key, behind)) = rest.split_first() else {
                return node.value().map(|index| index as usize);
            };
            node = self.view(node.child(key)?);
            rest = behind;
        }
    }

    fn find_or_insert(&mut self, pattern: Pattern<'_>) -> usize
    where
        V: Default,
    {
        let mut rest = pattern.as_bytes();
        let mut link = Link::Root;
        let mut id = self.root;
        loop {
            let Some(node) = self.node(id) else {
                let (root, index) = self.new_leaf(rest);
                self.root = root;
                return index as usize;
            };
            let prefix = node.prefix();
            let common = prefix.iter().zip(rest).take_while(|(a, b)| a == b).count();
            if common < prefix.len() {
                return self.split(id, link, rest, common) as usize;
            }
            let Some((&key, behind)) = rest[common..].split_first() else {
                return self.give_value(id, link) as usize;
            };
            let Some((child, offset)) = node.child_slot(key) else {
                let (leaf, index) = self.new_leaf(behind);
                let node = view(&self.nodes, id);
                compose(&mut self.scratch, &[node.prefix()], node.value(), Edges::With(node, key, leaf));
                self.replace(id, link);
                return index as usize;
            };
            link = Link::Child(id, offset);
            id = child;
            rest = behind;
        }
    }

    /// The index of the node's value; gives it one if it has none.
    fn give_value(&mut self, id: BlockId, link: Link) -> u32
    where
        V: Default,
    {
        if let Some(index) = self.view(id).value() {
            return index;
        }
        let index = self.new_value();
        let node = view(&self.nodes, id);
        compose(&mut self.scratch, &[node.prefix()], Some(index), Edges::Of(node));
        self.replace(id, link);
        index
    }

    /// Puts a new node over `id`, which takes the first `common` bytes of its prefix, and `rest` into or under it.
    fn split(&mut self, id: BlockId, link: Link, rest: &[u8], common: usize) -> u32
    where
        V: Default,
    {
        let node = view(&self.nodes, id);
        let lower_key = node.prefix()[common];
        compose(&mut self.scratch, &[&node.prefix()[common + 1..]], node.value(), Edges::Of(node));
        let len = node.len();
        let lower = self.exchange(id, len);
        let (upper_prefix, behind) = rest.split_at(common);
        let index = if let Some((&key, behind)) = behind.split_first() {
            let (leaf, index) = self.new_leaf(behind);
            let mut edges = [(key, leaf), (lower_key, lower)];
            edges.sort_unstable_by_key(|&(key, _)| key);
            compose(&mut self.scratch, &[upper_prefix], None, Edges::Only(&edges));
            index
        } else {
            let index = self.new_value();
            compose(&mut self.scratch, &[upper_prefix], Some(index), Edges::Only(&[(lower_key, lower)]));
            index
        };
        let upper = self.place();
        self.set_link(link, upper);
        index
    }

    fn remove_leaf(&mut self, id: BlockId, parent: Option<(BlockId, Link, u8)>) {
        self.discard(id, self.view(id).len());
        let Some((parent, link, key)) = parent else {
            self.root = BlockId::NONE;
            return;
        };
        let node = view(&self.nodes, parent);
        if node.children() == 2 && node.value().is_none() {
            self.merge_with_only_child(parent, link, Some(key));
        } else {
            compose(&mut self.scratch, &[node.prefix()], node.value(), Edges::Without(node, key));
            self.replace(parent, link);
        }
    }

    /// Joins the node, whose value is no longer wanted, with its only child; the child under `gone` no longer counts.
    fn merge_with_only_child(&mut self, id: BlockId, link: Link, gone: Option<u8>) {
        let node = view(&self.nodes, id);
        let (mut key, mut child_id) = node.child_from(0).expect("the node has a child");
        if gone == Some(key) {
            (key, child_id) = node.child_from(usize::from(key) + 1).expect("the node has another child");
        }
        let child = view(&self.nodes, child_id);
        compose(&mut self.scratch, &[node.prefix(), &[key], child.prefix()], child.value(), Edges::Of(child));
        let (len, child_len) = (node.len(), child.len());
        self.discard(id, len);
        let merged = self.exchange(child_id, child_len);
        self.set_link(link, merged);
    }

    fn new_value(&mut self) -> u32
    where
        V: Default,
    {
        u32::try_from(self.values.insert(V::default())).expect("fewer than 2^32 patterns")
    }

    fn new_leaf(&mut self, prefix: &[u8]) -> (BlockId, u32)
    where
        V: Default,
    {
        let index = self.new_value();
        compose(&mut self.scratch, &[prefix], Some(index), Edges::Only(&[]));
        (self.place(), index)
    }

    /// Gives the composed node a place.
    fn place(&mut self) -> BlockId {
        match Node::new(&self.scratch).as_bare() {
            Some(value) => BlockId::from_number(value),
            None => self.nodes.alloc(&self.scratch),
        }
    }

    /// Frees the place of a node of `len` bytes.
    fn discard(&mut self, id: BlockId, len: usize) {
        if id.number().is_none() {
            self.nodes.free(id, len);
        }
    }

    /// Gives the composed node the place of another of `len` bytes, or a new place.
    fn exchange(&mut self, id: BlockId, len: usize) -> BlockId {
        if id.number().is_some() || Node::new(&self.scratch).as_bare().is_some() {
            self.discard(id, len);
            self.place()
        } else {
            self.nodes.replace(id, len, &self.scratch)
        }
    }

    /// Puts the composed node in the place of `id`.
    fn replace(&mut self, id: BlockId, link: Link) {
        let len = self.view(id).len();
        let new = self.exchange(id, len);
        if new != id {
            self.set_link(link, new);
        }
    }

    fn set_link(&mut self, link: Link, id: BlockId) {
        match link {
            Link::Root => self.root = id,
            Link::Child(parent, offset) => self.nodes.set_link(parent, offset, id),
        }
    }

    fn node(&self, id: BlockId) -> Option<Node<'_>> {
        (id != BlockId::NONE).then(|| self.view(id))
    }

    #[inline]
    fn view(&self, id: BlockId) -> Node<'_> {
        view(&self.nodes, id)
    }
}

impl<'a, V> IntoIterator for &'a Tree<V> {
    type Item = (Vec<u8>, &'a V);
    type IntoIter = Iter<'a, V>;

    fn into_iter(self) -> Iter<'a, V> {
        self.iter()
    }
}

/// The patterns of a tree in byte order, see [`Tree::iter`].
pub struct Iter<'a, V> {
    tree: &'a Tree<V>,
    levels: Vec<Level>,
    path: Vec<u8>,
}

struct Level {
    node: BlockId,
    path_len: usize,
    /// The value, until it has been reported.
    value: Option<u32>,
    /// The key from which on the children have not been entered yet.
    next_key: usize,
}

impl<V> Iter<'_, V> {
    fn enter(&mut self, id: BlockId) {
        if let Some(node) = self.tree.node(id) {
            self.path.extend_from_slice(node.prefix());
            self.levels.push(Level { node: id, path_len: self.path.len(), value: node.value(), next_key: 0 });
        }
    }
}

impl<'a, V> Iterator for Iter<'a, V> {
    type Item = (Vec<u8>, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let level = self.levels.last_mut()?;
            self.path.truncate(level.path_len);
            if let Some(index) = level.value.take() {
                return Some((self.path.clone(), &self.tree.values[index as usize]));
            }
            if let Some((key, child)) = self.tree.view(level.node).child_from(level.next_key) {
                level.next_key = usize::from(key) + 1;
                self.path.push(key);
                self.enter(child);
            } else {
                self.levels.pop();
            }
        }
    }
}

/// Where the id of a node is written.
#[derive(Clone, Copy)]
enum Link {
    Root,
    /// In this node, at this offset from its start.
    Child(BlockId, usize),
}

/// A position in the tree, `skip` bytes into the prefix of a node, and the position in the subject that goes with it.
#[derive(Clone, Copy)]
struct Place {
    node: BlockId,
    skip: u32,
    at: usize,
}

/// The places that a match has yet to follow. Bounded by the tokens of the longest pattern in the tree: a place is
/// pushed at a token start, and the last one pushed is followed first.
struct Pending {
    inline: [Place; PENDING_INLINE],
    len: usize,
    overflow: Vec<Place>,
}

impl Pending {
    fn new() -> Self {
        let unused = Place { node: BlockId::NONE, skip: 0, at: 0 };
        Self { inline: [unused; PENDING_INLINE], len: 0, overflow: Vec::new() }
    }

    fn push(&mut self, place: Place) {
        if self.len < PENDING_INLINE {
            self.inline[self.len] = place;
            self.len += 1;
        } else {
            self.overflow.push(place);
        }
    }

    fn pop(&mut self) -> Option<Place> {
        // What overflowed came last.
        self.overflow.pop().or_else(|| {
            self.len = self.len.checked_sub(1)?;
            Some(self.inline[self.len])
        })
    }
}

/// The node under an id. Beside [`Tree::view`] for edits, which borrow the scratch buffer at the same time.
#[inline]
fn view(nodes: &Arena, id: BlockId) -> Node<'_> {
    match id.number() {
        Some(value) => Node::bare(value),
        None => Node::new(nodes.from(id)),
    }
}

/// Follows the rest of a prefix that contains wildcard bytes; returns where in the subject it ends.
fn follow_wild_prefix(
    node: &Node<'_>,
    id: BlockId,
    skip: usize,
    mut at: usize,
    subject: &[u8],
    pending: &mut Pending,
    emit: &mut impl FnMut(u32),
) -> Option<usize> {
    let prefix = node.prefix();
    for (position, &wanted) in prefix.iter().enumerate().skip(skip) {
        let byte = *subject.get(at)?;
        if node::is_wild(wanted) && starts_token(subject, at) {
            let end = token_end(subject, at);
            if end == at {
                return None;
            }
            let literal_differs = byte == wanted && end > at + 1;
            if wanted == b'>' {
                if let Some(index) = node.value()
                    && position + 1 == prefix.len()
                    && !has_empty_token(&subject[at..])
                {
                    emit(index);
                }
            } else if literal_differs {
                pending.push(Place { node: id, skip: position as u32 + 1, at: end });
            } else {
                at = end;
                continue;
            }
            if !literal_differs {
                return None;
            }
        } else if byte != wanted {
            return None;
        }
        at += 1;
    }
    Some(at)
}

#[inline]
fn starts_token(subject: &[u8], at: usize) -> bool {
    at == 0 || subject[at - 1] == b'.'
}

#[inline]
fn token_end(subject: &[u8], at: usize) -> usize {
    memchr::memchr(b'.', &subject[at..]).map_or(subject.len(), |len| at + len)
}

#[cfg(test)]
impl<V> Tree<V> {
    /// Fails unless the invariant of this file holds.
    fn check(&self) {
        let mut live = Vec::new();
        let mut values = std::collections::HashSet::new();
        let mut todo: Vec<(BlockId, Vec<u8>)> = Vec::new();
        if self.root != BlockId::NONE {
            todo.push((self.root, Vec::new()));
        }
        while let Some((id, mut path)) = todo.pop() {
            let node = self.view(id);
            if id.number().is_none() {
                assert_eq!(node.as_bare(), None, "{}: a block for nothing but a value", path.escape_ascii());
                live.push((id, node.len()));
            }
            path.extend_from_slice(node.prefix());
            assert!(node.children() >= 2 || node.value().is_some(), "{}: not merged", path.escape_ascii());
            assert_eq!(node.has_wild_prefix(), node.prefix().iter().any(|&byte| node::is_wild(byte)));
            assert_eq!(node.has_wild_edge(), node.child(b'*').or(node.child(b'>')).is_some());
            if let Some(index) = node.value() {
                Pattern::parse(&path).unwrap();
                assert!(values.insert(index), "a value belongs to two nodes");
                assert!(self.values.contains(index as usize));
            }
            let (mut from, mut count) = (0, 0);
            while let Some((key, child)) = node.child_from(from) {
                assert_eq!(node.child(key), Some(child));
                todo.push((child, [&path[..], &[key]].concat()));
                from = usize::from(key) + 1;
                count += 1;
            }
            assert_eq!(count, node.children());
        }
        assert_eq!(values.len(), self.values.len());
        self.nodes.check(&live);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::super::name::{MEASURED, MEASURED_PATTERNS, subject_matches_pattern};
    use super::*;

    fn pattern(text: &str) -> Pattern<'_> {
        Pattern::parse(text.as_bytes()).unwrap()
    }

    fn tree_of(patterns: &[&str]) -> Tree<String> {
        let mut tree = Tree::new();
        for text in patterns {
            *tree.entry(pattern(text)) = text.to_string();
            tree.check();
        }
        tree
    }

    fn matches<'a>(tree: &'a Tree<String>, subject: &str) -> Vec<&'a str> {
        let mut found = Vec::new();
        tree.for_each_match(subject.as_bytes(), |value| found.push(value.as_str()));
        found.sort_unstable();
        found
    }

    #[test]
    fn an_empty_tree_matches_nothing() {
        let mut tree = Tree::<String>::new();
        assert!(matches(&tree, "a").is_empty() && matches(&tree, "").is_empty());
        assert_eq!(tree.remove(pattern("a")), None);
        assert_eq!(tree.get(pattern("a")), None);
        assert_eq!(tree.iter().count(), 0);
        assert_eq!(tree.reserved_bytes(), 0);
        tree.check();
    }

    #[test]
    fn a_pattern_is_found_only_as_a_whole() {
        let mut tree = tree_of(&["foo.bar", "foo.baz", "foo", "foo.*"]);
        for text in ["foo.bar", "foo.baz", "foo", "foo.*"] {
            assert_eq!(tree.get(pattern(text)).map(String::as_str), Some(text));
        }
        for text in ["f", "foo.ba", "foo.bar.x", "foo.>", "g"] {
            assert_eq!(tree.get(pattern(text)), None);
            assert_eq!(tree.remove(pattern(text)), None);
        }
        assert_eq!(tree.len(), 4);
        tree.get_mut(pattern("foo")).unwrap().push('!');
        assert_eq!(tree.remove(pattern("foo")), Some("foo!".to_owned()));
        assert_eq!(tree.len(), 3);
        tree.check();
    }

    #[test]
    fn unvalidated_subjects_match_as_measured_on_the_reference() {
        let tree = tree_of(MEASURED_PATTERNS);
        for (subject, wanted) in MEASURED {
            assert_eq!(&matches(&tree, subject), wanted, "{subject}");
        }
    }

    #[test]
    fn a_published_wildcard_token_is_a_literal_and_matches_once() {
        for patterns in [&["foo.*"][..], &["foo.*", "foo.*bar"], &["foo.*", "foo.x"], &["foo.*", "foo.*.x"]] {
            assert_eq!(matches(&tree_of(patterns), "foo.*"), ["foo.*"], "{patterns:?}");
        }
        for patterns in [&["foo.>"][..], &["foo.>", "foo.>bar"], &["foo.>", "foo.x"]] {
            assert_eq!(matches(&tree_of(patterns), "foo.>"), ["foo.>"], "{patterns:?}");
        }
    }

    #[test]
    fn tokens_that_only_begin_with_a_wildcard_byte_are_literals() {
        let tree = tree_of(&["*foo", "*", ">foo", ">", "*foo.x", "a.>b", "a.*b"]);
        assert_eq!(matches(&tree, "*foo"), ["*", "*foo", ">"]);
        assert_eq!(matches(&tree, ">foo"), ["*", ">", ">foo"]);
        assert_eq!(matches(&tree, "foo"), ["*", ">"]);
        assert_eq!(matches(&tree, "*foo.x"), ["*foo.x", ">"]);
        assert_eq!(matches(&tree, "a.>b"), [">", "a.>b"]);
        assert_eq!(matches(&tree, "a.xb"), [">"]);
    }

    #[test]
    fn iteration_is_in_byte_order_whatever_the_order_of_insertion() {
        let sorted = ["!", "*", "*!", "*.a", "*foo", ">", "a", "a.*", "a.b", "a.b.>", "ab", "b"];
        let mut patterns = sorted;
        for _ in 0..patterns.len() {
            patterns.rotate_left(5);
            patterns.swap(0, 7);
            let tree = tree_of(&patterns);
            let listed: Vec<String> = tree.iter().map(|(_, value)| value.clone()).collect();
            assert_eq!(listed, sorted);
            assert!(tree.iter().all(|(bytes, value)| bytes == value.as_bytes()));
        }
    }

    #[test]
    fn every_wildcard_combination_of_a_deep_subject_matches_once() {
        // 2^10 patterns over the subject's ten tokens, and more pending places than fit inline.
        let mut tree = Tree::<u32>::new();
        let depth = 10;
        for mask in 0..1u32 << depth {
            let tokens: Vec<&str> =
                (0..depth).map(|bit| if mask >> bit & 1 == 1 { "*" } else { "t" }).collect();
            *tree.entry(pattern(&tokens.join("."))) = mask;
        }
        tree.check();
        let mut found = Vec::new();
        tree.for_each_match(vec!["t"; depth].join(".").as_bytes(), |&mask| found.push(mask));
        found.sort_unstable();
        assert!(found.into_iter().eq(0..1 << depth));
    }

    #[test]
    fn more_alternatives_than_fit_inline_are_all_followed() {
        let depth = 3 * PENDING_INLINE;
        let mut tree = Tree::<usize>::new();
        let literal = vec!["t"; depth].join(".");
        *tree.entry(pattern(&literal)) = depth;
        for starred in 0..depth {
            let tokens: Vec<&str> =
                (0..depth).map(|token| if token == starred { "*" } else { "t" }).collect();
            *tree.entry(pattern(&tokens.join("."))) = starred;
        }
        let mut found = Vec::new();
        tree.for_each_match(literal.as_bytes(), |&starred| found.push(starred));
        found.sort_unstable();
        assert!(found.into_iter().eq(0..=depth));
    }

    #[test]
    fn the_longest_pattern_and_its_deepest_tree_are_handled() {
        let long = vec!["*"; super::super::name::PATTERN_BYTES_MAX / 2].join(".");
        let mut tree = Tree::<u32>::new();
        *tree.entry(pattern(&long)) = 1;
        *tree.entry(pattern(&long[..long.len() / 2 + 1 - long.len() / 2 % 2])) = 2;
        tree.check();
        let mut found = Vec::new();
        tree.for_each_match(long.replace('*', "x").as_bytes(), |&value| found.push(value));
        assert_eq!(found, [1]);
        // A node at every byte: a descent of thousands of levels.
        let deep = "a".repeat(4096);
        for len in 1..=deep.len() {
            tree.entry(pattern(&deep[..len]));
        }
        assert_eq!(tree.iter().count(), 4098);
        tree.check();
    }

    #[test]
    fn churn_of_inboxes_does_not_grow_the_arena() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut tree = Tree::<u64>::new();
        let inboxes: Vec<String> = (0..2000).map(|_| inbox(&mut random)).collect();
        for inbox in &inboxes {
            tree.entry(pattern(inbox));
        }
        let reserved = tree.reserved_bytes();
        for round in 0..200_000 {
            let inbox = inbox(&mut random);
            *tree.entry(pattern(&inbox)) = round;
            assert_eq!(tree.remove(pattern(&inbox)), Some(round));
        }
        tree.check();
        // The mix of node sizes wanders a little with the random names.
        assert!(tree.reserved_bytes() <= reserved + reserved / 4, "{reserved} -> {}", tree.reserved_bytes());
        for inbox in &inboxes {
            assert!(tree.remove(pattern(inbox)).is_some());
        }
        assert!(tree.is_empty());
        assert_eq!(tree.node_bytes(), 0);
    }

    #[test]
    fn dense_subjects_take_at_most_70_bytes_and_inboxes_100() {
        const COUNT: usize = 100_000;
        let mut random = fastrand::Rng::with_seed(7);
        let names: [(&str, usize, Vec<String>); 3] = [
            ("dense", 70, (0..COUNT).map(|n| format!("sub.{n:06}")).collect()),
            ("inbox", 100, (0..COUNT).map(|_| inbox(&mut random)).collect()),
            (
                "inbox and tail",
                100,
                (0..COUNT).map(|_| format!("{}.{}", inbox(&mut random), random.u32(..))).collect(),
            ),
        ];
        for (what, budget, names) in names {
            let mut tree = Tree::<u32>::new();
            names.iter().for_each(|name| *tree.entry(pattern(name)) += 1);
            assert_eq!(tree.len(), COUNT);
            let (live, reserved) = (tree.node_bytes() / COUNT, tree.reserved_bytes() / COUNT);
            println!("{what}: {live} bytes per subject, {reserved} reserved");
            assert!(reserved <= budget, "{what}: {reserved} bytes");
        }
    }

    fn inbox(random: &mut fastrand::Rng) -> String {
        "_INBOX.".chars().chain((0..22).map(|_| random.alphanumeric())).collect()
    }

    /// Dots and tokens from a small alphabet, so that names often share beginnings and often match.
    fn any_name() -> impl Strategy<Value = String> {
        vec(select(vec!["a", "b", "ab", "*", ">", "", "*a", ">a", "a*"]), 1..5)
            .prop_map(|tokens| tokens.join("."))
    }

    fn any_pattern() -> impl Strategy<Value = String> {
        any_name().prop_filter("a pattern", |name| Pattern::parse(name.as_bytes()).is_ok())
    }

    /// Every byte that may stand in a pattern, so that nodes grow past a list of keys and back.
    fn wide_pattern() -> impl Strategy<Value = Vec<u8>> {
        vec(any::<u8>(), 1..3).prop_filter("a pattern", |name| Pattern::parse(name).is_ok())
    }

    fn assert_equals(tree: &Tree<u32>, model: &BTreeMap<Vec<u8>, u32>, subjects: &[Vec<u8>]) {
        tree.check();
        assert_eq!(tree.len(), model.len());
        assert!(tree.iter().map(|(bytes, &value)| (bytes, value)).eq(model.clone()));
        for subject in subjects {
            let mut found = Vec::new();
            tree.for_each_match(subject, |&value| found.push(value));
            found.sort_unstable();
            let mut wanted: Vec<u32> = model
                .iter()
                .filter(|(bytes, _)| subject_matches_pattern(subject, Pattern::parse(bytes).unwrap()))
                .map(|(_, &value)| value)
                .collect();
            wanted.sort_unstable();
            assert_eq!(found, wanted, "{}", subject.escape_ascii());
        }
    }

    fn run(steps: &[(bool, Vec<u8>)], subjects: &[Vec<u8>]) {
        let mut tree = Tree::<u32>::new();
        let mut model = BTreeMap::new();
        for (number, (insert, bytes)) in steps.iter().enumerate() {
            let pattern = Pattern::parse(bytes).unwrap();
            if *insert {
                // A second insert of a pattern must find the first one's value.
                assert_eq!(*tree.entry(pattern), model.get(bytes).copied().unwrap_or_default());
                *tree.entry(pattern) = number as u32;
                model.insert(bytes.clone(), number as u32);
                assert_eq!(tree.get(pattern), Some(&(number as u32)));
            } else {
                assert_eq!(tree.remove(pattern), model.remove(bytes));
                assert_eq!(tree.get(pattern), None);
            }
            assert_equals(&tree, &model, subjects);
        }
    }

    proptest! {
        #[test]
        fn the_tree_matches_like_the_plain_matcher_under_inserts_and_removals(
            steps in vec((prop::bool::weighted(0.65), any_pattern().prop_map(String::into_bytes)), 1..40),
            subjects in vec(any_name().prop_map(String::into_bytes), 1..12),
        ) {
            run(&steps, &subjects);
        }

        #[test]
        fn wide_nodes_grow_and_shrink_like_a_map(
            inserts in vec((Just(true), wide_pattern()), 1..150),
            removals in vec((prop::bool::weighted(0.2), wide_pattern()), 1..150),
            subject in vec(any::<u8>(), 0..3),
        ) {
            let mut steps = inserts.clone();
            steps.extend(removals);
            steps.extend(inserts.into_iter().map(|(_, bytes)| (false, bytes)));
            run(&steps, &[subject]);
        }
    }
}
