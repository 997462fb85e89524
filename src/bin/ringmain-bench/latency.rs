//! `latency`: how long messages take at a fixed rate, from the moment they were due until they were received.
//!
//! The publisher keeps to its schedule whatever the server does, each payload begins with the message's due
//! time, and that is what latency counts from (see `schedule`). How late the publisher itself woke up is
//! part of the figure and reported beside it.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::args::Options;
use crate::client::{ANSWER_TIMEOUT, Connection, Target};
use crate::epoll::Epoll;
use crate::error::BenchError;
use crate::frames;
use crate::inbox::Event;
use crate::progress::Progress;
use crate::report::{Latency, Outcome, new_histogram};
use crate::schedule::Schedule;
use crate::server_usage;

/// Length of the due time at the start of the payload: nanoseconds since the run's origin, little endian.
const STAMP_LEN: usize = 8;

const STOP_CHECK: Duration = Duration::from_millis(20);

pub fn run(options: &Options) -> Result<Outcome, BenchError> {
    let target = Target::new(options)?;
    let subject = format!("bench.{}.0", frames::run_id());
    let mut subscribers = Vec::with_capacity(options.subscribers);
    for _ in 0..options.subscribers {
        let mut line = Vec::new();
        frames::push_subscribe(&mut line, &subject, None, "1");
        let mut connection = Connection::open(&target)?;
        connection.send(&line)?;
        connection.flush()?;
        connection.stream.set_nonblocking(true).map_err(BenchError::io("setting a socket"))?;
        subscribers.push(connection);
    }
    let mut publisher = Connection::open(&target)?;
    publisher.check_size(options.size)?;
    let version = publisher.info.version.clone();

    let rate = options.rate.unwrap_or(100_000.0);
    let schedule = Schedule::new(rate, options.burst);
    let shared = Shared { received: AtomicU64::new(0), stop: AtomicBool::new(false) };
    let origin = Instant::now();
    std::thread::scope(|scope| {
        let shared = &shared;
        let reader = scope.spawn(move || {
            let result = receive(subscribers, origin, options.warmup, shared);
            shared.stop.store(true, Ordering::Release);
            result
        });
        let published = publish(&mut publisher, &subject, schedule, origin, options, shared);
        shared.stop.store(true, Ordering::Release);
        let latencies = reader.join().expect("the reader does not panic")?;
        let published = published?;

        let count = latencies.len() as f64;
        let mut more = std::collections::BTreeMap::new();
        more.insert("tool_late_p50_us", published.lateness.value_at_quantile(0.5) as f64 / 1e3);
        more.insert("tool_late_p99_us", published.lateness.value_at_quantile(0.99) as f64 / 1e3);
        Ok(Outcome {
            command: "latency",
            what: format!(
                "1 to {}, {} B at {rate:.0} messages/s in bursts of {}, from the due time",
                options.subscribers,
                options.size,
                schedule.burst()
            ),
            server: options.server.clone(),
            server_version: version,
            unit: if options.subscribers > 1 { "delivery" } else { "message" },
            count: latencies.len(),
            elapsed_s: published.elapsed.as_secs_f64(),
            rate_per_s: count / published.elapsed.as_secs_f64(),
            payload_bytes_per_s: None,
            server_cpu_ns_per_msg: published.server_cpu_ns.map(|cpu| cpu as f64 / count),
            client_cpu_ns_per_msg: published.client_cpu_ns as f64 / count,
            server_rss_bytes: options
                .server_pid
                .map(server_usage::of_process)
                .transpose()?
                .map(|usage| usage.rss_bytes),
            latency: Some(Latency::of(&latencies)),
            more,
        })
    })
}

struct Shared {
    received: AtomicU64,
    stop: AtomicBool,
}

struct Published {
    elapsed: Duration,
    server_cpu_ns: Option<u64>,
    client_cpu_ns: u64,
    lateness: Histogram<u64>,
}

