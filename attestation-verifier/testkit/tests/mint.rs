//! Minted bundles are complete and true, and each lie is wrong in exactly one thing: a small judge made of the
//! specification's own steps says what.

use ring::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use touchstone_formats::commitment::commit;
use touchstone_formats::merkle::{leaf_hash, verify_inclusion};
use touchstone_formats::report_data::{bind_boot, bind_checkpoint, bind_receipt, report_data};
use touchstone_formats::{
    Bundle, Collateral, Digest, Guarantee, GuaranteeSet, Purpose, Receipt, Role, TlogProof,
};
use touchstone_testkit::mint::{Exchange, Minted, World, sign_cose};
use touchstone_testkit::mutate::{Edit, edit_json, for_each_bit_flip_of, json_mutants};
use x509_parser::prelude::{FromDer, X509Certificate};

#[test]
fn honest_bundles_hold_in_every_shape() {
    let world = World::new(1);
    for exchange in [Exchange::json(1), Exchange::binary(2)] {
        for (words, seal, evidence) in [
            ("signed", false, 1),
            ("logged", true, 2),
            ("quoted", false, 2),
            ("logged quoted", true, 3),
        ] {
            let minted = world.mint(exchange.clone().requiring(words)).finish();
            assert_eq!(judge(&minted), Ok(()), "{words}");
            assert_eq!(minted.bundle.proof.is_some(), seal, "{words}");
            assert_eq!(minted.bundle.evidence.len(), evidence, "{words}");
        }
        for (earlier, later) in [(0, 0), (0, 1), (5, 0), (30, 31)] {
            assert_eq!(
                judge(&world.mint(exchange.clone()).among(earlier, later).finish()),
                Ok(())
            );
        }
        let unsealed = world.mint(exchange.clone()).unsealed().finish();
        assert_eq!(
            (judge(&unsealed), unsealed.bundle.proof.is_none()),
            (Ok(()), true)
        );
    }
    assert_eq!(
        judge(&world.mint(Exchange::refusal(3, 503)).finish()),
        Ok(())
    );
    assert_eq!(judge(&world.exchange()), Ok(()));
}

#[test]
fn the_same_seed_gives_the_same_receipt_and_another_seed_another() {
    let receipt = |seed: u64, number: u64| {
        World::new(seed)
            .mint(Exchange::json(number))
            .finish()
            .bundle
            .receipt
    };
    assert_eq!(receipt(1, 1), receipt(1, 1));
    assert_ne!(receipt(1, 1), receipt(2, 1));
    assert_ne!(receipt(1, 1), receipt(1, 2));
}

#[test]
fn each_lie_is_signed_again_and_wrong_in_one_thing() {
    let world = World::new(1);
    let mint = || world.mint(Exchange::json(1).requiring("logged quoted"));
    assert_eq!(judge(&mint().finish()), Ok(()));
    let cases: Vec<(&str, Minted)> = vec![
        (
            "receipt keyset",
            mint().claims(|c| c.keyset_digest = Digest::ZERO).finish(),
        ),
        (
            "receipt issuer",
            mint().claims(|c| c.iss = "somebody".into()).finish(),
        ),
        (
            "receipt nonce",
            mint().claims(|c| c.nonce = Some(vec![9; 16])).finish(),
        ),
        ("receipt status", mint().claims(|c| c.status = 7).finish()),
        ("receipt signature", mint().receipt_seed([7; 32]).finish()),
        ("receipt malformed", mint().payload(|p| p.push(0)).finish()),
        (
            "receipt malformed",
            mint()
                .payload(|p| *p = p.iter().map(|b| b ^ 0xff).collect())
                .finish(),
        ),
        (
            "opening outputs",
            mint().claims(|c| c.outputs = Some(Digest::ZERO)).finish(),
        ),
        (
            "opening request",
            mint()
                .bundle(|b| b.openings.request = b.openings.response)
                .finish(),
        ),
        (
            "catalog digest",
            mint().claims(|c| c.catalog.0 = 4).finish(),
        ),
        (
            "catalog model",
            mint().catalog(|c| drop(c.models.remove(0))).finish(),
        ),
        ("log signature", mint().log_seed([7; 32]).finish()),
        (
            "log origin",
            mint()
                .checkpoint(|c| c.origin = "elsewhere/log".into())
                .finish(),
        ),
        (
            "log inclusion",
            mint().entries(|e| e[5] = e[4].clone()).finish(),
        ),
        ("log inclusion", mint().index(|i| *i += 1).finish()),
        ("log inclusion", mint().path(|p| p.swap(0, 1)).finish()),
        (
            "log inclusion",
            mint().checkpoint(|c| c.root = Digest::ZERO).finish(),
        ),
        ("log index", mint().claims(|c| c.sequence = 4).finish()),
        (
            "log format",
            mint().note_text(|t| t.push_str("an extension\n")).finish(),
        ),
        (
            "log signature",
            mint()
                .note(|n| *n = n.replace("\u{2014} ", "\u{2014} x"))
                .finish(),
        ),
        (
            "report data",
            mint().report(|_, r| r.report_data[63] ^= 1).finish(),
        ),
        (
            "report data",
            mint()
                .evidence(|e| e[0].purpose = Some(Purpose::Checkpoint))
                .bundle(|b| drop(b.evidence.remove(1)))
                .finish(),
        ),
        (
            "guarantees",
            mint()
                .purposes(&[Purpose::Boot, Purpose::Checkpoint])
                .finish(),
        ),
        (
            "guarantees",
            mint().purposes(&[Purpose::Boot, Purpose::Receipt]).finish(),
        ),
        (
            "collateral",
            mint().collateral(|_, c| c.vek = None).finish(),
        ),
    ];
    for (expected, minted) in cases {
        assert_eq!(judge(&minted), Err(expected), "{:?}", minted.claims);
    }

    // Changes of the world come out consistent: only its policy would object.
    let mut other = world.clone();
    other.keyset.not_after = other.keyset.not_before;
    other.machine.report.measurement = [0; 48];
    assert_eq!(judge(&other.mint(Exchange::json(1)).finish()), Ok(()));
    // Reports that are changed are signed again, reserved bytes included.
    let patched = mint()
        .report(|_, r| r.patches.push((0x4c, vec![1])))
        .finish();
    assert_eq!(judge(&patched), Ok(()));
    assert_eq!(patched.bundle.evidence[0].quote[0x4c], 1);
}

