//! The format of segment files: header, records, and the index at the end of a sealed one. `docs/storage.md` describes it.
//!
//! Every record carries a CRC32C over all of it, begun with a number that differs from file to file: bytes of another
//! segment, or of a client that stores copies of records, are never taken for records. It also says from where on its own
//! commit was written: whatever lies before that had been synced by then, so that what is wrong there is damage, and what
//! is wrong at the end behind it is a commit that a crash cut off.
//!
//! Decoding trusts nothing: it is given files as they are found.

use super::cipher::Cipher;
use super::message::Message;
use super::plan::FileId;

/// The last version that is known. Files of a later one are not opened.
pub const VERSION: u32 = 3;
/// Where records begin: the header is there twice, 2 KiB apart, so that no torn or damaged sector takes both.
pub const HEADER_BYTES: usize = 4096;
const HEADER_COPY: usize = 2048;
const HEADER_CONTENT: usize = 72;
const HEADER_MAGIC: [u8; 8] = *b"RINGSEG\n";
const TRAILER_MAGIC: [u8; 8] = *b"RINGIDX\n";
pub const TRAILER_BYTES: usize = 24;

/// What precedes the subject of a record, without the length of headers that only a message with headers has.
pub const RECORD_BYTES: usize = 32;
/// What a message's record has more than the message counts for in `state.bytes`.
pub const RECORD_BYTES_MORE: u32 = 2;
/// The longest record: offsets within a segment have 32 bits.
pub const RECORD_BYTES_MAX: usize = 1 << 30;

const FLAG_HEADER: u8 = 1;

/// What stands at the beginning of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub segment: u64,
    pub generation: u32,
    /// The stream's own number, drawn when it was created: the same in all its segments.
    pub stream_salt: u64,
    /// What the next message's sequence was at least when the segment was begun.
    pub next_seq: u64,
    /// Every message below was gone by then.
    pub first_seq: u64,
    pub last_time_ns: i64,
    /// The segment before, and where its records end: nothing behind that counts. 0 in the first.
    pub previous: u64,
    pub previous_end: u32,
    /// What its records are encrypted with.
    pub cipher: Option<Cipher>,
}

/// Why there is no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderError {
    /// Only zeros: the file was created, and the machine stopped before anything was written.
    NeverWritten,
    UnknownVersion(u32),
    Damaged,
}

impl Header {
    pub fn encode(&self) -> Vec<u8> {
        let mut content = Vec::with_capacity(HEADER_BYTES);
        content.extend_from_slice(&HEADER_MAGIC);
        content.extend_from_slice(&version_of(self.cipher).to_le_bytes());
        content.extend_from_slice(&self.generation.to_le_bytes());
        content.extend_from_slice(&self.segment.to_le_bytes());
        content.extend_from_slice(&self.stream_salt.to_le_bytes());
        content.extend_from_slice(&self.next_seq.to_le_bytes());
        content.extend_from_slice(&self.first_seq.to_le_bytes());
        content.extend_from_slice(&self.last_time_ns.to_le_bytes());
        content.extend_from_slice(&self.previous.to_le_bytes());
        content.extend_from_slice(&self.previous_end.to_le_bytes());
        debug_assert_eq!(content.len(), HEADER_CONTENT - 4);
        let crc = crc32c::crc32c(&content);
        content.extend_from_slice(&crc.to_le_bytes());
        content.resize(HEADER_COPY, 0);
        content.extend_from_within(..);
        content
    }

    pub fn decode(bytes: &[u8]) -> Result<Header, HeaderError> {
        let first = Header::decode_copy(bytes);
        match first {
            Ok(header) => Ok(header),
            Err(error) => match Header::decode_copy(bytes.get(HEADER_COPY..).unwrap_or_default()) {
                Ok(header) => Ok(header),
                // Two copies that agree on a later version are one; a single flipped bit is damage.
                Err(second) if second == error => Err(error),
                Err(_) => Err(HeaderError::Damaged),
            },
        }
    }

