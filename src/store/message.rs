//! What a store is given and gives back: messages, and what is known of a stream and of a subject without reading it.
//!
//! How many bytes a message counts for is the reference's accounting, which clients see in `state.bytes`
//! (a file store counts its own record overhead, a memory store another): [`file_bytes`] and [`memory_bytes`].

use bytes::Bytes;

/// A message to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its sequence number: greater than every one before it. A gap is a range of deleted sequences.
    pub seq: u64,
    /// When it was received, nanoseconds since 1970.
    pub time_ns: i64,
    /// The subject it is stored under, at most 65,535 bytes.
    pub subject: &'a [u8],
    /// The whole header block as it travels (`NATS/1.0\r\n…\r\n\r\n`), empty if there is none.
    pub header: &'a [u8],
    /// What follows the headers.
    pub payload: &'a [u8],
}

/// A message that was read. Owns its bytes, which cost nothing to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// Its sequence number.
    pub seq: u64,
    /// When it was received, nanoseconds since 1970.
    pub time_ns: i64,
    subject_len: u32,
    header_len: u32,
    /// Subject, header and payload.
    bytes: Bytes,
}

impl StoredMessage {
    /// `bytes` are subject, header and payload, one after the other.
    pub(crate) fn new(seq: u64, time_ns: i64, subject_len: usize, header_len: usize, bytes: Bytes) -> Self {
        assert!(subject_len + header_len <= bytes.len());
        StoredMessage { seq, time_ns, subject_len: subject_len as u32, header_len: header_len as u32, bytes }
    }

    /// One copy of all of the message.
    pub(crate) fn copy_of(message: &Message<'_>) -> Self {
        let Message { seq, time_ns, subject, header, payload } = *message;
        let mut bytes = Vec::with_capacity(subject.len() + header.len() + payload.len());
        bytes.extend_from_slice(subject);
        bytes.extend_from_slice(header);
        bytes.extend_from_slice(payload);
        StoredMessage::new(seq, time_ns, subject.len(), header.len(), bytes.into())
    }

    /// The subject it is stored under.
    pub fn subject(&self) -> &[u8] {
        &self.bytes[..self.subject_len as usize]
    }

    /// The whole header block, empty if there is none.
    pub fn header(&self) -> &[u8] {
        &self.bytes[self.subject_len as usize..][..self.header_len as usize]
    }

    /// What follows the headers.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[(self.subject_len + self.header_len) as usize..]
    }

    /// The same, borrowed.
    pub fn as_message(&self) -> Message<'_> {
        Message {
            seq: self.seq,
            time_ns: self.time_ns,
            subject: self.subject(),
            header: self.header(),
            payload: self.payload(),
        }
    }
}

impl std::fmt::Debug for StoredMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "#{} {} at {}", self.seq, self.subject().escape_ascii(), self.time_ns)?;
        write!(f, " [{}] {}", self.header().escape_ascii(), self.payload().escape_ascii())
    }
}

/// What a stream holds now, what is not committed yet included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct State {
    /// How many messages.
    pub messages: u64,
    /// In the accounting of the store's kind.
    pub bytes: u64,
    /// The sequence of the oldest message. Without messages: `last_seq + 1`, or 0 as long as there never was one.
    pub first_seq: u64,
    /// 0 without messages.
    pub first_time_ns: i64,
    /// The highest sequence that was ever given, deleted or not.
    pub last_seq: u64,
    /// When the last message was stored, also after it was deleted.
    pub last_time_ns: i64,
    /// Distinct subjects.
    pub subjects: u64,
    /// Sequences between the first and the last that are no longer there, or never were.
    pub deleted: u64,
}

/// What is known of one subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubjectState {
    /// Its oldest message.
    pub first_seq: u64,
    /// Its newest message.
    pub last_seq: u64,
    /// How many messages.
    pub messages: u64,
}

/// A message that has just been removed. Borrows from the store, so that a removal does not allocate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removed<'a> {
    /// Its sequence number.
    pub seq: u64,
    /// When it was received, nanoseconds since 1970.
    pub time_ns: i64,
    /// The subject it is stored under, at most 65,535 bytes.
    pub subject: &'a [u8],
    /// What it counted for in `state.bytes`.
    pub bytes: u64,
    /// How many messages its subject still has.
    pub subject_messages: u64,
}

/// What a purge took away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Purged {
    /// How many messages.
    pub messages: u64,
    /// What they counted for in `state.bytes`.
    pub bytes: u64,
}

/// Why a message was not stored. The texts are what clients see behind the reference's error code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The file system is full. Goes away by itself.
    #[error("no space left on device")]
    NoSpace,
    /// A write or sync failed earlier: what is on disk is readable, nothing is added to it.
    #[error("stream is read only, storing failed: {0}")]
    Poisoned(String),
    /// More than [`PENDING_BYTES_MAX`](super::PENDING_BYTES_MAX) wait for the disk.
    #[error("too many bytes wait for the disk")]
    Backlog,
    /// Subject, header and payload together, or one of them, are longer than a record can be.
    #[error("message to large")]
    TooLarge,
}

/// What a message counts for in a file store.
pub fn file_bytes(subject_len: usize, header_len: usize, payload_len: usize) -> u64 {
    let header = if header_len == 0 { 0 } else { 4 + header_len };
    (22 + subject_len + header + payload_len + 8) as u64
}

/// What a message counts for in a memory store.
pub fn memory_bytes(subject_len: usize, header_len: usize, payload_len: usize) -> u64 {
    (subject_len + header_len + payload_len + 16) as u64
}
