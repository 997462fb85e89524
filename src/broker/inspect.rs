//! What others may see of a broker while it works: its connections and subscriptions, a slice at a time.
//!
//! Monitoring asks for everything there is, and there may be a million of it. So every look takes the place to begin at
//! and goes over a bounded number of places; the worker takes one such look per turn. Between two looks things come
//! and go: each row is true for the moment it was read at, and nothing is counted twice.
//!
//! Nothing here is on the message path, and nothing on the message path is here.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use rustc_hash::FxBuildHasher;

use super::client_info;
use super::core::{Broker, Traffic};
use super::pace::CONSUMER_HOLD_BYTES;
use super::secure::{Secure, SecureRow};
use super::session::{CloseReason, Counters, Session};
use super::subscription::Subscription;
use crate::auth::User;
use crate::subject::fanout::FanOutTally;
use crate::subject::interest::InterestAccess;
use crate::subject::name::{Pattern, collide, is_within, subject_matches_pattern};

/// Places that one look for connections goes over.
pub const CONNECTIONS_PER_LOOK_MAX: usize = 2_048;

/// The same when a text is looked for in them, which takes some 0.5 µs each.
pub const CONNECTIONS_SEARCHED_PER_LOOK_MAX: usize = 512;

/// Connections that one look describes in full.
pub const ROWS_PER_LOOK_MAX: usize = 256;

/// Answers to other accounts that are shown of each worker.
const RESPONSES_SHOWN_MAX: usize = 1024;

/// Places that one look for subscriptions goes over.
pub const SUBSCRIPTIONS_PER_LOOK_MAX: usize = 4_096;

/// Places that one look at the cached fan-out lists goes over.
pub const FAN_OUTS_PER_LOOK_MAX: usize = 8_192;

/// Caches that one look at how much they hold goes over.
pub const CACHES_PER_LOOK_MAX: usize = 16;

/// Connections that have fallen behind and are named in a tally.
pub const BEHIND_MAX: usize = 10;

/// Subscriptions that are remembered of a closed connection.
pub const CLOSED_SUBSCRIPTIONS_MAX: usize = 256;

/// What connections can be put in order by. All but the first are largest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Measure {
    Cid,
    Subscriptions,
    PendingBytes,
    OutMsgs,
    InMsgs,
    OutBytes,
    InBytes,
    Start,
    Active,
    Rtt,
}

/// What to look for in texts, letters of either case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchText(String);

impl SearchText {
    /// `None` if there is nothing to look for.
    pub fn new(text: &str) -> Option<SearchText> {
        let text = text.trim().to_ascii_lowercase();
        (!text.is_empty()).then_some(SearchText(text))
    }

    /// Whether it stands in `text`.
    pub fn is_in(&self, text: impl AsRef<[u8]>) -> bool {
        let wanted = self.0.as_bytes();
        text.as_ref().windows(wanted.len()).any(|window| window.eq_ignore_ascii_case(wanted))
    }
}

/// Which connections are asked for. What is `None` does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionFilter {
    /// Only this one, whatever else is asked for.
    pub cid: Option<u64>,
    /// Of this user, as [`Session::user`] names it.
    pub user: Option<String>,
    /// Of this account.
    pub account: Option<String>,
    /// With this text in its number, address, name, user, account, or library.
    pub text: Option<SearchText>,
}

/// A place among the cached fan-out lists of all accounts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FanOutPlace {
    slot: u16,
    at: usize,
}

/// What the caches of the accounts held when they were looked at last.
#[derive(Debug, Default)]
pub(super) struct Caches {
    known: Vec<(u64, u64)>,
    sum: (u64, u64),
    next: usize,
}

