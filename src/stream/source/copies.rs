//! What a stream does with what its origins send: it stores copies, notes how far each source has come, and tells of it.
//!
//! The notes are records of the stream's own log, written by the commit that has the messages. One says up to which sequence of the
//! stream everything is covered by the others; what lies behind it was in the last commit, of which a crash may have left a part, and is
//! told by the headers of those messages. So a restart reads some messages of the end, however long the stream is.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};

use super::super::api::StreamReport;
use super::super::config::StreamSource;
use super::super::decimal::Decimal;
use super::super::error::{ApiError, ErrorId};
use super::super::headers::{self, Published};
use super::super::json::{Object, write_string};
use super::super::outbox::Kind;
use super::super::publish::{Asked, COUNTER_SOURCES, Counter, Refusal, Rollup, counted, parse_ttl};
use super::super::stream::Stream;
use super::header::{AckReply, STREAM_SOURCE, SourceOf, source_value};
use super::origin::{Arrival, Begun, CopyFacts, HeldMessage, Origin, Position};
use crate::config::GLOBAL_ACCOUNT;
use crate::store::{Committed, Read, ReadPlan, Store, StoredMessage};

/// The beginning of the keys under which the store keeps how far sources have come.
const NOTE_PREFIX: &[u8] = b"s.";
/// The key of the sequence up to which the notes are right.
const NOTED_KEY: &[u8] = b"s";
/// How many messages may be stored before it is noted anew that the notes are right: so many are read at a restart.
const NOTED_EVERY: u64 = 8192;
/// How many sources that are not configured any more are remembered.
const FORMER_MAX: usize = 1024;
/// Lines for the log that wait.
const WARNINGS_MAX: usize = 16;

/// What no copy passes on: what a publisher expected of the origin, and batches, which are over.
const LEFT_OUT: [&[u8]; 2] = [b"Nats-Expected-", b"Nats-Batch-"];

/// What a stream knows of those that it copies from.
#[derive(Debug, Default)]
pub struct Copying {
    origins: Vec<Origin>,
    next_number: u32,
    requests: VecDeque<CopyRequest>,
    /// How far sources have come by the notes, those included that are not configured any more.
    noted: BTreeMap<String, Position>,
    /// The notes cover the messages up to here.
    noted_up_to: u64,
    /// The positions that the commit has which is under way.
    committing: Option<BTreeMap<String, Position>>,
    /// The positions that are on the disk.
    committed: BTreeMap<String, Position>,
    has_changed: bool,
    is_caught_up: bool,
    /// Whose message was refused last, and the number of the error.
    refused: Option<(u32, u16)>,
    warnings: Vec<String>,
}

impl Copying {
    fn find(&mut self, number: u32) -> Option<&mut Origin> {
        self.origins.iter_mut().find(|origin| origin.number() == number)
    }
}

/// A request to the API, in the account of the copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyRequest {
    /// Whom it is about.
    pub origin: u32,
    /// Its subject.
    pub subject: String,
    /// Where the answer goes.
    pub reply: String,
    /// Its header block, or nothing.
    pub header: Vec<u8>,
    /// Its body.
    pub body: Vec<u8>,
}

/// What comes on a subject that a copy listens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CopySubject {
    /// The answer to a request about this origin.
    Answer(u32),
    /// What this origin delivers.
    Messages(u32),
}

/// A delivery of an origin.
#[derive(Debug, Clone, Copy)]
pub struct Copied<'a> {
    /// The subject of the message.
    pub subject: &'a [u8],
    /// What would acknowledge it, and says which it is.
    pub reply: &'a [u8],
    /// Its header block, or nothing.
    pub header: &'a [u8],
    /// Its payload.
    pub payload: &'a [u8],
}

impl Copied<'_> {
    /// Its bytes.
    pub(super) fn len(&self) -> usize {
        self.subject.len() + self.reply.len() + self.header.len() + self.payload.len()
    }
}

/// A delivery that waits for another message to be read: then [`Stream::resume_copy`].
#[derive(Debug)]
#[must_use]
pub struct PendingCopy {
    /// Where that message is.
    pub plan: ReadPlan,
    origin: u32,
}

