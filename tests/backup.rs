//! Backups of streams, from Ringmain to nats-server and back, and what older servers have left.
//!
//! A client asks for a snapshot, keeps the pieces, and sends them to a server that has no such stream. What that server then says of the stream, its
//! messages and its consumers is what the first one had said. Without the real server only Ringmain is asked.

mod peer;
mod server_process;

use std::io::{BufRead as _, Read as _};
use std::net::SocketAddr;
use std::path::Path;

use peer::Peer;
use serde_json::Value;
use server_process::{ServerProcess, announce, candidate, reference};

/// A server with streams in a directory of its own.
struct Server {
    process: Option<ServerProcess>,
    directory: tempfile::TempDir,
    binary: std::path::PathBuf,
}

impl Server {
    fn start(binary: &Path) -> Server {
        let directory = tempfile::tempdir().expect("a directory");
        let mut server = Server { process: None, directory, binary: binary.to_owned() };
        server.start_again();
        server
    }

    fn start_again(&mut self) {
        self.process = None;
        let store = self.directory.path().to_str().expect("a name");
        let arguments = ["-a", "127.0.0.1", "-p", "-1", "-js", "-sd", store];
        // The one before may not be gone yet.
        for _ in 0..50 {
            match ServerProcess::start_with(&self.binary, "", &arguments) {
                Ok(process) => {
                    self.process = Some(process);
                    return;
                }
                Err(error) if error.contains("used by another server") => {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                Err(error) => panic!("{error}"),
            }
        }
        panic!("the directory stays in use");
    }

    fn client(&self) -> Client {
        Client::connect(self.process.as_ref().expect("it runs").address)
    }

    /// What lies where streams do.
    fn directories(&self) -> Vec<String> {
        let streams = self.directory.path().join("jetstream/$G/streams");
        let Ok(entries) = std::fs::read_dir(streams) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// A message as it came.
#[derive(Debug, Clone, PartialEq)]
struct Frame {
    subject: String,
    reply: String,
    header: String,
    payload: Vec<u8>,
}

struct Client {
    peer: Peer,
}

impl Client {
    fn connect(address: SocketAddr) -> Client {
        Client { peer: Peer::open_with(address, &format!("{}SUB _I.> 1\r\nSUB _C.chunk 2\r\n", peer::HELLO)) }
    }

    fn next(&mut self) -> Frame {
        loop {
            let mut line = String::new();
            assert!(self.peer.stream.read_line(&mut line).expect("a frame") > 0, "the connection has ended");
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let (subject, reply, header_len, len) = match words[..] {
                ["MSG", subject, _, len] => (subject, "", "0", len),
                ["MSG", subject, _, reply, len] => (subject, reply, "0", len),
                ["HMSG", subject, _, header_len, len] => (subject, "", header_len, len),
                ["HMSG", subject, _, reply, header_len, len] => (subject, reply, header_len, len),
                ["PING"] => {
                    self.peer.send("PONG\r\n");
                    continue;
                }
                ["INFO", ..] => continue,
                _ => panic!("{line:?}"),
            };
            let (header_len, len): (usize, usize) = (header_len.parse().unwrap(), len.parse().unwrap());
            let mut payload = vec![0; len + 2];
            self.peer.stream.read_exact(&mut payload).expect("a payload");
            payload.truncate(len);
            let rest = payload.split_off(header_len);
            let header = String::from_utf8(payload).expect("text");
            return Frame { subject: subject.to_owned(), reply: reply.to_owned(), header, payload: rest };
        }
    }

    fn request(&mut self, subject: &str, body: &[u8]) -> Frame {
        self.peer.send_bytes(format!("PUB {subject} _I.ask {}\r\n", body.len()).as_bytes());
        self.peer.send_bytes(body);
        self.peer.send("\r\n");
        loop {
            let frame = self.next();
            if frame.subject == "_I.ask" {
                return frame;
            }
        }
    }

    fn ask(&mut self, subject: &str, body: &str) -> Value {
        let answer = self.request(&format!("$JS.API.{subject}"), body.as_bytes()).payload;
        serde_json::from_slice(&answer)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&answer)))
    }

    fn done(&mut self, subject: &str, body: &str) -> Value {
        let answer = self.ask(subject, body);
        assert!(answer.get("error").is_none(), "{subject}: {answer}");
        answer
    }

