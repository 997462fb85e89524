//! The store in files: segments that are appended to, a batch of records per commit.
//!
//! * What changes the store changes the indexes at once and adds a record to what is pending. A commit takes all that is
//!   pending, at most one is under way, the next collects meanwhile.
//! * A commit reserves its space before it writes: a full disk shows before a byte of the batch is in the file, so that it
//!   can be taken back in memory and nowhere else (`roll_back`). Anything else that goes wrong while writing or
//!   syncing poisons the store: it is not known what is on disk, so nothing is added to it by this process any more.
//! * Messages that go from the head of the stream (limits, expiry, purges) need no record each: one per commit says where
//!   the stream begins.
//! * A segment is removed only after what makes it superfluous is durable: the records that removed its last
//!   messages, and copies of the notes in it.
//!
//! Opening is in [`recovery`](super::recovery), the format in `segment.rs`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::cipher::{Cipher, Codec, Encryption, Nonces, plain_message};
use super::index::{Index, Place};
use super::message::{Message, Purged, Removed, StoreError, StoredMessage};
use super::plan::{Commit, CommitError, CommitErrorKind, Committed, Damaged, FileId, ReadPlan, Step};
use super::rewrite::Rewrite;
use super::segment::{HEADER_BYTES, Header, Kind, RECORD_BYTES, RECORD_BYTES_MAX, Record, Trailer, salt};
use super::segment_index::Summary;
use super::tail_cache::TailCache;
use super::{PENDING_BYTES_MAX, Read, Store};

/// How much room the file of the open segment always has beyond its end: removals and notes are still recorded when
/// the disk is full.
const RESERVE_BYTES: u64 = 64 << 10;
/// By how much the file of the open segment grows at most: with half its length, so that small streams stay small.
const GROWTH_BYTES_MAX: u64 = 8 << 20;
/// How many files a commit removes at most, so that messages do not wait for more.
const REMOVALS_MAX: usize = 8;
/// Space is given back in whole blocks, and in pieces of at least so many bytes, so that it takes few calls.
const HOLE_BLOCK: u64 = if cfg!(test) { 64 } else { 4096 };
pub(super) const HOLE_BYTES_MIN: u64 = if cfg!(test) { 64 } else { 16 << 10 };
/// How many holes a commit makes at most.
const HOLES_MAX: usize = 64;
/// How many warnings wait for whoever asks.
const WARNINGS_MAX: usize = 16;
/// Notes whose key begins with this byte are the store's own.
const OWN_NOTE: u8 = 0;

/// What a file store is made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// A segment is sealed when a record would make it longer.
    pub segment_bytes_max: u32,
    /// How many bytes of what was written last stay in memory. What is not committed yet stays in any case.
    pub cache_bytes_max: usize,
    /// A random number of the stream's own. It is stored in every segment, the stored one holds.
    pub stream_salt: u64,
    /// What files are encrypted with.
    pub encryption: Option<Encryption>,
    /// A random number of this opening of the store: encryption needs numbers that were never used.
    pub nonce_start: u128,
    /// A commit is on the disk when it is finished. Otherwise it is only written, and what was written is synced when that is asked
    /// for ([`Store::take_sync`]): the end of the stream may be lost with the machine, not with the process.
    pub syncs_commits: bool,
}

impl Settings {
    /// The usual settings.
    pub fn new(stream_salt: u64) -> Settings {
        Settings {
            segment_bytes_max: 64 << 20,
            cache_bytes_max: 4 << 20,
            stream_salt,
            encryption: None,
            nonce_start: 0,
            syncs_commits: true,
        }
    }
}

/// See the file's header. The methods are those of [`Store`].
pub struct FileStore {
    pub(super) settings: Settings,
    pub(super) index: Index,
    /// Those that are in use, the open one included.
    pub(super) segments: BTreeMap<u64, Segment>,
    pub(super) open_segment: u64,
    /// Where the next record of the open segment goes.
    pub(super) end: u32,
    codec: Codec,
    pub(super) nonces: Nonces,
    open: Pending,
    /// Segments sealed since the last commit.
    rolled: Vec<Pending>,
    pending_bytes: usize,
    /// Segments whose seal is not durable yet.
    sealed_since: Vec<u64>,
    pub(super) cache: TailCache,
    pub(super) notes: BTreeMap<Box<[u8]>, Note>,
    position: u64,
    committed: u64,
    durable: Durable,
    pub(super) in_flight: Option<InFlight>,
    /// Up to where the open segment is on the disk, if not every commit is synced.
    synced_end: u32,
    /// Which segment is being synced, up to where.
    syncing: Option<(u64, u32)>,
    /// The beginning of the stream, or its next sequence without a message, changed since it was last recorded.
    is_state_due: bool,
    /// Removals that are not durable yet, with their positions, and the file that says that the message is there.
    removed: VecDeque<(u64, u64, Option<FileId>)>,
    health: Health,
    /// Sealed segments without live messages.
    pub(super) emptied: Vec<u64>,
    /// Files to be removed when the position is committed.
    pub(super) doomed: VecDeque<(u64, FileId)>,
    /// Records to be overwritten when the position is committed.
    pub(super) erasures: VecDeque<(u64, Erasure)>,
    /// Ranges of sealed segments without live records, to be given back when the position is committed.
    pub(super) holes: VecDeque<(u64, FileId, u64, u64)>,
    cleaned_last: bool,
    /// Segments that may be worth rewriting, and the one that is being rewritten.
    pub(super) candidates: BTreeSet<u64>,
    pub(super) rewrite: Option<Box<Rewrite>>,
    warnings: Vec<String>,
}

