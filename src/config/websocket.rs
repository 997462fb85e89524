//! The `websocket` block: what it says, and the rules between it and the rest, in the reference's words.

use std::collections::BTreeMap;
use std::time::Duration;

use super::blocks;
use super::decode::{self, Outcome, in_order, non_empty, string};
use super::duration::parse_duration_ns;
use super::error::{Problem, ProblemAt, Warning};
use super::lang::{Node, Value};
use super::options::{Credentials, Options, Password, Port};
use super::shape::{Checker, Entry, Shape};
use super::tls::{self, TlsOptions};
use crate::websocket::{AllowedOrigin, CookieNames, allowed_origin};

/// What the `websocket` block asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct WebSocketOptions {
    /// `listen`, `host`, `net`. The address or name to listen on.
    pub host: String,
    /// `listen`, `port`.
    pub port: Port,
    /// `advertise`. Told to clients of a cluster; only shown by the monitoring here.
    pub advertise: Option<String>,
    /// `no_tls`. It may do without TLS.
    pub no_tls: bool,
    /// `tls`.
    pub tls: Option<TlsOptions>,
    /// `same_origin`. Pages have to come from the host that they connect to.
    pub same_origin: bool,
    /// `allowed_origins` and its aliases, as written. Empty: pages may come from anywhere.
    pub allowed_origins: Vec<String>,
    /// `handshake_timeout`. Time for the handshakes; zero: see [`HANDSHAKE_TIMEOUT_DEFAULT`].
    pub handshake_timeout: Duration,
    /// `compression`, `compress`. Messages may be compressed.
    pub compression: bool,
    /// `authorization`, `authentication`. Instead of those of other clients, unless there is nothing.
    pub credentials: Credentials,
    /// `authorization.timeout`. Zero: that of other clients.
    pub auth_timeout: Duration,
    /// `no_auth_user`. Instead of that of other clients.
    pub no_auth_user: Option<String>,
    /// `jwt_cookie`. Needs operators, which are not there.
    pub jwt_cookie: Option<String>,
    /// `user_cookie`, `pass_cookie`, `token_cookie`.
    pub cookies: CookieNames,
    /// `headers`. Added to the answer to a handshake.
    pub headers: BTreeMap<String, String>,
    /// `ping_interval`. Zero: that of other clients.
    pub ping_interval: Duration,
}

/// Time for the handshakes where none is configured. The reference waits for as long as it takes.
pub const HANDSHAKE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);

/// A `websocket` block whose files have not been read.
#[derive(Debug)]
pub(super) struct Block {
    options: WebSocketOptions,
    /// `None`: there is no listener, whatever else is said.
    port: Option<Port>,
    tls: Option<tls::Block>,
}

impl Block {
    /// Takes the block apart. Problems inside of it are added to `problems`.
    pub fn decode(
        name: &str,
        node: &Node,
        problems: &mut Vec<ProblemAt>,
        warnings: &mut Vec<Warning>,
    ) -> Outcome<Block> {
        let known = problems.len();
        let mut checker = Checker { problems, warnings, wrong_types_at: None };
        checker.check(&Shape::Map(&blocks::WEBSOCKET), &Entry { name, node })?;
        let mut block = Block {
            options: WebSocketOptions {
                host: "0.0.0.0".to_owned(),
                port: Port::Random,
                advertise: None,
                no_tls: false,
                tls: None,
                same_origin: false,
                allowed_origins: Vec::new(),
                handshake_timeout: Duration::ZERO,
                compression: false,
                credentials: Credentials::None,
                auth_timeout: Duration::ZERO,
                no_auth_user: None,
                jwt_cookie: None,
                cookies: CookieNames::default(),
                headers: BTreeMap::new(),
                ping_interval: Duration::ZERO,
            },
            port: None,
            tls: None,
        };
        if problems.len() > known {
            // The server does not start with this one.
            return Ok(block);
        }
        let Value::Map(entries) = &node.value else { unreachable!("it has been checked") };
        for (name, node) in in_order(entries) {
            if let Err(problem) = block.entry(&name.to_lowercase(), node) {
                problems.push(ProblemAt { at: node.at.clone(), problem });
            }
        }
        Ok(block)
    }

    fn entry(&mut self, name: &str, node: &Node) -> Outcome {
        let options = &mut self.options;
        let text = || string(node).map(non_empty);
        match name {
            "listen" => {
                let (host, port) = decode::listen(node, decode::optional_port)?;
                if let Some(host) = host {
                    options.host = host;
                }
                self.port = port;
            }
            "port" => self.port = decode::optional_port(decode::integer(node)?)?,
            "host" | "net" => {
                if let Some(host) = text()? {
                    options.host = host;
                }
            }
            "advertise" => options.advertise = text()?,
            "no_tls" => options.no_tls = decode::boolean(node)?,
            // Its problems and warnings have been noted.
            "tls" => self.tls = Some(tls::Block::decode(node, &mut Vec::new(), &mut Vec::new())?),
            "same_origin" => options.same_origin = decode::boolean(node)?,
            "allowed_origins" | "allowed_origin" | "allow_origins" | "allow_origin" | "origins"
            | "origin" => {
                options.allowed_origins = match &node.value {
                    Value::Array(entries) => entries
                        .iter()
                        .map(|entry| string(entry).map(str::to_owned))
                        .collect::<Outcome<_>>()?,
                    _ => vec![string(node)?.to_owned()],
                };
            }
            "handshake_timeout" => options.handshake_timeout = seconds_or_duration(node)?,
            "compress" | "compression" => options.compression = decode::boolean(node)?,
            "authorization" | "authentication" => self.authorization(node)?,
            "jwt_cookie" => options.jwt_cookie = text()?,
            "user_cookie" => options.cookies.user = text()?,
            "pass_cookie" => options.cookies.pass = text()?,
            "token_cookie" => options.cookies.token = text()?,
            "no_auth_user" => options.no_auth_user = text()?,
            "headers" => {
                let Value::Map(entries) = &node.value else { return Ok(()) };
                for (name, node) in entries {
                    options.headers.insert(name.clone(), string(node)?.to_owned());
                }
            }
            "ping_interval" => options.ping_interval = seconds_or_duration(node)?,
            // A variable.
            _ => {}
        }
        Ok(())
    }

