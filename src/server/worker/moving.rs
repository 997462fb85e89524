//! A worker's part in moving connections: it shows its work, carries out the orders of [`Placement`](super::super::placement),
//! and gives and takes sockets. What happens to the sessions is [`crate::broker::relocation`]'s business.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::Worker;
use super::links::Link;
use crate::broker::log_lines::Level;
use crate::io::process;
use crate::io::socket_driver::SocketDriver;
use crate::server::placement::{Load, Order, Share, WINDOW_MS};

/// A connection that has sent or got something within so many milliseconds is active.
const ACTIVE_MS: u64 = 100;

/// Connections that one order moves.
const MOVES_MAX: usize = 256;

/// A connection that cannot leave within so many milliseconds stays; mostly its client does not read.
const LEAVING_MS_MAX: u64 = 20;

/// What others see and say of a worker's load.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct LoadBoard {
    busy_ns: AtomicU64,
    work: AtomicU64,
    handed_over: AtomicU64,
    has_order: AtomicBool,
    order: Mutex<Option<Order>>,
    /// Sockets of connections that have moved here.
    sockets: Mutex<Vec<MovedSocket>>,
}

impl LoadBoard {
    fn load(&self) -> Load {
        Load {
            busy_ns: self.busy_ns.load(Ordering::Relaxed),
            work: self.work.load(Ordering::Relaxed),
            handed_over: self.handed_over.load(Ordering::Relaxed),
        }
    }

    /// Whether the worker has been told to move connections.
    pub fn has_order(&self) -> bool {
        self.has_order.load(Ordering::Acquire)
    }
}

/// The socket of a connection that has moved.
#[derive(Debug)]
struct MovedSocket {
    cid: u64,
    fd: OwnedFd,
    /// What stands between it and the broker.
    link: Option<Box<Link>>,
}

/// A worker's own notes.
#[derive(Debug, Default)]
pub(super) struct Moving {
    observe_at_ms: u64,
    leaving: Vec<Leaving>,
}

/// A connection that is to leave as soon as nothing of it is under way.
#[derive(Debug)]
struct Leaving {
    conn: u32,
    to: usize,
    until_ms: u64,
}

impl Moving {
    /// Whether a connection is neither to be read nor to be sent to because it is about to leave.
    #[inline]
    pub fn is_leaving(&self, conn: u32) -> bool {
        !self.leaving.is_empty() && self.leaving.iter().any(|leaving| leaving.conn == conn)
    }

    pub fn is_empty(&self) -> bool {
        self.leaving.is_empty()
    }

    /// The connection is gone, and its slot may be used again.
    pub fn forget(&mut self, conn: u32) {
        self.leaving.retain(|leaving| leaving.conn != conn);
    }
}

impl<D: SocketDriver> Worker<D> {
    /// Shows the others how much there is to do here, and now and then looks at all.
    pub(super) fn observe_loads(&mut self) {
        let shared = &self.parts.shared;
        if shared.doors.len() == 1 {
            return;
        }
        let board = &shared.doors[self.parts.worker].load;
        let stats = self.parts.broker.stats();
        board.busy_ns.store(self.clock.times().busy_ns, Ordering::Relaxed);
        board.work.store(stats.messages.count + stats.deliveries.count, Ordering::Relaxed);
        board.handed_over.store(stats.handed_over, Ordering::Relaxed);
        if self.now_ms < self.moving.observe_at_ms || !self.may_move() {
            return;
        }
        self.moving.observe_at_ms = self.now_ms + WINDOW_MS / 2;
        let Some(mut placement) = shared.placement.try_lock() else { return };
        let loads: Vec<Load> = shared.doors.iter().map(|door| door.load.load()).collect();
        if let Some(order) = placement.observe(self.now_ms, &loads, process::idle_cpu_ms) {
            let door = &shared.doors[order.from];
            *door.load.order.lock() = Some(order);
            door.load.has_order.store(true, Ordering::Release);
            if order.from != self.parts.worker {
                door.knock();
            }
        }
    }

    /// A server that is about to end moves nothing.
    fn may_move(&self) -> bool {
        !self.stopping && self.lame_duck_next_ms.is_none()
    }

