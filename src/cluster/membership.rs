//! The servers of the cluster, as one of them knows them.
//!
//! Between two servers there is one route, whoever has dialed. A connection becomes a route when its other end has introduced itself and no
//! other connection is the route to that server already ([`Membership::introduce`]): the first one wins, as in the reference, so that mixed
//! clusters come to the same result at both ends. Should both ends prefer different ones, both connections end, and are dialed again after
//! a random time.
//!
//! Whom to dial: the configured routes (*explicit*), for ever; and servers that others have told of (*implicit*), as often as
//! `connect_retries` says. A dialer whose server is connected some other way rests until that connection ends. One that has found itself is
//! done.
//!
//! Bounds: [`IMPLICIT_MAX`] implicit dialers at a time.

use std::collections::HashMap;

use slab::Slab;

use crate::config::RouteUrl;

/// Pause before a configured route is dialed again.
pub const RECONNECT_MS: u64 = 1_000;

/// The longest pause with `connect_backoff`.
pub const BACKOFF_MS_MAX: u64 = 30_000;

/// Both ends may have chosen different connections: who dials first next time is left to chance.
const JITTER_MS: u64 = 100;

/// Servers that others have told of and that are not connected yet.
pub const IMPLICIT_MAX: usize = 256;

/// Failed attempts to reach a server that has not been connected yet are told at the first, and then once in so many, as in the
/// reference.
const REPORTS_EVERY: u32 = 3_600;

/// See the head of this file.
#[derive(Debug)]
pub struct Membership {
    own_id: String,
    /// The route to each server.
    members: HashMap<String, u32>,
    dialers: Slab<Dialer>,
    serial: u32,
    retries_max: u32,
    backs_off: bool,
    random: fastrand::Rng,
}

/// Names a dialer, and is never that of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DialId {
    slot: u32,
    serial: u32,
}

#[derive(Debug)]
struct Dialer {
    serial: u32,
    url: RouteUrl,
    is_explicit: bool,
    /// The server that it has reached, or is to reach.
    remote_id: Option<String>,
    state: State,
    /// Failed ones in a row.
    attempts: u32,
    pause_ms: u64,
    /// It has reached a server before.
    has_connected: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting {
        until_ms: u64,
    },
    Dialing,
    Connected,
    /// Its server is connected another way.
    Resting,
    /// It leads here.
    Oneself,
}

/// An address to be dialed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dial {
    /// Names the dialer.
    pub id: DialId,
    /// Where to.
    pub url: RouteUrl,
}

/// What becomes of a connection whose other end has introduced itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// It is the route to that server.
    Route,
    /// There is one already.
    Duplicate,
    /// Both ends are this server.
    Oneself,
}

/// A failed attempt to dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// How many that were in a row.
    pub attempt: u32,
    /// Whether it is one that an operator should see.
    pub is_reported: bool,
}

impl Membership {
    /// The membership of a server that knows nobody yet. It dials `routes` at once.
    pub fn new(
        own_id: String,
        routes: &[RouteUrl],
        retries_max: u32,
        backs_off: bool,
        seed: u64,
    ) -> Membership {
        let mut membership = Membership {
            own_id,
            members: HashMap::new(),
            dialers: Slab::new(),
            serial: 0,
            retries_max,
            backs_off,
            random: fastrand::Rng::with_seed(seed),
        };
        for url in routes {
            membership.add_dialer(url.clone(), true, None, 0);
        }
        membership
    }

    fn add_dialer(&mut self, url: RouteUrl, is_explicit: bool, remote_id: Option<String>, at_ms: u64) {
        self.serial = self.serial.wrapping_add(1);
        self.dialers.insert(Dialer {
            serial: self.serial,
            url,
            is_explicit,
            remote_id,
            state: State::Waiting { until_ms: at_ms },
            attempts: 0,
            pause_ms: RECONNECT_MS,
            has_connected: false,
        });
    }

