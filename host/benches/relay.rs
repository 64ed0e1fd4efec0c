//! What relaying HTTP costs, beside nginx and HAProxy in the same run.
//!
//! `cargo bench -p host --bench relay [-- quick] [-- json] [-- CASE…]`. `NGINX` and `HAPROXY` name the peers' programs; each that is not
//! named is said loudly to be missing. `BEFORE` names another build of the host, to see what a change brings.
//!
//! All relays get the same: one thread, the same requests over the same number of kept connections on either side, no
//! access log, bodies up to 64 KiB taken whole and longer ones streamed, nothing on disk. They take turns in short rounds, so that
//! whatever else the machine does hurts all alike, and what is told is each one's median round. CPU is user and system time of the relay's
//! processes, from /proc, divided by the requests that were answered. Caller and enclave are the simplest that speak the
//! protocol, in this process, each in a thread of its own. Where there are cores enough, relay and load have cores of their
//! own, and callers and enclave never sleep: the system would have whoever writes to them pay for waking them, and a slow relay
//! more often, since they have less to do meanwhile.
//!
//! The host does what it always does: it reads HTTP to the letter, limits, counts by model and by client, and notes and writes
//! down every receipt promised. The peers do nothing of the kind.

mod programs;

use std::{
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Handle,
};

use programs::Relay;

/// The least that the host may do for a second of its CPU, and the most that its p99 may be, beside the better peer.
const AIM: f64 = 0.8;

/// One kind of request.
struct Case {
    name: &'static str,
    method: &'static str,
    /// Bytes of bodies.
    request: usize,
    answer: usize,
    connections: usize,
    threads: usize,
}

const fn case(
    name: &'static str,
    method: &'static str,
    request: usize,
    answer: usize,
    connections: usize,
    threads: usize,
) -> Case {
    Case {
        name,
        method,
        request,
        answer,
        connections,
        threads,
    }
}

/// An inference of ordinary size is one 28×28 picture in the binary extension.
const CASES: [Case; 8] = [
    case("infer", "POST", 3_316, 250, 64, 1),
    case("infer-1", "POST", 3_316, 250, 1, 1),
    case("infer-1024", "POST", 3_316, 250, 1_024, 1),
    case("infer-2-threads", "POST", 3_316, 250, 64, 2),
    case("get", "GET", 0, 250, 64, 1),
    case("64-KiB-in", "POST", 64 << 10, 250, 32, 1),
    case("512-KiB-in", "POST", 512 << 10, 250, 16, 1),
    case("512-KiB-out", "POST", 3_316, 512 << 10, 16, 1),
];

impl Case {
    /// The bytes of a request.
    fn request(&self) -> Vec<u8> {
        let (method, length) = (self.method, self.request);
        let body = match method {
            "GET" => String::new(),
            _ => format!(
                "Inference-Header-Content-Length: 180\r\nContent-Type: application/octet-stream\r\n\
                 Content-Length: {length}\r\n"
            ),
        };
        let target = match method {
            "GET" => "",
            _ => "/infer",
        };
        let mut bytes = format!(
            "{method} /v2/models/digits_cnn{target} HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\
             Touchstone: require=(logged signed), nonce=:AAAAAAAAAAAAAAAAAAAAAA==:\r\n{body}\
             Accept: */*\r\nUser-Agent: bench\r\n\r\n"
        )
        .into_bytes();
        bytes.resize(bytes.len() + length, 7);
        bytes
    }

    /// An enclave's answer with a receipt of this number. Its id is as scattered as a random one, which is what enclaves give:
    /// noting and storing ids that follow each other would cost less.
    fn answer(&self, number: u64) -> Vec<u8> {
        let number = u128::from(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let receipt = match self.method {
            "GET" => String::new(),
            _ => format!(
                "Touchstone: id=\"{number:032x}\", keyset=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:, require=(logged signed), state=pending\r\n\
                 Touchstone-Openings: inputs=:AAAAAAAAAAAAAAAAAAAAAA==:, outputs=:AAAAAAAAAAAAAAAAAAAAAA==:, request=:AAAAAAAAAAAAAAAAAAAAAA==:, response=:AAAAAAAAAAAAAAAAAAAAAA==:\r\n\
                 Link: </v1/receipts/{number:032x}>; rel=\"https://touchstone.invalid/rel/receipt\"\r\n\
                 Content-Digest: sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:\r\n"
            ),
        };
        let mut bytes = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{receipt}\
             Access-Control-Allow-Origin: *\r\nContent-Length: {}\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n\r\n",
            self.answer
        )
        .into_bytes();
        bytes.resize(bytes.len() + self.answer, b'x');
        bytes
    }
}

