//! A worker's part in WebSocket connections: whose requests are answered, which frames are taken apart and put together, and
//! where their heads lie while the kernel sends them. What WebSocket is, is [`crate::websocket`]'s business; what it means for
//! a connection's life, [`crate::broker::web`]'s.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::links::{Layer, Link, Links, bytes_of};
use super::secured::{Tls, local_addr};
use super::{Read, ReadBytes, Worker};
use crate::broker::CloseReason;
use crate::io::listener::Entrance;
use crate::io::socket_driver::{self, SocketDriver};
use crate::server::shared::Accepted;
use crate::tls::Acceptor;
use crate::websocket::{
    Answer, Channel, ChannelEnd, Deflater, InflateError, Inflater, Negotiated, SEND_SLICES_MAX, SealMemory,
    Sealed, Upgrade, UpgradeTerms, Visitor,
};

const _: () = assert!(SEND_SLICES_MAX <= socket_driver::SEND_SLICES_MAX);

/// Bytes of answers to requests that may wait. A client that makes more necessary and does not read is cut off.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Connections whose handshakes are not through. Further ones are closed at once.
const GUESTS_MAX: usize = 8 * 1024;

/// Output framed for one send.
const FRAMED_BYTES_MAX: usize = 512 * 1024;

/// Memory that a connection keeps for its next send.
const MEMORY_KEPT_BYTES_MAX: usize = 256;

/// Larger memory that a worker keeps for the next send of any connection, which compression takes.
const MEMORIES_KEPT_MAX: usize = 16;

/// What WebSocket connections are accepted with.
#[derive(Debug)]
pub struct WebEntrance {
    /// What they have to show.
    pub terms: UpgradeTerms,
    /// Their encryption.
    pub acceptor: Option<Arc<Acceptor>>,
}

/// What the WebSocket connections of one worker share.
#[derive(Default)]
pub(super) struct Shared {
    entrance: Option<Arc<WebEntrance>>,
    /// Made with the first connection that compresses: they are some hundred kilobytes.
    inflater: Option<Box<Inflater>>,
    deflater: Option<Box<Deflater>>,
    memories: Vec<SealMemory>,
}

/// The WebSocket side of one connection.
#[derive(Debug)]
pub(super) struct Web {
    stage: Stage,
    /// Answers to requests, which go out before any frame.
    answers: Vec<u8>,
    memory: SealMemory,
}

#[derive(Debug)]
enum Stage {
    Upgrading(Upgrade),
    Open(Box<Channel>),
}

impl Shared {
    pub fn new(entrance: Option<Arc<WebEntrance>>) -> Shared {
        Shared { entrance, ..Shared::default() }
    }

    /// What new connections are accepted with from here on.
    pub fn set_entrance(&mut self, entrance: Option<Arc<WebEntrance>>) {
        self.entrance = entrance;
    }
}

impl Web {
    fn new() -> Web {
        Web {
            stage: Stage::Upgrading(Upgrade::default()),
            answers: Vec::new(),
            memory: SealMemory::default(),
        }
    }

    /// Whether there is something to be sent that is not output.
    pub fn has_control(&self) -> bool {
        !self.answers.is_empty() || matches!(&self.stage, Stage::Open(channel) if channel.has_control())
    }

    /// Whether the client is to be told why it is closed although its output is given up.
    fn is_closing(&self) -> bool {
        matches!(&self.stage, Stage::Open(channel) if channel.is_closing())
    }

    /// Makes a send of what waits.
    pub fn seal<'a>(
        &'a mut self,
        slices: impl Iterator<Item = &'a [u8]>,
        max: usize,
        shared: &mut Shared,
    ) -> Sealed<'a> {
        if !self.answers.is_empty() {
            return Sealed::of(self.memory.put(std::mem::take(&mut self.answers)));
        }
        match &mut self.stage {
            // A guest has no output.
            Stage::Upgrading(_) => Sealed::of(&[]),
            Stage::Open(channel) => {
                let deflater = channel.is_compressing().then(|| {
                    if let Some(memory) = shared.memories.pop() {
                        self.memory = memory;
                    }
                    &mut **shared.deflater.get_or_insert_default()
                });
                channel.seal(slices, max, deflater, &mut self.memory)
            }
        }
    }

    /// A send is over.
    pub fn end_send(&mut self, shared: &mut Shared) {
        if self.memory.capacity() > MEMORY_KEPT_BYTES_MAX {
            let memory = std::mem::take(&mut self.memory);
            if shared.memories.len() < MEMORIES_KEPT_MAX {
                shared.memories.push(memory);
            }
        }
    }

    /// All output is sent: the client is told that nothing more comes.
    pub fn say_goodbye(&mut self, reason: CloseReason) {
        if let Stage::Open(channel) = &mut self.stage {
            channel.close(reason.websocket_status() as u16, &reason.to_string());
            channel.finish();
        }
    }
}

