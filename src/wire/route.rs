//! The protocol between the servers of a cluster: bytes to commands, and what goes back.
//!
//! Lines as in the client protocol, with verbs of their own: `RS+` and `RS-` for interest, `RMSG` and `HMSG` for messages. A
//! message names its account, and behind `+ reply` or `|` the queue groups of which the receiver picks one member each. A frame
//! that lies whole in a read is parsed where it lies; only one that is cut is carried over, a large payload into a buffer of its own that
//! deliveries share. The reference's `route.go` and `parser.go` are the rule; what leafnodes say over routes (`LS+`, `LMSG`) is said
//! only to servers that ask for it, and this one does not.
//!
//! Memory per decoder is bounded by the two limits: a control line of [`CONTROL_LINE_FACTOR`] times `max_control_line`, and one payload.

use bytes::{Bytes, BytesMut};
use memchr::memchr;

use super::command::SHARED_PAYLOAD_MIN;
use super::frame::write_size;
use super::{Payload, Publish, Widths};

/// How much longer control lines may be than those of clients, as in the reference: they carry the names of queue groups.
pub const CONTROL_LINE_FACTOR: usize = 16;

/// Longest accepted size argument.
const SIZE_DIGITS_MAX: usize = 9;

/// What the decoder has to know.
#[derive(Debug, Clone, Copy)]
pub struct RouteLimits {
    /// Longest control line, in bytes.
    pub control_line_max: usize,
    /// Largest payload, header included, in bytes.
    pub payload_max: usize,
}

