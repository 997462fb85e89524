//! The blocks of the reference that Ringmain does not act on yet, and `websocket`, as tables: which keys they have, and of
//! which shape.
//!
//! Facts only, measured on nats-server 2.15.1; `tests/config/keys.txt` holds every line of them against it. What the
//! reference finds out only when it starts (that a port is missing, that two options contradict each other) is not
//! checked here.

use super::decode::{Outcome, boolean, in_order, integer, long_timeout, shown, string, unknown, wrong_type};
use super::duration::parse_duration_ns;
use super::error::{Problem, Warning};
use super::lang::{Node, Value};
use super::permissions;
use super::shape::Shape::{Any, Bool, Checked, Duration, Integer, Listen, Map, Maps, Text, Texts};
use super::shape::{Checker, Entry, MapShape, expected, unsupported_type};
use super::tls;

/// The longest ping interval of a route.
const ROUTE_PING_INTERVAL_NS_MAX: i64 = 30_000_000_000;

pub const CLUSTER: MapShape = MapShape {
    expected: "Expected map to define cluster",
    keys: &[
        (&["name"], Checked(cluster_name)),
        (&["listen"], Listen),
        (&["port"], Integer),
        (&["host", "net"], Text),
        (&["authorization"], Checked(cluster_authorization)),
        (&["routes"], Checked(routes)),
        (&["tls"], Map(&TLS)),
        (&["cluster_advertise", "advertise"], Text),
        (&["no_advertise"], Bool),
        (&["connect_retries"], Integer),
        (&["connect_backoff"], Bool),
        (&["permissions"], Checked(cluster_permissions)),
        (&["pool_size"], Integer),
        (&["accounts"], Texts("accounts")),
        (&["compression"], Checked(compression)),
        (&["ping_interval"], Checked(route_ping_interval)),
        (&["ping_max"], Integer),
        (&["write_deadline"], Duration("")),
        (&["write_timeout"], Checked(write_timeout)),
    ],
    ..EMPTY
};

pub const GATEWAY: MapShape = MapShape {
    expected: "Expected gateway to be a map",
    keys: &[
        (&["name"], Checked(gateway_name)),
        (&["listen"], Listen),
        (&["port"], Integer),
        (&["host", "net"], Text),
        (&["authorization"], Checked(gateway_authorization)),
        (&["tls"], Map(&TLS)),
        (&["advertise"], Text),
        (&["connect_retries"], Integer),
        (&["connect_backoff"], Bool),
        (&["gateways"], Checked(gateways)),
        (&["reject_unknown", "reject_unknown_cluster"], Bool),
        (&["write_deadline"], Duration("")),
        (&["write_timeout"], Checked(write_timeout)),
    ],
    ..EMPTY
};

const GATEWAYS: MapShape = MapShape {
    expected_element: "Expected gateway entry to be a map/struct",
    keys: &[
        (&["name"], Text),
        (&["tls"], Map(&TLS)),
        (&["url"], Checked(gateway_url)),
        (&["urls"], Checked(gateway_urls)),
    ],
    ..EMPTY
};

pub const LEAFNODES: MapShape = MapShape {
    expected: "Expected map to define a leafnode",
    keys: &[
        (&["listen"], Listen),
        (&["port"], Integer),
        (&["host", "net"], Text),
        (&["authorization"], Checked(leaf_authorization)),
        (&["remotes"], Checked(leaf_remotes)),
        (&["reconnect", "reconnect_delay", "reconnect_interval"], Duration("reconnect")),
        (&["dial_timeout"], Duration("")),
        (&["tls"], Map(&TLS)),
        (&["leafnode_advertise", "advertise"], Text),
        (&["no_advertise"], Bool),
        (&["min_version", "minimum_version"], Checked(leaf_min_version)),
        (&["compression"], Checked(compression)),
        (&["isolate_leafnode_interest", "isolate"], Bool),
        (&["write_deadline"], Duration("")),
        (&["write_timeout"], Checked(write_timeout)),
    ],
    ..EMPTY
};

const LEAF_AUTHORIZATION: MapShape = MapShape {
    keys: &[
        (&["user", "username"], Text),
        (&["pass", "password"], Text),
        (&["nkey"], Checked(leaf_nkey)),
        (&["timeout"], Checked(leaf_timeout)),
        (&["users"], Maps(&LEAF_USERS)),
        (&["account"], Text),
        (&["proxy_required"], Bool),
    ],
    ..EMPTY
};

const LEAF_USERS: MapShape = MapShape {
    expected: "Expected users field to be an array",
    expected_element: "Expected user entry to be a map/struct",
    keys: &[
        (&["user", "username"], Text),
        (&["pass", "password"], Text),
        (&["account"], Text),
        (&["proxy_required"], Bool),
    ],
    ..EMPTY
};

