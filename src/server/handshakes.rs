//! Handshakes of TLS, taken a step further by threads that have nothing else to do.
//!
//! A step takes public-key operations, which are long beside a message. On a worker each new connection would delay
//! everybody else; here it costs a hand-over and back.
//! [`super::job_threads`] bounds a flood of them. A handshake whose client has been given up meanwhile is recognised by its
//! worker.

use std::io;
use std::sync::Weak;
use std::time::{Duration, Instant};

use super::job_threads::{JobThreads, ThreadTerms};
use super::shared::{AdvancedHandshake, Shared};
use crate::io::process;
use crate::tls::Handshake;

/// Handshakes that may wait for a thread. Beyond, they fail at once.
const WAITING_MAX: usize = 8 * 1024;

/// Threads at most.
const THREADS_MAX: usize = 4;

/// They stand back behind the workers, but not so far that clients lose their patience under load: where both want the
/// same core, a worker gets four times as much of it.
const NICE: i32 = 6;

/// The queue to the threads. They end when it is dropped.
#[derive(Debug)]
pub struct Handshakes(JobThreads<HandshakeJob>);

/// A handshake that can go a step further.
#[derive(Debug)]
pub struct HandshakeJob {
    /// The worker that it belongs to.
    pub worker: usize,
    /// The connection's slot there.
    pub conn: u32,
    /// Its number.
    pub cid: u64,
    /// As far as it is.
    pub handshake: Box<Handshake>,
    /// From then on nobody waits for it.
    pub not_after: Instant,
}

impl Handshakes {
    /// Starts the threads: half as many as there are cores. They answer at the doors of `shared`, as long as it is there.
    ///
    /// # Errors
    ///
    /// There can be no more threads.
    pub fn start(shared: &Weak<Shared>) -> io::Result<Handshakes> {
        let count = (process::available_cores() / 2).clamp(1, THREADS_MAX);
        let terms = ThreadTerms { name: "handshakes", count, nice: NICE, waiting_max: WAITING_MAX };
        let shared = shared.clone();
        let threads = JobThreads::start(terms, move |job: HandshakeJob| {
            let HandshakeJob { worker, conn, cid, handshake, not_after } = job;
            if Instant::now() > not_after {
                return true;
            }
            let progress = handshake.advance();
            let Some(shared) = shared.upgrade() else { return false };
            shared.doors[worker].put_handshake(AdvancedHandshake { conn, cid, progress });
            true
        })?;
        Ok(Handshakes(threads))
    }

    /// Queues a handshake; `false` if there are too many.
    pub fn submit(&self, job: HandshakeJob) -> bool {
        self.0.submit(job).is_ok()
    }
}

/// How long beyond its time a handshake is still carried on: the worker's clock is a turn old.
pub const PATIENCE_SLACK: Duration = Duration::from_millis(100);
