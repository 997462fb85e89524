//! What the certificate that a client has shown says of it.
//!
//! Whether it is genuine has been decided when one of these is made. Here are its names, by which
//! [`super::Directory`] may know the client, and what monitoring shows of it.

use sha2::{Digest as _, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::distinguished_name::{self, DistinguishedName};

/// A client's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Its subject as Go prints it.
    pub subject: String,
    /// SHA-256 of its public key.
    pub key_digest: [u8; 32],
    /// SHA-256 of all of it.
    pub digest: [u8; 32],
    pub(super) name: Option<DistinguishedName>,
    pub(super) emails: Vec<String>,
    pub(super) hosts: Vec<String>,
    pub(super) uris: Vec<String>,
}

impl ClientCertificate {
    /// Takes one apart. `None` if it is no certificate.
    pub fn parse(der: &[u8]) -> Option<ClientCertificate> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let (mut emails, mut hosts, mut uris) = (Vec::new(), Vec::new(), Vec::new());
        if let Ok(Some(names)) = certificate.subject_alternative_name() {
            for name in &names.value.general_names {
                match name {
                    GeneralName::RFC822Name(text) => emails.push((*text).to_owned()),
                    GeneralName::DNSName(text) => hosts.push((*text).to_owned()),
                    GeneralName::URI(text) => uris.push((*text).to_owned()),
                    _ => {}
                }
            }
        }
        Some(ClientCertificate {
            subject: distinguished_name::text(certificate.subject()),
            key_digest: Sha256::digest(certificate.public_key().raw).into(),
            digest: Sha256::digest(der).into(),
            name: DistinguishedName::of(certificate.subject()),
            emails,
            hosts,
            uris,
        })
    }
}

/// When a certificate ends, in seconds since 1970; `None` if it is none.
pub fn not_after(der: &[u8]) -> Option<i64> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair, SanType};

    use super::*;

    #[test]
    fn names_of_all_kinds_are_found() {
        let mut params = CertificateParams::new(vec!["joe.acme.org".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::Rfc822Name("joe@acme.org".try_into().unwrap()));
        params.subject_alt_names.push(SanType::URI("spiffe://acme/joe".try_into().unwrap()));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CountryName, DnValue::PrintableString("US".try_into().unwrap()));
        params.distinguished_name.push(DnType::OrganizationName, "Acme, \"Inc\"");
        params.distinguished_name.push(DnType::CommonName, "joe");
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let parsed = ClientCertificate::parse(certificate.der()).unwrap();
        assert_eq!(parsed.subject, "CN=joe,O=Acme\\, \\\"Inc\\\",C=US");
        assert_eq!(parsed.emails, ["joe@acme.org"]);
        assert_eq!(parsed.hosts, ["joe.acme.org"]);
        assert_eq!(parsed.uris, ["spiffe://acme/joe"]);
        assert_eq!(parsed.name, DistinguishedName::parse("c=US,cn=joe,o=Acme\\, \\\"Inc\\\""));
        assert_eq!(parsed.digest, <[u8; 32]>::from(Sha256::digest(certificate.der())));
        assert!(not_after(certificate.der()).unwrap() > 1_700_000_000);
    }

    #[test]
    fn what_is_no_certificate_is_none() {
        assert_eq!(ClientCertificate::parse(b"no certificate"), None);
        assert_eq!(not_after(b""), None);
    }
}
