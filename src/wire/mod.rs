//! The wire room: codecs of the NATS client protocol, without any input or output of their own.
//!
//! * [`command`]: bytes from a client to [`Command`]s, split anywhere, in place where possible.
//! * [`connect`]: the JSON of `CONNECT`.
//! * [`info`]: the JSON of `INFO`.
//! * [`header`]: the `NATS/1.0` header block.
//! * [`frame`]: what the server writes: `MSG`, `HMSG` and the fixed lines.
//! * [`route`]: the protocol between the servers of a cluster.
//! * [`route_handshake`]: the JSON with which they introduce themselves.
//! * [`redaction`]: what of a `CONNECT` may stand in a log.
//! * [`error_text`]: every `-ERR` text, in one table.
//!
//! The rules come from the protocol documentation and from transcripts of nats-server 2.15.1; the differential
//! tests (`tests/wire`) hold both servers to the same bytes.

pub mod command;
pub mod connect;
pub mod error_text;
pub mod frame;
pub mod header;
pub mod info;
pub mod redaction;
pub mod route;
pub mod route_handshake;

pub use command::{Command, DecodeError, Decoder, Limits, Payload, Publish, Widths};
