//! The decoder of the client protocol: bytes in, [`Command`]s out.
//!
//! # The idea
//!
//! A worker hands over whatever one receive brought: many frames, or a piece of one. As long as a frame lies whole
//! in those bytes it is parsed where it lies: the verb by its first bytes, the end of the line by one `memchr`, the
//! arguments by a second. Nothing is copied and nothing is allocated; a [`Command`] borrows the input.
//!
//! Only a frame that is cut by the end of the input is carried over, in `carry`. The next call adds just the bytes
//! that complete it, parses it from there, and goes on in place. A payload too large for that (`SHARED_PAYLOAD_MIN`
//! and up) is collected once, into a buffer of its exact size that the deliveries then share by reference.
//!
//! # What is checked here
//!
//! Framing, argument counts, sizes, and the two limits that protect the server's memory: the control line and the
//! payload, both before the bytes they announce are kept. Memory per decoder is thus bounded by
//! `max_control_line + SHARED_PAYLOAD_MIN` or one payload of at most `max_payload`. Whether a subject is valid is not
//! this file's question.
//!
//! The reference is a byte-wise state machine that rejects a wrong verb at its first wrong byte, before any line
//! end; [`Verb::recognise`] keeps that (`GET / HTTP/1.1` is refused at `G`).
//!
//! Budget: 10 ns for `PUB subject 16`, measured by `benches/parser.rs`.

use bytes::{Bytes, BytesMut};
use memchr::{memchr, memchr2};

use crate::base::prefetch::prefetch;

/// Payloads of this many bytes and more are collected into a buffer of their own and shared by the deliveries,
/// rather than copied into each receiver's output.
///
/// The threshold follows from `benches/delivery.rs`: below it, copying costs less than a second `iovec` entry and a
/// reference count per delivery.
pub const SHARED_PAYLOAD_MIN: usize = 8 * 1024;

/// How far ahead of the frame at hand the input is asked for, in bytes.
const PREFETCH_AHEAD: usize = 256;

/// Longest accepted size argument. The reference refuses ten digits before it looks at the limit.
const SIZE_DIGITS_MAX: usize = 9;

/// Longest verb with its separator; what a line may have beside its arguments.
const VERB_LEN_MAX: usize = 8;

/// What the decoder has to know of the connection.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Longest argument part of a control line, in bytes, without the verb.
    pub control_line_max: usize,
    /// Largest payload, header included, in bytes.
    pub payload_max: usize,
    /// Whether the connection negotiated headers, so that `HPUB` is a verb.
    pub headers: bool,
}

/// One command of a client. Borrows from the input or from the decoder's carry-over.
#[derive(Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// `CONNECT {json}`
    Connect(&'a [u8]),
    /// `INFO {json}`, accepted and ignored from clients.
    Info(&'a [u8]),
    /// `PUB` or `HPUB`
    Publish(Publish<'a>),
    /// `SUB subject [queue] sid`
    Subscribe {
        /// The pattern as sent; not validated.
        subject: &'a [u8],
        /// The queue group.
        queue: Option<&'a [u8]>,
        /// The client's name of the subscription, echoed in every delivery.
        sid: &'a [u8],
    },
    /// `UNSUB sid [max]`
    Unsubscribe {
        /// The client's name of the subscription.
        sid: &'a [u8],
        /// Deliveries since `SUB` after which it ends; absent or not a number: now.
        max: Option<u64>,
    },
    /// `PING`
    Ping,
    /// `PONG`
    Pong,
    /// `+OK`
    Ok,
    /// `-ERR text`
    Err(&'a [u8]),
}

/// The arguments and the content of `PUB` and `HPUB`.
#[derive(Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// The control line's arguments as sent, for traces.
    pub args: &'a [u8],
    /// The subject as sent; not validated.
    pub subject: &'a [u8],
    /// The reply subject.
    pub reply: Option<&'a [u8]>,
    /// Length of the header block at the start of the payload; `None` for `PUB`.
    pub header_len: Option<usize>,
    /// Header block, payload and the closing CR LF.
    pub payload: Payload<'a>,
    /// Digits of the sizes as sent.
    pub widths: Widths,
}

impl<'a> Publish<'a> {
    /// The same message to another subject.
    pub fn with_subject<'b>(&'b self, subject: &'b [u8]) -> Publish<'b>
    where
        'a: 'b,
    {
        let payload = match &self.payload {
            Payload::Borrowed(bytes) => Payload::Borrowed(bytes),
            Payload::Shared(bytes) => Payload::Shared(bytes.clone()),
        };
        Publish { subject, payload, ..*self }
    }
}

/// How many digits the sizes of a `PUB` or `HPUB` had. The reference repeats them as they came, leading zeroes
/// included, so a delivery needs to know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Widths {
    /// Of the header size.
    pub header: u8,
    /// Of the total size.
    pub size: u8,
}

/// Content of a message, always with the closing CR LF behind it, so that a delivery is one copy.
#[derive(Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// In the read buffer or the carry-over: gone after this call.
    Borrowed(&'a [u8]),
    /// In a buffer of its own.
    Shared(Bytes),
}

impl Payload<'_> {
    /// Header block, payload, CR LF.
    pub fn with_crlf(&self) -> &[u8] {
        match self {
            Payload::Borrowed(bytes) => bytes,
            Payload::Shared(bytes) => bytes,
        }
    }

    /// Header block and payload.
    pub fn content(&self) -> &[u8] {
        let bytes = self.with_crlf();
        &bytes[..bytes.len() - 2]
    }
}

