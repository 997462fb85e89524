//! Ringmain: a message broker for Linux that speaks NATS.

pub mod base;
pub mod broker;
pub mod config;
pub mod io;
pub mod server;
pub mod subject;
pub mod wire;
