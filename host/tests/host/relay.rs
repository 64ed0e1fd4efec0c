//! What is relayed, and what is not.

use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    client::{get, raw, read_all, send, until},
    enclave::Enclave,
    raw::{RawEnclave, Then, nobody},
    run::Place,
};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

async fn in_front_of(enclave: &RawEnclave) -> (Place, host::Host) {
    let place = Place::new(enclave.address, nobody().await);
    let host = place.start().await;
    (place, host)
}

/// Odd, and yet HTTP: everything here has to arrive as it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_pass_unchanged_both_ways() {
    let body: Vec<u8> = (0..=255u8).cycle().take(3_000).collect();
    let mut request =
        b"PoST /v2/models/m%2fX/versions/1/{\"x\"}/infer?a=%20&&b;c={x}&%C3%A9=1 HTTP/1.1\r\n\
        hOsT: Enclave.Example:80\r\n\
        ToUcHsToNe: require=(logged signed),  nonce=:AAAAAAAAAAA=:\r\n\
        touchstone: second\r\n\
        X-Twice: 1\r\n\
        x-tWICE: 2\r\n\
        X-Twice: 1\r\n\
        Empty:\r\n\
        Bytes: \xff\xfe\x80\r\n\
        Inference-Header-Content-Length: 007\r\n\
        inference-header-content-length: 7\r\n\
        CONTENT-TYPE: application/octet-stream;  q=\"x\"\r\n\
        Prefer: respond-async, wait=2\r\n\
        Expect-Nothing: 1\r\n\
        User-Agent: \r\n\
        Content-Length: 3000\r\n\r\n"
            .to_vec();
    request.extend_from_slice(&body);
    let mut answer = b"HTTP/1.1 207 OK\r\n\
        dAtE: never\r\n\
        Touchstone: not, what it should be\r\n\
        TOUCHSTONE-Openings: inputs=:AAAA:, inputs=:BBBB:\r\n\
        Set-Cookie: a\r\n\
        SET-COOKIE: b\r\n\
        Link: </v1/receipts/0>; rel=\"x\"\r\n\
        Content-Type: \xfftext\r\n\
        content-LENGTH: 3000\r\n\r\n"
        .to_vec();
    answer.extend_from_slice(&body);

    let enclave = RawEnclave::start([Then::Say(answer.clone())]).await;
    let (_place, host) = in_front_of(&enclave).await;
    let received = raw(host.address(), &request).await;

    let shown = |bytes: &[u8]| bytes.escape_ascii().to_string();
    assert_eq!(shown(&enclave.came_in().concat()), shown(&request));
    assert_eq!(shown(&received), shown(&answer));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_the_connection_stays_there() {
    let answer = b"HTTP/1.1 200 OK\r\nConnection: X-Mine\r\nX-Mine: 1\r\nX-Yours: 2\r\nKeep-Alive: timeout=9\r\n\
        Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let enclave = RawEnclave::start([Then::Say(answer.to_vec())]).await;
    let (_place, host) = in_front_of(&enclave).await;
    let request = b"POST /x HTTP/1.1\r\nHost: h\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nX-End: 2\r\nTE: trailers\r\n\
        Upgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let received = raw(host.address(), request).await;
    let came_in = String::from_utf8(enclave.came_in().concat())
        .unwrap()
        .to_ascii_lowercase();
    for gone in ["connection", "x-hop", "te: ", "upgrade"] {
        assert!(!came_in.contains(gone), "{gone} in {came_in}");
    }
    assert!(
        came_in.contains("x-end: 2") && came_in.contains("abc"),
        "{came_in}"
    );
    let received = String::from_utf8(received).unwrap();
    assert!(
        !received.contains("X-Mine") && !received.to_ascii_lowercase().contains("keep-alive"),
        "{received}"
    );
    assert!(
        received.contains("X-Yours: 2") && received.contains("ok"),
        "{received}"
    );
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_field_cannot_strip_a_demand() {
    let enclave = RawEnclave::start([Then::Say(OK.to_vec())]).await;
    let (_place, host) = in_front_of(&enclave).await;
    let headers = [
        ("connection", "keep-alive, Touchstone"),
        ("touchstone", "require=(logged signed)"),
    ];
    for (connection, named) in [
        ("keep-alive, Touchstone", "touchstone"),
        ("Touchstone-Keyset", "touchstone-keyset"),
        ("X-Forwarded-For", "x-forwarded-for"),
        ("transfer-encoding", "transfer-encoding"),
        ("\"touchstone\"", "touchstone"),
    ] {
        let headers = [("connection", connection), headers[1]];
        let answer = send(host.address(), Method::POST, "/x", &headers, b"").await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{connection}");
        assert!(answer.problem().contains(named), "{connection}");
        assert_eq!(answer.header("connection"), Some("close"));
    }
    assert!(enclave.came_in().is_empty());
    // The same without it passes.
    let answer = send(host.address(), Method::POST, "/x", &headers[1..], b"").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(
        String::from_utf8(enclave.came_in().concat())
            .unwrap()
            .contains("require=(logged signed)")
    );
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_are_never_lost_in_silence() {
    let body = "2\r\nab\r\n0\r\nX-Late: 1\r\n\r\n";
    let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    let enclave = RawEnclave::start(vec![Then::Say(answer.clone().into()); 2]).await;
    let (_place, host) = in_front_of(&enclave).await;
    // Announced or not: they pass as they came, both ways.
    for announce in ["", "Trailer: X-Other, x-LATE\r\n"] {
        let request = format!(
            "POST /x HTTP/1.1\r\nHost: h\r\n{announce}Transfer-Encoding: chunked\r\n\r\n{body}"
        );
        let received = raw(host.address(), request.as_bytes()).await;
        assert_eq!(String::from_utf8(received).unwrap(), answer);
        let came_in = String::from_utf8(enclave.came_in().concat()).unwrap();
        assert!(came_in.ends_with(&request), "{came_in}");
    }
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_the_enclave_are_used_again_and_small_messages_are_one_write() {
    let enclave = Enclave::start().await;
    let place = Place::new(enclave.public, enclave.control);
    let host = place.start().await;
    let mut stream = TcpStream::connect(host.address()).await.unwrap();
    for round in 0..20 {
        let body = vec![round; 100];
        let head = b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n";
        // Head and body apart, as many clients write them.
        stream.write_all(head).await.unwrap();
        stream.write_all(&body).await.unwrap();
        let mut answer = vec![0; 4_096];
        // One read gets all of it.
        let count = stream.read(&mut answer).await.unwrap();
        assert!(
            answer[..count].ends_with(&body),
            "{}",
            answer[..count].escape_ascii()
        );
    }
    host.stop().await;

    let enclave = RawEnclave::start((0..3).map(|_| Then::Say(OK.to_vec()))).await;
    // As many as may be there: the second caller, on another thread, takes what the first one's left.
    let place = Place::new(enclave.address, nobody().await).with("", "in_flight = 1\n");
    let host = place.start().await;
    let mut callers = Vec::new();
    for count in [2, 1] {
        let mut stream = TcpStream::connect(host.address()).await.unwrap();
        for _ in 0..count {
            let question = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n";
            stream.write_all(question).await.unwrap();
            let mut answer = vec![0; 4_096];
            let count = stream.read(&mut answer).await.unwrap();
            assert!(answer[..count].starts_with(b"HTTP/1.1 200 "));
        }
        callers.push(stream);
    }
    let came_in = enclave.came_in();
    assert_eq!(came_in.len(), 1, "one connection was enough");
    assert_eq!(
        came_in[0]
            .windows(5)
            .filter(|window| window == b"GET /")
            .count(),
        3
    );
    host.stop().await;
}

/// The enclave closes kept connections when it likes; nobody may notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_connection_that_was_closed_is_not_used() {
    let enclave = RawEnclave::start([
        Then::SayAndClose(OK.to_vec()),
        Then::SayAndClose(OK.to_vec()),
        Then::Say(OK.to_vec()),
    ])
    .await;
    let (_place, host) = in_front_of(&enclave).await;
    for _ in 0..3 {
        assert_eq!(get(host.address(), "/x").await.status, StatusCode::OK);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(enclave.came_in().len(), 3);
    host.stop().await;
}

/// A request that may have been processed is not sent again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_twice() {
    let half = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
    for broken in [&b""[..], b"HTTP/1.1 2", half] {
        let enclave = RawEnclave::start([
            Then::Say(OK.to_vec()),
            Then::SayAndClose(broken.to_vec()),
            Then::Say(OK.to_vec()),
        ])
        .await;
        let (_place, host) = in_front_of(&enclave).await;
        assert_eq!(get(host.address(), "/first").await.status, StatusCode::OK);
        let answer = get(host.address(), "/second").await;
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "{broken:?}");
        assert!(answer.problem().contains("may have been processed"));
        assert_eq!(get(host.address(), "/third").await.status, StatusCode::OK);
        let came_in = String::from_utf8(enclave.came_in().concat()).unwrap();
        assert_eq!(came_in.matches("GET /second").count(), 1);
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_enclave_that_is_away_or_silent_is_told_apart() {
    let place = Place::new(nobody().await, nobody().await);
    let host = place.start().await;
    let answer = get(host.address(), "/v2/health/ready").await;
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (StatusCode::SERVICE_UNAVAILABLE, Some("1"))
    );
    assert!(answer.problem().contains("cannot be reached"));
    host.stop().await;

    let enclave = RawEnclave::start([Then::Hang]).await;
    let place = Place::new(enclave.address, nobody().await).with("answer_timeout_ms = 200", "");
    let host = place.start().await;
    let answer = get(host.address(), "/x").await;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
    answer.problem();
    host.stop().await;
}

/// No vsock is needed for this: wherever it fails, it fails as an enclave that is away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_enclave_in_vsock_that_is_away_is_503() {
    let address = nobody().await;
    let place = Place::new(address, address).with("connect_timeout_ms = 300", "");
    let settings = place
        .settings()
        .replacen(&format!("tcp://{address}"), "vsock://2:4242", 1);
    let host = host::Host::start(&host::config::Config::parse(&settings).unwrap())
        .await
        .unwrap();
    let answer = get(host.address(), "/x").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    answer.problem();
    host.stop().await;
}

/// Whatever a caller writes, it ends at the enclave's public listener.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_control_side_is_out_of_reach() {
    let enclave = Enclave::start().await;
    let place = Place::new(enclave.public, enclave.control);
    let host = place.start().await;
    let control = enclave.control;
    for target in [
        "/control/v1/status".to_owned(),
        "/control/v1/drain".to_owned(),
        format!("http://{control}/control/v1/drain"),
        "/v1/receipts/../../control/v1/drain".to_owned(),
        "//control/v1/drain".to_owned(),
    ] {
        let request =
            format!("POST {target} HTTP/1.1\r\nHost: {control}\r\nContent-Length: 0\r\n\r\n");
        let answer = raw(host.address(), request.as_bytes()).await;
        assert!(
            !answer.starts_with(b"HTTP/1.1 2") || target.starts_with("//"),
            "{target}"
        );
    }
    let answer = raw(
        host.address(),
        format!("CONNECT {control} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes(),
    )
    .await;
    assert!(
        answer.starts_with(b"HTTP/1.1 501 "),
        "{}",
        answer.escape_ascii()
    );
    // The fake enclave panics when its control side is asked for what a host does not ask for; and the
    // public side has seen all of them but the one that is the host's own path.
    let seen = enclave.seen.lock().unwrap().clone();
    assert_eq!(
        seen.iter()
            .filter(|target| target.contains("control/v1/"))
            .count(),
        4,
        "{seen:?}"
    );
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn preflights_are_the_enclaves_to_answer() {
    let enclave = Enclave::start().await;
    let place = Place::new(enclave.public, enclave.control);
    let host = place.start().await;
    for target in [
        "/v2/models/m/infer",
        "/v1/receipts/00000000000000000000000000000000",
    ] {
        let headers = [
            ("origin", "https://x.example"),
            ("access-control-request-method", "POST"),
        ];
        let answer = send(host.address(), Method::OPTIONS, target, &headers, b"").await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
        assert_eq!(
            answer.header("access-control-allow-headers"),
            Some("touchstone, prefer")
        );
    }
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_comes_before_the_body_has_gone_is_passed_on() {
    const ROUNDS: usize = 40;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = Place::new(listener.local_addr().unwrap(), nobody().await);
    let host = place.start().await;
    // Reads the head and a bit, refuses, and closes on all the rest: the system then resets.
    tokio::spawn(async move {
        for _ in 0..ROUNDS {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4_096]).await;
            let refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno";
            stream.write_all(refusal).await.unwrap();
        }
    });
    for _ in 0..ROUNDS {
        let stream = TcpStream::connect(host.address()).await.unwrap();
        let (mut reading, mut writing) = stream.into_split();
        let caller = tokio::spawn(async move {
            let head = b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 10000000\r\n\r\n";
            let _ = writing.write_all(head).await;
            let _ = writing.write_all(&vec![b'x'; 10_000_000]).await;
        });
        let mut answer = [0; 12];
        reading.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer.escape_ascii().to_string(), "HTTP/1.1 413");
        caller.await.unwrap();
    }
    // One that closes without a word is as broken as ever, and nobody waits for it.
    let started = Instant::now();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = Place::new(listener.local_addr().unwrap(), nobody().await);
    let silent = place.start().await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4_096]).await;
    });
    let head = b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 10000000\r\n\r\n";
    let request = [&head[..], &vec![b'x'; 10_000_000]].concat();
    let mut stream = TcpStream::connect(silent.address()).await.unwrap();
    let _ = stream.write_all(&request).await;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer.escape_ascii().to_string(), "HTTP/1.1 502");
    assert!(started.elapsed() < Duration::from_secs(5));
    host.stop().await;
    silent.stop().await;
}