#[test]
fn the_other_way_of_signing_agrees_with_the_formats_crate() {
    let world = World::new(4);
    let minted = world.exchange();
    let cose = touchstone_formats::ReceiptSigner::from_seed(&world.receipt_seed)
        .unwrap()
        .sign(&minted.claims);
    assert_eq!(minted.bundle.receipt, cose);
    let short = sign_cose(&world.receipt_seed, b"not a map of claims");
    assert!(Receipt::parse(&short).is_err());
}

#[test]
fn the_folder_is_the_one_that_ask_writes() {
    let folder = tempfile::tempdir().unwrap();
    let minted = World::new(1).exchange();
    minted.write_to(folder.path()).unwrap();
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert_eq!(read("request.bin"), minted.exchange.request_body);
    assert_eq!(read("response.bin"), minted.exchange.response_body);
    assert_eq!(Bundle::parse(&read("bundle.json")).unwrap(), minted.bundle);
    for (file, v) in [
        ("expect.json", "touchstone/expect/1"),
        ("response.json", "touchstone/response/1"),
    ] {
        let text = read(file);
        let value: serde_json::Value =
            serde_json::from_slice(touchstone_formats::jcs::check_file(&text).unwrap()).unwrap();
        assert_eq!(value["v"], v);
    }
}

#[test]
fn json_mutants_of_a_bundle_are_refused_or_say_something_else() {
    let minted = World::new(1).exchange();
    let file = minted.file();
    assert_eq!(
        edit_json(&file, "/v", &Edit::Replace("touchstone/bundle/1".into())),
        file
    );
    let honest = Bundle::parse(&file).unwrap();
    let mutants = json_mutants(&file, &[]);
    assert!(mutants.len() > 300, "{}", mutants.len());
    for mutant in mutants {
        if let Ok(bundle) = Bundle::parse(&mutant.file) {
            assert_ne!(bundle, honest, "{} {:?}", mutant.pointer, mutant.edit);
        }
    }
    for_each_bit_flip_of(&file, (0..file.len() * 8).step_by(977), |bit, mutant| {
        if let Ok(bundle) = Bundle::parse(mutant) {
            assert_ne!(bundle, honest, "bit {bit}");
        }
    });
}

