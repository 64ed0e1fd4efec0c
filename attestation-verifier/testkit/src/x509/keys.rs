//! Private keys of the synthetic PKIs.
//!
//! A 4096-bit RSA key takes aws-lc a second or so, and a test process would want three of them per
//! product. Keys are therefore shared within one process ([`RsaKey::shared`], [`EcKey::shared`]) and can be kept in a
//! folder of the caller's choice between runs ([`RsaKey::kept_in`], [`EcKey::kept_in`]). Certificates are made anew
//! each time.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, OnceLock};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::error::KeyRejected;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair};

use ring::digest::{SHA256, digest};

use super::asn1;

/// Whoever can sign a certificate or a revocation list.
pub trait Signer {
    /// A signature as X.509 writes it: RSASSA-PSS, or the `SEQUENCE` of ECDSA's r and s. One message is signed once: a
    /// certificate is the same bytes however often a description of it is asked for, as a real one is.
    fn sign_x509(&self, message: &[u8]) -> Vec<u8>;
}

/// Signatures that were made, by digest of the message. RSASSA-PSS and ECDSA would make another each time.
#[derive(Clone, Default)]
struct Signed(Arc<Mutex<HashMap<Vec<u8>, Vec<u8>>>>);

impl Signed {
    /// Enough for the certificates of any test; past it all are forgotten.
    const MOST: usize = 4_096;

    fn remember(&self, message: &[u8], signature: Vec<u8>) {
        let digest = digest(&SHA256, message).as_ref().to_vec();
        let mut signed = self.0.lock().expect("nobody panics with this lock");
        signed.insert(digest, signature);
    }

    fn once(&self, message: &[u8], sign: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
        let lock = || self.0.lock().expect("nobody panics with this lock");
        let digest = digest(&SHA256, message).as_ref().to_vec();
        if let Some(signature) = lock().get(&digest) {
            return signature.clone();
        }
        // Not with the lock held: tests sign in parallel. The first to finish wins.
        let signature = sign();
        let mut signed = lock();
        if signed.len() >= Self::MOST {
            signed.clear();
        }
        signed.entry(digest).or_insert(signature).clone()
    }
}

/// An RSA-4096 key of a certificate authority. Cheap to clone.
#[derive(Clone)]
pub struct RsaKey {
    pair: Arc<RsaKeyPair>,
    signed: Signed,
}

impl RsaKey {
    /// A new key, made now.
    pub fn generate() -> Self {
        Self::of(RsaKeyPair::generate(KeySize::Rsa4096).expect("an RSA key"))
    }

    fn of(pair: RsaKeyPair) -> Self {
        Self {
            pair: Arc::new(pair),
            signed: Signed::default(),
        }
    }

    /// The key of this name in this process: made at first use, the same afterwards. Different names
    /// are made in parallel; one name is made once.
    pub fn shared(name: &str) -> Self {
        static KEYS: LazyLock<Mutex<HashMap<String, Arc<OnceLock<RsaKey>>>>> =
            LazyLock::new(Mutex::default);
        let cell = KEYS
            .lock()
            .expect("nobody panics with this lock")
            .entry(name.to_owned())
            .or_default()
            .clone();
        cell.get_or_init(RsaKey::generate).clone()
    }

    /// The key of this name in `folder`: read if it is there, else made and kept there, readable by its
    /// owner alone. Several processes may ask at once: the first to finish wins and all get its key.
    ///
    /// # Errors
    /// When the folder cannot be read or written, or the file there is not a key.
    pub fn kept_in(folder: &Path, name: &str) -> io::Result<Self> {
        kept(
            folder,
            &format!("{name}.rsa4096.pk8"),
            || Self::generate().to_pkcs8(),
            |bytes| RsaKeyPair::from_pkcs8(bytes).map(Self::of),
        )
    }

    /// The private key as PKCS #8.
    pub fn to_pkcs8(&self) -> Vec<u8> {
        let der: Pkcs8V1Der<'static> = self.pair.as_der().expect("a private key has an encoding");
        der.as_ref().to_vec()
    }

    /// `SubjectPublicKeyInfo` with the algorithm `rsaEncryption`, as in AMD's certificates.
    pub fn spki(&self) -> Vec<u8> {
        asn1::sequence(&[
            &asn1::sequence(&[
                &asn1::oid("1.2.840.113549.1.1.1"),
                &asn1::tlv(asn1::NULL, &[]),
            ]),
            &asn1::bit_string(self.public_key()),
        ])
    }

