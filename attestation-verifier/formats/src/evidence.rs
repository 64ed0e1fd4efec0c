//! Evidence objects: a quote and what comes with it (§7). Decoded here, judged by the verifier.

use crate::error::bounded;
use crate::limits::{MAX_COLLATERAL, MAX_COLLATERAL_ITEMS, MAX_EVENT_LOG, MAX_QUOTE};
use crate::strict::{self, at_most, nullable, present};
use crate::text::{Base64Bytes, HexBytes, base64_encode};
use crate::{FormatError, Purpose, Result, jcs};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;

/// The kind of trusted execution environment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Tee {
    /// AMD SEV-SNP; `quote` is an attestation report.
    #[serde(rename = "sev-snp")]
    SevSnp,
    /// Intel TDX; `quote` is a DCAP quote.
    #[serde(rename = "tdx")]
    Tdx,
}

impl Tee {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Tee::SevSnp => "sev-snp",
            Tee::Tdx => "tdx",
        }
    }
}

impl fmt::Display for Tee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A quote, what it was made for, and what is needed to judge it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "Wire")]
pub struct Evidence {
    /// What the quote was made for; none for evidence of other systems.
    pub purpose: Option<Purpose>,
    /// The caller's nonce, 8 to 64 bytes, where the purpose has one.
    #[serde(serialize_with = "hex_or_null")]
    pub nonce: Option<Vec<u8>>,
    /// Who made the quote.
    pub tee: Tee,
    /// The quote as made, ≤ 16 KiB.
    #[serde(serialize_with = "base64")]
    pub quote: Vec<u8>,
    /// Certificates and revocation data; attached by the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collateral: Option<Collateral>,
    /// What was measured at run time, where the platform keeps it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_log: Option<EventLog>,
}

/// Collateral of one TEE. Every part may be missing: the verifier says so.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(untagged)]
pub enum Collateral {
    /// Of SEV-SNP.
    SevSnp(SnpCollateral),
    /// Of TDX.
    Tdx(TdxCollateral),
}

/// AMD's certificates, each DER.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct SnpCollateral {
    /// The VCEK or VLEK certificate.
    #[serde(serialize_with = "base64_opt", skip_serializing_if = "Option::is_none")]
    pub vek: Option<Vec<u8>>,
    /// Certificates above it. ≤ 16.
    #[serde(serialize_with = "base64_list")]
    pub chain: Vec<Vec<u8>>,
    /// Revocation lists. ≤ 16.
    #[serde(serialize_with = "base64_list")]
    pub crls: Vec<Vec<u8>>,
}

/// Intel's collateral as its provisioning service gives it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct TdxCollateral {
    /// The `tcbInfo` object, the very text that is signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcb_info: Option<String>,
    /// Its signature, r ‖ s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcb_info_signature: Option<HexBytes>,
    /// PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcb_info_issuer_chain: Option<String>,
    /// The `enclaveIdentity` object of the quoting enclave, the very text that is signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qe_identity: Option<String>,
    /// Its signature, r ‖ s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qe_identity_signature: Option<HexBytes>,
    /// PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qe_identity_issuer_chain: Option<String>,
    /// DER.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pck_crl: Option<HexBytes>,
    /// PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pck_crl_issuer_chain: Option<String>,
    /// DER.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_ca_crl: Option<HexBytes>,
}

/// What was measured at run time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventLog {
    /// Its format, `ccel` for one. ≤ 256 bytes.
    pub format: String,
    /// As the platform gave it, padding included.
    pub data: Base64Bytes,
}

impl EventLog {
    /// The data without its padding of 0x00 or 0xff at the end, which counts in no bound.
    pub fn trimmed(&self) -> &[u8] {
        let mut data = self.data.0.as_slice();
        while let Some((0x00 | 0xff, rest)) = data.split_last() {
            data = rest;
        }
        data
    }

    /// The bounds of §7 and "Conventions".
    ///
    /// # Errors
    /// [`FormatError::TooLong`].
    pub fn check(&self) -> Result<()> {
        strict::text("event log format", &self.format)?;
        bounded("event log", self.trimmed().len(), MAX_EVENT_LOG)
    }
}

impl Evidence {
    /// Reads an evidence file: JCS and one newline.
    ///
    /// # Errors
    /// Not canonical, members missing or unknown, something out of its bounds.
    pub fn parse(file: &[u8]) -> Result<Self> {
        jcs::from_slice(jcs::file_content(file)?)
    }

    /// Bytes of quote, collateral and event log, decoded.
    pub fn size(&self) -> usize {
        let log = self.event_log.as_ref().map_or(0, |log| log.data.0.len());
        self.quote.len() + self.collateral.as_ref().map_or(0, Collateral::size) + log
    }

