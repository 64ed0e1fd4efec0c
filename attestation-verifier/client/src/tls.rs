//! TLS 1.3 as attestation needs it: a fresh handshake on every connection, any certificate, and the
//! key under which the handshake is signed.
//!
//! The certificate says nothing: whoever is at the other end made it. What counts is the key that signs
//! the handshake (RFC 8446, 4.4.3) and the exporter of this connection, which only its two ends have; the
//! evidence that comes as the first answer is over both. So no name is checked here and no authority is
//! asked, and a relay with a certificate of its own ends up as the wrong end of the wrong exporter.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, HandshakeKind, PeerIncompatible,
    ProtocolVersion, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use touchstone_formats::Digest;
use touchstone_formats::session::{EXPORTER_LABEL, EXPORTER_LENGTH, SESSION_NONCE};

use crate::Error;
use crate::address::Server;

/// A connection whose handshake is over, and what its two ends alone can know.
pub(crate) struct Secured {
    /// The connection.
    pub stream: TlsStream<TcpStream>,
    /// SHA-256 of the SubjectPublicKeyInfo under which the server signed the handshake.
    pub tls_spki_sha256: Digest,
    /// The exporter, its context the nonce.
    pub exporter: [u8; EXPORTER_LENGTH],
}

/// TLS 1.3 on ring, nothing resumed, nothing sent early.
pub(crate) fn config() -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(ring::default_provider());
    let signed_by = SignedBy(provider.signature_verification_algorithms);
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| tls("cannot set up TLS", e))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(signed_by))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Shakes hands over this stream, and takes the exporter for this nonce.
pub(crate) async fn handshake(
    server: &Server,
    stream: TcpStream,
    config: Arc<ClientConfig>,
    nonce: &[u8; SESSION_NONCE],
) -> Result<Secured, Error> {
    let doing = format!("TLS with {}", server.authority);
    let stream = TlsConnector::from(config)
        .connect(server.name()?, stream)
        .await
        .map_err(|e| Error::of_io(&doing, &e))?;
    let (_, connection) = stream.get_ref();

    // None of these can be otherwise with the configuration above. What everything stands on is looked
    // at all the same.
    let fresh = matches!(
        connection.handshake_kind(),
        Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest)
    );
    if !fresh || connection.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        return Err(tls(&doing, "expected a full handshake of TLS 1.3"));
    }
    let leaf = connection
        .peer_certificates()
        .and_then(|certificates| certificates.first())
        .ok_or_else(|| tls(&doing, "the server has no certificate"))?;
    let spki = ParsedCertificate::try_from(leaf)
        .map_err(|e| tls(&doing, e))?
        .subject_public_key_info();
    let exporter = connection
        .export_keying_material([0; EXPORTER_LENGTH], EXPORTER_LABEL, Some(nonce))
        .map_err(|e| tls(&doing, e))?;
    Ok(Secured {
        tls_spki_sha256: Digest::of(&spki),
        exporter,
        stream,
    })
}

fn tls(doing: &str, reason: impl ToString) -> Error {
    Error::Tls {
        doing: doing.to_owned(),
        reason: reason.to_string(),
    }
}

/// Takes any certificate, and nothing but a handshake signed under its key.
#[derive(Debug)]
struct SignedBy(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for SignedBy {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // One whose key cannot be read has none to be attested.
        ParsedCertificate::try_from(end_entity)
            .map_err(|_| CertificateError::BadEncoding)
            .map(|_| ServerCertVerified::assertion())
            .map_err(rustls::Error::from)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
