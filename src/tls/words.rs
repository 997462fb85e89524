//! What the log says when a handshake fails: Go's words for what rustls has found, as far as there are any.
//!
//! Go also lists what the client offered and names the certificate that it does not trust; rustls does not tell.

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

/// Go's words for an error.
pub fn of(error: &Error) -> String {
    match error {
        Error::NoCertificatesPresented => "tls: client didn't provide a certificate".to_owned(),
        Error::InvalidCertificate(error) => {
            format!("tls: failed to verify certificate: x509: {}", certificate(error))
        }
        Error::AlertReceived(alert) => format!("remote error: tls: {}", alert_words(*alert)),
        Error::PeerIncompatible(reason) => match reason {
            PeerIncompatible::NoCipherSuitesInCommon => {
                "tls: no cipher suite supported by both client and server".to_owned()
            }
            PeerIncompatible::NoKxGroupsInCommon
            | PeerIncompatible::NamedGroupsExtensionRequired
            | PeerIncompatible::KeyShareExtensionRequired => {
                "tls: no key exchanges supported by both client and server".to_owned()
            }
            PeerIncompatible::NoSignatureSchemesInCommon => {
                "tls: peer doesn't support any of the certificate's signature algorithms".to_owned()
            }
            PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::SupportedVersionsExtensionRequired => {
                "tls: client offered only unsupported versions".to_owned()
            }
            reason => format!("tls: {reason:?}"),
        },
        // The resolver of certificates has none.
        Error::General(text) if text.contains("no server certificate chain") => {
            "tls: no certificates configured".to_owned()
        }
        error => format!("tls: {error}"),
    }
}

fn certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => "certificate signed by unknown authority".to_owned(),
        CertificateError::Expired
        | CertificateError::NotValidYet
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYetContext { .. } => {
            "certificate has expired or is not yet valid".to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "certificate specifies an incompatible key usage".to_owned()
        }
        error => error.to_string(),
    }
}

/// Go's words for an alert of the client.
fn alert_words(alert: AlertDescription) -> String {
    let words = match alert {
        AlertDescription::CloseNotify => "close notify",
        AlertDescription::UnexpectedMessage => "unexpected message",
        AlertDescription::BadRecordMac => "bad record MAC",
        AlertDescription::RecordOverflow => "record overflow",
        AlertDescription::HandshakeFailure => "handshake failure",
        AlertDescription::BadCertificate => "bad certificate",
        AlertDescription::UnsupportedCertificate => "unsupported certificate",
        AlertDescription::CertificateRevoked => "revoked certificate",
        AlertDescription::CertificateExpired => "expired certificate",
        AlertDescription::CertificateUnknown => "unknown certificate",
        AlertDescription::IllegalParameter => "illegal parameter",
        AlertDescription::UnknownCA => "unknown certificate authority",
        AlertDescription::AccessDenied => "access denied",
        AlertDescription::DecodeError => "error decoding message",
        AlertDescription::DecryptError => "error decrypting message",
        AlertDescription::ProtocolVersion => "protocol version not supported",
        AlertDescription::InsufficientSecurity => "insufficient security level",
        AlertDescription::InternalError => "internal error",
        AlertDescription::UserCanceled => "user canceled",
        AlertDescription::NoRenegotiation => "no renegotiation",
        AlertDescription::MissingExtension => "missing extension",
        AlertDescription::UnsupportedExtension => "unsupported extension",
        AlertDescription::UnrecognisedName => "unrecognized name",
        AlertDescription::CertificateRequired => "certificate required",
        other => return format!("alert({})", u8::from(other)),
    };
    words.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_in_the_references_log() {
        for (error, words) in [
            (Error::NoCertificatesPresented, "tls: client didn't provide a certificate"),
            (
                Error::InvalidCertificate(CertificateError::UnknownIssuer),
                "tls: failed to verify certificate: x509: certificate signed by unknown authority",
            ),
            (
                Error::AlertReceived(AlertDescription::HandshakeFailure),
                "remote error: tls: handshake failure",
            ),
            (Error::AlertReceived(AlertDescription::Unknown(200)), "remote error: tls: alert(200)"),
        ] {
            assert_eq!(of(&error), words);
        }
    }
}
