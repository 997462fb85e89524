//! One message's way from its publisher to its receivers.
//!
//! Parsing has left subject, reply and content in the read buffer. The fan-out list comes from the cache; nobody
//! there means that nothing is built at all. Receivers of this worker get a control line of their own and a copy of
//! the content (or a reference to it, when it is large) appended to their output; receivers of another worker share
//! one record in the batch for it.
//!
//! Budget: 25 ns to find nobody, 60 ns for one receiver, measured by `benches/delivery.rs`.

use std::collections::HashSet;
use std::sync::Arc;

use super::batch::{Content, To};
use super::core::{Broker, Local, Outgoing};
use super::log_lines::Level;
use super::pace::PENDING_STALL_NUMERATOR;
use super::relocation::Relocations;
use super::responses::REPLY_PREFIX;
use super::services::{Origin, Reached};
use super::session::{CloseReason, Flags};
use crate::subject::fanout::{FanOut, Links, RemoteTargets, TargetList};
use crate::subject::import::ServiceImport;
use crate::subject::interest::{Group, InterestAccess, Matches, Target, WorkerId};
use crate::subject::name::is_valid_literal_subject;
use crate::wire::error_text::{ErrorText, quote};
use crate::wire::frame::Delivery;
use crate::wire::{Publish, Widths, header};

/// Bytes that one turn may queue for this worker's connections before the rest of the input waits for the next, so
/// that a message to thousands, thousands of times, is sent in between.
pub const TURN_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What a line of the protocol trace counts against `TURN_BYTES_MAX`, and each of its bytes: a turn writes some five
/// hundred ordinary ones, which takes it half a millisecond. With four times as many a turn took 2 ms, the first ones, which
/// fault in the memory of their lines, 3 ms, and a few 7 ms, by the worker's own doing.
pub(super) const TRACE_LINE_COST_BYTES: usize = 4096;
pub(super) const TRACE_BYTE_COST_BYTES: usize = 32;

/// What looking at one target counts against `TURN_BYTES_MAX`, whether anything is delivered to it or not.
pub(super) const TARGET_COST_BYTES: usize = 16;

/// Whether JetStream's API listens to a subject, whether it has an answer or not. What is asked of streams and consumers
/// directly is theirs to hear.
fn is_heard_by_the_api(subject: &[u8]) -> bool {
    subject
        .strip_prefix(b"$JS.API.")
        .is_some_and(|rest| !rest.starts_with(b"DIRECT.GET") && !rest.starts_with(b"CONSUMER.MSG.NEXT."))
}

/// Whether a publisher may go on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Continue,
    /// Not in this turn.
    Yield,
    Closed,
}

/// One message to be delivered on this worker.
pub(super) struct Outbound<'a> {
    pub subject: &'a [u8],
    pub reply: Option<&'a [u8]>,
    pub header_len: Option<usize>,
    pub content: Content<'a>,
    pub widths: Widths,
}

/// What became of one delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivered {
    Yes,
    /// Delivered, but the receiver has fallen behind.
    Congested,
    /// The subscription is gone or has got all it asked for.
    Gone,
}

impl<A: InterestAccess> Broker<A> {
    #[inline]
    pub(super) fn publish(&mut self, conn: u32, publish: &Publish<'_>) -> Flow {
        if self.local.trace {
            self.trace_publish(conn, publish);
        }
        self.publish_to::<false>(conn, publish)
    }

