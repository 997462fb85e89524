//! `/connz`: the connections, those that are open and those that were closed.
//!
//! An answer is put together in three steps, so that its cost is bounded by what it shows and not by what there is: the
//! open connections tell where they stand in the order that is asked for ([`Query::measure`]); the page is cut out of
//! those ([`Query::choose`]); only what is on the page is described ([`Query::answer`]).
//!
//! Two parameters are Ringmain's own: `find` looks for a text, and `ringmain` adds an object of that name to the answer
//! ([`PageAdditions`]) and to each connection ([`Additions`]).

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use serde::Serialize;

use super::answer::Answer;
use super::clock::{Timestamp, round_trip, uptime};
use super::parameters::{Parameters, Subscriptions};
use super::readings::Snapshot;
use super::subsz::SubscriptionDetail;
use crate::auth::ClientCertificate;
use crate::broker::inspect::{
    ClosedConnection, ConnectionFilter, ConnectionKey, ConnectionRow, Measure, SearchText,
    SubscriptionFilter, SubscriptionRow,
};
use crate::config::GLOBAL_ACCOUNT;

/// Connections in an answer unless the request says otherwise.
const LIMIT_DEFAULT: usize = 1024;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    order: Order,
    with_user: bool,
    /// How much is to be told of subscriptions.
    pub subscriptions: Subscriptions,
    offset: usize,
    limit: usize,
    cid: Option<u64>,
    state: State,
    user: Option<String>,
    account: Option<String>,
    mqtt_client: Option<String>,
    text: Option<SearchText>,
    with_additions: bool,
    /// Only those open ones that have a subscription which this overlaps.
    subscribed_to: Option<Vec<u8>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Closed,
    Any,
}

/// By what connections are put in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Cid,
    /// The largest first.
    Largest(Measure),
    /// Those that have been quiet for longest first.
    Idle,
    /// The youngest first.
    Uptime,
    Stop,
    Reason,
}

impl Order {
    fn parse(text: &str) -> Option<Order> {
        Some(match text {
            "" | "cid" | "start" => Order::Cid,
            "subs" => Order::Largest(Measure::Subscriptions),
            "pending" => Order::Largest(Measure::PendingBytes),
            "msgs_to" => Order::Largest(Measure::OutMsgs),
            "msgs_from" => Order::Largest(Measure::InMsgs),
            "bytes_to" => Order::Largest(Measure::OutBytes),
            "bytes_from" => Order::Largest(Measure::InBytes),
            "last" => Order::Largest(Measure::Active),
            "idle" => Order::Idle,
            "uptime" => Order::Uptime,
            "stop" => Order::Stop,
            "reason" => Order::Reason,
            "rtt" => Order::Largest(Measure::Rtt),
            _ => return None,
        })
    }

    fn measure(self) -> Measure {
        match self {
            Order::Largest(measure) => measure,
            Order::Idle => Measure::Active,
            Order::Uptime => Measure::Start,
            Order::Cid | Order::Stop | Order::Reason => Measure::Cid,
        }
    }
}

/// A connection that may be on the page.
#[derive(Debug, Clone)]
pub enum Candidate {
    /// Open, at this worker.
    Open {
        /// The worker.
        worker: usize,
        /// Where it is there.
        key: ConnectionKey,
    },
    /// Closed.
    Closed(Arc<ClosedConnection>),
}

impl Candidate {
    /// Its number.
    pub fn cid(&self) -> u64 {
        match self {
            Candidate::Open { key, .. } => key.cid,
            Candidate::Closed(closed) => closed.row.cid,
        }
    }

    /// What it measured when it was asked, which must have been for this.
    pub fn measure(&self, measure: Measure) -> u64 {
        match self {
            Candidate::Open { key, .. } => key.measure,
            Candidate::Closed(closed) => closed.row.measure(measure),
        }
    }

    fn uptime_us(&self, now_us: u64) -> u64 {
        match self {
            Candidate::Open { key, .. } => now_us.saturating_sub(key.measure),
            Candidate::Closed(closed) => closed.stopped_us - closed.row.started_us,
        }
    }

    fn closed(&self) -> Option<&ClosedConnection> {
        match self {
            Candidate::Open { .. } => None,
            Candidate::Closed(closed) => Some(closed),
        }
    }
}

/// What is on the page.
#[derive(Debug)]
pub struct Page {
    /// How many connections there are, whether they were asked for or not.
    pub total: usize,
    /// How many of them are what was asked for.
    pub found: usize,
    /// Those on the page, in order.
    pub chosen: Vec<Candidate>,
}

