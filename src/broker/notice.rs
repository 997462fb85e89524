//! What happens to connections that the system account may want to know: put into the batch for the server's own
//! client, which makes events of it.
//!
//! Nothing is noted as long as nobody subscribes to anything in the system account; that is asked once per
//! connection that comes or goes, never per message. Whether somebody is there for this very event is the business
//! of whoever publishes it.

use super::core::Broker;
use super::inspect::ConnectionRow;
use super::session::CloseReason;
use crate::subject::interest::InterestAccess;

/// Something that has happened.
#[derive(Debug)]
pub enum Notice {
    /// A connection has shown who it is.
    Connected(ConnectionRow),
    /// A connection has ended.
    Disconnected(Parting),
    /// A connection could not show who it is. It is in no account yet, and is counted to the global one.
    Unauthorized(Parting),
    /// The number of connections of the account in this slot has changed.
    AccountChanged(u16),
}

/// The end of a connection.
#[derive(Debug)]
pub struct Parting {
    /// As it was. Its account is named even if it never showed who it is.
    pub row: ConnectionRow,
    /// Slot of its account.
    pub account: u16,
    /// When it ended, on the clock of [`Broker::begin_turn`].
    pub stopped_us: u64,
    /// Why.
    pub reason: CloseReason,
}

impl<A: InterestAccess> Broker<A> {
    pub(super) fn find_system_account(&mut self) {
        let accounts = self.settings.directory.accounts();
        self.system_account = accounts.iter().find(|account| account.is_system).map(|account| account.slot);
    }

    /// Whether somebody may want to know what happens to connections.
    fn is_observed(&self) -> bool {
        self.system_account.is_some_and(|slot| self.has_clients(slot))
    }

    fn has_clients(&self, slot: u16) -> bool {
        // An account of the latest directory is there as soon as its index is.
        let account = self.accounts.get(usize::from(slot));
        account.is_some_and(|account| account.interest.read(|interest| interest.has_clients()))
    }

    fn note(&mut self, notice: Notice) {
        let outgoing = &mut self.outgoing[self.workers];
        outgoing.current.push_notice(Box::new(notice));
        outgoing.rotate();
    }

    pub(super) fn note_connected(&mut self, conn: u32) {
        if self.is_observed() {
            let row = self.row_with_account(conn);
            self.note(Notice::Connected(row));
        }
    }

    pub(super) fn note_disconnected(&mut self, conn: u32, reason: CloseReason) {
        // Who has not been upgraded yet is no client.
        if self.is_observed() && !self.is_guest(conn) {
            let parting = self.parting(conn, reason);
            self.note(Notice::Disconnected(parting));
        }
    }

    /// This one is told in the account too.
    pub(super) fn note_unauthorized(&mut self, conn: u32, reason: CloseReason) {
        let account = self.local.sessions[conn as usize].user.account.slot;
        if self.system_account.is_some() && (self.is_observed() || self.has_clients(account)) {
            let parting = self.parting(conn, reason);
            self.note(Notice::Unauthorized(parting));
        }
    }

    pub(super) fn note_account_changed(&mut self, account: u16) {
        if self.is_observed() {
            self.note(Notice::AccountChanged(account));
        }
    }

    fn parting(&self, conn: u32, reason: CloseReason) -> Parting {
        Parting {
            row: self.row_with_account(conn),
            account: self.local.sessions[conn as usize].user.account.slot,
            stopped_us: self.local.now_us,
            reason,
        }
    }

    fn row_with_account(&self, conn: u32) -> ConnectionRow {
        let session = &self.local.sessions[conn as usize];
        ConnectionRow { account: session.user.account.name.clone(), ..self.describe(session) }
    }
}
