//! permessage-deflate (RFC 7692) as the reference agrees on it: neither side keeps anything from one message to the next, so
//! that one [`Deflater`] and one [`Inflater`] serve all connections of a worker.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// What each message's data ends with, and which is therefore left out.
const TAIL: [u8; 4] = [0, 0, 0xFF, 0xFF];

/// What an inflater gets behind each message: that, and an empty last block.
const INFLATER_TAIL: [u8; 9] = [0, 0, 0xFF, 0xFF, 1, 0, 0, 0xFF, 0xFF];

/// Memory that grows by this much.
const ROOM: usize = 16 * 1024;

/// Compresses messages.
pub struct Deflater(Compress);

/// Decompresses messages.
pub struct Inflater(Decompress);

/// Why a message cannot be decompressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InflateError {
    /// More comes out of it than may.
    #[error("maximum payload exceeded")]
    TooLong,
    /// It is not compressed data, or not all of it.
    #[error("flate: corrupt input")]
    Corrupt,
}

impl std::fmt::Debug for Deflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Deflater")
    }
}

impl std::fmt::Debug for Inflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inflater")
    }
}

impl Default for Deflater {
    fn default() -> Deflater {
        Deflater(Compress::new(Compression::fast(), false))
    }
}

impl Default for Inflater {
    fn default() -> Inflater {
        Inflater(Decompress::new(false))
    }
}

impl Deflater {
    /// Adds one message, made of `slices` with `len` bytes in all, to `out`.
    pub fn deflate<'a>(&mut self, slices: impl Iterator<Item = &'a [u8]>, len: usize, out: &mut Vec<u8>) {
        self.0.reset();
        // What cannot be compressed grows by some bytes per block. With room for that nothing is ever left over: a flush
        // that has to be called again does not say whether it is through.
        out.reserve(len + len / 8 + ROOM);
        for slice in slices {
            self.write(slice, FlushCompress::None, out);
        }
        self.write(&[], FlushCompress::Sync, out);
        assert!(out.ends_with(&TAIL), "a flush ends so");
        out.truncate(out.len() - TAIL.len());
    }

    fn write(&mut self, input: &[u8], flush: FlushCompress, out: &mut Vec<u8>) {
        let before = self.0.total_in();
        // Without input there may be nothing to do, which is called an error.
        let _ = self.0.compress_vec(input, out, flush).expect("compressing memory does not fail");
        assert!(self.0.total_in() - before == input.len() as u64 && out.len() < out.capacity());
    }
}

impl Inflater {
    /// Adds the message that `message` was before it was compressed to `out`, which may be `len_max` bytes at most.
    ///
    /// # Errors
    ///
    /// It is longer, or was not compressed.
    pub fn inflate(&mut self, message: &[u8], len_max: usize, out: &mut Vec<u8>) -> Result<(), InflateError> {
        self.0.reset(false);
        let begin = out.len();
        for mut input in [message, &INFLATER_TAIL] {
            loop {
                let room = (len_max + 1 - (out.len() - begin)).min(ROOM);
                out.reserve_exact(room);
                let (before_in, before_out) = (self.0.total_in(), out.len());
                let status = self
                    .0
                    .decompress_vec(input, out, FlushDecompress::None)
                    .map_err(|_| InflateError::Corrupt)?;
                let taken = (self.0.total_in() - before_in) as usize;
                input = &input[taken..];
                if out.len() - begin > len_max {
                    out.truncate(begin + len_max);
                    return Err(InflateError::TooLong);
                }
                if status == Status::StreamEnd {
                    return Ok(());
                }
                let has_room = out.len() < out.capacity();
                if input.is_empty() && has_room {
                    break;
                }
                if taken == 0 && out.len() == before_out && has_room {
                    return Err(InflateError::Corrupt);
                }
            }
        }
        Err(InflateError::Corrupt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn deflated(slices: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        let len = slices.iter().map(|slice| slice.len()).sum();
        Deflater::default().deflate(slices.iter().copied(), len, &mut out);
        out
    }

    #[test]
    fn the_example_of_the_specification_is_understood() {
        // RFC 7692, 7.2.3.1 and 7.2.3.3: "Hello", compressed, and in a block without compression.
        for message in [
            &[0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00][..],
            &[0x00, 0x05, 0x00, 0xFA, 0xFF, 0x48, 0x65, 0x6C, 0x6C, 0x6F, 0x00],
        ] {
            let mut out = Vec::new();
            Inflater::default().inflate(message, 100, &mut out).unwrap();
            assert_eq!(out, b"Hello");
        }
    }

    #[test]
    fn a_message_may_be_as_long_as_it_may_and_no_longer() {
        let bomb = deflated(&[&[0; 1 << 20]]);
        assert!(bomb.len() < 8 * 1024);
        let mut inflater = Inflater::default();
        let mut out = b"before".to_vec();
        inflater.inflate(&bomb, 1 << 20, &mut out).unwrap();
        assert_eq!(out.len(), 6 + (1 << 20));
        out.clear();
        assert_eq!(inflater.inflate(&bomb, (1 << 20) - 1, &mut out), Err(InflateError::TooLong));
        assert!(out.len() < 1 << 20);
        inflater
            .inflate(&deflated(&[b"again"]), 5, {
                out.clear();
                &mut out
            })
            .unwrap();
        assert_eq!(out, b"again");
    }

    #[test]
    fn what_is_not_compressed_is_refused() {
        let mut out = Vec::new();
        assert_eq!(Inflater::default().inflate(b"\xFFPING\r\n", 100, &mut out), Err(InflateError::Corrupt));
    }

    proptest! {
        #[test]
        fn what_was_compressed_comes_back(
            parts in proptest::collection::vec(proptest::collection::vec(0u8..4, 0..40_000), 0..4),
        ) {
            let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            let mut out = Vec::new();
            Inflater::default().inflate(&deflated(&slices), 200_000, &mut out).unwrap();
            prop_assert_eq!(out, parts.concat());
        }

        #[test]
        fn whatever_is_sent_ends(message in proptest::collection::vec(any::<u8>(), 0..500)) {
            let mut out = Vec::new();
            let _ = Inflater::default().inflate(&message, 10_000, &mut out);
            prop_assert!(out.len() <= 10_000);
        }
    }
}
