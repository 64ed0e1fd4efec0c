//! Intel's pieces (Intel PCS API v4): TCB info and the quoting enclave's identity, signed as text; the lists of the PCK CAs and
//! of the root.

use attestation_verifier::Roots;
use attestation_verifier::authenticate::Window;
use attestation_verifier::parse::cert::Certificate;
use attestation_verifier::parse::crl::Crl;
use attestation_verifier::parse::tdx::pck::PckCa;
use attestation_verifier::parse::tdx::tcb::{QeIdentity, TcbInfo};
use attestation_verifier::roots::Anchor;
use serde::Deserialize;
use serde_json::value::RawValue;
use touchstone_formats::Tee;
use touchstone_formats::text::{hex_decode, hex_encode};

use super::signature::{issued, listed, said};
use super::{Piece, Raw, lie, malformed, pem, strict_pem};
use crate::Error;
use crate::item::Item;

/// A chain in a header, decoded, bytes.
const MOST_CHAIN: usize = 32 << 10;

/// A text and the signature over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedText {
    /// The very text that is signed.
    pub text: String,
    /// r ‖ s.
    pub signature: Vec<u8>,
}

/// Takes the text out of an answer, byte for byte.
pub(super) fn split(item: &Item, body: &[u8]) -> Result<SignedText, Error> {
    #[derive(Deserialize)]
    struct Tcb<'a> {
        #[serde(borrow, rename = "tcbInfo")]
        text: &'a RawValue,
        signature: String,
    }
    #[derive(Deserialize)]
    struct Identity<'a> {
        #[serde(borrow, rename = "enclaveIdentity")]
        text: &'a RawValue,
        signature: String,
    }
    let (text, signature) = match item {
        Item::TcbInfo { .. } => serde_json::from_slice(body).map(|t: Tcb| (t.text, t.signature)),
        _ => serde_json::from_slice(body).map(|t: Identity| (t.text, t.signature)),
    }
    .map_err(|e| malformed(item, format!("not the JSON that it should be: {e}")))?;
    Ok(SignedText {
        text: text.get().to_owned(),
        signature: hex_decode(&signature.to_ascii_lowercase()).map_err(|e| malformed(item, e))?,
    })
}

pub(super) fn signed_text(item: &Item, raw: Raw<'_>, roots: &Roots) -> Result<Piece, Error> {
    let SignedText { text, signature } = split(item, raw.body)?;
    let (from, next) = match item {
        Item::TcbInfo { fmspc } => {
            let info = TcbInfo::parse(&text).map_err(|e| malformed(item, e))?;
            if info.fmspc != *fmspc {
                let reason = format!("it is for FMSPC {}", hex_encode(&info.fmspc).to_uppercase());
                return Err(lie(item, reason));
            }
            (info.issue_date, info.next_update)
        }
        _ => {
            let identity = QeIdentity::parse(&text).map_err(|e| malformed(item, e))?;
            (identity.issue_date, identity.next_update)
        }
    };
    let [signer, root] = issuers(item, raw, roots)?;
    if !said(&signer, text.as_bytes(), &signature) {
        let reason = format!("{:?} did not sign this text", signer.subject_cn);
        return Err(lie(item, reason));
    }
    Ok(Piece {
        item: item.clone(),
        body: raw.body.to_vec(),
        window: Window {
            from,
            to: next.saturating_sub(1).min(signer.not_after),
        },
        issuer_chain: Some(strict_pem(&[signer, root])),
    })
}

pub(super) fn crl(item: &Item, raw: Raw<'_>, roots: &Roots) -> Result<Piece, Error> {
    // Intel gives DER; a PCCS gives hex unless it is asked otherwise, and of the root's list always.
    let der = match std::str::from_utf8(raw.body).map(str::trim) {
        Ok(hex) if !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit()) => {
            hex_decode(&hex.to_ascii_lowercase()).map_err(|e| malformed(item, e))?
        }
        _ => raw.body.to_vec(),
    };
    let crl = Crl::parse(&der).map_err(|e| malformed(item, e))?;
    let (good, issuer_chain) = match item {
        Item::PckCrl { ca } => {
            let [signer, root] = issuers(item, raw, roots)?;
            let word = match ca {
                PckCa::Processor => "Processor",
                PckCa::Platform => "Platform",
            };
            if !signer.may_sign_certificates() || !signer.subject_cn.contains(word) {
                let reason = format!("it is a list of {:?}", signer.subject_cn);
                return Err(lie(item, reason));
            }
            let good = listed(&signer, &crl);
            (good, Some(strict_pem(&[signer, root])))
        }
        _ => {
            let good = anchors(roots).any(|a| listed(&a.certificate, &crl));
            (good, None)
        }
    };
    if !good {
        return Err(lie(item, "its issuer did not sign it"));
    }
    Ok(Piece {
        item: item.clone(),
        body: der,
        issuer_chain,
        window: Window {
            from: crl.this_update,
            to: crl.next_update.saturating_sub(1),
        },
    })
}

fn anchors(roots: &Roots) -> impl Iterator<Item = &Anchor> {
    roots.anchors().iter().filter(|a| a.tee == Tee::Tdx)
}

/// Who signed: a certificate that a trusted root issued, and that root.
fn issuers(item: &Item, raw: Raw<'_>, roots: &Roots) -> Result<[Certificate; 2], Error> {
    let Some(chain) = raw.issuer_chain else {
        return Err(malformed(item, "the answer has no issuer chain header"));
    };
    let chain = percent_decode(chain)
        .filter(|chain| chain.len() <= MOST_CHAIN)
        .ok_or_else(|| malformed(item, "the issuer chain header is not URL-encoded text"))?;
    let Ok([signer, root]) = <[Certificate; 2]>::try_from(pem(item, &chain)?) else {
        return Err(malformed(
            item,
            "expected an issuer chain of two certificates",
        ));
    };
    // The key is what is trusted: from here on the root is the one that is known, not the one that came.
    let Some(root) = anchors(roots)
        .map(|anchor| anchor.certificate.clone())
        .find(|known| known.key == root.key && known.subject == root.subject)
    else {
        let reason = format!("its chain ends at {:?}, no trusted root", root.subject_cn);
        return Err(lie(item, reason));
    };
    if !issued(&root, &signer) {
        let reason = format!("the root did not issue {:?}", signer.subject_cn);
        return Err(lie(item, reason));
    }
    Ok([signer, root])
}

/// Undoes URL encoding; `+` stands for itself, as base64 has it.
fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (high, low) = (digit(rest.next())?, digit(rest.next())?);
        out.push(u8::try_from(high << 4 | low).ok()?);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_encoding_is_undone() {
        assert_eq!(percent_decode("a%20b+%0A").unwrap(), b"a b+\n");
        for bad in ["%", "%2", "%zz", "a%+1"] {
            assert_eq!(percent_decode(bad), None, "{bad}");
        }
    }
}
