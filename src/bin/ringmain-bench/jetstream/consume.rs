//! `js-consume`: a stream pulled in batches by one client that acknowledges every message, as `Consume` of the clients does it:
//! the next batch is asked for when half of the last one has come.

use serde_json::{Value, json};

use super::Meter;
use super::api::Api;
use super::pipeline::fill;
use crate::args::Options;
use crate::client::{Connection, Target};
use crate::error::BenchError;
use crate::frames;
use crate::inbox::Event;
use crate::report::Outcome;

const READ_BYTES_MAX: usize = 256 * 1024;

/// How long a request for messages waits at the server.
pub const EXPIRES_NS: u64 = 30_000_000_000;

pub fn run(options: &Options) -> Result<Outcome, BenchError> {
    let target = Target::new(options)?;
    let mut api = Api::open(&target)?;
    let messages = options.messages.unwrap_or(500_000);
    let id = frames::run_id();
    let stream = format!("bench-{id}");
    let subject = format!("bench.{id}.0");
    api.create_stream(&stream, std::slice::from_ref(&subject), Value::Null, options)?;
    fill(&target, &[subject], messages, options.size)?;
    let config = json!({ "durable_name": "c", "ack_policy": "explicit", "deliver_policy": "all", "max_ack_pending": 2 * options.fetch });
    api.create_consumer(&stream, "c", config)?;

    let meter = Meter::start(options)?;
    let mut puller = Puller::open(&target, &stream, "c", options.fetch)?;
    let mut received = 0;
    while received < messages {
        received += puller.receive(|_| true)?;
    }
    puller.connection.flush()?;
    // Acknowledgements are not answered: they have arrived when the consumer says so.
    while api.open_of(&stream, "c")? != (0, 0) {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let what =
        format!("{messages} messages of {} B, pulled by {}, explicit acks", options.size, options.fetch);
    let mut outcome = meter.stop("js-consume", "message", what, received, None, options)?;
    outcome.server_version = api.version();
    api.delete_stream(&stream)?;
    Ok(outcome)
}

/// A connection that pulls from a consumer.
pub struct Puller {
    pub connection: Connection,
    request: Vec<u8>,
    fetch: usize,
    /// Messages that have been asked for and have not come.
    asked: usize,
    acks: Vec<u8>,
}

impl Puller {
    pub fn open(target: &Target, stream: &str, consumer: &str, fetch: usize) -> Result<Puller, BenchError> {
        let mut connection = Connection::open(target)?;
        connection.inbox.reserve(READ_BYTES_MAX);
        let inbox = format!("_INBOX.{}{}", frames::run_id(), frames::run_id());
        let mut line = Vec::new();
        frames::push_subscribe(&mut line, &inbox, None, "1");
        connection.send(&line)?;
        connection.flush()?;
        let mut request = Vec::new();
        let body = json!({ "batch": fetch, "expires": EXPIRES_NS }).to_string();
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}");
        frames::push_publish(&mut request, &subject, Some(&inbox), body.as_bytes());
        let mut puller = Puller { connection, request, fetch, asked: 0, acks: Vec::new() };
        puller.ask()?;
        Ok(puller)
    }

    fn ask(&mut self) -> Result<(), BenchError> {
        self.asked += self.fetch;
        self.connection.send(&self.request)
    }

    /// One read. Acknowledges each message in it for which `take`, given its payload, says so. Their number.
    pub fn receive(&mut self, mut take: impl FnMut(&[u8]) -> bool) -> Result<u64, BenchError> {
        self.connection.fill("while consuming")?;
        self.acks.clear();
        let mut messages = 0;
        while let Some(event) = self.connection.inbox.next_event()? {
            match event {
                // Without a payload, and a status: 100 is a sign of life, 408 says that the time of a request is over.
                Event::Message { header, payload: b"", reply: None, .. } if !header.is_empty() => {
                    if header.starts_with(b"NATS/1.0 408") {
                        self.asked = 0;
                    } else if !header.starts_with(b"NATS/1.0 100") {
                        return Err(BenchError::unexpected(header));
                    }
                }
                Event::Message { reply: Some(reply), payload, .. } => {
                    messages += 1;
                    self.asked = self.asked.saturating_sub(1);
                    if take(payload) {
                        self.acks.extend_from_slice(b"PUB ");
                        self.acks.extend_from_slice(reply);
                        self.acks.extend_from_slice(b" 4\r\n+ACK\r\n");
                    }
                }
                Event::Message { subject, .. } => return Err(BenchError::unexpected(subject)),
                Event::Ping => self.acks.extend_from_slice(b"PONG\r\n"),
                Event::Pong | Event::Info(_) => {}
            }
        }
        if self.asked <= self.fetch / 2 {
            self.asked += self.fetch;
            self.acks.extend_from_slice(&self.request);
        }
        if !self.acks.is_empty() {
            self.connection.send(&self.acks)?;
        }
        Ok(messages)
    }
}
