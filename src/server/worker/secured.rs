//! A worker's part in encrypted connections: which bytes go through TLS, and where the sealed ones lie while the kernel
//! sends them. What TLS is, is [`crate::tls`]'s business; what it means for a connection's life, [`crate::broker::secure`]'s.
//!
//! A handshake goes to another thread for each step; what arrives meanwhile waits like the bytes of a connection that is held
//! back. One send is sealed at a time, into memory that all connections of the worker share.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::links::{Layer, Link, Links, bytes_of};
use super::{Read, ReadBytes, Worker};
use crate::broker::{Carrier, CloseReason};
use crate::io::socket_driver::SocketDriver;
use crate::server::handshakes::{HandshakeJob, PATIENCE_SLACK};
use crate::server::shared::AdvancedHandshake;
use crate::tls::channel::RECORD_PLAINTEXT_MAX;
use crate::tls::{Acceptor, Channel, Handshake, HandshakeError, Progress, SealedBuffer};

/// Plaintext sealed for one send: full records, in less memory than the allocator maps on its own.
const SEALED_PLAINTEXT_MAX: usize = 7 * RECORD_PLAINTEXT_MAX;

/// Plaintext of a send that gets a small buffer.
const SMALL_PLAINTEXT_MAX: usize = 4 * 1024;

/// Buffers of each size that are kept for the next send.
const BUFFERS_KEPT_MAX: usize = 64;

/// What the encrypted connections of one worker share.
#[derive(Default)]
pub(super) struct Shared {
    /// What new ones are accepted with.
    acceptor: Option<Arc<Acceptor>>,
    small: Vec<SealedBuffer>,
    large: Vec<SealedBuffer>,
    /// Where records are put together.
    gathered: Vec<u8>,
    accepted: AcceptedThisSecond,
}

/// The encryption of one connection.
#[derive(Debug)]
pub(super) struct Tls {
    acceptor: Arc<Acceptor>,
    stage: Stage,
    /// What TLS has to say before anything else, sealed.
    control: Vec<u8>,
    /// What the kernel is sending.
    in_flight: Option<SealedBuffer>,
    /// The client has been told that nothing more comes.
    closed: bool,
}

#[derive(Debug)]
enum Stage {
    /// Nothing has arrived.
    Fresh,
    Handshake(Box<Handshake>),
    /// A thread carries the handshake on.
    Away,
    Open(Box<Channel>),
    /// The handshake has failed.
    Failed,
    /// What was encrypted cannot be any more: nothing goes out but TLS's last words.
    Broken,
}

#[derive(Default)]
struct AcceptedThisSecond {
    since_ms: u64,
    count: u32,
}

impl Shared {
    pub fn new(acceptor: Option<Arc<Acceptor>>) -> Shared {
        Shared { acceptor, ..Shared::default() }
    }

    /// What new connections are accepted with from here on.
    pub fn set_acceptor(&mut self, acceptor: Option<Arc<Acceptor>>) {
        self.acceptor = acceptor;
    }

    /// Counts a connection that is to be accepted; `false` if there have been too many within a second.
    pub fn may_accept(&mut self, now_ms: u64, per_second: u32) -> bool {
        if per_second == 0 {
            return true;
        }
        if now_ms >= self.accepted.since_ms + 1_000 {
            self.accepted = AcceptedThisSecond { since_ms: now_ms, count: 0 };
        }
        self.accepted.count += 1;
        self.accepted.count <= per_second
    }

    fn take_buffer(&mut self, plaintext_len: usize) -> SealedBuffer {
        let (kept, len) = if plaintext_len <= SMALL_PLAINTEXT_MAX {
            (&mut self.small, SMALL_PLAINTEXT_MAX)
        } else {
            (&mut self.large, SEALED_PLAINTEXT_MAX)
        };
        kept.pop().unwrap_or_else(|| SealedBuffer::for_plaintext(len))
    }

    fn give_back(&mut self, mut buffer: SealedBuffer) {
        buffer.clear();
        let is_large = buffer.capacity() > SEALED_PLAINTEXT_MAX;
        let kept = if is_large { &mut self.large } else { &mut self.small };
        if kept.len() < BUFFERS_KEPT_MAX {
            kept.push(buffer);
        }
    }
}

impl Tls {
    /// That of a new connection.
    pub fn new(acceptor: Arc<Acceptor>) -> Tls {
        Tls { acceptor, stage: Stage::Fresh, control: Vec::new(), in_flight: None, closed: false }
    }

    /// Whether a thread has the handshake.
    pub fn is_away(&self) -> bool {
        matches!(self.stage, Stage::Away)
    }

    /// Whether nothing can be sent any more but TLS's last words.
    pub fn is_broken(&self) -> bool {
        matches!(self.stage, Stage::Broken)
    }

