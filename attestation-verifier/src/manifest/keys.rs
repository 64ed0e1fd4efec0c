//! Whose signatures count.

use std::collections::BTreeSet;
use std::fmt;

use touchstone_formats::text::{base64_decode, base64_encode};

use super::MAX_SIGNERS;
use crate::crypto::sha256;
use touchstone_formats::text::shown;

/// A P-256 key before its point (RFC 5480): SubjectPublicKeyInfo of id-ecPublicKey, prime256v1, 65 bytes of bit string
/// that begin with an uncompressed point. There is no other DER of one.
const SPKI_HEAD: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];
const SPKI_LENGTH: usize = 91;
/// Longest text of a key that is read, bytes.
const MOST_TEXT: usize = 4 << 10;

/// A P-256 public key. A point that is not on the curve is not found out here: it verifies nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey {
    point: [u8; 65],
}

/// Why something is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Neither of the two forms.
    #[error(
        "found {found}, expected a public key as PEM (BEGIN PUBLIC KEY), or the base64 of its DER"
    )]
    Encoding {
        /// What kind of thing there is, and nothing of it: it may be a private key.
        found: String,
    },
    /// Something else than P-256, or a compressed point.
    #[error(
        "found {found} bytes of another kind, expected the 91 bytes of an uncompressed P-256 key (RFC 5480)"
    )]
    NotP256 {
        /// Its length, bytes.
        found: usize,
    },
}

impl PublicKey {
    /// Reads a PEM `PUBLIC KEY` block, or the base64 of its DER on one line.
    ///
    /// # Errors
    /// Another encoding, white space aside, and another kind of key.
    pub fn parse(text: &str) -> Result<PublicKey, KeyError> {
        const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
        const END: &str = "-----END PUBLIC KEY-----";
        let encoding = || KeyError::Encoding { found: kind(text) };
        if text.len() > MOST_TEXT {
            return Err(encoding());
        }
        let text = text.trim();
        let base64 = match text.strip_prefix(BEGIN) {
            Some(rest) => rest.strip_suffix(END).ok_or_else(encoding)?,
            None => text,
        };
        let base64: String = base64.lines().map(str::trim).collect();
        let der = base64_decode(&base64).map_err(|_| encoding())?;
        PublicKey::from_spki(&der)
    }

    /// Reads the DER of a SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// Anything but an uncompressed P-256 key.
    pub fn from_spki(der: &[u8]) -> Result<PublicKey, KeyError> {
        let not = || KeyError::NotP256 { found: der.len() };
        let numbers = der.strip_prefix(&SPKI_HEAD).ok_or_else(not)?;
        let numbers: &[u8; 64] = numbers.try_into().map_err(|_| not())?;
        Ok(PublicKey::from_numbers(numbers))
    }

    /// A key by its uncompressed point (SEC 1 §2.3.3), 65 bytes.
    ///
    /// # Errors
    /// Another length, another form of point.
    pub fn from_point(point: &[u8]) -> Result<PublicKey, KeyError> {
        let numbers = point.strip_prefix(&[4]);
        let numbers = numbers.and_then(|numbers| <&[u8; 64]>::try_from(numbers).ok());
        let not = KeyError::NotP256 { found: point.len() };
        numbers.map(PublicKey::from_numbers).ok_or(not)
    }

    fn from_numbers(numbers: &[u8; 64]) -> PublicKey {
        let mut point = [4; 65];
        for (to, from) in point.iter_mut().skip(1).zip(numbers) {
            *to = *from;
        }
        PublicKey { point }
    }

    pub(crate) fn point(&self) -> &[u8; 65] {
        &self.point
    }

    /// DER of its SubjectPublicKeyInfo.
    pub fn to_spki(&self) -> Vec<u8> {
        let head = SPKI_HEAD.iter().take(SPKI_LENGTH - self.point.len());
        head.chain(&self.point).copied().collect()
    }

