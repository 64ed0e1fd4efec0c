//! TLS as a man in the middle speaks it: with any certificate, of any version, believing everything.

use std::sync::Arc;

use ring::rand::{SecureRandom, SystemRandom};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring as provider};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme, SupportedProtocolVersion,
};
use touchstone_formats::Digest;

/// A self-signed certificate and its P-256 key.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    certificate: CertificateDer<'static>,
    key: Arc<dyn SigningKey>,
    /// SHA-256 of the key's SubjectPublicKeyInfo.
    pub(super) spki: Digest,
}

impl Identity {
    /// A new one.
    pub(super) fn new() -> Self {
        let key = rcgen::KeyPair::generate().expect("a P-256 key");
        let certificate = rcgen::CertificateParams::new(vec!["enclave.invalid".into()])
            .and_then(|parameters| parameters.self_signed(&key))
            .expect("a certificate");
        let spki = Digest::of(&rcgen::PublicKeyData::subject_public_key_info(&key));
        let key = provider::sign::any_ecdsa_type(&PrivateKeyDer::Pkcs8(key.serialize_der().into()));
        Self {
            certificate: certificate.der().clone(),
            key: key.expect("a key for TLS"),
            spki,
        }
    }

    /// This identity's key behind a certificate that is not its own.
    pub(super) fn behind(&self, certificate: CertificateDer<'static>) -> Self {
        Self {
            certificate,
            ..self.clone()
        }
    }
}

/// How a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// TLS 1.3 alone, no tickets, no resumption.
    Honest,
    /// TLS 1.2 alone.
    Old,
    /// TLS 1.3, with tickets that it takes back.
    Tickets,
}

pub(super) fn server(identity: &Identity, manner: Manner) -> Arc<ServerConfig> {
    let version = match manner {
        Manner::Old => &TLS12,
        Manner::Honest | Manner::Tickets => &TLS13,
    };
    let certified = CertifiedKey::new(vec![identity.certificate.clone()], identity.key.clone());
    let mut config = ServerConfig::builder_with_provider(ring_provider())
        .with_protocol_versions(&[version])
        .expect("a version that the provider has")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    if manner == Manner::Tickets {
        config.send_tls13_tickets = 4;
    } else {
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
    }
    Arc::new(config)
}

/// A client that takes any certificate and any signature: it has nothing to lose.
pub(super) fn client(version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(ring_provider())
        .with_protocol_versions(&[version])
        .expect("a version that the provider has")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(BelievesAll))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// The name a client of [`client`] gives; nobody looks at it.
pub(super) fn name() -> ServerName<'static> {
    ServerName::try_from("enclave.invalid").expect("a name")
}

fn ring_provider() -> Arc<CryptoProvider> {
    Arc::new(provider::default_provider())
}

#[derive(Debug)]
struct BelievesAll;

impl ServerCertVerifier for BelievesAll {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// The parts of a ClientHello (RFC 8446 §4.1.2) that a lie needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClientHello {
    session_id: Vec<u8>,
    /// Whether it offers to resume (extension `pre_shared_key`).
    pub(super) offers_psk: bool,
}

const PRE_SHARED_KEY: u16 = 41;

impl ClientHello {
    /// Out of the first TLS record of a connection. `None` when it is none.
    pub(super) fn parse(record: &[u8]) -> Option<Self> {
        // Record header, handshake header, legacy version, random.
        let hello = record.get(5 + 4 + 2 + 32..)?;
        let (session_id, rest) = prefixed(hello, 1)?;
        let (_suites, rest) = prefixed(rest, 2)?;
        let (_compression, rest) = prefixed(rest, 1)?;
        let (mut extensions, _) = prefixed(rest, 2)?;
        let mut offers_psk = false;
        while let Some((kind, rest)) = extensions.split_first_chunk() {
            (_, extensions) = prefixed(rest, 2)?;
            offers_psk |= u16::from_be_bytes(*kind) == PRE_SHARED_KEY;
        }
        Some(Self {
            session_id: session_id.to_vec(),
            offers_psk,
        })
    }

    /// A ServerHello that accepts a pre-shared key, whether or not the client offered one.
    pub(super) fn resume_unasked(&self) -> Vec<u8> {
        let mut random = [0; 64];
        SystemRandom::new().fill(&mut random).expect("randomness");
        let (random, share) = random.split_at(32);
        let extensions = [
            &[0, 43, 0, 2, 3, 4][..],      // supported_versions: TLS 1.3
            &[0, 51, 0, 36, 0, 29, 0, 32], // key_share: X25519
            share,
            &[0, PRE_SHARED_KEY as u8, 0, 2, 0, 0], // pre_shared_key: the first
        ]
        .concat();
        let body = [
            &[3, 3],
            random,
            &[self.session_id.len() as u8],
            &self.session_id,
            &[0x13, 0x01, 0], // TLS_AES_128_GCM_SHA256, no compression
            &(extensions.len() as u16).to_be_bytes(),
            &extensions,
        ]
        .concat();
        let handshake = [&[2, 0][..], &(body.len() as u16).to_be_bytes(), &body].concat();
        let header = [&[22, 3, 3][..], &(handshake.len() as u16).to_be_bytes()].concat();
        [header, handshake].concat()
    }
}

/// What stands behind a length of so many bytes, and what comes after it.
fn prefixed(bytes: &[u8], width: usize) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_at_checked(width)?;
    let length = length.iter().fold(0, |n, byte| n << 8 | usize::from(*byte));
    rest.split_at_checked(length)
}
