//! Receipts (§4): each rule beside its twin. Every receipt here is signed, so that it is the form
//! that is refused and not the signature.

mod common;

use common::{claims, cose, keyset};
use ring::signature::Ed25519KeyPair;
use touchstone_formats::receipt::{PROFILE, PaymentClaim, kid_of};
use touchstone_formats::{Digest, FormatError, Guarantee, GuaranteeSet, Receipt, ReceiptSigner};

/// A CBOR head in its shortest form.
fn head(major: u8, n: u64) -> Vec<u8> {
    let width = match n {
        0..=23 => return vec![major << 5 | n as u8],
        24..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xffff_ffff => 4,
        _ => 8,
    };
    long_head(major, n, width)
}

/// A head whose argument takes this many bytes.
fn long_head(major: u8, n: u64, width: usize) -> Vec<u8> {
    let info = 24 + width.trailing_zeros() as u8;
    [&[major << 5 | info], &n.to_be_bytes()[8 - width..]].concat()
}

fn uint(n: u64) -> Vec<u8> {
    head(0, n)
}

fn int(n: i64) -> Vec<u8> {
    if n < 0 {
        head(1, !n as u64)
    } else {
        uint(n as u64)
    }
}

fn bstr(bytes: &[u8]) -> Vec<u8> {
    [head(2, bytes.len() as u64), bytes.to_vec()].concat()
}

fn tstr(text: &str) -> Vec<u8> {
    [head(3, text.len() as u64), text.as_bytes().to_vec()].concat()
}

fn array(items: &[Vec<u8>]) -> Vec<u8> {
    [head(4, items.len() as u64), items.concat()].concat()
}

fn names(names: &[&str]) -> Vec<u8> {
    array(&names.iter().map(|name| tstr(name)).collect::<Vec<_>>())
}

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// The vector's claims, key and value, each encoded.
fn entries() -> Entries {
    let c = claims();
    let digest = |digest: Digest| bstr(&digest.0);
    vec![
        (int(1), tstr(&c.iss)),
        (int(6), uint(c.iat)),
        (int(7), bstr(&c.cti)),
        (int(10), bstr(&c.nonce.unwrap())),
        (int(265), tstr(PROFILE)),
        (int(-65539), digest(c.model_digest.unwrap())),
        (int(-65545), uint(c.sequence)),
        (int(-65600), digest(c.config_digest.unwrap())),
        (int(-65601), digest(c.keyset_digest)),
        (int(-65602), names(&["logged", "signed"])),
        (
            int(-65603),
            array(&[uint(c.catalog.0), digest(c.catalog.1)]),
        ),
        (int(-65604), digest(c.request)),
        (int(-65605), digest(c.response)),
        (int(-65606), digest(c.inputs.unwrap())),
        (int(-65607), digest(c.outputs.unwrap())),
        (int(-65608), uint(0)),
    ]
}

fn payload(entries: &Entries) -> Vec<u8> {
    let mut out = head(5, entries.len() as u64);
    for (key, value) in entries {
        out.extend_from_slice(key);
        out.extend_from_slice(value);
    }
    out
}

fn seed() -> [u8; 32] {
    common::array(&common::vectors(), "/keys/receipt_seed")
}

fn key() -> [u8; 32] {
    keyset().receipt_key.0
}

fn protected(kid: &[u8]) -> Vec<u8> {
    [vec![0xa2, 0x01, 0x32, 0x04], bstr(kid)].concat()
}

/// The four items of a COSE_Sign1, encoded, with a true signature.
fn items(protected: &[u8], payload: &[u8]) -> [Vec<u8>; 4] {
    let signer = Ed25519KeyPair::from_seed_unchecked(&seed()).unwrap();
    let tbs = array(&[
        tstr("Signature1"),
        bstr(protected),
        bstr(&[]),
        bstr(payload),
    ]);
    let signature = signer.sign(&tbs);
    [
        bstr(protected),
        head(5, 0),
        bstr(payload),
        bstr(signature.as_ref()),
    ]
}

fn sign(payload: &[u8]) -> Vec<u8> {
    let items = items(&protected(&kid_of(&key())), payload);
    [head(6, 18), array(&items)].concat()
}

/// The vector's receipt with one change to its claims, signed again.
fn changed(change: impl FnOnce(&mut Entries)) -> Vec<u8> {
    let mut entries = entries();
    change(&mut entries);
    sign(&payload(&entries))
}

fn set(label: i64, value: Vec<u8>) -> Vec<u8> {
    changed(|entries| {
        let key = int(label);
        entries.iter_mut().find(|entry| entry.0 == key).unwrap().1 = value;
    })
}