/// What an enclave says on the way is no answer yet: all of the request goes there nonetheless.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interim_answers_end_no_request() {
    let body = vec![b'x'; 200_000];
    for chunked in [false, true] {
        let (framing, body) = match chunked {
            false => ("Content-Length: 200000", body.clone()),
            true => (
                "Transfer-Encoding: chunked",
                [&b"30d40\r\n"[..], &body, b"\r\n0\r\n\r\n"].concat(),
            ),
        };
        let interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
        let enclave = RawEnclave::start([Then::Say(interim.to_vec()), Then::Say(OK.into())]).await;
        let (_place, host) = in_front_of(&enclave).await;
        let mut stream = TcpStream::connect(host.address()).await.unwrap();
        let head =
            format!("POST /x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n{framing}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut asked = [0; 25];
        stream.read_exact(&mut asked).await.unwrap();
        assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
        // By now the enclave has said so too.
        tokio::time::sleep(Duration::from_millis(100)).await;
        stream.write_all(&body).await.unwrap();
        let answer = read_all(&mut stream).await;
        assert_eq!(
            answer.escape_ascii().to_string(),
            OK.escape_ascii().to_string()
        );
        let came_in = enclave.came_in();
        assert_eq!(came_in, [[head.as_bytes(), &body].concat()]);
        host.stop().await;
    }
}

