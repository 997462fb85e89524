//! From `CONNECT` to a user: what a client shows is put to the directory, and what that decides is done.
//!
//! A decision may need a password to be held against a hash, which takes far too long here. Then the connection waits:
//! the comparison goes out with [`Broker::poll_password_check`], what the client sends meanwhile is kept, and
//! [`Broker::handle_verdict`] goes on with it. A connection that waits costs its worker nothing, and may keep only so
//! much input: a flood of logins cannot stall the traffic of others.
//!
//! A reload asks again: whoever the new directory knows with the same secret stays as it is, all others are decided
//! about anew by what they have shown.

use std::sync::Arc;

use super::Input;
use super::core::{Broker, PasswordCheck};
use super::log_lines::Level;
use super::session::CloseReason;
use crate::auth::{CertificateMatch, Credentials, Decision, User};
use crate::subject::fanout::Memo;
use crate::subject::interest::InterestAccess;
use crate::wire::connect::Connect;
use crate::wire::error_text::ErrorText;

/// Bytes that a client may send while its password is being checked. Clients wait for the answer to their first `PING`;
/// one that streams at once, and gets this far, is refused.
pub const UNCHECKED_INPUT_BYTES_MAX: usize = 64 * 1024;

/// A connection whose password is being checked.
#[derive(Debug)]
pub(super) struct Checking {
    /// Names the check: verdicts of earlier ones do not count.
    serial: u32,
    /// Who it is if the password is right.
    user: Option<Arc<User>>,
    occasion: Occasion,
    /// What has arrived since.
    input: Vec<u8>,
}

/// Why a decision is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Occasion {
    Connect,
    Reload,
}

/// What became of a [`PasswordCheck`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is the password.
    Right,
    /// It is not.
    Wrong,
    /// There were too many before it, and its time ran out.
    TooLate,
}

impl<A: InterestAccess> Broker<A> {
    pub(super) fn handle_connect(&mut self, conn: u32, json: &[u8]) {
        let session = &mut self.local.sessions[conn as usize];
        let earlier = session.connect.take();
        let first = earlier.is_none();
        let mut connect = earlier.unwrap_or_default();
        if let Err(error) = connect.merge(json) {
            self.log_session(conn, Level::Error, &format!("processConnect: {error}"));
            return self.close(conn, CloseReason::ProtocolViolation);
        }
        session.add_cookies(&mut connect);
        session.connect = Some(connect);
        session.active_ms = self.local.now_ms;
        if first {
            session.rtt_us = self.local.now_us.saturating_sub(session.started_us);
        } else {
            // The connection may belong to another account now; its subscriptions stay behind, as in the reference.
            self.remove_all_subscriptions(conn);
        }
        self.decide(conn, Occasion::Connect);
    }

    /// Puts what a connection has shown to the directory.
    fn decide(&mut self, conn: u32, occasion: Occasion) {
        let session = &self.local.sessions[conn as usize];
        let nothing = Connect::default();
        let connect = session.connect.as_deref().unwrap_or(&nothing);
        let directory = self.settings.directory_of(session);
        if directory.asks_for_certificate(&connect.nkey) && !self.take_user_of_certificate(conn, occasion) {
            return self.refuse_unauthorized(conn);
        }
        let session = &self.local.sessions[conn as usize];
        let connect = session.connect.as_deref().unwrap_or(&nothing);
        let directory = self.settings.directory_of(session);
        let nonce = directory.nonce(session.cid).unwrap_or_default();
        let decision = directory.decide(&Credentials {
            user: &connect.user,
            password: &connect.pass,
            token: &connect.auth_token,
            nkey: &connect.nkey,
            signature: &connect.sig,
            nonce: nonce.as_bytes(),
            connection: session.connection_type(),
        });
        match decision {
            Decision::Granted(user) => self.admit(conn, user, occasion),
            Decision::Refused => self.refuse_unauthorized(conn),
            Decision::Checking(check, user) => {
                self.next_check = self.next_check.wrapping_add(1);
                let serial = self.next_check;
                let session = &mut self.local.sessions[conn as usize];
                let input = session.checking.take().map(|checking| checking.input).unwrap_or_default();
                session.checking = Some(Box::new(Checking { serial, user, occasion, input }));
                self.local.checks.push_back(PasswordCheck { conn, serial, check });
            }
        }
    }

