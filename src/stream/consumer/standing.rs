//! How a consumer stands, as numbers: what it lags behind by, in messages and in time, and what keeps it from delivering.
//!
//! Not what the API tells of it, which is the reference's and in [`super::core`]. Nothing of this is kept up to date message by
//! message: it is found when somebody asks, from the consumer's state and the store's index. What cannot be found afterwards (how long
//! acknowledgements took, how often something was delivered again) is counted, since the server's start.
//!
//! Lag in time is the age of a message, by the time when it was stored: of the first one that was not delivered, and of
//! the first one that was delivered and is not acknowledged. Neither begins anew when something is delivered again, or when the server is
//! started again. For how long a consumer has *stalled* is another question: for how long it has had something to
//! deliver and has delivered nothing. One that catches up with old messages lags by their age and has not stalled.

use crate::base::histogram::{Histogram, class_of};

use super::config::AckPolicy;
use super::core::Consumer;
use super::state::SequencePair;
use super::turn::{Effects, Outlet, Turn};

/// What keeps a consumer from delivering what it has to deliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// It is paused.
    Paused,
    /// As many messages wait for their acknowledgement as may.
    Unacknowledged,
    /// No client asks for messages.
    NoRequest,
    /// No client listens to the subject that it delivers to.
    NoListener,
    /// The client was asked whether it keeps up, and has not answered.
    FlowControl,
}

impl Obstacle {
    /// A word for it.
    pub fn word(self) -> &'static str {
        match self {
            Obstacle::Paused => "paused",
            Obstacle::Unacknowledged => "unacknowledged",
            Obstacle::NoRequest => "no_request",
            Obstacle::NoListener => "no_listener",
            Obstacle::FlowControl => "flow_control",
        }
    }
}

/// See the file's header. Times are nanoseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// When this was so.
    pub now_ns: i64,
    /// When the consumer was created.
    pub created_ns: i64,
    /// What it is for.
    pub description: String,
    /// It delivers by itself; otherwise clients ask.
    pub is_push: bool,
    /// It delivers nothing until a time that was set.
    pub is_paused: bool,
    /// Somebody listens to it.
    pub is_bound: bool,
    /// What is acknowledged.
    pub ack_policy: AckPolicy,
    /// How long an acknowledgement may take.
    pub ack_wait_ns: i64,
    /// Messages that may wait for it at once; below 1: any number.
    pub ack_pending_max: i64,
    /// The last delivery.
    pub delivered: SequencePair,
    /// Everything up to here is handled.
    pub ack_floor: SequencePair,
    /// When something was last delivered, since the server's start.
    pub last_delivered_ns: Option<i64>,
    /// When something was last acknowledged, since the server's start.
    pub last_acked_ns: Option<i64>,
    /// Messages that have not been delivered.
    pub undelivered: u64,
    /// When the first of them was stored.
    pub undelivered_since_ns: Option<i64>,
    /// Messages that were delivered and are not acknowledged.
    pub unacknowledged: u64,
    /// When the first of them was stored.
    pub unacknowledged_since_ns: Option<i64>,
    /// Messages that were delivered more than once and are not handled.
    pub redelivered: u64,
    /// Messages that were delivered as often as they may be, and are not handled.
    pub given_up: u64,
    /// Deliveries of messages that had been delivered before, since the server's start.
    pub redeliveries: u64,
    /// Requests that wait for messages.
    pub waiting: u64,
    /// What keeps it from delivering.
    pub obstacle: Option<Obstacle>,
    /// Since when it has had something to deliver and has delivered nothing.
    pub stalled_since_ns: Option<i64>,
    /// How long messages waited for their acknowledgement; `None`: none was acknowledged.
    pub ack_times: Option<Box<Histogram>>,
}

impl Standing {
    /// Seconds from a time on until now.
    pub fn seconds_since(&self, at_ns: i64) -> f64 {
        self.now_ns.saturating_sub(at_ns).max(0) as f64 / 1e9
    }

    /// The age of the first message that was not delivered; 0 if there is none.
    pub fn undelivered_seconds(&self) -> f64 {
        self.undelivered_since_ns.map_or(0.0, |since_ns| self.seconds_since(since_ns))
    }

    /// The age of the first message that is not acknowledged; 0 if there is none.
    pub fn unacknowledged_seconds(&self) -> f64 {
        self.unacknowledged_since_ns.map_or(0.0, |since_ns| self.seconds_since(since_ns))
    }

