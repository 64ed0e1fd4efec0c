//! Receipts: COSE_Sign1 over a flat map of claims (§4).

use crate::backend::signature::{Ed25519KeyPair, KeyPair};
use crate::cbor::{Reader, Writer};
use crate::error::bounded;
use crate::guarantee::WireReader;
use crate::limits::{MAX_INTEGER, MAX_RECEIPT};
use crate::strict;
use crate::text::hex_encode;
use crate::{Digest, FormatError, GuaranteeSet, Result, ed25519};

/// Claim 265 of every receipt of version 1.
pub const PROFILE: &str = "urn:uuid:1b847d3a-7d20-4241-828d-5fc032fd52d8";

/// Labels of the claims.
mod label {
    pub const ISS: i64 = 1;
    pub const IAT: i64 = 6;
    pub const CTI: i64 = 7;
    pub const NONCE: i64 = 10;
    pub const PROFILE: i64 = 265;
    pub const MODEL_DIGEST: i64 = -65539;
    pub const SEQUENCE: i64 = -65545;
    pub const CONFIG_DIGEST: i64 = -65600;
    pub const KEYSET_DIGEST: i64 = -65601;
    pub const GUARANTEES: i64 = -65602;
    pub const CATALOG: i64 = -65603;
    pub const REQUEST: i64 = -65604;
    pub const RESPONSE: i64 = -65605;
    pub const INPUTS: i64 = -65606;
    pub const OUTPUTS: i64 = -65607;
    pub const STATUS: i64 = -65608;
    pub const PAYMENT: i64 = -65609;
}

/// What a receipt says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claims {
    /// The keyset's name. ≤ 256 bytes.
    pub iss: String,
    /// Unix seconds by the guest's clock, ≤ 2^53−1.
    pub iat: u64,
    /// The receipt's id.
    pub cti: [u8; 16],
    /// The caller's, 8 to 64 bytes.
    pub nonce: Option<Vec<u8>>,
    /// What answered. With `config_digest`: both or none, and both if `status` is 0.
    pub model_digest: Option<Digest>,
    /// How it was set.
    pub config_digest: Option<Digest>,
    /// The receipt's number under its keyset, from 0, without gaps.
    pub sequence: u64,
    /// The keyset.
    pub keyset_digest: Digest,
    /// What was asked for.
    pub guarantees: GuaranteeSet,
    /// Epoch and digest of the catalog at admission.
    pub catalog: (u64, Digest),
    /// Commitment to the request.
    pub request: Digest,
    /// Commitment to the response.
    pub response: Digest,
    /// Commitment to the input tensors; there if and only if `status` is 0.
    pub inputs: Option<Digest>,
    /// Commitment to the output tensors; there if and only if `status` is 0.
    pub outputs: Option<Digest>,
    /// 0 answered, else the HTTP status (400 to 599) of a refusal after admission.
    pub status: u16,
    /// Payment binding; none if unpaid.
    pub payment: Option<PaymentClaim>,
}

/// Claim -65609 (§8). Each text ≤ 256 bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // Named as in x402.
pub struct PaymentClaim {
    pub mode: String,
    pub payer: String,
    pub network: String,
    pub asset: String,
    pub pay_to: String,
    pub amount: String,
    /// The nonce that the caller signed; `bind` of §8 if `mode` is `bound`.
    pub nonce: [u8; 32],
    /// SHA-256 of the payment payload.
    pub payload: Digest,
}

impl Claims {
    /// Rules that hold between claims, and bounds that their types do not hold.
    fn check(&self) -> Result<()> {
        strict::text("iss", &self.iss)?;
        if self.iat > MAX_INTEGER {
            return Err(FormatError::value("iat", self.iat, "at most 2^53−1"));
        }
        if let Some(nonce) = &self.nonce {
            strict::nonce(nonce)?;
        }
        let tensors = (self.inputs.is_some(), self.outputs.is_some());
        let digests = (self.model_digest.is_some(), self.config_digest.is_some());
        let presence = |present: (bool, bool)| match present {
            (true, true) => "both",
            (false, false) => "neither",
            _ => "one of them",
        };
        match self.status {
            0 if tensors != (true, true) => Err(FormatError::value(
                "claims -65606 and -65607",
                presence(tensors),
                "both in an answer (status 0)",
            )),
            0 if digests != (true, true) => Err(FormatError::value(
                "claims -65539 and -65600",
                presence(digests),
                "both in an answer (status 0)",
            )),
            0 => Ok(()),
            400..=599 if tensors != (false, false) => Err(FormatError::value(
                "claims -65606 and -65607",
                presence(tensors),
                "neither in a refusal (status not 0)",
            )),
            400..=599 if digests.0 != digests.1 => Err(FormatError::value(
                "claims -65539 and -65600",
                presence(digests),
                "both or neither in a refusal",
            )),
            400..=599 => Ok(()),
            status => Err(FormatError::value(
                "status",
                status,
                "0, or an HTTP status from 400 to 599",
            )),
        }
    }

