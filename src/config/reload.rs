//! What a reload changes: the running options and those of the file read again, compared before anything is done.
//!
//! [`compare`] refuses the whole reload when one option differs that cannot change while the server runs; the server
//! then goes on as it was. Which options those are, the order of the fields and the texts are the reference's
//! (measured on 2.15.1); `workers` and `io` are Ringmain's own, and so is that the size and the number of log files may
//! change. `RELOADS` is the table that `docs/configuration.md` shows.

use std::fmt::Display;

use super::cluster::ClusterOptions;
use super::duration::GoDuration;
use super::options::{Account, Credentials, Login, Options, Password, Port, User};
use super::tls::{HandshakeFirst, TLS_TIMEOUT_DEFAULT, TlsOptions};
use super::websocket::WebSocketOptions;

/// Why a reload does nothing: the first option, in the reference's order, that cannot change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("config reload not supported for {field}: old={old}, new={new}")]
pub struct NotReloadable {
    /// The reference's name of the option.
    pub field: &'static str,
    /// What the server runs with.
    pub old: String,
    /// What the file says now.
    pub new: String,
}

/// Keys that a reload changes, for the documentation; the others that [`Options`] holds are refused.
pub const RELOADS: &[&str] = &[
    "accounts",
    "authorization",
    "client_advertise",
    "debug",
    "log_file",
    "log_max_num",
    "log_size_limit",
    "logtime",
    "logtime_utc",
    "mappings",
    "max_connections",
    "max_control_line",
    "max_payload",
    "max_traced_msg_len",
    "monitor",
    "no_fast_producer_stall",
    "pid_file",
    "ping_interval",
    "ping_max",
    "ports_file_dir",
    "remote_syslog",
    "server_metadata",
    "server_tags",
    "syslog",
    "tls",
    "trace",
    "trace_headers",
    "trace_verbose",
    "write_deadline",
];

/// Compares the options that the server runs with and new ones. The result has a line for the log for everything that
/// changes, in the reference's order; it is empty if nothing does.
///
/// # Errors
///
/// An option has changed that cannot.
pub fn compare(old: &Options, new: &Options) -> Result<Vec<String>, NotReloadable> {
    refuse_fixed(old, new)?;
    let mut lines = Lines(Vec::new());
    if old.client_advertise != new.client_advertise {
        // Not "Reloaded", in the reference.
        let shown = new.client_advertise.as_ref().map(ToString::to_string).unwrap_or_default();
        lines.0.push(format!("Reload: client_advertise = {shown}"));
    }
    lines.changed("trace", &old.trace, &new.trace);
    lines.changed("debug", &old.debug, &new.debug);
    lines.changed("trace_verbose", &old.trace_verbose, &new.trace_verbose);
    lines.changed("trace_headers", &old.trace_headers, &new.trace_headers);
    lines.changed("logtime", &old.logtime, &new.logtime);
    lines.changed("logtime_utc", &old.logtime_utc, &new.logtime_utc);
    if old.max_connections != new.max_connections {
        let shown = if new.max_connections == 0 { -1 } else { i64::from(new.max_connections) };
        lines.0.push(format!("Reloaded: max_connections = {shown}"));
    }
    let (before, after) = (Parts::of(old), Parts::of(new));
    for (what, changed) in [
        ("nkey users", before.keys != after.keys),
        ("users", before.users != after.users),
        ("username", before.user != after.user),
        ("password", before.password != after.password),
        ("token", before.token != after.token),
    ] {
        if changed {
            lines.0.push(format!("Reloaded: authorization {what}"));
        }
    }
    // Who the users are is told above.
    let accounts = |options: &Options| -> Vec<_> {
        let without_users = |account: &Account| Account { users: Vec::new(), ..account.clone() };
        options.accounts.iter().map(without_users).collect()
    };
    if accounts(old) != accounts(new) || old.mappings != new.mappings {
        lines.0.push("Reloaded: accounts".to_owned());
    }
    lines.changed("ping_interval", &GoDuration(old.ping_interval), &GoDuration(new.ping_interval));
    lines.changed("ping_max", &old.ping_max, &new.ping_max);
    lines.changed(
        "authorization timeout",
        &old.authorization.timeout.as_secs_f64(),
        &new.authorization.timeout.as_secs_f64(),
    );
    lines.changed("max_control_line", &old.max_control_line, &new.max_control_line);
    lines.changed("max_payload", &old.max_payload, &new.max_payload);
    if old.no_fast_producer_stall != new.no_fast_producer_stall {
        let not = if new.no_fast_producer_stall { " not" } else { "" };
        lines.0.push(format!("Reloaded: fast producers will{not} be stalled"));
    }
    lines.changed("pid_file", &path(&old.pid_file), &path(&new.pid_file));
    lines.changed("ports_file_dir", &path(&old.ports_file_dir), &path(&new.ports_file_dir));
    lines.changed("log_file", &path(&old.log_file), &path(&new.log_file));
    let size = |options: &Options| options.log_size_limit.map_or(0, std::num::NonZeroU64::get);
    lines.changed("log_size_limit", &size(old), &size(new));
    lines.changed("log_max_num", &number(old.log_max_num), &number(new.log_max_num));
    lines.changed("syslog", &old.syslog, &new.syslog);
    let remote =
        |options: &Options| options.remote_syslog.as_ref().map(ToString::to_string).unwrap_or_default();
    lines.changed("remote_syslog", &remote(old), &remote(new));
    compare_tls(old.tls.as_ref(), new.tls.as_ref(), &mut lines);
    lines.changed("write_deadline", &GoDuration(old.write_deadline), &GoDuration(new.write_deadline));
    lines.changed("max_traced_msg_len", &number(old.max_traced_msg_len), &number(new.max_traced_msg_len));
    if old.monitor_access != new.monitor_access {
        lines.0.push("Reloaded: monitor authorization".to_owned());
    }
    let (before, after) = (old.monitor_healthz_guarded, new.monitor_healthz_guarded);
    lines.changed("monitor authorization healthz", &before, &after);
    lines.changed("monitor verify", &old.monitor_verify, &new.monitor_verify);
    if old.server_tags != new.server_tags {
        lines.0.push("Reloaded: tags".to_owned());
    }
    if old.server_metadata != new.server_metadata {
        lines.0.push("Reloaded: metadata".to_owned());
    }
    Ok(lines.0)
}

