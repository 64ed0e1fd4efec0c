//! TLS that ends inside the enclave (formats.md §10): a key for each keyset, and connections under it.
//!
//! The certificate proves nothing: callers take the key's digest from a keyset that a quote is about,
//! and bind the connection by a session (`public::session`). TLS 1.3 alone, with neither tickets nor early
//! data, so that every connection is a handshake of its own and has an exporter that no other has.

use std::{
    fmt, io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, PublicKeyData,
    date_time_ymd,
};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{DnsName, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::NoServerSessionStorage,
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use touchstone_formats::{
    digest::Digest,
    session::{EXPORTER_LABEL, EXPORTER_LENGTH, SESSION_NONCE},
};
use zeroize::Zeroizing;

use crate::net::Stream;

/// The one protocol that is spoken inside; callers may leave it unsaid.
const ALPN: &[u8] = b"http/1.1";

/// The certificate's name when the keyset's is no DNS name.
const NO_NAME: &str = "touchstone.invalid";

/// Longest common name of a certificate, in bytes (RFC 5280, appendix A.1).
const COMMON_NAME_MAX: usize = 64;

/// 9999-12-31 23:59:59, the last second that a certificate can name.
const TIME_MAX: u64 = 253_402_300_799;

/// No TLS key could be made, or no certificate for it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// Making the key or signing the certificate.
    #[error("the TLS key or its certificate cannot be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// Setting up the server.
    #[error("the TLS key cannot be used: {0}")]
    Server(#[from] rustls::Error),
}

/// A keyset's TLS key. Dropping the last reference erases it; no connection needs it once its
/// handshake is done.
pub struct TlsKey {
    acceptor: TlsAcceptor,
    /// SHA-256 of the key's SubjectPublicKeyInfo.
    pub spki: Digest,
}

impl fmt::Debug for TlsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsKey({})", self.spki)
    }
}

impl TlsKey {
    /// Makes a fresh P-256 key and a certificate, signed by itself, for a keyset of this name and
    /// lifetime (seconds since 1970). The key's encoding is wiped; the cryptography library keeps
    /// copies of its own, which are dropped, not wiped.
    ///
    /// # Errors
    /// [`TlsError`]
    pub fn generate(name: &str, not_before: u64, not_after: u64) -> Result<Self, TlsError> {
        let key = Zeroizing::new(KeyPair::generate()?);
        let name = certificate_name(name);
        let mut params = CertificateParams::new([name.to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        let time =
            |seconds: u64| date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds.min(TIME_MAX));
        params.not_before = time(not_before);
        params.not_after = time(not_after);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.self_signed(&*key)?;

        let encoded = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialized_der()));
        let signer = ring::sign::any_ecdsa_type(&encoded)?;
        let certified = CertifiedKey::new(vec![certificate.der().clone()], signer);
        certified.keys_match()?;

        let provider = Arc::new(ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            spki: Digest::of(&key.subject_public_key_info()),
        })
    }

    /// Makes the handshake. The caller limits its time.
    ///
    /// # Errors
    /// Whatever is not TLS 1.3 as it should be; the peer going away.
    pub async fn accept(&self, stream: Stream) -> io::Result<SharedStream> {
        let stream = self.acceptor.accept(stream).await?;
        Ok(SharedStream(Arc::new(Mutex::new(stream))))
    }
}

/// The keyset's name if a certificate can carry it. It is the operator's word either way.
fn certificate_name(name: &str) -> &str {
    let fits = name.len() <= COMMON_NAME_MAX && !name.ends_with('.');
    if fits && DnsName::try_from(name).is_ok() {
        name
    } else {
        NO_NAME
    }
}

/// A TLS connection that two hold: the HTTP machinery, which reads and writes, and its requests, which ask
/// for the exporter. Both run in the connection's own task, so that the lock is always free.
#[derive(Clone)]
pub struct SharedStream(Arc<Mutex<TlsStream<Stream>>>);

impl SharedStream {
    fn lock(&self) -> MutexGuard<'_, TlsStream<Stream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This connection's exporter for a session's nonce (formats.md §3).
    ///
    /// # Errors
    /// None while the connection stands.
    pub fn exporter(
        &self,
        nonce: &[u8; SESSION_NONCE],
    ) -> Result<[u8; EXPORTER_LENGTH], rustls::Error> {
        let stream = self.lock();
        let (_, tls) = stream.get_ref();
        tls.export_keying_material([0; EXPORTER_LENGTH], EXPORTER_LABEL, Some(nonce))
    }
}

impl AsyncRead for SharedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_read(cx, buf)
    }
}

impl AsyncWrite for SharedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.lock()).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.lock()).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.lock().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificate_has_the_keysets_name_where_it_can() {
        for name in ["enclave.example", "a", "enclave-2.example.org"] {
            assert_eq!(certificate_name(name), name);
        }
        let long = format!("{}.example", "a".repeat(60));
        for name in [
            "",
            "two words",
            "enclave.example.",
            "a..b",
            "ü.example",
            "a/b",
            &long,
        ] {
            assert_eq!(certificate_name(name), NO_NAME, "{name}");
        }
    }

    #[test]
    fn whatever_the_clock_says_a_key_can_be_made() {
        for (not_before, not_after) in [(0, 1), (1_790_000_000, 1_790_086_400), (0, u64::MAX)] {
            let key = TlsKey::generate("enclave.example", not_before, not_after).unwrap();
            let other = TlsKey::generate("enclave.example", not_before, not_after).unwrap();
            assert_ne!(key.spki, other.spki);
        }
    }
}
