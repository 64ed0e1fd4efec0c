//! Callers that mean no good: requests with two readings, floods, and those who never finish.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use hyper::{Method, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
};

use crate::{
    client::{get, raw, read_all, send, until},
    enclave::Enclave,
    raw::{RawEnclave, Then, nobody},
    run::Place,
    siege::{Size, siege},
};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const GET: &str = "GET /x HTTP/1.1\r\nHost: h\r\n";
const POST: &str = "POST /x HTTP/1.1\r\nHost: h\r\n";
const CHUNKED: &str = "POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n";

/// Heads and bodies that two readers could read differently, each with a twin that they cannot.
fn two_readings() -> Vec<(&'static str, String, String)> {
    let after = |head: &'static str| {
        move |what: &'static str, bad: &str, good: &str| {
            (what, format!("{head}{bad}"), format!("{head}{good}"))
        }
    };
    let (get, post, chunked, bare) = (after(GET), after(POST), after(CHUNKED), after(""));
    let line = |what: &'static str, bad: &str, good: &str| {
        let whole = |line| format!("{line} HTTP/1.1\r\nHost: h\r\n\r\n");
        (what, whole(bad), whole(good))
    };
    let host = |what: &'static str, bad: &str, good: &str| {
        let whole = |host| format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n");
        (what, whole(bad), whole(good))
    };
    let chunks = "2\r\nab\r\n0\r\n\r\n";
    let both = format!("Content-Length: 4\r\n\r\n{chunks}");
    let first = format!("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
    let alone = format!("Transfer-Encoding: chunked\r\n\r\n{chunks}");
    let one = "Content-Length: 4\r\n\r\nabcd";
    vec![
        post("a length, then chunks", &first, &alone),
        chunked("chunks, then a length", &both, &format!("\r\n{chunks}")),
        post(
            "two lengths",
            "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
            one,
        ),
        post(
            "a length twice",
            "Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
            one,
        ),
        post("a list of lengths", "Content-Length: 4, 4\r\n\r\nabcd", one),
        post(
            "a length with a sign",
            "Content-Length: +4\r\n\r\nabcd",
            one,
        ),
        post(
            "a space before the colon",
            "Content-Length : 4\r\n\r\nabcd",
            one,
        ),
        post(
            "another coding",
            "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            &alone,
        ),
        post(
            "a coding last",
            "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
            &alone,
        ),
        post("no coding", "Transfer-Encoding: identity\r\n\r\n", &alone),
        post(
            "a coding in the next line",
            "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
            &alone,
        ),
        chunked(
            "a coding twice",
            "Transfer-Encoding: x\r\n\r\n0\r\n\r\n",
            "\r\n0\r\n\r\n",
        ),
        get(
            "a field in two lines",
            "X: a\r\n b\r\n\r\n",
            "X: a b\r\n\r\n",
        ),
        get("LF alone", "X: 1\nY: 2\r\n\r\n", "X: 1\r\nY: 2\r\n\r\n"),
        get("LF alone at the end", "\n", "\r\n"),
        get("CR alone", "X: a\rb\r\n\r\n", "X: ab\r\n\r\n"),
        get("a zero byte", "X: \0\r\n\r\n", "X: 0\r\n\r\n"),
        get("two Hosts", "Host: i\r\n\r\n", "\r\n"),
        bare(
            "no Host",
            "GET /x HTTP/1.1\r\n\r\n",
            "GET /x HTTP/1.1\r\nHost:\r\n\r\n",
        ),
        bare(
            "an empty line first",
            "\r\nGET /x HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /x HTTP/1.1\r\nHost: h\r\n\r\n",
        ),
        bare(
            "a tab",
            "GET\t/x HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /x HTTP/1.1\r\nHost: h\r\n\r\n",
        ),
        bare(
            "another version",
            "GET /x HTTP/1.2\r\nHost: h\r\n\r\n",
            "GET /x HTTP/1.1\r\nHost: h\r\n\r\n",
        ),
        bare(
            "something before the version",
            "GET /x XHTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /x HTTP/1.1\r\nHost: h\r\n\r\n",
        ),
        bare(
            "no target",
            "GET  HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        ),
        bare(
            "chunks in HTTP/1.0",
            "POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            &format!("{POST}{alone}"),
        ),
        bare(
            "CONNECT with a body",
            "CONNECT h:1 HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nabcd",
            &format!("{POST}{one}"),
        ),
        chunked(
            "a chunk extension",
            "\r\n2;a=b\r\nab\r\n0\r\n\r\n",
            &format!("\r\n{chunks}"),
        ),
        chunked(
            "a chunk size with a prefix",
            "\r\n0x2\r\nab\r\n0\r\n\r\n",
            &format!("\r\n0{chunks}"),
        ),
        chunked(
            "a chunk longer than it says",
            "\r\n2\r\nabc\r\n0\r\n\r\n",
            "\r\n3\r\nabc\r\n0\r\n\r\n",
        ),
        chunked(
            "chunks with LF alone",
            "\r\n2\nab\n0\n\n",
            &format!("\r\n{chunks}"),
        ),
        post(
            "a length with _",
            "Content_Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
            "Content-Size: 3\r\nContent-Length: 4\r\n\r\nabcd",
        ),
        post(
            "a coding with _",
            "Content-Length: 4\r\nTransfer_Encoding: chunked\r\n\r\nabcd",
            "Content-Length: 4\r\nX_Encoding: chunked\r\n\r\nabcd",
        ),
        line("a fragment", "GET /x#y", "GET /x%23y"),
        line("a backslash", "GET /a\\..\\x", "GET /a/../x"),
        line("bytes of no charset", "GET /\u{e9}", "GET /%C3%A9"),
        line("a % alone", "GET /x?%4", "GET /x?%41"),
        line("another host", "GET http://i/x", "GET http://H/x"),
        line("another port", "GET http://h:80/x", "GET http://h/x"),
        line("another scheme", "GET https://h/x", "GET http://h/x?y"),
        line("a host with a user", "GET http://u@h/x", "GET http://h/"),
        line("a host alone", "GET h", "GET /h"),
        line("a star", "GET *", "OPTIONS *"),
        host("a Host with a space", "h i", "h"),
        host("two Hosts in one", "h,i", "h:80"),
        host("a Host with a user", "u@h", "u.h"),
        host("a Host with a path", "h/x", "[::1]:80"),
        host("a Host with a port that is none", "h:x", "h:"),
        chunked(
            "a demand as a trailer",
            "Trailer: Touchstone\r\n\r\n0\r\nTouchstone: require=(signed)\r\n\r\n",
            "Trailer: X-Stone\r\n\r\n0\r\nX-Stone: require=(signed)\r\n\r\n",
        ),
        chunked(
            "a credential as a trailer",
            "Trailer: Authorization\r\n\r\n0\r\nAuthorization: x\r\n\r\n",
            "Trailer: X-Authorization\r\n\r\n0\r\nX-Authorization: x\r\n\r\n",
        ),
        chunked(
            "a length as a trailer",
            "Trailer: Content-Length\r\n\r\n0\r\nContent-Length: 3\r\n\r\n",
            "Trailer: X-Length\r\n\r\n0\r\nX-Length: 3\r\n\r\n",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_with_two_readings_are_refused() {
    let enclave = RawEnclave::start(vec![Then::Say(OK.to_vec()); 400]).await;
    let place = Place::new(enclave.address, nobody().await);
    let host = place.start().await;
    let said = async |request: &str| {
        let answer = raw(host.address(), request.as_bytes()).await;
        answer.escape_ascii().to_string()
    };
    let cases = two_readings();
    for (what, bad, good) in &cases {
        let text = said(good).await;
        assert!(text.starts_with("HTTP/1.1 200 "), "{what}: {text}");
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";
        let text = said(&format!("{bad}{smuggled}")).await;
        assert!(text.starts_with("HTTP/1.1 400 "), "{what}: {text}");
        assert_eq!(text.matches("HTTP/1.").count(), 1, "{what}: {text}");
        // After a good request on the same connection, too.
        let before = "GET /before HTTP/1.1\r\nHost: h\r\n\r\n";
        let text = said(&format!("{before}{bad}{smuggled}")).await;
        assert!(text.starts_with("HTTP/1.1 200 "), "{what}: {text}");
        assert!(text.contains("HTTP/1.1 400 "), "{what}: {text}");
        assert_eq!(text.matches("HTTP/1.").count(), 2, "{what}: {text}");
    }
    let came_in = enclave.came_in().concat().escape_ascii().to_string();
    assert!(!came_in.contains("smuggled"), "{came_in}");
    assert_eq!(came_in.matches("/before").count(), cases.len());
    // HTTP/1.0 has one reading, and is not spoken.
    let old = said("GET /old HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.1 505 "), "{old}");
    let came_in = enclave.came_in().concat().escape_ascii().to_string();
    assert!(!came_in.contains("/old"));
    host.stop().await;
}

async fn from(source: &str, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(format!("{source}:0").parse().unwrap())?;
    socket.connect(to).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_takes_no_more_than_its_share() {
    let enclave = Enclave::start().await;
    let limits = "client_connections = 3\nclient_in_flight = 2";
    let place = Place::new(enclave.public, enclave.control).with("", limits);
    let host = place.start().await;
    let address = host.address();
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(from("127.0.0.2", address).await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut fourth = from("127.0.0.2", address).await.unwrap();
    fourth
        .write_all(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
        .await
        .unwrap();
    let told = read_all(&mut fourth).await.escape_ascii().to_string();
    assert!(told.starts_with("HTTP/1.1 429 "), "{told}");
    assert!(told.contains("Retry-After: 1"), "{told}");
    // Others are not concerned.
    assert_eq!(get(address, "/x").await.status, StatusCode::OK);
    drop(held);

    enclave.answers_after(Duration::from_millis(500));
    let mut requests = JoinSet::new();
    for _ in 0..3 {
        requests.spawn(async move { get(address, "/slow").await });
    }
    let mut statuses = Vec::new();
    while let Some(answer) = requests.join_next().await {
        let answer = answer.unwrap();
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            assert_eq!(answer.header("retry-after"), Some("1"));
            answer.problem();
        }
        statuses.push(answer.status.as_u16());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 429]);
    enclave.answers_after(Duration::ZERO);
    assert_eq!(get(address, "/x").await.status, StatusCode::OK);
    host.stop().await;
}

/// Bodies that are held count as they come in; who announces much and sends little takes little.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_all_requests_are_bounded_together() {
    let enclave = Enclave::start().await;
    let limits = "buffered_bytes = 1048576\nclient_in_flight = 1000";
    let place = Place::new(enclave.public, enclave.control).with("", limits);
    let host = place.start().await;
    let address = host.address();
    let held = async |count: usize, bytes: usize| {
        let mut streams = Vec::new();
        for _ in 0..count {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let head = b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 65536\r\n\r\n";
            stream.write_all(head).await.unwrap();
            let _ = stream.write_all(&vec![7; bytes]).await;
            streams.push(stream);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        streams
    };
    let body = vec![7; 60_000];
    let little = held(100, 1).await;
    let answer = send(address, Method::POST, "/x", &[], &body).await;
    assert_eq!(answer.status, StatusCode::OK);
    // All but their last byte.
    let much = held(20, 65_535).await;
    let answer = send(address, Method::POST, "/x", &[], &body).await;
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (StatusCode::SERVICE_UNAVAILABLE, Some("1"))
    );
    assert!(answer.problem().contains("as many bytes"));
    drop((little, much));
    let end = Instant::now() + Duration::from_secs(5);
    while send(address, Method::POST, "/x", &[], &body).await.status != StatusCode::OK {
        assert!(Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    host.stop().await;
}

/// A TLS listener, as far as a host can tell: it says what it hears.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            connections.spawn(async move {
                let mut buffer = [0; 100];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    let _ = stream.write_all(&buffer[..count]).await;
                }
            });
        }
    });
    address
}

