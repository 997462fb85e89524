//! What drives the sockets of one worker: the interface that [`super::socket_ring`] and, where
//! io_uring is refused, [`super::socket_poll`] implement.
//!
//! A driver is asked to receive, send and accept, and reports what came of it as [`Completion`]s, a turn at a time. It
//! belongs to one thread. The worker is generic over it, so that each driver's calls are compiled into a worker of
//! their own and nothing on the way of a message goes through a table.

use std::io;
use std::os::fd::OwnedFd;

use super::listener::{Entrance, Listener};
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
        /// Which way it has come.
        entrance: Entrance,
    },
    /// Accepting failed; resume it after a pause.
    AcceptStopped {
        /// Why.
        error: io::Error,
    },
}

/// The drivers that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// [`super::socket_ring`].
    Uring,
    /// [`super::socket_poll`].
    Epoll,
}

impl Driver {
    /// As the log calls it.
    pub fn name(self) -> &'static str {
        match self {
            Driver::Uring => "io_uring",
            Driver::Epoll => "epoll",
        }
    }
}

/// The sockets of one worker.
pub trait SocketDriver {
    /// Starts to accept connections on `listener`.
    fn accept_on(&mut self, listener: Listener);

    /// Goes on accepting after [`Completion::AcceptStopped`].
    fn resume_accepting(&mut self);

    /// Stops accepting and closes the listener.
    fn stop_accepting(&mut self);

    /// Takes a socket under the name `conn`. [`SocketDriver::arm`] starts to receive.
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
    fn remove(&mut self, conn: u32) {
        drop(self.release(conn));
    }

    /// Gives the socket of `conn` away, without closing it.
    ///
    /// # Panics
    ///
    /// If something of it is still under way, or there is none.
    fn release(&mut self, conn: u32) -> OwnedFd;

    /// The bytes of a lease.
    fn bytes<'a>(&'a self, lease: &'a Lease) -> &'a [u8];

    /// The bytes of a lease, to be changed in place.
    fn bytes_mut<'a>(&'a mut self, lease: &'a mut Lease) -> &'a mut [u8];

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

/// What a worker relies on, held for each driver. The ring is left out where the machine refuses io_uring.
#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io::{Read, Write};
    use std::net::{Shutdown, SocketAddr, TcpStream};
    use std::os::fd::{AsFd, AsRawFd};
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    use socket2::SockRef;

    use super::super::socket_poll::SocketPoll;
    use super::super::socket_ring::SocketRing;
    use super::super::wake::Waker;
    use super::*;

    /// Only a failure uses it up.
    const PATIENCE: Duration = Duration::from_secs(20);

    macro_rules! on_each_driver {
        ($($test:ident),* $(,)?) => {
            mod on_the_ring {
                $(#[test]
                fn $test() {
                    let waker = super::Waker::new().unwrap();
                    match super::SocketRing::new(&waker) {
                        Ok(ring) => super::$test(super::Driven::new(ring, waker)),
                        Err(error) => println!("SKIPPED {}: {error}", stringify!($test)),
                    }
                })*
            }
            mod on_epoll {
                $(#[test]
                fn $test() {
                    let waker = super::Waker::new().unwrap();
                    let poll = super::SocketPoll::new(&waker).unwrap();
                    super::$test(super::Driven::new(poll, waker));
                })*
            }
        };
    }

    on_each_driver! {
        bytes_arrive_in_order_in_buffers_that_come_back,
        a_send_that_the_socket_cannot_take_at_once_is_reported_once_and_whole,
        a_send_in_many_slices_arrives_in_order,
        a_reset_ends_receiving_and_fails_the_send_under_way,
        the_end_of_what_the_peer_sends_leaves_sending_as_it_was,
        nothing_is_received_between_stopping_and_arming,
        stopping_twice_or_at_the_end_reports_one_end,
        a_socket_that_always_has_bytes_leaves_room_for_the_others,
        without_free_buffers_nothing_is_received_and_nothing_lost,
        shutting_down_ends_what_is_under_way,
        late_sends_are_found,
        thousands_that_come_and_go_leave_nothing_behind,
        more_sockets_than_events_are_all_served,
        connections_are_accepted_until_that_is_stopped,
        a_sleeper_wakes_for_bytes_room_connections_and_others,
    }

