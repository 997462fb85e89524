//! Passwords held against bcrypt hashes, by threads that have nothing else to do.
//!
//! One comparison takes tens of milliseconds of CPU, so a flood of logins is a flood of work: [`super::job_threads`] bounds
//! it. A login that has waited too long is not worth the work any more, for its client has given up.

use std::io;
use std::sync::Weak;
use std::time::{Duration, Instant};

use super::job_threads::{JobThreads, ThreadTerms};
use super::shared::{CheckedPassword, Shared};
use crate::broker::Verdict;
use crate::broker::core::PasswordCheck;
use crate::io::process;

/// Logins that may wait. Beyond, they are answered at once, as if their time had run out.
const WAITING_MAX: usize = 8 * 1024;

/// Threads at most.
const THREADS_MAX: usize = 4;

/// The queue to the threads. They end when it is dropped.
#[derive(Debug)]
pub struct PasswordChecks(JobThreads<Job>);

#[derive(Debug)]
struct Job {
    /// The worker that wants to know.
    worker: usize,
    check: PasswordCheck,
    not_after: Instant,
}

impl PasswordChecks {
    /// Starts the threads: half as many as there are cores. They answer at the doors of `shared`, as long as it is there.
    ///
    /// # Errors
    ///
    /// There can be no more threads.
    pub fn start(shared: &Weak<Shared>) -> io::Result<PasswordChecks> {
        let count = (process::available_cores() / 2).clamp(1, THREADS_MAX);
        let terms =
            ThreadTerms { name: "passwords", count, nice: process::LEAST_NICE, waiting_max: WAITING_MAX };
        let shared = shared.clone();
        let threads = JobThreads::start(terms, move |Job { worker, check, not_after }| {
            let PasswordCheck { conn, serial, check } = check;
            let verdict = match () {
                () if Instant::now() > not_after => Verdict::TooLate,
                () if check.verify() => Verdict::Right,
                () => Verdict::Wrong,
            };
            let Some(shared) = shared.upgrade() else { return false };
            shared.doors[worker].put_verdict(CheckedPassword { conn, serial, verdict });
            true
        })?;
        Ok(PasswordChecks(threads))
    }

    /// Queues a check for `worker`; `false` if there are too many.
    pub fn submit(&self, worker: usize, check: PasswordCheck, patience: Duration) -> bool {
        let not_after = Instant::now() + patience;
        self.0.submit(Job { worker, check, not_after }).is_ok()
    }
}
