//! `request`: request/reply from N connections with one request in flight on each, as N callers would do it.
//!
//! One thread drives all callers and records every latency; responders have connections and threads of their
//! own. With a rate the load is open: requests are due at fixed times, one that finds its connection busy
//! waits for it, and latency counts from the due time (see `schedule`).

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
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

/// How often a responder without requests checks whether it should stop.
const STOP_CHECK: Duration = Duration::from_millis(50);

pub fn run(options: &Options) -> Result<Outcome, BenchError> {
    let target = Target::new(options)?;
    let id = frames::run_id();
    let service = format!("bench.{id}.service");
    let queue = (options.responders > 1).then_some("bench");
    let mut responders = Vec::with_capacity(options.responders);
    for _ in 0..options.responders {
        let mut line = Vec::new();
        frames::push_subscribe(&mut line, &service, queue, "1");
        let mut connection = Connection::open(&target)?;
        connection.send(&line)?;
        connection.flush()?;
        connection.check_size(options.size)?;
        responders.push(connection);
    }
    let version = responders[0].info.version.clone();
    let mut callers = Callers::open(&target, &id, &service, options)?;

    let stop = AtomicBool::new(false);
    let tail = format!(" {}\r\n", options.size);
    std::thread::scope(|scope| {
        let answering: Vec<_> = responders
            .into_iter()
            .map(|connection| {
                let (stop, tail) = (&stop, tail.as_bytes());
                scope.spawn(move || respond(connection, tail, stop))
            })
            .collect();
        let measured = measure(&mut callers, options, version);
        stop.store(true, Ordering::Release);
        // A responder that failed is the reason why callers wait in vain: its error comes first.
        for thread in answering {
            thread.join().expect("a responder does not panic")?;
        }
        measured
    })
}

fn measure(callers: &mut Callers, options: &Options, version: String) -> Result<Outcome, BenchError> {
    let mut progress = Progress::new("requests", options.quiet || options.json);
    let mut ignored = new_histogram();
    callers.run(options.warmup, None, options.rate, &mut ignored, &mut progress)?;

    let usage = || options.server_pid.map(server_usage::of_process).transpose();
    let mut latencies = new_histogram();
    let before = usage()?;
    let client_before = server_usage::own_cpu_ns();
    let started = Instant::now();
    callers.run(options.duration, options.messages, options.rate, &mut latencies, &mut progress)?;
    let elapsed = started.elapsed();
    let client_cpu = server_usage::own_cpu_ns() - client_before;
    let after = usage()?;

    let count = latencies.len() as f64;
    let loop_kind = options.rate.map_or("closed loop".to_owned(), |rate| format!("open loop, {rate:.0}/s"));
    Ok(Outcome {
        command: "request",
        what: format!("{} connections, {} B, {loop_kind}", options.connections, options.size),
        server: options.server.clone(),
        server_version: version,
        unit: "request",
        count: latencies.len(),
        elapsed_s: elapsed.as_secs_f64(),
        rate_per_s: count / elapsed.as_secs_f64(),
        payload_bytes_per_s: None,
        server_cpu_ns_per_msg: before
            .zip(after)
            .map(|(before, after)| (after.cpu_ns - before.cpu_ns) as f64 / count),
        client_cpu_ns_per_msg: client_cpu as f64 / count,
        server_rss_bytes: after.map(|usage| usage.rss_bytes),
        latency: Some(Latency::of(&latencies)),
        more: Default::default(),
    })
}

/// Answers every request with its own payload until told to stop.
fn respond(mut connection: Connection, tail: &[u8], stop: &AtomicBool) -> Result<(), BenchError> {
    let failed = || BenchError::io("a responder");
    connection.stream.set_read_timeout(Some(STOP_CHECK)).map_err(failed())?;
    let mut answers = Vec::new();
    while !stop.load(Ordering::Acquire) {
        match connection.inbox.fill(&connection.stream) {
            Ok(0) => return Err(BenchError::Closed("a responder's")),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(failed()(error)),
        }
        answers.clear();
        while let Some(event) = connection.inbox.next_event()? {
            match event {
                Event::Message { reply: Some(reply), payload, .. } => {
                    answers.extend_from_slice(b"PUB ");
                    answers.extend_from_slice(reply);
                    answers.extend_from_slice(tail);
                    answers.extend_from_slice(payload);
                    answers.extend_from_slice(b"\r\n");
                }
                Event::Message { subject, .. } => return Err(BenchError::unexpected(subject)),
                Event::Ping => answers.extend_from_slice(b"PONG\r\n"),
                Event::Pong | Event::Info(_) => {}
            }
        }
        connection.stream.write_all(&answers).map_err(failed())?;
    }
    Ok(())
}

/// All calling connections.
struct Callers {
    callers: Vec<Caller>,
    epoll: Epoll,
}

struct Caller {
    connection: Connection,
    /// The encoded request: always the same.
    request: Vec<u8>,
    /// When the request in flight was due.
    in_flight: Option<Instant>,
    /// Due times of requests that wait for the one in flight.
    waiting: VecDeque<Instant>,
}

