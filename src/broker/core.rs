//! The broker's parts, and every command but publishing.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use std::hash::{BuildHasher as _, Hasher as _};

use hashbrown::hash_table;
use rustc_hash::{FxBuildHasher, FxSeededState};
use slab::Slab;

use super::batch::Batch;
use super::capture::{Captured, Sink};
use super::imports::Shadow;
use super::inspect::Caches;
use super::lifetime::Teardown;
use super::log_lines::{Level, LogLines};
use super::pace::CONSUMER_HOLD_BYTES;
use super::publish::{Flow, TRACE_BYTE_COST_BYTES, TRACE_LINE_COST_BYTES};
use super::relocation::Relocations;
use super::responses::Responses;
use super::routes::{ClientUrls, Cluster, RouteScratch};
use super::session::{CloseReason, Counters, Flags, Session};
use super::settings::Settings;
use super::subscription::{Sid, Subscription};
use super::web::Web;
use crate::auth::HashCheck;
use crate::base::output::{ChunkPool, Output};
use crate::base::timer_wheel::TimerWheel;
use crate::config::ConnectionType;
use crate::subject::fanout::{FanOutCache, Memo};
use crate::subject::interest::{InterestAccess, Target, WorkerId};
use crate::subject::name::Pattern;
use crate::wire::error_text::{ErrorText, quote};
use crate::wire::info::Info;
use crate::wire::redaction::redacted;
use crate::wire::{Command, DecodeError, Decoder, Limits, frame};

/// The queue group that the reference keeps for itself.
const SYSTEM_QUEUE: &[u8] = b"_sys_";

/// The core of one worker. `A` is how it reaches the index of an account.
pub struct Broker<A> {
    pub(super) worker: WorkerId,
    pub(super) settings: Arc<Settings>,
    pub(super) info: Info,
    pub(super) accounts: Vec<Account<A>>,
    pub(super) local: Local,
    /// For each worker, and behind the last for the server's own client ([`super::internal`]).
    pub(super) outgoing: Vec<Outgoing>,
    /// Workers, this one included.
    pub(super) workers: usize,
    /// The slot of the system's own account, if there is one.
    pub(super) system_account: Option<u16>,
    /// A full batch waits in `outgoing`.
    pub(super) crowded: bool,
    /// Consumers of other workers that fell behind.
    pub(super) congested_peers: HashSet<(WorkerId, u32)>,
    pub(super) wheel: TimerWheel<TimerKey>,
    /// Closing sessions whose subscriptions are still in the index.
    pub(super) teardown: VecDeque<(u32, Teardown)>,
    pub(super) random: fastrand::Rng,
    /// What the subject at hand has been mapped to.
    pub(super) mapped: Vec<u8>,
    pub(super) next_check: u32,
    /// Answers from other accounts that are waited for.
    pub(super) responses: Responses,
    /// Such answers that were too many since the log was told.
    pub(super) dropped_answers: u64,
    /// Connections that move between workers.
    pub(super) relocations: Relocations,
    /// Set at the worker that has the routes to other servers.
    pub(super) cluster: Option<Box<Cluster>>,
    /// Where clients of the other servers of the cluster connect.
    pub(super) other_urls: Option<Arc<ClientUrls>>,
    generation: u32,
    /// Where the subject is cached that the server published to last.
    pub(super) route_memo: Memo,
    /// Of the hashes of caches.
    seed: u64,
}

/// Names the session that a deadline belongs to: slot, and cid against reuse of the slot.
pub(super) type TimerKey = (u32, u64);

/// One account at one worker.
pub(super) struct Account<A> {
    pub interest: A,
    pub cache: FanOutCache,
}

/// What a worker has for another one.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    pub current: Batch,
    pub full: VecDeque<Batch>,
    /// Emptied ones to go on with.
    pub spares: Vec<Batch>,
}

