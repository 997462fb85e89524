//! An ordered consumer, as clients have it: pushed, without acknowledgements, in memory, with flow control and heartbeats, and
//! every message's place checked.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::api::Api;
use crate::client::{Connection, Target};
use crate::error::BenchError;
use crate::frames;
use crate::inbox::Event;

const READ_BYTES_MAX: usize = 256 * 1024;

/// What came.
pub struct Replayed {
    pub messages: u64,
    /// From asking for the consumer to the last message.
    pub elapsed: Duration,
}

/// Receives all messages that an ordered consumer with `more` in its configuration has at its start.
pub fn replay(
    api: &mut Api,
    target: &Target,
    stream: &str,
    more: Value,
    expected: u64,
) -> Result<Replayed, BenchError> {
    let mut connection = Connection::open(target)?;
    connection.inbox.reserve(READ_BYTES_MAX);
    let name = format!("o{}{}", frames::run_id(), frames::run_id());
    let inbox = format!("_INBOX.{name}");
    let mut line = Vec::new();
    frames::push_subscribe(&mut line, &inbox, None, "1");
    connection.send(&line)?;
    connection.flush()?;

    let mut config = json!({
        "deliver_subject": inbox, "deliver_policy": "all", "ack_policy": "none", "max_deliver": 1,
        "ack_wait": 79_200_000_000_000u64, "flow_control": true, "idle_heartbeat": 5_000_000_000u64,
        "mem_storage": true, "num_replicas": 1, "replay_policy": "instant", "inactive_threshold": 60_000_000_000u64,
    });
    if let (Some(config), Value::Object(more)) = (config.as_object_mut(), more) {
        config.extend(more);
    }
    let started = Instant::now();
    api.create_consumer(stream, &name, config)?;
    let (mut messages, mut last) = (0, started);
    let mut answers = Vec::new();
    while messages < expected {
        connection.fill("while replaying")?;
        answers.clear();
        while let Some(event) = connection.inbox.next_event()? {
            match event {
                Event::Message { reply: Some(reply), header, .. } if header.starts_with(b"NATS/1.0 100") => {
                    // Flow control: whoever has come this far says so.
                    frames::push_publish(&mut answers, &String::from_utf8_lossy(reply), None, b"");
                }
                Event::Message { header, .. } if header.starts_with(b"NATS/1.0 100") => {}
                Event::Message { subject, reply, .. } => {
                    messages += 1;
                    if reply.and_then(consumer_sequence) != Some(messages) {
                        return Err(BenchError::unexpected(reply.unwrap_or(subject)));
                    }
                }
                Event::Ping => answers.extend_from_slice(b"PONG\r\n"),
                Event::Pong | Event::Info(_) => {}
            }
        }
        last = Instant::now();
        if !answers.is_empty() {
            connection.send(&answers)?;
        }
    }
    if messages > expected {
        return Err(BenchError::Surplus { what: "messages", got: messages, expected });
    }
    api.delete_consumer(stream, &name)?;
    Ok(Replayed { messages, elapsed: last - started })
}

/// Of `$JS.ACK.STREAM.CONSUMER.DELIVERED.STREAM_SEQ.CONSUMER_SEQ.TIME.PENDING`.
fn consumer_sequence(reply: &[u8]) -> Option<u64> {
    let token = reply.rsplit(|byte| *byte == b'.').nth(2)?;
    std::str::from_utf8(token).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_consumer_sequence_is_the_third_from_the_end() {
        assert_eq!(consumer_sequence(b"$JS.ACK.s.c.1.20.7.1700000000000000000.3"), Some(7));
        assert_eq!(consumer_sequence(b"7"), None);
    }
}
