//! Every known answer of `testdata/v1.json`, made by an implementation that shares no code with
//! this one.

mod common;

use common::{array, bytes, cose, digest, keyset, text, vectors};
use serde_json::Value;
use touchstone_formats::checkpoint::LogSigner;
use touchstone_formats::commitment::{commit, request_digest, response_digest, tensors_digest};
use touchstone_formats::merkle::{
    EntryKind, RightEdge, append_batch, entry, leaf_hash, verify_inclusion,
};
use touchstone_formats::report_data::{
    bind_boot, bind_checkpoint, bind_receipt, bind_session, report_data,
};
use touchstone_formats::{
    Digest, LogKey, ModelFile, ModelManifest, Purpose, Receipt, Role, SignedNote, TensorRef,
    TlogProof, jcs,
};

#[test]
fn keyset_jcs_and_digest() {
    let v = vectors();
    let keyset = keyset();
    assert_eq!(keyset.to_jcs(), text(&v, "/keyset/jcs").as_bytes());
    assert_eq!(keyset.digest(), digest(&v, "/keyset/digest"));
    // The object of the vector file, in its own order and spacing, gives the same bytes.
    assert_eq!(
        jcs::to_vec(&v["keyset"]["object"]).unwrap(),
        keyset.to_jcs()
    );
}

#[test]
fn request_and_response_digests() {
    let v = vectors();
    assert_eq!(
        request_digest(
            &text(&v, "/request/method"),
            &text(&v, "/request/path"),
            v["request"]["header_length"].as_u64(),
            &bytes(&v, "/request/body"),
        ),
        digest(&v, "/request/digest")
    );
    assert_eq!(
        response_digest(
            v["response"]["status"].as_u64().unwrap() as u16,
            v["response"]["header_length"].as_u64(),
            &bytes(&v, "/response/body"),
        ),
        digest(&v, "/response/digest")
    );
}

#[test]
fn tensors() {
    let v = vectors();
    type Owned = (String, String, Vec<u64>, Vec<u8>);
    let owned: Vec<Owned> = v["tensors"]["tensors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tensor| {
            (
                text(tensor, "/name"),
                text(tensor, "/datatype"),
                serde_json::from_value(tensor["shape"].clone()).unwrap(),
                bytes(tensor, "/data"),
            )
        })
        .collect();
    let mut tensors: Vec<TensorRef<'_>> = owned
        .iter()
        .map(|(name, datatype, shape, data)| TensorRef {
            name,
            datatype: datatype.parse().unwrap(),
            shape,
            data,
        })
        .collect();
    let expected = digest(&v, "/tensors/digest");
    assert_eq!(tensors_digest(&tensors).unwrap(), expected);
    tensors.reverse();
    assert_eq!(tensors_digest(&tensors).unwrap(), expected);
}

#[test]
fn commitments() {
    let v = vectors();
    let cases = v["commit"].as_array().unwrap();
    assert_eq!(cases.len(), 4);
    for (case, role) in cases.iter().zip(Role::ALL) {
        assert_eq!(text(case, "/role"), role.name());
        assert_eq!(
            commit(role, &array(case, "/salt"), &digest(case, "/digest")),
            digest(case, "/commitment")
        );
    }
}

#[test]
fn model_digest() {
    let v = vectors();
    let files: Vec<ModelFile> = serde_json::from_value(v["model"]["files"].clone()).unwrap();
    let manifest = ModelManifest::new(files).unwrap();
    assert_eq!(manifest.entry(), text(&v, "/model/entry"));
    assert_eq!(manifest.digest(), digest(&v, "/model/digest"));
    assert_eq!(ModelManifest::parse(&manifest.to_jcs()).unwrap(), manifest);
}

#[test]
fn report_data_of_each_purpose() {
    let v = vectors();
    let keyset = digest(&v, "/keyset/digest");
    let cases = v["report_data"].as_array().unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let input = bytes(case, "/bind_input");
        let purpose: Purpose = serde_json::from_value(case["purpose"].clone()).unwrap();
        let bind = match purpose {
            Purpose::Boot => bind_boot(),
            Purpose::Session => {
                let keys = input.strip_prefix(b"server\n").unwrap();
                let (spki, exporter) = keys.split_at(32);
                bind_session(
                    Digest(spki.try_into().unwrap()),
                    exporter.try_into().unwrap(),
                )
            }
            Purpose::Checkpoint => bind_checkpoint(std::str::from_utf8(&input).unwrap()),
            Purpose::Receipt => {
                assert_eq!(input, cose());
                bind_receipt(&input)
            }
        };
        assert_eq!(bind, Digest::of(&input));
        let nonce = case["nonce"].as_str().map(|_| bytes(case, "/nonce"));
        assert_eq!(
            report_data(purpose, keyset, nonce.as_deref(), bind),
            array(case, "/report_data"),
            "{purpose}"
        );
    }
}

