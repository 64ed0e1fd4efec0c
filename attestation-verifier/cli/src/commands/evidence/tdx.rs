//! `touchstone evidence tdx`: an evidence file out of a raw quote, Intel's collateral and an event log.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Deserialize;
use serde_json::value::RawValue;
use touchstone_formats::CollateralFile;
use touchstone_formats::evidence::{Collateral, EventLog, Evidence, TdxCollateral, Tee};
use touchstone_formats::limits::{MAX_BUNDLE, MAX_EVENT_LOG};
use touchstone_formats::text::{Base64Bytes, HexBytes};

use super::strip;
use crate::files;
use crate::output::Failure;

/// Bytes of padding that a table of the firmware may have beside the log itself, and the base64 or quoting
/// of what wraps a log.
const MAX_LOG_FILE: u64 = 4 * MAX_EVENT_LOG as u64;

/// Reads the files and puts them together. Also says what of the collateral is missing.
pub fn make(
    quote: &Path,
    collateral: Option<&PathBuf>,
    event_log: Option<&PathBuf>,
) -> Result<(Evidence, Vec<&'static str>), Failure> {
    let malformed = |error| Failure::malformed("evidence.format", error);
    let file = files::read(quote, "quote", files::MAX_TEXT)?;
    let bytes = raw_quote(file).with_context(|| format!("quote {}", quote.display()));
    let bytes = bytes.map_err(malformed)?;

    let collateral = collateral.map(|path| -> Result<TdxCollateral, Failure> {
        let file = files::read(path, "collateral", MAX_BUNDLE as u64)?;
        let read = read_collateral(&file).with_context(|| format!("collateral {}", path.display()));
        read.map_err(|error| Failure::malformed("collateral.format", error))
    });
    let collateral = collateral.transpose()?;
    let event_log = event_log.map(|path| -> Result<EventLog, Failure> {
        let file = files::read(path, "event log", MAX_LOG_FILE)?;
        let read = read_event_log(file).with_context(|| format!("event log {}", path.display()));
        read.map_err(malformed)
    });
    let event_log = event_log.transpose()?;
    let missing = missing(collateral.as_ref());
    let evidence = Evidence {
        purpose: None,
        nonce: None,
        tee: Tee::Tdx,
        quote: bytes,
        collateral: collateral.map(Collateral::Tdx),
        event_log,
    };
    Ok((evidence, missing))
}

/// What dstack's guest agent answers to GetQuote, of which we read two members.
#[derive(Deserialize)]
struct DstackAnswer<'a> {
    quote: Option<String>,
    #[serde(borrow)]
    event_log: Option<&'a RawValue>,
}

/// The quote alone: raw bytes, or hex in dstack's answer to GetQuote; without the zero bytes that its source appended.
fn raw_quote(file: Vec<u8>) -> Result<Vec<u8>> {
    let quote = if file.first() == Some(&b'{') {
        let answer: DstackAnswer =
            serde_json::from_slice(&file).context("neither a quote nor JSON of dstack's form")?;
        let quote = answer.quote.filter(|quote| !quote.is_empty());
        let hex =
            quote.context("quote is missing or empty in dstack's answer (it is for SEV-SNP)")?;
        hex::decode(&hex).context("quote: not hex")?
    } else {
        file
    };
    let end = declared_end(&quote)?;
    strip(quote, end)
}

/// Where a TDX quote says that it ends (Intel TDX DCAP Quoting Library API, appendix A.3 and A.4).
pub(super) fn declared_end(quote: &[u8]) -> Result<usize> {
    const HEADER: usize = 48;
    fn u16_at(quote: &[u8], at: usize) -> Result<u16> {
        let bytes = quote.get(at..).and_then(<[u8]>::first_chunk);
        let found = quote.len();
        bytes
            .map(|bytes| u16::from_le_bytes(*bytes))
            .with_context(|| {
                format!(
                    "expected a TDX quote, found {found} bytes, which end before byte {}",
                    at + 2
                )
            })
    }
    fn u32_at(quote: &[u8], at: usize) -> Result<usize> {
        let (low, high) = (u16_at(quote, at)?, u16_at(quote, at + 2)?);
        Ok(usize::from(low) | usize::from(high) << 16)
    }
    let version = u16_at(quote, 0)?;
    let tee = u32_at(quote, 4)?;
    match (version, tee) {
        (4 | 5, 0x81) => {}
        (3, _) | (4 | 5, 0) => {
            bail!("expected a TDX quote, found an SGX quote (version {version})")
        }
        (4 | 5, _) => bail!("TEE type: expected 0x81 (TDX), found {tee:#x}"),
        _ => bail!("version: expected 4 or 5, found {version}"),
    }
    let signature = match version {
        4 => HEADER + 584,
        _ => match (u16_at(quote, HEADER)?, u32_at(quote, HEADER + 2)?) {
            (2, 584) => HEADER + 6 + 584,
            (3, 648) => HEADER + 6 + 648,
            (kind, size) => bail!(
                "body: expected type 2 of 584 bytes (TDX 1.0) or 3 of 648 (TDX 1.5), found type {kind} of {size}"
            ),
        },
    };
    let size = u32_at(quote, signature)?;
    // Far beyond what a quote may have; the bound itself is the evidence format's.
    ensure!(
        size <= quote.len(),
        "expected {size} bytes of signature data, found {}",
        quote.len().saturating_sub(signature + 4)
    );
    Ok(signature + 4 + size)
}