/// Why a connection cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not a verb of the protocol, or a payload without its CR LF. Answered with an `-ERR`.
    #[error("unknown protocol operation: {0:?}")]
    UnknownOperation(String),
    /// A known verb with wrong arguments. The reference closes without an answer, and so do we.
    #[error("{verb} with wrong arguments: {args:?}")]
    Arguments {
        /// The verb.
        verb: &'static str,
        /// The arguments as sent, cut.
        args: String,
    },
    /// The arguments exceed `max_control_line`.
    #[error("maximum control line exceeded: {len} vs {max}")]
    ControlLine {
        /// Bytes seen so far.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The announced payload exceeds `max_payload`.
    #[error("maximum payload exceeded: {size} vs {max}")]
    Payload {
        /// The announced size.
        size: usize,
        /// The limit.
        max: usize,
    },
}

/// Turns one connection's bytes into commands. See the file's header.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The start of a frame whose end has not arrived.
    carry: Vec<u8>,
    state: State,
    /// The payload being collected, when it is to be shared.
    large: BytesMut,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    /// Between frames; `carry` is empty.
    #[default]
    Start,
    /// `carry` holds part of a control line.
    Line,
    /// `carry` holds a control line and part of its payload.
    Payload(PublishHead),
    /// `carry` holds a control line, `large` part of its payload.
    Large(PublishHead),
    /// The frame in `carry` has been handed out; the next call drops it.
    Spent,
}

/// Where the parts of a `PUB` lie, counted from the start of its line.
#[derive(Debug, Clone, Copy)]
struct PublishHead {
    args: Span,
    subject: Span,
    reply: Span,
    header_len: Option<u32>,
    /// Header block and payload, without CR LF.
    size: u32,
    widths: Widths,
    /// Length of the control line with its line end.
    line_len: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    fn of(self, line: &[u8]) -> &[u8] {
        &line[self.start as usize..self.end as usize]
    }
}

impl PublishHead {
    /// Length of what follows the control line.
    fn body_len(&self) -> usize {
        self.size as usize + 2
    }

    fn command<'a>(&self, line: &'a [u8], payload: Payload<'a>) -> Result<Command<'a>, DecodeError> {
        if !payload.with_crlf().ends_with(b"\r\n") {
            return Err(unknown_operation(payload.with_crlf()));
        }
        let reply = self.reply.of(line);
        Ok(Command::Publish(Publish {
            args: self.args.of(line),
            subject: self.subject.of(line),
            reply: (!reply.is_empty()).then_some(reply),
            header_len: self.header_len.map(|len| len as usize),
            payload,
            widths: self.widths,
        }))
    }
}