impl<D: SocketDriver> Worker<D> {
    /// Gives a new connection to the WebSocket port to the worker that has the fewest connections. It counts as one when its
    /// handshakes are through.
    pub(super) fn place_guest(&mut self, fd: OwnedFd, addr: SocketAddr) {
        let shared = &self.parts.shared;
        if shared.doors.iter().map(|door| door.guests.load(Ordering::Relaxed)).sum::<usize>() >= GUESTS_MAX {
            // Its handshake would have to wait for others that do not go on.
            return;
        }
        let worker = shared.least_loaded();
        let door = &shared.doors[worker];
        door.guests.fetch_add(1, Ordering::Relaxed);
        let cid = shared.next_guest.fetch_add(1, Ordering::Relaxed);
        door.accepted.lock().push(Accepted { cid, fd, addr, entrance: Entrance::WebSocket, refusal: None });
        door.has_accepted.store(true, Ordering::Release);
        if worker != self.parts.worker {
            door.knock();
        }
    }

    /// Takes a connection that was placed here.
    pub(super) fn take_guest(&mut self, guest: u64, fd: OwnedFd, addr: SocketAddr) {
        let Some(conn) = self.open_guest(guest, addr, &fd) else { return };
        self.ring.add(conn, fd);
        self.ring.arm(conn);
        if self.stopping {
            self.parts.broker.close(conn, CloseReason::ServerShutdown);
        }
    }

    /// Takes a new connection to the WebSocket port; `None` if there is none any more.
    fn open_guest(&mut self, guest: u64, addr: SocketAddr, fd: &OwnedFd) -> Option<u32> {
        let acceptor = self.links.web.entrance.as_ref()?.acceptor.clone();
        let secured_at = acceptor.as_ref().map(|_| local_addr(fd).unwrap_or(addr));
        let conn = self.parts.broker.open_guest(guest, addr, secured_at);
        let link =
            Link { cid: guest, tls: acceptor.map(Tls::new), web: Some(Web::new()), plain_in_flight: None };
        self.links.insert(conn, Box::new(link));
        Some(conn)
    }

    /// Whether a connection is told why it is closed even if its output is given up.
    pub(super) fn is_told_why(&self, conn: u32) -> bool {
        self.links.get(conn).and_then(|link| link.web.as_ref()).is_some_and(Web::is_closing)
    }

    /// Takes the bytes of a WebSocket connection apart. Whether something of the protocol is there to be handled.
    pub(super) fn open_framed(&mut self, read: &mut Read) -> bool {
        let conn = read.conn;
        let Links { links, web: shared, .. } = &mut self.links;
        let Some(link) = links.get_mut(conn as usize).and_then(Option::as_deref_mut) else { return true };
        let Some(web) = &mut link.web else { return true };
        let Stage::Open(channel) = &mut web.stage else {
            self.answer_requests(read);
            return false;
        };
        let payload_max = self.parts.broker.payload_max(conn);
        let inflater = channel.is_compressing().then(|| &mut **shared.inflater.get_or_insert_default());
        let mut inflated = Vec::new();
        let bytes = &mut bytes_of(&mut self.ring, &mut read.bytes)[read.taken..];
        let received = channel.receive(bytes, payload_max, inflater, &mut inflated);
        let rest = bytes[received.taken..].to_vec();
        let is_there = !received.plain.is_empty() || !inflated.is_empty();
        if inflated.is_empty() {
            let end = read.taken + received.plain.end;
            read.taken += received.plain.start;
            match &mut read.bytes {
                ReadBytes::Leased(lease) => lease.truncate(end),
                ReadBytes::Kept(kept) => {
                    self.kept_bytes -= kept.len() - end;
                    kept.truncate(end);
                }
            }
        } else {
            self.kept_bytes += inflated.len();
            read.taken = 0;
            match std::mem::replace(&mut read.bytes, ReadBytes::Kept(inflated)) {
                ReadBytes::Leased(lease) => self.ring.recycle(lease),
                ReadBytes::Kept(kept) => self.kept_bytes -= kept.len(),
            }
        }
        if !rest.is_empty() {
            self.kept_bytes += rest.len();
            self.reads.push_front(Read {
                conn,
                bytes: ReadBytes::Kept(rest),
                taken: 0,
                reaped_us: read.reaped_us,
                layer: Layer::Opened,
            });
        }
        if let Some(end) = received.end {
            self.end_frames(conn, end);
        }
        if self.links.has_control(conn) {
            self.start_send_unless_busy(conn);
        }
        is_there
    }