    /// Publishes what the mappings of the account have made of a message.
    #[inline(never)]
    fn publish_mapped(&mut self, conn: u32, publish: &Publish<'_>) -> Flow {
        let session = &self.local.sessions[conn as usize];
        let mut mapped = std::mem::take(&mut self.mapped);
        mapped.clear();
        let account = &session.user.account;
        let is_mapped = account.mappings.apply(publish.subject, &mut self.random, &mut mapped);
        if session.flags.pedantic && !is_valid_literal_subject(publish.subject) {
            // A warning only: the message is processed all the same.
            self.local.send_error(conn, &ErrorText::InvalidPublishSubject);
        }
        if self.local.trace {
            if is_mapped {
                let (from, to) = (String::from_utf8_lossy(publish.subject), String::from_utf8_lossy(&mapped));
                self.local.trace(conn, format_args!("<<- [MAPPING {from} -> {to}]"));
            }
            self.local.trace_content(conn, "<<-", publish.header_len, publish.payload.content());
        }
        let subject = if is_mapped { &mapped[..] } else { publish.subject };
        let flow = self.publish_to::<true>(conn, &publish.with_subject(subject));
        self.mapped = mapped;
        flow
    }

    /// Publishes a message. `MAPPED`: its subject has been looked at, and is what mappings made of it.
    #[inline(always)]
    fn publish_to<const MAPPED: bool>(&mut self, conn: u32, publish: &Publish<'_>) -> Flow {
        let session = &mut self.local.sessions[conn as usize];
        let mut flags = session.flags;
        let mut is_permitted_again = false;
        if !flags.publishes_freely {
            if !MAPPED && flags.maps && flags.connected {
                return self.publish_mapped(conn, publish);
            }
            let cache = &self.accounts[usize::from(session.account)].cache;
            is_permitted_again = cache.permits_again(publish.subject, session.memo, session.rules);
            if !is_permitted_again {
                if !flags.connected {
                    if !self.admit_without_connect(conn) {
                        return Flow::Closed;
                    }
                    if self.local.sessions[conn as usize].flags.maps {
                        return self.publish_mapped(conn, publish);
                    }
                }
                if !self.check_publish::<MAPPED>(conn, publish) {
                    return Flow::Continue;
                }
                // Its subject has been looked at.
                flags = Flags { pedantic: false, ..self.local.sessions[conn as usize].flags };
            }
        }
        if !MAPPED && flags.pedantic && !is_valid_literal_subject(publish.subject) {
            // A warning only: the message is processed all the same.
            self.local.send_error(conn, &ErrorText::InvalidPublishSubject);
        }
        let mut answers = false;
        if is_special(publish.subject, publish.reply) {
            if is_reserved(publish.subject, publish.reply) {
                self.refuse_reserved(conn, publish);
                return Flow::Continue;
            }
            answers = publish.subject.starts_with(REPLY_PREFIX);
        }
        if flags.verbose {
            self.local.write_ok_if_verbose(conn);
        }
        let session = &mut self.local.sessions[conn as usize];
        let account = &mut self.accounts[usize::from(session.account)];
        let mut memo = session.memo;
        let fanout = if is_permitted_again {
            account.cache.find_again(publish.subject, &mut memo, &account.interest)
        } else {
            account.cache.find(publish.subject, &mut memo, &account.interest)
        };
        session.memo = memo;
        if fanout.is_empty() && !answers {
            if flags.no_responders && publish.reply.is_some() {
                self.answer_no_responders(conn, publish.subject, publish.reply.unwrap_or_default());
            }
            return self.flow();
        }
        // A lone receiver at another worker may be gone when the message gets there; then the request must fail
        // after all.
        let wants_to_know = flags.no_responders && publish.reply.is_some();
        let (account, cid) = (session.account, session.cid);
        let requester = (wants_to_know && is_lone(fanout)).then_some((conn, cid));
        let mut sending = Sending {
            worker: self.worker,
            account,
            local: &mut self.local,
            outgoing: &mut self.outgoing,
            crowded: &mut self.crowded,
            relocations: &self.relocations,
            congested_peers: &self.congested_peers,
            random: &mut self.random,
            publish,
            shown: None,
            stays: false,
            internal: self.workers,
            publisher: Some((conn, cid)),
            requester,
            silent: (!flags.echo).then_some(conn),
            delivered: false,
            congested_on: None,
        };
        sending.send_to_plain(&fanout.local, &fanout.remote, None);
        let mut services = None;
        if fanout.links.is_none() {
            sending.send_to_groups(fanout);
        }
        if let Some(links) = fanout.links.as_deref() {
            sending.send_to_linked_groups(fanout, links);
            sending.send_to_imports(links);
            services = (!links.services.is_empty()).then(|| links.services.clone());
        }
        let (mut delivered, mut congested_on) = (sending.delivered, sending.congested_on);
        if answers || services.is_some() {
            let requester = (wants_to_know && !delivered).then_some((conn, cid));
            let services = services.as_deref().unwrap_or_default();
            let requester = requester.filter(|_| services.len() == 1);
            let mut origin = Origin::of((conn, cid), requester, (!flags.echo).then_some(conn));
            let reached = self.publish_elsewhere(publish, account, services, answers, &mut origin);
            delivered |= reached.delivered;
            congested_on = reached.congested_on.or(congested_on);
        }
        if !self.local.exhausted.is_empty() {
            self.remove_exhausted();
        }
        if !delivered && flags.no_responders && publish.reply.is_some() {
            self.answer_no_responders(conn, publish.subject, publish.reply.unwrap_or_default());
        }
        if let Some(consumer) = congested_on
            && self.hold(conn, consumer)
        {
            return Flow::Yield;
        }
        if self.local.sessions[conn as usize].closing.is_some() {
            // It was its own slow consumer.
            return Flow::Closed;
        }
        self.flow()
    }