/// An open connection on the page.
#[derive(Debug)]
pub struct OpenConnection {
    /// As it is.
    pub row: ConnectionRow,
    /// Its subscriptions, if they are wanted.
    pub subscriptions: Vec<SubscriptionRow>,
}

impl Query {
    /// Reads the parameters.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn parse(parameters: &Parameters) -> Result<Query, Answer> {
        let with_user = parameters.boolean("auth")?;
        let subscriptions = parameters.subscriptions()?;
        let offset = parameters.integer("offset")?;
        let limit = parameters.integer("limit")?;
        let cid = parameters.unsigned("cid")?;
        let with_additions = parameters.boolean("ringmain")?;
        let state = match parameters.text("state").to_ascii_lowercase().as_str() {
            "" | "open" => State::Open,
            "closed" => State::Closed,
            "any" | "all" => State::Any,
            _ => {
                let text = format!("Error decoding state for {}", parameters.text("state"));
                return Err(Answer::bad_request(text));
            }
        };
        let sort = parameters.text("sort");
        let Some(order) = Order::parse(sort) else {
            return Err(Answer::bad_request(format!("invalid sorting option: {sort}")));
        };
        if matches!(order, Order::Stop | Order::Reason) && state != State::Closed {
            let text = format!("sort by {sort} only valid on closed connections");
            return Err(Answer::bad_request(text));
        }
        let cid = (cid > 0).then_some(cid);
        let limit = usize::try_from(limit).ok().filter(|limit| *limit > 0).unwrap_or(LIMIT_DEFAULT);
        Ok(Query {
            order,
            with_user,
            subscriptions,
            offset: usize::try_from(offset).unwrap_or(0),
            limit: if cid.is_some() { 1 } else { limit },
            cid,
            state,
            user: parameters.filter("user"),
            account: parameters.filter("acc"),
            mqtt_client: parameters.filter("mqtt_client"),
            text: SearchText::new(parameters.text("find")),
            with_additions,
            subscribed_to: None,
        })
    }

    /// The same, of those connections only that have a subscription with which `subject` overlaps.
    pub fn subscribed_to(self, subject: &[u8]) -> Query {
        Query { subscribed_to: Some(subject.to_vec()), ..self }
    }

    /// Which subscriptions connections are to have one of, if that is asked for.
    pub fn demanded_subscriptions(&self) -> Option<SubscriptionFilter> {
        Some(SubscriptionFilter {
            overlapping: Some(self.subscribed_to.clone()?),
            account: self.account.clone(),
            ..SubscriptionFilter::default()
        })
    }

    /// Whether open connections are asked for.
    pub fn wants_open(&self) -> bool {
        self.state != State::Closed
    }

    /// Whether closed connections are asked for.
    pub fn wants_closed(&self) -> bool {
        self.state != State::Open
    }

    /// Which open connections are asked for.
    pub fn filter(&self) -> ConnectionFilter {
        ConnectionFilter {
            cid: self.cid,
            user: self.user.clone(),
            account: self.account.clone(),
            text: self.text.clone(),
        }
    }

    /// What open connections are to tell of themselves first.
    pub fn measure(&self) -> Measure {
        self.order.measure()
    }

    /// Puts the connections in order and cuts out the page. `open` are those that the filter let through, of
    /// `open_count` that there are; `closed` are all that are remembered.
    pub fn choose(
        &self,
        mut open: Vec<Candidate>,
        open_count: usize,
        mut closed: Vec<Arc<ClosedConnection>>,
        now_us: u64,
    ) -> Page {
        if let Some(account) = &self.account {
            closed.retain(|closed| closed.row.account == *account);
        }
        let total = open_count + closed.len();
        if self.mqtt_client.is_some() {
            // There is no MQTT, so nobody has such a name.
            open.clear();
            closed.clear();
        }
        match self.cid {
            Some(_) if !open.is_empty() => closed.clear(),
            Some(cid) => closed.retain(|closed| closed.row.cid == cid),
            None => {}
        }
        if let Some(user) = &self.user {
            closed.retain(|closed| closed.row.user == *user);
        }
        if let Some(text) = &self.text {
            closed.retain(|closed| closed.row.has_text(text) || text.is_in(closed.reason.to_string()));
        }
        let mut chosen = open;
        chosen.extend(closed.into_iter().map(Candidate::Closed));
        self.sort(&mut chosen, now_us);
        let found = chosen.len();
        let from = self.offset.min(chosen.len());
        let to = from + self.limit.min(chosen.len() - from);
        chosen.truncate(to);
        chosen.drain(..from);
        Page { total, found, chosen }
    }

    fn sort(&self, candidates: &mut [Candidate], now_us: u64) {
        let reason = |candidate: &Candidate| candidate.closed().map(|closed| closed.reason.to_string());
        match self.order {
            Order::Cid => candidates.sort_by_key(Candidate::cid),
            Order::Largest(measure) => {
                candidates.sort_by_key(|candidate| (Reverse(candidate.measure(measure)), candidate.cid()));
            }
            Order::Idle => {
                candidates.sort_by_key(|candidate| (candidate.measure(Measure::Active), candidate.cid()))
            }
            Order::Uptime => {
                candidates.sort_by_key(|candidate| (candidate.uptime_us(now_us), candidate.cid()));
            }
            Order::Stop => candidates.sort_by_key(|candidate| {
                (Reverse(candidate.closed().map(|closed| closed.stopped_us)), candidate.cid())
            }),
            Order::Reason => {
                candidates.sort_by_cached_key(|candidate| (reason(candidate), candidate.cid()));
            }
        }
    }

    /// The answer. `open` describes the open connections of the page, by their numbers; those that have gone meanwhile
    /// are missing.
    pub fn answer(
        &self,
        snapshot: &Snapshot<'_>,
        page: &Page,
        open: &HashMap<u64, OpenConnection>,
    ) -> Answer {
        let is_known = self.account.as_deref().is_none_or(|name| snapshot.account(name).is_some());
        let rows: Vec<Connection<'_>> = page
            .chosen
            .iter()
            .filter_map(|candidate| match candidate {
                Candidate::Open { key, worker } => {
                    open.get(&key.cid).map(|open| self.describe_open(snapshot, open, *worker))
                }
                Candidate::Closed(closed) => Some(self.describe_closed(snapshot, closed)),
            })
            .collect();
        Answer::json(&Connz {
            // An account that does not exist gets an answer without these, in the reference.
            server_id: if is_known { &snapshot.identity.server_id } else { "" },
            now: snapshot.now,
            num_connections: rows.len(),
            total: page.total,
            offset: self.offset,
            limit: self.limit,
            connections: is_known.then_some(rows),
            ringmain: self.with_additions.then_some(PageAdditions { found: page.found }),
        })
    }

    fn describe_open<'a>(
        &self,
        snapshot: &Snapshot<'_>,
        open: &'a OpenConnection,
        worker: usize,
    ) -> Connection<'a> {
        let mut row = self.describe(snapshot, &open.row, snapshot.now_us);
        self.add_subscriptions(&mut row, &open.subscriptions, false);
        if self.with_user {
            row.name_tag = &open.row.account;
        }
        if let Some(additions) = &mut row.ringmain {
            additions.worker = Some(worker);
        }
        row
    }

    fn describe_closed<'a>(&self, snapshot: &Snapshot<'_>, closed: &'a ClosedConnection) -> Connection<'a> {
        let mut row = self.describe(snapshot, &closed.row, closed.stopped_us);
        row.stop = Some(snapshot.identity.epoch.plus_us(closed.stopped_us));
        row.reason = closed.reason.to_string();
        // The reference does not say this of the global account, and forgets it with the account.
        let account = &closed.row.account;
        if self.with_user && account != GLOBAL_ACCOUNT && snapshot.account(account).is_some() {
            row.name_tag = account;
        }
        self.add_subscriptions(&mut row, &closed.subscriptions, true);
        row
    }

    fn add_subscriptions<'a>(
        &self,
        row: &mut Connection<'a>,
        subscriptions: &'a [SubscriptionRow],
        with_account: bool,
    ) {
        match self.subscriptions {
            Subscriptions::No => {}
            Subscriptions::Subjects => {
                row.subscriptions_list = subscriptions.iter().map(|row| row.subject.as_str()).collect();
            }
            Subscriptions::Detail => {
                let details = subscriptions.iter().map(|row| SubscriptionDetail::of(row, with_account));
                row.subscriptions_list_detail = details.collect();
            }
        }
    }

    /// As it was at `until_us`.
    fn describe<'a>(&self, snapshot: &Snapshot<'_>, row: &'a ConnectionRow, until_us: u64) -> Connection<'a> {
        let epoch = snapshot.identity.epoch;
        let active_us = (row.active_ms * 1000).max(row.started_us);
        let since = |us: u64| uptime(Duration::from_micros(until_us.saturating_sub(us)));
        let is_global = row.account == GLOBAL_ACCOUNT;
        let secure = row.secure.as_ref();
        let certificate = secure.and_then(|secure| secure.facts.certificate.as_ref());
        let certificate = certificate.filter(|_| self.with_user);
        Connection {
            cid: row.cid,
            kind: "Client",
            r#type: if row.is_websocket { "websocket" } else { "nats" },
            ip: row.addr.ip().to_string(),
            port: row.addr.port(),
            start: epoch.plus_us(row.started_us),
            last_activity: epoch.plus_us(active_us),
            stop: None,
            reason: String::new(),
            rtt: round_trip(row.rtt_us),
            uptime: since(row.started_us),
            idle: since(active_us),
            pending_bytes: row.pending_bytes,
            in_msgs: row.counters.in_msgs,
            out_msgs: row.counters.out_msgs,
            in_bytes: row.counters.in_bytes,
            out_bytes: row.counters.out_bytes,
            stalls: row.stalls,
            subscriptions: row.subscriptions,
            name: &row.name,
            lang: &row.lang,
            version: &row.version,
            tls_version: secure.map_or("", |secure| secure.facts.version),
            tls_cipher_suite: secure.map_or("", |secure| secure.facts.suite),
            tls_peer_certs: certificate.map(ShownCertificate::of).into_iter().collect(),
            tls_first: secure.is_some_and(|secure| secure.first),
            authorized_user: if self.with_user { &row.user } else { "" },
            account: if self.with_user && !is_global { &row.account } else { "" },
            subscriptions_list: Vec::new(),
            subscriptions_list_detail: Vec::new(),
            name_tag: "",
            ringmain: self.with_additions.then(|| Additions {
                worker: None,
                waiting_since: (row.pending_bytes > 0).then(|| epoch.plus_us(row.progress_ms * 1000)),
                behind_since: row.behind_since_ms.map(|since_ms| epoch.plus_us(since_ms * 1000)),
            }),
        }
    }
}

