//! The io_uring that carries all sockets of one worker.
//!
//! tokio-uring has neither multishot receive nor provided buffers nor deferred task work, so the sockets get a ring of
//! their own beside the runtime's (`docs/architecture.md` has the measurements). One `enter` per turn submits what the
//! turn queued and reaps what has completed:
//!
//! * **Receive** is armed once per connection and then goes on by itself. The kernel picks a buffer from a ring of
//!   provided buffers, which is backed by the [`BufferSlab`], when bytes arrive; an idle connection has none.
//! * **Send** takes the output where it lies: one at a time per connection, with all segments there are. `MSG_WAITALL`
//!   makes the kernel finish it, so a completion short of the whole means the connection is dead.
//! * **Accept** is a poll of what watches the listener, which itself stays out of the ring (see [`super::listener`]).
//!
//! The eventfd that wakes the worker is silenced while the worker is awake.
//!
//! # What the kernel may touch, and until when
//!
//! A receive buffer belongs to the kernel until its completion is reaped, and again after [`SocketDriver::recycle`]. The
//! bytes of a send belong to the kernel until its completion is reaped; `Output` keeps them in place for so long. A
//! descriptor is closed only when neither a receive nor a send is under way ([`SocketDriver::is_quiet`]).

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::{BufRingEntry, Fd};
use io_uring::{IoUring, cqueue, opcode, squeue};

use super::listener::Listener;
use super::socket_driver::{
    ACCEPTS_MAX, BUFFER_LEN, BUFFERS, Completion, PLANS_KEPT_MAX, SEND_SLICES_MAX, SocketDriver,
};
use super::wake::{Sleep, Waker};
use crate::base::buffer_slab::{BufferSlab, Lease};

/// Operations that one turn can queue before it has to submit them.
const SUBMISSIONS: u32 = 4096;

/// Completions that may wait to be reaped.
const COMPLETIONS: u32 = 32 * 1024;

const BUFFER_GROUP: u16 = 0;

/// Why there is no io_uring to be had.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The kernel lacks a feature.
    #[error("this kernel's io_uring lacks {0}: it takes Linux 6.1 or newer")]
    TooOld(&'static str),
    /// Not allowed to use it.
    #[error(
        "io_uring is refused ({0}): check that the sysctl kernel.io_uring_disabled is 0 and that the container's \
         seccomp profile allows io_uring_setup, io_uring_enter and io_uring_register"
    )]
    Refused(io::Error),
    /// Kernels count the memory of an io_uring as locked, if not all of them.
    #[error(
        "io_uring is refused its memory ({0}): check the limit on locked memory (ulimit -l, LimitMEMLOCK=), of which \
         every worker takes about 1 MiB"
    )]
    NoMemory(io::Error),
    /// Anything else.
    #[error("io_uring cannot be set up: {0}")]
    Other(io::Error),
}

impl RingError {
    /// What a failed `io_uring_setup` means.
    pub fn at_setup(error: io::Error) -> RingError {
        RingError::new(error, "deferred task work")
    }

    /// What a failed call means, if it is not understood for lack of `feature`.
    fn new(error: io::Error, feature: &'static str) -> RingError {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => RingError::Refused(error),
            Some(libc::EINVAL) => RingError::TooOld(feature),
            Some(libc::ENOMEM) => RingError::NoMemory(error),
            _ => RingError::Other(error),
        }
    }
}

/// Sets up the two rings of a worker, the runtime's and its own, and makes the calls that may be refused each for itself.
/// To be called on the worker's thread.
///
/// # Errors
///
/// See [`RingError`].
pub fn set_up(waker: &Waker) -> Result<(tokio_uring::Runtime, SocketRing), RingError> {
    let runtime = tokio_uring::Runtime::new(&tokio_uring::builder()).map_err(RingError::at_setup)?;
    let mut ring = SocketRing::new(waker)?;
    ring.enter().map_err(RingError::at_setup)?;
    Ok((runtime, ring))
}