/// All open connections together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionTally {
    /// How many there are.
    pub count: u64,
    /// Their subscriptions.
    pub subscriptions: u64,
    /// Bytes queued for them.
    pub pending_bytes: u64,
    /// Messages and bytes.
    pub counters: Counters,
    /// Those with the most bytes queued, of those that have more than producers are held back for; the worst first, at
    /// most [`BEHIND_MAX`].
    pub behind: Vec<ConnectionKey>,
    /// What has been done in each account, by slot, also by connections that are gone. A connection counts where it is now.
    pub accounts: Vec<Traffic>,
}

/// An answer to another account that is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseRow {
    /// What it is to be published to.
    pub subject: String,
    /// The reply of whoever asked.
    pub to: String,
    /// The account that asked.
    pub to_account: String,
    /// The import tells who asks.
    pub shares: bool,
}

impl ConnectionTally {
    /// What has been done in the account of that slot.
    pub fn traffic(&self, slot: u16) -> Traffic {
        self.accounts.get(usize::from(slot)).copied().unwrap_or_default()
    }

    /// Adds those of another worker, but for the connections that are behind.
    pub fn add(&mut self, other: &ConnectionTally) {
        self.count += other.count;
        self.subscriptions += other.subscriptions;
        self.pending_bytes += other.pending_bytes;
        self.counters.in_msgs += other.counters.in_msgs;
        self.counters.in_bytes += other.counters.in_bytes;
        self.counters.out_msgs += other.counters.out_msgs;
        self.counters.out_bytes += other.counters.out_bytes;
        self.add_accounts(&other.accounts);
    }

    fn add_accounts(&mut self, accounts: &[Traffic]) {
        if self.accounts.len() < accounts.len() {
            self.accounts.resize_with(accounts.len(), Traffic::default);
        }
        for (sum, account) in self.accounts.iter_mut().zip(accounts) {
            sum.add(account.counters, account.slow_consumers);
        }
    }

    fn add_session(&mut self, conn: u32, session: &Session) {
        let pending = session.output.pending_bytes() as u64;
        self.count += 1;
        self.subscriptions += session.sids.len() as u64;
        self.pending_bytes += pending;
        self.counters.in_msgs += session.counters.in_msgs;
        self.counters.in_bytes += session.counters.in_bytes;
        self.counters.out_msgs += session.counters.out_msgs;
        self.counters.out_bytes += session.counters.out_bytes;
        if let Some(account) = self.accounts.get_mut(usize::from(session.account)) {
            account.add(session.counters, 0);
        }
        if pending > CONSUMER_HOLD_BYTES as u64 {
            let at = self.behind.partition_point(|key| key.measure >= pending);
            if at < BEHIND_MAX {
                self.behind.insert(at, ConnectionKey { cid: session.cid, conn, measure: pending });
                self.behind.truncate(BEHIND_MAX);
            }
        }
    }
}

/// Where a connection is, and its place in an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionKey {
    /// Its number.
    pub cid: u64,
    /// Its slot at its worker.
    pub conn: u32,
    /// What it measures.
    pub measure: u64,
}

/// What a look for connections has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundConnections {
    /// Those that were asked for.
    pub keys: Vec<ConnectionKey>,
    /// How many are open, of the account that was asked for.
    pub open: usize,
}

/// A connection as it is, or was at its end.
#[derive(Debug, Clone, PartialEq)]
pub struct ConnectionRow {
    /// Its number.
    pub cid: u64,
    /// The client's address.
    pub addr: SocketAddr,
    /// When it was accepted, on the clock of [`Broker::begin_turn`].
    pub started_us: u64,
    /// When a message or a subscription last came or went.
    pub active_ms: u64,
    /// Its round trip; 0 if that is not known.
    pub rtt_us: u64,
    /// Bytes queued for it.
    pub pending_bytes: usize,
    /// When it last took something, or something began to wait for it.
    pub progress_ms: u64,
    /// Since when more has been waiting for it than producers are held back for; `None` if it keeps up.
    pub behind_since_ms: Option<u64>,
    /// Messages and bytes.
    pub counters: Counters,
    /// Times that producers were held back for it.
    pub stalls: u32,
    /// Number of its subscriptions.
    pub subscriptions: usize,
    /// What it said of itself.
    pub name: String,
    /// The language of its library.
    pub lang: String,
    /// The version of its library.
    pub version: String,
    /// Its user, empty without one.
    pub user: String,
    /// Its account; empty until it has shown who it is.
    pub account: String,
    /// Whether it is a WebSocket connection.
    pub is_websocket: bool,
    /// Its encryption, if there is one.
    pub secure: Option<SecureRow>,
}

