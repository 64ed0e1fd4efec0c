//! Which guarantees and which nonce a request is asked with: the policy's, the proxy's own (`--require`) and
//! the client's, which may ask for more and never for less.

use hyper::header::HeaderName;
use hyper::{HeaderMap, StatusCode};
use serde::Deserialize;
use touchstone_formats::headers::TouchstoneRequest;
use touchstone_formats::text::hex_decode;
use touchstone_formats::{FormatError, GuaranteeSet};

use super::problem::{Judged, Problem};
use super::request::single;

/// `Touchstone`, of requests and answers.
pub const TOUCHSTONE: HeaderName = HeaderName::from_static("touchstone");

/// What a question is asked with.
#[derive(Clone, Debug, PartialEq)]
pub struct Demand {
    /// The guarantees.
    pub require: GuaranteeSet,
    /// The client's own nonce; a fresh one is made without it.
    pub nonce: Option<Vec<u8>>,
}

/// Joins what must be (`floor`) with what the client says in its header and in its body's parameters.
///
/// # Errors
/// 400 and 422 for a header that does not stand, or says something else than the parameters; 422
/// `guarantees.required` for parameters that leave out part of the floor: they are part of the request and
/// cannot be added to.
pub fn demand(headers: &HeaderMap, json: &[u8], floor: GuaranteeSet) -> Result<Demand, Problem> {
    let header = match single(headers, &TOUCHSTONE, "Touchstone")? {
        None => TouchstoneRequest::default(),
        Some(text) => TouchstoneRequest::parse(text).map_err(|error| malformed(&error))?,
    };
    let body = in_parameters(json);
    if let (Some(a), Some(b)) = (&header.require, &body.require)
        && a != b
    {
        return Err(contradiction("touchstone_require"));
    }
    if let (Some(a), Some(b)) = (&header.nonce, &body.nonce)
        && a != b
    {
        return Err(contradiction("touchstone_nonce"));
    }
    let require = match (body.require, header.require) {
        (Some(stated), _) if stated.is_superset(&floor) => stated,
        (Some(stated), _) => return Err(too_little(stated, floor)),
        (None, Some(more)) => floor.union(&more),
        (None, None) => floor,
    };
    Ok(Demand {
        require,
        nonce: body.nonce.or(header.nonce),
    })
}

/// What a request's parameters ask for. What is not read here goes on all the same: the enclave refuses JSON
/// and values that it cannot read, and refuses parameters that say something else than the header which
/// this proxy writes.
fn in_parameters(json: &[u8]) -> TouchstoneRequest {
    #[derive(Deserialize)]
    struct Body {
        parameters: Option<Parameters>,
    }
    #[derive(Deserialize)]
    struct Parameters {
        touchstone_require: Option<String>,
        touchstone_nonce: Option<String>,
    }
    let Ok(Body {
        parameters: Some(parameters),
    }) = serde_json::from_slice(json)
    else {
        return TouchstoneRequest::default();
    };
    let require = parameters.touchstone_require;
    let nonce = parameters.touchstone_nonce;
    TouchstoneRequest {
        require: require.and_then(|words| GuaranteeSet::parse_wire_words(&words).ok()),
        nonce: nonce
            .and_then(|hex| hex_decode(&hex).ok())
            .filter(|nonce| (8..=64).contains(&nonce.len())),
    }
}

fn malformed(error: &FormatError) -> Problem {
    let detail = format!("the Touchstone header: {error}");
    match error {
        FormatError::UnknownGuarantee { .. } => Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Guarantee not deliverable",
            detail,
        ),
        _ => Problem::bad(detail),
    }
}

fn contradiction(name: &str) -> Problem {
    Problem::bad(format!(
        "parameters.{name} and the Touchstone header say different things"
    ))
}

