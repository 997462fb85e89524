//! Atomic batches: messages that are stored together or not at all.
//!
//! The messages of a batch name it and their place in it (`Nats-Batch-Id`, `Nats-Batch-Sequence`); the last one commits it. Until then they are
//! kept in memory, checked for gaps only. The commit checks each as if those before it were stored, and stores all of them in one step, so that
//! nobody sees a part. Should a power cut leave a part of them on disk, it is taken away when the stream is opened: the last message of a batch
//! that was stored says so in its header.
//!
//! Limits are those of the reference by default; a batch that waits for too long is dropped, and an advisory tells it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::api;
use super::config::Discard;
use super::decimal::Decimal;
use super::error::{ApiError, ErrorId};
use super::fast_batch::FastBatches;
use super::headers::{self, Published};
use super::json::{write_string, write_uint};
use super::outbox::Kind;
use super::publish::{Asked, Counter, Incoming, Refusal, Rollup, counter_value, parse_ttl};
use super::stream::Stream;

/// Limits of batches.
#[derive(Debug, Clone)]
pub struct BatchLimits {
    /// Messages of one atomic batch.
    pub messages: u64,
    /// Atomic batches of one stream that are not committed.
    pub open: usize,
    /// Fast batches of one stream that have not ended.
    pub fast_open: usize,
    /// Bytes of one atomic batch that is not committed, which the reference does not limit but keeps on disk.
    pub bytes: usize,
    /// How long a batch waits for its next message.
    pub timeout_ns: i64,
    /// Batches of all streams.
    pub totals: Arc<BatchTotals>,
}

impl Default for BatchLimits {
    fn default() -> BatchLimits {
        BatchLimits {
            messages: 1000,
            open: 50,
            fast_open: 1000,
            bytes: 64 << 20,
            timeout_ns: 10_000_000_000,
            totals: Arc::default(),
        }
    }
}

/// The batches of all streams of a server, and how many there may be.
#[derive(Debug)]
pub struct BatchTotals {
    atomic: AtomicUsize,
    fast: AtomicUsize,
    atomic_max: usize,
    fast_max: usize,
}

impl Default for BatchTotals {
    fn default() -> BatchTotals {
        BatchTotals::new(BatchTotals::ATOMIC_MAX, BatchTotals::FAST_MAX)
    }
}

impl BatchTotals {
    /// Atomic batches of a server, unless it is said how many.
    pub const ATOMIC_MAX: usize = 1000;
    /// Fast batches of a server, unless it is said how many.
    pub const FAST_MAX: usize = 50_000;

    /// None yet, and at most so many of each kind.
    pub fn new(atomic_max: usize, fast_max: usize) -> BatchTotals {
        BatchTotals { atomic: AtomicUsize::new(0), fast: AtomicUsize::new(0), atomic_max, fast_max }
    }

    fn of(&self, kind: BatchKind) -> (&AtomicUsize, usize) {
        match kind {
            BatchKind::Atomic => (&self.atomic, self.atomic_max),
            BatchKind::Fast => (&self.fast, self.fast_max),
        }
    }

    /// Counts a batch that begins; `false` if there are too many already.
    pub(super) fn begin(&self, kind: BatchKind) -> bool {
        let (open, max) = self.of(kind);
        let may_begin = open.fetch_add(1, Ordering::Relaxed) < max;
        if !may_begin {
            open.fetch_sub(1, Ordering::Relaxed);
        }
        may_begin
    }

    /// Counts batches that have ended.
    pub(super) fn end(&self, kind: BatchKind, ended: usize) {
        self.of(kind).0.fetch_sub(ended, Ordering::Relaxed);
    }
}

/// How messages belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BatchKind {
    /// All or none, at once.
    Atomic,
    /// Each when it comes.
    Fast,
}

/// The longest name of a batch.
pub(super) const ID_BYTES_MAX: usize = 64;

/// The batches of a stream that are not committed.
#[derive(Debug)]
pub(super) struct Batches {
    open: BTreeMap<Vec<u8>, Batch>,
    pub(super) fast: FastBatches,
    pub(super) limits: BatchLimits,
}

