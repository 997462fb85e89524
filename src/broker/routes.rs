//! Routes: connections to the other servers of the cluster.
//!
//! All routes belong to one worker, which knows who is in the cluster ([`Broker::lead_cluster`]); to the others a route is a target like a
//! subscription of that worker. What another server wants stands in the indexes of the accounts as targets of its own kind
//! ([`crate::subject::interest::ROUTE`]), one for each pattern and queue group, so that a cached fan-out list names each route once. A message for a route
//! is written into its output by its worker, with the queue groups of which the other server is to pick a member each; from other workers it
//! comes as one record of a batch.
//!
//! What comes by a route is published like any message, but to connections of this server only: so there are no loops.
//!
//! What others are told of this server's interest comes out of the indexes in the order in which it has changed ([`Broker::share_interest`]). It is
//! always written before a message that somebody has published after subscribing: whoever answers that message finds the way back. That is why a batch
//! of another worker is only looked into when the changes before it have been told.
//!
//! The end of a route takes its interest out of the indexes, a slice per turn; nothing is delivered to it from the first moment on.
//!
//! The rules are those of nats-server 2.15.1 (`route.go`). Bounds: `max_pending` and `write_deadline` for what waits for a route, as for clients; a
//! route that is too slow is closed and dialed again. A publisher waits for a route that falls behind, as for a consumer; a route never
//! waits for consumers.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use rustc_hash::FxSeededState;

use super::core::{Broker, Counts, Input, Local};
use super::log_lines::Level;
use super::publish::{Delivered, Outbound, Sending, TARGET_COST_BYTES};
use super::session::{CloseReason, Counters, Session};
use crate::auth::secret::{digest, same};
use crate::cluster::{Dial, DialId, Join, Membership};
use crate::config::{RouteCredentials, RouteUrl};
use crate::subject::fanout::{Links, Memo};
use crate::subject::interest::{InterestAccess, ROUTE, RouteGroup, Target, Watch};
use crate::subject::name::Pattern;
use crate::wire::Publish;
use crate::wire::error_text::ErrorText;
use crate::wire::frame;
use crate::wire::route::{
    CONTROL_LINE_FACTOR, RouteCommand, RouteDecodeError, RouteDecoder, RouteDelivery, RouteLimits, tokens,
    write_interest,
};
use crate::wire::route_handshake::{GOSSIP_DISABLED, GOSSIP_OVERRIDE, RouteConnect, RouteInfo};

/// The first ping goes out so soon after a route is one.
const FIRST_PING_MS: u64 = 1_000;

/// Acknowledgements of JetStream's messages carry the subject that is shown behind this.
const SHOWN_MARK: u8 = b'@';

/// The subjects of those.
const ACK_PREFIX: &[u8] = b"$JS.ACK.";

/// What a cluster asks of its routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterTerms {
    /// What routes have to show.
    pub credentials: Option<RouteCredentials>,
    /// Time to be a route.
    pub auth_timeout_ms: u64,
    /// Time between pings.
    pub ping_interval_ms: u64,
    /// Unanswered pings before a route is stale.
    pub pings_out_max: u32,
    /// Time that one send may take.
    pub write_deadline_ms: u64,
}

/// A route, as monitoring shows it.
#[derive(Debug, Clone)]
pub struct RouteRow {
    /// Number of the connection.
    pub rid: u64,
    /// The other server.
    pub remote_id: String,
    /// Its name.
    pub remote_name: String,
    /// This server has dialed.
    pub is_dialed: bool,
    /// It is one of the configured routes.
    pub is_configured: bool,
    /// The other end.
    pub addr: SocketAddr,
    /// When the connection was made.
    pub started_us: u64,
    /// When a message last went either way.
    pub active_ms: u64,
    /// The last measured round trip; 0 for none.
    pub rtt_us: u64,
    /// Bytes that wait for it.
    pub pending_bytes: usize,
    /// Messages and bytes; `in` is from the other server.
    pub counters: Counters,
    /// What the other server wants: how much of it, and, if that is asked for, what.
    pub subscriptions: usize,
    /// Account, pattern and queue group of each.
    pub wanted: Vec<WantedRow>,
}

/// What another server wants.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct WantedRow {
    /// The pattern.
    pub subject: String,
    /// The account's name.
    pub account: String,
    /// The queue group.
    pub queue: String,
}

/// What the worker that has the routes knows of the cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    membership: Membership,
    /// What this server says of itself.
    info: RouteInfo,
    /// Slots of the accounts, by name.
    accounts: HashMap<Box<[u8]>, u16>,
    /// Patterns of the replies to which answers come from other accounts.
    replies: Vec<Box<[u8]>>,
    /// The accounts in which such answers are published.
    answering: Vec<u16>,
    watch: Arc<Watch>,
    memo: Memo,
    /// A route has come or gone, or its server is about to stop.
    has_changed: bool,
}

/// Where clients of the other servers of a cluster connect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientUrls {
    /// Clients over TCP.
    pub tcp: Vec<String>,
    /// Clients over WebSocket.
    pub websocket: Vec<String>,
}

/// The end of a route at this server.
#[derive(Debug)]
pub(super) struct RouteLink {
    decoder: RouteDecoder,
    /// Tells its targets from those of earlier routes in the same slot.
    generation: u32,
    /// It was dialed.
    dial: Option<DialId>,
    stage: Stage,
    /// Who the other end is.
    remote_id: String,
    remote_name: String,
    /// Where its clients connect.
    client_urls: ClientUrls,
    /// It is about to stop: its clients' addresses are of no use any more.
    is_leaving: bool,
    headers: bool,
    /// What it wants, as keys by [`interest_key`], with the number of members.
    interest: HashMap<Box<[u8]>, u32, FxSeededState>,
    /// The account of the last line, which is mostly that of the next one.
    last_account: (Box<[u8]>, u16),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It has come from outside and has to say `CONNECT`.
    Arriving,
    /// Its other end has to introduce itself.
    Introducing,
    /// It is a route.
    Joined,
}

