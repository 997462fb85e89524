//! Which ids of messages were seen within the window: a message whose id is among them is not stored again.
//!
//! Ids lie one behind the other in chunks of memory; entries are in the order of sequences, so that what is too old goes from the front
//! and whole chunks with it. An entry costs 32 bytes, its place in the table (16 bytes, and as many empty ones at most), and its id. [`MEMORY_BYTES_MAX`] bounds all of it: beyond
//! that the oldest ids are forgotten before their time.
//!
//! It is not stored: it is made again from the headers of the messages when a stream is opened.

use std::collections::VecDeque;
use std::hash::Hasher as _;

use hashbrown::hash_table::{self as table, HashTable};

/// The most memory that one stream's ids take.
pub const MEMORY_BYTES_MAX: usize = 1 << 30;

/// Ids are kept in pieces of memory of this size; longer ids have one of their own.
const CHUNK_BYTES: usize = 64 * 1024;

/// What an entry takes in memory, with its place in the table.
const ENTRY_BYTES: usize = size_of::<Entry>() + 2 * size_of::<Slot>();

/// See the file's header.
#[derive(Debug)]
pub struct Dedup {
    /// Numbers of entries, by the hash of their ids.
    table: HashTable<Slot>,
    ids: Ids,
    hasher: Hasher,
}

/// The ids, by the numbers of their entries.
#[derive(Debug, Default)]
struct Ids {
    entries: VecDeque<Entry>,
    /// The number of the first entry.
    first: u64,
    chunks: VecDeque<Vec<u8>>,
    /// The number of the first chunk.
    first_chunk: u64,
    chunk_bytes: usize,
}

/// A place in the table. The hash is kept, so that a table that grows does not look at every id.
#[derive(Debug, Clone, Copy)]
struct Slot {
    hash: u64,
    number: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    time_ns: i64,
    seq: u64,
    chunk: u64,
    from: u32,
    len: u32,
}

impl Dedup {
    /// Nothing seen yet. The seed keeps publishers from choosing ids that collide.
    pub fn new(seed: u64) -> Dedup {
        Dedup { table: HashTable::new(), ids: Ids::default(), hasher: Hasher(seed) }
    }

    /// The sequence of the message with this id, if it was seen within the window before `now_ns`.
    pub fn find(&mut self, id: &[u8], now_ns: i64, window_ns: i64) -> Option<u64> {
        self.forget_older_than(now_ns.saturating_sub(window_ns));
        let hash = self.hasher.hash(id);
        let slot = self.table.find(hash, |slot| slot.hash == hash && self.ids.get(slot.number) == id)?;
        Some(self.ids.entries[(slot.number - self.ids.first) as usize].seq)
    }

    /// Notes the id of a message. Sequences grow.
    pub fn insert(&mut self, id: &[u8], seq: u64, time_ns: i64) {
        let number = self.ids.push(id, seq, time_ns);
        let hash = self.hasher.hash(id);
        let is_same = |slot: &Slot| slot.hash == hash && self.ids.get(slot.number) == id;
        // A newer message of the same id takes the place of the older one.
        match self.table.entry(hash, is_same, |slot| slot.hash) {
            table::Entry::Occupied(mut entry) => entry.get_mut().number = number,
            table::Entry::Vacant(entry) => drop(entry.insert(Slot { hash, number })),
        }
        while self.memory_bytes() > MEMORY_BYTES_MAX {
            self.forget_first();
        }
    }

    /// Forgets the ids of messages from this sequence on: they were not stored after all.
    pub fn forget_from(&mut self, seq: u64) {
        while self.ids.entries.back().is_some_and(|entry| entry.seq >= seq) {
            self.remove_from_table(self.ids.first + self.ids.entries.len() as u64 - 1);
            self.ids.entries.pop_back();
        }
    }

    /// Forgets what was seen at `time_ns` or before.
    pub fn forget_older_than(&mut self, time_ns: i64) {
        while self.ids.entries.front().is_some_and(|entry| entry.time_ns <= time_ns) {
            self.forget_first();
        }
    }

