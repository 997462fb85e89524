//! A connection that has been upgraded.
//!
//! What arrives is unmasked where it lies. The payloads of a read then lie one behind the other: the first stays where it
//! is, and those behind it move up over the heads between them, so that a read that is one frame is not copied at all.
//! Only what was compressed comes out elsewhere.
//!
//! What goes out becomes a message when its send begins, from where it lies: the head of a frame in front, and nothing is
//! copied. Compressed, it is one message with the same content. Browsers get frames of 4 KiB, as from the reference.
//!
//! Invariant: a close is the last thing that goes out, and goes out once.

use std::ops::Range;

use super::decoder::{Decoder, FrameError, Piece};
use super::deflate::{Deflater, InflateError, Inflater};
use super::frame::{
    BINARY, CLOSE, COMPRESSED, CONTINUATION, CloseStatus, FINAL, HEAD_LEN_MAX, PONG, close_frame,
    push_control, push_head,
};
use super::upgrade::Negotiated;

/// Payload of a frame for a browser.
const BROWSER_FRAME_LEN: usize = 4096;

/// The head of such a frame.
const BROWSER_FRAME_HEAD: [u8; 4] = [FINAL | BINARY, 126, 0x10, 0];

/// Frames for a browser in one send.
const BROWSER_FRAMES_MAX: usize = 16;

/// Up to so many bytes are not worth compressing.
const COMPRESSED_LEN_MIN: usize = 64;

/// Output in one compressed message.
const COMPRESSED_LEN_MAX: usize = 128 * 1024;

/// Answers to pings that may wait to be sent. A client that makes more necessary and does not read is cut off.
const CONTROL_BYTES_MAX: usize = 64 * 1024;

/// A compressed message may be so many times as long as the longest payload, or [`GATHERED_BYTES_MAX`].
const GATHERED_PAYLOADS_MAX: usize = 8;

/// Bytes of a compressed message that are put together, whatever `max_payload` is.
const GATHERED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Decompressed bytes behind which no further message is begun: the rest of the read follows when they have been handled.
const INFLATED_BYTES_MIN: usize = 256 * 1024;

/// Pieces of a send.
pub const SEND_SLICES_MAX: usize = 64;

/// Both directions of one connection.
#[derive(Debug)]
pub struct Channel {
    decoder: Decoder,
    negotiated: Negotiated,
    /// A compressed message, as far as it is there.
    gathered: Vec<u8>,
    /// Answers to pings, and the close when its time has come.
    control: Vec<u8>,
    close: Option<Vec<u8>>,
    /// A close goes out, or has gone.
    is_closing: bool,
    /// Nothing more is understood, or of interest.
    is_ended: bool,
}

/// What has come of a read.
#[derive(Debug, PartialEq, Eq)]
pub struct Received {
    /// Where its payload lies, unless something was decompressed: then all of it is there.
    pub plain: Range<usize>,
    /// How much of it is done with. The rest is to come again when the payload has been handled.
    pub taken: usize,
    /// Nothing comes behind that payload.
    pub end: Option<ChannelEnd>,
}

/// Why nothing more comes from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChannelEnd {
    /// It has said so.
    #[error("EOF")]
    Closed,
    /// It breaks the rules.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// What it has compressed is too long, or was not compressed.
    #[error(transparent)]
    Inflate(#[from] InflateError),
    /// It sends pings and does not read the answers.
    #[error("pings whose answers are not read")]
    Pings,
}

/// What is to be sent at once.
#[derive(Debug)]
pub struct Sealed<'a> {
    pieces: [&'a [u8]; SEND_SLICES_MAX],
    count: usize,
    /// How much of the output that is.
    pub plain_len: usize,
}

impl<'a> Sealed<'a> {
    /// A single piece, which is not output.
    pub fn of(piece: &'a [u8]) -> Sealed<'a> {
        let mut sealed = Sealed { pieces: [&[]; SEND_SLICES_MAX], count: 0, plain_len: 0 };
        sealed.push(piece);
        sealed
    }

    /// The pieces in order; none of them is empty.
    pub fn pieces(&self) -> impl Iterator<Item = &'a [u8]> + '_ {
        self.pieces[..self.count].iter().copied()
    }

    /// Whether there is nothing to be sent.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn push(&mut self, piece: &'a [u8]) {
        if !piece.is_empty() {
            self.pieces[self.count] = piece;
            self.count += 1;
        }
    }
}

