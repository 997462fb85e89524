//! `/routez`, `/gatewayz`, `/leafz`, `/raftz`: other servers. There are none yet, and these are the answers of a
//! reference server that has none either.

use serde::Serialize;

use super::answer::{Answer, Kind};
use super::clock::Timestamp;
use super::readings::Snapshot;

/// The answer to `/routez`.
pub fn routez(snapshot: &Snapshot<'_>) -> Answer {
    Answer::json(&Routez {
        server_id: &snapshot.identity.server_id,
        server_name: &snapshot.identity.server_name,
        now: snapshot.now,
        num_routes: 0,
        routes: [],
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
    num_routes: u64,
    routes: [(); 0],
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
