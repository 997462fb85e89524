//! A worker's part in routes to other servers: sockets in, addresses to dial out. All of it is for the one worker that has the routes; the others
//! wake it.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use super::Worker;
use crate::broker::ClientUrls;
use crate::cluster::DialId;
use crate::io::listener::Entrance;
use crate::io::socket_driver::SocketDriver;
use crate::server::routes::{Outcome, RouteDesk};
use crate::server::shared::Accepted;

/// Connections of other servers at a time, with those that are not upgraded yet at that worker; further ones are closed at once.
const ROUTES_MAX: usize = 8_192;

impl<D: SocketDriver> Worker<D> {
    /// Takes what has been dialed, says what is to be dialed, and tells other servers what has changed. Whether it did something.
    pub(super) fn look_after_routes(&mut self) -> bool {
        let shared = self.parts.shared.clone();
        let Some(desk) = &shared.routes else { return false };
        let version = desk.urls_version.load(Ordering::Acquire);
        if version != self.urls_version {
            self.urls_version = version;
            self.parts.broker.advertise(&desk.urls());
        }
        if desk.worker != self.parts.worker {
            shared.knock_for_routes();
            return false;
        }
        let outcomes = desk.take_outcomes();
        let is_busy = !outcomes.is_empty();
        for Outcome { id, result } in outcomes {
            match result {
                Ok((fd, addr)) => {
                    shared.doors[desk.worker].guests.fetch_add(1, Ordering::Relaxed);
                    let cid = shared.next_cid.fetch_add(1, Ordering::Relaxed);
                    self.take_route(cid, fd, addr, Some(id));
                }
                Err(error) => self.parts.broker.dial_failed(id, &error),
            }
        }
        if !self.stopping && shared.is_open.load(Ordering::Relaxed) {
            while let Some(dial) = self.parts.broker.poll_dial() {
                desk.dial(dial);
            }
        }
        self.parts.broker.share_interest();
        if let Some((count, urls)) = self.parts.broker.poll_cluster_change() {
            desk.publish(count, if desk.advertises { urls } else { ClientUrls::default() });
            for door in &shared.doors {
                door.waker.wake();
            }
        }
        is_busy
    }

    /// Gives a connection from another server to the worker that has the routes.
    pub(super) fn place_route(&mut self, fd: OwnedFd, addr: SocketAddr) {
        let shared = &self.parts.shared;
        let Some(desk) = &shared.routes else { return };
        let door = &shared.doors[desk.worker];
        if door.guests.fetch_add(1, Ordering::Relaxed) >= ROUTES_MAX {
            door.guests.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let cid = shared.next_cid.fetch_add(1, Ordering::Relaxed);
        door.accepted.lock().push(Accepted { cid, fd, addr, entrance: Entrance::Route, refusal: None });
        door.has_accepted.store(true, Ordering::Release);
        if desk.worker != self.parts.worker {
            door.knock();
        }
    }

    /// Takes a connection to another server, or from one.
    pub(super) fn take_route(&mut self, cid: u64, fd: OwnedFd, addr: SocketAddr, dial: Option<DialId>) {
        let opened = if self.stopping { None } else { self.parts.broker.open_route(cid, addr, dial) };
        let Some(conn) = opened else {
            self.parts.shared.doors[self.parts.worker].guests.fetch_sub(1, Ordering::Relaxed);
            return;
        };
        self.ring.add(conn, fd);
        self.ring.arm(conn);
    }

    /// Whether there is nothing of that to do.
    pub(super) fn has_no_route_work(&self) -> bool {
        let is_idle = |desk: &RouteDesk| {
            let is_idle = desk.worker != self.parts.worker || !desk.has_outcomes() && !desk.watch.is_due();
            is_idle && desk.urls_version.load(Ordering::SeqCst) == self.urls_version
        };
        self.parts.shared.routes.as_ref().is_none_or(is_idle)
    }
}
