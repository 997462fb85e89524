//! Encryption for a tool that measures with raw sockets: a relay in this process, on the loopback, which is plain towards the
//! tool and TLS towards the server. One thread carries all connections, so rates have its speed as their limit; what the
//! server spends per message, and what handshakes cost it, are not changed by it.
//!
//! The server's certificate is not verified: nothing secret is sent, and test servers sign their own.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use crate::error::BenchError;

/// Bytes that are carried at a time, in each direction of a connection.
const BUFFER_BYTES: usize = 64 * 1024;

/// Bytes that the server may say before it wants to be encrypted.
const INFO_BYTES_MAX: usize = 64 * 1024;

/// Starts the relay, for as long as the process runs. Who connects to the address that it returns speaks with `server`.
pub fn start(server: SocketAddr) -> Result<SocketAddr, BenchError> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(BenchError::io("the TLS relay"))?;
    listener.set_nonblocking(true).map_err(BenchError::io("the TLS relay"))?;
    let address = listener.local_addr().map_err(BenchError::io("the TLS relay"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(BenchError::io("the TLS relay"))?;
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("the provider knows TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unverified(provider)))
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    std::thread::spawn(move || {
        runtime.block_on(async move {
            let listener = TcpListener::from_std(listener).expect("the runtime has just been made");
            while let Ok((local, _)) = listener.accept().await {
                let connector = connector.clone();
                tokio::spawn(async move {
                    if let Err(error) = relay(local, server, &connector).await
                        && error.kind() == io::ErrorKind::InvalidData
                    {
                        eprintln!("ringmain-bench: TLS: {error}");
                    }
                });
            }
        });
    });
    Ok(address)
}

/// Carries one connection. Its end is seen at both sides, whatever the reason.
async fn relay(mut local: TcpStream, server: SocketAddr, connector: &TlsConnector) -> io::Result<()> {
    let mut remote = TcpStream::connect(server).await?;
    remote.set_nodelay(true)?;
    local.set_nodelay(true)?;
    let info = read_info(&mut remote).await?;
    local.write_all(&info).await?;
    let name = ServerName::from(server.ip());
    let mut remote = connector.connect(name, remote).await?;
    copy_bidirectional_with_sizes(&mut local, &mut remote, BUFFER_BYTES, BUFFER_BYTES).await?;
    Ok(())
}

/// The line before the handshake, a byte at a time: what follows is for TLS.
async fn read_info(remote: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") && line.len() < INFO_BYTES_MAX {
        line.push(remote.read_u8().await?);
    }
    Ok(line)
}

#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
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
