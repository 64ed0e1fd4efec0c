//! What a client's request may be: which Host, which targets, which framing. Everything else is refused
//! before anything goes to the enclave.

use std::net::{IpAddr, SocketAddr};

use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderName};
use hyper::http::uri::Authority;
use hyper::{HeaderMap, Method, StatusCode, Uri};

use super::problem::Problem;

/// Length of the JSON part of a body in the binary extension.
pub const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// What a request is about.
#[derive(Clone, Debug, PartialEq)]
pub enum Route {
    /// Inference: asked anew with a nonce, verified, kept.
    Infer {
        /// The model's name.
        model: String,
    },
    /// Metadata, health and preflights: passed over the attested connection, without a receipt.
    Relay,
    /// `/touchstone`: the proxy's own status page.
    StatusPage,
    /// `/touchstone/status.json`.
    StatusDocument,
}

/// Finds out what a request is about.
///
/// # Errors
/// 400 for a target that is no plain path, 404 for one that names nothing here, 405.
pub fn route(method: &Method, uri: &Uri) -> Result<Route, Problem> {
    if method == Method::CONNECT || uri.scheme().is_some() || uri.authority().is_some() {
        return Err(Problem::bad(
            "this is no forward proxy: the request target must be a path, such as /v2/models/NAME/infer",
        ));
    }
    let path = uri.path();
    if uri.query().is_some() || path.contains('%') {
        return Err(Problem::bad(
            "a request target here has no query and no percent-encoded bytes",
        ));
    }
    let parts: Vec<&str> = path
        .strip_prefix('/')
        .unwrap_or_default()
        .splitn(8, '/')
        .collect();
    let (found, methods) = match parts.as_slice() {
        ["touchstone"] => (Route::StatusPage, "GET"),
        ["touchstone", "status.json"] => (Route::StatusDocument, "GET"),
        ["v2", "models", model, "infer"] | ["v2", "models", model, "versions", _, "infer"]
            if named(&parts) =>
        {
            let model = (*model).to_owned();
            (Route::Infer { model }, "POST, OPTIONS")
        }
        ["v2"]
        | ["v2", ""]
        | ["v2", "health", "live" | "ready"]
        | ["v2", "models", _]
        | ["v2", "models", _, "ready"]
        | ["v2", "models", _, "versions", _]
        | ["v2", "models", _, "versions", _, "ready"]
        | ["v1", "keyset"]
        | ["v1", "objects", _]
            if named(&parts) =>
        {
            (Route::Relay, "GET, HEAD, OPTIONS")
        }
        ["v1", "receipts", _] => {
            return Err(unknown(
                "receipts are the host's; this proxy keeps what it verified in its own folder (--keep)",
            ));
        }
        _ => return Err(unknown("nothing is here")),
    };
    // Preflights are the enclave's to answer: its CORS rules hold here too.
    let preflight = method == Method::OPTIONS;
    match &found {
        Route::StatusPage | Route::StatusDocument if method == Method::GET => Ok(found),
        Route::Infer { .. } if method == Method::POST => Ok(found),
        Route::Relay if preflight || matches!(*method, Method::GET | Method::HEAD) => Ok(found),
        Route::Infer { .. } if preflight => Ok(Route::Relay),
        _ => Err(Problem::method(methods)),
    }
}

/// Whether every segment but that of `/v2/` is there.
fn named(parts: &[&str]) -> bool {
    parts == ["v2", ""] || parts.iter().all(|part| !part.is_empty())
}

fn unknown(detail: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "Unknown target", detail)
}

/// Which values of `Host` are this proxy. A web page can have a name of its own resolve to a loopback address
/// (DNS rebinding), and then talks to the proxy as to its own origin; the `Host` field is what gives it away.
#[derive(Clone, Debug)]
pub struct Hosts {
    listen: SocketAddr,
    allowed: Vec<Authority>,
}

impl Hosts {
    /// Those of a proxy that listens here, and `allowed` beside them.
    pub fn new(listen: SocketAddr, allowed: Vec<Authority>) -> Hosts {
        Hosts { listen, allowed }
    }

    /// Refuses a request that was meant for another.
    ///
    /// # Errors
    /// 400 without exactly one `Host`, 421 for a foreign one.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let host = single(headers, &HOST, "Host")?
            .and_then(|host| host.parse::<Authority>().ok())
            .ok_or_else(|| Problem::bad("a request must name its Host"))?;
        if self.is_me(&host) {
            return Ok(());
        }
        Err(Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "Not this proxy",
            format!(
                "Host is not {} or localhost: use that address, or name yours with --allow-host",
                self.listen
            ),
        ))
    }

    fn is_me(&self, host: &Authority) -> bool {
        if self.allowed.iter().any(|allowed| allowed == host) {
            return true;
        }
        let name = host.host();
        // Nothing but a name and this port, written as clients write them: user names, and what `Authority` leaves
        // out of both, make one address look like another.
        let port = self.listen.port();
        match host.as_str().strip_prefix(name) {
            Some("") if port == 80 => {}
            Some(rest) if rest == format!(":{port}") => {}
            _ => return false,
        }
        let literal = name.trim_start_matches('[').trim_end_matches(']');
        match literal.parse::<IpAddr>() {
            // An address cannot be rebound: who asks for it means it. Beyond loopback every address of
            // this machine may be the right one.
            Ok(address) => address.is_loopback() || !self.listen.ip().is_loopback(),
            Err(_) => name.eq_ignore_ascii_case("localhost"),
        }
    }
}