/// To which servers a message goes, and of which queue groups each serves a member. Kept between messages for its memory.
#[derive(Debug, Default)]
pub(super) struct RouteScratch {
    /// For each queue group: which server serves it, and which group it is.
    picks: Vec<(Target, usize)>,
    names: Vec<u8>,
    /// Each server once; its names in `names` end here, and begin where those of the one before end.
    parts: Vec<(Target, usize)>,
}

impl RouteScratch {
    /// Decides. `routes` get it in any case, and one route for each of `groups`, by weight, so that members are served alike wherever
    /// they are.
    pub fn assign(&mut self, routes: &[Target], groups: &[RouteGroup], random: &mut fastrand::Rng) {
        self.picks.clear();
        self.names.clear();
        self.parts.clear();
        for (at, group) in groups.iter().enumerate() {
            let elsewhere: u64 = group.routes.iter().map(|route| u64::from(route.sub)).sum();
            let total = elsewhere + group.own as u64;
            let mut left = random.u64(..total.max(1));
            // Those of this server come last, so that it serves the group if nobody was picked.
            let picked = group.routes.iter().find(|route| {
                let is_it = left < u64::from(route.sub);
                left = left.saturating_sub(u64::from(route.sub));
                is_it
            });
            if let Some(picked) = picked {
                self.picks.push((Target { sub: 0, ..*picked }, at));
            }
        }
        for route in routes {
            self.add_part(*route, groups);
        }
        for at in 0..self.picks.len() {
            let route = self.picks[at].0;
            if !self.parts.iter().any(|(known, _)| *known == route) {
                self.add_part(route, groups);
            }
        }
    }

    fn add_part(&mut self, route: Target, groups: &[RouteGroup]) {
        let start = self.names.len();
        for (_, at) in self.picks.iter().filter(|(picked, _)| *picked == route) {
            if self.names.len() > start {
                self.names.push(b' ');
            }
            self.names.extend_from_slice(&groups[*at].name);
        }
        self.parts.push((route, self.names.len()));
    }

    /// Whether a group is served by another server.
    pub fn serves_elsewhere(&self, groups: &[RouteGroup], name: &[u8]) -> bool {
        self.picks.iter().any(|(_, at)| *groups[*at].name == *name)
    }

    /// A route is closed: this server serves the groups for which it was picked, if it can.
    fn take_back(&mut self, route: Target) {
        self.picks.retain(|(picked, _)| *picked != route);
    }

    /// The routes, with the names of the queue groups for each, separated by spaces.
    pub fn parts(&self) -> impl Iterator<Item = (Target, &[u8])> {
        let mut start = 0;
        self.parts.iter().map(move |(route, end)| {
            let names = &self.names[start..*end];
            start = *end;
            (*route, names)
        })
    }
}

impl Session {
    /// Whether it is a connection to another server.
    #[inline]
    pub fn is_route(&self) -> bool {
        self.route.is_some()
    }
}

/// Account, pattern and queue group in one.
fn interest_key(account: u16, subject: &[u8], queue: Option<&[u8]>) -> Box<[u8]> {
    let mut key = Vec::with_capacity(subject.len() + queue.map_or(0, |queue| queue.len() + 1) + 2);
    key.extend_from_slice(&account.to_le_bytes());
    key.extend_from_slice(subject);
    if let Some(queue) = queue {
        key.push(b' ');
        key.extend_from_slice(queue);
    }
    key.into()
}

fn split_key(key: &[u8]) -> (u16, &[u8], Option<&[u8]>) {
    let (account, rest) = key.split_at(2);
    let account = u16::from_le_bytes([account[0], account[1]]);
    match rest.iter().position(|byte| *byte == b' ') {
        Some(at) => (account, &rest[..at], Some(&rest[at + 1..])),
        None => (account, rest, None),
    }
}

impl<A: InterestAccess> Broker<A> {
    /// The pattern of the replies by which answers from other accounts come to this worker.
    pub fn reply_pattern(&self) -> Box<[u8]> {
        let mut pattern = self.responses.reply_prefix();
        pattern.push(b'>');
        pattern.into()
    }

    /// Gives this worker the routes of the cluster. `info` is what the server says of itself; `replies` has the
    /// [`Broker::reply_pattern`] of every worker.
    pub fn lead_cluster(
        &mut self,
        membership: Membership,
        info: RouteInfo,
        watch: Arc<Watch>,
        replies: Vec<Box<[u8]>>,
    ) {
        self.cluster = Some(Box::new(Cluster {
            membership,
            info,
            accounts: HashMap::new(),
            replies,
            answering: Vec::new(),
            watch,
            memo: Memo::default(),
            has_changed: false,
        }));
        self.learn_accounts();
    }

    /// Whether this worker has the routes.
    pub fn leads_cluster(&self) -> bool {
        self.cluster.is_some()
    }

    /// Notes the names of the accounts, which are new after a reload.
    pub(super) fn learn_accounts(&mut self) {
        let accounts = self.settings.directory.accounts();
        if let Some(cluster) = &mut self.cluster {
            let named = accounts.iter().map(|account| (account.name.as_bytes().into(), account.slot));
            cluster.accounts = named.collect();
            let mut answering: Vec<u16> = accounts
                .iter()
                .flat_map(|account| account.services.iter().map(|service| service.exporter))
                .collect();
            answering.sort_unstable();
            answering.dedup();
            cluster.answering = answering;
            self.local.account_names =
                (0..accounts.slots()).map(|slot| accounts.get(slot as u16).name.as_bytes().into()).collect();
            let routes: Vec<u32> = cluster.membership.routes().map(|(_, conn)| conn).collect();
            for conn in routes {
                self.send_reply_interest(conn);
            }
        }
    }

    /// Tells another server where answers from other accounts are waited for.
    fn send_reply_interest(&mut self, conn: u32) {
        let Some(cluster) = &self.cluster else { return };
        let mut lines = Vec::new();
        for slot in &cluster.answering {
            let Some(name) = self.local.account_names.get(usize::from(*slot)) else { continue };
            for pattern in &cluster.replies {
                write_interest(&mut lines, name, pattern, None, 1);
            }
        }
        if !lines.is_empty() {
            self.local.write_line(conn, &lines);
        }
    }