    /// `RSAPublicKey` (RFC 8017 A.1.1), which is what ring verifies with.
    pub fn public_key(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// RSASSA-PSS with SHA-384, MGF1-SHA-384 and a salt of 48 bytes.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let mut out = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(
                &signature::RSA_PSS_SHA384,
                &SystemRandom::new(),
                message,
                &mut out,
            )
            .expect("an RSA key signs");
        out
    }
}

impl Signer for RsaKey {
    fn sign_x509(&self, message: &[u8]) -> Vec<u8> {
        self.signed.once(message, || self.sign(message))
    }
}

impl fmt::Debug for RsaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RsaKey(4096)")
    }
}

/// The curve of an [`EcKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// AMD's endorsement keys. Intel never uses it: there it is for negative tests.
    P384,
    /// Intel's keys, all of them. AMD never uses it: there it is for negative tests.
    P256,
}

impl Curve {
    fn algorithm(self) -> &'static EcdsaSigningAlgorithm {
        match self {
            Curve::P384 => &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
            Curve::P256 => &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
        }
    }
}

/// A key on an elliptic curve: AMD's versioned endorsement keys (VCEK, VLEK), all of Intel's. Cheap to clone.
#[derive(Clone)]
pub struct EcKey {
    curve: Curve,
    pair: Arc<EcdsaKeyPair>,
    signed: Signed,
}

impl EcKey {
    /// A new key on P-384.
    pub fn p384() -> Self {
        Self::generate(Curve::P384)
    }

    /// A new key on P-256.
    pub fn p256() -> Self {
        Self::generate(Curve::P256)
    }

    /// A new key.
    pub fn generate(curve: Curve) -> Self {
        Self::of(
            curve,
            EcdsaKeyPair::generate(curve.algorithm()).expect("an EC key"),
        )
    }

    fn of(curve: Curve, pair: EcdsaKeyPair) -> Self {
        Self {
            curve,
            pair: Arc::new(pair),
            signed: Signed::default(),
        }
    }

    /// The P-256 key of this name in this process: made at first use, the same afterwards.
    pub fn shared(name: &str) -> Self {
        static KEYS: LazyLock<Mutex<HashMap<String, EcKey>>> = LazyLock::new(Mutex::default);
        KEYS.lock()
            .expect("nobody panics with this lock")
            .entry(name.to_owned())
            .or_insert_with(Self::p256)
            .clone()
    }

    /// The P-256 key of this name in `folder`, as [`RsaKey::kept_in`].
    ///
    /// # Errors
    /// When the folder cannot be read or written, or the file there is not a key.
    pub fn kept_in(folder: &Path, name: &str) -> io::Result<Self> {
        let curve = Curve::P256;
        kept(
            folder,
            &format!("{name}.p256.pk8"),
            || Self::generate(curve).to_pkcs8(),
            |bytes| EcdsaKeyPair::from_pkcs8(curve.algorithm(), bytes).map(|k| Self::of(curve, k)),
        )
    }

    /// The private key as PKCS #8.
    pub fn to_pkcs8(&self) -> Vec<u8> {
        let der = self.pair.to_pkcs8v1();
        der.expect("a private key has an encoding")
            .as_ref()
            .to_vec()
    }

    /// The curve.
    pub fn curve(&self) -> Curve {
        self.curve
    }

    /// The uncompressed point (`0x04 ‖ x ‖ y`).
    pub fn public_key(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// `SubjectPublicKeyInfo` with a named curve.
    pub fn spki(&self) -> Vec<u8> {
        let curve = match self.curve {
            Curve::P384 => "1.3.132.0.34",
            Curve::P256 => "1.2.840.10045.3.1.7",
        };
        asn1::sequence(&[
            &asn1::sequence(&[&asn1::oid("1.2.840.10045.2.1"), &asn1::oid(curve)]),
            &asn1::bit_string(self.public_key()),
        ])
    }

    /// ECDSA with SHA-384 (SHA-256 on P-256): `r ‖ s`, both big-endian and of the curve's size.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair
            .sign(&SystemRandom::new(), message)
            .expect("an EC key signs")
            .as_ref()
            .to_vec()
    }