impl Batches {
    pub(super) fn new(limits: BatchLimits) -> Batches {
        Batches { open: BTreeMap::new(), fast: FastBatches::default(), limits }
    }

    /// Drops the atomic batches.
    pub(super) fn drop_atomic(&mut self) {
        self.limits.totals.end(BatchKind::Atomic, self.open.len());
        self.open.clear();
    }

    fn take(&mut self, id: &[u8]) -> Option<Batch> {
        let batch = self.open.remove(id)?;
        self.limits.totals.end(BatchKind::Atomic, 1);
        Some(batch)
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        self.drop_atomic();
        self.limits.totals.end(BatchKind::Fast, self.fast.len());
    }
}

/// How an acknowledgement of a batch ends, behind the sequence.
pub(super) fn write_batch(out: &mut Vec<u8>, id: &[u8], count: u64) {
    out.extend_from_slice(b",\"batch\":");
    // The reference quotes it as Go does, which is no JSON where it has control characters.
    write_string(out, &String::from_utf8_lossy(id));
    out.extend_from_slice(b",\"count\":");
    write_uint(out, count);
    out.push(b'}');
}

#[derive(Debug, Default)]
struct Batch {
    messages: Vec<Staged>,
    bytes: usize,
    deadline_ns: i64,
}

#[derive(Debug)]
struct Staged {
    subject: Vec<u8>,
    header: Vec<u8>,
    payload: Vec<u8>,
}

/// What the messages of a batch that were checked so far would change.
pub(super) struct Difference {
    kind: BatchKind,
    msg_ids: BTreeSet<Vec<u8>>,
    /// Messages by subject.
    written: BTreeMap<Vec<u8>, u64>,
    /// What was expected of subjects.
    expected: BTreeMap<Vec<u8>, u64>,
    messages: u64,
    bytes: u64,
}

impl Difference {
    /// No messages yet.
    pub(super) fn of(kind: BatchKind) -> Difference {
        Difference {
            kind,
            msg_ids: BTreeSet::new(),
            written: BTreeMap::new(),
            expected: BTreeMap::new(),
            messages: 0,
            bytes: 0,
        }
    }
}

/// Why a batch was dropped.
#[derive(Debug, Clone, Copy)]
enum Abandoned {
    Timeout,
    Large,
    Incomplete,
    Unsupported,
}

impl Abandoned {
    fn word(self) -> &'static str {
        match self {
            Abandoned::Timeout => "timeout",
            Abandoned::Large => "large",
            Abandoned::Incomplete => "incomplete",
            Abandoned::Unsupported => "unsupported",
        }
    }
}

/// How a message ends its batch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CommitHeader {
    None,
    /// With this message.
    Here,
    /// With the message before this one, which is not stored.
    Before,
    Invalid,
}

