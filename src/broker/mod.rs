//! Core NATS as a state machine: one [`Broker`] per worker, without sockets, clocks or threads.
//!
//! Bytes of a connection come in with [`Broker::handle_bytes`], batches of other workers with
//! [`Broker::handle_batch`], time with [`Broker::begin_turn`]. What must go out is fetched with `poll_*`: connections
//! with unsent output, batches for other workers, connections to be closed, log lines.
//!
//! * [`settings`]: the limits that a broker enforces.
//! * [`session`]: one client connection: what it negotiated, its output, its counters.
//! * [`subscription`]: one `SUB`.
//! * [`core`]: the broker's parts and the commands other than publishing.
//! * [`login`]: from `CONNECT` to a user.
//! * [`permissions`]: what a connection may do.
//! * [`secure`]: what encryption means for a connection's life.
//! * [`imports`]: subscriptions to what other accounts publish.
//! * [`services`]: requests to other accounts and their answers.
//! * [`responses`]: the answers that a worker waits for.
//! * [`client_info`]: what responders are told of who asks.
//! * [`latency`]: how long services take.
//! * [`publish`]: one message's way from its publisher to its receivers.
//! * [`batch`]: messages on their way to another worker.
//! * [`peers`]: what arrives from other workers.
//! * [`pace`]: slow consumers and fast producers.
//! * [`lifetime`]: pings, time-outs, closing.
//! * [`log_lines`]: what a turn has for the log.
//! * [`relocation`]: a connection moves to another worker.
//! * [`routes`]: connections to the other servers of the cluster.
//! * [`web`]: WebSocket connections, before and behind their handshake.
//! * [`internal`]: the server's own client, which subscribes and publishes beside the workers.
//! * [`notice`]: what has happened that the system account may want to know.
//! * [`capture`]: what the server itself takes and publishes at a worker.
//! * [`inspect`]: what monitoring sees, a slice at a time.
//!
//! A session belongs to one account, and interest and caches are per account.

pub mod batch;
pub mod capture;
pub mod client_info;
pub mod core;
pub mod imports;
pub mod inspect;
pub mod internal;
#[cfg(test)]
mod isolation;
pub mod latency;
pub mod lifetime;
pub mod log_lines;
pub mod login;
pub mod notice;
pub mod pace;
pub mod peers;
pub mod permissions;
pub mod publish;
pub mod relocation;
pub mod responses;
pub mod routes;
pub mod secure;
pub mod services;
pub mod session;
pub mod settings;
pub mod subscription;
pub mod web;

pub use batch::Batch;
pub use core::{Broker, Input};
pub use log_lines::{Level, LogLines};
pub use login::Verdict;
pub use routes::{ClientUrls, ClusterTerms, RouteRow};
pub use secure::{Carrier, TlsTerms};
pub use services::install_services;
pub use session::CloseReason;
pub use settings::Settings;
pub use web::WebTerms;
