//! Random lives of an origin and its copy, held against what was published: a copy ends equal, whatever happened on the way.
//!
//! Both are the real cores, the origin with its real consumers; between them is a list of messages, of which some get lost. The copy
//! writes to a disk that forgets what was not synced. `RINGMAIN_SOURCE_SEEDS=1000 cargo test --lib stream::source` plays that
//! many lives; a failure names its seed, and `RINGMAIN_SOURCE_SEED=N` plays just that one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::super::api::{self, DeleteRequest, PurgeRequest};
use super::super::batch::BatchLimits;
use super::super::config::{Retention, Storage, StreamConfig, StreamSource};
use super::super::consumer::{Consumers, Delivery, Drive, Limits, Outlet, Site, StreamFacts, address};
use super::super::headers;
use super::super::json::Strictness;
use super::super::publish::Incoming;
use super::super::stream::{Command, Stream, StreamSettings};
use super::header::{SourceOf, identity};
use super::{Copied, CopySubject};
use crate::store::simulated_disk::SimulatedDisk;
use crate::store::{FileStore, Files as _, MemoryStore, Read, ReadPlan, Settings, Store, StoredMessage};

const SECOND: i64 = 1_000_000_000;
const BEGIN: i64 = 1_800_000_000 * SECOND;
const SUBJECTS: [&str; 3] = ["o.a", "o.b", "o.c"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Mirror,
    FilteredMirror,
    Source,
    FilteredSource,
    /// A source that is a work queue.
    Queue,
}

/// A message under way.
#[derive(Debug, Clone)]
struct Sent {
    to: Vec<u8>,
    subject: Vec<u8>,
    reply: Vec<u8>,
    header: Vec<u8>,
    payload: Vec<u8>,
}

/// What goes out of the origin.
struct Out<'a> {
    heard: &'a BTreeSet<Vec<u8>>,
    sent: &'a mut VecDeque<Sent>,
}

impl Outlet for Out<'_> {
    fn has_interest(&mut self, subject: &[u8], _group: &[u8]) -> bool {
        self.heard.contains(subject)
    }

    fn deliver(&mut self, delivery: &Delivery<'_>) -> bool {
        let Delivery { to, subject, reply, header, payload } = *delivery;
        self.sent.push_back(Sent {
            to: to.to_vec(),
            subject: subject.to_vec(),
            reply: reply.to_vec(),
            header: header.to_vec(),
            payload: payload.to_vec(),
        });
        self.heard.contains(to)
    }

    fn publish(&mut self, subject: &[u8], reply: &[u8], header: &[u8], payload: &[u8]) {
        self.deliver(&Delivery { to: subject, subject, reply, header, payload });
    }
}

struct OriginSide {
    stream: Stream,
    consumers: Consumers,
}

struct Life {
    kind: Kind,
    draw: fastrand::Rng,
    now_ns: i64,
    origin: OriginSide,
    copy: Stream,
    disk: SimulatedDisk,
    sent: VecDeque<Sent>,
    /// What was ever stored in an origin: by its identity and sequence.
    history: BTreeMap<(String, u64), StoredMessage>,
    /// What was purged from the copy.
    purged: BTreeSet<(String, u64)>,
    published: u64,
}

fn config(name: &str, storage: Storage) -> StreamConfig {
    StreamConfig {
        name: name.to_owned(),
        storage,
        max_msgs: -1,
        max_bytes: -1,
        max_msgs_per_subject: -1,
        max_msg_size: -1,
        ..StreamConfig::default()
    }
}

fn settings(config: StreamConfig, created_ns: i64) -> StreamSettings {
    StreamSettings {
        config,
        created_ns,
        domain: String::new(),
        account: String::new(),
        batch_limits: BatchLimits::default(),
        seed: 7,
    }
}

fn origin(kind: Kind, created_ns: i64) -> OriginSide {
    let config = StreamConfig {
        subjects: vec!["o.>".to_owned()],
        retention: if kind == Kind::Queue { Retention::WorkQueue } else { Retention::Limits },
        ..config("O", Storage::Memory)
    };
    let consumers =
        Consumers::new(Site::default(), StreamFacts::of(&config), Limits::default(), created_ns as u64);
    OriginSide { stream: Stream::new(settings(config, created_ns), MemoryStore::new().into()), consumers }
}

fn copy_config(kind: Kind) -> StreamConfig {
    let mut source = StreamSource { name: "O".to_owned(), ..StreamSource::default() };
    if matches!(kind, Kind::FilteredMirror | Kind::FilteredSource) {
        source.filter_subject = "o.b".to_owned();
    }
    let mut config = config("C", Storage::File);
    match kind {
        Kind::Mirror | Kind::FilteredMirror => config.mirror = Some(source),
        _ => config.sources = vec![source],
    }
    config
}

