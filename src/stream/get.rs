//! Reading messages: STREAM.MSG.GET, and DIRECT.GET in all its forms.
//!
//! A message that is not in memory has to be read by whoever owns the files: then what is left of the request comes out together with where
//! the message is, and goes on when it is brought. What a request sees is the stream at the moment of each of its messages; every message
//! is due when the store has committed what it was read from.

use super::api::{FoundMessage, GetRequest};
use super::error::ErrorId;
use super::headers;
use super::json::{self, Strictness};
use super::outbox::Kind;
use super::stream::{Answer, Handled, Stream};
use super::time;
use crate::store::{Filters, Read, ReadPlan, StoredMessage};
use crate::subject::name::has_wildcard;

/// Messages that one request for the last of several subjects can have.
pub const MULTI_LAST_MAX: usize = 1024;

/// A direct get.
#[derive(Debug, Clone, Copy)]
pub struct DirectGet<'a> {
    /// The subject whose last message is wanted, if it was part of the request's subject.
    pub subject: Option<&'a [u8]>,
    /// Where messages go.
    pub reply: &'a [u8],
    /// The request's header block.
    pub header: &'a [u8],
    /// The request's body.
    pub body: &'a [u8],
    /// Bytes of messages beyond which a batch ends if the request does not say.
    pub max_bytes: usize,
}

/// A direct get that waits for a message to be read.
#[derive(Debug)]
#[must_use]
pub struct PendingGet {
    /// Where the message is.
    pub plan: ReadPlan,
    job: Job,
}

/// What is left of a direct get.
#[derive(Debug)]
struct Job {
    reply: Vec<u8>,
    no_hdr: bool,
    batch: Option<Batch>,
    next: Next,
}

/// What comes next.
#[derive(Debug)]
enum Next {
    /// This message and no other.
    One(u64),
    /// The messages of the filters, from a sequence on.
    From { filters: Filters, seq: u64 },
    /// These messages.
    These(std::vec::IntoIter<u64>),
}

#[derive(Debug)]
struct Batch {
    /// Messages that may still be sent.
    left: u64,
    /// Bytes that may still be sent.
    left_bytes: usize,
    /// Messages that match and were not sent.
    pending: u64,
    /// The message that was sent last.
    last_seq: u64,
    sent: u64,
    /// The last sequence that was looked at, if the last of several subjects were asked for.
    up_to_seq: Option<u64>,
}

impl Stream {
    /// Finds the message that a checked request asks for.
    pub(super) fn get(&mut self, request: GetRequest) -> Handled {
        let seq = match request.start_time {
            Some(time) => self.seq_at(time.0),
            None => request.seq,
        };
        let found = if !request.next_by_subj.is_empty() {
            self.store.next_matching(&Filters::one(request.next_by_subj.as_bytes()), seq)
        } else if seq > 0 {
            Some(seq)
        } else {
            self.last_by_subject(request.last_by_subj.as_bytes())
        };
        match found.map_or(Read::Missing, |seq| self.store.read(seq)) {
            Read::Found(message) => self.found(&request, Some(message)),
            Read::OnDisk(plan) => Handled::Read(plan, request),
            Read::Missing => self.found(&request, None),
        }
    }

    /// Goes on with a request whose message was read, or could not be.
    pub fn found(&mut self, request: &GetRequest, message: Option<StoredMessage>) -> Handled {
        self.done(match message {
            None => Err(ErrorId::NoMessageFound.into()),
            Some(message) => Ok(Answer::Message(Box::new(FoundMessage {
                subject: message.subject().to_vec(),
                seq: message.seq,
                header: if request.no_hdr { Vec::new() } else { message.header().to_vec() },
                payload: message.payload().to_vec(),
                time_ns: message.time_ns,
            }))),
        })
    }

    /// Answers a direct get: what is in memory at once, into the outbox; if something has to be read, that comes out and
    /// [`resume`](Stream::resume) goes on.
    pub fn direct_get(&mut self, get: DirectGet<'_>) -> Option<PendingGet> {
        if get.reply.is_empty() {
            return None;
        }
        match self.begin_get(&get) {
            Ok(job) => self.go_on(job),
            Err(status) => {
                self.push_status(get.reply, status);
                None
            }
        }
    }

    /// Goes on with a direct get whose message was read, or could not be.
    pub fn resume(&mut self, pending: PendingGet, message: Option<StoredMessage>) -> Option<PendingGet> {
        let mut job = pending.job;
        if self.deliver(&mut job, message) { self.go_on(job) } else { None }
    }

