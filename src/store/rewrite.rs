//! Segments that hold little are rewritten: a new file has what is left, and takes the place of the old one.
//!
//! A message that was removed leaves its record behind, and its removal a record in a later segment, which has to stay as long as
//! the file with the message says that it is there. So one old message can keep everything after it in use. Here its segment's file is
//! written anew, as its next generation, without what was removed: then later removals are superfluous, and with them whole segments.
//!
//! * One segment at a time, the oldest first, a part at a time: the driver reads a part ([`FileStore::rewrite_read`]), at its own
//!   pace, a commit of its own writes it, then the next is read.
//! * The new file is written under an unfinished name and synced, and renamed when every removal that it takes for granted is
//!   durable; then the old one is removed. Whatever a crash leaves of this, recovery takes the file with the highest generation.
//! * A failure ends it and touches nothing but the unfinished file.
//!
//! It costs at most what is left of a segment, and is done when that is half or less: so all the rewriting of a stream writes no more than
//! was written to it. Where messages go in their order it is not done: a segment's beginning is gone shortly before the rest.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::cipher::{Cipher, Codec};
use super::file::{FileStore, HOLE_BYTES_MIN, Hold, InFlight};
use super::plan::{Commit, FileId, ReadPlan, Step};
use super::sealed::{Entry, Sealed};
use super::segment::{HEADER_BYTES, Header, Kind, RECORD_BYTES, Record, Trailer, belongs};
use super::segment_index::Summary;

/// How much is read and written at a time; a message that is longer is a part by itself.
const PART_BYTES: u32 = if cfg!(test) { 300 } else { 1 << 20 };
/// What lies between messages of one part at most.
const GAP_BYTES: u32 = if cfg!(test) { 100 } else { 64 << 10 };
/// What has to come of it, at least.
const GAIN_BYTES_MIN: u64 = HOLE_BYTES_MIN;

/// A segment that is being rewritten.
pub(super) struct Rewrite {
    pub segment: u64,
    from: FileId,
    to: FileId,
    stage: Stage,
    is_reading: bool,
    /// Messages of earlier segments that its records remove.
    removed: Vec<(u64, u64)>,
    last_time_ns: i64,
    /// Messages below were looked at: of those that are removed from now on, the new file has them.
    copied_to: u64,
    /// What was copied.
    entries: Vec<Entry>,
    /// The end of the new file, which is not written yet.
    out: Vec<u8>,
    written: u32,
    is_out_due: bool,
    is_created: bool,
    /// Where its records end.
    end: u32,
    /// How records of the two files are written and read.
    old: Codec,
    new: Codec,
    cipher: Option<Cipher>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Header,
    Index,
    Messages {
        /// The first and one past the last message that is being read.
        part: (u64, u64),
        offset: u32,
    },
    /// All is there, to be written when this position is committed.
    Whole(u64),
}

impl Rewrite {
    fn unfinished(&self) -> FileId {
        FileId { unfinished: true, ..self.to }
    }

    /// Which generation of the file will have a message that is removed now.
    pub fn generation_with(&self, seq: u64) -> u32 {
        if seq < self.copied_to { self.to.generation } else { self.from.generation }
    }

    fn end(&self) -> u32 {
        self.written + self.out.len() as u32
    }
}

impl FileStore {
    /// Whether a segment is being rewritten and something has to be read for it, or one should be.
    pub(super) fn wants_rewrite(&self) -> bool {
        match &self.rewrite {
            Some(rewrite) => !rewrite.is_reading && !rewrite.is_out_due,
            // Before a seal is durable it may be taken back.
            None => {
                self.candidates.first().is_some_and(|segment| *segment < self.durable_segment())
                    && !self.is_poisoned()
            }
        }
    }

