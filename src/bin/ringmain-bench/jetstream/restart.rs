//! `js-restart`: how long a server takes until it answers for its stream again, and what memory it has then, at several sizes of
//! the stream. It starts the server itself, from `--program`.
//!
//! The time counts from the start of the process to the answer to STREAM.INFO with the right number of messages. Files are in the
//! kernel's cache, as they are after a restart of the server alone.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::api::Api;
use super::pipeline::fill;
use crate::args::Options;
use crate::client::{ANSWER_TIMEOUT, Target};
use crate::error::BenchError;
use crate::frames;
use crate::report::Outcome;
use crate::server_usage;
use crate::spawned::{Server, Setting, StoreDirectory};

/// Sizes as tenths of `--messages`.
const TENTHS: [u64; 3] = [1, 4, 10];

pub fn run(options: &Options) -> Result<Outcome, BenchError> {
    let program = options.program.as_deref().expect("checked with the command line");
    let directory = StoreDirectory::make(&options.store)?;
    let start = || Server::start(program, Setting::JetStream, Some(&directory));
    let messages = options.messages.unwrap_or(10_000_000);
    let stream = format!("bench-{}", frames::run_id());
    let subject = format!("bench.{stream}.0");

    let mut server = start()?;
    let mut times = Vec::new();
    let mut stored = 0;
    let began = Instant::now();
    let tool_before = server_usage::own_cpu_ns();
    let mut version = String::new();
    let mut rss_bytes = 0;
    let mut server_cpu_ns = 0;
    for tenths in TENTHS {
        let target = target_of(&server, options)?;
        let mut api = Api::open(&target)?;
        if stored == 0 {
            version = api.version();
            api.create_stream(&stream, std::slice::from_ref(&subject), Value::Null, options)?;
        }
        let wanted = messages * tenths / 10;
        fill(&target, std::slice::from_ref(&subject), wanted - stored, options.size)?;
        stored = wanted;
        drop(api);
        server.stop()?;
        let restarted = Instant::now();
        server = start()?;
        times.push(until_there(&server, options, &stream, stored, restarted)?.as_secs_f64());
        let usage = server_usage::of_process(server.pid())?;
        (rss_bytes, server_cpu_ns) = (usage.rss_bytes, usage.cpu_ns);
    }
    // And after an end without a goodbye.
    drop(server);
    let restarted = Instant::now();
    let server = start()?;
    let after_kill = until_there(&server, options, &stream, stored, restarted)?.as_secs_f64();

    let slowest = times.iter().copied().fold(0.0, f64::max);
    let fastest = times.iter().copied().fold(f64::INFINITY, f64::min);
    let mut outcome = Outcome {
        command: "js-restart",
        what: format!(
            "a stream of {messages} messages of {} B, and of a tenth and four of that",
            options.size
        ),
        server: program.display().to_string(),
        server_version: version,
        unit: "message",
        count: stored,
        elapsed_s: began.elapsed().as_secs_f64(),
        rate_per_s: stored as f64 / times[TENTHS.len() - 1],
        payload_bytes_per_s: None,
        server_cpu_ns_per_msg: Some(server_cpu_ns as f64 / stored as f64),
        client_cpu_ns_per_msg: (server_usage::own_cpu_ns() - tool_before) as f64 / stored as f64,
        server_rss_bytes: Some(rss_bytes),
        latency: None,
        more: Default::default(),
    };
    for (name, seconds) in
        ["restart_tenth_ms", "restart_four_tenths_ms", "restart_ms"].into_iter().zip(&times)
    {
        outcome.more.insert(name, seconds * 1e3);
    }
    outcome.more.insert("restart_after_kill_ms", after_kill * 1e3);
    outcome.more.insert("slowest_over_fastest", slowest / fastest);
    Ok(outcome)
}

fn target_of(server: &Server, options: &Options) -> Result<Target, BenchError> {
    Target::new(&Options { server: server.address.clone(), ..options.clone() })
}

/// Asks until the stream is there with all its messages.
fn until_there(
    server: &Server,
    options: &Options,
    stream: &str,
    messages: u64,
    since: Instant,
) -> Result<Duration, BenchError> {
    let mut api = Api::open(&target_of(server, options)?)?;
    loop {
        match api.messages_of(stream) {
            Ok(found) if found == messages => return Ok(since.elapsed()),
            // The API is there before the stream is.
            Ok(_) | Err(_) if since.elapsed() < ANSWER_TIMEOUT => {
                std::thread::sleep(Duration::from_millis(1))
            }
            Ok(got) => return Err(BenchError::Missing { what: "messages", got, expected: messages }),
            Err(error) => return Err(error),
        }
    }
}
