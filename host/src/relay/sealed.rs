//! Sealed requests (Oblivious HTTP, formats.md §13), as far as a host has to know of them: which enclave opens one.
//!
//! That is the one whose keyset it was sealed for, and no other. So it is sent there or not at all, and never twice: the
//! enclave would answer the second one that it came before, and the first answer is lost. Where no enclave opens it the
//! caller is told so, proves another keyset and seals his request to that.

use hyper::{Method, StatusCode};
use touchstone_formats::{Digest, session::OHTTP_TARGET};

use super::fields::Fields;
use crate::{fleet::Fleet, problem::Problem};

/// The keyset that a request was sealed for.
const KEYSET: &str = "touchstone-keyset";

/// Whether a request to this path is sealed.
pub(crate) fn is_sealed(method: &Method, path: &str) -> bool {
    *method == Method::POST && path == OHTTP_TARGET
}

/// The keyset that a request says it is sealed for.
///
/// # Errors
/// 400: it does not say so, or not in one way.
pub(super) fn keyset(fields: Fields<'_>) -> Result<Digest, Problem> {
    let mut fields = fields.all(KEYSET);
    let field = fields.next().filter(|_| fields.next().is_none());
    let digest = field
        .and_then(|field| std::str::from_utf8(field).ok())
        .and_then(|hex| Digest::from_hex(hex).ok());
    digest.ok_or_else(|| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            "expected one Touchstone-Keyset with 64 lower-case hex digits: there are several enclaves here, and each opens \
             what is sealed for its own keyset",
        )
    })
}

/// Why a request goes to no enclave: another keyset is to be asked for, or there is none to be had just now.
pub(super) fn not_opened(fleet: &Fleet) -> Problem {
    if fleet.is_ready() {
        return Problem::other_key(
            "no enclave here takes requests under the keyset that this one is sealed for, and none opened it: \
             ask for a keyset and its evidence anew",
        );
    }
    Problem::passing(
        StatusCode::SERVICE_UNAVAILABLE,
        1,
        "no enclave takes requests",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_request_names_one_keyset() {
        let digest = Digest::of(b"keyset");
        let named = |values: &[&str]| {
            let lines = values
                .iter()
                .map(|value| format!("Touchstone-Keyset: {value}\r\n"));
            let head = format!("POST / HTTP/1.1\r\n{}\r\n", lines.collect::<String>());
            keyset(Fields::of(head.as_bytes())).map_err(|problem| problem.status)
        };
        let hex = &*digest.to_string();
        assert_eq!(named(&[hex]), Ok(digest));
        let upper = &*hex.to_uppercase();
        for wrong in [&[][..], &[hex, hex], &["", hex], &[&hex[1..]], &[upper]] {
            assert_eq!(named(wrong), Err(StatusCode::BAD_REQUEST), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_posted_to_one_target_is_sealed() {
        let sealed =
            |method, target: &str| is_sealed(&method, target.parse::<hyper::Uri>().unwrap().path());
        assert!(sealed(Method::POST, "/v1/ohttp"));
        assert!(sealed(Method::POST, "/v1/ohttp?x"));
        assert!(!sealed(Method::OPTIONS, "/v1/ohttp"));
        assert!(!sealed(Method::POST, "/v1/ohttp/"));
        assert!(!sealed(Method::POST, "/v1/boot"));
    }
}
