//! The HTTP server of the monitoring. It runs in the control thread's runtime, so nothing that is asked of it, however
//! often, takes a worker's time beyond a bounded look per turn ([`super::inquiry`]).
//!
//! One answer that needs the workers is gathered at a time; others wait for it. What a client may do: open
//! [`CONNECTIONS_MAX`] connections, show the certificate, and the password or token, that are asked for, take
//! [`HEADER_TIMEOUT`] for a request's head and [`WRITE_TIMEOUT`] for taking anything of an answer. Bodies of requests are
//! not read.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING,
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_NONE_MATCH, LOCATION,
    REFERRER_POLICY, VARY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;

use super::inquiry::{Acted, Action, FoundSubscriptions, Inquiry, Question, Tally};
use super::jetstream::JetStream;
use super::log::Log;
use super::moves::Bar;
use super::shared::Shared;
use crate::auth::secret::{digest, same};
use crate::base::system_error;
use crate::broker::inspect::{
    ClosedConnection, ConnectionFilter, ConnectionTally, FoundConnections, KnownUser, Measure, ResponseRow,
    SubscriptionFilter, SubscriptionRow, Window,
};
use crate::broker::internal::{InternalSubscription, Publisher};
use crate::config::{Options, Port};
use crate::io::listener;
use crate::io::process::{self, DiskSpace};
use crate::monitor::access::{Access, Decision, asks_for_health_alone, health_in_a_word};
use crate::monitor::answer::{Answer, Kind};
use crate::monitor::clock::Timestamp;
use crate::monitor::connz::{self, Candidate, OpenConnection};
use crate::monitor::dashboard::{self, Preferences};
use crate::monitor::jetstream::{JetStreamReading, Wanted};
use crate::monitor::parameters::Subscriptions;
use crate::monitor::readings::{Identity, ProcessReading, RequestCounts, Snapshot};
use crate::monitor::subsz::{self, IndexStats};
use crate::monitor::{Request, accountz, healthz, jsz, metrics, neighbours, page, route, vars, varz};
use crate::tls::words::of as tls_words;

/// Connections at a time; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 256;

/// How long a client may take to send a request's head, and be silent between two requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a client of HTTPS may take for its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How a request begins that is not encrypted, and what is said to whoever sends it to an encrypted port. Both are Go's.
const HTTP_BEGINNINGS: [&[u8; 5]; 5] = [b"GET /", b"HEAD ", b"POST ", b"PUT /", b"OPTIO"];
const PLAIN_REFUSAL: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// How long a client may take nothing of an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long workers may take to answer. They need milliseconds; this is for a machine that has stopped.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Closed connections that are read under one hold of their lock.
const CLOSED_PER_LOOK_MAX: usize = 1_024;

/// `cpu` is that of at least so long.
const CPU_WINDOW: Duration = Duration::from_secs(1);

/// The number of the client that the server itself has in the system account, in the answers to `/subsz`; and in all others.
const SYSTEM_CLIENT_CID: u64 = 1;
const ACCOUNT_CLIENT_CID: u64 = 2;

/// Pause after accepting failed, mostly for lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The monitoring of a server.
pub struct Monitor {
    identity: Identity,
    base: String,
    shared: Arc<Shared>,
    configured: Mutex<Arc<Configured>>,
    guard: Mutex<Arc<Guard>>,
    requests: Mutex<RequestCounts>,
    cpu: Mutex<CpuMeter>,
    /// Held by whoever asks the workers.
    turn: tokio::sync::Mutex<()>,
    /// Set when all workers publish their counters.
    counting: tokio::sync::OnceCell<()>,
    jetstream: Option<Arc<JetStream>>,
    log: Log,
}

/// What a reload changes.
#[derive(Debug)]
pub struct Configured {
    /// What the server runs with.
    pub options: Options,
    /// When that was read.
    pub at: SystemTime,
    /// What clients are told of where it is.
    pub host: String,
    /// The port of that.
    pub port: u16,
    /// What connections are encrypted with, if they are.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// The port for WebSocket clients.
    pub websocket_port: Option<u16>,
    /// The port that is listened on for other servers.
    pub route_port: Option<u16>,
    /// The name of the cluster, as it was at the start; empty without one.
    pub cluster_name: String,
}

/// A bound port of the monitoring.
pub struct MonitorListener {
    listener: std::net::TcpListener,
    /// The port that it is bound to.
    pub port: u16,
}

