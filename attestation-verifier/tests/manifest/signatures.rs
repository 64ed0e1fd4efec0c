//! Who signed, and whether he did.

use attestation_verifier::manifest::{
    Authentic, Invalid, MAX_FILE, MAX_LINES, MAX_PAYLOAD, Manifest, ManifestError, NotAuthentic,
    SignatureForm, SignedFile, Statement, pae,
};
use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use touchstone_formats::text::{base64_decode, base64_encode};

use super::support::*;

#[test]
fn who_signed_is_told_in_the_callers_order() {
    let (a, b, c) = (key(), key(), key());
    let file = file(&good(), &[&c, &a]);
    let found = Authentic::read(&file, &signers(&[&a, &b, &c], 2)).unwrap();
    assert_eq!(found.signed_by(), ["a", "c"]);
    assert_eq!(
        (found.threshold(), found.signers(), found.unknown()),
        (2, 3, 0)
    );
    assert_eq!(found.manifest().version, 18);
    // What is signed is what the library would write.
    assert_eq!(Statement::new(found.manifest().clone()).unwrap(), parsed());
    // Three are too many to ask.
    let refused = Authentic::read(&file, &signers(&[&a, &b, &c], 3)).unwrap_err();
    assert_eq!((refused.exit(), refused.id()), (4, "manifest.threshold"));
    let NotAuthentic::BelowThreshold { signed_by, .. } = refused else {
        panic!("{refused}")
    };
    assert_eq!(signed_by, ["a", "c"]);
}

#[test]
fn one_key_counts_once_however_often_it_signs() {
    let (a, b) = (key(), key());
    let payload = good();
    let twice = file(&payload, &[&a, &a]);
    let refused = Authentic::read(&twice, &signers(&[&a, &b], 2)).unwrap_err();
    assert_eq!(refused.id(), "manifest.threshold");
    let both = file(&payload, &[&a, &b]);
    assert!(Authentic::read(&both, &signers(&[&a, &b], 2)).is_ok());
}

#[test]
fn others_signatures_say_nothing() {
    let (a, other) = (key(), key());
    let payload = good();
    let mixed = file(&payload, &[&other, &a]);
    let found = Authentic::read(&mixed, &signers(&[&a], 1)).unwrap();
    assert_eq!(
        (found.signed_by(), found.unknown()),
        (&["a".to_owned()][..], 1)
    );
    let alone = file(&payload, &[&other]);
    let refused = Authentic::read(&alone, &signers(&[&a], 1)).unwrap_err();
    assert_eq!(refused, NotAuthentic::Nobody { lines: 1 });
    assert_eq!((refused.exit(), refused.id()), (3, "manifest.signature"));
}

#[test]
fn a_named_key_that_did_not_sign_is_loud_although_the_threshold_is_met() {
    let (a, b) = (key(), key());
    let payload = good();
    let mut forged = b.bundle(&payload);
    forged["dsseEnvelope"]["signatures"][0]["sig"] = json!(base64_encode(&a.sign(&pae(&payload))));
    let with = |second: String| {
        let file = a.line(&payload) + &second;
        Authentic::read(file.as_bytes(), &signers(&[&a, &b], 1))
    };
    let signer = "b".to_owned();
    let refused = with(forged.to_string()).unwrap_err();
    assert_eq!(refused, NotAuthentic::Signature { line: 2, signer });
    assert_eq!((refused.exit(), refused.id()), (3, "manifest.signature"));
    assert!(with(b.line(&payload)).is_ok());
    // A second line of one key has to verify as well.
    let again = a.line(&payload) + &forged.to_string().replace(&b.public.id(), &a.public.id());
    assert!(
        Authentic::read(again.as_bytes(), &signers(&[&a, &b], 1)).is_ok(),
        "it is a's"
    );
    let spoiled = forged.to_string().replace(&b.public.id(), &a.public.id());
    let signature = base64_encode(&b.sign(&pae(&payload)));
    let mut spoiled: Value = serde_json::from_str(&spoiled).unwrap();
    spoiled["dsseEnvelope"]["signatures"][0]["sig"] = json!(signature);
    assert_eq!(with(spoiled.to_string()).unwrap_err().exit(), 3);
}