/// One command of another server.
#[derive(Debug, PartialEq, Eq)]
pub enum RouteCommand<'a> {
    /// `CONNECT {json}`
    Connect(&'a [u8]),
    /// `INFO {json}`
    Info(&'a [u8]),
    /// `RS+ account subject [queue weight]`
    Subscribe {
        /// The account's name.
        account: &'a [u8],
        /// The pattern as sent; not validated.
        subject: &'a [u8],
        /// The queue group, and how many members it has there.
        queue: Option<(&'a [u8], u32)>,
    },
    /// `RS- account subject [queue]`
    Unsubscribe {
        /// The account's name.
        account: &'a [u8],
        /// The pattern.
        subject: &'a [u8],
        /// The queue group.
        queue: Option<&'a [u8]>,
    },
    /// `RMSG` or `HMSG`
    Message {
        /// The account's name.
        account: &'a [u8],
        /// The names of queue groups, separated by spaces.
        queues: &'a [u8],
        /// The message.
        publish: Publish<'a>,
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

/// Why a route cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteDecodeError {
    /// Not a verb of the protocol, or a payload without its CR LF.
    #[error("unknown protocol operation: {0:?}")]
    UnknownOperation(String),
    /// A known verb with wrong arguments.
    #[error("{verb} with wrong arguments: {args:?}")]
    Arguments {
        /// The verb.
        verb: &'static str,
        /// The arguments as sent, cut.
        args: String,
    },
    /// A line that is too long.
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

/// Turns the bytes of one route into commands. See the file's header.
#[derive(Debug, Default)]
pub struct RouteDecoder {
    /// The start of a frame whose end has not arrived.
    carry: Vec<u8>,
    state: State,
    /// The payload being collected, when it is to be shared.
    large: BytesMut,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// `carry` is empty, or holds part of a line.
    #[default]
    Line,
    /// `carry` holds a control line and part of its payload: so many bytes behind the line.
    Payload { line_len: usize, body_len: usize },
    /// `carry` holds a control line, `large` part of its payload.
    Large { body_len: usize },
    /// The frame in `carry` has been handed out.
    Spent,
}

/// A line taken apart.
enum Line<'a> {
    Whole(RouteCommand<'a>),
    /// Its content follows.
    Message(Head<'a>),
}

struct Head<'a> {
    args: &'a [u8],
    account: &'a [u8],
    subject: &'a [u8],
    reply: Option<&'a [u8]>,
    queues: &'a [u8],
    header_len: Option<usize>,
    size: usize,
}

impl<'a> Head<'a> {
    fn body_len(&self) -> usize {
        self.size + 2
    }

    fn command(self, payload: Payload<'a>) -> Result<RouteCommand<'a>, RouteDecodeError> {
        if !payload.with_crlf().ends_with(b"\r\n") {
            return Err(unknown_operation(payload.with_crlf()));
        }
        let Head { args, account, subject, reply, queues, header_len, .. } = self;
        let publish = Publish { args, subject, reply, header_len, payload, widths: Widths::default() };
        Ok(RouteCommand::Message { account, queues, publish })
    }
}

impl RouteDecoder {
    /// Takes the next command from the front of `input`, or `None` when `input` is used up and the rest of a frame is
    /// still to come. After an error the decoder must not be used again.
    pub fn next<'s, 'i: 's>(
        &'s mut self,
        input: &mut &'i [u8],
        limits: &RouteLimits,
    ) -> Result<Option<RouteCommand<'s>>, RouteDecodeError> {
        if self.state == State::Spent {
            self.release_spent();
        }
        if self.state == State::Line && self.carry.is_empty() {
            let bytes: &'i [u8] = input;
            let Some(line_len) = memchr(b'\n', bytes).map(|at| at + 1) else {
                check_line(bytes.len(), limits)?;
                check_verb(bytes)?;
                self.carry.extend_from_slice(bytes);
                *input = &[];
                return Ok(None);
            };
            check_line(line_len, limits)?;
            let head = match parse_line(&bytes[..line_len], limits)? {
                Line::Whole(command) => {
                    *input = &bytes[line_len..];
                    return Ok(Some(command));
                }
                Line::Message(head) => head,
            };
            let body_len = head.body_len();
            if body_len < SHARED_PAYLOAD_MIN && bytes.len() >= line_len + body_len {
                *input = &bytes[line_len + body_len..];
                return head.command(Payload::Borrowed(&bytes[line_len..line_len + body_len])).map(Some);
            }
            *input = &bytes[line_len..];
            self.carry.extend_from_slice(&bytes[..line_len]);
            self.start_body(line_len, body_len);
        }
        if self.state == State::Line {
            let taken = memchr(b'\n', input).map_or(input.len(), |at| at + 1);
            check_line(self.carry.len() + taken, limits)?;
            self.carry.extend_from_slice(&input[..taken]);
            *input = &input[taken..];
            if self.carry.last() != Some(&b'\n') {
                check_verb(&self.carry)?;
                return Ok(None);
            }
            let body_len = match parse_line(&self.carry, limits)? {
                Line::Whole(_) => None,
                Line::Message(head) => Some(head.body_len()),
            };
            let Some(body_len) = body_len else {
                // The borrow of `carry` by a command that is returned must not reach what changes it: parsed once more.
                self.state = State::Spent;
                return match parse_line(&self.carry, limits)? {
                    Line::Whole(command) => Ok(Some(command)),
                    Line::Message(_) => unreachable!("the same line parses the same way"),
                };
            };
            self.start_body(self.carry.len(), body_len);
        }
        match self.state {
            State::Payload { line_len, body_len } => {
                let taken = input.len().min(line_len + body_len - self.carry.len());
                self.carry.extend_from_slice(&input[..taken]);
                *input = &input[taken..];
                if self.carry.len() < line_len + body_len {
                    return Ok(None);
                }
                self.state = State::Spent;
                let (line, body) = self.carry.split_at(line_len);
                message(line, Payload::Borrowed(body), limits)
            }
            State::Large { body_len } => {
                let taken = input.len().min(body_len - self.large.len());
                self.large.extend_from_slice(&input[..taken]);
                *input = &input[taken..];
                if self.large.len() < body_len {
                    return Ok(None);
                }
                self.state = State::Spent;
                let body: Bytes = std::mem::take(&mut self.large).freeze();
                message(&self.carry, Payload::Shared(body), limits)
            }
            State::Line | State::Spent => unreachable!("handled above"),
        }
    }

    /// Frees what an idle route should not hold. Call it when the input of a read is used up.
    pub fn release_spent(&mut self) {
        if self.state == State::Spent {
            self.carry.clear();
            self.carry.shrink_to(SHARED_PAYLOAD_MIN);
            self.state = State::Line;
        }
    }

    fn start_body(&mut self, line_len: usize, body_len: usize) {
        if body_len < SHARED_PAYLOAD_MIN {
            self.carry.reserve(body_len);
            self.state = State::Payload { line_len, body_len };
        } else {
            self.large = BytesMut::with_capacity(body_len);
            self.state = State::Large { body_len };
        }
    }
}

fn message<'a>(
    line: &'a [u8],
    payload: Payload<'a>,
    limits: &RouteLimits,
) -> Result<Option<RouteCommand<'a>>, RouteDecodeError> {
    match parse_line(line, limits)? {
        Line::Message(head) => head.command(payload).map(Some),
        Line::Whole(_) => unreachable!("the same line parses the same way"),
    }
}

fn check_line(len: usize, limits: &RouteLimits) -> Result<(), RouteDecodeError> {
    let max = limits.control_line_max;
    if len > max { Err(RouteDecodeError::ControlLine { len, max }) } else { Ok(()) }
}

const VERBS: [&str; 9] = ["CONNECT", "INFO", "RS+", "RS-", "RMSG", "HMSG", "PING", "PONG", "+OK"];

/// Refuses the start of a line that no verb begins with, so that a stranger is told before the end of a line.
fn check_verb(start: &[u8]) -> Result<(), RouteDecodeError> {
    let verbs = VERBS.into_iter().chain(["-ERR"]);
    let matches = |verb: &str| {
        let len = verb.len().min(start.len());
        verb.as_bytes()[..len].eq_ignore_ascii_case(&start[..len])
    };
    if verbs.into_iter().any(matches) { Ok(()) } else { Err(unknown_operation(start)) }
}

fn unknown_operation(bytes: &[u8]) -> RouteDecodeError {
    RouteDecodeError::UnknownOperation(shown(bytes))
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(32)]).into_owned()
}

