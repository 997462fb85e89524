//! Requests, messages and time for the streams of an account, on stores in memory.
//!
//! Finds: panics, loops that do not end, answers that are no JSON, acknowledgements of sequences that are not there, deadlines that stay
//! in the past. Not whether answers are right: the dialogues in `tests/jetstream` do that.
//!
//! An input is a script that a person can write, a line each: `a SUBJECT BODY` asks the API, `p SUBJECT [Key: value; …] BODY` publishes,
//! `g STREAM BODY` is a direct get, `t MS` lets time pass.

#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use ringmain::store::{MemoryStore, Store};
use ringmain::stream::api::{self, Frame, Verb};
use ringmain::stream::batch::BatchLimits;
use ringmain::stream::control::{self, Plan, Situation};
use ringmain::stream::get::DirectGet;
use ringmain::stream::json::Strictness;
use ringmain::stream::limits::{AccountLimits, ServerLimits};
use ringmain::stream::publish::Incoming;
use ringmain::stream::registry::Registry;
use ringmain::stream::stream::{Answer, Command, Handled};
use ringmain::stream::{ApiError, Stream, StreamConfig, StreamSettings};

/// Streams of one input, so that it ends soon.
const STREAMS_MAX: usize = 4;
/// How far one step moves the clock at most.
const STEP_MS_MAX: i64 = 100_000;

struct Account {
    registry: Registry<()>,
    streams: BTreeMap<String, Stream>,
    now_ns: i64,
}

impl Account {
    fn ask(&mut self, name: &str, command: Command) -> Result<Answer, ApiError> {
        match self.streams.get_mut(name).expect("the registry's stream").handle(command, self.now_ns) {
            Handled::Done { answer, .. } => answer,
            Handled::Read(..) => panic!("everything is in memory"),
        }
    }

    fn create(&mut self, config: StreamConfig) -> Result<Answer, ApiError> {
        let settings = StreamSettings {
            config: config.clone(),
            created_ns: self.now_ns,
            domain: String::new(),
            account: String::new(),
            batch_limits: BatchLimits::default(),
            seed: 1,
        };
        let name = config.name.clone();
        self.registry.insert(config, self.now_ns, ());
        self.streams.insert(name.clone(), Stream::new(settings, Store::from(MemoryStore::new())));
        self.ask(&name, Command::info())
    }

    fn request(&mut self, subject: &str, body: &[u8]) {
        let Some(verb) = Verb::parse(subject) else { return };
        let server = ServerLimits::default();
        let situation = Situation { server: &server, strictness: Strictness::Strict };
        let (said, offset) = match control::plan(&self.registry, &verb, b"", body, situation) {
            Plan::Answer(answer) | Plan::Failure(answer) => return check_json(&answer),
            Plan::Create(_) if self.streams.len() >= STREAMS_MAX => return,
            Plan::Create(config) => (self.create(*config), 0),
            Plan::Update { entry, config } => {
                let name = entry.config.name.clone();
                self.registry.set_config((*config).clone());
                (self.ask(&name, Command::Update(config)), 0)
            }
            Plan::Delete(entry) => {
                let name = entry.config.name.clone();
                self.registry.remove(&name);
                self.streams.remove(&name);
                return check_json(&api::success(&verb));
            }
            Plan::Ask { entry, command, offset } => {
                let name = entry.config.name.clone();
                (self.ask(&name, command), offset)
            }
            Plan::List { .. }
            | Plan::AccountInfo
            | Plan::Snapshot { .. }
            | Plan::Restore(_)
            | Plan::Elsewhere => return,
        };
        let frame = Frame { server_name: "N", domain: "", now_ns: self.now_ns };
        check_json(&control::answer(&verb, offset, said, frame));
    }

    fn settle(&mut self) {
        for stream in self.streams.values_mut() {
            // Every tick does a bounded part; the number of parts is bounded by what there is.
            for _ in 0..10_000 {
                if stream.next_deadline_ns().is_none_or(|deadline| deadline > self.now_ns) {
                    break;
                }
                stream.tick(self.now_ns);
            }
            let overdue = stream.next_deadline_ns().is_some_and(|deadline| deadline <= self.now_ns);
            assert!(!overdue, "a deadline stays in the past");
            let last = stream.store().state().last_seq;
            stream.take_due(|out| {
                if out.subject == b"ack" && !out.payload.is_empty() {
                    check_json(out.payload);
                    let ack: serde_json::Value = serde_json::from_slice(out.payload).expect("JSON");
                    assert!(ack["seq"].as_u64().expect("a sequence") <= last);
                }
            });
        }
    }
}

fn check_json(bytes: &[u8]) {
    let value: Result<serde_json::Value, _> = serde_json::from_slice(bytes);
    assert!(value.is_ok(), "{}", String::from_utf8_lossy(bytes));
}

fuzz_target!(|script: &[u8]| {
    let mut account = Account {
        registry: Registry::new(AccountLimits::default()),
        streams: BTreeMap::new(),
        now_ns: 1_790_000_000_000_000_000,
    };
    for line in script.split(|byte| *byte == b'\n').take(200) {
        account.now_ns += 1_000_000;
        let mut words = line.splitn(3, |byte| *byte == b' ');
        let (verb, first, rest) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        let Ok(first) = std::str::from_utf8(first) else { continue };
        match verb {
            b"a" => account.request(&format!("{}{first}", api::PREFIX), rest),
            b"p" => {
                let (header, payload) =
                    match rest.strip_prefix(b"[").and_then(|rest| rest.split_once_byte(b']')) {
                        Some((lines, payload)) => {
                            let mut header = b"NATS/1.0\r\n".to_vec();
                            for line in lines.split(|byte| *byte == b';') {
                                header.extend_from_slice(line.trim_ascii_start());
                                header.extend_from_slice(b"\r\n");
                            }
                            header.extend_from_slice(b"\r\n");
                            (header, payload)
                        }
                        None => (Vec::new(), rest),
                    };
                let Some(name) = account.registry.of_subject(first).map(|entry| entry.config.name.clone())
                else {
                    continue;
                };
                let stream = account.streams.get_mut(&name).expect("the registry's stream");
                let incoming =
                    Incoming { subject: first.as_bytes(), reply: b"ack", header: &header, payload };
                assert!(stream.publish(incoming, account.now_ns).is_none(), "everything is in memory");
            }
            b"g" => {
                if let Some(stream) = account.streams.get_mut(first) {
                    let get = DirectGet {
                        subject: None,
                        reply: b"get",
                        header: b"",
                        body: rest,
                        max_bytes: 1 << 20,
                    };
                    assert!(stream.direct_get(get).is_none(), "everything is in memory");
                }
            }
            b"t" => account.now_ns += first.parse::<i64>().unwrap_or(0).clamp(0, STEP_MS_MAX) * 1_000_000,
            _ => {}
        }
        account.settle();
    }
});

trait SplitOnceByte {
    fn split_once_byte(&self, byte: u8) -> Option<(&[u8], &[u8])>;
}

impl SplitOnceByte for [u8] {
    fn split_once_byte(&self, byte: u8) -> Option<(&[u8], &[u8])> {
        let at = self.iter().position(|other| *other == byte)?;
        Some((&self[..at], &self[at + 1..]))
    }
}
