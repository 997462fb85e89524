//! Ringmain: a message broker for Linux that speaks NATS.

pub mod config;
pub mod subject;
pub mod wire;
