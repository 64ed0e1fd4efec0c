//! Sealed requests through a host with several enclaves. What is sealed here is not: the host cannot tell.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use host::{Host, config::Config, fleet::Condition};
use hyper::{Method, StatusCode};
use serde_json::Value;
use touchstone_formats::{
    Digest,
    session::{BOOT_TARGET, OHTTP_TARGET},
};

use crate::{
    client::{Answer, send},
    enclave::Enclave,
    fleet::{Two, all_are, is},
    run::Place,
};

async fn sealed(address: SocketAddr, keyset: Digest) -> Answer {
    sealed_as(address, keyset, b"sealed").await
}

async fn sealed_as(address: SocketAddr, keyset: Digest, body: &[u8]) -> Answer {
    let headers = [
        ("content-type", "message/ohttp-req"),
        ("touchstone-keyset", &keyset.to_string()),
    ];
    send(address, Method::POST, OHTTP_TARGET, &headers, body).await
}

async fn boot(address: SocketAddr) -> Digest {
    let answer = send(address, Method::POST, BOOT_TARGET, &[], b"nonce").await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    Digest::from_hex(std::str::from_utf8(&answer.body).unwrap()).unwrap()
}

/// The caller is told to prove another keyset, in the words of RFC 9458 §5.3, and that there is one.
fn asks_for_another_key(answer: &Answer) -> bool {
    if answer.status != StatusCode::UNPROCESSABLE_ENTITY {
        return false;
    }
    let document: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(
        document["type"],
        "https://iana.org/assignments/http-problem-types#ohttp-key"
    );
    assert_eq!(document["status"], 422);
    answer.header("content-type") == Some("application/problem+json")
}

fn at(two: &Two) -> (usize, usize) {
    (two.a.seen_of(OHTTP_TARGET), two.b.seen_of(OHTTP_TARGET))
}