/// The sessions of this worker and what deliveries to them touch. Apart from the rest so that a delivery can borrow
/// it while the fan-out list is borrowed from its cache.
pub(super) struct Local {
    pub worker: WorkerId,
    pub sessions: Slab<Session>,
    pub subscriptions: Slab<Subscription>,
    /// What subscriptions have in the indexes of other accounts, by slot.
    pub shadows: HashMap<u32, Box<[Shadow]>, FxBuildHasher>,
    /// Subscriptions of the server itself at this worker, and what came to them.
    pub sinks: Slab<Sink>,
    pub captured: Captured,
    /// The names of the accounts by slot, at the worker that has the routes.
    pub account_names: Vec<Box<[u8]>>,
    pub route_scratch: RouteScratch,
    pub sid_seed: FxSeededState,
    pub pool: ChunkPool,
    /// Sessions with unsent output, each once.
    pub dirty: Vec<u32>,
    /// Sessions that began to close.
    pub closing: Vec<u32>,
    /// Subscriptions that have got all they asked for.
    pub exhausted: Vec<u32>,
    /// Sessions with `congested` set.
    pub congested: Vec<u32>,
    /// Changes of `congested` that the other workers have not been told.
    pub congestion_changes: Vec<(u32, bool)>,
    pub log: LogLines,
    /// Passwords to be held against hashes.
    pub checks: VecDeque<PasswordCheck>,
    pub stats: Stats,
    pub now_ms: u64,
    pub now_us: u64,
    /// When the brokers' clock began, in microseconds since 1970; 0 where nobody has told.
    pub started_unix_us: u64,
    /// Bytes queued for this worker's sessions since the turn began.
    pub turn_bytes: usize,
    pub pending_max: usize,
    /// Bytes waiting for one consumer from which a delivery looks closer at it.
    pub pending_watched: usize,
    pub no_fast_producer_stall: bool,
    pub trace: bool,
    pub traced: Traced,
    /// What each account's connections have done beside what those that are open count themselves, by slot.
    pub past: Vec<Traffic>,
    pub caches: Caches,
}

/// What a trace shows of a message's content.
#[derive(Debug, Clone, Copy)]
pub(super) struct Traced {
    headers_only: bool,
    /// Bytes; 0 for all.
    len_max: usize,
}

impl Traced {
    pub fn new(settings: &Settings) -> Traced {
        Traced { headers_only: settings.trace_headers, len_max: settings.traced_len_max }
    }

    /// Headers and payload as they are shown, in quotes; `None` if nothing of them is.
    pub fn shown(self, header_len: Option<usize>, content: &[u8]) -> Option<String> {
        let Traced { headers_only, len_max } = self;
        // Without the empty line that ends them, as in the reference.
        let headers = || &content[..header_len.map_or(0, |len| len.saturating_sub(4))];
        let content = if headers_only { headers() } else { content };
        if content.is_empty() {
            return None;
        }
        let is_cut = len_max > 0 && content.len() > len_max;
        let mut quoted = quote(if is_cut { &content[..len_max] } else { content });
        if is_cut {
            // Before the closing quote, as in the reference.
            quoted.insert_str(quoted.len() - 1, "...");
        }
        Some(quoted)
    }
}

/// What a worker has done since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Messages from clients and their bytes.
    pub messages: Counts,
    /// Messages to clients and their bytes.
    pub deliveries: Counts,
    /// Connections cut off because they did not read.
    pub slow_consumers: u64,
    /// Connections closed because they did not answer pings.
    pub stale_connections: u64,
    /// Times that a publisher was held back.
    pub holds: u64,
    /// Live subscriptions.
    pub subscriptions: u64,
    /// Entries of other workers' batches.
    pub handed_over: u64,
    /// Subscriptions ever made.
    pub subscribed: u64,
}

/// What connections of one account have done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Messages and bytes.
    pub counters: Counters,
    /// Those that were cut off because they did not read.
    pub slow_consumers: u64,
}

impl Traffic {
    /// Adds other ones.
    pub fn add(&mut self, counters: Counters, slow_consumers: u64) {
        self.counters.in_msgs += counters.in_msgs;
        self.counters.in_bytes += counters.in_bytes;
        self.counters.out_msgs += counters.out_msgs;
        self.counters.out_bytes += counters.out_bytes;
        self.slow_consumers += slow_consumers;
    }
}

/// Messages and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages.
    pub count: u64,
    /// Their headers and payloads.
    pub bytes: u64,
}

/// A password to be held against a hash, by a thread that may take its time. The answer goes to
/// [`Broker::handle_verdict`].
#[derive(Debug)]
pub struct PasswordCheck {
    /// The connection's slot.
    pub conn: u32,
    /// Names the check.
    pub serial: u32,
    /// The work.
    pub check: HashCheck,
}

/// What became of a read's bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    /// All taken.
    Taken,
    /// So many were taken; call again with the rest in the next turn, unless the connection is held.
    Yielded(usize),
    /// The connection is closing; the bytes are of no interest.
    Closed,
}