/// Who a connection is.
#[derive(Debug, Clone)]
pub struct KnownUser {
    /// As monitoring names it.
    pub shown: String,
    /// As the directory knows it.
    pub user: Arc<User>,
}

/// A connection that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct ClosedConnection {
    /// As it was.
    pub row: ConnectionRow,
    /// When it ended.
    pub stopped_us: u64,
    /// Why.
    pub reason: CloseReason,
    /// Its subscriptions, the first [`CLOSED_SUBSCRIPTIONS_MAX`].
    pub subscriptions: Vec<SubscriptionRow>,
}

/// Which subscriptions are asked for.
#[derive(Debug, Clone, Default)]
pub struct SubscriptionFilter {
    /// Those of these connections: slot and number.
    pub connections: Option<HashMap<u32, u64, FxBuildHasher>>,
    /// Those of the connection with this number.
    pub cid: Option<u64>,
    /// Those that this subject reaches.
    pub reached_by: Option<Vec<u8>>,
    /// Those that some subject reaches which this pattern has too.
    pub overlapping: Option<Vec<u8>>,
    /// Those that lie within this pattern.
    pub within: Option<Vec<u8>>,
    /// Those of this queue group.
    pub queue: Option<Vec<u8>>,
    /// Those of this account.
    pub account: Option<String>,
    /// Those with this text in their subject or queue group.
    pub text: Option<SearchText>,
}

impl SubscriptionFilter {
    /// Whether a subscription is asked for, whatever the slot of its connection is.
    pub fn takes(&self, cid: u64, account: &str, subject: &[u8], queue: Option<&[u8]>) -> bool {
        let has_text =
            |text: &SearchText| text.is_in(subject) || queue.is_some_and(|queue| text.is_in(queue));
        self.cid.is_none_or(|wanted| wanted == cid)
            && self.account.as_ref().is_none_or(|wanted| wanted == account)
            && self.queue.as_deref().is_none_or(|wanted| queue == Some(wanted))
            && self.text.as_ref().is_none_or(has_text)
            && self.within.as_deref().is_none_or(|pattern| is_within(subject, pattern))
            && self.overlapping.as_deref().is_none_or(|pattern| collide(subject, pattern))
            && self.reached_by.as_ref().is_none_or(|reached_by| {
                Pattern::parse(subject).is_ok_and(|pattern| subject_matches_pattern(reached_by, pattern))
            })
    }
}

/// Which of the subscriptions that are found become rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// So many are passed over first.
    pub skip: usize,
    /// So many are taken then.
    pub take: usize,
    /// So many have been found, in the window or not.
    pub found: usize,
}

impl Window {
    /// All of them.
    pub const ALL: Window = Window { skip: 0, take: usize::MAX, found: 0 };

    /// Counts one more. Whether it is in the window.
    pub fn takes_next(&mut self) -> bool {
        let at = self.found;
        self.found += 1;
        at >= self.skip && at - self.skip < self.take
    }
}

/// A subscription as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionRow {
    /// The number of its connection.
    pub cid: u64,
    /// Tells its age among those of its connection.
    pub generation: u32,
    /// Its account.
    pub account: String,
    /// The pattern.
    pub subject: String,
    /// The queue group, empty without one.
    pub queue: String,
    /// The client's name for it.
    pub sid: String,
    /// Messages delivered.
    pub delivered: u64,
    /// Deliveries after which it ends; 0 for none.
    pub delivered_max: u64,
}

