use super::*;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use touchstone_formats::text::base64_encode;

struct Signer {
    pair: EcdsaKeyPair,
    random: SystemRandom,
}

impl Signer {
    fn new() -> Signer {
        let random = SystemRandom::new();
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der.as_ref(), &random);
        let pair = pair.unwrap();
        Signer { pair, random }
    }

    fn key(&self) -> PublicKey {
        PublicKey::from_point(self.pair.public_key().as_ref()).unwrap()
    }

    fn bundle(&self, statement: &Value) -> Value {
        let payload = statement.to_string();
        let message = crate::manifest::pae(payload.as_bytes());
        let sig = self.pair.sign(&self.random, &message).unwrap();
        json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": { "publicKey": { "hint": "of no weight" }, "tlogEntries": [] },
            "dsseEnvelope": {
                "payload": base64_encode(payload.as_bytes()),
                "payloadType": "application/vnd.in-toto+json",
                "signatures": [{ "sig": base64_encode(sig.as_ref()), "keyid": "" }],
            },
        })
    }
}

fn file(name: &str, bytes: &[u8]) -> ModelFile {
    ModelFile {
        name: name.to_owned(),
        sha256: Digest::of(bytes),
        size: bytes.len() as u64,
    }
}

fn model(files: &[(&str, &[u8])]) -> ModelManifest {
    ModelManifest::new(
        files
            .iter()
            .map(|(name, bytes)| file(name, bytes))
            .collect(),
    )
    .unwrap()
}

/// The statement that a signer makes of files, in this order, and with what is left out.
fn statement(files: &[(&str, &[u8])], ignored: &[&str]) -> Value {
    let digests: Vec<Digest> = files.iter().map(|(_, bytes)| Digest::of(bytes)).collect();
    let parts: Vec<&[u8]> = digests.iter().map(AsRef::as_ref).collect();
    let resources: Vec<Value> = files
        .iter()
        .zip(&digests)
        .map(|((name, _), digest)| json!({ "name": name, "algorithm": "sha256", "digest": digest }))
        .collect();
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "name": "m", "digest": { "sha256": Digest::of_parts(&parts) } }],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "resources": resources,
            "serialization": {
                "method": "files", "hash_type": "sha256", "allow_symlinks": false, "ignore_paths": ignored,
            },
        },
    })
}

/// Exit code and deciding check.
fn judged(
    bundle: &Value,
    key: &PublicKey,
    identity: &ModelManifest,
    beside: &[ModelFile],
) -> (u8, Option<String>) {
    let mut checks = Checks::new();
    judge(
        bundle.to_string().as_bytes(),
        key,
        identity,
        beside,
        &mut checks,
    );
    let conclusion = checks.conclude(false, false);
    (conclusion.exit, conclusion.deciding)
}

const FILES: [(&str, &[u8]); 2] = [("data/w.bin", b"weights"), ("model.onnx", b"graph")];

fn refused(exit: u8, id: &str) -> (u8, Option<String>) {
    (exit, Some(id.to_owned()))
}

#[test]
fn what_was_signed_is_held_against_the_folder_name_by_name() {
    let (signer, holds) = (Signer::new(), (0, None));
    let key = signer.key();
    let bundle = signer.bundle(&statement(&FILES, &[".git"]));
    let settings = [file("settings.toml", b"sessions = 2")];
    assert_eq!(judged(&bundle, &key, &model(&FILES), &[]), holds);

    let differs = refused(3, "oms.files");
    for other in [
        vec![("data/w.bin", &b"Weights"[..]), FILES[1]],
        vec![("data/v.bin", FILES[0].1), FILES[1]],
        vec![FILES[1]],
        vec![FILES[0], ("extra.bin", b"x"), FILES[1]],
    ] {
        assert_eq!(
            judged(&bundle, &key, &model(&other), &[]),
            differs,
            "{other:?}"
        );
    }
    assert_eq!(judged(&bundle, &key, &model(&FILES), &settings), differs);
    let all = [FILES[0], FILES[1], ("settings.toml", b"sessions = 2")];
    let with = signer.bundle(&statement(&all, &[]));
    assert_eq!(judged(&with, &key, &model(&FILES), &settings), holds);
    assert_eq!(judged(&with, &key, &model(&FILES), &[]), differs);
}

#[test]
fn two_models_with_one_root_digest_are_two_models() {
    let signer = Signer::new();
    let key = signer.key();
    // The same digests in the same order, under each other's names.
    let swapped = [("model.onnx", FILES[0].1), ("z.bin", FILES[1].1)];
    let (first, second) = (statement(&FILES, &[]), statement(&swapped, &[]));
    assert_eq!(first["subject"], second["subject"], "one root digest");
    let (first, second) = (signer.bundle(&first), signer.bundle(&second));
    let differs = refused(3, "oms.files");
    assert_eq!(judged(&first, &key, &model(&FILES), &[]), (0, None));
    assert_eq!(judged(&second, &key, &model(&swapped), &[]), (0, None));
    assert_eq!(judged(&first, &key, &model(&swapped), &[]), differs);
    assert_eq!(judged(&second, &key, &model(&FILES), &[]), differs);
}

