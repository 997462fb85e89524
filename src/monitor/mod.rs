//! Monitoring: what is asked for over HTTP, and the answers.
//!
//! Sans-IO, like the cores: a path and readings in, an [`Answer`] out. The HTTP server itself, and the questions to the
//! workers, are the `server` room's. Names, fields, order, omissions and texts are those of nats-server 2.15.1, held by
//! `tests/monitor.rs` against recordings of it.
//!
//! * [`access`]: who may ask.
//! * [`endpoint`]: paths and queries; [`parameters`]: what stands in a query.
//! * [`readings`]: the numbers that answers are made of; [`jetstream`]: those of streams.
//! * [`varz`], [`connz`], [`subsz`], [`accountz`], [`jsz`], [`streamz`], [`consumerz`], [`healthz`], [`neighbours`] (routes, gateways, leafnodes, raft
//!   groups), [`vars`], [`page`]: one answer each.
//! * [`dashboard`]: a page that shows all of it to people.
//! * [`metrics`]: the same for Prometheus.
//! * [`closed`]: the connections that were closed lately.
//! * [`answer`], [`json`], [`clock`]: how it is written down.

pub mod access;
pub mod accountz;
pub mod answer;
pub mod clock;
pub mod closed;
pub mod connz;
pub mod consumerz;
pub mod dashboard;
pub mod endpoint;
pub mod healthz;
pub mod jetstream;
pub mod json;
pub mod jsz;
pub mod metrics;
pub mod neighbours;
pub mod page;
pub mod parameters;
pub mod readings;
pub mod streamz;
pub mod subsz;
pub mod vars;
pub mod varz;

pub use answer::Answer;
pub use endpoint::{Request, route};
