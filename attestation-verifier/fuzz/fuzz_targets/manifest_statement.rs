//! The signed text of a manifest, which no fuzzer finds behind base64: read, or refused, and written back as it was.
#![no_main]

use attestation_verifier::manifest::{Reported, Statement, diff};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(statement) = Statement::parse(input) else {
        return;
    };
    assert_eq!(statement.payload(), input);
    let manifest = statement.manifest();
    let again = Statement::new(manifest.clone()).expect("what was read can be written");
    assert_eq!(again.payload(), input);
    assert_eq!(diff(manifest, manifest), []);
    let _ = manifest.entries(Reported::Snp(&[0xa1; 48])).count();
});
