//! What a broker has to do with the encryption of its connections: when `INFO` comes, how long the handshake may take,
//! what is agreed, what the log says. The bytes are others' business: what reaches [`Broker::handle_bytes`] is plaintext.
//!
//! A connection of a server with TLS begins with [`Broker::open_secure`] and [`Broker::await_handshake`]. Its phases:
//!
//! ```text
//! Undecided ──── the client begins ───────────────┐
//!     └─ in time nothing: INFO ─┐                 │
//! (otherwise: INFO at once) ────┴─ Optional ──┐   │
//!                               └─ Handshake ─┴───┴── Secured
//! ```
//!
//! *Undecided* is there only with `handshake_first` and a time to wait, *Optional* only with `allow_non_tls`: whoever does
//! not begin a handshake there is an unencrypted client from then on, and has no phase.

use std::net::SocketAddr;
use std::sync::Arc;

use super::core::Broker;
use super::log_lines::Level;
use super::session::CloseReason;
use crate::config::HandshakeFirst;
use crate::subject::interest::InterestAccess;
use crate::tls::{Facts, HandshakeError};
use crate::wire::error_text::ErrorText;

/// The first byte of a handshake.
const HANDSHAKE_RECORD: u8 = 0x16;

/// How connections are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsTerms {
    /// Whether the handshake comes before `INFO`.
    pub first: HandshakeFirst,
    /// Clients may do without.
    pub optional: bool,
    /// Time for the handshake, in milliseconds.
    pub timeout_ms: u64,
    /// Connections taken per second; 0 for no limit.
    pub connections_per_second: u32,
}

/// The encryption of one connection.
#[derive(Debug)]
pub(super) struct Secure {
    phase: Phase,
    /// The handshake came before `INFO`.
    first: bool,
    /// The server's end, for the log.
    local: SocketAddr,
    facts: Option<Arc<Facts>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Undecided,
    Optional,
    Handshake,
    Secured,
}

/// What a connection's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// The protocol itself.
    Plain,
    /// TLS.
    Tls,
}

/// What monitoring shows of a connection's encryption.
#[derive(Debug, Clone, PartialEq)]
pub struct SecureRow {
    /// What was agreed.
    pub facts: Arc<Facts>,
    /// The handshake came before `INFO`.
    pub first: bool,
}

impl Secure {
    /// That of a WebSocket connection, whose handshake is done before it is one.
    pub fn of_guest(local: SocketAddr, facts: Arc<Facts>) -> Secure {
        Secure { phase: Phase::Secured, first: false, local, facts: Some(facts) }
    }

    pub fn facts(&self) -> Option<&Facts> {
        self.facts.as_deref()
    }

    pub fn row(&self) -> Option<SecureRow> {
        self.facts.as_ref().map(|facts| SecureRow { facts: facts.clone(), first: self.first })
    }
}

impl<A: InterestAccess> Broker<A> {
    /// Takes a new connection that is to be encrypted, and greets it unless the handshake comes first. `local` is the
    /// server's end of it. As [`Broker::open`]; [`Broker::await_handshake`] follows, or a refusal.
    pub fn open_secure(&mut self, cid: u64, addr: SocketAddr, local: SocketAddr) -> u32 {
        let conn = self.insert(cid, addr);
        let first = self.settings.tls.map_or(HandshakeFirst::No, |terms| terms.first);
        let secure = Secure { phase: Phase::Undecided, first: false, local, facts: None };
        self.local.sessions[conn as usize].secure = Some(Box::new(secure));
        if first == HandshakeFirst::No {
            self.greet(conn);
        }
        conn
    }

    /// Waits for the client to begin.
    pub fn await_handshake(&mut self, conn: u32) {
        let Some(terms) = self.settings.tls else { return };
        match terms.first {
            HandshakeFirst::Within(time) => self.set_timer(conn, time.as_millis() as u64),
            HandshakeFirst::Yes => self.expect_handshake(conn, true),
            HandshakeFirst::No => self.after_info(conn, terms),
        }
    }

    /// Refuses a connection because there are too many a second.
    pub fn throttle(&mut self, conn: u32) {
        self.local.send_error(conn, &ErrorText::ConnectionThrottling);
        self.close(conn, CloseReason::MaxConnectionsExceeded);
    }

