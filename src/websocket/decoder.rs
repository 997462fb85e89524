//! From the bytes of a client to pieces of messages, unmasked where they lie, wherever reads cut the frames.
//!
//! Payloads are not collected: NATS is a stream, so every piece of a payload is handed on as soon as it is there. Only heads
//! and the payloads of control frames, 125 bytes at most, are put together.

use std::ops::Range;

use super::frame::{BINARY, CLOSE, COMPRESSED, CONTINUATION, CONTROL_LEN_MAX, FINAL, PING, PONG, TEXT};
use super::mask::unmask;

/// The longest head that a client may send: the mask comes with it.
const HEAD_LEN_MAX: usize = 14;

const MASKED: u8 = 0x80;

/// The frames of one client.
#[derive(Debug)]
pub struct Decoder {
    /// Clients have to mask what they send.
    is_masked: bool,
    /// Compression has been agreed on.
    may_compress: bool,
    /// The beginning of a head, or of a control frame's payload behind it.
    head: [u8; HEAD_LEN_MAX],
    head_len: u8,
    frame: Option<Frame>,
    /// The message that has begun and not ended, and whether it is compressed.
    message: Option<bool>,
    control: Vec<u8>,
}

/// The frame that is under way.
#[derive(Debug, Clone, Copy)]
struct Frame {
    kind: Kind,
    left: u64,
    key: [u8; 4],
    at: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Data { is_compressed: bool, ends_message: bool },
    Control(u8),
}

/// What has arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// A part of a message's payload; it may be empty.
    Data {
        /// Where it lies.
        range: Range<usize>,
        /// Whether the message is compressed.
        is_compressed: bool,
        /// Whether it is the message's end.
        ends_message: bool,
    },
    /// To be answered with the same payload.
    Ping(Vec<u8>),
    /// An answer to nothing.
    Pong,
    /// The client closes, for these reasons.
    Close(Vec<u8>),
}

/// What a client does wrong. The texts are the reference's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's text says it")]
pub enum FrameError {
    #[error("RSV2 and RSV3 must be clear")]
    ReservedBits,
    #[error("compressed frame received without negotiated permessage-deflate")]
    NotNegotiated,
    #[error("mask bit missing")]
    NotMasked,
    #[error("control frame length bigger than maximum allowed of 125 bytes")]
    LongControl,
    #[error("control frame does not have final bit set")]
    FragmentedControl,
    #[error("control frame must not be compressed")]
    CompressedControl,
    #[error("new message started before final frame for previous message was received")]
    UnfinishedMessage,
    #[error("invalid continuation frame")]
    Continuation,
    #[error("unknown opcode {0}")]
    Opcode(u8),
    #[error("invalid 64-bit payload length")]
    Length,
    #[error("close frame payload cannot be 1 byte")]
    CloseLength,
    #[error("invalid close status code {0}")]
    CloseStatus(u16),
}

impl Decoder {
    /// At the beginning of a connection. `is_masked`: its frames have to be. `may_compress`: that has been agreed on.
    pub fn new(is_masked: bool, may_compress: bool) -> Decoder {
        Decoder {
            is_masked,
            may_compress,
            head: [0; HEAD_LEN_MAX],
            head_len: 0,
            frame: None,
            message: None,
            control: Vec::new(),
        }
    }

    /// The next piece of what lies in `bytes` behind `at`, which moves on; `None` if there is no more of one.
    ///
    /// # Errors
    ///
    /// The client breaks the rules; nothing it sends can be understood any more.
    pub fn next(&mut self, bytes: &mut [u8], at: &mut usize) -> Result<Option<Piece>, FrameError> {
        let frame = match self.frame {
            Some(frame) => frame,
            None => match self.read_head(bytes, at)? {
                Some(frame) => frame,
                None => return Ok(None),
            },
        };
        match frame.kind {
            Kind::Data { is_compressed, ends_message } => {
                if frame.left > 0 && *at == bytes.len() {
                    self.frame = Some(frame);
                    return Ok(None);
                }
                let (range, frame) = self.take_payload(frame, bytes, at);
                let ends_message = ends_message && frame.left == 0;
                Ok(Some(Piece::Data { range, is_compressed, ends_message }))
            }
            Kind::Control(opcode) => {
                let (range, frame) = self.take_payload(frame, bytes, at);
                self.control.extend_from_slice(&bytes[range]);
                if frame.left > 0 {
                    return Ok(None);
                }
                let payload = std::mem::take(&mut self.control);
                Ok(Some(match opcode {
                    PING => Piece::Ping(payload),
                    PONG => Piece::Pong,
                    _ => Piece::Close(payload),
                }))
            }
        }
    }

