//! From a command line to what the process shall do: the order of things, the command line over the file, and the
//! rules between options.

use std::ffi::OsString;
use std::path::PathBuf;

use super::args::{Args, parse_args};
use super::decode::{self, decode};
use super::disk::{DiskFiles, ProcessEnvironment};
use super::error::{ConfigError, Problem, Warning};
use super::help;
use super::lang::{self, Environment, Files};
use super::options::{Credentials, KeyAt, MAX_PAYLOAD_ADVISED, Options, Password, Port};

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
    if args.help == Some(true) {
        return Ok(print(help::HELP, "", 0));
    }
    if args.version == Some(true) {
        return Ok(print(&help::version(), "", 0));
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
    let (mut options, mut warnings) = match file {
        Some(file) => read_file(file, files, environment)?,
        None => (Options::default(), Vec::new()),
    };
    apply_flags(&mut options, &args)?;
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
        _ => SignalTarget::PidFile(PathBuf::from(target)),
    };
    Ok((signal, target))
}

fn read_file(
    file: &str,
    files: &dyn Files,
    environment: &dyn Environment,
) -> Result<(Options, Vec<Warning>), ConfigError> {
    let text = files.read(file)?;
    let map = lang::parse(file, &text, files, environment)?;
    if map.is_empty() {
        return Err(ConfigError::Empty { file: file.to_owned() });
    }
    let decode::Decoded { mut options, problems, warnings } = decode(&map);
    if !problems.is_empty() {
        return Err(ConfigError::Options { problems, warnings });
    }
    options.config_file = Some(PathBuf::from(file));
    options.config_digest = Some(lang::digest(&map));
    Ok((options, warnings))
}

/// The command line over the file, field by field.
fn apply_flags(options: &mut Options, args: &Args) -> Result<(), ConfigError> {
    let invalid = ConfigError::Startup;
    if let Some(flag) = args.refused.first() {
        return Err(invalid(Problem::Refused(flag.clone())));
    }
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
    if let Some(workers) = args.workers {
        options.workers = decode::workers(workers).map_err(invalid)?;
    }
    if let Some(len) = args.max_traced_msg_len {
        options.max_traced_msg_len = decode::limit_or_none("max_traced_msg_len", len).map_err(invalid)?;
    }
    set(&mut options.server_name, given(&args.server_name));
    set(&mut options.client_advertise, given(&args.client_advertise));
    set(&mut options.pid_file, path(&args.pid_file));
    set(&mut options.ports_file_dir, path(&args.ports_file_dir));
    set(&mut options.log_file, path(&args.log_file));
    for (field, flag) in [
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
    options.trace |= options.trace_verbose;
    if options.max_payload > MAX_PAYLOAD_ADVISED {
        warnings.push(Warning::LargePayload);
    }
    Ok(())
}
