//! S2, the compression of backups: frames as `klauspost/compress` writes them, of which Snappy's are a part.
//!
//! A frame is a chunk: a byte that says what it is, its length in three bytes, and its content. A stream begins with the chunk
//! `S2sTwO` or `sNaPpY`; data chunks hold a checksum (CRC32C, turned and shifted) and a block, compressed or not, of at most 4 MiB.
//! Blocks are Snappy's with one element more: a copy that repeats the last offset. What is written here is Snappy, which every
//! reader of S2 reads.
//!
//! Bytes are pushed into a [`Decoder`] as they come, and one block at a time comes out, so that whoever reads decides how much there is
//! at once. The formats: snappy's `framing_format.txt` and `format_description.txt`, and the package documentation of `s2`.

use std::io::Write as _;

/// The most that a block holds.
const BLOCK_BYTES_MAX: usize = 4 << 20;
/// The longest data chunk that is read: a block that does not compress, and what stands before it.
const CHUNK_BYTES_MAX: usize = BLOCK_BYTES_MAX + BLOCK_BYTES_MAX / 6 + 64;
const HEAD_BYTES: usize = 4;
const CHECKSUM_BYTES: usize = 4;

const COMPRESSED: u8 = 0x00;
const PLAIN: u8 = 0x01;
/// Chunks from here on may be passed over by who does not know them.
const SKIPPABLE: u8 = 0x80;
const IDENTIFIER: u8 = 0xff;

/// Why bytes cannot be decompressed. The texts are the reference's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum S2Error {
    /// They are no S2, or damaged, or end too early.
    #[error("s2: corrupt input")]
    Corrupt,
    /// A checksum is not that of the data.
    #[error("s2: corrupt input, crc mismatch")]
    Checksum,
    /// Something that this version of the format does not have.
    #[error("s2: unsupported input")]
    Unsupported,
}

/// Bytes in, blocks out.
#[derive(Debug, Default)]
pub struct Decoder {
    input: Vec<u8>,
    /// What of it was read.
    at: usize,
    /// Bytes of a chunk that is passed over and has not come yet.
    skip: usize,
    is_begun: bool,
}

impl Decoder {
    /// More bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        self.input.drain(..self.at);
        self.at = 0;
        self.input.extend_from_slice(&bytes[skipped..]);
    }

    /// Decompresses the next chunk and appends its content. `false`: it has not come yet.
    ///
    /// # Errors
    ///
    /// See [`S2Error`].
    pub fn step(&mut self, out: &mut Vec<u8>) -> Result<bool, S2Error> {
        let rest = &self.input[self.at..];
        let Some(head) = rest.first_chunk::<HEAD_BYTES>() else { return Ok(false) };
        let (kind, len) = (head[0], u32::from_le_bytes([head[1], head[2], head[3], 0]) as usize);
        if !self.is_begun && kind != IDENTIFIER {
            return Err(S2Error::Corrupt);
        }
        if kind >= SKIPPABLE && kind != IDENTIFIER {
            let there = len.min(rest.len() - HEAD_BYTES);
            self.skip = len - there;
            self.at += HEAD_BYTES + there;
            return Ok(true);
        }
        if len > CHUNK_BYTES_MAX {
            return Err(S2Error::Unsupported);
        }
        let Some(content) = rest.get(HEAD_BYTES..HEAD_BYTES + len) else { return Ok(false) };
        match kind {
            IDENTIFIER if content == b"S2sTwO" || content == b"sNaPpY" => self.is_begun = true,
            IDENTIFIER => return Err(S2Error::Corrupt),
            COMPRESSED | PLAIN => {
                let (sum, data) = content.split_first_chunk::<CHECKSUM_BYTES>().ok_or(S2Error::Corrupt)?;
                let start = out.len();
                if kind == COMPRESSED {
                    decode_block(data, out)?;
                } else if data.len() <= BLOCK_BYTES_MAX {
                    out.extend_from_slice(data);
                } else {
                    return Err(S2Error::Corrupt);
                }
                if !cfg!(fuzzing) && masked_sum(&out[start..]) != u32::from_le_bytes(*sum) {
                    return Err(S2Error::Checksum);
                }
            }
            _ => return Err(S2Error::Unsupported),
        }
        self.at += HEAD_BYTES + len;
        Ok(true)
    }

    /// Whether a chunk has begun and not ended.
    pub fn is_cut(&self) -> bool {
        self.at < self.input.len() || self.skip > 0
    }
}