    fn end_frames(&mut self, conn: u32, end: ChannelEnd) {
        if end != ChannelEnd::Closed {
            self.parts.broker.log_read_error(conn, &end.to_string());
        }
        let reason = match end {
            ChannelEnd::Closed => CloseReason::ClientClosed,
            ChannelEnd::Frame(_) | ChannelEnd::Inflate(InflateError::Corrupt) => CloseReason::ReadError,
            ChannelEnd::Inflate(InflateError::TooLong) => CloseReason::MaxPayloadExceeded,
            ChannelEnd::Pings => CloseReason::SlowConsumerPendingBytes,
        };
        self.ended.push((conn, reason));
    }

    fn answer_requests(&mut self, read: &mut Read) {
        let conn = read.conn;
        if !self.parts.broker.is_open(conn) {
            return;
        }
        let Some(entrance) = self.links.web.entrance.clone() else { return };
        let now = SystemTime::now();
        let mut bytes = &bytes_of(&mut self.ring, &mut read.bytes)[read.taken..];
        while let Some(web) = self.links.links[conn as usize].as_mut().and_then(|link| link.web.as_mut()) {
            let Stage::Upgrading(upgrade) = &mut web.stage else { break };
            let closes = match upgrade.receive(std::mem::take(&mut bytes), &entrance.terms, now) {
                Answer::Incomplete => break,
                Answer::Upgraded { response, negotiated, visitor } => {
                    web.answers.extend_from_slice(&response);
                    self.admit_guest(conn, negotiated, *visitor);
                    break;
                }
                Answer::LeafNode(response) => {
                    web.answers.extend_from_slice(&response);
                    self.parts.log.error("Not configured to accept leaf node connections".to_owned());
                    true
                }
                Answer::Refused { response, reason, closes } => {
                    web.answers.extend_from_slice(&response);
                    if let Some(reason) = reason {
                        self.parts.broker.log_guest(conn, &reason);
                    }
                    closes || web.answers.len() > ANSWER_BYTES_MAX
                }
            };
            if closes {
                self.parts.broker.close(conn, CloseReason::ClientClosed);
                break;
            }
        }
        if self.links.has_control(conn) {
            self.start_send_unless_busy(conn);
        }
    }

    fn admit_guest(&mut self, conn: u32, negotiated: Negotiated, visitor: Visitor) {
        let shared = &self.parts.shared;
        let is_too_many = shared.connections() as i64 >= shared.connections_max.load(Ordering::Relaxed);
        let cid = shared.next_cid.fetch_add(1, Ordering::Relaxed);
        let door = &shared.doors[self.parts.worker];
        door.guests.fetch_sub(1, Ordering::Relaxed);
        door.connections.fetch_add(1, Ordering::Relaxed);
        if let Some(link) = self.links.get_mut(conn) {
            link.cid = cid;
            if let Some(web) = &mut link.web {
                web.stage = Stage::Open(Box::new(Channel::new(negotiated)));
            }
        }
        self.parts.broker.admit_guest(conn, cid, visitor);
        if is_too_many {
            self.parts.broker.refuse(conn);
        }
    }

    /// Starts a send of a WebSocket connection without TLS.
    pub(super) fn start_framed_send(&mut self, conn: u32) {
        if self.parts.broker.pending_bytes(conn) > 0 {
            self.parts.broker.handle_send_started(conn);
        }
        let Links { links, web: shared, .. } = &mut self.links;
        let Some(link) = links.get_mut(conn as usize).and_then(Option::as_deref_mut) else { return };
        let Some(web) = &mut link.web else { return };
        let slices = self.parts.broker.unsent(conn, usize::MAX);
        let sealed = web.seal(slices, FRAMED_BYTES_MAX, shared);
        if !sealed.is_empty() {
            self.ring.send(conn, sealed.pieces(), self.now_ms);
            link.plain_in_flight = Some(sealed.plain_len);
        }
    }
}