    /// Whether the handshake is done and all is well.
    pub fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open(_))
    }

    /// Whether nothing goes out as it is.
    pub fn is_encrypting(&self) -> bool {
        self.is_open() || self.is_broken()
    }

    /// Whether TLS has something to say to the client.
    pub fn has_control(&self) -> bool {
        let in_channel = matches!(&self.stage, Stage::Open(channel) if channel.has_control());
        in_channel || !self.control.is_empty()
    }

    /// A send is over.
    pub fn end_send(&mut self, shared: &mut Shared) {
        if let Some(buffer) = self.in_flight.take() {
            shared.give_back(buffer);
        }
    }

    /// Tells the client that nothing more comes.
    pub fn say_goodbye(&mut self) {
        if let Stage::Open(channel) = &mut self.stage
            && !std::mem::replace(&mut self.closed, true)
        {
            channel.close();
        }
    }
}

impl<D: SocketDriver> Worker<D> {
    /// Takes a new connection that is to be encrypted; `None` if none is.
    pub(super) fn open_secured(&mut self, cid: u64, addr: SocketAddr, fd: &OwnedFd) -> Option<u32> {
        self.parts.broker.settings().tls?;
        let acceptor = self.links.tls.acceptor.clone()?;
        let conn = self.parts.broker.open_secure(cid, addr, local_addr(fd).unwrap_or(addr));
        let link = Link { cid, tls: Some(Tls::new(acceptor)), web: None, plain_in_flight: None };
        self.links.insert(conn, Box::new(link));
        Some(conn)
    }

    /// Opens what has arrived for an encrypted connection. Whether there is plaintext to be handled, in place of it.
    pub(super) fn open_sealed(&mut self, read: &mut Read) -> bool {
        let conn = read.conn;
        let mut bytes = std::mem::replace(&mut read.bytes, ReadBytes::Kept(Vec::new()));
        let is_kept = matches!(bytes, ReadBytes::Kept(_));
        if is_kept {
            self.kept_bytes -= bytes_of(&mut self.ring, &mut bytes).len();
        }
        let first_byte = bytes_of(&mut self.ring, &mut bytes)[read.taken];
        let is_fresh = self.tls_of(conn).is_some_and(|tls| matches!(tls.stage, Stage::Fresh));
        if is_fresh && self.parts.broker.is_open(conn) {
            let is_guest = self.parts.broker.is_guest(conn);
            let carrier = if is_guest { Carrier::Tls } else { self.parts.broker.carrier(conn, first_byte) };
            match carrier {
                Carrier::Tls => {
                    if let Some(tls) = self.tls_of(conn) {
                        tls.stage = Stage::Handshake(Box::new(tls.acceptor.begin()));
                    }
                }
                Carrier::Plain => {
                    drop(self.links.take(conn));
                    if is_kept {
                        self.kept_bytes += bytes_of(&mut self.ring, &mut bytes).len();
                    }
                    read.bytes = bytes;
                    return true;
                }
            }
        }
        let mut plaintext = Vec::new();
        let sealed = &mut bytes_of(&mut self.ring, &mut bytes)[read.taken..];
        let mut outcome = Ok(false);
        if let Some(tls) = self.links.get_mut(conn).and_then(|link| link.tls.as_mut()) {
            match &mut tls.stage {
                Stage::Open(channel) => {
                    // Nearly all of it is plaintext.
                    plaintext.reserve(sealed.len() + RECORD_PLAINTEXT_MAX);
                    if channel.open(sealed, &mut plaintext).is_err() {
                        self.ended.push((conn, CloseReason::ReadError));
                        channel_failed(tls);
                    } else if channel.is_closed_by_peer() {
                        self.ended.push((conn, CloseReason::ClientClosed));
                    }
                }
                Stage::Handshake(handshake) => outcome = handshake.receive(sealed),
                Stage::Fresh | Stage::Failed | Stage::Broken => {}
                Stage::Away => unreachable!("what arrives then has to wait"),
            }
        }
        if let ReadBytes::Leased(lease) = bytes {
            self.ring.recycle(lease);
        }
        read.taken = 0;
        self.kept_bytes += plaintext.len();
        let has_plaintext = !plaintext.is_empty();
        read.bytes = ReadBytes::Kept(plaintext);
        match outcome {
            Ok(false) => {}
            Ok(true) => self.send_away(conn),
            Err(error) => self.fail_handshake(conn, &error, Vec::new()),
        }
        if self.links.has_control(conn) {
            self.start_send_unless_busy(conn);
        }
        has_plaintext
    }

    /// Gives a handshake that can go on to a thread.
    fn send_away(&mut self, conn: u32) {
        let settings = self.parts.broker.settings();
        let timeout_ms = match &settings.web {
            Some(web) if self.parts.broker.is_guest(conn) => web.handshake_timeout_ms,
            _ => settings.tls.map_or(0, |terms| terms.timeout_ms),
        };
        let Some(link) = self.links.get_mut(conn) else { return };
        let Some(tls) = &mut link.tls else { return };
        let Stage::Handshake(handshake) = std::mem::replace(&mut tls.stage, Stage::Away) else {
            unreachable!("it was ready a moment ago");
        };
        let job = HandshakeJob {
            worker: self.parts.worker,
            conn,
            cid: link.cid,
            handshake,
            not_after: Instant::now() + Duration::from_millis(timeout_ms) + PATIENCE_SLACK,
        };
        let handshakes = self.parts.shared.handshakes.get().expect("set before there are workers");
        if !handshakes.submit(job) {
            self.fail_handshake(conn, &HandshakeError::TooMany, Vec::new());
        }
    }

