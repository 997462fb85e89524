//! What a broker has to do with WebSocket connections. Their handshakes and frames are others' business: what reaches
//! [`Broker::handle_bytes`](super::Broker::handle_bytes) is NATS.
//!
//! Such a connection begins as a guest ([`Broker::open_guest`]): it has a slot and a time limit and nothing else. No account
//! counts it, monitoring does not see it, the log does not name it; in the reference an HTTP server has it. With the end of
//! its handshake ([`Broker::admit_guest`]) it gets its number and is a connection like others, that logs in by the rules of
//! the `websocket` block.

use std::net::SocketAddr;
use std::sync::Arc;

use super::core::Broker;
use super::log_lines::Level;
use super::secure::Secure;
use super::session::{CloseReason, Session};
use super::settings::Settings;
use crate::auth::Directory;
use crate::config::ConnectionType;
use crate::subject::interest::InterestAccess;
use crate::tls::{Facts, HandshakeError};
use crate::websocket::{CloseStatus, Visitor};
use crate::wire::connect::Connect;

/// Guests are numbered from here on, until they are connections.
pub const FIRST_GUEST: u64 = 1 << 63;

/// What is different for WebSocket connections.
#[derive(Debug, Clone)]
pub struct WebTerms {
    /// Who may connect.
    pub directory: Arc<Directory>,
    /// Time between pings.
    pub ping_interval_ms: u64,
    /// Time to show who one is.
    pub auth_timeout_ms: u64,
    /// Time for the handshakes, that of TLS included; 0 for no limit.
    pub handshake_timeout_ms: u64,
}

/// The WebSocket side of one connection.
#[derive(Debug)]
pub(super) struct Web {
    stage: Stage,
    visitor: Visitor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// In the handshake of TLS. The address is the server's end.
    Securing(SocketAddr),
    /// In that of WebSocket.
    Upgrading,
    Open,
}

impl Session {
    /// Whether it is no client: a WebSocket connection before the end of its handshakes, or one to another server.
    #[inline]
    pub fn is_guest(&self) -> bool {
        self.web.as_ref().is_some_and(|web| web.stage != Stage::Open) || self.is_route()
    }

    /// What kind of connection it is.
    pub fn connection_type(&self) -> ConnectionType {
        if self.web.is_some() { ConnectionType::WebSocket } else { ConnectionType::Standard }
    }

    /// How log lines call its address and number.
    pub(super) fn address_label(&self) -> String {
        let kind = if self.is_route() { "rid" } else { "cid" };
        let Some(web) = &self.web else { return format!("{} - {kind}:{}", self.addr, self.cid) };
        match &web.visitor.client_ip {
            None => format!("{} - wid:{}", self.addr, self.cid),
            Some(ip) if ip.contains(':') => format!("[{ip}]/{} - wid:{}", self.addr, self.cid),
            Some(ip) => format!("{ip}/{} - wid:{}", self.addr, self.cid),
        }
    }

    /// Fills in from cookies what a `CONNECT` leaves out.
    pub(super) fn add_cookies(&self, connect: &mut Connect) {
        let Some(Web { visitor, .. }) = self.web.as_deref() else { return };
        for (field, cookie) in [
            (&mut connect.user, &visitor.user),
            (&mut connect.pass, &visitor.pass),
            (&mut connect.auth_token, &visitor.token),
        ] {
            if field.is_empty() {
                field.clone_from(cookie);
            }
        }
    }
}

impl Settings {
    /// Who decides about a connection.
    pub(super) fn directory_of(&self, session: &Session) -> &Arc<Directory> {
        match (&self.web, &session.web) {
            (Some(web), Some(_)) => &web.directory,
            _ => &self.directory,
        }
    }

    pub(super) fn ping_interval_ms_of(&self, session: &Session) -> u64 {
        match (&self.web, &session.web) {
            (Some(web), Some(_)) => web.ping_interval_ms,
            _ => self.ping_interval_ms,
        }
    }

    pub(super) fn auth_timeout_ms_of(&self, session: &Session) -> u64 {
        match (&self.web, &session.web) {
            (Some(web), Some(_)) => web.auth_timeout_ms,
            _ => self.auth_timeout_ms,
        }
    }
}