impl<A: InterestAccess> Broker<A> {
    /// A broker without connections. `accounts` holds the index of each account, by the slots of the directory.
    /// `info` is what all its `INFO` lines share; `workers` the number of brokers that exchange batches.
    pub fn new(
        worker: WorkerId,
        workers: usize,
        settings: Arc<Settings>,
        info: Info,
        accounts: Vec<A>,
        seed: u64,
    ) -> Broker<A> {
        let local = Local {
            worker,
            sessions: Slab::new(),
            subscriptions: Slab::new(),
            shadows: HashMap::default(),
            sinks: Slab::new(),
            captured: Captured::default(),
            account_names: Vec::new(),
            route_scratch: RouteScratch::default(),
            sid_seed: FxSeededState::with_seed(seed as usize),
            pool: ChunkPool::default(),
            dirty: Vec::new(),
            closing: Vec::new(),
            exhausted: Vec::new(),
            congested: Vec::new(),
            congestion_changes: Vec::new(),
            log: LogLines::default(),
            checks: VecDeque::new(),
            stats: Stats::default(),
            now_ms: 0,
            now_us: 0,
            started_unix_us: 0,
            turn_bytes: 0,
            pending_max: settings.pending_max,
            pending_watched: CONSUMER_HOLD_BYTES.min(settings.pending_max),
            no_fast_producer_stall: settings.no_fast_producer_stall,
            trace: settings.trace,
            traced: Traced::new(&settings),
            past: vec![Traffic::default(); accounts.len()],
            caches: Caches::default(),
        };
        let mut random = fastrand::Rng::with_seed(seed ^ u64::from(worker).rotate_left(32));
        let mut broker = Broker {
            worker,
            responses: Responses::new(worker, &mut random),
            dropped_answers: 0,
            settings,
            info,
            accounts: accounts
                .into_iter()
                .map(|interest| Account { interest, cache: FanOutCache::new(worker, seed) })
                .collect(),
            local,
            crowded: false,
            outgoing: (0..=workers).map(|_| Outgoing::default()).collect(),
            workers,
            system_account: None,
            congested_peers: HashSet::new(),
            wheel: TimerWheel::new(0),
            teardown: VecDeque::new(),
            random,
            mapped: Vec::new(),
            next_check: 0,
            relocations: Relocations::default(),
            cluster: None,
            other_urls: None,
            generation: 0,
            route_memo: Memo::default(),
            seed,
        };
        broker.find_system_account();
        broker
    }

    /// Takes a new connection and greets it. Returns its slot, which stays its name until [`Broker::remove`].
    pub fn open(&mut self, cid: u64, addr: SocketAddr) -> u32 {
        let conn = self.insert(cid, addr);
        self.set_opening_timer(conn);
        self.greet(conn);
        conn
    }

    /// Tells the client what the server is.
    pub(super) fn greet(&mut self, conn: u32) {
        let line = self.info_for(conn, false);
        self.local.write_line(conn, &line);
    }

    /// Takes a new connection, and says nothing yet.
    pub(super) fn insert(&mut self, cid: u64, addr: SocketAddr) -> u32 {
        let conn = self.insert_session(cid, addr, None);
        self.welcome(conn);
        conn
    }

    /// Gives a new connection its place among the others.
    pub(super) fn welcome(&mut self, conn: u32) {
        let session = &self.local.sessions[conn as usize];
        let directory = self.settings.directory_of(session);
        let maps = !directory.nobody().account.mappings.is_empty();
        let must_connect = directory.demands_credentials();
        let flags = &mut self.local.sessions[conn as usize].flags;
        flags.maps = maps;
        if !must_connect {
            (flags.connected, flags.publishes_freely) = (true, !maps);
            self.join_account(conn);
        }
        if self.settings.debug {
            self.log_session(conn, Level::Debug, "Client connection created");
        }
    }

    /// Makes a session that has no place yet.
    pub(super) fn insert_session(&mut self, cid: u64, addr: SocketAddr, web: Option<Box<Web>>) -> u32 {
        let now_ms = self.local.now_ms;
        let session = Session {
            cid,
            addr,
            account: 0,
            user: self.settings.directory.nobody().clone(),
            checking: None,
            replies: None,
            secure: None,
            web,
            route: None,
            decoder: Decoder::default(),
            limits: Limits {
                control_line_max: self.settings.control_line_max,
                payload_max: self.settings.payload_max,
                headers: false,
            },
            memo: Memo::default(),
            rules: 0,
            output: Output::default(),
            sids: hash_table::HashTable::new(),
            flags: Flags {
                verbose: true,
                pedantic: true,
                echo: true,
                headers: false,
                no_responders: false,
                connected: false,
                publishes_freely: false,
                maps: false,
                notes_replies: false,
                ponged: false,
                first_pong_sent: false,
                dirty: false,
                congested: false,
                hold_spent: false,
                torn_down: false,
                settling: false,
                counted: false,
            },
            connect: None,
            closing: None,
            hold: None,
            counters: Counters::default(),
            pings_out: 0,
            timer_at_ms: 0,
            last_input_ms: now_ms,
            progress_ms: now_ms,
            behind_since_ms: 0,
            ping_sent_us: 0,
            rtt_us: 0,
            started_us: self.local.now_us,
            active_ms: now_ms,
            out_msgs_sent: 0,
            stalls: 0,
        };
        self.local.sessions.insert(session) as u32
    }

