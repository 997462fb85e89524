//! The files of the reference's own store, as they stand in backups of nats-server up to 2.14.
//!
//! Blocks of messages (`msgs/NUMBER.blk`) are records: length (the highest bit: there are headers), sequence, time, length of
//! the subject; subject, length of the headers, headers, payload, checksum. A sequence with its highest bit is that of a message that
//! was erased, one with the bit below that of a message in an earlier record that was removed. The index (`msgs/index.db`) tells what the stream
//! knew of its blocks, and so what has gone by limits, of which no record tells.
//!
//! Numbers in records are little-endian. Checksums are HighwayHash with 64 bits, keyed by the SHA-256 of a name.

use std::ops::RangeInclusive;

use highway::{HighwayHash as _, HighwayHasher, Key};
use sha2::{Digest as _, Sha256};

use super::{BackupError, NumberError, Numbers};

/// What stands before the subject of a record.
const RECORD_HEAD: usize = 22;
const CHECKSUM_BYTES: usize = 8;
/// The longest record, by the reference's own measure.
pub const RECORD_BYTES_MAX: usize = 32 << 20;
const HAS_HEADER: u32 = 1 << 31;
const ERASED: u64 = 1 << 63;
const REMOVED: u64 = 1 << 62;

const INDEX_MAGIC: u8 = 11;
const INDEX_VERSIONS: std::ops::RangeInclusive<u8> = 1..=4;
const SET_MAGIC: u8 = 22;
/// Words of 64 bits in a node of a set, by its version.
const SET_WORDS: [(u8, usize); 2] = [(1, 64), (2, 32)];

/// Makes the checksums of one kind of file.
#[derive(Debug, Clone, Copy)]
pub struct Sums {
    key: [u64; 4],
}

impl Sums {
    /// Those of a stream's metadata and index.
    pub fn of_stream(stream: &str) -> Sums {
        Sums::of(stream)
    }

    /// Those of a block of messages.
    pub fn of_block(stream: &str, block: u32) -> Sums {
        Sums::of(&format!("{stream}-{block}"))
    }

    /// Those of a consumer's metadata.
    pub fn of_consumer(stream: &str, consumer: &str) -> Sums {
        Sums::of(&format!("{stream}/{consumer}"))
    }

    fn of(name: &str) -> Sums {
        let digest = Sha256::digest(name.as_bytes());
        let (words, _) = digest.as_chunks::<8>();
        Sums { key: std::array::from_fn(|at| u64::from_le_bytes(words[at])) }
    }

    /// The checksum of some parts, one behind the other.
    pub fn sum(&self, parts: &[&[u8]]) -> [u8; CHECKSUM_BYTES] {
        let mut hasher = HighwayHasher::new(Key(self.key));
        for part in parts {
            hasher.append(part);
        }
        hasher.finalize64().to_le_bytes()
    }

    fn is_sum(&self, parts: &[&[u8]], sum: &[u8]) -> bool {
        cfg!(fuzzing) || self.sum(parts) == sum
    }
}

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the parts of a message")]
pub enum Record<'a> {
    Message {
        seq: u64,
        time_ns: i64,
        subject: &'a [u8],
        header: &'a [u8],
        payload: &'a [u8],
    },
    /// There was a message here.
    Erased,
    /// An earlier message is gone.
    Removed {
        seq: u64,
    },
}

/// The record that begins `bytes`, which `left` bytes of the block do, and its length. `None`: its end is missing.
///
/// # Errors
///
/// It is none, or damaged.
pub fn read_record<'a>(
    bytes: &'a [u8],
    left: u64,
    sums: &Sums,
) -> Result<Option<(Record<'a>, usize)>, BackupError> {
    let wrong = || BackupError::wrong("a message block is damaged");
    if left < (RECORD_HEAD + CHECKSUM_BYTES) as u64 {
        return Err(wrong());
    }
    let Some(head) = bytes.first_chunk::<RECORD_HEAD>() else { return Ok(None) };
    let stored_len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    let len = (stored_len & !HAS_HEADER) as usize;
    let subject_len = usize::from(u16::from_le_bytes([head[20], head[21]]));
    let has_header = stored_len & HAS_HEADER != 0;
    let fixed = RECORD_HEAD + subject_len + if has_header { 4 } else { 0 } + CHECKSUM_BYTES;
    if len < fixed || len > RECORD_BYTES_MAX || len as u64 > left {
        return Err(wrong());
    }
    let Some(record) = bytes.get(..len) else { return Ok(None) };
    let (content, sum) = record[RECORD_HEAD..].split_at(len - RECORD_HEAD - CHECKSUM_BYTES);
    let (subject, mut rest) = content.split_at(subject_len);
    let mut header_len = 0;
    if has_header {
        let (len, behind) = rest.split_at(4);
        header_len = u32::from_le_bytes([len[0], len[1], len[2], len[3]]) as usize;
        rest = behind;
    }
    if !sums.is_sum(&[&head[4..20], subject, rest], sum) {
        return Err(BackupError::Checksum("a message".to_owned()));
    }
    let seq = u64::from_le_bytes(head[4..12].try_into().expect("8 bytes"));
    let time_ns = i64::from_le_bytes(head[12..20].try_into().expect("8 bytes"));
    let record = if seq & ERASED != 0 || seq == 0 {
        Record::Erased
    } else if seq & REMOVED != 0 {
        Record::Removed { seq: seq & !REMOVED }
    } else {
        let (header, payload) = rest.split_at_checked(header_len).ok_or_else(wrong)?;
        Record::Message { seq, time_ns, subject, header, payload }
    };
    Ok(Some((record, len)))
}