impl<A: InterestAccess> Broker<A> {
    /// Adds the open connections in the next places from `from` on to `found`. Returns where to go on, or `None` at the
    /// end.
    pub fn connection_keys(
        &self,
        from: usize,
        filter: &ConnectionFilter,
        measure: Measure,
        found: &mut FoundConnections,
    ) -> Option<usize> {
        let sessions = &self.local.sessions;
        let count = match filter.text {
            Some(_) => CONNECTIONS_SEARCHED_PER_LOOK_MAX,
            None => CONNECTIONS_PER_LOOK_MAX,
        };
        let (to, next) = slice(from, count, sessions.capacity());
        for conn in from..to {
            let Some(session) = sessions.get(conn).filter(|session| session.is_shown()) else {
                continue;
            };
            let of_account = filter.account.as_ref().is_none_or(|account| session.account_name() == account);
            found.open += usize::from(of_account);
            let is_asked_for = match filter.cid {
                Some(cid) => session.cid == cid,
                None => {
                    of_account
                        && filter.user.as_ref().is_none_or(|user| session.user() == user)
                        && filter.text.as_ref().is_none_or(|text| session.has_text(text))
                }
            };
            if is_asked_for {
                let measure = session.measure(measure);
                found.keys.push(ConnectionKey { cid: session.cid, conn: conn as u32, measure });
            }
        }
        next
    }

    /// Adds the open connections in the next places from `from` on to `tally`. Returns where to go on, or `None` at the
    /// end.
    pub fn connection_tally(&self, from: usize, tally: &mut ConnectionTally) -> Option<usize> {
        if from == 0 {
            tally.add_accounts(&self.local.past);
        }
        let sessions = &self.local.sessions;
        let (to, next) = slice(from, CONNECTIONS_PER_LOOK_MAX, sessions.capacity());
        for conn in from..to {
            if let Some(session) = sessions.get(conn).filter(|session| session.is_shown()) {
                tally.add_session(conn as u32, session);
            }
        }
        next
    }

    /// The first answers to other accounts that this worker waits for from an account.
    pub fn response_rows(&self, account: u16) -> Vec<ResponseRow> {
        let accounts = self.settings.directory.accounts();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let responses = self.responses.iter().filter(|(_, response)| response.account == account);
        let rows = responses.take(RESPONSES_SHOWN_MAX).map(|(key, response)| ResponseRow {
            subject: text(&self.responses.reply(key)),
            to: text(&response.reply),
            to_account: accounts.get(response.to_account).name.clone(),
            shares: response.service.shares,
        });
        rows.collect()
    }

    /// Describes a connection, if it is still there and open.
    pub fn connection_row(&self, conn: u32, cid: u64) -> Option<ConnectionRow> {
        let session = self.local.sessions.get(conn as usize)?;
        (session.cid == cid && session.is_shown()).then(|| self.describe(session))
    }

    pub(super) fn describe(&self, session: &Session) -> ConnectionRow {
        let said = session.connect.as_deref();
        ConnectionRow {
            cid: session.cid,
            addr: session.addr,
            started_us: session.started_us,
            active_ms: session.active_ms,
            rtt_us: session.rtt_us,
            pending_bytes: session.output.pending_bytes(),
            progress_ms: session.progress_ms,
            behind_since_ms: (session.behind_since_ms != 0).then_some(session.behind_since_ms),
            counters: session.counters,
            stalls: session.stalls,
            subscriptions: session.sids.len(),
            name: said.map_or_else(String::new, |said| said.name.clone()),
            lang: said.map_or_else(String::new, |said| said.lang.clone()),
            version: said.map_or_else(String::new, |said| said.version.clone()),
            user: session.user().to_owned(),
            account: session.account_name().to_owned(),
            is_websocket: session.web.is_some(),
            secure: session.secure.as_deref().and_then(Secure::row),
        }
    }

