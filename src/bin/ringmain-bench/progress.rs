//! The line that shows life while a measurement runs: on a terminal only, never in a file or a pipe.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(200);

/// A progress line on standard error.
pub struct Progress {
    shown: bool,
    label: String,
    last: Instant,
    /// None until the first call: counts go on from one window to the next.
    last_count: Option<u64>,
}

impl Progress {
    pub fn new(label: &str, quiet: bool) -> Progress {
        let shown = !quiet && std::io::stderr().is_terminal();
        Progress { shown, label: label.to_owned(), last: Instant::now(), last_count: None }
    }

    /// Shows `count` and its rate, if it is time to.
    pub fn show(&mut self, count: u64) {
        let last_count = *self.last_count.get_or_insert(count);
        let passed = self.last.elapsed();
        if !self.shown || passed < INTERVAL {
            return;
        }
        let rate = count.saturating_sub(last_count) as f64 / passed.as_secs_f64();
        eprint!("\r\x1b[K{}: {count} ({rate:.0}/s)", self.label);
        let _ = std::io::stderr().flush();
        (self.last, self.last_count) = (Instant::now(), Some(count));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}
