//! All consumers of one stream: their names, who has something to do, and what they mean for the stream.
//!
//! The worker that owns the stream drives this beside it. In a turn it hands in what came (requests, acknowledgements,
//! responses), says which messages became visible ([`Consumers::stored`]) or left ([`Consumers::removed`],
//! [`Consumers::purged`]) and that time has passed ([`Consumers::tick`]); at the end of the turn [`Consumers::flush`]
//! writes what has to be durable and takes from the stream what nobody wants any more, and when that is committed
//! [`Consumers::committed`] sends the confirmations. Consumers that have nothing to do are not looked at: an idle one
//! costs its memory and nothing else.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::ops::Bound;

use slab::Slab;

use crate::base::histogram::Histogram;
use crate::store::{Filters, ReadPlan, Store, StoreError, StoredMessage};
use crate::subject::name::collide;

use super::super::backup::consumers::BackedUp;
use super::super::config::ConsumerLimits;
use super::super::error::{ApiError, ErrorId};
use super::super::headers;
use super::super::json::{self, DurationNs, Int, Object, Strictness, from_json, write_array};
use super::super::source::header::{CONSUMER_DELETED, STREAM_IDENTITY};
use super::acks::{AckSubject, ack_subject};
use super::advisory::Event;
use super::config::{
    self, AckPolicy, Action, ConsumerConfig, DeliverPolicy, Limits, NAME_LEN_MAX, Retention, StreamFacts,
};
use super::core::{Consumer, removes_settled, start};
use super::delivery::Progress;
use super::journal::{Journal, Recovered, config_key};
use super::lifecycle::Tick;
use super::request::{self, Address, CreateRequest, Verb};
use super::standing::Standing;
use super::state::State;
use super::turn::{Effects, Outlet, Scratch, Site, Turn};

/// How many messages one consumer may deliver before the next one gets its turn.
const RUN_BUDGET: usize = 512;
/// How many names a page has.
const NAMES_MAX: usize = 1024;
/// How many consumers a page of the list has.
const LIST_MAX: usize = 256;
/// How many messages are looked at one by one for the last interest in them, when a consumer goes.
const SWEEP_MAX: u64 = 100_000;

/// Which consumer. Valid until it is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConsumerIndex(usize);

/// What the driver has to do after a turn.
#[derive(Debug, Default)]
pub struct Work {
    /// Messages to be read from disk, and for whom: hand them to [`Consumers::fetched`].
    pub reads: Vec<(ConsumerIndex, ReadPlan)>,
    /// Whether there is more to deliver: call [`Consumers::run`] again, after others had their turn.
    pub more: bool,
}

/// Messages that left the stream: their sequences and subjects.
pub type RemovedMessages = Vec<(u64, Box<[u8]>)>;

/// What monitoring tells of a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// It belongs to a mirror or a source, and lists do not show it.
    pub is_direct: bool,
    /// The object that info answers, without the keys that name a version; empty unless that was asked for.
    pub info: Vec<u8>,
    /// How it stands, if that was asked for.
    pub standing: Option<Box<Standing>>,
}

/// What is wanted of a consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// What info answers, without its configuration.
    Info,
    /// What info answers.
    InfoWithConfig,
    /// How it stands.
    Standing,
}

/// What a driver hands in with everything that it asks for.
pub struct Drive<'a, O> {
    /// Nanoseconds since 1970.
    pub now_ns: i64,
    /// The messages of the stream.
    pub store: &'a Store,
    /// Where messages go.
    pub outlet: &'a mut O,
}

/// See the file's header.
pub struct Consumers {
    site: Site,
    stream: StreamFacts,
    limits: Limits,
    random: fastrand::Rng,
    members: Slab<Member>,
    names: BTreeMap<Box<str>, usize>,
    /// By the subject that they deliver to.
    deliver_subjects: BTreeMap<Box<str>, Vec<usize>>,
    /// Those with requests, listeners or unacknowledged messages.
    warm: Vec<usize>,
    /// Those to be run.
    ready: VecDeque<usize>,
    /// Those with changes that are not written.
    dirty: Vec<usize>,
    timers: BinaryHeap<Reverse<(i64, usize)>>,
    removals: u64,
    /// How often many messages were removed at once.
    purges: u64,
    /// Whether messages may have lost their last interest without an acknowledgement of this turn.
    needs_sweep: bool,
    /// How many are consumers of mirrors and sources, which no limit counts.
    sourcing: usize,
    /// Whose message was acknowledged last.
    last_acked: usize,
    effects: Effects,
    scratch: Scratch,
    /// Confirmations, and the position of the log that they wait for.
    unconfirmed: VecDeque<(u64, Box<[u8]>)>,
    /// Deleted ones whose notes are still there.
    erased: Vec<(Box<str>, Journal)>,
}

struct Member {
    consumer: Consumer,
    is_warm: bool,
    is_ready: bool,
    is_dirty: bool,
    is_reading: bool,
    needs_config: bool,
    /// Which purge it has heard of.
    purge: u64,
    /// The earliest timer that is set for it.
    timer_ns: i64,
}

/// Borrows the parts of a set that make a turn, beside its members.
macro_rules! turn {
    ($set:ident, $drive:ident) => {
        Turn {
            now_ns: $drive.now_ns,
            store: $drive.store,
            outlet: &mut *$drive.outlet,
            random: &mut $set.random,
            effects: &mut $set.effects,
            scratch: &mut $set.scratch,
            site: &$set.site,
            removals: $set.removals,
            removes_settled: removes_settled($set.stream.retention),
        }
    };
}

/// What is noted of a consumer beside its state.
#[derive(Debug, Default)]
struct Kept {
    created: i64,
    config: ConsumerConfig,
}

from_json!(Kept, "Kept", { "created" => created, "config" => config });

