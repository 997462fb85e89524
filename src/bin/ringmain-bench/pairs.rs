//! `pairs`: N publishers, each with one subscriber of its own, spread over many subjects.

use crate::args::Options;
use crate::error::BenchError;
use crate::fanout;
use crate::flow::{Flow, PublisherPlan, SubscriberPlan, numbered_subjects};
use crate::frames;
use crate::report::Outcome;

pub fn run(options: &Options) -> Result<Outcome, BenchError> {
    let id = frames::run_id();
    let width = frames::decimal_digits(options.pairs - 1);
    let mut publishers = Vec::with_capacity(options.pairs);
    let mut subscribers = Vec::with_capacity(options.pairs);
    for pair in 0..options.pairs {
        let prefix = format!("bench.{id}.{pair:0width$}");
        let subjects = numbered_subjects(&prefix, options.subjects / options.pairs);
        let subscriptions = fanout::subscriptions(&prefix, &subjects, options.exact);
        subscribers.push(SubscriberPlan { subscriptions, publisher: pair });
        publishers.push(PublisherPlan { subjects });
    }
    let mut flow = Flow::open(options, publishers, subscribers)?;
    flow.warm_up()?;
    let window = flow.measure()?;
    let what = format!("{} pairs, {} B, {} subjects", options.pairs, options.size, options.subjects);
    let outcome = window.outcome("pairs", what, &flow);
    flow.close()?;
    Ok(outcome)
}
