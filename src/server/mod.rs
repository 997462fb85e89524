//! The server room: puts the cores and the io room together.
//!
//! * [`run`]: start, signals, shutdown: the control thread.
//! * [`reload`]: the configuration read again while the server runs.
//! * [`closing_schedule`]: when connections are closed in lame duck mode.
//! * [`worker`]: one worker's loop.
//! * [`job_threads`]: work that is too long for a worker: [`password_checks`], passwords held against hashes, and
//!   [`handshakes`] of TLS.
//! * [`placement`]: which worker should have which connections.
//! * [`shared`]: what the threads share.
//! * [`http`]: the HTTP server of the monitoring, in the control thread.
//! * [`internal`]: the server's own client and its queues; [`system`]: what it does in the system account.
//! * [`jetstream`]: JetStream: which streams there are, its API, where streams are kept.
//! * [`readings`], [`inquiry`], [`monitored`]: what a worker tells of itself: counters, and answers to questions.
//! * [`signal`]: `--signal`, to another process.
//! * [`log`]: the log, written by a thread of its own.

pub mod closing_schedule;
pub mod handshakes;
pub mod http;
pub mod inquiry;
pub mod internal;
pub mod jetstream;
pub mod job_threads;
pub mod log;
pub mod monitored;
pub mod moves;
pub mod password_checks;
pub mod placement;
pub mod readings;
pub mod reload;
pub mod routes;
pub mod run;
pub mod shared;
pub mod signal;
pub mod system;
pub mod worker;
