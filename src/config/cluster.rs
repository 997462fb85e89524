//! The `cluster` block and its flags: what they say, and the rules between them and the rest, in the reference's words.

use std::fmt;
use std::time::Duration;

use super::advertise::Advertise;
use super::blocks;
use super::decode::{self, Outcome, in_order, non_empty, string};
use super::duration::parse_duration_ns;
use super::error::{Problem, ProblemAt, Warning};
use super::lang::{Node, Value};
use super::options::{KeyAt, Port};
use super::shape::{Checker, Entry, Shape};

/// The longest ping interval of a route.
pub const ROUTE_PING_INTERVAL_MAX: Duration = Duration::from_secs(30);

/// What the `cluster` block asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterOptions {
    /// `name`; `--cluster_name`. `None`: one is made up.
    pub name: Option<String>,
    /// `listen`, `host`, `net`; `--cluster`. The address or name to listen on for routes.
    pub host: String,
    /// `listen`, `port`; `--cluster`. `None`: there is no listener, and no cluster.
    pub port: Option<Port>,
    /// `authorization`, or the user of `--cluster`: what routes have to show.
    pub credentials: Option<RouteCredentials>,
    /// `authorization.timeout`. Time to show that.
    pub auth_timeout: Duration,
    /// `routes`; `--routes`. Servers to connect to.
    pub routes: Vec<RouteUrl>,
    /// `cluster_advertise`, `advertise`; `--cluster_advertise`. Where other servers are told to find this one.
    pub advertise: Option<Advertise>,
    /// `no_advertise`; `--no_advertise`. Clients of other servers are not told of this one, and its own not of others.
    pub no_advertise: bool,
    /// `connect_retries`; `--connect_retries`. How often a server is tried again that others have told of.
    pub connect_retries: u32,
    /// `connect_backoff`. Pauses between attempts grow.
    pub connect_backoff: bool,
    /// `ping_interval`. At most [`ROUTE_PING_INTERVAL_MAX`]; zero: that of clients, up to the same.
    pub ping_interval: Duration,
    /// `ping_max`. 0: that of clients.
    pub ping_max: u32,
    /// `write_deadline`. Zero: that of clients.
    pub write_deadline: Duration,
}

/// What a route shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteCredentials {
    /// `user`.
    pub user: String,
    /// `pass`.
    pub pass: String,
}

/// The address of another server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteUrl {
    /// A name or an address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What to show there.
    pub credentials: Option<RouteCredentials>,
}

/// The port of routes whose addresses name none.
const ROUTE_PORT_DEFAULT: u16 = 6222;

impl Default for ClusterOptions {
    fn default() -> ClusterOptions {
        ClusterOptions {
            name: None,
            host: "0.0.0.0".to_owned(),
            port: None,
            credentials: None,
            auth_timeout: Duration::from_secs(2),
            routes: Vec::new(),
            advertise: None,
            no_advertise: false,
            connect_retries: 0,
            connect_backoff: false,
            ping_interval: Duration::ZERO,
            ping_max: 0,
            write_deadline: Duration::ZERO,
        }
    }
}

impl RouteUrl {
    /// Reads an address; `None` if it is none. The scheme may be any.
    pub fn parse(text: &str) -> Option<RouteUrl> {
        let text = text.trim();
        let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
        let authority = rest.split(['/', '?', '#']).next()?;
        let (login, place) = match authority.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, authority),
        };
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']')?;
                (host, rest.strip_prefix(':'))
            }
            None => match place.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (place, None),
            },
        };
        let port = match port {
            None | Some("") => ROUTE_PORT_DEFAULT,
            Some(port) => port.parse().ok()?,
        };
        let credentials = login.map(|login| {
            let (user, pass) = login.split_once(':').unwrap_or((login, ""));
            RouteCredentials { user: percent_decoded(user), pass: percent_decoded(pass) }
        });
        (!host.is_empty()).then(|| RouteUrl { host: host.to_owned(), port, credentials })
    }

    /// Whether both lead to the same place, as far as their texts tell.
    pub fn is_same_place(&self, other: &RouteUrl) -> bool {
        self.port == other.port && self.host.eq_ignore_ascii_case(&other.host)
    }
}