/// What is known of a segment in use, its messages aside.
pub(super) struct Segment {
    pub file: FileId,
    /// Where its records end; the open segment's is `FileStore::end`.
    pub end: u32,
    /// How long the file is, reserved space included.
    pub allocated: u64,
    /// What the next sequence was when it was begun.
    pub base_seq: u64,
    /// Messages of earlier segments that it removed, as ranges; only kept until the segment is sealed and durable.
    pub removed: Vec<(u64, u64)>,
    /// Of which segments' messages it says that they were removed.
    pub holds: BTreeMap<u64, Hold>,
    /// Bytes of it that were given back.
    pub holes: u64,
    /// Its file says of no message that it is there.
    pub is_empty: bool,
    /// It ends with its index.
    pub has_index: bool,
    /// What its file is encrypted with.
    pub cipher: Option<Cipher>,
}

/// What a segment says of an earlier one's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hold {
    /// The last generation of the earlier one's file that has them.
    pub generation: u32,
    /// How many they are at most.
    pub count: u64,
}

pub(super) struct Note {
    /// `None`: forgotten, which has to be known as long as an older segment may say otherwise.
    pub value: Option<Box<[u8]>>,
    pub segment: u64,
    pub position: u64,
}

struct Pending {
    file: FileId,
    offset: u32,
    bytes: Vec<u8>,
    /// The file does not exist yet.
    is_new: bool,
    /// The whole file's length, if this is the last that is written to it.
    sealed_len: Option<u64>,
}

/// What a rollback goes back to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Durable {
    segment: u64,
    /// Where its last commit began.
    batch: u32,
    end: u32,
    allocated: u64,
    next_seq: u64,
    last_time_ns: i64,
}

pub(super) struct InFlight {
    /// `None`: nothing of the log, only files to remove or space to try for.
    pub log: Option<(u64, Durable)>,
    /// The first step after which the disk is no longer as it was.
    pub first_write: usize,
    pub is_probe: bool,
    pub is_rewrite: bool,
    /// What it wrote to the open segment is on the disk.
    pub is_synced: bool,
}

pub(super) struct Erasure {
    pub segment: u64,
    pub offset: u32,
    len: u32,
    pub seq: u64,
    time_ns: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Health {
    Good,
    /// `true`: something wants to be stored, so that space should be tried for.
    Full(bool),
    Poisoned(String),
}

impl FileStore {
    /// A new, empty store, and what has to be done before it is used.
    pub fn create(settings: Settings) -> (FileStore, Vec<Step>) {
        let mut store = FileStore::empty(settings);
        store.begin_segment(1);
        let mut steps = Vec::new();
        while let Some(commit) = store.take_commit() {
            steps.extend(commit.steps);
            assert_eq!(store.finish_commit(Ok(())), Committed::Done);
        }
        (store, steps)
    }

    pub(super) fn empty(settings: Settings) -> FileStore {
        let file = FileId::new(0);
        let codec = Codec::of(0, file, None, None).expect("it needs no secret");
        FileStore {
            nonces: Nonces::new(settings.nonce_start),
            settings,
            index: Index::new(),
            segments: BTreeMap::new(),
            open_segment: 0,
            end: 0,
            codec,
            open: Pending { file, offset: 0, bytes: Vec::new(), is_new: false, sealed_len: None },
            rolled: Vec::new(),
            pending_bytes: 0,
            sealed_since: Vec::new(),
            cache: TailCache::default(),
            notes: BTreeMap::new(),
            position: 0,
            committed: 0,
            durable: Durable { segment: 0, batch: 0, end: 0, allocated: 0, next_seq: 0, last_time_ns: 0 },
            in_flight: None,
            synced_end: 0,
            syncing: None,
            is_state_due: false,
            removed: VecDeque::new(),
            health: Health::Good,
            emptied: Vec::new(),
            doomed: VecDeque::new(),
            erasures: VecDeque::new(),
            holes: VecDeque::new(),
            cleaned_last: false,
            candidates: BTreeSet::new(),
            rewrite: None,
            warnings: Vec::new(),
        }
    }

    /// Goes on in a segment that recovery read to its end.
    pub(super) fn continue_segment(&mut self, segment: u64, end: u32) {
        self.codec = self.codec_of(segment);
        let open = &self.segments[&segment];
        if self.open_segment != segment {
            self.synced_end = 0;
        }
        self.open_segment = segment;
        self.end = end;
        self.open =
            Pending { file: open.file, offset: end, bytes: Vec::new(), is_new: false, sealed_len: None };
    }