    /// The next server to be dialed.
    pub fn poll_dial(&mut self) -> Option<Dial> {
        let now_ms = self.local.now_ms;
        self.cluster.as_mut()?.membership.poll_dial(now_ms)
    }

    pub(super) fn next_dial_ms(&self) -> Option<u64> {
        self.cluster.as_ref()?.membership.next_ms()
    }

    /// A server could not be reached.
    pub fn dial_failed(&mut self, id: DialId, error: &str) {
        let now_ms = self.local.now_ms;
        let Some(failure) =
            self.cluster.as_mut().and_then(|cluster| cluster.membership.dial_failed(id, now_ms))
        else {
            return;
        };
        let level = if failure.is_reported { Level::Error } else { Level::Debug };
        if failure.is_reported || self.settings.debug {
            let text = format!("Error trying to connect to route (attempt {}): {error}", failure.attempt);
            self.local.log.push(level, text);
        }
    }

    /// Takes a connection to another server, or from one. `dial`: it was dialed; then the result is `None` if it is not wanted any
    /// more.
    pub fn open_route(&mut self, cid: u64, addr: SocketAddr, dial: Option<DialId>) -> Option<u32> {
        let generation = self.next_generation();
        let cluster = self.cluster.as_mut()?;
        if dial.is_some_and(|id| !cluster.membership.dialed(id)) {
            return None;
        }
        let info = cluster.info.line();
        let connect = dial.map(|id| self.connect_line(id));
        let conn = self.insert_session(cid, addr, None);
        let seed = self.local.sid_seed.clone();
        let session = &mut self.local.sessions[conn as usize];
        session.route = Some(Box::new(RouteLink {
            decoder: RouteDecoder::default(),
            generation,
            dial,
            stage: if dial.is_some() { Stage::Introducing } else { Stage::Arriving },
            remote_id: String::new(),
            remote_name: String::new(),
            client_urls: ClientUrls::default(),
            is_leaving: false,
            headers: true,
            interest: HashMap::with_hasher(seed),
            last_account: (Box::default(), 0),
        }));
        session.limits.payload_max = self.settings.payload_max;
        let timeout_ms = self.settings.cluster.as_ref().map_or(0, |terms| terms.auth_timeout_ms);
        self.set_timer(conn, timeout_ms);
        self.log_session(conn, Level::Info, "Route connection created");
        if let Some(connect) = connect {
            self.local.write_line(conn, &connect);
        }
        self.local.write_line(conn, &info);
        Some(conn)
    }

    fn connect_line(&self, id: DialId) -> Vec<u8> {
        let cluster = self.cluster.as_ref().expect("it is this worker that dials");
        let own = self.settings.cluster.as_ref().and_then(|terms| terms.credentials.as_ref());
        let of_url = cluster.membership.url(id).and_then(|url| url.credentials.as_ref());
        // Who was told of has no address with a password in it; the cluster's own is what it asks for.
        let own = own.filter(|_| !cluster.membership.is_explicit(id));
        let credentials = of_url.or(own);
        let connect = RouteConnect {
            echo: true,
            user: credentials.map(|of| of.user.clone()).unwrap_or_default(),
            pass: credentials.map(|of| of.pass.clone()).unwrap_or_default(),
            name: cluster.info.server_id.clone(),
            headers: cluster.info.headers,
            cluster: cluster.info.cluster.clone(),
            dynamic: cluster.info.dynamic,
            ..RouteConnect::default()
        };
        connect.line()
    }

    /// Handles what one read of a route brought.
    pub(super) fn handle_route_bytes(&mut self, conn: u32, bytes: &[u8]) -> Input {
        let limits = RouteLimits {
            control_line_max: self.settings.control_line_max.saturating_mul(CONTROL_LINE_FACTOR),
            payload_max: self.settings.payload_max,
        };
        let Some(link) = self.route_link(conn) else { return Input::Closed };
        let mut decoder = std::mem::take(&mut link.decoder);
        let mut input = bytes;
        let mut received = Counts::default();
        let outcome = loop {
            match decoder.next(&mut input, &limits) {
                Ok(Some(RouteCommand::Message { account, queues, publish })) => {
                    received.count += 1;
                    received.bytes += publish.payload.content().len() as u64;
                    self.handle_route_message(conn, account, queues, &publish);
                }
                Ok(Some(command)) => self.handle_route_command(conn, &command),
                Ok(None) => break Input::Taken,
                Err(error) => {
                    self.refuse_route_bytes(conn, &error);
                    break Input::Closed;
                }
            }
            if self.local.sessions[conn as usize].closing.is_some() {
                break Input::Closed;
            }
            if self.wants_turn_to_end() {
                break Input::Yielded(bytes.len() - input.len());
            }
        };
        let session = &mut self.local.sessions[conn as usize];
        if received.count > 0 {
            session.active_ms = self.local.now_ms;
        }
        session.counters.in_msgs += received.count;
        session.counters.in_bytes += received.bytes;
        self.local.stats.messages.count += received.count;
        self.local.stats.messages.bytes += received.bytes;
        if outcome != Input::Closed
            && let Some(link) = self.route_link(conn)
        {
            decoder.release_spent();
            link.decoder = decoder;
        }
        outcome
    }

    fn route_link(&mut self, conn: u32) -> Option<&mut RouteLink> {
        self.local.sessions.get_mut(conn as usize)?.route.as_deref_mut()
    }

    fn refuse_route_bytes(&mut self, conn: u32, error: &RouteDecodeError) {
        self.log_session(conn, Level::Error, &error.to_string());
        let (text, reason) = match error {
            RouteDecodeError::UnknownOperation(_) => {
                (ErrorText::UnknownProtocolOperation, CloseReason::ProtocolViolation)
            }
            RouteDecodeError::Arguments { .. } => {
                (ErrorText::UnknownProtocolOperation, CloseReason::ProtocolViolation)
            }
            RouteDecodeError::ControlLine { .. } => {
                (ErrorText::MaximumControlLine, CloseReason::MaxControlLineExceeded)
            }
            RouteDecodeError::Payload { .. } => (ErrorText::MaximumPayload, CloseReason::MaxPayloadExceeded),
        };
        self.local.send_error(conn, &text);
        self.close(conn, reason);
    }

