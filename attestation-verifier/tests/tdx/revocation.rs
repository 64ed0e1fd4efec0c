//! Lies about revocation, each signed by the simulated vendor.

use attestation_verifier::authenticate::intel::PartKind;
use attestation_verifier::verdict::Outcome;
use touchstone_formats::evidence::TdxCollateral;
use touchstone_formats::text::HexBytes;
use touchstone_testkit::intel::{PckCa, oid};
use touchstone_testkit::machine::TdxMachine;
use touchstone_testkit::x509::{Crl, EcKey, Extension};

use crate::simulated::{
    Lie, NOW, Scene, chain_pem, forged, keys, lie, processor, refuse, rogue_keys, sent, v5,
};

const DAY: u64 = 86_400;

/// A change of a revocation list, which its issuer signs all the same.
fn list(
    name: &str,
    deciding: &'static str,
    which: fn(&mut TdxMachine) -> &mut Crl,
    change: impl Fn(&mut Crl) + 'static,
) -> Lie {
    forged(name, deciding, move |s| change(which(&mut s.machine)))
}

#[test]
fn revocation() {
    let id = "tdx.chain.revoked";
    let own = "tdx.chain.crl_signature";
    let pck_list: fn(&mut TdxMachine) -> &mut Crl = |m| &mut m.pck_crl;
    let root_list: fn(&mut TdxMachine) -> &mut Crl = |m| &mut m.root_crl;
    let sign_by = |key: EcKey| {
        move |m: &TdxMachine, c: &mut TdxCollateral| {
            c.pck_crl = Some(HexBytes(m.pck_crl.sign(&key)))
        }
    };
    let critical = |c: &mut Crl| {
        // A delta list (RFC 5280 §5.2.4): it lists only what is new.
        c.extensions
            .push(Extension::new("2.5.29.27", true, vec![2, 1, 1]));
    };
    let revoke = |s: &mut Scene, of: fn(&TdxMachine) -> Vec<u8>, root: bool| {
        let serial = of(&s.machine);
        let m = &mut s.machine;
        let list = if root {
            &mut m.root_crl
        } else {
            &mut m.pck_crl
        };
        list.revoke(&[1, 2, 3]);
        list.revoke(&serial);
        list.revoke(&[4]);
    };
    let partial = |extension: &'static str| {
        move |c: &mut Crl| {
            c.extensions
                .push(Extension::new(extension, false, vec![0x30, 0]))
        }
    };
    refuse(vec![
        list(
            "a list of a part, which does not say that this matters",
            own,
            pck_list,
            partial("2.5.29.28"),
        ),
        list(
            "a root list of a part, which does not say that this matters",
            own,
            root_list,
            partial("2.5.29.28"),
        ),
        list(
            "a delta list that does not say that this matters",
            own,
            pck_list,
            |c| {
                c.extensions
                    .push(Extension::new("2.5.29.27", false, vec![2, 1, 1]));
            },
        ),
        lie(
            "extensions in a list of version 1",
            v5,
            2,
            "tdx.collateral",
            |s| s.machine.pck_crl.version = None,
        ),
        forged("the PCK is revoked", id, move |s| {
            revoke(s, |m| m.pck.serial.clone(), false)
        }),
        forged("the PCK CA is revoked", id, move |s| {
            revoke(s, |m| m.pki.platform_ca.serial.clone(), true);
        }),
        forged("the TCB signing key is revoked", id, move |s| {
            revoke(s, |m| m.pki.tcb_signing.serial.clone(), true);
        }),
        forged("the root revokes itself", id, move |s| {
            revoke(s, |m| m.pki.root.serial.clone(), true)
        }),
        forged("revoked, by a list that is out of date", id, move |s| {
            revoke(s, |m| m.pck.serial.clone(), false);
            s.machine.pck_crl.next_update = Some(NOW - DAY);
        }),
        sent(
            "a PCK list that the root signed",
            3,
            own,
            sign_by(keys().root),
        ),
        sent(
            "a PCK list that somebody signed",
            3,
            own,
            sign_by(rogue_keys().platform_ca),
        ),
        sent("the other CA's PCK list", 3, own, |m, c| {
            let list = m
                .pki
                .pck_crl(PckCa::Processor)
                .sign(&m.pki.keys.processor_ca);
            c.pck_crl = Some(HexBytes(list));
        }),
        sent(
            "the other CA's PCK list, with its chain",
            3,
            "tdx.chain.constraints",
            |m, c| {
                let list = m
                    .pki
                    .pck_crl(PckCa::Processor)
                    .sign(&m.pki.keys.processor_ca);
                c.pck_crl = Some(HexBytes(list));
                c.pck_crl_issuer_chain = Some(chain_pem(&[
                    m.pki.ca_der(PckCa::Processor),
                    m.pki.root_der(),
                ]));
            },
        ),
        sent(
            "the other CA's chain alone",
            3,
            "tdx.chain.constraints",
            |m, c| {
                c.pck_crl_issuer_chain = Some(chain_pem(&[
                    m.pki.ca_der(PckCa::Processor),
                    m.pki.root_der(),
                ]));
            },
        ),
        sent(
            "a chain of the list's whose CA another root certified",
            3,
            "tdx.chain.signature",
            |m, c| {
                let ca = m.pki.platform_ca.sign(&rogue_keys().root);
                c.pck_crl_issuer_chain = Some(chain_pem(&[ca, m.pki.root_der()]));
            },
        ),
        sent(
            "a CA of the same name in the list's chain, and another key",
            3,
            "tdx.chain.constraints",
            |m, c| {
                let mut ca = m.pki.platform_ca.clone();
                ca.spki = rogue_keys().platform_ca.spki();
                let ca = ca.sign(&m.pki.keys.root);
                c.pck_crl = Some(HexBytes(m.pck_crl.sign(&rogue_keys().platform_ca)));
                c.pck_crl_issuer_chain = Some(chain_pem(&[ca, m.pki.root_der()]));
            },
        ),
        sent(
            "a CA in the list's chain that names another issuer",
            3,
            "tdx.chain.constraints",
            |m, c| {
                let mut ca = m.pki.platform_ca.clone();
                ca.issuer = m.pki.processor_ca.subject.clone();
                let ca = ca.sign(&m.pki.keys.root);
                c.pck_crl_issuer_chain = Some(chain_pem(&[ca, m.pki.root_der()]));
            },
        ),
        sent("the root's list in the PCK list's place", 3, own, |_, c| {
            c.pck_crl = c.root_ca_crl.clone()
        }),
        sent("the PCK list in the root's list's place", 3, own, |_, c| {
            c.root_ca_crl = c.pck_crl.clone()
        }),
        sent("a root's list that somebody signed", 3, own, |m, c| {
            c.root_ca_crl = Some(HexBytes(m.root_crl.sign(&rogue_keys().root)));
        }),
        list(
            "a critical extension of the PCK list nobody knows",
            own,
            pck_list,
            critical,
        ),
        list(
            "a critical extension of the root's list nobody knows",
            own,
            root_list,
            critical,
        ),
        forged("a PCK CA that may not sign lists", own, |s| {
            *s.machine.pki.platform_ca.extension_mut(oid::KEY_USAGE) =
                Extension::key_usage_bits(0x04);
        }),
    ]);
    // Which lists must be there, and be current, is the policy's to say.
    type Leave = fn(&mut TdxCollateral);
    let leave: [(Leave, usize); 3] = [
        (|c| c.pck_crl = None, 1),
        (|c| c.root_ca_crl = None, 1),
        (|c| (c.pck_crl, c.root_ca_crl) = (None, None), 0),
    ];
    for (change, left) in leave {
        let mut scene = v5();
        scene.collateral(move |_, c| change(c));
        let authentic = scene.holds("without a list");
        let lists = authentic
            .windows()
            .iter()
            .filter(|p| p.kind == PartKind::Crl);
        assert_eq!(lists.count(), left);
        let (checks, _) = scene.seen();
        for id in [id, own] {
            let check = checks.find(id).unwrap();
            assert_eq!(check.result, Outcome::NotEvaluated, "{id}");
        }
    }
    let mut scene = v5();
    scene.machine.pck_crl.next_update = Some(NOW - DAY);
    scene.machine.root_crl.revoke(&[9]);
    let authentic = scene.holds("a list that is out of date");
    let list = authentic
        .windows()
        .iter()
        .find(|p| p.name == "the PCK revocation list");
    assert_eq!(list.unwrap().window.to, NOW - DAY - 1);
    let mut scene = processor();
    let serial = scene.machine.pki.platform_ca.serial.clone();
    scene.machine.root_crl.revoke(&serial);
    scene.holds("the other CA is revoked");
}
