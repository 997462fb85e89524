//! What the server tells by itself: connections that come and go, accounts that change, its end.

use serde::Serialize;

use super::envelope::ServerInfo;
use super::statsz::MsgsBytes;
use crate::broker::inspect::ConnectionRow;
use crate::broker::notice::Parting;
use crate::monitor::accountz::AccountStat;
use crate::monitor::clock::{Epoch, Timestamp};
use crate::monitor::json;

const CONNECT: &str = "io.nats.server.advisory.v1.client_connect";
const DISCONNECT: &str = "io.nats.server.advisory.v1.client_disconnect";
const ACCOUNT_CONNECTIONS: &str = "io.nats.server.advisory.v1.account_connections";

/// Where a failed login is told in the account that the client would have belonged to.
pub const UNAUTHORIZED_IN_ACCOUNT: &str = "$SYS.ACCOUNT.CLIENT.AUTH.ERR";

/// Where a connection's coming is told.
pub fn connect_subject(account: &str) -> String {
    format!("$SYS.ACCOUNT.{account}.CONNECT")
}

/// Where a connection's end is told.
pub fn disconnect_subject(account: &str) -> String {
    format!("$SYS.ACCOUNT.{account}.DISCONNECT")
}

/// Where failed logins are told.
pub fn unauthorized_subject(server_id: &str) -> String {
    format!("$SYS.SERVER.{server_id}.CLIENT.AUTH.ERR")
}

/// Where the number of an account's connections is told, by the old name and the new one.
pub fn account_subjects(account: &str) -> [String; 2] {
    [format!("$SYS.SERVER.ACCOUNT.{account}.CONNS"), format!("$SYS.ACCOUNT.{account}.SERVER.CONNS")]
}

/// Where lame duck mode is told.
pub fn lame_duck_subject(server_id: &str) -> String {
    format!("$SYS.SERVER.{server_id}.LAMEDUCK")
}

/// Where the server's end is told.
pub fn shutdown_subject(server_id: &str) -> String {
    format!("$SYS.SERVER.{server_id}.SHUTDOWN")
}

/// What all events have.
#[derive(Debug, Clone, Copy)]
pub struct Heading<'a> {
    /// Who tells.
    pub server: &'a ServerInfo<'a>,
    /// Names the event.
    pub id: &'a str,
    /// When it happened.
    pub at: Timestamp,
    /// What the brokers' clock counts from.
    pub epoch: Epoch,
}

/// A connection has come.
pub fn connect(heading: Heading<'_>, row: &ConnectionRow) -> Vec<u8> {
    json::compact(&Connect {
        r#type: CONNECT,
        id: heading.id,
        timestamp: heading.at,
        server: heading.server,
        client: ClientInfo::of(row, heading.epoch, None),
    })
}

/// A connection has ended, or could not show who it is.
pub fn disconnect(heading: Heading<'_>, parting: &Parting) -> Vec<u8> {
    let Parting { row, stopped_us, reason, .. } = parting;
    let stop = heading.epoch.plus_us(*stopped_us);
    let counters = row.counters;
    json::compact(&Disconnect {
        r#type: DISCONNECT,
        id: heading.id,
        timestamp: heading.at,
        server: heading.server,
        client: ClientInfo::of(row, heading.epoch, Some(stop)),
        // What the client has sent, and received.
        sent: MsgsBytes { msgs: counters.in_msgs, bytes: counters.in_bytes },
        received: MsgsBytes { msgs: counters.out_msgs, bytes: counters.out_bytes },
        reason: reason.to_string(),
    })
}

/// The number of an account's connections.
pub fn account_connections(heading: Heading<'_>, stat: &AccountStat<'_>) -> Vec<u8> {
    json::compact(&AccountConnections {
        r#type: ACCOUNT_CONNECTIONS,
        id: heading.id,
        timestamp: heading.at,
        server: heading.server,
        stat,
    })
}

#[derive(Debug, Serialize)]
struct Connect<'a> {
    r#type: &'static str,
    id: &'a str,
    timestamp: Timestamp,
    server: &'a ServerInfo<'a>,
    client: ClientInfo<'a>,
}

#[derive(Debug, Serialize)]
struct Disconnect<'a> {
    r#type: &'static str,
    id: &'a str,
    timestamp: Timestamp,
    server: &'a ServerInfo<'a>,
    client: ClientInfo<'a>,
    sent: MsgsBytes,
    received: MsgsBytes,
    reason: String,
}

#[derive(Debug, Serialize)]
struct AccountConnections<'a> {
    r#type: &'static str,
    id: &'a str,
    timestamp: Timestamp,
    server: &'a ServerInfo<'a>,
    #[serde(flatten)]
    stat: &'a AccountStat<'a>,
}

#[derive(Debug, Serialize)]
struct ClientInfo<'a> {
    start: Timestamp,
    host: String,
    id: u64,
    acc: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    user: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    lang: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    ver: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    rtt: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<Timestamp>,
    name_tag: &'a str,
    kind: &'static str,
    client_type: &'static str,
}

impl<'a> ClientInfo<'a> {
    fn of(row: &'a ConnectionRow, epoch: Epoch, stop: Option<Timestamp>) -> ClientInfo<'a> {
        ClientInfo {
            start: epoch.plus_us(row.started_us),
            host: row.addr.ip().to_canonical().to_string(),
            id: row.cid,
            acc: &row.account,
            user: &row.user,
            name: &row.name,
            lang: &row.lang,
            ver: &row.version,
            // The reference tells it of connections that have ended only.
            rtt: if stop.is_some() { row.rtt_us * 1000 } else { 0 },
            stop,
            name_tag: &row.account,
            kind: "Client",
            client_type: if row.is_websocket { "websocket" } else { "nats" },
        }
    }
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}
