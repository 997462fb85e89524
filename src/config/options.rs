//! What a server runs with: every option as a type that cannot hold a value which makes no sense.
//!
//! `Options` comes from [`crate::config::load`] and is complete: defaults are filled in, the command line has
//! overridden the file, and the rules between options have been checked. What the file or the command line asked for
//! and this server cannot do yet stands in [`Options::not_supported`].

use std::collections::BTreeMap;
use std::fmt;
use std::num::{NonZeroU8, NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use super::accounts::{GLOBAL_ACCOUNT, SYSTEM_ACCOUNT, first_known};
use super::advertise::Advertise;
use super::cluster::ClusterOptions;
use super::error::Problem;
use super::imports::Sharing;
use super::jetstream::{JetStreamAccountLimits, JetStreamOptions};
use super::lang::Position;
use super::permissions::Permissions;
use super::tls::TlsOptions;
use super::websocket::WebSocketOptions;
use crate::subject::mapping::Mappings;

/// The options of one server. `Options::default()` is a server without file and flags.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The file of `-c`, as written there.
    pub config_file: Option<PathBuf>,
    /// Its fingerprint, `sha256:…`.
    pub config_digest: Option<String>,

    /// `listen`, `host`, `net`; `-a`. The address or name to listen on for clients.
    pub host: String,
    /// `listen`, `port`; `-p`. 0 in a file or on the command line means the default.
    pub port: Port,
    /// `client_advertise`. What INFO tells clients instead of the address above.
    pub client_advertise: Option<Advertise>,
    /// `server_name`; `-n`. Without white space. `None`: the server's id.
    pub server_name: Option<String>,
    /// `server_tags`. In lower case, each once.
    pub server_tags: Vec<String>,
    /// `server_metadata`.
    pub server_metadata: BTreeMap<String, String>,
    /// `workers`; `--workers`. Worker threads; `None` (0 in a file): one per core. At most [`WORKERS_MAX`].
    pub workers: Option<NonZeroU32>,
    /// `io`; `--io`. What drives the sockets.
    pub io: Io,

    /// `debug`; `-D`, `-DV`, `-DVV`.
    pub debug: bool,
    /// `trace`; `-V`, `-VV`, `-DV`, `-DVV`. Logs the protocol.
    pub trace: bool,
    /// `trace_verbose`; `-VV`, `-DVV`. Traces the system account too; implies `trace`.
    pub trace_verbose: bool,
    /// `trace_headers`. Traces only the headers of messages; implies `trace`.
    pub trace_headers: bool,
    /// `max_traced_msg_len`. Bytes of a payload that a trace line shows; `None` (0): all.
    pub max_traced_msg_len: Option<NonZeroU32>,
    /// `logtime`; `-T`. Log lines carry the time.
    pub logtime: bool,
    /// `logtime_utc`. In UTC rather than local time.
    pub logtime_utc: bool,
    /// `log_file`, `logfile`; `-l`. `None`: standard error.
    pub log_file: Option<PathBuf>,
    /// `log_size_limit`, `logfile_size_limit`; `--log_size_limit`. Bytes behind which a log file is put aside for a new
    /// one; `None` (0 or negative): never.
    pub log_size_limit: Option<NonZeroU64>,
    /// `log_max_num`, `logfile_max_num`; `--log_max_num`. Log files that are kept, the one being written included;
    /// `None` (0 or negative): all.
    pub log_max_num: Option<NonZeroU32>,
    /// `syslog`; `-s`. Log to the system's syslog, unless there is a `log_file`.
    pub syslog: bool,
    /// `remote_syslog`; `-r`. Log to this syslog, unless there is a `log_file`.
    pub remote_syslog: Option<RemoteSyslog>,
    /// `pid_file`, `pidfile`; `-P`. Holds the digits only, without a newline.
    pub pid_file: Option<PathBuf>,
    /// `ports_file_dir`. Directory for `<executable>_<pid>.ports`.
    pub ports_file_dir: Option<PathBuf>,

    /// `max_connections`, `max_conn`. Clients at a time. 0 (in a file: 0 or any negative number) refuses all, which
    /// the reference shows as -1 in its monitoring.
    pub max_connections: u32,
    /// `max_subscriptions`, `max_subs`. Per connection; `None` (0 or negative): no limit.
    pub max_subscriptions: Option<NonZeroU32>,
    /// `max_subscription_tokens`, `max_sub_tokens`. Tokens of a subscription's subject, 1 to 255; `None`: no limit.
    pub max_subscription_tokens: Option<NonZeroU8>,
    /// `max_control_line`. Bytes of a protocol line without payload, 1 to 2³¹−1.
    pub max_control_line: u32,
    /// `max_payload`. Bytes of headers and payload of a message, 1 to 2³¹−1 and at most `max_pending`. -1 in a file,
    /// which asks for no limit, is `max_pending`: no larger message could be delivered.
    pub max_payload: u32,
    /// `max_pending`. Bytes that may wait for one connection before it is a slow consumer.
    pub max_pending: u64,
    /// `ping_interval`. Idle time before the server sends PING; in a file also whole seconds, with a warning.
    pub ping_interval: Duration,
    /// `ping_max`. Unanswered PINGs before the connection is stale, at least 1.
    pub ping_max: u32,
    /// `write_deadline`. How long a write to a client may block; in a file also whole seconds, with a warning.
    pub write_deadline: Duration,
    /// `http`, `http_port`, `monitor_port`; `-m`. The port of the monitoring; `None` (0): there is none.
    pub http_port: Option<Port>,
    /// `https`, `https_port`; `-ms`. The port of the monitoring over HTTPS, with the certificate of `tls`; `None` (0): there is
    /// none. It excludes `http_port`.
    pub https_port: Option<Port>,
    /// The host of `http` or `https`. `None`: the host for clients.
    pub http_host: Option<String>,
    /// `http_base_path`. What the paths of the monitoring begin with, as written; see [`Options::http_base`].
    pub http_base_path: String,
    /// `max_closed_clients`. Closed connections that the monitoring remembers, at least 1 and at most
    /// [`CLOSED_CLIENTS_MAX`].
    pub max_closed_clients: u32,
    /// `monitor.authorization`. Who may ask the monitoring.
    pub monitor_access: MonitorAccess,
    /// `monitor.authorization.healthz`. Who asks whether the server is well has to show it too.
    pub monitor_healthz_guarded: bool,
    /// `monitor.verify`. Who asks over HTTPS must show a certificate that `tls.ca_file` vouches for.
    pub monitor_verify: bool,
    /// `no_header_support`. INFO says `headers: false` and HPUB is refused.
    pub no_header_support: bool,
    /// `no_fast_producer_stall`. Never slow a publisher down for a full subscriber; drop instead.
    pub no_fast_producer_stall: bool,
    /// `lame_duck_duration`. Time over which connections are closed in lame duck mode, at least 30 s.
    pub lame_duck_duration: Duration,
    /// `lame_duck_grace_period`. Wait before the first is closed; shorter than the duration above.
    pub lame_duck_grace_period: Duration,

    /// `authorization`; `--user`, `--pass`, `--auth`.
    pub authorization: Authorization,
    /// `no_auth_user`. Who a client is that gives no credentials: the name or key of one of the users.
    pub no_auth_user: Option<String>,
    /// `accounts`, beside the global one; no name twice.
    pub accounts: Vec<Account>,
    /// `mappings`, `maps`: those of the global account.
    pub mappings: Mappings,
    /// `system_account`, `system`. The name of an account, `$SYS` where there is no other one.
    pub system_account: Option<String>,
    /// `no_system_account`, `no_system`, `no_sys_acc`.
    pub no_system_account: bool,

    /// `tls`; `--tls`, `--tlscert`, `--tlskey`, `--tlscacert`, `--tlsverify`. `None`: nothing is encrypted.
    pub tls: Option<TlsOptions>,
    /// `allow_non_tls`. Clients may do without encryption all the same.
    pub allow_non_tls: bool,

    /// `websocket`, `ws`, if it has a port. `None`: there is no listener for WebSocket clients.
    pub websocket: Option<WebSocketOptions>,

    /// `cluster`; `--cluster`, `--routes` and others. Without a port there is no cluster.
    pub cluster: ClusterOptions,

    /// `jetstream`; `-js`. `None`: JetStream is off.
    pub jetstream: Option<JetStreamOptions>,
    /// `store_dir`, here or in `jetstream`; `-sd`. The directory above that of JetStream; `None`: `nats` among the system's temporary
    /// files, with a warning.
    pub store_dir: Option<PathBuf>,

    /// What was asked for and is not there yet: one warning at start, see [`Options::not_supported_warning`].
    pub not_supported: Vec<KeyAt>,
}

