//! The receiving side of a throughput measurement: one thread for all subscribers, counting bytes.
//!
//! The tool shares the machine with the server, so a delivery must cost it almost nothing: the kernel is
//! told to drop what arrived (`MSG_TRUNC` on a TCP socket copies nothing) and reports how many bytes that
//! was. Every so often a read fetches the bytes and checks that the frames are what they should be.

use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::client::ANSWER_TIMEOUT;
use crate::epoll::Epoll;
use crate::error::BenchError;
use crate::tally::Tally;
use crate::websocket::{self, ServerFrames};

/// Upper bound of what one read takes off a socket.
const READ_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The same where the bytes are fetched: what stays in the cache.
const FRAMED_READ_BYTES_MAX: usize = 256 * 1024;

/// One read in this many looks at the bytes.
const LOOK_EVERY: u64 = 64;

/// How often an idle reader checks whether it should stop.
const STOP_CHECK: Duration = Duration::from_millis(20);

/// How long a reader lets bytes collect after it has emptied the sockets: between these. A wake-up costs
/// both sides microseconds (with a fixed 50 µs the tool used 160 ns per message, mostly switching tasks).
const REST_MIN: Duration = Duration::from_micros(20);
const REST_MAX: Duration = Duration::from_micros(400);

/// Rest less when a socket had more than this: far below what the kernel buffers, so that no server is held up.
const COLLECTED_MANY: usize = 256 * 1024;

/// Rest longer when no socket had more than this.
const COLLECTED_FEW: usize = 64 * 1024;

/// What the reader, the publishers and the measuring thread share.
pub struct Counters {
    origin: Instant,
    /// Messages received, per subscriber.
    pub delivered: Vec<AtomicU64>,
    /// When the last message arrived, in nanoseconds since `origin`.
    last_delivery_ns: AtomicU64,
    pub stop: AtomicBool,
    pub failed: AtomicBool,
}

impl Counters {
    pub fn new(subscribers: usize) -> Counters {
        Counters {
            origin: Instant::now(),
            delivered: (0..subscribers).map(|_| AtomicU64::new(0)).collect(),
            last_delivery_ns: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        }
    }

    pub fn total(&self) -> u64 {
        self.delivered.iter().map(|count| count.load(Ordering::Acquire)).sum()
    }

    pub fn last_delivery(&self) -> Instant {
        self.origin + Duration::from_nanos(self.last_delivery_ns.load(Ordering::Acquire))
    }
}

/// A subscriber's socket and its count.
pub struct Subscriber {
    pub stream: TcpStream,
    pub tally: Tally,
    /// Of a WebSocket, whose frames have to be looked at: they are as long as it happens.
    frames: Option<ServerFrames>,
    reads: u64,
}

impl Subscriber {
    pub fn new(stream: TcpStream, frames: Option<ServerFrames>, tally: Tally) -> Subscriber {
        Subscriber { stream, tally, frames, reads: 0 }
    }

