//! Lies about keys, certificates and roots, each signed by the simulated vendor.

use attestation_verifier::authenticate::intel::Part;
use attestation_verifier::dates::rfc3339;
use attestation_verifier::{RootError, Roots};
use touchstone_formats::text::HexBytes;
use touchstone_testkit::intel::{Pki, oid};
use touchstone_testkit::machine::TdxMachine;
use touchstone_testkit::x509::{Certificate, EcKey, Extension, Name, asn1, pem};

use crate::simulated::{
    Lie, NOW, chain_pem, ders, forged, lie, pck_chain, processor, quoted, refuse, rogue_keys, sent,
    trusted, v4, v5,
};
use crate::support::{V4_TIME, decided, seen, words};

const SIGNATURE: &str = "tdx.chain.signature";
const ROOT: &str = "tdx.chain.root";
const CONSTRAINTS: &str = "tdx.chain.constraints";

#[test]
fn honest_machines_hold() {
    for (name, scene) in [("v4", v4()), ("v5", v5()), ("processor", processor())] {
        let authentic = scene.holds(name);
        assert!(authentic.root().simulated);
        assert!(authentic.root().note.unwrap().contains("SIMULATED"));
        assert_eq!(authentic.windows().len(), 8);
    }
    // The root need not be sent: it is known.
    let mut scene = v5();
    scene.quote(|m, q| q.pck_chain = pck_chain(&ders(m)[..2]));
    scene.collateral(|m, c| {
        let signer = pem("CERTIFICATE", &m.pki.tcb_signing.sign(&m.pki.keys.root));
        c.tcb_info_issuer_chain = Some(signer.clone());
        c.qe_identity_issuer_chain = Some(signer);
        c.pck_crl_issuer_chain = Some(pem("CERTIFICATE", &m.pki.ca_der(m.ca)));
    });
    scene.holds("no root sent");
    // The CA may have another certificate for the same key by now.
    scene.collateral(|m, c| {
        let mut ca = m.pki.platform_ca.clone();
        (ca.serial, ca.not_after) = (vec![7], NOW);
        let ca = ca.sign(&m.pki.keys.root);
        c.pck_crl_issuer_chain = Some(chain_pem(&[ca, m.pki.root_der()]));
    });
    let authentic = scene.holds("the CA certified again");
    let until = |p: &&Part| p.name == "the PCK CA" && p.window.to == NOW;
    assert!(authentic.windows().iter().any(|p| until(&p)));
    // Nor the chain of the revocation list: its issuer stands in the quote.
    scene.collateral(|_, c| c.pck_crl_issuer_chain = None);
    scene.holds("no chain for the revocation list");
    // TCB info and QE identity may have signers of their own.
    let mut scene = v5();
    scene.collateral(|m, c| {
        let mut signer = m.pki.tcb_signing.clone();
        signer.serial = vec![7];
        let chain = pem("CERTIFICATE", &signer.sign(&m.pki.keys.root));
        c.qe_identity_issuer_chain = Some(chain + &m.pki.root_pem());
    });
    let authentic = scene.holds("two signers");
    let signers = authentic.windows().iter();
    assert_eq!(
        signers
            .filter(|p| p.name == "the TCB signing certificate")
            .count(),
        2
    );
}

