//! Counts the connections that are between two workers, and lets somebody who looks at all of them wait until there are
//! none, so that no connection is missed or seen twice.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The moves under way in a server.
#[derive(Debug, Default)]
pub struct Moves {
    under_way: AtomicUsize,
    /// Those who want no connection to move.
    bars: AtomicUsize,
    /// Told when the last move under way has ended while somebody waits for that.
    ended: Notify,
}

/// As long as it is there, no connection moves.
#[derive(Debug)]
pub struct Bar<'a>(&'a Moves);

impl Moves {
    /// Counts a move as under way, unless it has to wait or to be given up.
    pub fn try_begin(&self) -> bool {
        // The count goes up before the bars are read, and whoever bars reads the count after: one of the two sees the other.
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let may = self.bars.load(Ordering::SeqCst) == 0;
        if !may {
            self.end();
        }
        may
    }

    /// A move that has begun is through.
    pub fn end(&self) {
        if self.under_way.fetch_sub(1, Ordering::SeqCst) == 1 && self.are_barred() {
            self.ended.notify_one();
        }
    }

    /// Whether no connection is between two workers.
    pub fn are_none(&self) -> bool {
        self.under_way.load(Ordering::SeqCst) == 0
    }

    /// Whether none may begin.
    pub fn are_barred(&self) -> bool {
        self.bars.load(Ordering::SeqCst) > 0
    }

    /// Lets no further move begin, until the server has ended.
    pub fn bar_for_good(&self) {
        self.bars.fetch_add(1, Ordering::SeqCst);
    }

    /// Lets no further move begin, and waits until those under way are through: a few turns of the slowest worker. One
    /// caller at a time.
    pub async fn bar(&self) -> Bar<'_> {
        self.bars.fetch_add(1, Ordering::SeqCst);
        let bar = Bar(self);
        while !self.are_none() {
            self.ended.notified().await;
        }
        bar
    }
}

impl Drop for Bar<'_> {
    fn drop(&mut self) {
        self.0.bars.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    #[test]
    fn no_move_begins_or_goes_on_behind_a_bar() {
        let moves = Arc::new(Moves::default());
        let movers: Vec<_> = (0..2)
            .map(|_| {
                let moves = moves.clone();
                thread::spawn(move || {
                    let mut begun = 0;
                    while begun < 2_000 {
                        if moves.try_begin() {
                            begun += 1;
                            thread::yield_now();
                            moves.end();
                        }
                    }
                })
            })
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            while !movers.iter().all(|mover| mover.is_finished()) {
                let bar = moves.bar().await;
                // A try that is turned away is counted for a moment; a move is not there.
                assert!(moves.are_barred());
                assert!(!moves.try_begin());
                drop(bar);
                thread::yield_now();
            }
        });
        for mover in movers {
            mover.join().expect("a mover");
        }
        assert!(moves.are_none() && !moves.are_barred());
        assert!(moves.try_begin());
        moves.bar_for_good();
        assert!(!moves.try_begin() && !moves.are_none());
        moves.end();
        assert!(moves.are_none());
    }
}
