//! A connection up to its first plaintext.
//!
//! [`Handshake::receive`] takes what arrives, [`Handshake::advance`] does what can be done with it: with the client's
//! certificate or without, that is at most three times until the [`Channel`] is there. An error ends it; what is to be
//! sent then is the alert that tells the client.

use std::fmt;
use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};

use super::acceptor::Acceptor;
use super::channel::{Channel, RECORD_HEADER_LEN, encode, encode_alert};
use super::words;
use crate::auth::ClientCertificate;
use crate::config::cipher_suite_name;

/// Bytes of a handshake that may wait to be understood. rustls itself takes no message longer than 64 KiB.
const INPUT_BYTES_MAX: usize = 128 * 1024;

/// A connection whose keys are not agreed on yet.
pub struct Handshake {
    acceptor: Arc<Acceptor>,
    connection: UnbufferedServerConnection,
    input: Vec<u8>,
    /// The first bytes have been looked at.
    begun: bool,
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake").field("input_len", &self.input.len()).finish_non_exhaustive()
    }
}

/// What became of a handshake.
#[derive(Debug)]
pub enum Progress {
    /// More is to arrive.
    Waiting {
        /// It goes on.
        handshake: Box<Handshake>,
        /// What is to be sent.
        output: Vec<u8>,
    },
    /// It is done.
    Done {
        /// What carries the connection from here on.
        channel: Box<Channel>,
        /// What was agreed.
        facts: Box<Facts>,
        /// What is to be sent.
        output: Vec<u8>,
        /// What the client has said behind its handshake.
        plaintext: Vec<u8>,
    },
    /// It has failed.
    Failed {
        /// Why.
        error: HandshakeError,
        /// What is to be sent.
        output: Vec<u8>,
    },
}

/// What a handshake has agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// `1.2` or `1.3`.
    pub version: &'static str,
    /// Go's name of the cipher suite.
    pub suite: &'static str,
    /// What the client has shown, if it was asked to.
    pub certificate: Option<ClientCertificate>,
}

/// Why a handshake has failed. The texts are the reference's.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum HandshakeError {
    /// Something that does not speak TLS.
    #[error("tls: first record does not look like a TLS handshake")]
    NotTls,
    /// More than any handshake takes.
    #[error("tls: too many bytes before the end of the handshake")]
    TooLong,
    /// More handshakes at a time than are carried on.
    #[error("tls: too many handshakes at a time")]
    TooMany,
    /// The client has gone.
    #[error("EOF")]
    Ended,
    /// The client's key, or that it has none, is not among those that are expected.
    #[error("certificate not pinned")]
    NotPinned(Option<[u8; 32]>),
    /// What rustls says.
    #[error("{}", words::of(.0))]
    Tls(rustls::Error),
}

impl HandshakeError {
    /// Whether it is of so little interest that the reference says it to those only who debug.
    pub fn is_common(&self) -> bool {
        matches!(self, HandshakeError::NotTls)
    }

    /// What the reference says beside it to those who debug.
    pub fn detail(&self) -> Option<String> {
        match self {
            HandshakeError::NotPinned(None) => {
                Some("Failed pinned cert test as client did not provide a certificate".to_owned())
            }
            HandshakeError::NotPinned(Some(digest)) => {
                let key = data_encoding::HEXLOWER.encode(digest);
                Some(format!("Failed pinned cert test for key id: {key}"))
            }
            _ => None,
        }
    }
}

impl Handshake {
    pub(super) fn new(acceptor: Arc<Acceptor>, connection: UnbufferedServerConnection) -> Handshake {
        Handshake { acceptor, connection, input: Vec::new(), begun: false }
    }

    /// Takes what has arrived. Whether there is enough of it to [`Handshake::advance`].
    ///
    /// # Errors
    ///
    /// It is not TLS, or too much.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<bool, HandshakeError> {
        if self.input.len() + bytes.len() > INPUT_BYTES_MAX {
            return Err(HandshakeError::TooLong);
        }
        self.input.extend_from_slice(bytes);
        if !self.begun {
            let Some(header) = self.input.first_chunk::<RECORD_HEADER_LEN>() else { return Ok(false) };
            // An alert or a handshake, of a version that there may be one day.
            if !matches!(header[0], 0x15 | 0x16) || header[1] >= 0x10 {
                return Err(HandshakeError::NotTls);
            }
            self.begun = true;
        }
        Ok(has_record(&self.input))
    }

    /// Does what can be done with what has arrived. This is what takes time.
    pub fn advance(mut self: Box<Handshake>) -> Progress {
        let (mut output, mut plaintext) = (Vec::new(), Vec::new());
        loop {
            let UnbufferedStatus { discard, state, .. } =
                self.connection.process_tls_records(&mut self.input);
            let is_at_rest = match state {
                Ok(ConnectionState::EncodeTlsData(data)) => {
                    encode(data, &mut output);
                    false
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    false
                }
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        plaintext.extend_from_slice(record.payload);
                    }
                    false
                }
                Ok(ConnectionState::WriteTraffic(_)) => {
                    self.input.drain(..discard);
                    return self.finish(output, plaintext);
                }
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                    return Progress::Failed { error: HandshakeError::Ended, output };
                }
                Ok(_) => true,
                Err(error) => {
                    encode_alert(&mut self.connection, &mut output);
                    return Progress::Failed { error: HandshakeError::Tls(error), output };
                }
            };
            self.input.drain(..discard);
            if is_at_rest {
                return Progress::Waiting { handshake: self, output };
            }
        }
    }

    fn finish(self, output: Vec<u8>, plaintext: Vec<u8>) -> Progress {
        let Handshake { acceptor, connection, input, .. } = self;
        let version = match connection.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => "1.2",
            _ => "1.3",
        };
        let suite = connection.negotiated_cipher_suite().map_or("", |suite| cipher_suite_name(suite.suite()));
        let shown = connection.peer_certificates().and_then(|chain| chain.first());
        let certificate = shown.and_then(|der| ClientCertificate::parse(der));
        if let Some(pinned) = &acceptor.pinned {
            let digest = certificate.as_ref().map(|certificate| certificate.key_digest);
            if !digest.is_some_and(|digest| pinned.contains(&digest)) {
                return Progress::Failed { error: HandshakeError::NotPinned(digest), output };
            }
        }
        let channel = Box::new(Channel::new(connection, input));
        Progress::Done { channel, facts: Box::new(Facts { version, suite, certificate }), output, plaintext }
    }
}

/// Whether the first record is there as a whole.
fn has_record(bytes: &[u8]) -> bool {
    let Some([_, _, _, high, low]) = bytes.first_chunk() else { return false };
    bytes.len() >= RECORD_HEADER_LEN + usize::from(u16::from_be_bytes([*high, *low]))
}