    /// Calls a connection by the user that its certificate belongs to. Whether there is one.
    fn take_user_of_certificate(&mut self, conn: u32, occasion: Occasion) -> bool {
        let session = &self.local.sessions[conn as usize];
        let facts = session.secure.as_ref().and_then(|secure| secure.facts());
        let Some(certificate) = facts.and_then(|facts| facts.certificate.as_ref()) else {
            self.log_session(conn, Level::Debug, "User required in cert, no TLS connection state");
            return false;
        };
        let directory = self.settings.directory_of(session).clone();
        let subject = certificate.subject.clone();
        let Some(owner) = directory.owner_of(certificate, session.connection_type()) else { return false };
        let (user, what) = match owner {
            CertificateMatch::Email(user) => (user.to_owned(), "Using email found in cert for auth"),
            CertificateMatch::Host(user) => (user.to_owned(), "Using SAN found in cert for auth"),
            CertificateMatch::Uri(user) => (user.to_owned(), "Using URI found in cert for auth"),
            CertificateMatch::Subject(user) => (user.to_owned(), "Using DistinguishedNameMatch for auth"),
            CertificateMatch::None => {
                let text = format!("DistinguishedNameMatch could not be used for auth [{subject:?}]");
                self.log_session(conn, Level::Debug, &text);
                self.log_session(conn, Level::Debug, &format!("User in cert [{subject:?}], not found"));
                return false;
            }
        };
        let session = &mut self.local.sessions[conn as usize];
        let connect = session.connect.get_or_insert_default();
        let said = std::mem::replace(&mut connect.user, user);
        if occasion == Occasion::Connect {
            let user = &self.local.sessions[conn as usize].connect.as_deref().expect("just there").user;
            let text = format!("{what} [{user:?}]");
            self.log_session(conn, Level::Debug, &text);
            if !said.is_empty() {
                let text = format!("User {said:?} found in connect proto, but user required from cert");
                self.local.log.push(Level::Warning, text);
            }
        }
        true
    }

    fn admit(&mut self, conn: u32, user: Arc<User>, occasion: Occasion) {
        match occasion {
            Occasion::Connect => {
                if self.move_to_account_of(conn, user) {
                    self.note_connected(conn);
                    self.finish_connect(conn);
                }
            }
            Occasion::Reload => self.admit_again(conn, user),
        }
    }

    /// Makes a connection that of `user`, who may belong to another account than the one before. Whether the account has
    /// room for it.
    fn move_to_account_of(&mut self, conn: u32, user: Arc<User>) -> bool {
        let session = &mut self.local.sessions[conn as usize];
        if session.flags.counted && session.user.account.slot == user.account.slot {
            session.user = user;
        } else if user.account.join() {
            let left = session.flags.counted.then_some(session.account);
            session.leave_account();
            session.user = user;
            session.account = session.user.account.slot;
            session.flags.counted = true;
            // A place in the cache of another account.
            session.memo = Memo::default();
            let account = session.account;
            left.into_iter().for_each(|left| self.note_account_changed(left));
            self.note_account_changed(account);
        } else {
            self.refuse_account_full(conn);
            return false;
        }
        let session = &mut self.local.sessions[conn as usize];
        session.limits.payload_max = self.settings.payload_max(&session.user.account);
        self.take_permissions(conn);
        true
    }

    /// Has the account of a connection that need not show anything count it.
    pub(super) fn join_account(&mut self, conn: u32) {
        let session = &mut self.local.sessions[conn as usize];
        session.flags.counted = session.user.account.join();
    }

    /// After a reload, for somebody who may stay.
    fn admit_again(&mut self, conn: u32, user: Arc<User>) {
        let session = &mut self.local.sessions[conn as usize];
        if session.user.account.slot != user.account.slot {
            // Without a word, as in the reference. The client connects again and finds itself in the other account.
            return self.close(conn, CloseReason::ClientClosed);
        }
        let earlier = std::mem::replace(&mut session.user, user);
        session.limits.payload_max = self.settings.payload_max(&session.user.account);
        if session.flags.counted && session.user.account.leave_if_too_many() {
            session.flags.counted = false;
            return self.refuse_account_full(conn);
        }
        if session.sids.len() > self.settings.subscriptions_max(&session.user.account) {
            self.local.write_error(conn, &ErrorText::MaximumSubscriptions);
            return self.close(conn, CloseReason::MaxSubscriptionsExceeded);
        }
        let changed = earlier.permissions != session.user.permissions;
        self.take_permissions(conn);
        if changed {
            self.reconsider_subscriptions(conn);
        }
    }

    fn refuse_account_full(&mut self, conn: u32) {
        self.local.write_error(conn, &ErrorText::MaximumAccountConnections);
        self.close(conn, CloseReason::MaxAccountConnectionsExceeded);
    }

    fn finish_connect(&mut self, conn: u32) {
        let session = &mut self.local.sessions[conn as usize];
        let connect = session.connect.as_deref().expect("CONNECT has come");
        if !connect.account.is_empty() || connect.new_account {
            return self.refuse_unauthorized(conn);
        }
        let headers = connect.headers && self.settings.headers;
        session.flags.verbose = connect.verbose;
        session.flags.pedantic = connect.pedantic;
        session.flags.echo = connect.echo;
        session.flags.headers = headers;
        session.flags.no_responders = headers && connect.no_responders;
        session.flags.connected = true;
        session.limits.headers = headers;
        if !matches!(connect.protocol, 0 | 1) {
            self.local.write_error(conn, &ErrorText::InvalidClientProtocol);
            return self.close(conn, CloseReason::BadClientProtocolVersion);
        }
        if connect.no_responders && !headers {
            self.local.write_error(conn, &ErrorText::NoRespondersRequiresHeaders);
            return self.close(conn, CloseReason::NoRespondersRequiresHeaders);
        }
        self.set_first_ping_timer(conn);
        self.local.write_ok_if_verbose(conn);
    }

