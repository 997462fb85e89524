//! The limits and features that a broker enforces, as plain values. Defaults are the reference's (protocol.md §17).

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
    /// Credentials demanded of every client.
    pub credentials: Credentials,
    /// Log every protocol line.
    pub trace: bool,
    /// Log connections and their ends.
    pub debug: bool,
    /// Show only the headers of messages in a trace.
    pub trace_headers: bool,
    /// Bytes of a payload shown in a trace; 0 for all.
    pub traced_len_max: usize,
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
            credentials: Credentials::None,
            trace: false,
            debug: false,
            trace_headers: false,
            traced_len_max: 0,
        }
    }
}

/// What a client has to show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    /// Nothing.
    #[default]
    None,
    /// A token in `auth_token`.
    Token(String),
    /// One of these users with its password.
    Users(Vec<(String, String)>),
}

impl Credentials {
    /// Whether a client must send `CONNECT` before anything else.
    pub fn required(&self) -> bool {
        *self != Credentials::None
    }

    /// Whether what a client sent is enough.
    pub fn accept(&self, user: &str, password: &str, token: &str) -> bool {
        match self {
            Credentials::None => true,
            Credentials::Token(expected) => same(expected.as_bytes(), token.as_bytes()),
            Credentials::Users(users) => users.iter().fold(false, |accepted, (name, expected)| {
                accepted | (name == user && same(expected.as_bytes(), password.as_bytes()))
            }),
        }
    }
}

/// Compares secrets without telling by the time it takes where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0u8, |difference, (a, b)| difference | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_compared_whole() {
        let token = Credentials::Token("secret".into());
        assert!(token.accept("", "", "secret"));
        assert!(!token.accept("", "", "secre") && !token.accept("", "", ""));
        let users = Credentials::Users(vec![("a".into(), "x".into()), ("b".into(), "y".into())]);
        assert!(users.accept("b", "y", ""));
        assert!(!users.accept("a", "y", "") && !users.accept("", "", ""));
        assert!(Credentials::None.accept("", "", "") && !Credentials::None.required());
    }
}