    /// Publishes a message to the services of other accounts that it asks, and to whoever it answers there.
    #[inline(never)]
    pub(super) fn publish_elsewhere(
        &mut self,
        publish: &Publish<'_>,
        account: u16,
        services: &[Arc<ServiceImport>],
        answers: bool,
        origin: &mut Origin,
    ) -> Reached {
        let mut reached = self.ask_services(services, publish, origin);
        if answers {
            reached.add(self.answer(account, publish, &mut Vec::new(), origin.publisher));
        }
        reached
    }

    /// Whether this turn has done enough.
    #[inline]
    fn flow(&self) -> Flow {
        if self.wants_turn_to_end() { Flow::Yield } else { Flow::Continue }
    }

    #[cold]
    fn refuse_reserved(&mut self, conn: u32, publish: &Publish<'_>) {
        let Some(reply) = publish.reply.filter(|reply| is_reserved_reply(reply)) else {
            return self.refuse_publish(conn, publish.subject);
        };
        self.local.send_error(conn, &ErrorText::ReplyPermission(reply.into()));
        self.log_session(conn, Level::Error, &format!("Publish Violation - Reply {}", quote(reply)));
    }

    /// Removes subscriptions whose last message has been delivered.
    #[cold]
    pub(super) fn remove_exhausted(&mut self) {
        while let Some(sub) = self.local.exhausted.pop() {
            self.remove_subscription(sub);
        }
    }

    /// Tells a requester that nobody is there, on its own subscription of the reply subject if it has one.
    #[cold]
    pub(super) fn answer_no_responders(&mut self, conn: u32, subject: &[u8], reply: &[u8]) {
        if self.info.jetstream && is_heard_by_the_api(subject) {
            return;
        }
        let account = self.local.sessions[conn as usize].account;
        let mut matches = Matches::default();
        // Also where what comes to the reply subject is denied, as in the reference.
        let interest = &self.accounts[usize::from(account)].interest;
        interest.read(|interest| interest.collect_unfiltered(reply, &mut matches));
        self.local.turn_bytes += TARGET_COST_BYTES * matches.plain.len();
        let worker = self.worker;
        let own = matches.plain.iter().find(|target| target.worker == worker && target.conn == conn);
        let Some(own) = own else { return };
        let Some(subscription) = self.local.subscriptions.get(own.sub as usize) else { return };
        let mut block = Vec::new();
        header::write_no_responders(&mut block, subject);
        let mut line = Vec::new();
        Delivery {
            subject: reply,
            sid: subscription.sid.as_bytes(),
            reply: None,
            header_len: Some(block.len()),
            size: block.len(),
            widths: Widths::default(),
        }
        .write_head(&mut line);
        line.extend_from_slice(&block);
        line.extend_from_slice(b"\r\n");
        self.local.write_line(conn, &line);
    }

