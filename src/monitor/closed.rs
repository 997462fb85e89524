//! The connections that were closed lately, the oldest of which make room for new ones.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::broker::inspect::ClosedConnection;

/// The last so many.
#[derive(Debug)]
pub struct ClosedRing {
    connections: VecDeque<Arc<ClosedConnection>>,
    len_max: usize,
    /// Those that have made room.
    dropped: u64,
}

impl ClosedRing {
    /// An empty one that holds `len_max`.
    pub fn new(len_max: usize) -> ClosedRing {
        ClosedRing { connections: VecDeque::new(), len_max, dropped: 0 }
    }

    /// Adds one. What it returns made room for it, to be freed where there is time.
    pub fn push(&mut self, closed: Arc<ClosedConnection>) -> Option<Arc<ClosedConnection>> {
        self.connections.push_back(closed);
        if self.connections.len() <= self.len_max {
            return None;
        }
        self.dropped += 1;
        self.connections.pop_front()
    }

    /// Adds up to `count` of them to `found`, from the one with number `from` on, counted since the start. Returns the
    /// number to go on with, or `None` at the end.
    pub fn read(&self, from: u64, count: usize, found: &mut Vec<Arc<ClosedConnection>>) -> Option<u64> {
        let skip = usize::try_from(from.saturating_sub(self.dropped)).unwrap_or(usize::MAX);
        let before = found.len();
        found.extend(self.connections.iter().skip(skip).take(count).cloned());
        let next = from.max(self.dropped) + (found.len() - before) as u64;
        (next < self.dropped + self.connections.len() as u64).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;
    use crate::broker::CloseReason;
    use crate::broker::inspect::ConnectionRow;
    use crate::broker::session::Counters;

    fn closed(cid: u64) -> Arc<ClosedConnection> {
        Arc::new(ClosedConnection {
            row: ConnectionRow {
                is_websocket: false,
                cid,
                addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
                started_us: 0,
                active_ms: 0,
                rtt_us: 0,
                pending_bytes: 0,
                progress_ms: 0,
                behind_since_ms: None,
                counters: Counters::default(),
                stalls: 0,
                subscriptions: 0,
                name: String::new(),
                lang: String::new(),
                version: String::new(),
                user: String::new(),
                account: String::new(),
                secure: None,
            },
            stopped_us: 0,
            reason: CloseReason::ClientClosed,
            subscriptions: Vec::new(),
        })
    }

    fn all(ring: &ClosedRing, step: usize) -> Vec<u64> {
        let (mut found, mut from) = (Vec::new(), Some(0));
        while let Some(at) = from {
            from = ring.read(at, step, &mut found);
        }
        found.iter().map(|closed| closed.row.cid).collect()
    }

    #[test]
    fn the_last_ones_are_kept_in_order_and_read_in_any_steps() {
        let mut ring = ClosedRing::new(3);
        assert!(all(&ring, 2).is_empty());
        for cid in 1..=7 {
            let dropped = ring.push(closed(cid));
            assert_eq!(dropped.map(|closed| closed.row.cid), (cid > 3).then(|| cid - 3));
            let expected: Vec<u64> = (cid.saturating_sub(2).max(1)..=cid).collect();
            for step in 1..=4 {
                assert_eq!(all(&ring, step), expected, "step {step}");
            }
        }
    }
}