    fn handle_route_command(&mut self, conn: u32, command: &RouteCommand<'_>) {
        let now_us = self.local.now_us;
        let Some(link) = self.route_link(conn) else { return };
        let stage = link.stage;
        if self.local.trace {
            self.trace_route_command(conn, command);
        }
        match command {
            RouteCommand::Ping => self.local.write_line(conn, frame::PONG),
            RouteCommand::Pong => {
                let session = &mut self.local.sessions[conn as usize];
                session.pings_out = 0;
                if session.ping_sent_us > 0 {
                    session.flags.ponged = true;
                    session.rtt_us = now_us.saturating_sub(session.ping_sent_us);
                }
            }
            RouteCommand::Ok => {}
            RouteCommand::Err(text) => {
                let text = format!("Route Error {}", String::from_utf8_lossy(text));
                self.log_session(conn, Level::Error, &text);
                self.close(conn, CloseReason::ParseError);
            }
            RouteCommand::Connect(json) if stage == Stage::Arriving => self.handle_route_connect(conn, json),
            RouteCommand::Info(json) if stage != Stage::Arriving => self.handle_route_info(conn, json),
            RouteCommand::Subscribe { account, subject, queue } if stage == Stage::Joined => {
                self.handle_route_interest(conn, account, subject, *queue);
            }
            RouteCommand::Unsubscribe { account, subject, queue } if stage == Stage::Joined => {
                self.handle_route_disinterest(conn, account, subject, *queue);
            }
            _ if stage == Stage::Arriving => {
                self.local.write_error(conn, &ErrorText::AuthorizationViolation);
                self.close(conn, CloseReason::AuthenticationFailure);
            }
            RouteCommand::Connect(_) | RouteCommand::Info(_) => {
                self.close(conn, CloseReason::ProtocolViolation)
            }
            RouteCommand::Subscribe { .. } | RouteCommand::Unsubscribe { .. } => {
                let text = "interest before an introduction".to_owned();
                self.refuse_route(conn, text, CloseReason::ProtocolViolation);
            }
            RouteCommand::Message { .. } => unreachable!("messages have their own way"),
        }
    }

    /// Tells the other end and the log why it is no route.
    fn refuse_route(&mut self, conn: u32, text: String, reason: CloseReason) {
        self.log_session(conn, Level::Error, &text);
        self.local.write_line(conn, format!("-ERR '{text}'\r\n").as_bytes());
        self.close(conn, reason);
    }

    fn handle_route_connect(&mut self, conn: u32, json: &[u8]) {
        let Ok(connect) = serde_json::from_slice::<RouteConnect>(json) else {
            self.log_session(conn, Level::Error, "CONNECT with wrong arguments");
            return self.close(conn, CloseReason::ProtocolViolation);
        };
        if !connect.lang.is_empty() {
            let text = "attempted to connect to route port".to_owned();
            return self.refuse_route(conn, text, CloseReason::WrongPort);
        }
        if !connect.gateway.is_empty() {
            let text = format!("Rejecting connection from gateway {:?} on the Route port", connect.gateway);
            return self.refuse_route(conn, text, CloseReason::WrongGateway);
        }
        let terms = self.settings.cluster.as_ref().expect("there is a cluster");
        if let Some(credentials) = &terms.credentials {
            let is_user = same(&digest(&connect.user), &digest(&credentials.user));
            let is_pass = same(&digest(&connect.pass), &digest(&credentials.pass));
            if !(is_user & is_pass) {
                self.log_session(conn, Level::Error, "authentication error");
                self.local.send_error(conn, &ErrorText::AuthorizationViolation);
                return self.close(conn, CloseReason::AuthenticationFailure);
            }
        }
        if !self.agree_on_name(conn, &connect.cluster, connect.dynamic) {
            let (theirs, ours) = (connect.cluster, self.cluster_name());
            let text = format!("Rejecting connection, cluster name {theirs:?} does not match {ours:?}");
            return self.refuse_route(conn, text, CloseReason::ClusterNameConflict);
        }
        if let Some(link) = self.route_link(conn) {
            link.stage = Stage::Introducing;
        }
    }

    fn handle_route_info(&mut self, conn: u32, json: &[u8]) {
        let Ok(mut info) = serde_json::from_slice::<RouteInfo>(json) else {
            self.log_session(conn, Level::Error, "INFO with wrong arguments");
            return self.close(conn, CloseReason::ProtocolViolation);
        };
        let addr = self.local.sessions[conn as usize].addr;
        let Some(link) = self.route_link(conn) else { return };
        if link.stage == Stage::Joined {
            let is_of_another = info.server_id != link.remote_id && info.gateway.is_empty();
            if is_of_another && info.route_account.is_empty() {
                self.hear_of(&info);
            } else if info.ldm && !is_of_another && !link.is_leaving {
                link.is_leaving = true;
                self.note_cluster_change();
            }
            return;
        }
        let (dial, is_dialed) = (link.dial, link.dial.is_some());
        if !info.cluster.is_empty() && !self.agree_on_name(conn, &info.cluster, info.dynamic) {
            let name = self.cluster_name();
            let text = format!("Remote server is in cluster {:?}, and not in {name:?}", info.cluster);
            self.log_session(conn, Level::Error, &text);
            return self.close(conn, CloseReason::ClusterNameConflict);
        }
        if !is_dialed && info.server_name == self.info.server_name && info.server_id != self.info.server_id {
            let text = format!("Remote server has a duplicate name: {:?}", info.server_name);
            self.log_session(conn, Level::Error, &text);
            return self.close(conn, CloseReason::DuplicateServerName);
        }
        let cluster = self.cluster.as_mut().expect("it is this worker that has the routes");
        let join = cluster.membership.introduce(conn, dial, &info.server_id);
        let headers = info.headers && cluster.info.headers;
        if let Some(link) = self.route_link(conn) {
            link.remote_id.clone_from(&info.server_id);
            link.remote_name.clone_from(&info.server_name);
            link.client_urls = ClientUrls {
                tcp: info.connect_urls.clone().unwrap_or_default(),
                websocket: info.ws_connect_urls.clone().unwrap_or_default(),
            };
            link.headers = headers;
        }
        if join != Join::Route {
            if join == Join::Duplicate && self.settings.debug {
                let text = format!("Detected duplicate remote route {:?}", info.server_id);
                self.log_session(conn, Level::Debug, &text);
            }
            return self.close(conn, CloseReason::DuplicateRoute);
        }
        if let Some(link) = self.route_link(conn) {
            link.stage = Stage::Joined;
        }
        self.note_cluster_change();
        if self.settings.debug {
            let text = format!("Registering remote route {:?}", info.server_id);
            self.log_session(conn, Level::Debug, &text);
        }
        let jitter_ms = self.random.u64(0..=FIRST_PING_MS / 5);
        self.set_timer(conn, FIRST_PING_MS + jitter_ms);
        if info.ip.is_empty() {
            info.ip = format!("nats-route://{}/", SocketAddr::new(addr.ip(), info.port));
        }
        self.tell_others_of(conn, info, dial);
        self.send_all_interest(conn);
    }

