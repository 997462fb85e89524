//! When single messages go by themselves, and which ones stay longer than the stream's age: per-message times to live.
//!
//! Times to live are whole seconds; messages that go within the same quarter of a second are a list of sequences, so that ten million of them
//! cost eight bytes each. A message that was removed before stays in its list, and is not found when its time comes.

use std::collections::{BTreeMap, BTreeSet};

/// Messages that go within such a span go together, at its end.
const SPAN_NS: i64 = 250_000_000;

/// See the file's header.
#[derive(Debug, Default)]
pub struct Expiry {
    /// Sequences by the end of the span in which they go.
    spans: BTreeMap<i64, Vec<u64>>,
    /// Messages that the age of the stream does not concern.
    never: BTreeSet<u64>,
    /// Messages that say that a subject is gone: their own going is not told by another.
    markers: BTreeSet<u64>,
}

impl Expiry {
    /// A message goes at `time_ns`, or a little later.
    pub fn insert(&mut self, seq: u64, time_ns: i64) {
        self.spans.entry(time_ns.div_euclid(SPAN_NS).saturating_add(1)).or_default().push(seq);
    }

    /// A message never goes by its age.
    pub fn insert_never(&mut self, seq: u64) {
        self.never.insert(seq);
    }

    /// A message says that a subject is gone.
    pub fn insert_marker(&mut self, seq: u64) {
        self.markers.insert(seq);
    }

    /// Whether a message never goes by its age.
    pub fn is_never(&self, seq: u64) -> bool {
        !self.never.is_empty() && self.never.contains(&seq)
    }

    /// Whether a message says that a subject is gone.
    pub fn is_marker(&self, seq: u64) -> bool {
        !self.markers.is_empty() && self.markers.contains(&seq)
    }

    /// Forgets what was noted of a message that is gone.
    pub fn forget(&mut self, seq: u64) {
        if !self.never.is_empty() {
            self.never.remove(&seq);
        }
        if !self.markers.is_empty() {
            self.markers.remove(&seq);
        }
    }

    /// Forgets everything about sequences from `seq` on: they were not stored after all.
    pub fn forget_from(&mut self, seq: u64) {
        self.never.split_off(&seq);
        self.markers.split_off(&seq);
        self.spans.retain(|_, seqs| {
            seqs.retain(|other| *other < seq);
            !seqs.is_empty()
        });
    }

    /// Forgets everything about sequences below `seq`, but for the lists, which are not searched for it.
    pub fn forget_below(&mut self, seq: u64) {
        if !self.never.is_empty() {
            self.never = self.never.split_off(&seq);
        }
        if !self.markers.is_empty() {
            self.markers = self.markers.split_off(&seq);
        }
    }

    /// The next sequences whose time has come, in ascending order.
    pub fn take_due(&mut self, now_ns: i64) -> Option<Vec<u64>> {
        let first = self.spans.first_entry()?;
        if first.key().saturating_mul(SPAN_NS) > now_ns {
            return None;
        }
        let mut seqs = first.remove();
        seqs.sort_unstable();
        Some(seqs)
    }

    /// When the next time comes.
    pub fn next_ns(&self) -> Option<i64> {
        self.spans.first_key_value().map(|(span, _)| span.saturating_mul(SPAN_NS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_go_together_and_never_early() {
        let mut expiry = Expiry::default();
        expiry.insert(2, 1_000_000_000);
        expiry.insert(1, 1_000_000_001);
        expiry.insert(3, 5_000_000_000);
        assert_eq!(expiry.next_ns(), Some(1_250_000_000));
        assert_eq!(expiry.take_due(1_249_999_999), None);
        assert_eq!(expiry.take_due(1_250_000_000), Some(vec![1, 2]));
        assert_eq!(expiry.take_due(1_250_000_000), None);
        expiry.forget_from(3);
        assert_eq!(expiry.next_ns(), None);
    }
}
