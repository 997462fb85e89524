//! Start, signals, shutdown: what the control thread does. Everything slow happens here, never in a worker.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize};
use std::sync::mpsc as thread_mpsc;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc};

use super::handshakes::Handshakes;
use super::http::{Configured, Monitor, MonitorListener};
use super::internal::Internal;
use super::jetstream::{JetStream, JetStreamError};
use super::log::{Log, LogSettings, LogTarget, Rotation};
use super::moves::Moves;
use super::password_checks::PasswordChecks;
use super::placement::Placement;
use super::reload;
use super::routes::{RouteDesk, dial_routes};
use super::shared::{Door, FIRST_CID, LiveSettings, Shared, SharedInterest};
use super::system::{ReloadRequest, System};
use super::worker::{self, Next, Start, WebEntrance, WorkerError, WorkerParts};
use crate::auth::nkey::NonceKey;
use crate::auth::{Directory, TooManyAccounts};
use crate::base::nuid::nuid;
use crate::base::{handover, system_error};
use crate::broker::web::FIRST_GUEST;
use crate::broker::{Broker, Settings, install_services};
use crate::broker::{ClusterTerms, TlsTerms, WebTerms};
use crate::cluster::Membership;
use crate::config::{
    Advertise, ClusterOptions, HANDSHAKE_TIMEOUT_DEFAULT, HandshakeFirst, Io, JetStreamOptions,
    MonitoringFault, Options, Port, ROUTE_PING_INTERVAL_MAX, TlsOptions, Warning, WebSocketOptions,
};
use crate::io::listener::{Entrance, Listener};
use crate::io::process;
use crate::io::service_manager::ServiceManager;
use crate::io::socket_driver::Driver;
use crate::io::wake::Waker;
use crate::monitor::clock::{Epoch, Timestamp};
use crate::monitor::closed::ClosedRing;
use crate::monitor::readings::Identity;
use crate::subject::interest::{InterestAccess as _, Watch};
use crate::tls::{Acceptor, AcceptorError};
use crate::websocket::UpgradeTerms;
use crate::wire::info::{Info, REFERENCE_VERSION, RINGMAIN_VERSION, WebSocketInfo};
use crate::wire::route_handshake::RouteInfo;

/// Why nothing is read again.
const NO_RELOAD: &str = "the server is in lame duck mode";

/// Reloads that may be asked for in the system account at a time.
const RELOAD_REQUESTS_MAX: usize = 16;

/// The reference's words, which tools look for.
const PLAIN_SECRETS_WARNING: &str = "Plaintext passwords detected, use nkeys or bcrypt";

/// Everything that the server needs to know to start.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Host to listen on.
    pub host: String,
    /// Port to listen on; 0 picks a free one.
    pub port: u16,
    /// What clients are told instead of these two.
    pub client_advertise: Option<Advertise>,
    /// The server's name; its id if empty.
    pub server_name: String,
    /// The name of the cluster, which may have been made up; empty without a cluster.
    pub cluster_name: String,
    /// Worker threads; 0 for one per core.
    pub workers: usize,
    /// Connections allowed.
    pub connections_max: i64,
    /// Written with the process's number, and nothing else.
    pub pid_file: Option<PathBuf>,
    /// Where to write the ports file.
    pub ports_file_dir: Option<PathBuf>,
    /// What encrypted connections are accepted with.
    pub acceptor: Option<Arc<Acceptor>>,
    /// What the connections of the monitoring are encrypted with.
    pub monitor_tls: Option<Arc<rustls::ServerConfig>>,
    /// What WebSocket connections are accepted with.
    pub web_entrance: Option<Arc<WebEntrance>>,
    /// What the brokers enforce.
    pub settings: Arc<Settings>,
    /// Time that lame duck mode takes to close all connections, and how long it waits before.
    pub lame_duck: LameDuck,
    /// The log.
    pub log: LogSettings,
    /// Said as warnings once the log is open.
    pub warnings: Vec<String>,
    /// What all of this comes from.
    pub configured: Options,
    /// When that was read.
    pub configured_at: SystemTime,
}

/// The times of lame duck mode.
#[derive(Debug, Clone, Copy)]
pub struct LameDuck {
    /// From the signal to the last connection.
    pub duration: Duration,
    /// Before the first.
    pub grace_period: Duration,
}

impl ServerOptions {
    /// The part of the configuration that the server acts on. `nonce_key` stays the same as long as the server runs.
    ///
    /// # Errors
    ///
    /// There are too many accounts, or TLS cannot be had as it is asked for.
    pub fn new(
        options: Options,
        warnings: &[Warning],
        nonce_key: NonceKey,
    ) -> Result<ServerOptions, OptionsError> {
        let directory = Directory::new(&options, nonce_key)?;
        let cluster_name = match (&options.cluster.name, options.cluster.is_configured()) {
            (name, false) => name.clone().unwrap_or_default(),
            (Some(name), true) => name.clone(),
            (None, true) => nuid(&mut fastrand::Rng::new()),
        };
        ServerOptions::with_directory(options, warnings, directory, cluster_name)
    }

    /// The same of a configuration that was read again.
    ///
    /// # Errors
    ///
    /// As for [`ServerOptions::new`].
    pub fn successor(&self, options: Options, warnings: &[Warning]) -> Result<ServerOptions, OptionsError> {
        let directory = self.settings.directory.successor(&options)?;
        ServerOptions::with_directory(options, warnings, directory, self.cluster_name.clone())
    }