    fn bytes_arrive_in_order_in_buffers_that_come_back<D: SocketDriver>(mut driven: Driven<D>) {
        let mut peer = driven.open(0);
        let mut sent = Vec::new();
        for round in 0..200u32 {
            let bytes = vec![round as u8; 1 + (round as usize * 613) % 40_000];
            peer.write_all(&bytes).unwrap();
            sent.extend_from_slice(&bytes);
            driven.receive_until(|driven| driven.received(0).len() == sent.len());
        }
        assert_eq!(driven.received(0), sent);
        assert_eq!(driven.driver.leased_count(), 0);
        assert!(!driven.driver.is_quiet(0));
    }

    fn a_send_that_the_socket_cannot_take_at_once_is_reported_once_and_whole<D: SocketDriver>(
        mut driven: Driven<D>,
    ) {
        let mut peer = driven.open(0);
        let bytes = pattern(3_000_000);
        driven.driver.send(0, bytes.chunks(1_000_000), 5);
        for _ in 0..100 {
            driven.turn();
        }
        assert_eq!((driven.driver.is_sending(0), driven.driver.sends_in_flight()), (true, 1));
        assert!(driven.sent.is_empty(), "nobody has read a byte");
        let mut arrived = vec![0; bytes.len()];
        peer.set_nonblocking(true).unwrap();
        let mut len = 0;
        driven.turn_until(|driven| {
            if let Ok(more) = peer.read(&mut arrived[len..]) {
                len += more;
            }
            len == bytes.len() && !driven.driver.is_sending(0)
        });
        assert!(arrived == bytes);
        assert_eq!(driven.sent_lens(0), [bytes.len()]);
        assert_eq!(driven.driver.sends_in_flight(), 0);
    }

    fn a_send_in_many_slices_arrives_in_order<D: SocketDriver>(mut driven: Driven<D>) {
        let mut peer = driven.open(0);
        let bytes = pattern(500_000);
        let mut arrived = vec![0; bytes.len()];
        for slice_len in [1, 700, 8_000] {
            let part = &bytes[..(slice_len * SEND_SLICES_MAX).min(bytes.len())];
            driven.driver.send(0, part.chunks(slice_len), 0);
            peer.set_nonblocking(true).unwrap();
            let mut len = 0;
            driven.turn_until(|driven| {
                if let Ok(more) = peer.read(&mut arrived[len..part.len()]) {
                    len += more;
                }
                len == part.len() && !driven.driver.is_sending(0)
            });
            assert!(arrived[..len] == *part, "slices of {slice_len}");
        }
    }

    fn a_reset_ends_receiving_and_fails_the_send_under_way<D: SocketDriver>(mut driven: Driven<D>) {
        let peer = driven.open_tcp(0);
        let bytes = pattern(16_000_000);
        driven.driver.send(0, std::iter::once(&bytes[..]), 0);
        driven.turn();
        assert!(driven.driver.is_sending(0));
        SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        driven.turn_until(|driven| !driven.driver.is_sending(0) && !driven.ended.is_empty());
        // What went out before may be counted first; then the next send fails.
        if driven.sent[0].1.is_ok() {
            driven.driver.send(0, std::iter::once(&bytes[..1]), 0);
            driven.turn_until(|driven| !driven.driver.is_sending(0));
        }
        assert!(driven.sent.last().unwrap().1.is_err());
        assert!(driven.driver.is_ended(0) && !driven.driver.is_shut(0));
        assert!(driven.driver.is_quiet(0));
        assert_eq!(driven.ended.len(), 1);
    }