/// Reads a whole message, head and body of `body` bytes, and gives its first bytes; `None` at the end of the stream.
/// Relays write heads as they like, so its length is not known before.
async fn read_message(stream: &mut TcpStream, buffer: &mut [u8], body: usize) -> Option<[u8; 12]> {
    let (mut have, mut left) = (0, None);
    let mut first = [0; 12];
    loop {
        let count = stream.read(&mut buffer[have..]).await.ok()?;
        if count == 0 {
            return None;
        }
        left = match left {
            None => {
                have += count;
                let end = buffer[..have]
                    .windows(4)
                    .position(|four| four == b"\r\n\r\n");
                end.map(|end| {
                    let came = have - end - 4;
                    first.copy_from_slice(&buffer[..12]);
                    have = 0;
                    (body.checked_sub(came)).expect("no more than was asked for")
                })
            }
            Some(left) => Some(left - count),
        };
        if left == Some(0) {
            return Some(first);
        }
    }
}

/// A thread for caller or enclave. With cores of its own it never sleeps.
fn thread() -> Handle {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let handle = runtime.handle().clone();
    std::thread::spawn(move || {
        runtime.block_on(async {
            while pinned() {
                tokio::task::yield_now().await;
            }
            std::future::pending::<()>().await;
        });
    });
    handle
}