    /// The payload: a map of claims, keys in the order of their encodings (RFC 8949 §4.2.1).
    fn write(&self, to: &mut Writer) {
        let optional = [
            self.nonce.is_some(),
            self.model_digest.is_some(),
            self.config_digest.is_some(),
            self.inputs.is_some(),
            self.outputs.is_some(),
            self.payment.is_some(),
        ];
        to.map(11 + optional.iter().filter(|present| **present).count());
        to.label(label::ISS);
        to.text(&self.iss);
        to.label(label::IAT);
        to.unsigned(self.iat);
        to.label(label::CTI);
        to.bytes(&self.cti);
        if let Some(nonce) = &self.nonce {
            to.label(label::NONCE);
            to.bytes(nonce);
        }
        to.label(label::PROFILE);
        to.text(PROFILE);
        let digest = |to: &mut Writer, label: i64, digest: &Digest| {
            to.label(label);
            to.bytes(&digest.0);
        };
        let optional = |to: &mut Writer, label: i64, value: &Option<Digest>| {
            if let Some(value) = value {
                digest(to, label, value);
            }
        };
        optional(to, label::MODEL_DIGEST, &self.model_digest);
        to.label(label::SEQUENCE);
        to.unsigned(self.sequence);
        optional(to, label::CONFIG_DIGEST, &self.config_digest);
        digest(to, label::KEYSET_DIGEST, &self.keyset_digest);
        to.label(label::GUARANTEES);
        to.array(self.guarantees.iter().count());
        for guarantee in self.guarantees.iter() {
            to.text(guarantee.name());
        }
        to.label(label::CATALOG);
        to.array(2);
        to.unsigned(self.catalog.0);
        to.bytes(&self.catalog.1.0);
        digest(to, label::REQUEST, &self.request);
        digest(to, label::RESPONSE, &self.response);
        optional(to, label::INPUTS, &self.inputs);
        optional(to, label::OUTPUTS, &self.outputs);
        to.label(label::STATUS);
        to.unsigned(u64::from(self.status));
        if let Some(payment) = &self.payment {
            to.label(label::PAYMENT);
            payment.write(to);
        }
    }

    fn read(payload: &[u8]) -> Result<Self> {
        let mut from = Reader::new(payload);
        let count = from.map()?;
        let mut draft = Draft::default();
        let mut last: &[u8] = &[];
        for _ in 0..count {
            let (label, written) = from.label(last)?;
            last = written;
            draft.claim(label, &mut from)?;
        }
        from.end()?;
        let claims = draft.finish()?;
        claims.check()?;
        Ok(claims)
    }
}

impl PaymentClaim {
    fn write(&self, to: &mut Writer) {
        to.array(8);
        for text in [
            &self.mode,
            &self.payer,
            &self.network,
            &self.asset,
            &self.pay_to,
            &self.amount,
        ] {
            to.text(text);
        }
        to.bytes(&self.nonce);
        to.bytes(&self.payload.0);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        expect_items(from, 8)?;
        Ok(Self {
            mode: short_text(from, "payment mode")?,
            payer: short_text(from, "payment payer")?,
            network: short_text(from, "payment network")?,
            asset: short_text(from, "payment asset")?,
            pay_to: short_text(from, "payment pay_to")?,
            amount: short_text(from, "payment amount")?,
            nonce: from.array_of()?,
            payload: Digest(from.array_of()?),
        })
    }
}

fn short_text(from: &mut Reader<'_>, field: &'static str) -> Result<String> {
    let text = from.text()?;
    strict::text(field, text)?;
    Ok(text.to_owned())
}

fn expect_items(from: &mut Reader<'_>, expected: usize) -> Result<()> {
    match from.array()? {
        found if found == expected => Ok(()),
        found => Err(from.error(format!("{found} items"), "as many items as the claim has")),
    }
}