#[test]
fn a_signature_is_over_the_type_and_not_the_payload_alone() {
    let a = key();
    let payload = good();
    for message in [
        payload.clone(),
        [&b"DSSEv1 10 text/plain "[..], &payload].concat(),
    ] {
        let mut bundle = a.bundle(&payload);
        bundle["dsseEnvelope"]["signatures"][0]["sig"] = json!(base64_encode(&a.sign(&message)));
        let refused = Authentic::read(bundle.to_string().as_bytes(), &signers(&[&a], 1));
        assert_eq!(refused.unwrap_err().id(), "manifest.signature");
    }
    assert!(read(&payload, &a).is_ok());
}

#[test]
fn no_changed_byte_of_payload_or_signature_passes() {
    let a = key();
    let payload = good();
    let whole = a.bundle(&payload);
    let signers = signers(&[&a], 1);
    let judged = |bundle: &Value| Authentic::read(bundle.to_string().as_bytes(), &signers);
    assert!(judged(&whole).is_ok());
    let mut malformed = 0;
    let mut forged = 0;
    for member in ["/dsseEnvelope/payload", "/dsseEnvelope/signatures/0/sig"] {
        let bytes = base64_decode(whole.pointer(member).unwrap().as_str().unwrap()).unwrap();
        for index in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[index] ^= 1;
            let mut bundle = whole.clone();
            *bundle.pointer_mut(member).unwrap() = json!(base64_encode(&changed));
            match judged(&bundle).expect_err("a changed byte").exit() {
                2 => malformed += 1,
                3 => forged += 1,
                other => panic!("exit {other}"),
            }
        }
    }
    assert!(malformed > 100 && forged > 100, "{malformed} {forged}");
}

#[test]
fn lines_of_one_file_are_about_the_same_bytes() {
    let (a, b) = (key(), key());
    let mut other = predicate();
    other["version"] = json!(19);
    let other = payload(&statement(&other));
    let text = a.line(&good()) + &b.line(&other);
    let refused = SignedFile::parse(text.as_bytes()).unwrap_err();
    assert_eq!(refused, ManifestError::PayloadsDiffer { line: 2 });
    assert!(SignedFile::parse((a.line(&other) + &b.line(&other)).as_bytes()).is_ok());
}

/// What bundle.proto leaves open is read as it says; what it forbids, and what this format does not have, is refused.
/// Whoever gives the draft by mistake is told so, and not where its first line ends.
#[test]
fn a_draft_is_called_one() {
    let manifest = Manifest::parse_draft(predicate().to_string().as_bytes()).unwrap();
    let draft = manifest.to_draft().unwrap();
    assert_eq!(
        SignedFile::parse(draft.as_bytes()),
        Err(ManifestError::Draft)
    );
    let signed = authentic(&predicate());
    assert_eq!(signed.manifest(), &manifest);
    // What is neither is not called so.
    let half = &draft.as_bytes()[..draft.len() / 2];
    let error = SignedFile::parse(half).unwrap_err();
    assert!(matches!(error, ManifestError::Json { .. }), "{error}");
}

