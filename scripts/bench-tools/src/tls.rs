//! TLS as the product has it (rustls on ring, TLS 1.3 alone, no resumption), with nothing proven by it: what
//! an attested connection is measured beside.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use ring::rand::SecureRandom;
use rustls::{
    ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring::default_provider, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
    version::TLS13,
};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};
use touchstone_formats::session::{SESSION_NONCE, SESSION_TARGET, SessionRequest};

const ALPN: &[u8] = b"http/1.1";

/// Takes every certificate, and checks the handshake's signature, whose cost belongs to every handshake.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
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
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A client that believes whoever answers.
///
/// # Errors
/// What rustls says of the settings.
pub fn connector() -> Result<TlsConnector> {
    let provider = Arc::new(default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A server with a P-256 key and a self-signed certificate made now.
///
/// # Errors
/// What rcgen or rustls says.
pub fn acceptor() -> Result<TlsAcceptor> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()])?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// A TCP connection and the handshake.
///
/// # Errors
/// What the system or TLS says.
pub async fn connect(connector: &TlsConnector, server: &str) -> Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let (host, _) = server.rsplit_once(':').context("no port")?;
    let name = ServerName::try_from(host.to_owned())?;
    Ok(connector.connect(name, stream).await?)
}

/// Asks for a session and believes the answer unread.
///
/// # Errors
/// A connection that breaks, or any answer but 200.
pub async fn open_session(stream: &mut TlsStream<TcpStream>, server: &str) -> Result<()> {
    let mut nonce = [0; SESSION_NONCE];
    ring::rand::SystemRandom::new()
        .fill(&mut nonce)
        .map_err(|_| anyhow::anyhow!("no randomness"))?;
    let body = SessionRequest { nonce }.to_file();
    let head = format!(
        "POST {SESSION_TARGET} HTTP/1.1\r\nHost: {server}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), &body].concat()).await?;
    stream.flush().await?;
    let (outcome, _) = crate::http::answer(stream, &mut Vec::new()).await?;
    ensure!(outcome == "200", "the session was answered {outcome}");
    Ok(())
}