    fn dialer(&mut self, id: DialId) -> Option<&mut Dialer> {
        self.dialers.get_mut(id.slot as usize).filter(|dialer| dialer.serial == id.serial)
    }

    /// The next address to be dialed now. Its dialer waits for [`Membership::dial_failed`] or [`Membership::dialed`].
    pub fn poll_dial(&mut self, now_ms: u64) -> Option<Dial> {
        let is_due = |state: State| matches!(state, State::Waiting { until_ms } if until_ms <= now_ms);
        let (slot, dialer) = self.dialers.iter_mut().find(|(_, dialer)| is_due(dialer.state))?;
        dialer.state = State::Dialing;
        let id = DialId { slot: slot as u32, serial: dialer.serial };
        Some(Dial { id, url: dialer.url.clone() })
    }

    /// When [`Membership::poll_dial`] has something next.
    pub fn next_ms(&self) -> Option<u64> {
        let waiting = |(_, dialer): (usize, &Dialer)| match dialer.state {
            State::Waiting { until_ms } => Some(until_ms),
            _ => None,
        };
        self.dialers.iter().filter_map(waiting).min()
    }

    /// Nobody has answered.
    pub fn dial_failed(&mut self, id: DialId, now_ms: u64) -> Option<Failure> {
        let (backs_off, retries_max) = (self.backs_off, self.retries_max);
        let dialer = self.dialer(id)?;
        dialer.attempts += 1;
        let attempt = dialer.attempts;
        dialer.state = State::Waiting { until_ms: now_ms + dialer.pause_ms };
        if backs_off {
            dialer.pause_ms = (dialer.pause_ms * 2).min(BACKOFF_MS_MAX);
        }
        let is_reported = dialer.has_connected || attempt == 1 || attempt % REPORTS_EVERY == 0;
        if !dialer.is_explicit && attempt > retries_max {
            self.dialers.remove(id.slot as usize);
        }
        Some(Failure { attempt, is_reported })
    }

    /// There is a connection. Whether it is still wanted.
    pub fn dialed(&mut self, id: DialId) -> bool {
        let Some(dialer) = self.dialer(id) else { return false };
        dialer.state = State::Connected;
        true
    }

    /// What a dialer's own address says of who one is.
    pub fn url(&self, id: DialId) -> Option<&RouteUrl> {
        let dialer = self.dialers.get(id.slot as usize).filter(|dialer| dialer.serial == id.serial)?;
        Some(&dialer.url)
    }

    /// Whether a dialer is that of a configured route.
    pub fn is_explicit(&self, id: DialId) -> bool {
        let dialer = self.dialers.get(id.slot as usize).filter(|dialer| dialer.serial == id.serial);
        dialer.is_some_and(|dialer| dialer.is_explicit)
    }

    /// The other end of connection `conn` is server `remote_id`.
    pub fn introduce(&mut self, conn: u32, dial: Option<DialId>, remote_id: &str) -> Join {
        let (is_oneself, is_known) = (remote_id == self.own_id, self.members.contains_key(remote_id));
        if let Some(dialer) = dial.and_then(|id| self.dialer(id)) {
            dialer.remote_id = Some(remote_id.to_owned());
            (dialer.attempts, dialer.pause_ms) = (0, RECONNECT_MS);
            dialer.has_connected = true;
            dialer.state = match (is_oneself, is_known) {
                (true, _) => State::Oneself,
                (false, true) => State::Resting,
                (false, false) => State::Connected,
            };
        }
        if is_oneself {
            return Join::Oneself;
        }
        if is_known {
            return Join::Duplicate;
        }
        self.members.insert(remote_id.to_owned(), conn);
        // Whoever else is on the way there need not go.
        for (_, dialer) in &mut self.dialers {
            let is_there = dialer.remote_id.as_deref() == Some(remote_id);
            if is_there && matches!(dialer.state, State::Waiting { .. }) {
                dialer.state = State::Resting;
            }
        }
        Join::Route
    }

