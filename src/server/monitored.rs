//! What monitoring asks of a worker's turn: counters published, a question looked into, closed connections remembered.
//!
//! All of it once per turn, nothing per message; counters only once somebody may ask for them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::inquiry::Question;
use super::shared::Shared;
use crate::broker::Broker;
use crate::broker::inspect::ClosedConnection;
use crate::monitor::readings::{Latencies, TurnTimes, WorkerReading};
use crate::subject::interest::InterestAccess;

/// A worker's side of monitoring.
#[derive(Debug)]
pub struct Monitored {
    worker: usize,
    question: Option<Question>,
    /// Closed connections that are not in the shared list yet.
    closed: Vec<Arc<ClosedConnection>>,
    /// Batches handed to other workers.
    pub batches_sent: u64,
    /// Batches taken from other workers.
    pub batches_received: u64,
}

/// What only the worker itself knows at the end of a turn.
#[derive(Debug, Clone, Copy, Default)]
pub struct TurnEnd {
    /// How long its turns took, up to this one.
    pub turn_times: TurnTimes,
    /// How long messages took.
    pub latencies: Latencies,
    /// Batches that it has yet to take.
    pub batches_waiting: usize,
    /// Its read buffers.
    pub buffers: usize,
    /// Those in use.
    pub buffers_leased: usize,
    /// Reads that wait.
    pub reads_waiting: usize,
    /// Bytes of those that were copied.
    pub kept_bytes: usize,
}

impl Monitored {
    /// That of a worker.
    pub fn new(worker: usize) -> Monitored {
        Monitored { worker, question: None, closed: Vec::new(), batches_sent: 0, batches_received: 0 }
    }

    /// Remembers a connection that began to close.
    pub fn remember<A: InterestAccess>(&mut self, broker: &Broker<A>, shared: &Shared, conn: u32) {
        if shared.remembers_closed.load(Ordering::Relaxed) {
            self.closed.extend(broker.closed_connection(conn).map(Arc::new));
        }
    }

    /// Before a turn sends what it has produced, so that nobody hears of a message that is not counted. Whether there is
    /// more to do in the next turn.
    pub fn publish<A: InterestAccess>(
        &mut self,
        broker: &mut Broker<A>,
        shared: &Shared,
        end: TurnEnd,
    ) -> bool {
        let door = &shared.doors[self.worker];
        if shared.is_monitored.load(Ordering::Relaxed) {
            self.publish_reading(broker, shared, end);
        }
        self.hand_over_closed(shared);
        if self.question.is_none() && door.has_question.load(Ordering::Relaxed) {
            door.has_question.store(false, Ordering::Relaxed);
            self.question = door.question.lock().take();
        }
        let is_asked = self.question.is_some();
        self.question = self.question.take().and_then(|question| question.look(broker));
        is_asked || !self.closed.is_empty()
    }

    fn publish_reading<A: InterestAccess>(&self, broker: &mut Broker<A>, shared: &Shared, end: TurnEnd) {
        let (cached_subjects, index_reads) = broker.cached_subjects_and_index_reads();
        shared.doors[self.worker].reading.publish(&WorkerReading {
            stats: broker.stats(),
            connections: 0,
            cached_subjects,
            index_reads,
            turn_times: end.turn_times,
            latencies: end.latencies,
            batches_sent: self.batches_sent,
            batches_received: self.batches_received,
            batches_waiting: end.batches_waiting as u64,
            buffers: end.buffers as u64,
            buffers_leased: end.buffers_leased as u64,
            reads_waiting: end.reads_waiting as u64,
            kept_bytes: end.kept_bytes as u64,
        });
    }

    /// Puts closed connections into the shared list, unless somebody reads it just now: then in the next turn.
    fn hand_over_closed(&mut self, shared: &Shared) {
        if self.closed.is_empty() {
            return;
        }
        let Some(mut ring) = shared.closed.try_lock() else { return };
        let dropped: Vec<_> = self.closed.drain(..).filter_map(|closed| ring.push(closed)).collect();
        drop(ring);
        drop(dropped);
    }
}
