//! Bundles (formats.md §6): what is read is written back as the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use touchstone_formats::Bundle;

fuzz_target!(|input: &[u8]| {
    if let Ok(bundle) = Bundle::parse(input) {
        assert_eq!(bundle.to_file(), input);
    }
});