fn without(labels: &[i64]) -> Vec<u8> {
    changed(|entries| entries.retain(|entry| labels.iter().all(|label| entry.0 != int(*label))))
}

fn accept(cose: &[u8]) -> Receipt {
    let receipt = Receipt::parse(cose).unwrap();
    assert!(receipt.verify(&key()));
    receipt
}

#[track_caller]
fn refuse(cose: &[u8], message: &str) {
    let error = Receipt::parse(cose).unwrap_err().to_string();
    assert!(error.contains(message), "{error}");
}

#[test]
fn the_twin() {
    assert_eq!(sign(&payload(&entries())), cose());
    accept(&cose());
}

#[test]
fn the_envelope() {
    let good = items(&protected(&kid_of(&key())), &payload(&entries()));
    let tagged = |tag: u64, items: &[Vec<u8>]| [head(6, tag), array(items)].concat();
    accept(&tagged(18, &good));
    refuse(&tagged(17, &good), "receipt tag");
    refuse(&array(&good), "a tag");
    refuse(&tagged(18, &good[..3]), "3 items");
    refuse(&[tagged(18, &good), vec![0]].concat(), "1 bytes more");
    refuse(
        &[head(6, 18), vec![0x9f], good.concat(), vec![0xff]].concat(),
        "definite length",
    );
    refuse(
        &[long_head(6, 18, 1), array(&good)].concat(),
        "shortest form",
    );
    refuse(
        &[head(6, 18), long_head(4, 4, 1), good.concat()].concat(),
        "shortest form",
    );

    let mut unprotected = good.clone();
    unprotected[1] = [head(5, 1), int(4), bstr(b"12345678")].concat();
    refuse(&tagged(18, &unprotected), "unprotected header");
    let mut detached = good.clone();
    detached[2] = vec![0xf6];
    refuse(&tagged(18, &detached), "a byte string");
    let mut short = good.clone();
    short[3] = bstr(&[0; 63]);
    refuse(&tagged(18, &short), "63 bytes");

    let kid = kid_of(&key());
    for (header, message) in [
        (protected(&kid[..7]), "12 bytes"),
        ([vec![0xa1, 0x01, 0x32]].concat(), "3 bytes"),
        // EdDSA, -8, which names no curve.
        (
            [vec![0xa2, 0x01, 0x27, 0x04], bstr(&kid)].concat(),
            "protected header",
        ),
        // The same members in another order.
        (
            [vec![0xa2, 0x04], bstr(&kid), vec![0x01, 0x32]].concat(),
            "protected header",
        ),
    ] {
        let items = items(&header, &payload(&entries()));
        refuse(&tagged(18, &items), message);
    }
    // The hint must be the key's own, though nothing is looked up by it.
    let other = tagged(18, &items(&protected(b"12345678"), &payload(&entries())));
    let receipt = Receipt::parse(&other).unwrap();
    assert_eq!(receipt.kid(), *b"12345678");
    assert!(!receipt.verify(&key()));
}

#[test]
fn deterministic_encoding() {
    let good = payload(&entries());
    accept(&sign(&good));
    // One claim later or twice.
    refuse(
        &changed(|entries| entries.swap(1, 2)),
        "labels in bytewise order, each once",
    );
    refuse(
        &changed(|entries| entries.insert(1, entries[0].clone())),
        "labels in bytewise order, each once",
    );
    refuse(
        &changed(|entries| entries.swap(5, 6)),
        "labels in bytewise order, each once",
    );
    // Longer forms of the same numbers.
    refuse(
        &changed(|entries| entries[0].0 = long_head(0, 1, 1)),
        "shortest form",
    );
    refuse(
        &changed(|entries| entries[4].0 = long_head(0, 265, 4)),
        "shortest form",
    );
    refuse(
        &changed(|entries| entries[5].0 = long_head(1, 65538, 8)),
        "shortest form",
    );
    refuse(&set(6, long_head(0, claims().iat, 8)), "shortest form");
    refuse(&set(-65608, long_head(0, 0, 1)), "shortest form");
    refuse(
        &set(7, [long_head(2, 16, 1), vec![0; 16]].concat()),
        "shortest form",
    );
    // Indefinite lengths.
    refuse(
        &sign(&[vec![0xbf], good[1..].to_vec(), vec![0xff]].concat()),
        "definite length",
    );
    refuse(
        &set(
            -65602,
            [vec![0x9f], tstr("logged"), tstr("signed"), vec![0xff]].concat(),
        ),
        "definite length",
    );
    refuse(
        &set(1, [vec![0x7f], tstr(&claims().iss), vec![0xff]].concat()),
        "definite length",
    );
    refuse(
        &set(7, [vec![0x5f], bstr(&[0; 16]), vec![0xff]].concat()),
        "definite length",
    );
    // Reserved additional information.
    for info in 28..=30 {
        refuse(&set(6, vec![info]), "definite length");
    }
    // More or fewer pairs than the head says.
    refuse(
        &sign(&[head(5, 15), good[1..].to_vec()].concat()),
        "bytes more",
    );
    refuse(
        &sign(&[head(5, 17), good[1..].to_vec()].concat()),
        "to the end",
    );
    refuse(&sign(&[good.clone(), vec![0]].concat()), "1 bytes more");
    // A map of more pairs than memory holds is refused at its first missing byte.
    refuse(
        &sign(&[head(5, u64::MAX), good[1..].to_vec()].concat()),
        "to the end",
    );
    refuse(&set(-65602, head(4, u64::MAX)), "a text string");
    refuse(&set(1, head(3, u64::MAX)), "to the end");
}