const LEAF_REMOTES: MapShape = MapShape {
    expected_element: "Expected remote leafnode entry to be a map/struct",
    keys: &[
        (&["no_randomize", "dont_randomize"], Bool),
        (&["url", "urls"], Checked(leaf_urls)),
        (&["account", "local"], Text),
        (&["creds", "credentials"], Text),
        (&["nkey", "seed"], Checked(leaf_seed)),
        (&["tls"], Map(&TLS)),
        (&["hub"], Bool),
        (&["deny_imports", "deny_import"], Checked(subjects)),
        (&["deny_exports", "deny_export"], Checked(subjects)),
        (&["ws_compress", "ws_compression", "websocket_compress", "websocket_compression"], Bool),
        (&["ws_no_masking", "websocket_no_masking"], Bool),
        (&["jetstream_cluster_migrate", "js_cluster_migrate"], Checked(leaf_migrate)),
        (&["isolate_leafnode_interest", "isolate"], Bool),
        (&["request_isolation"], Bool),
        (&["compression"], Checked(compression)),
        (&["first_info_timeout"], Duration("")),
        (&["dial_timeout"], Duration("")),
        (&["disabled"], Bool),
        (&["proxy"], Checked(leaf_proxy)),
        (&["ignore_discovered_servers"], Bool),
    ],
    ..EMPTY
};

const LEAF_PROXY: MapShape = MapShape {
    expected: "Expected proxy to be a map",
    keys: &[
        (&["url"], Text),
        (&["username"], Text),
        (&["password"], Text),
        (&["timeout"], Duration("proxy timeout")),
    ],
    ..EMPTY
};

const JETSTREAM: MapShape = MapShape {
    expected: "Expected map, bool or string to define JetStream",
    keys: &[
        (&["strict"], Checked(jetstream_strict)),
        (&["store", "store_dir", "storedir"], Text),
        (&["sync", "sync_interval"], Checked(jetstream_sync)),
        (&["max_memory_store", "max_mem_store", "max_mem"], Checked(jetstream_memory)),
        (&["max_file_store", "max_file"], Checked(jetstream_file)),
        (&["domain"], Text),
        (&["enable", "enabled"], Bool),
        (&["key", "ek", "encryption_key"], Text),
        (&["prev_key", "prev_ek", "prev_encryption_key"], Text),
        (&["cipher"], Checked(cipher)),
        (&["extension_hint"], Text),
        (&["limits"], Map(&JETSTREAM_LIMITS)),
        (&["tpm"], Map(&JETSTREAM_TPM)),
        (&["unique_tag"], Text),
        (&["max_outstanding_catchup"], Checked(named_storage_size)),
        (&["max_buffered_size"], Checked(named_storage_size)),
        (&["max_buffered_msgs"], Checked(parseable_size)),
        (&["request_queue_limit"], Checked(parseable_size)),
        (&["info_queue_limit"], Checked(parseable_size)),
        (&["meta_compact"], Checked(absolute_size)),
        (&["meta_compact_size"], Checked(absolute_storage_size)),
        (&["meta_compact_sync"], Bool),
        (&["max_concurrent_io"], Checked(concurrent_io)),
    ],
    ..EMPTY
};

/// Of an account.
pub(super) const JETSTREAM_ACCOUNT: MapShape = MapShape {
    expected: "Expected map, bool or string to define JetStream",
    keys: &[
        (&["max_memory", "max_mem", "mem", "memory"], Integer),
        (&["max_store", "max_file", "max_disk", "store", "disk"], Integer),
        (&["max_streams", "streams"], Integer),
        (&["max_consumers", "consumers"], Integer),
        (&["max_bytes_required", "max_stream_bytes", "max_bytes"], Bool),
        (&["mem_max_stream_bytes", "memory_max_stream_bytes"], Integer),
        (&["disk_max_stream_bytes", "store_max_stream_bytes"], Integer),
        (&["max_ack_pending"], Integer),
        (&["cluster_traffic"], Text),
    ],
    ..EMPTY
};

const JETSTREAM_LIMITS: MapShape = MapShape {
    expected: "Expected a map to define JetStreamLimits",
    keys: &[
        (&["max_ack_pending"], Integer),
        (&["max_ha_assets"], Integer),
        (&["default_max_consumers"], Integer),
        (&["max_request_batch"], Integer),
        (&["duplicate_window"], Checked(duration_only)),
        (&["batch"], Map(&JETSTREAM_BATCH)),
    ],
    ..EMPTY
};

const JETSTREAM_BATCH: MapShape = MapShape {
    expected: "Expected a map to define batch limits",
    keys: &[
        (&["max_inflight_per_stream"], Integer),
        (&["max_inflight_total"], Integer),
        (&["max_msgs"], Integer),
        (&["timeout"], Checked(duration_only)),
    ],
    ..EMPTY
};

