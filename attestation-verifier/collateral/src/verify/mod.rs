//! Is it what was asked for? Everything that is fetched, and everything that is read back from a cache, passes here first.
//!
//! This is no judgement of evidence (the verifier's caller makes that, with a policy) but what keeps lies out of caches and
//! out of the folder that a host attaches from: structure by the verifier's own parsers, the signature up to a
//! trusted root, that it is the piece that was asked for, and its validity. A server in between, or a PCCS, can
//! then withhold collateral, and cannot replace it.

mod amd;
mod intel;
mod signature;

use attestation_verifier::Roots;
use attestation_verifier::authenticate::Window;
use attestation_verifier::dates::rfc3339;
use attestation_verifier::parse::cert::Certificate;
use attestation_verifier::parse::tdx::tcb::{QeIdentity, TcbInfo};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use touchstone_formats::text::base64_encode;

use crate::Error;
use crate::item::Item;

pub use intel::SignedText;

/// A clock that runs ahead of the vendor's by this much is no reason to refuse: seconds.
const SKEW: u64 = 300;
/// Certificates in one chain, at most. Both vendors have two.
const MOST_CERTIFICATES: usize = 4;

/// Bytes as a server, or a cache, gave them.
#[derive(Clone, Copy, Debug)]
pub struct Raw<'a> {
    /// The body.
    pub body: &'a [u8],
    /// The chain of who signed it, URL-encoded PEM or PEM, where a header has it.
    pub issuer_chain: Option<&'a str>,
}

/// A piece of collateral that passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which.
    pub item: Item,
    /// DER (certificate, list), PEM (a chain) or JSON (a signed text), as the vendor made it.
    pub body: Vec<u8>,
    /// The certificates of who signed it, PEM in its strict form; Intel's texts and the PCK CAs' lists alone.
    pub issuer_chain: Option<String>,
    /// From when to when it is good.
    pub window: Window,
}

/// When a piece must be good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Now, Unix seconds.
    At(u64),
    /// At some time: what a cache held may be compared although it has expired.
    Ever,
}

/// Looks at one piece. `intermediate` is what must have issued a VCEK certificate, from a chain that passed.
///
/// # Errors
/// [`Error::Malformed`], [`Error::NotAuthentic`], [`Error::Outdated`].
pub fn verify(
    item: &Item,
    raw: Raw<'_>,
    intermediate: Option<&Certificate>,
    roots: &Roots,
    when: When,
) -> Result<Piece, Error> {
    let piece = match item {
        Item::Vcek { .. } => amd::vcek(item, raw, intermediate)?,
        Item::AmdChain { .. } => amd::chain(item, raw, roots)?,
        Item::AmdCrl { .. } => amd::crl(item, raw, roots)?,
        Item::TcbInfo { .. } | Item::QeIdentity => intel::signed_text(item, raw, roots)?,
        Item::PckCrl { .. } | Item::IntelRootCrl => intel::crl(item, raw, roots)?,
    };
    let Window { from, to } = piece.window;
    if let When::At(now) = when {
        let window = || format!("valid from {} to {}", rfc3339(from), rfc3339(to));
        let reason = if now > to {
            format!("expired: {}, and now it is {}", window(), rfc3339(now))
        } else if now + SKEW < from {
            format!(
                "not valid yet: {}, and now it is {}",
                window(),
                rfc3339(now)
            )
        } else {
            return Ok(piece);
        };
        return Err(Error::Outdated {
            what: item.words(),
            reason,
        });
    }
    Ok(piece)
}

impl Piece {
    /// The intermediate out of AMD's chain; none of another piece.
    pub fn intermediate(&self) -> Option<Certificate> {
        match self.item {
            Item::AmdChain { .. } => {
                let all = amd::certificates(&self.item, &self.body).ok()?;
                all.into_iter().find(|c| c.issuer != c.subject)
            }
            _ => None,
        }
    }

    /// The text out of Intel's answer and its signature; none of another piece.
    pub fn signed_text(&self) -> Option<SignedText> {
        matches!(self.item, Item::TcbInfo { .. } | Item::QeIdentity).then_some(())?;
        intel::split(&self.item, &self.body).ok()
    }

    /// Whether it can be out of date although it has not expired: lists and texts, of which there are new ones.
    pub fn is_news(&self) -> bool {
        !matches!(self.item, Item::Vcek { .. } | Item::AmdChain { .. })
    }

    /// Whether this is from before the other, of the same item: lists and texts alone. A text of a lower evaluation of Intel's
    /// is older whenever it was signed: Intel signs old evaluations anew for who asks for them by number.
    pub fn is_older_than(&self, other: &Piece) -> bool {
        let age = |piece: &Piece| (piece.evaluation(), piece.window.from);
        self.is_news() && age(self) < age(other)
    }

    /// `tcbEvaluationDataNumber` of Intel's texts; none of another piece.
    fn evaluation(&self) -> Option<u32> {
        let text = self.signed_text()?.text;
        match self.item {
            Item::TcbInfo { .. } => {
                let info = TcbInfo::parse(&text).ok()?;
                Some(info.tcb_evaluation_data_number)
            }
            _ => {
                let identity = QeIdentity::parse(&text).ok()?;
                Some(identity.tcb_evaluation_data_number)
            }
        }
    }
}

fn malformed(item: &Item, reason: impl ToString) -> Error {
    Error::Malformed {
        what: item.words(),
        reason: reason.to_string(),
    }
}

fn lie(item: &Item, reason: impl ToString) -> Error {
    Error::NotAuthentic {
        what: item.words(),
        reason: reason.to_string(),
    }
}

/// The certificates of a PEM text; it may have text between them.
fn pem(item: &Item, text: &[u8]) -> Result<Vec<Certificate>, Error> {
    let mut found = Vec::new();
    for block in CertificateDer::pem_slice_iter(text) {
        let der = block.map_err(|e| malformed(item, format!("not PEM: {e}")))?;
        if found.len() == MOST_CERTIFICATES {
            return Err(malformed(item, "more certificates than a chain has"));
        }
        found.push(Certificate::parse(&der).map_err(|e| malformed(item, e))?);
    }
    Ok(found)
}

/// Certificates in PEM as the verifier reads it: lines of 64, nothing between.
fn strict_pem(certificates: &[Certificate]) -> String {
    let mut out = String::new();
    for certificate in certificates {
        out.push_str("-----BEGIN CERTIFICATE-----\n");
        let base64 = base64_encode(certificate.der());
        let mut rest = base64.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(64));
            out.push_str(line);
            out.push('\n');
            rest = after;
        }
        out.push_str("-----END CERTIFICATE-----\n");
    }
    out
}
