//! Where every message of a stream is, and which subject has which: what both kinds of store answer queries from.
//!
//! Messages are in segments: the open one, to which is appended, as plain entries; the sealed ones packed
//! ([`Sealed`]). No message is read to answer a query, and no query looks at every message unless its answer is about
//! most of them.
//!
//! Invariant (`check` in the tests): the counts of subjects, segments and the whole agree with the entries that are live.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use super::filter::Filters;
use super::message::{Purged, Removed, State, SubjectState};
use super::sealed::{Entry, SEGMENT_MESSAGES_MAX, Sealed};
use super::subjects::{Name, Subjects};
use crate::subject::name::has_wildcard;

/// How many messages are looked at for a match before anything cleverer is tried.
const QUICK_LOOK: usize = if cfg!(test) { 4 } else { 64 };
/// Up to this many subjects are asked one by one for their next message; for more of them the messages are.
const FEW_SUBJECTS: usize = if cfg!(test) { 2 } else { 32 };
/// In place of a removed message's subject in the open segment.
const DEAD: u32 = u32::MAX;
const NONE: u32 = u32::MAX;

#[derive(Default)]
pub struct Index {
    subjects: Subjects,
    /// In the order of their sequences; none without live messages.
    sealed: VecDeque<Sealed>,
    open: Vec<Entry>,
    open_live: usize,
    /// The number of `open[0]`, when all appends ever are counted from 1.
    open_number: u64,
    messages: u64,
    bytes: u64,
    /// The first live message's; without any, `next_seq`.
    first_seq: u64,
    /// 0 as long as there never was a message.
    next_seq: u64,
    last_time_ns: i64,
    /// Counts how often sequences were taken back ([`truncate`](Self::truncate)): what filters remember ends with it.
    epoch: u64,
    /// Segments whose last message was removed, for the store to collect.
    emptied: Vec<u64>,
    /// Segments that lost much since that was asked last.
    sparse: Vec<u64>,
    removed_name: Name,
}

/// Where a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// `None`: the open segment.
    pub segment: Option<u64>,
    /// Its number among the messages of the segment.
    pub at: usize,
    pub offset: u32,
    pub size: u32,
}

impl Index {
    pub fn new() -> Index {
        Index { open_number: 1, ..Index::default() }
    }

    /// Adds a message; its sequence is greater than all before.
    pub fn append(&mut self, seq: u64, time_ns: i64, subject: &[u8], offset: u32, size: u32) {
        debug_assert!(seq >= self.next_seq.max(1));
        let id = self.subjects.find_or_insert(subject);
        let number = self.open_number + self.open.len() as u64;
        let subject = self.subjects.get_mut(id);
        let previous = match subject.newest.checked_sub(self.open_number) {
            Some(at) => at as u32,
            None => NONE,
        };
        if subject.messages == 0 {
            subject.first_from.set(seq);
        }
        subject.newest = number;
        subject.messages += 1;
        subject.last_seq = seq;
        self.open.push(Entry { seq, time_ns, offset, size, subject: id, previous });
        self.open_live += 1;
        if self.messages == 0 {
            self.first_seq = seq;
        }
        self.messages += 1;
        self.bytes += u64::from(size);
        self.next_seq = seq + 1;
        self.last_time_ns = time_ns;
    }

    pub fn is_open_full(&self) -> bool {
        self.open.len() >= SEGMENT_MESSAGES_MAX
    }

    pub fn skip_to(&mut self, next_seq: u64) -> bool {
        if next_seq <= self.next_seq.max(1) {
            return false;
        }
        self.next_seq = next_seq;
        if self.messages == 0 {
            self.first_seq = next_seq;
        }
        true
    }

    /// Ends the open segment. What was removed from it is left out. `None` if nothing is left.
    pub fn seal(&mut self, segment: u64) -> Option<&Sealed> {
        self.open_number += self.open.len() as u64;
        if self.open_live < self.open.len() {
            self.open.retain(|entry| entry.subject != DEAD);
        }
        self.open_live = 0;
        if self.open.is_empty() {
            return None;
        }
        self.sealed.push_back(Sealed::new(segment, &self.open));
        self.open.clear();
        self.sealed.back()
    }

    pub fn subjects(&self) -> &Subjects {
        &self.subjects
    }

