//! What only push consumers have: whether somebody listens, heartbeats, flow control, and the rate limit.
//!
//! Flow control: after half a window of bytes the client is asked whether it keeps up; while more than a window is
//! out, nothing is delivered. The window begins small and doubles with each response. Rule: `jetstream-consumers.md` 5.

/// The largest window.
const WINDOW_MAX: i64 = 32 * 1024 * 1024;
/// The first window, in parts of the largest.
const WINDOW_FIRST: i64 = WINDOW_MAX / 16;

/// How many bytes may be out that the client has not said it has handled.
#[derive(Debug, Clone)]
pub(super) struct FlowControl {
    window: i64,
    out: i64,
    /// The question that is open: its subject, and how much was out when it was asked.
    asked: Option<(Box<[u8]>, i64)>,
}

impl FlowControl {
    pub(super) fn new() -> FlowControl {
        FlowControl { window: WINDOW_FIRST, out: 0, asked: None }
    }

    /// Whether nothing may be delivered.
    pub(super) fn is_stalled(&self) -> bool {
        self.out > self.window
    }

    /// The subject of the question that is open.
    pub(super) fn asked(&self) -> Option<&[u8]> {
        self.asked.as_ref().map(|(subject, _)| &**subject)
    }

    /// So much was delivered. Returns whether the client has to be asked.
    pub(super) fn delivered(&mut self, bytes: i64, is_full: bool) -> bool {
        self.out += bytes;
        match &mut self.asked {
            None => self.out > self.window / 2 || is_full,
            Some((_, covered)) => {
                if self.out - *covered >= self.window {
                    *covered += bytes;
                }
                false
            }
        }
    }

    /// The client is asked on this subject.
    pub(super) fn ask(&mut self, subject: &[u8]) {
        self.asked = Some((subject.into(), self.out));
    }

    /// A response. Returns whether it is the one that was waited for.
    pub(super) fn answered(&mut self, subject: &[u8]) -> bool {
        if self.asked() != Some(subject) {
            return false;
        }
        self.window = (self.window * 2).min(WINDOW_MAX);
        if let Some((_, covered)) = self.asked.take() {
            self.out = (self.out - covered).max(0);
        }
        true
    }
}

/// A bucket of bytes that fills at a rate. A message may empty it beyond nothing; the next one waits.
#[derive(Debug, Clone)]
pub(super) struct RateLimit {
    bytes_per_s: i64,
    burst: i64,
    bytes: i64,
    filled_ns: i64,
}

impl RateLimit {
    pub(super) fn new(bits_per_s: u64, burst: i64, now_ns: i64) -> RateLimit {
        let bytes_per_s = i64::try_from(bits_per_s / 8).unwrap_or(i64::MAX).max(1);
        RateLimit { bytes_per_s, burst, bytes: burst, filled_ns: now_ns }
    }

    /// When the next message may go; not later than `now_ns`: at once.
    pub(super) fn next_ns(&mut self, now_ns: i64) -> i64 {
        let earned = i128::from(now_ns - self.filled_ns) * i128::from(self.bytes_per_s) / 1_000_000_000;
        if earned > 0 {
            let filled = (i128::from(self.bytes) + earned).min(i128::from(self.burst));
            (self.bytes, self.filled_ns) = (filled as i64, now_ns);
        }
        if self.bytes >= 0 {
            return now_ns;
        }
        let wait = i128::from(-self.bytes) * 1_000_000_000 / i128::from(self.bytes_per_s) + 1;
        self.filled_ns.saturating_add(i64::try_from(wait).unwrap_or(i64::MAX))
    }

    /// So much goes.
    pub(super) fn take(&mut self, bytes: i64) {
        self.bytes -= bytes;
    }
}

/// See the file's header.
#[derive(Debug, Clone)]
pub(super) struct Push {
    /// Whether somebody listens.
    pub(super) active: bool,
    /// Since when nobody does.
    pub(super) inactive_since_ns: i64,
    /// When the next heartbeat is due.
    pub(super) heartbeat_at_ns: Option<i64>,
    pub(super) flow: Option<FlowControl>,
    pub(super) rate: Option<RateLimit>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_doubles_with_each_response_up_to_its_largest() {
        let mut flow = FlowControl::new();
        for window in [2, 4, 8, 16, 32, 32] {
            let window: i64 = window << 20;
            assert!(!flow.delivered(window / 2, false), "half a window is not more than half");
            assert!(flow.delivered(1, false));
            flow.ask(b"q");
            assert!(!flow.delivered(window / 2, false) && flow.is_stalled());
            assert!(!flow.answered(b"other") && flow.answered(b"q") && !flow.answered(b"q"));
            // The rest of what is out is asked for, too.
            flow.ask(b"rest");
            let _ = flow.asked.take();
            flow.out = 0;
        }
    }

    #[test]
    fn a_rate_limit_lets_a_burst_pass_and_then_so_many_bytes_a_second() {
        let second = 1_000_000_000;
        let mut rate = RateLimit::new(8_000, 500, 0);
        let mut now = 0;
        for _ in 0..30 {
            now = now.max(rate.next_ns(now));
            rate.take(100);
        }
        // 3,000 bytes, of which 500 at once and the last one before it is paid for.
        assert!((2 * second..2 * second + second * 6 / 10).contains(&now), "{now}");
    }
}
