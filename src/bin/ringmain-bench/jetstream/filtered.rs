//! `js-filtered`: how long a new consumer takes to its first message, when few of a stream's messages match its filter.

use std::time::Instant;

use serde_json::{Value, json};

use super::Meter;
use super::api::Api;
use super::pipeline::fill;
use crate::args::Options;
use crate::client::{Connection, Target};
use crate::error::BenchError;
use crate::frames;
use crate::inbox::Event;
use crate::report::{Latency, Outcome, new_histogram};

/// So many consumers ask, one after the other.
const CONSUMERS: u64 = 20;

pub fn run(options: &Options) -> Result<Outcome, BenchError> {
    let target = Target::new(options)?;
    let mut api = Api::open(&target)?;
    let messages = options.messages.unwrap_or(5_000_000);
    let matching = messages / options.every;
    let id = frames::run_id();
    let stream = format!("bench-{id}");
    let (common, rare) = (format!("bench.{id}.common"), format!("bench.{id}.rare00"));
    api.create_stream(&stream, &[format!("bench.{id}.*")], Value::Null, options)?;
    let mut subjects = vec![common; options.every as usize - 1];
    subjects.push(rare.clone());
    fill(&target, &subjects, messages, options.size)?;

    let inbox = format!("_INBOX.{}", frames::run_id());
    let mut connection = Connection::open(&target)?;
    let mut line = Vec::new();
    frames::push_subscribe(&mut line, &inbox, None, "1");
    connection.send(&line)?;
    connection.flush()?;
    let (mut first, mut all) = (new_histogram(), new_histogram());
    let meter = Meter::start(options)?;
    for number in 0..CONSUMERS {
        let name = format!("c{number}");
        let started = Instant::now();
        let config = json!({
            "ack_policy": "explicit", "filter_subject": rare, "inactive_threshold": 60_000_000_000u64,
        });
        api.create_consumer(&stream, &name, config)?;
        let mut request = Vec::new();
        let body = json!({ "batch": matching, "expires": 10_000_000_000u64 }).to_string();
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}");
        frames::push_publish(&mut request, &subject, Some(&inbox), body.as_bytes());
        connection.send(&request)?;
        let mut got = 0;
        while got < matching {
            connection.fill("before its messages")?;
            while let Some(event) = connection.inbox.next_event()? {
                if let Event::Message { subject, header, .. } = event {
                    if subject != rare.as_bytes() {
                        return Err(BenchError::unexpected(if header.is_empty() { subject } else { header }));
                    }
                    if got == 0 {
                        first.saturating_record(started.elapsed().as_nanos() as u64);
                    }
                    got += 1;
                }
            }
        }
        all.saturating_record(started.elapsed().as_nanos() as u64);
        api.delete_consumer(&stream, &name)?;
    }
    let what = format!("{messages} messages, of which 1 in {} matches; to the first message", options.every);
    let mut outcome = meter.stop("js-filtered", "consumer", what, CONSUMERS, None, options)?;
    outcome.latency = Some(Latency::of(&first));
    outcome.more.insert("first_message_slowest_ms", first.max() as f64 / 1e6);
    outcome.more.insert("all_messages_p50_ms", all.value_at_quantile(0.5) as f64 / 1e6);
    outcome.server_version = api.version();
    api.delete_stream(&stream)?;
    Ok(outcome)
}