    /// Who a connection is, if it is still there and open.
    pub fn user_of(&self, conn: u32, cid: u64) -> Option<KnownUser> {
        let session = self.local.sessions.get(conn as usize)?;
        let is_it = session.cid == cid && session.closing.is_none();
        is_it.then(|| KnownUser { shown: session.user().to_owned(), user: session.user.clone() })
    }

    /// A connection as advisories tell of it, as JSON; `None` if it is not here.
    pub fn client_shown(&self, conn: u32, cid: u64) -> Option<String> {
        let is_here = self.local.sessions.get(conn as usize).is_some_and(|session| session.cid == cid);
        // Otherwise it has come from another worker meanwhile, if it is here at all.
        let found = || self.local.sessions.iter().find(|(_, session)| session.cid == cid);
        let conn = if is_here { conn } else { found()?.0 as u32 };
        Some(client_info::json(&self.client_info(conn, true)))
    }

    /// What to remember of a connection that began to close, before its subscriptions are taken down.
    pub fn closed_connection(&self, conn: u32) -> Option<ClosedConnection> {
        let session = self.local.sessions.get(conn as usize)?;
        let reason = session.closing.filter(|_| !session.is_guest())?;
        let subscriptions =
            session.sids.iter().take(CLOSED_SUBSCRIPTIONS_MAX).map(|sub| self.subscription_row(*sub));
        let mut subscriptions: Vec<SubscriptionRow> = subscriptions.collect();
        subscriptions.sort_unstable_by_key(|row| row.generation);
        Some(ClosedConnection {
            row: self.describe(session),
            stopped_us: self.local.now_us,
            reason,
            subscriptions,
        })
    }

    /// Adds the subscriptions in the next places from `from` on that `filter` asks for and `window` takes to `rows`.
    /// Returns where to go on, or `None` at the end.
    pub fn subscription_rows(
        &self,
        from: usize,
        filter: &SubscriptionFilter,
        window: &mut Window,
        rows: &mut Vec<SubscriptionRow>,
    ) -> Option<usize> {
        let subscriptions = &self.local.subscriptions;
        let (to, next) = slice(from, SUBSCRIPTIONS_PER_LOOK_MAX, subscriptions.capacity());
        for sub in from..to {
            let Some(subscription) = subscriptions.get(sub) else { continue };
            if self.is_subscription_asked_for(subscription, filter) && window.takes_next() {
                rows.push(self.subscription_row(sub as u32));
            }
        }
        next
    }

    fn is_subscription_asked_for(&self, subscription: &Subscription, filter: &SubscriptionFilter) -> bool {
        let session = &self.local.sessions[subscription.conn as usize];
        let of_connections = filter
            .connections
            .as_ref()
            .is_none_or(|wanted| wanted.get(&subscription.conn).is_some_and(|cid| *cid == session.cid));
        of_connections
            && session.closing.is_none()
            && filter.takes(
                session.cid,
                session.account_name(),
                &subscription.subject,
                subscription.queue.as_deref(),
            )
    }

    fn subscription_row(&self, sub: u32) -> SubscriptionRow {
        let subscription = &self.local.subscriptions[sub as usize];
        let session = &self.local.sessions[subscription.conn as usize];
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        SubscriptionRow {
            cid: session.cid,
            generation: subscription.generation,
            account: session.account_name().to_owned(),
            subject: text(&subscription.subject),
            queue: subscription.queue.as_deref().map_or_else(String::new, text),
            sid: text(subscription.sid.as_bytes()),
            delivered: subscription.delivered,
            delivered_max: subscription.delivered_max,
        }
    }

    /// Adds the next places of the cached fan-out lists of one account or of all to `tally`. Returns where to go on, or
    /// `None` at the end.
    pub fn fan_out_tally(
        &self,
        from: FanOutPlace,
        only: Option<u16>,
        tally: &mut FanOutTally,
    ) -> Option<FanOutPlace> {
        let FanOutPlace { slot, at } = from;
        let account = self.accounts.get(usize::from(only.unwrap_or(slot)))?;
        match account.cache.tally(at, FAN_OUTS_PER_LOOK_MAX, tally) {
            Some(at) => Some(FanOutPlace { slot, at }),
            None if only.is_some() => None,
            None => Some(FanOutPlace { slot: slot.checked_add(1)?, at: 0 }),
        }
    }

