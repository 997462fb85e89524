//! `/varz`: who the server is, what it runs with, and what it has done.
//!
//! Names, order and omissions are those of 2.15.1. Left out where the reference would have them: `git_commit`, for
//! Ringmain does not know it. `ringmain`, our own version, stands last.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::answer::Answer;
use super::clock::{Timestamp, uptime};
use super::jetstream::{self, JetStreamReading};
use super::readings::{RequestCounts, Snapshot};
use crate::auth::certificate::not_after;
use crate::config::{Port, TLS_TIMEOUT_DEFAULT, TlsOptions, WebSocketOptions};
use crate::wire::info::{GO_VERSION, PROTOCOL, REFERENCE_VERSION, RINGMAIN_VERSION};

/// The answer to `/varz`.
pub fn answer(snapshot: &Snapshot<'_>, reading: Option<&JetStreamReading>) -> Answer {
    Answer::json(&Varz::of(snapshot, reading))
}

/// The object of `/varz`.
#[derive(Debug, Serialize)]
pub struct Varz<'a> {
    server_id: &'a str,
    server_name: &'a str,
    version: &'static str,
    proto: u32,
    go: &'static str,
    host: &'a str,
    port: u16,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    auth_required: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    tls_required: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    tls_verify: bool,
    max_connections: i64,
    #[serde(skip_serializing_if = "is_zero")]
    max_subscriptions: u32,
    ping_interval: u64,
    ping_max: u32,
    http_host: &'a str,
    http_port: i32,
    http_base_path: &'a str,
    https_port: i32,
    auth_timeout: f64,
    max_control_line: u32,
    max_payload: u32,
    max_pending: u64,
    cluster: Cluster<'a>,
    gateway: Nothing,
    leaf: Nothing,
    mqtt: Nothing,
    websocket: WebSocket<'a>,
    jetstream: jetstream::Part<'a>,
    tls_timeout: f64,
    write_deadline: u64,
    start: Timestamp,
    now: Timestamp,
    uptime: String,
    mem: u64,
    cores: usize,
    gomaxprocs: usize,
    cpu: f64,
    connections: u64,
    total_connections: u64,
    routes: u64,
    remotes: u64,
    leafnodes: u64,
    in_msgs: u64,
    in_bytes: u64,
    in_client_msgs: u64,
    in_client_bytes: u64,
    out_msgs: u64,
    out_bytes: u64,
    out_client_msgs: u64,
    out_client_bytes: u64,
    slow_consumers: u64,
    stale_connections: u64,
    stalled_clients: u64,
    subscriptions: u64,
    http_req_stats: &'a RequestCounts,
    config_load_time: Timestamp,
    config_digest: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    tags: &'a [String],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: &'a BTreeMap<String, String>,
    feature_flags: FeatureFlags,
    #[serde(skip_serializing_if = "str::is_empty")]
    system_account: &'a str,
    slow_consumer_stats: ByKind,
    stale_connection_stats: ByKind,
    disk_io_wait_stats: DiskWaits,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_cert_not_after: Option<Timestamp>,
    ringmain: &'static str,
}

/// A part of the server that is not there.
#[derive(Debug, Default, Serialize)]
struct Nothing {}

/// The listener for WebSocket clients; empty without one.
#[derive(Debug, Default, Serialize)]
struct WebSocket<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    host: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    advertise: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    no_auth_user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    handshake_timeout: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_timeout: Option<f64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    no_tls: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    tls_map: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tls_pinned_certs: Vec<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    same_origin: bool,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    allowed_origins: &'a [String],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    compression: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_cert_not_after: Option<Timestamp>,
}

impl<'a> WebSocket<'a> {
    fn of(options: Option<&'a WebSocketOptions>, port: Option<u16>) -> WebSocket<'a> {
        let Some(options) = options else { return WebSocket::default() };
        let tls = options.tls.as_ref();
        let pinned = tls.and_then(|tls| tls.pinned.as_ref()).into_iter().flatten();
        let given = |duration: Duration| (!duration.is_zero()).then_some(duration);
        WebSocket {
            host: &options.host,
            port,
            advertise: options.advertise.as_deref(),
            no_auth_user: options.no_auth_user.as_deref(),
            handshake_timeout: given(options.handshake_timeout).map(nanos),
            auth_timeout: given(options.auth_timeout).map(|timeout| timeout.as_secs_f64()),
            no_tls: options.no_tls,
            tls_map: tls.is_some_and(|tls| tls.map),
            tls_pinned_certs: pinned.map(|digest| data_encoding::HEXLOWER.encode(digest)).collect(),
            same_origin: options.same_origin,
            allowed_origins: &options.allowed_origins,
            compression: options.compression,
            tls_cert_not_after: tls.and_then(first_to_end),
        }
    }
}

/// The cluster's options; nothing without a cluster.
#[derive(Debug, Default, Serialize)]
struct Cluster<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    addr: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_timeout: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    urls: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    write_deadline: Option<u64>,
}

impl<'a> Cluster<'a> {
    fn of(snapshot: &'a Snapshot<'a>) -> Cluster<'a> {
        let options = &snapshot.options.cluster;
        if !options.is_configured() {
            return Cluster { name: &snapshot.cluster_name, ..Cluster::default() };
        }
        Cluster {
            name: &snapshot.cluster_name,
            addr: &options.host,
            cluster_port: snapshot.route_port,
            auth_timeout: Some(options.auth_timeout.as_secs_f64()),
            urls: options.routes.iter().map(ToString::to_string).collect(),
            write_deadline: (!options.write_deadline.is_zero()).then(|| nanos(options.write_deadline)),
        }
    }
}

