//! What a request is about, where target and `Host` say it together (RFC 9112 §3.2).
//!
//! Every part of them is looked at by somebody: a proxy in front routes by one, an enclave reads the other. So they
//! have to say one thing. What does not is refused, and its connection closed, as with `strict`.

use hyper::{Method, Uri};

use crate::problem::Problem;

/// Whether target and `Host` have one reading.
///
/// # Errors
/// 400, which closes the connection: a `Host` that is none; a target in a form that its method has not; one that names
/// another authority than `Host`; one with a `%` that encodes nothing.
pub(super) fn check(method: &Method, uri: &Uri, host: &[u8]) -> Result<(), Problem> {
    if !is_host(host) {
        return Err(Problem::two_readings(
            "Host is no host with or without a port",
        ));
    }
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    match (uri.scheme_str(), uri.authority()) {
        // The name that a tunnel is asked for to: refused elsewhere, as this is no proxy.
        (None, _) if *method == Method::CONNECT => return Ok(()),
        (None, None) if path == "*" && *method == Method::OPTIONS => {}
        (None, None) if path.starts_with('/') => {}
        (Some("http"), Some(authority)) => {
            if !authority.as_str().as_bytes().eq_ignore_ascii_case(host) {
                return Err(Problem::two_readings(
                    "the target names another host than Host",
                ));
            }
        }
        _ => {
            return Err(Problem::two_readings(
                "expected a target that is a path, such as /v2/models/NAME/infer",
            ));
        }
    }
    match encodes(path) {
        true => Ok(()),
        false => Err(Problem::two_readings(
            "a % in the target without two hex digits",
        )),
    }
}

/// `uri-host [ ":" port ]` (RFC 9110 §7.2), or nothing: who has no name for this host says that. Commas, which names of
/// the grammar could have and names of hosts have not, are what is left of two fields that somebody joined.
fn is_host(text: &[u8]) -> bool {
    let (name, port) = match text.strip_prefix(b"[") {
        Some(rest) => {
            let Some(end) = rest.iter().position(|byte| *byte == b']') else {
                return false;
            };
            let (address, port) = rest.split_at(end);
            let literal = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
            if address.is_empty() || !address.iter().all(literal) {
                return false;
            }
            (&b""[..], port.get(1..).unwrap_or_default())
        }
        None => {
            let colon = text.iter().position(|byte| *byte == b':');
            text.split_at(colon.unwrap_or(text.len()))
        }
    };
    let of_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=%".contains(byte);
    let is_port = match port.split_first() {
        None => true,
        Some((colon, digits)) => *colon == b':' && digits.iter().all(u8::is_ascii_digit),
    };
    name.iter().all(of_name) && is_port
}

/// Whether each `%` stands before two hex digits.
fn encodes(text: &str) -> bool {
    let mut parts = text.as_bytes().split(|byte| *byte == b'%');
    parts.next();
    parts.all(|part| {
        let digits = part.get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(method: &str, target: &str, host: &str) -> bool {
        let method = method.parse().unwrap();
        check(&method, &target.parse().unwrap(), host.as_bytes()).is_ok()
    }

    #[test]
    fn hosts_have_the_form_of_hosts() {
        for good in [
            "",
            "h",
            "h:80",
            "h:",
            "a-b.c_d:1",
            "127.0.0.1:8000",
            "[::1]",
            "[::1]:80",
            "h%41",
            "*",
        ] {
            assert!(judged("GET", "/", good), "{good}");
        }
        for bad in [
            "a b", "a,b", "a, b", "u@h", "h/x", "h\\x", "http://h", "h:x", "h:80:80", "h#", "h?",
            "a\tb", "<h>", "\"h\"", "[::1", "[]", "[::1]x", "[h]", "::1",
        ] {
            assert!(!judged("GET", "/", bad), "{bad}");
        }
    }

    #[test]
    fn targets_have_the_form_of_their_method_and_the_authority_of_host() {
        for (method, target, host) in [
            ("GET", "/", "h"),
            ("GET", "/x?y=/%41&z", "h"),
            ("OPTIONS", "*", "h"),
            ("OPTIONS", "/x", "h"),
            ("GET", "http://h/x", "h"),
            ("GET", "http://H:80/x", "h:80"),
            ("GET", "http://[::1]/x?y", "[::1]"),
            ("CONNECT", "h:80", "h:80"),
        ] {
            assert!(judged(method, target, host), "{method} {target} {host}");
        }
        for (method, target, host) in [
            ("GET", "*", "h"),
            ("GET", "h", "h"),
            ("GET", "h:80", "h:80"),
            ("GET", "http://other/x", "h"),
            ("GET", "http://h:80/x", "h"),
            ("GET", "http://h/x", ""),
            ("GET", "http://u@h/x", "h"),
            ("GET", "https://h/x", "h"),
            ("GET", "ftp://h/x", "h"),
            ("GET", "/%", "h"),
            ("GET", "/%4", "h"),
            ("GET", "/x?%zz", "h"),
            ("GET", "http://h/%4x", "h"),
        ] {
            assert!(!judged(method, target, host), "{method} {target} {host}");
        }
    }
}
