//! From the tree of a file to options: names, types and bounds, one key at a time.
//!
//! It goes on after a mistake, so that an operator sees all of them at once. The rules between options and the command
//! line come afterwards, in `load`.

use std::collections::{BTreeMap, HashSet};
use std::num::{NonZeroU8, NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use super::accounts::{first_known, system_account};
use super::advertise::Advertise;
use super::blocks;
use super::cluster;
use super::duration::parse_duration_ns;
use super::error::{Problem, ProblemAt, Warning};
use super::keys::{self, Status};
use super::lang::{Map, Node, Position, Value};
use super::options::{
    Authorization, CLOSED_CLIENTS_MAX, ConnectionType, ConnectionTypes, Credentials, Io, KeyAt,
    LAME_DUCK_DURATION_MIN, Login, MonitorAccess, Options, Password, Port, RemoteSyslog, User, WORKERS_MAX,
};
use super::permissions::permissions as permissions_of;
use super::shape::{Checker, Entry, Shape};
use super::tls;
use super::websocket;

/// What a file says. Rules between options are not checked yet.
#[derive(Debug)]
pub(super) struct Decoded {
    /// But for `tls`; an `authorization.timeout` of zero is none.
    pub(super) options: Options,
    pub(super) tls: Option<tls::Block>,
    pub(super) websocket: Option<websocket::Block>,
    pub(super) problems: Vec<ProblemAt>,
    pub(super) warnings: Vec<Warning>,
}

pub(super) fn decode(map: &Map) -> Decoded {
    let mut decoder = Decoder {
        options: Options::default(),
        tls: None,
        websocket: None,
        problems: Vec::new(),
        warnings: Vec::new(),
        max_payload_is_max_pending: false,
        account_names: HashSet::new(),
        account_logins: HashSet::new(),
    };
    decoder.options.authorization.timeout = Duration::ZERO;
    for (name, node) in in_order(map) {
        let lower = name.to_lowercase();
        let result = match keys::status(keys::TOP, &lower) {
            None => unknown(name, node),
            Some(Status::Supported) => decoder.supported(&lower, node),
            Some(Status::NoEffect(shape)) => decoder.check(&shape, name, node),
            Some(Status::NotYet(shape)) => {
                if !asks_for_nothing(&lower, &node.value) {
                    decoder
                        .options
                        .not_supported
                        .push(KeyAt { name: name.clone(), at: Some(node.at.clone()) });
                }
                decoder.check(&shape, name, node)
            }
            Some(Status::Refused) => Err(Problem::Refused(lower)),
        };
        decoder.note(&node.at, result);
    }
    decoder.check_store_dirs(map);
    if let Some(problem) = decoder.options.contradicting_users() {
        let authorization = map.iter().find(|(name, _)| name.eq_ignore_ascii_case("authorization"));
        if let Some((_, node)) = authorization {
            decoder.note(&node.at, Err(problem));
        }
    }
    if decoder.max_payload_is_max_pending {
        decoder.options.max_payload = decoder.options.max_pending.min(i32::MAX as u64) as u32;
    }
    let Decoder { options, tls, websocket, problems, warnings, .. } = decoder;
    Decoded { options, tls, websocket, problems, warnings }
}

/// What a value of an option says, or what is wrong with it.
pub(super) type Outcome<T = ()> = Result<T, Problem>;

pub(super) struct Decoder {
    pub(super) options: Options,
    tls: Option<tls::Block>,
    websocket: Option<websocket::Block>,
    pub(super) problems: Vec<ProblemAt>,
    pub(super) warnings: Vec<Warning>,
    max_payload_is_max_pending: bool,
    /// Accounts, and all that somebody of them may log in by.
    pub(super) account_names: HashSet<String>,
    pub(super) account_logins: HashSet<String>,
}

impl Decoder {
    pub(super) fn note(&mut self, at: &Position, result: Outcome) {
        if let Err(problem) = result {
            self.problems.push(ProblemAt { at: at.clone(), problem });
        }
    }

    /// Checks a value that nothing is read from.
    pub(super) fn check(&mut self, shape: &Shape, name: &str, node: &Node) -> Outcome {
        let mut checker =
            Checker { problems: &mut self.problems, warnings: &mut self.warnings, wrong_types_at: None };
        checker.check(shape, &Entry { name, node })
    }

    /// The directory of JetStream may be named at one place only; of several, the last ones are wrong.
    fn check_store_dirs(&mut self, map: &Map) {
        let names = |map: &Map, aliases: &[&str]| -> Vec<Position> {
            let named = map.iter().filter(|(name, _)| aliases.contains(&name.to_lowercase().as_str()));
            named.map(|(_, node)| node.at.clone()).collect()
        };
        let mut places = names(map, &["store_dir", "storedir"]);
        for (name, node) in map {
            if let Value::Map(jetstream) = &node.value
                && name.eq_ignore_ascii_case("jetstream")
            {
                places.extend(names(jetstream, &["store", "store_dir", "storedir"]));
            }
        }
        places.sort();
        for at in places.iter().skip(1) {
            self.note(at, Err(Problem::DuplicateStoreDir));
        }
    }

    fn supported(&mut self, name: &str, node: &Node) -> Outcome {
        let options = &mut self.options;
        match name {
            "listen" => {
                let (host, port) = listen(node, port)?;
                if let Some(host) = host {
                    options.host = host;
                }
                options.port = port;
            }
            "host" | "net" => set_text(&mut options.host, string(node)?),
            "port" => options.port = port(integer(node)?)?,
            "client_advertise" => options.client_advertise = client_advertise(string(node)?)?,
            "server_name" => {
                let name = string(node)?;
                if name.contains(char::is_whitespace) {
                    return Err(Problem::ServerNameSpaces);
                }
                options.server_name = non_empty(name);
            }
            "server_tags" => {
                self.check(&Shape::Checked(blocks::server_tags), name, node)?;
                self.options.server_tags = tags(&node.value);
            }
            "server_metadata" => {
                self.check(&Shape::Checked(blocks::server_metadata), name, node)?;
                self.options.server_metadata = texts(&node.value);
            }
            "jetstream" => self.jetstream(name, node)?,
            "store_dir" | "storedir" => options.store_dir = path(node)?,
            "workers" => options.workers = workers(integer(node)?)?,
            "io" => options.io = io(string(node)?)?,
            "debug" => options.debug = boolean(node)?,
            "trace" => options.trace = boolean(node)?,
            "trace_verbose" => options.trace_verbose = boolean(node)?,
            "trace_headers" => options.trace_headers = boolean(node)?,
            "logtime" => options.logtime = boolean(node)?,
            "logtime_utc" => options.logtime_utc = boolean(node)?,
            "log_file" | "logfile" => options.log_file = path(node)?,
            "syslog" => options.syslog = boolean(node)?,
            "remote_syslog" => options.remote_syslog = remote_syslog(string(node)?)?,
            "log_size_limit" | "logfile_size_limit" => {
                options.log_size_limit = log_size_limit(integer(node)?)
            }
            "log_max_num" | "logfile_max_num" => options.log_max_num = limit_or_none(name, integer(node)?)?,
            "pid_file" | "pidfile" => options.pid_file = path(node)?,
            "ports_file_dir" => options.ports_file_dir = path(node)?,
            "max_traced_msg_len" => options.max_traced_msg_len = limit_or_none(name, integer(node)?)?,
            "max_connections" | "max_conn" => {
                options.max_connections =
                    u32::try_from(integer(node)?.max(0)).map_err(|_| Problem::TooBig(name.to_owned()))?;
            }
            "max_subscriptions" | "max_subs" => {
                options.max_subscriptions = limit_or_none(name, integer(node)?)?
            }
            "max_subscription_tokens" | "max_sub_tokens" => {
                let number = integer(node)?;
                if number <= 0 {
                    return Err(Problem::NotPositive(name.to_owned()));
                }
                let tokens = u8::try_from(number).map_err(|_| Problem::TooBig(name.to_owned()))?;
                options.max_subscription_tokens = NonZeroU8::new(tokens);
            }
            "max_control_line" => {
                options.max_control_line = size(name, integer(node)?, Options::default().max_control_line)?
            }
            "max_payload" => match integer(node)? {
                -1 => self.max_payload_is_max_pending = true,
                number => {
                    self.max_payload_is_max_pending = false;
                    options.max_payload = size(name, number, Options::default().max_payload)?;
                }
            },
            "max_pending" => {
                options.max_pending = match u64::try_from(integer(node)?) {
                    Ok(0) => Options::default().max_pending,
                    Ok(number) => number,
                    Err(_) => return Err(Problem::Negative(name.to_owned())),
                };
            }
            "ping_interval" => {
                let interval = self.duration_or_seconds(name, node)?;
                self.options.ping_interval = or_default(interval, Options::default().ping_interval);
            }
            "ping_max" => {
                let number = integer(node)?;
                options.ping_max = match u32::try_from(number) {
                    Ok(0) => Options::default().ping_max,
                    Ok(number) => number,
                    Err(_) if number < 0 => return Err(Problem::Negative(name.to_owned())),
                    Err(_) => return Err(Problem::TooBig(name.to_owned())),
                };
            }
            "write_deadline" => {
                let deadline = self.duration_or_seconds(name, node)?;
                self.options.write_deadline = or_default(deadline, Options::default().write_deadline);
            }
            "http" | "https" => {
                let (host, port) = listen(node, optional_port)?;
                if host.is_some() {
                    options.http_host = host;
                }
                *(if name == "http" { &mut options.http_port } else { &mut options.https_port }) = port;
            }
            "http_port" | "monitor_port" => options.http_port = optional_port(integer(node)?)?,
            "https_port" => options.https_port = optional_port(integer(node)?)?,
            "http_base_path" => string(node)?.clone_into(&mut options.http_base_path),
            "max_closed_clients" => options.max_closed_clients = closed_clients(name, integer(node)?)?,
            "no_header_support" => options.no_header_support = boolean(node)?,
            "no_fast_producer_stall" => options.no_fast_producer_stall = boolean(node)?,
            "lame_duck_duration" => {
                let duration =
                    duration(name, string(node)?)?.ok_or(Problem::LameDuckDuration(Duration::ZERO))?;
                if duration < LAME_DUCK_DURATION_MIN {
                    return Err(Problem::LameDuckDuration(duration));
                }
                options.lame_duck_duration = duration;
            }
            "lame_duck_grace_period" => {
                let grace = duration(name, string(node)?)?.ok_or(Problem::LameDuckGracePeriod)?;
                options.lame_duck_grace_period = or_default(grace, Options::default().lame_duck_grace_period);
            }
            "authorization" => self.authorization(node)?,
            "accounts" => self.accounts(node)?,
            "mappings" | "maps" => self.options.mappings = self.mappings(node)?,
            "system_account" | "system" => options.system_account = non_empty(&system_account(node)?),
            "no_system_account" | "no_system" | "no_sys_acc" => options.no_system_account = boolean(node)?,
            "monitor" => self.monitor(node)?,
            "tls" => {
                self.tls = Some(tls::Block::decode(node, &mut self.problems, &mut self.warnings)?);
            }
            "websocket" | "ws" => {
                let (problems, warnings) = (&mut self.problems, &mut self.warnings);
                self.websocket = Some(websocket::Block::decode(name, node, problems, warnings)?);
            }
            "cluster" => {
                let Options { cluster, not_supported, .. } = options;
                cluster::decode(name, node, cluster, not_supported, &mut self.problems, &mut self.warnings)?;
            }
            "allow_non_tls" => options.allow_non_tls = boolean(node)?,
            "no_auth_user" => options.no_auth_user = non_empty(string(node)?),
            _ => unreachable!("{name} is in the table as supported"),
        }
        Ok(())
    }

    /// A duration; or whole seconds, which draws a warning.
    fn duration_or_seconds(&mut self, name: &str, node: &Node) -> Outcome<Duration> {
        let negative = || Problem::Negative(name.to_owned());
        if let Value::String(text) = &node.value {
            return duration(name, text)?.ok_or_else(negative);
        }
        let warning = Warning::NotADuration { at: node.at.clone(), field: name.to_owned() };
        self.warnings.push(warning);
        let seconds = integer(node)?;
        u64::try_from(seconds).map(Duration::from_secs).map_err(|_| negative())
    }

    fn authorization(&mut self, node: &Node) -> Outcome {
        let mut timeout = Duration::ZERO;
        let (mut user, mut password, mut token, mut users) = (None, None, None, None::<Vec<User>>);
        let mut default_permissions = None;
        for (name, entry) in in_order(map(node)?) {
            let lower = name.to_lowercase();
            let result = match keys::status(keys::AUTHORIZATION, &lower) {
                None => unknown(name, entry),
                Some(Status::Supported) => match lower.as_str() {
                    "user" | "username" => string(entry).map(|text| user = Some(text.to_owned())),
                    "pass" | "password" => string(entry).map(|text| password = Some(text.to_owned())),
                    "token" => string(entry).map(|text| token = Some(text.to_owned())),
                    "timeout" => auth_timeout(entry).map(|duration| {
                        timeout = duration;
                        let reason = long_timeout(duration.as_secs_f64(), &entry.value);
                        let (at, field) = (entry.at.clone(), name.clone());
                        self.warnings.extend(reason.map(|reason| Warning::Misuse { at, field, reason }));
                    }),
                    "users" => self.users(entry, "authorization.users").and_then(|list| {
                        users = Some(list);
                        let is_empty = matches!(&entry.value, Value::Array(entries) if entries.is_empty());
                        if is_empty { Err(Problem::UsersEmpty) } else { Ok(()) }
                    }),
                    "default_permissions" | "default_permission" | "permissions" => {
                        permissions_of(entry, &mut self.problems).map(|read| default_permissions = Some(read))
                    }
                    _ => unreachable!("{lower} is in the table as supported"),
                },
                // Switched off there is nothing that would be missed.
                Some(_) if lower == "proxy_required" && entry.value == Value::Bool(false) => Ok(()),
                Some(_) => Err(Problem::Refused(format!("authorization.{lower}"))),
            };
            self.note(&entry.at, result);
        }
        for user in users.iter_mut().flatten().filter(|user| user.permissions.is_none()) {
            user.permissions.clone_from(&default_permissions);
        }
        let credentials = Credentials::from_parts(user, password, token, users)?;
        self.options.authorization = Authorization { credentials, timeout };
        Ok(())
    }

    fn monitor(&mut self, node: &Node) -> Outcome {
        for (name, entry) in in_order(map(node)?) {
            let lower = name.to_lowercase();
            let result = match lower.as_str() {
                _ if keys::status(keys::MONITOR, &lower).is_none() => unknown(name, entry),
                "verify" => boolean(entry).map(|verify| self.options.monitor_verify = verify),
                _ => self.monitor_authorization(entry),
            };
            self.note(&entry.at, result);
        }
        Ok(())
    }

    fn monitor_authorization(&mut self, node: &Node) -> Outcome {
        let (mut user, mut password, mut token) = (None, None, None);
        for (name, entry) in in_order(map(node)?) {
            let lower = name.to_lowercase();
            let result = match lower.as_str() {
                _ if keys::status(keys::MONITOR_AUTHORIZATION, &lower).is_none() => unknown(name, entry),
                "healthz" => boolean(entry).map(|guarded| self.options.monitor_healthz_guarded = guarded),
                "token" => string(entry).map(|text| token = Some(text.to_owned())),
                "user" | "username" => string(entry).map(|text| user = Some(text.to_owned())),
                _ => string(entry).map(|text| password = Some(text.to_owned())),
            };
            self.note(&entry.at, result);
        }
        self.options.monitor_access = match Credentials::from_parts(user, password, token, None)? {
            Credentials::Token(token) => MonitorAccess::Token(token),
            Credentials::UserPassword { user, password } if password != Password::new(String::new()) => {
                MonitorAccess::User { user, password }
            }
            // Whoever writes this wants it guarded; nothing that is empty may open it to everybody.
            _ => return Err(Problem::NotHere("monitor.authorization: needs user and password, or a token")),
        };
        Ok(())
    }

    /// A list of users. `place` is what messages call it.
    pub(super) fn users(&mut self, node: &Node, place: &str) -> Outcome<Vec<User>> {
        let Value::Array(entries) = &node.value else {
            return Err(Problem::UsersType(shown(&node.value)));
        };
        let mut users = Vec::with_capacity(entries.len());
        for entry in entries {
            let result = self.user(entry, place).map(|user| users.push(user));
            self.note(&entry.at, result);
        }
        Ok(users)
    }

    fn user(&mut self, node: &Node, place: &str) -> Outcome<User> {
        let Value::Map(entries) = &node.value else {
            return Err(Problem::UserType(shown(&node.value)));
        };
        let (mut user, mut password, mut nkey) = (String::new(), String::new(), String::new());
        let mut connection_types = ConnectionTypes::ALL;
        let mut permissions = None;
        for (name, entry) in in_order(entries) {
            let lower = name.to_lowercase();
            let result = match keys::status(keys::USER, &lower) {
                None => unknown(name, entry),
                Some(Status::Supported) => match lower.as_str() {
                    "user" | "username" => string(entry).map(|text| text.clone_into(&mut user)),
                    "pass" | "password" => string(entry).map(|text| text.clone_into(&mut password)),
                    "nkey" => string(entry).map(|text| text.clone_into(&mut nkey)),
                    "allowed_connection_types" | "connection_types" | "clients" => {
                        connection_types_of(entry).map(|kinds| connection_types = kinds)
                    }
                    "permissions" | "permission" | "authorization" => {
                        permissions_of(entry, &mut self.problems).map(|read| permissions = Some(read))
                    }
                    _ => unreachable!("{lower} is in the table as supported"),
                },
                Some(_) if entry.value == Value::Bool(false) => Ok(()),
                Some(_) => Err(Problem::Refused(format!("{place}.{lower}"))),
            };
            self.note(&entry.at, result);
        }
        let login = match (nkey.is_empty(), user.is_empty()) {
            (true, true) => return Err(Problem::UserMissing),
            (true, false) => Login::Password { user, password: Password::new(password) },
            (false, _) if !is_public_user_key(&nkey) => return Err(Problem::UserNkey),
            (false, _) if !user.is_empty() || !password.is_empty() => return Err(Problem::NkeyWithPassword),
            (false, _) => Login::Nkey(nkey),
        };
        Ok(User { login, connection_types, permissions })
    }
}

/// A text, or the texts of an array: in lower case, without empty ones, and each once.
fn tags(value: &Value) -> Vec<String> {
    let nodes = match value {
        Value::Array(nodes) => nodes.iter().map(|node| &node.value).collect(),
        value => vec![value],
    };
    let mut tags: Vec<String> = Vec::new();
    for value in nodes {
        let Value::String(text) = value else { continue };
        let tag = text.trim().to_lowercase();
        if !tag.is_empty() && !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    tags
}

/// The entries of a map that are texts.
fn texts(value: &Value) -> BTreeMap<String, String> {
    let Value::Map(entries) = value else { return BTreeMap::new() };
    let text = |node: &Node| match &node.value {
        Value::String(text) => Some(text.clone()),
        _ => None,
    };
    entries.iter().filter_map(|(name, node)| Some((name.clone(), text(node)?))).collect()
}

impl Credentials {
    /// Puts together what stood in `authorization` or on the command line; empty texts count as not given.
    pub(super) fn from_parts(
        user: Option<String>,
        password: Option<String>,
        token: Option<String>,
        users: Option<Vec<User>>,
    ) -> Outcome<Credentials> {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let (user, password, token) = (given(user), given(password), given(token));
        if token.is_some() && (user.is_some() || password.is_some()) {
            return Err(Problem::UserAndToken);
        }
        if let Some(users) = users {
            if user.is_some() || password.is_some() {
                return Err(Problem::UserAndUsers);
            }
            if token.is_some() {
                return Err(Problem::TokenAndUsers);
            }
            return match first_known(users.iter().map(|user| &user.login), &mut HashSet::new()) {
                Some(problem) => Err(problem),
                None => Ok(Credentials::Users(users)),
            };
        }
        match (user, password, token) {
            (_, _, Some(token)) => Ok(Credentials::Token(Password::new(token))),
            (Some(user), password, None) => {
                Ok(Credentials::UserPassword { user, password: Password::new(password.unwrap_or_default()) })
            }
            (None, Some(_), None) => Err(Problem::PasswordWithoutUser),
            (None, None, None) => Ok(Credentials::None),
        }
    }
}

/// Entries in the order of writing, so that problems come in that order and the later of two aliases wins.
pub(super) fn in_order(map: &Map) -> Vec<(&String, &Node)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by(|(_, a), (_, b)| a.at.cmp(&b.at));
    entries
}

pub(super) fn unknown(name: &str, node: &Node) -> Outcome {
    // Whatever a `$NAME` refers to is a variable and may have any name.
    if node.is_variable { Ok(()) } else { Err(Problem::UnknownField(name.to_owned())) }
}

/// One name or an array of them; none at all means every type.
fn connection_types_of(node: &Node) -> Outcome<ConnectionTypes> {
    let names: Vec<&str> = match &node.value {
        Value::String(name) => vec![name],
        Value::Array(entries) => {
            fn name(entry: &Node) -> Outcome<&str> {
                string(entry).map_err(|_| Problem::ConnectionTypesEntry(entry.value.type_name()))
            }
            entries.iter().map(name).collect::<Outcome<_>>()?
        }
        other => return Err(Problem::ConnectionTypesType(other.type_name())),
    };
    let names: Vec<String> = names.into_iter().map(str::to_uppercase).collect();
    let unknown: Vec<String> =
        names.iter().filter(|name| ConnectionType::by_name(name).is_none()).cloned().collect();
    if !unknown.is_empty() {
        return Err(Problem::ConnectionTypes(unknown));
    }
    Ok(names.iter().filter_map(|name| ConnectionType::by_name(name)).collect())
}

/// Whether `text` is the public key of a user.
pub fn is_public_user_key(text: &str) -> bool {
    text.starts_with('U') && nkeys::KeyPair::from_public_key(text).is_ok()
}

/// `ocsp: false`, `proxy_protocol: false`, `http_port: 0`: switched off, so nothing is missing.
fn asks_for_nothing(name: &str, value: &Value) -> bool {
    match value {
        Value::Bool(truth) => !truth,
        Value::Integer(number) => *number == 0,
        Value::String(text) => {
            let text = text.to_lowercase();
            text.is_empty()
                || match name {
                    // A client that takes too long is closed.
                    "write_timeout" => matches!(text.as_str(), "default" | "close"),
                    _ => false,
                }
        }
        _ => false,
    }
}

pub(super) fn wrong_type(node: &Node, expected: &'static str) -> Problem {
    Problem::WrongType { found: node.value.type_name(), expected }
}

pub(super) fn string(node: &Node) -> Outcome<&str> {
    match &node.value {
        Value::String(text) => Ok(text),
        _ => Err(wrong_type(node, "string")),
    }
}

pub(super) fn integer(node: &Node) -> Outcome<i64> {
    match node.value {
        Value::Integer(number) => Ok(number),
        _ => Err(wrong_type(node, "int64")),
    }
}

pub(super) fn boolean(node: &Node) -> Outcome<bool> {
    match node.value {
        Value::Bool(truth) => Ok(truth),
        _ => Err(wrong_type(node, "bool")),
    }
}

pub(super) fn map(node: &Node) -> Outcome<&Map> {
    match &node.value {
        Value::Map(map) => Ok(map),
        _ => Err(wrong_type(node, "map[string]interface {}")),
    }
}

fn path(node: &Node) -> Outcome<Option<PathBuf>> {
    Ok(non_empty(string(node)?).map(PathBuf::from))
}

pub(super) fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn set_text(field: &mut String, text: &str) {
    if !text.is_empty() {
        text.clone_into(field);
    }
}

/// A value in an error message that says what was found instead of a structure.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        Value::Datetime(datetime) => datetime.to_string(),
        Value::Array(_) | Value::Map(_) => value.type_name().to_owned(),
    }
}