/// The most threads that `workers` may ask for.
pub const WORKERS_MAX: u32 = 1024;

/// Payloads above this draw [`super::Warning::LargePayload`].
pub const MAX_PAYLOAD_ADVISED: u32 = 8 << 20;

/// The least `lame_duck_duration`.
pub const LAME_DUCK_DURATION_MIN: Duration = Duration::from_secs(30);

/// The most closed connections that `max_closed_clients` may keep.
pub const CLOSED_CLIENTS_MAX: u32 = 1_000_000;

/// The port of `-p` where none is given.
pub const PORT_DEFAULT: u16 = 4222;

impl Default for Options {
    fn default() -> Self {
        Options {
            config_file: None,
            config_digest: None,
            host: "0.0.0.0".to_owned(),
            port: Port::Fixed(PORT_DEFAULT),
            client_advertise: None,
            server_name: None,
            server_tags: Vec::new(),
            server_metadata: BTreeMap::new(),
            workers: None,
            io: Io::Auto,
            debug: false,
            trace: false,
            trace_verbose: false,
            trace_headers: false,
            max_traced_msg_len: None,
            logtime: true,
            logtime_utc: false,
            log_file: None,
            log_size_limit: None,
            log_max_num: None,
            syslog: false,
            remote_syslog: None,
            pid_file: None,
            ports_file_dir: None,
            max_connections: 64 * 1024,
            max_subscriptions: None,
            max_subscription_tokens: None,
            max_control_line: 4096,
            max_payload: 1 << 20,
            max_pending: 64 << 20,
            ping_interval: Duration::from_secs(120),
            ping_max: 2,
            write_deadline: Duration::from_secs(10),
            http_port: None,
            https_port: None,
            http_host: None,
            http_base_path: String::new(),
            max_closed_clients: 10_000,
            monitor_access: MonitorAccess::Everybody,
            monitor_healthz_guarded: false,
            monitor_verify: false,
            no_header_support: false,
            no_fast_producer_stall: false,
            lame_duck_duration: Duration::from_secs(120),
            lame_duck_grace_period: Duration::from_secs(10),
            authorization: Authorization::default(),
            no_auth_user: None,
            accounts: Vec::new(),
            mappings: Mappings::default(),
            system_account: None,
            no_system_account: false,
            tls: None,
            allow_non_tls: false,
            websocket: None,
            cluster: ClusterOptions::default(),
            jetstream: None,
            store_dir: None,
            not_supported: Vec::new(),
        }
    }
}

