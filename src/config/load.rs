//! From a command line to what the process shall do: the order of things, the command line over the file, and the
//! rules between options.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::accounts::GLOBAL_ACCOUNT;
use super::args::{Args, parse_args};
use super::decode::{self, decode};
use super::disk::{DiskFiles, ProcessEnvironment};
use super::error::{ConfigError, Problem, ProblemAt, Warning};
use super::help;
use super::lang::{self, Environment, Files};
use super::options::{Authorization, Credentials, KeyAt, MAX_PAYLOAD_ADVISED, Options, Password, Port};
use super::tls;
use super::websocket;

/// What a command line asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Startup {
    /// Run a server.
    Run(Box<Options>, Vec<Warning>),
    /// Print and leave: help, version, `-t`, and a command line that cannot be read (which the reference answers with
    /// its help and status 0).
    PrintAndExit {
        /// For standard output, with its newlines.
        stdout: String,
        /// For standard error, with its newlines.
        stderr: String,
        /// The exit status.
        code: i32,
    },
    /// Send a signal to a running server and leave.
    Signal(Signal, SignalTarget),
}

/// The words of `--signal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// `stop`: SIGKILL.
    Stop,
    /// `quit`: SIGINT, a graceful stop.
    Quit,
    /// `term`: SIGTERM, a graceful stop.
    Term,
    /// `reopen`: SIGUSR1, reopen the log file.
    Reopen,
    /// `reload`: SIGHUP, read the configuration again.
    Reload,
    /// `ldm`: SIGUSR2, lame duck mode.
    LameDuck,
}

/// Who gets the signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignalTarget {
    /// No target was given: the server process, if there is exactly one.
    OnlyProcess,
    /// `=PID`.
    Pid(i32),
    /// `=PATH`: the process whose id stands in this file. The error for a file that does not exist is
    /// `invalid pid: PATH`.
    PidFile(PathBuf),
    /// `=12*` or `=*`: every server process whose id begins so.
    Prefix(String),
}

/// Reads a command line (without the program's name), the file it names, and the environment.
pub fn load(args: impl IntoIterator<Item = OsString>) -> Result<Startup, ConfigError> {
    load_from(args, &DiskFiles, &ProcessEnvironment)
}

/// [`load`] with files and environment from elsewhere.
pub fn load_from(
    args: impl IntoIterator<Item = OsString>,
    files: &dyn Files,
    environment: &dyn Environment,
) -> Result<Startup, ConfigError> {
    let mut words = Vec::new();
    for (index, arg) in args.into_iter().enumerate() {
        words.push(arg.into_string().map_err(|_| ConfigError::ArgumentNotUtf8(index + 1))?);
    }
    let args = match parse_args(&words) {
        Ok(args) => args,
        Err(error) => return Ok(print(help::HELP, &format!("{error}\n"), 0)),
    };
    if args.version == Some(true) {
        return Ok(print(&help::version(), "", 0));
    }
    if args.help == Some(true) {
        return Ok(print(help::HELP, "", 0));
    }
    if args.help_tls == Some(true) {
        return Ok(print(help::HELP_TLS, "", 0));
    }
    if let Some(word) = args.words.first() {
        return match word.to_lowercase().as_str() {
            "help" => Ok(print(help::HELP, "", 0)),
            "version" => Ok(print(&help::version(), "", 0)),
            _ => Err(ConfigError::UnrecognizedCommand(word.clone())),
        };
    }
    if let Some(request) = args.signal.as_deref().filter(|request| !request.is_empty()) {
        let (signal, target) = parse_signal(request)?;
        return Ok(Startup::Signal(signal, target));
    }
    let file = args.config.as_deref().filter(|file| !file.is_empty());
    if args.test == Some(true) && file.is_none() {
        return Err(ConfigError::TestWithoutFile);
    }
    let (mut options, mut block, websocket, mut warnings) = match file {
        Some(file) => read_file(file, files, environment)?,
        None => (Options::default(), None, None, Vec::new()),
    };
    if file.is_none() {
        options.authorization.timeout = Duration::ZERO;
    }
    apply_flags(&mut options, &args)?;
    apply_tls_flags(&mut block, &args);
    open_tls(&mut options, block, files, &warnings)?;
    if let Some(block) = websocket {
        options.websocket = block.open(files).map_err(|(at, error)| ConfigError::Options {
            problems: vec![ProblemAt { at, problem: error.into() }],
            warnings: warnings.clone(),
        })?;
    }
    check(&mut options, &mut warnings)?;
    if args.test != Some(true) {
        return Ok(Startup::Run(Box::new(options), warnings));
    }
    let failing: Vec<String> = warnings
        .iter()
        .filter(|warning| warning.fails_test())
        .map(|warning| format!("{warning}\n"))
        .collect();
    if !failing.is_empty() {
        return Ok(print("", &format!("nats-server: {}", failing.concat()), ConfigError::EXIT_CODE));
    }
    let not_supported = options.not_supported_warning().map(|text| format!("nats-server: {text}\n"));
    let valid = format!(
        "nats-server: configuration file {} is valid ({})\n",
        file.unwrap_or_default(),
        options.config_digest.as_deref().unwrap_or_default()
    );
    Ok(print("", &format!("{}{valid}", not_supported.unwrap_or_default()), 0))
}

