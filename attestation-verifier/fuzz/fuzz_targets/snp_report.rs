//! SEV-SNP reports.
#![no_main]

use attestation_verifier::parse::snp::Report;
use attestation_verifier::{describe, fields};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(report) = Report::parse(input) {
        assert_eq!(Some(report.signed_part()), input.get(..0x2a0));
        assert!(describe::snp_report(input).is_ok());
        assert!(fields::snp_report(input).is_ok());
    }
});
