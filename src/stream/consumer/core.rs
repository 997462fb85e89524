//! One consumer: its configuration, its state, and what it knows besides; where it begins, and what is told of it.
//!
//! What it does with messages is in [`super::delivery`], with acknowledgements in [`super::acks`]. What must not be
//! forgotten is in [`State`] and changes only by [`Consumer::change`]; the rest is found again after a restart.

use std::collections::VecDeque;

use crate::base::histogram::Histogram;
use crate::store::{Filters, Store, StoredMessage};

use super::super::json::{Object, write_array};
use super::advisory::{self, Event};
use super::config::{
    AckPolicy, ConsumerConfig, DeliverPolicy, PriorityPolicy, ReplayPolicy, Retention, StreamFacts,
};
use super::journal::Journal;
use super::push::{FlowControl, Push, RateLimit};
use super::state::{SequencePair, State, StateChange};
use super::turn::{Outlet, Turn};
use super::waiting::Waiting;

const MILLISECOND: i64 = 1_000_000;
/// The largest message, if nothing says.
const MAX_PAYLOAD_DEFAULT: i64 = 1024 * 1024;
/// From how many new messages on the index is asked instead of each message's subject.
const LOOK_MAX: u64 = 64;

/// How many messages are undelivered, and when that was right.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Backlog {
    pub(super) count: u64,
    /// The last message that is counted.
    through: u64,
    /// [`Turn::removals`] at that time; `None`: nothing is known.
    removals: Option<u64>,
}

/// What a consumer that begins with the last message of each subject has still to deliver of them.
#[derive(Debug, Clone, Default)]
pub(super) struct LastMessages {
    pub(super) seqs: VecDeque<u64>,
    /// Where it goes on behind them.
    pub(super) resume: u64,
}

/// The client that a priority group is pinned to.
#[derive(Debug, Clone, Default)]
pub(super) struct Pin {
    pub(super) id: String,
    pub(super) since_ns: i64,
    pub(super) group: String,
    pub(super) ends_ns: i64,
}

/// A replay in the original rhythm.
#[derive(Debug, Clone, Copy)]
pub(super) struct Replay {
    /// It ends behind this message.
    pub(super) last_seq: u64,
    /// When the message before was stored, and when it was delivered.
    pub(super) before: Option<(i64, i64)>,
}

/// See the file's header.
pub struct Consumer {
    pub(super) stream: Box<str>,
    pub(super) name: Box<str>,
    pub(super) created_ns: i64,
    pub(super) config: Box<ConsumerConfig>,
    pub(super) filters: Filters,
    /// `$JS.ACK.<stream>.<consumer>.`
    pub(super) ack_prefix: Box<[u8]>,
    pub(super) state: State,
    /// The number of the last delivery is the state's; this is the next sequence to look at.
    pub(super) next_seq: u64,
    /// Whether the state is kept in the log.
    pub(super) is_durable: bool,
    pub(super) journal: Journal,
    pub(super) backlog: Backlog,
    pub(super) redeliver: VecDeque<u64>,
    pub(super) last_messages: Option<Box<LastMessages>>,
    pub(super) waiting: Waiting,
    /// When a request ends or wants to hear something, at the earliest.
    pub(super) waiting_ns: i64,
    /// When the queue was last looked through.
    pub(super) looked_ns: i64,
    /// When an acknowledgement is overdue, at the earliest.
    pub(super) overdue_ns: i64,
    /// Nothing is delivered before: a replay, a rate limit.
    pub(super) held_until_ns: i64,
    /// When a client last asked for something or got something.
    pub(super) active_ns: i64,
    pub(super) inactive_threshold_ns: i64,
    pub(super) last_delivered_ns: Option<i64>,
    pub(super) last_acked_ns: Option<i64>,
    pub(super) pause_announced: bool,
    /// Deliveries of messages that had been delivered before, since the server's start.
    pub(super) redeliveries: u64,
    /// From delivery to acknowledgement, since the server's start; there from the first one on.
    pub(super) ack_times: Option<Box<Histogram>>,
    pub(super) push: Option<Box<Push>>,
    pub(super) pin: Option<Box<Pin>>,
    pub(super) replay: Option<Box<Replay>>,
    /// Messages that were read from disk for it.
    pub(super) fetched: VecDeque<StoredMessage>,
    /// Whether the last read found nothing.
    pub(super) read_failed: bool,
}

