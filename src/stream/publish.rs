//! What becomes of a message that is published to a stream: checks in the reference's order, storing, the acknowledgement.
//!
//! A message without a header that fits is one append to the store and one acknowledgement in the outbox: nothing is allocated,
//! hashed or searched. Headers are looked through once. A refusal is told at once and stores nothing; an acknowledgement waits for the disk.

use std::borrow::Cow;

use super::check::is_valid_publish_subject;
use super::config::{Discard, Storage};
use super::decimal::Decimal;
use super::error::{ApiError, ErrorId};
use super::fast_batch;
use super::headers::{self, Published};
use super::json::{self, Strictness, from_json, go_quoted};
use super::outbox::Kind;
use super::schedule::{self, ScheduleError};
use super::stream::Stream;
use super::time::{self, parse_duration};
use crate::store::message::{file_bytes, memory_bytes};
use crate::store::{Message, Read, ReadPlan, StoreError, StoredMessage};
use crate::subject::name::{collide, matches};

/// The longest header that is stored, in bytes.
const HEADER_BYTES_MAX: usize = 65_535;

/// How many counters are known without reading their last message. All are forgotten when there are more.
const COUNTERS_MAX: usize = 100_000;

/// The header by which a counter's message says what of it has come from where.
pub(super) const COUNTER_SOURCES: &str = "Nats-Counter-Sources";

const NS_PER_SECOND: i64 = 1_000_000_000;

/// A message as it was published.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    /// To where.
    pub subject: &'a [u8],
    /// Where the acknowledgement goes; empty if nobody wants one.
    pub reply: &'a [u8],
    /// The header block, empty without one.
    pub header: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
}

/// A message whose place in the stream depends on another one that has to be read first: then [`Stream::resume_publish`].
///
/// Only counters have such, when the last message of a counter is not in memory.
#[derive(Debug)]
#[must_use]
pub struct PendingPublish {
    /// Where the other message is.
    pub plan: ReadPlan,
    subject: Vec<u8>,
    reply: Vec<u8>,
    header: Vec<u8>,
    payload: Vec<u8>,
}

/// Why a message is not stored.
#[derive(Debug)]
pub(super) enum Refusal {
    Error(ApiError),
    /// It was stored before, with this sequence.
    Duplicate(u64),
    /// Not yet: this has to be read first.
    Read(ReadPlan),
}

impl From<ErrorId> for Refusal {
    fn from(id: ErrorId) -> Refusal {
        Refusal::Error(id.into())
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Refusal {
        Refusal::Error(error)
    }
}

/// What the headers ask for.
#[derive(Debug, Default)]
pub(super) struct Asked<'a> {
    pub(super) msg_id: &'a [u8],
    pub(super) rollup: Option<Rollup>,
    /// Seconds; negative for never, 0 for nothing said.
    pub(super) ttl_s: i64,
    /// What was said of the time to live cannot be read.
    pub(super) ttl_is_wrong: bool,
    /// Whether the stream may be full, and its account: for batches it was asked beforehand.
    pub(super) may_be_refused: bool,
    /// It is a schedule, of which there is one per subject: its header is to say so.
    pub(super) adds_rollup: bool,
    /// The subject of a schedule that is to be purged.
    pub(super) purged_schedule: &'a [u8],
    /// What the counter is to become.
    pub(super) counter: Option<Counter>,
    /// Its sequence and its time, if it has them from the stream that is mirrored.
    pub(super) place: Option<(u64, i64)>,
}

/// What a counter stands at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counter {
    pub(super) total: Decimal,
    /// What of it has come from where: the value of [`COUNTER_SOURCES`], empty if nothing has.
    pub(super) sources: Box<[u8]>,
}

/// What a message has to do with schedules.
#[derive(Debug, Default)]
pub(super) struct Scheduling<'a> {
    /// It is one.
    pub(super) is_schedule: bool,
    /// It ends the one of this subject.
    pub(super) purged: &'a [u8],
}

/// What a message replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rollup {
    Subject,
    All,
}

