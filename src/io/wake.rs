//! How a worker sleeps, and how others wake it: one eventfd, written by other threads when they have something for the
//! worker, and by the kernel when its socket ring has. The worker's runtime awaits it, or what watches it (see
//! [`super::socket_poll`]).
//!
//! The eventfd is never read. It is waited for edge-triggered, and every write is an edge.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Wakes one worker. Cheap to clone; any thread may use it.
#[derive(Debug, Clone)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// A new one.
    ///
    /// # Errors
    ///
    /// No descriptor left.
    pub fn new() -> io::Result<Waker> {
        // SAFETY: a plain call; the result is checked.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just opened and belongs to nobody else.
        Ok(Waker(Arc::new(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// Wakes the worker, now or when it next goes to sleep.
    pub fn wake(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight readable bytes. It can fail only when the counter is at its end, and then the edge that
        // brought it there has not been seen yet.
        let _ = unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// The descriptor, to register with a ring.
    pub fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// The sleeping side. To be called inside the worker's runtime.
    ///
    /// # Errors
    ///
    /// The runtime cannot watch the descriptor.
    pub fn sleeper(&self) -> io::Result<Sleep> {
        Sleep::on(self.0.clone())
    }
}

/// What a sleeping worker waits for.
#[derive(Debug)]
pub struct Sleep(AsyncFd<Arc<OwnedFd>>);

impl Sleep {
    /// Waits for `fd` to become readable. To be called inside the worker's runtime.
    ///
    /// # Errors
    ///
    /// The runtime cannot watch the descriptor.
    pub fn on(fd: Arc<OwnedFd>) -> io::Result<Sleep> {
        // SAFETY: the descriptor stays open as long as the `AsyncFd`, which holds a reference to its owner.
        let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
        watched.map(Sleep).map_err(|error| error.into_parts().1)
    }

    /// Waits for the next wake-up since the last call.
    pub async fn wait(&self) {
        if let Ok(mut ready) = self.0.readable().await {
            ready.clear_ready();
        }
    }
}
