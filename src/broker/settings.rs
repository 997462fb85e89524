//! The limits and features that a broker enforces, as plain values. Defaults are the reference's (protocol.md §17).

use std::sync::Arc;

use super::routes::ClusterTerms;
use super::secure::TlsTerms;
use super::web::WebTerms;
use crate::auth::{Account, Directory};

/// See the fields. All sizes in bytes, all times in milliseconds.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Longest argument part of a control line.
    pub control_line_max: usize,
    /// Largest payload with its header.
    pub payload_max: usize,
    /// Bytes queued for one connection before it is cut off as a slow consumer.
    pub pending_max: usize,
    /// Subscriptions per connection; 0 for no limit.
    pub subscriptions_max: usize,
    /// Tokens per subscribed subject; 0 for no limit.
    pub subscription_tokens_max: usize,
    /// Time between the server's pings.
    pub ping_interval_ms: u64,
    /// Unanswered pings before a connection is stale.
    pub pings_out_max: u32,
    /// Time that one send may take.
    pub write_deadline_ms: u64,
    /// Time for a client to send `CONNECT` when credentials are demanded.
    pub auth_timeout_ms: u64,
    /// Whether clients may negotiate headers.
    pub headers: bool,
    /// Drop messages for a consumer that falls behind instead of holding its producers.
    pub no_fast_producer_stall: bool,
    /// How connections are encrypted; `None`: they are not.
    pub tls: Option<TlsTerms>,
    /// What is different for WebSocket connections; `None`: there are none.
    pub web: Option<WebTerms>,
    /// What a cluster asks of its routes; `None`: there is no cluster.
    pub cluster: Option<ClusterTerms>,
    /// Who may connect.
    pub directory: Arc<Directory>,
    /// Log every protocol line.
    pub trace: bool,
    /// Log what the server's own client says in the system account too.
    pub trace_verbose: bool,
    /// Log connections and their ends.
    pub debug: bool,
    /// Show only the headers of messages in a trace.
    pub trace_headers: bool,
    /// Bytes of a payload shown in a trace; 0 for all.
    pub traced_len_max: usize,
}

impl Settings {
    /// Subscriptions that a connection of `account` may have.
    pub fn subscriptions_max(&self, account: &Account) -> usize {
        let own = if self.subscriptions_max > 0 { self.subscriptions_max } else { usize::MAX };
        account.limits.subscriptions.map_or(own, |max| own.min(max as usize))
    }

    /// The largest payload that a connection of `account` may send.
    pub fn payload_max(&self, account: &Account) -> usize {
        account.limits.payload.map_or(self.payload_max, |max| self.payload_max.min(max as usize))
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            control_line_max: 4096,
            payload_max: 1024 * 1024,
            pending_max: 64 * 1024 * 1024,
            subscriptions_max: 0,
            subscription_tokens_max: 0,
            ping_interval_ms: 120_000,
            pings_out_max: 2,
            write_deadline_ms: 10_000,
            auth_timeout_ms: 2_000,
            headers: true,
            no_fast_producer_stall: false,
            tls: None,
            web: None,
            cluster: None,
            directory: Arc::new(Directory::open()),
            trace: false,
            trace_verbose: false,
            debug: false,
            trace_headers: false,
            traced_len_max: 0,
        }
    }
}
