//! Slow consumers and fast producers.
//!
//! A consumer that does not read is cut off: at `max_pending` bytes, or when one send takes longer than
//! `write_deadline`. Those are the reference's rules and texts.
//!
//! A consumer that reads, but more slowly than its producers write, should not collect 64 MB first. When more than
//! `CONSUMER_HOLD_BYTES` wait for it, and it has taken something within the last `PROGRESS_MS`, its producers are held
//! back until it is down to half, for at most `HOLD_MS` per read (the reference holds back for up to 10 ms per read
//! too, but only from three quarters of `max_pending` on). A consumer that takes nothing is not waited for, so that it
//! does not slow anybody down while its time runs out.
//!
//! A consumer may belong to another worker: workers tell each other in their batches which of their connections have
//! fallen behind.

use super::core::{Broker, Local};
use super::log_lines::Level;
use super::publish::Delivered;
use super::session::{CloseReason, Hold};
use crate::subject::interest::{InterestAccess, WorkerId};

/// Bytes waiting for one consumer from which its producers are held back.
pub const CONSUMER_HOLD_BYTES: usize = 1024 * 1024;

/// A consumer that has taken nothing for so long is not waited for.
const PROGRESS_MS: u64 = 50;

/// How long a producer is held back at most, per read.
const HOLD_MS: u64 = 10;

/// From so many quarters of `max_pending` on producers are held back in any case.
pub(super) const PENDING_STALL_NUMERATOR: usize = 3;

impl<A: InterestAccess> Broker<A> {
    /// Holds a publisher back because `consumer` has fallen behind. `false` if it has waited already.
    #[cold]
    pub(super) fn hold(&mut self, conn: u32, consumer: (WorkerId, u32)) -> bool {
        let until_ms = self.local.now_ms + HOLD_MS;
        let session = &mut self.local.sessions[conn as usize];
        // A connection is never held for itself: only its own reading could end that.
        if session.flags.hold_spent || consumer == (self.worker, conn) {
            return false;
        }
        session.flags.hold_spent = true;
        session.hold = Some(Hold { on: consumer, until_ms });
        self.local.stats.holds += 1;
        true
    }

    /// Whether input of `conn` has to wait. Ends the hold when its reason or its time is over.
    pub fn is_held(&mut self, conn: u32) -> bool {
        let now_ms = self.local.now_ms;
        let Some(session) = self.local.sessions.get(conn as usize) else { return false };
        let Some(hold) = session.hold else { return false };
        let (worker, consumer) = hold.on;
        let behind = if worker == self.worker {
            self.local.sessions.get(consumer as usize).is_some_and(|session| session.flags.congested)
        } else {
            self.congested_peers.contains(&hold.on)
        };
        let held = behind && now_ms < hold.until_ms && session.closing.is_none();
        if !held {
            let session = &mut self.local.sessions[conn as usize];
            session.hold = None;
            // It waited for nothing in particular: it may have to wait again for these bytes.
            session.flags.hold_spent = behind;
        }
        held
    }

    /// Tells the other workers which connections fell behind or caught up.
    pub(super) fn announce_congestion(&mut self) {
        if self.local.congestion_changes.is_empty() {
            return;
        }
        for (conn, congested) in std::mem::take(&mut self.local.congestion_changes) {
            for (worker, outgoing) in self.outgoing[..self.workers].iter_mut().enumerate() {
                if worker != usize::from(self.worker) {
                    outgoing.current.push_congestion(conn, congested);
                }
            }
        }
    }
}

impl Local {
    /// Called when more than `CONSUMER_HOLD_BYTES` wait for `conn`.
    #[inline(never)]
    pub fn pace_consumer(&mut self, conn: u32) -> Delivered {
        let now_ms = self.now_ms;
        let session = &mut self.sessions[conn as usize];
        if session.behind_since_ms == 0 {
            session.behind_since_ms = now_ms.max(1);
        }
        self.check_pending(conn);
        let session = &self.sessions[conn as usize];
        if session.closing.is_some() || !self.is_worth_waiting_for(conn) {
            return Delivered::Yes;
        }
        if !self.sessions[conn as usize].flags.congested {
            self.sessions[conn as usize].flags.congested = true;
            self.sessions[conn as usize].stalls += 1;
            self.congested.push(conn);
            self.congestion_changes.push((conn, true));
        }
        Delivered::Congested
    }

    /// The connection is about to leave this worker's tables.
    pub fn forget_congestion(&mut self, conn: u32) {
        self.congested.retain(|other| *other != conn);
        self.congestion_changes.push((conn, false));
    }

    fn is_worth_waiting_for(&self, conn: u32) -> bool {
        let session = &self.sessions[conn as usize];
        let pending = session.output.pending_bytes();
        if session.closing.is_some() || pending <= CONSUMER_HOLD_BYTES / 2 {
            return false;
        }
        pending > self.pending_max / 4 * PENDING_STALL_NUMERATOR
            || self.now_ms.saturating_sub(session.progress_ms) < PROGRESS_MS
    }

    /// Looks again at the connections that fell behind.
    pub fn review_congested(&mut self) {
        let mut at = 0;
        while at < self.congested.len() {
            let conn = self.congested[at];
            if self.sessions.contains(conn as usize) && self.is_worth_waiting_for(conn) {
                at += 1;
                continue;
            }
            self.congested.swap_remove(at);
            if let Some(session) = self.sessions.get_mut(conn as usize) {
                session.flags.congested = false;
            }
            self.congestion_changes.push((conn, false));
        }
    }

    /// Cuts a consumer off, with a line in the log that names it.
    #[cold]
    pub fn cut_off(&mut self, conn: u32, reason: CloseReason, text: &str) {
        let session = &mut self.sessions[conn as usize];
        if session.closing.is_some() {
            return;
        }
        session.closing = Some(reason);
        self.closing.push(conn);
        self.stats.slow_consumers += 1;
        self.log.push(Level::Info, format_args!("{} - {text}", self.sessions[conn as usize].label()));
    }
}
