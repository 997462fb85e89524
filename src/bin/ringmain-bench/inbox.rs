//! A receive buffer that hands out whole lines and messages: for connections where every byte is looked at.
//! Not for the subscribers of a throughput measurement: see `tally`.

use std::io::{self, Read};

use crate::error::BenchError;

const CAPACITY_FIRST: usize = 4 * 1024;

/// Something that a server says.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The arguments of MSG and the payload.
    Message {
        subject: &'a [u8],
        reply: Option<&'a [u8]>,
        payload: &'a [u8],
    },
    Info(&'a [u8]),
    Ping,
    Pong,
}

/// Received bytes that have not been consumed.
#[derive(Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Inbox {
    /// One read from `stream`; 0 means that the peer closed.
    pub fn fill(&mut self, mut stream: impl Read) -> io::Result<usize> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.end == self.bytes.len() {
            if self.start > 0 {
                self.bytes.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            } else {
                // Grows only when a frame, or one read, has proved to be larger: 15,000 connections stay small.
                self.bytes.resize((self.bytes.len() * 2).max(CAPACITY_FIRST), 0);
            }
        }
        let got = stream.read(&mut self.bytes[self.end..])?;
        self.end += got;
        Ok(got)
    }

    /// Takes bytes that were read elsewhere.
    pub fn fill_all(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            self.fill(&mut bytes).expect("reading from memory does not fail");
        }
    }

    /// The next whole event, or None until more is received.
    pub fn next_event(&mut self) -> Result<Option<Event<'_>>, BenchError> {
        let pending = &self.bytes[self.start..self.end];
        let Some(newline) = memchr::memchr(b'\n', pending) else { return Ok(None) };
        let line = pending[..newline].strip_suffix(b"\r").unwrap_or(&pending[..newline]);
        let after_line = newline + 1;
        if let Some(arguments) = line.strip_prefix(b"MSG ") {
            let (subject, reply, size) =
                message_arguments(arguments).ok_or_else(|| BenchError::unexpected(line))?;
            let Some(payload) = pending.get(after_line..after_line + size + 2) else { return Ok(None) };
            self.start += after_line + size + 2;
            let Some(payload) = payload.strip_suffix(b"\r\n") else {
                return Err(BenchError::unexpected(payload));
            };
            return Ok(Some(Event::Message { subject, reply, payload }));
        }
        self.start += after_line;
        match line {
            b"PING" => Ok(Some(Event::Ping)),
            b"PONG" => Ok(Some(Event::Pong)),
            _ => {
                if let Some(json) = line.strip_prefix(b"INFO ") {
                    Ok(Some(Event::Info(json)))
                } else if let Some(text) = line.strip_prefix(b"-ERR ") {
                    Err(BenchError::Refused(String::from_utf8_lossy(text).into_owned()))
                } else {
                    Err(BenchError::unexpected(line))
                }
            }
        }
    }
}

/// Subject, reply and payload size.
type MessageArguments<'a> = (&'a [u8], Option<&'a [u8]>, usize);

/// `subject sid [reply] size`.
fn message_arguments(arguments: &[u8]) -> Option<MessageArguments<'_>> {
    let mut words = arguments.split(|byte| *byte == b' ');
    let (subject, _sid, third) = (words.next()?, words.next()?, words.next()?);
    let (reply, size) = match words.next() {
        Some(size) => (Some(third), size),
        None => (None, third),
    };
    let size = std::str::from_utf8(size).ok()?.parse().ok()?;
    words.next().is_none().then_some((subject, reply, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] =
        b"INFO {\"a\":1} \r\nPING\r\nMSG foo 1 bar 5\r\nhello\r\nMSG foo 1 0\r\n\r\nPONG\r\n";

    fn events(chunks: impl Iterator<Item = Vec<u8>>) -> Vec<String> {
        let mut inbox = Inbox::default();
        let mut seen = Vec::new();
        for chunk in chunks {
            assert_eq!(inbox.fill(&chunk[..]).unwrap(), chunk.len());
            while let Some(event) = inbox.next_event().unwrap() {
                seen.push(format!("{event:?}"));
            }
        }
        seen
    }

    #[test]
    fn events_are_the_same_however_the_stream_is_cut() {
        let whole = events(std::iter::once(STREAM.to_vec()));
        assert_eq!(whole.len(), 5);
        for cut in 1..STREAM.len() {
            let parts = [STREAM[..cut].to_vec(), STREAM[cut..].to_vec()];
            assert_eq!(events(parts.into_iter()), whole, "cut at {cut}");
        }
    }

    #[test]
    fn an_err_line_becomes_an_error_with_its_text() {
        let mut inbox = Inbox::default();
        inbox.fill(&b"-ERR 'Authorization Violation'\r\n"[..]).unwrap();
        assert!(
            matches!(inbox.next_event(), Err(BenchError::Refused(text)) if text == "'Authorization Violation'")
        );
    }

    #[test]
    fn garbage_is_refused() {
        for garbage in [&b"HELLO\r\n"[..], b"MSG a 1 x\r\n", b"MSG a 1 2\r\nabcd\r\n", b"MSG a b c d 1\r\n"] {
            let mut inbox = Inbox::default();
            inbox.fill(garbage).unwrap();
            assert!(inbox.next_event().is_err(), "{}", garbage.escape_ascii());
        }
    }
}