impl MonitorListener {
    /// Binds the port that is configured.
    ///
    /// # Errors
    ///
    /// The address is not to be had.
    pub fn bind(host: &str, port: Port) -> io::Result<MonitorListener> {
        let listener: std::net::TcpListener = listener::listen(host, port.to_bind())?.into();
        let port = listener.local_addr()?.port();
        Ok(MonitorListener { listener, port })
    }
}

impl Monitor {
    /// A monitoring that has not begun to answer.
    pub fn new(
        identity: Identity,
        configured: Configured,
        shared: Arc<Shared>,
        jetstream: Option<Arc<JetStream>>,
        log: Log,
    ) -> Arc<Monitor> {
        Arc::new(Monitor {
            identity,
            base: configured.options.http_base(),
            shared,
            guard: Mutex::new(Arc::new(Guard::new(&configured.options))),
            configured: Mutex::new(Arc::new(configured)),
            requests: Mutex::new(RequestCounts::new()),
            cpu: Mutex::new(CpuMeter::new()),
            turn: tokio::sync::Mutex::new(()),
            counting: tokio::sync::OnceCell::new(),
            jetstream,
            log,
        })
    }

    /// Goes by other options from here on.
    pub fn configure(&self, configured: Configured) {
        *self.guard.lock() = Arc::new(Guard::new(&configured.options));
        *self.configured.lock() = Arc::new(configured);
    }

    /// Answers until the runtime ends.
    ///
    /// # Errors
    ///
    /// The runtime cannot watch the listener.
    pub fn serve(self: &Arc<Monitor>, listener: MonitorListener) -> io::Result<()> {
        let listener = TcpListener::from_std(listener.listener)?;
        tokio::spawn(self.clone().accept(listener));
        Ok(())
    }

