//! Lies about keys, certificates, revocation and bindings, each signed by the simulated vendor.

use attestation_verifier::Roots;
use attestation_verifier::dates::rfc3339;
use touchstone_testkit::amd::{Certificate, Crl, Curve, Extension, Pki, Product, VekKey, oid, pss};
use touchstone_testkit::machine::Endorsement;

use crate::simulated::{
    CSP, Lie, NOW, Scene, genoa, genoa_v2, lie, milan, refuse, rogue_keys, turin, vlek,
};

const DAY: u64 = 86_400;

/// Not authentic.
fn forged(
    name: &str,
    honest: fn() -> Scene,
    deciding: &'static str,
    change: impl Fn(&mut Scene) + 'static,
) -> Lie {
    lie(name, honest, change, 3, deciding)
}

/// A change of the endorsement key's certificate, which the intermediate signs all the same.
fn vek(
    name: &str,
    honest: fn() -> Scene,
    exit: u8,
    deciding: &'static str,
    change: impl Fn(&mut Certificate) + 'static,
) -> Lie {
    lie(
        name,
        honest,
        move |s| change(&mut s.machine.vek),
        exit,
        deciding,
    )
}

/// A change of the revocation list, which the root signs all the same.
fn crl(name: &str, exit: u8, deciding: &'static str, change: impl Fn(&mut Crl) + 'static) -> Lie {
    lie(
        name,
        genoa,
        move |s| change(&mut s.machine.crl),
        exit,
        deciding,
    )
}

#[test]
fn signatures_of_reports() {
    let id = "snp.signature";
    refuse(vec![
        forged("signed by another key", genoa, id, |s| {
            s.forger = Some(VekKey::p384())
        }),
        forged("no signature, a constant in its place", genoa, id, |s| {
            s.after_signing = Some(|r| r[0x2a0..0x2d0].fill(1));
        }),
        forged("zeros in place of the signature", genoa, id, |s| {
            s.after_signing = Some(|r| r[0x2a0..].fill(0));
        }),
        forged("r and s big-endian", genoa, id, |s| {
            s.after_signing = Some(|r| {
                r[0x2a0..0x2d0].reverse();
                r[0x2e8..0x318].reverse();
            });
        }),
        forged("r and s exchanged", genoa, id, |s| {
            s.after_signing = Some(|r| {
                let (left, right) = r.split_at_mut(0x2e8);
                left[0x2a0..0x2d0].swap_with_slice(&mut right[..0x30]);
            });
        }),
        forged("SIGNING_KEY none", genoa, id, |s| {
            s.machine.report.flags |= 7 << 2
        }),
        forged(
            "MASK_CHIP_KEY: the firmware signs nothing",
            genoa,
            id,
            |s| {
                s.machine.report.flags |= 2;
            },
        ),
        forged("a key on P-256", genoa, id, |s| {
            s.machine.key = VekKey::generate(Curve::P256);
            s.machine.vek.spki = s.machine.key.spki();
            // Its numbers are shorter: what is in their place does not matter.
            s.forger = Some(VekKey::p384());
        }),
    ]);
}

