//! WebSocket clients, black box: handshakes, frames, compression, cookies, origins, logins and monitoring, held against the
//! real nats-server case by case, and what Ringmain has to stand by itself.
//!
//! A case says what a client does; what it sees, and what the log says of it, are compared line by line. What the server
//! sends as messages is shown as the stream that it is: how it is cut into frames is up to the server.
//! `WEBSOCKET_CASE=name` plays one case and prints what both servers did.

mod certificates;
mod peer;
mod server_process;
mod web;

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use certificates::{CERTIFICATES, Offer};
use peer::Peer;
use ringmain::websocket::{Deflater, Inflater, unmask};
use rustls::{ClientConnection, StreamOwned};
use server_process::{ServerProcess, announce, candidate, reference, wait_until};
use web::get;

/// How long something may take; only a failure uses it up.
const PATIENCE: Duration = Duration::from_secs(30);

const CONNECT: &str =
    "CONNECT {\"verbose\":false,\"pedantic\":false,\"protocol\":0,\"headers\":true}\r\nPING\r\n";

/// Of a client that is told of changes. Behind the first `PONG` it gets another `INFO`.
const CONNECT_FOR_INFO: &str =
    "CONNECT {\"verbose\":false,\"pedantic\":false,\"protocol\":1,\"headers\":true}\r\nPING\r\nPING\r\n";

