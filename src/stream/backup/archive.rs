//! The archive of the reference's backups since 2.15: entries with a name, a time, a sequence and two lengths.
//!
//! `NATSARC1`, then for each entry: length of the name, time, sequence, length of the header, length of the payload, all of them as
//! numbers of Go (the time signed); the name, header and payload. First comes `state.json`, then a `consumers/NAME` for each consumer, then the
//! messages, whose names are their subjects; an entry of nothing but zeros ends it.

use super::{BackupError, NumberError, Numbers, write_signed, write_unsigned};

/// What it begins with.
pub const MAGIC: &[u8; 8] = b"NATSARC1";
/// The name of the first entry.
pub const STATE: &str = "state.json";
/// Before the name of a consumer.
pub const CONSUMERS: &str = "consumers/";
/// The longest name.
const NAME_LEN_MAX: u64 = 1 << 20;

/// What stands before an entry's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Entry<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Nanoseconds since 1970.
    pub time_ns: i64,
    /// Of a message.
    pub seq: u64,
    /// How long a message's header is.
    pub header_len: u64,
    /// How long the rest is.
    pub payload_len: u64,
}

impl Entry<'_> {
    /// Appends it. Its content follows.
    pub fn write(&self, out: &mut Vec<u8>) {
        write_unsigned(out, self.name.len() as u64);
        write_signed(out, self.time_ns);
        write_unsigned(out, self.seq);
        write_unsigned(out, self.header_len);
        write_unsigned(out, self.payload_len);
        out.extend_from_slice(self.name);
    }

    /// How much content it has.
    pub fn content_len(&self) -> u64 {
        self.header_len + self.payload_len
    }

    /// Whether it is the last one.
    pub fn is_end(&self) -> bool {
        self.seq == 0 && self.time_ns == 0 && self.content_len() == 0
    }
}

/// The entry that begins `bytes`, and how long it is without its content. `None`: its end is missing.
///
/// # Errors
///
/// It is none.
pub fn read(bytes: &[u8]) -> Result<Option<(Entry<'_>, usize)>, BackupError> {
    match read_whole(bytes) {
        Ok(Some(found)) => Ok(Some(found)),
        Ok(None) => Err(BackupError::Archive),
        Err(NumberError::Cut) => Ok(None),
        Err(NumberError::TooLong) => Err(BackupError::Archive),
    }
}

fn read_whole(bytes: &[u8]) -> Result<Option<(Entry<'_>, usize)>, NumberError> {
    let mut numbers = Numbers { bytes, at: 0 };
    let name_len = numbers.unsigned()?;
    let time_ns = numbers.signed()?;
    let seq = numbers.unsigned()?;
    let header_len = numbers.unsigned()?;
    let payload_len = numbers.unsigned()?;
    let is_right = header_len.checked_add(payload_len).is_some_and(|len| i64::try_from(len).is_ok());
    if name_len > NAME_LEN_MAX || !is_right {
        return Ok(None);
    }
    let end = numbers.at + name_len as usize;
    let name = bytes.get(numbers.at..end).ok_or(NumberError::Cut)?;
    Ok(Some((Entry { name, time_ns, seq, header_len, payload_len }, end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_as_they_are_written_and_not_before_they_are_whole() {
        let entry = Entry { name: b"s.1", time_ns: -5, seq: u64::MAX, header_len: 300, payload_len: 0 };
        let mut bytes = Vec::new();
        entry.write(&mut bytes);
        for cut in 0..bytes.len() {
            assert_eq!(read(&bytes[..cut]), Ok(None));
        }
        assert_eq!(read(&bytes), Ok(Some((entry, bytes.len()))));
        assert!(!entry.is_end());
        assert!(Entry { name: b"x", ..Entry::default() }.is_end());
    }

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        for entry in [
            Entry { header_len: u64::MAX, payload_len: 2, ..Entry::default() },
            Entry { header_len: u64::MAX / 2, payload_len: u64::MAX / 2, ..Entry::default() },
        ] {
            let mut bytes = Vec::new();
            entry.write(&mut bytes);
            assert_eq!(read(&bytes), Err(BackupError::Archive));
        }
        let mut bytes = Vec::new();
        write_unsigned(&mut bytes, NAME_LEN_MAX + 1);
        bytes.extend_from_slice(&[0; 4]);
        assert_eq!(read(&bytes), Err(BackupError::Archive));
    }
}
