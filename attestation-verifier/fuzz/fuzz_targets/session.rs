//! Session requests and answers (formats.md §10).
#![no_main]

use libfuzzer_sys::fuzz_target;
use touchstone_formats::{SessionAnswer, SessionRequest};

fuzz_target!(|input: &[u8]| {
    if let Ok(request) = SessionRequest::parse(input) {
        assert_eq!(
            SessionRequest::parse(&request.to_file()).as_ref(),
            Ok(&request)
        );
    }
    if let Ok(answer) = SessionAnswer::parse(input) {
        assert_eq!(
            SessionAnswer::parse(&answer.to_file()).as_ref(),
            Ok(&answer)
        );
    }
});