    fn decode_copy(bytes: &[u8]) -> Result<Header, HeaderError> {
        let content = &bytes[..HEADER_CONTENT.min(bytes.len())];
        if content.iter().all(|&byte| byte == 0) {
            return Err(HeaderError::NeverWritten);
        }
        if content.len() < HEADER_CONTENT || content[..8] != HEADER_MAGIC {
            return Err(HeaderError::Damaged);
        }
        let version = u32_at(content, 8);
        let Some(cipher) = cipher_of(version) else { return Err(HeaderError::UnknownVersion(version)) };
        if !is_sum(crc32c::crc32c(&content[..HEADER_CONTENT - 4]), u32_at(content, HEADER_CONTENT - 4)) {
            return Err(HeaderError::Damaged);
        }
        Ok(Header {
            generation: u32_at(content, 12),
            segment: u64_at(content, 16),
            stream_salt: u64_at(content, 24),
            next_seq: u64_at(content, 32),
            first_seq: u64_at(content, 40),
            last_time_ns: u64_at(content, 48) as i64,
            previous: u64_at(content, 56),
            previous_end: u32_at(content, 64),
            cipher,
        })
    }

    /// What the checksums of this file's records begin with.
    pub fn salt(&self) -> u32 {
        salt(self.stream_salt, self.segment, self.generation)
    }
}

/// The versions of the format: one for each cipher, so that who does not know it opens nothing.
fn version_of(cipher: Option<Cipher>) -> u32 {
    match cipher {
        None => 1,
        Some(Cipher::Aes256Gcm) => 2,
        Some(Cipher::ChaCha20Poly1305) => 3,
    }
}

fn cipher_of(version: u32) -> Option<Option<Cipher>> {
    let ciphers = [None, Some(Cipher::Aes256Gcm), Some(Cipher::ChaCha20Poly1305)];
    ciphers.into_iter().find(|cipher| version_of(*cipher) == version)
}

pub fn salt(stream_salt: u64, segment: u64, generation: u32) -> u32 {
    let salt = crc32c::crc32c(&stream_salt.to_le_bytes());
    let salt = crc32c::crc32c_append(salt, &segment.to_le_bytes());
    crc32c::crc32c_append(salt, &generation.to_le_bytes())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Message = 1,
    /// The message `seq` was removed.
    Remove = 2,
    /// Every message below `seq` is gone, the next sequence is at least the number in the payload, `time_ns` is the time
    /// of the last message.
    State = 3,
    /// The payload is the value of the key in the subject.
    Note = 4,
    /// The key in the subject has no value any more.
    Forget = 5,
    /// What is left of a message that was erased: its sequence, time and length.
    Erased = 6,
    /// The payload is the segment's index. Nothing but the trailer follows.
    Index = 7,
    /// The payload is a record, encrypted, under the number in sequence and time (`cipher.rs`).
    Sealed = 8,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Message,
            2 => Kind::Remove,
            3 => Kind::State,
            4 => Kind::Note,
            5 => Kind::Forget,
            6 => Kind::Erased,
            7 => Kind::Index,
            8 => Kind::Sealed,
            _ => return None,
        })
    }
}

/// A record as it is written and read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    pub kind: Kind,
    /// Where the commit that wrote it begins in the file.
    pub batch: u32,
    pub seq: u64,
    pub time_ns: i64,
    pub subject: &'a [u8],
    pub header: &'a [u8],
    pub payload: &'a [u8],
}

