//! What goes out: the heads of frames, and the words of a close. The server's frames are not masked.

/// The longest head of a frame that goes out.
pub const HEAD_LEN_MAX: usize = 10;

/// The longest payload of a control frame.
pub const CONTROL_LEN_MAX: usize = 125;

/// The longest text of a close.
pub const CLOSE_TEXT_LEN_MAX: usize = CONTROL_LEN_MAX - 2;

/// The last frame of its message.
pub const FINAL: u8 = 0x80;

/// The message is compressed; on its first frame only.
pub const COMPRESSED: u8 = 0x40;

/// Operation codes.
pub const CONTINUATION: u8 = 0;
/// See [`CONTINUATION`].
pub const TEXT: u8 = 1;
/// See [`CONTINUATION`].
pub const BINARY: u8 = 2;
/// See [`CONTINUATION`].
pub const CLOSE: u8 = 8;
/// See [`CONTINUATION`].
pub const PING: u8 = 9;
/// See [`CONTINUATION`].
pub const PONG: u8 = 10;

/// Adds the head of a frame with `len` bytes of payload. `first` are its flags and its operation code.
pub fn push_head(out: &mut Vec<u8>, first: u8, len: usize) {
    match len {
        0..=125 => out.extend_from_slice(&[first, len as u8]),
        126..=0xFFFF => {
            out.extend_from_slice(&[first, 126]);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out.extend_from_slice(&[first, 127]);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

/// Adds a control frame.
pub fn push_control(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    push_head(out, FINAL | opcode, payload.len());
    out.extend_from_slice(payload);
}

/// Why a connection is closed, as its client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of RFC 6455, 7.4.1")]
#[repr(u16)]
pub enum CloseStatus {
    NormalClosure = 1000,
    GoingAway = 1001,
    ProtocolError = 1002,
    InvalidPayloadData = 1007,
    PolicyViolation = 1008,
    MessageTooBig = 1009,
    InternalServerError = 1011,
    TlsHandshake = 1015,
}

/// A close with the number of a status. A text that is too long is cut, and ends in three dots then.
pub fn close_frame(status: u16, text: &str) -> Vec<u8> {
    let mut payload = status.to_be_bytes().to_vec();
    if text.len() > CLOSE_TEXT_LEN_MAX {
        // Not within a letter, where the reference would cut it.
        let cut = (0..=CLOSE_TEXT_LEN_MAX - 3).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        payload.extend_from_slice(&text.as_bytes()[..cut]);
        payload.extend_from_slice(b"...");
    } else {
        payload.extend_from_slice(text.as_bytes());
    }
    let mut frame = Vec::with_capacity(2 + payload.len());
    push_control(&mut frame, CLOSE, &payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_as_short_as_they_can_be() {
        for (len, head) in [
            (0, vec![0x82, 0]),
            (125, vec![0x82, 125]),
            (126, vec![0x82, 126, 0, 126]),
            (0xFFFF, vec![0x82, 126, 0xFF, 0xFF]),
            (0x1_0000, vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut out = Vec::new();
            push_head(&mut out, FINAL | BINARY, len);
            assert_eq!(out, head, "{len}");
            assert!(out.len() <= HEAD_LEN_MAX);
        }
    }

    #[test]
    fn the_text_of_a_close_is_cut_to_what_fits() {
        assert_eq!(close_frame(1000, "bye"), [&[0x88, 5, 3, 0xE8][..], b"bye"].concat());
        let long = close_frame(1001, &"x".repeat(124));
        assert_eq!((long.len(), &long[124..]), (127, &b"..."[..]));
        let exact = close_frame(1001, &"x".repeat(123));
        assert_eq!((exact.len(), &exact[124..]), (127, &b"xxx"[..]));
        let umlauts = close_frame(1001, &"ä".repeat(80));
        assert!(std::str::from_utf8(&umlauts[4..]).is_ok() && umlauts.ends_with(b"..."));
    }
}