impl Stream {
    /// Takes a message of an atomic batch.
    pub(super) fn publish_in_batch(
        &mut self,
        incoming: Incoming<'_>,
        published: &Published<'_>,
        answered: bool,
        now_ns: i64,
    ) -> Result<(), Refusal> {
        let Incoming { subject, reply, header, payload } = incoming;
        self.check_batch_message(subject, header, payload)?;
        if !self.config.allow_atomic {
            return Err(ErrorId::AtomicPublishDisabled.into());
        }
        let id = published.batch_id;
        if id.len() > ID_BYTES_MAX {
            return Err(ErrorId::AtomicPublishInvalidBatchId.into());
        }
        let seq = u64::try_from(headers::number(published.batch_sequence))
            .map_err(|_| ErrorId::AtomicPublishMissingSeq)?;
        let commit = match headers::get(header, b"Nats-Batch-Commit") {
            None => CommitHeader::None,
            Some(b"1") => CommitHeader::Here,
            Some(b"eob") => CommitHeader::Before,
            Some(_) => CommitHeader::Invalid,
        };
        // The message that only ends the batch does not count.
        let size = seq.saturating_sub(u64::from(commit == CommitHeader::Before));
        let BatchLimits { messages: messages_max, open, bytes: bytes_max, timeout_ns, .. } =
            self.batches.limits;
        let too_large = || Refusal::from(ApiError::with(ErrorId::AtomicPublishTooLargeBatch, messages_max));
        if !self.batches.open.contains_key(id) {
            if seq != 1 {
                let large = size > messages_max;
                return Err(if large { too_large() } else { ErrorId::AtomicPublishIncompleteBatch.into() });
            }
            if self.batches.open.len() >= open || !self.batches.limits.totals.begin(BatchKind::Atomic) {
                return Err(ErrorId::AtomicPublishTooManyInflight.into());
            }
            self.batches.open.insert(id.to_vec(), Batch::default());
        }
        if commit == CommitHeader::Invalid {
            self.batches.take(id);
            return Err(ErrorId::AtomicPublishInvalidBatchCommit.into());
        }
        let mut header = header.to_vec();
        if headers::get(&header, b"Nats-Required-Api-Level").is_some_and(|level| !level.is_empty()) {
            if headers::needs_newer_level(&header) {
                self.abandon(id, Abandoned::Unsupported, now_ns);
                return Err(ErrorId::RequiredApiLevel.into());
            }
            header = headers::remove(&header, b"Nats-Required-Api-Level");
        }
        let batch = self.batches.open.get_mut(id).expect("it was there or was just made");
        batch.deadline_ns = now_ns.saturating_add(timeout_ns);
        let next = batch.messages.len() as u64 + 1;
        if seq != next || seq == 1 && commit == CommitHeader::Before {
            self.abandon(id, Abandoned::Incomplete, now_ns);
            return Err(ErrorId::AtomicPublishIncompleteBatch.into());
        }
        batch.bytes += subject.len() + header.len() + payload.len();
        if size > messages_max || batch.bytes > bytes_max {
            self.abandon(id, Abandoned::Large, now_ns);
            return Err(too_large());
        }
        if commit != CommitHeader::Before {
            batch.messages.push(Staged { subject: subject.to_vec(), header, payload: payload.to_vec() });
        }
        if commit == CommitHeader::None {
            if answered {
                self.now.push(0, Kind::Ack, reply, &[], &[]);
            }
            return Ok(());
        }
        let batch = self.batches.take(id).expect("it was just there");
        let count = batch.messages.len() as u64;
        let last = self.commit(batch, commit == CommitHeader::Before, now_ns)?;
        if answered {
            let mut suffix = Vec::new();
            write_batch(&mut suffix, id, count);
            self.later.push_ack(self.store.position(), reply, &self.ack_prefix, last, &suffix);
        }
        Ok(())
    }

    /// Drops batches that have waited for too long.
    pub(super) fn expire_batches(&mut self, now_ns: i64) {
        while let Some((id, _)) = self.batches.open.iter().find(|(_, batch)| batch.deadline_ns <= now_ns) {
            let id = id.clone();
            self.abandon(&id, Abandoned::Timeout, now_ns);
        }
    }

    /// When the next batch has waited for too long.
    pub(super) fn next_batch_deadline_ns(&self) -> Option<i64> {
        self.batches.open.values().map(|batch| batch.deadline_ns).min()
    }

    /// Removes what is left of a batch at the end of the stream that was not stored completely, given its messages from the last backwards.
    pub(super) fn is_torn_batch(header: &[u8]) -> Option<&[u8]> {
        let id = headers::get(header, b"Nats-Batch-Id").filter(|id| !id.is_empty())?;
        headers::get(header, b"Nats-Batch-Commit").is_none().then_some(id)
    }

    /// The checks that every message of a batch meets when it arrives.
    pub(super) fn check_batch_message(
        &mut self,
        subject: &[u8],
        header: &[u8],
        payload: &[u8],
    ) -> Result<(), Refusal> {
        if self.config.sealed {
            return Err(ErrorId::StreamSealed.into());
        }
        self.check_room(self.bytes_of(subject, header, payload))?;
        if self.config.max_msg_size >= 0 && header.len() + payload.len() > self.config.max_msg_size as usize {
            return Err(ErrorId::StreamMessageExceedsMaximum.into());
        }
        Ok(())
    }

