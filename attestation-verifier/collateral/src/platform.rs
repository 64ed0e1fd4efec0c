//! What a platform needs, read off its evidence, and put together again as formats.md §7 has it.

use attestation_verifier::parse::snp::{Report, SigningKey};
use attestation_verifier::parse::tdx::pck::{PckCa, PckExtensions};
use attestation_verifier::parse::tdx::quote::Quote;
use attestation_verifier::parse::vek::VekTcb;
use attestation_verifier::product::Product;
use attestation_verifier::verdict::Checks;
use attestation_verifier::{Fault, Roots, authenticate, parse};
use touchstone_formats::Bundle;
use touchstone_formats::evidence::{Collateral, Evidence, SnpCollateral, TdxCollateral, Tee};
use touchstone_formats::limits::{MAX_BUNDLE, MAX_QUOTE};
use touchstone_formats::text::{HexBytes, hex_encode};

use crate::Error;
use crate::item::{Item, VekKind, tcb_words};
use crate::verify::Piece;

/// Bytes of a SEV-SNP report (AMD 56860).
const REPORT: usize = 1184;
/// Zero bytes that a source may have appended (formats.md, "Conventions").
const MAX_PADDING: usize = 8192;

/// Evidence out of a file: an evidence file, a bundle (its first evidence), or a bare report or quote.
///
/// # Errors
/// [`Error::Malformed`] when it is none of these.
pub fn read_evidence(file: &[u8]) -> Result<Evidence, Error> {
    let malformed = |reason: String| Error::Malformed {
        what: "the evidence".into(),
        reason,
    };
    if file.len() > MAX_BUNDLE {
        return Err(malformed(format!("larger than {MAX_BUNDLE} bytes")));
    }
    if file.first() == Some(&b'{') {
        return match (Evidence::parse(file), Bundle::parse(file)) {
            (Ok(evidence), _) => Ok(evidence),
            (_, Ok(bundle)) => bundle
                .evidence
                .into_iter()
                .next()
                .ok_or_else(|| malformed("a bundle without evidence".into())),
            (Err(error), Err(_)) => Err(malformed(format!(
                "neither an evidence file ({error}) nor a bundle"
            ))),
        };
    }
    let is_quote = matches!(file, [4 | 5, 0, 2, 0, 0x81, 0, 0, 0, ..]);
    let (tee, length) = match is_quote {
        false => (Tee::SevSnp, REPORT),
        true => (Tee::Tdx, quote_length(file)),
    };
    let Some((quote, tail)) = file.split_at_checked(length) else {
        let reason = format!(
            "{} bytes: no evidence file, bundle, report or quote",
            file.len()
        );
        return Err(malformed(reason));
    };
    if tail.len() > MAX_PADDING || tail.iter().any(|byte| *byte != 0) || length > MAX_QUOTE {
        let reason = format!(
            "{} bytes: no evidence file, bundle, report or quote",
            file.len()
        );
        return Err(malformed(reason));
    }
    Ok(Evidence {
        purpose: None,
        nonce: None,
        tee,
        quote: quote.to_vec(),
        collateral: None,
        event_log: None,
    })
}

/// Where a quote says that it ends (Intel TDX DCAP Quoting Library API, A.3): header, body and the signature data's own
/// length. One that says nothing sensible is left whole, for its parser to refuse.
fn quote_length(file: &[u8]) -> usize {
    let u32_at = |at: usize| {
        file.get(at..)?
            .first_chunk()
            .map(|b| u32::from_le_bytes(*b))
    };
    let body = match file.first() {
        Some(4) => Some(48 + 584),
        _ => u32_at(50).map(|size| 54_usize.saturating_add(size as usize)),
    };
    let end = body.and_then(|at| Some(at.saturating_add(4).saturating_add(u32_at(at)? as usize)));
    end.filter(|end| *end <= file.len()).unwrap_or(file.len())
}

