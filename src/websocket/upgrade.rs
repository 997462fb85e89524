//! The handshake: what a request has to show, and what it is answered, in the order of the reference's checks.

use std::net::IpAddr;
use std::time::SystemTime;

use data_encoding::BASE64;
use sha1::{Digest as _, Sha1};

use super::cookies::{CookieNames, cookies};
use super::origin::{self, AllowedOrigin};
use super::request::{REQUEST_BYTES_MAX, Request, RequestError, refusal, trimmed};

/// What a key is hashed with (RFC 6455, 1.3).
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const EXTENSION: &str = "permessage-deflate";

/// What the requests of one configuration are measured by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpgradeTerms {
    /// Connections are encrypted.
    pub is_encrypted: bool,
    /// Pages have to come from the host that they connect to.
    pub same_origin: bool,
    /// Where pages may come from; empty: from anywhere.
    pub allowed_origins: Vec<AllowedOrigin>,
    /// Compression may be agreed on.
    pub compression: bool,
    /// Added to the answer: names and values.
    pub headers: Vec<(String, String)>,
    /// Cookies that are remembered.
    pub cookies: CookieNames,
}

/// A connection before it is upgraded: requests, one after the other.
#[derive(Debug, Default)]
pub struct Upgrade {
    input: Vec<u8>,
}

/// What comes of the bytes so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// More is to arrive.
    Incomplete,
    /// It is upgraded.
    Upgraded {
        /// To be sent, before any frame.
        response: Vec<u8>,
        /// How.
        negotiated: Negotiated,
        /// By whom.
        visitor: Box<Visitor>,
    },
    /// It is not.
    Refused {
        /// To be sent.
        response: Vec<u8>,
        /// For the log: `None` where the reference logs nothing.
        reason: Option<String>,
        /// The connection is closed then; otherwise another request may follow.
        closes: bool,
    },
    /// It would be upgraded to something that is not there: the answer is to be sent and the connection closed.
    LeafNode(Vec<u8>),
}

/// What was agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Negotiated {
    /// Messages may be compressed.
    pub compression: bool,
    /// The client masks what it sends.
    pub masking: bool,
    /// It is a browser: those do better with short frames.
    pub browser: bool,
    /// It does not take compressed messages in several frames.
    pub whole_compressed: bool,
}

/// What a request tells of whoever sent it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Visitor {
    /// The client of the proxy that the connection comes from.
    pub client_ip: Option<String>,
    /// Of the cookies.
    pub user: String,
    /// Of the cookies.
    pub pass: String,
    /// Of the cookies.
    pub token: String,
}

/// Why a request is refused: status, and the reference's words.
type Refusal = (u16, String);

impl Upgrade {
    /// Takes what has arrived. `now` dates the answer.
    pub fn receive(&mut self, bytes: &[u8], terms: &UpgradeTerms, now: SystemTime) -> Answer {
        self.input.extend_from_slice(bytes);
        // A head ends with a line. So one that comes byte by byte is not read from its beginning for each of them.
        if !bytes.is_empty() && !bytes.contains(&b'\n') && self.input.len() <= REQUEST_BYTES_MAX {
            return Answer::Incomplete;
        }
        let request = match Request::parse(&self.input) {
            Ok(Some(request)) => request,
            Ok(None) => return Answer::Incomplete,
            Err(error) => return unreadable(error),
        };
        let (leaf, checked) = (request.path.ends_with("/leafnode"), check(&request, terms));
        if let Err((status, reason)) = checked {
            let response = refusal(&request, status, now);
            let (closes, len) = (!request.is_kept_alive(), request.len);
            self.input.drain(..len);
            return Answer::Refused { response, reason: Some(reason), closes };
        }
        if request.len < self.input.len() {
            // It is a connection of its own already, in the reference, and can only be closed.
            let reason = Some("client sent data before handshake is complete".to_owned());
            return Answer::Refused { response: Vec::new(), reason, closes: true };
        }
        let negotiated = negotiate(&request, terms);
        let response = acceptance(&request, negotiated, terms);
        let visitor = Box::new(visitor(&request, terms));
        self.input = Vec::new();
        if leaf {
            return Answer::LeafNode(response);
        }
        Answer::Upgraded { response, negotiated, visitor }
    }
}

