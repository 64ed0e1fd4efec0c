//! What binds a report to the certificate of the key that signed it: kind of key, product, chip and
//! TCB (AMD 57230, "VCEK and VLEK certificates"; AMD 56860, ATTESTATION_REPORT).

use serde_json::Value;
use touchstone_formats::text::hex_encode;

use super::chain::Path;
use super::identity_value;
use crate::parse::snp::{Report, SigningKey};
use crate::parse::vek::{VekExtensions, VekIdentity, VekTcb};
use crate::policy::Floor;
use crate::product::Product;
use crate::roots::product_of;
use crate::verdict::{Checks, Fault};

/// Makes all these checks; the product if report, certificate and chain agree upon it.
pub(super) fn bindings(
    report: &Report,
    extensions: &VekExtensions,
    path: &Path<'_>,
    checks: &mut Checks,
) -> Option<Product> {
    key(report, extensions, path, checks);
    let product = product(report, extensions, path, checks)?;
    hwid(report, extensions, product, checks);
    tcb(report, extensions, product, checks);
    Some(product)
}

/// SIGNING_KEY names the kind of key the certificate is for, and the intermediate issues that kind: an ASK VCEKs, an
/// ASVK VLEKs. The extensions say which kind it is; a common name must not say the other.
fn key(report: &Report, extensions: &VekExtensions, path: &Path<'_>, checks: &mut Checks) {
    let id = "snp.vek.key";
    let has = |name: &str, word: &str| {
        name.split(|c: char| !c.is_ascii_alphanumeric())
            .any(|part| part == word)
    };
    let kind = match &extensions.identity {
        VekIdentity::Chip(_) => SigningKey::Vcek,
        VekIdentity::Provider(_) => SigningKey::Vlek,
    };
    let vlek = kind == SigningKey::Vlek;
    let (subject, issuer) = (&path.vek.subject_cn, &path.intermediate.subject_cn);
    let reason = if report.signing_key() != kind {
        "SIGNING_KEY names another kind of key than the certificate is for"
    } else if has(subject, if vlek { "VCEK" } else { "VLEK" }) {
        "the certificate's subject and its extensions (hwID or cspID) name different kinds of key"
    } else if (has(issuer, "VLEK") || has(issuer, "ASVK")) != vlek {
        "the intermediate issues another kind of key (ASK: VCEK, ASVK: VLEK)"
    } else {
        checks.pass(id, kind.word(), report.signing_key().word());
        return;
    };
    checks.fail(
        id,
        Fault::NotAuthentic,
        kind.word(),
        report.signing_key().word(),
        reason,
    );
}

/// Report (CPUID, from version 3), certificate (productName) and the names above it mean one product.
fn product(
    report: &Report,
    extensions: &VekExtensions,
    path: &Path<'_>,
    checks: &mut Checks,
) -> Option<Product> {
    let id = "snp.vek.product";
    let product = extensions.product;
    let said = [
        ("the report's CPUID fields mean", report.product()),
        (
            "the intermediate is for",
            product_of(&path.intermediate.subject_cn),
        ),
        ("the root is for", path.anchor.product),
    ];
    for (who, other) in said {
        let Some(other) = other.filter(|other| *other != product) else {
            continue;
        };
        let reason = format!("the certificate is for {product}, and {who} {other}");
        checks.fail(
            id,
            Fault::NotAuthentic,
            product.name(),
            other.name(),
            reason,
        );
        return None;
    }
    // A report of version 2 names no product: only now is the layout of its TCB fields known.
    if let Err(error) = report.check_tcb_layout(product) {
        let reason = error.to_string();
        checks.fail(
            "snp.vek.tcb",
            Fault::Malformed,
            Value::Null,
            Value::Null,
            reason,
        );
        return None;
    }
    checks.pass(id, product.name(), product.name());
    Some(product)
}

/// hwID of a VCEK is CHIP_ID; on Turin its 8 bytes, and the rest of CHIP_ID is zero. A VLEK has none.
fn hwid(report: &Report, extensions: &VekExtensions, product: Product, checks: &mut Checks) {
    let id = "snp.vek.hwid";
    let chip_id = report.chip_id();
    let VekIdentity::Chip(hwid) = &extensions.identity else {
        let reason = "a VLEK belongs to no chip: its certificate has no hwID to compare";
        checks.pass_because(id, Value::Null, Value::Null, reason);
        return;
    };
    if chip_id == [0; 64] {
        checks.unconsidered(
            id,
            "CHIP_ID is masked, there is nothing to compare: see snp.chip_id.masked",
        );
        return;
    }
    let (own, rest) = chip_id.split_at(product.hwid_length());
    let expected = identity_value(&extensions.identity);
    if own == hwid && rest.iter().all(|&byte| byte == 0) {
        checks.pass(id, expected, hex_encode(own));
    } else {
        let reason = "the certificate is for another chip than the report is of (hwID, CHIP_ID)";
        checks.fail(
            id,
            Fault::NotAuthentic,
            expected,
            hex_encode(&chip_id),
            reason,
        );
    }
}

/// The levels in the certificate are REPORTED_TCB: the key was derived for them.
fn tcb(report: &Report, extensions: &VekExtensions, product: Product, checks: &mut Checks) {
    let id = "snp.vek.tcb";
    let expected = tcb_value(extensions.tcb);
    match report.reported_tcb().read(product) {
        Some(tcb) if tcb == extensions.tcb => checks.pass(id, expected, tcb_value(tcb)),
        found => {
            let found = found.map_or(Value::Null, tcb_value);
            let reason = "the certificate is for another TCB than REPORTED_TCB";
            checks.fail(id, Fault::NotAuthentic, expected, found, reason);
        }
    }
}

/// A TCB as a verdict writes it, in the form of a floor.
pub(crate) fn tcb_value(tcb: VekTcb) -> Value {
    let VekTcb {
        fmc,
        bootloader,
        tee,
        snp,
        microcode,
    } = tcb;
    Floor {
        fmc,
        bootloader,
        tee,
        snp,
        microcode,
    }
    .to_value()
}
