//! Lies about the texts that Intel signs, and about the other members of collateral.

use attestation_verifier::parse::tdx::TdxModule;
use attestation_verifier::verdict::Outcome;
use touchstone_formats::evidence::TdxCollateral;
use touchstone_formats::text::HexBytes;
use touchstone_testkit::machine::TdxMachine;
use touchstone_testkit::x509::{Extension, asn1};

use crate::simulated::{Lie, NOW, chain_pem, forged, lie, refuse, rogue_keys, sent, v5};
use crate::support::{decided, seen};

#[test]
fn signed_texts() {
    let info = "tdx.tcb_info.signature";
    let identity = "tdx.qe_identity.signature";
    let about = "tdx.tcb_info.fmspc";
    refuse(vec![
        sent("TCB info by another key", 3, info, |_, c| {
            let text = c.tcb_info.clone().unwrap();
            c.tcb_info_signature = Some(HexBytes(rogue_keys().tcb_signing.sign(text.as_bytes())));
        }),
        sent("zeros in place of TCB info's signature", 3, info, |_, c| {
            c.tcb_info_signature = Some(HexBytes(vec![0; 64]));
        }),
        sent("a space behind TCB info", 3, info, |_, c| {
            c.tcb_info = c.tcb_info.take().map(|text| text + " ");
        }),
        sent("a status changed", 3, info, |_, c| {
            c.tcb_info = c
                .tcb_info
                .take()
                .map(|text| text.replace("OutOfDate", "UpToDate"));
        }),
        sent(
            "the same JSON in another order of members",
            3,
            info,
            |_, c| {
                // Sorted, as Intel's are not; a `Value` keeps their order in some builds.
                let sorted: std::collections::BTreeMap<String, serde_json::Value> =
                    serde_json::from_str(&c.tcb_info.take().unwrap()).unwrap();
                c.tcb_info = Some(serde_json::to_string(&sorted).unwrap());
            },
        ),
        sent("signatures exchanged", 3, info, |_, c| {
            std::mem::swap(&mut c.tcb_info_signature, &mut c.qe_identity_signature);
        }),
        sent("QE identity by another key", 3, identity, |_, c| {
            let text = c.qe_identity.clone().unwrap();
            c.qe_identity_signature =
                Some(HexBytes(rogue_keys().tcb_signing.sign(text.as_bytes())));
        }),
        sent(
            "zeros in place of QE identity's signature",
            3,
            identity,
            |_, c| {
                c.qe_identity_signature = Some(HexBytes(vec![0; 64]));
            },
        ),
        sent("QE identity with another mask", 3, identity, |_, c| {
            c.qe_identity = c
                .qe_identity
                .take()
                .map(|text| text.replace("FFFFFFFF", "00000000"));
        }),
        forged("TCB info of another family", about, |s| {
            s.machine.tcb_info.fmspc[0] ^= 1
        }),
        forged("TCB info of another PCE", about, |s| {
            s.machine.tcb_info.pce_id = [0, 1]
        }),
    ]);
}

