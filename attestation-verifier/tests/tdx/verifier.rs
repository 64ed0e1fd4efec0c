//! A verifier that is kept, and TDX evidence: what it saves, and what never helps a lie.

use attestation_verifier::{At, Verifier, appraise};
use touchstone_formats::evidence::{Collateral, Evidence, TdxCollateral};

use crate::policy::parsed;
use crate::simulated::{NOW, Scene, processor, v4, v5};
use crate::support::template;
use crate::warm::{self, appraised_alike as alike};

fn clock(time: u64) -> At {
    At {
        time,
        asserted: false,
    }
}

/// With everything waived that the simulated platform does not satisfy.
fn verifier(scene: &Scene) -> Verifier {
    let evidence = scene.evidence();
    let mut text = template();
    for _ in 0..100 {
        let policy = parsed(&text);
        let verdict = appraise(&evidence.to_file(), &policy, &scene.roots, None, clock(NOW));
        let Some(id) = verdict.deciding() else {
            return Verifier::new(policy, scene.roots.clone());
        };
        text = crate::support::with(&text, id, "{ waive = \"not what this is about\" }");
    }
    panic!("no policy accepts the honest platform");
}

fn collateral(evidence: &mut Evidence) -> &mut TdxCollateral {
    match &mut evidence.collateral {
        Some(Collateral::Tdx(collateral)) => collateral,
        other => panic!("{other:?}"),
    }
}

#[test]
fn of_a_known_platform_the_quotes_own_signature_alone_is_verified() {
    let mut scene = v5();
    let verifier = verifier(&scene);
    let first = scene.evidence();
    assert_eq!(alike(&verifier, &first, clock(NOW)), 6);
    let cold = verifier.work();
    // PCK, CA and TCB signer by their issuers, two lists, two texts, QE report, quote.
    assert_eq!((cold.signatures, cold.remembered), (9, 0));
    // The quoting enclave signs its report once for its key: the next quote brings the same one.
    let mut second = first.clone();
    scene.quote(|_, quote| quote.report.report_data = [0x55; 64]);
    let other = scene.evidence();
    let end = first.quote.len();
    let qe = qe_part(&first.quote);
    second.quote = [&other.quote[..qe], &first.quote[qe..end]].concat();
    assert_eq!(alike(&verifier, &second, clock(NOW)), 6);
    let warm = verifier.work();
    assert_eq!(warm.signatures - cold.signatures, 1);
    assert_eq!(warm.remembered - cold.remembered, 8);
    // The very same again, at the same second.
    for _ in 0..2 {
        assert_eq!(alike(&verifier, &second, clock(NOW)), 6);
    }
    assert_eq!(verifier.work().judgements_remembered, 2);
    assert_eq!(verifier.work().signatures, warm.signatures);
}

/// What a platform quotes for others in one second: its report data and its signature are asked each time, and lies about either,
/// or about anything else, are the lies they are to who has seen nothing.
#[test]
fn quotes_of_one_second() {
    for (scene, data, signature) in [(v5(), 574, 706), (v4(), 568, 636)] {
        let verifier = verifier(&scene);
        let machine = &scene.machine;
        let first = scene.evidence();
        // What the quoting enclave brings along is the same in each quote.
        let enclave = signature + 128;
        let quoted = |n: u8| {
            let mut quote = machine.quote([n; 64]);
            quote.splice(enclave.., first.quote[enclave..].iter().copied());
            Evidence {
                quote,
                ..first.clone()
            }
        };
        let judged = |evidence: &Evidence, report_data: Option<&[u8; 64]>, time| {
            warm::judged_alike(&verifier, evidence, report_data, clock(time))
        };
        for n in 0..4 {
            let before = verifier.work();
            assert!(judged(&quoted(n), Some(&[n; 64]), NOW));
            let work = verifier.work();
            let new = work.signatures - before.signatures;
            let known = work.remembered - before.remembered;
            let expected = [(9, 0), (1, 8), (1, 0), (1, 0)];
            assert_eq!((new, known), expected[usize::from(n)]);
        }
        let honest = quoted(5);
        assert!(judged(&honest, Some(&[5; 64]), NOW));
        for (report_data, time) in [
            (Some(&[6; 64]), NOW),
            (Some(&[1; 64]), NOW),
            (Some(&[5; 64]), NOW + 40 * 365 * 86_400),
        ] {
            assert!(!judged(&honest, report_data, time));
            assert!(judged(&honest, Some(&[5; 64]), NOW));
        }
        // Not compared is another judgement than compared.
        for report_data in [None, Some(&[5; 64]), None, Some(&[5; 64])] {
            assert!(judged(&honest, report_data, NOW));
        }
        for bit in 0..honest.quote.len() * 8 {
            // Every seventh bit of report data, signature and key; some of the others.
            let byte = bit / 8;
            let own = (data..data + 64).contains(&byte) || (signature..enclave).contains(&byte);
            if bit % if own { 7 } else { 331 } != 0 {
                continue;
            }
            let mut lie = honest.clone();
            lie.quote[byte] ^= 1 << (bit % 8);
            let mut expected = [5; 64];
            if let Some(own) = byte.checked_sub(data).filter(|own| *own < 64) {
                expected[own] = lie.quote[byte];
            }
            let holds = judged(&lie, Some(&expected), NOW);
            assert!(!holds || unsigned(&honest.quote, byte), "bit {bit}");
        }
        // The signature of another quote of the same platform.
        let mut lie = honest.clone();
        lie.quote[signature..enclave].copy_from_slice(&quoted(6).quote[signature..enclave]);
        assert!(!judged(&lie, Some(&[5; 64]), NOW));
        assert!(judged(&honest, Some(&[5; 64]), NOW));
    }
}