/// What a client of the comparison does.
#[derive(Clone, Copy)]
enum Step {
    /// Connects by TLS.
    Tls,
    /// Sends bytes as they are, with `\n` as the end of a line.
    Raw(&'static str),
    /// A handshake with these headers more, and what is answered.
    Upgrade(&'static str),
    /// The same to another path.
    UpgradeTo(&'static str, &'static str),
    /// What is answered to what was sent.
    Answer,
    /// A message, in a masked frame.
    Say(&'static str),
    /// A message that is compressed.
    Deflated(&'static str),
    /// A compressed message of so many zeros.
    Bomb(usize),
    /// A frame: its first byte, and its payload.
    Frame(u8, &'static [u8]),
    /// Bytes, as they are.
    Bytes(&'static [u8]),
    /// Reads up to a `PONG` of NATS or the end.
    Get,
    /// Reads up to a control frame or the end.
    Control,
    /// Reads to the end.
    Rest,
    /// Half-closes.
    Leave,
    /// Ends the server, by its signal.
    Stop,
    /// Lame duck mode, by its signal.
    LameDuck,
    /// Another `websocket` block, and another rest of the configuration.
    Reload(&'static str, &'static str),
    /// Another client publishes to `flood`, more than the server keeps for one that does not read.
    Flood,
    /// Reads to the end, whatever comes: what has reached the client until then is for the kernel to say.
    Gone,
    /// Asks monitoring, and shows what it says of WebSocket.
    Ask(&'static str),
}

use Step::{
    Answer, Ask, Bomb, Bytes, Control, Deflated, Flood, Frame, Get, Gone, LameDuck, Leave, Raw, Reload, Rest,
    Say, Stop, Tls, Upgrade, UpgradeTo,
};

struct Case {
    name: &'static str,
    /// The `websocket` block.
    block: &'static str,
    /// The rest of the configuration.
    config: &'static str,
    steps: &'static [Step],
    /// nats-server gives up what it has to say when it finds a mistake: it depends on the moment whether its client hears
    /// of it. Ringmain always says it.
    tells: bool,
}

const fn case(name: &'static str, block: &'static str, config: &'static str, steps: &'static [Step]) -> Case {
    Case { name, block, config, steps, tells: false }
}

/// A client that makes a mistake.
const fn mistake(name: &'static str, block: &'static str, steps: &'static [Step]) -> Case {
    Case { name, block, config: "", steps, tells: true }
}

const OPEN: &str = "no_tls: true";
const DEFLATE: &str = "no_tls: true, compression: true";
const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\n";
const USERS: &str = "authorization { users: [ { user: a, password: b }, \
    { user: w, password: w, allowed_connection_types: [WEBSOCKET] }, \
    { user: s, password: s, allowed_connection_types: [STANDARD, MQTT] }, \
    { user: p, password: p, permissions: { publish: ok, subscribe: ok } } ] }";

const FEWER_USERS: &str = "authorization { users: [ \
    { user: w, password: w, allowed_connection_types: [WEBSOCKET] }, \
    { user: p, password: p, permissions: { publish: other, subscribe: other } } ] }";
const FLOODED: &str = "max_pending: 2000000";
const LAME_DUCK: &str = "lame_duck_duration: \"30s\", lame_duck_grace_period: \"100ms\"";

const CASES: &[Case] = &[
    case(
        "a client",
        OPEN,
        "",
        &[Upgrade(""), Say(CONNECT), Get, Say("SUB a 1\r\nPUB a 2\r\nhi\r\nPING\r\n"), Get],
    ),
    case("any path, and a query", OPEN, "", &[UpgradeTo("/some/where?x=/mqtt", ""), Say(CONNECT), Get]),
    case("POST", OPEN, "", &[Raw("POST / HTTP/1.1\nHost: h\n\n"), Answer]),
    case("HEAD", OPEN, "", &[Raw("HEAD / HTTP/1.1\nHost: h\nConnection: close\n\n"), Answer]),
    case("a browser that does not know", OPEN, "", &[Raw("GET / HTTP/1.1\nHost: h\n\n"), Answer]),
    case("HTTP/1.0 without a host", OPEN, "", &[Raw("GET / HTTP/1.0\n\n"), Answer, Rest]),
    case("no host", OPEN, "", &[Raw("GET / HTTP/1.1\nUpgrade: websocket\n\n"), Answer, Rest]),
    case("two hosts", OPEN, "", &[Raw("GET / HTTP/1.1\nHost: a\nHost: b\n\n"), Answer, Rest]),
    case("an empty host", OPEN, "", &[Raw("GET / HTTP/1.1\nHost:\nUpgrade: websocket\n\n"), Answer]),
    case(
        "an upgrade to something else",
        OPEN,
        "",
        &[Raw("GET / HTTP/1.1\nHost: h\nUpgrade: h2c\n\n"), Answer],
    ),
    case(
        "no connection to upgrade",
        OPEN,
        "",
        &[Raw("GET / HTTP/1.1\nHost: h\nUpgrade: h2c, WebSocket\nConnection: keep-alive\n\n"), Answer],
    ),
    case(
        "no key",
        OPEN,
        "",
        &[Raw("GET / HTTP/1.1\nHost: h\nUpgrade: websocket\nConnection: keep-alive, upgrade\n\n"), Answer],
    ),
    case(
        "a key that is none",
        OPEN,
        "",
        &[
            Raw("GET / HTTP/1.1\nHost: h\nUpgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Key: @\n\n"),
            Answer,
        ],
    ),
    case(
        "a short key",
        OPEN,
        "",
        &[
            Raw(
                "GET / HTTP/1.1\nHost: h\nUpgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Key: AAAA\n\n",
            ),
            Answer,
        ],
    ),
    case(
        "an old version",
        OPEN,
        "",
        &[
            Raw("GET / HTTP/1.1\nHost: h\nUpgrade: websocket\nConnection: Upgrade\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Version: 8\n\n"),
            Answer,
        ],
    ),
    case(
        "a refusal, and then better",
        OPEN,
        "",
        &[Raw("GET / HTTP/1.1\nHost: h\n\n"), Answer, Upgrade(""), Say(CONNECT), Get],
    ),
    case(
        "a refusal that ends the connection",
        OPEN,
        "",
        &[Raw("GET / HTTP/1.1\nHost: h\nConnection: close\n\n"), Answer, Rest],
    ),
    case("MQTT", OPEN, "", &[UpgradeTo("/x/mqtt", "")]),
    case("a leafnode", OPEN, "", &[UpgradeTo("/leafnode", ""), Rest]),
    case("no HTTP", OPEN, "", &[Raw("CONNECT {}\n\n"), Answer, Rest]),
    case("nothing at all", OPEN, "", &[Leave, Rest]),
    case(
        "no handshake in time",
        "no_tls: true, handshake_timeout: \"200ms\"",
        "",
        &[Raw("GET / HTTP/1.1\n"), Rest],
    ),
    case(
        "the same origin",
        "no_tls: true, same_origin: true",
        "",
        &[Upgrade("Origin: http://HOST\n"), Say(CONNECT), Get],
    ),
    case("no origin", "no_tls: true, same_origin: true", "", &[Upgrade(""), Say(CONNECT), Get]),
    case("another origin", "no_tls: true, same_origin: true", "", &[Upgrade("Origin: http://h:1\n")]),
    case("an encrypted origin", "no_tls: true, same_origin: true", "", &[Upgrade("Origin: https://HOST\n")]),
    case("an origin that is none", "no_tls: true, same_origin: true", "", &[Upgrade("Origin: null\n")]),
    case(
        "an allowed origin",
        "no_tls: true, allowed_origins: [\"http://a.b:8080\", \"https://c\"]",
        "",
        &[Upgrade("Origin: https://C:443\n"), Say(CONNECT), Get],
    ),
    case(
        "an origin that is not allowed",
        "no_tls: true, allowed_origins: [\"http://a.b:8080\", \"https://c\"]",
        "",
        &[Upgrade("Sec-WebSocket-Origin: http://c\n")],
    ),
    case(
        "headers",
        "no_tls: true, headers: { X-Served: \"by us\" }",
        "",
        &[Upgrade("Nats-No-Masking: true\n"), Bytes(b"\x82\x06PING\r\n"), Get],
    ),
    case("behind a proxy", OPEN, "", &[Upgrade("X-Forwarded-For: 1.2.3.4\n"), Say(CONNECT), Get]),
    case("behind a proxy, IPv6", OPEN, "", &[Upgrade("X-Forwarded-For: ::1\n"), Say(CONNECT), Get]),
    case(
        "behind two proxies",
        OPEN,
        "",
        &[Upgrade("X-Forwarded-For: 1.2.3.4, 5.6.7.8\n"), Say(CONNECT), Get],
    ),
    case("compression is offered and not wanted", OPEN, "", &[Upgrade(OFFER), Say(CONNECT), Get]),
    case("compression is not offered", DEFLATE, "", &[Upgrade(""), Say(CONNECT), Get]),
    case(
        "compression",
        DEFLATE,
        "",
        &[
            Upgrade(OFFER),
            Deflated(CONNECT),
            Get,
            Deflated("SUB a 1\r\nPUB a 3\r\nabc\r\nPUB a 100\r\n"),
            Say(
                "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789\r\n",
            ),
            Deflated("PING\r\n"),
            Get,
        ],
    ),
    case("a browser", OPEN, "", &[Upgrade("User-Agent: Mozilla/5.0 (X11)\n"), Say(CONNECT), Get]),
    case(
        "text, and in parts",
        OPEN,
        "",
        &[
            Upgrade(""),
            Frame(0x01, b"CONNECT {\"verbose\":fal"),
            Frame(0x89, b"between"),
            Control,
            Frame(0x00, b""),
            Frame(0x80, b"se}\r\nPING\r\n"),
            Get,
        ],
    ),
    case(
        "ping and pong",
        OPEN,
        "",
        &[Upgrade(""), Frame(0x89, b""), Control, Frame(0x8A, b"x"), Frame(0x89, b"hello"), Control],
    ),
    case("the client closes", OPEN, "", &[Upgrade(""), Say(CONNECT), Get, Frame(0x88, b"\x03\xE8bye"), Rest]),
    case(
        "the client closes without a reason",
        OPEN,
        "",
        &[Upgrade(""), Say(CONNECT), Get, Frame(0x88, b""), Rest],
    ),
    case(
        "a reason that is no text",
        OPEN,
        "",
        &[Upgrade(""), Say(CONNECT), Get, Frame(0x88, b"\x03\xE8\xFF"), Rest],
    ),
    mistake("half a reason", OPEN, &[Upgrade(""), Frame(0x88, b"\x03"), Rest]),
    mistake("a reason that is not to be sent", OPEN, &[Upgrade(""), Frame(0x88, b"\x03\xEE"), Rest]),
    mistake("no mask", OPEN, &[Upgrade(""), Bytes(b"\x82\x06PING\r\n"), Rest]),
    mistake("reserved bits", OPEN, &[Upgrade(""), Frame(0xA2, b"x"), Rest]),
    mistake("compressed without asking", OPEN, &[Upgrade(""), Frame(0xC2, b"x"), Rest]),
    mistake("a control frame that is compressed", DEFLATE, &[Upgrade(OFFER), Frame(0xC9, b"x"), Rest]),
    mistake("a long control frame", OPEN, &[Upgrade(""), Frame(0x89, &[b'x'; 126]), Rest]),
    mistake("a control frame in parts", OPEN, &[Upgrade(""), Frame(0x09, b"x"), Rest]),
    mistake("a message in a message", OPEN, &[Upgrade(""), Frame(0x02, b"PI"), Frame(0x82, b"NG\r\n"), Rest]),
    mistake("the end of no message", OPEN, &[Upgrade(""), Frame(0x80, b"x"), Rest]),
    mistake("an opcode that is none", OPEN, &[Upgrade(""), Frame(0x85, b"x"), Rest]),
    mistake("a length that is none", OPEN, &[Upgrade(""), Bytes(b"\x82\xFF\xFF\0\0\0\0\0\0\0abcd"), Rest]),
    mistake("not compressed", DEFLATE, &[Upgrade(OFFER), Frame(0xC2, b"PING\r\n"), Rest]),
    mistake(
        "more than a payload may be when it is decompressed",
        DEFLATE,
        &[Upgrade(OFFER), Bomb(2_000_000), Rest],
    ),
    mistake("what is no operation", OPEN, &[Upgrade(""), Say(CONNECT), Get, Say("FOO\r\n"), Rest]),
    mistake("too long a line", OPEN, &[Upgrade(""), Say(CONNECT), Get, Say(LONG_LINE), Rest]),
    case(
        "too large a payload",
        OPEN,
        "max_payload: 10",
        &[Upgrade(""), Say(CONNECT), Get, Say("PUB a 11\r\n"), Rest],
    ),
    case("too many connections", OPEN, "max_connections: 0", &[Upgrade(""), Rest]),
    case(
        "who does not answer pings",
        "no_tls: true, ping_interval: \"100ms\"",
        "ping_max: 1",
        &[Upgrade(""), Say(CONNECT), Get, Rest],
    ),
    case("the end of the server", OPEN, "", &[Upgrade(""), Say(CONNECT), Get, Stop, Rest]),
    case("lame duck mode", OPEN, LAME_DUCK, &[Upgrade(""), Say(CONNECT_FOR_INFO), Get, LameDuck, Rest]),
    case(
        "lame duck mode, compressed",
        DEFLATE,
        LAME_DUCK,
        &[Upgrade(OFFER), Deflated(CONNECT_FOR_INFO), Get, LameDuck, Rest],
    ),
    case(
        "a slow consumer",
        OPEN,
        FLOODED,
        &[Upgrade(""), Say(CONNECT), Get, Say("SUB flood 1\r\nPING\r\n"), Get, Flood, Gone],
    ),
    case(
        "a reload of limits",
        DEFLATE,
        "",
        &[
            Upgrade(OFFER),
            Deflated(CONNECT),
            Get,
            Reload(DEFLATE, "max_payload: 1000"),
            Deflated("SUB a 1\r\nPUB a 2\r\nhi\r\nPING\r\n"),
            Get,
            Say("PUB a 1001\r\n"),
            Rest,
        ],
    ),
    case(
        "a reload that leaves its user alone",
        OPEN,
        USERS,
        &[
            Upgrade(""),
            Say("CONNECT {\"verbose\":false,\"user\":\"w\",\"pass\":\"w\"}\r\nPING\r\n"),
            Get,
            Reload(OPEN, FEWER_USERS),
            Say("SUB a 1\r\nPUB a 2\r\nhi\r\nPING\r\n"),
            Get,
        ],
    ),
    // nats-server closes it without a word.
    Case {
        tells: true,
        ..case(
            "a reload without its user",
            OPEN,
            USERS,
            &[
                Upgrade(""),
                Say("CONNECT {\"verbose\":false,\"user\":\"a\",\"pass\":\"b\"}\r\nPING\r\n"),
                Get,
                Reload(OPEN, FEWER_USERS),
                Rest,
            ],
        )
    },
    case(
        "a reload that takes permissions away",
        OPEN,
        USERS,
        &[
            Upgrade(""),
            Say("CONNECT {\"verbose\":false,\"user\":\"p\",\"pass\":\"p\"}\r\nSUB ok 1\r\nPING\r\n"),
            Get,
            Reload(OPEN, FEWER_USERS),
            Say("PUB ok 0\r\n\r\nPING\r\n"),
            Get,
        ],
    ),
    case(
        "a reload under wss",
        "tls { <PAIR> }",
        "",
        &[
            Tls,
            Upgrade(""),
            Say(CONNECT),
            Get,
            Reload("tls { <PAIR> }", "max_connections: 10"),
            Say("PING\r\n"),
            Get,
        ],
    ),
    case(
        "a password",
        OPEN,
        USERS,
        &[Upgrade(""), Say("CONNECT {\"verbose\":false,\"user\":\"a\",\"pass\":\"b\"}\r\nPING\r\n"), Get],
    ),
    case(
        "a wrong password",
        OPEN,
        USERS,
        &[Upgrade(""), Say("CONNECT {\"user\":\"a\",\"pass\":\"c\"}\r\nPING\r\n"), Rest],
    ),
    case(
        "a user for WebSocket",
        OPEN,
        USERS,
        &[Upgrade(""), Say("CONNECT {\"verbose\":false,\"user\":\"w\",\"pass\":\"w\"}\r\nPING\r\n"), Get],
    ),
    case(
        "a user that is not for WebSocket",
        OPEN,
        USERS,
        &[Upgrade(""), Say("CONNECT {\"user\":\"s\",\"pass\":\"s\"}\r\nPING\r\n"), Rest],
    ),
    case(
        "permissions",
        OPEN,
        USERS,
        &[
            Upgrade(""),
            Say(
                "CONNECT {\"verbose\":false,\"user\":\"p\",\"pass\":\"p\"}\r\nPUB no 1\r\nx\r\nSUB no 1\r\nSUB ok 2\r\nPUB ok 1\r\nx\r\nPING\r\n",
            ),
            Get,
        ],
    ),
    case(
        "no credentials in time",
        "no_tls: true, authorization { timeout: 0.3 }",
        USERS,
        &[Upgrade(""), Rest],
    ),
    case(
        "a user for those who show nothing",
        "no_tls: true, no_auth_user: a",
        USERS,
        &[Upgrade(""), Say(CONNECT), Get],
    ),
    case(
        "the other clients' user for those who show nothing",
        OPEN,
        "authorization { users: [ { user: a, password: b } ] }, no_auth_user: a",
        &[Upgrade(""), Say(CONNECT), Get],
    ),
    case(
        "a password of its own",
        "no_tls: true, authorization { user: x, password: y }",
        "",
        &[Upgrade(""), Say("CONNECT {\"verbose\":false,\"user\":\"x\",\"pass\":\"y\"}\r\nPING\r\n"), Get],
    ),
    case(
        "a password of its own beside another",
        "no_tls: true, authorization { user: x, password: y }",
        "authorization { token: t }",
        &[Upgrade(""), Say("CONNECT {\"auth_token\":\"t\"}\r\nPING\r\n"), Rest],
    ),
    case(
        "a token of its own",
        "no_tls: true, authorization { token: z }",
        "authorization { user: a, password: b }",
        &[Upgrade(""), Say("CONNECT {\"verbose\":false,\"auth_token\":\"z\"}\r\nPING\r\n"), Get],
    ),
    case(
        "nothing where a password is asked for",
        "no_tls: true, authorization { user: x, password: y }",
        "",
        &[Upgrade(""), Say(CONNECT), Rest],
    ),
    case(
        "cookies",
        "no_tls: true, user_cookie: u, pass_cookie: p",
        USERS,
        &[Upgrade("Cookie: u=a; q=1; p=b\n"), Say(CONNECT), Get],
    ),
    case(
        "a cookie, and a name in CONNECT",
        "no_tls: true, user_cookie: u, pass_cookie: p",
        USERS,
        &[
            Upgrade("Cookie: u=w\nCookie: p=b\n"),
            Say("CONNECT {\"verbose\":false,\"user\":\"a\"}\r\nPING\r\n"),
            Get,
        ],
    ),
    case(
        "a token in a cookie",
        "no_tls: true, token_cookie: t",
        "authorization { token: secret }",
        &[Upgrade("Cookie: t=secret\n"), Say(CONNECT), Get],
    ),
    case(
        "a wrong cookie",
        "no_tls: true, token_cookie: t",
        "authorization { token: secret }",
        &[Upgrade("Cookie: t=guess\n"), Say(CONNECT), Rest],
    ),
    case(
        "monitoring",
        "no_tls: true, compression: true, same_origin: true, allowed_origins: [\"https://a\"], handshake_timeout: 2, no_auth_user: a, authorization { timeout: 3 }, advertise: \"x:1\"",
        "authorization { users: [ { user: a, password: b } ] }, http: \"127.0.0.1:-1\"",
        &[Upgrade(""), Say(CONNECT), Get, Ask("/varz"), Ask("/connz"), Ask("/connz?auth=1")],
    ),
    case(
        "encrypted",
        "tls { <PAIR> }",
        "",
        &[Tls, Upgrade(""), Say(CONNECT), Get, Frame(0x89, b"hi"), Control, Frame(0x88, b"\x03\xE8"), Rest],
    ),
    case(
        "encrypted, and the same origin",
        "tls { <PAIR> }, same_origin: true",
        "",
        &[Tls, Upgrade("Origin: https://HOST\n"), Say(CONNECT), Get],
    ),
    case(
        "encrypted and compressed",
        "tls { <PAIR> }, compression: true",
        "",
        &[Tls, Upgrade(OFFER), Deflated(CONNECT), Get],
    ),
    case(
        "encrypted, and monitoring",
        "tls { <PAIR> }, no_tls: true",
        "http: \"127.0.0.1:-1\"",
        &[Tls, Upgrade(""), Say(CONNECT), Get, Ask("/varz"), Ask("/connz")],
    ),
    case("gone before the handshake of TLS", "tls { <PAIR> }", "", &[Leave, Rest]),
];

const LONG_LINE: &str = {
    const BYTES: [u8; 5000] = {
        let mut bytes = [b'a'; 5000];
        (bytes[0], bytes[1], bytes[2], bytes[3]) = (b'P', b'U', b'B', b' ');
        bytes
    };
    match std::str::from_utf8(&BYTES) {
        Ok(text) => text,
        Err(_) => panic!("it is ASCII"),
    }
};

#[test]
fn clients_and_operators_see_the_same_as_with_nats_server() {
    let Some(reference) = reference() else {
        return announce("SKIPPED the comparison of WebSocket: there is no nats-server");
    };
    let chosen = std::env::var("WEBSOCKET_CASE").ok();
    let mut wrong = String::new();
    for case in CASES.iter().filter(|case| chosen.as_deref().is_none_or(|name| name == case.name)) {
        let (mut ours, mut theirs) = (play(&candidate(), case), play(&reference, case));
        if chosen.is_some() {
            announce(&format!("Ringmain:\n{ours}\nnats-server:\n{theirs}"));
        }
        if case.tells {
            assert!(ours.contains("\nclose "), "{}: {ours}", case.name);
            for seen in [&mut ours, &mut theirs] {
                *seen = without_what_may_be_lost(seen);
            }
        }
        if ours != theirs {
            let _ = writeln!(wrong, "=== {}\nRingmain:\n{ours}nats-server:\n{theirs}", case.name);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Without what nats-server may have had no time to say.
fn without_what_may_be_lost(seen: &str) -> String {
    let is_kept = |line: &&str| {
        !["close ", "-ERR", "the end", "reset"].iter().any(|prefix| line.starts_with(prefix))
            && !line.contains("Client connection closed")
            && !line.contains(" - read error: ")
            && !line.contains("[ERR]")
    };
    seen.lines().filter(is_kept).flat_map(|line| [line, "\n"]).collect()
}

fn configuration(block: &str, config: &str) -> String {
    format!("websocket {{ listen: \"127.0.0.1:-1\", {} }}\n{config}\n", CERTIFICATES.fill(block))
}

/// What a client sees, and what the log says of it.
fn play(binary: &Path, case: &Case) -> String {
    let config = configuration(case.block, case.config);
    let arguments = ["-a", "127.0.0.1", "-p", "-1", "-D"];
    let server = ServerProcess::start_with(binary, &config, &arguments).expect("a server");
    let address = server.websocket();
    let mut client = Client::connect(address);
    let mut flooding = None;
    let mut seen = String::new();
    for step in case.steps {
        let words = match step {
            Tls => {
                client.secure();
                String::new()
            }
            Raw(text) => client.send(text.replace('\n', "\r\n").as_bytes()),
            Upgrade(headers) => client.upgrade("/", headers, address),
            UpgradeTo(path, headers) => client.upgrade(path, headers, address),
            Answer => client.read_answer(),
            Say(text) => client.send(&frame(0x82, text.as_bytes())),
            Deflated(text) => client.send(&frame(0xC2, &deflated(text.as_bytes()))),
            Bomb(len) => client.send(&frame(0xC2, &deflated(&vec![0; *len]))),
            Frame(first, payload) => client.send(&frame(*first, payload)),
            Bytes(bytes) => client.send(bytes),
            Get => client.read_until(|seen| seen.ends_with(b"PONG\r\n"), false),
            Control => client.read_until(|_| false, true),
            Rest => client.read_until(|_| false, false),
            Leave => {
                client.leave();
                String::new()
            }
            Stop => {
                server.signal(libc::SIGTERM);
                String::new()
            }
            LameDuck => {
                server.signal(libc::SIGUSR2);
                String::new()
            }
            Reload(block, config) => {
                fs::write(server.path("server.conf"), configuration(block, config)).expect("the file");
                server.signal(libc::SIGHUP);
                wait_until("the reload", PATIENCE, || server.log().contains("Reloaded server configuration"));
                String::new()
            }
            Flood => {
                let publisher = flooding.insert(Peer::open(server.address));
                wait_until("a slow consumer", PATIENCE, || {
                    publisher.publish("flood", &[b'x'; 100_000]);
                    server.log().contains("Slow Consumer")
                });
                String::new()
            }
            Gone => {
                let words = client.read_until(|_| false, false);
                let goodbye = words.lines().filter(|line| line.starts_with("close"));
                goodbye.chain(words.ends_with("the end").then_some("the end")).collect::<Vec<_>>().join("\n")
            }
            Ask(path) => shown_answer(&get(server.monitoring(), path).body),
        };
        let words = words.trim_end();
        if !words.is_empty() {
            let _ = writeln!(seen, "{words}");
        }
    }
    let is_client = seen.contains("101 Switching") && !seen.contains("/leafnode");
    drop(client);
    // The log is written behind the connection's back: its last line shows that the others are there.
    if is_client && case.name != "a leafnode" {
        wait_until("the log has the end", PATIENCE, || server.log().contains("Client connection closed"));
    } else if !case.steps.iter().any(|step| matches!(step, Leave)) && seen.contains("Sec-Websocket-Version") {
        wait_until("the log has the refusal", PATIENCE, || {
            server.log().contains("websocket handshake error")
        });
    }
    if case.name == "a leafnode" {
        wait_until("the log has the refusal", PATIENCE, || server.log().contains("leaf node connections"));
    }
    if case.name == "gone before the handshake of TLS" {
        wait_until("the log has the handshake", PATIENCE, || server.log().contains("TLS handshake error"));
    }
    let ends_itself = seen.trim_end().ends_with("the end");
    seen + &shown_log(&server.log(), ends_itself)
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..=125 => bytes.push(0x80 | len as u8),
        len => {
            bytes.push(0xFE);
            bytes.extend_from_slice(&u16::try_from(len).expect("a short frame").to_be_bytes());
        }
    }
    let key = [0x11, 0x80, 0x5A, 0xFF];
    bytes.extend_from_slice(&key);
    let at = bytes.len();
    bytes.extend_from_slice(payload);
    unmask(&mut bytes[at..], key, 0);
    bytes
}

fn deflated(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Deflater::default().deflate(std::iter::once(message), message.len(), &mut out);
    out
}

/// A connection, in the clear or not.
enum Stream {
    Clear(TcpStream),
    Sealed(Box<StreamOwned<ClientConnection, TcpStream>>),
    None,
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Clear(stream) => stream.read(bytes),
            Stream::Sealed(stream) => stream.read(bytes),
            Stream::None => Ok(0),
        }
    }
}

struct Client {
    stream: Stream,
    /// Read and not shown yet.
    input: Vec<u8>,
    /// A compressed message that is in parts.
    compressed: Option<Vec<u8>>,
}

impl Client {
    fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).expect("connect");
        stream.set_nodelay(true).expect("nodelay");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
        Client { stream: Stream::Clear(stream), input: Vec::new(), compressed: None }
    }

    fn secure(&mut self) {
        let Stream::Clear(stream) = std::mem::replace(&mut self.stream, Stream::None) else { panic!("once") };
        let connection = Offer::default().connection();
        self.stream = Stream::Sealed(Box::new(StreamOwned::new(connection, stream)));
    }

    fn send(&mut self, bytes: &[u8]) -> String {
        let sent = match &mut self.stream {
            Stream::Clear(stream) => stream.write_all(bytes),
            Stream::Sealed(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
            Stream::None => Ok(()),
        };
        // The server may have closed already; what it said is read next.
        let _ = sent;
        String::new()
    }

    fn leave(&mut self) {
        if let Stream::Clear(stream) = &self.stream {
            let _ = stream.shutdown(Shutdown::Write);
        }
    }

    fn upgrade(&mut self, path: &str, headers: &str, address: SocketAddr) -> String {
        let request = format!(
            "GET {path} HTTP/1.1\nHost: {address}\nUpgrade: websocket\nConnection: Upgrade\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Version: 13\n{}\n",
            headers.replace("HOST", &address.to_string())
        );
        self.send(request.replace('\n', "\r\n").as_bytes());
        self.read_answer()
    }

    /// More bytes; `false` at the end.
    fn read_more(&mut self) -> bool {
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes) {
            Ok(0) => false,
            Ok(len) => {
                self.input.extend_from_slice(&bytes[..len]);
                true
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                panic!("nothing came; so far: {:?}", String::from_utf8_lossy(&self.input))
            }
            Err(_) => false,
        }
    }

    /// An answer of HTTP: its head, its content.
    fn read_answer(&mut self) -> String {
        let end = loop {
            match self.input.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None if self.read_more() => {}
                None => {
                    let rest = std::mem::take(&mut self.input);
                    return format!("{}the end", String::from_utf8_lossy(&rest));
                }
            }
        };
        let head = String::from_utf8_lossy(&self.input.drain(..end).collect::<Vec<u8>>()).into_owned();
        let len = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let len: usize = len.map_or(0, |len| len.parse().expect("a length"));
        let is_named = head.contains("Content-Length: ");
        // That of a HEAD does not come.
        let wants =
            |client: &Client| is_named && client.input.len() < len && !head.contains("Connection: close");
        while wants(self) && self.read_more() {}
        let ends = head.contains("Connection: close");
        while ends && self.read_more() {}
        let content: Vec<u8> = if is_named || ends { self.input.drain(..).collect() } else { Vec::new() };
        let head: Vec<&str> = head.lines().filter(|line| !line.starts_with("Date: ")).collect();
        format!("{}\n{}", head.join("\n"), String::from_utf8_lossy(&content))
    }

    /// What comes until the stream of NATS is as it should be, or until there is a control frame, or to the end.
    fn read_until(&mut self, is_enough: impl Fn(&[u8]) -> bool, until_control: bool) -> String {
        let (mut stream, mut shown) = (Vec::new(), String::new());
        loop {
            while let Some((first, payload)) = self.next_frame() {
                match first & 0xF {
                    0..=2 => {
                        stream.extend(self.content(first, payload));
                        if is_enough(&stream) {
                            return shown + &shown_stream(&stream);
                        }
                    }
                    opcode => {
                        shown += &shown_stream(&std::mem::take(&mut stream));
                        shown += &shown_control(opcode, &payload);
                        if until_control {
                            return shown;
                        }
                    }
                }
            }
            if !self.read_more() {
                let rest = std::mem::take(&mut self.input);
                return format!("{shown}{}{}the end", shown_stream(&stream), String::from_utf8_lossy(&rest));
            }
        }
    }

    fn next_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let [first, second, ..] = self.input[..] else { return None };
        assert_eq!(second & 0x80, 0, "a server does not mask");
        let (at, len) = match second {
            126 => (4, usize::from(u16::from_be_bytes(self.input.get(2..4)?.try_into().expect("two")))),
            127 => (10, u64::from_be_bytes(self.input.get(2..10)?.try_into().expect("eight")) as usize),
            len => (2, usize::from(len)),
        };
        if self.input.len() < at + len {
            return None;
        }
        let payload = self.input[at..at + len].to_vec();
        self.input.drain(..at + len);
        Some((first, payload))
    }

    /// The content of a message's frame.
    fn content(&mut self, first: u8, payload: Vec<u8>) -> Vec<u8> {
        if first & 0x40 != 0 {
            self.compressed = Some(Vec::new());
        }
        let Some(compressed) = &mut self.compressed else { return payload };
        compressed.extend(payload);
        if first & 0x80 == 0 {
            return Vec::new();
        }
        let mut content = Vec::new();
        let message = self.compressed.take().expect("it has begun");
        Inflater::default().inflate(&message, 1 << 24, &mut content).expect("a compressed message");
        content
    }
}

fn shown_control(opcode: u8, payload: &[u8]) -> String {
    match (opcode, payload) {
        (8, [high, low, text @ ..]) => {
            format!("close {} {}\n", u16::from_be_bytes([*high, *low]), String::from_utf8_lossy(text))
        }
        (8, _) => "close\n".to_owned(),
        (9, _) => format!("ping {payload:?}\n"),
        _ => format!("pong {}\n", String::from_utf8_lossy(payload)),
    }
}

/// NATS, line by line, with what matters here of each `INFO`.
fn shown_stream(stream: &[u8]) -> String {
    let mut shown = String::new();
    for line in String::from_utf8_lossy(stream).split_inclusive("\r\n") {
        match line.strip_prefix("INFO ") {
            Some(json) => {
                let info: serde_json::Map<String, serde_json::Value> =
                    serde_json::from_str(json).expect("JSON");
                shown += "INFO";
                for (name, value) in &info {
                    let value = match name.as_str() {
                        "server_id" | "server_name" | "go" | "xkey" | "port" | "client_id" | "nonce" => {
                            "…".to_owned()
                        }
                        "git_commit" | "ringmain" => continue,
                        _ => value.to_string(),
                    };
                    let _ = write!(shown, " {name}:{value}");
                }
                shown += "\n";
            }
            None if matches!(line, "PING\r\n") => {}
            None => shown += line,
        }
    }
    shown
}

/// What monitoring tells of WebSocket.
fn shown_answer(body: &str) -> String {
    let json: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let mut shown = Vec::new();
    if let Some(block) = json.get("websocket") {
        let mut block = block.clone();
        block["port"] = "…".into();
        shown.push(block.to_string());
    }
    for row in json["connections"].as_array().into_iter().flatten() {
        for name in
            ["kind", "type", "ip", "tls_version", "tls_first", "authorized_user", "account", "in_msgs"]
        {
            shown.push(format!("{name}:{}", row.get(name).unwrap_or(&serde_json::Value::Null)));
        }
    }
    for name in ["connections", "total_connections"] {
        if let Some(number) = json.get(name).and_then(serde_json::Value::as_u64) {
            shown.push(format!("{name}:{number}"));
        }
    }
    shown.join(" ")
}

/// The lines of the log that are about connections, without what differs from run to run.
fn shown_log(log: &str, ends_itself: bool) -> String {
    let mut shown = String::new();
    for line in log.lines() {
        let Some((_, text)) = line.split_once("] ").and_then(|(_, rest)| rest.split_once(" [")) else {
            continue;
        };
        let text = format!("[{text}");
        let is_ours = text.contains("127.0.0.1:") && !text.contains("Listening") && !text.contains("monitor")
            || text.starts_with("[ERR]")
            || text.contains("Websocket not configured");
        let is_timer = text.contains("Ping Timer") || text.contains("Delaying PING");
        // How often depends on the moment.
        let is_timer =
            is_timer || text.contains("fast producer stall") || text.contains("Producer was stalled");
        // A connection that is left is left at a moment of its own.
        let is_left = !ends_itself && text.contains("Client connection closed");
        // Said for the second time.
        let is_repeated = ["maximum payload exceeded", "authentication error"]
            .iter()
            .any(|error| text.ends_with(&format!(" - read error: {error}")));
        if !is_ours || is_timer || is_left || is_repeated {
            continue;
        }
        let mut words: Vec<String> = Vec::new();
        for word in text.split(' ') {
            let masked = match word.trim_end_matches(':').rsplit_once(':') {
                Some((before, digits)) if digits.trim_end_matches(['"', ',']).parse::<u64>().is_ok() => {
                    format!("{before}:…")
                }
                _ => word.to_owned(),
            };
            words.push(masked);
        }
        let _ = writeln!(shown, "{}", words.join(" "));
    }
    shown
}