    /// The name of the cluster.
    pub fn cluster_name(&self) -> &str {
        self.cluster.as_ref().map_or("", |cluster| &cluster.info.cluster)
    }

    /// Whether the other end's name of the cluster is right, or becomes right: a name that was made up gives way to one that was not, and
    /// of two such ones to the greater. Then whoever goes by the old name has to come anew.
    fn agree_on_name(&mut self, conn: u32, theirs: &str, is_made_up: bool) -> bool {
        let Some(cluster) = &mut self.cluster else { return false };
        let info = &mut cluster.info;
        if info.cluster == theirs {
            return true;
        }
        if theirs.is_empty() || !info.dynamic || is_made_up && *info.cluster >= *theirs {
            return false;
        }
        theirs.clone_into(&mut info.cluster);
        info.dynamic = is_made_up;
        let text = format!("Cluster name updated to {theirs}");
        self.local.log.push(Level::Info, text);
        for other in self.open_connections().into_iter().filter(|other| *other != conn) {
            if self.is_route(other) {
                self.close(other, CloseReason::ClusterNameConflict);
            }
        }
        true
    }

    fn note_cluster_change(&mut self) {
        if let Some(cluster) = &mut self.cluster {
            cluster.has_changed = true;
        }
    }

    /// Number of routes, and where clients of the other servers connect, if that has changed since the last call.
    pub fn poll_cluster_change(&mut self) -> Option<(usize, ClientUrls)> {
        let cluster = self.cluster.as_mut()?;
        if !std::mem::take(&mut cluster.has_changed) {
            return None;
        }
        let mut urls = ClientUrls::default();
        for (_, conn) in cluster.membership.routes() {
            let Some(link) = self.local.sessions[conn as usize].route.as_deref() else { continue };
            if !link.is_leaving {
                urls.tcp.extend(link.client_urls.tcp.iter().cloned());
                urls.websocket.extend(link.client_urls.websocket.iter().cloned());
            }
        }
        for list in [&mut urls.tcp, &mut urls.websocket] {
            list.sort_unstable();
            list.dedup();
        }
        Some((cluster.membership.len(), urls))
    }

    /// Clients are told from now on that these servers are there too; those that are connected at once.
    pub fn advertise(&mut self, urls: &Arc<ClientUrls>) {
        if self.other_urls.as_ref() == Some(urls) {
            return;
        }
        self.other_urls = Some(urls.clone());
        self.renew_connect_urls();
        for conn in self.open_clients() {
            let session = &self.local.sessions[conn as usize];
            let understands = session.flags.first_pong_sent
                && session.connect.as_ref().is_some_and(|connect| connect.protocol >= 1);
            if understands {
                let line = self.info_for(conn, false);
                self.local.write_line(conn, &line);
            }
        }
    }

    /// Puts the addresses of the other servers behind this one's.
    pub(super) fn renew_connect_urls(&mut self) {
        let Some(others) = &self.other_urls else { return };
        let own = &self.info.own_connect_urls;
        self.info.connect_urls = own.iter().chain(&others.tcp).cloned().collect();
        if let Some(websocket) = &mut self.info.websocket {
            websocket.connect_urls =
                websocket.own_connect_urls.iter().chain(&others.websocket).cloned().collect();
        }
    }

    /// The routes, in the order in which their connections were made. `lists`: with what the other servers want.
    pub fn route_rows(&self, lists: bool) -> Vec<RouteRow> {
        let Some(cluster) = &self.cluster else { return Vec::new() };
        let row = |conn: u32| {
            let session = &self.local.sessions[conn as usize];
            let link = session.route.as_deref()?;
            let keys = link.interest.keys().filter(|_| lists).map(|key| {
                let (slot, subject, queue) = split_key(key);
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                WantedRow {
                    subject: text(subject),
                    account: text(&self.local.account_names[usize::from(slot)]),
                    queue: text(queue.unwrap_or_default()),
                }
            });
            let mut wanted: Vec<WantedRow> = keys.collect();
            wanted.sort_unstable();
            Some(RouteRow {
                rid: session.cid,
                remote_id: link.remote_id.clone(),
                remote_name: link.remote_name.clone(),
                is_dialed: link.dial.is_some(),
                is_configured: link.dial.is_some_and(|id| cluster.membership.is_explicit(id)),
                addr: session.addr,
                started_us: session.started_us,
                active_ms: session.active_ms,
                rtt_us: session.rtt_us,
                pending_bytes: session.output.pending_bytes(),
                counters: session.counters,
                subscriptions: link.interest.len(),
                wanted,
            })
        };
        let mut rows: Vec<RouteRow> = cluster.membership.routes().filter_map(|(_, conn)| row(conn)).collect();
        rows.sort_unstable_by_key(|row| row.rid);
        rows
    }

