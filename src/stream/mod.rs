//! JetStream's streams as the reference has them: what they may be, what the API says of them, what becomes of a message.
//!
//! - [`config`]: the configuration of a stream; [`check`]: what it may be and become; [`limits`]: what an account may use.
//! - [`error`]: the table of the API's errors. [`json`], [`time`]: the reference's way of reading and writing them.
//! - [`registry`]: the streams of an account; [`api`]: the subjects, requests and answers of the API;
//!   [`control`]: what is to be done about a request, up to the stream that has to be asked.
//! - [`stream`]: one stream at its worker: messages and commands in, acknowledgements, answers and messages out;
//!   [`publish`], [`get`]: what becomes of a message, and how messages are found again; [`headers`]: what they ask for.
//! - [`batch`]: messages that are stored together or not at all. [`fast_batch`]: many messages under few acknowledgements.
//! - [`backup`]: streams to clients and back, in the reference's formats.
//! - [`source`]: mirrors and sources: what is copied from other streams.
//! - [`scheduled`]: messages that the stream publishes itself when their time comes.
//! - [`room`]: how many bytes streams hold, against what their account and the server allow.
//! - [`outbox`]: what waits to be published; [`dedup`]: ids that were seen; [`expiry`]: messages that go by themselves.
//!
//! Sans-IO: bytes, commands and the time come in; what is to be published and what is to be read come out. It stands on
//! [`crate::store`], whose commits and reads a driver carries out. The same input gives the same output.
//!
//! Texts, numbers and the order of fields and checks are those of nats-server 2.15.1.

pub mod api;
pub mod backup;
pub mod batch;
pub mod check;
pub mod config;
pub mod consumer;
pub mod control;
mod decimal;
pub mod dedup;
pub mod error;
pub mod expiry;
mod fast_batch;
pub mod get;
pub mod headers;
pub mod json;
pub mod limits;
pub mod outbox;
pub mod publish;
pub mod registry;
pub mod room;
mod schedule;
pub mod scheduled;
pub mod source;
#[expect(clippy::module_inception, reason = "one stream, among all that is said of streams")]
pub mod stream;
#[cfg(test)]
mod stream_tests;
pub mod time;

pub use config::StreamConfig;
pub use error::{ApiError, ErrorId};
pub use stream::{Stream, StreamSettings};

/// The version whose behaviour this is, as the metadata of streams and consumers names it.
pub const SERVER_VERSION: &str = "2.15.1";
/// The level of the JetStream API.
pub const API_LEVEL: u32 = 5;