fn publish(
    connection: &mut Connection,
    subject: &str,
    schedule: Schedule,
    origin: Instant,
    options: &Options,
    shared: &Shared,
) -> Result<Published, BenchError> {
    let mut burst = Vec::new();
    for _ in 0..schedule.burst() {
        frames::push_publish(&mut burst, subject, None, &frames::payload(options.size));
    }
    let frame_len = burst.len() / schedule.burst() as usize;
    let stamp_at = frame_len - options.size - 2;
    let server_cpu = || options.server_pid.map(server_usage::cpu_ns).transpose();

    let mut progress = Progress::new("messages", options.quiet || options.json);
    let mut lateness = new_histogram();
    let mut measured_from = None;
    let end = options.warmup + options.duration;
    server_usage::sleep_precisely();
    let mut index = 0;
    while schedule.due(index) < end && !shared.stop.load(Ordering::Relaxed) {
        let due = schedule.due(index);
        let early = due.saturating_sub(origin.elapsed());
        if !early.is_zero() {
            connection.answer_pings()?;
            std::thread::sleep(early);
        }
        if due >= options.warmup {
            if measured_from.is_none() {
                measured_from = Some((server_cpu()?, server_usage::own_cpu_ns(), Instant::now()));
            }
            lateness.saturating_record(origin.elapsed().saturating_sub(due).as_nanos() as u64);
        }
        let stamp = (due.as_nanos() as u64).to_le_bytes();
        for frame in burst.chunks_exact_mut(frame_len) {
            frame[stamp_at..stamp_at + STAMP_LEN].copy_from_slice(&stamp);
        }
        connection.send(&burst)?;
        index += 1;
        progress.show(shared.received.load(Ordering::Relaxed));
    }
    connection.flush()?;

    let expected = index * schedule.burst() * options.subscribers as u64;
    let mut last = (shared.received.load(Ordering::Acquire), Instant::now());
    while last.0 < expected && !shared.stop.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_micros(100));
        let received = shared.received.load(Ordering::Acquire);
        if received > last.0 {
            last = (received, Instant::now());
        } else if last.1.elapsed() > ANSWER_TIMEOUT / 4 {
            return Err(BenchError::Missing { what: "messages", got: received, expected });
        }
    }
    if last.0 > expected {
        return Err(BenchError::Surplus { what: "messages", got: last.0, expected });
    }
    let (server_before, client_before, started) = measured_from
        .ok_or_else(|| BenchError::Unsupported("--duration is too short for this rate".to_owned()))?;
    Ok(Published {
        elapsed: started.elapsed(),
        server_cpu_ns: server_before.zip(server_cpu()?).map(|(before, after)| after - before),
        client_cpu_ns: server_usage::own_cpu_ns() - client_before,
        lateness,
    })
}

/// Receives everything on all subscribers and records what was due after the warm-up.
fn receive(
    mut subscribers: Vec<Connection>,
    origin: Instant,
    warmup: Duration,
    shared: &Shared,
) -> Result<Histogram<u64>, BenchError> {
    let mut epoll = Epoll::new().map_err(BenchError::io("epoll"))?;
    for (token, subscriber) in subscribers.iter().enumerate() {
        epoll.add(&subscriber.stream, token).map_err(BenchError::io("epoll"))?;
    }
    let mut latencies = new_histogram();
    let mut ready = Vec::new();
    let measured_from = warmup.as_nanos() as u64;
    while !shared.stop.load(Ordering::Acquire) {
        epoll.wait(STOP_CHECK, &mut ready).map_err(BenchError::io("epoll"))?;
        for &token in &ready {
            let subscriber = &mut subscribers[token];
            subscriber.fill("while receiving")?;
            let now = origin.elapsed().as_nanos() as u64;
            let mut messages = 0;
            while let Some(event) = subscriber.inbox.next_event()? {
                match event {
                    Event::Message { payload, .. } => {
                        let due = stamp_of(payload)?;
                        if due >= measured_from {
                            latencies.saturating_record(now.saturating_sub(due));
                        }
                        messages += 1;
                    }
                    Event::Ping => {
                        io::Write::write_all(&mut subscriber.stream, b"PONG\r\n")
                            .map_err(BenchError::io("answering PING"))?;
                    }
                    Event::Pong | Event::Info(_) => {}
                }
            }
            shared.received.fetch_add(messages, Ordering::AcqRel);
        }
    }
    Ok(latencies)
}

fn stamp_of(payload: &[u8]) -> Result<u64, BenchError> {
    let stamp = payload.first_chunk::<STAMP_LEN>().ok_or_else(|| BenchError::unexpected(payload))?;
    Ok(u64::from_le_bytes(*stamp))
}