    /// Writes an evidence file.
    pub fn to_file(&self) -> Vec<u8> {
        // Text alone: there is nothing in it that could not be written.
        jcs::must_write(jcs::to_file(self))
    }
}

/// Collateral by itself, as the host gives it to who has evidence without any (`docs/formats.md` §10).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CollateralFile {
    /// The kind of platform it is for.
    pub tee: Tee,
    /// What there is; it proves itself.
    pub collateral: Collateral,
}

strict::version!(CollateralV = "touchstone/collateral/1");

impl CollateralFile {
    /// Reads a collateral file: JCS and one newline.
    ///
    /// # Errors
    /// Not canonical, members missing or unknown, more than 1 MiB of it.
    pub fn parse(file: &[u8]) -> Result<Self> {
        let wire: CollateralWire = jcs::from_slice(jcs::file_content(file)?)?;
        Ok(Self {
            tee: wire.tee,
            collateral: wire.collateral.of(wire.tee)?,
        })
    }

    /// Writes a collateral file.
    pub fn to_file(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Written<'a> {
            collateral: &'a Collateral,
            tee: Tee,
            v: CollateralV,
        }
        jcs::must_write(jcs::to_file(&Written {
            collateral: &self.collateral,
            tee: self.tee,
            v: CollateralV,
        }))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CollateralWire {
    collateral: WireCollateral,
    tee: Tee,
    #[serde(rename = "v")]
    _v: CollateralV,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    #[serde(deserialize_with = "nullable")]
    purpose: Option<Purpose>,
    #[serde(deserialize_with = "nullable")]
    nonce: Option<HexBytes>,
    tee: Tee,
    quote: Base64Bytes,
    /// Absent and null are the same here: none.
    #[serde(default)]
    collateral: Option<WireCollateral>,
    #[serde(default, deserialize_with = "present")]
    event_log: Option<EventLog>,
}

/// Members of both kinds: `tee` says which kind it must be, and comes later in the text.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct WireCollateral {
    #[serde(deserialize_with = "present")]
    vek: Option<Base64Bytes>,
    #[serde(deserialize_with = "some_list")]
    chain: Option<Vec<Base64Bytes>>,
    #[serde(deserialize_with = "some_list")]
    crls: Option<Vec<Base64Bytes>>,
    #[serde(deserialize_with = "present")]
    tcb_info: Option<String>,
    #[serde(deserialize_with = "present")]
    tcb_info_signature: Option<HexBytes>,
    #[serde(deserialize_with = "present")]
    tcb_info_issuer_chain: Option<String>,
    #[serde(deserialize_with = "present")]
    qe_identity: Option<String>,
    #[serde(deserialize_with = "present")]
    qe_identity_signature: Option<HexBytes>,
    #[serde(deserialize_with = "present")]
    qe_identity_issuer_chain: Option<String>,
    #[serde(deserialize_with = "present")]
    pck_crl: Option<HexBytes>,
    #[serde(deserialize_with = "present")]
    pck_crl_issuer_chain: Option<String>,
    #[serde(deserialize_with = "present")]
    root_ca_crl: Option<HexBytes>,
}

fn some_list<'de, D: serde::Deserializer<'de>>(
    from: D,
) -> std::result::Result<Option<Vec<Base64Bytes>>, D::Error> {
    at_most::<_, _, MAX_COLLATERAL_ITEMS>(from).map(Some)
}

impl WireCollateral {
    fn of(self, tee: Tee) -> Result<Collateral> {
        let snp = self.vek.is_some() || self.chain.is_some() || self.crls.is_some();
        let tdx = TdxCollateral {
            tcb_info: self.tcb_info,
            tcb_info_signature: self.tcb_info_signature,
            tcb_info_issuer_chain: self.tcb_info_issuer_chain,
            qe_identity: self.qe_identity,
            qe_identity_signature: self.qe_identity_signature,
            qe_identity_issuer_chain: self.qe_identity_issuer_chain,
            pck_crl: self.pck_crl,
            pck_crl_issuer_chain: self.pck_crl_issuer_chain,
            root_ca_crl: self.root_ca_crl,
        };
        let list = |items: Option<Vec<Base64Bytes>>| -> Vec<Vec<u8>> {
            items.into_iter().flatten().map(|item| item.0).collect()
        };
        let collateral = match tee {
            Tee::SevSnp if tdx == TdxCollateral::default() => Collateral::SevSnp(SnpCollateral {
                vek: self.vek.map(|vek| vek.0),
                chain: list(self.chain),
                crls: list(self.crls),
            }),
            Tee::Tdx if !snp => Collateral::Tdx(tdx),
            _ => {
                return Err(FormatError::value(
                    "collateral",
                    "members of another TEE",
                    "the members of the evidence's own TEE",
                ));
            }
        };
        bounded("collateral", collateral.size(), MAX_COLLATERAL)?;
        Ok(collateral)
    }
}