impl Channel {
    /// A connection behind its handshake.
    pub fn new(negotiated: Negotiated) -> Channel {
        Channel {
            decoder: Decoder::new(negotiated.masking, negotiated.compression),
            negotiated,
            gathered: Vec::new(),
            control: Vec::new(),
            close: None,
            is_closing: false,
            is_ended: false,
        }
    }

    /// Whether messages are compressed.
    pub fn is_compressing(&self) -> bool {
        self.negotiated.compression
    }

    /// Takes the frames of a read apart, where it lies. A message that was compressed is at most `payload_max` bytes long
    /// then; if there is one, all payload of the read is added to `inflated`, which is empty before.
    pub fn receive(
        &mut self,
        bytes: &mut [u8],
        payload_max: usize,
        mut inflater: Option<&mut Inflater>,
        inflated: &mut Vec<u8>,
    ) -> Received {
        let mut plain = 0..0;
        let mut at = 0;
        let mut end = None;
        while !self.is_ended && end.is_none() && inflated.len() < INFLATED_BYTES_MIN {
            let piece = match self.decoder.next(bytes, &mut at) {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(error) => {
                    self.close_for(error);
                    end = Some(error.into());
                    break;
                }
            };
            match piece {
                Piece::Data { range, is_compressed: false, .. } => {
                    if !inflated.is_empty() {
                        inflated.extend_from_slice(&bytes[range]);
                    } else if plain.is_empty() {
                        plain = range;
                    } else {
                        let len = range.len();
                        bytes.copy_within(range, plain.end);
                        plain.end += len;
                    }
                }
                Piece::Data { range, ends_message, .. } => {
                    let gathered_max =
                        payload_max.saturating_mul(GATHERED_PAYLOADS_MAX).min(GATHERED_BYTES_MAX);
                    if self.gathered.len() + range.len() > gathered_max {
                        end = Some(self.refuse_message(InflateError::TooLong));
                        break;
                    }
                    if !ends_message || !self.gathered.is_empty() {
                        self.gathered.extend_from_slice(&bytes[range.clone()]);
                    }
                    if !ends_message {
                        continue;
                    }
                    inflated.extend_from_slice(&bytes[std::mem::take(&mut plain)]);
                    // A message that is there as a whole is decompressed from where it lies.
                    let gathered = std::mem::take(&mut self.gathered);
                    let message = if gathered.is_empty() { &bytes[range] } else { &gathered[..] };
                    let Some(inflater) = &mut inflater else {
                        unreachable!("what is compressed is a mistake where that was not agreed on");
                    };
                    if let Err(error) = inflater.inflate(message, payload_max, inflated) {
                        end = Some(self.refuse_message(error));
                    }
                }
                Piece::Ping(payload) => {
                    push_control(&mut self.control, PONG, &payload);
                    if self.control.len() > CONTROL_BYTES_MAX {
                        end = Some(ChannelEnd::Pings);
                    }
                }
                Piece::Pong => {}
                Piece::Close(payload) => {
                    end = Some(match self.answer_close(&payload) {
                        Ok(()) => ChannelEnd::Closed,
                        Err(error) => {
                            self.close_for(error);
                            error.into()
                        }
                    });
                }
            }
        }
        if end.is_some() || self.is_ended {
            self.is_ended = true;
            self.gathered = Vec::new();
            at = bytes.len();
        }
        Received { plain, taken: at, end }
    }