fn too_little(stated: GuaranteeSet, floor: GuaranteeSet) -> Problem {
    let reason = format!(
        "parameters.touchstone_require asks for {stated}, and this proxy's policy demands {floor}: ask for all of it, or \
         for nothing in the parameters"
    );
    let verdict = attestation_verifier::verdict::refusal(
        "guarantees.required",
        attestation_verifier::Fault::Policy,
        reason,
        None,
    );
    let judged = Judged::of(&verdict);
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "Too little asked for",
        format!("guarantees.required: {}", judged.reason),
    )
    .judged(judged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(words: &str) -> GuaranteeSet {
        GuaranteeSet::parse_words(words).unwrap()
    }

    fn asked(header: &str, parameters: &str) -> Result<Demand, (u16, Option<String>)> {
        let mut headers = HeaderMap::new();
        if !header.is_empty() {
            headers.insert(TOUCHSTONE, header.parse().unwrap());
        }
        let json = format!(r#"{{"inputs":[{{"data":[1]}}],"parameters":{parameters}}}"#);
        demand(&headers, json.as_bytes(), set("logged signed"))
            .map_err(|problem| (problem.status.as_u16(), problem.check().map(str::to_owned)))
    }

    #[test]
    fn nothing_asked_is_the_floor_and_more_is_added() {
        let demand = |words: &str, nonce: Option<&[u8]>| {
            Ok(Demand {
                require: set(words),
                nonce: nonce.map(<[u8]>::to_vec),
            })
        };
        let eight = Some(&[0xab; 8][..]);
        assert_eq!(asked("", "null"), demand("logged signed", None));
        assert_eq!(asked("", "{}"), demand("logged signed", None));
        assert_eq!(
            asked("require=(signed)", "{}"),
            demand("logged signed", None)
        );
        assert_eq!(
            asked("require=(quoted signed)", "{}"),
            demand("logged quoted signed", None)
        );
        assert_eq!(
            asked("nonce=:q6urq6urq6s=:", "{}"),
            demand("logged signed", eight)
        );
        assert_eq!(
            asked("", r#"{"touchstone_nonce":"abababababababab"}"#),
            demand("logged signed", eight)
        );
        assert_eq!(
            asked(
                "nonce=:q6urq6urq6s=:",
                r#"{"touchstone_require":"logged quoted signed","touchstone_nonce":"abababababababab","other":[1]}"#
            ),
            demand("logged quoted signed", eight)
        );
    }

    #[test]
    fn less_is_never_asked_and_nobody_says_two_things() {
        let required = Some("guarantees.required".to_owned());
        for less in ["signed", "quoted signed", "proven"] {
            let parameters = format!(r#"{{"touchstone_require":"{less}"}}"#);
            assert_eq!(
                asked("", &parameters),
                Err((422, required.clone())),
                "{less}"
            );
        }
        let escaped = r#"{"touchstone_r\u0065quire":"signed"}"#;
        assert_eq!(asked("", escaped), Err((422, required)));
        assert_eq!(
            asked(
                "require=(quoted signed)",
                r#"{"touchstone_require":"logged signed"}"#
            ),
            Err((400, None))
        );
        assert_eq!(
            asked(
                "nonce=:q6urq6urq6s=:",
                r#"{"touchstone_nonce":"acababababababab"}"#
            ),
            Err((400, None))
        );
        assert_eq!(asked("require=(perfect)", "{}"), Err((422, None)));
        assert_eq!(asked("require=(signed", "{}"), Err((400, None)));
        assert_eq!(asked("a=b", "{}"), Err((400, None)));
        assert_eq!(asked("nonce=:q6s=:", "{}"), Err((400, None)));
    }

    #[test]
    fn what_cannot_be_read_is_left_to_the_enclave() {
        for unread in [
            r#"{"touchstone_require":"perfect"}"#,
            r#"{"touchstone_require":["signed"]}"#,
            r#"{"touchstone_nonce":"AB"}"#,
            "[]",
            "{",
        ] {
            assert_eq!(
                asked("", unread).unwrap().require,
                set("logged signed"),
                "{unread}"
            );
        }
    }
}