    /// Takes a sealed segment from its written form. Only while opening, in order, before anything is appended.
    pub fn load(&mut self, segment: u64, bytes: &mut &[u8]) -> bool {
        // An index that does not continue the one before is not believed.
        let first = bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        if first.is_none_or(|first| first < self.next_seq.max(1)) || !self.open.is_empty() {
            return false;
        }
        let Some(sealed) = Sealed::read(segment, bytes, &mut self.subjects) else { return false };
        if self.messages == 0 {
            self.first_seq = sealed.first_seq;
        }
        self.messages += sealed.len() as u64;
        self.bytes += sealed.live_bytes;
        self.next_seq = sealed.last_seq + 1;
        self.last_time_ns = sealed.time_ns(sealed.len() - 1);
        self.sealed.push_back(sealed);
        true
    }

    pub fn set_last_time_ns(&mut self, time_ns: i64) {
        self.last_time_ns = time_ns;
    }

    /// The segments that lost their last message since this was asked before.
    pub fn take_emptied(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.emptied)
    }

    /// Segments that lost much since this was asked before.
    pub fn take_sparse(&mut self) -> Vec<u64> {
        let mut sparse = std::mem::take(&mut self.sparse);
        sparse.sort_unstable();
        sparse.dedup();
        sparse.retain(|segment| self.sealed(*segment).is_some_and(Sealed::is_sparse));
        sparse
    }

    /// Where removed messages lie in some segments: segment, first and one past the last byte. Records are `more` longer than what
    /// messages count for.
    pub fn dead_extents(&mut self, segments: &[u64], more: u32) -> Vec<(u64, u64, u64)> {
        let mut found = Vec::new();
        for &segment in segments {
            if let Ok(at) = self.place_of(segment) {
                let extents = self.sealed[at].dead_extents(more);
                found.extend(extents.into_iter().map(|(start, end)| (segment, start, end)));
            }
        }
        found
    }

    fn place_of(&self, segment: u64) -> Result<usize, usize> {
        self.sealed.binary_search_by_key(&segment, |sealed| sealed.segment)
    }

    /// What is known of a sealed segment, if it has live messages.
    pub fn sealed(&self, segment: u64) -> Option<&Sealed> {
        self.place_of(segment).ok().map(|at| &self.sealed[at])
    }

    /// A segment was rewritten: its messages lie elsewhere now, and what was removed is no longer in it. Of `entries` some may
    /// have been removed since.
    pub fn replace(&mut self, segment: u64, entries: &[Entry]) {
        let Ok(at) = self.place_of(segment) else { return };
        let before = &self.sealed[at];
        let mut sealed = Sealed::new(segment, entries);
        for place in 0..sealed.len() {
            if before.find(sealed.seq(place)).is_none() {
                sealed.kill(place);
            }
        }
        assert_eq!((sealed.live, sealed.live_bytes), (before.live, before.live_bytes));
        self.sealed[at] = sealed;
    }

    pub fn last_sealed(&self) -> Option<&Sealed> {
        self.sealed.back()
    }

    pub fn find(&self, seq: u64) -> Option<Place> {
        match self.locate(seq)? {
            (Some(chunk), at) => {
                let sealed = &self.sealed[chunk];
                let (offset, size) = (sealed.offset(at), sealed.size(at));
                Some(Place { segment: Some(sealed.segment), at, offset, size })
            }
            (None, at) => {
                let entry = &self.open[at];
                Some(Place { segment: None, at, offset: entry.offset, size: entry.size })
            }
        }
    }

    /// Which sealed segment (`None`: the open one) and which of its messages, if it is live.
    fn locate(&self, seq: u64) -> Option<(Option<usize>, usize)> {
        if self.open.first().is_some_and(|first| seq >= first.seq) {
            let at = self.open_lower_bound(seq);
            let entry = self.open.get(at)?;
            return (entry.seq == seq && entry.subject != DEAD).then_some((None, at));
        }
        let chunk = self.chunk_at_or_after(seq);
        let at = self.sealed.get(chunk)?.find(seq)?;
        Some((Some(chunk), at))
    }

    fn open_lower_bound(&self, seq: u64) -> usize {
        let Some(first) = self.open.first() else { return 0 };
        // Without gaps its place follows from the sequence.
        let guess = seq.saturating_sub(first.seq);
        match self.open.get(usize::try_from(guess).unwrap_or(usize::MAX)) {
            Some(entry) if entry.seq == seq => guess as usize,
            _ => self.open.partition_point(|entry| entry.seq < seq),
        }
    }

    /// The first sealed segment that ends at or after `seq`.
    fn chunk_at_or_after(&self, seq: u64) -> usize {
        self.sealed.partition_point(|sealed| sealed.last_seq < seq)
    }

    pub fn remove(&mut self, seq: u64) -> Option<Removed<'_>> {
        let (chunk, at) = self.locate(seq)?;
        let (subject, time_ns, size);
        match chunk {
            Some(chunk) => {
                let sealed = &mut self.sealed[chunk];
                (subject, time_ns, size) = (sealed.subject(at), sealed.time_ns(at), sealed.size(at));
                sealed.kill(at);
                if sealed.live == 0 {
                    self.emptied.push(sealed.segment);
                    self.sealed.remove(chunk);
                } else if sealed.is_sparse() && self.sparse.last() != Some(&sealed.segment) {
                    self.sparse.push(sealed.segment);
                }
            }
            None => {
                let entry = &mut self.open[at];
                (subject, time_ns, size) = (entry.subject, entry.time_ns, entry.size);
                entry.subject = DEAD;
                self.open_live -= 1;
            }
        }
        let bytes = u64::from(size);
        self.messages -= 1;
        self.bytes -= bytes;
        let subject_messages = self.uncount(subject, seq);
        if seq == self.first_seq {
            self.first_seq = self.next(seq + 1).unwrap_or(self.next_seq);
        }
        let subject =
            if subject_messages == 0 { &*self.removed_name } else { &*self.subjects.get(subject).name };
        Some(Removed { seq, time_ns, subject, bytes, subject_messages })
    }

    /// A message of the subject, no longer live, is no longer counted there. Returns how many remain.
    fn uncount(&mut self, id: u32, seq: u64) -> u64 {
        let subject = self.subjects.get_mut(id);
        subject.messages -= 1;
        let messages = subject.messages;
        if messages == 0 {
            self.removed_name = self.subjects.remove(id);
            return 0;
        }
        if subject.first_from.get() == seq {
            subject.first_from.set(seq + 1);
        }
        if subject.last_seq == seq {
            let last = self.previous_of(id, seq).expect("the subject has messages");
            self.subjects.get_mut(id).last_seq = last;
        }
        messages
    }

    pub fn remove_up_to(&mut self, seq: u64) -> Purged {
        let before = Purged { messages: self.messages, bytes: self.bytes };
        if seq >= self.next_seq {
            // Everything: nothing has to be looked at one by one.
            self.emptied.extend(self.sealed.drain(..).map(|sealed| sealed.segment));
            for entry in &mut self.open {
                entry.subject = DEAD;
            }
            self.open_live = 0;
            self.subjects = Subjects::default();
            (self.messages, self.bytes, self.first_seq) = (0, 0, self.next_seq);
            return before;
        }
        while let Some(sealed) = self.sealed.front()
            && sealed.last_seq < seq
        {
            let sealed = self.sealed.pop_front().expect("there is one");
            self.emptied.push(sealed.segment);
            self.messages -= u64::from(sealed.live);
            self.bytes -= sealed.live_bytes;
            if let Some(id) = sealed.only_subject() {
                self.uncount_many(id, u64::from(sealed.live), sealed.last_seq + 1);
            } else {
                let mut at = 0;
                while let Some(live) = sealed.next_live(at) {
                    self.uncount_many(sealed.subject(live), 1, sealed.seq(live) + 1);
                    at = live + 1;
                }
            }
        }
        self.first_seq = self.next(0).unwrap_or(self.next_seq);
        while self.first_seq < seq {
            self.remove(self.first_seq).expect("the first message is there");
        }
        Purged { messages: before.messages - self.messages, bytes: before.bytes - self.bytes }
    }

    /// `count` messages of a subject before `first_from` are gone; none is left before it.
    fn uncount_many(&mut self, id: u32, count: u64, first_from: u64) {
        if count == 0 {
            return;
        }
        let subject = self.subjects.get_mut(id);
        subject.messages -= count;
        subject.first_from.set(subject.first_from.get().max(first_from));
        if subject.messages == 0 {
            self.subjects.remove(id);
        }
    }

    pub fn state(&self) -> State {
        let last_seq = self.next_seq.max(1) - 1;
        State {
            messages: self.messages,
            bytes: self.bytes,
            first_seq: self.first_seq,
            first_time_ns: if self.messages == 0 { 0 } else { self.time_of(self.first_seq).unwrap_or(0) },
            last_seq,
            last_time_ns: self.last_time_ns,
            subjects: self.subjects.len() as u64,
            deleted: if self.messages == 0 { 0 } else { last_seq + 1 - self.first_seq - self.messages },
        }
    }

    pub fn first_seq(&self) -> u64 {
        self.first_seq
    }

    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    pub fn subject(&self, subject: &[u8]) -> Option<SubjectState> {
        self.subjects.find(subject).map(|id| self.subject_state(id))
    }

    fn subject_state(&self, id: u32) -> SubjectState {
        let subject = self.subjects.get(id);
        SubjectState { first_seq: self.first_of(id), last_seq: subject.last_seq, messages: subject.messages }
    }

    fn first_of(&self, id: u32) -> u64 {
        let subject = self.subjects.get(id);
        if subject.messages == 1 {
            return subject.last_seq;
        }
        let first = self.next_of(id, subject.first_from.get()).expect("the subject has messages");
        subject.first_from.set(first);
        first
    }

    pub fn last_of_up_to(&self, subject: &[u8], seq: u64) -> Option<u64> {
        let id = self.subjects.find(subject)?;
        let last = self.subjects.get(id).last_seq;
        if last <= seq { Some(last) } else { self.previous_of(id, seq) }
    }

    pub fn last_matching(&self, pattern: &[u8]) -> Option<u64> {
        if pattern == b">" {
            return self.previous(u64::MAX);
        }
        let mut last = None;
        self.subjects.walk(pattern, None, |id| {
            last = last.max(Some(self.subjects.get(id).last_seq));
            true
        });
        last
    }

    pub fn subjects_matching(
        &self,
        pattern: &[u8],
        after: Option<&[u8]>,
        max: usize,
    ) -> Vec<(Box<[u8]>, SubjectState)> {
        let mut found = Vec::new();
        if max > 0 {
            self.subjects.walk(pattern, after, |id| {
                found.push(((*self.subjects.get(id).name).into(), self.subject_state(id)));
                found.len() < max
            });
        }
        found
    }

    pub fn count_subjects(&self, pattern: &[u8]) -> u64 {
        if pattern == b">" {
            return self.subjects.len() as u64;
        }
        let mut count = 0;
        self.subjects.walk(pattern, None, |_| {
            count += 1;
            true
        });
        count
    }

    pub fn next(&self, from_seq: u64) -> Option<u64> {
        let from_seq = from_seq.max(self.first_seq);
        for sealed in self.sealed.range(self.chunk_at_or_after(from_seq)..) {
            if let Some(at) = sealed.next_live(sealed.lower_bound(from_seq)) {
                return Some(sealed.seq(at));
            }
        }
        let open = &self.open[self.open_lower_bound(from_seq)..];
        open.iter().find(|entry| entry.subject != DEAD).map(|entry| entry.seq)
    }

    pub fn previous(&self, from_seq: u64) -> Option<u64> {
        let end = self.open.partition_point(|entry| entry.seq <= from_seq);
        if let Some(entry) = self.open[..end].iter().rev().find(|entry| entry.subject != DEAD) {
            return Some(entry.seq);
        }
        let end = self.sealed.partition_point(|sealed| sealed.first_seq <= from_seq);
        for sealed in self.sealed.range(..end).rev() {
            if let Some(at) = before(sealed, from_seq).and_then(|at| sealed.previous_live(at)) {
                return Some(sealed.seq(at));
            }
        }
        None
    }

    /// The first message of the subject at or after `from_seq`.
    fn next_of(&self, id: u32, from_seq: u64) -> Option<u64> {
        let subject = self.subjects.get(id);
        if from_seq > subject.last_seq {
            return None;
        }
        let from_seq = from_seq.max(subject.first_from.get());
        for sealed in self.sealed.range(self.chunk_at_or_after(from_seq)..) {
            if sealed.first_seq > subject.last_seq {
                return None;
            }
            if let Some(at) = sealed.next_of(id, sealed.lower_bound(from_seq)) {
                return Some(sealed.seq(at));
            }
        }
        self.next_of_open(id, self.open_lower_bound(from_seq)).map(|at| self.open[at].seq)
    }

    /// Looks forward from the place and backward along the subject's chain in turn: where a subject is frequent the one
    /// soon finds it, where it is rare the other.
    fn next_of_open(&self, id: u32, from: usize) -> Option<usize> {
        let mut chain = match self.subjects.get(id).newest.checked_sub(self.open_number) {
            Some(newest) if newest >= from as u64 => newest as u32,
            _ => return None,
        };
        let mut best = None;
        let mut at = from;
        loop {
            if self.open.get(at)?.subject == id {
                return Some(at);
            }
            at += 1;
            let entry = &self.open[chain as usize];
            if entry.subject == id {
                best = Some(chain as usize);
            }
            chain = entry.previous;
            if chain == NONE || (chain as usize) < at {
                return best;
            }
        }
    }

    /// The last message of the subject at or before `from_seq`.
    fn previous_of(&self, id: u32, from_seq: u64) -> Option<u64> {
        let mut chain =
            self.subjects.get(id).newest.checked_sub(self.open_number).map_or(NONE, |at| at as u32);
        while chain != NONE {
            let entry = &self.open[chain as usize];
            if entry.seq <= from_seq && entry.subject == id {
                return Some(entry.seq);
            }
            chain = entry.previous;
        }
        let first_from = self.subjects.get(id).first_from.get();
        let end = self.sealed.partition_point(|sealed| sealed.first_seq <= from_seq);
        for sealed in self.sealed.range(..end).rev() {
            if sealed.last_seq < first_from {
                return None;
            }
            if let Some(at) = before(sealed, from_seq).and_then(|at| sealed.previous_of(id, at)) {
                return Some(sealed.seq(at));
            }
        }
        None
    }

    /// Visits the live messages from `from_seq` on, sequence and subject, until told to stop.
    fn scan(&self, from_seq: u64, mut visit: impl FnMut(u64, u32) -> bool) {
        for sealed in self.sealed.range(self.chunk_at_or_after(from_seq)..) {
            let mut at = sealed.lower_bound(from_seq);
            while let Some(live) = sealed.next_live(at) {
                if !visit(sealed.seq(live), sealed.subject(live)) {
                    return;
                }
                at = live + 1;
            }
        }
        for entry in &self.open[self.open_lower_bound(from_seq)..] {
            if entry.subject != DEAD && !visit(entry.seq, entry.subject) {
                return;
            }
        }
    }

    pub fn next_matching(&self, filters: &Filters, from_seq: u64) -> Option<u64> {
        let from_seq = from_seq.max(self.first_seq);
        if filters.is_all() {
            return self.next(from_seq);
        }
        if let Some(subject) = filters.literal() {
            return self.next_of(self.subjects.find(subject)?, from_seq);
        }
        let start = filters.skip_known_empty(self.epoch, from_seq);
        let mut from_seq = start;
        let (mut found, mut looked, mut last_id) = (None, 0, DEAD);
        // The same subject often comes again: then it is known not to match.
        let mut is_match = |id: u32| {
            if id == last_id {
                return false;
            }
            last_id = id;
            filters.matches(&self.subjects.get(id).name)
        };
        self.scan(from_seq, |seq, id| {
            from_seq = seq + 1;
            looked += 1;
            found = is_match(id).then_some(seq);
            found.is_none() && looked < QUICK_LOOK
        });
        if found.is_none() && looked == QUICK_LOOK {
            match self.few_matching(filters) {
                Some(few) => found = few.into_iter().filter_map(|id| self.next_of(id, from_seq)).min(),
                None => self.scan(from_seq, |seq, id| {
                    found = is_match(id).then_some(seq);
                    found.is_none()
                }),
            }
        }
        filters.remember_empty(self.epoch, start, found.unwrap_or(self.next_seq));
        found
    }

    /// The subjects that match, if they are few.
    fn few_matching(&self, filters: &Filters) -> Option<Vec<u32>> {
        let mut few = Vec::new();
        for pattern in filters.patterns() {
            self.subjects.walk(pattern, None, |id| {
                few.push(id);
                few.len() <= FEW_SUBJECTS
            });
        }
        (few.len() <= FEW_SUBJECTS).then_some(few)
    }

    pub fn count_matching(&self, filters: &Filters, from_seq: u64) -> u64 {
        if from_seq >= self.next_seq {
            return 0;
        }
        if filters.is_all() {
            return self.count_from(from_seq);
        }
        let mut ids = Vec::new();
        for pattern in filters.patterns() {
            if !has_wildcard(pattern) {
                ids.extend(self.subjects.find(pattern));
            } else {
                self.subjects.walk(pattern, None, |id| {
                    ids.push(id);
                    true
                });
            }
        }
        ids.sort_unstable();
        ids.dedup();
        // Subjects that begin after `from_seq` count as a whole; of the others the messages are counted on the shorter side.
        let mut total = 0;
        let mut partly = Vec::new();
        for id in ids {
            let subject = self.subjects.get(id);
            if subject.first_from.get() >= from_seq {
                total += subject.messages;
            } else if subject.last_seq >= from_seq {
                partly.push(id);
                total += subject.messages;
            }
        }
        if partly.is_empty() {
            return total;
        }
        let mut is_partly = vec![0u64; (partly[partly.len() - 1] as usize + 64) / 64];
        for id in &partly {
            is_partly[*id as usize / 64] |= 1 << (id % 64);
        }
        let counts = |id: u32| is_partly.get(id as usize / 64).is_some_and(|word| word & 1 << (id % 64) != 0);
        let mut count = 0;
        if from_seq - self.first_seq.min(from_seq) <= self.next_seq - from_seq {
            self.scan(0, |seq, id| {
                count += u64::from(seq < from_seq && counts(id));
                seq < from_seq
            });
            total - count
        } else {
            self.scan(from_seq, |_, id| {
                count += u64::from(counts(id));
                true
            });
            total - partly.iter().map(|&id| self.subjects.get(id).messages).sum::<u64>() + count
        }
    }

    /// How many messages there are at or after `from_seq`.
    fn count_from(&self, from_seq: u64) -> u64 {
        if from_seq <= self.first_seq {
            return self.messages;
        }
        let open = &self.open[self.open_lower_bound(from_seq)..];
        let mut count = open.iter().filter(|entry| entry.subject != DEAD).count() as u64;
        let first = self.chunk_at_or_after(from_seq);
        for (number, sealed) in self.sealed.range(first..).enumerate() {
            if number > 0 || from_seq <= sealed.first_seq {
                count += u64::from(sealed.live);
                continue;
            }
            let mut at = sealed.lower_bound(from_seq);
            while let Some(live) = sealed.next_live(at) {
                count += 1;
                at = live + 1;
            }
        }
        count
    }

    pub fn seq_at_or_after(&self, time_ns: i64) -> Option<u64> {
        let chunk = self.sealed.partition_point(|sealed| sealed.time_ns(sealed.len() - 1) < time_ns);
        for sealed in self.sealed.range(chunk..) {
            if let Some(at) = sealed.next_live(sealed.time_lower_bound(time_ns)) {
                return Some(sealed.seq(at));
            }
        }
        let from = self.open.partition_point(|entry| entry.time_ns < time_ns);
        self.open[from..].iter().find(|entry| entry.subject != DEAD).map(|entry| entry.seq)
    }

    pub fn time_of(&self, seq: u64) -> Option<i64> {
        Some(match self.locate(seq)? {
            (Some(chunk), at) => self.sealed[chunk].time_ns(at),
            (None, at) => self.open[at].time_ns,
        })
    }

    pub fn subject_of(&self, seq: u64) -> Option<&[u8]> {
        let id = match self.locate(seq)? {
            (Some(chunk), at) => self.sealed[chunk].subject(at),
            (None, at) => self.open[at].subject,
        };
        Some(&self.subjects.get(id).name)
    }

    pub fn bytes_of(&self, seq: u64) -> Option<u64> {
        self.find(seq).map(|place| u64::from(place.size))
    }

    pub fn deleted(&self) -> impl Iterator<Item = RangeInclusive<u64>> + '_ {
        let mut from = if self.messages == 0 { self.next_seq } else { self.first_seq };
        std::iter::from_fn(move || {
            while from < self.next_seq {
                let live = self.next(from).unwrap_or(self.next_seq);
                let gap = from..=live.max(1) - 1;
                from = if live < self.next_seq { self.run_end(live) + 1 } else { live };
                if !gap.is_empty() {
                    return Some(gap);
                }
            }
            None
        })
    }

    /// The last sequence of messages without a gap that begins with the live one at `seq`, or of a part of them.
    fn run_end(&self, seq: u64) -> u64 {
        let (chunk, at) = self.locate(seq).expect("a live message");
        let mut end = seq;
        match chunk {
            Some(chunk) if self.sealed[chunk].is_whole() => end = self.sealed[chunk].last_seq,
            Some(chunk) => {
                let sealed = &self.sealed[chunk];
                let following = at + 1..sealed.len();
                for at in following {
                    if !sealed.is_live(at) || sealed.seq(at) != end + 1 {
                        break;
                    }
                    end += 1;
                }
            }
            None => {
                for entry in &self.open[at + 1..] {
                    if entry.subject == DEAD || entry.seq != end + 1 {
                        break;
                    }
                    end += 1;
                }
            }
        }
        end
    }

    /// Takes the last sealed segment apart again, as the open one. For taking back what could not be written.
    pub fn reopen(&mut self, segment: u64) {
        assert!(self.open.is_empty(), "the open segment was taken back before");
        if self.sealed.back().is_none_or(|sealed| sealed.segment != segment) {
            return;
        }
        let sealed = self.sealed.pop_back().expect("it was just there");
        for at in (0..sealed.len()).filter(|&at| sealed.is_live(at)) {
            let mut entry = sealed.entry(at);
            let number = self.open_number + self.open.len() as u64;
            let newest = &mut self.subjects.get_mut(entry.subject).newest;
            entry.previous = newest.checked_sub(self.open_number).map_or(NONE, |at| at as u32);
            *newest = number;
            self.open.push(entry);
        }
        self.open_live = self.open.len();
    }

    /// Takes back the messages of the open segment from `next_seq` on. Returns how many.
    pub fn truncate(&mut self, next_seq: u64, last_time_ns: i64) -> u64 {
        self.epoch += 1;
        let mut count = 0;
        let cut = self.open.partition_point(|entry| entry.seq < next_seq);
        for at in (cut..self.open.len()).rev() {
            count += u64::from(self.remove(self.open[at].seq).is_some());
        }
        // All chains anew: those of removed messages' subjects cannot be cut, so that all numbers given so far are void.
        self.open_number += self.open.len() as u64;
        self.open.truncate(cut);
        for at in 0..cut {
            let entry = &mut self.open[at];
            if entry.subject != DEAD {
                let newest = &mut self.subjects.get_mut(entry.subject).newest;
                entry.previous = newest.checked_sub(self.open_number).map_or(NONE, |at| at as u32);
                *newest = self.open_number + at as u64;
            }
        }
        self.next_seq = next_seq;
        self.last_time_ns = last_time_ns;
        if self.messages == 0 {
            self.first_seq = next_seq;
        }
        count
    }
}

