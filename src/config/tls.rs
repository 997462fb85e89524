//! The `tls` map: its keys, and the files that it names, read and checked so that a server that starts can use them.
//!
//! Two steps, for the command line overrides the first: [`Block::decode`] takes the map apart, [`Block::open`] reads the
//! files. What a cipher suite or a curve is called is Go's word for it. Those that Go has and this server's cryptography
//! has not are left out with a warning, never silently; a list of curves of which none is left is an error.
//!
//! Texts and places are the reference's, measured on 2.15.1.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, NamedGroup};
use thiserror::Error;

use super::decode::{Outcome, boolean, in_order, integer, string, wrong_type};
use super::duration::{DurationError, parse_duration_ns};
use super::error::{Problem, ProblemAt, Warning};
use super::lang::{Files, Node, Position, Value};

/// How connections are encrypted.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsOptions {
    /// `cert_file` and `key_file`, or `certs`. Of several the client's name for the server chooses; without one, or if
    /// none fits, the first.
    pub certificates: Vec<Certificate>,
    /// `ca_file`. Who may have signed the certificate of a client; `None`: whom the system trusts.
    pub authorities: Option<Vec<CertificateDer<'static>>>,
    /// `verify`. Clients must show a certificate.
    pub verify: bool,
    /// `verify_and_map`. The certificate says which user it is; implies `verify`.
    pub map: bool,
    /// `timeout`. Time for the handshake.
    pub timeout: Duration,
    /// `handshake_first`, `first`, `immediate`.
    pub first: HandshakeFirst,
    /// `cipher_suites`, of TLS 1.2: those of 1.3 cannot be chosen. `None`: all.
    pub cipher_suites: Option<Vec<CipherSuite>>,
    /// `curve_preferences`, in this order. `None`: the default ones.
    pub curves: Option<Vec<NamedGroup>>,
    /// `min_version` is 1.3 rather than 1.2.
    pub only_1_3: bool,
    /// `pinned_certs`. SHA-256 of the public keys that clients may have; `None`: any.
    pub pinned: Option<BTreeSet<[u8; 32]>>,
    /// `connection_rate_limit`. Connections that are taken per second.
    pub connections_per_second: Option<NonZeroU32>,
}

/// Whether the handshake comes before `INFO`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeFirst {
    /// `INFO` comes first.
    No,
    /// The handshake comes first.
    Yes,
    /// The handshake comes first if the client begins it within this time.
    Within(Duration),
}

/// How long `handshake_first: auto` waits.
pub const HANDSHAKE_FIRST_AUTO: Duration = Duration::from_millis(50);

/// Time for the handshake where none is given.
pub const TLS_TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);

/// A certificate of the server.
#[derive(Debug, Clone, PartialEq)]
pub struct Certificate {
    /// Itself, and those that lead to an authority.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: Arc<PrivateKeyDer<'static>>,
}

