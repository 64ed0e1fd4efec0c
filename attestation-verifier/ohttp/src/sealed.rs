//! Sealed requests and answers (RFC 9458 §4).

use std::convert::Infallible;
use std::fmt;

use hpke::aead::AeadTag;
use hpke::inout::InOutBuf;
use hpke::rand_core::{self, CryptoRng, TryCryptoRng, TryRng};
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable, setup_receiver};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{self, HKDF_SHA256, KeyType};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::Error;
use crate::keys::{Aead, GatewayKey, KEY, Kdf, KemSuite, PublicKey, header, random};

const REQUEST_LABEL: &[u8] = b"message/bhttp request\0";
const ANSWER_LABEL: &[u8] = b"message/bhttp response";
/// Header of a request: key id, KEM, KDF, AEAD.
const HEADER: usize = 7;
const TAG: usize = 16;
/// Bytes of an answer's nonce and of the secret that its key comes from: the larger of the AEAD's key and nonce.
const ENTROPY: usize = 16;

/// What a sealed request has beside its content: bytes.
pub const REQUEST_OVERHEAD: usize = HEADER + KEY + TAG;
/// What a sealed answer has beside its content: bytes.
pub const ANSWER_OVERHEAD: usize = ENTROPY + TAG;

/// The HPKE `info` of requests with this header.
fn info(header: &[u8; HEADER]) -> Vec<u8> {
    [REQUEST_LABEL, header].concat()
}

/// What came out of a sealed request.
pub struct Opened {
    /// The content: a request in Binary HTTP.
    pub content: Vec<u8>,
    /// The sender's one-time public key, different in any two requests that were sealed apart. A second request with this one is the
    /// first again: nothing but a copy of it opens.
    pub encapsulated: [u8; KEY],
    /// Seals the answer.
    pub responder: Responder,
}

/// How much it is, and nothing of it.
impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opened({} bytes)", self.content.len())
    }
}

impl GatewayKey {
    /// Opens a request. Whether it was opened before is for the caller to know ([`Opened::encapsulated`]).
    ///
    /// # Errors
    /// [`Error::Short`], [`Error::OtherKey`], [`Error::Open`].
    pub fn open(&self, sealed: &[u8]) -> Result<Opened, Error> {
        let short = Error::Short {
            found: sealed.len(),
            least: REQUEST_OVERHEAD,
        };
        let Some((found, rest)) = sealed.split_first_chunk::<HEADER>() else {
            return Err(short);
        };
        let expected = header(self.id);
        if *found != expected {
            return Err(Error::OtherKey {
                found: *found,
                expected,
            });
        }
        let Some((encapsulated, rest)) = rest.split_first_chunk::<KEY>() else {
            return Err(short);
        };
        let Some((ciphertext, tag)) = rest.split_last_chunk::<TAG>() else {
            return Err(short);
        };
        let key = <KemSuite as Kem>::EncappedKey::from_bytes(encapsulated);
        let tag = AeadTag::<Aead>::from_bytes(tag).map_err(|_| Error::Open)?;
        let mut opening = setup_receiver::<Aead, Kdf, KemSuite>(
            &OpModeR::Base,
            &self.secret,
            &key.map_err(|_| Error::Open)?,
            &info(&expected),
        )
        .map_err(|_| Error::Open)?;
        let mut content = ciphertext.to_vec();
        opening
            .open_inout_detached(InOutBuf::from(content.as_mut_slice()), &[], &tag)
            .map_err(|_| Error::Open)?;
        let mut secret = Zeroizing::new([0; ENTROPY]);
        opening
            .export(ANSWER_LABEL, secret.as_mut())
            .map_err(|_| Error::Open)?;
        Ok(Opened {
            content,
            encapsulated: *encapsulated,
            responder: Responder(Answering {
                encapsulated: *encapsulated,
                secret,
            }),
        })
    }
}