    /// The same as PEM.
    pub fn to_pem(&self) -> String {
        let mut out = String::from("-----BEGIN PUBLIC KEY-----\n");
        for (index, c) in base64_encode(&self.to_spki()).chars().enumerate() {
            if index > 0 && index % 64 == 0 {
                out.push('\n');
            }
            out.push(c);
        }
        out + "\n-----END PUBLIC KEY-----\n"
    }

    /// Its id, which a bundle has as `hint`: base64 of the SHA-256 of its SubjectPublicKeyInfo (RFC 6962 §3.2, as
    /// sigstore's bundle.proto recommends).
    pub fn id(&self) -> String {
        base64_encode(&sha256(&self.to_spki()))
    }
}

/// What a text is that is no public key, without any of it but a block's label.
fn kind(text: &str) -> String {
    let label = text.trim_start().strip_prefix("-----BEGIN ");
    let label = label.and_then(|rest| Some(rest.split_once("-----")?.0));
    let plain = |c: char| c.is_ascii_uppercase() || c == ' ';
    match label.filter(|label| label.len() <= 32 && label.chars().all(plain)) {
        Some("PUBLIC KEY") => "a block PUBLIC KEY that is not whole".to_owned(),
        Some(label) => format!("a block {label}"),
        None => format!("{} bytes of text", text.len()),
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id())
    }
}

/// Somebody whose signature counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// What the caller calls him.
    pub name: String,
    /// His key.
    pub key: PublicKey,
}

/// Whose signatures count, and how many of them there must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signers {
    keys: Vec<Signer>,
    threshold: usize,
}

/// Why signers cannot be judged by (exit 1).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignersError {
    /// More than [`MAX_SIGNERS`].
    #[error("{found} signers, at most {MAX_SIGNERS} are allowed")]
    TooMany {
        /// How many.
        found: usize,
    },
    /// A threshold that anything or nothing reaches.
    #[error("threshold {threshold}: expected 1 to {keys}, the number of signers")]
    Threshold {
        /// What it is.
        threshold: usize,
        /// How many different keys there are.
        keys: usize,
    },
    /// One key would count twice.
    #[error("signers {first:?} and {second:?} have the same key")]
    KeyTwice {
        /// The one.
        first: String,
        /// The other.
        second: String,
    },
    /// One name for two keys.
    #[error("signer {name:?} is named twice")]
    NameTwice {
        /// The name.
        name: String,
    },
    /// A name that says nothing, or spoils what it is printed in.
    #[error(
        "a signer's name is {found}; expected 1 to 64 letters, digits and the characters . _ - @ +"
    )]
    Name {
        /// The name, shortened.
        found: String,
    },
}