    /// Chooses the connections of an order, and stops reading them.
    pub(super) fn take_order(&mut self) {
        let board = &self.parts.shared.doors[self.parts.worker].load;
        // While somebody looks at all connections none is to stop being read for a move that cannot begin. The order is kept.
        if !board.has_order() || (self.may_move() && self.parts.shared.moves.are_barred()) {
            return;
        }
        board.has_order.store(false, Ordering::Release);
        let Some(order) = board.order.lock().take() else { return };
        if !self.may_move() {
            return;
        }
        let active = self.parts.broker.movable_since(self.now_ms.saturating_sub(ACTIVE_MS), MOVES_MAX);
        let step = match order.share {
            Share::All => 1,
            Share::Half => 2,
        };
        let (from, to, share) = (order.from, order.to, order.share);
        let count = active.len().div_ceil(step);
        self.parts.log.write(
            Level::Debug,
            format!("Worker {from} gives {count} active connections to worker {to} ({share:?})"),
        );
        for &conn in active.iter().rev().step_by(step) {
            if self.moving.is_leaving(conn) || self.ring.is_ended(conn) {
                continue;
            }
            self.ring.stop(conn);
            let until_ms = self.now_ms + LEAVING_MS_MAX;
            self.moving.leaving.push(Leaving { conn, to: order.to, until_ms });
        }
    }

    /// Sends away what can leave. Whether something did.
    pub(super) fn depart_connections(&mut self) -> bool {
        let mut any = false;
        let mut at = 0;
        while at < self.moving.leaving.len() {
            let Leaving { conn, to, until_ms } = self.moving.leaving[at];
            if self.can_leave(conn, to) && self.parts.shared.moves.try_begin() {
                self.moving.leaving.swap_remove(at);
                self.depart(conn, to);
                any = true;
            } else if self.now_ms > until_ms || !self.may_move() || !self.parts.broker.is_open(conn) {
                self.moving.leaving.swap_remove(at);
                self.stay(conn);
            } else {
                at += 1;
            }
        }
        any
    }

    fn can_leave(&self, conn: u32, to: usize) -> bool {
        self.ring.is_quiet(conn)
            && !self.ring.is_ended(conn)
            && !self.has_reads_of(conn)
            && !self.ended.iter().any(|(other, _)| *other == conn)
            && self.parts.broker.may_depart(conn)
            && !self.links.has_control(conn)
            && self.parts.outboxes[to].as_ref().is_some_and(|outbox| outbox.room() > 0)
            && !self.has_unsent_batches_except(to)
    }

    fn depart(&mut self, conn: u32, to: usize) {
        let doors = &self.parts.shared.doors;
        doors[self.parts.worker].connections.fetch_sub(1, Ordering::Relaxed);
        doors[to].connections.fetch_add(1, Ordering::Relaxed);
        self.unarmed.retain(|other| *other != conn);
        let cid = self.parts.broker.session(conn).expect("it can leave, so it is there").cid;
        self.latency.forget(conn);
        let fd = self.ring.release(conn);
        let link = self.links.take(conn);
        doors[to].load.sockets.lock().push(MovedSocket { cid, fd, link });
        self.parts.broker.depart(conn, to as u16);
    }

    /// Goes on with a connection that was to leave.
    fn stay(&mut self, conn: u32) {
        if self.parts.broker.is_open(conn)
            && !self.ring.is_sending(conn)
            && self.parts.broker.pending_bytes(conn) > 0
        {
            self.start_send(conn);
        }
    }

    /// Takes the sockets of connections that have come, and reads those that have settled.
    pub(super) fn take_moved(&mut self) {
        while let Some((conn, cid)) = self.parts.broker.poll_arrived() {
            let mut sockets = self.parts.shared.doors[self.parts.worker].load.sockets.lock();
            let Some(at) = sockets.iter().position(|socket| socket.cid == cid) else {
                unreachable!("the socket was put here before its session was sent");
            };
            let MovedSocket { fd, link, .. } = sockets.swap_remove(at);
            drop(sockets);
            self.ring.add(conn, fd);
            if let Some(link) = link {
                self.links.insert(conn, link);
            }
        }
        while let Some(conn) = self.parts.broker.poll_settled() {
            self.parts.shared.moves.end();
            self.unarmed.push_back(conn);
        }
    }
}