/// What decides which collateral a platform needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Platform {
    /// SEV-SNP.
    Snp {
        /// The product line.
        product: Product,
        /// Which key signed.
        key: VekKind,
        /// The hardware id; empty where the key is a provider's.
        hwid: Vec<u8>,
        /// REPORTED_TCB.
        tcb: VekTcb,
    },
    /// TDX.
    Tdx {
        /// The family.
        fmspc: [u8; 6],
        /// Who issued the PCK certificate.
        ca: PckCa,
    },
}

impl Platform {
    /// Reads it off evidence. `product`: for reports of version 2, which do not say.
    ///
    /// # Errors
    /// [`Error::Malformed`]; [`Error::Usage`] for a report that does not say enough.
    pub fn of(evidence: &Evidence, product: Option<Product>) -> Result<Platform, Error> {
        match evidence.tee {
            Tee::SevSnp => Self::snp(evidence, product),
            Tee::Tdx => Self::tdx(evidence),
        }
    }

    fn snp(evidence: &Evidence, asked: Option<Product>) -> Result<Platform, Error> {
        let report = Report::parse(&evidence.quote).map_err(|e| Error::Malformed {
            what: "the report".into(),
            reason: e.to_string(),
        })?;
        let unfit = |reason: &str| Error::Usage(format!("the report {reason}"));
        let product = match (report.product(), asked) {
            (Some(product), Some(asked)) if product != asked => {
                return Err(unfit(&format!("is from {product}, not from {asked}")));
            }
            (Some(product), _) | (None, Some(product)) => product,
            (None, None) => {
                return Err(unfit(
                    "does not say which product it is from (version 2, or an unknown CPU): give --product",
                ));
            }
        };
        let tcb = report
            .reported_tcb()
            .read(product)
            .ok_or_else(|| unfit("has reserved bytes in its TCB that are not zero"))?;
        let key = match report.signing_key() {
            SigningKey::Vcek => VekKind::Vcek,
            SigningKey::Vlek => VekKind::Vlek,
            SigningKey::None => return Err(unfit("says that it is not signed (SIGNING_KEY)")),
        };
        let chip = report.chip_id();
        let hwid = match key {
            VekKind::Vlek => Vec::new(),
            VekKind::Vcek if chip == [0; 64] => {
                return Err(unfit(
                    "does not say which chip it is from (CHIP_ID is masked): no certificate can be asked for",
                ));
            }
            VekKind::Vcek => chip.iter().copied().take(product.hwid_length()).collect(),
        };
        Ok(Platform::Snp {
            product,
            key,
            hwid,
            tcb,
        })
    }

    fn tdx(evidence: &Evidence) -> Result<Platform, Error> {
        let malformed = |reason: String| Error::Malformed {
            what: "the quote".into(),
            reason,
        };
        let quote = Quote::parse(&evidence.quote).map_err(|e| malformed(e.to_string()))?;
        let pck = quote
            .pck_chain
            .first()
            .ok_or_else(|| malformed("no PCK certificate".into()))?;
        let pck = PckExtensions::read(pck).map_err(|e| malformed(e.to_string()))?;
        let ca = pck
            .ca
            .ok_or_else(|| malformed("its PCK certificate was issued by no PCK CA".into()))?;
        Ok(Platform::Tdx {
            fmspc: pck.fmspc,
            ca,
        })
    }

    /// What to fetch for it. A VLEK certificate is not in it: AMD gives those to the provider alone.
    pub fn items(&self) -> Vec<Item> {
        match self {
            Platform::Snp {
                product,
                key,
                hwid,
                tcb,
            } => {
                let (product, key) = (*product, *key);
                let mut items = vec![
                    Item::AmdChain { product, key },
                    Item::AmdCrl { product, key },
                ];
                if key == VekKind::Vcek {
                    items.push(Item::Vcek {
                        product,
                        hwid: hwid.clone(),
                        tcb: *tcb,
                    });
                }
                items
            }
            Platform::Tdx { fmspc, ca } => vec![
                Item::TcbInfo { fmspc: *fmspc },
                Item::QeIdentity,
                Item::PckCrl { ca: *ca },
                Item::IntelRootCrl,
            ],
        }
    }