fn parse_line<'a>(line: &'a [u8], limits: &RouteLimits) -> Result<Line<'a>, RouteDecodeError> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let verb_len = line.iter().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(line.len());
    let (verb, args) = line.split_at(verb_len);
    let is = |known: &str| verb.eq_ignore_ascii_case(known.as_bytes());
    if is("RMSG") {
        return parse_message("RMSG", args, false, limits).map(Line::Message);
    }
    if is("HMSG") {
        return parse_message("HMSG", args, true, limits).map(Line::Message);
    }
    let wrong = |verb| RouteDecodeError::Arguments { verb, args: shown(args) };
    let command = if is("RS+") {
        let mut tokens = tokens(args);
        let (account, subject) = (tokens.next(), tokens.next());
        let (queue, weight, surplus) = (tokens.next(), tokens.next(), tokens.next());
        match (account, subject, queue, weight, surplus) {
            (Some(account), Some(subject), None, None, None) => {
                RouteCommand::Subscribe { account, subject, queue: None }
            }
            (Some(account), Some(subject), Some(queue), Some(weight), None) => {
                let weight = parse_size(weight).ok_or_else(|| wrong("RS+"))? as u32;
                RouteCommand::Subscribe { account, subject, queue: Some((queue, weight)) }
            }
            _ => return Err(wrong("RS+")),
        }
    } else if is("RS-") {
        let mut tokens = tokens(args);
        match (tokens.next(), tokens.next(), tokens.next(), tokens.next()) {
            (Some(account), Some(subject), queue, None) => {
                RouteCommand::Unsubscribe { account, subject, queue }
            }
            _ => return Err(wrong("RS-")),
        }
    } else if is("PING") {
        RouteCommand::Ping
    } else if is("PONG") {
        RouteCommand::Pong
    } else if is("INFO") {
        RouteCommand::Info(args.trim_ascii())
    } else if is("CONNECT") {
        RouteCommand::Connect(args.trim_ascii())
    } else if is("+OK") {
        RouteCommand::Ok
    } else if is("-ERR") {
        RouteCommand::Err(args.trim_ascii())
    } else {
        return Err(unknown_operation(line));
    };
    Ok(Line::Whole(command))
}