pub(super) fn port(number: i64) -> Outcome<Port> {
    Port::from_integer(number).ok_or(Problem::Port(number))
}

/// A port that 0 switches off.
pub(super) fn optional_port(number: i64) -> Outcome<Option<Port>> {
    if number == 0 { Ok(None) } else { port(number).map(Some) }
}

/// 0 is the default, as in the reference, which dies of a negative number.
fn closed_clients(name: &str, number: i64) -> Outcome<u32> {
    match u32::try_from(number) {
        Ok(0) => Ok(Options::default().max_closed_clients),
        Ok(number) if number <= CLOSED_CLIENTS_MAX => Ok(number),
        Err(_) if number < 0 => Err(Problem::Negative(name.to_owned())),
        _ => Err(Problem::TooBig(name.to_owned())),
    }
}

/// `PORT`, `"HOST:PORT"` or `"[IPv6]:PORT"`; the host may be missing.
pub(super) fn listen<P>(node: &Node, port: fn(i64) -> Outcome<P>) -> Outcome<(Option<String>, P)> {
    let text = match &node.value {
        Value::Integer(number) => return Ok((None, port(*number)?)),
        Value::String(text) => text,
        other => {
            return Err(Problem::ListenType(match other {
                Value::Bool(_) => "bool",
                other => other.type_name(),
            }));
        }
    };
    let invalid = || Problem::Address(text.clone());
    let (host, digits) = text.rsplit_once(':').ok_or_else(invalid)?;
    let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address,
        None if host.contains([':', '[', ']']) => return Err(invalid()),
        None => host,
    };
    let number = digits.parse::<i64>().map_err(|_| Problem::PortText(digits.to_owned()))?;
    Ok((non_empty(host), port(number)?))
}