    fn the_end_of_what_the_peer_sends_leaves_sending_as_it_was<D: SocketDriver>(mut driven: Driven<D>) {
        let mut peer = driven.open_tcp(0);
        peer.write_all(b"last words").unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        driven.receive_until(|driven| !driven.ended.is_empty());
        assert_eq!(driven.received(0), b"last words");
        assert!(driven.ended[0].1.is_none(), "{:?}", driven.ended);
        assert!(driven.driver.is_quiet(0) && !driven.driver.is_ended(0));
        driven.driver.send(0, std::iter::once(&b"farewell"[..]), 0);
        driven.turn_until(|driven| !driven.driver.is_sending(0));
        assert_eq!(driven.sent_lens(0), [8]);
        let mut arrived = [0; 8];
        peer.read_exact(&mut arrived).unwrap();
        assert_eq!(&arrived, b"farewell");
    }

    fn nothing_is_received_between_stopping_and_arming<D: SocketDriver>(mut driven: Driven<D>) {
        let mut peer = driven.open(0);
        for round in 0..50u8 {
            driven.turn();
            driven.driver.stop(0);
            driven.turn_until(|driven| !driven.stopped.is_empty());
            driven.take_bytes();
            assert!(driven.driver.is_quiet(0));
            let before = driven.received(0).len();
            peer.write_all(&[round; 100]).unwrap();
            for _ in 0..20 {
                driven.turn();
            }
            assert_eq!(driven.pending.len(), 0);
            driven.stopped.clear();
            driven.driver.arm(0);
            driven.receive_until(|driven| driven.received(0).len() == before + 100);
            assert!(driven.stopped.is_empty());
        }
    }

    fn stopping_twice_or_at_the_end_reports_one_end<D: SocketDriver>(mut driven: Driven<D>) {
        let peer = driven.open(0);
        driven.driver.stop(0);
        driven.driver.stop(0);
        driven.turn_until(|driven| driven.driver.is_quiet(0));
        driven.driver.stop(0);
        for _ in 0..20 {
            driven.turn();
        }
        assert_eq!((driven.stopped.len(), driven.ended.len()), (1, 0));
        drop(peer);
        driven.driver.arm(0);
        driven.driver.arm(0);
        driven.turn_until(|driven| driven.driver.is_quiet(0));
        assert_eq!((driven.stopped.len(), driven.ended.len()), (1, 1));
    }

    fn a_socket_that_always_has_bytes_leaves_room_for_the_others<D: SocketDriver>(mut driven: Driven<D>) {
        let (mut loud, mut quiet) = (driven.open(0), driven.open(1));
        loud.set_nonblocking(true).unwrap();
        let noise = vec![b'x'; 4 * BUFFER_LEN];
        for round in 0..200usize {
            // Its socket is full before each turn.
            while loud.write(&noise).is_ok() {}
            quiet.write_all(b"?").unwrap();
            let give_up = Instant::now() + PATIENCE;
            let mut turns = 0;
            while driven.received(1).len() <= round {
                assert!(Instant::now() < give_up, "the quiet one is not heard in round {round}");
                driven.turn();
                driven.take_bytes();
                turns += 1;
            }
            assert!(turns < 1_000, "{turns} turns until the quiet one was heard");
        }
        assert!(driven.received(0).len() > 200 * BUFFER_LEN);
    }

    fn without_free_buffers_nothing_is_received_and_nothing_lost<D: SocketDriver>(mut driven: Driven<D>) {
        let conns = 0..2 * u32::from(BUFFERS);
        let mut peers: Vec<UnixStream> = conns.clone().map(|conn| driven.open(conn)).collect();
        peers.iter_mut().for_each(|peer| peer.write_all(b"hello").unwrap());
        driven.turn_until(|driven| driven.driver.leased_count() == driven.driver.buffer_count());
        for _ in 0..20 {
            driven.turn();
        }
        assert_eq!(driven.pending.len(), usize::from(BUFFERS));
        driven.receive_until(|driven| conns.clone().all(|conn| driven.received(conn) == b"hello"));
        assert_eq!(driven.driver.leased_count(), 0);
    }