    async fn accept(self: Arc<Monitor>, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let monitor = self.clone();
                    tokio::spawn(async move {
                        monitor.serve_connection(stream, peer).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    self.log.error(format!("monitoring: cannot accept a connection: {error}"));
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn serve_connection(self: Arc<Monitor>, stream: TcpStream, peer: SocketAddr) {
        let _ = stream.set_nodelay(true);
        // Those of now: a reload is for later connections.
        let tls = self.configured.lock().tls.clone();
        let is_plain = match &tls {
            Some(_) => looks_like_http(&stream).await,
            None => false,
        };
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(WRITE_TIMEOUT));
        let mut stream = Box::pin(stream);
        let Some(tls) = tls else { return self.serve_requests(stream).await };
        let refused = if is_plain {
            let _ = stream.write_all(PLAIN_REFUSAL).await;
            let _ = stream.shutdown().await;
            "client sent an HTTP request to an HTTPS server".to_owned()
        } else {
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(tls).accept(stream)).await {
                Ok(Ok(stream)) => return self.serve_requests(stream).await,
                Ok(Err(error)) => handshake_fault(&error),
                Err(_) => "timeout".to_owned(),
            }
        };
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        self.log.error(format!("monitoring: TLS handshake error from {peer}: {refused}"));
    }

    async fn serve_requests(self: Arc<Monitor>, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let service = service_fn(|request: hyper::Request<Incoming>| {
            let monitor = self.clone();
            async move {
                let path = request.uri().path().to_owned();
                let query = request.uri().query().unwrap_or_default().to_owned();
                let preferences = preferences(request.headers());
                let authorization = request.headers().get(AUTHORIZATION).cloned();
                let guard = monitor.guard.lock().clone();
                let answer = if guard.admits(authorization.as_ref()).await {
                    monitor.answer(&path, &query, &preferences).await
                } else if guard.tells_health && asks_for_health_alone(&monitor.base, &path, &query) {
                    health_in_a_word(monitor.answer(&path, &query, &preferences).await)
                } else {
                    guard.access.refusal()
                };
                Ok::<_, Infallible>(response(answer))
            }
        });
        // An error is the client's: it left, was too slow, or did not speak HTTP.
        let _ = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(HEAD_BYTES_MAX)
            .title_case_headers(true)
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }

    /// Answers one request.
    async fn answer(&self, path: &str, query: &str, preferences: &Preferences) -> Answer {
        let routed = route(&self.base, path, query);
        if let Some(name) = routed.counts_as {
            *self.requests.lock().entry(name).or_default() += 1;
        }
        let request = match routed.request {
            Ok(request) => request,
            Err(answer) => return answer,
        };
        match self.answer_request(request, preferences).await {
            Ok(answer) => answer,
            Err(NoAnswer) => Answer { status: 503, kind: Kind::Text, body: NO_ANSWER.as_bytes().to_vec() },
        }
    }

    /// Answers something that was not asked over HTTP.
    ///
    /// # Errors
    ///
    /// The workers do not answer.
    pub async fn ask(&self, request: Request) -> Result<Answer, NoAnswer> {
        self.count().await?;
        self.answer_request(request, &Preferences::default()).await
    }

    /// Has the workers publish their counters from here on, if they do not yet: without monitoring over HTTP that begins when
    /// somebody asks in the system account.
    ///
    /// # Errors
    ///
    /// The workers do not answer.
    pub async fn count(&self) -> Result<(), NoAnswer> {
        let counting = self.counting.get_or_try_init(|| async {
            if !self.shared.is_monitored.swap(true, Ordering::SeqCst) {
                let _turn = self.turn.lock().await;
                // Who has answered has published.
                self.ask_all(|_| {
                    let (inquiry, answered) = Inquiry::new(Vec::new(), Vec::new());
                    (Question::Rows(inquiry), answered)
                })
                .await?;
            }
            Ok(())
        });
        counting.await.copied()
    }

    /// What can be read of the server at once.
    pub fn look<R>(&self, look: impl FnOnce(&Snapshot<'_>) -> R) -> R {
        self.with_snapshot(&self.configured(), look)
    }

    /// What the server runs with.
    pub fn configured(&self) -> Arc<Configured> {
        self.configured.lock().clone()
    }

    /// Who the server is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What is told of one account alone.
    ///
    /// # Errors
    ///
    /// The workers do not answer.
    pub async fn account_detail(&self, name: &str) -> Result<Answer, NoAnswer> {
        self.count().await?;
        let _asking = self.ask_in_turn().await;
        let tally = self.tally(Some(name)).await?;
        let responses = self.responses(name).await?;
        let query = accountz::Query { account: Some(name.to_owned()) };
        Ok(self.look(|snapshot| {
            query.answer_detail(snapshot, index_stats(snapshot, Some(name), &tally), &responses)
        }))
    }

    /// What has been done in each account.
    ///
    /// # Errors
    ///
    /// The workers do not answer.
    pub async fn traffic(&self) -> Result<ConnectionTally, NoAnswer> {
        self.count().await?;
        let _asking = self.ask_in_turn().await;
        Ok(self.tally(None).await?.connections)
    }

    /// Who a connection is that was at this place.
    ///
    /// # Errors
    ///
    /// The workers do not answer.
    pub async fn user_of(&self, publisher: Publisher) -> Result<Option<KnownUser>, NoAnswer> {
        let Publisher { worker, conn, cid } = publisher;
        let _asking = self.ask_in_turn().await;
        if let Some(user) = self.user_at(usize::from(worker), conn, cid).await? {
            return Ok(Some(user));
        }
        // It has gone, or moved.
        let filter = ConnectionFilter { cid: Some(cid), ..ConnectionFilter::default() };
        let found = self
            .ask_all(|_| {
                let (inquiry, answered) =
                    Inquiry::new((filter.clone(), Measure::Cid), FoundConnections::default());
                (Question::Keys(inquiry), answered)
            })
            .await?;
        for (worker, found) in found.into_iter().enumerate() {
            if let Some(key) = found.keys.first() {
                return self.user_at(worker, key.conn, cid).await;
            }
        }
        Ok(None)
    }

    async fn user_at(&self, worker: usize, conn: u32, cid: u64) -> Result<Option<KnownUser>, NoAnswer> {
        let (inquiry, answered) = Inquiry::new((conn, cid), None);
        self.shared.doors[worker].ask(Question::User(inquiry));
        answer_of(answered).await
    }

    /// Does something to the connection with this number.
    ///
    /// # Errors
    ///
    /// The workers do not answer.
    pub async fn act(&self, action: Action, cid: u64) -> Result<Acted, NoAnswer> {
        let _asking = self.ask_in_turn().await;
        let acted = self
            .ask_all(|_| {
                let (inquiry, answered) = Inquiry::new((action, cid), Acted::NotFound);
                (Question::Act(inquiry), answered)
            })
            .await?;
        Ok(acted.into_iter().find(|acted| *acted != Acted::NotFound).unwrap_or(Acted::NotFound))
    }

    /// How many subscriptions of connections there are.
    ///
    /// # Errors
    ///
    /// The workers do not answer.
    pub async fn count_subscriptions(&self, filter: &SubscriptionFilter) -> Result<usize, NoAnswer> {
        let _asking = self.ask_in_turn().await;
        let found = self.subscriptions(Window { skip: 0, take: 0, found: 0 }, |_| filter.clone()).await?;
        Ok(found.into_iter().map(|found| found.window.found).sum())
    }

    async fn answer_request(&self, request: Request, preferences: &Preferences) -> Result<Answer, NoAnswer> {
        let configured = self.configured.lock().clone();
        Ok(match request {
            Request::Root if preferences.wants_html() => dashboard::answer(preferences),
            Request::Root => page::answer(&self.base),
            Request::Dashboard => dashboard::answer(preferences),
            Request::Links => page::answer(""),
            Request::Healthz(query) => self.answer_healthz(&query).await?,
            Request::Ipqueuesz => Answer::json(&RequestCounts::new()),
            Request::Raftz => neighbours::raftz(),
            Request::Connz(query) => self.answer_connz(&configured, &query).await?,
            Request::Subsz(query) => self.answer_subsz(&configured, &query).await?,
            Request::Accountz(query) => self.answer_accountz(&configured, &query).await?,
            Request::Metrics => self.answer_metrics(&configured).await?,
            Request::Varz => {
                let reading = self.read_jetstream(Wanted::None).await?;
                self.with_snapshot(&configured, |snapshot| varz::answer(snapshot, reading.as_ref()))
            }
            Request::Routez(subscriptions) => self.answer_routez(&configured, subscriptions).await?,
            Request::Gatewayz => self.with_snapshot(&configured, neighbours::gatewayz),
            Request::Leafz => self.with_snapshot(&configured, neighbours::leafz),
            Request::Vars => self.with_snapshot(&configured, vars::answer),
            Request::Accstatz(selection) => self.answer_accstatz(&configured, &selection).await?,
            Request::Jsz(query) => {
                let shown = |names: &[String]| query.shown(names);
                let reading = self.read_jetstream(query.wanted(&shown)).await?;
                self.with_snapshot(&configured, |snapshot| query.answer(snapshot, reading.as_ref()))
            }
            Request::Streamz(query) => {
                let reading = self.read_jetstream(Wanted::None).await?;
                let disk = self.disk_space().await;
                self.with_snapshot(&configured, |snapshot| query.answer(snapshot, reading.as_ref(), disk))
            }
            Request::Consumerz(query) => {
                let shown = |names: &[String]| query.accounts(names);
                let reading = self.read_jetstream(query.wanted(&shown)).await?;
                self.with_snapshot(&configured, |snapshot| query.answer(snapshot, reading.as_ref()))
            }
        })
    }

    /// How much room there is for streams on the disk, if there are any.
    async fn disk_space(&self) -> Option<DiskSpace> {
        self.jetstream.as_ref()?.disk_space().await
    }

    /// JetStream, if there is it; for one at a time.
    ///
    /// # Errors
    ///
    /// The workers do not answer.
    pub async fn read_jetstream(&self, wanted: Wanted<'_>) -> Result<Option<JetStreamReading>, NoAnswer> {
        let Some(jetstream) = &self.jetstream else { return Ok(None) };
        let _turn = self.turn.lock().await;
        jetstream.read(wanted).await.map(Some)
    }

    /// What is told of the streams of one account; an error if there is nothing to tell.
    ///
    /// # Errors
    ///
    /// The workers do not answer.
    pub async fn streams_of_account(&self, query: &jsz::Query) -> Result<Result<Answer, String>, NoAnswer> {
        let shown = |names: &[String]| query.shown(names);
        let reading = self.read_jetstream(query.wanted(&shown)).await?;
        Ok(self.look(|snapshot| query.answer_account(snapshot, reading.as_ref())))
    }

    fn with_snapshot<R>(&self, configured: &Configured, answer: impl FnOnce(&Snapshot<'_>) -> R) -> R {
        let requests = self.requests.lock().clone();
        answer(&self.snapshot(configured, &requests))
    }

    fn snapshot<'a>(&'a self, configured: &'a Configured, requests: &'a RequestCounts) -> Snapshot<'a> {
        let usage = process::usage();
        Snapshot {
            identity: &self.identity,
            host: configured.host.clone(),
            port: configured.port,
            websocket_port: configured.websocket_port,
            options: &configured.options,
            configured: Timestamp(configured.at),
            now: Timestamp(SystemTime::now()),
            now_us: self.now_us(),
            process: ProcessReading {
                memory_bytes: usage.memory_bytes,
                cpu_percent: self.cpu.lock().percent(usage.cpu_time),
                cpu_time: usage.cpu_time,
                open_files: 0,
                cores: process::available_cores(),
            },
            workers: self.shared.readings(),
            stream_times: self.shared.stream_times(),
            accounts: self.shared.account_readings(),
            total_connections: self.shared.total_connections(),
            routes: self.shared.routes.as_ref().map_or(0, |desk| desk.count.load(Ordering::Relaxed) as u64),
            route_port: configured.route_port,
            cluster_name: configured.cluster_name.clone(),
            requests,
        }
    }

    fn now_us(&self) -> u64 {
        self.shared.started.elapsed().as_micros() as u64
    }

    async fn answer_healthz(&self, query: &healthz::Query) -> Result<Answer, NoAnswer> {
        if query.is_deprecated {
            self.log.warning("Healthcheck: js-enabled deprecated, use js-enabled-only instead".to_owned());
        }
        let reading = match query.wanted() {
            Some(wanted) => self.read_jetstream(wanted).await?,
            None => None,
        };
        let (answer, warning) = query.answer(reading.as_ref());
        if let Some(warning) = warning {
            self.log.warning(warning);
        }
        Ok(answer)
    }

    async fn answer_connz(&self, configured: &Configured, query: &connz::Query) -> Result<Answer, NoAnswer> {
        let _asking = self.ask_in_turn().await;
        let mut open = Vec::new();
        let mut open_count = 0;
        if query.wants_open() {
            let found = self
                .ask_all(|_| {
                    let what = (query.filter(), query.measure());
                    let (inquiry, answered) = Inquiry::new(what, FoundConnections::default());
                    (Question::Keys(inquiry), answered)
                })
                .await?;
            for (worker, found) in found.into_iter().enumerate() {
                open_count += found.open;
                open.extend(found.keys.into_iter().map(|key| Candidate::Open { worker, key }));
            }
        }
        let closed = if query.wants_closed() { self.closed_connections() } else { Vec::new() };
        if let Some(filter) = query.demanded_subscriptions() {
            let subscribers = self.subscribers(&filter).await?;
            open.retain(|candidate| subscribers.contains(&candidate.cid()));
        }
        let page = query.choose(open, open_count, closed, self.now_us());
        let described = self.describe(&page.chosen, query.subscriptions).await?;
        Ok(self.with_snapshot(configured, |snapshot| query.answer(snapshot, &page, &described)))
    }

    /// The numbers of the connections that have such subscriptions.
    async fn subscribers(&self, filter: &SubscriptionFilter) -> Result<HashSet<u64>, NoAnswer> {
        let found = self.subscriptions(Window::ALL, |_| filter.clone()).await?;
        Ok(found.into_iter().flat_map(|found| found.rows).map(|row| row.cid).collect())
    }

    /// What the open connections among `candidates` are.
    async fn describe(
        &self,
        candidates: &[Candidate],
        subscriptions: Subscriptions,
    ) -> Result<HashMap<u64, OpenConnection>, NoAnswer> {
        let mut wanted: Vec<Vec<(u32, u64)>> = vec![Vec::new(); self.shared.doors.len()];
        for candidate in candidates {
            if let Candidate::Open { worker, key } = candidate {
                wanted[*worker].push((key.conn, key.cid));
            }
        }
        if wanted.iter().all(Vec::is_empty) {
            return Ok(HashMap::new());
        }
        let rows = self
            .ask_all(|worker| {
                let (inquiry, answered) = Inquiry::new(wanted[worker].clone(), Vec::new());
                (Question::Rows(inquiry), answered)
            })
            .await?;
        let rows = rows.into_iter().flatten();
        let mut described: HashMap<u64, OpenConnection> =
            rows.map(|row| (row.cid, OpenConnection { row, subscriptions: Vec::new() })).collect();
        if subscriptions == Subscriptions::No {
            return Ok(described);
        }
        let found = self
            .subscriptions(Window::ALL, |worker| SubscriptionFilter {
                connections: Some(wanted[worker].iter().copied().collect()),
                ..SubscriptionFilter::default()
            })
            .await?;
        for row in found.into_iter().flat_map(|found| found.rows) {
            if let Some(open) = described.get_mut(&row.cid) {
                open.subscriptions.push(row);
            }
        }
        for open in described.values_mut() {
            open.subscriptions.sort_unstable_by_key(|row| row.generation);
        }
        Ok(described)
    }

    fn closed_connections(&self) -> Vec<Arc<ClosedConnection>> {
        let (mut found, mut from) = (Vec::new(), Some(0));
        while let Some(at) = from {
            from = self.shared.closed.lock().read(at, CLOSED_PER_LOOK_MAX, &mut found);
        }
        found
    }

    async fn answer_subsz(&self, configured: &Configured, query: &subsz::Query) -> Result<Answer, NoAnswer> {
        let _asking = self.ask_in_turn().await;
        let account = query.account();
        let tally = self.tally(account).await?;
        let mut rows = Vec::new();
        let mut found = 0;
        if query.lists {
            // One worker after the other: where the page begins in one depends on how many there were in those before.
            for worker in 0..self.shared.doors.len() {
                let window = Window {
                    skip: query.offset.saturating_sub(found),
                    take: query.limit - rows.len(),
                    found: 0,
                };
                let answer = FoundSubscriptions { rows: Vec::new(), window };
                let (inquiry, answered) = Inquiry::new(query.filter(), answer);
                self.shared.doors[worker].ask(Question::Subscriptions(inquiry));
                let FoundSubscriptions { rows: more, window } = answer_of(answered).await?;
                rows.extend(more);
                found += window.found;
            }
            // Those of the server itself come last: who looks for something looks for a client's.
            let skip = query.offset.saturating_sub(found);
            let window = Window { skip, take: query.limit - rows.len(), found: 0 };
            let internal = self.internal_subscriptions(&query.filter(), window);
            rows.extend(internal.rows);
            found += internal.window.found;
        }
        Ok(self.with_snapshot(configured, |snapshot| {
            query.answer(snapshot, index_stats(snapshot, account, &tally), &rows, found)
        }))
    }

    /// Subscriptions of the server itself.
    fn internal_subscriptions(&self, filter: &SubscriptionFilter, mut window: Window) -> FoundSubscriptions {
        let accounts = self.shared.live.lock().settings.directory.clone();
        let mut rows = self.shared.internal.with_client(|client| {
            let row = |subscription: &InternalSubscription| {
                let InternalSubscription { account, subject, queue, generation, received, .. } = subscription;
                let account = accounts.accounts().get(*account);
                let cid = if account.is_system { SYSTEM_CLIENT_CID } else { ACCOUNT_CLIENT_CID };
                let is_taken = filter.takes(cid, &account.name, subject, queue.as_deref());
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                is_taken.then(|| SubscriptionRow {
                    cid,
                    generation: *generation,
                    account: account.name.clone(),
                    subject: text(subject),
                    queue: queue.as_deref().map_or_else(String::new, text),
                    sid: generation.to_string(),
                    delivered: *received,
                    delivered_max: 0,
                })
            };
            client.subscriptions().filter_map(row).collect::<Vec<_>>()
        });
        rows.sort_by_key(|row| (row.cid, row.generation));
        rows.retain(|_| window.takes_next());
        FoundSubscriptions { rows, window }
    }

    async fn answer_accountz(
        &self,
        configured: &Configured,
        query: &accountz::Query,
    ) -> Result<Answer, NoAnswer> {
        let account = query.account.as_deref();
        let (tally, responses) = match account {
            Some(account) => {
                let _asking = self.ask_in_turn().await;
                (self.tally(Some(account)).await?, self.responses(account).await?)
            }
            None => (Tally::default(), Vec::new()),
        };
        Ok(self.with_snapshot(configured, |snapshot| {
            query.answer(snapshot, index_stats(snapshot, account, &tally), &responses)
        }))
    }

    /// The answers to other accounts that an account still owes, by their subjects.
    async fn responses(&self, account: &str) -> Result<Vec<ResponseRow>, NoAnswer> {
        let directory = self.shared.live.lock().settings.directory.clone();
        let Some(slot) = directory.accounts().named(account).map(|account| account.slot) else {
            return Ok(Vec::new());
        };
        let rows = self
            .ask_all(|_| {
                let (inquiry, answered) = Inquiry::new(slot, Vec::new());
                (Question::Responses(inquiry), answered)
            })
            .await?;
        let mut rows = rows.concat();
        rows.sort_by(|a, b| a.subject.cmp(&b.subject));
        Ok(rows)
    }

    async fn answer_routez(
        &self,
        configured: &Configured,
        subscriptions: Subscriptions,
    ) -> Result<Answer, NoAnswer> {
        let mut routes = Vec::new();
        if let Some(desk) = &self.shared.routes {
            let _asking = self.ask_in_turn().await;
            let (inquiry, answered) = Inquiry::new(subscriptions != Subscriptions::No, Vec::new());
            self.shared.doors[desk.worker].ask(Question::Routes(inquiry));
            routes = answer_of(answered).await?;
        }
        Ok(self.with_snapshot(configured, |snapshot| neighbours::routez(snapshot, &routes, subscriptions)))
    }

    async fn answer_accstatz(
        &self,
        configured: &Configured,
        selection: &accountz::Selection,
    ) -> Result<Answer, NoAnswer> {
        let _asking = self.ask_in_turn().await;
        let tally = self.tally(None).await?;
        let connections = &tally.connections;
        Ok(self.with_snapshot(configured, |snapshot| selection.answer(snapshot, connections)))
    }

    async fn answer_metrics(&self, configured: &Configured) -> Result<Answer, NoAnswer> {
        let all = |names: &[String]| 0..names.len();
        let reading = self.read_jetstream(metrics::wanted(&all)).await?;
        let disk = self.disk_space().await;
        let _asking = self.ask_in_turn().await;
        let tally = self.tally(None).await?;
        let behind: Vec<Candidate> = tally.behind.clone();
        let described = self.describe(&behind, Subscriptions::No).await?;
        let behind: Vec<_> = behind
            .iter()
            .filter_map(|candidate| described.get(&candidate.cid()).map(|open| open.row.clone()))
            .collect();
        let requests = self.requests.lock().clone();
        let mut snapshot = self.snapshot(configured, &requests);
        snapshot.process.open_files = process::open_files();
        let index = IndexStats::of(&snapshot, tally.fan_out);
        Ok(metrics::answer(
            &snapshot,
            index,
            &tally.connections,
            &behind,
            reading.as_ref().map(|reading| (reading, disk)),
        ))
    }

    /// Waits until nobody else asks the workers and no connection is between two of them: then every connection is seen
    /// once. For as long as the result is kept.
    async fn ask_in_turn(&self) -> (tokio::sync::MutexGuard<'_, ()>, Bar<'_>) {
        let turn = self.turn.lock().await;
        (turn, self.shared.moves.bar().await)
    }

    /// What there is in all, at all workers; of cached subjects only those of this account, if one is named.
    async fn tally(&self, account: Option<&str>) -> Result<Tally, NoAnswer> {
        let slot = account.map(|name| {
            let accounts = self.shared.live.lock().settings.directory.clone();
            // No account has the last slot, for there are not that many.
            accounts.accounts().named(name).map_or(u16::MAX, |account| account.slot)
        });
        let tallies = self
            .ask_all(|_| {
                let (inquiry, answered) = Inquiry::new(slot, Tally::default());
                (Question::Tally(inquiry), answered)
            })
            .await?;
        let mut total = Tally::default();
        for (worker, tally) in tallies.into_iter().enumerate() {
            total.add(worker, tally);
        }
        Ok(total)
    }

    /// What each worker has in its window of such subscriptions.
    async fn subscriptions(
        &self,
        window: Window,
        filter: impl Fn(usize) -> SubscriptionFilter,
    ) -> Result<Vec<FoundSubscriptions>, NoAnswer> {
        self.ask_all(|worker| {
            let (inquiry, answered) =
                Inquiry::new(filter(worker), FoundSubscriptions { rows: Vec::new(), window });
            (Question::Subscriptions(inquiry), answered)
        })
        .await
    }

    /// Asks all workers at the same time.
    async fn ask_all<A>(
        &self,
        question: impl Fn(usize) -> (Question, oneshot::Receiver<A>),
    ) -> Result<Vec<A>, NoAnswer> {
        let asked: Vec<oneshot::Receiver<A>> = (0..self.shared.doors.len())
            .map(|worker| {
                let (question, answered) = question(worker);
                self.shared.doors[worker].ask(question);
                answered
            })
            .collect();
        let mut answers = Vec::with_capacity(asked.len());
        for answered in asked {
            answers.push(answer_of(answered).await?);
        }
        Ok(answers)
    }
}

/// Whether what arrives first is a request that is not encrypted. That is looked at, not taken.
async fn looks_like_http(stream: &TcpStream) -> bool {
    let mut first = [0; 5];
    let peeked = tokio::time::timeout(HANDSHAKE_TIMEOUT, stream.peek(&mut first)).await;
    matches!(peeked, Ok(Ok(_))) && HTTP_BEGINNINGS.contains(&&first)
}

/// Why a handshake failed, as the reference words it.
fn handshake_fault(error: &io::Error) -> String {
    match error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
        Some(cause) => tls_words(cause),
        None if error.kind() == io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        None => system_error::text(error),
    }
}