/// Reads what frames an inference request: its Inference-Header-Content-Length, if it has one. The same rules
/// as the enclave's (formats.md §4): of the headers only this number goes on, so none may say more.
///
/// # Errors
/// 415 for a content type or encoding that is not the protocol's, 400 for anything ambiguous.
pub fn header_length(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let encoding = single(headers, &CONTENT_ENCODING, "Content-Encoding")?;
    if encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        return Err(unsupported(
            "send the body without a Content-Encoding: its bytes are what the receipt is about",
        ));
    }
    let length = match single(headers, &HEADER_LENGTH, "Inference-Header-Content-Length")? {
        None => None,
        Some(digits) => Some(
            digits
                .parse()
                .ok()
                .filter(|number: &u64| number.to_string() == digits)
                .ok_or_else(|| {
                    Problem::bad("Inference-Header-Content-Length must be a decimal number without sign, space or leading zero")
                })?,
        ),
    };
    let expected = match length {
        Some(_) => "application/octet-stream",
        None => "application/json",
    };
    let found = single(headers, &CONTENT_TYPE, "Content-Type")?;
    if found.is_some_and(|found| !is_type(found, expected)) {
        return Err(unsupported(&format!(
            "expected Content-Type: {expected} {} Inference-Header-Content-Length",
            if length.is_some() { "with" } else { "without" }
        )));
    }
    Ok(length)
}

fn unsupported(detail: &str) -> Problem {
    Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "Encoding not supported",
        detail,
    )
}

/// Whether a Content-Type is this one. JSON is UTF-8, so saying so changes nothing.
fn is_type(found: &str, expected: &str) -> bool {
    let (kind, parameter) = found.split_once(';').unwrap_or((found, "charset=utf-8"));
    kind.trim_end().eq_ignore_ascii_case(expected)
        && (!found.contains(';') || expected == "application/json")
        && parameter.trim().eq_ignore_ascii_case("charset=utf-8")
}