fn compare_tls(old: Option<&TlsOptions>, new: Option<&TlsOptions>, lines: &mut Lines) {
    let timeout = |tls: Option<&TlsOptions>| tls.map_or(TLS_TIMEOUT_DEFAULT, |tls| tls.timeout).as_secs_f64();
    lines.changed("tls timeout", &timeout(old), &timeout(new));
    // What has a line of its own does not count.
    let rest = |tls: &TlsOptions| TlsOptions {
        timeout: TLS_TIMEOUT_DEFAULT,
        pinned: None,
        first: HandshakeFirst::No,
        ..tls.clone()
    };
    if old.map(rest) != new.map(rest) {
        lines.0.push(format!("Reloaded: tls = {}", if new.is_some() { "enabled" } else { "disabled" }));
    }
    fn pinned(tls: Option<&TlsOptions>) -> Option<&std::collections::BTreeSet<[u8; 32]>> {
        tls.and_then(|tls| tls.pinned.as_ref())
    }
    if pinned(old) != pinned(new) {
        let count = pinned(new).map_or(0, std::collections::BTreeSet::len);
        lines.0.push(format!("Reloaded: {count} pinned_certs"));
    }
    let first = |tls: Option<&TlsOptions>| tls.map_or(HandshakeFirst::No, |tls| tls.first);
    if first(old) != first(new) {
        let is_first = |first: HandshakeFirst| first != HandshakeFirst::No;
        let delay = |first: HandshakeFirst| match first {
            HandshakeFirst::Within(time) => time,
            HandshakeFirst::No | HandshakeFirst::Yes => std::time::Duration::ZERO,
        };
        let (old, new) = (first(old), first(new));
        if is_first(old) != is_first(new) {
            lines.0.push(format!("Reloaded: Client TLS handshake first: {}", is_first(new)));
        }
        if delay(old) != delay(new) {
            let delay = GoDuration(delay(new));
            lines.0.push(format!("Reloaded: Client TLS handshake first fallback delay: {delay}"));
        }
    }
}