    fn publish(&mut self, subject: &str, header: &str, payload: &str) {
        let header = if header.is_empty() { String::new() } else { format!("NATS/1.0\r\n{header}\r\n\r\n") };
        let (head, all) = (header.len(), header.len() + payload.len());
        let frame = match head {
            0 => format!("PUB {subject} _I.ask {all}\r\n{payload}\r\n"),
            _ => format!("HPUB {subject} _I.ask {head} {all}\r\n{header}{payload}\r\n"),
        };
        self.peer.send(&frame);
        let answer = String::from_utf8(self.next().payload).unwrap();
        assert!(answer.contains("\"seq\""), "{answer}");
    }

    /// Messages for a consumer.
    fn pull(&mut self, stream: &str, consumer: &str, count: usize) -> Vec<Frame> {
        let body = format!("{{\"batch\":{count},\"no_wait\":true}}");
        let len = body.len();
        self.peer
            .send(&format!("PUB $JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer} _I.m {len}\r\n{body}\r\n"));
        let messages: Vec<Frame> = (0..count).map(|_| self.next()).collect();
        assert!(messages.iter().all(|message| message.reply.starts_with("$JS.ACK")), "{messages:?}");
        messages
    }

    /// Answers a message, and waits until that is known.
    fn answer(&mut self, message: &Frame, with: &str) {
        self.request(&message.reply, with.as_bytes());
    }

    fn snapshot(&mut self, stream: &str, more: &str) -> Backup {
        let body = format!("{{\"deliver_subject\":\"_C.chunk\"{more}}}");
        let answer = self.done(&format!("STREAM.SNAPSHOT.{stream}"), &body);
        let mut chunks = Vec::new();
        loop {
            let frame = self.next();
            if frame.subject != "_C.chunk" {
                continue;
            }
            if frame.payload.is_empty() {
                return Backup { answer, chunks, end: frame.header };
            }
            if !frame.reply.is_empty() {
                self.peer.publish(&frame.reply, b"");
            }
            chunks.push(frame.payload);
        }
    }

    /// Sends a backup. What is said at its end, or to the request.
    fn restore(&mut self, stream: &str, config: &Value, bytes: &[u8]) -> Value {
        let body = format!("{{\"config\":{config},\"state\":{{}}}}");
        let answer = self.ask(&format!("STREAM.RESTORE.{stream}"), &body);
        let Some(to) = answer["deliver_subject"].as_str().filter(|to| !to.is_empty()) else { return answer };
        assert!(to.starts_with(&format!("$JS.SNAPSHOT.RESTORE.{stream}.")), "{to}");
        for chunk in bytes.chunks(4096) {
            let answer = self.request(to, chunk);
            assert_eq!(answer.payload, b"", "{}", String::from_utf8_lossy(&answer.payload));
        }
        serde_json::from_slice(&self.request(to, b"").payload).unwrap()
    }

