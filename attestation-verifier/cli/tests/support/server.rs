//! A server as `ask` meets it: it mints what an enclave would have made, or misbehaves.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use touchstone_formats::headers::{OpeningSalts, State, TouchstoneRequest, TouchstoneResponse};
use touchstone_testkit::mint::{Exchange, Minted, Tensor, World};

/// A request as it came over the wire.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: String,
    pub target: String,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

/// What to send back.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Reply {
        Reply {
            status,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Reply {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

/// A listening server, and all it received.
pub struct Server {
    pub url: String,
    pub received: Arc<Mutex<Vec<Received>>>,
}

impl Server {
    /// Answers every request with what `reply` says.
    pub fn start(reply: impl FnMut(&Received) -> Reply + Send + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let received = Arc::new(Mutex::new(Vec::new()));
        let (log, mut reply) = (received.clone(), reply);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // A caller who hangs up is none of this server's business.
                let _ = serve(stream, &log, &mut reply);
            }
        });
        Server { url, received }
    }

    /// How many requests of this method came.
    pub fn count(&self, method: &str) -> usize {
        self.received
            .lock()
            .unwrap()
            .iter()
            .filter(|r| r.method == method)
            .count()
    }
}

fn serve(
    stream: TcpStream,
    log: &Mutex<Vec<Received>>,
    reply: &mut impl FnMut(&Received) -> Reply,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, target) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers
        .get("content-length")
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let received = Received {
        method,
        target,
        headers,
        body,
    };
    let answer = reply(&received);
    log.lock().unwrap().push(received);
    let mut out = format!(
        "HTTP/1.1 {} Status\r\ncontent-length: {}\r\n",
        answer.status,
        answer.body.len()
    );
    for (name, value) in &answer.headers {
        out.push_str(&format!("{name}: {value}\r\n"));
    }
    out.push_str("\r\n");
    let mut stream = reader.into_inner();
    stream.write_all(out.as_bytes())?;
    stream.write_all(&answer.body)
}

/// The input that tests ask about.
pub const INPUT: [f32; 4] = [0.1, 0.5, -2.25, 3.0e-7];

/// What an enclave would have made of this request: its answer, and the sealed bundle.
pub fn enclave(world: &World, asked: &Received, mut exchange: Exchange) -> (Reply, Minted) {
    let header =
        TouchstoneRequest::parse(&asked.headers["touchstone"]).expect("a Touchstone header");
    exchange.method = asked.method.clone();
    exchange.target = asked.target.clone();
    exchange.request_body = asked.body.clone();
    exchange.request_header_length = asked
        .headers
        .get("inference-header-content-length")
        .map(|n| n.parse().unwrap());
    exchange.nonce = header.nonce;
    exchange.require = header.require.expect("guarantees asked for");
    exchange.inputs = vec![Tensor::fp32("x", &[1, 4], &INPUT)];
    let minted = world.mint(exchange).finish();
    (answer(&minted), minted)
}

/// The answer of an exchange, as the enclave sends it.
pub fn answer(minted: &Minted) -> Reply {
    let exchange = &minted.exchange;
    let header = TouchstoneResponse {
        id: exchange.cti,
        keyset: minted.bundle.keyset.digest(),
        require: exchange.require,
        state: State::Pending,
    };
    let tensors = |salt| (!exchange.refused()).then_some(salt);
    let salts = OpeningSalts {
        request: Some(exchange.salts.request),
        response: Some(exchange.salts.response),
        inputs: tensors(exchange.salts.inputs),
        outputs: tensors(exchange.salts.outputs),
    };
    let mut reply = Reply::new(exchange.status, exchange.response_body.clone())
        .header("touchstone", header.to_string())
        .header("touchstone-openings", salts.to_string());
    let kind = match exchange.response_header_length {
        Some(_) => "application/octet-stream",
        None => "application/json",
    };
    reply = reply.header("content-type", kind);
    if let Some(length) = exchange.response_header_length {
        reply = reply.header("inference-header-content-length", length.to_string());
    }
    reply
}

/// The bundle as the host serves it: without openings; before the seal without it.
pub fn served(minted: &Minted, sealed: bool) -> Vec<u8> {
    let mut bundle = minted.bundle.clone();
    bundle.openings = Default::default();
    if !sealed {
        bundle.proof = None;
        bundle
            .evidence
            .retain(|e| e.purpose == Some(touchstone_formats::Purpose::Boot));
    }
    bundle.to_file()
}