    /// A client that closes gets the same back.
    fn answer_close(&mut self, payload: &[u8]) -> Result<(), FrameError> {
        let (status, text) = match payload {
            [] => {
                if !std::mem::replace(&mut self.is_closing, true) {
                    self.close = Some(vec![FINAL | CLOSE, 0]);
                }
                return Ok(());
            }
            [_] => return Err(FrameError::CloseLength),
            [high, low, text @ ..] => (u16::from_be_bytes([*high, *low]), text),
        };
        if !is_valid_status(status) {
            return Err(FrameError::CloseStatus(status));
        }
        match std::str::from_utf8(text) {
            Ok(text) => self.close(status, text),
            Err(_) => {
                self.close(CloseStatus::InvalidPayloadData as u16, "invalid utf8 body in close frame");
            }
        }
        Ok(())
    }

    fn refuse_message(&mut self, error: InflateError) -> ChannelEnd {
        let status = match error {
            InflateError::TooLong => CloseStatus::MessageTooBig,
            InflateError::Corrupt => CloseStatus::InvalidPayloadData,
        };
        self.close(status as u16, &error.to_string());
        error.into()
    }

    fn close_for(&mut self, error: FrameError) {
        self.close(CloseStatus::ProtocolError as u16, &error.to_string());
    }

    /// Has the client told that nothing more comes, behind everything that does, unless it has been told already.
    pub fn close(&mut self, status: u16, text: &str) {
        if !std::mem::replace(&mut self.is_closing, true) {
            self.close = Some(close_frame(status, text));
        }
    }

    /// All output is sent: the close may go.
    pub fn finish(&mut self) {
        if let Some(close) = self.close.take() {
            self.control.extend_from_slice(&close);
        }
    }

    /// Whether a close goes out, or has gone.
    pub fn is_closing(&self) -> bool {
        self.is_closing
    }

    /// Whether there is something to be sent that is not output.
    pub fn has_control(&self) -> bool {
        !self.control.is_empty()
    }

    /// Makes a send of what waits: answers to pings, then as much of the output `slices` as one send takes, `max` bytes at
    /// most, in `memory` and where it lies.
    pub fn seal<'a>(
        &mut self,
        slices: impl Iterator<Item = &'a [u8]>,
        max: usize,
        deflater: Option<&mut Deflater>,
        memory: &'a mut SealMemory,
    ) -> Sealed<'a> {
        let browser = self.negotiated.browser;
        let max = if browser { max.min(BROWSER_FRAMES_MAX * BROWSER_FRAME_LEN) } else { max };
        let max = if deflater.is_some() { max.min(COMPRESSED_LEN_MAX) } else { max };
        // A browser's pieces are cut further.
        let count_max = if browser { SEND_SLICES_MAX / 4 } else { SEND_SLICES_MAX - 1 };
        let mut output = [&[][..]; SEND_SLICES_MAX];
        let (mut count, mut plain_len) = (0, 0);
        for slice in slices.take(count_max) {
            let slice = &slice[..slice.len().min(max - plain_len)];
            if slice.is_empty() {
                break;
            }
            output[count] = slice;
            count += 1;
            plain_len += slice.len();
        }
        let output = &output[..count];
        let SealMemory { head, deflated } = memory;
        head.clear();
        deflated.clear();
        head.append(&mut self.control);
        let mut sealed = Sealed { pieces: [&[]; SEND_SLICES_MAX], count: 0, plain_len };
        if plain_len == 0 {
            sealed.push(head);
        } else if let Some(deflater) = deflater.filter(|_| plain_len > COMPRESSED_LEN_MIN) {
            deflater.deflate(output.iter().copied(), plain_len, deflated);
            if browser && !self.negotiated.whole_compressed && deflated.len() > BROWSER_FRAME_LEN {
                push_fragments(head, deflated);
                sealed.push(head);
            } else {
                push_head(head, FINAL | COMPRESSED | BINARY, deflated.len());
                sealed.push(head);
                sealed.push(deflated);
            }
        } else if browser && plain_len > BROWSER_FRAME_LEN {
            let rest = plain_len % BROWSER_FRAME_LEN;
            let control_len = head.len();
            if rest > 0 {
                push_head(head, FINAL | BINARY, rest);
            }
            let (control, last_head) = head.split_at(control_len);
            sealed.push(control);
            push_browser_frames(&mut sealed, output, last_head);
        } else {
            push_head(head, FINAL | BINARY, plain_len);
            sealed.push(head);
            output.iter().for_each(|piece| sealed.push(piece));
        }
        sealed
    }
}

