//! When connections are closed in lame duck mode: evenly over the time that is left after the grace period, so that
//! their clients do not all connect elsewhere at once, and at most a second apart, so that a few do not take long.
//!
//! The schedule says how many may be open at a time, not which one goes when: a worker that comes late closes all that
//! are due, and clients that leave by themselves count as closed. Nothing here knows a clock.

/// Longest pause between two.
const PAUSE_MS_MAX: u64 = 1_000;

/// Shortest pause between two looks. Every look goes over all connections, so with many of them several are closed at
/// a time; that is still smooth for whoever takes them.
const LOOK_MS_MIN: u64 = 50;

/// The schedule of one worker.
#[derive(Debug, Clone, Copy)]
pub struct ClosingSchedule {
    from_ms: u64,
    span_ms: u64,
    total: u64,
}

impl ClosingSchedule {
    /// For `open` connections, the first of which is closed at `from_ms` and the last at `until_ms` or before.
    pub fn new(open: usize, from_ms: u64, until_ms: u64) -> ClosingSchedule {
        let total = open as u64;
        let span_ms = until_ms.saturating_sub(from_ms).min(total.saturating_sub(1) * PAUSE_MS_MAX);
        ClosingSchedule { from_ms, span_ms, total }
    }

    /// How many of `open` connections are to be closed now.
    pub fn due(&self, open: usize, now_ms: u64) -> usize {
        let elapsed_ms = now_ms.saturating_sub(self.from_ms);
        let closed = if elapsed_ms >= self.span_ms {
            self.total
        } else {
            // The first goes at once, the last at the end.
            1 + elapsed_ms * (self.total - 1) / self.span_ms
        };
        (open as u64).saturating_sub(self.total - closed) as usize
    }

    /// When to look again, with `open` connections left.
    pub fn next_look_ms(&self, open: usize, now_ms: u64) -> u64 {
        let left = open as u64;
        let closed = self.total.saturating_sub(left);
        let next_ms = if self.total > 1 { (closed * self.span_ms).div_ceil(self.total - 1) } else { 0 };
        (self.from_ms + next_ms).max(now_ms + LOOK_MS_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a schedule from `from_ms`, each look being `late_ms` late; when connections were closed, and how many.
    fn run(open: usize, from_ms: u64, until_ms: u64, late_ms: u64) -> Vec<(u64, usize)> {
        let schedule = ClosingSchedule::new(open, from_ms, until_ms);
        let (mut left, mut now_ms, mut closed) = (open, from_ms, Vec::new());
        while left > 0 {
            let due = schedule.due(left, now_ms);
            if due > 0 {
                closed.push((now_ms, due));
            }
            left -= due;
            now_ms = schedule.next_look_ms(left, now_ms) + late_ms;
        }
        closed
    }

    #[test]
    fn a_few_are_closed_one_by_one_a_second_apart() {
        assert_eq!(run(3, 10_000, 120_000, 0), [(10_000, 1), (11_000, 1), (12_000, 1)]);
        assert_eq!(run(1, 10_000, 120_000, 0), [(10_000, 1)]);
        assert_eq!(run(0, 10_000, 120_000, 0), []);
    }

    #[test]
    fn very_many_are_closed_within_the_time_and_evenly() {
        for (open, late_ms) in [(100, 0), (1_000, 3), (110_000, 0), (110_000, 7), (1_000_000, 20)] {
            let closed = run(open, 10_000, 120_000, late_ms);
            assert_eq!(closed.iter().map(|(_, count)| count).sum::<usize>(), open);
            let &(last_ms, _) = closed.last().unwrap();
            assert!(last_ms <= 120_000 + LOOK_MS_MIN + late_ms, "{open}: the last at {last_ms}");
            let most = closed.iter().map(|(_, count)| *count).max().unwrap();
            let even = open as u64 * (LOOK_MS_MIN + late_ms + 1) / 110_000 + 2;
            assert!(most as u64 <= even, "{open}: {most} at once, {even} would be even");
        }
    }

    #[test]
    fn a_worker_that_was_held_up_catches_up() {
        let schedule = ClosingSchedule::new(101, 0, 100_000);
        assert_eq!(schedule.due(101, 0), 1);
        assert_eq!(schedule.due(100, 50_000), 50);
        assert_eq!(schedule.due(50, 200_000), 50);
        assert_eq!(schedule.due(50, 100_000), 50);
    }

    #[test]
    fn clients_that_leave_by_themselves_count_as_closed() {
        let schedule = ClosingSchedule::new(11, 0, 10_000);
        assert_eq!(schedule.due(11, 0), 1);
        assert_eq!(schedule.due(4, 3_000), 0);
        // Eleven less four: the seventh is due at 7 s.
        assert_eq!(schedule.next_look_ms(4, 3_000), 7_000);
        assert_eq!(schedule.due(4, 7_000), 1);
    }

    #[test]
    fn without_time_all_go_at_once() {
        assert_eq!(run(1_000, 10_000, 10_000, 0), [(10_000, 1_000)]);
        assert_eq!(run(1_000, 10_000, 9_000, 0), [(10_000, 1_000)]);
    }
}
