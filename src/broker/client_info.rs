//! What the responders of a service are told of who asks: the value of `Nats-Request-Info`, in the reference's words and order.

use serde::{Deserialize, Serialize};

use super::core::Broker;
use crate::config::ConnectionType;
use crate::subject::interest::InterestAccess;

/// A client, as far as its account lets others know it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct ClientInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    host: String,
    #[serde(skip_serializing_if = "is_zero")]
    id: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    acc: String,
    /// The account by which the request has come, if that is another one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub svc: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    user: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    lang: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    ver: String,
    /// In nanoseconds.
    #[serde(rename = "rtt", skip_serializing_if = "is_zero")]
    pub rtt_ns: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub server: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    client_type: String,
    /// The reply of the requester, where the exporter has to know it: of a message of a fast batch.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reply: String,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// JSON as the reference's encoder writes it.
pub(super) fn json(value: &impl Serialize) -> String {
    let json = serde_json::to_string(value).unwrap_or_default();
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

impl<A: InterestAccess> Broker<A> {
    /// What is told of a connection, and what more if its account shares that.
    pub(super) fn client_info(&self, conn: u32, shares: bool) -> ClientInfo {
        let session = &self.local.sessions[conn as usize];
        let mut info = ClientInfo {
            acc: session.user.account.name.clone(),
            rtt_ns: session.rtt_us * 1000,
            ..ClientInfo::default()
        };
        if !shares {
            return info;
        }
        info.start = self.local.wall_clock(session.started_us);
        info.host = session.addr.ip().to_canonical().to_string();
        info.id = session.cid;
        info.user.clone_from(&session.user.name);
        if let Some(connect) = session.connect.as_deref() {
            info.name.clone_from(&connect.name);
            info.lang.clone_from(&connect.lang);
            info.ver.clone_from(&connect.version);
        }
        info.server.clone_from(&self.info.server_name);
        info.kind = "Client".to_owned();
        let is_web = session.connection_type() == ConnectionType::WebSocket;
        info.client_type = if is_web { "websocket" } else { "nats" }.to_owned();
        info
    }
}
