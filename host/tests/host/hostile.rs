//! Enclaves that mean no good, or are broken: what they answer is passed on whole and in one reading, or not at all.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    client::{get, raw},
    raw::{RawEnclave, Then, nobody},
    run::Place,
};

const GET: &str = "GET /x HTTP/1.1\r\nHost: h\r\n\r\n";
const HEAD: &str = "HEAD /x HTTP/1.1\r\nHost: h\r\n\r\n";

/// Answers whose end, or whose content, two readers could take for different ones; and twins that have one reading.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_with_two_readings_are_not_passed_on() {
    let chunks = "2\r\nok\r\n0\r\n\r\n";
    let with = |fields: &str, body: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}");
    let cases = [
        (
            "a length beside chunks",
            GET,
            with(
                "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
                chunks,
            ),
            with("Transfer-Encoding: chunked\r\n", chunks),
        ),
        (
            "chunks beside a length",
            GET,
            with(
                "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
                chunks,
            ),
            with("Transfer-Encoding: Chunked\r\n", chunks),
        ),
        (
            "a length twice",
            GET,
            with("Content-Length: 2\r\nContent-Length: 2\r\n", "ok"),
            with("Content-Length: 2\r\n", "ok"),
        ),
        (
            "two lengths of what is not sent",
            HEAD,
            with("Content-Length: 2\r\nContent-Length: 3\r\n", ""),
            with("Content-Length: 2\r\n", ""),
        ),
        (
            "a list of lengths",
            GET,
            with("Content-Length: 2, 2\r\n", "ok"),
            with("Content-Length: 02\r\n", "ok"),
        ),
        (
            "another coding, in chunks",
            GET,
            with("Transfer-Encoding: gzip, chunked\r\n", chunks),
            with("Transfer-Encoding: chunked\r\n", chunks),
        ),
        (
            "another coding, to the end",
            GET,
            with("Transfer-Encoding: gzip\r\n", "ok"),
            with("Transfer-Encoding: chunked\r\n", chunks),
        ),
        (
            "no end but the connection's, which may have come too soon",
            GET,
            with("", "ok"),
            with("Content-Length: 0\r\n", ""),
        ),
        (
            "another protocol, for which nobody asked",
            GET,
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nx".into(),
            with(
                "Connection: upgrade\r\nUpgrade: x\r\nContent-Length: 1\r\n",
                "x",
            ),
        ),
        (
            "a line that goes on in the next",
            GET,
            with("X: a\r\n b\r\nContent-Length: 2\r\n", "ok"),
            with("X: a b\r\nContent-Length: 2\r\n", "ok"),
        ),
    ];
    let both = cases.iter().flat_map(|(_, _, bad, good)| [bad, good]);
    let enclave = RawEnclave::start(both.map(|said| Then::SayAndClose(said.clone().into()))).await;
    let place = Place::new(enclave.address, nobody().await);
    let host = place.start().await;
    for (what, request, bad, good) in &cases {
        for (said, status) in [(bad, "502"), (good, "200")] {
            let answer = raw(host.address(), request.as_bytes()).await;
            let text = answer.escape_ascii().to_string();
            let expected = format!("HTTP/1.1 {status} ");
            assert!(text.starts_with(&expected), "{what}: {said:?}: {text}");
            assert_eq!(text.matches("HTTP/1.").count(), 1, "{what}: {text}");
        }
    }
    host.stop().await;
}

/// An enclave that takes connections and ends them at once, or as soon as it has answered: whatever the moment at which that is
/// noticed, the caller hears of it then, and nothing is sent twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn connections_that_end_when_they_are_used_keep_nobody_waiting() {
    for answers in [false, true] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let enclave = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut stream = stream;
                std::thread::spawn(move || {
                    let mut asked = [0; 1_000];
                    if answers && matches!(stream.read(&mut asked), Ok(1..)) {
                        let said = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                        let _ = stream.write_all(said);
                        std::thread::sleep(Duration::from_micros(u64::from(asked[20] % 16) * 50));
                    }
                });
            }
        });
        let place = Place::new(enclave, nobody().await);
        let host = place.start().await;
        let address = host.address();
        let mut callers = tokio::task::JoinSet::new();
        for caller in 0..8 {
            callers.spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let mut answer = [0; 1_000];
                for number in 0..250 {
                    let pause = (caller * 31 + number * 7) % 40 * 25;
                    tokio::time::sleep(Duration::from_micros(pause)).await;
                    let asked = format!("POST /x{number:03} HTTP/1.1\r\nHost: h\r\n\r\n");
                    stream.write_all(asked.as_bytes()).await.unwrap();
                    let answered = timeout(Duration::from_secs(4), stream.read(&mut answer)).await;
                    let count = answered.expect("kept waiting").unwrap();
                    assert!(answer[..count].starts_with(b"HTTP/1.1 "), "{count}");
                }
            });
        }
        while let Some(caller) = callers.join_next().await {
            caller.unwrap();
        }
        host.stop().await;
    }
}

/// Half an answer that would have been small, and nothing more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_stops_in_the_middle_is_given_up() {
    let half = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
    let enclave = RawEnclave::start([Then::Say(half.to_vec())]).await;
    let place = Place::new(enclave.address, nobody().await).with("", "idle_timeout_ms = 300");
    let host = place.start().await;
    let mut stream = TcpStream::connect(host.address()).await.unwrap();
    stream.write_all(GET.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    let answered = timeout(Duration::from_secs(5), stream.read_exact(&mut answer)).await;
    answered.expect("kept waiting").unwrap();
    assert_eq!(answer.escape_ascii().to_string(), "HTTP/1.1 504");
    host.stop().await;
}

/// Bytes without end, of `begin` once and `more` again and again, to whoever comes. In pieces: each is there when the one
/// before has been read, so that a reader never waits and never has much.
fn without_end(begin: &'static str, more: &'static str) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let more = more.repeat(1_000 / more.len());
        while let Ok((mut stream, _)) = listener.accept() {
            let mut asked = [0; 1_000];
            if !matches!(stream.read(&mut asked), Ok(1..)) {
                continue;
            }
            let _ = stream.write_all(begin.as_bytes());
            while stream.write_all(more.as_bytes()).is_ok() {}
        }
    });
    address
}

/// An enclave that never stops talking and never says anything is given up in time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn answers_without_end_that_say_nothing_end() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let trailing = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n";
    for (begin, more) in [
        ("", "HTTP/1.1 103 Early\r\n\r\n"),
        ("HTTP/1.1 200 OK\r\nX: ", "x"),
        ("HTTP/1.1 200 OK\r\n", "X: 1\r\n"),
        (chunked, "0"),
        (chunked, "1;x\r\n"),
        (trailing, "X: 1\r\n"),
    ] {
        let enclave = without_end(begin, more);
        let place = Place::new(enclave, nobody().await)
            .with("answer_timeout_ms = 400", "idle_timeout_ms = 400");
        let host = place.start().await;
        let mut stream = TcpStream::connect(host.address()).await.unwrap();
        stream.write_all(GET.as_bytes()).await.unwrap();
        let began = Instant::now();
        let mut answer = Vec::new();
        let ended = timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "{begin:?} {more:?}: never");
        let took = began.elapsed();
        assert!(
            took < Duration::from_secs(5),
            "{begin:?} {more:?}: {took:?}"
        );
        // Nobody could take it for a whole answer.
        assert!(!answer.ends_with(b"0\r\n\r\n"), "{begin:?} {more:?}");
        assert_eq!(get(host.address(), "/v1/collateral").await.status, 404);
        host.stop().await;
    }
}
