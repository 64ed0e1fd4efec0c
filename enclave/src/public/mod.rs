//! The public listener: what the host relays from callers (formats.md §9).

mod framing;
mod infer;
mod ohttp;
mod reply;
mod session;
mod target;

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Incoming},
    header::{self, HeaderValue},
    http::request::Parts,
};
use touchstone_formats::digest::Digest;

pub use self::session::{Channel, TlsChannel};

use self::{
    framing::RequestBody,
    target::{ModelTarget, Target, Verb},
};
use crate::{
    models::Model,
    problem::Problem,
    protocol::{live_document, model_document, ready_document, server_document},
    service::Service,
};

type Reply = Response<Full<Bytes>>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Headers that scripts of other origins may read.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "Touchstone, Touchstone-Openings, Link, Content-Digest, Inference-Header-Content-Length, Retry-After",
);

/// Answers one request.
pub async fn handle(service: Arc<Service>, channel: Channel, request: Request<Incoming>) -> Reply {
    let (head, body) = request.into_parts();
    // The caller waits to hear whether the body is wanted. Reading it would say that it is.
    let waits = head.headers.contains_key(header::EXPECT);
    let mut body = Some(RequestBody::Unread(body));
    let mut reply = match route(service, &channel, head, &mut body).await {
        Ok(reply) => reply,
        Err(problem) => problem.response(),
    };
    let headers = reply.headers_mut();
    if let Some(RequestBody::Unread(unread)) = body
        && !unread.is_end_stream()
        && (waits || !framing::discard(unread).await)
    {
        // Said, so that nobody sends another request on it: the host would have to answer that with 502.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        HeaderValue::from_static("*"),
    );
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    reply
}

async fn route(
    service: Arc<Service>,
    channel: &Channel,
    head: Parts,
    body: &mut Option<RequestBody>,
) -> Result<Reply, Problem> {
    let target = Target::parse(&head.uri);
    channel.open_for(&service, &head.method, &target)?;
    let target = target?;
    if head.method == Method::OPTIONS {
        return Ok(preflight(target.methods()));
    }
    let answers = match head.method {
        Method::GET | Method::HEAD => !target.is_posted(),
        Method::POST => target.is_posted(),
        _ => false,
    };
    if !answers {
        return Err(Problem::method(target.methods()));
    }
    // Only liveness is answered before the first boot quote exists.
    if !matches!(target, Target::Live | Target::Ready) && service.keyset_file().is_none() {
        return Err(Problem::unavailable(
            "Not ready",
            "this enclave has no boot quote yet",
            1,
        ));
    }
    match target {
        Target::Session => session::session(service, channel, head, body).await,
        Target::Boot => session::boot(service, channel, head, body).await,
        Target::Ohttp => Box::pin(ohttp::answer(service, channel, head, body)).await,
        Target::Model(ModelTarget {
            verb: Verb::Infer,
            name,
            version,
        }) => infer::infer(service, channel, name, version, head, body).await,
        Target::Live => Ok(json(StatusCode::OK, live_document())),
        Target::Ready => Ok(ready(None, service.ready())),
        Target::Server => Ok(json(
            StatusCode::OK,
            server_document(env!("CARGO_PKG_VERSION")),
        )),
        Target::Keyset => service
            .keyset_file()
            .map(|file| json(StatusCode::OK, file))
            .ok_or_else(|| {
                Problem::unavailable("Not ready", "this enclave has no boot quote yet", 1)
            }),
        Target::Object(digest) => object(&service, &digest),
        Target::Receipt => Err(Problem::new(
            404,
            "Receipts are the host's",
            "the enclave keeps no receipts; the host that relays to it serves them at this path",
        )),
        Target::Model(ModelTarget {
            name,
            version,
            verb,
        }) => {
            let Some(epoch) = service.current() else {
                return Err(Problem::unavailable(
                    "Draining",
                    "this enclave is being shut down",
                    5,
                ));
            };
            let catalog = epoch.catalog.load();
            let model = find(&catalog.models, &name, version.as_deref())?;
            match verb {
                Verb::Ready => Ok(ready(Some(&name), service.ready())),
                _ => Ok(json(
                    StatusCode::OK,
                    model_document(model, &catalog.models.versions(&name)),
                )),
            }
        }
    }
}

/// The model of this name and version.
fn find<'a>(
    models: &'a crate::models::LoadedModels,
    name: &str,
    version: Option<&str>,
) -> Result<&'a Arc<Model>, Problem> {
    models.find(name, version).ok_or_else(|| {
        let detail = match version {
            Some(version) => format!("model {name} has no version {version} here"),
            None => format!("there is no model {name} here"),
        };
        Problem::new(404, "Unknown model", detail)
    })
}

fn object(service: &Service, digest: &Digest) -> Result<Reply, Problem> {
    match service.object(digest) {
        Some(object) => {
            let mut reply = json(StatusCode::OK, object);
            // The digest names these very bytes, for ever.
            reply.headers_mut().insert(
                header::CACHE_CONTROL,
                HeaderValue::from_static("public, max-age=31536000, immutable"),
            );
            Ok(reply)
        }
        None => Err(Problem::new(
            404,
            "Unknown object",
            "no object with this digest is here",
        )),
    }
}

fn json(status: StatusCode, body: Bytes) -> Reply {
    let mut reply = Response::new(Full::new(body));
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, JSON);
    reply
}

fn ready(name: Option<&str>, ready: bool) -> Reply {
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    json(status, ready_document(name, ready))
}

fn preflight(methods: &'static str) -> Reply {
    let mut reply = Response::new(Full::default());
    *reply.status_mut() = StatusCode::NO_CONTENT;
    let headers = reply.headers_mut();
    headers.insert(header::ALLOW, HeaderValue::from_static(methods));
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static(methods),
    );
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static(
            "Content-Type, Inference-Header-Content-Length, Prefer, Touchstone, Touchstone-Keyset",
        ),
    );
    headers.insert(
        header::ACCESS_CONTROL_MAX_AGE,
        HeaderValue::from_static("86400"),
    );
    reply
}