#[test]
fn types_and_bounds_of_claims() {
    for (label, value, message) in [
        (1, bstr(b"enclave.example"), "a text string"),
        (1, tstr(&"a".repeat(257)), "iss: 257"),
        (1, [head(3, 2), vec![0xc3, 0x28]].concat(), "UTF-8"),
        (6, int(-1), "an unsigned integer"),
        (6, vec![0xf9, 0, 0], "an unsigned integer"),
        (6, [vec![0xc1], uint(5)].concat(), "an unsigned integer"),
        (6, uint(1 << 53), "2^53"),
        (7, bstr(&[0; 15]), "15 bytes"),
        (7, bstr(&[0; 17]), "17 bytes"),
        (10, bstr(&[0; 7]), "8 to 64"),
        (10, bstr(&[0; 65]), "8 to 64"),
        (10, vec![0xf6], "a byte string"),
        (
            265,
            tstr("urn:uuid:1b847d3a-7d20-4241-828d-5fc032fd52d9"),
            "profile",
        ),
        (-65539, bstr(&[0; 31]), "31 bytes"),
        (-65545, int(-1), "an unsigned integer"),
        (-65601, tstr("d4"), "a byte string"),
        (-65602, names(&[]), "empty set"),
        (-65602, names(&["logged"]), "closed under implication"),
        (-65602, names(&["quoted"]), "closed under implication"),
        (-65602, names(&["signed", "logged"]), "sorted"),
        (-65602, names(&["logged", "logged", "signed"]), "sorted"),
        (-65602, names(&["logged", "signed", "trusted"]), "trusted"),
        (-65602, names(&["Logged", "signed"]), "Logged"),
        (-65602, tstr("signed"), "an array"),
        (-65603, array(&[uint(0)]), "1 items"),
        (
            -65603,
            array(&[uint(0), bstr(&[0; 32]), uint(0)]),
            "3 items",
        ),
        (
            -65603,
            array(&[bstr(&[0; 32]), uint(0)]),
            "an unsigned integer",
        ),
        (-65608, uint(65536), "status"),
        (-65608, vec![0xf4], "an unsigned integer"),
    ] {
        refuse(&set(label, value), message);
    }
    for (label, value) in [
        (1, tstr(&"a".repeat(256))),
        (1, tstr("")),
        (6, uint((1 << 53) - 1)),
        (10, bstr(&[0; 8])),
        (10, bstr(&[0; 64])),
        (-65545, uint(u64::MAX)),
        (-65602, names(&["signed"])),
        (-65602, names(&["logged", "quoted", "signed"])),
        (
            -65602,
            names(&["logged", "proven", "quoted", "recomputed", "signed"]),
        ),
        (-65602, names(&["recomputed"])),
        (-65603, array(&[uint(u64::MAX), bstr(&[0; 32])])),
    ] {
        accept(&set(label, value));
    }
    // Labels that version 1 does not know.
    for label in [0, 2, 11, 266, -1, -65538, -65610, i64::MIN] {
        let unknown = changed(|entries| {
            entries.push((int(label), uint(0)));
            entries.sort();
        });
        refuse(&unknown, "a claim of version 1");
    }
    let mut text = entries();
    text.push((tstr("iss"), tstr("x")));
    refuse(&sign(&payload(&text)), "an integer label");
    refuse(
        &changed(|entries| entries.push((head(1, u64::MAX), uint(0)))),
        "a label of version 1",
    );
}

