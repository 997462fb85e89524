//! `js-kv`: values of a key-value bucket put and got, as clients do it: a put is a publish with its acknowledgement, a get
//! asks the stream directly for the last message of a subject.

use serde_json::json;

use super::Meter;
use super::api::Api;
use super::pipeline::{Check, Frames, Pipeline, Until, fill, is_publish_ack};
use crate::args::{KvOperation, Options};
use crate::client::Target;
use crate::error::BenchError;
use crate::flow;
use crate::frames;
use crate::progress::Progress;
use crate::report::{Latency, Outcome, new_histogram};

pub fn run(options: &Options) -> Result<Outcome, BenchError> {
    let target = Target::new(options)?;
    let mut api = Api::open(&target)?;
    let bucket = Bucket::create(&mut api, options)?;
    // A get needs something to find.
    fill(&target, &bucket.subjects, bucket.subjects.len() as u64, options.size)?;
    let payload = frames::payload(options.size);
    let (word, check): (_, Check) = match options.operation {
        KvOperation::Put => ("puts", is_publish_ack),
        KvOperation::Get => ("gets", |header, payload| {
            !payload.is_empty() && memchr::memmem::find(header, b"Nats-Sequence").is_some()
        }),
    };
    let mut pipeline =
        Pipeline::open(&target, options.connections, options.unacked, check, |number, inbox| {
            let mut frames = Frames::default();
            let start = number * bucket.subjects.len() / options.connections;
            for subject in bucket.subjects[start..].iter().chain(&bucket.subjects[..start]) {
                match options.operation {
                    KvOperation::Put => frames.push(subject, inbox, &payload),
                    KvOperation::Get => {
                        frames.push(&format!("$JS.API.DIRECT.GET.{}.{subject}", bucket.stream), inbox, b"")
                    }
                }
            }
            frames
        })?;
    let mut progress = Progress::new(word, options.quiet || options.json);
    pipeline.run(Until::Passed(options.warmup), None, &mut progress)?;
    let mut latencies = new_histogram();
    let meter = Meter::start(options)?;
    let until = options.messages.map_or(Until::Passed(options.duration), Until::Answered);
    let ran = pipeline.run(until, Some(&mut latencies), &mut progress)?;
    let what = format!(
        "{word} of {} keys, {} B, {} connections, {} in flight each",
        options.subjects, options.size, options.connections, options.unacked
    );
    let mut outcome = meter.stop("js-kv", "request", what, ran.answered, Some(ran.elapsed), options)?;
    outcome.server_version = api.version();
    if !latencies.is_empty() {
        outcome.latency = Some(Latency::of(&latencies));
    }
    api.delete_stream(&bucket.stream)?;
    Ok(outcome)
}

/// A bucket of a key-value store, and its keys as subjects.
pub struct Bucket {
    pub stream: String,
    pub prefix: String,
    pub subjects: Vec<String>,
}

impl Bucket {
    /// Makes one as clients do, with a history of one.
    pub fn create(api: &mut Api, options: &Options) -> Result<Bucket, BenchError> {
        let id = frames::run_id();
        let (stream, prefix) = (format!("KV_bench-{id}"), format!("$KV.bench-{id}"));
        let more = json!({
            "max_msgs_per_subject": 1, "discard": "new", "allow_rollup_hdrs": true, "deny_delete": true,
            "allow_direct": true, "max_msgs": -1, "max_bytes": -1, "max_age": 0, "duplicate_window": 120_000_000_000u64,
        });
        api.create_stream(&stream, &[format!("{prefix}.>")], more, options)?;
        let subjects = flow::numbered_subjects(&prefix, options.subjects);
        Ok(Bucket { stream, prefix, subjects })
    }
}