impl Decoder {
    /// Takes the next command from the front of `input`, or `None` when `input` is used up and the rest of a frame is
    /// still to come. After an error the decoder must not be used again.
    #[inline(always)]
    pub fn next<'s, 'i: 's>(
        &'s mut self,
        input: &mut &'i [u8],
        limits: &Limits,
    ) -> Result<Option<Command<'s>>, DecodeError> {
        match self.state {
            State::Start => self.next_in_place(input, limits),
            _ => self.next_carried(input, limits),
        }
    }

    /// Frees what an idle connection should not hold. Call it when the input of a read is used up.
    pub fn release_spent(&mut self) {
        if matches!(self.state, State::Spent) {
            self.carry = Vec::new();
            self.state = State::Start;
        }
    }

    /// Bytes held for a frame whose end has not arrived.
    pub fn held_bytes(&self) -> usize {
        self.carry.capacity() + self.large.capacity()
    }

    #[inline(always)]
    fn next_in_place<'s, 'i: 's>(
        &'s mut self,
        input: &mut &'i [u8],
        limits: &Limits,
    ) -> Result<Option<Command<'s>>, DecodeError> {
        let bytes: &'i [u8] = input;
        if let Some((publish, frame_len)) = whole_publish(bytes, limits) {
            *input = &bytes[frame_len..];
            return Ok(Some(Command::Publish(publish)));
        }
        self.next_in_place_any(input, limits)
    }

    #[inline(never)]
    fn next_in_place_any<'s, 'i: 's>(
        &'s mut self,
        input: &mut &'i [u8],
        limits: &Limits,
    ) -> Result<Option<Command<'s>>, DecodeError> {
        let bytes: &'i [u8] = input;
        if bytes.is_empty() {
            return Ok(None);
        }
        let Some((verb, line_len)) = find_line(bytes, limits)? else {
            self.state = State::Line;
            return self.next_carried(input, limits);
        };
        let line = &bytes[..line_len];
        match parse_line(verb, line, limits)? {
            Line::Whole(command) => {
                *input = &bytes[line_len..];
                Ok(Some(command))
            }
            Line::Publish(head) => {
                let frame_len = line_len + head.body_len();
                if bytes.len() >= frame_len && head.body_len() < SHARED_PAYLOAD_MIN {
                    *input = &bytes[frame_len..];
                    return head.command(line, Payload::Borrowed(&bytes[line_len..frame_len])).map(Some);
                }
                *input = &bytes[line_len..];
                self.carry.extend_from_slice(line);
                self.start_body(head);
                self.next_carried(input, limits)
            }
        }
    }

    #[cold]
    fn start_body(&mut self, head: PublishHead) {
        if head.body_len() < SHARED_PAYLOAD_MIN {
            self.carry.reserve_exact(head.body_len());
            self.state = State::Payload(head);
        } else {
            self.large = BytesMut::with_capacity(head.body_len());
            self.state = State::Large(head);
        }
    }

    /// Drops what an unfinished line does not need: whatever follows `PING`, `PONG` and `+OK`, and all but one of the
    /// separators before the arguments. The reference sets no limit to either, and so they need no memory.
    fn drop_meaningless(&mut self) {
        let Ok(Some(verb)) = Verb::recognise(&self.carry) else { return };
        let rest = &self.carry[verb.len()..];
        if !verb.has_arguments() {
            self.carry.truncate(verb.len());
            return;
        }
        let separators = rest.iter().take_while(|byte| is_separator(**byte)).count();
        if separators > 1 {
            self.carry.drain(verb.len() + 1..verb.len() + separators);
        }
    }

    #[inline(never)]
    fn next_carried<'s, 'i: 's>(
        &'s mut self,
        input: &mut &'i [u8],
        limits: &Limits,
    ) -> Result<Option<Command<'s>>, DecodeError> {
        if let State::Spent = self.state {
            self.release_spent();
            return self.next_in_place(input, limits);
        }
        if let State::Line = self.state {
            let (verb, line_len) = loop {
                // Add bytes up to the line end, but never more than a control line may have.
                let room = (limits.control_line_max + VERB_LEN_MAX + 2).saturating_sub(self.carry.len());
                let window = &input[..input.len().min(room.max(1))];
                let taken = memchr(b'\n', window).map_or(window.len(), |at| at + 1);
                self.carry.extend_from_slice(&input[..taken]);
                *input = &input[taken..];
                if let Some(found) = find_line(&self.carry, limits)? {
                    break found;
                }
                self.drop_meaningless();
                if input.is_empty() {
                    return Ok(None);
                }
            };
            debug_assert_eq!(line_len, self.carry.len());
            // The borrow of `carry` by a command that is returned must not reach the arm that changes it.
            let head = match parse_line(verb, &self.carry, limits)? {
                Line::Whole(_) => None,
                Line::Publish(head) => Some(head),
            };
            let Some(head) = head else {
                self.state = State::Spent;
                return match parse_line(verb, &self.carry, limits)? {
                    Line::Whole(command) => Ok(Some(command)),
                    Line::Publish(_) => unreachable!("the same line parses the same way"),
                };
            };
            self.start_body(head);
        }
        match self.state {
            State::Payload(head) => {
                let frame_len = head.line_len as usize + head.body_len();
                let taken = input.len().min(frame_len - self.carry.len());
                self.carry.extend_from_slice(&input[..taken]);
                *input = &input[taken..];
                if self.carry.len() < frame_len {
                    return Ok(None);
                }
                self.state = State::Spent;
                let (line, body) = self.carry.split_at(head.line_len as usize);
                head.command(line, Payload::Borrowed(body)).map(Some)
            }
            State::Large(head) => {
                let taken = input.len().min(head.body_len() - self.large.len());
                self.large.extend_from_slice(&input[..taken]);
                *input = &input[taken..];
                if self.large.len() < head.body_len() {
                    return Ok(None);
                }
                self.state = State::Spent;
                let body = std::mem::take(&mut self.large).freeze();
                head.command(&self.carry, Payload::Shared(body)).map(Some)
            }
            State::Start | State::Line | State::Spent => unreachable!("handled above"),
        }
    }
}