#[test]
fn chains() {
    refuse(vec![
        quoted(
            "a PCK certificate by another CA of the same name",
            SIGNATURE,
            |m, q| {
                let [_, ca, root] = ders(m);
                q.pck_chain = pck_chain(&[m.pck.sign(&rogue_keys().platform_ca), ca, root]);
            },
        ),
        quoted(
            "a PCK CA by another root of the same name",
            SIGNATURE,
            |m, q| {
                let [pck, _, root] = ders(m);
                let ca = m.pki.platform_ca.sign(&rogue_keys().root);
                q.pck_chain = pck_chain(&[pck, ca, root]);
            },
        ),
        forged(
            "a self-made vendor of the same names, its root not sent",
            SIGNATURE,
            |s| {
                s.machine = TdxMachine::under(
                    Pki::with_keys(NOW, rogue_keys()),
                    5,
                    s.machine.report.report.clone(),
                );
                s.quote(|m, q| q.pck_chain = pck_chain(&ders(m)[..2]));
                s.collateral(|m, c| {
                    let signer = pem("CERTIFICATE", &m.pki.tcb_signing.sign(&m.pki.keys.root));
                    c.tcb_info_issuer_chain = Some(signer.clone());
                    c.qe_identity_issuer_chain = Some(signer);
                    c.pck_crl_issuer_chain = None;
                });
            },
        ),
        forged(
            "a self-made vendor of the same names, with its root",
            ROOT,
            |s| {
                s.machine = TdxMachine::under(
                    Pki::with_keys(NOW, rogue_keys()),
                    5,
                    s.machine.report.report.clone(),
                );
            },
        ),
        forged(
            "a self-made vendor of other names, with its root",
            ROOT,
            |s| {
                let mut pki = Pki::with_keys(NOW, rogue_keys());
                let name = Name::intel("Intel SGX Root CA of my own");
                pki.root.subject = name.clone();
                for certificate in [&mut pki.root, &mut pki.platform_ca, &mut pki.tcb_signing] {
                    certificate.issuer = name.clone();
                }
                s.machine = TdxMachine::under(pki, 5, s.machine.report.report.clone());
            },
        ),
        forged(
            "a self-made vendor whose every name is another, with its root",
            ROOT,
            |s| {
                let mut pki = Pki::with_keys(NOW, rogue_keys());
                let name = Name::intel("My Root");
                pki.root.subject = name.clone();
                for certificate in [&mut pki.root, &mut pki.platform_ca, &mut pki.tcb_signing] {
                    certificate.issuer = name.clone();
                }
                pki.platform_ca.subject = Name::intel("My CA");
                s.machine = TdxMachine::under(pki, 5, s.machine.report.report.clone());
            },
        ),
        forged("nobody named the simulated root", ROOT, |s| {
            s.roots = Roots::pinned()
        }),
        quoted("another root at the end of the chain", ROOT, |m, q| {
            let [pck, ca, _] = ders(m);
            q.pck_chain = pck_chain(&[pck, ca, m.pki.root.sign(&rogue_keys().root)]);
        }),
        quoted("a second leaf at the end of the chain", ROOT, |m, q| {
            let [pck, ca, _] = ders(m);
            q.pck_chain = pck_chain(&[pck.clone(), ca, pck]);
        }),
        quoted(
            "the pinned root at the end of a simulated chain",
            ROOT,
            |m, q| {
                let [pck, ca, _] = ders(m);
                let pinned = Roots::pinned().anchors()[3].certificate.der().to_vec();
                q.pck_chain = pck_chain(&[pck, ca, pinned]);
            },
        ),
        quoted(
            "the CA left out: the root in its place",
            SIGNATURE,
            |m, q| {
                let [pck, _, root] = ders(m);
                q.pck_chain = pck_chain(&[pck, root]);
            },
        ),
        sent(
            "another root behind the TCB signing certificate",
            3,
            ROOT,
            |m, c| {
                let signer = pem("CERTIFICATE", &m.pki.tcb_signing.sign(&m.pki.keys.root));
                let other = pem("CERTIFICATE", &m.pki.root.sign(&rogue_keys().root));
                c.tcb_info_issuer_chain = Some(signer + &other);
            },
        ),
        sent(
            "another root behind the revocation list's CA",
            3,
            ROOT,
            |m, c| {
                let ca = pem("CERTIFICATE", &m.pki.ca_der(m.ca));
                c.pck_crl_issuer_chain = Some(ca.clone() + &ca);
            },
        ),
        sent(
            "a TCB signing certificate by another root of the same name",
            3,
            SIGNATURE,
            |m, c| {
                let signer = pem("CERTIFICATE", &m.pki.tcb_signing.sign(&rogue_keys().root));
                c.tcb_info_issuer_chain = Some(signer);
            },
        ),
        sent(
            "QE identity's signer by another root of the same name",
            3,
            SIGNATURE,
            |m, c| {
                let signer = pem("CERTIFICATE", &m.pki.tcb_signing.sign(&rogue_keys().root));
                c.qe_identity_issuer_chain = Some(signer);
            },
        ),
        sent(
            "a TCB signing certificate that the PCK CA issued",
            3,
            SIGNATURE,
            |m, c| {
                let mut signer = m.pki.tcb_signing.clone();
                signer.issuer = m.pki.platform_ca.subject.clone();
                let signer = pem("CERTIFICATE", &signer.sign(&m.pki.keys.platform_ca));
                c.tcb_info_issuer_chain = Some(signer);
            },
        ),
    ]);
}