impl Stream {
    /// Takes a message that was published to one of the stream's subjects. What comes back waits for a read.
    pub fn publish(&mut self, incoming: Incoming<'_>, now_ns: i64) -> Option<PendingPublish> {
        let answered = !self.config.no_ack && !incoming.reply.is_empty();
        let Err(refusal) = self.take(incoming, answered, now_ns) else { return None };
        match refusal {
            Refusal::Read(plan) => {
                let Incoming { subject, reply, header, payload } = incoming;
                return Some(PendingPublish {
                    plan,
                    subject: subject.to_vec(),
                    reply: reply.to_vec(),
                    header: header.to_vec(),
                    payload: payload.to_vec(),
                });
            }
            _ if !answered => {}
            // What it duplicates may not be on disk yet.
            Refusal::Duplicate(seq) => {
                let position = self.store.position();
                self.later.push_ack(
                    position,
                    incoming.reply,
                    &self.ack_prefix,
                    seq,
                    b",\"duplicate\": true}",
                );
            }
            Refusal::Error(error) => {
                let body = self.refusal_body(&error);
                self.now.push(0, Kind::Ack, incoming.reply, &[], &[&body]);
            }
        }
        None
    }

    /// Goes on with a message when the other one was read, or could not be.
    pub fn resume_publish(
        &mut self,
        pending: PendingPublish,
        read: Option<StoredMessage>,
        now_ns: i64,
    ) -> Option<PendingPublish> {
        let PendingPublish { subject, reply, header, payload, .. } = pending;
        let is_of_a_batch = fast_batch::reply_of(&reply, &header).is_some();
        if is_of_a_batch {
            self.release_held();
        }
        let mut pending = None;
        match &read {
            Some(message) => {
                self.note_counter(message);
                let incoming =
                    Incoming { subject: &subject, reply: &reply, header: &header, payload: &payload };
                pending = self.publish(incoming, now_ns);
            }
            None if !self.config.no_ack && !reply.is_empty() => {
                let body = self.refusal_body(&ErrorId::MessageCounterBroken.into());
                self.now.push(0, Kind::Ack, &reply, &[], &[&body]);
            }
            None => {}
        }
        while is_of_a_batch
            && pending.is_none()
            && let Some(held) = self.next_held()
        {
            let (subject, reply, header, payload) = (&held.subject, &held.reply, &held.header, &held.payload);
            pending = self.publish(Incoming { subject, reply, header, payload }, now_ns);
        }
        pending
    }

    fn take(&mut self, incoming: Incoming<'_>, answered: bool, now_ns: i64) -> Result<(), Refusal> {
        let Incoming { subject, reply, header, payload } = incoming;
        if header.is_empty() && self.is_plain && !reply.ends_with(fast_batch::SUFFIX) {
            if self.config.max_msg_size >= 0 && payload.len() > self.config.max_msg_size as usize {
                return Err(ErrorId::StreamMessageExceedsMaximum.into());
            }
            let asked = Asked { may_be_refused: true, ..Asked::default() };
            let seq = self.store_message(subject, b"", payload, asked, now_ns)?;
            if answered {
                self.later.push_ack(self.store.position(), reply, &self.ack_prefix, seq, b"}");
            }
            return Ok(());
        }
        let mut header = Cow::Borrowed(header);
        if let Some(without) = headers::without_status(&header) {
            header = Cow::Owned(without);
        }
        if let Some(place) = fast_batch::reply_of(reply, &header) {
            let incoming = Incoming { subject, reply, header: &header, payload };
            return self.publish_fast(incoming, &place, answered, now_ns);
        }
        let published = Published::of(&header);
        if !published.batch_id.is_empty() {
            let incoming = Incoming { subject, reply, header: &header, payload };
            return self.publish_in_batch(incoming, &published, answered, now_ns);
        }
        if self.config.sealed {
            return Err(ErrorId::StreamSealed.into());
        }
        let transformed = self.transformed(subject);
        let subject = transformed.as_deref().unwrap_or(subject);
        let without;
        let (header, published): (&[u8], _) = match published.request_info {
            b"" => (&header, published),
            _ => {
                without = headers::remove(&header, b"Nats-Request-Info");
                (&without, Published::of(&without))
            }
        };
        let asked = self.check_headers(&published, subject, payload, now_ns)?;
        let total = asked.counter.as_ref().map(|counter| counter.total.to_string());
        let told = asked.counter.as_ref().map(|counter| &counter.sources[..]).unwrap_or_default();
        let with_sources = (!told.is_empty()).then(|| headers::set(header, COUNTER_SOURCES, told));
        let header = with_sources.as_deref().unwrap_or(header);
        let counted = total.as_deref().map(counter_value);
        let payload = counted.as_ref().map_or(payload, String::as_bytes);
        if self.config.max_msg_size >= 0 && header.len() + payload.len() > self.config.max_msg_size as usize {
            return Err(ErrorId::StreamMessageExceedsMaximum.into());
        }
        self.check_header_size(header)?;
        let seq = self.store_message(subject, header, payload, asked, now_ns)?;
        if answered {
            let position = self.store.position();
            match total {
                None => self.later.push_ack(position, reply, &self.ack_prefix, seq, b"}"),
                Some(total) => {
                    let suffix = format!(",\"val\":\"{total}\"}}");
                    self.later.push_ack(position, reply, &self.ack_prefix, seq, suffix.as_bytes());
                }
            }
        }
        Ok(())
    }