    /// The `INFO` line for one connection.
    pub(super) fn info_for(&self, conn: u32, answers_ping: bool) -> Vec<u8> {
        self.complete_info(self.info.clone(), conn, answers_ping)
    }

    /// The same in lame duck mode.
    pub(super) fn lame_duck_info_for(&self, conn: u32) -> Vec<u8> {
        let mut info = self.info.clone();
        info.ldm = true;
        self.complete_info(info, conn, true)
    }

    fn complete_info(&self, mut info: Info, conn: u32, answers_ping: bool) -> Vec<u8> {
        let session = &self.local.sessions[conn as usize];
        let directory = self.settings.directory_of(session);
        if session.connection_type() == ConnectionType::WebSocket {
            info = info.for_websocket(directory.demands_credentials());
        }
        info.client_id = session.cid;
        info.client_ip = session.addr.ip().to_canonical().to_string();
        if session.connect.is_none() {
            info.nonce = directory.nonce(session.cid).unwrap_or_default();
        }
        // Only the first one says that nothing has to be shown, in the reference, and not to WebSocket clients.
        info.auth_required &=
            session.connect.is_some() || session.web.is_some() || !directory.has_no_auth_user();
        if answers_ping {
            info.connect_info = true;
            info.max_payload = session.limits.payload_max as i64;
            info.remote_account.clone_from(&session.user.account.name);
            info.acc_is_sys = session.user.account.is_system;
        }
        info.line()
    }

    /// Handles what one read of `conn` brought. See [`Input`].
    pub fn handle_bytes(&mut self, conn: u32, bytes: &[u8]) -> Input {
        let Some(session) = self.local.sessions.get_mut(conn as usize) else { return Input::Closed };
        if session.closing.is_some() {
            return Input::Closed;
        }
        session.last_input_ms = self.local.now_ms;
        if session.is_route() {
            return self.handle_route_bytes(conn, bytes);
        }
        if session.checking.is_some() {
            return self.keep_input(conn, bytes);
        }
        // The decoder is taken out while its commands, which borrow it, are handled.
        let mut decoder = std::mem::take(&mut session.decoder);
        let mut limits = session.limits;
        let mut input = bytes;
        let mut published = Counts::default();
        let outcome = loop {
            match decoder.next(&mut input, &limits) {
                Ok(Some(Command::Publish(publish))) => {
                    published.count += 1;
                    published.bytes += publish.payload.content().len() as u64;
                    match self.publish(conn, &publish) {
                        Flow::Continue => {}
                        Flow::Yield => break Input::Yielded(bytes.len() - input.len()),
                        Flow::Closed => break Input::Closed,
                    }
                }
                Ok(Some(command)) => {
                    self.handle_command(conn, &command);
                    let session = &self.local.sessions[conn as usize];
                    if session.closing.is_some() {
                        break Input::Closed;
                    }
                    if session.checking.is_some() {
                        break self.keep_input(conn, input);
                    }
                    limits = session.limits;
                    if self.local.turn_bytes > super::publish::TURN_BYTES_MAX {
                        break Input::Yielded(bytes.len() - input.len());
                    }
                }
                Ok(None) => break Input::Taken,
                Err(error) => {
                    self.handle_decode_error(conn, &error);
                    break Input::Closed;
                }
            }
        };
        // Counted once per read: per message it was a tenth of the cost of finding nobody.
        let session = &mut self.local.sessions[conn as usize];
        if published.count > 0 {
            session.active_ms = self.local.now_ms;
        }
        session.counters.in_msgs += published.count;
        session.counters.in_bytes += published.bytes;
        self.local.stats.messages.count += published.count;
        self.local.stats.messages.bytes += published.bytes;
        if outcome == Input::Closed {
            return Input::Closed;
        }
        decoder.release_spent();
        let session = &mut self.local.sessions[conn as usize];
        session.decoder = decoder;
        if outcome == Input::Taken {
            session.flags.hold_spent = false;
        }
        outcome
    }