    /// For how long it has had something to deliver and has delivered nothing.
    pub fn stalled_seconds(&self) -> f64 {
        self.stalled_since_ns.map_or(0.0, |since_ns| self.seconds_since(since_ns))
    }
}

impl Consumer {
    /// How it stands.
    pub(super) fn standing<O: Outlet>(&mut self, turn: &mut Turn<'_, O>) -> Standing {
        self.look_through_waiting(false, true, turn);
        self.refresh_backlog(turn.store, turn.removals);
        let undelivered_since_ns = self.first_undelivered(turn).and_then(|seq| turn.store.time_of(seq));
        let unacknowledged_since_ns =
            self.state.pending.iter().find_map(|entry| turn.store.time_of(entry.stream_seq));
        let redelivers =
            self.redeliver.iter().any(|seq| self.state.pending.get(*seq).is_some_and(|entry| entry.queued));
        let has_work = self.backlog.count > 0 || redelivers;
        // What is to be delivered again came to be so at some time behind its last delivery; that is near enough.
        let since_ns =
            undelivered_since_ns.unwrap_or(i64::MIN).max(self.last_delivered_ns.unwrap_or(self.created_ns));
        Standing {
            now_ns: turn.now_ns,
            created_ns: self.created_ns,
            description: self.config.description.clone(),
            is_push: self.push.is_some(),
            is_paused: self.config.is_paused(turn.now_ns),
            is_bound: self.is_bound(),
            ack_policy: self.config.ack_policy,
            ack_wait_ns: self.config.ack_wait.0,
            ack_pending_max: self.config.max_ack_pending.0,
            delivered: self.state.delivered,
            ack_floor: self.state.ack_floor,
            last_delivered_ns: self.last_delivered_ns,
            last_acked_ns: self.last_acked_ns,
            undelivered: self.backlog.count,
            undelivered_since_ns,
            unacknowledged: self.state.pending.len() as u64,
            unacknowledged_since_ns,
            redelivered: self.redelivered_count(),
            given_up: self.state.exceeded.len() as u64,
            redeliveries: self.redeliveries,
            waiting: self.waiting.len() as u64,
            obstacle: if has_work { self.obstacle(redelivers, turn.now_ns) } else { None },
            stalled_since_ns: has_work.then_some(since_ns),
            ack_times: self.ack_times.clone(),
        }
    }

    /// The first message that is to be delivered for the first time.
    fn first_undelivered<O: Outlet>(&self, turn: &Turn<'_, O>) -> Option<u64> {
        if self.backlog.count == 0 {
            return None;
        }
        let last_messages = self.last_messages.as_ref();
        let listed = last_messages.and_then(|last_messages| last_messages.seqs.front().copied());
        listed.or_else(|| turn.store.next_matching(&self.filters, self.scan_from()))
    }

    fn obstacle(&self, redelivers: bool, now_ns: i64) -> Option<Obstacle> {
        let pending_max = self.config.max_ack_pending.0;
        // What is delivered again is pending already.
        let is_full = pending_max > 0 && self.state.pending.len() as i64 >= pending_max && !redelivers;
        if self.config.is_paused(now_ns) {
            Some(Obstacle::Paused)
        } else if self.push.as_ref().is_some_and(|push| !push.active) {
            Some(Obstacle::NoListener)
        } else if is_full {
            Some(Obstacle::Unacknowledged)
        } else if let Some(push) = &self.push {
            push.flow.as_ref().is_some_and(|flow| flow.is_stalled()).then_some(Obstacle::FlowControl)
        } else {
            self.waiting.is_empty().then_some(Obstacle::NoRequest)
        }
    }
}

/// A message is acknowledged so long after its delivery, or after the client last said that it works on it.
#[inline]
pub(super) fn note_ack(ack_times: &mut Option<Box<Histogram>>, waited_ns: i64, effects: &mut Effects) {
    let took_us = waited_ns.max(0).unsigned_abs() / 1_000;
    // It is made once in the life of a consumer that somebody uses; those that nobody uses have none.
    let class = class_of(took_us);
    ack_times.get_or_insert_default().record_in(class, took_us, 1);
    effects.ack_times.record_in(class, took_us, 1);
    effects.has_ack_times = true;
}

#[cfg(test)]
mod tests {
    use super::super::config::Retention;
    use super::super::rig::{Rig, SECOND};
    use super::*;
    use crate::base::histogram::LATENCY_BOUNDS_US;

