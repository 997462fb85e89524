//! `publish`: messages that nobody listens to. What is measured is reading, parsing and dropping.

use crate::args::Options;
use crate::error::BenchError;
use crate::flow::{Flow, PublisherPlan, numbered_subjects};
use crate::frames;
use crate::report::Outcome;

pub fn run(options: &Options) -> Result<Outcome, BenchError> {
    let id = frames::run_id();
    let publishers = (0..options.publishers)
        .map(|_| PublisherPlan { subjects: numbered_subjects(&format!("bench.{id}"), options.subjects) })
        .collect();
    let mut flow = Flow::open(options, publishers, Vec::new())?;
    flow.warm_up()?;
    let window = flow.measure()?;
    let what = format!("{} publisher(s), {} B, nobody listening", options.publishers, options.size);
    let outcome = window.outcome("publish", what, &flow);
    flow.close()?;
    Ok(outcome)
}
