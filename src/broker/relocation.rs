//! A connection moves from one worker to another, and nobody can tell: no message is lost, doubled or put out of order.
//!
//! Which connection moves where and why is the server's decision ([`crate::server::placement`]); this is how.
//!
//! Call the old worker O and the new one N.
//!
//! 1. The server stops reading the connection, handles what was read, and waits until the kernel sends nothing of it and
//!    nothing waits for other workers. Then O takes session and subscriptions out of its tables and puts them, as a
//!    [`Parcel`], into its batch for N ([`Broker::depart`]). What is still aimed at the old place and reaches O is
//!    sent after it, in the batches for N.
//! 2. N puts the parcel into its own tables and exchanges the targets in the index, all at once, so that every message
//!    matches either the old place or the new one (`arrive`); then, one after the other, those that imports have put into
//!    the indexes of other accounts. A publisher's own account decides which index it is matched by.
//! 3. Messages to the old place take the way round by O; those to the new place may overtake them. So what comes directly
//!    waits behind what comes by O, until nothing more can come by O: N tells O that the connection has *arrived*, behind
//!    everything that N has sent to the old place. O sends a *fence* to all others. Whoever gets it matches the new place
//!    from then on, and answers with an *echo*, behind everything that it has sent to the old place. With the last echo
//!    O tells N that the connection is *settled*, behind everything that it has sent after it. N sends its output and
//!    reads it again.
//!
//! As the connection is not read from its departure until it has settled, what it publishes keeps its order too: the
//! fence reaches a worker behind everything that was published at O, and its echo is there before anything is
//! published at N.
//!
//! The server's own client ([`super::internal`]) takes no part in this: it finds who gets a message and hands that over in
//! one hold of the index, and workers look at its queue first. So what it has aimed at the old place reaches O before
//! the word that the connection has arrived.
//!
//! Nothing is assumed of the order in which a worker looks at the queues of the other workers, only that each queue keeps its
//! own. A move takes as long as a few turns of the slowest worker. While it is under way the connection can be closed like any
//! other; its slot is kept until it has settled.

use std::collections::HashMap;
use std::sync::Arc;

use super::core::Broker;
use super::imports::Shadow;
use super::publish::{Delivered, Outbound};
use super::session::Session;
use super::settings::Settings;
use super::subscription::Subscription;
use crate::base::output::Output;
use crate::subject::fanout::Memo;
use crate::subject::interest::{InterestAccess, Target, WorkerId};
use crate::subject::name::Pattern;

/// A connection with more subscriptions stays where it is: exchanging them holds the lock of the index.
pub const MOVED_SUBSCRIPTIONS_MAX: usize = 256;

/// A connection between two workers.
#[derive(Debug)]
pub struct Parcel {
    session: Session,
    /// Each with its slot at the old worker.
    subscriptions: Vec<(u32, Subscription)>,
    /// What they have in the indexes of other accounts, by the same slots.
    shadows: Vec<(u32, Box<[Shadow]>)>,
    /// Its slot at the old worker.
    conn: u32,
    /// What the old worker went by.
    settings: Arc<Settings>,
    /// Whether clients of the old worker have been told of lame duck mode.
    lame_duck: bool,
}

/// Moves under way at one worker.
#[derive(Debug, Default)]
pub(super) struct Relocations {
    departures: Vec<Departure>,
    arrivals: Vec<Arrival>,
    /// Where the subscriptions of `departures` went, by slot and generation.
    moved: HashMap<(u32, u32), WorkerId>,
    /// Arrivals that the server has not been told of: slot and cid.
    arrived: Vec<(u32, u64)>,
    /// Slots of connections that have settled since the last call.
    settled: Vec<u32>,
}

/// A connection that has left, as long as something for it may still come here.
#[derive(Debug)]
struct Departure {
    cid: u64,
    to: WorkerId,
    echoes_left: usize,
    subscriptions: Vec<(u32, u32)>,
}

/// A connection that has come and not settled yet.
#[derive(Debug)]
struct Arrival {
    conn: u32,
    cid: u64,
    from: WorkerId,
    /// What goes out before anything that was written here.
    earlier: Output,
    /// Its subscriptions' new places by slot and generation at the old worker.
    subscriptions: HashMap<(u32, u32), Target>,
}

/// What one worker tells another of a move; see the head of this file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveStep {
    /// From the new worker to the old one.
    Arrived,
    /// From the old worker to a third one.
    Fence,
    /// Its answer.
    Echo,
    /// From the old worker to the new one.
    Settled,
}