impl Consumers {
    /// None yet. `seed` makes ids and jitter.
    pub fn new(site: Site, stream: StreamFacts, limits: Limits, seed: u64) -> Consumers {
        Consumers {
            site,
            stream,
            limits,
            random: fastrand::Rng::with_seed(seed),
            members: Slab::new(),
            names: BTreeMap::new(),
            deliver_subjects: BTreeMap::new(),
            warm: Vec::new(),
            ready: VecDeque::new(),
            dirty: Vec::new(),
            timers: BinaryHeap::new(),
            removals: 0,
            purges: 0,
            needs_sweep: false,
            sourcing: 0,
            last_acked: usize::MAX,
            effects: Effects::default(),
            scratch: Scratch::default(),
            unconfirmed: VecDeque::new(),
            erased: Vec::new(),
        }
    }

    /// Finds the consumers that are noted in the store, after a restart. Returns the names of those whose notes cannot be
    /// read; they are left where they are.
    pub fn recover<O: Outlet>(&mut self, mut drive: Drive<'_, O>) -> Vec<String> {
        let mut unreadable = Vec::new();
        for (name, recovered) in Recovered::all(drive.store) {
            let kept = json::read::<Kept>(&recovered.config, Strictness::Lenient).ok();
            let (Some(kept), Some((state, journal))) =
                (kept.filter(|kept| kept.created != 0), recovered.finish())
            else {
                unreadable.push(name);
                continue;
            };
            let drive = &mut drive;
            let mut turn = turn!(self, drive);
            let mut consumer = Consumer::new(
                &name,
                kept.created,
                kept.config,
                state,
                Some(journal),
                &self.stream,
                &mut turn,
            );
            consumer.pause_announced = !consumer.config.is_paused(turn.now_ns);
            consumer.reconcile(&mut turn);
            let index = self.insert(consumer, false);
            self.mark_ready(index);
            self.after(index, drive.now_ns);
        }
        if self.stream.retention != Retention::Limits {
            let drive = &mut drive;
            self.sweep(1, drive.store);
        }
        unreadable
    }

    /// Makes a consumer as a backup tells of it. It is checked as one that is asked for.
    ///
    /// # Errors
    ///
    /// It may not be.
    pub fn restore<O: Outlet>(
        &mut self,
        name: &str,
        created_ns: i64,
        mut config: ConsumerConfig,
        state: Option<State>,
        mut drive: Drive<'_, O>,
    ) -> Result<(), ApiError> {
        let drive = &mut drive;
        config.set_defaults(&self.stream, &self.limits, false)?;
        config.check(&self.stream, &self.limits)?;
        self.check_others(&config)?;
        if name.len() > NAME_LEN_MAX {
            return Err(ApiError::with(ErrorId::ConsumerNameTooLong, NAME_LEN_MAX));
        }
        if !config::is_valid_name(name) {
            return Err(ErrorId::ConsumerBadDurableName.into());
        }
        if self.names.contains_key(name) {
            return Err(ErrorId::ConsumerAlreadyExists.into());
        }
        let (next, last_messages) = start(&config, &self.stream, drive.store);
        let keeps = !config.direct && !config.mem_storage;
        let is_new = state.is_none();
        let state = state.unwrap_or_else(|| State::starting_with(next));
        let mut turn = turn!(self, drive);
        let journal = keeps.then(Journal::new);
        let mut consumer = Consumer::new(name, created_ns, config, state, journal, &self.stream, &mut turn);
        consumer.last_messages = last_messages.filter(|_| is_new).map(Box::new);
        consumer.pause_announced = !consumer.config.is_paused(turn.now_ns);
        consumer.reconcile(&mut turn);
        let index = self.insert(consumer, keeps);
        self.mark_ready(index);
        self.after(index, drive.now_ns);
        Ok(())
    }

    /// All consumers of a backup are there: messages that none of them wants may go.
    pub fn restored(&mut self, store: &Store) {
        if self.stream.retention != Retention::Limits {
            self.sweep(1, store);
        }
    }

    /// Those that belong into a backup, as they are now.
    pub fn for_backup(&self) -> Vec<BackedUp> {
        let kept = self.iter().filter(|consumer| !consumer.config.direct);
        kept.map(|consumer| {
            let mut state = Vec::new();
            consumer.state.encode(&mut state);
            BackedUp { name: consumer.name.clone(), config: consumer.config.clone(), state }
        })
        .collect()
    }

    /// The stream's configuration has changed.
    pub fn set_stream(&mut self, stream: StreamFacts) {
        self.stream = stream;
    }

    /// The account's or the server's limits have changed.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Whether all of them keep to what the stream is to say of its consumers.
    ///
    /// # Errors
    ///
    /// Some do not: their names.
    pub fn check_limits(&self, limits: &ConsumerLimits) -> Result<(), ApiError> {
        let (threshold, pending) = (limits.inactive_threshold.0, limits.max_ack_pending.0);
        let exceeds = |config: &ConsumerConfig| {
            threshold > 0 && config.inactive_threshold.0 > threshold
                || pending > 0 && config.max_ack_pending.0 > pending
        };
        let names: Vec<&str> = self.iter().filter(|one| exceeds(&one.config)).map(Consumer::name).collect();
        if names.is_empty() {
            return Ok(());
        }
        let text = format!("change to limits violates consumers: {}", names.join(", "));
        Err(ApiError::with(ErrorId::StreamUpdate, text))
    }

