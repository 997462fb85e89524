//! Random lives of consumers against a naive model: nothing is lost, nothing delivered that should not be, counts are right, and
//! a restart forgets nothing. And the messages of streams that remove what was handled: there as long as somebody wants them.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::config::Retention;
use super::rig::{Rig, SECOND};

const SUBJECTS: [&str; 3] = ["s.a", "s.b", "s.c"];

#[derive(Debug, Clone)]
enum Step {
    Publish(usize),
    Pull {
        consumer: usize,
        batch: u8,
        no_wait: bool,
    },
    /// What becomes of the n-th delivery that is open.
    Ack {
        at: u8,
        twice: bool,
    },
    Nak(u8),
    NakLater {
        at: u8,
        ms: u16,
    },
    Term(u8),
    Progress(u8),
    Remove(u8),
    Purge(u8),
    Pass {
        ms: u16,
    },
    Restart,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3_usize).prop_map(Step::Publish),
        5 => (0..3_usize, 1..6_u8, any::<bool>())
            .prop_map(|(consumer, batch, no_wait)| Step::Pull { consumer, batch, no_wait }),
        8 => (any::<u8>(), any::<bool>()).prop_map(|(at, twice)| Step::Ack { at, twice }),
        2 => any::<u8>().prop_map(Step::Nak),
        1 => (any::<u8>(), 1..3000_u16).prop_map(|(at, ms)| Step::NakLater { at, ms }),
        1 => any::<u8>().prop_map(Step::Term),
        1 => any::<u8>().prop_map(Step::Progress),
        1 => any::<u8>().prop_map(Step::Remove),
        1 => any::<u8>().prop_map(Step::Purge),
        3 => (1..1500_u16).prop_map(|ms| Step::Pass { ms }),
        1 => Just(Step::Restart),
    ]
}

/// A message that was delivered and is not handled.
#[derive(Debug, Clone)]
struct Open {
    deliveries: u32,
    /// From when on it may be delivered again.
    again_ns: i64,
    /// The same after a restart.
    overdue_ns: i64,
    reply: String,
}

#[derive(Debug, Default)]
struct Model {
    name: &'static str,
    filters: &'static [&'static str],
    max_deliver: u32,
    max_pending: usize,
    deliveries: u64,
    open: BTreeMap<u64, Open>,
    handled: BTreeSet<u64>,
    given_up: BTreeMap<u64, u32>,
    passed: u64,
    floor: u64,
}

const ACK_WAIT: i64 = SECOND;

impl Model {
    fn matches(&self, subject: &str) -> bool {
        self.filters.is_empty() || self.filters.contains(&subject)
    }

    fn undelivered<'a>(&'a self, stream: &'a BTreeMap<u64, &'static str>) -> impl Iterator<Item = u64> + 'a {
        stream.range(self.passed + 1..).filter(|(_, subject)| self.matches(subject)).map(|(seq, _)| *seq)
    }

    fn wants(&self, seq: u64, subject: &str) -> bool {
        self.matches(subject) && !self.handled.contains(&seq)
    }

    /// Given up at the end of the wait, or when it would be delivered again.
    fn may_be_given_up(&self, open: &Open, now: i64) -> bool {
        open.deliveries >= self.max_deliver && now >= open.again_ns
    }
}

struct World {
    rig: Rig,
    stream: BTreeMap<u64, &'static str>,
    consumers: Vec<Model>,
    retention: Retention,
}