    /// What has to be read so that a segment can be rewritten, if one is to be. One read at a time:
    /// [`rewrite_bytes`](Self::rewrite_bytes) takes what came.
    pub(super) fn rewrite_read(&mut self) -> Option<ReadPlan> {
        if !self.wants_rewrite() {
            return None;
        }
        if self.rewrite.is_none() {
            let segment = self.take_candidate()?;
            let from = self.segments[&segment].file;
            let to = FileId { generation: from.generation + 1, ..from };
            let cipher = self.settings.encryption.as_ref().map(|encryption| encryption.cipher);
            self.rewrite = Some(Box::new(Rewrite {
                segment,
                from,
                to,
                old: self.codec_of(segment),
                new: self.codec_for(to, cipher),
                cipher,
                stage: Stage::Header,
                is_reading: false,
                removed: Vec::new(),
                last_time_ns: 0,
                copied_to: 0,
                entries: Vec::new(),
                out: Vec::new(),
                written: 0,
                is_out_due: false,
                is_created: false,
                end: 0,
            }));
        }
        let rewrite = self.rewrite.as_ref()?;
        let known = &self.segments[&rewrite.segment];
        let (file, stage) = (rewrite.from, rewrite.stage);
        let (offset, length) = match stage {
            Stage::Header => (0, HEADER_BYTES as u32),
            Stage::Index => (known.end, u32::try_from(known.allocated).ok()?.saturating_sub(known.end)),
            Stage::Messages { .. } => {
                let Some((part, offset, length)) = self.next_part() else {
                    self.complete();
                    return None;
                };
                self.rewrite.as_mut()?.stage = Stage::Messages { part, offset };
                (offset, length)
            }
            Stage::Whole(_) => return None,
        };
        self.rewrite.as_mut()?.is_reading = true;
        let codec = self.rewrite.as_ref()?.old.clone();
        Some(ReadPlan { file, offset: u64::from(offset), length, first_seq: 0, last_seq: 0, codec })
    }

    /// The next messages to be copied: their sequences, and where they lie.
    fn next_part(&self) -> Option<((u64, u64), u32, u32)> {
        let rewrite = self.rewrite.as_ref()?;
        let sealed = self.index.sealed(rewrite.segment)?;
        let more = self.more();
        let mut at = sealed.next_live(sealed.lower_bound(rewrite.copied_to))?;
        let (first_seq, start) = (sealed.seq(at), sealed.offset(at));
        let mut end = start + sealed.size(at) + more;
        while let Some(next) = sealed.next_live(at + 1) {
            let next_start = sealed.offset(next);
            let next_end = next_start + sealed.size(next) + more;
            if next_start < end || next_start - end > GAP_BYTES || next_end - start > PART_BYTES {
                break;
            }
            (at, end) = (next, next_end);
        }
        Some(((first_seq, sealed.seq(at) + 1), start, end - start))
    }

    /// What was read; `None`: it could not be.
    pub(super) fn rewrite_bytes(&mut self, bytes: Option<&Bytes>) {
        // It may have ended meanwhile.
        let Some(mut rewrite) = self.rewrite.take() else { return };
        rewrite.is_reading = false;
        let (file, stage) = (rewrite.from, rewrite.stage);
        let is_right = bytes.is_some_and(|bytes| match stage {
            Stage::Header => take_header(&mut rewrite, bytes),
            Stage::Index => take_index(&mut rewrite, bytes),
            Stage::Messages { part, offset } => self.take_messages(&mut rewrite, part, offset, bytes),
            Stage::Whole(_) => true,
        });
        self.rewrite = Some(rewrite);
        if !is_right {
            self.warn(format!("{file} is damaged, and cannot be rewritten"));
            self.end_rewrite();
        }
    }

