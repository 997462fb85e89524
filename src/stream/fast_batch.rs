//! Fast batches: many messages under few acknowledgements, each stored when it comes.
//!
//! What a message is in its batch stands in its reply: `PREFIX.ID.FLOW.GAP.SEQUENCE.OPERATION.$FI`. The stream answers with how far it has come,
//! every so many messages as it and the publisher agree, and with one acknowledgement for the whole batch at its end. Where messages are missing
//! the batch ends with what came before (`fail`), or goes on (`ok`).
//!
//! Everything that is said of a batch is due when what it speaks of is on the disk, in the order in which it was said. When something could not be
//! written all batches end: what they were told before holds, and what follows is told that its batch is unknown.

use std::collections::{HashMap, VecDeque};

use rustc_hash::FxBuildHasher;
use serde::Deserialize;

use super::batch::{BatchKind, Difference, ID_BYTES_MAX, write_batch};
use super::error::{ApiError, ErrorId};
use super::headers::{self, Published};
use super::json::{Object, write_uint};
use super::outbox::Kind;
use super::publish::{Asked, COUNTER_SOURCES, Incoming, Refusal, counter_value};
use super::stream::Stream;

/// What the reply of a message of a fast batch ends with.
pub(super) const SUFFIX: &[u8] = b".$FI";

/// The most messages between two acknowledgements, shared by all batches of a stream.
const ACK_EVERY_MAX: u64 = 500;

/// Messages between two acknowledgements if a publisher does not say.
const ACK_EVERY: u16 = 10;

/// Messages that wait while a counter is read, and their bytes: what the reference lets wait at a stream.
const HELD_MAX: usize = 100_000;
const HELD_BYTES_MAX: usize = 128 << 20;

/// What a reply says of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place<'a> {
    id: &'a [u8],
    seq: u64,
    /// How often the publisher wants to hear, in messages.
    ack_every: u16,
    gaps_are_fine: bool,
    operation: Operation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    /// A message of the batch; the first or another one.
    Add,
    /// A message that is the last.
    Commit,
    /// The message before this one was the last; this one is not stored.
    End,
    /// No message: the publisher asks how far the batch has come.
    Ping,
}

impl<'a> Place<'a> {
    /// Reads a reply that ends with [`SUFFIX`]. `None` if it is not as it should be.
    fn parse(reply: &'a [u8]) -> Option<Place<'a>> {
        let mut rest = reply.strip_suffix(SUFFIX)?;
        let mut token = || {
            let dot = memchr::memrchr(b'.', rest)?;
            let token = &rest[dot + 1..];
            rest = &rest[..dot];
            Some(token)
        };
        let operation = headers::number(token()?);
        let seq = unsigned(token()?).filter(|seq| ![0, u64::MAX].contains(seq))?;
        let is_possible = match operation {
            0 => seq == 1,
            1 | 3 => seq > 1,
            2 | 4 => true,
            _ => false,
        };
        if !is_possible {
            return None;
        }
        let gaps_are_fine = match token()? {
            b"ok" => true,
            b"fail" => false,
            _ => return None,
        };
        let ack_every = match headers::number(token()?) {
            ..=0 => ACK_EVERY,
            wanted => u16::try_from(wanted).unwrap_or(u16::MAX),
        };
        let operation = match operation {
            2 => Operation::Commit,
            3 => Operation::End,
            4 => Operation::Ping,
            _ => Operation::Add,
        };
        Some(Place { id: token()?, seq, ack_every, gaps_are_fine, operation })
    }
}

/// A number of digits that fits.
fn unsigned(text: &[u8]) -> Option<u64> {
    if !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The reply that says what a message is in a fast batch; `None` if it is in none.
///
/// A message that came through an import of a service has a reply of the server's own: then its header has that of the publisher.
pub(super) fn reply_of<'a>(reply: &'a [u8], header: &[u8]) -> Option<std::borrow::Cow<'a, [u8]>> {
    if reply.ends_with(SUFFIX) && reply.len() > SUFFIX.len() {
        return Some(reply.into());
    }
    if !reply.starts_with(b"_R_.") || header.is_empty() {
        return None;
    }
    let info = headers::get(header, b"Nats-Request-Info")?;
    let info: RequestInfo = serde_json::from_slice(info).ok()?;
    let is_of_a_batch = info.reply.as_bytes().ends_with(SUFFIX) && info.reply.len() > SUFFIX.len();
    is_of_a_batch.then(|| info.reply.into_bytes().into())
}

