//! What passing bytes on costs, for any relay that listens on one address and passes on to another.
//!
//! - `cargo bench -p host --bench passthrough`: the host beside no relay at all.
//! - `… -- serve ADDRESS`: a server to put behind a relay; says `listening ADDRESS` (port 0: the system
//!   chooses one).
//! - `… -- load ADDRESS REQUEST ANSWER CONNECTIONS SECONDS [PID …]`: sends requests of so many bytes and
//!   takes answers of so many, one after the other on each connection, and prints one line of JSON. The
//!   CPU time of the processes named counts as the relay's.
//!
//! Server and client block in threads of their own, and do next to nothing beside it. The first byte on
//! each connection is that of a TLS handshake; the bytes are no TLS.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

/// First byte of a TLS handshake, so that a relay that looks takes it for one.
const HANDSHAKE: u8 = 0x16;
/// Bytes written and read at once.
const PIECE: usize = 256 << 10;

fn write_bytes(stream: &mut TcpStream, count: u64, moved: &AtomicU64) -> std::io::Result<()> {
    let piece = [0x5a; PIECE];
    let mut left = count;
    while left > 0 {
        let now = left.min(PIECE as u64);
        stream.write_all(&piece[..now as usize])?;
        moved.fetch_add(now, Relaxed);
        left -= now;
    }
    Ok(())
}

fn read_bytes(stream: &mut TcpStream, count: u64, moved: &AtomicU64) -> std::io::Result<()> {
    let mut piece = [0; PIECE];
    let mut left = count;
    while left > 0 {
        let most = left.min(PIECE as u64) as usize;
        let now = stream.read(&mut piece[..most])? as u64;
        if now == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        moved.fetch_add(now, Relaxed);
        left -= now;
    }
    Ok(())
}

/// Answers requests, of the lengths that each connection's first 24 bytes give.
fn serve(address: SocketAddr) {
    let listener = TcpListener::bind(address).unwrap();
    println!("listening {}", listener.local_addr().unwrap());
    for stream in listener.incoming() {
        thread::spawn(move || -> std::io::Result<()> {
            let (mut stream, ignored) = (stream?, AtomicU64::new(0));
            stream.set_nodelay(true)?;
            let mut head = [0; 24];
            stream.read_exact(&mut head)?;
            let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap());
            loop {
                read_bytes(&mut stream, number(8), &ignored)?;
                write_bytes(&mut stream, number(16), &ignored)?;
            }
        });
    }
}

struct Figures {
    exchanges: f64,
    mib: f64,
    p50: f64,
    p99: f64,
    cpu: f64,
}

/// Seconds of CPU that these processes have used.
fn cpu(processes: &[u32]) -> f64 {
    let tasks = processes.iter().flat_map(|id| {
        std::fs::read_dir(format!("/proc/{id}/task"))
            .into_iter()
            .flatten()
    });
    let nanoseconds: f64 = tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
        .filter_map(|stat| stat.split(' ').next()?.parse::<f64>().ok())
        .sum();
    nanoseconds / 1e9
}

fn load(
    address: SocketAddr,
    (request, answer): (u64, u64),
    connections: usize,
    seconds: f64,
    relay: &[u32],
) -> Figures {
    let moved = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let streams: Vec<TcpStream> = (0..connections)
        .map(|_| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_nodelay(true).unwrap();
            let mut head = [0; 24];
            head[0] = HANDSHAKE;
            head[8..16].copy_from_slice(&request.to_le_bytes());
            head[16..].copy_from_slice(&answer.to_le_bytes());
            stream.write_all(&head).unwrap();
            stream
        })
        .collect();
    let threads: Vec<_> = streams
        .iter()
        .map(|stream| {
            let (mut stream, moved, stop) =
                (stream.try_clone().unwrap(), moved.clone(), stop.clone());
            thread::spawn(move || {
                let mut took = Vec::new();
                while !stop.load(Relaxed) {
                    let began = Instant::now();
                    let done = write_bytes(&mut stream, request, &moved)
                        .and_then(|()| read_bytes(&mut stream, answer, &moved));
                    match done {
                        Ok(()) => took.push(began.elapsed()),
                        // Cut off below, in the midst of a long one.
                        Err(_) if stop.load(Relaxed) => break,
                        Err(error) => panic!("{address}: {error}"),
                    }
                }
                took
            })
        })
        .collect();
    // What begins slowly (windows, threads) is not what is asked about.
    thread::sleep(Duration::from_secs_f64(seconds / 5.0));
    let (began, bytes, busy) = (Instant::now(), moved.load(Relaxed), cpu(relay));
    thread::sleep(Duration::from_secs_f64(seconds));
    let elapsed = began.elapsed().as_secs_f64();
    let (bytes, busy) = (moved.load(Relaxed) - bytes, cpu(relay) - busy);
    stop.store(true, Relaxed);
    if request.max(answer) > PIECE as u64 {
        for stream in &streams {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
    let mut took: Vec<Duration> = threads
        .into_iter()
        .flat_map(|thread| thread.join().unwrap())
        .collect();
    took.sort_unstable();
    let at = |part: f64| {
        let index = (took.len().saturating_sub(1) as f64 * part) as usize;
        took.get(index)
            .map_or(f64::NAN, |took| took.as_secs_f64() * 1e6)
    };
    Figures {
        exchanges: bytes as f64 / (request + answer) as f64 / elapsed,
        mib: bytes as f64 / elapsed / f64::from(1 << 20),
        p50: at(0.5),
        p99: at(0.99),
        cpu: busy / elapsed,
    }
}

/// A process of this program, or of the host. Killed when dropped.
struct Running {
    child: Child,
    address: SocketAddr,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts `command` and reads its address, which follows `mark` in a line of what it says.
fn start(mut command: Command, mark: &str) -> Running {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (found, address) = std::sync::mpsc::channel();
    for stream in [Box::new(out) as Box<dyn Read + Send>, Box::new(err)] {
        let (found, mark) = (found.clone(), mark.to_owned());
        thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let address = line
                    .split_once(&mark)
                    .and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
                let _ = address.map(|address| found.send(address));
            }
        });
    }
    let address = address.recv_timeout(Duration::from_secs(10)).unwrap();
    Running { child, address }
}