const JETSTREAM_TPM: MapShape = MapShape {
    expected: "Expected a map to define JetStreamLimits",
    keys: &[
        (&["keys_file"], Text),
        (&["encryption_password"], Text),
        (&["srk_password"], Text),
        (&["pcr"], Integer),
        (&["cipher"], Checked(cipher)),
    ],
    ..EMPTY
};

pub const WEBSOCKET: MapShape = MapShape {
    expected: "Expected websocket to be a map",
    keys: &[
        (&["listen"], Listen),
        (&["port"], Integer),
        (&["host", "net"], Text),
        (&["advertise"], Text),
        (&["no_tls"], Bool),
        (&["tls"], Checked(websocket_tls)),
        (&["same_origin"], Bool),
        (
            &["allowed_origins", "allowed_origin", "allow_origins", "allow_origin", "origins", "origin"],
            Texts("allowed origins"),
        ),
        (&["handshake_timeout"], Checked(handshake_timeout)),
        (&["compress", "compression"], Bool),
        (&["authorization", "authentication"], Map(&SIMPLE_AUTHORIZATION)),
        (&["jwt_cookie"], Text),
        (&["user_cookie"], Text),
        (&["pass_cookie"], Text),
        (&["token_cookie"], Text),
        (&["no_auth_user"], Text),
        (&["headers"], Checked(headers)),
        (&["ping_interval"], Duration("")),
    ],
    ..EMPTY
};

pub const MQTT: MapShape = MapShape {
    expected: "Expected mqtt to be a map",
    keys: &[
        (&["listen"], Listen),
        (&["port"], Integer),
        (&["host", "net"], Text),
        (&["tls"], Map(&TLS)),
        (&["authorization", "authentication"], Map(&SIMPLE_AUTHORIZATION)),
        (&["no_auth_user"], Text),
        (&["ack_wait", "ackwait"], Duration("ack_wait")),
        (&["js_api_timeout", "api_timeout"], Duration("js_api_timeout")),
        (&["max_ack_pending", "max_pending", "max_inflight"], Checked(mqtt_ack_pending)),
        (&["js_domain"], Text),
        (&["stream_replicas"], Integer),
        (&["consumer_replicas"], Checked(mqtt_consumer_replicas)),
        (&["consumer_memory_storage"], Bool),
        (&["consumer_inactive_threshold", "consumer_auto_cleanup"], Duration("consumer_inactive_threshold")),
        (&["reject_qos2_publish"], Bool),
        (&["downgrade_qos2_subscribe"], Bool),
    ],
    ..EMPTY
};

/// Of WebSocket and MQTT.
const SIMPLE_AUTHORIZATION: MapShape = MapShape {
    keys: &[
        (&["user", "username"], Text),
        (&["pass", "password"], Text),
        (&["token"], Text),
        // Of a wrong type it is a second.
        (&["timeout"], Any),
    ],
    ..EMPTY
};

/// Of routes and gateways. Users, tokens and callouts are for clients.
const PEER_AUTHORIZATION: MapShape = MapShape {
    keys: &[
        (&["user", "username"], Text),
        (&["pass", "password"], Text),
        (&["timeout"], Checked(peer_timeout)),
        (&["token"], Text),
        (&["users"], Any),
        (&["default_permission", "default_permissions", "permissions"], Checked(default_permissions)),
        (&["auth_callout", "auth_hook"], Any),
        (&["proxy_required"], Bool),
    ],
    ..EMPTY
};

/// Of the connections to other servers, and of MQTT. The files are not opened.
const TLS: MapShape = MapShape {
    keys: &[
        (&["cert_file"], Checked(tls_file)),
        (&["key_file"], Checked(tls_file)),
        (&["ca_file"], Checked(tls_file)),
        (&["insecure"], Checked(tls_bool)),
        (&["verify"], Checked(tls_bool)),
        (&["verify_and_map"], Checked(tls_bool)),
        (&["verify_cert_and_check_known_urls"], Checked(tls_bool)),
        (&["allow_insecure_cipher_suites"], Checked(tls_bool)),
        (&["cipher_suites"], Any),
        (&["curve_preferences"], Any),
        (&["timeout"], Any),
        (&["connection_rate_limit"], Any),
        (&["pinned_certs"], Any),
        (&["cert_store", "cert_match_by", "cert_match", "ca_certs_match", "cert_match_skip_invalid"], Any),
        (&["handshake_first", "first", "immediate"], Any),
        (&["ocsp_peer"], Any),
        (&["certs", "certificates"], Any),
        (&["min_version"], Any),
    ],
    unknown: |name, _| Err(Problem::UnknownTlsField(name.to_owned())),
    ..EMPTY
};

const OCSP: MapShape = MapShape {
    keys: &[(&["mode"], Checked(ocsp_mode)), (&["urls"], Checked(ocsp_urls)), (&["url"], Text)],
    // The reference prints the type of the name, which is always this.
    unknown: |_, _| Err(Problem::Unsupported { context: "ocsp config", what: "field string".to_owned() }),
    ..EMPTY
};