/// Intel's collateral by the names of formats.md §7, which `dcap-qvl` uses too. Hex may be of either case here.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Members {
    tcb_info: Option<String>,
    tcb_info_signature: Option<String>,
    tcb_info_issuer_chain: Option<String>,
    qe_identity: Option<String>,
    qe_identity_signature: Option<String>,
    qe_identity_issuer_chain: Option<String>,
    pck_crl: Option<String>,
    pck_crl_issuer_chain: Option<String>,
    root_ca_crl: Option<String>,
    /// `dcap-qvl` writes it for quotes that have no chain of their own; those are not judged.
    #[serde(rename = "pck_certificate_chain")]
    _pck_certificate_chain: Option<serde::de::IgnoredAny>,
}

fn read_collateral(file: &[u8]) -> Result<TdxCollateral> {
    let text = std::str::from_utf8(file).context("not UTF-8 text")?;
    if text.contains("\"touchstone/collateral/") {
        return match CollateralFile::parse(file)?.collateral {
            Collateral::Tdx(collateral) => Ok(collateral),
            Collateral::SevSnp(_) => Err(anyhow!("tee: expected tdx, found sev-snp")),
        };
    }
    let members: Members = serde_json::from_str(text).context(
        "expected a JSON object with tcb_info, qe_identity, their signatures and chains, pck_crl and root_ca_crl",
    )?;
    let hex = |name: &str, text: Option<String>| -> Result<Option<HexBytes>> {
        let bytes = text
            .map(|text| hex::decode(text.trim()).with_context(|| format!("{name}: expected hex")));
        Ok(bytes.transpose()?.map(HexBytes))
    };
    Ok(TdxCollateral {
        tcb_info: members.tcb_info,
        tcb_info_signature: hex("tcb_info_signature", members.tcb_info_signature)?,
        tcb_info_issuer_chain: members.tcb_info_issuer_chain,
        qe_identity: members.qe_identity,
        qe_identity_signature: hex("qe_identity_signature", members.qe_identity_signature)?,
        qe_identity_issuer_chain: members.qe_identity_issuer_chain,
        pck_crl: hex("pck_crl", members.pck_crl)?,
        pck_crl_issuer_chain: members.pck_crl_issuer_chain,
        root_ca_crl: hex("root_ca_crl", members.root_ca_crl)?,
    })
}

/// What of the collateral is not there, by its names.
fn missing(collateral: Option<&TdxCollateral>) -> Vec<&'static str> {
    let Some(c) = collateral else {
        return vec!["collateral"];
    };
    let members = [
        ("tcb_info", c.tcb_info.is_some()),
        ("tcb_info_signature", c.tcb_info_signature.is_some()),
        ("tcb_info_issuer_chain", c.tcb_info_issuer_chain.is_some()),
        ("qe_identity", c.qe_identity.is_some()),
        ("qe_identity_signature", c.qe_identity_signature.is_some()),
        (
            "qe_identity_issuer_chain",
            c.qe_identity_issuer_chain.is_some(),
        ),
        ("pck_crl", c.pck_crl.is_some()),
        ("pck_crl_issuer_chain", c.pck_crl_issuer_chain.is_some()),
        ("root_ca_crl", c.root_ca_crl.is_some()),
    ];
    members
        .iter()
        .filter(|(_, there)| !there)
        .map(|(name, _)| *name)
        .collect()
}

/// The first event of a TCG crypto-agile log, whose place is fixed (TCG PC Client Platform Firmware Profile, §10.4.5.1).
const TCG_SIGNATURE: &[u8; 16] = b"Spec ID Event03\0";