    fn handle_command(&mut self, conn: u32, command: &Command<'_>) {
        if self.local.trace {
            self.trace_command(conn, command);
        }
        let session = &self.local.sessions[conn as usize];
        if !session.flags.connected
            && !matches!(command, Command::Connect(_))
            && !self.admit_without_connect(conn)
        {
            return;
        }
        match command {
            Command::Connect(json) => self.handle_connect(conn, json),
            Command::Subscribe { subject, queue, sid } => self.handle_subscribe(conn, subject, *queue, sid),
            Command::Unsubscribe { sid, max } => self.handle_unsubscribe(conn, sid, *max),
            Command::Ping => self.handle_ping(conn),
            Command::Pong => {
                let now_us = self.local.now_us;
                let session = &mut self.local.sessions[conn as usize];
                session.pings_out = 0;
                if session.ping_sent_us > 0 {
                    session.flags.ponged = true;
                    session.rtt_us = now_us.saturating_sub(session.ping_sent_us);
                }
            }
            Command::Info(json) => {
                if serde_json::from_slice::<serde_json::Map<_, _>>(json).is_err() {
                    self.close(conn, CloseReason::ProtocolViolation);
                }
            }
            Command::Ok => {}
            Command::Err(text) => {
                let text = format!("Client Error {}", String::from_utf8_lossy(text));
                self.log_session(conn, Level::Error, &text);
                self.close(conn, CloseReason::ParseError);
            }
            Command::Publish(_) => unreachable!("publishing has its own way"),
        }
    }

    fn handle_ping(&mut self, conn: u32) {
        self.local.write_line(conn, frame::PONG);
        let session = &mut self.local.sessions[conn as usize];
        let protocol = session.connect.as_ref().map(|connect| connect.protocol);
        let is_first = protocol.is_some() && !std::mem::replace(&mut session.flags.first_pong_sent, true);
        if is_first && protocol >= Some(1) {
            let line = self.info_for(conn, true);
            self.local.write_line(conn, &line);
        }
    }

    fn handle_subscribe(&mut self, conn: u32, subject: &[u8], queue: Option<&[u8]>, sid: &[u8]) {
        let settings = &self.settings;
        let session = &self.local.sessions[conn as usize];
        let permissions = session.user.permissions.as_deref();
        let may = permissions.is_none_or(|permissions| permissions.may_subscribe(subject, queue));
        if !may || queue == Some(SYSTEM_QUEUE) {
            return self.refuse_subscribe(conn, subject, queue, sid);
        }
        let tokens_max = settings.subscription_tokens_max;
        if tokens_max > 0 && subject.split(|byte| *byte == b'.').count() > tokens_max {
            let (shown, sid) = (quote(subject), String::from_utf8_lossy(sid));
            let text = format!("Subscription Violation Too Many Tokens - Subject {shown}, SID {sid}");
            self.log_session(conn, Level::Error, &text);
            return self.local.send_error(conn, &ErrorText::TooManyTokens(subject.into()));
        }
        if session.sids.len() >= settings.subscriptions_max(&session.user.account) {
            return self.local.write_error(conn, &ErrorText::MaximumSubscriptions);
        }
        // A second SUB with a live sid is ignored; the first stays.
        if self.local.find_sid(conn, sid).is_none() {
            let Ok(pattern) = Pattern::parse(subject) else {
                return self.local.send_error(conn, &ErrorText::InvalidSubject);
            };
            let generation = self.next_generation();
            let subscription = Subscription {
                conn,
                generation,
                sid: Sid::new(sid),
                subject: subject.into(),
                queue: queue.map(Into::into),
                delivered: 0,
                delivered_max: 0,
            };
            let sub = self.local.insert_subscription(subscription);
            self.local.stats.subscribed += 1;
            let target = Target { worker: self.worker, import: 0, conn, sub, generation };
            let session = &self.local.sessions[conn as usize];
            let permissions = session.user.permissions.as_deref();
            let denied = permissions.and_then(|permissions| permissions.delivery_denies(pattern, queue));
            let interest = &self.accounts[usize::from(session.account)].interest;
            let imports = !session.user.account.streams.is_empty();
            interest.write(|interest| interest.subscribe_filtered(pattern, queue, target, denied));
            if imports {
                self.renew_shadows(sub);
            }
            self.share_interest();
        }
        self.local.write_ok_if_verbose(conn);
    }