/// The place of the last message at or before `seq`.
fn before(sealed: &Sealed, seq: u64) -> Option<usize> {
    if seq >= sealed.last_seq { Some(sealed.len() - 1) } else { sealed.lower_bound(seq + 1).checked_sub(1) }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::model::Model;
    use super::super::{MemoryStore, Message, Store};
    use super::*;
    use proptest::prelude::*;

    const NAMES: [&str; 8] = ["a", "a.b", "a.b.c", "a.c", "b.b", "b.c.d", "c", "a-b.c"];
    const PATTERNS: [&str; 10] = [">", "*", "a.>", "a.*", "*.b", "*.*.d", "a.b", "zz", "b.*.*", "*.c"];

    #[derive(Debug, Clone)]
    pub enum Act {
        Append { gap: u64, name: usize, len: usize, step: i64 },
        Remove(prop::sample::Index),
        RemoveUpTo(prop::sample::Index),
        RemoveAll,
        SkipTo(u64),
        Seal,
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            20 => (prop_oneof![9 => Just(0u64), 1 => 1u64..200], 0..NAMES.len(), 0usize..30, 0i64..5)
                .prop_map(|(gap, name, len, step)| Act::Append { gap, name, len, step }),
            8 => any::<prop::sample::Index>().prop_map(Act::Remove),
            1 => any::<prop::sample::Index>().prop_map(Act::RemoveUpTo),
            1 => Just(Act::RemoveAll),
            1 => (0u64..40).prop_map(Act::SkipTo),
            3 => Just(Act::Seal),
        ]
    }

    /// The store's answers to every question are the model's.
    pub fn compare(store: &Store, model: &Model) {
        let state = store.state();
        assert_eq!(state, model.state());
        assert_eq!(store.deleted().collect::<Vec<_>>(), join(model.deleted()));
        for name in NAMES {
            assert_eq!(store.subject(name.as_bytes()), model.subject(name.as_bytes()));
        }
        let seqs =
            [0, state.first_seq, state.first_seq + 3, (state.first_seq + state.last_seq) / 2, state.last_seq];
        for seq in seqs.into_iter().chain([state.last_seq + 1, u64::MAX / 2]) {
            assert_eq!(store.next(seq), model.next(seq));
            assert_eq!(store.previous(seq), model.previous(seq));
            assert_eq!(store.time_of(seq), model.time_of(seq));
            assert_eq!(store.subject_of(seq), model.subject_of(seq));
            assert_eq!(store.bytes_of(seq), model.bytes_of(seq));
            for name in NAMES {
                assert_eq!(
                    store.last_of_up_to(name.as_bytes(), seq),
                    model.last_of_up_to(name.as_bytes(), seq)
                );
            }
            for patterns in PATTERNS.windows(2).chain(PATTERNS.chunks(1)) {
                let filters = Filters::new(patterns.iter().map(|pattern| pattern.as_bytes()));
                assert_eq!(
                    store.next_matching(&filters, seq),
                    model.next_matching(&filters, seq),
                    "{patterns:?} {seq}"
                );
                assert_eq!(
                    store.next_matching(&filters, seq),
                    model.next_matching(&filters, seq),
                    "again {patterns:?}"
                );
                let (count, wanted) =
                    (store.count_matching(&filters, seq), model.count_matching(&filters, seq));
                assert_eq!(count, wanted, "{patterns:?} from {seq}");
            }
        }
        for time in
            [0, state.first_time_ns + 1, (state.first_time_ns + state.last_time_ns) / 2, state.last_time_ns]
        {
            assert_eq!(store.seq_at_or_after(time), model.seq_at_or_after(time));
        }
        for pattern in PATTERNS.map(str::as_bytes) {
            assert_eq!(store.last_matching(pattern), model.last_matching(pattern));
            assert_eq!(store.count_subjects(pattern), model.count_subjects(pattern));
            for after in [None, Some(&b"a.b"[..])] {
                let found = store.subjects_matching(pattern, after, 3);
                assert_eq!(found, model.subjects_matching(pattern, after, 3));
            }
        }
    }

    fn join(ranges: impl Iterator<Item = RangeInclusive<u64>>) -> Vec<RangeInclusive<u64>> {
        ranges.collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn every_answer_is_that_of_the_plain_model(acts in prop::collection::vec(act(), 0..120)) {
            let mut store = Store::from(MemoryStore::new());
            let mut model = Model::new();
            let (mut time_ns, mut count) = (1_000, 0);
            for act in acts {
                let state = model.state();
                match act {
                    Act::Append { gap, name, len, step } => {
                        time_ns += step;
                        count += 1;
                        let payload = vec![count as u8; len];
                        let (seq, subject) = (state.last_seq + 1 + gap, NAMES[name].as_bytes());
                        let message = Message { seq, time_ns, subject, header: b"", payload: &payload };
                        store.append(&message).unwrap();
                        model.append(&message).unwrap();
                    }
                    Act::Remove(index) => {
                        let span = state.last_seq + 2 - state.first_seq.min(state.last_seq + 1);
                        let seq = state.first_seq + index.index(span as usize) as u64;
                        assert_eq!(store.remove(seq, false), model.remove(seq, false));
                    }
                    Act::RemoveUpTo(index) => {
                        let seq = state.first_seq + index.index(6) as u64;
                        assert_eq!(store.remove_up_to(seq), model.remove_up_to(seq));
                    }
                    Act::RemoveAll => assert_eq!(store.remove_up_to(u64::MAX), model.remove_up_to(u64::MAX)),
                    Act::SkipTo(ahead) => {
                        store.skip_to((state.last_seq + ahead).saturating_sub(5));
                        model.skip_to((state.last_seq + ahead).saturating_sub(5));
                    }
                    Act::Seal => match &mut store {
                        Store::Memory(memory) => memory.seal(),
                        Store::File(_) => unreachable!(),
                    },
                }
                assert_eq!(store.state(), model.state());
                for message in model.messages() {
                    assert_eq!(store.read(message.seq), super::super::Read::Found(message.clone()));
                }
            }
            compare(&store, &model);
        }
    }
}