/// Names a move on its way between workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MoveId {
    /// The worker that it moves to.
    pub to: WorkerId,
    /// Its slot there.
    pub conn: u32,
    /// Its number.
    pub cid: u64,
}

impl Relocations {
    /// Where a subscription that is gone from this worker's tables went, if it moved.
    #[inline]
    pub fn destination(&self, target: Target) -> Option<WorkerId> {
        if self.moved.is_empty() {
            return None;
        }
        self.moved.get(&(target.sub, target.generation)).copied()
    }

    fn departure(&mut self, cid: u64) -> usize {
        let Some(at) = self.departures.iter().position(|departure| departure.cid == cid) else {
            unreachable!("a departure is kept until it has settled");
        };
        at
    }
}

impl<A: InterestAccess> Broker<A> {
    /// Whether a connection is in a state in which it can move.
    pub fn may_depart(&self, conn: u32) -> bool {
        let Some(session) = self.local.sessions.get(conn as usize) else { return false };
        self.is_movable(session) && session.hold.is_none()
    }

    /// Leaves out what is soon over.
    fn is_movable(&self, session: &Session) -> bool {
        session.closing.is_none()
            && session.connect.is_some()
            && session.flags.connected
            && !session.flags.settling
            // The check belongs to this worker.
            && !session.is_checking()
            && session.sids.len() <= MOVED_SUBSCRIPTIONS_MAX
            // Counting down at two places would need more than order.
            && session.sids.iter().all(|sub| self.local.subscriptions[*sub as usize].delivered_max == 0)
    }

    /// Sends a connection to another worker: takes it out of the tables and puts it into the batch for `to`. Its slot is
    /// free at once.
    ///
    /// # Panics
    ///
    /// If [`Broker::may_depart`] says no, or something waits for a third worker: what the connection published has to
    /// be on its way before it leaves.
    pub fn depart(&mut self, conn: u32, to: WorkerId) {
        assert!(self.may_depart(conn) && to != self.worker);
        let mut third = (0..self.outgoing.len() as u16).filter(|other| ![self.worker, to].contains(other));
        assert!(third.all(|other| !self.has_batch_for(other)), "it leaves behind what it published");
        if std::mem::take(&mut self.local.sessions[conn as usize].flags.dirty) {
            self.local.dirty.retain(|other| *other != conn);
        }
        let subs = self.local.subscriptions_of(conn);
        let subscriptions: Vec<(u32, Subscription)> =
            subs.into_iter().map(|sub| (sub, self.local.take_subscription(sub))).collect();
        let all = &mut self.local.shadows;
        let shadows = subscriptions.iter().filter_map(|(sub, _)| Some((*sub, all.remove(sub)?))).collect();
        if std::mem::take(&mut self.local.sessions[conn as usize].flags.congested) {
            self.local.forget_congestion(conn);
        }
        let session = self.local.sessions.remove(conn as usize);
        let places: Vec<(u32, u32)> =
            subscriptions.iter().map(|(sub, subscription)| (*sub, subscription.generation)).collect();
        self.relocations.moved.extend(places.iter().map(|place| (*place, to)));
        self.relocations.departures.push(Departure {
            cid: session.cid,
            to,
            echoes_left: self.workers - 2,
            subscriptions: places,
        });
        let parcel = Parcel {
            session,
            subscriptions,
            shadows,
            conn,
            settings: self.settings.clone(),
            lame_duck: self.is_lame_duck(),
        };
        self.outgoing[usize::from(to)].current.push_parcel(Box::new(parcel));
    }

