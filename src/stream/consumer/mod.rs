//! Consumers: who gets which message of a stream, what counts as handled, and what has to be delivered again.
//!
//! Sans-IO and deterministic: time, messages and interest are handed in, deliveries and answers come out. The worker that
//! owns a stream drives its [`Consumers`] beside it; [`set`] says in which order.
//!
//! * [`config`]: what a consumer is asked to be: defaults, checks, updates.
//! * [`request`]: what clients ask, by subject and body.
//! * [`state`]: what must not be forgotten, and the changes between two states. [`pending`]: what is unacknowledged.
//! * [`core`]: one consumer. [`delivery`]: what it delivers to whom. [`waiting`]: pull requests. [`push`]: flow control,
//!   rate limit. [`acks`]: what clients say. [`lifecycle`]: what time does.
//! * [`standing`]: how far a consumer lags, and what keeps it from delivering, as monitoring tells it.
//! * [`set`]: all consumers of a stream, and what their acknowledgements mean for it.
//! * [`journal`]: how states are kept in the stream's log. [`advisory`]: what is told.

mod acks;
mod advisory;
#[cfg(test)]
mod answers_test;
pub mod config;
mod core;
mod delivery;
#[cfg(test)]
mod dialogues_test;
mod journal;
mod lifecycle;
#[cfg(test)]
mod model_test;
mod pending;
mod push;
pub mod request;
#[cfg(test)]
mod rig;
mod set;
mod standing;
pub mod state;
mod turn;
mod waiting;

pub use config::{AckPolicy, ConsumerConfig, Limits, Retention, StreamFacts};
pub use core::Consumer;
pub use request::{Address, Verb, address};
pub use set::{ConsumerIndex, Consumers, Description, Detail, Drive, RemovedMessages, Work};
pub use standing::{Obstacle, Standing};
pub use turn::{Delivery, Outlet, Site};