const EMPTY: MapShape = MapShape { expected: "", expected_element: "", keys: &[], unknown };

fn cluster_name(_: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    without_spaces(entry, "cluster name cannot contain spaces")
}

fn gateway_name(_: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    without_spaces(entry, "gateway name cannot contain spaces")
}

fn without_spaces(entry: &Entry<'_>, text: &'static str) -> Outcome {
    if string(entry.node)?.contains(' ') { Err(Problem::NotHere(text)) } else { Ok(()) }
}

fn cluster_authorization(checker: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    peer_authorization(
        checker,
        entry,
        [
            "Cluster authorization does not allow multiple users",
            "Cluster authorization does not support tokens",
            "Cluster authorization does not support callouts",
        ],
    )?;
    let Value::Map(entries) = &entry.node.value else { return Ok(()) };
    let keys = ["default_permission", "default_permissions", "permissions"];
    if entries.keys().any(|name| keys.contains(&name.to_lowercase().as_str())) {
        checker.misuse(entry, "setting \"permissions\" within cluster authorization block is deprecated");
    }
    Ok(())
}

fn gateway_authorization(checker: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    peer_authorization(
        checker,
        entry,
        [
            "Gateway authorization does not allow multiple users",
            "Gateway authorization does not support tokens",
            "Gateway authorization does not support callouts",
        ],
    )
}