    /// Takes a connection that another worker has sent.
    pub(super) fn arrive(&mut self, from: WorkerId, parcel: Parcel) {
        let Parcel { mut session, subscriptions, shadows, conn: old_conn, settings, lame_duck } = parcel;
        let now_ms = self.local.now_ms;
        // The workers' turns do not begin at the same time.
        for at_ms in [
            &mut session.last_input_ms,
            &mut session.progress_ms,
            &mut session.behind_since_ms,
            &mut session.active_ms,
        ] {
            *at_ms = (*at_ms).min(now_ms);
        }
        session.ping_sent_us = session.ping_sent_us.min(self.local.now_us);
        session.memo = Memo::default();
        session.flags.hold_spent = false;
        session.flags.settling = true;
        let earlier = std::mem::take(&mut session.output);
        let (cid, account, timer_at_ms) = (session.cid, session.account, session.timer_at_ms);
        let conn = self.local.sessions.insert(session) as u32;
        self.wheel.set(timer_at_ms, (conn, cid));
        let mut places = HashMap::with_capacity(subscriptions.len());
        let mut exchanged = Vec::with_capacity(subscriptions.len());
        for (old_sub, mut subscription) in subscriptions {
            let old = Target {
                worker: from,
                import: 0,
                conn: old_conn,
                sub: old_sub,
                generation: subscription.generation,
            };
            let generation = self.next_generation();
            (subscription.conn, subscription.generation) = (conn, generation);
            let sub = self.local.insert_subscription(subscription);
            let new = Target { worker: self.worker, import: 0, conn, sub, generation };
            places.insert((old_sub, old.generation), new);
            exchanged.push((old, new));
        }
        let all = &self.local.subscriptions;
        self.accounts[usize::from(account)].interest.write(|interest| {
            for (old, new) in &exchanged {
                let subscription = &all[new.sub as usize];
                let pattern =
                    Pattern::parse(&subscription.subject).expect("was valid when it was subscribed");
                let queue = subscription.queue.as_deref();
                let found = interest.exchange(pattern, queue, *old, *new);
                assert!(found, "the index has every live subscription");
            }
        });
        for (old_sub, shadows) in shadows {
            let (old, new) = exchanged.iter().find(|(old, _)| old.sub == old_sub).expect("one of them");
            self.exchange_shadows(*old, *new, shadows);
        }
        self.relocations.arrivals.push(Arrival { conn, cid, from, earlier, subscriptions: places });
        self.relocations.arrived.push((conn, cid));
        let id = MoveId { to: self.worker, conn, cid };
        self.outgoing[usize::from(from)].current.push_move(MoveStep::Arrived, id);
        if !Arc::ptr_eq(&settings, &self.settings) {
            self.apply_settings_to(conn, true);
        }
        if self.is_lame_duck() && !lame_duck {
            self.tell_lame_duck(conn);
        }
    }

    /// Takes note of what worker `from` says of a move.
    pub(super) fn handle_move(&mut self, from: WorkerId, step: MoveStep, id: MoveId) {
        match step {
            MoveStep::Arrived => {
                let others = self.outgoing[..self.workers].iter_mut().enumerate();
                for (_, outgoing) in
                    others.filter(|(worker, _)| ![self.worker, id.to].contains(&(*worker as u16)))
                {
                    outgoing.current.push_move(MoveStep::Fence, id);
                }
                self.end_departure_after_echoes(id);
            }
            MoveStep::Fence => self.outgoing[usize::from(from)].current.push_move(MoveStep::Echo, id),
            MoveStep::Echo => {
                let at = self.relocations.departure(id.cid);
                self.relocations.departures[at].echoes_left -= 1;
                self.end_departure_after_echoes(id);
            }
            MoveStep::Settled => self.settle(id),
        }
    }

    fn end_departure_after_echoes(&mut self, id: MoveId) {
        let at = self.relocations.departure(id.cid);
        if self.relocations.departures[at].echoes_left > 0 {
            return;
        }
        for place in self.relocations.departures.swap_remove(at).subscriptions {
            self.relocations.moved.remove(&place);
        }
        self.outgoing[usize::from(id.to)].current.push_move(MoveStep::Settled, id);
    }

    fn settle(&mut self, id: MoveId) {
        let arrivals = &mut self.relocations.arrivals;
        let Some(at) = arrivals.iter().position(|arrival| arrival.cid == id.cid) else {
            unreachable!("an arrival is kept until it has settled");
        };
        let mut output = arrivals.swap_remove(at).earlier;
        let session = &mut self.local.sessions[id.conn as usize];
        output.join(std::mem::take(&mut session.output));
        session.output = output;
        session.flags.settling = false;
        let has_output = session.output.pending_bytes() > 0;
        self.relocations.settled.push(id.conn);
        if has_output {
            self.local.mark_dirty(id.conn);
        }
    }