/// What the index tells.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Index {
    /// The first sequence that there is or will be.
    pub first_seq: u64,
    /// The last one that was given.
    pub last_seq: u64,
    /// Sequences between, of which there are no messages; in order, and perhaps one range beside the other.
    pub deleted: Vec<RangeInclusive<u64>>,
}

/// Reads an index. `None`: it is one of a version that is not known, which tells nothing.
///
/// # Errors
///
/// It is none, or damaged.
pub fn read_index(bytes: &[u8], sums: &Sums) -> Result<Option<Index>, BackupError> {
    let (content, sum) =
        bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(NumberError::Cut).map_err(damaged)?;
    if !sums.is_sum(&[content], sum) {
        return Err(BackupError::Checksum("the index".to_owned()));
    }
    match content {
        [INDEX_MAGIC, version, rest @ ..] if INDEX_VERSIONS.contains(version) => {
            read_index_of(*version, rest).map(Some).map_err(damaged)
        }
        _ => Ok(None),
    }
}

fn damaged(_: NumberError) -> BackupError {
    BackupError::wrong("the index is damaged")
}

fn read_index_of(version: u8, bytes: &[u8]) -> Result<Index, NumberError> {
    let mut numbers = Numbers { bytes, at: 0 };
    let (_messages, _bytes) = (numbers.unsigned()?, numbers.unsigned()?);
    let first_seq = numbers.unsigned()?;
    let _first_time = numbers.signed()?;
    let last_seq = numbers.unsigned()?;
    let _last_time = numbers.signed()?;
    let mut index = Index { first_seq, last_seq, deleted: Vec::new() };
    for _ in 0..numbers.unsigned()? {
        let len = usize::try_from(numbers.unsigned()?).map_err(|_| NumberError::TooLong)?;
        if len == 0 {
            continue;
        }
        numbers.at = numbers.at.checked_add(len).filter(|at| *at <= bytes.len()).ok_or(NumberError::Cut)?;
        let total = numbers.unsigned()?;
        let _first_block = numbers.unsigned()?;
        if total > 1 || version >= 4 {
            numbers.unsigned()?;
        }
    }
    let mut next = first_seq;
    for _ in 0..numbers.unsigned()? {
        let (_number, _bytes) = (numbers.unsigned()?, numbers.unsigned()?);
        let block_first = numbers.unsigned()?;
        let _time = numbers.signed()?;
        let block_last = numbers.unsigned()?;
        let _time = numbers.signed()?;
        let deleted = numbers.unsigned()?;
        // Times to live since version 2, schedules since version 3.
        for _ in 2..=version.min(3) {
            numbers.unsigned()?;
        }
        if block_first > next {
            index.deleted.push(next..=block_first - 1);
        }
        if deleted > 0 {
            read_set(&mut numbers, &mut index.deleted)?;
        }
        next = next.max(block_last.saturating_add(1));
    }
    Ok(index)
}

