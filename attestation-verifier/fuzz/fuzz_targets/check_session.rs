//! The answer of a session, and the record that is kept of one, judged.
#![no_main]

use attestation_verifier::exchange::SessionRecord;
use attestation_verifier::{Connection, check_session, check_session_record};
use libfuzzer_sys::fuzz_target;
use touchstone_formats::Digest;
use touchstone_fuzz::{AT, policy, roots};

fuzz_target!(|input: &[u8]| {
    let connection = Connection {
        nonce: [1; 32],
        exporter: [2; 32],
        tls_spki_sha256: Digest([3; 32]),
    };
    let record = SessionRecord::parse(input);
    for roots in roots() {
        let answer = check_session(input, &connection, None, policy(), roots, AT, false);
        assert_ne!(answer.verdict.exit(), 0);
        if let Ok(record) = &record {
            let kept = check_session_record(record, policy(), roots, AT, false);
            assert_ne!(kept.verdict.exit(), 0);
        }
    }
});
