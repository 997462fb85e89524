//! The messages that a consumer has delivered and that are not acknowledged yet, in the order of the stream.
//!
//! First deliveries go up in the stream's order, so that a queue sorted by sequence is only ever appended to. Entries
//! that are acknowledged in the middle stay as holes until they reach the front or become the majority: an
//! acknowledgement costs a look at one place (the entry `n` behind the front, where nothing is filtered and nothing
//! missing) or a binary search, and moves nothing. Invariant: sequences and consumer sequences ascend; the front, if
//! there is one, is no hole; `live` counts what is no hole.

use std::collections::VecDeque;

/// A message that was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its sequence in the stream.
    pub stream_seq: u64,
    /// The sequence of its first delivery.
    pub consumer_seq: u64,
    /// When the clock of its acknowledgement was started.
    pub since_ns: i64,
    /// How often it was delivered.
    pub deliveries: u32,
    /// Whether it waits in the redelivery queue.
    pub queued: bool,
    hole: bool,
}

/// See the file's header.
#[derive(Debug, Clone, Default)]
pub struct Pending {
    entries: VecDeque<Entry>,
    live: usize,
    redelivered: usize,
}

impl PartialEq for Pending {
    fn eq(&self, other: &Pending) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Pending {}

impl Pending {
    /// How many messages are unacknowledged.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// How many of them were delivered more than once.
    pub fn redelivered(&self) -> usize {
        self.redelivered
    }

    /// Adds a message behind all others.
    pub fn push(&mut self, stream_seq: u64, consumer_seq: u64, since_ns: i64, deliveries: u32) {
        debug_assert!(self.entries.back().is_none_or(|last| last.stream_seq < stream_seq));
        self.live += 1;
        self.redelivered += usize::from(deliveries > 1);
        let queued = false;
        self.entries.push_back(Entry { stream_seq, consumer_seq, since_ns, deliveries, queued, hole: false });
    }

    /// The message with this sequence.
    pub fn get(&self, stream_seq: u64) -> Option<&Entry> {
        self.find(stream_seq).map(|at| &self.entries[at])
    }

    /// Changes the message with this sequence. How often it was delivered is counted here.
    pub fn update(&mut self, stream_seq: u64, change: impl FnOnce(&mut Entry)) -> bool {
        let Some(at) = self.find(stream_seq) else {
            return false;
        };
        let entry = &mut self.entries[at];
        let before = entry.deliveries > 1;
        change(entry);
        let after = entry.deliveries > 1;
        self.redelivered = self.redelivered + usize::from(after) - usize::from(before);
        true
    }

    /// Takes a message out.
    pub fn remove(&mut self, stream_seq: u64) -> Option<Entry> {
        let at = self.find(stream_seq)?;
        let removed = self.entries[at];
        self.entries[at].hole = true;
        self.live -= 1;
        self.redelivered -= usize::from(removed.deliveries > 1);
        self.drop_holes();
        Some(removed)
    }

    /// Takes out everything up to a sequence.
    pub fn remove_through(&mut self, stream_seq: u64) {
        while self.entries.front().is_some_and(|front| front.stream_seq <= stream_seq) {
            if let Some(front) = self.entries.pop_front()
                && !front.hole
            {
                self.live -= 1;
                self.redelivered -= usize::from(front.deliveries > 1);
            }
        }
        self.drop_holes();
    }

    /// The message that comes first in the stream.
    pub fn first(&self) -> Option<&Entry> {
        self.entries.front()
    }

    /// All messages, in the stream's order.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| !entry.hole)
    }

    /// All messages, to be changed in everything but their sequences and how often they were delivered.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.iter_mut().filter(|entry| !entry.hole)
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        *self = Pending::default();
    }

    /// Gives memory back that is not needed.
    pub fn shrink(&mut self) {
        self.entries.shrink_to(self.entries.len() * 2);
    }

    fn find(&self, stream_seq: u64) -> Option<usize> {
        let front = self.entries.front()?.stream_seq;
        let guess = usize::try_from(stream_seq.checked_sub(front)?).unwrap_or(usize::MAX);
        let at = match self.entries.get(guess) {
            Some(entry) if entry.stream_seq == stream_seq => guess,
            _ => self.entries.binary_search_by_key(&stream_seq, |entry| entry.stream_seq).ok()?,
        };
        (!self.entries[at].hole).then_some(at)
    }

    fn drop_holes(&mut self) {
        while self.entries.front().is_some_and(|front| front.hole) {
            self.entries.pop_front();
        }
        if self.entries.len() > 64 && self.live < self.entries.len() / 2 {
            self.entries.retain(|entry| !entry.hole);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pending_messages_are_a_map(steps in prop::collection::vec((0_u8..6, 1_u64..40), 1..300)) {
            let (mut pending, mut model) = (Pending::default(), BTreeMap::<u64, u32>::new());
            let (mut next, mut consumer_seq) = (1, 1);
            for (step, number) in steps {
                match step {
                    0..=2 => {
                        next += number % 3 + 1;
                        pending.push(next, consumer_seq, 0, 1);
                        model.insert(next, 1);
                        consumer_seq += 1;
                    }
                    3 => {
                        let seq = next.saturating_sub(number);
                        assert_eq!(pending.remove(seq).map(|entry| entry.deliveries), model.remove(&seq));
                    }
                    4 => {
                        let seq = next.saturating_sub(number);
                        let known = pending.update(seq, |entry| entry.deliveries += 1);
                        assert_eq!(known, model.get_mut(&seq).map(|count| *count += 1).is_some());
                    }
                    _ => {
                        let seq = next.saturating_sub(number);
                        pending.remove_through(seq);
                        model = model.split_off(&(seq + 1));
                    }
                }
                assert_eq!(pending.len(), model.len());
                assert_eq!(pending.redelivered(), model.values().filter(|count| **count > 1).count());
                assert_eq!(pending.first().map(|entry| entry.stream_seq), model.keys().next().copied());
                let listed = pending.iter().map(|entry| (entry.stream_seq, entry.deliveries));
                assert!(listed.eq(model.iter().map(|(seq, count)| (*seq, *count))));
            }
        }
    }
}