/// Reads a set of sequences: nodes of bits, each with the sequence of its first.
fn read_set(numbers: &mut Numbers<'_>, deleted: &mut Vec<RangeInclusive<u64>>) -> Result<(), NumberError> {
    let mut rest = numbers.bytes.get(numbers.at..).ok_or(NumberError::Cut)?;
    let before = rest.len();
    let head = rest.split_off(..10).ok_or(NumberError::Cut)?;
    let words = SET_WORDS.iter().find(|(version, _)| head[0] == SET_MAGIC && head[1] == *version);
    let (_, words) = *words.ok_or(NumberError::TooLong)?;
    let nodes = u32::from_le_bytes([head[2], head[3], head[4], head[5]]);
    let mut found: Vec<RangeInclusive<u64>> = Vec::new();
    for _ in 0..nodes {
        let mut word = || Some(u64::from_le_bytes(*rest.split_off(..8)?.first_chunk()?));
        let base = word().ok_or(NumberError::Cut)?;
        for at in 0..words as u64 {
            let mut bits = word().ok_or(NumberError::Cut)?;
            while bits != 0 {
                let seq = base.wrapping_add(at * 64 + u64::from(bits.trailing_zeros()));
                bits &= bits - 1;
                match found.last_mut() {
                    Some(last) if last.end().checked_add(1) == Some(seq) => *last = *last.start()..=seq,
                    _ => found.push(seq..=seq),
                }
            }
        }
        // How high its node stands in the tree.
        rest.split_off(..2).ok_or(NumberError::Cut)?;
    }
    numbers.at += before - rest.len();
    found.sort_unstable_by_key(|range| *range.start());
    deleted.extend(found);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(seq: u64, subject: &[u8], header: &[u8], payload: &[u8], sums: &Sums) -> Vec<u8> {
        let mut content = subject.to_vec();
        let has_header = !header.is_empty();
        if has_header {
            content.extend_from_slice(&(header.len() as u32).to_le_bytes());
        }
        content.extend_from_slice(header);
        content.extend_from_slice(payload);
        let len = (RECORD_HEAD + content.len() + CHECKSUM_BYTES) as u32;
        let mut bytes = (len | if has_header { HAS_HEADER } else { 0 }).to_le_bytes().to_vec();
        bytes.extend_from_slice(&seq.to_le_bytes());
        bytes.extend_from_slice(&77_i64.to_le_bytes());
        bytes.extend_from_slice(&(subject.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&content);
        let sum = sums.sum(&[&bytes[4..20], subject, header, payload]);
        bytes.extend_from_slice(&sum);
        bytes
    }

    #[test]
    fn records_are_read_when_they_are_whole_and_right() {
        let sums = Sums::of_block("S", 1);
        let bytes = record(5, b"s.1", b"NATS/1.0\r\n\r\n", b"hello", &sums);
        let (subject, header, payload) = (&b"s.1"[..], &b"NATS/1.0\r\n\r\n"[..], &b"hello"[..]);
        let wanted = Record::Message { seq: 5, time_ns: 77, subject, header, payload };
        let left = bytes.len() as u64;
        assert_eq!(read_record(&bytes, left, &sums), Ok(Some((wanted, bytes.len()))));
        for cut in 0..bytes.len() {
            assert_eq!(read_record(&bytes[..cut], left, &sums), Ok(None));
        }
        // What is longer than what is left of the block is damage.
        assert!(read_record(&bytes, left - 1, &sums).is_err());
        assert!(read_record(&bytes, 10, &sums).is_err());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            let read = read_record(&damaged, left, &sums);
            // The length of the headers is not summed up by the reference.
            let is_header_len = (RECORD_HEAD + 3..RECORD_HEAD + 7).contains(&at);
            assert!(is_header_len || !matches!(read, Ok(Some(_))), "byte {at}");
        }
        let gone = record(9 | REMOVED, b"", b"", b"", &sums);
        assert_eq!(read_record(&gone, 100, &sums), Ok(Some((Record::Removed { seq: 9 }, gone.len()))));
        let erased = record(9 | ERASED, b"x", b"", b"y", &sums);
        assert_eq!(read_record(&erased, 100, &sums), Ok(Some((Record::Erased, erased.len()))));
    }

    #[test]
    fn damaged_indexes_are_errors() {
        let sums = Sums::of_stream("S");
        let index = |content: &[u8]| {
            let mut bytes = content.to_vec();
            bytes.extend_from_slice(&sums.sum(&[content]));
            read_index(&bytes, &sums)
        };
        // 2 messages from 3 to 7, no subjects, a block from 3 to 7 without a set.
        let whole = [11, 4, 2, 60, 3, 0, 7, 0, 0, 1, 1, 60, 3, 0, 7, 0, 0, 0, 0];
        let wanted = Index { first_seq: 3, last_seq: 7, deleted: vec![] };
        assert_eq!(index(&whole), Ok(Some(wanted)));
        for cut in 2..whole.len() {
            assert!(index(&whole[..cut]).is_err(), "{cut}");
        }
        assert_eq!(index(&[11, 9, 0, 0]), Ok(None));
        assert!(read_index(&whole, &sums).is_err());
        assert!(read_index(b"", &sums).is_err());
    }
}
