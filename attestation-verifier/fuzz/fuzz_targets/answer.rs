//! The form of an HTTP answer as the client reads it: status, headers, body. One line of text per header, an empty line, the
//! body. `form.rs` is the client's own; around it stands what it needs of the crate.
#![no_main]

use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;

mod http {
    pub use touchstone_client::Answer;
}
mod oip {
    pub use touchstone_client::oip::*;
}
mod question {
    use attestation_verifier::exchange::OwnedTensor;
    use bytes::Bytes;

    /// As the client's, without what is not looked at.
    pub struct Question {
        pub inputs: Option<Vec<OwnedTensor>>,
        pub body: Bytes,
    }

    impl Question {
        pub const METHOD: &'static str = "POST";
        pub fn target(&self) -> &str {
            "/v2/models/m/infer"
        }
        pub fn header_length(&self) -> Option<u64> {
            None
        }
        pub fn body(&self) -> &Bytes {
            &self.body
        }
    }
}
#[path = "../../client/src/form.rs"]
mod form;

/// The first line is the status, each further one up to the empty one a header.
fn answer(input: &[u8]) -> Option<http::Answer> {
    let mut headers = HeaderMap::new();
    let (status, mut rest) = line(input)?;
    let status = std::str::from_utf8(status).ok()?.parse().ok()?;
    loop {
        let (header, after) = line(rest)?;
        rest = after;
        if header.is_empty() {
            break;
        }
        let colon = header.iter().position(|byte| *byte == b':')?;
        let (name, value) = header.split_at(colon);
        headers.append(
            HeaderName::from_bytes(name).ok()?,
            HeaderValue::from_bytes(value[1..].trim_ascii()).ok()?,
        );
    }
    Some(http::Answer {
        status,
        headers,
        body: Bytes::copy_from_slice(rest),
    })
}

fn line(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = input.iter().position(|byte| *byte == b'\n')?;
    Some((&input[..at], &input[at + 1..]))
}

fuzz_target!(|input: &[u8]| {
    let Some(answer) = answer(input) else {
        return;
    };
    let _ = answer.problem();
    if let Ok(Some(form)) = form::Form::of(&answer) {
        let question = question::Question {
            inputs: form.outputs.clone(),
            body: answer.body.clone(),
        };
        let _ = form.openings(&question, &answer);
        let _ = (&form.header, form.header_length);
    }
});
