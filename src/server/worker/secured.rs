//! A worker's part in encrypted connections: which bytes go through TLS, and where the sealed ones lie while the kernel
//! sends them. What TLS is, is [`crate::tls`]'s business; what it means for a connection's life, [`crate::broker::secure`]'s.
//!
//! A connection that is or may come to be encrypted has a [`Link`]. Bytes that arrive are opened when their turn comes to be
//! handled, not before, so that a connection that has to wait keeps them sealed. A handshake goes to another thread for
//! each step; what arrives meanwhile waits like the bytes of a connection that is held back.
//!
//! What goes out stays in the connection's output until the kernel has sent it, sealed: bounds and the care for slow
//! consumers are those of every connection. One send is sealed at a time, into memory that all connections of the worker
//! share. A link moves with its socket from worker to worker.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

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

/// The encrypted connections of one worker.
#[derive(Default)]
pub(super) struct Secured {
    /// What new ones are accepted with.
    acceptor: Option<Arc<Acceptor>>,
    /// By connection.
    links: Vec<Option<Box<Link>>>,
    count: usize,
    small: Vec<SealedBuffer>,
    large: Vec<SealedBuffer>,
    /// Where records are put together.
    gathered: Vec<u8>,
    accepted: AcceptedThisSecond,
}

/// One encrypted connection.
#[derive(Debug)]
pub struct Link {
    cid: u64,
    acceptor: Arc<Acceptor>,
    stage: Stage,
    /// What TLS has to say before anything else, sealed.
    control: Vec<u8>,
    in_flight: InFlight,
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

/// What the kernel is sending.
#[derive(Debug)]
enum InFlight {
    /// Nothing, or what is not encrypted.
    Clear,
    /// So many bytes of the output.
    Sealed(SealedBuffer, usize),
}

#[derive(Default)]
struct AcceptedThisSecond {
    since_ms: u64,
    count: u32,
}

impl Secured {
    pub fn new(acceptor: Option<Arc<Acceptor>>) -> Secured {
        Secured { acceptor, ..Secured::default() }
    }

    /// What new connections are accepted with from here on.
    pub fn set_acceptor(&mut self, acceptor: Option<Arc<Acceptor>>) {
        self.acceptor = acceptor;
    }

    /// Whether a connection is encrypted, or may come to be.
    #[inline]
    pub fn has(&self, conn: u32) -> bool {
        self.count > 0 && self.links.get(conn as usize).is_some_and(Option::is_some)
    }

    fn link(&mut self, conn: u32) -> Option<&mut Link> {
        self.links.get_mut(conn as usize)?.as_deref_mut()
    }

    pub fn insert(&mut self, conn: u32, link: Box<Link>) {
        let at = conn as usize;
        if self.links.len() <= at {
            self.links.resize_with(at + 1, || None);
        }
        let earlier = self.links[at].replace(link);
        assert!(earlier.is_none(), "who leaves takes its link along");
        self.count += 1;
    }

    pub fn take(&mut self, conn: u32) -> Option<Box<Link>> {
        let link = self.links.get_mut(conn as usize)?.take()?;
        self.count -= 1;
        Some(link)
    }

    /// Whether a thread has the connection's handshake.
    #[inline]
    pub fn is_away(&self, conn: u32) -> bool {
        self.has(conn)
            && self.links[conn as usize].as_ref().is_some_and(|link| matches!(link.stage, Stage::Away))
    }

    /// Whether a connection's output cannot be sent any more, only TLS's last words.
    pub fn is_broken(&self, conn: u32) -> bool {
        self.has(conn)
            && self.links[conn as usize].as_ref().is_some_and(|link| matches!(link.stage, Stage::Broken))
    }