/// What is wrong with a `tls` map or one of its files.
#[derive(Debug, Clone, PartialEq, Error)]
#[allow(missing_docs, reason = "the display of each is its documentation")]
pub enum TlsError {
    #[error("missing '{0}' in TLS configuration")]
    Missing(&'static str),
    #[error("TLS Server {0} must be present and valid")]
    MissingFlag(&'static str),
    #[error("error parsing tls config, cannot combine 'cert_file' option with 'certs' option")]
    CertFileAndCerts,
    #[error("{}: {reason}", at_fault(*number))]
    Pair { number: Option<(usize, usize)>, reason: String },
    #[error("{0}")]
    AuthorityFile(String),
    #[error("failed to parse root ca certificate")]
    Authority,
    #[error("error parsing tls config, '{0}' wrong type")]
    WrongType(&'static str),
    #[error("error parsing tls config, 'timeout' {0}")]
    Timeout(DurationError),
    #[error("field {0:?}'s value {1:?} is invalid")]
    FirstText(String, String),
    #[error("field {0:?} should be a boolean or a string, got {1}")]
    FirstType(String, &'static str),
    #[error("error parsing tls config, '{0}' cannot be empty")]
    EmptyList(&'static str),
    #[error("unrecognized cipher {0}")]
    Cipher(String),
    #[error("insecure cipher suites configured without 'allow_insecure_cipher_suites' option set: {0}")]
    InsecureCiphers(String),
    #[error("unrecognized curve preference {0}")]
    Curve(String),
    #[error("none of the 'curve_preferences' is available: {0}")]
    NoCurve(String),
    #[error("error parsing tls config: unsupported TLS version: TLS {0}")]
    OldVersion(String),
    #[error("error parsing tls config: unknown version: {0}")]
    Version(String),
    #[error("error parsing tls config: 'min_version' wrong type: {0}")]
    VersionType(String),
    #[error(
        "error parsing tls config, expected 'pinned_certs' to be a list of hex-encoded sha256 of DER encoded \
         SubjectPublicKeyInfo"
    )]
    PinnedType,
    #[error(
        "error parsing tls config, 'pinned_certs' key {0} does not look like hex-encoded sha256 of DER encoded \
         SubjectPublicKeyInfo"
    )]
    Pinned(String),
    #[error("error parsing certificates config: unsupported type {0}")]
    CertsType(&'static str),
    #[error("error parsing certificates config: both 'cert_file' and 'cert_key' options are required")]
    CertsPair,
    #[error("error parsing tls certs config, unknown field {0:?}")]
    CertsField(String),
    #[error("verify_cert_and_check_known_urls not supported in this context")]
    KnownUrls,
    #[error("{0} type not implemented")]
    CertStore(&'static str),
}

fn at_fault(number: Option<(usize, usize)>) -> String {
    match number {
        None => "error parsing X509 certificate/key pair".to_owned(),
        Some((at, of)) => format!("error parsing X509 certificate/key pair {at}/{of}"),
    }
}

/// Every suite that Go knows: its name, whether Go calls it insecure, and what it is here, if anything.
const CIPHER_SUITES: &[(&str, bool, Option<CipherSuite>)] = &[
    ("TLS_AES_128_GCM_SHA256", false, Some(CipherSuite::TLS13_AES_128_GCM_SHA256)),
    ("TLS_AES_256_GCM_SHA384", false, Some(CipherSuite::TLS13_AES_256_GCM_SHA384)),
    ("TLS_CHACHA20_POLY1305_SHA256", false, Some(CipherSuite::TLS13_CHACHA20_POLY1305_SHA256)),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", false, None),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA", false, None),
    ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", false, None),
    ("TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", false, None),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        false,
        Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        false,
        Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        false,
        Some(CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        false,
        Some(CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        false,
        Some(CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        false,
        Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ),
    ("TLS_RSA_WITH_RC4_128_SHA", true, None),
    ("TLS_RSA_WITH_3DES_EDE_CBC_SHA", true, None),
    ("TLS_RSA_WITH_AES_128_CBC_SHA", true, None),
    ("TLS_RSA_WITH_AES_256_CBC_SHA", true, None),
    ("TLS_RSA_WITH_AES_128_CBC_SHA256", true, None),
    ("TLS_RSA_WITH_AES_128_GCM_SHA256", true, None),
    ("TLS_RSA_WITH_AES_256_GCM_SHA384", true, None),
    ("TLS_ECDHE_ECDSA_WITH_RC4_128_SHA", true, None),
    ("TLS_ECDHE_RSA_WITH_RC4_128_SHA", true, None),
    ("TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA", true, None),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256", true, None),
    ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256", true, None),
];

/// Go's name of a cipher suite, for the log and the monitoring.
pub fn cipher_suite_name(suite: CipherSuite) -> &'static str {
    let found = CIPHER_SUITES.iter().find(|(_, _, known)| *known == Some(suite));
    found.map_or("Unknown", |(name, _, _)| name)
}

/// Every curve that Go knows, and what it is here, if anything.
const CURVES: &[(&str, Option<NamedGroup>)] = &[
    ("X25519", Some(NamedGroup::X25519)),
    ("CurveP256", Some(NamedGroup::secp256r1)),
    ("CurveP384", Some(NamedGroup::secp384r1)),
    ("CurveP521", None),
    ("X25519MLKEM768", None),
    ("SecP256r1MLKEM768", None),
    ("SecP384r1MLKEM1024", None),
];

/// A `tls` map, or the flags in its place, whose files have not been read.
#[derive(Debug, Clone, Default)]
pub(super) struct Block {
    /// Where it stands; `None` on the command line.
    pub at: Option<Position>,
    pub cert_file: Option<String>,
    pub key_file: Option<String>,
    pub ca_file: Option<String>,
    pub verify: bool,
    map: bool,
    pairs: Vec<(String, String)>,
    timeout: Option<Duration>,
    first: Option<HandshakeFirst>,
    cipher_suites: Option<Vec<CipherSuite>>,
    curves: Option<Vec<NamedGroup>>,
    only_1_3: bool,
    pinned: Option<BTreeSet<[u8; 32]>>,
    connections_per_second: Option<NonZeroU32>,
}

impl Block {
    /// Takes a `tls` map apart. Problems inside of it are added to `problems`.
    pub fn decode(node: &Node, problems: &mut Vec<ProblemAt>, warnings: &mut Vec<Warning>) -> Outcome<Block> {
        let Value::Map(entries) = &node.value else {
            return Err(wrong_type(node, "map[string]interface {}"));
        };
        let mut block = Block { at: Some(node.at.clone()), ..Block::default() };
        let mut lists = Lists::default();
        for (name, entry) in in_order(entries) {
            let mut noted = Vec::new();
            if let Err(problem) = block.entry(&name.to_lowercase(), name, entry, &mut lists, &mut noted) {
                noted.push(ProblemAt { at: entry.at.clone(), problem });
            }
            problems.append(&mut noted);
        }
        if !lists.insecure.is_empty() && !lists.allow_insecure {
            return Err(TlsError::InsecureCiphers(lists.insecure.join(", ")).into());
        }
        if block.curves.as_ref().is_some_and(Vec::is_empty) && !lists.missing_curves.is_empty() {
            return Err(TlsError::NoCurve(lists.missing_curves.join(", ")).into());
        }
        for (field, names) in
            [("cipher_suites", &lists.missing_suites), ("curve_preferences", &lists.missing_curves)]
        {
            if !names.is_empty() {
                let at = node.at.clone();
                warnings.push(Warning::NotAvailable { at, field, names: names.join(", ") });
            }
        }
        if block.cert_file.is_some() && !block.pairs.is_empty() {
            return Err(TlsError::CertFileAndCerts.into());
        }
        Ok(block)
    }

    fn entry(
        &mut self,
        key: &str,
        name: &str,
        node: &Node,
        lists: &mut Lists,
        problems: &mut Vec<ProblemAt>,
    ) -> Outcome {
        match key {
            "cert_file" => self.cert_file = file(key, node)?,
            "key_file" => self.key_file = file(key, node)?,
            "ca_file" => self.ca_file = file(key, node)?,
            "verify" => self.verify |= truth(key, node)?,
            "verify_and_map" => {
                self.map = truth(key, node)?;
                self.verify |= self.map;
            }
            // Of the server's own connections to others, of which a listener makes none.
            "insecure" => drop(truth(key, node)?),
            "verify_cert_and_check_known_urls" => {
                truth(key, node)?;
                return Err(TlsError::KnownUrls.into());
            }
            "allow_insecure_cipher_suites" => lists.allow_insecure = truth(key, node)?,
            "cipher_suites" => {
                let mut suites = Vec::new();
                for (entry, name) in names("cipher_suites", node, problems)? {
                    match CIPHER_SUITES.iter().find(|(known, _, _)| *known == name) {
                        None => problems.push(ProblemAt {
                            at: entry.at.clone(),
                            problem: TlsError::Cipher(name.to_owned()).into(),
                        }),
                        Some((_, is_insecure, suite)) => {
                            if *is_insecure {
                                lists.insecure.push(name.to_owned());
                            }
                            match suite {
                                Some(suite) => suites.push(*suite),
                                None => lists.missing_suites.push(name.to_owned()),
                            }
                        }
                    }
                }
                self.cipher_suites = Some(suites);
            }
            "curve_preferences" => {
                let mut curves = Vec::new();
                for (entry, name) in names("curve_preferences", node, problems)? {
                    match CURVES.iter().find(|(known, _)| *known == name) {
                        None => problems.push(ProblemAt {
                            at: entry.at.clone(),
                            problem: TlsError::Curve(name.to_owned()).into(),
                        }),
                        Some((_, Some(curve))) => curves.push(*curve),
                        Some((_, None)) => lists.missing_curves.push(name.to_owned()),
                    }
                }
                self.curves = Some(curves);
            }
            "timeout" => self.timeout = timeout(node)?,
            "connection_rate_limit" => {
                let number = integer(node).map_err(|_| TlsError::WrongType("connection_rate_limit"))?;
                let limit = u32::try_from(number.max(0))
                    .map_err(|_| Problem::TooBig("connection_rate_limit".into()))?;
                self.connections_per_second = NonZeroU32::new(limit);
            }
            "pinned_certs" => self.pinned = pinned(node, problems)?,
            "handshake_first" | "first" | "immediate" => self.first = Some(handshake_first(name, node)?),
            "certs" | "certificates" => self.pairs = pairs(node, problems)?,
            "min_version" => self.only_1_3 = is_1_3(node)?,
            "cert_store" => return Err(TlsError::CertStore("cert store").into()),
            "cert_match_by" => return Err(TlsError::CertStore("cert match by").into()),
            // They choose a certificate of such a store.
            "cert_match" | "ca_certs_match" | "cert_match_skip_invalid" => {}
            "ocsp_peer" => match &node.value {
                Value::Bool(false) => {}
                Value::Bool(true) | Value::Map(_) => {
                    return Err(Problem::Refused("tls.ocsp_peer".to_owned()));
                }
                _ => return Err(Problem::OcspPeerType),
            },
            _ if node.is_variable => {}
            _ => return Err(Problem::UnknownTlsField(name.to_owned())),
        }
        Ok(())
    }

    /// Reads the files.
    ///
    /// # Errors
    ///
    /// One is missing or not what it should be.
    pub fn open(self, files: &dyn Files) -> Result<TlsOptions, TlsError> {
        let missing = |what, flag| match self.at {
            Some(_) => TlsError::Missing(what),
            None => TlsError::MissingFlag(flag),
        };
        let mut certificates = Vec::new();
        match (&self.cert_file, &self.key_file) {
            (Some(cert), Some(key)) => certificates.push(open_pair(cert, key, None, files)?),
            (Some(_), None) => return Err(missing("key_file", "private key")),
            (None, Some(_)) => return Err(missing("cert_file", "certificate")),
            // The file may do so, in the reference: nobody can connect then.
            (None, None) if self.at.is_none() => return Err(missing("cert_file", "certificate")),
            (None, None) => {}
        }
        for (index, (cert, key)) in self.pairs.iter().enumerate() {
            certificates.push(open_pair(cert, key, Some((index + 1, self.pairs.len())), files)?);
        }
        let authorities = match &self.ca_file {
            None => None,
            Some(path) => {
                let text = files.read(path).map_err(|error| TlsError::AuthorityFile(error.to_string()))?;
                Some(certificates_in(&text).filter(|found| !found.is_empty()).ok_or(TlsError::Authority)?)
            }
        };
        Ok(TlsOptions {
            certificates,
            authorities,
            verify: self.verify,
            map: self.map,
            timeout: self.timeout.unwrap_or(TLS_TIMEOUT_DEFAULT),
            first: self.first.unwrap_or(HandshakeFirst::No),
            cipher_suites: self.cipher_suites,
            curves: self.curves,
            only_1_3: self.only_1_3,
            pinned: self.pinned,
            connections_per_second: self.connections_per_second,
        })
    }
}

/// What cannot be judged before all keys are known.
#[derive(Default)]
struct Lists {
    allow_insecure: bool,
    insecure: Vec<String>,
    missing_suites: Vec<String>,
    missing_curves: Vec<String>,
}

fn file(key: &str, node: &Node) -> Outcome<Option<String>> {
    match &node.value {
        Value::String(text) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
        _ => Err(Problem::TlsType { field: key.to_owned(), wanted: "filename" }),
    }
}

fn truth(key: &str, node: &Node) -> Outcome<bool> {
    boolean(node).map_err(|_| Problem::TlsType { field: key.to_owned(), wanted: "a boolean" })
}

/// The texts of a list, with their places.
fn names<'a>(
    key: &'static str,
    node: &'a Node,
    problems: &mut Vec<ProblemAt>,
) -> Outcome<Vec<(&'a Node, &'a str)>> {
    match &node.value {
        Value::Array(entries) if entries.is_empty() => Err(TlsError::EmptyList(key).into()),
        Value::Array(entries) => Ok(texts(entries, problems)),
        _ => Err(wrong_type(node, "[]interface {}")),
    }
}

fn texts<'a>(entries: &'a [Node], problems: &mut Vec<ProblemAt>) -> Vec<(&'a Node, &'a str)> {
    let mut texts = Vec::new();
    for entry in entries {
        match string(entry) {
            Ok(text) => texts.push((entry, text)),
            Err(problem) => problems.push(ProblemAt { at: entry.at.clone(), problem }),
        }
    }
    texts
}

/// 0 is the default.
fn timeout(node: &Node) -> Outcome<Option<Duration>> {
    let seconds = match &node.value {
        Value::Integer(number) => *number as f64,
        Value::Float(number) => *number,
        Value::String(text) => parse_duration_ns(text).map_err(TlsError::Timeout)? as f64 / 1e9,
        _ => return Err(TlsError::WrongType("timeout").into()),
    };
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) => Ok(Some(duration).filter(|duration| !duration.is_zero())),
        Err(_) if seconds < 0.0 => Err(Problem::Negative("timeout".to_owned())),
        Err(_) => Err(Problem::TooBig("timeout".to_owned())),
    }
}