/// One connection's socket.
#[derive(Debug)]
struct Socket {
    fd: OwnedFd,
    receiving: bool,
    /// A cancellation of the receive is under way.
    stopping: bool,
    sending: Option<Box<SendPlan>>,
    sending_since_ms: u64,
    shut: bool,
    /// A send has failed.
    broken: bool,
}

/// What a vectored send points at; it stays in place until the send is over.
#[derive(Debug)]
struct SendPlan {
    header: libc::msghdr,
    slices: [libc::iovec; SEND_SLICES_MAX],
}

/// The ring and its sockets. It belongs to one thread.
pub struct SocketRing {
    ring: IoUring,
    buffers: BufferSlab,
    provided: ProvidedBuffers,
    sockets: Vec<Option<Socket>>,
    /// Plans for reuse, boxed because the kernel is given their address.
    #[expect(clippy::vec_box, reason = "a plan moves between here and its socket, and must stay in place")]
    plans: Vec<Box<SendPlan>>,
    listener: Option<Listener>,
    waker: Waker,
    sends_in_flight: usize,
    eventfd_enabled: bool,
}

impl SocketRing {
    /// A ring that wakes the worker by `waker`. To be called on the thread that will use it.
    ///
    /// # Errors
    ///
    /// See [`RingError`].
    pub fn new(waker: &Waker) -> Result<SocketRing, RingError> {
        let mut ring: IoUring = IoUring::builder()
            .setup_cqsize(COMPLETIONS)
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .build(SUBMISSIONS)
            .map_err(RingError::at_setup)?;
        let buffers = BufferSlab::new(usize::from(BUFFERS), BUFFER_LEN);
        let mut provided = ProvidedBuffers::new(BUFFERS);
        // SAFETY: the memory is the ring of `BUFFERS` entries that `provided` owns; it lives as long as the io_uring
        // (both are fields of the same value, and drop order is fixed below).
        unsafe {
            ring.submitter().register_buf_ring_with_flags(provided.address(), BUFFERS, BUFFER_GROUP, 0)
        }
        .map_err(|error| RingError::new(error, "provided buffer rings"))?;
        for index in 0..BUFFERS {
            provided.add(index, buffers.address(index), buffers.buffer_len());
        }
        provided.publish();
        ring.submitter().register_eventfd(waker.as_raw_fd()).map_err(RingError::Other)?;
        ring.completion().disable_eventfd();
        // One descriptor look-up less per call; not all kernels have it, none needs it.
        let _ = ring.submitter().register_ring_fd();
        Ok(SocketRing {
            ring,
            buffers,
            provided,
            sockets: Vec::new(),
            plans: Vec::new(),
            listener: None,
            waker: waker.clone(),
            sends_in_flight: 0,
            eventfd_enabled: false,
        })
    }
}

impl SocketDriver for SocketRing {
    fn accept_on(&mut self, listener: Listener) {
        self.listener = Some(listener);
        self.resume_accepting();
    }

    fn resume_accepting(&mut self) {
        if let Some(listener) = &self.listener {
            let entry = opcode::PollAdd::new(Fd(listener.watch_fd()), libc::POLLIN as u32).build();
            self.push(entry.user_data(UserData::pack(Operation::Accept, 0)));
        }
    }

    fn stop_accepting(&mut self) {
        if self.listener.take().is_some() {
            let entry = opcode::AsyncCancel::new(UserData::pack(Operation::Accept, 0)).build();
            self.push(entry.user_data(UserData::pack(Operation::Cancel, 0)));
        }
    }

    fn add(&mut self, conn: u32, fd: OwnedFd) {
        let at = conn as usize;
        if self.sockets.len() <= at {
            self.sockets.resize_with(at + 1, || None);
        }
        assert!(self.sockets[at].is_none());
        self.sockets[at] = Some(Socket {
            fd,
            receiving: false,
            stopping: false,
            sending: None,
            sending_since_ms: 0,
            shut: false,
            broken: false,
        });
    }