    /// Tells the other servers that this one is about to stop.
    pub(super) fn tell_routes_of_lame_duck(&mut self) {
        let Some(cluster) = &mut self.cluster else { return };
        cluster.info.ldm = true;
        let line = cluster.info.line();
        let routes: Vec<u32> = cluster.membership.routes().map(|(_, conn)| conn).collect();
        for conn in routes {
            self.local.write_line(conn, &line);
        }
    }

    /// Tells the other servers of a new one, by the reference's rules of who tells whom.
    fn tell_others_of(&mut self, conn: u32, mut info: RouteInfo, dial: Option<DialId>) {
        let Some(cluster) = &self.cluster else { return };
        let is_explicit = dial.is_some_and(|id| cluster.membership.is_explicit(id));
        let has_heard_of_it = dial.is_some() && !is_explicit;
        if has_heard_of_it || info.gossip_mode == GOSSIP_DISABLED {
            return;
        }
        let others: Vec<u32> =
            cluster.membership.routes().map(|(_, other)| other).filter(|other| *other != conn).collect();
        for other in others {
            let Some(cluster) = &self.cluster else { return };
            let of_other = self.local.sessions[other as usize].route.as_deref().and_then(|link| link.dial);
            let is_configured = of_other.is_some_and(|id| cluster.membership.is_explicit(id));
            info.gossip_mode = if is_explicit || dial.is_none() && is_configured {
                GOSSIP_OVERRIDE
            } else if dial.is_none() {
                GOSSIP_DISABLED
            } else {
                0
            };
            self.local.write_line(other, &info.line());
        }
    }

    /// Another server tells of a third one.
    fn hear_of(&mut self, info: &RouteInfo) {
        let now_ms = self.local.now_ms;
        let Some(url) = RouteUrl::parse(&info.ip) else { return };
        if let Some(cluster) = &mut self.cluster {
            cluster.membership.hear_of(&info.server_id, url, now_ms);
        }
    }

    /// The slot of the account that a line of a route names.
    fn account_of_route(&mut self, conn: u32, name: &[u8]) -> Option<u16> {
        let cluster = self.cluster.as_ref()?;
        let link = self.local.sessions[conn as usize].route.as_deref_mut()?;
        if *link.last_account.0 != *name {
            let slot = *cluster.accounts.get(name)?;
            link.last_account = (name.into(), slot);
        }
        Some(link.last_account.1)
    }

    fn handle_route_interest(
        &mut self,
        conn: u32,
        account: &[u8],
        subject: &[u8],
        queue: Option<(&[u8], u32)>,
    ) {
        let Some(slot) = self.account_of_route(conn, account) else {
            let (account, subject) = (String::from_utf8_lossy(account), String::from_utf8_lossy(subject));
            let text = format!("Unknown account {account:?} for remote subject {subject:?}");
            return self.log_session(conn, Level::Error, &text);
        };
        let Ok(pattern) = Pattern::parse(subject) else {
            let text = format!(
                "Could not process subscription: invalid subject {:?}",
                subject.escape_ascii().to_string()
            );
            return self.log_session(conn, Level::Error, &text);
        };
        let weight = queue.map_or(0, |(_, weight)| weight.max(1));
        let queue = queue.map(|(name, _)| name);
        let worker = self.worker;
        let Some(link) = self.route_link(conn) else { return };
        let target = Target { worker, import: ROUTE, conn, sub: weight, generation: link.generation };
        let earlier = link.interest.insert(interest_key(slot, subject, queue), weight);
        if earlier == Some(weight) {
            return;
        }
        self.accounts[usize::from(slot)].interest.write(|interest| {
            if let Some(sub) = earlier {
                interest.unsubscribe(pattern, queue, Target { sub, ..target });
            }
            interest.subscribe(pattern, queue, target);
        });
    }

    fn handle_route_disinterest(&mut self, conn: u32, account: &[u8], subject: &[u8], queue: Option<&[u8]>) {
        let Some(slot) = self.account_of_route(conn, account) else { return };
        let Some(link) = self.route_link(conn) else { return };
        let key = interest_key(slot, subject, queue);
        if let Some(weight) = link.interest.remove(&key) {
            let generation = link.generation;
            self.forget_route_interest(conn, generation, &key, weight);
        }
    }

    fn forget_route_interest(&mut self, conn: u32, generation: u32, key: &[u8], weight: u32) {
        let (slot, subject, queue) = split_key(key);
        let target = Target { worker: self.worker, import: ROUTE, conn, sub: weight, generation };
        let pattern = Pattern::parse(subject).expect("was valid when it was told");
        let found = self.accounts[usize::from(slot)]
            .interest
            .write(|interest| interest.unsubscribe(pattern, queue, target));
        assert!(found, "the index has all that routes want");
    }

    /// Tells a new route all that this server wants.
    fn send_all_interest(&mut self, conn: u32) {
        let mut lines = Vec::new();
        for (slot, account) in self.accounts.iter().enumerate() {
            let Some(name) = self.local.account_names.get(slot) else { continue };
            account.interest.read(|interest| {
                interest.for_each_wanted(|subject, queue, count| {
                    write_interest(&mut lines, name, subject, queue, count);
                });
            });
        }
        if !lines.is_empty() {
            self.local.write_line(conn, &lines);
        }
        self.send_reply_interest(conn);
    }

    /// Tells all routes what of this server's interest has changed. Costs one look at a flag if nothing has.
    #[inline]
    pub fn share_interest(&mut self) {
        if let Some(cluster) = &self.cluster
            && cluster.watch.is_due()
        {
            self.share_changes();
        }
    }

