//! JSON of the control protocol's batches (docs/control-protocol.md), written once and kept as bytes.
//!
//! Receipts and proofs are written by hand: they are most of what leaves the enclave, and are made of
//! base64 and digits alone, where nothing needs an escape. Everything else goes through serde.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::json;
use touchstone_formats::{catalog::Catalog, digest::Digest, evidence::Evidence};

/// A batch without its opening brace and number: `,"keyset_digest":…}`.
pub(super) struct BatchJson(pub(super) Bytes);

/// Appends one element of a seal's `receipts`, with a comma if it is not the first.
pub(super) fn receipt(out: &mut Vec<u8>, cose: &[u8], index: u64, proof: &[Digest]) {
    if !out.is_empty() {
        out.push(b',');
    }
    out.extend_from_slice(b"{\"receipt\":\"");
    base64(out, cose);
    out.extend_from_slice(b"\",\"index\":");
    out.extend_from_slice(index.to_string().as_bytes());
    out.extend_from_slice(b",\"proof\":[");
    for (at, hash) in proof.iter().enumerate() {
        out.extend_from_slice(if at == 0 { b"\"" } else { b",\"" });
        base64(out, &hash.0);
        out.push(b'"');
    }
    out.extend_from_slice(b"]}");
}

fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let at = out.len();
    out.resize(at + bytes.len().div_ceil(3) * 4, 0);
    // The slice has exactly the length that padded base64 has.
    let written = STANDARD.encode_slice(bytes, &mut out[at..]);
    debug_assert_eq!(written.ok(), Some(bytes.len().div_ceil(3) * 4));
}

/// A seal. `receipts` is what [`receipt`] wrote.
pub(super) fn seal(
    keyset: Digest,
    note: &str,
    evidence: &Evidence,
    catalogs: &[std::sync::Arc<Catalog>],
    receipts: &[u8],
    closed: bool,
) -> BatchJson {
    let mut out = Vec::with_capacity(receipts.len() + 4_096);
    let catalogs: Vec<&Catalog> = catalogs.iter().map(AsRef::as_ref).collect();
    write(&mut out, b",\"keyset_digest\":", &keyset);
    write(&mut out, b",\"checkpoint\":", &note);
    write(&mut out, b",\"evidence\":", evidence);
    write(&mut out, b",\"catalogs\":", &catalogs);
    out.extend_from_slice(b",\"receipts\":[");
    out.extend_from_slice(receipts);
    out.push(b']');
    write(&mut out, b",\"quotes\":", &json!([]));
    write(&mut out, b",\"closed\":", &closed);
    out.push(b'}');
    BatchJson(out.into())
}

/// A batch that carries the quote of one receipt.
pub(super) fn quote(keyset: Digest, id: &[u8; 16], evidence: &Evidence) -> BatchJson {
    let mut out = Vec::with_capacity(4_096);
    write(&mut out, b",\"keyset_digest\":", &keyset);
    out.extend_from_slice(
        b",\"checkpoint\":null,\"evidence\":null,\"catalogs\":[],\"receipts\":[]",
    );
    out.extend_from_slice(b",\"quotes\":[{\"id\":\"");
    out.extend_from_slice(hex::encode(id).as_bytes());
    write(&mut out, b"\",\"evidence\":", evidence);
    out.extend_from_slice(b"}],\"closed\":false}");
    BatchJson(out.into())
}

fn write<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, key: &[u8], value: &T) {
    out.extend_from_slice(key);
    // Our own plain types into memory: neither the writer nor the types can fail.
    if let Err(error) = serde_json::to_writer(out, value) {
        unreachable!("serialising into memory: {error}");
    }
}