    /// How many there are. With `listed` only those that names and list show.
    pub fn len(&self, listed: bool) -> usize {
        self.members.iter().filter(|(_, member)| !listed || !member.consumer.config.direct).count()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The one with this name.
    pub fn get(&self, name: &str) -> Option<&Consumer> {
        Some(&self.members[*self.names.get(name)?].consumer)
    }

    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Consumer> {
        self.names.values().map(|index| &self.members[*index].consumer)
    }

    /// What each of them is interested in.
    pub fn filters(&self) -> impl Iterator<Item = &Filters> {
        self.names.values().map(|index| &self.members[*index].consumer.filters)
    }

    // Requests.

    /// Answers a request of the API by which a mirror or source of another stream asks for its consumer, or any other one. `header`
    /// is that of the request, `identity` what the stream is known by. Returns the header and the body of the answer.
    pub fn answer_identified<O: Outlet>(
        &mut self,
        at: Address<'_>,
        header: &[u8],
        body: &[u8],
        identity: &str,
        strictness: Strictness,
        mut drive: Drive<'_, O>,
    ) -> Option<(Vec<u8>, Vec<u8>)> {
        let asked = headers::get(header, STREAM_IDENTITY.as_bytes());
        let mut tells = at.verb == Verb::Reset && asked.is_some();
        let answer = if at.verb == Verb::Create {
            let drive = &mut drive;
            let created = request::read_create(at, body, strictness).and_then(|mut request| {
                self.adopt_sourcing(&mut request);
                let config = &request.config;
                let differs = asked.is_some_and(|asked| !asked.is_empty() && asked != identity.as_bytes());
                if (config.direct || config.sourcing) && differs {
                    return Err(ApiError::with(ErrorId::ConsumerStreamIdentityMismatch, identity));
                }
                let is_told = config.direct || config.sourcing;
                let created = self.create(request, drive)?;
                tells = is_told;
                Ok(created)
            });
            self.answer_with_info(at.verb, created, None, drive)
        } else {
            self.answer(at, body, strictness, drive)?
        };
        let mut told = Vec::new();
        if tells {
            headers::add(&mut told, STREAM_IDENTITY, identity);
        }
        Some((told, answer))
    }

    /// The consumer of a mirror or source comes with a name that stays the same. On streams that remove what was handled it is kept, and
    /// acknowledges by flow control, so that nothing is lost on the way; elsewhere it is a new one each time.
    fn adopt_sourcing(&mut self, request: &mut CreateRequest) {
        let config = &mut request.config;
        if !config.direct || !config.sourcing || config.name.is_empty() {
            return;
        }
        if removes_settled(self.stream.retention) {
            config.direct = false;
            config.durable_name.clone_from(&config.name);
            config.ack_policy = AckPolicy::FlowControl;
            config.ack_wait = DurationNs(0);
            config.max_deliver = Int(0);
            config.inactive_threshold = DurationNs(0);
            if let Some(index) = self.names.get(config.name.as_str()) {
                let known = &self.members[*index].consumer.config;
                config.deliver_policy = known.deliver_policy;
                config.opt_start_seq = known.opt_start_seq;
                config.opt_start_time = known.opt_start_time;
            }
        } else {
            config.name = format!("{}-{}", config.name, self.unused_name());
        }
    }

    /// Answers a request of the API. `None`: nobody answers it (resets of consumers that are not there).
    pub fn answer<O: Outlet>(
        &mut self,
        at: Address<'_>,
        body: &[u8],
        strictness: Strictness,
        mut drive: Drive<'_, O>,
    ) -> Option<Vec<u8>> {
        let drive = &mut drive;
        Some(match at.verb {
            Verb::Create => {
                let created = request::read_create(at, body, strictness)
                    .and_then(|request| self.create(request, drive));
                self.answer_with_info(at.verb, created, None, drive)
            }
            Verb::Info => {
                let found = if json::is_empty_request(body) {
                    self.find(at.consumer)
                } else {
                    Err(ApiError::new(ErrorId::NotEmptyRequest))
                };
                self.answer_with_info(at.verb, found, None, drive)
            }
            Verb::Names | Verb::List => {
                self.answer_page(at.verb, request::read_offset(body, strictness), drive)
            }
            Verb::Delete => {
                let done = if json::is_empty_request(body) {
                    self.find(at.consumer).map(|index| self.delete(index, drive))
                } else {
                    Err(ApiError::new(ErrorId::NotEmptyRequest))
                };
                answer(at.verb, |object| match &done {
                    Ok(()) => object.bool("success", true),
                    Err(error) => error.write(object.member("error")),
                })
            }
            Verb::Pause => self.answer_pause(at, body, strictness, drive),
            Verb::Unpin => {
                let done = request::read_unpin(body).and_then(|group| self.unpin(at.consumer, &group, drive));
                answer(at.verb, |object| {
                    if let Err(error) = &done {
                        error.write(object.member("error"));
                    }
                })
            }
            Verb::Reset => {
                let index = *self.names.get(at.consumer)?;
                let reset = request::read_reset(body).and_then(|seq| self.reset(index, seq, drive));
                match reset {
                    Ok(seq) => self.answer_with_info(at.verb, Ok(index), Some(seq), drive),
                    Err(error) => self.answer_with_info(at.verb, Err(error), Some(0), drive),
                }
            }
            Verb::StepDown => answer(at.verb, |object| {
                ApiError::new(ErrorId::ClusterRequired).write(object.member("error"));
            }),
            Verb::Next => return None,
        })
    }

    /// What monitoring tells of some of them, in the order of their names: of `max`, beginning at a name or behind it.
    pub fn describe<O: Outlet>(
        &mut self,
        from: Bound<&str>,
        max: usize,
        detail: Detail,
        mut drive: Drive<'_, O>,
    ) -> Vec<Description> {
        let drive = &mut drive;
        let named = self.names.range::<str, _>((from, Bound::Unbounded)).take(max);
        let indices: Vec<usize> = named.map(|(_, index)| *index).collect();
        let mut turn = turn!(self, drive);
        let members = &mut self.members;
        let describe = |index: usize| {
            let consumer = &mut members[index].consumer;
            let (name, is_direct) = (consumer.name().to_owned(), consumer.config.direct);
            if detail == Detail::Standing {
                let standing = Some(Box::new(consumer.standing(&mut turn)));
                return Description { name, is_direct, info: Vec::new(), standing };
            }
            let mut info = Vec::with_capacity(512);
            let mut object = Object::begin(&mut info);
            if detail == Detail::InfoWithConfig {
                consumer.write_info(&mut object, false, &mut turn);
            } else {
                consumer.write_info_without_config(&mut object, &mut turn);
            }
            object.end();
            Description { name, is_direct, info, standing: None }
        };
        indices.into_iter().map(describe).collect()
    }

    fn find(&self, name: &str) -> Result<usize, ApiError> {
        self.names.get(name).copied().ok_or_else(|| ApiError::new(ErrorId::ConsumerNotFound))
    }

    fn answer_with_info<O: Outlet>(
        &mut self,
        verb: Verb,
        found: Result<usize, ApiError>,
        reset_seq: Option<u64>,
        drive: &mut Drive<'_, O>,
    ) -> Vec<u8> {
        if let Ok(index) = found {
            self.catch_up(index, drive);
        }
        let mut turn = turn!(self, drive);
        let members = &mut self.members;
        answer(verb, |object| match found {
            Ok(index) => {
                members[index].consumer.write_info(object, true, &mut turn);
                if let Some(seq) = reset_seq {
                    object.uint("reset_seq", seq);
                }
            }
            Err(error) => {
                error.write(object.member("error"));
                if let Some(seq) = reset_seq {
                    object.uint("reset_seq", seq);
                }
            }
        })
    }

    fn answer_page<O: Outlet>(
        &mut self,
        verb: Verb,
        offset: Result<usize, ApiError>,
        drive: &mut Drive<'_, O>,
    ) -> Vec<u8> {
        let (error, offset) = match offset {
            Ok(offset) => (None, offset),
            Err(error) => (Some(error), 0),
        };
        let listed: Vec<usize> = self
            .names
            .values()
            .copied()
            .filter(|index| error.is_none() && !self.members[*index].consumer.config.direct)
            .collect();
        let (total, offset) = (listed.len(), offset.min(listed.len()));
        let max = if verb == Verb::Names { NAMES_MAX } else { LIST_MAX };
        let page = &listed[offset..(offset + max).min(total)];
        for index in page {
            self.catch_up(*index, drive);
        }
        let mut turn = turn!(self, drive);
        let members = &mut self.members;
        answer(verb, |object| {
            if let Some(error) = &error {
                error.write(object.member("error"));
            }
            object.uint("total", total as u64);
            object.uint("offset", offset as u64);
            object.uint("limit", if error.is_some() { 0 } else { max as u64 });
            let out = object.member("consumers");
            if verb == Verb::Names {
                write_array(out, page, |out, index| json::write_string(out, members[*index].consumer.name()));
            } else {
                out.push(b'[');
                for (at, index) in page.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    let mut object = Object::begin(out);
                    members[*index].consumer.write_info(&mut object, false, &mut turn);
                    object.end();
                }
                out.push(b']');
            }
        })
    }

