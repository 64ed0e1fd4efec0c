//! What the host costs: CPU for a relayed request, and for a receipt that is pulled and stored.
//!
//! `cargo bench -p host --bench host [-- relay|store]`. The host runs as a process of its own, so that its CPU time is its own;
//! caller and enclave are the simplest that speak the protocols, and share the machine with it. With the paths of nginx's and
//! HAProxy's programs in `NGINX` and `HAPROXY` these relay the same requests in the same run, with as many threads.

#[path = "../tests/host/enclave.rs"]
#[allow(dead_code, reason = "tests use more of it")]
mod enclave;

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use enclave::Enclave;

/// An inference request of ordinary size: one 28×28 picture in the binary extension.
fn request() -> Vec<u8> {
    let body = vec![7u8; 3_136 + 180];
    let mut bytes = format!(
        "POST /v2/models/digits_cnn/infer HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\
         Touchstone: require=(logged signed), nonce=:AAAAAAAAAAAAAAAAAAAAAA==:\r\n\
         Inference-Header-Content-Length: 180\r\nContent-Type: application/octet-stream\r\n\
         Accept: */*\r\nUser-Agent: bench\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(&body);
    bytes
}

fn answer() -> Vec<u8> {
    let body = vec![b'x'; 250];
    let mut bytes = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
         Touchstone: id=\"000102030405060708090a0b0c0d0e0f\", keyset=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:, require=(logged signed), state=pending\r\n\
         Touchstone-Openings: inputs=:AAAAAAAAAAAAAAAAAAAAAA==:, outputs=:AAAAAAAAAAAAAAAAAAAAAA==:, request=:AAAAAAAAAAAAAAAAAAAAAA==:, response=:AAAAAAAAAAAAAAAAAAAAAA==:\r\n\
         Link: </v1/receipts/000102030405060708090a0b0c0d0e0f>; rel=\"https://touchstone.invalid/rel/receipt\"\r\n\
         Content-Digest: sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:\r\n\
         Access-Control-Allow-Origin: *\r\nContent-Length: {}\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(&body);
    bytes
}

/// Reads exactly `length` bytes; `false` at the end of the stream.
async fn read_exactly(stream: &mut TcpStream, buffer: &mut [u8], length: usize) -> bool {
    let mut have = 0;
    while have < length {
        match stream.read(buffer).await {
            Ok(count @ 1..) => have += count,
            _ => return false,
        }
    }
    true
}

/// A server that counts bytes and says always the same.
async fn fixed_enclave(length: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer: Arc<[u8]> = answer().into();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 << 10];
                while read_exactly(&mut stream, &mut buffer, length).await {
                    stream.write_all(&answer).await.unwrap();
                }
            });
        }
    });
    address
}

struct HostProcess {
    child: Child,
    address: SocketAddr,
}

