//! Delivering: which message is next, who gets it, when nothing more can be done.
//!
//! [`Consumer::run`] delivers until there is nothing to deliver, nobody to deliver to, or the budget of the turn is spent,
//! then looks through the requests that wait. Messages that have to be delivered again come first, in the order in which
//! that became known. A message counts as delivered when the outlet says that somebody was there; otherwise the request
//! is dropped and the next one gets the message.
//!
//! Budget: deliver and acknowledge together 200 ns for 128 bytes. There is no bench of it yet.

use crate::store::{Read, ReadPlan, StoredMessage};

use super::super::time::duration_text;
use super::acks::GONE_REASON;
use super::advisory::Event;
use super::config::{AckPolicy, PriorityPolicy};
use super::core::{Consumer, NEVER, Pin};
use super::request::{self, PullOptions};
use super::state::StateChange;
use super::turn::{Delivery, Outlet, Turn, write_decimal, write_int};
use super::waiting::{GroupOptions, Request};

const MILLISECOND: i64 = 1_000_000;
const SECOND: i64 = 1_000 * MILLISECOND;
/// How much is read ahead from disk for one consumer.
const READ_AHEAD_BYTES: u32 = 256 * 1024;
/// How many messages that somebody else may read are looked at one by one before the index is asked.
const STEP_MAX: u64 = 64;

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Nothing more to do until something happens.
    Idle,
    /// The budget is spent: run again.
    More,
    /// A message has to be read from disk: give what was read to `Consumers::fetched`.
    Reading(ReadPlan),
}

/// What is next.
enum Next {
    Message {
        seq: u64,
        deliveries: u32,
    },
    Nothing,
    /// Too many are unacknowledged.
    Stalled,
}

/// Whether a message may go to the request that is first.
enum Choice {
    Serve,
    Nobody,
}

impl Consumer {
    /// A client asks for messages. What it gets follows in [`Consumer::run`].
    pub(super) fn pull<O: Outlet>(&mut self, body: &[u8], reply: &[u8], turn: &mut Turn<'_, O>) {
        if reply.is_empty() {
            return;
        }
        if let Err(status) = self.accept(body, reply, turn) {
            turn.status(reply, &status, None);
        }
    }

    fn accept<O: Outlet>(&mut self, body: &[u8], reply: &[u8], turn: &mut Turn<'_, O>) -> Result<(), String> {
        let now = turn.now_ns;
        if self.config.is_push() {
            return Err("409 Consumer is push based".to_owned());
        }
        let options = request::read_pull(body).map_err(|text| format!("400 Bad Request - {text}"))?;
        self.check_request_limits(&options)?;
        let group = options.group();
        self.check_group(group.as_ref(), now)?;
        let waiting_max = usize::try_from(self.config.max_waiting.0).unwrap_or(usize::MAX);
        if self.waiting.len() >= waiting_max && now - self.looked_ns > SECOND {
            self.look_through_waiting(false, true, turn);
        }
        let expires = options.expires.0;
        if options.no_wait {
            self.refresh_backlog(turn.store, turn.removals);
            let available = self.backlog.count + self.redeliver_count();
            if available == 0 && expires == 0 {
                self.active_ns = now;
                return Err("404 No Messages".to_owned());
            }
            if available > 0 {
                self.look_through_waiting(false, true, turn);
                if available < self.waiting.batch_total() {
                    self.active_ns = now;
                    return Err("408 Requests Pending".to_owned());
                }
            }
        }
        if self.waiting.len() >= waiting_max {
            // A client that listens for heartbeats would ask again at once; it finds out by their absence.
            return if options.idle_heartbeat.0 > 0 {
                Ok(())
            } else {
                Err("409 Exceeded MaxWaiting".to_owned())
            };
        }
        let heartbeat = options.idle_heartbeat.0.max(0);
        let request = Request {
            reply: reply.into(),
            batch: options.batch.0,
            delivered: 0,
            bytes: options.max_bytes.0,
            expires_ns: (expires != 0).then(|| now.saturating_add(expires)),
            received_ns: now,
            heartbeat_ns: heartbeat,
            heartbeat_at_ns: (heartbeat > 0).then(|| now.saturating_add(heartbeat)),
            no_wait: options.no_wait,
            group: group.filter(|group| *group != GroupOptions::default()).map(Box::new),
        };
        self.waiting_ns = self.waiting_ns.min(request.deadline_ns().unwrap_or(NEVER));
        self.waiting.add(request, self.config.priority_policy);
        self.active_ns = now;
        Ok(())
    }