#[test]
fn what_is_missing() {
    type Leave = (&'static str, fn(&mut TdxCollateral));
    let each: [Leave; 6] = [
        ("tcb_info", |c| c.tcb_info = None),
        ("tcb_info_signature", |c| c.tcb_info_signature = None),
        ("tcb_info_issuer_chain", |c| c.tcb_info_issuer_chain = None),
        ("qe_identity", |c| c.qe_identity = None),
        ("qe_identity_signature", |c| c.qe_identity_signature = None),
        ("qe_identity_issuer_chain", |c| {
            c.qe_identity_issuer_chain = None
        }),
    ];
    for (name, change) in each {
        let mut scene = v5();
        scene.collateral(move |_, c| change(c));
        let (checks, authentic) = scene.seen();
        assert_eq!(decided(&checks), (5, "tdx.collateral".to_owned()), "{name}");
        assert!(authentic.is_none());
        let check = checks.find("tdx.collateral").unwrap();
        assert_eq!(check.reason, format!("missing: {name}"));
        // Everything that could be looked at was.
        let passed = |id: &str| checks.find(id).unwrap().result == Outcome::Pass;
        assert!(
            passed("tdx.chain.signature") && passed("tdx.signature"),
            "{name}"
        );
    }
    // Without any, what the quote shows by itself is shown.
    let mut evidence = v5().evidence();
    evidence.collateral = None;
    let scene = v5();
    let (checks, _) = seen(&evidence, &scene.roots, NOW);
    assert_eq!(decided(&checks), (5, "tdx.collateral".to_owned()));
    assert_eq!(
        checks
            .find("tdx.collateral")
            .unwrap()
            .expected
            .as_array()
            .unwrap()
            .len(),
        6
    );
    evidence.quote[200] ^= 1;
    let (checks, _) = seen(&evidence, &scene.roots, NOW);
    assert_eq!(decided(&checks), (3, "tdx.signature".to_owned()));
}

/// TCB info or QE identity with another text, signed.
fn text(
    name: impl Into<String>,
    identity: bool,
    change: impl Fn(&str) -> String + Clone + 'static,
) -> Lie {
    lie(name, v5, 2, "tdx.collateral", move |s| {
        let change = change.clone();
        s.collateral(move |m, c| {
            let (text, signature) = if identity {
                (&mut c.qe_identity, &mut c.qe_identity_signature)
            } else {
                (&mut c.tcb_info, &mut c.tcb_info_signature)
            };
            let before = text.take().unwrap();
            let after = change(&before);
            assert_ne!(before, after, "a change");
            *signature = Some(HexBytes(m.pki.sign_json(&after)));
            *text = Some(after);
        });
    })
}

/// The text with one piece, which stands in it once or more, replaced everywhere or once.
fn swap(name: &str, identity: bool, from: &'static str, to: &'static str) -> Lie {
    text(name, identity, move |text| text.replacen(from, to, 1))
}

#[test]
fn texts_that_intel_would_not_write() {
    let mut lies = vec![
        swap("no JSON", false, "{", ""),
        text("something after it", false, |text| format!("{text}x")),
        text("twice", false, |text| format!("{text}{text}")),
        swap("a member twice", false, "{", "{\"id\":\"TDX\","),
        swap(
            "an unknown member twice",
            false,
            "{",
            "{\"new\":1,\"new\":2,",
        ),
        swap(
            "a member of a level twice",
            false,
            "\"pcesvn\":",
            "\"pcesvn\":1,\"pcesvn\":",
        ),
        swap(
            "an unknown member twice, deep inside",
            false,
            "{\"svn\":",
            "{\"n\":1,\"n\":1,\"svn\":",
        ),
        text("nested too deep", false, |text| {
            text.replacen(
                '{',
                &format!("{{\"new\":{}{},", "[".repeat(16), "]".repeat(16)),
                1,
            )
        }),
        swap("TCB info of SGX", false, "\"id\":\"TDX\"", "\"id\":\"SGX\""),
        swap("version 2", false, "\"version\":3", "\"version\":2"),
        swap("version 4", false, "\"version\":3", "\"version\":4"),
        swap(
            "a version that is text",
            false,
            "\"version\":3",
            "\"version\":\"3\"",
        ),
        swap("another TCB type", false, "\"tcbType\":0", "\"tcbType\":1"),
        swap("a date with an offset", false, "Z\"", "+00:00\""),
        swap("a date with a fraction", false, "Z\"", ".0Z\""),
        swap("a date in lower case", false, "Z\"", "z\""),
        swap("a date with a space", false, "T", " "),
        swap("FMSPC one byte short", false, "F0C06F000000", "F0C06F0000"),
        swap(
            "FMSPC that is no hex",
            false,
            "F0C06F000000",
            "G0C06F000000",
        ),
        swap("a status nobody knows", false, "UpToDate", "Fine"),
        swap("a status in lower case", false, "UpToDate", "uptodate"),
        swap("15 components", false, ",{\"svn\":0}", ""),
        swap(
            "17 components",
            false,
            "{\"svn\":0}",
            "{\"svn\":0},{\"svn\":0}",
        ),
        swap(
            "a component over 255",
            false,
            "{\"svn\":0}",
            "{\"svn\":256}",
        ),
        swap(
            "a component below zero",
            false,
            "{\"svn\":0}",
            "{\"svn\":-1}",
        ),
        swap(
            "a component with a fraction",
            false,
            "{\"svn\":0}",
            "{\"svn\":0.0}",
        ),
        swap(
            "a component without svn",
            false,
            "{\"svn\":0}",
            "{\"sv\":0}",
        ),
        swap(
            "PCESVN over 65535",
            false,
            "\"pcesvn\":",
            "\"pcesvn\":65536,\"was\":",
        ),
        swap("no module", false, "\"tdxModule\":", "\"module\":"),
        swap("no PCE id", false, "\"pceId\":", "\"pceid\":"),
        swap("no levels", false, "\"tcbLevels\":", "\"levels\":"),
        swap("an advisory of nothing", false, "INTEL-SA-99001", ""),
        swap(
            "an advisory with a space",
            false,
            "INTEL-SA-99001",
            "INTEL SA",
        ),
        swap(
            "an advisory with a line end",
            false,
            "INTEL-SA-99001",
            "INTEL-SA\\n",
        ),
        swap("a module id with a space", false, "TDX_03", "TDX 03"),
        swap(
            "a module's ISVSVN over 65535",
            false,
            "{\"isvsvn\":",
            "{\"isvsvn\":65536,\"was\":",
        ),
        swap("no JSON", true, "{", ""),
        swap("a member twice", true, "{", "{\"id\":\"TD_QE\","),
        swap(
            "an unknown member twice",
            true,
            "{",
            "{\"new\":1,\"new\":2,",
        ),
        swap(
            "the identity of SGX's QE",
            true,
            "\"id\":\"TD_QE\"",
            "\"id\":\"QE\"",
        ),
        swap(
            "the identity of the QvE",
            true,
            "\"id\":\"TD_QE\"",
            "\"id\":\"QVE\"",
        ),
        swap("version 1", true, "\"version\":2", "\"version\":1"),
        swap("a date with an offset", true, "Z\"", "+00:00\""),
        swap("MRSIGNER one byte short", true, "DC9E", "DC"),
        swap("no mask", true, "attributesMask", "mask"),
        swap(
            "MISCSELECT of two bytes",
            true,
            "\"miscselect\":\"00000000\"",
            "\"miscselect\":\"0000\"",
        ),
        swap(
            "ISVPRODID over 65535",
            true,
            "\"isvprodid\":2",
            "\"isvprodid\":65538",
        ),
        swap("no levels", true, "\"tcbLevels\":", "\"levels\":"),
        swap("a status nobody knows", true, "UpToDate", "Fine"),
    ];
    // Bounds of lists.
    for (count, which) in [(0, "no level at all"), (257, "257 levels")] {
        lies.push(lie(which, v5, 2, "tdx.collateral", move |s| {
            let level = s.machine.tcb_info.tcb_levels[0].clone();
            s.machine.tcb_info.tcb_levels = vec![level; count];
        }));
        lies.push(lie(
            format!("QE identity: {which}"),
            v5,
            2,
            "tdx.collateral",
            move |s| {
                let level = s.machine.qe_identity.tcb_levels[0].clone();
                s.machine.qe_identity.tcb_levels = vec![level; count];
            },
        ));
        lies.push(lie(
            format!("a module: {which}"),
            v5,
            2,
            "tdx.collateral",
            move |s| {
                let module = &mut s.machine.tcb_info.tdx_module_identities[0];
                module.tcb_levels = vec![module.tcb_levels[0].clone(); count];
            },
        ));
    }
    lies.push(lie("257 modules", v5, 2, "tdx.collateral", |s| {
        let modules = &mut s.machine.tcb_info.tdx_module_identities;
        *modules = vec![modules[0].clone(); 257];
    }));
    lies.push(lie("257 advisories", v5, 2, "tdx.collateral", |s| {
        s.machine.tcb_info.tcb_levels[1].advisories = vec!["INTEL-SA-1".into(); 257];
    }));
    lies.push(lie(
        "an advisory of 65 characters",
        v5,
        2,
        "tdx.collateral",
        |s| {
            s.machine.tcb_info.tcb_levels[1].advisories = vec!["I".repeat(65)];
        },
    ));
    lies.push(lie(
        "levels of the QE in another order",
        v5,
        2,
        "tdx.collateral",
        |s| {
            s.machine.qe_identity.tcb_levels.reverse();
        },
    ));
    lies.push(lie(
        "levels of a TDX module in another order",
        v5,
        2,
        "tdx.collateral",
        |s| {
            for identity in &mut s.machine.tcb_info.tdx_module_identities {
                identity.tcb_levels.reverse();
            }
        },
    ));
    refuse(lies);
    // What Intel may add is passed over; hex may be in either case; older TCB info has no module identities.
    let mut scene = v5();
    scene.machine.tcb_info.tdx_module_identities.clear();
    scene.collateral(|m, c| {
        let text = c.tcb_info.take().unwrap();
        let text = text.replacen('{', "{\"new\":[{\"a\":null}],", 1);
        let text = text.replace("F0C06F", "f0c06f");
        c.tcb_info_signature = Some(HexBytes(m.pki.sign_json(&text)));
        c.tcb_info = Some(text);
    });
    let authentic = scene.holds("a new member");
    assert!(authentic.tcb_info().tdx_module_identities.is_empty());
    let module = TdxModule {
        mrsigner: [0; 48],
        attributes: [0; 8],
        attributes_mask: [0xff; 8],
    };
    assert_eq!(authentic.tcb_info().tdx_module, module);
}

/// Collateral that is malformed beside what is signed in it.
fn member(name: &str, change: impl Fn(&TdxMachine, &mut TdxCollateral) + Clone + 'static) -> Lie {
    lie(name, v5, 2, "tdx.collateral", move |s| {
        s.collateral(change.clone())
    })
}

#[test]
fn other_members() {
    let cut = |bytes: &mut Option<HexBytes>| bytes.as_mut().unwrap().0.truncate(63);
    refuse(vec![
        member("TCB info's signature of 63 bytes", move |_, c| {
            cut(&mut c.tcb_info_signature)
        }),
        member("QE identity's signature of 63 bytes", move |_, c| {
            cut(&mut c.qe_identity_signature)
        }),
        member("a signature of 65 bytes", |_, c| {
            c.tcb_info_signature.as_mut().unwrap().0.push(0)
        }),
        member("a signature as X.509 has them", |m, c| {
            use touchstone_testkit::x509::Signer as _;
            let text = c.tcb_info.as_ref().unwrap();
            c.tcb_info_signature =
                Some(HexBytes(m.pki.keys.tcb_signing.sign_x509(text.as_bytes())));
        }),
        member("no signature", |_, c| {
            c.tcb_info_signature = Some(HexBytes(Vec::new()))
        }),
        member("a chain with text before it", |_, c| {
            c.tcb_info_issuer_chain = c
                .tcb_info_issuer_chain
                .take()
                .map(|pem| format!("x\n{pem}"));
        }),
        member("an empty chain", |_, c| {
            c.qe_identity_issuer_chain = Some(String::new())
        }),
        member("a chain with two zeros behind it", |_, c| {
            c.qe_identity_issuer_chain
                .as_mut()
                .unwrap()
                .push_str("\0\0");
        }),
        member("a chain of three", |m, c| {
            let root = m.pki.root_der();
            let signer = m.pki.tcb_signing.sign(&m.pki.keys.root);
            c.tcb_info_issuer_chain = Some(chain_pem(&[signer, root.clone(), root]));
        }),
        member("a chain in percent-encoding", |_, c| {
            let chain = c.tcb_info_issuer_chain.take().unwrap();
            c.tcb_info_issuer_chain = Some(chain.replace('\n', "%0A"));
        }),
        member("a chain over 16 KiB", |m, c| {
            let mut signer = m.pki.tcb_signing.clone();
            let long = Extension::new("1.2.3", false, vec![0; 12_000]);
            signer.extensions.push(long);
            let signer = signer.sign(&m.pki.keys.root);
            c.tcb_info_issuer_chain = Some(chain_pem(&[signer]));
        }),
        member("the revocation list's chain is none", |_, c| {
            c.pck_crl_issuer_chain = Some("x".into())
        }),
        member("a PCK list with a byte behind it", |_, c| {
            c.pck_crl.as_mut().unwrap().0.push(0)
        }),
        member("a root's list that is cut off", |_, c| {
            c.root_ca_crl.as_mut().unwrap().0.pop();
        }),
        member("a PCK list that is PEM", |_, c| {
            c.pck_crl = Some(HexBytes(b"-----BEGIN".to_vec()))
        }),
        lie(
            "a PCK list without nextUpdate",
            v5,
            2,
            "tdx.collateral",
            |s| {
                s.machine.pck_crl.next_update = None;
            },
        ),
        lie(
            "a PCK list that says two algorithms",
            v5,
            2,
            "tdx.collateral",
            |s| {
                let other = asn1::sequence(&[&asn1::oid("1.2.840.10045.4.3.3")]);
                s.machine.pck_crl.outer_algorithm = Some(other);
            },
        ),
    ]);
    // Chains that somebody put together line by line.
    let mut scene = v5();
    scene.collateral(|_, c| {
        let chain = c.tcb_info_issuer_chain.as_mut().unwrap();
        *chain = chain.replace("E-----\n-", "E-----\n\n-") + "\n";
    });
    scene.holds("empty lines in a chain");
    // What is there is looked at although something else is missing.
    let mut scene = v5();
    scene.collateral(|_, c| {
        c.tcb_info = None;
        c.qe_identity_issuer_chain = Some("x".into());
    });
    assert_eq!(decided(&scene.seen().0), (2, "tdx.collateral".to_owned()));
}
