//! The answer of a session, or boot evidence for a nonce, and the record that is kept of either, judged.
#![no_main]

use attestation_verifier::ohttp::ConnectionRecord;
use attestation_verifier::{
    Connection, check_ohttp, check_ohttp_record, check_session, check_session_record,
};
use libfuzzer_sys::fuzz_target;
use touchstone_formats::Digest;
use touchstone_fuzz::{AT, policy, roots};

fuzz_target!(|input: &[u8]| {
    let connection = Connection {
        nonce: [1; 32],
        exporter: [2; 32],
        tls_spki_sha256: Digest([3; 32]),
    };
    let record = ConnectionRecord::parse(input);
    for roots in roots() {
        let answer = check_session(input, &connection, None, policy(), roots, AT, false);
        assert_ne!(answer.verdict.exit(), 0);
        let key = check_ohttp(input, &connection.nonce, None, policy(), roots, AT, false);
        assert_ne!(key.verdict.exit(), 0);
        let kept = match &record {
            Ok(ConnectionRecord::Tls(record)) => {
                check_session_record(record, policy(), roots, AT, false)
            }
            Ok(ConnectionRecord::Ohttp(record)) => {
                check_ohttp_record(record, policy(), roots, AT, false)
            }
            Err(_) => continue,
        };
        assert_ne!(kept.verdict.exit(), 0);
    }
});
