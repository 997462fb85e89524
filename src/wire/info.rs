//! The JSON of `INFO`: what the server says about itself. Field order and omission are the reference's, for tools
//! compare them; `ringmain` is our own field and stands last.

use serde::Serialize;

/// The version that clients switch their features by: the reference's.
pub const REFERENCE_VERSION: &str = "2.15.1";

/// Ringmain's own version.
pub const RINGMAIN_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The toolchain that built the server; the reference shows its Go version in the same place.
pub const GO_VERSION: &str = env!("RINGMAIN_RUSTC");

/// The protocol level of the server.
pub const PROTOCOL: u32 = 1;

/// The JetStream API level that the reference reports even with JetStream off.
const API_LEVEL: u32 = 5;

/// The content of an `INFO` line to a client.
#[derive(Debug, Clone, Serialize)]
pub struct Info {
    /// Public key that names this run of the server.
    pub server_id: String,
    /// Configured name, or the id.
    pub server_name: String,
    version: &'static str,
    proto: u32,
    /// The reference reports its Go version here.
    go: &'static str,
    /// Listen host as configured.
    pub host: String,
    /// Listen port.
    pub port: u16,
    /// Whether `HPUB` and `HMSG` may be used.
    pub headers: bool,
    /// Whether `CONNECT` must carry credentials.
    #[serde(skip_serializing_if = "is_false")]
    pub auth_required: bool,
    /// Whether connections must be encrypted.
    #[serde(skip_serializing_if = "is_false")]
    pub tls_required: bool,
    /// Whether clients must show a certificate.
    #[serde(skip_serializing_if = "is_false")]
    pub tls_verify: bool,
    /// Whether connections may be encrypted.
    #[serde(skip_serializing_if = "is_false")]
    pub tls_available: bool,
    /// Largest payload with its header, in bytes.
    pub max_payload: i64,
    /// It has JetStream.
    #[serde(skip_serializing_if = "is_false")]
    pub jetstream: bool,
    /// The connection's id.
    #[serde(skip_serializing_if = "is_zero")]
    pub client_id: u64,
    /// The connection's remote address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_ip: String,
    /// What a client that proves itself by a key is to sign.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub nonce: String,
    /// The name of its cluster.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    /// The domain of JetStream.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Where clients can connect, at this server and at others of its cluster. Empty until there have been others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub connect_urls: Vec<String>,
    /// The server is about to stop.
    #[serde(skip_serializing_if = "is_false")]
    pub ldm: bool,
    /// This `INFO` answers the first `PING`.
    #[serde(skip_serializing_if = "is_false")]
    pub connect_info: bool,
    /// The account that the connection is bound to; only with `connect_info`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remote_account: String,
    /// That is the system's own; only with `connect_info`.
    #[serde(skip_serializing_if = "is_false")]
    pub acc_is_sys: bool,
    api_lvl: u32,
    /// The server's curve public key, by which others could encrypt for it.
    pub xkey: String,
    ringmain: &'static str,
    /// Of `connect_urls`, those of this server.
    #[serde(skip)]
    pub own_connect_urls: Vec<String>,
    /// What WebSocket clients are told instead, if they can connect.
    #[serde(skip)]
    pub websocket: Option<WebSocketInfo>,
}

/// What WebSocket clients are told that others are not.
#[derive(Debug, Clone)]
pub struct WebSocketInfo {
    /// Listen host as configured.
    pub host: String,
    /// Listen port.
    pub port: u16,
    /// Whether connections are encrypted.
    pub is_encrypted: bool,
    /// Where such clients can connect, at this server and at others of its cluster.
    pub connect_urls: Vec<String>,
    /// Those of this server.
    pub own_connect_urls: Vec<String>,
}

impl Info {
    /// The part that all connections share.
    pub fn new(server_id: String, server_name: String, host: String, port: u16) -> Info {
        Info {
            server_id,
            server_name,
            version: REFERENCE_VERSION,
            proto: PROTOCOL,
            go: GO_VERSION,
            host,
            port,
            headers: true,
            auth_required: false,
            tls_required: false,
            tls_verify: false,
            tls_available: false,
            max_payload: 0,
            jetstream: false,
            client_id: 0,
            client_ip: String::new(),
            nonce: String::new(),
            cluster: String::new(),
            connect_urls: Vec::new(),
            own_connect_urls: Vec::new(),
            domain: String::new(),
            ldm: false,
            connect_info: false,
            remote_account: String::new(),
            acc_is_sys: false,
            api_lvl: API_LEVEL,
            xkey: String::new(),
            ringmain: RINGMAIN_VERSION,
            websocket: None,
        }
    }

    /// The same for a WebSocket client, who may have to show credentials although others have not, or not.
    #[must_use]
    pub fn for_websocket(mut self, auth_required: bool) -> Info {
        if let Some(WebSocketInfo { host, port, is_encrypted, connect_urls, .. }) = self.websocket.take() {
            (self.host, self.port) = (host, port);
            self.connect_urls = connect_urls;
            (self.tls_required, self.tls_available) = (is_encrypted, is_encrypted);
        }
        self.auth_required = auth_required;
        self
    }

    /// The whole line. The reference writes a space before the line end.
    pub fn line(&self) -> Vec<u8> {
        let mut line = b"INFO ".to_vec();
        serde_json::to_writer(&mut line, self).expect("strings, numbers and booleans always serialise");
        line.extend_from_slice(b" \r\n");
        line
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_the_references_field_order_and_omissions() {
        let mut info = Info::new("NID".into(), "name".into(), "0.0.0.0".into(), 4222);
        info.max_payload = 1_048_576;
        info.client_id = 5;
        info.client_ip = "127.0.0.1".into();
        let line = String::from_utf8(info.line()).unwrap();
        let keys: Vec<&str> = line
            .split('"')
            .skip(1)
            .step_by(2)
            .filter(|word| line.contains(&format!("\"{word}\":")))
            .collect();
        assert_eq!(
            keys,
            [
                "server_id",
                "server_name",
                "version",
                "proto",
                "go",
                "host",
                "port",
                "headers",
                "max_payload",
                "client_id",
                "client_ip",
                "api_lvl",
                "xkey",
                "ringmain"
            ]
        );
        assert!(line.ends_with("} \r\n"));
    }
}