    #[cold]
    fn trace_publish(&mut self, conn: u32, publish: &Publish<'_>) {
        let verb = if publish.header_len.is_some() { "HPUB" } else { "PUB" };
        self.local.trace(conn, format_args!("<<- [{verb} {}]", String::from_utf8_lossy(publish.args)));
        if self.local.sessions[conn as usize].flags.maps {
            // The content follows what is said of the mapping.
            return;
        }
        self.local.trace_content(conn, "<<-", publish.header_len, publish.payload.content());
    }
}

/// A message on its way to the receivers of one account's list, with what it takes to get there.
pub(super) struct Sending<'a> {
    pub worker: WorkerId,
    /// Slot of the account whose list it is.
    pub account: u16,
    pub local: &'a mut Local,
    pub outgoing: &'a mut [Outgoing],
    pub crowded: &'a mut bool,
    pub relocations: &'a Relocations,
    pub congested_peers: &'a HashSet<(WorkerId, u32)>,
    pub random: &'a mut fastrand::Rng,
    pub publish: &'a Publish<'a>,
    /// The subject by which members of queue groups get it, if that is another one.
    pub shown: Option<&'a [u8]>,
    /// It has come into the account as a request for a service, and no import of a stream leads it out.
    pub stays: bool,
    /// The place of the server's own client among the workers. It answers by who asks.
    pub internal: usize,
    /// The connection that has published it, if that is known here.
    pub publisher: Option<(u32, u64)>,
    /// Who wants to know if nobody is there after all.
    pub requester: Option<(u32, u64)>,
    /// The connection that does not get it.
    pub silent: Option<u32>,
    /// Somebody gets it.
    pub delivered: bool,
    /// Somebody who gets it has fallen behind.
    pub congested_on: Option<(WorkerId, u32)>,
}