    fn shutting_down_ends_what_is_under_way<D: SocketDriver>(mut driven: Driven<D>) {
        let mut peers = [driven.open(0), driven.open(1), driven.open(2)];
        let bytes = pattern(3_000_000);
        driven.driver.send(0, std::iter::once(&bytes[..]), 0);
        driven.turn();
        // Stopped, sending not: nothing is under way.
        driven.driver.stop(2);
        driven.turn_until(|driven| driven.driver.is_quiet(2));
        for conn in 0..3 {
            driven.driver.shut_down(conn);
            driven.driver.shut_down(conn);
            assert!(driven.driver.is_shut(conn) && driven.driver.is_ended(conn));
            assert_eq!(driven.driver.is_quiet(conn), conn == 2);
            driven.driver.arm(conn);
        }
        assert!(driven.driver.sending_since_before(100).is_empty());
        driven.turn_until(|driven| (0..3).all(|conn| driven.driver.is_quiet(conn)));
        // Some of it may have been through already.
        assert!(driven.sent.iter().all(|(_, result)| !matches!(result, Ok(3_000_000))), "{:?}", driven.sent);
        assert_eq!((driven.sent.len(), driven.driver.sends_in_flight()), (1, 0));
        for (conn, peer) in peers.iter_mut().enumerate() {
            driven.driver.remove(conn as u32);
            peer.read_to_end(&mut Vec::new()).unwrap();
        }
    }

    fn late_sends_are_found<D: SocketDriver>(mut driven: Driven<D>) {
        let _peers = [driven.open(0), driven.open(1), driven.open(2)];
        let bytes = pattern(3_000_000);
        driven.driver.send(0, std::iter::once(&bytes[..]), 100);
        driven.driver.send(1, std::iter::once(&bytes[..]), 200);
        driven.driver.send(2, std::iter::once(&bytes[..1]), 100);
        driven.turn_until(|driven| !driven.driver.is_sending(2));
        assert_eq!(driven.driver.sending_since_before(100), [] as [u32; 0]);
        assert_eq!(driven.driver.sending_since_before(101), [0]);
        assert_eq!(driven.driver.sending_since_before(1_000), [0, 1]);
        (0..2).for_each(|conn| driven.driver.shut_down(conn));
        driven.turn_until(|driven| driven.driver.sends_in_flight() == 0);
    }

    fn thousands_that_come_and_go_leave_nothing_behind<D: SocketDriver>(mut driven: Driven<D>) {
        const AT_A_TIME: u32 = 50;
        let bytes = pattern(300_000);
        let mut inodes = Vec::new();
        for round in 0..60u32 {
            let mut peers: Vec<UnixStream> = (0..AT_A_TIME).map(|conn| driven.open(conn)).collect();
            inodes.extend((0..AT_A_TIME).map(|conn| driven.inodes[conn as usize]));
            for (conn, peer) in (0..).zip(&mut peers) {
                peer.write_all(b"hello").unwrap();
                if (conn + round) % 3 == 0 {
                    driven.driver.send(conn, std::iter::once(&bytes[..]), 0);
                }
            }
            if round % 2 == 0 {
                driven.receive_until(|driven| (0..AT_A_TIME).all(|conn| driven.received(conn) == b"hello"));
            }
            // Half of the peers go first, and half of the others are stopped.
            peers.truncate(AT_A_TIME as usize / 2);
            for conn in 0..AT_A_TIME {
                if conn % 2 == 0 {
                    driven.driver.stop(conn);
                }
                driven.driver.shut_down(conn);
            }
            driven.turn_until(|driven| (0..AT_A_TIME).all(|conn| driven.driver.is_quiet(conn)));
            driven.take_bytes();
            (0..AT_A_TIME).for_each(|conn| driven.driver.remove(conn));
            driven.forget();
        }
        assert_eq!((driven.driver.leased_count(), driven.driver.sends_in_flight()), (0, 0));
        let open: Vec<String> = std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .map(|target| target.to_string_lossy().into_owned())
            .collect();
        for inode in inodes {
            assert!(!open.contains(&format!("socket:[{inode}]")), "a socket is still open");
        }
    }

