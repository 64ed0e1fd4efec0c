//! A client that knows nothing of Touchstone: HTTP/1.1 by hand, so that every byte it is given is seen.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// An answer, and the very bytes it came in.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub raw: Vec<u8>,
}

impl Response {
    /// All values of a header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(found, _)| found == name);
        named.map(|(_, value)| value.as_str()).collect()
    }

    /// The one value of a header.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        let all = self.all(name);
        assert_eq!(all.len(), 1, "{name}: {:?}", self.headers);
        all[0]
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    /// Whether these bytes stand anywhere in what came.
    pub fn has(&self, part: &[u8]) -> bool {
        self.raw.windows(part.len()).any(|window| window == part)
    }
}

/// One connection, kept alive.
pub struct Connection {
    stream: TcpStream,
    host: String,
}

impl Connection {
    pub fn open(address: SocketAddr) -> Connection {
        let stream = TcpStream::connect(address).expect("the proxy listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        stream.set_nodelay(true).unwrap();
        Connection {
            stream,
            host: address.to_string(),
        }
    }

    /// A request with a `Host` and a length, and its answer.
    pub fn send(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n", self.host);
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        head += "\r\n";
        self.raw(&[head.as_bytes(), body].concat(), method == "HEAD")
    }

    /// Exactly these bytes, and the answer.
    pub fn raw(&mut self, request: &[u8], head_only: bool) -> Response {
        self.stream.write_all(request).expect("the request is sent");
        self.answer(head_only)
    }

    /// The next answer.
    pub fn answer(&mut self, head_only: bool) -> Response {
        let mut raw = Vec::new();
        let end = loop {
            if let Some(at) = raw.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            self.more(&mut raw);
        };
        let head = String::from_utf8(raw[..end].to_vec()).expect("a head in ASCII");
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let status = status.parse().unwrap();
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length = match (head_only, length) {
            (true, _) | (_, None) => 0,
            (false, Some((_, length))) => length.parse::<usize>().unwrap(),
        };
        while raw.len() < end + length {
            self.more(&mut raw);
        }
        assert_eq!(raw.len(), end + length, "nothing after the answer");
        Response {
            status,
            headers,
            body: raw[end..].to_vec(),
            raw,
        }
    }

    fn more(&mut self, raw: &mut Vec<u8>) {
        let mut buffer = [0; 16 << 10];
        // A read with a time limit is not taken up again by itself when a signal interrupts it.
        let read = loop {
            match self.stream.read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read.expect("an answer in time"),
            }
        };
        assert_ne!(read, 0, "the connection ended in the middle of an answer");
        raw.extend_from_slice(&buffer[..read]);
    }
}
