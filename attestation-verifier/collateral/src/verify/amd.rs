//! AMD's pieces (AMD 57230): VCEK certificates, the chain above them, revocation lists.

use attestation_verifier::Roots;
use attestation_verifier::authenticate::Window;
use attestation_verifier::parse::cert::Certificate;
use attestation_verifier::parse::crl::Crl;
use attestation_verifier::parse::vek::{VekExtensions, VekIdentity};
use attestation_verifier::product::Product;
use attestation_verifier::roots::Anchor;
use touchstone_formats::Tee;
use touchstone_formats::text::hex_encode;

use super::signature::{issued, listed};
use super::{Piece, Raw, lie, malformed, pem};
use crate::Error;
use crate::item::{Item, VekKind, tcb_words};

fn window(certificate: &Certificate) -> Window {
    Window {
        from: certificate.not_before,
        to: certificate.not_after,
    }
}

/// The trusted roots of a product.
fn anchors(roots: &Roots, product: Product) -> impl Iterator<Item = &Anchor> {
    let fits =
        move |a: &&Anchor| a.tee == Tee::SevSnp && a.product.is_none_or(|other| other == product);
    roots.anchors().iter().filter(fits)
}

pub(super) fn vcek(
    item: &Item,
    raw: Raw<'_>,
    intermediate: Option<&Certificate>,
) -> Result<Piece, Error> {
    let Item::Vcek { product, hwid, tcb } = item else {
        return Err(malformed(item, "not a VCEK certificate"));
    };
    let certificate = Certificate::parse(raw.body).map_err(|e| malformed(item, e))?;
    let says = VekExtensions::read(&certificate).map_err(|e| malformed(item, e))?;
    if says.product != *product {
        return Err(lie(item, format!("it is for {}", says.product)));
    }
    match &says.identity {
        VekIdentity::Chip(chip) if chip == hwid => {}
        VekIdentity::Chip(chip) => {
            let reason = format!("it is for another chip, {}", hex_encode(chip));
            return Err(lie(item, reason));
        }
        VekIdentity::Provider(_) => return Err(lie(item, "it is a VLEK certificate")),
    }
    if says.tcb != *tcb {
        let reason = format!("it is for another TCB, {}", tcb_words(says.tcb));
        return Err(lie(item, reason));
    }
    let signed = intermediate.is_some_and(|issuer| issued(issuer, &certificate));
    if !signed {
        return Err(lie(item, "AMD's intermediate (ASK) did not sign it"));
    }
    Ok(Piece {
        item: item.clone(),
        window: window(&certificate),
        body: raw.body.to_vec(),
        issuer_chain: None,
    })
}

/// The certificates of a chain answer.
pub(super) fn certificates(item: &Item, body: &[u8]) -> Result<Vec<Certificate>, Error> {
    pem(item, body)
}

pub(super) fn chain(item: &Item, raw: Raw<'_>, roots: &Roots) -> Result<Piece, Error> {
    let Item::AmdChain { product, key } = item else {
        return Err(malformed(item, "not a chain"));
    };
    let all = certificates(item, raw.body)?;
    let (mut own, mut above): (Vec<_>, Vec<_>) = all.iter().partition(|c| c.issuer != c.subject);
    let (Some(intermediate), Some(root)) = (own.pop(), above.pop()) else {
        return Err(malformed(item, "expected an intermediate and a root"));
    };
    if !own.is_empty() || !above.is_empty() {
        return Err(malformed(item, "expected one intermediate and one root"));
    }
    // The key is what is trusted: from here on the root is the one that is known, not the one that came.
    let Some(root) = anchors(roots, *product)
        .map(|anchor| &anchor.certificate)
        .find(|known| known.key == root.key && known.subject == root.subject)
    else {
        let reason = format!("{:?} is no trusted root of {product}", root.subject_cn);
        return Err(lie(item, reason));
    };
    if !issued(root, intermediate) || !intermediate.may_sign_certificates() {
        return Err(lie(item, "the root did not make its intermediate a CA"));
    }
    // Both are AMD's and genuine; kept in the other's place, one would refuse every certificate for days.
    if intermediate.subject_cn.contains("VLEK") != (*key == VekKind::Vlek) {
        let reason = format!("it has the intermediate {:?}", intermediate.subject_cn);
        return Err(lie(item, reason));
    }
    Ok(Piece {
        item: item.clone(),
        window: Window {
            from: intermediate.not_before.max(root.not_before),
            to: intermediate.not_after.min(root.not_after),
        },
        body: raw.body.to_vec(),
        issuer_chain: None,
    })
}

pub(super) fn crl(item: &Item, raw: Raw<'_>, roots: &Roots) -> Result<Piece, Error> {
    let Item::AmdCrl { product, .. } = item else {
        return Err(malformed(item, "not a revocation list"));
    };
    let crl = Crl::parse(raw.body).map_err(|e| malformed(item, e))?;
    if !anchors(roots, *product).any(|a| listed(&a.certificate, &crl)) {
        return Err(lie(item, format!("no trusted root of {product} signed it")));
    }
    Ok(Piece {
        item: item.clone(),
        window: Window {
            from: crl.this_update,
            // Good strictly before nextUpdate (formats.md §7, "Time").
            to: crl.next_update.saturating_sub(1),
        },
        body: raw.body.to_vec(),
        issuer_chain: None,
    })
}
