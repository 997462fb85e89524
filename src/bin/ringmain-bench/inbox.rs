//! A receive buffer that hands out whole lines and messages: for connections where every byte is looked at.
//! Not for the subscribers of a throughput measurement: see `tally`.

use std::io::{self, Read};

use crate::error::BenchError;

const CAPACITY_FIRST: usize = 4 * 1024;

/// Something that a server says.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The arguments of MSG or HMSG, the header block (empty without one), and the payload.
    Message {
        subject: &'a [u8],
        reply: Option<&'a [u8]>,
        header: &'a [u8],
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
    /// For a connection on which much comes: reads of this size from the first on.
    pub fn reserve(&mut self, bytes: usize) {
        if self.bytes.len() < bytes {
            self.bytes.resize(bytes, 0);
        }
    }

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
        let has_header = line.starts_with(b"HMSG ");
        if has_header || line.starts_with(b"MSG ") {
            let arguments = &line[if has_header { 5 } else { 4 }..];
            let Arguments { subject, reply, header_len, size } =
                Arguments::of(arguments, has_header).ok_or_else(|| BenchError::unexpected(line))?;
            let Some(content) = pending.get(after_line..after_line + size + 2) else { return Ok(None) };
            self.start += after_line + size + 2;
            let Some(content) = content.strip_suffix(b"\r\n") else {
                return Err(BenchError::unexpected(content));
            };
            let (header, payload) = content.split_at(header_len);
            return Ok(Some(Event::Message { subject, reply, header, payload }));
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

/// What stands in the line of a message.
struct Arguments<'a> {
    subject: &'a [u8],
    reply: Option<&'a [u8]>,
    header_len: usize,
    /// Of header and payload.
    size: usize,
}

impl Arguments<'_> {
    /// `subject sid [reply] size`, or `subject sid [reply] header-size size`.
    fn of(line: &[u8], has_header: bool) -> Option<Arguments<'_>> {
        let mut words = line.split(|byte| *byte == b' ');
        let (subject, _sid) = (words.next()?, words.next()?);
        let mut rest = [words.next()?, b"", b""];
        let mut count = 1;
        for word in words {
            *rest.get_mut(count)? = word;
            count += 1;
        }
        let sizes = if has_header { 2 } else { 1 };
        let with_reply = count.checked_sub(sizes).filter(|more| *more <= 1)?;
        let size = number(rest[count - 1])?;
        let header_len = if has_header { number(rest[count - 2])? } else { 0 };
        let reply = (with_reply == 1).then_some(rest[0]);
        (header_len <= size).then_some(Arguments { subject, reply, header_len, size })
    }
}

fn number(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > 12 {
        return None;
    }
    digits
        .iter()
        .try_fold(0, |value, digit| digit.is_ascii_digit().then(|| value * 10 + usize::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] =
        b"INFO {\"a\":1} \r\nPING\r\nMSG foo 1 bar 5\r\nhello\r\nMSG foo 1 0\r\n\r\nPONG\r\nHMSG a 1 b 3 4\r\nxyz1\r\nHMSG a 1 2 2\r\nhh\r\n";

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
        assert_eq!(whole.len(), 7);
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
        for garbage in [
            &b"HELLO\r\n"[..],
            b"MSG a 1 x\r\n",
            b"MSG a 1 2\r\nabcd\r\n",
            b"MSG a b c d 1\r\n",
            b"HMSG a 1 5 4\r\nabcd\r\n",
        ] {
            let mut inbox = Inbox::default();
            inbox.fill(garbage).unwrap();
            assert!(inbox.next_event().is_err(), "{}", garbage.escape_ascii());
        }
    }
}