/// Both halves are genuine, and of different vendors.
#[test]
fn real_and_simulated_do_not_mix() {
    let scene = v5();
    scene.holds("simulated");
    let (checks, _) = seen(&crate::support::v4(), &scene.roots, V4_TIME);
    assert!(checks.hold(), "real: {}", words(&checks));

    let mut mixed = crate::support::v4();
    mixed.collateral = scene.evidence().collateral;
    let (checks, authentic) = seen(&mixed, &scene.roots, V4_TIME);
    assert_eq!(decided(&checks), (3, ROOT.to_owned()));
    assert!(authentic.is_none());
    let mut mixed = scene.evidence();
    mixed.collateral = crate::support::v4().collateral;
    let (checks, authentic) = seen(&mixed, &scene.roots, NOW);
    assert_eq!(decided(&checks), (3, ROOT.to_owned()));
    assert!(authentic.is_none());

    // A root that is called exactly like Intel's: evidence of either is judged under its own.
    let mut like = v5();
    let name = Name::intel("Intel SGX Root CA");
    let pki = &mut like.machine.pki;
    pki.root.subject = name.clone();
    for certificate in [&mut pki.root, &mut pki.platform_ca, &mut pki.tcb_signing] {
        certificate.issuer = name.clone();
    }
    like.machine.root_crl.issuer = name;
    like.roots = trusted(&like.machine.pki.root_pem());
    assert!(like.holds("called like Intel's").root().simulated);
    let (checks, authentic) = seen(&crate::support::v4(), &like.roots, V4_TIME);
    assert!(checks.hold(), "{}", words(&checks));
    assert!(!authentic.unwrap().root().simulated);
    like.roots = Roots::pinned();
    assert_eq!(decided(&like.seen().0), (3, ROOT.to_owned()));
    // Simulated texts, in chains that leave the root out, beside a real quote.
    let pki = Pki::with_keys(NOW, rogue_keys());
    let mut signer = pki.tcb_signing.clone();
    signer.issuer = Name::intel("Intel SGX Root CA");
    let mut mixed = crate::support::v4();
    if let Some(touchstone_formats::evidence::Collateral::Tdx(c)) = &mut mixed.collateral {
        let text = c.qe_identity.clone().unwrap();
        c.qe_identity_signature = Some(HexBytes(pki.sign_json(&text)));
        c.qe_identity_issuer_chain = Some(pem("CERTIFICATE", &signer.sign(&pki.keys.root)));
    }
    let (checks, _) = seen(&mixed, &like.roots, V4_TIME);
    assert_eq!(decided(&checks), (3, SIGNATURE.to_owned()));
}

/// A change of one certificate, which its issuer signs all the same.
fn certificate(
    name: &str,
    which: fn(&mut TdxMachine) -> &mut Certificate,
    change: impl Fn(&mut Certificate) + 'static,
) -> Lie {
    forged(name, CONSTRAINTS, move |s| change(which(&mut s.machine)))
}