    fn check_request_limits(&self, options: &PullOptions) -> Result<(), String> {
        let config = &self.config;
        if config.max_batch.0 > 0 && options.batch.0 > config.max_batch.0 {
            return Err(format!("409 Exceeded MaxRequestBatch of {}", config.max_batch.0));
        }
        if config.max_expires.0 > 0 && options.expires.0 > config.max_expires.0 {
            return Err(format!("409 Exceeded MaxRequestExpires of {}", duration_text(config.max_expires.0)));
        }
        if config.max_bytes.0 > 0 && options.max_bytes.0 > config.max_bytes.0 {
            return Err(format!("409 Exceeded MaxRequestMaxBytes of {}", config.max_bytes.0));
        }
        Ok(())
    }

    fn check_group(&mut self, group: Option<&GroupOptions>, now_ns: i64) -> Result<(), String> {
        let Some(group) = group else { return Ok(()) };
        let policy = self.config.priority_policy;
        let thresholds = group.min_pending != 0 || group.min_ack_pending != 0;
        if thresholds && policy != PriorityPolicy::Overflow {
            return Err("400 Bad Request - Not a Overflow Priority consumer".to_owned());
        }
        if !group.id.is_empty() && policy != PriorityPolicy::PinnedClient {
            return Err("400 Bad Request - Not a Pinned Client Priority consumer".to_owned());
        }
        if !(0..=9).contains(&group.priority) {
            return Err("400 Bad Request - Priority must be between 0 and 9".to_owned());
        }
        if !self.has_priorities() {
            return Ok(());
        }
        if group.group.is_empty() {
            return Err("400 Bad Request - Priority Group missing".to_owned());
        }
        if !self.config.priority_groups.contains(&group.group) {
            return Err("400 Bad Request - Invalid Priority Group".to_owned());
        }
        let timeout = self.config.priority_timeout.0;
        if let Some(pin) = &mut self.pin {
            if pin.id == group.id {
                pin.ends_ns = now_ns.saturating_add(timeout);
            } else if !group.id.is_empty() {
                return Err("423 Nats-Pin-Id mismatch".to_owned());
            }
        }
        Ok(())
    }

    /// How many messages wait in the redelivery queue.
    fn redeliver_count(&self) -> u64 {
        let is_queued = |seq: &&u64| self.state.pending.get(**seq).is_some_and(|entry| entry.queued);
        self.redeliver.iter().filter(is_queued).count() as u64
    }

    /// Delivers what can be delivered, at most `budget` messages.
    pub(super) fn run<O: Outlet>(&mut self, budget: usize, turn: &mut Turn<'_, O>) -> Progress {
        self.check_overdue(turn);
        let (progress, stalled) = self.deliver(budget, turn);
        if self.replay.as_ref().is_some_and(|replay| self.next_seq > replay.last_seq) {
            self.replay = None;
        }
        if self.push.is_none() {
            // One-shot requests do not end because others have not acknowledged, until some request wants to hear
            // something; nor while the disk is asked.
            let waits = stalled && turn.now_ns < self.waiting_ns;
            let at_end = progress == Progress::Idle && !waits && self.held_until_ns <= turn.now_ns;
            self.look_through_waiting(at_end, false, turn);
        }
        progress
    }