impl<'a> Sending<'a> {
    #[inline(always)]
    fn outbound<'b>(&self, shown: Option<&'b [u8]>) -> Outbound<'b>
    where
        'a: 'b,
    {
        let publish: &'b Publish<'b> = self.publish;
        Outbound {
            subject: shown.unwrap_or(publish.subject),
            reply: publish.reply,
            header_len: publish.header_len,
            content: Content::of(&publish.payload),
            widths: publish.widths,
        }
    }

    #[inline(always)]
    fn push(&mut self, to_worker: WorkerId, shown: Option<&[u8]>, to: To<'_>, requester: Option<(u32, u64)>) {
        let requester = if usize::from(to_worker) == self.internal { self.publisher } else { requester };
        let outgoing = &mut self.outgoing[usize::from(to_worker)];
        outgoing.current.push_message(self.account, self.publish, shown, self.stays, to, requester);
        *self.crowded |= outgoing.rotate();
    }

    /// The message as routes get it.
    pub fn outbound_to_route(&self) -> Outbound<'a> {
        self.outbound(None)
    }

    /// Adds it to what another worker gets, which has the route.
    pub fn push_to_route(&mut self, route: Target, queues: &[u8]) {
        self.push(route.worker, self.shown, To::Route(queues, route), None);
    }

    /// Sends to plain subscriptions, by the subject `shown` if that is another one.
    #[inline(always)]
    pub fn send_to_plain(&mut self, local: &[Target], remote: &[RemoteTargets], shown: Option<&[u8]>) {
        let outbound = self.outbound(shown);
        self.local.turn_bytes += TARGET_COST_BYTES * local.len();
        for &target in local {
            if Some(target.conn) == self.silent {
                continue;
            }
            match self.local.deliver(target, &outbound) {
                Delivered::Yes => self.delivered = true,
                Delivered::Congested => {
                    self.delivered = true;
                    self.congested_on = Some((self.worker, target.conn));
                }
                Delivered::Gone => {
                    if let Some(to) = self.relocations.destination(target) {
                        self.push(to, shown, To::Moved(target), None);
                        self.delivered = true;
                    }
                }
            }
        }
        for remote in remote {
            self.delivered = true;
            self.local.turn_bytes += TARGET_COST_BYTES * remote.targets.as_slice().len();
            self.push(remote.worker, shown, To::Plain(&remote.targets), self.requester);
            if !self.congested_peers.is_empty() {
                let behind = |target: &&Target| self.congested_peers.contains(&(target.worker, target.conn));
                if let Some(target) = remote.targets.as_slice().iter().find(behind) {
                    self.congested_on = Some((target.worker, target.conn));
                }
            }
        }
    }

    /// Sends to one member of each queue group.
    #[inline(always)]
    pub fn send_to_groups(&mut self, fanout: &FanOut) {
        for group in &fanout.groups {
            self.send_to_group(fanout, group);
        }
    }

    /// Sends to other servers, and to one member of each queue group that is not served by one of them.
    #[inline(never)]
    pub fn send_to_linked_groups(&mut self, fanout: &FanOut, links: &Links) {
        if !links.has_routes() {
            return self.send_to_groups(fanout);
        }
        self.send_to_routes(links);
        for group in &fanout.groups {
            if !self.local.route_scratch.serves_elsewhere(&links.route_groups, &group.name) {
                self.send_to_group(fanout, group);
            }
        }
    }

    /// Sends to one member of a queue group.
    #[inline(always)]
    pub fn send_to_group(&mut self, fanout: &FanOut, group: &Group) {
        // A random start, then onward until one takes it.
        let start = if group.members.len() == 1 { 0 } else { self.random.usize(..group.members.len()) };
        for i in 0..group.members.len() {
            let member = group.members[(start + i) % group.members.len()];
            self.local.turn_bytes += TARGET_COST_BYTES;
            let shown = self.shown.or_else(|| fanout.shown_to(member));
            if self.stays && member.import != 0 {
                continue;
            }
            if member.worker != self.worker {
                self.push(member.worker, shown, To::Member(&group.name, member), self.requester);
                self.delivered = true;
                if self.congested_peers.contains(&(member.worker, member.conn)) {
                    self.congested_on = Some((member.worker, member.conn));
                }
                break;
            }
            if Some(member.conn) == self.silent {
                continue;
            }
            let outbound = self.outbound(shown);
            match self.local.deliver(member, &outbound) {
                Delivered::Gone => {
                    let Some(to) = self.relocations.destination(member) else { continue };
                    self.push(to, shown, To::MovedMember(&group.name, member), self.requester);
                }
                Delivered::Yes => {}
                Delivered::Congested => self.congested_on = Some((self.worker, member.conn)),
            }
            self.delivered = true;
            break;
        }
    }

    /// Sends to plain subscriptions of the accounts that import it.
    #[inline(never)]
    pub fn send_to_imports(&mut self, links: &Links) {
        for imported in &links.imports {
            // An import that keeps subjects keeps the one by which a consumer's message is shown, too.
            let is_kept = *imported.subject == *self.publish.subject;
            let shown = self.shown.filter(|_| is_kept).unwrap_or(&imported.subject);
            self.send_to_plain(&imported.local, &imported.remote, Some(shown));
        }
    }
}

impl super::core::Outgoing {
    /// Puts a full batch aside, so that it goes out before more is added. Whether it did.
    #[inline]
    pub fn rotate(&mut self) -> bool {
        let full = self.current.is_full();
        if full {
            let next = self.spares.pop().unwrap_or_default();
            self.full.push_back(std::mem::replace(&mut self.current, next));
        }
        full
    }
}