fn handshake_first(name: &str, node: &Node) -> Outcome<HandshakeFirst> {
    match &node.value {
        Value::Bool(true) => Ok(HandshakeFirst::Yes),
        Value::Bool(false) => Ok(HandshakeFirst::No),
        Value::String(text) if text.eq_ignore_ascii_case("auto") => {
            Ok(HandshakeFirst::Within(HANDSHAKE_FIRST_AUTO))
        }
        Value::String(text) => match parse_duration_ns(text) {
            Ok(ns @ 1..) => Ok(HandshakeFirst::Within(Duration::from_nanos(ns.unsigned_abs()))),
            Ok(_) => Ok(HandshakeFirst::Yes),
            Err(_) => Err(TlsError::FirstText(name.to_owned(), text.clone()).into()),
        },
        other => Err(TlsError::FirstType(name.to_owned(), other.type_name()).into()),
    }
}

fn pinned(node: &Node, problems: &mut Vec<ProblemAt>) -> Outcome<Option<BTreeSet<[u8; 32]>>> {
    let Value::Array(entries) = &node.value else { return Err(TlsError::PinnedType.into()) };
    let mut pinned = BTreeSet::new();
    for (entry, text) in texts(entries, problems) {
        let digest = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
        match digest.and_then(|digest| <[u8; 32]>::try_from(digest).ok()) {
            Some(digest) => drop(pinned.insert(digest)),
            None => problems.push(ProblemAt {
                at: entry.at.clone(),
                problem: TlsError::Pinned(text.to_lowercase()).into(),
            }),
        }
    }
    Ok(Some(pinned).filter(|pinned| !pinned.is_empty()))
}