    fn deliver<O: Outlet>(&mut self, budget: usize, turn: &mut Turn<'_, O>) -> (Progress, bool) {
        if self.config.is_paused(turn.now_ns) {
            return (Progress::Idle, false);
        }
        self.held_until_ns = i64::MIN;
        let mut left = budget;
        let mut refreshed = false;
        loop {
            let able = match &self.push {
                Some(push) => push.active && !push.flow.as_ref().is_some_and(|flow| flow.is_stalled()),
                None => !self.waiting.is_empty(),
            };
            if !able {
                return (Progress::Idle, false);
            }
            if left == 0 {
                return (Progress::More, false);
            }
            if !refreshed {
                self.refresh_backlog(turn.store, turn.removals);
                refreshed = true;
            }
            let (seq, deliveries) = match self.next(turn) {
                Next::Message { seq, deliveries } => (seq, deliveries),
                Next::Nothing => return (Progress::Idle, false),
                Next::Stalled => return (Progress::Idle, true),
            };
            let message = match self.read(seq, turn) {
                Read::Found(message) => message,
                Read::OnDisk(_) if std::mem::take(&mut self.read_failed) => {
                    self.held_until_ns = turn.now_ns.saturating_add(SECOND);
                    return (Progress::Idle, false);
                }
                Read::OnDisk(plan) => {
                    let last = turn.store.committed_seq();
                    let plan = turn.store.read_ahead(seq, last, READ_AHEAD_BYTES).unwrap_or(plan);
                    return (Progress::Reading(plan), false);
                }
                Read::Missing => {
                    self.skip_missing(seq, deliveries, turn);
                    continue;
                }
            };
            if !self.deliver_one(&message, deliveries, turn) {
                return (Progress::Idle, false);
            }
            left -= 1;
        }
    }

    /// The next message, which stays next until it is delivered.
    fn next<O: Outlet>(&mut self, turn: &mut Turn<'_, O>) -> Next {
        while let Some(seq) = self.redeliver.front().copied() {
            match self.state.pending.get(seq) {
                Some(entry) if entry.queued => {
                    let deliveries = entry.deliveries + 1;
                    let limit = self.config.max_deliver.0;
                    if limit <= 0 || i64::from(deliveries) <= limit {
                        return Next::Message { seq, deliveries };
                    }
                    self.redeliver.pop_front();
                    self.give_up(seq, deliveries - 1, turn);
                }
                _ => _ = self.redeliver.pop_front(),
            }
        }
        let pending_max = self.config.max_ack_pending.0;
        if pending_max > 0 && self.state.pending.len() as i64 >= pending_max {
            return Next::Stalled;
        }
        if let Some(last_messages) = &self.last_messages {
            if let Some(seq) = last_messages.seqs.front() {
                return Next::Message { seq: *seq, deliveries: 1 };
            }
            self.next_seq = last_messages.resume;
            self.last_messages = None;
        }
        let last = turn.store.committed_seq();
        if self.next_seq > last {
            return Next::Nothing;
        }
        // Beside the front of the stream looking costs less than asking the index.
        let step_end = last.min(self.next_seq + STEP_MAX);
        if self.filters.is_all() {
            // Whether it is there is found out by reading it.
            return Next::Message { seq: self.next_seq, deliveries: 1 };
        } else if step_end == last {
            let matches =
                |seq: &u64| turn.store.subject_of(*seq).is_some_and(|subject| self.filters.matches(subject));
            return match (self.next_seq..=last).find(matches) {
                Some(seq) => Next::Message { seq, deliveries: 1 },
                None => {
                    self.next_seq = last + 1;
                    Next::Nothing
                }
            };
        }
        match turn.store.next_matching(&self.filters, self.next_seq) {
            Some(seq) if seq <= last => Next::Message { seq, deliveries: 1 },
            _ => {
                self.next_seq = last + 1;
                Next::Nothing
            }
        }
    }

    fn read<O: Outlet>(&mut self, seq: u64, turn: &mut Turn<'_, O>) -> Read {
        while let Some(first) = self.fetched.front() {
            if first.seq == seq {
                // It may have been removed since it was read.
                return if turn.store.time_of(seq).is_some() {
                    Read::Found(first.clone())
                } else {
                    Read::Missing
                };
            }
            if first.seq > seq {
                break;
            }
            self.fetched.pop_front();
        }
        turn.store.read(seq)
    }

    /// The message that was next is not there any more.
    fn skip_missing<O: Outlet>(&mut self, seq: u64, deliveries: u32, turn: &mut Turn<'_, O>) {
        if deliveries > 1 {
            self.terminate_gone(seq, GONE_REASON, turn);
        } else {
            self.passed_by(seq);
            if self.filters.is_all() && self.last_messages.is_none() {
                let last = turn.store.committed_seq();
                self.next_seq =
                    turn.store.next(self.next_seq).unwrap_or(u64::MAX).min(last + 1).max(self.next_seq);
            }
        }
    }

