//! The known answers, and objects built from them.
#![allow(dead_code, reason = "each test binary uses its own part")]

use serde_json::Value;
use touchstone_formats::text::hex_decode;
use touchstone_formats::{
    Bundle, Catalog, CatalogModel, Claims, Collateral, CollateralFile, Digest, EventLog, Evidence,
    GuaranteeSet, Keyset, Opening, Openings, Purpose, ReceiptSigner, SessionAnswer, SnpCollateral,
    Tee,
};

pub fn vectors() -> Value {
    serde_json::from_str(include_str!("../../testdata/v1.json")).unwrap()
}

/// The vector's member at a JSON pointer, which must be a string.
pub fn text(vectors: &Value, pointer: &str) -> String {
    vectors
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("{pointer}"))
        .to_owned()
}

pub fn bytes(vectors: &Value, pointer: &str) -> Vec<u8> {
    hex_decode(&text(vectors, pointer)).unwrap()
}

pub fn array<const N: usize>(vectors: &Value, pointer: &str) -> [u8; N] {
    bytes(vectors, pointer).try_into().unwrap()
}

pub fn digest(vectors: &Value, pointer: &str) -> Digest {
    Digest(array(vectors, pointer))
}

pub fn keyset() -> Keyset {
    Keyset::parse(text(&vectors(), "/keyset/jcs").as_bytes()).unwrap()
}

pub fn receipt_signer() -> ReceiptSigner {
    ReceiptSigner::from_seed(&array(&vectors(), "/keys/receipt_seed")).unwrap()
}

/// The claims of the vector's receipt.
pub fn claims() -> Claims {
    let v = vectors();
    let claim = |label: &str| digest(&v, &format!("/receipt/claims/{label}"));
    Claims {
        iss: text(&v, "/receipt/claims/1"),
        iat: v["receipt"]["claims"]["6"].as_u64().unwrap(),
        cti: array(&v, "/receipt/claims/7"),
        nonce: Some(bytes(&v, "/receipt/claims/10")),
        model_digest: Some(claim("-65539")),
        config_digest: Some(claim("-65600")),
        sequence: v["receipt"]["claims"]["-65545"].as_u64().unwrap(),
        keyset_digest: claim("-65601"),
        guarantees: GuaranteeSet::default_set(),
        catalog: (
            v["receipt"]["claims"]["-65603"][0].as_u64().unwrap(),
            digest(&v, "/receipt/claims/-65603/1"),
        ),
        request: claim("-65604"),
        response: claim("-65605"),
        inputs: Some(claim("-65606")),
        outputs: Some(claim("-65607")),
        status: 0,
        payment: None,
    }
}

pub fn cose() -> Vec<u8> {
    bytes(&vectors(), "/receipt/cose")
}

pub fn catalog() -> Catalog {
    let v = vectors();
    let model = |member: &str| text(&v, &format!("/log/catalog/models/0/{member}"));
    Catalog {
        keyset_digest: digest(&v, "/log/catalog/keyset_digest"),
        epoch: v["log"]["catalog"]["epoch"].as_u64().unwrap(),
        previous: digest(&v, "/log/catalog/previous"),
        models: vec![CatalogModel {
            name: model("name"),
            version: model("version"),
            model_digest: Digest::from_hex(&model("model_digest")).unwrap(),
            config_digest: Digest::from_hex(&model("config_digest")).unwrap(),
        }],
    }
}

pub fn evidence(purpose: Purpose) -> Evidence {
    Evidence {
        purpose: Some(purpose),
        nonce: None,
        tee: Tee::SevSnp,
        // Short, for the tests that try every bit; its length is for the verifier to judge.
        quote: (0..48).collect(),
        collateral: Some(Collateral::SevSnp(SnpCollateral {
            vek: Some(b"certificate".to_vec()),
            chain: vec![b"certificate above".to_vec()],
            crls: vec![b"list".to_vec()],
        })),
        event_log: None,
    }
}

/// The answer to a request for a session, as an enclave gives it: without collateral.
pub fn session_answer() -> SessionAnswer {
    SessionAnswer {
        keyset: keyset(),
        evidence: Evidence {
            nonce: Some(vec![0x4e; 32]),
            collateral: None,
            ..evidence(Purpose::Session)
        },
    }
}

/// What the host has for it.
pub fn collateral_file() -> CollateralFile {
    let evidence = evidence(Purpose::Session);
    CollateralFile {
        tee: evidence.tee,
        collateral: evidence.collateral.unwrap(),
    }
}

/// A whole bundle of the vector's objects, without attachments and view.
pub fn bundle() -> Bundle {
    let v = vectors();
    let opening = |index: usize| {
        Some(Opening {
            salt: array(&v, &format!("/commit/{index}/salt")),
            digest: digest(&v, &format!("/commit/{index}/digest")),
        })
    };
    Bundle {
        receipt: cose(),
        keyset: keyset(),
        evidence: vec![
            Evidence {
                event_log: Some(EventLog {
                    format: "ccel".into(),
                    data: touchstone_formats::text::Base64Bytes(b"log\xff\xff".to_vec()),
                }),
                ..evidence(Purpose::Boot)
            },
            evidence(Purpose::Checkpoint),
        ],
        proof: Some(text(&v, "/log/proof_2")),
        catalog: Some(catalog()),
        openings: Openings {
            request: opening(0),
            response: opening(1),
            inputs: opening(2),
            outputs: opening(3),
        },
        attachments: Vec::new(),
        view: None,
    }
}