/// The one value of a header.
///
/// # Errors
/// 400 when it is repeated, or is not ASCII.
pub fn single<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    shown: &'static str,
) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Problem::bad(format!("{shown} is given more than once")));
    }
    value
        .to_str()
        .map(Some)
        .map_err(|_| Problem::bad(format!("{shown} holds bytes that are not ASCII")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(method: &str, target: &str) -> Result<Route, u16> {
        route(&method.parse().unwrap(), &target.parse().unwrap())
            .map_err(|problem| problem.status.as_u16())
    }

    #[test]
    fn targets_that_are_known() {
        let infer = Ok(Route::Infer { model: "m".into() });
        assert_eq!(status("POST", "/v2/models/m/infer"), infer);
        assert_eq!(status("POST", "/v2/models/m/versions/3/infer"), infer);
        for target in [
            "/v2",
            "/v2/",
            "/v2/health/live",
            "/v2/health/ready",
            "/v2/models/m",
            "/v2/models/m/ready",
            "/v2/models/m/versions/3",
            "/v2/models/m/versions/3/ready",
            "/v1/keyset",
            "/v1/objects/00",
        ] {
            for method in ["GET", "HEAD", "OPTIONS"] {
                assert_eq!(status(method, target), Ok(Route::Relay), "{target}");
            }
            assert_eq!(status("POST", target), Err(405), "{target}");
        }
        assert_eq!(status("OPTIONS", "/v2/models/m/infer"), Ok(Route::Relay));
        assert_eq!(status("GET", "/touchstone"), Ok(Route::StatusPage));
        assert_eq!(
            status("GET", "/touchstone/status.json"),
            Ok(Route::StatusDocument)
        );
    }

    #[test]
    fn everything_else_is_refused() {
        for (method, target, expected) in [
            ("GET", "http://elsewhere.example/v2", 400),
            ("POST", "http://127.0.0.1:8080/v2/models/m/infer", 400),
            ("CONNECT", "elsewhere.example:443", 400),
            ("POST", "/v2/models/m/infer?x=y", 400),
            ("POST", "/v2/models/%6d/infer", 400),
            ("GET", "/", 404),
            // Nobody has the proxy's own connection attested to him.
            ("POST", "/v1/session", 404),
            ("GET", "/v1/receipts/00", 404),
            ("GET", "/v1/collateral", 404),
            ("GET", "/v2/models", 404),
            ("GET", "/v2/models/", 404),
            ("POST", "/v2/models//infer", 404),
            ("POST", "/v2/models/m/versions//infer", 404),
            ("POST", "/v2/models/m/versions/3/infer/x", 404),
            ("POST", "//v2/models/m/infer", 404),
            ("POST", "/v2/repository/index", 404),
            ("GET", "/touchstone/", 404),
            ("GET", "/v2/models/m/infer", 405),
            ("PUT", "/v2/models/m/infer", 405),
            ("POST", "/touchstone", 405),
            ("OPTIONS", "/touchstone", 405),
        ] {
            assert_eq!(status(method, target), Err(expected), "{method} {target}");
        }
    }

    fn host(listen: &str, allowed: &[&str], host: &str) -> Result<(), u16> {
        let allowed = allowed.iter().map(|name| name.parse().unwrap()).collect();
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        Hosts::new(listen.parse().unwrap(), allowed)
            .check(&headers)
            .map_err(|problem| problem.status.as_u16())
    }

    #[test]
    fn a_foreign_host_is_misdirected() {
        for good in [
            "127.0.0.1:8080",
            "localhost:8080",
            "LOCALHOST:8080",
            "[::1]:8080",
        ] {
            assert_eq!(host("127.0.0.1:8080", &[], good), Ok(()), "{good}");
        }
        assert_eq!(host("127.0.0.1:80", &[], "localhost"), Ok(()));
        assert_eq!(host("127.0.0.1:80", &[], "localhost:80"), Ok(()));
        assert_eq!(host("127.0.0.1:80", &[], "localhost:99999"), Err(421));
        for bad in [
            "evil.example:8080",
            "localhost.evil.example:8080",
            "127.0.0.1.evil.example:8080",
            "127.0.0.1",
            "localhost:8081",
            "localhost.:8080",
            "user@127.0.0.1:8080",
            "[::1]evil.example:8080",
            "127.0.0.1:08080",
            "127.0.0.1:+8080",
            "192.168.1.2:8080",
            "0.0.0.0:8080",
        ] {
            assert_eq!(host("127.0.0.1:8080", &[], bad), Err(421), "{bad}");
        }
        assert_eq!(host("127.0.0.1:8080", &[], ""), Err(400));
        assert_eq!(host("0.0.0.0:8080", &[], "192.168.1.2:8080"), Ok(()));
        assert_eq!(host("0.0.0.0:8080", &[], "proxy:8080"), Err(421));
        assert_eq!(host("0.0.0.0:8080", &["proxy:8080"], "proxy:8080"), Ok(()));
        let hosts = Hosts::new("127.0.0.1:80".parse().unwrap(), vec![]);
        let mut headers = HeaderMap::new();
        assert_eq!(hosts.check(&headers).unwrap_err().status, 400);
        headers.append(HOST, "localhost".parse().unwrap());
        assert!(hosts.check(&headers).is_ok());
        headers.append(HOST, "localhost".parse().unwrap());
        assert_eq!(hosts.check(&headers).unwrap_err().status, 400);
    }

    fn framed(pairs: &[(&'static str, &'static str)]) -> Result<Option<u64>, u16> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        header_length(&headers).map_err(|problem| problem.status.as_u16())
    }

    #[test]
    fn framing_is_the_enclaves() {
        const LENGTH: &str = "inference-header-content-length";
        assert_eq!(framed(&[]), Ok(None));
        assert_eq!(framed(&[("content-type", "application/json")]), Ok(None));
        assert_eq!(
            framed(&[("content-type", "Application/JSON; charset=UTF-8")]),
            Ok(None)
        );
        assert_eq!(
            framed(&[(LENGTH, "17"), ("content-type", "application/octet-stream")]),
            Ok(Some(17))
        );
        for (pairs, status) in [
            (vec![("content-encoding", "gzip")], 415),
            (vec![("content-type", "application/octet-stream")], 415),
            (vec![("content-type", "text/plain")], 415),
            (vec![("content-type", "application/json;")], 415),
            (
                vec![("content-type", "application/json; charset=latin1")],
                415,
            ),
            (
                vec![(LENGTH, "17"), ("content-type", "application/json")],
                415,
            ),
            (
                vec![
                    (LENGTH, "17"),
                    ("content-type", "application/octet-stream; charset=utf-8"),
                ],
                415,
            ),
            (vec![(LENGTH, "17"), (LENGTH, "17")], 400),
            (vec![(LENGTH, "017")], 400),
            (vec![(LENGTH, "+17")], 400),
            (vec![(LENGTH, "")], 400),
            (vec![(LENGTH, "18446744073709551616")], 400),
        ] {
            assert_eq!(framed(&pairs), Err(status), "{pairs:?}");
        }
    }
}
