//! Requests and answers in Binary HTTP (RFC 9292), as they are after their seal is off.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use touchstone_ohttp::bhttp::{Answer, Bounds, Request};

const BOUNDS: Bounds = Bounds {
    fields: 100,
    field_bytes: 16 << 10,
};

fuzz_target!(|input: &[u8]| {
    let message = Bytes::copy_from_slice(input);
    if let Ok(request) = Request::decode(message.clone(), BOUNDS) {
        assert!(request.fields.len() <= BOUNDS.fields && request.content.len() <= input.len());
        // Written anew its lengths are in their shortest form, and it means the same.
        let again = Request::decode(request.encode().into(), WIDE);
        assert_eq!(again.as_ref(), Ok(&request));
    }
    if let Ok(answer) = Answer::decode(message, BOUNDS) {
        assert!(answer.fields.len() <= BOUNDS.fields && answer.content.len() <= input.len());
        let fields = answer
            .fields
            .iter()
            .map(|(name, value)| (&name[..], &value[..]));
        let file = Answer::encode(answer.status, fields, &answer.content);
        assert_eq!(Answer::decode(file.into(), WIDE).as_ref(), Ok(&answer));
    }
});

/// Of known length a message's bound is on its section, lengths included.
const WIDE: Bounds = Bounds {
    fields: 100,
    field_bytes: 32 << 10,
};