#[test]
fn chains() {
    let signature = "snp.chain.signature";
    let root = "snp.chain.root";
    refuse(vec![
        forged(
            "certificate signed by another intermediate of the same name",
            genoa,
            signature,
            |s| {
                s.collateral(|m, files| files.vek = m.vek.sign(&rogue_keys().ask));
            },
        ),
        forged(
            "intermediate signed by another root of the same name",
            genoa,
            signature,
            |s| {
                s.collateral(|m, files| files.chain = vec![m.pki.ask.sign(&rogue_keys().ark)]);
            },
        ),
        forged(
            "a self-made vendor of the same names, its root not sent",
            genoa,
            signature,
            |s| {
                let pki = Pki::with_keys(Product::Genoa, NOW, rogue_keys());
                s.machine.pki = pki;
            },
        ),
        forged(
            "a self-made vendor of the same names, its root sent along",
            genoa,
            root,
            |s| {
                s.machine.pki = Pki::with_keys(Product::Genoa, NOW, rogue_keys());
                s.collateral(|m, files| files.chain.push(m.pki.ark_der()));
            },
        ),
        forged(
            "a self-made root in place of the intermediate",
            genoa,
            signature,
            |s| {
                s.machine.pki = Pki::with_keys(Product::Genoa, NOW, rogue_keys());
                s.collateral(|m, files| files.chain = vec![m.pki.ark_der()]);
            },
        ),
        forged("without the root being named", genoa, root, |s| {
            s.roots = Roots::pinned()
        }),
        forged("a second intermediate rides along", genoa, root, |s| {
            s.collateral(|m, files| files.chain.push(m.pki.asvk_der()));
        }),
        forged("the intermediate twice", genoa, root, |s| {
            s.collateral(|m, files| files.chain.push(m.pki.ask_der()));
        }),
        forged(
            "signed with PSS, said to be PSS of another hash",
            genoa,
            signature,
            |s| {
                s.machine.vek.algorithm = pss("2.16.840.1.101.3.4.2.1", 48, true);
            },
        ),
        forged(
            "signed with PSS, said to be PSS of another salt",
            genoa,
            signature,
            |s| {
                s.machine.vek.algorithm = pss("2.16.840.1.101.3.4.2.2", 32, true);
            },
        ),
        lie(
            "no collateral's certificate for the key's issuer",
            genoa,
            |s| {
                s.collateral(|_, files| files.chain.clear());
            },
            5,
            "snp.collateral",
        ),
        lie(
            "only a root in the chain",
            genoa,
            |s| {
                let root = trusted(s);
                s.collateral(move |_, files| files.chain = vec![root.clone()]);
            },
            5,
            "snp.collateral",
        ),
    ]);
    // A trusted root that is sent along is passed over.
    let mut scene = genoa();
    let root = trusted(&scene);
    scene.collateral(move |_, files| files.chain.insert(0, root.clone()));
    let verdict = scene.judge();
    assert_eq!(verdict.exit(), 6, "{}", verdict.words());
}

/// The root that was named, byte for byte (signing it again gives another signature).
fn trusted(scene: &Scene) -> Vec<u8> {
    scene
        .roots
        .anchors()
        .last()
        .unwrap()
        .certificate
        .der()
        .to_vec()
}

#[test]
fn constraints() {
    let id = "snp.chain.constraints";
    let ask = |change: fn(&mut Certificate)| move |s: &mut Scene| change(&mut s.machine.pki.ask);
    refuse(vec![
        forged(
            "intermediate that is no CA",
            genoa,
            id,
            ask(|c| {
                *c.extension_mut(oid::BASIC_CONSTRAINTS) =
                    Extension::basic_constraints(false, None);
            }),
        ),
        forged(
            "intermediate without basicConstraints",
            genoa,
            id,
            ask(|c| {
                c.remove(oid::BASIC_CONSTRAINTS);
            }),
        ),
        forged(
            "intermediate without keyUsage",
            genoa,
            id,
            ask(|c| c.remove(oid::KEY_USAGE)),
        ),
        forged(
            "intermediate that may only sign data",
            genoa,
            id,
            ask(|c| {
                c.extension_mut(oid::KEY_USAGE).value = vec![3, 2, 7, 0x80];
            }),
        ),
        forged(
            "intermediate with an unknown critical extension",
            genoa,
            id,
            ask(|c| {
                c.extensions
                    .push(Extension::new("1.3.6.1.4.1.99999.1", true, vec![5, 0]));
            }),
        ),
        forged(
            "key's certificate with an unknown critical extension",
            genoa,
            id,
            |s| {
                let unknown = Extension::new("1.3.6.1.4.1.99999.1", true, vec![5, 0]);
                s.machine.vek.extensions.push(unknown);
            },
        ),
        forged("key's certificate that is a CA", genoa, id, |s| {
            s.machine
                .vek
                .extensions
                .push(Extension::basic_constraints(true, None));
        }),
        forged(
            "key's certificate that names another issuer",
            genoa,
            id,
            |s| {
                s.machine.vek.issuer.common_name = "SIM-SEV-Turin".into();
            },
        ),
    ]);
    // An unknown extension that is not critical is nobody's business.
    let mut scene = genoa();
    let unknown = Extension::new("1.3.6.1.4.1.99999.1", false, vec![5, 0]);
    scene.machine.vek.extensions.push(unknown);
    assert_eq!(scene.judge().exit(), 6);
}

