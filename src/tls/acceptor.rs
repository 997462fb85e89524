//! From options to what handshakes need: certificates, whom to trust, which suites and curves, tickets.
//!
//! The order of suites and curves is that of Go, and it is the server that chooses, as there.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoClientAuth, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert,
    UnbufferedServerConnection, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, NamedGroup, RootCertStore, ServerConfig};

use super::handshake::Handshake;
use crate::config::{Certificate, TlsOptions};

/// What the handshakes of one configuration share. A reload makes another one.
#[derive(Debug)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    pub(super) pinned: Option<BTreeSet<[u8; 32]>>,
}

/// Why the options cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AcceptorError {
    /// `ca_file` holds nothing that can vouch for a client, or the system knows nobody who can.
    #[error("tls: no authority to verify clients by: {0}")]
    Authorities(String),
    /// Anything else.
    #[error("tls: {0}")]
    Other(#[from] rustls::Error),
}

/// Suites in the order in which the server prefers them.
const SUITES: [CipherSuite; 9] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// Curves in the order in which the server prefers them.
const CURVES: [NamedGroup; 3] = [NamedGroup::X25519, NamedGroup::secp256r1, NamedGroup::secp384r1];

impl Acceptor {
    /// Compiles the options.
    ///
    /// # Errors
    ///
    /// Clients are to be verified and nobody can vouch for them.
    pub fn new(options: &TlsOptions) -> Result<Acceptor, AcceptorError> {
        let mut provider = ring::default_provider();
        let known = std::mem::take(&mut provider.cipher_suites);
        let is_wanted = |suite: &CipherSuite| {
            let is_1_3 = SUITES[..3].contains(suite);
            is_1_3 || options.cipher_suites.as_ref().is_none_or(|wanted| wanted.contains(suite))
        };
        let wanted = SUITES.iter().filter(|suite| is_wanted(suite));
        provider.cipher_suites =
            wanted.filter_map(|suite| known.iter().find(|known| known.suite() == *suite)).copied().collect();
        let known = std::mem::take(&mut provider.kx_groups);
        let wanted = options.curves.as_deref().unwrap_or(&CURVES).iter();
        provider.kx_groups =
            wanted.filter_map(|curve| known.iter().find(|known| known.name() == *curve)).copied().collect();
        let provider = Arc::new(provider);
        let versions: &[_] = if options.only_1_3 { &[&TLS13] } else { &[&TLS13, &TLS12] };
        let verifier: Arc<dyn ClientCertVerifier> = if options.verify {
            let roots = Arc::new(authorities(options)?);
            WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
                .build()
                .map_err(|error| AcceptorError::Authorities(error.to_string()))?
        } else {
            Arc::new(NoClientAuth)
        };
        let certificates =
            options.certificates.iter().map(ServedCertificate::new).collect::<Result<_, _>>()?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(Certificates(certificates)));
        config.ignore_client_order = true;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        // A ticket spares the next handshake its public-key operations. It would also spare the client to show its
        // certificate again, which may have run out or be refused since.
        if options.verify || options.pinned.is_some() {
            config.send_tls13_tickets = 0;
        } else {
            config.ticketer = ring::Ticketer::new()?;
            config.send_tls13_tickets = 1;
        }
        Ok(Acceptor { config: Arc::new(config), pinned: options.pinned.clone() })
    }

    /// What a TLS connection is accepted with that somebody else drives.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// Begins a connection.
    ///
    /// # Panics
    ///
    /// Never, with a configuration that has been compiled.
    pub fn begin(self: &Arc<Acceptor>) -> Handshake {
        let connection = UnbufferedServerConnection::new(self.config.clone());
        Handshake::new(self.clone(), connection.expect("only an unusable configuration fails here"))
    }
}

fn authorities(options: &TlsOptions) -> Result<RootCertStore, AcceptorError> {
    let mut roots = RootCertStore::empty();
    match &options.authorities {
        Some(certificates) => drop(roots.add_parsable_certificates(certificates.iter().cloned())),
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                let reasons: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
                return Err(AcceptorError::Authorities(format!(
                    "there is no ca_file, and none is known to the system {}",
                    reasons.join(", ")
                )));
            }
        }
    }
    Ok(roots)
}

/// The server's certificates; the client's name for the server and what it can verify choose.
#[derive(Debug)]
struct Certificates(Vec<ServedCertificate>);

#[derive(Debug)]
struct ServedCertificate(Arc<CertifiedKey>);

impl ServedCertificate {
    fn new(certificate: &Certificate) -> Result<ServedCertificate, rustls::Error> {
        let key = ring::sign::any_supported_type(&certificate.key)?;
        Ok(ServedCertificate(Arc::new(CertifiedKey::new(certificate.chain.clone(), key))))
    }

    fn suits(&self, hello: &ClientHello<'_>) -> bool {
        let can_sign = self.0.key.choose_scheme(hello.signature_schemes()).is_some();
        let is_asked_for = || {
            let Some(name) = hello.server_name() else { return true };
            let Ok(name) = ServerName::try_from(name) else { return false };
            let Some(certificate) = self.0.cert.first() else { return false };
            ParsedCertificate::try_from(certificate)
                .is_ok_and(|certificate| verify_server_name(&certificate, &name).is_ok())
        };
        can_sign && is_asked_for()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let found = match &self.0[..] {
            [only] => Some(only),
            several => several.iter().find(|one| one.suits(&hello)).or(several.first()),
        };
        found.map(|certificate| certificate.0.clone())
    }
}
