//! What a stream has to say, until it may: acknowledgements, answers and messages, each due when the store has committed up to a position.
//!
//! All bytes lie one behind the other in one buffer that is used again, so that an acknowledgement allocates nothing. What is due is
//! due in the order in which it was put in: positions never go back.

use std::collections::VecDeque;

/// Bytes that were taken out before the rest is moved to the front of the buffer.
const MOVE_AT_BYTES: usize = 64 * 1024;

/// See the file's header.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    /// What lies before this was taken out.
    taken: usize,
    entries: VecDeque<Entry>,
}

/// Something to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Out<'a> {
    /// To where.
    pub subject: &'a [u8],
    /// The header block, empty without one.
    pub header: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
}

/// What becomes of an entry when what it waits for does not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It is an acknowledgement: the publisher is told what went wrong instead.
    Ack,
    /// It tells of something that is not so, and is dropped.
    Message,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    position: u64,
    kind: Kind,
    subject_len: u32,
    header_len: u32,
    payload_len: u32,
}

impl Entry {
    fn len(&self) -> usize {
        self.subject_len as usize + self.header_len as usize + self.payload_len as usize
    }
}

impl Outbox {
    /// Puts in something that is due at `position`. Header and payload are given in pieces.
    pub fn push(&mut self, position: u64, kind: Kind, subject: &[u8], header: &[&[u8]], payload: &[&[u8]]) {
        let len = |pieces: &[&[u8]]| pieces.iter().map(|piece| piece.len()).sum::<usize>() as u32;
        self.bytes.extend_from_slice(subject);
        for piece in header.iter().chain(payload) {
            self.bytes.extend_from_slice(piece);
        }
        self.entries.push_back(Entry {
            position,
            kind,
            subject_len: subject.len() as u32,
            header_len: len(header),
            payload_len: len(payload),
        });
    }

    /// Puts in an acknowledgement: `prefix`, the sequence, `suffix`.
    pub fn push_ack(&mut self, position: u64, reply: &[u8], prefix: &[u8], seq: u64, suffix: &[u8]) {
        self.bytes.reserve(reply.len() + prefix.len() + suffix.len() + 20);
        self.bytes.extend_from_slice(reply);
        let from = self.bytes.len();
        self.bytes.extend_from_slice(prefix);
        super::json::write_uint(&mut self.bytes, seq);
        self.bytes.extend_from_slice(suffix);
        self.entries.push_back(Entry {
            position,
            kind: Kind::Ack,
            subject_len: reply.len() as u32,
            header_len: 0,
            payload_len: (self.bytes.len() - from) as u32,
        });
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many entries wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Takes out everything that is due when the store has committed up to `committed`.
    pub fn take_due(&mut self, committed: u64, mut take: impl FnMut(Out<'_>)) {
        while let Some(entry) = self.entries.front().filter(|entry| entry.position <= committed) {
            let (subject, rest) = self.bytes[self.taken..].split_at(entry.subject_len as usize);
            let (header, rest) = rest.split_at(entry.header_len as usize);
            take(Out { subject, header, payload: &rest[..entry.payload_len as usize] });
            self.taken += entry.len();
            self.entries.pop_front();
        }
        self.tidy();
    }

    /// Takes out everything that is not due at `committed` and never will be. Who waited for an acknowledgement is told by `told`.
    pub fn fail(&mut self, committed: u64, mut told: impl FnMut(&[u8])) {
        // What is due stays: it is in front, because positions do not go back.
        let due = self.entries.partition_point(|entry| entry.position <= committed);
        let mut at = self.taken + self.entries.iter().take(due).map(Entry::len).sum::<usize>();
        let end = at;
        for entry in self.entries.drain(due..) {
            if entry.kind == Kind::Ack {
                told(&self.bytes[at..at + entry.subject_len as usize]);
            }
            at += entry.len();
        }
        self.bytes.truncate(end);
        self.tidy();
    }

    fn tidy(&mut self) {
        if self.entries.is_empty() {
            self.bytes.clear();
            self.taken = 0;
        } else if self.taken >= MOVE_AT_BYTES && self.taken * 2 >= self.bytes.len() {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(outbox: &mut Outbox, committed: u64) -> Vec<String> {
        let mut taken = Vec::new();
        outbox.take_due(committed, |out| {
            taken
                .push([out.subject, b" ", out.header, b" ", out.payload].concat().escape_ascii().to_string());
        });
        taken
    }

    #[test]
    fn what_is_due_comes_out_in_order() {
        let mut outbox = Outbox::default();
        outbox.push_ack(3, b"r", b"{", 17, b"}");
        outbox.push(5, Kind::Message, b"s", &[b"h", b"1"], &[b"p"]);
        assert_eq!(due(&mut outbox, 2), [""; 0]);
        assert_eq!(due(&mut outbox, 4), ["r  {17}"]);
        outbox.push_ack(6, b"r2", b"", 1, b"");
        assert_eq!(due(&mut outbox, 6), ["s h1 p", "r2  1"]);
        assert!(outbox.is_empty());
    }

    #[test]
    fn what_will_never_be_due_is_told_to_publishers_only() {
        let mut outbox = Outbox::default();
        outbox.push_ack(1, b"a", b"", 1, b"");
        outbox.push_ack(2, b"b", b"", 2, b"");
        outbox.push(2, Kind::Message, b"c", &[], &[b"x"]);
        outbox.push_ack(3, b"d", b"", 3, b"");
        let mut told = Vec::new();
        outbox.fail(1, |reply| told.push(reply.to_vec()));
        assert_eq!(told, [b"b", b"d"]);
        assert_eq!(due(&mut outbox, u64::MAX), ["a  1"]);
    }

    #[test]
    fn the_buffer_does_not_grow_when_something_always_waits() {
        let mut outbox = Outbox::default();
        for position in 0..100_000 {
            outbox.push_ack(position, b"reply", b"{\"stream\":\"S\",\"seq\":", position, b"}");
            if position >= 10 {
                assert_eq!(due(&mut outbox, position - 10).len(), 1);
            }
        }
        assert!(outbox.bytes.capacity() < 4 * MOVE_AT_BYTES, "{}", outbox.bytes.capacity());
    }
}
