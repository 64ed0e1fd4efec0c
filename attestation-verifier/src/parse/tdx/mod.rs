//! Intel TDX evidence: bytes to fields, with every rule of form and no judgement.
//!
//! [`quote`] reads the quote, [`pck`] the extensions of the certificate that its chain begins with,
//! [`tcb`] the two signed texts of Intel's collateral. What is read here is trusted only after
//! [`crate::authenticate::intel`] has seen it.

pub mod pck;
pub mod quote;
pub mod tcb;

pub use pck::{PckCa, PckExtensions, PlatformConfiguration, SgxType};
pub use quote::{QeReport, Quote, QuoteError, TdReport, TdVersion};
pub use tcb::{
    IsvLevel, QeIdentity, TcbError, TcbInfo, TcbLevel, TcbStatus, TdxModule, TdxModuleIdentity,
};

use std::sync::Arc;

use serde_json::Value;
use touchstone_formats::evidence::{Collateral, Evidence, TdxCollateral, Tee};
use touchstone_formats::text::HexBytes;

use super::cert::{CertError, Certificate};
use super::crl::Crl;
use super::{malformed, pem};
use crate::crypto;
use crate::known::{Known, Mark};
use crate::roots::Roots;
use crate::verdict::{Checks, Fault};

/// TDX evidence all of whose parts are well-formed. It can only be made by [`parse`], and only be
/// used by [`crate::authenticate::intel::authenticate`].
#[derive(Clone, Debug)]
pub struct Parsed {
    pub(crate) quote: Quote,
    /// What the first certificate of the quote's chain says.
    pub(crate) pck: PckExtensions,
    pub(crate) parts: Arc<TdxParts>,
    /// The parts were not known before.
    pub(crate) fresh: bool,
    /// The PEM of the quote's chain, if it was not known before and will be.
    pub(crate) fresh_pem: Option<Vec<u8>>,
}

/// The PCK chain of a quote.
#[derive(Clone, Debug)]
pub(crate) struct PckChain {
    pub(crate) certificates: Arc<[Certificate]>,
    /// What the first of them says.
    pub(crate) pck: PckExtensions,
}

/// Intel's collateral.
#[derive(Debug)]
pub(crate) struct TdxParts {
    pub(crate) tcb_info: Option<Arc<Signed<TcbInfo>>>,
    pub(crate) qe_identity: Option<Arc<Signed<QeIdentity>>>,
    /// Empty if none came: the CA's certificate in the quote is enough.
    pub(crate) pck_crl_chain: Chain,
    pub(crate) pck_crl: Option<Crl>,
    pub(crate) root_crl: Option<Crl>,
    /// Members of the collateral without which nothing can be judged, and that are not there.
    pub(crate) missing: Vec<&'static str>,
}

impl Parsed {
    /// The quote, of which nothing is proven.
    pub fn quote(&self) -> &Quote {
        &self.quote
    }

    /// The TD's report in it, of which nothing is proven.
    pub fn report(&self) -> &TdReport {
        &self.quote.report
    }
}

/// Certificates, the issuer's first.
pub(crate) type Chain = Vec<Arc<Certificate>>;

/// A text that Intel signed, and what it says.
#[derive(Clone, Debug)]
pub(crate) struct Signed<T> {
    pub(crate) value: T,
    /// The bytes that the signature is over, as they came.
    pub(crate) text: String,
    /// r ‖ s.
    pub(crate) signature: [u8; 64],
    pub(crate) mark: Mark,
    /// The signer's certificate, and perhaps the root's.
    pub(crate) chain: Chain,
}

impl<T> Signed<T> {
    /// For its signature to be verified.
    pub(crate) fn signed(&self) -> crypto::Signed<'_> {
        crypto::Signed {
            message: self.text.as_bytes(),
            signature: &self.signature,
            mark: Some(&self.mark),
        }
    }
}

/// Parses TDX evidence. `None`, with the checks that say why, if any part is malformed: `tdx.format` of the quote,
/// `tdx.pck.extensions` of its first certificate, `tdx.collateral` of what came with it.
pub fn parse(evidence: &Evidence, checks: &mut Checks) -> Option<Parsed> {
    parse_known(evidence, &Known::nothing(), &Roots::none(), checks)
}