    /// Checks all messages, then stores them. Returns the sequence of the last.
    fn commit(&mut self, batch: Batch, ended_before: bool, now_ns: i64) -> Result<u64, Refusal> {
        let mut difference = Difference::of(BatchKind::Atomic);
        let mut subjects = Vec::with_capacity(batch.messages.len());
        let mut all_asked = Vec::with_capacity(batch.messages.len());
        let mut bytes = 0;
        for message in &batch.messages {
            let subject = self.transformed(&message.subject).unwrap_or_else(|| message.subject.clone());
            let published = Published::of(&message.header);
            if !published.expected_last_msg_id.is_empty() {
                let header = "Nats-Expected-Last-Msg-Id";
                return Err(ApiError::with(ErrorId::AtomicPublishUnsupportedHeaderBatch, header).into());
            }
            let (header, payload) = (&message.header, &message.payload);
            let checked = self.check_staged(&mut difference, &subject, &published, header, payload, now_ns);
            let asked = checked.map_err(|refusal| match refusal {
                Refusal::Duplicate(_) => ErrorId::AtomicPublishContainsDuplicateMessage.into(),
                other => other,
            })?;
            bytes += self.bytes_of(&subject, &message.header, &message.payload);
            subjects.push(subject);
            all_asked.push(asked);
        }
        // All of it, or none.
        if !self.share.take(self.store.state().bytes + bytes) {
            return Err(ErrorId::AccountResourcesExceeded.into());
        }
        if let Some(refusal) = self.store.refusal() {
            return Err(ApiError::with(ErrorId::StreamStoreFailed, refusal).into());
        }
        let mut last = 0;
        let count = batch.messages.len();
        for (index, ((message, subject), asked)) in
            batch.messages.iter().zip(&subjects).zip(all_asked).enumerate()
        {
            let mut header = message.header.clone();
            if ended_before && index + 1 == count {
                headers::add(&mut header, "Nats-Batch-Commit", "1");
            }
            last = self.store_message(subject, &header, &message.payload, asked, now_ns)?;
        }
        Ok(last)
    }

