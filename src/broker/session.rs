//! One client connection: what it negotiated, its output, its subscriptions by sid, its counters.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use hashbrown::HashTable;

use super::login::Checking;
use super::permissions::Replies;
use super::routes::RouteLink;
use super::secure::Secure;
use super::web::Web;
use crate::auth::User;
use crate::base::output::Output;
use crate::subject::fanout::Memo;
use crate::wire::connect::Connect;
use crate::wire::{Decoder, Limits};

/// A connection of one worker.
#[derive(Debug)]
pub struct Session {
    /// Number of the connection, unique in this run of the server.
    pub cid: u64,
    /// The client's address.
    pub addr: SocketAddr,
    /// Slot of its account.
    pub account: u16,
    /// Who it is; nobody in particular before it has shown that.
    pub user: Arc<User>,
    /// Set while its password is held against a hash elsewhere.
    pub(super) checking: Option<Box<Checking>>,
    /// Where it may answer what it gets: replies that it got.
    pub(super) replies: Option<Box<Replies>>,
    /// Set if it is encrypted, or may come to be.
    pub(super) secure: Option<Box<Secure>>,
    /// Set if it is a WebSocket connection.
    pub(super) web: Option<Box<Web>>,
    /// Set if it leads to another server, or is to.
    pub(super) route: Option<Box<RouteLink>>,
    pub(super) decoder: Decoder,
    pub(super) limits: Limits,
    pub(super) memo: Memo,
    /// The id of its permissions, where they restrict what it publishes; else 0.
    pub(super) rules: u32,
    /// What goes out.
    pub(super) output: Output,
    /// Slots of its subscriptions, found by the sid.
    pub(super) sids: HashTable<u32>,
    pub(super) flags: Flags,
    /// What the client said of itself, once it has.
    pub(super) connect: Option<Box<Connect>>,
    /// Why it is being closed.
    pub(super) closing: Option<CloseReason>,
    /// Set while its publishing is held back.
    pub(super) hold: Option<Hold>,
    /// Messages and bytes from and to the client.
    pub counters: Counters,
    pub(super) pings_out: u32,
    pub(super) timer_at_ms: u64,
    pub(super) last_input_ms: u64,
    /// When output last went out, or started to wait.
    pub(super) progress_ms: u64,
    /// Since when more has been waiting for it than producers are held back for; 0 if it keeps up.
    pub(super) behind_since_ms: u64,
    /// When the last `PING` was written; 0 if none was.
    pub(super) ping_sent_us: u64,
    /// The last measured round trip, that of `INFO` and `CONNECT` at first; 0 for none.
    pub(super) rtt_us: u64,
    /// When it was accepted.
    pub(super) started_us: u64,
    /// When it last sent a message or changed a subscription, or a message was last sent to it.
    pub(super) active_ms: u64,
    /// `counters.out_msgs` when its last send began.
    pub(super) out_msgs_sent: u64,
    /// Times that producers were told to hold back for it.
    pub(super) stalls: u32,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Flags {
    pub verbose: bool,
    pub pedantic: bool,
    pub echo: bool,
    pub headers: bool,
    pub no_responders: bool,
    /// `CONNECT` has been accepted.
    pub connected: bool,
    /// It is connected, no rule restricts what it publishes, and no mapping changes it.
    pub publishes_freely: bool,
    /// Its account has mappings.
    pub maps: bool,
    /// Replies that it gets are noted.
    pub notes_replies: bool,
    /// A `PONG` has come: the round trip is that of a `PING`.
    pub ponged: bool,
    /// The first `PING` has been answered.
    pub first_pong_sent: bool,
    /// Listed as having unsent output.
    pub dirty: bool,
    /// Producers are told to hold back for it.
    pub congested: bool,
    /// Has been held once for the bytes at hand; not again before the next read.
    pub hold_spent: bool,
    /// Its subscriptions are gone from the index.
    pub torn_down: bool,
    /// Has come from another worker, and something for it may still be on the way round by that one: nothing of it is
    /// sent or read (see [`super::relocation`]).
    pub settling: bool,
    /// Its account counts it.
    pub counted: bool,
}

/// Why a publisher is held back, and until when at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hold {
    /// The consumer that has to catch up: its worker and slot there.
    pub on: (u16, u32),
    pub until_ms: u64,
}

/// Messages and bytes of one connection, in the sense of `/connz`: `in` is from the client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages from the client.
    pub in_msgs: u64,
    /// Their headers and payloads.
    pub in_bytes: u64,
    /// Messages to the client.
    pub out_msgs: u64,
    /// Their headers and payloads.
    pub out_bytes: u64,
}