    /// As [`EcKey::sign`], with the same signature each time this message is signed: for what is signed once and then
    /// handed out.
    pub fn sign_once(&self, message: &[u8]) -> Vec<u8> {
        self.signed.once(message, || self.sign(message))
    }

    /// As [`EcKey::sign_once`], with the same signature in every process that keeps it in this file of `folder`.
    ///
    /// # Errors
    /// When the folder cannot be read or written.
    pub fn sign_once_in(&self, folder: &Path, name: &str, message: &[u8]) -> io::Result<Vec<u8>> {
        let make = || self.sign_once(message);
        let signature = kept(folder, name, make, |bytes| Ok(bytes.to_vec()))?;
        self.signed.remember(message, signature.clone());
        Ok(signature)
    }
}

impl Signer for EcKey {
    /// `Ecdsa-Sig-Value` (RFC 3279 §2.2.3).
    fn sign_x509(&self, message: &[u8]) -> Vec<u8> {
        let signature = self.sign_once(message);
        let (r, s) = signature.split_at(signature.len() / 2);
        asn1::sequence(&[&asn1::unsigned(r), &asn1::unsigned(s)])
    }
}

impl fmt::Debug for EcKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EcKey({:?})", self.curve)
    }
}

/// What is kept in this file of `folder`; made and written there if it is not there yet.
fn kept<K>(
    folder: &Path,
    name: &str,
    make: impl FnOnce() -> Vec<u8>,
    read: impl Fn(&[u8]) -> Result<K, KeyRejected>,
) -> io::Result<K> {
    let path = folder.join(name);
    let existing = || match std::fs::read(&path) {
        Ok(bytes) => read(&bytes).map(Some).map_err(|e| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{}: {e}", path.display()),
            )
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    };
    if let Some(key) = existing()? {
        return Ok(key);
    }
    std::fs::create_dir_all(folder)?;
    // The name appears only with its whole content, and never over another's (tempfile makes it 0600).
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(&make())?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(&path) {
        Ok(_) => {}
        Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(e.error),
    }
    existing()?.ok_or_else(|| io::Error::other("the key file vanished"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_is_one_key_even_when_many_ask_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let keys: Vec<_> = std::thread::scope(|s| {
            let threads: Vec<_> = (0..3)
                .map(|_| s.spawn(|| RsaKey::kept_in(folder.path(), "race").unwrap()))
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|k| k.public_key() == keys[0].public_key()));
        let again = RsaKey::kept_in(folder.path(), "race").unwrap();
        assert_eq!(again.public_key(), keys[0].public_key());
        // Nothing but the key stays behind, and only its owner can read it.
        let files: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|f| f.unwrap())
            .collect();
        assert_eq!(files.len(), 1);
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(
            files[0].metadata().unwrap().permissions().mode() & 0o777,
            0o600
        );

        std::fs::write(files[0].path(), b"not a key").unwrap();
        let error = RsaKey::kept_in(folder.path(), "race").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn an_ec_key_is_kept_too() {
        let folder = tempfile::tempdir().unwrap();
        let key = EcKey::kept_in(folder.path(), "root").unwrap();
        let again = EcKey::kept_in(folder.path(), "root").unwrap();
        assert_eq!(again.public_key(), key.public_key());
        let other = EcKey::kept_in(folder.path(), "other").unwrap();
        assert_ne!(other.public_key(), key.public_key());
    }

    #[test]
    fn what_is_signed_once_is_the_same_each_time() {
        let key = EcKey::p256();
        assert_eq!(key.sign_x509(b"a"), key.clone().sign_x509(b"a"));
        assert_eq!(key.sign_once(b"a"), key.sign_once(b"a"));
        assert_ne!(key.sign_once(b"a"), key.sign_once(b"b"));
        assert_ne!(key.sign(b"a"), key.sign(b"a"));
    }

    #[test]
    fn shared_keys_are_shared_by_name() {
        let a = RsaKey::shared("shared-a");
        assert_eq!(a.public_key(), RsaKey::shared("shared-a").public_key());
        assert_ne!(a.public_key(), RsaKey::shared("shared-b").public_key());
        let a = EcKey::shared("shared-a");
        assert_eq!(a.public_key(), EcKey::shared("shared-a").public_key());
        assert_ne!(a.public_key(), EcKey::shared("shared-b").public_key());
    }
}