    fn authorization(&mut self, node: &Node) -> Outcome {
        let Value::Map(entries) = &node.value else { return Ok(()) };
        let (mut user, mut password, mut token) = (String::new(), String::new(), String::new());
        for (name, node) in in_order(entries) {
            match name.to_lowercase().as_str() {
                "user" | "username" => string(node)?.clone_into(&mut user),
                "pass" | "password" => string(node)?.clone_into(&mut password),
                "token" => string(node)?.clone_into(&mut token),
                "timeout" => self.options.auth_timeout = auth_timeout(node),
                _ => {}
            }
        }
        // A token comes before a name, in the reference too.
        self.options.credentials = if !token.is_empty() {
            Credentials::Token(Password::new(token))
        } else if !user.is_empty() {
            Credentials::UserPassword { user, password: Password::new(password) }
        } else {
            Credentials::None
        };
        Ok(())
    }

    /// Reads the files of `tls`; `None` if there is no port, and so nothing to read them for.
    pub fn open(
        self,
        files: &dyn super::lang::Files,
    ) -> Result<Option<WebSocketOptions>, (super::lang::Position, tls::TlsError)> {
        let mut options = self.options;
        if let Some(block) = self.tls {
            let at = block.at.clone().expect("it stands in a file");
            options.tls = Some(block.open(files).map_err(|error| (at, error))?);
        }
        let Some(port) = self.port else { return Ok(None) };
        options.port = port;
        Ok(Some(options))
    }
}

impl WebSocketOptions {
    /// The rules between it and the other options.
    pub(super) fn check(&self, options: &Options) -> Outcome {
        let invalid = |text: String| Err(Problem::WebSocket(text));
        if self.tls.is_none() && !self.no_tls {
            return invalid("websocket requires TLS configuration".to_owned());
        }
        self.origins()?;
        let mut users = options.users().map(|(_, user)| user).peekable();
        let has_users = users.peek().is_some();
        if let Some(name) = &self.no_auth_user {
            if !has_users {
                return Err(Problem::NoAuthUserAlone(name.clone()));
            }
            if !users.any(|user| user.login.name() == name) {
                return Err(Problem::NoAuthUserUnknown(name.clone()));
            }
        }
        match &self.credentials {
            Credentials::UserPassword { .. } if has_users => {
                return invalid(
                    "websocket authentication username not compatible with presence of users/nkeys"
                        .to_owned(),
                );
            }
            Credentials::Token(_) if has_users => {
                return invalid(
                    "websocket authentication token not compatible with presence of users/nkeys".to_owned(),
                );
            }
            _ => {}
        }
        if let Some(cookie) = &self.jwt_cookie {
            return invalid(format!(
                "trusted operators or trusted keys configuration is required for JWT authentication via cookie {cookie:?}"
            ));
        }
        for (name, value) in &self.headers {
            let lower = name.to_lowercase();
            if matches!(
                lower.as_str(),
                "host" | "content-length" | "connection" | "upgrade" | "nats-no-masking"
            ) {
                return invalid(format!("websocket: invalid header {name:?} not allowed"));
            }
            if lower.starts_with("sec-websocket-") {
                return invalid(format!(
                    "websocket: invalid header {name:?}, \"Sec-WebSocket-\" prefix not allowed"
                ));
            }
            // The reference writes whatever stands here into its answers.
            if name.is_empty()
                || name.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b':')
                || value.bytes().any(|byte| byte < b' ' && byte != b'\t' || byte == 0x7F)
            {
                return invalid(format!("websocket: header {name:?} is not one that can be sent"));
            }
        }
        Ok(())
    }

    /// `allowed_origins`, taken apart.
    ///
    /// # Errors
    ///
    /// One is none.
    pub fn origins(&self) -> Outcome<Vec<AllowedOrigin>> {
        let origins = self.allowed_origins.iter().map(|text| allowed_origin(text));
        origins.collect::<Result<_, _>>().map_err(|error| Problem::WebSocket(error.to_string()))
    }

    /// Whether clients log in by other rules than those that do not come by WebSocket.
    pub fn overrides_authorization(&self) -> bool {
        self.credentials != Credentials::None || self.no_auth_user.is_some()
    }
}

/// Whole seconds or a duration, which must not be negative.
fn seconds_or_duration(node: &Node) -> Outcome<Duration> {
    let ns = match &node.value {
        Value::String(text) => parse_duration_ns(text).map_err(Problem::PlainDuration)?,
        _ => decode::integer(node)?.saturating_mul(1_000_000_000),
    };
    Ok(Duration::from_nanos(ns.max(0).unsigned_abs()))
}

/// As in the reference a second if it is none; but a duration is one here.
fn auth_timeout(node: &Node) -> Duration {
    let seconds = match &node.value {
        Value::Integer(number) => *number as f64,
        Value::Float(number) => *number,
        Value::String(text) => parse_duration_ns(text).map_or(1.0, |ns| ns as f64 / 1e9),
        _ => 1.0,
    };
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)
}
