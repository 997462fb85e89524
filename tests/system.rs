//! The system account beside the real nats-server: the same requests and the same events in both, and the same answers.
//!
//! Nothing is expected by hand: both servers run with one configuration and see the same traffic, and what they say is
//! compared value by value. Only what has to differ (ids, times, ports, memory, sizes of what differs, the numbers
//! of caches and of the server's own subscriptions) is replaced by its type, and what names a build is left out.

mod peer;
mod server_process;

use std::collections::VecDeque;
use std::io::{BufRead as _, Read as _};
use std::path::Path;
use std::time::Duration;

use peer::{Event, Peer};
use serde_json::{Value, json};
use server_process::{ServerProcess, announce, candidate, reference, wait_until};

/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(20);

const CONFIG: &str = r#"
server_name: S1
server_tags: ["cloud:aws", "zone-1"]
accounts {
    $SYS: { users: [{ user: sys, password: s }] }
    A: { users: [
        { user: a, password: a }
        { user: limited, password: a, permissions: {
            publish: { allow: ["$SYS.REQ.>", "x.*"], deny: "y" }
            subscribe: { allow: [">", "w q"], deny: "z" }
            allow_responses: true
        } }
    ] }
    B: { users: [{ user: b, password: b }] }
}
"#;

/// A server with a connection of the system account and one of `A`.
struct World {
    server: ServerProcess,
    id: String,
    system: Asker,
    member: Asker,
}

impl World {
    fn start(binary: &Path) -> World {
        World::start_with(binary, CONFIG)
    }

    fn start_with(binary: &Path, config: &str) -> World {
        let server = ServerProcess::start(binary, config).expect("a server");
        let mut system = Asker::open(&server, "sys", "s");
        let id = system.ask("$SYS.REQ.SERVER.PING.IDZ", "").expect("an answer");
        let id = id["id"].as_str().expect("an id").to_owned();
        let member = Asker::open(&server, "a", "a");
        World { server, id, system, member }
    }
}

/// A connection that asks.
struct Asker {
    peer: Peer,
    inbox: u32,
}

impl Asker {
    fn open(server: &ServerProcess, user: &str, password: &str) -> Asker {
        Asker { peer: open(server, user, password), inbox: 0 }
    }

    /// What comes back, headers and payload; `None`: nobody is there, or nothing comes. A second request that is always
    /// answered tells that nothing comes to the first.
    fn ask_raw(&mut self, subject: &str, header: &str, body: &str) -> Option<Vec<u8>> {
        self.inbox += 1;
        let inbox = self.inbox;
        let send = if header.is_empty() {
            format!("PUB {subject} _I.{inbox} {}\r\n{body}\r\n", body.len())
        } else {
            let (header_len, len) = (header.len(), header.len() + body.len());
            format!("HPUB {subject} _I.{inbox} {header_len} {len}\r\n{header}{body}\r\n")
        };
        self.peer
            .send(&format!("SUB _I.{inbox} {inbox}\r\n{send}PUB $SYS.REQ.USER.INFO _I.{inbox} 0\r\n\r\n"));
        let mut answers = VecDeque::new();
        // Answers need not come in the order of the questions: both are waited for, or one and a while.
        loop {
            match self.peer.next() {
                Event::Message { sid, payload, .. } if sid == inbox.to_string() => answers.push_back(payload),
                Event::Message { .. } | Event::Pong => continue,
                other => panic!("{other:?} instead of an answer to {subject}"),
            }
            let is_own = |answer: &Vec<u8>| !is_user_info(answer) || subject == "$SYS.REQ.USER.INFO";
            if answers.iter().any(is_own) {
                break;
            }
            if !self.something_comes() {
                break;
            }
        }
        self.peer.send(&format!("UNSUB {inbox}\r\n"));
        let wants_info = subject == "$SYS.REQ.USER.INFO";
        answers.into_iter().find(|answer| wants_info || !is_user_info(answer))
    }

    /// Whether a message comes within a while. Only used where nothing may be the answer.
    fn something_comes(&mut self) -> bool {
        let set_timeout = |peer: &Peer, timeout| {
            peer.stream.get_ref().set_read_timeout(Some(timeout)).expect("a timeout");
        };
        set_timeout(&self.peer, Duration::from_millis(700));
        let comes = loop {
            match self.peer.stream.fill_buf() {
                Ok(bytes) if bytes.starts_with(b"PING\r\n") => {
                    self.peer.stream.consume(6);
                    self.peer.send("PONG\r\n");
                }
                Ok(bytes) => break !bytes.is_empty(),
                Err(_) => break false,
            }
        };
        set_timeout(&self.peer, peer::PATIENCE);
        comes
    }

