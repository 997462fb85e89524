//! `js-consumers`: many pull consumers on one stream that have nothing to do: what each takes of memory, and what all of them of
//! CPU while a client waits at each.

use std::time::{Duration, Instant};

use serde_json::json;

use super::Meter;
use super::api::{Api, consumer_config};
use super::consume::EXPIRES_NS;
use crate::args::Options;
use crate::client::{ANSWER_TIMEOUT, Connection, Target};
use crate::error::BenchError;
use crate::frames;
use crate::inbox::Event;
use crate::report::Outcome;
use crate::server_usage;

/// Requests to create that are unanswered at a time.
const WINDOW: usize = 100;

pub fn run(options: &Options) -> Result<Outcome, BenchError> {
    let target = Target::new(options)?;
    let mut api = Api::open(&target)?;
    let id = frames::run_id();
    let stream = format!("bench-{id}");
    // nats-server 2.15 allows 1,000 unless the stream says otherwise.
    let more = json!({ "max_consumers": options.consumers });
    api.create_stream(&stream, &[format!("bench.{id}.>")], more, options)?;
    let mut connection = Connection::open(&target)?;
    let (created, waiting) = (format!("_INBOX.{id}.created"), format!("_INBOX.{id}.waiting"));
    let mut lines = Vec::new();
    frames::push_subscribe(&mut lines, &created, None, "1");
    frames::push_subscribe(&mut lines, &waiting, None, "2");
    connection.send(&lines)?;
    connection.flush()?;
    let settle = |options: &Options| -> Result<Option<u64>, BenchError> {
        std::thread::sleep(options.settle);
        Ok(options.server_pid.map(server_usage::of_process).transpose()?.map(|usage| usage.rss_bytes))
    };

    let rss_before = settle(options)?;
    let meter = Meter::start(options)?;
    let (mut asked, mut there) = (0, 0);
    while there < options.consumers {
        let mut requests = Vec::new();
        while asked < options.consumers && asked - there < WINDOW {
            let name = format!("c{asked:06}");
            let body =
                consumer_config(&stream, &name, json!({ "durable_name": name, "ack_policy": "explicit" }));
            let subject = format!("$JS.API.CONSUMER.CREATE.{stream}.{name}");
            frames::push_publish(&mut requests, &subject, Some(&created), body.to_string().as_bytes());
            asked += 1;
        }
        if !requests.is_empty() {
            connection.send(&requests)?;
        }
        connection.fill("while creating consumers")?;
        while let Some(event) = connection.inbox.next_event()? {
            if let Event::Message { payload, .. } = event {
                if let Some(at) = memchr::memmem::find(payload, b"\"error\"") {
                    return Err(BenchError::unexpected(&payload[at..]));
                }
                there += 1;
            }
        }
    }
    let what = format!("{} pull consumers on a stream in {}", options.consumers, options.storage);
    let mut outcome = meter.stop("js-consumers", "consumer", what, there as u64, None, options)?;
    let rss_created = settle(options)?;

    let mut requests = Vec::new();
    let body = json!({ "batch": 1, "expires": 10 * EXPIRES_NS }).to_string();
    for number in 0..options.consumers {
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.c{number:06}");
        frames::push_publish(&mut requests, &subject, Some(&waiting), body.as_bytes());
    }
    connection.send(&requests)?;
    connection.flush()?;
    let rss_waiting = settle(options)?;
    let usage = options.server_pid.map(server_usage::of_process).transpose()?;
    let started = Instant::now();
    std::thread::sleep(options.duration);
    if let (Some(before), Some(pid)) = (usage, options.server_pid) {
        let used = server_usage::of_process(pid)?.cpu_ns - before.cpu_ns;
        outcome.more.insert("idle_cpu_percent", used as f64 / started.elapsed().as_nanos() as f64 * 100.0);
    }
    let each = |before: Option<u64>, after: Option<u64>| {
        Some((after? as f64 - before? as f64) / options.consumers as f64)
    };
    outcome.more.extend(each(rss_before, rss_created).map(|bytes| ("rss_bytes_per_consumer", bytes)));
    outcome.more.extend(each(rss_created, rss_waiting).map(|bytes| ("rss_bytes_per_waiting_pull", bytes)));
    outcome.server_rss_bytes = rss_waiting;
    outcome.server_version = api.version();
    // What does nothing may also be dead: one message wakes all of them.
    let mut message = Vec::new();
    frames::push_publish(&mut message, &format!("bench.{id}.0"), None, b"x");
    connection.send(&message)?;
    let mut delivered = 0;
    let last = Instant::now();
    while delivered < options.consumers && last.elapsed() < ANSWER_TIMEOUT + Duration::from_secs(1) {
        connection.fill("before its messages")?;
        while let Some(event) = connection.inbox.next_event()? {
            delivered += usize::from(matches!(event, Event::Message { payload: b"x", .. }));
        }
    }
    if delivered != options.consumers {
        let (got, expected) = (delivered as u64, options.consumers as u64);
        return Err(BenchError::Missing { what: "deliveries to all consumers", got, expected });
    }
    api.delete_stream(&stream)?;
    Ok(outcome)
}