    /// Tells a subscription from earlier ones in the same slot.
    pub(super) fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        self.generation
    }

    fn handle_unsubscribe(&mut self, conn: u32, sid: &[u8], max: Option<u64>) {
        if let Some(sub) = self.local.find_sid(conn, sid) {
            self.local.sessions[conn as usize].active_ms = self.local.now_ms;
            let subscription = &mut self.local.subscriptions[sub as usize];
            subscription.delivered_max = match max {
                Some(max) if max > subscription.delivered => max,
                _ => 0,
            };
            if subscription.delivered_max == 0 {
                self.remove_subscription(sub);
            }
        }
        self.local.write_ok_if_verbose(conn);
    }

    pub(super) fn remove_all_subscriptions(&mut self, conn: u32) {
        let subs = self.local.subscriptions_of(conn);
        for sub in subs.into_iter().rev() {
            self.remove_subscription(sub);
        }
    }

    /// Takes a subscription out of its session and the index.
    pub(super) fn remove_subscription(&mut self, sub: u32) {
        let subscription = self.local.take_subscription(sub);
        let account = self.local.sessions[subscription.conn as usize].account;
        self.forget_interest(account, sub, &subscription);
    }

    pub(super) fn forget_interest(&mut self, account: u16, sub: u32, subscription: &Subscription) {
        let Subscription { conn, generation, .. } = *subscription;
        let target = Target { worker: self.worker, import: 0, conn, sub, generation };
        let pattern = Pattern::parse(&subscription.subject).expect("was valid when it was subscribed");
        let interest = &self.accounts[usize::from(account)].interest;
        let found =
            interest.write(|interest| interest.unsubscribe(pattern, subscription.queue.as_deref(), target));
        assert!(found, "the index has every live subscription");
        if !self.local.shadows.is_empty() {
            self.remove_shadows(sub, subscription);
        }
    }

    fn handle_decode_error(&mut self, conn: u32, error: &DecodeError) {
        self.log_session(conn, Level::Error, &error.to_string());
        // With credentials demanded, nothing is said about the protocol to someone who has shown none.
        let session = &self.local.sessions[conn as usize];
        let directory = self.settings.directory_of(session);
        let may_connect = directory.without_credentials(session.connection_type()).is_some();
        if !self.local.sessions[conn as usize].flags.connected && !may_connect {
            self.local.send_error(conn, &ErrorText::AuthorizationViolation);
            return self.close(conn, CloseReason::AuthenticationFailure);
        }
        let (text, reason) = match error {
            DecodeError::UnknownOperation(_) => {
                (Some(ErrorText::UnknownProtocolOperation), CloseReason::ProtocolViolation)
            }
            DecodeError::Arguments { .. } => (None, CloseReason::ProtocolViolation),
            DecodeError::ControlLine { .. } => {
                (Some(ErrorText::MaximumControlLine), CloseReason::MaxControlLineExceeded)
            }
            DecodeError::Payload { .. } => (Some(ErrorText::MaximumPayload), CloseReason::MaxPayloadExceeded),
        };
        if let Some(text) = text {
            self.local.send_error(conn, &text);
        }
        self.close(conn, reason);
    }

    /// Whether this turn has produced so much that it should end before more input is handled.
    #[inline]
    pub fn wants_turn_to_end(&self) -> bool {
        self.local.turn_bytes > super::publish::TURN_BYTES_MAX || self.crowded
    }

    /// Whether this turn has queued as much for this worker's connections as a turn may.
    pub fn turn_is_full(&self) -> bool {
        self.local.turn_bytes > super::publish::TURN_BYTES_MAX
    }

    /// Whether a batch for another worker is full.
    pub fn has_full_batch(&self) -> bool {
        self.crowded
    }

    /// Log lines since the last call. The next ones go into `spare`.
    pub fn take_log(&mut self, spare: LogLines) -> LogLines {
        self.local.log.take(spare)
    }

    /// Whether there are log lines.
    pub fn has_log(&self) -> bool {
        !self.local.log.is_empty()
    }

    /// What it enforces.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Tells what time it was when the brokers' clock began, in microseconds since 1970.
    pub fn set_started_unix_us(&mut self, at_us: u64) {
        self.local.started_unix_us = at_us;
    }

    /// Counters since the start.
    pub fn stats(&self) -> Stats {
        self.local.stats
    }

    /// Number of connections, closing ones included.
    pub fn connection_count(&self) -> usize {
        self.local.sessions.len()
    }

    /// A connection by its slot.
    pub fn session(&self, conn: u32) -> Option<&Session> {
        self.local.sessions.get(conn as usize)
    }

    /// Adds the index of an account that there has not been before.
    pub fn add_account(&mut self, interest: A) {
        let cache = FanOutCache::new(self.worker, self.seed);
        self.accounts.push(Account { interest, cache });
        self.local.past.push(Traffic::default());
    }

    /// Accounts that it knows.
    pub fn account_count(&self) -> usize {
        self.accounts.len()
    }

    /// Goes on with other settings. Connections get the new limits; those that would not be let in any more are closed.
    /// What cannot change while the server runs must be as it was: [`crate::config::compare`] sees to that. All accounts of
    /// the new directory have been added.
    pub fn apply_settings(&mut self, settings: Arc<Settings>, info: Info) {
        let ldm = self.info.ldm;
        self.info = info;
        self.info.ldm = ldm;
        self.renew_connect_urls();
        self.local.no_fast_producer_stall = settings.no_fast_producer_stall;
        self.local.trace = settings.trace;
        self.local.traced = Traced::new(&settings);
        assert!(settings.directory.accounts().slots() <= self.accounts.len(), "all accounts have been added");
        let web_directory = |settings: &Settings| settings.web.as_ref().map(|web| web.directory.clone());
        let directory_changed = settings.directory != self.settings.directory
            || web_directory(&settings) != web_directory(&self.settings);
        self.settings = settings;
        self.find_system_account();
        if directory_changed {
            self.learn_accounts();
            self.review_responses();
            self.accounts.iter_mut().for_each(|account| account.cache.forget_verdicts());
        }
        for conn in self.open_connections() {
            self.apply_settings_to(conn, directory_changed);
        }
        if directory_changed {
            self.renew_all_shadows_of_sinks();
        }
    }

    pub(super) fn apply_settings_to(&mut self, conn: u32, directory_changed: bool) {
        let session = &mut self.local.sessions[conn as usize];
        session.limits.control_line_max = self.settings.control_line_max;
        session.limits.payload_max = self.settings.payload_max(&session.user.account);
        if directory_changed && !self.is_guest(conn) {
            self.authorize_again(conn);
            self.renew_all_shadows(conn);
        }
    }

    /// Tells the clients that understand it that this server is about to stop.
    pub fn announce_lame_duck(&mut self) {
        self.info.ldm = true;
        self.tell_routes_of_lame_duck();
        for conn in self.open_connections() {
            self.tell_lame_duck(conn);
        }
    }

    pub(super) fn tell_lame_duck(&mut self, conn: u32) {
        let session = &self.local.sessions[conn as usize];
        let told = session.flags.first_pong_sent
            && session.connect.as_ref().is_some_and(|connect| connect.protocol >= 1);
        if told {
            let line = self.info_for(conn, false);
            self.local.write_line(conn, &line);
        }
    }

    pub(super) fn is_lame_duck(&self) -> bool {
        self.info.ldm
    }

    /// Whether there is such a connection, and it is not closing.
    pub fn is_open(&self, conn: u32) -> bool {
        self.local.sessions.get(conn as usize).is_some_and(|session| session.closing.is_none())
    }

    /// Slots of the clients' connections that are not closing.
    pub fn open_clients(&self) -> Vec<u32> {
        let open = self.local.sessions.iter().filter(|(_, session)| session.closing.is_none());
        open.filter(|(_, session)| !session.is_route()).map(|(conn, _)| conn as u32).collect()
    }

    /// Slots of the connections that are not closing.
    pub fn open_connections(&self) -> Vec<u32> {
        let open = self.local.sessions.iter().filter(|(_, session)| session.closing.is_none());
        open.map(|(conn, _)| conn as u32).collect()
    }

    pub(super) fn log_session(&mut self, conn: u32, level: Level, text: &str) {
        if level == Level::Debug && !self.settings.debug {
            return;
        }
        let label = self.local.sessions[conn as usize].label();
        self.local.log.push(level, format_args!("{label} - {text}"));
    }

    fn trace_command(&mut self, conn: u32, command: &Command<'_>) {
        let text = String::from_utf8_lossy;
        let line = match command {
            Command::Connect(json) => format!("CONNECT {}", redacted(json)),
            Command::Subscribe { subject, queue: None, sid } => {
                format!("SUB {} {}", text(subject), text(sid))
            }
            Command::Subscribe { subject, queue: Some(queue), sid } => {
                format!("SUB {} {} {}", text(subject), text(queue), text(sid))
            }
            Command::Unsubscribe { sid, max: None } => format!("UNSUB {}", text(sid)),
            Command::Unsubscribe { sid, max: Some(max) } => format!("UNSUB {} {max}", text(sid)),
            Command::Ping => "PING".to_owned(),
            Command::Pong => "PONG".to_owned(),
            // Not from clients, so that the reference does not show them.
            Command::Info(_) | Command::Ok | Command::Err(_) => return,
            Command::Publish(_) => unreachable!("publishing has its own way"),
        };
        self.local.trace(conn, format_args!("<<- [{line}]"));
    }
}

