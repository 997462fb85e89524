//! Ringmain: a message broker for Linux that speaks NATS.
//!
//! The crate is a library of rooms and two binaries: the server (`src/main.rs`) and the load tool
//! (`src/bin/ringmain-bench`). A room uses the rooms above it in this list, never below:
//!
//! * [`base`]: read buffers, outputs, queues between workers, timers. Knows nothing of NATS.
//! * [`wire`]: the client protocol, bytes to commands and back.
//! * [`subject`]: subjects and patterns, the radix tree of subscriptions, cached fan-out lists.
//! * [`config`]: the command line, the configuration language, options with defaults.
//! * [`auth`]: who a client is and what it may do: decisions only.
//! * [`tls`]: encrypted connections, bytes to plaintext and back.
//! * [`websocket`]: connections of web pages: handshakes, frames, compression.
//! * [`cluster`]: which other servers belong to the cluster, and whom to dial.
//! * [`broker`]: core NATS as a state machine: sessions, delivery, limits, slow consumers.
//! * [`store`]: the messages of one stream: segments, indexes, recovery. Plans of file operations out, results in.
//! * [`stream`]: JetStream's streams: configuration, API, what becomes of a message.
//! * [`monitor`]: what monitoring answers over HTTP: paths and readings in, JSON and metrics out.
//! * [`system`]: requests and events of the system account: messages and readings in, answers and JSON out.
//! * [`io`]: the only room with system calls: the io_uring of a worker, eventfds, the listener. Uses `base` only.
//! * [`server`]: puts it together: the worker loop, start, signals, shutdown, the log.
//!
//! `wire`, `subject`, `auth`, `tls`, `websocket`, `cluster`, `broker`, `store`, `stream`, `monitor` and `system` are sans-IO: bytes,
//! batches and time come in; outputs, batches, plans and closes come out. No sockets, files, clocks, threads or locks there, so that tests, fuzzing and simulation can drive them.
//!
//! `docs/architecture.md` follows one message through the rooms.

pub mod auth;
pub mod base;
pub mod broker;
pub mod cluster;
pub mod config;
pub mod io;
pub mod monitor;
pub mod server;
pub mod store;
pub mod stream;
pub mod subject;
pub mod system;
pub mod tls;
pub mod websocket;
pub mod wire;