impl<'a> Record<'a> {
    pub fn of(kind: Kind, seq: u64) -> Record<'static> {
        Record { kind, batch: 0, seq, time_ns: 0, subject: b"", header: b"", payload: b"" }
    }

    pub fn message(message: &Message<'a>, batch: u32) -> Record<'a> {
        let Message { seq, time_ns, subject, header, payload } = *message;
        Record { kind: Kind::Message, batch, seq, time_ns, subject, header, payload }
    }

    pub fn len(&self) -> usize {
        let header_len = if self.header.is_empty() { 0 } else { 4 };
        RECORD_BYTES + header_len + self.subject.len() + self.header.len() + self.payload.len()
    }

    /// Appends the record. Its subject fits into 16 bits, all of it into [`RECORD_BYTES_MAX`].
    pub fn encode(&self, salt: u32, out: &mut Vec<u8>) {
        let len = self.len();
        debug_assert!(len <= RECORD_BYTES_MAX && self.subject.len() <= usize::from(u16::MAX));
        out.reserve(len);
        let start = out.len();
        let mut head = [0; RECORD_BYTES];
        head[4..8].copy_from_slice(&(len as u32).to_le_bytes());
        head[8..12].copy_from_slice(&self.batch.to_le_bytes());
        head[12] = self.kind as u8;
        head[13] = if self.header.is_empty() { 0 } else { FLAG_HEADER };
        head[14..16].copy_from_slice(&(self.subject.len() as u16).to_le_bytes());
        head[16..24].copy_from_slice(&self.seq.to_le_bytes());
        head[24..32].copy_from_slice(&self.time_ns.to_le_bytes());
        out.extend_from_slice(&head);
        if !self.header.is_empty() {
            out.extend_from_slice(&(self.header.len() as u32).to_le_bytes());
        }
        out.extend_from_slice(self.subject);
        out.extend_from_slice(self.header);
        out.extend_from_slice(self.payload);
        let crc = crc32c::crc32c_append(salt, &out[start + 4..]);
        out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    }

    /// The record that begins `bytes`, and its length; `None` if there is none that is whole.
    pub fn decode(salt: u32, bytes: &'a [u8]) -> Option<(Record<'a>, usize)> {
        let record = bytes.get(..record_len(bytes)?)?;
        if !is_sum(crc32c::crc32c_append(salt, &record[4..]), u32_at(record, 0)) {
            return None;
        }
        Record::split(record)
    }

    /// [`decode`](Self::decode) without a look at the checksum, for bytes that never left memory.
    pub fn split(bytes: &'a [u8]) -> Option<(Record<'a>, usize)> {
        let len = record_len(bytes)?;
        let record = bytes.get(..len)?;
        let kind = Kind::from_byte(record[12])?;
        let subject_len = usize::from(u16::from_le_bytes([record[14], record[15]]));
        let mut rest = &record[RECORD_BYTES..];
        let header_len = match record[13] {
            0 => 0,
            FLAG_HEADER => u32::from_le_bytes(super::sealed::read_chunk(&mut rest)?) as usize,
            _ => return None,
        };
        let (subject, rest) = rest.split_at_checked(subject_len)?;
        let (header, payload) = rest.split_at_checked(header_len)?;
        let (batch, seq, time_ns) = (u32_at(record, 8), u64_at(record, 16), u64_at(record, 24) as i64);
        Some((Record { kind, batch, seq, time_ns, subject, header, payload }, len))
    }
}

/// The length that the record at the beginning of `bytes` says it has, if it is a possible one.
fn record_len(bytes: &[u8]) -> Option<usize> {
    let head = bytes.get(..RECORD_BYTES)?;
    let len = u32_at(head, 4) as usize;
    let is_possible = (RECORD_BYTES..=RECORD_BYTES_MAX).contains(&len) && Kind::from_byte(head[12]).is_some();
    is_possible.then_some(len)
}

/// The place of the next whole record at or after `from`, before `end`. Looks at every byte, because nothing says where
/// records begin once one is damaged; `budget` bounds how many bytes are summed up in vain.
pub fn find_record(salt: u32, bytes: &[u8], from: usize, budget: &mut usize) -> Option<usize> {
    for at in from..bytes.len().saturating_sub(RECORD_BYTES - 1) {
        let Some(len) = record_len(&bytes[at..]) else { continue };
        if at + len > bytes.len() {
            continue;
        }
        *budget = budget.checked_sub(len)?;
        if Record::decode(salt, &bytes[at..]).is_some() {
            return Some(at);
        }
    }
    None
}

/// What ends the file of a sealed segment: where its index record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    pub index_offset: u32,
    pub index_len: u32,
}

impl Trailer {
    pub fn encode(&self, salt: u32, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&TRAILER_MAGIC);
        out.extend_from_slice(&self.index_offset.to_le_bytes());
        out.extend_from_slice(&self.index_len.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        let crc = crc32c::crc32c_append(salt, &out[start..]);
        out.extend_from_slice(&crc.to_le_bytes());
    }

