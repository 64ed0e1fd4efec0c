//! Keys, and how they are published (`application/ohttp-keys`, RFC 9458 §3).

use std::fmt;

use hpke::aead::AesGcm128;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, Serializable};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::Error;

pub(crate) type Aead = AesGcm128;
pub(crate) type Kdf = HkdfSha256;
pub(crate) type KemSuite = X25519HkdfSha256;

/// Bytes of a public key and of an encapsulated one.
pub(crate) const KEY: usize = 32;
/// KEM, KDF and AEAD, as RFC 9180 numbers them.
const KEM_ID: [u8; 2] = [0x00, 0x20];
const SYMMETRIC: [u8; 4] = [0x00, 0x01, 0x00, 0x01];

/// The seven bytes at the head of a request to the key with this id: id, KEM, KDF, AEAD.
pub(crate) fn header(id: u8) -> [u8; 7] {
    let ([k0, k1], [d0, d1, a0, a1]) = (KEM_ID, SYMMETRIC);
    [id, k0, k1, d0, d1, a0, a1]
}

/// Fresh random bytes.
pub(crate) fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, Error> {
    let mut bytes = Zeroizing::new([0; N]);
    SystemRandom::new()
        .fill(bytes.as_mut())
        .map_err(|_| Error::Random)?;
    Ok(bytes)
}

/// The key of a gateway: it opens requests. Dropping it erases it.
pub struct GatewayKey {
    pub(crate) id: u8,
    pub(crate) secret: <KemSuite as Kem>::PrivateKey,
    public: <KemSuite as Kem>::PublicKey,
}

impl GatewayKey {
    /// Makes a fresh key with this id.
    ///
    /// # Errors
    /// [`Error::Random`]
    pub fn generate(id: u8) -> Result<Self, Error> {
        let (secret, public) = KemSuite::derive_keypair(random::<32>()?.as_ref());
        Ok(Self { id, secret, public })
    }

    /// Its id.
    pub fn id(&self) -> u8 {
        self.id
    }

    #[cfg(test)]
    pub(crate) fn from_secret(id: u8, secret: &[u8; KEY]) -> Self {
        let secret = <KemSuite as Kem>::PrivateKey::from_bytes(secret).unwrap();
        let public = KemSuite::sk_to_pk(&secret);
        Self { id, secret, public }
    }

    /// `application/ohttp-keys`: this key alone, for the one suite.
    pub fn configurations(&self) -> Vec<u8> {
        let mut one = vec![self.id];
        one.extend_from_slice(&KEM_ID);
        one.extend_from_slice(&self.public.to_bytes());
        one.extend_from_slice(&[0, 4]);
        one.extend_from_slice(&SYMMETRIC);
        // 41 bytes.
        let mut list = vec![0, u8::try_from(one.len()).unwrap_or_default()];
        list.append(&mut one);
        list
    }
}

/// Which key it is, and nothing of it.
impl fmt::Debug for GatewayKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GatewayKey({})", self.id)
    }
}

/// A gateway's published key, which requests are sealed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    pub(crate) id: u8,
    pub(crate) key: <KemSuite as Kem>::PublicKey,
}

impl PublicKey {
    /// Reads `application/ohttp-keys` and takes the first configuration of our suite; others are passed over, as RFC 9458
    /// asks. Not one of them may be malformed.
    ///
    /// # Errors
    /// [`Error::Configuration`], [`Error::Suite`]; a public key that is none.
    pub fn from_configurations(list: &[u8]) -> Result<Self, Error> {
        let mut rest = Reader(list);
        let mut first = None;
        while !rest.0.is_empty() {
            let length = rest.u16()?;
            let one = configuration(rest.take(length.into())?)?;
            first = first.or(one);
        }
        first.ok_or(Error::Suite)
    }
}

/// One configuration; none if it is of another suite.
fn configuration(bytes: &[u8]) -> Result<Option<PublicKey>, Error> {
    let mut rest = Reader(bytes);
    let id = rest.take(1)?.first().copied().unwrap_or_default();
    if rest.take(2)? != KEM_ID {
        // The length of its public key is unknown, and so is all that follows.
        return Ok(None);
    }
    let key = rest.take(KEY)?;
    let length = rest.u16()?;
    let suites = rest.take(length.into())?;
    if !rest.0.is_empty() || suites.is_empty() || !suites.len().is_multiple_of(4) {
        return Err(Error::Configuration("its lengths do not add up"));
    }
    if !suites.chunks_exact(4).any(|suite| suite == SYMMETRIC) {
        return Ok(None);
    }
    let key = <KemSuite as Kem>::PublicKey::from_bytes(key)
        .map_err(|_| Error::Configuration("its public key is none"))?;
    Ok(Some(PublicKey { id, key }))
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(Error::Configuration("it is cut off"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, Error> {
        let bytes = self.take(2)?;
        Ok(bytes.iter().fold(0, |n, byte| n << 8 | u16::from(*byte)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_read_back() {
        let key = GatewayKey::generate(7).unwrap();
        let list = key.configurations();
        assert_eq!(list.len(), 2 + 1 + 2 + 32 + 2 + 4);
        let read = PublicKey::from_configurations(&list).unwrap();
        assert_eq!((read.id, &read.key), (7, &key.public));
        for cut in 1..list.len() {
            let error = PublicKey::from_configurations(&list[..cut]).unwrap_err();
            assert_eq!(error, Error::Configuration("it is cut off"), "{cut}");
        }
        assert_eq!(PublicKey::from_configurations(&[]), Err(Error::Suite));
    }

    #[test]
    fn other_suites_are_passed_over_and_nonsense_is_not() {
        let key = GatewayKey::generate(7).unwrap();
        let own = key.configurations();
        let p256 = [
            &[0, 72, 1, 0, 0x10][..],
            &[4; 65],
            &[0, 4, 0, 1, 0, 1][..2],
            &[0, 1],
        ]
        .concat();
        let both = [p256.clone(), own.clone()].concat();
        assert_eq!(PublicKey::from_configurations(&both).unwrap().id, 7);
        assert_eq!(PublicKey::from_configurations(&p256), Err(Error::Suite));
        let mut chacha = own.clone();
        chacha[42] = 3;
        assert_eq!(PublicKey::from_configurations(&chacha), Err(Error::Suite));
        let mut odd = own.clone();
        odd[38] = 3;
        let lengths = Err(Error::Configuration("its lengths do not add up"));
        assert_eq!(PublicKey::from_configurations(&odd), lengths);
        let nonsense = [own, vec![0, 1]].concat();
        let cut = Err(Error::Configuration("it is cut off"));
        assert_eq!(PublicKey::from_configurations(&nonsense), cut);
    }
}