fn unreadable(error: RequestError) -> Answer {
    Answer::Refused { response: error.response(), reason: None, closes: true }
}

fn check(request: &Request<'_>, terms: &UpgradeTerms) -> Result<(), Refusal> {
    let bad = |reason: &str| Err((400, reason.to_owned()));
    if request.path.ends_with("/mqtt") {
        return Err((404, "mqtt websocket endpoint not enabled".to_owned()));
    }
    if request.method != "GET" {
        return Err((405, "request method must be GET".to_owned()));
    }
    if request.first("Host").is_empty() {
        return bad("'Host' missing in request");
    }
    if !request.lists("Upgrade", "websocket") {
        return bad("invalid value for header 'Upgrade'");
    }
    if !request.lists("Connection", "Upgrade") {
        return bad("invalid value for header 'Connection'");
    }
    let key = request.first("Sec-WebSocket-Key");
    if key.is_empty() {
        return bad("key missing");
    }
    if !BASE64.decode(key).is_ok_and(|key| key.len() == 16) {
        return bad("invalid websocket key");
    }
    if !request.lists("Sec-WebSocket-Version", "13") {
        return bad("invalid version");
    }
    if terms.same_origin || !terms.allowed_origins.is_empty() {
        let origin = match request.first("Origin") {
            [] => request.first("Sec-WebSocket-Origin"),
            origin => origin,
        };
        // Whoever is no browser need not show any.
        if !origin.is_empty() {
            let text = String::from_utf8_lossy;
            let (origin, host) = (text(origin), text(request.first("Host")));
            origin::check(&origin, &host, terms.is_encrypted, terms.same_origin, &terms.allowed_origins)
                .map_err(|reason| (403, format!("origin not allowed: {reason}")))?;
        }
    }
    Ok(())
}

fn negotiate(request: &Request<'_>, terms: &UpgradeTerms) -> Negotiated {
    let offers = || {
        request
            .all("Sec-WebSocket-Extensions")
            .flat_map(|value| value.split(|byte| matches!(byte, b',' | b';')))
            .any(|part| trimmed(part).eq_ignore_ascii_case(EXTENSION.as_bytes()))
    };
    let agent = String::from_utf8_lossy(request.first("User-Agent"));
    let compression = terms.compression && offers();
    // Safari calls itself so; others that name it do not tell their version in this way.
    let is_safari = agent.contains("Version/") && agent.contains("Safari/");
    let browser = agent.starts_with("Mozilla/");
    Negotiated {
        compression,
        masking: request.first("Nats-No-Masking") != b"true",
        browser,
        whole_compressed: browser && compression && is_safari,
    }
}

fn acceptance(request: &Request<'_>, negotiated: Negotiated, terms: &UpgradeTerms) -> Vec<u8> {
    let mut hash = Sha1::new();
    hash.update(request.first("Sec-WebSocket-Key"));
    hash.update(KEY_SUFFIX);
    let accept = BASE64.encode(&hash.finalize());
    let mut text = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n"
    );
    if negotiated.compression {
        text.push_str("Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n");
    }
    if !negotiated.masking {
        text.push_str("Nats-No-Masking: true\r\n");
    }
    for (name, value) in &terms.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text.into_bytes()
}

