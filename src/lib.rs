//! Ringmain: a message broker for Linux that speaks NATS.

pub mod base;
pub mod subject;
pub mod wire;