/// Claims as they are read, before it is known that none is missing.
#[derive(Default)]
struct Draft {
    iss: Option<String>,
    iat: Option<u64>,
    cti: Option<[u8; 16]>,
    nonce: Option<Vec<u8>>,
    profile: bool,
    model_digest: Option<Digest>,
    config_digest: Option<Digest>,
    sequence: Option<u64>,
    keyset_digest: Option<Digest>,
    guarantees: Option<GuaranteeSet>,
    catalog: Option<(u64, Digest)>,
    request: Option<Digest>,
    response: Option<Digest>,
    inputs: Option<Digest>,
    outputs: Option<Digest>,
    status: Option<u16>,
    payment: Option<PaymentClaim>,
}

impl Draft {
    fn claim(&mut self, label: i64, from: &mut Reader<'_>) -> Result<()> {
        let digest = |from: &mut Reader<'_>| Ok::<_, FormatError>(Some(Digest(from.array_of()?)));
        match label {
            label::ISS => self.iss = Some(short_text(from, "iss")?),
            label::IAT => self.iat = Some(from.unsigned()?),
            label::CTI => self.cti = Some(from.array_of()?),
            label::NONCE => {
                let nonce = from.bytes()?;
                strict::nonce(nonce)?;
                self.nonce = Some(nonce.to_vec());
            }
            label::PROFILE => {
                let profile = from.text()?;
                if profile != PROFILE {
                    return Err(FormatError::value("profile", profile, PROFILE));
                }
                self.profile = true;
            }
            label::MODEL_DIGEST => self.model_digest = digest(from)?,
            label::CONFIG_DIGEST => self.config_digest = digest(from)?,
            label::SEQUENCE => self.sequence = Some(from.unsigned()?),
            label::KEYSET_DIGEST => self.keyset_digest = digest(from)?,
            label::GUARANTEES => {
                let mut names = WireReader::default();
                // Names are strictly ascending, so a longer array stops at its first surplus name.
                for _ in 0..from.array()? {
                    names.push(from.text()?)?;
                }
                self.guarantees = Some(names.finish()?);
            }
            label::CATALOG => {
                expect_items(from, 2)?;
                self.catalog = Some((from.unsigned()?, Digest(from.array_of()?)));
            }
            label::REQUEST => self.request = digest(from)?,
            label::RESPONSE => self.response = digest(from)?,
            label::INPUTS => self.inputs = digest(from)?,
            label::OUTPUTS => self.outputs = digest(from)?,
            label::STATUS => {
                let status = from.unsigned()?;
                self.status = Some(u16::try_from(status).map_err(|_| {
                    FormatError::value("status", status, "0, or an HTTP status from 400 to 599")
                })?);
            }
            label::PAYMENT => self.payment = Some(PaymentClaim::read(from)?),
            other => {
                return Err(FormatError::value("claim", other, "a claim of version 1"));
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Claims> {
        fn need<T>(claim: Option<T>, name: &'static str) -> Result<T> {
            claim.ok_or_else(|| FormatError::value(name, "no such claim", "the claim"))
        }
        need(self.profile.then_some(()), "claim 265 (profile)")?;
        Ok(Claims {
            iss: need(self.iss, "claim 1 (iss)")?,
            iat: need(self.iat, "claim 6 (iat)")?,
            cti: need(self.cti, "claim 7 (cti)")?,
            nonce: self.nonce,
            model_digest: self.model_digest,
            config_digest: self.config_digest,
            sequence: need(self.sequence, "claim -65545 (sequence)")?,
            keyset_digest: need(self.keyset_digest, "claim -65601 (keyset)")?,
            guarantees: need(self.guarantees, "claim -65602 (guarantees)")?,
            catalog: need(self.catalog, "claim -65603 (catalog)")?,
            request: need(self.request, "claim -65604 (request)")?,
            response: need(self.response, "claim -65605 (response)")?,
            inputs: self.inputs,
            outputs: self.outputs,
            status: need(self.status, "claim -65608 (status)")?,
            payment: self.payment,
        })
    }
}

/// The protected header: `{1: -19, 4: kid}`, Ed25519 of RFC 9864.
fn protected_header(kid: [u8; 8]) -> [u8; 13] {
    let [a, b, c, d, e, f, g, h] = kid;
    [0xa2, 0x01, 0x32, 0x04, 0x48, a, b, c, d, e, f, g, h]
}

/// The kid of a public key: the first 8 bytes of its SHA-256. A hint, not an identity.
pub fn kid_of(key: &[u8; 32]) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = Digest::of(key).0;
    [a, b, c, d, e, f, g, h]
}

/// RFC 9052 §4.4: what the signature of a COSE_Sign1 is over. external_aad is empty.
fn to_be_signed(protected: &[u8; 13], payload: &[u8]) -> Vec<u8> {
    let mut to = Writer(Vec::with_capacity(payload.len() + 40));
    to.array(4);
    to.text("Signature1");
    to.bytes(protected);
    to.bytes(&[]);
    to.bytes(payload);
    to.0
}

/// A receipt that is written as it must be. Whether its signature holds is [`Receipt::verify`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Receipt {
    /// What it says.
    pub claims: Claims,
    cose: Vec<u8>,
    kid: [u8; 8],
    to_be_signed: Vec<u8>,
    signature: [u8; 64],
}

impl Receipt {
    /// Reads COSE_Sign1 bytes.
    ///
    /// # Errors
    /// More than 4 KiB; not deterministic; another profile, algorithm or header; a claim missing,
    /// unknown, out of its bounds, or not allowed with its status.
    pub fn parse(cose: &[u8]) -> Result<Receipt> {
        bounded("receipt", cose.len(), MAX_RECEIPT)?;
        let mut from = Reader::new(cose);
        let tag = from.tag()?;
        if tag != 18 {
            return Err(FormatError::value("receipt tag", tag, "18 (COSE_Sign1)"));
        }
        expect_items(&mut from, 4)?;
        let protected: [u8; 13] = from.array_of()?;
        let [.., a, b, c, d, e, f, g, h] = protected;
        let kid = [a, b, c, d, e, f, g, h];
        if protected != protected_header(kid) {
            return Err(FormatError::value(
                "protected header",
                hex_encode(&protected),
                "{1: -19, 4: kid of 8 bytes}",
            ));
        }
        let unprotected = from.map()?;
        if unprotected != 0 {
            return Err(FormatError::value(
                "unprotected header",
                format_args!("{unprotected} members"),
                "none",
            ));
        }
        let payload = from.bytes()?;
        let signature = from.array_of()?;
        from.end()?;
        Ok(Receipt {
            claims: Claims::read(payload)?,
            cose: cose.to_vec(),
            kid,
            to_be_signed: to_be_signed(&protected, payload),
            signature,
        })
    }