fn parse_message<'a>(
    verb: &'static str,
    args: &'a [u8],
    has_header: bool,
    limits: &RouteLimits,
) -> Result<Head<'a>, RouteDecodeError> {
    let wrong = || RouteDecodeError::Arguments { verb, args: shown(args) };
    let (rest, size) = last_token(args).ok_or_else(wrong)?;
    let (rest, header) = if has_header {
        let (rest, header) = last_token(rest).ok_or_else(wrong)?;
        (rest, Some(header))
    } else {
        (rest, None)
    };
    let (account, rest) = first_token(rest).ok_or_else(wrong)?;
    let (subject, rest) = first_token(rest).ok_or_else(wrong)?;
    let (reply, queues) = match first_token(rest) {
        None => (None, &[][..]),
        Some((b"+", rest)) => {
            let (reply, queues) = first_token(rest).ok_or_else(wrong)?;
            (Some(reply), queues.trim_ascii())
        }
        Some((b"|", queues)) => (None, queues.trim_ascii()),
        Some((reply, rest)) if rest.trim_ascii().is_empty() => (Some(reply), &[][..]),
        Some(_) => return Err(wrong()),
    };
    let size = parse_size(size).ok_or_else(wrong)?;
    let header_len = header.map(|header| parse_size(header).ok_or_else(wrong)).transpose()?;
    if header_len.is_some_and(|header_len| header_len > size) {
        return Err(wrong());
    }
    if size > limits.payload_max {
        return Err(RouteDecodeError::Payload { size, max: limits.payload_max });
    }
    Ok(Head { args: args.trim_ascii(), account, subject, reply, queues, header_len, size })
}

fn is_space(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// The words of a line's arguments.
pub fn tokens(args: &[u8]) -> impl Iterator<Item = &[u8]> {
    args.split(is_space).filter(|token| !token.is_empty())
}

fn first_token(args: &[u8]) -> Option<(&[u8], &[u8])> {
    let start = args.iter().position(|byte| !is_space(byte))?;
    let args = &args[start..];
    let end = args.iter().position(is_space).unwrap_or(args.len());
    Some(args.split_at(end))
}

fn last_token(args: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = args.iter().rposition(|byte| !is_space(byte))? + 1;
    let start = args[..end].iter().rposition(is_space).map_or(0, |at| at + 1);
    Some((&args[..start], &args[start..end]))
}

fn parse_size(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > SIZE_DIGITS_MAX {
        return None;
    }
    digits
        .iter()
        .try_fold(0usize, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + usize::from(byte - b'0')))
}

/// The control line of a message to another server.
#[derive(Debug, Clone, Copy)]
pub struct RouteDelivery<'a> {
    /// The account's name.
    pub account: &'a [u8],
    /// The subject.
    pub subject: &'a [u8],
    /// The reply subject, and what follows it (see `stream` deliveries: `@` and the subject that is shown).
    pub reply: Option<(&'a [u8], &'a [u8])>,
    /// The names of queue groups, separated by spaces.
    pub queues: &'a [u8],
    /// Length of the header block; `None` if there is none.
    pub header_len: Option<usize>,
    /// Length of header block and payload.
    pub size: usize,
}

