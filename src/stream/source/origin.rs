//! How one origin is followed: a state machine without store and clock.
//!
//! It waits, asks for a consumer, and follows what that delivers. Whatever is wrong (an error, no answer, silence, a gap, a message that
//! the copy could not take) leads back to waiting, and from there it asks again for everything behind its position. Deliveries are taken
//! only from the consumer that was asked for last, in the order of their numbers, so that nothing is taken twice or left out.
//!
//! What is asked, what counts as a gap and where it begins is as in nats-server 2.15.1. The pauses are shorter: the reference waits ten
//! seconds more after each failure, and notices silence after ten.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::config::{StreamSource, SubjectTransform};
use super::super::consumer::config::{AckPolicy, ConsumerConfig, DeliverPolicy, ZonedTime};
use super::super::error::{ApiError, ErrorId};
use super::super::headers;
use super::super::json::{DurationNs, Int, Object};
use super::HELD_BYTES_MAX;
use super::copies::{Copied, CopyRequest};
use super::header::{AckReply, CONSUMER_DELETED, STREAM_IDENTITY, hash, index_name};
use crate::subject::name::matches;
use crate::subject::transform::Transform;

const NS_PER_MS: i64 = 1_000_000;
const NS_PER_SECOND: i64 = 1_000 * NS_PER_MS;

/// How often the origin's consumer says that it is there when it has nothing else to say.
const HEARTBEAT_NS: i64 = NS_PER_SECOND;
/// After how long a silence it is asked for again.
const SILENCE_NS: i64 = 5 * HEARTBEAT_NS;
/// How long the consumer of an origin stays when nobody listens any more.
const INACTIVE_NS: i64 = 10 * NS_PER_SECOND;
/// How long an answer may take.
const ANSWER_NS: i64 = 5 * NS_PER_SECOND;
/// The pause between two requests at least.
const PAUSE_NS: i64 = 100 * NS_PER_MS;
/// The pause after the first failure, which doubles with each further one.
const RETRY_FIRST_NS: i64 = 200 * NS_PER_MS;
/// The longest pause.
const RETRY_MAX_NS: i64 = 10 * NS_PER_SECOND;
/// The pause after a message that the copy cannot take, because it is full.
const REFUSED_NS: i64 = NS_PER_SECOND;
/// The reference's time for an acknowledgement that never comes.
const ACK_WAIT_NS: i64 = 22 * 3600 * NS_PER_SECOND;
/// With fewer messages to come than this a mirror answers direct gets for its origin.
const CAUGHT_UP: u64 = 10;
/// The newest level of the API that requests of sources, and of mirrors, rely on.
const LEVEL_OF_SOURCES: &str = "5";
const LEVEL_OF_MIRRORS: &str = "4";

const API: &str = "$JS.API";

/// What the copy is, as far as requests depend on it.
#[derive(Debug, Clone, Copy)]
pub struct CopyFacts<'a> {
    /// Its name.
    pub stream: &'a str,
    /// The name of its account.
    pub account: &'a str,
    /// The sources of its configuration.
    pub sources: &'a [StreamSource],
    /// Messages, the first and the last sequence, and the time of the last message.
    pub messages: u64,
    /// See `messages`.
    pub first_seq: u64,
    /// See `messages`.
    pub last_seq: u64,
    /// See `messages`; 0 if there never was one.
    pub last_time_ns: i64,
}

/// How far a source has come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Position {
    /// The last sequence of the origin that is here, or was left out.
    pub seq: u64,
    /// The sequence here of the last message that came from there.
    pub local_seq: u64,
    /// The identity of the origin, if it has told it.
    pub identity: String,
}

impl Position {
    /// As it is noted: two numbers and the identity.
    pub fn write(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        out.extend_from_slice(&self.seq.to_le_bytes());
        out.extend_from_slice(&self.local_seq.to_le_bytes());
        out.extend_from_slice(self.identity.as_bytes());
        out
    }

