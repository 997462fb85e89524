//! Deadlines in constant time: a hashed wheel.
//!
//! A deadline goes into the slot of its tick, modulo the number of slots; what lies more than one revolution ahead is
//! simply met again once per revolution. With 1,024 slots of 16 ms a revolution takes 16 s, so that the two-minute
//! ping timers of a hundred thousand idle connections cost about six thousand list steps a second.
//!
//! There is no cancelling: an entry carries a key, and its owner decides at expiry whether it still means anything.
//! Owners therefore keep at most one entry each and move it by setting a new one when the old one fires.

/// Length of a tick in milliseconds: deadlines fire at most this much late, never early.
const TICK_MS: u64 = 16;

/// Slots of the wheel, a power of two.
const SLOTS: usize = 1024;

/// The wheel. `K` names what a deadline belongs to.
#[derive(Debug)]
pub struct TimerWheel<K> {
    slots: Vec<Vec<(u64, K)>>,
    /// Every tick up to this one has been handled.
    tick_done: u64,
    len: usize,
}

impl<K: Copy> TimerWheel<K> {
    /// An empty wheel whose time starts at `now_ms`.
    pub fn new(now_ms: u64) -> TimerWheel<K> {
        TimerWheel { slots: (0..SLOTS).map(|_| Vec::new()).collect(), tick_done: now_ms / TICK_MS, len: 0 }
    }

    /// Number of deadlines set.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no deadline is set.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Lets `key` fire at `deadline_ms` or within a tick after it.
    pub fn set(&mut self, deadline_ms: u64, key: K) {
        let tick = deadline_ms.div_ceil(TICK_MS).max(self.tick_done + 1);
        self.slots[tick as usize % SLOTS].push((tick, key));
        self.len += 1;
    }

    /// Calls `fire` for everything that is due, in the order of the deadlines' ticks.
    pub fn advance(&mut self, now_ms: u64, mut fire: impl FnMut(K)) {
        let now_tick = now_ms / TICK_MS;
        if self.len == 0 {
            self.tick_done = self.tick_done.max(now_tick);
            return;
        }
        // After a long sleep one revolution meets every slot.
        let first = (self.tick_done + 1).max(now_tick.saturating_sub(SLOTS as u64 - 1));
        for tick in first..=now_tick {
            let slot = &mut self.slots[tick as usize % SLOTS];
            let before = slot.len();
            let mut at = 0;
            while at < slot.len() {
                if slot[at].0 <= now_tick {
                    let (_, key) = slot.swap_remove(at);
                    fire(key);
                } else {
                    at += 1;
                }
            }
            self.len -= before - slot.len();
            if slot.is_empty() && slot.capacity() > 64 {
                *slot = Vec::new();
            }
        }
        self.tick_done = self.tick_done.max(now_tick);
    }

    /// A time until which nothing can be due, or `None` when nothing is set. It is exact within the next revolution
    /// for the first slot in use, and never later than the first deadline.
    pub fn next_ms(&self) -> Option<u64> {
        if self.len == 0 {
            return None;
        }
        (self.tick_done + 1..=self.tick_done + SLOTS as u64)
            .find(|tick| !self.slots[*tick as usize % SLOTS].is_empty())
            .map(|tick| tick * TICK_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_deadline_fires_once_and_never_early() {
        let mut wheel = TimerWheel::new(1000);
        wheel.set(1100, 'a');
        let mut fired = Vec::new();
        wheel.advance(1099, |key| fired.push(key));
        assert_eq!(fired, []);
        wheel.advance(1100 + TICK_MS, |key| fired.push(key));
        wheel.advance(100_000, |key| fired.push(key));
        assert_eq!(fired, ['a']);
        assert!(wheel.is_empty());
    }

    proptest! {
        #[test]
        fn every_deadline_fires_within_a_tick_after_it_is_due(
            deadlines in proptest::collection::vec(0u64..60_000, 1..50),
            steps in proptest::collection::vec(1u64..30_000, 1..50),
        ) {
            let mut wheel = TimerWheel::new(0);
            for &deadline in &deadlines {
                wheel.set(deadline, deadline);
            }
            let mut now = 0;
            let mut fired = Vec::new();
            for step in steps {
                let before = now;
                if let Some(next) = wheel.next_ms() {
                    let due = deadlines.iter().filter(|due| !fired.contains(*due)).min();
                    if let Some(&due) = due {
                        prop_assert!(next <= due.max(before) + 2 * TICK_MS);
                    }
                }
                now += step;
                wheel.advance(now, |deadline| fired.push(deadline));
                for &deadline in &fired {
                    prop_assert!(deadline <= now);
                }
                for &deadline in &deadlines {
                    prop_assert!(fired.contains(&deadline) || deadline + TICK_MS >= now);
                }
            }
            prop_assert_eq!(wheel.len(), deadlines.len() - fired.len());
        }
    }
}