    /// Copies what is still there of the messages that were read.
    fn take_messages(
        &mut self,
        rewrite: &mut Rewrite,
        (first_seq, end_seq): (u64, u64),
        offset: u32,
        bytes: &Bytes,
    ) -> bool {
        rewrite.copied_to = end_seq;
        rewrite.is_out_due = true;
        // All of it may have been removed since.
        let Some(sealed) = self.index.sealed(rewrite.segment) else { return true };
        let mut scratch = Vec::new();
        let mut at = sealed.lower_bound(first_seq);
        while let Some(live) = sealed.next_live(at).filter(|live| sealed.seq(*live) < end_seq) {
            let entry = sealed.entry(live);
            let start = (entry.offset - offset) as usize;
            let record = bytes.get(start..).and_then(|bytes| rewrite.old.decode(bytes, &mut scratch));
            let Some((record, _)) = record else { return false };
            if record.kind != Kind::Message || record.seq != entry.seq {
                return false;
            }
            let offset = rewrite.end();
            rewrite.entries.push(Entry { offset, ..entry });
            let record = Record { batch: HEADER_BYTES as u32, ..record };
            rewrite.new.encode(&record, &mut self.nonces, &mut rewrite.out);
            at = live + 1;
        }
        true
    }

    /// All messages are copied: what follows them, up to the end of the new file.
    fn complete(&mut self) {
        let Some(mut rewrite) = self.rewrite.take() else { return };
        let segment = rewrite.segment;
        let new = rewrite.new.clone();
        let mut live = Vec::with_capacity(rewrite.entries.len());
        let mut gone = Vec::new();
        let sealed = self.index.sealed(segment);
        for entry in rewrite.entries.drain(..) {
            match sealed.and_then(|sealed| sealed.find(entry.seq)) {
                Some(_) => live.push(entry),
                None => gone.push(entry.seq),
            }
        }
        let needed = self.needed_removals(segment, &rewrite.removed);
        let batch = HEADER_BYTES as u32;
        for seq in needed.iter().flat_map(|(first, last)| *first..=*last).chain(gone) {
            let record = Record { batch, ..Record::of(Kind::Remove, seq) };
            new.encode(&record, &mut self.nonces, &mut rewrite.out);
        }
        let notes: Vec<(&[u8], Option<&[u8]>)> = self
            .notes
            .iter()
            .filter(|(_, note)| note.segment == segment)
            .map(|(key, note)| (&**key, note.value.as_deref()))
            .collect();
        for (key, value) in &notes {
            let kind = if value.is_some() { Kind::Note } else { Kind::Forget };
            let payload = value.unwrap_or_default();
            let record = Record { batch, subject: key, payload, ..Record::of(kind, 0) };
            new.encode(&record, &mut self.nonces, &mut rewrite.out);
        }
        let following = self.segments.range(segment + 1..).next();
        let summary = Summary {
            first_seq: self.index.state().first_seq,
            next_seq: following.map_or(self.index.next_seq(), |(_, following)| following.base_seq),
            last_time_ns: rewrite.last_time_ns,
            removed: needed,
            notes,
        };
        // Below the first sequence nothing is left, here or before.
        let first_seq = summary.first_seq.min(summary.next_seq);
        let summary = Summary { first_seq, ..summary };
        let next_seq = summary.next_seq.to_le_bytes();
        let (time_ns, state) = (summary.last_time_ns, Record::of(Kind::State, first_seq));
        let state = Record { batch, time_ns, payload: &next_seq, ..state };
        new.encode(&state, &mut self.nonces, &mut rewrite.out);
        rewrite.end = rewrite.end();
        let sealed = (!live.is_empty()).then(|| Sealed::new(segment, &live));
        let mut body = Vec::new();
        summary.write(sealed.as_ref(), self.index.subjects(), &mut body);
        let last_seq = summary.next_seq.max(1) - 1;
        let record = Record { batch, payload: &body, ..Record::of(Kind::Index, last_seq) };
        new.encode(&record, &mut self.nonces, &mut rewrite.out);
        let index_len = new.len(&record) as u32;
        Trailer { index_offset: rewrite.end, index_len }.encode(new.salt, &mut rewrite.out);
        rewrite.entries = live;
        rewrite.stage = Stage::Whole(self.position());
        rewrite.is_out_due = true;
        self.rewrite = Some(rewrite);
    }

