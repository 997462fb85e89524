//! Threads for work that is too long for a worker, and a queue of bounded length to them.
//!
//! A flood of such work is bounded three ways: a few threads, which the scheduler puts behind others; the queue; and, in
//! the jobs themselves, a time after which the work is not worth doing any more.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::io::process;

/// The queue to the threads. They end when it is dropped.
#[derive(Debug)]
pub struct JobThreads<J> {
    queue: Arc<Queue<J>>,
    waiting_max: usize,
}

#[derive(Debug)]
struct Queue<J> {
    waiting: Mutex<Waiting<J>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Waiting<J> {
    jobs: VecDeque<J>,
    closed: bool,
}

/// What the threads are like.
#[derive(Debug, Clone, Copy)]
pub struct ThreadTerms {
    /// What they are called.
    pub name: &'static str,
    /// How many there are.
    pub count: usize,
    /// How far they stand back: 0 not at all, 19 as far as possible.
    pub nice: i32,
    /// Jobs that may wait.
    pub waiting_max: usize,
}

impl<J: Send + 'static> JobThreads<J> {
    /// Starts the threads. Each does jobs by `work` until that says no.
    ///
    /// # Errors
    ///
    /// There can be no more threads.
    pub fn start(
        terms: ThreadTerms,
        work: impl Fn(J) -> bool + Clone + Send + 'static,
    ) -> io::Result<JobThreads<J>> {
        let waiting = Mutex::new(Waiting { jobs: VecDeque::new(), closed: false });
        let queue = Arc::new(Queue { waiting, changed: Condvar::new() });
        let threads = JobThreads { queue: queue.clone(), waiting_max: terms.waiting_max };
        for _ in 0..terms.count {
            let (queue, work) = (queue.clone(), work.clone());
            std::thread::Builder::new().name(terms.name.into()).spawn(move || {
                process::set_nice(terms.nice);
                while let Some(job) = queue.next() {
                    if !work(job) {
                        return;
                    }
                }
            })?;
        }
        Ok(threads)
    }

    /// Queues a job.
    ///
    /// # Errors
    ///
    /// There are too many; it comes back.
    pub fn submit(&self, job: J) -> Result<(), J> {
        let mut waiting = self.queue.waiting.lock();
        if waiting.jobs.len() >= self.waiting_max {
            return Err(job);
        }
        waiting.jobs.push_back(job);
        self.queue.changed.notify_one();
        Ok(())
    }
}

impl<J> Drop for JobThreads<J> {
    fn drop(&mut self) {
        self.queue.waiting.lock().closed = true;
        self.queue.changed.notify_all();
    }
}

impl<J> Queue<J> {
    fn next(&self) -> Option<J> {
        let mut waiting = self.waiting.lock();
        loop {
            if waiting.closed {
                return None;
            }
            if let Some(job) = waiting.jobs.pop_front() {
                return Some(job);
            }
            self.changed.wait(&mut waiting);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn jobs_are_done_in_order_and_no_more_wait_than_may() {
        let (started_in, started) = mpsc::channel();
        let (go_on, wait) = mpsc::channel::<()>();
        let wait = Arc::new(Mutex::new(wait));
        let terms = ThreadTerms { name: "jobs", count: 1, nice: 0, waiting_max: 2 };
        let threads = JobThreads::start(terms, move |job: u32| {
            started_in.send(job).unwrap();
            wait.lock().recv().is_ok()
        })
        .unwrap();
        threads.submit(1).unwrap();
        assert_eq!(started.recv(), Ok(1));
        threads.submit(2).unwrap();
        threads.submit(3).unwrap();
        assert_eq!(threads.submit(4), Err(4));
        for job in [2, 3] {
            go_on.send(()).unwrap();
            assert_eq!(started.recv(), Ok(job));
        }
    }
}
