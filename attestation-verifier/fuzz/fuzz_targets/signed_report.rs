//! Any report at all under a good signature: behind the signature check lies the appraisal, which else no fuzzer would reach.
#![no_main]

use attestation_verifier::authenticate::authenticate;
use attestation_verifier::parse::parse;
use attestation_verifier::{Checks, Roots, appraise};
use libfuzzer_sys::fuzz_target;
use touchstone_formats::Evidence;
use touchstone_fuzz::{AT, policy, roots, sign_report, snp_evidence};

fuzz_target!(|input: &[u8]| {
    let Some(quote) = sign_report(input) else {
        return;
    };
    let evidence = Evidence {
        quote,
        ..snp_evidence().clone()
    };
    for roots in roots() {
        let verdict = appraise(&evidence.to_file(), policy(), roots, None, AT);
        let _ = verdict.words();
        // Exit 6 says that all of it holds, under a root that was named: the strict template lets none of these through.
        if verdict.exit() == 6 {
            let policy = u64::from_le_bytes(input[8..16].try_into().expect("8 bytes"));
            assert_eq!(policy & (0b11 << 18), 0, "DEBUG or MIGRATE_MA");
            assert_ne!(policy & (1 << 17), 0, "the bit that must be one");
            assert_eq!(input[0x30..0x34], [0; 4], "VMPL");
        }
    }
    if let Some(parsed) = parse(&evidence, &mut Checks::new()) {
        let pinned = Roots::pinned();
        assert!(authenticate(parsed, &pinned, AT.time, &mut Checks::new()).is_none());
    }
});