/// The same for a verifier that may have read PCK chain and collateral before. Roots were read when they were trusted.
pub(crate) fn parse_known(
    evidence: &Evidence,
    known: &Known,
    roots: &Roots,
    checks: &mut Checks,
) -> Option<Parsed> {
    if evidence.tee != Tee::Tdx {
        let reason = "evidence of this kind is not judged as TDX";
        let found = evidence.tee.name();
        checks.fail("tdx.format", Fault::Malformed, "tdx", found, reason);
        return None;
    }
    let mut known_chain = None;
    let mut fresh_pem = None;
    let quote = Quote::parse_with(&evidence.quote, |pem| {
        if let Some(chain) = known.pck(pem) {
            let certificates = Arc::clone(&chain.certificates);
            known_chain = Some(chain);
            return Ok(certificates);
        }
        fresh_pem = known.keeps().then(|| pem.to_vec());
        quote::pck_chain(pem, roots)
    });
    let quote = match quote {
        Ok(quote) => {
            checks.pass("tdx.format", Value::Null, Value::Null);
            Some(quote)
        }
        Err(error) => {
            malformed(checks, "tdx.format", error.to_string());
            None
        }
    };
    let pck = quote
        .as_ref()
        .and_then(|quote| quote.pck_chain.first())
        .and_then(|certificate| {
            let read = match known_chain {
                Some(chain) => Ok(chain.pck),
                None => PckExtensions::read(certificate),
            };
            match read {
                Ok(extensions) => {
                    checks.pass("tdx.pck.extensions", Value::Null, Value::Null);
                    Some(extensions)
                }
                Err(error) => {
                    malformed(checks, "tdx.pck.extensions", error.to_string());
                    None
                }
            }
        });
    let none = TdxCollateral::default();
    let collateral = match &evidence.collateral {
        Some(Collateral::Tdx(collateral)) => collateral,
        Some(Collateral::SevSnp(_)) | None => &none,
    };
    let (parts, fresh) = match known.tdx(collateral) {
        Some(parts) => (parts, false),
        None => {
            let chain = quote.as_ref().map(|quote| quote.pck_chain.as_ref());
            let parts = TdxParts::read(collateral, chain.unwrap_or_default(), checks);
            (Arc::new(parts), true)
        }
    };
    let parsed = Parsed {
        quote: quote?,
        pck: pck?,
        parts,
        fresh,
        fresh_pem,
    };
    checks.hold().then_some(parsed)
}

impl TdxParts {
    /// What is well-formed of it; the checks say what is not. `quoted`: the certificates of the quote's chain.
    fn read(c: &TdxCollateral, quoted: &[Certificate], checks: &mut Checks) -> TdxParts {
        let mut members = Members {
            checks,
            missing: Vec::new(),
            quoted,
            own: Vec::new(),
            chains: Vec::new(),
        };
        let tcb_info = members.signed(
            ["tcb_info", "tcb_info_signature", "tcb_info_issuer_chain"],
            (&c.tcb_info, &c.tcb_info_signature, &c.tcb_info_issuer_chain),
            TcbInfo::parse,
        );
        let qe_identity = members.signed(
            [
                "qe_identity",
                "qe_identity_signature",
                "qe_identity_issuer_chain",
            ],
            (
                &c.qe_identity,
                &c.qe_identity_signature,
                &c.qe_identity_issuer_chain,
            ),
            QeIdentity::parse,
        );
        let pck_crl_chain = c.pck_crl_issuer_chain.as_ref();
        let pck_crl_chain =
            pck_crl_chain.and_then(|pem| members.chain("pck_crl_issuer_chain", pem));
        let pck_crl = members.crl("pck_crl", c.pck_crl.as_ref());
        let root_crl = members.crl("root_ca_crl", c.root_ca_crl.as_ref());
        TdxParts {
            tcb_info: tcb_info.map(Arc::new),
            qe_identity: qe_identity.map(Arc::new),
            pck_crl_chain: pck_crl_chain.unwrap_or_default(),
            pck_crl,
            root_crl,
            missing: members.missing,
        }
    }
}

