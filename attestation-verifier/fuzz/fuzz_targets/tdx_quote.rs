//! TDX quotes, versions 4 and 5, and the certificates in them.
#![no_main]

use attestation_verifier::fields;
use attestation_verifier::parse::tdx::{PckExtensions, Quote};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(quote) = Quote::parse(input) {
        assert!(input.starts_with(&quote.signed));
        for certificate in quote.pck_chain.iter() {
            let _ = PckExtensions::read(certificate);
        }
        let _ = fields::tdx_quote(input);
    }
});