    fn with_directory(
        options: Options,
        warnings: &[Warning],
        directory: Directory,
        cluster_name: String,
    ) -> Result<ServerOptions, OptionsError> {
        let acceptor = options.tls.as_ref().map(Acceptor::new).transpose()?.map(Arc::new);
        let monitor_tls = monitor_tls(&options)?;
        let web_entrance = options.websocket.as_ref().map(web_entrance).transpose()?.map(Arc::new);
        let directory = Arc::new(directory);
        let web = options.websocket.as_ref().map(|websocket| {
            let or = |own: Duration, other: Duration| millis(if own.is_zero() { other } else { own });
            WebTerms {
                directory: match directory.for_websocket(&options) {
                    Some(own) => Arc::new(own),
                    None => directory.clone(),
                },
                ping_interval_ms: or(websocket.ping_interval, options.ping_interval),
                auth_timeout_ms: or(websocket.auth_timeout, options.authorization.timeout),
                handshake_timeout_ms: or(websocket.handshake_timeout, HANDSHAKE_TIMEOUT_DEFAULT),
            }
        });
        let plain_secrets = directory.has_plain_secrets().then(|| PLAIN_SECRETS_WARNING.to_owned());
        let cluster = options.cluster.is_configured().then(|| {
            let cluster = &options.cluster;
            let or = |own: Duration, other: Duration| if own.is_zero() { other } else { own };
            let ping_interval = or(cluster.ping_interval, options.ping_interval).min(ROUTE_PING_INTERVAL_MAX);
            ClusterTerms {
                credentials: cluster.credentials.clone(),
                auth_timeout_ms: millis(cluster.auth_timeout),
                ping_interval_ms: millis(ping_interval),
                pings_out_max: if cluster.ping_max > 0 { cluster.ping_max } else { options.ping_max },
                write_deadline_ms: millis(or(cluster.write_deadline, options.write_deadline)),
            }
        });
        Ok(ServerOptions {
            acceptor,
            cluster_name,
            monitor_tls,
            web_entrance,
            host: options.host.clone(),
            port: options.port.to_bind(),
            client_advertise: options.client_advertise.clone(),
            server_name: options.server_name.clone().unwrap_or_default(),
            workers: options.workers.map_or(0, |workers| workers.get() as usize),
            connections_max: i64::from(options.max_connections),
            pid_file: options.pid_file.clone(),
            ports_file_dir: options.ports_file_dir.clone(),
            settings: Arc::new(Settings {
                control_line_max: options.max_control_line as usize,
                payload_max: options.max_payload as usize,
                pending_max: usize::try_from(options.max_pending).unwrap_or(usize::MAX),
                subscriptions_max: options.max_subscriptions.map_or(0, |max| max.get() as usize),
                subscription_tokens_max: options
                    .max_subscription_tokens
                    .map_or(0, |max| usize::from(max.get())),
                ping_interval_ms: millis(options.ping_interval),
                pings_out_max: options.ping_max,
                write_deadline_ms: millis(options.write_deadline),
                auth_timeout_ms: millis(options.authorization.timeout),
                headers: !options.no_header_support,
                no_fast_producer_stall: options.no_fast_producer_stall,
                tls: options.tls.as_ref().map(|tls| TlsTerms {
                    first: tls.first,
                    optional: options.allow_non_tls && tls.first != HandshakeFirst::Yes,
                    timeout_ms: millis(tls.timeout),
                    connections_per_second: tls.connections_per_second.map_or(0, |max| max.get()),
                }),
                web,
                cluster,
                directory,
                trace: options.trace,
                trace_verbose: options.trace_verbose,
                debug: options.debug,
                trace_headers: options.trace_headers,
                traced_len_max: options.max_traced_msg_len.map_or(0, |max| max.get() as usize),
            }),
            lame_duck: LameDuck {
                duration: options.lame_duck_duration,
                grace_period: options.lame_duck_grace_period,
            },
            log: LogSettings {
                target: log_target(&options),
                debug: options.debug,
                trace: options.trace,
                without_time: !options.logtime,
                utc: options.logtime_utc,
            },
            warnings: warnings
                .iter()
                .map(ToString::to_string)
                .chain(options.not_supported_warning())
                .chain(plain_secrets)
                .collect(),
            configured: options,
            configured_at: SystemTime::now(),
        })
    }
}