    fn answer_pause<O: Outlet>(
        &mut self,
        at: Address<'_>,
        body: &[u8],
        strictness: Strictness,
        drive: &mut Drive<'_, O>,
    ) -> Vec<u8> {
        let done = request::read_pause(body, strictness).and_then(|until| {
            let index = self.find(at.consumer)?;
            let mut config = self.members[index].consumer.config.as_ref().clone();
            config.pause_until = until;
            config.set_static_metadata();
            self.update(index, config, drive);
            Ok(until)
        });
        let now = drive.now_ns;
        answer(at.verb, |object| {
            let until = match done {
                Ok(until) => until.unwrap_or_default(),
                Err(error) => {
                    error.write(object.member("error"));
                    config::ZonedTime::default()
                }
            };
            let remaining = if until.is_zero() { 0 } else { (until.ns - now).max(0) };
            object.bool("paused", remaining > 0);
            until.write(object.member("pause_until"));
            object.int_unless_zero("pause_remaining", remaining);
        })
    }

    fn unpin<O: Outlet>(
        &mut self,
        name: &str,
        group: &str,
        drive: &mut Drive<'_, O>,
    ) -> Result<(), ApiError> {
        let index = self.find(name)?;
        let mut turn = turn!(self, drive);
        let consumer = &mut self.members[index].consumer;
        if !consumer.config.priority_groups.iter().any(|known| known == group) {
            return Err(ApiError::new(ErrorId::ConsumerInvalidPriorityGroup));
        }
        consumer.unpin(group, "admin", &mut turn);
        self.mark_ready(index);
        Ok(())
    }

    fn reset<O: Outlet>(
        &mut self,
        index: usize,
        seq: u64,
        drive: &mut Drive<'_, O>,
    ) -> Result<u64, ApiError> {
        self.catch_up(index, drive);
        let mut turn = turn!(self, drive);
        let floor = self.members[index].consumer.state.ack_floor.stream;
        let next = self.members[index]
            .consumer
            .reset(seq, &mut turn)
            .map_err(|text| ApiError::with(ErrorId::ConsumerInvalidReset, text))?;
        if self.stream.retention == Retention::Interest && next > floor {
            self.sweep_between(floor + 1, next - 1, drive.store);
        }
        self.mark_ready(index);
        self.after(index, drive.now_ns);
        Ok(next)
    }

