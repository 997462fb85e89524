//! A stream on its way to a client: pieces of its archive, as fast as the client acknowledges them.
//!
//! What goes out is what there was when it was asked for: messages that come later are not in it, messages that go before their turn
//! comes are left out. Each piece but the last has a reply subject, `$JS.SNAPSHOT.ACK.STREAM.ID.LENGTH.NUMBER`; a message to it
//! lets another piece go. An empty message ends it, whose status says why if it ends early.
//!
//! Bounded: a piece, a block of the compression, and the messages of one read are in memory; each turn does a little.

use std::collections::VecDeque;

use super::archive::{self, Entry};
use super::consumers::BackedUp;
use super::s2::Encoder;
use crate::store::{Read, ReadPlan, Store, StoredMessage};
use crate::stream::consumer::Outlet;

const CHUNK_BYTES: i64 = 128 << 10;
const CHUNK_BYTES_MIN: i64 = 1 << 10;
const CHUNK_BYTES_MAX: i64 = 1 << 20;
const WINDOW_BYTES: i64 = 8 << 20;
const WINDOW_BYTES_MAX: i64 = 32 << 20;
/// How long somebody may take to listen.
const INTEREST_WAIT_NS: i64 = 2_000_000_000;
/// How long no piece may go.
const FLOW_WAIT_NS: i64 = 5_000_000_000;
/// How often it is looked whether somebody listens yet.
const AWAIT_NS: i64 = 10_000_000;
/// How often it is looked whether somebody still does, and whether the wait is over.
const LOOK_NS: i64 = 100_000_000;
/// How often a message is read: its segment may have been rewritten between two looks.
const READ_TRIES: u32 = 3;
/// What one turn compresses.
const TURN_BYTES: usize = 256 << 10;
/// What is read from the disk at once.
const READ_BYTES: u32 = 512 << 10;

/// What is to be sent.
#[derive(Debug)]
pub struct SnapshotPlan {
    /// To which subject.
    pub deliver: Vec<u8>,
    /// How long a piece is, as the client asks; 0 leaves it to the server.
    pub chunk_bytes: i64,
    /// What may be on its way, as the client asks; 0 leaves it to the server.
    pub window_bytes: i64,
    /// What the stream holds, as an object.
    pub state: Vec<u8>,
    /// Its first and its last sequence.
    pub seqs: (u64, u64),
    /// Its consumers.
    pub consumers: Vec<BackedUp>,
    /// `$JS.SNAPSHOT.ACK.STREAM.ID`.
    pub ack_prefix: String,
}

/// What has to be done for it.
#[derive(Debug, PartialEq, Eq)]
pub enum Work {
    /// Nothing, until an acknowledgement comes or the time of [`Snapshot::deadline_ns`].
    Wait,
    /// It goes on at the next turn.
    More,
    /// Messages have to be read; then [`Snapshot::fetched`].
    Read(ReadPlan),
    /// It is over, with an error or without.
    Over(Option<String>),
}

/// See the head of this file.
#[derive(Debug)]
pub struct Snapshot {
    plan: SnapshotPlan,
    chunk_len: usize,
    in_flight_max: usize,
    in_flight: usize,
    /// The number of the next piece with a reply subject.
    number: u64,
    encoder: Encoder,
    scratch: Vec<u8>,
    next_consumer: usize,
    next_seq: u64,
    fetched: VecDeque<StoredMessage>,
    is_reading: bool,
    /// The message that was read last, and how often.
    tries: (u64, u32),
    /// Everything is in the encoder.
    is_written: bool,
    stage: Stage,
    /// When the last piece went.
    sent_ns: i64,
    look_ns: i64,
    had_interest: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    New,
    /// Somebody may still come.
    Awaiting {
        until_ns: i64,
    },
    Sending,
    Over,
}

