//! Manifest files, and what people write before they are signed.
#![no_main]

use attestation_verifier::manifest::{Accepted, Manifest, Measured, SignedFile, diff, lint};
use libfuzzer_sys::fuzz_target;
use touchstone_fuzz::AT;

fuzz_target!(|input: &[u8]| {
    if let Ok(file) = SignedFile::parse(input) {
        assert!(!file.lines().is_empty());
    }
    if let Ok(manifest) = Manifest::parse_draft(input) {
        let draft = manifest.to_draft().expect("what was read can be written");
        assert_eq!(
            Manifest::parse_draft(draft.as_bytes()).as_ref(),
            Ok(&manifest)
        );
        assert_eq!(diff(&manifest, &manifest), []);
        let _ = lint(&manifest, AT.time);
    }
    let _ = Measured::parse(input);
    if let Ok(state) = Accepted::parse(input) {
        assert_eq!(state.to_file().as_deref(), Ok(input));
    }
});
