//! Everything that can be wrong with a command line and a configuration, and what only deserves a warning.

use std::time::Duration;

use thiserror::Error;

use super::duration::{DurationError, GoDuration};
use super::imports::ImportError;
use super::lang::{LangError, Position, ReadError};
use super::tls::TlsError;

/// Why there are no options. The display has one line per problem; print it after `nats-server: ` on standard error
/// (tools look for that prefix) and leave with [`ConfigError::EXIT_CODE`].
#[derive(Debug, Clone, PartialEq, Error)]
pub enum ConfigError {
    /// An argument of the command line that is not UTF-8.
    #[error("argument {0} is not valid UTF-8")]
    ArgumentNotUtf8(usize),
    /// A word that is no flag.
    #[error("unrecognized command: {0:?}")]
    UnrecognizedCommand(String),
    /// `-t` alone.
    #[error("must specify [-c, --config] option to check configuration file syntax")]
    TestWithoutFile,
    /// `-sl` with a word that names no signal.
    #[error("unknown signal {0:?}")]
    UnknownSignal(String),
    /// `-sl` with more than one `=`.
    #[error("invalid signal parameters: [{0}]")]
    SignalParameters(String),
    /// The file of `-c` cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The file is not in the configuration language.
    #[error(transparent)]
    Lang(#[from] LangError),
    /// Options of the file are wrong; all of them are named, in the order of the file.
    #[error("{}", lines(warnings, problems))]
    Options {
        /// What is wrong.
        problems: Vec<ProblemAt>,
        /// What else would have drawn a warning.
        warnings: Vec<Warning>,
    },
    /// Values that are right by themselves and cannot stand together, or values of the command line.
    #[error("{0}")]
    Startup(Problem),
}

impl ConfigError {
    /// The exit status of the reference for all of these.
    pub const EXIT_CODE: i32 = 1;
}

fn lines(warnings: &[Warning], problems: &[ProblemAt]) -> String {
    let warnings = warnings.iter().map(Warning::to_string);
    let lines: Vec<String> = warnings.chain(problems.iter().map(ProblemAt::to_string)).collect();
    lines.join("\n")
}

/// A problem of one option, with its place.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("{at}: {problem}")]
pub struct ProblemAt {
    /// Where the key stands.
    pub at: Position,
    /// What is wrong.
    pub problem: Problem,
}

/// What can be wrong with an option. Where the reference has a text, it is that text.
#[derive(Debug, Clone, PartialEq, Error)]
#[allow(missing_docs, reason = "the display of each is its documentation")]
pub enum Problem {
    #[error("unknown field {0:?}")]
    UnknownField(String),
    #[error("interface conversion: interface {{}} is {found}, not {expected}")]
    WrongType { found: &'static str, expected: &'static str },
    #[error("expected port or host:port, got {0}")]
    ListenType(&'static str),
    #[error("could not parse address string {0:?}")]
    Address(String),
    #[error("could not parse port {0:?}")]
    PortText(String),
    #[error("port {0} is out of range: -1 (random) or 1 to 65535")]
    Port(i64),
    #[error("error parsing {field}: {source}")]
    Duration { field: String, source: DurationError },
    #[error("{0} must not be negative")]
    Negative(String),
    #[error("{0} value is too big")]
    TooBig(String),
    #[error("{0} value can not be negative")]
    NotPositive(String),
    #[error("invalid lame_duck_duration of {}, minimum is 30 seconds", GoDuration(*.0))]
    LameDuckDuration(Duration),
    #[error("invalid lame_duck_grace_period, needs to be positive")]
    LameDuckGracePeriod,
    #[error("lame duck grace period ({}) should be strictly lower than lame duck duration ({})", GoDuration(*.grace), GoDuration(*.duration))]
    LameDuckOrder { grace: Duration, duration: Duration },
    #[error("max_payload ({max_payload}) cannot be higher than max_pending ({max_pending})")]
    PayloadAbovePending { max_payload: u64, max_pending: u64 },
    #[error("invalid remote_syslog {0:?}: must be udp://host:port, tcp://host:port or unix:///path")]
    RemoteSyslog(String),
    #[error("invalid ClientAdvertise value of {value}, err={reason}")]
    ClientAdvertise { value: String, reason: String },
    #[error("invalid cluster advertise value of {value}, err={reason}")]
    ClusterAdvertise { value: String, reason: String },
    #[error("server name cannot contain spaces")]
    ServerNameSpaces,
    #[error("workers must be 0 (one per core) to {max}", max = super::options::WORKERS_MAX)]
    Workers,
    #[error("io must be auto, uring or epoll, not {0:?}")]
    Io(String),
    #[error("error parsing authorization config, 'timeout' {0}")]
    TimeoutDuration(DurationError),
    #[error("error parsing authorization config, 'timeout' wrong type")]
    TimeoutType,
    #[error("Cannot have a user/pass and token")]
    UserAndToken,
    #[error("Can not have a single user/pass and a users array")]
    UserAndUsers,
    #[error("Can not have a token and a users array")]
    TokenAndUsers,
    #[error("Duplicate user {0:?} detected")]
    DuplicateUser(String),
    #[error("Duplicate nkey {0:?} detected")]
    DuplicateNkey(String),
    #[error("Not a valid public nkey for a user")]
    UserNkey,
    #[error("Nkey users do not take usernames or passwords")]
    NkeyWithPassword,
    #[error("invalid connection types {}", go_strings(.0))]
    ConnectionTypes(Vec<String>),
    #[error("error parsing allowed connection types: unsupported type {0}")]
    ConnectionTypesType(&'static str),
    #[error("error parsing allowed connection types: unsupported type in array {0}")]
    ConnectionTypesEntry(&'static str),
    #[error("no_auth_user: {0:?} present, but users/nkeys are not defined")]
    NoAuthUserAlone(String),
    #[error(
        "no_auth_user: {0:?} not present as user or nkey in authorization block or account configuration"
    )]
    NoAuthUserUnknown(String),
    #[error("invalid domain name: derived {0:?} is not a valid subject")]
    DomainSubject(String),
    #[error("invalid domain name: may not contain ., * or >")]
    DomainName,
    #[error("{0:?} is a Reserved Account")]
    ReservedAccount(String),
    #[error("Duplicate Account Entry: {0}")]
    DuplicateAccount(String),
    #[error("Unknown field {0:?} parsing account limits")]
    UnknownAccountLimit(String),
    #[error("error resolving system account: account missing")]
    SystemAccountMissing,
    #[error("Not a valid public nkey for an account: {0:?}")]
    AccountNkey(String),
    #[error("User entry requires a user")]
    UserMissing,
    #[error("Expected users field to be an array, got {0}")]
    UsersType(String),
    #[error("Expected user entry to be a map/struct, got {0}")]
    UserType(String),
    #[error("a password without a user would let everybody in")]
    PasswordWithoutUser,
    #[error("an empty list of users would let everybody in")]
    UsersEmpty,
    #[error("{wanted}, got {found}")]
    Expected { wanted: String, found: String },
    #[error("error parsing {context}: unsupported {what}")]
    Unsupported { context: &'static str, what: String },
    #[error("{0}")]
    NotHere(&'static str),
    #[error("error parsing {context} config, 'timeout' {reason}")]
    PeerTimeout { context: &'static str, reason: String },
    #[error("Unknown field {0:?} parsing permissions")]
    UnknownPermission(String),
    #[error("Unknown field name {0:?} parsing subject permissions, only 'allow' or 'deny' are permitted")]
    UnknownSubjectPermission(String),
    #[error("subject {0:?} is not a valid subject")]
    InvalidSubject(String),
    #[error("queue {0:?} is not a valid queue")]
    InvalidQueue(String),
    #[error("cluster export {list}: subject {subject:?} is not a valid subject")]
    ClusterExport { list: &'static str, subject: String },
    #[error("error parsing expires: {0}")]
    ResponsesExpire(DurationError),
    #[error("error parsing {kind} url [{text:?}]")]
    Url { kind: &'static str, text: String },
    #[error("duplicate user {0:?} detected in leafnode authorization")]
    DuplicateLeafUser(String),
    #[error("Remote leafnode nkey is not a valid seed: {0:?}")]
    LeafSeed(String),
    #[error("proxy URL scheme must be http or https, got: {0}")]
    LeafProxyScheme(String),
    #[error(
        "proxy is configured but remote URL {0} requires TLS and no TLS configuration is provided. When using proxy with TLS endpoints, ensure TLS is properly configured for the leafnode remote"
    )]
    LeafProxyTls(String),
    #[error("invalid leafnode's minimum version: invalid semver")]
    LeafMinVersion,
    #[error("{field} {reason}")]
    StorageSize { field: String, reason: String },
    #[error("Unknown cipher type: {0:?}")]
    Cipher(String),
    #[error("{0}")]
    PlainDuration(DurationError),
    #[error("error parsing header key {name}: unsupported type {found}")]
    Header { name: String, found: &'static str },
    #[error("invalid value {0}, should in [0..65535] range")]
    MqttAckPending(i64),
    #[error("error parsing tls config, unknown field {0:?}")]
    UnknownTlsField(String),
    #[error("error parsing tls config, expected '{field}' to be {wanted}")]
    TlsType { field: String, wanted: &'static str },
    #[error("error parsing OCSP peer cache config, unknown field [{0:?}]")]
    OcspCacheField(String),
    #[error("error parsing OCSP peer cache config, unknown type [{0}]")]
    OcspCacheType(String),
    #[error("error parsing tls peer config, conversion error: {0}")]
    OcspCacheInterval(DurationError),
    #[error("error parsing OCSP peer cache config, conversion error: unexpected type")]
    OcspCacheIntervalType,
    #[error("error parsing feature flag {name:?}: expected bool, got {found}")]
    FeatureFlag { name: String, found: &'static str },
    #[error("error default_js_domain config: unsupported type {0}")]
    JsDomain(&'static str),
    #[error("Duplicate 'store_dir' configuration")]
    DuplicateStoreDir,
    #[error("{0}")]
    WebSocket(String),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Import(#[from] ImportError),
    #[error("error parsing ocsp peer config: unsupported type map[string]interface {{}}")]
    OcspPeerType,
    #[error("{0} is not supported yet, and running without it would be less secure than asked")]
    Refused(String),
}

/// Texts as Go's `%q` prints a slice of them.
fn go_strings(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| format!("{text:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

/// Something to tell the operator that does not prevent a start.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum Warning {
    /// The file has no option at all: print it like the next one; `-t` fails on it.
    #[error("{file}: config has no values or is empty")]
    Empty {
        /// Its path.
        file: String,
    },
    /// Print on standard error before the log starts, as the reference does; `-t` fails on it.
    #[error("{at}: invalid use of field {field:?}: {field} should be converted to a duration")]
    NotADuration {
        /// Where the key stands.
        at: Position,
        /// The key, in lower case.
        field: String,
    },
    /// An option that is out of date, ignored, or likely to be a mistake; `-t` fails on it.
    #[error("{at}: invalid use of field {field:?}: {reason}")]
    Misuse {
        /// Where the key stands.
        at: Position,
        /// The key, as written.
        field: String,
        /// What the reference says of it.
        reason: String,
    },
    /// A value that will not do what it looks like; `-t` fails on it.
    #[error("{at}: {advice}")]
    Advice {
        /// Where the key stands.
        at: Position,
        /// What the reference says of it.
        advice: &'static str,
    },
    /// Log it. Names that the reference knows and that mean nothing here.
    #[error("{at}: not available, and left out of {field}: {names}")]
    NotAvailable {
        /// Where the map stands.
        at: Position,
        /// The key.
        field: &'static str,
        /// The names.
        names: String,
    },
    /// Log it. Advice of the reference: large messages hold up the others on their connection.
    #[error("Maximum payloads over 8.00 MB are generally discouraged and could lead to poor performance")]
    LargePayload,
}

impl Warning {
    /// Whether `-t` reports the file as wrong because of it.
    pub fn fails_test(&self) -> bool {
        !matches!(self, Warning::LargePayload | Warning::NotAvailable { .. })
    }
}
