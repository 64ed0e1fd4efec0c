//! Receipts (formats.md §5): COSE_Sign1 over canonical CBOR.
#![no_main]

use libfuzzer_sys::fuzz_target;
use touchstone_formats::Receipt;

fuzz_target!(|input: &[u8]| {
    if let Ok(receipt) = Receipt::parse(input) {
        assert_eq!(receipt.cose(), input);
        assert_eq!(receipt.digest(), touchstone_formats::Digest::of(input));
        let _ = (receipt.id(), receipt.kid(), receipt.verify(&[1; 32]));
    }
});
