//! Requests over several connections, with so many unanswered at a time on each: publishing with acknowledgements, and
//! whatever else is asked often. One thread drives all of it.
//!
//! The frames were made beforehand. Only the last characters of the reply subject are written anew for each, because
//! clients use each reply subject once, and a server that remembers subjects must not profit from a tool that does not.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::client::{ANSWER_TIMEOUT, Connection, Target};
use crate::epoll::Epoll;
use crate::error::BenchError;
use crate::frames;
use crate::inbox::Event;
use crate::progress::Progress;

/// Length of what is written anew in each reply subject.
const TOKEN_LEN: usize = 8;

/// What one read takes off a socket at most.
const READ_BYTES_MAX: usize = 256 * 1024;

/// Requests in a ring, to be sent one after the other and again.
#[derive(Default)]
pub struct Frames {
    bytes: Vec<u8>,
    /// Where each ends, and where its token is.
    places: Vec<(usize, usize)>,
    next: usize,
    sent: u64,
}

impl Frames {
    /// Adds a request. Its reply subject is below `inbox`.
    pub fn push(&mut self, subject: &str, inbox: &str, payload: &[u8]) {
        let start = self.bytes.len();
        frames::push_publish(&mut self.bytes, subject, Some(&format!("{inbox}.{:0TOKEN_LEN$}", 0)), payload);
        let token = start + "PUB ".len() + subject.len() + 1 + inbox.len() + 1;
        self.places.push((self.bytes.len(), token));
    }

    /// The bytes of the next requests, at most `max`, and how many they are.
    fn take(&mut self, max: usize) -> (&[u8], usize) {
        let first = self.next;
        let count = max.min(self.places.len() - first);
        let start = if first == 0 { 0 } else { self.places[first - 1].0 };
        for &(_, token) in &self.places[first..first + count] {
            write_token(&mut self.bytes[token..token + TOKEN_LEN], self.sent);
            self.sent += 1;
        }
        self.next = (first + count) % self.places.len();
        (&self.bytes[start..self.places[first + count - 1].0], count)
    }
}

fn write_token(place: &mut [u8], mut number: u64) {
    const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
    for digit in place.iter_mut().rev() {
        *digit = DIGITS[(number % 32) as usize];
        number /= 32;
    }
}

/// Whether an answer, by its header and payload, is what was asked for.
pub type Check = fn(header: &[u8], payload: &[u8]) -> bool;

/// Whether it is a publish acknowledgement.
pub fn is_publish_ack(_header: &[u8], payload: &[u8]) -> bool {
    payload.starts_with(b"{\"stream\":")
        && payload.len() < 200
        && memchr::memmem::find(payload, b"\"seq\":").is_some()
}

/// See the head of this file.
pub struct Pipeline {
    lanes: Vec<Lane>,
    epoll: Epoll,
    window: usize,
    check: Check,
}

struct Lane {
    connection: Connection,
    frames: Frames,
    unanswered: usize,
    /// When the last request was sent: with a window of one that is the one which is answered next.
    sent_at: Instant,
}

/// When a run ends.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    Passed(Duration),
    Answered(u64),
}

/// What a run did.
pub struct Ran {
    pub answered: u64,
    /// From the first request to the last answer.
    pub elapsed: Duration,
}

impl Pipeline {
    /// Opens so many connections; `frames` makes the requests of each from its number and its inbox.
    pub fn open(
        target: &Target,
        lanes: usize,
        window: usize,
        check: Check,
        mut frames: impl FnMut(usize, &str) -> Frames,
    ) -> Result<Pipeline, BenchError> {
        let epoll = Epoll::new().map_err(BenchError::io("epoll"))?;
        let mut opened = Vec::with_capacity(lanes);
        for number in 0..lanes {
            let mut connection = Connection::open(target)?;
            let inbox = format!("_INBOX.{}{}", frames::run_id(), frames::run_id());
            let mut line = Vec::new();
            frames::push_subscribe(&mut line, &format!("{inbox}.*"), None, "1");
            connection.send(&line)?;
            connection.flush()?;
            if window > 1 {
                connection.inbox.reserve(READ_BYTES_MAX);
            }
            epoll.add(&connection.stream, number).map_err(BenchError::io("epoll"))?;
            let frames = frames(number, &inbox);
            opened.push(Lane { connection, frames, unanswered: 0, sent_at: Instant::now() });
        }
        Ok(Pipeline { lanes: opened, epoll, window, check })
    }