/// Borrows what requests depend on, beside the origins.
macro_rules! facts {
    ($stream:ident) => {{
        let state = $stream.store.state();
        CopyFacts {
            stream: &$stream.config.name,
            account: account(&$stream.account),
            sources: &$stream.config.sources,
            messages: state.messages,
            first_seq: state.first_seq,
            last_seq: state.last_seq,
            last_time_ns: state.last_time_ns,
        }
    }};
}

impl Stream {
    /// Begins to follow what the configuration names, from where it was left.
    pub(in super::super) fn begin_copying(
        &mut self,
        read: &mut impl FnMut(&ReadPlan) -> Option<StoredMessage>,
    ) {
        self.copying = Copying::default();
        self.read_notes();
        if !self.config.sources.is_empty() {
            self.recover_positions(read);
        }
        self.copying.committed = self.copying.noted.clone();
        self.configure_copying(false);
    }

    /// Makes the origins those of the configuration; what stays is not touched.
    /// `is_update`: the stream was there before.
    pub(in super::super) fn configure_copying(&mut self, is_update: bool) {
        let mirror = self.config.mirror.clone().map(|mirror| (true, mirror));
        let sources = self.config.sources.clone().into_iter().map(|source| (false, source));
        let wanted: Vec<(bool, StreamSource)> = mirror.into_iter().chain(sources).collect();
        let mut before = std::mem::take(&mut self.copying.origins);
        for (is_mirror, source) in wanted {
            let name = super::header::index_name(&source);
            match before.iter().position(|origin| origin.index_name() == name) {
                Some(at) => {
                    let mut origin = before.swap_remove(at);
                    origin.set_source(source);
                    self.copying.origins.push(origin);
                }
                None => {
                    let position = match is_mirror {
                        true => Position::default(),
                        false => self.noted_position(&name, is_update),
                    };
                    let number = self.copying.next_number;
                    self.copying.next_number += 1;
                    self.copying.origins.push(Origin::new(number, source, is_mirror, position));
                }
            }
        }
        for origin in before {
            self.end_origin(&origin);
            if self.config.mirror.is_none() {
                self.remember_former(&origin);
            }
        }
        if self.config.mirror.is_none() {
            self.copying.is_caught_up = false;
        }
        self.copying.has_changed = true;
    }

    /// Everything that is under way ends, with the stream.
    pub fn stop_copying(&mut self) {
        for origin in std::mem::take(&mut self.copying.origins) {
            self.end_origin(&origin);
        }
        self.copying.has_changed = true;
    }

    fn end_origin(&mut self, origin: &Origin) {
        self.copying.requests.extend(origin.farewell(facts!(self), &mut self.random));
    }

    /// A source is not configured any more. If it comes back it goes on where it was.
    fn remember_former(&mut self, origin: &Origin) {
        let noted = &mut self.copying.noted;
        noted.insert(origin.index_name().to_owned(), origin.position().clone());
        if noted.len() > FORMER_MAX + self.config.sources.len() {
            let configured: Vec<&str> = self.copying.origins.iter().map(Origin::index_name).collect();
            let former = noted.iter().filter(|(name, _)| !configured.contains(&name.as_str()));
            let oldest = former.min_by_key(|(_, position)| position.local_seq).map(|(name, _)| name.clone());
            if let Some(name) = oldest {
                noted.remove(&name);
                let _ = self.store.note(&[NOTE_PREFIX, name.as_bytes()].concat(), None);
            }
        }
    }

    /// Whether the stream copies from others.
    pub fn is_copying(&self) -> bool {
        !self.copying.origins.is_empty()
    }

    /// Whether the stream may answer direct gets in the place of its origin.
    pub fn answers_for_origin(&self) -> bool {
        self.config.mirror_direct && self.config.mirror.is_some() && self.copying.is_caught_up
    }

