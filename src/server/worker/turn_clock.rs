//! How long a worker's turns take. One count for two readers: placement judges by it how busy the worker is, and
//! monitoring shows it.
//!
//! A turn with something to do counts from its beginning to that of the next, so everything in between is in it: a look
//! at the sockets, the runtime's other tasks, and whatever else had the core meanwhile. What makes a worker late for its
//! clients thus shows up here, whatever it is.

use std::time::Instant;

use crate::monitor::readings::{TURN_BOUNDS_US, TurnTimes};

/// A worker's notes of its turns.
#[derive(Debug)]
pub(super) struct TurnClock {
    began: Instant,
    times: TurnTimes,
}

impl TurnClock {
    pub fn new(now: Instant) -> TurnClock {
        TurnClock { began: now, times: TurnTimes::default() }
    }

    /// A turn begins. `was_busy`: the one before had something to do. `was_held`: it left alone what clients had sent,
    /// because the log is behind; what the worker slept after it counts too.
    #[inline]
    pub fn begin_turn(&mut self, now: Instant, was_busy: bool, was_held: bool) {
        let took_ns = now.duration_since(self.began).as_nanos() as u64;
        self.began = now;
        if was_busy {
            self.times.busy_ns += took_ns;
            let class = TURN_BOUNDS_US.iter().take_while(|bound_us| took_ns > **bound_us * 1000).count();
            self.times.lengths[class] += 1;
        }
        if was_held {
            self.times.held_ns += took_ns;
        }
    }

    /// The times so far.
    pub fn times(&self) -> TurnTimes {
        self.times
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn busy_turns_are_counted_by_their_length_and_idle_ones_not() {
        let start = Instant::now();
        let mut clock = TurnClock::new(start);
        let mut at = Duration::ZERO;
        for (took_us, busy, held) in [
            (50, true, false),
            (100, true, false),
            (101, true, true),
            (7_000_000, true, false),
            (900, false, true),
            (800, false, false),
        ] {
            at += Duration::from_micros(took_us);
            clock.begin_turn(start + at, busy, held);
        }
        let times = clock.times();
        assert_eq!(times.busy_ns, 7_000_251_000);
        assert_eq!(times.held_ns, 1_001_000);
        assert_eq!(times.lengths[..2], [2, 1]);
        assert_eq!(times.lengths[TURN_BOUNDS_US.len()], 1);
        assert_eq!(times.turns(), 4);
    }
}
