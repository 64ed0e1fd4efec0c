//! How long judgements take, one thread and all, beside `sev` (with `crypto_nossl`), `dcap-qvl` and the signature checks that
//! nobody can do without. All of it on one simulated platform of each kind, whose keys are of the vendors' sizes; figures as JSON.
//!
//! Cold: nothing is known. Warm: a [`Verifier`] knows the platform from other evidence, and what it judges is new to it.
#![forbid(unsafe_code)]

mod scenes;
mod timing;

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use attestation_verifier::{At, Policy, Roots, Verifier, appraise, check, judge};
use clap::Parser;
use dcap_qvl::verify::QuoteVerifier;
use serde_json::json;
use sev::certs::snp::{Certificate, Chain, Verifiable, ca};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser;
use touchstone_testkit::machine::{Machine, TdxMachine, TeeMachine};
use touchstone_testkit::worst;

use scenes::{Bundles, Scene};
use timing::{Row, compare};

#[cfg(feature = "aws-lc-rs")]
use aws_lc_rs::signature;
#[cfg(not(feature = "aws-lc-rs"))]
use ring::signature;

/// Times judgements and prints figures as JSON
#[derive(Parser)]
struct Arguments {
    /// Seconds for each row and each number of threads, about
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Threads of the figures for all threads; all that the machine has without this
    #[arg(long)]
    threads: Option<usize>,
    /// These rows alone
    #[arg(long)]
    only: Vec<String>,
    /// Bundles that share one checkpoint
    #[arg(long, default_value_t = 512)]
    bundles: usize,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let threads = match arguments.threads {
        Some(threads) => threads,
        None => std::thread::available_parallelism()?.get(),
    };
    let snp = Scene::<Machine>::new()?;
    let tdx = Scene::<TdxMachine>::new()?;
    let bundles = Bundles::new(arguments.bundles)?;
    let mut rows = primitives(&snp, &tdx)?;
    rows.extend(snp_rows(&snp)?);
    rows.extend(tdx_rows(&tdx)?);
    rows.extend(bundle_rows(&bundles)?);
    rows.retain(|row| arguments.only.is_empty() || arguments.only.iter().any(|o| o == row.name()));
    let worst = match arguments.only.is_empty() {
        true => worst()?,
        false => Vec::new(),
    };
    let figures = compare(rows, threads, arguments.seconds);
    let backend = match cfg!(feature = "aws-lc-rs") {
        true => "aws-lc-rs",
        false => "ring",
    };
    let bytes = bundles.files.first().map_or(0, Vec::len);
    println!(
        "{}",
        json!({ "backend": backend, "threads": threads, "bundle_bytes": bytes, "rows": figures, "worst": worst })
    );
    Ok(())
}

/// The evidence that costs most within the format's limits, and ordinary evidence beside it: milliseconds from its file to the
/// verdict by who knows nothing, the best of some.
fn worst() -> Result<Vec<serde_json::Value>> {
    const TIMES: usize = 8;
    let all = [worst::snp(), worst::tdx(), worst::roots_of_one_name()];
    let timed = all.iter().flatten().map(|worst| {
        let file = worst.evidence.to_file();
        let template = attestation_verifier::policy::template(worst.evidence.tee);
        let policy = Policy::parse(&template)?;
        let roots = Roots::pinned().with_simulated_pem(worst.root_pem.as_bytes())?;
        let at = At {
            time: worst::AT,
            asserted: false,
        };
        let mut best = f64::INFINITY;
        for _ in 0..TIMES {
            let start = Instant::now();
            let verdict = appraise(&file, &policy, &roots, None, at);
            best = best.min(start.elapsed().as_secs_f64() * 1e3);
            ensure!(
                verdict.exit() == worst.exit,
                "{}: {}",
                worst.name,
                verdict.words()
            );
        }
        Ok(json!({ "name": worst.name, "bytes": file.len(), "ms": best }))
    });
    timed.collect()
}

/// One signature check of each kind, by the library behind the verifier.
fn primitives<'a>(snp: &'a Scene<Machine>, tdx: &'a Scene<TdxMachine>) -> Result<Vec<Row<'a>>> {
    let parsed = attestation_verifier::parse::snp::Report::parse(&snp.evidence[0].quote)?;
    let vek =
        attestation_verifier::parse::cert::Certificate::parse(&snp.world.machine.collateral().vek)?;
    let attestation_verifier::parse::cert::PublicKey::P384(point) = vek.key else {
        anyhow::bail!("a VCEK that is not on P-384");
    };
    let verify_p384 = move || {
        signature::UnparsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, &point)
            .verify(parsed.signed_part(), &parsed.signature())
            .is_ok()
    };
    ensure!(verify_p384(), "P-384");
    let quote = attestation_verifier::parse::tdx::Quote::parse(&tdx.evidence[0].quote)?;
    let point = [&[4], quote.attestation_key.as_slice()].concat();
    let verify_p256 = move || {
        signature::UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, &point)
            .verify(&quote.signed, &quote.signature)
            .is_ok()
    };
    ensure!(verify_p256(), "P-256");
    let minted = snp.world.exchange();
    let receipt = touchstone_formats::Receipt::parse(&minted.bundle.receipt)?;
    let key = minted.bundle.keyset.receipt_key.0;
    ensure!(receipt.verify(&key), "Ed25519");
    Ok(vec![
        Row::new("p384", move || assert!(verify_p384())),
        Row::new("p256", move || assert!(verify_p256())),
        Row::new("ed25519", move || assert!(receipt.verify(&key))),
    ])
}

