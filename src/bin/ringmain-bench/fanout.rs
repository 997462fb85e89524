//! `fanout`: one publisher, N subscribers that all get every message.

use crate::args::Options;
use crate::error::BenchError;
use crate::flow::{Flow, PublisherPlan, SubscriberPlan, numbered_subjects};
use crate::frames;
use crate::report::Outcome;

pub fn run(options: &Options) -> Result<Outcome, BenchError> {
    let prefix = format!("bench.{}", frames::run_id());
    let subjects = numbered_subjects(&prefix, options.subjects);
    let subscriptions = subscriptions(&prefix, &subjects, options.exact);
    let subscribers = (0..options.subscribers)
        .map(|_| SubscriberPlan { subscriptions: subscriptions.clone(), publisher: 0 })
        .collect();
    let mut flow = Flow::open(options, vec![PublisherPlan { subjects }], subscribers)?;
    flow.warm_up()?;
    let window = flow.measure()?;
    let what = format!("1 to {}, {} B, {} subject(s)", options.subscribers, options.size, options.subjects);
    let outcome = window.outcome("fanout", what, &flow);
    flow.close()?;
    Ok(outcome)
}

/// What covers `subjects`: themselves if there is only one or `exact` is asked for, else a wildcard.
pub fn subscriptions(prefix: &str, subjects: &[String], exact: bool) -> Vec<String> {
    if exact || subjects.len() == 1 { subjects.to_vec() } else { vec![format!("{prefix}.*")] }
}
