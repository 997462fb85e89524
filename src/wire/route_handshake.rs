//! The JSON with which the servers of a cluster introduce themselves: `INFO` and `CONNECT` on routes.
//!
//! Unknown fields are skipped and missing ones have their default, so that servers of different versions understand each other.
//! Names and order are the reference's.

use serde::{Deserialize, Serialize};

use super::info::{GO_VERSION, REFERENCE_VERSION};

/// What a server tells others that it understands: accounts and message traces.
pub const ROUTE_PROTOCOL: i64 = 3;

/// `gossip_mode`: do not tell others of the sender.
pub const GOSSIP_DISABLED: u8 = 1;

/// `gossip_mode`: tell others of the sender although it was told of itself.
pub const GOSSIP_OVERRIDE: u8 = 2;

/// The content of an `INFO` line on a route, about its sender or, as gossip, about a third server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteInfo {
    /// Public key that names this run of the server.
    pub server_id: String,
    /// Its name.
    pub server_name: String,
    /// Its version.
    pub version: String,
    /// What it understands.
    pub proto: i64,
    /// What it was built with.
    pub go: String,
    /// Where it listens for routes, as configured.
    pub host: String,
    /// The port of that.
    pub port: u16,
    /// It takes messages with headers.
    pub headers: bool,
    /// Routes have to show a user and a password.
    #[serde(skip_serializing_if = "is_false")]
    pub auth_required: bool,
    /// Routes are encrypted.
    #[serde(skip_serializing_if = "is_false")]
    pub tls_required: bool,
    /// The dialer has to show a certificate.
    #[serde(skip_serializing_if = "is_false")]
    pub tls_verify: bool,
    /// Largest message.
    pub max_payload: i64,
    /// It has JetStream.
    #[serde(skip_serializing_if = "is_false")]
    pub jetstream: bool,
    /// Where to reach it, as an URL: what it advertises, or where it was seen.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ip: String,
    /// The name of its cluster.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    /// That name was made up, and gives way to another one.
    #[serde(rename = "cluster_dynamic", skip_serializing_if = "is_false")]
    pub dynamic: bool,
    /// Where its clients connect.
    #[serde(skip_serializing_if = "is_empty_list")]
    pub connect_urls: Option<Vec<String>>,
    /// Where its WebSocket clients connect.
    #[serde(skip_serializing_if = "is_empty_list")]
    pub ws_connect_urls: Option<Vec<String>>,
    /// It is about to stop.
    #[serde(skip_serializing_if = "is_false")]
    pub ldm: bool,
    /// What it takes of compression; empty for nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub compression: String,
    /// What of its interest it lets others know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub export: Option<serde_json::Value>,
    /// What of the interest of others it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub import: Option<serde_json::Value>,
    /// How many connections it wants between two servers; 0: one, and nothing is said of it.
    #[serde(skip_serializing_if = "is_zero")]
    pub route_pool_size: i64,
    /// Which of them this is.
    #[serde(skip_serializing_if = "is_zero")]
    pub route_pool_idx: i64,
    /// The account that has this connection to itself.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub route_account: String,
    /// Names a request to give an account its own connection.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub route_acc_add_reqid: String,
    /// Whether others may be told.
    #[serde(skip_serializing_if = "is_zero_u8")]
    pub gossip_mode: u8,
    /// The name of a gateway, in what servers tell each other of those.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gateway: String,
}

/// The content of the `CONNECT` with which a server that dials begins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteConnect {
    /// Always true, and of no meaning.
    pub echo: bool,
    /// Always false.
    pub verbose: bool,
    /// Always false.
    pub pedantic: bool,
    /// Who it is, if routes have to show that.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// And its password.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pass: String,
    /// The route is encrypted.
    pub tls_required: bool,
    /// The server's id.
    pub name: String,
    /// It takes messages with headers.
    pub headers: bool,
    /// The name of its cluster.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    /// That name was made up.
    #[serde(rename = "cluster_dynamic", skip_serializing_if = "is_false")]
    pub dynamic: bool,
    /// Set by clients, which have come to the wrong port.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub lang: String,
    /// Set by gateways, which have come to the wrong port.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gateway: String,
}

impl RouteInfo {
    /// What all introductions of one server share.
    pub fn new(server_id: String, server_name: String) -> RouteInfo {
        RouteInfo {
            server_id,
            server_name,
            version: REFERENCE_VERSION.to_owned(),
            proto: ROUTE_PROTOCOL,
            go: GO_VERSION.to_owned(),
            ..RouteInfo::default()
        }
    }

    /// The whole line.
    pub fn line(&self) -> Vec<u8> {
        line("INFO", self)
    }
}

impl RouteConnect {
    /// The whole line.
    pub fn line(&self) -> Vec<u8> {
        line("CONNECT", self)
    }
}

fn line(verb: &str, content: &impl Serialize) -> Vec<u8> {
    let mut line = format!("{verb} ").into_bytes();
    serde_json::to_writer(&mut line, content).expect("strings, numbers and booleans always serialise");
    line.extend_from_slice(b"\r\n");
    line
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

fn is_zero_u8(value: &u8) -> bool {
    *value == 0
}

fn is_empty_list(value: &Option<Vec<String>>) -> bool {
    value.as_ref().is_none_or(Vec::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_introduction_of_the_reference_is_understood_and_ones_own_is_read_as_the_same() {
        // From nats-server 2.15.1.
        let line = r#"{"server_id":"NA","server_name":"S1","version":"2.15.1","proto":3,"go":"go1.27.2","host":"127.0.0.1","port":14997,"headers":true,"max_payload":1048576,"nonce":"x","cluster":"CL","connect_urls":["127.0.0.1:14999"],"compression":"accept","lnoc":true,"lnocu":true,"ln":true,"route_pool_size":3}"#;
        let info: RouteInfo = serde_json::from_str(line).unwrap();
        assert_eq!((info.server_id.as_str(), info.port, info.route_pool_size), ("NA", 14997, 3));
        assert_eq!(info.connect_urls.as_deref(), Some(&["127.0.0.1:14999".to_owned()][..]));
        let own = RouteInfo { cluster: "c".into(), ..RouteInfo::new("ID".into(), "name".into()) };
        let line = String::from_utf8(own.line()).unwrap();
        let json = line.strip_prefix("INFO ").unwrap();
        assert_eq!(serde_json::from_str::<RouteInfo>(json).unwrap(), own);
        let missing: RouteInfo = serde_json::from_str(r#"{"server_id":"X","connect_urls":null}"#).unwrap();
        assert_eq!(missing.server_id, "X");
    }
}
