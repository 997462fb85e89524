//! What a connection may do, asked while it does it.
//!
//! A connection without rules for publishing has `publishes_freely` set, which the message path looks at instead of
//! whether it is connected: it pays nothing. One with rules asks them once per subject; the answer is kept with the
//! cached fan-out list ([`FanOutCache::permits`](crate::subject::fanout::FanOutCache::permits)), so that publishing to the
//! same subject again looks at one number more. What is denied to a
//! subscription with wildcards is left out when a list is built (`Interest::subscribe_filtered`), so that a delivery
//! asks nothing at all.
//!
//! Where responses are allowed, every delivery with a reply is noted in [`Replies`], up to a bound.

use hashbrown::HashMap;
use rustc_hash::FxSeededState;

use super::core::{Broker, Local};
use super::log_lines::Level;
use super::subscription::Subscription;
use crate::auth::permissions::Responses;
use crate::subject::interest::{InterestAccess, Target};
use crate::subject::name::{Pattern, is_valid_literal_subject};
use crate::wire::Publish;
use crate::wire::error_text::{ErrorText, quote};

/// Replies of one connection that may be answered. More are not noted.
const REPLIES_MAX: usize = 64 * 1024;

/// After so many new ones, or so much time, those that are over are forgotten.
const PRUNE_AFTER: usize = 4096;
const PRUNE_AFTER_US: u64 = 1_000_000;

/// Replies that a connection may answer although it may not publish to them otherwise.
///
/// Goes with its connection to another worker, whose turns begin at other times: no time is taken to lie in the past.
#[derive(Debug)]
pub(super) struct Replies {
    rule: Responses,
    noted: HashMap<Box<[u8]>, Noted, FxSeededState>,
    since_prune: usize,
    pruned_us: u64,
}

#[derive(Debug, Clone, Copy)]
struct Noted {
    answers: u32,
    at_us: u64,
}

impl Replies {
    pub fn new(rule: Responses, hasher: FxSeededState) -> Replies {
        Replies { rule, noted: HashMap::with_hasher(hasher), since_prune: 0, pruned_us: 0 }
    }

    /// Whether a reply may be answered once more; counts the answer.
    fn take(&mut self, reply: &[u8], now_us: u64) -> bool {
        let Some(noted) = self.noted.get_mut(reply) else { return false };
        noted.answers += 1;
        let may = self.rule.max.is_none_or(|max| noted.answers <= max)
            && self.rule.expires_us.is_none_or(|expires_us| now_us.saturating_sub(noted.at_us) <= expires_us);
        if !may {
            self.noted.remove(reply);
        }
        may
    }

    fn note(&mut self, reply: &[u8], now_us: u64) {
        if self.noted.len() >= REPLIES_MAX {
            self.prune(now_us);
        }
        if self.noted.len() < REPLIES_MAX {
            self.noted.insert(reply.into(), Noted { answers: 0, at_us: now_us });
        }
        self.since_prune += 1;
        if self.since_prune > PRUNE_AFTER || now_us.saturating_sub(self.pruned_us) > PRUNE_AFTER_US {
            self.prune(now_us);
        }
    }

    fn prune(&mut self, now_us: u64) {
        let Responses { max, expires_us } = self.rule;
        self.noted.retain(|_, noted| {
            max.is_none_or(|max| noted.answers < max)
                && expires_us.is_none_or(|expires_us| now_us.saturating_sub(noted.at_us) <= expires_us)
        });
        self.since_prune = 0;
        self.pruned_us = now_us;
    }
}

impl<A: InterestAccess> Broker<A> {
    /// What a connection must pass that does not publish freely. `MAPPED`: as of [`Broker::publish`]. Whether the message goes on; says why not.
    #[inline(never)]
    pub(super) fn check_publish<const MAPPED: bool>(&mut self, conn: u32, publish: &Publish<'_>) -> bool {
        let session = &mut self.local.sessions[conn as usize];
        if !MAPPED && session.flags.pedantic && !is_valid_literal_subject(publish.subject) {
            // A warning only: the message is processed all the same.
            self.local.send_error(conn, &ErrorText::InvalidPublishSubject);
        }
        if self.may_publish(conn, publish.subject) {
            return true;
        }
        self.refuse_publish(conn, publish.subject);
        false
    }