fn peer_authorization(
    checker: &mut Checker<'_>,
    entry: &Entry<'_>,
    [users, token, callout]: [&'static str; 3],
) -> Outcome {
    checker.map(&PEER_AUTHORIZATION, entry.node)?;
    let Value::Map(entries) = &entry.node.value else { return Ok(()) };
    let has = |names: &[&str]| entries.keys().any(|name| names.contains(&name.to_lowercase().as_str()));
    if has(&["users"]) {
        return Err(Problem::NotHere(users));
    }
    if has(&["token"]) {
        return Err(Problem::NotHere(token));
    }
    if has(&["auth_callout", "auth_hook"]) {
        return Err(Problem::NotHere(callout));
    }
    Ok(())
}

fn peer_timeout(checker: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    timeout(checker, entry, "authorization")
}

fn leaf_timeout(checker: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    timeout(checker, entry, "leafnode authorization")
}

/// Seconds, whole or not, or a duration; with a warning where it is long.
fn timeout(checker: &mut Checker<'_>, entry: &Entry<'_>, context: &'static str) -> Outcome {
    let seconds = match &entry.node.value {
        Value::Integer(number) => *number as f64,
        Value::Float(number) => *number,
        Value::String(text) => match parse_duration_ns(text) {
            Ok(ns) => ns as f64 / 1e9,
            Err(source) => return Err(Problem::PeerTimeout { context, reason: source.to_string() }),
        },
        _ => return Err(Problem::PeerTimeout { context, reason: "wrong type".to_owned() }),
    };
    if let Some(reason) = long_timeout(seconds, &entry.node.value) {
        checker.misuse(entry, reason);
    }
    Ok(())
}

/// Of routes, which know no queue groups and no responses.
fn cluster_permissions(checker: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    let read = permissions::permissions(entry.node, checker.problems)?;
    if read.responses.is_some() {
        return Err(Problem::NotHere("Cluster permissions do not support dynamic responses"));
    }
    for (list, entries) in [("allow", &read.subscribe_allow), ("deny", &read.subscribe_deny)] {
        if let Some(entry) = entries.iter().find(|entry| entry.queue.is_some()) {
            return Err(Problem::ClusterExport { list, subject: entry.to_string() });
        }
    }
    Ok(())
}

fn default_permissions(checker: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    permissions::permissions(entry.node, checker.problems).map(drop)
}

/// A subject, or an array of them.
fn subjects(_: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    permissions::subjects(entry.node, permissions::subject_alone).map(drop)
}

fn routes(checker: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    urls(checker, entry, "route")
}

fn gateway_urls(checker: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    urls(checker, entry, "gateway")
}

fn gateway_url(_: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    url(string(entry.node)?, "gateway")
}

fn leaf_urls(checker: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    match &entry.node.value {
        Value::String(text) => url(text, "leafnode"),
        Value::Array(_) => urls(checker, entry, "leafnode"),
        other => Err(expected("Expected remote leafnode url to be an array or string", shown(other))),
    }
}

fn urls(checker: &mut Checker<'_>, entry: &Entry<'_>, kind: &'static str) -> Outcome {
    let Value::Array(elements) = &entry.node.value else {
        return Err(wrong_type(entry.node, "[]interface {}"));
    };
    let mut seen: Vec<&str> = Vec::new();
    for element in elements {
        let result = string(element).and_then(|text| {
            if seen.contains(&text) {
                checker
                    .misuse(&Entry { name: text, node: element }, format!("Duplicate {kind} entry detected"));
                return Ok(());
            }
            seen.push(text);
            url(text, kind)
        });
        checker.note(&element.at, result);
    }
    Ok(())
}

/// The mistakes that Go finds in a URL, as far as they occur in addresses of servers.
fn url(text: &str, kind: &'static str) -> Outcome {
    let trimmed = text.trim();
    let invalid = || Problem::Url { kind, text: trimmed.to_owned() };
    if trimmed.chars().any(|c| c.is_ascii_control()) {
        return Err(invalid());
    }
    let Some((scheme, rest)) = trimmed.split_once("://") else {
        // Without a scheme, the first segment of a path must not look like one.
        let segment = trimmed.split('/').next().unwrap_or_default();
        return if segment.contains(':') && !is_scheme(segment.split(':').next().unwrap_or_default()) {
            Err(invalid())
        } else {
            Ok(())
        };
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let port = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').ok_or_else(invalid)?.1,
        None => host.rfind(':').map_or("", |at| &host[at..]),
    };
    let is_port = port.is_empty()
        || port.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    if !is_scheme(scheme) || !is_port || host.contains([' ', '"', '<', '>', '\\', '^', '`', '{', '|', '}']) {
        return Err(invalid());
    }
    Ok(())
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

fn route_ping_interval(checker: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    let ns = checker.duration_or_seconds("ping_interval", entry.node)?;
    if ns > ROUTE_PING_INTERVAL_NS_MAX {
        checker.warnings.push(Warning::Advice {
            at: entry.node.at.clone(),
            advice: "Cluster 'ping_interval' will reset to 30s which is the max for routes",
        });
    }
    Ok(())
}

pub(super) fn write_timeout(_: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    match string(entry.node)? {
        "default" | "close" | "retry" => Ok(()),
        _ => Err(Problem::NotHere("write_timeout must be 'default', 'close' or 'retry'")),
    }
}

fn compression(checker: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    let entries = match &entry.node.value {
        // Which words there are is checked when a server starts.
        Value::String(_) | Value::Bool(_) => return Ok(()),
        Value::Map(entries) => entries,
        other => {
            let wanted = format!("field {:?} should be a boolean or a structure", entry.name);
            return Err(Problem::Expected { wanted, found: other.type_name().to_owned() });
        }
    };
    for (name, node) in in_order(entries) {
        let result = match name.to_lowercase().as_str() {
            "mode" => string(node).map(drop),
            "rtt_thresholds" | "thresholds" | "rtts" | "rtt" => match &node.value {
                Value::Array(elements) => {
                    for element in elements {
                        let result = duration_only(checker, &Entry { name, node: element });
                        // The reference says the place of the list.
                        let is_wrong_type = matches!(result, Err(Problem::WrongType { .. }));
                        checker.note(if is_wrong_type { &element.at } else { &node.at }, result);
                    }
                    Ok(())
                }
                _ => Err(wrong_type(node, "[]interface {}")),
            },
            _ => unknown(name, node),
        };
        checker.note(&node.at, result);
    }
    Ok(())
}

fn gateways(checker: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    match &entry.node.value {
        Value::Array(_) => checker.check(&Maps(&GATEWAYS), entry),
        other => Err(expected("Expected gateways field to be an array", other.type_name())),
    }
}

fn leaf_remotes(checker: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    match &entry.node.value {
        Value::Array(remotes) => {
            checker.check(&Maps(&LEAF_REMOTES), entry)?;
            remotes.iter().for_each(|remote| leaf_proxy_use(checker, remote));
            Ok(())
        }
        other => Err(expected("Expected remotes field to be an array", other.type_name())),
    }
}

fn leaf_proxy(checker: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    checker.map(&LEAF_PROXY, entry.node)?;
    let Value::Map(entries) = &entry.node.value else { return Ok(()) };
    let text = |key: &str| match entries.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)) {
        Some((_, Node { value: Value::String(text), .. })) => text.as_str(),
        _ => "",
    };
    let url = text("url");
    let has_timeout = entries.keys().any(|name| name.eq_ignore_ascii_case("timeout"));
    if url.is_empty() {
        if has_timeout || !text("username").is_empty() || !text("password").is_empty() {
            return Err(Problem::NotHere("proxy URL must be specified when other proxy options are set"));
        }
        return Ok(());
    }
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    if !matches!(scheme, "http" | "https") {
        return Err(Problem::LeafProxyScheme(scheme.to_owned()));
    }
    if rest.split('/').next().unwrap_or_default().is_empty() {
        return Err(Problem::NotHere("proxy URL must specify a host"));
    }
    if parse_duration_ns(text("timeout")).is_ok_and(|ns| ns < 0) {
        return Err(Problem::NotHere("proxy timeout must be >= 0"));
    }
    if text("username").is_empty() != text("password").is_empty() {
        return Err(Problem::NotHere("proxy username and password must both be specified or both be empty"));
    }
    Ok(())
}