    fn rig() -> Rig {
        Rig::new("S", &["s.>"], Retention::Limits)
    }

    #[test]
    fn lag_in_time_is_the_age_of_what_is_not_delivered_and_not_acknowledged() {
        let mut rig = rig();
        rig.create("c", r#"{"durable_name":"c","ack_policy":"explicit","filter_subject":"s.a"}"#);
        let nothing = rig.standing("c");
        assert_eq!((nothing.undelivered, nothing.undelivered_since_ns, nothing.obstacle), (0, None, None));
        assert_eq!(nothing.stalled_seconds(), 0.0);
        rig.publish("s.a", "1");
        rig.pass(3 * SECOND);
        rig.publish("s.b", "not for it");
        rig.publish("s.a", "2");
        rig.pass(2 * SECOND);
        let standing = rig.standing("c");
        assert_eq!((standing.undelivered, standing.undelivered_seconds()), (2, 5.0));
        assert_eq!((standing.obstacle, standing.stalled_seconds()), (Some(Obstacle::NoRequest), 5.0));
        rig.pull("c", "1", "r");
        rig.pass(SECOND);
        let standing = rig.standing("c");
        assert_eq!((standing.undelivered, standing.undelivered_seconds()), (1, 3.0));
        assert_eq!((standing.unacknowledged, standing.unacknowledged_seconds()), (1, 6.0));
        assert_eq!(standing.stalled_seconds(), 1.0, "it has delivered something a second ago");
    }

    #[test]
    fn a_message_that_is_delivered_again_and_again_does_not_get_younger() {
        let mut rig = rig();
        rig.create("c", r#"{"durable_name":"c","ack_policy":"explicit","ack_wait":1000000000}"#);
        rig.publish("s.a", "1");
        for _ in 0..4 {
            rig.pull("c", "1", "r");
            rig.pass(2 * SECOND);
        }
        let standing = rig.standing("c");
        assert_eq!((standing.redeliveries, standing.redelivered), (3, 1));
        assert_eq!(standing.unacknowledged_seconds(), 8.0);
        assert_eq!(
            (standing.undelivered, standing.obstacle),
            (0, Some(Obstacle::NoRequest)),
            "it is due once more"
        );
    }

    #[test]
    fn what_keeps_a_consumer_from_delivering_is_named() {
        let mut rig = rig();
        rig.create("full", r#"{"durable_name":"full","ack_policy":"explicit","max_ack_pending":1}"#);
        rig.create("deaf", r#"{"durable_name":"deaf","ack_policy":"explicit","deliver_subject":"d.deaf"}"#);
        rig.create(
            "paused",
            r#"{"durable_name":"paused","ack_policy":"explicit","pause_until":"2099-01-01T00:00:00Z"}"#,
        );
        rig.publish("s.a", "1");
        rig.publish("s.a", "2");
        rig.pull("full", "5", "r");
        for (name, obstacle) in
            [("full", Obstacle::Unacknowledged), ("deaf", Obstacle::NoListener), ("paused", Obstacle::Paused)]
        {
            assert_eq!(rig.standing(name).obstacle, Some(obstacle), "{name}");
        }
    }

    #[test]
    fn acknowledgements_are_timed_from_the_delivery_each_message_once() {
        let mut rig = rig();
        rig.create("each", r#"{"durable_name":"each","ack_policy":"explicit"}"#);
        rig.create("all", r#"{"durable_name":"all","ack_policy":"all"}"#);
        for _ in 0..3 {
            rig.publish("s.a", "x");
        }
        for name in ["each", "all"] {
            assert_eq!(rig.standing(name).ack_times, None);
            rig.pull(name, "3", "r");
        }
        rig.pass(SECOND);
        rig.ack("$JS.ACK.S.each.1.2.2.0.0", "+ACK", "");
        rig.ack("$JS.ACK.S.each.1.2.2.0.0", "+ACK", "");
        rig.ack("$JS.ACK.S.all.1.3.3.0.0", "+ACK", "");
        let times = |rig: &mut Rig, name: &str| {
            let times = rig.standing(name).ack_times.expect("some");
            (times.count(), times.bound_of(1.0, &LATENCY_BOUNDS_US))
        };
        assert_eq!(times(&mut rig, "each"), (1, Some(1_000_000)));
        assert_eq!(times(&mut rig, "all"), (3, Some(1_000_000)));
    }
}