    fn arm(&mut self, conn: u32) {
        let Some(socket) = &mut self.sockets[conn as usize] else { return };
        if socket.receiving || socket.shut {
            return;
        }
        socket.receiving = true;
        let fd = Fd(socket.fd.as_raw_fd());
        let entry = opcode::RecvMulti::new(fd, BUFFER_GROUP).build();
        self.push(entry.user_data(UserData::pack(Operation::Receive, conn)));
    }

    fn stop(&mut self, conn: u32) {
        let Some(socket) = &mut self.sockets[conn as usize] else { return };
        if !socket.receiving || socket.stopping {
            return;
        }
        socket.stopping = true;
        let entry = opcode::AsyncCancel::new(UserData::pack(Operation::Receive, conn)).build();
        self.push(entry.user_data(UserData::pack(Operation::Cancel, conn)));
    }

    fn send<'a>(&mut self, conn: u32, slices: impl Iterator<Item = &'a [u8]>, now_ms: u64) {
        let mut plan = self.plans.pop().unwrap_or_else(SendPlan::new);
        let mut count = 0;
        for slice in slices {
            plan.slices[count] =
                libc::iovec { iov_base: slice.as_ptr().cast_mut().cast(), iov_len: slice.len() };
            count += 1;
        }
        assert!(count > 0);
        let socket = self.sockets[conn as usize].as_mut().expect("only live connections send");
        assert!(socket.sending.is_none());
        let fd = Fd(socket.fd.as_raw_fd());
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        let entry = if count == 1 {
            let slice = plan.slices[0];
            opcode::Send::new(fd, slice.iov_base.cast(), slice.iov_len as u32).flags(flags).build()
        } else {
            plan.header.msg_iov = plan.slices.as_mut_ptr();
            plan.header.msg_iovlen = count as _;
            opcode::SendMsg::new(fd, &raw const plan.header).flags(flags as u32).build()
        };
        socket.sending = Some(plan);
        socket.sending_since_ms = now_ms;
        self.sends_in_flight += 1;
        self.push(entry.user_data(UserData::pack(Operation::Send, conn)));
    }

    #[inline]
    fn is_sending(&self, conn: u32) -> bool {
        self.sockets[conn as usize].as_ref().is_some_and(|socket| socket.sending.is_some())
    }

    fn sends_in_flight(&self) -> usize {
        self.sends_in_flight
    }

    fn sending_since_before(&self, ms: u64) -> Vec<u32> {
        let late = |socket: &Socket| socket.sending.is_some() && socket.sending_since_ms < ms && !socket.shut;
        (0u32..)
            .zip(&self.sockets)
            .filter(|(_, socket)| socket.as_ref().is_some_and(late))
            .map(|(conn, _)| conn)
            .collect()
    }

    fn shut_down(&mut self, conn: u32) {
        let Some(socket) = &mut self.sockets[conn as usize] else { return };
        if !std::mem::replace(&mut socket.shut, true) {
            // SAFETY: a plain call on an open descriptor. It fails only if the peer has ended it before.
            unsafe { libc::shutdown(socket.fd.as_raw_fd(), libc::SHUT_RDWR) };
        }
    }

    fn is_shut(&self, conn: u32) -> bool {
        self.sockets[conn as usize].as_ref().is_none_or(|socket| socket.shut)
    }

    fn is_ended(&self, conn: u32) -> bool {
        self.sockets[conn as usize].as_ref().is_none_or(|socket| socket.shut || socket.broken)
    }

    fn is_quiet(&self, conn: u32) -> bool {
        self.sockets[conn as usize]
            .as_ref()
            .is_none_or(|socket| !socket.receiving && socket.sending.is_none())
    }

    fn release(&mut self, conn: u32) -> OwnedFd {
        assert!(self.is_quiet(conn));
        self.sockets[conn as usize].take().expect("only live connections are released").fd
    }

    fn bytes<'a>(&'a self, lease: &'a Lease) -> &'a [u8] {
        self.buffers.bytes(lease)
    }

    fn bytes_mut<'a>(&'a mut self, lease: &'a mut Lease) -> &'a mut [u8] {
        self.buffers.bytes_mut(lease)
    }

    fn recycle(&mut self, lease: Lease) {
        let index = self.buffers.release(lease);
        self.provided.add(index, self.buffers.address(index), self.buffers.buffer_len());
        self.provided.publish();
    }

    fn leased_count(&self) -> usize {
        self.buffers.leased_count()
    }

    fn buffer_count(&self) -> usize {
        self.buffers.count()
    }

    fn turn(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
        let queued = self.ring.submission();
        if !queued.is_empty() || queued.taskrun() || queued.cq_overflow() {
            drop(queued);
            self.enter()?;
        } else {
            drop(queued);
        }
        self.reap(completions);
        Ok(())
    }

    fn sleeper(&self) -> io::Result<Sleep> {
        self.waker.sleeper()
    }

    fn prepare_to_sleep(&mut self) -> bool {
        if !self.eventfd_enabled {
            self.eventfd_enabled = true;
            self.ring.completion().enable_eventfd();
            std::sync::atomic::fence(Ordering::SeqCst);
        }
        let has_completions = !self.ring.completion().is_empty();
        let queued = self.ring.submission();
        !has_completions && queued.is_empty() && !queued.taskrun() && !queued.cq_overflow()
    }

    fn wake_up(&mut self) {
        if self.eventfd_enabled {
            self.eventfd_enabled = false;
            self.ring.completion().disable_eventfd();
        }
    }
}