impl Options {
    /// `not supported yet: KEY (FILE:LINE:COL), …`, or `None` where nothing was asked for in vain.
    pub fn not_supported_warning(&self) -> Option<String> {
        if self.not_supported.is_empty() {
            return None;
        }
        let keys: Vec<String> = self.not_supported.iter().map(KeyAt::to_string).collect();
        Some(format!("not supported yet: {}", keys.join(", ")))
    }

    /// All users, with the accounts that they belong to.
    pub fn users(&self) -> impl Iterator<Item = (&str, &User)> {
        let global = match &self.authorization.credentials {
            Credentials::Users(users) => &users[..],
            _ => &[],
        };
        let accounts = self.accounts.iter();
        let others =
            accounts.flat_map(|account| account.users.iter().map(|user| (account.name.as_str(), user)));
        global.iter().map(|user| (GLOBAL_ACCOUNT, user)).chain(others)
    }

    /// Whether clients have to show something, or be `no_auth_user`.
    pub fn demands_credentials(&self) -> bool {
        self.authorization.credentials != Credentials::None || self.users().next().is_some()
    }

    /// What the streams of an account may take; `None`: it can have none.
    pub fn jetstream_of(&self, account: &str) -> Option<JetStreamAccountLimits> {
        self.jetstream.as_ref()?;
        if let Some(account) = self.accounts.iter().find(|known| known.name == account) {
            return account.jetstream.clone();
        }
        // The global account has it as long as there are no others.
        let is_alone = self.accounts.iter().all(|other| self.system_account() == Some(other.name.as_str()));
        (account == GLOBAL_ACCOUNT && is_alone).then(JetStreamAccountLimits::default)
    }