    /// Goes on with connections whose handshakes have been carried on. What a client has said behind its handshake comes
    /// before anything that is to be handled.
    pub(super) fn take_handshakes(&mut self) -> bool {
        let advanced = self.parts.shared.doors[self.parts.worker].take_handshakes();
        let any = !advanced.is_empty();
        for AdvancedHandshake { conn, cid, progress } in advanced {
            let is_open = self.parts.broker.is_open(conn);
            let Some(link) = self.links.get_mut(conn).filter(|link| link.cid == cid) else { continue };
            let Some(tls) = &mut link.tls else { continue };
            if !is_open {
                tls.stage = Stage::Failed;
                continue;
            }
            match progress {
                Progress::Waiting { handshake, output } => {
                    tls.stage = Stage::Handshake(handshake);
                    tls.control.extend_from_slice(&output);
                }
                Progress::Done { channel, facts, output, plaintext } => {
                    tls.stage = Stage::Open(channel);
                    tls.control.extend_from_slice(&output);
                    self.parts.broker.handle_secured(conn, *facts);
                    if !plaintext.is_empty() {
                        self.kept_bytes += plaintext.len();
                        let bytes = ReadBytes::Kept(plaintext);
                        self.reads.push_front(Read {
                            conn,
                            bytes,
                            taken: 0,
                            reaped_us: self.now_us,
                            layer: Layer::Opened,
                        });
                    }
                }
                Progress::Failed { error, output } => self.fail_handshake(conn, &error, output),
            }
            if self.links.has_control(conn) {
                self.start_send_unless_busy(conn);
            }
        }
        any
    }

    fn fail_handshake(&mut self, conn: u32, error: &HandshakeError, output: Vec<u8>) {
        if let Some(tls) = self.tls_of(conn) {
            tls.stage = Stage::Failed;
            tls.control.extend_from_slice(&output);
        }
        self.parts.broker.handle_insecure(conn, error);
    }

    fn tls_of(&mut self, conn: u32) -> Option<&mut Tls> {
        self.links.get_mut(conn)?.tls.as_mut()
    }

    /// Starts a send of an encrypted connection: what TLS has to say, then as much of the output as one send takes, in
    /// frames if there is WebSocket in it.
    pub(super) fn start_sealed_send(&mut self, conn: u32) {
        let pending = self.parts.broker.pending_bytes(conn);
        let Links { links, tls: shared, web: shared_web, .. } = &mut self.links;
        let Some(link) = links.get_mut(conn as usize).and_then(Option::as_deref_mut) else { return };
        let Some(tls) = &mut link.tls else { return };
        let mut buffer = shared.take_buffer(pending.min(SEALED_PLAINTEXT_MAX));
        buffer.extend(&std::mem::take(&mut tls.control));
        let mut plain_len = 0;
        let mut failed = false;
        if let Stage::Open(channel) = &mut tls.stage {
            channel.take_control(&mut buffer);
            let slices = self.parts.broker.unsent(conn, usize::MAX);
            let result = match &mut link.web {
                None => channel.seal(slices, SEALED_PLAINTEXT_MAX, &mut shared.gathered, &mut buffer),
                Some(web) => {
                    // What frames add is little.
                    let sealed = web.seal(slices, SEALED_PLAINTEXT_MAX, shared_web);
                    channel
                        .seal(sealed.pieces(), usize::MAX, &mut shared.gathered, &mut buffer)
                        .map(|_| sealed.plain_len)
                }
            };
            match result {
                Ok(len) => plain_len = len,
                Err(_) => {
                    tls.stage = Stage::Broken;
                    failed = true;
                }
            }
        }
        if failed || buffer.is_empty() {
            shared.give_back(buffer);
            if failed {
                self.parts.broker.close(conn, CloseReason::WriteError);
            }
            return;
        }
        self.ring.send(conn, std::iter::once(buffer.bytes()), self.now_ms);
        tls.in_flight = Some(buffer);
        link.plain_in_flight = Some(plain_len);
        if plain_len > 0 {
            self.parts.broker.handle_send_started(conn);
        }
    }
}

/// The server's end of a connection.
pub(super) fn local_addr(fd: &OwnedFd) -> Option<SocketAddr> {
    socket2::SockRef::from(fd).local_addr().ok()?.as_socket()
}

/// What there is of a channel that cannot go on: its last words.
fn channel_failed(tls: &mut Tls) {
    if let Stage::Open(mut channel) = std::mem::replace(&mut tls.stage, Stage::Broken) {
        let mut words = SealedBuffer::default();
        channel.take_control(&mut words);
        tls.control.extend_from_slice(words.bytes());
    }
}