/// A log of the firmware as the ACPI table CCEL points to it, or dstack's: its JSON list, alone or in its answer to GetQuote.
fn read_event_log(file: Vec<u8>) -> Result<EventLog> {
    let start = file.iter().find(|byte| !byte.is_ascii_whitespace());
    let (format, data) = match start {
        Some(b'[') => ("dstack", file),
        Some(b'{') => {
            let answer: DstackAnswer =
                serde_json::from_slice(&file).context("not JSON of dstack's form")?;
            let log = answer
                .event_log
                .context("event_log is missing in dstack's answer")?;
            // A list, or the text of one.
            let list = match serde_json::from_str::<String>(log.get()) {
                Ok(text) => text,
                Err(_) => log.get().to_owned(),
            };
            ("dstack", list.into_bytes())
        }
        _ if file.get(32..48) == Some(TCG_SIGNATURE) => ("ccel", file),
        _ => bail!(
            "expected a TCG crypto-agile log (CCEL) or dstack's JSON, found neither: no \"Spec ID Event03\" at byte 32"
        ),
    };
    Ok(EventLog {
        format: format.to_owned(),
        data: Base64Bytes(data),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header, a body of zeros and signature data that are nothing; only its sizes are right.
    fn quote(version: u16) -> Vec<u8> {
        let mut quote = version.to_le_bytes().to_vec();
        quote.extend([2, 0, 0x81, 0, 0, 0]);
        quote.resize(48, 0);
        if version == 5 {
            quote.extend([3, 0]);
            quote.extend(648u32.to_le_bytes());
            quote.resize(48 + 6 + 648, 0);
        } else {
            quote.resize(48 + 584, 0);
        }
        quote.extend(10u32.to_le_bytes());
        quote.extend([7; 10]);
        quote
    }

    #[test]
    fn quotes_end_where_they_say() {
        for version in [4, 5] {
            let honest = quote(version);
            let with = |tail: &[u8]| [&honest[..], tail].concat();
            assert_eq!(raw_quote(honest.clone()).unwrap(), honest);
            assert_eq!(raw_quote(with(&[0; 8192])).unwrap(), honest);
            for tail in [&[0; 8193][..], &[0, 1], b"text"] {
                let error = raw_quote(with(tail)).unwrap_err().to_string();
                assert!(error.contains("zero bytes after them"), "{error}");
            }
            for end in 0..honest.len() {
                assert!(raw_quote(honest[..end].to_vec()).is_err(), "{end} bytes");
            }
        }
    }

    #[test]
    fn other_quotes_are_named() {
        let says = |change: fn(&mut Vec<u8>), words: &str| {
            let mut lie = quote(5);
            change(&mut lie);
            let error = raw_quote(lie).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        says(|q| q[0] = 3, "SGX quote");
        says(|q| q[4] = 0, "SGX quote");
        says(|q| q[4] = 1, "found 0x1");
        says(|q| q[0] = 6, "found 6");
        says(|q| q[48] = 2, "type 2 of 648");
        says(
            |q| q[702..706].fill(0xff),
            "4294967295 bytes of signature data",
        );
    }

    #[test]
    fn event_logs_are_known_by_what_they_are() {
        let read =
            |bytes: &[u8]| read_event_log(bytes.to_vec()).map(|log| (log.format, log.data.0));
        let of = |format: &str, data: &[u8]| (format.to_owned(), data.to_vec());
        assert_eq!(read(b"[]").unwrap(), of("dstack", b"[]"));
        assert_eq!(
            read(br#"{"event_log":"[1]","quote":""}"#).unwrap(),
            of("dstack", b"[1]")
        );
        assert_eq!(
            read(br#"{"event_log":[1, 2]}"#).unwrap(),
            of("dstack", b"[1, 2]")
        );
        assert!(read(br#"{"events":[]}"#).is_err());
        let mut ccel = vec![0; 32];
        ccel.extend(TCG_SIGNATURE);
        assert_eq!(read(&ccel).unwrap(), of("ccel", &ccel));
        ccel[33] ^= 1;
        assert!(read(&ccel).is_err());
        assert!(read(b"").is_err());
    }

    #[test]
    fn collateral_has_known_members_once() {
        let whole = r#"{"tcb_info":"{}","pck_crl":"0A0b","pck_certificate_chain":null}"#;
        let read = read_collateral(whole.as_bytes()).unwrap();
        assert_eq!(read.tcb_info.as_deref(), Some("{}"));
        assert_eq!(read.pck_crl, Some(HexBytes(vec![10, 11])));
        assert_eq!(missing(Some(&read)).len(), 7);
        for (wrong, says) in [
            (r#"{"tcb_info":"{}","tcb_info":"{}"}"#, "duplicate"),
            (r#"{"tcb_information":"{}"}"#, "tcb_information"),
            (r#"{"pck_crl":"xyz"}"#, "pck_crl: expected hex"),
            (r#"{"tcb_info":{}}"#, "expected a string"),
            ("[]x", "expected a JSON object"),
        ] {
            let error = format!("{:#}", read_collateral(wrong.as_bytes()).unwrap_err());
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }
}
