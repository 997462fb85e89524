//! What stands between a worker's sockets and its broker: TLS, WebSocket, or WebSocket in TLS.
//!
//! A connection with something in between has a [`Link`]; plain ones have none, and cost one look at a counter per read and
//! per send. [`super::secured`] is TLS, [`super::framed`] is WebSocket. A link moves with its socket from worker to worker.
//!
//! Bytes that arrive go through the layers when their turn comes to be handled, not before, so that a connection that has to
//! wait keeps them as they are. What goes out stays in the connection's output until the kernel has sent it, sealed or framed:
//! bounds and the care for slow consumers are those of every connection.

use std::sync::Arc;

use super::framed::{Web, WebEntrance};
use super::secured::Tls;
use super::{Read, ReadBytes, Worker};
use crate::broker::CloseReason;
use crate::io::socket_driver::{SEND_SLICES_MAX, SocketDriver};
use crate::tls::Acceptor;

/// The connections of one worker that have something in between, and what they share.
pub(super) struct Links {
    /// By connection.
    pub(super) links: Vec<Option<Box<Link>>>,
    count: usize,
    pub tls: super::secured::Shared,
    pub web: super::framed::Shared,
}

/// One of them.
#[derive(Debug)]
pub struct Link {
    pub(super) cid: u64,
    pub(super) tls: Option<Tls>,
    pub(super) web: Option<Web>,
    /// How much of the output the kernel is sending; `None` if it is sent as it is.
    pub(super) plain_in_flight: Option<usize>,
}

impl Links {
    /// What new connections are accepted with is given.
    pub fn new(acceptor: Option<Arc<Acceptor>>, entrance: Option<Arc<WebEntrance>>) -> Links {
        let (tls, web) = (super::secured::Shared::new(acceptor), super::framed::Shared::new(entrance));
        Links { links: Vec::new(), count: 0, tls, web }
    }

    /// Whether a connection has one.
    #[inline]
    pub fn has(&self, conn: u32) -> bool {
        self.count > 0 && self.links.get(conn as usize).is_some_and(Option::is_some)
    }

    pub fn get(&self, conn: u32) -> Option<&Link> {
        if self.count == 0 { None } else { self.links.get(conn as usize)?.as_deref() }
    }

    pub fn get_mut(&mut self, conn: u32) -> Option<&mut Link> {
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

    /// Whether a thread has something of the connection without which nothing can be done.
    #[inline]
    pub fn is_away(&self, conn: u32) -> bool {
        self.get(conn).and_then(|link| link.tls.as_ref()).is_some_and(Tls::is_away)
    }

    /// Whether a connection's output cannot be sent any more, only TLS's last words.
    pub fn is_broken(&self, conn: u32) -> bool {
        self.get(conn).and_then(|link| link.tls.as_ref()).is_some_and(Tls::is_broken)
    }

    /// Whether a layer has something to say to a client.
    pub fn has_control(&self, conn: u32) -> bool {
        self.get(conn).is_some_and(|link| {
            link.tls.as_ref().is_some_and(Tls::has_control)
                || link.web.as_ref().is_some_and(Web::has_control) && !link.is_handshaking()
        })
    }
}

impl Link {
    /// Whether nothing can be said in TLS yet.
    fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| !tls.is_open())
    }
}

impl<D: SocketDriver> Worker<D> {
    /// Takes what has arrived for a connection with a link through its layers. Whether something of the protocol is there
    /// to be handled then, in place of it.
    pub(super) fn open_read(&mut self, read: &mut Read) -> bool {
        if read.layer == Layer::Socket {
            if self.links.get(read.conn).is_some_and(|link| link.tls.is_some()) && !self.open_sealed(read) {
                return false;
            }
            read.layer = Layer::Opened;
        }
        let is_framed = self.links.get(read.conn).is_some_and(|link| link.web.is_some());
        let is_there = !is_framed || self.open_framed(read);
        read.layer = Layer::Protocol;
        is_there
    }

    pub(super) fn start_send_unless_busy(&mut self, conn: u32) {
        if !self.ring.is_sending(conn) {
            self.start_send(conn);
        }
    }

    /// Starts a send of a connection with a link.
    pub(super) fn start_link_send(&mut self, conn: u32) {
        let pending = self.parts.broker.pending_bytes(conn);
        let Some(link) = self.links.get_mut(conn) else { unreachable!("the caller has looked") };
        match (&link.tls, &link.web) {
            (Some(tls), None) if pending > 0 && !tls.is_encrypting() => {
                // `INFO`, before the handshake.
                self.parts.broker.handle_send_started(conn);
                let slices = self.parts.broker.unsent(conn, SEND_SLICES_MAX);
                self.ring.send(conn, slices, self.now_ms);
            }
            (Some(_), _) => self.start_sealed_send(conn),
            (None, _) => self.start_framed_send(conn),
        }
    }

    /// A send of a connection with a link is over. How much of the output that was.
    pub(super) fn end_link_send(&mut self, conn: u32, sent: usize) -> usize {
        let Links { links, tls: shared_tls, web: shared_web, .. } = &mut self.links;
        let Some(link) = links.get_mut(conn as usize).and_then(Option::as_deref_mut) else { return sent };
        if let Some(tls) = &mut link.tls {
            tls.end_send(shared_tls);
        }
        if let Some(web) = &mut link.web {
            web.end_send(shared_web);
        }
        link.plain_in_flight.take().unwrap_or(sent)
    }

    /// Whether something of a connection that closes for `reason` is still to be sent, behind its output. Its layers say
    /// that nothing more comes, the outer one last.
    pub(super) fn is_saying_goodbye(&mut self, conn: u32, reason: CloseReason) -> bool {
        let Some(link) = self.links.get_mut(conn) else { return false };
        if let Some(web) = &mut link.web {
            web.say_goodbye(reason);
        }
        if !link.web.as_ref().is_some_and(Web::has_control)
            && let Some(tls) = &mut link.tls
        {
            tls.say_goodbye();
        }
        if self.links.has_control(conn) {
            self.start_send_unless_busy(conn);
        }
        self.ring.is_sending(conn) || self.links.has_control(conn)
    }
}

/// How far the bytes of a read have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer {
    /// As they have arrived.
    Socket,
    /// Out of TLS, if there is any.
    Opened,
    /// The protocol itself.
    Protocol,
}

/// The bytes of a read, to be changed in place.
pub(super) fn bytes_of<'a, D: SocketDriver>(ring: &'a mut D, bytes: &'a mut ReadBytes) -> &'a mut [u8] {
    match bytes {
        ReadBytes::Leased(lease) => ring.bytes_mut(lease),
        ReadBytes::Kept(kept) => kept,
    }
}