#[test]
fn what_the_runtime_opens_cannot_be_left_out() {
    let signer = Signer::new();
    let key = signer.key();
    for path in ["data/w.bin", "data", "data/", "."] {
        let bundle = signer.bundle(&statement(&FILES[1..], &[path]));
        let found = judged(&bundle, &key, &model(&FILES), &[]);
        assert_eq!(found, refused(4, "oms.covers"), "{path}");
    }
    // Not left out: `dat` is no folder of it.
    let bundle = signer.bundle(&statement(&FILES[1..], &["dat"]));
    assert_eq!(
        judged(&bundle, &key, &model(&FILES), &[]),
        refused(3, "oms.files")
    );
    // What the runtime does not open may be.
    let bundle = signer.bundle(&statement(&FILES, &["settings.toml"]));
    let settings = [file("settings.toml", b"")];
    assert_eq!(judged(&bundle, &key, &model(&FILES), &settings), (0, None));
}

#[test]
fn other_methods_are_refused_by_name() {
    let signer = Signer::new();
    let (key, good) = (signer.key(), statement(&FILES, &[]));
    let change = |pointer: &str, value: Value| {
        let mut statement = good.clone();
        *statement.pointer_mut(pointer).unwrap() = value;
        judged(&signer.bundle(&statement), &key, &model(&FILES), &[])
    };
    let how = "/predicate/serialization";
    assert_eq!(change(&format!("{how}/method"), json!("files")), (0, None));
    for (pointer, value) in [
        (format!("{how}/method"), json!("shards")),
        (format!("{how}/hash_type"), json!("blake2")),
        ("/predicate/resources/1/algorithm".into(), json!("blake3")),
        (
            "/predicateType".into(),
            json!("https://model_signing/Digests/v0.1"),
        ),
    ] {
        assert_eq!(
            change(&pointer, value),
            refused(4, "oms.method"),
            "{pointer}"
        );
    }
    let twice = [FILES[0], FILES[0], FILES[1]];
    for statement in [
        statement(&twice, &[]),
        json!({ "_type": "https://in-toto.io/Statement/v1" }),
        json!([]),
    ] {
        let found = judged(&signer.bundle(&statement), &key, &model(&FILES), &[]);
        assert_eq!(found, refused(2, "oms.format"), "{statement}");
    }
    for (pointer, value) in [
        ("/_type", json!("https://in-toto.io/Statement/v0.1")),
        ("/subject/0/digest/sha256", json!("00".repeat(32))),
        ("/subject", json!([])),
        ("/predicate/resources/0/digest", json!("00")),
    ] {
        assert_eq!(
            change(pointer, value),
            refused(2, "oms.format"),
            "{pointer}"
        );
    }
}

#[test]
fn the_key_is_the_users_and_certificates_are_refused() {
    let (signer, other) = (Signer::new(), Signer::new());
    let good = signer.bundle(&statement(&FILES, &[]));
    let identity = model(&FILES);
    assert_eq!(judged(&good, &signer.key(), &identity, &[]), (0, None));
    let forged = refused(3, "oms.signature");
    assert_eq!(judged(&good, &other.key(), &identity, &[]), forged);
    let change = |pointer: &str, value: Value| {
        let mut bundle = good.clone();
        *bundle.pointer_mut(pointer).unwrap() = value;
        judged(&bundle, &signer.key(), &identity, &[])
    };
    let envelope = "/dsseEnvelope";
    let resigned = other.bundle(&statement(&FILES, &[]));
    let sig = resigned.pointer("/dsseEnvelope/signatures").unwrap();
    assert_eq!(
        change(&format!("{envelope}/signatures"), sig.clone()),
        forged
    );
    let payload = base64_encode(statement(&FILES, &["data"]).to_string().as_bytes());
    assert_eq!(
        change(&format!("{envelope}/payload"), json!(payload)),
        forged
    );
    for kind in ["certificate", "x509CertificateChain"] {
        let material = json!({ kind: { "rawBytes": "" } });
        assert_eq!(change("/verificationMaterial", material), forged, "{kind}");
    }
    let twice = json!([sig[0], sig[0]]);
    for (pointer, value) in [
        (
            "/mediaType",
            json!("application/vnd.dev.sigstore.bundle+json;version=0.2"),
        ),
        ("/verificationMaterial", json!({})),
        ("/dsseEnvelope/payloadType", json!("text/plain")),
        ("/dsseEnvelope/payload", json!("?")),
        ("/dsseEnvelope/signatures", json!([])),
        ("/dsseEnvelope/signatures", twice),
    ] {
        assert_eq!(
            change(pointer, value),
            refused(2, "oms.format"),
            "{pointer}"
        );
    }
}

#[test]
fn no_mutant_of_a_bundle_holds_by_panicking_or_otherwise() {
    let signer = Signer::new();
    let (key, identity) = (signer.key(), model(&FILES));
    let good = signer.bundle(&statement(&FILES, &[])).to_string();
    // The hint, keyid and names of members that nothing here reads are not signed.
    let from = good.find("\"payload\"").unwrap();
    let to = good.find("\"payloadType\"").unwrap();
    let (mut held, mut refused) = (0, 0);
    for at in from..to {
        for bit in [0, 1, 5] {
            let mut mutant = good.clone().into_bytes();
            mutant[at] ^= 1 << bit;
            let mut checks = Checks::new();
            judge(&mutant, &key, &identity, &[], &mut checks);
            if checks.hold() {
                held += 1
            } else {
                refused += 1
            }
        }
    }
    assert_eq!(held, 0);
    assert!(refused > 2000, "{refused}");
    for end in 0..good.len() {
        let mut checks = Checks::new();
        judge(&good.as_bytes()[..end], &key, &identity, &[], &mut checks);
        assert_eq!(checks.deciding().unwrap().id, "oms.format", "{end}");
    }
}