    /// Sends requests until it is time to end, and waits for all answers. Latencies are recorded where one request is
    /// under way at a time on each connection.
    pub fn run(
        &mut self,
        until: Until,
        mut latencies: Option<&mut Histogram<u64>>,
        progress: &mut Progress,
    ) -> Result<Ran, BenchError> {
        let started = Instant::now();
        let (mut left, deadline) = match until {
            Until::Passed(time) => (u64::MAX, Some(started + time)),
            Until::Answered(count) => (count, None),
        };
        for lane in &mut self.lanes {
            lane.send(self.window, &mut left)?;
        }
        let (mut answered, mut last) = (0, started);
        let mut ready = Vec::new();
        while self.lanes.iter().any(|lane| lane.unanswered > 0) {
            self.epoll.wait(Duration::from_millis(100), &mut ready).map_err(BenchError::io("epoll"))?;
            for &token in &ready {
                let lane = &mut self.lanes[token];
                let got = lane.receive(self.check)?;
                if got == 0 {
                    continue;
                }
                last = Instant::now();
                answered += got as u64;
                if let (1, Some(latencies)) = (self.window, &mut latencies) {
                    latencies.saturating_record((last - lane.sent_at).as_nanos() as u64);
                }
                if deadline.is_none_or(|deadline| last < deadline) {
                    lane.send(got, &mut left)?;
                }
            }
            progress.show(answered);
            if ready.is_empty() && last.elapsed() > ANSWER_TIMEOUT {
                let waiting: usize = self.lanes.iter().map(|lane| lane.unanswered).sum();
                let expected = answered + waiting as u64;
                return Err(BenchError::Missing { what: "answers", got: answered, expected });
            }
        }
        Ok(Ran { answered, elapsed: last - started })
    }
}

impl Lane {
    fn send(&mut self, mut count: usize, left: &mut u64) -> Result<(), BenchError> {
        count = count.min(usize::try_from(*left).unwrap_or(usize::MAX));
        *left -= count as u64;
        self.sent_at = Instant::now();
        while count > 0 {
            let (bytes, taken) = self.frames.take(count);
            self.connection.send(bytes)?;
            self.unanswered += taken;
            count -= taken;
        }
        Ok(())
    }

    /// Reads what is there. The number of answers in it.
    fn receive(&mut self, check: Check) -> Result<usize, BenchError> {
        let mut answers = 0;
        let mut pings = 0;
        self.connection.fill("while requesting")?;
        while let Some(event) = self.connection.inbox.next_event()? {
            match event {
                Event::Message { header, payload, .. } if check(header, payload) => answers += 1,
                Event::Message { header, payload, .. } => {
                    return Err(BenchError::unexpected(&[header, payload].concat()));
                }
                Event::Ping => pings += 1,
                Event::Pong | Event::Info(_) => {}
            }
        }
        for _ in 0..pings {
            self.connection.send(b"PONG\r\n")?;
        }
        self.unanswered = self.unanswered.checked_sub(answers).ok_or(BenchError::Surplus {
            what: "answers",
            got: answers as u64,
            expected: self.unanswered as u64,
        })?;
        Ok(answers)
    }
}

/// Publishes `messages` to the subjects in turn, with acknowledgements, to have something in a stream.
pub fn fill(target: &Target, subjects: &[String], messages: u64, size: usize) -> Result<(), BenchError> {
    const WINDOW: usize = 5_000;
    let payload = frames::payload(size);
    let count = subjects.len().next_multiple_of(subjects.len().max(WINDOW));
    let mut pipeline = Pipeline::open(target, 1, WINDOW, is_publish_ack, |_, inbox| {
        let mut frames = Frames::default();
        for index in 0..count.max(WINDOW) {
            frames.push(&subjects[index % subjects.len()], inbox, &payload);
        }
        frames
    })?;
    pipeline.run(Until::Answered(messages), None, &mut Progress::new("filling", true)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_go_round_and_no_reply_subject_comes_twice() {
        let mut frames = Frames::default();
        for subject in ["a", "bcd"] {
            frames.push(subject, "_I", b"x");
        }
        let mut sent = Vec::new();
        for _ in 0..3 {
            let (bytes, count) = frames.take(5);
            assert_eq!(count, 2);
            sent.extend_from_slice(bytes);
        }
        let text = String::from_utf8(sent).unwrap();
        let expected: String =
            (0..6).map(|index| format!("PUB {} _I.{index:08} 1\r\nx\r\n", ["a", "bcd"][index % 2])).collect();
        assert_eq!(text, expected);
        assert_eq!(frames.take(1), (&b"PUB a _I.00000006 1\r\nx\r\n"[..], 1));
    }

    #[test]
    fn an_error_is_no_acknowledgement() {
        assert!(is_publish_ack(b"", b"{\"stream\":\"a\", \"seq\":7}"));
        assert!(!is_publish_ack(b"", b"{\"error\":{\"code\":503},\"stream\":\"a\",\"seq\":0}"));
        assert!(!is_publish_ack(b"", b"+ACK"));
    }
}
