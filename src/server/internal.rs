//! The server's own client ([`crate::broker::internal`]) with its queues: used by the control thread, which workers wake
//! when they have something for it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::shared::{Shared, SharedInterest};
use crate::base::handover::{Receiver, Sender};
use crate::broker::Batch;
use crate::broker::internal::{Arrival, InternalClient, Outlets};
use crate::subject::interest::WorkerId;

/// Batches that are taken from each worker before the control thread looks at something else.
const BATCHES_PER_LOOK_MAX: usize = 4;

/// See the head of this file.
pub struct Internal {
    desk: Mutex<Desk>,
    woken: Notify,
    dropped: AtomicU64,
}

struct Desk {
    client: InternalClient<SharedInterest>,
    outlets: ToWorkers,
    inlets: Vec<Receiver<Batch>>,
}

/// The queues to the workers.
struct ToWorkers {
    senders: Vec<Sender<Batch>>,
    /// Whose queue has something new.
    given: Vec<bool>,
    now_us: u64,
}

impl Outlets for ToWorkers {
    fn room(&self, to: WorkerId) -> usize {
        self.senders[usize::from(to)].room()
    }

    fn spare(&mut self, to: WorkerId) -> Batch {
        self.senders[usize::from(to)].take_spent().unwrap_or_default()
    }

    fn give(&mut self, to: WorkerId, mut batch: Batch) {
        batch.given_us = self.now_us;
        if self.senders[usize::from(to)].send(batch).is_err() {
            unreachable!("there was room, and nobody else sends");
        }
        self.given[usize::from(to)] = true;
    }
}

impl fmt::Debug for Internal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Internal(…)")
    }
}

impl Internal {
    /// A client with a queue to and from each worker. `interests` are the indexes of the accounts by slot.
    pub fn new(
        senders: Vec<Sender<Batch>>,
        inlets: Vec<Receiver<Batch>>,
        interests: Vec<SharedInterest>,
    ) -> Internal {
        let given = vec![false; senders.len()];
        let client = InternalClient::new(senders.len(), interests, fastrand::u64(..));
        let outlets = ToWorkers { senders, given, now_us: 0 };
        Internal {
            desk: Mutex::new(Desk { client, outlets, inlets }),
            woken: Notify::new(),
            dropped: AtomicU64::new(0),
        }
    }

    /// Says that a worker has something for it.
    pub fn knock(&self) {
        self.woken.notify_one();
    }

    /// Waits until a worker has something for it, or may have.
    pub async fn woken(&self) {
        self.woken.notified().await;
    }

    /// Notes that a worker had too much for it.
    pub fn count_dropped(&self, count: usize) {
        self.dropped.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// What was too much, for it or for the workers, since the last call.
    pub fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed) + self.desk.lock().client.take_dropped()
    }

    /// Uses the client.
    pub fn with_client<R>(&self, use_it: impl FnOnce(&mut InternalClient<SharedInterest>) -> R) -> R {
        use_it(&mut self.desk.lock().client)
    }

    /// Takes some of what workers have for it. Whether there is more. `each` must not use the client.
    pub fn take(&self, mut each: impl FnMut(Arrival<'_>)) -> bool {
        let mut desk = self.desk.lock();
        let Desk { client, inlets, .. } = &mut *desk;
        for (from, inlet) in (0..).zip(inlets.iter_mut()) {
            for _ in 0..BATCHES_PER_LOOK_MAX {
                let Some(mut batch) = inlet.receive() else { break };
                client.handle_batch(from, &batch, &mut each);
                batch.clear();
                inlet.give_back(batch);
            }
        }
        inlets.iter().any(Receiver::has_batch)
    }

    /// Hands what the client has published to the workers. What does not find room now is tried again.
    pub fn send(&self, shared: &Shared) {
        if self.hand_over(shared) {
            self.knock();
        }
    }

    /// Hands what the client has published to the workers. Whether something is left because they have no room.
    pub fn hand_over(&self, shared: &Shared) -> bool {
        let mut desk = self.desk.lock();
        let Desk { client, outlets, .. } = &mut *desk;
        outlets.now_us = shared.started.elapsed().as_micros() as u64;
        let left = client.hand_over(outlets);
        for (door, given) in shared.doors.iter().zip(&mut outlets.given) {
            if std::mem::take(given) {
                door.knock();
            }
        }
        shared.knock_for_routes();
        left
    }
}
