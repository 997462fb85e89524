//! A readiness list over epoll: tokens in, ready tokens out. Not an event loop; callers loop.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// How many ready sockets one wait can report.
const READY_MAX: usize = 256;

/// An epoll instance whose entries are readable, level-triggered, and named by a number.
pub struct Epoll {
    fd: OwnedFd,
    ready: Vec<libc::epoll_event>,
}

impl Epoll {
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: takes a flag and returns a new descriptor or -1; no memory is involved.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just returned by epoll_create1 and nothing else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Epoll { fd, ready: vec![libc::epoll_event { events: 0, u64: 0 }; READY_MAX] })
    }

    pub fn add(&self, socket: &impl AsRawFd, token: usize) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: token as u64 };
        // SAFETY: both descriptors are open (borrowed from their owners), `event` lives through the call.
        let result = unsafe {
            libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_ADD, socket.as_raw_fd(), &raw mut event)
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits until a socket is readable or the time is over; fills `tokens` with the ready ones.
    pub fn wait(&mut self, timeout: Duration, tokens: &mut Vec<usize>) -> io::Result<()> {
        tokens.clear();
        // The nanosecond variant: a paced sender must wake up between two milliseconds.
        let limit = libc::timespec {
            tv_sec: timeout.as_secs().min(3600) as libc::time_t,
            tv_nsec: timeout.subsec_nanos().into(),
        };
        // SAFETY: `ready` holds READY_MAX initialised events, `limit` lives through the call, no signal mask.
        let count = unsafe {
            libc::epoll_pwait2(
                self.fd.as_raw_fd(),
                self.ready.as_mut_ptr(),
                READY_MAX as libc::c_int,
                &raw const limit,
                std::ptr::null(),
            )
        };
        if count < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) };
        }
        tokens.extend(self.ready[..count as usize].iter().map(|event| event.u64 as usize));
        Ok(())
    }
}