/// As in the reference, `tls.verify` is for clients: who asks the monitoring shows a certificate only if `monitor.verify` says so.
fn monitor_tls(options: &Options) -> Result<Option<Arc<rustls::ServerConfig>>, AcceptorError> {
    let (Some(tls), Some(_)) = (&options.tls, options.https_port) else { return Ok(None) };
    let verify = options.monitor_verify;
    let tls = TlsOptions { verify, map: false, pinned: None, ..tls.clone() };
    Ok(Some(Acceptor::new(&tls)?.config()))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn web_entrance(options: &WebSocketOptions) -> Result<WebEntrance, AcceptorError> {
    Ok(WebEntrance {
        terms: UpgradeTerms {
            is_encrypted: options.tls.is_some(),
            same_origin: options.same_origin,
            allowed_origins: options.origins().expect("they have been checked"),
            compression: options.compression,
            headers: options.headers.clone().into_iter().collect(),
            cookies: options.cookies.clone(),
        },
        acceptor: options.tls.as_ref().map(Acceptor::new).transpose()?.map(Arc::new),
    })
}

fn log_target(options: &Options) -> LogTarget {
    match &options.log_file {
        Some(path) => LogTarget::File {
            path: path.clone(),
            rotation: Rotation { size_limit: options.log_size_limit, files_max: options.log_max_num },
        },
        None if options.syslog || options.remote_syslog.is_some() => {
            LogTarget::Syslog { remote: options.remote_syslog.clone() }
        }
        None => LogTarget::StandardError,
    }
}

/// What the challenges of this run are derived from.
///
/// # Errors
///
/// The system has no random numbers.
pub fn new_nonce_key() -> Result<NonceKey, StartError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| StartError::System("random numbers", io::Error::other(error)))?;
    Ok(NonceKey(bytes))
}