fn pairs(node: &Node, problems: &mut Vec<ProblemAt>) -> Outcome<Vec<(String, String)>> {
    // The reference names the type that it expects.
    let Value::Array(entries) = &node.value else {
        return Err(TlsError::CertsType("map[string]interface {}").into());
    };
    let mut pairs = Vec::new();
    for entry in entries {
        match pair(entry) {
            Ok(pair) => pairs.push(pair),
            Err(problem) => problems.push(ProblemAt { at: entry.at.clone(), problem }),
        }
    }
    Ok(pairs)
}

fn pair(node: &Node) -> Outcome<(String, String)> {
    let Value::Map(entries) = &node.value else {
        return Err(TlsError::CertsType(node.value.type_name()).into());
    };
    let (mut cert, mut key) = (None, None);
    for (name, entry) in in_order(entries) {
        let Value::String(text) = &entry.value else {
            return Err(TlsError::CertsType(entry.value.type_name()).into());
        };
        match name.to_lowercase().as_str() {
            "cert_file" => cert = Some(text.clone()),
            "key_file" => key = Some(text.clone()),
            _ => return Err(TlsError::CertsField(name.clone()).into()),
        }
    }
    cert.zip(key).ok_or_else(|| TlsError::CertsPair.into())
}

fn is_1_3(node: &Node) -> Outcome<bool> {
    match &node.value {
        Value::String(text) => match text.as_str() {
            "1.2" => Ok(false),
            "1.3" => Ok(true),
            "1.0" | "1.1" => Err(TlsError::OldVersion(text.clone()).into()),
            _ => Err(TlsError::Version(text.clone()).into()),
        },
        other => Err(TlsError::VersionType(super::decode::shown(other)).into()),
    }
}