    /// Lets a connection in that begins with something else than `CONNECT`, if there is a user for those; otherwise
    /// refuses it. Whether it is in.
    #[cold]
    pub(super) fn admit_without_connect(&mut self, conn: u32) -> bool {
        let session = &self.local.sessions[conn as usize];
        let directory = self.settings.directory_of(session);
        let Some(user) = directory.without_credentials(session.connection_type()).cloned() else {
            self.refuse_unauthorized(conn);
            return false;
        };
        if !self.move_to_account_of(conn, user) {
            return false;
        }
        let session = &mut self.local.sessions[conn as usize];
        session.connect = Some(Box::default());
        session.flags.connected = true;
        self.set_first_ping_timer(conn);
        true
    }

    pub(super) fn refuse_unauthorized(&mut self, conn: u32) {
        let text = match self.local.sessions[conn as usize].claimed_user() {
            Some(user) => format!("authentication error - {user}"),
            None => "authentication error".to_owned(),
        };
        self.log_session(conn, Level::Error, &text);
        self.note_unauthorized(conn, CloseReason::AuthenticationFailure);
        self.local.send_error(conn, &ErrorText::AuthorizationViolation);
        self.close(conn, CloseReason::AuthenticationFailure);
    }

    /// Keeps what arrives while a password is checked.
    pub(super) fn keep_input(&mut self, conn: u32, bytes: &[u8]) -> Input {
        let session = &mut self.local.sessions[conn as usize];
        let checking = session.checking.as_mut().expect("asked by the caller");
        if checking.input.len() + bytes.len() <= UNCHECKED_INPUT_BYTES_MAX {
            checking.input.extend_from_slice(bytes);
            return Input::Taken;
        }
        self.log_session(conn, Level::Error, "too much input before the password was checked");
        self.refuse_unauthorized(conn);
        Input::Closed
    }

    /// The next password to be held against a hash since the last call.
    pub fn poll_password_check(&mut self) -> Option<PasswordCheck> {
        self.local.checks.pop_front()
    }

    /// Goes on with a connection whose password has been checked. Returns its input since, which is to be handled before
    /// anything that comes later.
    pub fn handle_verdict(&mut self, conn: u32, serial: u32, verdict: Verdict) -> Option<Vec<u8>> {
        let session = self.local.sessions.get_mut(conn as usize)?;
        // Serials are this broker's own, so that a slot that was used again has another one.
        let checking = session.checking.take_if(|checking| checking.serial == serial)?;
        if session.closing.is_some() {
            return None;
        }
        let Checking { user, occasion, input, .. } = *checking;
        match (verdict, user) {
            (Verdict::Right, Some(user)) => {
                self.admit(conn, user, occasion);
                let session = &self.local.sessions[conn as usize];
                return (session.closing.is_none() && !input.is_empty()).then_some(input);
            }
            (Verdict::Right | Verdict::Wrong, _) => self.refuse_unauthorized(conn),
            (Verdict::TooLate, _) => self.refuse_late(conn),
        }
        None
    }

    /// Ends a connection that has not shown in time who it is.
    pub(super) fn refuse_late(&mut self, conn: u32) {
        self.local.send_error(conn, &ErrorText::AuthenticationTimeout);
        self.log_session(conn, Level::Debug, "Authentication Timeout");
        self.close(conn, CloseReason::AuthenticationTimeout);
    }

    /// Decides anew about a connection, by a directory that has changed.
    pub(super) fn authorize_again(&mut self, conn: u32) {
        let session = &mut self.local.sessions[conn as usize];
        let directory = self.settings.directory_of(session);
        if let Some(checking) = &session.checking {
            let occasion = checking.occasion;
            return self.decide(conn, occasion);
        }
        if !session.flags.connected {
            // It has shown nothing yet. It may still do so in time, unless it need not any more.
            if !directory.demands_credentials() {
                session.flags.connected = true;
                session.user = directory.nobody().clone();
                session.flags.maps = !session.user.account.mappings.is_empty();
                session.flags.publishes_freely = !session.flags.maps;
                self.join_account(conn);
            }
            return;
        }
        match directory.still_admits(&session.user, session.connection_type()) {
            Some(user) => {
                let user = user.clone();
                self.admit(conn, user, Occasion::Reload);
            }
            None => self.decide(conn, Occasion::Reload),
        }
    }
}