impl RouteDelivery<'_> {
    /// At most so many bytes.
    pub fn head_len_max(&self) -> usize {
        let reply = self.reply.map_or(0, |(reply, shown)| reply.len() + shown.len() + 1);
        self.account.len() + self.subject.len() + reply + self.queues.len() + 64
    }

    /// Appends the line.
    pub fn write_head(&self, line: &mut Vec<u8>) {
        line.extend_from_slice(if self.header_len.is_some() { b"HMSG " } else { b"RMSG " });
        line.extend_from_slice(self.account);
        line.push(b' ');
        line.extend_from_slice(self.subject);
        line.push(b' ');
        if !self.queues.is_empty() {
            line.extend_from_slice(if self.reply.is_some() { b"+ " } else { b"| " });
        }
        if let Some((reply, shown)) = self.reply {
            line.extend_from_slice(reply);
            if !shown.is_empty() {
                line.push(b'@');
                line.extend_from_slice(shown);
            }
            line.push(b' ');
        }
        if !self.queues.is_empty() {
            line.extend_from_slice(self.queues);
            line.push(b' ');
        }
        if let Some(header_len) = self.header_len {
            write_number(line, header_len);
            line.push(b' ');
        }
        write_number(line, self.size);
        line.extend_from_slice(b"\r\n");
    }
}

/// Appends `RS+` or, where nobody is left, `RS-`.
pub fn write_interest(line: &mut Vec<u8>, account: &[u8], subject: &[u8], queue: Option<&[u8]>, count: u32) {
    line.extend_from_slice(if count > 0 { b"RS+ " } else { b"RS- " });
    line.extend_from_slice(account);
    line.push(b' ');
    line.extend_from_slice(subject);
    if let Some(queue) = queue {
        line.push(b' ');
        line.extend_from_slice(queue);
        if count > 0 {
            line.push(b' ');
            write_number(line, count as usize);
        }
    }
    line.extend_from_slice(b"\r\n");
}