pub(super) fn workers(number: i64) -> Outcome<Option<NonZeroU32>> {
    let number =
        u32::try_from(number).ok().filter(|number| *number <= WORKERS_MAX).ok_or(Problem::Workers)?;
    Ok(NonZeroU32::new(number))
}

pub(super) fn io(name: &str) -> Outcome<Io> {
    Io::from_name(name).ok_or_else(|| Problem::Io(name.to_owned()))
}

/// 0 and negative numbers are no limit.
pub(super) fn limit_or_none(name: &str, number: i64) -> Outcome<Option<NonZeroU32>> {
    let number = u32::try_from(number.max(0)).map_err(|_| Problem::TooBig(name.to_owned()))?;
    Ok(NonZeroU32::new(number))
}

pub(super) fn client_advertise(text: &str) -> Outcome<Option<Advertise>> {
    if text.is_empty() {
        return Ok(None);
    }
    let invalid = |reason| Problem::ClientAdvertise { value: text.to_owned(), reason };
    Advertise::parse(text).map(Some).map_err(invalid)
}

pub(super) fn remote_syslog(text: &str) -> Outcome<Option<RemoteSyslog>> {
    if text.is_empty() {
        return Ok(None);
    }
    RemoteSyslog::parse(text).map(Some).ok_or_else(|| Problem::RemoteSyslog(text.to_owned()))
}