fn print(stdout: &str, stderr: &str, code: i32) -> Startup {
    Startup::PrintAndExit { stdout: stdout.to_owned(), stderr: stderr.to_owned(), code }
}

fn parse_signal(request: &str) -> Result<(Signal, SignalTarget), ConfigError> {
    let (name, target) = request.split_once('=').unwrap_or((request, ""));
    if let Some((_, surplus)) = target.split_once('=') {
        return Err(ConfigError::SignalParameters(surplus.split('=').collect::<Vec<_>>().join(" ")));
    }
    let signal = match name {
        "stop" => Signal::Stop,
        "quit" => Signal::Quit,
        "term" => Signal::Term,
        "reopen" => Signal::Reopen,
        "reload" => Signal::Reload,
        "ldm" => Signal::LameDuck,
        _ => return Err(ConfigError::UnknownSignal(name.to_owned())),
    };
    let target = match target.parse::<i32>() {
        Ok(pid) if pid > 0 => SignalTarget::Pid(pid),
        _ if target.is_empty() => SignalTarget::OnlyProcess,
        _ if is_prefix(target) => SignalTarget::Prefix(target.trim_end_matches('*').to_owned()),
        _ => SignalTarget::PidFile(PathBuf::from(target)),
    };
    Ok((signal, target))
}

/// Digits, or none, and a star.
fn is_prefix(target: &str) -> bool {
    target.strip_suffix('*').is_some_and(|prefix| prefix.bytes().all(|byte| byte.is_ascii_digit()))
}

/// What a file says, and what of it needs other files.
type FromFile = (Options, Option<tls::Block>, Option<websocket::Block>, Vec<Warning>);

fn read_file(file: &str, files: &dyn Files, environment: &dyn Environment) -> Result<FromFile, ConfigError> {
    let text = files.read(file)?;
    let map = lang::parse(file, &text, files, environment)?;
    let decode::Decoded { mut options, tls, websocket, problems, mut warnings } = decode(&map);
    if map.is_empty() {
        warnings.push(Warning::Empty { file: file.to_owned() });
    }
    if !problems.is_empty() {
        return Err(ConfigError::Options { problems, warnings });
    }
    options.config_file = Some(PathBuf::from(file));
    options.config_digest = Some(lang::digest(&map));
    Ok((options, tls, websocket, warnings))
}