/// The first thing that is wrong, of what the specification says without any policy (certificates aside).
fn judge(minted: &Minted) -> Result<(), &'static str> {
    fn ensure(holds: bool, what: &'static str) -> Result<(), &'static str> {
        if holds { Ok(()) } else { Err(what) }
    }
    let bundle = Bundle::parse(&minted.file()).map_err(|_| "bundle malformed")?;
    let receipt = match Receipt::parse(&bundle.receipt) {
        Ok(receipt) => receipt,
        // A status that no receipt has: the formats crate says so, after it has read everything.
        Err(_) if minted.claims.status == 7 => return Err("receipt status"),
        Err(_) => return Err("receipt malformed"),
    };
    let claims = &receipt.claims;
    let keyset = &bundle.keyset;
    ensure(receipt.verify(&keyset.receipt_key.0), "receipt signature")?;
    ensure(claims.keyset_digest == keyset.digest(), "receipt keyset")?;
    ensure(claims.iss == keyset.name, "receipt issuer")?;
    ensure(
        (keyset.not_before..=keyset.not_after).contains(&claims.iat)
            || keyset.not_after == keyset.not_before,
        "receipt time",
    )?;
    ensure(claims.nonce == minted.exchange.nonce, "receipt nonce")?;

    for (role, name, claim) in [
        (Role::Request, "opening request", Some(claims.request)),
        (Role::Response, "opening response", Some(claims.response)),
        (Role::Inputs, "opening inputs", claims.inputs),
        (Role::Outputs, "opening outputs", claims.outputs),
    ] {
        let opened = bundle
            .openings
            .of(role)
            .map(|o| commit(role, &o.salt, &o.digest));
        ensure(opened == claim, name)?;
    }
    if let Some(opening) = bundle.openings.outputs {
        ensure(
            opening.digest == minted.exchange.outputs_digest(),
            "opening outputs",
        )?;
    }
    let catalog = bundle.catalog.as_ref().ok_or("catalog missing")?;
    ensure(
        claims.catalog == (catalog.epoch, catalog.digest()),
        "catalog digest",
    )?;
    let listed = |m: &touchstone_formats::CatalogModel| {
        (Some(m.model_digest), Some(m.config_digest)) == (claims.model_digest, claims.config_digest)
    };
    ensure(
        claims.status != 0 || catalog.models.iter().any(listed),
        "catalog model",
    )?;

    let mut note_text = String::new();
    let mut achieved = vec![Guarantee::Signed];
    if let Some(proof) = &bundle.proof {
        let proof = TlogProof::parse(proof).map_err(|_| "log format")?;
        ensure(proof.note.verify(&keyset.log), "log signature")?;
        let checkpoint = proof.note.checkpoint().map_err(|_| "log format")?;
        ensure(
            checkpoint.origin == keyset.log.name && keyset.log.name_is_origin(),
            "log origin",
        )?;
        let entry = touchstone_formats::merkle::entry(
            touchstone_formats::merkle::EntryKind::Receipt,
            Digest::of(&bundle.receipt),
        );
        let included = verify_inclusion(
            proof.index,
            checkpoint.size,
            leaf_hash(&entry),
            &proof.hashes,
            checkpoint.root,
        );
        ensure(included, "log inclusion")?;
        ensure(proof.index >= claims.sequence + 2, "log index")?;
        note_text = proof.note.text.clone();
    }
    for evidence in &bundle.evidence {
        let purpose = evidence.purpose.ok_or("evidence purpose")?;
        let bind = match purpose {
            Purpose::Boot => bind_boot(),
            Purpose::Checkpoint => bind_checkpoint(&note_text),
            Purpose::Receipt => bind_receipt(&bundle.receipt),
            Purpose::Session => return Err("evidence purpose"),
        };
        let expected = report_data(purpose, keyset.digest(), evidence.nonce.as_deref(), bind);
        ensure(evidence.quote[0x50..0x90] == expected, "report data")?;
        let Some(Collateral::SevSnp(collateral)) = &evidence.collateral else {
            return Err("collateral");
        };
        let vek = collateral.vek.as_ref().ok_or("collateral")?;
        ensure(
            collateral.chain.len() == 1 && collateral.crls.len() == 1,
            "collateral",
        )?;
        let (_, vek) = X509Certificate::from_der(vek).map_err(|_| "collateral")?;
        let big_endian = |at: usize| {
            evidence.quote[at..at + 48]
                .iter()
                .rev()
                .copied()
                .collect::<Vec<u8>>()
        };
        let signature = [big_endian(0x2a0), big_endian(0x2a0 + 72)].concat();
        let key = UnparsedPublicKey::new(
            &ECDSA_P384_SHA384_FIXED,
            &vek.public_key().subject_public_key.data,
        );
        ensure(
            key.verify(&evidence.quote[..0x2a0], &signature).is_ok(),
            "quote signature",
        )?;
        match purpose {
            Purpose::Checkpoint => achieved.push(Guarantee::Logged),
            Purpose::Receipt => achieved.push(Guarantee::Quoted),
            _ => {}
        }
    }
    let achieved = GuaranteeSet::close(achieved).map_err(|_| "guarantees")?;
    // Before the seal nothing can hold yet; the tests ask for that by name.
    ensure(
        bundle.proof.is_none() || achieved.is_superset(&claims.guarantees),
        "guarantees",
    )
}