impl Local {
    /// Appends one message to the output of the connection that `target` belongs to.
    #[inline]
    pub fn deliver(&mut self, target: Target, message: &Outbound<'_>) -> Delivered {
        debug_assert_eq!(target.worker, self.worker);
        let Some(subscription) = self.subscriptions.get_mut(target.sub as usize) else {
            return self.capture(target, message);
        };
        if subscription.generation != target.generation || subscription.is_exhausted() {
            return Delivered::Gone;
        }
        let session = &mut self.sessions[subscription.conn as usize];
        if session.closing.is_some() {
            return Delivered::Gone;
        }
        if self.no_fast_producer_stall
            && session.output.pending_bytes() > self.pending_max / 4 * PENDING_STALL_NUMERATOR
        {
            // Dropped for this consumer, as the option says; it counts as delivered.
            return Delivered::Yes;
        }
        subscription.delivered += 1;
        if subscription.is_exhausted() {
            self.exhausted.push(target.sub);
        }
        let content = message.content.with_crlf();
        // Clients without headers get the payload alone.
        let (header_len, skipped, widths) = match message.header_len {
            Some(len) if !session.flags.headers => {
                self.past[usize::from(session.account)].counters.out_bytes += len as u64;
                (None, len, Widths::default())
            }
            header_len => (header_len, 0, message.widths),
        };
        let size = content.len() - 2 - skipped;
        let delivery = Delivery {
            subject: message.subject,
            sid: subscription.sid.as_bytes(),
            reply: message.reply,
            header_len,
            size,
            widths,
        };
        let head_len_max = delivery.head_len_max();
        let written = match message.content {
            // A reference holds the whole buffer: only for a delivery that is most of it. What is left of a large
            // header block that is stripped is copied, so that the bytes counted are the bytes held.
            Content::Shared(shared) => {
                let chunk = session.output.append(head_len_max, &mut self.pool);
                let before = chunk.len();
                delivery.write_head(chunk);
                let written = chunk.len() - before;
                session.output.appended(written);
                if skipped <= shared.len() / 2 {
                    session.output.share(shared.slice(skipped..));
                } else {
                    session.output.extend(&shared[skipped..], &mut self.pool);
                }
                written + size
            }
            Content::Borrowed(content) => {
                let chunk = session.output.append(head_len_max + content.len(), &mut self.pool);
                let before = chunk.len();
                delivery.write_head(chunk);
                chunk.extend_from_slice(&content[skipped..]);
                let written = chunk.len() - before;
                session.output.appended(written);
                written
            }
        };
        session.counters.out_msgs += 1;
        session.counters.out_bytes += size as u64;
        self.stats.deliveries.count += 1;
        // As in the reference, what is stripped for a receiver without headers counts in the sum, and not for it.
        self.stats.deliveries.bytes += (skipped + size) as u64;
        self.turn_bytes += written;
        if !session.flags.dirty {
            session.flags.dirty = true;
            self.dirty.push(target.conn);
        }
        if self.trace | session.flags.notes_replies {
            if self.trace {
                self.trace_delivery(target, message, header_len, skipped);
            }
            if let Some(reply) = message.reply {
                self.note_reply(target.conn, reply);
            }
        }
        let session = &self.sessions[target.conn as usize];
        if session.output.pending_bytes() > self.pending_watched {
            return self.pace_consumer(target.conn);
        }
        Delivered::Yes
    }

    /// Cuts `conn` off if more waits for it than may.
    #[inline]
    pub fn check_pending(&mut self, conn: u32) {
        if self.sessions[conn as usize].output.pending_bytes() > self.pending_max {
            let text = format!("Slow Consumer Detected: MaxPending of {} Exceeded", self.pending_max);
            self.cut_off(conn, CloseReason::SlowConsumerPendingBytes, &text);
        }
    }

    #[cold]
    fn trace_delivery(
        &mut self,
        target: Target,
        message: &Outbound<'_>,
        header_len: Option<usize>,
        skipped: usize,
    ) {
        let text = String::from_utf8_lossy;
        let content = message.content.with_crlf();
        let content = &content[skipped..content.len() - 2];
        let size = content.len();
        let (reply, space) = message.reply.map_or((text(b""), ""), |reply| (text(reply), " "));
        let sid = self.subscriptions[target.sub as usize].sid.clone();
        let (subject, sid) = (text(message.subject), text(sid.as_bytes()));
        match header_len {
            Some(len) => {
                self.trace(target.conn, format_args!("->> [HMSG {subject} {sid} {reply}{space}{len} {size}]"))
            }
            None => self.trace(target.conn, format_args!("->> [MSG {subject} {sid} {reply}{space}{size}]")),
        }
        self.trace_content(target.conn, "->>", header_len, content);
    }
}

