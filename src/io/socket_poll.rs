//! The epoll that carries all sockets of one worker, where io_uring is refused (see [`super::socket_ring`]).
//!
//! It promises what the ring promises, by other means. Every socket is watched once, edge-triggered and in both
//! directions, when it comes; an event is a note that a socket may be worth a call, never more, so a stale one costs a
//! call that says `EAGAIN`. All calls are made in [`SocketDriver::turn`], none of them waits:
//!
//! * **Receive**: sockets that may have something stand in line. The first in line is read into a free buffer of the
//!   [`BufferSlab`] and, if there may be more, goes to the end of the line, until no buffer is free. So a turn reads no
//!   more than there are buffers, a socket that always has something takes turns with the others, and one that finds no
//!   buffer keeps its place: unlike the ring, this driver reports [`Completion::Stopped`] only when it was asked to
//!   stop. A read that leaves room in its buffer has emptied the socket (`epoll(7)`); the next bytes are a new event.
//! * **Send**: what the kernel does not take at once is kept, as a list of slices, until the socket has room again, and
//!   reported as one [`Completion::Sent`] when all of it is gone.
//! * **Accept**: the listener is watched level-triggered, so that what one turn leaves waiting is found by the next.
//!
//! # Sleeping
//!
//! The runtime watches the epoll itself, and the epoll watches the worker's eventfd beside its sockets. That the
//! runtime waits edge-triggered for it is sound because a worker sleeps only after a look that found no event left
//! behind ([`SocketDriver::prepare_to_sleep`]): each later event is an edge.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use super::listener::Listener;
use super::socket_driver::{
    ACCEPTS_MAX, BUFFER_LEN, BUFFERS, Completion, PLANS_KEPT_MAX, SEND_SLICES_MAX, SocketDriver,
};
use super::wake::{Sleep, Waker};
use crate::base::buffer_slab::{BufferSlab, Lease};

/// Events taken in one look; the rest waits for the next turn.
const EVENTS_MAX: usize = 1024;

/// What events carry that are of no socket. Those of sockets carry the connection, which has 32 bits.
const LISTENER_EVENT: u64 = u64::MAX;
const WAKER_EVENT: u64 = u64::MAX - 1;

/// What a socket is watched for.
const SOCKET_EVENTS: u32 = (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET) as u32;