/// Switches of JetStream. The reference shows them with JetStream off too; these are its defaults.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct FeatureFlags {
    js_ack_fc_v2: bool,
    js_api_reply_v2: bool,
    js_raft_delete_range: bool,
    js_snapshot_sources: bool,
}

/// A count by kind of connection.
#[derive(Debug, Serialize)]
struct ByKind {
    clients: u64,
    routes: u64,
    gateways: u64,
    leafs: u64,
}

/// Waits for a place among those who use the disk. Nobody does.
#[derive(Debug, Default, Serialize)]
struct DiskWaits {
    waiters: u64,
    waits: u64,
    wait_time: u64,
    max_wait_time: u64,
}

impl<'a> Varz<'a> {
    /// Made of a snapshot.
    pub fn of(snapshot: &'a Snapshot<'a>, reading: Option<&'a JetStreamReading>) -> Varz<'a> {
        let Snapshot { identity, options, process, requests, .. } = snapshot;
        let total = snapshot.total();
        let stats = total.stats;
        let tls = options.tls.as_ref();
        Varz {
            server_id: &identity.server_id,
            server_name: &identity.server_name,
            version: REFERENCE_VERSION,
            proto: PROTOCOL,
            go: GO_VERSION,
            host: &snapshot.host,
            port: snapshot.port,
            auth_required: options.demands_credentials(),
            tls_required: tls.is_some() && !options.allow_non_tls,
            tls_verify: tls.is_some_and(|tls| tls.verify),
            max_connections: match options.max_connections {
                0 => -1,
                max => i64::from(max),
            },
            max_subscriptions: options.max_subscriptions.map_or(0, |max| max.get()),
            ping_interval: nanos(options.ping_interval),
            ping_max: options.ping_max,
            http_host: options.http_host.as_ref().unwrap_or(&options.host),
            http_port: options.http_port.map_or(0, Port::as_integer),
            http_base_path: &options.http_base_path,
            https_port: options.https_port.map_or(0, Port::as_integer),
            auth_timeout: options.authorization.timeout.as_secs_f64(),
            max_control_line: options.max_control_line,
            max_payload: options.max_payload,
            max_pending: options.max_pending,
            cluster: Cluster::of(snapshot),
            gateway: Nothing {},
            leaf: Nothing {},
            mqtt: Nothing {},
            websocket: WebSocket::of(options.websocket.as_ref(), snapshot.websocket_port),
            jetstream: jetstream::Part::of(options.jetstream.as_ref(), reading),
            // Shown without TLS too.
            tls_timeout: tls.map_or(TLS_TIMEOUT_DEFAULT, |tls| tls.timeout).as_secs_f64(),
            write_deadline: nanos(options.write_deadline),
            start: identity.started,
            now: snapshot.now,
            uptime: uptime(snapshot.uptime()),
            mem: process.memory_bytes,
            cores: process.cores,
            gomaxprocs: snapshot.workers.len(),
            cpu: process.cpu_percent,
            connections: total.connections,
            total_connections: snapshot.total_connections,
            routes: snapshot.routes,
            remotes: snapshot.routes,
            leafnodes: 0,
            in_msgs: stats.messages.count,
            in_bytes: stats.messages.bytes,
            in_client_msgs: stats.messages.count,
            in_client_bytes: stats.messages.bytes,
            out_msgs: stats.deliveries.count,
            out_bytes: stats.deliveries.bytes,
            out_client_msgs: stats.deliveries.count,
            out_client_bytes: stats.deliveries.bytes,
            slow_consumers: stats.slow_consumers,
            stale_connections: stats.stale_connections,
            stalled_clients: stats.holds,
            subscriptions: snapshot.subscriptions(),
            http_req_stats: requests,
            config_load_time: snapshot.configured,
            config_digest: options.config_digest.as_deref().unwrap_or_default(),
            tags: &options.server_tags,
            metadata: &options.server_metadata,
            feature_flags: FeatureFlags::default(),
            system_account: snapshot.system_account(),
            slow_consumer_stats: ByKind::clients(stats.slow_consumers),
            stale_connection_stats: ByKind::clients(stats.stale_connections),
            disk_io_wait_stats: DiskWaits::default(),
            tls_cert_not_after: tls.and_then(first_to_end),
            ringmain: RINGMAIN_VERSION,
        }
    }
}

impl Default for FeatureFlags {
    fn default() -> FeatureFlags {
        FeatureFlags {
            js_ack_fc_v2: false,
            js_api_reply_v2: false,
            js_raft_delete_range: true,
            js_snapshot_sources: false,
        }
    }
}

impl ByKind {
    fn clients(clients: u64) -> ByKind {
        ByKind { clients, routes: 0, gateways: 0, leafs: 0 }
    }
}

/// When the first of the server's certificates ends.
fn first_to_end(tls: &TlsOptions) -> Option<Timestamp> {
    let first =
        tls.certificates.iter().filter_map(|certificate| not_after(certificate.chain.first()?)).min()?;
    Some(Timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(first).ok()?)))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}
