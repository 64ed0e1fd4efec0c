//! What a caller's request is about (`host/src/relay/target.rs`): what is accepted names one host and one thing on it, whoever
//! reads it.
#![no_main]

use hyper::{Method, Uri};
use libfuzzer_sys::fuzz_target;

// The file alone: the host itself would bring its store and its runtime along.
#[path = "../../../host/src/relay/target.rs"]
mod target;

/// As much of the host's as the file needs.
mod problem {
    pub struct Problem;

    impl Problem {
        pub fn two_readings(detail: impl Into<String>) -> Self {
            assert!(!detail.into().is_empty());
            Self
        }
    }
}

fuzz_target!(|input: &[u8]| {
    // Method, target and Host, a line each: what cannot come through a request line is not asked about.
    let mut lines = input.splitn(3, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (Ok(method), Ok(uri)) = (Method::from_bytes(line()), Uri::try_from(line())) else {
        return;
    };
    let host = line();
    if target::check(&method, &uri, host).is_err() {
        return;
    }
    assert!(
        host.iter()
            .all(|byte| byte.is_ascii_graphic() && !b",/?#@\\\"<>".contains(byte))
    );
    if method == Method::CONNECT {
        return;
    }
    if let Some(named) = uri.authority() {
        assert_eq!(uri.scheme_str(), Some("http"));
        assert!(named.as_str().as_bytes().eq_ignore_ascii_case(host));
        assert!(!named.as_str().contains('@'), "a user's name");
    }
    let path = uri.path();
    assert!(path.starts_with('/') || (path == "*" && method == Method::OPTIONS));
    for part in uri
        .path_and_query()
        .map_or("", |all| all.as_str())
        .split('%')
        .skip(1)
    {
        assert!(part.len() >= 2 && part.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit));
    }
});