#[test]
fn constraints() {
    let pck: fn(&mut TdxMachine) -> &mut Certificate = |m| &mut m.pck;
    let ca: fn(&mut TdxMachine) -> &mut Certificate = |m| &mut m.pki.platform_ca;
    let signer: fn(&mut TdxMachine) -> &mut Certificate = |m| &mut m.pki.tcb_signing;
    let usage = |bits: u8| {
        move |c: &mut Certificate| {
            *c.extension_mut(oid::KEY_USAGE) = Extension::key_usage_bits(bits)
        }
    };
    let is_ca = |c: &mut Certificate| {
        *c.extension_mut(oid::BASIC_CONSTRAINTS) = Extension::basic_constraints(true, None);
    };
    let unknown = |c: &mut Certificate| {
        c.extensions
            .push(Extension::new("1.2.3.4", true, vec![5, 0]));
    };
    refuse(vec![
        certificate("a PCK certificate that is a CA", pck, is_ca),
        certificate("a PCK that may not sign", pck, usage(0x40)),
        certificate("a PCK without keyUsage", pck, |c| c.remove(oid::KEY_USAGE)),
        certificate("a PCK certificate called otherwise", pck, |c| {
            c.subject = Name::intel("Intel SGX TCB Signing");
        }),
        certificate(
            "a critical extension of the PCK's nobody knows",
            pck,
            unknown,
        ),
        certificate("a PCK CA that is none", ca, |c| {
            *c.extension_mut(oid::BASIC_CONSTRAINTS) = Extension::basic_constraints(false, None);
        }),
        certificate("a PCK CA without basicConstraints", ca, |c| {
            c.remove(oid::BASIC_CONSTRAINTS)
        }),
        certificate("a PCK CA without keyUsage", ca, |c| {
            c.remove(oid::KEY_USAGE)
        }),
        certificate("a PCK CA that may sign lists alone", ca, usage(0x02)),
        certificate("a critical extension of the CA's nobody knows", ca, unknown),
        certificate("a TCB signing certificate that is a CA", signer, is_ca),
        certificate("a TCB signing key that may not sign", signer, usage(0x40)),
        certificate("a TCB signing certificate called otherwise", signer, |c| {
            c.subject = Name::intel("Intel SGX PCK Certificate");
        }),
        certificate(
            "a critical extension of the signer's nobody knows",
            signer,
            unknown,
        ),
        certificate("a signer that names another issuer", signer, |c| {
            c.issuer = Name::intel("SIM Intel SGX PCK Platform CA");
        }),
        lie(
            "a PCK certificate that names another issuer",
            processor,
            3,
            CONSTRAINTS,
            |s| {
                s.machine.pck.issuer = Name::intel("SIM Intel SGX PCK Processor CA of my own");
            },
        ),
        called("the root's CA of something else", "SIM Intel SGX Other CA"),
        called(
            "a CA of both names",
            "SGX PCK Platform CA, SGX PCK Processor CA",
        ),
        sent("the PCK CA signed TCB info", 3, CONSTRAINTS, |m, c| {
            let text = c.tcb_info.clone().unwrap();
            let signature = m.pki.ca_key(m.ca).sign(text.as_bytes());
            c.tcb_info_signature = Some(HexBytes(signature));
            c.tcb_info_issuer_chain = Some(chain_pem(&[m.pki.ca_der(m.ca), m.pki.root_der()]));
        }),
        // Algorithms that Intel does not use.
        certificate_algorithm("ECDSA with SHA-384 said", "1.2.840.10045.4.3.3"),
        certificate_algorithm("RSA with SHA-256 said", "1.2.840.113549.1.1.11"),
    ]);
}

/// The PCK CA, certified by the trusted root, has another name; everything fits it.
fn called(name: &str, cn: &'static str) -> Lie {
    forged(name, CONSTRAINTS, move |s| {
        let mut pki = s.machine.pki.clone();
        pki.platform_ca.subject = Name::intel(cn);
        s.machine = TdxMachine::under(pki, 5, s.machine.report.report.clone());
    })
}