#[test]
fn bundles_are_read_as_sigstore_writes_them_and_no_otherwise() {
    let a = key();
    let whole = a.bundle(&good());
    let reads = |bundle: &Value| Authentic::read(bundle.to_string().as_bytes(), &signers(&[&a], 1));
    let text = whole.to_string();
    let sig = whole["dsseEnvelope"]["signatures"][0]["sig"]
        .as_str()
        .unwrap();
    let payload_text = whole["dsseEnvelope"]["payload"].as_str().unwrap();
    let url_safe = |text: &str| text.replace('+', "-").replace('/', "_");
    let accepted: [(&str, &str, Value); 5] = [
        ("/verificationMaterial/tlogEntries", "", json!([])),
        ("/dsseEnvelope/signatures/0/keyid", "", json!("")),
        ("/dsseEnvelope/signatures/0/sig", "", json!(url_safe(sig))),
        ("/dsseEnvelope/payload", "", json!(url_safe(payload_text))),
        ("/mediaType", "", whole["mediaType"].clone()),
    ];
    let refused: [(&str, &str, Value); 18] = [
        (
            "/mediaType",
            "mediaType",
            json!("application/vnd.dev.sigstore.bundle+json;version=0.3"),
        ),
        (
            "/mediaType",
            "mediaType",
            json!("application/vnd.dev.sigstore.bundle.v0.2+json"),
        ),
        (
            "/verificationMaterial/tlogEntries",
            "trailing characters",
            json!([{}]),
        ),
        (
            "/verificationMaterial/tlogEntries",
            "null for absent",
            json!(null),
        ),
        (
            "/verificationMaterial/certificate",
            "unknown field",
            json!({ "rawBytes": "" }),
        ),
        (
            "/verificationMaterial/publicKey",
            "missing field `hint`",
            json!({}),
        ),
        ("/verificationMaterial/publicKey/hint", "hint", json!("")),
        (
            "/verificationMaterial/publicKey",
            "an array for an object",
            json!([a.public.id()]),
        ),
        ("/messageSignature", "unknown field", json!({})),
        (
            "/dsseEnvelope/payloadType",
            "payloadType",
            json!("application/json"),
        ),
        ("/dsseEnvelope/signatures", "invalid length 0", json!([])),
        (
            "/dsseEnvelope/signatures/1",
            "trailing",
            json!({ "sig": sig }),
        ),
        (
            "/dsseEnvelope/signatures/0/keyid",
            "keyid",
            json!("another"),
        ),
        (
            "/dsseEnvelope/signatures/0/keyid",
            "null for absent",
            json!(null),
        ),
        (
            "/dsseEnvelope/signatures/0/sig",
            "sig",
            json!(format!(" {sig}")),
        ),
        (
            "/dsseEnvelope/signatures/0/sig",
            "sig",
            json!(sig.trim_end_matches('=').to_owned() + "*"),
        ),
        (
            "/dsseEnvelope/signatures/0/sig",
            "at most 72",
            json!(base64_encode(&[0; 73])),
        ),
        ("/dsseEnvelope/extra", "unknown field", json!(1)),
    ];
    let put = |pointer: &str, value: &Value| {
        let mut bundle = whole.clone();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        match bundle.pointer_mut(parent).unwrap() {
            Value::Object(object) => {
                object.insert(name.into(), value.clone());
            }
            Value::Array(array) => array.push(value.clone()),
            other => panic!("{other}"),
        }
        bundle
    };
    for (pointer, _, value) in &accepted {
        reads(&put(pointer, value)).unwrap_or_else(|e| panic!("{pointer} {value}: {e}"));
    }
    for (pointer, says, value) in &refused {
        let error = reads(&put(pointer, value)).expect_err(pointer);
        assert_eq!(error.exit(), 2, "{pointer} {value}: {error}");
        assert!(
            error.to_string().contains(says),
            "{pointer} {value}: {error}"
        );
    }
    // keyid may be left out.
    let without = text.replace(&format!(",\"keyid\":\"{}\"", a.public.id()), "");
    let without = without.replace(&format!("\"keyid\":\"{}\",", a.public.id()), "");
    assert_ne!(without, text);
    assert!(Authentic::read(without.as_bytes(), &signers(&[&a], 1)).is_ok());
    let twice = text.replacen("{\"", "{\"mediaType\":\"x\",\"", 1);
    assert!(
        SignedFile::parse(twice.as_bytes())
            .unwrap_err()
            .to_string()
            .contains("duplicate")
    );
}

