//! A small HTTP client: one request per connection, the answer as it came.
#![allow(dead_code)]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long an answer may take; only a failure uses it up.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The status code.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The content.
    pub bytes: Vec<u8>,
    /// The content as a text; empty if it is encoded in another way.
    pub body: String,
}

impl Page {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The content as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// Gets a page.
#[track_caller]
pub fn get(address: SocketAddr, path: &str) -> Page {
    request(address, "GET", path)
}

/// Sends a request without a body.
#[track_caller]
pub fn request(address: SocketAddr, method: &str, path: &str) -> Page {
    request_with(address, method, path, &[])
}

/// The same with more headers.
#[track_caller]
pub fn request_with(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Page {
    let host = address.to_string();
    exchange(connect(address), method, path, &[&[("Host", host.as_str())], headers].concat())
}

/// Connects; nothing takes longer than [`PATIENCE`].
#[track_caller]
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("read timeout");
    stream
}

/// The same over a connection that stands.
#[track_caller]
pub fn exchange(mut stream: impl Read + Write, method: &str, path: &str, headers: &[(&str, &str)]) -> Page {
    let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).expect("write");
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        // Go's server ends encrypted connections without saying so.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {}
        result => drop(result.unwrap_or_else(|error| panic!("{path}: {error}"))),
    }
    parse(&bytes).unwrap_or_else(|| panic!("{path}: no answer: {}", String::from_utf8_lossy(&bytes)))
}

fn parse(bytes: &[u8]) -> Option<Page> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let mut page = Page { status, headers, bytes: Vec::new(), body: String::new() };
    let body = &bytes[end + 4..];
    let body = match page.header("transfer-encoding") {
        Some("chunked") => unchunked(body)?,
        _ => body.to_vec(),
    };
    page.bytes = body;
    if page.header("content-encoding").is_none() {
        page.body = String::from_utf8(page.bytes.clone()).ok()?;
    }
    Some(page)
}

fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let len = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?, 16).ok()?;
        if len == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(end + 2..end + 2 + len)?);
        rest = rest.get(end + 2 + len + 2..)?;
    }
}