    /// Stores a message that was checked, unless nobody wants it, the account has no room or the stream is full. Returns its sequence.
    pub(super) fn store_message(
        &mut self,
        subject: &[u8],
        header: &[u8],
        payload: &[u8],
        mut asked: Asked<'_>,
        now_ns: i64,
    ) -> Result<u64, Refusal> {
        let bytes = self.bytes_of(subject, header, payload);
        let held = self.store.state().bytes + bytes;
        let is_asked_for = asked.may_be_refused && !self.share.covers(held);
        if is_asked_for && self.share.is_server_exceeded() {
            return Err(ErrorId::InsufficientResources.into());
        }
        if !self.has_interest(subject) {
            return Ok(self.skip(&asked, subject, now_ns));
        }
        let republished_to = self.republished_to(subject);
        let previous_of_subject = match &republished_to {
            Some(_) => self.store.last_of(subject).unwrap_or(0),
            None => 0,
        };
        if is_asked_for && !self.share.take(held) {
            return Err(ErrorId::AccountResourcesExceeded.into());
        }
        if asked.ttl_is_wrong {
            return Err(ErrorId::MessageTtlInvalid.into());
        }
        let mut header = Cow::Borrowed(header);
        if asked.adds_rollup {
            headers::add(header.to_mut(), "Nats-Rollup", "sub");
        }
        let marker_ttl_s = self.config.subject_delete_marker_ttl.0 / NS_PER_SECOND;
        if asked.ttl_s > 0 && asked.ttl_s < marker_ttl_s && self.config.max_msgs_per_subject != 1 {
            // Otherwise the marker of an earlier message could outlive this one.
            asked.ttl_s = marker_ttl_s;
            let mut longer = headers::remove(&header, b"Nats-TTL");
            headers::add(&mut longer, "Nats-TTL", marker_ttl_s.to_string());
            header = Cow::Owned(longer);
        }
        if self.config.discard == Discard::New && asked.may_be_refused {
            self.check_full(subject, bytes, asked.rollup.is_some())?;
        }
        let seq = self.append(subject, &header, payload, asked.place, now_ns)?;
        if self.config.allow_msg_ttl && !header.is_empty() {
            self.note_expiry(seq, now_ns, &header, asked.ttl_s);
        }
        if self.config.allow_msg_schedules {
            self.note_schedule(subject, seq, now_ns, &header);
        }
        if let Some(counter) = asked.counter.take() {
            self.keep_counter(subject, seq, Some(counter));
        }
        self.make_room(subject);
        self.note_msg_id(asked.msg_id, seq, now_ns);
        self.roll_up(&asked, subject, 1);
        if let Some(to) = republished_to {
            self.push_republished(&to, subject, seq, previous_of_subject, &header, payload, now_ns);
        }
        Ok(seq)
    }

