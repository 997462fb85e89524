//! Encrypted client connections, black box: what is agreed, refused and said, held against the real nats-server with the
//! same certificates, and what Ringmain has to stand by itself.
//!
//! The certificates are made when the tests begin. A case of the comparison says what a client does; what it sees, and what
//! the log says of it, are compared line by line. Where rustls has other words than Go, a case leaves the words out.
//! `TLS_CASE=name` plays one case and prints what both servers did.

mod certificates;
mod peer;
mod server_process;
mod web;

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use certificates::{CERTIFICATES, Offer};
use peer::{HELLO, PATIENCE};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{CipherSuite, ClientConnection, ProtocolVersion, StreamOwned};
use server_process::{ServerProcess, announce, candidate, reference, wait_until};
use web::get;

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connect");
    stream.set_nodelay(true).expect("nodelay");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
    stream
}

/// A line, read one byte at a time: what follows may be TLS. Empty at the end.
fn read_line(stream: &mut impl Read) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\n") {
        match stream.read(&mut byte) {
            Ok(1) => line.push(byte[0]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&line).into_owned()
}

/// An encrypted connection past its handshake.
struct Client<S: Read + Write> {
    stream: StreamOwned<ClientConnection, S>,
}

impl Client<TcpStream> {
    /// Reads `INFO`, agrees and says `HELLO`.
    fn open(address: SocketAddr, offer: Offer) -> Client<TcpStream> {
        let mut stream = connect(address);
        assert!(read_line(&mut stream).starts_with("INFO "));
        let mut client = Client { stream: StreamOwned::new(offer.connection(), stream) };
        client.send(HELLO.as_bytes());
        client.round_trip();
        client
    }
}

impl<S: Read + Write> Client<S> {
    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("write");
        self.stream.flush().expect("flush");
    }

    #[track_caller]
    fn round_trip(&mut self) {
        self.send(b"PING\r\n");
        assert_eq!(self.next_line(), "PONG\r\n");
    }

    /// The next line that is not for the library alone.
    #[track_caller]
    fn next_line(&mut self) -> String {
        loop {
            let line = read_line(&mut self.stream);
            match line.as_str() {
                "PING\r\n" => self.send(b"PONG\r\n"),
                line if line.starts_with("INFO ") => {}
                _ => return line,
            }
        }
    }

    #[track_caller]
    fn next_message(&mut self) -> Vec<u8> {
        let line = self.next_line();
        assert!(line.starts_with("MSG "), "{line:?}");
        let len: usize = line.split_ascii_whitespace().last().unwrap().parse().expect("a size");
        let mut payload = vec![0; len + 2];
        self.stream.read_exact(&mut payload).expect("a payload");
        payload.truncate(len);
        payload
    }
}