/// The checksum as the format has it: the CRC32C of the data, so changed that data that hold such checksums do no harm.
fn masked_sum(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Decompresses a block, and appends what was in it.
///
/// # Errors
///
/// It is none.
pub fn decode_block(block: &[u8], out: &mut Vec<u8>) -> Result<(), S2Error> {
    decode(block, out).ok_or(S2Error::Corrupt)
}

fn decode(block: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut rest = block;
    let mut wanted = 0_usize;
    for shift in (0..35).step_by(7) {
        let byte = take(&mut rest, 1)?;
        wanted |= (byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    if wanted > BLOCK_BYTES_MAX {
        return None;
    }
    let start = out.len();
    let end = start + wanted;
    out.reserve(wanted);
    let mut offset = 0_usize;
    while !rest.is_empty() {
        let tag = take(&mut rest, 1)?;
        let mut len = (tag >> 2) + 1;
        match tag & 3 {
            0 => {
                if len > 60 {
                    len = take(&mut rest, len - 60)? + 1;
                }
                if len > end - out.len() {
                    return None;
                }
                out.extend_from_slice(rest.split_off(..len)?);
                continue;
            }
            1 => {
                len = tag >> 2 & 7;
                let low = take(&mut rest, 1)?;
                let new = (tag & 0xe0) << 3 | low;
                if new == 0 {
                    // The same offset again, with lengths that need more bytes.
                    len = match len {
                        5 => take(&mut rest, 1)? + 4,
                        6 => take(&mut rest, 2)? + (1 << 8),
                        7 => take(&mut rest, 3)? + (1 << 16),
                        len => len,
                    };
                } else {
                    offset = new;
                }
                len += 4;
            }
            2 => offset = take(&mut rest, 2)?,
            _ => offset = take(&mut rest, 4)?,
        }
        if offset == 0 || offset > out.len() - start || len > end - out.len() {
            return None;
        }
        copy_from(out, offset, len);
    }
    (out.len() == end).then_some(())
}

/// Appends `len` bytes that begin `offset` before the end; they may run into themselves.
fn copy_from(out: &mut Vec<u8>, offset: usize, mut len: usize) {
    let from = out.len() - offset;
    while len > 0 {
        let some = len.min(out.len() - from);
        out.extend_from_within(from..from + some);
        len -= some;
    }
}

/// A number of so many bytes.
fn take(rest: &mut &[u8], bytes: usize) -> Option<usize> {
    let number = rest.split_off(..bytes)?;
    Some(number.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
}

/// Data in, frames out.
pub struct Encoder {
    frames: snap::write::FrameEncoder<Vec<u8>>,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Encoder")
    }
}

impl Default for Encoder {
    fn default() -> Encoder {
        Encoder { frames: snap::write::FrameEncoder::new(Vec::new()) }
    }
}

impl Encoder {
    /// Adds data. What makes whole blocks of 64 KiB is compressed.
    pub fn push(&mut self, data: &[u8]) {
        self.frames.write_all(data).expect("a vector takes everything");
    }

    /// Compresses what is left.
    pub fn flush(&mut self) {
        self.frames.flush().expect("a vector takes everything");
    }

    /// The frames so far, to be taken out.
    pub fn frames(&mut self) -> &mut Vec<u8> {
        self.frames.get_mut()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decompress(bytes: &[u8], step: usize) -> Result<Vec<u8>, S2Error> {
        let mut decoder = Decoder::default();
        let mut out = Vec::new();
        for part in bytes.chunks(step) {
            decoder.push(part);
            while decoder.step(&mut out)? {}
        }
        if decoder.is_cut() { Err(S2Error::Corrupt) } else { Ok(out) }
    }

    #[test]
    fn a_repeated_offset_is_the_one_before_with_every_length() {
        // "abcd" and then copies of it: with offset 4, and again without saying so.
        let block = |repeat: &[u8], len: usize| {
            let mut block = Vec::new();
            let whole = 4 + 4 + len;
            block.extend_from_slice(&[whole as u8 | 0x80, (whole >> 7) as u8 | 0x80, (whole >> 14) as u8]);
            block.extend_from_slice(b"\x0cabcd\x01\x04");
            block.extend_from_slice(repeat);
            block
        };
        for (repeat, len) in [
            (&[1 | 2 << 2, 0][..], 6),
            (&[1 | 5 << 2, 0, 9], 17),
            (&[1 | 6 << 2, 0, 1, 1], 1 + 256 + 256 + 4),
            (&[1 | 7 << 2, 0, 1, 0, 0], 1 + 65536 + 4),
        ] {
            let mut out = b"before".to_vec();
            decode_block(&block(repeat, len), &mut out).unwrap();
            let wanted: Vec<u8> = b"abcd".iter().copied().cycle().take(8 + len).collect();
            assert_eq!(&out[6..], &wanted[..]);
        }
        // Nothing to repeat, and nothing before the block's own beginning.
        assert_eq!(decode_block(&[4, 1, 0], &mut b"before".to_vec()), Err(S2Error::Corrupt));
        assert_eq!(decode_block(&[5, 0, b'a', 1, 2], &mut b"before".to_vec()), Err(S2Error::Corrupt));
    }

    #[test]
    fn what_the_reference_has_compressed_is_read_whatever_pieces_it_comes_in() {
        let backup = include_bytes!("fixtures/2.15.1.backup");
        let whole = decompress(backup, backup.len()).unwrap();
        assert!(whole.starts_with(b"NATSARC1"));
        for step in [1, 7, 1000] {
            assert_eq!(decompress(backup, step).unwrap(), whole);
        }
        assert_eq!(decompress(&backup[..backup.len() - 1], 100), Err(S2Error::Corrupt));
        let mut damaged = backup.to_vec();
        damaged[1000] ^= 1;
        assert!(decompress(&damaged, 100).is_err());
        assert_eq!(decompress(b"something else", 100), Err(S2Error::Corrupt));
    }

    proptest! {
        #[test]
        fn what_is_compressed_is_what_comes_out(
            parts in prop::collection::vec((any::<u8>(), 0_usize..100_000, any::<bool>()), 0..6),
            step in 1_usize..50_000,
        ) {
            let mut encoder = Encoder::default();
            let mut data = Vec::new();
            for (byte, len, flush) in parts {
                let part: Vec<u8> = (0..len).map(|at| byte.wrapping_mul((at / 7) as u8)).collect();
                encoder.push(&part);
                if flush {
                    encoder.flush();
                }
                data.extend_from_slice(&part);
            }
            encoder.flush();
            prop_assert_eq!(decompress(encoder.frames(), step).unwrap(), data);
        }

        #[test]
        fn any_bytes_are_no_more_than_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut framed = b"\xff\x06\x00\x00S2sTwO\x00".to_vec();
            framed.extend_from_slice(&(bytes.len() as u32).to_le_bytes()[..3]);
            framed.extend_from_slice(&bytes);
            let _ = decompress(&framed, 50);
            let mut out = Vec::new();
            let _ = decode_block(&bytes, &mut out);
            prop_assert!(out.len() <= BLOCK_BYTES_MAX);
        }
    }
}