impl Local {
    /// Queues a line of the protocol for `conn`.
    pub fn write_line(&mut self, conn: u32, line: &[u8]) {
        let session = &mut self.sessions[conn as usize];
        if session.closing.is_some() {
            return;
        }
        session.output.extend(line, &mut self.pool);
        self.turn_bytes += line.len();
        if self.trace {
            self.trace_line(conn, line);
        }
        self.mark_dirty(conn);
        self.check_pending(conn);
    }

    /// Shows a line that goes to `conn`, if it is one that the reference shows, and as it shows it.
    #[cold]
    fn trace_line(&mut self, conn: u32, line: &[u8]) {
        let line = String::from_utf8_lossy(line.trim_ascii_end());
        if line == "+OK" {
            self.trace(conn, format_args!("->> [OK]"));
        } else if let Some(text) = line.strip_prefix("-ERR '").and_then(|rest| rest.strip_suffix('\'')) {
            self.trace(conn, format_args!("->> [-ERR {text}]"));
        } else if matches!(&*line, "PING" | "PONG") {
            self.trace(conn, format_args!("->> [{line}]"));
        }
    }

    /// Shows headers and payload of a message.
    #[cold]
    pub fn trace_content(&mut self, conn: u32, arrow: &str, header_len: Option<usize>, content: &[u8]) {
        if let Some(shown) = self.traced.shown(header_len, content) {
            self.trace(conn, format_args!("{arrow} MSG_PAYLOAD: [{shown}]"));
        }
    }