/// What of `Nats-Request-Info` is of use here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RequestInfo {
    reply: String,
}

/// The batches of a stream that have not ended.
#[derive(Debug, Default)]
pub(super) struct FastBatches {
    open: HashMap<Box<[u8]>, FastBatch, FxBuildHasher>,
    /// No batch has waited for too long before this.
    check_ns: Option<i64>,
    /// A message waits for a counter that is being read: what comes after it waits too, or it would seem to be missing.
    is_held: bool,
    held: VecDeque<Held>,
    held_bytes: usize,
}

#[derive(Debug, Clone, Copy)]
struct FastBatch {
    /// The last message that came.
    last: u64,
    /// The last message that is done with, stored or not.
    done: u64,
    /// The message that was told of last.
    told: u64,
    /// Where in the stream the last stored one is.
    stream_seq: u64,
    /// The publisher hears after so many messages,
    ack_every: u16,
    /// and does not want to wait for more than this.
    ack_every_max: u16,
    gaps_are_fine: bool,
    deadline_ns: i64,
}

impl FastBatches {
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }
}

impl FastBatch {
    /// Whether the publisher is to hear again, of which message.
    fn ack_due(&mut self, open: usize) -> Option<u64> {
        let every = u64::from(self.ack_every);
        if self.done < self.told + every {
            return None;
        }
        self.told += (self.done - self.told) / every * every;
        let share = (ACK_EVERY_MAX / open.max(1) as u64).clamp(1, self.ack_every_max.into()) as u16;
        self.ack_every = match self.ack_every {
            slow if slow < share => slow.saturating_mul(2).min(share),
            fast if fast > share => (fast / 2).max(share),
            right => right,
        };
        Some(self.told)
    }
}

/// A message that waits for another one of its batch.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) subject: Vec<u8>,
    pub(super) reply: Vec<u8>,
    pub(super) header: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

impl Held {
    fn len(&self) -> usize {
        self.subject.len() + self.reply.len() + self.header.len() + self.payload.len()
    }
}

impl Stream {
    /// Takes a message of a fast batch. `place`: the reply that says so.
    pub(super) fn publish_fast(
        &mut self,
        incoming: Incoming<'_>,
        place: &[u8],
        answered: bool,
        now_ns: i64,
    ) -> Result<(), Refusal> {
        let Incoming { subject, reply, header, payload } = incoming;
        if self.batches.fast.is_held {
            return self.hold(incoming);
        }
        self.check_batch_message(subject, header, payload)?;
        if !self.config.allow_batched {
            return Err(ErrorId::BatchPublishDisabled.into());
        }
        let place = Place::parse(place).ok_or(ErrorId::BatchPublishInvalidPattern)?;
        if place.id.len() > ID_BYTES_MAX {
            return Err(ErrorId::BatchPublishInvalidBatchId.into());
        }
        let transformed = self.transformed(subject);
        let subject = transformed.as_deref().unwrap_or(subject);
        if self.config.allow_msg_counter && !Published::of(header).incr.is_empty() {
            // What has to be read is read before anything is noted of the message.
            if let Err(Refusal::Read(plan)) = self.counter(subject) {
                self.batches.fast.is_held = true;
                return Err(Refusal::Read(plan));
            }
        }
        let mut batch = self.fast_batch(&place, now_ns)?;
        let mut header = std::borrow::Cow::Borrowed(header);
        if headers::get(&header, b"Nats-Required-Api-Level").is_some_and(|level| !level.is_empty()) {
            if headers::needs_newer_level(&header) {
                self.end_fast_batch(place.id);
                return Err(ErrorId::RequiredApiLevel.into());
            }
            header = headers::remove(&header, b"Nats-Required-Api-Level").into();
        }
        batch.deadline_ns = now_ns.saturating_add(self.batches.limits.timeout_ns);
        if place.operation == Operation::Ping {
            self.answer_ping(&place, batch, reply);
            return Ok(());
        }
        let expected = batch.last + 1;
        if place.seq != expected {
            self.push_gap(reply, expected, place.seq);
            if place.seq < expected || !batch.gaps_are_fine {
                self.conclude(place.id, &batch, reply);
                return Ok(());
            }
        }
        if place.operation == Operation::End {
            batch.last = place.seq - 1;
            self.conclude(place.id, &batch, reply);
            return Ok(());
        }
        batch.last = place.seq;
        let is_last = place.operation == Operation::Commit;
        if place.seq == 1 && answered && !is_last {
            self.push_flow(reply, 0, batch.ack_every);
        }
        let published = Published::of(&header);
        let mut difference = Difference::of(BatchKind::Fast);
        let asked = match self.check_staged(&mut difference, subject, &published, &header, payload, now_ns) {
            Ok(asked) => asked,
            Err(refusal) => {
                self.refused_in_fast_batch(&place, batch, reply, refusal);
                return Ok(());
            }
        };
        let without;
        let header = match published.request_info {
            b"" => &*header,
            _ => {
                without = headers::remove(&header, b"Nats-Request-Info");
                &without
            }
        };
        match self.store_checked(subject, header, payload, asked, now_ns) {
            Ok(seq) => batch.stream_seq = seq,
            Err(refusal) => {
                // What comes behind a message that is missing is not wanted, unless gaps are fine.
                if !batch.gaps_are_fine || is_last {
                    self.end_fast_batch(place.id);
                } else {
                    self.keep_fast_batch(place.id, batch);
                }
                let Refusal::Error(error) = refusal else { return Err(refusal) };
                if answered {
                    let body = self.refusal_body(&error);
                    self.later.push(self.store.position(), Kind::Ack, reply, &[], &[&body]);
                }
                return Ok(());
            }
        }
        batch.done = batch.last;
        if is_last {
            self.conclude(place.id, &batch, reply);
            return Ok(());
        }
        if let Some(told) = batch.ack_due(self.batches.fast.open.len()) {
            self.push_flow(reply, told, batch.ack_every);
        }
        self.keep_fast_batch(place.id, batch);
        Ok(())
    }

