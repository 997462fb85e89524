//! What arrives from other workers: messages for this worker's connections, and notes.

use super::batch::{Batch, Entry, Message, To};
use super::core::Broker;
use super::publish::{Delivered, Outbound, TARGET_COST_BYTES};
use super::responses::REPLY_PREFIX;
use crate::subject::interest::{InterestAccess, Matches, Target, WorkerId, shown_as};

/// Emptied batches kept per worker.
const SPARES_MAX: usize = 8;

impl<A: InterestAccess> Broker<A> {
    /// Handles everything in a batch from worker `from`.
    pub fn handle_batch(&mut self, from: WorkerId, batch: &Batch) {
        self.local.stats.handed_over += batch.len() as u64;
        // Before what was published after it.
        self.share_interest();
        batch.for_each(|entry| match entry {
            Entry::Message(message) => self.handle_message(from, &message),
            Entry::Congestion { conn, congested: true } => {
                self.congested_peers.insert((from, conn));
            }
            Entry::Congestion { conn, congested: false } => {
                self.congested_peers.remove(&(from, conn));
            }
            Entry::Undelivered { conn, cid, account, subject, reply } => {
                // Of a request to another account, the requester knows neither.
                let asked = if reply.starts_with(REPLY_PREFIX) { self.take_unanswered(reply) } else { None };
                let (subject, reply) =
                    asked.as_ref().map_or((subject, reply), |asked| (&*asked.subject, &*asked.reply));
                if self.local.sessions.get(conn as usize).is_some_and(|session| session.cid == cid) {
                    self.answer_no_responders(conn, subject, reply);
                } else if let Some(conn) = self.arriving(cid) {
                    self.answer_no_responders(conn, subject, reply);
                } else if let Some(to) = self.departed_to(cid) {
                    let outgoing = &mut self.outgoing[usize::from(to)];
                    outgoing.current.push_undelivered(conn, cid, account, subject, reply);
                }
            }
            Entry::Parcel(parcel) => self.arrive(from, *parcel),
            Entry::Move(step, id) => self.handle_move(from, step, id),
            Entry::Notice(_) => unreachable!("those go to the server's own client"),
        });
        if !self.local.exhausted.is_empty() {
            self.remove_exhausted();
        }
    }

    fn handle_message(&mut self, from: WorkerId, message: &Message<'_>) {
        if message.is_answer {
            return self.handle_answer(message);
        }
        let outbound = Outbound {
            subject: message.shown.unwrap_or(message.subject),
            reply: message.reply,
            header_len: message.header_len,
            content: message.content,
            widths: message.widths,
        };
        if message.is_route {
            let outbound = Outbound { subject: message.subject, ..outbound };
            let queues = message.queue.unwrap_or_default();
            for &target in message.targets {
                self.local.deliver_to_route(target, message.account, &outbound, message.shown, queues);
            }
            return;
        }
        let mut delivered = false;
        self.local.turn_bytes += TARGET_COST_BYTES * message.targets.len();
        for &target in message.targets {
            delivered |= if message.forwarded {
                self.deliver_forwarded(target, &outbound) != Delivered::Gone
            } else {
                self.local.deliver(target, &outbound) != Delivered::Gone || self.send_after(target, message)
            };
        }
        if delivered {
            return;
        }
        // The subscription ended while the message was on its way. A queue group's message goes to another member;
        // a request without one fails.
        if let Some(queue) = message.queue
            && self.deliver_to_another_member(queue, message, &outbound)
        {
            return;
        }
        if let Some((conn, cid)) = message.requester {
            let outgoing = &mut self.outgoing[usize::from(from)];
            let reply = message.reply.unwrap_or_default();
            outgoing.current.push_undelivered(conn, cid, message.account, message.subject, reply);
        }
    }

