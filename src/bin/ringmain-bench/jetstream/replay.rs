//! `js-replay`: a whole stream read again by an ordered consumer.

use serde_json::Value;

use super::api::Api;
use super::pipeline::fill;
use super::{Meter, ordered};
use crate::args::Options;
use crate::client::Target;
use crate::error::BenchError;
use crate::frames;
use crate::report::Outcome;

pub fn run(options: &Options) -> Result<Outcome, BenchError> {
    let target = Target::new(options)?;
    let mut api = Api::open(&target)?;
    let messages = options.messages.unwrap_or(1_000_000);
    let id = frames::run_id();
    let stream = format!("bench-{id}");
    let subject = format!("bench.{id}.0");
    api.create_stream(&stream, std::slice::from_ref(&subject), Value::Null, options)?;
    fill(&target, &[subject], messages, options.size)?;
    let meter = Meter::start(options)?;
    let replayed = ordered::replay(&mut api, &target, &stream, Value::Null, messages)?;
    let what = format!("{messages} messages of {} B, ordered push consumer", options.size);
    let elapsed = Some(replayed.elapsed);
    let mut outcome = meter.stop("js-replay", "message", what, replayed.messages, elapsed, options)?;
    outcome.payload_bytes_per_s = Some(outcome.rate_per_s * options.size as f64);
    outcome.server_version = api.version();
    api.delete_stream(&stream)?;
    Ok(outcome)
}