    fn may_publish(&mut self, conn: u32, subject: &[u8]) -> bool {
        let now_us = self.local.now_us;
        let session = &mut self.local.sessions[conn as usize];
        let Some(permissions) = session.user.permissions.as_deref() else { return true };
        let cache = &mut self.accounts[usize::from(session.account)].cache;
        let may =
            cache.permits(subject, &mut session.memo, permissions.id, || permissions.may_publish(subject));
        may || session.replies.as_mut().is_some_and(|replies| replies.take(subject, now_us))
    }

    /// Tells a client that it may not publish to a subject.
    #[cold]
    pub(super) fn refuse_publish(&mut self, conn: u32, subject: &[u8]) {
        self.local.send_error(conn, &ErrorText::PublishPermission(subject.into()));
        self.log_session(conn, Level::Error, &format!("Publish Violation - Subject {}", quote(subject)));
    }

    /// Tells a client that it may not subscribe.
    pub(super) fn refuse_subscribe(&mut self, conn: u32, subject: &[u8], queue: Option<&[u8]>, sid: &[u8]) {
        let sid = String::from_utf8_lossy(sid);
        let (error, text) = match queue {
            Some(queue) => (
                ErrorText::QueuePermission(subject.into(), queue.into()),
                format!(
                    "Subscription Violation - Subject {}, Queue: {}, SID {sid}",
                    quote(subject),
                    quote(queue)
                ),
            ),
            None => (
                ErrorText::SubscribePermission(subject.into()),
                format!("Subscription Violation - Subject {}, SID {sid}", quote(subject)),
            ),
        };
        self.local.send_error(conn, &error);
        self.log_session(conn, Level::Error, &text);
    }

    /// Ends the subscriptions that a connection may not have any more, and changes what the others do not get.
    pub(super) fn reconsider_subscriptions(&mut self, conn: u32) {
        let mut denials = Vec::new();
        for sub in self.local.subscriptions_of(conn) {
            let session = &self.local.sessions[conn as usize];
            let permissions = session.user.permissions.as_deref();
            let Subscription { subject, queue, sid, generation, .. } =
                &self.local.subscriptions[sub as usize];
            let queue = queue.as_deref();
            if permissions.is_none_or(|permissions| permissions.may_subscribe(subject, queue)) {
                let pattern = Pattern::parse(subject).expect("was valid when it was subscribed");
                let denied = permissions.and_then(|permissions| permissions.delivery_denies(pattern, queue));
                let target = Target { worker: self.worker, import: 0, conn, sub, generation: *generation };
                denials.push((target, denied));
                continue;
            }
            let error = ErrorText::RemovedSubscription {
                subject: subject.to_vec(),
                queue: queue.map(<[u8]>::to_vec),
                sid: sid.as_bytes().to_vec(),
            };
            let group = queue.map(|queue| format!(" using queue {}", quote(queue))).unwrap_or_default();
            let (subject, sid, user) = (quote(subject), quote(sid.as_bytes()), session.shown_user());
            self.local.log.push(
                Level::Info,
                format_args!("Removed sub {subject}{group} (sid {sid}) for {user} - not authorized"),
            );
            self.local.send_error(conn, &error);
            self.remove_subscription(sub);
        }
        let account = self.local.sessions[conn as usize].account;
        let all = &self.local.subscriptions;
        self.accounts[usize::from(account)].interest.write(|interest| {
            for (target, denied) in &denials {
                let (target, denied) = (*target, denied.clone());
                let subject = &all[target.sub as usize].subject;
                let pattern = Pattern::parse(subject).expect("was valid when it was subscribed");
                interest.set_denied(pattern, target, denied);
            }
        });
        for (target, denied) in denials {
            self.set_denied_to_shadows(target, &denied);
        }
    }