/// Whether exactly one other worker decides if a message is delivered.
pub(super) fn is_lone(fanout: &FanOut) -> bool {
    if !fanout.local.is_empty() || fanout.links.is_some() {
        return false;
    }
    match (&fanout.remote[..], &fanout.groups[..]) {
        ([remote], []) => match &remote.targets {
            TargetList::Short(targets) => targets.len() == 1,
            TargetList::Long(_) => false,
        },
        ([], [_]) => true,
        _ => false,
    }
}

/// Whether a subject or a reply deserves a closer look.
#[inline]
fn is_special(subject: &[u8], reply: Option<&[u8]>) -> bool {
    // Nearly every subject is told apart by its first byte, nearly every reply (`_INBOX.`) by its second.
    matches!(subject.first(), Some(b'_' | b'$')) || reply.is_some_and(is_reserved_reply)
}

/// Subjects and replies that only servers may use.
fn is_reserved(subject: &[u8], reply: Option<&[u8]>) -> bool {
    is_reserved_subject(subject) || reply.is_some_and(is_reserved_reply)
}

fn is_reserved_subject(subject: &[u8]) -> bool {
    [&b"_GR_."[..], b"$GR.", b"$NRG."].iter().any(|prefix| subject.starts_with(prefix))
}

#[inline]
fn is_reserved_reply(reply: &[u8]) -> bool {
    matches!(reply, [b'_', b'R' | b'G', ..] | [b'$', b'J', ..])
        && [&b"_R_."[..], b"$JS.ACK.", b"_GR_."].iter().any(|prefix| reply.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Input, Settings};
    use crate::subject::interest::LocalInterest;
    use crate::wire::info::Info;

    /// A broker with one connection, which has said `CONNECT`.
    fn broker(settings: Settings) -> (Broker<LocalInterest>, u32) {
        let index = LocalInterest::default();
        let info = Info::new("ID".into(), "test".into(), "0.0.0.0".into(), 4222);
        let mut broker = Broker::new(0, 1, Arc::new(settings), info, vec![index], 1);
        let conn = broker.open(1, "127.0.0.1:1".parse().unwrap());
        let connect = b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\n";
        assert_eq!(broker.handle_bytes(conn, connect), Input::Taken);
        (broker, conn)
    }

    #[test]
    fn a_small_max_pending_is_kept_to() {
        let (mut broker, conn) = broker(Settings { pending_max: 4096, ..Settings::default() });
        broker.handle_bytes(conn, b"SUB a 1\r\n");
        let message = format!("PUB a 100\r\n{}\r\n", "x".repeat(100));
        while broker.handle_bytes(conn, message.as_bytes()) == Input::Taken {
            assert!(broker.pending_bytes(conn) <= 4096);
        }
        assert_eq!(broker.poll_closing(), Some((conn, CloseReason::SlowConsumerPendingBytes)));
        assert!(broker.pending_bytes(conn) < 4096 + 200);
    }

    #[test]
    fn a_subject_longer_than_a_chunk_is_delivered() {
        let (mut broker, conn) = broker(Settings { control_line_max: 1024 * 1024, ..Settings::default() });
        let subject = "a".repeat(300_000);
        broker.handle_bytes(conn, format!("SUB {subject} 1\r\n").as_bytes());
        let before = broker.pending_bytes(conn);
        let input = broker.handle_bytes(conn, format!("PUB {subject} 1\r\nx\r\n").as_bytes());
        assert_eq!(input, Input::Taken);
        assert!(broker.pending_bytes(conn) > before + subject.len());
    }
}
