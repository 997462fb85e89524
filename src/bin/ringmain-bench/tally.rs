//! Counting messages by arithmetic: every frame on a connection has the same length, so bytes are messages.
//!
//! Subscribers let the kernel drop what they receive (`MSG_TRUNC`) and only now and then look at the
//! bytes. The one thing that disturbs the arithmetic is the server's own `PING` (6 bytes, the first
//! about 2 s after CONNECT): a look that finds the frames shifted by whole PINGs takes them into account;
//! any other shift is an error. No I/O here.

use crate::error::BenchError;

const PING: &[u8] = b"PING\r\n";

/// How many PINGs may pass between two looks.
const UNSEEN_PINGS_MAX: u64 = 8;

/// What every frame of a connection looks like.
#[derive(Debug, Clone)]
pub struct FrameShape {
    /// The bytes up to where the subjects differ.
    pub prefix: Vec<u8>,
    /// Length of the whole frame.
    pub len: usize,
    /// Length of the payload.
    pub payload: usize,
}

impl FrameShape {
    fn matches(&self, frame: &[u8]) -> bool {
        let size = format!(" {}\r\n", self.payload);
        let header_end = self.len - self.payload - 2;
        frame.starts_with(&self.prefix)
            && frame[..header_end].ends_with(size.as_bytes())
            && frame[..self.len].ends_with(b"\r\n")
    }
}

/// The messages on one connection.
#[derive(Debug)]
pub struct Tally {
    shape: FrameShape,
    bytes: u64,
    pings: u64,
    /// PINGs that have not been answered yet.
    unanswered: u64,
}

impl Tally {
    pub fn new(shape: FrameShape) -> Tally {
        Tally { shape, bytes: 0, pings: 0, unanswered: 0 }
    }

    /// Whole messages so far.
    pub fn messages(&self) -> u64 {
        (self.bytes - (self.pings * PING.len() as u64).min(self.bytes)) / self.shape.len as u64
    }