    /// What the bytes of a connection are whose first one this is.
    pub fn carrier(&mut self, conn: u32, first_byte: u8) -> Carrier {
        let Some(secure) = &self.local.sessions[conn as usize].secure else { return Carrier::Plain };
        match secure.phase {
            Phase::Undecided => self.expect_handshake(conn, true),
            Phase::Optional if first_byte == HANDSHAKE_RECORD => self.expect_handshake(conn, false),
            Phase::Optional => {
                self.go_without(conn);
                return Carrier::Plain;
            }
            Phase::Handshake | Phase::Secured => {}
        }
        Carrier::Tls
    }

    /// The handshake is done.
    pub fn handle_secured(&mut self, conn: u32, facts: Facts) {
        let facts = Arc::new(facts);
        if self.secure_guest(conn, &facts) {
            return;
        }
        let session = &mut self.local.sessions[conn as usize];
        let Some(secure) = session.secure.as_mut().filter(|_| session.closing.is_none()) else { return };
        let text = format!("TLS version {}, cipher suite {}", facts.version, facts.suite);
        let first = secure.first;
        secure.phase = Phase::Secured;
        secure.facts = Some(facts);
        self.log_session(conn, Level::Debug, "TLS handshake complete");
        self.log_session(conn, Level::Debug, &text);
        self.set_opening_timer(conn);
        if first {
            self.greet(conn);
        }
    }

    /// The handshake has failed.
    pub fn handle_insecure(&mut self, conn: u32, error: &HandshakeError) {
        if !self.is_open(conn) || self.fail_guest(conn, Some(error), CloseReason::TlsHandshakeFailure) {
            return;
        }
        if let Some(detail) = error.detail() {
            self.log_session(conn, Level::Debug, &detail);
        }
        let level = if error.is_common() { Level::Debug } else { Level::Error };
        self.fail_handshake(conn, level, &error.to_string());
    }

    /// The client has ended the connection, or it broke.
    pub fn end(&mut self, conn: u32, reason: CloseReason) {
        if self.is_open(conn) && self.fail_guest(conn, None, reason) {
            return;
        }
        let session = &self.local.sessions[conn as usize];
        match &session.secure {
            Some(secure) if secure.phase == Phase::Handshake && session.closing.is_none() => {
                let text = match reason {
                    CloseReason::ReadError => {
                        format!("read tcp {}->{}: read: connection reset by peer", secure.local, session.addr)
                    }
                    _ => HandshakeError::Ended.to_string(),
                };
                self.fail_handshake(conn, Level::Error, &text);
            }
            _ => self.close(conn, reason),
        }
    }

    /// Does what the time says, if the connection is before the end of a handshake. Whether it is.
    pub(super) fn handle_secure_timer(&mut self, conn: u32) -> bool {
        let session = &self.local.sessions[conn as usize];
        let (Some(secure), Some(terms)) = (&session.secure, self.settings.tls) else { return false };
        match secure.phase {
            Phase::Undecided => {
                self.greet(conn);
                self.after_info(conn, terms);
            }
            Phase::Optional => self.go_without(conn),
            Phase::Handshake => {
                let text = format!("read tcp {}->{}: i/o timeout", secure.local, session.addr);
                self.fail_handshake(conn, Level::Debug, &text);
            }
            Phase::Secured => return false,
        }
        true
    }

    fn after_info(&mut self, conn: u32, terms: TlsTerms) {
        if terms.optional {
            self.set_phase(conn, Phase::Optional);
            self.set_timer(conn, terms.timeout_ms);
        } else {
            self.expect_handshake(conn, false);
        }
    }

    fn expect_handshake(&mut self, conn: u32, first: bool) {
        self.set_phase(conn, Phase::Handshake);
        if let Some(secure) = &mut self.local.sessions[conn as usize].secure {
            secure.first = first;
        }
        self.log_session(conn, Level::Debug, "Starting TLS client connection handshake");
        let timeout_ms = self.settings.tls.map_or(0, |terms| terms.timeout_ms);
        self.set_timer(conn, timeout_ms);
    }

    fn set_phase(&mut self, conn: u32, phase: Phase) {
        if let Some(secure) = &mut self.local.sessions[conn as usize].secure {
            secure.phase = phase;
        }
    }

    /// The connection stays as it is.
    fn go_without(&mut self, conn: u32) {
        self.local.sessions[conn as usize].secure = None;
        self.set_opening_timer(conn);
    }

    fn fail_handshake(&mut self, conn: u32, level: Level, text: &str) {
        self.log_session(conn, level, &format!("TLS handshake error: {text}"));
        self.close(conn, CloseReason::TlsHandshakeFailure);
    }
}