fn refuse_fixed(old: &Options, new: &Options) -> Result<(), NotReloadable> {
    fixed("ServerName", text(&old.server_name), text(&new.server_name))?;
    fixed("Host", &old.host, &new.host)?;
    fixed("Port", old.port.as_integer(), new.port.as_integer())?;
    fixed("NoHeaderSupport", old.no_header_support, new.no_header_support)?;
    fixed("MaxSubs", number(old.max_subscriptions), number(new.max_subscriptions))?;
    let tokens = |options: &Options| options.max_subscription_tokens.map_or(0, std::num::NonZeroU8::get);
    fixed("MaxSubTokens", tokens(old), tokens(new))?;
    let name = text(&old.no_auth_user);
    // It may go together with the user.
    if new.no_auth_user.is_some() || has_user(new, name) {
        fixed("NoAuthUser", name, text(&new.no_auth_user))?;
    }
    fixed("SystemAccount", text(&old.system_account), text(&new.system_account))?;
    fixed("NoSystemAccount", old.no_system_account, new.no_system_account)?;
    let jetstream = |options: &Options| options.jetstream.is_some();
    fixed("JetStream", jetstream(old), jetstream(new))?;
    if old.jetstream != new.jetstream {
        fixed("JetStreamOptions", format!("{:?}", old.jetstream), format!("{:?}", new.jetstream))?;
    }
    fixed("StoreDir", path(&old.store_dir), path(&new.store_dir))?;
    let http_port = |options: &Options| options.http_port.map_or(0, Port::as_integer);
    fixed("HTTPHost", text(&old.http_host), text(&new.http_host))?;
    fixed("HTTPPort", http_port(old), http_port(new))?;
    fixed("HTTPBasePath", &old.http_base_path, &new.http_base_path)?;
    let https_port = |options: &Options| options.https_port.map_or(0, Port::as_integer);
    fixed("HTTPSPort", https_port(old), https_port(new))?;
    fixed("MaxPending", old.max_pending, new.max_pending)?;
    fixed("MaxClosedClients", old.max_closed_clients, new.max_closed_clients)?;
    fixed_websocket(old.websocket.as_ref(), new.websocket.as_ref())?;
    // What routes show is not for the log.
    let cluster = |options: &Options| {
        let ClusterOptions { name, host, port, routes, .. } = &options.cluster;
        let routes: Vec<String> = routes.iter().map(ToString::to_string).collect();
        format!("{} {host}:{} {routes:?}", text(name), port.map_or(0, Port::as_integer))
    };
    if old.cluster != new.cluster {
        return Err(NotReloadable { field: "Cluster", old: cluster(old), new: cluster(new) });
    }
    fixed("LameDuckDuration", GoDuration(old.lame_duck_duration), GoDuration(new.lame_duck_duration))?;
    let grace = |options: &Options| GoDuration(options.lame_duck_grace_period);
    fixed("LameDuckGracePeriod", grace(old), grace(new))?;
    fixed(
        "TLSMap",
        old.tls.as_ref().is_some_and(|tls| tls.map),
        new.tls.as_ref().is_some_and(|tls| tls.map),
    )?;
    let rate = |options: &Options| number(options.tls.as_ref().and_then(|tls| tls.connections_per_second));
    fixed("TLSRateLimit", rate(old), rate(new))?;
    fixed("AllowNonTLS", old.allow_non_tls, new.allow_non_tls)?;
    fixed("Workers", number(old.workers), number(new.workers))?;
    fixed("Io", old.io, new.io)
}

/// Of the `websocket` block only certificates, and how they are shown, can change. The reference prints all of it, passwords
/// too; here it is the first option that differs.
fn fixed_websocket(
    old: Option<&WebSocketOptions>,
    new: Option<&WebSocketOptions>,
) -> Result<(), NotReloadable> {
    fn shown(options: Option<&WebSocketOptions>) -> Vec<(&'static str, String)> {
        let Some(options) = options else { return vec![("port", "0".to_owned())] };
        let tls = options.tls.as_ref();
        let cookies = &options.cookies;
        let mut origins = options.allowed_origins.clone();
        origins.sort();
        vec![
            ("port", options.port.as_integer().to_string()),
            ("host", options.host.clone()),
            ("advertise", text(&options.advertise).to_owned()),
            ("no_auth_user", text(&options.no_auth_user).to_owned()),
            ("user_cookie", text(&cookies.user).to_owned()),
            ("pass_cookie", text(&cookies.pass).to_owned()),
            ("token_cookie", text(&cookies.token).to_owned()),
            ("authorization timeout", GoDuration(options.auth_timeout).to_string()),
            ("no_tls", options.no_tls.to_string()),
            ("tls", tls.is_some().to_string()),
            ("verify_and_map", tls.is_some_and(|tls| tls.map).to_string()),
            ("pinned_certs", format!("{:?}", tls.and_then(|tls| tls.pinned.as_ref()))),
            ("same_origin", options.same_origin.to_string()),
            ("allowed_origins", format!("{origins:?}")),
            ("compression", options.compression.to_string()),
            ("handshake_timeout", GoDuration(options.handshake_timeout).to_string()),
            ("ping_interval", GoDuration(options.ping_interval).to_string()),
            ("headers", format!("{:?}", options.headers)),
        ]
    }
    let (old_shown, new_shown) = (shown(old), shown(new));
    let differing = old_shown.into_iter().zip(new_shown).find(|(old, new)| old != new);
    if let Some(((name, old), (_, new))) = differing {
        return Err(NotReloadable {
            field: "Websocket",
            old: format!("{name}: {old}"),
            new: format!("{name}: {new}"),
        });
    }
    let credentials = |options: Option<&WebSocketOptions>| options.map(|options| options.credentials.clone());
    if credentials(old) != credentials(new) {
        let hidden = || "authorization: [REDACTED]".to_owned();
        return Err(NotReloadable { field: "Websocket", old: hidden(), new: hidden() });
    }
    Ok(())
}

