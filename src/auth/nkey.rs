//! The challenge of a connection and signatures of it.
//!
//! A nonce is derived from a secret of the server and the number of the connection, so that nobody has to keep it: it is
//! computed once for `INFO`, and again when the answer comes. Nobody without the secret can predict the next one.

use data_encoding::{BASE64URL_NOPAD, Encoding, Specification};
use sha2::{Digest as _, Sha256};

use crate::config::is_public_user_key;

/// Bytes of a nonce before encoding; the reference's length.
const NONCE_RAW_LEN: usize = 11;

/// Characters of a nonce.
pub const NONCE_LEN: usize = 15;

/// What the nonces of one server are derived from: random bytes that nobody else knows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NonceKey(pub [u8; 32]);

impl std::fmt::Debug for NonceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NonceKey(…)")
    }
}

impl NonceKey {
    /// What connection `cid` is to sign.
    pub fn nonce(&self, cid: u64) -> [u8; NONCE_LEN] {
        let digest = Sha256::new().chain_update(self.0).chain_update(cid.to_le_bytes()).finalize();
        let mut nonce = [0; NONCE_LEN];
        BASE64URL_NOPAD.encode_mut(&digest[..NONCE_RAW_LEN], &mut nonce);
        nonce
    }
}

/// Whether `signature`, in base64, is that of `nonce` by the key `public`.
pub fn is_signed(public: &str, nonce: &[u8], signature: &str) -> bool {
    let Some(signature) = decode_signature(signature) else { return false };
    is_public_user_key(public)
        && nkeys::KeyPair::from_public_key(public).is_ok_and(|key| key.verify(nonce, &signature).is_ok())
}

/// URL-safe without padding or, failing that, standard with padding; as tolerant as the reference: line ends inside are
/// skipped, and spare bits at the end are not looked at.
fn decode_signature(text: &str) -> Option<Vec<u8>> {
    let url_safe = tolerant("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", None);
    let standard = tolerant("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", Some('='));
    url_safe.decode(text.as_bytes()).or_else(|_| standard.decode(text.as_bytes())).ok()
}

fn tolerant(symbols: &str, padding: Option<char>) -> Encoding {
    let mut specification = Specification::new();
    specification.symbols.push_str(symbols);
    specification.padding = padding;
    specification.check_trailing_bits = false;
    specification.ignore.push_str("\r\n");
    specification.encoding().expect("64 symbols and at most a padding make an encoding")
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64;
    use nkeys::KeyPair;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_nonce_is_the_same_again_and_differs_between_connections_and_servers() {
        let key = NonceKey([7; 32]);
        assert_eq!(key.nonce(5), key.nonce(5));
        assert_ne!(key.nonce(5), key.nonce(6));
        assert_ne!(key.nonce(5), NonceKey([8; 32]).nonce(5));
        assert!(key.nonce(5).iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte)));
    }

    #[test]
    fn a_signature_counts_for_its_key_and_nonce_only() {
        let (user, other) = (KeyPair::new_user(), KeyPair::new_user());
        let signature = user.sign(b"nonce").unwrap();
        for text in [BASE64URL_NOPAD.encode(&signature), BASE64.encode(&signature)] {
            assert!(is_signed(&user.public_key(), b"nonce", &text), "{text}");
            assert!(!is_signed(&other.public_key(), b"nonce", &text));
            assert!(!is_signed(&user.public_key(), b"other", &text));
            assert!(!is_signed(&user.public_key(), b"nonce", &text[1..]));
        }
        assert!(!is_signed(&user.public_key(), b"nonce", ""));
    }

    #[test]
    fn only_keys_of_users_count() {
        let account = KeyPair::new_account();
        let signature = BASE64URL_NOPAD.encode(&account.sign(b"n").unwrap());
        assert!(!is_signed(&account.public_key(), b"n", &signature));
        assert!(!is_public_user_key("") && !is_public_user_key("UA") && !is_public_user_key("Ü"));
        assert!(!is_public_user_key(&KeyPair::new_user().seed().unwrap()));
    }

    proptest! {
        #[test]
        fn whatever_is_sent_as_key_and_signature_is_refused_without_a_panic(key in ".{0,80}", sig in ".{0,120}") {
            prop_assert!(!is_signed(&key, b"nonce", &sig));
        }

        #[test]
        fn a_key_with_a_letter_changed_is_not_a_key(at in 0usize..56, letter in "[A-Z2-7]") {
            let key = KeyPair::new_from_raw(nkeys::KeyPairType::User, [3; 32]).unwrap().public_key();
            let mut changed = key.clone();
            changed.replace_range(at..=at, &letter);
            prop_assert_eq!(is_public_user_key(&changed), changed == key);
        }
    }
}
