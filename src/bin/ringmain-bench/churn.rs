//! `churn`: an unrelated pair's throughput with and without a connection that subscribes and unsubscribes
//! inboxes, as clients do that make a new inbox for every request.
//!
//! The two conditions alternate in short slices, so that a machine that drifts disturbs both. The rate counts
//! inboxes: each is one SUB and, a little later, one UNSUB.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::args::Options;
use crate::client::{Connection, Target};
use crate::error::BenchError;
use crate::flow::{Flow, PublisherPlan, SubscriberPlan};
use crate::frames;
use crate::report::Outcome;
use crate::server_usage;

/// Slices per condition; the medians of each are compared.
const SLICES: u32 = 5;

/// Inboxes that exist at any time.
const ALIVE: u64 = 100;

/// How often the churning connection writes.
const TICK: Duration = Duration::from_millis(1);

pub fn run(options: &Options) -> Result<Outcome, BenchError> {
    let rate = options.rate.unwrap_or(100_000.0);
    // The pair itself runs flat out.
    let pair_options = Options { rate: None, messages: None, ..options.clone() };
    let subject = format!("bench.{}.0", frames::run_id());
    let mut flow = Flow::open(
        &pair_options,
        vec![PublisherPlan { subjects: vec![subject.clone()] }],
        vec![SubscriberPlan { subscriptions: vec![subject], publisher: 0 }],
    )?;
    let target = Target::new(options)?;
    flow.warm_up()?;

    let slice = options.duration / SLICES;
    let mut churner = Churner::new(Connection::open(&target)?);
    let (mut quiet, mut churned) = (Vec::new(), Vec::new());
    let (mut inboxes, mut churn_time) = (0, Duration::ZERO);
    for _ in 0..SLICES {
        quiet.push(flow.measure_for(slice)?);
        let stop = AtomicBool::new(false);
        let (window, result) = std::thread::scope(|scope| {
            let thread = scope.spawn(|| churner.run(rate, &stop));
            let window = flow.measure_for(slice);
            stop.store(true, Ordering::Release);
            (window, thread.join().expect("the churning thread does not panic"))
        });
        churned.push(window?);
        let (count, time) = result?;
        inboxes += count;
        churn_time += time;
    }

    let rate_of = |windows: &[crate::flow::Window]| {
        median(windows.iter().map(|window| window.deliveries as f64 / window.elapsed.as_secs_f64()).collect())
    };
    let (without, with) = (rate_of(&quiet), rate_of(&churned));
    let last = churned.last().expect("there are slices");
    let what = format!("a pair with {} B beside {rate:.0} SUB and UNSUB a second", options.size);
    let mut outcome = last.outcome("churn", what, &flow);
    outcome.count = churned.iter().map(|window| window.deliveries).sum();
    outcome.elapsed_s = churned.iter().map(|window| window.elapsed.as_secs_f64()).sum();
    outcome.rate_per_s = with;
    outcome.payload_bytes_per_s = Some(with * options.size as f64);
    outcome.server_cpu_ns_per_msg = options.server_pid.map(|_| {
        churned.iter().filter_map(|window| window.server_cpu_ns).sum::<u64>() as f64 / outcome.count as f64
    });
    outcome.client_cpu_ns_per_msg =
        churned.iter().map(|window| window.client_cpu_ns).sum::<u64>() as f64 / outcome.count as f64;
    outcome.more.insert("rate_without_churn", without);
    outcome.more.insert("loss_percent", (1.0 - with / without) * 100.0);
    outcome.more.insert("churn_per_s", inboxes as f64 / churn_time.as_secs_f64());
    flow.close()?;
    Ok(outcome)
}

/// The connection with the inboxes.
struct Churner {
    connection: Connection,
    prefix: String,
    /// Inboxes subscribed so far; the last `ALIVE` of them exist.
    subscribed: u64,
}

impl Churner {
    fn new(connection: Connection) -> Churner {
        Churner { connection, prefix: format!("_INBOX.{}", frames::run_id()), subscribed: 0 }
    }

    /// Subscribes `rate` inboxes a second until told to stop. Returns how many, and in what time.
    fn run(&mut self, rate: f64, stop: &AtomicBool) -> Result<(u64, Duration), BenchError> {
        server_usage::sleep_precisely();
        let started = Instant::now();
        let before = self.subscribed;
        let mut lines = Vec::new();
        while !stop.load(Ordering::Acquire) {
            let due = before + (started.elapsed().as_secs_f64() * rate) as u64;
            lines.clear();
            while self.subscribed < due {
                let inbox = self.subscribed;
                frames::push_subscribe(
                    &mut lines,
                    &format!("{}.{inbox}", self.prefix),
                    None,
                    &inbox.to_string(),
                );
                if let Some(oldest) = inbox.checked_sub(ALIVE) {
                    lines.extend_from_slice(format!("UNSUB {oldest}\r\n").as_bytes());
                }
                self.subscribed += 1;
            }
            self.connection.send(&lines)?;
            self.connection.answer_pings()?;
            std::thread::sleep(TICK);
        }
        // Until the server has done it all: a backlog must not count as done, nor reach the next slice.
        self.connection.flush()?;
        Ok((self.subscribed - before, started.elapsed()))
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[odd / 2],
        even => (values[even / 2 - 1] + values[even / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_odd_even_and_nothing() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
    }
}