#[test]
fn validity() {
    let id = "snp.chain.validity";
    refuse(vec![
        vek("certificate not valid yet", genoa, 5, id, |c| {
            c.not_before = NOW + 1
        }),
        vek("certificate not valid any more", genoa, 5, id, |c| {
            c.not_after = NOW - 1
        }),
        lie(
            "intermediate not valid yet",
            genoa,
            |s| s.machine.pki.ask.not_before = NOW + 1,
            5,
            id,
        ),
        lie(
            "intermediate not valid any more",
            genoa,
            |s| {
                s.machine.pki.ask.not_after = NOW - 1;
            },
            5,
            id,
        ),
        lie(
            "root not valid any more",
            genoa,
            |s| {
                s.machine.pki.ark.not_after = NOW - 1;
                let pem = s.machine.root_pem();
                s.roots = Roots::pinned().with_simulated_pem(pem.as_bytes()).unwrap();
            },
            5,
            id,
        ),
    ]);
    // The first and the last second are inside.
    let mut scene = genoa();
    (scene.machine.vek.not_before, scene.machine.vek.not_after) = (NOW, NOW);
    let verdict = scene.judge();
    assert_eq!(verdict.exit(), 6, "{}", verdict.words());
}

/// formats.md §7, "Time": outside of it, the verdict names the window in which the evidence would hold.
#[test]
fn a_list_out_of_date_names_its_window() {
    let reason = |scene: &Scene, id: &str| {
        let verdict = scene.judge();
        assert_eq!((verdict.exit(), verdict.deciding()), (5, Some(id)));
        verdict.checks.find(id).unwrap().reason.clone()
    };
    let mut scene = genoa();
    scene.machine.crl.this_update = NOW - 60 * DAY;
    scene.machine.crl.next_update = Some(NOW - 30 * DAY);
    let window = format!(
        "{} to {}",
        rfc3339(NOW - 60 * DAY),
        rfc3339(NOW - 30 * DAY - 1)
    );
    let said = reason(&scene, "snp.chain.crl");
    assert!(said.contains(&window), "{said}");
    // Within that window it holds.
    scene.time = NOW - 60 * DAY;
    let verdict = scene.judge();
    assert_eq!(verdict.exit(), 6, "{}", verdict.words());

    let mut scene = genoa();
    scene.machine.crl.this_update = NOW - 31 * DAY;
    let said = reason(&scene, "snp.collateral.age");
    assert!(said.contains(&rfc3339(NOW - DAY)), "{said}");
    scene.time = NOW - DAY;
    let verdict = scene.judge();
    assert_eq!(verdict.exit(), 6, "{}", verdict.words());
}