impl SocketRing {
    fn enter(&mut self) -> io::Result<()> {
        loop {
            let to_submit = self.ring.submission().len() as u32;
            // With deferred task work, completions are only produced by a call that asks for events.
            const GETEVENTS: u32 = 1;
            // SAFETY: all queued operations point at memory that stays valid until they complete (see the header).
            let entered =
                unsafe { self.ring.submitter().enter::<libc::sigset_t>(to_submit, 0, GETEVENTS, None) };
            match entered {
                Ok(submitted) if submitted < to_submit as usize => {}
                Ok(_) => return Ok(()),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    // Too many completions wait: reap them first, the next turn submits the rest.
                    Some(libc::EBUSY | libc::EAGAIN) => return Ok(()),
                    _ => return Err(error),
                },
            }
        }
    }

    fn reap(&mut self, completions: &mut Vec<Completion>) {
        let SocketRing { ring, buffers, sockets, plans, sends_in_flight, .. } = self;
        let mut accept = false;
        for entry in ring.completion() {
            let (operation, conn) = UserData::unpack(entry.user_data());
            let result = entry.result();
            match operation {
                Operation::Receive => {
                    let socket = sockets[conn as usize].as_mut().expect("a receive outlives its socket");
                    let more = cqueue::more(entry.flags());
                    if !more {
                        socket.receiving = false;
                        socket.stopping = false;
                    }
                    if result > 0 {
                        let index = cqueue::buffer_select(entry.flags()).expect("received into a buffer");
                        let lease = buffers.lease(index, result as usize);
                        completions.push(Completion::Received { conn, lease });
                        if !more {
                            completions.push(Completion::Stopped { conn });
                        }
                        continue;
                    }
                    match -result {
                        0 => completions.push(Completion::Ended { conn, error: None }),
                        libc::ENOBUFS | libc::ECANCELED => completions.push(Completion::Stopped { conn }),
                        code => {
                            let error = Some(io::Error::from_raw_os_error(code));
                            completions.push(Completion::Ended { conn, error });
                        }
                    }
                }
                Operation::Send => {
                    let socket = sockets[conn as usize].as_mut().expect("a send outlives its socket");
                    plans.push(socket.sending.take().expect("one send was under way"));
                    plans.truncate(PLANS_KEPT_MAX);
                    *sends_in_flight -= 1;
                    socket.broken |= result <= 0;
                    let result = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
                    completions.push(Completion::Sent { conn, result });
                }
                Operation::Accept => accept = true,
                Operation::Cancel => {}
            }
        }
        if accept {
            self.accept(completions);
        }
    }

    fn accept(&mut self, completions: &mut Vec<Completion>) {
        let Some(listener) = &self.listener else { return };
        for _ in 0..ACCEPTS_MAX {
            match listener.accept() {
                Ok(Some((fd, entrance))) => completions.push(Completion::Accepted { fd, entrance }),
                Ok(None) => break,
                Err(error) => return completions.push(Completion::AcceptStopped { error }),
            }
        }
        self.resume_accepting();
    }

    fn push(&mut self, entry: squeue::Entry) {
        // SAFETY: what the entry points at stays valid until its completion (see the header).
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            // A full queue is submitted on the spot; completions wait in their own queue.
            if let Err(error) = self.ring.submit()
                && !matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN))
            {
                panic!("the socket ring is broken: {error}");
            }
        }
    }
}

