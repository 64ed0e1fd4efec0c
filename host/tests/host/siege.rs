//! A host under siege: what honest callers notice of idle, slow and flooding ones.
//!
//! Used by the tests in a short form, and by `cargo bench -p host --bench siege` in a long one.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    enclave::Enclave,
    run::{Place, Process},
};

/// How much.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Connections that say nothing.
    pub idle: usize,
    /// Connections that say a byte a second.
    pub slow: usize,
    /// Time that is measured, and that each flood lasts.
    pub time: Duration,
}

/// What honest callers noticed.
#[derive(Debug, Clone)]
pub struct Figures {
    /// Requests answered.
    pub answered: usize,
    /// Requests not answered with 200.
    pub failed: usize,
    pub median: Duration,
    pub p99: Duration,
    /// Memory of the host: bytes.
    pub memory: u64,
}

/// A flood, and how long after its end honest callers were answered as before.
#[derive(Debug, Clone)]
pub struct Flood {
    pub name: &'static str,
    /// Connections or requests that it made.
    pub made: usize,
    pub during: Figures,
    pub recovered: Duration,
}

/// All of it.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub alone: Figures,
    pub besieged: Figures,
    pub idle_open: usize,
    pub floods: Vec<Flood>,
    pub memory_after: u64,
}

pub fn memory(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes << 10
}

/// One of many clients: loopback has sixteen million addresses.
async fn connect(client: usize, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let [_, a, b, c] = (client as u32).to_be_bytes();
    socket.bind(SocketAddr::from(([127, a | 1, b, c | 1], 0)))?;
    timeout(Duration::from_secs(5), socket.connect(to)).await?
}

/// Four callers, one request after the other, each with a little pause.
async fn honest(address: SocketAddr, time: Duration, process: &Process) -> Figures {
    let end = Instant::now() + time;
    let mut callers = JoinSet::new();
    for _ in 0..4 {
        callers.spawn(async move {
            let (mut times, mut failed) = (Vec::new(), 0);
            let mut kept: Option<TcpStream> = None;
            while Instant::now() < end {
                let began = Instant::now();
                let answered = timeout(Duration::from_secs(10), ask(&mut kept, address)).await;
                match answered {
                    Ok(Ok(())) => times.push(began.elapsed()),
                    _ => {
                        kept = None;
                        failed += 1;
                    }
                }
                sleep(Duration::from_millis(2)).await;
            }
            (times, failed)
        });
    }
    let (mut times, mut failed) = (Vec::new(), 0);
    while let Some(caller) = callers.join_next().await {
        let (more, not) = caller.unwrap();
        times.extend(more);
        failed += not;
    }
    times.sort_unstable();
    let at = |part: usize| {
        let place = (times.len() * part / 100).min(times.len().saturating_sub(1));
        times.get(place).copied().unwrap_or(Duration::MAX)
    };
    Figures {
        answered: times.len(),
        failed,
        median: at(50),
        p99: at(99),
        memory: memory(process),
    }
}