fn store_settings() -> Settings {
    Settings { segment_bytes_max: 4096 + 4000, cache_bytes_max: 500, ..Settings::new(5) }
}

fn read(disk: &mut SimulatedDisk, plan: &ReadPlan) -> Option<StoredMessage> {
    let mut bytes = vec![0; plan.length as usize];
    let len = disk.read_at(plan.file, plan.offset, &mut bytes).unwrap();
    bytes.truncate(len);
    let messages = plan.decode(&Bytes::from(bytes)).unwrap();
    messages.into_iter().find(|message| message.seq == plan.first_seq)
}

impl Life {
    fn new(seed: u64, kind: Kind) -> Life {
        let mut disk = SimulatedDisk::default();
        let (store, steps) = FileStore::create(store_settings());
        for step in &steps {
            disk.perform(step).unwrap();
        }
        Life {
            kind,
            draw: fastrand::Rng::with_seed(seed),
            now_ns: BEGIN,
            origin: origin(kind, BEGIN),
            copy: Stream::new(settings(copy_config(kind), BEGIN), store.into()),
            disk,
            sent: VecDeque::new(),
            history: BTreeMap::new(),
            purged: BTreeSet::new(),
            published: 0,
        }
    }

    fn heard(&self) -> BTreeSet<Vec<u8>> {
        self.copy.copy_subjects().map(|(_, subject)| subject.as_bytes().to_vec()).collect()
    }

    fn identity(&self) -> String {
        identity(self.origin.stream.created_ns())
    }

    fn act(&mut self) {
        let last = self.origin.stream.store().state().last_seq;
        match self.draw.u32(..100) {
            0..45 => self.publish(),
            45..52 if self.kind != Kind::Queue => {
                let seq = self.draw.u64(..=last);
                let request = DeleteRequest { seq, no_erase: true };
                let _ = self.origin.stream.handle(Command::Delete(request), self.now_ns);
                self.tell_of_losses();
            }
            52..54 if self.kind != Kind::Queue => {
                let filter = if self.draw.bool() { "o.b" } else { "" };
                let request = PurgeRequest { filter: filter.to_owned(), ..PurgeRequest::default() };
                let _ = self.origin.stream.handle(Command::Purge(request), self.now_ns);
                self.tell_of_losses();
            }
            // The server of the origin starts again: consumers without state are gone.
            54..56 if self.kind != Kind::Queue => {
                let facts = StreamFacts::of(self.origin.stream.config());
                let seed = self.draw.u64(..);
                self.origin.consumers = Consumers::new(Site::default(), facts, Limits::default(), seed);
            }
            56..58 if matches!(self.kind, Kind::Source | Kind::FilteredSource) => {
                // Streams of one name are known by when they were made.
                self.now_ns += 1;
                self.origin = origin(self.kind, self.now_ns);
            }
            58..61 => _ = self.sent.pop_front(),
            61..63 if self.kind == Kind::Source => {
                let copied = self.copied();
                self.purged.extend(copied.into_iter().map(|(from, _)| from));
                let _ = self.copy.handle(Command::Purge(PurgeRequest::default()), self.now_ns);
            }
            63..67 => self.crash(),
            67..72 => {
                let ns = self.draw.i64(0..7 * SECOND);
                self.pass(ns);
            }
            72..85 => self.commit(),
            _ => {
                let ns = self.draw.i64(0..SECOND / 5);
                self.pass(ns);
            }
        }
    }

    fn publish(&mut self) {
        self.published += 1;
        let subject = SUBJECTS[self.draw.usize(..SUBJECTS.len())];
        let mut payload = format!("{}", self.published).into_bytes();
        if self.draw.u8(..20) == 0 {
            // A few of these are a window.
            payload.resize(700_000, b'x');
        }
        let header: &[u8] = if self.draw.u8(..4) == 0 { b"NATS/1.0\r\nX: y\r\n\r\n" } else { b"" };
        let incoming = Incoming { subject: subject.as_bytes(), reply: b"", header, payload: &payload };
        assert!(self.origin.stream.publish(incoming, self.now_ns).is_none());
        let seq = self.origin.stream.store().state().last_seq;
        let Read::Found(message) = self.origin.stream.store().read(seq) else { panic!("it is in memory") };
        self.history.insert((self.identity(), seq), message);
        self.origin.consumers.stored();
    }

