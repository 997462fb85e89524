//! What drives the sockets of one worker: the interface that [`super::socket_ring`] implements.
//!
//! A driver is asked to receive, send and accept, and reports what came of it as [`Completion`]s, a turn at a time. It
//! belongs to one thread. The worker is generic over it, so that each driver's calls are compiled into a worker of
//! their own and nothing on the way of a message goes through a table.

use std::io;
use std::os::fd::OwnedFd;

use super::listener::Listener;
use super::wake::Sleep;
use crate::base::buffer_slab::Lease;

/// Read buffers per worker, a power of two. They are used in turn, so together they should fit the
/// second-level cache: at 1 → 1, 128 of 32 KiB cost a fifth more CPU per message.
pub(super) const BUFFERS: u16 = 32;

/// Size of a read buffer. Less costs more completions per byte, more costs cache.
pub(super) const BUFFER_LEN: usize = 16 * 1024;

/// Pieces sent in one call. With large payloads each takes two: its head and itself.
pub const SEND_SLICES_MAX: usize = 64;

/// Connections accepted in one go; the rest waits for the next turn.
pub(super) const ACCEPTS_MAX: usize = 64;

/// Send plans kept for reuse.
pub(super) const PLANS_KEPT_MAX: usize = 256;

/// What happened.
#[derive(Debug)]
pub enum Completion {
    /// Bytes arrived. The lease must come back by [`SocketDriver::recycle`].
    Received {
        /// The connection.
        conn: u32,
        /// Where they are.
        lease: Lease,
    },
    /// Nothing more will arrive: the peer is done, or the connection broke.
    Ended {
        /// The connection.
        conn: u32,
        /// How it broke.
        error: Option<io::Error>,
    },
    /// A send is over.
    Sent {
        /// The connection.
        conn: u32,
        /// Bytes sent, or why not.
        result: io::Result<usize>,
    },
    /// Receiving stopped, by request or for lack of buffers; arm it again when it is wanted.
    Stopped {
        /// The connection.
        conn: u32,
    },
    /// A new connection on the listener.
    Accepted {
        /// Its descriptor.
        fd: OwnedFd,
    },
    /// Accepting failed; resume it after a pause.
    AcceptStopped {
        /// Why.
        error: io::Error,
    },
}

/// The sockets of one worker.
pub trait SocketDriver {
    /// Starts to accept connections on `listener`.
    fn accept_on(&mut self, listener: Listener);

    /// Goes on accepting after [`Completion::AcceptStopped`].
    fn resume_accepting(&mut self);

    /// Stops accepting and closes the listener.
    fn stop_accepting(&mut self);

    /// Takes a socket under the name `conn` and starts to receive.
    ///
    /// # Panics
    ///
    /// If the name is in use.
    fn add(&mut self, conn: u32, fd: OwnedFd);

    /// Starts to receive, unless that is under way or the socket is at its end.
    fn arm(&mut self, conn: u32);

    /// Stops receiving; [`Completion::Stopped`] follows, perhaps after more bytes.
    fn stop(&mut self, conn: u32);

    /// Sends `slices` in order, and reports when all of it is sent. They must stay in place until
    /// [`Completion::Sent`].
    ///
    /// # Panics
    ///
    /// If a send is under way, or there are no or too many slices.
    fn send<'a>(&mut self, conn: u32, slices: impl Iterator<Item = &'a [u8]>, now_ms: u64);

    /// Whether a send of `conn` is under way.
    fn is_sending(&self, conn: u32) -> bool;

    /// Number of sends under way.
    fn sends_in_flight(&self) -> usize;

    /// Connections whose send has been under way since before `ms`.
    fn sending_since_before(&self, ms: u64) -> Vec<u32>;

    /// Ends a socket in both directions. What is under way completes soon after.
    fn shut_down(&mut self, conn: u32);

    /// Whether the socket was ended by [`SocketDriver::shut_down`].
    fn is_shut(&self, conn: u32) -> bool;

    /// Whether no more bytes can be sent.
    fn is_ended(&self, conn: u32) -> bool;

    /// Whether nothing of `conn` is under way, and no completion of it is to come.
    fn is_quiet(&self, conn: u32) -> bool;

    /// Closes the socket of `conn`.
    ///
    /// # Panics
    ///
    /// If something of it is still under way.
    fn remove(&mut self, conn: u32);

    /// The bytes of a lease.
    fn bytes<'a>(&'a self, lease: &'a Lease) -> &'a [u8];

    /// Takes a read buffer back.
    fn recycle(&mut self, lease: Lease);

    /// Read buffers that hold bytes to be handled.
    fn leased_count(&self) -> usize;

    /// Read buffers in all.
    fn buffer_count(&self) -> usize;

    /// Starts what was asked for and moves everything that has completed to `completions`. Does not wait.
    ///
    /// # Errors
    ///
    /// The driver is broken.
    fn turn(&mut self, completions: &mut Vec<Completion>) -> io::Result<()>;

    /// What a sleeping worker waits for. To be called inside the worker's runtime.
    ///
    /// # Errors
    ///
    /// The runtime cannot watch it.
    fn sleeper(&self) -> io::Result<Sleep>;

    /// Lets completions wake the worker. Returns `false` if there is something to do first.
    fn prepare_to_sleep(&mut self) -> bool;

    /// Tells the driver that the worker is awake again.
    fn wake_up(&mut self);
}