fn beside_no_relay() {
    let mut server = Command::new(std::env::current_exe().unwrap());
    server.args(["serve", "127.0.0.1:0"]);
    let server = start(server, "listening ");
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("host.toml");
    let store = folder.path().join("store.sqlite");
    let text = format!(
        "listen = \"tcp://127.0.0.1:0\"\nthreads = 2\n[enclave]\npublic = \"tcp://127.0.0.1:1\"\n\
         control = \"tcp://127.0.0.1:2\"\ntls = \"tcp://{}\"\n[store]\npath = {store:?}\n",
        server.address
    );
    std::fs::write(&settings, text).unwrap();
    let mut host = Command::new(env!("CARGO_BIN_EXE_host"));
    host.arg("--config").arg(&settings);
    let host = start(host, "listening address=");
    let relay = [host.child.id()];
    println!(
        "{:>10} {:>10} {:>5} {:>8} {:>12} {:>10} {:>9} {:>9} {:>10} {:>14} {:>14}",
        "request",
        "answer",
        "conns",
        "",
        "exchanges/s",
        "MiB/s",
        "p50 us",
        "p99 us",
        "relay CPU",
        "CPU us/exch.",
        "MiB/CPU s"
    );
    let rounds = 3;
    for (lengths, connections) in [
        ((1, 1 << 40), 1),
        ((1 << 40, 1), 1),
        ((1, 1 << 40), 8),
        ((1 << 20, 1 << 20), 4),
        ((3_600, 900), 1),
        ((3_600, 900), 64),
    ] {
        let mut ratios = Vec::new();
        for _ in 0..rounds {
            let direct = load(server.address, lengths, connections, 1.5, &[]);
            let relayed = load(host.address, lengths, connections, 1.5, &relay);
            for (name, figures) in [("direct", &direct), ("relayed", &relayed)] {
                row(lengths, connections, name, figures);
            }
            ratios.push(relayed.mib / direct.mib);
        }
        ratios.sort_by(f64::total_cmp);
        println!(
            "{:>37} of direct (median of {rounds})",
            format!("{:.2}", ratios[rounds / 2])
        );
    }
}

fn row((request, answer): (u64, u64), connections: usize, name: &str, figures: &Figures) {
    let Figures {
        exchanges,
        mib,
        p50,
        p99,
        cpu,
    } = figures;
    let length = |bytes: u64| {
        if bytes > 1 << 30 {
            "endless".into()
        } else {
            bytes.to_string()
        }
    };
    println!(
        "{:>10} {:>10} {connections:>5} {name:>8} {exchanges:>12.0} {mib:>10.0} {p50:>9.0} {p99:>9.0} {cpu:>10.2} {:>14.1} {:>14.0}",
        length(request),
        length(answer),
        cpu / exchanges * 1e6,
        mib / cpu
    );
}

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        // `cargo test --benches` and `cargo bench -- --list` only ask whether it is there.
        ["--list" | "--test", ..] => {}
        [] => beside_no_relay(),
        ["serve", address] => serve(address.parse().unwrap()),
        [
            "load",
            address,
            request,
            answer,
            connections,
            seconds,
            relay @ ..,
        ] => {
            let relay: Vec<u32> = relay.iter().map(|id| id.parse().unwrap()).collect();
            let figures = load(
                address.parse().unwrap(),
                (request.parse().unwrap(), answer.parse().unwrap()),
                connections.parse().unwrap(),
                seconds.parse().unwrap(),
                &relay,
            );
            let number = |number: f64| {
                if number.is_finite() {
                    format!("{number:.3}")
                } else {
                    "null".into()
                }
            };
            println!(
                "{{\"exchanges_per_second\":{},\"mib_per_second\":{},\"p50_us\":{},\"p99_us\":{},\"relay_cpus\":{}}}",
                number(figures.exchanges),
                number(figures.mib),
                number(figures.p50),
                number(figures.p99),
                number(figures.cpu)
            );
        }
        other => panic!(
            "found {other:?}, expected nothing, `serve ADDRESS`, or `load ADDRESS REQUEST ANSWER CONNECTIONS SECONDS [PID …]`"
        ),
    }
}
