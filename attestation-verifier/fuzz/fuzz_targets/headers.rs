//! HTTP header fields (formats.md §9), and the words in them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use touchstone_formats::headers::{
    OpeningSalts, TouchstoneRequest, TouchstoneResponse, parse_prefer_wait,
};
use touchstone_formats::{Digest, Guarantee, GuaranteeSet};

fuzz_target!(|input: &str| {
    if let Ok(request) = TouchstoneRequest::parse(input) {
        assert_eq!(
            TouchstoneRequest::parse(&request.to_string()).as_ref(),
            Ok(&request)
        );
    }
    if let Ok(response) = TouchstoneResponse::parse(input) {
        assert_eq!(
            TouchstoneResponse::parse(&response.to_string()).as_ref(),
            Ok(&response)
        );
    }
    if let Ok(salts) = OpeningSalts::parse(input) {
        assert_eq!(OpeningSalts::parse(&salts.to_string()).as_ref(), Ok(&salts));
    }
    let _ = parse_prefer_wait(input);
    let _ = input.parse::<Guarantee>();
    let _ = input.parse::<Digest>();
    let _ = GuaranteeSet::parse_wire_words(input);
    let _ = GuaranteeSet::parse_words(input);
});
