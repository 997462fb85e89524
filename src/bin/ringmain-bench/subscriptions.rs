//! `subs`: many subscriptions on one connection. What does each cost the server in memory and time?

use std::time::{Duration, Instant};

use crate::args::Options;
use crate::client::{Connection, Target};
use crate::error::BenchError;
use crate::flow::numbered_subjects;
use crate::frames;
use crate::report::Outcome;
use crate::server_usage;

/// Subscriptions before the measurement, so that what is allocated once does not count.
const FIRST: usize = 100;

pub fn run(options: &Options) -> Result<Outcome, BenchError> {
    let target = Target::new(options)?;
    let mut connection = Connection::open(&target)?;
    let id = frames::run_id();
    let lines_for = |subjects: &[String], first_sid: usize| {
        let mut lines = Vec::new();
        for (index, subject) in subjects.iter().enumerate() {
            frames::push_subscribe(&mut lines, subject, None, &(first_sid + index).to_string());
        }
        lines
    };
    connection.send(&lines_for(&numbered_subjects(&format!("bench.{id}.first"), FIRST), 1))?;
    connection.flush()?;
    std::thread::sleep(options.settle.min(Duration::from_millis(200)));

    let lines = lines_for(&numbered_subjects(&format!("bench.{id}"), options.subjects), FIRST + 1);
    let usage = || options.server_pid.map(server_usage::of_process).transpose();
    let before = usage()?;
    let client_before = server_usage::own_cpu_ns();
    let started = Instant::now();
    connection.send(&lines)?;
    connection.flush()?;
    let elapsed = started.elapsed();
    let after = usage()?;
    let client_cpu = server_usage::own_cpu_ns() - client_before;
    std::thread::sleep(options.settle);
    let settled = usage()?;
    // A server that closed it in the meantime has refused them.
    connection.flush()?;

    let count = options.subjects as f64;
    let mut more = std::collections::BTreeMap::new();
    more.insert("wall_ns_per_subscription", elapsed.as_nanos() as f64 / count);
    if let (Some(before), Some(settled)) = (before, settled) {
        more.insert(
            "rss_bytes_per_subscription",
            (settled.rss_bytes as f64 - before.rss_bytes as f64) / count,
        );
    }
    Ok(Outcome {
        command: "subs",
        what: format!("{} subscriptions on one connection", options.subjects),
        server: options.server.clone(),
        server_version: connection.info.version.clone(),
        unit: "subscription",
        count: options.subjects as u64,
        elapsed_s: elapsed.as_secs_f64(),
        rate_per_s: count / elapsed.as_secs_f64(),
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
