//! Roots that a caller names: what may be named, and what it changes.

use crate::common::file;
use crate::simulated::{NOW, genoa, rogue_keys, turin};
use attestation_verifier::{RootError, Roots};
use touchstone_testkit::amd::{Certificate, Extension, Pki, PkiKeys, Product, oid, pss};

#[test]
fn named_roots() {
    let scene = genoa();
    let pem = scene.machine.root_pem();
    let with = |pem: &str| Roots::pinned().with_simulated_pem(pem.as_bytes());
    assert_eq!(with(&pem).unwrap().anchors().len(), 5);
    // Several, with text between them.
    let other = turin().machine.root_pem();
    let both = format!("Genoa\n{pem}\nTurin\n{other}");
    // The same keys stand in both here.
    assert_eq!(with(&both).unwrap_err(), RootError::Twice { index: 2 });
    let other = Pki::with_keys(Product::Turin, NOW, rogue_keys()).ark_pem();
    assert_eq!(
        with(&format!("Genoa\n{pem}\nTurin\n{other}"))
            .unwrap()
            .anchors()
            .len(),
        6
    );

    let pinned = ["ARK-Milan", "ARK-Genoa", "ARK-Turin", "Intel SGX Root CA"];
    for (index, name) in pinned.iter().enumerate() {
        let roots = Roots::pinned();
        let pinned = &roots.anchors()[index].certificate;
        let named = touchstone_testkit::amd::pem("CERTIFICATE", pinned.der());
        let error = with(&format!("{pem}{named}")).unwrap_err();
        assert_eq!(
            error,
            RootError::Pinned {
                index: 2,
                name: (*name).to_owned()
            }
        );
    }

    let pki = &scene.machine.pki;
    let reasons = |change: fn(&mut Certificate)| {
        let mut root = pki.ark.clone();
        change(&mut root);
        let pem = touchstone_testkit::amd::pem("CERTIFICATE", &root.sign(&pki.keys.ark));
        match with(&pem) {
            Err(RootError::Unfit { index: 1, reason }) => reason,
            other => panic!("{other:?}"),
        }
    };
    assert!(reasons(|c| c.subject.common_name = "other".into()).contains("self-issued"));
    assert!(reasons(|c| c.remove(oid::BASIC_CONSTRAINTS)).contains("not a CA"));
    assert!(reasons(|c| c.remove(oid::KEY_USAGE)).contains("not a CA"));
    assert!(reasons(|c| c.trailing = vec![0]).contains("not DER"));
    assert!(reasons(|c| c.algorithm = pss("2.16.840.1.101.3.4.2.1", 48, true)).contains("PSS"));
    assert!(
        reasons(|c| *c.extension_mut(oid::BASIC_CONSTRAINTS) =
            Extension::basic_constraints(true, Some(0)))
        .contains("path length")
    );
    let forged = touchstone_testkit::amd::pem("CERTIFICATE", &pki.ark.sign(&rogue_keys().ark));
    assert!(matches!(with(&forged), Err(RootError::Unfit { .. })));
    let intermediate = touchstone_testkit::amd::pem("CERTIFICATE", &pki.ask_der());
    assert!(matches!(with(&intermediate), Err(RootError::Unfit { .. })));

    for bad in [
        "",
        "no PEM",
        "-----BEGIN CERTIFICATE-----\nAA==\n",
        &pem.replace("CERTIFICATE", "PRIVATE KEY"),
    ] {
        assert!(matches!(with(bad), Err(RootError::Pem(_))), "{bad:?}");
    }
    assert!(Roots::pinned().with_simulated_pem(&[0xff; 10]).is_err());
    let many = pem.repeat(9);
    assert!(matches!(with(&many), Err(RootError::Pem(_))));
}

/// A caller may name a root that is called exactly like AMD's. Evidence of either is judged under its own.
#[test]
fn a_named_root_called_like_a_pinned_one() {
    let mut scene = genoa();
    let pki = &mut scene.machine.pki;
    for certificate in [&mut pki.ark, &mut pki.ask] {
        certificate.issuer.common_name = "ARK-Genoa".into();
    }
    pki.ark.subject.common_name = "ARK-Genoa".into();
    scene.machine.crl.issuer.common_name = "ARK-Genoa".into();
    let pem = scene.machine.root_pem();
    scene.roots = Roots::pinned();
    let verdict = scene.judge();
    assert_eq!(
        (verdict.exit(), verdict.deciding()),
        (3, Some("snp.chain.signature"))
    );
    scene.roots = Roots::pinned().with_simulated_pem(pem.as_bytes()).unwrap();
    let verdict = scene.judge();
    assert_eq!(verdict.exit(), 6, "{}", verdict.words());
    assert!(verdict.context.simulated);

    // Real evidence is still under the pinned one.
    let folder = crate::common::testdata().join("sev-8.0.0");
    let report = hex::decode(file(folder.join("report_milan.hex"))).unwrap();
    let chain = crate::common::pem_file(&folder.join("cert_chain_milan"));
    let mut pki = Pki::with_keys(Product::Milan, NOW, PkiKeys::shared("rogue"));
    pki.ark.issuer.common_name = "ARK-Milan".into();
    pki.ark.subject.common_name = "ARK-Milan".into();
    let roots = Roots::pinned()
        .with_simulated_pem(pki.ark_pem().as_bytes())
        .unwrap();
    let evidence =
        crate::common::evidence(&report, &file(folder.join("vcek_milan.der")), &chain, &[]);
    let verdict =
        crate::common::judged(&evidence, &crate::common::template(), &roots, 1_768_435_200);
    assert!(!verdict.context.simulated);
    assert_eq!(
        (verdict.exit(), verdict.deciding()),
        (5, Some("snp.chain.crl"))
    );
}