    fn begin_get(&self, get: &DirectGet<'_>) -> Result<Job, &'static str> {
        if headers::needs_newer_level(get.header) {
            return Err("412 Required Api Level");
        }
        let mut request = GetRequest::default();
        if let Some(subject) = get.subject {
            if !get.body.is_empty() {
                request =
                    json::read_one(get.body, Strictness::Lenient).map_err(|_| "408 Malformed Request")?;
            }
            let asks_more = !request.last_by_subj.is_empty()
                || !request.next_by_subj.is_empty()
                || !request.multi_last.is_empty()
                || request.seq != 0
                || request.batch.0 != 0
                || request.start_time.is_some()
                || request.up_to_seq != 0
                || request.up_to_time.is_some();
            if subject.is_empty() || asks_more {
                return Err("408 Bad Request");
            }
            return self.job_for_last(get, &request, subject);
        }
        if get.body.is_empty() {
            return Err("408 Empty Request");
        }
        request = json::read_one(get.body, Strictness::Lenient).map_err(|_| "408 Malformed Request")?;
        if asks_nothing(&request) {
            return Err("408 Empty Request");
        }
        if is_contradictory(&request) {
            return Err("408 Bad Request");
        }
        if !request.multi_last.is_empty() {
            return self.job_for_multi_last(get, &request);
        }
        if !request.last_by_subj.is_empty() {
            return self.job_for_last(get, &request, request.last_by_subj.as_bytes());
        }
        let seq = match request.start_time {
            Some(time) => self.seq_at(time.0),
            None => request.seq,
        };
        let filters = match request.next_by_subj.as_bytes() {
            b"" => Filters::all(),
            filter => Filters::one(filter),
        };
        let batch = (request.batch.0 != 0).then(|| Batch {
            left: request.batch.0.max(0).unsigned_abs(),
            left_bytes: bytes_of(&request, get.max_bytes),
            pending: self.store.count_matching(&filters, seq),
            last_seq: 0,
            sent: 0,
            up_to_seq: None,
        });
        let next = match &batch {
            None if request.next_by_subj.is_empty() => Next::One(seq),
            _ => Next::From { filters, seq },
        };
        Ok(Job { reply: get.reply.to_vec(), no_hdr: request.no_hdr, batch, next })
    }

    fn job_for_last(
        &self,
        get: &DirectGet<'_>,
        request: &GetRequest,
        subject: &[u8],
    ) -> Result<Job, &'static str> {
        let seq = self.last_by_subject(subject).ok_or("404 Message Not Found")?;
        Ok(Job { reply: get.reply.to_vec(), no_hdr: request.no_hdr, batch: None, next: Next::One(seq) })
    }