/// A TLS connection on which nobody finishes a handshake ends soon, however patient answers have to be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn abandoned_handshakes_end() {
    let enclave = Enclave::start().await;
    let tls = echo().await;
    let place = Place::new(enclave.public, enclave.control)
        .with_tls(tls)
        .with("answer_timeout_ms = 60000", "handshake_timeout_ms = 400");
    let host = place.start().await;
    // The one says nothing after the answer, the other goes on and then is silent for longer.
    let mut said = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(host.address()).await.unwrap();
        stream.write_all(&[0x16]).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), 0x16);
        said.push(stream);
    }
    said[1].write_all(&[1]).await.unwrap();
    assert_eq!(said[1].read_u8().await.unwrap(), 1);
    let began = Instant::now();
    let end = tokio::time::timeout(Duration::from_secs(5), said[0].read_u8()).await;
    assert!(end.unwrap().is_err());
    assert!(began.elapsed() < Duration::from_secs(2));
    tokio::time::sleep(Duration::from_millis(500)).await;
    said[1].write_all(&[2]).await.unwrap();
    assert_eq!(said[1].read_u8().await.unwrap(), 2);
    drop(said);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_requests_are_taken_ahead_of_their_turn() {
    let enclave = Enclave::start().await;
    enclave.answers_after(Duration::from_millis(20));
    let place = Place::new(enclave.public, enclave.control);
    let host = place.start().await;
    let one = "GET /piped HTTP/1.1\r\nHost: h\r\n\r\n";
    let answers = async |count: usize| {
        let mut stream = TcpStream::connect(host.address()).await.unwrap();
        let many = one.repeat(count);
        stream.write_all(many.as_bytes()).await.unwrap();
        let text = read_all(&mut stream).await.escape_ascii().to_string();
        (
            text.matches("HTTP/1.1 200 ").count(),
            text.matches("HTTP/1.1 400 ").count(),
        )
    };
    assert_eq!(answers(16).await, (16, 0));
    assert_eq!(answers(1_000).await, (16, 1));
    assert_eq!(enclave.seen_of("/piped"), 32);
    host.stop().await;
}