    fn more_sockets_than_events_are_all_served<D: SocketDriver>(mut driven: Driven<D>) {
        super::super::process::raise_limits().unwrap();
        let conns = 0..1_500;
        let mut peers: Vec<UnixStream> = conns.clone().map(|conn| driven.open(conn)).collect();
        for round in 1..4 {
            peers.iter_mut().for_each(|peer| peer.write_all(b"x").unwrap());
            driven.receive_until(|driven| conns.clone().all(|conn| driven.received(conn).len() == round));
        }
    }

    fn connections_are_accepted_until_that_is_stopped<D: SocketDriver>(mut driven: Driven<D>) {
        let listener = Listener::new("127.0.0.1", 0).unwrap();
        let address = listener.local_addr().unwrap();
        driven.driver.accept_on(listener);
        let connect = |count: usize| -> Vec<TcpStream> {
            (0..count).map(|_| TcpStream::connect(address).unwrap()).collect()
        };
        let mut clients = connect(2 * ACCEPTS_MAX + 1);
        driven.turn();
        assert!(driven.accepted.len() <= ACCEPTS_MAX);
        driven.turn_until(|driven| driven.accepted.len() == clients.len());
        clients.extend(connect(1));
        driven.turn_until(|driven| driven.accepted.len() == clients.len());
        let mut ours: Vec<SocketAddr> = clients.iter().map(|client| client.local_addr().unwrap()).collect();
        let mut theirs: Vec<SocketAddr> = driven
            .accepted
            .iter()
            .map(|fd| SockRef::from(fd).peer_addr().unwrap().as_socket().unwrap())
            .collect();
        ours.sort();
        theirs.sort();
        assert_eq!(ours, theirs);
        driven.driver.stop_accepting();
        driven.driver.stop_accepting();
        driven.driver.resume_accepting();
        driven.turn();
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    fn a_sleeper_wakes_for_bytes_room_connections_and_others<D: SocketDriver>(mut driven: Driven<D>) {
        let listener = Listener::new("127.0.0.1", 0).unwrap();
        let address = listener.local_addr().unwrap();
        driven.driver.accept_on(listener);
        let peer = driven.open(0);
        let bytes = pattern(3_000_000);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let sleep = driven.driver.sleeper().unwrap();
            for round in 0..20 {
                let mut writer = peer.try_clone().unwrap();
                let write = move || writer.write_all(b"x").unwrap();
                driven.sleep_until(&sleep, write, |driven| driven.pending.len() == 1).await;
                driven.take_bytes();

                driven.driver.send(0, std::iter::once(&bytes[..]), 0);
                let mut reader = peer.try_clone().unwrap();
                let read = move || reader.read_exact(&mut vec![0; 3_000_000]).unwrap();
                driven.sleep_until(&sleep, read, |driven| !driven.driver.is_sending(0)).await;

                let connect = move || drop(TcpStream::connect(address).unwrap());
                driven.sleep_until(&sleep, connect, |driven| driven.accepted.len() > round).await;

                let (waker, woken) = (driven.waker.clone(), Arc::new(AtomicBool::new(false)));
                let is_woken = woken.clone();
                let wake = move || {
                    woken.store(true, Ordering::SeqCst);
                    waker.wake();
                };
                driven.sleep_until(&sleep, wake, |_| is_woken.load(Ordering::SeqCst)).await;
            }
        });
    }

    /// A driver, and what it has reported.
    struct Driven<D> {
        driver: D,
        waker: Waker,
        completions: Vec<Completion>,
        /// Leases not given back, in the order of arrival.
        pending: VecDeque<(u32, Lease)>,
        received: Vec<Vec<u8>>,
        sent: Vec<(u32, io::Result<usize>)>,
        ended: Vec<(u32, Option<io::Error>)>,
        stopped: Vec<u32>,
        accepted: Vec<OwnedFd>,
        /// Of the sockets given to the driver, by connection.
        inodes: Vec<u64>,
    }

    impl<D: SocketDriver> Driven<D> {
        fn new(driver: D, waker: Waker) -> Driven<D> {
            Driven {
                driver,
                waker,
                completions: Vec::new(),
                pending: VecDeque::new(),
                received: Vec::new(),
                sent: Vec::new(),
                ended: Vec::new(),
                stopped: Vec::new(),
                accepted: Vec::new(),
                inodes: Vec::new(),
            }
        }

        /// Adds a connection; its other side.
        fn open(&mut self, conn: u32) -> UnixStream {
            let (peer, ours) = UnixStream::pair().unwrap();
            self.add(conn, ours.into());
            peer
        }

        fn open_tcp(&mut self, conn: u32) -> TcpStream {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            self.add(conn, listener.accept().unwrap().0.into());
            peer
        }

        fn add(&mut self, conn: u32, fd: OwnedFd) {
            let at = conn as usize;
            if self.received.len() <= at {
                self.received.resize_with(at + 1, Vec::new);
                self.inodes.resize(at + 1, 0);
            }
            self.inodes[at] = inode(&fd);
            self.driver.add(conn, fd);
            self.driver.arm(conn);
        }

        fn turn(&mut self) {
            self.driver.turn(&mut self.completions).unwrap();
            for completion in self.completions.drain(..) {
                match completion {
                    Completion::Received { conn, lease } => self.pending.push_back((conn, lease)),
                    Completion::Ended { conn, error } => self.ended.push((conn, error)),
                    Completion::Sent { conn, result } => self.sent.push((conn, result)),
                    Completion::Stopped { conn } => self.stopped.push(conn),
                    Completion::Accepted { fd, .. } => self.accepted.push(fd),
                    Completion::AcceptStopped { error } => panic!("accepting stopped: {error}"),
                }
            }
        }

        fn take_bytes(&mut self) {
            for (conn, lease) in self.pending.drain(..) {
                self.received[conn as usize].extend_from_slice(self.driver.bytes(&lease));
                self.driver.recycle(lease);
            }
        }

        #[track_caller]
        fn turn_until(&mut self, mut condition: impl FnMut(&mut Self) -> bool) {
            let give_up = Instant::now() + PATIENCE;
            while !condition(self) {
                assert!(Instant::now() < give_up, "it does not happen");
                self.turn();
            }
        }

        /// Turns with bytes taken after each, and sockets armed again that had stopped for lack of buffers.
        #[track_caller]
        fn receive_until(&mut self, mut condition: impl FnMut(&mut Self) -> bool) {
            self.turn_until(|driven| {
                driven.take_bytes();
                std::mem::take(&mut driven.stopped).into_iter().for_each(|conn| driven.driver.arm(conn));
                condition(driven)
            });
        }

        fn received(&self, conn: u32) -> &[u8] {
            &self.received[conn as usize]
        }

        fn sent_lens(&self, conn: u32) -> Vec<usize> {
            let of_conn = self.sent.iter().filter(|(of, _)| *of == conn);
            of_conn.map(|(_, result)| *result.as_ref().expect("it was sent")).collect()
        }

        /// Forgets what is reported of connections that are gone.
        fn forget(&mut self) {
            self.received.iter_mut().for_each(Vec::clear);
            self.sent.clear();
            self.ended.clear();
            self.stopped.clear();
        }

        /// Sleeps as a worker does until `condition` holds, which `event`, on another thread, brings about.
        async fn sleep_until(
            &mut self,
            sleep: &Sleep,
            event: impl FnOnce() + Send + 'static,
            mut condition: impl FnMut(&mut Self) -> bool,
        ) {
            self.turn();
            let mut event = Some(event);
            let mut thread = None;
            while !condition(self) {
                if self.driver.prepare_to_sleep() {
                    thread = thread.or_else(|| event.take().map(std::thread::spawn));
                    tokio::time::timeout(PATIENCE, sleep.wait()).await.expect("it never wakes");
                }
                self.driver.wake_up();
                self.turn();
            }
            thread.expect("it happened while this one slept").join().unwrap();
        }
    }

    fn inode(fd: &impl AsFd) -> u64 {
        use std::os::unix::fs::MetadataExt;
        let fd = fd.as_fd().as_raw_fd();
        std::fs::metadata(format!("/proc/self/fd/{fd}")).unwrap().ino()
    }

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
    }
}