/// A server that reads requests of one kind and answers each with a receipt of its own.
fn enclave(case: &'static Case, thread: &Handle) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let numbers = Arc::new(AtomicU64::new(0));
    thread.spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let numbers = numbers.clone();
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 << 10];
                while read_message(&mut stream, &mut buffer, case.request)
                    .await
                    .is_some()
                {
                    let answer = case.answer(numbers.fetch_add(1, Relaxed));
                    if stream.write_all(&answer).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

/// Asks from many connections for a while. Gives requests a second and the latencies.
async fn load(address: SocketAddr, case: &'static Case, seconds: f64) -> (f64, Vec<Duration>) {
    let request: Arc<[u8]> = case.request().into();
    let stop = Arc::new(AtomicBool::new(false));
    let began = Instant::now();
    let tasks: Vec<_> = (0..case.connections)
        .map(|_| {
            let (request, stop) = (request.clone(), stop.clone());
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                let mut buffer = vec![0; 64 << 10];
                let mut latencies = Vec::new();
                while !stop.load(Relaxed) {
                    let asked = Instant::now();
                    stream.write_all(&request).await.unwrap();
                    let answered = read_message(&mut stream, &mut buffer, case.answer).await;
                    assert_eq!(answered.as_ref(), Some(b"HTTP/1.1 200"));
                    latencies.push(asked.elapsed());
                }
                latencies
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    stop.store(true, Relaxed);
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    let rate = all.len() as f64 / began.elapsed().as_secs_f64();
    all.sort_unstable();
    (rate, all)
}

/// What one round found; or the median of rounds.
#[derive(Debug, Clone, Copy)]
struct Round {
    rate: f64,
    /// Microseconds; of CPU a request, with what of it is the kernel's.
    cpu: f64,
    system: f64,
    p50: f64,
    p99: f64,
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Round {
    fn of(relay: &Relay, case: &'static Case, callers: &Handle, seconds: f64) -> Self {
        let load = |seconds| {
            let (done, found) = std::sync::mpsc::channel();
            let address = relay.address;
            callers.spawn(async move { done.send(load(address, case, seconds).await) });
            found.recv().expect("every request is answered")
        };
        // Connections are made, and kept ones found, before the clock starts.
        load(0.2);
        let (cpu, system) = relay.cpu();
        let (rate, latencies) = load(seconds);
        let (cpu_after, system_after) = relay.cpu();
        let each = 1e6 / latencies.len() as f64;
        let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize];
        Self {
            rate,
            cpu: (cpu_after - cpu) * each,
            system: (system_after - system) * each,
            p50: at(0.5).as_secs_f64() * 1e6,
            p99: at(0.99).as_secs_f64() * 1e6,
        }
    }

    fn median(rounds: &[Self]) -> Self {
        let of = |what: fn(&Self) -> f64| median(rounds.iter().map(what).collect());
        Self {
            rate: of(|r| r.rate),
            cpu: of(|r| r.cpu),
            system: of(|r| r.system),
            p50: of(|r| r.p50),
            p99: of(|r| r.p99),
        }
    }
}

fn is_peer(name: &str) -> bool {
    matches!(name, "nginx" | "haproxy")
}

/// Measures one kind of request through each relay. Gives whether the aims are met, if there is a peer.
fn measure(
    case: &'static Case,
    names: &[&'static str],
    threads: &[Handle; 2],
    quick: bool,
    json: bool,
) -> bool {
    let [callers, enclaves] = threads;
    let (rounds, seconds) = if quick { (3, 1.0) } else { (7, 1.5) };
    let enclave = enclave(case, enclaves);
    let folders: Vec<_> = names.iter().map(|_| tempfile::tempdir().unwrap()).collect();
    let relays: Vec<Relay> = names
        .iter()
        .zip(&folders)
        .map(|(name, folder)| start(name, folder.path(), enclave, case))
        .collect();
    let mut taken = vec![Vec::new(); names.len()];
    for _ in 0..rounds {
        for (relay, taken) in relays.iter().zip(&mut taken) {
            taken.push(Round::of(relay, case, callers, seconds));
        }
    }
    let peers: Vec<usize> = (0..names.len()).filter(|n| is_peer(names[*n])).collect();
    // Of rounds that lie beside each other.
    let beside = |mine: usize, what: fn(&Round) -> f64| {
        let each = (0..rounds).map(|round| {
            let best = peers.iter().map(|peer| what(&taken[*peer][round]));
            best.fold(f64::INFINITY, f64::min) / what(&taken[mine][round])
        });
        median(each.collect())
    };
    let mut met = true;
    for (place, name) in names.iter().enumerate() {
        let found = Round::median(&taken[place]);
        let is_peer = peers.contains(&place);
        let ratios = (!is_peer && !peers.is_empty())
            .then(|| (beside(place, |r| r.cpu), beside(place, |r| r.p99)));
        if *name == "host"
            && let Some((cpu, p99)) = ratios
        {
            met = cpu >= AIM && p99 >= AIM;
        }
        if json {
            let ratios = ratios.map_or(String::new(), |(cpu, p99)| {
                format!(",\"cpu_ratio\":{cpu:.3},\"p99_ratio\":{p99:.3}")
            });
            println!(
                "{{\"case\":\"{}\",\"relay\":\"{name}\",\"connections\":{},\"threads\":{},\"bytes_in\":{},\"bytes_out\":{},\
                 \"per_second\":{:.0},\"cpu_us\":{:.2},\"kernel_us\":{:.2},\"p50_us\":{:.0},\"p99_us\":{:.0}{ratios}}}",
                case.name,
                case.connections,
                case.threads,
                case.request,
                case.answer,
                found.rate,
                found.cpu,
                found.system,
                found.p50,
                found.p99
            );
        } else {
            let ratios =
                ratios.map_or(String::new(), |(cpu, p99)| format!("{cpu:>9.2} {p99:>9.2}"));
            println!(
                "{:>16} {name:>9} {:>7} {:>8} {:>11.0} {:>11.2} {:>9.2} {:>9.0} {:>9.0} {ratios}",
                case.name,
                case.connections,
                case.threads,
                found.rate,
                found.cpu,
                found.system,
                found.p50,
                found.p99
            );
        }
    }
    met
}

fn start(name: &str, folder: &Path, enclave: SocketAddr, case: &Case) -> Relay {
    // Two for one thread, too: what a relay does beside relaying is counted, and keeps nobody waiting.
    let cores = pinned().then(|| programs::cores(0, 2));
    let cores = cores.as_deref();
    match name {
        "host" => {
            let program = env!("CARGO_BIN_EXE_host").as_ref();
            Relay::host(program, folder, enclave, case.threads, cores)
        }
        "before" => {
            let program = std::env::var_os("BEFORE").expect("it is named");
            Relay::host(program.as_ref(), folder, enclave, case.threads, cores)
        }
        peer => {
            let streamed = case.request > 64 << 10;
            Relay::peer(peer, folder, enclave, case.threads, cores, streamed)
        }
    }
}

/// Whether relay and load have cores of their own.
fn pinned() -> bool {
    let enough = std::thread::available_parallelism().is_ok_and(|cores| cores.get() >= 4);
    // Once the load is pinned fewer are available.
    static PINNED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *PINNED.get_or_init(|| enough && Command::new("taskset").arg("-V").output().is_ok())
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    // `cargo test --benches` and `cargo bench -- --list` only ask whether it is there.
    if has("--list") || has("--test") {
        return;
    }
    let (quick, json) = (has("quick"), has("json"));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if pinned() {
        // Threads that are started later stay there too.
        let own = std::process::id().to_string();
        let done = Command::new("taskset")
            .args(["-cp", &programs::cores(2, cores - 2), &own])
            .stdout(Stdio::null())
            .status();
        assert!(done.is_ok_and(|status| status.success()), "taskset");
    }
    let mut names = vec!["host"];
    if std::env::var_os("BEFORE").is_some() {
        names.push("before");
    }
    for (variable, name) in [("NGINX", "nginx"), ("HAPROXY", "haproxy")] {
        match std::env::var_os(variable) {
            Some(_) => names.push(name),
            None => eprintln!(
                "SKIPPED: {name} is NOT measured beside the host: {variable} names no program"
            ),
        }
    }
    if !json {
        println!("{}", programs::machine());
        println!(
            "{:>16} {:>9} {:>7} {:>8} {:>11} {:>11} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "",
            "",
            "conns",
            "threads",
            "requests/s",
            "CPU us/rq",
            "of kernel",
            "p50 us",
            "p99 us",
            "of CPU",
            "of p99"
        );
    }
    let threads = [thread(), thread()];
    let chosen: Vec<&Case> = CASES.iter().filter(|case| has(case.name)).collect();
    let chosen = match chosen.is_empty() {
        true => CASES.iter().collect(),
        false => chosen,
    };
    let mut missed = Vec::new();
    for case in chosen {
        if !measure(case, &names, &threads, quick, json) {
            missed.push(case.name);
        }
    }
    let has_peer = names.iter().any(|name| is_peer(name));
    if !json && has_peer {
        match missed.is_empty() {
            true => println!("met: at least {AIM} of the better peer, by CPU and by p99"),
            false => println!(
                "MISSED {AIM} of the better peer, by CPU or by p99: {}",
                missed.join(", ")
            ),
        }
    }
}
