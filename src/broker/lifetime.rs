//! Time and the end of connections: pings, time-outs, sent output, closing.
//!
//! A connection ends in three steps. [`Broker::close`] marks it: from then on nothing is delivered to it and its input
//! is ignored. Its subscriptions are taken out of the index a slice per turn, so that a connection with a million of
//! them does not stall its worker. The server meanwhile sends what is queued, if the reason allows, and ends the
//! socket; when the kernel holds nothing of it any more and the subscriptions are gone, [`Broker::remove`] frees it.

use std::time::Duration;

use super::core::Broker;
use super::log_lines::Level;
use super::pace::CONSUMER_HOLD_BYTES;
use super::session::CloseReason;
use crate::subject::interest::InterestAccess;
use crate::wire::error_text::ErrorText;
use crate::wire::frame;

/// The first ping goes out so soon after `CONNECT`, to learn the round-trip time.
const FIRST_PING_MS: u64 = 2_000;

/// The round-trip time is measured anew when it is older than this.
const RTT_MAX_AGE_MS: u64 = 3_600_000;

/// Bytes offered to one send, but for the last slice.
const SEND_BYTES_MAX: usize = 512 * 1024;

/// Subscriptions of closing connections removed per turn.
const TEARDOWN_PER_TURN_MAX: usize = 2_000;

/// What a closing connection still has in the indexes.
#[derive(Debug)]
pub(super) enum Teardown {
    /// Subscriptions of a client.
    Subscriptions(Vec<u32>),
    /// What another server wants, with the numbers of members.
    Route(Vec<(Box<[u8]>, u32)>),
}

impl<A: InterestAccess> Broker<A> {
    /// Starts a turn: sets the time and does what is due.
    ///
    /// `now` counts from a moment that all brokers of a server share.
    pub fn begin_turn(&mut self, now: Duration) {
        let now_ms = now.as_millis() as u64;
        self.local.now_ms = now_ms;
        self.local.now_us = now.as_micros() as u64;
        self.local.turn_bytes = 0;
        if self.workers == 1 {
            // There is nobody to tell.
            self.local.congestion_changes.clear();
        }
        if !self.wheel.is_empty() {
            let mut due = Vec::new();
            self.wheel.advance(now_ms, |key| due.push(key));
            for (conn, cid) in due {
                let session = self.local.sessions.get(conn as usize);
                if session.is_some_and(|session| session.cid == cid && session.timer_at_ms <= now_ms) {
                    self.handle_timer(conn);
                }
            }
        }
        self.expire_responses();
        if !self.local.congested.is_empty() {
            self.local.review_congested();
        }
        if !self.teardown.is_empty() {
            self.tear_down();
        }
    }

