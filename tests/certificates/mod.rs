//! Certificates of servers and clients, made when a test begins, and clients that show them. Servers are not verified:
//! these tests are about the server's side.
#![allow(dead_code)]

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, PublicKeyData as _, SanType,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CipherSuite, ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

/// The certificates, as files of a directory that lives as long as the tests.
pub struct Certificates {
    dir: tempfile::TempDir,
    client_key_digest: String,
}

/// Of this process.
pub static CERTIFICATES: LazyLock<Certificates> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = authority("test authority");
    std::fs::write(dir.path().join("ca.pem"), authority.pem()).expect("a file");
    let write = |name: &str, params: &CertificateParams, issuer: &CertifiedIssuer<'_, KeyPair>| {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, issuer).expect("a certificate");
        std::fs::write(dir.path().join(format!("{name}.pem")), certificate.pem()).expect("a file");
        std::fs::write(dir.path().join(format!("{name}-key.pem")), key.serialize_pem()).expect("a file");
        key
    };
    write("server", &params(&[], &["localhost", "127.0.0.1"]), &authority);
    write("other-server", &params(&[], &["other.example"]), &authority);
    let mut joe =
        params(&[(DnType::CountryName, "US"), (DnType::OrganizationName, "Acme")], &["joe.acme.org"]);
    joe.distinguished_name.push(DnType::CommonName, "joe");
    joe.subject_alt_names.push(SanType::Rfc822Name("joe@acme.org".try_into().expect("an address")));
    joe.subject_alt_names.push(SanType::URI("spiffe://acme/joe".try_into().expect("a URI")));
    let key = write("client", &joe, &authority);
    let digest = <sha2::Sha256 as sha2::Digest>::digest(key.subject_public_key_info());
    let bare =
        [(DnType::CountryName, "US"), (DnType::OrganizationalUnitName, "dev"), (DnType::CommonName, "bare")];
    write("bare", &params(&bare, &[]), &authority);
    write(
        "stranger",
        &params(&[(DnType::CommonName, "stranger")], &[]),
        &self::authority("another authority"),
    );
    let mut late = params(&[(DnType::CommonName, "late")], &[]);
    late.not_after = rcgen::date_time_ymd(2001, 1, 1);
    write("late", &late, &authority);
    Certificates { dir, client_key_digest: data_encoding::HEXLOWER.encode(&digest) }
});

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = params(&[(DnType::CommonName, name)], &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}

fn params(subject: &[(DnType, &str)], names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params.distinguished_name = DistinguishedName::new();
    for (kind, value) in subject {
        params.distinguished_name.push(kind.clone(), *value);
    }
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

impl Certificates {
    /// A file among them: `server.pem`, `server-key.pem`, and so on.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A configuration, in which `<PAIR>` stands for the server's certificate, `<CA>` for the authority of
    /// clients, `<PIN>` for the digest of a client's key.
    pub fn fill(&self, config: &str) -> String {
        let file = |name: &str| format!("{:?}", self.path(name).display().to_string());
        let pair = format!("cert_file: {}, key_file: {}", file("server.pem"), file("server-key.pem"));
        let ca = format!("ca_file: {}", file("ca.pem"));
        config.replace("<PAIR>", &pair).replace("<CA>", &ca).replace("<PIN>", &self.client_key_digest)
    }
}

/// Believes everything.
#[derive(Debug)]
struct Believer(Arc<CryptoProvider>);

impl ServerCertVerifier for Believer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// What a client offers.
#[derive(Clone, Copy, Default)]
pub struct Offer {
    /// Whose certificate it shows.
    pub certificate: Option<&'static str>,
    /// Nothing newer.
    pub only_1_2: bool,
    /// Nothing else.
    pub suite: Option<CipherSuite>,
    /// What it calls the server.
    pub server_name: Option<&'static str>,
}

impl Offer {
    /// As a configuration.
    pub fn config(self) -> Arc<ClientConfig> {
        let mut provider = ring::default_provider();
        if let Some(suite) = self.suite {
            provider.cipher_suites.retain(|known| known.suite() == suite);
        }
        let provider = Arc::new(provider);
        let versions: &[_] = if self.only_1_2 { &[&rustls::version::TLS12] } else { rustls::ALL_VERSIONS };
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .expect("versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Believer(provider)));
        let config = match self.certificate {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let file = |name: String| CERTIFICATES.path(&name);
                let certificate = CertificateDer::from_pem_file(file(format!("{name}.pem"))).expect("a file");
                let key = PrivateKeyDer::from_pem_file(file(format!("{name}-key.pem"))).expect("a file");
                builder.with_client_auth_cert(vec![certificate], key).expect("a pair")
            }
        };
        Arc::new(config)
    }

    /// A connection that has not begun.
    pub fn connection(self) -> ClientConnection {
        let name = ServerName::try_from(self.server_name.unwrap_or("localhost")).expect("a name");
        ClientConnection::new(self.config(), name).expect("a connection")
    }
}