/// Why options that are right by themselves cannot be gone by.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// The accounts.
    #[error(transparent)]
    Accounts(#[from] TooManyAccounts),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] AcceptorError),
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("Error listening on port: {addr}, \"listen tcp{cause}\"")]
    Listen {
        /// The address as configured.
        addr: String,
        /// Why.
        cause: String,
    },
    /// The pid file.
    #[error("Could not write pidfile: open {}: {}", .0.display(), system_error::text(.1))]
    PidFile(PathBuf, io::Error),
    /// The address for WebSocket clients cannot be listened on.
    #[error("Unable to listen for websocket connections: listen tcp{0}")]
    ListenForWebSocket(String),
    /// The address for routes cannot be listened on.
    #[error("Error listening on router port: {port} - listen tcp{cause}")]
    ListenForRoutes {
        /// The port as configured.
        port: u16,
        /// Why.
        cause: String,
    },
    /// The address of the monitoring cannot be listened on.
    #[error("Can't start monitoring: can't listen to the monitor port: listen tcp{0}")]
    ListenForMonitoring(String),
    /// The monitoring is configured in a way that cannot be.
    #[error("Can't start monitoring: {0}")]
    Monitoring(#[from] MonitoringFault),
    /// The options.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// A worker.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// JetStream.
    #[error(transparent)]
    JetStream(#[from] JetStreamError),
    /// The log file.
    #[error("error opening file: open {}: {}", .0.display(), system_error::text(.1))]
    LogFile(PathBuf, io::Error),
    /// Anything else that the system refuses.
    #[error("{0}: {1}")]
    System(&'static str, io::Error),
}

impl StartError {
    /// Whether the log was open, so that the error stands there.
    pub fn is_logged(&self) -> bool {
        !matches!(self, StartError::LogFile(..) | StartError::Options(_))
    }
}

/// Runs the server until it is told to stop. An error, if there is a log, is its last line.
///
/// # Errors
///
/// Why it did not start.
pub fn run(mut options: ServerOptions) -> Result<(), StartError> {
    process::configure_allocator();
    let (log, log_thread) = Log::start(options.log.clone()).map_err(|error| {
        StartError::LogFile(options.configured.log_file.clone().unwrap_or_default(), error)
    })?;
    let result = run_logged(&mut options, &log);
    if let Err(error) = &result {
        log.fatal(error.to_string());
    }
    log_thread.stop();
    result
}

fn run_logged(options: &mut ServerOptions, log: &Log) -> Result<(), StartError> {
    let started = options.configured_at;
    let server_id = nkeys::KeyPair::new_server().public_key();
    let server_name =
        if options.server_name.is_empty() { server_id.clone() } else { options.server_name.clone() };
    log.info("Starting ringmain");
    log.info(format!("  Version:  {REFERENCE_VERSION} (ringmain {RINGMAIN_VERSION})"));
    if !options.cluster_name.is_empty() {
        log.info(format!("  Cluster:  {}", options.cluster_name));
    }
    log.info(format!("  Name:     {server_name}"));
    log.info(format!("  ID:       {server_id}"));
    for warning in &options.warnings {
        log.warning(warning.clone());
    }
    if let (Some(file), Some(digest)) = (&options.configured.config_file, &options.configured.config_digest) {
        log.info(format!("Using configuration file: {} ({digest})", file.display()));
    }
    if let Err(error) = process::raise_limits() {
        log.warning(format!("the limits on open files and locked memory cannot be raised: {error}"));
    }
    // The process is known by it before it listens, as in the reference.
    Files::write_pid(options)?;
    let mut listener = listen(options)?;
    let addr = listener.local_addr().map_err(|error| StartError::System("listener", error))?;
    let monitor_listener = listen_for_monitoring(options, log)?;
    let websocket_port = match &options.configured.websocket {
        Some(websocket) => Some(listen_for_websocket(websocket, &mut listener)?),
        None => None,
    };
    let route_port = match options.configured.cluster.is_configured() {
        true => Some(listen_for_routes(&options.configured.cluster, &mut listener)?),
        false => None,
    };
    let advertised = Advertised {
        server_id,
        server_name,
        xkey: nkeys::XKey::new().public_key(),
        port: addr.port(),
        websocket_port,
        route_port,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| StartError::System("control runtime", error))?;
    runtime.block_on(async {
        // Before the workers, so that a signal meant for us never ends the process.
        let mut signals = Signals::new().map_err(|error| StartError::System("signal handlers", error))?;
        let workers = Workers::start(options, &advertised, listener, log)?;
        let jetstream = match &options.configured.jetstream {
            None => None,
            Some(configured) => {
                let opened = open_jetstream(configured, options, &advertised, &workers.shared, log).await;
                match opened {
                    Ok(jetstream) => Some(jetstream),
                    Err(error) => {
                        workers.stop();
                        return Err(error.into());
                    }
                }
            }
        };
        workers.shared.open();
        if let (Some(websocket), Some(port)) = (&options.configured.websocket, websocket_port) {
            say_websocket(websocket, port, log);
        }
        log.info(format!("Listening for client connections on {}", host_port(&options.host, addr.port())));
        say_tls(options, log);
        let monitor_port = monitor_listener.as_ref().map(|listener| listener.port);
        let monitor = Monitor::new(
            advertised.identity(&workers.shared, started),
            advertised.configured(options),
            workers.shared.clone(),
            jetstream.clone(),
            log.clone(),
        );
        let (reloads, mut reload_requests) = mpsc::channel(RELOAD_REQUESTS_MAX);
        let system =
            System::new(monitor.clone(), workers.shared.clone(), jetstream.clone(), log.clone(), reloads);
        tokio::spawn(system.clone().run());
        if let Some(listener) = monitor_listener {
            monitor.serve(listener).map_err(|error| StartError::System("monitoring", error))?;
        }
        log.info("Server is ready");
        if let Some(port) = route_port {
            say_cluster(options, port, log);
        }
        let mut files = Files { port: addr.port(), monitor_port, websocket_port, ports: None };
        files.write_ports(options, log);
        let manager = ServiceManager::from_environment().unwrap_or_else(|error| {
            log.warning(format!("the service manager (NOTIFY_SOCKET) cannot be reached: {error}"));
            ServiceManager::default()
        });
        let tell = |result: io::Result<()>| {
            if let Err(error) = result {
                log.warning(format!("the service manager cannot be told: {error}"));
            }
        };
        tell(manager.ready());
        let mut next_give_back = Instant::now();
        loop {
            let mut requested = None;
            let signal = tokio::select! {
                signal = signals.next(log) => signal,
                Some(request) = reload_requests.recv() => {
                    requested = Some(request);
                    Signal::Reload
                }
                () = memory_to_give_back(&workers.shared, next_give_back) => {
                    process::give_memory_back();
                    next_give_back = Instant::now() + GIVE_BACK_PAUSE;
                    continue;
                }
            };
            match signal {
                Signal::Interrupt | Signal::Terminate => break,
                Signal::Reopen => log.reopen(),
                Signal::LameDuck => {
                    // Not "stopping" yet: from then on the manager's own limit of time would count.
                    tell(manager.status("Lame duck mode"));
                    system.tell_lame_duck();
                    workers.drain(options.lame_duck, log, &mut signals, &mut reload_requests).await;
                    break;
                }
                Signal::Reload => {
                    tell(manager.reloading());
                    let reloaded =
                        reload::reload(options, &advertised, &workers.shared, &mut files, log).await;
                    monitor.configure(advertised.configured(options));
                    system.go_by_settings();
                    if let Some(jetstream) = &jetstream {
                        jetstream.go_by_settings(&options.configured).await;
                    }
                    if let Some(ReloadRequest { done }) = requested {
                        // Whoever asked may have gone.
                        let _ = done.send(reloaded);
                    }
                    tell(manager.ready());
                }
            }
        }
        tell(manager.stopping());
        log.info("Initiating Shutdown...");
        system.tell_shutdown().await;
        workers.stop();
        files.remove(log);
        log.info("Server Exiting..");
        Ok(())
    })
}

async fn open_jetstream(
    configured: &JetStreamOptions,
    options: &ServerOptions,
    advertised: &Advertised,
    shared: &Arc<Shared>,
    log: &Log,
) -> Result<Arc<JetStream>, JetStreamError> {
    let store_dir = options.configured.store_dir.as_deref();
    let (shared, log) = (shared.clone(), log.clone());
    let jetstream = JetStream::new(configured, store_dir, &advertised.server_name, shared, log)?;
    jetstream.open_streams(&options.configured).await?;
    Ok(jetstream)
}

fn say_tls(options: &ServerOptions, log: &Log) {
    let Some(terms) = options.settings.tls else { return };
    let how = if terms.optional { "available" } else { "required" };
    log.info(format!("TLS {how} for client connections"));
    if terms.first == HandshakeFirst::Yes {
        log.warning(
            "Clients that are not using \"TLS Handshake First\" option will fail to connect".to_owned(),
        );
    }
}

fn say_websocket(websocket: &WebSocketOptions, port: u16, log: &Log) {
    let scheme = if websocket.tls.is_some() { "wss" } else { "ws" };
    // The reference does not put an IPv6 address into brackets here.
    log.info(format!("Listening for websocket clients on {scheme}://{}:{port}", websocket.host));
    if websocket.tls.is_none() {
        log.warning("Websocket not configured with TLS. DO NOT USE IN PRODUCTION!".to_owned());
    }
}

fn listen_for_websocket(websocket: &WebSocketOptions, listener: &mut Listener) -> Result<u16, StartError> {
    let (host, port) = (&websocket.host, websocket.port.to_bind());
    listener
        .add(Entrance::WebSocket, host, port)
        .map_err(|error| StartError::ListenForWebSocket(listen_error_text(host, port, &error)))
}

fn listen_for_routes(cluster: &ClusterOptions, listener: &mut Listener) -> Result<u16, StartError> {
    let (host, port) = (&cluster.host, cluster.port.map_or(0, Port::to_bind));
    listener
        .add(Entrance::Route, host, port)
        .map_err(|error| StartError::ListenForRoutes { port, cause: listen_error_text(host, port, &error) })
}

fn say_cluster(options: &ServerOptions, port: u16, log: &Log) {
    log.info(format!("Cluster name is {}", options.cluster_name));
    if options.configured.cluster.name.is_none() {
        log.warning("Cluster name was dynamically generated, consider setting one");
    }
    if options.configured.jetstream.is_some() {
        log.warning(
            "JetStream is not clustered: streams are those of one server, and only one server of the cluster may have any",
        );
    }
    log.info(format!(
        "Listening for route connections on {}",
        host_port(&options.configured.cluster.host, port)
    ));
}

fn listen(options: &ServerOptions) -> Result<Listener, StartError> {
    Listener::new(&options.host, options.port).map_err(|error| StartError::Listen {
        addr: host_port(&options.host, options.port),
        cause: listen_error_text(&options.host, options.port, &error),
    })
}

/// Why an address cannot be had, as the reference words it behind `listen tcp`.
fn listen_error_text(host: &str, port: u16, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(_) => format!(" {}: bind: {}", host_port(host, port), system_error::text(error)),
        // Only names that nobody knows have no number of an error.
        None => format!(": lookup {host}: no such host"),
    }
}

fn listen_for_monitoring(options: &ServerOptions, log: &Log) -> Result<Option<MonitorListener>, StartError> {
    let Some((scheme, port)) = options.configured.monitoring()? else { return Ok(None) };
    let host = options.configured.http_host.as_ref().unwrap_or(&options.host);
    let listener = MonitorListener::bind(host, port)
        .map_err(|error| StartError::ListenForMonitoring(listen_error_text(host, port.to_bind(), &error)))?;
    log.info(format!("Starting {scheme} monitor on {}", host_port(host, listener.port)));
    Ok(Some(listener))
}

/// What `INFO` tells clients of the server, beside its options.
pub struct Advertised {
    server_id: String,
    server_name: String,
    xkey: String,
    /// The port that is listened on.
    port: u16,
    /// That for WebSocket clients.
    websocket_port: Option<u16>,
    /// That for other servers.
    route_port: Option<u16>,
}

impl Advertised {
    /// What all `INFO` lines share with these options.
    pub fn info(&self, options: &ServerOptions) -> Info {
        let (host, port) = self.host_and_port(options);
        let mut info = Info::new(self.server_id.clone(), self.server_name.clone(), host, port);
        info.xkey = self.xkey.clone();
        info.headers = options.settings.headers;
        info.auth_required = options.settings.directory.demands_credentials();
        info.max_payload = options.settings.payload_max as i64;
        info.jetstream = options.configured.jetstream.is_some();
        info.cluster.clone_from(&options.cluster_name);
        info.own_connect_urls = self.connect_urls(options);
        info.domain =
            options.configured.jetstream.as_ref().map(|found| found.domain.clone()).unwrap_or_default();
        if let (Some(tls), Some(terms)) = (&options.configured.tls, options.settings.tls) {
            info.tls_required = !terms.optional;
            info.tls_available = options.configured.allow_non_tls;
            info.tls_verify = tls.verify;
        }
        info.websocket = options.configured.websocket.as_ref().map(|websocket| WebSocketInfo {
            host: websocket.host.clone(),
            port: self.websocket_port.unwrap_or_default(),
            is_encrypted: websocket.tls.is_some(),
            connect_urls: Vec::new(),
            own_connect_urls: self.websocket_connect_urls(options),
        });
        info
    }

    /// Where clients can connect to this server, if others are to know.
    fn connect_urls(&self, options: &ServerOptions) -> Vec<String> {
        let cluster = &options.configured.cluster;
        if !cluster.is_configured() || cluster.no_advertise {
            return Vec::new();
        }
        let (host, port) = self.host_and_port(options);
        endpoints(&host).map(|host| host_port(&host, port)).collect()
    }

    /// The same for WebSocket clients.
    fn websocket_connect_urls(&self, options: &ServerOptions) -> Vec<String> {
        let cluster = &options.configured.cluster;
        let (Some(websocket), Some(port)) = (&options.configured.websocket, self.websocket_port) else {
            return Vec::new();
        };
        if !cluster.is_configured() || cluster.no_advertise {
            return Vec::new();
        }
        match &websocket.advertise {
            Some(advertise) if advertise.contains(':') => vec![advertise.clone()],
            Some(advertise) => vec![host_port(advertise, port)],
            None => endpoints(&websocket.host).map(|host| host_port(&host, port)).collect(),
        }
    }

    /// What other servers are told.
    fn route_info(&self, options: &ServerOptions) -> RouteInfo {
        let cluster = &options.configured.cluster;
        let route_port = self.route_port.unwrap_or_default();
        let (host, port, ip) = match &cluster.advertise {
            None => (cluster.host.clone(), route_port, String::new()),
            Some(advertise) => {
                let port = advertise.port.unwrap_or(route_port);
                let ip = format!("nats-route://{}/", host_port(&advertise.host, port));
                (advertise.host.clone(), port, ip)
            }
        };
        RouteInfo {
            host,
            port,
            ip,
            headers: options.settings.headers,
            auth_required: cluster.credentials.is_some(),
            max_payload: options.settings.payload_max as i64,
            jetstream: options.configured.jetstream.is_some(),
            cluster: options.cluster_name.clone(),
            dynamic: cluster.name.is_none(),
            connect_urls: Some(self.connect_urls(options)),
            ws_connect_urls: Some(self.websocket_connect_urls(options)),
            ..RouteInfo::new(self.server_id.clone(), self.server_name.clone())
        }
    }

    /// Who the server is, for the monitoring.
    fn identity(&self, shared: &Shared, started: SystemTime) -> Identity {
        Identity {
            server_id: self.server_id.clone(),
            server_name: self.server_name.clone(),
            epoch: Epoch(SystemTime::now() - shared.started.elapsed()),
            started: Timestamp(started),
            command_line: std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect(),
        }
    }

    /// What the monitoring shows of the options. To be called when they have been read.
    fn configured(&self, options: &ServerOptions) -> Configured {
        let (host, port) = self.host_and_port(options);
        Configured {
            options: options.configured.clone(),
            at: options.configured_at,
            host,
            port,
            websocket_port: self.websocket_port,
            route_port: self.route_port,
            cluster_name: options.cluster_name.clone(),
            tls: options.monitor_tls.clone(),
        }
    }

    fn host_and_port(&self, options: &ServerOptions) -> (String, u16) {
        match &options.client_advertise {
            None => (options.host.clone(), self.port),
            Some(advertise) => (advertise.host.clone(), advertise.port.unwrap_or(self.port)),
        }
    }
}

/// The files that tell others about the running server.
pub struct Files {
    port: u16,
    monitor_port: Option<u16>,
    websocket_port: Option<u16>,
    ports: Option<PathBuf>,
}

impl Files {
    fn write_pid(options: &ServerOptions) -> Result<(), StartError> {
        let Some(path) = &options.pid_file else { return Ok(()) };
        std::fs::write(path, std::process::id().to_string())
            .map_err(|error| StartError::PidFile(path.clone(), error))
    }

    fn write_ports(&mut self, options: &ServerOptions, log: &Log) {
        self.ports = options.ports_file_dir.as_ref().map(|directory| {
            // Named after what the server was started as, which may be a link or a wrapper's `exec -a`.
            let program = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
            let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
            directory.join(format!("{name}_{}.ports", std::process::id()))
        });
        let Some(path) = &self.ports else { return };
        let urls: Vec<String> =
            endpoints(&options.host).map(|host| format!("nats://{}", host_port(&host, self.port))).collect();
        let mut text = format!("{{\"nats\":{}", serde_json::json!(urls));
        if let Some(port) = self.monitor_port {
            let host = options.configured.http_host.as_ref().unwrap_or(&options.host);
            let scheme = if options.configured.https_port.is_some() { "https" } else { "http" };
            let urls: Vec<String> =
                endpoints(host).map(|host| format!("{scheme}://{}", host_port(&host, port))).collect();
            text.push_str(&format!(",\"monitoring\":{}", serde_json::json!(urls)));
        }
        if let (Some(port), Some(websocket)) = (self.websocket_port, &options.configured.websocket) {
            let scheme = if websocket.tls.is_some() { "wss" } else { "ws" };
            let urls: Vec<String> = endpoints(&websocket.host)
                .map(|host| format!("{scheme}://{}", host_port(&host, port)))
                .collect();
            text.push_str(&format!(",\"websocket\":{}", serde_json::json!(urls)));
        }
        text.push('}');
        // Written beside and renamed, so that whoever waits for it never sees half of it.
        let beside = path.with_extension("ports.new");
        let written = std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, path));
        if let Err(error) = written {
            let (path, error) = (path.display(), system_error::text(&error));
            log.error(format!("Error writing ports file ({path}): open {path}: {error}"));
        }
    }

    /// Writes the files whose places a reload has changed.
    pub fn change(&mut self, old: &ServerOptions, new: &ServerOptions, log: &Log) {
        if new.pid_file != old.pid_file
            && let Err(error) = Self::write_pid(new)
        {
            log.error(error.to_string());
        }
        if new.ports_file_dir != old.ports_file_dir {
            self.remove(log);
            self.write_ports(new, log);
        }
    }

    /// The reference leaves the pid file behind, and so do we.
    fn remove(&self, log: &Log) {
        if let Some(path) = &self.ports
            && let Err(error) = std::fs::remove_file(path)
        {
            let (path, error) = (path.display(), system_error::text(&error));
            log.error(format!("Error cleaning up ports file {path}: remove {path}: {error}"));
        }
    }
}

