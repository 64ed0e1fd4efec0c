//! What enclaves answer, before the host passes it on (`host/src/relay/strict.rs`): however it is cut it is read the same,
//! where another reader finds the end of a part, there it ends, and an answer that does not say where it ends is none.
#![no_main]

use libfuzzer_sys::fuzz_target;
use touchstone_fuzz::http::{Kind, read_alike};

fuzz_target!(|input: &[u8]| {
    if let Some((cut, input)) = input.split_first() {
        let to_head = *cut >= 0x80;
        read_alike(Kind::Answers { to_head }, *cut, input);
    }
});
