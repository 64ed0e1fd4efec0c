//! An inference request, from its headers to its answer.

use std::{sync::Arc, time::Duration};

use hyper::{HeaderMap, header::HeaderName, http::request::Parts};
use touchstone_formats::{
    FormatError,
    guarantee::GuaranteeSet,
    headers::{TouchstoneRequest, parse_prefer_wait},
    text::hex_decode,
};

use super::{
    Channel, Reply, find,
    framing::{self, RequestBody},
    reply::{TOUCHSTONE, reply},
};
use crate::{
    admission::{admit, deliverable},
    answer::{Exchange, answer, refuse},
    problem::Problem,
    protocol::{Limits, TouchstoneParameters, parse_request},
    service::Service,
};

const PREFER: HeaderName = HeaderName::from_static("prefer");

/// Bytes of a nonce (formats.md §4, claim 10).
const NONCE: std::ops::RangeInclusive<usize> = 8..=64;

/// Answers `POST …/infer`. The body is taken when all of it was read.
///
/// # Errors
/// Everything before admission: then there is no receipt.
pub(super) async fn infer(
    service: Arc<Service>,
    channel: &Channel,
    name: String,
    version: Option<String>,
    head: Parts,
    body: &mut Option<RequestBody>,
) -> Result<Reply, Problem> {
    let header_length = framing::header_length(&head.headers)?;
    let asked = asked_in_headers(&head.headers)?;
    if let Some(require) = &asked.require {
        deliverable(require)?;
    }
    let wait = wait(&head.headers, service.config.answers.max_wait_seconds)?;
    let target = head.uri.path().to_owned();
    // Before the body is read: what is refused anyway costs no memory.
    find(
        &service.enter()?.catalog.load().models,
        &name,
        version.as_deref(),
    )?;

    let limits = &service.config.limits;
    let (body, share) =
        framing::whole_body(body, limits.body_bytes, &service.held, limits.body_timeout).await?;
    let tensor_limits = Limits {
        tensor_bytes: limits.body_bytes,
        ..Limits::default()
    };
    let request = parse_request(&body, header_length, &tensor_limits)
        .map_err(|error| Problem::new(error.status(), error.title(), error.to_string()))?;
    let name_receipt = request.touchstone != TouchstoneParameters::default();
    let (require, nonce) = merge(asked, &request.touchstone)?;
    let guarantees = require.unwrap_or(service.config.answers.default_guarantees);

    let admission = admit(&service, &guarantees)?;
    // The keyset may have been replaced since the request came in.
    channel.belongs_to(&admission.guest.digest)?;
    let catalog = admission.guest.catalog.load_full();
    let model = find(&catalog.models, &name, version.as_deref())?.clone();
    let exchange = Exchange {
        service,
        admission,
        catalog,
        model: model.clone(),
        target,
        header_length,
        body,
        request,
        guarantees,
        nonce,
        name_receipt,
        share,
    };
    let answer = match model.check(&exchange.request) {
        Err(error) => refuse(
            exchange,
            &Problem::new(error.status(), error.title(), error.to_string()),
        )?,
        Ok(()) => {
            let lease = model
                .acquire()
                .await
                .map_err(|busy| Problem::unavailable("Model busy", busy.to_string(), 1))?;
            if lease.fast_for(&exchange.request) {
                answer(exchange, lease)?
            } else {
                tokio::task::spawn_blocking(move || answer(exchange, lease))
                    .await
                    .map_err(|_| {
                        Problem::new(
                            500,
                            "Inference failed",
                            "the inference failed inside the enclave",
                        )
                    })??
            }
        }
    };
    Ok(reply(answer, wait).await)
}

/// What a request asks of Touchstone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Asked {
    require: Option<GuaranteeSet>,
    nonce: Option<Vec<u8>>,
}

fn asked_in_headers(headers: &HeaderMap) -> Result<Asked, Problem> {
    let Some(text) = framing::single(headers, &TOUCHSTONE, "Touchstone")? else {
        return Ok(Asked::default());
    };
    let parsed = TouchstoneRequest::parse(text)
        .map_err(|error| asked_wrong("the Touchstone header", &error))?;
    Ok(Asked {
        require: parsed.require,
        nonce: parsed.nonce,
    })
}

/// Joins what headers and parameters ask for; where both speak they must say the same.
fn merge(
    headers: Asked,
    parameters: &TouchstoneParameters,
) -> Result<(Option<GuaranteeSet>, Option<Vec<u8>>), Problem> {
    let require = match &parameters.require {
        None => None,
        Some(words) => {
            let set = GuaranteeSet::parse_wire_words(words)
                .map_err(|error| asked_wrong("parameters.touchstone_require", &error))?;
            Some(set)
        }
    };
    let nonce = match &parameters.nonce {
        None => None,
        Some(hex) => {
            let nonce = hex_decode(hex)
                .ok()
                .filter(|nonce| NONCE.contains(&nonce.len()));
            Some(nonce.ok_or_else(|| {
                framing::bad("parameters.touchstone_nonce must be 8 to 64 bytes in lower-case hex")
            })?)
        }
    };
    Ok((
        agree(headers.require, require, "parameters.touchstone_require")?,
        agree(headers.nonce, nonce, "parameters.touchstone_nonce")?,
    ))
}

fn agree<T: PartialEq>(
    header: Option<T>,
    parameter: Option<T>,
    name: &str,
) -> Result<Option<T>, Problem> {
    match (header, parameter) {
        (Some(header), Some(parameter)) if header != parameter => Err(framing::bad(format!(
            "{name} and the Touchstone header say different things"
        ))),
        (header, parameter) => Ok(header.or(parameter)),
    }
}

/// 422 for a guarantee that does not exist, 400 for anything that is not written as it should be.
fn asked_wrong(place: &str, error: &FormatError) -> Problem {
    match error {
        FormatError::UnknownGuarantee { .. } => Problem::new(
            422,
            "Guarantee not deliverable",
            format!("{place}: {error}; this enclave delivers: logged quoted signed"),
        ),
        _ => framing::bad(format!("{place}: {error}")),
    }
}

/// How long the answer may be held until what it asked for holds (RFC 7240 `wait`).
fn wait(headers: &HeaderMap, max_seconds: u64) -> Result<Duration, Problem> {
    let mut prefer = String::new();
    for value in headers.get_all(&PREFER) {
        let value = value
            .to_str()
            .map_err(|_| framing::bad("Prefer holds bytes that are not ASCII"))?;
        if !prefer.is_empty() {
            prefer.push_str(", ");
        }
        prefer.push_str(value);
    }
    // Preferences that are not understood are ignored (RFC 7240 §2).
    let seconds = parse_prefer_wait(&prefer).unwrap_or(0);
    Ok(Duration::from_secs(seconds.min(max_seconds)))
}