    /// Creates a consumer, or updates the one that is there.
    fn create<O: Outlet>(
        &mut self,
        request: CreateRequest,
        drive: &mut Drive<'_, O>,
    ) -> Result<usize, ApiError> {
        let CreateRequest { mut config, action, pedantic, .. } = request;
        if let Some(index) = self.names.get(config.name.as_str()) {
            // A pause is changed by its own request only.
            config.pause_until = self.members[*index].consumer.config.pause_until;
        }
        config.set_static_metadata();
        config.set_defaults(&self.stream, &self.limits, pedantic)?;
        config.check(&self.stream, &self.limits)?;
        let name = if config.is_durable() { config.durable_name.as_str() } else { config.name.as_str() };
        if let Some(index) = self.names.get(name).copied() {
            return self.create_again(index, config, action, drive);
        }
        if action == Action::Update {
            return Err(ApiError::new(ErrorId::ConsumerDoesNotExist));
        }
        self.check_others(&config)?;
        if name.len() > NAME_LEN_MAX {
            return Err(if config.is_durable() {
                ApiError::with(ErrorId::ConsumerNameTooLong, NAME_LEN_MAX)
            } else {
                // The reference fails to make a directory of that name.
                ApiError::with(ErrorId::ConsumerCreate, "error creating store for consumer")
            });
        }
        let name = if name.is_empty() { self.unused_name() } else { name.to_owned() };
        let (next, last_messages) = start(&config, &self.stream, drive.store);
        let keeps = !config.direct && !config.mem_storage;
        let journal = keeps.then(Journal::new);
        let mut turn = turn!(self, drive);
        let state = State::starting_with(next);
        let mut consumer =
            Consumer::new(&name, drive.now_ns, config, state, journal, &self.stream, &mut turn);
        consumer.last_messages = last_messages.map(Box::new);
        consumer.tell(Event::Created, &mut turn);
        if consumer.config.is_paused(drive.now_ns) {
            consumer.tell(Event::Paused { until: consumer.config.pause_until }, &mut turn);
        }
        let index = self.insert(consumer, keeps);
        self.mark_ready(index);
        self.after(index, drive.now_ns);
        Ok(index)
    }

    fn create_again<O: Outlet>(
        &mut self,
        index: usize,
        mut config: ConsumerConfig,
        action: Action,
        drive: &mut Drive<'_, O>,
    ) -> Result<usize, ApiError> {
        let old = &self.members[index].consumer.config;
        if action == Action::Create {
            config.copy_static_metadata(old);
            if config != **old {
                return Err(ApiError::new(ErrorId::ConsumerAlreadyExists));
            }
        }
        if self.stream.retention == Retention::WorkQueue && !self.is_unique(Some(index), &config) {
            return Err(ApiError::new(ErrorId::ConsumerWorkQueueConsumerNotUnique));
        }
        let bound = old.deliver_subject != config.deliver_subject
            && old.is_push()
            && drive.outlet.has_interest(old.deliver_subject.as_bytes(), b"");
        old.check_update(&config, bound)?;
        let is_sourcing = config.sourcing;
        self.update(index, config, drive);
        if is_sourcing {
            // Whoever asks anew gets again what it has not confirmed.
            self.reset(index, 0, drive)?;
        }
        Ok(index)
    }

    fn update<O: Outlet>(&mut self, index: usize, config: ConsumerConfig, drive: &mut Drive<'_, O>) {
        let mut turn = turn!(self, drive);
        let member = &mut self.members[index];
        let deliver = member.consumer.config.deliver_subject.clone();
        let filtered_otherwise = !config.filters().eq(member.consumer.config.filters());
        if *member.consumer.config == config {
            return;
        }
        member.consumer.update(config, &self.stream, &mut turn);
        member.needs_config = member.consumer.is_durable;
        let new = member.consumer.config.deliver_subject.clone();
        if new != deliver {
            self.forget_deliver_subject(&deliver, index);
            self.deliver_subjects.entry(new.into()).or_default().push(index);
        }
        self.mark_dirty(index);
        self.mark_ready(index);
        self.after(index, drive.now_ns);
        if filtered_otherwise && self.stream.retention == Retention::Interest {
            let from = self.members[index].consumer.state.ack_floor.stream;
            self.sweep(from, drive.store);
        }
    }

    /// Whether there may be one more consumer, and this one beside the others.
    fn check_others(&self, config: &ConsumerConfig) -> Result<(), ApiError> {
        let limitable = (self.members.len() - self.sourcing) as i64;
        let account = self.limits.account_max_consumers;
        let stream = self.stream.max_consumers;
        let max = if stream <= 0 || (account > 0 && account < stream) { account } else { stream };
        let max = if max > 0 { max } else { self.limits.server_default_max_consumers };
        if max > 0 && limitable >= max {
            return Err(ApiError::new(ErrorId::MaximumConsumersLimit));
        }
        if self.stream.retention != Retention::WorkQueue || config.direct || config.sourcing {
            return Ok(());
        }
        if !matches!(config.ack_policy, AckPolicy::Explicit | AckPolicy::FlowControl) {
            return Err(ApiError::new(ErrorId::ConsumerWorkQueueRequiresExplicitAck));
        }
        if config.deliver_policy != DeliverPolicy::All {
            return Err(ApiError::new(ErrorId::ConsumerWorkQueueConsumerNotDeliverAll));
        }
        if limitable > 0 {
            if config.filters().next().is_none() {
                return Err(ApiError::new(ErrorId::ConsumerWorkQueueMultipleUnfiltered));
            }
            if !self.is_unique(None, config) {
                return Err(ApiError::new(ErrorId::ConsumerWorkQueueConsumerNotUnique));
            }
        }
        Ok(())
    }

    /// Whether no other consumer of a work queue gets the same messages.
    fn is_unique(&self, itself: Option<usize>, config: &ConsumerConfig) -> bool {
        let others = self.members.iter().filter(|(index, member)| {
            Some(*index) != itself && !member.consumer.config.direct && !member.consumer.config.sourcing
        });
        let mut others = others.map(|(_, member)| &member.consumer.config);
        !others.any(|other| {
            config.filters().any(|filter| {
                other.filters().next().is_none()
                    || other.filters().any(|other| collide(filter.as_bytes(), other.as_bytes()))
            })
        })
    }

    fn unused_name(&mut self) -> String {
        loop {
            let name: String = std::iter::repeat_with(|| self.random.alphanumeric()).take(8).collect();
            if !self.names.contains_key(name.as_str()) {
                return name;
            }
        }
    }

