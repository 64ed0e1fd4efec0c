//! A verifier that is kept judges as one that has seen nothing. All lies of this program are judged by both (`warm`); here is
//! what those cannot show: that it saves work, that time is asked every time, that halves of two truths are no truth.

use std::sync::atomic::{AtomicUsize, Ordering};

use attestation_verifier::{At, Verifier};
use touchstone_formats::evidence::{Collateral, Evidence, SnpCollateral};

use crate::common::{evidence, policy};
use crate::simulated::{NOW, Scene, genoa, turin, vlek};
use crate::warm::{self, appraised_alike as alike};

fn clock(time: u64) -> At {
    At {
        time,
        asserted: false,
    }
}

fn verifier(scene: &Scene) -> Verifier {
    Verifier::new(policy(&scene.policy), scene.roots.clone())
}

/// Evidence by the scene's machine over these report data.
fn quoted(scene: &Scene, report_data: [u8; 64]) -> Evidence {
    let files = scene.machine.collateral();
    let report = scene.machine.quote(report_data);
    evidence(&report, &files.vek, &files.chain, &files.crls)
}

fn collateral(evidence: &mut Evidence) -> &mut SnpCollateral {
    match &mut evidence.collateral {
        Some(Collateral::SevSnp(collateral)) => collateral,
        other => panic!("{other:?}"),
    }
}

#[test]
fn of_a_known_platform_the_reports_own_signature_alone_is_verified() {
    let scene = genoa();
    let verifier = verifier(&scene);
    let signatures = |evidence: &Evidence, time| {
        let before = verifier.work();
        assert_eq!(alike(&verifier, evidence, clock(time)), 6);
        let work = verifier.work();
        (
            work.signatures - before.signatures,
            work.remembered - before.remembered,
            work.judgements_remembered - before.judgements_remembered,
        )
    };
    let files = scene.machine.collateral();
    let with = |n| {
        evidence(
            &scene.machine.quote([n; 64]),
            &files.vek,
            &files.chain,
            &files.crls,
        )
    };
    // Intermediate, endorsement key's certificate, revocation list, report.
    assert_eq!(signatures(&with(1), NOW), (4, 0, 0));
    let second = with(2);
    assert_eq!(signatures(&second, NOW), (1, 3, 0));
    // The very same, at the same second and at the next; and in that second another report.
    assert_eq!(signatures(&second, NOW), (0, 0, 1));
    assert_eq!(signatures(&second, NOW + 1), (0, 4, 0));
    let other = with(4);
    assert_eq!(signatures(&other, NOW + 1), (1, 0, 0));
    assert_eq!(signatures(&other, NOW + 1), (0, 1, 0));
    // The next list is a new list.
    let mut machine = scene.machine.clone();
    machine.crl.this_update += 1;
    let next = machine.collateral().crls;
    let third = evidence(
        &scene.machine.quote([3; 64]),
        &files.vek,
        &files.chain,
        &next,
    );
    assert_eq!(signatures(&third, NOW), (2, 2, 0));
}

/// What a platform quotes for others in one second: its report data and its signature are asked each time, and lies about either,
/// or about anything else, are the lies they are to who has seen nothing.
#[test]
fn reports_of_one_second() {
    let scene = genoa();
    let verifier = verifier(&scene);
    let judged = |evidence: &Evidence, report_data: Option<&[u8; 64]>, time| {
        warm::judged_alike(&verifier, evidence, report_data, clock(time))
    };
    for n in 0..4 {
        let before = verifier.work();
        assert!(judged(&quoted(&scene, [n; 64]), Some(&[n; 64]), NOW));
        let work = verifier.work();
        let new = work.signatures - before.signatures;
        let known = work.remembered - before.remembered;
        assert_eq!(
            (new, known),
            [(4, 0), (1, 3), (1, 0), (1, 0)][usize::from(n)]
        );
    }
    let honest = quoted(&scene, [5; 64]);
    assert!(judged(&honest, Some(&[5; 64]), NOW));
    for (report_data, time) in [
        (Some(&[6; 64]), NOW),
        (Some(&[1; 64]), NOW),
        (Some(&[5; 64]), NOW + 40 * 365 * 86_400),
    ] {
        assert!(
            !judged(&honest, report_data, time),
            "{report_data:?} {time}"
        );
        assert!(judged(&honest, Some(&[5; 64]), NOW));
    }
    // Not compared is another judgement than compared.
    for report_data in [None, Some(&[5; 64]), None] {
        assert!(judged(&honest, report_data, NOW));
    }
    assert!(judged(&honest, Some(&[5; 64]), NOW));
    for bit in 0..honest.quote.len() * 8 {
        // Every bit of report data and signature; some of the others.
        if bit % 23 != 0 && !(0x50..0x90).contains(&(bit / 8)) && bit < 0x2a0 * 8 {
            continue;
        }
        let mut lie = honest.clone();
        lie.quote[bit / 8] ^= 1 << (bit % 8);
        let mut expected = [5; 64];
        if let Some(byte) = (bit / 8).checked_sub(0x50).filter(|byte| *byte < 64) {
            expected[byte] = lie.quote[bit / 8];
        }
        assert!(!judged(&lie, Some(&expected), NOW), "bit {bit}");
    }
    // The signature of another report of the same platform.
    let mut lie = honest.clone();
    lie.quote[0x2a0..].copy_from_slice(&quoted(&scene, [6; 64]).quote[0x2a0..]);
    assert!(!judged(&lie, Some(&[5; 64]), NOW));
    assert!(judged(&honest, Some(&[5; 64]), NOW));
}