    /// Takes what there is of a frame's payload, and keeps what is left of the frame.
    fn take_payload(&mut self, frame: Frame, bytes: &mut [u8], at: &mut usize) -> (Range<usize>, Frame) {
        let len = frame.left.min((bytes.len() - *at) as u64) as usize;
        let range = *at..*at + len;
        if self.is_masked {
            unmask(&mut bytes[range.clone()], frame.key, frame.at);
        }
        *at += len;
        let left = frame.left - len as u64;
        let frame = Frame { left, at: (frame.at + len) % 4, ..frame };
        self.frame = (left > 0).then_some(frame);
        (range, frame)
    }

    fn read_head(&mut self, bytes: &[u8], at: &mut usize) -> Result<Option<Frame>, FrameError> {
        loop {
            let len = usize::from(self.head_len);
            let wanted = self.head_len_wanted()?;
            if len == wanted {
                break;
            }
            let more = (wanted - len).min(bytes.len() - *at);
            if more == 0 {
                return Ok(None);
            }
            self.head[len..len + more].copy_from_slice(&bytes[*at..*at + more]);
            self.head_len += more as u8;
            *at += more;
        }
        let [first, second, ..] = self.head;
        let (left, key_at) = match second & 0x7F {
            126 => (u64::from(u16::from_be_bytes([self.head[2], self.head[3]])), 4),
            127 => {
                let (_, length) = self.head[..10].split_last_chunk::<8>().expect("ten bytes have eight");
                (u64::from_be_bytes(*length), 10)
            }
            short => (u64::from(short), 2),
        };
        if left >> 63 != 0 {
            return Err(FrameError::Length);
        }
        let mut key = [0; 4];
        if self.is_masked {
            key.copy_from_slice(&self.head[key_at..key_at + 4]);
        }
        self.head_len = 0;
        let kind = self.begin_frame(first);
        Ok(Some(Frame { kind, left, key, at: 0 }))
    }