    /// When the next turn is due even if nothing happens, or `None`.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        if !self.teardown.is_empty() {
            return Some(self.local.now_ms);
        }
        let soon = (!self.local.congested.is_empty()).then_some(self.local.now_ms + 10);
        [self.wheel.next_ms(), self.next_response_ms(), self.next_dial_ms(), soon].into_iter().flatten().min()
    }

    pub(super) fn set_timer(&mut self, conn: u32, after_ms: u64) {
        let at_ms = self.local.now_ms.saturating_add(after_ms);
        let session = &mut self.local.sessions[conn as usize];
        session.timer_at_ms = at_ms;
        self.wheel.set(at_ms, (conn, session.cid));
    }

    pub(super) fn set_first_ping_timer(&mut self, conn: u32) {
        let session = &self.local.sessions[conn as usize];
        let first_ms = self.settings.ping_interval_ms_of(session).min(FIRST_PING_MS);
        let jitter_ms = self.random.u64(0..=first_ms / 5);
        self.set_timer(conn, first_ms + jitter_ms);
    }

    /// The time within which a client has to say something for the first time.
    pub(super) fn set_opening_timer(&mut self, conn: u32) {
        let session = &self.local.sessions[conn as usize];
        let after_ms = if session.flags.connected {
            self.settings.ping_interval_ms_of(session)
        } else {
            self.settings.auth_timeout_ms_of(session)
        };
        self.set_timer(conn, after_ms);
    }

    fn handle_timer(&mut self, conn: u32) {
        let now_ms = self.local.now_ms;
        let pings_out_max = self.settings.pings_out_max;
        let session = &mut self.local.sessions[conn as usize];
        let interval_ms = self.settings.ping_interval_ms_of(session).max(1);
        // While a password is checked neither it nor the client is late; the verdict sets the next timer.
        if session.closing.is_some() || session.checking.is_some() {
            return;
        }
        if session.is_route() {
            return self.handle_route_timer(conn);
        }
        if session.is_guest() {
            return self.dismiss_guest(conn);
        }
        if session.secure.is_some() && self.handle_secure_timer(conn) {
            return;
        }
        let session = &mut self.local.sessions[conn as usize];
        if !session.flags.connected {
            return self.refuse_late(conn);
        }
        let rtt_is_old = !session.flags.ponged || now_ms - session.ping_sent_us / 1000 > RTT_MAX_AGE_MS;
        let heard_lately = now_ms - session.last_input_ms < interval_ms;
        if rtt_is_old || !heard_lately {
            if session.pings_out + 1 > pings_out_max {
                self.local.stats.stale_connections += 1;
                self.log_session(conn, Level::Debug, "Stale Client Connection - Closing");
                self.local.send_error(conn, &ErrorText::StaleConnection);
                return self.close(conn, CloseReason::StaleConnection);
            }
            self.send_ping(conn);
        }
        if self.local.sessions[conn as usize].closing.is_none() {
            self.set_timer(conn, interval_ms);
        }
    }

    pub(super) fn send_ping(&mut self, conn: u32) {
        let session = &mut self.local.sessions[conn as usize];
        session.pings_out += 1;
        session.ping_sent_us = self.local.now_us;
        self.local.write_line(conn, frame::PING);
    }

    /// Finds out the round-trip time of a connection of which nothing is known, if it has come so far that a ping does not
    /// confuse it.
    pub(super) fn ask_for_rtt(&mut self, conn: u32) {
        let session = &self.local.sessions[conn as usize];
        let age_us = self.local.now_us.saturating_sub(session.started_us);
        let is_ready = session.flags.first_pong_sent || age_us > FIRST_PING_MS * 1000;
        if session.rtt_us == 0 && session.pings_out == 0 && is_ready {
            self.send_ping(conn);
        }
    }

    /// Begins to close a connection. Nothing happens if it is closing already.
    pub fn close(&mut self, conn: u32, reason: CloseReason) {
        let session = &mut self.local.sessions[conn as usize];
        if session.closing.is_some() {
            return;
        }
        session.closing = Some(reason);
        self.local.closing.push(conn);
    }

    /// Tells one client to go elsewhere. Whether it understands that.
    pub fn tell_to_leave(&mut self, conn: u32) -> bool {
        let session = &self.local.sessions[conn as usize];
        let understands = session.flags.first_pong_sent
            && session.connect.as_ref().is_some_and(|connect| connect.protocol >= 1);
        if understands {
            self.log_session(conn, Level::Debug, "Sending Lame Duck Mode info to client");
            let line = self.lame_duck_info_for(conn);
            self.local.write_line(conn, &line);
        }
        understands
    }

    /// Begins to close a connection because the server refuses it, and tells it why.
    pub fn refuse(&mut self, conn: u32) {
        self.local.write_error(conn, &ErrorText::MaximumConnections);
        self.close(conn, CloseReason::MaxConnectionsExceeded);
    }

    /// The next connection that began to close since the last call, with the reason.
    pub fn poll_closing(&mut self) -> Option<(u32, CloseReason)> {
        let conn = self.local.closing.pop()?;
        let session = &mut self.local.sessions[conn as usize];
        let reason = session.closing.expect("listed as closing");
        session.decoder = Default::default();
        if session.is_route() {
            let interest = self.leave_cluster(conn, reason);
            self.teardown.push_back((conn, Teardown::Route(interest)));
            return Some((conn, reason));
        }
        let (account, counted) = (session.account, session.flags.counted);
        session.leave_account();
        if counted {
            self.note_account_changed(account);
        }
        self.note_disconnected(conn, reason);
        let session = &self.local.sessions[conn as usize];
        let is_slow = matches!(
            session.closing,
            Some(CloseReason::SlowConsumerPendingBytes | CloseReason::SlowConsumerWriteDeadline)
        );
        self.local.past[usize::from(session.account)].add(session.counters, u64::from(is_slow));
        let subs = self.local.subscriptions_of(conn);
        self.teardown.push_back((conn, Teardown::Subscriptions(subs)));
        if self.settings.debug && !self.is_guest(conn) {
            self.log_session(conn, Level::Debug, &format!("Client connection closed: {reason}"));
        }
        Some((conn, reason))
    }

    fn tear_down(&mut self) {
        let mut budget = TEARDOWN_PER_TURN_MAX;
        while let Some((conn, teardown)) = self.teardown.pop_front() {
            let mut subs = match teardown {
                Teardown::Subscriptions(subs) => subs,
                Teardown::Route(mut interest) => {
                    if !self.tear_down_route(conn, &mut interest, &mut budget) {
                        self.teardown.push_front((conn, Teardown::Route(interest)));
                        return;
                    }
                    self.local.sessions[conn as usize].flags.torn_down = true;
                    continue;
                }
            };
            let account = self.local.sessions[conn as usize].account;
            while let Some(sub) = subs.pop() {
                let subscription = self.local.take_subscription(sub);
                self.forget_interest(account, sub, &subscription);
                budget -= 1;
                if budget == 0 {
                    self.teardown.push_front((conn, Teardown::Subscriptions(subs)));
                    return;
                }
            }
            self.local.sessions[conn as usize].flags.torn_down = true;
        }
    }

    /// Whether a closing connection can be removed as far as the broker is concerned.
    pub fn is_torn_down(&self, conn: u32) -> bool {
        let flags = self.local.sessions[conn as usize].flags;
        flags.torn_down && !flags.settling
    }

    /// Forgets a connection. Its slot may be reused at once, so nothing may be in the kernel's hands.
    ///
    /// # Panics
    ///
    /// If it is not torn down.
    pub fn remove(&mut self, conn: u32) {
        assert!(self.is_torn_down(conn));
        if self.local.sessions[conn as usize].flags.congested {
            self.local.forget_congestion(conn);
        }
        let mut session = self.local.sessions.remove(conn as usize);
        session.output.clear(&mut self.local.pool);
        if session.flags.dirty {
            self.local.dirty.retain(|other| *other != conn);
        }
    }

    /// The next connection with unsent output since the last call.
    #[inline]
    pub fn poll_dirty(&mut self) -> Option<u32> {
        loop {
            let conn = self.local.dirty.pop()?;
            let flags = &mut self.local.sessions[conn as usize].flags;
            flags.dirty = false;
            // It is listed again when it has settled.
            if !flags.settling {
                return Some(conn);
            }
        }
    }

    /// Reports that a send of unsent output begins; there is at most one at a time.
    #[inline]
    pub fn handle_send_started(&mut self, conn: u32) {
        let session = &mut self.local.sessions[conn as usize];
        session.progress_ms = self.local.now_ms;
        if session.counters.out_msgs != session.out_msgs_sent {
            session.out_msgs_sent = session.counters.out_msgs;
            session.active_ms = self.local.now_ms;
        }
    }

    /// The unsent output of a connection, in place until [`Broker::handle_sent`], at most `max` slices.
    /// No more than about `SEND_BYTES_MAX`, so that a send that goes through shows that its receiver reads.
    pub fn unsent(&self, conn: u32, max: usize) -> impl Iterator<Item = &[u8]> {
        let mut before = 0;
        self.local.sessions[conn as usize].output.slices(max).take_while(move |slice| {
            let fits = before < SEND_BYTES_MAX;
            before += slice.len();
            fits
        })
    }

    /// Bytes queued for a connection.
    pub fn pending_bytes(&self, conn: u32) -> usize {
        self.local.sessions[conn as usize].output.pending_bytes()
    }

    /// Reports that the first `len` unsent bytes are gone.
    #[inline]
    pub fn handle_sent(&mut self, conn: u32, len: usize) {
        let session = &mut self.local.sessions[conn as usize];
        session.output.sent(len, &mut self.local.pool);
        session.progress_ms = self.local.now_ms;
        if session.behind_since_ms != 0 && session.output.pending_bytes() <= CONSUMER_HOLD_BYTES / 2 {
            session.behind_since_ms = 0;
        }
    }

    /// Cuts off a connection whose send took too long. `chunks` is how many pieces wait.
    pub fn handle_write_deadline(&mut self, conn: u32) {
        let session = &self.local.sessions[conn as usize];
        let deadline_ms = self.write_deadline_ms_of(session);
        let text = format!(
            "Slow Consumer Detected: WriteDeadline of {} exceeded with {} chunks of {} total bytes.",
            go_duration(deadline_ms),
            session.output.segment_count(),
            session.output.pending_bytes(),
        );
        self.local.cut_off(conn, CloseReason::SlowConsumerWriteDeadline, &text);
    }
}

/// A duration as the reference prints it: `10s`, `1m30s`, `250ms`.
fn go_duration(ms: u64) -> String {
    let (minutes, seconds, millis) = (ms / 60_000, ms % 60_000 / 1000, ms % 1000);
    match (minutes, seconds, millis) {
        (0, 0, millis) => format!("{millis}ms"),
        (0, seconds, 0) => format!("{seconds}s"),
        (0, seconds, millis) => format!("{}s", format!("{seconds}.{millis:03}").trim_end_matches('0')),
        (minutes, seconds, _) => format!("{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_the_references_log() {
        for (ms, text) in
            [(10_000, "10s"), (250, "250ms"), (1500, "1.5s"), (90_000, "1m30s"), (120_000, "2m0s")]
        {
            assert_eq!(go_duration(ms), text);
        }
    }
}