#[derive(Debug, Serialize)]
struct Connz<'a> {
    server_id: &'a str,
    now: Timestamp,
    num_connections: usize,
    total: usize,
    offset: usize,
    limit: usize,
    connections: Option<Vec<Connection<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ringmain: Option<PageAdditions>,
}

/// What the reference does not tell of a page.
#[derive(Debug, Serialize)]
struct PageAdditions {
    /// How many connections are what was asked for, on this page or not.
    found: usize,
}

#[derive(Debug, Serialize)]
struct Connection<'a> {
    cid: u64,
    kind: &'static str,
    r#type: &'static str,
    ip: String,
    port: u16,
    start: Timestamp,
    last_activity: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<Timestamp>,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    rtt: String,
    uptime: String,
    idle: String,
    pending_bytes: usize,
    in_msgs: u64,
    out_msgs: u64,
    in_bytes: u64,
    out_bytes: u64,
    #[serde(skip_serializing_if = "is_zero")]
    stalls: u32,
    subscriptions: usize,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    lang: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    tls_version: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    tls_cipher_suite: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tls_peer_certs: Vec<ShownCertificate<'a>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    tls_first: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    authorized_user: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    account: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subscriptions_list: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subscriptions_list_detail: Vec<SubscriptionDetail<'a>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    name_tag: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ringmain: Option<Additions>,
}

/// What the reference does not tell of a connection.
#[derive(Debug, Serialize)]
struct Additions {
    /// The worker that has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<usize>,
    /// When it last took something, if something waits for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting_since: Option<Timestamp>,
    /// Since when more waits for it than producers are held back for.
    #[serde(skip_serializing_if = "Option::is_none")]
    behind_since: Option<Timestamp>,
}

/// What a client has shown.
#[derive(Debug, Serialize)]
struct ShownCertificate<'a> {
    subject: &'a str,
    spki_sha256: String,
    cert_sha256: String,
}

impl<'a> ShownCertificate<'a> {
    fn of(certificate: &'a ClientCertificate) -> ShownCertificate<'a> {
        ShownCertificate {
            subject: &certificate.subject,
            spki_sha256: HEXLOWER.encode(&certificate.key_digest),
            cert_sha256: HEXLOWER.encode(&certificate.digest),
        }
    }
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}
