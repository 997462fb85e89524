//! Mirrors and sources: a stream that copies from other streams, its *origins*.
//!
//! The copy is a client of its origin, as in the reference: it asks the API of the origin's account for a push consumer, listens where
//! that delivers, and answers its flow control. That is why an origin may be at another worker, or in another account behind imports
//! and exports: permissions, retention, filters, what is pending and what is refused are those of the API, and there is no second way to a
//! stream's messages.
//!
//! * [`origin`]: how one origin is followed: ask, listen, notice gaps and silence, ask again. It owns no store and no clock.
//! * [`copies`]: what the stream does with what comes: it stores, keeps the position beside the messages, and answers flow control.
//! * [`header`]: what stands in `Nats-Stream-Source`, and the other names and hashes that both sides agree on.
//!
//! A mirror keeps sequences and times, so that its last sequence is its position. A source gives new sequences; its position is noted in
//! the store with the commit that has the messages, and what a torn commit has left behind the last note is told by the messages' headers.
//!
//! Memory is bounded by flow control: a question of the origin is answered when everything before it is on the copy's disk, so that not more
//! is under way than the window of the consumer ([`HELD_BYTES_MAX`] is beyond the largest one). What comes in one turn is one commit.

pub mod copies;
pub mod header;
#[cfg(test)]
mod model_test;
pub mod origin;

pub use copies::{Copied, CopyRequest, CopySubject, PendingCopy};
pub use origin::OriginReport;

/// Bytes of messages that are kept while the answer that says where they begin is awaited. The window of a new consumer is 2 MiB,
/// the largest 32 MiB: more than this comes only from somebody else, and is dropped.
pub const HELD_BYTES_MAX: usize = 64 << 20;