    /// The JSON that comes back.
    fn ask(&mut self, subject: &str, body: &str) -> Option<Value> {
        let answer = self.ask_raw(subject, "", body)?;
        let text = String::from_utf8(answer).expect("text");
        Some(serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }
}

fn is_user_info(answer: &[u8]) -> bool {
    String::from_utf8_lossy(answer).contains(r#""data":{"user":"#)
}

fn open(server: &ServerProcess, user: &str, password: &str) -> Peer {
    let hello = json!({
        "verbose": false, "pedantic": false, "headers": true, "no_responders": true, "protocol": 1,
        "lang": "test", "version": "1.0", "name": format!("{user}'s"), "user": user, "pass": password
    });
    let mut peer = Peer::open_with(server.address, &format!("CONNECT {hello}\r\n"));
    peer.round_trip();
    peer
}

/// Values that have to differ, by the name of their field.
const VARYING: [&str; 42] = [
    "id",
    "cid",
    // Counted while the answer is made.
    "in_msgs",
    "out_msgs",
    "in_client_msgs",
    "out_client_msgs",
    "pending_bytes",
    "server_id",
    "seq",
    "time",
    "now",
    "start",
    "stop",
    "timestamp",
    "last_activity",
    "uptime",
    "idle",
    "rtt",
    "port",
    "mem",
    "cpu",
    "cores",
    "gomaxprocs",
    "update_time",
    "config_load_time",
    "config_digest",
    "bytes",
    "in_bytes",
    "out_bytes",
    "in_client_bytes",
    "out_client_bytes",
    "num_cache",
    "num_inserts",
    "num_removes",
    "num_matches",
    "cache_hit_rate",
    "max_fanout",
    "avg_fanout",
    "sid",
    "total_connections",
    "profile",
    "memstats",
];

/// What names a build, or is not there on one side.
const LEFT_OUT: [&str; 4] = ["git_commit", "go", "ringmain", "cmdline"];

/// An answer without what has to differ.
fn normalised(value: &Value, masked: &[&str]) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(name, _)| {
                !LEFT_OUT.contains(&name.as_str()) && !masked.contains(&format!("-{name}").as_str())
            })
            .map(|(name, value)| {
                let varies = VARYING.contains(&name.as_str()) || masked.contains(&name.as_str());
                let value = if varies { json!(kind(value)) } else { normalised(value, masked) };
                (name.clone(), value)
            })
            .collect(),
        Value::Array(values) => {
            let mut values: Vec<Value> = values.iter().map(|value| normalised(value, masked)).collect();
            // Lists of accounts and subscriptions come out of maps there.
            values.sort_by_key(ToString::to_string);
            Value::Array(values)
        }
        other => other.clone(),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

/// Which connection asks.
#[derive(Clone, Copy, PartialEq)]
enum Who {
    System,
    Member,
}

/// A question: who asks, on which subject (`ID` is the server's), with which body, and what else has to differ in the
/// answer: the value of a field, or with `-` the field.
type Question = (Who, &'static str, &'static str, &'static [&'static str]);

/// Subscriptions of the server itself are its own.
const OWN: &[&str] = &["subscriptions", "num_subscriptions", "total", "subscriptions_list"];

