//! Every option of the reference by name, and what Ringmain does with it today.
//!
//! A key that is in no table is a mistake of the operator (`unknown field`). A key that is here and has no
//! implementation yet is reported, never ignored: with a warning where the server merely does less, with a refusal to
//! start where it would guard less than the file asks for. When a feature arrives, its line here changes and the
//! decoder gets its field.

use super::blocks;
use super::shape::Shape;

/// What happens when a key is present.
#[derive(Debug, Clone, Copy)]
pub enum Status {
    /// Read into a field of `Options`.
    Supported,
    /// Its type is checked and nothing else: it tunes something that this server does not have or need.
    NoEffect(Shape),
    /// Checked, and reported in `Options::not_supported`.
    NotYet(Shape),
    /// An error at start: running without it would be less secure than asked.
    Refused,
}

/// Looks a name up, in lower case.
pub fn status(table: &[(&str, Status)], name: &str) -> Option<Status> {
    table.iter().find(|(known, _)| *known == name).map(|(_, status)| *status)
}

use Shape::{Any, Bool, Checked, Integer, Map};
use Status::{NoEffect, NotYet, Refused, Supported};

/// The options at the top level of a file.
pub const TOP: &[(&str, Status)] = &[
    ("listen", Supported),
    ("host", Supported),
    ("net", Supported),
    ("port", Supported),
    ("client_advertise", Supported),
    ("server_name", Supported),
    ("server_tags", Supported),
    ("server_metadata", Supported),
    ("debug", Supported),
    ("trace", Supported),
    ("trace_verbose", Supported),
    ("trace_headers", Supported),
    ("logtime", Supported),
    ("logtime_utc", Supported),
    ("log_file", Supported),
    ("logfile", Supported),
    ("syslog", Supported),
    ("remote_syslog", Supported),
    ("log_size_limit", Supported),
    ("logfile_size_limit", Supported),
    ("log_max_num", Supported),
    ("logfile_max_num", Supported),
    ("pid_file", Supported),
    ("pidfile", Supported),
    ("ports_file_dir", Supported),
    ("max_traced_msg_len", Supported),
    ("tls", Supported),
    ("allow_non_tls", Supported),
    ("max_connections", Supported),
    ("max_conn", Supported),
    ("max_subscriptions", Supported),
    ("max_subs", Supported),
    ("max_subscription_tokens", Supported),
    ("max_sub_tokens", Supported),
    ("max_control_line", Supported),
    ("max_payload", Supported),
    ("max_pending", Supported),
    ("ping_interval", Supported),
    ("ping_max", Supported),
    ("write_deadline", Supported),
    ("http", Supported),
    ("http_port", Supported),
    ("monitor_port", Supported),
    ("https", Supported),
    ("https_port", Supported),
    ("http_base_path", Supported),
    ("max_closed_clients", Supported),
    ("no_header_support", Supported),
    ("no_fast_producer_stall", Supported),
    ("lame_duck_duration", Supported),
    ("lame_duck_grace_period", Supported),
    ("authorization", Supported),
    ("no_auth_user", Supported),
    ("accounts", Supported),
    ("system_account", Supported),
    ("system", Supported),
    ("no_system_account", Supported),
    ("no_system", Supported),
    ("no_sys_acc", Supported),
    ("workers", Supported),
    ("io", Supported),
    ("monitor", Supported),
    // The subscription cache of the reference has no counterpart that could be wrong.
    ("disable_sublist_cache", NoEffect(Bool)),
    ("no_sublist_cache", NoEffect(Bool)),
    // How often failed connections to other servers are logged: there are none.
    ("connect_error_reports", NoEffect(Integer)),
    ("reconnect_error_reports", NoEffect(Integer)),
    // Go's profiler.
    ("prof_block_rate", NoEffect(Integer)),
    ("prof_port", NotYet(Integer)),
    ("feature_flags", NotYet(Checked(blocks::feature_flags))),
    ("write_timeout", NotYet(Checked(blocks::write_timeout))),
    ("mappings", Supported),
    ("maps", Supported),
    ("ocsp", NotYet(Checked(blocks::ocsp))),
    ("ocsp_cache", NotYet(Checked(blocks::ocsp_cache))),
    ("proxy_protocol", NotYet(Bool)),
    ("cluster", Supported),
    ("gateway", NotYet(Map(&blocks::GATEWAY))),
    ("leafnodes", NotYet(Map(&blocks::LEAFNODES))),
    ("leaf", NotYet(Map(&blocks::LEAFNODES))),
    ("jetstream", Supported),
    ("websocket", Supported),
    ("ws", Supported),
    ("mqtt", NotYet(Map(&blocks::MQTT))),
    ("store_dir", Supported),
    ("storedir", Supported),
    ("default_js_domain", NotYet(Checked(blocks::default_js_domain))),
    ("operator", Refused),
    ("operators", Refused),
    ("root", Refused),
    ("roots", Refused),
    ("root_operator", Refused),
    ("root_operators", Refused),
    ("trusted", Refused),
    ("trusted_keys", Refused),
    ("resolver", Refused),
    ("account_resolver", Refused),
    ("accounts_resolver", Refused),
    ("resolver_tls", Refused),
    ("resolver_preload", Refused),
    ("resolver_pinned_accounts", Refused),
    ("default_sentinel", Refused),
    ("proxies", Refused),
];

/// The options of the `authorization` map.
pub const AUTHORIZATION: &[(&str, Status)] = &[
    ("user", Supported),
    ("username", Supported),
    ("pass", Supported),
    ("password", Supported),
    ("token", Supported),
    ("timeout", Supported),
    ("users", Supported),
    ("default_permissions", Supported),
    ("default_permission", Supported),
    ("permissions", Supported),
    ("auth_callout", Refused),
    ("auth_hook", Refused),
    ("proxy_required", Refused),
];

/// The options of the `monitor` map, which is Ringmain's own.
pub const MONITOR: &[(&str, Status)] = &[("authorization", Supported), ("verify", Supported)];

/// The options of `monitor.authorization`.
pub const MONITOR_AUTHORIZATION: &[(&str, Status)] = &[
    ("user", Supported),
    ("username", Supported),
    ("pass", Supported),
    ("password", Supported),
    ("token", Supported),
    ("healthz", Supported),
];

/// The options of an entry in `authorization.users`.
pub const USER: &[(&str, Status)] = &[
    ("user", Supported),
    ("username", Supported),
    ("pass", Supported),
    ("password", Supported),
    ("nkey", Supported),
    ("allowed_connection_types", Supported),
    ("connection_types", Supported),
    ("clients", Supported),
    ("permissions", Supported),
    ("permission", Supported),
    ("authorization", Supported),
    ("proxy_required", Refused),
];

/// The options of an account.
pub const ACCOUNT: &[(&str, Status)] = &[
    ("users", Supported),
    ("limits", Supported),
    ("default_permissions", Supported),
    // Names the account in tokens of imports.
    ("nkey", NoEffect(Checked(blocks::account_nkey))),
    ("jetstream", Supported),
    ("mappings", Supported),
    ("maps", Supported),
    ("exports", Supported),
    ("imports", Supported),
    ("trace_dest", NotYet(Any)),
    ("msg_trace", NotYet(Any)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_case_and_stand_once() {
        for table in [TOP, AUTHORIZATION, USER, ACCOUNT, MONITOR, MONITOR_AUTHORIZATION] {
            for (index, (name, _)) in table.iter().enumerate() {
                assert_eq!(name.to_lowercase(), *name);
                assert!(table[index + 1..].iter().all(|(other, _)| other != name), "{name} stands twice");
            }
        }
    }
}
