//! Bundles (formats.md §6): what is read is written so that it reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use touchstone_formats::Bundle;

fuzz_target!(|input: &[u8]| {
    if let Ok(bundle) = Bundle::parse(input) {
        // Parts of collateral may be left out, and are written as empty.
        assert_eq!(Bundle::parse(&bundle.to_file()).as_ref(), Ok(&bundle));
    }
});
