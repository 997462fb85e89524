//! The subjects of a stream: by name, by number, and in order, so that wildcards are answered without a look at every one.
//!
//! A subject with messages has a number; numbers of subjects that lost their last message are given again. About 80 bytes
//! for each, and the name if it is long (`tests::a_subject_takes_less_than_150_bytes` in `index.rs`).

use std::cell::Cell;
use std::hash::{BuildHasher, BuildHasherDefault};

use hashbrown::HashTable;
use rustc_hash::FxHasher;

use super::sealed::SEGMENT_MESSAGES_MAX;
use crate::subject::name::matches;

/// How many numbers a run of [`Order`] holds before it is split.
const RUN_MAX: usize = 512;

/// One subject: what an append looks at is in one cache line, names of usual length included.
#[derive(Debug)]
#[repr(align(64))]
pub struct Entry {
    pub name: Name,
    /// No message of the subject is before this sequence. The first itself is found when it is asked for, and kept here.
    pub first_from: Cell<u64>,
    pub last_seq: u64,
    pub messages: u64,
    /// The number of the newest append, counted over the life of the index; see `Active::appended`.
    pub newest: u64,
}

/// In place of `newest`: the number is not given.
const FREE: u64 = u64::MAX;

impl Entry {
    /// Whether the number is not given.
    pub fn is_free(&self) -> bool {
        self.newest == FREE
    }

    fn free() -> Entry {
        Entry { name: Name::default(), first_from: Cell::new(0), last_seq: 0, messages: 0, newest: FREE }
    }
}

/// A subject's name.
#[derive(Debug)]
pub enum Name {
    Short(u8, [u8; NAME_INLINE]),
    Long(Box<[u8]>),
}

/// Names up to this length need no allocation.
const NAME_INLINE: usize = 30;
const _: () = assert!(size_of::<Entry>() == 64);

impl From<&[u8]> for Name {
    fn from(name: &[u8]) -> Name {
        if name.len() > NAME_INLINE {
            return Name::Long(name.into());
        }
        let mut short = [0; NAME_INLINE];
        short[..name.len()].copy_from_slice(name);
        Name::Short(name.len() as u8, short)
    }
}

impl std::ops::Deref for Name {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Name::Short(len, name) => &name[..usize::from(*len)],
            Name::Long(name) => name,
        }
    }
}

impl Default for Name {
    fn default() -> Name {
        Name::Short(0, [0; NAME_INLINE])
    }
}

#[derive(Default)]
pub struct Subjects {
    entries: Vec<Entry>,
    free: Vec<u32>,
    by_name: HashTable<u32>,
    order: Order,
    /// The one that was used last: publishers tend to repeat themselves.
    recent: u32,
}

impl Subjects {
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    pub fn get(&self, id: u32) -> &Entry {
        &self.entries[id as usize]
    }

    pub fn get_mut(&mut self, id: u32) -> &mut Entry {
        &mut self.entries[id as usize]
    }

    pub fn find(&self, name: &[u8]) -> Option<u32> {
        self.by_name.find(hash(name), |&id| *self.entries[id as usize].name == *name).copied()
    }

    /// The number of a subject, a new one if it is not known: with no messages yet.
    pub fn find_or_insert(&mut self, name: &[u8]) -> u32 {
        if let Some(entry) = self.entries.get(self.recent as usize)
            && entry.messages > 0
            && *entry.name == *name
        {
            return self.recent;
        }
        let hash_of_name = hash(name);
        let entries = &self.entries;
        if let Some(&id) = self.by_name.find(hash_of_name, |&id| *entries[id as usize].name == *name) {
            self.recent = id;
            return id;
        }
        let id = self.take_free();
        self.insert(id, hash_of_name, name);
        id
    }

    /// [`find_or_insert`](Self::find_or_insert) for a subject that had the number `id` when it was written: mostly it has
    /// it again, which spares a search.
    pub fn find_or_insert_at(&mut self, id: u32, name: &[u8]) -> u32 {
        match self.entries.get(id as usize) {
            Some(entry) if !entry.is_free() && *entry.name == *name => return id,
            Some(entry) if !entry.is_free() => return self.find_or_insert(name),
            _ => {}
        }
        let hash_of_name = hash(name);
        let entries = &self.entries;
        if let Some(&id) = self.by_name.find(hash_of_name, |&id| *entries[id as usize].name == *name) {
            return id;
        }
        // No number is far from the others: a segment has no more subjects than that.
        if id as usize > self.entries.len() + SEGMENT_MESSAGES_MAX {
            return self.find_or_insert(name);
        }
        while self.entries.len() <= id as usize {
            self.free.push(self.entries.len() as u32);
            self.entries.push(Entry::free());
        }
        self.insert(id, hash_of_name, name);
        id
    }