    #[cold]
    fn deliver_to_another_member(
        &mut self,
        queue: &[u8],
        message: &Message<'_>,
        outbound: &Outbound<'_>,
    ) -> bool {
        let mut matches = Matches::default();
        let interest = &self.accounts[usize::from(message.account)].interest;
        interest.read(|interest| interest.collect(message.subject, &mut matches));
        self.local.turn_bytes += TARGET_COST_BYTES * matches.plain.len();
        let Matches { groups, shown, route_groups, .. } = &mut matches;
        let elsewhere = route_groups.iter().find(|group| *group.name == *queue);
        let elsewhere = elsewhere.and_then(|group| group.routes.first().copied());
        let Some(group) = groups.iter_mut().find(|group| *group.name == *queue) else {
            return elsewhere.is_some_and(|route| self.forward_to_route(queue, message, route));
        };
        if message.stays {
            group.members.retain(|member| member.import == 0);
        }
        self.local.turn_bytes += TARGET_COST_BYTES * group.members.len();
        self.random.shuffle(&mut group.members);
        // Members of this worker first: whether they are there is known for certain.
        group.members.sort_by_key(|member| member.worker != self.worker);
        for &member in &group.members {
            let message = &Message { shown: shown_as(shown, member.import), ..*message };
            let outbound = &Outbound { subject: message.shown.unwrap_or(message.subject), ..*outbound };
            if member.worker != self.worker {
                return self.forward(queue, message, member);
            }
            if self.local.deliver(member, outbound) != Delivered::Gone || self.send_after(member, message) {
                return true;
            }
        }
        elsewhere.is_some_and(|route| self.forward_to_route(queue, message, route))
    }

    fn forward_to_route(&mut self, queue: &[u8], message: &Message<'_>, route: Target) -> bool {
        let route = Target { sub: 0, ..route };
        let outgoing = &mut self.outgoing[usize::from(route.worker)];
        if route.worker == self.worker {
            let outbound = Outbound {
                subject: message.subject,
                reply: message.reply,
                header_len: message.header_len,
                content: message.content,
                widths: message.widths,
            };
            let delivered =
                self.local.deliver_to_route(route, message.account, &outbound, message.shown, queue);
            return delivered != Delivered::Gone;
        }
        outgoing.current.push(Message { requester: None, ..*message }, To::Route(queue, route));
        self.crowded |= outgoing.rotate();
        true
    }

    /// Sends a message after the subscription that it was for, if that has moved to another worker.
    #[inline]
    fn send_after(&mut self, target: Target, message: &Message<'_>) -> bool {
        let Some(to) = self.relocations.destination(target) else { return false };
        let outgoing = &mut self.outgoing[usize::from(to)];
        let moved = match message.queue {
            Some(queue) => To::MovedMember(queue, target),
            None => To::Moved(target),
        };
        // As in `forward`, the requester would not be known.
        outgoing.current.push(Message { requester: None, ..*message }, moved);
        self.crowded |= outgoing.rotate();
        true
    }

    fn forward(&mut self, queue: &[u8], message: &Message<'_>, member: Target) -> bool {
        let outgoing = &mut self.outgoing[usize::from(member.worker)];
        // The requester belongs to the worker that sent the message, which the next one would not know: a request
        // that loses two members in a row while it is on its way times out instead of failing at once.
        outgoing.current.push(Message { requester: None, ..*message }, To::Member(queue, member));
        self.crowded |= outgoing.rotate();
        true
    }

    /// A batch for worker `to`, if there is something for it.
    pub fn poll_batch(&mut self, to: WorkerId) -> Option<Batch> {
        self.announce_congestion();
        let outgoing = &mut self.outgoing[usize::from(to)];
        if let Some(batch) = outgoing.full.pop_front() {
            return Some(batch);
        }
        let next = if outgoing.current.is_empty() {
            None
        } else {
            let spare = outgoing.spares.pop().unwrap_or_default();
            Some(std::mem::replace(&mut outgoing.current, spare))
        };
        self.crowded = self.outgoing[..self.workers].iter().any(|outgoing| !outgoing.full.is_empty());
        next
    }

    /// Drops what waits for the server's own client beyond so many full batches, the oldest first. Returns how many entries
    /// that were.
    pub fn shed_internal(&mut self, full_max: usize) -> usize {
        let full = &mut self.outgoing[self.workers].full;
        let beyond = full.len().saturating_sub(full_max);
        full.drain(..beyond).map(|batch| batch.len()).sum()
    }

    /// Takes back a batch that worker `to` has emptied, to use its memory again.
    pub fn give_spare(&mut self, to: WorkerId, batch: Batch) {
        debug_assert!(batch.is_empty());
        let spares = &mut self.outgoing[usize::from(to)].spares;
        if spares.len() < SPARES_MAX {
            spares.push(batch);
        }
    }

    /// Whether something waits for worker `to`.
    pub fn has_batch_for(&self, to: WorkerId) -> bool {
        let outgoing = &self.outgoing[usize::from(to)];
        let is_worker = usize::from(to) < self.workers;
        !outgoing.full.is_empty()
            || !outgoing.current.is_empty()
            || is_worker && !self.local.congestion_changes.is_empty()
    }
}