    /// Whether TLS has something to say to a client.
    pub fn has_control(&self, conn: u32) -> bool {
        self.has(conn)
            && self.links[conn as usize].as_ref().is_some_and(|link| {
                let in_channel = matches!(&link.stage, Stage::Open(channel) if channel.has_control());
                in_channel || !link.control.is_empty()
            })
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

impl<D: SocketDriver> Worker<D> {
    /// Takes a new connection that is to be encrypted; `None` if none is.
    pub(super) fn open_secured(&mut self, cid: u64, addr: SocketAddr, fd: &OwnedFd) -> Option<u32> {
        self.parts.broker.settings().tls?;
        let acceptor = self.secured.acceptor.clone()?;
        // Only for the log.
        let local = socket2::SockRef::from(fd).local_addr().ok().and_then(|local| local.as_socket());
        let local = local.unwrap_or(addr);
        let conn = self.parts.broker.open_secure(cid, addr, local);
        let link = Link {
            cid,
            acceptor,
            stage: Stage::Fresh,
            control: Vec::new(),
            in_flight: InFlight::Clear,
            closed: false,
        };
        self.secured.insert(conn, Box::new(link));
        Some(conn)
    }

    /// Opens what has arrived for an encrypted connection. Whether there is plaintext to be handled, in place of it.
    pub(super) fn open_read(&mut self, read: &mut Read) -> bool {
        let conn = read.conn;
        let mut bytes = std::mem::replace(&mut read.bytes, ReadBytes::Kept(Vec::new()));
        let is_kept = matches!(bytes, ReadBytes::Kept(_));
        if is_kept {
            self.kept_bytes -= bytes_of(&mut self.ring, &mut bytes).len();
        }
        let first_byte = bytes_of(&mut self.ring, &mut bytes)[read.taken];
        let is_fresh = self.secured.link(conn).is_some_and(|link| matches!(link.stage, Stage::Fresh));
        if is_fresh && self.parts.broker.is_open(conn) {
            match self.parts.broker.carrier(conn, first_byte) {
                Carrier::Tls => {
                    if let Some(link) = self.secured.link(conn) {
                        link.stage = Stage::Handshake(Box::new(link.acceptor.begin()));
                    }
                }
                Carrier::Plain => {
                    drop(self.secured.take(conn));
                    if is_kept {
                        self.kept_bytes += bytes_of(&mut self.ring, &mut bytes).len();
                    }
                    read.bytes = bytes;
                    read.is_plain = true;
                    return true;
                }
            }
        }
        let mut plaintext = Vec::new();
        let sealed = &mut bytes_of(&mut self.ring, &mut bytes)[read.taken..];
        let mut outcome = Ok(false);
        if let Some(link) = self.secured.links.get_mut(conn as usize).and_then(Option::as_deref_mut) {
            match &mut link.stage {
                Stage::Open(channel) => {
                    // Nearly all of it is plaintext.
                    plaintext.reserve(sealed.len() + RECORD_PLAINTEXT_MAX);
                    if channel.open(sealed, &mut plaintext).is_err() {
                        self.ended.push((conn, CloseReason::ReadError));
                        channel_failed(link);
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
        read.is_plain = true;
        self.kept_bytes += plaintext.len();
        let has_plaintext = !plaintext.is_empty();
        read.bytes = ReadBytes::Kept(plaintext);
        match outcome {
            Ok(false) => {}
            Ok(true) => self.send_away(conn),
            Err(error) => self.fail_handshake(conn, &error, Vec::new()),
        }
        if self.secured.has_control(conn) {
            self.start_send_unless_busy(conn);
        }
        has_plaintext
    }

    /// Gives a handshake that can go on to a thread.
    fn send_away(&mut self, conn: u32) {
        let timeout_ms = self.parts.broker.settings().tls.map_or(0, |terms| terms.timeout_ms);
        let Some(link) = self.secured.link(conn) else { return };
        let Stage::Handshake(handshake) = std::mem::replace(&mut link.stage, Stage::Away) else {
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
            let Some(link) = self.secured.link(conn).filter(|link| link.cid == cid) else { continue };
            if !is_open {
                link.stage = Stage::Failed;
                continue;
            }
            match progress {
                Progress::Waiting { handshake, output } => {
                    link.stage = Stage::Handshake(handshake);
                    link.control.extend_from_slice(&output);
                }
                Progress::Done { channel, facts, output, plaintext } => {
                    link.stage = Stage::Open(channel);
                    link.control.extend_from_slice(&output);
                    self.parts.broker.handle_secured(conn, *facts);
                    if !plaintext.is_empty() {
                        self.kept_bytes += plaintext.len();
                        let bytes = ReadBytes::Kept(plaintext);
                        self.reads.push_front(Read {
                            conn,
                            bytes,
                            taken: 0,
                            reaped_us: self.now_us,
                            is_plain: true,
                        });
                    }
                }
                Progress::Failed { error, output } => self.fail_handshake(conn, &error, output),
            }
            if self.secured.has_control(conn) {
                self.start_send_unless_busy(conn);
            }
        }
        any
    }

    fn fail_handshake(&mut self, conn: u32, error: &HandshakeError, output: Vec<u8>) {
        if let Some(link) = self.secured.link(conn) {
            link.stage = Stage::Failed;
            link.control.extend_from_slice(&output);
        }
        self.parts.broker.handle_insecure(conn, error);
    }

    fn start_send_unless_busy(&mut self, conn: u32) {
        if !self.ring.is_sending(conn) {
            self.start_send(conn);
        }
    }

    /// Starts a send of an encrypted connection: what TLS has to say, then as much of the output as one send takes.
    pub(super) fn start_secured_send(&mut self, conn: u32) {
        let pending = self.parts.broker.pending_bytes(conn);
        let is_encrypted = |link: &mut Link| matches!(link.stage, Stage::Open(_) | Stage::Broken);
        if pending > 0 && !self.secured.link(conn).is_some_and(is_encrypted) {
            // `INFO`, before the handshake.
            self.parts.broker.handle_send_started(conn);
            let slices = self.parts.broker.unsent(conn, crate::io::socket_driver::SEND_SLICES_MAX);
            return self.ring.send(conn, slices, self.now_ms);
        }
        let mut buffer = self.secured.take_buffer(pending.min(SEALED_PLAINTEXT_MAX));
        let mut plaintext_len = 0;
        let mut gathered = std::mem::take(&mut self.secured.gathered);
        let Some(link) = self.secured.link(conn) else { unreachable!("the caller has looked") };
        buffer.extend(&std::mem::take(&mut link.control));
        let mut failed = false;
        if let Stage::Open(channel) = &mut link.stage {
            channel.take_control(&mut buffer);
            if pending > 0 {
                let slices = self.parts.broker.unsent(conn, usize::MAX);
                match channel.seal(slices, SEALED_PLAINTEXT_MAX, &mut gathered, &mut buffer) {
                    Ok(len) => plaintext_len = len,
                    Err(_) => {
                        link.stage = Stage::Broken;
                        failed = true;
                    }
                }
            }
        }
        self.secured.gathered = gathered;
        if failed {
            self.parts.broker.close(conn, CloseReason::WriteError);
        }
        if failed || buffer.is_empty() {
            return self.secured.give_back(buffer);
        }
        if plaintext_len > 0 {
            self.parts.broker.handle_send_started(conn);
        }
        self.ring.send(conn, std::iter::once(buffer.bytes()), self.now_ms);
        if let Some(link) = self.secured.link(conn) {
            link.in_flight = InFlight::Sealed(buffer, plaintext_len);
        }
    }

    /// A send of an encrypted connection is over. How much of the output that was.
    pub(super) fn end_secured_send(&mut self, conn: u32, sent: usize) -> usize {
        let Some(link) = self.secured.link(conn) else { return sent };
        match std::mem::replace(&mut link.in_flight, InFlight::Clear) {
            InFlight::Clear => sent,
            InFlight::Sealed(buffer, plaintext_len) => {
                self.secured.give_back(buffer);
                plaintext_len
            }
        }
    }

    /// Whether something of an encrypted connection that closes is still to be sent. When its output is out, the client is
    /// told that nothing more comes.
    pub(super) fn is_saying_goodbye(&mut self, conn: u32) -> bool {
        if !self.secured.has(conn) {
            return false;
        }
        let Some(link) = self.secured.link(conn) else { return false };
        if let Stage::Open(channel) = &mut link.stage
            && !std::mem::replace(&mut link.closed, true)
        {
            channel.close();
        }
        if self.secured.has_control(conn) {
            self.start_send_unless_busy(conn);
        }
        self.ring.is_sending(conn) || self.secured.has_control(conn)
    }
}

/// What there is of a channel that cannot go on: its last words.
fn channel_failed(link: &mut Link) {
    if let Stage::Open(mut channel) = std::mem::replace(&mut link.stage, Stage::Broken) {
        let mut words = SealedBuffer::default();
        channel.take_control(&mut words);
        link.control.extend_from_slice(words.bytes());
    }
}

fn bytes_of<'a, D: SocketDriver>(ring: &'a mut D, bytes: &'a mut ReadBytes) -> &'a mut [u8] {
    match bytes {
        ReadBytes::Leased(lease) => ring.bytes_mut(lease),
        ReadBytes::Kept(kept) => kept,
    }
}