    /// Where it listens for answers and messages of origins.
    pub fn copy_subjects(&self) -> impl Iterator<Item = (CopySubject, &str)> {
        self.copying.origins.iter().flat_map(|origin| {
            let (answer, messages) = origin.subjects();
            let answer = answer.map(|subject| (CopySubject::Answer(origin.number()), subject));
            let messages = messages.map(|subject| (CopySubject::Messages(origin.number()), subject));
            answer.into_iter().chain(messages)
        })
    }

    /// Whether the subjects that are listened to may be others than when this was asked before.
    pub fn take_copy_change(&mut self) -> bool {
        let moved = self.copying.origins.iter_mut().fold(false, |moved, origin| origin.take_moved() | moved);
        std::mem::take(&mut self.copying.has_changed) | moved
    }

    /// The next request to be sent. Before that its answer has to be listened for.
    pub fn take_copy_request(&mut self) -> Option<CopyRequest> {
        self.copying.requests.pop_front()
    }

    /// What the log should say of messages that were not taken.
    pub fn take_copy_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.copying.warnings)
    }

    /// When [`tick_copying`](Stream::tick_copying) has something to do.
    pub(in super::super) fn next_copy_deadline_ns(&self) -> Option<i64> {
        self.copying.origins.iter().map(Origin::deadline_ns).min()
    }

    /// Time has passed.
    pub(in super::super) fn tick_copying(&mut self, now_ns: i64) {
        if self.copying.origins.is_empty() {
            return;
        }
        let facts = facts!(self);
        for origin in &mut self.copying.origins {
            self.copying.requests.extend(origin.tick(now_ns, facts, &mut self.random));
        }
    }

    /// What answers tell of the origins: of the mirrored one, and of sources.
    pub(in super::super) fn report_origins(&self, report: &mut StreamReport) {
        let mut reports = self.copying.origins.iter().map(Origin::report);
        if self.config.mirror.is_some() {
            report.mirror = reports.next();
        } else {
            report.sources = reports.collect();
        }
    }

    /// Nobody was there to take the request about this origin.
    pub fn copy_request_unanswered(&mut self, origin: u32, now_ns: i64) {
        if let Some(origin) = self.copying.find(origin) {
            origin.unreachable(now_ns);
        }
    }

    /// The answer to a request about this origin.
    pub fn take_copy_answer(
        &mut self,
        origin: u32,
        header: &[u8],
        payload: &[u8],
        now_ns: i64,
    ) -> Option<PendingCopy> {
        let last_seq = self.store.state().last_seq;
        let found = self.copying.find(origin)?;
        let Begun { before_seq, held } = found.answered(header, payload, last_seq, now_ns)?;
        // What the origin does not have any more is not here either.
        if self.config.mirror.is_some() && before_seq > last_seq {
            self.store.skip_to(before_seq + 1);
        }
        self.take_all(origin, &held, now_ns)
    }

    /// Takes what has waited. Behind one that has to wait again all others do.
    fn take_all(&mut self, origin: u32, held: &[HeldMessage], now_ns: i64) -> Option<PendingCopy> {
        held.iter().fold(None, |pending, message| {
            let also = self.take_copied(origin, HeldMessage::copied(message), now_ns);
            pending.or(also)
        })
    }

    /// The message that a delivery has waited for was read, or could not be.
    pub fn resume_copy(
        &mut self,
        pending: &PendingCopy,
        read: Option<&StoredMessage>,
        now_ns: i64,
    ) -> Option<PendingCopy> {
        match read {
            Some(message) => self.note_counter(message),
            None => self.copying.find(pending.origin)?.refused(),
        }
        let held = self.copying.find(pending.origin)?.take_waiting();
        self.take_all(pending.origin, &held, now_ns)
    }

    /// A delivery of this origin. What comes back waits for a read.
    pub fn take_copied(&mut self, origin: u32, copied: Copied<'_>, now_ns: i64) -> Option<PendingCopy> {
        let last_seq = self.store.state().last_seq;
        let found = self.copying.find(origin)?;
        if found.is_waiting() {
            found.wait_with(copied);
            return None;
        }
        match found.arrived(copied, last_seq, now_ns) {
            Arrival::Nothing => {}
            Arrival::Answer { to, header } => {
                // The origin may forget what is on the disk here, and sends no more than a window beyond.
                self.later.push(self.store.position(), Kind::Message, &to, &[&header], &[]);
            }
            Arrival::Next(ack) => {
                let stored = match self.config.mirror {
                    Some(_) => self.store_mirrored(origin, copied, &ack),
                    None => self.store_sourced(origin, copied, &ack, now_ns),
                };
                let found = self.copying.find(origin).expect("it was found before");
                match stored {
                    Ok(seq) => {
                        found.stored(&ack, Some(seq));
                        self.note_caught_up(origin, &ack);
                        if self.copying.refused.is_some_and(|(refused, _)| refused == origin) {
                            self.copying.refused = None;
                        }
                    }
                    Err(Refusal::Duplicate(_)) => found.stored(&ack, None),
                    Err(Refusal::Error(error)) => {
                        found.refused();
                        self.warn(origin, ack.stream_seq, &error);
                    }
                    Err(Refusal::Read(plan)) => {
                        found.wait_with(copied);
                        return Some(PendingCopy { plan, origin });
                    }
                }
            }
        }
        None
    }

    fn note_caught_up(&mut self, origin: u32, ack: &AckReply<'_>) {
        let copying = &mut self.copying;
        if !copying.is_caught_up && copying.find(origin).is_some_and(|origin| origin.is_caught_up(ack)) {
            copying.is_caught_up = true;
            copying.has_changed = true;
        }
    }

    /// Says once in the log that an origin cannot go on, until it can.
    fn warn(&mut self, origin: u32, seq: u64, error: &ApiError) {
        let Some(found) = self.copying.find(origin) else { return };
        let text = format!(
            "message {seq} of {} is not taken, and asked for until it is: {error}",
            found.source().name
        );
        let refused = Some((origin, error.err_code));
        if self.copying.refused != refused && self.copying.warnings.len() < WARNINGS_MAX {
            self.copying.warnings.push(text);
        }
        self.copying.refused = refused;
    }

    /// Stores a message of the mirrored stream, by its sequence and its time there.
    fn store_mirrored(
        &mut self,
        origin: u32,
        copied: Copied<'_>,
        ack: &AckReply<'_>,
    ) -> Result<u64, Refusal> {
        let mut header = Cow::Borrowed(copied.header);
        if !header.is_empty() {
            header = Cow::Owned(headers::remove_beginning(&header, &LEFT_OUT));
        }
        self.store_copy(origin, copied, &header, Some((ack.stream_seq, ack.time_ns)), ack.time_ns)
    }

    /// Stores a message of a source, with where it comes from.
    fn store_sourced(
        &mut self,
        origin: u32,
        copied: Copied<'_>,
        ack: &AckReply<'_>,
        now_ns: i64,
    ) -> Result<u64, Refusal> {
        let mut header = match copied.header {
            b"" => Vec::new(),
            header => {
                headers::remove_beginning(&headers::remove(header, STREAM_SOURCE.as_bytes()), &LEFT_OUT)
            }
        };
        let found = self.copying.find(origin).expect("it was found before");
        let (name, identity) = (found.index_name(), &found.position().identity);
        headers::add(
            &mut header,
            STREAM_SOURCE,
            source_value(name, ack.stream_seq, copied.subject, identity),
        );
        self.store_copy(origin, copied, &header, None, now_ns)
    }

    /// What is the same for both: the checks that remain for a message that its origin has taken.
    fn store_copy(
        &mut self,
        origin: u32,
        copied: Copied<'_>,
        header: &[u8],
        place: Option<(u64, i64)>,
        time_ns: i64,
    ) -> Result<u64, Refusal> {
        let found = self.copying.find(origin).expect("it was found before");
        let mut random = fastrand::Rng::with_seed(place.map_or(0, |(seq, _)| seq));
        let transformed = found.transformed(copied.subject, &mut random);
        let subject = transformed.as_deref().unwrap_or(copied.subject);
        let transformed = self.transformed(subject);
        let subject = transformed.as_deref().unwrap_or(subject);
        if self.config.sealed {
            return Err(ErrorId::StreamSealed.into());
        }
        let without = headers::remove(header, b"Nats-Request-Info");
        let header = if without.len() == header.len() { header } else { &without };
        let published = Published::of(header);
        let window_ns = self.config.duplicate_window.0;
        if place.is_none()
            && !published.msg_id.is_empty()
            && let Some(seq) = self.dedup.find(published.msg_id, time_ns, window_ns)
        {
            return Err(Refusal::Duplicate(seq));
        }
        let may_purge = self.config.allow_rollup_hdrs && !self.config.deny_purge;
        let mut counter = None;
        let counted;
        let (mut header, mut payload) = (Cow::Borrowed(header), copied.payload);
        if place.is_none() && self.config.allow_msg_counter {
            let (now, of) = self.count_copy(&published, subject, payload)?;
            header = Cow::Owned(headers::set(&header, "Nats-Incr", of.to_string()));
            header = Cow::Owned(headers::set(&header, COUNTER_SOURCES, &now.sources));
            counted = format!("{{\"val\":\"{}\"}}", now.total);
            (payload, counter) = (counted.as_bytes(), Some(now));
        }
        let published = Published::of(&header);
        let rollup = match published.rollup.to_ascii_lowercase().as_slice() {
            b"sub" if may_purge => Some(Rollup::Subject),
            b"all" if may_purge => Some(Rollup::All),
            _ => None,
        };
        let max = self.config.max_msg_size;
        if max >= 0 && header.len() + payload.len() > max as usize {
            return Err(ErrorId::StreamMessageExceedsMaximum.into());
        }
        self.check_header_size(&header)?;
        let ttl_s = parse_ttl(published.ttl);
        let asked = Asked {
            msg_id: published.msg_id,
            rollup,
            ttl_s: ttl_s.unwrap_or(0),
            ttl_is_wrong: ttl_s.is_err(),
            may_be_refused: true,
            place,
            counter,
            ..Asked::default()
        };
        self.store_message(subject, &header, payload, asked, time_ns)
    }

    /// What a counter stands at with a message of another counter: that tells what it stands at itself, so that what is new is
    /// what it says more than it has said last. Also how much that is.
    fn count_copy(
        &self,
        published: &Published<'_>,
        subject: &[u8],
        payload: &[u8],
    ) -> Result<(Counter, Decimal), Refusal> {
        match Decimal::parse(published.incr) {
            Some(_) => {}
            None if published.incr.is_empty() => return Err(ErrorId::MessageIncrMissing.into()),
            None => return Err(ErrorId::MessageIncrInvalid.into()),
        }
        let Counter { total, sources } = self.counter(subject)?;
        let broken = || Refusal::from(ErrorId::MessageCounterBroken);
        let mut sources: BTreeMap<String, BTreeMap<String, String>> = match &sources[..] {
            b"" => BTreeMap::new(),
            sources => serde_json::from_slice(sources).map_err(|_error| broken())?,
        };
        let told = counted(payload).ok_or_else(broken)?;
        let of = String::from_utf8_lossy(published.stream_source).into_owned();
        let mut fields = of.split(' ');
        let stream = fields.next().unwrap_or_default().to_owned();
        let there =
            fields.nth(3).map_or_else(|| String::from_utf8_lossy(subject).into_owned(), str::to_owned);
        let known = sources.entry(stream).or_default().insert(there, told.to_string());
        let before = known.and_then(|known| Decimal::parse(known.as_bytes())).unwrap_or_default();
        let more = told.minus(&before);
        let mut written = Vec::new();
        let mut object = Object::begin(&mut written);
        for (stream, subjects) in &sources {
            let mut inner = Object::begin(object.keyed(stream));
            for (subject, value) in subjects {
                write_string(inner.keyed(subject), value);
            }
            inner.end();
        }
        object.end();
        Ok((Counter { total: total.plus(&more), sources: written.into() }, more))
    }

    // How far sources have come.

    fn read_notes(&mut self) {
        let copying = &mut self.copying;
        for (key, value) in self.store.notes() {
            if key == NOTED_KEY {
                copying.noted_up_to = value.try_into().map_or(0, u64::from_le_bytes);
            } else if let Some(name) = key.strip_prefix(NOTE_PREFIX)
                && let (Ok(name), Some(position)) = (std::str::from_utf8(name), Position::read(value))
            {
                copying.noted.insert(name.to_owned(), position);
            }
        }
    }

    /// Where a source is that was not followed until now: as it was noted. One that comes back begins anew, like in the reference, if
    /// nothing can be here any more that came from it.
    fn noted_position(&self, name: &str, comes_back: bool) -> Position {
        let state = self.store.state();
        let is_right =
            |position: &&Position| !comes_back || state.messages > 0 && position.local_seq >= state.first_seq;
        self.copying.noted.get(name).filter(is_right).cloned().unwrap_or_default()
    }

    /// Looks at the messages behind what the notes cover, newest first.
    fn recover_positions(&mut self, read: &mut impl FnMut(&ReadPlan) -> Option<StoredMessage>) {
        let mut unknown: Vec<(String, String)> = self
            .config
            .sources
            .iter()
            .map(|source| {
                let name = super::header::index_name(source);
                let stream = name.split(' ').next().unwrap_or_default().to_owned();
                (name, stream)
            })
            .collect();
        let mut at = self.store.state().last_seq;
        while !unknown.is_empty()
            && let Some(seq) = self.store.previous(at)
            && seq > self.copying.noted_up_to
        {
            let message = match self.store.read(seq) {
                Read::Found(message) => Some(message),
                Read::OnDisk(plan) => read(&plan),
                Read::Missing => None,
            };
            if let Some(of) = message.as_ref().and_then(|message| {
                SourceOf::parse(headers::get(message.header(), STREAM_SOURCE.as_bytes())?)
            }) {
                unknown.retain(|(name, stream)| {
                    let is_it = match &of.index_name {
                        Some(index_name) => index_name == name,
                        None => of.stream == *stream,
                    };
                    if is_it {
                        let position =
                            Position { seq: of.seq, local_seq: seq, identity: of.identity.clone() };
                        self.copying.noted.insert(name.clone(), position);
                    }
                    !is_it
                });
            }
            at = seq - 1;
        }
    }

    /// Before a commit: notes how far sources have come with it.
    pub(in super::super) fn note_positions(&mut self) {
        if self.copying.origins.is_empty() || !matches!(self.store, Store::File(_)) {
            return;
        }
        let last_seq = self.store.state().last_seq;
        let mut noted = BTreeMap::new();
        for origin in &mut self.copying.origins {
            let name = origin.index_name().to_owned();
            let Some(position) = origin.take_dirty().filter(|_| self.config.mirror.is_none()) else {
                continue;
            };
            // A store that takes nothing at present takes no messages either.
            let _ = self.store.note(&[NOTE_PREFIX, name.as_bytes()].concat(), Some(&position.write()));
            noted.insert(name, position.clone());
        }
        let is_due = last_seq >= self.copying.noted_up_to + NOTED_EVERY && self.config.mirror.is_none();
        if !noted.is_empty() || is_due {
            let _ = self.store.note(NOTED_KEY, Some(&last_seq.to_le_bytes()));
            self.copying.noted_up_to = last_seq;
        }
        self.copying.noted.extend(noted.clone());
        self.copying.committing = Some(noted);
    }

    /// What has become of the commit.
    pub(in super::super) fn positions_committed(&mut self, committed: &Committed) {
        let Some(noted) = self.copying.committing.take() else { return };
        match committed {
            Committed::Done => self.copying.committed.extend(noted),
            // Everything that was not committed is gone, what came later included.
            Committed::RolledBack { .. } => {
                self.copying.noted_up_to = self.copying.noted_up_to.min(self.store.state().last_seq);
                for origin in &mut self.copying.origins {
                    let position = self.copying.committed.get(origin.index_name());
                    origin.roll_back(position.cloned().unwrap_or_default());
                }
            }
            Committed::Poisoned { .. } => {}
        }
    }
}

/// The account by the name that it has in hashes and metadata.
fn account(name: &str) -> &str {
    if name.is_empty() { GLOBAL_ACCOUNT } else { name }
}