    /// Messages up to here are behind.
    fn passed_by(&mut self, seq: u64) {
        self.next_seq = seq + 1;
        if let Some(last_messages) = &mut self.last_messages {
            if last_messages.seqs.front() == Some(&seq) {
                last_messages.seqs.pop_front();
            }
            if last_messages.seqs.is_empty() {
                self.next_seq = last_messages.resume;
                self.last_messages = None;
            }
        }
    }

    /// A message was delivered as often as it may be.
    pub(super) fn give_up<O: Outlet>(&mut self, seq: u64, deliveries: u32, turn: &mut Turn<'_, O>) {
        self.tell(Event::MaxDeliveries { stream_seq: seq, deliveries: deliveries.into() }, turn);
        self.change(StateChange::Exceeded { stream_seq: seq, deliveries });
    }

    /// Delivers the message that is next. `false`: nobody takes it now.
    fn deliver_one<O: Outlet>(
        &mut self,
        message: &StoredMessage,
        deliveries: u32,
        turn: &mut Turn<'_, O>,
    ) -> bool {
        let now = turn.now_ns;
        let first_time = deliveries == 1;
        let backlog = self.backlog.count.saturating_sub(u64::from(first_time));
        let consumer_seq = self.state.delivered.consumer + 1;
        write_ack_subject(
            &mut turn.scratch.reply,
            &self.ack_prefix,
            [deliveries.into(), message.seq, consumer_seq],
            message.time_ns,
            backlog,
        );
        let header_len = if self.config.headers_only {
            write_headers_only(&mut turn.scratch.header, message);
            turn.scratch.header.len()
        } else {
            message.header().len()
        };
        let payload = if self.config.headers_only { &[][..] } else { message.payload() };
        let size = message.subject().len() + turn.scratch.reply.len() + header_len + payload.len();
        if self.is_held(message.time_ns, now) {
            return false;
        }
        loop {
            if self.push.is_none() && matches!(self.choose(size as i64, turn), Choice::Nobody) {
                return false;
            }
            let mut own_header = self.config.headers_only;
            if let Some(pin) =
                self.pin.as_ref().filter(|_| self.config.priority_policy == PriorityPolicy::PinnedClient)
            {
                if !own_header {
                    turn.scratch.header.clear();
                    turn.scratch.header.extend_from_slice(message.header());
                    own_header = true;
                }
                add_header(&mut turn.scratch.header, b"Nats-Pin-Id", pin.id.as_bytes());
            }
            let to: &[u8] = match self.waiting.first() {
                Some(request) if self.push.is_none() => &request.reply,
                _ => self.config.deliver_subject.as_bytes(),
            };
            let header = if own_header { &turn.scratch.header[..] } else { message.header() };
            let delivery =
                Delivery { to, subject: message.subject(), reply: &turn.scratch.reply, header, payload };
            if turn.outlet.deliver(&delivery) {
                let bytes = to.len() + turn.scratch.reply.len() + header.len() + payload.len();
                let sizes = (size as i64, bytes as i64);
                self.delivered(message, deliveries, consumer_seq, sizes, turn);
                return true;
            }
            if self.push.is_some() {
                self.listener_gone(turn.now_ns);
                return false;
            }
            self.waiting.remove_first();
            if self.config.headers_only {
                write_headers_only(&mut turn.scratch.header, message);
            }
        }
    }

    /// Whether a replay or a rate limit says not yet.
    fn is_held(&mut self, stored_ns: i64, now_ns: i64) -> bool {
        let mut until = now_ns;
        if let Some((before_stored, before_delivered)) = self.replay.as_ref().and_then(|replay| replay.before)
        {
            let pause = stored_ns - before_stored;
            if pause > MILLISECOND {
                until = until.max(before_delivered.saturating_add(pause));
            }
        }
        if let Some(rate) = self.push.as_mut().and_then(|push| push.rate.as_mut()) {
            until = until.max(rate.next_ns(now_ns));
        }
        self.held_until_ns = if until > now_ns { until } else { i64::MIN };
        until > now_ns
    }