    /// Whether there is room for a message of a batch, without taking it.
    pub(super) fn check_room(&mut self, bytes: u64) -> Result<(), Refusal> {
        let held = self.store.state().bytes + bytes;
        if self.share.covers(held) {
            return Ok(());
        }
        if self.share.is_server_exceeded() {
            return Err(ErrorId::InsufficientResources.into());
        }
        if !self.share.has_room(held) {
            return Err(ErrorId::AccountResourcesExceeded.into());
        }
        Ok(())
    }

    /// What a message counts for.
    pub(super) fn bytes_of(&self, subject: &[u8], header: &[u8], payload: &[u8]) -> u64 {
        match self.config.storage {
            Storage::File => file_bytes(subject.len(), header.len(), payload.len()),
            Storage::Memory => memory_bytes(subject.len(), header.len(), payload.len()),
        }
    }

    /// What the stream's transform makes of a subject that is its concern.
    pub(super) fn transformed(&mut self, subject: &[u8]) -> Option<Vec<u8>> {
        let transform = self.subject_transform.as_ref()?;
        if !matches(subject, transform.source().as_bytes()) {
            return None;
        }
        let mut transformed = Vec::new();
        transform.apply(subject, &mut self.random, &mut transformed);
        Some(transformed)
    }

    pub(super) fn check_header_size(&self, header: &[u8]) -> Result<(), Refusal> {
        if header.len() > HEADER_BYTES_MAX { Err(ErrorId::StreamHeaderExceedsMaximum.into()) } else { Ok(()) }
    }