    /// What is in the indexes now is what is on disk.
    pub(super) fn mark_recovered(&mut self) {
        self.durable = self.now();
    }

    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    pub(super) fn append(&mut self, message: &Message<'_>) -> Result<(), StoreError> {
        assert!(message.seq >= self.index.next_seq().max(1), "sequences grow");
        let record = Record::message(message, self.open.offset);
        let len = self.codec.len(&record);
        if len > RECORD_BYTES_MAX || message.subject.len() > usize::from(u16::MAX) {
            return Err(StoreError::TooLarge);
        }
        if self.health != Health::Good {
            if let Health::Full(wanted) = &mut self.health {
                *wanted = true;
            }
            return Err(self.refusal().expect("it is not good"));
        }
        if self.pending_bytes + len > PENDING_BYTES_MAX {
            return Err(StoreError::Backlog);
        }
        if self.is_roll_due(len) {
            self.roll();
        }
        let record = Record { batch: self.batch_start(), ..record };
        self.codec.encode(&record, &mut self.nonces, &mut self.open.bytes);
        let (seq, time_ns) = (message.seq, message.time_ns);
        self.index.append(seq, time_ns, message.subject, self.end, len as u32 - self.codec.more());
        self.count(len);
        Ok(())
    }

    /// Where what is not known to be on the disk begins in the open segment.
    fn batch_start(&self) -> u32 {
        if self.settings.syncs_commits { self.open.offset } else { self.open.offset.min(self.synced_end) }
    }

    fn count(&mut self, len: usize) {
        self.end += len as u32;
        self.pending_bytes += len;
        self.position += 1;
    }

    fn is_roll_due(&self, len: usize) -> bool {
        let is_long = self.end as usize + len > self.settings.segment_bytes_max as usize;
        self.index.is_open_full() || (is_long && self.end as usize > HEADER_BYTES)
    }

    /// Adds a record that is not a message.
    fn push_record(&mut self, record: Record<'_>) {
        let len = self.codec.len(&record);
        if self.is_roll_due(len) && self.health == Health::Good {
            self.roll();
        }
        self.push_here(record);
    }

    /// Adds a record to the open segment, whatever its length.
    fn push_here(&mut self, record: Record<'_>) {
        let record = Record { batch: self.batch_start(), ..record };
        self.codec.encode(&record, &mut self.nonces, &mut self.open.bytes);
        self.count(self.codec.len(&record));
    }

    pub(super) fn skip_to(&mut self, next_seq: u64) {
        if self.index.skip_to(next_seq) {
            self.is_state_due = true;
            self.position += 1;
        }
    }

    pub(super) fn remove(&mut self, seq: u64, erase: bool) -> Option<Removed<'_>> {
        let place = self.index.find(seq)?;
        let (segment, offset) = self.place(place);
        self.record_removal(seq);
        if erase {
            // It is overwritten where it is, and nowhere else may it be.
            if self.rewrite.as_ref().is_some_and(|rewrite| rewrite.segment == segment)
                && !self.is_new_file_coming()
            {
                self.candidates.insert(segment);
                self.end_rewrite();
            }
            let time_ns = self.index.time_of(seq).expect("it is live");
            let len = place.size + self.more();
            let erasure = Erasure { segment, offset, len, seq, time_ns };
            self.erasures.push_back((self.position, erasure));
        }
        self.index.remove(seq)
    }

    fn record_removal(&mut self, seq: u64) {
        if seq == self.index.first_seq() {
            self.is_state_due = true;
            self.position += 1;
            return;
        }
        self.push_record(Record::of(Kind::Remove, seq));
        let holder = self.holder_of(seq);
        self.removed.push_back((self.position, seq, holder));
        self.note_removed(seq, holder);
    }

    /// The file that says that a message is there, now or when it is rewritten; `None` for the open one.
    pub(super) fn holder_of(&self, seq: u64) -> Option<FileId> {
        let segment = self.index.find(seq)?.segment?;
        let file = self.segments.get(&segment)?.file;
        match &self.rewrite {
            Some(rewrite) if rewrite.segment == segment => {
                Some(FileId { generation: rewrite.generation_with(seq), ..file })
            }
            _ => Some(file),
        }
    }

    /// The open segment says that an earlier one's message was removed.
    fn note_removed(&mut self, seq: u64, holder: Option<FileId>) {
        let open = self.segments.get_mut(&self.open_segment).expect("the open segment is in use");
        open.record_removed(seq, holder);
    }

    pub(super) fn remove_up_to(&mut self, seq: u64) -> Purged {
        let purged = self.index.remove_up_to(seq);
        if purged.messages > 0 {
            self.is_state_due = true;
            self.position += 1;
        }
        purged
    }

    pub(super) fn note(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), StoreError> {
        assert!(key.first() != Some(&OWN_NOTE), "keys of notes do not begin with a zero");
        if let Health::Poisoned(_) = self.health {
            return Err(self.refusal().expect("it is poisoned"));
        }
        let len = RECORD_BYTES + key.len() + value.map_or(0, <[u8]>::len);
        if key.len() > usize::from(u16::MAX) || len > RECORD_BYTES_MAX {
            return Err(StoreError::TooLarge);
        }
        if self.pending_bytes + len > PENDING_BYTES_MAX {
            return Err(StoreError::Backlog);
        }
        if value.is_some() || self.notes.get(key).is_some_and(|note| note.value.is_some()) {
            self.push_note(key, value);
        }
        Ok(())
    }