    /// Stores a message that has passed the checks of its batch.
    fn store_checked(
        &mut self,
        subject: &[u8],
        header: &[u8],
        payload: &[u8],
        asked: Asked<'_>,
        now_ns: i64,
    ) -> Result<u64, Refusal> {
        let expected = headers::get(header, b"Nats-Expected-Last-Msg-Id").unwrap_or_default();
        if !expected.is_empty() && expected != self.last_msg_id {
            let last = String::from_utf8_lossy(&self.last_msg_id).into_owned();
            return Err(ApiError::with(ErrorId::StreamWrongLastMsgId, last).into());
        }
        if !self.share.take(self.store.state().bytes + self.bytes_of(subject, header, payload)) {
            return Err(ErrorId::AccountResourcesExceeded.into());
        }
        match &asked.counter {
            None => self.store_message(subject, header, payload, asked, now_ns),
            Some(counter) => {
                let counted = counter_value(&counter.total.to_string());
                let told = &counter.sources[..];
                let with_sources = (!told.is_empty()).then(|| headers::set(header, COUNTER_SOURCES, told));
                let header = with_sources.as_deref().unwrap_or(header);
                self.store_message(subject, header, counted.as_bytes(), asked, now_ns)
            }
        }
    }

    /// The batch of a message as it stands: a new one if the message is the first.
    fn fast_batch(&mut self, place: &Place<'_>, now_ns: i64) -> Result<FastBatch, Refusal> {
        if let Some(batch) = self.batches.fast.open.get(place.id) {
            if batch.deadline_ns > now_ns {
                return Ok(*batch);
            }
            self.end_fast_batch(place.id);
        }
        if place.seq != 1 || place.operation == Operation::Ping {
            return Err(ErrorId::BatchPublishUnknownBatchId.into());
        }
        let limits = &self.batches.limits;
        if self.batches.fast.open.len() >= limits.fast_open || !limits.totals.begin(BatchKind::Fast) {
            return Err(ErrorId::BatchPublishTooManyInflight.into());
        }
        // A publisher that is alone is trusted; others have to find out together how fast they may be.
        let is_alone = self.batches.fast.open.is_empty();
        let deadline_ns = now_ns.saturating_add(limits.timeout_ns);
        let batch = FastBatch {
            last: 0,
            done: 0,
            told: 0,
            stream_seq: 0,
            ack_every: if is_alone { place.ack_every.min(ACK_EVERY_MAX as u16) } else { 1 },
            ack_every_max: place.ack_every,
            gaps_are_fine: place.gaps_are_fine,
            deadline_ns,
        };
        self.batches.fast.open.insert(place.id.into(), batch);
        self.batches.fast.check_ns =
            Some(self.batches.fast.check_ns.map_or(deadline_ns, |at| at.min(deadline_ns)));
        Ok(batch)
    }

    fn keep_fast_batch(&mut self, id: &[u8], batch: FastBatch) {
        if let Some(kept) = self.batches.fast.open.get_mut(id) {
            *kept = batch;
        }
    }