    /// Delivers a message that was aimed at a subscription's place at another worker and sent after it.
    #[cold]
    pub(super) fn deliver_forwarded(&mut self, old: Target, message: &Outbound<'_>) -> Delivered {
        let place = (old.sub, old.generation);
        let arrivals = self.relocations.arrivals.iter_mut().filter(|arrival| arrival.from == old.worker);
        let found = arrivals.filter_map(|arrival| {
            let target = arrival.subscriptions.get(&place).copied()?;
            Some((arrival, target))
        });
        let Some((arrival, target)) = { found }.next() else { return Delivered::Gone };
        let conn = arrival.conn as usize;
        std::mem::swap(&mut self.local.sessions[conn].output, &mut arrival.earlier);
        let delivered = self.local.deliver(target, message);
        std::mem::swap(&mut self.local.sessions[conn].output, &mut arrival.earlier);
        delivered
    }

    /// Where the connection with this number went, as long as that is known here.
    pub(super) fn departed_to(&self, cid: u64) -> Option<WorkerId> {
        self.relocations
            .departures
            .iter()
            .find(|departure| departure.cid == cid)
            .map(|departure| departure.to)
    }

    /// The slot of a connection that has come from another worker and not settled yet.
    pub(super) fn arriving(&self, cid: u64) -> Option<u32> {
        self.relocations.arrivals.iter().find(|arrival| arrival.cid == cid).map(|arrival| arrival.conn)
    }

    /// The next connection that has come from another worker: its new slot and its number. It is not to be read before
    /// [`Broker::poll_settled`] names it.
    pub fn poll_arrived(&mut self) -> Option<(u32, u64)> {
        self.relocations.arrived.pop()
    }

    /// The next connection that has settled.
    pub fn poll_settled(&mut self) -> Option<u32> {
        self.relocations.settled.pop()
    }