    /// A line of the protocol trace about `conn`.
    #[cold]
    pub fn trace(&mut self, conn: u32, text: std::fmt::Arguments<'_>) {
        let before = self.log.bytes();
        self.log.push(Level::Trace, format_args!("{} - {text}", self.sessions[conn as usize].label()));
        self.turn_bytes += TRACE_LINE_COST_BYTES + TRACE_BYTE_COST_BYTES * (self.log.bytes() - before);
    }

    /// Queues an `-ERR` about which the log has a line of its own.
    pub fn send_error(&mut self, conn: u32, error: &ErrorText) {
        self.write_line(conn, &error.line());
    }

    /// Queues an `-ERR`, and says it to the log too.
    pub fn write_error(&mut self, conn: u32, error: &ErrorText) {
        let label = self.sessions[conn as usize].label();
        self.log.push(Level::Error, format_args!("{label} - {}", error.text()));
        self.send_error(conn, error);
    }

    pub fn write_ok_if_verbose(&mut self, conn: u32) {
        if self.sessions[conn as usize].flags.verbose {
            self.write_line(conn, frame::OK);
        }
    }

    /// A time of the brokers' clock as the reference writes it.
    pub fn wall_clock(&self, at_us: u64) -> Option<String> {
        let at_us = i64::try_from(self.started_unix_us.checked_add(at_us)?).ok()?;
        Some(jiff::Timestamp::from_microsecond(at_us).ok()?.to_string())
    }

    #[inline]
    pub fn mark_dirty(&mut self, conn: u32) {
        let session = &mut self.sessions[conn as usize];
        if !session.flags.dirty {
            session.flags.dirty = true;
            self.dirty.push(conn);
        }
    }

    /// The subscriptions of a connection, oldest first: removed from the end they are found quickly.
    pub fn subscriptions_of(&self, conn: u32) -> Vec<u32> {
        let mut subs: Vec<u32> = self.sessions[conn as usize].sids.iter().copied().collect();
        subs.sort_unstable_by_key(|sub| self.subscriptions[*sub as usize].generation);
        subs
    }

    fn find_sid(&self, conn: u32, sid: &[u8]) -> Option<u32> {
        let subscriptions = &self.subscriptions;
        self.sessions[conn as usize]
            .sids
            .find(hash_sid(&self.sid_seed, sid), |sub| subscriptions[*sub as usize].sid.as_bytes() == sid)
            .copied()
    }

    pub fn insert_subscription(&mut self, subscription: Subscription) -> u32 {
        let conn = subscription.conn;
        let hash = hash_sid(&self.sid_seed, subscription.sid.as_bytes());
        let sub = self.subscriptions.insert(subscription) as u32;
        let (subscriptions, seed) = (&self.subscriptions, &self.sid_seed);
        self.sessions[conn as usize]
            .sids
            .insert_unique(hash, sub, |sub| hash_sid(seed, subscriptions[*sub as usize].sid.as_bytes()));
        self.stats.subscriptions += 1;
        self.sessions[conn as usize].active_ms = self.now_ms;
        sub
    }

    pub fn take_subscription(&mut self, sub: u32) -> Subscription {
        let subscription = self.subscriptions.remove(sub as usize);
        let hash = hash_sid(&self.sid_seed, subscription.sid.as_bytes());
        let sids = &mut self.sessions[subscription.conn as usize].sids;
        match sids.find_entry(hash, |other| *other == sub) {
            Ok(found) => drop(found.remove()),
            Err(_) => unreachable!("a session knows its subscriptions"),
        }
        self.stats.subscriptions -= 1;
        if self.trace {
            let sid = String::from_utf8_lossy(subscription.sid.as_bytes());
            self.trace(subscription.conn, format_args!("<-> [DELSUB {sid}]"));
        }
        subscription
    }
}

/// Seeded, so that no client can make its sids collide and keep its worker busy with them.
fn hash_sid(seed: &FxSeededState, sid: &[u8]) -> u64 {
    let mut hasher = seed.build_hasher();
    hasher.write(sid);
    hasher.finish()
}
