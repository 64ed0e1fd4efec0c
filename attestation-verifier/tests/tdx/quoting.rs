//! Lies about the quote's own signatures and about the quoting enclave.

use ring::digest::{SHA256, digest};
use touchstone_testkit::x509::EcKey;

use crate::simulated::{forged, quoted, refuse, v5};

#[test]
fn signatures_of_quotes() {
    let by_key = "tdx.signature";
    let by_pck = "tdx.qe.signature";
    let bound = "tdx.qe.binding";
    let public = |key: &EcKey| -> [u8; 64] { key.public_key()[1..].try_into().unwrap() };
    refuse(vec![
        forged(
            "signed by another key than the bound one",
            by_key,
            move |s| {
                let own = public(&s.machine.attestation_key);
                s.quote(move |_, q| q.attestation_key = Some(own));
                s.quote_forger = Some(EcKey::p256());
            },
        ),
        forged("zeros in place of the signature", by_key, |s| {
            s.after_signing = Some(|q| q[706..770].fill(0));
        }),
        forged("a constant in place of the signature", by_key, |s| {
            s.after_signing = Some(|q| q[706..770].fill(1));
        }),
        forged("r and s exchanged", by_key, |s| {
            s.after_signing = Some(|q| q[706..770].rotate_left(32));
        }),
        forged("r and s little-endian", by_key, |s| {
            s.after_signing = Some(|q| {
                q[706..738].reverse();
                q[738..770].reverse();
            });
        }),
        forged("a measurement changed after signing", by_key, |s| {
            s.after_signing = Some(|q| q[54 + 136] ^= 1);
        }),
        forged("the body type is signed with the body", by_key, |s| {
            // A report of TD 1.5 whose end is cut off and called 1.0: all that is missing is its signature.
            s.after_signing = Some(|q| {
                q.drain(54 + 584..54 + 648);
                q[48..54].copy_from_slice(&[2, 0, 0x48, 2, 0, 0]);
            });
        }),
        forged("a key that is no point", bound, |s| {
            s.after_signing = Some(|q| q[770..834].fill(0xff));
        }),
        forged("a key of somebody's own", bound, move |s| {
            let own = public(&s.machine.attestation_key);
            s.quote(move |_, q| {
                let bound = digest(&SHA256, &[&own[..], &q.qe_auth_data].concat());
                let mut report_data = [0; 64];
                report_data[..32].copy_from_slice(bound.as_ref());
                q.qe_report.report_data = Some(report_data);
            });
            s.quote_forger = Some(EcKey::p256());
        }),
        quoted(
            "the key bound without the authentication data",
            bound,
            move |m, q| {
                let bound = digest(&SHA256, &public(&m.attestation_key));
                let mut report_data = [0; 64];
                report_data[..32].copy_from_slice(bound.as_ref());
                q.qe_report.report_data = Some(report_data);
            },
        ),
        quoted(
            "something behind the hash in REPORTDATA",
            bound,
            move |m, q| {
                let key = public(&m.attestation_key);
                let bound = digest(&SHA256, &[&key[..], &q.qe_auth_data].concat());
                let mut report_data = [0; 64];
                report_data[..32].copy_from_slice(bound.as_ref());
                report_data[63] = 1;
                q.qe_report.report_data = Some(report_data);
            },
        ),
        forged("other authentication data than were bound", bound, |s| {
            s.after_signing = Some(|q| {
                let at = 834 + 6 + 384 + 64 + 2;
                q[at] ^= 1;
            });
        }),
        forged("a QE report by another PCK", by_pck, |s| {
            s.qe_forger = Some(EcKey::p256())
        }),
        forged("zeros in place of the PCK's signature", by_pck, |s| {
            s.after_signing = Some(|q| q[840 + 384..840 + 448].fill(0));
        }),
        forged("the PCK signed nothing, the PCK CA did", by_pck, |s| {
            s.qe_forger = Some(s.machine.pki.ca_key(s.machine.ca).clone());
        }),
        forged("a PCK on P-384", by_pck, |s| {
            s.machine.pck.spki = EcKey::p384().spki()
        }),
    ]);
}

#[test]
fn quoting_enclaves_that_are_not_intels() {
    let id = "tdx.qe.identity";
    refuse(vec![
        quoted("another MRSIGNER", id, |_, q| q.qe_report.mr_signer[0] ^= 1),
        quoted("another ISVPRODID: the QE of SGX", id, |_, q| {
            q.qe_report.isv_prod_id = 1
        }),
        quoted("a QE that can be debugged", id, |_, q| {
            q.qe_report.attributes[0] |= 2
        }),
        quoted("a QE that is not initialised", id, |_, q| {
            q.qe_report.attributes[0] &= !1
        }),
        quoted("an attribute that the mask looks at", id, |_, q| {
            q.qe_report.attributes[7] = 1
        }),
        quoted("another MISCSELECT", id, |_, q| q.qe_report.misc_select = 1),
    ]);
    // What the mask leaves out is not looked at, and the mask is the identity's.
    let mut scene = v5();
    scene.quote(|_, q| {
        q.qe_report.attributes[0] ^= 4;
        q.qe_report.attributes[15] = 0xff;
        q.qe_report.misc_select = 0x8000_0000;
    });
    scene.machine.qe_identity.miscselect_mask[3] = 0x7f;
    scene.holds("outside the masks");
    // Which bytes of MISCSELECT stand where.
    let mut scene = v5();
    scene.quote(|_, q| q.qe_report.misc_select = 0x0403_0201);
    scene.machine.qe_identity.miscselect = [1, 2, 3, 4];
    scene.holds("MISCSELECT, as the report has its bytes");
}