    /// Of the messages of earlier segments that a segment's records remove, those that files say are there.
    fn needed_removals(&self, segment: u64, removed: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let earlier: Vec<(u64, u64)> =
            self.segments.range(..segment).map(|(number, known)| (known.base_seq, *number)).collect();
        let mut needed: Vec<(u64, u64)> = Vec::new();
        for seq in removed.iter().flat_map(|(first, last)| *first..=*last) {
            // Of segments that are gone nothing is said.
            let after = earlier.partition_point(|(base_seq, _)| *base_seq <= seq);
            let Some((_, number)) = after.checked_sub(1).map(|at| earlier[at]) else { continue };
            let is_needed = match self.index.sealed(number) {
                Some(sealed) => sealed.has(seq),
                None => !self.segments[&number].is_empty,
            };
            match needed.last_mut() {
                Some((_, end)) if is_needed && *end + 1 == seq => *end = seq,
                _ if is_needed => needed.push((seq, seq)),
                _ => {}
            }
        }
        needed
    }

    /// Whether the new file is just getting its name.
    pub(super) fn is_new_file_coming(&self) -> bool {
        let is_whole = self.rewrite.as_ref().is_some_and(|rewrite| matches!(rewrite.stage, Stage::Whole(_)));
        is_whole && self.in_flight.as_ref().is_some_and(|in_flight| in_flight.is_rewrite)
    }

    /// What the rewriting has to write, if it may be written now.
    pub(super) fn take_rewrite_commit(&mut self) -> Option<Commit> {
        let committed = self.committed();
        let rewrite = self.rewrite.as_mut().filter(|rewrite| rewrite.is_out_due)?;
        if let Stage::Whole(position) = rewrite.stage
            && position > committed
        {
            return None;
        }
        let file = rewrite.unfinished();
        let mut steps = Vec::new();
        if !rewrite.is_created {
            rewrite.is_created = true;
            steps.push(Step::Create { file });
        }
        let bytes = std::mem::take(&mut rewrite.out);
        let (offset, length) = (u64::from(rewrite.written), bytes.len() as u64);
        rewrite.written += length as u32;
        steps.push(Step::Allocate { file, offset, length });
        steps.push(Step::Write { file, offset, buffers: vec![bytes.into()] });
        steps.push(Step::SyncData { file });
        if let Stage::Whole(_) = rewrite.stage {
            steps.push(Step::Rename { from: file, to: rewrite.to });
            steps.push(Step::SyncDirectory);
        }
        self.in_flight = Some(InFlight {
            log: None,
            first_write: usize::MAX,
            is_probe: false,
            is_rewrite: true,
            is_synced: false,
        });
        Some(Commit { steps })
    }

    /// What became of the commit. A failure leaves everything as it was: the old file is in use.
    pub(super) fn finish_rewrite_commit(&mut self, result: Result<(), String>) {
        if let Err(text) = result {
            self.warn(text);
            return self.end_rewrite();
        }
        let Some(rewrite) = &mut self.rewrite else { return };
        rewrite.is_out_due = false;
        if let Stage::Whole(_) = rewrite.stage {
            let rewrite = self.rewrite.take().expect("it was just there");
            self.take_new_file(&rewrite);
        }
    }

    /// The new file is there for good: it is the segment's from now on.
    fn take_new_file(&mut self, rewrite: &Rewrite) {
        let segment = rewrite.segment;
        self.index.replace(segment, &rewrite.entries);
        self.cache.forget(segment);
        self.holes.retain(|(_, file, _, _)| *file != rewrite.from);
        // Since the file was whole: before, this would have ended.
        for (_, erasure) in self.erasures.iter_mut().filter(|(_, erasure)| erasure.segment == segment) {
            let at = rewrite.entries.binary_search_by_key(&erasure.seq, |entry| entry.seq);
            erasure.offset = rewrite.entries[at.expect("it was there when the file was whole")].offset;
        }
        self.doomed.push_back((self.committed(), rewrite.from));
        let known = self.segments.get_mut(&segment).expect("what is rewritten is in use");
        known.file = rewrite.to;
        known.end = rewrite.end;
        known.allocated = u64::from(rewrite.written);
        known.holes = 0;
        known.cipher = rewrite.cipher;
        known.is_empty = rewrite.entries.is_empty();
    }

