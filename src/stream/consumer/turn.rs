//! What a consumer is given while it does something, and where what it does goes.
//!
//! A consumer holds no clock, no socket and no store: whoever drives it hands them in as a [`Turn`]. Deliveries,
//! statuses and events leave through the [`Outlet`] at once. Confirmations of acknowledgements leave only when the
//! changes that they confirm are durable: they are collected in [`Effects`], as are the messages that may have lost
//! their last interest.

use crate::base::histogram::Histogram;
use crate::base::nuid::nuid;
use crate::store::Store;

use super::super::time;

/// Where messages go. The driver publishes them in the account of the stream.
pub trait Outlet {
    /// Whether somebody would get a message to this subject: a subscription, or with `group` not empty a member of that
    /// queue group.
    fn has_interest(&mut self, subject: &[u8], group: &[u8]) -> bool;

    /// Delivers a stored message. `false`: nobody was there to get it.
    fn deliver(&mut self, delivery: &Delivery<'_>) -> bool;

    /// Publishes a message of the server's own: a status, an event, an answer.
    fn publish(&mut self, subject: &[u8], reply: &[u8], header: &[u8], payload: &[u8]);
}

/// A stored message on its way to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery<'a> {
    /// The subject that it is routed by.
    pub to: &'a [u8],
    /// The subject that the client sees.
    pub subject: &'a [u8],
    /// The subject that acknowledges it.
    pub reply: &'a [u8],
    /// Its header block, or nothing.
    pub header: &'a [u8],
    /// Its payload.
    pub payload: &'a [u8],
}

/// What is the same for all consumers of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Site {
    /// The account, where events name it.
    pub account: String,
    /// The JetStream domain, or nothing.
    pub domain: String,
    /// The version in the metadata of answers.
    pub version: &'static str,
    /// Between `$JS.ACK.` and the stream: nothing, or `<domain or _>.<hash of the account>.` for the newer form.
    pub ack_infix: String,
    /// The largest message of the account, which a rate limit lets pass at once.
    pub max_payload: i64,
}

/// What the driver owes when the turn is over.
#[derive(Debug, Default)]
pub struct Effects {
    /// Who wants to hear that the changes of this turn are durable.
    pub confirmations: Vec<Box<[u8]>>,
    /// Messages that were acknowledged, on streams that remove what nobody wants any more.
    pub settled: Vec<u64>,
    /// How long messages waited for their acknowledgement, until monitoring takes it.
    pub ack_times: Histogram,
    /// Whether there is something in that.
    pub has_ack_times: bool,
    /// Deliveries ever made.
    pub deliveries: u64,
}

/// Buffers that every consumer of a worker writes in.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(super) reply: Vec<u8>,
    pub(super) header: Vec<u8>,
    pub(super) text: Vec<u8>,
}

/// See the file's header.
pub struct Turn<'a, O> {
    /// Nanoseconds since 1970. Never less than in the turn before.
    pub now_ns: i64,
    /// The messages.
    pub store: &'a Store,
    /// Where messages go.
    pub outlet: &'a mut O,
    /// For ids.
    pub random: &'a mut fastrand::Rng,
    /// What is owed.
    pub effects: &'a mut Effects,
    /// Where to write.
    pub scratch: &'a mut Scratch,
    /// Where the stream is.
    pub site: &'a Site,
    /// Grows with every message that is removed from the stream.
    pub removals: u64,
    /// Whether acknowledged messages may leave the stream.
    pub removes_settled: bool,
}

/// A status: its line, and what the request still wanted.
pub(super) fn write_status(out: &mut Vec<u8>, status: &str, pending: Option<(i64, i64)>) {
    out.clear();
    out.extend_from_slice(b"NATS/1.0 ");
    out.extend_from_slice(status.as_bytes());
    if let Some((messages, bytes)) = pending {
        out.extend_from_slice(b"\r\nNats-Pending-Messages: ");
        write_int(out, messages);
        out.extend_from_slice(b"\r\nNats-Pending-Bytes: ");
        write_int(out, bytes);
    }
    out.extend_from_slice(b"\r\n\r\n");
}

/// Two digits at a time: the subject of an acknowledgement has some forty of them.
pub(super) fn write_decimal(out: &mut Vec<u8>, mut number: u64) {
    const PAIRS: [u8; 200] = {
        let mut pairs = [b'0'; 200];
        let mut at = 0;
        while at < 100 {
            pairs[at * 2] += (at / 10) as u8;
            pairs[at * 2 + 1] += (at % 10) as u8;
            at += 1;
        }
        pairs
    };
    let mut digits = [0; 20];
    let mut at = digits.len();
    while number >= 100 {
        let pair = (number % 100) as usize * 2;
        number /= 100;
        at -= 2;
        digits[at..at + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
    }
    if number >= 10 {
        let pair = number as usize * 2;
        at -= 2;
        digits[at..at + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
    } else {
        at -= 1;
        digits[at] = b'0' + number as u8;
    }
    out.extend_from_slice(&digits[at..]);
}

pub(super) fn write_int(out: &mut Vec<u8>, number: i64) {
    if number < 0 {
        out.push(b'-');
    }
    write_decimal(out, number.unsigned_abs());
}

impl<O: Outlet> Turn<'_, O> {
    /// Sends a status to whoever asked.
    pub(super) fn status(&mut self, to: &[u8], status: &str, pending: Option<(i64, i64)>) {
        write_status(&mut self.scratch.text, status, pending);
        self.outlet.publish(to, b"", &self.scratch.text, b"");
    }

    /// An id of 22 letters and digits.
    pub(super) fn id(&mut self) -> String {
        nuid(self.random)
    }

    /// Now, as answers write it.
    pub(super) fn timestamp(&self) -> String {
        let mut text = Vec::new();
        time::write(&mut text, self.now_ns);
        String::from_utf8_lossy(&text).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_decimal() {
        for number in [0, 7, 10, 99, 100, 101, 999, 1_000, 12_345, 1_800_000_000_123_456_789, u64::MAX] {
            let mut out = Vec::new();
            write_decimal(&mut out, number);
            assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }
    }
}
