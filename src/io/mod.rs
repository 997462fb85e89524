//! The io room: the only one with system calls. It knows of bytes and sockets, not of NATS.
//!
//! * [`socket_driver`]: what a worker asks of whatever drives its sockets.
//! * [`socket_ring`]: the io_uring that carries all sockets of a worker.
//! * [`socket_poll`]: the epoll that does where io_uring is refused.
//! * [`files`]: files that are written and read while the worker goes on.
//! * [`wake`]: how a worker sleeps, and how others wake it.
//! * [`listener`]: the listening socket.
//! * [`service_manager`]: what systemd is told.
//! * [`process`]: limits of the process: open files, memory given back.

pub mod files;
pub mod listener;
pub mod process;
pub mod service_manager;
pub mod socket_driver;
pub mod socket_poll;
pub mod socket_ring;
pub mod wake;