/// The hosts by which clients can reach `host`: itself, or every address of this machine.
fn endpoints(host: &str) -> impl Iterator<Item = String> {
    let hosts = if matches!(host, "0.0.0.0" | "::" | "[::]" | "") {
        process::interface_addresses().iter().map(ToString::to_string).collect()
    } else {
        vec![host.to_owned()]
    };
    hosts.into_iter()
}

fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// The running workers.
struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    fn start(
        options: &ServerOptions,
        advertised: &Advertised,
        listener: Listener,
        log: &Log,
    ) -> Result<Workers, StartError> {
        let count = match options.workers {
            0 => process::available_cores(),
            count => count,
        };
        let doors = (0..count)
            .map(|_| Waker::new().map(Door::new))
            .collect::<io::Result<Vec<Door>>>()
            .map_err(|error| StartError::System("eventfd", error))?;
        // One for each worker and, behind the last, for the server's own client.
        let mut outboxes: Vec<Vec<_>> = (0..=count).map(|_| (0..=count).map(|_| None).collect()).collect();
        let mut inboxes: Vec<Vec<_>> = (0..=count).map(|_| (0..=count).map(|_| None).collect()).collect();
        for (from, outboxes) in outboxes.iter_mut().enumerate() {
            for (to, outbox) in outboxes.iter_mut().enumerate().filter(|(to, _)| *to != from) {
                let (sender, receiver) = handover::queue();
                *outbox = Some(sender);
                inboxes[to][from] = Some(receiver);
            }
        }
        let info = &advertised.info(options);
        let accounts = options.settings.directory.accounts();
        let interests: Vec<_> = (0..accounts.slots()).map(|_| SharedInterest::default()).collect();
        let (routes, dials) = match options.settings.cluster.is_some() {
            true => {
                let watch = Arc::new(Watch::default());
                for interest in &interests {
                    interest.write(|interest| interest.set_watch(watch.clone()));
                }
                // Not the one that accepts connections, if there is another one.
                let advertises = !options.configured.cluster.no_advertise;
                let (desk, dials) = RouteDesk::new(count - 1, watch, advertises);
                (Some(desk), Some(dials))
            }
            false => (None, None),
        };
        install_services(accounts, &interests);
        let is_monitored = options.configured.http_port.or(options.configured.https_port).is_some();
        let internal = Internal::new(
            outboxes.pop().into_iter().flatten().flatten().collect(),
            inboxes.pop().into_iter().flatten().flatten().collect(),
            interests.clone(),
        );
        let shared = Arc::new(Shared {
            started: Instant::now(),
            is_monitored: AtomicBool::new(is_monitored),
            remembers_closed: AtomicBool::new(is_monitored),
            internal,
            routes,
            closed: Mutex::new(ClosedRing::new(options.configured.max_closed_clients as usize)),
            doors,
            next_cid: AtomicU64::new(FIRST_CID),
            next_guest: AtomicU64::new(FIRST_GUEST),
            connections_max: AtomicI64::new(options.connections_max),
            connections_surplus: AtomicI64::new(0),
            live: Mutex::new(LiveSettings {
                settings: options.settings.clone(),
                info: info.clone(),
                interests: interests.clone(),
                acceptor: options.acceptor.clone(),
                web_entrance: options.web_entrance.clone(),
            }),
            settings_version: AtomicU64::new(0),
            settings_taken: Notify::new(),
            is_open: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            password_checks: OnceLock::new(),
            handshakes: OnceLock::new(),
            placement: Mutex::new(Placement::new(count)),
            moves: Moves::default(),
            quiet: AtomicUsize::new(0),
            memory_freed: Notify::new(),
            lame_duck: OnceLock::new(),
        });
        let password_checks = PasswordChecks::start(&Arc::downgrade(&shared))
            .map_err(|error| StartError::System("password thread", error))?;
        let _ = shared.password_checks.set(password_checks);
        let handshakes = Handshakes::start(&Arc::downgrade(&shared))
            .map_err(|error| StartError::System("handshake thread", error))?;
        let _ = shared.handshakes.set(handshakes);
        let mut listener = Some(listener);
        let mut driver = match options.configured.io {
            Io::Auto | Io::Uring => Driver::Uring,
            Io::Epoll => Driver::Epoll,
        };
        let (set_up, set_ups) = thread_mpsc::channel();
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started_unix_us = since_1970.saturating_sub(shared.started.elapsed()).as_micros() as u64;
        let mut nexts = Vec::with_capacity(count);
        let mut threads = Vec::with_capacity(count);
        let mut replies = Vec::with_capacity(count);
        for (worker, (outboxes, inboxes)) in outboxes.into_iter().zip(inboxes).enumerate() {
            let mut broker = Broker::new(
                worker as u16,
                count,
                options.settings.clone(),
                info.clone(),
                interests.clone(),
                fastrand::u64(..),
            );
            broker.set_started_unix_us(started_unix_us);
            // The last one has the routes, and knows what replies to all of them look like.
            if let Some(desk) = shared.routes.as_ref().filter(|desk| desk.worker == worker) {
                let cluster = &options.configured.cluster;
                let (retries, backs_off) = (cluster.connect_retries, cluster.connect_backoff);
                let own_id = advertised.server_id.clone();
                let membership =
                    Membership::new(own_id, &cluster.routes, retries, backs_off, fastrand::u64(..));
                replies.push(broker.reply_pattern());
                let replies = std::mem::take(&mut replies);
                broker.lead_cluster(membership, advertised.route_info(options), desk.watch.clone(), replies);
            } else {
                replies.push(broker.reply_pattern());
            }
            let parts = WorkerParts {
                worker,
                broker,
                outboxes,
                inboxes,
                shared: shared.clone(),
                listener: listener.take(),
                acceptor: options.acceptor.clone(),
                web_entrance: options.web_entrance.clone(),
                write_deadline_ms: options.settings.write_deadline_ms,
                log: log.clone(),
            };
            let (next, start_next) = thread_mpsc::channel();
            let start = Start { set_up: set_up.clone(), next: start_next };
            let thread = std::thread::Builder::new()
                .name(worker::thread_name(worker))
                .spawn(move || worker::run(driver, parts, &start))
                .map_err(|error| StartError::System("worker thread", error))?;
            nexts.push(next);
            threads.push(thread);
        }
        drop(set_up);
        // Whether io_uring can be had is known when each worker has its rings: they may be refused, or memory may run out.
        while let Err(error) = all_set_up(&set_ups, count) {
            if driver == Driver::Epoll || options.configured.io != Io::Auto {
                // Without an answer the workers end.
                return Err(error);
            }
            log.warning(format!("{error}; epoll drives the sockets instead, at more CPU per message"));
            driver = Driver::Epoll;
            tell_all(&nexts, Next::Try(driver));
        }
        if let Some(dials) = dials {
            tokio::spawn(dial_routes(shared.clone(), dials));
        }
        log.info(format!("Using {} for sockets", driver.name()));
        tell_all(&nexts, Next::Run);
        Ok(Workers { shared, threads })
    }

    /// Lame duck mode: no new connections, clients are told, and after the grace period closed one after the other
    /// over the rest of the duration. An interrupt ends it early.
    async fn drain(
        &self,
        times: LameDuck,
        log: &Log,
        signals: &mut Signals,
        reload_requests: &mut mpsc::Receiver<ReloadRequest>,
    ) {
        log.info("Entering lame duck mode, stop accepting new clients");
        let close_from = Instant::now() + times.grace_period;
        let close_until = Instant::now() + times.duration;
        self.shared.enter_lame_duck(close_from, close_until);
        while self.shared.connections() > 0 {
            let tick = tokio::time::sleep(LAME_DUCK_TICK);
            tokio::select! {
                () = tick => {}
                Some(ReloadRequest { done }) = reload_requests.recv() => {
                    let _ = done.send(Err(NO_RELOAD.to_owned()));
                }
                signal = signals.next(log) => match signal {
                    Signal::Interrupt => return,
                    // As in the reference: an orchestrator that has asked for lame duck mode sends it next.
                    Signal::Terminate | Signal::LameDuck => {}
                    Signal::Reopen => log.reopen(),
                    Signal::Reload => {
                        log.error(format!("Failed to reload server configuration: {NO_RELOAD}"));
                    }
                },
            }
        }
    }

    /// Closes all connections and waits for the workers to end.
    fn stop(self) {
        self.shared.stop();
        for thread in self.threads {
            // A worker that panicked has said so on standard error.
            let _ = thread.join();
        }
    }
}