    fn take_free(&mut self) -> u32 {
        while let Some(id) = self.free.pop() {
            // It may have been given since.
            if self.entries[id as usize].is_free() {
                return id;
            }
        }
        self.entries.push(Entry::free());
        u32::try_from(self.entries.len() - 1).expect("fewer than 2^32 subjects")
    }

    fn insert(&mut self, id: u32, hash_of_name: u64, name: &[u8]) {
        self.entries[id as usize] = Entry { name: name.into(), newest: 0, ..Entry::free() };
        let entries = &self.entries;
        self.by_name.insert_unique(hash_of_name, id, |&id| hash(&entries[id as usize].name));
        self.order.insert(id, entries);
        self.recent = id;
    }

    /// Forgets a subject; returns its name.
    pub fn remove(&mut self, id: u32) -> Name {
        let hash = hash(&self.entries[id as usize].name);
        let found =
            self.by_name.find_entry(hash, |&other| other == id).expect("a subject is known by its name");
        found.remove();
        self.order.remove(id, &self.entries);
        self.free.push(id);
        let entry = &mut self.entries[id as usize];
        std::mem::replace(entry, Entry::free()).name
    }

    /// Calls `visit` for each subject that the pattern matches, in byte order, after the name `after`, until it says
    /// false. Goes from one match to the next by seeking wherever the pattern allows it.
    pub fn walk(&self, pattern: &[u8], after: Option<&[u8]>, mut visit: impl FnMut(u32) -> bool) {
        let literal = literal_prefix(pattern);
        let mut place = match after {
            Some(after) if after >= literal => self.order.seek(after, false, &self.entries),
            _ => self.order.seek(literal, true, &self.entries),
        };
        let mut target = Vec::new();
        while let Some(id) = self.order.at(place) {
            let name = &*self.entries[id as usize].name;
            if matches(name, pattern) {
                if !visit(id) {
                    return;
                }
                place = self.order.following(place);
                continue;
            }
            match seek_behind(name, pattern, &mut target) {
                Seek::Next => place = self.order.following(place),
                Seek::Target => place = self.order.seek(&target, true, &self.entries),
                Seek::End => return,
            }
        }
    }
}

enum Seek {
    /// The next subject may match.
    Next,
    /// None before the target does.
    Target,
    /// None does any more.
    End,
}

/// Where the next match can be after `name`, which does not match. Works in byte order: the subjects that begin with given
/// tokens and a dot stand together; only the one that ends with them stands apart, before.
fn seek_behind(name: &[u8], pattern: &[u8], target: &mut Vec<u8>) -> Seek {
    // The end of the name's token that stands for the last `*` so far, where the search goes on if there is nothing
    // more behind it.
    let mut wildcard_end = None;
    let (mut name_at, mut pattern_at) = (0, 0);
    loop {
        let token_end = memchr::memchr(b'.', &name[name_at..]).map_or(name.len(), |dot| name_at + dot);
        let wanted_end =
            memchr::memchr(b'.', &pattern[pattern_at..]).map_or(pattern.len(), |dot| pattern_at + dot);
        let (token, wanted) = (&name[name_at..token_end], &pattern[pattern_at..wanted_end]);
        let is_last = wanted_end == pattern.len();
        if wanted == b"*" {
            wildcard_end = Some(token_end);
        } else if token != wanted {
            target.clear();
            target.extend_from_slice(&name[..name_at]);
            target.extend_from_slice(wanted);
            if !is_last {
                target.push(b'.');
            }
            if **target > *name {
                return Seek::Target;
            }
            break;
        }
        match (token_end == name.len(), is_last) {
            // Too short: a longer one with the same beginning may match, and others may stand between.
            (true, false) => return Seek::Next,
            // Too long: no other with this beginning matches.
            (false, true) => break,
            (true, true) => return Seek::Next,
            (false, false) => (name_at, pattern_at) = (token_end + 1, wanted_end + 1),
        }
    }
    match wildcard_end {
        Some(end) if end < name.len() => {
            target.clear();
            target.extend_from_slice(&name[..end]);
            target.push(b'.' + 1);
            Seek::Target
        }
        Some(_) => Seek::Next,
        None => Seek::End,
    }
}

/// What every match begins with: the tokens before the first wildcard.
fn literal_prefix(pattern: &[u8]) -> &[u8] {
    let mut at = 0;
    loop {
        let end = memchr::memchr(b'.', &pattern[at..]).map_or(pattern.len(), |dot| at + dot);
        match &pattern[at..end] {
            b"*" | b">" => return &pattern[..at],
            _ if end == pattern.len() => return pattern,
            _ => at = end + 1,
        }
    }
}