    /// Gives it up.
    pub(super) fn end_rewrite(&mut self) {
        if let Some(rewrite) = self.rewrite.take()
            && rewrite.is_created
        {
            self.doomed.push_back((self.committed(), rewrite.unfinished()));
        }
    }

    /// The oldest segment that is worth it.
    fn take_candidate(&mut self) -> Option<u64> {
        while let Some(&segment) = self.candidates.first().filter(|first| **first < self.durable_segment()) {
            self.candidates.remove(&segment);
            if self.is_worth_rewriting(segment) {
                return Some(segment);
            }
        }
        None
    }

    fn is_worth_rewriting(&self, segment: u64) -> bool {
        let Some(known) = self.segments.get(&segment) else { return false };
        // Without an index of its own it would have to be read as a whole. What is to be overwritten is where it was.
        if !known.has_index || self.erasures.iter().any(|(_, erasure)| erasure.segment == segment) {
            return false;
        }
        let sealed = self.index.sealed(segment);
        if self.emptied.is_empty() && sealed.is_some_and(is_going) {
            return false;
        }
        let (messages, bytes) = sealed.map_or((0, 0), |sealed| (u64::from(sealed.live), sealed.live_bytes));
        let held = known.holds.iter().filter(|hold| self.is_needed(*hold));
        let removals: u64 = held.map(|(_, hold)| hold.count).sum();
        let more = u64::from(self.more());
        let needed = bytes + messages * more + removals * (RECORD_BYTES as u64 + more);
        let taken = u64::from(known.end).saturating_sub(HEADER_BYTES as u64 + known.holes);
        needed * 2 <= taken && taken - needed >= GAIN_BYTES_MIN
    }

    /// A segment is left without messages: it may be worth rewriting, and so may those for which it is kept.
    pub(super) fn consider_emptied(&mut self, segment: u64) {
        if let Some(known) = self.segments.get(&segment) {
            self.candidates.insert(segment);
            self.candidates.extend(known.holds.keys());
        }
    }

    /// Whether a file says that messages are there which records of a segment remove.
    pub(super) fn is_needed(&self, (segment, hold): (&u64, &Hold)) -> bool {
        self.segments
            .get(segment)
            .is_some_and(|known| known.file.generation <= hold.generation && !known.is_empty)
    }

    /// Whether what a segment says of earlier ones is still needed.
    pub(super) fn holds_others(&self, holds: &BTreeMap<u64, Hold>) -> bool {
        holds.iter().any(|hold| self.is_needed(hold))
    }
}

/// Whether what is left of a segment is its end: then all of it goes soon, and with it the file.
fn is_going(sealed: &Sealed) -> bool {
    let behind = sealed.next_live(0).map_or(0, |first| sealed.len() - first);
    (behind - sealed.live as usize) * 4 <= behind
}

fn take_header(rewrite: &mut Rewrite, bytes: &Bytes) -> bool {
    let Ok(header) = Header::decode(bytes) else { return false };
    if !belongs(&header, rewrite.from) {
        return false;
    }
    let (generation, cipher) = (rewrite.to.generation, rewrite.cipher);
    rewrite.out = Header { generation, cipher, ..header }.encode();
    rewrite.stage = Stage::Index;
    true
}

fn take_index(rewrite: &mut Rewrite, bytes: &Bytes) -> bool {
    let mut scratch = Vec::new();
    let index = rewrite.old.decode(bytes, &mut scratch).filter(|(record, _)| record.kind == Kind::Index);
    let Some((summary, _)) = index.and_then(|(record, _)| Summary::read(record.payload)) else {
        return false;
    };
    rewrite.last_time_ns = summary.last_time_ns;
    rewrite.removed = summary.removed;
    rewrite.stage = Stage::Messages { part: (0, 0), offset: 0 };
    true
}
