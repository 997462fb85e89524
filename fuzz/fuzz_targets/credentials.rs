//! What clients show, against a plain reading of the rule: who is let in, and as whom.
//!
//! Finds: panics in the decoding of keys and signatures, somebody let in who has not shown what is asked for, somebody
//! refused who has, a password that reaches the slow comparison although none is hashed.

#![no_main]

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use nkeys::{KeyPair, KeyPairType};
use ringmain::auth::{Credentials, Decision, Directory, nkey::NonceKey};
use ringmain::config::{self, ConnectionType, ConnectionTypes, Login, Options, Password, User};

/// One login.
#[derive(Arbitrary, Debug)]
struct Attempt {
    user: String,
    password: String,
    token: String,
    nkey: Key,
    signature: Signature,
    cid: u64,
}

#[derive(Arbitrary, Debug)]
enum Key {
    None,
    Known,
    Unknown,
    Text(String),
}

#[derive(Arbitrary, Debug)]
enum Signature {
    Text(String),
    /// Of the nonce, by the known key or another, with one bit turned perhaps.
    Signed {
        by_other: bool,
        turned: Option<(u8, u8)>,
        standard: bool,
    },
    OfAnotherNonce,
}

static KNOWN: LazyLock<KeyPair> = LazyLock::new(|| key_pair(1));
static UNKNOWN: LazyLock<KeyPair> = LazyLock::new(|| key_pair(2));

static DIRECTORY: LazyLock<Directory> = LazyLock::new(|| {
    let password = |user: &str, password: &str| Login::Password {
        user: user.into(),
        password: Password::new(password.into()),
    };
    let logins = [password("a", "x"), password("b", ""), Login::Nkey(KNOWN.public_key())];
    let mut options = Options::default();
    let user = |login| User { login, connection_types: ConnectionTypes::ALL, permissions: None };
    options.authorization.credentials = config::Credentials::Users(logins.map(user).into());
    Directory::new(&options, NonceKey([7; 32])).expect("few accounts")
});

fn key_pair(byte: u8) -> KeyPair {
    KeyPair::new_from_raw(KeyPairType::User, [byte; 32]).expect("32 bytes are a key")
}

fuzz_target!(|attempt: Attempt| {
    let nonce = DIRECTORY.nonce(attempt.cid).expect("there is a key");
    let nkey = match &attempt.nkey {
        Key::None => String::new(),
        Key::Known => KNOWN.public_key(),
        Key::Unknown => UNKNOWN.public_key(),
        Key::Text(text) => text.clone(),
    };
    let (signature, is_signed) = match &attempt.signature {
        Signature::Text(text) => (text.clone(), false),
        Signature::OfAnotherNonce => (encode(&KNOWN, b"other", None, false), false),
        Signature::Signed { by_other, turned, standard } => {
            let key = if *by_other { &UNKNOWN } else { &KNOWN };
            (encode(key, nonce.as_bytes(), *turned, *standard), !by_other && turned.is_none())
        }
    };
    let decision = DIRECTORY.decide(&Credentials {
        user: &attempt.user,
        password: &attempt.password,
        token: &attempt.token,
        nkey: &nkey,
        signature: &signature,
        nonce: nonce.as_bytes(),
        connection: ConnectionType::Standard,
    });
    let expected = if nkey.is_empty() {
        let is_user = matches!((attempt.user.as_str(), attempt.password.as_str()), ("a", "x") | ("b", ""));
        is_user.then(|| attempt.user.clone())
    } else {
        (is_signed && nkey == KNOWN.public_key()).then(|| nkey.clone())
    };
    match decision {
        Decision::Granted(user) => assert_eq!(Some(user.name.clone()), expected),
        Decision::Refused => assert_eq!(None, expected),
        Decision::Checking(..) => panic!("nothing is hashed"),
    }
});

fn encode(key: &KeyPair, nonce: &[u8], turned: Option<(u8, u8)>, standard: bool) -> String {
    let mut signature = key.sign(nonce).expect("a whole pair signs");
    if let Some((at, bit)) = turned {
        let len = signature.len();
        signature[usize::from(at) % len] ^= 1 << (bit % 8);
    }
    let encoding = if standard { data_encoding::BASE64 } else { data_encoding::BASE64URL_NOPAD };
    encoding.encode(&signature)
}