fn visitor(request: &Request<'_>, terms: &UpgradeTerms) -> Visitor {
    let forwarded = std::str::from_utf8(request.first("X-Forwarded-For")).unwrap_or_default();
    let mut visitor = Visitor {
        client_ip: forwarded.parse::<IpAddr>().is_ok().then(|| forwarded.to_owned()),
        ..Visitor::default()
    };
    let CookieNames { user, pass, token } = &terms.cookies;
    for (name, value) in cookies(request.all("Cookie")) {
        for (wanted, field) in
            [(user, &mut visitor.user), (pass, &mut visitor.pass), (token, &mut visitor.token)]
        {
            if wanted.as_deref() == Some(name) {
                value.clone_into(field);
                break;
            }
        }
    }
    visitor
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "GET /x HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

    fn answer(request: &str, terms: &UpgradeTerms) -> Answer {
        Upgrade::default().receive(request.as_bytes(), terms, SystemTime::UNIX_EPOCH)
    }

    fn refused(request: &str) -> (String, Option<String>, bool) {
        match answer(request, &UpgradeTerms::default()) {
            Answer::Refused { response, reason, closes } => {
                (String::from_utf8(response).unwrap(), reason, closes)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_example_of_the_specification_is_upgraded_however_it_is_cut() {
        let request = format!("{GOOD}\r\n");
        for cut in 0..request.len() {
            let mut upgrade = Upgrade::default();
            let (first, second) = request.as_bytes().split_at(cut);
            let terms = UpgradeTerms::default();
            assert_eq!(upgrade.receive(first, &terms, SystemTime::UNIX_EPOCH), Answer::Incomplete);
            let Answer::Upgraded { response, negotiated, .. } =
                upgrade.receive(second, &terms, SystemTime::UNIX_EPOCH)
            else {
                panic!("cut at {cut}");
            };
            assert_eq!(
                String::from_utf8(response).unwrap(),
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
            );
            assert_eq!(negotiated, Negotiated { masking: true, ..Negotiated::default() });
        }
    }

    #[test]
    fn after_a_refusal_the_next_request_may_be_better() {
        let bad = format!("{}\r\n", GOOD.replace("13", "12"));
        let mut upgrade = Upgrade::default();
        let terms = UpgradeTerms::default();
        let Answer::Refused { response, closes: false, reason } =
            upgrade.receive(bad.as_bytes(), &terms, SystemTime::UNIX_EPOCH)
        else {
            panic!("it is refused")
        };
        assert_eq!(reason.as_deref(), Some("invalid version"));
        assert_eq!(
            String::from_utf8(response).unwrap(),
            "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nSec-Websocket-Version: 13\r\n\
             X-Content-Type-Options: nosniff\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 12\r\n\r\nBad Request\n"
        );
        let good = format!("{GOOD}\r\n");
        let answer = upgrade.receive(good.as_bytes(), &terms, SystemTime::UNIX_EPOCH);
        assert!(matches!(answer, Answer::Upgraded { .. }));
    }

    #[test]
    fn what_is_no_request_ends_the_connection() {
        let (response, reason, closes) = refused("PING\r\n\r\n");
        assert!(response.starts_with("HTTP/1.1 400 Bad Request\r\n") && closes, "{response}");
        assert_eq!(reason, None);
        let (response, ..) = refused("GET / HTTP/1.1\r\n\r\n");
        assert!(response.ends_with("\r\n\r\n400 Bad Request: missing required Host header"), "{response}");
        let (response, ..) = refused(&format!("GET / HTTP/1.1\r\nHost: {}", "x".repeat(70_000)));
        assert!(response.starts_with("HTTP/1.1 431 "), "{response}");
        let (response, reason, closes) = refused(&format!("{GOOD}\r\n\x00"));
        assert!(response.is_empty() && closes, "{response}");
        assert_eq!(reason.as_deref(), Some("client sent data before handshake is complete"));
    }

    #[test]
    fn what_was_asked_for_is_agreed_on() {
        let terms = UpgradeTerms {
            compression: true,
            headers: vec![("X-A".to_owned(), "b c".to_owned())],
            cookies: CookieNames { user: Some("u".into()), pass: Some("p".into()), token: None },
            ..UpgradeTerms::default()
        };
        let request = format!(
            "{GOOD}Sec-WebSocket-Extensions: x, permessage-deflate; client_max_window_bits\r\nNats-No-Masking: true\r\n\
             User-Agent: Mozilla/5.0 Version/17 Safari/605\r\nX-Forwarded-For: 1.2.3.4\r\nCookie: u=me; p=\"it is\"\r\n\r\n"
        );
        let Answer::Upgraded { response, negotiated, visitor } = answer(&request, &terms) else { panic!() };
        let response = String::from_utf8(response).unwrap();
        assert!(
            response.ends_with(
                "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n\
                 Nats-No-Masking: true\r\nX-A: b c\r\n\r\n"
            ),
            "{response}"
        );
        let expected =
            Negotiated { compression: true, masking: false, browser: true, whole_compressed: true };
        assert_eq!(negotiated, expected);
        let expected = Visitor {
            client_ip: Some("1.2.3.4".into()),
            user: "me".into(),
            pass: "it is".into(),
            token: String::new(),
        };
        assert_eq!(*visitor, expected);
    }
}