fn certificate_algorithm(name: &str, algorithm: &'static str) -> Lie {
    forged(name, SIGNATURE, move |s| {
        s.machine.pck.algorithm = asn1::sequence(&[&asn1::oid(algorithm)]);
    })
}

#[test]
fn validity() {
    let id = "tdx.chain.validity";
    let late = |name: &str, which: fn(&mut TdxMachine) -> &mut Certificate| {
        lie(name, v5, 5, id, move |s| {
            which(&mut s.machine).not_after = NOW - 1
        })
    };
    let early = |name: &str, which: fn(&mut TdxMachine) -> &mut Certificate| {
        lie(name, v5, 5, id, move |s| {
            which(&mut s.machine).not_before = NOW + 1
        })
    };
    let texts = "tdx.collateral.validity";
    refuse(vec![
        late("the PCK certificate has ended", |m| &mut m.pck),
        late("the PCK CA has ended", |m| &mut m.pki.platform_ca),
        late("the TCB signing certificate has ended", |m| {
            &mut m.pki.tcb_signing
        }),
        early("the PCK certificate has not begun", |m| &mut m.pck),
        early("the PCK CA has not begun", |m| &mut m.pki.platform_ca),
        early("the TCB signing certificate has not begun", |m| {
            &mut m.pki.tcb_signing
        }),
        lie("the root has ended", v5, 5, id, |s| {
            s.machine.pki.root.not_after = NOW - 1;
            s.roots = trusted(&s.machine.pki.root_pem());
        }),
        lie("TCB info is due again", v5, 5, texts, |s| {
            s.machine.tcb_info.next_update = NOW
        }),
        lie("TCB info is of tomorrow", v5, 5, texts, |s| {
            s.machine.tcb_info.issue_date = NOW + 1
        }),
        lie("QE identity is due again", v5, 5, texts, |s| {
            s.machine.qe_identity.next_update = NOW
        }),
        lie("QE identity is of tomorrow", v5, 5, texts, |s| {
            s.machine.qe_identity.issue_date = NOW + 1
        }),
        lie("long before", v5, 5, id, |s| s.time = 0),
        lie("long after", v5, 5, id, |s| s.time = u64::MAX),
    ]);
    // To the second, and in which window it would hold.
    let mut scene = v5();
    scene.machine.pck.not_before = NOW;
    scene.machine.pki.tcb_signing.not_after = NOW;
    scene.machine.tcb_info.issue_date = NOW;
    scene.machine.qe_identity.next_update = NOW + 1;
    let authentic = scene.holds("to the second");
    let part = |name: &str| {
        authentic
            .windows()
            .iter()
            .find(|p| p.name == name)
            .unwrap()
            .window
    };
    assert_eq!(part("the PCK certificate").from, NOW);
    assert_eq!(part("the TCB signing certificate").to, NOW);
    assert_eq!(part("TCB info").from, NOW);
    assert_eq!(part("QE identity").to, NOW);
    scene.time = NOW + 1;
    let (checks, _) = scene.seen();
    let check = checks.find("tdx.chain.validity").unwrap();
    let window = format!("{} to {}", rfc3339(NOW), rfc3339(NOW));
    assert!(check.reason.contains(&window), "{}", check.reason);
    assert_eq!(check.expected, window);
}