/// The bits of an event after which a read may bring something, an end included.
const READABLE: u32 = (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32;

/// Those after which a send that waits for room may go on, or fail.
const WRITABLE: u32 = (libc::EPOLLOUT | libc::EPOLLHUP | libc::EPOLLERR) as u32;

/// Those after which an end is to be read, so that a short read does not mean there is nothing more.
const HUNG_UP: u32 = (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32;

/// One connection's socket.
#[derive(Debug)]
struct Socket {
    fd: OwnedFd,
    receiving: bool,
    /// Receiving is to end; the next turn reports it.
    stopping: bool,
    /// There may be something to read.
    readable: bool,
    /// It stands in line to be read.
    in_line: bool,
    /// The peer has ended, or the connection broke.
    hung_up: bool,
    sending: Option<Box<SendPlan>>,
    /// The send waits for room in the socket.
    blocked: bool,
    sending_since_ms: u64,
    shut: bool,
    /// A send has failed.
    broken: bool,
}

/// A send and how far it has come.
#[derive(Debug)]
struct SendPlan {
    slices: [libc::iovec; SEND_SLICES_MAX],
    /// The slices that are not sent to their end.
    left: std::ops::Range<usize>,
    sent: usize,
}

/// The epoll and its sockets. It belongs to one thread.
pub struct SocketPoll {
    epoll: Arc<OwnedFd>,
    events: Vec<libc::epoll_event>,
    /// The last look took all events that there were.
    drained: bool,
    buffers: BufferSlab,
    /// Buffers that are not leased. The last one given back is taken first: it is still in the cache.
    free: Vec<u16>,
    sockets: Vec<Option<Socket>>,
    /// The line of sockets to be read. Each stands in it once at most.
    line: VecDeque<u32>,
    /// Sends that the next turn tries.
    sends: Vec<u32>,
    /// Sockets whose receiving ends with the next turn.
    stops: Vec<u32>,
    /// Sockets that could not be watched, to be reported as broken.
    unwatched: Vec<(u32, io::Error)>,
    /// Plans for reuse.
    #[expect(clippy::vec_box, reason = "a plan is a kilobyte: it moves by its address")]
    plans: Vec<Box<SendPlan>>,
    listener: Option<Listener>,
    /// The listener is watched.
    accepting: bool,
    /// Connections may wait to be accepted.
    acceptable: bool,
    /// Why the listener could not be watched, to be reported.
    accept_error: Option<io::Error>,
    sends_in_flight: usize,
    /// Kept because the epoll watches it.
    _waker: Waker,
}

impl SocketPoll {
    /// An epoll that a sleeping worker can wait for, and that `waker` interrupts.
    ///
    /// # Errors
    ///
    /// No descriptor or memory left.
    pub fn new(waker: &Waker) -> io::Result<SocketPoll> {
        // SAFETY: a plain call; the result is checked.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just opened and belongs to nobody else.
        let epoll = Arc::new(unsafe { OwnedFd::from_raw_fd(fd) });
        // The eventfd is never read, and every write to it is an edge.
        watch(&epoll, waker.as_raw_fd(), (libc::EPOLLIN | libc::EPOLLET) as u32, WAKER_EVENT)?;
        Ok(SocketPoll {
            epoll,
            events: Vec::with_capacity(EVENTS_MAX),
            drained: false,
            buffers: BufferSlab::new(usize::from(BUFFERS), BUFFER_LEN),
            free: (0..BUFFERS).rev().collect(),
            sockets: Vec::new(),
            line: VecDeque::new(),
            sends: Vec::new(),
            stops: Vec::new(),
            unwatched: Vec::new(),
            plans: Vec::new(),
            listener: None,
            accepting: false,
            acceptable: false,
            accept_error: None,
            sends_in_flight: 0,
            _waker: waker.clone(),
        })
    }
}

impl SocketDriver for SocketPoll {
    fn accept_on(&mut self, listener: Listener) {
        self.listener = Some(listener);
        self.resume_accepting();
    }

    fn resume_accepting(&mut self) {
        let Some(listener) = &self.listener else { return };
        if self.accepting {
            return;
        }
        match watch(&self.epoll, listener.watch_fd(), libc::EPOLLIN as u32, LISTENER_EVENT) {
            Ok(()) => self.accepting = true,
            Err(error) => self.accept_error = Some(error),
        }
    }

    fn stop_accepting(&mut self) {
        self.unwatch_listener();
        self.listener = None;
    }

    fn add(&mut self, conn: u32, fd: OwnedFd) {
        let at = conn as usize;
        if self.sockets.len() <= at {
            self.sockets.resize_with(at + 1, || None);
        }
        assert!(self.sockets[at].is_none());
        // What there is to read already is an event too.
        let watched = watch(&self.epoll, fd.as_raw_fd(), SOCKET_EVENTS, u64::from(conn));
        let mut socket = Socket {
            fd,
            receiving: false,
            stopping: false,
            readable: false,
            in_line: false,
            hung_up: false,
            sending: None,
            blocked: false,
            sending_since_ms: 0,
            shut: false,
            broken: false,
        };
        if let Err(error) = watched {
            (socket.receiving, socket.stopping) = (true, true);
            self.unwatched.push((conn, error));
        }
        self.sockets[at] = Some(socket);
    }

    fn arm(&mut self, conn: u32) {
        let Some(socket) = &mut self.sockets[conn as usize] else { return };
        if socket.receiving || socket.shut {
            return;
        }
        socket.receiving = true;
        queue_up(socket, conn, &mut self.line);
    }

    fn stop(&mut self, conn: u32) {
        let Some(socket) = &mut self.sockets[conn as usize] else { return };
        if socket.receiving && !socket.stopping {
            socket.stopping = true;
            self.stops.push(conn);
        }
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
        (plan.left, plan.sent) = (0..count, 0);
        let socket = self.sockets[conn as usize].as_mut().expect("only live connections send");
        assert!(socket.sending.is_none());
        socket.sending = Some(plan);
        socket.sending_since_ms = now_ms;
        self.sends_in_flight += 1;
        self.sends.push(conn);
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
        if std::mem::replace(&mut socket.shut, true) {
            return;
        }
        // SAFETY: a plain call on an open descriptor. It fails only if the peer has ended it before.
        unsafe { libc::shutdown(socket.fd.as_raw_fd(), libc::SHUT_RDWR) };
        if socket.receiving && !socket.stopping {
            socket.stopping = true;
            self.stops.push(conn);
        }
        if socket.sending.is_some() {
            self.sends.push(conn);
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
        let socket = self.sockets[conn as usize].take().expect("only live connections are released");
        if socket.in_line {
            self.line.retain(|other| *other != conn);
        }
        // It may go on living at another worker. Closing it would be enough otherwise.
        // SAFETY: both descriptors are open; the event is not looked at.
        unsafe {
            let fd = socket.fd.as_raw_fd();
            libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut());
        }
        socket.fd
    }

    fn bytes<'a>(&'a self, lease: &'a Lease) -> &'a [u8] {
        self.buffers.bytes(lease)
    }

    fn bytes_mut<'a>(&'a mut self, lease: &'a mut Lease) -> &'a mut [u8] {
        self.buffers.bytes_mut(lease)
    }

    fn recycle(&mut self, lease: Lease) {
        self.free.push(self.buffers.release(lease));
    }

    fn leased_count(&self) -> usize {
        self.buffers.leased_count()
    }

    fn buffer_count(&self) -> usize {
        self.buffers.count()
    }

    fn turn(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
        self.look()?;
        let mut sends = std::mem::take(&mut self.sends);
        for conn in sends.drain(..) {
            self.try_send(conn, completions);
        }
        self.sends = sends;
        self.report_stops(completions);
        self.read(completions);
        self.accept(completions);
        Ok(())
    }

    fn sleeper(&self) -> io::Result<Sleep> {
        Sleep::on(self.epoll.clone())
    }

    fn prepare_to_sleep(&mut self) -> bool {
        // A line without a free buffer moves when one is given back, which only the worker does.
        self.drained
            && self.sends.is_empty()
            && self.stops.is_empty()
            && self.unwatched.is_empty()
            && self.accept_error.is_none()
            && !self.acceptable
            && (self.line.is_empty() || self.free.is_empty())
    }

    fn wake_up(&mut self) {}
}

impl SocketPoll {
    /// Takes the events that there are and notes what they are worth.
    fn look(&mut self) -> io::Result<()> {
        // SAFETY: the vector has room for that many events, and the kernel says how many it has written.
        let count = unsafe {
            let count =
                libc::epoll_wait(self.epoll.as_raw_fd(), self.events.as_mut_ptr(), EVENTS_MAX as i32, 0);
            self.events.set_len(usize::try_from(count).unwrap_or(0));
            count
        };
        if count < 0 {
            self.drained = false;
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) };
        }
        self.drained = self.events.len() < EVENTS_MAX;
        for event in &self.events {
            let (bits, of) = (event.events, event.u64);
            match of {
                WAKER_EVENT => {}
                LISTENER_EVENT => self.acceptable = self.accepting,
                conn => {
                    let Some(socket) = &mut self.sockets[conn as usize] else { continue };
                    if bits & READABLE != 0 {
                        socket.readable = true;
                        socket.hung_up |= bits & HUNG_UP != 0;
                        queue_up(socket, conn as u32, &mut self.line);
                    }
                    if bits & WRITABLE != 0 && std::mem::take(&mut socket.blocked) {
                        self.sends.push(conn as u32);
                    }
                }
            }
        }
        Ok(())
    }

    /// Sends as much as the socket takes.
    fn try_send(&mut self, conn: u32, completions: &mut Vec<Completion>) {
        let socket = self.sockets[conn as usize].as_mut().expect("a send outlives its socket");
        // It may be here twice, once for itself and once because the socket was shut.
        let Some(plan) = &mut socket.sending else { return };
        let result = loop {
            match plan.send(socket.fd.as_raw_fd()) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => {
                    plan.advance(len);
                    if plan.left.is_empty() {
                        break Ok(plan.sent);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    socket.blocked = true;
                    return;
                }
                Err(error) => break Err(error),
            }
        };
        socket.blocked = false;
        socket.broken |= result.is_err();
        if self.plans.len() < PLANS_KEPT_MAX {
            self.plans.extend(socket.sending.take());
        } else {
            socket.sending = None;
        }
        self.sends_in_flight -= 1;
        completions.push(Completion::Sent { conn, result });
    }

    fn report_stops(&mut self, completions: &mut Vec<Completion>) {
        for conn in self.stops.drain(..) {
            let socket = self.sockets[conn as usize].as_mut().expect("a stop outlives its socket");
            (socket.receiving, socket.stopping) = (false, false);
            completions.push(if socket.shut {
                Completion::Ended { conn, error: None }
            } else {
                Completion::Stopped { conn }
            });
        }
        for (conn, error) in self.unwatched.drain(..) {
            let socket = self.sockets[conn as usize].as_mut().expect("a stop outlives its socket");
            (socket.receiving, socket.stopping) = (false, false);
            completions.push(Completion::Ended { conn, error: Some(error) });
        }
    }

    /// Reads the sockets in line, one buffer each, as long as there are buffers.
    fn read(&mut self, completions: &mut Vec<Completion>) {
        while let Some(&index) = self.free.last() {
            let Some(conn) = self.line.pop_front() else { return };
            let socket = self.sockets[conn as usize].as_mut().expect("who leaves leaves the line too");
            socket.in_line = false;
            if !socket.receiving || socket.stopping {
                continue;
            }
            let (fd, len) = (socket.fd.as_raw_fd(), self.buffers.buffer_len());
            // SAFETY: the buffer is inside the slab, has that length, and is free: nobody reads it.
            let received =
                unsafe { libc::recv(fd, self.buffers.address(index).cast(), len, libc::MSG_DONTWAIT) };
            if let Ok(received @ 1..) = usize::try_from(received) {
                self.free.pop();
                let lease = self.buffers.lease(index, received);
                completions.push(Completion::Received { conn, lease });
                socket.readable = received == len || socket.hung_up;
                queue_up(socket, conn, &mut self.line);
                continue;
            }
            let error = (received < 0).then(io::Error::last_os_error);
            match error.as_ref().map(io::Error::kind) {
                Some(io::ErrorKind::WouldBlock) => socket.readable = false,
                Some(io::ErrorKind::Interrupted) => queue_up(socket, conn, &mut self.line),
                _ => {
                    socket.receiving = false;
                    completions.push(Completion::Ended { conn, error });
                }
            }
        }
    }

    fn accept(&mut self, completions: &mut Vec<Completion>) {
        if let Some(error) = self.accept_error.take() {
            completions.push(Completion::AcceptStopped { error });
        }
        if !std::mem::take(&mut self.acceptable) {
            return;
        }
        let Some(listener) = &self.listener else { return };
        for _ in 0..ACCEPTS_MAX {
            match listener.accept() {
                Ok(Some((fd, entrance))) => completions.push(Completion::Accepted { fd, entrance }),
                Ok(None) => return,
                Err(error) => {
                    self.unwatch_listener();
                    return completions.push(Completion::AcceptStopped { error });
                }
            }
        }
    }

    fn unwatch_listener(&mut self) {
        if let Some(listener) = &self.listener
            && std::mem::take(&mut self.accepting)
        {
            // SAFETY: both descriptors are open; removing needs no event. It cannot fail for what is watched.
            unsafe {
                libc::epoll_ctl(
                    self.epoll.as_raw_fd(),
                    libc::EPOLL_CTL_DEL,
                    listener.watch_fd(),
                    std::ptr::null_mut(),
                )
            };
        }
        self.acceptable = false;
    }
}