    // What comes from clients.

    /// A pull request: the body and the reply of a message to `$JS.API.CONSUMER.MSG.NEXT.<stream>.<consumer>`.
    pub fn pull<O: Outlet>(&mut self, consumer: &str, body: &[u8], reply: &[u8], mut drive: Drive<'_, O>) {
        let Some(index) = self.names.get(consumer).copied() else { return };
        let drive = &mut drive;
        let mut turn = turn!(self, drive);
        self.members[index].consumer.pull(body, reply, &mut turn);
        self.mark_ready(index);
    }

    /// An acknowledgement: a message to `$JS.ACK.>`. `payload` is without headers.
    pub fn ack<O: Outlet>(&mut self, subject: &[u8], payload: &[u8], reply: &[u8], mut drive: Drive<'_, O>) {
        let Some(at) = ack_subject(subject) else { return };
        self.ack_parsed(&at, payload, reply, &mut drive);
    }

    fn ack_parsed<O: Outlet>(
        &mut self,
        at: &AckSubject<'_>,
        payload: &[u8],
        reply: &[u8],
        drive: &mut Drive<'_, O>,
    ) {
        // Acknowledgements come in runs for one consumer.
        let index = match self.members.get(self.last_acked) {
            Some(member) if member.consumer.name.as_bytes() == at.consumer => self.last_acked,
            _ => {
                let name = std::str::from_utf8(at.consumer).ok();
                let Some(index) = name.and_then(|name| self.names.get(name)).copied() else { return };
                self.last_acked = index;
                index
            }
        };
        let mut turn = turn!(self, drive);
        let consumer = &mut self.members[index].consumer;
        if !consumer.config.takes_acks() {
            return;
        }
        consumer.ack(at, payload, reply, &mut turn);
        if consumer.journal.is_dirty() {
            self.mark_dirty(index);
        }
        self.mark_ready(index);
    }

    /// A response to a flow control request: a message to `$JS.FC.>`. `last`: the values of its headers
    /// `Nats-Last-Consumer` and `Nats-Last-Stream`, where both are there.
    pub fn flow_response<O: Outlet>(
        &mut self,
        subject: &[u8],
        last: Option<(u64, u64)>,
        mut drive: Drive<'_, O>,
    ) {
        let mut tokens = subject.rsplit(|byte| *byte == b'.');
        let name = tokens.nth(1).and_then(|name| std::str::from_utf8(name).ok());
        let Some(index) = name.and_then(|name| self.names.get(name)).copied() else { return };
        let drive = &mut drive;
        let mut turn = turn!(self, drive);
        self.members[index].consumer.flow_response(subject, last, &mut turn);
        self.mark_dirty(index);
        self.mark_ready(index);
    }

    /// Looks at every push consumer whether somebody listens, in its queue group if it has one. Costs a look at the interest for
    /// each: for drivers that are not told of subscriptions, every so often. Whether that has changed.
    pub fn check_listeners<O: Outlet>(&mut self, drive: Drive<'_, O>) -> bool {
        let mut has_changed = false;
        for index in self.deliver_subjects.values().flatten().copied().collect::<Vec<_>>() {
            let consumer = &mut self.members[index].consumer;
            let (subject, group) = (&consumer.config.deliver_subject, &consumer.config.deliver_group);
            let active = drive.outlet.has_interest(subject.as_bytes(), group.as_bytes());
            if active != consumer.is_bound() {
                consumer.listener(active, drive.now_ns);
                self.mark_ready(index);
                self.after(index, drive.now_ns);
                has_changed = true;
            }
        }
        has_changed
    }

    /// The subjects that push consumers deliver to: the driver watches whether somebody listens.
    pub fn deliver_subjects(&self) -> impl Iterator<Item = &str> {
        self.deliver_subjects.keys().map(|subject| &**subject)
    }

    // What happens in the stream.

    /// Messages have become visible: committed ones behind those that were visible before.
    pub fn stored(&mut self) {
        for at in 0..self.warm.len() {
            let index = self.warm[at];
            let consumer = &self.members[index].consumer;
            if !consumer.waiting.is_empty() || consumer.is_bound() {
                self.mark_ready(index);
            }
        }
    }

    /// A message was removed from the stream: by a limit, by a request, or because it was handled.
    pub fn removed<O: Outlet>(&mut self, seq: u64, subject: &[u8], mut drive: Drive<'_, O>) {
        self.removals += 1;
        let drive = &mut drive;
        for at in 0..self.warm.len() {
            let index = self.warm[at];
            let mut turn = turn!(self, drive);
            let consumer = &mut self.members[index].consumer;
            let has_room = consumer.removed(seq, subject, &mut turn);
            if consumer.journal.is_dirty() {
                self.mark_dirty(index);
            }
            if has_room {
                self.mark_ready(index);
            }
        }
    }

    /// Many messages were removed from the stream, or it is not known which. Consumers at rest hear of it when they are
    /// asked for something.
    pub fn purged<O: Outlet>(&mut self, mut drive: Drive<'_, O>) {
        self.removals += 1;
        self.purges += 1;
        let drive = &mut drive;
        for index in self.warm.clone() {
            self.catch_up(index, drive);
            self.mark_ready(index);
        }
    }

    /// Tells a consumer of a purge that it has not heard of.
    fn catch_up<O: Outlet>(&mut self, index: usize, drive: &mut Drive<'_, O>) {
        if self.members[index].purge == self.purges {
            return;
        }
        let mut turn = turn!(self, drive);
        let member = &mut self.members[index];
        member.purge = self.purges;
        member.consumer.reconcile(&mut turn);
        if member.consumer.journal.is_dirty() {
            self.mark_dirty(index);
        }
        self.after(index, drive.now_ns);
    }