/// The command line over the file, field by field.
fn apply_flags(options: &mut Options, args: &Args) -> Result<(), ConfigError> {
    let invalid = ConfigError::Startup;
    options
        .not_supported
        .extend(args.not_supported.iter().map(|name| KeyAt { name: name.clone(), at: None }));
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let path = |text: &Option<String>| given(text).map(PathBuf::from);
    if let Some(host) = given(&args.host) {
        options.host = host;
    }
    if let Some(port) = args.port {
        options.port = Port::from_integer(port).ok_or(invalid(Problem::Port(port)))?;
    }
    if let Some(port) = args.http_port.filter(|port| *port != 0) {
        options.http_port = decode::optional_port(port).map_err(invalid)?;
    }
    if let Some(port) = args.https_port.filter(|port| *port != 0) {
        options.https_port = decode::optional_port(port).map_err(invalid)?;
    }
    if let Some(workers) = args.workers {
        options.workers = decode::workers(workers).map_err(invalid)?;
    }
    if let Some(io) = given(&args.io) {
        options.io = decode::io(&io).map_err(invalid)?;
    }
    if let Some(len) = args.max_traced_msg_len {
        options.max_traced_msg_len = decode::limit_or_none("max_traced_msg_len", len).map_err(invalid)?;
    }
    if let Some(text) = given(&args.client_advertise) {
        options.client_advertise = decode::client_advertise(&text).map_err(invalid)?;
    }
    if let Some(text) = given(&args.remote_syslog) {
        options.remote_syslog = decode::remote_syslog(&text).map_err(invalid)?;
    }
    if let Some(limit) = args.log_size_limit {
        options.log_size_limit = decode::log_size_limit(limit);
    }
    if let Some(max) = args.log_max_num {
        options.log_max_num = decode::limit_or_none("log_max_num", max).map_err(invalid)?;
    }
    if let Some(name) = given(&args.cluster_name) {
        if name.contains(' ') {
            return Err(invalid(Problem::NotHere("cluster name cannot contain spaces")));
        }
        options.cluster.name = Some(name);
    }
    if let Some(text) = given(&args.cluster) {
        options.cluster.set_listen(&text).map_err(invalid)?;
    }
    if let Some(text) = given(&args.routes) {
        options.cluster.set_routes(&text).map_err(invalid)?;
        if !options.cluster.is_configured() {
            let text = "solicited routes require cluster capabilities, e.g. --cluster";
            return Err(invalid(Problem::NotHere(text)));
        }
    }
    if let Some(text) = given(&args.cluster_advertise) {
        options.cluster.set_advertise(&text).map_err(invalid)?;
    }
    if let Some(no_advertise) = args.no_advertise {
        options.cluster.no_advertise = no_advertise;
    }
    if let Some(retries) = args.connect_retries {
        options.cluster.connect_retries = u32::try_from(retries.max(0)).unwrap_or(u32::MAX);
    }
    if args.jetstream == Some(true) {
        options.jetstream.get_or_insert_default();
    }
    set(&mut options.store_dir, path(&args.store_dir));
    set(&mut options.server_name, given(&args.server_name));
    set(&mut options.pid_file, path(&args.pid_file));
    set(&mut options.ports_file_dir, path(&args.ports_file_dir));
    set(&mut options.log_file, path(&args.log_file));
    for (field, flag) in [
        (&mut options.syslog, args.syslog),
        (&mut options.logtime, args.logtime),
        (&mut options.logtime_utc, args.logtime_utc),
        (&mut options.debug, args.debug),
        (&mut options.trace, args.trace),
        (&mut options.trace_verbose, args.trace_verbose),
    ] {
        *field = flag.unwrap_or(*field);
    }
    let (user, pass, token) = (given(&args.user), given(&args.pass), given(&args.auth));
    if user.is_some() || pass.is_some() || token.is_some() {
        options.authorization.credentials =
            override_credentials(&options.authorization.credentials, user, pass, token).map_err(invalid)?;
    }
    Ok(())
}

/// The flags over the `tls` map.
fn apply_tls_flags(block: &mut Option<tls::Block>, args: &Args) {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (cert, key, ca) = (given(&args.tls_cert), given(&args.tls_key), given(&args.tls_ca_cert));
    let verify = args.tls_verify == Some(true);
    if args.tls != Some(true) && !verify && cert.is_none() && key.is_none() && ca.is_none() {
        return;
    }
    let block = block.get_or_insert_default();
    set(&mut block.cert_file, cert);
    set(&mut block.key_file, key);
    set(&mut block.ca_file, ca);
    block.verify |= verify;
}

/// Reads what the `tls` map names. With it, logging in may take a second longer than the handshake, unless the file says
/// otherwise.
fn open_tls(
    options: &mut Options,
    block: Option<tls::Block>,
    files: &dyn Files,
    warnings: &[Warning],
) -> Result<(), ConfigError> {
    if let Some(block) = block {
        let at = block.at.clone();
        options.tls = Some(block.open(files).map_err(|error| match at {
            Some(at) => ConfigError::Options {
                problems: vec![ProblemAt { at, problem: error.into() }],
                warnings: warnings.to_vec(),
            },
            None => ConfigError::Startup(error.into()),
        })?);
    }
    if options.authorization.timeout.is_zero() {
        options.authorization.timeout = match &options.tls {
            Some(tls) => tls.timeout + Duration::from_secs(1),
            None => Authorization::default().timeout,
        };
    }
    Ok(())
}

fn set<T>(field: &mut Option<T>, flag: Option<T>) {
    if flag.is_some() {
        *field = flag;
    }
}

/// A flag replaces its counterpart of the file; what then contradicts itself is an error, as within the file. (The
/// reference lets the flags win in some cases and the file in others, without a word.)
fn override_credentials(
    file: &Credentials,
    user: Option<String>,
    pass: Option<String>,
    token: Option<String>,
) -> Result<Credentials, Problem> {
    let text = |password: &Password| match password {
        Password::Plain(text) | Password::Bcrypt(text) => text.clone(),
    };
    match file {
        Credentials::None => Credentials::from_parts(user, pass, token, None),
        Credentials::UserPassword { user: file_user, password } => Credentials::from_parts(
            user.or_else(|| Some(file_user.clone())),
            pass.or_else(|| Some(text(password))),
            token,
            None,
        ),
        Credentials::Token(file_token) => {
            Credentials::from_parts(user, pass, token.or_else(|| Some(text(file_token))), None)
        }
        Credentials::Users(users) => Credentials::from_parts(user, pass, token, Some(users.clone())),
    }
}