/// The workers are stopping, or the machine is.
#[derive(Debug, thiserror::Error)]
#[error("{NO_ANSWER}")]
pub struct NoAnswer;

const NO_ANSWER: &str = "the server does not answer questions about itself just now";

/// What is known of the index of this account, or of all.
fn index_stats(snapshot: &Snapshot<'_>, account: Option<&str>, tally: &Tally) -> IndexStats {
    let Some(name) = account else { return IndexStats::of(snapshot, tally.fan_out) };
    let Some(account) = snapshot.account(name) else { return IndexStats::default() };
    IndexStats::of_account(account, tally.connections.traffic(account.slot), tally.fan_out)
}

async fn answer_of<A>(answered: oneshot::Receiver<A>) -> Result<A, NoAnswer> {
    tokio::time::timeout(ANSWER_TIMEOUT, answered).await.map_err(|_| NoAnswer)?.map_err(|_| NoAnswer)
}

fn preferences(headers: &hyper::HeaderMap) -> Preferences {
    let text = |name: HeaderName| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.collect::<Vec<_>>().join(",")
    };
    Preferences {
        accept: text(ACCEPT),
        accept_encoding: text(ACCEPT_ENCODING),
        if_none_match: text(IF_NONE_MATCH),
    }
}

fn response(answer: Answer) -> hyper::Response<Full<Bytes>> {
    let Answer { status, kind, body } = answer;
    let mut response = hyper::Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() =
        hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if kind == Kind::Json {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind.content_type()));
    match kind {
        Kind::NotFound => drop(headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))),
        Kind::Redirect(to) => {
            if let Ok(to) = HeaderValue::from_str(&to) {
                headers.insert(LOCATION, to);
            }
        }
        Kind::Unauthorized { challenge } => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        // What stands at `/` depends on who asks.
        Kind::Html => drop(headers.insert(VARY, HeaderValue::from_static("Accept"))),
        Kind::Dashboard { tag, gzip } => {
            for (name, value) in [
                (VARY, "Accept, Accept-Encoding"),
                // To be asked for each time, and sent again only if it has changed.
                (CACHE_CONTROL, "no-cache"),
                (CONTENT_SECURITY_POLICY, dashboard::POLICY),
                (REFERRER_POLICY, "no-referrer"),
                (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            ] {
                headers.insert(name, HeaderValue::from_static(value));
            }
            if gzip {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            if let Ok(tag) = HeaderValue::from_str(&tag) {
                headers.insert(ETAG, tag);
            }
        }
        _ => {}
    }
    response
}

