//! `js-work`: a queue of jobs, worked off by connections of whom some die with jobs in their hands. Every job must be done: those
//! of the dead come again when their time is over.

use std::time::{Duration, Instant};

use serde_json::json;

use super::Meter;
use super::api::Api;
use super::consume::Puller;
use super::pipeline::{Frames, Pipeline, Until, is_publish_ack};
use crate::args::Options;
use crate::client::{ANSWER_TIMEOUT, Target};
use crate::epoll::Epoll;
use crate::error::BenchError;
use crate::frames;
use crate::progress::Progress;
use crate::report::Outcome;

/// After how long a job that was not acknowledged is given to another.
const ACK_WAIT: Duration = Duration::from_secs(1);

/// How many requests a publisher of jobs has unanswered.
const WINDOW: usize = 2_000;

/// Digits of a job's number, with which its payload begins.
const NUMBER_LEN: usize = 10;

pub fn run(options: &Options) -> Result<Outcome, BenchError> {
    let target = Target::new(options)?;
    let mut api = Api::open(&target)?;
    let jobs = options.messages.unwrap_or(200_000);
    let id = frames::run_id();
    let stream = format!("bench-{id}");
    let subject = format!("bench.{id}.jobs");
    api.create_stream(&stream, std::slice::from_ref(&subject), json!({ "retention": "workqueue" }), options)?;
    let mut pipeline = Pipeline::open(&target, 1, WINDOW, is_publish_ack, |_, inbox| {
        let mut frames = Frames::default();
        let mut payload = frames::payload(options.size.max(NUMBER_LEN));
        for job in 0..jobs {
            payload[..NUMBER_LEN].copy_from_slice(format!("{job:0NUMBER_LEN$}").as_bytes());
            frames.push(&subject, inbox, &payload);
        }
        frames
    })?;
    pipeline.run(Until::Answered(jobs), None, &mut Progress::new("filling", true))?;
    drop(pipeline);
    let workers = options.workers;
    let config = json!({
        "durable_name": "work", "ack_policy": "explicit", "ack_wait": ACK_WAIT.as_nanos() as u64,
        "max_ack_pending": 4 * workers * options.fetch,
    });
    api.create_consumer(&stream, "work", config)?;

    let mut epoll = Epoll::new().map_err(BenchError::io("epoll"))?;
    let meter = Meter::start(options)?;
    let mut alive: Vec<Option<Puller>> = Vec::with_capacity(workers);
    for number in 0..workers {
        let puller = Puller::open(&target, &stream, "work", options.fetch)?;
        epoll.add(&puller.connection.stream, number).map_err(BenchError::io("epoll"))?;
        alive.push(Some(puller));
    }
    let mut done = vec![false; jobs as usize];
    let (mut finished, mut received) = (0, 0);
    let mut last = Instant::now();
    let mut ready = Vec::new();
    while finished < jobs {
        epoll.wait(Duration::from_millis(100), &mut ready).map_err(BenchError::io("epoll"))?;
        for &number in &ready {
            let Some(worker) = &mut alive[number] else { continue };
            // One after the other, spread over the first half.
            let dies = number < options.dying
                && finished > jobs / 2 * (number as u64 + 1) / (options.dying as u64 + 1);
            received += worker.receive(|payload| {
                let job = job_of(payload).filter(|job| *job < jobs);
                if let Some(job) = job.filter(|_| !dies) {
                    finished += u64::from(!std::mem::replace(&mut done[job as usize], true));
                }
                job.is_some() && !dies
            })?;
            last = Instant::now();
            if dies {
                // With what it has just got, and asked for.
                alive[number] = None;
            }
        }
        if last.elapsed() > ANSWER_TIMEOUT {
            return Err(BenchError::Missing { what: "jobs", got: finished, expected: jobs });
        }
    }
    let elapsed = meter.started.elapsed();
    let died = alive.iter().filter(|worker| worker.is_none()).count();
    // Acknowledged is done: nothing is left in the stream.
    let waited = Instant::now();
    while api.messages_of(&stream)? > 0 {
        if waited.elapsed() > ANSWER_TIMEOUT {
            return Err(BenchError::Unsupported("jobs that were acknowledged are still there".to_owned()));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let what = format!("{jobs} jobs of {} B, {workers} workers, of whom {died} died", options.size);
    let mut outcome = meter.stop("js-work", "job", what, finished, Some(elapsed), options)?;
    outcome.more.insert("died", died as f64);
    outcome.more.insert("redelivered", (received - finished) as f64);
    outcome.server_version = api.version();
    api.delete_stream(&stream)?;
    Ok(outcome)
}

fn job_of(payload: &[u8]) -> Option<u64> {
    std::str::from_utf8(payload.get(..NUMBER_LEN)?).ok()?.parse().ok()
}