/// The rules between options. Where the reference only finds out while it starts, `-t` here finds out too.
fn check(options: &mut Options, warnings: &mut Vec<Warning>) -> Result<(), ConfigError> {
    let invalid = |problem| Err(ConfigError::Startup(problem));
    if options.server_name.as_ref().is_some_and(|name| name.contains(char::is_whitespace)) {
        return invalid(Problem::ServerNameSpaces);
    }
    let (max_payload, max_pending) = (u64::from(options.max_payload), options.max_pending);
    if max_payload > max_pending {
        return invalid(Problem::PayloadAbovePending { max_payload, max_pending });
    }
    let (grace, duration) = (options.lame_duck_grace_period, options.lame_duck_duration);
    if grace >= duration {
        return invalid(Problem::LameDuckOrder { grace, duration });
    }
    if let Some(problem) = options.contradicting_users() {
        return invalid(problem);
    }
    if let Some(name) = &options.no_auth_user {
        let mut users = options.users().map(|(_, user)| user).peekable();
        if users.peek().is_none() {
            return invalid(Problem::NoAuthUserAlone(name.clone()));
        }
        if !users.any(|user| user.login.name() == name) {
            return invalid(Problem::NoAuthUserUnknown(name.clone()));
        }
    }
    if let Some(name) = &options.system_account
        && name != GLOBAL_ACCOUNT
        && !options.accounts.iter().any(|account| account.name == *name)
    {
        return invalid(Problem::SystemAccountMissing);
    }
    if let Some(websocket) = &options.websocket
        && let Err(problem) = websocket.check(options)
    {
        return invalid(problem);
    }
    if let Some(jetstream) = &options.jetstream
        && let Err(problem) = jetstream.check_domain()
    {
        return invalid(problem);
    }
    options.trace |= options.trace_verbose || options.trace_headers;
    if options.max_payload > MAX_PAYLOAD_ADVISED {
        warnings.push(Warning::LargePayload);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU8, NonZeroU32, NonZeroU64};
    use std::time::Duration;

    use super::super::cluster::{ClusterOptions, RouteCredentials, RouteUrl};
    use super::super::jetstream::{JetStreamLimits, JetStreamOptions};
    use super::super::options::{ConnectionTypes, Io, KeyAt, Login, MonitorAccess, RemoteSyslog, User};
    use super::*;
    use crate::config::advertise::Advertise;
    use crate::config::lang::ReadError;

    /// One file, `c`, and no environment.
    struct OneFile<'a>(&'a str);

    impl Files for OneFile<'_> {
        fn read(&self, path: &str) -> Result<String, ReadError> {
            assert_eq!(path, "c");
            Ok(self.0.to_owned())
        }
    }

    impl Environment for OneFile<'_> {
        fn variable(&self, _: &str) -> Option<String> {
            None
        }
    }

    fn start(line: &str, file: &str) -> Result<Startup, ConfigError> {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        load_from(words, &OneFile(file), &OneFile(file))
    }

    fn options(line: &str, file: &str) -> Options {
        match start(line, file) {
            Ok(Startup::Run(options, _)) => *options,
            other => panic!("{other:?}"),
        }
    }

    fn error(line: &str, file: &str) -> String {
        start(line, file).expect_err("an error").to_string()
    }

    #[test]
    fn without_file_and_flags_there_are_the_defaults() {
        assert_eq!(options("", ""), Options::default());
    }

    #[test]
    fn every_core_option_reaches_its_field() {
        let file = "
            listen: \"[::1]:4333\", client_advertise: \"example.org:1\", server_name: s, workers: 3, io: uring
            server_tags: [A, ' b ', a, ''], server_metadata: { K: v }
            debug: true, trace_verbose: true, trace_headers: true, max_traced_msg_len: 10
            logtime: false, logtime_utc: true, log_file: /l, pid_file: /p, ports_file_dir: /d
            log_size_limit: 1MB, log_max_num: 3, syslog: true, remote_syslog: \"udp://[::1]:514\"
            max_connections: 10K, max_subscriptions: 7, max_subscription_tokens: 8
            max_control_line: 1KB, max_payload: 2MB, max_pending: 3MB
            ping_interval: \"1.5s\", ping_max: 4, write_deadline: 5s
            http: \"h:-1\", http_base_path: \"/b\", max_closed_clients: 9
            monitor { authorization { username: ops, password: pw, healthz: true }, verify: true }
            no_header_support: true, no_fast_producer_stall: true, store_dir: /js
            jetstream { max_mem: 1G, max_file: -1, sync: always, strict: false
                limits { duplicate_window: \"1m\", max_ack_pending: 9 } }
            lame_duck_duration: 31s, lame_duck_grace_period: 1s, allow_non_tls: true
            authorization { user: a, pass: b, timeout: 0.5 }
            cluster { listen: \"h:6222\", name: C, routes: [\"nats://a:1\"], connect_retries: 2, connect_backoff: true
                authorization { user: u, password: p, timeout: 3 }, ping_interval: \"5s\", ping_max: 3
                write_deadline: \"4s\", advertise: \"b:2\", no_advertise: true }
        ";
        let expected = Options {
            config_file: Some("c".into()),
            config_digest: options("-c c", file).config_digest,
            host: "::1".into(),
            port: Port::Fixed(4333),
            client_advertise: Advertise::parse("example.org:1").ok(),
            server_name: Some("s".into()),
            server_tags: vec!["a".into(), "b".into()],
            server_metadata: [("K".to_owned(), "v".to_owned())].into(),
            jetstream: Some(JetStreamOptions {
                memory_max: Some(1_000_000_000),
                strict: false,
                limits: JetStreamLimits {
                    duplicate_window: Some(Duration::from_secs(60)),
                    ack_pending_max: Some(9),
                    request_batch_max: None,
                    ..JetStreamLimits::default()
                },
                ..JetStreamOptions::default()
            }),
            store_dir: Some("/js".into()),
            workers: NonZeroU32::new(3),
            io: Io::Uring,
            debug: true,
            trace: true,
            trace_verbose: true,
            trace_headers: true,
            max_traced_msg_len: NonZeroU32::new(10),
            logtime: false,
            logtime_utc: true,
            log_file: Some("/l".into()),
            log_size_limit: NonZeroU64::new(1 << 20),
            log_max_num: NonZeroU32::new(3),
            syslog: true,
            remote_syslog: Some(RemoteSyslog::Udp("[::1]:514".into())),
            pid_file: Some("/p".into()),
            ports_file_dir: Some("/d".into()),
            max_connections: 10_000,
            max_subscriptions: NonZeroU32::new(7),
            max_subscription_tokens: NonZeroU8::new(8),
            max_control_line: 1024,
            max_payload: 2 << 20,
            max_pending: 3 << 20,
            ping_interval: Duration::from_millis(1500),
            ping_max: 4,
            write_deadline: Duration::from_secs(5),
            http_port: Some(Port::Random),
            https_port: None,
            http_host: Some("h".into()),
            http_base_path: "/b".into(),
            max_closed_clients: 9,
            monitor_verify: true,
            monitor_healthz_guarded: true,
            monitor_access: MonitorAccess::User {
                user: "ops".into(),
                password: Password::Plain("pw".into()),
            },
            no_header_support: true,
            no_fast_producer_stall: true,
            lame_duck_duration: Duration::from_secs(31),
            lame_duck_grace_period: Duration::from_secs(1),
            authorization: super::super::options::Authorization {
                credentials: Credentials::UserPassword {
                    user: "a".into(),
                    password: Password::Plain("b".into()),
                },
                timeout: Duration::from_millis(500),
            },
            no_auth_user: None,
            accounts: Vec::new(),
            mappings: Default::default(),
            system_account: None,
            no_system_account: false,
            tls: None,
            allow_non_tls: true,
            websocket: None,
            cluster: ClusterOptions {
                name: Some("C".into()),
                host: "h".into(),
                port: Some(Port::Fixed(6222)),
                credentials: Some(RouteCredentials { user: "u".into(), pass: "p".into() }),
                auth_timeout: Duration::from_secs(3),
                routes: RouteUrl::parse("nats://a:1").into_iter().collect(),
                advertise: Advertise::parse("b:2").ok(),
                no_advertise: true,
                connect_retries: 2,
                connect_backoff: true,
                ping_interval: Duration::from_secs(5),
                ping_max: 3,
                write_deadline: Duration::from_secs(4),
            },
            not_supported: Vec::new(),
        };
        assert_eq!(options("-c c", file), expected);
    }

    #[test]
    fn flags_of_tls_ask_for_a_certificate_and_its_key() {
        assert_eq!(error("--tls", ""), "TLS Server certificate must be present and valid");
        assert_eq!(error("--tls --tlscert c", ""), "TLS Server private key must be present and valid");
        assert_eq!(options("--tls=false", "").tls, None);
        assert_eq!(error("-c c", "tls { cert_file: x }"), "c:1:0: missing 'key_file' in TLS configuration");
    }

    #[test]
    fn logging_in_may_take_a_second_longer_than_the_handshake_unless_it_is_said_how_long() {
        let timeout = |file: &str| options("-c c", file).authorization.timeout.as_secs_f64();
        assert_eq!(timeout("debug: true"), 2.0);
        assert_eq!(timeout("tls { timeout: 0.5 }"), 1.5);
        assert_eq!(timeout("tls { timeout: 0.5 }, authorization { timeout: 1 }"), 1.0);
    }

    #[test]
    fn curves_and_suites_that_are_not_here_are_left_out_with_a_warning() {
        let file = "tls { cipher_suites: [ \"TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA\" ], \
                    curve_preferences: [ \"CurveP521\", \"CurveP256\" ] }";
        let Ok(Startup::Run(options, warnings)) = start("-c c", file) else { panic!("a start") };
        let tls = options.tls.unwrap();
        assert_eq!(tls.cipher_suites.as_deref(), Some(&[][..]));
        assert_eq!(tls.curves.as_deref(), Some(&[rustls::NamedGroup::secp256r1][..]));
        let texts: Vec<String> = warnings.iter().map(Warning::to_string).collect();
        assert_eq!(
            texts,
            [
                "c:1:0: not available, and left out of cipher_suites: TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
                "c:1:0: not available, and left out of curve_preferences: CurveP521",
            ]
        );
        assert!(warnings.iter().all(|warning| !warning.fails_test()));
        let none = "tls { curve_preferences: [ \"CurveP521\" ] }";
        assert_eq!(error("-c c", none), "c:1:0: none of the 'curve_preferences' is available: CurveP521");
    }

    #[test]
    fn every_flag_overrides_the_file() {
        let file = "
            listen: \"h:1\", client_advertise: x, server_name: x, workers: 1, debug: true, trace: false
            io: auto, logtime: true, log_file: x, pid_file: x, ports_file_dir: x, max_traced_msg_len: 1
            log_size_limit: 1, log_max_num: 1, http_port: 1, syslog: true, remote_syslog: \"udp://x:1\"
            authorization { user: a, pass: b }
        ";
        let line = "-c c -a ::1 -p -1 --client_advertise y -n y --workers 0 --io Epoll -D=false -VV -T=false -l y -P y \
            --ports_file_dir y -s=false -r unix:///y --log_size_limit -1 --log_max_num 7 --max_traced_msg_len 5 --user c --logtime_utc -m 2";
        let options = options(line, file);
        assert_eq!((options.host.as_str(), options.port), ("::1", Port::Random));
        assert_eq!(options.client_advertise, Advertise::parse("y").ok());
        assert_eq!(options.server_name.as_deref(), Some("y"));
        assert_eq!((options.workers, options.io), (None, Io::Epoll));
        assert_eq!((options.debug, options.trace, options.trace_verbose), (false, true, true));
        assert_eq!((options.logtime, options.logtime_utc), (false, true));
        assert_eq!(options.log_file, Some("y".into()));
        assert_eq!(options.pid_file, Some("y".into()));
        assert_eq!(options.ports_file_dir, Some("y".into()));
        assert_eq!(options.max_traced_msg_len, NonZeroU32::new(5));
        assert_eq!((options.syslog, options.remote_syslog), (false, Some(RemoteSyslog::Unix("/y".into()))));
        assert_eq!((options.log_size_limit, options.log_max_num), (None, NonZeroU32::new(7)));
        assert_eq!(options.http_port, Some(Port::Fixed(2)));
        let expected = Credentials::UserPassword { user: "c".into(), password: Password::Plain("b".into()) };
        assert_eq!(options.authorization.credentials, expected);
    }

    #[test]
    fn flags_and_file_that_contradict_each_other_are_an_error() {
        let users = "authorization { users: [ { user: a, pass: b } ] }";
        assert_eq!(
            error("-c c --user x --pass y", users),
            "Can not have a single user/pass and a users array"
        );
        assert_eq!(error("-c c --auth x", users), "Can not have a token and a users array");
        assert_eq!(error("-c c --auth x", "authorization { user: a }"), "Cannot have a user/pass and token");
        assert_eq!(error("--user a --auth x", ""), "Cannot have a user/pass and token");
        assert_eq!(error("--pass x", ""), "a password without a user would let everybody in");
    }

    fn user(name: &str, password: Password) -> User {
        User {
            login: Login::Password { user: name.into(), password },
            connection_types: ConnectionTypes::ALL,
            permissions: None,
        }
    }

    #[test]
    fn users_keep_their_order_and_their_kind_of_password() {
        let hash = "$2a$11$3kIDaCxw.Glsl1.u5nKa6eUnNDLV5HV9tIuUp7EHhMt6Nm9myW1aS";
        let file = format!("authorization {{ users: [ {{user: z, pass: {hash}}}, {{username: a}} ] }}");
        let expected = Credentials::Users(vec![
            user("z", Password::Bcrypt(hash.into())),
            user("a", Password::Plain(String::new())),
        ]);
        let credentials = options("-c c", &file).authorization.credentials;
        assert_eq!(credentials, expected);
        assert!(!format!("{credentials:?}").contains("3kIDa"), "Debug never shows a password");
    }

    #[test]
    fn zero_and_negative_limits_mean_what_they_mean_in_the_reference() {
        let o =
            options("-c c", "max_connections: 0, max_subs: 0, max_traced_msg_len: -1, port: 0, ping_max: 0");
        assert_eq!((o.max_connections, o.max_subscriptions, o.max_traced_msg_len), (0, None, None));
        assert_eq!((o.port, o.ping_max), (Port::Fixed(4222), 2));
        assert_eq!(options("-c c", "max_conn: -1").max_connections, 0);
        assert_eq!(options("-c c", "max_payload: 0").max_payload, 1 << 20);
        assert_eq!(options("-c c", "max_payload: -1, max_pending: 3MB").max_payload, 3 << 20);
        assert_eq!(options("-c c", "write_deadline: 0s").write_deadline, Duration::from_secs(10));
    }

    #[test]
    fn a_monitoring_port_of_0_is_none_in_the_file_and_says_nothing_as_a_flag() {
        assert_eq!(options("-c c", "http_port: 0").http_port, None);
        assert_eq!(options("-c c", "http: \"h:0\"").http_port, None);
        assert_eq!(options("-c c -m 0", "monitor_port: 7").http_port, Some(Port::Fixed(7)));
        assert_eq!(options("-c c", "https_port: 0").https_port, None);
        let tls = options("-c c -ms 7", "https: \"h:6\"");
        assert_eq!((tls.https_port, tls.http_host.as_deref()), (Some(Port::Fixed(7)), Some("h")));
        assert_eq!(error("-m 70000", ""), "port 70000 is out of range: -1 (random) or 1 to 65535");
    }

    #[test]
    fn the_base_path_of_the_monitoring_has_a_slash_in_front_and_none_behind() {
        for (written, base) in
            [("", ""), ("/", ""), ("foo/", "/foo"), ("/a//b/", "/a/b"), ("a/./../b", "/b"), ("..", "")]
        {
            let options = Options { http_base_path: written.to_owned(), ..Options::default() };
            assert_eq!(options.http_base(), base, "{written:?}");
        }
    }

    #[test]
    fn what_is_not_supported_is_reported_with_its_place() {
        let options = options("-c c -profile 6060", "debug: true\n  mqtt {}\nocsp: false\nleafnodes {}\n");
        let at = |line, column| Some(lang::Position { file: "c".into(), line, column });
        assert_eq!(
            options.not_supported,
            [
                KeyAt { name: "mqtt".into(), at: at(2, 3) },
                KeyAt { name: "leafnodes".into(), at: at(4, 1) },
                KeyAt { name: "-profile".into(), at: None },
            ]
        );
        let warning = "not supported yet: mqtt (c:2:3), leafnodes (c:4:1), -profile";
        assert_eq!(options.not_supported_warning().as_deref(), Some(warning));
    }

    #[test]
    fn what_would_be_less_secure_than_asked_does_not_start() {
        for (line, file, name) in [
            ("-c c", "tls { ocsp_peer: true }", "c:1:6: tls.ocsp_peer"),
            ("-c c", "operator: x", "c:1:0: operator"),
            ("-c c", "authorization { auth_callout {} }", "c:1:16: authorization.auth_callout"),
        ] {
            let expected = format!(
                "{name} is not supported yet, and running without it would be less secure than asked"
            );
            assert_eq!(error(line, file), expected);
        }
    }

    #[test]
    fn warnings_do_not_prevent_a_start_but_fail_the_test() {
        let file = "ping_interval: 5, max_payload: 9MB";
        let Ok(Startup::Run(options, warnings)) = start("-c c", file) else { panic!("a start") };
        assert_eq!(options.ping_interval, Duration::from_secs(5));
        let texts: Vec<String> = warnings.iter().map(Warning::to_string).collect();
        assert_eq!(
            texts,
            [
                "c:1:0: invalid use of field \"ping_interval\": ping_interval should be converted to a duration",
                "Maximum payloads over 8.00 MB are generally discouraged and could lead to poor performance",
            ]
        );
        let Ok(Startup::Run(_, warnings)) = start("-c c", "# nothing") else { panic!("a start") };
        assert_eq!(warnings, [Warning::Empty { file: "c".into() }]);
        let Ok(Startup::PrintAndExit { code: 1, .. }) = start("-t -c c", "") else { panic!("exit status 1") };
        let Ok(Startup::PrintAndExit { code: 1, .. }) = start("-t -c c", file) else {
            panic!("exit status 1")
        };
        let Ok(Startup::PrintAndExit { code: 0, .. }) = start("-t -c c", "max_payload: 9MB") else {
            panic!("exit status 0")
        };
    }

    #[test]
    fn the_monitoring_is_guarded_by_something_or_not_at_all() {
        let access = |file: &str| options("-c c", file).monitor_access;
        assert_eq!(access("monitor {}"), MonitorAccess::Everybody);
        let token = MonitorAccess::Token(Password::Plain("t".into()));
        assert_eq!(access("monitor { authorization { TOKEN: t } }"), token);
        for nothing in ["", "token: ''", "user: u", "user: u, pass: ''"] {
            assert_eq!(
                error("-c c", &format!("monitor {{ authorization {{ {nothing} }} }}")),
                "c:1:10: monitor.authorization: needs user and password, or a token",
                "{nothing}"
            );
        }
        assert_eq!(
            error("-c c", "monitor { authorization { user: u, pass: p, token: t } }"),
            "c:1:10: Cannot have a user/pass and token"
        );
        assert_eq!(error("-c c", "monitor { authorisation {} }"), "c:1:10: unknown field \"authorisation\"");
        assert_eq!(
            error("-c c", "monitor { authorization { nkey: u } }"),
            "c:1:26: unknown field \"nkey\"\nc:1:10: monitor.authorization: needs user and password, or a token"
        );
    }

    #[test]
    fn flags_are_checked_like_the_file() {
        assert_eq!(error("-p 99999", ""), "port 99999 is out of range: -1 (random) or 1 to 65535");
        assert_eq!(error("--workers -1", ""), "workers must be 0 (one per core) to 1024");
        assert_eq!(error("--io aio", ""), "io must be auto, uring or epoll, not \"aio\"");
        assert_eq!(error("-t", ""), "must specify [-c, --config] option to check configuration file syntax");
        for text in [
            "localhost:514",
            "udp://localhost",
            "udp://:1",
            "udp://::1:5",
            "tcp://a:0",
            "unix://a",
            "x://a:1",
        ] {
            let expected = format!(
                "invalid remote_syslog {text:?}: must be udp://host:port, tcp://host:port or unix:///path"
            );
            assert_eq!(error(&format!("-r {text}"), ""), expected);
        }
        assert_eq!(error("-D foo", ""), "unrecognized command: \"foo\"");
        let words = ["-n", "a b"].map(OsString::from);
        let result = load_from(words, &OneFile(""), &OneFile(""));
        assert_eq!(result, Err(ConfigError::Startup(Problem::ServerNameSpaces)));
    }

    #[test]
    fn help_and_version_win_over_the_rest() {
        for line in ["-h", "--help", "help", "-t help"] {
            let Ok(Startup::PrintAndExit { stdout, stderr, code: 0 }) = start(line, "") else {
                panic!("{line}")
            };
            assert!(stdout.contains("Usage: ") && stderr.is_empty(), "{line}");
        }
        for line in ["-v", "--version", "version", "-c c -v", "-h -v"] {
            let Ok(Startup::PrintAndExit { stdout, code: 0, .. }) = start(line, "") else { panic!("{line}") };
            assert_eq!(stdout.lines().next(), Some("nats-server: v2.15.1"), "{line}");
        }
    }

    #[test]
    fn a_command_line_that_cannot_be_read_prints_the_help_and_exits_with_0_as_the_reference() {
        let Ok(Startup::PrintAndExit { stdout, stderr, code: 0 }) = start("-x -v", "") else { panic!() };
        assert_eq!(stderr, "flag provided but not defined: -x\n");
        assert!(stdout.contains("Usage: "));
    }

    #[test]
    fn the_help_names_every_flag() {
        for name in super::super::args::flag_names() {
            let dashes = if name.len() == 1 || ["sl", "VV", "DV", "DVV", "ms", "js", "sd"].contains(&name) {
                "-"
            } else {
                "--"
            };
            assert!(help::HELP.contains(&format!("{dashes}{name}")), "{dashes}{name}");
        }
    }

    #[test]
    fn signals_have_a_name_and_a_target() {
        for (line, expected) in [
            ("-sl reload", (Signal::Reload, SignalTarget::OnlyProcess)),
            ("--signal ldm=12", (Signal::LameDuck, SignalTarget::Pid(12))),
            ("--signal=stop=/x/y.pid", (Signal::Stop, SignalTarget::PidFile("/x/y.pid".into()))),
            ("-sl ldm=12*", (Signal::LameDuck, SignalTarget::Prefix("12".into()))),
            ("-sl ldm=*", (Signal::LameDuck, SignalTarget::Prefix("".into()))),
            ("-sl quit=-1", (Signal::Quit, SignalTarget::PidFile("-1".into()))),
            ("-sl term=", (Signal::Term, SignalTarget::OnlyProcess)),
        ] {
            assert_eq!(start(line, ""), Ok(Startup::Signal(expected.0, expected.1)), "{line}");
        }
        assert_eq!(error("-sl foo=1", ""), "unknown signal \"foo\"");
    }
}
