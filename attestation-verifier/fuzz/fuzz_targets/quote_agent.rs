//! The quote agent's protocol, and canonical JSON by itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use touchstone_formats::jcs;
use touchstone_formats::quote_agent::{Answer, Request};

fuzz_target!(|input: &[u8]| {
    if let Ok(request) = Request::parse(input) {
        assert_eq!(
            Request::parse(request.to_line().trim_ascii_end()).as_ref(),
            Ok(&request)
        );
    }
    if let Ok(answer) = Answer::parse(input) {
        assert_eq!(
            Answer::parse(answer.to_line().trim_ascii_end()).as_ref(),
            Ok(&answer)
        );
    }
    let _ = (jcs::check(input).is_ok(), jcs::check_file(input).is_ok());
});
