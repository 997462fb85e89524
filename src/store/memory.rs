//! The store without files: everything is committed at once, and gone when the process ends.

use super::index::{Index, Place};
use super::message::{Message, Purged, Removed, StoreError, StoredMessage, memory_bytes};
use super::plan::{Commit, CommitError, Committed, ReadPlan};
use super::{Read, Store};
use std::collections::{BTreeMap, VecDeque};

/// See the file's header. The methods are those of [`Store`].
pub struct MemoryStore {
    index: Index,
    /// Messages in the order of the index's open segment, removed ones as `None`.
    open: Vec<Option<StoredMessage>>,
    open_segment: u64,
    sealed: VecDeque<(u64, Box<[Option<StoredMessage>]>)>,
    notes: BTreeMap<Box<[u8]>, Box<[u8]>>,
    position: u64,
}

impl Default for MemoryStore {
    fn default() -> MemoryStore {
        MemoryStore::new()
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> MemoryStore {
        MemoryStore {
            index: Index::new(),
            open: Vec::new(),
            open_segment: 0,
            sealed: VecDeque::new(),
            notes: BTreeMap::new(),
            position: 0,
        }
    }

    pub(super) fn append(&mut self, message: &Message<'_>) -> Result<(), StoreError> {
        assert!(message.seq >= self.index.next_seq().max(1), "sequences grow");
        let size = memory_bytes(message.subject.len(), message.header.len(), message.payload.len());
        let Ok(size) = u32::try_from(size) else { return Err(StoreError::TooLarge) };
        if self.index.is_open_full() {
            self.seal();
        }
        self.index.append(message.seq, message.time_ns, message.subject, 0, size);
        self.open.push(Some(StoredMessage::copy_of(message)));
        self.position += 1;
        Ok(())
    }

    /// The index leaves out what was removed from a segment that it seals: so does this.
    pub(super) fn seal(&mut self) {
        self.index.seal(self.open_segment);
        let live: Box<[_]> = self.open.drain(..).filter(Option::is_some).collect();
        if !live.is_empty() {
            self.sealed.push_back((self.open_segment, live));
        }
        self.open_segment += 1;
    }

    pub(super) fn skip_to(&mut self, next_seq: u64) {
        self.position += u64::from(self.index.skip_to(next_seq));
    }

    pub(super) fn remove(&mut self, seq: u64, _erase: bool) -> Option<Removed<'_>> {
        let place = self.index.find(seq)?;
        *self.slot(place) = None;
        self.position += 1;
        self.drop_emptied();
        self.index.remove(seq)
    }

    pub(super) fn remove_up_to(&mut self, seq: u64) -> Purged {
        self.position += 1;
        let purged = self.index.remove_up_to(seq);
        self.drop_emptied();
        if self.index.state().messages == 0 {
            self.open.iter_mut().for_each(|slot| *slot = None);
            return purged;
        }
        // In the segment that is now the first, what is gone lies before what is left.
        let left = self.index.find(self.index.state().first_seq).expect("the first message is there");
        let slots = match left.segment {
            Some(_) => &mut self.sealed.front_mut().expect("a live segment is kept").1[..left.at],
            None => &mut self.open[..left.at],
        };
        slots.iter_mut().for_each(|slot| *slot = None);
        purged
    }

    /// Lets go of the segments that have no message any more: only empty slots, so that it may wait for the next removal.
    fn drop_emptied(&mut self) {
        for segment in self.index.take_emptied() {
            let at =
                self.sealed.binary_search_by_key(&segment, |(number, _)| *number).expect("a segment is kept");
            self.sealed.remove(at);
        }
    }

    fn slot(&mut self, place: Place) -> &mut Option<StoredMessage> {
        let Some(segment) = place.segment else { return &mut self.open[place.at] };
        let at =
            self.sealed.binary_search_by_key(&segment, |(number, _)| *number).expect("a segment is kept");
        &mut self.sealed[at].1[place.at]
    }

    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    pub(super) fn read(&self, seq: u64) -> Read {
        let Some(place) = self.index.find(seq) else { return Read::Missing };
        let slot = match place.segment {
            None => &self.open[place.at],
            Some(segment) => {
                let found = self.sealed.binary_search_by_key(&segment, |(number, _)| *number);
                &self.sealed[found.expect("a segment is kept")].1[place.at]
            }
        };
        Read::Found(slot.clone().expect("a live message is kept"))
    }

    pub(super) fn read_ahead(&self, _from_seq: u64, _last_seq: u64, _bytes_max: u32) -> Option<ReadPlan> {
        None
    }

    pub(super) fn note(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), StoreError> {
        self.position += 1;
        match value {
            Some(value) => _ = self.notes.insert(key.into(), value.into()),
            None => _ = self.notes.remove(key),
        }
        Ok(())
    }

    pub(super) fn notes(&self) -> impl Iterator<Item = (&[u8], &[u8])> + '_ {
        self.notes.iter().map(|(key, value)| (&**key, &**value))
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn committed(&self) -> u64 {
        self.position
    }

    pub(super) fn committed_seq(&self) -> u64 {
        self.index.next_seq().max(1) - 1
    }

    pub(super) fn take_commit(&mut self) -> Option<Commit> {
        None
    }

    pub(super) fn finish_commit(&mut self, _result: Result<(), CommitError>) -> Committed {
        panic!("a memory store has no commits")
    }

    pub(super) fn refusal(&self) -> Option<StoreError> {
        None
    }

    pub(super) fn take_warnings(&mut self) -> Vec<String> {
        Vec::new()
    }
}

impl From<MemoryStore> for Store {
    fn from(store: MemoryStore) -> Store {
        Store::Memory(Box::new(store))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::State;
    use std::ops::RangeInclusive;

    fn message(seq: u64, subject: &str) -> Message<'_> {
        Message { seq, time_ns: seq as i64 * 10, subject: subject.as_bytes(), header: b"", payload: b"hello" }
    }

    #[test]
    fn the_first_sequence_follows_removals_and_gaps() {
        let mut store = Store::from(MemoryStore::new());
        assert_eq!(store.state(), State::default());
        store.append(&message(3, "a")).unwrap();
        store.append(&message(4, "b")).unwrap();
        store.append(&message(7, "a")).unwrap();
        let state = store.state();
        assert_eq!((state.first_seq, state.last_seq, state.messages, state.deleted), (3, 7, 3, 2));
        assert_eq!(store.deleted().collect::<Vec<_>>(), [RangeInclusive::new(5, 6)]);
        assert_eq!(state.bytes, 3 * (1 + 5 + 16));
        assert_eq!(store.remove(7, false).unwrap().subject_messages, 1);
        assert_eq!(store.deleted().collect::<Vec<_>>(), [RangeInclusive::new(5, 7)]);
        assert_eq!(store.remove_up_to(100).messages, 2);
        let state = store.state();
        assert_eq!((state.first_seq, state.last_seq, state.subjects, state.last_time_ns), (8, 7, 0, 70));
        store.skip_to(20);
        assert_eq!((store.state().first_seq, store.state().last_seq), (20, 19));
    }
}