/// No deadline.
pub(super) const NEVER: i64 = i64::MAX;

impl Consumer {
    /// One with this state. `journal`: `None` if its state is not kept.
    pub(super) fn new<O: Outlet>(
        name: &str,
        created_ns: i64,
        config: ConsumerConfig,
        state: State,
        journal: Option<Journal>,
        stream: &StreamFacts,
        turn: &mut Turn<'_, O>,
    ) -> Consumer {
        let mut consumer = Consumer {
            stream: stream.name.as_str().into(),
            name: name.into(),
            created_ns,
            filters: Filters::new(config.filters().map(str::as_bytes)),
            ack_prefix: format!("$JS.ACK.{}{}.{name}.", turn.site.ack_infix, stream.name).into_bytes().into(),
            next_seq: state.delivered.stream + 1,
            is_durable: journal.is_some(),
            journal: journal.unwrap_or_default(),
            backlog: Backlog::default(),
            redeliver: VecDeque::new(),
            last_messages: None,
            waiting: Waiting::default(),
            waiting_ns: NEVER,
            looked_ns: 0,
            overdue_ns: NEVER,
            held_until_ns: i64::MIN,
            active_ns: turn.now_ns,
            inactive_threshold_ns: 0,
            last_delivered_ns: None,
            last_acked_ns: None,
            pause_announced: false,
            redeliveries: 0,
            ack_times: None,
            push: None,
            pin: None,
            replay: None,
            fetched: VecDeque::new(),
            read_failed: false,
            state,
            config: Box::new(config),
        };
        consumer.set_threshold(turn);
        if consumer.config.is_push() {
            let deliver = consumer.config.deliver_subject.as_bytes();
            let active = turn.outlet.has_interest(deliver, consumer.config.deliver_group.as_bytes());
            consumer.push = Some(Box::new(Push {
                active,
                inactive_since_ns: turn.now_ns,
                heartbeat_at_ns: consumer.heartbeat_after(turn.now_ns),
                flow: consumer.config.flow_control.then(FlowControl::new),
                rate: None,
            }));
            consumer.set_rate(stream, turn);
        }
        if consumer.config.replay_policy == ReplayPolicy::Original {
            consumer.replay = Some(Box::new(Replay { last_seq: turn.store.committed_seq(), before: None }));
        }
        consumer.overdue_ns = consumer.next_overdue();
        consumer
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it was asked to be.
    pub fn config(&self) -> &ConsumerConfig {
        &self.config
    }

    /// What it must not forget.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// When it was created.
    pub fn created_ns(&self) -> i64 {
        self.created_ns
    }

    /// Whether it delivers by itself and somebody listens.
    pub fn is_bound(&self) -> bool {
        self.push.as_ref().is_some_and(|push| push.active)
    }

    /// Whether it has something to do when messages come, or when acknowledgements do.
    pub(super) fn is_warm(&self) -> bool {
        !self.waiting.is_empty()
            || self.is_bound()
            || !self.state.pending.is_empty()
            || !self.state.exceeded.is_empty()
            || !self.fetched.is_empty()
    }

    /// Gives memory back that a consumer at rest does not need.
    pub(super) fn shrink(&mut self) {
        self.state.pending.shrink();
        self.waiting.shrink();
        self.redeliver = VecDeque::new();
        self.fetched = VecDeque::new();
    }

    /// Makes a change of the state, and keeps it.
    pub(super) fn change(&mut self, change: StateChange) {
        self.state.apply(&change);
        if self.is_durable {
            self.journal.push(&change);
        }
    }

    /// Ephemeral consumers, and others if they are configured so, end when nobody has used them for so long. Pull
    /// consumers get up to a second more, so that not all of them end at once.
    pub(super) fn set_threshold<O: Outlet>(&mut self, turn: &mut Turn<'_, O>) {
        let unsaid = self.config.inactive_threshold.0 <= 0;
        if unsaid && !self.config.is_durable() {
            self.config.inactive_threshold.0 = super::config::INACTIVE_THRESHOLD_DEFAULT_NS;
        }
        let jitter = (100 + turn.random.i64(0..900)) * MILLISECOND;
        self.inactive_threshold_ns = match self.config.inactive_threshold.0 {
            ..=0 => 0,
            threshold if unsaid || !self.config.is_push() => threshold + jitter,
            threshold => threshold,
        };
    }

    pub(super) fn set_rate<O>(&mut self, stream: &StreamFacts, turn: &Turn<'_, O>) {
        let burst = [stream.max_msg_size, turn.site.max_payload].into_iter().find(|size| *size > 0);
        if let Some(push) = &mut self.push {
            let bits = self.config.rate_limit_bps;
            push.rate =
                (bits > 0).then(|| RateLimit::new(bits, burst.unwrap_or(MAX_PAYLOAD_DEFAULT), turn.now_ns));
        }
    }

    pub(super) fn heartbeat_after(&self, now_ns: i64) -> Option<i64> {
        (self.config.idle_heartbeat.0 > 0).then(|| now_ns.saturating_add(self.config.idle_heartbeat.0))
    }

    /// Where the messages begin that are not delivered and not listed.
    pub(super) fn scan_from(&self) -> u64 {
        self.last_messages.as_ref().map_or(self.next_seq, |last_messages| last_messages.resume)
    }

    /// Brings the number of undelivered messages up to date.
    pub(super) fn refresh_backlog(&mut self, store: &Store, removals: u64) {
        let last = store.committed_seq();
        let known = self.backlog.removals == Some(removals);
        let from = self.scan_from().max(if known { self.backlog.through + 1 } else { 0 });
        if !known {
            self.backlog.count = 0;
        }
        if known && from > last {
            return;
        }
        self.backlog.count += if from > last {
            0
        } else if last - from < LOOK_MAX {
            if self.filters.is_all() {
                (from..=last).filter(|seq| store.time_of(*seq).is_some()).count() as u64
            } else {
                let matches =
                    |seq: &u64| store.subject_of(*seq).is_some_and(|subject| self.filters.matches(subject));
                (from..=last).filter(matches).count() as u64
            }
        } else {
            let beyond =
                if store.state().last_seq > last { store.count_matching(&self.filters, last + 1) } else { 0 };
            store.count_matching(&self.filters, from).saturating_sub(beyond)
        };
        if !known && let Some(last_messages) = &self.last_messages {
            self.backlog.count += last_messages.seqs.len() as u64;
        }
        self.backlog.through = last.max(self.scan_from() - 1);
        self.backlog.removals = Some(removals);
    }

    /// A message was removed from the stream. Only for consumers whose numbers were right before it.
    pub(super) fn adjust_backlog(&mut self, seq: u64, subject: &[u8], removals: u64) {
        if self.backlog.removals != Some(removals - 1) {
            return;
        }
        self.backlog.removals = Some(removals);
        let listed = self.last_messages.as_mut().and_then(|last_messages| {
            let at = last_messages.seqs.binary_search(&seq).ok()?;
            last_messages.seqs.remove(at)
        });
        let counted = seq >= self.scan_from() && seq <= self.backlog.through && self.filters.matches(subject);
        if listed.is_some() || counted {
            self.backlog.count = self.backlog.count.saturating_sub(1);
        }
    }

    /// The number of undelivered messages is not known any more.
    pub(super) fn forget_backlog(&mut self) {
        self.backlog.removals = None;
    }

    /// Writes what is told of it, as members of an object that is open.
    pub(super) fn write_info<O: Outlet>(
        &mut self,
        object: &mut Object<'_>,
        dynamic: bool,
        turn: &mut Turn<'_, O>,
    ) {
        let version = dynamic.then_some(turn.site.version);
        self.write_head(object);
        self.config.write(object.member("config"), version);
        self.write_state(object, turn);
    }

    /// The same without its configuration, which monitoring shows only if it is asked to.
    pub(super) fn write_info_without_config<O: Outlet>(
        &mut self,
        object: &mut Object<'_>,
        turn: &mut Turn<'_, O>,
    ) {
        self.write_head(object);
        self.write_state(object, turn);
    }

    fn write_head(&self, object: &mut Object<'_>) {
        object.string("stream_name", &self.stream);
        object.string("name", &self.name);
        object.time("created", self.created_ns);
    }

    fn write_state<O: Outlet>(&mut self, object: &mut Object<'_>, turn: &mut Turn<'_, O>) {
        self.look_through_waiting(false, true, turn);
        self.refresh_backlog(turn.store, turn.removals);
        let pair = |out: &mut Vec<u8>, pair: SequencePair, active_ns: Option<i64>| {
            let mut object = Object::begin(out);
            object.uint("consumer_seq", pair.consumer);
            object.uint("stream_seq", pair.stream);
            if let Some(active_ns) = active_ns {
                object.time("last_active", active_ns);
            }
            object.end();
        };
        pair(object.member("delivered"), self.state.delivered, self.last_delivered_ns);
        pair(object.member("ack_floor"), self.state.ack_floor, self.last_acked_ns);
        object.uint("num_ack_pending", self.state.pending.len() as u64);
        object.uint("num_redelivered", self.redelivered_count());
        object.uint("num_waiting", self.waiting.len() as u64);
        object.uint("num_pending", self.backlog.count);
        object.bool_if_set("push_bound", self.is_bound());
        if self.config.is_paused(turn.now_ns)
            && let Some(until) = self.config.pause_until
        {
            object.bool("paused", true);
            object.int("pause_remaining", until.ns - turn.now_ns);
        }
        object.time("ts", turn.now_ns);
        if let Some(group) = self.config.priority_groups.first() {
            let (id, since_ns) =
                self.pin.as_ref().map_or(("", super::super::time::ZERO), |pin| (&pin.id, pin.since_ns));
            write_array(object.member("priority_groups"), &[group], |out, group| {
                let mut object = Object::begin(out);
                object.string("group", group);
                object.string_unless_empty("pinned_client_id", id);
                object.time("pinned_ts", since_ns);
                object.end();
            });
        }
    }

    /// How many messages were delivered more than once and are not handled.
    pub(super) fn redelivered_count(&self) -> u64 {
        // With a single delivery nothing is delivered again; the state notes what was given up all the same.
        if self.config.max_deliver.0 == 1 { 0 } else { self.state.redelivered() as u64 }
    }

    /// Publishes an event about it.
    pub(super) fn tell<O: Outlet>(&self, event: Event<'_>, turn: &mut Turn<'_, O>) {
        advisory::publish(turn, &self.stream, &self.name, event);
    }

    /// Whether the message still matters to it: it may deliver it, or waits for its acknowledgement.
    pub(super) fn wants(&self, seq: u64, subject: &[u8]) -> bool {
        if !self.filters.matches(subject) {
            return false;
        }
        let floor = self.state.ack_floor.stream;
        let unhandled = match self.config.ack_policy {
            AckPolicy::Explicit => {
                seq > floor && (seq > self.state.delivered.stream || self.state.pending.get(seq).is_some())
            }
            AckPolicy::None | AckPolicy::All | AckPolicy::FlowControl => seq > floor,
        };
        unhandled || self.state.exceeded.contains_key(&seq)
    }

    /// Goes back or forward to a sequence, as if it were new.
    ///
    /// # Errors
    ///
    /// Its deliver policy does not allow that sequence.
    pub(super) fn reset<O: Outlet>(&mut self, seq: u64, turn: &mut Turn<'_, O>) -> Result<u64, &'static str> {
        let next = match self.config.deliver_policy {
            _ if seq == 0 => self.state.ack_floor.stream + 1,
            DeliverPolicy::All => seq,
            DeliverPolicy::ByStartSequence if seq < self.config.opt_start_seq => {
                return Err("below start seq");
            }
            DeliverPolicy::ByStartSequence => seq,
            DeliverPolicy::ByStartTime => {
                let from = self.config.opt_start_time.map_or(0, |at| at.ns);
                if seq < first_at_or_after(turn.store, from) {
                    return Err("below start time");
                }
                seq
            }
            _ => return Err("not allowed"),
        };
        self.change(StateChange::Restarted { next });
        self.next_seq = next;
        self.last_messages = None;
        self.redeliver.clear();
        self.fetched.clear();
        self.overdue_ns = NEVER;
        self.last_delivered_ns = None;
        self.last_acked_ns = None;
        self.forget_backlog();
        Ok(next)
    }
}

/// Where a new consumer begins, and with the last message of each subject: which they are.
pub(super) fn start(
    config: &ConsumerConfig,
    stream: &StreamFacts,
    store: &Store,
) -> (u64, Option<LastMessages>) {
    let state = store.state();
    let committed = store.committed_seq();
    let filters = Filters::new(config.filters().map(str::as_bytes));
    let mut last_messages = None;
    let next = match config.deliver_policy {
        DeliverPolicy::All => state.first_seq,
        DeliverPolicy::New => committed + 1,
        DeliverPolicy::ByStartSequence => config.opt_start_seq,
        DeliverPolicy::ByStartTime => {
            first_at_or_after(store, config.opt_start_time.map_or(0, |at| at.ns)).min(committed + 1)
        }
        DeliverPolicy::Last if filters.is_all() => committed,
        DeliverPolicy::Last => {
            filters.patterns().filter_map(|filter| store.last_matching(filter)).max().unwrap_or(0)
        }
        DeliverPolicy::LastPerSubject if stream.max_msgs_per_subject == 1 => state.first_seq,
        DeliverPolicy::LastPerSubject => {
            let seqs = last_of_each(&filters, store);
            let first = seqs.first().copied();
            last_messages = first.map(|_| LastMessages { seqs: seqs.into(), resume: committed + 1 });
            first.unwrap_or(committed)
        }
    };
    let by_sequence = config.deliver_policy == DeliverPolicy::ByStartSequence;
    let next = if state.first_seq == 0 && !by_sequence {
        1
    } else if next > state.last_seq && !by_sequence {
        state.last_seq + 1
    } else {
        next.max(state.first_seq)
    };
    (next.max(1), last_messages)
}

fn first_at_or_after(store: &Store, time_ns: i64) -> u64 {
    store.seq_at_or_after(time_ns).unwrap_or_else(|| store.state().last_seq + 1)
}

fn last_of_each(filters: &Filters, store: &Store) -> Vec<u64> {
    let mut seqs = Vec::new();
    for filter in filters.patterns().chain(filters.is_all().then_some(&b">"[..])) {
        seqs.extend(
            store.subjects_matching(filter, None, usize::MAX).iter().map(|(_, subject)| subject.last_seq),
        );
    }
    seqs.sort_unstable();
    seqs.dedup();
    seqs
}

/// Whether a stream with this retention removes what consumers have handled.
pub(super) fn removes_settled(retention: Retention) -> bool {
    retention != Retention::Limits
}

impl Consumer {
    /// Whether requests have to name a priority group.
    pub(super) fn has_priorities(&self) -> bool {
        self.config.priority_policy != PriorityPolicy::None
    }
}