/// The short cut for the frame that a loaded server sees most: a `PUB` in its plainest form (one separator between
/// arguments, CR LF) that lies whole in `bytes`. `None` says nothing about the frame but that it takes the long way,
/// which decides alone what is an error.
///
/// `memchr` finds a byte in kilobytes; here the next separator is a few bytes away, and its call costs more than the
/// search. Eight bytes are compared at once instead (`benches/parser.rs`).
#[inline(always)]
fn whole_publish<'i>(bytes: &'i [u8], limits: &Limits) -> Option<(Publish<'i>, usize)> {
    const PUB_SP: u32 = u32::from_le_bytes(*b"pub ");
    let verb = u32::from_le_bytes(*bytes.first_chunk::<4>()?) | 0x0020_2020;
    if verb != PUB_SP {
        return None;
    }
    let subject_end = token_end(bytes, 4)?;
    let second_end = token_end(bytes, subject_end + 1)?;
    if subject_end == 4 || bytes[subject_end] != b' ' {
        return None;
    }
    let (reply, size_start, size_end) = match bytes[second_end] {
        b'\r' => (None, subject_end + 1, second_end),
        b' ' if second_end > subject_end + 1 => {
            let size_end = token_end(bytes, second_end + 1)?;
            (Some(&bytes[subject_end + 1..second_end]), second_end + 1, size_end)
        }
        _ => return None,
    };
    if bytes.get(size_end..size_end + 2)? != b"\r\n" || size_end - 4 > limits.control_line_max {
        return None;
    }
    let size = parse_size(&bytes[size_start..size_end])? as usize;
    let body = size_end + 2;
    if size > limits.payload_max || size + 2 >= SHARED_PAYLOAD_MIN {
        return None;
    }
    let frame_len = body + size + 2;
    let payload = bytes.get(body..frame_len)?;
    if payload[size..] != *b"\r\n" {
        return None;
    }
    prefetch(bytes, frame_len + PREFETCH_AHEAD, frame_len);
    let publish = Publish {
        args: &bytes[4..size_end],
        subject: &bytes[4..subject_end],
        reply,
        header_len: None,
        payload: Payload::Borrowed(payload),
        widths: Widths { header: 0, size: (size_end - size_start) as u8 },
    };
    Some((publish, frame_len))
}

/// Position of the first byte from `at` on that is not above a space, and so ends a token. `None` if it is not among
/// the bytes that can be read eight at a time.
#[inline(always)]
fn token_end(bytes: &[u8], at: usize) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let mut at = at;
    loop {
        let word = u64::from_le_bytes(*bytes.get(at..)?.first_chunk::<8>()?);
        // The lowest set bit marks the first byte below 0x21; borrows can only add bits above it.
        let found = word.wrapping_sub(ONES * 0x21) & !word & HIGHS;
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Connect,
    Info,
    Pub,
    Hpub,
    Sub,
    Unsub,
    Ping,
    Pong,
    Ok,
    Err,
}

