//! A client that hides nothing: one connection, frames in and out as they are. Used by several test binaries, each of
//! which needs a part of it.
//!
//! * `websocket`: the same through a WebSocket.
#![allow(dead_code)]

pub mod websocket;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a condition may take to come true; only a failure uses it up.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What a connection says first.
pub const HELLO: &str = "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true}\r\n";

/// What a client library would act on.
#[derive(Debug, PartialEq)]
pub enum Event {
    Message { subject: String, sid: String, payload: Vec<u8> },
    Pong,
    Error(String),
    Closed,
}

/// One connection. Answers PING by itself, as clients do.
pub struct Peer<S = TcpStream> {
    pub stream: BufReader<S>,
}

impl Peer {
    /// Connects and says `HELLO`.
    pub fn open(address: SocketAddr) -> Self {
        Self::open_with(address, HELLO)
    }

    /// Connects and says `hello`.
    pub fn open_with(address: SocketAddr, hello: &str) -> Self {
        let stream = TcpStream::connect(address).expect("connect");
        stream.set_nodelay(true).expect("nodelay");
        stream.set_read_timeout(Some(PATIENCE)).expect("read timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("write timeout");
        Self::over(stream, hello)
    }
}

impl<S: Read + Write> Peer<S> {
    /// Says `hello` on a connection that stands.
    pub fn over(stream: S, hello: &str) -> Self {
        let mut peer = Self { stream: BufReader::new(stream) };
        peer.send(hello);
        peer
    }

    pub fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes());
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).expect("write");
    }

    pub fn publish(&mut self, subject: &str, payload: &[u8]) {
        let mut frame = format!("PUB {subject} {}\r\n", payload.len()).into_bytes();
        frame.extend_from_slice(payload);
        frame.extend_from_slice(b"\r\n");
        self.send_bytes(&frame);
    }

    /// Returns once the server has handled everything sent on this connection.
    #[track_caller]
    pub fn round_trip(&mut self) {
        self.send("PING\r\n");
        self.expect_pong();
    }

    /// The same, where messages may come before.
    #[track_caller]
    pub fn round_trip_after_messages(&mut self) {
        self.send("PING\r\n");
        loop {
            match self.next() {
                Event::Pong => return,
                Event::Message { .. } => {}
                other => panic!("{other:?} instead of a PONG"),
            }
        }
    }

    #[track_caller]
    pub fn expect_pong(&mut self) {
        assert_eq!(self.next(), Event::Pong);
    }

    #[track_caller]
    pub fn expect_message(&mut self, wanted: &str, body: &[u8]) {
        match self.next() {
            Event::Message { subject, payload, .. } if subject == wanted && payload == body => {}
            Event::Message { subject, payload, .. } => {
                let shown = String::from_utf8_lossy(&payload[..payload.len().min(40)]).into_owned();
                panic!(
                    "{} bytes on {subject}, {shown:?}, instead of {} on {wanted}",
                    payload.len(),
                    body.len()
                );
            }
            other => panic!("{other:?} instead of a message on {wanted}"),
        }
    }

    /// The next thing that a client library would act on.
    #[track_caller]
    pub fn next(&mut self) -> Event {
        loop {
            let mut line = String::new();
            match self.stream.read_line(&mut line) {
                Ok(0) => return Event::Closed,
                Ok(_) => {}
                Err(e) if matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                    return Event::Closed;
                }
                Err(e) => panic!("nothing came: {e}"),
            }
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            match words.as_slice() {
                ["INFO", ..] => {}
                ["PING"] => self.send("PONG\r\n"),
                ["PONG"] => return Event::Pong,
                ["MSG" | "HMSG", subject, sid, .., size] => {
                    let size: usize = size.parse().expect("a size");
                    let mut payload = vec![0; size + 2];
                    if self.stream.read_exact(&mut payload).is_err() {
                        return Event::Closed;
                    }
                    assert_eq!(payload.split_off(size), b"\r\n");
                    return Event::Message {
                        subject: (*subject).to_owned(),
                        sid: (*sid).to_owned(),
                        payload,
                    };
                }
                ["-ERR", ..] => return Event::Error(line.trim_end().to_owned()),
                _ => panic!("not a frame: {line:?}"),
            }
        }
    }
}