fn open_pair(
    cert: &str,
    key: &str,
    number: Option<(usize, usize)>,
    files: &dyn Files,
) -> Result<Certificate, TlsError> {
    let failed = |reason: &str| TlsError::Pair { number, reason: reason.to_owned() };
    let read = |path: &str| files.read(path).map_err(|error| failed(&error.to_string()));
    let (cert, key) = (read(cert)?, read(key)?);
    let chain = certificates_in(&cert).filter(|chain| !chain.is_empty());
    let chain = chain.ok_or_else(|| failed("tls: failed to find any PEM data in certificate input"))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|_| failed("tls: failed to find any PEM data in key input"))?;
    let signing = rustls::crypto::ring::sign::any_supported_type(&key)
        .map_err(|_| failed("tls: failed to parse private key"))?;
    match CertifiedKey::new(chain.clone(), signing).keys_match() {
        Ok(()) => Ok(Certificate { chain, key: Arc::new(key) }),
        Err(rustls::Error::InconsistentKeys(_)) => Err(failed("tls: private key does not match public key")),
        Err(error) => Err(failed(&format!("x509: {error}"))),
    }
}

/// The certificates of a PEM file, passing over everything else in it; `None` if it is damaged.
fn certificates_in(text: &str) -> Option<Vec<CertificateDer<'static>>> {
    let sections = <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes());
    let mut found = Vec::new();
    for section in sections {
        if let (SectionKind::Certificate, der) = section.ok()? {
            found.push(CertificateDer::from(der));
        }
    }
    Some(found)
}