    /// The name of the system's own account, if there is one.
    pub fn system_account(&self) -> Option<&str> {
        (!self.no_system_account).then(|| self.system_account.as_deref().unwrap_or(SYSTEM_ACCOUNT))
    }

    /// What is wrong between the users of `authorization` and those of accounts.
    pub(super) fn contradicting_users(&self) -> Option<Problem> {
        let has_users = self.accounts.iter().any(|account| !account.users.is_empty());
        match &self.authorization.credentials {
            Credentials::UserPassword { .. } if has_users => Some(Problem::UserAndUsers),
            Credentials::Token(_) if has_users => Some(Problem::TokenAndUsers),
            Credentials::Users(users) => {
                // Those of accounts among themselves have been looked at.
                let of_accounts = self.accounts.iter().flat_map(|account| &account.users);
                let mut known = of_accounts.map(|user| user.login.name().to_owned()).collect();
                first_known(users.iter().map(|user| &user.login), &mut known)
            }
            _ => None,
        }
    }

    /// How and at which port the monitoring can be asked, if it can.
    ///
    /// # Errors
    ///
    /// What is configured contradicts itself. As in the reference that is found at the start, not by `-t`.
    pub fn monitoring(&self) -> Result<Option<(&'static str, Port)>, MonitoringFault> {
        match (self.http_port, self.https_port) {
            (Some(http), Some(https)) => {
                Err(MonitoringFault::TwoPorts(http.as_integer(), https.as_integer()))
            }
            (None, Some(_)) if self.tls.is_none() => Err(MonitoringFault::NoCertificate),
            (_, None) if self.monitor_verify => Err(MonitoringFault::NothingToVerify),
            (None, Some(port)) => Ok(Some(("https", port))),
            (port, None) => Ok(port.map(|port| ("http", port))),
        }
    }

    /// `http_base_path` as paths begin with it: empty, or with a slash in front and none behind.
    pub fn http_base(&self) -> String {
        let parts = self.http_base_path.split('/').filter(|part| !matches!(*part, "" | "."));
        parts.fold(String::new(), |base, part| match part {
            ".." => base.rsplit_once('/').map(|(parent, _)| parent.to_owned()).unwrap_or_default(),
            part => format!("{base}/{part}"),
        })
    }
}

/// A syslog elsewhere. Its text is `udp://HOST:PORT`, `tcp://HOST:PORT` or `unix:///PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoteSyslog {
    /// `HOST:PORT`.
    Udp(String),
    /// `HOST:PORT`.
    Tcp(String),
    /// The path of a stream socket.
    Unix(PathBuf),
}

impl RemoteSyslog {
    pub(super) fn parse(text: &str) -> Option<RemoteSyslog> {
        let (network, rest) = text.split_once("://")?;
        let addr = || {
            let (host, port) = rest.rsplit_once(':')?;
            let is_host =
                !host.is_empty() && (!host.contains(':') || host.starts_with('[') && host.ends_with(']'));
            (is_host && port.parse::<u16>().is_ok_and(|port| port > 0)).then(|| rest.to_owned())
        };
        match network {
            "udp" => addr().map(RemoteSyslog::Udp),
            "tcp" => addr().map(RemoteSyslog::Tcp),
            "unix" => rest.starts_with('/').then(|| RemoteSyslog::Unix(rest.into())),
            _ => None,
        }
    }
}

