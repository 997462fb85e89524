//! `js-publish`: messages into streams, each acknowledged, so many unacknowledged at a time per publisher.

use serde_json::Value;

use super::Meter;
use super::api::Api;
use super::pipeline::{Frames, Pipeline, Until, is_publish_ack};
use crate::args::Options;
use crate::client::Target;
use crate::error::BenchError;
use crate::flow;
use crate::frames;
use crate::progress::Progress;
use crate::report::{Latency, Outcome, new_histogram};

/// Requests that a publisher has encoded at least: more than are under way.
const FRAMES_MIN: usize = 2_000;

pub fn run(options: &Options) -> Result<Outcome, BenchError> {
    let target = Target::new(options)?;
    let mut api = Api::open(&target)?;
    let id = frames::run_id();
    let streams: Vec<String> = (0..options.streams).map(|number| format!("bench-{id}-{number}")).collect();
    for (number, stream) in streams.iter().enumerate() {
        api.create_stream(stream, &[format!("bench.{id}.{number}.>")], Value::Null, options)?;
    }
    // Each stream has its share of the subjects; in turn, so that all are written at once.
    let each = options.subjects.div_ceil(options.streams);
    let mut subjects = Vec::with_capacity(each * options.streams);
    for subject in flow::numbered_subjects("", each) {
        subjects.extend((0..options.streams).map(|number| format!("bench.{id}.{number}{subject}")));
    }
    let mut pipeline = publishers(&target, &subjects, options)?;

    let mut progress = Progress::new("messages", options.quiet || options.json);
    pipeline.run(Until::Passed(options.warmup), None, &mut progress)?;
    let mut latencies = new_histogram();
    let meter = Meter::start(options)?;
    let until = options.messages.map_or(Until::Passed(options.duration), Until::Answered);
    let ran = pipeline.run(until, Some(&mut latencies), &mut progress)?;
    let what = format!(
        "{} publishers, {} B, {} in flight each, {} streams in {}, {} subjects",
        options.publishers,
        options.size,
        options.unacked,
        options.streams,
        options.storage,
        subjects.len()
    );
    let mut outcome = meter.stop("js-publish", "message", what, ran.answered, Some(ran.elapsed), options)?;
    outcome.payload_bytes_per_s = Some(outcome.rate_per_s * options.size as f64);
    outcome.server_version = api.version();
    if !latencies.is_empty() {
        outcome.latency = Some(Latency::of(&latencies));
    }
    for stream in &streams {
        api.delete_stream(stream)?;
    }
    Ok(outcome)
}

/// Publishers that go through the subjects in turn, each from another place.
pub fn publishers(target: &Target, subjects: &[String], options: &Options) -> Result<Pipeline, BenchError> {
    let payload = frames::payload(options.size);
    Pipeline::open(target, options.publishers, options.unacked, is_publish_ack, |number, inbox| {
        let mut frames = Frames::default();
        let start = number * subjects.len() / options.publishers;
        let rounds = FRAMES_MIN.max(2 * options.unacked).div_ceil(subjects.len());
        for index in 0..subjects.len() * rounds {
            frames.push(&subjects[(start + index) % subjects.len()], inbox, &payload);
        }
        frames
    })
}