/// Puts a socket in line that is to be read and may have something.
fn queue_up(socket: &mut Socket, conn: u32, line: &mut VecDeque<u32>) {
    if socket.readable && socket.receiving && !socket.in_line {
        socket.in_line = true;
        line.push_back(conn);
    }
}

fn watch(epoll: &OwnedFd, fd: RawFd, events: u32, data: u64) -> io::Result<()> {
    let mut event = libc::epoll_event { events, u64: data };
    // SAFETY: both descriptors are open, and the event is live for the call.
    match unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

impl SendPlan {
    fn new() -> Box<SendPlan> {
        let empty = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Box::new(SendPlan { slices: [empty; SEND_SLICES_MAX], left: 0..0, sent: 0 })
    }

    /// One call with all that is left.
    fn send(&mut self, fd: RawFd) -> io::Result<usize> {
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        let slices = &mut self.slices[self.left.clone()];
        let sent = if let [slice] = slices {
            // SAFETY: whoever asked for the send keeps its bytes in place until it is reported.
            unsafe { libc::send(fd, slice.iov_base, slice.iov_len, flags) }
        } else {
            // SAFETY: a plain C structure for which all zeroes is an empty value.
            let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
            header.msg_iov = slices.as_mut_ptr();
            header.msg_iovlen = slices.len() as _;
            // SAFETY: as above; the header and the slices are live for the call.
            unsafe { libc::sendmsg(fd, &raw const header, flags) }
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    fn advance(&mut self, mut len: usize) {
        self.sent += len;
        for slice in &mut self.slices[self.left.clone()] {
            if len < slice.iov_len {
                // SAFETY: `len` is inside the slice.
                slice.iov_base = unsafe { slice.iov_base.cast::<u8>().add(len) }.cast();
                slice.iov_len -= len;
                break;
            }
            len -= slice.iov_len;
            self.left.start += 1;
        }
    }
}

/// What only this driver does; what it has in common with the ring is tested in `socket_driver`.
#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn open(poll: &mut SocketPoll, conn: u32) -> UnixStream {
        let (peer, ours) = UnixStream::pair().unwrap();
        peer.set_nonblocking(true).unwrap();
        poll.add(conn, ours.into());
        poll.arm(conn);
        peer
    }

    fn new() -> SocketPoll {
        SocketPoll::new(&Waker::new().unwrap()).unwrap()
    }

    /// Fills the socket, which holds several buffers' worth.
    fn fill(mut peer: &UnixStream) {
        while peer.write(&[b'x'; BUFFER_LEN]).is_ok() {}
    }

    /// The connections whose bytes one turn brought, in order, and their leases.
    fn turn(poll: &mut SocketPoll) -> (Vec<u32>, Vec<Lease>) {
        let mut completions = Vec::new();
        poll.turn(&mut completions).unwrap();
        let received = completions.into_iter().filter_map(|completion| match completion {
            Completion::Received { conn, lease } => Some((conn, lease)),
            _ => None,
        });
        received.unzip()
    }

    #[test]
    fn sockets_with_more_to_read_take_turns() {
        let mut poll = new();
        let peers: Vec<UnixStream> = (0..3).map(|conn| open(&mut poll, conn)).collect();
        fill(&peers[0]);
        (&peers[1]).write_all(b"?").unwrap();
        fill(&peers[2]);
        let (order, leases) = turn(&mut poll);
        let first: std::collections::HashSet<u32> = order[..3].iter().copied().collect();
        assert_eq!(first.len(), 3, "{order:?}");
        let longest_run = order.chunk_by(|one, other| one == other).map(<[u32]>::len).max();
        assert!(longest_run <= Some(2), "{order:?}");
        leases.into_iter().for_each(|lease| poll.recycle(lease));
    }

    #[test]
    fn who_finds_no_buffer_keeps_its_place_in_line() {
        let mut poll = new();
        let peers: Vec<UnixStream> = (0..4).map(|conn| open(&mut poll, conn)).collect();
        peers[..3].iter().for_each(fill);
        let (_, mut leases) = turn(&mut poll);
        assert_eq!(leases.len(), usize::from(BUFFERS));
        (&peers[3]).write_all(b"?").unwrap();
        assert!(turn(&mut poll).0.is_empty());
        assert!(poll.prepare_to_sleep(), "nothing can be read");
        let mut order = Vec::new();
        for _ in 0..4 {
            poll.recycle(leases.pop().unwrap());
            assert!(!poll.prepare_to_sleep(), "something can be read");
            let (conns, new) = turn(&mut poll);
            order.extend(conns);
            leases.extend(new);
        }
        order.sort_unstable();
        assert_eq!(order, [0, 1, 2, 3]);
        leases.into_iter().for_each(|lease| poll.recycle(lease));
    }

    #[test]
    fn who_leaves_leaves_the_line() {
        let mut poll = new();
        let peers: Vec<UnixStream> = (0..4).map(|conn| open(&mut poll, conn)).collect();
        peers.iter().for_each(fill);
        let (_, leases) = turn(&mut poll);
        assert_eq!(poll.line.len(), 4);
        poll.shut_down(1);
        poll.shut_down(3);
        let (_, more) = turn(&mut poll);
        assert!(more.is_empty());
        poll.remove(1);
        poll.remove(3);
        assert_eq!(poll.line.len(), 2);
        // One of the names is taken again before the line moves.
        let newcomer = open(&mut poll, 3);
        leases.into_iter().for_each(|lease| poll.recycle(lease));
        let (order, leases) = turn(&mut poll);
        assert!(!order.is_empty() && !order.contains(&1) && !order.contains(&3), "{order:?}");
        leases.into_iter().for_each(|lease| poll.recycle(lease));
        (&newcomer).write_all(b"?").unwrap();
        let (order, leases) = turn(&mut poll);
        assert!(order.contains(&3), "{order:?}");
        leases.into_iter().for_each(|lease| poll.recycle(lease));
    }

    /// Every new socket is an event, for it has room.
    #[test]
    fn after_a_look_that_may_have_left_events_behind_there_is_another_before_sleeping() {
        super::super::process::raise_limits().unwrap();
        let mut poll = new();
        let _peers: Vec<UnixStream> = (0..EVENTS_MAX as u32 + 1).map(|conn| open(&mut poll, conn)).collect();
        turn(&mut poll);
        assert!(!poll.prepare_to_sleep());
        turn(&mut poll);
        assert!(poll.prepare_to_sleep());
    }
}