#[test]
fn revocation_lists() {
    let current = "snp.chain.crl";
    let revoked = "snp.chain.revoked";
    let malformed = "snp.collateral";
    refuse(vec![
        lie(
            "none",
            genoa,
            |s| s.collateral(|_, files| files.crls.clear()),
            5,
            current,
        ),
        crl("next one due now", 5, current, |c| {
            c.next_update = Some(NOW)
        }),
        crl("next one due long ago", 5, current, |c| {
            c.this_update = NOW - 60 * DAY;
            c.next_update = Some(NOW - 30 * DAY);
        }),
        crl("made tomorrow", 5, current, |c| c.this_update = NOW + DAY),
        crl(
            "older than the policy allows",
            5,
            "snp.collateral.age",
            |c| {
                c.this_update = NOW - 31 * DAY;
                c.next_update = Some(NOW + DAY);
            },
        ),
        crl("the intermediate is revoked", 3, revoked, |c| {
            c.revoke(&[2, 0, 1])
        }),
        crl("the key's certificate is revoked", 3, revoked, |c| {
            c.revoke(&[0])
        }),
        crl("the root is revoked", 3, revoked, |c| c.revoke(&[2, 0, 0])),
        crl("revoked in a list that has expired", 3, revoked, |c| {
            c.next_update = Some(NOW - 1);
            c.revoke(&[2, 0, 1]);
        }),
        lie(
            "revoked, and the policy waives the list",
            genoa,
            |s| {
                s.set(current, "{ waive = \"archive\" }");
                s.machine.crl.revoke(&[2, 0, 1]);
            },
            3,
            revoked,
        ),
        crl("of another issuer", 3, revoked, |c| {
            c.issuer.common_name = "SIM-ARK-Turin".into()
        }),
        crl("with a critical extension", 3, revoked, |c| {
            c.extensions
                .push(Extension::new("2.5.29.28", true, vec![0x30, 0]));
        }),
        lie(
            "not signed by the root",
            genoa,
            |s| {
                s.collateral(|m, files| files.crls = vec![m.crl.sign(&m.pki.keys.ask)]);
            },
            3,
            revoked,
        ),
        lie(
            "the same twice",
            genoa,
            |s| {
                s.collateral(|_, files| files.crls.push(files.crls[0].clone()));
            },
            3,
            revoked,
        ),
        lie(
            "one good, one forged",
            genoa,
            |s| {
                s.collateral(|m, files| files.crls.push(m.crl.sign(&rogue_keys().ark)));
            },
            3,
            revoked,
        ),
        lie(
            "five",
            genoa,
            |s| {
                s.collateral(|m, files| {
                    files.crls = (0..5)
                        .map(|n| {
                            let mut crl = m.crl.clone();
                            crl.this_update -= n;
                            crl.sign(&m.pki.keys.ark)
                        })
                        .collect();
                });
            },
            3,
            revoked,
        ),
        crl("said to be signed with another salt", 3, revoked, |c| {
            c.algorithm = pss("2.16.840.1.101.3.4.2.2", 32, true);
        }),
        crl("without the date of the next one", 2, malformed, |c| {
            c.next_update = None
        }),
        crl("another algorithm outside", 2, malformed, |c| {
            c.outer_algorithm = Some(pss("2.16.840.1.101.3.4.2.2", 48, false));
        }),
        crl("spare bits in the signature", 2, malformed, |c| {
            c.signature_unused_bits = 1
        }),
        crl("bytes after the end", 2, malformed, |c| {
            c.trailing = vec![0]
        }),
    ]);
    // Two lists, one of them out of date: the other will do.
    let mut scene = genoa();
    scene.collateral(|m, files| {
        let mut old = m.crl.clone();
        old.this_update = NOW - 60 * DAY;
        old.next_update = Some(NOW - 30 * DAY);
        files.crls.push(old.sign(&m.pki.keys.ark));
    });
    assert_eq!(scene.judge().exit(), 6);
    // No list, and the policy says that it may be missing.
    let mut scene = genoa();
    scene.set(current, "{ waive = \"archive\" }");
    scene.collateral(|_, files| files.crls.clear());
    assert_eq!(scene.judge().exit(), 6);
}

