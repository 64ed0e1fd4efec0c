//! The little HTTP that fetching needs: one GET on one connection, an answer read whole and bounded, no redirects, no
//! cookies, nothing decoded.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HOST, HeaderMap, RETRY_AFTER, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::Error;
use crate::source::Base;

/// Headers that an answer may have, bytes: Intel puts two certificates into one.
const MOST_HEADERS: usize = 64 << 10;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// TCP and TLS together.
    pub connect: Duration,
    /// The whole exchange, the connection included.
    pub total: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connect: Duration::from_secs(10),
            total: Duration::from_secs(30),
        }
    }
}

/// An answer with status 200, read whole. Nothing of it is known to be true.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its header fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// The value of a header that stands there once and is visible ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let first = values.next()?;
        values.next().is_none().then_some(())?;
        first.to_str().ok()
    }
}

/// Why there is no answer; the caller knows what was asked for, and of whom.
#[derive(Debug)]
pub(crate) enum Failed {
    /// Nothing whole came.
    Unreachable(String),
    /// Another status than 200, and what `Retry-After` says.
    Status(StatusCode, Option<String>),
    /// Over the bound.
    TooLarge,
    /// It is encoded in a way that nobody asked for.
    Encoded,
    /// TLS cannot be set up here.
    Setup(String),
}

impl Failed {
    pub fn into_error(self, what: &str, base: &Base, limit: usize) -> Error {
        let (what, server) = (what.to_owned(), base.authority.clone());
        match self {
            Failed::Unreachable(reason) => Error::Unreachable {
                what,
                server,
                reason,
            },
            Failed::Status(status, _) if status.is_redirection() => Error::Redirect {
                what,
                server,
                status: status.as_u16(),
            },
            Failed::Status(status, _) => Error::Status {
                what,
                server,
                status: status.as_u16(),
            },
            Failed::TooLarge => Error::TooLarge {
                what,
                server,
                limit,
            },
            Failed::Encoded => Error::Malformed {
                what,
                reason: format!("{server} sent it with a Content-Encoding that nobody asked for"),
            },
            Failed::Setup(reason) => Error::Usage(reason),
        }
    }
}

/// Gets what is at an address.
pub(crate) async fn get(
    base: &Base,
    target: &str,
    most: usize,
    limits: Limits,
) -> Result<Answer, Failed> {
    let late = |what: &str, limit: Duration| {
        Failed::Unreachable(format!("{what} took longer than {} s", limit.as_secs_f32()))
    };
    let exchange = async {
        let tcp = timeout(
            limits.connect,
            TcpStream::connect((base.host.as_str(), base.port)),
        )
        .await
        .map_err(|_| late("the connection", limits.connect))?
        .map_err(|e| Failed::Unreachable(e.to_string()))?;
        if !base.tls {
            return send(tcp, base, target, most).await;
        }
        let name = ServerName::try_from(base.host.clone())
            .map_err(|_| Failed::Unreachable("no name that TLS could check".into()))?;
        let connector = TlsConnector::from(tls_config()?);
        let stream = timeout(limits.connect, connector.connect(name, tcp))
            .await
            .map_err(|_| late("the TLS handshake", limits.connect))?
            .map_err(|e| Failed::Unreachable(format!("TLS: {e}")))?;
        send(stream, base, target, most).await
    };
    timeout(limits.total, exchange)
        .await
        .map_err(|_| late("the answer", limits.total))?
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    base: &Base,
    target: &str,
    most: usize,
) -> Result<Answer, Failed> {
    let broken = |error: &dyn std::fmt::Display| Failed::Unreachable(error.to_string());
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MOST_HEADERS)
        .handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(|e| broken(&e))?;
    let driver = tokio::spawn(connection);
    let request = Request::get(target)
        .header(HOST, &base.authority)
        .header(ACCEPT_ENCODING, "identity")
        .header(
            USER_AGENT,
            concat!("touchstone/", env!("CARGO_PKG_VERSION")),
        )
        .body(Empty::new())
        .map_err(|e| broken(&e))?;
    let outcome = async {
        let response = sender.send_request(request).await.map_err(|e| broken(&e))?;
        let (head, body) = response.into_parts();
        if head.status != StatusCode::OK {
            let after = head.headers.get(RETRY_AFTER);
            let after = after.and_then(|v| v.to_str().ok()).map(str::to_owned);
            return Err(Failed::Status(head.status, after));
        }
        if head
            .headers
            .get(CONTENT_ENCODING)
            .is_some_and(|encoding| encoding != "identity")
        {
            return Err(Failed::Encoded);
        }
        let body = Limited::new(body, most).collect().await.map_err(|e| {
            if e.is::<LengthLimitError>() {
                Failed::TooLarge
            } else {
                Failed::Unreachable(format!("the answer broke off: {e}"))
            }
        })?;
        Ok(Answer {
            headers: head.headers,
            body: body.to_bytes(),
        })
    }
    .await;
    driver.abort();
    outcome
}

/// TLS as browsers do it, under the system's roots. They are read once, when first needed.
fn tls_config() -> Result<Arc<ClientConfig>, Failed> {
    static CONFIG: OnceLock<Result<Arc<ClientConfig>, String>> = OnceLock::new();
    let made = CONFIG.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            return Err(
                "this system has no root certificates for TLS (package ca-certificates)".into(),
            );
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Arc::new(config))
    });
    made.clone().map_err(Failed::Setup)
}