    fn end_fast_batch(&mut self, id: &[u8]) {
        if self.batches.fast.open.remove(id).is_some() {
            self.batches.limits.totals.end(BatchKind::Fast, 1);
        }
    }

    /// Ends all batches: of a stream that ends, that takes no more of them, or whose messages could not be written.
    pub(super) fn end_fast_batches(&mut self) {
        self.batches.limits.totals.end(BatchKind::Fast, self.batches.fast.open.len());
        self.batches.fast.open.clear();
        self.batches.fast.check_ns = None;
    }

    /// The batch ends with what it has.
    fn conclude(&mut self, id: &[u8], batch: &FastBatch, reply: &[u8]) {
        self.end_fast_batch(id);
        let mut suffix = Vec::with_capacity(id.len() + 40);
        write_batch(&mut suffix, id, batch.last);
        self.later.push_ack(self.store.position(), reply, &self.ack_prefix, batch.stream_seq, &suffix);
    }

    /// A message does not pass the checks.
    fn refused_in_fast_batch(
        &mut self,
        place: &Place<'_>,
        mut batch: FastBatch,
        reply: &[u8],
        refusal: Refusal,
    ) {
        let is_last = place.operation == Operation::Commit;
        if matches!(refusal, Refusal::Duplicate(_)) {
            // It is there already, and counts.
            batch.done = place.seq;
            if let Some(told) = batch.ack_due(self.batches.fast.open.len()) {
                self.push_flow(reply, told, batch.ack_every);
            }
            if !is_last {
                self.keep_fast_batch(place.id, batch);
                return;
            }
        }
        let position = self.store.position();
        if !batch.gaps_are_fine && batch.last == 1 {
            // A batch that ends where it begins is answered like a message that stands alone.
            self.end_fast_batch(place.id);
            match refusal {
                Refusal::Duplicate(seq) => {
                    let mut suffix = b",\"duplicate\": true".to_vec();
                    write_batch(&mut suffix, place.id, place.seq);
                    self.later.push_ack(position, reply, &self.ack_prefix, seq, &suffix);
                }
                Refusal::Error(error) => {
                    let body = self.refusal_body(&error);
                    self.later.push(position, Kind::Ack, reply, &[], &[&body]);
                }
                Refusal::Read(_) => unreachable!("it was read before"),
            }
            return;
        }
        if let Refusal::Error(error) = &refusal {
            self.push_error(reply, place.seq, error);
            if batch.gaps_are_fine && !is_last {
                self.keep_fast_batch(place.id, batch);
                return;
            }
            batch.last -= 1;
        }
        self.conclude(place.id, &batch, reply);
    }

    fn answer_ping(&mut self, place: &Place<'_>, mut batch: FastBatch, reply: &[u8]) {
        if place.seq > batch.last {
            self.push_gap(reply, batch.last + 1, place.seq + 1);
            if !batch.gaps_are_fine {
                self.conclude(place.id, &batch, reply);
                return;
            }
            batch.last = place.seq;
            batch.done = place.seq;
            batch.ack_due(self.batches.fast.open.len());
        }
        self.push_flow(reply, batch.told, batch.ack_every);
        self.keep_fast_batch(place.id, batch);
    }

    /// The batch has come as far as `seq`, and tells so every `every` messages.
    fn push_flow(&mut self, reply: &[u8], seq: u64, every: u16) {
        let mut body = Vec::with_capacity(64);
        body.extend_from_slice(b"{\"type\":\"ack\",\"seq\":");
        write_uint(&mut body, seq);
        body.extend_from_slice(b",\"msgs\":");
        write_uint(&mut body, every.into());
        body.push(b'}');
        self.later.push(self.store.position(), Kind::Ack, reply, &[], &[&body]);
    }

    fn push_gap(&mut self, reply: &[u8], expected: u64, seq: u64) {
        let mut body = Vec::with_capacity(64);
        let mut object = Object::begin(&mut body);
        object.string("type", "gap");
        object.uint("last_seq", expected);
        object.uint("seq", seq);
        object.end();
        self.later.push(self.store.position(), Kind::Message, reply, &[], &[&body]);
    }

    fn push_error(&mut self, reply: &[u8], seq: u64, error: &ApiError) {
        let mut body = Vec::with_capacity(160);
        let mut object = Object::begin(&mut body);
        object.string("type", "err");
        object.uint("seq", seq);
        error.write(object.member("error"));
        object.end();
        self.later.push(self.store.position(), Kind::Message, reply, &[], &[&body]);
    }