impl PublicKey {
    /// Seals a request: the message to send, and what opens the answer to it. No two are alike, whatever they hold.
    ///
    /// # Errors
    /// [`Error::Random`], [`Error::Long`]; [`Error::Configuration`]: a public key that no secret can be shared with.
    pub fn seal(&self, content: &[u8]) -> Result<(Vec<u8>, Waiting), Error> {
        let mut random = System::default();
        let sealed = self.seal_with(content, &mut random)?;
        match random.failed {
            true => Err(Error::Random),
            false => Ok(sealed),
        }
    }

    fn seal_with(
        &self,
        content: &[u8],
        random: &mut impl CryptoRng,
    ) -> Result<(Vec<u8>, Waiting), Error> {
        let header = header(self.id);
        let (encapsulated, mut sealing) = hpke::setup_sender_with_rng::<Aead, Kdf, KemSuite>(
            &OpModeS::Base,
            &self.key,
            &info(&header),
            random,
        )
        .map_err(|_| Error::Configuration("its public key shares no secret"))?;
        let encapsulated: [u8; KEY] = encapsulated.to_bytes().into();
        let mut sealed = [&header[..], &encapsulated].concat();
        sealed.reserve_exact(content.len().saturating_add(TAG));
        let start = sealed.len();
        sealed.extend_from_slice(content);
        let body = sealed.get_mut(start..).unwrap_or_default();
        let tag = sealing
            .seal_inout_detached(InOutBuf::from(body), &[])
            .map_err(|_| Error::Long)?;
        sealed.extend_from_slice(&tag.to_bytes());
        let mut secret = Zeroizing::new([0; ENTROPY]);
        sealing
            .export(ANSWER_LABEL, secret.as_mut())
            .map_err(|_| Error::Long)?;
        let waiting = Waiting(Answering {
            encapsulated,
            secret,
        });
        Ok((sealed, waiting))
    }
}

/// Seals the answer to one request.
#[derive(Debug)]
pub struct Responder(Answering);

impl Responder {
    /// Seals the answer.
    ///
    /// # Errors
    /// [`Error::Random`], [`Error::Long`].
    pub fn seal(self, content: &[u8]) -> Result<Vec<u8>, Error> {
        self.seal_with(content, &*random()?)
    }

    fn seal_with(self, content: &[u8], entropy: &[u8; ENTROPY]) -> Result<Vec<u8>, Error> {
        let (key, nonce) = self.0.key(entropy)?;
        let length = content.len().saturating_add(ANSWER_OVERHEAD);
        let mut sealed = Vec::with_capacity(length);
        sealed.extend_from_slice(entropy);
        sealed.extend_from_slice(content);
        let body = sealed.get_mut(ENTROPY..).unwrap_or_default();
        let tag = key
            .seal_in_place_separate_tag(nonce, Aad::empty(), body)
            .map_err(|_| Error::Long)?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }
}

/// Opens the answer to one request.
#[derive(Debug)]
pub struct Waiting(Answering);

impl Waiting {
    /// Opens the answer: what the holder of the key said to this very request, all of it, or nothing.
    ///
    /// # Errors
    /// [`Error::Short`], [`Error::Open`].
    pub fn open(self, sealed: Vec<u8>) -> Result<Vec<u8>, Error> {
        let found = sealed.len();
        let Some((entropy, _)) = sealed.split_first_chunk::<ENTROPY>() else {
            let least = ANSWER_OVERHEAD;
            return Err(Error::Short { found, least });
        };
        let (key, nonce) = self.0.key(entropy)?;
        let mut content = sealed;
        let length = key
            .open_within(nonce, Aad::empty(), &mut content, ENTROPY..)
            .map_err(|_| Error::Open)?
            .len();
        content.truncate(length);
        Ok(content)
    }
}

/// What both ends of one exchange share.
struct Answering {
    encapsulated: [u8; KEY],
    secret: Zeroizing<[u8; ENTROPY]>,
}

