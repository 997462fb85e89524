//! What a client shows of itself, as one value: mechanisms that come later are further fields of it.

use crate::config::ConnectionType;

/// Everything that a decision about a connection may depend on.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    /// `user`.
    pub user: &'a str,
    /// `pass`.
    pub password: &'a str,
    /// `auth_token`.
    pub token: &'a str,
    /// `nkey`: the public key of a user.
    pub nkey: &'a str,
    /// `sig`: the signature of `nonce` by that key, in base64.
    pub signature: &'a str,
    /// What the server told this connection to sign.
    pub nonce: &'a [u8],
    /// How it is connected.
    pub connection: ConnectionType,
}

impl Credentials<'_> {
    /// Whether the client has shown nothing at all, so that `no_auth_user` takes its place.
    pub fn is_empty(&self) -> bool {
        self.user.is_empty() && self.password.is_empty() && self.token.is_empty() && self.nkey.is_empty()
    }
}
