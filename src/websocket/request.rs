//! The head of an HTTP request, and the answers that are none of the WebSocket protocol, as Go's `net/http` gives them.

use std::time::SystemTime;

/// Bytes of a request's head.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// Header lines of a request.
const HEADERS_MAX: usize = 128;

/// The head of one request.
#[derive(Debug)]
pub struct Request<'a> {
    pub method: &'a str,
    /// As written, without what stands behind a question mark.
    pub path: &'a str,
    /// HTTP/1.1 rather than 1.0.
    pub is_1_1: bool,
    headers: Vec<(&'a str, &'a [u8])>,
    /// Bytes of the head.
    pub len: usize,
}

/// What is wrong with a request before anybody has looked at what it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestError {
    Malformed(&'static str),
    TooLarge,
    Version,
}

impl<'a> Request<'a> {
    /// Takes a head apart; `None` if its end is not there yet.
    pub fn parse(bytes: &'a [u8]) -> Result<Option<Request<'a>>, RequestError> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut headers);
        let len = match parsed.parse(bytes) {
            Ok(httparse::Status::Complete(len)) if len <= REQUEST_BYTES_MAX => len,
            Ok(httparse::Status::Partial) if bytes.len() <= REQUEST_BYTES_MAX => return Ok(None),
            Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(RequestError::TooLarge),
            Err(httparse::Error::Version) => return Err(RequestError::Version),
            Err(_) => return Err(RequestError::Malformed("")),
        };
        let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(RequestError::Malformed(""));
        };
        let target = match target.split_once("://") {
            // As to a proxy.
            Some((_, rest)) if !target.starts_with('/') => rest.find('/').map_or("/", |slash| &rest[slash..]),
            _ => target,
        };
        let path = target.split('?').next().unwrap_or_default();
        let headers = parsed.headers.iter().map(|header| (header.name, header.value)).collect();
        let request = Request { method, path, is_1_1: version == 1, headers, len };
        let hosts = request.all("Host").count();
        if hosts > 1 {
            return Err(RequestError::Malformed(""));
        }
        if request.is_1_1 && hosts == 0 {
            return Err(RequestError::Malformed(": missing required Host header"));
        }
        Ok(Some(request))
    }

    /// The values of all headers of this name, in any case.
    pub fn all<'b>(&'b self, name: &'b str) -> impl Iterator<Item = &'a [u8]> + 'b {
        self.headers
            .iter()
            .filter(move |(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| *value)
    }

    /// The value of the first header of this name, or nothing.
    pub fn first(&self, name: &str) -> &'a [u8] {
        self.all(name).next().map_or(&[], <[u8]>::trim_ascii)
    }

    /// Whether a header lists this word, in any case.
    pub fn lists(&self, name: &str, word: &str) -> bool {
        self.all(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .any(|item| trimmed(item).eq_ignore_ascii_case(word.as_bytes()))
    }

    /// Whether another request may follow on the same connection.
    pub fn is_kept_alive(&self) -> bool {
        let has_body = self.all("Transfer-Encoding").next().is_some()
            || self.all("Content-Length").any(|len| len.trim_ascii() != b"0");
        // Bodies are not waited for: nobody who means to speak WebSocket sends one.
        !has_body && self.is_1_1 && !self.lists("Connection", "close")
    }
}

/// Without spaces and tabs around it.
pub fn trimmed(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

impl RequestError {
    /// What is answered, before the connection is closed.
    pub fn response(self) -> Vec<u8> {
        let status = match self {
            RequestError::Malformed(detail) => format!("400 Bad Request{detail}"),
            RequestError::TooLarge => "431 Request Header Fields Too Large".to_owned(),
            RequestError::Version => {
                "505 HTTP Version Not Supported: unsupported protocol version".to_owned()
            }
        };
        let head = "Content-Type: text/plain; charset=utf-8\r\nConnection: close";
        format!("HTTP/1.1 {status}\r\n{head}\r\n\r\n{status}").into_bytes()
    }
}

/// The answer to a request that is no upgrade.
pub fn refusal(request: &Request<'_>, status: u16, now: SystemTime) -> Vec<u8> {
    let text = match status {
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        _ => "Bad Request",
    };
    let version = if request.is_1_1 { "1.1" } else { "1.0" };
    let date = httpdate::fmt_http_date(now);
    let close = if request.is_kept_alive() || !request.is_1_1 { "" } else { "Connection: close\r\n" };
    let body = if request.method == "HEAD" { String::new() } else { format!("{text}\n") };
    format!(
        "HTTP/{version} {status} {text}\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Sec-Websocket-Version: 13\r\nX-Content-Type-Options: nosniff\r\nDate: {date}\r\n\
         Content-Length: {}\r\n{close}\r\n{body}",
        text.len() + 1
    )
    .into_bytes()
}
