//! What callers send to the host before anything else reads it (`host/src/relay/strict.rs`): however it is cut it is read the
//! same, and where another reader finds the end of a head, of a piece of a body or of a message, there it ends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use touchstone_fuzz::http::{Kind, read_alike};

fuzz_target!(|input: &[u8]| {
    if let Some((cut, input)) = input.split_first() {
        read_alike(Kind::Requests, *cut, input);
    }
});
