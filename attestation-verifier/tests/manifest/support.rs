//! Keys, a manifest that holds, and files made of it without the code under test.

use attestation_verifier::manifest::{
    Authentic, NotAuthentic, PublicKey, Signer, Signers, Statement, pae,
};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use touchstone_formats::jcs;
use touchstone_formats::text::base64_encode;

/// 2026-11-21T00:00:00Z.
pub const ISSUED: u64 = 1_795_219_200;
/// 2027-06-01T00:00:00Z.
pub const END: u64 = 1_811_808_000;

pub struct Key {
    pair: EcdsaKeyPair,
    pub public: PublicKey,
}

pub fn key() -> Key {
    let random = SystemRandom::new();
    let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
    let public = PublicKey::from_point(pair.public_key().as_ref()).unwrap();
    Key { pair, public }
}

impl Key {
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature = self.pair.sign(&SystemRandom::new(), message).unwrap();
        signature.as_ref().to_vec()
    }

    /// A line of a manifest file, as sigstore's bundle.proto has it.
    pub fn bundle(&self, payload: &[u8]) -> Value {
        json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": { "publicKey": { "hint": self.public.id() } },
            "dsseEnvelope": {
                "payload": base64_encode(payload),
                "payloadType": "application/vnd.in-toto+json",
                "signatures": [{ "sig": base64_encode(&self.sign(&pae(payload))), "keyid": self.public.id() }],
            },
        })
    }

    pub fn line(&self, payload: &[u8]) -> String {
        self.bundle(payload).to_string() + "\n"
    }
}

/// Signers a, b, c… with these keys.
pub fn signers(keys: &[&Key], threshold: usize) -> Signers {
    let named = keys.iter().zip('a'..).map(|(key, name)| Signer {
        name: name.into(),
        key: key.public,
    });
    Signers::new(named.collect(), threshold).unwrap()
}

fn hex(byte: u8, count: usize) -> String {
    format!("{byte:02x}").repeat(count)
}

fn ingredient(role: &str, byte: u8) -> Value {
    json!({ "role": role, "name": format!("{role}.bin"), "sha256": hex(byte, 32), "size": 1000,
            "origin": "rebuilt", "source": "https://example.com/src" })
}

/// A manifest that holds: two releases, SEV-SNP and TDX, a model.
pub fn predicate() -> Value {
    let mut runtime = ingredient("onnxruntime", 9);
    runtime["origin"] = json!("pinned-binary");
    let software = [
        ingredient("firmware", 1),
        ingredient("kernel", 2),
        ingredient("initrd", 3),
        ingredient("cmdline", 4),
        runtime,
    ];
    let snp = json!({
        "name": "qemu-genoa", "tee": "sev-snp", "vmm": "qemu", "os_binding": "launch-digest",
        "quote_source": "exclusive", "ingredients": software,
        "minimum_tcb": { "Genoa": { "bootloader": 9, "tee": 0, "snp": 23, "microcode": 72 } },
        "measurements": [
            { "snp": { "measurement": hex(0xa1, 48), "vcpus": 2, "cpu": "EPYC-Genoa", "guest_features": "0x1" } },
            { "snp": { "measurement": hex(0xa2, 48), "vcpus": 4, "cpu": "EPYC-Genoa", "guest_features": "0x1" } },
        ],
    });
    let tdx = json!({
        "name": "qemu-tdx", "tee": "tdx", "vmm": "qemu", "os_binding": "rtmr", "quote_source": "shared-agent",
        "ingredients": software, "minimum_tcb": { "tcb_evaluation_data_number": 17 },
        "measurements": [{ "tdx": { "mrtd": hex(0xb0, 48), "rtmr0": [hex(0xc0, 48), hex(0xc1, 48)],
            "rtmr1": hex(0xb1, 48), "rtmr2": hex(0xb2, 48), "page_add_order": "two-pass" } }],
    });
    json!({
        "v": "touchstone/manifest/1", "name": "touchstone-enclave", "version": 18,
        "issued": "2026-11-21T00:00:00Z", "not_after": "2027-06-01T00:00:00Z",
        "releases": [
            { "release": "1.4.2", "not_after": "2027-01-01T00:00:00Z", "platforms": [snp, tdx] },
        ],
        "models": [{ "name": "fraud-score", "version": "3", "model_digest": hex(5, 32), "config_digests": [hex(6, 32)] }],
    })
}

/// The statement about a predicate, its subjects found anew.
pub fn statement(predicate: &Value) -> Value {
    let mut pairs: Vec<(String, String)> = Vec::new();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for release in list(&predicate["releases"]) {
        for platform in list(&release["platforms"]) {
            for i in list(&platform["ingredients"]) {
                pairs.push((text(&i["name"]), text(&i["sha256"])));
            }
        }
    }
    for model in list(&predicate["models"]) {
        pairs.push((text(&model["name"]), text(&model["model_digest"])));
    }
    pairs.sort();
    pairs.dedup();
    let subjects = pairs.iter();
    let subjects =
        subjects.map(|(name, sha256)| json!({ "name": name, "digest": { "sha256": sha256 } }));
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subjects.collect::<Vec<_>>(),
        "predicateType": "https://touchstone.invalid/manifest/v1",
        "predicate": predicate,
    })
}

pub fn payload(statement: &Value) -> Vec<u8> {
    jcs::to_vec(statement).unwrap()
}

/// The payload of the manifest that holds.
pub fn good() -> Vec<u8> {
    payload(&statement(&predicate()))
}

/// A file with this payload and a signature of each key.
pub fn file(payload: &[u8], keys: &[&Key]) -> Vec<u8> {
    let lines = keys.iter().map(|key| key.line(payload));
    lines.collect::<String>().into_bytes()
}

/// An authentic manifest with this predicate, by a key of its own.
pub fn authentic(predicate: &Value) -> Authentic {
    let key = key();
    read(&payload(&statement(predicate)), &key).unwrap()
}

/// This payload, signed by this key and read.
pub fn read(payload: &[u8], key: &Key) -> Result<Authentic, NotAuthentic> {
    Authentic::read(&file(payload, &[key]), &signers(&[key], 1))
}

/// The statement that holds, as the library has it.
pub fn parsed() -> Statement {
    Statement::parse(&good()).unwrap()
}