    /// Ends batches that have waited for too long. Nobody is told.
    pub(super) fn expire_fast_batches(&mut self, now_ns: i64) {
        if self.batches.fast.check_ns.is_none_or(|at| at > now_ns) {
            return;
        }
        let before = self.batches.fast.open.len();
        self.batches.fast.open.retain(|_, batch| batch.deadline_ns > now_ns);
        self.batches.limits.totals.end(BatchKind::Fast, before - self.batches.fast.open.len());
        self.batches.fast.check_ns = self.batches.fast.open.values().map(|batch| batch.deadline_ns).min();
    }

    /// When a batch may have waited for too long.
    pub(super) fn next_fast_batch_check_ns(&self) -> Option<i64> {
        self.batches.fast.check_ns
    }

    /// Keeps a message until the one before it has been taken.
    fn hold(&mut self, incoming: Incoming<'_>) -> Result<(), Refusal> {
        let Incoming { subject, reply, header, payload } = incoming;
        let held = Held {
            subject: subject.to_vec(),
            reply: reply.to_vec(),
            header: header.to_vec(),
            payload: payload.to_vec(),
        };
        let bytes = self.batches.fast.held_bytes + held.len();
        if self.batches.fast.held.len() >= HELD_MAX || bytes > HELD_BYTES_MAX {
            return Err(ErrorId::StreamTooManyRequests.into());
        }
        self.batches.fast.held_bytes = bytes;
        self.batches.fast.held.push_back(held);
        Ok(())
    }

    /// What was read is there: the message that waited for it is next.
    pub(super) fn release_held(&mut self) {
        self.batches.fast.is_held = false;
    }

    /// The next message that waited for one before it, unless another one is being waited for.
    pub(super) fn next_held(&mut self) -> Option<Held> {
        if self.batches.fast.is_held {
            return None;
        }
        let held = self.batches.fast.held.pop_front()?;
        self.batches.fast.held_bytes -= held.len();
        Some(held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(reply: &str) -> Option<Place<'_>> {
        Place::parse(reply.as_bytes())
    }

    #[test]
    fn a_reply_says_what_its_message_is() {
        let first = place("_INBOX.x.uuid.100.fail.1.0.$FI").unwrap();
        assert_eq!((first.id, first.seq, first.ack_every), (&b"uuid"[..], 1, 100));
        assert!(!first.gaps_are_fine && first.operation == Operation::Add);
        assert_eq!(place("r.u.0.ok.7.4.$FI").unwrap().operation, Operation::Ping);
        assert_eq!(place("r.u.0.ok.7.3.$FI").unwrap().operation, Operation::End);
        assert_eq!(place("r.u.x.ok.7.1.$FI").unwrap().ack_every, 10);
        assert_eq!(place("r.u.70000.ok.7.1.$FI").unwrap().ack_every, 65_535);
    }

    #[test]
    fn a_reply_that_is_not_right_is_none() {
        for reply in [
            ".$FI",
            "1.$FI",
            "u.10.ok.1.0.$FI",
            "r.u.10.ok.0.0.$FI",
            "r.u.10.ok.2.0.$FI",
            "r.u.10.ok.1.1.$FI",
            "r.u.10.ok.1.3.$FI",
            "r.u.10.ok.1.5.$FI",
            "r.u.10.ok.1.-1.$FI",
            "r.u.10.maybe.1.0.$FI",
            "r.u.10.ok.18446744073709551615.1.$FI",
            "r.u.10.ok.18446744073709551616.1.$FI",
        ] {
            assert_eq!(place(reply), None, "{reply}");
        }
    }

    #[test]
    fn acknowledgements_become_rare_when_a_batch_is_alone_and_frequent_when_it_is_not() {
        let mut batch = FastBatch {
            last: 0,
            done: 1,
            told: 0,
            stream_seq: 0,
            ack_every: 1,
            ack_every_max: 300,
            gaps_are_fine: false,
            deadline_ns: 0,
        };
        let mut seen = Vec::new();
        for done in 1..=2000 {
            batch.done = done;
            if let Some(told) = batch.ack_due(1) {
                seen.push((told, batch.ack_every));
            }
        }
        assert_eq!(seen[..4], [(1, 2), (3, 4), (7, 8), (15, 16)]);
        assert_eq!(batch.ack_every, 300);
        batch.done = batch.told + 300;
        assert!(batch.ack_due(500).is_some());
        assert_eq!(batch.ack_every, 150);
    }
}
