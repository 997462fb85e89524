//! Backups of streams, in the reference's formats: what `nats stream backup` gets and `nats stream restore` brings back.
//!
//! * [`snapshot`]: a stream in pieces to a client, which says how fast. [`restore`]: a stream from pieces.
//! * [`reader`]: what is in a backup, one thing after the other. [`archive`]: the format since 2.15, messages one by one;
//!   [`tar`], [`classic`]: the one before, files of the reference's own store. [`consumers`]: consumers in both.
//! * [`s2`]: the compression around all of it.
//!
//! Sans-IO, and bounded whatever comes in: at most [`PART_BYTES_MAX`] of one thing are kept, but for a message, which is as
//! large as clients may publish.
//!
//! The formats are those of nats-server 2.15.1 (`server/archive`, `server/stream_backup.go`) and 2.10 to 2.14
//! (`server/filestore.go`, `server/store.go`).

pub mod archive;
pub mod classic;
pub mod consumers;
pub mod reader;
pub mod restore;
pub mod s2;
pub mod snapshot;
pub mod tar;

use s2::S2Error;

use super::ApiError;
use crate::store::StoreError;

/// The most of one part of a backup that is kept until it is whole, messages aside: a configuration, a consumer's state, an index.
pub const PART_BYTES_MAX: usize = 64 << 20;

/// Why a stream cannot be restored. Where the reference has a text of its own it is that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// It is not compressed as it should be.
    #[error(transparent)]
    S2(#[from] S2Error),
    /// It ends where more should follow.
    #[error("EOF")]
    End,
    /// It is no archive, or damaged.
    #[error("archive: invalid archive stream")]
    Archive,
    /// It is no tar file, or damaged.
    #[error("archive/tar: invalid tar header")]
    Tar,
    /// It holds something that no backup does.
    #[error("unexpected content (account={0})")]
    Unexpected(String),
    /// Something in it is too large.
    #[error("{0} is too large")]
    TooLarge(String),
    /// Something in it is not as it should be.
    #[error("{0}")]
    Wrong(String),
    /// It is one of another stream.
    #[error("stream names do not match")]
    OtherStream,
    /// A checksum is not that of what it is for.
    #[error("checksum of {0} does not match")]
    Checksum(String),
    /// A message cannot be stored.
    #[error("failed to store message sequence {seq}: {error}")]
    Store {
        /// Which.
        seq: u64,
        /// Why.
        error: StoreError,
    },
    /// A consumer cannot be made.
    #[error("failed to add consumer {name:?}: {error}")]
    Consumer {
        /// Which.
        name: String,
        /// Why.
        error: ApiError,
    },
    /// The stream cannot be made.
    #[error("error adding stream: {0}")]
    Stream(ApiError),
    /// An error that is told as it is.
    #[error("{}", .0.description)]
    Api(ApiError),
}

impl BackupError {
    fn wrong(what: impl Into<String>) -> BackupError {
        BackupError::Wrong(what.into())
    }
}

/// Reads numbers as Go's `encoding/binary` writes them: seven bits a byte, the lowest first.
#[derive(Debug, Clone, Copy)]
struct Numbers<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// What stands where a number should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NumberError {
    /// Its end is missing.
    Cut,
    /// It has more than 64 bits.
    TooLong,
}

impl Numbers<'_> {
    fn unsigned(&mut self) -> Result<u64, NumberError> {
        let mut number = 0;
        for shift in (0..).step_by(7) {
            let byte = *self.bytes.get(self.at).ok_or(NumberError::Cut)?;
            if shift > 63 || (shift == 63 && byte > 1) {
                return Err(NumberError::TooLong);
            }
            self.at += 1;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        Ok(number)
    }

    fn signed(&mut self) -> Result<i64, NumberError> {
        let number = self.unsigned()?;
        Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }
}

fn write_unsigned(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn write_signed(out: &mut Vec<u8>, number: i64) {
    write_unsigned(out, ((number << 1) ^ (number >> 63)).cast_unsigned());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_they_are_written() {
        for number in [0, 1, -1, 63, -64, 64, 300, i64::MAX, i64::MIN] {
            let mut bytes = Vec::new();
            write_signed(&mut bytes, number);
            write_unsigned(&mut bytes, number.cast_unsigned());
            let mut numbers = Numbers { bytes: &bytes, at: 0 };
            assert_eq!(numbers.signed(), Ok(number));
            assert_eq!(numbers.unsigned(), Ok(number.cast_unsigned()));
            assert_eq!(numbers.unsigned(), Err(NumberError::Cut));
        }
        assert_eq!(Numbers { bytes: &[0xff; 11], at: 0 }.unsigned(), Err(NumberError::TooLong));
    }
}