    /// How many ids are remembered.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether no id is remembered.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    fn memory_bytes(&self) -> usize {
        self.ids.chunk_bytes + self.ids.entries.len() * ENTRY_BYTES
    }

    fn forget_first(&mut self) {
        self.remove_from_table(self.ids.first);
        self.ids.pop_front();
    }

    /// Takes an entry out of the table, unless a newer one of the same id has its place.
    fn remove_from_table(&mut self, number: u64) {
        let hash = self.hasher.hash(self.ids.get(number));
        if let Ok(entry) = self.table.find_entry(hash, |slot| slot.number == number) {
            entry.remove();
        }
    }
}

impl Ids {
    fn get(&self, number: u64) -> &[u8] {
        let entry = &self.entries[(number - self.first) as usize];
        &self.chunks[(entry.chunk - self.first_chunk) as usize][entry.from as usize..][..entry.len as usize]
    }

    fn push(&mut self, id: &[u8], seq: u64, time_ns: i64) -> u64 {
        if self.chunks.back().is_none_or(|chunk| chunk.len() + id.len() > chunk.capacity()) {
            let chunk = Vec::with_capacity(id.len().max(CHUNK_BYTES));
            self.chunk_bytes += chunk.capacity();
            self.chunks.push_back(chunk);
        }
        let chunk = self.first_chunk + self.chunks.len() as u64 - 1;
        let bytes = self.chunks.back_mut().expect("one was just made");
        let from = bytes.len() as u32;
        bytes.extend_from_slice(id);
        self.entries.push_back(Entry { time_ns, seq, chunk, from, len: id.len() as u32 });
        self.first + self.entries.len() as u64 - 1
    }

    fn pop_front(&mut self) {
        self.entries.pop_front();
        self.first += 1;
        let oldest = self.entries.front().map(|entry| entry.chunk);
        while oldest.is_none_or(|oldest| self.first_chunk < oldest)
            && let Some(chunk) = self.chunks.pop_front()
        {
            self.chunk_bytes -= chunk.capacity();
            self.first_chunk += 1;
        }
    }
}

/// Hashes ids with a seed.
#[derive(Debug, Clone, Copy)]
struct Hasher(u64);

impl Hasher {
    fn hash(self, id: &[u8]) -> u64 {
        let mut hasher = rustc_hash::FxHasher::with_seed(self.0 as usize);
        hasher.write(id);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_is_known_until_the_window_is_over() {
        let mut dedup = Dedup::new(1);
        dedup.insert(b"a", 1, 100);
        assert_eq!(dedup.find(b"a", 199, 100), Some(1));
        assert_eq!(dedup.find(b"b", 199, 100), None);
        assert_eq!(dedup.find(b"a", 200, 100), None);
        assert!(dedup.is_empty());
    }

    #[test]
    fn long_ids_and_many_of_them_leave_nothing_behind() {
        let mut dedup = Dedup::new(1);
        for round in 0..3 {
            for number in 0..1000_u64 {
                let id = format!("{number}").repeat(200);
                dedup.insert(id.as_bytes(), round * 1000 + number + 1, round as i64);
            }
        }
        assert_eq!(dedup.len(), 1000);
        dedup.forget_older_than(2);
        assert_eq!((dedup.len(), dedup.ids.chunks.len(), dedup.ids.chunk_bytes), (0, 0, 0));
    }

    proptest! {
        #[test]
        fn it_remembers_what_a_list_remembers(
            steps in proptest::collection::vec((0u8..12, 0i64..6, 0u8..10), 1..80)
        ) {
            const WINDOW: i64 = 10;
            let mut dedup = Dedup::new(7);
            let mut list: Vec<(Vec<u8>, u64, i64)> = Vec::new();
            let (mut now, mut seq) = (0, 0);
            for (id, pause, action) in steps {
                now += pause;
                let id = vec![id; usize::from(id) * 3000];
                let expected = list.iter().rev().find(|(other, _, time)| *other == id && now - time < WINDOW);
                prop_assert_eq!(dedup.find(&id, now, WINDOW), expected.map(|(_, seq, _)| *seq));
                if action == 0 {
                    let from = seq.max(2) - 1;
                    dedup.forget_from(from);
                    list.retain(|(_, seq, _)| *seq < from);
                    seq = from - 1;
                } else if expected.is_none() {
                    seq += 1;
                    dedup.insert(&id, seq, now);
                    list.push((id, seq, now));
                }
            }
        }
    }
}
