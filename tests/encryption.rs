//! Streams that are encrypted on the disk: nothing of them can be read there, they are found again with their key, and without it nothing is touched.

mod peer;
mod server_process;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use peer::{Event, Peer};
use server_process::{ServerProcess, candidate};

fn start(directory: &Path, encryption: &str) -> Result<ServerProcess, String> {
    let config = format!("jetstream {{ store_dir: {:?}, {encryption} }}", directory.to_str().unwrap());
    let mut last = String::new();
    // The one before may not be gone yet.
    for _ in 0..50 {
        match ServerProcess::start(&candidate(), &config) {
            Err(error) if error.contains("used by another server") => last = error,
            started => return started,
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(last)
}

fn client(server: &ServerProcess) -> Peer {
    Peer::open_with(server.address, &format!("{}SUB _I.> 1\r\n", peer::HELLO))
}

fn ask(peer: &mut Peer, subject: &str, body: &str) -> String {
    peer.send(&format!("PUB {subject} _I.1 {}\r\n{body}\r\n", body.len()));
    match peer.next() {
        Event::Message { payload, .. } => String::from_utf8(payload).unwrap(),
        other => panic!("{other:?} instead of an answer to {subject}"),
    }
}

/// Every file below a directory.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.display().to_string(), std::fs::read(&path).unwrap());
        }
    }
    found
}

#[test]
fn encrypted_streams_are_found_again_with_their_key_and_unreadable_without() {
    for cipher in ["aes", "chacha"] {
        let place = tempfile::tempdir().unwrap();
        let with = |key: &str| format!("key: {key}, cipher: {cipher}");
        let server = start(place.path(), &with("first")).unwrap();
        let mut peer = client(&server);
        let stream = r#"{"name":"HIDDEN","subjects":["hidden.>"],"description":"hidden too"}"#;
        assert!(ask(&mut peer, "$JS.API.STREAM.CREATE.HIDDEN", stream).contains("did_create"));
        let consumer =
            r#"{"stream_name":"HIDDEN","config":{"durable_name":"hidden_c","ack_policy":"explicit"}}"#;
        assert!(!ask(&mut peer, "$JS.API.CONSUMER.CREATE.HIDDEN.hidden_c", consumer).contains("error"));
        for number in 0..200 {
            let answer = ask(&mut peer, &format!("hidden.{number}"), &format!("hidden message {number}"));
            assert!(answer.contains("\"seq\""), "{answer}");
        }
        ask(&mut peer, "$JS.API.STREAM.MSG.DELETE.HIDDEN", r#"{"seq":7}"#);
        drop(peer);
        server.signal(libc::SIGKILL);
        drop(server);
        for (name, content) in files(place.path()) {
            let shows = content.windows(6).any(|window| window == b"hidden");
            assert!(!shows, "{name} is not encrypted");
        }
        let before = files(place.path());
        for (encryption, said) in [
            (with("other"), "cannot be decrypted with the configured key"),
            (format!("{}, prev_key: another", with("other")), "cannot be decrypted with the configured key"),
            (String::new(), "is encrypted: the key that it was encrypted with has to be configured"),
        ] {
            let error = start(place.path(), &encryption).err().expect("it must not start");
            assert!(error.contains(said), "{error}");
            assert_eq!(files(place.path()), before);
        }
        // The key is changed, and the old one is of no use any more.
        drop(start(place.path(), &format!("{}, prev_key: first", with("second"))).unwrap());
        assert!(start(place.path(), &with("first")).is_err());
        let server = start(place.path(), &with("second")).unwrap();
        let mut peer = client(&server);
        let info = ask(&mut peer, "$JS.API.STREAM.INFO.HIDDEN", "");
        assert!(info.contains("\"messages\":199") && info.contains("hidden too"), "{info}");
        let found = ask(&mut peer, "$JS.API.STREAM.MSG.GET.HIDDEN", r#"{"seq":100}"#);
        assert!(found.contains("\"subject\":\"hidden.99\""), "{found}");
        let consumer = ask(&mut peer, "$JS.API.CONSUMER.INFO.HIDDEN.hidden_c", "");
        assert!(consumer.contains("\"num_pending\":199"), "{consumer}");
    }
}

#[test]
fn streams_that_are_not_encrypted_are_refused_where_a_key_is_configured() {
    let place = tempfile::tempdir().unwrap();
    let server = start(place.path(), "").unwrap();
    let mut peer = client(&server);
    assert!(ask(&mut peer, "$JS.API.STREAM.CREATE.S", r#"{"name":"S"}"#).contains("did_create"));
    drop(peer);
    drop(server);
    let before = files(place.path());
    let error = start(place.path(), "key: first").err().expect("it must not start");
    assert!(error.contains("has streams that are not encrypted"), "{error}");
    assert_eq!(files(place.path()), before);
    drop(start(place.path(), "").unwrap());
}
