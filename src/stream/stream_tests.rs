//! What the dialogues cannot show: writes that fail, power cuts, and what is not told before it is stored.

use super::batch::BatchLimits;
use super::config::StreamConfigRequest;
use super::json::{self, Strictness};
use super::limits::{AccountLimits, ServerLimits};
use super::publish::Incoming;
use super::registry::{Creation, Registry};
use super::room::Rooms;
use super::stream::{Answer, Command, Handled, Stream, StreamSettings};
use crate::store::plan::{CommitError, CommitErrorKind};
use crate::store::{Commit, Committed, FileStore, Read, Settings, Step, Store};

const NOW: i64 = 1_790_000_000_000_000_000;

fn settings(more: &str) -> StreamSettings {
    let request = format!(r#"{{"name":"S","subjects":["s.>"]{more}}}"#);
    let request: StreamConfigRequest = json::read(request.as_bytes(), Strictness::Strict).unwrap();
    let registry = Registry::<()>::new(AccountLimits::default());
    let Ok(Creation::New(config)) = registry.create("S", request, &ServerLimits::default()) else {
        panic!("the configuration is right")
    };
    StreamSettings {
        config: *config,
        created_ns: NOW,
        domain: String::new(),
        account: String::new(),
        batch_limits: BatchLimits::default(),
        seed: 1,
    }
}

fn file_stream(more: &str) -> Stream {
    Stream::new(settings(more), Store::from(FileStore::create(Settings::new(1)).0))
}

fn publish(stream: &mut Stream, header: &str, reply: &str, payload: &str) {
    let header = if header.is_empty() { String::new() } else { format!("NATS/1.0\r\n{header}\r\n\r\n") };
    let incoming = Incoming {
        subject: b"s.1",
        reply: reply.as_bytes(),
        header: header.as_bytes(),
        payload: payload.as_bytes(),
    };
    assert!(stream.publish(incoming, NOW).is_none());
}

fn due(stream: &mut Stream) -> Vec<String> {
    let mut due = Vec::new();
    stream.take_due(|out| {
        due.push(format!(
            "{} {}",
            String::from_utf8_lossy(out.subject),
            String::from_utf8_lossy(out.payload)
        ));
    });
    due
}

/// The first step that `is_it` fails.
fn fail(stream: &mut Stream, kind: CommitErrorKind, is_it: impl Fn(&Step) -> bool) -> Committed {
    let commit: Commit = stream.take_commit().unwrap();
    let step = commit.steps.iter().position(is_it).unwrap();
    stream.finish_commit(Err(CommitError { step, kind, text: "why".to_owned() }))
}

fn commit(stream: &mut Stream) {
    while let Some(commit) = stream.take_commit() {
        drop(commit);
        assert_eq!(stream.finish_commit(Ok(())), Committed::Done);
    }
}

#[test]
fn nothing_is_told_before_it_is_stored_and_refusals_are_told_at_once() {
    let mut stream = file_stream("");
    publish(&mut stream, "Nats-Msg-Id: a", "r1", "x");
    publish(&mut stream, "Nats-Msg-Id: a", "r2", "x");
    publish(&mut stream, "Nats-Expected-Stream: T", "r3", "x");
    assert_eq!(
        due(&mut stream),
        [
            r#"r3 {"error":{"code":400,"err_code":10060,"description":"expected stream does not match"},"stream":"S","seq":0}"#
        ]
    );
    let Handled::Done { position, .. } = stream.handle(Command::info(), NOW) else { panic!("it is known") };
    assert!(position > stream.store().committed());
    commit(&mut stream);
    assert_eq!(
        due(&mut stream),
        [r#"r1 {"stream":"S","seq":1}"#, r#"r2 {"stream":"S","seq":1,"duplicate": true}"#]
    );
    assert!(position <= stream.store().committed());
}

#[test]
fn messages_that_found_no_space_are_told_so_and_may_come_again() {
    let mut stream = file_stream(r#","allow_msg_ttl":true"#);
    publish(&mut stream, "Nats-Msg-Id: a", "r1", "x");
    commit(&mut stream);
    publish(&mut stream, "Nats-Msg-Id: b\r\nNats-TTL: 5", "r2", &"y".repeat(300_000));
    let failed = fail(&mut stream, CommitErrorKind::NoSpace, |step| matches!(step, Step::Allocate { .. }));
    assert!(matches!(failed, Committed::RolledBack { messages: 1 }), "{failed:?}");
    assert_eq!(
        due(&mut stream),
        [
            r#"r2 {"error":{"code":503,"err_code":10077,"description":"no space left on device"},"stream":"S","seq":0}"#,
            r#"r1 {"stream":"S","seq":1}"#,
        ]
    );
    assert_eq!(stream.next_deadline_ns(), None, "its time to live is forgotten");
    let Handled::Done { answer: Ok(Answer::Report(report)), .. } = stream.handle(Command::info(), NOW) else {
        panic!("a report")
    };
    assert_eq!((report.state.messages, report.state.last_seq), (1, 1));
    // Whoever publishes meanwhile is refused, and has space tried for. The id is not known, and the sequence is given again.
    publish(&mut stream, "Nats-Msg-Id: b", "r3", "y");
    commit(&mut stream);
    assert!(due(&mut stream)[0].contains("no space left on device"));
    publish(&mut stream, "Nats-Msg-Id: b", "r4", "y");
    commit(&mut stream);
    assert_eq!(due(&mut stream), [r#"r4 {"stream":"S","seq":2}"#]);
}

#[test]
fn a_stream_that_cannot_be_written_says_why_and_can_be_read() {
    let mut stream = file_stream("");
    publish(&mut stream, "", "r1", "x");
    commit(&mut stream);
    assert_eq!(due(&mut stream).len(), 1);
    publish(&mut stream, "", "r2", "y");
    assert!(matches!(
        fail(&mut stream, CommitErrorKind::Other, |step| matches!(step, Step::Write { .. })),
        Committed::Poisoned { .. }
    ));
    let told = due(&mut stream);
    assert!(
        told.len() == 1 && told[0].starts_with(r#"r2 {"error":{"code":503,"err_code":10077"#),
        "{told:?}"
    );
    publish(&mut stream, "", "r3", "z");
    let told = due(&mut stream);
    assert!(
        told.len() == 1 && told[0].starts_with(r#"r3 {"error":{"code":503,"err_code":10077"#),
        "{told:?}"
    );
    assert!(matches!(stream.store().read(1), Read::Found(_) | Read::OnDisk(_)));
}

#[test]
fn the_first_part_of_a_batch_is_taken_away_when_the_stream_is_opened() {
    let batch = |seq: u32, commit: &str| format!("Nats-Batch-Id: b\r\nNats-Batch-Sequence: {seq}{commit}");
    let mut stream = file_stream(r#","allow_atomic":true,"storage":"memory""#);
    publish(&mut stream, "", "", "before");
    for seq in 1..=3 {
        publish(&mut stream, &batch(seq, if seq == 3 { "\r\nNats-Batch-Commit: 1" } else { "" }), "", "x");
    }
    assert_eq!(stream.store().state().last_seq, 4);
    // What a power cut leaves: the messages before the last one.
    let mut torn = crate::store::MemoryStore::new().into();
    copy(stream.store(), &mut torn, 3);
    let opened = Stream::open(settings(r#","allow_atomic":true,"storage":"memory""#), torn, NOW, |_| None);
    assert_eq!((opened.store().state().messages, opened.store().state().last_seq), (1, 3));
    // And one that is complete stays.
    let mut whole = crate::store::MemoryStore::new().into();
    copy(stream.store(), &mut whole, 4);
    let opened = Stream::open(settings(r#","allow_atomic":true,"storage":"memory""#), whole, NOW, |_| None);
    assert_eq!(opened.store().state().messages, 4);
}

fn copy(from: &Store, to: &mut Store, last: u64) {
    for seq in 1..=last {
        let message = match from.read(seq) {
            Read::Found(message) => message,
            _ => panic!("message {seq} is in memory"),
        };
        to.append(&message.as_message()).unwrap();
    }
}

#[test]
fn batches_that_wait_for_too_long_are_dropped_and_it_is_told() {
    let mut stream = file_stream(r#","allow_atomic":true"#);
    publish(&mut stream, "Nats-Batch-Id: b\r\nNats-Batch-Sequence: 1", "r", "x");
    assert_eq!(due(&mut stream), ["r "]);
    let deadline = stream.next_deadline_ns().unwrap();
    assert_eq!(deadline, NOW + 10_000_000_000);
    stream.tick(deadline - 1);
    assert_eq!(due(&mut stream), [""; 0]);
    stream.tick(deadline);
    let told = due(&mut stream);
    assert!(
        told.len() == 1 && told[0].ends_with(r#""stream":"S","batch":"b","reason":"timeout"}"#),
        "{told:?}"
    );
    assert_eq!(stream.next_deadline_ns(), None);
}

#[test]
fn an_account_without_room_stores_nothing() {
    let mut stream = file_stream("");
    let account = Rooms::default();
    account.storage.set_max(Some(100));
    stream.count_in(&account, &Rooms::default());
    publish(&mut stream, "", "r1", &"x".repeat(60));
    publish(&mut stream, "", "r2", &"x".repeat(60));
    commit(&mut stream);
    assert_eq!(
        due(&mut stream),
        [
            r#"r2 {"error":{"code":400,"err_code":10002,"description":"resource limits exceeded for account"},"stream":"S","seq":0}"#,
            r#"r1 {"stream":"S","seq":1}"#,
        ]
    );
}