impl Verb {
    /// The verb at the start of `bytes`, with what the reference's state machine demands of the byte behind it;
    /// `None` when more bytes are needed to tell.
    fn recognise(bytes: &[u8]) -> Result<Option<Verb>, DecodeError> {
        let Some(first) = bytes.first() else { return Ok(None) };
        let second = bytes.get(1).map(u8::to_ascii_lowercase);
        let (verb, name): (Verb, &[u8]) = match (first.to_ascii_lowercase(), second) {
            (b'p', None) => return Ok(None),
            (b'p', Some(b'u')) => (Verb::Pub, b"pub"),
            (b'p', Some(b'i')) => (Verb::Ping, b"ping"),
            (b'p', Some(b'o')) => (Verb::Pong, b"pong"),
            (b'h', _) => (Verb::Hpub, b"hpub"),
            (b's', _) => (Verb::Sub, b"sub"),
            (b'u', _) => (Verb::Unsub, b"unsub"),
            (b'c', _) => (Verb::Connect, b"connect"),
            (b'i', _) => (Verb::Info, b"info"),
            (b'+', _) => (Verb::Ok, b"+ok"),
            (b'-', _) => (Verb::Err, b"-err"),
            _ => return Err(unknown_operation(bytes)),
        };
        let seen = bytes.len().min(name.len());
        if !bytes[..seen].eq_ignore_ascii_case(&name[..seen]) {
            return Err(unknown_operation(bytes));
        }
        if seen < name.len() {
            return Ok(None);
        }
        match (verb, bytes.get(name.len())) {
            // These three swallow everything up to the line end.
            (Verb::Ping | Verb::Pong | Verb::Ok, _) => Ok(Some(verb)),
            // So do these two, only that for them it is an argument.
            (Verb::Connect | Verb::Info, Some(_)) | (_, Some(b' ' | b'\t')) => Ok(Some(verb)),
            (_, None) => Ok(None),
            (_, Some(_)) => Err(unknown_operation(bytes)),
        }
    }

    fn len(self) -> usize {
        match self {
            Verb::Pub | Verb::Sub | Verb::Ok => 3,
            Verb::Hpub | Verb::Info | Verb::Ping | Verb::Pong | Verb::Err => 4,
            Verb::Unsub => 5,
            Verb::Connect => 7,
        }
    }

    fn has_arguments(self) -> bool {
        !matches!(self, Verb::Ping | Verb::Pong | Verb::Ok)
    }

    fn name(self) -> &'static str {
        match self {
            Verb::Connect => "CONNECT",
            Verb::Info => "INFO",
            Verb::Pub => "PUB",
            Verb::Hpub => "HPUB",
            Verb::Sub => "SUB",
            Verb::Unsub => "UNSUB",
            Verb::Ping => "PING",
            Verb::Pong => "PONG",
            Verb::Ok => "+OK",
            Verb::Err => "-ERR",
        }
    }
}

/// The verb and the length of the first line of `bytes` with its line end, or `None` when that has not arrived.
#[inline]
fn find_line(bytes: &[u8], limits: &Limits) -> Result<Option<(Verb, usize)>, DecodeError> {
    let Some(verb) = Verb::recognise(bytes)? else {
        // A verb cut in the middle; it has no line end yet, for that would have been a wrong byte.
        return Ok(None);
    };
    match memchr(b'\n', bytes) {
        Some(at) => Ok(Some((verb, at + 1))),
        // Swallowed up to the line end, however far that is: nothing of it is kept.
        None if !verb.has_arguments() => Ok(None),
        None => {
            let args = arguments(&bytes[verb.len()..]);
            // A last CR may belong to the line end.
            let len = args.len() - usize::from(args.ends_with(b"\r"));
            if len > limits.control_line_max {
                return Err(DecodeError::ControlLine { len, max: limits.control_line_max });
            }
            Ok(None)
        }
    }
}

/// The argument part of a line: without leading separators and without its line end.
#[inline]
fn arguments(rest: &[u8]) -> &[u8] {
    let mut args = rest;
    while let [b' ' | b'\t', tail @ ..] = args {
        args = tail;
    }
    if let [head @ .., b'\n'] = args {
        args = head;
        if let [head @ .., b'\r'] = args {
            args = head;
        }
    }
    args
}

enum Line<'a> {
    Whole(Command<'a>),
    Publish(PublishHead),
}