#[test]
fn files_are_bounded() {
    let a = key();
    let line = a.line(&good());
    assert!(SignedFile::parse(line.repeat(MAX_LINES).as_bytes()).is_ok());
    let error = SignedFile::parse(line.repeat(MAX_LINES + 1).as_bytes()).unwrap_err();
    assert!(error.to_string().contains("at most 64"), "{error}");
    for (text, says) in [
        (String::new(), "line 1"),
        ("\n".into(), "line 1"),
        (format!("\n{line}"), "line 1"),
        (format!("{line}\n{line}"), "line 2"),
        (format!("{line}\n"), "line 2"),
        ("[]".into(), "line 1"),
        ("[".repeat(100_000), "line 1"),
        (" ".repeat(MAX_FILE + 1), "at most 4194304"),
    ] {
        let error = SignedFile::parse(text.as_bytes()).expect_err(says);
        assert!(error.to_string().contains(says), "{error}");
    }
    // The last newline may be missing.
    assert!(SignedFile::parse(line.trim_end().as_bytes()).is_ok());
    let large = a.line(&vec![b' '; MAX_PAYLOAD + 1]);
    let error = SignedFile::parse(large.as_bytes()).unwrap_err();
    assert!(error.to_string().contains("at most 1048576"), "{error}");
}

#[test]
fn time_decides_between_issued_and_not_after() {
    let found = authentic(&predicate());
    for at in [ISSUED - 300, ISSUED, END] {
        assert_eq!(found.validity(at), Ok(()), "{at}");
    }
    let (issued, not_after) = (ISSUED, END);
    let at = ISSUED - 301;
    assert_eq!(found.validity(at), Err(Invalid::NotYet { issued, at }));
    let at = END + 1;
    assert_eq!(found.validity(at), Err(Invalid::Ended { not_after, at }));
    let release = &found.manifest().releases[0];
    assert!(!release.ended(release.not_after) && release.ended(release.not_after + 1));
}

#[test]
fn signatures_from_elsewhere_are_taken_in_both_forms_and_verified() {
    let random = SystemRandom::new();
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    let hsm = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
    let public = hsm.public_key().as_ref();
    let public = attestation_verifier::manifest::PublicKey::from_point(public).unwrap();
    let statement = parsed();
    // Now and then r or s is short, and now and then its first bit is set: DER shows all of that.
    for _ in 0..64 {
        let raw = hsm.sign(&random, &statement.to_sign()).unwrap();
        let (line, form) = statement.signed_line(&public, raw.as_ref()).unwrap();
        assert_eq!(form, SignatureForm::Raw);
        let file = SignedFile::parse(line.as_bytes()).unwrap();
        let der = file.lines()[0].signature.clone();
        let (again, form) = statement.signed_line(&public, &der).unwrap();
        assert_eq!((again, form), (line.clone(), SignatureForm::Der));
        let mut spoiled = raw.as_ref().to_vec();
        spoiled[40] ^= 4;
        let error = statement.signed_line(&public, &spoiled).unwrap_err();
        assert_eq!(error.found, 64);
    }
    let raw = hsm.sign(&random, statement.payload()).unwrap();
    assert!(
        statement.signed_line(&public, raw.as_ref()).is_err(),
        "not over the encoding"
    );
    for other in [&[][..], &[0; 64], &[0x30; 72], &[0; 1000]] {
        assert!(statement.signed_line(&public, other).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Files that were cut, changed and stretched at random: read or refused, and authentic only where nothing that is
    /// signed changed.
    #[test]
    fn nothing_that_is_changed_panics(edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4), 1..6)) {
        thread_local! { static KEY: Key = key(); }
        KEY.with(|key| {
            let payload = good();
            let mut inner = payload.clone();
            let mut outer = file(&payload, &[key]);
            for (at, byte, kind) in &edits {
                for bytes in [&mut inner, &mut outer] {
                    if bytes.is_empty() { continue; }
                    let at = at.index(bytes.len());
                    match kind {
                        0 => bytes[at] = *byte,
                        1 => bytes.truncate(at),
                        2 => bytes.insert(at, *byte),
                        _ => { bytes.remove(at); }
                    }
                }
            }
            let signers = signers(&[key], 1);
            if let Ok(found) = Authentic::read(&outer, &signers) {
                assert_eq!(found.digest(), parsed().digest());
            }
            // Signed all the same: what is believed then is what is written.
            if let Ok(found) = read(&inner, key) {
                assert_eq!(Statement::new(found.manifest().clone()).unwrap().payload(), inner);
            }
        });
    }
}
