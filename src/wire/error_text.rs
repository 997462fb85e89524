//! Every `-ERR` text that a client can see, in one table. Clients match on the wording.

use std::fmt::Write as _;

/// What the server tells a client that did something wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorText {
    /// Not a verb of the protocol.
    UnknownProtocolOperation,
    /// Wrong or missing credentials.
    AuthorizationViolation,
    /// No `CONNECT` in time.
    AuthenticationTimeout,
    /// The server's connection limit.
    MaximumConnections,
    /// The connection limit of an account.
    MaximumAccountConnections,
    /// More connections a second than TLS is to be begun with.
    ConnectionThrottling,
    /// The connection's subscription limit.
    MaximumSubscriptions,
    /// A payload larger than `max_payload`.
    MaximumPayload,
    /// A control line longer than `max_control_line`.
    MaximumControlLine,
    /// Pedantic only; the message is processed all the same.
    InvalidPublishSubject,
    /// A `SUB` with an invalid subject.
    InvalidSubject,
    /// `CONNECT` with a `protocol` other than 0 and 1.
    InvalidClientProtocol,
    /// `no_responders` without `headers`.
    NoRespondersRequiresHeaders,
    /// `PING`s stayed unanswered.
    StaleConnection,
    /// A publish that is not permitted.
    PublishPermission(Vec<u8>),
    /// A publish whose reply subject is reserved.
    ReplyPermission(Vec<u8>),
    /// A subscription that is not permitted.
    SubscribePermission(Vec<u8>),
    /// A subscription of a queue group that is not permitted, or the system's own.
    QueuePermission(Vec<u8>, Vec<u8>),
    /// A subscription that was permitted before a reload.
    RemovedSubscription {
        /// What was subscribed to.
        subject: Vec<u8>,
        /// By which group.
        queue: Option<Vec<u8>>,
        /// The client's name for it.
        sid: Vec<u8>,
    },
    /// A subscription with more tokens than `max_subscription_tokens`.
    TooManyTokens(Vec<u8>),
}

impl ErrorText {
    /// The text between the quotes.
    pub fn text(&self) -> String {
        let fixed = match self {
            ErrorText::UnknownProtocolOperation => "Unknown Protocol Operation",
            ErrorText::AuthorizationViolation => "Authorization Violation",
            ErrorText::AuthenticationTimeout => "Authentication Timeout",
            ErrorText::MaximumConnections => "maximum connections exceeded",
            ErrorText::MaximumAccountConnections => "maximum account active connections exceeded",
            ErrorText::ConnectionThrottling => "Connection throttling is active. Please try again later.",
            ErrorText::MaximumSubscriptions => "maximum subscriptions exceeded",
            ErrorText::MaximumPayload => "Maximum Payload Violation",
            ErrorText::MaximumControlLine => "maximum control line exceeded",
            ErrorText::InvalidPublishSubject => "Invalid Publish Subject",
            ErrorText::InvalidSubject => "Invalid Subject",
            ErrorText::InvalidClientProtocol => "invalid client protocol",
            ErrorText::NoRespondersRequiresHeaders => "no responders requires headers support",
            ErrorText::StaleConnection => "Stale Connection",
            ErrorText::PublishPermission(subject) => {
                return format!("Permissions Violation for Publish to {}", quote(subject));
            }
            ErrorText::ReplyPermission(reply) => {
                return format!("Permissions Violation for Publish with Reply of {}", quote(reply));
            }
            ErrorText::SubscribePermission(subject) => {
                return format!("Permissions Violation for Subscription to {}", quote(subject));
            }
            ErrorText::RemovedSubscription { subject, queue, sid } => {
                let (subject, sid) = (quote(subject), quote(sid));
                let group = queue.as_ref().map(|queue| format!(" using queue {}", quote(queue)));
                let group = group.unwrap_or_default();
                return format!("Permissions Violation for Subscription to {subject}{group} (sid {sid})");
            }
            ErrorText::QueuePermission(subject, queue) => {
                let (subject, queue) = (quote(subject), quote(queue));
                return format!("Permissions Violation for Subscription to {subject} using queue {queue}");
            }
            ErrorText::TooManyTokens(subject) => {
                return format!(
                    "Permissions Violation for Subscription to {}, too many tokens",
                    quote(subject)
                );
            }
        };
        fixed.to_owned()
    }

    /// The whole line.
    pub fn line(&self) -> Vec<u8> {
        format!("-ERR '{}'\r\n", self.text()).into_bytes()
    }
}

/// A byte string in double quotes as Go's `%q` prints it, which is how the reference prints subjects.
pub fn quote(bytes: &[u8]) -> String {
    let mut quoted = String::with_capacity(bytes.len() + 2);
    quoted.push('"');
    for chunk in bytes.utf8_chunks() {
        let mut rest = chunk.valid();
        // Whole runs of plain characters at once: a trace quotes payloads.
        while let Some(c) = rest.chars().next() {
            let is_special = |byte: &u8| !(b' '..=b'~').contains(byte) || matches!(byte, b'"' | b'\\');
            let plain = rest.as_bytes().iter().position(is_special).unwrap_or(rest.len());
            if plain > 0 {
                quoted.push_str(&rest[..plain]);
                rest = &rest[plain..];
                continue;
            }
            rest = &rest[c.len_utf8()..];
            match c {
                '"' => quoted.push_str("\\\""),
                '\\' => quoted.push_str("\\\\"),
                '\x07' => quoted.push_str("\\a"),
                '\x08' => quoted.push_str("\\b"),
                '\x0c' => quoted.push_str("\\f"),
                '\n' => quoted.push_str("\\n"),
                '\r' => quoted.push_str("\\r"),
                '\t' => quoted.push_str("\\t"),
                '\x0b' => quoted.push_str("\\v"),
                c if (c as u32) < 0x20 || c == '\x7f' => push_hex(&mut quoted, c as u8),
                c if is_printable(c) => quoted.push(c),
                c if (c as u32) < 0x1_0000 => {
                    let _ = write!(quoted, "\\u{:04x}", c as u32);
                }
                c => {
                    let _ = write!(quoted, "\\U{:08x}", c as u32);
                }
            }
        }
        for byte in chunk.invalid() {
            push_hex(&mut quoted, *byte);
        }
    }
    quoted.push('"');
    quoted
}

/// Whether Go prints a character as it is. Its tables and those behind Rust's `escape_debug` agree; the letter
/// before it keeps a combining mark from counting as alone.
fn is_printable(c: char) -> bool {
    let mut text = [b'a', 0, 0, 0, 0];
    let len = 1 + c.encode_utf8(&mut text[1..]).len();
    let text = str::from_utf8(&text[..len]).expect("two characters");
    text.escape_debug().nth(1) != Some('\\')
}

fn push_hex(quoted: &mut String, byte: u8) {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).expect("a nibble");
    quoted.push_str("\\x");
    quoted.push(digit(byte >> 4));
    quoted.push(digit(byte & 15));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_quoted_as_go_does() {
        assert_eq!(quote(b"a\"b\\c\x00\x1b\xff"), r#""a\"b\\c\x00\x1b\xff""#);
        assert_eq!(quote("grün".as_bytes()), "\"grün\"");
        assert_eq!(
            quote("\u{2028}\u{7f}e\u{301}\u{10ffff}".as_bytes()),
            "\"\\u2028\\x7fe\u{301}\\U0010ffff\""
        );
    }

    #[test]
    fn a_line_carries_the_text_in_single_quotes() {
        assert_eq!(ErrorText::StaleConnection.line(), b"-ERR 'Stale Connection'\r\n");
    }
}