    /// Makes a request the first in the queue that may get a message of this size.
    fn choose<O: Outlet>(&mut self, size: i64, turn: &mut Turn<'_, O>) -> Choice {
        let now = turn.now_ns;
        let policy = self.config.priority_policy;
        let mut cycled = 0;
        while let Some(request) = self.waiting.first_mut() {
            let pending = Some((request.batch, request.bytes));
            if request.expires_ns.is_some_and(|expires| now >= expires) {
                self.end_first("408 Request Timeout", pending, turn);
                continue;
            }
            let mut just_pinned = false;
            if policy == PriorityPolicy::PinnedClient {
                let id = request.group.as_ref().map_or("", |group| group.id.as_str());
                match &self.pin {
                    Some(pin) if pin.id == id => {}
                    Some(_) if id.is_empty() => {
                        self.waiting.cycle();
                        cycled += 1;
                        if cycled >= self.waiting.len() {
                            return Choice::Nobody;
                        }
                        continue;
                    }
                    None if id.is_empty() => {
                        self.pin_first(turn);
                        just_pinned = true;
                    }
                    _ => {
                        self.end_first("423 Nats-Wrong-Pin-Id", pending, turn);
                        continue;
                    }
                }
            }
            let Some(request) = self.waiting.first_mut() else { break };
            if policy == PriorityPolicy::Overflow
                && let Some(group) = &request.group
                && (group.min_pending > 0 || group.min_ack_pending > 0)
            {
                let backlog = i64::try_from(self.backlog.count).unwrap_or(i64::MAX);
                let unacknowledged = self.state.pending.len() as i64;
                let exceeded = (group.min_pending > 0 && group.min_pending <= backlog)
                    || (group.min_ack_pending > 0 && group.min_ack_pending <= unacknowledged);
                if !exceeded {
                    self.waiting.cycle();
                    cycled += 1;
                    if cycled >= self.waiting.len() {
                        return Choice::Nobody;
                    }
                    continue;
                }
            }
            if request.bytes > 0 && size > request.bytes {
                if just_pinned {
                    self.pin = None;
                }
                self.end_first("409 Message Size Exceeds MaxBytes", pending, turn);
                continue;
            }
            return Choice::Serve;
        }
        Choice::Nobody
    }

    /// Ends the first request with a status.
    fn end_first<O: Outlet>(&mut self, status: &str, pending: Option<(i64, i64)>, turn: &mut Turn<'_, O>) {
        if let Some(request) = self.waiting.remove_first() {
            turn.status(&request.reply, status, pending);
        }
    }

    /// The client of the first request is the one from now on.
    fn pin_first<O: Outlet>(&mut self, turn: &mut Turn<'_, O>) {
        let timeout = self.config.priority_timeout.0;
        let id = turn.id();
        let Some(group) = self.waiting.first_mut().and_then(|request| request.group.as_mut()) else {
            return;
        };
        group.id.clone_from(&id);
        let group = group.group.clone();
        self.tell(Event::Pinned { group: &group, id: &id }, turn);
        let ends_ns = turn.now_ns.saturating_add(timeout);
        self.pin = Some(Box::new(Pin { id, since_ns: turn.now_ns, group, ends_ns }));
    }

    /// Nobody is pinned from now on.
    pub(super) fn unpin<O: Outlet>(&mut self, group: &str, reason: &str, turn: &mut Turn<'_, O>) {
        self.pin = None;
        self.tell(Event::Unpinned { group, reason }, turn);
    }

    /// Somebody got the message. `size`: as the client can count it, with the subject that it sees; and as it was
    /// routed, with the subject that it was delivered to.
    fn delivered<O: Outlet>(
        &mut self,
        message: &StoredMessage,
        deliveries: u32,
        consumer_seq: u64,
        (size, routed_size): (i64, i64),
        turn: &mut Turn<'_, O>,
    ) {
        let now = turn.now_ns;
        let stream_seq = message.seq;
        let untracked = self.config.ack_policy == AckPolicy::None;
        turn.effects.deliveries += 1;
        if deliveries > 1 {
            self.redeliveries += 1;
            self.redeliver.pop_front();
            self.change(StateChange::Redelivered { consumer_seq, stream_seq, deliveries, at_ns: now });
        } else {
            self.backlog.count = self.backlog.count.saturating_sub(1);
            self.passed_by(stream_seq);
            self.change(if untracked {
                StateChange::Passed { consumer_seq, stream_seq }
            } else {
                StateChange::Delivered { consumer_seq, stream_seq, at_ns: now }
            });
        }
        if !untracked {
            self.overdue_ns = self.overdue_ns.min(now.saturating_add(self.wait_of(deliveries)));
        }
        if self.fetched.front().is_some_and(|first| first.seq == stream_seq) {
            self.fetched.pop_front();
        }
        if let Some(replay) = &mut self.replay {
            replay.before = Some((message.time_ns, now));
        }
        self.last_delivered_ns = Some(now);
        if untracked && turn.removes_settled {
            turn.effects.settled.push(stream_seq);
        }
        if self.push.is_some() {
            self.pushed(size, routed_size, turn);
        } else {
            self.active_ns = now;
            self.served(size, turn);
        }
    }

