//! `js-keys`: all keys of a bucket listed, as clients do it: an ordered consumer of the last message of each subject, without
//! payloads.

use serde_json::json;

use super::api::Api;
use super::kv::Bucket;
use super::pipeline::fill;
use super::{Meter, ordered};
use crate::args::Options;
use crate::churn::median;
use crate::client::Target;
use crate::error::BenchError;
use crate::report::Outcome;

/// The list is asked for so often; the median counts.
const LISTINGS: u64 = 5;

pub fn run(options: &Options) -> Result<Outcome, BenchError> {
    let target = Target::new(options)?;
    let mut api = Api::open(&target)?;
    let bucket = Bucket::create(&mut api, options)?;
    let keys = options.subjects as u64;
    // Each twice, so that there is something to pass over where keys lie scattered.
    fill(&target, &bucket.subjects, 2 * keys, options.size)?;
    let meter = Meter::start(options)?;
    let mut times = Vec::new();
    for _ in 0..LISTINGS {
        let more = json!({
            "deliver_policy": "last_per_subject", "headers_only": true,
            "filter_subject": format!("{}.>", bucket.prefix),
        });
        let listed = ordered::replay(&mut api, &target, &bucket.stream, more, keys)?;
        times.push(listed.elapsed.as_secs_f64());
    }
    let what = format!("{keys} keys of a bucket, listed {LISTINGS} times");
    let mut outcome = meter.stop("js-keys", "key", what, LISTINGS * keys, None, options)?;
    let middle = median(times);
    outcome.rate_per_s = keys as f64 / middle;
    outcome.more.insert("listing_ms", middle * 1e3);
    outcome.server_version = api.version();
    api.delete_stream(&bucket.stream)?;
    Ok(outcome)
}
