//! What the server writes to clients: deliveries and the fixed lines.
//!
//! A delivery is `MSG subject sid [reply] size` or `HMSG subject sid [reply] header-size size`, a line end, and the
//! content with its CR LF. The content is never looked at; it comes with its CR LF from the decoder, so that a
//! delivery is a handful of copies behind each other.

use super::Widths;

/// Answer to a command of a verbose client.
pub const OK: &[u8] = b"+OK\r\n";
/// The server's and the client's question.
pub const PING: &[u8] = b"PING\r\n";
/// Its answer.
pub const PONG: &[u8] = b"PONG\r\n";

/// Room for a delivery's control line beside its subject, sid and reply: the verb, two sizes of nine digits, spaces.
const HEAD_OVERHEAD_MAX: usize = 5 + 4 + 9 + 9 + 2;

/// The parts of one delivery.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// The subject as published.
    pub subject: &'a [u8],
    /// The receiver's name of the subscription.
    pub sid: &'a [u8],
    /// The reply subject.
    pub reply: Option<&'a [u8]>,
    /// Length of the header block inside `size`; `None` sends `MSG`.
    pub header_len: Option<usize>,
    /// Header block and payload, without CR LF.
    pub size: usize,
    /// Least digits of the sizes.
    pub widths: Widths,
}

impl Delivery<'_> {
    /// Upper bound of the control line's length.
    #[inline]
    pub fn head_len_max(&self) -> usize {
        self.subject.len() + self.sid.len() + self.reply.map_or(0, <[u8]>::len) + HEAD_OVERHEAD_MAX
    }

    /// Appends the control line. With `head_len_max` bytes of spare capacity this never reallocates.
    #[inline]
    pub fn write_head(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self.header_len.is_some() { b"HMSG " } else { b"MSG " });
        out.extend_from_slice(self.subject);
        out.push(b' ');
        out.extend_from_slice(self.sid);
        out.push(b' ');
        if let Some(reply) = self.reply {
            out.extend_from_slice(reply);
            out.push(b' ');
        }
        if let Some(len) = self.header_len {
            write_size(out, len, self.widths.header);
            out.push(b' ');
        }
        write_size(out, self.size, self.widths.size);
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends `value` in decimal, with leading zeroes up to `width` digits, at most twenty.
#[inline]
pub fn write_size(out: &mut Vec<u8>, value: usize, width: u8) {
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    let mut rest = value;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let at = at.min(digits.len() - usize::from(width).min(digits.len()));
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(delivery: Delivery<'_>) -> String {
        let mut out = Vec::new();
        delivery.write_head(&mut out);
        assert!(out.len() <= delivery.head_len_max());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn heads_have_the_documented_form() {
        let plain = Delivery {
            subject: b"foo",
            sid: b"1",
            reply: None,
            header_len: None,
            size: 5,
            widths: Widths::default(),
        };
        assert_eq!(head(plain), "MSG foo 1 5\r\n");
        assert_eq!(head(Delivery { reply: Some(b"bar"), ..plain }), "MSG foo 1 bar 5\r\n");
        let with_header = Delivery { header_len: Some(12), size: 999_999_999, ..plain };
        assert_eq!(head(with_header), "HMSG foo 1 12 999999999\r\n");
        assert_eq!(
            head(Delivery { reply: Some(b"r"), header_len: Some(999_999_999), size: 999_999_999, ..plain }),
            "HMSG foo 1 r 999999999 999999999\r\n"
        );
    }

    #[test]
    fn sizes_are_written_in_decimal() {
        for value in [0, 7, 10, 99, 100, 128, 65_536, 1_048_576] {
            let mut out = Vec::new();
            write_size(&mut out, value, 0);
            assert_eq!(out, value.to_string().into_bytes());
            out.clear();
            write_size(&mut out, value, 9);
            assert_eq!(out, format!("{value:09}").into_bytes());
        }
    }
}
