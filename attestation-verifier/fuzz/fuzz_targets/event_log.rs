//! Event logs of TDX, replayed into registers. The first byte is the form: `c` CCEL, else dstack's.
#![no_main]

use attestation_verifier::events::{CCEL, DSTACK, replay};
use libfuzzer_sys::fuzz_target;
use touchstone_formats::EventLog;
use touchstone_formats::text::Base64Bytes;

fuzz_target!(|input: &[u8]| {
    let Some((form, data)) = input.split_first() else {
        return;
    };
    let format = if *form == b'c' { CCEL } else { DSTACK };
    let log = EventLog {
        format: format.to_owned(),
        data: Base64Bytes(data.to_vec()),
    };
    let _ = replay(&log);
});
