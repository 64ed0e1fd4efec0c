//! Private keys of the synthetic PKI.
//!
//! A 4096-bit RSA key takes aws-lc a second or so, and a test process would want three of them per
//! product. Keys are therefore shared within one process ([`RsaKey::shared`]) and can be kept in a
//! folder of the caller's choice between runs ([`RsaKey::kept_in`]). Certificates are made anew each time.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, OnceLock};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{self, EcdsaKeyPair, KeyPair};

use super::asn1;

/// An RSA-4096 key of a certificate authority. Cheap to clone.
#[derive(Clone)]
pub struct RsaKey(Arc<RsaKeyPair>);

impl RsaKey {
    /// A new key, made now.
    pub fn generate() -> Self {
        Self(Arc::new(
            RsaKeyPair::generate(KeySize::Rsa4096).expect("an RSA key"),
        ))
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
        let path = folder.join(format!("{name}.rsa4096.pk8"));
        if let Some(key) = Self::read(&path)? {
            return Ok(key);
        }
        std::fs::create_dir_all(folder)?;
        let key = Self::generate();
        // The name appears only with its whole content, and never over another's (tempfile makes it 0600).
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&key.to_pkcs8())?;
        file.as_file().sync_all()?;
        match file.persist_noclobber(&path) {
            Ok(_) => Ok(key),
            Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => {
                Self::read(&path)?.ok_or_else(|| io::Error::other("the key file vanished"))
            }
            Err(e) => Err(e.error),
        }
    }

    /// The private key as PKCS #8.
    pub fn to_pkcs8(&self) -> Vec<u8> {
        let der: Pkcs8V1Der<'static> = self.0.as_der().expect("a private key has an encoding");
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
        self.0.public_key().as_ref()
    }

    /// RSASSA-PSS with SHA-384, MGF1-SHA-384 and a salt of 48 bytes.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let mut out = vec![0; self.0.public_modulus_len()];
        self.0
            .sign(
                &signature::RSA_PSS_SHA384,
                &SystemRandom::new(),
                message,
                &mut out,
            )
            .expect("an RSA key signs");
        out
    }

    fn read(path: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(path) {
            Ok(bytes) => RsaKeyPair::from_pkcs8(&bytes)
                .map(|k| Some(Self(Arc::new(k))))
                .map_err(|e| {
                    io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("{}: {e}", path.display()),
                    )
                }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
}

impl fmt::Debug for RsaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RsaKey(4096)")
    }
}

/// The curve of a [`VekKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// What AMD uses.
    P384,
    /// What AMD never uses, for negative tests.
    P256,
}

/// A versioned endorsement key (VCEK or VLEK): the key that signs reports. Cheap to clone.
#[derive(Clone)]
pub struct VekKey {
    curve: Curve,
    pair: Arc<EcdsaKeyPair>,
}

impl VekKey {
    /// A new key on P-384.
    pub fn p384() -> Self {
        Self::generate(Curve::P384)
    }

    /// A new key.
    pub fn generate(curve: Curve) -> Self {
        let algorithm = match curve {
            Curve::P384 => &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
            Curve::P256 => &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
        };
        Self {
            curve,
            pair: Arc::new(EcdsaKeyPair::generate(algorithm).expect("an EC key")),
        }
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
}

impl fmt::Debug for VekKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VekKey({:?})", self.curve)
    }
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
    fn shared_keys_are_shared_by_name() {
        let a = RsaKey::shared("shared-a");
        assert_eq!(a.public_key(), RsaKey::shared("shared-a").public_key());
        assert_ne!(a.public_key(), RsaKey::shared("shared-b").public_key());
    }
}
