//! A stream in memory with its consumers, a clock that is set by hand, and clients that are names: for tests.

use std::collections::BTreeSet;
use std::ops::Bound;

use crate::store::{MemoryStore, Message, Store};

use super::super::api;
use super::super::json::Strictness;
use super::config::{Limits, Retention, StreamFacts};
use super::request::address;
use super::set::{Consumers, Detail, Drive};
use super::standing::Standing;
use super::turn::{Delivery, Outlet, Site};

pub(super) const SECOND: i64 = 1_000_000_000;
/// When every test begins.
pub(super) const BEGIN: i64 = 1_800_000_000 * SECOND;

/// A message as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) at_ns: i64,
    pub(super) to: String,
    pub(super) subject: String,
    pub(super) reply: String,
    pub(super) header: String,
    pub(super) payload: String,
}

/// Collects what goes out.
#[derive(Debug, Default)]
pub(super) struct Clients {
    /// Subjects that nobody listens to any more.
    pub(super) deaf: BTreeSet<String>,
    /// Subjects of push consumers, which begin with `d.`, that somebody listens to, with the queue group behind a blank. On
    /// all others somebody always does.
    pub(super) heard: BTreeSet<String>,
    pub(super) seen: Vec<Seen>,
    pub(super) now_ns: i64,
    /// Whether events are wanted.
    pub(super) events: bool,
}

