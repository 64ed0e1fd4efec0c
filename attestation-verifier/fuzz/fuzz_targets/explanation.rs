//! Verdict files, to be explained.
#![no_main]

use attestation_verifier::explain::Explanation;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(explanation) = Explanation::of_file(input) {
        let _ = explanation.words();
    }
});