/// Requests without end on one connection, of which no answer is taken: one is relayed after the other, and in the
/// end none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelines_without_end_are_held_back() {
    let enclave = Enclave::start().await;
    let limits = "idle_timeout_ms = 500\nclient_in_flight = 1";
    let place = Place::new(enclave.public, enclave.control).with("", limits);
    let host = place.start().await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut stream = socket.connect(host.address()).await.unwrap();
    let mut request = b"POST /piped HTTP/1.1\r\nHost: h\r\nContent-Length: 2000\r\n\r\n".to_vec();
    request.extend_from_slice(&[b'x'; 2_000]);
    let mut written = 0;
    let flood = async {
        while stream.write_all(&request).await.is_ok() {
            written += 1;
            assert!(written < 100_000, "nothing held it back");
        }
    };
    // Closed, as it takes nothing, or sends too much ahead.
    let within = Duration::from_secs(20);
    tokio::time::timeout(within, flood).await.unwrap();
    let seen = enclave.seen_of("/piped");
    assert!(seen > 0 && seen <= written + 1, "{seen} of {written}");
    until(host.address(), "/y", "answered", |answer| {
        answer.status == StatusCode::OK
    })
    .await;
    host.stop().await;
}

/// With every place taken by connections that say nothing, or next to nothing, who has something to ask gets one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_silent_give_up_their_places() {
    let enclave = Enclave::start().await;
    for tls in [false, true] {
        let mut place = Place::new(enclave.public, enclave.control).with("", "connections = 20");
        if tls {
            place = place.with_tls(nobody().await);
        }
        let host = place.start().await;
        let address = host.address();
        let mut busy = TcpStream::connect(address).await.unwrap();
        let mut silent = Vec::new();
        for number in 0..19 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            match number % 3 {
                0 => {}
                1 => stream.write_all(b"GET /x HT").await.unwrap(),
                _ => {
                    let whole = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n";
                    stream.write_all(whole).await.unwrap();
                    let mut answer = [0; 1_000];
                    assert!(stream.read(&mut answer).await.unwrap() > 0);
                }
            }
            silent.push(stream);
        }
        tokio::time::sleep(Duration::from_millis(700)).await;
        // One is at work meanwhile, and keeps its place.
        enclave.answers_after(Duration::from_millis(1_500));
        let asked = b"GET /busy HTTP/1.1\r\nHost: h\r\n\r\n";
        busy.write_all(asked).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        enclave.answers_after(Duration::ZERO);
        for _ in 0..3 {
            let began = Instant::now();
            assert_eq!(get(address, "/x").await.status, StatusCode::OK);
            assert!(began.elapsed() < Duration::from_millis(450), "waited");
        }
        let mut answer = [0; 1_000];
        assert!(busy.read(&mut answer).await.unwrap() > 0);
        assert!(answer.starts_with(b"HTTP/1.1 200 "));
        drop(silent);
        host.stop().await;
    }
}