    /// From the last bytes of a file of `file_len`.
    pub fn decode(salt: u32, bytes: &[u8], file_len: u64) -> Option<Trailer> {
        if bytes.len() != TRAILER_BYTES || bytes[..8] != TRAILER_MAGIC {
            return None;
        }
        if !is_sum(crc32c::crc32c_append(salt, &bytes[..20]), u32_at(bytes, 20)) {
            return None;
        }
        let trailer = Trailer { index_offset: u32_at(bytes, 8), index_len: u32_at(bytes, 12) };
        let end = u64::from(trailer.index_offset) + u64::from(trailer.index_len) + TRAILER_BYTES as u64;
        (end == file_len && trailer.index_offset as usize >= HEADER_BYTES).then_some(trailer)
    }
}

/// The file that a header belongs to; damage or a copied file shows in a difference.
pub fn belongs(header: &Header, file: FileId) -> bool {
    (header.segment, header.generation) == (file.segment, file.generation)
}

/// Whether a checksum is right. A fuzzer would never get past it, so that there every one is: what is behind it has to
/// stand anything.
fn is_sum(sum: u32, stored: u32) -> bool {
    cfg!(fuzzing) || sum == stored
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            segment: 3,
            generation: 1,
            stream_salt: 0x1234_5678_9abc_def0,
            next_seq: 100,
            first_seq: 50,
            last_time_ns: 1_700_000_000_000_000_000,
            previous: 2,
            previous_end: 5000,
            cipher: None,
        }
    }

    #[test]
    fn a_header_survives_damage_to_one_of_its_copies() {
        let bytes = header().encode();
        assert_eq!(bytes.len(), HEADER_BYTES);
        assert_eq!(Header::decode(&bytes), Ok(header()));
        for at in 0..HEADER_BYTES {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(Header::decode(&damaged), Ok(header()), "byte {at}");
        }
        let mut damaged = bytes.clone();
        damaged[20] ^= 1;
        damaged[HEADER_COPY + 30] ^= 1;
        assert_eq!(Header::decode(&damaged), Err(HeaderError::Damaged));
        assert_eq!(Header::decode(&bytes[..40]), Err(HeaderError::Damaged));
        assert_eq!(Header::decode(&[]), Err(HeaderError::NeverWritten));
    }

    #[test]
    fn a_later_version_is_told_from_damage() {
        let mut bytes = header().encode();
        bytes[8] = 9;
        assert_eq!(Header::decode(&bytes), Ok(header()), "one copy is damaged");
        bytes[HEADER_COPY + 8] = 9;
        assert_eq!(Header::decode(&bytes), Err(HeaderError::UnknownVersion(9)));
    }

    #[test]
    fn records_are_read_back_and_no_flipped_bit_passes() {
        let messages = [(&b"a.b"[..], &b"NATS/1.0\r\nA: b\r\n\r\n"[..], &b"hello"[..]), (b"a", b"", b"")];
        for (subject, header, payload) in messages {
            let record =
                Record { kind: Kind::Message, batch: 77, seq: 5, time_ns: -3, subject, header, payload };
            let mut bytes = Vec::new();
            record.encode(42, &mut bytes);
            assert_eq!(bytes.len(), record.len());
            let counted = super::super::message::file_bytes(subject.len(), header.len(), payload.len());
            assert_eq!(bytes.len() as u64, counted + u64::from(RECORD_BYTES_MORE));
            assert_eq!(Record::decode(42, &bytes), Some((record, bytes.len())));
            assert_eq!(Record::decode(43, &bytes), None);
            for bit in 0..bytes.len() * 8 {
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Record::decode(42, &damaged), None, "bit {bit}");
            }
            for cut in 0..bytes.len() {
                assert_eq!(Record::decode(42, &bytes[..cut]), None);
            }
        }
    }

    #[test]
    fn a_record_is_found_behind_damage_within_the_budget() {
        let mut bytes = vec![7; 100];
        Record::of(Kind::Remove, 9).encode(1, &mut bytes);
        assert_eq!(find_record(1, &bytes, 0, &mut 1_000), Some(100));
        assert_eq!(find_record(2, &bytes, 0, &mut 1_000), None);
        assert_eq!(find_record(1, &bytes, 0, &mut 10), None);
    }
}
