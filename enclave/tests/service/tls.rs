//! A client of the TLS listener, made of rustls alone: it takes any certificate, verifies the handshake's
//! signature under its key, and works out for itself what a session's quote must be about.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use hyper::Method;
use ring::digest::{SHA256, SHA512, digest};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, NamedGroup, SignatureScheme,
    client::{
        ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue,
        Tls13ClientSessionValue,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring::default_provider, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use touchstone_formats::session::SessionAnswer;

use super::support::{Client, Reply};

/// The settings' lines of an enclave with a TLS listener.
pub const LISTEN: &str = "listen.tls = \"tcp://127.0.0.1:0\"";

/// How many different nonces a connection knows its exporter for.
const NONCES: u8 = 4;

/// The `n`th nonce.
pub fn nonce(n: u8) -> [u8; 32] {
    assert!(n < NONCES);
    [0xa0 + n; 32]
}

/// A request for a session with the `n`th nonce.
pub fn request(n: u8) -> String {
    format!(
        "{{\"nonce\":\"{}\",\"v\":\"touchstone/session/1\"}}\n",
        hex::encode(nonce(n))
    )
}

/// A connection, and what its caller saw at his own end.
pub struct Connection {
    pub client: Client,
    pub spki: [u8; 32],
    pub exporters: Vec<[u8; 32]>,
}

impl Connection {
    pub async fn new(address: SocketAddr) -> Self {
        Self::over(handshake(address, Arc::new(config())).await.unwrap()).await
    }

    pub async fn over(stream: TlsStream<TcpStream>) -> Self {
        let (_, tls) = stream.get_ref();
        let certificate = &tls.peer_certificates().unwrap()[0];
        let parsed = ParsedCertificate::try_from(certificate).unwrap();
        let spki = sha256(&parsed.subject_public_key_info());
        let exporter = |n| {
            let (label, context) = (b"EXPORTER-touchstone-v1", nonce(n));
            tls.export_keying_material([0; 32], label, Some(&context))
                .unwrap()
        };
        let exporters = (0..NONCES).map(exporter).collect();
        Self {
            client: Client::over(stream).await,
            spki,
            exporters,
        }
    }

    /// A connection with a session.
    pub async fn attested(address: SocketAddr) -> Self {
        let mut connection = Self::new(address).await;
        connection.session(0).await;
        connection
    }

    /// Asks for a session with the `n`th nonce.
    pub async fn ask(&mut self, n: u8) -> Reply {
        self.client
            .send(Method::POST, "/v1/session", &[], request(n))
            .await
    }

    /// Makes a session with the `n`th nonce; panics if it is not all that it should be.
    pub async fn session(&mut self, n: u8) -> SessionAnswer {
        let reply = self.ask(n).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(reply.header("content-type"), "application/json");
        let answer = SessionAnswer::parse(&reply.body).unwrap();
        assert_eq!(answer.evidence.nonce.as_deref(), Some(&nonce(n)[..]));
        assert_eq!(answer.evidence.collateral, None);
        assert_eq!(answer.keyset.tls_spki_sha256.unwrap().0, self.spki);
        assert!(self.is_bound(&answer, n));
        answer
    }

    /// Whether this session's quote is about this connection and the `n`th nonce. The text is spelled out, and the
    /// place of the report data is that of an SEV-SNP report.
    pub fn is_bound(&self, answer: &SessionAnswer, n: u8) -> bool {
        let keyset = touchstone_formats::jcs::to_vec(&answer.keyset).unwrap();
        let bind = [
            &b"server\n"[..],
            &self.spki,
            &self.exporters[usize::from(n)],
        ]
        .concat();
        let text = format!(
            "touchstone/report-data/v1\npurpose session\nkeyset sha256:{}\nnonce {}\nbind sha256:{}\n",
            hex::encode(sha256(&keyset)),
            hex::encode(sha256(&nonce(n))),
            hex::encode(sha256(&bind)),
        );
        answer.evidence.quote[0x50..0x90] == *digest(&SHA512, text.as_bytes()).as_ref()
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().unwrap()
}

/// Connects and makes a handshake.
pub async fn handshake(
    address: SocketAddr,
    config: Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("enclave.test").unwrap();
    TlsConnector::from(config).connect(name, stream).await
}

/// A client without resumption.
pub fn config() -> ClientConfig {
    let provider = Arc::new(default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    config
}

/// A client that resumes if it can, and the tickets that it was given.
pub fn resuming() -> (ClientConfig, Arc<Tickets>) {
    let tickets = Arc::new(Tickets {
        cache: ClientSessionMemoryCache::new(8),
        given: AtomicUsize::new(0),
    });
    let mut config = config();
    config.resumption = Resumption::store(tickets.clone());
    config.enable_early_data = true;
    (config, tickets)
}

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
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 alone".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// Keeps tickets as any client would, and counts them.
#[derive(Debug)]
pub struct Tickets {
    cache: ClientSessionMemoryCache,
    given: AtomicUsize,
}

impl Tickets {
    pub fn given(&self) -> usize {
        self.given.load(Ordering::Relaxed)
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, name: ServerName<'static>, group: NamedGroup) {
        self.cache.set_kx_hint(name, group);
    }

    fn kx_hint(&self, name: &ServerName<'_>) -> Option<NamedGroup> {
        self.cache.kx_hint(name)
    }

    fn set_tls12_session(&self, name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.cache.set_tls12_session(name, value);
    }

    fn tls12_session(&self, name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.cache.tls12_session(name)
    }

    fn remove_tls12_session(&self, name: &ServerName<'static>) {
        self.cache.remove_tls12_session(name);
    }

    fn insert_tls13_ticket(&self, name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.given.fetch_add(1, Ordering::Relaxed);
        self.cache.insert_tls13_ticket(name, value);
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.cache.take_tls13_ticket(name)
    }
}