    /// The first request got a message.
    fn served<O: Outlet>(&mut self, size: i64, turn: &mut Turn<'_, O>) {
        let Some(request) = self.waiting.first_mut() else { return };
        if request.bytes > 0 {
            request.bytes -= size;
            if request.bytes == 0 {
                request.batch = 1;
            }
        }
        if request.heartbeat_ns > 0 {
            request.heartbeat_at_ns = Some(turn.now_ns.saturating_add(request.heartbeat_ns));
        }
        if let Some(done) = self.waiting.served_first(self.config.priority_policy)
            && done.bytes > 0
        {
            turn.status(&done.reply, "409 Batch Completed", Some((done.batch, done.bytes)));
        }
    }

    /// The subscriber of a push consumer got a message.
    fn pushed<O: Outlet>(&mut self, size: i64, routed_size: i64, turn: &mut Turn<'_, O>) {
        let heartbeat = self.heartbeat_after(turn.now_ns);
        let pending_max = self.config.max_ack_pending.0;
        let is_full = self.config.ack_policy == AckPolicy::FlowControl
            && pending_max > 0
            && self.state.pending.len() as i64 >= pending_max;
        let Some(push) = &mut self.push else { return };
        push.heartbeat_at_ns = heartbeat;
        if let Some(rate) = &mut push.rate {
            rate.take(size);
        }
        if push.flow.as_mut().is_some_and(|flow| flow.delivered(routed_size, is_full)) {
            self.ask_flow(turn);
        }
    }

    /// Asks the client whether it keeps up.
    pub(super) fn ask_flow<O: Outlet>(&mut self, turn: &mut Turn<'_, O>) {
        let Some(flow) = self.push.as_mut().and_then(|push| push.flow.as_mut()) else { return };
        let letters: String = std::iter::repeat_with(|| turn.random.alphanumeric()).take(4).collect();
        let subject = format!("$JS.FC.{}{}.{}.{letters}", turn.site.ack_infix, self.stream, self.name);
        flow.ask(subject.as_bytes());
        let header = b"NATS/1.0 100 FlowControl Request\r\n\r\n";
        turn.outlet.publish(self.config.deliver_subject.as_bytes(), subject.as_bytes(), header, b"");
    }

    /// Ends requests that are over, and tells those that want to hear something. `at_end`: there is nothing to deliver.
    /// Requests whose client has gone are found by `ask_interest`, and otherwise once a second.
    pub(super) fn look_through_waiting<O: Outlet>(
        &mut self,
        at_end: bool,
        ask_interest: bool,
        turn: &mut Turn<'_, O>,
    ) {
        if self.waiting.is_empty() {
            self.waiting_ns = NEVER;
            return;
        }
        let now = turn.now_ns;
        let ask_interest = ask_interest || now - self.looked_ns >= SECOND;
        if !ask_interest && now < self.waiting_ns && !(at_end && self.waiting.has_one_shots()) {
            return;
        }
        if ask_interest {
            self.looked_ns = now;
        }
        let (last_consumer, last_stream) = (self.state.delivered.consumer, self.next_seq - 1);
        let mut next_ns = NEVER;
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.retain(|request| {
            let pending = Some((request.batch, request.bytes));
            if request.expires_ns.is_some_and(|expires| now >= expires) {
                turn.status(&request.reply, "408 Request Timeout", pending);
                return false;
            }
            if at_end && request.no_wait && (request.expires_ns.is_none() || request.delivered > 0) {
                turn.status(&request.reply, "404 No Messages", None);
                return false;
            }
            if ask_interest && !turn.outlet.has_interest(&request.reply, b"") {
                return false;
            }
            if request.heartbeat_at_ns.is_some_and(|at| now >= at) {
                write_heartbeat(&mut turn.scratch.text, last_consumer, last_stream, None);
                turn.outlet.publish(&request.reply, b"", &turn.scratch.text, b"");
                request.heartbeat_at_ns = Some(now.saturating_add(request.heartbeat_ns));
            }
            next_ns = next_ns.min(request.deadline_ns().unwrap_or(NEVER));
            true
        });
        self.waiting = waiting;
        self.waiting_ns = next_ns;
    }