impl Answering {
    /// Key and nonce of the answer that begins with this entropy (RFC 9458 §4.4).
    fn key(&self, entropy: &[u8; ENTROPY]) -> Result<(LessSafeKey, Nonce), Error> {
        let salt = [&self.encapsulated[..], entropy].concat();
        let secret = hkdf::Salt::new(HKDF_SHA256, &salt).extract(self.secret.as_ref());
        let label = [b"key".as_slice()];
        let key = secret.expand(&label, &AES_128_GCM);
        let key = UnboundKey::from(key.map_err(|_| Error::Open)?);
        let mut nonce = [0; NONCE_LEN];
        secret
            .expand(&[b"nonce".as_slice()], NonceLength)
            .and_then(|okm| okm.fill(&mut nonce))
            .map_err(|_| Error::Open)?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        Ok((LessSafeKey::new(key), nonce))
    }
}

/// Nothing of it.
impl fmt::Debug for Answering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

struct NonceLength;

impl KeyType for NonceLength {
    fn len(&self) -> usize {
        NONCE_LEN
    }
}

/// The system's randomness, for an interface that knows no failure: whether there was one is asked afterwards.
#[derive(Default)]
struct System {
    failed: bool,
}

impl TryRng for System {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        rand_core::utils::next_word_via_fill(self)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        rand_core::utils::next_word_via_fill(self)
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Infallible> {
        self.failed |= SystemRandom::new().fill(to).is_err();
        Ok(())
    }
}