/// A request of ordinary size; every tenth on a new connection.
async fn ask(kept: &mut Option<TcpStream>, address: SocketAddr) -> std::io::Result<()> {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    if TURN.fetch_add(1, SeqCst).is_multiple_of(10) {
        *kept = None;
    }
    let stream = match kept {
        Some(stream) => stream,
        None => kept.insert(TcpStream::connect(address).await?),
    };
    stream.set_nodelay(true)?;
    let mut request = b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3000\r\n\r\n".to_vec();
    request.extend_from_slice(&[7; 3_000]);
    stream.write_all(&request).await?;
    let mut answer = Vec::with_capacity(4_096);
    while !answer.ends_with(&[7; 3_000]) {
        let mut piece = [0; 4_096];
        let count = stream.read(&mut piece).await?;
        answer.extend_from_slice(&piece[..count]);
        // A refusal is shorter than what is waited for.
        if count == 0 || (answer.len() > 12 && !answer.starts_with(b"HTTP/1.1 200 ")) {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
    }
    Ok(())
}

/// Says a byte a second of a head that never ends; begins anew when it is closed.
async fn slow(client: usize, address: SocketAddr) {
    loop {
        if let Ok(mut stream) = connect(client, address).await {
            for byte in b"GET /slow HTTP/1.1\r\nHost: h\r\nX: ".iter().cycle() {
                if stream.write_all(&[*byte]).await.is_err() {
                    break;
                }
                sleep(Duration::from_secs(1)).await;
            }
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// What a flooding caller does over and over again.
async fn flood(name: &str, client: usize, address: SocketAddr) -> std::io::Result<()> {
    let mut stream = connect(client, address).await?;
    let within = Duration::from_secs(3);
    match name {
        "connects" => {}
        "abandoned handshakes" => {
            stream.write_all(&[0x16, 3, 1, 2, 0, 1, 0]).await?;
            // Left open; the host has to end it.
            sleep(Duration::from_millis(300)).await;
        }
        "oversize headers" => {
            let head = vec![b'a'; 128 << 10];
            stream
                .write_all(b"GET / HTTP/1.1\r\nHost: h\r\nX: ")
                .await?;
            let _ = timeout(within, stream.write_all(&head)).await;
        }
        "endless headers" => {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n").await?;
            let lines = b"X-Y: z\r\n".repeat(100);
            let endless = async {
                loop {
                    stream.write_all(&lines).await?;
                }
            };
            let _: Result<std::io::Result<()>, _> = timeout(within, endless).await;
        }
        _ => {
            let requests = b"GET /p HTTP/1.1\r\nHost: h\r\n\r\n".repeat(1_000);
            let _ = timeout(within, stream.write_all(&requests)).await;
        }
    }
    Ok(())
}

const FLOODS: [&str; 5] = [
    "connects",
    "abandoned handshakes",
    "oversize headers",
    "endless headers",
    "pipelines",
];

/// Lays siege to a host of its own.
pub async fn siege(size: Size) -> Outcome {
    let enclave = Enclave::start().await;
    // A TLS listener that hears and says nothing: the worst for whoever waits for it.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tls = listener.local_addr().unwrap();
    let silent = tokio::spawn(async move {
        let mut held = JoinSet::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            held.spawn(async move {
                let mut heard = Vec::new();
                let _ = stream.read_to_end(&mut heard).await;
            });
        }
    });
    let place = Place::new(enclave.public, enclave.control)
        .with_tls(tls)
        .with(
            "",
            "connections = 12000\nclient_connections = 64\nin_flight = 512\nhandshake_timeout_ms = 2000",
        );
    let process = place.spawn();
    let address = process.address();
    // Warm.
    honest(address, size.time / 4, &process).await;
    let alone = honest(address, size.time, &process).await;

    let mut besiegers = JoinSet::new();
    for client in 0..size.slow {
        besiegers.spawn(slow(client << 8, address));
    }
    let mut idle = Vec::new();
    for client in 0..size.idle {
        if let Ok(stream) = connect((client << 8) + 2, address).await {
            idle.push(stream);
        }
    }
    // Every slow one has said something.
    sleep(Duration::from_millis(1_200)).await;
    let besieged = honest(address, size.time, &process).await;
    let idle_open = idle.iter().filter(|stream| is_open(stream)).count();
    besiegers.abort_all();
    while besiegers.join_next().await.is_some() {}
    drop(idle);

    let mut floods = Vec::new();
    for name in FLOODS {
        let (stop, made) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let mut callers = JoinSet::new();
        for client in 0..64 {
            let (stop, made) = (stop.clone(), made.clone());
            callers.spawn(async move {
                while !stop.load(SeqCst) {
                    // A dozen clients.
                    let _ = flood(name, (client % 12) << 8, address).await;
                    made.fetch_add(1, SeqCst);
                }
            });
        }
        let during = honest(address, size.time, &process).await;
        stop.store(true, SeqCst);
        let ended = Instant::now();
        callers.abort_all();
        while callers.join_next().await.is_some() {}
        // As before: twenty in a row, none of them slow.
        let mut good = 0;
        let mut kept = None;
        let usual = alone.p99 * 2 + Duration::from_millis(5);
        while good < 20 && ended.elapsed() < Duration::from_secs(30) {
            let began = Instant::now();
            match timeout(Duration::from_secs(5), ask(&mut kept, address)).await {
                Ok(Ok(())) if began.elapsed() < usual => good += 1,
                Ok(Ok(())) => good = 0,
                _ => {
                    kept = None;
                    good = 0;
                }
            }
        }
        floods.push(Flood {
            name,
            made: made.load(SeqCst),
            during,
            recovered: ended.elapsed(),
        });
    }
    sleep(Duration::from_millis(500)).await;
    let memory_after = memory(&process);
    silent.abort();
    Outcome {
        alone,
        besieged,
        idle_open,
        floods,
        memory_after,
    }
}

fn is_open(stream: &TcpStream) -> bool {
    let mut byte = [0];
    matches!(stream.try_read(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}