    /// A connection has ended. `dial`: it was dialed; `remote_id`: who its other end was, as far as that has become known.
    pub fn closed(&mut self, conn: u32, dial: Option<DialId>, remote_id: Option<&str>, now_ms: u64) {
        let remote_id = remote_id.filter(|id| self.members.get(*id) == Some(&conn));
        let retries_max = self.retries_max;
        if let Some(id) = remote_id {
            self.members.remove(id);
        }
        let jitter_ms = self.random.u64(0..=JITTER_MS);
        if let Some(dialer) = dial.and_then(|id| self.dialer(id))
            && dialer.state == State::Connected
        {
            dialer.state = State::Waiting { until_ms: now_ms + RECONNECT_MS + jitter_ms };
        }
        let Some(id) = remote_id else { return };
        for (_, dialer) in &mut self.dialers {
            if dialer.state == State::Resting && dialer.remote_id.as_deref() == Some(id) {
                dialer.state = State::Waiting { until_ms: now_ms + RECONNECT_MS + jitter_ms };
            }
        }
        // One that others have told of is tried again only if that is wanted; whoever restarts has another id.
        let is_over = |dialer: &Dialer| {
            !dialer.is_explicit
                && dialer.has_connected
                && retries_max == 0
                && matches!(dialer.state, State::Waiting { .. })
        };
        self.dialers.retain(|_, dialer| !is_over(dialer));
    }

    /// Another server tells of one that can be reached at `url`.
    pub fn hear_of(&mut self, remote_id: &str, url: RouteUrl, now_ms: u64) {
        let is_known =
            remote_id.is_empty() || remote_id == self.own_id || self.members.contains_key(remote_id);
        let is_dialed = self.dialers.iter().any(|(_, dialer)| {
            dialer.remote_id.as_deref() == Some(remote_id) || dialer.url.is_same_place(&url)
        });
        let implicit = self.dialers.iter().filter(|(_, dialer)| !dialer.is_explicit).count();
        if !is_known && !is_dialed && implicit < IMPLICIT_MAX {
            self.add_dialer(url, false, Some(remote_id.to_owned()), now_ms);
        }
    }

    /// The route to a server.
    pub fn route_to(&self, remote_id: &str) -> Option<u32> {
        self.members.get(remote_id).copied()
    }

    /// All routes.
    pub fn routes(&self) -> impl Iterator<Item = (&str, u32)> {
        self.members.iter().map(|(id, conn)| (id.as_str(), *conn))
    }