/// With every place taken by handshakes that nobody goes on with, who has something to ask gets one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_handshakes_give_up_their_places() {
    let enclave = Enclave::start().await;
    let tls = echo().await;
    let limits = "connections = 20\nhandshake_timeout_ms = 60000";
    let place = Place::new(enclave.public, enclave.control)
        .with_tls(tls)
        .with("", limits);
    let host = place.start().await;
    let address = host.address();
    // One is over; of the others some are answered.
    let mut over = TcpStream::connect(address).await.unwrap();
    for byte in [0x16, 1] {
        over.write_all(&[byte]).await.unwrap();
        assert_eq!(over.read_u8().await.unwrap(), byte);
    }
    let mut begun = Vec::new();
    for number in 0..19 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&[0x16]).await.unwrap();
        if number % 2 == 0 {
            assert_eq!(stream.read_u8().await.unwrap(), 0x16);
        }
        begun.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    for _ in 0..3 {
        let began = Instant::now();
        assert_eq!(get(address, "/x").await.status, StatusCode::OK);
        assert!(began.elapsed() < Duration::from_millis(450), "waited");
    }
    over.write_all(&[2]).await.unwrap();
    assert_eq!(over.read_u8().await.unwrap(), 2);
    drop((over, begun));
    host.stop().await;
}