impl fmt::Display for RemoteSyslog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RemoteSyslog::Udp(addr) => write!(f, "udp://{addr}"),
            RemoteSyslog::Tcp(addr) => write!(f, "tcp://{addr}"),
            RemoteSyslog::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// A port to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// -1: whichever is free.
    Random,
    /// 1 to 65535.
    Fixed(u16),
}

impl Port {
    /// What to bind: 0 makes the kernel choose.
    pub fn to_bind(self) -> u16 {
        match self {
            Port::Random => 0,
            Port::Fixed(port) => port,
        }
    }

    /// What configurations and monitoring call it: -1 is random.
    pub fn as_integer(self) -> i32 {
        match self {
            Port::Random => -1,
            Port::Fixed(port) => i32::from(port),
        }
    }

    /// -1 is random, 0 the default, and anything outside 1 to 65535 is none.
    pub(super) fn from_integer(number: i64) -> Option<Port> {
        match number {
            -1 => Some(Port::Random),
            0 => Some(Port::Fixed(PORT_DEFAULT)),
            _ => u16::try_from(number).ok().map(Port::Fixed),
        }
    }
}

/// What drives the sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Io {
    /// io_uring where the system allows it, and else epoll.
    Auto,
    /// io_uring, or no start.
    Uring,
    /// epoll.
    Epoll,
}

impl Io {
    const NAMES: [(&str, Io); 3] = [("auto", Io::Auto), ("uring", Io::Uring), ("epoll", Io::Epoll)];

    /// By its name in a file and on the command line, in any case.
    pub(super) fn from_name(name: &str) -> Option<Io> {
        Io::NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, io)| *io)
    }
}

impl fmt::Display for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Io::NAMES.iter().find(|(_, io)| io == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

/// Who may connect.
#[derive(Debug, Clone, PartialEq)]
pub struct Authorization {
    /// What a client has to show.
    pub credentials: Credentials,
    /// How long a client may take to show it, after the handshake if there is one. Where none is given: 2 s, or with
    /// `tls` a second more than the handshake may take.
    pub timeout: Duration,
}

impl Default for Authorization {
    fn default() -> Self {
        Authorization { credentials: Credentials::None, timeout: Duration::from_secs(2) }
    }
}

/// Why there can be no monitoring as it is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MonitoringFault {
    /// HTTP and HTTPS.
    #[error("can't specify both HTTP ({0}) and HTTPs ({1}) ports")]
    TwoPorts(i32, i32),
    /// HTTPS without `tls`.
    #[error("TLS cert and key required for HTTPS")]
    NoCertificate,
    /// `monitor.verify` without HTTPS.
    #[error("monitor.verify needs https_port: clients show certificates in TLS only")]
    NothingToVerify,
}

/// Who may ask the monitoring.
#[derive(Debug, Clone, PartialEq)]
pub enum MonitorAccess {
    /// Everybody who can reach it.
    Everybody,
    /// Who shows this.
    User {
        /// The name.
        user: String,
        /// Its password.
        password: Password,
    },
    /// Who shows this.
    Token(Password),
}

/// The four ways of the `authorization` map, which exclude each other.
#[derive(Debug, Clone, PartialEq)]
pub enum Credentials {
    /// Everybody may connect.
    None,
    /// One user for all clients.
    UserPassword {
        /// Its name.
        user: String,
        /// Empty where none was given.
        password: Password,
    },
    /// One token for all clients.
    Token(Password),
    /// A list, never empty, no name and no key twice.
    Users(Vec<User>),
}

/// An entry of `authorization.users`.
#[derive(Debug, Clone, PartialEq)]
pub struct User {
    /// Who it is and how it proves that.
    pub login: Login,
    /// `allowed_connection_types`, `connection_types`, `clients`. How it may be connected.
    pub connection_types: ConnectionTypes,
    /// `permissions`, or those that are the default where it has none; `None`: everything.
    pub permissions: Option<Permissions>,
}