impl Callers {
    fn open(target: &Target, id: &str, service: &str, options: &Options) -> Result<Callers, BenchError> {
        let epoll = Epoll::new().map_err(BenchError::io("epoll"))?;
        let payload = frames::payload(options.size);
        let mut callers = Vec::with_capacity(options.connections);
        for index in 0..options.connections {
            // As the official clients do it: one wildcard subscription, a token of its own for every request.
            let mut connection = Connection::open(target)?;
            let mut line = Vec::new();
            frames::push_subscribe(&mut line, &format!("_INBOX.{id}{index:05}.*"), None, "1");
            connection.send(&line)?;
            connection.flush()?;
            connection.stream.set_nonblocking(true).map_err(BenchError::io("setting a socket"))?;
            epoll.add(&connection.stream, index).map_err(BenchError::io("epoll"))?;
            let mut request = Vec::new();
            frames::push_publish(&mut request, service, Some(&format!("_INBOX.{id}{index:05}.1")), &payload);
            callers.push(Caller { connection, request, in_flight: None, waiting: VecDeque::new() });
        }
        Ok(Callers { callers, epoll })
    }

    /// Sends requests until the time is over or `messages` were sent, then waits for the last answers.
    fn run(
        &mut self,
        duration: Duration,
        messages: Option<u64>,
        rate: Option<f64>,
        latencies: &mut Histogram<u64>,
        progress: &mut Progress,
    ) -> Result<(), BenchError> {
        server_usage::sleep_precisely();
        let started = Instant::now();
        let count = self.callers.len();
        let schedule = rate.map(|rate| Schedule::new(rate, Some(1)));
        let limit = match (messages, rate) {
            (Some(messages), _) => messages,
            (None, Some(rate)) => (duration.as_secs_f64() * rate) as u64,
            (None, None) => u64::MAX,
        };
        let timed = messages.is_none() && rate.is_none();
        let mut issued = 0;
        let mut in_flight = 0;
        if schedule.is_none() {
            for caller in self.callers.iter_mut().take(limit.min(count as u64) as usize) {
                caller.send(Instant::now())?;
                issued += 1;
                in_flight += 1;
            }
        }
        let mut ready = Vec::new();
        let mut last_answer = Instant::now();
        loop {
            let mut wait = Duration::from_millis(100);
            if let Some(schedule) = schedule.filter(|_| issued < limit) {
                let due = schedule.bursts_due(started.elapsed()).min(limit);
                while issued < due {
                    let at = started + schedule.due(issued);
                    let caller = &mut self.callers[issued as usize % count];
                    issued += 1;
                    if caller.in_flight.is_some() {
                        caller.waiting.push_back(at);
                    } else {
                        caller.send(at)?;
                        in_flight += 1;
                    }
                }
                wait = schedule.due(issued).saturating_sub(started.elapsed());
            } else if in_flight == 0 {
                return Ok(());
            }
            self.epoll.wait(wait, &mut ready).map_err(BenchError::io("epoll"))?;
            for &token in &ready {
                let caller = &mut self.callers[token];
                let Some(due) = caller.receive()? else { continue };
                let now = Instant::now();
                latencies.saturating_record((now - due).as_nanos() as u64);
                last_answer = now;
                in_flight -= 1;
                if let Some(at) = caller.waiting.pop_front() {
                    caller.send(at)?;
                    in_flight += 1;
                } else if schedule.is_none() && issued < limit && !(timed && now - started >= duration) {
                    caller.send(now)?;
                    issued += 1;
                    in_flight += 1;
                }
            }
            progress.show(latencies.len());
            if in_flight > 0 && ready.is_empty() && last_answer.elapsed() > ANSWER_TIMEOUT / 4 {
                let got = latencies.len();
                return Err(BenchError::Missing { what: "answers", got, expected: got + in_flight });
            }
        }
    }
}

impl Caller {
    fn send(&mut self, due: Instant) -> Result<(), BenchError> {
        self.in_flight = Some(due);
        // One small request per connection: it always fits into an empty socket buffer.
        self.connection.stream.write_all(&self.request).map_err(BenchError::io("sending a request"))
    }

    /// Reads what is there. The due time of the request if this was its answer.
    fn receive(&mut self) -> Result<Option<Instant>, BenchError> {
        let mut answered = None;
        self.connection.fill("while requesting")?;
        while let Some(event) = self.connection.inbox.next_event()? {
            match event {
                Event::Message { subject, .. } => {
                    let Some(due) = self.in_flight.take() else {
                        return Err(BenchError::unexpected(subject));
                    };
                    answered = Some(due);
                }
                Event::Ping => {
                    self.connection.stream.write_all(b"PONG\r\n").map_err(BenchError::io("answering PING"))?
                }
                Event::Pong | Event::Info(_) => {}
            }
        }
        Ok(answered)
    }
}