/// The short form of `cargo bench -p host --bench siege`. Times are wide: others may use this machine, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn honest_callers_go_on_under_siege() {
    let size = Size {
        idle: 600,
        slow: 150,
        time: Duration::from_secs(1),
    };
    let outcome = siege(size).await;
    let (alone, besieged) = (&outcome.alone, &outcome.besieged);
    assert_eq!(besieged.failed, 0, "{outcome:?}");
    assert_eq!(outcome.idle_open, size.idle, "{outcome:?}");
    let wide = alone.p99 * 5 + Duration::from_millis(100);
    assert!(besieged.p99 < wide, "{outcome:?}");
    // What 750 connections hold, and nothing beyond it.
    assert!(besieged.memory < alone.memory + (64 << 20), "{outcome:?}");
    for flood in &outcome.floods {
        assert!(flood.made > 0, "{outcome:?}");
        assert!(flood.recovered < Duration::from_secs(5), "{outcome:?}");
        assert!(flood.during.answered > 0, "{outcome:?}");
        assert!(
            flood.during.memory < alone.memory + (128 << 20),
            "{outcome:?}"
        );
    }
}

/// An answer that comes before its request is whole: what was not read of that is nobody's request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rest_of_a_body_is_no_request() {
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";
    let rest = smuggled.repeat(100_000 / smuggled.len());
    let body = 70_000 + rest.len();
    for framing in [
        format!("Content-Length: {body}\r\n\r\n"),
        format!("Transfer-Encoding: chunked\r\n\r\n{body:x}\r\n"),
    ] {
        let enclave = RawEnclave::start(vec![Then::Say(OK.to_vec()); 3]).await;
        let place = Place::new(enclave.address, nobody().await);
        let host = place.start().await;
        let mut stream = TcpStream::connect(host.address()).await.unwrap();
        let begin = format!("{POST}{framing}{}", "x".repeat(70_000));
        stream.write_all(begin.as_bytes()).await.unwrap();
        let mut answer = [0; 15];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        // The caller may hear no more than that nobody listens.
        let _ = stream.write_all(rest.as_bytes()).await;
        let more = read_all(&mut stream).await.escape_ascii().to_string();
        assert!(!more.contains("HTTP/1."), "{more}");
        let came_in = enclave.came_in().concat().escape_ascii().to_string();
        assert!(!came_in.contains("GET "), "{framing}");
        // Nor is the next request the rest of that one.
        assert_eq!(get(host.address(), "/next").await.status, StatusCode::OK);
        assert_eq!(enclave.came_in().len(), 2);
        host.stop().await;
    }
}

/// A connection that is closed with something unread is reset, and takes the answer along.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_not_lost_behind_what_was_not_read() {
    let place = Place::new(nobody().await, nobody().await);
    let host = place.start().await;
    let unread = "x".repeat(30_000);
    for request in [
        format!("GET / HTTP/1.1\nHost: h\r\n\r\n{unread}"),
        format!("{POST}Content-Length: 100000000\r\n\r\n{unread}"),
        format!("{GET}Connection: close\r\n\r\n{unread}"),
    ] {
        let mut stream = TcpStream::connect(host.address()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = answer.escape_ascii().to_string();
        assert!(answer.contains("connection: close"), "{answer}");
    }
    host.stop().await;
}

/// Whoever goes away while an enclave works for him ends that, at whatever moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_goes_away_is_not_worked_for() {
    let chunked = format!("{CHUNKED}\r\n2\r\nab\r\n0\r\n\r\n");
    let half = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n";
    for (request, answer) in [
        (format!("{GET}\r\n"), ""),
        (chunked, ""),
        (format!("{CHUNKED}\r\n2\r\nab\r\n"), ""),
        (format!("{GET}\r\n"), half),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = Place::new(listener.local_addr().unwrap(), nobody().await);
        let host = place.start().await;
        let mut stream = TcpStream::connect(host.address()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let (mut enclave, _) = listener.accept().await.unwrap();
        let mut heard = [0; 1_000];
        assert!(enclave.read(&mut heard).await.unwrap() > 0);
        enclave.write_all(answer.as_bytes()).await.unwrap();
        if !answer.is_empty() {
            assert!(stream.read(&mut heard).await.unwrap() > 0);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(stream);
        let ended = async { while matches!(enclave.read(&mut heard).await, Ok(1..)) {} };
        let ended = tokio::time::timeout(Duration::from_secs(5), ended).await;
        assert!(ended.is_ok(), "{request} {answer}");
        host.stop().await;
    }
}
