//! A memory store in its plainest form, for tests: what the real ones must answer.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use super::filter::Filters;
use super::message::{
    Message, Purged, Removed, State, StoreError, StoredMessage, SubjectState, file_bytes, memory_bytes,
};
use crate::subject::name::matches;

/// See the file's header. The methods are those of [`Store`](super::Store).
pub struct Model {
    size: fn(usize, usize, usize) -> u64,
    messages: BTreeMap<u64, StoredMessage>,
    subjects: BTreeMap<Box<[u8]>, BTreeSet<u64>>,
    bytes: u64,
    /// 0 as long as there never was a message.
    next_seq: u64,
    last_time_ns: i64,
    removed: Option<StoredMessage>,
}

impl Model {
    /// What a memory store answers.
    pub fn new() -> Model {
        Model::with(memory_bytes)
    }

    /// What a file store answers.
    pub fn of_files() -> Model {
        Model::with(file_bytes)
    }

    fn with(size: fn(usize, usize, usize) -> u64) -> Model {
        Model {
            size,
            messages: BTreeMap::new(),
            subjects: BTreeMap::new(),
            bytes: 0,
            next_seq: 0,
            last_time_ns: 0,
            removed: None,
        }
    }

    pub(super) fn append(&mut self, message: &Message<'_>) -> Result<(), StoreError> {
        assert!(message.seq >= self.next_seq.max(1), "sequences grow");
        let message = StoredMessage::copy_of(message);
        self.bytes += self.bytes_of_message(&message);
        self.next_seq = message.seq + 1;
        self.last_time_ns = message.time_ns;
        match self.subjects.get_mut(message.subject()) {
            Some(seqs) => _ = seqs.insert(message.seq),
            None => _ = self.subjects.insert(message.subject().into(), BTreeSet::from([message.seq])),
        }
        self.messages.insert(message.seq, message);
        Ok(())
    }

    pub(super) fn skip_to(&mut self, next_seq: u64) {
        if next_seq > self.next_seq.max(1) {
            self.next_seq = next_seq;
        }
    }

    pub(super) fn remove(&mut self, seq: u64, _erase: bool) -> Option<Removed<'_>> {
        let message = self.messages.remove(&seq)?;
        let bytes = self.bytes_of_message(&message);
        self.bytes -= bytes;
        let seqs = self.subjects.get_mut(message.subject()).expect("a message's subject is known");
        seqs.remove(&seq);
        let subject_messages = seqs.len() as u64;
        if seqs.is_empty() {
            self.subjects.remove(message.subject());
        }
        let message = self.removed.insert(message);
        Some(Removed { seq, time_ns: message.time_ns, subject: message.subject(), bytes, subject_messages })
    }

    pub(super) fn remove_up_to(&mut self, seq: u64) -> Purged {
        let mut purged = Purged::default();
        while let Some((&first, _)) = self.messages.first_key_value()
            && first < seq
        {
            purged.messages += 1;
            purged.bytes += self.remove(first, false).expect("it was just there").bytes;
        }
        purged
    }

    pub(super) fn state(&self) -> State {
        let first = self.messages.first_key_value();
        let messages = self.messages.len() as u64;
        let (first_seq, last_seq) = (first.map_or(self.next_seq, |first| *first.0), self.next_seq.max(1) - 1);
        State {
            messages,
            bytes: self.bytes,
            first_seq,
            first_time_ns: first.map_or(0, |first| first.1.time_ns),
            last_seq,
            last_time_ns: self.last_time_ns,
            subjects: self.subjects.len() as u64,
            deleted: if first.is_some() { last_seq + 1 - first_seq - messages } else { 0 },
        }
    }

    pub(super) fn subject(&self, subject: &[u8]) -> Option<SubjectState> {
        self.subjects.get(subject).map(state_of)
    }

    pub(super) fn last_of_up_to(&self, subject: &[u8], seq: u64) -> Option<u64> {
        self.subjects.get(subject)?.range(..=seq).next_back().copied()
    }

    pub(super) fn last_matching(&self, pattern: &[u8]) -> Option<u64> {
        self.matching(pattern).filter_map(|(_, seqs)| seqs.last().copied()).max()
    }

    pub(super) fn subjects_matching(
        &self,
        pattern: &[u8],
        after: Option<&[u8]>,
        max: usize,
    ) -> Vec<(Box<[u8]>, SubjectState)> {
        let matching = self.matching(pattern);
        let wanted = matching.filter(|(subject, _)| after.is_none_or(|after| &***subject > after));
        wanted.take(max).map(|(subject, seqs)| (subject.clone(), state_of(seqs))).collect()
    }

    pub(super) fn count_subjects(&self, pattern: &[u8]) -> u64 {
        self.matching(pattern).count() as u64
    }

    pub(super) fn next_matching(&self, filters: &Filters, from_seq: u64) -> Option<u64> {
        let mut messages = self.messages.range(from_seq..);
        messages.find(|(_, message)| filters.matches(message.subject())).map(|(&seq, _)| seq)
    }

    pub(super) fn count_matching(&self, filters: &Filters, from_seq: u64) -> u64 {
        let messages = self.messages.range(from_seq..);
        messages.filter(|(_, message)| filters.matches(message.subject())).count() as u64
    }

    pub(super) fn next(&self, from_seq: u64) -> Option<u64> {
        self.messages.range(from_seq..).next().map(|(&seq, _)| seq)
    }

    pub(super) fn previous(&self, from_seq: u64) -> Option<u64> {
        self.messages.range(..=from_seq).next_back().map(|(&seq, _)| seq)
    }

    pub(super) fn seq_at_or_after(&self, time_ns: i64) -> Option<u64> {
        self.messages.iter().find(|(_, message)| message.time_ns >= time_ns).map(|(&seq, _)| seq)
    }

    pub(super) fn time_of(&self, seq: u64) -> Option<i64> {
        self.messages.get(&seq).map(|message| message.time_ns)
    }

    pub(super) fn subject_of(&self, seq: u64) -> Option<&[u8]> {
        self.messages.get(&seq).map(|message| message.subject())
    }

    pub(super) fn bytes_of(&self, seq: u64) -> Option<u64> {
        self.messages.get(&seq).map(|message| self.bytes_of_message(message))
    }

    pub(super) fn deleted(&self) -> impl Iterator<Item = RangeInclusive<u64>> + '_ {
        let ends = self.messages.keys().copied().skip(1).chain([self.next_seq]);
        let gaps = self.messages.keys().zip(ends).filter(|(before, after)| **before + 1 < *after);
        gaps.map(|(before, after)| *before + 1..=after - 1)
    }

    pub(super) fn set_last_time_ns(&mut self, time_ns: i64) {
        self.last_time_ns = time_ns;
    }

    pub(super) fn messages(&self) -> impl Iterator<Item = &StoredMessage> {
        self.messages.values()
    }

    fn bytes_of_message(&self, message: &StoredMessage) -> u64 {
        (self.size)(message.subject().len(), message.header().len(), message.payload().len())
    }

    fn matching(&self, pattern: &[u8]) -> impl Iterator<Item = (&Box<[u8]>, &BTreeSet<u64>)> {
        self.subjects.iter().filter(move |(subject, _)| matches(subject, pattern))
    }
}

fn state_of(seqs: &BTreeSet<u64>) -> SubjectState {
    SubjectState {
        first_seq: *seqs.first().expect("a known subject has messages"),
        last_seq: *seqs.last().expect("a known subject has messages"),
        messages: seqs.len() as u64,
    }
}