    fn push_note(&mut self, key: &[u8], value: Option<&[u8]>) {
        let kind = if value.is_some() { Kind::Note } else { Kind::Forget };
        self.push_record(Record { subject: key, payload: value.unwrap_or_default(), ..Record::of(kind, 0) });
        let note = Note { value: value.map(Box::from), segment: self.open_segment, position: self.position };
        self.notes.insert(key.into(), note);
    }

    pub(super) fn notes(&self) -> impl Iterator<Item = (&[u8], &[u8])> + '_ {
        let notes = self.notes.iter().filter(|(key, _)| key.first() != Some(&OWN_NOTE));
        notes.filter_map(|(key, note)| Some((&**key, note.value.as_deref()?)))
    }

    /// Ends the open segment with its index and begins the next.
    fn roll(&mut self) {
        // Its records must say all that its index says.
        if self.is_state_due {
            self.push_state();
        }
        let segment = self.open_segment;
        let state = self.index.state();
        let sealed = self.index.seal(segment).is_some();
        if !sealed {
            self.consider_emptied(segment);
            self.emptied.push(segment);
        }
        let open = self.segments.get_mut(&segment).expect("the open segment is in use");
        open.is_empty = !sealed;
        open.has_index = true;
        let summary = Summary {
            first_seq: state.first_seq,
            next_seq: self.index.next_seq(),
            last_time_ns: state.last_time_ns,
            removed: std::mem::take(&mut open.removed),
            notes: self
                .notes
                .iter()
                .filter(|(_, note)| note.segment == segment)
                .map(|(key, note)| (&**key, note.value.as_deref()))
                .collect(),
        };
        let mut body = Vec::new();
        let sealed = self.index.last_sealed().filter(|_| sealed);
        summary.write(sealed, self.index.subjects(), &mut body);
        open.removed = summary.removed;
        open.end = self.end;
        let record =
            Record { batch: self.batch_start(), payload: &body, ..Record::of(Kind::Index, state.last_seq) };
        let before = self.open.bytes.len();
        self.codec.encode(&record, &mut self.nonces, &mut self.open.bytes);
        let trailer = Trailer { index_offset: self.end, index_len: self.codec.len(&record) as u32 };
        trailer.encode(self.codec.salt, &mut self.open.bytes);
        self.pending_bytes += self.open.bytes.len() - before;
        self.open.sealed_len = Some(u64::from(self.open.offset) + self.open.bytes.len() as u64);
        self.sealed_since.push(segment);
        self.begin_segment(segment + 1);
    }

    /// Begins a segment; what is pending for the one before is kept.
    pub(super) fn begin_segment(&mut self, segment: u64) {
        let state = self.index.state();
        let header = Header {
            segment,
            generation: 0,
            stream_salt: self.settings.stream_salt,
            next_seq: self.index.next_seq(),
            first_seq: state.first_seq,
            last_time_ns: state.last_time_ns,
            previous: self.open_segment,
            previous_end: self.end,
            cipher: self.settings.encryption.as_ref().map(|encryption| encryption.cipher),
        };
        let file = FileId::new(segment);
        let bytes = header.encode();
        self.pending_bytes += bytes.len();
        let open = Pending { file, offset: 0, bytes, is_new: true, sealed_len: None };
        let before = std::mem::replace(&mut self.open, open);
        if self.open_segment != 0 && (!before.bytes.is_empty() || before.sealed_len.is_some()) {
            self.rolled.push(before);
        }
        self.open_segment = segment;
        self.synced_end = 0;
        self.end = HEADER_BYTES as u32;
        self.segments.insert(
            segment,
            Segment {
                file,
                end: self.end,
                allocated: 0,
                base_seq: header.next_seq,
                removed: Vec::new(),
                holds: BTreeMap::new(),
                holes: 0,
                is_empty: false,
                has_index: false,
                cipher: header.cipher,
            },
        );
        self.codec = self.codec_of(segment);
    }

    /// How records of a segment's file are written and read.
    pub(super) fn codec_of(&self, segment: u64) -> Codec {
        let known = &self.segments[&segment];
        self.codec_for(known.file, known.cipher)
    }

    pub(super) fn codec_for(&self, file: FileId, cipher: Option<Cipher>) -> Codec {
        let codec = Codec::of(self.settings.stream_salt, file, cipher, self.settings.encryption.as_ref());
        codec.expect("without the secret it is not opened")
    }

    /// How much longer records are than what messages count for: all files of a store are encrypted, or none is.
    pub(super) fn more(&self) -> u32 {
        self.codec.more()
    }

    fn now(&self) -> Durable {
        Durable {
            segment: self.open_segment,
            batch: self.end,
            end: self.end,
            allocated: self.segments[&self.open_segment].allocated,
            next_seq: self.index.next_seq(),
            last_time_ns: self.index.state().last_time_ns,
        }
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn committed(&self) -> u64 {
        self.committed
    }

    pub(super) fn committed_seq(&self) -> u64 {
        self.durable.next_seq.max(1) - 1
    }

    pub(super) fn take_commit(&mut self) -> Option<Commit> {
        if self.in_flight.is_some() || matches!(self.health, Health::Poisoned(_)) {
            return None;
        }
        self.doom_emptied();
        self.plan_holes();
        if self.is_state_due {
            self.push_state();
        }
        let has_log = self.pending_bytes > 0;
        if (!has_log || !self.cleaned_last)
            && let Some(commit) = self.take_cleanup().or_else(|| self.take_rewrite_commit())
        {
            self.cleaned_last = true;
            return Some(commit);
        }
        self.cleaned_last = false;
        if has_log {
            return Some(self.take_log());
        }
        if self.health == Health::Full(true) {
            return Some(self.take_probe());
        }
        None
    }

    /// Where the stream begins, and the next sequence.
    fn push_state(&mut self) {
        self.is_state_due = false;
        let state = self.index.state();
        let next_seq = self.index.next_seq().to_le_bytes();
        let record = Record::of(Kind::State, state.first_seq);
        self.push_here(Record { time_ns: state.last_time_ns, payload: &next_seq, ..record });
    }

    /// The pending records as a commit.
    fn take_log(&mut self) -> Commit {
        let mut steps = Vec::new();
        let mut parts = std::mem::take(&mut self.rolled);
        let (file, end) = (self.open.file, self.end);
        let next = Pending { file, offset: end, bytes: Vec::new(), is_new: false, sealed_len: None };
        let open = std::mem::replace(&mut self.open, next);
        let batch = open.offset;
        // What begins or ends a file is always synced: nothing else says where it ends.
        let is_synced = self.settings.syncs_commits || open.is_new || parts.iter().any(|part| part.is_new);
        if !open.bytes.is_empty() {
            parts.push(open);
        }
        // First everything that may fail for want of space.
        for part in parts.iter().filter(|part| part.is_new) {
            steps.push(Step::Create { file: part.file });
        }
        let is_full = self.health != Health::Good;
        for part in &parts {
            let segment = self.segments.get_mut(&part.file.segment).expect("a written segment is in use");
            let end = u64::from(part.offset) + part.bytes.len() as u64;
            let wanted = match part.sealed_len {
                Some(len) => len,
                None if is_full => end,
                None => end + RESERVE_BYTES,
            };
            if segment.allocated < wanted {
                let growth = if part.sealed_len.is_some() { 0 } else { (end / 2).min(GROWTH_BYTES_MAX) };
                let target =
                    if part.sealed_len.is_some() { wanted } else { (wanted + growth).next_multiple_of(4096) };
                let (offset, length) = (segment.allocated, target - segment.allocated);
                steps.push(Step::Allocate { file: part.file, offset, length });
                segment.allocated = target;
            }
        }
        if parts.iter().any(|part| part.is_new) {
            steps.push(Step::SyncDirectory);
        }
        let first_write = steps.len();
        for part in parts {
            let file = part.file;
            // Much room behind a small batch would be kept with it in the cache.
            let bytes = if part.bytes.len() < part.bytes.capacity() / 2 {
                let copy = Bytes::copy_from_slice(&part.bytes);
                if self.open.bytes.capacity() == 0 {
                    self.open.bytes = part.bytes;
                    self.open.bytes.clear();
                }
                copy
            } else {
                if self.open.bytes.capacity() == 0 {
                    self.open.bytes = Vec::with_capacity(part.bytes.len());
                }
                Bytes::from(part.bytes)
            };
            let head = if part.is_new { HEADER_BYTES } else { 0 };
            self.cache.push(file.segment, part.offset + head as u32, bytes.slice(head..));
            steps.push(Step::Write { file, offset: u64::from(part.offset), buffers: vec![bytes] });
            if let Some(length) = part.sealed_len {
                let segment = self.segments.get_mut(&file.segment).expect("a written segment is in use");
                if segment.allocated > length {
                    steps.push(Step::Truncate { file, length });
                    segment.allocated = length;
                }
            }
            if is_synced {
                steps.push(Step::SyncData { file });
            }
        }
        self.pending_bytes = 0;
        let log = Some((self.position, Durable { batch, ..self.now() }));
        self.in_flight = Some(InFlight { log, first_write, is_probe: false, is_rewrite: false, is_synced });
        Commit { steps }
    }

    /// Tries whether there is space again.
    fn take_probe(&mut self) -> Commit {
        let file = self.open.file;
        let offset = self.segments[&self.open_segment].allocated;
        self.in_flight = Some(InFlight {
            log: None,
            first_write: usize::MAX,
            is_probe: true,
            is_rewrite: false,
            is_synced: false,
        });
        Commit { steps: vec![Step::Allocate { file, offset, length: RESERVE_BYTES }] }
    }

    /// Files that are superfluous, records that shall be unreadable: what made them so is durable.
    fn take_cleanup(&mut self) -> Option<Commit> {
        let mut steps = Vec::new();
        let mut touched = Vec::new();
        while let Some((position, erasure)) = self.erasures.front()
            && *position <= self.committed
        {
            // In the last commit a record that is not whole would be taken for its end: another one has to follow.
            if self.settings.syncs_commits {
                if (erasure.segment, erasure.offset) >= (self.durable.segment, self.durable.batch) {
                    self.is_state_due = true;
                    self.position += 1;
                    break;
                }
            } else if (erasure.segment, erasure.offset) >= (self.open_segment, self.synced_end) {
                // When it is synced.
                break;
            }
            let (_, erasure) = self.erasures.pop_front().expect("it was just there");
            let Some(segment) = self.segments.get(&erasure.segment) else { continue };
            let zeros = vec![0; erasure.len as usize - RECORD_BYTES];
            let mut bytes = Vec::new();
            let salt = salt(self.settings.stream_salt, erasure.segment, segment.file.generation);
            let record = Record::of(Kind::Erased, erasure.seq);
            Record { payload: &zeros, time_ns: erasure.time_ns, ..record }.encode(salt, &mut bytes);
            let (file, offset) = (segment.file, u64::from(erasure.offset));
            steps.push(Step::Write { file, offset, buffers: vec![bytes.into()] });
            if touched.last() != Some(&file) {
                touched.push(file);
            }
        }
        steps.extend(touched.into_iter().map(|file| Step::SyncData { file }));
        let mut removed = 0;
        while removed < REMOVALS_MAX
            && let Some((position, file)) = self.doomed.front()
            && *position <= self.committed
        {
            // One after the other: what the second says of the first must not go before it.
            steps.push(Step::Remove { file: *file });
            steps.push(Step::SyncDirectory);
            self.doomed.pop_front();
            removed += 1;
        }
        let mut made = 0;
        while made < HOLES_MAX
            && let Some((position, _, _, _)) = self.holes.front()
            && *position <= self.committed
        {
            let (_, file, offset, length) = self.holes.pop_front().expect("it was just there");
            if self.segments.get(&file.segment).is_some_and(|segment| segment.file == file) {
                steps.push(Step::PunchHole { file, offset, length });
                made += 1;
            }
        }
        if steps.is_empty() {
            return None;
        }
        self.in_flight = Some(InFlight {
            log: None,
            first_write: usize::MAX,
            is_probe: false,
            is_rewrite: false,
            is_synced: false,
        });
        Some(Commit { steps })
    }

    /// Takes sealed segments without messages out of use, the oldest first, and copies the notes that are in them.
    fn doom_emptied(&mut self) {
        for segment in self.index.take_emptied() {
            self.consider_emptied(segment);
            self.emptied.push(segment);
        }
        if self.emptied.is_empty() {
            return;
        }
        self.emptied.sort_unstable();
        let mut kept = Vec::new();
        for segment in std::mem::take(&mut self.emptied) {
            let Some(first) = self.segments.keys().next() else { break };
            let is_oldest = *first == segment;
            let Some(known) = self.segments.get(&segment) else { continue };
            if segment >= self.durable.segment {
                kept.push(segment);
                continue;
            }
            // What it says of older segments' messages is said nowhere else.
            if !is_oldest && self.holds_others(&known.holds) {
                kept.push(segment);
                continue;
            }
            let file = known.file;
            if self.rewrite.as_ref().is_some_and(|rewrite| rewrite.segment == segment) {
                self.end_rewrite();
            }
            let keys: Vec<Box<[u8]>> = self
                .notes
                .iter()
                .filter(|(_, note)| note.segment == segment)
                .map(|(key, _)| key.clone())
                .collect();
            for key in keys {
                let value = self.notes[&key].value.clone();
                if value.is_none() && is_oldest {
                    self.notes.remove(&key);
                } else {
                    self.push_note(&key, value.as_deref());
                }
            }
            // Where segments stop following each other without a word, one is missing.
            if !is_oldest {
                self.note_dropped(segment);
            }
            self.segments.remove(&segment);
            // The state says that its messages are gone, if no record does.
            self.is_state_due = true;
            self.doomed.push_back((self.position + 1, file));
        }
        self.emptied = kept;
    }

    /// Notes that a segment was removed though older ones exist, together with those beside it.
    fn note_dropped(&mut self, segment: u64) {
        let (mut first, mut last) = (segment, segment);
        for (beside, end) in dropped_ranges(&self.notes) {
            if end + 1 == segment {
                first = beside;
            } else if beside == segment + 1 {
                last = end;
                self.push_note(&dropped_key(beside), None);
            }
        }
        self.push_note(&dropped_key(first), Some(&last.to_be_bytes()));
    }

    /// Space of removed messages in segments that others keep in use. What lies between them, removals and notes, stays:
    /// the records still say all that the index says.
    fn plan_holes(&mut self) {
        let sparse = self.index.take_sparse();
        for segment in &sparse {
            if let Some(known) = self.segments.get_mut(segment) {
                known.holes = 0;
            }
        }
        for (segment, start, end) in self.index.dead_extents(&sparse, self.more()) {
            let (start, end) = (start.next_multiple_of(HOLE_BLOCK), end / HOLE_BLOCK * HOLE_BLOCK);
            let Some(known) = self.segments.get_mut(&segment) else { continue };
            // What is sealed but not durable may still be taken apart again.
            if segment < self.durable.segment && start + HOLE_BYTES_MIN <= end {
                known.holes += end - start;
                self.holes.push_back((self.position, known.file, start, end - start));
            }
        }
        self.candidates.extend(sparse);
    }

    /// What has to be synced, if commits are not and no sync is under way.
    pub(super) fn take_sync(&mut self) -> Option<Commit> {
        let Durable { segment, end, .. } = self.durable;
        let is_due = self.is_sync_due() && self.syncing.is_none() && segment == self.open_segment;
        if !is_due {
            return None;
        }
        self.syncing = Some((segment, end));
        Some(Commit { steps: vec![Step::SyncData { file: self.segments[&segment].file }] })
    }

    /// Whether something was written that is not known to be on the disk.
    pub(super) fn is_sync_due(&self) -> bool {
        !self.settings.syncs_commits
            && !matches!(self.health, Health::Poisoned(_))
            && (self.durable.segment != self.open_segment || self.durable.end > self.synced_end)
    }

    /// What became of the sync that was taken.
    pub(super) fn finish_sync(&mut self, result: Result<(), CommitError>) -> Committed {
        let (segment, end) = self.syncing.take().expect("a sync was taken");
        match result {
            Ok(()) => {
                if segment == self.open_segment {
                    self.synced_end = self.synced_end.max(end);
                }
                Committed::Done
            }
            Err(CommitError { text, .. }) => {
                self.health = Health::Poisoned(text.clone());
                // A commit that is under way finds that when it comes back.
                if self.in_flight.is_none() {
                    self.roll_back();
                }
                Committed::Poisoned { text }
            }
        }
    }

    pub(super) fn finish_commit(&mut self, result: Result<(), CommitError>) -> Committed {
        let in_flight = self.in_flight.take().expect("a commit was taken");
        if in_flight.is_rewrite {
            self.finish_rewrite_commit(result.map_err(|error| error.text));
            return Committed::Done;
        }
        let result = match &self.health {
            Health::Poisoned(text) => {
                Err(CommitError { step: usize::MAX, kind: CommitErrorKind::Other, text: text.clone() })
            }
            _ => result,
        };
        match (result, in_flight.log) {
            (Ok(()), Some((position, durable))) => {
                self.committed = position;
                self.durable = durable;
                if in_flight.is_synced && durable.segment == self.open_segment {
                    self.synced_end = durable.end;
                }
                while self.removed.front().is_some_and(|(at, ..)| *at <= position) {
                    self.removed.pop_front();
                }
                for number in self.sealed_since.extract_if(.., |number| *number < durable.segment) {
                    if let Some(segment) = self.segments.get_mut(&number) {
                        segment.removed = Vec::new();
                    }
                }
                self.cache.shrink(self.settings.cache_bytes_max);
                Committed::Done
            }
            (Ok(()), None) => {
                if in_flight.is_probe {
                    let open = self.segments.get_mut(&self.open_segment).expect("the open segment is in use");
                    open.allocated += RESERVE_BYTES;
                    self.health = Health::Good;
                }
                Committed::Done
            }
            (Err(error), None) => {
                if in_flight.is_probe {
                    self.health = Health::Full(false);
                } else {
                    self.warn(error.text);
                }
                Committed::Done
            }
            (Err(error), Some(_)) => {
                let is_full = error.kind == CommitErrorKind::NoSpace && error.step < in_flight.first_write;
                self.health =
                    if is_full { Health::Full(false) } else { Health::Poisoned(error.text.clone()) };
                let messages = self.roll_back();
                if is_full {
                    Committed::RolledBack { messages }
                } else {
                    Committed::Poisoned { text: error.text }
                }
            }
        }
    }

    /// Takes back every message that is not durable. Removals and notes stay, and are pending once more.
    fn roll_back(&mut self) -> u64 {
        let Durable { segment, batch: _, end, allocated, next_seq, last_time_ns } = self.durable;
        let mut messages = self.index.truncate(next_seq, last_time_ns);
        for number in (segment..self.open_segment).rev() {
            self.index.reopen(number);
            messages += self.index.truncate(next_seq, last_time_ns);
        }
        self.segments.retain(|number, _| *number <= segment);
        self.emptied.retain(|number| *number < segment);
        self.rolled.clear();
        self.sealed_since.clear();
        self.pending_bytes = 0;
        self.segments.get_mut(&segment).expect("the open segment is in use").allocated = allocated;
        self.continue_segment(segment, end);
        self.cache.cut(segment, end);
        let open = self.segments.get_mut(&segment).expect("the open segment is in use");
        open.end = end;
        (open.is_empty, open.has_index) = (false, false);
        self.erasures.retain(|(_, erasure)| (erasure.segment, erasure.offset) < (segment, end));
        let removed = std::mem::take(&mut self.removed);
        let notes: Vec<_> = self
            .notes
            .iter()
            .filter(|(_, note)| note.position > self.committed)
            .map(|(key, note)| (key.clone(), note.value.clone()))
            .collect();
        self.is_state_due = true;
        if let Health::Poisoned(_) = self.health {
            return messages;
        }
        for (_, seq, holder) in removed.into_iter().filter(|(_, seq, _)| *seq < next_seq) {
            self.push_record(Record::of(Kind::Remove, seq));
            self.removed.push_back((self.position, seq, holder));
            self.note_removed(seq, holder);
        }
        for (key, value) in notes {
            self.push_note(&key, value.as_deref());
        }
        messages
    }

    pub(super) fn refusal(&self) -> Option<StoreError> {
        match &self.health {
            Health::Good => None,
            Health::Full(_) => Some(StoreError::NoSpace),
            Health::Poisoned(text) => Some(StoreError::Poisoned(text.clone())),
        }
    }

    pub(super) fn is_poisoned(&self) -> bool {
        matches!(self.health, Health::Poisoned(_))
    }

    /// The segment in which the last commit ends.
    pub(super) fn durable_segment(&self) -> u64 {
        self.durable.segment
    }

    pub(super) fn warn(&mut self, text: String) {
        if self.warnings.len() < WARNINGS_MAX {
            self.warnings.push(text);
        }
    }

    pub(super) fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// The segment and the offset of a message.
    fn place(&self, place: Place) -> (u64, u32) {
        (place.segment.unwrap_or(self.open_segment), place.offset)
    }

    pub(super) fn read(&self, seq: u64) -> Read {
        let Some(place) = self.index.find(seq) else { return Read::Missing };
        let (segment, offset) = self.place(place);
        let len = place.size + self.more();
        match self.in_memory(segment, offset, len as usize) {
            Some(bytes) => {
                let message = match &self.settings.encryption {
                    None => plain_message(&bytes, 0),
                    Some(_) => self.codec_of(segment).message(&bytes, 0),
                };
                Read::Found(message.expect("what was written is a message").0)
            }
            None => Read::OnDisk(self.plan(segment, offset, len, seq, seq)),
        }
    }

    fn plan(&self, segment: u64, offset: u32, length: u32, first_seq: u64, last_seq: u64) -> ReadPlan {
        let file = self.segments[&segment].file;
        ReadPlan {
            file,
            offset: u64::from(offset),
            length,
            first_seq,
            last_seq,
            codec: self.codec_of(segment),
        }
    }

    fn in_memory(&self, segment: u64, offset: u32, len: usize) -> Option<Bytes> {
        for pending in self.rolled.iter().chain([&self.open]) {
            if pending.file.segment == segment && offset >= pending.offset {
                let start = (offset - pending.offset) as usize;
                return Some(Bytes::copy_from_slice(&pending.bytes[start..start + len]));
            }
        }
        self.cache.get(segment, offset, len)
    }

    pub(super) fn read_ahead(&self, from_seq: u64, last_seq: u64, bytes_max: u32) -> Option<ReadPlan> {
        let (segment, start) = self.place(self.index.find(from_seq)?);
        let more = self.more();
        let (mut end, mut last, mut next) = (start, from_seq, Some(from_seq));
        while let Some(seq) = next.filter(|&seq| seq <= last_seq) {
            let place = self.index.find(seq).expect("a live message");
            let len = place.size + more;
            let is_elsewhere = self.place(place).0 != segment;
            let is_cached = self.in_memory(segment, place.offset, len as usize).is_some();
            // In another segment it may lie at a lower offset.
            let is_far =
                || seq != from_seq && place.offset.saturating_add(len).saturating_sub(start) > bytes_max;
            if is_elsewhere || is_cached || is_far() {
                break;
            }
            (end, last) = (place.offset + len, seq);
            next = self.index.next(seq + 1);
        }
        (end > start).then(|| self.plan(segment, start, end - start, from_seq, last))
    }
}