const QUESTIONS: &[Question] = &[
    (Who::System, "$SYS.REQ.SERVER.PING", "", &["subscriptions", "msgs"]),
    (Who::System, "$SYS.REQ.SERVER.PING.STATSZ", "", &["subscriptions", "msgs"]),
    (Who::System, "$SYS.REQ.SERVER.PING.STATSZ", "{", &[]),
    (Who::System, "$SYS.REQ.SERVER.ID.STATSZ", "{}", &["subscriptions", "msgs"]),
    (Who::System, "$SYS.REQ.SERVER.PING.IDZ", "", &[]),
    (Who::System, "$SYS.REQ.SERVER.ID.IDZ", "", &[]),
    (Who::System, "$SYS.REQ.SERVER.PING.VARZ", "", &["subscriptions"]),
    (Who::System, "$SYS.REQ.SERVER.ID.VARZ", "", &["subscriptions"]),
    (Who::System, "$SYS.REQ.SERVER.PING.VARZ", r#"{"server_name":"S"}"#, &["subscriptions"]),
    (Who::System, "$SYS.REQ.SERVER.PING.VARZ", r#"{"server_name":"S","exact_match":true}"#, &[]),
    (Who::System, "$SYS.REQ.SERVER.PING.VARZ", r#"{"server_name":"other"}"#, &[]),
    (
        Who::System,
        "$SYS.REQ.SERVER.PING.VARZ",
        r#"{"host":"127.0.0.1","exact_match":true}"#,
        &["subscriptions"],
    ),
    (Who::System, "$SYS.REQ.SERVER.PING.VARZ", r#"{"tags":["zone-1","cloud:aws"]}"#, &["subscriptions"]),
    (Who::System, "$SYS.REQ.SERVER.PING.VARZ", r#"{"tags":["zone-2"]}"#, &[]),
    (Who::System, "$SYS.REQ.SERVER.PING.VARZ", r#"{"cluster":"c"}"#, &[]),
    (Who::System, "$SYS.REQ.SERVER.PING.VARZ", r#"{"domain":"d"}"#, &[]),
    (Who::System, "$SYS.REQ.SERVER.PING.VARZ", r#"{"server_name":5}"#, &[]),
    (Who::System, "$SYS.REQ.SERVER.PING.VARZ", "x", &[]),
    (Who::System, "$SYS.REQ.SERVER.PING.VARZ", "[]", &[]),
    (Who::System, "$SYS.REQ.SERVER.PING.VARZ", "{\"a\":1,}", &[]),
    (Who::System, "$SYS.REQ.SERVER.PING.CONNZ", "", &[]),
    (
        Who::System,
        "$SYS.REQ.SERVER.ID.CONNZ",
        r#"{"auth":true,"subscriptions":true}"#,
        &["subscriptions_list"],
    ),
    (
        Who::System,
        "$SYS.REQ.SERVER.PING.CONNZ",
        r#"{"auth":true,"subscriptions_detail":true,"acc":"B"}"#,
        &[],
    ),
    (Who::System, "$SYS.REQ.SERVER.PING.CONNZ", r#"{"sort":"subs","limit":1,"offset":1}"#, &[]),
    (Who::System, "$SYS.REQ.SERVER.PING.CONNZ", r#"{"user":"b","auth":true}"#, &[]),
    (Who::System, "$SYS.REQ.SERVER.PING.CONNZ", r#"{"cid":9999}"#, &[]),
    (Who::System, "$SYS.REQ.SERVER.PING.CONNZ", r#"{"state":1}"#, &[]),
    (Who::System, "$SYS.REQ.SERVER.PING.CONNZ", r#"{"state":2,"auth":true}"#, &[]),
    (Who::System, "$SYS.REQ.SERVER.PING.CONNZ", r#"{"acc":"B","filter_subject":"foo.*"}"#, &[]),
    (Who::System, "$SYS.REQ.SERVER.PING.CONNZ", r#"{"acc":"B","filter_subject":"bar"}"#, &[]),
    (Who::System, "$SYS.REQ.SERVER.PING.CONNZ", r#"{"filter_subject":"foo.*"}"#, &[]),
    (Who::System, "$SYS.REQ.SERVER.PING.CONNZ", r#"{"sort":"bogus"}"#, &[]),
    (Who::System, "$SYS.REQ.SERVER.PING.CONNZ", r#"{"sort":"stop"}"#, &[]),
    (Who::System, "$SYS.REQ.SERVER.PING.CONNZ", r#"{"limit":"x"}"#, &[]),
    (Who::System, "$SYS.REQ.SERVER.PING.CONNZ", r#"{"cid":-1}"#, &[]),
    (Who::System, "$SYS.REQ.SERVER.PING.CONNZ", r#"{"state":"closed"}"#, &[]),
    (Who::System, "$SYS.REQ.SERVER.PING.SUBSZ", "", OWN),
    (Who::System, "$SYS.REQ.SERVER.PING.SUBSZ", r#"{"subscriptions":true}"#, OWN),
    (
        Who::System,
        "$SYS.REQ.SERVER.PING.SUBSZ",
        r#"{"subscriptions":true,"account":"B","test":"foo.x"}"#,
        &[],
    ),
    (Who::System, "$SYS.REQ.SERVER.PING.SUBSZ", r#"{"subscriptions":true,"test":"foo.*"}"#, &[]),
    (Who::System, "$SYS.REQ.SERVER.PING.ACCOUNTZ", "", &[]),
    (Who::System, "$SYS.REQ.SERVER.PING.ACCOUNTZ", r#"{"account":"B"}"#, &["-imports"]),
    (Who::System, "$SYS.REQ.SERVER.PING.ACCOUNTZ", r#"{"account":"NOPE"}"#, &[]),
    (Who::System, "$SYS.REQ.SERVER.PING.ROUTEZ", "", &[]),
    (Who::System, "$SYS.REQ.SERVER.PING.GATEWAYZ", "", &[]),
    (Who::System, "$SYS.REQ.SERVER.PING.LEAFZ", "", &[]),
    (Who::System, "$SYS.REQ.SERVER.PING.JSZ", "", &[]),
    (Who::System, "$SYS.REQ.SERVER.PING.JSZ", r#"{"leader_only":true}"#, &[]),
    (Who::System, "$SYS.REQ.SERVER.PING.HEALTHZ", "", &[]),
    (Who::System, "$SYS.REQ.SERVER.PING.HEALTHZ", r#"{"stream":"x"}"#, &[]),
    (Who::System, "$SYS.REQ.SERVER.PING.HEALTHZ", r#"{"consumer":"x","details":true}"#, &[]),
    (Who::System, "$SYS.REQ.SERVER.PING.PROFILEZ", "", &[]),
    (Who::System, "$SYS.REQ.SERVER.PING.PROFILEZ", r#"{"name":"nope"}"#, &[]),
    (Who::System, "$SYS.REQ.SERVER.PING.EXPVARZ", "", &[]),
    (Who::System, "$SYS.REQ.SERVER.PING.IPQUEUESZ", "", &["data"]),
    (Who::System, "$SYS.REQ.SERVER.PING.RAFTZ", "", &[]),
    (Who::System, "$SYS.REQ.SERVER.PING.NOPE", "", &[]),
    (Who::System, "$SYS.REQ.ACCOUNT.B.INFO", "", &["-imports"]),
    (Who::System, "$SYS.REQ.ACCOUNT.NOPE.INFO", "", &[]),
    (Who::System, "$SYS.REQ.ACCOUNT.B.CONNZ", "", &[]),
    (Who::System, "$SYS.REQ.ACCOUNT.NOPE.CONNZ", "", &[]),
    (Who::System, "$SYS.REQ.ACCOUNT.PING.CONNZ", "", &[]),
    (Who::System, "$SYS.REQ.ACCOUNT.B.SUBSZ", "", &["cid"]),
    (Who::System, "$SYS.REQ.ACCOUNT.B.LEAFZ", "", &[]),
    (Who::System, "$SYS.REQ.ACCOUNT.B.JSZ", "", &[]),
    (Who::System, "$SYS.REQ.ACCOUNT.B.STATZ", "", &[]),
    (Who::System, "$SYS.REQ.ACCOUNT.$G.STATZ", "", &[]),
    (Who::System, "$SYS.REQ.ACCOUNT.$G.STATZ", r#"{"include_unused":true}"#, &[]),
    (Who::System, "$SYS.REQ.ACCOUNT.PING.STATZ", r#"{"accounts":["B"]}"#, &[]),
    (Who::System, "$SYS.REQ.ACCOUNT.B.CONNS", "", &[]),
    (Who::System, "$SYS.REQ.ACCOUNT.$G.CONNS", "", &[]),
    (Who::System, "$SYS.REQ.USER.INFO", "", &[]),
    (Who::System, "$SYS.DEBUG.SUBSCRIBERS", "_I.none", &[]),
    (Who::System, "$SYS.DEBUG.SUBSCRIBERS", "$SYS.REQ.>", &[]),
    (Who::System, "$SYS.REQ.ACCOUNT.NSUBS", r#"{"acc":"B","subject":"foo.x"}"#, &[]),
    (Who::System, "$SYS.REQ.ACCOUNT.NSUBS", r#"{"acc":"B","subject":"foo.>"}"#, &[]),
    (Who::System, "$SYS.REQ.ACCOUNT.NSUBS", r#"{"acc":"B","subject":"work","queue":"cQ=="}"#, &[]),
    (Who::System, "$SYS.REQ.SERVER.ID.KICK", r#"{"cid":9999}"#, &[]),
    (Who::System, "$SYS.REQ.SERVER.ID.KICK", r#"{"cid":9999,"server_name":"other"}"#, &[]),
    (Who::System, "$SYS.REQ.SERVER.ID.LDM", r#"{"cid":9999}"#, &[]),
    (Who::System, "$SYS.REQ.SERVER.ID.KICK", "", &[]),
    (Who::System, "$SYS.REQ.SERVER.ID.RELOAD", "{", &[]),
    (Who::Member, "$SYS.REQ.USER.INFO", "", &[]),
    (Who::Member, "$SYS.REQ.SERVER.PING", "", &[]),
    (Who::Member, "$SYS.REQ.SERVER.PING.VARZ", "", &[]),
    (Who::Member, "$SYS.REQ.ACCOUNT.B.CONNZ", "", &[]),
    (Who::Member, "$SYS.REQ.SERVER.PING.CONNZ", "", &[]),
    (Who::Member, "$SYS.REQ.SERVER.PING.CONNZ", r#"{"acc":"B"}"#, &[]),
    (Who::Member, "$SYS.REQ.ACCOUNT.PING.CONNZ", r#"{"auth":true}"#, &[]),
    (Who::Member, "$SYS.DEBUG.SUBSCRIBERS", "foo", &[]),
];

#[test]
fn requests_have_the_answers_of_the_real_server() {
    let Some(real) = reference() else {
        return announce("SKIPPED requests_have_the_answers_of_the_real_server: no nats-server");
    };
    let mut worlds = [World::start(&candidate()), World::start(&real)];
    // Somebody to be told of, and somebody who has gone.
    let _others = worlds.each_mut().map(|world| {
        let mut other = open(&world.server, "b", "b");
        other.send("SUB foo.* 1\r\nSUB work q 2\r\nSUB foo.x 3\r\n");
        other.round_trip();
        let gone = open(&world.server, "b", "b");
        drop(gone);
        wait_until("the other has gone", PATIENCE, || {
            let closed = world.system.ask("$SYS.REQ.SERVER.PING.CONNZ", r#"{"state":1}"#).expect("an answer");
            closed["data"]["total"] == 1
        });
        other
    });
    let mut differences = Vec::new();
    for (who, subject, body, masked) in QUESTIONS {
        let [own, expected] = worlds.each_mut().map(|world| {
            let subject = subject.replace("ID", &world.id).replace(&format!("{}Z", world.id), "IDZ");
            let asker = if *who == Who::System { &mut world.system } else { &mut world.member };
            asker.ask(&subject, body).map(|answer| match answer {
                // No responders.
                Value::String(text) if text.starts_with("NATS/1.0 503") => json!("nobody is there"),
                answer => normalised(&answer, masked),
            })
        });
        if own != expected {
            let shown = |answer: &Option<Value>| match answer {
                Some(answer) => serde_json::to_string_pretty(answer).expect("JSON"),
                None => "nothing".to_owned(),
            };
            differences.push(format!(
                "=== {subject} {body}\n--- nats-server\n{}\n--- ringmain\n{}\n",
                shown(&expected),
                shown(&own)
            ));
        }
    }
    announce(&format!(
        "system: {} of {} answers as nats-server's",
        QUESTIONS.len() - differences.len(),
        QUESTIONS.len()
    ));
    assert!(QUESTIONS.len() >= 80);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// What is asked about JetStream, in the body of each of the subjects below.
const JETSTREAM_BODIES: [&str; 20] = [
    "",
    "{}",
    r#"{"accounts":true}"#,
    r#"{"streams":true}"#,
    r#"{"consumer":true}"#,
    r#"{"consumers":true}"#,
    r#"{"consumer":true,"config":true}"#,
    r#"{"streams":true,"consumer":true,"config":true,"raft":true,"direct_consumer":true}"#,
    r#"{"account":"A","consumer":true}"#,
    r#"{"account":"A","streams":true,"config":true}"#,
    r#"{"account":"NOPE"}"#,
    r#"{"accounts":true,"limit":1}"#,
    r#"{"accounts":true,"limit":1,"offset":1}"#,
    r#"{"accounts":true,"offset":5}"#,
    r#"{"streams":true,"stream_leader_only":true}"#,
    r#"{"leader_only":true,"accounts":true}"#,
    r#"{"streams":1}"#,
    r#"{"limit":"a"}"#,
    r#"{"server_name":"S1","streams":true}"#,
    "x",
];

const JETSTREAM_SUBJECTS: [&str; 4] = [
    "$SYS.REQ.SERVER.PING.JSZ",
    "$SYS.REQ.ACCOUNT.A.JSZ",
    "$SYS.REQ.ACCOUNT.B.JSZ",
    "$SYS.REQ.ACCOUNT.NOPE.JSZ",
];

/// Varies beside what varies everywhere, or is not there yet. The last two: where the files are, and how many requests there were when the answer was made.
const JETSTREAM_MASKED: [&str; 9] = [
    "created",
    "first_ts",
    "last_ts",
    "last_active",
    "ts",
    "pause_remaining",
    "memory",
    "store_dir",
    "total",
];

#[test]
fn jetstream_is_told_as_by_the_real_server() {
    let Some(real) = reference() else {
        return announce("SKIPPED jetstream_is_told_as_by_the_real_server: no nats-server");
    };
    let config = CONFIG
        .replace("A: {", "A: { jetstream: enabled,")
        .replace("B: {", "B: { jetstream: { max_mem: 1M, max_file: 2M },")
        + "jetstream { store_dir: js, max_mem: 64M, max_file: 1G, sync: always, limits { max_ack_pending: 5000 } }\n";
    let mut worlds = [candidate(), real].map(|binary| World::start_with(&binary, &config));
    for world in &mut worlds {
        for (subject, body) in [
            ("$JS.API.STREAM.CREATE.S", r#"{"name":"S","subjects":["s.>"],"max_bytes":900}"#),
            (
                "$JS.API.STREAM.CREATE.W",
                r#"{"name":"W","subjects":["w"],"retention":"workqueue","storage":"memory"}"#,
            ),
            ("s.1", "hello"),
            ("s.2", "hello"),
            (
                "$JS.API.CONSUMER.CREATE.S.c",
                r#"{"stream_name":"S","config":{"name":"c","durable_name":"c","ack_policy":"explicit","backoff":[1000000000],"max_deliver":2,"metadata":{"k":"v"}}}"#,
            ),
            (
                "$JS.API.CONSUMER.CREATE.S.p",
                r#"{"stream_name":"S","config":{"name":"p","durable_name":"p","deliver_subject":"d","ack_policy":"all","pause_until":"2099-01-01T00:00:00Z"}}"#,
            ),
        ] {
            let answer = world.member.ask(subject, body).expect("an answer");
            assert!(answer.get("error").is_none(), "{subject}: {answer}");
        }
    }
    let mut differences = Vec::new();
    for (subject, body) in JETSTREAM_SUBJECTS.iter().flat_map(|s| JETSTREAM_BODIES.map(|body| (s, body))) {
        let [own, expected] = worlds.each_mut().map(|world| {
            world.system.ask(subject, body).map(|answer| normalised(&answer, &JETSTREAM_MASKED))
        });
        if own != expected {
            differences.push(format!(
                "=== {subject} {body}\n--- nats-server\n{expected:#?}\n--- ringmain\n{own:#?}\n"
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn answers_are_compressed_for_those_who_ask_for_that() {
    let mut world = World::start(&candidate());
    for (accepted, encoding) in
        [("gzip", Some("gzip")), ("snappy", Some("snappy")), ("br", Some("identity")), ("", None)]
    {
        let header = format!("NATS/1.0\r\nAccept-Encoding: {accepted}\r\n\r\n");
        let answer = world.system.ask_raw("$SYS.REQ.SERVER.PING.VARZ", &header, "").expect("an answer");
        let Some(encoding) = encoding else {
            assert!(answer.starts_with(b"{\"server\""));
            continue;
        };
        let header = format!("NATS/1.0\r\nContent-Encoding: {encoding}\r\n\r\n");
        assert!(answer.starts_with(header.as_bytes()), "{}", String::from_utf8_lossy(&answer[..60]));
        let body = &answer[header.len()..];
        let is_json = body.starts_with(b"{");
        assert_eq!(is_json, encoding == "identity");
        if encoding == "gzip" {
            let mut text = String::new();
            flate2::read::GzDecoder::new(body).read_to_string(&mut text).expect("gzip");
            assert!(text.contains("\"system_account\":\"$SYS\""));
        }
    }
}

#[test]
fn the_system_account_deletes_all_streams_of_an_account_as_in_the_real_server() {
    let told = |binary: &Path| {
        let stores = tempfile::tempdir().expect("a directory");
        let store = format!("jetstream: {{ store_dir: '{}' }}\n", stores.path().display());
        let config = CONFIG.replace("A: { users", "A: { jetstream: enabled, users") + &store;
        let server = ServerProcess::start(binary, &config).expect("a server");
        let mut system = Asker::open(&server, "sys", "s");
        let mut member = Asker::open(&server, "a", "a");
        for stream in ["S", "T"] {
            let config = format!(r#"{{"name":"{stream}"}}"#);
            let answer = member.ask(&format!("$JS.API.STREAM.CREATE.{stream}"), &config).expect("an answer");
            assert_eq!(answer["did_create"], true, "{answer}");
        }
        let answers = ["NONE", "a/b", "A", "A"].map(|account| {
            let answer = system.ask(&format!("$JS.API.ACCOUNT.PURGE.{account}"), "");
            let names = member.ask("$JS.API.STREAM.NAMES", "").expect("an answer");
            (account, answer, names["total"].clone())
        });
        let again = member.ask("$JS.API.STREAM.CREATE.S", r#"{"name":"S"}"#).expect("an answer");
        (answers, again["did_create"].clone())
    };
    let own = told(&candidate());
    assert_eq!((&own.0[2].2, &own.1), (&json!(0), &json!(true)), "{own:?}");
    let Some(real) = reference() else {
        return announce("SKIPPED the real server's answers to a purge of an account: no nats-server");
    };
    assert_eq!(own, told(&real));
}

#[test]
fn there_is_nobody_to_ask_without_a_system_account() {
    let config = CONFIG.replace("$SYS:", "SYS:") + "no_system_account: true\n";
    let server = ServerProcess::start(&candidate(), &config).expect("a server");
    let mut asker = Asker::open(&server, "a", "a");
    let answer = asker.ask("$SYS.REQ.USER.INFO", "").expect("an answer");
    assert!(answer.as_str().is_some_and(|text| text.starts_with("NATS/1.0 503")), "{answer}");
}

#[test]
fn any_account_can_be_the_system_account() {
    let config = format!("{}system_account: B\n", CONFIG.replace("$SYS:", "S:"));
    let server = ServerProcess::start(&candidate(), &config).expect("a server");
    let mut system = Asker::open(&server, "b", "b");
    let answer = system.ask("$SYS.REQ.SERVER.PING.VARZ", "").expect("an answer");
    assert_eq!(answer["data"]["system_account"], "B");
    let mut other = Asker::open(&server, "sys", "s");
    let answer = other.ask("$SYS.REQ.SERVER.PING.VARZ", "").expect("an answer");
    assert!(answer.as_str().is_some_and(|text| text.starts_with("NATS/1.0 503")), "{answer}");
}

#[test]
fn a_kicked_connection_is_closed_and_one_that_is_told_to_leave_hears_of_it() {
    let mut world = World::start(&candidate());
    let mut victim = open(&world.server, "b", "b");
    let connections = world.system.ask("$SYS.REQ.ACCOUNT.B.CONNZ", "").expect("an answer");
    let cid = connections["data"]["connections"][0]["cid"].as_u64().expect("a number");
    let subject = |what: &str| format!("$SYS.REQ.SERVER.{}.{what}", world.id);
    let (tell, kick) = (subject("LDM"), subject("KICK"));
    let body = format!("{{\"cid\":{cid}}}");
    assert_eq!(world.system.ask(&tell, &body).expect("an answer").get("error"), None);
    let mut line = String::new();
    while !line.contains("\"ldm\":true") {
        line.clear();
        victim.stream.read_line(&mut line).expect("a line");
        assert!(line.starts_with("INFO "), "{line}");
    }
    assert_eq!(world.system.ask(&kick, &body).expect("an answer").get("error"), None);
    assert_eq!(victim.next(), Event::Closed);
    wait_until("it is among the closed ones", PATIENCE, || {
        let closed = world.system.ask("$SYS.REQ.SERVER.PING.CONNZ", r#"{"state":1}"#).expect("an answer");
        closed["data"]["connections"][0]["reason"] == "Kicked"
    });
}

#[test]
fn the_configuration_can_be_read_again_by_a_request() {
    let mut world = World::start(&candidate());
    let path = world.server.path("server.conf");
    let subject = format!("$SYS.REQ.SERVER.{}.RELOAD", world.id);
    std::fs::write(&path, format!("{CONFIG}max_payload: 2048\n")).expect("a file");
    let answer = world.system.ask(&subject, "").expect("an answer");
    assert_eq!((answer.get("error"), answer.get("data")), (None, None), "{answer}");
    let varz = world.system.ask("$SYS.REQ.SERVER.PING.VARZ", "").expect("an answer");
    assert_eq!(varz["data"]["max_payload"], 2048);
    std::fs::write(&path, "port: {").expect("a file");
    let answer = world.system.ask(&subject, "").expect("an answer");
    assert_eq!(answer["error"]["code"], 500, "{answer}");
    // Accounts come, and can be asked in.
    std::fs::write(&path, CONFIG.replace("B: {", "C: { users: [{ user: c, password: c }] }\n    B: {"))
        .expect("a file");
    let answer = world.system.ask(&subject, "").expect("an answer");
    assert_eq!(answer.get("error"), None, "{answer}");
    let answer = Asker::open(&world.server, "c", "c").ask("$SYS.REQ.USER.INFO", "").expect("an answer");
    assert_eq!(answer["data"]["account"], "C");
}

/// The events that a listener in the system account gets: subject without ids, and what it says.
struct Listener(Peer);

impl Listener {
    fn open(world: &World) -> Listener {
        let mut peer = open(&world.server, "sys", "s");
        peer.send("SUB $SYS.> 1\r\n");
        peer.round_trip_after_messages();
        Listener(peer)
    }

    /// The next event on such a subject; others are passed over.
    fn wait_for(&mut self, world: &World, subject: &str) -> Value {
        let wanted = subject.replace("ID", &world.id);
        loop {
            match self.0.next() {
                Event::Message { subject, payload, .. } if subject == wanted => {
                    return serde_json::from_slice(&payload).expect("JSON");
                }
                Event::Message { .. } | Event::Pong => {}
                other => panic!("{other:?} instead of {wanted}"),
            }
        }
    }
}

/// What both servers tell must be the same.
#[track_caller]
fn compare(subject: &str, told: &[Value], masked: &[&str]) {
    let shown = |value: &Value| serde_json::to_string_pretty(&normalised(value, masked)).expect("JSON");
    for other in &told[1..] {
        assert_eq!(shown(&told[0]), shown(other), "{subject}");
    }
}

#[test]
fn events_are_those_of_the_real_server() {
    let mut binaries = vec![candidate()];
    match reference() {
        Some(real) => binaries.push(real),
        None => announce("SKIPPED events_are_those_of_the_real_server, the comparison: no nats-server"),
    }
    let mut worlds: Vec<(World, Listener)> = binaries
        .iter()
        .map(|binary| {
            let world = World::start(binary);
            let listener = Listener::open(&world);
            (world, listener)
        })
        .collect();
    let mut told = |subject: &str, masked: &[&str], act: &mut dyn FnMut(&World)| {
        let told: Vec<Value> = worlds
            .iter_mut()
            .map(|(world, listener)| {
                act(world);
                listener.wait_for(world, subject)
            })
            .collect();
        compare(subject, &told, masked);
        told
    };
    let mut clients = VecDeque::new();
    // Connections come, and an account has one more.
    let event = told("$SYS.ACCOUNT.B.CONNECT", &[], &mut |world| {
        let mut client = open(&world.server, "b", "b");
        client.send("SUB x 1\r\nPUB x 3\r\nabc\r\n");
        client.round_trip_after_messages();
        clients.push_back(client);
    });
    assert_eq!(event[0]["type"], "io.nats.server.advisory.v1.client_connect");
    // And go, for one reason or another.
    let event = told("$SYS.ACCOUNT.B.DISCONNECT", &[], &mut |_| drop(clients.pop_front()));
    assert_eq!((&event[0]["reason"], &event[0]["sent"]["msgs"]), (&json!("Client Closed"), &json!(1)));
    let broken = told("$SYS.ACCOUNT.B.DISCONNECT", &[], &mut |world| {
        let mut client = open(&world.server, "b", "b");
        client.send("PUB x\r\n");
        assert_eq!(client.next(), Event::Closed);
    });
    assert_eq!(broken[0]["reason"], "Protocol Violation");
    let unauthorized = told("$SYS.SERVER.ID.CLIENT.AUTH.ERR", &[], &mut |world| {
        let hello = r#"{"user":"b","pass":"wrong","lang":"test"}"#;
        let mut client = Peer::open_with(world.server.address, &format!("CONNECT {hello}\r\nPING\r\n"));
        assert!(matches!(client.next(), Event::Error(_)));
    });
    assert_eq!(unauthorized[0]["reason"], "Authentication Failure");
    told("$SYS.ACCOUNT.$G.DISCONNECT", &[], &mut |_| {});
    // The server in brief comes by itself.
    told("$SYS.SERVER.ID.STATSZ", &["subscriptions", "msgs"], &mut |_| {});
    // What an account has: the numbers of messages depend on when it is told.
    let masked = &["conns", "total_conns", "msgs"];
    told("$SYS.ACCOUNT.A.SERVER.CONNS", masked, &mut |world| {
        clients.push_back(open(&world.server, "a", "a"));
    });
    told("$SYS.SERVER.ACCOUNT.A.CONNS", masked, &mut |world| {
        clients.push_back(open(&world.server, "a", "a"));
    });
    told("$SYS.ACCOUNT.$SYS.CONNECT", &[], &mut |world| {
        clients.push_back(open(&world.server, "sys", "s"));
    });
    // The end. The reference tells nothing any more once it has told of lame duck mode, so it is not asked about both.
    told("$SYS.SERVER.ID.SHUTDOWN", &[], &mut |world| world.server.signal(libc::SIGTERM));
}

#[test]
fn lame_duck_mode_is_told_and_events_go_on() {
    let mut told = Vec::new();
    for binary in std::iter::once(candidate()).chain(reference()) {
        let world = World::start(&binary);
        let mut listener = Listener::open(&world);
        world.server.signal(libc::SIGUSR2);
        told.push(listener.wait_for(&world, "$SYS.SERVER.ID.LAMEDUCK"));
        if binary == candidate() {
            // Who leaves with something unread has its connection reset.
            let mut leaving = world.member.peer;
            leaving.round_trip();
            drop(leaving);
            let gone = world.id.clone();
            let event = loop {
                match listener.0.next() {
                    Event::Message { subject, payload, .. } if subject == "$SYS.ACCOUNT.A.DISCONNECT" => {
                        break serde_json::from_slice::<Value>(&payload).expect("JSON");
                    }
                    Event::Message { .. } => {}
                    other => panic!("{other:?} instead of an event of {gone}"),
                }
            };
            assert_eq!(event["reason"], "Client Closed");
        }
    }
    compare("LAMEDUCK", &told, &[]);
}

#[test]
fn the_number_of_an_accounts_connections_ends_up_right() {
    let world = World::start(&candidate());
    let mut listener = Listener::open(&world);
    let clients: Vec<Peer> = (0..50).map(|_| open(&world.server, "b", "b")).collect();
    while listener.wait_for(&world, "$SYS.ACCOUNT.B.SERVER.CONNS")["conns"] != 50 {}
    drop(clients);
    while listener.wait_for(&world, "$SYS.ACCOUNT.B.SERVER.CONNS")["conns"] != 0 {}
}

#[test]
fn events_reach_accounts_that_import_them() {
    let config = CONFIG
        .replace(
            "$SYS: { users: [{ user: sys, password: s }] }",
            r#"$SYS: { users: [{ user: sys, password: s }], exports: [{ stream: "$SYS.ACCOUNT.*.CONNECT" }] }"#,
        )
        .replace(
            "A: { users: [",
            r#"A: {
                imports: [{ stream: { account: "$SYS", subject: "$SYS.ACCOUNT.B.CONNECT" }, to: "b.comes" }]
                users: ["#,
        );
    let server = ServerProcess::start(&candidate(), &config).expect("a server");
    let mut listener = open(&server, "a", "a");
    listener.send("SUB b.comes 1\r\n");
    listener.round_trip_after_messages();
    let _comes = open(&server, "b", "b");
    match listener.next() {
        Event::Message { subject, payload, .. } => {
            assert_eq!(subject, "b.comes");
            let event: Value = serde_json::from_slice(&payload).expect("JSON");
            assert_eq!(event["client"]["acc"], "B");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn accounts_that_import_requests_to_the_server_are_answered() {
    const IMPORTING: &str = r#"
server_name: S1
system_account: SYS
accounts {
    SYS: { users: [{ user: sys, password: s }], exports: [{ service: "$SYS.REQ.SERVER.PING.IDZ" }] }
    A: {
        users: [{ user: a, password: a }]
        imports: [{ service: { account: SYS, subject: "$SYS.REQ.SERVER.PING.IDZ" }, to: who }]
    }
}
"#;
    for binary in [Some(candidate()), reference()].into_iter().flatten() {
        let server = ServerProcess::start(&binary, IMPORTING).expect("a server");
        let mut asker = Asker::open(&server, "a", "a");
        let answer = asker.ask("who", "").expect("an answer");
        assert_eq!(answer["name"], "S1");
    }
}

#[test]
fn many_requests_at_once_are_all_answered() {
    let world = World::start(&candidate());
    let mut asker = open(&world.server, "sys", "s");
    const REQUESTS: usize = 500;
    asker.send("SUB inbox 1\r\n");
    asker.send(&"PUB $SYS.REQ.SERVER.PING.CONNZ inbox 0\r\n\r\n".repeat(REQUESTS));
    for _ in 0..REQUESTS {
        assert!(matches!(asker.next(), Event::Message { .. }));
    }
}