/// Most certificates of an issuer's chain: the issuer's and the root's.
const MOST_ISSUERS: usize = 2;
/// Longest PEM of an issuer's chain. Intel's have 2 KiB.
const MOST_CHAIN: usize = 16 << 10;

/// Reads the members of the collateral one by one.
struct Members<'a> {
    checks: &'a mut Checks,
    missing: Vec<&'static str>,
    // What was read already: the same few certificates stand in every chain, and both signed texts have the same one.
    quoted: &'a [Certificate],
    own: Vec<Arc<Certificate>>,
    chains: Vec<(&'a str, Chain)>,
}

impl<'a> Members<'a> {
    fn malformed<T>(&mut self, member: &str, error: &dyn std::fmt::Display) -> Option<T> {
        let reason = format!("{member}: {error}");
        malformed(self.checks, "tdx.collateral", reason);
        None
    }

    fn present<'m, T>(&mut self, name: &'static str, member: &'m Option<T>) -> Option<&'m T> {
        if member.is_none() {
            self.missing.push(name);
        }
        member.as_ref()
    }

    /// A text, its signature and its signer's chain. All that is there has to be well-formed, also if another part is missing.
    fn signed<T, E: std::fmt::Display>(
        &mut self,
        names: [&'static str; 3],
        members: (&Option<String>, &Option<HexBytes>, &'a Option<String>),
        read: fn(&str) -> Result<T, E>,
    ) -> Option<Signed<T>> {
        let [text, signature, chain] = names;
        let value = self
            .present(text, members.0)
            .and_then(|member| match read(member) {
                Ok(value) => Some((value, member.clone())),
                Err(error) => self.malformed(text, &error),
            });
        let bytes =
            self.present(signature, members.1).and_then(|member| {
                match <[u8; 64]>::try_from(member.0.as_slice()) {
                    Ok(bytes) => Some(bytes),
                    Err(_) => {
                        let found = format!("{} bytes; a signature has 64", member.0.len());
                        self.malformed(signature, &found)
                    }
                }
            });
        let certificates = self
            .present(chain, members.2)
            .and_then(|member| self.chain(chain, member));
        let (value, text) = value?;
        Some(Signed {
            value,
            text,
            signature: bytes?,
            mark: Mark::default(),
            chain: certificates?,
        })
    }

    fn chain(&mut self, name: &str, pem: &'a str) -> Option<Chain> {
        if let Some((_, chain)) = self.chains.iter().find(|(read, _)| *read == pem) {
            return Some(chain.clone());
        }
        if pem.len() > MOST_CHAIN {
            return self.malformed(name, &"over 16 KiB");
        }
        let ders = match pem::certificates(pem.as_bytes(), MOST_ISSUERS) {
            Ok(ders) => ders,
            Err(error) => return self.malformed(name, &error),
        };
        let mut chain = Chain::with_capacity(ders.len());
        for der in ders {
            match self.certificate(&der) {
                Ok(certificate) => chain.push(certificate),
                Err(error) => return self.malformed(name, &error),
            }
        }
        self.chains.push((pem, chain.clone()));
        Some(chain)
    }

    fn certificate(&mut self, der: &[u8]) -> Result<Arc<Certificate>, CertError> {
        if let Some(known) = self.own.iter().find(|known| known.der() == der) {
            return Ok(Arc::clone(known));
        }
        let quoted = self.quoted.iter().find(|quoted| quoted.der() == der);
        let certificate = match quoted {
            Some(quoted) => quoted.clone(),
            None => Certificate::parse(der)?,
        };
        let certificate = Arc::new(certificate);
        self.own.push(Arc::clone(&certificate));
        Ok(certificate)
    }

    fn crl(&mut self, name: &str, member: Option<&HexBytes>) -> Option<Crl> {
        match Crl::parse(&member?.0) {
            Ok(crl) => Some(crl),
            Err(error) => self.malformed(name, &error),
        }
    }
}