    /// Checks a message as if those before it in its batch were stored.
    pub(super) fn check_staged<'m>(
        &mut self,
        difference: &mut Difference,
        subject: &[u8],
        published: &Published<'m>,
        header: &[u8],
        payload: &[u8],
        now_ns: i64,
    ) -> Result<Asked<'m>, Refusal> {
        let constant = || Refusal::from(ErrorId::StreamWrongLastSequenceConstant);
        self.check_header_size(header)?;
        let increment = self.check_increment(published, payload)?;
        if increment.is_some() && difference.kind == BatchKind::Atomic {
            // Counters do not come in atomic batches here.
            return Err(ApiError::with(ErrorId::AtomicPublishUnsupportedHeaderBatch, "Nats-Incr").into());
        }
        if !published.expected_stream.is_empty() && published.expected_stream != self.config.name.as_bytes() {
            return Err(ErrorId::StreamNotMatch.into());
        }
        let ttl_s = match parse_ttl(published.ttl) {
            Ok(0) => 0,
            _ if !self.config.allow_msg_ttl => return Err(ErrorId::MessageTtlDisabled.into()),
            Ok(ttl_s) => ttl_s,
            Err(()) => return Err(ErrorId::MessageTtlInvalid.into()),
        };
        if !published.msg_id.is_empty() {
            let window_ns = self.config.duplicate_window.0;
            if let Some(seq) = self.dedup.find(published.msg_id, now_ns, window_ns) {
                return Err(Refusal::Duplicate(seq));
            }
            if !difference.msg_ids.insert(published.msg_id.to_vec()) {
                return Err(ErrorId::AtomicPublishContainsDuplicateMessage.into());
            }
        }
        if !published.stream_source.is_empty() {
            return Err(ErrorId::MessageSourceHdrNotAllowed.into());
        }
        let counter = match increment {
            Some(increment) => Some(self.counted(subject, header, &increment)?),
            None if self.config.allow_msg_counter => return Err(ErrorId::MessageIncrMissing.into()),
            None => None,
        };
        if !published.expected_last_seq.is_empty() {
            let last = self.store.state().last_seq + difference.messages;
            if headers::number(published.expected_last_seq) as u64 != last {
                return Err(ApiError::with(ErrorId::StreamWrongLastSequence, last).into());
            }
            if difference.messages > 0 {
                return Err(constant());
            }
        }
        let other = published.expected_last_subject_seq_subject;
        if !published.expected_last_subject_seq.is_empty() {
            let wanted = headers::number(published.expected_last_subject_seq) as u64;
            let checked = if other.is_empty() { subject } else { other };
            if difference.written.contains_key(checked) {
                return Err(constant());
            }
            let last = match difference.expected.get(checked) {
                Some(last) => *last,
                None => self.last_by_subject(checked).unwrap_or(0),
            };
            if last != wanted {
                return Err(ApiError::with(ErrorId::StreamWrongLastSequence, last).into());
            }
            difference.expected.insert(checked.to_vec(), last);
        } else if !other.is_empty() {
            return Err(ErrorId::StreamExpectedLastSeqPerSubjectInvalid.into());
        }
        let scheduling = self.check_schedules(published, subject, now_ns)?;
        let rollup = match scheduling.is_schedule {
            true => Some(Rollup::Subject),
            false => self.rollup(published.rollup)?,
        };
        let rollup_failed = |text: &str| Err(ApiError::with(ErrorId::StreamRollupFailed, text).into());
        match rollup {
            Some(Rollup::Subject) if difference.written.contains_key(subject) => {
                return rollup_failed("batch rollup sub invalid");
            }
            Some(Rollup::All) if difference.messages > 0 => return rollup_failed("batch rollup all invalid"),
            _ => {}
        }
        let bytes = self.bytes_of(subject, header, payload);
        let written = difference.written.entry(subject.to_vec()).or_default();
        *written += 1;
        let of_subject = *written;
        difference.messages += 1;
        difference.bytes += bytes;
        if self.config.discard == Discard::New {
            self.check_full_for_batch(difference, subject, of_subject, rollup.is_some())?;
        }
        Ok(Asked {
            msg_id: published.msg_id,
            rollup,
            ttl_s,
            adds_rollup: scheduling.is_schedule && published.rollup.is_empty(),
            purged_schedule: scheduling.purged,
            counter,
            ..Asked::default()
        })
    }

    /// What a counter of a batch is to become.
    fn counted(&mut self, subject: &[u8], header: &[u8], increment: &Decimal) -> Result<Counter, Refusal> {
        let Counter { total, sources } = self.counter(subject)?;
        let total = total.plus(increment);
        let len = header.len() + counter_value(&total.to_string()).len();
        if self.config.max_msg_size >= 0 && len > self.config.max_msg_size as usize {
            return Err(ErrorId::StreamMessageExceedsMaximum.into());
        }
        Ok(Counter { total, sources })
    }

    fn check_full_for_batch(
        &self,
        difference: &Difference,
        subject: &[u8],
        of_subject: u64,
        is_rollup: bool,
    ) -> Result<(), Refusal> {
        let refuse = |text: &str| Err(ApiError::with(ErrorId::StreamStoreFailed, text).into());
        let state = self.store.state();
        if self.config.max_msgs > 0 && state.messages + difference.messages > self.config.max_msgs as u64 {
            return refuse("maximum messages exceeded");
        }
        if self.config.max_bytes > 0 && state.bytes + difference.bytes > self.config.max_bytes as u64 {
            return refuse("maximum bytes exceeded");
        }
        let max = self.config.max_msgs_per_subject;
        if self.config.discard_new_per_subject
            && max > 0
            && !is_rollup
            && self.store.count_of(subject) + of_subject > max as u64
        {
            return refuse("maximum messages per subject exceeded");
        }
        Ok(())
    }

    fn abandon(&mut self, id: &[u8], reason: Abandoned, now_ns: i64) {
        self.batches.take(id);
        let mut body = Vec::with_capacity(256);
        let mut object = api::begin_advisory(&mut body, "stream_batch_abandoned", &mut self.random, now_ns);
        object.string_unless_empty("account", &self.account);
        object.string("stream", &self.config.name);
        object.string_unless_empty("domain", &self.domain);
        object.string("batch", &String::from_utf8_lossy(id));
        object.string("reason", reason.word());
        object.end();
        let subject = format!("$JS.EVENT.ADVISORY.STREAM.BATCH_ABANDONED.{}", self.config.name);
        self.now.push(0, Kind::Message, subject.as_bytes(), &[], &[&body]);
    }
}