#[inline]
fn parse_line<'a>(verb: Verb, line: &'a [u8], limits: &Limits) -> Result<Line<'a>, DecodeError> {
    let command = match verb {
        Verb::Ping => Command::Ping,
        Verb::Pong => Command::Pong,
        Verb::Ok => Command::Ok,
        _ => {
            let args = arguments(&line[verb.len()..]);
            if args.len() > limits.control_line_max {
                return Err(DecodeError::ControlLine { len: args.len(), max: limits.control_line_max });
            }
            match verb {
                Verb::Pub => return parse_publish(verb, args, line, limits).map(Line::Publish),
                Verb::Hpub => return parse_publish(verb, args, line, limits).map(Line::Publish),
                Verb::Connect => Command::Connect(args),
                Verb::Info => Command::Info(args),
                Verb::Err => Command::Err(args),
                Verb::Sub => parse_subscribe(args)?,
                Verb::Unsub => parse_unsubscribe(args)?,
                Verb::Ping | Verb::Pong | Verb::Ok => unreachable!("handled above"),
            }
        }
    };
    Ok(Line::Whole(command))
}

/// `subject [reply] size` or `subject [reply] header-size size`.
#[inline]
fn parse_publish(verb: Verb, args: &[u8], line: &[u8], limits: &Limits) -> Result<PublishHead, DecodeError> {
    if verb == Verb::Hpub && !limits.headers {
        return Err(wrong_arguments(verb, args));
    }
    // `args` lies inside `line`, and a line is shorter than 4 GiB by the control line's limit.
    let args_start = (args.as_ptr() as usize - line.as_ptr() as usize) as u32;
    let mut tokens = [Span::default(); 5];
    let count = split(args, args_start, &mut tokens);
    let (reply, header, size) = match (verb, count) {
        (Verb::Pub, 2) => (Span::default(), None, tokens[1]),
        (Verb::Pub, 3) => (tokens[1], None, tokens[2]),
        (Verb::Hpub, 3) => (Span::default(), Some(tokens[1]), tokens[2]),
        (Verb::Hpub, 4) => (tokens[1], Some(tokens[2]), tokens[3]),
        _ => return Err(wrong_arguments(verb, args)),
    };
    // At most nine digits each, or the parse below fails.
    let widths = Widths { header: header.map_or(0, |header| header.len() as u8), size: size.len() as u8 };
    let size = parse_size(size.of(line)).ok_or_else(|| wrong_arguments(verb, args))?;
    let header_len = match header {
        None => None,
        Some(header) => match parse_size(header.of(line)) {
            // A block of no length is no header: the reference delivers such a message with MSG.
            Some(0) => None,
            Some(len) if len <= size => Some(len),
            _ => return Err(wrong_arguments(verb, args)),
        },
    };
    if size as usize > limits.payload_max {
        return Err(DecodeError::Payload { size: size as usize, max: limits.payload_max });
    }
    Ok(PublishHead {
        args: Span { start: args_start, end: args_start + args.len() as u32 },
        subject: tokens[0],
        reply,
        header_len,
        size,
        widths,
        line_len: line.len() as u32,
    })
}

fn parse_subscribe(args: &[u8]) -> Result<Command<'_>, DecodeError> {
    let mut tokens = words(args);
    match (tokens.next(), tokens.next(), tokens.next(), tokens.next()) {
        (Some(subject), Some(sid), None, _) => Ok(Command::Subscribe { subject, queue: None, sid }),
        (Some(subject), queue @ Some(_), Some(sid), None) => Ok(Command::Subscribe { subject, queue, sid }),
        _ => Err(wrong_arguments(Verb::Sub, args)),
    }
}

fn parse_unsubscribe(args: &[u8]) -> Result<Command<'_>, DecodeError> {
    let mut tokens = words(args);
    match (tokens.next(), tokens.next(), tokens.next()) {
        (Some(sid), None, _) => Ok(Command::Unsubscribe { sid, max: None }),
        (Some(sid), Some(max), None) => Ok(Command::Unsubscribe { sid, max: parse_size(max).map(u64::from) }),
        _ => Err(wrong_arguments(Verb::Unsub, args)),
    }
}

/// The arguments of `SUB` and `UNSUB`. Unlike in `PUB`, a CR inside the line separates them too.
fn words(args: &[u8]) -> impl Iterator<Item = &[u8]> {
    args.split(|byte| matches!(byte, b' ' | b'\t' | b'\r')).filter(|word| !word.is_empty())
}