/// A proxy does not get at a TLS endpoint without TLS.
fn leaf_proxy_use(checker: &mut Checker<'_>, remote: &Node) {
    let Value::Map(entries) = &remote.value else { return };
    let find = |keys: &[&str]| {
        entries.iter().find(|(name, _)| keys.contains(&name.to_lowercase().as_str())).map(|(_, node)| node)
    };
    let urls = match find(&["url", "urls"]).map(|node| &node.value) {
        Some(Value::String(text)) => vec![text.as_str()],
        Some(Value::Array(elements)) => elements.iter().filter_map(|element| string(element).ok()).collect(),
        _ => return,
    };
    let (Some(proxy), None) = (find(&["proxy"]), find(&["tls"])) else { return };
    if let Some(url) = urls.iter().find(|url| url.starts_with("wss://")) {
        checker.note(&proxy.at, Err(Problem::LeafProxyTls((*url).to_owned())));
    }
}

fn leaf_authorization(checker: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    checker.map(&LEAF_AUTHORIZATION, entry.node)?;
    let Value::Map(entries) = &entry.node.value else { return Ok(()) };
    let find = |names: &[&str]| {
        entries.iter().find(|(name, _)| names.contains(&name.to_lowercase().as_str())).map(|(_, node)| node)
    };
    let is_text = |node: &&Node| matches!(&node.value, Value::String(text) if !text.is_empty());
    let Some(Value::Array(users)) = find(&["users"]).map(|node| &node.value) else { return Ok(()) };
    if users.is_empty() {
        return Ok(());
    }
    if find(&["user", "username"]).filter(is_text).is_some() {
        return Err(Problem::NotHere("can not have a single user/pass and a users array"));
    }
    if find(&["nkey"]).filter(is_text).is_some() {
        return Err(Problem::NotHere("can not have a single nkey and a users array"));
    }
    let mut names: Vec<&str> = Vec::new();
    for user in users {
        let Value::Map(user) = &user.value else { continue };
        let name = user.iter().find(|(key, _)| matches!(key.to_lowercase().as_str(), "user" | "username"));
        let name = match name.map(|(_, node)| &node.value) {
            Some(Value::String(name)) => name.as_str(),
            _ => "",
        };
        if names.contains(&name) {
            return Err(Problem::DuplicateLeafUser(name.to_owned()));
        }
        names.push(name);
    }
    Ok(())
}

pub(super) fn account_nkey(_: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    let text = string(entry.node)?;
    match nkeys::KeyPair::from_public_key(text) {
        Ok(key) if matches!(key.key_pair_type(), nkeys::KeyPairType::Account) => Ok(()),
        _ => Err(Problem::AccountNkey(text.to_owned())),
    }
}

fn leaf_nkey(_: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    let key = nkeys::KeyPair::from_public_key(string(entry.node)?);
    match key {
        Ok(key) if matches!(key.key_pair_type(), nkeys::KeyPairType::User) => Ok(()),
        _ => Err(Problem::NotHere("Not a valid public nkey for leafnode authorization")),
    }
}

fn leaf_seed(_: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    let text = string(entry.node)?;
    match nkeys::KeyPair::from_seed(text) {
        Ok(key) if matches!(key.key_pair_type(), nkeys::KeyPairType::User) => Ok(()),
        _ => Err(Problem::LeafSeed(text.to_owned())),
    }
}

fn leaf_migrate(checker: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    match &entry.node.value {
        Value::Bool(_) => Ok(()),
        Value::Map(entries) => match entries.get("leader_migrate_delay") {
            Some(delay) => checker.duration_or_seconds("leader_migrate_delay", delay).map(drop),
            None => Ok(()),
        },
        other => Err(expected("Expected boolean or map for jetstream_cluster_migrate", other.type_name())),
    }
}

fn leaf_min_version(_: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    let text = string(entry.node)?;
    let numbers = text.trim_start_matches('v').split(['-', '+']).next().unwrap_or_default().split('.');
    let numbers: Vec<Option<u64>> = numbers.map(|number| number.parse().ok()).collect();
    match numbers[..] {
        [Some(major), Some(minor), Some(_)] if (major, minor) >= (2, 8) => Ok(()),
        [Some(_), Some(_), Some(_)] => Err(Problem::NotHere("the minimum version should be at least 2.8.0")),
        _ => Err(Problem::LeafMinVersion),
    }
}

/// A word, a truth, or a map.
pub(super) fn jetstream(checker: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    match &entry.node.value {
        Value::Bool(_) => Ok(()),
        Value::String(text) => match text.to_lowercase().as_str() {
            "enabled" | "enable" | "disabled" | "disable" => Ok(()),
            _ => Err(expected("Expected 'enabled' or 'disabled' for string value", format!("'{text}'"))),
        },
        _ => {
            checker.wrong_types_at = Some(entry.node.at.clone());
            let result = checker.map(&JETSTREAM, entry.node);
            checker.wrong_types_at = None;
            result
        }
    }
}