/// Host and port, without what is secret.
impl fmt::Display for RouteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let digits = behind.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            None => {
                bytes.push(first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Keys that ask for what is not there yet, with the value that asks for nothing. Going without them would be less secure than asked.
const REFUSED: &[&str] = &["permissions", "tls"];

/// Keys that ask for what is not there yet, and that a cluster works without.
const NOT_YET: &[&str] = &["pool_size", "accounts", "compression", "write_timeout"];

/// Takes the block apart. Problems inside of it are added to `problems`, and what is not there yet to `not_supported`.
pub(super) fn decode(
    name: &str,
    node: &Node,
    options: &mut ClusterOptions,
    not_supported: &mut Vec<KeyAt>,
    problems: &mut Vec<ProblemAt>,
    warnings: &mut Vec<Warning>,
) -> Outcome {
    let known = problems.len();
    let mut checker = Checker { problems, warnings, wrong_types_at: None };
    checker.check(&Shape::Map(&blocks::CLUSTER), &Entry { name, node })?;
    if problems.len() > known {
        // The server does not start with this one.
        return Ok(());
    }
    let Value::Map(entries) = &node.value else { unreachable!("it has been checked") };
    for (name, node) in in_order(entries) {
        let lower = name.to_lowercase();
        let result = if REFUSED.contains(&lower.as_str()) {
            Err(Problem::Refused(format!("cluster.{lower}")))
        } else if NOT_YET.contains(&lower.as_str()) {
            if !asks_for_nothing(&lower, &node.value) {
                not_supported.push(KeyAt { name: format!("cluster.{name}"), at: Some(node.at.clone()) });
            }
            Ok(())
        } else {
            entry(options, &lower, node)
        };
        if let Err(problem) = result {
            problems.push(ProblemAt { at: node.at.clone(), problem });
        }
    }
    Ok(())
}

/// Whether a key that is not there yet asks for what there is anyway.
fn asks_for_nothing(name: &str, value: &Value) -> bool {
    match (name, value) {
        ("compression", Value::Bool(false)) => true,
        ("pool_size", Value::Integer(size)) => *size < 0,
        ("compression", Value::String(mode)) => {
            matches!(mode.to_lowercase().as_str(), "off" | "not supported" | "disabled" | "accept")
        }
        ("accounts", Value::Array(names)) => names.is_empty(),
        _ => false,
    }
}

fn entry(options: &mut ClusterOptions, name: &str, node: &Node) -> Outcome {
    match name {
        "name" => options.name = non_empty(string(node)?),
        "listen" => {
            let (host, port) = decode::listen(node, decode::optional_port)?;
            if let Some(host) = host {
                options.host = host;
            }
            options.port = port;
        }
        "port" => options.port = decode::optional_port(decode::integer(node)?)?,
        "host" | "net" => {
            if let Some(host) = non_empty(string(node)?) {
                options.host = host;
            }
        }
        "authorization" => authorization(options, node)?,
        "routes" => {
            let Value::Array(elements) = &node.value else { unreachable!("it has been checked") };
            options.routes.clear();
            for element in elements {
                add_route(&mut options.routes, string(element)?)?;
            }
        }
        "cluster_advertise" | "advertise" => options.set_advertise(string(node)?)?,
        "no_advertise" => options.no_advertise = decode::boolean(node)?,
        "connect_retries" => options.connect_retries = count(decode::integer(node)?),
        "connect_backoff" => options.connect_backoff = decode::boolean(node)?,
        "ping_interval" => options.ping_interval = seconds_or_duration(node)?.min(ROUTE_PING_INTERVAL_MAX),
        "ping_max" => options.ping_max = count(decode::integer(node)?),
        "write_deadline" => options.write_deadline = seconds_or_duration(node)?,
        // A variable.
        _ => {}
    }
    Ok(())
}

fn count(number: i64) -> u32 {
    u32::try_from(number.max(0)).unwrap_or(u32::MAX)
}

fn authorization(options: &mut ClusterOptions, node: &Node) -> Outcome {
    let Value::Map(entries) = &node.value else { unreachable!("it has been checked") };
    let mut credentials = RouteCredentials { user: String::new(), pass: String::new() };
    for (name, node) in in_order(entries) {
        match name.to_lowercase().as_str() {
            "user" | "username" => string(node)?.clone_into(&mut credentials.user),
            "pass" | "password" => string(node)?.clone_into(&mut credentials.pass),
            "timeout" => options.auth_timeout = decode::auth_timeout(node)?,
            "default_permission" | "default_permissions" | "permissions" => {
                return Err(Problem::Refused("cluster.authorization.permissions".to_owned()));
            }
            _ => {}
        }
    }
    if credentials.pass.starts_with("$2") {
        // To compare it would hold up the worker that has the routes.
        return Err(Problem::Refused("a hashed cluster.authorization.password".to_owned()));
    }
    options.credentials = (!credentials.user.is_empty()).then_some(credentials);
    Ok(())
}

fn add_route(routes: &mut Vec<RouteUrl>, text: &str) -> Outcome {
    let url =
        RouteUrl::parse(text).ok_or_else(|| Problem::Url { kind: "route", text: text.trim().to_owned() })?;
    if !routes.contains(&url) {
        routes.push(url);
    }
    Ok(())
}

/// Whole seconds or a duration, which must not be negative.
fn seconds_or_duration(node: &Node) -> Outcome<Duration> {
    let ns = match &node.value {
        Value::String(text) => parse_duration_ns(text).map_err(Problem::PlainDuration)?,
        _ => decode::integer(node)?.saturating_mul(1_000_000_000),
    };
    Ok(Duration::from_nanos(ns.max(0).unsigned_abs()))
}

impl ClusterOptions {
    /// Whether there is anything that makes a cluster.
    pub fn is_configured(&self) -> bool {
        self.port.is_some()
    }

    /// `--cluster`: where to listen for routes, with what they have to show.
    pub(super) fn set_listen(&mut self, text: &str) -> Outcome {
        let url = RouteUrl::parse_listen(text)?;
        (self.host, self.port) = (url.0, url.1);
        if let Some(credentials) = url.2 {
            self.credentials = Some(credentials);
        }
        Ok(())
    }

    /// `--cluster_advertise`.
    pub(super) fn set_advertise(&mut self, text: &str) -> Outcome {
        let invalid = |reason| Problem::ClusterAdvertise { value: text.to_owned(), reason };
        self.advertise = match text {
            "" => None,
            text => Some(Advertise::parse(text).map_err(invalid)?),
        };
        Ok(())
    }

    /// `--routes`: addresses with commas in between.
    pub(super) fn set_routes(&mut self, text: &str) -> Outcome {
        self.routes.clear();
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            add_route(&mut self.routes, part)?;
        }
        Ok(())
    }

    /// What a server shows where an address names nothing: what it wants to be shown itself.
    pub fn credentials_for<'a>(&'a self, url: &'a RouteUrl) -> Option<&'a RouteCredentials> {
        url.credentials.as_ref().or(self.credentials.as_ref())
    }
}

impl RouteUrl {
    /// The value of `--cluster`, whose port may be -1.
    fn parse_listen(text: &str) -> Outcome<(String, Option<Port>, Option<RouteCredentials>)> {
        let invalid = || Problem::Url { kind: "cluster", text: text.to_owned() };
        let with_port = match text.strip_suffix(":-1") {
            Some(front) => format!("{front}:0"),
            None => text.to_owned(),
        };
        let url = RouteUrl::parse(&with_port).ok_or_else(invalid)?;
        let port = if url.port == 0 { Port::Random } else { Port::Fixed(url.port) };
        Ok((url.host, Some(port), url.credentials))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_servers_are_taken_apart() {
        let login = |user: &str, pass: &str| Some(RouteCredentials { user: user.into(), pass: pass.into() });
        for (text, host, port, credentials) in [
            ("nats-route://a:1", "a", 1, None),
            ("nats://u:p%40@a.b:6333/", "a.b", 6333, login("u", "p@")),
            ("nats://u@[::1]:7", "::1", 7, login("u", "")),
            ("a", "a", 6222, None),
            ("tls://[::1]", "::1", 6222, None),
        ] {
            let url = RouteUrl { host: host.into(), port, credentials };
            assert_eq!(RouteUrl::parse(text), Some(url), "{text}");
        }
        for bad in ["", "nats://", "nats://:1", "nats://a:x", "nats://a:99999", "nats://[::1"] {
            assert_eq!(RouteUrl::parse(bad), None, "{bad}");
        }
        assert_eq!(RouteUrl::parse("nats://u:p@[::1]:7").unwrap().to_string(), "[::1]:7");
    }

    #[test]
    fn the_flags_set_what_the_block_sets() {
        let mut options = ClusterOptions::default();
        assert!(!options.is_configured());
        options.set_listen("nats://u:p@127.0.0.1:-1").unwrap();
        assert_eq!((options.host.as_str(), options.port), ("127.0.0.1", Some(Port::Random)));
        assert_eq!(options.credentials.as_ref().unwrap().user, "u");
        options.set_routes("nats://a:1, nats://b:2,nats://a:1").unwrap();
        assert_eq!(options.routes.len(), 2);
        assert!(options.set_routes("nats://a:x").is_err());
    }
}
