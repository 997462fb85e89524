//! `STATSZ`: the server in brief. Published every ten seconds if somebody listens, and the answer to a ping.

use serde::Serialize;

use super::envelope::ServerInfo;
use crate::monitor::clock::Timestamp;
use crate::monitor::jetstream::{JetStreamReading, Part};
use crate::monitor::json;
use crate::monitor::readings::Snapshot;

/// Where it is published.
pub fn subject(server_id: &str) -> String {
    format!("$SYS.SERVER.{server_id}.STATSZ")
}

/// The message.
pub fn message(
    server: &ServerInfo<'_>,
    snapshot: &Snapshot<'_>,
    reading: Option<&JetStreamReading>,
) -> Vec<u8> {
    json::compact(&Message { server, statsz: Statsz::of(snapshot, reading) })
}

#[derive(Debug, Serialize)]
struct Message<'a> {
    server: &'a ServerInfo<'a>,
    statsz: Statsz<'a>,
}

#[derive(Debug, Serialize)]
struct Statsz<'a> {
    start: Timestamp,
    mem: u64,
    cores: usize,
    cpu: f64,
    connections: u64,
    total_connections: u64,
    active_accounts: usize,
    subscriptions: u64,
    sent: MsgsBytes,
    sent_to_clients: MsgsBytes,
    received: MsgsBytes,
    received_from_clients: MsgsBytes,
    slow_consumers: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    slow_consumer_stats: Option<ByKind>,
    #[serde(skip_serializing_if = "is_zero")]
    stale_connections: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    stale_connection_stats: Option<ByKind>,
    #[serde(skip_serializing_if = "is_zero")]
    stalled_clients: u64,
    active_servers: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    jetstream: Option<Part<'a>>,
    gomaxprocs: usize,
}

/// Messages and bytes.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct MsgsBytes {
    /// Messages.
    pub msgs: u64,
    /// Their headers and payloads.
    pub bytes: u64,
}

/// A count by kind of connection.
#[derive(Debug, Serialize)]
struct ByKind {
    clients: u64,
    routes: u64,
    gateways: u64,
    leafs: u64,
}

impl ByKind {
    /// Left out if there are none.
    fn clients(clients: u64) -> Option<ByKind> {
        (clients > 0).then_some(ByKind { clients, routes: 0, gateways: 0, leafs: 0 })
    }
}

impl<'a> Statsz<'a> {
    fn of(snapshot: &'a Snapshot<'_>, reading: Option<&'a JetStreamReading>) -> Statsz<'a> {
        let total = snapshot.total();
        let stats = total.stats;
        let sent = MsgsBytes { msgs: stats.deliveries.count, bytes: stats.deliveries.bytes };
        let received = MsgsBytes { msgs: stats.messages.count, bytes: stats.messages.bytes };
        Statsz {
            start: snapshot.identity.started,
            mem: snapshot.process.memory_bytes,
            cores: snapshot.process.cores,
            cpu: snapshot.process.cpu_percent,
            connections: total.connections,
            total_connections: snapshot.total_connections,
            active_accounts: snapshot.accounts.iter().filter(|account| account.connections > 0).count(),
            subscriptions: snapshot.subscriptions(),
            sent,
            sent_to_clients: sent,
            received,
            received_from_clients: received,
            slow_consumers: stats.slow_consumers,
            slow_consumer_stats: ByKind::clients(stats.slow_consumers),
            stale_connections: stats.stale_connections,
            stale_connection_stats: ByKind::clients(stats.stale_connections),
            stalled_clients: stats.holds,
            active_servers: 1,
            jetstream: Part::in_brief(snapshot.options.jetstream.as_ref(), reading),
            gomaxprocs: snapshot.workers.len(),
        }
    }
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}