    /// Reads a note.
    pub fn read(note: &[u8]) -> Option<Position> {
        let (seq, rest) = note.split_first_chunk()?;
        let (local_seq, identity) = rest.split_first_chunk()?;
        Some(Position {
            seq: u64::from_le_bytes(*seq),
            local_seq: u64::from_le_bytes(*local_seq),
            identity: std::str::from_utf8(identity).ok()?.to_owned(),
        })
    }
}

/// What answers about the copy tell of an origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginReport {
    /// Its name.
    pub name: String,
    /// What it is reached by, if it is elsewhere: prefixes of the API and of deliveries.
    pub external: Option<super::super::config::ExternalStream>,
    /// Messages that are to follow.
    pub lag: u64,
    /// How far it has come; 0 for mirrors, which do not tell.
    pub seq: u64,
    /// When it was last heard of.
    pub heard_ns: Option<i64>,
    /// What was the last request's mistake.
    pub error: Option<ApiError>,
    /// What of it is copied.
    pub filter_subject: String,
    /// What of it is copied, and to where.
    pub subject_transforms: Vec<SubjectTransform>,
}

impl OriginReport {
    /// Writes it as it stands in answers.
    pub fn write(&self, out: &mut Vec<u8>, now_ns: i64) {
        let mut object = Object::begin(out);
        object.string("name", &self.name);
        if let Some(external) = &self.external {
            external.write(object.member("external"));
        }
        object.uint("lag", self.lag);
        object.uint_unless_zero("seq", self.seq);
        object.int("active", self.heard_ns.map_or(-1, |heard| now_ns.saturating_sub(heard).max(0)));
        if let Some(error) = &self.error {
            error.write(object.member("error"));
        }
        object.string_unless_empty("filter_subject", &self.filter_subject);
        if !self.subject_transforms.is_empty() {
            let out = object.member("subject_transforms");
            super::super::json::write_array(out, &self.subject_transforms, |out, transform| {
                transform.write(out);
            });
        }
        object.end();
    }
}

/// See the file's header.
#[derive(Debug)]
pub struct Origin {
    number: u32,
    source: StreamSource,
    is_mirror: bool,
    index_name: String,
    transforms: Vec<Transform>,
    position: Position,
    /// Whether the position has changed since it was noted.
    is_dirty: bool,
    /// The number of the last delivery.
    delivered: u64,
    /// The origin was deleted and made anew: everything in it is new.
    is_recreated: bool,
    lag: u64,
    heard_ns: Option<i64>,
    error: Option<ApiError>,
    failures: u32,
    phase: Phase,
    /// Whether it may listen elsewhere since this was asked before.
    has_moved: bool,
    has_asked: bool,
    /// What has come behind a message that waits for something to be read; that one is the first.
    waiting: Option<Vec<HeldMessage>>,
    waiting_bytes: usize,
}

#[derive(Debug)]
enum Phase {
    Waiting { until_ns: i64 },
    Asking(Box<Asking>),
    Following { consumer: Box<str>, listens_to: Box<str>, deaf_at_ns: i64 },
}

#[derive(Debug)]
struct Asking {
    reply: String,
    /// What the consumer will deliver to; empty if it is there already and delivers as it was told.
    deliver: String,
    until_ns: i64,
    /// Deliveries that came before the answer.
    held: Vec<HeldMessage>,
    held_bytes: usize,
}

/// A delivery that has to wait.
#[derive(Debug)]
pub struct HeldMessage {
    pub(super) subject: Vec<u8>,
    pub(super) reply: Vec<u8>,
    pub(super) header: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

impl HeldMessage {
    fn of(message: Copied<'_>) -> HeldMessage {
        HeldMessage {
            subject: message.subject.to_vec(),
            reply: message.reply.to_vec(),
            header: message.header.to_vec(),
            payload: message.payload.to_vec(),
        }
    }

    pub(super) fn copied(&self) -> Copied<'_> {
        Copied { subject: &self.subject, reply: &self.reply, header: &self.header, payload: &self.payload }
    }
}