    /// Messages that were read from disk for a consumer; sorted. None: the read failed; it is tried again after a second.
    pub fn fetched(&mut self, index: ConsumerIndex, messages: impl IntoIterator<Item = StoredMessage>) {
        if let Some(member) = self.members.get_mut(index.0) {
            member.consumer.fetched = messages.into_iter().collect();
            member.consumer.read_failed = member.consumer.fetched.is_empty();
            member.is_reading = false;
            self.mark_ready(index.0);
        }
    }

    // Time and work.

    /// When [`Consumers::tick`] has to be called at the latest.
    pub fn next_deadline_ns(&self) -> Option<i64> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    /// Time has passed.
    pub fn tick<O: Outlet>(&mut self, mut drive: Drive<'_, O>) {
        let drive = &mut drive;
        while let Some(Reverse((at, index))) = self.timers.peek().copied() {
            if at > drive.now_ns {
                break;
            }
            self.timers.pop();
            let Some(member) = self.members.get_mut(index).filter(|member| member.timer_ns == at) else {
                continue;
            };
            member.timer_ns = i64::MAX;
            let mut turn = turn!(self, drive);
            match member.consumer.tick(&mut turn) {
                // What was due is done by the run, which sets the next timer.
                Tick::Run => self.mark_ready(index),
                Tick::Nothing => self.after(index, drive.now_ns),
                Tick::Expired => {
                    self.delete(index, drive);
                    continue;
                }
            }
            if self.members[index].consumer.journal.is_dirty() {
                self.mark_dirty(index);
            }
        }
    }

    /// Delivers what can be delivered. Once a turn, when everything that came is handed in.
    pub fn run<O: Outlet>(&mut self, mut drive: Drive<'_, O>) -> Work {
        let drive = &mut drive;
        let mut work = Work::default();
        for _ in 0..self.ready.len() {
            let Some(index) = self.ready.pop_front() else { break };
            let Some(member) = self.members.get_mut(index).filter(|member| member.is_ready) else { continue };
            member.is_ready = false;
            if member.is_reading {
                continue;
            }
            self.catch_up(index, drive);
            let mut turn = turn!(self, drive);
            let member = &mut self.members[index];
            match member.consumer.run(RUN_BUDGET, &mut turn) {
                Progress::Idle => {}
                Progress::More => self.mark_ready(index),
                Progress::Reading(plan) => {
                    member.is_reading = true;
                    work.reads.push((ConsumerIndex(index), plan));
                }
            }
            if self.members[index].consumer.journal.is_dirty() {
                self.mark_dirty(index);
            }
            self.after(index, drive.now_ns);
        }
        work.more = !self.ready.is_empty();
        work
    }

    /// Writes what changed in this turn, and removes from the stream what nobody wants any more; returns what was
    /// removed, which other parts of the stream (and [`Consumers::removed`]) have to hear of. At the end of a turn, before
    /// the store's commit is taken.
    ///
    /// # Errors
    ///
    /// The store takes nothing at present. What changed is written when it does.
    pub fn flush(&mut self, store: &mut Store) -> Result<RemovedMessages, StoreError> {
        while let Some((name, journal)) = self.erased.last_mut() {
            journal.erase(name, store)?;
            self.erased.pop();
        }
        while let Some(index) = self.dirty.last().copied() {
            if let Some(member) = self.members.get_mut(index) {
                let consumer = &mut member.consumer;
                if member.needs_config {
                    let mut value = Vec::new();
                    let mut object = Object::begin(&mut value);
                    object.int("created", consumer.created_ns);
                    consumer.config.write(object.member("config"), None);
                    object.end();
                    store.note(config_key(&consumer.name).as_bytes(), Some(&value))?;
                    member.needs_config = false;
                }
                if consumer.is_durable {
                    consumer.journal.flush(&consumer.name, &consumer.state, store)?;
                    if !member.is_warm {
                        consumer.journal.rest(&consumer.name, &consumer.state, store)?;
                    }
                }
                member.is_dirty = false;
            }
            self.dirty.pop();
        }
        if std::mem::take(&mut self.needs_sweep) && self.stream.retention != Retention::Limits {
            self.sweep(1, store);
        }
        let mut removed = Vec::new();
        for seq in std::mem::take(&mut self.effects.settled) {
            let Some(subject) = store.subject_of(seq).map(Box::<[u8]>::from) else { continue };
            if !self.is_wanted(seq, &subject) {
                store.remove(seq, false);
                removed.push((seq, subject));
            }
        }
        let position = store.position();
        self.unconfirmed.extend(self.effects.confirmations.drain(..).map(|reply| (position, reply)));
        Ok(removed)
    }

    /// Messages ever delivered, by consumers that are gone too.
    pub fn deliveries(&self) -> u64 {
        self.effects.deliveries
    }

    /// Moves the times that acknowledgements took since the last call. Whether there are any.
    pub fn take_ack_times(&mut self, into: &mut Histogram) -> bool {
        let has_some = std::mem::take(&mut self.effects.has_ack_times);
        if has_some {
            into.add(&std::mem::take(&mut self.effects.ack_times));
        }
        has_some
    }

    /// Whether confirmations wait for the log.
    pub fn has_unconfirmed(&self) -> bool {
        !self.unconfirmed.is_empty()
    }

    /// The log is durable up to here: confirms what waited for it.
    pub fn committed<O: Outlet>(&mut self, committed: u64, outlet: &mut O) {
        while self.unconfirmed.front().is_some_and(|(position, _)| *position <= committed) {
            if let Some((_, reply)) = self.unconfirmed.pop_front() {
                outlet.publish(&reply, b"", b"", b"");
            }
        }
    }

    /// A commit failed and what was written since the last one is gone: nothing of it is confirmed, and everything is
    /// written anew with the next flush.
    pub fn rolled_back(&mut self) {
        self.unconfirmed.clear();
        self.needs_sweep = true;
        for index in self.names.values().copied().collect::<Vec<_>>() {
            let member = &mut self.members[index];
            if member.consumer.is_durable {
                member.consumer.journal.rewrite();
                member.needs_config = true;
            }
            member.consumer.forget_backlog();
            self.mark_dirty(index);
        }
    }