impl Clients {
    fn hear(&self, subject: &str, group: Option<&str>) -> bool {
        if subject.starts_with("$JS.EVENT.") {
            self.events
        } else if subject.starts_with("d.") {
            let fits = |heard: &String| {
                let (name, member) = heard.split_once(' ').unwrap_or((heard, ""));
                name == subject && group.is_none_or(|group| group == member)
            };
            self.heard.iter().any(fits)
        } else {
            !self.deaf.contains(subject)
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Outlet for Clients {
    fn has_interest(&mut self, subject: &[u8], group: &[u8]) -> bool {
        self.hear(&text(subject), Some(&text(group)))
    }

    fn deliver(&mut self, delivery: &Delivery<'_>) -> bool {
        if !self.hear(&text(delivery.to), None) {
            return false;
        }
        self.seen.push(Seen {
            at_ns: self.now_ns,
            to: text(delivery.to),
            subject: text(delivery.subject),
            reply: text(delivery.reply),
            header: text(delivery.header),
            payload: text(delivery.payload),
        });
        true
    }

    fn publish(&mut self, subject: &[u8], reply: &[u8], header: &[u8], payload: &[u8]) {
        self.seen.push(Seen {
            at_ns: self.now_ns,
            to: text(subject),
            subject: text(subject),
            reply: text(reply),
            header: text(header),
            payload: text(payload),
        });
    }
}

pub(super) struct Rig {
    pub(super) now: i64,
    pub(super) store: Store,
    pub(super) clients: Clients,
    pub(super) consumers: Consumers,
    pub(super) facts: StreamFacts,
}

macro_rules! drive {
    ($rig:expr) => {
        Drive { now_ns: $rig.now, store: &$rig.store, outlet: &mut $rig.clients }
    };
}

impl Rig {
    pub(super) fn new(name: &str, subjects: &[&str], retention: Retention) -> Rig {
        let facts = StreamFacts {
            name: name.to_owned(),
            subjects: subjects.iter().map(|subject| (*subject).to_owned()).collect(),
            retention,
            replicas: 1,
            ..StreamFacts::default()
        };
        Rig {
            now: BEGIN,
            store: MemoryStore::new().into(),
            clients: Clients { now_ns: BEGIN, ..Clients::default() },
            consumers: Rig::consumers(&facts),
            facts,
        }
    }

    fn consumers(facts: &StreamFacts) -> Consumers {
        let site = Site { account: "$G".to_owned(), version: "2.15.1", ..Site::default() };
        Consumers::new(site, facts.clone(), Limits::default(), 7)
    }

    /// The server is started anew: only what is in the store is left.
    pub(super) fn restart(&mut self) {
        self.consumers = Rig::consumers(&self.facts);
        assert_eq!(self.consumers.recover(drive!(self)), Vec::<String>::new());
        self.settle();
    }

    pub(super) fn request(&mut self, subject: &str, body: &str) -> Option<String> {
        let verb = api::Verb::parse(subject)?;
        let at = address(&verb)?;
        let answer = self.consumers.answer(at, body.as_bytes(), Strictness::Strict, drive!(self))?;
        self.settle();
        Some(String::from_utf8(answer).unwrap())
    }

    /// Creates or updates a consumer; its answer.
    pub(super) fn create(&mut self, name: &str, config: &str) -> String {
        let stream = self.facts.name.clone();
        let body = format!(r#"{{"stream_name":"{stream}","config":{config}}}"#);
        self.request(&format!("$JS.API.CONSUMER.CREATE.{stream}.{name}"), &body).unwrap()
    }

    /// Some numbers of a consumer: delivered, floor, unacknowledged, redelivered, waiting, undelivered.
    pub(super) fn info(&mut self, name: &str) -> String {
        let answer = self.request(&format!("$JS.API.CONSUMER.INFO.{}.{name}", self.facts.name), "").unwrap();
        let value: serde_json::Value = serde_json::from_str(&answer).unwrap();
        if let Some(error) = value["error"]["description"].as_str() {
            return error.to_owned();
        }
        let flag = |name: &str, word: &'static str| if value[name] == true { word } else { "" };
        let flags = [flag("push_bound", " bound"), flag("paused", " paused")].concat();
        let pair = |name: &str| format!("{}/{}", value[name]["consumer_seq"], value[name]["stream_seq"]);
        format!(
            "{} {} ack {} re {} wait {} left {}{flags}",
            pair("delivered"),
            pair("ack_floor"),
            value["num_ack_pending"],
            value["num_redelivered"],
            value["num_waiting"],
            value["num_pending"]
        )
    }

    /// How a consumer stands.
    pub(super) fn standing(&mut self, name: &str) -> Standing {
        let from = Bound::Included(name);
        let mut described = self.consumers.describe(from, 1, Detail::Standing, drive!(self));
        *described.pop().and_then(|described| described.standing).unwrap()
    }

    /// Whether it says when it last delivered, and when something was last acknowledged.
    pub(super) fn times(&mut self, name: &str) -> String {
        let answer = self.request(&format!("$JS.API.CONSUMER.INFO.{}.{name}", self.facts.name), "").unwrap();
        let value: serde_json::Value = serde_json::from_str(&answer).unwrap();
        let says = |name: &str| if value[name]["last_active"].is_string() { "yes" } else { "no" };
        format!("delivered {} acknowledged {}", says("delivered"), says("ack_floor"))
    }

    pub(super) fn publish(&mut self, subject: &str, payload: &str) -> u64 {
        self.publish_with(subject, "", payload)
    }

    /// A message that nobody is interested in takes a sequence and is not stored.
    pub(super) fn skip(&mut self) {
        self.store.skip_to(self.store.state().last_seq + 2);
    }

    pub(super) fn publish_with(&mut self, subject: &str, header: &str, payload: &str) -> u64 {
        let seq = self.store.state().last_seq + 1;
        let (subject, header, payload) = (subject.as_bytes(), header.as_bytes(), payload.as_bytes());
        let message = Message { seq, time_ns: self.now, subject, header, payload };
        self.store.append(&message).unwrap();
        self.consumers.stored();
        self.settle();
        seq
    }

    pub(super) fn remove(&mut self, seq: u64) {
        let subject = self.store.subject_of(seq).unwrap().to_vec();
        self.store.remove(seq, false);
        self.consumers.removed(seq, &subject, drive!(self));
        self.settle();
    }

    pub(super) fn purge(&mut self, below: u64) {
        self.store.remove_up_to(below);
        self.consumers.purged(drive!(self));
        self.settle();
    }

    pub(super) fn pull(&mut self, consumer: &str, body: &str, reply: &str) {
        self.consumers.pull(consumer, body.as_bytes(), reply.as_bytes(), drive!(self));
        self.settle();
    }

    pub(super) fn ack(&mut self, subject: &str, said: &str, reply: &str) {
        self.consumers.ack(subject.as_bytes(), said.as_bytes(), reply.as_bytes(), drive!(self));
        self.settle();
    }

    pub(super) fn flow_response(&mut self, subject: &str, last: Option<(u64, u64)>) {
        self.consumers.flow_response(subject.as_bytes(), last, drive!(self));
        self.settle();
    }

    pub(super) fn check_listeners(&mut self) {
        self.consumers.check_listeners(drive!(self));
        self.settle();
    }

    /// Time passes, deadline by deadline.
    pub(super) fn pass(&mut self, ns: i64) {
        let end = self.now + ns;
        while let Some(at) = self.consumers.next_deadline_ns().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.clients.now_ns = self.now;
            self.consumers.tick(drive!(self));
            self.settle();
        }
        self.now = end;
        self.clients.now_ns = end;
    }

    /// What was committed can be seen.
    pub(super) fn visible(&mut self) {
        self.consumers.stored();
        self.settle();
    }

    /// The end of a turn.
    fn settle(&mut self) {
        while self.consumers.run(drive!(self)).more {}
        for (seq, subject) in self.consumers.flush(&mut self.store).unwrap() {
            self.consumers.removed(seq, &subject, drive!(self));
        }
        self.consumers.flush(&mut self.store).unwrap();
        self.consumers.committed(self.store.committed(), &mut self.clients);
    }

    /// What went out since the last time.
    pub(super) fn seen(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.clients.seen)
    }

    /// The same, one line each: `to subject reply header | payload`, without the time in ack subjects.
    pub(super) fn told(&mut self) -> Vec<String> {
        let line = |seen: Seen| {
            let mut tokens: Vec<&str> = seen.reply.split('.').collect();
            if seen.reply.starts_with("$JS.ACK.") {
                tokens.remove(7);
            }
            let mut parts = vec![seen.to.clone()];
            if seen.subject != seen.to {
                parts.push(seen.subject.clone());
            }
            if !seen.reply.is_empty() {
                parts.push(tokens.join("."));
            }
            let header = seen.header.trim_end().replace("\r\n", "; ");
            parts.push(header.strip_prefix("NATS/1.0 ").unwrap_or(&header).to_owned());
            parts.push(seen.payload);
            parts.retain(|part| !part.is_empty());
            parts.join(" ")
        };
        self.seen().into_iter().map(line).collect()
    }
}