    /// Subjects whose fan-out lists are cached, and how often the index had to be asked for one. Of many accounts only some
    /// are looked at anew each time, in turn.
    pub fn cached_subjects_and_index_reads(&mut self) -> (u64, u64) {
        let Caches { known, sum, next } = &mut self.local.caches;
        known.resize(self.accounts.len(), (0, 0));
        for _ in 0..CACHES_PER_LOOK_MAX.min(self.accounts.len()) {
            *next = (*next + 1) % self.accounts.len();
            let cache = &self.accounts[*next].cache;
            let now = (cache.len() as u64, cache.index_reads());
            let before = std::mem::replace(&mut known[*next], now);
            *sum = (sum.0 + now.0 - before.0, sum.1 + now.1 - before.1);
        }
        *sum
    }
}

impl Session {
    /// How monitoring names the user: a token is not shown.
    pub fn user(&self) -> &str {
        match self.connect.as_deref() {
            Some(said) if !said.nkey.is_empty() => &said.nkey,
            Some(said) if !said.user.is_empty() => &said.user,
            _ if !self.user.name.is_empty() => &self.user.name,
            Some(said) if !said.auth_token.is_empty() => "[REDACTED]",
            _ => "",
        }
    }

    fn has_text(&self, text: &SearchText) -> bool {
        let said = self.connect.as_deref();
        said.is_some_and(|said| [&said.name, &said.lang, &said.version].iter().any(|said| text.is_in(said)))
            || text.is_in(self.user())
            || text.is_in(self.account_name())
            || text.is_in(self.addr.to_string())
            || text.is_in(self.cid.to_string())
    }

    /// Its account; empty until it has shown who it is.
    fn account_name(&self) -> &str {
        if self.flags.connected { &self.user.account.name } else { "" }
    }

    fn measure(&self, measure: Measure) -> u64 {
        match measure {
            Measure::Cid => self.cid,
            Measure::Subscriptions => self.sids.len() as u64,
            Measure::PendingBytes => self.output.pending_bytes() as u64,
            Measure::OutMsgs => self.counters.out_msgs,
            Measure::InMsgs => self.counters.in_msgs,
            Measure::OutBytes => self.counters.out_bytes,
            Measure::InBytes => self.counters.in_bytes,
            Measure::Start => self.started_us,
            Measure::Active => self.active_ms,
            Measure::Rtt => self.rtt_us,
        }
    }
}

impl ConnectionRow {
    /// The same as for an open connection.
    pub fn has_text(&self, text: &SearchText) -> bool {
        [&self.name, &self.lang, &self.version, &self.user, &self.account].iter().any(|said| text.is_in(said))
            || text.is_in(self.addr.to_string())
            || text.is_in(self.cid.to_string())
    }

    /// The same as for an open connection.
    pub fn measure(&self, measure: Measure) -> u64 {
        match measure {
            Measure::Cid => self.cid,
            Measure::Subscriptions => self.subscriptions as u64,
            Measure::PendingBytes => self.pending_bytes as u64,
            Measure::OutMsgs => self.counters.out_msgs,
            Measure::InMsgs => self.counters.in_msgs,
            Measure::OutBytes => self.counters.out_bytes,
            Measure::InBytes => self.counters.in_bytes,
            Measure::Start => self.started_us,
            Measure::Active => self.active_ms,
            Measure::Rtt => self.rtt_us,
        }
    }
}

/// The end of a look that begins at `from`, and where the next one begins.
fn slice(from: usize, count: usize, end: usize) -> (usize, Option<usize>) {
    let to = from.saturating_add(count).min(end);
    (to.max(from), (to < end).then_some(to))
}