    fn tell_of_losses(&mut self) {
        let heard = self.heard();
        let mut out = Out { heard: &heard, sent: &mut self.sent };
        let store = self.origin.stream.store();
        self.origin.consumers.purged(Drive { now_ns: self.now_ns, store, outlet: &mut out });
    }

    fn commit(&mut self) {
        while let Some(commit) = self.copy.take_commit() {
            for step in &commit.steps {
                self.disk.perform(step).unwrap();
            }
            let _ = self.copy.finish_commit(Ok(()));
        }
    }

    /// The server of the copy is killed, perhaps in the middle of a commit, and starts again.
    fn crash(&mut self) {
        if let Some(commit) = self.copy.take_commit() {
            for step in &commit.steps[..self.draw.usize(..=commit.steps.len())] {
                self.disk.perform(step).unwrap();
            }
        }
        self.disk.cut_power(&mut self.draw);
        self.sent.clear();
        let (store, _) = FileStore::open(&mut self.disk, store_settings()).unwrap();
        let disk = &mut self.disk;
        let settings = settings(copy_config(self.kind), BEGIN);
        self.copy = Stream::open(settings, Store::from(store), self.now_ns, |plan| read(disk, plan));
    }

    /// Time passes in steps; what is under way arrives.
    fn pass(&mut self, ns: i64) {
        let end = self.now_ns + ns;
        loop {
            self.turn();
            if self.now_ns >= end {
                return;
            }
            self.now_ns = (self.now_ns + SECOND / 20).min(end);
        }
    }

    fn turn(&mut self) {
        self.copy.tick(self.now_ns);
        self.copy.take_copy_change();
        while let Some(request) = self.copy.take_copy_request() {
            self.sent.push_back(Sent {
                to: request.subject.into_bytes(),
                subject: Vec::new(),
                reply: request.reply.into_bytes(),
                header: request.header,
                payload: request.body,
            });
        }
        let sent = &mut self.sent;
        self.copy.take_due(|out| {
            sent.push_back(Sent {
                to: out.subject.to_vec(),
                subject: out.subject.to_vec(),
                reply: Vec::new(),
                header: out.header.to_vec(),
                payload: out.payload.to_vec(),
            });
        });
        let heard = self.heard();
        let now_ns = self.now_ns;
        macro_rules! drive {
            () => {
                Drive {
                    now_ns,
                    store: self.origin.stream.store(),
                    outlet: &mut Out { heard: &heard, sent: &mut self.sent },
                }
            };
        }
        self.origin.consumers.tick(drive!());
        self.origin.consumers.check_listeners(drive!());
        self.origin.consumers.run(drive!());
        for (seq, subject) in self.origin.consumers.flush(self.origin.stream.store_mut()).unwrap() {
            self.origin.consumers.removed(seq, &subject, drive!());
        }
        for _ in 0..self.sent.len() {
            let Some(message) = self.sent.pop_front() else { break };
            self.arrive(message);
        }
    }

    fn arrive(&mut self, message: Sent) {
        let Sent { to, subject, reply, header, payload } = &message;
        let now_ns = self.now_ns;
        let heard = self.heard();
        if let Some(rest) = to.strip_prefix(b"$JS.FC.") {
            let number = |name: &[u8]| {
                u64::try_from(headers::number(headers::get(header, name).unwrap_or_default())).ok()
            };
            let last = number(b"Nats-Last-Consumer").zip(number(b"Nats-Last-Stream"));
            assert!(rest.starts_with(b"O."));
            let store = self.origin.stream.store();
            let mut out = Out { heard: &heard, sent: &mut self.sent };
            self.origin.consumers.flow_response(to, last, Drive { now_ns, store, outlet: &mut out });
        } else if to.starts_with(b"$JS.API.") {
            let text = std::str::from_utf8(to).unwrap();
            let verb = api::Verb::parse(text).expect("a request of the API");
            let asked = address(&verb).expect("about a consumer");
            let identity = self.identity();
            let store = self.origin.stream.store();
            let mut out = Out { heard: &heard, sent: &mut VecDeque::new() };
            let answer = self.origin.consumers.answer_identified(
                asked,
                header,
                payload,
                &identity,
                Strictness::Strict,
                Drive { now_ns, store, outlet: &mut out },
            );
            if let Some((header, payload)) = answer {
                let to = reply.clone();
                self.sent.push_back(Sent { subject: to.clone(), to, reply: Vec::new(), header, payload });
            }
        } else {
            let found = self.copy.copy_subjects().find(|(_, heard)| heard.as_bytes() == to);
            match found.map(|(what, _)| what) {
                Some(CopySubject::Answer(origin)) => {
                    assert!(self.copy.take_copy_answer(origin, header, payload, now_ns).is_none());
                }
                Some(CopySubject::Messages(origin)) => {
                    let copied = Copied { subject, reply, header, payload };
                    assert!(self.copy.take_copied(origin, copied, now_ns).is_none());
                }
                None => {}
            }
        }
    }