    /// Sends the heartbeat of a push consumer.
    pub(super) fn push_heartbeat<O: Outlet>(&mut self, turn: &mut Turn<'_, O>) {
        let next = self.heartbeat_after(turn.now_ns);
        let (last_consumer, last_stream) = (self.state.delivered.consumer, self.next_seq - 1);
        let Some(push) = &mut self.push else { return };
        push.heartbeat_at_ns = next;
        if !push.active {
            return;
        }
        let asked = push.flow.as_ref().and_then(|flow| flow.asked());
        write_heartbeat(&mut turn.scratch.text, last_consumer, last_stream, asked);
        let unasked = asked.is_none();
        turn.outlet.publish(self.config.deliver_subject.as_bytes(), b"", &turn.scratch.text, b"");
        if self.config.ack_policy == AckPolicy::FlowControl && unasked && !self.state.pending.is_empty() {
            self.ask_flow(turn);
        }
    }

    /// Nobody listens to a push consumer any more.
    pub(super) fn listener_gone(&mut self, now_ns: i64) {
        if let Some(push) = &mut self.push
            && push.active
        {
            push.active = false;
            push.inactive_since_ns = now_ns;
        }
    }

    /// Ends all requests.
    pub(super) fn end_waiting<O: Outlet>(
        &mut self,
        status: &str,
        with_pending: bool,
        turn: &mut Turn<'_, O>,
    ) {
        let mut waiting = std::mem::take(&mut self.waiting);
        for request in waiting.drain() {
            let pending = with_pending.then_some((request.batch, request.bytes));
            turn.status(&request.reply, status, pending);
        }
    }
}

/// `<prefix><deliveries>.<stream seq>.<consumer seq>.<time>.<backlog>`
fn write_ack_subject(out: &mut Vec<u8>, prefix: &[u8], numbers: [u64; 3], stored_ns: i64, backlog: u64) {
    out.clear();
    out.extend_from_slice(prefix);
    for number in numbers {
        write_decimal(out, number);
        out.push(b'.');
    }
    write_int(out, stored_ns);
    out.push(b'.');
    write_decimal(out, backlog);
}

fn write_headers_only(out: &mut Vec<u8>, message: &StoredMessage) {
    out.clear();
    match message.header().strip_suffix(b"\r\n") {
        Some(header) => out.extend_from_slice(header),
        None => out.extend_from_slice(b"NATS/1.0\r\n"),
    }
    out.extend_from_slice(b"Nats-Msg-Size: ");
    write_decimal(out, message.payload().len() as u64);
    out.extend_from_slice(b"\r\n\r\n");
}

fn add_header(header: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    if header.ends_with(b"\r\n\r\n") {
        header.truncate(header.len() - 2);
    } else {
        header.clear();
        header.extend_from_slice(b"NATS/1.0\r\n");
    }
    header.extend_from_slice(name);
    header.extend_from_slice(b": ");
    header.extend_from_slice(value);
    header.extend_from_slice(b"\r\n\r\n");
}

fn write_heartbeat(out: &mut Vec<u8>, last_consumer: u64, last_stream: u64, stalled: Option<&[u8]>) {
    out.clear();
    out.extend_from_slice(b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: ");
    write_decimal(out, last_consumer);
    out.extend_from_slice(b"\r\nNats-Last-Stream: ");
    write_decimal(out, last_stream);
    if let Some(subject) = stalled {
        out.extend_from_slice(b"\r\nNats-Consumer-Stalled: ");
        out.extend_from_slice(subject);
    }
    out.extend_from_slice(b"\r\n\r\n");
}