/// Who says that nothing follows waits for the connection's end, whoever answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_of_the_hosts_own_close_when_they_are_the_last() {
    let place = Place::new(nobody().await, nobody().await);
    let host = place.start().await;
    let body = "Content-Length: 3\r\n\r\nabc";
    let chunks = "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for (request, status) in [
        ("GET /v1/collateral HTTP/1.1\r\nHost: h\r\n", 404),
        ("GET /v1/manifest HTTP/1.1\r\nHost: h\r\n", 404),
        ("GET /v1/receipts/x HTTP/1.1\r\nHost: h\r\n", 400),
        ("HEAD /x HTTP/1.1\r\nHost: h\r\n", 503),
        ("POST /x HTTP/1.1\r\nHost: h\r\n", 503),
    ] {
        // With nothing, and with a body; twice, and then bodies without their end.
        for (rest, times, closes) in [
            ("\r\n", 2, false),
            ("Connection: close\r\n\r\n", 2, true),
            (body, 2, false),
            (chunks, 2, false),
            (&chunks[..chunks.len() - 2], 1, true),
            (&body[..body.len() - 1], 1, true),
        ] {
            if rest.ends_with("ab") && status == 503 {
                // What is small is not sent, and so not answered, before it is here.
                continue;
            }
            let mut stream = TcpStream::connect(host.address()).await.unwrap();
            let request = format!("{request}{rest}");
            let asked = request.repeat(times);
            stream.write_all(asked.as_bytes()).await.unwrap();
            let answer = read_all(&mut stream).await.escape_ascii().to_string();
            let answers = answer.matches(&format!("HTTP/1.1 {status} ")).count();
            assert_eq!(answers, if closes { 1 } else { 2 }, "{request}: {answer}");
            assert_eq!(
                answer.contains("connection: close"),
                closes,
                "{request}: {answer}"
            );
            // And it is the end.
            let mut more = [0];
            let ended =
                tokio::time::timeout(Duration::from_millis(50), stream.read(&mut more)).await;
            assert_eq!(matches!(ended, Ok(Ok(0) | Err(_))), closes, "{request}");
        }
    }
    host.stop().await;
}

