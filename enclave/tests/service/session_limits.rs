//! Sessions and TLS connections met by platforms that fail and by clients that keep to no bounds.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use enclave::quote::{QuoteSettings, Quoter};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    source::{Mood, Source},
    support::{Running, no_models, until},
    tls::{Connection, LISTEN, config, handshake, request},
};

/// A service without models whose first seal is made: nothing asks for quotes but what the test does.
async fn quiet(changes: &[&str]) -> Running {
    let changes = [changes, &[LISTEN, "seal.interval_ms = 1"]].concat();
    let running = Running::start(&changes, Source::new(Duration::ZERO), no_models()).await;
    until("the first seal", async || running.source.asked().len() == 2).await;
    running
}

#[tokio::test(flavor = "multi_thread")]
async fn without_quotes_there_are_no_sessions() {
    let running = quiet(&["quote.retries = 0"]).await;
    let mut connections = Vec::new();
    for _ in 0..3 {
        connections.push(Connection::new(running.tls()).await);
    }
    let refused = |reply: super::support::Reply| {
        assert_eq!(reply.status, 503);
        assert_eq!(reply.header("retry-after"), "5");
        assert!(reply.problem().contains("gives no quotes"), "{reply:?}");
    };
    // The source begins to fail while they wait: nobody is left waiting, not even those behind the first.
    running.source.set(Mood::Fails);
    running.source.latency(Duration::from_millis(200));
    let mut tasks = Vec::new();
    for mut connection in connections {
        tasks.push(tokio::spawn(async move {
            let started = Instant::now();
            let reply = connection.ask(0).await;
            (connection, reply, started.elapsed())
        }));
    }
    let mut connections = Vec::new();
    for task in tasks {
        let (connection, reply, took) = task.await.unwrap();
        refused(reply);
        assert!(took < Duration::from_secs(2), "{took:?}");
        connections.push(connection);
    }
    assert!(running.service.quoter.failing());
    // Refused at once: no try of the source ends before.
    running.source.hold();
    let started = Instant::now();
    refused(connections[0].ask(0).await);
    assert!(started.elapsed() < Duration::from_secs(4));
    running.source.release();
    for connection in &mut connections {
        assert_eq!(connection.client.get("/v2").await.status, 421);
    }
    // Nobody waits for a quote any more, and that the source works again is noticed all the same.
    running.source.latency(Duration::ZERO);
    running.source.set(Mood::Works);
    running.service.quoter.wait_failing(false).await;
    for connection in &mut connections {
        connection.session(0).await;
        assert_eq!(connection.client.get("/v2").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_hangs_or_lies_leaves_the_connection_unproven() {
    for mood in [Mood::Hangs, Mood::Lies, Mood::Short] {
        let running = quiet(&["quote.timeout_ms = 100"]).await;
        let mut connection = Connection::new(running.tls()).await;
        running.source.set(mood);
        let reply = connection.ask(0).await;
        assert_eq!(reply.status, 503, "{mood:?}");
        assert_eq!(connection.client.get("/v2").await.status, 421);
        running.source.set(Mood::Works);
        running.service.quoter.wait_failing(false).await;
        connection.session(0).await;
        // One that was proven stays so when proving it again fails.
        running.source.set(mood);
        assert_eq!(connection.ask(1).await.status, 503);
        assert_eq!(connection.client.get("/v2").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_sessions_may_wait_and_no_more() {
    let running = quiet(&["quote.sessions = 2", "quote.timeout_ms = 30000"]).await;
    running.source.hold();
    let before = running.source.asked().len();
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let mut connection = Connection::new(running.tls()).await;
        waiting.push(tokio::spawn(async move { connection.ask(0).await }));
    }
    let mut connection = Connection::new(running.tls()).await;
    // To try for one would take it from those who are on their way.
    let asked = request(0).len();
    until("the places are taken", async || {
        running.service.held.bytes() == 2 * asked
    })
    .await;
    let reply = connection.ask(0).await;
    assert_eq!(reply.status, 503);
    assert_eq!(reply.header("retry-after"), "1");
    assert!(reply.problem().contains("too many callers"), "{reply:?}");
    assert_eq!(connection.client.get("/v2").await.status, 421);
    // Those who hang up make room: one quote is under way, the other is never asked for.
    for task in waiting {
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    }
    until("they are gone", async || running.service.held.bytes() == 0).await;
    running.source.release();
    until("room", async || {
        running.service.quoter.reserve_session().is_some()
    })
    .await;
    connection.session(0).await;
    assert_eq!(running.source.asked().len(), before + 2);
}

/// On one thread: whoever counts himself is in his line before anybody else can look.
#[tokio::test]
async fn three_lines_take_turns() {
    let source = Arc::new(Source::new(Duration::from_millis(20)));
    let settings = QuoteSettings {
        timeout: Duration::from_secs(30),
        retries: 0,
        queue: 64,
        sessions: 64,
    };
    let quoter = Arc::new(Quoter::start(source.clone(), settings));
    let in_line = Arc::new(AtomicUsize::new(0));
    let mut tasks = Vec::new();
    let mut spawn = |line: u8, number: u8| {
        let (quoter, in_line) = (quoter.clone(), in_line.clone());
        let mut data = [line; 64];
        data[1] = number;
        tasks.push(tokio::spawn(async move {
            in_line.fetch_add(1, Ordering::SeqCst);
            match line {
                b'S' => quoter.seal(data).await,
                b'R' => {
                    quoter
                        .receipt(quoter.reserve_receipt().unwrap(), data)
                        .await
                }
                _ => {
                    let slot = quoter.reserve_session().unwrap();
                    quoter.session(slot, data).await.unwrap()
                }
            };
        }));
    };
    // While the first is made the lines fill, of unequal length.
    source.hold();
    spawn(b'S', 0);
    until("the first", async || source.asked().len() == 1).await;
    for number in 1..=8 {
        spawn(b'T', number);
        if number <= 4 {
            spawn(b'R', number);
        }
        if number <= 2 {
            spawn(b'S', number);
        }
    }
    until("all are in line", async || {
        in_line.load(Ordering::SeqCst) == 15
    })
    .await;
    source.release();
    for task in tasks {
        task.await.unwrap();
    }
    let order: Vec<u8> = source.asked().iter().map(|data| data[0]).collect();
    assert_eq!(String::from_utf8(order).unwrap(), "SRTSRTSRTRTTTTT");
    assert!(!source.overlapped());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_sessions_takes_its_turn_and_no_more() {
    let test = "a_flood_of_sessions_takes_its_turn_and_no_more";
    let Some((running, _models)) = Running::with_models(test, &[LISTEN], 100).await else {
        return;
    };
    let mut floods = Vec::new();
    for _ in 0..24 {
        let mut connection = Connection::new(running.tls()).await;
        floods.push(tokio::spawn(async move {
            loop {
                assert_eq!(connection.ask(0).await.status, 200);
            }
        }));
    }
    until("the flood", async || running.source.asked().len() > 5).await;
    let mut client = running.client().await;
    for _ in 0..3 {
        let before = running.source.asked().len();
        let reply = client
            .infer(&[
                ("touchstone", "require=(logged signed)"),
                ("prefer", "wait=10"),
            ])
            .await;
        assert_eq!(
            reply.touchstone().state,
            touchstone_formats::headers::State::Sealed
        );
        // The quote under way, the seal's own, and at most one more session's before and after it.
        let quotes = running.source.asked().len() - before;
        assert!(quotes <= 3, "{quotes} quotes");
    }
    for flood in &floods {
        assert!(!flood.is_finished(), "the flood goes on");
        flood.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_are_bounded_in_number_and_time() {
    let running = quiet(&["limits.header_timeout_ms = 2500", "limits.connections = 4"]).await;
    let hello = client_hello();
    // Silent, stopped in a record's head, in its content, and after the enclave's half of the handshake.
    let mut held = Vec::new();
    for start in [&hello[..0], &hello[..3], &hello[..hello.len() / 2], &hello] {
        let mut stream = TcpStream::connect(running.tls()).await.unwrap();
        stream.write_all(start).await.unwrap();
        held.push(stream);
    }
    let started = Instant::now();
    let late = handshake(running.tls(), Arc::new(config())).await;
    assert!(late.is_err(), "all places are taken");
    assert!(started.elapsed() < Duration::from_secs(2), "at once");
    for mut stream in held {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest));
        assert!(ended.await.is_ok(), "not closed");
    }
    // Whoever makes a handshake and then asks nothing goes, too.
    let mut idle = Connection::new(running.tls()).await;
    idle.client.closed().await;
    let mut connection = Connection::attested(running.tls()).await;
    assert_eq!(connection.client.get("/v2").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_tls_1_3_is_refused() {
    let running = quiet(&[]).await;
    let hello = client_hello();
    let mut huge = hello.clone();
    huge[3..5].copy_from_slice(&[0xff, 0xff]);
    let http = b"POST /v1/session HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\n\r\n".to_vec();
    for (bytes, alert) in [
        // protocol_version
        (tls12_hello(), Some([21, 3, 3, 0, 2, 2, 70].to_vec())),
        (http, None),
        (vec![0x16; 4_096], None),
        (vec![0; 4_096], None),
        (huge, None),
        ([&hello[..], &hello[..]].concat(), None),
    ] {
        let answer = exchange(&running, &bytes).await;
        let text = String::from_utf8_lossy(&answer);
        assert!(!text.contains("HTTP/1.1"), "{text}");
        assert!(alert.is_none_or(|alert| answer == alert), "{answer:?}");
    }
    Connection::attested(running.tls()).await;
}

/// Writes bytes and reads until the enclave closes the connection, which it must soon do.
async fn exchange(running: &Running, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(running.tls()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let read = async {
        let mut buffer = [0; 4_096];
        // What is not read may be answered with a reset, after the alert.
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            answer.extend_from_slice(&buffer[..read]);
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(5), read).await;
    assert!(ended.is_ok(), "not closed after {bytes:?}");
    answer
}

/// The first record of a good client.
fn client_hello() -> Vec<u8> {
    let name = rustls::pki_types::ServerName::try_from("enclave.test").unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config()), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

/// A ClientHello of TLS 1.2 (RFC 5246 §7.4.1.2), with what a server of that version would need.
fn tls12_hello() -> Vec<u8> {
    let extensions = [
        &[0, 10, 0, 4, 0, 2, 0, 23][..], // supported_groups: secp256r1
        &[0, 11, 0, 2, 1, 0],            // ec_point_formats: uncompressed
        &[0, 13, 0, 4, 0, 2, 4, 3],      // signature_algorithms: ecdsa_secp256r1_sha256
        &[0, 23, 0, 0],                  // extended_master_secret
        &[0xff, 1, 0, 1, 0],             // renegotiation_info
    ]
    .concat();
    let mut body = [3, 3].to_vec();
    body.extend([7; 32]);
    body.push(0); // session_id
    body.extend([0, 2, 0xc0, 0x2b]); // ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
    body.extend([1, 0]); // compression: null
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let length = (body.len() as u32).to_be_bytes();
    let handshake = [&[1][..], &length[1..], &body].concat();
    let length = (handshake.len() as u16).to_be_bytes();
    [&[0x16, 3, 1][..], &length, &handshake].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_does_not_read_is_cut_off() {
    let changes = ["limits.write_timeout_ms = 200", "limits.connections = 1"];
    let running = quiet(&changes).await;
    let mut stream = handshake(running.tls(), Arc::new(config())).await.unwrap();
    let requests = "GET /v1/keyset HTTP/1.1\r\nhost: t\r\n\r\n".repeat(2_000);
    let flood = tokio::spawn(async move {
        for _ in 0..200 {
            if stream.write_all(requests.as_bytes()).await.is_err() {
                break;
            }
        }
        tokio::time::sleep(Duration::from_secs(30)).await;
        drop(stream);
    });
    until("its place is free", async || {
        handshake(running.tls(), Arc::new(config())).await.is_ok()
    })
    .await;
    flood.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_handshake_does_not_hold_the_end_up() {
    let running = quiet(&[]).await;
    let mut half = TcpStream::connect(running.tls()).await.unwrap();
    half.write_all(&client_hello()[..10]).await.unwrap();
    let mut idle = Connection::attested(running.tls()).await;
    running.stop.send_replace(true);
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(3), half.read_to_end(&mut rest));
    assert!(ended.await.is_ok(), "not closed");
    idle.client.closed().await;
    until("nobody is let in", async || {
        TcpStream::connect(running.tls()).await.is_err()
    })
    .await;
}