    /// Whether [`Broker::share_interest`] has something to do.
    pub fn has_interest_to_share(&self) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| cluster.watch.is_due())
    }

    #[inline(never)]
    fn share_changes(&mut self) {
        let Some(cluster) = &self.cluster else { return };
        if !cluster.watch.take() {
            return;
        }
        let routes: Vec<u32> = cluster.membership.routes().map(|(_, conn)| conn).collect();
        let mut lines = Vec::new();
        for (slot, account) in self.accounts.iter().enumerate() {
            if !account.interest.generations().has_changes() {
                continue;
            }
            let changes = account.interest.write(|interest| interest.take_changes());
            let Some(name) = self.local.account_names.get(slot).filter(|_| !routes.is_empty()) else {
                continue;
            };
            for change in &changes {
                write_interest(&mut lines, name, &change.subject, change.queue.as_deref(), change.count);
            }
        }
        if lines.is_empty() {
            return;
        }
        for conn in routes {
            self.local.write_line(conn, &lines);
            if self.local.trace {
                for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                    let line = String::from_utf8_lossy(line.trim_ascii_end());
                    self.local.trace(conn, format_args!("->> [{line}]"));
                }
            }
        }
    }

    /// Publishes a message from another server to the connections of this one.
    fn handle_route_message(&mut self, conn: u32, account: &[u8], queues: &[u8], publish: &Publish<'_>) {
        if self.local.trace {
            let verb = if publish.header_len.is_some() { "HMSG" } else { "RMSG" };
            let args = String::from_utf8_lossy(publish.args);
            self.local.trace(conn, format_args!("<<- [{verb} {args}]"));
            self.local.trace_content(conn, "<<-", publish.header_len, publish.payload.content());
        }
        if self.route_link(conn).is_none_or(|link| link.stage != Stage::Joined) {
            let text = "message before an introduction".to_owned();
            return self.refuse_route(conn, text, CloseReason::ProtocolViolation);
        }
        let Some(slot) = self.account_of_route(conn, account) else { return };
        // What JetStream delivers is published to one subject and shown by another one.
        let (reply, shown) = publish.reply.map_or((None, None), |reply| match split_shown(reply) {
            Some((reply, shown)) => (Some(reply), Some(shown)),
            None => (Some(reply), None),
        });
        let publish = &Publish { reply, ..publish.with_subject(publish.subject) };
        let Some(cluster) = self.cluster.as_deref_mut() else { return };
        let place = &mut self.accounts[usize::from(slot)];
        let fanout = place.cache.find(publish.subject, &mut cluster.memo, &place.interest);
        let mut sending = Sending {
            worker: self.worker,
            account: slot,
            local: &mut self.local,
            outgoing: &mut self.outgoing,
            crowded: &mut self.crowded,
            relocations: &self.relocations,
            congested_peers: &self.congested_peers,
            random: &mut self.random,
            publish,
            shown,
            stays: false,
            internal: self.workers,
            publisher: None,
            requester: None,
            silent: None,
            delivered: false,
            congested_on: None,
        };
        sending.send_to_plain(&fanout.local, &fanout.remote, shown);
        for queue in tokens(queues) {
            if let Some(group) = fanout.groups.iter().find(|group| *group.name == *queue) {
                sending.send_to_group(fanout, group);
            }
        }
        if let Some(links) = fanout.links.as_deref() {
            sending.send_to_imports(links);
        }
        self.answer(slot, publish, &mut Vec::new(), None);
        if !self.local.exhausted.is_empty() {
            self.remove_exhausted();
        }
    }

    /// What there is to do for a route at its time.
    pub(super) fn handle_route_timer(&mut self, conn: u32) {
        let Some(terms) = self.settings.cluster.clone() else { return };
        let stage = self.route_link(conn).map(|link| link.stage);
        if stage != Some(Stage::Joined) {
            let is_arriving = stage == Some(Stage::Arriving) && terms.credentials.is_some();
            if is_arriving {
                self.local.write_error(conn, &ErrorText::AuthenticationTimeout);
                return self.close(conn, CloseReason::AuthenticationTimeout);
            }
            return self.close(conn, CloseReason::StaleConnection);
        }
        let session = &self.local.sessions[conn as usize];
        let heard_lately = self.local.now_ms - session.last_input_ms < terms.ping_interval_ms;
        if !session.flags.ponged || !heard_lately {
            if session.pings_out + 1 > terms.pings_out_max {
                self.local.stats.stale_connections += 1;
                self.log_session(conn, Level::Info, "Stale Client Connection - Closing");
                self.local.send_error(conn, &ErrorText::StaleConnection);
                return self.close(conn, CloseReason::StaleConnection);
            }
            self.send_ping(conn);
        }
        if self.local.sessions[conn as usize].closing.is_none() {
            self.set_timer(conn, terms.ping_interval_ms);
        }
    }

    /// Time that one send to a connection may take.
    pub(super) fn write_deadline_ms_of(&self, session: &Session) -> u64 {
        match &self.settings.cluster {
            Some(terms) if session.is_route() => terms.write_deadline_ms,
            _ => self.settings.write_deadline_ms,
        }
    }

    /// Whether a connection leads to another server.
    pub fn is_route(&self, conn: u32) -> bool {
        self.local.sessions.get(conn as usize).is_some_and(Session::is_route)
    }

    /// A connection to another server, or from one, begins to close: it is no route any more. Returns what is to be taken out of the
    /// indexes.
    pub(super) fn leave_cluster(&mut self, conn: u32, reason: CloseReason) -> Vec<(Box<[u8]>, u32)> {
        let now_ms = self.local.now_ms;
        self.log_session(conn, Level::Info, &format!("Router connection closed: {reason}"));
        let Some(link) = self.route_link(conn) else { return Vec::new() };
        let (dial, remote_id) = (link.dial, std::mem::take(&mut link.remote_id));
        let interest = link.interest.drain().collect();
        link.decoder = RouteDecoder::default();
        if let Some(cluster) = &mut self.cluster {
            cluster.has_changed = true;
            let remote_id = (!remote_id.is_empty()).then_some(&*remote_id);
            cluster.membership.closed(conn, dial, remote_id, now_ms);
        }
        interest
    }

    /// Takes some of what a closed route wanted out of the indexes. Whether all of it is gone.
    pub(super) fn tear_down_route(
        &mut self,
        conn: u32,
        interest: &mut Vec<(Box<[u8]>, u32)>,
        budget: &mut usize,
    ) -> bool {
        let Some(generation) = self.route_link(conn).map(|link| link.generation) else { return true };
        while *budget > 0 {
            let Some((key, weight)) = interest.pop() else { return true };
            self.forget_route_interest(conn, generation, &key, weight);
            *budget -= 1;
        }
        interest.is_empty()
    }

    fn trace_route_command(&mut self, conn: u32, command: &RouteCommand<'_>) {
        let text = String::from_utf8_lossy;
        let line = match command {
            RouteCommand::Connect(json) => format!("CONNECT {}", crate::wire::redaction::redacted(json)),
            RouteCommand::Info(json) => format!("INFO {}", text(json)),
            RouteCommand::Subscribe { account, subject, queue: None } => {
                format!("RS+ {} {}", text(account), text(subject))
            }
            RouteCommand::Subscribe { account, subject, queue: Some((queue, weight)) } => {
                format!("RS+ {} {} {} {weight}", text(account), text(subject), text(queue))
            }
            RouteCommand::Unsubscribe { account, subject, queue } => {
                let queue = queue.map(|queue| format!(" {}", text(queue))).unwrap_or_default();
                format!("RS- {} {}{queue}", text(account), text(subject))
            }
            RouteCommand::Ping => "PING".to_owned(),
            RouteCommand::Pong => "PONG".to_owned(),
            RouteCommand::Ok => "+OK".to_owned(),
            RouteCommand::Err(error) => format!("-ERR {}", text(error)),
            RouteCommand::Message { .. } => unreachable!("messages have their own way"),
        };
        self.local.trace(conn, format_args!("<<- [{line}]"));
    }
}