fn hash(name: &[u8]) -> u64 {
    BuildHasherDefault::<FxHasher>::default().hash_one(name)
}

/// The numbers in the order of the names: sorted runs, each split when it is full. None is empty.
#[derive(Default)]
struct Order {
    runs: Vec<Vec<u32>>,
}

#[derive(Clone, Copy)]
struct Place {
    run: usize,
    at: usize,
}

impl Order {
    fn at(&self, place: Place) -> Option<u32> {
        self.runs.get(place.run)?.get(place.at).copied()
    }

    fn following(&self, place: Place) -> Place {
        if place.at + 1 < self.runs[place.run].len() {
            Place { at: place.at + 1, ..place }
        } else {
            Place { run: place.run + 1, at: 0 }
        }
    }

    /// The first whose name is not below `name`, or above it if it shall not be `name` itself.
    fn seek(&self, name: &[u8], included: bool, entries: &[Entry]) -> Place {
        let is_before = |id: &u32| {
            let other = &*entries[*id as usize].name;
            if included { other < name } else { other <= name }
        };
        let run = self.runs.partition_point(|run| is_before(run.last().expect("no run is empty")));
        let at = self.runs.get(run).map_or(0, |run| run.partition_point(is_before));
        Place { run, at }
    }

    fn insert(&mut self, id: u32, entries: &[Entry]) {
        let mut place = self.seek(&entries[id as usize].name, true, entries);
        if place.run == self.runs.len() {
            // Behind all others.
            match self.runs.len().checked_sub(1) {
                Some(last) => place = Place { run: last, at: self.runs[last].len() },
                None => {
                    self.runs.push(vec![id]);
                    return;
                }
            }
        }
        let run = &mut self.runs[place.run];
        run.insert(place.at, id);
        if run.len() > RUN_MAX {
            // What comes in order fills its runs: only a few stay behind.
            let keep = if place.at + 1 == run.len() { RUN_MAX } else { RUN_MAX / 2 };
            let second = run.split_off(keep);
            self.runs.insert(place.run + 1, second);
        }
    }

    fn remove(&mut self, id: u32, entries: &[Entry]) {
        let place = self.seek(&entries[id as usize].name, true, entries);
        let run = &mut self.runs[place.run];
        assert_eq!(run.remove(place.at), id, "every subject is in order");
        if run.is_empty() {
            self.runs.remove(place.run);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn name() -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(vec!["a", "b", "a-b", "c!", "d/"]), 1..4)
            .prop_map(|tokens| tokens.join("."))
    }

    fn pattern() -> impl Strategy<Value = String> {
        (
            prop::collection::vec(prop::sample::select(vec!["a", "b", "a-b", "*", "zz", "*"]), 1..4),
            any::<bool>(),
        )
            .prop_map(|(tokens, rest)| tokens.join(".") + if rest { ".>" } else { "" })
    }

    proptest! {
        #[test]
        fn walking_finds_what_looking_at_each_one_finds(
            names in prop::collection::vec((name(), any::<bool>()), 0..60),
            pattern in pattern(),
            after in prop::option::of(name()),
        ) {
            let mut subjects = Subjects::default();
            let mut model = BTreeSet::new();
            for (name, keep) in &names {
                let id = subjects.find_or_insert(name.as_bytes());
                subjects.get_mut(id).messages = 1;
                model.insert(name.clone());
                if !keep {
                    subjects.remove(id);
                    model.remove(name);
                }
            }
            prop_assert_eq!(subjects.len(), model.len());
            let after = after.as_deref();
            let mut found = Vec::new();
            subjects.walk(pattern.as_bytes(), after.map(str::as_bytes), |id| {
                found.push(String::from_utf8(subjects.get(id).name.to_vec()).unwrap());
                true
            });
            let wanted: Vec<String> = model
                .into_iter()
                .filter(|name| matches(name.as_bytes(), pattern.as_bytes()))
                .filter(|name| after.is_none_or(|after| name.as_str() > after))
                .collect();
            prop_assert_eq!(found, wanted);
        }
    }

    #[test]
    fn order_holds_over_many_runs() {
        let mut subjects = Subjects::default();
        for number in 0..10_000u64 {
            let id = subjects.find_or_insert(format!("k.{}", number * 7919 % 10_000).as_bytes());
            subjects.get_mut(id).messages = 1;
        }
        let mut last = Vec::new();
        let mut count = 0;
        subjects.walk(b"k.*", None, |id| {
            assert!(*subjects.get(id).name > *last);
            last = subjects.get(id).name.to_vec();
            count += 1;
            true
        });
        assert_eq!(count, 10_000);
    }
}
