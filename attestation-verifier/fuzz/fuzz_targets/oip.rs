//! Answers of the Open Inference Protocol: JSON, and binary tensors after it.
//!
//! The first two bytes are the header's length; 65535: none.
#![no_main]

use attestation_verifier::exchange::tensors;
use libfuzzer_sys::fuzz_target;
use touchstone_client::oip;

fuzz_target!(|input: &[u8]| {
    let Some((length, body)) = input.split_first_chunk::<2>() else {
        return;
    };
    let length = u16::from_le_bytes(*length);
    if let Ok(outputs) = oip::outputs(body, (length != u16::MAX).then_some(length.into())) {
        let _ = tensors(&outputs);
    }
});
