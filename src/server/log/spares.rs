//! Memory of lines that have been written, for the lines of a later turn. Under a protocol trace every turn of a worker
//! fills up to a hundred kilobytes. If the log thread freed them, the worker would have to wait, every few turns, for a lock
//! of the allocator or for the kernel, which unmaps pages of the same process meanwhile. That is the kind of stall that the
//! log thread is there to prevent.

use parking_lot::Mutex;

use crate::broker::LogLines;

/// Memory that is kept. As much as may be on its way to the log without anybody being held back.
const KEPT_BYTES_MAX: usize = super::queue::HOLD_BYTES;

/// Less than this is not worth keeping.
const KEPT_BYTES_MIN: usize = 4 * 1024;

/// Lines without content.
#[derive(Debug, Default)]
pub(super) struct Spares(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    lines: Vec<LogLines>,
    bytes: usize,
}

impl Spares {
    /// Some that are there, or new ones. Never waits.
    pub fn take(&self) -> LogLines {
        let Some(mut kept) = self.0.try_lock() else { return LogLines::default() };
        let lines = kept.lines.pop().unwrap_or_default();
        kept.bytes -= lines.capacity_bytes();
        lines
    }

    /// Keeps what has been written.
    pub fn give_back(&self, mut lines: LogLines) {
        let bytes = lines.capacity_bytes();
        if bytes < KEPT_BYTES_MIN {
            return;
        }
        lines.clear();
        let mut kept = self.0.lock();
        if kept.bytes + bytes <= KEPT_BYTES_MAX {
            kept.bytes += bytes;
            kept.lines.push(lines);
        }
    }

    /// Frees what is kept, when there will be few lines from now on.
    pub fn clear(&self) {
        *self.0.lock() = Kept::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Level;

    fn lines(bytes: usize) -> LogLines {
        let mut lines = LogLines::default();
        lines.push(Level::Trace, "x".repeat(bytes));
        lines
    }

    #[test]
    fn memory_is_used_again_up_to_a_bound() {
        let spares = Spares::default();
        assert_eq!(spares.take().capacity_bytes(), 0);
        for _ in 0..100 {
            spares.give_back(lines(1024 * 1024));
        }
        spares.give_back(lines(10));
        let taken: Vec<LogLines> = (0..100).map(|_| spares.take()).collect();
        assert!(taken.iter().all(LogLines::is_empty));
        let bytes: usize = taken.iter().map(LogLines::capacity_bytes).sum();
        assert!(bytes > KEPT_BYTES_MAX / 2 && bytes <= KEPT_BYTES_MAX, "{bytes}");
        spares.give_back(lines(1024 * 1024));
        spares.clear();
        assert_eq!(spares.take().capacity_bytes(), 0);
    }

    #[test]
    fn nobody_waits_for_them() {
        let spares = Spares::default();
        spares.give_back(lines(1024 * 1024));
        let kept = spares.0.lock();
        assert_eq!(spares.take().capacity_bytes(), 0);
        drop(kept);
        assert!(spares.take().capacity_bytes() >= 1024 * 1024);
    }
}