/// Who may ask. One password is held against a hash at a time, by a thread that yields to all others.
struct Guard {
    access: Access,
    /// Whether those who may not ask are told if the server is well.
    tells_health: bool,
    /// The digest of what was shown last and was right: dashboards ask every second, and a hash takes a tenth of one.
    right: Mutex<Option<[u8; 32]>>,
    /// Held by whoever waits for a hash.
    checking: tokio::sync::Mutex<()>,
}

impl Guard {
    fn new(options: &Options) -> Guard {
        Guard {
            access: Access::new(&options.monitor_access),
            tells_health: !options.monitor_healthz_guarded,
            right: Mutex::new(None),
            checking: tokio::sync::Mutex::new(()),
        }
    }

    async fn admits(&self, authorization: Option<&HeaderValue>) -> bool {
        let text = authorization.and_then(|value| value.to_str().ok());
        let (check, rest_is_right) = match self.access.decide(text) {
            Decision::Known(is_right) => return is_right,
            Decision::Takes(check, rest_is_right) => (check, rest_is_right),
        };
        let shown = digest(text.unwrap_or_default());
        let was_right = || self.right.lock().is_some_and(|right| same(&right, &shown));
        if was_right() {
            return true;
        }
        let _checking = self.checking.lock().await;
        if was_right() {
            return true;
        }
        let verified = tokio::task::spawn_blocking(move || {
            process::yield_to_other_threads();
            check.verify()
        });
        let is_right = verified.await.unwrap_or(false) && rest_is_right;
        if is_right {
            *self.right.lock() = Some(shown);
        }
        is_right
    }
}

/// How much of a core the process uses.
struct CpuMeter {
    /// When the window that is shown ended, and the processor time until then.
    last: (Instant, Duration),
    percent: f64,
}

impl CpuMeter {
    fn new() -> CpuMeter {
        CpuMeter { last: (Instant::now(), process::usage().cpu_time), percent: 0.0 }
    }

    /// Of the time since the last call that is a window ago.
    fn percent(&mut self, cpu_time: Duration) -> f64 {
        let (since, before) = self.last;
        let elapsed = since.elapsed();
        if elapsed >= CPU_WINDOW {
            let share = cpu_time.saturating_sub(before).as_secs_f64() / elapsed.as_secs_f64();
            self.percent = (share * 1000.0).round() / 10.0;
            self.last = (Instant::now(), cpu_time);
        }
        self.percent
    }
}