impl SendPlan {
    fn new() -> Box<SendPlan> {
        // SAFETY: both are plain C structures for which all zeroes is an empty value.
        unsafe { Box::new(std::mem::zeroed()) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Operation {
    Receive = 1,
    Send,
    Accept,
    Cancel,
}

/// What an operation is called on its way through the kernel: its kind and its connection. A slot is not reused while
/// the kernel holds anything of it, so no more is needed.
struct UserData;

impl UserData {
    fn pack(operation: Operation, conn: u32) -> u64 {
        (operation as u64) << 32 | u64::from(conn)
    }

    fn unpack(data: u64) -> (Operation, u32) {
        let operation = match data >> 32 {
            1 => Operation::Receive,
            2 => Operation::Send,
            3 => Operation::Accept,
            4 => Operation::Cancel,
            other => unreachable!("no operation has the number {other}"),
        };
        (operation, data as u32)
    }
}

/// The ring by which read buffers are given to the kernel.
struct ProvidedBuffers {
    entries: NonNull<BufRingEntry>,
    layout: Layout,
    mask: u16,
    tail: u16,
}

impl ProvidedBuffers {
    fn new(count: u16) -> ProvidedBuffers {
        assert!(count.is_power_of_two());
        let layout = Layout::from_size_align(usize::from(count) * size_of::<BufRingEntry>(), 4096)
            .expect("a small power of two");
        // SAFETY: the layout has a size above zero.
        let entries = unsafe { alloc_zeroed(layout) };
        let Some(entries) = NonNull::new(entries.cast()) else { handle_alloc_error(layout) };
        ProvidedBuffers { entries, layout, mask: count - 1, tail: 0 }
    }

    fn address(&self) -> u64 {
        self.entries.as_ptr() as u64
    }

    fn add(&mut self, index: u16, address: *mut u8, len: usize) {
        // SAFETY: the masked position is inside the ring, and the kernel reads it only after `publish`.
        let entry = unsafe { &mut *self.entries.as_ptr().add(usize::from(self.tail & self.mask)) };
        entry.set_addr(address as u64);
        entry.set_len(len as u32);
        entry.set_bid(index);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&mut self) {
        // SAFETY: the tail is a 16-bit field of the first entry that the kernel reads and only we write.
        let tail = unsafe { &*BufRingEntry::tail(self.entries.as_ptr()).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for ProvidedBuffers {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, freed once. The ring that knew it is gone: `SocketRing` drops its
        // fields in order, the io_uring first.
        unsafe { dealloc(self.entries.as_ptr().cast(), self.layout) };
    }
}