    fn job_for_multi_last(&self, get: &DirectGet<'_>, request: &GetRequest) -> Result<Job, &'static str> {
        let state = self.store.state();
        let up_to_seq = match request.up_to_time {
            Some(time) => {
                let seq = self.seq_at(time.0);
                if seq <= state.first_seq {
                    return Err("404 No Results");
                }
                seq - 1
            }
            None if request.up_to_seq == 0 => state.last_seq,
            None => request.up_to_seq,
        };
        let mut seqs = Vec::new();
        for filter in &request.multi_last {
            // One more than may be told, so that too many are seen.
            for (subject, known) in self.store.subjects_matching(filter.as_bytes(), None, usize::MAX) {
                let last = match known.last_seq <= up_to_seq {
                    true => Some(known.last_seq),
                    false => self.store.last_of_up_to(&subject, up_to_seq),
                };
                seqs.extend(last.filter(|last| *last >= request.seq));
                if seqs.len() > MULTI_LAST_MAX * (request.multi_last.len() + 1) {
                    return Err("413 Too Many Results");
                }
            }
        }
        seqs.sort_unstable();
        seqs.dedup();
        if seqs.len() > MULTI_LAST_MAX {
            return Err("413 Too Many Results");
        }
        if seqs.is_empty() {
            return Err("404 No Results");
        }
        let batch = Batch {
            left: if request.batch.0 > 0 { request.batch.0.unsigned_abs() } else { u64::MAX },
            left_bytes: bytes_of(request, get.max_bytes),
            pending: seqs.len() as u64,
            last_seq: 0,
            sent: 0,
            up_to_seq: Some(up_to_seq),
        };
        let next = Next::These(seqs.into_iter());
        // What is asked for without headers has them all the same, as in the reference.
        Ok(Job { reply: get.reply.to_vec(), no_hdr: false, batch: Some(batch), next })
    }

    fn go_on(&mut self, mut job: Job) -> Option<PendingGet> {
        if job.batch.as_ref().is_some_and(|batch| batch.left == 0) {
            self.push_end(&job);
            return None;
        }
        loop {
            let seq = match &mut job.next {
                Next::One(seq) => Some(*seq),
                Next::From { filters, seq } => {
                    let found = self.store.next_matching(filters, *seq);
                    if let Some(found) = found {
                        *seq = found + 1;
                    }
                    found
                }
                Next::These(seqs) => seqs.next(),
            };
            match seq.map_or(Read::Missing, |seq| self.store.read(seq)) {
                Read::OnDisk(plan) => return Some(PendingGet { plan, job }),
                Read::Found(message) => {
                    if !self.deliver(&mut job, Some(message)) {
                        return None;
                    }
                }
                Read::Missing => {
                    self.deliver(&mut job, None);
                    return None;
                }
            }
        }
    }

    /// Sends a message, or what is to be said if there is none. Whether there is more to do.
    fn deliver(&mut self, job: &mut Job, message: Option<StoredMessage>) -> bool {
        let Some(message) = message else {
            match &job.batch {
                Some(batch) if batch.sent > 0 => self.push_end(job),
                _ => self.push_status(&job.reply, "404 Message Not Found"),
            }
            return false;
        };
        let mut lines = Vec::new();
        if !job.no_hdr {
            self.write_origin(&message, &mut lines);
        }
        if let Some(batch) = &mut job.batch {
            // The reference counts down where it writes the count.
            if !job.no_hdr {
                batch.pending = batch.pending.saturating_sub(1);
                let (pending, last) = (batch.pending, batch.last_seq);
                lines.extend_from_slice(
                    format!("Nats-Num-Pending: {pending}\r\nNats-Last-Sequence: {last}\r\n").as_bytes(),
                );
            }
            batch.last_seq = message.seq;
            batch.sent += 1;
            batch.left = batch.left.saturating_sub(1);
            let bytes = message.subject().len() + message.header().len() + message.payload().len();
            batch.left_bytes = batch.left_bytes.saturating_sub(bytes);
        }
        let position = self.store.position();
        let begin = message.header().strip_suffix(b"\r\n").unwrap_or(headers::FIRST_LINE);
        let header: &[&[u8]] = if job.no_hdr { &[] } else { &[begin, &lines, b"\r\n"] };
        self.later.push(position, Kind::Message, &job.reply, header, &[message.payload()]);
        match &job.batch {
            None => false,
            Some(batch) if batch.left == 0 || batch.left_bytes == 0 => {
                self.push_end(job);
                false
            }
            Some(_) => {
                if let Next::These(seqs) = &job.next
                    && seqs.as_slice().is_empty()
                {
                    self.push_end(job);
                    return false;
                }
                true
            }
        }
    }

    fn write_origin(&self, message: &StoredMessage, lines: &mut Vec<u8>) {
        lines.extend_from_slice(b"Nats-Stream: ");
        lines.extend_from_slice(self.config.name.as_bytes());
        lines.extend_from_slice(b"\r\nNats-Subject: ");
        lines.extend_from_slice(message.subject());
        lines.extend_from_slice(b"\r\nNats-Sequence: ");
        json::write_uint(lines, message.seq);
        lines.extend_from_slice(b"\r\nNats-Time-Stamp: ");
        time::write(lines, message.time_ns);
        lines.extend_from_slice(b"\r\n");
    }

    fn push_end(&mut self, job: &Job) {
        let Some(batch) = &job.batch else { return };
        let up_to = batch.up_to_seq.map_or(String::new(), |seq| format!("Nats-UpTo-Sequence: {seq}\r\n"));
        let header = format!(
            "NATS/1.0 204 EOB\r\nNats-Num-Pending: {}\r\nNats-Last-Sequence: {}\r\n{up_to}\r\n",
            batch.pending, batch.last_seq
        );
        self.later.push(self.store.position(), Kind::Message, &job.reply, &[header.as_bytes()], &[]);
    }

    fn push_status(&mut self, reply: &[u8], status: &str) {
        let header = format!("NATS/1.0 {status}\r\n\r\n");
        self.later.push(self.store.position(), Kind::Message, reply, &[header.as_bytes()], &[]);
    }

    /// The last message of a subject or pattern.
    pub(super) fn last_by_subject(&self, subject: &[u8]) -> Option<u64> {
        match has_wildcard(subject) {
            true => self.store.last_matching(subject),
            false => self.store.last_of(subject),
        }
    }

    /// The first message of that time or later; the sequence behind the last if there is none.
    fn seq_at(&self, time_ns: i64) -> u64 {
        self.store.seq_at_or_after(time_ns).unwrap_or_else(|| self.store.state().last_seq + 1)
    }
}

fn bytes_of(request: &GetRequest, default: usize) -> usize {
    match request.max_bytes.0 {
        0 => default,
        bytes => usize::try_from(bytes).unwrap_or(0),
    }
}

fn asks_nothing(request: &GetRequest) -> bool {
    request.seq == 0
        && request.last_by_subj.is_empty()
        && request.next_by_subj.is_empty()
        && request.multi_last.is_empty()
        && request.start_time.is_none()
}

/// What cannot be meant together in a direct get.
fn is_contradictory(request: &GetRequest) -> bool {
    let (seq, last, next) =
        (request.seq > 0, !request.last_by_subj.is_empty(), !request.next_by_subj.is_empty());
    let (time, multi) = (request.start_time.is_some(), !request.multi_last.is_empty());
    let pairs = [
        (seq, last),
        (seq, time),
        (time, last),
        (last, next),
        (last, request.batch.0 > 0),
        (last, multi),
        (next, multi),
        (request.up_to_seq > 0, request.up_to_time.is_some()),
    ];
    pairs.into_iter().any(|(one, other)| one && other)
}