    /// Whether its endorsement key is a cloud provider's, whose certificate has to come from a file.
    pub fn needs_vlek(&self) -> bool {
        matches!(
            self,
            Platform::Snp {
                key: VekKind::Vlek,
                ..
            }
        )
    }

    /// What it is, for people.
    pub fn words(&self) -> String {
        match self {
            Platform::Snp {
                product,
                key,
                hwid,
                tcb,
            } => {
                let chip = match key {
                    VekKind::Vcek => {
                        let hwid = hex_encode(hwid);
                        format!("chip {}…", hwid.get(..16).unwrap_or(&hwid))
                    }
                    VekKind::Vlek => "a provider's key (VLEK)".into(),
                };
                format!("SEV-SNP, {product}, {chip}, TCB {}", tcb_words(*tcb))
            }
            Platform::Tdx { fmspc, ca } => {
                let fmspc = hex_encode(fmspc).to_uppercase();
                format!("TDX, FMSPC {fmspc}, PCK {} CA", ca.word())
            }
        }
    }

    /// Puts pieces together. `vlek`: the certificate of a provider's key.
    pub fn assemble(&self, pieces: &[Piece], vlek: Option<Vec<u8>>) -> Collateral {
        match self {
            Platform::Snp { .. } => {
                let mut snp = SnpCollateral {
                    vek: vlek,
                    ..SnpCollateral::default()
                };
                for piece in pieces {
                    match piece.item {
                        Item::Vcek { .. } => snp.vek = Some(piece.body.clone()),
                        Item::AmdChain { .. } => {
                            let intermediate = piece.intermediate();
                            snp.chain.extend(intermediate.map(|c| c.der().to_vec()));
                        }
                        _ => snp.crls.push(piece.body.clone()),
                    }
                }
                Collateral::SevSnp(snp)
            }
            Platform::Tdx { .. } => {
                let mut tdx = TdxCollateral::default();
                for piece in pieces {
                    let (chain, text) = (piece.issuer_chain.clone(), piece.signed_text());
                    let (text, signature) = match text {
                        Some(signed) => (Some(signed.text), Some(HexBytes(signed.signature))),
                        None => (None, None),
                    };
                    match piece.item {
                        Item::TcbInfo { .. } => {
                            tdx.tcb_info = text;
                            tdx.tcb_info_signature = signature;
                            tdx.tcb_info_issuer_chain = chain;
                        }
                        Item::QeIdentity => {
                            tdx.qe_identity = text;
                            tdx.qe_identity_signature = signature;
                            tdx.qe_identity_issuer_chain = chain;
                        }
                        Item::PckCrl { .. } => {
                            tdx.pck_crl = Some(HexBytes(piece.body.clone()));
                            tdx.pck_crl_issuer_chain = chain;
                        }
                        _ => tdx.root_ca_crl = Some(HexBytes(piece.body.clone())),
                    }
                }
                Collateral::Tdx(tdx)
            }
        }
    }
}

/// Whether collateral makes this evidence authentic, by the verifier's own authentication: the last look before it is
/// written anywhere.
///
/// # Errors
/// [`Error::Refused`], with the check that decided.
pub fn authenticated(evidence: &Evidence, roots: &Roots, time: u64) -> Result<(), Error> {
    let mut checks = Checks::new();
    let authentic = match evidence.tee {
        Tee::SevSnp => parse::parse(evidence, &mut checks)
            .and_then(|parsed| authenticate::authenticate(parsed, roots, time, &mut checks))
            .is_some(),
        Tee::Tdx => parse::tdx::parse(evidence, &mut checks)
            .and_then(|parsed| authenticate::intel::authenticate(parsed, roots, time, &mut checks))
            .is_some(),
    };
    match checks.deciding() {
        None if authentic => Ok(()),
        deciding => Err(Error::Refused {
            check: deciding.map_or("evidence.format".into(), |check| check.id.clone()),
            reason: deciding.map_or(String::new(), |check| check.reason.clone()),
            fault: deciding
                .and_then(|check| check.fault)
                .unwrap_or(Fault::NotAuthentic),
        }),
    }
}
