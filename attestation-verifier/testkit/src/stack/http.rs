//! A small blocking HTTP/1.1 client, one connection per request, that sends exactly what it is told.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Longest time without a byte.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client of one address.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    address: SocketAddr,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Header fields in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body after transfer decoding.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header field of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let name = name.to_ascii_lowercase();
        self.headers
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e} in {:?}", String::from_utf8_lossy(&self.body)))
    }
}

impl Client {
    /// A client of this address.
    pub fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// The address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// GET.
    ///
    /// # Panics
    /// When there is no answer.
    pub fn get(&self, path: &str) -> Response {
        self.request("GET", path, &[], b"")
    }

    /// GET, by somebody who does not know whether anybody listens.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn try_get(&self, path: &str) -> io::Result<Response> {
        self.try_request("GET", path, &[], b"")
    }

    /// POST.
    ///
    /// # Panics
    /// When there is no answer.
    pub fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.request("POST", path, headers, body)
    }

    /// Any request. `host`, `content-length` and `connection: close` are added.
    ///
    /// # Panics
    /// When there is no answer.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        self.try_request(method, path, headers, body)
            .unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    /// As [`Client::request`].
    ///
    /// # Errors
    /// When there is no answer.
    pub fn try_request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Response> {
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n",
            self.address
        );
        if !body.is_empty() || method == "POST" {
            head += &format!("content-length: {}\r\n", body.len());
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        self.raw(&[head.as_bytes(), b"\r\n", body].concat())
    }

    /// Sends these bytes, whatever they are, and reads one answer.
    ///
    /// # Errors
    /// When there is none.
    pub fn raw(&self, bytes: &[u8]) -> io::Result<Response> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        // An answer may come, and the other side close, before it has read all.
        let sent = stream.write_all(bytes);
        let mut received = Vec::new();
        let read = stream.read_to_end(&mut received);
        match parse(&received) {
            Some(response) => Ok(response),
            None => {
                sent?;
                read?;
                Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("{} bytes, no whole answer", received.len()),
                ))
            }
        }
    }
}

/// The first final answer in `bytes`; `None` when it is not whole.
fn parse(bytes: &[u8]) -> Option<Response> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let rest = &bytes[end + 4..];
    let mut lines = head.split("\r\n");
    let status: u16 = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    if (100..200).contains(&status) {
        return parse(rest);
    }
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let header = |name: &str| {
        headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    };
    let body = if header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
        dechunk(rest)?
    } else if let Some(length) = header("content-length") {
        rest.get(..length.parse().ok()?)?.to_vec()
    } else {
        rest.to_vec()
    };
    Some(Response {
        status,
        headers,
        body,
    })
}

fn dechunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|w| w == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..end]).ok()?.split(';').next()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn answers_are_read_in_every_framing() {
        let body = |text: &str| parse(text.as_bytes()).map(|r| (r.status, r.body));
        assert_eq!(
            body("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
            Some((200, b"hi".to_vec()))
        );
        assert_eq!(
            body("HTTP/1.1 200 OK\r\n\r\nto the end"),
            Some((200, b"to the end".to_vec()))
        );
        let chunked = "HTTP/1.1 202 A\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n3;x=y\r\n yo\r\n0\r\n\r\n";
        assert_eq!(body(chunked), Some((202, b"hi yo".to_vec())));
        assert_eq!(
            body("HTTP/1.1 100 C\r\n\r\nHTTP/1.1 204 N\r\ncontent-length: 0\r\n\r\n"),
            Some((204, vec![]))
        );
        for cut in [
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi",
            "HTTP/1.1 200 OK\r\n",
            "",
            &chunked[..60],
        ] {
            assert_eq!(body(cut), None, "{cut:?}");
        }
    }

    #[test]
    fn requests_are_sent_as_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let n = stream.read(&mut request).unwrap();
            stream
                .write_all(b"HTTP/1.1 418 T\r\nX-A: b\r\ncontent-length: 2\r\n\r\n{}")
                .unwrap();
            String::from_utf8_lossy(&request[..n]).into_owned()
        });
        let answer =
            Client::new(address).post("/p", &[("touchstone", "require=(signed)")], b"body");
        assert_eq!(
            (answer.status, answer.header("x-a"), answer.json()),
            (418, Some("b"), serde_json::json!({}))
        );
        let expected = format!(
            "POST /p HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: 4\r\ntouchstone: require=(signed)\r\n\r\nbody"
        );
        assert_eq!(server.join().unwrap(), expected);
    }
}