impl World {
    fn new(retention: Retention) -> World {
        let mut rig = Rig::new("S", &["s.>"], retention);
        rig.clients.events = true;
        let mut consumers = vec![
            Model { name: "A", filters: &["s.a"], max_deliver: u32::MAX, max_pending: 4, ..Model::default() },
            Model { name: "B", filters: &["s.b"], max_deliver: 2, max_pending: 100, ..Model::default() },
        ];
        // On a work queue consumers may not share messages.
        if retention == Retention::WorkQueue {
            consumers.push(Model {
                name: "C",
                filters: &["s.c"],
                max_deliver: 1,
                max_pending: 3,
                ..Model::default()
            });
        } else {
            consumers.push(Model { name: "C", max_deliver: 3, max_pending: 3, ..Model::default() });
        }
        for model in &consumers {
            let filters = match model.filters {
                [] => String::new(),
                [filter] => format!(r#""filter_subject":"{filter}","#),
                _ => unreachable!(),
            };
            let limit = if model.max_deliver == u32::MAX { -1 } else { i64::from(model.max_deliver) };
            let answer = rig.create(
                model.name,
                &format!(
                    r#"{{"durable_name":"{}",{filters}"ack_policy":"explicit","ack_wait":{ACK_WAIT},"max_deliver":{limit},"max_ack_pending":{}}}"#,
                    model.name, model.max_pending
                ),
            );
            assert!(!answer.contains("error"), "{answer}");
        }
        rig.seen();
        World { rig, stream: BTreeMap::new(), consumers, retention }
    }

    fn nth_open(&self, at: u8) -> Option<(usize, u64)> {
        let all: Vec<(usize, u64)> = self
            .consumers
            .iter()
            .enumerate()
            .flat_map(|(index, model)| model.open.keys().map(move |seq| (index, *seq)))
            .collect();
        (!all.is_empty()).then(|| all[usize::from(at) % all.len()])
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Publish(subject) => {
                let seq = self.rig.publish(SUBJECTS[*subject], "x");
                self.stream.insert(seq, SUBJECTS[*subject]);
            }
            Step::Pull { consumer, batch, no_wait } => {
                let name = self.consumers[*consumer].name;
                let body = format!(r#"{{"batch":{batch},"expires":2000000000,"no_wait":{no_wait}}}"#);
                self.rig.pull(name, &body, &format!("r.{name}"));
            }
            Step::Ack { at, twice } => {
                if let Some((index, seq)) = self.nth_open(*at) {
                    let open = self.consumers[index].open.remove(&seq).unwrap();
                    self.consumers[index].handled.insert(seq);
                    for _ in 0..=usize::from(*twice) {
                        self.rig.ack(&open.reply, "", "r.ack");
                    }
                }
            }
            Step::Term(at) => {
                if let Some((index, seq)) = self.nth_open(*at) {
                    let open = self.consumers[index].open.remove(&seq).unwrap();
                    self.consumers[index].handled.insert(seq);
                    self.rig.ack(&open.reply, "+TERM", "");
                }
            }
            Step::Nak(at) => {
                if let Some((index, seq)) = self.nth_open(*at) {
                    let now = self.rig.now;
                    let open = self.consumers[index].open.get_mut(&seq).unwrap();
                    if open.again_ns > now {
                        (open.again_ns, open.overdue_ns) = (now, now);
                    }
                    let reply = open.reply.clone();
                    self.rig.ack(&reply, "-NAK", "");
                }
            }
            Step::NakLater { at, ms } => {
                if let Some((index, seq)) = self.nth_open(*at) {
                    let now = self.rig.now;
                    let open = self.consumers[index].open.get_mut(&seq).unwrap();
                    open.again_ns = now + i64::from(*ms) * 1_000_000;
                    open.overdue_ns = open.again_ns;
                    let reply = open.reply.clone();
                    self.rig.ack(&reply, &format!("-NAK {ms}ms"), "");
                }
            }
            Step::Progress(at) => {
                if let Some((index, seq)) = self.nth_open(*at) {
                    let now = self.rig.now;
                    let open = self.consumers[index].open.get_mut(&seq).unwrap();
                    // What is queued for redelivery stays queued.
                    open.overdue_ns = now + ACK_WAIT;
                    if open.again_ns > now {
                        open.again_ns = open.overdue_ns;
                    }
                    let reply = open.reply.clone();
                    self.rig.ack(&reply, "+WPI", "");
                }
            }
            Step::Remove(at) => {
                let seqs: Vec<u64> = self.stream.keys().copied().collect();
                if !seqs.is_empty() {
                    let seq = seqs[usize::from(*at) % seqs.len()];
                    self.rig.remove(seq);
                    self.gone(&[seq]);
                }
            }
            Step::Purge(keep) => {
                let last = self.rig.store.state().last_seq;
                let below = (last + 1).saturating_sub(u64::from(*keep) % 8);
                let gone: Vec<u64> = self.stream.range(..below).map(|(seq, _)| *seq).collect();
                self.rig.purge(below);
                self.gone(&gone);
                for model in &mut self.consumers {
                    model.passed = model.passed.max(below.saturating_sub(1));
                }
            }
            Step::Pass { ms } => self.rig.pass(i64::from(*ms) * 1_000_000),
            Step::Restart => {
                for open in self.consumers.iter_mut().flat_map(|model| model.open.values_mut()) {
                    open.again_ns = open.overdue_ns;
                }
                self.rig.restart();
            }
        }
        self.hear();
        self.compare(step);
    }

    fn gone(&mut self, seqs: &[u64]) {
        for seq in seqs {
            self.stream.remove(seq);
            for model in &mut self.consumers {
                model.open.remove(seq);
                model.given_up.remove(seq);
            }
        }
    }

    /// What clients saw must be what the model allows.
    fn hear(&mut self) {
        for seen in self.rig.seen() {
            let now = seen.at_ns;
            if seen.to.starts_with("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES") {
                let value: serde_json::Value = serde_json::from_str(&seen.payload).unwrap();
                let model = self.consumers.iter_mut().find(|model| value["consumer"] == model.name).unwrap();
                let seq = value["stream_seq"].as_u64().unwrap();
                let open = model.open.get(&seq).cloned().expect("given up what is not open");
                assert!(model.may_be_given_up(&open, now), "given up too early: {seen:?} {open:?}");
                assert_eq!(value["deliveries"], open.deliveries);
                model.open.remove(&seq);
                model.given_up.insert(seq, open.deliveries);
            }
            let Some(numbers) = seen.reply.strip_prefix("$JS.ACK.S.") else { continue };
            let mut tokens = numbers.split('.');
            let name = tokens.next().unwrap();
            let model = self.consumers.iter_mut().find(|model| model.name == name).unwrap();
            let mut number = || tokens.next().unwrap().parse::<u64>().unwrap();
            let (deliveries, seq, consumer_seq) = (number() as u32, number(), number());
            model.deliveries += 1;
            assert_eq!(consumer_seq, model.deliveries, "{seen:?}");
            let subject =
                *self.stream.get(&seq).unwrap_or_else(|| panic!("delivered what is gone: {seen:?}"));
            assert!(model.wants(seq, subject) && !model.given_up.contains_key(&seq), "{seen:?}");
            assert!(deliveries <= model.max_deliver, "{seen:?}");
            if deliveries == 1 {
                assert_eq!(model.undelivered(&self.stream).next(), Some(seq), "{seen:?}");
                assert!(model.open.len() < model.max_pending, "{seen:?}");
                model.passed = seq;
            } else {
                let open = &model.open[&seq];
                assert_eq!(open.deliveries + 1, deliveries, "{seen:?}");
                assert!(now >= open.again_ns, "delivered again too early: {seen:?} {open:?}");
            }
            let again_ns = now + ACK_WAIT;
            model
                .open
                .insert(seq, Open { deliveries, again_ns, overdue_ns: again_ns, reply: seen.reply.clone() });
        }
    }

    fn compare(&mut self, step: &Step) {
        let now = self.rig.now;
        // What is handled leaves streams that do not keep it.
        if self.retention != Retention::Limits {
            let removed: Vec<u64> = self
                .stream
                .iter()
                .filter(|(seq, subject)| {
                    let wanted = self.consumers.iter().any(|model| model.wants(**seq, subject));
                    let handled = self.consumers.iter().any(|model| model.handled.contains(*seq));
                    handled && !wanted
                })
                .map(|(seq, _)| *seq)
                .collect();
            self.gone(&removed);
        }
        let there: Vec<u64> = (1..=self.rig.store.state().last_seq)
            .filter(|seq| self.rig.store.time_of(*seq).is_some())
            .collect();
        assert_eq!(
            there,
            self.stream.keys().copied().collect::<Vec<_>>(),
            "messages of the stream after {step:?}"
        );
        for index in 0..self.consumers.len() {
            let name = self.consumers[index].name;
            let info = self.rig.info(name);
            self.hear();
            let model = &mut self.consumers[index];
            let words: Vec<&str> = info.split(' ').collect();
            let number = |at: usize| words[at].parse::<usize>().unwrap();
            let (pending, redelivered, waiting, left) = (number(3), number(5), number(7), number(9));
            assert_eq!(pending, model.open.len(), "unacknowledged of {name} after {step:?}: {info}");
            assert_eq!(
                left,
                model.undelivered(&self.stream).count(),
                "undelivered of {name} after {step:?}: {info}"
            );
            let again = model.open.values().filter(|open| open.deliveries > 1).count() + model.given_up.len();
            let again = if model.max_deliver == 1 { 0 } else { again };
            assert_eq!(redelivered, again, "redelivered of {name} after {step:?}: {info}");
            let (_, floor) = words[1].split_once('/').unwrap();
            let floor: u64 = floor.parse().unwrap();
            assert!(floor >= model.floor, "the floor of {name} went back after {step:?}: {info}");
            model.floor = floor;
            if let Some(first) = model.open.keys().next() {
                assert!(floor < *first, "the floor of {name} passes what is open after {step:?}: {info}");
            }
            if waiting > 0 {
                let fresh = left > 0 && pending < model.max_pending;
                let again = model
                    .open
                    .values()
                    .any(|open| open.again_ns <= now && open.deliveries < model.max_deliver);
                assert!(!fresh && !again, "{name} could deliver after {step:?}: {info} {:?}", model.open);
            }
        }
    }

    /// Everything is delivered and acknowledged in the end.
    fn finish(&mut self) {
        for _ in 0..200 {
            for consumer in 0..self.consumers.len() {
                self.step(&Step::Pull { consumer, batch: 5, no_wait: false });
            }
            self.step(&Step::Ack { at: 0, twice: false });
            self.step(&Step::Pass { ms: 100 });
            let done =
                |model: &Model| model.open.is_empty() && model.undelivered(&self.stream).next().is_none();
            if self.consumers.iter().all(done) {
                return;
            }
        }
        panic!("not everything was delivered: {:?}", self.consumers);
    }
}

fn live(retention: Retention, steps: &[Step]) {
    let mut world = World::new(retention);
    for step in steps {
        world.step(step);
    }
    world.finish();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn consumers_of_a_limits_stream_lose_nothing_and_deliver_nothing_they_should_not(
        steps in prop::collection::vec(any_step(), 1..250),
    ) {
        live(Retention::Limits, &steps);
    }

    #[test]
    fn an_interest_stream_keeps_a_message_until_every_consumer_has_handled_it(
        steps in prop::collection::vec(any_step(), 1..250),
    ) {
        live(Retention::Interest, &steps);
    }

    #[test]
    fn a_work_queue_keeps_a_message_until_it_is_handled(steps in prop::collection::vec(any_step(), 1..250)) {
        live(Retention::WorkQueue, &steps);
    }
}

/// On a disk an acknowledgement is confirmed, and a message delivered, when it is there.
#[test]
fn a_confirmation_waits_until_the_acknowledgement_is_on_the_disk() {
    use crate::store::{Committed, FileStore, Settings, Store};

    let mut rig = Rig::new("S", &["s.>"], Retention::WorkQueue);
    rig.store = Store::File(Box::new(FileStore::create(Settings::new(1)).0));
    let commit = |rig: &mut Rig| {
        assert!(rig.store.take_commit().is_some(), "nothing to commit");
        assert_eq!(rig.store.finish_commit(Ok(())), Committed::Done);
        rig.visible();
    };
    rig.create("C", r#"{"durable_name":"C","ack_policy":"explicit"}"#);
    rig.pull("C", "", "r.1");
    rig.publish("s.a", "one");
    assert_eq!(rig.told(), Vec::<String>::new(), "delivered before it was stored");
    commit(&mut rig);
    let delivered = rig.seen();
    assert_eq!(delivered.len(), 1);
    // The delivery itself has to be written, too.
    commit(&mut rig);
    rig.ack(&delivered[0].reply, "+ACK", "r.ack");
    assert_eq!(rig.told(), Vec::<String>::new(), "confirmed before it was stored");
    assert_eq!(rig.store.state().messages, 0);
    commit(&mut rig);
    assert_eq!(rig.told(), ["r.ack"]);
}
