//! Fields that get another plausible value. What is signed is not signed again: the signature, or whatever binds the field, must
//! notice.

use attestation_verifier::ohttp::ConnectionRecord;
use serde_json::{Value, json};
use touchstone_formats::text::hex_encode;
use touchstone_formats::{Claims, Digest, Evidence, GuaranteeSet, LogSigner, Purpose, ReceiptKey};
use touchstone_formats::{Receipt, ReceiptSigner, TlogProof};

use super::mutant::{Kind, Mutant, Numbers};
use super::quote;
use super::subject::{Files, RecordParts, Subject};

/// A change to a receipt's claims, in words.
pub type ClaimChange = (&'static str, fn(&mut Claims, &mut Numbers));

/// What a liar would have a receipt say.
pub const CLAIM_CHANGES: [ClaimChange; 14] = [
    ("iss: another name", |c, _| c.iss.push('x')),
    ("iat: an hour earlier", |c, _| {
        c.iat = c.iat.saturating_sub(3600)
    }),
    ("iat: a minute later", |c, _| c.iat += 60),
    ("cti: another id", |c, n| c.cti = n.bytes()),
    ("nonce: another", |c, n| {
        c.nonce = Some(n.bytes::<32>().to_vec())
    }),
    ("model_digest: another model", |c, n| {
        c.model_digest = Some(digest(n))
    }),
    ("config_digest: another configuration", |c, n| {
        c.config_digest = Some(digest(n))
    }),
    ("sequence: the next", |c, _| c.sequence += 1),
    ("keyset_digest: another keyset", |c, n| {
        c.keyset_digest = digest(n)
    }),
    ("guarantees: more", |c, _| {
        let more = GuaranteeSet::parse_words("logged quoted signed");
        c.guarantees = more.unwrap_or(c.guarantees).union(&c.guarantees);
    }),
    ("guarantees: fewer", |c, _| {
        c.guarantees = GuaranteeSet::parse_words("signed").unwrap_or(c.guarantees);
    }),
    ("catalog: the next epoch", |c, _| c.catalog.0 += 1),
    ("request: another commitment", |c, n| c.request = digest(n)),
    ("response: another commitment", |c, n| {
        c.response = digest(n)
    }),
];

fn digest(numbers: &mut Numbers) -> Digest {
    Digest(numbers.bytes())
}

/// All of this kind.
pub fn mutants(subject: &Subject, numbers: &mut Numbers) -> Vec<Mutant> {
    let mut all = Vec::new();
    claims(subject, numbers, &mut all);
    keyset(subject, numbers, &mut all);
    proof(subject, numbers, &mut all);
    members(subject, numbers, &mut all);
    session(subject, numbers, &mut all);
    evidence(subject, numbers, &mut all);
    all
}

/// The receipt says something else under its old signature.
fn claims(subject: &Subject, numbers: &mut Numbers, all: &mut Vec<Mutant>) {
    let Some(file) = &subject.bundle else { return };
    let Ok(writer) = ReceiptSigner::from_seed(&numbers.bytes()) else {
        return;
    };
    for (what, change) in CLAIM_CHANGES {
        let mut claims = file.receipt.claims.clone();
        change(&mut claims, numbers);
        let cose = under_old_signature(&writer.sign(&claims), &file.receipt);
        if let Some(files) = cose.and_then(|cose| subject.with_bundle(|b| b.receipt = cose)) {
            all.push(Mutant::new(Kind::Field, "receipt", what, files));
        }
    }
}

/// The hint of the key and the signature are those of the original.
fn under_old_signature(written: &[u8], original: &Receipt) -> Option<Vec<u8>> {
    /// Tag, array, byte string, map, algorithm and label before the hint.
    const HINT: usize = 8;
    let mut cose = written.to_vec();
    let signature = original.cose().last_chunk::<64>()?;
    *cose.last_chunk_mut::<64>()? = *signature;
    cose.get_mut(HINT..HINT + 8)?
        .copy_from_slice(&original.kid());
    Some(cose)
}

fn keyset(subject: &Subject, numbers: &mut Numbers, all: &mut Vec<Mutant>) {
    let Some(file) = &subject.bundle else { return };
    let receipt_key =
        ReceiptSigner::from_seed(&numbers.bytes()).map(|s| ReceiptKey(s.public_key()));
    let log = LogSigner::from_seed(&numbers.bytes(), "log.example").map(|s| s.log_key());
    let (previous, software, config) = (digest(numbers), digest(numbers), digest(numbers));
    let tls = digest(numbers);
    let mut add = |what: &str, change: &dyn Fn(&mut touchstone_formats::Keyset)| {
        if let Some(files) = subject.with_bundle(|b| change(&mut b.keyset)) {
            all.push(Mutant::new(Kind::Field, "keyset", what, files));
        }
    };
    add("name: another", &|k| k.name.push('x'));
    add("previous: another keyset", &|k| k.previous = Some(previous));
    add("not_before: a day earlier", &|k| {
        k.not_before = k.not_before.saturating_sub(86_400)
    });
    add("not_after: a day later", &|k| k.not_after += 86_400);
    add("not_after: over before the receipt", &|k| {
        k.not_after = file.receipt.claims.iat.saturating_sub(1);
    });
    add("software: another build", &|k| k.software = software);
    add("config: other settings", &|k| k.config = config);
    add("tls_spki_sha256: another key", &|k| {
        k.tls_spki_sha256 = Some(tls)
    });
    if let Ok(key) = receipt_key {
        add("receipt_key: another key", &|k| k.receipt_key = key);
    }
    if let Ok(key) = log {
        add("log: another log", &|k| k.log = key.clone());
    }
}

fn proof(subject: &Subject, numbers: &mut Numbers, all: &mut Vec<Mutant>) {
    let Some(file) = &subject.bundle else { return };
    let (Some(proof), Some(checkpoint)) = (
        &file.proof,
        file.proof.as_ref().and_then(|p| p.note.checkpoint().ok()),
    ) else {
        return;
    };
    let root = digest(numbers);
    let mut add = |place: &str, what: &str, change: &dyn Fn(&mut TlogProof)| {
        let mut proof = proof.clone();
        change(&mut proof);
        if let Some(files) = subject.with_bundle(|b| b.proof = Some(proof.to_string())) {
            all.push(Mutant::new(Kind::Field, place, what, files));
        }
    };
    add("inclusion proof", "index: the next", &|p| p.index += 1);
    add("inclusion proof", "index: 0", &|p| p.index = 0);
    add("inclusion proof", "one hash more", &|p| p.hashes.push(root));
    add("inclusion proof", "no hashes", &|p| p.hashes.clear());
    for (what, change) in [
        (
            "size: one entry more",
            touchstone_formats::Checkpoint {
                size: checkpoint.size + 1,
                ..checkpoint.clone()
            },
        ),
        (
            "root: another tree",
            touchstone_formats::Checkpoint {
                root,
                ..checkpoint.clone()
            },
        ),
        (
            "origin: another log",
            touchstone_formats::Checkpoint {
                origin: format!("{}x", checkpoint.origin),
                ..checkpoint.clone()
            },
        ),
    ] {
        add("checkpoint", what, &|p| p.note.text = change.text());
    }
}

/// Members of the JSON files.
fn members(subject: &Subject, numbers: &mut Numbers, all: &mut Vec<Mutant>) {
    let other = |numbers: &mut Numbers| json!(hex_encode(&numbers.bytes::<32>()));
    let salt = json!(hex_encode(&numbers.bytes::<16>()));
    let changes: Vec<(&str, &str, &str, Value)> = vec![
        (
            "bundle.json",
            "/openings/request/digest",
            "another request",
            other(numbers),
        ),
        (
            "bundle.json",
            "/openings/request/salt",
            "another salt",
            salt.clone(),
        ),
        (
            "bundle.json",
            "/openings/response/digest",
            "another answer",
            other(numbers),
        ),
        (
            "bundle.json",
            "/openings/response/salt",
            "another salt",
            salt,
        ),
        (
            "bundle.json",
            "/openings/inputs/digest",
            "other tensors",
            other(numbers),
        ),
        (
            "bundle.json",
            "/openings/outputs/digest",
            "other tensors",
            other(numbers),
        ),
        (
            "bundle.json",
            "/catalog/epoch",
            "an epoch later",
            json!(1_000_000),
        ),
        (
            "bundle.json",
            "/catalog/models/0/name",
            "the model's name",
            json!("another"),
        ),
        (
            "bundle.json",
            "/catalog/models/0/model_digest",
            "another model",
            other(numbers),
        ),
        (
            "bundle.json",
            "/catalog/keyset_digest",
            "another keyset",
            other(numbers),
        ),
        ("expect.json", "/method", "PUT", json!("PUT")),
        (
            "expect.json",
            "/target",
            "another model",
            json!("/v2/models/another/infer"),
        ),
        (
            "expect.json",
            "/header_length",
            "another length",
            json!(4_242),
        ),
        ("expect.json", "/nonce", "another nonce", other(numbers)),
        (
            "expect.json",
            "/request_sha256",
            "another request",
            other(numbers),
        ),
        (
            "expect.json",
            "/require",
            "what nobody can give",
            json!(["proven", "signed"]),
        ),
        ("response.json", "/status", "another status", json!(299)),
        (
            "response.json",
            "/header_length",
            "another length",
            json!(4_242),
        ),
    ];
    for (file, pointer, what, value) in changes {
        let change = |json: &mut Value| {
            *json.pointer_mut(pointer)? = value.clone();
            Some(())
        };
        let what = format!("{pointer}: {what}");
        if let Some(files) = edited(subject, file, change) {
            all.push(Mutant::new(Kind::Field, file, what, files));
        }
    }
}

/// A JSON file with a change, written canonically.
pub fn edited(
    subject: &Subject,
    name: &str,
    change: impl FnOnce(&mut Value) -> Option<()>,
) -> Option<Files> {
    let file = subject.file(name)?;
    let mut json: Value = serde_json::from_slice(&file.bytes).ok()?;
    change(&mut json)?;
    let text = format!("{json}\n");
    Some(Files::from([(file.path.clone(), text.into_bytes())]))
}

fn session(subject: &Subject, numbers: &mut Numbers, all: &mut Vec<Mutant>) {
    let Some((_, record)) = &subject.session else {
        return;
    };
    let (nonce, exporter, key) = (numbers.bytes(), numbers.bytes(), digest(numbers));
    let (before, after) = (record.keyset().not_before, record.keyset().not_after);
    let mut add = |what: &str, change: &dyn Fn(&mut ConnectionRecord)| {
        let files = subject.with_session(change);
        all.extend(files.map(|files| Mutant::new(Kind::Field, "session.json", what, files)));
    };
    add("nonce: another", &|r| *RecordParts::of(r).nonce = nonce);
    match record {
        ConnectionRecord::Tls(own) => {
            if own.exporter.is_some() {
                add("exporter: another connection", &|r| {
                    if let ConnectionRecord::Tls(r) = r {
                        r.exporter = Some(exporter);
                    }
                });
            }
            add("tls_spki_sha256: another key", &|r| {
                if let ConnectionRecord::Tls(r) = r {
                    r.tls_spki_sha256 = key;
                }
            });
        }
        ConnectionRecord::Ohttp(_) => {
            add("ohttp_keys_sha256: another key", &|r| {
                if let ConnectionRecord::Ohttp(r) = r {
                    r.ohttp_keys_sha256 = key;
                }
            });
            add("keyset: no key for sealed requests", &|r| {
                RecordParts::of(r).keyset.ohttp_keys = None;
            });
            add("keyset: another key for sealed requests", &|r| {
                let keys = RecordParts::of(r).keyset.ohttp_keys.as_mut();
                // Within the public key.
                let byte = keys.and_then(|keys| keys.0.get_mut(8));
                byte.into_iter().for_each(|byte| *byte ^= 1);
            });
        }
    }
    let early = before.saturating_sub(86_400);
    add("opened_at: before the keyset's life", &|r| {
        *RecordParts::of(r).opened_at = early;
    });
    add("opened_at: after the keyset's life", &|r| {
        *RecordParts::of(r).opened_at = after + 1;
    });
    add("keyset: another name", &|r| {
        RecordParts::of(r).keyset.name.push('x');
    });
}

/// What evidence says of itself, and what a report says.
fn evidence(subject: &Subject, numbers: &mut Numbers, all: &mut Vec<Mutant>) {
    for (slot, name, evidence) in subject.all_evidence() {
        for (field, range) in quote::fields(evidence.tee, &evidence.quote) {
            let mut quote = evidence.quote.clone();
            let changed = quote
                .get_mut(range)
                .and_then(|bytes| quote::set_other(field, bytes, numbers));
            if changed.is_none() {
                continue;
            }
            let files = subject.with_evidence(
                slot,
                Evidence {
                    quote,
                    ..evidence.clone()
                },
            );
            let what = format!("{field}: another value");
            all.extend(files.map(|files| Mutant::new(Kind::Field, &*name, what, files)));
        }
        // Evidence by itself says what it likes of its purpose and nonce.
        if subject.evidence.is_some() {
            continue;
        }
        let nonce = Some(numbers.bytes::<32>().to_vec());
        let files = subject.with_evidence(
            slot,
            Evidence {
                nonce,
                ..evidence.clone()
            },
        );
        all.extend(files.map(|f| Mutant::new(Kind::Field, &*name, "nonce: another", f)));
        for purpose in [
            Purpose::Boot,
            Purpose::Checkpoint,
            Purpose::Receipt,
            Purpose::Session,
        ] {
            if evidence.purpose == Some(purpose) {
                continue;
            }
            let labelled = Evidence {
                purpose: Some(purpose),
                ..evidence.clone()
            };
            let files = subject.with_evidence(slot, labelled);
            let what = format!("purpose: {}", purpose.name());
            all.extend(files.map(|files| Mutant::new(Kind::Field, &*name, what, files)));
        }
    }
}
