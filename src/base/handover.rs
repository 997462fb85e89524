//! Bounded queues of batches between workers.
//!
//! For every ordered pair of workers there is one single-producer ring of filled batches and one of spent batches on
//! their way back, so that in steady state nothing is allocated. A batch is whatever one turn produced for the other
//! worker; the ring's bound in batches times the batch's bound in bytes is the bound of memory between two workers.
//!
//! Waking is not this file's business beyond saying when it is due: a worker that is about to sleep raises its
//! [`Sleeper`], and a producer that finds it raised must wake it. The fences make sure that one of the two sees the
//! other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use rtrb::{Consumer, Producer, RingBuffer};

/// Batches that may wait between two workers. A turn fills one or two, so this is many turns.
pub const BATCHES_MAX: usize = 64;

/// The sending end from one worker to another.
#[derive(Debug)]
pub struct Sender<B> {
    filled: Producer<B>,
    spent: Consumer<B>,
}

/// The receiving end of the same pair.
#[derive(Debug)]
pub struct Receiver<B> {
    filled: Consumer<B>,
    spent: Producer<B>,
}

/// Both ends of a queue between two workers.
pub fn queue<B>() -> (Sender<B>, Receiver<B>) {
    let (filled_in, filled_out) = RingBuffer::new(BATCHES_MAX);
    let (spent_in, spent_out) = RingBuffer::new(BATCHES_MAX);
    (Sender { filled: filled_in, spent: spent_out }, Receiver { filled: filled_out, spent: spent_in })
}

impl<B> Sender<B> {
    /// Batches that can be sent now.
    pub fn room(&self) -> usize {
        self.filled.slots()
    }

    /// Sends a batch, or returns it when the queue is full.
    ///
    /// # Errors
    ///
    /// The batch itself.
    pub fn send(&mut self, batch: B) -> Result<(), B> {
        self.filled.push(batch).map_err(|rtrb::PushError::Full(batch)| batch)
    }

    /// An emptied batch that has come back.
    pub fn take_spent(&mut self) -> Option<B> {
        self.spent.pop().ok()
    }
}

impl<B> Receiver<B> {
    /// Whether a batch waits.
    pub fn has_batch(&self) -> bool {
        !self.filled.is_empty()
    }

    /// Number of batches that wait.
    pub fn waiting(&self) -> usize {
        self.filled.slots()
    }

    /// The next batch.
    pub fn receive(&mut self) -> Option<B> {
        self.filled.pop().ok()
    }

    /// Gives a batch back to its sender, emptied by the caller. Dropped when the way back is full.
    pub fn give_back(&mut self, batch: B) {
        let _ = self.spent.push(batch);
    }
}

/// Says whether a worker sleeps. Shared by the worker and everyone who may have something for it.
#[derive(Debug, Clone, Default)]
pub struct Sleeper(Arc<AtomicBool>);

impl Sleeper {
    /// Called by the worker before its last look at the queues.
    pub fn about_to_sleep(&self) {
        self.0.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Called by the worker when it is up again.
    pub fn awake(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Called after something was put into a queue: whether the worker has to be woken. Only one caller is told so.
    pub fn must_wake(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_returns_the_batch() {
        let (mut sender, mut receiver) = queue::<Vec<u8>>();
        for i in 0..BATCHES_MAX {
            sender.send(vec![i as u8]).unwrap();
        }
        assert_eq!(sender.room(), 0);
        assert_eq!(sender.send(vec![255]), Err(vec![255]));
        assert_eq!(receiver.receive(), Some(vec![0]));
        assert_eq!(sender.room(), 1);
    }

    #[test]
    fn spent_batches_come_back_with_their_memory() {
        let (mut sender, mut receiver) = queue::<Vec<u8>>();
        sender.send(Vec::with_capacity(100)).unwrap();
        let batch = receiver.receive().unwrap();
        receiver.give_back(batch);
        assert_eq!(sender.take_spent().map(|batch| batch.capacity()), Some(100));
        assert_eq!(sender.take_spent(), None);
    }

    #[test]
    fn a_producer_and_a_sleeping_worker_never_miss_each_other() {
        let (mut sender, mut receiver) = queue::<u64>();
        let sleeper = Sleeper::default();
        let (wake_in, wake_out) = std::sync::mpsc::channel::<()>();
        const COUNT: u64 = 20_000;
        let producer = {
            let sleeper = sleeper.clone();
            std::thread::spawn(move || {
                for i in 0..COUNT {
                    let mut batch = i;
                    while let Err(back) = sender.send(batch) {
                        batch = back;
                        std::thread::yield_now();
                    }
                    if sleeper.must_wake() {
                        wake_in.send(()).unwrap();
                    }
                }
            })
        };
        let mut expected = 0;
        while expected < COUNT {
            while let Some(batch) = receiver.receive() {
                assert_eq!(batch, expected);
                expected += 1;
            }
            sleeper.about_to_sleep();
            if !receiver.has_batch() && expected < COUNT {
                wake_out.recv_timeout(std::time::Duration::from_secs(20)).expect("a wake-up was lost");
            }
            sleeper.awake();
        }
        producer.join().unwrap();
    }
}