/// Waits until every worker has tried to set up its driver; the first reason why one could not.
fn all_set_up(
    set_ups: &thread_mpsc::Receiver<Result<(), WorkerError>>,
    count: usize,
) -> Result<(), StartError> {
    let died = |_| StartError::System("worker thread", io::Error::other("it died at start"));
    let results: Vec<Result<(), WorkerError>> =
        (0..count).map(|_| set_ups.recv().map_err(died)).collect::<Result<_, StartError>>()?;
    results.into_iter().collect::<Result<(), WorkerError>>().map_err(StartError::from)
}

/// A worker that is gone is missed by [`all_set_up`], or has said on standard error why it ended.
fn tell_all(workers: &[thread_mpsc::Sender<Next>], next: Next) {
    for worker in workers {
        let _ = worker.send(next);
    }
}

/// Giving memory back holds the allocator, so it is not done more often than this.
const GIVE_BACK_PAUSE: Duration = Duration::from_secs(1);

/// Waits until there is memory to give back, but not before `not_before`.
async fn memory_to_give_back(shared: &Shared, not_before: Instant) {
    tokio::time::sleep_until(not_before.into()).await;
    shared.memory_freed.notified().await;
}

/// How often lame duck mode looks whether all connections are gone.
const LAME_DUCK_TICK: Duration = Duration::from_millis(50);

enum Signal {
    Interrupt,
    Terminate,
    Reopen,
    LameDuck,
    Reload,
}

struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    user1: tokio::signal::unix::Signal,
    user2: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next one, named in the log as the reference names it.
    async fn next(&mut self, log: &Log) -> Signal {
        let (signal, name) = tokio::select! {
            _ = self.interrupt.recv() => (Signal::Interrupt, "interrupt"),
            _ = self.terminate.recv() => (Signal::Terminate, "terminated"),
            _ = self.user1.recv() => (Signal::Reopen, "user defined signal 1"),
            _ = self.user2.recv() => (Signal::LameDuck, "user defined signal 2"),
            _ = self.hangup.recv() => (Signal::Reload, "hangup"),
        };
        log.info(format!("Trapped {name:?} signal"));
        signal
    }
}
