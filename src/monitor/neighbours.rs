//! `/routez`, `/gatewayz`, `/leafz`, `/raftz`: other servers. Of gateways, leafnodes and raft groups there are none yet, and those are the
//! answers of a reference server that has none either.

use std::time::Duration;

use serde::Serialize;

use super::answer::{Answer, Kind};
use super::clock::{Timestamp, round_trip, uptime};
use super::parameters::Subscriptions;
use super::readings::Snapshot;
use crate::broker::RouteRow;
use crate::broker::routes::WantedRow;

/// The answer to `/routez`.
pub fn routez(snapshot: &Snapshot<'_>, routes: &[RouteRow], subscriptions: Subscriptions) -> Answer {
    let epoch = snapshot.identity.epoch;
    let now_us = snapshot.now_us;
    let since = |us: u64| uptime(Duration::from_micros(now_us.saturating_sub(us)));
    let describe = |row| -> Route<'_> {
        let RouteRow { addr, counters, wanted, .. }: &RouteRow = row;
        let active_us = (row.active_ms * 1000).max(row.started_us);
        let is_list = subscriptions == Subscriptions::Subjects;
        let is_detail = subscriptions == Subscriptions::Detail;
        let detail = |wanted| {
            let WantedRow { subject, account, queue }: &WantedRow = wanted;
            Wanted { account, subject, qgroup: queue, sid: subject, msgs: 0, cid: row.rid }
        };
        Route {
            rid: row.rid,
            remote_id: &row.remote_id,
            remote_name: &row.remote_name,
            did_solicit: row.is_dialed,
            is_configured: row.is_configured,
            ip: addr.ip().to_string(),
            port: addr.port(),
            start: epoch.plus_us(row.started_us),
            last_activity: epoch.plus_us(active_us),
            rtt: round_trip(row.rtt_us),
            uptime: since(row.started_us),
            idle: since(active_us),
            pending_size: row.pending_bytes,
            in_msgs: counters.in_msgs,
            out_msgs: counters.out_msgs,
            in_bytes: counters.in_bytes,
            out_bytes: counters.out_bytes,
            subscriptions: row.subscriptions,
            subscriptions_list: wanted.iter().filter(|_| is_list).map(|wanted| &*wanted.subject).collect(),
            subscriptions_list_detail: wanted.iter().filter(|_| is_detail).map(detail).collect(),
            compression: "off",
        }
    };
    Answer::json(&Routez {
        server_id: &snapshot.identity.server_id,
        server_name: &snapshot.identity.server_name,
        now: snapshot.now,
        num_routes: routes.len(),
        routes: routes.iter().map(describe).collect(),
    })
}

/// The answer to `/gatewayz`.
pub fn gatewayz(snapshot: &Snapshot<'_>) -> Answer {
    Answer::json(&Gatewayz {
        server_id: &snapshot.identity.server_id,
        now: snapshot.now,
        outbound_gateways: Nobody {},
        inbound_gateways: Nobody {},
    })
}

/// The answer to `/leafz`.
pub fn leafz(snapshot: &Snapshot<'_>) -> Answer {
    Answer::json(&Leafz {
        server_id: &snapshot.identity.server_id,
        now: snapshot.now,
        leafnodes: 0,
        leafs: [],
    })
}

/// The answer to `/raftz`.
pub fn raftz() -> Answer {
    Answer { status: 404, kind: Kind::Text, body: b"No Raft nodes registered".to_vec() }
}

#[derive(Debug, Serialize)]
struct Routez<'a> {
    server_id: &'a str,
    server_name: &'a str,
    now: Timestamp,
    num_routes: usize,
    routes: Vec<Route<'a>>,
}

#[derive(Debug, Serialize)]
struct Route<'a> {
    rid: u64,
    remote_id: &'a str,
    remote_name: &'a str,
    did_solicit: bool,
    is_configured: bool,
    ip: String,
    port: u16,
    start: Timestamp,
    last_activity: Timestamp,
    #[serde(skip_serializing_if = "String::is_empty")]
    rtt: String,
    uptime: String,
    idle: String,
    pending_size: usize,
    in_msgs: u64,
    out_msgs: u64,
    in_bytes: u64,
    out_bytes: u64,
    subscriptions: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subscriptions_list: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subscriptions_list_detail: Vec<Wanted<'a>>,
    compression: &'static str,
}

/// As a subscription of a client is shown.
#[derive(Debug, Serialize)]
struct Wanted<'a> {
    account: &'a str,
    subject: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    qgroup: &'a str,
    sid: &'a str,
    msgs: u64,
    cid: u64,
}

#[derive(Debug, Serialize)]
struct Gatewayz<'a> {
    server_id: &'a str,
    now: Timestamp,
    outbound_gateways: Nobody,
    inbound_gateways: Nobody,
}

#[derive(Debug, Serialize)]
struct Leafz<'a> {
    server_id: &'a str,
    now: Timestamp,
    leafnodes: u64,
    leafs: [(); 0],
}

/// A map with nobody in it.
#[derive(Debug, Serialize)]
struct Nobody {}