#[test]
fn bindings() {
    let hwid = "snp.vek.hwid";
    let tcb = "snp.vek.tcb";
    let product = "snp.vek.product";
    let key = "snp.vek.key";
    let mut lies = vec![
        forged("another chip", genoa, hwid, |s| {
            s.machine.report.chip_id[63] ^= 1
        }),
        forged("certificate of another chip", genoa, hwid, |s| {
            s.machine.vek.extension_mut(oid::HWID).value[0] ^= 1;
        }),
        forged("the rest of CHIP_ID on Turin", turin, hwid, |s| {
            s.machine.report.chip_id[8] = 1
        }),
        forged("another chip on Turin", turin, hwid, |s| {
            s.machine.report.chip_id[7] ^= 1
        }),
        forged("CPUID of another product", genoa, product, |s| {
            s.machine.report.cpuid = Product::Milan.cpuid();
        }),
        forged("certificate for another product", milan, product, |s| {
            s.machine.vek.extension_mut(oid::PRODUCT_NAME).value = b"\x16\x05Genoa".to_vec();
        }),
        forged(
            "certificate for another product, version 2",
            genoa_v2,
            product,
            |s| {
                s.machine.vek.extension_mut(oid::PRODUCT_NAME).value = b"\x16\x05Milan".to_vec();
            },
        ),
        forged("a VLEK's report said to be a VCEK's", vlek, key, |s| {
            s.machine.report.flags = 0
        }),
        forged("a VCEK's report said to be a VLEK's", genoa, key, |s| {
            s.machine.report.flags = 1 << 2;
        }),
        forged("a VLEK issued by the ASK", vlek, key, |s| {
            s.machine.vek.issuer = s.machine.pki.ask.subject.clone();
            s.collateral(|m, files| {
                files.vek = m.vek.sign(&m.pki.keys.ask);
                files.chain = vec![m.pki.ask_der()];
            });
        }),
        forged("a VCEK issued by the ASVK", genoa, key, |s| {
            s.machine.vek.issuer = s.machine.pki.asvk.subject.clone();
            s.collateral(|m, files| {
                files.vek = m.vek.sign(&m.pki.keys.asvk);
                files.chain = vec![m.pki.asvk_der()];
            });
        }),
        forged("a VCEK named VLEK", genoa, key, |s| {
            s.machine.vek.subject.common_name = "SEV-VLEK".into();
        }),
    ];
    for level in [oid::BL_SPL, oid::TEE_SPL, oid::SNP_SPL, oid::UCODE_SPL] {
        for honest in [genoa, turin, vlek] {
            lies.push(forged(
                "certificate for another TCB",
                honest,
                tcb,
                move |s| {
                    s.machine.vek.set_number(level, 77);
                },
            ));
        }
    }
    lies.push(forged("certificate for another FMC", turin, tcb, |s| {
        s.machine.vek.set_number(oid::FMC_SPL, 77);
    }));
    lies.push(forged("report of another TCB", genoa, tcb, |s| {
        s.machine.report.reported_tcb[7] += 1
    }));
    refuse(lies);
}

#[test]
fn report_data() {
    fn bound() -> Scene {
        let mut scene = genoa();
        scene.machine.report.report_data = [0x42; 64];
        scene.report_data = Some([0x42; 64]);
        scene
    }
    let mut lies = Vec::new();
    for byte in [0, 31, 32, 63] {
        lies.push(forged(
            "another byte",
            bound,
            "evidence.report_data",
            move |s| {
                s.machine.report.report_data[byte] ^= 1;
            },
        ));
    }
    lies.push(forged("zeros", bound, "evidence.report_data", |s| {
        s.machine.report.report_data = [0; 64];
    }));
    refuse(lies);
    assert_eq!(bound().judge().context.covers, ["report_data"]);
    assert!(
        genoa()
            .judge()
            .words()
            .contains("REPORT_DATA was compared with nothing")
    );
}

#[test]
fn products_and_keys_hold() {
    for honest in [genoa, genoa_v2, milan, turin, vlek] {
        let verdict = honest().judge();
        assert_eq!(verdict.exit(), 6, "{}", verdict.words());
    }
    let verdict = vlek().judge();
    assert_eq!(verdict.checks.find("snp.vlek.csp").unwrap().found, CSP);
    let mut milan = milan();
    milan.machine.endorsement = Endorsement::Vcek;
    assert!(milan.judge().words().contains("arXiv 2605.12990"));
}