fn jetstream_strict(_: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    match &entry.node.value {
        Value::Bool(_) => Ok(()),
        other => Err(expected("Expected 'true' or 'false' for bool value", format!("'{}'", shown(other)))),
    }
}

fn jetstream_sync(checker: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    match &entry.node.value {
        Value::String(text) if text.eq_ignore_ascii_case("always") => Ok(()),
        _ => checker.duration_or_seconds(entry.name, entry.node).map(drop),
    }
}

fn jetstream_memory(_: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    storage_size("max_mem_store", entry.node).map(drop)
}

fn jetstream_file(_: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    storage_size("max_file_store", entry.node).map(drop)
}

fn named_storage_size(_: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    storage_size(&entry.name.to_lowercase(), entry.node).map(drop)
}

/// Bytes: an integer, or a string with one of four letters at its end.
pub(super) fn storage_size(name: &str, node: &Node) -> Outcome<i64> {
    let problem = |reason: String| Problem::StorageSize { field: name.to_owned(), reason };
    let text = match &node.value {
        Value::Integer(number) => return Ok(*number),
        Value::String(text) if text.is_empty() => return Ok(0),
        Value::String(text) => text,
        _ => return Err(problem("must be int64 or string".to_owned())),
    };
    let last = text.chars().next_back().map_or(0, char::len_utf8);
    let (digits, suffix) = text.split_at(text.len() - last);
    let number: i64 = digits
        .parse()
        .map_err(|_| problem(format!("strconv.ParseInt: parsing {digits:?}: invalid syntax")))?;
    let shift = match suffix {
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(problem("sizes defined as strings must end in K, M, G, T".to_owned())),
    };
    number.checked_mul(1 << shift).ok_or_else(|| Problem::TooBig(name.to_owned()))
}

fn parseable_size(_: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    number_where(entry, "Expected a parseable size", "", |_| true)
}

fn absolute_size(_: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    number_where(entry, "Expected an absolute size", "", |number| number >= 0)
}

fn concurrent_io(_: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    let range = 4..=8192;
    number_where(entry, "Expected an absolute size", " between 4 and 8192", |number| range.contains(&number))
}

fn absolute_storage_size(_: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    match storage_size(&entry.name.to_lowercase(), entry.node)? {
        ..0 => number_where(entry, "Expected an absolute size", "", |_| false),
        _ => Ok(()),
    }
}

fn number_where(entry: &Entry<'_>, wanted: &str, range: &str, accept: impl FnOnce(i64) -> bool) -> Outcome {
    match entry.node.value {
        Value::Integer(number) if accept(number) => Ok(()),
        ref other => Err(Problem::Expected {
            wanted: format!("{wanted} for {:?}{range}", entry.name),
            found: shown(other),
        }),
    }
}

fn cipher(_: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    let text = string(entry.node)?;
    match text.to_lowercase().as_str() {
        "chacha" | "chachapoly" | "aes" => Ok(()),
        _ => Err(Problem::Cipher(text.to_owned())),
    }
}

fn duration_only(_: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    parse_duration_ns(string(entry.node)?).map(drop).map_err(Problem::PlainDuration)
}

fn handshake_timeout(_: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    match &entry.node.value {
        Value::Integer(_) => Ok(()),
        Value::String(text) => parse_duration_ns(text).map(drop).map_err(Problem::PlainDuration),
        other => Err(unsupported_type("handshake timeout", other)),
    }
}

fn websocket_tls(checker: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    tls::Block::decode(entry.node, checker.problems, checker.warnings).map(drop)
}

fn headers(checker: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    let Value::Map(entries) = &entry.node.value else {
        return Err(unsupported_type("headers", &entry.node.value));
    };
    for (name, node) in in_order(entries) {
        let result = match &node.value {
            Value::String(_) => Ok(()),
            other => Err(Problem::Header { name: name.clone(), found: other.type_name() }),
        };
        checker.note(&node.at, result);
    }
    Ok(())
}

fn mqtt_ack_pending(_: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    let number = integer(entry.node)?;
    if u16::try_from(number).is_ok() { Ok(()) } else { Err(Problem::MqttAckPending(number)) }
}

fn mqtt_consumer_replicas(checker: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    checker.misuse(entry, "consumer replicas setting ignored in this server version");
    Ok(())
}

fn tls_file(_: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    tls_type(entry, "filename", matches!(entry.node.value, Value::String(_)))
}

fn tls_bool(_: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    tls_type(entry, "a boolean", boolean(entry.node).is_ok())
}

fn tls_type(entry: &Entry<'_>, wanted: &'static str, is_right: bool) -> Outcome {
    let field = entry.name.to_lowercase();
    if is_right { Ok(()) } else { Err(Problem::TlsType { field, wanted }) }
}