    /// The bytes that were parsed.
    pub fn cose(&self) -> &[u8] {
        &self.cose
    }

    /// The key hint.
    pub fn kid(&self) -> [u8; 8] {
        self.kid
    }

    /// Whether the signature is one by `key`, strictly (see [`crate::ed25519`]), and the hint is
    /// this key's.
    pub fn verify(&self, key: &[u8; 32]) -> bool {
        self.kid == kid_of(key) && ed25519::verify(key, &self.to_be_signed, &self.signature)
    }

    /// `cti` as 32 hex digits: the receipt's name in URLs.
    pub fn id(&self) -> String {
        hex_encode(&self.claims.cti)
    }

    /// SHA-256 of the bytes: what its log entry holds.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.cose)
    }
}

/// Signs receipts with one key, which it does not give out.
pub struct ReceiptSigner {
    key: Ed25519KeyPair,
    public: [u8; 32],
    protected: [u8; 13],
}

impl ReceiptSigner {
    /// The signer of a 32-byte Ed25519 seed. The caller erases the seed.
    ///
    /// # Errors
    /// ring does not take the seed.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self> {
        let (key, public) = ed25519::key_pair(seed)?;
        debug_assert_eq!(key.public_key().as_ref(), public);
        Ok(Self {
            key,
            public,
            protected: protected_header(kid_of(&public)),
        })
    }

    /// The public key, raw.
    pub fn public_key(&self) -> [u8; 32] {
        self.public
    }

    /// The COSE_Sign1 bytes. The claims must keep the bounds of [`Claims`]; what does not, is
    /// written all the same and refused by [`Receipt::parse`].
    pub fn sign(&self, claims: &Claims) -> Vec<u8> {
        let mut payload = Writer(Vec::with_capacity(1024));
        claims.write(&mut payload);
        let payload = payload.0;
        let signature = self.key.sign(&to_be_signed(&self.protected, &payload));
        let mut out = Writer(Vec::with_capacity(payload.len() + 96));
        out.tag(18);
        out.array(4);
        out.bytes(&self.protected);
        out.map(0);
        out.bytes(&payload);
        out.bytes(signature.as_ref());
        out.0
    }
}

impl std::fmt::Debug for ReceiptSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ReceiptSigner({})", hex_encode(&self.public))
    }
}
