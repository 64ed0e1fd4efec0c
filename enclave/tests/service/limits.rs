//! Bounds in size, number and time, met by clients that keep to none.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::support::{INFER, Running, body, until};

/// Writes bytes as they are and reads whatever comes back until the connection ends, or is quiet for a while after an answer.
async fn raw(address: SocketAddr, parts: &[&[u8]]) -> String {
    raw_of(address, parts, 1).await
}

/// The same, of so many answers.
async fn raw_of(address: SocketAddr, parts: &[&[u8]], answers: usize) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    for part in parts {
        // The other side may have answered and closed already.
        let _ = stream.write_all(part).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut answer = Vec::new();
    let mut buffer = [0; 4_096];
    loop {
        // Patient until they have come, then only as long as one more would take.
        let patience = if whole(&answer) < answers {
            10_000
        } else {
            300
        };
        let read = tokio::time::timeout(Duration::from_millis(patience), stream.read(&mut buffer));
        match read.await {
            Ok(Ok(read)) if read > 0 => answer.extend_from_slice(&buffer[..read]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// How many answers are there to their end, one after the other.
fn whole(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&bytes[..end]);
        let length = head.split("content-length: ").nth(1);
        let length: usize = length.map_or(0, |rest| rest.lines().next().unwrap().parse().unwrap());
        let Some(rest) = bytes.get(end + 4 + length..) else {
            break;
        };
        (bytes, count) = (rest, count + 1);
    }
    count
}

fn status(answer: &str) -> Option<u16> {
    answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

fn chunked(parts: &[&str], trailer: &str) -> Vec<u8> {
    let mut out = format!("POST {INFER} HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n");
    for part in parts {
        out.push_str(&format!("{:x}\r\n{part}\r\n", part.len()));
    }
    out.push_str(&format!("0\r\n{trailer}\r\n"));
    out.into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies() {
    let changes = ["limits.body_bytes = 4096", "limits.buffered_bytes = 8192"];
    let Some((running, _models)) = Running::with_models("bodies", &changes, 0).await else {
        return;
    };
    let json = body([1.0, 2.0, 4.0, 8.0]);

    // In one piece, in several, in chunks: the same.
    let whole = format!(
        "POST {INFER} HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n{json}",
        json.len()
    );
    assert_eq!(
        status(&raw(running.public, &[whole.as_bytes()]).await),
        Some(200)
    );
    let (head, tail) = whole.as_bytes().split_at(whole.len() - 20);
    assert_eq!(status(&raw(running.public, &[head, tail]).await), Some(200));
    let (first, second) = json.split_at(10);
    assert_eq!(
        status(&raw(running.public, &[&chunked(&[first, second], "")]).await),
        Some(200)
    );

    // Trailers.
    let answer = raw(running.public, &[&chunked(&[&json], "x-a: b\r\n")]).await;
    assert_eq!(status(&answer), Some(400));
    assert!(answer.contains("trailers are refused"), "{answer}");

    // Too long by its own word: refused before a byte of it comes.
    let started = Instant::now();
    let huge = format!("POST {INFER} HTTP/1.1\r\nhost: t\r\ncontent-length: 999999999999\r\n\r\n");
    let answer = raw(running.public, &[huge.as_bytes()]).await;
    assert_eq!(status(&answer), Some(413));
    assert!(started.elapsed() < Duration::from_secs(2));
    // Too long without a word.
    let long = "x".repeat(3_000);
    assert_eq!(
        status(&raw(running.public, &[&chunked(&[&long, &long], "")]).await),
        Some(413)
    );
    // At the bound it is read, and refused for what it is.
    let spaces = format!("{json}{}", " ".repeat(4_096 - json.len()));
    assert_eq!(
        status(&raw(running.public, &[&chunked(&[&spaces], "")]).await),
        Some(200)
    );

    // Too much by all together: three of 3,000 bytes do not fit into 8,192.
    let mut waiting = Vec::new();
    let part = format!("POST {INFER} HTTP/1.1\r\nhost: t\r\ncontent-length: 3001\r\n\r\n{long}");
    for _ in 0..2 {
        let mut stream = TcpStream::connect(running.public).await.unwrap();
        stream.write_all(part.as_bytes()).await.unwrap();
        waiting.push(stream);
    }
    until("both are in", async || {
        running.service.held.bytes() == 2 * long.len()
    })
    .await;
    let answer = raw(running.public, &[part.as_bytes()]).await;
    assert_eq!(status(&answer), Some(503), "{answer}");
    assert!(answer.contains("retry-after"), "{answer}");
    drop(waiting);
    until("the bytes are given back", async || {
        running.service.held.bytes() == 0
    })
    .await;
    assert_eq!(
        status(&raw(running.public, &[whole.as_bytes()]).await),
        Some(200)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_body() {
    let changes = ["limits.body_timeout_ms = 300"];
    let Some((running, _models)) = Running::with_models("a_slow_body", &changes, 0).await else {
        return;
    };
    let slow = format!("POST {INFER} HTTP/1.1\r\nhost: t\r\ncontent-length: 50\r\n\r\n{{");
    let started = Instant::now();
    let answer = raw(running.public, &[slow.as_bytes()]).await;
    assert_eq!(status(&answer), Some(408), "{answer}");
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn heads() {
    let changes = ["limits.header_bytes = 8192", "limits.headers = 16"];
    let Some((running, _models)) = Running::with_models("heads", &changes, 0).await else {
        return;
    };
    let get = |extra: &str| format!("GET /v2 HTTP/1.1\r\nhost: t\r\n{extra}\r\n");
    assert_eq!(
        status(&raw(running.public, &[get("").as_bytes()]).await),
        Some(200)
    );
    let long = format!("x: {}\r\n", "y".repeat(10_000));
    assert_eq!(
        status(&raw(running.public, &[get(&long).as_bytes()]).await),
        Some(431)
    );
    let many: String = (0..20).map(|n| format!("x-{n}: y\r\n")).collect();
    assert_eq!(
        status(&raw(running.public, &[get(&many).as_bytes()]).await),
        Some(431)
    );
    assert_eq!(
        status(&raw(running.public, &[b"nonsense\r\n\r\n"]).await),
        Some(400)
    );
}

/// A head that never ends, and a connection that says nothing: both are closed.
#[tokio::test(flavor = "multi_thread")]
async fn slow_heads() {
    let changes = ["limits.header_timeout_ms = 1000"];
    let Some((running, _models)) = Running::with_models("slow_heads", &changes, 0).await else {
        return;
    };
    for start in [&b"GET /v2 HTTP/1.1\r\nhost"[..], &b""[..]] {
        let mut stream = TcpStream::connect(running.public).await.unwrap();
        stream.write_all(start).await.unwrap();
        let mut rest = Vec::new();
        let ended =
            tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "{start:?} is not closed");
    }
    assert_eq!(running.get("/v2").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections() {
    let changes = ["limits.connections = 4"];
    let Some((running, _models)) = Running::with_models("connections", &changes, 0).await else {
        return;
    };
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut client = running.client().await;
        assert_eq!(client.get("/v2").await.status, 200);
        held.push(client);
    }
    assert_eq!(
        raw(running.public, &[b"GET /v2 HTTP/1.1\r\nhost: t\r\n\r\n"]).await,
        "",
        "closed without a word"
    );
    // Those that are in still work, and leaving makes room.
    assert_eq!(held[0].get("/v2").await.status, 200);
    held.clear();
    until("room", async || {
        status(
            &raw(
                running.public,
                &[b"GET /v2 HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n"],
            )
            .await,
        ) == Some(200)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_flight() {
    let changes = ["limits.in_flight = 1"];
    let Some((running, _models)) = Running::with_models("in_flight", &changes, 0).await else {
        return;
    };
    let matrix = vec![0.5_f32; 600 * 600];
    let text = format!(
        r#"{{"inputs":[{{"name":"X","datatype":"FP32","shape":[600,600],"data":{matrix:?}}}]}}"#
    );
    let mut slow = running.client().await;
    let slow = tokio::spawn(async move {
        slow.send(hyper::Method::POST, "/v2/models/power/infer", &[], text)
            .await
    });
    let mut client = running.client().await;
    until("the slow one is in", async || {
        running.service.places.available_permits() == 0
    })
    .await;
    let refused = client.infer(&[]).await;
    assert_eq!(refused.status, 503);
    assert!(refused.problem().contains("in flight"));
    // Its body counts for as long as the model runs on it.
    assert!(running.service.held.bytes() > 360_000);
    // The slow one overflows to infinity at some point, or not: it is answered either way.
    assert!([200, 422].contains(&slow.await.unwrap().status));
    assert_eq!(client.infer(&[]).await.status, 200);
    until("the bytes are given back", async || {
        running.service.held.bytes() == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_takes_count_among_the_bytes_held() {
    let test = "answers_that_nobody_takes_count_among_the_bytes_held";
    let changes = [
        "limits.body_bytes = 8388608",
        "limits.buffered_bytes = 8388608",
    ];
    let Some((running, _models)) = Running::with_models(test, &changes, 0).await else {
        return;
    };
    // In binary, so that the answer is as long as the request: more than sockets take on.
    let (rows, bytes) = (500_000, 8_000_000);
    let json = format!(
        r#"{{"inputs":[{{"name":"X","datatype":"FP32","shape":[{rows},4],"parameters":{{"binary_data_size":{bytes}}}}}],"parameters":{{"binary_data_output":true}}}}"#
    );
    let head = format!(
        "POST {INFER} HTTP/1.1\r\nhost: t\r\nconnection: close\r\ninference-header-content-length: {}\r\ncontent-length: {}\r\n\r\n{json}",
        json.len(),
        json.len() + bytes
    );
    let mut slow = TcpStream::connect(running.public).await.unwrap();
    slow.write_all(head.as_bytes()).await.unwrap();
    slow.write_all(&vec![0x3f; bytes]).await.unwrap();
    let mut answer = vec![0; 12];
    slow.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 200");
    // The answer is made and part of it taken; all of it counts until the rest is.
    assert!(running.service.held.bytes() >= bytes);
    let held = "x".repeat(1 << 20);
    let refused = raw(running.public, &[&chunked(&[&held], "")]).await;
    assert_eq!(status(&refused), Some(503), "{refused}");
    slow.read_to_end(&mut answer).await.unwrap();
    assert!(answer.len() > bytes);
    until("the bytes are given back", async || {
        running.service.held.bytes() == 0
    })
    .await;
    assert_eq!(running.client().await.infer(&[]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_anyway_is_refused_before_its_body_comes() {
    let test = "what_is_refused_anyway_is_refused_before_its_body_comes";
    let Some((running, _models)) = Running::with_models(test, &[], 0).await else {
        return;
    };
    for (target, header, expected) in [
        (INFER, "touchstone: require=(proven)", 422),
        (INFER, "touchstone: require=(certain)", 422),
        (INFER, "content-encoding: br", 415),
        ("/v2/models/none/infer", "x: y", 404),
    ] {
        let head =
            format!("POST {target} HTTP/1.1\r\nhost: t\r\n{header}\r\ncontent-length: 100\r\n\r\n");
        let started = Instant::now();
        let answer = raw(running.public, &[head.as_bytes()]).await;
        assert_eq!(status(&answer), Some(expected), "{answer}");
        assert!(started.elapsed() < Duration::from_secs(2));
        // Nobody is to send another request after a body that was not read.
        assert!(answer.contains("connection: close\r\n"), "{answer}");
        // One that came is read to its end, and the connection goes on.
        let whole = format!("{head}{}", "x".repeat(100)).repeat(2);
        let answer = raw_of(running.public, &[whole.as_bytes()], 2).await;
        assert_eq!(answer.matches("HTTP/1.1").count(), 2, "{answer}");
        assert!(!answer.contains("connection: close\r\n"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_its_answer_is_cut_off() {
    let test = "a_client_that_does_not_read_its_answer_is_cut_off";
    let changes = ["limits.write_timeout_ms = 200", "limits.connections = 1"];
    let Some((running, _models)) = Running::with_models(test, &changes, 0).await else {
        return;
    };
    // Pipelines so many requests that their answers fill every buffer, and reads none.
    let mut stream = TcpStream::connect(running.public).await.unwrap();
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
        status(
            &raw(
                running.public,
                &[b"GET /v2 HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n"],
            )
            .await,
        ) == Some(200)
    })
    .await;
    flood.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn smuggling() {
    let Some((running, _models)) = Running::with_models("smuggling", &[], 0).await else {
        return;
    };
    let json = body([1.0; 4]);
    let length = json.len();
    for head in [
        // Length said twice, differently; length beside chunks; a coding that is not chunked.
        format!("content-length: {length}\r\ncontent-length: 1\r\n"),
        format!("content-length: {length}\r\ntransfer-encoding: chunked\r\n"),
        "transfer-encoding: gzip\r\n".to_owned(),
        format!("content-length: +{length}\r\n"),
        format!("content-length : {length}\r\n"),
        format!("content-length:\r\n {length}\r\n"),
    ] {
        let request = format!("POST {INFER} HTTP/1.1\r\nhost: t\r\n{head}\r\n{json}");
        let answer = raw(running.public, &[request.as_bytes()]).await;
        assert_eq!(status(&answer), Some(400), "{head:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{head:?}: {answer}");
    }
    assert_eq!(running.client().await.infer(&[]).await.status, 200);
}