    /// Deletes all consumers, with the stream: tells them and their clients.
    pub fn delete_all<O: Outlet>(&mut self, mut drive: Drive<'_, O>) {
        let drive = &mut drive;
        self.stream.retention = Retention::Limits;
        for index in self.names.values().copied().collect::<Vec<_>>() {
            self.delete(index, drive);
        }
        self.erased.clear();
    }

    /// The server stops: whoever waits for messages hears of it.
    pub fn shut_down<O: Outlet>(&mut self, mut drive: Drive<'_, O>) {
        let drive = &mut drive;
        for index in self.warm.clone() {
            let mut turn = turn!(self, drive);
            self.members[index].consumer.end_waiting("409 Server Shutdown", true, &mut turn);
        }
    }

    fn delete<O: Outlet>(&mut self, index: usize, drive: &mut Drive<'_, O>) {
        let member = self.members.remove(index);
        let mut consumer = member.consumer;
        self.sourcing -= usize::from(consumer.config.sourcing);
        self.names.remove(&consumer.name);
        let deliver = consumer.config.deliver_subject.clone();
        self.forget_deliver_subject(&deliver, index);
        self.warm.retain(|other| *other != index);
        self.dirty.retain(|other| *other != index);
        let mut turn = turn!(self, drive);
        consumer.tell(Event::Deleted, &mut turn);
        consumer.end_waiting("409 Consumer Deleted", false, &mut turn);
        if consumer.config.sourcing && consumer.is_bound() {
            // A copy need not wait until it misses a heartbeat. In the reference it does.
            turn.outlet.publish(deliver.as_bytes(), b"", CONSUMER_DELETED, b"");
        }
        if self.stream.retention == Retention::Interest {
            let from = consumer.state.ack_floor.stream;
            self.sweep(from, drive.store);
        }
        if consumer.is_durable {
            self.erased.push((consumer.name, consumer.journal));
        }
    }

    fn forget_deliver_subject(&mut self, subject: &str, index: usize) {
        if let Some(indexes) = self.deliver_subjects.get_mut(subject) {
            indexes.retain(|other| *other != index);
            if indexes.is_empty() {
                self.deliver_subjects.remove(subject);
            }
        }
    }

    // Retention.

    /// Whether a message still matters to a consumer: it may be delivered, or waits for its acknowledgement. The one
    /// place that decides whether an acknowledged message leaves an interest stream or a work queue.
    pub fn is_wanted(&self, seq: u64, subject: &[u8]) -> bool {
        self.members.iter().any(|(_, member)| member.consumer.wants(seq, subject))
    }

    /// Notes messages for removal that may have lost their last interest.
    fn sweep(&mut self, from: u64, store: &Store) {
        self.sweep_between(from, store.committed_seq(), store);
    }

    fn sweep_between(&mut self, from: u64, last: u64, store: &Store) {
        let is_work_queue = self.stream.retention == Retention::WorkQueue;
        let mut next = store.next(from.max(1));
        let mut looked = 0;
        while let Some(seq) = next.filter(|seq| *seq <= last && looked < SWEEP_MAX) {
            // A work queue keeps what no consumer has asked for.
            let handled = |consumer: &Consumer, subject: &[u8]| {
                seq <= consumer.state.delivered.stream && consumer.filters.matches(subject)
            };
            if let Some(subject) = store.subject_of(seq)
                && !self.is_wanted(seq, subject)
                && (!is_work_queue
                    || self.members.iter().any(|(_, member)| handled(&member.consumer, subject)))
            {
                self.effects.settled.push(seq);
            }
            looked += 1;
            next = store.next(seq + 1);
        }
    }

    // Bookkeeping.

    fn insert(&mut self, consumer: Consumer, needs_config: bool) -> usize {
        let name = consumer.name.clone();
        self.sourcing += usize::from(consumer.config.sourcing);
        let deliver = consumer.config.is_push().then(|| consumer.config.deliver_subject.clone());
        let index = self.members.insert(Member {
            consumer,
            is_warm: false,
            is_ready: false,
            is_dirty: false,
            is_reading: false,
            needs_config,
            purge: self.purges,
            timer_ns: i64::MAX,
        });
        self.names.insert(name, index);
        if let Some(deliver) = deliver {
            self.deliver_subjects.entry(deliver.into()).or_default().push(index);
        }
        if needs_config {
            self.mark_dirty(index);
        }
        index
    }

    fn mark_ready(&mut self, index: usize) {
        let member = &mut self.members[index];
        if !member.is_ready {
            member.is_ready = true;
            self.ready.push_back(index);
        }
    }

    fn mark_dirty(&mut self, index: usize) {
        let member = &mut self.members[index];
        if !member.is_dirty {
            member.is_dirty = true;
            self.dirty.push(index);
        }
    }

    /// After something was done with a consumer: is it warm, and when is its next deadline?
    fn after(&mut self, index: usize, now_ns: i64) {
        let member = &mut self.members[index];
        let warm = member.consumer.is_warm();
        if warm != member.is_warm {
            member.is_warm = warm;
            if warm {
                self.warm.push(index);
            } else {
                self.warm.retain(|other| *other != index);
                member.consumer.shrink();
                if member.consumer.is_durable {
                    self.mark_dirty(index);
                }
            }
        }
        let member = &mut self.members[index];
        let deadline = member.consumer.deadline_ns(now_ns);
        if deadline < member.timer_ns {
            member.timer_ns = deadline;
            self.timers.push(Reverse((deadline, index)));
        }
    }
}

fn answer(verb: Verb, write: impl FnOnce(&mut Object<'_>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    let mut object = Object::begin(&mut out);
    object.string("type", verb.answer_type());
    write(&mut object);
    object.end();
    out
}
