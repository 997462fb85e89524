//! Kill -9 under load: what was acknowledged is there after the restart, unchanged; what was deleted stays deleted; sequences go on.
//!
//! Publishers have many messages in flight on several streams, one connection deletes messages, one works a queue off with
//! confirmed acknowledgements, and the server is killed at a random moment. Whatever was confirmed until then is held against the server
//! that starts again from the same directory. A mirror and a source copy two of the streams meanwhile: they end with all that
//! was confirmed, the source with each message once. Rounds go on on what the one before has left. `CRASH_ROUNDS` says how many
//! (`make crash`: 100).

mod peer;
mod server_process;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use peer::{Event, Peer};
use server_process::{ServerProcess, candidate};

const STREAMS: usize = 3;

/// Messages that a publisher has in flight.
const IN_FLIGHT: usize = 200;

/// A connection with an inbox of its own, `_I.NAME.>`.
fn connect(address: SocketAddr, name: &str) -> Peer {
    Peer::open_with(address, &format!("{}SUB _I.{name}.> 1\r\n", peer::HELLO))
}

#[test]
fn what_was_confirmed_survives_kill_9() {
    let rounds = std::env::var("CRASH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(4);
    confirmations_survive_kill_9(rounds, "always");
}

#[test]
fn what_was_confirmed_before_it_was_synced_survives_kill_9() {
    let rounds = std::env::var("CRASH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(2);
    confirmations_survive_kill_9(rounds, "100ms");
}

fn confirmations_survive_kill_9(rounds: usize, sync_interval: &str) {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let directory = tempfile::tempdir().expect("a directory");
    let mut known = Known::default();
    let mut confirmed = 0;
    for round in 0..rounds {
        let server = start(directory.path(), sync_interval);
        if round == 0 {
            create(server.address);
        }
        let after = Duration::from_millis(random.u64(50..800));
        confirmed += load_until_killed(server, after, &mut known, round);
        let server = start(directory.path(), sync_interval);
        check(server.address, &mut known);
        // Some rounds begin on a server that ended in peace.
        if random.bool() {
            server.signal(libc::SIGTERM);
        }
    }
    server_process::announce(&format!(
        "{rounds} rounds of kill -9 (sync: {sync_interval}), {confirmed} confirmations held"
    ));
    assert!(confirmed > 0, "the server was always killed before it did anything");
}

/// What the server has confirmed.
#[derive(Default)]
struct Known {
    /// By stream: what was stored at a sequence.
    stored: [BTreeMap<u64, String>; STREAMS],
    deleted: [BTreeSet<u64>; STREAMS],
    /// Messages of the work queue whose acknowledgement was confirmed.
    worked: BTreeSet<u64>,
    /// What was acknowledged last in the round.
    last_id: [Option<(String, u64)>; STREAMS],
}

fn start(directory: &Path, sync_interval: &str) -> ServerProcess {
    let store = directory.to_str().expect("a name");
    let config = format!("jetstream {{ store_dir: \"{store}\", sync_interval: \"{sync_interval}\" }}");
    let arguments = ["-a", "127.0.0.1", "-p", "-1"];
    // The one before may not be gone yet.
    let mut last = String::new();
    for _ in 0..50 {
        match ServerProcess::start_with(&candidate(), &config, &arguments) {
            Ok(server) => return server,
            Err(error) if error.contains("used by another server") => last = error,
            Err(error) => panic!("{error}"),
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("{last}");
}

/// One request, one answer.
fn ask(peer: &mut Peer, subject: &str, body: &str) -> String {
    peer.send(&format!("PUB {subject} _I.ask.1 {}\r\n{body}\r\n", body.len()));
    match peer.next() {
        Event::Message { payload, .. } => String::from_utf8(payload).expect("text"),
        other => panic!("{other:?} instead of an answer to {subject}"),
    }
}

fn create(address: SocketAddr) {
    let mut peer = connect(address, "ask");
    for stream in 0..STREAMS {
        let body = format!(r#"{{"name":"S{stream}","subjects":["s{stream}.>"],"allow_direct":true}}"#);
        let answer = ask(&mut peer, &format!("$JS.API.STREAM.CREATE.S{stream}"), &body);
        assert!(answer.contains("\"did_create\":true"), "{answer}");
    }
    for copy in [
        r#"{"name":"MIRROR","mirror":{"name":"S2"},"allow_direct":true}"#,
        r#"{"name":"SOURCED","sources":[{"name":"S1"}],"allow_direct":true}"#,
    ] {
        let name = copy.split('"').nth(3).expect("a name");
        let answer = ask(&mut peer, &format!("$JS.API.STREAM.CREATE.{name}"), copy);
        assert!(answer.contains("\"did_create\":true"), "{answer}");
    }
    let queue = r#"{"name":"Q","subjects":["q"],"retention":"workqueue"}"#;
    let answer = ask(&mut peer, "$JS.API.STREAM.CREATE.Q", queue);
    assert!(answer.contains("\"did_create\":true"), "{answer}");
    let worker =
        r#"{"stream_name":"Q","config":{"durable_name":"W","ack_policy":"explicit","ack_wait":200000000}}"#;
    let answer = ask(&mut peer, "$JS.API.CONSUMER.CREATE.Q.W", worker);
    assert!(!answer.contains("\"error\""), "{answer}");
}

/// Loads the server and kills it. Returns how much it has confirmed.
fn load_until_killed(server: ServerProcess, after: Duration, known: &mut Known, round: usize) -> usize {
    let address = server.address;
    let is_over = AtomicBool::new(false);
    let (published, (deleted, unsure), worked) = thread::scope(|scope| {
        let publishers: Vec<_> =
            (0..STREAMS).map(|stream| scope.spawn(move || publish(address, stream, round))).collect();
        let of_first = known.stored[0].keys().rev().take(2_000).copied().collect();
        let deleter = scope.spawn(move || delete(address, of_first));
        let worker = scope.spawn(|| work(address, &is_over));
        thread::sleep(after);
        server.signal(libc::SIGKILL);
        is_over.store(true, Ordering::SeqCst);
        let published: Vec<_> =
            publishers.into_iter().map(|thread| thread.join().expect("publisher")).collect();
        (published, deleter.join().expect("deleter"), worker.join().expect("worker"))
    });
    let mut confirmed = deleted.len() + worked.len();
    for (stream, published) in published.into_iter().enumerate() {
        confirmed += published.len();
        known.last_id[stream] = published.last_key_value().map(|(seq, body)| (body.clone(), *seq));
        known.stored[stream].extend(published);
    }
    if let Some(seq) = unsure {
        known.stored[0].remove(&seq);
    }
    for seq in deleted {
        known.stored[0].remove(&seq);
        known.deleted[0].insert(seq);
    }
    known.worked.extend(worked);
    confirmed
}

/// Publishes with many in flight until the connection ends. What was acknowledged, by sequence.
fn publish(address: SocketAddr, stream: usize, round: usize) -> BTreeMap<u64, String> {
    let mut acknowledged = BTreeMap::new();
    let inbox = format!("p{stream}");
    let mut peer = connect(address, &inbox);
    let mut next = 0;
    let mut in_flight = 0;
    loop {
        let mut batch = String::new();
        while in_flight < IN_FLIGHT {
            let body = format!("{stream}-{round}-{next}");
            let header = format!("NATS/1.0\r\nNats-Msg-Id: {body}\r\n\r\n");
            let subject = format!("s{stream}.{}", next % 7);
            let (head, all) = (header.len(), header.len() + body.len());
            batch.push_str(&format!("HPUB {subject} _I.{inbox}.{next} {head} {all}\r\n{header}{body}\r\n"));
            next += 1;
            in_flight += 1;
        }
        if std::io::Write::write_all(peer.stream.get_mut(), batch.as_bytes()).is_err() {
            return acknowledged;
        }
        loop {
            let Event::Message { subject, payload, .. } = peer.next() else { return acknowledged };
            let number = subject.rsplit('.').next().expect("a reply");
            let seq = number_behind(&payload, "\"seq\":");
            acknowledged.insert(seq, format!("{stream}-{round}-{number}"));
            in_flight -= 1;
            if in_flight <= IN_FLIGHT / 2 {
                break;
            }
        }
    }
}

/// Deletes messages of the first stream, one after the other. Those whose deletion was confirmed, and the one of which that is not known.
fn delete(address: SocketAddr, candidates: Vec<u64>) -> (Vec<u64>, Option<u64>) {
    let mut confirmed = Vec::new();
    let mut unsure = None;
    let mut peer = connect(address, "d");
    for seq in candidates.into_iter().step_by(3) {
        unsure = Some(seq);
        let body = format!("{{\"seq\":{seq},\"no_erase\":true}}");
        let frame = format!("PUB $JS.API.STREAM.MSG.DELETE.S0 _I.d.1 {}\r\n{body}\r\n", body.len());
        if std::io::Write::write_all(peer.stream.get_mut(), frame.as_bytes()).is_err() {
            break;
        }
        let Event::Message { payload, .. } = peer.next() else { break };
        if String::from_utf8_lossy(&payload).contains("\"success\":true") {
            confirmed.push(seq);
        }
        unsure = None;
    }
    (confirmed, unsure)
}

/// Fills the work queue and works it off. Messages whose acknowledgement was confirmed.
fn work(address: SocketAddr, is_over: &AtomicBool) -> Vec<u64> {
    let mut confirmed = Vec::new();
    let mut peer = connect(address, "w");
    while !is_over.load(Ordering::SeqCst) {
        let next = r#"{"batch":1,"expires":1000000000}"#;
        let asked =
            format!("PUB q 1\r\nx\r\nPUB $JS.API.CONSUMER.MSG.NEXT.Q.W _I.w.m {}\r\n{next}\r\n", next.len());
        if std::io::Write::write_all(peer.stream.get_mut(), asked.as_bytes()).is_err() {
            break;
        }
        let Some(reply) = next_with_reply(&mut peer) else { break };
        // `$JS.ACK.Q.W.DELIVERED.SEQ.…`
        let Some(seq) = reply.split('.').nth(5).and_then(|seq| seq.parse().ok()) else { continue };
        let ack = format!("PUB {reply} _I.w.a 4\r\n+ACK\r\n");
        if std::io::Write::write_all(peer.stream.get_mut(), ack.as_bytes()).is_err() {
            break;
        }
        match peer.next() {
            Event::Message { subject, .. } if subject == "_I.w.a" => confirmed.push(seq),
            Event::Message { .. } => {}
            _ => break,
        }
    }
    confirmed
}

/// The reply of the next message; empty for a status. `None`: the connection has ended.
fn next_with_reply(peer: &mut Peer) -> Option<String> {
    use std::io::{BufRead as _, Read as _};
    loop {
        let mut line = String::new();
        if peer.stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let (reply, size) = match words[..] {
            ["MSG", _, _, reply, size] => (reply, size),
            ["MSG" | "HMSG", .., size] => ("", size),
            ["PING"] => {
                std::io::Write::write_all(peer.stream.get_mut(), b"PONG\r\n").ok()?;
                continue;
            }
            _ => continue,
        };
        let mut rest = vec![0; size.parse::<usize>().ok()? + 2];
        peer.stream.read_exact(&mut rest).ok()?;
        return Some(reply.to_owned());
    }
}

fn number_behind(payload: &[u8], name: &str) -> u64 {
    let text = String::from_utf8_lossy(payload);
    let at = text.find(name).unwrap_or_else(|| panic!("no {name} in {text}")) + name.len();
    text[at..].chars().take_while(char::is_ascii_digit).collect::<String>().parse().expect("a number")
}

/// Messages by sequence, many requests at a time.
fn get<'a>(peer: &mut Peer, stream: &str, seqs: impl Iterator<Item = &'a u64>) -> BTreeMap<u64, String> {
    let seqs: Vec<u64> = seqs.copied().collect();
    let mut found = BTreeMap::new();
    for seqs in seqs.chunks(500) {
        let mut batch = String::new();
        for seq in seqs {
            let body = format!("{{\"seq\":{seq}}}");
            let len = body.len();
            batch.push_str(&format!("PUB $JS.API.DIRECT.GET.{stream} _I.ask.{seq} {len}\r\n{body}\r\n"));
        }
        peer.send(&batch);
        for _ in seqs {
            let Event::Message { subject, payload, .. } = peer.next() else { panic!("no answer") };
            let seq = subject.rsplit('.').next().and_then(|seq| seq.parse().ok()).expect("a sequence");
            found.insert(seq, String::from_utf8(payload).expect("text"));
        }
    }
    found
}

/// Holds what was confirmed against what is there.
fn check(address: SocketAddr, known: &mut Known) {
    let mut peer = connect(address, "ask");
    // First: a mirror that has caught up answers for its origin, too.
    check_copies(&mut peer, known);
    for stream in 0..STREAMS {
        let info = ask(&mut peer, &format!("$JS.API.STREAM.INFO.S{stream}"), "");
        let last_seq = number_behind(info.as_bytes(), "\"last_seq\":");
        let last_known = known.stored[stream].last_key_value().map_or(0, |(seq, _)| *seq);
        assert!(last_seq >= last_known, "S{stream} ends at {last_seq}, and {last_known} was acknowledged");
        let name = &format!("S{stream}");
        let found = get(&mut peer, name, known.stored[stream].keys());
        for (seq, body) in &known.stored[stream] {
            assert!(
                found[seq].ends_with(body.as_str()),
                "S{stream}: {seq} is {:?} instead of {body:?}",
                found[seq]
            );
        }
        for (seq, found) in get(&mut peer, name, known.deleted[stream].iter()) {
            assert!(found.contains("404"), "S{stream}: {seq} was deleted, and is {found:?}");
        }
        if let Some((id, seq)) = &known.last_id[stream] {
            let header = format!("NATS/1.0\r\nNats-Msg-Id: {id}\r\n\r\n");
            peer.send(&format!(
                "HPUB s{stream}.0 _I.ask.again {} {}\r\n{header}\r\n",
                header.len(),
                header.len()
            ));
            let Event::Message { payload, .. } = peer.next() else { panic!("no answer") };
            let answer = String::from_utf8_lossy(&payload).into_owned();
            assert!(answer.contains("duplicate") && number_behind(&payload, "\"seq\":") == *seq, "{answer}");
        }
    }
    for seq in std::mem::take(&mut known.worked) {
        let found = ask(&mut peer, "$JS.API.STREAM.MSG.GET.Q", &format!("{{\"seq\":{seq}}}"));
        assert!(found.contains("\"err_code\":10037"), "{seq} was worked off, and is {found}");
    }
    // What was checked once needs not be checked in every round: some of it is enough.
    for stored in &mut known.stored {
        while stored.len() > 20_000 {
            stored.pop_first();
        }
    }
}

/// Holds the copies against what was confirmed of their origins, once they have caught up.
fn check_copies(peer: &mut Peer, known: &Known) {
    let last = |peer: &mut Peer, stream: &str, name: &str| {
        let info = ask(peer, &format!("$JS.API.STREAM.INFO.{stream}"), "");
        if info.contains(name) { number_behind(info.as_bytes(), name) } else { 0 }
    };
    for (copy, position, origin) in
        [("MIRROR", "\"last_seq\":", "S2"), ("SOURCED", "\"lag\":0,\"seq\":", "S1")]
    {
        let begun = std::time::Instant::now();
        while last(peer, copy, position) < last(peer, origin, "\"last_seq\":") {
            assert!(begun.elapsed() < peer::PATIENCE, "{copy} does not catch up");
            thread::sleep(Duration::from_millis(20));
        }
    }
    let found = get(peer, "MIRROR", known.stored[2].keys());
    for (seq, body) in &known.stored[2] {
        assert!(found[seq].ends_with(body.as_str()), "MIRROR: {seq} is {:?} instead of {body:?}", found[seq]);
    }
    let mut copied: BTreeMap<u64, String> = BTreeMap::new();
    let mut next = 1;
    loop {
        let body = format!("{{\"seq\":{next},\"batch\":500}}");
        peer.send(&format!("PUB $JS.API.DIRECT.GET.SOURCED _I.ask.1 {}\r\n{body}\r\n", body.len()));
        let before = next;
        loop {
            let Event::Message { payload, .. } = peer.next() else { panic!("no answer") };
            let text = String::from_utf8(payload).expect("text");
            if text.starts_with("NATS/1.0 ") {
                break;
            }
            let of = number_behind(text.as_bytes(), "Nats-Stream-Source: S1 ");
            let before = copied.last_key_value().map_or(0, |(seq, _)| *seq);
            assert!(of > before, "SOURCED: {of} of S1 comes behind {before}");
            next = number_behind(text.as_bytes(), "Nats-Sequence: ") + 1;
            copied.insert(of, text);
        }
        if next == before {
            break;
        }
    }
    for (seq, body) in &known.stored[1] {
        let found = copied.get(seq).unwrap_or_else(|| panic!("SOURCED: {seq} of S1 is missing"));
        assert!(found.ends_with(body.as_str()), "SOURCED: {seq} of S1 is {found:?} instead of {body:?}");
    }
}