impl TryCryptoRng for System {}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex<const N: usize>(text: &str) -> [u8; N] {
        hex::decode(text).unwrap().try_into().unwrap()
    }

    /// RFC 9458, appendix A.
    mod rfc_9458 {
        pub const SECRET_KEY: &str =
            "3c168975674b2fa8e465970b79c8dcf09f1c741626480bd4c6162fc5b6a98e1a";
        pub const CONFIGURATION: &str = "002d01002031e1f05a740102115220e9af918f738674aec95f54db6e04eb705aae8e79815500080001000100010003";
        pub const REQUEST: &str = "00034745540568747470730b6578616d706c652e636f6d012f";
        pub const SEALED_REQUEST: &str = "010020000100014b28f881333e7c164ffc499ad9796f877f4e1051ee6d31bad19dec96c208b4726374e469135906992e1268c594d2a10c695d858c40a026e7965e7d86b83dd440b2c0185204b4d63525";
        pub const EXPORTED: &str = "62d87a6ba569ee81014c2641f52bea36";
        pub const ENTROPY: &str = "c789e7151fcba46158ca84b04464910d";
        pub const ANSWER: &str = "0140c8";
        pub const SEALED_ANSWER: &str =
            "c789e7151fcba46158ca84b04464910d86f9013e404feea014e7be4a441f234f857fbd";
    }

    #[test]
    fn the_example_of_rfc_9458() {
        use rfc_9458::*;
        let key = GatewayKey::from_secret(1, &hex(SECRET_KEY));
        let configuration = hex::decode(CONFIGURATION).unwrap();
        let public = PublicKey::from_configurations(&configuration).unwrap();
        let own = PublicKey::from_configurations(&key.configurations()).unwrap();
        assert_eq!(public, own);

        let opened = key.open(&hex::decode(SEALED_REQUEST).unwrap()).unwrap();
        assert_eq!(hex::encode(&opened.content), REQUEST);
        let answering = &opened.responder.0;
        assert_eq!(hex::encode(answering.secret.as_ref()), EXPORTED);
        // Whoever sent that request opens the answer to it.
        let waiting = Waiting(Answering {
            encapsulated: answering.encapsulated,
            secret: answering.secret.clone(),
        });
        let answer = hex::decode(ANSWER).unwrap();
        let sealed = opened.responder.seal_with(&answer, &hex(ENTROPY)).unwrap();
        assert_eq!(hex::encode(&sealed), SEALED_ANSWER);
        assert_eq!(waiting.open(sealed).unwrap(), answer);
    }

    /// RFC 9180, appendix A.1.1: the suite, as the library behind it has it.
    #[test]
    fn the_vectors_of_rfc_9180() {
        struct Fixed([u8; 32]);
        impl TryRng for Fixed {
            type Error = Infallible;
            fn try_next_u32(&mut self) -> Result<u32, Infallible> {
                unreachable!("key material is drawn as bytes")
            }
            fn try_next_u64(&mut self) -> Result<u64, Infallible> {
                unreachable!("key material is drawn as bytes")
            }
            fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Infallible> {
                to.copy_from_slice(&self.0);
                Ok(())
            }
        }
        impl TryCryptoRng for Fixed {}

        let seed = "6db9df30aa07dd42ee5e8181afdb977e538f5e1fec8a06223f33f7013e525037";
        let (secret, public) = KemSuite::derive_keypair(&hex::<32>(seed));
        assert_eq!(
            hex::encode(public.to_bytes()),
            "3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d"
        );
        let seed = "7268600d403fce431561aef583ee1613527cff655c1343f29812e66706df3234";
        let info = hex::<20>("4f6465206f6e2061204772656369616e2055726e");
        let (key, mut sealing) = hpke::setup_sender_with_rng::<Aead, Kdf, KemSuite>(
            &OpModeS::Base,
            &public,
            &info,
            &mut Fixed(hex(seed)),
        )
        .unwrap();
        assert_eq!(
            hex::encode(key.to_bytes()),
            "37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431"
        );
        let mut opening =
            setup_receiver::<Aead, Kdf, KemSuite>(&OpModeR::Base, &secret, &key, &info).unwrap();
        let content = b"Beauty is truth, truth beauty";
        for (about, expected) in [
            (
                b"Count-0",
                "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a",
            ),
            (
                b"Count-1",
                "af2d7e9ac9ae7e270f46ba1f975be53c09f8d875bdc8535458c2494e8a6eab251c03d0c22a56b8ca42c2063b84",
            ),
        ] {
            let sealed = sealing.seal(content, about).unwrap();
            assert_eq!(hex::encode(&sealed), expected);
            assert_eq!(opening.open(&sealed, about).unwrap(), content);
        }
        for (context, expected) in [
            (
                &b""[..],
                "3853fe2b4035195a573ffc53856e77058e15d9ea064de3e59f4961d0095250ee",
            ),
            (
                &[0],
                "2e8f0b54673c7029649d4eb9d5e33bf1872cf76d623ff164ac185da9e88c21a5",
            ),
            (
                b"TestContext",
                "e9e43065102c3836401bed8c3c3c75ae46be1639869391d62c61f1ec7af54931",
            ),
        ] {
            let mut exported = [[0; 32]; 2];
            sealing.export(context, &mut exported[0]).unwrap();
            opening.export(context, &mut exported[1]).unwrap();
            assert_eq!(exported.map(hex::encode), [expected; 2]);
        }
    }

    #[test]
    fn every_flip_and_every_cut_is_refused() {
        let key = GatewayKey::generate(3).unwrap();
        let public = PublicKey::from_configurations(&key.configurations()).unwrap();
        let (sealed, _) = public.seal(b"question").unwrap();
        assert_eq!(sealed.len(), 8 + REQUEST_OVERHEAD);
        assert_eq!(key.open(&sealed).unwrap().content, b"question");
        for at in 0..sealed.len() {
            assert!(key.open(&sealed[..at]).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut flipped = sealed.clone();
                flipped[at] ^= 1 << bit;
                let error = key.open(&flipped).unwrap_err();
                let other = matches!(error, Error::OtherKey { .. });
                assert_eq!(other, at < HEADER, "byte {at}, bit {bit}: {error}");
            }
        }
        let longer = [&sealed[..], &[0]].concat();
        assert_eq!(key.open(&longer).unwrap_err(), Error::Open);

        let ask = || {
            let (sealed, waiting) = public.seal(b"question").unwrap();
            (waiting, key.open(&sealed).unwrap().responder)
        };
        let (waiting, responder) = ask();
        let answer = responder.seal(b"answer").unwrap();
        assert_eq!(answer.len(), 6 + ANSWER_OVERHEAD);
        for at in 0..answer.len() {
            let again = || {
                Waiting(Answering {
                    encapsulated: waiting.0.encapsulated,
                    secret: waiting.0.secret.clone(),
                })
            };
            assert!(again().open(answer[..at].to_vec()).is_err(), "cut at {at}");
            let mut flipped = answer.clone();
            flipped[at] ^= 1;
            assert_eq!(again().open(flipped), Err(Error::Open), "byte {at}");
        }
        // Answers of two requests, exchanged.
        let (other, responder) = ask();
        let other_answer = responder.seal(b"answer").unwrap();
        assert_eq!(waiting.open(other_answer), Err(Error::Open));
        assert_eq!(other.open(answer), Err(Error::Open));
    }

    /// Points of small order, with which every secret would be known beforehand: zeros (RFC 9180 §7.1.4).
    #[test]
    fn no_secret_is_shared_with_points_of_small_order() {
        let key = GatewayKey::generate(3).unwrap();
        let list = key.configurations();
        let public = PublicKey::from_configurations(&list).unwrap();
        let (honest, _) = public.seal(b"question").unwrap();
        assert!(key.open(&honest).is_ok());
        for (first, middle, last) in [
            ("00", "00".repeat(30), "00"),
            ("01", "00".repeat(30), "00"),
            ("ec", "ff".repeat(30), "7f"),
            ("ed", "ff".repeat(30), "7f"),
            ("ee", "ff".repeat(30), "7f"),
            (
                "e0",
                "eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b8".into(),
                "00",
            ),
            (
                "5f",
                "9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f11".into(),
                "57",
            ),
        ] {
            let point = hex::decode(format!("{first}{middle}{last}")).unwrap();
            let mut theirs = list.clone();
            theirs[5..5 + KEY].copy_from_slice(&point);
            let theirs = PublicKey::from_configurations(&theirs).unwrap();
            let error = theirs.seal(b"question").unwrap_err();
            assert!(matches!(error, Error::Configuration(_)), "{error}");
            let mut sealed = honest.clone();
            sealed[HEADER..HEADER + KEY].copy_from_slice(&point);
            assert_eq!(key.open(&sealed).unwrap_err(), Error::Open);

            // What a gateway that did not look would take: sealed under the secret that all of them share.
            let setup = |encapsulated: &[u8]| {
                let key = <KemSuite as Kem>::EncappedKey::from_bytes(encapsulated).unwrap();
                let secret = &GatewayKey::generate(3).unwrap().secret;
                let info = info(&header(3));
                setup_receiver::<Aead, Kdf, KemSuite>(&OpModeR::Base, secret, &key, &info).is_ok()
            };
            assert_eq!(
                (setup(&point), setup(&honest[HEADER..HEADER + KEY])),
                (false, true)
            );
        }
    }

    #[test]
    fn nothing_of_a_request_is_shown() {
        let key = GatewayKey::generate(3).unwrap();
        let public = PublicKey::from_configurations(&key.configurations()).unwrap();
        let (sealed, waiting) = public.seal(b"secret").unwrap();
        let opened = key.open(&sealed).unwrap();
        assert_eq!(format!("{opened:?}"), "Opened(6 bytes)");
        let shown = format!("{key:?} {waiting:?} {:?}", opened.responder);
        assert_eq!(shown, "GatewayKey(3) Waiting(…) Responder(…)");
    }

    #[test]
    fn another_key_opens_nothing() {
        let keys = [3, 3, 4].map(|id| GatewayKey::generate(id).unwrap());
        let public = PublicKey::from_configurations(&keys[0].configurations()).unwrap();
        let (sealed, _) = public.seal(b"question").unwrap();
        assert!(keys[0].open(&sealed).is_ok());
        assert_eq!(keys[1].open(&sealed).unwrap_err(), Error::Open);
        let error = keys[2].open(&sealed).unwrap_err();
        assert!(matches!(error, Error::OtherKey { .. }), "{error}");
    }
}