    /// All that can be asked about a stream: its state, its consumers, its messages.
    fn describe(&mut self, stream: &str) -> (Value, Vec<Value>, Vec<Value>) {
        let mut info = self.done(&format!("STREAM.INFO.{stream}"), r#"{"deleted_details":true}"#);
        let (first, last) = (info["state"]["first_seq"].as_u64(), info["state"]["last_seq"].as_u64());
        let mut messages = Vec::new();
        for seq in first.unwrap()..=last.unwrap() {
            let mut message = self.ask(&format!("STREAM.MSG.GET.{stream}"), &format!("{{\"seq\":{seq}}}"));
            messages.push(message["message"].take());
        }
        let consumers = self.done(&format!("CONSUMER.LIST.{stream}"), "");
        let mut consumers: Vec<Value> = consumers["consumers"].as_array().unwrap().clone();
        consumers.sort_by_key(|consumer| consumer["name"].as_str().unwrap().to_owned());
        for consumer in &mut consumers {
            forget(consumer, &["created", "ts", "cluster"]);
            for pair in ["delivered", "ack_floor"] {
                forget(&mut consumer[pair], &["last_active"]);
            }
            // Restored by a name of its own.
            forget(&mut consumer["config"], &["durable_name"]);
        }
        (info["state"].take(), consumers, messages)
    }
}

struct Backup {
    answer: Value,
    chunks: Vec<Vec<u8>>,
    /// The header of the last message.
    end: String,
}

impl Backup {
    fn bytes(&self) -> Vec<u8> {
        self.chunks.concat()
    }
}

fn forget(value: &mut Value, names: &[&str]) {
    if let Some(object) = value.as_object_mut() {
        object.retain(|name, _| !names.contains(&&**name));
    }
}

/// A stream with everything that is hard to keep.
fn fill(client: &mut Client) {
    let stream = r#"{"name":"S","subjects":["s.>"],"allow_msg_ttl":true,"metadata":{"a":"b"}}"#;
    client.done("STREAM.CREATE.S", stream);
    for number in 0..120 {
        let header = match number % 5 {
            0 => format!("Nats-Msg-Id: id-{number}\r\nK: {number}"),
            1 => "Nats-TTL: 1h".to_owned(),
            _ => String::new(),
        };
        client.publish(
            &format!("s.{}", number % 7),
            &header,
            &format!("payload {number} ").repeat(number % 9),
        );
    }
    for seq in [1, 2, 50, 51, 52, 77, 119, 120] {
        client.done("STREAM.MSG.DELETE.S", &format!("{{\"seq\":{seq}}}"));
    }
    let wait = "\"ack_policy\":\"explicit\",\"ack_wait\":600000000000";
    for (name, config) in [
        ("D", format!("{{\"durable_name\":\"D\",{wait}}}")),
        ("F", format!("{{\"durable_name\":\"F\",\"filter_subjects\":[\"s.1\",\"s.2\"],{wait}}}")),
        ("M", format!("{{\"durable_name\":\"M\",\"max_deliver\":1,{wait}}}")),
        ("E", format!("{{\"name\":\"E\",\"inactive_threshold\":600000000000,{wait}}}")),
        ("N", r#"{"durable_name":"N","deliver_policy":"new","ack_policy":"none"}"#.to_owned()),
    ] {
        client.done(
            &format!("CONSUMER.CREATE.S.{name}"),
            &format!("{{\"stream_name\":\"S\",\"config\":{config}}}"),
        );
    }
    let messages = client.pull("S", "D", 20);
    for at in [0, 1, 2, 7, 8] {
        client.answer(&messages[at], "+ACK");
    }
    client.answer(&messages[4], "-NAK");
    let again = client.pull("S", "D", 1);
    assert!(again[0].reply.contains(".2."), "{again:?}");
    for message in client.pull("S", "F", 5) {
        client.answer(&message, "+ACK");
    }
    client.pull("S", "E", 3);
}

fn servers() -> Vec<(&'static str, std::path::PathBuf)> {
    let mut servers = vec![("ringmain", candidate())];
    match reference() {
        Some(binary) => servers.push(("nats-server", binary)),
        None => announce("SKIPPED nats-server: none (NATS_SERVER or .deps/py/bin/nats-server)"),
    }
    servers
}

#[test]
fn a_backup_brings_everything_back_on_either_server() {
    for (from, source) in servers() {
        let source = Server::start(&source);
        let mut client = source.client();
        fill(&mut client);
        let before = client.describe("S");
        let backup = client.snapshot("S", ",\"chunk_size\":1024");
        assert!(backup.chunks.len() > 2 && backup.chunks[0].len() == 1024, "{from}");
        assert_eq!(backup.end, "NATS/1.0 204\r\n\r\n", "{from}");
        assert_eq!(backup.answer["state"]["last_seq"], 120);
        let without = client.snapshot("S", ",\"no_consumers\":true");
        for (to, target) in servers() {
            let mut target = Server::start(&target);
            let mut client = target.client();
            let answer = client.restore("S", &backup.answer["config"], &backup.bytes());
            assert_eq!(answer["type"], "io.nats.jetstream.api.v1.stream_create_response");
            assert_eq!(answer["state"]["messages"], 112, "{from} to {to}: {answer}");
            let after = client.describe("S");
            // The last time is that of the last message that is left.
            let (mut state, mut wanted) = (after.0, before.0.clone());
            for state in [&mut state, &mut wanted] {
                forget(state, &["last_ts"]);
            }
            assert_eq!(state, wanted, "{from} to {to}");
            assert_eq!(after.1, before.1, "{from} to {to}");
            assert_eq!(after.2, before.2, "{from} to {to}");
            // It goes on where it was, and a start finds all of it.
            client.publish("s.1", "", "more");
            let more = client.describe("S");
            assert_eq!(more.0["last_seq"], 121, "{from} to {to}");
            if to == "ringmain" {
                drop(client);
                target.start_again();
                client = target.client();
                let again = client.describe("S");
                assert_eq!(again.2, more.2, "{from} to {to}");
                assert_eq!(again.1, more.1, "{from} to {to}");
            }
            let config = r#"{"name":"T","subjects":["t.>"],"storage":"memory","allow_msg_ttl":true}"#;
            let answer = client.restore("T", &serde_json::from_str(config).unwrap(), &without.bytes());
            assert_eq!(answer["state"]["messages"], 112, "{from} to {to}: {answer}");
            assert_eq!(answer["state"]["consumer_count"], 0, "{from} to {to}");
        }
    }
}

#[test]
fn backups_of_older_servers_are_what_they_are_on_nats_server() {
    let config: Value =
        serde_json::from_str(r#"{"name":"S","subjects":["s.>"],"allow_msg_ttl":true,"allow_direct":true}"#)
            .unwrap();
    for backup in ["2.15.1", "2.14.0", "2.10.25"] {
        let path = format!("{}/src/stream/backup/fixtures/{backup}.backup", env!("CARGO_MANIFEST_DIR"));
        let bytes = std::fs::read(path).expect("a backup");
        let mut described = Vec::new();
        for (name, binary) in servers() {
            let server = Server::start(&binary);
            let mut client = server.client();
            let answer = client.restore("S", &config, &bytes);
            assert_eq!(answer["state"]["messages"], 190, "{backup} on {name}: {answer}");
            let (mut state, mut consumers, messages) = client.describe("S");
            // Older servers kept the time of the last sequence as well; what is awaited was delivered long ago.
            forget(&mut state, &["last_ts"]);
            for consumer in &mut consumers {
                forget(consumer, &["num_redelivered", "push_bound"]);
            }
            described.push((state, consumers, messages));
        }
        assert!(described.windows(2).all(|pair| pair[0] == pair[1]), "{backup}: {described:#?}");
    }
}

#[test]
fn what_cannot_be_restored_is_said_as_by_nats_server_and_leaves_nothing() {
    let path = format!("{}/src/stream/backup/fixtures/2.15.1.backup", env!("CARGO_MANIFEST_DIR"));
    let whole = std::fs::read(path).expect("a backup");
    let path = format!("{}/src/stream/backup/fixtures/2.14.0.backup", env!("CARGO_MANIFEST_DIR"));
    let older = std::fs::read(path).expect("a backup");
    let mut said: Vec<Vec<String>> = Vec::new();
    for (_, binary) in servers() {
        let server = Server::start(&binary);
        let mut client = server.client();
        client.done("STREAM.CREATE.THERE", r#"{"name":"THERE","subjects":["there"]}"#);
        let mut answers = Vec::new();
        for (stream, config, bytes) in [
            ("A", r#"{"name":"A"}"#, &b"something else that is long enough"[..]),
            ("B", r#"{"name":"B"}"#, b""),
            ("C", r#"{"name":"C"}"#, &whole[..2000]),
            ("D", r#"{"name":"D"}"#, &whole[..whole.len() - 10]),
            ("E", r#"{"name":"E","subjects":["there"]}"#, &whole),
            ("F", r#"{"name":"G"}"#, b""),
            ("THERE", r#"{"name":"THERE","subjects":["there"]}"#, b""),
            ("H", r#"{"name":"H","max_bytes":900000000000000000}"#, b""),
            ("I", r#"{"name":"I","foo":1}"#, b""),
            ("J", r#"{"name":"J","num_replicas":3}"#, &whole),
            ("K", r#"{"name":"K"}"#, &older),
        ] {
            let answer = client.restore(stream, &serde_json::from_str(config).unwrap(), bytes);
            assert!(answer.get("error").is_some(), "{stream}: {answer}");
            answers.push(answer.to_string());
        }
        for (stream, body) in [
            ("THERE", ""),
            ("THERE", "{}"),
            ("THERE", r#"{"deliver_subject":"a.*"}"#),
            ("THERE", r#"{"deliver_subject":"a","foo":1}"#),
            ("NOT", r#"{"deliver_subject":"a"}"#),
        ] {
            answers.push(client.ask(&format!("STREAM.SNAPSHOT.{stream}"), body).to_string());
        }
        let names = client.done("STREAM.NAMES", "");
        assert_eq!(names["streams"], serde_json::json!(["THERE"]));
        said.push(answers);
        if said.len() == 1 {
            assert_eq!(server.directories(), ["THERE"]);
        }
    }
    if let [ours, theirs] = &said[..] {
        for (ours, theirs) in ours.iter().zip(theirs) {
            assert_eq!(ours, theirs);
        }
    }
}

#[test]
fn a_server_that_is_killed_while_it_restores_has_nothing_of_the_stream() {
    let mut server = Server::start(&candidate());
    let mut client = server.client();
    fill(&mut client);
    let backup = client.snapshot("S", "");
    let (config, bytes) = (&backup.answer["config"], backup.bytes());
    client.done("STREAM.DELETE.S", "");
    let body = format!("{{\"config\":{config},\"state\":{{}}}}");
    let answer = client.done("STREAM.RESTORE.S", &body);
    let to = answer["deliver_subject"].as_str().unwrap();
    assert_eq!(client.request(to, &bytes).payload, b"");
    assert_eq!(client.done("STREAM.NAMES", "")["total"], 0);
    drop(client);
    server.process.as_ref().unwrap().signal(libc::SIGKILL);
    server.start_again();
    let mut client = server.client();
    assert_eq!(client.done("STREAM.NAMES", "")["total"], 0);
    assert_eq!(server.directories(), Vec::<String>::new());
    let answer = client.restore("S", config, &bytes);
    assert_eq!(answer["state"]["messages"], 112, "{answer}");
    drop(client);
    server.process.as_ref().unwrap().signal(libc::SIGKILL);
    server.start_again();
    let (state, consumers, _) = server.client().describe("S");
    assert_eq!((&state["messages"], consumers.len()), (&112.into(), 5));
}

#[test]
fn everybody_who_listens_is_told_of_backups() {
    let mut told = Vec::new();
    for (_, binary) in servers() {
        let server = Server::start(&binary);
        let mut client = server.client();
        fill(&mut client);
        let mut listener = server.client();
        listener.peer.send("SUB $JS.EVENT.ADVISORY.STREAM.> 9\r\n");
        listener.peer.round_trip_after_messages();
        let backup = client.snapshot("S", "");
        client.done("STREAM.DELETE.S", "");
        client.restore("S", &backup.answer["config"], &backup.bytes());
        client.restore("S2", &serde_json::json!({"name": "S2"}), b"no backup");
        let mut events = Vec::new();
        while events.len() < 8 {
            let event = listener.next();
            // Its inbox is everybody's.
            if !event.subject.starts_with("$JS.EVENT.") {
                continue;
            }
            let mut body: Value = serde_json::from_slice(&event.payload).unwrap();
            forget(&mut body, &["id", "timestamp", "start", "end", "bytes", "client", "ts"]);
            forget(&mut body["state"], &["first_ts", "last_ts", "bytes"]);
            events.push(format!("{} {body}", event.subject));
        }
        told.push(events);
    }
    assert!(told.windows(2).all(|pair| pair[0] == pair[1]), "{told:#?}");
}

#[test]
fn who_subscribes_after_the_answer_gets_all_of_it_although_others_listen_to_everything() {
    for (name, binary) in servers() {
        let server = Server::start(&binary);
        let mut client = server.client();
        fill(&mut client);
        let mut other = server.client();
        other.peer.send("SUB _L.* 7\r\n");
        other.peer.round_trip();
        client.done("STREAM.SNAPSHOT.S", r#"{"deliver_subject":"_L.late"}"#);
        client.peer.send("SUB _L.late 7\r\n");
        let mut bytes = Vec::new();
        loop {
            let frame = client.next();
            if frame.subject == "_L.late" {
                bytes.extend_from_slice(&frame.payload);
                if frame.payload.is_empty() {
                    break;
                }
            }
        }
        let answer = client.restore("S2", &serde_json::json!({"name": "S2", "subjects": ["s2"]}), &bytes);
        assert_eq!(answer["state"]["messages"], 112, "{name}: {answer}");
    }
}
