//! Known answers of our own, for what `v1.json` has none: refusals, receipts without a nonce and with a
//! payment, a whole bundle, evidence, an attested connection, header fields. `TOUCHSTONE_BLESS=1` writes the file anew;
//! whoever does that has changed the format.

mod common;

use common::{bundle, claims, collateral_file, evidence, keyset, receipt_signer, session_answer};
use serde_json::{Value, json};
use touchstone_formats::commitment::{Datatype, request_digest, response_digest, tensors_digest};
use touchstone_formats::headers::{
    OpeningSalts, State, TouchstoneRequest, TouchstoneResponse, content_digest,
};
use touchstone_formats::receipt::PaymentClaim;
use touchstone_formats::report_data::{bind_session, report_data};
use touchstone_formats::text::hex_encode;
use touchstone_formats::{
    Attachment, Bundle, Claims, CollateralFile, Digest, Evidence, Guarantee, GuaranteeSet, Purpose,
    Receipt, SessionAnswer, SessionRequest, TensorRef,
};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/v1-more.json");

/// Receipts that differ from the one of `v1.json` in what their name says.
fn receipts() -> Vec<(&'static str, Claims)> {
    let refusal = |status, resolved: bool| Claims {
        status,
        inputs: None,
        outputs: None,
        model_digest: claims().model_digest.filter(|_| resolved),
        config_digest: claims().config_digest.filter(|_| resolved),
        ..claims()
    };
    let sequence = u64::from(u32::MAX) + 1;
    vec![
        ("refusal 422, no model resolved", refusal(422, false)),
        ("refusal 503, model resolved", refusal(503, true)),
        (
            "no nonce, signed alone, sequence 2^32",
            Claims {
                nonce: None,
                guarantees: GuaranteeSet::close([Guarantee::Signed]).unwrap(),
                sequence,
                ..claims()
            },
        ),
        (
            "logged quoted signed, epoch 24, nonce of 8 bytes",
            Claims {
                nonce: Some(vec![0xff; 8]),
                guarantees: GuaranteeSet::parse_words("logged quoted").unwrap(),
                catalog: (24, claims().catalog.1),
                ..claims()
            },
        ),
        (
            "payment",
            Claims {
                payment: Some(PaymentClaim {
                    mode: "bound".into(),
                    payer: "0x1111111111111111111111111111111111111111".into(),
                    network: "eip155:8453".into(),
                    asset: "0x2222222222222222222222222222222222222222".into(),
                    pay_to: "0x3333333333333333333333333333333333333333".into(),
                    amount: "1000".into(),
                    nonce: [0x44; 32],
                    payload: Digest([0x55; 32]),
                }),
                ..claims()
            },
        ),
    ]
}

/// Every member, with a view and an attachment.
fn whole_bundle() -> Bundle {
    let mut bundle = bundle();
    bundle.evidence.push(Evidence {
        nonce: claims().nonce,
        ..evidence(Purpose::Receipt)
    });
    bundle.attachments = vec![Attachment::parse(r#"{"data":[1,null],"type":"example"}"#).unwrap()];
    bundle.view = Some(r#"{"answer":"7","ok":true}"#.into());
    bundle
}

/// An attested connection to the holder of the vector's keyset, and the three files that travel.
fn session() -> Value {
    let (nonce, exporter) = ([0x4e; 32], [0x55; 32]);
    let spki = keyset().tls_spki_sha256.unwrap();
    let bind = bind_session(spki, &exporter);
    let data = report_data(Purpose::Session, keyset().digest(), Some(&nonce), bind);
    let text = |file: Vec<u8>| String::from_utf8(file).unwrap();
    json!({
        "nonce": hex_encode(&nonce),
        "exporter": hex_encode(&exporter),
        "tls_spki_sha256": spki,
        "bind": bind,
        "report_data": hex_encode(&data),
        "request": text(SessionRequest { nonce }.to_file()),
        "answer": text(session_answer().to_file()),
        "collateral": text(collateral_file().to_file()),
    })
}

fn computed() -> Value {
    let signer = receipt_signer();
    let receipts: Vec<Value> = receipts()
        .iter()
        .map(|(name, claims)| json!({"name": name, "cose": hex_encode(&signer.sign(claims))}))
        .collect();
    let scalar = TensorRef {
        name: "",
        datatype: Datatype::Fp64,
        shape: &[],
        data: &1.5_f64.to_le_bytes(),
    };
    let empty = TensorRef {
        name: "é",
        datatype: Datatype::Bool,
        shape: &[0, 3],
        data: &[],
    };
    let set = GuaranteeSet::default_set();
    json!({
        "about": "Known answers by this project itself, with the keys and objects of v1.json.",
        "receipts": receipts,
        "bundle": String::from_utf8(whole_bundle().to_file()).unwrap(),
        "evidence": String::from_utf8(evidence(Purpose::Boot).to_file()).unwrap(),
        "session": session(),
        "digests": {
            "request, empty body, no header": request_digest("POST", "/", None, b""),
            "request, empty body, header 0": request_digest("POST", "/", Some(0), b""),
            "response 422, empty body": response_digest(422, None, b""),
            "no tensors": tensors_digest(&[]).unwrap(),
            "FP64 1.5 of rank 0 named '', BOOL of shape 0×3 named 'é'":
                tensors_digest(&[empty, scalar]).unwrap(),
        },
        "headers": {
            "request": TouchstoneRequest { require: Some(set), nonce: claims().nonce }.to_string(),
            "response": TouchstoneResponse {
                id: claims().cti,
                keyset: claims().keyset_digest,
                require: set,
                state: State::Sealed,
            }.to_string(),
            "openings": OpeningSalts {
                request: Some([0xa1; 16]),
                response: Some([0xa2; 16]),
                inputs: Some([0xa3; 16]),
                outputs: Some([0xa4; 16]),
            }.to_string(),
            "content digest of {}": content_digest(b"{}"),
        },
    })
}

#[test]
fn more_known_answers() {
    let computed = computed();
    if std::env::var_os("TOUCHSTONE_BLESS").is_some() {
        let mut text = serde_json::to_string_pretty(&computed).unwrap();
        text.push('\n');
        std::fs::write(FILE, text).unwrap();
    }
    let written: Value = serde_json::from_slice(&std::fs::read(FILE).unwrap()).unwrap();
    assert_eq!(computed, written);

    // And read back.
    for ((name, claims), vector) in receipts()
        .into_iter()
        .zip(written["receipts"].as_array().unwrap())
    {
        let receipt = Receipt::parse(&common::bytes(vector, "/cose")).unwrap();
        assert_eq!(receipt.claims, claims, "{name}");
        assert!(receipt.verify(&receipt_signer().public_key()));
    }
    let file = common::text(&written, "/bundle");
    assert_eq!(Bundle::parse(file.as_bytes()).unwrap(), whole_bundle());
    let file = common::text(&written, "/session/request");
    let nonce = common::array(&written, "/session/nonce");
    assert_eq!(
        SessionRequest::parse(file.as_bytes()).unwrap(),
        SessionRequest { nonce }
    );
    let file = common::text(&written, "/session/answer");
    assert_eq!(
        SessionAnswer::parse(file.as_bytes()).unwrap(),
        session_answer()
    );
    let file = common::text(&written, "/session/collateral");
    assert_eq!(
        CollateralFile::parse(file.as_bytes()).unwrap(),
        collateral_file()
    );
    let file = common::text(&written, "/evidence");
    assert_eq!(
        Evidence::parse(file.as_bytes()).unwrap(),
        evidence(Purpose::Boot)
    );
}
