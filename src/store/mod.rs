//! The storage core of JetStream: the messages of one stream, and where they are.
//!
//! Sans-IO: appends and removals change the indexes at once and collect bytes; [`Store::take_commit`] gives what has to be
//! written, a driver carries it out and says so to [`Store::finish_commit`]. Everything up to [`Store::committed`] then
//! survives `kill -9` and power loss, and only that may be acknowledged or shown to clients. The newest state, what is
//! not committed included, is what [`Store::state`] and the queries answer from: checks of a publish need it. Who
//! shows messages to clients stops at [`Store::committed_seq`].
//!
//! * [`message`]: messages and what is known of them.
//! * [`filter`]: which messages are meant.
//! * [`plan`]: what a store wants done with files.
//! * [`memory`]: the store without files; [`file`](mod@file): the one with them, [`recovery`]: how it is opened.
//! * `index`: where every message is, for both; `sealed`, `packed`, `subjects`: what it is made of.
//! * `segment`, `segment_index`: the format of the files, `cipher`: their encryption; `rewrite`: segments that hold little are written anew.
//!
//! No clock, no randomness of its own, no order of hash maps that could be seen.

mod cipher;
#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod damage_tests;
pub mod file;
pub mod filter;
mod index;
pub mod memory;
pub mod message;
#[cfg(test)]
mod model;
mod packed;
pub mod plan;
pub mod recovery;
mod rewrite;
mod sealed;
mod segment;
mod segment_index;
#[cfg(test)]
pub(crate) mod simulated_disk;
mod subjects;
mod tail_cache;

use std::ops::RangeInclusive;

pub use cipher::{Cipher, Encryption};
pub use file::{FileStore, Settings};
pub use filter::Filters;
pub use memory::MemoryStore;
pub use message::{Message, Purged, Removed, State, StoreError, StoredMessage, SubjectState};
pub use plan::{Commit, CommitError, CommitErrorKind, Committed, Damaged, FileId, Files, ReadPlan, Step};
pub use recovery::{OpenError, RecoveryReport};

/// How many bytes may wait for the disk, in one store, before further messages are refused.
pub const PENDING_BYTES_MAX: usize = 256 << 20;

/// Where a message is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// It is in memory.
    Found(StoredMessage),
    /// It has to be read.
    OnDisk(ReadPlan),
    /// Deleted, never stored, or lost to damage that recovery reported.
    Missing,
}

/// The messages of one stream, in memory or in files.
pub enum Store {
    /// In files.
    File(Box<FileStore>),
    /// In memory.
    Memory(Box<MemoryStore>),
}

macro_rules! each {
    ($self:expr, $store:ident => $what:expr) => {
        match $self {
            Store::File($store) => $what,
            Store::Memory($store) => $what,
        }
    };
}

impl Store {
    /// Adds a message. Its sequence must be greater than every one before; what is left out counts as deleted. Nothing
    /// changes if it is refused.
    pub fn append(&mut self, message: &Message<'_>) -> Result<(), StoreError> {
        each!(self, store => store.append(message))
    }

    /// The next message gets this sequence or a higher one; the ones left out count as deleted. Without messages this
    /// is the new first sequence. Does nothing if `next_seq` is not beyond the last sequence.
    pub fn skip_to(&mut self, next_seq: u64) {
        each!(self, store => store.skip_to(next_seq))
    }