    /// The checks of what headers ask for, up to those of the size.
    fn check_headers<'h>(
        &mut self,
        published: &Published<'h>,
        subject: &[u8],
        payload: &[u8],
        now_ns: i64,
    ) -> Result<Asked<'h>, Refusal> {
        let increment = self.check_increment(published, payload)?;
        if !published.expected_stream.is_empty() && published.expected_stream != self.config.name.as_bytes() {
            return Err(ErrorId::StreamNotMatch.into());
        }
        let ttl_s = parse_ttl(published.ttl);
        if !self.config.allow_msg_ttl && ttl_s.is_ok_and(|ttl_s| ttl_s != 0) {
            return Err(ErrorId::MessageTtlDisabled.into());
        }
        self.check_expected_sequences(published, subject)?;
        let scheduling = self.check_schedules(published, subject, now_ns)?;
        if !published.stream_source.is_empty() {
            return Err(ErrorId::MessageSourceHdrNotAllowed.into());
        }
        let window_ns = self.config.duplicate_window.0;
        if !published.msg_id.is_empty()
            && let Some(seq) = self.dedup.find(published.msg_id, now_ns, window_ns)
        {
            return Err(Refusal::Duplicate(seq));
        }
        if !published.expected_last_msg_id.is_empty() && published.expected_last_msg_id != self.last_msg_id {
            let last = String::from_utf8_lossy(&self.last_msg_id).into_owned();
            return Err(ApiError::with(ErrorId::StreamWrongLastMsgId, last).into());
        }
        let rollup = match scheduling.is_schedule {
            true => Some(Rollup::Subject),
            false => self.rollup(published.rollup)?,
        };
        let counter = match increment {
            Some(increment) => {
                let Counter { total, sources } = self.counter(subject)?;
                Some(Counter { total: total.plus(&increment), sources })
            }
            None if self.config.allow_msg_counter => return Err(ErrorId::MessageIncrMissing.into()),
            None => None,
        };
        Ok(Asked {
            msg_id: published.msg_id,
            rollup,
            ttl_s: ttl_s.unwrap_or(0),
            ttl_is_wrong: ttl_s.is_err(),
            may_be_refused: true,
            adds_rollup: scheduling.is_schedule && published.rollup.is_empty(),
            purged_schedule: scheduling.purged,
            counter,
            place: None,
        })
    }

    /// What a message adds to a counter.
    pub(super) fn check_increment(
        &self,
        published: &Published<'_>,
        payload: &[u8],
    ) -> Result<Option<Decimal>, Refusal> {
        if published.incr.is_empty() {
            return Ok(None);
        }
        let increment = Decimal::parse(published.incr).ok_or(ErrorId::MessageIncrInvalid)?;
        if !self.config.allow_msg_counter {
            return Err(ErrorId::MessageIncrDisabled.into());
        }
        if !payload.is_empty() {
            return Err(ErrorId::MessageIncrPayload.into());
        }
        let contradictory = [
            published.rollup,
            published.expected_stream,
            published.expected_last_msg_id,
            published.expected_last_subject_seq_subject,
            published.expected_last_seq,
            published.expected_last_subject_seq,
        ];
        if contradictory.iter().any(|header| !header.is_empty()) {
            return Err(ErrorId::MessageIncrInvalid.into());
        }
        Ok(Some(increment))
    }

    /// What the counter of a subject stands at.
    pub(super) fn counter(&self, subject: &[u8]) -> Result<Counter, Refusal> {
        let Some(seq) = self.store.last_of(subject) else { return Ok(Counter::default()) };
        if let Some((known, counter)) = self.counters.get(subject)
            && *known == seq
        {
            return counter.clone().ok_or_else(|| ErrorId::MessageCounterBroken.into());
        }
        match self.store.read(seq) {
            Read::Found(message) => counter_of(&message).ok_or_else(|| ErrorId::MessageCounterBroken.into()),
            Read::OnDisk(plan) => Err(Refusal::Read(plan)),
            Read::Missing => Err(ErrorId::MessageCounterBroken.into()),
        }
    }

    pub(super) fn note_counter(&mut self, message: &StoredMessage) {
        let counter = counter_of(message);
        self.keep_counter(message.subject(), message.seq, counter);
    }

    fn keep_counter(&mut self, subject: &[u8], seq: u64, counter: Option<Counter>) {
        if self.counters.len() >= COUNTERS_MAX && !self.counters.contains_key(subject) {
            self.counters.clear();
        }
        self.counters.insert(subject.into(), (seq, counter));
    }

    fn check_expected_sequences(&self, published: &Published<'_>, subject: &[u8]) -> Result<(), Refusal> {
        let other = published.expected_last_subject_seq_subject;
        if !published.expected_last_subject_seq.is_empty() {
            let wanted = headers::number(published.expected_last_subject_seq) as u64;
            let subject = if other.is_empty() { subject } else { other };
            let last = self.last_by_subject(subject).unwrap_or(0);
            if last != wanted {
                return Err(ApiError::with(ErrorId::StreamWrongLastSequence, last).into());
            }
        } else if !other.is_empty() {
            return Err(ErrorId::StreamExpectedLastSeqPerSubjectInvalid.into());
        }
        if !published.expected_last_seq.is_empty() {
            let last = self.store.state().last_seq;
            if headers::number(published.expected_last_seq) as u64 != last {
                return Err(ApiError::with(ErrorId::StreamWrongLastSequence, last).into());
            }
        }
        Ok(())
    }

    /// The checks of schedules, and what becomes of one.
    pub(super) fn check_schedules<'h>(
        &self,
        published: &Published<'h>,
        subject: &[u8],
        now_ns: i64,
    ) -> Result<Scheduling<'h>, Refusal> {
        let allowed = self.config.allow_msg_schedules;
        let refuse =
            |id: ErrorId| Err(Refusal::from(if allowed { id } else { ErrorId::MessageSchedulesDisabled }));
        let mut scheduling = Scheduling::default();
        if !published.schedule.is_empty() {
            match schedule::next(published.schedule, published.schedule_time_zone, now_ns, now_ns) {
                Err(ScheduleError::TimeZone) => return refuse(ErrorId::MessageSchedulesTimeZoneInvalid),
                Err(ScheduleError::Pattern) => return refuse(ErrorId::MessageSchedulesPatternInvalid),
                Ok(due) => scheduling.is_schedule = due.time_ns != time::ZERO,
            }
        }
        if scheduling.is_schedule {
            self.check_schedule(published, subject)?;
        }
        if !published.schedule_next.is_empty() {
            let scheduler = published.scheduler;
            if published.schedule_next != b"purge"
                || scheduler == subject
                || !std::str::from_utf8(scheduler).is_ok_and(is_valid_publish_subject)
            {
                return Err(ErrorId::MessageSchedulesSchedulerInvalid.into());
            }
            if !allowed {
                return Err(ErrorId::MessageSchedulesDisabled.into());
            }
            // What is to be purged must be a schedule, if it is there.
            let last = self.store.last_of(scheduler);
            if last.is_some() && last != self.schedules.seq(scheduler) {
                return Err(ErrorId::MessageSchedulesSchedulerInvalid.into());
            }
            scheduling.purged = scheduler;
        } else if !published.scheduler.is_empty() {
            return Err(ErrorId::MessageSchedulesSchedulerInvalid.into());
        }
        Ok(scheduling)
    }

    fn check_schedule(&self, published: &Published<'_>, subject: &[u8]) -> Result<(), Refusal> {
        if !self.config.allow_msg_schedules {
            return Err(ErrorId::MessageSchedulesDisabled.into());
        }
        if parse_ttl(published.schedule_ttl).is_err() {
            return Err(ErrorId::MessageSchedulesTtlInvalid.into());
        }
        if !matches!(published.schedule_rollup, b"" | b"sub") {
            return Err(ErrorId::MessageSchedulesRollupInvalid.into());
        }
        if !published.schedule_ttl.is_empty() && !self.config.allow_msg_ttl {
            return Err(ErrorId::MessageTtlDisabled.into());
        }
        let (target, source) = (published.schedule_target, published.schedule_source);
        let is_subject = |name: &[u8]| std::str::from_utf8(name).is_ok_and(is_valid_publish_subject);
        let is_ours =
            |name: &[u8]| self.config.subjects.iter().any(|subject| collide(subject.as_bytes(), name));
        if !is_subject(target) || target == subject {
            return Err(ErrorId::MessageSchedulesTargetInvalid.into());
        }
        if !source.is_empty() && (source == target || source == subject || !is_subject(source)) {
            return Err(ErrorId::MessageSchedulesSourceInvalid.into());
        }
        if !is_ours(target) {
            return Err(ErrorId::MessageSchedulesTargetInvalid.into());
        }
        if !source.is_empty() && !is_ours(source) {
            return Err(ErrorId::MessageSchedulesSourceInvalid.into());
        }
        if !published.rollup.is_empty() && !published.rollup.eq_ignore_ascii_case(b"sub") {
            return Err(ErrorId::MessageSchedulesRollupInvalid.into());
        }
        Ok(())
    }

    pub(super) fn rollup(&self, value: &[u8]) -> Result<Option<Rollup>, Refusal> {
        if value.is_empty() {
            return Ok(None);
        }
        if !self.config.allow_rollup_hdrs || self.config.deny_purge {
            return Err(ApiError::with(ErrorId::StreamRollupFailed, "rollup not permitted").into());
        }
        let value = String::from_utf8_lossy(value).to_lowercase();
        match value.as_str() {
            "sub" => Ok(Some(Rollup::Subject)),
            "all" => Ok(Some(Rollup::All)),
            _ => {
                let text = format!("rollup value invalid: {}", go_quoted(&value));
                Err(ApiError::with(ErrorId::StreamRollupFailed, text).into())
            }
        }
    }

    /// Whether a message of `bytes` fits into a stream that refuses what does not fit.
    fn check_full(&self, subject: &[u8], bytes: u64, is_rollup: bool) -> Result<(), Refusal> {
        let refuse = |text: &str| Err(ApiError::with(ErrorId::StreamStoreFailed, text).into());
        let max_per_subject = self.config.max_msgs_per_subject;
        // At the limit of its subject it takes the place of an older message.
        let replaces = max_per_subject > 0 && self.store.count_of(subject) >= max_per_subject as u64;
        if replaces && self.config.discard_new_per_subject && !is_rollup {
            return refuse("maximum messages per subject exceeded");
        }
        let state = self.store.state();
        if self.config.max_msgs > 0 && state.messages >= self.config.max_msgs as u64 && !replaces {
            return refuse("maximum messages exceeded");
        }
        if self.config.max_bytes > 0 && state.bytes + bytes > self.config.max_bytes as u64 {
            let freed = match replaces {
                true => self.store.first_of(subject).and_then(|seq| self.store.bytes_of(seq)).unwrap_or(0),
                false => 0,
            };
            if freed < bytes {
                return refuse("maximum bytes exceeded");
            }
        }
        Ok(())
    }

    fn append(
        &mut self,
        subject: &[u8],
        header: &[u8],
        payload: &[u8],
        place: Option<(u64, i64)>,
        now_ns: i64,
    ) -> Result<u64, Refusal> {
        let (seq, time_ns) = place.unwrap_or_else(|| (self.store.state().last_seq + 1, now_ns));
        let message = Message { seq, time_ns, subject, header, payload };
        match self.store.append(&message) {
            Ok(()) => Ok(seq),
            Err(StoreError::Backlog) => Err(ErrorId::StreamTooManyRequests.into()),
            Err(error) => Err(ApiError::with(ErrorId::StreamStoreFailed, error).into()),
        }
    }

    /// After a message of `subject` was stored: the oldest go if there are too many.
    fn make_room(&mut self, subject: &[u8]) {
        let max = self.config.max_msgs_per_subject;
        if max > 0 {
            while self.store.count_of(subject) > max as u64
                && let Some(first) = self.store.first_of(subject)
            {
                self.remove(first, false);
            }
        }
        if self.config.max_msgs > 0 || self.config.max_bytes > 0 {
            self.enforce_total();
        }
    }

    fn note_msg_id(&mut self, msg_id: &[u8], seq: u64, now_ns: i64) {
        if !msg_id.is_empty() {
            self.last_msg_id.clear();
            self.last_msg_id.extend_from_slice(msg_id);
            if self.config.duplicate_window.0 > 0 {
                self.dedup.insert(msg_id, seq, now_ns);
            }
        } else if !self.last_msg_id.is_empty() {
            self.last_msg_id.clear();
        }
    }

    /// Removes what a message replaces, but for the last `keep`, which are the message itself.
    fn roll_up(&mut self, asked: &Asked<'_>, subject: &[u8], keep: u64) {
        match asked.rollup {
            Some(Rollup::Subject) => {
                self.purge(subject, 0, keep);
            }
            Some(Rollup::All) => {
                self.purge(b"", 0, keep);
            }
            None => {}
        }
        if !asked.purged_schedule.is_empty() {
            self.purge(asked.purged_schedule, 0, 0);
        }
    }

    /// Nobody is interested: the message takes its sequence and is not stored.
    fn skip(&mut self, asked: &Asked<'_>, subject: &[u8], now_ns: i64) -> u64 {
        let seq = asked.place.map_or_else(|| self.store.state().last_seq + 1, |(seq, _)| seq);
        self.store.skip_to(seq + 1);
        self.skipped_ns = now_ns;
        self.note_msg_id(asked.msg_id, seq, now_ns);
        self.roll_up(asked, subject, 0);
        seq
    }

    /// The last message of a subject has gone by its age: a message that says so takes its place.
    pub(super) fn store_marker(&mut self, subject: &[u8], now_ns: i64) {
        let ttl_ns = self.config.subject_delete_marker_ttl.0 / NS_PER_SECOND * NS_PER_SECOND;
        let header = format!(
            "NATS/1.0\r\nNats-Marker-Reason: MaxAge\r\nNats-TTL: {}\r\nNats-Rollup: sub\r\n\r\n",
            time::duration_text(ttl_ns)
        );
        let Ok(seq) = self.append(subject, header.as_bytes(), b"", None, now_ns) else { return };
        self.note_expiry(seq, now_ns, header.as_bytes(), ttl_ns / NS_PER_SECOND);
        self.note_msg_id(b"", seq, now_ns);
        self.purge(subject, 0, 1);
    }

    fn republished_to(&mut self, subject: &[u8]) -> Option<Vec<u8>> {
        let transform = self.republish.as_ref()?;
        if !matches(subject, transform.source().as_bytes()) {
            return None;
        }
        let mut to = Vec::new();
        transform.apply(subject, &mut self.random, &mut to);
        let valid = std::str::from_utf8(&to).map_or(!to.is_empty(), is_valid_publish_subject);
        valid.then_some(to)
    }

    #[expect(clippy::too_many_arguments, reason = "they are the message")]
    fn push_republished(
        &mut self,
        to: &[u8],
        subject: &[u8],
        seq: u64,
        previous: u64,
        header: &[u8],
        payload: &[u8],
        now_ns: i64,
    ) {
        let mut lines = Vec::with_capacity(256);
        for (name, value) in
            [(&b"Nats-Stream: "[..], self.config.name.as_bytes()), (b"Nats-Subject: ", subject)]
        {
            lines.extend_from_slice(name);
            lines.extend_from_slice(value);
            lines.extend_from_slice(b"\r\n");
        }
        lines.extend_from_slice(format!("Nats-Sequence: {seq}\r\nNats-Time-Stamp: ").as_bytes());
        time::write(&mut lines, now_ns);
        lines.extend_from_slice(format!("\r\nNats-Last-Sequence: {previous}\r\n").as_bytes());
        let headers_only = self.config.republish.as_ref().is_some_and(|republish| republish.headers_only);
        if headers_only {
            lines.extend_from_slice(format!("Nats-Msg-Size: {}\r\n", payload.len()).as_bytes());
        }
        let begin = header.strip_suffix(b"\r\n").unwrap_or(headers::FIRST_LINE);
        let payload = if headers_only { b"" } else { payload };
        self.later.push(self.store.position(), Kind::Message, to, &[begin, &lines, b"\r\n"], &[payload]);
    }
}