    /// Number of servers that there is a route to.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> RouteUrl {
        RouteUrl::parse(text).unwrap()
    }

    fn membership(routes: &[&str]) -> Membership {
        let routes: Vec<RouteUrl> = routes.iter().map(|text| url(text)).collect();
        Membership::new("ME".into(), &routes, 0, false, 1)
    }

    #[test]
    fn configured_routes_are_dialed_for_ever_with_a_pause_and_told_of_once() {
        let mut members = membership(&["nats://a:1"]);
        let dial = members.poll_dial(0).unwrap();
        assert!(members.poll_dial(0).is_none() && members.next_ms().is_none());
        assert_eq!(members.dial_failed(dial.id, 0), Some(Failure { attempt: 1, is_reported: true }));
        assert!(members.poll_dial(RECONNECT_MS - 1).is_none());
        for attempt in 2..10 {
            let now_ms = members.next_ms().unwrap();
            let dial = members.poll_dial(now_ms).unwrap();
            let failure = members.dial_failed(dial.id, now_ms).unwrap();
            assert_eq!(failure, Failure { attempt, is_reported: false });
        }
    }

    #[test]
    fn pauses_grow_where_that_is_configured() {
        let mut members = Membership::new("ME".into(), &[url("nats://a:1")], 0, true, 1);
        let mut now_ms = 0;
        for pause_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
            let dial = members.poll_dial(now_ms).unwrap();
            members.dial_failed(dial.id, now_ms);
            assert_eq!(members.next_ms(), Some(now_ms + pause_ms));
            now_ms += pause_ms;
        }
    }

    #[test]
    fn the_first_connection_to_a_server_is_its_route_and_others_rest_until_it_ends() {
        let mut members = membership(&["nats://a:1", "nats://b:1"]);
        let (first, second) = (members.poll_dial(0).unwrap(), members.poll_dial(0).unwrap());
        assert!(members.dialed(first.id) && members.dialed(second.id));
        assert_eq!(members.introduce(1, Some(first.id), "A"), Join::Route);
        assert_eq!(members.introduce(2, Some(second.id), "A"), Join::Duplicate);
        members.closed(2, Some(second.id), Some("A"), 10);
        assert_eq!((members.next_ms(), members.route_to("A")), (None, Some(1)));
        members.closed(1, Some(first.id), Some("A"), 10);
        assert!(members.is_empty());
        let due: Vec<_> = std::iter::from_fn(|| members.poll_dial(10 + RECONNECT_MS + JITTER_MS)).collect();
        assert_eq!(due.len(), 2);
    }

    #[test]
    fn a_route_that_leads_here_is_not_dialed_again() {
        let mut members = membership(&["nats://me:1"]);
        let dial = members.poll_dial(0).unwrap();
        members.dialed(dial.id);
        assert_eq!(members.introduce(1, Some(dial.id), "ME"), Join::Oneself);
        assert_eq!(members.introduce(2, None, "ME"), Join::Oneself);
        members.closed(1, Some(dial.id), Some("ME"), 5);
        assert_eq!(members.next_ms(), None);
    }

    #[test]
    fn who_was_refused_is_dialed_again() {
        let mut members = membership(&["nats://a:1"]);
        let dial = members.poll_dial(0).unwrap();
        members.dialed(dial.id);
        members.closed(1, Some(dial.id), None, 50);
        assert!(members.next_ms().unwrap() >= 50 + RECONNECT_MS);
    }

    #[test]
    fn servers_that_others_tell_of_are_dialed_once_unless_they_are_known() {
        let mut members = membership(&["nats://a:1"]);
        let explicit = members.poll_dial(0).unwrap();
        members.dialed(explicit.id);
        members.introduce(1, Some(explicit.id), "A");
        members.hear_of("A", url("nats-route://10.0.0.1:1/"), 7);
        members.hear_of("ME", url("nats-route://10.0.0.2:1/"), 7);
        members.hear_of("B", url("nats-route://a:1/"), 7);
        assert_eq!(members.next_ms(), None);
        members.hear_of("B", url("nats-route://10.0.0.3:1/"), 7);
        members.hear_of("B", url("nats-route://10.0.0.3:1/"), 7);
        let implicit = members.poll_dial(7).unwrap();
        assert!(members.poll_dial(7).is_none() && !members.is_explicit(implicit.id));
        assert_eq!(members.dial_failed(implicit.id, 7), Some(Failure { attempt: 1, is_reported: true }));
        assert_eq!(members.next_ms(), None, "it has had its attempt");
        members.hear_of("B", url("nats-route://10.0.0.3:1/"), 8);
        let again = members.poll_dial(8).unwrap();
        assert!(members.dialed(again.id) && !members.dialed(implicit.id));
        members.introduce(2, Some(again.id), "B");
        members.closed(2, Some(again.id), Some("B"), 9);
        assert_eq!(members.next_ms(), None);
        for number in 0..2 * IMPLICIT_MAX {
            members.hear_of(&format!("S{number}"), url(&format!("nats-route://10.0.0.4:{}", number + 1)), 9);
        }
        assert_eq!(std::iter::from_fn(|| members.poll_dial(9)).count(), IMPLICIT_MAX);
    }
}
