//! Bytes on the wire: what the tool sends, and the length of what the server will make of it.
//!
//! Everything here is fixed-width on purpose: subjects of one set have one length, so every frame
//! of a set has one length, and readers can count by arithmetic (`tally`).

use std::io::Write as _;

/// Appends `PUB subject [reply] size` and the payload.
pub fn push_publish(out: &mut Vec<u8>, subject: &str, reply: Option<&str>, payload: &[u8]) {
    out.extend_from_slice(b"PUB ");
    out.extend_from_slice(subject.as_bytes());
    if let Some(reply) = reply {
        out.push(b' ');
        out.extend_from_slice(reply.as_bytes());
    }
    write!(out, " {}\r\n", payload.len()).expect("a Vec accepts everything");
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

/// Appends `SUB subject [queue] sid`.
pub fn push_subscribe(out: &mut Vec<u8>, subject: &str, queue: Option<&str>, sid: &str) {
    let queue = queue.map(|name| format!(" {name}")).unwrap_or_default();
    write!(out, "SUB {subject}{queue} {sid}\r\n").expect("a Vec accepts everything");
}

/// Length of the `MSG` frame that carries `payload` bytes to a subscription.
pub fn message_len(subject: usize, sid: usize, reply: Option<usize>, payload: usize) -> usize {
    let reply = reply.map_or(0, |length| length + 1);
    "MSG ".len() + subject + 1 + sid + 1 + reply + decimal_digits(payload) + 2 + payload + 2
}

pub fn decimal_digits(number: usize) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// A payload of printable bytes.
pub fn payload(size: usize) -> Vec<u8> {
    (b'a'..=b'z').cycle().take(size).collect()
}

/// A name that other runs on the same server do not use.
pub fn run_id() -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(4).collect::<String>().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_length_counts_every_byte() {
        assert_eq!(message_len(3, 1, None, 5), "MSG foo 1 5\r\nhello\r\n".len());
        assert_eq!(message_len(3, 2, Some(3), 0), "MSG foo 12 bar 0\r\n\r\n".len());
        assert_eq!(message_len(1, 1, None, 10), "MSG a 1 10\r\n0123456789\r\n".len());
    }

    #[test]
    fn publish_and_subscribe_frames_are_as_the_protocol_says() {
        let mut out = Vec::new();
        push_publish(&mut out, "foo", Some("bar"), b"hello");
        push_subscribe(&mut out, "foo.*", Some("q"), "01");
        push_subscribe(&mut out, "foo", None, "2");
        assert_eq!(out, b"PUB foo bar 5\r\nhello\r\nSUB foo.* q 01\r\nSUB foo 2\r\n");
    }

    #[test]
    fn digits_at_the_edges() {
        assert_eq!([0, 9, 10, 99, 100].map(decimal_digits), [1, 1, 2, 2, 3]);
    }
}