#[test]
fn receipt_is_parsed_and_reproduced() {
    let v = vectors();
    let receipt = Receipt::parse(&cose()).unwrap();
    assert_eq!(receipt.claims, common::claims());
    let signer = common::receipt_signer();
    assert!(receipt.verify(&signer.public_key()));
    assert_eq!(signer.public_key(), keyset().receipt_key.0);
    assert_eq!(signer.sign(&receipt.claims), cose());
    assert_eq!(receipt.id(), text(&v, "/receipt/claims/7"));
    assert_eq!(receipt.cose(), cose());
    // The payload stands in the COSE bytes behind a head of three bytes.
    let payload = bytes(&v, "/receipt/payload");
    let at = cose().len() - 66 - payload.len();
    assert_eq!(&cose()[at..at + payload.len()], payload);
    assert_eq!(&cose()[..4], [0xd2, 0x84, 0x4d, 0xa2]);
}

#[test]
fn log_key_and_origin() {
    let v = vectors();
    let signer = LogSigner::from_seed(&array(&v, "/keys/log_seed"), "enclave.example/log").unwrap();
    let key = signer.log_key();
    assert_eq!(key.name, text(&v, "/log/origin"));
    assert_eq!(key.to_string(), text(&v, "/log/vkey"));
    assert_eq!(text(&v, "/log/vkey").parse::<LogKey>().unwrap(), key);
    assert!(key.name_is_origin());
    assert_eq!(key, keyset().log);
}

fn leaves(v: &Value) -> Vec<Digest> {
    serde_json::from_value(v["log"]["leaves"].clone()).unwrap()
}

#[test]
fn entries_and_leaves() {
    let v = vectors();
    let entries: Vec<Vec<u8>> = (0..5)
        .map(|i| bytes(&v, &format!("/log/entries/{i}")))
        .collect();
    assert_eq!(entries[0], entry(EntryKind::Boot, keyset().digest()));
    assert_eq!(
        entries[1],
        entry(EntryKind::Catalog, common::catalog().digest())
    );
    assert_eq!(entries[2], entry(EntryKind::Receipt, Digest::of(&cose())));
    assert_eq!(entries[4], entry(EntryKind::Close, Digest::of(b"")));
    for (entry, leaf) in entries.iter().zip(leaves(&v)) {
        assert_eq!(leaf_hash(entry), leaf);
    }
    // The receipt names the catalog that entry 1 holds.
    assert_eq!(common::claims().catalog.1, common::catalog().digest());
}

#[test]
fn root_proofs_and_note() {
    let v = vectors();
    let leaves = leaves(&v);
    let root = digest(&v, "/log/root");
    let (edge, proofs) = append_batch(&RightEdge::new(), &leaves);
    assert_eq!(edge.root(), root);
    for (i, leaf) in leaves.iter().enumerate() {
        let expected: Vec<Digest> =
            serde_json::from_value(v["log"]["inclusion"][i].clone()).unwrap();
        assert_eq!(proofs.proof(i), expected, "{i}");
        assert!(verify_inclusion(i as u64, 5, *leaf, &expected, root));
    }

    let signer = LogSigner::from_seed(&array(&v, "/keys/log_seed"), "enclave.example/log").unwrap();
    let signed = signer.sign(&signer.checkpoint(5, root));
    assert_eq!(signed, text(&v, "/log/note"));
    let note = SignedNote::parse(&signed).unwrap();
    assert!(note.verify(&signer.log_key()));
    assert_eq!(note.checkpoint().unwrap(), signer.checkpoint(5, root));
    assert_eq!(note.to_string(), signed);

    let proof = TlogProof {
        index: 2,
        hashes: proofs.proof(2),
        note,
    };
    assert_eq!(proof.to_string(), text(&v, "/log/proof_2"));
    assert_eq!(TlogProof::parse(&text(&v, "/log/proof_2")).unwrap(), proof);
}