/// Why a connection ended. The texts are the reference's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's text says it")]
pub enum CloseReason {
    #[error("Client Closed")]
    ClientClosed,
    #[error("Authentication Timeout")]
    AuthenticationTimeout,
    #[error("Authentication Failure")]
    AuthenticationFailure,
    #[error("TLS Handshake Failure")]
    TlsHandshakeFailure,
    #[error("Slow Consumer (Pending Bytes)")]
    SlowConsumerPendingBytes,
    #[error("Slow Consumer (Write Deadline)")]
    SlowConsumerWriteDeadline,
    #[error("Write Error")]
    WriteError,
    #[error("Read Error")]
    ReadError,
    #[error("Parse Error")]
    ParseError,
    #[error("Stale Connection")]
    StaleConnection,
    #[error("Protocol Violation")]
    ProtocolViolation,
    #[error("Bad Client Protocol Version")]
    BadClientProtocolVersion,
    #[error("Maximum Connections Exceeded")]
    MaxConnectionsExceeded,
    #[error("Maximum Account Connections Exceeded")]
    MaxAccountConnectionsExceeded,
    #[error("Maximum Subscriptions Exceeded")]
    MaxSubscriptionsExceeded,
    #[error("Maximum Message Payload Exceeded")]
    MaxPayloadExceeded,
    #[error("Maximum Control Line Exceeded")]
    MaxControlLineExceeded,
    #[error("No Responders Requires Headers")]
    NoRespondersRequiresHeaders,
    #[error("Incorrect Port")]
    WrongPort,
    #[error("Wrong Gateway")]
    WrongGateway,
    #[error("Duplicate Route")]
    DuplicateRoute,
    #[error("Cluster Name Conflict")]
    ClusterNameConflict,
    #[error("Duplicate Server Name")]
    DuplicateServerName,
    #[error("Kicked")]
    Kicked,
    #[error("Server Shutdown")]
    ServerShutdown,
}

impl CloseReason {
    /// Whether the client gets what is queued for it (an error text, messages, answers to what it sent before it closed
    /// its side) before the socket is closed.
    pub fn flushes(self) -> bool {
        !matches!(
            self,
            CloseReason::SlowConsumerPendingBytes
                | CloseReason::SlowConsumerWriteDeadline
                | CloseReason::WriteError
                | CloseReason::ReadError
        )
    }
}

impl Session {
    /// Whether its password is being checked. It must stay where it is until that is done.
    pub fn is_checking(&self) -> bool {
        self.checking.is_some()
    }

    /// Whether monitoring shows it.
    pub(super) fn is_shown(&self) -> bool {
        self.closing.is_none() && !self.is_guest()
    }

    /// How log lines name the connection.
    pub fn label(&self) -> String {
        let mut label = self.address_label();
        // What a client says of itself is shown once it is let in.
        let Some(connect) = self.connect.as_deref().filter(|_| self.flags.connected) else { return label };
        let mut description = Vec::new();
        if !connect.version.is_empty() {
            description.push(format!("v{}", connect.version));
        }
        for part in [&connect.lang, &connect.name] {
            if !part.is_empty() {
                description.push(part.clone());
            }
        }
        if !description.is_empty() {
            let _ = write!(label, " - {:?}", description.join(":"));
        }
        let user = if !self.user.name.is_empty() {
            self.user.label()
        } else if !connect.nkey.is_empty() {
            format!("nkey:{}", connect.nkey)
        } else if !connect.user.is_empty() {
            format!("user:{}", connect.user)
        } else if !connect.auth_token.is_empty() {
            "token".to_owned()
        } else {
            return label;
        };
        let _ = write!(label, " - {:?}", format!("{}/{user}", self.user.account.name));
        label
    }

    /// Has its account count it no more.
    pub(super) fn leave_account(&mut self) {
        if std::mem::take(&mut self.flags.counted) {
            self.user.account.leave();
        }
    }

    /// How log lines name who it is, where they do not name the connection.
    pub(super) fn shown_user(&self) -> String {
        match self.user.shown() {
            Some(user) => user,
            None => self.claimed_user().unwrap_or_else(|| "N/A".to_owned()),
        }
    }

    /// How log lines name who could not prove who it is.
    pub(super) fn claimed_user(&self) -> Option<String> {
        let connect = self.connect.as_deref()?;
        if !connect.nkey.is_empty() {
            Some(format!("Nkey {:?}", connect.nkey))
        } else if !connect.user.is_empty() {
            Some(format!("User {:?}", connect.user))
        } else if !connect.auth_token.is_empty() {
            Some("Token \"[REDACTED]\"".to_owned())
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_stays_within_the_memory_budget_of_an_idle_connection() {
        assert!(size_of::<Session>() <= 512, "{}", size_of::<Session>());
    }
}