/// As much, of an enclave's answer that is passed on whole, and of one that is streamed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relayed_answers_close_when_they_are_the_last() {
    let chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    for said in [OK, chunks] {
        let enclave = RawEnclave::start(vec![Then::Say(said.into()); 3]).await;
        let (_place, host) = in_front_of(&enclave).await;
        for (field, closes) in [("", false), ("Connection: close\r\n", true)] {
            let request = format!("GET /x HTTP/1.1\r\nHost: h\r\n{field}\r\n");
            let mut stream = TcpStream::connect(host.address()).await.unwrap();
            stream
                .write_all(request.repeat(2).as_bytes())
                .await
                .unwrap();
            let answer = read_all(&mut stream).await.escape_ascii().to_string();
            let answers = answer.matches("HTTP/1.1 200 ").count();
            assert_eq!(answers, if closes { 1 } else { 2 }, "{answer}");
            assert_eq!(answer.contains("Connection: close"), closes, "{answer}");
            let mut more = [0];
            let ended =
                tokio::time::timeout(Duration::from_millis(50), stream.read(&mut more)).await;
            assert_eq!(matches!(ended, Ok(Ok(0) | Err(_))), closes, "{answer}");
        }
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_streamed_and_bounded() {
    let enclave = RawEnclave::start([]).await;
    let place = Place::new(enclave.address, nobody().await)
        .with("", "body_bytes = 1000000\nbody_timeout_ms = 500");
    let host = place.start().await;

    // Too long by its own word: nothing of it is passed on.
    for expects in ["", "Expect: 100-continue\r\n"] {
        let head =
            format!("POST /x HTTP/1.1\r\nHost: h\r\n{expects}Content-Length: 1000001\r\n\r\n");
        let answer = raw(host.address(), head.as_bytes()).await;
        let answer = answer.escape_ascii().to_string();
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(enclave.came_in().is_empty());
    }

    // Too long without having said so: what came in is never a whole request.
    let mut chunked = b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..11 {
        chunked.extend_from_slice(format!("{:x}\r\n", 100_000).as_bytes());
        chunked.extend_from_slice(&vec![b'x'; 100_000]);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let answer = raw(host.address(), &chunked).await;
    assert!(
        answer.starts_with(b"HTTP/1.1 413 "),
        "{}",
        answer.escape_ascii()
    );
    assert!(!enclave.came_in().concat().ends_with(b"0\r\n\r\n"));

    // The first half is at the enclave before the second is sent.
    let mut stream = TcpStream::connect(host.address()).await.unwrap();
    stream
        .write_all(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 200000\r\n\r\n")
        .await
        .unwrap();
    stream.write_all(&vec![b'y'; 100_000]).await.unwrap();
    let end = Instant::now() + Duration::from_secs(5);
    while !enclave
        .came_in()
        .iter()
        .any(|bytes| bytes.iter().filter(|byte| **byte == b'y').count() == 100_000)
    {
        assert!(Instant::now() < end, "not streamed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The second half never comes.
    let answer = read_all(&mut stream).await;
    let answer = if answer.is_empty() {
        read_all(&mut stream).await
    } else {
        answer
    };
    assert!(
        answer.starts_with(b"HTTP/1.1 408 "),
        "{}",
        answer.escape_ascii()
    );

    // A small body that does not come takes no connection to the enclave.
    let connections = enclave.came_in().len();
    let mut stream = TcpStream::connect(host.address()).await.unwrap();
    stream
        .write_all(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 20\r\n\r\nhalf")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let answer = read_all(&mut stream).await;
    assert!(
        answer.starts_with(b"HTTP/1.1 408 "),
        "{}",
        answer.escape_ascii()
    );
    assert_eq!(enclave.came_in().len(), connections);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_pass_whole() {
    let enclave = Enclave::start().await;
    let place = Place::new(enclave.public, enclave.control);
    let host = place.start().await;
    for length in [65_535, 65_536, 65_537, 1 << 20, 20 << 20] {
        let body: Vec<u8> = (0..length).map(|n| ((n * 31) >> 3) as u8).collect();
        let answer = send(host.address(), Method::POST, "/echo", &[], &body).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.body == body, "{length}");
    }
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_are_bounded_in_length_number_and_time() {
    let enclave = RawEnclave::start([]).await;
    let limits =
        "header_bytes = 8192\nheaders = 16\nheader_timeout_ms = 300\nidle_timeout_ms = 700";
    let place = Place::new(enclave.address, nobody().await).with("", limits);
    let host = place.start().await;
    let long = format!(
        "GET /x HTTP/1.1\r\nHost: h\r\nLong: {}\r\n\r\n",
        "x".repeat(9_000)
    );
    let many = format!("GET /x HTTP/1.1\r\n{}\r\n", "A: 1\r\n".repeat(17));
    let endless = vec![b'x'; 200_000];
    for (request, status) in [
        (long.as_bytes(), "431"),
        (many.as_bytes(), "431"),
        (&endless, "4"),
    ] {
        let mut stream = TcpStream::connect(host.address()).await.unwrap();
        let _ = stream.write_all(request).await;
        let answer = read_all(&mut stream).await;
        assert!(
            answer.starts_with(format!("HTTP/1.1 {status}").as_bytes()),
            "{}",
            answer.escape_ascii()
        );
    }
    assert!(enclave.came_in().is_empty());

    // A byte now and then gives no more time: from the first byte it counts.
    let mut stream = TcpStream::connect(host.address()).await.unwrap();
    let began = Instant::now();
    let mut closed = None;
    for byte in b"GET /x HTTP/1.1\r\nHost: hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh"
        .iter()
        .cycle()
        .take(200)
    {
        if stream.write_all(&[*byte]).await.is_err() {
            closed = Some(began.elapsed());
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let closed = closed.expect("a slow head is cut off");
    assert!(
        closed > Duration::from_millis(250) && closed < Duration::from_secs(3),
        "{closed:?}"
    );

    // Nothing at all: the idle time-out.
    let mut stream = TcpStream::connect(host.address()).await.unwrap();
    let began = Instant::now();
    assert_eq!(stream.read(&mut [0; 10]).await.unwrap(), 0);
    let closed = began.elapsed();
    assert!(
        closed > Duration::from_millis(600) && closed < Duration::from_secs(5),
        "{closed:?}"
    );
    host.stop().await;
}

/// A caller that takes nothing of its answer does not hold it for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_takes_are_given_up() {
    let mut answer =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 64 << 20).into_bytes();
    answer.resize(answer.len() + (64 << 20), b'z');
    let enclave = RawEnclave::start([Then::Say(answer)]).await;
    let place = Place::new(enclave.address, nobody().await).with("", "idle_timeout_ms = 300");
    let host = place.start().await;
    let mut stream = TcpStream::connect(host.address()).await.unwrap();
    stream
        .write_all(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let mut taken = 0;
    let mut buffer = vec![0; 1 << 20];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        taken += count;
    }
    assert!(
        taken < 64 << 20,
        "the connection was closed before all was taken"
    );
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_the_requests_in_flight_there_is_503() {
    let enclave = Enclave::start().await;
    enclave.answers_after(Duration::from_millis(500));
    let place = Place::new(enclave.public, enclave.control).with("", "in_flight = 2");
    let host = place.start().await;
    let address = host.address();
    let asked: Vec<_> = (0..3)
        .map(|n| tokio::spawn(async move { get(address, &format!("/{n}")).await }))
        .collect();
    let mut statuses = Vec::new();
    for answer in asked {
        let answer = answer.await.unwrap();
        if answer.status == StatusCode::SERVICE_UNAVAILABLE {
            assert_eq!(answer.header("retry-after"), Some("1"));
            answer.problem();
        }
        statuses.push(answer.status.as_u16());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 503]);
    assert_eq!(get(address, "/again").await.status, StatusCode::OK);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_the_connections_callers_are_told() {
    let enclave = Enclave::start().await;
    let place = Place::new(enclave.public, enclave.control).with("", "connections = 2");
    let host = place.start().await;
    let address = host.address();
    let held = (
        TcpStream::connect(address).await.unwrap(),
        TcpStream::connect(address).await.unwrap(),
    );
    tokio::time::sleep(Duration::from_millis(50)).await;
    let third = get(address, "/x").await;
    assert_eq!(
        (third.status, third.header("retry-after")),
        (StatusCode::SERVICE_UNAVAILABLE, Some("1"))
    );
    assert!(third.problem().contains("as many connections"));
    drop(held);
    until(address, "/x", "let in", |answer| {
        answer.status == StatusCode::OK
    })
    .await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_finishes_what_is_under_way() {
    let enclave = Enclave::start().await;
    enclave.answers_after(Duration::from_millis(300));
    let place = Place::new(enclave.public, enclave.control);
    let host = place.start().await;
    let address = host.address();
    let idle = TcpStream::connect(address).await.unwrap();
    let under_way = tokio::spawn(async move { get(address, "/x").await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let began = Instant::now();
    host.stop().await;
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "idle connections do not hold it up"
    );
    let answer = under_way.await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(TcpStream::connect(address).await.is_err());
    drop(idle);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_shapes_of_http_pass() {
    let enclave = Enclave::start().await;
    let place = Place::new(enclave.public, enclave.control);
    let host = place.start().await;
    // HEAD: the length of what is not sent.
    let answer = send(host.address(), Method::HEAD, "/x", &[], b"").await;
    assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, 0));
    // Pipelining.
    let one = b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nab";
    let answer = raw(
        host.address(),
        &[&one[..], b"1", one, b"2", one, b"3"].concat(),
    )
    .await;
    let text = String::from_utf8(answer).unwrap();
    let [first, second, third] = ["ab1", "ab2", "ab3"].map(|body| text.find(body).unwrap());
    assert!(first < second && second < third);
    // A body that the caller holds back until it is asked for.
    let mut stream = TcpStream::connect(host.address()).await.unwrap();
    let head = b"POST /x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let mut answer = vec![0; 1_000];
    let count = stream.read(&mut answer).await.unwrap();
    assert!(
        answer[..count].starts_with(b"HTTP/1.1 100 "),
        "{}",
        answer[..count].escape_ascii()
    );
    stream.write_all(b"abc").await.unwrap();
    assert!(read_all(&mut stream).await.ends_with(b"abc"));
    // Who did not wait is not asked.
    let answer = raw(host.address(), &[&head[..], b"abc"].concat()).await;
    let answer = answer.escape_ascii().to_string();
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("abc"),
        "{answer}"
    );
    host.stop().await;
}

/// Methods that have no body as a rule keep the one that they have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_in_chunks_passes_whatever_the_method() {
    let enclave = RawEnclave::start(vec![Then::Say(OK.to_vec()); 3]).await;
    let (_place, host) = in_front_of(&enclave).await;
    for method in ["GET", "HEAD", "DELETE"] {
        let head = format!("{method} /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
        let request = [head.as_bytes(), b"3\r\nabc\r\n0\r\n\r\n"].concat();
        let answer = raw(host.address(), &request).await;
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{method}");
        let came_in = enclave.came_in().concat().to_ascii_lowercase();
        let came_in = came_in.escape_ascii().to_string();
        let last = came_in.rsplit(&method.to_ascii_lowercase()).next().unwrap();
        assert!(last.contains("transfer-encoding: chunked"), "{came_in}");
        assert!(last.ends_with("3\\r\\nabc\\r\\n0\\r\\n\\r\\n"), "{came_in}");
    }
    host.stop().await;
}

/// Slow bodies take nobody's turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_bodies_do_not_count_as_in_flight() {
    let enclave = Enclave::start().await;
    let place = Place::new(enclave.public, enclave.control).with("", "in_flight = 2");
    let host = place.start().await;
    let mut slow = Vec::new();
    for _ in 0..5 {
        let mut stream = TcpStream::connect(host.address()).await.unwrap();
        stream
            .write_all(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\na")
            .await
            .unwrap();
        slow.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(get(host.address(), "/y").await.status, StatusCode::OK);
    for mut stream in slow {
        stream.write_all(b"bc").await.unwrap();
        assert!(read_all(&mut stream).await.ends_with(b"abc"));
    }
    host.stop().await;
}

/// Whoever answers, and whatever the answer is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_follows_where_that_was_said() {
    let enclave = RawEnclave::start(vec![Then::Say(OK.to_vec()); 8]).await;
    let place = Place::new(enclave.address, nobody().await).with("", "body_bytes = 1024");
    let host = place.start().await;
    for (asked, body, status) in [
        ("GET /x", "", "200"),
        ("GET /v1/collateral", "", "404"),
        ("GET /v1/receipts/x", "", "400"),
        ("DELETE /v1/manifest", "", "405"),
    ] {
        for says in [true, false] {
            let close = if says { "Connection: close\r\n" } else { "" };
            let request = format!("{asked} HTTP/1.1\r\nHost: h\r\n{close}\r\n{body}");
            let mut stream = TcpStream::connect(host.address()).await.unwrap();
            // The second may have come before the first was answered.
            stream
                .write_all(request.repeat(2).as_bytes())
                .await
                .unwrap();
            let text = read_all(&mut stream).await.escape_ascii().to_string();
            let count = text.matches(&format!("HTTP/1.1 {status} ")).count();
            assert_eq!(count, if says { 1 } else { 2 }, "{asked}: {text}");
            let told = text.to_ascii_lowercase().contains("connection: close");
            assert_eq!(told, says, "{asked}: {text}");
            let mut byte = [0];
            let end = stream.read(&mut byte);
            let end = tokio::time::timeout(Duration::from_millis(50), end).await;
            assert_eq!(matches!(end, Ok(Ok(0) | Err(_))), says, "{asked}");
        }
    }
    // A body that nobody reads: what follows it would be taken for the next request.
    let long = "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 2000\r\n\r\n";
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: hh\r\n\r\n";
    let text = raw(
        host.address(),
        format!("{long}{smuggled}{smuggled}").as_bytes(),
    )
    .await;
    let text = text.escape_ascii().to_string();
    assert!(text.starts_with("HTTP/1.1 413 "), "{text}");
    assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text}");
    assert!(text.contains("connection: close"), "{text}");
    let came_in = enclave.came_in().concat().escape_ascii().to_string();
    assert!(!came_in.contains("smuggled"), "{came_in}");
    host.stop().await;
}