    /// Slots of up to `max` connections that have sent or got something since `since_ms` and can move, now or soon.
    pub fn movable_since(&self, since_ms: u64, max: usize) -> Vec<u32> {
        let active = self.local.sessions.iter().filter(|(_, session)| {
            session.last_input_ms.max(session.progress_ms) >= since_ms && self.is_movable(session)
        });
        active.take(max).map(|(conn, _)| conn as u32).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::net::SocketAddr;

    use super::*;
    use crate::broker::{Batch, Input};
    use crate::subject::interest::LocalInterest;
    use crate::wire::info::Info;

    const WORKERS: usize = 3;

    /// Brokers and the queues between them. Every turn takes some of what waits, never all for certain.
    struct World {
        brokers: Vec<Broker<LocalInterest>>,
        /// `queues[from][to]`.
        queues: Vec<Vec<VecDeque<Batch>>>,
        clients: Vec<Client>,
        index: LocalInterest,
        random: fastrand::Rng,
    }

    struct Client {
        at: usize,
        /// `None` while it is between workers.
        conn: Option<u32>,
        /// It is read only when it has settled.
        settled: bool,
        published: u64,
        got: Vec<u8>,
    }

    impl World {
        fn new(clients: usize, seed: u64) -> World {
            let index = LocalInterest::default();
            let brokers = (0..WORKERS as u16)
                .map(|worker| {
                    let info = Info::new("ID".into(), "test".into(), "0.0.0.0".into(), 4222);
                    let settings = Arc::new(Settings::default());
                    Broker::new(worker, WORKERS, settings, info, vec![index.clone()], seed)
                })
                .collect();
            let queues = (0..WORKERS).map(|_| (0..WORKERS).map(|_| VecDeque::new()).collect()).collect();
            let random = fastrand::Rng::with_seed(seed);
            let mut world = World { brokers, queues, clients: Vec::new(), index, random };
            for cid in 0..clients as u64 {
                let at = cid as usize % WORKERS;
                let addr: SocketAddr = "127.0.0.1:1".parse().unwrap();
                let conn = world.brokers[at].open(cid, addr);
                world.clients.push(Client {
                    at,
                    conn: Some(conn),
                    settled: true,
                    published: 0,
                    got: Vec::new(),
                });
                let hello = "CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\n";
                world.say(cid as usize, hello);
                world.say(cid as usize, "SUB all.* 1\r\nSUB work.* workers 2\r\nSUB all.> 3\r\n");
            }
            world
        }

        fn say(&mut self, client: usize, text: &str) {
            let Client { at, conn: Some(conn), settled: true, .. } = self.clients[client] else { return };
            assert_eq!(self.brokers[at].handle_bytes(conn, text.as_bytes()), Input::Taken);
        }

        /// A numbered message to everybody and one to a member of the group.
        fn publish(&mut self, client: usize) {
            if !self.clients[client].settled {
                return;
            }
            let number = self.clients[client].published;
            self.clients[client].published += 1;
            let text = format!("{client}:{number}");
            for subject in ["all", "work"] {
                self.say(client, &format!("PUB {subject}.{client} {}\r\n{text}\r\n", text.len()));
            }
        }

        fn turn(&mut self, at: usize) {
            for from in 0..WORKERS {
                let waiting = self.queues[from][at].len();
                for _ in 0..self.random.usize(0..=waiting) {
                    let batch = self.queues[from][at].pop_front().unwrap();
                    self.brokers[at].handle_batch(from as u16, &batch);
                }
            }
            while let Some((conn, cid)) = self.brokers[at].poll_arrived() {
                let client = &mut self.clients[cid as usize];
                assert_eq!((client.at, client.conn), (at, None));
                client.conn = Some(conn);
            }
            while let Some(conn) = self.brokers[at].poll_settled() {
                let mut clients = self.clients.iter_mut();
                let client = clients.find(|client| client.at == at && client.conn == Some(conn)).unwrap();
                client.settled = true;
            }
            self.send_batches(at);
            while let Some(conn) = self.brokers[at].poll_dirty() {
                let bytes: Vec<u8> = self.brokers[at].unsent(conn, 64).flatten().copied().collect();
                self.brokers[at].handle_sent(conn, bytes.len());
                let mut clients = self.clients.iter_mut();
                let client = clients.find(|client| client.at == at && client.conn == Some(conn)).unwrap();
                assert!(client.settled, "nothing of a connection that has not settled is sent");
                client.got.extend_from_slice(&bytes);
            }
        }

        fn send_batches(&mut self, at: usize) {
            for to in (0..WORKERS).filter(|to| *to != at) {
                while let Some(batch) = self.brokers[at].poll_batch(to as u16) {
                    self.queues[at][to].push_back(batch);
                }
            }
        }

        fn relocate(&mut self, client: usize, to: usize) {
            let Client { at, conn: Some(conn), settled: true, .. } = self.clients[client] else { return };
            if to == at {
                return;
            }
            assert!(self.brokers[at].may_depart(conn));
            self.send_batches(at);
            self.brokers[at].depart(conn, to as u16);
            (self.clients[client].at, self.clients[client].conn) = (to, None);
            self.clients[client].settled = false;
            self.send_batches(at);
        }

        fn come_to_rest(&mut self) {
            for _ in 0..1000 {
                for at in 0..WORKERS {
                    self.turn(at);
                }
                let waits = self.queues.iter().flatten().any(|queue| !queue.is_empty());
                if !waits && self.clients.iter().all(|client| client.settled) {
                    return;
                }
            }
            panic!("it never comes to rest");
        }

        /// What a client got, as (sid, publisher, number).
        fn messages(&self, client: usize) -> Vec<(u64, usize, u64)> {
            let text = String::from_utf8(self.clients[client].got.clone()).unwrap();
            let mut lines = text.split("\r\n");
            let mut messages = Vec::new();
            while let Some(line) = lines.next() {
                if let Some(head) = line.strip_prefix("MSG ") {
                    let sid = head.split(' ').nth(1).unwrap().parse().unwrap();
                    let (publisher, number) = lines.next().unwrap().split_once(':').unwrap();
                    messages.push((sid, publisher.parse().unwrap(), number.parse().unwrap()));
                }
            }
            messages
        }
    }

    #[test]
    fn moves_lose_double_and_reorder_nothing() {
        for seed in 0..100 {
            let mut world = World::new(6, seed);
            world.come_to_rest();
            for _ in 0..400 {
                let client = world.random.usize(..world.clients.len());
                match world.random.u8(..10) {
                    0 => {
                        let to = world.random.usize(..WORKERS);
                        world.relocate(client, to);
                    }
                    1..=5 => world.publish(client),
                    _ => {
                        let at = world.random.usize(..WORKERS);
                        world.turn(at);
                    }
                }
            }
            world.come_to_rest();
            let clients = world.clients.len();
            let mut worked = vec![Vec::new(); clients];
            for client in 0..clients {
                let messages = world.messages(client);
                for (publisher, worked) in worked.iter_mut().enumerate() {
                    let of = |wanted: u64| {
                        let of = messages
                            .iter()
                            .filter(move |(sid, from, _)| (*sid, *from) == (wanted, publisher));
                        of.map(|(_, _, number)| *number).collect::<Vec<u64>>()
                    };
                    let all: Vec<u64> = (0..world.clients[publisher].published).collect();
                    assert_eq!(of(1), all, "seed {seed}: {publisher} to {client}");
                    assert_eq!(of(3), all, "seed {seed}: {publisher} to {client}");
                    let work = of(2);
                    assert!(work.is_sorted(), "seed {seed}: {publisher} to the group's {client}");
                    worked.extend(work);
                }
            }
            for (publisher, mut worked) in worked.into_iter().enumerate() {
                worked.sort_unstable();
                let all: Vec<u64> = (0..world.clients[publisher].published).collect();
                assert_eq!(worked, all, "seed {seed}: the group's work of {publisher}");
            }
            for broker in &world.brokers {
                let Relocations { departures, arrivals, moved, .. } = &broker.relocations;
                assert!(departures.is_empty() && arrivals.is_empty() && moved.is_empty());
            }
            let subscriptions: u64 = world.brokers.iter().map(|broker| broker.stats().subscriptions).sum();
            assert_eq!((subscriptions, world.index.read(|interest| interest.len())), (18, 18));
        }
    }

    #[test]
    fn a_connection_that_is_closed_on_its_way_leaves_nothing_behind() {
        for seed in 0..50 {
            let mut world = World::new(3, seed);
            world.come_to_rest();
            world.publish(1);
            world.relocate(0, 1);
            while world.clients[0].conn.is_none() {
                world.turn(1);
            }
            let conn = world.clients[0].conn.unwrap();
            world.brokers[1].close(conn, crate::broker::CloseReason::ClientClosed);
            world.publish(2);
            assert!(world.brokers[1].poll_closing().is_some());
            world.brokers[1].begin_turn(std::time::Duration::from_millis(1));
            world.come_to_rest();
            assert!(world.brokers[1].is_torn_down(conn));
            world.brokers[1].remove(conn);
            assert_eq!(world.index.read(|interest| interest.len()), 6);
        }
    }

    #[test]
    fn consumers_that_are_behind_leave_one_after_the_other() {
        let index = LocalInterest::default();
        let mut brokers = [0, 1].map(|worker| {
            let info = Info::new("ID".into(), "test".into(), "0.0.0.0".into(), 4222);
            Broker::new(worker, 2, Arc::new(Settings::default()), info, vec![index.clone()], 1)
        });
        let addr: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let [publisher, first, second] = [0, 1, 2].map(|cid| brokers[0].open(cid, addr));
        for conn in [publisher, first, second] {
            let hello = "CONNECT {\"verbose\":false}\r\nSUB a 1\r\n";
            assert_eq!(brokers[0].handle_bytes(conn, hello.as_bytes()), Input::Taken);
        }
        let message = format!("PUB a 100000\r\n{}\r\n", "x".repeat(100_000));
        let is_behind =
            |broker: &Broker<LocalInterest>, conn: u32| broker.local.sessions[conn as usize].flags.congested;
        for _ in 0..20 {
            // What is held back is of no interest here.
            let _ = brokers[0].handle_bytes(publisher, message.as_bytes());
            if is_behind(&brokers[0], first) && is_behind(&brokers[0], second) {
                break;
            }
        }
        for conn in [first, second] {
            assert!(is_behind(&brokers[0], conn) && brokers[0].may_depart(conn));
        }
        let pending = brokers[0].pending_bytes(first);
        // One turn sends both away, before any batch is taken out.
        brokers[0].depart(first, 1);
        brokers[0].depart(second, 1);
        for (from, to) in [(0, 1), (1, 0), (0, 1)] {
            let batch = brokers[from].poll_batch(to as u16).expect("the next step");
            brokers[to].handle_batch(from as u16, &batch);
        }
        for _ in 0..2 {
            let conn = brokers[1].poll_settled().expect("both have settled");
            assert_eq!(brokers[1].pending_bytes(conn), pending);
        }
    }

    #[test]
    fn what_counts_down_or_is_unfinished_does_not_move() {
        let mut world = World::new(1, 1);
        let conn = world.clients[0].conn.unwrap();
        assert!(world.brokers[0].may_depart(conn));
        world.say(0, "SUB a 9\r\nUNSUB 9 5\r\n");
        assert!(!world.brokers[0].may_depart(conn));
        world.say(0, "UNSUB 9\r\n");
        assert!(world.brokers[0].may_depart(conn));
        let addr = "127.0.0.1:1".parse().unwrap();
        let silent = world.brokers[0].open(7, addr);
        assert!(!world.brokers[0].may_depart(silent), "it has not said CONNECT");
    }
}
