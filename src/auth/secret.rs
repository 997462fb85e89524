//! Passwords and tokens as the server keeps them.
//!
//! A plain one is kept as its digest, and the digests are compared: in constant time, and without showing how long it
//! is. A bcrypt hash is kept as it is; comparing takes tens of milliseconds on purpose, so it never happens where
//! messages flow: [`HashCheck`] is the comparison as a piece of work for another thread.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::config::Password;

/// A password or token. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The SHA-256 of a plain one.
    Plain([u8; 32]),
    /// A bcrypt hash.
    Bcrypt(Arc<str>),
}

impl Secret {
    /// As configured.
    pub fn new(password: &Password) -> Secret {
        match password {
            Password::Plain(text) => Secret::Plain(digest(text)),
            Password::Bcrypt(hash) => Secret::Bcrypt(hash.as_str().into()),
        }
    }

    /// Holds `given` against it.
    pub fn compare(&self, given: String) -> Comparison {
        match self {
            Secret::Plain(known) => Comparison::Known(same(known, &digest(&given))),
            Secret::Bcrypt(hash) => Comparison::Takes(HashCheck { hash: hash.clone(), password: given }),
        }
    }

    /// The hash, where comparing is slow.
    pub fn hash(&self) -> Option<&Arc<str>> {
        match self {
            Secret::Plain(_) => None,
            Secret::Bcrypt(hash) => Some(hash),
        }
    }
}

/// What holding something against a secret comes to.
#[derive(Debug)]
pub enum Comparison {
    /// Whether it is the secret.
    Known(bool),
    /// That takes long.
    Takes(HashCheck),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Secret::Plain(_) => "Plain(…)",
            Secret::Bcrypt(_) => "Bcrypt(…)",
        })
    }
}

/// The digest that a plain secret is compared by.
pub fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// Whether two digests are equal, in constant time.
pub fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.ct_eq(b).into()
}

/// A password to be held against a bcrypt hash.
pub struct HashCheck {
    pub(super) hash: Arc<str>,
    pub(super) password: String,
}

impl HashCheck {
    /// Whether it is the password. Takes as long as the hash demands: milliseconds to seconds of CPU.
    pub fn verify(&self) -> bool {
        // A hash that is none lets nobody in.
        bcrypt::verify(self.password.as_bytes(), &self.hash).unwrap_or(false)
    }
}

impl fmt::Debug for HashCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashCheck(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `secret`, by the reference's own tool at the lowest cost.
    pub const HASH: &str = "$2a$04$.OC/.OC/.OC/.OC/.OC/.OhBAjqkJvp/E/NWAjQEaL1Z6bXG3uS3W";

    fn check(password: &str, hash: &str) -> bool {
        HashCheck { hash: hash.into(), password: password.into() }.verify()
    }

    #[test]
    fn a_password_is_held_against_its_hash() {
        assert!(check("secret", HASH));
        assert!(!check("secre", HASH) && !check("", HASH) && !check(HASH, HASH));
    }

    #[test]
    fn a_hash_that_is_none_lets_nobody_in() {
        assert!(!check("secret", "$2a$04$short") && !check("", "$2a$99$") && !check("", ""));
    }

    #[test]
    fn plain_secrets_are_kept_as_their_digest() {
        let secret = Secret::new(&Password::new("s".into()));
        assert_eq!(secret, Secret::Plain(digest("s")));
        assert!(same(&digest("s"), &digest("s")) && !same(&digest("s"), &digest("")));
        assert_eq!(format!("{secret:?}"), "Plain(…)");
    }
}