    /// Removes one message. With `erase` its bytes are overwritten on disk, after the removal is committed.
    pub fn remove(&mut self, seq: u64, erase: bool) -> Option<Removed<'_>> {
        each!(self, store => store.remove(seq, erase))
    }

    /// Removes every message below `seq`, whole segments at once. The last sequence stays: without messages the first
    /// is then the last + 1. `seq` beyond the last + 1 is the same as all (see [`skip_to`](Self::skip_to)).
    pub fn remove_up_to(&mut self, seq: u64) -> Purged {
        each!(self, store => store.remove_up_to(seq))
    }

    /// What there is, what is not committed included.
    pub fn state(&self) -> State {
        each!(self, store => store.index().state())
    }

    /// What there is of exactly this subject.
    pub fn subject(&self, subject: &[u8]) -> Option<SubjectState> {
        each!(self, store => store.index().subject(subject))
    }

    /// The last sequence of exactly this subject.
    pub fn last_of(&self, subject: &[u8]) -> Option<u64> {
        self.subject(subject).map(|subject| subject.last_seq)
    }

    /// The first sequence of exactly this subject.
    pub fn first_of(&self, subject: &[u8]) -> Option<u64> {
        self.subject(subject).map(|subject| subject.first_seq)
    }

    /// How many messages there are of exactly this subject.
    pub fn count_of(&self, subject: &[u8]) -> u64 {
        self.subject(subject).map_or(0, |subject| subject.messages)
    }

    /// The last message of exactly this subject that is not after `seq`.
    pub fn last_of_up_to(&self, subject: &[u8], seq: u64) -> Option<u64> {
        each!(self, store => store.index().last_of_up_to(subject, seq))
    }

    /// The highest sequence of a message that the pattern matches.
    pub fn last_matching(&self, pattern: &[u8]) -> Option<u64> {
        each!(self, store => store.index().last_matching(pattern))
    }

    /// Subjects that the pattern matches, in byte order, after the subject `after` if there is one, at most `max`.
    pub fn subjects_matching(
        &self,
        pattern: &[u8],
        after: Option<&[u8]>,
        max: usize,
    ) -> Vec<(Box<[u8]>, SubjectState)> {
        each!(self, store => store.index().subjects_matching(pattern, after, max))
    }

    /// How many subjects the pattern matches.
    pub fn count_subjects(&self, pattern: &[u8]) -> u64 {
        each!(self, store => store.index().count_subjects(pattern))
    }

    /// The first message at or after `from_seq` that the filters mean.
    pub fn next_matching(&self, filters: &Filters, from_seq: u64) -> Option<u64> {
        each!(self, store => store.index().next_matching(filters, from_seq))
    }

    /// How many messages at or after `from_seq` the filters mean.
    pub fn count_matching(&self, filters: &Filters, from_seq: u64) -> u64 {
        each!(self, store => store.index().count_matching(filters, from_seq))
    }

    /// The first message at or after `from_seq`.
    pub fn next(&self, from_seq: u64) -> Option<u64> {
        each!(self, store => store.index().next(from_seq))
    }

    /// The last message at or before `from_seq`.
    pub fn previous(&self, from_seq: u64) -> Option<u64> {
        each!(self, store => store.index().previous(from_seq))
    }

    /// The first message that was received at `time_ns` or later, found by halving: times do not decrease with sequences
    /// unless the clock was set back.
    pub fn seq_at_or_after(&self, time_ns: i64) -> Option<u64> {
        each!(self, store => store.index().seq_at_or_after(time_ns))
    }

    /// When a message was received, without reading it.
    pub fn time_of(&self, seq: u64) -> Option<i64> {
        each!(self, store => store.index().time_of(seq))
    }

    /// The subject of a message, without reading it.
    pub fn subject_of(&self, seq: u64) -> Option<&[u8]> {
        each!(self, store => store.index().subject_of(seq))
    }

    /// What a message counts for in `state.bytes`, without reading it.
    pub fn bytes_of(&self, seq: u64) -> Option<u64> {
        each!(self, store => store.index().bytes_of(seq))
    }

    /// The sequences between the first and the last that are not there.
    pub fn deleted(&self) -> Box<dyn Iterator<Item = RangeInclusive<u64>> + '_> {
        each!(self, store => Box::new(store.index().deleted()))
    }

    /// A message, or where it is. Messages that are not committed are found as well.
    pub fn read(&self, seq: u64) -> Read {
        each!(self, store => store.read(seq))
    }

    /// One plan for a run of messages that are not in memory, from `from_seq` on, of at most `bytes_max` bytes (but of
    /// at least one message) and not beyond `last_seq`. `None` if that message is in memory or missing: ask
    /// [`read`](Self::read).
    pub fn read_ahead(&self, from_seq: u64, last_seq: u64, bytes_max: u32) -> Option<ReadPlan> {
        each!(self, store => store.read_ahead(from_seq, last_seq, bytes_max))
    }

    /// Keeps a value for a key beside the messages, as durable as they are; `None` forgets it. Values replace each
    /// other; a store holds the newest of each key.
    pub fn note(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), StoreError> {
        each!(self, store => store.note(key, value))
    }

    /// The notes in the order of their keys.
    pub fn notes(&self) -> Box<dyn Iterator<Item = (&[u8], &[u8])> + '_> {
        each!(self, store => Box::new(store.notes()))
    }

    /// Grows with everything that changes the store. What was done up to here is durable when
    /// [`committed`](Self::committed) has come as far.
    pub fn position(&self) -> u64 {
        each!(self, store => store.position())
    }

    /// The [`position`](Self::position) up to which everything is durable.
    pub fn committed(&self) -> u64 {
        each!(self, store => store.committed())
    }

    /// The last sequence that is durable.
    pub fn committed_seq(&self) -> u64 {
        each!(self, store => store.committed_seq())
    }

    /// What has to be done so that everything up to now is durable; `None` if it is, or while a commit is under way.
    pub fn take_commit(&mut self) -> Option<Commit> {
        each!(self, store => store.take_commit())
    }

    /// What became of the commit that was taken.
    pub fn finish_commit(&mut self, result: Result<(), CommitError>) -> Committed {
        each!(self, store => store.finish_commit(result))
    }

    /// Whether [`rewrite_read`](Self::rewrite_read) has something, now or after the commits that are due.
    pub fn wants_rewrite(&self) -> bool {
        match self {
            Store::File(store) => store.wants_rewrite(),
            Store::Memory(_) => false,
        }
    }

    /// What has to be read so that segments that hold little are rewritten, one read at a time. The driver decides when.
    pub fn rewrite_read(&mut self) -> Option<ReadPlan> {
        match self {
            Store::File(store) => store.rewrite_read(),
            Store::Memory(_) => None,
        }
    }

    /// What the read brought; `None`: it failed.
    pub fn rewrite_bytes(&mut self, bytes: Option<&bytes::Bytes>) {
        match self {
            Store::File(store) => store.rewrite_bytes(bytes),
            Store::Memory(_) => {}
        }
    }

    /// What has to be done so that everything committed survives the machine, if commits are not synced
    /// ([`Settings::syncs_commits`]); `None` if nothing, or while that is under way. Commits may go on meanwhile.
    pub fn take_sync(&mut self) -> Option<Commit> {
        match self {
            Store::File(store) => store.take_sync(),
            Store::Memory(_) => None,
        }
    }

    /// Whether something was committed that does not survive the machine yet.
    pub fn is_sync_due(&self) -> bool {
        match self {
            Store::File(store) => store.is_sync_due(),
            Store::Memory(_) => false,
        }
    }

    /// What became of the sync that was taken. One that failed poisons the store.
    pub fn finish_sync(&mut self, result: Result<(), CommitError>) -> Committed {
        match self {
            Store::File(store) => store.finish_sync(result),
            Store::Memory(_) => Committed::Done,
        }
    }

    /// What went wrong in the background since this was asked before, for the log: files that could not be removed,
    /// messages that could not be overwritten.
    pub fn take_warnings(&mut self) -> Vec<String> {
        each!(self, store => store.take_warnings())
    }

    /// Why nothing can be stored at present, if so.
    pub fn refusal(&self) -> Option<StoreError> {
        each!(self, store => store.refusal())
    }
}