/// Splits `args` at spaces and tabs. Returns the number of tokens, at most the length of `tokens`: callers leave room
/// for one more than they accept.
#[inline]
fn split(args: &[u8], offset: u32, tokens: &mut [Span]) -> usize {
    let mut count = 0;
    let mut at = 0;
    while count < tokens.len() {
        while at < args.len() && is_separator(args[at]) {
            at += 1;
        }
        if at == args.len() {
            break;
        }
        // The last token, a size, is a few digits: the call would cost more than it saves only there.
        let end = memchr2(b' ', b'\t', &args[at..]).map_or(args.len(), |len| at + len);
        tokens[count] = Span { start: offset + at as u32, end: offset + end as u32 };
        count += 1;
        at = end;
    }
    count
}

fn is_separator(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// One to nine decimal digits.
#[inline]
fn parse_size(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || digits.len() > SIZE_DIGITS_MAX {
        return None;
    }
    let mut value = 0u32;
    for &digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + u32::from(digit);
    }
    Some(value)
}

/// How much of wrong input an error quotes, in bytes.
const QUOTED_MAX: usize = 64;

#[cold]
fn unknown_operation(bytes: &[u8]) -> DecodeError {
    DecodeError::UnknownOperation(quoted(bytes))
}

#[cold]
fn wrong_arguments(verb: Verb, args: &[u8]) -> DecodeError {
    DecodeError::Arguments { verb: verb.name(), args: quoted(args) }
}