fn write_number(line: &mut Vec<u8>, number: usize) {
    write_size(line, number, 0);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: RouteLimits = RouteLimits { control_line_max: 4096, payload_max: 100_000 };

    /// What comes out of `bytes`, handed over in pieces that end at `cuts`.
    fn commands(bytes: &[u8], cuts: &[usize]) -> Result<Vec<String>, RouteDecodeError> {
        let mut decoder = RouteDecoder::default();
        let mut seen = Vec::new();
        let mut from = 0;
        for to in cuts.iter().copied().chain([bytes.len()]) {
            let mut input = &bytes[from..to.clamp(from, bytes.len())];
            from = to.clamp(from, bytes.len());
            while let Some(command) = decoder.next(&mut input, &LIMITS)? {
                seen.push(match command {
                    // Whether it was shared depends on nothing that anybody sees.
                    RouteCommand::Message { account, queues, publish } => format!(
                        "{} {} {:?} {} {:?} {:?}",
                        account.escape_ascii(),
                        publish.subject.escape_ascii(),
                        publish.reply.map(|reply| reply.escape_ascii().to_string()),
                        queues.escape_ascii(),
                        publish.header_len,
                        publish.payload.content().len(),
                    ),
                    other => format!("{other:?}"),
                });
            }
            assert!(input.is_empty());
        }
        Ok(seen)
    }

    const DIALOGUE: &[u8] = b"INFO {\"a\":1} \r\nCONNECT {}\r\nRS+ $G foo\r\nRS+ $G foo q 3\r\nRS- $G foo\r\n\
        RS- $G foo q\r\nRMSG $G foo 2\r\nhi\r\nRMSG $G foo reply 2\r\nhi\r\nRMSG $G foo + reply q r 2\r\nhi\r\n\
        RMSG $G foo | q 2\r\nhi\r\nHMSG A foo rr 12 14\r\nNATS/1.0\r\n\r\nhi\r\nHMSG A foo + rr q 12 12\r\nNATS/1.0\r\n\r\n\r\n\
        PING\r\nPONG\r\n-ERR 'no'\r\n+OK\r\n";

    #[test]
    fn every_form_of_every_line_is_understood() {
        let seen = commands(DIALOGUE, &[]).unwrap();
        assert_eq!(seen.len(), 16);
        assert_eq!(seen[6], "$G foo None  None 2");
        assert_eq!(seen[7], "$G foo Some(\"reply\")  None 2");
        assert_eq!(seen[8], "$G foo Some(\"reply\") q r None 2");
        assert_eq!(seen[9], "$G foo None q None 2");
        assert_eq!(seen[10], "A foo Some(\"rr\")  Some(12) 14");
        assert_eq!(seen[11], "A foo Some(\"rr\") q Some(12) 12");
    }

    #[test]
    fn what_is_written_is_read_as_the_same() {
        for (reply, queues, header_len) in [
            (None, &b""[..], None),
            (Some((&b"r"[..], &b""[..])), b"", None),
            (Some((b"r", b"")), b"q1 q2", Some(12)),
            (None, b"q1", None),
        ] {
            let delivery =
                RouteDelivery { account: b"A", subject: b"a.b", reply, queues, header_len, size: 14 };
            let mut line = Vec::new();
            delivery.write_head(&mut line);
            assert!(line.len() <= delivery.head_len_max());
            line.extend_from_slice(b"NATS/1.0\r\n\r\nhi\r\n");
            let reply = reply.map(|(reply, _)| reply.escape_ascii().to_string());
            let expected = format!("A a.b {reply:?} {} {header_len:?} 14", queues.escape_ascii());
            assert_eq!(commands(&line, &[]).unwrap(), [expected]);
        }
        let mut lines = Vec::new();
        write_interest(&mut lines, b"$G", b"foo", Some(b"q"), 0);
        write_interest(&mut lines, b"$G", b"foo", Some(b"q"), 12);
        write_interest(&mut lines, b"$G", b"foo", None, 1);
        assert_eq!(lines, b"RS- $G foo q\r\nRS+ $G foo q 12\r\nRS+ $G foo\r\n");
    }

    #[test]
    fn what_is_wrong_is_refused_as_soon_as_it_can_be() {
        for bad in [
            "GET / HTTP/1.1\r\n",
            "G",
            "SUB foo 1\r\n",
            "RS+ $G\r\n",
            "RS+ $G foo q\r\n",
            "RS+ $G foo q x\r\n",
            "RS- $G\r\n",
            "RMSG $G foo\r\n",
            "RMSG $G foo a b 2\r\nhi\r\n",
            "RMSG $G foo 100001\r\n",
            "RMSG $G foo 2\r\nhiXX",
            "HMSG $G foo 5 2\r\n",
            "HMSG $G foo 2\r\nhi\r\n",
            "LMSG C $G foo 0 2\r\nhi\r\n",
        ] {
            assert!(commands(bad.as_bytes(), &[]).is_err(), "{bad}");
        }
        let long = format!("RS+ $G {}", "a".repeat(5000));
        assert!(matches!(commands(long.as_bytes(), &[]), Err(RouteDecodeError::ControlLine { .. })));
    }

    proptest! {
        #[test]
        fn cuts_anywhere_change_nothing(mut cuts in proptest::collection::vec(0usize..40_000, 0..20)) {
            cuts.sort_unstable();
            let mut bytes = DIALOGUE.to_vec();
            bytes.extend_from_slice(format!("RMSG $G large 20000\r\n{}\r\n", "x".repeat(20_000)).as_bytes());
            bytes.extend_from_slice(DIALOGUE);
            prop_assert_eq!(commands(&bytes, &cuts).unwrap(), commands(&bytes, &[]).unwrap());
        }
    }
}