/// An acknowledgement's subject and, behind it, the subject by which the message is shown.
fn split_shown(reply: &[u8]) -> Option<(&[u8], &[u8])> {
    if !reply.starts_with(ACK_PREFIX) {
        return None;
    }
    let at = reply.iter().position(|byte| *byte == SHOWN_MARK)?;
    // A stream's or consumer's name may hold the mark; the subject comes behind all parts of an acknowledgement.
    let dots = reply[..at].iter().filter(|byte| **byte == b'.').count();
    (dots >= 8).then(|| (&reply[..at], &reply[at + 1..]))
}

impl Sending<'_> {
    /// Sends to other servers: once to each, with the queue groups of which it is to serve a member.
    #[inline(never)]
    pub fn send_to_routes(&mut self, links: &Links) {
        let mut scratch = std::mem::take(&mut self.local.route_scratch);
        scratch.assign(&links.routes, &links.route_groups, self.random);
        let mut gone = None;
        for (route, names) in scratch.parts() {
            self.local.turn_bytes += TARGET_COST_BYTES;
            if route.worker != self.worker {
                self.push_to_route(route, names);
                self.delivered = true;
                if self.congested_peers.contains(&(route.worker, route.conn)) {
                    self.congested_on = Some((route.worker, route.conn));
                }
                continue;
            }
            let outbound = self.outbound_to_route();
            match self.local.deliver_to_route(route, self.account, &outbound, self.shown, names) {
                Delivered::Gone => gone = Some(route),
                Delivered::Yes => self.delivered = true,
                Delivered::Congested => {
                    self.delivered = true;
                    self.congested_on = Some((self.worker, route.conn));
                }
            }
        }
        if let Some(gone) = gone {
            scratch.take_back(gone);
        }
        self.local.route_scratch = scratch;
    }
}

impl Local {
    /// Appends one message to the output of a route. `shown`: the subject by which it is to be shown there, if that is another one;
    /// `queues`: the groups of which the other server is to serve a member.
    pub fn deliver_to_route(
        &mut self,
        target: Target,
        account: u16,
        message: &Outbound<'_>,
        shown: Option<&[u8]>,
        queues: &[u8],
    ) -> Delivered {
        let Some(session) = self.sessions.get_mut(target.conn as usize) else { return Delivered::Gone };
        let Some(link) = session.route.as_deref() else { return Delivered::Gone };
        if link.generation != target.generation || session.closing.is_some() {
            return Delivered::Gone;
        }
        let content = message.content.with_crlf();
        let (header_len, skipped) = match message.header_len {
            Some(len) if !link.headers => (None, len),
            header_len => (header_len, 0),
        };
        let size = content.len() - 2 - skipped;
        let delivery = RouteDelivery {
            account: &self.account_names[usize::from(account)],
            subject: message.subject,
            reply: message.reply.map(|reply| (reply, shown.unwrap_or_default())),
            queues,
            header_len,
            size,
        };
        let head_len_max = delivery.head_len_max();
        let written = match message.content {
            super::batch::Content::Shared(shared) if skipped == 0 => {
                let chunk = session.output.append(head_len_max, &mut self.pool);
                let before = chunk.len();
                delivery.write_head(chunk);
                let written = chunk.len() - before;
                session.output.appended(written);
                session.output.share(shared.clone());
                written + size
            }
            _ => {
                let chunk = session.output.append(head_len_max + content.len(), &mut self.pool);
                let before = chunk.len();
                delivery.write_head(chunk);
                chunk.extend_from_slice(&content[skipped..]);
                let written = chunk.len() - before;
                session.output.appended(written);
                written
            }
        };
        session.counters.out_msgs += 1;
        session.counters.out_bytes += size as u64;
        self.stats.deliveries.count += 1;
        self.stats.deliveries.bytes += size as u64;
        self.turn_bytes += written;
        if self.trace {
            let mut line = Vec::new();
            delivery.write_head(&mut line);
            let line = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
            self.trace(target.conn, format_args!("->> [{line}]"));
            self.trace_content(target.conn, "->>", header_len, &content[skipped..content.len() - 2]);
        }
        self.mark_dirty(target.conn);
        if self.sessions[target.conn as usize].output.pending_bytes() > self.pending_watched {
            return self.pace_consumer(target.conn);
        }
        Delivered::Yes
    }
}
