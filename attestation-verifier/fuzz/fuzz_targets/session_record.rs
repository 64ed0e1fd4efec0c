//! What a caller keeps beside an answer: `session.json`, `expect.json`, `response.json`.
#![no_main]

use attestation_verifier::exchange::{Expect, ResponseInfo, SessionRecord};
use attestation_verifier::ohttp::ConnectionRecord;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(record) = ConnectionRecord::parse(input) {
        let file = record.to_file().expect("a record that was read");
        assert_eq!(ConnectionRecord::parse(&file).as_ref(), Ok(&record));
    }
    if let Ok(record) = SessionRecord::parse(input) {
        // Parts of collateral may be left out, and are written as empty.
        let file = record.to_file().expect("what was read can be written");
        assert_eq!(SessionRecord::parse(&file).as_ref(), Ok(&record));
    }
    if let Ok(expect) = Expect::parse(input) {
        assert_eq!(expect.to_file().as_deref(), Ok(input));
    }
    if let Ok(info) = ResponseInfo::parse(input) {
        assert_eq!(info.to_file().as_deref(), Ok(input));
    }
});