/// What a client of the comparison does.
#[derive(Clone, Copy)]
enum Step {
    /// Reads a line without encryption.
    Line,
    /// Sends without encryption.
    Raw(&'static [u8]),
    /// Agrees on keys.
    Shake(Offer),
    /// Sends, encrypted if there are keys.
    Say(&'static str),
    /// Reads up to a `PONG` or the end.
    Read,
    /// Says that it sends no more, and reads to the end.
    CloseNotify,
    /// Has the other end wait for nothing.
    Leave,
    /// Asks monitoring, and shows what it says of TLS.
    Ask(&'static str),
}

use Step::{Ask, CloseNotify, Leave, Line, Raw, Read as Get, Say, Shake};

struct Case {
    name: &'static str,
    config: &'static str,
    steps: &'static [Step],
    /// Whether what the log says of errors is left out: rustls has other words.
    other_words: bool,
}

const fn case(name: &'static str, config: &'static str, steps: &'static [Step]) -> Case {
    Case { name, config, steps, other_words: false }
}

const fn in_other_words(case: Case) -> Case {
    Case { other_words: true, ..case }
}

const PLAIN: Offer = Offer { certificate: None, only_1_2: false, suite: None, server_name: None };
const OLD: Offer = Offer { only_1_2: true, ..PLAIN };
const JOE: Offer = Offer { certificate: Some("client"), ..PLAIN };
const OLD_JOE: Offer = Offer { only_1_2: true, ..JOE };
const BARE: Offer = Offer { certificate: Some("bare"), ..PLAIN };
const STRANGER: Offer = Offer { certificate: Some("stranger"), ..PLAIN };
const LATE: Offer = Offer { certificate: Some("late"), ..PLAIN };
const AES_256: Offer = Offer { suite: Some(CipherSuite::TLS13_AES_256_GCM_SHA384), ..PLAIN };
const OLD_CHACHA: Offer =
    Offer { suite: Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256), ..OLD };
const CONNECT: &str = "CONNECT {\"verbose\":false,\"protocol\":0}\r\nPING\r\n";
const CONNECT_AB: &str =
    "CONNECT {\"verbose\":false,\"protocol\":0,\"user\":\"a\",\"pass\":\"b\"}\r\nPING\r\n";
const REQUIRED: &str = "tls { <PAIR>, timeout: 0.5 }";
const VERIFY: &str = "tls { <PAIR>, <CA>, verify: true, timeout: 0.5 }";
const OPTIONAL: &str = "tls { <PAIR>, timeout: 0.5 }, allow_non_tls: true";
const FIRST: &str = "tls { <PAIR>, timeout: 0.5, handshake_first: true }";
const AUTO: &str = "tls { <PAIR>, timeout: 1, handshake_first: \"300ms\" }";
const HTTP: &str = "tls { <PAIR>, <CA>, verify: true }, http: \"127.0.0.1:-1\"";

const CASES: &[Case] = &[
    case("required", REQUIRED, &[Line, Shake(PLAIN), Say(CONNECT), Get]),
    case("required, TLS 1.2", REQUIRED, &[Line, Shake(OLD), Say(CONNECT), Get]),
    case("AES 256", REQUIRED, &[Line, Shake(AES_256), Say(CONNECT), Get]),
    case("ChaCha20 in TLS 1.2", REQUIRED, &[Line, Shake(OLD_CHACHA), Say(CONNECT), Get]),
    case("an error after the handshake", REQUIRED, &[Line, Shake(PLAIN), Say("FOO\r\n"), Get]),
    case("the client says that it is done", REQUIRED, &[Line, Shake(PLAIN), Say(CONNECT), Get, CloseNotify]),
    case("no TLS where it is required", REQUIRED, &[Line, Raw(CONNECT.as_bytes()), Get]),
    case("nothing where TLS is required", REQUIRED, &[Line, Get]),
    case("half a record", REQUIRED, &[Line, Raw(b"\x16\x03\x01\x02\x00\x01"), Get]),
    case("a byte", REQUIRED, &[Line, Raw(b"\x16"), Get]),
    case("an alert at once", REQUIRED, &[Line, Raw(b"\x15\x03\x01\x00\x02\x02\x28"), Get]),
    case("gone before the handshake", REQUIRED, &[Line, Leave]),
    in_other_words(case(
        "garbage in a record",
        REQUIRED,
        &[Line, Raw(b"\x16\x03\x01\x00\x05\x01aaaa"), Leave],
    )),
    in_other_words(case("application data first", REQUIRED, &[Line, Raw(b"\x17\x03\x03\x00\x05aaaaa"), Get])),
    case("min_version", "tls { <PAIR>, min_version: \"1.3\" }", &[Line, Shake(PLAIN), Say(CONNECT), Get]),
    in_other_words(case("too old a version", "tls { <PAIR>, min_version: \"1.3\" }", &[Line, Shake(OLD)])),
    in_other_words(case(
        "no suite in common",
        "tls { <PAIR>, cipher_suites: [\"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384\"] }",
        &[Line, Shake(OLD_CHACHA)],
    )),
    case(
        "suites do not bind TLS 1.3",
        "tls { <PAIR>, cipher_suites: [\"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384\"] }",
        &[Line, Shake(PLAIN), Say(CONNECT), Get],
    ),
    case(
        "a curve",
        "tls { <PAIR>, curve_preferences: [\"CurveP384\"] }",
        &[Line, Shake(PLAIN), Say(CONNECT), Get],
    ),
    case("verified", VERIFY, &[Line, Shake(JOE), Say(CONNECT), Get]),
    case("verified, TLS 1.2", VERIFY, &[Line, Shake(OLD_JOE), Say(CONNECT), Get]),
    case("no certificate", VERIFY, &[Line, Shake(PLAIN), Get]),
    in_other_words(case("a stranger's certificate", VERIFY, &[Line, Shake(STRANGER), Get])),
    in_other_words(case("a certificate that has run out", VERIFY, &[Line, Shake(LATE), Get])),
    case("a certificate that nobody asked for", REQUIRED, &[Line, Shake(STRANGER), Say(CONNECT), Get]),
    case(
        "pinned",
        "tls { <PAIR>, <CA>, verify: true, pinned_certs: [\"<PIN>\"] }",
        &[Line, Shake(JOE), Say(CONNECT), Get],
    ),
    case(
        "not pinned",
        "tls { <PAIR>, <CA>, verify: true, pinned_certs: [\"<PIN>\"] }",
        &[Line, Shake(BARE), Get],
    ),
    case(
        "pinned without a certificate",
        "tls { <PAIR>, pinned_certs: [\"<PIN>\"] }",
        &[Line, Shake(PLAIN), Get],
    ),
    case("optional, used", OPTIONAL, &[Line, Shake(PLAIN), Say(CONNECT), Get]),
    case("optional, not used", OPTIONAL, &[Line, Say(CONNECT), Get]),
    case("optional, begun and left", OPTIONAL, &[Line, Raw(b"\x16"), Get]),
    case("handshake first", FIRST, &[Shake(PLAIN), Line, Say(CONNECT), Get]),
    case("handshake first, but it does not come", FIRST, &[Line]),
    case("handshake first, but something else comes", FIRST, &[Raw(CONNECT.as_bytes()), Line]),
    case(
        "handshake first beside allow_non_tls",
        "tls { <PAIR>, timeout: 0.5, handshake_first: true }, allow_non_tls: true",
        &[Shake(PLAIN), Line, Say(CONNECT), Get],
    ),
    case("handshake first if it comes", AUTO, &[Shake(PLAIN), Line, Say(CONNECT), Get]),
    case("handshake first if it comes, and it comes later", AUTO, &[Line, Shake(PLAIN), Say(CONNECT), Get]),
    case("something else comes while the handshake is waited for", AUTO, &[Raw(CONNECT.as_bytes()), Get]),
    case(
        "handshake first if it comes, or no TLS",
        "tls { <PAIR>, timeout: 1, handshake_first: auto }, allow_non_tls: true",
        &[Line, Say(CONNECT), Get],
    ),
    case(
        "user by e-mail",
        "tls { <PAIR>, <CA>, verify_and_map: true }, authorization { users: [ { user: \"joe@acme.org\" } ] }",
        &[Line, Shake(JOE), Say(CONNECT), Get],
    ),
    case(
        "user by host name",
        "tls { <PAIR>, <CA>, verify_and_map: true }, authorization { users: [ { user: \"joe.acme.org\" } ] }",
        &[Line, Shake(JOE), Say(CONNECT), Get],
    ),
    case(
        "user by URI",
        "tls { <PAIR>, <CA>, verify_and_map: true }, authorization { users: [ { user: \"spiffe://acme/joe\" } ] }",
        &[Line, Shake(JOE), Say(CONNECT), Get],
    ),
    case(
        "user by subject",
        "tls { <PAIR>, <CA>, verify_and_map: true }, authorization { users: [ { user: \"CN=joe,O=Acme,C=US\" } ] }",
        &[Line, Shake(JOE), Say(CONNECT), Get],
    ),
    case(
        "user by subject in another order",
        "tls { <PAIR>, <CA>, verify_and_map: true }, authorization { users: [ { user: \"ou=dev, c=US, cn=bare\" } ] }",
        &[Line, Shake(BARE), Say(CONNECT), Get],
    ),
    case(
        "a certificate of nobody",
        "tls { <PAIR>, <CA>, verify_and_map: true }, authorization { users: [ { user: a, password: b } ] }",
        &[Line, Shake(BARE), Say(CONNECT), Get],
    ),
    case(
        "a certificate of nobody, and a right password",
        "tls { <PAIR>, <CA>, verify_and_map: true }, authorization { users: [ { user: a, password: b } ] }",
        &[Line, Shake(BARE), Say(CONNECT_AB), Get],
    ),
    case(
        "a certificate, and somebody else's name",
        "tls { <PAIR>, <CA>, verify_and_map: true }, \
         authorization { users: [ { user: a, password: b }, { user: \"joe@acme.org\", password: b } ] }",
        &[Line, Shake(JOE), Say(CONNECT_AB), Get],
    ),
    case(
        "mapped, and not CONNECT first",
        "tls { <PAIR>, <CA>, verify_and_map: true }, authorization { users: [ { user: \"joe@acme.org\" } ] }",
        &[Line, Shake(JOE), Say("PING\r\n"), Get],
    ),
    case(
        "mapped, but there is one user for all",
        "tls { <PAIR>, <CA>, verify_and_map: true }, authorization { user: a, password: b }",
        &[Line, Shake(JOE), Say(CONNECT_AB), Get],
    ),
    case(
        "mapped beside no_auth_user",
        "tls { <PAIR>, <CA>, verify_and_map: true }, authorization { users: [ { user: x } ] }, no_auth_user: x",
        &[Line, Shake(JOE), Say(CONNECT), Get],
    ),
    case(
        "a password over TLS",
        "tls { <PAIR> }, authorization { user: a, password: b }",
        &[Line, Shake(PLAIN), Say(CONNECT_AB), Get],
    ),
    case(
        "no password in time",
        "tls { <PAIR> }, authorization { user: a, password: b, timeout: 0.3 }",
        &[Line, Shake(PLAIN), Get],
    ),
    case("too many connections", "tls { <PAIR> }, max_connections: 0", &[Line, Get]),
    case(
        "too many connections, handshake first",
        "tls { <PAIR>, handshake_first: true }, max_connections: 0",
        &[Get],
    ),
    case(
        "monitoring",
        HTTP,
        &[Line, Shake(JOE), Say(CONNECT), Get, Ask("/connz?auth=1"), Ask("/connz"), Ask("/varz")],
    ),
    case(
        "monitoring of a handshake that came first",
        "tls { <PAIR>, handshake_first: true }, http: \"127.0.0.1:-1\"",
        &[Shake(OLD), Line, Say(CONNECT), Get, Ask("/connz"), Ask("/varz")],
    ),
];

#[test]
fn clients_and_operators_see_the_same_as_with_nats_server() {
    let Some(reference) = reference() else {
        return announce("SKIPPED the comparison of TLS: there is no nats-server");
    };
    let chosen = std::env::var("TLS_CASE").ok();
    let mut wrong = String::new();
    for case in CASES.iter().filter(|case| chosen.as_deref().is_none_or(|name| name == case.name)) {
        let (ours, theirs) = (play(&candidate(), case), play(&reference, case));
        if chosen.is_some() {
            announce(&format!("Ringmain:\n{ours}\nnats-server:\n{theirs}"));
        }
        if ours != theirs {
            let _ = writeln!(wrong, "=== {}\nRingmain:\n{ours}nats-server:\n{theirs}", case.name);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// What a client sees, and what the log says of it.
fn play(binary: &Path, case: &Case) -> String {
    let config = CERTIFICATES.fill(case.config);
    let arguments = ["-a", "127.0.0.1", "-p", "-1", "-D"];
    let server = ServerProcess::start_with(binary, &config, &arguments).expect("a server");
    let mut seen = String::new();
    let mut link = Some(Link::Clear(connect(server.address)));
    for step in case.steps {
        let words = match step {
            Line => info_words(&read_line(link.as_mut().expect("a link"))),
            Raw(bytes) => sent(link.as_mut().expect("a link").write_all(bytes)),
            Say(text) => sent(link.as_mut().expect("a link").write_all(text.as_bytes())),
            Shake(offer) => {
                let Some(Link::Clear(stream)) = link.take() else { panic!("{}", case.name) };
                let (agreed, words) = shake(stream, *offer);
                link = Some(agreed);
                words
            }
            Get => {
                let mut lines = String::new();
                loop {
                    let line = read_line(link.as_mut().expect("a link"));
                    if line.starts_with("INFO ") {
                        lines += &info_words(&line);
                        continue;
                    }
                    lines += if line.is_empty() { "the end" } else { &line };
                    if line.is_empty() || line == "PONG\r\n" {
                        break lines;
                    }
                }
            }
            CloseNotify => {
                let Some(Link::Sealed(client)) = link.as_mut() else { panic!("{}", case.name) };
                client.conn.send_close_notify();
                let _ = client.flush();
                let line = read_line(client);
                if line.is_empty() { "the end".to_owned() } else { line }
            }
            Leave => {
                link = None;
                "gone".to_owned()
            }
            Ask(path) => tls_words(&get(server.monitoring(), path).body),
        };
        let _ = writeln!(seen, "{}", words.trim_end());
    }
    let is_over = seen.trim_end().ends_with("the end") || link.is_none();
    // The log is written behind the connection's back: its last line shows that the others are there.
    drop(link);
    wait_until("the log has the end", PATIENCE, || {
        let log = server.log();
        let is_failure = log.contains("closed: TLS Handshake Failure");
        log.contains("Client connection closed") && (!is_failure || log.contains("TLS handshake error"))
    });
    seen + &log_words(&server.log(), case.other_words, is_over)
}

enum Link {
    Clear(TcpStream),
    Sealed(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Read for Link {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Link::Clear(stream) => stream.read(bytes),
            Link::Sealed(stream) => stream.read(bytes),
        }
    }
}

impl Write for Link {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Link::Clear(stream) => stream.write(bytes),
            Link::Sealed(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Link::Clear(stream) => stream.flush(),
            Link::Sealed(stream) => stream.flush(),
        }
    }
}

fn sent(result: io::Result<()>) -> String {
    if result.is_ok() { "sent".to_owned() } else { "cannot send".to_owned() }
}

fn shake(mut stream: TcpStream, offer: Offer) -> (Link, String) {
    let mut connection = offer.connection();
    while connection.is_handshaking() {
        if connection.complete_io(&mut stream).is_err() {
            return (Link::Clear(stream), "refused: the end".to_owned());
        }
    }
    let version = match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "1.2",
        _ => "1.3",
    };
    let suite = connection.negotiated_cipher_suite().map(|suite| suite.suite());
    let words = format!("agreed on {version}, {suite:?}");
    (Link::Sealed(Box::new(StreamOwned::new(connection, stream))), words)
}

/// What `INFO` says of TLS and authorization.
fn info_words(line: &str) -> String {
    let Some(json) = line.strip_prefix("INFO ") else {
        return if line.is_empty() { "the end".to_owned() } else { line.to_owned() };
    };
    let info: serde_json::Map<String, serde_json::Value> = serde_json::from_str(json).expect("JSON");
    let shown = info.iter().filter(|(key, _)| key.contains("tls") || key.contains("auth"));
    format!("INFO {}\n", shown.map(|(key, value)| format!("{key}:{value}")).collect::<Vec<_>>().join(" "))
}

/// The lines of a page that speak of TLS, or of who a client is.
fn tls_words(page: &str) -> String {
    let told = ["tls", "sha256", "subject\"", "auth"];
    let lines = page.lines().filter(|line| told.iter().any(|word| line.contains(word)));
    lines.map(|line| line.trim().trim_end_matches(',')).collect::<Vec<_>>().join("\n")
}

/// What the log says of the connection and of TLS, without times and ports.
fn log_words(log: &str, other_words: bool, is_over: bool) -> String {
    let mut words = Vec::new();
    for line in log.lines() {
        let Some((_, text)) =
            line.split_once(" [").map(|(_, rest)| rest).and_then(|rest| rest.split_once("] "))
        else {
            continue;
        };
        let level = if line.contains("[ERR]") { "ERR " } else { "" };
        // What is indented says who the server is: now and then a random name has the three letters too.
        let is_told = text.contains(" - cid:") || text.contains("TLS") && !text.starts_with("  ");
        // The reference says this one or not, as its timers go.
        let is_left_out = text.contains("Ping Timer")
            || text.ends_with("TLS handshake timeout")
            || text.contains("-D")
            || other_words && text.contains("TLS handshake error")
            || !is_over && text.contains("closed");
        if is_told && !is_left_out {
            let text = without_ports(text);
            words.push(format!("{level}{text}\n"));
        }
    }
    // When a time runs out, two timers of the reference run out at once: the last lines come in either order.
    words.sort();
    words.concat()
}

fn without_ports(text: &str) -> String {
    let mut parts = text.split("127.0.0.1:");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        shown += "127.0.0.1";
        shown += part.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    if let Some((before, (_, after))) =
        shown.split_once("cid:").and_then(|(before, rest)| Some((before, rest.split_once(' ')?)))
    {
        shown = format!("{before}cid {after}");
    }
    // How Ringmain words what it cannot parse has tests of its own.
    match shown.split_once("Client parser ERROR") {
        Some((before, _)) => format!("{before}unknown operation"),
        None => match shown.split_once("unknown protocol operation") {
            Some((before, _)) => format!("{before}unknown operation"),
            None => shown,
        },
    }
}

fn start(config: &str) -> ServerProcess {
    ServerProcess::start(&candidate(), &CERTIFICATES.fill(config)).expect("a server")
}

#[test]
fn messages_of_every_size_pass_between_encrypted_and_plain_clients() {
    let server = start("tls { <PAIR> }, allow_non_tls: true, max_payload: 8MB");
    let mut subscriber = Client::open(server.address, PLAIN);
    subscriber.send(b"SUB big 1\r\n");
    subscriber.round_trip();
    let mut publisher = Client::open(server.address, OLD);
    let mut plain = peer::Peer::open(server.address);
    plain.send("SUB big 2\r\n");
    plain.round_trip();
    for size in [0, 1, 100, 4_095, 8_192, 16_383, 16_384, 16_385, 70_000, 1 << 20, 7_000_000] {
        let body: Vec<u8> = (0..size).map(|at| (at * 7 + at / 251) as u8).collect();
        let mut frame = format!("PUB big {size}\r\n").into_bytes();
        frame.extend_from_slice(&body);
        frame.extend_from_slice(b"\r\n");
        publisher.send(&frame);
        assert!(subscriber.next_message() == body, "{size} bytes, encrypted");
        plain.expect_message("big", &body);
    }
}

/// Writes one byte at a time.
struct ByteByByte(TcpStream);

impl Read for ByteByByte {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes)
    }
}

impl Write for ByteByByte {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(&bytes[..bytes.len().min(1)])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn records_may_be_cut_at_every_byte() {
    let server = start("tls { <PAIR>, <CA>, verify: true, timeout: 20 }");
    for offer in [JOE, OLD_JOE] {
        let mut stream = connect(server.address);
        assert!(read_line(&mut stream).starts_with("INFO "));
        let mut client = Client { stream: StreamOwned::new(offer.connection(), ByteByByte(stream)) };
        client.send(HELLO.as_bytes());
        client.send(b"SUB a 1\r\n");
        for round in 0..20u8 {
            client.send(b"PUB a 3\r\nab");
            client.send(&[round]);
            client.send(b"\r\n");
            assert_eq!(client.next_message(), [b'a', b'b', round]);
        }
    }
}

#[test]
fn one_that_reads_slowly_gets_everything_in_order() {
    const COUNT: usize = 200;
    let server = start("tls { <PAIR> }");
    let mut subscriber = Client::open(server.address, PLAIN);
    subscriber.send(b"SUB slow 1\r\n");
    subscriber.round_trip();
    let address = server.address;
    let publisher = std::thread::spawn(move || {
        let mut publisher = Client::open(address, PLAIN);
        let mut body = vec![b'x'; 100_000];
        for number in 0..COUNT {
            body[..8].copy_from_slice(&(number as u64).to_le_bytes());
            publisher.send(format!("PUB slow {}\r\n", body.len()).as_bytes());
            publisher.send(&body);
            publisher.send(b"\r\n");
        }
        publisher.round_trip();
    });
    // Nothing is read until the sockets are full and the rest waits in the server.
    let mut other = Client::open(server.address, PLAIN);
    for _ in 0..20 {
        other.round_trip();
    }
    for number in 0..COUNT {
        let body = subscriber.next_message();
        assert_eq!((body.len(), &body[..8]), (100_000, &(number as u64).to_le_bytes()[..]));
    }
    publisher.join().expect("the publisher is through");
}

#[test]
fn handshakes_that_do_not_end_disturb_nobody_and_are_ended() {
    let server = start("tls { <PAIR>, timeout: 1 }");
    let mut client = Client::open(server.address, PLAIN);
    let begun = [&b""[..], b"\x16", b"\x16\x03\x01\x40\x00", b"\x16\x03\x01\x00\x20\x01\x00\x00\x1c"];
    let mut half: Vec<TcpStream> = Vec::new();
    for number in 0..200 {
        let mut stream = connect(server.address);
        assert!(read_line(&mut stream).starts_with("INFO "));
        stream.write_all(begun[number % begun.len()]).expect("write");
        half.push(stream);
    }
    let began = Instant::now();
    for mut stream in half {
        let mut rest = Vec::new();
        assert_eq!(stream.read_to_end(&mut rest).unwrap_or(0), 0);
        client.round_trip();
    }
    assert!(began.elapsed() < PATIENCE);
    Client::open(server.address, OLD).round_trip();
}

#[test]
fn garbage_behind_the_handshake_ends_only_its_own_connection() {
    let server = start("tls { <PAIR> }");
    let mut witness = Client::open(server.address, PLAIN);
    for garbage in [
        &b"\x17\x03\x03\x00\x20xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"[..],
        b"\x17\x03\x03\xff\xff",
        b"PING\r\n",
        b"\x16\x03\x03\x00\x00",
    ] {
        for offer in [PLAIN, OLD] {
            let client = Client::open(server.address, offer);
            let (_, mut stream) = client.stream.into_parts();
            stream.write_all(garbage).expect("write");
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
            assert!(!rest.windows(4).any(|word| word == b"-ERR"), "{rest:?}");
            witness.round_trip();
        }
    }
}

#[test]
fn a_reload_takes_the_new_certificate_for_new_connections() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str| dir.path().join(name);
    let copy = |name: &str| {
        std::fs::copy(CERTIFICATES.path(&format!("{name}.pem")), file("live.pem")).expect("a copy");
        std::fs::copy(CERTIFICATES.path(&format!("{name}-key.pem")), file("live-key.pem")).expect("a copy");
    };
    copy("server");
    let config = format!("tls {{ cert_file: {:?}, key_file: {:?} }}", file("live.pem"), file("live-key.pem"));
    let server = start(&config);
    let shown = |client: &Client<TcpStream>| client.stream.conn.peer_certificates().unwrap()[0].to_vec();
    let mut before = Client::open(server.address, PLAIN);
    copy("other-server");
    server.signal(libc::SIGHUP);
    wait_until("the reload", PATIENCE, || server.log().contains("Reloaded server configuration"));
    assert!(server.log().contains("Reloaded: tls = enabled"));
    let mut after = Client::open(server.address, PLAIN);
    assert_ne!(shown(&before), shown(&after));
    before.round_trip();
    after.round_trip();
    // What cannot be read changes nothing.
    std::fs::write(file("live-key.pem"), "no key").expect("a file");
    server.signal(libc::SIGHUP);
    wait_until("the reload", PATIENCE, || server.log().contains("Failed to reload server configuration"));
    assert_eq!(shown(&Client::open(server.address, PLAIN)), shown(&after));
}

#[test]
fn the_clients_name_for_the_server_chooses_its_certificate() {
    let pair = |name: &str| {
        let (cert, key) = (format!("{name}.pem"), format!("{name}-key.pem"));
        format!("{{ cert_file: {:?}, key_file: {:?} }}", CERTIFICATES.path(&cert), CERTIFICATES.path(&key))
    };
    let server = start(&format!("tls {{ certs: [ {}, {} ] }}", pair("server"), pair("other-server")));
    let shown = |name: &'static str| {
        let client = Client::open(server.address, Offer { server_name: Some(name), ..PLAIN });
        client.stream.conn.peer_certificates().unwrap()[0].to_vec()
    };
    let file = |name: &str| CertificateDer::from_pem_file(CERTIFICATES.path(name)).unwrap().to_vec();
    assert_eq!(shown("localhost"), file("server.pem"));
    assert_eq!(shown("other.example"), file("other-server.pem"));
    assert_eq!(shown("nowhere.example"), file("server.pem"));
}