    /// What the copy has: from where, and the message.
    fn copied(&mut self) -> Vec<((String, u64), StoredMessage)> {
        let mut copied = Vec::new();
        let mut at = self.copy.store().next(0);
        while let Some(seq) = at {
            let message = match self.copy.store().read(seq) {
                Read::Found(message) => message,
                Read::OnDisk(plan) => read(&mut self.disk, &plan).expect("it is on the disk"),
                Read::Missing => panic!("{seq} is missing"),
            };
            let from = match headers::get(message.header(), b"Nats-Stream-Source") {
                Some(value) => {
                    let of = SourceOf::parse(value).expect("what the copy has written");
                    (of.identity, of.seq)
                }
                None => (self.identity(), message.seq),
            };
            copied.push((from, message));
            at = self.copy.store().next(seq + 1);
        }
        copied
    }

    /// In the end all is well for a while; then the copy has what the origin has.
    fn check(&mut self) {
        for _ in 0..400 {
            self.pass(SECOND / 20);
            self.commit();
        }
        let copied = self.copied();
        let is_mirror = matches!(self.kind, Kind::Mirror | Kind::FilteredMirror);
        let mut seen = BTreeSet::new();
        let mut last: BTreeMap<String, u64> = BTreeMap::new();
        for (from, message) in &copied {
            assert!(seen.insert(from.clone()), "{from:?} is there twice");
            let before = last.insert(from.0.clone(), from.1).unwrap_or_default();
            assert!(before < from.1, "{from:?} comes behind {before}");
            let original = self.history.get(from).expect("nothing comes from nowhere");
            assert_eq!(message.subject(), original.subject());
            assert_eq!(message.payload(), original.payload());
            if is_mirror {
                assert_eq!(message.header(), original.header());
                assert_eq!((message.seq, message.time_ns), (original.seq, original.time_ns));
            } else {
                let header = headers::remove(message.header(), b"Nats-Stream-Source");
                assert_eq!(header, original.header());
            }
        }
        let is_filtered = matches!(self.kind, Kind::FilteredMirror | Kind::FilteredSource);
        let identity = self.identity();
        if self.kind == Kind::Queue {
            assert_eq!(copied.len() as u64, self.published, "all that was ever published is here");
            assert_eq!(self.origin.stream.store().state().messages, 0, "and there it is handled");
        }
        let mut at = self.origin.stream.store().next(0);
        while let Some(seq) = at {
            let Read::Found(message) = self.origin.stream.store().read(seq) else {
                panic!("it is in memory")
            };
            if !is_filtered || message.subject() == b"o.b" {
                let from = (identity.clone(), seq);
                assert!(seen.contains(&from) || self.purged.contains(&from), "{from:?} has not come");
            }
            at = self.origin.stream.store().next(seq + 1);
        }
        let report = self.copy.report(false, "", 0);
        let origin = report.mirror.or(report.sources.into_iter().next()).expect("it copies");
        assert_eq!(origin.error, None);
        assert!(
            origin.heard_ns.is_some_and(|heard| heard > self.now_ns - 3 * SECOND),
            "it hears of its origin"
        );
    }
}

fn play(kind: Kind) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("RINGMAIN_SOURCE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("RINGMAIN_SOURCE_SEEDS").unwrap_or(12),
    };
    for seed in seeds {
        println!("replay: RINGMAIN_SOURCE_SEED={seed} cargo test --lib stream::source");
        let mut life = Life::new(seed, kind);
        for _ in 0..life.draw.usize(20..200) {
            life.act();
        }
        life.check();
    }
}

#[test]
fn a_mirror_ends_equal() {
    play(Kind::Mirror);
}

#[test]
fn a_mirror_of_some_subjects_ends_equal() {
    play(Kind::FilteredMirror);
}

#[test]
fn a_source_comes_in_full_and_once() {
    play(Kind::Source);
}

#[test]
fn a_source_of_some_subjects_comes_in_full_and_once() {
    play(Kind::FilteredSource);
}

#[test]
fn a_work_queue_loses_nothing_on_the_way() {
    play(Kind::Queue);
}