/// Memory of a send, which stays in place until it is over.
#[derive(Debug, Default)]
pub struct SealMemory {
    head: Vec<u8>,
    deflated: Vec<u8>,
}

impl SealMemory {
    /// Keeps `bytes`, which are to be sent as they are.
    pub fn put(&mut self, bytes: Vec<u8>) -> &[u8] {
        self.head = bytes;
        &self.head
    }

    /// Bytes that are kept for the next send.
    pub fn capacity(&self) -> usize {
        self.head.capacity() + self.deflated.capacity()
    }
}

/// A compressed message in several frames.
fn push_fragments(out: &mut Vec<u8>, message: &[u8]) {
    let fragments = message.len().div_ceil(BROWSER_FRAME_LEN);
    out.reserve(message.len() + fragments * HEAD_LEN_MAX);
    for (index, fragment) in message.chunks(BROWSER_FRAME_LEN).enumerate() {
        let opcode = if index == 0 { COMPRESSED | BINARY } else { CONTINUATION };
        let last = if index + 1 == fragments { FINAL } else { 0 };
        push_head(out, last | opcode, fragment.len());
        out.extend_from_slice(fragment);
    }
}

/// The output in full frames, but for the last.
fn push_browser_frames<'a>(sealed: &mut Sealed<'a>, output: &[&'a [u8]], last_head: &'a [u8]) {
    let mut left = sealed.plain_len;
    let mut frame_left = 0;
    for mut piece in output.iter().copied() {
        while !piece.is_empty() {
            if frame_left == 0 {
                frame_left = left.min(BROWSER_FRAME_LEN);
                let is_full = frame_left == BROWSER_FRAME_LEN;
                sealed.push(if is_full { &BROWSER_FRAME_HEAD } else { last_head });
            }
            let (first, rest) = piece.split_at(piece.len().min(frame_left));
            sealed.push(first);
            frame_left -= first.len();
            left -= first.len();
            piece = rest;
        }
    }
}