impl CloseReason {
    /// What a WebSocket client is told about it.
    pub fn websocket_status(self) -> CloseStatus {
        match self {
            CloseReason::ClientClosed => CloseStatus::NormalClosure,
            CloseReason::AuthenticationTimeout
            | CloseReason::AuthenticationFailure
            | CloseReason::SlowConsumerPendingBytes
            | CloseReason::SlowConsumerWriteDeadline
            | CloseReason::MaxAccountConnectionsExceeded
            | CloseReason::MaxConnectionsExceeded
            | CloseReason::MaxControlLineExceeded
            | CloseReason::MaxSubscriptionsExceeded => CloseStatus::PolicyViolation,
            CloseReason::TlsHandshakeFailure => CloseStatus::TlsHandshake,
            CloseReason::ParseError
            | CloseReason::ProtocolViolation
            | CloseReason::BadClientProtocolVersion => CloseStatus::ProtocolError,
            CloseReason::MaxPayloadExceeded => CloseStatus::MessageTooBig,
            CloseReason::WriteError
            | CloseReason::ReadError
            | CloseReason::StaleConnection
            | CloseReason::ServerShutdown => CloseStatus::GoingAway,
            // The middle ones are routes' own.
            CloseReason::NoRespondersRequiresHeaders
            | CloseReason::WrongPort
            | CloseReason::WrongGateway
            | CloseReason::DuplicateRoute
            | CloseReason::ClusterNameConflict
            | CloseReason::DuplicateServerName
            | CloseReason::Kicked => CloseStatus::InternalServerError,
        }
    }
}

impl<A: InterestAccess> Broker<A> {
    /// Takes a new connection to the WebSocket port. `guest` numbers it for now; `secured_at` is the server's end of it if
    /// TLS comes first. As [`Broker::open`], but that nothing is said.
    pub fn open_guest(&mut self, guest: u64, addr: SocketAddr, secured_at: Option<SocketAddr>) -> u32 {
        let stage = secured_at.map_or(Stage::Upgrading, Stage::Securing);
        let conn =
            self.insert_session(guest, addr, Some(Box::new(Web { stage, visitor: Visitor::default() })));
        let timeout_ms = self.settings.web.as_ref().map_or(0, |web| web.handshake_timeout_ms);
        if timeout_ms > 0 {
            self.set_timer(conn, timeout_ms);
        }
        conn
    }

    /// Whether a connection is a guest.
    pub fn is_guest(&self, conn: u32) -> bool {
        self.local.sessions.get(conn as usize).is_some_and(Session::is_guest)
    }

    /// A guest has been upgraded: it is a connection with this number from now on, and greeted.
    pub fn admit_guest(&mut self, conn: u32, cid: u64, visitor: Visitor) {
        let started_us = self.local.now_us;
        let session = &mut self.local.sessions[conn as usize];
        let Some(web) = session.web.as_mut() else { unreachable!("it came as a guest") };
        (web.stage, web.visitor) = (Stage::Open, visitor);
        session.cid = cid;
        session.started_us = started_us;
        self.welcome(conn);
        self.set_opening_timer(conn);
        self.greet(conn);
    }

    /// Says to the log why a guest is not upgraded.
    pub fn log_guest(&mut self, conn: u32, reason: &str) {
        let addr = self.local.sessions[conn as usize].addr;
        self.local.log.push(Level::Error, format_args!("{addr} - websocket handshake error: {reason}"));
    }

    /// Says to the log what is wrong with the frames of a connection.
    pub fn log_read_error(&mut self, conn: u32, error: &str) {
        self.log_session(conn, Level::Error, &format!("read error: {error}"));
    }

    /// The largest payload that a connection may send.
    pub fn payload_max(&self, conn: u32) -> usize {
        self.local.sessions[conn as usize].limits.payload_max
    }

    /// A guest's connection is encrypted; whether it is a guest's.
    pub(super) fn secure_guest(&mut self, conn: u32, facts: &Arc<Facts>) -> bool {
        let session = &mut self.local.sessions[conn as usize];
        let Some(web) = &mut session.web else { return false };
        if let Stage::Securing(local) = web.stage {
            session.secure = Some(Box::new(Secure::of_guest(local, facts.clone())));
            web.stage = Stage::Upgrading;
        }
        true
    }

    /// The handshake of a guest's TLS has failed, or ended; whether it is a guest's that was in it.
    pub(super) fn fail_guest(
        &mut self,
        conn: u32,
        error: Option<&HandshakeError>,
        reason: CloseReason,
    ) -> bool {
        let session = &self.local.sessions[conn as usize];
        let Some(Web { stage: Stage::Securing(local), .. }) = session.web.as_deref() else { return false };
        let addr = session.addr;
        let text = match (error, reason) {
            (Some(error), _) => error.to_string(),
            (None, CloseReason::ReadError) => {
                format!("read tcp {local}->{addr}: read: connection reset by peer")
            }
            (None, CloseReason::TlsHandshakeFailure) => format!("read tcp {local}->{addr}: i/o timeout"),
            (None, _) => HandshakeError::Ended.to_string(),
        };
        self.local.log.push(Level::Error, format_args!("websocket: TLS handshake error from {addr}: {text}"));
        self.close(conn, CloseReason::ClientClosed);
        true
    }

    /// The time of a guest is over.
    pub(super) fn dismiss_guest(&mut self, conn: u32) {
        if !self.fail_guest(conn, None, CloseReason::TlsHandshakeFailure) {
            self.close(conn, CloseReason::ClientClosed);
        }
    }
}