fn snp_rows(scene: &Scene<Machine>) -> Result<Vec<Row<'_>>> {
    let files = scene.world.machine.collateral();
    let ark = scene.world.machine.pki.ark_der();
    let ask = files.chain.first().context("an ASK")?.clone();
    let report = scene.evidence[0].quote.clone();
    let peer = move || -> Result<()> {
        let chain = Chain {
            ca: ca::Chain {
                ark: Certificate::from_der(&ark)?,
                ask: Certificate::from_der(&ask)?,
            },
            vek: Certificate::from_der(&files.vek)?,
        };
        let report = AttestationReport::from_bytes(&report)?;
        Ok((&chain, &report).verify()?)
    };
    peer().context("sev refuses the evidence")?;
    Ok(vec![
        Row::new("sev", move || peer().unwrap_or_else(|e| panic!("{e}"))),
        cold("snp cold", scene)?,
        warm("snp warm", scene, false),
        warm("snp warm apart", scene, true),
    ])
}

fn tdx_rows(scene: &Scene<TdxMachine>) -> Result<Vec<Row<'_>>> {
    let ours = scene.world.machine.collateral();
    let text = |text: Option<String>| text.unwrap_or_default();
    let bytes =
        |bytes: Option<touchstone_formats::text::HexBytes>| bytes.map_or(Vec::new(), |b| b.0);
    let collateral = dcap_qvl::QuoteCollateralV3 {
        pck_crl_issuer_chain: text(ours.pck_crl_issuer_chain),
        root_ca_crl: bytes(ours.root_ca_crl),
        pck_crl: bytes(ours.pck_crl),
        tcb_info_issuer_chain: text(ours.tcb_info_issuer_chain),
        tcb_info: text(ours.tcb_info),
        tcb_info_signature: bytes(ours.tcb_info_signature),
        qe_identity_issuer_chain: text(ours.qe_identity_issuer_chain),
        qe_identity: text(ours.qe_identity),
        qe_identity_signature: bytes(ours.qe_identity_signature),
        pck_certificate_chain: None,
    };
    let quote = scene.evidence[0].quote.clone();
    let verifier = QuoteVerifier::new(scene.world.machine.pki.root_der());
    let time = scene.at.time;
    let peer = move || {
        let report = verifier.verify(&quote, &collateral, time);
        black_box(report).is_ok()
    };
    ensure!(peer(), "dcap-qvl refuses the evidence");
    Ok(vec![
        Row::new("dcap-qvl", move || assert!(peer())),
        cold("tdx cold", scene)?,
        warm("tdx warm", scene, false),
        warm("tdx warm apart", scene, true),
    ])
}

/// One evidence object by a verifier that has seen nothing.
fn cold<'a, M: TeeMachine + Sync>(name: &'static str, scene: &'a Scene<M>) -> Result<Row<'a>> {
    let run = move || {
        let judged = judge(
            &scene.evidence[0],
            &scene.policy,
            &scene.roots,
            Some(&[0; 64]),
            scene.at,
            None,
        );
        judged.checks.hold()
    };
    let judged = judge(
        &scene.evidence[0],
        &scene.policy,
        &scene.roots,
        Some(&[0; 64]),
        scene.at,
        None,
    );
    let deciding = judged.checks.deciding();
    ensure!(run(), "{name}: {deciding:?}");
    Ok(Row::new(name, move || assert!(run())))
}

/// New quotes of a platform that a verifier knows. It is a new verifier each time around: what is judged twice would be known too.
/// `apart`: each at a second of its own, as where there is little to judge; else all at one, as where there is much.
fn warm<'a, M: TeeMachine + Sync>(name: &'static str, scene: &'a Scene<M>, apart: bool) -> Row<'a> {
    let judge = move |verifier: &Verifier, n: usize| {
        let expected = scenes::report_data(n);
        let mut at = scene.at;
        if apart {
            at.time += n as u64;
        }
        let judged = verifier.judge(&scene.evidence[n], Some(&expected), at, None);
        assert!(judged.checks.hold());
    };
    Row::batch(
        name,
        scene.evidence.len() - 1,
        move || {
            let verifier = Verifier::new(scene.policy.clone(), scene.roots.clone());
            judge(&verifier, 0);
            verifier
        },
        move |verifier, n| judge(verifier, n + 1),
    )
}

fn bundle_rows(bundles: &Bundles) -> Result<Vec<Row<'_>>> {
    let (policy, roots, at) = (&bundles.policy, &bundles.roots, bundles.at);
    let verdict = check(&bundles.files[0], policy, roots, &bundles.held[0], at);
    ensure!(verdict.exit() == 0, "{}", verdict.words());
    let evidence = bundles.evidence.clone();
    let shared = Verifier::new(policy.clone(), roots.clone());
    Ok(vec![
        Row::new("bundle cold", move || {
            let verdict = check(&bundles.files[0], policy, roots, &bundles.held[0], at);
            assert_eq!(verdict.exit(), 0);
        }),
        // What a bundle's evidence costs whoever reads collateral that two objects share once.
        Row::new("bundle evidence", move || {
            let verifier = Verifier::new(policy.clone(), roots.clone());
            for (evidence, expected, about) in &evidence {
                assert!(
                    verifier
                        .judge(evidence, Some(expected), at, Some(about))
                        .checks
                        .hold()
                );
            }
        }),
        Row::batch(
            "bundles of one checkpoint",
            bundles.files.len(),
            || (),
            move |(), n| {
                let verdict = shared.check(&bundles.files[n], &bundles.held[n], at);
                assert_eq!(verdict.exit(), 0);
            },
        ),
    ])
}
