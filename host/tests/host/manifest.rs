//! `GET /v1/manifest`: the file's bytes, whole, the newest.

use hyper::{Method, StatusCode};

use crate::{
    client::{Answer, get, send, until},
    enclave::Enclave,
    run::Place,
};

const TARGET: &str = "/v1/manifest";

/// A manifest by its looks, which is all that a host knows.
fn manifest(payload: &str) -> String {
    format!(
        "{{\"mediaType\":\"m\",\"verificationMaterial\":{{}},\"dsseEnvelope\":{{\"payload\":\"{payload}\"}}}}\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_manifest_is_served_as_it_is_and_never_half() {
    let enclave = Enclave::start().await;
    let place = Place::new(enclave.public, enclave.control);
    let host = place.start().await;
    let address = host.address();
    let file = place.path("manifest.jsonl");

    let answer = get(address, TARGET).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert!(answer.problem().contains("no manifest"), "{answer:?}");

    let is = |text: &str| {
        let text = text.to_owned();
        move |answer: &Answer| answer.status == StatusCode::OK && answer.body == text.as_bytes()
    };
    let mut tags = Vec::new();
    for text in [manifest("one"), manifest("two").repeat(2)] {
        let new = place.path("new");
        std::fs::write(&new, &text).unwrap();
        std::fs::rename(&new, &file).unwrap();
        let answer = until(address, TARGET, "the newest", is(&text)).await;
        for (name, value) in [
            ("content-type", "application/jsonl"),
            ("cache-control", "no-cache"),
            ("access-control-allow-origin", "*"),
            ("access-control-expose-headers", "ETag, Retry-After"),
        ] {
            assert_eq!(answer.header(name), Some(value));
        }
        let tag = answer.header("etag").unwrap().to_owned();
        let head = send(address, Method::HEAD, TARGET, &[], b"").await;
        assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
        assert_eq!(head.header("etag"), Some(tag.as_str()));
        for has in [tag.clone(), format!("\"x\", W/{tag}"), "*".into()] {
            let headers = [("if-none-match", has.as_str())];
            let answer = send(address, Method::GET, TARGET, &headers, b"").await;
            let found = (answer.status, answer.body.len(), answer.header("etag"));
            assert_eq!(found, (StatusCode::NOT_MODIFIED, 0, Some(tag.as_str())));
        }
        tags.push(tag);
    }
    assert_ne!(tags[0], tags[1]);
    let headers = [("if-none-match", tags[0].as_str())];
    let answer = send(address, Method::GET, TARGET, &headers, b"").await;
    assert_eq!(answer.status, StatusCode::OK, "what he has is another");

    // Half a file, and one that is too large, are never seen; the one after them is.
    let good = manifest("two").repeat(2);
    let long = vec![b' '; (4 << 20) + 1];
    for bad in [&good.as_bytes()[..good.len() - 9], b"\x00", &long] {
        std::fs::write(&file, bad).unwrap();
        for _ in 0..10 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            assert!(is(&good)(&get(address, TARGET).await));
        }
    }
    std::fs::write(&file, manifest("three")).unwrap();
    until(address, TARGET, "the one after", is(&manifest("three"))).await;
    std::fs::remove_file(&file).unwrap();
    let gone = |answer: &Answer| answer.status == StatusCode::NOT_FOUND;
    until(address, TARGET, "gone", gone).await;

    for method in [Method::POST, Method::DELETE, Method::PUT] {
        let answer = send(address, method, TARGET, &[], b"").await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
        answer.problem();
    }
    let answer = get(address, "/v1/manifest?version=1").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    answer.problem();
    let preflight = send(address, Method::OPTIONS, TARGET, &[], b"").await;
    assert_eq!(preflight.status, StatusCode::NO_CONTENT);
    // All of it came from the host itself.
    let seen = enclave.seen.lock().unwrap().clone();
    assert!(!seen.iter().any(|to| to.contains("manifest")), "{seen:?}");
    host.stop().await;
}

/// The most that is served, at once to its last byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_longest_manifest_is_served() {
    let enclave = Enclave::start().await;
    let place = Place::new(enclave.public, enclave.control);
    let text = manifest(&"A".repeat((4 << 20) - manifest("").len()));
    assert_eq!(text.len(), 4 << 20);
    std::fs::write(place.path("manifest.jsonl"), &text).unwrap();
    let host = place.start().await;
    let answer = get(host.address(), TARGET).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.body == text.as_bytes());
    host.stop().await;
}
