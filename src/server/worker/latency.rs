//! How long messages take inside a worker, in three parts, each a histogram:
//!
//! * **route**: from the turn that reaped a publisher's bytes to the end of the turn that handled them. Then its messages
//!   are in the outputs of this worker's subscribers, and in the batches for other workers.
//! * **hand over**: from the beginning of the turn that gave a batch to another worker to the end of the turn in which that
//!   worker handled it. The giving turn is in both.
//! * **send**: from the end of the turn in which output came to be, to the reap that says that the kernel has a piece of it,
//!   once for each piece.
//!
//! All times are taken from one clock reading at the beginning of a turn and one before it sends, however many messages
//! there are, so this is always on. A turn's sends are under way together: all of them count as long as their turn.

use crate::monitor::readings::Latencies;

/// A worker's notes. Times are microseconds since the server's start.
#[derive(Debug, Default)]
pub(super) struct LatencyNotes {
    latencies: Latencies,
    /// Messages that this turn has routed: when their bytes were reaped, and how many.
    routed: Vec<(u64, u64)>,
    /// The same for messages from other workers.
    handed_over: Vec<(u64, u64)>,
    /// By a connection's slot.
    output: Vec<OutputTimes>,
}

/// When the output of a connection came to be; 0 for none.
#[derive(Debug, Clone, Copy, Default)]
struct OutputTimes {
    /// That which the kernel has.
    sending_us: u64,
    /// The oldest of that which waits for it.
    waiting_us: u64,
}

impl LatencyNotes {
    pub fn latencies(&self) -> &Latencies {
        &self.latencies
    }

    /// Messages of bytes that were reaped at `reaped_us` have been routed.
    #[inline]
    pub fn routed(&mut self, reaped_us: u64, messages: u64) {
        if messages > 0 {
            self.routed.push((reaped_us, messages));
        }
    }

    /// Messages that another worker gave away at `given_us` have been delivered.
    #[inline]
    pub fn handed_over(&mut self, given_us: u64, messages: u64) {
        if messages > 0 {
            self.handed_over.push((given_us, messages));
        }
    }

    /// All that the turn had to do before its sends is done.
    pub fn end_turn(&mut self, now_us: u64) {
        for (since_us, messages) in self.routed.drain(..) {
            self.latencies.route.record(now_us.saturating_sub(since_us), messages);
        }
        for (since_us, messages) in self.handed_over.drain(..) {
            self.latencies.hand_over.record(now_us.saturating_sub(since_us), messages);
        }
    }

    /// A connection has output that the kernel does not have yet.
    #[inline]
    pub fn output_waits(&mut self, conn: u32, now_us: u64) {
        let at = conn as usize;
        if at >= self.output.len() {
            self.output.resize(at + 1, OutputTimes::default());
        }
        let times = &mut self.output[at];
        if times.waiting_us == 0 {
            times.waiting_us = now_us;
        }
    }

    /// It is being sent.
    #[inline]
    pub fn send_begins(&mut self, conn: u32) {
        let Some(times) = self.output.get_mut(conn as usize) else { return };
        let waiting_us = std::mem::take(&mut times.waiting_us);
        // Behind a short send the rest goes first, with its older time.
        if times.sending_us == 0 {
            times.sending_us = waiting_us;
        }
    }

    /// The kernel has what was sent; `is_all`: nothing of it is left over.
    #[inline]
    pub fn send_ends(&mut self, conn: u32, now_us: u64, is_all: bool) {
        let Some(times) = self.output.get_mut(conn as usize) else { return };
        if times.sending_us != 0 {
            self.latencies.send.record(now_us.saturating_sub(times.sending_us), 1);
            if is_all {
                times.sending_us = 0;
            }
        }
    }

    /// The connection is gone, and its slot may be used again.
    pub fn forget(&mut self, conn: u32) {
        if let Some(times) = self.output.get_mut(conn as usize) {
            *times = OutputTimes::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_count_from_their_bytes_to_the_end_of_the_turn() {
        let mut notes = LatencyNotes::default();
        notes.routed(100, 3);
        notes.routed(40, 1);
        notes.routed(90, 0);
        notes.handed_over(100, 2);
        notes.end_turn(110);
        notes.end_turn(500);
        let Latencies { route, hand_over, send } = notes.latencies();
        assert_eq!((route.count(), route.sum), (4, 3 * 10 + 70));
        assert_eq!((hand_over.count(), hand_over.sum), (2, 20));
        assert_eq!(send.count(), 0);
    }

    #[test]
    fn output_counts_from_when_it_came_to_be_until_the_kernel_has_it() {
        let mut notes = LatencyNotes::default();
        notes.output_waits(2, 100);
        notes.send_begins(2);
        // More comes while the kernel has that, twice.
        notes.output_waits(2, 150);
        notes.output_waits(2, 160);
        notes.send_ends(2, 200, true);
        notes.send_begins(2);
        notes.send_ends(2, 250, true);
        assert_eq!((notes.latencies().send.count(), notes.latencies().send.sum), (2, 100 + 100));
        // In pieces: the last one took the longest.
        notes.output_waits(2, 300);
        notes.send_begins(2);
        notes.send_ends(2, 310, false);
        notes.output_waits(2, 320);
        notes.send_begins(2);
        notes.send_ends(2, 350, true);
        assert_eq!((notes.latencies().send.count(), notes.latencies().send.sum), (4, 200 + 10 + 50));
    }

    #[test]
    fn what_was_never_noted_is_not_counted() {
        let mut notes = LatencyNotes::default();
        notes.send_begins(7);
        notes.send_ends(7, 100, true);
        notes.output_waits(1, 5);
        notes.forget(1);
        notes.send_begins(1);
        notes.send_ends(1, 100, true);
        assert_eq!(notes.latencies().send.count(), 0);
    }
}