impl Signers {
    /// Signers of whom `threshold` must have signed.
    ///
    /// # Errors
    /// A threshold of zero or above the number of keys, a key or a name that stands twice, too many of them.
    pub fn new(keys: Vec<Signer>, threshold: usize) -> Result<Signers, SignersError> {
        if keys.len() > MAX_SIGNERS {
            return Err(SignersError::TooMany { found: keys.len() });
        }
        let mut names = BTreeSet::new();
        for (index, signer) in keys.iter().enumerate() {
            let name = &signer.name;
            let fits = |c: char| c.is_alphanumeric() || "._-@+".contains(c);
            if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
                return Err(SignersError::Name { found: shown(name) });
            }
            if !names.insert(name) {
                return Err(SignersError::NameTwice { name: name.clone() });
            }
            let earlier = keys.iter().take(index).find(|one| one.key == signer.key);
            if let Some(earlier) = earlier {
                return Err(SignersError::KeyTwice {
                    first: earlier.name.clone(),
                    second: name.clone(),
                });
            }
        }
        if threshold == 0 || threshold > keys.len() {
            return Err(SignersError::Threshold {
                threshold,
                keys: keys.len(),
            });
        }
        Ok(Signers { keys, threshold })
    }

    /// The signers, in the caller's order.
    pub fn keys(&self) -> &[Signer] {
        &self.keys
    }

    /// How many of them must have signed.
    pub fn threshold(&self) -> usize {
        self.threshold
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> PublicKey {
        PublicKey::from_numbers(&[byte; 64])
    }

    #[test]
    fn keys_are_written_as_they_are_read() {
        let key = key(7);
        assert_eq!(key.to_spki().len(), SPKI_LENGTH);
        assert_eq!(PublicKey::from_spki(&key.to_spki()), Ok(key));
        assert_eq!(PublicKey::parse(&key.to_pem()), Ok(key));
        assert_eq!(PublicKey::parse(&base64_encode(&key.to_spki())), Ok(key));
        assert_eq!(PublicKey::from_point(key.point()), Ok(key));
        assert!(key.to_pem().lines().all(|line| line.len() <= 64));
    }

    #[test]
    fn other_keys_are_none() {
        let spki = key(7).to_spki();
        for (offset, change) in [(8, 1), (22, 1), (26, 6), (3, 1)] {
            let mut other = spki.clone();
            other[offset] ^= change;
            assert_eq!(
                PublicKey::from_spki(&other),
                Err(KeyError::NotP256 { found: 91 })
            );
        }
        assert!(PublicKey::from_spki(&spki[..90]).is_err());
        assert!(PublicKey::from_spki(&[&spki[..], &[0]].concat()).is_err());
        for text in ["", "nonsense!", "-----BEGIN PUBLIC KEY-----\nAAAA\n"] {
            assert!(PublicKey::parse(text).is_err(), "{text}");
        }
    }

    /// Whoever gives the wrong file does not find half of his key in a log.
    #[test]
    fn a_private_key_is_not_repeated() {
        let secret = "MHcCAQEEIFsecretsecretsecretsecretsecretsecretsecretoAoGCCqGSM49";
        let block = |label: &str, body: &str| {
            format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
        };
        for (text, expected) in [
            (block("EC PRIVATE KEY", secret), "a block EC PRIVATE KEY"),
            (
                block("EC PRIVATE KEY", secret).replace('\n', ""),
                "a block EC PRIVATE KEY",
            ),
            (block("PRIVATE KEY", secret), "a block PRIVATE KEY"),
            (block(secret, secret), "bytes of text"),
            (secret.to_owned() + "!", "65 bytes of text"),
        ] {
            let error = PublicKey::parse(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        let key = key(7);
        assert_eq!(PublicKey::parse(&key.to_pem()), Ok(key));
        let half = key.to_pem().replace("-----END", "");
        let error = PublicKey::parse(&half).unwrap_err().to_string();
        assert!(error.contains("not whole"), "{error}");
    }

    #[test]
    fn signers_are_different_and_the_threshold_can_be_reached() {
        let signer = |name: &str, byte| Signer {
            name: name.into(),
            key: key(byte),
        };
        let three = || vec![signer("a", 1), signer("b", 2), signer("c", 3)];
        for threshold in 1..=3 {
            assert_eq!(
                Signers::new(three(), threshold).unwrap().threshold(),
                threshold
            );
        }
        for threshold in [0, 4] {
            let keys = 3;
            let error = SignersError::Threshold { threshold, keys };
            assert_eq!(Signers::new(three(), threshold), Err(error));
        }
        let same = Signers::new(vec![signer("a", 1), signer("b", 1)], 1);
        assert!(matches!(same, Err(SignersError::KeyTwice { .. })));
        let same = Signers::new(vec![signer("a", 1), signer("a", 2)], 1);
        assert!(matches!(same, Err(SignersError::NameTwice { .. })));
        for name in ["", "a b", "a\u{1b}", &"x".repeat(65)] {
            let signers = Signers::new(vec![signer(name, 1)], 1);
            assert!(matches!(signers, Err(SignersError::Name { .. })));
        }
        let many = (1..=33).map(|n| signer(&n.to_string(), n)).collect();
        let found = 33;
        assert_eq!(Signers::new(many, 1), Err(SignersError::TooMany { found }));
        assert!(Signers::new(Vec::new(), 1).is_err());
    }
}