/// A truth, or a map.
pub(super) fn ocsp(checker: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    match &entry.node.value {
        Value::Bool(_) => Ok(()),
        Value::Map(_) => {
            checker.wrong_types_at = Some(entry.node.at.clone());
            let result = checker.map(&OCSP, entry.node);
            checker.wrong_types_at = None;
            result
        }
        other => Err(unsupported_type("ocsp config", other)),
    }
}

fn ocsp_mode(_: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    match string(entry.node)?.to_lowercase().as_str() {
        "always" | "must" | "never" | "auto" => Ok(()),
        // The reference prints the type of the mode.
        _ => Err(Problem::Unsupported { context: "ocsp config", what: "ocsp mode string".to_owned() }),
    }
}

/// The reference expects a type here that no value of its language has.
fn ocsp_urls(_: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    Err(wrong_type(entry.node, "[]string"))
}

pub(super) fn ocsp_cache(checker: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    let entries = match &entry.node.value {
        Value::Bool(_) => return Ok(()),
        Value::Map(entries) => entries,
        other => return Err(unsupported_type("tags", other)),
    };
    for (name, node) in in_order(entries) {
        let field = |condition: bool| {
            let name = name.clone();
            if condition { Ok(()) } else { Err(Problem::OcspCacheField(name)) }
        };
        let result = match (name.to_lowercase().as_str(), &node.value) {
            ("type", Value::String(text)) => match text.to_lowercase().as_str() {
                "local" | "none" => Ok(()),
                _ => Err(Problem::OcspCacheType(text.clone())),
            },
            ("local_store", value) => field(matches!(value, Value::String(_))),
            ("preserve_revoked", value) => field(matches!(value, Value::Bool(_))),
            ("save_interval", Value::Integer(_) | Value::Float(_)) => Ok(()),
            ("save_interval", Value::String(text)) => {
                parse_duration_ns(text).map(drop).map_err(Problem::OcspCacheInterval)
            }
            ("save_interval", _) => Err(Problem::OcspCacheIntervalType),
            _ => field(false),
        };
        checker.note(&node.at, result);
    }
    Ok(())
}

pub(super) fn server_tags(_: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    match &entry.node.value {
        Value::String(_) => Ok(()),
        Value::Array(elements) => {
            if elements.iter().all(|element| matches!(element.value, Value::String(_))) {
                return Ok(());
            }
            // The type that the reference names is that of its own token.
            let what = "type *conf.token where string is expected".to_owned();
            Err(Problem::Unsupported { context: "tags", what })
        }
        other => Err(unsupported_type("tags", other)),
    }
}

pub(super) fn server_metadata(checker: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    let Value::Map(entries) = &entry.node.value else {
        return Err(unsupported_type("metadata", &entry.node.value));
    };
    for (_, node) in in_order(entries) {
        let result = string(node).map(drop);
        checker.note(&node.at, result);
    }
    Ok(())
}

pub(super) fn feature_flags(checker: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    let Value::Map(entries) = &entry.node.value else {
        return Err(unsupported_type("feature flags", &entry.node.value));
    };
    for (name, node) in in_order(entries) {
        let result = match &node.value {
            Value::Bool(_) => Ok(()),
            other => Err(Problem::FeatureFlag { name: name.clone(), found: other.type_name() }),
        };
        checker.note(&node.at, result);
    }
    Ok(())
}

pub(super) fn default_js_domain(checker: &mut Checker<'_>, entry: &Entry<'_>) -> Outcome {
    let Value::Map(entries) = &entry.node.value else {
        return Err(Problem::JsDomain(entry.node.value.type_name()));
    };
    checker.wrong_types_at = Some(entry.node.at.clone());
    for (_, node) in in_order(entries) {
        let result = string(node).map(drop);
        checker.note(&node.at, result);
    }
    checker.wrong_types_at = None;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_case_and_stand_once() {
        for shape in [&CLUSTER, &GATEWAY, &LEAFNODES, &LEAF_REMOTES, &JETSTREAM, &WEBSOCKET, &MQTT, &TLS] {
            let names: Vec<&str> = shape.keys.iter().flat_map(|(names, _)| names.iter().copied()).collect();
            for (index, name) in names.iter().enumerate() {
                assert_eq!(name.to_lowercase(), *name);
                assert!(!names[index + 1..].contains(name), "{name} stands twice");
            }
        }
    }

    #[test]
    fn urls_are_refused_where_go_refuses_them() {
        for good in [
            "nats://a:4222",
            "a",
            "nats://u:p@[::1]:4222",
            "nats-leaf://a",
            "a:1",
            " tls://a ",
            "nats://a/x:y",
        ] {
            assert_eq!(url(good, "route"), Ok(()), "{good}");
        }
        for bad in
            ["nats://a:x", "nats://a:-1", "1a:1", ":4222", "nats://[::1", "1://a", "nats://a b", "a\tb"]
        {
            assert!(url(bad, "route").is_err(), "{bad}");
        }
    }
}
