//! Sessions: a TLS connection that ends inside, and nothing served on it before it is proven.

use std::{sync::Arc, time::Duration};

use hyper::Method;
use rustls::{
    HandshakeKind, ProtocolVersion, client::verify_server_name, pki_types::ServerName,
    server::ParsedCertificate,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;
use touchstone_formats::report_data::Purpose;

use super::{
    follower::Follower,
    source::{Mood, Source},
    support::{INFER, Running, body, no_models, until},
    tls::{Connection, LISTEN, config, handshake, request, resuming},
};

const SESSION: &str = "/v1/session";

#[tokio::test(flavor = "multi_thread")]
async fn a_session_binds_the_connection_that_answers_come_over() {
    let test = "a_session_binds_the_connection_that_answers_come_over";
    let Some((running, _models)) = Running::with_models(test, &[LISTEN], 0).await else {
        return;
    };
    let stream = handshake(running.tls(), Arc::new(config())).await.unwrap();
    let (_, tls) = stream.get_ref();
    assert_eq!(tls.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(tls.alpn_protocol(), Some(&b"http/1.1"[..]));
    let [certificate] = tls.peer_certificates().unwrap() else {
        panic!("one certificate")
    };
    let certificate = ParsedCertificate::try_from(certificate).unwrap();
    let name = ServerName::try_from("enclave.test").unwrap();
    verify_server_name(&certificate, &name).unwrap();

    let mut connection = Connection::over(stream).await;
    let answer = connection.session(0).await;
    assert_eq!(answer.evidence.purpose, Some(Purpose::Session));
    assert_eq!(
        answer.keyset.digest(),
        running.service.current().unwrap().digest
    );
    let reply = connection.client.infer(&[("prefer", "wait=5")]).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.touchstone().keyset, answer.keyset.digest());
    let mut follower = Follower::new(running.control).await;
    follower.until_sealed(1).await;
    let claims = &follower.log().receipts[0].claims;
    assert_eq!(claims.keyset_digest, answer.keyset.digest());
    assert_eq!(claims.cti, reply.touchstone().id);

    // A client without ALPN is as good.
    let mut silent = config();
    silent.alpn_protocols.clear();
    let stream = handshake(running.tls(), Arc::new(silent)).await.unwrap();
    Connection::over(stream).await.session(1).await;
    // One that speaks something else alone is not.
    let mut other = config();
    other.alpn_protocols = vec![b"h2".to_vec()];
    assert!(handshake(running.tls(), Arc::new(other)).await.is_err());
}

/// Targets of every kind, with the status that they have once there is a session.
fn targets() -> Vec<(Method, &'static str, u16)> {
    vec![
        (Method::GET, "/v2", 200),
        (Method::HEAD, "/v2", 200),
        (Method::GET, "/v2/health/live", 200),
        (Method::GET, "/v2/health/ready", 200),
        (Method::GET, "/v2/models/reciprocal", 200),
        (Method::GET, "/v2/models/none", 404),
        (Method::POST, INFER, 200),
        (Method::OPTIONS, INFER, 204),
        (Method::GET, "/v1/keyset", 200),
        (Method::GET, "/v1/objects/00", 400),
        (
            Method::GET,
            "/v1/receipts/00112233445566778899aabbccddeeff",
            404,
        ),
        (Method::GET, "/nothing", 404),
        (Method::GET, "/v1/session", 405),
        (Method::OPTIONS, "/v1/session", 204),
        (Method::DELETE, "/v1/session", 405),
        (Method::POST, "/v1/session?", 400),
        (Method::POST, "/v1/session/", 404),
        (Method::POST, "/v1/%73ession", 400),
        (Method::POST, "/v2", 405),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_answered_before_the_session() {
    let test = "nothing_is_answered_before_the_session";
    let Some((running, _models)) = Running::with_models(test, &[LISTEN], 0).await else {
        return;
    };
    let mut connection = Connection::new(running.tls()).await;
    let client = &mut connection.client;
    for (method, target, _) in targets() {
        let text = if method == Method::POST {
            body([1.0; 4])
        } else {
            String::new()
        };
        let reply = client.send(method.clone(), target, &[], text).await;
        assert_eq!(reply.status, 421, "{method} {target}");
        if method != Method::HEAD {
            assert!(reply.problem().contains("POST /v1/session"), "{reply:?}");
        }
        assert_eq!(reply.header("access-control-allow-origin"), "*");
        // It was not processed, and the connection goes on.
        assert!(!reply.headers.contains_key("connection"), "{reply:?}");
    }
    connection.session(0).await;
    for (method, target, status) in targets() {
        let text = if target == INFER && method == Method::POST {
            body([1.0; 4])
        } else {
            String::new()
        };
        let reply = connection
            .client
            .send(method.clone(), target, &[], text)
            .await;
        assert_eq!(reply.status, status, "{method} {target}");
        if target == "/v1/session" && status == 405 {
            assert_eq!(reply.header("allow"), "POST, OPTIONS");
        }
        if target == "/v1/session" && status == 204 {
            assert_eq!(
                reply.header("access-control-allow-methods"),
                "POST, OPTIONS"
            );
        }
    }
    // One question was answered, and its number is the first.
    let mut follower = Follower::new(running.control).await;
    follower.until_sealed(1).await;
    assert_eq!(follower.log().receipts[0].claims.sequence, 0);
    assert_eq!(follower.log().receipts.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_told_to_send_a_question_before_the_session() {
    let test = "nobody_is_told_to_send_a_question_before_the_session";
    let Some((running, _models)) = Running::with_models(test, &[LISTEN], 0).await else {
        return;
    };
    let json = body([1.0, 2.0, 4.0, 8.0]);
    let head = format!(
        "POST {INFER} HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        json.len()
    );
    for (established, expected) in [(true, "HTTP/1.1 100 "), (false, "HTTP/1.1 421 ")] {
        let mut stream = handshake(running.tls(), Arc::new(config())).await.unwrap();
        if established {
            let asked = request(0);
            let session = format!(
                "POST {SESSION} HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n{asked}",
                asked.len()
            );
            stream.write_all(session.as_bytes()).await.unwrap();
            assert_eq!(status(&mut stream).await, 200);
        }
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut said = vec![0; expected.len()];
        stream.read_exact(&mut said).await.unwrap();
        assert_eq!(String::from_utf8(said).unwrap(), expected);
        if established {
            // The rest of the head that says so, and the answer to what was waited with.
            stream.write_all(json.as_bytes()).await.unwrap();
            stream
                .read_exact(&mut [0; "Continue\r\n\r\n".len()])
                .await
                .unwrap();
            assert_eq!(status(&mut stream).await, 200);
        } else {
            let mut rest = String::new();
            stream.read_to_string(&mut rest).await.unwrap();
            assert!(rest.contains("connection: close"), "{rest}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_connection_has_an_exporter_of_its_own() {
    let running = Running::start(&[LISTEN], Source::new(Duration::ZERO), no_models()).await;
    let mut one = Connection::new(running.tls()).await;
    let mut other = Connection::new(running.tls()).await;
    assert_eq!(one.spki, other.spki, "one keyset, one key");
    assert_ne!(one.exporters, other.exporters);
    let (of_one, of_other) = (one.session(0).await, other.session(0).await);
    assert_eq!(of_one.keyset, of_other.keyset);
    assert!(one.is_bound(&of_one, 0) && other.is_bound(&of_other, 0));
    assert!(!one.is_bound(&of_other, 0) && !other.is_bound(&of_one, 0));

    // Proven again, on the same connection: another quote, for the nonce of this time alone.
    let again = one.session(1).await;
    assert!(one.is_bound(&again, 1) && !one.is_bound(&again, 0));
    assert!(one.is_bound(&of_one, 0) && !one.is_bound(&of_one, 1));
    assert_eq!(again.keyset, of_one.keyset);
    assert_eq!(one.client.get("/v2").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_for_a_session_that_are_not_as_they_should_be() {
    let running = Running::start(&[LISTEN], Source::new(Duration::ZERO), no_models()).await;
    let good = request(0);
    let json = ("content-type", "application/json");
    let bad = [
        (400, good.replace("a0a0\"", "\""), vec![]),
        (400, good.replace("a0a0\"", "a0a0a0\""), vec![]),
        (400, good.replace("a0a0", "A0A0"), vec![]),
        (400, good.replace("session/1", "session/2"), vec![]),
        (400, good.replace("{\"nonce", "{\"a\":1,\"nonce"), vec![]),
        (400, good.replace(':', ": "), vec![]),
        (
            400,
            good.replace("\"v\":", "\"nonce\":\"00\",\"v\":"),
            vec![],
        ),
        (400, String::new(), vec![]),
        (400, "{}".into(), vec![]),
        (400, good.repeat(2), vec![]),
        (413, " ".repeat(1_025), vec![]),
        (415, good.clone(), vec![("content-type", "text/plain")]),
        (400, good.clone(), vec![json, json]),
        (415, good.clone(), vec![("content-encoding", "gzip")]),
        (
            400,
            good.clone(),
            vec![
                ("inference-header-content-length", "10"),
                ("content-type", "application/octet-stream"),
            ],
        ),
    ];
    // On one connection, before its session and after it.
    let mut connection = Connection::new(running.tls()).await;
    for established in [false, true] {
        for (status, text, headers) in &bad {
            let client = &mut connection.client;
            let send = client.send(Method::POST, SESSION, headers, text.clone());
            let reply = send.await;
            assert_eq!(reply.status, *status, "{text} {headers:?}");
            reply.problem();
            assert!(!reply.headers.contains_key("connection"), "{reply:?}");
        }
        let asked = running.source.asked().len();
        let expected = if established { 200 } else { 421 };
        assert_eq!(connection.client.get("/v2").await.status, expected);
        connection.session(0).await;
        assert_eq!(
            running.source.asked().len(),
            asked + 1,
            "no quote for any of them"
        );
    }
    // What is as good: no newline, and a type that says what it is.
    let unterminated = good.trim_end().to_owned();
    let client = &mut connection.client;
    let reply = client
        .send(Method::POST, SESSION, &[json], unterminated)
        .await;
    assert_eq!(reply.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plain_listener_has_no_sessions() {
    let running = Running::start(&[LISTEN], Source::new(Duration::ZERO), no_models()).await;
    let mut client = running.client().await;
    let reply = client.send(Method::POST, SESSION, &[], request(0)).await;
    assert_eq!(reply.status, 421);
    assert!(
        reply.problem().contains("this connection is none"),
        "{reply:?}"
    );
    assert_eq!(client.get(SESSION).await.status, 405);
    assert_eq!(client.get("/v2").await.status, 200);
    assert!(client.get("/v1/keyset").await.json()["tls_spki_sha256"].is_string());

    // Nor has an enclave without a listener for TLS, whose keyset names no key.
    let running = Running::start(&[], Source::new(Duration::ZERO), no_models()).await;
    let mut client = running.client().await;
    let reply = client.send(Method::POST, SESSION, &[], request(0)).await;
    assert_eq!(reply.status, 421);
    let keyset = client.get("/v1/keyset").await.json();
    assert!(!keyset.as_object().unwrap().contains_key("tls_spki_sha256"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_ticket_is_given_and_every_handshake_is_full() {
    let running = Running::start(&[LISTEN], Source::new(Duration::ZERO), no_models()).await;
    let (config, tickets) = resuming();
    let config = Arc::new(config);
    for _ in 0..2 {
        let stream = handshake(running.tls(), config.clone()).await.unwrap();
        assert_eq!(
            stream.get_ref().1.handshake_kind(),
            Some(HandshakeKind::Full)
        );
        let mut connection = Connection::over(stream).await;
        // Tickets come after the handshake: by the time of an answer they would be there.
        connection.session(0).await;
        assert_eq!(tickets.given(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_with_its_keyset() {
    let test = "a_connection_ends_with_its_keyset";
    let Some((running, _models)) = Running::with_models(test, &[LISTEN], 0).await else {
        return;
    };
    let mut proven = Connection::attested(running.tls()).await;
    let mut unproven = Connection::new(running.tls()).await;
    let mut other = Connection::attested(running.tls()).await;
    let old = proven.session(1).await.keyset;
    assert_eq!(proven.client.infer(&[]).await.status, 200);
    let first = Arc::downgrade(&running.service.current().unwrap());

    running.service.rotate().await.unwrap();
    let replies = [
        proven.client.infer(&[]).await,
        unproven.ask(0).await,
        other.client.get("/v2/health/live").await,
    ];
    for reply in replies {
        assert_eq!(reply.status, 421);
        assert!(reply.problem().contains("another keyset"), "{reply:?}");
        assert_eq!(reply.header("connection"), "close");
    }
    for connection in [&mut proven, &mut unproven, &mut other] {
        connection.client.closed().await;
    }
    // No connection keeps the old keyset's keys.
    until("the end of the old keyset", async || {
        first.upgrade().is_none()
    })
    .await;

    let mut anew = Connection::new(running.tls()).await;
    assert_ne!(anew.spki, proven.spki);
    let answer = anew.session(0).await;
    assert_eq!(answer.keyset.previous, Some(old.digest()));
    let reply = anew.client.infer(&[("prefer", "wait=5")]).await;
    assert_eq!(reply.touchstone().keyset, answer.keyset.digest());
    let mut follower = Follower::new(running.control).await;
    follower.until_sealed(2).await;
    for digest in [old.digest(), answer.keyset.digest()] {
        assert_eq!(follower.logs[&digest].receipts.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_when_the_keyset_changes_is_not_let_in_under_the_next() {
    let test = "what_is_under_way_when_the_keyset_changes_is_not_let_in_under_the_next";
    let Some((running, _models)) = Running::with_models(test, &[LISTEN], 0).await else {
        return;
    };
    // An inference whose body is half there when the keyset changes, and its twin when it does not.
    let json = body([1.0, 2.0, 4.0, 8.0]);
    let session = request(0);
    let mut stream = handshake(running.tls(), Arc::new(config())).await.unwrap();
    let head = format!(
        "POST {SESSION} HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n{session}",
        session.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(status(&mut stream).await, 200);
    let head = format!(
        "POST {INFER} HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n",
        json.len()
    );
    let (first, rest) = json.split_at(10);
    for (rotates, expected) in [(false, 200), (true, 421)] {
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(first.as_bytes()).await.unwrap();
        until("the request is in", async || {
            running.service.held.bytes() == first.len()
        })
        .await;
        if rotates {
            running.service.rotate().await.unwrap();
        }
        stream.write_all(rest.as_bytes()).await.unwrap();
        assert_eq!(status(&mut stream).await, expected);
    }
    // Closed by the enclave: properly, so that nobody can have cut the answer off.
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
    // No number was spent on it.
    let reply = running.client().await.infer(&[("prefer", "wait=5")]).await;
    assert_eq!(reply.status, 200);
    let mut follower = Follower::new(running.control).await;
    follower.until_sealed(2).await;
    let receipts = &follower.logs[&reply.touchstone().keyset].receipts;
    assert_eq!((receipts.len(), receipts[0].claims.sequence), (1, 0));

    // A session that waits for its quote: made under the old keyset, worth nothing under the next.
    running.source.hold();
    let mut waiting = Connection::new(running.tls()).await;
    let asked = running.source.asked().len();
    let service = running.service.clone();
    let rotated = tokio::spawn(async move { service.rotate().await });
    until("the boot quote is being made", async || {
        running.source.asked().len() > asked
    })
    .await;
    let asking = tokio::spawn(async move {
        let reply = waiting.ask(0).await;
        (waiting, reply)
    });
    until("its caller is in line", async || {
        running.service.held.bytes() > 0
    })
    .await;
    running.source.release_one();
    rotated.await.unwrap().unwrap();
    running.source.release();
    let (mut waiting, reply) = asking.await.unwrap();
    assert_eq!((reply.status, reply.header("connection")), (421, "close"));
    waiting.client.closed().await;
}

/// The status of the next answer on a raw stream, all of which is read.
async fn status(stream: &mut TlsStream<TcpStream>) -> u16 {
    let mut answer = Vec::new();
    loop {
        let mut buffer = [0; 4_096];
        let read = stream.read(&mut buffer).await.unwrap();
        assert_ne!(read, 0, "closed before the answer was whole");
        answer.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&answer);
        let Some((head, rest)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.split("content-length: ").nth(1).unwrap();
        let length: usize = length.lines().next().unwrap().parse().unwrap();
        if rest.len() >= length {
            return head["HTTP/1.1 ".len()..][..3].parse().unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_keyset_in_force_there_is_no_handshake() {
    let source = Source::new(Duration::ZERO);
    source.set(Mood::Fails);
    let running = Running::unbooted(&[LISTEN], source, no_models()).await;
    let service = running.service.clone();
    let boot = tokio::spawn(async move { service.boot().await });
    until("a try", async || !running.source.asked().is_empty()).await;
    let refused = handshake(running.tls(), Arc::new(config())).await;
    assert!(
        refused.is_err(),
        "no key that no quote is about makes a handshake"
    );
    running.source.set(Mood::Works);
    boot.await.unwrap().unwrap();
    let mut connection = Connection::attested(running.tls()).await;

    // Nor is there a new session when it is being shut down, but connections may take their last answers.
    running.service.drain().await;
    let reply = connection.ask(1).await;
    assert_eq!(reply.status, 503);
    assert!(reply.problem().contains("shut down"), "{reply:?}");
    assert_eq!(connection.client.get("/v1/keyset").await.status, 200);
    assert!(handshake(running.tls(), Arc::new(config())).await.is_err());
}