    /// Bytes were received but not looked at.
    pub fn skip(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// The number of PINGs found since the last call; each wants a PONG.
    pub fn take_pings(&mut self) -> u64 {
        std::mem::take(&mut self.unanswered)
    }

    /// Bytes were received: checks the first frame that begins in them, then counts all of them.
    pub fn look(&mut self, bytes: &[u8]) -> Result<(), BenchError> {
        let pings_before = self.pings;
        let mut at = self.next_boundary();
        // Frames that are not wholly inside `bytes` cannot be checked; a later look will.
        while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= self.shape.len + PING.len()) {
            if self.shape.matches(rest) {
                break;
            }
            if rest.starts_with(PING) {
                self.pings += 1;
                at += PING.len();
                continue;
            }
            let unseen = (1..=UNSEEN_PINGS_MAX).find(|pings| {
                let shifted = (at + *pings as usize * PING.len()) % self.shape.len;
                bytes
                    .get(shifted..)
                    .is_some_and(|rest| rest.len() >= self.shape.len && self.shape.matches(rest))
            });
            match unseen {
                Some(pings) => {
                    self.pings += pings;
                    break;
                }
                None => return Err(error_in(rest)),
            }
        }
        self.unanswered += self.pings - pings_before;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// The last bytes, up to but without the final PONG, were counted: is the total exactly `expected` messages?
    pub fn settle(&mut self, expected: u64) -> Result<(), BenchError> {
        let wanted = expected * self.shape.len as u64;
        let surplus = (self.bytes - (self.pings * PING.len() as u64).min(self.bytes)).checked_sub(wanted);
        match surplus {
            Some(surplus)
                if surplus <= UNSEEN_PINGS_MAX * PING.len() as u64 && surplus % PING.len() as u64 == 0 =>
            {
                self.pings += surplus / PING.len() as u64;
                Ok(())
            }
            Some(_) => Err(BenchError::Surplus { what: "messages", got: self.messages(), expected }),
            None => Err(BenchError::Missing { what: "messages", got: self.messages(), expected }),
        }
    }

    /// Where in the bytes to come the next frame begins.
    fn next_boundary(&self) -> usize {
        let frame = self.shape.len as u64;
        let into = (self.bytes - (self.pings * PING.len() as u64).min(self.bytes)) % frame;
        ((frame - into) % frame) as usize
    }
}

/// Frames are out of step: an -ERR in sight is the reason, otherwise the bytes themselves must do.
fn error_in(bytes: &[u8]) -> BenchError {
    match memchr::memmem::find(bytes, b"-ERR ") {
        Some(at) => {
            let text = &bytes[at + 5..];
            let end = memchr::memchr(b'\r', text).unwrap_or(text.len());
            BenchError::Refused(String::from_utf8_lossy(&text[..end]).into_owned())
        }
        None => BenchError::unexpected(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: &[u8] = b"MSG b.0 1 5\r\nhello\r\n";

    fn tally() -> Tally {
        Tally::new(FrameShape { prefix: b"MSG b.".to_vec(), len: FRAME.len(), payload: 5 })
    }

    #[test]
    fn bytes_are_messages() {
        let mut tally = tally();
        tally.look(&FRAME.repeat(3)).unwrap();
        tally.skip(FRAME.len() * 10 + 7);
        assert_eq!(tally.messages(), 13);
        tally.skip(FRAME.len() - 7);
        assert_eq!(tally.messages(), 14);
        tally.settle(14).unwrap();
    }

    #[test]
    fn a_look_in_the_middle_of_a_frame_finds_the_next_one() {
        let stream = FRAME.repeat(5);
        for cut in 0..stream.len() {
            let mut tally = tally();
            tally.skip(cut);
            tally.look(&stream[cut..]).unwrap();
            tally.settle(5).unwrap();
        }
    }

    #[test]
    fn pings_are_counted_and_answered_wherever_they_are() {
        // Seen at a boundary.
        let mut seen = tally();
        seen.look(&[PING, &FRAME.repeat(3)].concat()).unwrap();
        assert_eq!((seen.messages(), seen.take_pings(), seen.take_pings()), (3, 1, 0));
        // Passed unseen, found by the next look.
        for pings in 1..=3 {
            let mut unseen = tally();
            unseen.skip(FRAME.len() * 7 + PING.len() * pings);
            unseen.look(&FRAME.repeat(3)).unwrap();
            assert_eq!((unseen.messages(), unseen.take_pings()), (10, pings as u64));
            unseen.settle(10).unwrap();
        }
        // Never looked for: the end forgives whole PINGs only.
        let mut late = tally();
        late.skip(FRAME.len() * 2 + PING.len());
        late.settle(2).unwrap();
    }

    #[test]
    fn a_wrong_total_is_an_error_with_both_numbers() {
        let mut short = tally();
        short.skip(FRAME.len() * 2);
        assert!(matches!(short.settle(3), Err(BenchError::Missing { got: 2, expected: 3, .. })));
        let mut long = tally();
        long.skip(FRAME.len() * 4);
        assert!(matches!(long.settle(3), Err(BenchError::Surplus { got: 4, expected: 3, .. })));
        let mut torn = tally();
        torn.skip(FRAME.len() * 3 + 1);
        assert!(torn.settle(3).is_err());
    }

    #[test]
    fn an_err_line_is_reported_with_its_text() {
        let mut tally = tally();
        let stream = [FRAME, b"-ERR 'Slow Consumer'\r\n", FRAME, FRAME].concat();
        tally.skip(FRAME.len());
        let error = tally.look(&stream[FRAME.len()..]).unwrap_err();
        assert_eq!(error.to_string(), "the server answered: -ERR 'Slow Consumer'");
    }

    #[test]
    fn frames_of_another_size_or_subject_are_refused() {
        assert!(tally().look(&b"MSG b.0 1 4\r\nhell\r\n".repeat(4)).is_err());
        assert!(tally().look(&b"MSG c.0 1 5\r\nhello\r\n".repeat(4)).is_err());
    }
}
