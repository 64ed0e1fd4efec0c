//! A caller.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request, StatusCode, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The problem that this answer must be: with a status, and a sentence in `error`.
    pub fn problem(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        assert_eq!(self.header("access-control-allow-origin"), Some("*"));
        let document: Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(document["status"], self.status.as_u16());
        assert_eq!(document["error"], document["detail"]);
        assert_eq!(document["type"], "about:blank");
        document["error"].as_str().unwrap().to_owned()
    }
}

pub async fn request(address: SocketAddr, request: Request<Full<Bytes>>) -> Answer {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    drop(sender);
    connection.abort();
    Answer {
        status: head.status,
        headers: head.headers,
        body,
    }
}

pub async fn send(
    address: SocketAddr,
    method: Method,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut builder = Request::builder()
        .method(method)
        .uri(target)
        .header("host", "h");
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    request(
        address,
        builder
            .body(Full::new(Bytes::copy_from_slice(body)))
            .unwrap(),
    )
    .await
}

pub async fn get(address: SocketAddr, target: &str) -> Answer {
    send(address, Method::GET, target, &[], b"").await
}

/// Writes bytes and reads until the other side closes, or is silent for a while after it has begun to answer.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    read_all(&mut stream).await
}

pub async fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let patience = Duration::from_millis(if answer.is_empty() { 10_000 } else { 400 });
        let Ok(Ok(count @ 1..)) = tokio::time::timeout(patience, stream.read(&mut buffer)).await
        else {
            break;
        };
        answer.extend_from_slice(&buffer[..count]);
    }
    answer
}

/// Asks again and again until the answer satisfies; fails after some seconds.
pub async fn until(
    address: SocketAddr,
    target: &str,
    what: &str,
    satisfied: impl Fn(&Answer) -> bool,
) -> Answer {
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let answer = get(address, target).await;
        if satisfied(&answer) {
            return answer;
        }
        assert!(
            tokio::time::Instant::now() < end,
            "never {what}: {answer:?}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