fn has_user(options: &Options, name: &str) -> bool {
    options.users().any(|(_, user)| matches!(&user.login, Login::Password { user, .. } if user == name))
}

fn fixed<T: Display + PartialEq>(field: &'static str, old: T, new: T) -> Result<(), NotReloadable> {
    if old == new {
        return Ok(());
    }
    Err(NotReloadable { field, old: old.to_string(), new: new.to_string() })
}

/// The lines so far.
struct Lines(Vec<String>);

impl Lines {
    fn changed<T: Display + PartialEq>(&mut self, name: &str, old: &T, new: &T) {
        if old != new {
            self.0.push(format!("Reloaded: {name} = {new}"));
        }
    }
}

fn text(option: &Option<String>) -> &str {
    option.as_deref().unwrap_or_default()
}

fn path(option: &Option<std::path::PathBuf>) -> String {
    option.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
}

fn number(option: Option<std::num::NonZeroU32>) -> u32 {
    option.map_or(0, std::num::NonZeroU32::get)
}

/// Credentials as the four options that they come from.
#[derive(Default, PartialEq)]
struct Parts<'a> {
    user: Option<&'a str>,
    password: Option<&'a Password>,
    token: Option<&'a Password>,
    users: Vec<(&'a str, &'a User)>,
    keys: Vec<(&'a str, &'a User)>,
}

impl<'a> Parts<'a> {
    fn of(options: &'a Options) -> Parts<'a> {
        let (users, keys) =
            options.users().partition(|(_, user)| matches!(user.login, Login::Password { .. }));
        let parts = Parts { users, keys, ..Parts::default() };
        match &options.authorization.credentials {
            Credentials::None | Credentials::Users(_) => parts,
            Credentials::UserPassword { user, password } => {
                Parts { user: Some(user), password: Some(password), ..parts }
            }
            Credentials::Token(token) => Parts { token: Some(token), ..parts },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::*;
    use crate::config::Advertise;

    fn changed(change: impl FnOnce(&mut Options)) -> Result<Vec<String>, String> {
        let old = Options::default();
        let mut new = old.clone();
        change(&mut new);
        compare(&old, &new).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_changed_says_nothing() {
        assert_eq!(changed(|_| {}), Ok(vec![]));
    }

    #[test]
    fn what_changes_is_named_in_the_references_order() {
        let lines = changed(|options| {
            options.max_payload = 100;
            options.debug = true;
            options.trace = true;
            options.max_connections = 0;
            options.ping_interval = Duration::from_secs(90);
            options.client_advertise = Advertise::parse("a:1").ok();
            options.no_fast_producer_stall = true;
            options.authorization.timeout = Duration::from_millis(500);
            options.authorization.credentials =
                Credentials::UserPassword { user: "u".into(), password: Password::new("p".into()) };
        });
        assert_eq!(
            lines.unwrap(),
            [
                "Reload: client_advertise = a:1",
                "Reloaded: trace = true",
                "Reloaded: debug = true",
                "Reloaded: max_connections = -1",
                "Reloaded: authorization username",
                "Reloaded: authorization password",
                "Reloaded: ping_interval = 1m30s",
                "Reloaded: authorization timeout = 0.5",
                "Reloaded: max_payload = 100",
                "Reloaded: fast producers will not be stalled",
            ]
        );
    }

    #[test]
    fn what_cannot_change_refuses_everything() {
        let refused = changed(|options| {
            options.debug = true;
            options.max_subscriptions = NonZeroU32::new(3);
            options.server_name = Some("q".to_owned());
        });
        assert_eq!(refused.unwrap_err(), "config reload not supported for ServerName: old=, new=q");
        let refused = changed(|options| options.lame_duck_duration = Duration::from_secs(40));
        assert_eq!(
            refused.unwrap_err(),
            "config reload not supported for LameDuckDuration: old=2m0s, new=40s"
        );
    }
}