/// The seconds of a `Nats-TTL`: 0 if there is none, -1 for a message that never goes.
pub(super) fn parse_ttl(text: &[u8]) -> Result<i64, ()> {
    if text.is_empty() {
        return Ok(0);
    }
    let text = std::str::from_utf8(text).map_err(|_| ())?;
    if text.eq_ignore_ascii_case("never") {
        return Ok(-1);
    }
    if let Some(ns) = parse_duration(text) {
        return if ns < NS_PER_SECOND { Err(()) } else { Ok(ns / NS_PER_SECOND) };
    }
    match headers::number(text.as_bytes()) {
        ..0 => Err(()),
        seconds => Ok(seconds),
    }
}

/// The payload of a counter's message.
pub(super) fn counter_value(total: &str) -> String {
    format!("{{\"val\":\"{total}\"}}")
}

/// What a counter's message says; `None` if it says nothing.
fn counter_of(message: &StoredMessage) -> Option<Counter> {
    let total = counted(message.payload())?;
    let sources = headers::get(message.header(), COUNTER_SOURCES.as_bytes()).unwrap_or_default();
    Some(Counter { total, sources: sources.into() })
}

/// The number in the payload of a counter's message; `None` if it has none.
pub(super) fn counted(payload: &[u8]) -> Option<Decimal> {
    let value: CounterValue = json::read(payload, Strictness::Lenient).ok()?;
    Some(Decimal::parse(value.val.as_bytes()).unwrap_or_default())
}

/// The payload of a counter's message.
#[derive(Debug, Default)]
struct CounterValue {
    val: String,
}

from_json!(CounterValue, "server.CounterValue", { "val" => val });
