//! When things are due in an open loop: a fixed rate, whatever the server does. Pure arithmetic on durations.
//!
//! Latency counts from the moment at which a message was due, not from when it was sent: if the server
//! (or this tool) stalls, the messages that queue up behind the stall carry their waiting time. That is the
//! correction for coordinated omission; nothing is interpolated afterwards.

use std::time::Duration;

/// Sleeps and sends of a paced sender per second, at most: each costs the machine some microseconds.
const MOMENTS_PER_SECOND_MAX: f64 = 5_000.0;

/// A fixed rate, in bursts that are due together.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    rate: f64,
    burst: u64,
}

impl Schedule {
    pub fn new(rate: f64, burst: Option<u64>) -> Schedule {
        let burst = burst.unwrap_or((rate / MOMENTS_PER_SECOND_MAX).ceil() as u64).max(1);
        Schedule { rate, burst }
    }

    pub fn burst(&self) -> u64 {
        self.burst
    }

    /// When burst number `index` is due, from the start.
    pub fn due(&self, index: u64) -> Duration {
        Duration::from_secs_f64(index as f64 * self.burst as f64 / self.rate)
    }

    /// How many bursts are due `elapsed` after the start.
    pub fn bursts_due(&self, elapsed: Duration) -> u64 {
        (elapsed.as_secs_f64() * self.rate / self.burst as f64) as u64 + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::new_histogram;

    #[test]
    fn bursts_are_due_at_the_rate() {
        let schedule = Schedule::new(100_000.0, None);
        assert_eq!(schedule.burst(), 20);
        assert_eq!(schedule.due(0), Duration::ZERO);
        assert_eq!(schedule.due(5_000), Duration::from_secs(1));
        assert_eq!(schedule.bursts_due(Duration::ZERO), 1);
        assert_eq!(schedule.bursts_due(Duration::from_micros(450)), 3);
        assert_eq!(Schedule::new(500.0, None).burst(), 1);
        assert_eq!(Schedule::new(500.0, Some(7)).burst(), 7);
    }

    #[test]
    fn a_stall_shows_in_every_message_that_was_due_during_it() {
        // 1,000 a second for 10 s, each answered after 1 ms, but the server stands still from 5 s to 6 s.
        let schedule = Schedule::new(1_000.0, Some(1));
        let (stall, resume) = (Duration::from_secs(5), Duration::from_secs(6));
        let mut corrected = new_histogram();
        let mut naive = new_histogram();
        let mut previous_done = Duration::ZERO;
        for index in 0..10_000 {
            let due = schedule.due(index);
            // One at a time, as a closed loop would: the next one leaves when the last has returned.
            let sent = due.max(previous_done);
            let done =
                if sent >= stall && sent < resume { resume } else { sent } + Duration::from_micros(100);
            corrected.record((done - due).as_nanos() as u64).unwrap();
            naive.record((done - sent).as_nanos() as u64).unwrap();
            previous_done = done;
        }
        let ms = |ns: u64| ns as f64 / 1e6;
        // What a closed loop reports: one slow answer in 10,000.
        assert!(ms(naive.value_at_quantile(0.99)) < 1.0);
        // What users saw: a tenth of all requests waited, up to a second.
        assert!(ms(corrected.value_at_quantile(0.99)) > 850.0, "{}", ms(corrected.value_at_quantile(0.99)));
        assert!(ms(corrected.value_at_quantile(0.80)) < 1.0);
    }
}