/// 0 and negative numbers are no limit.
pub(super) fn log_size_limit(number: i64) -> Option<NonZeroU64> {
    u64::try_from(number).ok().and_then(NonZeroU64::new)
}

/// Bytes that fit a signed 32-bit number, 0 for the default.
fn size(name: &str, number: i64, default: u32) -> Outcome<u32> {
    match number {
        0 => Ok(default),
        1..=0x7fff_ffff => Ok(number as u32),
        ..0 => Err(Problem::Negative(name.to_owned())),
        _ => Err(Problem::TooBig(name.to_owned())),
    }
}

/// `None` for a negative duration.
fn duration(name: &str, text: &str) -> Outcome<Option<Duration>> {
    match parse_duration_ns(text) {
        Ok(ns) => Ok(u64::try_from(ns).ok().map(Duration::from_nanos)),
        Err(source) => Err(Problem::Duration { field: name.to_owned(), source }),
    }
}

fn or_default(duration: Duration, default: Duration) -> Duration {
    if duration.is_zero() { default } else { duration }
}

/// What is said of a time to log in that is likely to be a mistake.
pub(super) fn long_timeout(seconds: f64, written: &Value) -> Option<String> {
    const ADVISED_S: f64 = 60.0;
    (seconds > ADVISED_S).then(|| {
        format!(
            "timeout of {} ({seconds:.6} seconds) is high, consider keeping it under 60 seconds. possibly caused by \
             unquoted duration; use '1m' instead of 1m, for example",
            shown(written)
        )
    })
}

/// Seconds, whole or not, or a duration.
pub(super) fn auth_timeout(node: &Node) -> Outcome<Duration> {
    let seconds = match &node.value {
        Value::Integer(number) => *number as f64,
        Value::Float(number) => *number,
        Value::String(text) => parse_duration_ns(text).map_err(Problem::TimeoutDuration)? as f64 / 1e9,
        _ => return Err(Problem::TimeoutType),
    };
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) => Ok(duration),
        Err(_) if seconds < 0.0 => Err(Problem::Negative("timeout".to_owned())),
        Err(_) => Err(Problem::TooBig("timeout".to_owned())),
    }
}
