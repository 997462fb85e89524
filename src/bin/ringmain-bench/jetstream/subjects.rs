//! `js-subjects`: what many subjects in a stream cost a publisher, beside a stream with one.
//!
//! The two alternate in short slices, so that a machine that drifts disturbs both.

use serde_json::Value;

use super::Meter;
use super::api::Api;
use super::pipeline::Until;
use super::publish::publishers;
use crate::args::Options;
use crate::churn::median;
use crate::client::Target;
use crate::error::BenchError;
use crate::flow;
use crate::frames;
use crate::progress::Progress;
use crate::report::Outcome;

/// Slices of each; the medians are compared.
const SLICES: u32 = 5;

pub fn run(options: &Options) -> Result<Outcome, BenchError> {
    let target = Target::new(options)?;
    let mut api = Api::open(&target)?;
    let id = frames::run_id();
    let (one, many) = (format!("bench-{id}-solo"), format!("bench-{id}-many"));
    api.create_stream(&one, &[format!("bench.{id}.solo.>")], Value::Null, options)?;
    api.create_stream(&many, &[format!("bench.{id}.many.>")], Value::Null, options)?;
    // Of one length with the others.
    let alone = flow::numbered_subjects(&format!("bench.{id}.solo"), options.subjects).swap_remove(0);
    let subjects = flow::numbered_subjects(&format!("bench.{id}.many"), options.subjects);
    let mut progress = Progress::new("messages", options.quiet || options.json);
    let mut to_one = publishers(&target, &[alone], options)?;
    let mut to_many = publishers(&target, &subjects, options)?;
    to_one.run(Until::Passed(options.warmup), None, &mut progress)?;
    // Until each has been seen.
    to_many.run(Until::Answered(options.subjects as u64), None, &mut progress)?;

    let slice = options.duration / SLICES;
    let (mut rates_one, mut rates_many) = (Vec::new(), Vec::new());
    let (mut count, mut last) = (0, None);
    for _ in 0..SLICES {
        let ran = to_one.run(Until::Passed(slice), None, &mut progress)?;
        rates_one.push(ran.answered as f64 / ran.elapsed.as_secs_f64());
        let meter = Meter::start(options)?;
        let ran = to_many.run(Until::Passed(slice), None, &mut progress)?;
        let what = format!(
            "{} publishers, {} B, {} in flight each, {} subjects in a stream in {}",
            options.publishers, options.size, options.unacked, options.subjects, options.storage
        );
        let outcome = meter.stop("js-subjects", "message", what, ran.answered, Some(ran.elapsed), options)?;
        rates_many.push(outcome.rate_per_s);
        count += outcome.count;
        last = Some(outcome);
    }
    let mut outcome = last.expect("there are slices");
    let (with_one, with_many) = (median(rates_one), median(rates_many));
    (outcome.count, outcome.rate_per_s, outcome.server_version) = (count, with_many, api.version());
    outcome.more.insert("rate_with_one_subject", with_one);
    outcome.more.insert("loss_percent", (1.0 - with_many / with_one) * 100.0);
    api.delete_stream(&one)?;
    api.delete_stream(&many)?;
    Ok(outcome)
}