impl Segment {
    /// Its records remove a message, which a file says is there.
    pub(super) fn record_removed(&mut self, seq: u64, holder: Option<FileId>) {
        if seq >= self.base_seq {
            return;
        }
        if let Some(holder) = holder {
            let hold = self.holds.entry(holder.segment).or_insert(Hold { generation: 0, count: 0 });
            hold.generation = hold.generation.max(holder.generation);
            hold.count += 1;
        }
        match self.removed.last_mut() {
            Some((_, last)) if *last + 1 == seq => *last = seq,
            _ => self.removed.push((seq, seq)),
        }
    }
}

impl ReadPlan {
    /// The wanted messages that `bytes` hold, which were read from the plan's place. Ends before the first that is damaged;
    /// an error if that is the first wanted one.
    pub fn decode(&self, bytes: &Bytes) -> Result<Vec<StoredMessage>, Damaged> {
        let mut messages = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let Some((_, len)) = Record::decode(self.codec.salt, &bytes[at..]) else { break };
            let message = self.codec.message(bytes, at).map(|(message, _)| message);
            let wanted = self.first_seq..=self.last_seq;
            messages.extend(message.filter(|message| wanted.contains(&message.seq)));
            at += len;
        }
        if messages.first().is_none_or(|first| first.seq != self.first_seq) {
            return Err(Damaged { seq: self.first_seq, file: self.file, offset: self.offset });
        }
        Ok(messages)
    }
}

/// The key of the note that a segment was removed though older ones exist.
pub(super) fn dropped_key(segment: u64) -> Vec<u8> {
    let mut key = vec![OWN_NOTE];
    key.extend_from_slice(&segment.to_be_bytes());
    key
}

/// The segments that were removed though older ones exist: first and last of each range.
pub(super) fn dropped_ranges(notes: &BTreeMap<Box<[u8]>, Note>) -> Vec<(u64, u64)> {
    let own = notes.iter().take_while(|(key, _)| key.first() == Some(&OWN_NOTE));
    own.filter_map(|(key, note)| {
        let first = u64::from_be_bytes(*key.get(1..)?.first_chunk()?);
        let value = note.value.as_deref()?;
        // Earlier versions wrote a note for each.
        let last = value.first_chunk().map_or(first, |last| u64::from_be_bytes(*last));
        (last >= first).then_some((first, last))
    })
    .collect()
}

impl From<FileStore> for Store {
    fn from(store: FileStore) -> Store {
        Store::File(Box::new(store))
    }
}