/// Eight named roots that are all called like the pinned one, the right one last; a signer of its own for each text, another
/// certificate of the CA's with its revocation list: as much work as there can be, 20 signature checks.
#[test]
fn the_budget_is_enough_for_the_costliest_evidence() {
    let mut scene = v5();
    let name = Name::intel("Intel SGX Root CA");
    let pki = &mut scene.machine.pki;
    pki.root.subject = name.clone();
    for certificate in [&mut pki.root, &mut pki.platform_ca, &mut pki.tcb_signing] {
        certificate.issuer = name.clone();
    }
    scene.machine.root_crl.issuer = name;
    scene.collateral(|m, c| {
        let mut signer = m.pki.tcb_signing.clone();
        signer.serial = vec![7];
        let mut ca = m.pki.platform_ca.clone();
        ca.serial = vec![7];
        c.qe_identity_issuer_chain = Some(chain_pem(&[signer.sign(&m.pki.keys.root)]));
        c.pck_crl_issuer_chain = Some(chain_pem(&[ca.sign(&m.pki.keys.root)]));
    });
    let own = scene.machine.pki.root_pem();
    let mut pems = String::new();
    for _ in 0..7 {
        let key = EcKey::p256();
        let mut root = scene.machine.pki.root.clone();
        root.spki = key.spki();
        pems += &pem("CERTIFICATE", &root.sign(&key));
    }
    scene.roots = trusted(&(pems.clone() + &own));
    let authentic = scene.holds("nine roots of one name");
    assert_eq!(authentic.windows().len(), 10);
    scene.roots = trusted(&pems);
    assert_eq!(decided(&scene.seen().0).0, 3);
}

#[test]
fn named_roots() {
    let with = |pem: &str| Roots::pinned().with_simulated_pem(pem.as_bytes());
    let pki = v5().machine.pki;
    let own = pki.root_pem();
    let roots = with(&own).unwrap();
    assert_eq!(roots.anchors().len(), 5);
    assert!(roots.anchors()[4].simulated);
    assert_eq!(roots.anchors()[4].product, None);
    // The key is what counts, not the certificate around it.
    let mut again = pki.root.clone();
    again.serial = vec![7];
    let again = pem("CERTIFICATE", &again.sign(&pki.keys.root));
    assert_eq!(
        with(&(own.clone() + &again)).unwrap_err(),
        RootError::Twice { index: 2 }
    );
    let pinned = pem(
        "CERTIFICATE",
        Roots::pinned().anchors()[3].certificate.der(),
    );
    let name = "Intel SGX Root CA".to_owned();
    let error = RootError::Pinned { index: 2, name };
    assert_eq!(with(&(own + &pinned)).unwrap_err(), error);

    let reason = |change: fn(&mut Certificate), key: &EcKey| {
        let mut root = pki.root.clone();
        change(&mut root);
        match with(&pem("CERTIFICATE", &root.sign(key))) {
            Err(RootError::Unfit { index: 1, reason }) => reason,
            other => panic!("{other:?}"),
        }
    };
    let key = &pki.keys.root;
    assert!(reason(|_| {}, &rogue_keys().root).contains("not self-signed with ECDSA"));
    assert!(reason(|c| c.subject = Name::intel("other"), key).contains("self-issued"));
    assert!(reason(|c| c.remove(oid::BASIC_CONSTRAINTS), key).contains("not a CA"));
    assert!(reason(|c| c.remove(oid::KEY_USAGE), key).contains("not a CA"));
    assert!(reason(|c| c.spki = EcKey::p384().spki(), key).contains("neither RSA"));
    let algorithm = |c: &mut Certificate| {
        c.algorithm = asn1::sequence(&[&asn1::oid("1.2.840.10045.4.3.3")]);
    };
    assert!(reason(algorithm, key).contains("not self-signed with ECDSA"));
    let no_room = |c: &mut Certificate| {
        *c.extension_mut(oid::BASIC_CONSTRAINTS) = Extension::basic_constraints(true, Some(0));
    };
    assert!(reason(no_room, key).contains("path length"));
    let unknown = |c: &mut Certificate| {
        c.extensions
            .push(Extension::new("1.2.3.4", true, vec![5, 0]));
    };
    assert!(reason(unknown, key).contains("critical"));
    assert!(reason(|c| c.trailing = vec![0], key).contains("not DER"));
}