#[test]
fn connections_that_come_too_fast_are_told_so() {
    let server = start("tls { <PAIR>, connection_rate_limit: 2 }");
    let mut told = 0;
    for _ in 0..10 {
        let mut stream = connect(server.address);
        assert!(read_line(&mut stream).starts_with("INFO "));
        stream.set_read_timeout(Some(Duration::from_millis(50))).expect("timeout");
        let line = read_line(&mut stream);
        let text = "-ERR 'Connection throttling is active. Please try again later.'\r\n";
        assert!(line.is_empty() || line == text, "{line:?}");
        told += usize::from(!line.is_empty());
    }
    assert!(told >= 6, "{told} of 10");
}

#[test]
fn many_handshakes_at_a_time_all_succeed() {
    let server = start("tls { <PAIR>, <CA>, verify: true, timeout: 30 }");
    let address = server.address;
    let threads: Vec<_> = (0..20)
        .map(|number| {
            std::thread::spawn(move || {
                for _ in 0..10 {
                    Client::open(address, if number % 2 == 0 { JOE } else { OLD_JOE }).round_trip();
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("all succeed"));
}

#[test]
fn flags_are_enough() {
    let file = |name: &str| CERTIFICATES.path(name).display().to_string();
    let (cert, key, ca) = (file("server.pem"), file("server-key.pem"), file("ca.pem"));
    let listen = ["-a", "127.0.0.1", "-p", "-1", "--tlscert", &cert, "--tlskey", &key];
    let server =
        ServerProcess::start_with(&candidate(), "", &[&listen[..], &["--tls"]].concat()).expect("a server");
    Client::open(server.address, PLAIN).round_trip();
    let verifying = [&listen[..], &["--tlsverify", "--tlscacert", &ca]].concat();
    let server = ServerProcess::start_with(&candidate(), "", &verifying).expect("a server");
    Client::open(server.address, JOE).round_trip();
}

#[test]
fn on_epoll_it_is_the_same() {
    let config = CERTIFICATES.fill("tls { <PAIR> }");
    let server =
        ServerProcess::start_with(&candidate(), &config, &["-a", "127.0.0.1", "-p", "-1", "--io", "epoll"])
            .expect("a server");
    let mut client = Client::open(server.address, PLAIN);
    client.send(b"SUB a 1\r\n");
    let body = vec![b'y'; 300_000];
    client.send(b"PUB a 300000\r\n");
    client.send(&body);
    client.send(b"\r\n");
    assert!(client.next_message() == body);
}