/// An entry of `accounts`: a subject space of its own.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Account {
    /// Its name; never that of the global account.
    pub name: String,
    /// `users`. No name and no key is in two accounts, or in `authorization` too.
    pub users: Vec<User>,
    /// `limits`.
    pub limits: AccountLimits,
    /// `mappings`.
    pub mappings: Mappings,
    /// `exports` and `imports`, held against those of the other accounts.
    pub sharing: Sharing,
    /// `jetstream`: what its streams may take; `None`: it can have none.
    pub jetstream: Option<JetStreamAccountLimits>,
}

/// What the connections of an account may take. `None`: no limit but the server's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AccountLimits {
    /// `max_connections`, `max_conn`: how many there may be.
    pub connections: Option<u32>,
    /// `max_subscriptions`, `max_subs`: of each.
    pub subscriptions: Option<u32>,
    /// `max_payload`, `max_pay`: of each, in bytes.
    pub payload: Option<u32>,
}

/// How a user proves who it is.
#[derive(Debug, Clone, PartialEq)]
pub enum Login {
    /// By a password.
    Password {
        /// Its name, never empty.
        user: String,
        /// Empty where none was given.
        password: Password,
    },
    /// `nkey`: by signing a challenge. A valid public key of a user.
    Nkey(String),
}

impl Login {
    /// The name or the public key.
    pub fn name(&self) -> &str {
        match self {
            Login::Password { user, .. } => user,
            Login::Nkey(key) => key,
        }
    }
}

/// A way to be connected. The names are the reference's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum ConnectionType {
    Standard,
    WebSocket,
    LeafNode,
    LeafNodeWs,
    Mqtt,
    MqttWs,
}

impl ConnectionType {
    const NAMES: [(&str, ConnectionType); 6] = [
        ("STANDARD", ConnectionType::Standard),
        ("WEBSOCKET", ConnectionType::WebSocket),
        ("LEAFNODE", ConnectionType::LeafNode),
        ("LEAFNODE_WS", ConnectionType::LeafNodeWs),
        ("MQTT", ConnectionType::Mqtt),
        ("MQTT_WS", ConnectionType::MqttWs),
    ];

    /// By its name, in upper case.
    pub(super) fn by_name(name: &str) -> Option<ConnectionType> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }
}

/// A set of [`ConnectionType`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionTypes(u8);

impl ConnectionTypes {
    /// All of them, which is what an empty list means too.
    pub const ALL: ConnectionTypes = ConnectionTypes(u8::MAX);

    /// Whether `kind` is one of them.
    pub fn contains(self, kind: ConnectionType) -> bool {
        self.0 & (1 << kind as u8) != 0
    }
}

impl FromIterator<ConnectionType> for ConnectionTypes {
    fn from_iter<I: IntoIterator<Item = ConnectionType>>(kinds: I) -> ConnectionTypes {
        match kinds.into_iter().fold(0, |set, kind| set | (1 << kind as u8)) {
            0 => ConnectionTypes::ALL,
            set => ConnectionTypes(set),
        }
    }
}

/// A password or token as configured. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// To be compared as it is, in constant time.
    Plain(String),
    /// A bcrypt hash: comparing takes tens of milliseconds of CPU, so never on a worker.
    Bcrypt(String),
}

impl Password {
    /// `$2a$`, `$2b$`, `$2x$` and `$2y$` with a two-digit cost are hashes, all else is plain.
    pub fn new(text: String) -> Password {
        let bytes = text.as_bytes();
        let is_bcrypt = bytes.len() >= 7
            && bytes.starts_with(b"$2")
            && matches!(bytes[2], b'a' | b'b' | b'x' | b'y')
            && bytes[3] == b'$'
            && bytes[4].is_ascii_digit()
            && bytes[5].is_ascii_digit()
            && bytes[6] == b'$';
        if is_bcrypt { Password::Bcrypt(text) } else { Password::Plain(text) }
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Password::Plain(_) => "Plain(…)",
            Password::Bcrypt(_) => "Bcrypt(…)",
        })
    }
}

/// Something that was asked for, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyAt {
    /// The key or the flag (`-js`), as written.
    pub name: String,
    /// `None` for a flag.
    pub at: Option<Position>,
}

impl fmt::Display for KeyAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.at {
            Some(at) => write!(f, "{} ({at})", self.name),
            None => f.write_str(&self.name),
        }
    }
}