impl Collateral {
    /// Bytes of all members, decoded.
    pub fn size(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let hex = |bytes: &Option<HexBytes>| bytes.as_ref().map_or(0, |bytes| bytes.0.len());
        match self {
            Collateral::SevSnp(snp) => {
                let lists = snp.chain.iter().chain(&snp.crls).map(Vec::len);
                snp.vek.as_ref().map_or(0, Vec::len) + lists.sum::<usize>()
            }
            Collateral::Tdx(tdx) => {
                text(&tdx.tcb_info)
                    + hex(&tdx.tcb_info_signature)
                    + text(&tdx.tcb_info_issuer_chain)
                    + text(&tdx.qe_identity)
                    + hex(&tdx.qe_identity_signature)
                    + text(&tdx.qe_identity_issuer_chain)
                    + hex(&tdx.pck_crl)
                    + text(&tdx.pck_crl_issuer_chain)
                    + hex(&tdx.root_ca_crl)
            }
        }
    }
}

impl TryFrom<Wire> for Evidence {
    type Error = FormatError;

    fn try_from(wire: Wire) -> Result<Self> {
        bounded("quote", wire.quote.0.len(), MAX_QUOTE)?;
        if let Some(nonce) = &wire.nonce {
            strict::nonce(&nonce.0)?;
        }
        if let Some(log) = &wire.event_log {
            log.check()?;
        }
        Ok(Evidence {
            purpose: wire.purpose,
            nonce: wire.nonce.map(|nonce| nonce.0),
            tee: wire.tee,
            quote: wire.quote.0,
            collateral: wire
                .collateral
                .map(|collateral| collateral.of(wire.tee))
                .transpose()?,
            event_log: wire.event_log,
        })
    }
}

/// REPORT_DATA of a quote, found by the quote's layout; none when it has not that layout. Says
/// nothing about whether the quote is genuine.
pub fn quote_report_data(tee: Tee, quote: &[u8]) -> Option<[u8; 64]> {
    /// Bytes before REPORT_DATA in a TD report body, 1.0 and 1.5 alike.
    const IN_BODY: usize = 520;
    let u16_at = |at: usize| {
        quote
            .get(at..)?
            .first_chunk()
            .copied()
            .map(u16::from_le_bytes)
    };
    let u32_at = |at: usize| {
        quote
            .get(at..)?
            .first_chunk()
            .copied()
            .map(u32::from_le_bytes)
    };
    let at = match tee {
        // AMD 56860, ATTESTATION_REPORT: 1184 bytes.
        Tee::SevSnp if quote.len() == 1184 => 0x50,
        Tee::SevSnp => return None,
        // Intel TDX DCAP Quoting Library API, A.3: a header of 48 bytes, in version 5 followed by
        // the body's type (2 is TD 1.0, 3 is TD 1.5) and size.
        Tee::Tdx if u32_at(4)? == 0x81 => match u16_at(0)? {
            4 => 48 + IN_BODY,
            5 if matches!((u16_at(48)?, u32_at(50)?), (2, 584) | (3, 648)) => 54 + IN_BODY,
            _ => return None,
        },
        Tee::Tdx => return None,
    };
    quote.get(at..)?.first_chunk().copied()
}

fn base64<S: Serializer>(bytes: &[u8], to: S) -> std::result::Result<S::Ok, S::Error> {
    to.serialize_str(&base64_encode(bytes))
}

fn base64_opt<S: Serializer>(
    bytes: &Option<Vec<u8>>,
    to: S,
) -> std::result::Result<S::Ok, S::Error> {
    match bytes {
        Some(bytes) => base64(bytes, to),
        None => to.serialize_none(),
    }
}

fn base64_list<S: Serializer>(list: &[Vec<u8>], to: S) -> std::result::Result<S::Ok, S::Error> {
    to.collect_seq(list.iter().map(|bytes| base64_encode(bytes)))
}

fn hex_or_null<S: Serializer>(
    bytes: &Option<Vec<u8>>,
    to: S,
) -> std::result::Result<S::Ok, S::Error> {
    match bytes {
        Some(bytes) => to.serialize_str(&crate::text::hex_encode(bytes)),
        None => to.serialize_none(),
    }
}