#[test]
fn claims_that_must_be_there() {
    for label in [
        1, 6, 7, 265, -65545, -65601, -65602, -65603, -65604, -65605, -65608,
    ] {
        refuse(&without(&[label]), "no such claim");
    }
    assert_eq!(accept(&without(&[10])).claims.nonce, None);
}

#[test]
fn answers_and_refusals() {
    let status = |status: u64, labels: &[i64]| {
        changed(|entries| {
            entries.retain(|entry| labels.iter().all(|label| entry.0 != int(*label)));
            entries.last_mut().unwrap().1 = uint(status);
        })
    };
    let (tensors, digests) = ([-65606, -65607], [-65539, -65600]);
    let both = [tensors, digests].concat();
    accept(&status(0, &[]));
    refuse(&status(0, &tensors), "both in an answer");
    refuse(&status(0, &[-65606]), "both in an answer");
    refuse(&status(0, &[-65607]), "both in an answer");
    refuse(&status(0, &digests), "both in an answer");
    refuse(&status(0, &[-65539]), "both in an answer");
    refuse(&status(0, &[-65600]), "both in an answer");

    for code in [400, 422, 503, 599] {
        assert_eq!(accept(&status(code, &tensors)).claims.status, code as u16);
        assert_eq!(accept(&status(code, &both)).claims.model_digest, None);
    }
    refuse(&status(422, &[]), "neither in a refusal");
    refuse(&status(422, &[-65606]), "neither in a refusal");
    refuse(&status(422, &[-65606, -65607, -65539]), "both or neither");
    refuse(&status(422, &[-65606, -65607, -65600]), "both or neither");
    for code in [1, 200, 399, 600, 65535] {
        refuse(&status(code, &tensors), "400 to 599");
    }
}

fn payment() -> PaymentClaim {
    PaymentClaim {
        mode: "bound".into(),
        payer: "0x01".into(),
        network: "eip155:8453".into(),
        asset: "0x02".into(),
        pay_to: "0x03".into(),
        amount: "1000".into(),
        nonce: [4; 32],
        payload: Digest([5; 32]),
    }
}

#[test]
fn payment_claim() {
    let texts = ["bound", "0x01", "eip155:8453", "0x02", "0x03", "1000"];
    let mut items: Vec<_> = texts.iter().map(|text| tstr(text)).collect();
    items.extend([bstr(&[4; 32]), bstr(&[5; 32])]);
    let with = |items: &[Vec<u8>]| changed(|entries| entries.push((int(-65609), array(items))));
    let receipt = accept(&with(&items));
    assert_eq!(receipt.claims.payment, Some(payment()));
    // Our signer writes the same bytes.
    let mut claims = claims();
    claims.payment = Some(payment());
    assert_eq!(common::receipt_signer().sign(&claims), with(&items));

    refuse(&with(&items[..7]), "7 items");
    refuse(&with(&[items.clone(), vec![uint(0)]].concat()), "9 items");
    for at in 0..8 {
        let mut wrong = items.clone();
        wrong[at] = uint(0);
        refuse(&with(&wrong), "string");
    }
    let mut long = items.clone();
    long[3] = tstr(&"a".repeat(257));
    refuse(&with(&long), "payment asset: 257");
}

#[test]
fn size() {
    // No valid receipt reaches the bound; what passes it is not read at all.
    let padded = |length: usize| [cose(), vec![0; length - cose().len()]].concat();
    assert!(matches!(
        Receipt::parse(&padded(4097)),
        Err(FormatError::TooLong {
            field: "receipt",
            found: 4097,
            limit: 4096
        })
    ));
    refuse(&padded(4096), "bytes more");
    let mut largest = claims();
    largest.iss = "a".repeat(256);
    largest.nonce = Some(vec![1; 64]);
    largest.guarantees = GuaranteeSet::close(Guarantee::ALL).unwrap();
    let text = "b".repeat(256);
    largest.payment = Some(PaymentClaim {
        mode: text.clone(),
        payer: text.clone(),
        network: text.clone(),
        asset: text.clone(),
        pay_to: text.clone(),
        amount: text,
        ..payment()
    });
    let cose = common::receipt_signer().sign(&largest);
    assert!(cose.len() < 4096);
    assert_eq!(accept(&cose).claims, largest);
}

#[test]
fn another_key_does_not_verify() {
    let other = ReceiptSigner::from_seed(&[9; 32]).unwrap();
    let receipt = accept(&cose());
    assert!(!receipt.verify(&other.public_key()));
    let theirs = Receipt::parse(&other.sign(&claims())).unwrap();
    assert!(theirs.verify(&other.public_key()));
    assert!(!theirs.verify(&key()));
    assert_eq!(theirs.claims, receipt.claims);
}
