//! What the formats cost: `cargo run --release -p touchstone-formats --example cost`.
//!
//! Trust ratios of one run more than absolute figures. The last lines are the worst that hostile
//! input within the bounds can do.
#![allow(clippy::unwrap_used, reason = "a tool for developers")]

use ring::signature::Ed25519KeyPair;
use std::hint::black_box;
use std::time::Instant;
use touchstone_formats::commitment::commit;
use touchstone_formats::merkle::{RightEdge, append_batch};
use touchstone_formats::{
    Attachment, Bundle, Claims, Digest, GuaranteeSet, Keyset, LogSigner, Openings, Receipt,
    ReceiptSigner, Role, jcs,
};

/// Prints the time of one run, the median of several rounds.
fn measure(what: &str, runs: u32, mut run: impl FnMut()) {
    let mut rounds: Vec<f64> = (0..7)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..runs {
                run();
            }
            start.elapsed().as_secs_f64() / f64::from(runs)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    println!("{:10.2} µs  {what}", rounds.get(3).unwrap() * 1e6);
}

fn claims(keyset: &Keyset) -> Claims {
    let digest = Digest([5; 32]);
    Claims {
        iss: keyset.name.clone(),
        iat: 1_790_000_123,
        cti: [1; 16],
        nonce: Some(vec![2; 32]),
        model_digest: Some(digest),
        config_digest: Some(digest),
        sequence: 70_000,
        keyset_digest: keyset.digest(),
        guarantees: GuaranteeSet::default_set(),
        catalog: (3, digest),
        request: digest,
        response: digest,
        inputs: Some(digest),
        outputs: Some(digest),
        status: 0,
        payment: None,
    }
}

fn main() {
    let signer = ReceiptSigner::from_seed(&[1; 32]).unwrap();
    let log = LogSigner::from_seed(&[2; 32], "example").unwrap();
    let keyset = Keyset {
        name: "enclave.example".into(),
        previous: None,
        not_before: 1,
        not_after: 2,
        receipt_key: touchstone_formats::ReceiptKey(signer.public_key()),
        log: log.log_key(),
        tls_spki_sha256: None,
        ohttp_keys: None,
        software: Digest::ZERO,
        config: Digest::ZERO,
    };
    let claims = claims(&keyset);
    let cose = signer.sign(&claims);
    let pair = Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();

    measure("Ed25519 over as many bytes as a receipt", 2000, || {
        black_box(pair.sign(black_box(&cose)));
    });
    measure("a receipt, written and signed", 2000, || {
        black_box(signer.sign(black_box(&claims)));
    });
    measure("four commitments", 20_000, || {
        for role in Role::ALL {
            black_box(commit(role, &[3; 16], black_box(&Digest::ZERO)));
        }
    });
    measure("a receipt, parsed", 20_000, || {
        black_box(Receipt::parse(black_box(&cose)).unwrap());
    });
    let receipt = Receipt::parse(&cose).unwrap();
    measure("a receipt, verified", 2000, || {
        assert!(black_box(&receipt).verify(&signer.public_key()));
    });
    let leaves = vec![Digest([7; 32]); 1024];
    let (edge, _) = append_batch(&RightEdge::new(), &[Digest::ZERO; 1_000]);
    measure("1,024 leaves appended, with all their proofs", 100, || {
        let (_, proofs) = append_batch(&edge, &leaves);
        for i in 0..leaves.len() {
            black_box(proofs.proof(i));
        }
    });

    let bundle = |view: Option<String>| {
        Bundle {
            receipt: cose.clone(),
            keyset: keyset.clone(),
            evidence: Vec::new(),
            proof: None,
            catalog: None,
            openings: Openings::default(),
            attachments: Vec::new(),
            view,
        }
        .to_file()
    };
    let small = bundle(None);
    measure("a small bundle, parsed", 5000, || {
        black_box(Bundle::parse(black_box(&small)).unwrap());
    });
    for (what, item) in [
        ("text", "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\""),
        ("escapes", "\"\\u0001\\n\\n\\n\\n\\n\""),
        ("integers", "7"),
        ("objects", "{\"a\":0}"),
    ] {
        let count = ((4 << 20) - 2000) / (item.len() + 1);
        let file = bundle(Some(format!("[{}]", vec![item; count].join(","))));
        measure(&format!("4 MiB of {what} in a view"), 1, || {
            black_box(Bundle::parse(black_box(&file)).unwrap());
        });
    }
    let flat: Vec<String> = (0..300_000).map(|i| format!("\"{i:06}\":0")).collect();
    let object = format!("{{{}}}", flat.join(","));
    measure("300,000 members checked", 1, || {
        jcs::check(black_box(object.as_bytes())).unwrap();
    });
    black_box(Attachment::parse(r#"{"type":"x"}"#).unwrap());
}