fn quoted(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(QUOTED_MAX)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { control_line_max: 4096, payload_max: 1 << 20, headers: true };

    /// Everything that a decoder says about `pieces`, as text that can be compared.
    fn transcript(pieces: &[&[u8]], limits: &Limits) -> Vec<String> {
        let mut decoder = Decoder::default();
        let mut lines = Vec::new();
        for piece in pieces {
            let mut input = *piece;
            loop {
                match decoder.next(&mut input, limits) {
                    Ok(Some(Command::Publish(publish))) => lines.push(format!(
                        "pub {:?} {:?} {:?} {:?}",
                        publish.subject,
                        publish.reply,
                        publish.header_len,
                        publish.payload.with_crlf()
                    )),
                    Ok(Some(command)) => lines.push(format!("{command:?}")),
                    Ok(None) => break,
                    Err(error) => {
                        // The quoted text depends on how much had arrived; its kind does not.
                        lines.push(format!("{:?}", std::mem::discriminant(&error)));
                        return lines;
                    }
                }
            }
            assert!(input.is_empty(), "the decoder takes all of its input");
        }
        lines
    }

    fn one(text: &str) -> Vec<String> {
        transcript(&[text.as_bytes()], &LIMITS)
    }

    #[test]
    fn every_split_of_a_dialogue_gives_the_same_commands() {
        let large = format!("PUB big 9000\r\n{}\r\n", "x".repeat(9000));
        let dialogue = format!(
            "CONNECT {{\"verbose\":false}}\r\nPING\r\nsub foo 1\r\nSUB foo.* grp 2\nPUB foo 5\r\nhello\r\n\
             PUB foo bar 0\r\n\r\nHPUB a b 12 14\r\nNATS/1.0\r\n\r\nhi\r\nUNSUB 1\r\nUNSUB 2 10\r\n{large}\
             PONG\r\n+OK\r\n-ERR 'x'\r\nINFO {{}}\r\nPING\r\n"
        );
        let bytes = dialogue.as_bytes();
        let whole = transcript(&[bytes], &LIMITS);
        assert_eq!(whole.len(), 15);
        for at in 0..=bytes.len() {
            assert_eq!(transcript(&[&bytes[..at], &bytes[at..]], &LIMITS), whole, "split at {at}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(transcript(&single, &LIMITS), whole);
    }

    #[test]
    fn verbs_come_in_any_case_and_with_any_separators() {
        assert_eq!(one("pUb\t foo \t 2 \r\nhi\r\n"), one("PUB foo 2\r\nhi\r\n"));
        assert_eq!(one("PING with text\r\n"), one("ping\n"));
    }

    #[test]
    fn a_wrong_verb_is_refused_at_its_first_wrong_byte() {
        for text in ["G", "PUX", "SUBx", "\r\n", "M", "RS+", "\0"] {
            let result = Decoder::default().next(&mut text.as_bytes(), &LIMITS).map(|_| ());
            assert!(matches!(result, Err(DecodeError::UnknownOperation(_))), "{text:?}: {result:?}");
        }
        assert!(matches!(Decoder::default().next(&mut &b"CONNEC"[..], &LIMITS), Ok(None)));
    }

    #[test]
    fn wrong_arguments_are_told_from_unknown_verbs() {
        for text in [
            "PUB\t\r\n",
            "PUB foo\r\n",
            "PUB foo a b 1\r\n",
            "PUB foo -1\r\n",
            "PUB foo +1\r\n",
            "PUB foo 1234567890\r\n",
            "HPUB foo 5 4\r\n",
            "HPUB foo 5\r\n",
            "SUB foo\r\n",
            "SUB a b c d\r\n",
            "UNSUB 1 2 3\r\n",
        ] {
            let result = Decoder::default().next(&mut text.as_bytes(), &LIMITS).map(|_| ());
            assert!(matches!(result, Err(DecodeError::Arguments { .. })), "{text:?}: {result:?}");
        }
    }

    #[test]
    fn a_payload_must_end_in_cr_lf() {
        let result = Decoder::default().next(&mut &b"PUB foo 2\r\nhixx"[..], &LIMITS).map(|_| ());
        assert!(matches!(result, Err(DecodeError::UnknownOperation(_))));
    }

    #[test]
    fn the_limits_hold_before_the_bytes_arrive() {
        let limits = Limits { control_line_max: 32, payload_max: 8, headers: true };
        let result = Decoder::default().next(&mut &b"PUB foo 9\r\n"[..], &limits).map(|_| ());
        assert_eq!(result, Err(DecodeError::Payload { size: 9, max: 8 }));
        let long = format!("SUB {} 1", "x".repeat(40));
        let result = Decoder::default().next(&mut long.as_bytes(), &limits).map(|_| ());
        assert!(matches!(result, Err(DecodeError::ControlLine { .. })));
    }

    #[test]
    fn a_line_cut_at_its_longest_is_the_same_line() {
        let limits = Limits { control_line_max: 32, payload_max: 8, headers: true };
        let mut lines =
            vec![format!("CONNECT {}\r\n", "x".repeat(32)), format!("PING {}\r\n", "x".repeat(100))];
        lines.push(format!("PUB {} a 1\r\nx\r\n", " ".repeat(100)));
        for line in lines {
            let line = line.as_bytes();
            let whole = transcript(&[line], &limits);
            assert_eq!(whole.len(), 1);
            for at in 0..=line.len() {
                assert_eq!(transcript(&[&line[..at], &line[at..]], &limits), whole, "cut at {at}");
            }
        }
    }

    #[test]
    fn what_means_nothing_takes_no_memory() {
        let limits = Limits { control_line_max: 32, payload_max: 8, headers: true };
        for (start, more) in [(&b"PUB"[..], &b"    \t   "[..]), (b"PING", b"and more")] {
            let mut decoder = Decoder::default();
            assert_eq!(decoder.next(&mut &*start, &limits), Ok(None));
            for _ in 0..1000 {
                assert_eq!(decoder.next(&mut &*more, &limits), Ok(None));
            }
            assert!(decoder.held_bytes() <= 128, "{}", decoder.held_bytes());
        }
    }

    #[test]
    fn hpub_without_negotiated_headers_is_an_argument_error() {
        let limits = Limits { headers: false, ..LIMITS };
        let result = Decoder::default().next(&mut &b"HPUB a 2 4\r\n"[..], &limits).map(|_| ());
        assert!(matches!(result, Err(DecodeError::Arguments { .. })));
    }

    #[test]
    fn an_idle_decoder_holds_no_memory() {
        let mut decoder = Decoder::default();
        for piece in [&b"PUB foo 2\r\nh"[..], b"i\r\n"] {
            let mut input = piece;
            while let Ok(Some(_)) = decoder.next(&mut input, &LIMITS) {}
        }
        decoder.release_spent();
        assert_eq!(decoder.held_bytes(), 0);
    }

    proptest! {
        #[test]
        fn random_bytes_split_anywhere_mean_the_same(
            bytes in proptest::collection::vec(
                proptest::sample::select(b"PUBSHCONIG+-ER {}\t\r\n0123foo.*>x\0".to_vec()), 0..200),
            cuts in proptest::collection::vec(0usize..200, 0..5),
        ) {
            let limits = Limits { control_line_max: 64, payload_max: 64, headers: true };
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut start = 0;
            for cut in cuts {
                pieces.push(&bytes[start..cut]);
                start = cut;
            }
            pieces.push(&bytes[start..]);
            prop_assert_eq!(transcript(&pieces, &limits), transcript(&[&bytes], &limits));
        }
    }
}
