//! Passwords held against bcrypt hashes, by threads that have nothing else to do.
//!
//! One comparison takes tens of milliseconds of CPU, so a flood of logins is a flood of work. It is bounded three ways:
//! a few threads, which the scheduler puts behind everything else; a queue of bounded length; and a time after which a
//! login that still waits is not worth the work any more, for its client has given up.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::shared::{CheckedPassword, Door, Shared};
use crate::auth::HashCheck;
use crate::broker::Verdict;
use crate::broker::core::PasswordCheck;
use crate::io::process;

/// Logins that may wait. Beyond, they are answered at once, as if their time had run out.
const WAITING_MAX: usize = 8 * 1024;

/// Threads at most.
const THREADS_MAX: usize = 4;

/// The queue to the threads. They end when it is dropped.
#[derive(Debug)]
pub struct PasswordChecks {
    queue: Arc<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    closed: bool,
}

#[derive(Debug)]
struct Job {
    /// The worker that wants to know.
    worker: usize,
    conn: u32,
    serial: u32,
    check: HashCheck,
    not_after: Instant,
}

impl PasswordChecks {
    /// Starts the threads: half as many as there are cores. They answer at the doors of `shared`, as long as it is there.
    ///
    /// # Errors
    ///
    /// There can be no more threads.
    pub fn start(shared: &Weak<Shared>) -> io::Result<PasswordChecks> {
        let queue = Arc::<Queue>::default();
        let checks = PasswordChecks { queue: queue.clone() };
        for _ in 0..(process::available_cores() / 2).clamp(1, THREADS_MAX) {
            let (queue, shared) = (queue.clone(), shared.clone());
            std::thread::Builder::new().name("passwords".into()).spawn(move || {
                process::yield_to_other_threads();
                queue.work(&shared);
            })?;
        }
        Ok(checks)
    }

    /// Queues a check for `worker`; `false` if there are too many.
    pub fn submit(&self, worker: usize, check: PasswordCheck, patience: Duration) -> bool {
        let mut waiting = self.queue.waiting.lock();
        if waiting.jobs.len() >= WAITING_MAX {
            return false;
        }
        let PasswordCheck { conn, serial, check } = check;
        let not_after = Instant::now() + patience;
        waiting.jobs.push_back(Job { worker, conn, serial, check, not_after });
        self.queue.changed.notify_one();
        true
    }
}

impl Drop for PasswordChecks {
    fn drop(&mut self) {
        self.queue.waiting.lock().closed = true;
        self.queue.changed.notify_all();
    }
}

impl Queue {
    fn work(&self, shared: &Weak<Shared>) {
        while let Some(job) = self.next() {
            let verdict = match () {
                () if Instant::now() > job.not_after => Verdict::TooLate,
                () if job.check.verify() => Verdict::Right,
                () => Verdict::Wrong,
            };
            let Some(shared) = shared.upgrade() else { return };
            let door: &Door = &shared.doors[job.worker];
            door.put_verdict(CheckedPassword { conn: job.conn, serial: job.serial, verdict });
        }
    }

    fn next(&self) -> Option<Job> {
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
