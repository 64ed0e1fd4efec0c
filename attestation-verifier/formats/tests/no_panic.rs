//! No parser panics, whatever the bytes: random ones, and known good ones with random damage.

mod common;

use proptest::prelude::*;
use touchstone_formats::evidence::quote_report_data;
use touchstone_formats::headers::{
    OpeningSalts, TouchstoneRequest, TouchstoneResponse, parse_prefer_wait,
};
use touchstone_formats::quote_agent::{Answer, Request};
use touchstone_formats::{
    Attachment, Bundle, Catalog, Checkpoint, CollateralFile, Digest, Evidence, GuaranteeSet,
    Keyset, LogKey, ModelManifest, Purpose, Receipt, SessionAnswer, SessionRequest, SignedNote,
    Tee, TlogProof, commitment::Datatype, jcs, text,
};

/// Every function that reads what others wrote.
fn read_all(bytes: &[u8]) {
    let _ = jcs::check(bytes);
    let _ = jcs::check_file(bytes);
    let _ = jcs::from_slice::<serde_json::Value>(bytes);
    let _ = Bundle::parse(bytes);
    let _ = Evidence::parse(bytes);
    let _ = SessionRequest::parse(bytes);
    let _ = SessionAnswer::parse(bytes);
    let _ = CollateralFile::parse(bytes);
    let _ = Keyset::parse(bytes);
    let _ = Catalog::parse(bytes);
    let _ = ModelManifest::parse(bytes);
    let _ = Request::parse(bytes);
    let _ = Answer::parse(bytes);
    if let Ok(receipt) = Receipt::parse(bytes) {
        let _ = receipt.verify(&[7; 32]);
        let _ = receipt.id();
    }
    for tee in [Tee::SevSnp, Tee::Tdx] {
        let _ = quote_report_data(tee, bytes);
    }
    let text = String::from_utf8_lossy(bytes);
    if let Ok(proof) = TlogProof::parse(&text) {
        let _ = proof.note.verify(&common::keyset().log);
    }
    let _ = SignedNote::parse(&text);
    let _ = Checkpoint::parse(&text);
    let _ = text.parse::<LogKey>();
    let _ = Attachment::parse(&text);
    let _ = TouchstoneRequest::parse(&text);
    let _ = TouchstoneResponse::parse(&text);
    let _ = OpeningSalts::parse(&text);
    let _ = parse_prefer_wait(&text);
    let _ = GuaranteeSet::parse_words(&text);
    let _ = text.parse::<Datatype>();
    let _ = text::hex_decode(&text);
    let _ = text::base64_decode(&text);
    let _ = Digest::from_hex(&text);
}

fn seeds() -> Vec<Vec<u8>> {
    let v = common::vectors();
    let mut full = common::bundle();
    full.view = Some(r#"{"a":[true,-7,"\u0001é"]}"#.into());
    full.attachments = vec![Attachment::parse(r#"{"type":"x"}"#).unwrap()];
    vec![
        full.to_file(),
        common::evidence(Purpose::Boot).to_file(),
        SessionRequest { nonce: [7; 32] }.to_file(),
        common::session_answer().to_file(),
        common::collateral_file().to_file(),
        common::cose(),
        common::keyset().to_jcs(),
        common::catalog().to_jcs(),
        common::text(&v, "/log/proof_2").into_bytes(),
        common::text(&v, "/log/note").into_bytes(),
        common::text(&v, "/log/vkey").into_bytes(),
        b"require=(logged signed), nonce=:BwcHBwcHBwc=:".to_vec(),
        b"id=\"abababababababababababababababab\", state=sealed".to_vec(),
        Request::new([7; 64]).to_line(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        read_all(&bytes);
    }

    #[test]
    fn random_text(text in "\\PC{0,200}") {
        read_all(text.as_bytes());
    }

    /// Characters that the formats are made of.
    #[test]
    fn near_text(text in r#"[\{\}\[\]":,0-9a-ftruenl\\ +=;()\n.—-]{0,120}"#) {
        read_all(text.as_bytes());
    }

    #[test]
    fn damaged(
        seed in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0_u8..4), 1..6),
    ) {
        let seeds = seeds();
        let mut bytes = seeds[seed.index(seeds.len())].clone();
        for (at, byte, kind) in damage {
            let at = at.index(bytes.len().max(1));
            match kind {
                0 if at < bytes.len() => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 if at < bytes.len() => { bytes.remove(at); }
                _ => bytes.truncate(at),
            }
        }
        read_all(&bytes);
    }
}

#[test]
fn good_ones_and_their_truncations() {
    for seed in seeds() {
        read_all(&seed);
        for length in (0..seed.len()).step_by(7) {
            read_all(&seed[..length]);
        }
    }
}

#[test]
fn large_nonsense_is_refused_soon() {
    // What is as large as allowed, or larger, and could cost more than its size.
    for (unit, count) in [
        ("[", 4 << 20),
        ("{\"a\":", 800_000),
        ("[],", 1 << 20),
        ("\"", 4 << 20),
        ("\\u0000", 600_000),
        ("9", 4 << 20),
        ("\n", 1 << 20),
        ("\u{2014} a AAAAAAA=\n", 100_000),
        ("a, ", 1 << 20),
    ] {
        read_all(unit.repeat(count).as_bytes());
        read_all(format!("[{}", unit.repeat(count)).as_bytes());
    }
}