/// What is to be done about a delivery.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival<'a> {
    /// Nothing.
    Nothing,
    /// The consumer asks whether the copy keeps up: this is the answer, for when everything before is on the disk.
    Answer {
        /// To where.
        to: Vec<u8>,
        /// Its header.
        header: Vec<u8>,
    },
    /// It is the next one, and has to be stored.
    Next(AckReply<'a>),
}

/// What the answer to a request has changed.
#[derive(Debug)]
pub struct Begun {
    /// The origin's last sequence before what will be delivered.
    pub before_seq: u64,
    /// What came before the answer.
    pub held: Vec<HeldMessage>,
}

/// The parts of an answer of the API that matter here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    error: Option<AnswerError>,
    name: String,
    config: Option<AnswerConfig>,
    delivered: AnswerSequences,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AnswerError {
    code: u16,
    err_code: u16,
    description: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AnswerConfig {
    ack_policy: String,
    deliver_subject: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AnswerSequences {
    stream_seq: u64,
}

impl Origin {
    /// One that is to be asked at once. `number` names it among those of its stream, and never another one.
    pub fn new(number: u32, source: StreamSource, is_mirror: bool, position: Position) -> Origin {
        let transforms = source
            .subject_transforms
            .iter()
            .filter_map(|transform| super::super::check::transform(&transform.src, &transform.dest).ok()?);
        Origin {
            number,
            index_name: index_name(&source),
            transforms: transforms.collect(),
            source,
            is_mirror,
            position,
            is_dirty: false,
            delivered: 0,
            is_recreated: false,
            lag: 0,
            heard_ns: None,
            error: None,
            failures: 0,
            phase: Phase::Waiting { until_ns: i64::MIN },
            has_moved: true,
            has_asked: false,
            waiting: None,
            waiting_bytes: 0,
        }
    }

    /// Lets a delivery wait, and those that come behind it, until something was read.
    pub fn wait_with(&mut self, message: Copied<'_>) {
        let waiting = self.waiting.get_or_insert_default();
        // What is dropped is a gap, and asked for again.
        if self.waiting_bytes + message.len() <= HELD_BYTES_MAX {
            self.waiting_bytes += message.len();
            waiting.push(HeldMessage::of(message));
        }
    }

    /// Whether deliveries wait for something to be read.
    pub fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// It was read: what has waited.
    pub fn take_waiting(&mut self) -> Vec<HeldMessage> {
        self.waiting_bytes = 0;
        self.waiting.take().unwrap_or_default()
    }

    fn go(&mut self, phase: Phase) {
        self.phase = phase;
        self.has_moved = true;
    }

    /// Whether it may listen elsewhere than when this was asked before.
    pub fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.has_moved)
    }

    /// Its number.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Its name among the sources of its stream.
    pub fn index_name(&self) -> &str {
        &self.index_name
    }

    /// How it is configured.
    pub fn source(&self) -> &StreamSource {
        &self.source
    }

    /// How far it has come.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// The position if it has changed since this was asked before.
    pub fn take_dirty(&mut self) -> Option<&Position> {
        std::mem::take(&mut self.is_dirty).then_some(&self.position)
    }

    /// Goes back to a position: what came behind it was not stored after all.
    pub fn roll_back(&mut self, position: Position) {
        self.position = position;
        self.is_dirty = true;
        self.refused();
    }

    /// What of it is configured otherwise, without being another source.
    pub fn set_source(&mut self, source: StreamSource) {
        debug_assert_eq!(index_name(&source), self.index_name);
        self.source = source;
    }

    /// What answers tell of it.
    pub fn report(&self) -> OriginReport {
        OriginReport {
            name: self.source.name.clone(),
            external: self.source.external.clone(),
            lag: self.lag,
            seq: if self.is_mirror { 0 } else { self.position.seq },
            heard_ns: self.heard_ns,
            error: self.error.clone(),
            // A mirror that has not asked yet does not tell.
            filter_subject: match self.is_mirror && !self.has_asked {
                true => String::new(),
                false => self.source.filter_subject.clone(),
            },
            subject_transforms: self.source.subject_transforms.clone(),
        }
    }

    /// Where the answer to its request comes, and where its messages come.
    pub fn subjects(&self) -> (Option<&str>, Option<&str>) {
        match &self.phase {
            Phase::Waiting { .. } => (None, None),
            Phase::Asking(asking) => {
                (Some(&asking.reply), (!asking.deliver.is_empty()).then_some(asking.deliver.as_str()))
            }
            Phase::Following { listens_to, .. } => (None, Some(listens_to)),
        }
    }

    /// When [`tick`](Origin::tick) has something to do.
    pub fn deadline_ns(&self) -> i64 {
        match &self.phase {
            Phase::Waiting { until_ns } => *until_ns,
            Phase::Asking(asking) => asking.until_ns,
            Phase::Following { deaf_at_ns, .. } => *deaf_at_ns,
        }
    }

    /// Time has passed. Whether there is something to ask: the answer is to be given to [`answered`](Origin::answered). Where it listens may have changed.
    pub fn tick(
        &mut self,
        now_ns: i64,
        copy: CopyFacts<'_>,
        random: &mut fastrand::Rng,
    ) -> Option<CopyRequest> {
        if now_ns < self.deadline_ns() {
            return None;
        }
        match &self.phase {
            Phase::Asking(_) => {
                self.fail(None, now_ns);
                return None;
            }
            Phase::Following { .. } | Phase::Waiting { .. } => {}
        }
        Some(self.ask(now_ns, copy, random))
    }

    /// Nobody was there to ask.
    pub fn unreachable(&mut self, now_ns: i64) {
        if let Phase::Asking(_) = self.phase {
            self.fail(None, now_ns);
        }
    }

    fn fail(&mut self, error: Option<ApiError>, now_ns: i64) {
        if error.is_some() {
            self.error = error;
        }
        let pause = RETRY_FIRST_NS.saturating_mul(1 << self.failures.min(16)).min(RETRY_MAX_NS);
        self.failures = self.failures.saturating_add(1);
        self.go(Phase::Waiting { until_ns: now_ns + pause });
    }

    /// The next message is not the one that has to come, or the consumer is gone: it is asked for anew.
    fn ask_again(&mut self, pause_ns: i64) {
        let heard_ns = self.heard_ns.unwrap_or_default();
        self.go(Phase::Waiting { until_ns: heard_ns.saturating_add(pause_ns) });
    }

    /// The copy could not take a message: it is asked for later.
    pub fn refused(&mut self) {
        self.ask_again(REFUSED_NS);
    }

    fn ask(&mut self, now_ns: i64, copy: CopyFacts<'_>, random: &mut fastrand::Rng) -> CopyRequest {
        let mut unique = || -> String { std::iter::repeat_with(|| random.alphanumeric()).take(8).collect() };
        let reply = format!("$JSC.R.{}", unique());
        self.has_asked = true;
        let external = self.source.external.as_ref();
        let name = &self.source.name;
        let level = if self.is_mirror { LEVEL_OF_MIRRORS } else { LEVEL_OF_SOURCES };
        let mut header = Vec::new();
        headers::add(&mut header, "Nats-Required-Api-Level", level);
        if !self.is_mirror {
            headers::add(&mut header, STREAM_IDENTITY, &self.position.identity);
        }
        let (subject, body, deliver);
        if let Some(consumer) = &self.source.consumer {
            subject = format!("{API}.CONSUMER.RESET.{name}.{}", consumer.name);
            (body, deliver) = (Vec::new(), String::new());
            if self.is_mirror {
                header.clear();
            }
        } else {
            let kind = if self.is_mirror { 'M' } else { 'S' };
            let prefix = external.map_or("", |external| external.deliver.as_str());
            deliver = match prefix {
                "" => format!("$JS.{kind}.{}", unique()),
                prefix => format!("{prefix}.{kind}.{}", unique()).replace("..", "."),
            };
            let config = self.consumer(copy, &deliver);
            subject = match config.filter_subject.as_str() {
                "" => format!("{API}.CONSUMER.CREATE.{name}"),
                filter => format!("{API}.CONSUMER.CREATE.{name}.{}.{filter}", config.name),
            };
            body = create_body(name, &config);
        }
        let subject = match external {
            Some(external) => subject.replacen(API, &external.api, 1).replace("..", "."),
            None => subject,
        };
        self.go(Phase::Asking(Box::new(Asking {
            reply: reply.clone(),
            deliver,
            until_ns: now_ns + ANSWER_NS,
            held: Vec::new(),
            held_bytes: 0,
        })));
        CopyRequest { origin: self.number, subject, reply, header, body }
    }

    /// The name of its consumer, which the origin may know it by for good.
    fn stable_name(&self, copy: CopyFacts<'_>) -> String {
        let id = hash(&format!("{} {}", copy.stream, copy.account));
        if self.is_mirror {
            return format!("JS_MIRROR_{id}");
        }
        // Of two sources from one stream each needs a name of its own.
        let same = copy.sources.iter().filter(|other| other.name == self.source.name).count();
        let id = if same > 1 { format!("{id} {}", self.index_name) } else { id };
        format!("JS_SRC_{}", hash(&id))
    }

    fn consumer(&self, copy: CopyFacts<'_>, deliver: &str) -> ConsumerConfig {
        let word = if self.is_mirror { "mirror" } else { "src" };
        let metadata = BTreeMap::from([
            (format!("_nats.{word}.acc"), copy.account.to_owned()),
            (format!("_nats.{word}.stream"), copy.stream.to_owned()),
        ]);
        let mut config = ConsumerConfig {
            name: self.stable_name(copy),
            deliver_subject: deliver.to_owned(),
            ack_policy: AckPolicy::None,
            ack_wait: DurationNs(ACK_WAIT_NS),
            max_deliver: Int(1),
            idle_heartbeat: DurationNs(HEARTBEAT_NS),
            flow_control: true,
            direct: true,
            sourcing: true,
            inactive_threshold: DurationNs(INACTIVE_NS),
            metadata,
            ..ConsumerConfig::default()
        };
        self.set_start(&mut config, copy);
        let transforms = &self.source.subject_transforms;
        match (&self.source.filter_subject[..], &transforms[..]) {
            ("", []) => {}
            ("", [one]) => config.filter_subject.clone_from(&one.src),
            ("", several) => {
                config.filter_subjects = several.iter().map(|transform| transform.src.clone()).collect();
            }
            (filter, _) => filter.clone_into(&mut config.filter_subject),
        }
        config
    }

    /// Where it begins: behind its position, or, if it has none, where the configuration says.
    fn set_start(&self, config: &mut ConsumerConfig, copy: CopyFacts<'_>) {
        let by_seq = |config: &mut ConsumerConfig, seq: u64| {
            config.deliver_policy = DeliverPolicy::ByStartSequence;
            config.opt_start_seq = seq;
        };
        let by_time = |config: &mut ConsumerConfig, time_ns: i64| {
            config.deliver_policy = DeliverPolicy::ByStartTime;
            config.opt_start_time = Some(ZonedTime::utc(time_ns));
        };
        let start_time = self.source.opt_start_time.map(|time| time.0);
        if self.is_mirror {
            if copy.messages > 0 || copy.first_seq > 0 {
                by_seq(config, copy.last_seq + 1);
            } else if self.source.opt_start_seq > 0 {
                by_seq(config, self.source.opt_start_seq);
            } else if let Some(time_ns) = start_time {
                by_time(config, time_ns);
            }
        } else if self.position.seq > 0 {
            by_seq(config, self.position.seq + 1);
        } else if self.source.opt_start_seq > 0 {
            by_seq(config, self.source.opt_start_seq);
        } else if let Some(time_ns) = start_time {
            by_time(config, time_ns.max(copy.last_time_ns));
        } else if copy.first_seq > 1 && copy.last_time_ns != 0 && !self.is_recreated {
            // Something was here and is gone: only what is newer comes again.
            by_time(config, copy.last_time_ns);
        }
    }

    /// What asks for the end of its consumer; `None` if that is not the copy's. Nobody waits for the answer.
    pub fn farewell(&self, copy: CopyFacts<'_>, random: &mut fastrand::Rng) -> Option<CopyRequest> {
        if self.source.consumer.is_some() {
            return None;
        }
        let consumer = match &self.phase {
            Phase::Following { consumer, .. } => consumer.to_string(),
            _ => self.stable_name(copy),
        };
        let subject = format!("{API}.CONSUMER.DELETE.{}.{consumer}", self.source.name);
        let subject = match &self.source.external {
            Some(external) => subject.replacen(API, &external.api, 1).replace("..", "."),
            None => subject,
        };
        let unique: String = std::iter::repeat_with(|| random.alphanumeric()).take(8).collect();
        let reply = format!("$JSC.R.{unique}");
        Some(CopyRequest { origin: self.number, subject, reply, header: Vec::new(), body: Vec::new() })
    }

    /// The answer to its request has come. `Some`: it follows from now on. `last_seq`: the mirror's last sequence.
    pub fn answered(&mut self, header: &[u8], payload: &[u8], last_seq: u64, now_ns: i64) -> Option<Begun> {
        let Phase::Asking(asking) = &mut self.phase else { return None };
        let held = std::mem::take(&mut asking.held);
        let deliver = std::mem::take(&mut asking.deliver);
        if header.starts_with(b"NATS/1.0 503") {
            self.fail(None, now_ns);
            return None;
        }
        self.error = None;
        let Ok(answer) = serde_json::from_slice::<Answer>(payload) else {
            self.fail(Some(ErrorId::InvalidJson.into()), now_ns);
            return None;
        };
        if let Some(AnswerError { code, err_code, description }) = answer.error {
            let error = ApiError { code, err_code, description: Cow::Owned(description) };
            if error.is(ErrorId::ConsumerStreamIdentityMismatch) {
                self.position = Position { local_seq: self.position.local_seq, ..Position::default() };
                self.is_recreated = true;
                self.go(Phase::Waiting { until_ns: now_ns + PAUSE_NS });
                return None;
            }
            self.fail(Some(error), now_ns);
            return None;
        }
        let (Some(config), false) = (answer.config, answer.name.is_empty()) else {
            let id = match self.is_mirror {
                true => ErrorId::MirrorConsumerSetupFailed,
                false => ErrorId::SourceConsumerSetupFailed,
            };
            self.fail(Some(ApiError::with(id, "invalid consumer create response")), now_ns);
            return None;
        };
        let listens_to = match &self.source.consumer {
            Some(_) if config.ack_policy != AckPolicy::FlowControl.word() => {
                let id = match self.is_mirror {
                    true => ErrorId::MirrorConsumerRequiresAckFlowControl,
                    false => ErrorId::SourceConsumerRequiresAckFlowControl,
                };
                self.fail(Some(id.into()), now_ns);
                return None;
            }
            Some(consumer) => consumer.deliver_subject.clone(),
            None if config.deliver_subject.is_empty() => deliver,
            None => config.deliver_subject,
        };
        let before_seq = answer.delivered.stream_seq;
        if self.is_mirror {
            self.position.seq = before_seq.max(last_seq);
        } else {
            let identity = headers::get(header, STREAM_IDENTITY.as_bytes()).unwrap_or_default();
            let identity = String::from_utf8_lossy(identity).into_owned();
            let known = &self.position.identity;
            if !identity.is_empty() && !known.is_empty() && *known != identity {
                self.position.seq = 0;
            }
            self.is_recreated = false;
            self.position.identity = identity;
            self.position.seq = self.position.seq.max(before_seq);
            self.is_dirty = true;
        }
        self.delivered = 0;
        self.failures = 0;
        self.heard_ns = Some(now_ns);
        self.go(Phase::Following {
            consumer: answer.name.into(),
            listens_to: listens_to.into(),
            deaf_at_ns: now_ns + SILENCE_NS,
        });
        Some(Begun { before_seq, held })
    }

    /// Something was delivered. `last_seq`: the mirror's last sequence.
    pub fn arrived<'a>(&mut self, message: Copied<'a>, last_seq: u64, now_ns: i64) -> Arrival<'a> {
        let Copied { reply, header, payload, .. } = message;
        match &mut self.phase {
            Phase::Waiting { .. } => return Arrival::Nothing,
            Phase::Asking(asking) => {
                if asking.held_bytes + message.len() <= HELD_BYTES_MAX {
                    asking.held_bytes += message.len();
                    asking.held.push(HeldMessage::of(message));
                }
                return Arrival::Nothing;
            }
            Phase::Following { deaf_at_ns, .. } => *deaf_at_ns = now_ns + SILENCE_NS,
        }
        self.heard_ns = Some(now_ns);
        if payload.is_empty() && header.starts_with(b"NATS/1.0 100 ") {
            return self.control(reply, header);
        }
        if header == CONSUMER_DELETED {
            self.ask_again(PAUSE_NS);
            return Arrival::Nothing;
        }
        let Phase::Following { consumer, .. } = &self.phase else { return Arrival::Nothing };
        let Some(ack) = AckReply::parse(reply) else { return Arrival::Nothing };
        if ack.consumer != consumer.as_bytes() || ack.deliveries > 1 {
            return Arrival::Nothing;
        }
        let is_next = ack.consumer_seq == self.delivered + 1;
        let known = if self.is_mirror { self.position.seq.max(last_seq) } else { self.position.seq };
        if ack.stream_seq <= known {
            self.delivered += u64::from(is_next);
            return Arrival::Nothing;
        }
        // Behind the next number something is missing; before it is what came twice.
        if !(is_next || self.is_mirror && ack.stream_seq == self.position.seq + 1) {
            if ack.consumer_seq > self.delivered {
                self.ask_again(PAUSE_NS);
            }
            return Arrival::Nothing;
        }
        self.lag = ack.pending.saturating_sub(1);
        Arrival::Next(ack)
    }

    fn control<'a>(&mut self, reply: &[u8], header: &[u8]) -> Arrival<'a> {
        if !reply.is_empty() {
            let (delivered, seq) = (self.delivered, self.position.seq);
            let header =
                format!("NATS/1.0\r\nNats-Last-Consumer: {delivered}\r\nNats-Last-Stream: {seq}\r\n\r\n");
            return Arrival::Answer { to: reply.to_vec(), header: header.into_bytes() };
        }
        let last = headers::get(header, b"Nats-Last-Consumer").map_or(0, headers::number);
        if last > 0 && last as u64 != self.delivered {
            self.ask_again(PAUSE_NS);
        } else if let Some(to) = headers::get(header, b"Nats-Consumer-Stalled") {
            return Arrival::Answer { to: to.to_vec(), header: Vec::new() };
        }
        Arrival::Nothing
    }

    /// The message of the last [`Arrival::Next`] is stored here with this sequence, or is not to be (`None`).
    pub fn stored(&mut self, ack: &AckReply<'_>, local_seq: Option<u64>) {
        self.delivered = ack.consumer_seq;
        self.position.seq = ack.stream_seq;
        if let Some(local_seq) = local_seq {
            self.position.local_seq = local_seq;
        }
        self.is_dirty = true;
    }

    /// Whether so little is to follow that a mirror may speak for its origin.
    pub fn is_caught_up(&self, ack: &AckReply<'_>) -> bool {
        self.is_mirror && ack.pending < CAUGHT_UP
    }

    /// What becomes of the subject of a message of it; `None`: it stays.
    pub fn transformed(&self, subject: &[u8], random: &mut fastrand::Rng) -> Option<Vec<u8>> {
        let transform =
            self.transforms.iter().find(|transform| matches(subject, transform.source().as_bytes()))?;
        let mut transformed = Vec::new();
        transform.apply(subject, random, &mut transformed);
        Some(transformed)
    }
}

fn create_body(stream: &str, config: &ConsumerConfig) -> Vec<u8> {
    let mut body = Vec::with_capacity(512);
    let mut object = Object::begin(&mut body);
    object.string("stream_name", stream);
    config.write(object.member("config"), None);
    object.string("action", "");
    object.end();
    body
}