impl Snapshot {
    /// One that has not begun.
    pub fn new(plan: SnapshotPlan) -> Snapshot {
        let or = |asked: i64, otherwise| if asked == 0 { otherwise } else { asked };
        let chunk = or(plan.chunk_bytes, CHUNK_BYTES).clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX);
        let window = or(plan.window_bytes, WINDOW_BYTES).clamp(CHUNK_BYTES_MIN, WINDOW_BYTES_MAX).max(chunk);
        Snapshot {
            chunk_len: chunk as usize,
            in_flight_max: (window / chunk) as usize,
            in_flight: 0,
            number: 1,
            encoder: Encoder::default(),
            scratch: Vec::new(),
            next_consumer: 0,
            next_seq: plan.seqs.0,
            fetched: VecDeque::new(),
            is_reading: false,
            tries: (0, 0),
            is_written: false,
            stage: Stage::New,
            sent_ns: 0,
            look_ns: i64::MAX,
            had_interest: false,
            plan,
        }
    }

    /// A piece has arrived.
    pub fn acked(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// What was to be read; nothing if it could not be.
    pub fn fetched(&mut self, messages: Vec<StoredMessage>) {
        self.is_reading = false;
        self.fetched.extend(messages);
    }

    /// When it wants to be run although nothing comes.
    pub fn deadline_ns(&self) -> Option<i64> {
        (self.stage != Stage::Over).then_some(self.look_ns)
    }

    /// The stream is given up.
    pub fn abort(&mut self, outlet: &mut impl Outlet) -> Work {
        self.end("500 stream closed", "stream closed", outlet)
    }

    /// The subject that it is sent to.
    pub fn deliver_subject(&self) -> &[u8] {
        &self.plan.deliver
    }

    /// Does what can be done now. `has_interest`: somebody subscribes to the subject that it is sent to, to exactly that: clients
    /// subscribe to it when they have the answer to their request.
    pub fn run(&mut self, store: &Store, has_interest: bool, now_ns: i64, outlet: &mut impl Outlet) -> Work {
        self.look_ns = now_ns + if has_interest { LOOK_NS } else { AWAIT_NS };
        match self.stage {
            Stage::Over => return Work::Wait,
            Stage::New => {
                self.stage = Stage::Awaiting { until_ns: now_ns + INTEREST_WAIT_NS };
                self.write_beginning(now_ns);
                return self.run(store, has_interest, now_ns, outlet);
            }
            Stage::Awaiting { until_ns } if !has_interest && now_ns < until_ns => return Work::Wait,
            Stage::Awaiting { .. } => {
                self.stage = Stage::Sending;
                self.sent_ns = now_ns;
            }
            Stage::Sending => {}
        }
        if self.had_interest && !has_interest {
            return self.end("408 No Interest", "no interest", outlet);
        }
        self.had_interest |= has_interest;
        let mut left = TURN_BYTES;
        loop {
            while self.encoder.frames().len() >= self.chunk_len && self.in_flight < self.in_flight_max {
                self.send_chunk(now_ns, outlet);
            }
            if self.encoder.frames().len() >= self.chunk_len {
                // All slots are taken.
                if now_ns >= self.sent_ns + FLOW_WAIT_NS {
                    return self.end("408 No Flow Response", "no flow response", outlet);
                }
                return Work::Wait;
            }
            if self.is_written {
                return self.finish(outlet);
            }
            if self.is_reading {
                return Work::Wait;
            }
            if left == 0 {
                return Work::More;
            }
            match self.write_more(store, now_ns) {
                Ok(None) => left = left.saturating_sub(self.scratch.len()),
                Ok(Some(plan)) => {
                    self.is_reading = true;
                    return Work::Read(plan);
                }
                Err(seq) => {
                    let text = format!("couldn't load next message after seq {}: it is damaged", seq - 1);
                    return self.end(&format!("500 {text}"), &text, outlet);
                }
            }
        }
    }

    fn write_beginning(&mut self, now_ns: i64) {
        self.encoder.push(archive::MAGIC);
        let payload_len = self.plan.state.len() as u64;
        let name = archive::STATE.as_bytes();
        self.scratch.clear();
        Entry { name, time_ns: now_ns, payload_len, ..Entry::default() }.write(&mut self.scratch);
        self.scratch.extend_from_slice(&self.plan.state);
        self.encoder.push(&self.scratch);
    }

    /// Compresses the next entry. `Some`: its message has to be read first. `Err`: this message cannot be.
    fn write_more(&mut self, store: &Store, now_ns: i64) -> Result<Option<ReadPlan>, u64> {
        self.scratch.clear();
        let (_, last_seq) = self.plan.seqs;
        if let Some(consumer) = self.plan.consumers.get(self.next_consumer) {
            let object = consumer.write(last_seq);
            let name = format!("{}{}", archive::CONSUMERS, consumer.name);
            let payload_len = object.len() as u64;
            Entry { name: name.as_bytes(), time_ns: now_ns, payload_len, ..Entry::default() }
                .write(&mut self.scratch);
            self.scratch.extend_from_slice(&object);
            self.encoder.push(&self.scratch);
            self.next_consumer += 1;
            return Ok(None);
        }
        let Some(seq) = store.next(self.next_seq).filter(|seq| *seq <= last_seq) else {
            Entry::default().write(&mut self.scratch);
            self.encoder.push(&self.scratch);
            self.encoder.flush();
            self.is_written = true;
            return Ok(None);
        };
        // What was read and has gone meanwhile.
        while self.fetched.front().is_some_and(|front| front.seq < seq) {
            self.fetched.pop_front();
        }
        let message = match self.fetched.front() {
            Some(front) if front.seq == seq => self.fetched.pop_front(),
            _ => None,
        };
        let message = match message.map_or_else(|| store.read(seq), Read::Found) {
            Read::Found(message) => message,
            // It was read again and again, and never came.
            Read::OnDisk(_) if self.tries == (seq, READ_TRIES) => return Err(seq),
            Read::OnDisk(plan) => {
                let tries = if self.tries.0 == seq { self.tries.1 } else { 0 };
                self.tries = (seq, tries + 1);
                return Ok(Some(store.read_ahead(seq, last_seq, READ_BYTES).unwrap_or(plan)));
            }
            Read::Missing => return Err(seq),
        };
        self.next_seq = seq + 1;
        Entry {
            name: message.subject(),
            time_ns: message.time_ns,
            seq,
            header_len: message.header().len() as u64,
            payload_len: message.payload().len() as u64,
        }
        .write(&mut self.scratch);
        self.scratch.extend_from_slice(message.header());
        self.scratch.extend_from_slice(message.payload());
        self.encoder.push(&self.scratch);
        Ok(None)
    }

    /// Sends a whole piece.
    fn send_chunk(&mut self, now_ns: i64, outlet: &mut impl Outlet) {
        let reply = format!("{}.{}.{}", self.plan.ack_prefix, self.chunk_len, self.number);
        let frames = self.encoder.frames();
        outlet.publish(&self.plan.deliver, reply.as_bytes(), b"", &frames[..self.chunk_len]);
        frames.drain(..self.chunk_len);
        self.in_flight += 1;
        self.number += 1;
        self.sent_ns = now_ns;
    }

    /// The rest, and that it is the rest. Without a whole piece before there is no status, as in the reference.
    fn finish(&mut self, outlet: &mut impl Outlet) -> Work {
        let rest = std::mem::take(self.encoder.frames());
        if !rest.is_empty() {
            outlet.publish(&self.plan.deliver, b"", b"", &rest);
        }
        let status: &[u8] = if self.number > 1 { b"NATS/1.0 204\r\n\r\n" } else { b"" };
        outlet.publish(&self.plan.deliver, b"", status, b"");
        self.stage = Stage::Over;
        Work::Over(None)
    }

    fn end(&mut self, status: &str, error: &str, outlet: &mut impl Outlet) -> Work {
        let status = format!("NATS/1.0 {status}\r\n\r\n");
        outlet.publish(&self.plan.deliver, b"", status.as_bytes(), b"");
        self.stage = Stage::Over;
        Work::Over(Some(error.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::reader::{Item, Reader};
    use super::*;
    use crate::store::{MemoryStore, Message};
    use crate::stream::consumer::Delivery;

    /// A client: what came to it.
    #[derive(Default)]
    struct Client {
        chunks: Vec<(String, Vec<u8>)>,
        status: Option<String>,
    }

    impl Outlet for Client {
        fn has_interest(&mut self, _: &[u8], _: &[u8]) -> bool {
            unreachable!("it is told")
        }

        fn deliver(&mut self, _: &Delivery<'_>) -> bool {
            unreachable!("it publishes")
        }

        fn publish(&mut self, subject: &[u8], reply: &[u8], header: &[u8], payload: &[u8]) {
            assert_eq!(subject, b"to");
            if payload.is_empty() {
                self.status = Some(String::from_utf8(header.to_vec()).unwrap());
            } else {
                self.chunks.push((String::from_utf8(reply.to_vec()).unwrap(), payload.to_vec()));
            }
        }
    }

    fn store(messages: u64) -> Store {
        let mut store = Store::from(MemoryStore::new());
        let mut random = fastrand::Rng::with_seed(1);
        for seq in 1..=messages {
            // What does not compress.
            let payload: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(700).collect();
            let message = Message { seq, time_ns: 7, subject: b"a", header: b"", payload: &payload };
            store.append(&message).unwrap();
        }
        store
    }

    fn snapshot(store: &Store, chunk_bytes: i64, window_bytes: i64) -> Snapshot {
        let state = store.state();
        Snapshot::new(SnapshotPlan {
            deliver: b"to".to_vec(),
            chunk_bytes,
            window_bytes,
            state: b"{\"first_seq\":1,\"last_seq\":100}".to_vec(),
            seqs: (state.first_seq, state.last_seq),
            consumers: Vec::new(),
            ack_prefix: "ack".to_owned(),
        })
    }

    fn sequences(client: &Client) -> Vec<u64> {
        let mut reader = Reader::new("S", "$G", 1 << 20, None);
        for (_, chunk) in &client.chunks {
            reader.push(chunk);
        }
        let mut seqs = Vec::new();
        loop {
            match reader.next_item().unwrap().unwrap() {
                Item::Message(message) => seqs.push(message.seq),
                Item::End => return seqs,
                _ => {}
            }
        }
    }

    #[test]
    fn no_more_is_on_its_way_than_the_window_lets() {
        let store = store(100);
        let mut client = Client::default();
        let mut snapshot = snapshot(&store, 1024, 4096);
        let mut acked = 0;
        loop {
            match snapshot.run(&store, true, 1, &mut client) {
                Work::Over(error) => break assert_eq!(error, None),
                Work::Wait => {
                    let whole = client.chunks.iter().filter(|(reply, _)| !reply.is_empty()).count();
                    assert_eq!(whole - acked, 4);
                    snapshot.acked();
                    acked += 1;
                }
                work => assert_eq!(work, Work::More),
            }
        }
        assert_eq!(client.status.as_deref(), Some("NATS/1.0 204\r\n\r\n"));
        assert_eq!(client.chunks[1].0, "ack.1024.2");
        assert!(client.chunks.iter().rev().skip(1).all(|(_, chunk)| chunk.len() == 1024));
        assert_eq!(client.chunks.last().unwrap().0, "");
        assert_eq!(sequences(&client), (1..=100).collect::<Vec<_>>());
    }

    #[test]
    fn what_goes_before_its_turn_is_left_out_and_what_comes_later_too() {
        // A block of the compression, some 90 messages, is written before anything goes.
        let mut store = store(200);
        let mut client = Client::default();
        let mut snapshot = snapshot(&store, 1024, 1024);
        assert_eq!(snapshot.run(&store, true, 1, &mut client), Work::Wait);
        store.remove(190, false);
        store.remove_up_to(180);
        let late = Message { seq: 201, time_ns: 7, subject: b"a", header: b"", payload: b"late" };
        store.append(&late).unwrap();
        while snapshot.run(&store, true, 1, &mut client) != Work::Over(None) {
            snapshot.acked();
        }
        let seqs = sequences(&client);
        assert!(seqs.ends_with(&[188, 189, 191, 192, 193, 194, 195, 196, 197, 198, 199, 200]), "{seqs:?}");
        assert!(seqs.len() < 150);
    }

    #[test]
    fn a_client_that_goes_away_or_does_not_answer_ends_it() {
        let store = store(100);
        let mut client = Client::default();
        let mut silent = snapshot(&store, 1024, 1024);
        assert_eq!(silent.run(&store, true, 0, &mut client), Work::Wait);
        assert_eq!(silent.run(&store, true, FLOW_WAIT_NS - 1, &mut client), Work::Wait);
        let over = Work::Over(Some("no flow response".to_owned()));
        assert_eq!(silent.run(&store, true, FLOW_WAIT_NS, &mut client), over);
        assert_eq!(client.status.as_deref(), Some("NATS/1.0 408 No Flow Response\r\n\r\n"));
        assert_eq!(silent.deadline_ns(), None);
        let mut left = snapshot(&store, 1024, 1024);
        assert_eq!(left.run(&store, true, 0, &mut client), Work::Wait);
        assert_eq!(left.run(&store, false, 1, &mut client), Work::Over(Some("no interest".to_owned())));
        assert_eq!(client.status.as_deref(), Some("NATS/1.0 408 No Interest\r\n\r\n"));
    }

    #[test]
    fn who_is_not_there_yet_is_waited_for_but_not_for_ever() {
        let store = store(2);
        let mut client = Client::default();
        let mut snapshot = snapshot(&store, 0, 0);
        assert_eq!(snapshot.run(&store, false, 0, &mut client), Work::Wait);
        assert_eq!(snapshot.run(&store, false, INTEREST_WAIT_NS - 1, &mut client), Work::Wait);
        assert!(client.chunks.is_empty());
        assert_eq!(snapshot.run(&store, false, INTEREST_WAIT_NS, &mut client), Work::Over(None));
        // Small enough for one piece: then there is no status.
        assert_eq!(client.status.as_deref(), Some(""));
        assert_eq!(client.chunks.len(), 1);
    }
}