/// A host that looks at its enclaves when there is a reason to, and otherwise once.
async fn looks_once(place: &Place) -> Host {
    let settings = place
        .settings()
        .replace("health_interval_ms = 50", "health_interval_ms = 60000");
    let host = Host::start(&Config::parse(&settings).unwrap()).await;
    let host = host.unwrap();
    all_are(&host, Condition::Serving).await;
    host
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_request_goes_to_the_enclave_that_opens_it() {
    let (two, host) = Two::started().await;
    let address = host.address();
    // However busy that one is.
    two.a.answers_after(Duration::from_millis(300));
    let slow: Vec<_> = (0..4)
        .map(|_| tokio::spawn(sealed(address, two.a.keyset_digest())))
        .collect();
    for _ in 0..4 {
        let answer = sealed(address, two.b.keyset_digest()).await;
        assert_eq!(
            (answer.status, &answer.body[..]),
            (StatusCode::OK, &b"sealed"[..])
        );
    }
    for answer in slow {
        assert_eq!(answer.await.unwrap().status, StatusCode::OK);
    }
    assert_eq!(at(&two), (4, 4));
    // For a keyset that nobody has it goes nowhere.
    let answer = sealed(address, Digest::of(b"nobody's")).await;
    assert!(asks_for_another_key(&answer), "{answer:?}");
    // Nor does it without a keyset, or with two.
    let (a, b) = (two.a.keyset_digest(), two.b.keyset_digest());
    let (a, b) = (a.to_string(), b.to_string());
    let named = |hex| ("touchstone-keyset", hex);
    for headers in [
        vec![],
        vec![named(&*a), named(&*b)],
        vec![named(&*a), named(&*a)],
        vec![named(&a[1..])],
    ] {
        let answer = send(address, Method::POST, OHTTP_TARGET, &headers, b"x").await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert!(answer.problem().contains("Touchstone-Keyset"));
    }
    assert_eq!(at(&two), (4, 4));
    host.stop().await;
}

/// One enclave alone says itself what it opens.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_one_enclave_it_goes_there() {
    let enclave = Enclave::start().await;
    let host = Place::new(enclave.public, enclave.control).start().await;
    all_are(&host, Condition::Serving).await;
    let address = host.address();
    let answer = send(address, Method::POST, OHTTP_TARGET, &[], b"sealed").await;
    assert_eq!(answer.status, StatusCode::OK);
    // The enclave's own answer, not the host's.
    let answer = sealed(address, Digest::of(b"nobody's")).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!((answer.body.len(), enclave.seen_of(OHTTP_TARGET)), (0, 2));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keyset_that_came_into_force_just_now_is_found() {
    let two = Two::new().await;
    let host = looks_once(&two.place).await;
    let before = two.a.keyset_digest();
    two.a.rotate();
    let after = two.a.keyset_digest();
    assert_ne!(before, after);
    let answer = sealed(host.address(), after).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(at(&two), (1, 0));
    // The one before is nobody's any more.
    let answer = sealed(host.address(), before).await;
    assert!(asks_for_another_key(&answer), "{answer:?}");
    assert_eq!(at(&two), (1, 0));
    host.stop().await;
}

/// Whatever becomes of it, and though another enclave is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_request_is_sent_once_or_not_at_all() {
    for length in [8, 100_000] {
        let two = Two::new().await;
        let host = looks_once(&two.place).await;
        let address = host.address();
        let keyset = two.a.keyset_digest();
        let body = vec![7; length];
        let answer = sealed_as(address, keyset, &body).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        assert_eq!(at(&two), (1, 0));

        // Broken off: it may have been processed, and nobody says otherwise.
        for enclave in [&two.a, &two.b] {
            enclave.break_off(|method, _| method == Method::POST);
        }
        let answer = sealed_as(address, keyset, &body).await;
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
        assert!(answer.problem().contains("may have been processed"));
        assert_eq!(at(&two), (2, 0));

        // Not admitted, by one that goes on: its own word, and later is a better time.
        two.a.refuses(true);
        let answer = sealed_as(address, keyset, &body).await;
        assert_eq!(
            (answer.status, answer.body.len()),
            (StatusCode::SERVICE_UNAVAILABLE, 0)
        );
        assert_eq!(at(&two), (3, 0));

        // Not admitted, by one that was told to stop: there is another keyset to be had.
        two.a.drains();
        let answer = sealed_as(address, keyset, &body).await;
        assert!(asks_for_another_key(&answer), "{answer:?}");
        assert_eq!(at(&two), (4, 0));
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_its_enclave_is_gone_another_keyset_is_to_be_had() {
    let two = Two::new().await;
    let host = looks_once(&two.place).await;
    let address = host.address();
    let (of_a, of_b) = (two.a.keyset_digest(), two.b.keyset_digest());
    // The host finds out by this very request.
    two.a.die().await;
    let answer = sealed(address, of_a).await;
    assert!(asks_for_another_key(&answer), "{answer:?}");
    is(&host, 0, Condition::Away).await;
    let answer = sealed(address, of_a).await;
    assert!(asks_for_another_key(&answer), "{answer:?}");
    assert_eq!(boot(address).await, of_b);
    assert_eq!(sealed(address, of_b).await.status, StatusCode::OK);
    assert_eq!(at(&two), (0, 1));
    // None is left: no keyset is to be had either.
    two.b.die().await;
    host.fleet().members()[1].look_again();
    is(&host, 1, Condition::Away).await;
    for keyset in [of_b, of_a] {
        let answer = sealed(address, keyset).await;
        assert_eq!(
            (answer.status, answer.header("retry-after")),
            (StatusCode::SERVICE_UNAVAILABLE, Some("1"))
        );
        answer.problem();
    }
    assert_eq!(at(&two), (0, 1));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boot_evidence_is_that_of_the_enclave_with_the_least_to_do() {
    let (two, host) = Two::started().await;
    let address = host.address();
    // With nothing to do, each in its turn, whatever is sealed in between.
    let (mut of_a, mut of_b) = (0, 0);
    for _ in 0..4 {
        let keyset = boot(address).await;
        match keyset == two.a.keyset_digest() {
            true => of_a += 1,
            false => of_b += 1,
        }
        assert_eq!(sealed(address, keyset).await.status, StatusCode::OK);
    }
    assert_eq!((of_a, of_b), (2, 2));
    two.a.answers_after(Duration::from_secs(4));
    let slow: Vec<_> = (0..3)
        .map(|_| tokio::spawn(sealed(address, two.a.keyset_digest())))
        .collect();
    let end = tokio::time::Instant::now() + Duration::from_secs(10);
    while host.fleet().members()[0].requests() < 3 {
        assert!(tokio::time::Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for _ in 0..6 {
        assert_eq!(boot(address).await, two.b.keyset_digest());
    }
    for answer in slow {
        assert_eq!(answer.await.unwrap().status, StatusCode::OK);
    }
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sealed_requests_count_for_their_client() {
    let two = Two::new().await;
    let place = two.place.with("", "client_in_flight = 2");
    let host = place.start().await;
    all_are(&host, Condition::Serving).await;
    let (address, keyset) = (host.address(), two.a.keyset_digest());
    two.a.answers_after(Duration::from_secs(3));
    let requests: Vec<_> = (0..3)
        .map(|_| tokio::spawn(sealed(address, keyset)))
        .collect();
    let mut turned_away = 0;
    for answer in requests {
        let answer = answer.await.unwrap();
        match answer.status {
            StatusCode::TOO_MANY_REQUESTS => turned_away += 1,
            status => assert_eq!(status, StatusCode::OK, "{answer:?}"),
        }
    }
    assert_eq!((turned_away, two.a.seen_of(OHTTP_TARGET)), (1, 2));
    host.stop().await;
}

/// One after the other is drained, stopped and started anew, while callers do as clients do: told to, they ask for
/// another keyset, and seal to it, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rolling_restart_fails_no_sealed_request() {
    let (two, host) = Two::started().await;
    two.a.answers_after(Duration::from_millis(10));
    let address = host.address();
    let stop = Arc::new(AtomicBool::new(false));
    let proven_anew = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..6)
        .map(|_| {
            let (stop, proven_anew) = (stop.clone(), proven_anew.clone());
            tokio::spawn(async move {
                let (mut keyset, mut answered) = (boot(address).await, 0);
                while !stop.load(SeqCst) {
                    let mut answer = sealed(address, keyset).await;
                    if answer.status == StatusCode::UNPROCESSABLE_ENTITY {
                        proven_anew.fetch_add(1, SeqCst);
                        keyset = boot(address).await;
                        answer = sealed(address, keyset).await;
                    }
                    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    for (number, name, enclave) in [(0, "a", &two.a), (1, "b", &two.b), (0, "a", &two.a)] {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let within = Duration::from_secs(10);
        host.fleet().drain(name, within, false).await.unwrap();
        enclave.die().await;
        is(&host, number, Condition::Away).await;
        enclave.rise().await;
        is(&host, number, Condition::Serving).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.store(true, SeqCst);
    let mut answered = 0;
    for caller in callers {
        answered += caller.await.unwrap();
    }
    // All of them had to go from b to a, at least.
    assert!(proven_anew.load(SeqCst) >= 6 && answered > 50, "{answered}");
    host.stop().await;
}
