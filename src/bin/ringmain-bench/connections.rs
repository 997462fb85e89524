//! `idle`: many connections with one subscription each. Do they all open and answer, and what does each
//! cost the server in memory?

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::args::Options;
use crate::client::{ANSWER_TIMEOUT, Connection, Target};
use crate::epoll::Epoll;
use crate::error::BenchError;
use crate::frames;
use crate::inbox::{Event, Inbox};
use crate::progress::Progress;
use crate::report::Outcome;
use crate::server_usage;

/// Connections that are opened before the first of them is waited for.
const WAVE: usize = 200;

struct Idle {
    stream: TcpStream,
    inbox: Inbox,
}

pub fn run(options: &Options) -> Result<Outcome, BenchError> {
    let target = Target::new(options)?;
    // What the server allocates once, with its first connection, is not the price of a connection.
    let mut first = Connection::open(&target)?;
    first.send(b"SUB bench.first 1\r\n")?;
    first.flush()?;
    std::thread::sleep(options.settle.min(Duration::from_millis(200)));

    let usage = || options.server_pid.map(server_usage::of_process).transpose();
    let before = usage()?;
    let client_before = server_usage::own_cpu_ns();
    let started = Instant::now();
    let mut progress = Progress::new("connections", options.quiet || options.json);
    let id = frames::run_id();
    let mut all: Vec<Idle> = Vec::with_capacity(options.connections);
    while all.len() < options.connections {
        let from = all.len();
        for index in from..(from + WAVE).min(options.connections) {
            all.push(open(&target, &format!("bench.{id}.{index:06}"))?);
        }
        for idle in &mut all[from..] {
            wait_for_pong(idle)?;
        }
        progress.show(all.len() as u64);
    }
    let opened = started.elapsed();

    // All of them at once: a server that only accepted them would fail here.
    let ping_started = Instant::now();
    for idle in &mut all {
        idle.stream.write_all(b"PING\r\n").map_err(BenchError::io("sending PING"))?;
    }
    for idle in &mut all {
        wait_for_pong(idle)?;
    }
    let pinged = ping_started.elapsed();
    let after = usage()?;
    let client_cpu = server_usage::own_cpu_ns() - client_before;
    stay_alive(&mut all, options.settle)?;
    let settled = usage()?;

    let count = all.len() as f64;
    let mut more = std::collections::BTreeMap::new();
    more.insert("ping_all_ms", pinged.as_secs_f64() * 1e3);
    if let (Some(before), Some(settled)) = (before, settled) {
        more.insert("rss_bytes_per_connection", (settled.rss_bytes as f64 - before.rss_bytes as f64) / count);
    }
    Ok(Outcome {
        command: "idle",
        what: format!("{} connections with one subscription each", options.connections),
        server: options.server.clone(),
        server_version: first.info.version.clone(),
        unit: "connection",
        count: all.len() as u64,
        elapsed_s: opened.as_secs_f64(),
        rate_per_s: count / opened.as_secs_f64(),
        payload_bytes_per_s: None,
        server_cpu_ns_per_msg: before
            .zip(after)
            .map(|(before, after)| (after.cpu_ns - before.cpu_ns) as f64 / count),
        client_cpu_ns_per_msg: client_cpu as f64 / count,
        server_rss_bytes: settled.map(|usage| usage.rss_bytes),
        latency: None,
        more,
    })
}

/// Connects and says everything at once; the answers are read later.
fn open(target: &Target, subject: &str) -> Result<Idle, BenchError> {
    let stream = target.dial()?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(BenchError::io("setting a timeout"))?;
    let mut hello = target.connect_line().to_vec();
    frames::push_subscribe(&mut hello, subject, None, "1");
    hello.extend_from_slice(b"PING\r\n");
    (&stream).write_all(&hello).map_err(BenchError::io("sending CONNECT"))?;
    Ok(Idle { stream, inbox: Inbox::default() })
}

fn wait_for_pong(idle: &mut Idle) -> Result<(), BenchError> {
    loop {
        while let Some(event) = idle.inbox.next_event()? {
            match event {
                Event::Pong => return Ok(()),
                Event::Ping => {
                    idle.stream.write_all(b"PONG\r\n").map_err(BenchError::io("answering PING"))?
                }
                Event::Info(_) => {}
                Event::Message { subject, .. } => return Err(BenchError::unexpected(subject)),
            }
        }
        receive(idle)?;
    }
}

/// Does nothing but answer the server's PINGs.
fn stay_alive(all: &mut [Idle], time: Duration) -> Result<(), BenchError> {
    let mut epoll = Epoll::new().map_err(BenchError::io("epoll"))?;
    for (token, idle) in all.iter().enumerate() {
        epoll.add(&idle.stream, token).map_err(BenchError::io("epoll"))?;
    }
    let started = Instant::now();
    let mut ready = Vec::new();
    while let Some(left) = time.checked_sub(started.elapsed()) {
        epoll.wait(left, &mut ready).map_err(BenchError::io("epoll"))?;
        for &token in &ready {
            receive(&mut all[token])?;
            while let Some(event) = all[token].inbox.next_event()? {
                if event == Event::Ping {
                    all[token].stream.write_all(b"PONG\r\n").map_err(BenchError::io("answering PING"))?;
                }
            }
        }
    }
    Ok(())
}

fn receive(idle: &mut Idle) -> Result<(), BenchError> {
    match idle.inbox.fill(&idle.stream) {
        Ok(0) => Err(BenchError::Closed("an idle one")),
        Ok(_) => Ok(()),
        Err(error) => Err(BenchError::io("reading from an idle connection")(error)),
    }
}