fn is_valid_status(status: u16) -> bool {
    matches!(status, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests {
    use super::super::mask::unmask;
    use super::*;
    use proptest::prelude::*;

    const MASKED: Negotiated =
        Negotiated { compression: false, masking: true, browser: false, whole_compressed: false };

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let key = [1, 2, 3, 4];
        let mut bytes = Vec::new();
        push_head(&mut bytes, first, payload.len());
        bytes[1] |= 0x80;
        bytes.extend_from_slice(&key);
        let at = bytes.len();
        bytes.extend_from_slice(payload);
        unmask(&mut bytes[at..], key, 0);
        bytes
    }

    /// The payload of a read, however much of it is taken at a time, and what ended it.
    fn receive(channel: &mut Channel, bytes: &[u8]) -> (Vec<u8>, Option<ChannelEnd>) {
        let mut bytes = bytes.to_vec();
        let (mut payload, mut inflater) = (Vec::new(), Inflater::default());
        loop {
            let mut inflated = Vec::new();
            let received = channel.receive(&mut bytes, 1 << 20, Some(&mut inflater), &mut inflated);
            payload.extend_from_slice(if inflated.is_empty() { &bytes[received.plain] } else { &inflated });
            bytes.drain(..received.taken);
            if received.end.is_some() || bytes.is_empty() {
                return (payload, received.end);
            }
        }
    }

    fn sent(channel: &mut Channel, slices: &[&[u8]], max: usize) -> (Vec<u8>, usize) {
        let mut memory = SealMemory::default();
        let mut deflater = channel.is_compressing().then(Deflater::default);
        let sealed = channel.seal(slices.iter().copied(), max, deflater.as_mut(), &mut memory);
        (sealed.pieces().flatten().copied().collect(), sealed.plain_len)
    }

    #[test]
    fn one_frame_stays_where_it_lies_and_others_move_up_behind_it() {
        let mut channel = Channel::new(MASKED);
        let mut bytes = [frame(0x82, b"PING\r\n"), frame(0x81, b"PO"), frame(0x82, b"NG\r\n")].concat();
        let received = channel.receive(&mut bytes, 100, None, &mut Vec::new());
        assert_eq!((received.plain.clone(), received.taken, received.end), (6..18, bytes.len(), None));
        assert_eq!(&bytes[received.plain], b"PING\r\nPONG\r\n");
    }

    #[test]
    fn pings_are_answered_before_output_and_a_close_behind_it() {
        let mut channel = Channel::new(MASKED);
        let bytes = [frame(0x89, b"hi"), frame(0x88, &[3, 0xE8, b'b', b'y', b'e'])].concat();
        assert_eq!(receive(&mut channel, &bytes), (vec![], Some(ChannelEnd::Closed)));
        assert!(channel.has_control());
        let (bytes, plain_len) = sent(&mut channel, &[b"+OK\r\n"], 1000);
        assert_eq!((&bytes[..], plain_len), (&b"\x8A\x02hi\x82\x05+OK\r\n"[..], 5));
        assert!(!channel.has_control());
        // It has said why; the server has nothing to add.
        channel.close(1001, "Server Shutdown");
        channel.finish();
        assert_eq!(sent(&mut channel, &[], 1000), (b"\x88\x05\x03\xE8bye".to_vec(), 0));
        channel.finish();
        assert!(!channel.has_control());
        assert_eq!(receive(&mut channel, &frame(0x82, b"more")), (vec![], None));
    }

    #[test]
    fn closes_that_are_wrong_are_answered_with_what_is_wrong() {
        for (payload, answer) in [
            (vec![], "-"),
            (vec![3], "\u{3ea}close frame payload cannot be 1 byte"),
            (vec![3, 0xED], "\u{3ea}invalid close status code 1005"),
            (vec![0, 1], "\u{3ea}invalid close status code 1"),
            (vec![7, 0xD0], "\u{3ea}invalid close status code 2000"),
            (vec![3, 0xE8, 0xFF], "\u{3ef}invalid utf8 body in close frame"),
            (vec![0x0B, 0xB8], "\u{bb8}"),
        ] {
            let mut channel = Channel::new(MASKED);
            let (_, end) = receive(&mut channel, &frame(0x88, &payload));
            assert!(end.is_some());
            channel.finish();
            let (bytes, _) = sent(&mut channel, &[], 1000);
            let status = answer.chars().next().expect("a status, or a dash for none");
            let expected = match status {
                '-' => vec![0x88, 0],
                status => close_frame(status as u16, &answer[status.len_utf8()..]),
            };
            assert_eq!(bytes, expected, "{payload:?}");
        }
    }

    #[test]
    fn what_came_before_a_mistake_counts() {
        let mut channel = Channel::new(MASKED);
        let bytes = [frame(0x82, b"PING\r\n"), frame(0x83, b"x"), frame(0x82, b"PONG\r\n")].concat();
        let (payload, end) = receive(&mut channel, &bytes);
        assert_eq!((&payload[..], end), (&b"PING\r\n"[..], Some(FrameError::Opcode(3).into())));
    }

    #[test]
    fn who_pings_and_does_not_read_is_cut_off() {
        let mut channel = Channel::new(MASKED);
        let pings = frame(0x89, &[b'x'; 125]).repeat(CONTROL_BYTES_MAX / 127 + 1);
        assert_eq!(receive(&mut channel, &pings).1, Some(ChannelEnd::Pings));
    }

    #[test]
    fn browsers_get_short_frames() {
        let mut channel = Channel::new(Negotiated { browser: true, ..MASKED });
        let output = [vec![b'a'; 3000], vec![b'b'; 6000], vec![b'c'; 100]];
        let slices: Vec<&[u8]> = output.iter().map(Vec::as_slice).collect();
        let (bytes, plain_len) = sent(&mut channel, &slices, 1 << 20);
        assert_eq!(plain_len, 9100);
        let mut expected = Vec::new();
        for chunk in output.concat().chunks(4096) {
            push_head(&mut expected, 0x82, chunk.len());
            expected.extend_from_slice(chunk);
        }
        assert_eq!(bytes, expected);
        let many = vec![[b'x'; 5000]; 40];
        let slices: Vec<&[u8]> = many.iter().map(|slice| &slice[..]).collect();
        let (bytes, plain_len) = sent(&mut channel, &slices, 1 << 20);
        assert_eq!((bytes.len(), plain_len), (16 * 4100, 16 * 4096));
    }

    #[test]
    fn short_output_is_not_compressed_and_long_output_is() {
        let mut channel = Channel::new(Negotiated { compression: true, ..MASKED });
        let (bytes, _) = sent(&mut channel, &[&[b'x'; 64]], 1000);
        assert_eq!(bytes[..2], [0x82, 64]);
        let (bytes, plain_len) = sent(&mut channel, &[&[b'x'; 65], &[b'x'; 500]], 1000);
        assert_eq!((bytes[0], plain_len), (0xC2, 565));
        let mut client = Channel::new(Negotiated { masking: false, compression: true, ..MASKED });
        assert_eq!(receive(&mut client, &bytes), (vec![b'x'; 565], None));
        let mut random = fastrand::Rng::with_seed(7);
        let random: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(9000).collect();
        let mut browser = Channel::new(Negotiated { compression: true, browser: true, ..MASKED });
        let (bytes, _) = sent(&mut browser, &[&random], 1 << 20);
        assert_eq!(bytes[..4], [0x42, 126, 0x10, 0], "the first of several frames");
        assert_eq!(receive(&mut client, &bytes), (random, None));
    }

    #[test]
    fn a_compressed_message_is_bounded_before_and_after() {
        let mut channel = Channel::new(Negotiated { compression: true, ..MASKED });
        let mut bomb = Vec::new();
        let zeros = vec![0; (1 << 20) + 1];
        Deflater::default().deflate(std::iter::once(&zeros[..]), zeros.len(), &mut bomb);
        let end = receive(&mut channel, &frame(0xC2, &bomb)).1;
        assert_eq!(end, Some(InflateError::TooLong.into()));
        let mut channel = Channel::new(Negotiated { compression: true, ..MASKED });
        let part = frame(0x42, &vec![0; 4 << 20]);
        assert_eq!(receive(&mut channel, &part).1, None);
        let end = receive(&mut channel, &frame(0, &vec![0; (4 << 20) + 1])).1;
        assert_eq!(end, Some(InflateError::TooLong.into()));
    }

    proptest! {
        #[test]
        fn reads_cut_anywhere_give_the_same_stream(
            messages in proptest::collection::vec(
                (proptest::collection::vec(0u8..8, 0..2000), any::<bool>(), any::<bool>()), 0..12),
            cuts in proptest::collection::vec(1usize..500, 0..40),
        ) {
            let negotiated = Negotiated { compression: true, ..MASKED };
            let mut bytes = Vec::new();
            for (content, is_compressed, is_cut) in &messages {
                let mut message = content.clone();
                if *is_compressed {
                    message.clear();
                    Deflater::default().deflate(std::iter::once(&content[..]), content.len(), &mut message);
                }
                let first = if *is_compressed { COMPRESSED } else { 0 } | BINARY;
                let half = if *is_cut { message.len() / 2 } else { message.len() };
                bytes.extend(frame(if *is_cut { first } else { FINAL | first }, &message[..half]));
                bytes.extend(frame(FINAL | super::super::frame::PING, b"?"));
                if *is_cut {
                    bytes.extend(frame(FINAL | CONTINUATION, &message[half..]));
                }
            }
            let mut channel = Channel::new(negotiated);
            let mut stream = Vec::new();
            let mut rest = &bytes[..];
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (first, behind) = rest.split_at(cut.min(rest.len()));
                let (payload, end) = receive(&mut channel, first);
                prop_assert_eq!(end, None);
                stream.extend(payload);
                rest = behind;
            }
            let expected: Vec<u8> = messages.iter().flat_map(|(content, ..)| content.clone()).collect();
            prop_assert_eq!(stream, expected);
            prop_assert_eq!(sent(&mut channel, &[], 0).0, b"\x8A\x01?".repeat(messages.len()));
        }
    }
}