    /// How long the head is, as far as what is there of it tells, which is looked at as soon as it is there.
    fn head_len_wanted(&self) -> Result<usize, FrameError> {
        let [first, second, ..] = self.head;
        if self.head_len >= 1 {
            if first & 0x30 != 0 {
                return Err(FrameError::ReservedBits);
            }
            if first & COMPRESSED != 0 && !self.may_compress {
                return Err(FrameError::NotNegotiated);
            }
        }
        if self.head_len < 2 {
            return Ok(2);
        }
        if self.head_len == 2 {
            self.check_start(first, second)?;
        }
        let length = match second & 0x7F {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        Ok(2 + length + if self.is_masked { 4 } else { 0 })
    }

    fn check_start(&self, first: u8, second: u8) -> Result<(), FrameError> {
        if self.is_masked && second & MASKED == 0 {
            return Err(FrameError::NotMasked);
        }
        let (is_final, is_compressed) = (first & FINAL != 0, first & COMPRESSED != 0);
        match first & 0xF {
            CLOSE | PING | PONG => {
                if usize::from(second & 0x7F) > CONTROL_LEN_MAX {
                    Err(FrameError::LongControl)
                } else if !is_final {
                    Err(FrameError::FragmentedControl)
                } else if is_compressed {
                    Err(FrameError::CompressedControl)
                } else {
                    Ok(())
                }
            }
            TEXT | BINARY if self.message.is_some() => Err(FrameError::UnfinishedMessage),
            TEXT | BINARY => Ok(()),
            CONTINUATION if self.message.is_none() || is_compressed => Err(FrameError::Continuation),
            CONTINUATION => Ok(()),
            other => Err(FrameError::Opcode(other)),
        }
    }

    /// What kind of frame begins; its head has been checked.
    fn begin_frame(&mut self, first: u8) -> Kind {
        let opcode = first & 0xF;
        if opcode >= CLOSE {
            return Kind::Control(opcode);
        }
        let is_compressed = self.message.unwrap_or(first & COMPRESSED != 0);
        let ends_message = first & FINAL != 0;
        self.message = (!ends_message).then_some(is_compressed);
        Kind::Data { is_compressed, ends_message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A frame as a client sends it.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let key = [7, 200, 33, 4];
        let mut bytes = Vec::new();
        super::super::frame::push_head(&mut bytes, first, payload.len());
        bytes[1] |= MASKED;
        bytes.extend_from_slice(&key);
        let at = bytes.len();
        bytes.extend_from_slice(payload);
        unmask(&mut bytes[at..], key, 0);
        bytes
    }

    /// What a connection sees, pieces of a payload put together again.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Seen {
        stream: Vec<u8>,
        /// With where they stand in the stream.
        events: Vec<(usize, String)>,
    }

    fn see(decoder: &mut Decoder, bytes: &[u8], seen: &mut Seen) -> Result<(), FrameError> {
        let mut bytes = bytes.to_vec();
        let mut at = 0;
        while let Some(piece) = decoder.next(&mut bytes, &mut at)? {
            match piece {
                Piece::Data { range, is_compressed, ends_message } => {
                    seen.stream.extend_from_slice(&bytes[range]);
                    if ends_message {
                        seen.events.push((seen.stream.len(), format!("end {is_compressed}")));
                    }
                }
                control => seen.events.push((seen.stream.len(), format!("{control:?}"))),
            }
        }
        assert_eq!(at, bytes.len());
        Ok(())
    }

    fn error_of(frames: &[Vec<u8>]) -> FrameError {
        see(&mut Decoder::new(true, false), &frames.concat(), &mut Seen::default()).unwrap_err()
    }

    #[test]
    fn what_clients_do_wrong_is_named_in_the_references_words() {
        let unmasked = vec![0x82, 1, b'x'];
        for (frames, text) in [
            (vec![vec![0xA2]], "RSV2 and RSV3 must be clear"),
            (vec![vec![0xC2]], "compressed frame received without negotiated permessage-deflate"),
            (vec![unmasked], "mask bit missing"),
            (vec![frame(0x89, &[0; 126])], "control frame length bigger than maximum allowed of 125 bytes"),
            (vec![frame(0x09, b"")], "control frame does not have final bit set"),
            (
                vec![frame(0x02, b"a"), frame(0x82, b"b")],
                "new message started before final frame for previous message was received",
            ),
            (vec![frame(0x80, b"a")], "invalid continuation frame"),
            (vec![frame(0x83, b"a")], "unknown opcode 3"),
            (vec![frame(0x8B, b"a")], "unknown opcode 11"),
            (vec![vec![0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]], "invalid 64-bit payload length"),
        ] {
            assert_eq!(error_of(&frames).to_string(), text);
        }
        let mut compressing = Decoder::new(true, true);
        let error = see(&mut compressing, &frame(0xC9, b""), &mut Seen::default()).unwrap_err();
        assert_eq!(error, FrameError::CompressedControl);
    }

    #[test]
    fn without_masking_frames_are_taken_as_they_are() {
        let mut seen = Seen::default();
        see(&mut Decoder::new(false, false), &[0x82, 2, b'h', b'i'], &mut seen).unwrap();
        assert_eq!(seen.stream, b"hi");
    }

    proptest! {
        #[test]
        fn frames_cut_anywhere_give_the_same_events(
            messages in proptest::collection::vec(
                (proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..4), any::<bool>(), 0u8..3),
                0..6,
            ),
            cuts in proptest::collection::vec(1usize..40, 0..200),
        ) {
            let mut bytes = Vec::new();
            for (fragments, is_text, control) in &messages {
                for (index, fragment) in fragments.iter().enumerate() {
                    let opcode = match index { 0 if *is_text => TEXT, 0 => BINARY, _ => CONTINUATION };
                    let last = if index + 1 == fragments.len() { FINAL } else { 0 };
                    bytes.extend(frame(last | opcode, fragment));
                    match control {
                        1 => bytes.extend(frame(FINAL | PING, &fragment[..fragment.len().min(125)])),
                        2 => bytes.extend(frame(FINAL | PONG, b"x")),
                        _ => {}
                    }
                }
            }
            let mut whole = Seen::default();
            see(&mut Decoder::new(true, false), &bytes, &mut whole).unwrap();
            let expected: Vec<u8> = messages.iter().flat_map(|(fragments, ..)| fragments.concat()).collect();
            prop_assert_eq!(&whole.stream, &expected);
            let (mut decoder, mut cut_up) = (Decoder::new(true, false), Seen::default());
            let mut rest = &bytes[..];
            for cut in cuts {
                let (first, behind) = rest.split_at(cut.min(rest.len()));
                see(&mut decoder, first, &mut cut_up).unwrap();
                rest = behind;
            }
            see(&mut decoder, rest, &mut cut_up).unwrap();
            prop_assert_eq!(cut_up, whole);
        }
    }
}