    /// Gives a connection the permissions of its user.
    pub(super) fn take_permissions(&mut self, conn: u32) {
        let hasher = self.local.sid_seed.clone();
        let session = &mut self.local.sessions[conn as usize];
        let permissions = session.user.permissions.as_deref();
        let restricting = permissions.filter(|permissions| permissions.restrict_publishing());
        session.rules = restricting.map_or(0, |permissions| permissions.id);
        session.flags.maps = !session.user.account.mappings.is_empty();
        session.flags.publishes_freely = restricting.is_none() && !session.flags.maps;
        let rule = permissions.and_then(|permissions| permissions.responses);
        session.replies = match (rule, session.replies.take()) {
            (Some(rule), Some(replies)) if replies.rule == rule => Some(replies),
            (Some(rule), _) => Some(Box::new(Replies::new(rule, hasher))),
            (None, _) => None,
        };
        session.flags.notes_replies = session.replies.is_some();
    }
}

impl Local {
    /// Called for every delivery with a reply to a connection that may answer what it gets.
    #[inline(never)]
    pub fn note_reply(&mut self, conn: u32, reply: &[u8]) {
        let now_us = self.now_us;
        let session = &mut self.sessions[conn as usize];
        let Some(permissions) = session.user.permissions.as_deref() else { return };
        let Some(replies) = &mut session.replies else { return };
        // As in the reference, a reply that is noted already counts as answered once by the next delivery.
        if !permissions.may_publish(reply) && !replies.take(reply, now_us) {
            replies.note(reply, now_us);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::auth::Directory;
    use crate::auth::nkey::NonceKey;
    use crate::broker::{Input, Settings};
    use crate::config::{self, ConnectionTypes, Credentials, Login, Options, Password, QueueSubject};
    use crate::subject::interest::LocalInterest;
    use crate::wire::info::Info;

    /// Settings with one user `a`.
    fn settings(publish_deny: &str, subscribe_deny: &str) -> Arc<Settings> {
        let permissions = config::Permissions {
            publish_deny: vec![publish_deny.to_owned()],
            subscribe_deny: vec![QueueSubject { subject: subscribe_deny.to_owned(), queue: None }],
            ..config::Permissions::default()
        };
        let user = config::User {
            login: Login::Password { user: "a".to_owned(), password: Password::new("x".to_owned()) },
            connection_types: ConnectionTypes::ALL,
            permissions: Some(permissions),
        };
        let mut options = Options { no_system_account: true, ..Options::default() };
        options.authorization.credentials = Credentials::Users(vec![user]);
        let directory = Arc::new(Directory::new(&options, NonceKey([0; 32])).unwrap());
        Arc::new(Settings { directory, ..Settings::default() })
    }

    fn info() -> Info {
        Info::new("ID".into(), "test".into(), "0.0.0.0".into(), 4222)
    }

    /// Two workers and a connection of `a` at the first, which subscribes to everything.
    fn world(settings: &Arc<Settings>) -> ([Broker<LocalInterest>; 2], u32) {
        let index = LocalInterest::default();
        let mut brokers =
            [0, 1].map(|worker| Broker::new(worker, 2, settings.clone(), info(), vec![index.clone()], 1));
        let conn = brokers[0].open(1, "127.0.0.1:1".parse().unwrap());
        let hello = "CONNECT {\"verbose\":false,\"user\":\"a\",\"pass\":\"x\"}\r\nSUB > 1\r\n";
        assert_eq!(brokers[0].handle_bytes(conn, hello.as_bytes()), Input::Taken);
        (brokers, conn)
    }

    /// How many messages come of publishing to a subject, more often than it takes to cache everything.
    fn delivered(broker: &mut Broker<LocalInterest>, conn: u32, subject: &str) -> u64 {
        let before = broker.stats().deliveries.count;
        let publish = format!("PUB {subject} 1\r\nx\r\n").repeat(3);
        assert_eq!(broker.handle_bytes(conn, publish.as_bytes()), Input::Taken);
        broker.stats().deliveries.count - before
    }

    /// Moves the connection to the second worker.
    fn relocate(brokers: &mut [Broker<LocalInterest>; 2], conn: u32) -> u32 {
        brokers[0].depart(conn, 1);
        for (from, to) in [(0, 1), (1, 0), (0, 1)] {
            let batch = brokers[from].poll_batch(to as u16).expect("the next step");
            brokers[to].handle_batch(from as u16, &batch);
        }
        brokers[1].poll_settled().expect("it has settled")
    }

    #[test]
    fn permissions_go_with_a_connection_to_another_worker() {
        let (mut brokers, conn) = world(&settings("p.*", "s.*"));
        // The other worker knows better about another set: its answers must not count for this one.
        let other = brokers[1].open(2, "127.0.0.1:2".parse().unwrap());
        brokers[1].handle_bytes(other, b"CONNECT {\"verbose\":false,\"user\":\"a\",\"pass\":\"x\"}\r\n");
        assert_eq!(
            [delivered(&mut brokers[0], conn, "p.a"), delivered(&mut brokers[0], conn, "s.a")],
            [0, 0]
        );
        assert_eq!(delivered(&mut brokers[0], conn, "a"), 3);
        let conn = relocate(&mut brokers, conn);
        assert_eq!(
            [delivered(&mut brokers[1], conn, "p.a"), delivered(&mut brokers[1], conn, "s.a")],
            [0, 0]
        );
        assert_eq!(delivered(&mut brokers[1], conn, "a"), 3);
    }

    #[test]
    fn a_connection_that_moves_during_a_reload_has_the_permissions_of_the_worker_that_it_comes_to() {
        let (mut brokers, conn) = world(&settings("p.*", "s.*"));
        assert_eq!(delivered(&mut brokers[0], conn, "p.a"), 0);
        brokers[1].apply_settings(settings("q.*", "t.*"), info());
        let conn = relocate(&mut brokers, conn);
        let broker = &mut brokers[1];
        assert_eq!([delivered(broker, conn, "p.a"), delivered(broker, conn, "s.a")], [3, 3]);
        assert_eq!([delivered(broker, conn, "q.a"), delivered(broker, conn, "t.a")], [0, 0]);
    }

    #[test]
    fn a_reload_voids_what_was_remembered() {
        let (mut brokers, conn) = world(&settings("p.*", "s.*"));
        let broker = &mut brokers[0];
        for subject in ["p.a", "q.a", "s.a", "t.a"] {
            delivered(broker, conn, subject);
        }
        broker.apply_settings(settings("q.*", "t.*"), info());
        assert_eq!(
            ["p.a", "q.a", "s.a", "t.a"].map(|subject| delivered(broker, conn, subject)),
            [3, 0, 3, 0]
        );
    }

    fn replies(max: Option<u32>, expires_us: Option<u64>) -> Replies {
        Replies::new(Responses { max, expires_us }, FxSeededState::with_seed(1))
    }

    #[test]
    fn a_reply_may_be_answered_as_often_and_as_long_as_the_rule_says() {
        let mut replies = replies(Some(2), Some(100));
        replies.note(b"r", 10);
        assert!(replies.take(b"r", 20) && replies.take(b"r", 110) && !replies.take(b"r", 110));
        replies.note(b"r", 10);
        assert!(!replies.take(b"r", 111) && !replies.take(b"other", 10));
    }

    #[test]
    fn without_limits_a_reply_may_always_be_answered() {
        let mut replies = replies(None, None);
        replies.note(b"r", 0);
        assert!((0..1000).all(|i| replies.take(b"r", i * 1_000_000)));
    }

    #[test]
    fn what_is_over_is_forgotten_and_the_bound_holds() {
        let mut replies = replies(Some(1), Some(100));
        for i in 0..2 * REPLIES_MAX {
            replies.note(format!("r.{i}").as_bytes(), 0);
        }
        assert_eq!(replies.noted.len(), REPLIES_MAX);
        replies.note(b"late", 2000);
        assert_eq!(replies.noted.len(), 1);
    }
}