impl Drop for HostProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl HostProcess {
    fn start(folder: &Path, public: SocketAddr, control: SocketAddr, threads: usize) -> Self {
        let file = folder.join("host.toml");
        let store = folder.join("store.sqlite");
        std::fs::write(
            &file,
            format!(
                "listen = \"tcp://127.0.0.1:0\"\nthreads = {threads}\n[enclave]\npublic = \"tcp://{public}\"\n\
                 control = \"tcp://{control}\"\n[store]\npath = {store:?}\n\
                 [limits]\nclient_connections = 4096\nclient_in_flight = 4096\n"
            ),
        )
        .unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_host"))
            .arg("--config")
            .arg(file)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                line.split_once("listening address=")?
                    .1
                    .split(' ')
                    .next()?
                    .parse()
                    .ok()
            })
            .expect("the host starts");
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }

    /// Another relay, if the environment names its program.
    fn peer(name: &str, folder: &Path, enclave: SocketAddr, threads: usize) -> Option<Self> {
        let program = std::env::var_os(name)?;
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let file = folder.join("peer.conf");
        let at = folder.display();
        let (settings, arguments): (String, Vec<String>) = match name {
            // One process for each thread; the others are its children.
            "NGINX" => (
                format!(
                    "daemon off; worker_processes {threads}; pid {at}/pid; error_log {at}/error.log;\n\
                     events {{ worker_connections 8192; }}\n\
                     http {{ access_log off; client_body_temp_path {at}; proxy_temp_path {at}; fastcgi_temp_path {at};\n\
                     uwsgi_temp_path {at}; scgi_temp_path {at}; keepalive_requests 1000000000;\n\
                     upstream enclave {{ server {enclave}; keepalive 2048; keepalive_requests 1000000000; }}\n\
                     server {{ listen {address}; location / {{ proxy_pass http://enclave; proxy_http_version 1.1;\n\
                     proxy_set_header Connection \"\"; proxy_set_header Host $http_host; }} }} }}\n"
                ),
                vec![
                    "-p".into(),
                    at.to_string(),
                    "-c".into(),
                    file.display().to_string(),
                ],
            ),
            _ => (
                format!(
                    "global\n nbthread {threads}\n maxconn 8192\n\
                     defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n http-reuse always\n\
                     frontend f\n bind {address}\n default_backend b\nbackend b\n server s {enclave}\n"
                ),
                vec!["-db".into(), "-f".into(), file.display().to_string()],
            ),
        };
        std::fs::write(&file, settings).unwrap();
        let child = Command::new(program)
            .args(arguments)
            .stderr(Stdio::null())
            .spawn();
        let peer = Self {
            child: child.unwrap(),
            address,
        };
        for _ in 0..200 {
            if std::net::TcpStream::connect(address).is_ok() {
                return Some(peer);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{name} does not listen");
    }

    /// Processes of its own, and it.
    fn family(&self) -> Vec<u32> {
        let own = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children"));
        let children = children.unwrap_or_default();
        let children = children.split_whitespace().filter_map(|id| id.parse().ok());
        children.chain([own]).collect()
    }

    /// Seconds of CPU so far.
    fn cpu(&self) -> f64 {
        let each = self.family().into_iter().map(|process| {
            let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
            let fields: Vec<&str> = stat
                .rsplit_once(')')
                .unwrap()
                .1
                .split_whitespace()
                .collect();
            (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
        });
        each.sum()
    }

    fn memory_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        line.trim()
            .split(' ')
            .next()
            .unwrap()
            .parse::<u64>()
            .unwrap()
            / 1_024
    }
}

/// Asks from many connections for a while. Gives requests a second and the latencies.
async fn load(address: SocketAddr, connections: usize, seconds: f64) -> (f64, Vec<Duration>) {
    let (request, length): (Arc<[u8]>, usize) = (request().into(), answer().len());
    let stop = Arc::new(AtomicBool::new(false));
    let began = Instant::now();
    let tasks: Vec<_> = (0..connections)
        .map(|_| {
            let (request, stop) = (request.clone(), stop.clone());
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                let mut buffer = vec![0; 64 << 10];
                let mut latencies = Vec::new();
                while !stop.load(SeqCst) {
                    let asked = Instant::now();
                    stream.write_all(&request).await.unwrap();
                    assert!(
                        read_exactly(&mut stream, &mut buffer, length).await,
                        "the host closed"
                    );
                    latencies.push(asked.elapsed());
                }
                latencies
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    stop.store(true, SeqCst);
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    let rate = all.len() as f64 / began.elapsed().as_secs_f64();
    all.sort_unstable();
    (rate, all)
}

async fn relay() {
    let nobody = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let enclave = fixed_enclave(request().len()).await;
    println!(
        "relay: {} bytes in, {} bytes out",
        request().len(),
        answer().len()
    );
    println!(
        "{:>12} {:>12} {:>12} {:>14} {:>9} {:>9}",
        "", "connections", "requests/s", "host CPU us/rq", "p50 us", "p99 us"
    );
    for connections in [1, 64, 1_024] {
        let (rate, latencies) = load(enclave, connections, 2.0).await;
        row("direct", connections, rate, None, &latencies);
        for threads in [1, 2] {
            for name in ["host", "NGINX", "HAPROXY"] {
                let folder = tempfile::tempdir().unwrap();
                let relay = match name {
                    "host" => Some(HostProcess::start(folder.path(), enclave, nobody, threads)),
                    _ => HostProcess::peer(name, folder.path(), enclave, threads),
                };
                let Some(relay) = relay else { continue };
                load(relay.address, connections, 0.5).await;
                let before = relay.cpu();
                let (rate, latencies) = load(relay.address, connections, 3.0).await;
                let cpu = (relay.cpu() - before) / latencies.len() as f64 * 1e6;
                let name = format!("{} {threads}", name.to_lowercase());
                row(&name, connections, rate, Some(cpu), &latencies);
            }
        }
    }
}

fn row(name: &str, connections: usize, rate: f64, cpu: Option<f64>, latencies: &[Duration]) {
    let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize].as_micros();
    let cpu = cpu.map_or("-".to_owned(), |cpu| format!("{cpu:.1}"));
    println!(
        "{name:>12} {connections:>12} {rate:>12.0} {cpu:>14} {:>9} {:>9}",
        at(0.5),
        at(0.99)
    );
}

/// Batches as an enclave under load makes them; how fast the host takes them, and at what cost.
async fn store() {
    println!("\nstore: batches pulled, stored, acknowledged");
    println!(
        "{:>12} {:>12} {:>12} {:>16} {:>12} {:>12}",
        "receipts", "a batch", "receipts/s", "host CPU us/rcpt", "bytes/rcpt", "RSS MiB"
    );
    for (batches, size) in [(2_000, 10), (200, 400), (40, 4_000)] {
        let enclave = Enclave::start().await;
        let ids = tokio::task::block_in_place(|| {
            let mut ids = Vec::new();
            for _ in 0..batches {
                ids.extend((0..size).map(|_| enclave.answer("logged")));
                enclave.seal();
            }
            ids
        });
        // What replies are made of is made before the clock starts.
        enclave.prepare();
        let folder = tempfile::tempdir().unwrap();
        let began = Instant::now();
        let host = HostProcess::start(folder.path(), enclave.public, enclave.control, 2);
        let before = host.cpu();
        while enclave.acknowledged().last() != Some(&(batches as u64)) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let (elapsed, cpu) = (began.elapsed().as_secs_f64(), host.cpu() - before);
        let bytes: u64 = ["store.sqlite", "store.sqlite-wal"]
            .iter()
            .map(|name| std::fs::metadata(folder.path().join(name)).map_or(0, |file| file.len()))
            .sum();
        println!(
            "{:>12} {size:>12} {:>12.0} {:>16.1} {:>12} {:>12}",
            ids.len(),
            ids.len() as f64 / elapsed,
            cpu / ids.len() as f64 * 1e6,
            bytes / ids.len() as u64,
            host.memory_mib()
        );
        if size == 400 {
            bundles(&host, &ids).await;
        }
    }
}

/// Bundles served from the store.
async fn bundles(host: &HostProcess, ids: &[enclave::Id]) {
    let served = Arc::new(AtomicU64::new(0));
    let (before, began) = (host.cpu(), Instant::now());
    let tasks: Vec<_> = (0..64)
        .map(|task| {
            let (served, address) = (served.clone(), host.address);
            let ids: Vec<_> = ids.iter().skip(task).step_by(64).copied().collect();
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let mut buffer = vec![0; 64 << 10];
                for id in ids {
                    let target = touchstone_formats::text::hex_encode(&id);
                    let request = format!("GET /v1/receipts/{target} HTTP/1.1\r\nHost: h\r\n\r\n");
                    stream.write_all(request.as_bytes()).await.unwrap();
                    let mut have = 0;
                    loop {
                        have += stream.read(&mut buffer[have..]).await.unwrap();
                        if buffer[..have].ends_with(b"}\n") {
                            break;
                        }
                    }
                    assert!(buffer.starts_with(b"HTTP/1.1 200 "));
                    served.fetch_add(1, SeqCst);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let count = served.load(SeqCst) as f64;
    println!(
        "{:>12} {:>12} {:>12.0} {:>16.1}   (bundles served a second, host CPU us each)",
        "",
        "bundles",
        count / began.elapsed().as_secs_f64(),
        (host.cpu() - before) / count * 1e6
    );
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    // `cargo test --benches` and `cargo bench -- --list` only ask whether it is there.
    if std::env::args().any(|argument| argument == "--list" || argument == "--test") {
        return;
    }
    let only = |part: &str| std::env::args().any(|argument| argument == part);
    if !only("store") {
        relay().await;
    }
    if !only("relay") {
        store().await;
    }
}