    /// One read that does not wait. Returns the number of bytes.
    fn receive(&mut self, buffer: &mut Vec<u8>) -> Result<usize, BenchError> {
        let look = self.reads.is_multiple_of(LOOK_EVERY);
        let fetch = look || self.frames.is_some();
        let flags = libc::MSG_DONTWAIT | if fetch { 0 } else { libc::MSG_TRUNC };
        buffer.clear();
        let room = buffer.spare_capacity_mut();
        let max = if self.frames.is_some() { FRAMED_READ_BYTES_MAX.min(room.len()) } else { room.len() };
        let got = match SockRef::from(&self.stream).recv_with_flags(&mut room[..max], flags) {
            Ok(0) => return Err(BenchError::Closed("a subscriber's")),
            Ok(got) => got,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(0);
            }
            Err(error) => return Err(BenchError::io("a subscriber reading from the server")(error)),
        };
        self.reads += 1;
        if fetch {
            // SAFETY: without MSG_TRUNC the kernel has written `got` bytes from the start of the spare capacity,
            // which begins at 0 because the vector was cleared.
            unsafe { buffer.set_len(got) };
            let tally = &mut self.tally;
            match &mut self.frames {
                None => tally.look(buffer)?,
                Some(frames) => frames.take(buffer, |piece| {
                    if look {
                        return tally.look(piece);
                    }
                    tally.skip(piece.len());
                    Ok(())
                })?,
            }
            for _ in 0..self.tally.take_pings() {
                self.write(b"PONG\r\n").map_err(BenchError::io("answering PING"))?;
            }
        } else {
            self.tally.skip(got);
        }
        Ok(got)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.frames {
            None => self.stream.write_all(bytes),
            Some(_) => websocket::send(&self.stream, bytes),
        }
    }

    /// After the load: everything up to a PONG is received and looked at, and the total must be exact.
    pub fn settle(&mut self, expected: u64) -> Result<(), BenchError> {
        let failed = || BenchError::io("a subscriber finishing");
        self.stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(failed())?;
        self.write(b"PING\r\n").map_err(failed())?;
        let mut buffer = vec![0; 64 * 1024];
        let mut rest = Vec::new();
        while !rest.ends_with(b"PONG\r\n") {
            match io::Read::read(&mut self.stream, &mut buffer).map_err(failed())? {
                0 => return Err(BenchError::Closed("a subscriber's, at the end")),
                got => match &mut self.frames {
                    None => rest.extend_from_slice(&buffer[..got]),
                    Some(frames) => frames.take(&buffer[..got], |piece| {
                        rest.extend_from_slice(piece);
                        Ok(())
                    })?,
                },
            }
        }
        rest.truncate(rest.len() - b"PONG\r\n".len());
        self.tally.look(&rest)?;
        self.tally.settle(expected)
    }
}

/// Receives until told to stop.
pub fn run(mut subscribers: Vec<Subscriber>, counters: &Counters) -> Result<Vec<Subscriber>, BenchError> {
    let result = receive_all(&mut subscribers, counters);
    if result.is_err() {
        counters.failed.store(true, Ordering::Release);
    }
    result.map(|()| subscribers)
}

fn receive_all(subscribers: &mut [Subscriber], counters: &Counters) -> Result<(), BenchError> {
    let mut epoll = Epoll::new().map_err(BenchError::io("epoll"))?;
    for (token, subscriber) in subscribers.iter().enumerate() {
        epoll.add(&subscriber.stream, token).map_err(BenchError::io("epoll"))?;
    }
    // Never written to by skipped reads, so it costs address space and no memory.
    let mut buffer = Vec::with_capacity(READ_BYTES_MAX);
    let mut ready = Vec::new();
    let mut rest = REST_MIN;
    crate::server_usage::sleep_precisely();
    while !counters.stop.load(Ordering::Acquire) {
        epoll.wait(STOP_CHECK, &mut ready).map_err(BenchError::io("epoll"))?;
        let mut collected = 0;
        for &token in &ready {
            let subscriber = &mut subscribers[token];
            let got = subscriber.receive(&mut buffer)?;
            collected = collected.max(got);
            if got > 0 {
                counters.delivered[token].store(subscriber.tally.messages(), Ordering::Release);
            }
        }
        if !ready.is_empty() {
            let now = counters.origin.elapsed().as_nanos() as u64;
            counters.last_delivery_ns.store(now, Ordering::Release);
            rest = next_rest(rest, collected);
            std::thread::sleep(rest);
        }
    }
    Ok(())
}

/// The next rest, when the fullest socket had `collected` bytes after the last one.
fn next_rest(rest: Duration, collected: usize) -> Duration {
    match collected {
        many if many > COLLECTED_MANY => (rest / 2).max(REST_MIN),
        few if few < COLLECTED_FEW => (rest * 2).min(REST_MAX),
        _ => rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_follow_the_load_and_stay_within_their_bounds() {
        let after = |start, collected| (0..20).fold(start, |rest, _| next_rest(rest, collected));
        assert_eq!(after(REST_MIN, 1_000), REST_MAX);
        assert_eq!(after(REST_MAX, 1 << 20), REST_MIN);
        assert_eq!(next_rest(REST_MAX / 2, 100_000), REST_MAX / 2);
    }
}