#[test]
fn a_lie_is_looked_at_every_time() {
    let scene = genoa();
    let verifier = verifier(&scene);
    assert_eq!(alike(&verifier, &quoted(&scene, [1; 64]), clock(NOW)), 6);
    let mut lie = quoted(&scene, [1; 64]);
    lie.quote[0x50] ^= 1;
    for _ in 0..3 {
        let before = verifier.work();
        assert_eq!(alike(&verifier, &lie, clock(NOW)), 3);
        let work = verifier.work();
        assert!(work.signatures > before.signatures);
        assert_eq!(work.judgements_remembered, before.judgements_remembered);
    }
}

/// Validity, age and waivers, back and forth in time: nothing that held at one time helps at another.
#[test]
fn time_is_asked_every_time() {
    const DAY: u64 = 86_400;
    let mut scene = genoa();
    let waiver = "{ waive = \"until the day after\", until = \"2026-09-22\" }";
    scene.set("snp.measurement", waiver);
    let verifier = verifier(&scene);
    let evidence = quoted(&scene, [1; 64]);
    let mut exits = Vec::new();
    for year in [0, 1, 5, 40, 5, 1, 0] {
        for day in [0, 1, 2, 40, 200, 1, 0] {
            for time in [
                NOW + year * 365 * DAY + day * DAY,
                NOW - year * 365 * DAY - day * DAY,
            ] {
                exits.push(alike(&verifier, &evidence, clock(time)));
            }
        }
    }
    for exit in [4, 5, 6] {
        assert!(exits.contains(&exit), "{exit} in {exits:?}");
    }
}

/// Parts of genuine evidence of three platforms of one vendor, in all combinations, each after all of its parts were found genuine.
#[test]
fn parts_of_several_genuine_platforms_are_none() {
    let scenes = [genoa(), genoa(), turin(), vlek()];
    let mut roots = scenes[0].roots.clone();
    roots = roots
        .with_simulated_pem(scenes[2].machine.root_pem().as_bytes())
        .unwrap_or_else(|_| scenes[0].roots.clone());
    let policy = policy(&vlek().policy);
    let verifier = Verifier::new(policy, roots);
    let all: Vec<Evidence> = scenes.iter().map(|s| quoted(s, [1; 64])).collect();
    for evidence in &all {
        alike(&verifier, evidence, clock(NOW));
    }
    let parts: Vec<SnpCollateral> = all
        .iter()
        .cloned()
        .map(|mut e| collateral(&mut e).clone())
        .collect();
    let mut held = 0;
    for (a, evidence) in all.iter().enumerate() {
        for (b, vek) in parts.iter().enumerate() {
            for (c, chain) in parts.iter().enumerate() {
                let mut mixed = evidence.clone();
                collateral(&mut mixed).vek = vek.vek.clone();
                collateral(&mut mixed).chain = chain.chain.clone();
                collateral(&mut mixed).crls = chain.crls.clone();
                let holds = alike(&verifier, &mixed, clock(NOW)) == 6;
                assert!(!holds || a == b, "{a} {b} {c}");
                held += usize::from(holds);
            }
        }
    }
    assert!(held > 0);
}

/// Bits of everything that a verifier keeps something about, after it kept it.
#[test]
fn flipped_bits_of_what_is_known() {
    let scene = genoa();
    let verifier = verifier(&scene);
    let honest = quoted(&scene, [1; 64]);
    assert_eq!(alike(&verifier, &honest, clock(NOW)), 6);
    let parts: [fn(&mut Evidence) -> &mut Vec<u8>; 4] = [
        |e| &mut e.quote,
        |e| collateral(e).vek.as_mut().unwrap(),
        |e| &mut collateral(e).chain[0],
        |e| &mut collateral(e).crls[0],
    ];
    let mut flips = 0;
    for part in parts {
        let mut evidence = honest.clone();
        for bit in (0..part(&mut evidence).len() * 8).step_by(61) {
            part(&mut evidence)[bit / 8] ^= 1 << (bit % 8);
            let exit = alike(&verifier, &evidence, clock(NOW));
            assert!(exit != 0 && exit != 6, "bit {bit}");
            part(&mut evidence)[bit / 8] ^= 1 << (bit % 8);
            flips += 1;
        }
        assert_eq!(alike(&verifier, &evidence, clock(NOW)), 6);
    }
    assert!(flips > 300);
}

/// Many platforms, more than anything is kept of; and several threads at once.
#[test]
fn threads_share_it() {
    let scene = genoa();
    let verifier = verifier(&scene);
    let cases: Vec<Evidence> = (0..24_u8)
        .map(|n| {
            let mut evidence = quoted(&scene, [n; 64]);
            match n % 3 {
                0 => {}
                1 => evidence.quote[0x50] ^= 1,
                _ => collateral(&mut evidence).crls[0][200] ^= 1,
            }
            evidence
        })
        .collect();
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (cases, verifier, done) = (&cases, &verifier, &done);
            scope.spawn(move || {
                for n in 0..cases.len() * 3 {
                    let which = (n * 7 + thread * 5) % cases.len();
                    let held = alike(verifier, &cases[which], clock(NOW)) == 6;
                    assert_eq!(held, which % 3 == 0);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(done.into_inner(), 4 * 72);
}