/// Where the quote's own signature and key end and the QE's certification begins, in version 5 over TD 1.5.
fn qe_part(quote: &[u8]) -> usize {
    assert_eq!(quote[..2], [5, 0]);
    48 + 6 + 648 + 4 + 64 + 64
}

#[test]
fn time_is_asked_every_time() {
    const DAY: u64 = 86_400;
    let scene = v5();
    let verifier = verifier(&scene);
    let evidence = scene.evidence();
    let mut exits = Vec::new();
    for days in [0, 1, 20, 31, 100, 4000, 20_000, 31, 0] {
        exits.push(alike(&verifier, &evidence, clock(NOW + days * DAY)));
        exits.push(alike(&verifier, &evidence, clock(NOW - days * DAY)));
    }
    for exit in [5, 6] {
        assert!(exits.contains(&exit), "{exit} in {exits:?}");
    }
}

/// A bit of every kept part after all were kept, and parts of other genuine platforms.
#[test]
fn flipped_bits_and_other_platforms_parts() {
    let scene = v5();
    let verifier = verifier(&scene);
    let honest = scene.evidence();
    assert_eq!(alike(&verifier, &honest, clock(NOW)), 6);
    for other in [v5(), v4(), processor()] {
        let mut theirs = other.evidence();
        alike(&verifier, &theirs, clock(NOW));
        let mut crossed = honest.clone();
        crossed.collateral = theirs.collateral.clone();
        alike(&verifier, &crossed, clock(NOW));
        theirs.collateral = honest.collateral.clone();
        alike(&verifier, &theirs, clock(NOW));
    }
    let mut evidence = honest.clone();
    for bit in (0..evidence.quote.len() * 8).step_by(331) {
        evidence.quote[bit / 8] ^= 1 << (bit % 8);
        let exit = alike(&verifier, &evidence, clock(NOW));
        assert!(exit != 6 || unsigned(&honest.quote, bit / 8), "bit {bit}");
        evidence.quote[bit / 8] ^= 1 << (bit % 8);
    }
    let parts: [fn(&mut TdxCollateral) -> &mut Vec<u8>; 4] = [
        |c| &mut c.tcb_info_signature.as_mut().unwrap().0,
        |c| &mut c.qe_identity_signature.as_mut().unwrap().0,
        |c| &mut c.pck_crl.as_mut().unwrap().0,
        |c| &mut c.root_ca_crl.as_mut().unwrap().0,
    ];
    for part in parts {
        for byte in (0..part(collateral(&mut evidence)).len()).step_by(7) {
            part(collateral(&mut evidence))[byte] ^= 4;
            assert_ne!(alike(&verifier, &evidence, clock(NOW)), 6, "byte {byte}");
            part(collateral(&mut evidence))[byte] ^= 4;
        }
    }
    let texts: [fn(&mut TdxCollateral) -> &mut String; 5] = [
        |c| c.tcb_info.as_mut().unwrap(),
        |c| c.qe_identity.as_mut().unwrap(),
        |c| c.tcb_info_issuer_chain.as_mut().unwrap(),
        |c| c.qe_identity_issuer_chain.as_mut().unwrap(),
        |c| c.pck_crl_issuer_chain.as_mut().unwrap(),
    ];
    for text in texts {
        let whole = text(collateral(&mut evidence)).clone();
        for byte in (0..whole.len()).step_by(53) {
            let changed = if whole.as_bytes()[byte] == b'1' {
                "2"
            } else {
                "1"
            };
            text(collateral(&mut evidence)).replace_range(byte..=byte, changed);
            assert_ne!(alike(&verifier, &evidence, clock(NOW)), 6, "byte {byte}");
            *text(collateral(&mut evidence)) = whole.clone();
        }
    }
    assert_eq!(alike(&verifier, &evidence, clock(NOW)), 6);
}

/// Whether a byte of a quote is signed by nobody: the zero that ends the PEM, which may be missing.
fn unsigned(quote: &[u8], byte: usize) -> bool {
    byte + 1 == quote.len()
}
